"""The pixel loops of rasterizing, compiled by numba and free of the GIL.

The rules are those of ``rasterio.features.rasterize`` (GDAL), and tests hold the masks equal. What differs is where the
arithmetic happens: in pixels counted from the zone's origin and not from the window's corner, so that a pixel never
depends on the window it was drawn in. In GDAL it does, where a line passes within rounding of a pixel's centre. And
"touched" means that they share some area, where GDAL now and then burns a pixel that a line only meets at a corner.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

ALIGNED_PX = 1e-4
"""An upright or level edge closer than this to a pixel border runs along it and touches nothing further: else every
polygon drawn on pixel borders would grow by one pixel on two sides. Found by comparison with GDAL 3.10."""

CORNER_PX = 1e-6
"""An edge that passes a corner this closely passes through it. Well above the rounding of coordinates of 10,000 km."""

STEEP_PX = 0.01
"""An edge that drifts by less than this counts as upright (or level); found by comparison with GDAL 3.10."""


@njit(nogil=True, cache=True)
def burn_polygons(
    out: NDArray[np.unsignedinteger],
    codes: NDArray[np.unsignedinteger],
    polygons: NDArray[np.int64],
    rings: NDArray[np.int64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    row0: int,
    col0: int,
    all_touched: bool,
) -> None:
    """Burn polygons into ``out`` in their order, the later ones on top.

    Args:
        out: (y, x), changed in place; its upper-left pixel is (``row0``, ``col0``) of the zone.
        codes: One for each polygon.
        polygons: Polygon i has the rings ``polygons[i]`` to ``polygons[i + 1]``, in any sense of rotation.
        rings: Ring j has the vertices ``rings[j]`` to ``rings[j + 1]``, the first one repeated at its end.
        x, y: Vertices in pixels of the zone, y downwards.
        row0, col0: Place of ``out`` in the zone.
        all_touched: Burn also what the edges touch, not only pixels whose centre lies inside.
    """
    for i in range(len(codes)):
        _fill(out, codes[i], polygons[i], polygons[i + 1], rings, x, y, row0, col0)
        if all_touched:
            for ring in range(polygons[i], polygons[i + 1]):
                for k in range(rings[ring], rings[ring + 1] - 1):
                    _trace(out, codes[i], x[k], y[k], x[k + 1], y[k + 1], row0, col0)


@njit(nogil=True, cache=True)
def _fill(out, code, first, last, rings, x, y, row0, col0):  # type: ignore[no-untyped-def]  # numba infers them
    """Burn the pixels whose centre lies inside, by the even-odd rule.

    A centre on the shell belongs to the polygon on its left and its level edges and not on its right ones; one on
    the edge of a hole belongs to what lies right of it or below.
    """
    height = out.shape[0]
    start, stop = rings[first], rings[last]
    top = max(math.floor(y[start:stop].min()), row0)
    bottom = min(math.floor(y[start:stop].max()) + 1, row0 + height)
    if top >= bottom:
        return

    # Where edges cross the centre line of each row, gathered row by row: first count, then place, then sort.
    n = np.zeros(bottom - top + 1, np.int64)
    for ring in range(first, last):
        for k in range(rings[ring], rings[ring + 1] - 1):
            a, b = min(y[k], y[k + 1]), max(y[k], y[k + 1])
            for row in range(max(math.ceil(a - 0.5), top), min(math.ceil(b - 0.5), bottom)):
                n[row - top + 1] += 1
            row = math.floor(a)
            if ring == first and a == b == row + 0.5 and top <= row < bottom:
                _span(out, code, row - row0, min(x[k], x[k + 1]) - col0, max(x[k], x[k + 1]) - col0)
    begin = np.cumsum(n)
    crossings = np.empty(begin[-1], np.float64)
    place = begin[:-1].copy()
    for ring in range(first, last):
        for k in range(rings[ring], rings[ring + 1] - 1):
            x1, y1, x2, y2 = x[k], y[k], x[k + 1], y[k + 1]
            if y1 > y2:
                x1, y1, x2, y2 = x2, y2, x1, y1
            for row in range(max(math.ceil(y1 - 0.5), top), min(math.ceil(y2 - 0.5), bottom)):
                # The order of operations is GDAL's: it decides which pixel gets a centre that lies on the edge.
                crossings[place[row - top]] = (row + 0.5 - y1) * (x2 - x1) / (y2 - y1) + x1
                place[row - top] += 1

    for row in range(top, bottom):
        cut = np.sort(crossings[begin[row - top] : begin[row - top + 1]])
        for k in range(0, len(cut) - 1, 2):
            _span(out, code, row - row0, cut[k] - col0, cut[k + 1] - col0)


@njit(nogil=True, cache=True)
def _span(out, code, row, left, right):  # type: ignore[no-untyped-def]  # numba infers them
    """Burn the pixels of a row whose centres lie in ``[left, right)``."""
    for col in range(max(math.floor(left + 0.5), 0), min(math.floor(right + 0.5), out.shape[1])):
        out[row, col] = code


@njit(nogil=True, cache=True)
def _trace(out, code, x1, y1, x2, y2, row0, col0):  # type: ignore[no-untyped-def]  # numba infers them
    """Burn every pixel that one edge passes through."""
    height, width = out.shape
    if max(y1, y2) < row0 or min(y1, y2) > row0 + height or max(x1, x2) < col0 or min(x1, x2) > col0 + width:
        return
    if y1 > y2:
        x1, y1, x2, y2 = x2, y2, x1, y1
    left, right = min(x1, x2), max(x1, x2)
    upright = math.floor(left) == math.floor(right) or right - left < STEEP_PX
    level = math.floor(y1) == math.floor(y2) or y2 - y1 < STEEP_PX
    if upright and _aligned(left) and _aligned(right):
        return
    if level and not upright and _aligned(y1) and _aligned(y2):
        return
    if upright:
        # A tip that only just reaches into the next pixel does not count, here and below.
        rows, cols = (math.floor(y1), math.floor(y2 - ALIGNED_PX)), (math.floor(right), math.floor(right))
        _block(out, code, rows, cols, row0, col0)
    elif level:
        row = math.floor(y1 if x1 < x2 else y2)
        _block(out, code, (row, row), (math.floor(left), math.floor(right - ALIGNED_PX)), row0, col0)
    else:
        slope = (x2 - x1) / (y2 - y1)
        for row in range(max(math.floor(y1), row0), min(math.ceil(y2), row0 + height)):
            enter = x1 + (max(y1, row) - y1) * slope
            leave = x2 if row + 1 >= y2 else x1 + (row + 1 - y1) * slope
            # Through a corner it touches two pixels, not four; without the tolerance rounding would pick at random.
            cols = (math.floor(min(enter, leave) + CORNER_PX), math.ceil(max(enter, leave) - CORNER_PX) - 1)
            _block(out, code, (row, row), cols, row0, col0)


@njit(nogil=True, cache=True)
def _aligned(v):  # type: ignore[no-untyped-def]  # numba infers it
    return abs(v - round(v)) < ALIGNED_PX


@njit(nogil=True, cache=True)
def _block(out, code, rows, cols, row0, col0):  # type: ignore[no-untyped-def]  # numba infers them
    """Burn rows and columns from the first to the last, both counted in the zone and both included."""
    for row in range(max(rows[0] - row0, 0), min(rows[1] - row0, out.shape[0] - 1) + 1):
        for col in range(max(cols[0] - col0, 0), min(cols[1] - col0, out.shape[1] - 1) + 1):
            out[row, col] = code


@njit(nogil=True, cache=True)
def burn_strokes(
    out: NDArray[np.unsignedinteger],
    codes: NDArray[np.unsignedinteger],
    lines: NDArray[np.int64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    reach: NDArray[np.float64],
    row0: int,
    col0: int,
    all_touched: bool,
) -> None:
    """Burn lines of some width, with round ends and joints, into ``out`` in their order, the later ones on top.

    A line covers what is not further from it than its reach; nothing is turned into polygons, so the width is exact.
    Without a reach it is drawn on every pixel that it passes through; a line of one vertex is a disc or a single pixel.

    Args:
        out: (y, x), changed in place; its upper-left pixel is (``row0``, ``col0``) of the zone.
        codes: One for each line.
        lines: Line i has the vertices ``lines[i]`` to ``lines[i + 1]``.
        x, y: Vertices in pixels of the zone, y downwards.
        reach: Half of the width of each line in pixels; 0 is as thin as a line.
        row0, col0: Place of ``out`` in the zone.
        all_touched: Burn every pixel that a line shares some area with, not only pixels whose centre it covers.
    """
    for i in range(len(codes)):
        first, last = lines[i], lines[i + 1]
        for k in range(first, max(last - 1, first + 1)):
            other = min(k + 1, last - 1)
            if reach[i] > 0:
                _capsule(out, codes[i], x[k], y[k], x[other], y[other], reach[i], row0, col0, all_touched)
            else:
                # An edge along the border of two pixels touches neither; its ends are drawn all the same.
                _trace(out, codes[i], x[k], y[k], x[other], y[other], row0, col0)
                for end in (k, other):
                    row, col = math.floor(y[end]), math.floor(x[end])
                    _block(out, codes[i], (row, row), (col, col), row0, col0)


@njit(nogil=True, cache=True)
def _capsule(out, code, x1, y1, x2, y2, r, row0, col0, all_touched):  # type: ignore[no-untyped-def]  # numba infers them
    """Burn what is within ``r`` of one edge: the centre of a pixel, or with ``all_touched`` any part of it."""
    height, width = out.shape
    if y1 > y2:
        x1, y1, x2, y2 = x2, y2, x1, y1
    half = 0.5 if all_touched else 0.0
    top = max(math.ceil(y1 - r - half - 0.5), row0)
    bottom = min(math.floor(y2 + r + half - 0.5) + 1, row0 + height)
    for row in range(top, bottom):
        # Of the edge only what is near this row: else a long slanting one would look at its whole box.
        a, b = 0.0, 1.0
        if y2 > y1:
            a = min(max((row + 0.5 - half - r - y1) / (y2 - y1), 0.0), 1.0)
            b = min(max((row + 0.5 + half + r - y1) / (y2 - y1), 0.0), 1.0)
        xa, xb = x1 + a * (x2 - x1), x1 + b * (x2 - x1)
        left = max(math.ceil(min(xa, xb) - r - half - 0.5) - 1, col0)
        right = min(math.floor(max(xa, xb) + r + half - 0.5) + 2, col0 + width)
        for col in range(left, right):
            if all_touched:
                inside = _square_gap(x1, y1, x2, y2, col, row) < r * r
            else:
                inside = _gap(x1, y1, x2, y2, col + 0.5, row + 0.5) <= r * r
            if inside:
                out[row - row0, col - col0] = code


@njit(nogil=True, cache=True)
def _gap(x1, y1, x2, y2, px, py):  # type: ignore[no-untyped-def]  # numba infers them
    """Square of the distance of a point from an edge."""
    dx, dy = x2 - x1, y2 - y1
    long = dx * dx + dy * dy
    t = 0.0 if long == 0 else min(max(((px - x1) * dx + (py - y1) * dy) / long, 0.0), 1.0)
    ex, ey = x1 + t * dx - px, y1 + t * dy - py
    return ex * ex + ey * ey


@njit(nogil=True, cache=True)
def _square_gap(x1, y1, x2, y2, col, row):  # type: ignore[no-untyped-def]  # numba infers them
    """Square of the distance of a pixel from an edge, 0 where the edge passes through it."""
    # Liang and Barsky (1984): what of the edge lies in the square.
    a, b = 0.0, 1.0
    for start, step, low in ((x1, x2 - x1, col), (y1, y2 - y1, row)):
        if step == 0:
            if start < low or start > low + 1:
                a, b = 1.0, 0.0
        else:
            t, u = (low - start) / step, (low + 1 - start) / step
            a, b = max(a, min(t, u)), min(b, max(t, u))
    if a <= b:
        return 0.0
    best = math.inf
    for cx in (col, col + 1):
        for cy in (row, row + 1):
            best = min(best, _gap(x1, y1, x2, y2, cx, cy))
    for ex, ey in ((x1, y1), (x2, y2)):
        gx, gy = max(col - ex, 0.0, ex - col - 1), max(row - ey, 0.0, ey - row - 1)
        best = min(best, gx * gx + gy * gy)
    return best


@njit(nogil=True, cache=True)
def cover_share(
    out: NDArray[np.uint8], fine: NDArray[np.unsignedinteger], codes: NDArray[np.int64], per_px: int
) -> None:
    """Percent of each pixel that each class covers, from a finer drawing of the same ground.

    Args:
        out: (class, y, x), changed in place; rounded, half up.
        fine: (y * per_px, x * per_px) codes.
        codes: Code of each class of ``out``.
        per_px: Fine pixels along each side of a pixel.
    """
    place = np.full(max(codes.max(), fine.max()) + 1, -1, np.int64)
    for c in range(len(codes)):
        place[codes[c]] = c
    n = np.zeros(len(codes), np.int64)
    whole = per_px * per_px
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            n[:] = 0
            for a in range(i * per_px, (i + 1) * per_px):
                for b in range(j * per_px, (j + 1) * per_px):
                    c = place[fine[a, b]]
                    if c >= 0:
                        n[c] += 1
            for c in range(len(codes)):
                out[c, i, j] = (200 * n[c] + whole) // (2 * whole)
