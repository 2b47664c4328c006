"""What it takes to open a file: rules by address, secrets that stay inside, servers on loopback."""

from __future__ import annotations

import dataclasses
import http.server
import io
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import catalog.endpoints
from catalog.access import Access, access
from catalog.endpoints import Host, endpoint_named, host_of, hosts
from catalog.lock import LockedItem, lock_bytes
from catalog.scenes import to_scene
from catalog.search import open_catalog
from curate.errors import CatalogError

Item = dict[str, Any]
TOKEN = "eyJ-very-secret-token"
KEY, SECRET = "AKIDVERYSECRET", "wJalr-very-secret-key"


class Server:
    """Serves one raster; keeps every request's path and headers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.token: str | None = None
        self.url = ""

    @property
    def netloc(self) -> str:
        return self.url.removeprefix("http://")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    path = tmp_path / "a.tif"
    profile: dict[str, Any] = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=from_origin(500000, 5400000, 10, 10), **profile) as file:
        file.write(np.full((1, 8, 8), 7, "uint8"))
    data = path.read_bytes()
    served = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.reply(body=False)

        def do_GET(self) -> None:
            self.reply(body=True)

        def reply(self, *, body: bool) -> None:
            served.asked.append((self.path, dict(self.headers)))
            if served.token is not None and self.headers.get("Authorization") != f"Bearer {served.token}":
                self.send_response(401)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            first, _, last = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last) + 1 if last else None]
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
            self.end_headers()
            if body:
                self.wfile.write(part)

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    served.url = f"http://127.0.0.1:{running.server_port}"
    yield served
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ("EARTHDATA_TOKEN", "NETRC", "CDSE_S3_ACCESS_KEY", "CDSE_S3_SECRET_KEY", "AWS_SHARED_CREDENTIALS_FILE")
    for name in (*names, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts one row in the place of the table of hosts."""

    def use(match: str, auth: Any, **fields: Any) -> None:
        row = Host((match,), auth, fields.get("region"), fields.get("s3_endpoint"), None, "")
        monkeypatch.setattr(catalog.endpoints, "hosts", lambda: (row,))

    return use


def read(reach: Access) -> int:
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), reach.env(), rasterio.open(reach.url) as file:
        return int(file.read(1)[0, 0])


# -- the rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("href", "url", "options"),
    [
        ("/data/x.tif", "/data/x.tif", {}),
        ("https://example.com/x.tif", "https://example.com/x.tif", {}),
        ("s3://my-bucket/x.tif", "/vsis3/my-bucket/x.tif", {}),
        (
            "s3://copernicus-dem-30m/x.tif",
            "/vsis3/copernicus-dem-30m/x.tif",
            {"AWS_REGION": "eu-central-1", "AWS_NO_SIGN_REQUEST": "YES"},
        ),
        (
            "s3://deafrica-sentinel-2/x.tif",
            "/vsis3/deafrica-sentinel-2/x.tif",
            {"AWS_REGION": "af-south-1", "AWS_NO_SIGN_REQUEST": "YES"},
        ),
        (
            "s3://usgs-landsat/x.TIF",
            "/vsis3/usgs-landsat/x.TIF",
            {"AWS_REGION": "us-west-2", "AWS_REQUEST_PAYER": "requester", "AWS_NO_SIGN_REQUEST": "NO"},
        ),
    ],
)
def test_the_address_decides(href: str, url: str, options: dict[str, str]) -> None:
    reach = access(href)
    assert (reach.url, dict(reach.options), dict(reach.keys)) == (url, options, {})


