"""What a recipe may ask of a catalog, and the whole way from that question to locked rows."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge, Le

from catalog.collections import Collection, canonical_band
from catalog.collections import collection as collection_table
from catalog.filters import all_of, check_query, platform_name
from curate.errors import CatalogError

if TYPE_CHECKING:
    import shapely

    from catalog.lock import LockedItem
    from catalog.scene import Scene
    from catalog.search import Catalog

log = logging.getLogger(__name__)

Item = dict[str, Any]

OPENERS = 16
"""Files whose headers are read at once, where items say no projection."""


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """Which scenes of a collection are wanted at all."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    max_cloud_pct: Annotated[float, Ge(0), Le(100)] | None = None
    """Cloud cover of the whole scene in percent, at most. Scenes that do not say are kept."""
    query: Mapping[str, Any] | None = None
    """Conditions on item properties, e.g. `{"s2:nodata_pixel_percentage": {"lt": 50}}`."""
    cql2: Mapping[str, Any] | None = None
    """A CQL2-JSON filter, e.g. `{"op": "<=", "args": [{"property": "eo:cloud_cover"}, 20]}`."""
    tiles: tuple[str, ...] = ()
    """Only these tiles of the archive's own grid, e.g. `33UWP`. Empty: all."""
    relative_orbits: tuple[int, ...] = ()
    """Only these relative orbits. Empty: all."""
    platforms: tuple[str, ...] = ()
    """Only these satellites, e.g. `sentinel-2a`. Empty: all."""

    def __post_init__(self) -> None:
        try:
            check_query(self.query or {})
        except CatalogError as error:
            raise ValueError(error.why) from error


def find(
    catalog: Catalog,
    *,
    source: str,
    collection: str | Collection,
    bands: Sequence[str],
    aoi_geometry: shapely.Geometry,
    start: dt.datetime | None,
    end: dt.datetime | None,
    spec: SearchSpec | None = None,
    orbits: Container[str] = (),
    known: Sequence[LockedItem] = (),
) -> list[LockedItem]:
    """The locked rows of one source: what the catalog has, as scenes, copies dropped, ordered by time and id.

    Args:
        catalog: Where to look; it is asked once.
        source: Name of the source in the recipe.
        collection: Id or alias in the table of collections, or a collection described by the user.
        bands: Names of the bands that will be read, the quality layer among them when it is wanted.
        aoi_geometry: Area of interest, EPSG:4326.
        start: Of the half-open time, UTC; not used for static layers.
        end: Of the half-open time, UTC.
        spec: Further wishes.
        orbits: Wanted directions (``ascending``, ``descending``); empty: all.
        known: Rows of the source that are locked already, and stay as they are. They are not found again; what is found
            joins their acquisitions, and what is a copy of one of them is dropped.

    Raises:
        CatalogError: what is asked for does not exist in this catalog.
        ReadError: an item says no projection and its file cannot be opened.
    """
    from catalog.acquisitions import acquisition_keys, resolve_duplicates
    from catalog.lock import LockedItem
    from catalog.scenes import missing_bands, no_asset

    spec = spec or SearchSpec()
    table = collection if isinstance(collection, Collection) else collection_table(collection)
    asked = catalog.name_of(table, collection if isinstance(collection, str) else table.id)
    names = tuple(canonical_band(table, name) for name in bands)
    query, cql2 = dict(spec.query or {}), spec.cql2
    if spec.max_cloud_pct is not None and table.kind == "optical":
        if table.mission in catalog.says_cloud:
            # A limit of the user's own stays: ours is checked below again, theirs is not.
            query["eo:cloud_cover"] = {"lte": spec.max_cloud_pct, **query.get("eo:cloud_cover", {})}
        else:
            cql2 = all_of([*([spec.cql2] if spec.cql2 else ()), _silent_or_at_most(spec.max_cloud_pct)])
    found = catalog.search(
        [asked],
        aoi_geometry,
        None if table.timeless else start,
        None if table.timeless else end,
        query=query or None,
        cql2=cql2,
    )
    there = {str(row.item["id"]) for row in known}
    found = [item for item in found if str(item["id"]) not in there]
    wanted = [item for item in found if all(test(item) for test in _tests(spec, orbits))]
    complete = [item for item in wanted if not missing_bands(item, table, names)]
    if wanted and not complete and not known:
        lacking = missing_bands(wanted[0], table, names)
        raise CatalogError(
            f"catalog {catalog.name}",
            f"none of the {len(wanted)} items of {table.id} has all of {', '.join(names)}. "
            f"{wanted[0]['id']} {no_asset(wanted[0], table, lacking)}",
        )
    used = [row for row in known if row.status == "used" and row.scene is not None]
    both = [*(row.item for row in used), *complete]
    keys = _joined(used, acquisition_keys(both, table.mission))
    named = [*(row.scene.acquisition for row in used if row.scene), *keys]
    copies = {
        at - len(used): why for at, why in resolve_duplicates(both, named, table.mission, locked=len(used)).items()
    }
    scenes = _scenes(complete, keys, source, table, names)
    rows = [
        LockedItem(_only_read(item, scene), source, "dropped" if at in copies else "used", copies.get(at, ""), scene)
        for at, (item, scene) in enumerate(zip(complete, scenes, strict=True))
    ]
    for item in wanted:
        lacking = missing_bands(item, table, names)
        if lacking:
            rows.append(LockedItem(item, source, "dropped", no_asset(item, table, lacking)))
    log.info("%s: %d items of %s, %d used", source, len(rows), table.id, sum(row.status == "used" for row in rows))
    return sorted(rows, key=order)


