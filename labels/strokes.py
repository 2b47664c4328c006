"""Lines and points with a width: projected once per zone and then drawn window by window, always the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labels.rasterize import bounds_of, into_zone, lattice, offsets_of, runs_of, short_edges
from tiling.shards import Window

if TYPE_CHECKING:
    import pyproj


@dataclass(frozen=True, eq=False)
class Strokes:
    """Lines in the order they are drawn; a point is a line of one vertex."""

    crs: str
    """WKT."""
    codes: NDArray[np.unsignedinteger[Any]]
    """One for each line."""
    reach_m: NDArray[np.float64]
    """Half of the width; 0 for lines that are as thin as they are drawn."""
    lines: NDArray[np.int64]
    """Line i has the vertices ``lines[i]`` to ``lines[i + 1]``."""
    xy: NDArray[np.float64]
    """Vertices (n, 2) in units of the CRS, x or longitude first."""

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def bounds(self) -> NDArray[np.float64]:
        """(minx, miny, maxx, maxy) of each line without its width, (n, 4)."""
        return bounds_of(self.xy, self.lines[:-1])

    def subset(self, keep: NDArray[np.intp]) -> Strokes:
        """Lines at these positions, in this order."""
        lines, vertices = offsets_of(np.diff(self.lines)[keep]), runs_of(self.lines, keep)
        return Strokes(self.crs, self.codes[keep], self.reach_m[keep], lines, self.xy[vertices])


def pack_strokes(
    geometries: NDArray[np.object_],
    codes: NDArray[np.unsignedinteger[Any]],
    reach_m: NDArray[np.float64],
    crs: pyproj.CRS,
) -> Strokes:
    """Flat arrays from shapely points and lines, also of several parts, with vertices added along long edges."""
    import shapely

    parts, owner = shapely.get_parts(geometries, return_index=True)
    parts = short_edges(parts, crs)
    lines = offsets_of(shapely.get_num_coordinates(parts))
    return Strokes(crs.to_wkt(), codes[owner], reach_m[owner], lines, shapely.get_coordinates(parts))


def project_strokes(strokes: Strokes, epsg: int) -> Strokes:
    """The lines in a UTM zone, metres; those that the zone cannot hold (the far side of the earth) are left out."""
    crs, xy = into_zone(strokes.crs, strokes.xy, epsg)
    moved = Strokes(crs, strokes.codes, strokes.reach_m, strokes.lines, xy)
    finite = np.isfinite(moved.bounds).all(axis=1)
    return moved if finite.all() else moved.subset(np.flatnonzero(finite))


def draw_strokes(
    out: NDArray[np.unsignedinteger[Any]],
    strokes: Strokes,
    window: Window,
    *,
    all_touched: bool = False,
    least_m: float = 0.0,
) -> None:
    """Draw lines onto the codes (y, x) of a window, later ones on top; see `labels.burn.burn_strokes`.

    Args:
        out: Of the window's shape, changed in place.
        strokes: In the zone of the window.
        window: Any rectangle of pixels; a pixel is the same in every window that has it.
        all_touched: Draw on every pixel that a line shares some area with.
        least_m: Lines that are narrower than this are left out, except those without any width.
    """
    from labels.burn import burn_strokes

    size = window.resolution_m
    box = strokes.bounds
    minx, miny, maxx, maxy = window.bounds
    more = strokes.reach_m + size
    near = (
        (box[:, 0] - more <= maxx)
        & (box[:, 2] + more >= minx)
        & (box[:, 1] - more <= maxy)
        & (box[:, 3] + more >= miny)
    )
    near &= (strokes.reach_m == 0) | (2 * strokes.reach_m >= least_m)
    if not near.any():
        return
    drawn = strokes if near.all() else strokes.subset(np.flatnonzero(near))
    row0, col0, dy, dx = lattice(window)
    burn_strokes(
        out,
        drawn.codes.astype(out.dtype),
        drawn.lines,
        (drawn.xy[:, 0] - dx) / size,
        (dy - drawn.xy[:, 1]) / size,
        drawn.reach_m / size,
        row0,
        col0,
        all_touched,
    )
