"""Class rasters: land-cover products and the user's own. First only headers are read; each window reads its pixels."""

from __future__ import annotations

import contextlib
import glob
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curate.errors import LabelError, ReadError
from curate.remote import HTTP, persistent
from labels.codes import ignore_and_dtype, some
from labels.legend import PRODUCTS, Legend, find_legend, find_product, is_file, product_legend
from labels.options import MAX_CODE
from labels.rasterize import lattice
from labels.sample import lattice_nodes, sample, vote
from labels.source import LabelVariable
from labels.spec import ProductLabel, RasterLabel
from tiling.shards import Window

if TYPE_CHECKING:
    import rasterio

    from tiling.aoi import Aoi

MAX_SAMPLES = 4096 * 4096
"""Largest piece of a raster, in its own pixels, that is held at once; larger windows are drawn in parts."""


class Reach(Protocol):
    """How one file is opened: ``with reach.env(), rasterio.open(reach.url)``; ``catalog.access.Access`` is one."""

    @property
    def url(self) -> str:
        """What rasterio opens."""

    def env(self) -> AbstractContextManager[Any]:
        """The settings of its server."""


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

    @property
    def variables(self) -> tuple[LabelVariable, ...]:
        """The class mask; see ``LabelSource``."""
        return (LabelVariable(self.name, self.dtype, self.ignore, "classes", attrs=self.attrs),)

    @property
    def resolution_m(self) -> None:
        """Drawn on the pixels of the grid."""

    def render(self, window: Window) -> dict[str, NDArray[Any]]:
        """The class mask of a window; see ``LabelSource``. Raises as ``codes`` does."""
        return {self.name: self.codes(window)}

    def codes(self, window: Window) -> NDArray[np.unsignedinteger[Any]]:
        """Codes (y, x) of a window; ``ignore`` where there is none. A pixel is the same in every window that has it.

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
                place = Place(window.epsg, window.resolution_m, row0 + top, col0 + left, dy, dx, part.shape)
                self._render_part(part, place, samples)
        return out

    def _render_part(self, out: NDArray[np.unsignedinteger[Any]], place: Place, per_px: int) -> None:
        shape = (out.shape[0] * per_px, out.shape[1] * per_px)
        values = np.zeros(shape, np.result_type(*(f.dtype for f in self.files)))
        known = np.zeros(shape, bool)
        nodes: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        for file in self.files:
            if file.crs not in nodes:
                nodes[file.crs] = place.nodes(file.crs)
            for shift in (0.0, 360.0, -360.0) if is_geographic(file.crs) else (0.0,):
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
        place: Place,
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

        def read() -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
            with opened(file.href, self.reach) as dataset:
                mask = dataset.read_masks(1, window=window) > 0 if file.masked else None
                return dataset.read(1, window=window), mask

        try:
            block, mask = persistent(read, file.href, (RasterioError, OSError))
        except (RasterioError, OSError) as error:
            raise ReadError(file.href, self.name, f"cannot be read ({error.__cause__ or error})") from portable(error)
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
                f"the files hold {some(strange)}, not in the legend; add it there, or say nodata if it means no label",
            )


@dataclass(frozen=True, slots=True)
class Place:
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


def open_raster(
    name: str,
    spec: RasterLabel | ProductLabel,
    *,
    aoi: Aoi,
    rasters: Sequence[str] = (),
    reach: Callable[[str], Reach] | None = None,
) -> RasterSource:
    """Class rasters of the user, or of a product whose files ``rasters`` the caller has found, ready to draw.

    Raises:
        LabelError: A file or product is missing, or is no class raster.
        ReadError: A file cannot be opened.
    """
    label = f"label {name}"
    product = PRODUCTS[spec.product] if isinstance(spec, ProductLabel) else None
    if isinstance(spec, RasterLabel):
        hrefs, own_legend = expand(label, spec.raster), spec.legend
    elif rasters:
        hrefs, own_legend = tuple(rasters), None
    else:
        raise LabelError(label, f"no file of {spec.product} was found for the area; check its year and the catalog")
    named = find_product(own_legend) if own_legend is not None and not is_file(own_legend) else product
    void = frozenset(named.void if named is not None else ()) | (frozenset() if spec.nodata is None else {spec.nodata})

    def header(href: str) -> RasterFile:
        return _header(label, name, href, void, aoi, reach)

    with ThreadPoolExecutor(max_workers=min(16, len(hrefs))) as pool:
        files = tuple(pool.map(header, hrefs))
    require_near(label, [(file.href, file.crs, file.transform, file.shape) for file in files], aoi)
    if product is not None:
        legend = product_legend(product.name)
    else:
        legend = find_legend(own_legend) if own_legend is not None else Legend(())
    # A legend may also list what means "no label"; that is no class.
    gone = {v for file in files for v in file.void} | ({spec.ignore} if spec.ignore is not None else set())
    legend = legend.without(gone)
    fits = all(np.dtype(file.dtype) == np.uint8 for file in files)
    ignore, dtype = ignore_and_dtype(label, spec.ignore, legend.codes or ([254] if fits else [MAX_CODE - 1]), None)
    attrs: dict[str, Any] = {
        **legend.attrs,
        "source": [Path(file.href).name for file in files] if product is None else product.collection,
        "resampling": "nearest; the most frequent class where pixels are at least twice as wide as the file's",
    }
    if product is not None:
        attrs |= {"title": product.title, "licence": product.licence, "attribution": product.attribution}
        attrs |= {"year": spec.year} if isinstance(spec, ProductLabel) else {}
    return RasterSource(name, legend, ignore, dtype, attrs, files, reach)


def expand(label: str, raster: str | tuple[str, ...]) -> tuple[str, ...]:
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

    def read() -> tuple[Any, ...]:
        with opened(href, reach) as source:
            grid = (source.crs, source.transform, source.count, source.shape)
            return (*grid, source.dtypes[0], source.nodata, source.mask_flag_enums[0])

    try:
        crs, transform, count, shape, dtype, nodata, flags = persistent(read, href, (RasterioError, OSError))
    except (RasterioError, OSError) as error:
        raise ReadError(href, name, f"cannot be opened ({error})") from portable(error)
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
        pixel_m=ground_pixel_m(wkt, coefficients, shape, aoi),
    )


def require_near(label: str, files: Sequence[tuple[str, str, tuple[float, ...], tuple[int, int]]], aoi: Aoi) -> None:
    """LabelError unless one of the files, (href, WKT, transform, shape), lies where the area does; by their boxes."""
    import pyproj

    boxes = {
        crs: pyproj.Transformer.from_crs(4326, pyproj.CRS.from_wkt(crs), always_xy=True).transform_bounds(
            *aoi.geometry.bounds
        )
        for crs in {crs for _, crs, _, _ in files}
    }
    for _, crs, (a, b, c, d, e, f), (rows, cols) in files:
        x = sorted(c + a * col + b * row for col in (0, cols) for row in (0, rows))
        y = sorted(f + d * col + e * row for col in (0, cols) for row in (0, rows))
        west, south, east, north = boxes[crs]
        if not math.isfinite(west + south + east + north):
            return  # a projection without an answer for the area, so nothing speaks against the file
        for turn in (0.0, 360.0, -360.0) if is_geographic(crs) else (0.0,):
            if west + turn < x[-1] and x[0] < east + turn and south < y[-1] and y[0] < north:
                return
    w, s, e, n = aoi.geometry.bounds
    more = f" and {len(files) - 1} more files do not reach" if len(files) > 1 else " does not reach"
    raise LabelError(
        label, f"{files[0][0]}{more} into the area ({w:.3f},{s:.3f},{e:.3f},{n:.3f}). Check the files and their CRS"
    )


def ground_pixel_m(crs: str, transform: tuple[float, ...], shape: tuple[int, int], aoi: Aoi) -> float:
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
def opened(href: str, reach: Callable[[str], Reach] | None) -> Iterator[rasterio.DatasetReader]:
    """A raster open for reading, with the settings that its place needs."""
    import rasterio

    way = None if reach is None else reach(href)
    with (
        rasterio.Env(**HTTP),
        contextlib.nullcontext() if way is None else way.env(),
        rasterio.open(href if way is None else way.url) as dataset,
    ):
        yield dataset


def portable(error: Exception) -> Exception:
    """The error without GDAL's own behind it.

    Dask sends an error with its causes, and rasterio's wrappers of GDAL's errors cannot be unpickled (1.4.4): the
    reason would be lost on the way. Goes when they can.
    """
    error.__cause__ = error.__context__ = None
    return error


@lru_cache
def is_geographic(crs: str) -> bool:
    """Whether the coordinates of a CRS (WKT) are longitudes and latitudes."""
    import pyproj

    return bool(pyproj.CRS.from_wkt(crs).is_geographic)
