"""A real STAC API: stac-fastapi over pgstac in a throw-away PostgreSQL, holding a simulated world.

What it finds is held against the same items in a file. Needs PostgreSQL and PostGIS on the machine (CONTRIBUTING.md);
both servers run for this file alone, on loopback, and end with it.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import shapely
from pystac_client import Client

import catalog.search
from catalog.lock import LockedItem, compare_locks
from catalog.request import SearchSpec, find
from catalog.search import StacApi, StaticCatalog, open_catalog
from curate.errors import CatalogError
from flows.console import PlainConsole
from flows.steps import Request, build, check, make_request, moved, preview
from simulate.world import WorldSpec
from simulate.write import World, write_world

if TYPE_CHECKING:
    from tests.conftest import Database

Item = dict[str, Any]

# -- the world, in a file and on the servers ---------------------------------------------------------------------------

S2 = ["sentinel-2-l2a"]
EVERYWHERE = shapely.box(17, 48, 19, 49)
LATER = dt.datetime(2022, 6, 1, tzinfo=dt.UTC)
"""Of the items that stand beside the world; all of the world lies in 2021."""
ALL_2021 = (dt.datetime(2021, 1, 1, tzinfo=dt.UTC), dt.datetime(2022, 1, 1, tzinfo=dt.UTC))
ALL_2022 = (ALL_2021[1], dt.datetime(2023, 1, 1, tzinfo=dt.UTC))

RECIPE = """\
name: small-world
time: 2021-04-01/2021-08-01
catalog: catalog.json
grid: {resolution_m: 10, size_px: 64, min_cover: 0.3}
sources:
  s2:
    collection: sentinel-2-l2a
    bands: [red, nir]
    mask: {hide: [void, saturated, shadow, cloud, cirrus], dilate_m: 20}
    time: {composite: monthly, how: median}
    search: {max_cloud_pct: 95}
  s1: {collection: sentinel-1-rtc, bands: [vv, vh], time: {composite: monthly, how: mean}}
  dem: {collection: cop-dem-glo-30}
labels:
  worldcover: {product: esa-worldcover, year: 2021}
  fields: {vector: fields.geojson, attribute: label, background: 0}
split: {block_km: 1.2, buffer_km: 0.1, shares: {train: 0.6, val: 0.2, test: 0.2}, seed: 1}
store: {shard_chips: 16}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    spec = WorldSpec(size_px=200, dates=4, every_days=30, bands=("B04", "B08"), radar_dates=2, osm=True)
    world = write_world(tmp_path_factory.mktemp("pgstac") / "world", spec)
    (world.folder / "recipe.yaml").write_text(RECIPE)
    return world


@pytest.fixture(scope="module")
def items(world: World) -> list[Item]:
    """The items of the world with absolute addresses, and three beside it: on the edge of a day, askew, and silent."""
    found = []
    for path in sorted(world.folder.glob("*/*/*.json")):
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            asset["href"] = (path.parent / asset["href"]).resolve().as_uri()
        found.append({**item, "links": []})
    pattern = next(item for item in found if item["collection"] == S2[0])
    (at_midnight, askew, silent) = (made_of(pattern, LATER + dt.timedelta(days=days)) for days in (0, 1, 2))
    askew["geometry"] = shapely.geometry.mapping(shapely.Polygon([(17, 48), (19, 48), (17, 49)]))
    askew["bbox"] = [17, 48, 19, 49]
    del silent["properties"]["eo:cloud_cover"], silent["assets"]["SCL"]["nodata"]
    return [*found, at_midnight, askew, silent]


def made_of(item: Item, at: dt.datetime) -> Item:
    """A copy of a Sentinel-2 item, acquired at another time."""
    made = copy.deepcopy(item)
    stamp = f"{at:%Y%m%dT%H%M%S}"
    made["id"] = re.sub(r"\d{8}T\d{6}", stamp, item["id"])
    made["properties"] |= {
        "datetime": at.isoformat().replace("+00:00", "Z"),
        "s2:datatake_id": f"GS2A_{stamp}_030197_N05.00",
        "s2:generation_time": at.isoformat().replace("+00:00", "Z"),
    }
    return made


