"""What it takes to open a file now: its address, signed, and GDAL's settings for its server.

Decided by the address (``tables/endpoints.toml``) just before a file is opened. Secrets come from the environment or
from standard files (``~/.netrc``, ``~/.aws/credentials``) and stay in this process: nothing of an ``Access`` is stored,
and neither its ``repr`` nor rasterio's log shows them.

    EARTHDATA_TOKEN                            NASA; else the line for urs.earthdata.nasa.gov in ~/.netrc ($NETRC)
    CDSE_S3_ACCESS_KEY, CDSE_S3_SECRET_KEY     Copernicus Data Space; else the profile `cdse` of ~/.aws/credentials
    AWS_ACCESS_KEY_ID … or ~/.aws/credentials  requester-pays buckets; read by GDAL itself
"""

from __future__ import annotations

import atexit
import configparser
import contextlib
import functools
import netrc
import os
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from catalog.endpoints import Host, host_of
from catalog.signing import sign
from curate.errors import CatalogError
from curate.objects import gdal_path, gdal_settings

if TYPE_CHECKING:
    from rasterio.io import MemoryFile

EARTHDATA = "urs.earthdata.nasa.gov"
CDSE_PROFILE = "cdse"


@dataclass(frozen=True, slots=True)
class Access:
    """How one file is opened: ``with access.env(), rasterio.open(access.url)``."""

    url: str = field(repr=False)
    """Path, signed URL or ``/vsis3`` path."""
    options: Mapping[str, str] = field(default_factory=dict)
    """GDAL's settings for this file alone, none of them secret."""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secret settings of S3."""

    def env(self) -> AbstractContextManager[Any]:
        """The settings as a context; inside another ``rasterio.Env`` they hold beside its own."""
        if not (self.options or self.keys):
            return contextlib.nullcontext()
        import rasterio

        if not self.keys:
            return cast(AbstractContextManager[Any], rasterio.Env(**self.options))
        return cast(AbstractContextManager[Any], rasterio.Env(session=_keys_session(self.keys), **self.options))

    @property
    def is_secret(self) -> bool:
        """Whether an error message of GDAL may hold what nobody should read."""
        return bool(self.keys) or "?" in self.url

    def hide(self, text: str) -> str:
        """``text`` without the secrets of this access."""
        for secret in (self.url.partition("?")[2], *self.keys.values()):
            if secret:
                text = text.replace(secret, "…")
        return text


def access(href: str, signing: str | None = None) -> Access:
    """How to open an asset now; to be asked again for every file, because signatures expire within the hour.

    Args:
        href: Address of the asset as it stands in the scene: a path, ``https://`` or ``s3://``.
        signing: ``Scene.signing``.

    Raises:
        CatalogError: the server wants credentials and there are none; says which.
        OSError: the token service does not answer.
    """
    if signing is not None:
        return Access(sign(href, signing))
    host = host_of(href)
    url = gdal_path(href)
    if host is None:
        return Access(url, gdal_settings() if href.startswith("s3://") else {})
    if host.auth == "earthdata":
        return Access(url, _earthdata(host))
    if not href.startswith("s3://"):
        return Access(url)
    options = {"AWS_REGION": host.region} if host.region else {}
    if host.s3_endpoint:
        parts = urlsplit(host.s3_endpoint)
        options |= {
            "AWS_S3_ENDPOINT": parts.netloc,
            "AWS_HTTPS": "YES" if parts.scheme == "https" else "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }
    if host.auth == "none":
        return Access(url, {**options, "AWS_NO_SIGN_REQUEST": "YES"})
    if host.auth == "requester-pays":
        return Access(url, {**options, "AWS_REQUEST_PAYER": "requester", "AWS_NO_SIGN_REQUEST": "NO"})
    return Access(url, {**options, "AWS_NO_SIGN_REQUEST": "NO"}, _cdse())


def _earthdata(host: Host) -> dict[str, str]:
    token = os.environ.get("EARTHDATA_TOKEN")
    if token:
        # As a file in memory and not as an option: rasterio writes options into its log.
        return {"GDAL_HTTP_HEADER_FILE": _in_memory(f"Authorization: Bearer {token}\n").name}
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        known = path.is_file() and netrc.netrc(str(path)).authenticators(EARTHDATA) is not None
    except (netrc.NetrcParseError, OSError) as error:
        raise CatalogError(host.match[0], f"{path} cannot be read as a netrc file ({type(error).__name__})") from None
    if not known:
        raise CatalogError(
            host.match[0],
            f"its files want an Earthdata login, and there is neither EARTHDATA_TOKEN nor a line for {EARTHDATA} in "
            f"{path}; make a token at https://{EARTHDATA} and put it into the environment",
        )
    cookies = _cookie_jar()
    return {
        "GDAL_HTTP_NETRC": "YES",
        "GDAL_HTTP_NETRC_FILE": str(path),
        "GDAL_HTTP_COOKIEFILE": cookies,
        "GDAL_HTTP_COOKIEJAR": cookies,
    }


def _cdse() -> dict[str, str]:
    key, secret = os.environ.get("CDSE_S3_ACCESS_KEY"), os.environ.get("CDSE_S3_SECRET_KEY")
    if not (key and secret):
        path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
        profiles = configparser.ConfigParser(interpolation=None)
        try:
            profiles.read(path)
        except configparser.Error as error:
            raise CatalogError(str(path), f"cannot be read as an AWS file ({type(error).__name__})") from None
        if profiles.has_section(CDSE_PROFILE):
            key = profiles[CDSE_PROFILE].get("aws_access_key_id")
            secret = profiles[CDSE_PROFILE].get("aws_secret_access_key")
    if not (key and secret):
        raise CatalogError(
            "cdse",
            "its files want S3 keys, and there are neither CDSE_S3_ACCESS_KEY and CDSE_S3_SECRET_KEY nor a profile "
            f"'{CDSE_PROFILE}' in ~/.aws/credentials; make keys at https://eodata-s3keysmanager.dataspace.copernicus.eu",
        )
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}


@functools.cache
def _in_memory(text: str) -> MemoryFile:
    """A file that only GDAL in this process can see; it stays as long as the process."""
    from rasterio.io import MemoryFile

    return MemoryFile(text.encode())


@functools.cache
def _cookie_jar() -> str:
    """Path of the file for the login's cookie, which all further requests need; readable by the user alone, and gone
    with the process. curl reads it, so it cannot be in GDAL's memory.
    """
    folder = tempfile.TemporaryDirectory(prefix="curate-")
    atexit.register(folder.cleanup)
    return str(Path(folder.name) / "cookies")


def _keys_session(keys: Mapping[str, str]) -> Any:
    """rasterio's way to hand GDAL secret settings: as options they are refused."""
    from rasterio.session import Session

    class Keys(Session):  # type: ignore[misc]  # rasterio has no types
        def get_credential_options(self) -> dict[str, str]:
            return dict(keys)

    return Keys()
