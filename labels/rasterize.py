"""Polygons onto pixels. They are projected once per zone and then drawn window by window, always the same.

Edges are straight in the CRS of the file, which is not straight in a UTM zone; so long ones get vertices in between
before they are projected. What a pixel gets depends on the polygons alone, never on the window around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiling.shards import Window

if TYPE_CHECKING:
    import pyproj

MAX_EDGE_M = 1000.0
"""Longest edge that is projected by its ends alone. At 70° north a parallel of 1 km bends by 5 cm in UTM."""

EARTH_RADIUS_M = 6_371_000.0

SNAP_PX = 1e-6
"""A window whose corner is nearer than this to a whole pixel of the zone lies on it: 0.1 m × 256 is not exact."""


@dataclass(frozen=True, eq=False)
class Polygons:
    """Polygons in the order they are drawn, as flat arrays: small to pickle and ready to burn."""

    crs: str
    """WKT."""
    codes: NDArray[np.unsignedinteger[Any]]
    """One for each polygon: the code of its class (uint16), or its id (uint32)."""
    polygons: NDArray[np.int64]
    """Polygon i has the rings ``polygons[i]`` to ``polygons[i + 1]``; the first one is its shell."""
    rings: NDArray[np.int64]
    """Ring j has the vertices ``rings[j]`` to ``rings[j + 1]``; the last repeats the first."""
    xy: NDArray[np.float64]
    """Vertices (n, 2) in units of the CRS, x or longitude first."""

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def bounds(self) -> NDArray[np.float64]:
        """(minx, miny, maxx, maxy) of each polygon, (n, 4)."""
        return bounds_of(self.xy, self.rings[self.polygons[:-1]])

    def subset(self, keep: NDArray[np.intp]) -> Polygons:
        """Polygons at these positions, in this order."""
        rings = runs_of(self.polygons, keep)
        vertices = runs_of(self.rings, rings)
        return Polygons(
            crs=self.crs,
            codes=self.codes[keep],
            polygons=offsets_of(np.diff(self.polygons)[keep]),
            rings=offsets_of(np.diff(self.rings)[rings]),
            xy=self.xy[vertices],
        )


def pack(geometries: NDArray[np.object_], codes: NDArray[np.unsignedinteger[Any]], crs: pyproj.CRS) -> Polygons:
    """Flat arrays from shapely polygons and multipolygons (valid, not empty), with vertices added along long edges.

    Args:
        geometries: In the order they are drawn.
        codes: One for each geometry, of any unsigned type: classes or ids. The parts of a multipolygon share its code.
        crs: Of the geometries.
    """
    import shapely

    parts, owner = shapely.get_parts(geometries, return_index=True)
    parts = short_edges(parts, crs)
    # get_rings keeps the order shell, holes; to_ragged_array would need all parts to be of one type.
    rings, ring_owner = shapely.get_rings(parts, return_index=True)
    xy = shapely.get_coordinates(rings)
    return Polygons(
        crs=crs.to_wkt(),
        codes=codes[owner],
        polygons=offsets_of(np.bincount(ring_owner, minlength=len(parts))),
        rings=offsets_of(shapely.get_num_coordinates(rings)),
        xy=xy,
    )


def max_edge(crs: pyproj.CRS) -> float:
    """``MAX_EDGE_M`` in units of the CRS (degrees, metres, feet …)."""
    unit = crs.axis_info[0].unit_conversion_factor  # to metres, or to radians in a geographic CRS
    return MAX_EDGE_M / EARTH_RADIUS_M / unit if crs.is_geographic else MAX_EDGE_M / unit


def short_edges(parts: NDArray[np.object_], crs: pyproj.CRS) -> NDArray[np.object_]:
    """Geometries with vertices added along edges that are longer than ``max_edge``."""
    import shapely

    limit = max_edge(crs)
    # Cheap to decide, dear to do: a geometry whose box is small has no long edge.
    box = shapely.bounds(parts)
    long = np.hypot(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]) > limit
    if long.any():
        parts = parts.copy()
        parts[long] = shapely.segmentize(parts[long], limit)
    return parts


def bounds_of(xy: NDArray[np.float64], start: NDArray[np.int64]) -> NDArray[np.float64]:
    """(minx, miny, maxx, maxy) of each run of vertices, (n, 4), from where it starts in ``xy``."""
    if not len(start):
        return np.empty((0, 4))
    return np.concatenate([np.minimum.reduceat(xy, start), np.maximum.reduceat(xy, start)], axis=1)


def project(polygons: Polygons, epsg: int) -> Polygons:
    """The polygons in a UTM zone, metres; those that the zone cannot hold (the far side of the earth) are left out."""
    crs, xy = into_zone(polygons.crs, polygons.xy, epsg)
    moved = Polygons(crs, polygons.codes, polygons.polygons, polygons.rings, xy)
    finite = np.isfinite(moved.bounds).all(axis=1)
    return moved if finite.all() else moved.subset(np.flatnonzero(finite))


def into_zone(crs: str, xy: NDArray[np.float64], epsg: int) -> tuple[str, NDArray[np.float64]]:
    """WKT of a zone, and vertices (n, 2) in it; as they are given when they are in it already, or there are none."""
    import pyproj

    there, here = pyproj.CRS.from_epsg(epsg), pyproj.CRS.from_wkt(crs)
    if here == there or not len(xy):
        return crs, xy
    moved = pyproj.Transformer.from_crs(here, there, always_xy=True).transform(xy[:, 0], xy[:, 1])
    return there.to_wkt(), np.column_stack(moved)


def rasterize(
    polygons: Polygons, window: Window, *, fill: int, dtype: str, all_touched: bool = False
) -> NDArray[np.unsignedinteger[Any]]:
    """Codes (y, x) of a window, later polygons on top, ``fill`` where none lies.

    Args:
        polygons: In the zone of the window, see ``project``.
        window: Any rectangle of pixels; a pixel is the same in every window that has it.
        fill: Value where no polygon lies.
        dtype: ``uint8`` or ``uint16`` for classes, ``uint32`` for ids.
        all_touched: Burn every pixel a polygon touches, not only those whose centre lies inside.

    Raises:
        ValueError: A code does not fit into ``dtype``: it would be drawn as another one.
    """
    if len(polygons) and (highest := int(polygons.codes.max())) > np.iinfo(dtype).max:
        raise ValueError(f"code {highest} does not fit into {dtype}; take a wider type")
    out = np.full(window.shape, fill, dtype)
    draw_polygons(out, polygons, window, all_touched=all_touched)
    return out


def draw_polygons(
    out: NDArray[np.unsignedinteger[Any]], polygons: Polygons, window: Window, *, all_touched: bool = False
) -> None:
    """Draw polygons onto the codes (y, x) of a window, which has to hold their codes; see ``rasterize``."""
    from labels.burn import burn_polygons

    box = polygons.bounds
    minx, miny, maxx, maxy = window.bounds
    near = (box[:, 0] <= maxx) & (box[:, 2] >= minx) & (box[:, 1] <= maxy) & (box[:, 3] >= miny)
    if not near.any():
        return
    drawn = polygons if near.all() else polygons.subset(np.flatnonzero(near))
    row0, col0, dy, dx = lattice(window)
    size = window.resolution_m
    burn_polygons(
        out,
        drawn.codes.astype(out.dtype),
        drawn.polygons,
        drawn.rings,
        (drawn.xy[:, 0] - dx) / size,
        (dy - drawn.xy[:, 1]) / size,
        row0,
        col0,
        all_touched,
    )


def lattice(window: Window) -> tuple[int, int, float, float]:
    """Row and column of a window's upper-left pixel, counted in the zone, and the (y, x) in metres of the pixel 0, 0.

    Chips lie on whole pixels from the zone's origin, so their (y, x) is (0, 0); another grid has a constant shift.
    """
    minx, _, _, maxy = window.bounds
    col, row = minx / window.resolution_m, -maxy / window.resolution_m
    col0, row0 = math.floor(col + 0.5), math.floor(row + 0.5)
    dx = 0.0 if abs(col - col0) < SNAP_PX else minx - col0 * window.resolution_m
    dy = 0.0 if abs(row - row0) < SNAP_PX else maxy + row0 * window.resolution_m
    return row0, col0, dy, dx


def offsets_of(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Where runs of these lengths begin one after the other, and where the last one ends, (n + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def runs_of(offsets: NDArray[np.int64], keep: NDArray[np.intp]) -> NDArray[np.intp]:
    """Positions of all members of the runs ``keep``, in order."""
    lengths = np.diff(offsets)[keep]
    shift = np.repeat(offsets[:-1][keep] - offsets_of(lengths)[:-1], lengths)
    return (np.arange(lengths.sum()) + shift).astype(np.intp)
