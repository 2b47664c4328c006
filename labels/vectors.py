"""Polygons of a vector file as classes. The file is read once per build and its polygons are kept in memory.

What was dropped, repaired or left unlabelled is counted and told, never passed over.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import LabelError
from labels.codes import assign_codes, class_values, ignore_and_dtype, legend_of, listed_value, nearest, some
from labels.ids import FeatureTable, check_ids, feature_table
from labels.legend import Legend
from labels.options import ClassValue
from labels.rasterize import Polygons, pack, project, rasterize
from labels.rasters import portable
from labels.source import LabelVariable
from labels.spec import VectorLabel
from tiling.grid import Chip, footprints
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


FEATURE = "__feature"
"""Column that we add: the place of a feature in its file, from 0."""


@dataclass(frozen=True, eq=False)
class VectorSource:
    """Polygons with a class, and on request with an id and with numbers."""

    name: str
    legend: Legend
    ignore: int
    dtype: str
    attrs: dict[str, Any]
    polygons: Polygons = field(repr=False)
    """In the file's CRS, in drawing order; their codes are positions in ``classes``, ``ids`` and ``columns``."""
    classes: NDArray[np.uint16] = field(repr=False)
    """Code of each feature."""
    fill: int
    """Value where no polygon lies: the background's code, or ``ignore``."""
    all_touched: bool
    extent: tuple[float, float, float, float]
    """(west, south, east, north) in degrees: what was read."""
    ids: NDArray[np.uint32] | None = field(default=None, repr=False)
    """Id of each feature; None when they are not drawn."""
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    """Numbers of each feature, drawn as a variable each; NaN where the file has none."""
    frame: gpd.GeoDataFrame | None = field(default=None, repr=False)
    """The features themselves, in drawing order, when they are to be written too. Stays in the process that read it."""
    _zones: dict[int, _Zone] = field(default_factory=dict, repr=False)

    @property
    def variables(self) -> tuple[LabelVariable, ...]:
        """The class mask, ``<name>_id`` and ``<name>_<column>``; see ``LabelSource``."""
        made = [LabelVariable(self.name, self.dtype, self.ignore, "classes", attrs=self.attrs)]
        if self.ids is not None:
            made.append(LabelVariable(self.id_name, "uint32", 0, "ids", attrs={"long_name": "id of the feature"}))
        for column in self.columns:
            attrs = {"long_name": f"{column} of the feature"}
            made.append(LabelVariable(f"{self.name}_{column}", "float32", math.nan, "measure", attrs=attrs))
        return tuple(made)

    @property
    def id_name(self) -> str:
        """Name of the variable with the ids."""
        return f"{self.name}_id"

    @property
    def resolution_m(self) -> None:
        """Drawn on the pixels of the grid."""

    def render(self, window: Window) -> dict[str, NDArray[Any]]:
        """The variables of a window; see ``LabelSource``."""
        drawn: dict[str, NDArray[Any]] = {self.name: self.codes(window)}
        if self.ids is not None:
            ids = rasterize(self._zone(window).ids, window, fill=0, dtype="uint32", all_touched=self.all_touched)
            drawn[self.id_name] = ids
            for column in self.columns:
                drawn[f"{self.name}_{column}"] = self.table(window.epsg).look_up(ids, column)
        return drawn

    def codes(self, window: Window) -> NDArray[np.unsignedinteger[Any]]:
        """Codes (y, x) of a window; ``ignore`` where there is none. A pixel is the same in every window that has it."""
        zone = self._zone(window)
        return rasterize(zone.classes, window, fill=self.fill, dtype=self.dtype, all_touched=self.all_touched)

    def table(self, epsg: int) -> FeatureTable:
        """What is known of each feature, with areas as measured in a UTM zone."""
        zone = self._projected(epsg)
        if zone.table is None:
            assert self.ids is not None  # asked only of labels with ids
            numbers = {name: (self.ids, values) for name, values in self.columns.items()}
            zone.table = feature_table(zone.ids, numbers)
        return zone.table

    def features(self, chips: Sequence[Chip]) -> gpd.GeoDataFrame:
        """One row a feature and chip: chip, id, class, the columns, geometry cut to the chip; EPSG:4326.

        Empty when the label was opened without its features.
        """
        import geopandas as gpd
        import shapely

        if self.frame is None:
            return gpd.GeoDataFrame(geometry=[], crs=4326)
        outlines = np.array(list(footprints(chips)), dtype=object)
        shapes = self.frame.geometry.to_crs(4326).to_numpy()
        chip, feature = shapely.STRtree(shapes).query(outlines, predicate="intersects")
        cut = shapely.intersection(shapes[feature], outlines[chip])
        area = shapely.area(cut) > 0
        chip, feature, cut = chip[area], feature[area], _areas_of(cut[area])
        classes = self.classes[feature].astype("int32")
        assert self.ids is not None
        table: dict[str, Any] = {
            "chip": [chips[i].id for i in chip],
            "id": self.ids[feature],
            "class": np.where(classes == self.ignore, -1, classes),
            **{name: values[feature] for name, values in self.columns.items()},
        }
        return gpd.GeoDataFrame(table, geometry=cut, crs=4326)

    def _zone(self, window: Window) -> _Zone:
        self._check_extent(window)
        return self._projected(window.epsg)

    def _projected(self, epsg: int) -> _Zone:
        # One projects, the others wait: the work takes a second for 200,000 polygons, and the memory twice.
        with _projecting:
            if epsg not in self._zones:
                moved = project(self.polygons, epsg)
                classes = replace(moved, codes=self.classes[moved.codes])
                ids = moved if self.ids is None else replace(moved, codes=self.ids[moved.codes])
                self._zones[epsg] = _Zone(classes, ids)
            return self._zones[epsg]

    def _check_extent(self, window: Window) -> None:
        import pyproj

        to_degrees = pyproj.Transformer.from_crs(window.epsg, 4326, always_xy=True)
        west, south, east, north = to_degrees.transform_bounds(*window.bounds)
        w, s, e, n = self.extent
        if west < w or south < s or east > e or north > n:
            raise ValueError(f"label {self.name}: the window lies beyond what was read; open it with a larger margin_m")

    def __getstate__(self) -> dict[str, Any]:
        # A worker projects for itself: cheaper than to send every zone.
        return {**self.__dict__, "_zones": {}, "frame": None}


