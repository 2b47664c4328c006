"""Where a pixel of a file lies in the world frame, and which files cover the area.

Pixel centres go through PROJ on a lattice of 80 m that is anchored at multiples of 80 m of the zone, and bilinearly
between: at that spacing the curvature of the projection is below 0.2 mm, and because the lattice does not depend on the
block that is asked for, a pixel has the same place in every block and every tile of its zone.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
from pyproj import Transformer

from simulate.noise import jit
from simulate.world import Raster, WorldSpec, utm_epsg

if TYPE_CHECKING:
    from numpy.typing import NDArray

LATTICE_M = 80.0


@functools.lru_cache(maxsize=8)
def _transformer(source: int, target: int) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


@jit
def _between(lattice: np.ndarray, fx: np.ndarray, fy: np.ndarray, out: np.ndarray) -> None:
    for r in range(fy.size):
        j = int(fy[r])
        v = fy[r] - j
        for c in range(fx.size):
            i = int(fx[c])
            u = fx[c] - i
            low = lattice[j, i] + u * (lattice[j, i + 1] - lattice[j, i])
            high = lattice[j + 1, i] + u * (lattice[j + 1, i + 1] - lattice[j + 1, i])
            out[r, c] = low + v * (high - low)


def places(
    spec: WorldSpec, raster: Raster, rows: tuple[int, int] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """World (x, y) of the pixel centres of some rows of a raster, metres, each ``(row, col)``.

    Args:
        spec: The world.
        raster: In EPSG:4326 or a UTM zone.
        rows: First row and the row after the last; all rows by default.
    """
    first, last = rows or (0, raster.shape[0])
    xs = raster.x0 + (np.arange(raster.shape[1]) + 0.5) * raster.step_x
    ys = raster.y0 - (np.arange(first, last) + 0.5) * raster.step_y
    per_lon, per_lat = spec.m_per_degree
    if raster.epsg == 4326:
        x, y = np.meshgrid((xs - spec.lon) * per_lon, (ys - spec.lat) * per_lat)
        return x, y
    i0, i1 = math.floor(xs[0] / LATTICE_M), math.floor(xs[-1] / LATTICE_M) + 1
    j0, j1 = math.floor(ys[-1] / LATTICE_M), math.floor(ys[0] / LATTICE_M) + 1
    grid_x, grid_y = np.meshgrid(np.arange(i0, i1 + 1) * LATTICE_M, np.arange(j0, j1 + 1) * LATTICE_M)
    lon, lat = _transformer(raster.epsg, 4326).transform(grid_x, grid_y)
    fx, fy = xs / LATTICE_M - i0, ys / LATTICE_M - j0
    x = np.empty((ys.size, xs.size))
    y = np.empty((ys.size, xs.size))
    _between((lon - spec.lon) * per_lon, fx, fy, x)
    _between((lat - spec.lat) * per_lat, fx, fy, y)
    return x, y


def world_to_lonlat(spec: WorldSpec, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 2) longitude and latitude of world places, rounded to 1e-7 degrees (1 cm), as OpenStreetMap stores them."""
    per_lon, per_lat = spec.m_per_degree
    lonlat = np.stack([spec.lon + x / per_lon, spec.lat + y / per_lat], axis=-1).astype(np.float64)
    return np.round(lonlat, 7)


def around(spec: WorldSpec, raster: Raster) -> tuple[float, float, float, float]:
    """(minx, miny, maxx, maxy) of a raster in world metres."""
    lon0, lat0, lon1, lat1 = lonlat_bounds(raster)
    per_lon, per_lat = spec.m_per_degree
    return (
        (lon0 - spec.lon) * per_lon,
        (lat0 - spec.lat) * per_lat,
        (lon1 - spec.lon) * per_lon,
        (lat1 - spec.lat) * per_lat,
    )


def lonlat_bounds(raster: Raster) -> tuple[float, float, float, float]:
    """(minx, miny, maxx, maxy) of a raster in EPSG:4326, its bent edges included."""
    if raster.epsg == 4326:
        return raster.bounds
    west, south, east, north = _transformer(raster.epsg, 4326).transform_bounds(*raster.bounds, densify_pts=21)
    return (west, south, east, north)


def lonlat_outline(raster: Raster) -> list[list[float]]:
    """Closed ring of a raster's corners in EPSG:4326, counter-clockwise, 1e-7 degrees."""
    minx, miny, maxx, maxy = raster.bounds
    corners = [(minx, miny), (maxx, miny), (maxx, maxy), (minx, maxy), (minx, miny)]
    if raster.epsg != 4326:
        corners = [_transformer(raster.epsg, 4326).transform(x, y) for x, y in corners]
    return [[round(float(x), 7), round(float(y), 7)] for x, y in corners]


def utm_cover(
    spec: WorldSpec, part: tuple[float, float], epsg: int, *, snap_m: float, shift: tuple[float, float] = (0.0, 0.0)
) -> Raster:
    """The smallest 10 m raster of a UTM zone over a part of the area.

    Args:
        spec: The world.
        part: From which to which share of the area's width, 0 at its western edge.
        epsg: The zone.
        snap_m: Edges are multiples of it, and so are width and height.
        shift: Moves the grid off that, metres.
    """
    west, south, east, north = spec.lonlat_bounds
    part_west, part_east = west + part[0] * (east - west), west + part[1] * (east - west)
    minx, miny, maxx, maxy = _transformer(4326, epsg).transform_bounds(
        part_west, south, part_east, north, densify_pts=21
    )
    x0, y0 = math.floor(minx / snap_m) * snap_m, math.ceil(maxy / snap_m) * snap_m
    cols = math.ceil((maxx - x0) / snap_m) * snap_m / 10
    rows = math.ceil((y0 - miny) / snap_m) * snap_m / 10
    return Raster(epsg, x0 + shift[0], y0 + shift[1], 10.0, 10.0, (round(rows), round(cols)))


def zone_of(spec: WorldSpec, share: float) -> int:
    """EPSG code of the UTM zone at a share of the area's width, 0 at its western edge."""
    west, _, east, _ = spec.lonlat_bounds
    return utm_epsg(west + share * (east - west), spec.lat)
