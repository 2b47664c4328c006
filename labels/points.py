"""Sparse points as labels: a class or a value in the pixel where each lies, nothing known everywhere else.

Points are read once per build. What is left out (another date, no class, no value, no place) is counted and told.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import LabelError
from labels.codes import assign_codes, class_value, class_values, ignore_and_dtype, legend_of, nearest, some
from labels.legend import Legend
from labels.options import ClassValue
from labels.points_spec import PointsSpec, Several
from labels.rasterize import lattice
from labels.rasters import expand, portable
from labels.source import Derived, LabelVariable
from labels.vectors import MARGIN_M, all_values, box_in, choose_layer, column_names, extent_around, is_parquet
from tiling.shards import Window

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from tiling.aoi import Aoi
    from tiling.grid import Chip

log = logging.getLogger(__name__)

COORDINATES = (
    ("lon", "lat"),
    ("longitude", "latitude"),
    ("lng", "lat"),
    ("lon_lowestmode", "lat_lowestmode"),  # GEDI L2 and L4
    ("th_long", "th_lat"),  # LUCAS, where the point should be
    ("gps_long", "gps_lat"),  # LUCAS, where the surveyor stood
    ("x", "y"),
)
"""Names of coordinate columns that are tried in this order, in any case."""

TEXT_TABLES = (".csv", ".tsv", ".txt")

UNCOUNTED = 65535
"""Fill of the number of points, where nothing was drawn: 0 points are a fact."""


@dataclass(frozen=True, eq=False)
class PointsSource:
    """Points with a class or a value; a ``LabelSource``."""

    name: str
    legend: Legend
    attrs: dict[str, Any]
    dtype: str
    fill: float
    """Value of pixels without a point: the ignore value, or NaN."""
    several: Several
    window_px: int
    crs: str
    """WKT."""
    x: NDArray[np.float64] = field(repr=False)
    y: NDArray[np.float64] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)
    """Codes or measures, one a point. Points stand from the first to the last, by date and place in the files."""
    ids: NDArray[np.int64] = field(repr=False)
    """Number of each point: of its row in a table from 1, or of its feature in a vector file plus 1, counted on through
    several files. The points of a multipoint share it."""
    dates: NDArray[np.datetime64] | None = field(default=None, repr=False)
    """UTC, to the second."""
    _zones: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def is_measure(self) -> bool:
        """Whether its values are something measured and no classes."""
        return math.isnan(self.fill)

    @property
    def resolution_m(self) -> None:
        """Drawn on the pixels of the grid."""

    @property
    def variables(self) -> tuple[LabelVariable, ...]:
        """The label, the number of points in each pixel, and where the points of a pixel disagree."""
        fill: int | float = self.fill if self.is_measure else int(self.fill)
        return (
            LabelVariable(
                self.name, self.dtype, fill, "measure" if self.is_measure else "classes", attrs=self.attrs
            ),
            LabelVariable(
                f"{self.name}_points", "uint16", UNCOUNTED, "measure",
                attrs={"long_name": "number of points in the pixel", "units": "1"},
            ),
            LabelVariable(
                f"{self.name}_conflict", "uint8", 0, "presence",
                attrs={"long_name": "the points that decide the pixel do not agree"},
            ),
        )  # fmt: skip

    def render(self, window: Window) -> dict[str, NDArray[Any]]:
        """The variables of a window; see ``LabelSource``."""
        x, y = self._in_zone(window.epsg)
        row0, col0, dy, dx = lattice(window)
        height, width = window.shape
        rows = np.floor((dy - y) / window.resolution_m) - row0
        cols = np.floor((x - dx) / window.resolution_m) - col0
        w = self.window_px
        near = np.flatnonzero((rows >= -w) & (rows < height + w) & (cols >= -w) & (cols < width + w))
        down, right = (a.ravel() for a in np.mgrid[-w : w + 1, -w : w + 1])
        r = rows[near, None].astype(np.int64) + down
        c = cols[near, None].astype(np.int64) + right
        inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
        pixel = (r * width + c)[inside]
        away = np.broadcast_to(down**2 + right**2, r.shape)[inside]
        point = np.broadcast_to(near[:, None], r.shape)[inside]

        out = np.full(height * width, self.fill, self.dtype)
        conflict = np.zeros(height * width, np.uint8)
        counts = np.bincount(pixel[away == 0], minlength=height * width)
        if pixel.size:
            where, values, agree = self._decide(pixel, away, point)
            out[where] = values
            conflict[where] = ~agree
        return {
            self.name: out.reshape(window.shape),
            f"{self.name}_points": np.minimum(counts, UNCOUNTED - 1).astype(np.uint16).reshape(window.shape),
            f"{self.name}_conflict": conflict.reshape(window.shape),
        }

    def _decide(
        self, pixel: NDArray[np.int64], away: NDArray[np.int64], point: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Pixels with a value, the value of each, and whether its points agree on it.

        Args:
            pixel: For each pixel that a point reaches, which.
            away: Squared distance of the two in pixels.
            point: Which point; they stand in order of time.
        """
        order = np.lexsort((point, away, pixel))
        pixel, away, point = pixel[order], away[order], point[order]
        begin = np.flatnonzero(np.diff(pixel, prepend=-1))
        nearest_only = away == np.repeat(away[begin], np.diff(begin, append=len(pixel)))
        pixel, values = pixel[nearest_only], self.values[point[nearest_only]]
        begin = np.flatnonzero(np.diff(pixel, prepend=-1))
        lengths = np.diff(begin, append=len(pixel))
        agree = np.minimum.reduceat(values, begin) == np.maximum.reduceat(values, begin)
        match self.several:
            case "first":
                decided = values[begin]
            case "last":
                decided = values[begin + lengths - 1]
            case "mean":
                decided = np.add.reduceat(values, begin) / lengths
            case "majority":
                decided = _majority(pixel, values)
        return pixel[begin], decided, agree

    def features(self, chips: Sequence[Chip]) -> gpd.GeoDataFrame:
        """One row a point and chip, EPSG:4326: ``chip``, ``id``, ``code`` and ``class``, or
        ``value`` of measures, and ``date`` where there are dates; see ``FeatureSource``."""
        import geopandas as gpd
        import pyproj

        on, of = [], []
        for chip in chips:
            x, y = self._in_zone(chip.epsg)
            minx, miny, maxx, maxy = chip.bounds
            # As pixels are counted: the left and upper border belong to a chip, the right and lower to the next one.
            here = np.flatnonzero((x >= minx) & (x < maxx) & (y > miny) & (y <= maxy))
            of.append(here)
            on += [chip.id] * len(here)
        which = np.concatenate([np.empty(0, np.intp), *of])
        columns: dict[str, Any] = {"chip": on, "id": self.ids[which]}
        if self.is_measure:
            columns["value"] = self.values[which]
        else:
            columns["code"] = self.values[which].astype(self.dtype)
            columns["class"] = [self.legend.name(int(code)) for code in self.values[which]]
        if self.dates is not None:
            columns["date"] = self.dates[which]
        to_degrees = pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(self.crs), 4326, always_xy=True)
        lon, lat = to_degrees.transform(self.x[which], self.y[which])
        return gpd.GeoDataFrame(columns, geometry=gpd.points_from_xy(lon, lat), crs=4326)

    def _in_zone(self, epsg: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Easting and northing of every point; not finite where the zone cannot hold it."""
        import pyproj

        with _projecting:
            if epsg not in self._zones:
                here, there = pyproj.CRS.from_wkt(self.crs), pyproj.CRS.from_epsg(epsg)
                same = here == there
                change = pyproj.Transformer.from_crs(here, there, always_xy=True)
                self._zones[epsg] = (self.x, self.y) if same else change.transform(self.x, self.y)
            return self._zones[epsg]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zones": {}}


_projecting = threading.Lock()


def _majority(pixel: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The most frequent value of each pixel, ascending by pixel; of equal ones the smallest."""
    pairs, n = np.unique(np.column_stack([pixel, values]), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -n, pairs[:, 0]))
    pairs = pairs[order]
    first: NDArray[np.float64] = pairs[np.flatnonzero(np.diff(pairs[:, 0], prepend=-1)), 1]
    return first


