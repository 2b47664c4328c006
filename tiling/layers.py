"""What layers of the user's say about chips: shares of polygons and classes, who is touched, pixels at fixed points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curate.errors import RecipeError
from curate.objects import gdal_path, gdal_settings
from curate.remote import HTTP
from tiling.grid import Chip, corners, footprints

if TYPE_CHECKING:
    import geopandas
    from pyproj import CRS
    from shapely.geometry.base import BaseGeometry

M_PER_DEGREE = 111_320.0
MOST_POINTS = 64
"""Points a side of a chip at which a raster is asked, at most; a coarse raster needs far fewer."""
WINDOW_PX = 2**25
"""Pixels of a raster that are read at once; a window that would be larger is split."""


@dataclass(frozen=True, eq=False)
class Shares:
    """Share of each chip that each class has; what no class has is missing from the sum."""

    names: tuple[int | str, ...]
    """Classes, strata or categories in order."""
    values: npt.NDArray[np.float64]
    """Dims (chip, name), 0 to 1."""


def read_vector(path: str, around: BaseGeometry, *, attributes: Sequence[str] = ()) -> geopandas.GeoDataFrame:
    """The features of a file whose boxes meet that of ``around`` (EPSG:4326), in EPSG:4326, with these attributes.

    A ``.csv`` has points in columns ``lon`` and ``lat``, in degrees.

    Raises:
        RecipeError: The file cannot be read, has no CRS, or lacks an attribute.
    """
    import geopandas
    import shapely
    from pyogrio.errors import DataLayerError, DataSourceError

    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".csv":
            table = _points_of_csv(path)
        elif suffix in {".parquet", ".geoparquet", ".pq"}:
            table = geopandas.read_parquet(path)
        else:
            near = geopandas.GeoSeries([shapely.box(*around.bounds)], crs=4326)
            table = geopandas.read_file(path, bbox=near)
    except (OSError, ValueError, DataSourceError, DataLayerError) as error:
        raise _unusable(path, f"cannot be read as a vector file: {error}") from error
    if not isinstance(table, geopandas.GeoDataFrame):
        raise _unusable(path, "is a table without geometries")
    if table.crs is None:
        raise _unusable(path, "does not say in which CRS its coordinates are; save it with one")
    missing = [name for name in attributes if name not in table.columns]
    if missing:
        there = ", ".join(str(name) for name in table.columns if name != table.geometry.name)
        raise _unusable(path, f"has no attribute {missing[0]!r}; found {there or 'none at all'}")
    table = table[table.geometry.notna() & ~table.geometry.is_empty].to_crs(4326)
    table.geometry = shapely.make_valid(table.geometry.to_numpy())
    return table[table.intersects(shapely.box(*around.bounds))].reset_index(drop=True)


def _points_of_csv(path: str) -> geopandas.GeoDataFrame:
    import geopandas
    import pandas as pd

    table = pd.read_csv(path)
    if not {"lon", "lat"} <= set(table.columns):
        raise ValueError(f"it has the columns {', '.join(map(str, table.columns))}; wanted lon and lat among them")
    return geopandas.GeoDataFrame(table, geometry=geopandas.points_from_xy(table["lon"], table["lat"]), crs=4326)


def polygon_shares(chips: Sequence[Chip], table: geopandas.GeoDataFrame, attribute: str) -> Shares:
    """Share of each chip's area that the polygons of each value of ``attribute`` have; where they overlap, once each.

    Areas are counted in degrees, whose shape does not change within a chip.
    """
    import shapely

    values = [value if isinstance(value, str) else _whole(value) for value in table[attribute]]
    names = tuple(sorted({value for value in values if value is not None}, key=lambda value: (str(type(value)), value)))
    places = {name: index for index, name in enumerate(names)}
    outlines = footprints(chips)
    shares = np.zeros((len(chips), len(names)))
    shapes = table.geometry.to_numpy()
    chip, shape = shapely.STRtree(shapes).query(outlines, predicate="intersects")
    areas = shapely.area(shapely.intersection(outlines[chip], shapes[shape])) / shapely.area(outlines[chip])
    place = np.array([-1 if value is None else places[value] for value in values], np.intp)[shape]
    known = place >= 0
    np.add.at(shares, (chip[known], place[known]), areas[known])
    return Shares(names, np.minimum(shares, 1.0))


def _whole(value: Any) -> int | str | None:
    """A class as a whole number or a text; None where there is none."""
    if value is None or value != value:
        return None
    return int(value) if float(value).is_integer() else str(value)


def covered(chips: Sequence[Chip], shapes: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
    """Share of each chip that the union of polygons (EPSG:4326) covers, 0 to 1."""
    import shapely

    outlines = footprints(chips)
    chip, shape = shapely.STRtree(shapes).query(outlines, predicate="intersects")
    share = np.zeros(len(chips))
    for index, those in zip(*_groups(chip, shape), strict=True):
        inside = shapely.intersection(outlines[index], shapely.union_all(shapes[those]))
        share[index] = shapely.area(inside) / shapely.area(outlines[index])
    return share


def _groups(keys: npt.NDArray[np.intp], values: npt.NDArray[np.intp]) -> tuple[list[int], list[npt.NDArray[np.intp]]]:
    """Each key once, rising, with the values that belong to it."""
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    values = values[order]
    return found.tolist(), np.split(values, starts[1:]) if len(found) else []


def touched(chips: Sequence[Chip], shapes: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    """Whether any of the shapes (EPSG:4326; points, lines or polygons) meets each chip."""
    import shapely

    hit = np.zeros(len(chips), bool)
    hit[shapely.STRtree(shapes).query(footprints(chips), predicate="intersects")[0]] = True
    return hit


def presence(chips: Sequence[Chip], shapes: npt.NDArray[np.object_], categories: Sequence[Sequence[str]]) -> Shares:
    """Which chips are touched by a shape of which category, as 1 or 0; a shape may be of several categories."""
    import shapely

    names = tuple(sorted({name for each in categories for name in each}))
    places = {name: index for index, name in enumerate(names)}
    values = np.zeros((len(chips), len(names)))
    chip, shape = shapely.STRtree(shapes).query(footprints(chips), predicate="intersects")
    for at, those in zip(*_groups(chip, shape), strict=True):
        for name in {name for one in those.tolist() for name in categories[one]}:
            values[at, places[name]] = 1.0
    return Shares(names, values)


def class_shares(chips: Sequence[Chip], rasters: Sequence[str]) -> Shares:
    """Share of each chip that each class of a raster has, counted at a lattice of points as fine as its pixels.

    Raises:
        RecipeError: A raster cannot be read, or its pixels are no whole numbers.
    """
    pixels, known = raster_points(chips, rasters)
    if pixels.dtype.kind not in "iu":
        raise _unusable(rasters[0], f"holds {pixels.dtype}; classes are whole numbers")
    names = np.unique(pixels[known])
    values = np.zeros((len(chips), len(names)))
    chip, point = np.nonzero(known)
    np.add.at(values, (chip, np.searchsorted(names, pixels[chip, point])), 1.0)
    return Shares(tuple(int(name) for name in names), values / pixels.shape[1])


def raster_points(chips: Sequence[Chip], rasters: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Values of a raster's first band at a regular lattice of points in each chip, and where there are any.

    Both have dims (chip, point); the points of all chips lie alike, from the south-west row by row. Where rasters lie
    over each other the first one that has a value counts.

    Raises:
        RecipeError: A raster cannot be read or has no CRS.
    """
    import rasterio
    from rasterio.errors import RasterioError

    values: npt.NDArray[Any] | None = None
    lon = lat = np.empty(0)
    known: npt.NDArray[np.bool_] = np.empty(0, bool)
    for path in rasters:
        try:
            with rasterio.Env(**HTTP, **gdal_settings()), rasterio.open(gdal_path(path)) as file:
                if file.crs is None:
                    raise _unusable(path, "does not say in which CRS it is")
                if values is None:
                    lon, lat = _lattice(chips, _points_a_side(chips, file))
                    values, known = np.zeros(lon.shape, file.dtypes[0]), np.zeros(lon.shape, bool)
                values = values.astype(np.promote_types(values.dtype, file.dtypes[0]), copy=False)
                _sample(file, lon, lat, values, known)
        except (RasterioError, OSError) as error:
            raise _unusable(path, f"cannot be read as a raster: {error}") from error
    assert values is not None  # a glob that finds nothing is refused before
    return values, known