@pytest.fixture(scope="module")
def file(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> StaticCatalog:
    """The oracle: the same items, read from a file and filtered by us."""
    path = tmp_path_factory.mktemp("pgstac") / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return StaticCatalog(path)


@pytest.fixture(scope="module")
def database(
    world: World, items: list[Item], throw_away_database: Callable[[], AbstractContextManager[Database]]
) -> Iterator[Database]:
    collections = [json.loads(path.read_text()) for path in world.folder.glob("*/collection.json")]
    for collection in collections:
        # From this pgstac takes what items have in common out of them, and puts it back when they are asked for.
        members = [item for item in items if item["collection"] == collection["id"]]
        collection["item_assets"] = {
            key: {name: value for name, value in asset.items() if name in ("title", "type", "roles", "nodata", "gsd")}
            for key, asset in members[0]["assets"].items()
        }
    with throw_away_database() as made:
        made.load("collections", collections)
        made.load("items", items)
        yield made


@pytest.fixture(scope="module")
def full(database: Database) -> Iterator[str]:
    """A server with all its extensions, that of writing among them."""
    with database.api(ENABLE_TRANSACTIONS_EXTENSIONS="true") as url:
        yield url


@pytest.fixture(scope="module")
def with_query(database: Database) -> Iterator[str]:
    with database.api(ENABLED_EXTENSIONS="query,pagination") as url:
        yield url


@pytest.fixture(scope="module")
def bare(database: Database) -> Iterator[str]:
    with database.api(ENABLED_EXTENSIONS="pagination") as url:
        yield url


@pytest.fixture(params=["full", "with_query", "bare"])
def server(request: pytest.FixtureRequest) -> str:
    """The address of each server in turn; they announce and apply different extensions."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[list[Item]]:
    """What servers answer in the test, page by page, before anything is cut away here."""
    kept: list[list[Item]] = []
    read = StacApi._every_page

    def recorded(self: StacApi, answers: Any) -> list[Item]:
        answered = list(answers)
        kept.extend(page["features"] for page in answered)
        return read(self, answered)

    monkeypatch.setattr(StacApi, "_every_page", recorded)
    return kept


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Item]:
    """What servers are asked in the test."""
    kept: list[Item] = []
    search = Client.search

    def recorded(self: Client, **question: Any) -> Any:
        kept.append(question)
        return search(self, **question)

    monkeypatch.setattr(Client, "search", recorded)
    return kept


def names(items: Sequence[Item]) -> list[str]:
    return sorted(str(item["id"]) for item in items)


# -- searching ---------------------------------------------------------------------------------------------------------


def test_the_address_is_known_as_that_of_an_api(full: str) -> None:
    assert isinstance(open_catalog(full), StacApi)


@pytest.mark.parametrize(("limit", "n_pages"), [(1, 10), (3, 4), (10, 1), (100, 1)])
def test_every_item_comes_once_over_all_pages(
    full: str, file: StaticCatalog, pages: list[list[Item]], limit: int, n_pages: int
) -> None:
    found = StacApi(full).search(S2, EVERYWHERE, *ALL_2021, limit_page=limit)
    assert names(found) == names(file.search(S2, EVERYWHERE, *ALL_2021))
    assert len(found) == 10
    assert sorted(str(item["id"]) for page in pages for item in page) == names(found)  # the server sends none twice
    assert len([page for page in pages if page]) == n_pages


def test_an_item_comes_back_as_it_was_loaded(full: str, file: StaticCatalog, items: list[Item]) -> None:
    collections = sorted({item["collection"] for item in items})
    loaded = file.search(collections, EVERYWHERE, None, None)
    assert len(loaded) == len(items)
    found = {item["id"]: item for item in StacApi(full).search(collections, EVERYWHERE, None, None, limit_page=5)}
    for item in loaded:
        # pgstac leaves out what is null, the `datetime` of a map of a year.
        said = {name: value for name, value in item["properties"].items() if value is not None}
        assert {**found[item["id"]], "links": []} == {**item, "properties": said}


def test_the_area_is_a_polygon_and_not_its_box(server: str, file: StaticCatalog, pages: list[list[Item]]) -> None:
    northeast = shapely.box(18.6, 48.6, 18.9, 48.9)  # in the box of the triangle alone
    around = shapely.Polygon([(16.5, 47.5), (19.5, 47.5), (19.5, 47.9), (16.9, 47.9), (16.9, 49.5), (16.5, 49.5)])
    for area in (northeast, around, shapely.box(17.1, 48.1, 17.2, 48.2)):
        found = StacApi(server).search(S2, area, *ALL_2022)
        assert names(found) == names(file.search(S2, area, *ALL_2022))
        assert names(found) == names([item for page in pages for item in page])
        pages.clear()
    assert len(found) == 1
    assert StacApi(server).search(S2, around, *ALL_2022) == []


def test_times_are_half_open_although_the_server_includes_the_end(
    server: str, file: StaticCatalog, pages: list[list[Item]]
) -> None:
    day = dt.timedelta(days=1)
    for start, end, wanted in ((LATER - day, LATER, 0), (LATER, LATER + day, 1), (LATER, LATER + 2 * day, 2)):
        found = StacApi(server).search(S2, EVERYWHERE, start, end)
        assert len(found) == wanted
        assert names(found) == names(file.search(S2, EVERYWHERE, start, end))
    assert len(pages[0]) == 1
    assert len(StacApi(server).search(S2, EVERYWHERE, LATER, None)) == 3
    assert len(StacApi(server).search(S2, EVERYWHERE, None, LATER)) == 10


@pytest.mark.parametrize("collection", ["sentinel-1-rtc", "esa-worldcover", "cop-dem-glo-30"])
def test_items_that_last_are_found_as_in_a_file(full: str, file: StaticCatalog, collection: str) -> None:
    """Passes of 25 s with their centre as time, maps of a year, and a DEM with an arbitrary day."""
    sensed = dt.datetime(2021, 4, 5, 16, 36, tzinfo=dt.UTC)
    second = dt.timedelta(seconds=1)
    edges = [
        (sensed - 5 * second, sensed),
        (sensed, sensed + 12 * second),
        (sensed + 12 * second, sensed + 13 * second),
    ]
    for start, end in [*edges, ALL_2021, ALL_2022, (None, sensed), (sensed, None), (None, None)]:
        found = StacApi(full).search([collection], EVERYWHERE, start, end, limit_page=1)
        assert names(found) == names(file.search([collection], EVERYWHERE, start, end)), (start, end)


QUERIES: list[Item] = [
    {"eo:cloud_cover": {"lt": 40}},
    {"eo:cloud_cover": {"gte": 10, "lte": 60}, "sat:relative_orbit": {"eq": 36}},
    {"s2:nodata_pixel_percentage": {"lt": 20}},
    {"s2:processing_baseline": {"neq": "05.00"}},
    {"s2:processing_baseline": {"gt": "04.00"}},
    {"properties.eo:cloud_cover": {"lt": 40}},
    {"absent": {"neq": 1}},
    {"platform": {"eq": "sentinel-2a"}},  # the items say Sentinel-2A
    # Only the six comparisons exist at pgstac; whoever asks for these is refused.
    {"s2:processing_baseline": {"in": ["05.00", "05.09"]}, "eo:cloud_cover": {"lt": 40}},
    {"s2:mgrs_tile": {"startsWith": "33"}},
    {"s2:mgrs_tile": {"endsWith": "YP"}},
    {"s2:mgrs_tile": {"contains": "U"}},
    {"datetime": {"gt": "2021-05-06T09:00:31Z"}},
]


@pytest.mark.parametrize("query", QUERIES, ids=json.dumps)
def test_a_query_finds_what_it_finds_in_a_file(server: str, file: StaticCatalog, query: Item) -> None:
    found = StacApi(server).search(S2, EVERYWHERE, *ALL_2021, query=query)
    assert names(found) == names(file.search(S2, EVERYWHERE, *ALL_2021, query=query))


def op(name: str, *args: Any) -> Item:
    return {"op": name, "args": list(args)}


CLOUD, ORBIT, BASELINE, TILE, PLATFORM, ABSENT, TIME, GENERATED = (
    {"property": name}
    for name in (
        "eo:cloud_cover", "sat:relative_orbit", "s2:processing_baseline", "s2:mgrs_tile", "platform", "absent",
        "datetime", "s2:generation_time",
    )
)  # fmt: skip
FILTERS: list[Item] = [
    op("<=", CLOUD, 40),
    op("<=", {"property": "properties.eo:cloud_cover"}, 40),
    op("=", ORBIT, 36),
    op("<>", BASELINE, "05.00"),
    op("<>", ABSENT, 1),
    op("not", op("=", ORBIT, 36)),
    op("not", op("=", ABSENT, 1)),
    op("or", op("=", ABSENT, 1), op("=", ORBIT, 36)),
    op("not", op("and", op("=", ABSENT, 1), op("=", ORBIT, 36))),
    op("isNull", ABSENT),
    op("not", op("isNull", CLOUD)),
    op("in", BASELINE, ["05.00", "05.09"]),
    op("between", CLOUD, 10, 60),
    op("like", TILE, "33%"),
    op("like", TILE, "33u%"),
    op("and", op("<=", CLOUD, 60), op("and", op("=", ORBIT, 36), op("=", PLATFORM, "sentinel-2a"))),
    # pgstac by itself: 8 and 10 of these are lost, the third is an error of the database.
    op(">=", TIME, {"date": "2021-05-06"}),
    op("=", PLATFORM, "sentinel-2a"),
    op(">=", GENERATED, {"timestamp": "2021-05-06T12:17:32Z"}),
    op(">", TIME, {"timestamp": "2021-05-06T09:00:31Z"}),
    op("<", TIME, {"timestamp": "2021-05-06T11:00:32+02:00"}),
]


@pytest.mark.parametrize("cql2", FILTERS, ids=json.dumps)
def test_cql2_finds_what_it_finds_in_a_file(server: str, file: StaticCatalog, cql2: Item) -> None:
    found = StacApi(server).search(S2, EVERYWHERE, *ALL_2021, cql2=cql2)
    assert names(found) == names(file.search(S2, EVERYWHERE, *ALL_2021, cql2=cql2))


def test_a_query_and_cql2_hold_together(server: str, file: StaticCatalog) -> None:
    """pgstac refuses a search with both."""
    query = {"sat:relative_orbit": {"eq": 36}, "platform": {"eq": "sentinel-2a"}, "s2:mgrs_tile": {"in": ["33UYP"]}}
    found = StacApi(server).search(S2, EVERYWHERE, *ALL_2021, query=query, cql2=op("<=", CLOUD, 95))
    assert names(found) == names(file.search(S2, EVERYWHERE, *ALL_2021, query=query, cql2=op("<=", CLOUD, 95)))
    assert len(found) == 1


def test_a_filter_goes_over_all_pages(full: str, file: StaticCatalog, pages: list[list[Item]]) -> None:
    for filters in ({"query": {"eo:cloud_cover": {"lte": 40}}}, {"cql2": op("<=", CLOUD, 40)}):
        found = StacApi(full).search(S2, EVERYWHERE, *ALL_2021, limit_page=3, **filters)
        assert names(found) == names(file.search(S2, EVERYWHERE, *ALL_2021, query={"eo:cloud_cover": {"lte": 40}}))
        assert len(found) == 8
        assert names([item for page in pages for item in page]) == names(found)  # the server filters, not only we
        assert len(pages) >= 3
        pages.clear()


def test_only_what_a_server_announces_is_asked_of_it(full: str, with_query: str, bare: str, asked: list[Item]) -> None:
    query = {"eo:cloud_cover": {"lt": 95}, "platform": {"eq": "sentinel-2a"}}
    for url in (full, with_query, bare):
        StacApi(url).search(S2, EVERYWHERE, *ALL_2021, query=query)
        StacApi(url).search(S2, EVERYWHERE, *ALL_2021, query=query, cql2=op("=", ORBIT, 36))
    said = [{name: question[name] for name in ("query", "filter") if name in question} for question in asked]
    sent = {"query": {"eo:cloud_cover": {"lt": 95}}}
    both = {"filter": op("and", op("=", ORBIT, 36), op("<", CLOUD, 95))}
    assert said == [sent, both, sent, sent, {}, {}]


def test_cql2_beyond_ours_is_answered_by_the_server_that_can_and_else_refused(full: str, bare: str) -> None:
    here = op("s_intersects", {"property": "geometry"}, {"type": "Point", "coordinates": [18.0, 48.3]})
    assert len(StacApi(full).search(S2, EVERYWHERE, *ALL_2021, cql2=op("and", here, op("=", ORBIT, 36)))) == 4
    with pytest.raises(CatalogError, match="does not filter by CQL2"):
        StacApi(bare).search(S2, EVERYWHERE, *ALL_2021, cql2=here)


# -- locking -----------------------------------------------------------------------------------------------------------


def locked(where: StacApi | StaticCatalog, collection: str, *bands: str, **spec: Any) -> list[LockedItem]:
    return find(
        where, source="x", collection=collection, bands=bands, aoi_geometry=EVERYWHERE,
        start=ALL_2021[0], end=ALL_2022[1], spec=SearchSpec(**spec),
    )  # fmt: skip


@pytest.mark.parametrize(
    "asked_for",
    [
        ("sentinel-2-l2a", "red", "nir", "scl"),
        ("sentinel-1-rtc", "vv", "vh"),
        ("cop-dem-glo-30", "elevation"),
        ("esa-worldcover", "map"),
    ],
    ids=lambda asked_for: str(asked_for[0]),
)
def test_what_is_locked_is_the_same_from_a_server_and_from_a_file(
    server: str, file: StaticCatalog, asked_for: tuple[str, ...]
) -> None:
    from_server, from_file = locked(StacApi(server), *asked_for), locked(file, *asked_for)
    assert not compare_locks(from_file, from_server)
    assert [row.scene for row in from_server] == [row.scene for row in from_file]
    assert [(row.status, row.reason) for row in from_server] == [(row.status, row.reason) for row in from_file]
    used = [row for row in from_server if row.status == "used"]
    assert used
    assert all(
        f"{server}/collections/{row.item['collection']}/items/{row.item['id']}"
        in [link["href"] for link in row.item["links"] if link["rel"] == "self"]
        for row in from_server
    )


def test_scenes_that_do_not_say_their_cloud_are_kept(server: str, file: StaticCatalog, items: list[Item]) -> None:
    rows = locked(StacApi(server), "sentinel-2-l2a", "red", max_cloud_pct=40)
    assert [row.scene for row in rows] == [row.scene for row in locked(file, "sentinel-2-l2a", "red", max_cloud_pct=40)]
    assert items[-1]["id"] in [row.item["id"] for row in rows]
    assert {row.scene.cloud_pct is None or row.scene.cloud_pct <= 40 for row in rows if row.scene} == {True}
    assert len(rows) < 13


def test_the_limit_of_cloud_holds_beside_a_query_and_cql2(server: str, file: StaticCatalog) -> None:
    spec = {"max_cloud_pct": 40, "query": {"eo:cloud_cover": {"gt": 1}}, "cql2": op("=", ORBIT, 36)}
    rows = locked(StacApi(server), "sentinel-2-l2a", "red", **spec)
    assert rows
    assert [row.scene for row in rows] == [row.scene for row in locked(file, "sentinel-2-l2a", "red", **spec)]


# -- building ----------------------------------------------------------------------------------------------------------


def curate(what: str, world: World, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [Path(sys.executable).with_name("curate"), what, "--aoi", world.region]
    command += ["--recipe", world.folder / "recipe.yaml", *options]
    loopback = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, env={**os.environ, **loopback}
    )


@pytest.fixture(scope="module")
def built(world: World, full: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, built from the server."""
    out = tmp_path_factory.mktemp("built") / "dataset"
    run = curate("build", world, "--catalog", full, "--out", out)
    assert run.returncode == 0, run.stderr
    return out


def wish(world: World, out: Path, catalog: str | None = None) -> Request:
    recipe = world.folder / "recipe.yaml"
    return make_request(aoi=str(world.region), recipe=str(recipe), catalog=catalog, out=str(out))


def test_a_build_from_the_server_has_the_pixels_of_the_static_catalog(
    world: World, built: Path, tmp_path: Path
) -> None:
    build(wish(world, tmp_path / "static"), PlainConsole())
    objects = [path.relative_to(built) for path in (built / "chips.zarr").rglob("*") if path.is_file()]
    pixels = [path for path in objects if path.name != "zarr.json"]  # those bear the recipe, which names the catalog
    assert len(pixels) > 10
    for path in pixels:
        assert (built / path).read_bytes() == (tmp_path / "static" / path).read_bytes(), path
    assert not check(str(built), PlainConsole()).problems


def test_refresh_tells_what_was_added_and_removed_on_the_server(
    world: World, built: Path, full: str, items: list[Item]
) -> None:
    request = wish(world, built, full)
    assert moved(request, PlainConsole()) == []
    new = made_of(next(item for item in items if item["collection"] == S2[0]), dt.datetime(2021, 7, 20, tzinfo=dt.UTC))
    gone = next(item for item in items if item["collection"] == "sentinel-1-rtc")
    on_server = f"{full}/collections/{{}}/items".format
    requests.post(on_server(new["collection"]), json=new, timeout=30).raise_for_status()
    requests.delete(f"{on_server(gone['collection'])}/{gone['id']}", timeout=30).raise_for_status()
    try:
        run = curate("plan", world, "--catalog", full, "--out", built, "--refresh")
    finally:  # other tests share the server
        requests.delete(f"{on_server(new['collection'])}/{new['id']}", timeout=30).raise_for_status()
        requests.post(on_server(gone["collection"]), json=gone, timeout=30).raise_for_status()
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"+ s2 {new['id']}", f"- s1 {gone['id']}"]
    assert moved(request, PlainConsole()) == []


