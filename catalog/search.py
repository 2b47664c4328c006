"""One question to any catalog: which items of these collections lie here, at that time, with those properties?

Answers are raw STAC items (dicts) with absolute addresses. A STAC API is asked over the network; a static catalog, an
item collection or a stac-geoparquet file is read and filtered here. A filter that a server would silently ignore is
applied here or refused, never dropped. Times are half-open, though the servers' are closed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime as dt
import functools
import gc
import json
import logging
import posixpath
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin, urlsplit

from catalog.collections import Collection, nearest
from catalog.endpoints import Endpoint, endpoint_at, endpoint_named, endpoints, host_of
from catalog.filters import (
    all_of,
    check_query,
    conjuncts,
    cql2_test,
    differs,
    is_plain,
    matches_query,
    parse_time,
    query_as_cql2,
    same_everywhere,
)
from curate.errors import CatalogError
from curate.objects import ObjectsError, is_object_url, read_object
from curate.telling import count

if TYPE_CHECKING:
    import requests
    import shapely
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO
    from urllib3.util import Retry

    from catalog.describe import DescribeSpec

log = logging.getLogger(__name__)

Item = dict[str, Any]

ATTEMPTS = 6
"""Requests before an endpoint counts as down."""
SMALLEST_PAGE = 5
"""Items a page below which a server that chokes is taken to be down."""
BACKOFF_S = 0.5
"""Pause after the second failure; it doubles from then on. ``Retry-After`` of the server comes first."""
TIMEOUT_S = (10.0, 90.0)
"""To connect, to answer."""
MAX_VERTICES = 500
"""A finer area is sent to the server as its hull and cut to the true outline here: long request bodies are refused."""
BALLAST = frozenset({"alternate", "alternate:name", "auth:refs", "storage:refs", "description", "file:local_path"})
"""Fields of assets that nothing here reads: 10,000 items of CDSE take a third less memory without them."""
SAYS_CLOUD = frozenset({"sentinel-2", "landsat", "hls"})
"""Missions whose items say their cloud cover at every endpoint we know; those of NAIP and MODIS do not."""
STALE_PAGES = 3
"""Pages in a row without a new item after which a server is taken to answer the same page for ever."""
READERS = 16
"""Item files read at once."""


class Catalog(Protocol):
    """Something that can be searched."""

    name: str
    """As the user gave it."""
    says_cloud: frozenset[str]
    """Missions whose items all say their cloud cover here, so that a server may filter by it without losing any."""

    def name_of(self, collection: Collection, asked: str) -> str:
        """The name of a collection of ours in this catalog; ``asked`` is the one of its names that the user gave."""
        ...

    def search(
        self,
        collections: Sequence[str],
        geometry: shapely.Geometry,
        start: dt.datetime | None,
        end: dt.datetime | None,
        *,
        query: Mapping[str, Any] | None = None,
        cql2: Mapping[str, Any] | None = None,
        limit_page: int = 100,
    ) -> list[Item]:
        """Items whose footprint meets ``geometry`` (EPSG:4326) within ``[start, end)``, in a fixed order.

        ``None`` leaves that end of the time open. Asset hrefs are absolute and unsigned.

        Raises:
            CatalogError: no such collection, a filter that nobody can apply, or the catalog cannot be read.
        """
        ...


def open_catalog(
    where: str | Path | Sequence[str | Path], *, collection: str | None = None, describe: DescribeSpec | None = None
) -> Catalog:
    """The catalog behind a short name (``planetary-computer``), a URL or a path.

    A URL is read once to see whether it is an API. Paths and URLs may be a ``catalog.json``, a ``collection.json``, an
    item collection (``.json``, ``.geojson``), items line by line (``.ndjson``) or stac-geoparquet (``.parquet``).
    With ``describe``, a folder, a glob, a raster or a list of rasters is a catalog too, of the one ``collection``.
    """
    if describe is not None and _is_rasters(where):
        from catalog.rasters import RasterCatalog

        return RasterCatalog(where, collection or "files", describe)
    if not isinstance(where, str | Path):
        raise CatalogError("catalog", "a list of files needs a description of the collection; say `describe`")
    text = str(where)
    endpoint = endpoint_named(text) or endpoint_at(text)
    if endpoint is not None:
        return StacApi(endpoint.url, name=text, endpoint=endpoint)
    if _is_url(text):
        if _suffix(text) in (".ndjson", ".jsonl", ".parquet"):
            return StaticCatalog(text)
        document = _read_json(text, _Files())
        rels = {link.get("rel") for link in document.get("links", ()) if isinstance(link, Mapping)}
        is_api = "conformsTo" in document or "search" in rels
        return StacApi(text, name=text) if is_api else StaticCatalog(text)
    if not Path(text).exists() and re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise CatalogError(
            f"catalog '{text}'",
            f"is neither a file nor a known name.{nearest(text, endpoints())} Give one of the known names "
            f"({', '.join(endpoints())}), the URL of a STAC API, or the path of a catalog.json",
        )
    return StaticCatalog(text)


def _is_rasters(where: str | Path | Sequence[str | Path]) -> bool:
    """Whether this is meant as plain files: a list, a folder, a glob, or a file that is no catalog."""
    if not isinstance(where, str | Path):
        return True
    text = str(where)
    if Path(text).is_dir() or re.search(r"[*?\[]", text):
        return not _is_url(text)
    return _suffix(text) in (".tif", ".tiff", ".jp2", ".vrt", ".img", ".asc", ".png")


class StacApi:
    """A STAC API, through pystac-client: paging, retries with backoff, and only filters that the server promises."""

    def __init__(self, url: str, *, name: str | None = None, endpoint: Endpoint | None = None) -> None:
        self.url, self.name, self.endpoint = url, name or url, endpoint
        self.says_cloud = frozenset() if endpoint is None else SAYS_CLOUD
        self._client: Client | None = None
        self._io: StacApiIO | None = None

    def name_of(self, collection: Collection, asked: str) -> str:
        """See ``Catalog.name_of``."""
        return asked if self.endpoint is None else self.endpoint.collections.get(collection.id, collection.id)

    def search(
        self,
        collections: Sequence[str],
        geometry: shapely.Geometry,
        start: dt.datetime | None,
        end: dt.datetime | None,
        *,
        query: Mapping[str, Any] | None = None,
        cql2: Mapping[str, Any] | None = None,
        limit_page: int = 100,
    ) -> list[Item]:
        """See ``Catalog.search``."""
        _check_interval(start, end)
        check_query(query or {})
        client = self._connect()
        limit = min(limit_page, self.endpoint.page_limit) if self.endpoint else limit_page
        remote, here = self._filters(client, query or {}, cql2)
        asked: dict[str, Any] = {
            "collections": list(collections),
            "datetime": None if start is None and end is None else (_rfc3339(start), _rfc3339(end)),
            **remote,
        }
        # Applied again here: some servers accept a filter and ignore it, and all treat the end of the time as included.
        keep = keep_items(collections, geometry, start, end, query, here)
        found = [item for area in self._areas(geometry) for item in self._pages(client, {**asked, **area}, limit)]
        for item in found:
            _check_item(item, self.name)
        if not found:
            self._check_collections(collections)
        items = {(item.get("collection"), item["id"]): item for item in found if keep(item)}
        return [_absolute(item, _self_link(item) or self.url, self.url) for item in items.values()]

    def _areas(self, geometry: shapely.Geometry) -> list[dict[str, Any]]:
        """The area as search parameters; several when boxes are wanted and it lies on both sides of the globe."""
        import shapely

        if self.endpoint is None or self.endpoint.area == "intersects":
            return [{"intersects": json.loads(shapely.to_geojson(_outline(geometry)))}]
        return [{"bbox": shapely.bounds(half).tolist()} for half in _halves(geometry)]

    def _pages(self, client: Client, asked: Mapping[str, Any], limit: int) -> list[Item]:
        """Every item of a search. An answer that is too long for the server is asked for again in smaller pages."""
        from pystac_client.exceptions import APIError
        from pystac_client.warnings import PystacClientWarning

        while True:
            try:
                return self._every_page(client.search(**asked, limit=limit, method=_method(client)).pages_as_dicts())
            except APIError as error:
                if limit > SMALLEST_PAGE and _is_too_long(error):
                    limit = max(limit // 5, SMALLEST_PAGE)
                    log.info("%s: the answer was too long, asking again for pages of %d", self.name, limit)
                    continue
                raise CatalogError(f"catalog {self.name}", f"the search failed: {_short(error)}") from error
            except (NotImplementedError, PystacClientWarning, ValueError) as error:
                raise CatalogError(f"catalog {self.name}", f"the search failed: {_short(error)}") from error

    def _every_page(self, pages: Iterable[Item]) -> list[Item]:
        items: list[Item] = []
        seen: set[tuple[Any, Any]] = set()
        stale = 0
        for page in pages:
            features = page.get("features", [])
            names = {(item.get("collection"), item.get("id")) for item in features if isinstance(item, Mapping)}
            stale = stale + 1 if names and names <= seen else 0
            if stale == STALE_PAGES:
                raise CatalogError(
                    f"catalog {self.name}",
                    f"the search failed: after {len(seen)} items the same ones come again, page after page. The server "
                    "does not know its own paging (in stac-fastapi: the extension 'pagination' is off)",
                )
            seen |= names
            items += features
        return items

    def _connect(self) -> Client:
        if self._client is None:
            from pystac.errors import STACError
            from pystac_client import Client
            from pystac_client.exceptions import APIError
            from pystac_client.stac_api_io import StacApiIO
            from pystac_client.warnings import PystacClientWarning

            pace = pace_of(self.endpoint)

            def wait(request: Any) -> Any:
                pace.wait()
                count("searched")
                return request

            self._io = StacApiIO(max_retries=_retry())
            try:
                with warnings.catch_warnings():
                    # A page without conformance classes is refused by the search below, with a sentence.
                    warnings.simplefilter("ignore", PystacClientWarning)
                    # Client.open sets both on the given StacApiIO anew.
                    self._client = Client.open(self.url, stac_io=self._io, request_modifier=wait, timeout=TIMEOUT_S)
            except (APIError, STACError, ValueError, KeyError, TypeError) as error:
                raise CatalogError(
                    f"catalog {self.name}",
                    f"no STAC API answers at {self.url}: {_short(error)}. Check the address and the network",
                ) from error
        return self._client

    def _get(self, path: str) -> Item | None:
        """A document of the API, or None when it does not exist."""
        from pystac_client.exceptions import APIError

        at = f"{self.url.rstrip('/')}/{path}"
        assert self._io is not None  # _connect came first
        try:
            document: Item = json.loads(self._io.request(at))
        except APIError as error:
            if getattr(error, "status_code", None) == 404:
                return None
            raise CatalogError(f"catalog {self.name}", f"{at} cannot be read: {_short(error)}") from error
        return document

    def _filters(
        self, client: Client, query: Mapping[str, Any], cql2: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
        """What the server is asked to filter by, and the part of the CQL2 that is applied here.

        The server gets what it offers to apply and what all servers answer alike.
        """
        sent = same_everywhere(query)
        by_query = {"query": sent} if sent and client.conforms_to("QUERY") else {}
        if not client.conforms_to("FILTER"):
            return by_query, cql2
        parts = [(part, is_plain(part)) for part in (conjuncts(cql2) if cql2 else ())]
        remote = [part for part, plain in parts if not (plain and differs(part))]
        here = all_of([part for part, plain in parts if plain])
        if remote or (sent and not by_query):
            # One language for all: pgstac, and so Planetary Computer, refuses `query` and `filter` in one search.
            return {"filter": all_of([*remote, *query_as_cql2(sent)]), "filter_lang": "cql2-json"}, here
        return by_query, here

    def _check_collections(self, collections: Sequence[str]) -> None:
        """CatalogError when a collection does not exist: servers answer that with an empty result."""
        known = {str(one["id"]) for one in (self._get("collections") or {}).get("collections", ())}
        for name in collections:
            # The list may have further pages, so the collection itself is asked for before we say it does not exist.
            if name not in known and self._get(f"collections/{name}") is None:
                raise _no_collection(self.name, name, known)


class Pace:
    """Keeps requests apart so that an endpoint's limit is not passed: at most so many a second, a few at once.

    A bucket of tokens; shared by all threads of the process that ask one endpoint.
    """

    def __init__(self, per_s: float | None, burst: int = 2) -> None:
        self.per_s, self.burst = per_s, burst
        self._lock = threading.Lock()
        self._tokens = float(burst)
        self._then = time.monotonic()

    def wait(self) -> None:
        """Sleep until a request may be made."""
        if self.per_s is None:
            return
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._tokens + (now - self._then) * self.per_s, float(self.burst)) - 1
            self._then = now
            pause_s = -self._tokens / self.per_s
        if pause_s > 0:
            time.sleep(pause_s)


@functools.cache
def pace_of(endpoint: Endpoint | None) -> Pace:
    """The pace of an endpoint, one for the whole process; without an endpoint there is no limit."""
    return Pace(endpoint.requests_per_s if endpoint else None)


def _is_too_long(error: Exception) -> bool:
    """Whether a server broke on the length of its own answer: 413, or 502 from the gateway before it."""
    status = getattr(error, "status_code", None)
    return status in (413, 502) or (status is None and "too many 502 error responses" in str(error))


def _method(client: Client) -> str:
    """POST, which takes large areas, unless the server says that it only knows GET."""
    methods = {link.extra_fields.get("method", "GET") for link in client.get_links("search")}
    return "POST" if "POST" in methods or not methods else "GET"


class StaticCatalog:
    """A catalog that is files: read once, then filtered here. Children and items are followed."""

    says_cloud: frozenset[str] = frozenset()

    def __init__(self, where: str | Path) -> None:
        text = str(where)
        self.name = text
        self.root = text if _is_url(text) or is_object_url(text) else str(Path(text).resolve())
        self._items: dict[str | None, list[Item]] | None = None
        self._collections: set[str] = set()

    def name_of(self, collection: Collection, asked: str) -> str:
        """See ``Catalog.name_of``: the first of its names that is here."""
        held = {*self._read(), *self._collections}
        return next((name for name in (asked, collection.id, *collection.aliases) if name in held), asked)

    def search(
        self,
        collections: Sequence[str],
        geometry: shapely.Geometry,
        start: dt.datetime | None,
        end: dt.datetime | None,
        *,
        query: Mapping[str, Any] | None = None,
        cql2: Mapping[str, Any] | None = None,
        limit_page: int = 100,
    ) -> list[Item]:
        """See ``Catalog.search``."""
        _check_interval(start, end)
        check_query(query or {})
        items = self._read()
        for name in collections:
            if name not in items and name not in self._collections:
                raise _no_collection(self.name, name, {*self._collections, *(key for key in items if key)})
        keep = keep_items(collections, geometry, start, end, query, cql2)
        unique = {(name, item["id"]): item for name in collections for item in items.get(name, ())}
        return [item for item in unique.values() if keep(item)]

    def _read(self) -> dict[str | None, list[Item]]:
        if self._items is None:
            items: dict[str | None, list[Item]] = {}
            with no_collector():
                for item in self._all_items():
                    items.setdefault(item.get("collection"), []).append(item)
            self._items = items
        return self._items

    def _all_items(self) -> Iterator[Item]:
        files = _Files()
        suffix = _suffix(self.root)
        if suffix == ".parquet":
            yield from (_absolute(item, self.root, self.root) for item in _read_parquet(self.root, files))
        elif suffix in (".ndjson", ".jsonl"):
            yield from (_absolute(item, self.root, self.root) for item in _read_lines(self.root, files))
        else:
            yield from self._walk(_read_json(self.root, files), self.root, files)

    def _walk(self, document: Item, at: str, files: _Files) -> Iterator[Item]:
        seen, level = {at}, iter([(document, at)])
        while True:
            # Level by level, so that many files of a level can be read at once.
            children: list[str] = []
            for document, at in level:
                match document.get("type"):
                    case "FeatureCollection":
                        for item in document.get("features", ()):
                            _check_item(item, at)
                            yield _absolute(item, at, at)
                    case "Feature":
                        _check_item(document, at)
                        yield _absolute(document, at, at)
                    case "Catalog" | "Collection":
                        if document["type"] == "Collection":
                            self._collections.add(str(document.get("id")))
                        children += _children(document, at)
                    case other:
                        raise CatalogError(
                            f"catalog {self.name}",
                            f"{at} is JSON of type {other!r}, not STAC; wanted a Catalog, Collection, Feature or "
                            "FeatureCollection",
                        )
            new = [href for href in dict.fromkeys(children) if href not in seen]
            if not new:
                return
            seen.update(new)
            level = zip(_read_many(new, files), new, strict=True)


def item_interval(item: Mapping[str, Any]) -> tuple[dt.datetime, dt.datetime] | None:
    """Start and end of an item in UTC, equal for an instant; None when it has no time."""
    properties = item["properties"]
    if properties.get("datetime"):
        instant = parse_time(properties["datetime"])
        return instant, instant
    start, end = properties.get("start_datetime"), properties.get("end_datetime")
    if not start or not end:
        return None
    return parse_time(start), parse_time(end)


def item_geometry(item: Mapping[str, Any]) -> shapely.Geometry | None:
    """Footprint of an item in EPSG:4326, from its geometry or else its bbox; None when it has neither.

    A footprint drawn the long way round the globe is cut at the antimeridian.
    """
    import shapely

    geometry: shapely.Geometry | None = None
    if item.get("geometry"):
        # Polygons without a point are in the catalogs (a Sentinel-1 item of 2015); their bbox is good.
        with contextlib.suppress(shapely.errors.ShapelyError, IndexError, TypeError, ValueError):
            geometry = shapely.geometry.shape(item["geometry"])
    if geometry is None and item.get("bbox"):
        box = item["bbox"]
        minx, miny, maxx, maxy = box if len(box) == 4 else (box[0], box[1], box[3], box[4])
        geometry = shapely.box(minx, miny, maxx + 360 if maxx < minx else maxx, maxy)
    return None if geometry is None else _cut_at_antimeridian(geometry)


def _cut_at_antimeridian(geometry: shapely.Geometry) -> shapely.Geometry:
    import numpy as np
    import shapely
    from shapely import affinity

    minx, _, maxx, _ = shapely.bounds(geometry)
    if maxx - minx <= 180 and maxx <= 180:
        return geometry
    east = shapely.transform(geometry, lambda xy: np.where(xy[:, :1] < 0, xy + np.array([360.0, 0.0]), xy))
    west_edge, _, east_edge, _ = shapely.bounds(east)
    if not isinstance(geometry, shapely.Polygon) or not 0 < east_edge - west_edge < 180:
        return geometry  # two parts already, or truly wider than half the globe
    east = shapely.make_valid(east)
    return shapely.union(
        shapely.intersection(east, shapely.box(-180, -90, 180, 90)),
        affinity.translate(shapely.intersection(east, shapely.box(180, -90, 540, 90)), -360),
    )


def _outline(geometry: shapely.Geometry) -> shapely.Geometry:
    """The area as it is sent: itself, or its hull when it is too fine; a hull on each side of the antimeridian."""
    import shapely

    if shapely.get_num_coordinates(geometry) <= MAX_VERTICES:
        return geometry
    return shapely.union_all([shapely.convex_hull(half) for half in _halves(geometry)])


def _halves(geometry: shapely.Geometry) -> list[shapely.Geometry]:
    """The area itself, or its western and eastern part when it lies on both sides of the antimeridian."""
    import shapely

    minx, miny, maxx, maxy = shapely.bounds(geometry)
    if maxx - minx <= 180:
        return [geometry]
    return [
        shapely.intersection(geometry, shapely.box(*half)) for half in ((minx, miny, 0, maxy), (0, miny, maxx, maxy))
    ]


def keep_items(
    collections: Sequence[str],
    geometry: shapely.Geometry,
    start: dt.datetime | None,
    end: dt.datetime | None,
    query: Mapping[str, Any] | None,
    cql2: Mapping[str, Any] | None,
) -> Callable[[Item], bool]:
    """The whole question as a test of one item, for catalogs that cannot answer it and to check those that can."""
    import shapely

    meets = None if cql2 is None else cql2_test(cql2)
    shapely.prepare(geometry)
    minx, miny, maxx, maxy = shapely.bounds(geometry)

    def keep(item: Item) -> bool:
        if item.get("collection") not in collections or not _overlaps_time(item, start, end):
            return False
        box = item.get("bbox")
        if box and len(box) == 4 and box[0] <= box[2] and (box[0] > maxx or box[2] < minx):
            return False
        if box and len(box) == 4 and (box[1] > maxy or box[3] < miny):
            return False
        if query and not matches_query(item, query):
            return False
        if meets is not None and not meets(item):
            return False
        footprint = item_geometry(item)
        return footprint is not None and bool(shapely.intersects(geometry, footprint))

    return keep


def _overlaps_time(item: Item, start: dt.datetime | None, end: dt.datetime | None) -> bool:
    if start is None and end is None:
        return True
    interval = item_interval(item)
    if interval is None:
        return False
    first, last = interval
    if end is not None and first >= end:
        return False
    # A year of land cover that ends on 1 January 00:00 is not of the next year; an instant at the start is inside.
    return start is None or last > start or first == last == start


def _check_interval(start: dt.datetime | None, end: dt.datetime | None) -> None:
    if any(time is not None and time.tzinfo is None for time in (start, end)):
        raise CatalogError("time", f"{start} to {end} has no time zone; wanted UTC")
    if start is not None and end is not None and start >= end:
        raise CatalogError("time", f"{start} is not before {end}; swap them or widen the interval")


def _check_item(item: Any, at: str) -> None:
    if not isinstance(item, dict) or not isinstance(item.get("properties"), dict) or "id" not in item:
        raise CatalogError(at, "holds a feature that is not a STAC item: 'id' or 'properties' is missing")
    if not isinstance(item.get("assets"), dict):
        raise CatalogError(at, f"feature {item['id']} is GeoJSON but not a STAC item: it has no 'assets'")


def _absolute(item: Item, at: str, root: str) -> Item:
    """The item with absolute asset addresses: relative ones belong to the file, or else to the item's self link."""
    own = _self_link(item)
    collected = not _is_url(at) and at == root and own is not None and own != at
    for asset in item["assets"].values():
        _take_alternate(asset)
        for name in BALLAST.intersection(asset):
            del asset[name]
        href = asset.get("href", "")
        here = _join(at, href)
        # An item copied from an API into one local file: its relative addresses are the API's, unless files lie here.
        asset["href"] = _join(own, href) if collected and own and not _exists(here) else here
    return item