@dataclass(frozen=True, slots=True)
class PointCounts:
    """How many points each chip has, and in how many pixels they meet; a ``ChipLabel`` without arrays."""

    name: str
    of: str
    """The label of points."""
    min_points: int = 0

    @property
    def needs(self) -> tuple[str, ...]:
        """The counts and conflicts of the label."""
        return (f"{self.of}_points", f"{self.of}_conflict")

    @property
    def variables(self) -> tuple[LabelVariable, ...]:
        """None."""
        return ()

    def derive(self, found: Mapping[str, NDArray[Any]]) -> Derived:
        """``points``, ``pixels_shared`` (with several points) and ``pixels_in_conflict``; a reason where too few."""
        counts = found[f"{self.of}_points"]
        points = int(counts[counts != UNCOUNTED].sum())
        return Derived(
            arrays={},
            values={
                "points": float(points),
                "pixels_shared": float(((counts > 1) & (counts != UNCOUNTED)).sum()),
                "pixels_in_conflict": float((found[f"{self.of}_conflict"] > 0).sum()),
            },
            reason="" if points >= self.min_points else f"{points} points, wanted {self.min_points}",
        )


# --- reading ---------------------------------------------------------------------------------------------------------


def open_points(
    name: str,
    spec: PointsSpec,
    *,
    aoi: Aoi,
    margin_m: float = MARGIN_M,
    interval: tuple[datetime, datetime] | None = None,
) -> PointsSource:
    """Points around an area, ready to draw.

    Args:
        name: Its name in the recipe; stands in errors.
        spec: What the recipe says about it, with absolute paths.
        aoi: Area of interest: what lies further away than ``margin_m`` is not read.
        margin_m: At least the side of a chip and ``window_px``.
        interval: Of the images, half-open, UTC; points further from it than ``tolerance_days`` are left out.

    Raises:
        LabelError: A file, a column or a class is missing, a date or a coordinate cannot be read, or no point is left.
    """
    label = f"label {name}"
    counts: dict[str, int] = {}
    extent = extent_around(aoi, margin_m)
    tables = [_read(label, path, spec, extent, counts) for path in expand(label, spec.points)]
    table = _joined(tables)
    n = len(table.x)
    if not n:
        w, s, e, north = aoi.geometry.bounds
        raise LabelError(
            label,
            f"no point of {spec.points} lies in the area ({w:.3f},{s:.3f},{e:.3f},{north:.3f}) or near it; "
            "check the file, its CRS and the order of its coordinates",
        )
    keep = np.ones(n, bool)
    for key, wanted in (spec.keep or {}).items():
        allowed = {class_value(v) for v in (wanted if isinstance(wanted, tuple) else (wanted,))}
        here = np.array([v in allowed for v in class_values(table.frame[key])], bool)
        _count(counts, "of another kind", keep & ~here)
        keep &= here
    dates = _dates(label, spec, table)
    if dates is not None and spec.tolerance_days is not None:
        if interval is None:
            raise ValueError(f"{label}: tolerance_days counts from the images' interval, and none was given")
        _count(counts, "without a date", keep & np.isnat(dates))
        keep &= ~np.isnat(dates)
        slack = timedelta(days=spec.tolerance_days)
        first, stop = (np.datetime64(t.replace(tzinfo=None), "s") for t in (interval[0] - slack, interval[1] + slack))
        in_time = (dates >= first) & (dates < stop)
        _count(counts, "of another time", keep & ~in_time)
        keep &= in_time

    legend, ignore, dtype = Legend(()), math.nan, "float32"
    if spec.kind == "measure":
        assert spec.attribute is not None  # the spec has seen to it
        values = _numbers(label, spec.attribute, table.frame[spec.attribute])
        known = np.isfinite(values)
        _count(counts, "without a value", keep & ~known)
        if spec.valid_range is not None:
            with np.errstate(invalid="ignore"):
                possible = (values >= spec.valid_range[0]) & (values <= spec.valid_range[1])
            _count(counts, "with an impossible value", keep & known & ~possible)
            known &= possible
        keep &= known
    else:
        classes = [1] * n if spec.attribute is None else class_values(table.frame[spec.attribute])
        chosen = [v if k else None for v, k in zip(classes, keep, strict=True)]
        codes: dict[ClassValue, int | None] = {1: 1}
        if (column := spec.attribute) is not None and any(v is not None for v in chosen):
            codes = assign_codes(
                label, str(spec.points), column, spec.classes, chosen, lambda: table.all_values(column)
            )
        used = [c for c in codes.values() if c is not None]
        ignore, dtype = ignore_and_dtype(label, spec.ignore, used, None)
        names: dict[int, list[str]] = {code: [] for code in used}
        for value, code in codes.items():
            if code is not None:
                names[code].append(str(value) if spec.attribute is not None else "point")
        legend = legend_of(label, names, spec.legend)
        drawn = [codes.get(v) if v is not None else None for v in chosen]
        _count(counts, "without a class", keep & np.array([v is None for v in classes]))
        unlabelled = np.array([v is not None and c is None for v, c in zip(chosen, drawn, strict=True)])
        _count(counts, "left unlabelled", keep & unlabelled)
        keep &= np.array([c is not None for c in drawn])
        values = np.array([math.nan if c is None else c for c in drawn])
    for what, found in counts.items():
        log.warning("%s: %d points are %s", label, found, what)
    if not keep.any():
        told = ", ".join(f"{found} {what}" for what, found in counts.items())
        raise LabelError(label, f"no point of {spec.points} is left near the area: {told}")

    place = np.flatnonzero(keep)
    if dates is not None:
        # Those without a date stand before the others: `last` takes them only where there is nothing else.
        when = np.where(np.isnat(dates[place]), np.iinfo(np.int64).min, dates[place].astype(np.int64))
        place = place[np.argsort(when, kind="stable")]
    several: Several = spec.several or ("mean" if spec.kind == "measure" else "majority")
    attrs: dict[str, Any] = {
        **legend.attrs,
        "source": [Path(path).name for path in expand(label, spec.points)],
        "rasterized": f"the {2 * spec.window_px + 1} x {2 * spec.window_px + 1} pixels around each point",
        "several_points": several,
        "points": len(place),
        **{f"points_{what.replace(' ', '_')}": found for what, found in counts.items()},
    }
    if spec.units:
        attrs["units"] = spec.units
    return PointsSource(
        name=name, legend=legend, attrs=attrs, dtype=dtype, fill=ignore, several=several, window_px=spec.window_px,
        crs=table.crs, x=table.x[place], y=table.y[place], values=values[place], ids=table.ids[place],
        dates=None if dates is None else dates[place],
    )  # fmt: skip


