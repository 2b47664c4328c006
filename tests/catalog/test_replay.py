"""Searches against a server that answers as the real endpoints did, page by page."""

from __future__ import annotations

import datetime as dt
import gzip
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import shapely

from catalog.acquisitions import acquisition_keys
from catalog.collections import collection, collection_names
from catalog.request import find
from catalog.scenes import missing_bands, says_projection, to_scene
from catalog.search import StacApi

Item = dict[str, Any]
PC = "https://planetarycomputer.microsoft.com/api/stac/v1"
CDSE = "https://stac.dataspace.copernicus.eu/v1"
VERMONT = shapely.box(-73.21, 43.99, -73.12, 44.05)
START, END = dt.datetime(2000, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def exchanges(shared_data: Path) -> list[Item]:
    """Recorded requests and answers, in the order of the recording."""
    path = shared_data / "stac" / "api_exchanges.jsonl.gz"
    if not path.is_file():
        pytest.skip("the recorded exchanges are not here: no ../shared/data/stac/api_exchanges.jsonl.gz")
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


class Replay:
    """Answers a search with the recorded one that ``first`` picks, and every token with the page recorded for it."""

    def __init__(self, exchanges: list[Item], root: str) -> None:
        self.root, self.url = root, ""
        self.asked: list[Item] = []
        self.first: Callable[[Item], bool] = lambda body: True
        self.landing = next(one["response"]["body"] for one in exchanges if one["request"]["uri"].rstrip("/") == root)
        self.searches = [
            (_body(one), one["response"]["body"])
            for one in exchanges
            if one["request"]["uri"] == f"{root}/search" and one["request"]["method"] == "POST"
        ]

    def answer(self, asked: Item) -> Item:
        """The recorded page; further pages that nobody recorded do not exist."""
        self.asked.append(asked)
        token = asked.get("token")
        page = next(page for body, page in self.searches if (body.get("token") == token if token else self.first(body)))
        known = {body.get("token") for body, _ in self.searches}
        links = [link for link in page["links"] if link["rel"] != "next" or link["body"]["token"] in known]
        return {**page, "links": self.here(links)}

    def here(self, links: list[Item]) -> list[Item]:
        """Links with this server in the place of the real one."""
        return [{**link, "href": link["href"].replace(self.root, self.url)} for link in links]


def _body(exchange: Item) -> Item:
    body = exchange["request"]["body"] or {}
    return json.loads(body) if isinstance(body, str) else body


@pytest.fixture
def replay(exchanges: list[Item]) -> Iterator[Callable[[str], Replay]]:
    running: list[http.server.ThreadingHTTPServer] = []

    def serve(root: str) -> Replay:
        served = Replay(exchanges, root)

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def reply(self, document: Item) -> None:
                data = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self.reply({**served.landing, "links": served.here(served.landing["links"])})

            def do_POST(self) -> None:
                self.reply(served.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        served.url = f"http://127.0.0.1:{server.server_port}"
        return served

    yield serve
    for server in running:
        server.shutdown()
        server.server_close()


def test_planetary_computer_pages_by_token(replay: Callable[[str], Replay]) -> None:
    server = replay(PC)
    server.first = lambda body: body.get("bbox") is not None and body.get("limit") == 10
    items = StacApi(server.url).search(["naip"], VERMONT, START, END, limit_page=10)
    assert len(items) == 20
    assert [asked.get("token") for asked in server.asked] == [None, "next:naip:vt_m_4307307_nw_18_060_20211029"]
    assert server.asked[0]["intersects"]["type"] == "Polygon"


def test_aerial_images_become_scenes_with_four_layers_of_one_file(replay: Callable[[str], Replay]) -> None:
    server = replay(PC)
    server.first = lambda body: "intersects" in body and body["collections"] == ["naip"]
    rows = find(
        StacApi(server.url),
        source="naip",
        collection="naip",
        bands=["red", "nir"],
        aoi_geometry=VERMONT,
        start=dt.datetime(2014, 1, 1, tzinfo=dt.UTC),
        end=END,
    )
    scenes = [row.scene for row in rows if row.scene is not None]
    assert scenes
    assert all(scene.acquired is not None and scene.acquired.year >= 2014 for scene in scenes)
    for scene in scenes:
        assert [(asset.layer, asset.key) for asset in scene.assets] == [(1, "image"), (4, "image")]
        assert scene.epsg // 100 == 269
        assert scene.signing == "planetary-computer"


def test_a_query_that_the_server_applied_holds_here_too(replay: Callable[[str], Replay]) -> None:
    server = replay(PC)
    server.first = lambda body: body.get("query") == {"gsd": {"eq": 0.6}}
    items = StacApi(server.url).search(["naip"], VERMONT, START, END, query={"gsd": {"eq": 0.6}})
    assert len(items) == 12
    assert server.asked[0]["query"] == {"gsd": {"eq": 0.6}}


def test_copernicus_tiles_of_one_datatake_are_one_step(replay: Callable[[str], Replay]) -> None:
    server = replay(CDSE)
    server.first = lambda body: body.get("bbox") == [9.0, 47.0, 9.1, 47.1]
    rows = find(
        StacApi(server.url),
        source="s2",
        collection="sentinel-2-l2a",
        bands=["red", "nir08", "scl"],
        aoi_geometry=shapely.box(9.0, 47.0, 9.1, 47.1),
        start=dt.datetime(2020, 7, 1, tzinfo=dt.UTC),
        end=dt.datetime(2020, 7, 6, tzinfo=dt.UTC),
    )
    scenes = [row.scene for row in rows if row.scene is not None]
    assert [(scene.acquisition, scene.tile) for scene in scenes] == [
        ("S2A_20200703T103031", "32TMT"),
        ("S2A_20200703T103031", "32TNT"),
        ("S2B_20200705T101559", "32TMT"),
        ("S2B_20200705T101559", "32TNT"),
    ]
    assert {scene.radiometry.offset_dn for scene in scenes} == {-1000}
    assert {scene.epsg for scene in scenes} == {32632}
    assert all(asset.href.startswith("s3://eodata/") for scene in scenes for asset in scene.assets)


def test_every_item_in_every_recorded_answer_becomes_a_scene(exchanges: list[Item]) -> None:
    names = {alias for name in collection_names() for alias in (name, *collection(name).aliases)}
    found: dict[tuple[str, str], Item] = {}
    for exchange in exchanges:
        body = exchange["response"]["body"]
        if isinstance(body, dict):
            for item in body.get("features", [body]):
                if item.get("collection") in names and item.get("assets"):
                    found[item["collection"], item["id"]] = item
    scenes: dict[str, int] = {}
    for (name, _), item in found.items():
        table = collection(name)
        bands = [band for band in table.bands if not missing_bands(item, table, [band])]
        assert bands, item["id"]
        if not says_projection(item, table, bands):
            continue
        scene = to_scene(item, source="x", collection=name, bands=bands)
        if name.startswith("modis"):
            assert all(asset.epsg == 0 and "Sinusoidal" in str(asset.wkt) for asset in scene.assets)
        if table.mission != "sentinel-2":
            assert "uncertain" not in scene.radiometry.why, (item["id"], scene.radiometry.why)
        scenes[name] = scenes.get(name, 0) + 1
    assert sum(scenes.values()) > 900
    assert {"landsat-8-c2-l2", "landsat-c2-l2", "modis-13Q1-061", "naip", "sentinel-2-l2a"} <= set(scenes)
    landsat = [item for (name, _), item in found.items() if name == "landsat-8-c2-l2"]
    keys = acquisition_keys(landsat, "landsat")
    assert len(set(keys)) < len(landsat)
