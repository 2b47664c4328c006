"""Open a label and draw it: the only module here that touches files.

A vector file is read once per build and kept in memory; of a raster only the header is read, and each window reads the
pixels under it. What was dropped, repaired or left unlabelled is counted and told, never passed over.
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curate.errors import LabelError, ReadError
from labels.legend import PRODUCTS, LabelClass, Legend, product_legend, read_legend
from labels.rasterize import Polygons, lattice, pack, project, rasterize
from labels.sample import lattice_nodes, sample, vote
from labels.spec import MAX_CODE, ClassValue, LabelSpec
from tiling.shards import Window

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pyproj
    import rasterio

    from tiling.aoi import Aoi

log = logging.getLogger(__name__)

MARGIN_M = 30_000.0
"""How far around the area a vector is read: chips on its border reach outwards by up to one side."""

REACH_M = 300_000.0
"""Polygons that reach further from the area than this are cut there: a UTM zone cannot hold a continent."""

METRES_PER_DEGREE = 111_320.0

REST = "*"
"""Key of ``classes`` that stands for every value not listed."""

MAX_SAMPLES = 4096 * 4096
"""Largest piece of a raster, in its own pixels, that is held at once; larger windows are drawn in parts."""

REMOTE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_HTTP_MAX_RETRY": "4", "GDAL_HTTP_RETRY_DELAY": "1"}
"""GDAL settings for files behind a URL: listing the folder around each would cost more requests than reading it."""


class LabelSource(Protocol):
    """A label that is open: draws its codes on any window. Picklable, so Dask workers can have it."""

    @property
    def name(self) -> str:
        """Name of the label in the recipe and in the store."""

    @property
    def legend(self) -> Legend:
        """What its codes mean; empty when nobody told."""

    @property
    def ignore(self) -> int:
        """Value of unlabelled pixels, never a class."""

    @property
    def dtype(self) -> str:
        """``uint8`` or ``uint16``."""

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes for the store, JSON-ready."""

    def render(self, window: Window) -> NDArray[np.unsignedinteger[Any]]:
        """Codes (y, x) of a window; ``ignore`` where there is none. A pixel is the same in every window that has it."""


class Reach(Protocol):
    """How one file is opened: ``with reach.env(), rasterio.open(reach.url)``; ``catalog.access.Access`` is one."""

    @property
    def url(self) -> str:
        """What rasterio opens."""

    def env(self) -> AbstractContextManager[Any]:
        """The settings of its server."""


def open_label(
    name: str,
    spec: LabelSpec,
    *,
    aoi: Aoi,
    rasters: Sequence[str] = (),
    margin_m: float = MARGIN_M,
    reach: Callable[[str], Reach] | None = None,
) -> LabelSource:
    """A label ready to draw.

    Args:
        name: Its name in the recipe; stands in errors.
        spec: What the recipe says about it, with absolute paths.
        aoi: Area of interest: what lies further away than ``margin_m`` is not read.
        rasters: Files of a product, found by the caller; where they overlap, the first valid one wins.
        margin_m: At least the side of a chip.
        reach: How an address is opened, asked just before each opening (a signature lives shorter than a build).

    Raises:
        LabelError: The file, a column or a class is missing, or nothing of it lies in the area.
        ReadError: A raster cannot be opened.
    """
    if spec.vector is not None:
        return _open_vector(name, spec, spec.vector, aoi, margin_m)
    return _open_raster(name, spec, aoi, rasters, reach)


def class_shares(pixels: NDArray[np.unsignedinteger[Any]], source: LabelSource) -> dict[int, float]:
    """Share of all pixels, 0 to 1, of each class that occurs, by code. They sum up to the labelled share."""
    n = np.bincount(pixels.ravel())
    return {int(code): float(n[code] / pixels.size) for code in np.flatnonzero(n) if code != source.ignore}


