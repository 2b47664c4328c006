"""Polygons of a vector file as classes. The file is read once per build and its polygons are kept in memory.

What was dropped, repaired or left unlabelled is counted and told, never passed over.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import LabelError
from labels.codes import assign_codes, class_values, ignore_and_dtype, legend_of, listed_value, nearest, some
from labels.legend import Legend
from labels.rasterize import Polygons, pack, project, rasterize
from labels.rasters import portable
from labels.source import LabelVariable
from labels.spec import ClassValue, VectorLabel
from tiling.shards import Window

if TYPE_CHECKING:
    import geopandas as gpd
    import pyproj

    from tiling.aoi import Aoi

log = logging.getLogger(__name__)

MARGIN_M = 30_000.0
"""How far around the area a vector is read: chips on its border reach outwards by up to one side."""

REACH_M = 300_000.0
"""Polygons that reach further from the area than this are cut there: a UTM zone cannot hold a continent."""

METRES_PER_DEGREE = 111_320.0


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

    @property
    def variables(self) -> tuple[LabelVariable, ...]:
        """The class mask; see ``LabelSource``."""
        return (LabelVariable(self.name, self.dtype, self.ignore, "classes", attrs=self.attrs),)

    @property
    def resolution_m(self) -> None:
        """Drawn on the pixels of the grid."""

    def render(self, window: Window) -> dict[str, NDArray[Any]]:
        """The class mask of a window; see ``LabelSource``."""
        return {self.name: self.codes(window)}

    def codes(self, window: Window) -> NDArray[np.unsignedinteger[Any]]:
        """Codes (y, x) of a window; ``ignore`` where there is none. A pixel is the same in every window that has it."""
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


def open_vector(name: str, spec: VectorLabel, *, aoi: Aoi, margin_m: float = MARGIN_M) -> VectorSource:
    """The polygons of a vector file around an area, ready to draw.

    Raises:
        LabelError: The file, a column or a class is missing, or nothing of it lies in the area.
    """
    import pyproj
    import shapely

    label, path = f"label {name}", spec.vector
    layer, crs_text = choose_layer(label, path, spec.layer)
    crs = pyproj.CRS.from_user_input(crs_text)
    extent = extent_around(aoi, margin_m)
    frame = _read_frame(label, path, layer, spec.attribute, box_in(crs, extent))
    frame, counts = _polygons_only(label, path, frame)
    around = _box(box_in(crs, extent_around(aoi, 0.0)))
    inside = frame.intersects(around).to_numpy(bool) if len(frame) else np.zeros(0, bool)
    if not inside.any():
        w, s, e, n = aoi.geometry.bounds
        raise LabelError(
            label,
            f"no polygon of {path} lies in the area ({w:.3f},{s:.3f},{e:.3f},{n:.3f}); "
            f"the file covers {_coverage(path, layer, crs)}. Check the file, its CRS and the order of its coordinates",
        )

    areas = shapely.area(frame.geometry.to_numpy())
    values = _column(frame, spec.attribute)
    codes: dict[ClassValue, int | None] = {1: 1}
    if (column := spec.attribute) is not None:
        codes = assign_codes(label, path, column, spec.classes, values, lambda: all_values(path, layer, column))
    ignore, dtype = ignore_and_dtype(label, spec.ignore, [c for c in codes.values() if c is not None], spec.background)
    drawn_as: dict[ClassValue | None, int] = {None: ignore, **{v: ignore if c is None else c for v, c in codes.items()}}
    burnt = np.array([drawn_as[v] for v in values], np.uint16)
    order = _drawing_order(label, spec, values, areas, codes)
    frame = _cut(frame, box_in(crs, extent_around(aoi, margin_m + REACH_M)))

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


def is_parquet(path: str) -> bool:
    """Whether a file is (Geo)Parquet, by its name."""
    return Path(path).suffix.lower() in (".parquet", ".geoparquet")


def choose_layer(label: str, path: str, layer: str | None, kind: str = "Polygon") -> tuple[str | None, Any]:
    """The layer to read and its CRS.

    Args:
        label: What to call it in errors.
        path: Of the file.
        layer: What the recipe says; without it the file must have one layer with geometries of the kind.
        kind: ``Polygon`` or ``Point``, also of the multi kind.

    Raises:
        LabelError: The file cannot be read, has no CRS, or not exactly one layer to read.
    """
    import pyogrio
    from pyogrio.errors import DataSourceError

    if "://" not in path and not Path(path).exists():
        raise LabelError(label, f"{path} does not exist; correct the path (relative ones start at the recipe)")
    try:
        if is_parquet(path):
            crs = _read_parquet(path, None).crs
        else:
            layers = {str(n): str(found) for n, found in pyogrio.list_layers(path) if found is not None}
            if not layers:
                raise LabelError(label, f"{path} has no layer with geometries; wanted {kind.lower()}s")
            fit = [n for n, found in layers.items() if kind in found or found == "Unknown"] or list(layers)
            if layer is None and len(fit) > 1:
                raise LabelError(label, f"{path} has the layers {', '.join(fit)}; say which with layer")
            layer = fit[0] if layer is None else layer
            if layer not in layers:
                raise LabelError(label, f"{path} has no layer {layer!r}{nearest(layer, layers)}")
            crs = pyogrio.read_info(path, layer=layer, encoding=None)["crs"]
    except (DataSourceError, OSError, ValueError) as error:
        raise LabelError(label, f"{path} cannot be read as a vector file ({error})") from portable(error)
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

    known = column_names(path, layer)
    if attribute is not None and attribute not in known:
        raise LabelError(label, f"{path} has no column {attribute!r}{nearest(attribute, known)}")
    wanted = [] if attribute is None else [attribute]
    try:
        if is_parquet(path):
            frame = _read_parquet(path, None)
            geometry = frame.geometry
            return gpd.GeoDataFrame(frame[wanted], geometry=geometry)[
                (geometry.intersects(_box(box)) | geometry.isna() | geometry.is_empty).to_numpy()
            ].reset_index(drop=True)
        return pyogrio.read_dataframe(path, layer=layer, columns=wanted, bbox=box, on_invalid="ignore")
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError, ValueError) as error:
        raise LabelError(label, f"{path} cannot be read ({error})") from portable(error)


def column_names(path: str, layer: str | None) -> list[str]:
    """The columns of a layer."""
    import pyogrio

    if is_parquet(path):
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
    return [1] * len(frame) if attribute is None else class_values(frame[attribute])


def all_values(path: str, layer: str | None, attribute: str) -> set[ClassValue]:
    """The values that a class column has anywhere in the file."""
    import pyogrio

    if is_parquet(path):
        import pandas as pd

        frame = pd.read_parquet(path, columns=[attribute])
    else:
        frame = pyogrio.read_dataframe(path, layer=layer, columns=[attribute], read_geometry=False)
    return {v for v in class_values(frame[attribute]) if v is not None}


def _drawing_order(
    label: str,
    spec: VectorLabel,
    values: Sequence[ClassValue | None],
    areas: NDArray[np.float64],
    codes: dict[ClassValue, int | None],
) -> NDArray[np.intp]:
    """Positions of the polygons from the lowest to the topmost; equal ones stay in the order of the file."""
    if spec.order == "file":
        return np.arange(len(values))
    if spec.order == "small_on_top":
        return np.argsort(-areas, kind="stable")
    ranks = {listed_value(label, value): rank for rank, value in enumerate(spec.order, start=1)}
    if strange := ranks.keys() - codes.keys():
        raise LabelError(label, f"order names {some(strange)}, which is no class here; classes are {some(codes)}")
    # What the order does not name lies below everything that it names.
    return np.argsort([0 if v is None else ranks.get(v, 0) for v in values], kind="stable")


def _vector_legend(label: str, spec: VectorLabel, codes: dict[ClassValue, int | None]) -> Legend:
    names: dict[int, list[str]] = {}
    for value, code in codes.items():
        if code is not None:
            names.setdefault(code, []).append(str(value) if spec.attribute is not None else "inside")
    if spec.background is not None:
        names.setdefault(spec.background, ["background"])
    return legend_of(label, names, spec.legend)


def extent_around(aoi: Aoi, margin_m: float) -> tuple[float, float, float, float]:
    """(west, south, east, north) of the area and a margin, degrees."""
    west, south, east, north = aoi.geometry.bounds
    dy = margin_m / METRES_PER_DEGREE
    dx = dy / max(math.cos(math.radians(min(max(abs(south), abs(north)) + dy, 89.0))), 0.01)
    return (max(west - dx, -180.0), max(south - dy, -90.0), min(east + dx, 180.0), min(north + dy, 90.0))


def box_in(crs: pyproj.CRS, extent: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
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

    if is_parquet(path):
        bounds = _read_parquet(path, None).total_bounds
    else:
        bounds = pyogrio.read_info(path, layer=layer, force_total_bounds=True)["total_bounds"]
    if bounds is None or not np.isfinite(bounds).all():
        return "nothing"
    degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform_bounds(*bounds)
    return "({:.3f},{:.3f},{:.3f},{:.3f})".format(*degrees)
