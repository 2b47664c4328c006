"""One file onto one pixel grid, once, and the same wherever the window lies that asks.

GDAL's warper gives a pixel other values when the window around it changes: it interpolates coordinates along the
scanline it happens to warp (up to 1/8 pixel off; 4 % of nearest pixels differ between a 2048 and a 256 window across
a zone border), and guesses the scale of its filter from the window (a bilinear warp then blurs). So nearest and
bilinear are done here, by GDAL's rules for void, edges and rounding, with coordinates that depend on the place alone;
pixels between identical grids are copied. The methods that are rarely asked for go to GDAL.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as PixelWindow

from cube.gcps import Placement, place

if TYPE_CHECKING:
    import numpy.typing as npt
    from odc.geo.geobox import GeoBox

CELL_PX, CELL_M = 32, 320.0
"""Between grids of two CRSs, coordinates are exact on a lattice of so many pixels, of fewer where pixels are so coarse
that those would be more metres, counted from the origin of the CRS, and linear in between. Over 320 m two UTM zones
bend by 2 mm against each other, 0.0002 pixel of 10 m; over 8 km it would be 1 m."""

HALF = 0.5 + 1e-7
"""Added before rounding down: half goes up, also where the arithmetic of thirds has left it a trifle below half."""

EDGE_PX = 1e-6
"""Coordinates nearer than this to a pixel's edge lie on it; then the pixel to the right and below is taken, as GDAL
does. Large enough for the rounding of coordinates of 10,000,000 m, far below what could be seen."""


class UnusableFile(ValueError):
    """The file opens and is not what it should be; ``cube.load`` makes a ReadError of it."""


def read_onto(
    source: rasterio.DatasetReader,
    layer: int,
    nodata: float | None,
    geobox: GeoBox,
    *,
    resampling: str,
    dtype: str,
    fill: float | int,
    amplitude: bool = False,
) -> npt.NDArray[Any]:
    """One layer of an open file on a pixel grid, dims ``(y, x)``.

    A file without a grid is placed by its ground control points (see ``cube.gcps``).

    Args:
        source: An open file.
        layer: From 1.
        nodata: Void of the file where the file itself does not say.
        geobox: Grid that comes out, north up.
        resampling: GDAL's name of the method.
        dtype: Of what comes out; integers are rounded half up and clipped.
        fill: Void of what comes out.
        amplitude: The file holds amplitudes and power is wanted: they are squared before anything is interpolated.

    Raises:
        rasterio.errors.RasterioError: The file cannot be read.
        UnusableFile: The file has no such layer, or no place on the earth.
    """
    if layer > source.count:
        raise UnusableFile(f"it has {source.count} layers, wanted layer {layer}")
    if source.gcps[0] and source.transform.is_identity:
        return _by_points(source, layer, nodata, geobox, resampling, dtype, fill, amplitude)
    if amplitude:
        raise UnusableFile(
            "it has a grid, and amplitudes are known only in files with ground control points: somebody has warped it; "
            "describe it as a collection of your own (kind: sar, as linear power), or take the original file"
        )
    if source.crs is None:
        raise UnusableFile("it has no coordinate reference system")
    void = source.nodatavals[layer - 1]
    void = nodata if void is None else void
    same_crs = _same_crs(source.crs.to_wkt(), str(geobox.crs))
    same_grid = same_crs and _same_grid(source, geobox)
    north_up = source.transform.is_rectilinear and source.transform.a > 0 and source.transform.e < 0
    if not north_up or (resampling not in ("nearest", "bilinear") and not same_grid):
        return _warp(source, layer, void, geobox, resampling, dtype, fill)
    out = np.full(geobox.shape, fill, dtype)
    if same_grid:
        _copy(source, layer, void, geobox, out)
        return out
    low, high = (0.0, 0.0) if out.dtype.kind == "f" else (np.iinfo(out.dtype).min, np.iinfo(out.dtype).max)
    bilinear = resampling == "bilinear"
    s, t = source.transform, geobox.transform
    if same_crs:
        u, v = _along(s.c, s.a, t.c, t.a, geobox.shape[1]), _along(s.f, s.e, t.f, t.e, geobox.shape[0])
        window = _window(u[0], u[-1], v[0], v[-1], source.shape, margin=int(bilinear))
    else:
        x, y, row_at, col_at = _lattice(geobox, source.crs.to_wkt())
        u, v = (x - s.c) / s.a, (y - s.f) / s.e
        window = _window(*_span(u, row_at, col_at), *_span(v, row_at, col_at), source.shape, margin=int(bilinear))
    if window is None:
        return out
    pixels = source.read(layer, window=window)
    valid = _valid(pixels, void)
    u -= window.col_off
    v -= window.row_off
    file = (-window.col_off, -window.row_off, source.width - window.col_off, source.height - window.row_off)
    if same_crs and bilinear:
        _bilinear_straight(pixels, valid, np.atleast_1d(valid.all(axis=1)), u, v, *file, float(low), float(high), out)
    elif same_crs:
        _nearest_straight(pixels, valid, u, v, *file, out)
    elif bilinear:
        _bilinear_bent(pixels, valid, u, v, row_at, col_at, *file, float(low), float(high), out)
    else:
        _nearest_bent(pixels, valid, u, v, row_at, col_at, *file, out)
    return out


@lru_cache(maxsize=64)
def _same_crs(a: str, b: str) -> bool:
    same: bool = CRS.from_user_input(a) == CRS.from_user_input(b)
    return same


def _same_grid(source: rasterio.DatasetReader, geobox: GeoBox) -> bool:
    """Same pixel size, and corners on corners, to a thousandth of a pixel."""
    a, b = source.transform, geobox.transform
    if not (math.isclose(a.a, b.a, rel_tol=1e-9) and math.isclose(a.e, b.e, rel_tol=1e-9)):
        return False
    dx, dy = (b.c - a.c) / a.a, (b.f - a.f) / a.e
    return bool(abs(dx - round(dx)) < 1e-3 and abs(dy - round(dy)) < 1e-3)


def _along(file_origin: float, file_step: float, origin: float, step: float, size: int) -> npt.NDArray[np.float64]:
    """Position in the file of every pixel centre along one axis, in pixels of the file."""
    pixel = (origin + (np.arange(size) + 0.5) * step - file_origin) / file_step
    near = np.rint(pixel)
    return np.where(np.abs(pixel - near) < EDGE_PX, near, pixel)


@lru_cache(maxsize=32)
def _lattice(
    geobox: GeoBox, crs: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Easting and northing in another CRS on the lattice around a grid, and where its rows and columns lie on it.

    Kept for the last windows: all dates and bands of one zone share it.
    """
    from pyproj import Transformer

    t = geobox.transform
    rows, row_at = _lines(t.f, t.e, geobox.shape[0])
    cols, col_at = _lines(t.c, t.a, geobox.shape[1])
    change = Transformer.from_crs(str(geobox.crs), crs, always_xy=True)
    x, y = change.transform(*np.meshgrid(cols, rows), errcheck=True)
    return x, y, row_at, col_at