def _joined(known: Sequence[LockedItem], keys: Sequence[str]) -> tuple[str, ...]:
    """Names of the looks of what was found after the ``known`` rows, of which they keep those that are locked.

    Args:
        known: Rows with a scene.
        keys: ``acquisition_keys`` of the items of these rows, and then of all that was found.
    """
    locked: dict[str, str] = {}
    for row, key in zip(known, keys, strict=False):
        assert row.scene is not None
        locked.setdefault(key, row.scene.acquisition)
    return tuple(locked.get(key, key) for key in keys[len(known) :])


def _silent_or_at_most(cloud_pct: float) -> Item:
    """The limit of cloud as CQL2: a `query` would lose the scenes that do not say theirs."""
    cover = {"property": "eo:cloud_cover"}
    return {"op": "or", "args": [{"op": "isNull", "args": [cover]}, {"op": "<=", "args": [cover, cloud_pct]}]}


def _only_read(item: Item, scene: Scene) -> Item:
    """The item with only the assets of its scene: what the lock keeps of it."""
    return {**item, "assets": {asset.key: item["assets"][asset.key] for asset in scene.assets}}


def order(row: LockedItem) -> tuple[dt.datetime, str]:
    """What the rows of a source are sorted by in a lock: time, then id."""
    from catalog.search import item_interval

    interval = item_interval(row.item)
    acquired = row.scene.acquired if row.scene else interval[0] if interval else None
    return acquired or dt.datetime.min.replace(tzinfo=dt.UTC), str(row.item["id"])


def _tests(spec: SearchSpec, orbits: Container[str]) -> list[Callable[[Item], bool]]:
    """The wishes that are checked here: servers spell these properties differently or lack them."""
    from catalog.acquisitions import platform_of, tile_of
    from catalog.scenes import relative_orbit

    tests: list[Callable[[Item], bool]] = []
    limit = spec.max_cloud_pct
    if limit is not None:
        tests.append(lambda item: not _above(item["properties"].get("eo:cloud_cover"), limit))
    if orbits:
        tests.append(lambda item: str(item["properties"].get("sat:orbit_state", "")).lower() in orbits)
    if spec.tiles:
        tiles = {tile.upper().removeprefix("T") for tile in spec.tiles}
        tests.append(lambda item: tile_of(item) in tiles)
    if spec.relative_orbits:
        tests.append(lambda item: relative_orbit(item) in spec.relative_orbits)
    if spec.platforms:
        platforms = {platform_name(platform) for platform in spec.platforms}
        tests.append(lambda item: platform_of(item) in platforms)
    return tests


def _above(cloud_pct: Any, limit: float) -> bool:
    return isinstance(cloud_pct, int | float) and cloud_pct > limit


def _scenes(
    items: Sequence[Item], keys: Sequence[str], source: str, table: Collection, bands: Sequence[str]
) -> list[Scene]:
    from catalog.scenes import says_projection, to_scene
    from catalog.search import no_collector

    def scene(at: int) -> Scene:
        return to_scene(
            items[at],
            source=source,
            collection=table,
            bands=bands,
            acquisition=keys[at],
            signing=_signing(items[at]),
        )

    if all(says_projection(item, table, bands) for item in items):
        with no_collector():
            return [scene(at) for at in range(len(items))]
    log.info("%s: items of %s say no projection; opening their files to find it", source, table.id)
    with concurrent.futures.ThreadPoolExecutor(OPENERS) as pool:
        return list(pool.map(scene, range(len(items))))


def _signing(item: Item) -> str | None:
    """The signing scheme of the endpoint an item came from, also when it was saved to a file since."""
    from catalog.endpoints import endpoint_at

    for link in item.get("links") or ():
        if link.get("rel") in ("self", "collection", "root", "parent"):
            endpoint = endpoint_at(str(link.get("href", "")))
            if endpoint is not None:
                return endpoint.signing
    return None