@dataclass(slots=True)
class _Zone:
    """Polygons projected to one UTM zone, with the same arrays behind both."""

    classes: Polygons
    ids: Polygons
    table: FeatureTable | None = None


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
    wanted = [name for name in (spec.attribute, spec.id, *spec.columns) if name is not None]
    frame = _read_frame(label, path, layer, list(dict.fromkeys(wanted)), box_in(crs, extent))
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
    if spec.classes is None and (taken := [value for value, code in codes.items() if code == spec.background]):
        raise LabelError(
            label,
            f"background {spec.background} is the code that {taken[0]!r} gets, and they could not be told apart; "
            "take 0, or list the codes in classes",
        )
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
    frame = frame.iloc[order].reset_index(drop=True)
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
        polygons=pack(frame.geometry.to_numpy(), np.arange(len(frame), dtype=np.uint32), crs),
        classes=burnt[order],
        fill=ignore if spec.background is None else spec.background,
        all_touched=spec.all_touched,
        extent=extent,
        ids=_ids(label, spec, frame) if spec.targets or spec.columns or spec.features else None,
        columns={column: _numbers(label, path, frame, column) for column in spec.columns},
        frame=frame[["geometry"]] if spec.features else None,
    )


def _ids(label: str, spec: VectorLabel, frame: gpd.GeoDataFrame) -> NDArray[np.uint32]:
    if spec.id is None:
        return check_ids(label, "FID", frame[FEATURE].to_numpy() + 1)
    return check_ids(label, spec.id, frame[spec.id].to_numpy())


def _numbers(label: str, path: str, frame: gpd.GeoDataFrame, column: str) -> NDArray[np.float32]:
    import pandas as pd

    try:
        return np.asarray(pd.to_numeric(frame[column]), np.float32)
    except (TypeError, ValueError) as error:
        raise LabelError(label, f"column {column} of {path} is not of numbers ({error}); name one that is") from error


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
    label: str, path: str, layer: str | None, wanted: list[str], box: tuple[float, float, float, float]
) -> gpd.GeoDataFrame:
    """Features that meet the box (in the file's CRS), with some columns and ``FEATURE``, in the order of the file."""
    import geopandas as gpd
    import pyogrio

    known = column_names(path, layer)
    for column in wanted:
        if column not in known:
            raise LabelError(label, f"{path} has no column {column!r}{nearest(column, known)}")
    try:
        if is_parquet(path):
            frame = _read_parquet(path, None)
            geometry = frame.geometry
            frame = gpd.GeoDataFrame(frame[wanted], geometry=geometry)
            frame[FEATURE] = np.arange(len(frame))
            near = (geometry.intersects(_box(box)) | geometry.isna() | geometry.is_empty).to_numpy()
            return frame[near].reset_index(drop=True)
        frame = pyogrio.read_dataframe(
            path, layer=layer, columns=wanted, bbox=box, on_invalid="ignore", fid_as_index=True
        )
        frame[FEATURE] = frame.index
        return frame.reset_index(drop=True)
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
