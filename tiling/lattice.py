"""Blocks of the earth, the same for every zone, area and run: units of splits, drawn by the hash of their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import pi
from typing import TYPE_CHECKING

from tiling.grid import Chip

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Smallest radius of curvature of the WGS 84 ellipsoid, a(1 - e²), in metres. On a sphere of this radius all distances
# between given degrees are shorter than on the earth, so bounds made with it hold on the earth.
_SMALL_RADIUS_M = 6_335_439.0


class Lattice:
    """Blocks of the earth: rows of equal height from the south pole, each cut into equal columns from 180°W.

    Counted with the smallest radius and at the poleward edge of a row, so that no block is smaller than asked for.
    """

    def __init__(self, block_km: float) -> None:
        self.block_m = block_km * 1000
        self.rows = max(1, int(pi * _SMALL_RADIUS_M / self.block_m))

    def row(self, lat: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Row of each latitude."""
        import numpy as np

        row: npt.NDArray[np.int64] = np.floor((lat + 90) * (self.rows / 180)).astype("int64")
        return np.clip(row, 0, self.rows - 1)

    def cols(self, row: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Number of columns in each row, at least 1."""
        import numpy as np

        edges = np.abs(np.stack([row, row + 1]) * (180 / self.rows) - 90).max(axis=0)
        around_m = 2 * pi * _SMALL_RADIUS_M * np.cos(np.radians(edges))
        cols: npt.NDArray[np.int64] = np.floor(around_m / self.block_m).astype("int64")
        return np.maximum(1, cols)

    def col(self, lon: npt.NDArray[np.float64], row: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Column of each longitude in its row; beyond ±180° it counts on, to be taken modulo ``cols``."""
        import numpy as np

        col: npt.NDArray[np.int64] = np.floor((lon + 180) * (self.cols(row) / 360)).astype("int64")
        return col


def uniform(text: str) -> float:
    """A number in [0, 1) that the text alone decides, on every machine."""
    digest = blake2b(text.encode(), digest_size=8).digest()
    # 53 bits are what a float holds; all 64 could round up to 1.
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def drawn(
    salt: str, below: Sequence[float], row: npt.NDArray[np.int64], col: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """A number for each block: how many of the ascending limits ``below`` its hash in [0, 1) reaches."""
    import numpy as np

    blocks, where = np.unique(np.stack([row, col], axis=1), axis=0, return_inverse=True)
    hashes = np.array([uniform(f"{salt}|{r}|{c}") for r, c in blocks.tolist()])
    return np.searchsorted(np.asarray(below, dtype="float64"), hashes, side="right").astype("int64")[where]


def draw_by_block(
    chips: Sequence[Chip],
    block_km: float,
    grow_m: float,
    draw: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.int64]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """What the block of each chip's centre draws, and whether all blocks that the chip touches draw the same.

    Args:
        chips: At least one.
        block_km: Side of a block.
        grow_m: How far around its edges a chip looks for blocks.
        draw: Row and column of blocks to a number each.
    """
    import numpy as np

    from tiling.grid import centres

    lattice = Lattice(block_km)
    lon, lat = centres(chips)
    row = lattice.row(lat)
    own = draw(row, lattice.col(lon, row))

    west, south, east, north = _reach(chips, grow_m)
    first_row, last_row = lattice.row(south), lattice.row(north)
    alone = np.ones(len(chips), dtype=bool)
    for row_step in range(int((last_row - first_row).max()) + 1):
        row = first_row + row_step
        inside = row <= last_row
        row = np.minimum(row, last_row)
        first_col, last_col = lattice.col(west, row), lattice.col(east, row)
        for col_step in range(int((last_col - first_col).max()) + 1):
            col = first_col + col_step
            touched = np.flatnonzero(inside & alone & (col <= last_col))
            alone[touched] = draw(row[touched], col[touched] % lattice.cols(row[touched])) == own[touched]
    return own, alone


def _reach(chips: Sequence[Chip], grow_m: float) -> tuple[npt.NDArray[np.float64], ...]:
    """Boxes (west, south, east, north), in degrees, that surely hold the chips grown by ``grow_m`` on all sides."""
    import numpy as np

    from tiling.grid import corners

    ring = corners(chips)
    lon, lat = ring[:, :, 0], ring[:, :, 1]
    side = np.array([chip.size_m for chip in chips])
    steepest = np.radians(np.abs(lat).max(axis=1))
    # Edges are straight in metres and bulge in degrees, by side² tan(lat) / 8R to the eye; twice that, and a millimetre
    # against rounding.
    bulge_m = side**2 * np.maximum(1, np.tan(steepest)) / (4 * _SMALL_RADIUS_M) + 0.001
    reach = (grow_m + bulge_m) / _SMALL_RADIUS_M
    # A cap of this radius around a point at this latitude is this wide (at its widest, which is not its middle).
    wide = np.degrees(np.arcsin(np.minimum(1, np.sin(reach) / np.cos(steepest))))
    high = np.degrees(reach)
    return lon.min(axis=1) - wide, lat.min(axis=1) - high, lon.max(axis=1) + wide, lat.max(axis=1) + high