def _count(counts: dict[str, int], what: str, which: NDArray[np.bool_]) -> None:
    if n := int(which.sum()):
        counts[what] = counts.get(what, 0) + n


@dataclass(frozen=True, eq=False)
class _Table:
    """Points near the area, and the columns that were asked for."""

    frame: pd.DataFrame
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    crs: str
    ids: NDArray[np.int64]
    all_values: Callable[[str], set[ClassValue]]
    """All values of a class column, also of points far away."""


def _read(
    label: str, path: str, spec: PointsSpec, extent: tuple[float, float, float, float], counts: dict[str, int]
) -> _Table:
    suffix = Path(path.removesuffix(".gz")).suffix.lower()
    if suffix in TEXT_TABLES or (is_parquet(path) and not _has_geometry(path)):
        return _read_plain(label, path, spec, extent, counts, suffix)
    return _read_vector(label, path, spec, extent, counts)


def _wanted(label: str, path: str, spec: PointsSpec, known: Sequence[str]) -> list[str]:
    """The columns to read besides the place."""
    wanted = [c for c in (spec.attribute, spec.date, *(spec.keep or {})) if c is not None]
    for column in wanted:
        if column not in known:
            raise LabelError(label, f"{path} has no column {column!r}{nearest(column, known)}")
    return list(dict.fromkeys(wanted))


