"""Rasters of something measured (biomass, height, confidence) onto pixels, as float32 with NaN where nothing is known.

Files that share a grid are read as one sheet, so values are interpolated and averaged across their seams as if it were
one file. Places in a file come from the lattice of ``labels.sample``: a pixel is the same in every window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from curate.errors import LabelError, ReadError
from curate.remote import persistent
from labels.legend import Legend
from labels.measure_spec import MeasureSpec, Resampling
from labels.rasterize import lattice
from labels.rasters import Place, Reach, expand, ground_pixel_m, is_geographic, opened, portable, require_near
from labels.sample import locate
from labels.source import LabelVariable
from tiling.shards import Window

if TYPE_CHECKING:
    from tiling.aoi import Aoi

MAX_SAMPLES = 1024 * 1024
"""Largest part of a window that is drawn at once, in pixels of the window or of the file, whichever are more."""

COARSER = 1.9
"""From here on pixels count as coarser than the file's, as with class rasters."""

HALF_KNOWN = 0.5 - 1e-6
"""An average stands only where half of the pixel is known (but for rounding): less says little about the rest."""

ON_GRID_PX = 1e-3
"""Files whose pixels lie within this of one grid share it."""


@dataclass(frozen=True, slots=True)
class MeasureFile:
    """Header of a raster, and where it lies on its sheet."""

    href: str
    row0: int
    """Row of the sheet that its first row is."""
    col0: int
    shape: tuple[int, int]
    void: float | None
    """Number that means "nothing known"."""
    masked: bool
    """Whether the file has a mask of its own (a mask band, not a number)."""
    scale: float
    offset: float


