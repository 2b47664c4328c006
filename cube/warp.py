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
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as PixelWindow

if TYPE_CHECKING:
    import numpy.typing as npt
    from odc.geo.geobox import GeoBox

CELL_PX = 32
"""Between grids of two CRSs, coordinates are exact on a lattice of so many pixels, counted from the origin of the
CRS, and linear in between. Over 320 m two UTM zones bend by 2 mm against each other, 0.0002 pixel."""

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
) -> npt.NDArray[Any]:
    """One layer of an open file on a pixel grid, dims ``(y, x)``.

    Args:
        source: An open file.
        layer: From 1.
        nodata: Void of the file where the file itself does not say.
        geobox: Grid that comes out, north up.
        resampling: GDAL's name of the method.
        dtype: Of what comes out; integers are rounded half up and clipped.
        fill: Void of what comes out.

    Raises:
        rasterio.errors.RasterioError: The file cannot be read.
        UnusableFile: The file has no such layer, or no place on the earth.
    """
    if layer > source.count:
        raise UnusableFile(f"it has {source.count} layers, wanted layer {layer}")
    if source.crs is None:
        raise UnusableFile("it has no coordinate reference system")
    void = source.nodatavals[layer - 1]
    void = nodata if void is None else void
    same_crs = _same_crs(source.crs.to_wkt(), str(geobox.crs))
    same_grid = same_crs and _same_grid(source, geobox)
    north_up = source.transform.is_rectilinear and source.transform.a > 0 and source.transform.e < 0
    if not north_up or (resampling not in ("nearest", "bilinear") and not same_grid):
        return _warp(source, layer, void, geobox, resampling, dtype, fill)
    u, v = _source_pixels(source, geobox, same_crs)
    out = np.full(geobox.shape, fill, dtype)
    window = _needed(u, v, source.shape, margin=int(resampling == "bilinear" and not same_grid))
    if window is None:
        return out
    pixels = source.read(layer, window=window)
    if same_grid:
        _copy(pixels, void, u, v, window, out)
    elif resampling == "nearest":
        _nearest(pixels, void, u, v, window, source.shape, out)
    else:
        valid = _valid(pixels, void)
        low, high = (0.0, 0.0) if out.dtype.kind == "f" else (np.iinfo(out.dtype).min, np.iinfo(out.dtype).max)
        _bilinear(pixels, valid, u, v, window.col_off, window.row_off, *source.shape, float(low), float(high), out)
    return out


@lru_cache(maxsize=64)
def _same_crs(a: str, b: str) -> bool:
    return bool(rasterio.crs.CRS.from_user_input(a) == rasterio.crs.CRS.from_user_input(b))


def _same_grid(source: rasterio.DatasetReader, geobox: GeoBox) -> bool:
    """Same pixel size, and corners on corners, to a thousandth of a pixel."""
    a, b = source.transform, geobox.transform
    if not (math.isclose(a.a, b.a, rel_tol=1e-9) and math.isclose(a.e, b.e, rel_tol=1e-9)):
        return False
    dx, dy = (b.c - a.c) / a.a, (b.f - a.f) / a.e
    return abs(dx - round(dx)) < 1e-3 and abs(dy - round(dy)) < 1e-3


