"""Read an OpenStreetMap extract: the features that a rule set speaks of, near the area, as valid geometries.

Extracts are ``.osm.pbf`` (and the other formats of OpenStreetMap) or tables that somebody has made of one (GeoParquet,
GeoPackage …). Polygons are assembled here and not by a library, because a library drops what is broken without a word;
what was repaired, left out or cut off is counted by kind, with examples to look up.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from curate.errors import LabelError
from labels.multipolygon import FAULTS, Member, areas_only, assemble, polygons_of
from labels.rules import KINDS, Kind, Match, has_to_close, is_area

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

OSM_SUFFIXES = (".pbf", ".osm", ".osm.gz", ".osm.bz2", ".o5m", ".opl", ".xml")
"""Files that OpenStreetMap's own library reads."""

EXAMPLES = 5
"""Ids told of each kind of fault."""

BATCH = 50_000
"""Ways whose geometries are made at once."""

DUMB_TAGS = frozenset({"type", "source", "created_by", "note", "fixme", "FIXME", "name", "wikidata", "wikipedia"})
"""A multipolygon with no other tags has them on its outer ways, as was the custom before 2017."""

TYPES = ("node", "way", "relation", "row")
"""Of an object; ``row`` where a table does not tell."""

Box = tuple[float, float, float, float]
DateFrom = Literal["header", "newest object", "nothing in the file"]
Matcher = Callable[[Mapping[str, str], Kind], "Match | None"]


@dataclass
class Report:
    """What was wrong in an extract, what was left out on purpose, and how much there is."""

    faults: dict[str, list[str]] = field(default_factory=dict)
    """Ids by kind, see `labels.multipolygon.FAULTS`."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Features that a rule matches and that are not drawn, by the condition that says so."""
    objects: int = 0
    """Objects with one of the keys that the rules ask for."""
    matched: int = 0
    """Of them, those that become features, anywhere in the file."""

    def fault(self, kind: str, of: str) -> None:
        """Note one fault of an object."""
        self.faults.setdefault(kind, []).append(of)

    @property
    def attrs(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "faults": {
                kind: {"count": len(ids), "fate": FAULTS[kind], "examples": ids[:EXAMPLES]}
                for kind, ids in sorted(self.faults.items())
            },
            "skipped": dict(sorted(self.skipped.items())),
        }


@dataclass(frozen=True, eq=False)
class Extract:
    """Features of an extract near an area, in the order node, way, relation and by id."""

    geometry: NDArray[np.object_]
    """Valid points, lines, polygons and multipolygons, EPSG:4326."""
    kinds: NDArray[np.uint8]
    """Position in `labels.rules.KINDS`."""
    types: NDArray[np.uint8]
    """Position in ``TYPES``."""
    ids: NDArray[np.int64]
    matches: list[Match]
    tags: list[str] | None
    """JSON objects, or None where nobody asked for them."""
    date: str
    """ISO 8601, UTC; ``unknown`` where the file does not tell it (when it was copied says nothing of its age)."""
    date_from: DateFrom
    report: Report
    bounds: Box | None
    """Of all features in the file, None where there is none."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class _Found:
    """Features while they are gathered."""

    box: Box
    keep_tags: bool
    report: Report = field(default_factory=Report)
    geometry: list[Any] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    bounds: Box | None = None
    newest: datetime.datetime | None = None

    def near(self, bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of these (n, 4) bounds meet the box."""
        if len(bounds):
            low, high = np.nanmin(bounds[:, :2], axis=0), np.nanmax(bounds[:, 2:], axis=0)
            old = self.bounds or (*low, *high)
            west, south, east, north = (
                min(old[0], low[0]),
                min(old[1], low[1]),
                max(old[2], high[0]),
                max(old[3], high[1]),
            )
            self.bounds = (float(west), float(south), float(east), float(north))
        w, s, e, n = self.box
        return (bounds[:, 0] <= e) & (bounds[:, 2] >= w) & (bounds[:, 1] <= n) & (bounds[:, 3] >= s)

    def add(self, geometry: Any, kind: Kind, osm_type: int, osm_id: int, match: Match, tags: Mapping[str, str]) -> None:
        self.geometry.append(geometry)
        self.kinds.append(KINDS.index(kind))
        self.types.append(osm_type)
        self.ids.append(osm_id)
        self.matches.append(match)
        if self.keep_tags:
            self.tags.append(json.dumps(dict(tags), ensure_ascii=False, sort_keys=True, separators=(",", ":")))

    def saw(self, stamp: Any) -> None:
        """Remember the newest time stamp; objects without one have the epoch."""
        if stamp is not None and stamp.year > 1970 and (self.newest is None or stamp > self.newest):
            self.newest = stamp