def _has_geometry(path: str) -> bool:
    import pyarrow
    import pyarrow.parquet

    try:
        return b"geo" in (pyarrow.parquet.read_schema(path).metadata or {})
    except (OSError, pyarrow.ArrowInvalid):
        return True  # and the reader of vector files says what is wrong with it


def _read_plain(
    label: str,
    path: str,
    spec: PointsSpec,
    extent: tuple[float, float, float, float],
    counts: dict[str, int],
    suffix: str,
) -> _Table:
    """Points of a table with a column for each coordinate."""
    import pandas as pd
    import pyproj

    if spec.layer is not None:
        raise LabelError(label, f"{path} is a plain table and has no layer; leave layer out")
    known = _plain_columns(label, path, suffix)
    xy = (spec.x, spec.y) if spec.x is not None and spec.y is not None else _coordinates(label, path, known)
    for column in xy:
        if column not in known:
            raise LabelError(label, f"{path} has no column {column!r}{nearest(column, known)}")
    wanted = list(dict.fromkeys([*xy, *_wanted(label, path, spec, known)]))
    try:
        frame = pd.read_parquet(path, columns=wanted) if is_parquet(path) else _read_text(path, suffix, usecols=wanted)
    except (OSError, ValueError) as error:
        raise LabelError(label, f"{path} cannot be read as a table ({error})") from error
    x, y = (_numbers(label, column, frame[column]) for column in xy)
    placed = np.isfinite(x) & np.isfinite(y)
    _count(counts, "without a place", ~placed)
    if spec.crs is None and placed.any() and (np.abs(x[placed]).max() > 360 or np.abs(y[placed]).max() > 90):
        raise LabelError(
            label, f"columns {xy[0]} and {xy[1]} of {path} hold no degrees; say with crs what they are (EPSG:32633)"
        )
    try:
        crs = pyproj.CRS.from_user_input(spec.crs or "EPSG:4326")
    except pyproj.exceptions.CRSError as error:
        raise LabelError(label, f"crs {spec.crs!r} is not known ({error})") from error
    minx, miny, maxx, maxy = box_in(crs, extent)
    near = np.flatnonzero(placed & (x >= minx) & (x <= maxx) & (y >= miny) & (y <= maxy))

    def everything(column: str) -> set[ClassValue]:
        return {v for v in class_values(frame[column]) if v is not None}

    return _Table(frame.iloc[near].reset_index(drop=True), x[near], y[near], crs.to_wkt(), near + 1, everything)