# --- vectors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class VectorSource:
    """Polygons with a class."""

    name: str
    legend: Legend
    ignore: int
    dtype: str
    attrs: dict[str, Any]
    polygons: Polygons = field(repr=False)
    """In the file's CRS, in drawing order."""
    fill: int
    """Value where no polygon lies: the background's code, or ``ignore``."""
    all_touched: bool
    extent: tuple[float, float, float, float]
    """(west, south, east, north) in degrees: what was read."""
    _zones: dict[int, Polygons] = field(default_factory=dict, repr=False)

    def render(self, window: Window) -> NDArray[np.unsignedinteger[Any]]:
        """Codes (y, x) of a window, see ``LabelSource``."""
        self._check_extent(window)
        # One projects, the others wait: the work takes a second for 200,000 polygons, and the memory twice.
        with _projecting:
            if window.epsg not in self._zones:
                self._zones[window.epsg] = project(self.polygons, window.epsg)
        return rasterize(
            self._zones[window.epsg], window, fill=self.fill, dtype=self.dtype, all_touched=self.all_touched
        )

    def _check_extent(self, window: Window) -> None:
        import pyproj

        to_degrees = pyproj.Transformer.from_crs(window.epsg, 4326, always_xy=True)
        west, south, east, north = to_degrees.transform_bounds(*window.bounds)
        w, s, e, n = self.extent
        if west < w or south < s or east > e or north > n:
            raise ValueError(f"label {self.name}: the window lies beyond what was read; open it with a larger margin_m")

    def __getstate__(self) -> dict[str, Any]:
        # A worker projects for itself: cheaper than to send every zone.
        return {**self.__dict__, "_zones": {}}


_projecting = threading.Lock()


def _open_vector(name: str, spec: LabelSpec, path: str, aoi: Aoi, margin_m: float) -> VectorSource:
    import pyproj
    import shapely

    label = f"label {name}"
    layer, crs_text = _choose_layer(label, path, spec.layer)
    crs = pyproj.CRS.from_user_input(crs_text)
    extent = _extent(aoi, margin_m)
    frame = _read_frame(label, path, layer, spec.attribute, _box_in(crs, extent))
    frame, counts = _polygons_only(label, path, frame)
    inside = frame.intersects(_box(_box_in(crs, _extent(aoi, 0.0)))).to_numpy(bool) if len(frame) else np.zeros(0, bool)
    if not inside.any():
        w, s, e, n = aoi.geometry.bounds
        raise LabelError(
            label,
            f"no polygon of {path} lies in the area ({w:.3f},{s:.3f},{e:.3f},{n:.3f}); "
            f"the file covers {_coverage(path, layer, crs)}. Check the file, its CRS and the order of its coordinates",
        )

    areas = shapely.area(frame.geometry.to_numpy())
    values = _column(frame, spec.attribute)
    codes = _codes(label, path, layer, spec, values)
    ignore, dtype = _ignore(label, spec, [c for c in codes.values() if c is not None], spec.background)
    drawn_as: dict[ClassValue | None, int] = {None: ignore, **{v: ignore if c is None else c for v, c in codes.items()}}
    burnt = np.array([drawn_as[v] for v in values], np.uint16)
    order = _drawing_order(label, spec, values, areas, codes)
    frame = _cut(frame, _box_in(crs, _extent(aoi, margin_m + REACH_M)))

    unlabelled = sum(v is None for v in values)
    if unlabelled:
        counts["without a class"] = unlabelled
    for what, n_dropped in counts.items():
        log.warning("%s: %d of the features in %s are %s", label, n_dropped, Path(path).name, what)
    geometries = frame.geometry.to_numpy()[order]
    return VectorSource(
        name=name,
        legend=(legend := _vector_legend(label, spec, codes)),
        ignore=ignore,
        dtype=dtype,
        attrs={
            **legend.attrs,
            "source": Path(path).name,
            "rasterized": "all pixels touched" if spec.all_touched else "pixels whose centre lies inside",
            "polygons": len(frame),
            **{f"features_{what.replace(' ', '_')}": n_found for what, n_found in counts.items()},
        },
        polygons=pack(geometries, burnt[order], crs),
        fill=ignore if spec.background is None else spec.background,
        all_touched=spec.all_touched,
        extent=extent,
    )


def _is_parquet(path: str) -> bool:
    return Path(path).suffix.lower() in (".parquet", ".geoparquet")