def read_extract(
    label: str, path: str, *, keys: Iterable[str], match: Matcher, box: Box, points: bool = True, tags: bool = False
) -> Extract:
    """The features of an extract that the rules speak of and that meet a box.

    Args:
        label: Stands in errors.
        path: An OpenStreetMap file, GeoParquet, or anything that GDAL reads.
        keys: Tags of which a feature has at least one.
        match: What the rules make of tags and a kind of geometry.
        box: (west, south, east, north) in degrees.
        points: Whether the rules speak of points at all.
        tags: Keep all tags of the features.

    Raises:
        LabelError: The file is missing, unreadable, empty, a history, or nothing in it fits the rules or the box.
    """
    if not Path(path).exists():
        raise LabelError(label, f"{path} does not exist; correct the path (relative ones start at the recipe)")
    keys = sorted(keys)
    found = _Found(box, tags)
    if path.lower().endswith(OSM_SUFFIXES):
        stamp = _read_osm(label, path, keys, match, points, found)
    else:
        stamp = None
        _read_table(label, path, keys, match, found)
    _check(label, path, keys, found)
    return _finish(stamp, found)


def _check(label: str, path: str, keys: list[str], found: _Found) -> None:
    report = found.report
    wanted = ", ".join(keys[:8]) + (" …" if len(keys) > 8 else "")
    if not report.objects:
        raise LabelError(label, f"no object of {path} has one of the keys that the rules ask for ({wanted})")
    if not report.matched:
        why = "; ".join(
            f"{n} are {FAULTS[kind]}: {kind}" for kind, n in ((k, len(v)) for k, v in report.faults.items())
        )
        raise LabelError(
            label,
            f"none of the {report.objects} objects of {path} with such keys ({wanted}) becomes a feature by the rules"
            + (f" ({why})" if why else ""),
        )
    if not found.ids:
        covers = (
            "nothing that could be drawn"
            if found.bounds is None
            else "{:.3f},{:.3f},{:.3f},{:.3f}".format(*found.bounds)
        )
        here = "{:.3f},{:.3f},{:.3f},{:.3f}".format(*found.box)
        raise LabelError(
            label,
            f"{path} has {report.matched} features of these rules, but none near the area ({here} with its margin); "
            f"they cover {covers}. Take an extract of this area",
        )


def _finish(stamp: str | None, found: _Found) -> Extract:
    date_from: DateFrom = "header"
    if stamp is None and found.newest is not None:
        date_from, stamp = "newest object", found.newest.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    elif stamp is None:
        date_from, stamp = "nothing in the file", "unknown"
    types, ids = np.array(found.types, np.uint8), np.array(found.ids, np.int64)
    order = np.lexsort((np.arange(len(ids)), ids, types))
    if len(order):
        # Merged extracts hold what lies on their border twice; the later one is kept, as it is the newer one.
        last = np.append((np.diff(ids[order]) != 0) | (np.diff(types[order]) != 0), True)
        for i in order[~last]:
            if TYPES[types[i]] != "row":
                found.report.fault("object twice", f"{TYPES[types[i]]}/{ids[i]}")
        order = order[last | (types[order] == TYPES.index("row"))]
    geometry = np.empty(len(found.geometry), object)
    geometry[:] = found.geometry
    return Extract(
        geometry=geometry[order],
        kinds=np.array(found.kinds, np.uint8)[order],
        types=types[order],
        ids=ids[order],
        matches=[found.matches[i] for i in order],
        tags=[found.tags[i] for i in order] if found.keep_tags else None,
        date=stamp,
        date_from=date_from,
        report=found.report,
        bounds=found.bounds,
    )


# --- OpenStreetMap's own formats -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Relation:
    id: int
    match: Match | None
    """None: its tags are on its outer ways."""
    tags: dict[str, str]
    members: list[tuple[int, str]]
    others: bool