def test_copernicus_keys_come_from_the_environment_or_the_aws_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    href = "s3://eodata/Sentinel-2/x.jp2"
    with pytest.raises(CatalogError, match=r"wants? S3 keys, and there are neither CDSE_S3_ACCESS_KEY and"):
        access(href)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[cdse]\naws_access_key_id = A%1\naws_secret_access_key = B%2\n")
    assert dict(access(href).keys) == {"AWS_ACCESS_KEY_ID": "A%1", "AWS_SECRET_ACCESS_KEY": "B%2"}
    monkeypatch.setenv("CDSE_S3_ACCESS_KEY", KEY)
    monkeypatch.setenv("CDSE_S3_SECRET_KEY", SECRET)
    reach = access(href)
    assert dict(reach.keys) == {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    assert reach.options["AWS_S3_ENDPOINT"] == "eodata.dataspace.copernicus.eu"
    assert (reach.options["AWS_VIRTUAL_HOSTING"], reach.options["AWS_HTTPS"]) == ("FALSE", "YES")


def test_earthdata_wants_a_token_or_a_line_in_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    href = "https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/HLSS30.020/x.tif"
    with pytest.raises(CatalogError, match=r"neither EARTHDATA_TOKEN nor a line for urs.earthdata.nasa.gov"):
        access(href)
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine elsewhere login a password b\n")
    netrc.chmod(0o600)
    with pytest.raises(CatalogError, match="neither EARTHDATA_TOKEN nor a line"):
        access(href)
    netrc.write_text("machine urs.earthdata.nasa.gov login me password hush\n")
    options = access(href).options
    assert options["GDAL_HTTP_NETRC_FILE"] == str(netrc)
    assert options["GDAL_HTTP_COOKIEFILE"] == options["GDAL_HTTP_COOKIEJAR"]
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    assert set(access(href).options) == {"GDAL_HTTP_HEADER_FILE"}


def test_a_netrc_that_cannot_be_read_is_named_without_its_words(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine urs.earthdata.nasa.gov login me passwort hush\n")
    with pytest.raises(CatalogError, match="cannot be read as a netrc file") as error:
        access("https://data.lpdaac.earthdatacloud.nasa.gov/x.tif")
    assert "hush" not in str(error.value)


def test_landsat_of_usgs_is_opened_on_s3_where_no_login_is_wanted(shared_data: Path) -> None:
    items = open_catalog(shared_data / "stac" / "items" / "usgs-landsatlook__landsat-c2l2-sr.json").search(
        ["landsat-c2l2-sr"], *_anywhere()
    )
    hrefs = [item["assets"]["red"]["href"] for item in items if "red" in item["assets"]]
    assert hrefs
    assert all(href.startswith("s3://usgs-landsat/") for href in hrefs)


def _anywhere() -> tuple[Any, None, None]:
    import shapely

    return shapely.box(-180, -90, 180, 90), None, None


def test_every_row_of_the_table_is_whole() -> None:
    for host in hosts():
        assert host.match
        assert all(start.startswith(("s3://", "https://")) for start in host.match)
        assert host.source.startswith("https://")
        assert host.region or not host.match[0].startswith("s3://")
    for name in ("cdse", "nasa", "usgs", "deafrica", "dea"):
        endpoint = endpoint_named(name)
        assert endpoint is not None
        assert endpoint.source.startswith("https://")
        assert endpoint.requests_per_s
    assert host_of("s3://usgs-landsat-other/x.tif") is None


# -- over the wire ----------------------------------------------------------------------------------------------------


def test_a_public_bucket_is_read_without_a_signature(server: Server, serve: Callable[..., None]) -> None:
    serve("s3://open/", "none", region="eu-central-1", s3_endpoint=server.url)
    assert read(access("s3://open/folder/a.tif")) == 7
    assert {path for path, _ in server.asked} == {"/open/folder/a.tif"}
    assert not any("Authorization" in headers for _, headers in server.asked)


def test_a_requester_pays_bucket_is_told_who_pays(
    server: Server, serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    serve("s3://paid/", "requester-pays", region="us-west-2", s3_endpoint=server.url)
    assert read(access("s3://paid/b.tif")) == 7
    headers = {name.lower(): value for name, value in server.asked[-1][1].items()}
    assert headers["x-amz-request-payer"] == "requester"
    assert f"Credential={KEY}/" in headers["authorization"]
    assert "/us-west-2/s3/" in headers["authorization"]


def test_keys_of_copernicus_win_over_those_of_aws(
    server: Server, serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "OTHER")
    monkeypatch.setenv("CDSE_S3_ACCESS_KEY", KEY)
    monkeypatch.setenv("CDSE_S3_SECRET_KEY", SECRET)
    serve("s3://eodata/", "cdse", region="default", s3_endpoint=server.url)
    assert read(access("s3://eodata/c.tif")) == 7
    assert f"Credential={KEY}/" in server.asked[-1][1]["Authorization"]


def test_a_token_of_earthdata_goes_with_every_request(
    server: Server, serve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = TOKEN
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    serve(f"{server.url}/protected/", "earthdata")
    assert read(access(f"{server.url}/protected/d.tif")) == 7
    # The settings are for this file alone.
    with pytest.raises(rasterio.errors.RasterioIOError):
        read(Access(f"{server.url}/protected/e.tif"))


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_are_in_no_repr_no_log_and_no_lock(
    server: Server,
    serve: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    s2_item: Callable[..., Item],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    monkeypatch.setenv("CDSE_S3_ACCESS_KEY", KEY)
    monkeypatch.setenv("CDSE_S3_SECRET_KEY", SECRET)
    said = io.StringIO()
    locked = []
    for match, auth, href in (
        (f"{server.url}/f/", "earthdata", f"{server.url}/f/f.tif"),
        ("s3://eodata/", "cdse", "s3://eodata/f/g.tif"),
    ):
        serve(match, auth, region="default", s3_endpoint=server.url)
        reach = access(href)
        assert read(reach) == 7
        said.write(repr(reach) + str(reach))
        item = s2_item()
        item["assets"]["B04"] = {"href": href}  # no projection: the header is opened
        del item["properties"]["proj:epsg"]
        scene = to_scene(item, source="s2", collection="sentinel-2-l2a", bands=["red"])
        assert scene.assets[0].shape == (8, 8)
        locked.append(LockedItem({**item, "id": href}, "s2", "used", "", scene))
        said.write(repr(scene))
        locked_scene = pickle.dumps(scene)
        assert not any(secret.encode() in locked_scene for secret in (TOKEN, KEY, SECRET))
    data = lock_bytes(locked)
    for secret in (TOKEN, KEY, SECRET):
        assert secret not in said.getvalue()
        assert secret not in caplog.text
        assert secret.encode() not in data
    assert caplog.text


def test_a_message_of_gdal_is_cleaned_of_signature_and_keys() -> None:
    reach = Access("https://x.blob/y.tif?sig=abc", keys={"AWS_SECRET_ACCESS_KEY": SECRET})
    assert reach.hide(f"HTTP 403 for https://x.blob/y.tif?sig=abc with {SECRET}") == (
        "HTTP 403 for https://x.blob/y.tif?… with …"
    )
    assert "sig" not in repr(reach)
    assert reach.is_secret
    assert not dataclasses.replace(reach, url="/a.tif", keys={}).is_secret
