"""The unit of work: chips in order along a Hilbert curve per zone, every N of them one shard.

A shard is read by *windows*: runs of its chips that lie close together in one zone, small enough for memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiling.grid import Chip

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


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

    @property
    def geobox(self) -> GeoBox:
        """Pixel grid of the window, north up."""
        from affine import Affine
        from odc.geo.geobox import GeoBox

        minx, _, _, maxy = self.bounds
        return GeoBox(
            self.shape, Affine(self.resolution_m, 0, minx, 0, -self.resolution_m, maxy), f"EPSG:{self.epsg}"
        )