def _choose_layer(label: str, path: str, layer: str | None) -> tuple[str | None, Any]:
    """The layer to read and its CRS."""
    import pyogrio
    from pyogrio.errors import DataSourceError

    if "://" not in path and not Path(path).exists():
        raise LabelError(label, f"{path} does not exist; correct the path (relative ones start at the recipe)")
    try:
        if _is_parquet(path):
            crs = _read_parquet(path, None).crs
        else:
            layers = {str(n): str(kind) for n, kind in pyogrio.list_layers(path) if kind is not None}
            if not layers:
                raise LabelError(label, f"{path} has no layer with geometries; wanted polygons")
            areal = [n for n, kind in layers.items() if "Polygon" in kind or kind == "Unknown"] or list(layers)
            if layer is None and len(areal) > 1:
                raise LabelError(label, f"{path} has the layers {', '.join(areal)}; say which with layer")
            layer = areal[0] if layer is None else layer
            if layer not in layers:
                raise LabelError(label, f"{path} has no layer {layer!r}{_nearest(layer, layers)}")
            crs = pyogrio.read_info(path, layer=layer, encoding=None)["crs"]
    except (DataSourceError, OSError, ValueError) as error:
        raise LabelError(label, f"{path} cannot be read as a vector file ({error})") from error
    if crs is None:
        raise LabelError(
            label, f"{path} has no CRS, so its place on the earth is unknown; give it one (ogr2ogr -a_srs)"
        )
    return layer, crs


def _read_parquet(path: str, columns: list[str] | None) -> gpd.GeoDataFrame:
    import geopandas as gpd

    return gpd.read_parquet(path, columns=columns)


def _read_frame(
    label: str, path: str, layer: str | None, attribute: str | None, box: tuple[float, float, float, float]
) -> gpd.GeoDataFrame:
    """Features that meet the box (in the file's CRS), with the column of the class, in the order of the file."""
    import geopandas as gpd
    import pyogrio

    known = _columns(path, layer)
    if attribute is not None and attribute not in known:
        raise LabelError(label, f"{path} has no column {attribute!r}{_nearest(attribute, known)}")
    wanted = [] if attribute is None else [attribute]
    try:
        if _is_parquet(path):
            frame = _read_parquet(path, None)
            geometry = frame.geometry
            return gpd.GeoDataFrame(frame[wanted], geometry=geometry)[
                (geometry.intersects(_box(box)) | geometry.isna() | geometry.is_empty).to_numpy()
            ].reset_index(drop=True)
        return pyogrio.read_dataframe(path, layer=layer, columns=wanted, bbox=box, on_invalid="ignore")
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError, ValueError) as error:
        raise LabelError(label, f"{path} cannot be read ({error})") from error


def _columns(path: str, layer: str | None) -> list[str]:
    import pyogrio

    if _is_parquet(path):
        import pyarrow.parquet

        return [str(n) for n in pyarrow.parquet.read_schema(path).names]
    return [str(n) for n in pyogrio.read_info(path, layer=layer)["fields"]]


def _polygons_only(label: str, path: str, frame: gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, dict[str, int]]:
    """The features that have an area, repaired where they cross themselves, and how many were not as they should be."""
    import shapely

    counts: dict[str, int] = {}
    geometry = frame.geometry.to_numpy()
    present = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    if n := int((~present).sum()):
        counts["without geometry"] = n
    frame = frame[present].reset_index(drop=True)
    geometry = shapely.force_2d(frame.geometry.to_numpy())

    areal = shapely.get_dimensions(geometry) == 2
    if n := int((~areal).sum()):
        kinds = ", ".join(sorted({g.geom_type for g in geometry[~areal]}))
        if not areal.any():
            raise LabelError(
                label, f"{path} has {kinds} and no polygon here; a class needs an area: buffer them to polygons first"
            )
        counts["points or lines and not drawn"] = n
    geometry = geometry[areal]

    broken = ~shapely.is_valid(geometry)
    if n := int(broken.sum()):
        counts["repaired"] = n
        geometry[broken] = shapely.make_valid(geometry[broken])
    frame = frame[areal].reset_index(drop=True).set_geometry(_areas_of(geometry), crs=frame.crs)
    # A polygon folded onto a line has nothing left when it is repaired.
    flat = frame.geometry.is_empty.to_numpy()
    if n := int(flat.sum()):
        counts["without area"] = n
        frame = frame[~flat].reset_index(drop=True)
    return frame, counts


def _areas_of(geometry: NDArray[np.object_]) -> NDArray[np.object_]:
    """The polygons in collections; what repairing leaves of lines and points has no area."""
    import shapely

    mixed = np.flatnonzero(~np.isin(shapely.get_type_id(geometry), (3, 6)))
    for i in mixed:
        parts = shapely.get_parts(shapely.get_parts(geometry[i]))
        geometry[i] = shapely.multipolygons(parts[shapely.get_type_id(parts) == 3])
    return geometry