def _source_pixels(
    source: rasterio.DatasetReader, geobox: GeoBox, same_crs: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Column and row in the file of every pixel centre, (y, x); views without memory of their own within one CRS."""
    if same_crs:
        t = geobox.transform
        x = t.c + (np.arange(geobox.shape[1]) + 0.5) * t.a
        y = t.f + (np.arange(geobox.shape[0]) + 0.5) * t.e
        u, v = np.broadcast_arrays(_along(source, 0, x)[None, :], _along(source, 1, y)[:, None])
        return u, v
    x, y = _places(geobox, source.crs.to_wkt())
    return _along(source, 0, x), _along(source, 1, y)


def _along(source: rasterio.DatasetReader, axis: int, place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Pixel coordinates of places along one axis; what is within rounding of an edge lies on it."""
    t = source.transform
    step, origin = (t.a, t.c) if axis == 0 else (t.e, t.f)
    pixel = (place - origin) / step
    near = np.rint(pixel)
    return np.where(np.abs(pixel - near) < EDGE_PX, near, pixel)


@lru_cache(maxsize=2)
def _places(geobox: GeoBox, crs: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Easting and northing in another CRS of every pixel centre, each (y, x).

    Kept for the last two windows: all dates and bands of a scene's zone share them.
    """
    from pyproj import Transformer

    t = geobox.transform
    rows, row_at = _lattice(t.f, t.e, geobox.shape[0])
    cols, col_at = _lattice(t.c, t.a, geobox.shape[1])
    change = Transformer.from_crs(str(geobox.crs), crs, always_xy=True)
    nodes = change.transform(*np.meshgrid(cols, rows), errcheck=True)
    return _between(nodes[0], row_at, col_at), _between(nodes[1], row_at, col_at)


def _lattice(origin: float, step: float, size: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Coordinates of the lattice lines around one axis of a grid, and where each pixel centre lies among them."""
    cell = CELL_PX * step
    place = (origin + (np.arange(size) + 0.5) * step) / cell
    first = math.floor(place[0])
    lines = np.arange(first, math.floor(place[-1]) + 2) * cell
    return lines, place - first


@numba.njit(nogil=True, cache=True)
def _between(
    nodes: npt.NDArray[np.float64], row_at: npt.NDArray[np.float64], col_at: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Bilinear between the nodes of a lattice."""
    out = np.empty((row_at.size, col_at.size))
    for i in range(row_at.size):
        r = int(row_at[i])
        fr = row_at[i] - r
        for j in range(col_at.size):
            c = int(col_at[j])
            fc = col_at[j] - c
            top = nodes[r, c] + fc * (nodes[r, c + 1] - nodes[r, c])
            bottom = nodes[r + 1, c] + fc * (nodes[r + 1, c + 1] - nodes[r + 1, c])
            out[i, j] = top + fr * (bottom - top)
    return out


def _needed(
    u: npt.NDArray[np.float64], v: npt.NDArray[np.float64], shape: tuple[int, int], margin: int
) -> PixelWindow | None:
    """The part of the file that the pixels need, or None."""
    # Extremes of a view come from the axis it varies along.
    u, v = (a[:1] if a.strides[0] == 0 else a[:, :1] if a.strides[1] == 0 else a for a in (u, v))
    left, right = max(math.floor(u.min()) - margin, 0), min(math.floor(u.max()) + margin + 1, shape[1])
    top, bottom = max(math.floor(v.min()) - margin, 0), min(math.floor(v.max()) + margin + 1, shape[0])
    if left >= right or top >= bottom:
        return None
    return PixelWindow(left, top, right - left, bottom - top)


def _valid(pixels: npt.NDArray[Any], void: float | None) -> npt.NDArray[np.bool_]:
    """True where a pixel holds a value."""
    valid = ~np.isnan(pixels) if pixels.dtype.kind == "f" else np.ones(pixels.shape, bool)
    if void is not None and not math.isnan(void):
        valid &= pixels != void
    return valid


def _copy(
    pixels: npt.NDArray[Any],
    void: float | None,
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    window: PixelWindow,
    out: npt.NDArray[Any],
) -> None:
    """Paste pixels of an identical grid."""
    left, top = window.col_off - math.floor(u[0, 0]), window.row_off - math.floor(v[0, 0])
    part = out[top : top + window.height, left : left + window.width]
    np.copyto(part, pixels, where=_valid(pixels, void), casting="unsafe")


def _nearest(
    pixels: npt.NDArray[Any],
    void: float | None,
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    window: PixelWindow,
    shape: tuple[int, int],
    out: npt.NDArray[Any],
) -> None:
    """The pixel of the file in which each centre lies."""
    if u.strides[0] == 0 and v.strides[1] == 0:  # one CRS: whole rows and columns
        cols, rows = np.floor(u[0]).astype(np.intp), np.floor(v[:, 0]).astype(np.intp)
        x, y = np.flatnonzero((cols >= 0) & (cols < shape[1])), np.flatnonzero((rows >= 0) & (rows < shape[0]))
        found = pixels.take(rows[y] - window.row_off, 0).take(cols[x] - window.col_off, 1)
        part = out[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
        np.copyto(part, found, where=_valid(found, void), casting="unsafe")
        return
    inside = (u >= 0) & (u < shape[1]) & (v >= 0) & (v < shape[0])
    found = pixels[v[inside].astype(np.intp) - window.row_off, u[inside].astype(np.intp) - window.col_off]
    out[inside] = np.where(_valid(found, void), found, out[inside])


@numba.njit(nogil=True, cache=True)
def _bilinear(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    col0: int,
    row0: int,
    height: int,
    width: int,
    low: float,
    high: float,
    out: npt.NDArray[Any],
) -> None:
    """Weigh the four pixels around each centre; a centre in a void pixel stays void, void neighbours have no weight.

    ``low == high`` means floats come out, neither rounded nor clipped.
    """
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            x, y = u[i, j], v[i, j]
            if not (0 <= x < width and 0 <= y < height):
                continue
            if not valid[int(y) - row0, int(x) - col0]:
                continue
            left, top = int(math.floor(x - 0.5)), int(math.floor(y - 0.5))
            fx, fy = x - 0.5 - left, y - 0.5 - top
            total = 0.0
            weights = 0.0
            for dy in range(2):
                r = top + dy
                if r < 0 or r >= height:
                    continue
                wy = fy if dy else 1.0 - fy
                for dx in range(2):
                    c = left + dx
                    if c < 0 or c >= width:
                        continue
                    w = wy * (fx if dx else 1.0 - fx)
                    if w > 0.0 and valid[r - row0, c - col0]:
                        total += w * pixels[r - row0, c - col0]
                        weights += w
            value = total / weights
            if low != high:
                value = min(max(math.floor(value + 0.5), low), high)
            out[i, j] = value


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
    ) as warped:
        pixels = warped.read(layer, masked=void is not None)
        hidden = np.ma.getmaskarray(pixels) if void is not None else warped.read(warped.count) == 0
    out = np.asarray(pixels.data).astype(dtype)
    if out.dtype.kind == "f":
        hidden = hidden | np.isnan(out)
    out[hidden] = fill
    return out
