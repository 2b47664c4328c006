"""Object storage by address, through obstore: with explicit timeouts and retries, and reasons that a person can act on.

    s3://bucket/key     AWS_ACCESS_KEY_ID … or a profile of ~/.aws, or the role of the machine; AWS_ENDPOINT_URL
    gs://bucket/key     GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default login`
    az://container/key  AZURE_STORAGE_ACCOUNT_NAME with a key, a token, a service principal or a managed identity

Keys and endpoints come from the environment of the process that opens the storage. They are in no address, document or
message of ours, so every worker needs its own.
"""

from __future__ import annotations

import configparser
import datetime as dt
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from obstore.store import ObjectStore

S3_SCHEMES = ("s3", "s3a")
SCHEMES = (*S3_SCHEMES, "gs", "az", "azure", "abfs", "abfss", "adl", "memory")

CONNECT_TIMEOUT_S = 10
SILENCE_TIMEOUT_S = 30
"""A server that says nothing for so long is given up, and asked again."""
REQUEST_TIMEOUT_S = 300
"""One request as a whole; the largest is a part of an upload, or an object of up to 128 MiB."""
RETRIES = 6
"""After a 5xx, a 429, a broken connection or silence; what a server refuses is not asked again."""
RETRY_FOR_S = 180
PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0


def is_object_url(text: str) -> bool:
    """Whether a text is an address in object storage, by its scheme."""
    return re.match(rf"({'|'.join(SCHEMES)})://", text) is not None


def open_objects(url: str) -> ObjectStore:
    """The objects below an address such as ``s3://bucket/folder``; nothing is asked of the server yet.

    Raises:
        ObjectsError: The address cannot be understood, or it is clear already that there are no credentials.
    """
    import obstore
    from obstore.store import from_url

    scheme, bucket = urlsplit(url)[:2]
    if scheme not in SCHEMES:
        raise ObjectsError(f"{scheme}:// is no storage that can be opened here; known are s3://, gs:// and az://")
    if scheme == "memory":
        return from_url(url)
    if not bucket:
        raise ObjectsError(f"the address names no bucket; wanted is {scheme}://bucket/folder")
    if scheme in S3_SCHEMES:
        config, endpoint = _s3_config(), s3_endpoint()
    else:
        config, endpoint = {}, os.environ.get("AZURE_STORAGE_ENDPOINT")
    if endpoint and not re.match(r"https?://[^/\s]", endpoint):
        raise ObjectsError(f"the endpoint is no web address; set {_ENDPOINT} to https://host, or to http://host:port")
    try:
        found: ObjectStore = from_url(  # type: ignore[call-overload]  # it has an overload a scheme
            url, config=config, client_options=_client(endpoint), retry_config=_retries()
        )
    except (obstore.exceptions.BaseError, ValueError) as error:
        if "Account must be specified" in str(error):
            raise ObjectsError("it is not said whose container this is; set AZURE_STORAGE_ACCOUNT_NAME") from error
        raise ObjectsError(_first_line(error)) from error
    return found


def read_object(url: str) -> bytes:
    """The content of one object.

    Raises:
        ObjectsError: It is not there or cannot be read; says why and what to do.
    """
    return b"".join(_pieces(url))


def _pieces(url: str) -> Iterator[bytes]:
    import obstore

    folder, _, name = url.rpartition("/")
    store = open_objects(folder)
    try:
        for piece in obstore.get(store, name).stream(min_chunk_size=8 * 2**20):
            yield bytes(piece)
    except (obstore.exceptions.BaseError, OSError) as error:
        raise ObjectsError("; ".join(reason(error))) from error


