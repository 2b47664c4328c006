"""What `docker/seed.py` puts into a service: every item of the world once, with files that are there."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests

from simulate.world import WorldSpec
from simulate.write import World, write_world


class Api(ThreadingHTTPServer):
    """As much of a STAC API with transactions as is needed: keeps what is posted, refuses what is there already."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kept: dict[str, Any] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Api

    def _answer(self, status: int, text: str = "{}") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _document(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def do_POST(self) -> None:
        document = self._document()
        where = f"{self.path}/{document['id']}"
        self.server.asked.append(f"POST {self.path}")
        if "/items" in self.path and self.path.removesuffix("/items") not in self.server.kept:
            self._answer(404, "no such collection")
        elif where in self.server.kept:
            self._answer(409, "is there already")
        else:
            self.server.kept[where] = document
            self._answer(201)

    def do_PUT(self) -> None:
        self.server.kept[self.path] = self._document()
        self.server.asked.append(f"PUT {self.path}")
        self._answer(200)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def seed(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("seed", root / "docker/seed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    spec = WorldSpec(size_px=64, dates=2, every_days=30, bands=("B04",), radar_dates=1, osm=True)
    world = write_world(tmp_path_factory.mktemp("seed") / "world", spec)
    (world.folder / "recipe.yaml").write_text("name: small\n")
    return world


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def test_every_item_is_there_with_files_that_all_workers_find(seed: ModuleType, small: World, api: Api) -> None:
    written = {path.stem for path in small.folder.glob("*/*/*.json")}
    told = seed.load(small.folder, api.url)
    found = {name: document for name, document in api.kept.items() if "/items/" in name}
    assert {name.rpartition("/")[2] for name in found} == written
    assert told == (len(api.kept) - len(found), len(written))
    hrefs = [asset["href"] for item in found.values() for asset in item["assets"].values()]
    assert hrefs
    assert all(Path(unquote(urlsplit(href).path)).is_file() for href in hrefs if href.startswith("file:///"))
    assert not [href for href in hrefs if "://" not in href]
    assert not [link for document in api.kept.values() for link in document["links"]]


def test_filling_it_twice_leaves_what_filling_it_once_does(seed: ModuleType, small: World, api: Api) -> None:
    seed.load(small.folder, api.url)
    once = dict(api.kept)
    n_asked = len(api.asked)
    seed.load(small.folder, api.url)
    assert api.kept == once
    assert {line.split()[0] for line in api.asked[n_asked:]} == {"POST", "PUT"}


def test_a_server_that_refuses_is_told_with_its_words(seed: ModuleType, small: World, api: Api) -> None:
    item = next(seed.items(small.folder))
    with requests.Session() as session, pytest.raises(requests.HTTPError, match="404: no such collection"):
        seed.put(session, f"{api.url}/collections/{item['collection']}/items", item)


def test_a_world_that_is_there_is_taken_as_it_is(
    seed: ModuleType, small: World, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    seed.main(["--folder", str(small.folder.parent), "--stac", f"{api.url}/"])
    n_items = len([name for name in api.kept if "/items/" in name])
    assert f"{len(api.kept) - n_items} collections and {n_items} items are in" in capsys.readouterr().out


def test_a_server_that_is_not_there_ends_it_with_a_sentence(seed: ModuleType, small: World) -> None:
    with pytest.raises(SystemExit, match=r"seed: .*refused"):
        seed.main(["--folder", str(small.folder.parent), "--stac", "http://127.0.0.1:9"])


def test_a_bucket_that_is_there_stays(seed: ModuleType, bucket: str, s3_server: str) -> None:
    from obstore.store import S3Store

    store = S3Store.from_url(bucket, client_options={"allow_http": True})
    store.put("object", b"kept")
    seed.make_bucket(f"{s3_server}/{bucket.removeprefix('s3://')}")
    assert bytes(store.get("object").bytes()) == b"kept"
    seed.make_bucket(f"{s3_server}/another")
    assert requests.head(f"{s3_server}/another", timeout=10).ok
