"""Which items are one look of one satellite: they become one step in time, and reprocessed copies are dropped.

The same ground may be there up to four times: neighbouring tiles overlap, and old products stay in the catalogs beside
their reprocessed versions, a millisecond apart. Earth Search stamps each tile with its own time, so time alone decides
nothing.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from catalog import sentinel2
from catalog.filters import parse_time, platform_name
from catalog.search import item_interval

SLICE_GAP = dt.timedelta(seconds=60)
"""Slices of one pass of Sentinel-1 follow each other without a gap, rows of Landsat and tiles of HLS after 15 to 25 s;
a minute allows for a missing one. The next pass is more than an hour away."""
PASSES = frozenset({"sentinel-1", "landsat", "hls"})
"""Missions whose items are pieces of a pass and carry a time of their own."""
STAMP_GAP = dt.timedelta(seconds=10)
"""Items that say nothing but their time belong together when they are this close."""

Item = Mapping[str, Any]


def acquisition_key(item: Item, mission: str | None) -> str:
    """Name of the look an item belongs to, from that item alone.

    Sentinel-2: satellite and start of the datatake (``S2A_20200302T102021``), the same for all tiles and baselines.
    Others: satellite or collection, orbit, time. For slices of one pass see ``acquisition_keys``.
    """
    return acquisition_keys([item], mission)[0]


def acquisition_keys(items: Sequence[Item], mission: str | None) -> tuple[str, ...]:
    """For each item of one collection the name of its look: the same for all tiles and slices of one pass.

    ``mission`` is the collection's (``sentinel-2``, ``sentinel-1``, ``landsat``, ``hls``, ``modis`` or None) and
    chooses the rule.
    """
    keys: list[str] = [""] * len(items)
    tracks: dict[str, list[tuple[dt.datetime, dt.datetime, int]]] = defaultdict(list)
    for at, item in enumerate(items):
        datatake = sentinel2.datatake(item) if mission == "sentinel-2" else None
        interval = item_interval(item)
        if datatake is not None:
            keys[at] = datatake
        elif interval is None:
            keys[at] = "static"
        else:
            tracks[_track(item, mission)].append((*_sensed(item, interval, mission), at))
    gap = SLICE_GAP if mission in PASSES else STAMP_GAP
    for track, members in tracks.items():
        latest: dt.datetime | None = None
        key = ""
        for first, last, at in sorted(members):
            if latest is None or first - latest > gap:
                key, latest = f"{track}_{_stamp(first)}", last
            latest = max(latest, last)
            keys[at] = key
    return tuple(keys)


def resolve_duplicates(
    items: Sequence[Item], keys: Sequence[str], mission: str | None, *, locked: int = 0
) -> dict[int, str]:
    """Positions of the items to drop, each with the reason. ``keys`` are their ``acquisition_keys``.

    Copies are items of one satellite, tile and acquisition. The highest processing baseline stays, then the latest
    generation. The two halves of a tile that was received by two stations are not copies: both stay. The first
    ``locked`` items are those of a dataset already: they stay, whatever comes.
    """
    groups: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for at, (item, key) in enumerate(zip(items, keys, strict=True)):
        part = _part(item, mission)
        if part is not None:
            groups[(key, *part)].append(at)
    dropped: dict[int, str] = {}
    for members in groups.values():
        there = [at for at in members if at < locked]
        kept = max(there or members, key=lambda at: _rank(items[at]))
        why = "is in the dataset already" if there else "is preferred"
        for at in members:
            if at != kept and at >= locked:
                dropped[at] = f"copy of {items[kept]['id']}, which {why}: {_why(items[at], items[kept])}"
    return dropped


def tile_of(item: Item) -> str | None:
    """The tile of a fixed grid an item lies on (MGRS ``33UWP``, path and row ``033032``, MODIS ``h35v10``), or None."""
    properties = item["properties"]
    code = str(properties.get("grid:code") or "")
    if properties.get("landsat:wrs_path") and properties.get("landsat:wrs_row"):
        return f"{int(properties['landsat:wrs_path']):03}{int(properties['landsat:wrs_row']):03}"
    if properties.get("modis:horizontal-tile") is not None and properties.get("modis:vertical-tile") is not None:
        return f"h{int(properties['modis:horizontal-tile']):02}v{int(properties['modis:vertical-tile']):02}"
    if properties.get("s2:mgrs_tile"):
        return str(properties["s2:mgrs_tile"])
    if code:
        return code.removeprefix("MGRS-").removeprefix("WRS2-")
    product = sentinel2.product_parts(item)
    if product and product[5]:
        return product[5]
    for pattern in (r"^S2[A-Z]_T?(\d{2}[A-Z]{3})_", r"^HLS\.[SL]30\.T(\d{2}[A-Z]{3})\."):  # Earth Search, HLS
        if match := re.match(pattern, item["id"]):
            return match[1]
    return None


def platform_of(item: Item) -> str | None:
    """Platform of an item, spelled as STAC does (``sentinel-2a``); None when it does not say."""
    platform = item["properties"].get("platform")
    if platform:
        return platform_name(str(platform))
    if match := re.match(r"^S([12])([A-D])_", item["id"]):
        return f"sentinel-{match[1]}{match[2].lower()}"
    if match := re.match(r"^(MOD|MYD|MCD)\d", item["id"]):
        return {"MOD": "terra", "MYD": "aqua", "MCD": "terra-aqua"}[match[1]]
    return None


def _track(item: Item, mission: str | None) -> str:
    """Satellite and orbit: what two slices of one pass have in common."""
    if mission is None:
        return str(item.get("collection") or "unknown")
    properties = item["properties"]
    if mission in ("hls", "modis", "landsat"):
        # HLS says no satellite; Terra and Aqua make the same product over the same eight days.
        path = str(properties.get("landsat:wrs_path") or "")
        return "_".join(part for part in (platform_of(item) or item.get("collection") or mission, path) if part)
    orbit = properties.get("sat:absolute_orbit") or properties.get("sat:relative_orbit") or ""
    parts = (platform_of(item) or mission, str(orbit), str(properties.get("sat:orbit_state") or ""))
    return "_".join(part for part in parts if part)


def _sensed(
    item: Item, interval: tuple[dt.datetime, dt.datetime], mission: str | None
) -> tuple[dt.datetime, dt.datetime]:
    # Items of Sentinel-1 carry the centre of the slice as `datetime`, and its true start and end beside it.
    properties = item["properties"]
    if mission == "sentinel-1" and properties.get("start_datetime") and properties.get("end_datetime"):
        return parse_time(properties["start_datetime"]), parse_time(properties["end_datetime"])
    return interval[0], interval[0]


def _part(item: Item, mission: str | None) -> tuple[str | None, ...] | None:
    """What two copies of one product share beside the acquisition; None for items that cannot be copies."""
    if mission == "sentinel-2":
        tile = tile_of(item)
        return None if tile is None else (tile, sentinel2.datastrip_start(item))
    if mission in ("landsat", "modis"):
        tile = tile_of(item)
        return None if tile is None else (tile,)
    interval = item_interval(item)
    if mission == "sentinel-1" and interval is not None:
        return tuple(_stamp(time) for time in _sensed(item, interval, mission))
    return None


def _rank(item: Item) -> tuple[tuple[int, int], int, str, str, str]:
    number = sentinel2.baseline_number(sentinel2.baseline(item)) or (-1, 0)
    tier = {"T1": 2, "T2": 1}.get(str(item["properties"].get("landsat:collection_category")), 0)
    updated = str(item["properties"].get("updated") or item["properties"].get("created") or "")
    return number, tier, sentinel2.generated(item), updated, str(item["id"])


def _why(dropped: Item, kept: Item) -> str:
    old, new = sentinel2.baseline(dropped), sentinel2.baseline(kept)
    if old != new:
        return f"baseline {new or 'unknown'} against {old or 'unknown'}"
    name = "landsat:collection_category"
    old, new = dropped["properties"].get(name), kept["properties"].get(name)
    if old != new:
        return f"{new or 'no tier'} against {old or 'no tier'}"
    old, new = sentinel2.generated(dropped), sentinel2.generated(kept)
    return f"generated {new} against {old}" if old != new else "the later of equals by update and id"


def _stamp(time: dt.datetime) -> str:
    return f"{time:%Y%m%dT%H%M%S}"