def _plain_columns(label: str, path: str, suffix: str) -> list[str]:
    if is_parquet(path):
        return column_names(path, None)
    try:
        return [str(c) for c in _read_text(path, suffix, nrows=0).columns]
    except (OSError, ValueError) as error:
        raise LabelError(label, f"{path} cannot be read as a table ({error})") from error


def _read_text(path: str, suffix: str, **options: Any) -> pd.DataFrame:
    import pandas as pd

    # utf-8-sig: spreadsheets like to begin a CSV with a byte-order mark, which would hide the first column.
    frame: pd.DataFrame = pd.read_csv(
        path, sep="\t" if suffix == ".tsv" else ",", encoding="utf-8-sig", low_memory=False, **options
    )
    return frame


def _coordinates(label: str, path: str, known: Sequence[str]) -> tuple[str, str]:
    by_lower = {name.lower(): name for name in known}
    for x, y in COORDINATES:
        if x in by_lower and y in by_lower:
            return by_lower[x], by_lower[y]
    raise LabelError(
        label, f"{path} has no columns lon and lat, nor any other coordinates that we know; name them with x and y"
    )


def _read_vector(
    label: str, path: str, spec: PointsSpec, extent: tuple[float, float, float, float], counts: dict[str, int]
) -> _Table:
    """Points of a vector file; each point of a multipoint is one."""
    import geopandas as gpd
    import pyogrio
    import pyproj
    import shapely

    if spec.x is not None or spec.crs is not None:
        raise LabelError(label, f"{path} has geometries and a CRS of its own; leave x, y and crs out")
    layer, crs_text = choose_layer(label, path, spec.layer, "Point")
    crs = pyproj.CRS.from_user_input(crs_text)
    wanted = _wanted(label, path, spec, column_names(path, layer))
    box = box_in(crs, extent)
    try:
        if is_parquet(path):
            frame = gpd.read_parquet(path)
            ids = np.arange(1, len(frame) + 1)
        else:
            frame = pyogrio.read_dataframe(path, layer=layer, columns=wanted, bbox=box, fid_as_index=True)
            ids = frame.index.to_numpy(np.int64) + 1
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError, ValueError) as error:
        raise LabelError(label, f"{path} cannot be read ({error})") from portable(error)
    geometry = shapely.force_2d(frame.geometry.to_numpy())
    present = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    _count(counts, "without a place", ~present)
    punctual = present & np.isin(shapely.get_type_id(geometry), (0, 4))
    if present.any() and not punctual.any():
        kinds = ", ".join(sorted({g.geom_type for g in geometry[present]}))
        raise LabelError(label, f"{path} has {kinds} and no point here; polygons are a vector label")
    _count(counts, "no points and not drawn", present & ~punctual)
    of = np.flatnonzero(punctual)
    parts, owner = shapely.get_parts(geometry[of], return_index=True)
    x, y = shapely.get_x(parts), shapely.get_y(parts)
    near = (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])
    rows = of[owner[near]]
    return _Table(
        frame[wanted].iloc[rows].reset_index(drop=True), x[near], y[near], crs.to_wkt(), ids[rows],
        partial(all_values, path, layer),
    )  # fmt: skip


