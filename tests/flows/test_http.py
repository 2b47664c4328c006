"""The same dataset from a static catalog and files behind HTTP as from the same files on disk."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cube import load
from curate import remote
from flows.console import PlainConsole
from flows.steps import build, make_request
from simulate.write import World


class RangeHandler(SimpleHTTPRequestHandler):
    """Files with byte ranges, as object storage serves them."""

    protocol_version = "HTTP/1.1"
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        asked = self.headers.get("Range", "")
        path = Path(self.translate_path(self.path))
        if not asked.startswith("bytes=") or not path.is_file():
            super().do_GET()
            return
        size = path.stat().st_size
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last or size - 1), size - 1)
        if start >= size:
            self.send_error(416)
            return
        with path.open("rb") as file:
            file.seek(start)
            body = file.read(stop - start + 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def address(world: World) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(RangeHandler, directory=str(world.folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_pixels_over_http_are_those_of_the_disk(
    address: str, world: World, world_recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    request = make_request(
        aoi=str(world.region), recipe=str(world_recipe), catalog=f"{address}/catalog.json", out=str(out)
    )
    build(request, PlainConsole())
    assert RangeHandler.requests > 50
    pixels = [path.relative_to(dataset) for path in (dataset / "chips.zarr").rglob("*") if path.is_file()]
    for path in pixels:
        if path.name != "zarr.json":  # the documents bear the fingerprint of the recipe, which names the catalog
            assert (out / path).read_bytes() == (dataset / path).read_bytes(), path


def test_a_server_that_is_gone_is_told(world: World, world_recipe: Path, tmp_path: Path) -> None:
    from curate.errors import CatalogError

    request = make_request(
        aoi=str(world.region),
        recipe=str(world_recipe),
        catalog="http://127.0.0.1:1/catalog.json",
        out=str(tmp_path / "o"),
    )
    with pytest.raises(CatalogError, match=r"127\.0\.0\.1:1"):
        build(request, PlainConsole())


class TroubleHandler(RangeHandler):
    """A server on a bad day: some requests for pixels get 503, some a reset, some half an answer, some silence."""

    trouble: ClassVar[Counter[str]] = Counter()
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        key = f"{self.path} {asked}"
        type(self).asked[key] += 1
        # Each range fails at most once, so a client that tries again gets it.
        if not asked or type(self).asked[key] > 1:
            super().do_GET()
            return
        kind = ("503", "reset", "cut", "silence", "none")[sum(key.encode()) % 5]
        if kind == "silence" and type(self).trouble[kind] >= 3:
            kind = "none"
        type(self).trouble[kind] += 1
        if kind == "none":
            super().do_GET()
        elif kind == "503":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif kind == "cut":
            self.send_response(206)
            self.send_header("Content-Range", "bytes 0-99/1000000")
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        elif kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        else:
            time.sleep(4)
            self.close_connection = True


def test_503_resets_cut_answers_and_silence_do_not_change_a_pixel(
    world: World, world_recipe: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(load.GDAL_ENV, "GDAL_HTTP_LOW_SPEED_TIME", "2")
    monkeypatch.setitem(load.GDAL_ENV, "GDAL_HTTP_RETRY_DELAY", "0.05")
    monkeypatch.setattr(remote, "PAUSE_S", 0.05)
    out = tmp_path / "dataset"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(TroubleHandler, directory=str(world.folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        catalog = f"http://127.0.0.1:{server.server_port}/catalog.json"
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(without_labels(world_recipe.read_text()))
        request = make_request(aoi=str(world.region), recipe=str(recipe), catalog=catalog, out=str(out))
        build(request, PlainConsole())
        server.shutdown()
    assert all(TroubleHandler.trouble[kind] for kind in ("503", "reset", "cut", "silence")), TroubleHandler.trouble
    for path in (path for path in (out / "chips.zarr").rglob("c/*") if path.is_file()):
        assert path.read_bytes() == (dataset / path.relative_to(out)).read_bytes(), path


def without_labels(recipe: str) -> str:
    """A recipe without its labels, which lie on the disk beside it."""
    head, rest = recipe.split("labels:\n")
    return head + rest[rest.index("split:") :]
