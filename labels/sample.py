"""Class rasters onto pixels: which pixel of the file lies under each of ours, decided by place alone.

GDAL's warper interpolates coordinates along whatever scanline it warps (up to 1/8 pixel off), so the same place can get
another class in another window. Here coordinates are exact on a lattice of the zone and cubic in between.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

LATTICE_PX = 32
"""Distance of the lattice's nodes. Between them, over 320 m, a cubic misses a projection by less than a nanometre; over
32 km (1 km pixels) by less than a millimetre."""

EDGE_PX = 1e-8
"""A centre nearer than this to the border of two pixels lies on it and gets the right or lower one, as with GDAL."""

GRAIN = 2.0**20
"""Places are known to a part of this of a pixel: coarse enough to swallow rounding, too fine to be seen."""


def lattice_nodes(first_px: int, last_px: int) -> NDArray[np.int64]:
    """Nodes along one axis, in pixels of the zone, that the pixels ``first_px`` to ``last_px`` (excluded) need."""
    low = math.floor(first_px / LATTICE_PX) - 1
    high = math.floor((last_px - 1) / LATTICE_PX) + 3
    return np.arange(low, high, dtype=np.int64) * LATTICE_PX


@njit(nogil=True, cache=True)
def sample(
    out: NDArray[Any],
    filled: NDArray[np.bool_],
    block: NDArray[Any],
    valid: NDArray[np.bool_],
    block_row0: int,
    block_col0: int,
    rows: NDArray[np.float64],
    cols: NDArray[np.float64],
    row0: int,
    col0: int,
    node_row0: int,
    node_col0: int,
    per_px: int,
) -> None:
    """Fill what is still empty with the pixel of a file that lies under it; void there leaves it empty.

    Args:
        out: (y, x) samples, ``per_px`` of them a pixel along each axis, changed in place.
        filled: Which of them have a value, changed in place.
        block: (y, x) part of the file, from its pixel (``block_row0``, ``block_col0``) on.
        valid: Which pixels of the block are not void.
        rows, cols: Place in the file, in its pixels, of the lattice's nodes, (y, x); not finite where there is none.
        row0, col0: Pixel of the zone at the upper left of ``out``.
        node_row0, node_col0: Pixel of the zone of the first node.
        per_px: Samples a pixel along each axis.
    """
    wy, wx = np.empty(4), np.empty(4)
    for i in range(out.shape[0]):
        y = (row0 - node_row0 + (i + 0.5) / per_px) / LATTICE_PX
        ky = math.floor(y)
        _weights(y - ky, wy)
        for j in range(out.shape[1]):
            if filled[i, j]:
                continue
            x = (col0 - node_col0 + (j + 0.5) / per_px) / LATTICE_PX
            kx = math.floor(x)
            _weights(x - kx, wx)
            row, col = 0.0, 0.0
            for a in range(4):
                for b in range(4):
                    w = wy[a] * wx[b]
                    row += w * rows[ky - 1 + a, kx - 1 + b]
                    col += w * cols[ky - 1 + a, kx - 1 + b]
            if not (math.isfinite(row) and math.isfinite(col)):
                continue
            r = math.floor(row + EDGE_PX) - block_row0
            c = math.floor(col + EDGE_PX) - block_col0
            if 0 <= r < block.shape[0] and 0 <= c < block.shape[1] and valid[r, c]:
                out[i, j] = block[r, c]
                filled[i, j] = True


@njit(nogil=True, cache=True)
def _weights(t, w):  # type: ignore[no-untyped-def]  # numba infers them
    """Lagrange weights of the nodes at -1, 0, 1 and 2 for a place between 0 and 1."""
    w[0] = -t * (t - 1) * (t - 2) / 6
    w[1] = (t + 1) * (t - 1) * (t - 2) / 2
    w[2] = -(t + 1) * t * (t - 2) / 2
    w[3] = (t + 1) * t * (t - 1) / 6


@njit(nogil=True, cache=True)
def vote(
    out: NDArray[Any],
    filled: NDArray[np.bool_],
    samples: NDArray[Any],
    known: NDArray[np.bool_],
    per_px: int,
) -> None:
    """The most frequent class among the samples of each pixel; of equal ones the smallest code.

    Args:
        out: (y, x), changed in place.
        filled: Set where a pixel has at least one known sample, changed in place.
        samples: (y * per_px, x * per_px).
        known: Which samples have a value; the others do not vote.
        per_px: Samples a pixel along each axis.
    """
    ballot = np.empty(per_px * per_px, samples.dtype)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            n = 0
            for a in range(i * per_px, (i + 1) * per_px):
                for b in range(j * per_px, (j + 1) * per_px):
                    if known[a, b]:
                        ballot[n] = samples[a, b]
                        n += 1
            if n == 0:
                continue
            votes = np.sort(ballot[:n])
            best, run = 0, 0
            for k in range(n):
                run = run + 1 if k > 0 and votes[k] == votes[k - 1] else 1
                if run > best:
                    best = run
                    out[i, j] = votes[k]
            filled[i, j] = True


@njit(nogil=True, cache=True)
def locate(
    out_rows: NDArray[np.float64],
    out_cols: NDArray[np.float64],
    rows: NDArray[np.float64],
    cols: NDArray[np.float64],
    row0: float,
    col0: float,
    node_row0: int,
    node_col0: int,
) -> None:
    """Place in a file, in its pixels, of points that lie one pixel of the zone apart; not finite where there is none.

    Args:
        out_rows, out_cols: (y, x), changed in place.
        rows, cols: Place in the file of the lattice's nodes, (y, x).
        row0, col0: Place in the zone, in its pixels, of the first point: a whole number is a pixel's upper left corner.
        node_row0, node_col0: Pixel of the zone of the first node.
    """
    wy, wx = np.empty(4), np.empty(4)
    for i in range(out_rows.shape[0]):
        y = (row0 - node_row0 + i) / LATTICE_PX
        ky = math.floor(y)
        _weights(y - ky, wy)
        for j in range(out_rows.shape[1]):
            x = (col0 - node_col0 + j) / LATTICE_PX
            kx = math.floor(x)
            _weights(x - kx, wx)
            row, col = 0.0, 0.0
            for a in range(4):
                for b in range(4):
                    w = wy[a] * wx[b]
                    row += w * rows[ky - 1 + a, kx - 1 + b]
                    col += w * cols[ky - 1 + a, kx - 1 + b]
            # To a millionth of a pixel: what lies on a border or a centre but for rounding lies on it.
            out_rows[i, j] = np.floor(row * GRAIN + 0.5) / GRAIN
            out_cols[i, j] = np.floor(col * GRAIN + 0.5) / GRAIN