def _lines(origin: float, step: float, size: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Coordinates of the lattice lines around one axis of a grid, and where each pixel centre lies among them."""
    cell = max(1, min(CELL_PX, math.floor(CELL_M / abs(step)))) * step
    place = (origin + (np.arange(size) + 0.5) * step) / cell
    first = math.floor(place[0])
    return np.arange(first, math.floor(place[-1]) + 2) * cell, place - first


@numba.njit(nogil=True, cache=True, inline="always")
def _at(nodes: npt.NDArray[np.float64], row: float, col: float) -> float:
    """Linear between the nodes of a lattice; what is within rounding of a pixel's edge lies on it."""
    r, c = int(row), int(col)
    fr, fc = row - r, col - c
    top = nodes[r, c] + fc * (nodes[r, c + 1] - nodes[r, c])
    bottom = nodes[r + 1, c] + fc * (nodes[r + 1, c + 1] - nodes[r + 1, c])
    pixel: float = top + fr * (bottom - top)
    near: float = np.rint(pixel)
    return near if abs(pixel - near) < EDGE_PX else pixel


def _span(
    nodes: npt.NDArray[np.float64], row_at: npt.NDArray[np.float64], col_at: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Smallest and largest value between the nodes of a lattice, on the pixels alone."""
    # What is linear between lines has its extremes on the lines and at the ends.
    rows = [row_at[0], *range(math.ceil(row_at[0]), math.ceil(row_at[-1])), row_at[-1]]
    cols = [col_at[0], *range(math.ceil(col_at[0]), math.ceil(col_at[-1])), col_at[-1]]
    values = [_at(nodes, float(row), float(col)) for row in rows for col in cols]
    return min(values), max(values)


def _window(
    left: float, right: float, top: float, bottom: float, shape: tuple[int, int], margin: int
) -> PixelWindow | None:
    """The part of the file between two columns and rows, or None."""
    x0, x1 = max(math.floor(left) - margin, 0), min(math.floor(right) + margin + 1, shape[1])
    y0, y1 = max(math.floor(top) - margin, 0), min(math.floor(bottom) + margin + 1, shape[0])
    return PixelWindow(x0, y0, x1 - x0, y1 - y0) if x0 < x1 and y0 < y1 else None


def _valid(pixels: npt.NDArray[Any], void: float | None) -> npt.NDArray[np.bool_]:
    """True where a pixel holds a value."""
    valid = ~np.isnan(pixels) if pixels.dtype.kind == "f" else np.ones(pixels.shape, bool)
    if void is not None and not math.isnan(void):
        valid &= pixels != void
    return valid


def _copy(
    source: rasterio.DatasetReader, layer: int, void: float | None, geobox: GeoBox, out: npt.NDArray[Any]
) -> None:
    """Paste pixels of an identical grid."""
    a, b = source.transform, geobox.transform
    x, y = round((b.c - a.c) / a.a), round((b.f - a.f) / a.e)
    x0, x1 = max(x, 0), min(x + out.shape[1], source.width)
    y0, y1 = max(y, 0), min(y + out.shape[0], source.height)
    if x0 >= x1 or y0 >= y1:
        return
    pixels = source.read(layer, window=PixelWindow(x0, y0, x1 - x0, y1 - y0))
    part = out[y0 - y : y1 - y, x0 - x : x1 - x]
    np.copyto(part, pixels, where=_valid(pixels, void), casting="unsafe")


# The kernels share their arguments: pixels and their validity on a window of the file; columns u and rows v in pixels
# of that window (straight: of each pixel along its axis; bent: on the lattice); first and last column and row of the
# file, in the same; the range of whole numbers that come out (none when low == high: floats).


@numba.njit(nogil=True, cache=True)
def _nearest_straight(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    left: int,
    top: int,
    right: int,
    bottom: int,
    out: npt.NDArray[Any],
) -> None:
    """The pixel in which each centre lies."""
    first, last = len(u), -1
    cols = np.empty(len(u), np.int64)
    for j in range(len(u)):
        if left <= u[j] < right:
            cols[j] = int(u[j])
            first, last = min(first, j), j
    for i in range(len(v)):
        if not top <= v[i] < bottom:
            continue
        row = int(v[i])
        for j in range(first, last + 1):
            if valid[row, cols[j]]:
                out[i, j] = pixels[row, cols[j]]


@numba.njit(nogil=True, cache=True)
def _nearest_bent(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    row_at: npt.NDArray[np.float64],
    col_at: npt.NDArray[np.float64],
    left: int,
    top: int,
    right: int,
    bottom: int,
    out: npt.NDArray[Any],
) -> None:
    """The pixel in which each centre lies."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            x, y = _at(u, row_at[i], col_at[j]), _at(v, row_at[i], col_at[j])
            if left <= x < right and top <= y < bottom and valid[int(y), int(x)]:
                out[i, j] = pixels[int(y), int(x)]


@numba.njit(nogil=True, cache=True)
def _weigh(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    x: float,
    y: float,
    left: int,
    top: int,
    right: int,
    bottom: int,
) -> float:
    """Mean of the four pixels around a place, by nearness; what is void or outside has no weight."""
    c0, r0 = math.floor(x - 0.5), math.floor(y - 0.5)
    fx, fy = x - 0.5 - c0, y - 0.5 - r0
    total = 0.0
    weights = 0.0
    for r in range(max(r0, top), min(r0 + 2, bottom)):
        wy = fy if r > r0 else 1.0 - fy
        for c in range(max(c0, left), min(c0 + 2, right)):
            w = wy * (fx if c > c0 else 1.0 - fx)
            if w > 0.0 and valid[r, c]:
                total += w * pixels[r, c]
                weights += w
    return total / weights


@numba.njit(nogil=True, cache=True)
def _bilinear_straight(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    full: npt.NDArray[np.bool_],
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    left: int,
    top: int,
    right: int,
    bottom: int,
    low: float,
    high: float,
    out: npt.NDArray[Any],
) -> None:
    """A centre in a void pixel stays void. Rows of the file that are ``full`` (without void) are weighed at once."""
    width = len(u)
    first, last = width, -1
    near, far = np.empty(width, np.int64), np.empty(width, np.int64)
    weight = np.empty(width)
    for j in range(width):
        if left <= u[j] < right:
            col = math.floor(u[j] - 0.5)
            weight[j] = u[j] - 0.5 - col
            # At the edge of the file the one column there is counts for both.
            near[j], far[j] = max(col, left), min(col + 1, right - 1)
            first, last = min(first, j), j
    if first > last:
        return
    start, stop = near[first], far[last] + 1
    mixed = np.empty(pixels.shape[1])
    for i in range(len(v)):
        if not top <= v[i] < bottom:
            continue
        row = math.floor(v[i] - 0.5)
        fy = v[i] - 0.5 - row
        above, below = max(row, top), min(row + 1, bottom - 1)
        for c in range(start, stop):
            mixed[c] = (1.0 - fy) * pixels[above, c] + fy * pixels[below, c]
        if full[above] and full[below]:
            if low == high:
                for j in range(first, last + 1):
                    out[i, j] = (1.0 - weight[j]) * mixed[near[j]] + weight[j] * mixed[far[j]]
            else:
                for j in range(first, last + 1):
                    value = (1.0 - weight[j]) * mixed[near[j]] + weight[j] * mixed[far[j]]
                    out[i, j] = min(max(math.floor(value + HALF), low), high)
            continue
        for j in range(first, last + 1):
            a, b = near[j], far[j]
            if valid[above, a] and valid[above, b] and valid[below, a] and valid[below, b]:
                value = (1.0 - weight[j]) * mixed[a] + weight[j] * mixed[b]
            elif valid[int(v[i]), int(u[j])]:
                value = _weigh(pixels, valid, u[j], v[i], left, top, right, bottom)
            else:
                continue
            out[i, j] = value if low == high else min(max(math.floor(value + HALF), low), high)


@numba.njit(nogil=True, cache=True)
def _bilinear_bent(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    row_at: npt.NDArray[np.float64],
    col_at: npt.NDArray[np.float64],
    left: int,
    top: int,
    right: int,
    bottom: int,
    low: float,
    high: float,
    out: npt.NDArray[Any],
) -> None:
    """A centre in a void pixel stays void."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            x, y = _at(u, row_at[i], col_at[j]), _at(v, row_at[i], col_at[j])
            if left <= x < right and top <= y < bottom and valid[int(y), int(x)]:
                value = _weigh(pixels, valid, x, y, left, top, right, bottom)
                out[i, j] = value if low == high else min(max(math.floor(value + HALF), low), high)


def placement(source: rasterio.DatasetReader) -> Placement:
    """How a file without a grid is placed by its ground control points.

    Raises:
        UnusableFile: The points do not place it, or their coordinates are in no known system.
    """
    points, crs = source.gcps
    if crs is None:
        raise UnusableFile("its ground control points have no coordinate reference system")
    try:
        return place(tuple((point.col, point.row, point.x, point.y) for point in points))
    except ValueError as error:
        raise UnusableFile(str(error)) from error


def _by_points(
    source: rasterio.DatasetReader,
    layer: int,
    nodata: float | None,
    geobox: GeoBox,
    resampling: str,
    dtype: str,
    fill: float | int,
    amplitude: bool,
) -> npt.NDArray[Any]:
    """A layer placed by control points: nearest, bilinear, or the average of a few bilinear values in each pixel."""
    if resampling not in ("nearest", "bilinear", "average"):
        raise UnusableFile(f"it is placed by ground control points; '{resampling}' is not for it, take 'bilinear'")
    if amplitude and np.dtype(dtype).kind != "f":
        raise UnusableFile(f"its power does not fit into {dtype}; wanted float32")
    placed = placement(source)
    void = source.nodatavals[layer - 1]
    void = nodata if void is None else void
    if resampling == "average":
        ratio = max(1, round(abs(geobox.transform.a) / _ground_px(placed, source.gcps[1].to_wkt(), str(geobox.crs))))
        fine = geobox if ratio == 1 else geobox.zoom_to((geobox.shape[0] * ratio, geobox.shape[1] * ratio))
        values = _by_points(source, layer, nodata, fine, "bilinear", "float32", math.nan, amplitude)
        return _block_means(values, ratio, np.full(geobox.shape, fill, dtype))
    out = np.full(geobox.shape, fill, dtype)
    u, v, row_at, col_at = _placed(geobox, placed, source.gcps[1].to_wkt())
    bilinear = resampling == "bilinear"
    window = _window(*_span(u, row_at, col_at), *_span(v, row_at, col_at), source.shape, margin=int(bilinear))
    if window is None:
        return out
    pixels = source.read(layer, window=window)
    valid = _valid(pixels, void)
    if amplitude:
        pixels = np.square(pixels.astype(np.float32))
    u, v = u - window.col_off, v - window.row_off
    file = (-window.col_off, -window.row_off, source.width - window.col_off, source.height - window.row_off)
    if bilinear:
        low, high = (0.0, 0.0) if out.dtype.kind == "f" else (np.iinfo(out.dtype).min, np.iinfo(out.dtype).max)
        _bilinear_bent(pixels, valid, u, v, row_at, col_at, *file, float(low), float(high), out)
    else:
        _nearest_bent(pixels, valid, u, v, row_at, col_at, *file, out)
    return out


def _placed(geobox: GeoBox, placed: Placement, crs: str) -> tuple[npt.NDArray[np.float64], ...]:
    """Column and row of a file with control points on the lattice around a grid."""
    x, y, row_at, col_at = _lattice(geobox, crs)
    return *placed.pixels(x, y), row_at, col_at


def _ground_px(placed: Placement, crs: str, target: str) -> float:
    """Side of a pixel amid the control points, in units of another CRS."""
    from pyproj import Transformer

    x = placed.middle[0] + np.array([0.0, 1e-3 * placed.scale[0]])
    y = placed.middle[1] + np.array([0.0, 1e-3 * placed.scale[1]])
    u, v = placed.pixels(x, y)
    east, north = Transformer.from_crs(crs, target, always_xy=True).transform(x, y)
    return math.hypot(east[1] - east[0], north[1] - north[0]) / math.hypot(u[1] - u[0], v[1] - v[0])


def _block_means(values: npt.NDArray[np.float32], ratio: int, out: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Means of the values that are not NaN in each block, into ``out``; where there are none it stays as it is."""
    blocks = values.reshape(out.shape[0], ratio, out.shape[1], ratio)
    known = ~np.isnan(blocks)
    number = known.sum(axis=(1, 3))
    mean = np.where(known, blocks, 0).sum(axis=(1, 3), dtype=np.float64) / np.maximum(number, 1)
    if out.dtype.kind != "f":
        info = np.iinfo(out.dtype)
        mean = np.clip(np.floor(mean + HALF), info.min, info.max)
    np.copyto(out, mean, where=number > 0, casting="unsafe")
    return out


def _warp(
    source: rasterio.DatasetReader,
    layer: int,
    void: float | None,
    geobox: GeoBox,
    resampling: str,
    dtype: str,
    fill: float | int,
) -> npt.NDArray[Any]:
    """What GDAL makes of it."""
    with WarpedVRT(
        source,
        crs=str(geobox.crs),
        transform=geobox.transform,
        height=geobox.shape[0],
        width=geobox.shape[1],
        resampling=Resampling[resampling],
        src_nodata=void,
        add_alpha=void is None,
        tolerance=0.01,
        **({"XSCALE": 1, "YSCALE": 1} if resampling == "cubic" else {}),
    ) as warped:
        pixels = warped.read(layer, masked=void is not None)
        hidden = np.ma.getmaskarray(pixels) if void is not None else warped.read(warped.count) == 0
    out = np.asarray(pixels.data).astype(dtype)
    if out.dtype.kind == "f":
        hidden = hidden | np.isnan(out)
    out[hidden] = fill
    return out