class Nearby:
    """Files of object storage as files on the disk, for readers that want a path. Make it with ``nearby``."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._addresses: dict[str, str] = {}

    def path(self, where: str) -> str:
        """Where a file lies on the disk, brought there if it is in object storage; other addresses as they are.

        Raises:
            ObjectsError: It is not there or cannot be read.
        """
        if where.startswith("file://"):
            return unquote(urlsplit(where).path)
        if not is_object_url(where):
            return where
        # A folder a file: the names are kept, because what is read from a file may be called after it.
        path = Path(self._folder, str(len(self._addresses)), where.rpartition("/")[2])
        path.parent.mkdir()
        with path.open("wb") as file:
            file.writelines(_pieces(where))
        self._addresses[str(path)] = where
        return str(path)

    def told(self, text: str) -> str:
        """A sentence with the addresses that the user knows in place of the paths."""
        for path, address in self._addresses.items():
            text = text.replace(path, address)
        return text


@contextmanager
def nearby() -> Iterator[Nearby]:
    """A place on the disk for files of object storage, gone with the context."""
    with tempfile.TemporaryDirectory(prefix="curate-") as folder:
        yield Nearby(folder)


def gdal_path(where: str) -> str:
    """A path or an address as GDAL takes it; ``/vsis3/…``, because rasterio's own way to ``s3://`` goes by boto3."""
    return f"/vsis3/{where.removeprefix('s3://')}" if where.startswith("s3://") else where


def gdal_settings() -> dict[str, str]:
    """What GDAL must be told to find ``/vsis3/`` where the AWS tools find it; credentials it finds by itself."""
    settings = {}
    if endpoint := s3_endpoint():
        parts = urlsplit(endpoint)
        settings = {
            "AWS_S3_ENDPOINT": parts.netloc + parts.path.rstrip("/"),
            "AWS_HTTPS": "YES" if parts.scheme == "https" else "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }
    if s3_unsigned():
        settings["AWS_NO_SIGN_REQUEST"] = "YES"
    return settings


def s3_endpoint() -> str | None:
    """The server that the user has set for ``s3://``, as the AWS tools find it; None for Amazon's own."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    found = next((value for name in names if (value := os.environ.get(name))), None)
    return found or _profile().get("endpoint_url")


def s3_unsigned() -> bool:
    """Whether the user wants ``s3://`` read without credentials, as public buckets are."""
    return os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("true", "1", "yes")


def s3_region() -> str | None:
    """The region that the user has set for ``s3://``, as the AWS tools find it; None where nothing says it."""
    names = ("AWS_REGION", "AWS_DEFAULT_REGION")
    found = next((value for name in names if (value := os.environ.get(name))), None)
    return found or _profile().get("region")


class ObjectsError(Exception):
    """Why object storage cannot be used, in words; whoever knows what it was for makes an error of ours of it."""


def no_bucket(error: Exception) -> bool:
    """Whether it is not an object that is missing but the bucket."""
    return _code(error) in ("NoSuchBucket", "ContainerNotFound")


def reason(error: Exception) -> tuple[str, str]:
    """(what happened, what to do) for an error of obstore; without addresses, which may hold a signature."""
    text, code = str(error), _code(error)
    if no_bucket(error):
        return "there is no such bucket", "create it, or correct its name"
    if isinstance(error, FileNotFoundError):
        return "there is no such object", "correct the address"
    if re.search(r"169\.254\.169\.254|metadata\.google|fetch_?token|credential_process", text):
        return "no credentials were found", _HOW_TO_SIGN
    if code in _REFUSED or "401 " in text or "Unauthenticated" in type(error).__name__:
        return f"the credentials were refused ({code or '401'})", "check that they are right and not expired"
    if code == "AccessDenied" or "403 " in text or "PermissionDenied" in type(error).__name__:
        return f"permission was denied ({code or '403'})", "let these credentials list, read, write and delete there"
    if code in _OTHER_REGION or "redirect without LOCATION" in text:
        return "the bucket lies in another region", "set AWS_REGION to its region"
    if "kind: Timeout" in text:
        return "the storage did not answer in time", "try again later"
    if "kind: Connect" in text or "client error (Connect)" in text:
        return "the storage cannot be reached", f"check the network, and {_ENDPOINT} if it is set"
    if "HttpError" in text or "error reading a body" in text:
        return f"the connection to the storage broke off{_tries(text)}", "try again later"
    if status := re.search(r"(?:code: |status )(\d{3} [A-Z][\w ]*\w)", text):
        return f"the storage answered {status[1]}{_tries(text)}", "try again later"
    return _first_line(error), "see that the storage can be reached and written"


_REFUSED = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
    *("InvalidClientTokenId", "AuthenticationFailed", "InvalidAuthenticationInfo", "RequestTimeTooSkewed"),
}
_OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_ENDPOINT = "AWS_ENDPOINT_URL (AZURE_STORAGE_ENDPOINT)"
_HOW_TO_SIGN = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or GOOGLE_APPLICATION_CREDENTIALS, or, to read a "
    "public bucket, AWS_SKIP_SIGNATURE=true"
)


