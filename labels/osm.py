"""OpenStreetMap as a label: read once, drawn as classes, channels, instances or shares on any window.

Features are put into one order (priority, then larger under smaller, then areas under lines) and drawn as their number;
the class, the instance and the rank of a pixel are looked up from that one drawing, so they always agree. OpenStreetMap
is © its contributors and under the ODbL; masks have to say so, and the features stay under it. So both carry it.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import LabelError
from labels.codes import ignore_and_dtype
from labels.extract import TYPES, Extract, read_extract
from labels.legend import LabelClass, Legend
from labels.osm_spec import OsmLabel, Output
from labels.rasterize import Polygons, draw_polygons, max_edge, pack, project
from labels.rules import KINDS, Draw, RuleSet, read_rules
from labels.source import LabelVariable
from labels.strokes import Strokes, draw_strokes, pack_strokes, project_strokes
from labels.vectors import MARGIN_M, METRES_PER_DEGREE, REACH_M
from tiling.shards import Window

if TYPE_CHECKING:
    import geopandas as gpd

    from tiling.aoi import Aoi
    from tiling.grid import Chip

log = logging.getLogger(__name__)

ATTRIBUTION = "© OpenStreetMap contributors, https://www.openstreetmap.org/copyright"
LICENCE = "ODbL-1.0"

FINE = 8
"""Fine pixels along each side of a pixel, by which shares are counted."""
FINE_PX = 4096 * 4096
"""So many fine pixels are held at once."""
UNKNOWN_SHARE = 255
NOTHING = 65535
"""No class of any rule: codes end before it."""

Drawing = list[Polygons | Strokes]
"""What is drawn, in order."""

DULL_KEYS = frozenset(
    {
        "FIXME",
        "attribution",
        "brand",
        "check_date",
        "created_by",
        "description",
        "ele",
        "email",
        "fixme",
        "height",
        "image",
        "import",
        "lanes",
        "layer",
        "level",
        "maxspeed",
        "name",
        "network",
        "note",
        "oneway",
        "opening_hours",
        "operator",
        "owner",
        "phone",
        "ref",
        "source",
        "start_date",
        "survey:date",
        "type",
        "url",
        "website",
        "width",
        "wikidata",
        "wikipedia",
    }
)
"""Tags that say nothing of what something looks like from above, or only of one of its kind."""
DULL_PREFIXES = (
    "addr:",
    "name:",
    "alt_name",
    "old_name",
    "source:",
    "contact:",
    "ref:",
    "brand:",
    "is_in",
    "tiger:",
    "note:",
)


@dataclass(frozen=True, eq=False)
class Features:
    """The features themselves, where a label keeps them: EPSG:4326, one to one with the numbers that are drawn."""

    geometry: NDArray[np.object_]
    tags: tuple[str, ...]
    """JSON objects."""


@dataclass(frozen=True, eq=False)
class OsmSource:
    """Features of OpenStreetMap, ready to draw; a ``LabelSource`` and a ``FeatureSource``."""

    name: str
    legend: Legend
    """With the background, where that has a code of its own."""
    nomenclature: str | None
    """The product whose codes these are."""
    classes: tuple[LabelClass, ...]
    """Of the rules: the channels of presence and fraction."""
    outputs: tuple[Output, ...]
    ignore: int
    dtype: str
    """Of the mask."""
    fill: int
    """Mask: code where no feature lies."""
    all_touched: bool
    wide_only: bool
    """Lines that are narrower than a pixel are left out."""
    resolution_m: float | None
    attrs: dict[str, Any]
    """What is told of every variable: extract, date, attribution, faults, contradictions."""
    extent: tuple[float, float, float, float]
    """(west, south, east, north) in degrees: what was read."""
    codes: NDArray[np.uint16]
    """Class of each feature; its number in the drawing is its position and one."""
    priorities: NDArray[np.int64]
    widths: NDArray[np.float64]
    """Width of each feature in metres, NaN for areas and for lines without one."""
    types: NDArray[np.uint8]
    """Position in `labels.extract.TYPES`."""
    ids: NDArray[np.int64]
    """OpenStreetMap's id, or the number of the row in a table that has none."""
    drawing: Drawing = field(repr=False)
    """By number, in EPSG:4326."""
    channels: Drawing = field(repr=False)
    """By position of the class in the legend, in EPSG:4326; empty where no presence is asked for."""
    kept: Features | None = field(default=None, repr=False)
    _zones: dict[tuple[int, str], Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.codes)

    def variable_name(self, output: Output) -> str:
        """Name of the variable of an output: the label's own where it is the only one, and of the mask."""
        return self.name if output == "mask" or len(self.outputs) == 1 else f"{self.name}_{output}"

    @property
    def variables(self) -> tuple[LabelVariable, ...]:
        """One an output; see ``LabelSource``."""
        return tuple(self._variable(output) for output in self.outputs)

    def _variable(self, output: Output) -> LabelVariable:
        name, names = self.variable_name(output), tuple(c.name for c in self.classes)
        channel = {"class_codes": [c.code for c in self.classes]}
        if output == "mask":
            return LabelVariable(name, self.dtype, self.ignore, "classes", attrs={**self.legend.attrs, **self.attrs})
        if output == "presence":
            attrs = {"long_name": "whether a feature of the class is mapped here", **channel, **self.attrs}
            lead, coords = (("channel", len(names)),), (("channel", names),)
            return LabelVariable(name, "uint8", 0, "presence", lead, attrs=attrs, coords=coords)
        if output == "instances":
            attrs = {"long_name": "number of the feature on top", **self.attrs}
            return LabelVariable(name, "uint32", 0, "ids", attrs=attrs)
        if output == "rank":
            levels = [int(p) for p in np.unique(self.priorities)]
            attrs = {"long_name": "place in the order of drawing, higher is over lower", "levels": levels, **self.attrs}
            return LabelVariable(name, "uint8", 0, "measure", attrs=attrs)
        attrs = {"long_name": "share of the pixel that the class covers", "units": "percent", **channel, **self.attrs}
        lead, coords = (("class", len(names)),), (("class", names),)
        return LabelVariable(name, "uint8", UNKNOWN_SHARE, "measure", lead, attrs=attrs, coords=coords)

    def render(self, window: Window) -> dict[str, NDArray[Any]]:
        """Its variables on a window, in pixels of the window; see ``LabelSource``.

        Raises:
            ValueError: The window lies beyond what was read.
        """
        self._check_extent(window)
        drawn: dict[str, NDArray[Any]] = {}
        if {"mask", "instances", "rank"} & set(self.outputs):
            numbers = self._numbers(window, window.resolution_m)
            for output, values in (("mask", self._code_of), ("instances", None), ("rank", self._rank_of)):
                if output in self.outputs:
                    drawn[self.variable_name(output)] = numbers if values is None else values[numbers]
        if "presence" in self.outputs:
            drawn[self.variable_name("presence")] = self._presence(window)
        if "fraction" in self.outputs:
            drawn[self.variable_name("fraction")] = self._fraction(window)
        return {v.name: drawn[v.name] for v in self.variables}

    def _numbers(self, window: Window, pixel_m: float) -> NDArray[np.uint32]:
        """Number of the feature on top, 0 where there is none; the window may have finer pixels than the label."""
        out = np.zeros(window.shape, np.uint32)
        for part in self._in_zone(window.epsg, "drawing"):
            self._draw(out, part, window, pixel_m)
        return out

    def _draw(self, out: NDArray[Any], part: Polygons | Strokes, window: Window, pixel_m: float) -> None:
        if isinstance(part, Polygons):
            draw_polygons(out, part, window, all_touched=self.all_touched)
        else:
            least_m = pixel_m if self.wide_only else 0.0
            draw_strokes(out, part, window, all_touched=self.all_touched, least_m=least_m)

    @cached_property
    def _code_of(self) -> NDArray[np.unsignedinteger[Any]]:
        return np.concatenate([[self.fill], self.codes]).astype(self.dtype)

    @cached_property
    def _class_of(self) -> NDArray[np.uint16]:
        return np.concatenate([[NOTHING], self.codes]).astype(np.uint16)

    @cached_property
    def _rank_of(self) -> NDArray[np.uint8]:
        return np.concatenate([[0], np.unique(self.priorities, return_inverse=True)[1] + 1]).astype(np.uint8)

    def _presence(self, window: Window) -> NDArray[np.uint8]:
        out = np.zeros((len(self.classes), *window.shape), np.uint8)
        for layer, parts in zip(out, self._in_zone(window.epsg, "channels"), strict=True):
            for part in parts:
                self._draw(layer, part, window, window.resolution_m)
        return out

    def _fraction(self, window: Window) -> NDArray[np.uint8]:
        """In strips of rows: a window in fine pixels would be 64 times as large."""
        from labels.burn import cover_share

        height, width = window.shape
        codes = np.array([c.code for c in self.classes], np.int64)
        out = np.empty((len(codes), height, width), np.uint8)
        rows = max(1, FINE_PX // (FINE * FINE * width))
        minx, _, maxx, maxy = window.bounds
        size = window.resolution_m
        for top in range(0, height, rows):
            n = min(rows, height - top)
            strip = Window(
                window.epsg,
                (minx, maxy - (top + n) * size, maxx, maxy - top * size),
                size / FINE,
                (n * FINE, width * FINE),
                (),
                (),
            )
            share = np.empty((len(codes), n, width), np.uint8)
            cover_share(share, self._class_of[self._numbers(strip, size)], codes, FINE)
            out[:, top : top + n] = share
        return out

    def _in_zone(self, epsg: int, what: str) -> list[Any]:
        # One projects, the others wait: the work takes a second for 200,000 features, and the memory twice.
        with _projecting:
            if (epsg, what) not in self._zones:
                moved = [
                    project(part, epsg) if isinstance(part, Polygons) else project_strokes(part, epsg)
                    for part in (self.drawing if what == "drawing" else self.channels)
                ]
                self._zones[epsg, what] = moved if what == "drawing" else _by_channel(moved, len(self.classes))
        found: list[Any] = self._zones[epsg, what]
        return found

    def _check_extent(self, window: Window) -> None:
        west, south, east, north = _degrees(window.epsg, window.bounds)
        w, s, e, n = self.extent
        if west < w or south < s or east > e or north > n:
            raise ValueError(f"label {self.name}: the window lies beyond what was read; open it with a larger margin_m")

    def __getstate__(self) -> dict[str, Any]:
        # A worker projects for itself: cheaper than to send every zone. Features are written where they were read.
        return {**self.__dict__, "_zones": {}, "kept": None}

    # --- features ----------------------------------------------------------------------------------------------------

    def features(self, chips: Sequence[Chip]) -> gpd.GeoDataFrame:
        """One row a feature and chip, EPSG:4326, under the ODbL; see ``FeatureSource``.

        Columns: ``chip``, ``id`` (``way/123``), ``osm_type``, ``osm_id``, ``number`` (as in the instances), ``code``,
        ``class``, ``width_m`` (NaN for areas), ``tags`` (a JSON object) and the geometry cut to the chip; lines are
        not widened. The attribution stands in ``attrs``. Empty when the label was opened without its features.
        """
        import geopandas as gpd
        import shapely

        if self.kept is None:
            return gpd.GeoDataFrame(geometry=[], crs=4326)
        names = {c.code: c.name for c in self.classes}
        chip, number, shapes = [], [], []
        for epsg, where, which, cut in self._on_chips(chips):
            chip += [chips[i].id for i in where]
            number.append(which)
            shapes.append(shapely.transform(cut, _transform(epsg, 4326), interleaved=False))
        of = np.concatenate([np.empty(0, np.intp), *number])
        frame = gpd.GeoDataFrame(
            {
                "chip": chip,
                "id": [self.feature_id(i) for i in of],
                "osm_type": [TYPES[t] for t in self.types[of]],
                "osm_id": self.ids[of],
                "number": (of + 1).astype(np.uint32),
                "code": self.codes[of],
                "class": [names[int(code)] for code in self.codes[of]],
                "width_m": self.widths[of],
                "tags": [self.kept.tags[i] for i in of],
            },
            geometry=np.concatenate([np.empty(0, object), *shapes]),
            crs=4326,
        )
        frame.attrs |= {"attribution": ATTRIBUTION, "licence": LICENCE, "extract_date": self.attrs["extract_date"]}
        return frame

    def feature_id(self, position: int) -> str:
        """OpenStreetMap's name of a feature: ``way/123``."""
        return f"{TYPES[self.types[position]]}/{self.ids[position]}"

    def tag_counts(self, chips: Sequence[Chip]) -> dict[str, list[tuple[str, str, int, float]]]:
        """What is mapped on each chip, by its id: (key, value, features, m² on the chip), the most frequent first.

        Of lines the area is length times width. Names, addresses, sources and the like are left out: they say nothing
        of what something looks like.

        Raises:
            ValueError: The label was opened without its features.
        """
        import shapely

        n: dict[str, Counter[tuple[str, str]]] = {chip.id: Counter() for chip in chips}
        area_m2: dict[str, Counter[tuple[str, str]]] = {chip.id: Counter() for chip in chips}
        for _, where, which, cut in self._on_chips(chips):
            assert self.kept is not None  # else _on_chips has raised
            wide = np.nan_to_num(self.widths[which])
            covered = np.where(shapely.get_dimensions(cut) == 1, shapely.length(cut) * wide, shapely.area(cut))
            for chip, i, m2 in zip(where, which, covered.tolist(), strict=True):
                for pair in json.loads(self.kept.tags[i]).items():
                    if pair[0] not in DULL_KEYS and not pair[0].startswith(DULL_PREFIXES):
                        n[chips[chip].id][pair] += 1
                        area_m2[chips[chip].id][pair] += m2
        return {
            chip: sorted(
                ((*pair, count, float(area_m2[chip][pair])) for pair, count in counted.items()),
                key=lambda row: (-row[2], -row[3], row[:2]),
            )
            for chip, counted in n.items()
        }

    def _on_chips(self, chips: Sequence[Chip]) -> Iterator[tuple[int, Any, Any, NDArray[np.object_]]]:
        """For each zone: its EPSG code, positions of chips, positions of features, what of them lies there (metres)."""
        import pyproj
        import shapely

        if self.kept is None:
            raise ValueError(f"label {self.name} was opened without its features; set features")
        box = shapely.bounds(self.kept.geometry)
        limit = max_edge(pyproj.CRS.from_epsg(4326))
        for epsg in sorted({chip.epsg for chip in chips}):
            here = np.array([i for i, chip in enumerate(chips) if chip.epsg == epsg])
            cells = shapely.box(*np.array([chips[i].bounds for i in here]).T)
            w, s, e, n = _degrees(epsg, tuple(shapely.total_bounds(cells).tolist()))
            near = np.flatnonzero((box[:, 0] <= e) & (box[:, 2] >= w) & (box[:, 1] <= n) & (box[:, 3] >= s))
            straight = shapely.segmentize(self.kept.geometry[near], limit)
            moved = shapely.transform(straight, _transform(4326, epsg), interleaved=False)
            # Straight edges of metres are not straight in degrees: a valid polygon may come to touch itself.
            bent = ~shapely.is_valid(moved)
            moved[bent] = shapely.make_valid(moved[bent])
            where, which = shapely.STRtree(moved).query(cells, predicate="intersects")
            cut = shapely.intersection(moved[which], cells[where])
            cut = _of_dimension(cut, shapely.get_dimensions(moved[which]))
            whole = ~shapely.is_empty(cut)
            order = np.lexsort((which[whole], where[whole]))
            yield epsg, here[where[whole][order]], near[which[whole][order]], cut[whole][order]


_projecting = threading.Lock()


def _by_channel(parts: Drawing, n: int) -> list[Drawing]:
    """What is drawn on each channel, as ones."""
    channels: list[Drawing] = [[] for _ in range(n)]
    for part in parts:
        for channel in np.unique(part.codes).tolist():
            own = part.subset(np.flatnonzero(part.codes == channel))
            channels[channel].append(replace(own, codes=np.ones(len(own), np.uint8)))
    return channels


def _transform(source: int, target: int) -> Any:
    import pyproj

    return pyproj.Transformer.from_crs(source, target, always_xy=True).transform


def _degrees(epsg: int, bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    import pyproj

    west, south, east, north = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True).transform_bounds(*bounds)
    return west, south, east, north


def _of_dimension(shapes: NDArray[np.object_], dimension: NDArray[Any]) -> NDArray[np.object_]:
    """Shapes without what cutting leaves of lower dimension: an area that a chip only touches leaves a line."""
    import shapely

    out = shapes.copy()
    mixed = shapely.get_type_id(shapes) == shapely.GeometryType.GEOMETRYCOLLECTION
    for i in np.flatnonzero(mixed):
        parts = shapely.get_parts(shapely.get_parts(shapes[i]))
        parts = parts[shapely.get_dimensions(parts) == dimension[i]]
        out[i] = shapely.union_all(parts)
    out[shapely.get_dimensions(out) < dimension] = shapely.Point()
    return out


# --- opening ---------------------------------------------------------------------------------------------------------


def open_osm(name: str, spec: OsmLabel, *, aoi: Aoi, margin_m: float = MARGIN_M) -> OsmSource:
    """The features of an extract around an area, ready to draw.

    Args:
        name: Its name in the recipe; stands in errors.
        spec: What the recipe says about it, with absolute paths.
        aoi: Area of interest: what lies further away than ``margin_m`` is not read.
        margin_m: At least the side of a chip.

    Raises:
        LabelError: The extract or the rules cannot be used, or nothing that they speak of lies in the area.
    """
    import shapely

    label = f"label {name}"
    rules = read_rules(spec.rules)
    extent = _around(aoi, margin_m)
    # Widths reach into the area from outside of it.
    reach = _around(aoi, margin_m + 100.0)
    extract = read_extract(
        label,
        spec.extract,
        keys=rules.keys,
        match=rules.match,
        box=reach,
        points=any("point" in rule.kinds for rule in rules.rules),
        tags=spec.features,
    )
    inside = shapely.intersects(extract.geometry, shapely.box(*aoi.geometry.bounds))
    if not inside.any():
        w, s, e, n = aoi.geometry.bounds
        raise LabelError(
            label,
            f"nothing of the rules {rules.name} lies in the area ({w:.3f},{s:.3f},{e:.3f},{n:.3f}), only around it: "
            f"{len(extract)} features of {spec.extract}. Check the area and the extract",
        )
    legend, ignore, dtype = _codes(label, spec, rules)
    widths = np.array([np.nan if m.width_m is None else m.width_m for m in extract.matches])
    # The order is decided by the whole features, so that it is the same for every area.
    order = _order(extract)
    extract = _cut(extract, _around(aoi, margin_m + REACH_M))
    _tell(label, extract, rules, spec.extract_date)
    codes = np.array([m.code for m in extract.matches], np.uint16)
    drawing = _shapes(
        [(int(i), int(i) + 1, extract.matches[i].width_m, extract.matches[i].draw) for i in order], extract, spec
    )
    channels: Drawing = []
    if "presence" in spec.outputs:
        place = {c.code: i for i, c in enumerate(rules.legend.classes)}
        channels = _shapes(
            [(i, place[c], width, draw) for i, m in enumerate(extract.matches) for c, width, draw in m.also],
            extract,
            spec,
        )
    return OsmSource(
        name=name,
        legend=legend,
        nomenclature=rules.nomenclature,
        classes=rules.legend.classes,
        outputs=spec.outputs,
        ignore=ignore,
        dtype=dtype,
        fill=ignore if spec.background is None else spec.background,
        all_touched=spec.all_touched,
        wide_only=spec.lines == "wide",
        resolution_m=spec.resolution_m,
        attrs=_attrs(spec, rules, extract),
        extent=extent,
        codes=codes,
        priorities=np.array([m.priority for m in extract.matches], np.int64),
        widths=np.where(extract.kinds == KINDS.index("area"), np.nan, widths),
        types=extract.types,
        ids=extract.ids,
        drawing=drawing,
        channels=channels,
        kept=None if extract.tags is None else Features(extract.geometry, tuple(extract.tags)),
    )


def _codes(label: str, spec: OsmLabel, rules: RuleSet) -> tuple[Legend, int, str]:
    """Legend of the mask, its ignore value and its dtype."""
    ignore, dtype = ignore_and_dtype(label, spec.ignore, rules.legend.codes, spec.background)
    if spec.background is None or spec.background in rules.legend.codes:
        return rules.legend, ignore, dtype
    return Legend((*rules.legend.classes, LabelClass(spec.background, "background"))), ignore, dtype


def _around(aoi: Aoi, margin_m: float) -> tuple[float, float, float, float]:
    """(west, south, east, north) of the area and a margin, degrees."""
    west, south, east, north = aoi.geometry.bounds
    dy = margin_m / METRES_PER_DEGREE
    furthest = min(max(abs(south), abs(north)) + dy, 89.0)
    dx = dy / math.cos(math.radians(furthest))
    return max(west - dx, -180.0), max(south - dy, -90.0), min(east + dx, 180.0), min(north + dy, 90.0)


def _order(extract: Extract) -> NDArray[np.intp]:
    """Positions of the features from the lowest to the topmost."""
    import shapely

    middle = shapely.bounds(extract.geometry)[:, [1, 3]].mean(axis=1)
    area = shapely.area(extract.geometry) * np.cos(np.radians(middle))
    lines_last = np.where(extract.kinds == KINDS.index("area"), 0, np.where(extract.kinds == KINDS.index("line"), 1, 2))
    priority = np.array([m.priority for m in extract.matches])
    return np.lexsort((np.arange(len(extract)), -area, lines_last, priority))


def _cut(extract: Extract, box: tuple[float, float, float, float]) -> Extract:
    """The extract with features that reach beyond the box cut there: a UTM zone cannot hold a continent."""
    import shapely

    bounds = shapely.bounds(extract.geometry)
    beyond = (bounds[:, :2] < box[:2]).any(axis=1) | (bounds[:, 2:] > box[2:]).any(axis=1)
    if not beyond.any():
        return extract
    geometry = extract.geometry.copy()
    cut = shapely.intersection(geometry[beyond], shapely.box(*box))
    geometry[beyond] = _of_dimension(cut, shapely.get_dimensions(geometry[beyond]))
    return replace(extract, geometry=geometry)


def _shapes(items: Sequence[tuple[int, int, float | None, Draw]], extract: Extract, spec: OsmLabel) -> Drawing:
    """Flat arrays of (feature, code, width, how it is drawn) in this order, areas and lines each in runs."""
    import pyproj
    import shapely

    if not items:
        return []
    crs = pyproj.CRS.from_epsg(4326)
    of = np.array([item[0] for item in items])
    codes = np.array([item[1] for item in items], np.uint32)
    reach = np.array([(item[2] or 0.0) / 2 for item in items])
    geometry = extract.geometry[of]
    draw = np.array([item[3] for item in items])
    areal = shapely.get_dimensions(geometry) == 2
    outline = (draw == "outline") & areal
    geometry[outline] = shapely.boundary(geometry[outline])
    centre = draw == "centre"
    geometry[centre] = shapely.centroid(geometry[centre])
    areal &= ~outline & ~centre
    keep = ~shapely.is_empty(geometry)
    linear = shapely.get_dimensions(geometry) == 1
    if spec.lines == "none":
        keep &= ~linear
    runs = np.flatnonzero(np.diff(areal[keep], prepend=~areal[keep][:1]))
    drawing: Drawing = []
    for run in np.split(np.flatnonzero(keep), runs[1:]):
        if len(run) and areal[run[0]]:
            drawing.append(pack(geometry[run], codes[run], crs))
        elif len(run):
            drawing.append(pack_strokes(geometry[run], codes[run], reach[run], crs))
    return drawing


def _tell(label: str, extract: Extract, rules: RuleSet, dated: str | None) -> None:
    """Log what was not as it should be: one line a kind."""
    for kind, told in extract.report.attrs["faults"].items():
        log.warning(
            "%s: %d × %s (%s), for example %s", label, told["count"], kind, told["fate"], ", ".join(told["examples"])
        )
    for pair in _contradictions(extract):
        log.info(
            "%s: %d features are %s and also %s by their tags", label, pair["features"], pair["drawn"], pair["also"]
        )
    log.info("%s: %d features by the rules %s, as of %s", label, len(extract), rules.name, extract.date)
    if dated is None and extract.date == "unknown":
        log.warning("%s: the extract does not tell how old it is; give its date as extract_date", label)


def _contradictions(extract: Extract) -> list[dict[str, int]]:
    """How many features are of one class by their tags and of another as well, the most frequent pairs first."""
    pairs = Counter((m.code, other) for m in extract.matches for other in m.losers)
    return [{"drawn": a, "also": b, "features": n} for (a, b), n in sorted(pairs.items(), key=lambda p: (-p[1], p[0]))]


def _attrs(spec: OsmLabel, rules: RuleSet, extract: Extract) -> dict[str, Any]:
    how = "pixels that a feature touches" if spec.all_touched else "pixels whose centre lies inside"
    lines = {"width": "as wide as they are", "wide": "where at least a pixel wide", "none": "not drawn"}[spec.lines]
    by_kind = np.bincount(extract.kinds, minlength=len(KINDS)).tolist()
    return {
        "source": Path(spec.extract).name,
        "attribution": "; ".join(filter(None, (ATTRIBUTION, rules.attribution))),
        "licence": LICENCE,
        "rules": rules.name,
        "rules_title": rules.title,
        "rules_licence": rules.licence,
        "extract_date": spec.extract_date or extract.date,
        "extract_date_from": "recipe" if spec.extract_date else extract.date_from,
        "rasterized": how,
        "lines": lines,
        "features": dict(zip((f"{kind}s" for kind in KINDS), by_kind, strict=True)),
        "contradictions": _contradictions(extract),
        **extract.report.attrs,
    }