def _points_a_side(chips: Sequence[Chip], file: Any) -> int:
    """Points a side of a chip that are no further apart than the raster's pixels."""
    pixel = min(abs(file.transform.a), abs(file.transform.e))
    pixel_m = pixel * M_PER_DEGREE if file.crs.is_geographic else pixel * file.crs.linear_units_factor[1]
    return int(np.clip(np.ceil(chips[0].size_m / pixel_m), 1, MOST_POINTS))


def _lattice(chips: Sequence[Chip], side: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Longitudes and latitudes, dims (chip, point), of ``side`` squared points within each chip."""
    steps = (np.arange(side) + 0.5) / side
    v, u = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    # Corners run from the lower left against the clock; between them degrees are straight to a decimetre.
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v])
    places = np.einsum("ckd,kp->dcp", corners(chips), weights)
    return (places[0] + 180) % 360 - 180, places[1]


def _sample(
    file: Any,
    lon: npt.NDArray[np.float64],
    lat: npt.NDArray[np.float64],
    values: npt.NDArray[Any],
    known: npt.NDArray[np.bool_],
) -> None:
    """Fill in what a raster knows at points that are not known yet."""
    from pyproj import CRS, Transformer

    crs: CRS = CRS.from_wkt(file.crs.to_wkt())
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    finite = np.isfinite(x) & np.isfinite(y)
    cols, rows = ~file.transform * (np.where(finite, x, 0.0), np.where(finite, y, 0.0))
    col, row = np.floor(cols).astype(np.int64), np.floor(rows).astype(np.int64)
    inside = finite & ~known & (col >= 0) & (row >= 0) & (col < file.width) & (row < file.height)
    _read(file, np.arange(len(lon)), row, col, inside, values, known)


def _read(
    file: Any,
    chips: npt.NDArray[np.intp],
    row: npt.NDArray[np.int64],
    col: npt.NDArray[np.int64],
    inside: npt.NDArray[np.bool_],
    values: npt.NDArray[Any],
    known: npt.NDArray[np.bool_],
) -> None:
    """Read the window around the points of these chips, or of their halves where it would be too large."""
    from rasterio.windows import Window

    chips = chips[inside[chips].any(axis=1)]
    if not len(chips):
        return
    here = inside[chips]
    rows, cols = row[chips][here], col[chips][here]
    top, left = int(rows.min()), int(cols.min())
    height, width = int(rows.max()) - top + 1, int(cols.max()) - left + 1
    if height * width > WINDOW_PX and len(chips) > 1:
        # Halves along the longer side, so that windows come to be compact.
        along = (row if height > width else col)[chips].max(axis=1, where=here, initial=-1)
        order = chips[np.argsort(along, kind="stable")]
        for half in np.array_split(order, 2):
            _read(file, half, row, col, inside, values, known)
        return
    window = Window(left, top, width, height)
    pixels, there = file.read(1, window=window), file.read_masks(1, window=window) > 0
    chip, point = np.nonzero(here)
    at = (rows - top, cols - left)
    values[chips[chip], point] = pixels[at]
    known[chips[chip], point] = there[at] & (np.isfinite(pixels[at]) if pixels.dtype.kind == "f" else True)


def _unusable(path: str, why: str) -> RecipeError:
    return RecipeError("recipe", (f"sample: {path} {why}",))
