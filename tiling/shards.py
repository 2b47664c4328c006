"""The unit of work: chips in order along a Hilbert curve per zone, every N of them one shard.

A shard is read by *windows*: runs of its chips that lie close together in one zone, small enough for memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isclose, log
from typing import TYPE_CHECKING

from tiling.grid import Chip

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from odc.geo.geobox import GeoBox

# Cells are counted from the equator and easting 0 and may be negative, the curve knows no negative numbers. Shifting by
# a power of two keeps aligned squares aligned, and 2**30 cells are more than any zone has at 1 cm.
_ORDER = 31
_SHIFT = 1 << (_ORDER - 1)

_SHARD_SIDE_PX = 2048
"""Side of the square that a shard should about cover: wide enough to decode each block of a scene once."""
_MAX_PER_SHARD = 1024
_PARTS = 1000
"""Parts of a pixel that two pixel grids are told apart by."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive chips of the plan: read, written, retried, resumed and checksummed as one."""

    ordinal: int
    start: int
    """Position of the first chip along the ``chip`` dimension of the store."""
    chips: tuple[Chip, ...]

    @property
    def stop(self) -> int:
        """Position after the last chip."""
        return self.start + len(self.chips)

    def windows(self, max_px: int, pixel_m: float | None = None) -> tuple[Window, ...]:
        """The rectangles to read: every chip in exactly one, none with more than ``max_px`` pixels if it has two chips.

        Chips are taken apart by pixel grid (zone, and where in a pixel their corners lie), then like a quadtree into
        squares of cells until a rectangle is small enough and at least half full, so that two far corners of a shard do
        not drag in what lies between them.

        Args:
            max_px: Pixels of a window.
            pixel_m: Also fit to pixels of this size, in metres: then ``Window.at`` it works.
        """
        grids: dict[tuple[int, ...], list[int]] = {}
        for position, chip in enumerate(self.chips):
            grids.setdefault(_pixel_grid(chip, pixel_m), []).append(position)
        windows: list[Window] = []
        for positions in grids.values():
            windows.extend(self._window(group) for group in self._groups(positions, max_px))
        return tuple(windows)

    def _groups(self, positions: list[int], max_px: int) -> list[list[int]]:
        chips = [self.chips[position] for position in positions]
        cells = [chip.cell for chip in chips]
        height, width = _extent(chips)
        filled = len(positions) * chips[0].size_px ** 2
        if len(positions) == 1 or (height * width <= max_px and 2 * filled >= height * width):
            return [positions]
        # The highest bit in which the cells differ: one level up they lie in one aligned square, here they do not.
        differ = max((max(axis) + _SHIFT) ^ (min(axis) + _SHIFT) for axis in zip(*cells, strict=True)).bit_length()
        if not differ:  # all within one cell: chips that overlap
            return [[position] for position in positions]
        quadrants: dict[tuple[int, int], list[int]] = {}
        for position, (col, row) in zip(positions, cells, strict=True):
            quadrants.setdefault((col >> (differ - 1), row >> (differ - 1)), []).append(position)
        return [group for quadrant in quadrants.values() for group in self._groups(quadrant, max_px)]

    def _window(self, positions: list[int]) -> Window:
        chips = [self.chips[position] for position in positions]
        first = chips[0]
        west, south, east, north = _around(chips)
        res = first.resolution_m
        return Window(
            epsg=first.epsg,
            bounds=(west, south, east, north),
            resolution_m=res,
            shape=_extent(chips),
            chips=tuple(positions),
            corners=tuple(
                (round((north - chip.bounds[3]) / res), round((chip.bounds[0] - west) / res)) for chip in chips
            ),
            side_px=first.size_px,
        )


def _around(chips: Sequence[Chip]) -> tuple[float, float, float, float]:
    west, south, east, north = zip(*(chip.bounds for chip in chips), strict=True)
    return min(west), min(south), max(east), max(north)


def _extent(chips: Sequence[Chip]) -> tuple[int, int]:
    """(y, x) pixels of the smallest rectangle around chips of one pixel grid."""
    west, south, east, north = _around(chips)
    res = chips[0].resolution_m
    return round((north - south) / res), round((east - west) / res)