@dataclass(frozen=True, slots=True)
class Sheet:
    """Files on one grid, in the order of precedence."""

    crs: str
    """WKT."""
    transform: tuple[float, float, float, float, float, float]
    """Row-major affine (a, b, c, d, e, f) from (col, row) to coordinates."""
    files: tuple[MeasureFile, ...]

    def pixels(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows and columns of coordinates."""
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        return (a * (y - f) - d * (x - c)) / det, (e * (x - c) - b * (y - f)) / det


@dataclass(frozen=True, slots=True)
class MeasureSource:
    """Something measured; a ``LabelSource``."""

    name: str
    attrs: dict[str, Any]
    sheets: tuple[Sheet, ...]
    """In the order of precedence."""
    band: int
    valid_range: tuple[float, float] | None
    resampling: Resampling
    pixel_m: float
    """Side of the finest file's pixels on the ground in the area of interest, metres."""
    reach: Callable[[str], Reach] | None = None

    @property
    def legend(self) -> Legend:
        """Empty: its numbers are no classes."""
        return Legend(())

    @property
    def variables(self) -> tuple[LabelVariable, ...]:
        """The values; see ``LabelSource``."""
        return (LabelVariable(self.name, "float32", math.nan, "measure", attrs=self.attrs),)

    @property
    def resolution_m(self) -> None:
        """Drawn on the pixels of the grid."""

    def render(self, window: Window) -> dict[str, NDArray[Any]]:
        """The values of a window; see ``LabelSource``. Raises as ``values`` does."""
        return {self.name: self.values(window)}

    def values(self, window: Window) -> NDArray[np.float32]:
        """Values (y, x) of a window in units; NaN where nothing is known.

        ``nearest`` is the file's pixel in which the centre lies. ``bilinear`` weighs the four pixels around the
        centre by nearness, without those that are void, and is void where the centre lies in a void pixel (GDAL's
        rules). ``average`` weighs every pixel by the area that it shares with ours, whose outline is straight between
        its projected corners, and is void where less than half of ours is known.

        Raises:
            ReadError: A file cannot be read.
        """
        out = np.full(window.shape, np.nan, np.float32)
        row0, col0, dy, dx = lattice(window)
        ratio = window.resolution_m / self.pixel_m
        method = self.resampling if self.resampling != "auto" else "average" if ratio >= COARSER else "bilinear"
        side = max(int(math.sqrt(MAX_SAMPLES) / max(ratio, 1.0)), 1)
        for top in range(0, window.shape[0], side):
            for left in range(0, window.shape[1], side):
                part = out[top : top + side, left : left + side]
                # A pixel more on two sides: pixels have a corner more than there are of them.
                shape = (part.shape[0] + 1, part.shape[1] + 1)
                place = Place(window.epsg, window.resolution_m, row0 + top, col0 + left, dy, dx, shape)
                self._fill(part, place, method)
        return out

    def _fill(self, out: NDArray[np.float32], place: Place, method: str) -> None:
        known = np.zeros(out.shape)
        for sheet in self.sheets:
            x, y = place.nodes(sheet.crs)
            for shift in (0.0, 360.0, -360.0) if is_geographic(sheet.crs) else (0.0,):
                self._fill_from(sheet, out, known, place, x + shift, y, method)
            if (known >= 1).all():
                break
        if method == "average":
            out[known < HALF_KNOWN] = np.nan

    def _fill_from(
        self,
        sheet: Sheet,
        out: NDArray[np.float32],
        known: NDArray[np.float64],
        place: Place,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        method: str,
    ) -> None:
        node_rows, node_cols = sheet.pixels(x, y)
        row_nodes, col_nodes = place.axes()
        # Corners for areas, else centres.
        more, half = (1, 0.0) if method == "average" else (0, 0.5)
        rows, cols = (np.empty((out.shape[0] + more, out.shape[1] + more)) for _ in range(2))
        locate(
            rows, cols, node_rows, node_cols, place.row0 + half, place.col0 + half,
            int(row_nodes[0]), int(col_nodes[0]),
        )  # fmt: skip
        finite = np.isfinite(rows) & np.isfinite(cols)
        if not finite.any():
            return
        top, left = math.floor(rows[finite].min()) - 1, math.floor(cols[finite].min()) - 1
        bottom, right = math.ceil(rows[finite].max()) + 1, math.ceil(cols[finite].max()) + 1
        block = self._read(sheet, top, left, bottom, right)
        if block is None:
            return
        values, top, left = block
        rows -= top
        cols -= left
        if method == "nearest":
            _nearest(out, known, values, rows, cols)
        elif method == "bilinear":
            _bilinear(out, known, values, rows, cols)
        else:
            _average(out, known, values, rows, cols)

    def _read(
        self, sheet: Sheet, top: int, left: int, bottom: int, right: int
    ) -> tuple[NDArray[np.float64], int, int] | None:
        """Values of a part of a sheet, NaN where nothing is known, and its first row and column; None without files."""
        near = [
            file
            for file in sheet.files
            if file.row0 < bottom and file.row0 + file.shape[0] > top
            and file.col0 < right and file.col0 + file.shape[1] > left
        ]  # fmt: skip
        if not near:
            return None
        top, left = max(top, min(f.row0 for f in near)), max(left, min(f.col0 for f in near))
        bottom = min(bottom, max(f.row0 + f.shape[0] for f in near))
        right = min(right, max(f.col0 + f.shape[1] for f in near))
        values = np.full((bottom - top, right - left), np.nan)
        for file in near:
            r0, c0 = max(top, file.row0), max(left, file.col0)
            r1, c1 = min(bottom, file.row0 + file.shape[0]), min(right, file.col0 + file.shape[1])
            part = values[r0 - top : r1 - top, c0 - left : c1 - left]
            missing = np.isnan(part)
            if missing.any():
                inside = ((r0 - file.row0, r1 - file.row0), (c0 - file.col0, c1 - file.col0))
                part[missing] = self._read_file(file, *inside)[missing]
        return values, top, left

    def _read_file(self, file: MeasureFile, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.float64]:
        from rasterio.errors import RasterioError
        from rasterio.windows import Window as PixelWindow

        window = PixelWindow.from_slices(rows, cols)

        def read() -> tuple[NDArray[Any], NDArray[np.bool_]]:
            with opened(file.href, self.reach) as dataset:
                block = dataset.read(self.band, window=window)
                whole = np.ones(block.shape, bool)
                return block, dataset.read_masks(self.band, window=window) > 0 if file.masked else whole

        try:
            block, known = persistent(read, file.href, (RasterioError, OSError))
        except (RasterioError, OSError) as error:
            raise ReadError(file.href, self.name, f"cannot be read ({error.__cause__ or error})") from portable(error)
        if file.void is not None:
            known &= block != np.asarray(file.void).astype(block.dtype)
        values: NDArray[np.float64] = block.astype(np.float64) * file.scale + file.offset
        known &= np.isfinite(values)
        if self.valid_range is not None:
            known &= (values >= self.valid_range[0]) & (values <= self.valid_range[1])
        values[~known] = np.nan
        return values


def open_measure(
    name: str,
    spec: MeasureSpec,
    *,
    aoi: Aoi,
    rasters: Sequence[str] = (),
    reach: Callable[[str], Reach] | None = None,
) -> MeasureSource:
    """Rasters of something measured, ready to draw; only headers are read.

    Args:
        name: Its name in the recipe; stands in errors.
        spec: What the recipe says about it, with absolute paths.
        aoi: Area of interest; the size of the files' pixels is taken there.
        rasters: Files found by the caller, instead of ``spec.measure``.
        reach: How an address is opened.

    Raises:
        LabelError: A file is missing, has no such band, no grid, or holds no numbers that can be averaged.
        ReadError: A file cannot be opened.
    """
    label = f"label {name}"
    hrefs = tuple(rasters) or expand(label, spec.measure)

    def header(href: str) -> _Header:
        return _read_header(label, name, href, spec, aoi, reach)

    with ThreadPoolExecutor(max_workers=min(16, len(hrefs))) as pool:
        headers = list(pool.map(header, hrefs))
    require_near(label, [(href, h.crs, h.transform, h.file.shape) for href, h in zip(hrefs, headers, strict=True)], aoi)
    attrs: dict[str, Any] = {"source": [Path(href).name for href in hrefs], "resampling": spec.resampling}
    if spec.units:
        attrs["units"] = spec.units
    if spec.valid_range is not None:
        attrs["valid_range"] = [float(v) for v in spec.valid_range]
    return MeasureSource(
        name, attrs, _sheets(headers), spec.band, spec.valid_range, spec.resampling,
        min(found.pixel_m for found in headers), reach,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Header:
    crs: str
    transform: tuple[float, float, float, float, float, float]
    file: MeasureFile
    pixel_m: float


def _read_header(
    label: str, name: str, href: str, spec: MeasureSpec, aoi: Aoi, reach: Callable[[str], Reach] | None
) -> _Header:
    from rasterio.enums import MaskFlags
    from rasterio.errors import RasterioError

    def read() -> tuple[Any, ...]:
        with opened(href, reach) as source:
            band = min(spec.band, source.count) - 1
            grid = (source.crs, source.transform, source.count, source.shape)
            void = (source.dtypes[band], source.nodatavals[band], source.mask_flag_enums[band])
            return (*grid, *void, source.scales[band], source.offsets[band])

    try:
        crs, transform, count, shape, dtype, nodata, flags, scale, offset = persistent(
            read, href, (RasterioError, OSError)
        )
    except (RasterioError, OSError) as error:
        raise ReadError(href, name, f"cannot be opened ({error})") from portable(error)
    if spec.band > count:
        raise LabelError(label, f"{href} has {count} bands, wanted band {spec.band}; correct band")
    if np.dtype(dtype).kind not in "uif":
        raise LabelError(label, f"{href} holds {dtype}; wanted whole or real numbers")
    if crs is None or transform.determinant == 0:
        raise LabelError(label, f"{href} has no CRS or no pixel grid; give it one (gdal_translate -a_srs)")
    void = spec.nodata if spec.nodata is not None else nodata
    if void is not None and not _holds(np.dtype(dtype), void):
        if spec.nodata is not None:
            raise LabelError(label, f"nodata {void:g} is no number that {href} can hold ({dtype}); correct it")
        void = None
    wkt = crs.to_wkt()
    coefficients = tuple(float(v) for v in transform[:6])
    file = MeasureFile(
        href=href,
        row0=0,
        col0=0,
        shape=shape,
        void=void,
        masked=spec.nodata is None and (MaskFlags.per_dataset in flags or MaskFlags.alpha in flags),
        scale=float(scale if spec.scale is None else spec.scale),
        offset=float(offset if spec.offset is None else spec.offset),
    )
    pixel_m = ground_pixel_m(wkt, coefficients, shape, aoi)
    return _Header(wkt, coefficients, file, pixel_m)  # type: ignore[arg-type]  # six of them, which mypy cannot count


def _holds(dtype: np.dtype[Any], number: float) -> bool:
    """Whether a pixel of this type can be this number; NaN is void in any case."""
    if dtype.kind == "f":
        return not math.isnan(number)
    return float(number).is_integer() and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max


def _sheets(headers: Sequence[_Header]) -> tuple[Sheet, ...]:
    """Files by grid, sheets and files in the order that they were given in."""
    groups: list[tuple[_Header, list[MeasureFile]]] = []
    for header in headers:
        for first, files in groups:
            place = _place_on(first, header)
            if place is not None:
                files.append(_moved(header.file, *place))
                break
        else:
            groups.append((header, [header.file]))
    return tuple(Sheet(first.crs, first.transform, tuple(files)) for first, files in groups)


def _place_on(first: _Header, header: _Header) -> tuple[int, int] | None:
    """Row and column of a file on the grid of another one; None when it is on a grid of its own."""
    a, b, _, d, e, _ = first.transform
    same = all(
        abs(mine - theirs) * max(header.file.shape) <= ON_GRID_PX * max(abs(a), abs(b), abs(d), abs(e))
        for mine, theirs in zip(first.transform, header.transform, strict=True)
        if (mine, theirs) not in ((first.transform[2], header.transform[2]), (first.transform[5], header.transform[5]))
    )
    if first.crs != header.crs or not same:
        return None
    sheet = Sheet(first.crs, first.transform, ())
    row, col = (float(v) for v in sheet.pixels(np.array(header.transform[2]), np.array(header.transform[5])))
    if max(abs(row - round(row)), abs(col - round(col))) > ON_GRID_PX:
        return None
    return round(row), round(col)


def _moved(file: MeasureFile, row0: int, col0: int) -> MeasureFile:
    return MeasureFile(file.href, row0, col0, file.shape, file.void, file.masked, file.scale, file.offset)


# The kernels fill what of ``out`` is not known yet from the values (y, x) of a block, NaN where void; ``rows`` and
# ``cols`` are places in the block.


@njit(nogil=True, cache=True)
def _nearest(
    out: NDArray[np.float32],
    known: NDArray[np.float64],
    values: NDArray[np.float64],
    rows: NDArray[np.float64],
    cols: NDArray[np.float64],
) -> None:
    """The pixel in which each centre lies."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            r, c = rows[i, j], cols[i, j]
            if known[i, j] == 0 and 0 <= r < values.shape[0] and 0 <= c < values.shape[1]:
                value = values[int(r), int(c)]
                if not math.isnan(value):
                    out[i, j] = value
                    known[i, j] = 1


@njit(nogil=True, cache=True)
def _bilinear(
    out: NDArray[np.float32],
    known: NDArray[np.float64],
    values: NDArray[np.float64],
    rows: NDArray[np.float64],
    cols: NDArray[np.float64],
) -> None:
    """The four pixels around each centre by nearness, where the centre lies in one that is known."""
    height, width = values.shape
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            row, col = rows[i, j], cols[i, j]
            if known[i, j] > 0 or not (0 <= row < height and 0 <= col < width):
                continue
            if math.isnan(values[int(row), int(col)]):
                continue
            r0, c0 = math.floor(row - 0.5), math.floor(col - 0.5)
            fr, fc = row - 0.5 - r0, col - 0.5 - c0
            total, weights = 0.0, 0.0
            for r in range(max(r0, 0), min(r0 + 2, height)):
                for c in range(max(c0, 0), min(c0 + 2, width)):
                    w = (fr if r > r0 else 1 - fr) * (fc if c > c0 else 1 - fc)
                    if w > 0 and not math.isnan(values[r, c]):
                        total += w * values[r, c]
                        weights += w
            out[i, j] = total / weights
            known[i, j] = 1


@njit(nogil=True, cache=True)
def _average(
    out: NDArray[np.float32],
    known: NDArray[np.float64],
    values: NDArray[np.float64],
    rows: NDArray[np.float64],
    cols: NDArray[np.float64],
) -> None:
    """Mean by shared area under each pixel with corners ``rows`` and ``cols``; ``known`` is the share that has values.

    What earlier sheets know keeps its weight, and this one gets at most what is left.
    """
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            if known[i, j] >= 1:
                continue
            top = math.inf
            left = math.inf
            bottom = -math.inf
            right = -math.inf
            area = 0.0
            for k in range(4):
                # Around the pixel: upper left, upper right, lower right, lower left.
                r, c = _corner(rows, cols, i, j, k)
                r2, c2 = _corner(rows, cols, i, j, (k + 1) % 4)
                top, bottom = min(top, r), max(bottom, r)
                left, right = min(left, c), max(right, c)
                area += (c2 * r - c * r2) / 2
            area = abs(area)
            if not math.isfinite(area) or area == 0:
                continue
            if bottom <= 0 or right <= 0 or top >= values.shape[0] or left >= values.shape[1]:
                continue
            r0, c0 = math.floor(top), math.floor(left)
            shares = np.zeros((math.ceil(bottom) - r0, math.ceil(right) - c0 + 1))
            for k in range(4):
                r, c = _corner(rows, cols, i, j, k)
                r2, c2 = _corner(rows, cols, i, j, (k + 1) % 4)
                _sweep(shares, r - r0, c - c0, r2 - r0, c2 - c0)
            total, weights = 0.0, 0.0
            for a in range(shares.shape[0]):
                share = 0.0
                for b in range(shares.shape[1] - 1):
                    share += shares[a, b]
                    r, c = r0 + a, c0 + b
                    if 0 <= r < values.shape[0] and 0 <= c < values.shape[1] and not math.isnan(values[r, c]):
                        total += abs(share) * values[r, c]
                        weights += abs(share)
            # A pixel that only just touches a known one has rounding for a weight.
            if weights <= 1e-9 * area:
                continue
            before = known[i, j]
            after = min(before + weights / area, 1.0)
            if after > 1 - 1e-9:
                after = 1.0
            mean = total / weights
            out[i, j] = mean if before == 0 else (before * out[i, j] + (after - before) * mean) / after
            known[i, j] = after


@njit(nogil=True, cache=True)
def _corner(rows, cols, i, j, k):  # type: ignore[no-untyped-def]  # numba infers them
    """Corner k of a pixel, clockwise from the upper left."""
    a = i + (1 if k >= 2 else 0)
    b = j + (1 if k == 1 or k == 2 else 0)
    return rows[a, b], cols[a, b]


@njit(nogil=True, cache=True)
def _sweep(shares, r, c, r2, c2):  # type: ignore[no-untyped-def]  # numba infers them
    """Add the area to the right of an edge, cell by cell, as differences along each row.

    Summed up from the left, the cells of a closed outline hold the share that lies inside; the sign is its sense of
    rotation.
    """
    sign = 1.0
    if r > r2:
        r, c, r2, c2 = r2, c2, r, c
        sign = -1.0
    if r == r2:
        return
    slope = (c2 - c) / (r2 - r)
    for row in range(math.floor(r), math.ceil(r2)):
        upper, lower = max(r, row), min(r2, row + 1)
        if lower <= upper:
            continue
        enter, leave = c + (upper - r) * slope, c + (lower - r) * slope
        left, right = min(enter, leave), max(enter, leave)
        rise = lower - upper
        first, last = math.floor(left), max(math.ceil(right), math.floor(left) + 1)
        for col in range(first, last):
            # The piece of the edge in this cell: its height, and how far right its middle lies.
            low, high = max(left, col), min(right, col + 1)
            height = sign * (rise if right - left < 1e-12 else rise * (high - low) / (right - left))
            middle = (low + high) / 2 - col
            shares[row, col] += height * (1 - middle)
            shares[row, min(col + 1, shares.shape[1] - 1)] += height * middle