def _take_alternate(asset: Item) -> None:
    """Put the address that can be opened in the place of one that cannot (USGS: https wants a login)."""
    host = host_of(str(asset.get("href", ""))) if "alternate" in asset else None
    if host is not None and host.alternate is not None:
        other = asset["alternate"].get(host.alternate, {})
        asset["href"] = other.get("href", asset["href"])


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """Without the cycle collector: it walks all items again and again while more are made, two thirds of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _exists(href: str) -> bool:
    return _is_remote(href) or Path(href).exists()


def _self_link(item: Mapping[str, Any]) -> str | None:
    for link in item.get("links") or ():
        if link.get("rel") == "self" and _is_url(str(link.get("href", ""))):
            return str(link["href"])
    return None


def _children(document: Item, at: str) -> list[str]:
    links = [link for link in document.get("links", ()) if isinstance(link, Mapping) and link.get("href")]
    children = [_join(at, link["href"]) for link in links if link.get("rel") in ("child", "item")]
    if not children and any(link.get("rel") == "items" for link in links):
        raise CatalogError(at, "is a collection of a STAC API; give the address of the API itself, its landing page")
    return children


def _join(base: str, href: str) -> str:
    """An address relative to a file, made absolute."""
    if href.startswith("file://"):
        return urlsplit(href).path
    if _is_remote(href) or href.startswith("/"):
        return urljoin(base, href) if href.startswith("/") and _is_url(base) else href
    if _is_remote(base):
        if _is_url(base):
            return urljoin(base, href)
        scheme, rest = base.split("://", 1)
        return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(rest), href))}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(base), href))


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _is_remote(text: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*://|/vsi", text) is not None


def _suffix(text: str) -> str:
    return posixpath.splitext(urlsplit(text).path if _is_url(text) else text)[1].lower()


class _Files:
    """Reads bytes from paths and URLs; connections are kept open between reads."""

    def __init__(self) -> None:
        self._session: requests.Session | None = None

    def read(self, at: str) -> bytes:
        if is_object_url(at):
            try:
                return read_object(at)
            except ObjectsError as error:
                raise CatalogError(at, f"cannot be read as a catalog: {error}") from error
        if not _is_url(at):
            try:
                return Path(at).read_bytes()
            except OSError as error:
                why = "is a folder; give the catalog.json in it" if Path(at).is_dir() else error.strerror or str(error)
                raise CatalogError(at, f"cannot be read as a catalog: {why}") from error
        import requests

        if self._session is None:
            from requests.adapters import HTTPAdapter

            self._session = requests.Session()
            adapter = HTTPAdapter(max_retries=_retry(), pool_maxsize=READERS)
            self._session.mount("http://", adapter)
            self._session.mount("https://", adapter)
        try:
            answer = self._session.get(at, timeout=TIMEOUT_S)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise CatalogError(at, f"cannot be read as a catalog: {_short(error)}") from error
        return answer.content


def _retry() -> Retry:
    from urllib3.util import Retry

    return Retry(
        total=ATTEMPTS - 1,
        connect=2,  # a server that is up may be busy; one that cannot be reached seldom comes back in seconds
        backoff_factor=BACKOFF_S,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,  # a search is a POST, and asking twice changes nothing
        respect_retry_after_header=True,
    )


def _read_json(at: str, files: _Files) -> Item:
    data = files.read(at)
    try:
        document = json.loads(data)
    except ValueError as error:
        raise CatalogError(at, f"is not JSON, or is cut short: {error}") from error
    if not isinstance(document, dict):
        raise CatalogError(at, f"is JSON but not STAC: it holds a {type(document).__name__}")
    return document


def _read_many(hrefs: Sequence[str], files: _Files) -> Iterator[Item]:
    if len(hrefs) < 2 or not _is_url(hrefs[0]):
        # From a local disk, parsing is the work and threads do not speed it up.
        yield from (_read_json(href, files) for href in hrefs)
        return
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(lambda href: _read_json(href, files), hrefs)


def _read_lines(at: str, files: _Files) -> Iterator[Item]:
    for number, line in enumerate(files.read(at).splitlines(), start=1):
        if line.strip():
            try:
                item = json.loads(line)
            except ValueError as error:
                raise CatalogError(at, f"line {number} is not JSON, or is cut short: {error}") from error
            _check_item(item, f"{at}, line {number},")
            yield item


def _read_parquet(at: str, files: _Files) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import stac_table_to_items

    try:
        table = pq.ParquetFile(pa.BufferReader(files.read(at))).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(at, f"is not a Parquet file, or is cut short: {error}") from error
    missing = {"id", "geometry", "bbox", "assets", "links"} - set(table.column_names)
    if missing:
        raise CatalogError(at, f"is Parquet but not stac-geoparquet: columns {sorted(missing)} are missing")
    for item in stac_table_to_items(table):
        _check_item(item, at)
        yield item


def _no_collection(catalog: str, name: str, known: Iterable[str]) -> CatalogError:
    names = sorted(known)
    return CatalogError(
        f"catalog {catalog}",
        f"it has no collection '{name}'.{nearest(name, names)} It has: {', '.join(names) or 'none at all'}",
    )


def _rfc3339(time: dt.datetime | None) -> str | None:
    return None if time is None else time.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    # urllib3 wraps what happened into what it tried; the user knows what was tried.
    if cause := re.search(r"Caused by \w+\([\"']?(?:\w+\([^()]*\): )?(.+?)[\"']?\)\)$", text):
        text = cause[1]
    return text if len(text) <= 300 else f"{text[:300]} …"
