"""Elevation as Copernicus DEM GLO-30 delivers it: tiles of one degree, pixel centres on whole seconds of arc."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from simulate.cog import cog
from simulate.frame import places
from simulate.landscape import elevation
from simulate.world import Raster, WorldSpec

if TYPE_CHECKING:
    from pathlib import Path

MARGIN_DEGREES = 0.01
"""The tiles are clipped to the area and so much around it: a whole one would be 50 MB."""


def seconds_per_column(lat: float) -> float:
    """Width of a GLO-30 pixel in seconds of arc at a latitude (Copernicus DEM product handbook, tiling)."""
    for above, seconds in ((85, 10.0), (80, 5.0), (70, 3.0), (60, 2.0), (50, 1.5)):
        if abs(lat) >= above:
            return seconds
    return 1.0


def dem_tiles(spec: WorldSpec) -> dict[str, Raster]:
    """Grid of each tile that touches the area, by the name of the tile: its south-west corner, ``N48_00_E017_00``.

    Pixel centres lie on whole seconds, so the edges of a file lie half a pixel off the degree (PixelIsPoint). A tile
    holds the centres of its western and northern edge, not those of the others.
    """
    west, south, east, north = spec.lonlat_bounds
    west, south, east, north = (
        west - MARGIN_DEGREES,
        south - MARGIN_DEGREES,
        east + MARGIN_DEGREES,
        north + MARGIN_DEGREES,
    )
    result = {}
    for lat in range(math.floor(south), math.floor(north) + 1):
        step_x, step_y = seconds_per_column(lat if lat >= 0 else lat + 1) / 3600, 1 / 3600
        for lon in range(math.floor(west), math.floor(east) + 1):
            columns = round(1 / step_x)
            c0 = max(math.floor((west - lon) / step_x), 0)
            c1 = min(math.ceil((east - lon) / step_x), columns)
            r0 = max(math.floor((lat + 1 - north) / step_y), 0)
            r1 = min(math.ceil((lat + 1 - south) / step_y), 3600)
            if c1 <= c0 or r1 <= r0:
                continue
            name = f"{'N' if lat >= 0 else 'S'}{abs(lat):02d}_00_{'E' if lon >= 0 else 'W'}{abs(lon):03d}_00"
            result[name] = Raster(
                4326, lon + (c0 - 0.5) * step_x, lat + 1 - (r0 - 0.5) * step_y, step_x, step_y, (r1 - r0, c1 - c0)
            )
    return result


def write_dem(path: Path, spec: WorldSpec, raster: Raster) -> None:
    """Write one tile: float32 metres, no void, no declared nodata, as the real one."""
    with cog(
        path, raster, "float32", nodata=None, block_px=spec.block_px, compress=spec.compress, overviews="average",
        tags={"AREA_OR_POINT": "Point"},
    ) as write:  # fmt: skip
        for row in range(0, raster.shape[0], 512):
            rows = (row, min(row + 512, raster.shape[0]))
            write(row, elevation(*places(spec, raster, rows), spec.seed).astype(np.float32))