def _code(error: Exception) -> str | None:
    """The word that S3, Google and Azure give beside the status: ``<Code>NoSuchBucket</Code>``."""
    found = re.search(r"<Code>(\w+)</Code>|\(code: (\w+)\)|\bcode: \"(\w+)\"", str(error))
    return found[1] or found[2] or found[3] if found else None


def _tries(text: str) -> str:
    found = re.search(r"after (\d+) retries", text)
    return f" {int(found[1]) + 1} times" if found else ""


def _first_line(error: Exception) -> str:
    # obstore: "Generic LocalFileSystem error: …: No space left on device (os error 28)", then a page for debuggers.
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^Generic \w+ error: | \(os error \d+\)$", "", line)
    return re.sub(r"https?://\S+", "the server", line)


def _client(endpoint: str | None) -> dict[str, Any]:
    return {
        "connect_timeout": dt.timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": dt.timedelta(seconds=SILENCE_TIMEOUT_S),
        "timeout": dt.timedelta(seconds=REQUEST_TIMEOUT_S),
        # Only where the user wrote http:// themselves, as for a server on the own machine.
        "allow_http": (endpoint or "").startswith("http://"),
    }


def _retries() -> dict[str, Any]:
    pause, longest = dt.timedelta(seconds=PAUSE_S), dt.timedelta(seconds=LONGEST_PAUSE_S)
    return {
        "max_retries": RETRIES,
        "retry_timeout": dt.timedelta(seconds=RETRY_FOR_S),
        "backoff": {"init_backoff": pause, "max_backoff": longest, "base": 2},
    }


def _s3_config() -> dict[str, Any]:
    """What obstore does not find by itself: the files of the AWS command line. The environment wins over them."""
    config: dict[str, Any] = {}
    profile = _profile()
    if region := s3_region():
        config["region"] = region
    if endpoint := s3_endpoint():
        config["endpoint"] = endpoint
    if bool(os.environ.get("AWS_ACCESS_KEY_ID")) != bool(os.environ.get("AWS_SECRET_ACCESS_KEY")):
        raise ObjectsError(f"the credentials are not complete; {_HOW_TO_SIGN}")
    if any(os.environ.get(name) for name in _SIGNED_BY):
        return config
    if "aws_access_key_id" in profile and "aws_secret_access_key" in profile:
        config["access_key_id"] = profile["aws_access_key_id"]
        config["secret_access_key"] = profile["aws_secret_access_key"]
        if "aws_session_token" in profile:
            config["session_token"] = profile["aws_session_token"]
        return config
    if name := os.environ.get("AWS_PROFILE"):
        raise ObjectsError(
            f"the profile {name} of ~/.aws has no keys of its own; put those it stands for into the environment: "
            f'eval "$(aws configure export-credentials --profile {name} --format env)"'
        )
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise ObjectsError(f"no credentials were found; {_HOW_TO_SIGN}")
    return config


_SIGNED_BY = (
    *("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)


def _profile() -> Mapping[str, str]:
    """The settings of $AWS_PROFILE, or of ``default``, in ~/.aws/config and ~/.aws/credentials; the latter win."""
    name = os.environ.get("AWS_PROFILE") or "default"
    found: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", "default" if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        path = Path(os.environ.get(variable) or Path.home() / ".aws" / file)
        profiles = configparser.ConfigParser(interpolation=None)
        try:
            profiles.read(path)
        except configparser.Error as error:
            raise ObjectsError(f"{path} cannot be read as an AWS file ({type(error).__name__})") from None
        if profiles.has_section(section):
            found |= dict(profiles[section])
    return found
