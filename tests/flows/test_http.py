"""The same dataset from a static catalog and files behind HTTP as from the same files on disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

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