def _cut(frame: gpd.GeoDataFrame, box: tuple[float, float, float, float]) -> gpd.GeoDataFrame:
    """The frame with polygons that reach beyond the box cut there."""
    import shapely

    bounds = shapely.bounds(geometry := frame.geometry.to_numpy().copy())
    beyond = (bounds[:, :2] < box[:2]).any(axis=1) | (bounds[:, 2:] > box[2:]).any(axis=1)
    if not beyond.any():
        return frame
    geometry[beyond] = shapely.intersection(geometry[beyond], _box(box))
    return frame.set_geometry(_areas_of(geometry), crs=frame.crs)


def _column(frame: gpd.GeoDataFrame, attribute: str | None) -> list[ClassValue | None]:
    return [1] * len(frame) if attribute is None else _values(frame[attribute])


def _values(column: pd.Series[Any]) -> list[ClassValue | None]:
    """Class values as a recipe writes them: text or whole numbers, None where there is none."""
    unique: dict[Any, ClassValue | None] = {v: _class_value(v) for v in column.dropna().unique()}
    return [unique.get(v) if ok else None for v, ok in zip(column, column.notna(), strict=True)]


def _class_value(value: Any) -> ClassValue | None:
    """``3``, ``3.0`` and ``"3"`` are the same class; empty text is none."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, int | float | np.integer | np.floating) and float(value).is_integer():
        return int(value)
    text = str(value).strip()
    digits = text.removeprefix("-")
    plain = digits.isascii() and digits.isdigit() and (digits == "0" or not digits.startswith("0"))
    return int(text) if plain else text or None


def _codes(
    label: str, path: str, layer: str | None, spec: LabelSpec, values: Sequence[ClassValue | None]
) -> dict[ClassValue, int | None]:
    """Code of each class value; None for values that the recipe leaves unlabelled."""
    present = {v for v in values if v is not None}
    if spec.attribute is None:
        return {1: 1}
    if not present:
        raise LabelError(label, f"column {spec.attribute} of {path} has no value in the area; name another one")
    if spec.classes is None:
        # Of the whole file and not of the area: the same file gives the same codes to every area.
        everything = sorted(_all_values(path, layer, spec.attribute), key=_by_kind)
        if len(everything) > MAX_CODE - 1:
            raise LabelError(
                label, f"column {spec.attribute} has {len(everything)} values, too many for classes; name another one"
            )
        return {value: code for code, value in enumerate(everything, start=1)}
    listed = {REST if key == REST else _listed_value(label, key): code for key, code in spec.classes.items()}
    if len(listed) < len(spec.classes):
        raise LabelError(label, "classes lists a value twice (3 and '3' are the same); keep one of them")
    rest = listed.pop(REST, None)
    new = present - listed.keys()
    if new and REST not in spec.classes:
        raise LabelError(
            label,
            f"column {spec.attribute} of {path} has values that classes does not list: {_some(new)}; "
            f"list them (null leaves them unlabelled), or say what becomes of all others with '{REST}'",
        )
    if gone := listed.keys() - present:
        gone -= _all_values(path, layer, spec.attribute)
    if gone:
        raise LabelError(
            label,
            f"classes lists values that column {spec.attribute} of {path} does not have: {_some(gone)}; "
            f"it has {_some(present)}",
        )
    return {**listed, **dict.fromkeys(new, rest)}


def _listed_value(label: str, key: ClassValue) -> ClassValue:
    value = _class_value(key)
    if value is None:
        raise LabelError(label, "classes lists an empty value; features without a class are unlabelled anyway")
    return value


def _all_values(path: str, layer: str | None, attribute: str) -> set[ClassValue]:
    import pyogrio

    if _is_parquet(path):
        import pandas as pd

        frame = pd.read_parquet(path, columns=[attribute])
    else:
        frame = pyogrio.read_dataframe(path, layer=layer, columns=[attribute], read_geometry=False)
    return {v for v in _values(frame[attribute]) if v is not None}


def _by_kind(value: ClassValue) -> tuple[bool, int, str]:
    """Numbers by size, then words by letter."""
    return (isinstance(value, str), value if isinstance(value, int) else 0, str(value))


def _drawing_order(
    label: str,
    spec: LabelSpec,
    values: Sequence[ClassValue | None],
    areas: NDArray[np.float64],
    codes: dict[ClassValue, int | None],
) -> NDArray[np.intp]:
    """Positions of the polygons from the lowest to the topmost; equal ones stay in the order of the file."""
    if spec.order == "file":
        return np.arange(len(values))
    if spec.order == "small_on_top":
        return np.argsort(-areas, kind="stable")
    ranks = {_listed_value(label, value): rank for rank, value in enumerate(spec.order, start=1)}
    if strange := ranks.keys() - codes.keys():
        raise LabelError(label, f"order names {_some(strange)}, which is no class here; classes are {_some(codes)}")
    # What the order does not name lies below everything that it names.
    return np.argsort([0 if v is None else ranks.get(v, 0) for v in values], kind="stable")


def _vector_legend(label: str, spec: LabelSpec, codes: dict[ClassValue, int | None]) -> Legend:
    names: dict[int, list[str]] = {}
    for value, code in codes.items():
        if code is not None:
            names.setdefault(code, []).append(str(value) if spec.attribute is not None else "inside")
    if spec.background is not None:
        names.setdefault(spec.background, ["background"])
    if spec.legend is None:
        return Legend(tuple(LabelClass(code, " or ".join(sorted(words)[:4])) for code, words in names.items()))
    legend = read_legend(spec.legend)
    if missing := names.keys() - set(legend.codes):
        raise LabelError(label, f"{spec.legend} has no row for code {_some(missing)}; add it, or leave legend out")
    return legend


def _extent(aoi: Aoi, margin_m: float) -> tuple[float, float, float, float]:
    """(west, south, east, north) of the area and a margin, degrees."""
    west, south, east, north = aoi.geometry.bounds
    dy = margin_m / METRES_PER_DEGREE
    dx = dy / max(math.cos(math.radians(min(max(abs(south), abs(north)) + dy, 89.0))), 0.01)
    return (max(west - dx, -180.0), max(south - dy, -90.0), min(east + dx, 180.0), min(north + dy, 90.0))


def _box_in(crs: pyproj.CRS, extent: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Smallest box in a CRS around a box in degrees."""
    import pyproj

    to_file = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    minx, miny, maxx, maxy = to_file.transform_bounds(*extent)
    return (minx, miny, maxx, maxy) if math.isfinite(minx + miny + maxx + maxy) else (-1e12, -1e12, 1e12, 1e12)