@dataclass(slots=True)
class _Ways:
    """Ways that wait until there are enough of them to make their geometries at once."""

    lines: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    tags: list[dict[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Of the way, known before its geometry; empty where it is whole."""


def _read_osm(label: str, path: str, keys: list[str], match: Matcher, points: bool, found: _Found) -> str | None:
    """Gather the features of an OpenStreetMap file; gives back the time in its header."""
    import osmium

    try:
        with osmium.io.Reader(path, osmium.osm.NOTHING) as reader:
            header = reader.header()
            if header.has_multiple_object_versions:
                raise LabelError(
                    label, f"{path} is a history of OpenStreetMap; cut the state of one day out of it first"
                )
            stamp = header.get("osmosis_replication_timestamp") or header.get("timestamp") or None
        relations = _relations(path, keys, match, found)
        store, open_areas = _ways_and_nodes(path, keys, match, points, found)
        if relations:
            _assemble_all(path, relations, store, match, open_areas, found)
    except (RuntimeError, OSError) as error:
        raise LabelError(label, f"{path} cannot be read as OpenStreetMap data ({error})") from error
    for way, fault in open_areas.items():
        found.report.fault(fault, f"way/{way}")
    if not found.report.objects and next(iter(osmium.FileProcessor(path)), None) is None:
        raise LabelError(label, f"{path} is empty: it holds no object at all")
    return stamp


def _relations(path: str, keys: list[str], match: Matcher, found: _Found) -> list[_Relation]:
    """Relations that may become areas."""
    import osmium

    known = set(keys)
    out: dict[int, _Relation] = {}
    reading: Any = osmium.FileProcessor(path, osmium.osm.RELATION)
    for r in reading.with_filter(osmium.filter.KeyFilter("type")):
        if not r.visible or r.tags["type"] not in ("multipolygon", "boundary"):
            continue
        tags = {t.k: t.v for t in r.tags}
        outcome = match(tags, "area")
        has_key = not known.isdisjoint(tags)
        found.report.objects += has_key
        if has_key:
            found.saw(r.timestamp)
        if outcome is None and not (tags["type"] == "multipolygon" and tags.keys() <= DUMB_TAGS):
            continue
        if outcome is not None and outcome.skipped:
            found.report.skipped[outcome.skipped] += 1
            continue
        members = [(m.ref, m.role) for m in r.members if m.type == "w"]
        if not members:
            if outcome is not None:
                found.report.fault("relation without ways", f"relation/{r.id}")
            continue
        if r.id in out:
            found.report.fault("object twice", f"relation/{r.id}")
        out[r.id] = _Relation(r.id, outcome, tags, members, any(m.type != "w" for m in r.members))
    return list(out.values())


def _ways_and_nodes(
    path: str, keys: list[str], match: Matcher, points: bool, found: _Found
) -> tuple[Any, dict[int, str]]:
    """Gather points, lines and closed ways; gives back the places of all nodes, and the ways that should be closed."""
    import osmium

    report = found.report
    open_areas: dict[int, str] = {}
    ways = _Ways()
    to_wkb = osmium.geom.WKBFactory().create_linestring
    all_nodes = osmium.geom.use_nodes.ALL
    reading: Any = osmium.FileProcessor(path, osmium.osm.NODE | osmium.osm.WAY).with_locations()
    if not points:
        reading.with_filter(osmium.filter.EntityFilter(osmium.osm.WAY))
    for o in reading.with_filter(osmium.filter.KeyFilter(*keys)):
        if not o.visible:
            continue
        report.objects += 1
        found.saw(o.timestamp)
        tags = {t.k: t.v for t in o.tags}
        if o.is_node():
            outcome = _outcome(match, tags, "point", report)
            if outcome is None:
                continue
            if not o.location.valid():
                report.fault("place beyond the earth", f"node/{o.id}")
                continue
            report.matched += 1
            x, y = o.location.lon, o.location.lat
            if found.near(np.array([[x, y, x, y]]))[0]:
                found.add(shapely.Point(x, y), "point", 0, o.id, outcome, tags)
            continue

        nodes = o.nodes
        fault = ""
        if len(nodes) < 2:
            if match(tags, "line") or match(tags, "area"):
                report.fault("way with a single node" if len(nodes) else "way without nodes", f"way/{o.id}")
            continue
        closed = nodes.is_closed()
        if not closed and len(nodes) > 3 and nodes[0].location.valid() and nodes.ends_have_same_location():
            closed, fault = True, "closed by place and not by node"
        kind: Kind = "area" if closed and is_area(tags) else "line"
        outcome = _outcome(match, tags, kind, report)
        if outcome is None:
            if not closed and has_to_close(tags) and (other := match(tags, "area")) and not other.skipped:
                open_areas[o.id] = "area not closed"
            continue
        try:
            lines = [to_wkb(o, all_nodes)]
        except osmium.InvalidLocationError:
            lines, fault = _pieces(nodes)
            if kind == "area":
                # With nodes missing its outline is not known.
                open_areas[o.id] = fault
                continue
        for line in lines:
            ways.lines.append(line)
            ways.ids.append(o.id)
            ways.kinds.append(kind)
            ways.matches.append(outcome)
            ways.tags.append(tags)
            ways.faults.append(fault)
        if not lines:
            report.fault(fault, f"way/{o.id}")
        if len(ways.ids) >= BATCH:
            _flush(ways, found)
            ways = _Ways()
    _flush(ways, found)
    return reading.node_location_storage, open_areas


def _outcome(match: Matcher, tags: dict[str, str], kind: Kind, report: Report) -> Match | None:
    """What the rules make of it, None where it is not drawn, which is counted."""
    outcome = match(tags, kind)
    if outcome is not None and outcome.skipped:
        report.skipped[outcome.skipped] += 1
        return None
    return outcome


def _pieces(nodes: Any) -> tuple[list[str], str]:
    """Runs of nodes whose places are known, as lines, and what is wrong with the others."""
    runs: list[list[tuple[float, float]]] = [[]]
    beyond = False
    for node in nodes:
        if node.location.valid():
            runs[-1].append((node.location.lon, node.location.lat))
        else:
            beyond |= _is_set(node.location)
            runs.append([])
    lines = [shapely.to_wkb(shapely.linestrings(run), hex=True) for run in runs if len(run) > 1]
    return lines, "place beyond the earth" if beyond else "nodes missing"


def _is_set(location: Any) -> bool:
    undefined = 2**31 - 1  # osmium's mark of a node that is not in the file
    return bool(location.x != undefined or location.y != undefined)


def _flush(ways: _Ways, found: _Found) -> None:
    """Make the geometries of ways and keep those that are near."""
    if not ways.ids:
        return
    report = found.report
    lines = shapely.from_wkb(np.array(ways.lines, object))
    bounds = shapely.bounds(lines)
    report.matched += len(set(ways.ids))
    # Faults are told of what lies near the area; what is wrong elsewhere is of no use to anybody here.
    at = np.flatnonzero(found.near(bounds))
    wide = bounds[at, 2] - bounds[at, 0] > 180
    for i in at[wide]:
        report.fault("across the antimeridian", f"way/{ways.ids[i]}")
    at = at[~wide]
    geometry = lines[at]
    areas = np.array([ways.kinds[i] == "area" for i in at], bool)
    if areas.any():
        geometry[areas], faults = polygons_of(geometry[areas])
        for kind, which in faults.items():
            for i in at[areas][which]:
                report.fault(kind, f"way/{ways.ids[i]}")
    if (~areas).any():
        clean = shapely.remove_repeated_points(geometry[~areas], 0.0)
        n = shapely.get_num_coordinates(clean)
        # Two equal points are left where a line never leaves its first place.
        flat = shapely.length(clean) == 0
        for i in at[~areas][flat]:
            report.fault("line without length", f"way/{ways.ids[i]}")
        for i in at[~areas][~flat & (n < shapely.get_num_coordinates(geometry[~areas]))]:
            report.fault("repeated nodes", f"way/{ways.ids[i]}")
        geometry[~areas] = np.where(flat, None, clean)
    told: set[int] = set()
    pieces: dict[int, list[Any]] = {}
    for i, shape in zip(at.tolist(), geometry, strict=True):
        way = ways.ids[i]
        if ways.faults[i] and way not in told:
            report.fault(ways.faults[i], f"way/{way}")
            told.add(way)
        if shape is None:
            continue
        if ways.faults[i] and ways.kinds[i] == "line" and way in pieces:
            # Another piece of a line with a gap.
            pieces[way].append(shape)
            found.geometry[-1] = shapely.multilinestrings(pieces[way])
            continue
        pieces[way] = [shape]
        found.add(shape, ways.kinds[i], 1, way, ways.matches[i], ways.tags[i])


def _assemble_all(
    path: str, relations: list[_Relation], store: Any, match: Matcher, open_areas: dict[int, str], found: _Found
) -> None:
    """Gather the areas of relations, and take back the ways that their tags or outlines belong to."""
    import osmium

    report = found.report
    wanted = {way for r in relations for way, _ in r.members}
    tagless = {way for r in relations if r.match is None for way, _ in r.members}
    places: dict[int, list[tuple[float, float]] | None] = {}
    lines: dict[int, str] = {}
    ways_tags: dict[int, dict[str, str]] = {}
    to_wkb, all_nodes = osmium.geom.WKBFactory().create_linestring, osmium.geom.use_nodes.ALL
    locate = osmium.NodeLocationsForWays(store)
    locate.ignore_errors()
    # Named, because the iterator does not keep its filters alive.
    members_only = osmium.filter.IdFilter(wanted)
    with osmium.io.Reader(path, osmium.osm.WAY) as reader:
        objects: Any = osmium.OsmFileIterator(reader, locate, members_only)
        for o in objects:
            with contextlib.suppress(osmium.InvalidLocationError):
                lines[o.id] = to_wkb(o, all_nodes)
            if o.id in tagless:
                ways_tags[o.id] = {t.k: t.v for t in o.tags}
    if lines:
        ids = np.array(list(lines))
        xy, owner = shapely.get_coordinates(shapely.from_wkb(np.array(list(lines.values()), object)), return_index=True)
        cuts = np.searchsorted(owner, np.arange(1, len(ids)))
        for way, run in zip(ids.tolist(), np.split(xy, cuts), strict=True):
            places[way] = list(map(tuple, run.tolist()))

    repeats: dict[int, int] = {}
    for r in relations:
        outcome, tags = r.match, r.tags
        old_style = outcome is None
        if outcome is None:
            outcome, tags = _tags_of_outers(r, ways_tags, match, report, places, found)
            if outcome is None:
                continue
        members = [Member(way, role, places.get(way)) for way, role in r.members]
        known = np.array([xy for m in members if m.xy for xy in m.xy])
        if not len(known):
            # Extracts cut at a border name relations that lie beyond it entirely.
            continue
        report.matched += 1
        box = np.array([[*known.min(axis=0), *known.max(axis=0)]])
        if not found.near(box)[0]:
            continue
        name = f"relation/{r.id}"
        if box[0, 2] - box[0, 0] > 180:
            report.fault("across the antimeridian", name)
            continue
        shape, faults = assemble(members)
        if r.others:
            faults.add("member that is no way")
        if old_style:
            faults.add("tags on the outer way")
        for fault in faults:
            report.fault(fault, name)
        if shape is None:
            continue
        found.add(shape, "area", 2, r.id, outcome, tags)
        for way, role in r.members:
            if role != "inner":
                open_areas.pop(way, None)
                repeats[way] = outcome.code
    _take_back(repeats, found)


def _tags_of_outers(
    r: _Relation, ways_tags: dict[int, dict[str, str]], match: Matcher, report: Report, places: Any, found: _Found
) -> tuple[Match | None, dict[str, str]]:
    """What the rules make of the tags on the outer ways of a relation that has none itself."""
    outcomes: dict[int, tuple[Match, dict[str, str]]] = {}
    for way, role in r.members:
        tags = ways_tags.get(way, {})
        outcome = match(tags, "area") if role != "inner" else None
        if outcome is not None and not outcome.skipped:
            outcomes.setdefault(outcome.code, (outcome, tags))
    if len(outcomes) > 1:
        report.fault("tags of outer ways differ", f"relation/{r.id}")
    return next(iter(outcomes.values())) if len(outcomes) == 1 else (None, {})


def _take_back(repeats: dict[int, int], found: _Found) -> None:
    """Drop closed ways that are the outer ring of a relation of the same class: drawn by itself it fills the holes."""
    gone = {
        i
        for i, (kind, code) in enumerate(zip(found.types, found.ids, strict=True))
        if kind == 1 and code in repeats and KINDS[found.kinds[i]] == "area" and found.matches[i].code == repeats[code]
    }
    for i in sorted(gone):
        found.report.fault("outer way repeats its relation", f"way/{found.ids[i]}")
    if gone:
        for values in (found.geometry, found.kinds, found.types, found.ids, found.matches, found.tags):
            values[:] = [v for i, v in enumerate(values) if i not in gone]


# --- tables made of an extract ---------------------------------------------------------------------------------------

_ID_COLUMNS = ("feature_id", "osm_id", "osmid", "osmId", "@osmId", "@id", "id", "osm_way_id")
_TYPE_COLUMNS = ("osm_type", "type", "element_type", "@type", "osmType")
_NOT_TAGS = frozenset(
    {
        *_ID_COLUMNS,
        *_TYPE_COLUMNS,
        "version",
        "changeset",
        "timestamp",
        "uid",
        "user",
        "z_order",
        "geometry",
        "bbox",
        "nodes",
        "ways",
    }
)
_TAG_COLUMNS = ("tags", "all_tags", "other_tags", "osm_tags")
_HSTORE = re.compile(r'"((?:[^"\\]|\\.)*)"\s*=>\s*(?:"((?:[^"\\]|\\.)*)"|NULL)')
_OSM_ID = re.compile(r"(node|way|relation|n|w|r)[/_ ]?(-?\d+)", re.IGNORECASE)


def _read_table(label: str, path: str, keys: list[str], match: Matcher, found: _Found) -> None:
    """Gather the features of a table: tags in one column (map, struct, JSON, hstore) or in one column a key."""
    seen = False
    for frame in _frames(label, path, found.box):
        seen = True
        tags, columns = _row_tags(frame, keys)
        if not columns:
            raise LabelError(
                label,
                f"{path} has no column tags and none of the keys of the rules ({', '.join(keys[:8])}); it has "
                f"{', '.join(str(c) for c in frame.columns[:12])}",
            )
        types, ids = _row_ids(frame, found.report.objects)
        _gather_rows(frame, tags, types, ids, set(keys), match, found)
    if not seen:
        raise LabelError(label, f"{path} is empty: it has no layer with a feature")


def _frames(label: str, path: str, box: Box) -> Iterator[gpd.GeoDataFrame]:
    """The layers of a file in EPSG:4326."""
    import geopandas as gpd
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        if path.lower().endswith((".parquet", ".geoparquet")):
            layers: list[str | None] = [None]
        else:
            layers = [str(n) for n, kind in pyogrio.list_layers(path) if kind is not None]
        for layer in layers:
            frame = (
                gpd.read_parquet(path)
                if layer is None
                else pyogrio.read_dataframe(path, layer=layer, on_invalid="ignore")
            )
            if frame.crs is None:
                raise LabelError(label, f"{path} has no CRS, so its place on the earth is unknown")
            if len(frame):
                yield frame.to_crs(4326)
    except (DataSourceError, DataLayerError, OSError, ValueError) as error:
        # Dask sends an error with its causes, and GDAL's own cannot be unpickled; what it says stands in the sentence.
        raise LabelError(label, f"{path} cannot be read ({error})") from None


def _row_tags(frame: gpd.GeoDataFrame, keys: list[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Tags of each row, and the columns they stand in."""
    names = [str(c) for c in frame.columns]
    packed = [c for c in _TAG_COLUMNS if c in names]
    single = [c for c in names if c not in _NOT_TAGS and c not in packed and c != frame.geometry.name]
    if not packed and not set(single) & set(keys):
        return [], []
    rows: list[dict[str, str]] = [{} for _ in range(len(frame))]
    for column in single:
        for row, value in zip(rows, frame[column], strict=True):
            if _is_value(value):
                row[column] = str(value)
    for column in packed:
        for row, value in zip(rows, frame[column], strict=True):
            row.update(_unpack(value))
    return rows, packed + single


def _is_value(value: Any) -> bool:
    return value is not None and value == value and value != "" and not isinstance(value, dict | list | np.ndarray)


def _unpack(value: Any) -> dict[str, str]:
    """Tags in one cell: a struct, a list of pairs (Arrow's map), JSON or hstore."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("{"):
            with contextlib.suppress(json.JSONDecodeError):
                value = json.loads(text)
        elif text:
            return {_bare(k): _bare(v) for k, v in _HSTORE.findall(text)}
    if isinstance(value, dict):
        return {str(k): str(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple | np.ndarray):
        pairs = [tuple(item.values()) if isinstance(item, dict) else tuple(item) for item in value]
        return {str(k): str(v) for k, v in pairs if v is not None}
    return {}


def _bare(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _row_ids(frame: gpd.GeoDataFrame, first: int) -> tuple[list[int], list[int]]:
    """Type and id of each row; rows without either are numbered."""
    type_column = next((c for c in _TYPE_COLUMNS if c in frame.columns), None)
    types: list[int] = [3] * len(frame)
    ids: list[int] = list(range(first, first + len(frame)))
    named = {name: i for i, word in enumerate(TYPES[:3]) for name in (word, word[0])}
    for column in (c for c in _ID_COLUMNS if c in frame.columns):
        for i, value in enumerate(frame[column]):
            if not _is_value(value) or types[i] != 3:
                continue
            if match := _OSM_ID.fullmatch(str(value)):
                types[i], ids[i] = named[match[1][0].lower()], int(match[2])
            elif type_column and str(frame[type_column].iloc[i]).lower() in named:
                digits = str(value).removesuffix(".0")
                if digits.removeprefix("-").isdigit():
                    types[i], ids[i] = named[str(frame[type_column].iloc[i]).lower()], int(digits)
            elif column in ("osm_way_id", "osm_id") and str(value).removesuffix(".0").removeprefix("-").isdigit():
                # GDAL's own layers: ways of polygons have a column of their own, the rest follows from the geometry.
                kind = frame.geometry.iloc[i]
                single = {"Point": 0, "LineString": 1}.get(kind.geom_type if kind is not None else "", 2)
                types[i], ids[i] = 1 if column == "osm_way_id" else single, int(str(value).removesuffix(".0"))
    return types, ids


def _gather_rows(
    frame: gpd.GeoDataFrame, tags: list[dict[str, str]], types: list[int], ids: list[int], keys: set[str],
    match: Matcher, found: _Found,
) -> None:  # fmt: skip
    report = found.report
    geometry = shapely.force_2d(frame.geometry.to_numpy())
    stamps = _stamps(frame)
    missing = shapely.is_missing(geometry) | shapely.is_empty(geometry)
    dimension = shapely.get_dimensions(geometry)
    near = found.near(np.where(missing[:, None], np.nan, shapely.bounds(geometry))) if not missing.all() else ~missing
    for i, row in enumerate(tags):
        if keys.isdisjoint(row):
            continue
        report.objects += 1
        name = f"{TYPES[types[i]]}/{ids[i]}"
        if missing[i]:
            report.fault("without geometry", name)
            continue
        shape = geometry[i]
        if dimension[i] == 1 and shape.geom_type == "LineString" and shape.is_closed and is_area(row):
            polygon, faults = polygons_of(np.array([shape], object))
            for fault in faults:
                report.fault(fault, name)
            shape = polygon[0]
            if shape is None:
                continue
        elif dimension[i] == 2 and not shape.is_valid:
            crossing = "Ring Self" not in shapely.is_valid_reason(shape)
            report.fault("ring that crosses itself" if crossing else "ring that touches itself", name)
            shape = areas_only(np.array([shapely.make_valid(shape, method="structure", keep_collapsed=False)], object))[
                0
            ]
            if shape.is_empty:
                continue
        kind = KINDS[int(shapely.get_dimensions(shape))]
        outcome = _outcome(match, row, kind, report)
        if outcome is None:
            continue
        report.matched += 1
        if stamps is not None:
            found.saw(stamps[i])
        if near[i]:
            found.add(shape, kind, types[i], ids[i], outcome, row)


def _stamps(frame: gpd.GeoDataFrame) -> list[Any] | None:
    column = next((c for c in ("timestamp", "osm_timestamp", "@timestamp") if c in frame.columns), None)
    if column is None:
        return None
    import pandas as pd

    times: pd.Series[Any] = pd.to_datetime(frame[column], utc=True, errors="coerce")
    return [None if t is pd.NaT else t.to_pydatetime() for t in times]