def _joined(tables: Sequence[_Table]) -> _Table:
    """The points of several files; in the CRS of the files when they share one, else in EPSG:4326."""
    import pandas as pd
    import pyproj

    if len(tables) == 1:
        return tables[0]
    crs = tables[0].crs
    places = [(t.x, t.y) for t in tables]
    if any(t.crs != crs for t in tables):
        crs = pyproj.CRS.from_epsg(4326).to_wkt()
        places = [
            pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(t.crs), 4326, always_xy=True).transform(t.x, t.y)
            for t in tables
        ]
    # An id is of one point: those of a file begin after the largest of the file before it.
    before = np.cumsum([0, *(t.ids.max(initial=0) for t in tables[:-1])])
    return _Table(
        frame=pd.concat([t.frame for t in tables], ignore_index=True),
        x=np.concatenate([x for x, _ in places]),
        y=np.concatenate([y for _, y in places]),
        crs=crs,
        ids=np.concatenate([t.ids + start for t, start in zip(tables, before, strict=True)]),
        all_values=lambda column: set().union(*(t.all_values(column) for t in tables)),
    )


def _numbers(label: str, column: str, values: pd.Series[Any]) -> NDArray[np.float64]:
    import pandas as pd

    try:
        return pd.to_numeric(values).to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise LabelError(label, f"column {column} does not hold numbers ({error})") from error


def _dates(label: str, spec: PointsSpec, table: _Table) -> NDArray[np.datetime64] | None:
    """Dates in UTC to the second, NaT where there is none; None when no column was named."""
    import pandas as pd

    if spec.date is None:
        return None
    column = table.frame[spec.date]
    if pd.api.types.is_float_dtype(column):
        whole = column.dropna()
        if not (whole == whole.round()).all():
            raise LabelError(label, f"column {spec.date} holds {whole.iloc[0]:g}; wanted dates (2018-07-01)")
        column = column.astype("Int64")
    if pd.api.types.is_integer_dtype(column):
        column = column.astype("string")  # 20180701
    dates = pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)
    bad = column[dates.isna() & column.notna() & (column.astype("string").str.strip() != "")]
    if len(bad):
        raise LabelError(label, f"column {spec.date} holds {some([str(bad.iloc[0])])}; wanted dates like 2018-07-01")
    return dates.dt.tz_localize(None).to_numpy().astype("datetime64[s]")