def _box(bounds: tuple[float, float, float, float]) -> Any:
    import shapely

    return shapely.box(*bounds)


def _coverage(path: str, layer: str | None, crs: pyproj.CRS) -> str:
    import pyogrio
    import pyproj

    if _is_parquet(path):
        bounds = _read_parquet(path, None).total_bounds
    else:
        bounds = pyogrio.read_info(path, layer=layer, force_total_bounds=True)["total_bounds"]
    if bounds is None or not np.isfinite(bounds).all():
        return "nothing"
    degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform_bounds(*bounds)
    return "({:.3f},{:.3f},{:.3f},{:.3f})".format(*degrees)


# --- rasters ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RasterFile:
    """Header of a class raster."""

    href: str
    crs: str
    """WKT."""
    transform: tuple[float, float, float, float, float, float]
    """Row-major affine (a, b, c, d, e, f) from (col, row) to coordinates."""
    shape: tuple[int, int]
    dtype: str
    void: frozenset[int]
    """Values that mean "no label"; the file's own mask counts too when there are none."""
    masked: bool
    """Whether the file has a mask of its own (a mask band, not a value)."""
    pixel_m: float
    """Side of a pixel on the ground in the area of interest, metres."""


@dataclass(frozen=True, slots=True)
class RasterSource:
    """Class rasters, joined where they meet: the first valid pixel wins, in the order of ``files``."""

    name: str
    legend: Legend
    ignore: int
    dtype: str
    attrs: dict[str, Any]
    files: tuple[RasterFile, ...]
    reach: Callable[[str], Reach] | None = None

    def render(self, window: Window) -> NDArray[np.unsignedinteger[Any]]:
        """Codes (y, x) of a window, see ``LabelSource``.

        Nearest pixel; where ours are about twice as wide as the file's or wider, the most frequent class of the
        pixels under it, taken at evenly spaced samples (as many as pixels when the ratio is whole).

        Raises:
            ReadError: A file cannot be read.
            LabelError: A value is no class of the legend, or does not fit.
        """
        out = np.full(window.shape, self.ignore, self.dtype)
        row0, col0, dy, dx = lattice(window)
        samples = samples_per_pixel(window.resolution_m, min(f.pixel_m for f in self.files))
        # Pixels do not depend on the window, so it may be drawn in parts that fit the memory.
        side = max(int(math.sqrt(MAX_SAMPLES) / samples), 1)
        for top in range(0, window.shape[0], side):
            for left in range(0, window.shape[1], side):
                part = out[top : top + side, left : left + side]
                place = _Place(window.epsg, window.resolution_m, row0 + top, col0 + left, dy, dx, part.shape)
                self._render_part(part, place, samples)
        return out

    def _render_part(self, out: NDArray[np.unsignedinteger[Any]], place: _Place, per_px: int) -> None:
        shape = (out.shape[0] * per_px, out.shape[1] * per_px)
        values = np.zeros(shape, np.result_type(*(f.dtype for f in self.files)))
        known = np.zeros(shape, bool)
        nodes: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        for file in self.files:
            if file.crs not in nodes:
                nodes[file.crs] = place.nodes(file.crs)
            for shift in (0.0, 360.0, -360.0) if _is_geographic(file.crs) else (0.0,):
                x, y = nodes[file.crs]
                self._fill(values, known, file, place, x + shift, y, per_px)
            if known.all():
                break
        if per_px > 1:
            samples, sampled = values, known
            values, known = np.zeros(out.shape, samples.dtype), np.zeros(out.shape, bool)
            vote(values, known, samples, sampled, per_px)
        self._check_values(values[known])
        out[known] = values[known]

    def _fill(
        self,
        values: NDArray[Any],
        known: NDArray[np.bool_],
        file: RasterFile,
        place: _Place,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        per_px: int,
    ) -> None:
        a, b, c, d, e, f = file.transform
        det = a * e - b * d
        cols, rows = (e * (x - c) - b * (y - f)) / det, (a * (y - f) - d * (x - c)) / det
        finite = np.isfinite(cols) & np.isfinite(rows)
        if not finite.any():
            return
        # Two pixels more than the nodes span: between them the cubic may swing out a little.
        top, left = max(math.floor(rows[finite].min()) - 2, 0), max(math.floor(cols[finite].min()) - 2, 0)
        bottom = min(math.ceil(rows[finite].max()) + 2, file.shape[0])
        right = min(math.ceil(cols[finite].max()) + 2, file.shape[1])
        if top >= bottom or left >= right:
            return
        block, valid = self._read(file, (top, bottom), (left, right))
        row_nodes, col_nodes = place.axes()
        sample(
            values, known, block, valid, top, left, rows, cols,
            place.row0, place.col0, int(row_nodes[0]), int(col_nodes[0]), per_px,
        )  # fmt: skip

    def _read(
        self, file: RasterFile, rows: tuple[int, int], cols: tuple[int, int]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        from rasterio.errors import RasterioError
        from rasterio.windows import Window as PixelWindow

        window = PixelWindow.from_slices(rows, cols)
        try:
            with _opened(file.href, self.reach) as dataset:
                block = dataset.read(1, window=window)
                mask = dataset.read_masks(1, window=window) > 0 if file.masked else None
        except (RasterioError, OSError) as error:
            raise ReadError(file.href, self.name, f"cannot be read ({error.__cause__ or error})") from _portable(error)
        valid = np.ones(block.shape, bool) if mask is None else mask
        for value in file.void:
            valid &= block != value
        return block, valid

    def _check_values(self, values: NDArray[Any]) -> None:
        """Refuse what would be stored as something else."""
        label = f"label {self.name}"
        if not values.size:
            return
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > np.iinfo(self.dtype).max:
            wrong = low if low < 0 else high
            raise LabelError(
                label, f"the files hold the value {wrong}, which is no class from 0 to {MAX_CODE}; say nodata: {wrong}"
            )
        found = np.flatnonzero(np.bincount(values))
        if self.ignore in found:
            other = MAX_CODE if self.ignore < MAX_CODE else 0
            raise LabelError(
                label,
                f"the files use {self.ignore} as a value, and it is the label's ignore value; "
                f"say nodata: {self.ignore} if it means no label, or ignore: {other} if it is a class",
            )
        if self.legend.classes and (strange := set(found.tolist()) - set(self.legend.codes)):
            raise LabelError(
                label,
                f"the files hold {_some(strange)}, not in the legend; add it there, or say nodata if it means no label",
            )


@dataclass(frozen=True, slots=True)
class _Place:
    """A rectangle of pixels of a zone."""

    epsg: int
    resolution_m: float
    row0: int
    col0: int
    dy: float
    dx: float
    shape: tuple[int, int]

    def axes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the lattice's nodes around it."""
        return (
            lattice_nodes(self.row0, self.row0 + self.shape[0]),
            lattice_nodes(self.col0, self.col0 + self.shape[1]),
        )

    def nodes(self, crs: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x and y (y, x) of the nodes in another CRS."""
        import pyproj

        rows, cols = self.axes()
        x, y = np.meshgrid(self.dx + cols * self.resolution_m, self.dy - rows * self.resolution_m)
        there = pyproj.CRS.from_wkt(crs)
        if there != pyproj.CRS.from_epsg(self.epsg):
            x, y = pyproj.Transformer.from_crs(self.epsg, there, always_xy=True).transform(x, y)
            if there.is_geographic and np.ptp(x) > 180:
                # Across the antimeridian a cubic would run the long way round the earth.
                x = np.where(x < 0, x + 360, x)
        return x, y


def samples_per_pixel(resolution_m: float, pixel_m: float) -> int:
    """How many samples a pixel takes along each axis: 1 is the nearest pixel, more are a vote.

    A UTM metre is up to 0.4 ‰ off and other projections more, so a ratio within 5 % of a whole number counts as that.
    """
    ratio = resolution_m / pixel_m
    whole = round(ratio)
    per_px = whole if abs(ratio - whole) <= 0.05 * whole else math.ceil(ratio)
    return per_px if ratio >= 1.9 else 1


def _open_raster(
    name: str, spec: LabelSpec, aoi: Aoi, rasters: Sequence[str], reach: Callable[[str], Reach] | None
) -> RasterSource:
    label = f"label {name}"
    product = PRODUCTS[spec.product] if spec.product is not None else None
    hrefs = tuple(rasters) if product is not None else _expand(label, spec.raster or ())
    if not hrefs:
        raise LabelError(label, f"no file of {spec.product} was found for the area; check its year and the catalog")
    void = frozenset(v for v in (spec.nodata, product.nodata if product else None) if v is not None)

    def header(href: str) -> RasterFile:
        return _header(label, name, href, void, aoi, reach)

    with ThreadPoolExecutor(max_workers=min(16, len(hrefs))) as pool:
        files = tuple(pool.map(header, hrefs))
    if product is not None:
        legend = product_legend(product.name)
    else:
        legend = read_legend(spec.legend) if spec.legend is not None else Legend(())
    # A legend may also list what means "no label"; that is no class.
    gone = {v for file in files for v in file.void} | ({spec.ignore} if spec.ignore is not None else set())
    legend = legend.without(gone)
    fits = all(np.dtype(file.dtype) == np.uint8 for file in files)
    ignore, dtype = _ignore(label, spec, legend.codes or ([254] if fits else [MAX_CODE - 1]), None)
    attrs: dict[str, Any] = {
        **legend.attrs,
        "source": [Path(file.href).name for file in files] if product is None else product.collection,
        "resampling": "nearest; the most frequent class where pixels are at least twice as wide as the file's",
    }
    if product is not None:
        attrs |= {"title": product.title, "licence": product.licence, "attribution": product.attribution}
        attrs |= {} if spec.year is None else {"year": spec.year}
    return RasterSource(name, legend, ignore, dtype, attrs, files, reach)


def _expand(label: str, raster: str | tuple[str, ...]) -> tuple[str, ...]:
    """Files of a raster label: lists as they stand, patterns by name."""
    paths: list[str] = []
    for path in (raster,) if isinstance(raster, str) else raster:
        if "://" in path or Path(path).exists():
            paths.append(path)
        elif glob.has_magic(path):
            if not (found := sorted(glob.glob(path, recursive=True))):
                raise LabelError(label, f"no file matches {path}; correct the pattern")
            paths += found
        else:
            raise LabelError(label, f"{path} does not exist; correct the path (relative ones start at the recipe)")
    return tuple(dict.fromkeys(paths))


def _header(
    label: str, name: str, href: str, void: frozenset[int], aoi: Aoi, reach: Callable[[str], Reach] | None
) -> RasterFile:
    from rasterio.enums import MaskFlags
    from rasterio.errors import RasterioError

    try:
        with _opened(href, reach) as dataset:
            crs, transform, count = dataset.crs, dataset.transform, dataset.count
            shape, dtype, nodata = dataset.shape, dataset.dtypes[0], dataset.nodata
            flags = dataset.mask_flag_enums[0]
    except (RasterioError, OSError) as error:
        raise ReadError(href, name, f"cannot be opened ({error})") from _portable(error)
    if count != 1:
        raise LabelError(label, f"{href} has {count} bands; a class raster has one. Extract it (gdal_translate -b 1)")
    if not np.issubdtype(np.dtype(dtype), np.integer):
        raise LabelError(
            label, f"{href} holds {dtype}; classes are whole numbers. Convert it, if they are (gdal_translate -ot Byte)"
        )
    if crs is None or transform.determinant == 0:
        raise LabelError(label, f"{href} has no CRS or no pixel grid; give it one (gdal_translate -a_srs)")
    own = frozenset() if nodata is None or not float(nodata).is_integer() else frozenset({int(nodata)})
    wkt = crs.to_wkt()
    coefficients = tuple(float(v) for v in transform[:6])
    return RasterFile(
        href=href,
        crs=wkt,
        transform=coefficients,  # type: ignore[arg-type]  # six of them, which mypy cannot count
        shape=shape,
        dtype=dtype,
        void=void or own,
        masked=not void and (MaskFlags.per_dataset in flags or MaskFlags.alpha in flags),
        pixel_m=_pixel_m(wkt, coefficients, shape, aoi),
    )


def _pixel_m(crs: str, transform: tuple[float, ...], shape: tuple[int, int], aoi: Aoi) -> float:
    """Side of a pixel on the ground at the middle of the area; the same for all tiles of a mosaic, so seams agree."""
    import pyproj

    west, south, east, north = aoi.geometry.bounds
    to_degrees = pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(crs), 4326, always_xy=True)
    x, y = to_degrees.transform((west + east) / 2, (south + north) / 2, direction="INVERSE")
    a, b, c, d, e, f = transform
    if not (math.isfinite(x) and math.isfinite(y)):
        x, y = c + a * shape[1] / 2 + b * shape[0] / 2, f + d * shape[1] / 2 + e * shape[0] / 2
    lon, lat = to_degrees.transform([x, x + a, x + b], [y, y + d, y + e])
    geod = pyproj.Geod(ellps="WGS84")
    _, _, sides = geod.inv([lon[0], lon[0]], [lat[0], lat[0]], lon[1:], lat[1:])
    return math.sqrt(sides[0] * sides[1])


@contextmanager
def _opened(href: str, reach: Callable[[str], Reach] | None) -> Iterator[rasterio.DatasetReader]:
    """A raster open for reading, with the settings that its place needs."""
    import rasterio

    way = None if reach is None else reach(href)
    with (
        rasterio.Env(**(REMOTE if "://" in href else {})),
        contextlib.nullcontext() if way is None else way.env(),
        rasterio.open(href if way is None else way.url) as dataset,
    ):
        yield dataset


def _portable(error: Exception) -> Exception:
    """The error without GDAL's own behind it.

    Dask sends an error with its causes, and rasterio's wrappers of GDAL's errors cannot be unpickled (1.4.4): the
    reason would be lost on the way. Goes when they can.
    """
    error.__cause__ = error.__context__ = None
    return error


@lru_cache
def _is_geographic(crs: str) -> bool:
    import pyproj

    return bool(pyproj.CRS.from_wkt(crs).is_geographic)


# --- both ------------------------------------------------------------------------------------------------------------


def _ignore(label: str, spec: LabelSpec, codes: Iterable[int], background: int | None) -> tuple[int, str]:
    """The ignore value and the dtype that holds it and all codes."""
    highest = max([*codes, 0 if background is None else background])
    ignore = spec.ignore if spec.ignore is not None else 255 if highest < 255 else MAX_CODE
    if ignore == background or ignore in codes:
        raise LabelError(label, f"{ignore} is the ignore value and also the code of a class; say another ignore")
    return ignore, "uint8" if max(highest, ignore) <= 255 else "uint16"


def _nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not there: what was meant, or what there is."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(by_lower[c] for c in close)}?"
    return f"; it has {', '.join(by_lower.values()) or 'none'}"


def _some(values: Iterable[ClassValue]) -> str:
    """A few of the values, for a sentence."""
    shown = sorted(values, key=_by_kind)
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return ", ".join(repr(v) for v in shown[:8]) + more