# -- servers that cannot -----------------------------------------------------------------------------------------------


def test_an_unknown_collection_is_told(server: str) -> None:
    with pytest.raises(CatalogError, match=r"no collection 'sentinel-2'\. Did you mean .*It has: cop-dem-glo-30, esa-"):
        StacApi(server).search(["sentinel-2"], EVERYWHERE, None, None)


def test_a_plan_for_a_collection_that_the_server_lacks_ends_with_a_sentence(
    full: str, world: World, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("sentinel-1-rtc", "sentinel-1-grd"))
    request = dataclasses.replace(wish(world, tmp_path / "out", full), recipe=str(recipe))
    with pytest.raises(
        CatalogError, match=f"catalog {full}: it has no collection 'sentinel-1-grd'.* It has: cop-dem-glo"
    ):
        preview(request, PlainConsole())


def test_a_server_that_goes_down_is_told(
    database: Database, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog.search, "BACKOFF_S", 0.01)
    with database.api() as url:
        client = StacApi(url)
        assert len(client.search(S2, EVERYWHERE, *ALL_2021)) == 10
    with pytest.raises(CatalogError, match=f"catalog {url}: the search failed: .*refused"):
        client.search(S2, EVERYWHERE, *ALL_2021)
    with pytest.raises(CatalogError, match=f"{url}: cannot be read as a catalog: .*refused"):
        preview(wish(world, tmp_path / "out", url), PlainConsole())


def test_a_server_that_answers_one_page_for_ever_is_told(database: Database) -> None:
    """It gives tokens for the next page, and without its extension for paging it does not read them."""
    with database.api(ENABLED_EXTENSIONS="query") as url:
        assert len(StacApi(url).search(S2, EVERYWHERE, *ALL_2021)) == 10
        with pytest.raises(CatalogError, match="after 3 items the same ones come again"):
            StacApi(url).search(S2, EVERYWHERE, *ALL_2021, limit_page=3)


def test_servers_end_with_whoever_started_them(
    tmp_path: Path, running: Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]
) -> None:
    """Also when the tests are killed: then the pipe that the shell waits on closes by itself."""
    pid = tmp_path / "pid"
    with running(["sh", "-c", f"echo $$ > {pid}; exec sleep 60"], tmp_path / "log", end="KILL", ready=pid.exists):
        time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
