"""A STAC API on loopback: paging, filters offered and ignored, busy and broken servers."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import shapely

import catalog.search
from catalog.endpoints import Endpoint
from catalog.request import SearchSpec, find
from catalog.search import Pace, StacApi, StaticCatalog, open_catalog
from curate.errors import CatalogError

Item = dict[str, Any]
S2 = ["sentinel-2-l2a"]
HERE = shapely.box(15.2, 48.2, 15.3, 48.3)
START, END = dt.datetime(2020, 6, 1, tzinfo=dt.UTC), dt.datetime(2021, 6, 1, tzinfo=dt.UTC)
CORE = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
QUERY = "https://api.stacspec.org/v1.0.0/item-search#query"
FILTER = "https://api.stacspec.org/v1.0.0-rc.2/item-search#filter"


class Api:
    """A small STAC API. What it is asked is kept in ``asked``; how it behaves is set from outside."""

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.conforms: list[str] = [*CORE, QUERY, FILTER]
        self.methods: tuple[str, ...] = ("GET", "POST")
        self.style = "token"
        self.page = 100
        self.collections = ["sentinel-2-l2a", "sentinel-1-rtc"]
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.asked: list[Item] = []
        self.times: list[float] = []
        self.url = ""

    def landing(self) -> Item:
        search = {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json"}
        links = [{**search, "method": method} for method in self.methods]
        root = {"rel": "root", "href": self.url}
        return {
            "type": "Catalog",
            "id": "tiny",
            "description": "tiny",
            "stac_version": "1.0.0",
            "conformsTo": self.conforms,
            "links": [root, *links],
        }

    def search(self, asked: Item) -> Item:
        """One page. The filters are ignored on purpose: whoever relies on them alone gets wrong answers."""
        self.asked.append(asked)
        known = [item for item in self.items if item["collection"] in asked.get("collections", S2)]
        limit = min(int(asked.get("limit", 10)), self.page)
        at = int(asked.get("token") or asked.get("next") or 0)
        body = {**asked, "token" if self.style == "token" else "next": at + limit}
        link: Item = {"rel": "next", "href": f"{self.url}/search", "method": "POST", "body": body}
        if self.style == "next":
            link["merge"] = False
        if self.style == "merge":
            link |= {"merge": True, "body": {"next": at + limit}}
        if self.style == "get":
            query = f"collections={','.join(asked['collections'])}&limit={limit}&token={at + limit}"
            link = {"rel": "next", "href": f"{self.url}/search?{query}"}
        links = [link] if at + limit < len(known) else []
        return {"type": "FeatureCollection", "features": known[at : at + limit], "links": links}


@pytest.fixture
def api(s2_item: Callable[..., Item], monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(catalog.search, "BACKOFF_S", 0.01)
    served = Api([s2_item(number) for number in range(7)])

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            at = urlsplit(self.path)
            match at.path.strip("/").split("/"):
                case [""]:
                    self.answer(200, served.landing())
                case ["search"]:
                    asked: Item = {name: values[0] for name, values in parse_qs(at.query).items()}
                    asked["collections"] = asked["collections"].split(",")
                    self.page(asked)
                case ["collections"]:
                    self.answer(200, {"collections": [{"id": name} for name in served.collections], "links": []})
                case ["collections", name] if name in [*served.collections, "on-page-two"]:
                    self.answer(200, {"id": name})
                case _:
                    self.answer(404, {"code": "NotFound"})

        def do_POST(self) -> None:
            self.page(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def page(self, asked: Item) -> None:
            served.times.append(time.monotonic())
            if served.failures:
                status, headers = served.failures.pop(0)
                self.answer(status, {"code": "Busy"}, headers)
            else:
                self.answer(200, served.search(asked))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("style", ["token", "next", "merge", "get"])
def test_every_page_is_read_in_either_style_of_paging(api: Api, style: str) -> None:
    api.style, api.page = style, 3
    items = StacApi(api.url).search(S2, HERE, START, END)
    assert [item["id"] for item in items] == [item["id"] for item in api.items]
    assert len(api.asked) == 3


def test_a_server_that_knows_only_get_is_asked_by_get(api: Api) -> None:
    api.methods, api.style, api.page = ("GET",), "get", 4
    assert len(StacApi(api.url).search(S2, HERE, START, END)) == 7
    assert api.asked[0]["datetime"] == "2020-06-01T00:00:00Z/2021-06-01T00:00:00Z"


def test_what_is_asked_is_collections_area_time_and_page_size(api: Api) -> None:
    StacApi(api.url).search(S2, HERE, START, END, limit_page=50)
    (asked,) = api.asked
    assert asked["collections"] == S2
    assert asked["datetime"] == "2020-06-01T00:00:00Z/2021-06-01T00:00:00Z"
    assert asked["limit"] == 50
    assert shapely.equals(shapely.geometry.shape(asked["intersects"]), HERE)


def test_an_open_end_and_no_time_at_all_are_asked_as_such(api: Api) -> None:
    client = StacApi(api.url)
    client.search(S2, HERE, None, END)
    client.search(S2, HERE, START, None)
    client.search(S2, HERE, None, None)
    assert [asked.get("datetime") for asked in api.asked] == [
        "../2021-06-01T00:00:00Z",
        "2020-06-01T00:00:00Z/..",
        None,
    ]


def test_a_page_is_never_larger_than_the_endpoint_bears(api: Api) -> None:
    endpoint = Endpoint("tiny", api.url, (), None, 2, "")
    assert len(StacApi(api.url, endpoint=endpoint).search(S2, HERE, START, END)) == 7
    assert {asked["limit"] for asked in api.asked} == {2}


def test_the_end_of_the_time_does_not_count_although_the_server_includes_it(api: Api) -> None:
    last = dt.datetime.fromisoformat(api.items[3]["properties"]["datetime"])
    assert len(StacApi(api.url).search(S2, HERE, START, last)) == 3


def test_an_item_on_two_pages_counts_once(api: Api) -> None:
    api.items.insert(3, api.items[2])
    api.page = 3
    assert len(StacApi(api.url).search(S2, HERE, START, END)) == 7


@pytest.mark.parametrize("offered", [True, False])
def test_a_query_holds_whether_the_server_offers_it_or_not(api: Api, offered: bool) -> None:
    api.conforms = [*CORE, QUERY] if offered else CORE
    query = {"eo:cloud_cover": {"lt": 30}, "platform": {"eq": "sentinel-2a"}}
    assert len(StacApi(api.url).search(S2, HERE, START, END, query=query)) == 3
    # The platform is compared here: this server calls it Sentinel-2A.
    assert api.asked[0].get("query") == ({"eo:cloud_cover": {"lt": 30}} if offered else None)


def test_cql2_is_sent_where_it_is_offered(api: Api) -> None:
    beyond = {"op": "s_intersects", "args": [{"property": "geometry"}, {"type": "Point", "coordinates": [15, 48]}]}
    StacApi(api.url).search(S2, HERE, START, END, cql2=beyond)
    assert api.asked[0]["filter"] == beyond
    assert api.asked[0]["filter-lang"] == "cql2-json"


def test_cql2_that_the_server_would_ignore_is_applied_here_or_refused(api: Api) -> None:
    api.conforms = [*CORE, QUERY]
    plain = {"op": "<", "args": [{"property": "eo:cloud_cover"}, 30]}
    assert len(StacApi(api.url).search(S2, HERE, START, END, cql2=plain)) == 3
    assert "filter" not in api.asked[0]
    with pytest.raises(CatalogError, match="does not filter by CQL2"):
        StacApi(api.url).search(S2, HERE, START, END, cql2={"op": "casei", "args": []})


def test_a_fine_area_is_sent_as_its_hull_and_cut_here(api: Api, s2_item: Callable[..., Item]) -> None:
    inner = shapely.Point(15.5, 48.5).buffer(0.3, quad_segs=200)
    ring = shapely.difference(shapely.Point(15.5, 48.5).buffer(0.4, quad_segs=200), inner)
    hole = s2_item(20, id="in the hole", bbox=[15.45, 48.45, 15.55, 48.55])
    api.items.append(hole)
    items = StacApi(api.url).search(S2, ring, START, END)
    assert "in the hole" not in {item["id"] for item in items}
    assert len(items) == 7
    assert len(api.asked[0]["intersects"]["coordinates"]) == 1  # no hole


def test_a_fine_area_over_the_antimeridian_is_sent_as_two_hulls(api: Api) -> None:
    sides = [shapely.Point(x, -17).buffer(0.5, quad_segs=100) for x in (179, -179)]
    assert StacApi(api.url).search(S2, shapely.MultiPolygon(sides), START, END) == []
    sent = shapely.geometry.shape(api.asked[0]["intersects"])
    assert sent.geom_type == "MultiPolygon"
    assert not sent.intersects(shapely.Point(0, -17))
    assert sent.buffer(1e-6).covers(shapely.MultiPolygon(sides))


def test_an_unknown_collection_is_an_error_and_an_empty_answer_is_not(api: Api) -> None:
    api.items = []
    client = StacApi(api.url)
    assert client.search(S2, HERE, START, END) == []
    assert client.search(["on-page-two"], HERE, START, END) == []
    with pytest.raises(
        CatalogError, match=r"no collection 'sentinel-2-l2'. Did you mean 'sentinel-2-l2a'\? It has: sen"
    ):
        client.search(["sentinel-2-l2"], HERE, START, END)


def test_a_busy_server_is_asked_again_when_it_says(api: Api) -> None:
    api.failures = [(429, {"Retry-After": "1"})]
    assert len(StacApi(api.url).search(S2, HERE, START, END)) == 7
    assert api.times[1] - api.times[0] >= 1


def test_a_server_that_stumbles_is_asked_again(api: Api) -> None:
    api.failures = [(502, {}), (503, {}), (504, {})]
    assert len(StacApi(api.url).search(S2, HERE, START, END)) == 7
    assert len(api.times) == 4


def test_a_server_that_stays_broken_is_an_error_after_six_attempts(api: Api) -> None:
    api.failures = [(503, {})] * 20
    with pytest.raises(CatalogError, match=r"the search failed: .*503"):
        StacApi(api.url).search(S2, HERE, START, END)
    assert len(api.times) == 6


def test_an_answer_too_long_for_the_server_is_asked_for_in_smaller_pages(api: Api) -> None:
    api.failures = [(413, {})]
    assert len(StacApi(api.url).search(S2, HERE, START, END)) == 7
    assert api.asked[-1]["limit"] == 20
    api.asked, api.failures = [], [(502, {})] * 7  # the six attempts of one page, and one of the next
    assert len(StacApi(api.url).search(S2, HERE, START, END)) == 7
    assert api.asked[0]["limit"] == 20


def test_a_server_that_breaks_on_the_smallest_page_is_down(api: Api) -> None:
    api.failures = [(413, {})] * 20
    with pytest.raises(CatalogError, match=r"the search failed: .*Busy"):
        StacApi(api.url).search(S2, HERE, START, END)
    assert len(api.times) == 3  # pages of 100, 20, 5


def test_requests_keep_the_pace_of_the_endpoint(api: Api) -> None:
    endpoint = Endpoint("tiny", api.url, (), None, 1, "", requests_per_s=20)
    assert len(StacApi(api.url, endpoint=endpoint).search(S2, HERE, START, END)) == 7
    # Seven pages, of which two may come at once.
    assert api.times[-1] - api.times[0] >= 4.5 / 20


def test_threads_share_a_pace() -> None:
    pace = Pace(per_s=50, burst=2)
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: pace.wait(), range(12)))
    assert time.monotonic() - start >= 10 / 50


def test_an_endpoint_that_refuses_polygons_is_asked_for_boxes_and_cut_here(api: Api) -> None:
    endpoint = Endpoint("tiny", api.url, (), None, 100, "", area="bbox")
    triangle = shapely.Polygon([(14.0, 47.0), (15.5, 47.0), (14.0, 50.5)])
    beside = shapely.Polygon([(14.0, 47.0), (16.9, 47.0), (16.9, 47.5)])
    client = StacApi(api.url, endpoint=endpoint)
    assert len(client.search(S2, triangle, START, END)) == 7
    assert client.search(S2, beside, START, END) == []
    assert api.asked[0]["bbox"] == [14.0, 47.0, 15.5, 50.5]
    assert "intersects" not in api.asked[0]
    api.asked = []
    client.search(
        S2, shapely.MultiPolygon([shapely.box(-180, 10, -179, 11), shapely.box(179, 10, 180, 11)]), None, None
    )
    assert [asked["bbox"] for asked in api.asked] == [[-180, 10, -179, 11], [179, 10, 180, 11]]


def test_an_endpoint_is_asked_by_its_own_name_of_a_collection(api: Api, s2_item: Callable[..., Item]) -> None:
    item = s2_item(collection="HLSS30_2.0", id="HLS.S30.T33UWP.2020153T101000.v2.0")
    for key in ("B04", "Fmask"):
        item["assets"][key] = {**item["assets"]["B04"], "href": f"./{key}.tif"}
    api.items, api.collections = [item], ["HLSS30_2.0"]
    endpoint = Endpoint("tiny", api.url, (), None, 100, "", collections={"hls2-s30": "HLSS30_2.0"})
    rows = find(
        StacApi(api.url, endpoint=endpoint),
        source="hls",
        collection="hls2-s30",
        bands=["red", "fmask"],
        aoi_geometry=HERE,
        start=START,
        end=END,
    )
    assert api.asked[0]["collections"] == ["HLSS30_2.0"]
    assert [row.scene.collection for row in rows if row.scene] == ["hls2-s30"]
    assert [row.scene.tile for row in rows if row.scene] == ["33UWP"]


def test_a_refused_request_says_what_the_server_said(api: Api) -> None:
    api.failures = [(400, {})]
    with pytest.raises(CatalogError, match=r"the search failed: .*Busy"):
        StacApi(api.url).search(S2, HERE, START, END)
    assert len(api.times) == 1


def test_nobody_at_the_address_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog.search, "BACKOFF_S", 0.01)
    with pytest.raises(
        CatalogError,
        match=r"no STAC API answers at http://127.0.0.1:9/stac: [^(]*Connection refused. Check the address",
    ):
        StacApi("http://127.0.0.1:9/stac").search(S2, HERE, START, END)
    with pytest.raises(CatalogError, match="cannot be read as a catalog"):
        open_catalog("http://127.0.0.1:9/stac")


def test_an_api_without_item_search_is_refused(api: Api) -> None:
    api.conforms = CORE[:1]
    with pytest.raises(CatalogError, match="the search failed"):
        StacApi(api.url).search(S2, HERE, START, END)


def test_an_address_is_read_to_see_whether_it_is_an_api(api: Api) -> None:
    assert isinstance(open_catalog(api.url), StacApi)
    assert isinstance(open_catalog("planetary-computer"), StacApi)
    assert isinstance(open_catalog("https://earth-search.aws.element84.com/v1"), StacApi)


def test_relative_addresses_are_relative_to_the_item(api: Api) -> None:
    own = f"{api.url}/collections/sentinel-2-l2a/items/x"
    api.items[0]["links"] = [{"rel": "self", "href": own}]
    items = StacApi(api.url).search(S2, HERE, START, END)
    assert items[0]["assets"]["B04"]["href"] == f"{api.url}/collections/sentinel-2-l2a/items/B04.tif"


def within_25(catalog: StacApi, **spec: Any) -> list[float | None]:
    """Cloud cover of the scenes that are found with a limit of 25 %."""
    rows = find(
        catalog,
        source="s2",
        collection="sentinel-2-l2a",
        bands=["red"],
        aoi_geometry=HERE,
        start=START,
        end=END,
        spec=SearchSpec(max_cloud_pct=25, **spec),
    )
    return [row.scene.cloud_pct for row in rows if row.scene]


def test_a_known_endpoint_is_asked_for_the_limit_of_cloud(api: Api) -> None:
    client = StacApi(api.url, endpoint=Endpoint("tiny", api.url, (), None, 100, ""))
    assert within_25(client, query={"eo:cloud_cover": {"gt": 5}}) == [10, 20]
    assert within_25(client, query={"eo:cloud_cover": {"lte": 10}}) == [0, 10]
    assert within_25(client, query={"eo:cloud_cover": {"lte": 30}}) == [0, 10, 20]
    asked = [asked["query"]["eo:cloud_cover"] for asked in api.asked]
    assert asked == [{"gt": 5, "lte": 25}, {"lte": 10}, {"lte": 30}]


def test_of_an_unknown_server_the_limit_of_cloud_loses_no_scene_that_does_not_say(api: Api) -> None:
    del api.items[1]["properties"]["eo:cloud_cover"]
    assert within_25(StacApi(api.url)) == [0, None, 20]
    cover = {"property": "eo:cloud_cover"}
    silent_or_low = {"op": "or", "args": [{"op": "isNull", "args": [cover]}, {"op": "<=", "args": [cover, 25]}]}
    assert api.asked[0]["filter"] == silent_or_low
    api.conforms = [*CORE, QUERY]  # a query would lose it
    assert within_25(StacApi(api.url)) == [0, None, 20]
    assert "query" not in api.asked[1]


def test_a_server_with_both_filters_is_asked_in_one_language(api: Api) -> None:
    plain = {"op": "<", "args": [{"property": "eo:cloud_cover"}, 30]}
    query = {"s2:mgrs_tile": {"eq": "33UWP", "startsWith": "33"}, "platform": {"eq": "sentinel-2a"}}
    assert len(StacApi(api.url).search(S2, HERE, START, END, query=query, cql2=plain)) == 3
    tile = {"op": "=", "args": [{"property": "s2:mgrs_tile"}, "33UWP"]}
    assert api.asked[0]["filter"] == {"op": "and", "args": [plain, tile]}
    assert "query" not in api.asked[0]
    api.conforms = [*CORE, FILTER]
    assert len(StacApi(api.url).search(S2, HERE, START, END, query=query)) == 7
    assert api.asked[1]["filter"] == tile


def test_a_filter_that_the_server_accepts_and_ignores_holds(api: Api) -> None:
    plain = {"op": "<", "args": [{"property": "eo:cloud_cover"}, 30]}
    assert len(StacApi(api.url).search(S2, HERE, START, END, cql2=plain)) == 3
    assert api.asked[0]["filter"] == plain


def test_a_server_that_answers_the_same_page_for_ever_is_told(api: Api) -> None:
    api.page = 3
    search = api.search
    api.search = lambda asked: search({**asked, "token": None})  # type: ignore[method-assign] # as a server without paging
    with pytest.raises(CatalogError, match="after 3 items the same ones come again"):
        StacApi(api.url).search(S2, HERE, START, END)
    assert len(api.asked) == 4


def test_a_static_catalog_over_http_is_followed(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    write_catalog(tmp_path / "c", [s2_item(number) for number in range(30)])

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path / "c"))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        found = open_catalog(f"{base}/catalog.json")
        assert isinstance(found, StaticCatalog)
        items = found.search(S2, HERE, None, None)
        assert len(items) == 30
        assert items[0]["assets"]["B04"]["href"] == f"{base}/sentinel-2-l2a/B04.tif"
        with pytest.raises(CatalogError, match="404"):
            open_catalog(f"{base}/gone.json")
        server.shutdown()


@pytest.mark.parametrize(("name", "filters"), [("es", False), ("pc", True), ("cdse", True)])
def test_the_recorded_landing_pages_say_which_filters_work(shared_data: Path, name: str, filters: bool) -> None:
    from pystac_client import Client

    path = shared_data.parent / "facts" / "tables" / "fixtures" / f"landing_{name}.json"
    if not path.is_file():
        pytest.skip(f"the recorded landing pages are not here: no {path.name} in ../shared")
    client = Client.from_dict(json.loads(path.read_text()))
    assert client.conforms_to("QUERY")
    assert client.conforms_to("FILTER") is filters
    assert catalog.search._method(client) == "POST"
