"""Land cover as ESA WorldCover delivers it: tiles of three degrees, pixels of 1/12000 degree, a palette."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from simulate.cog import cog
from simulate.frame import places
from simulate.landscape import blocks_of, ground
from simulate.world import Raster, WorldSpec

if TYPE_CHECKING:
    from pathlib import Path

CLASSES: dict[int, tuple[str, str]] = {
    10: ("Tree cover", "006400"),
    20: ("Shrubland", "FFBB22"),
    30: ("Grassland", "FFFF4C"),
    40: ("Cropland", "F096FF"),
    50: ("Built-up", "FA0000"),
    60: ("Bare / sparse vegetation", "B4B4B4"),
    70: ("Snow and ice", "F0F0F0"),
    80: ("Permanent water bodies", "0064C8"),
    90: ("Herbaceous wetland", "0096A0"),
    95: ("Mangroves", "00CF75"),
    100: ("Moss and lichen", "FAE6A0"),
}
"""Name and colour of each code (ESA WorldCover product user manual v2.0, table 3)."""
MARGIN_DEGREES = 0.004
PER_DEGREE = 12_000


def landcover_tiles(spec: WorldSpec) -> dict[str, Raster]:
    """Grid of each tile that touches the area, clipped to it, by the name of the tile: ``N48E015``."""
    west, south, east, north = spec.lonlat_bounds
    west, south, east, north = (
        west - MARGIN_DEGREES,
        south - MARGIN_DEGREES,
        east + MARGIN_DEGREES,
        north + MARGIN_DEGREES,
    )
    result = {}
    for lat in range(3 * math.floor(south / 3), math.floor(north) + 1, 3):
        for lon in range(3 * math.floor(west / 3), math.floor(east) + 1, 3):
            c0 = max(math.floor((west - lon) * PER_DEGREE), 0)
            c1 = min(math.ceil((east - lon) * PER_DEGREE), 3 * PER_DEGREE)
            r0 = max(math.floor((lat + 3 - north) * PER_DEGREE), 0)
            r1 = min(math.ceil((lat + 3 - south) * PER_DEGREE), 3 * PER_DEGREE)
            if c1 <= c0 or r1 <= r0:
                continue
            name = f"{'N' if lat >= 0 else 'S'}{abs(lat):02d}{'E' if lon >= 0 else 'W'}{abs(lon):03d}"
            step = 1 / PER_DEGREE
            result[name] = Raster(4326, lon + c0 * step, lat + 3 - r0 * step, step, step, (r1 - r0, c1 - c0))
    return result


def write_landcover(path: Path, spec: WorldSpec, raster: Raster) -> None:
    """Write one tile: uint8 codes at the pixel centres, nodata 0, palette."""
    palette = {code: (*bytes.fromhex(colour), 255) for code, (_, colour) in CLASSES.items()}
    with cog(
        path, raster, "uint8", nodata=0, block_px=spec.block_px, compress=spec.compress, overviews="mode",
        colours=palette,
    ) as write:  # fmt: skip
        for row in range(0, raster.shape[0], 512):
            x, y = places(spec, raster, (row, min(row + 512, raster.shape[0])))
            blocks = blocks_of((float(x.min()), float(y.min()), float(x.max()), float(y.max())), spec.seed)
            write(row, ground(x, y, spec.seed, blocks).cover)