def _pixel_grid(chip: Chip, pixel_m: float | None) -> tuple[int, ...]:
    """Equal for chips whose pixels lie on one grid: zone, and how far their corners are off it, in thousandths."""
    if chip.edges is None:  # all corners are multiples of the side, which is whole pixels of every source
        return (chip.epsg,)
    off = []
    for size in (chip.resolution_m, pixel_m or chip.resolution_m):
        off += [round(value / size % 1 * _PARTS) % _PARTS for value in (chip.edges[0], chip.edges[3])]
    return (chip.epsg, *off)


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels in one zone that is read at once, and the chips that lie in it."""

    epsg: int
    bounds: tuple[float, float, float, float]
    """(minx, miny, maxx, maxy) in metres: the smallest rectangle around the chips."""
    resolution_m: float
    shape: tuple[int, int]
    """(y, x) in pixels."""
    chips: tuple[int, ...]
    """Positions of the chips within their shard."""
    corners: tuple[tuple[int, int], ...]
    """For each of ``chips``, the (y, x) pixel of its upper-left corner within the window."""
    side_px: int | None = None
    """Side of the chips; None of a window that is no chips'."""

    @property
    def geobox(self) -> GeoBox:
        """Pixel grid of the window, north up."""
        return self.padded(0)

    def padded(self, px: int) -> GeoBox:
        """Pixel grid of the window with ``px`` more pixels on each side: room for kernels that look at neighbours."""
        from affine import Affine
        from odc.geo.geobox import GeoBox

        minx, _, _, maxy = self.bounds
        res = self.resolution_m
        transform = Affine(res, 0, minx - px * res, 0, -res, maxy + px * res)
        return GeoBox((self.shape[0] + 2 * px, self.shape[1] + 2 * px), transform, f"EPSG:{self.epsg}")

    def at(self, resolution_m: float) -> Window:
        """The same window in pixels of another size: same ground, same chips.

        Raises:
            ValueError: The pixels do not divide the chips.
        """
        if isclose(self.resolution_m, resolution_m, rel_tol=1e-12):
            return self
        scale = self.resolution_m / resolution_m

        def own(px: int) -> int:
            if not isclose(px * scale, round(px * scale), rel_tol=1e-9, abs_tol=1e-9):
                raise ValueError(
                    f"pixels of {resolution_m:g} m do not divide chips whose pixels have {self.resolution_m:g} m; "
                    "wanted a whole number of pixels a chip"
                )
            return round(px * scale)

        return replace(
            self,
            resolution_m=resolution_m,
            shape=(own(self.shape[0]), own(self.shape[1])),
            corners=tuple((own(y), own(x)) for y, x in self.corners),
            side_px=None if self.side_px is None else own(self.side_px),
        )


def lay_shards(chips: Sequence[Chip], per_shard: int) -> tuple[Shard, ...]:
    """The shards of a plan: chips by zone and along a Hilbert curve, cut every ``per_shard``; only the last is shorter.

    The curve runs over absolute cells, so two chips keep their order when the area grows. ``Shard.start`` counts on
    through all shards: ``[chip for shard in shards for chip in shard.chips]`` is the order of the store.

    Raises:
        ValueError: ``per_shard`` is below 1.
    """
    import numpy as np

    if per_shard < 1:
        raise ValueError(f"a shard has at least 1 chip, {per_shard} were asked for")
    table = np.array([(chip.epsg, *chip.cell) for chip in chips], dtype="int64").reshape(-1, 3)
    order = np.lexsort((hilbert(table[:, 1], table[:, 2]), table[:, 0])).tolist()
    return tuple(
        Shard(ordinal, start, tuple(chips[index] for index in order[start : start + per_shard]))
        for ordinal, start in enumerate(range(0, len(order), per_shard))
    )


def hilbert(col: npt.NDArray[np.int64], row: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Position of cells along a Hilbert curve, int64; each aligned square of 2^k x 2^k cells is one unbroken run.

    Raises:
        ValueError: A cell lies 2^30 cells or more from the origin.
    """
    import numpy as np

    x, y = np.asarray(col, "int64") + _SHIFT, np.asarray(row, "int64") + _SHIFT
    if ((x | y) < 0).any() or ((x | y) >> _ORDER).any():
        raise ValueError("the curve covers cells up to 2^30 from the origin")
    place = np.zeros_like(x)
    # Top bit first: which quarter, in the order the curve visits them, then turn the rest as that quarter is turned
    # (Hacker's Delight, 2nd edition, §16-2; the same as xy2d of the Wikipedia article "Hilbert curve").
    for level in range(_ORDER - 1, -1, -1):
        rx, ry = (x >> level) & 1, (y >> level) & 1
        place = (place << 2) | ((3 * rx) ^ ry)
        rest = (1 << level) - 1
        x, y = x & rest, y & rest
        flip = (ry == 0) & (rx == 1)
        x, y = np.where(flip, rest - x, x), np.where(flip, rest - y, y)
        x, y = np.where(ry == 0, y, x), np.where(ry == 0, x, y)
    return place


def auto_per_shard(size_px: int, bytes_per_chip: int, budget_bytes: int = 512 * 2**20) -> int:
    """Chips in a shard when nobody says otherwise: a power of four from 1 to 1024.

    About as many as fill 2048 x 2048 pixels (64 of 256 px), fewer when their data would not fit the budget.

    Args:
        size_px: Side of a chip in pixels.
        bytes_per_chip: Raw size of everything that is kept of one chip.
        budget_bytes: Raw size that one shard may have.
    """
    power = round(log(_SHARD_SIDE_PX / size_px, 2))
    per_shard = min(int(4 ** max(0, power)), _MAX_PER_SHARD)
    while per_shard > 1 and per_shard * bytes_per_chip > budget_bytes:
        per_shard //= 4
    return per_shard
