"""Sentinel-1 RTC: gamma nought in linear power, with speckle, from passes of both directions.

As in the real collection the grid of a scene is nobody else's: its origin is off every whole metre, and differs from
scene to scene. Values are rounded to 5 bits of mantissa (0.07 dB, a thirtieth of the speckle), or the files would not
compress at all.
"""

from __future__ import annotations

import datetime as dt
import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from simulate import landscape as land
from simulate.cog import cog
from simulate.frame import around, lonlat_outline, places, utm_cover, zone_of
from simulate.noise import bell, chance, jit, value
from simulate.optical import BINS, colours
from simulate.world import Raster, WorldSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NODATA = -32768.0
LOOKS = 4.4
"""Equivalent number of looks of a GRD product (Sentinel-1 product definition, IW GRDH)."""
BORDER_PX = 4
"""Width of the border of zeros along the edges of a swath."""

# (VV, VH) in dB at C-band for full growth and for bare ground, rounded from the literature's usual ranges.
DECIBEL: dict[int, tuple[float, float, float, float]] = {
    land.BROADLEAF: (-8.0, -13.3, -9.3, -14.8),
    land.CONIFER: (-8.8, -14.2, -8.8, -14.2),
    land.SHRUB: (-9.8, -15.8, -10.6, -16.8),
    land.MEADOW: (-11.8, -18.6, -12.6, -20.2),
    land.VERGE: (-11.5, -18.4, -12.2, -19.6),
    land.GARDEN: (-9.8, -16.4, -10.4, -17.0),
    land.WETLAND: (-9.4, -16.6, -11.0, -18.6),
    land.RIVER: (-18.5, -26.0, -18.5, -26.0),
    land.LAKE: (-20.5, -27.5, -20.5, -27.5),
    land.ROAD: (-15.0, -23.0, -15.0, -23.0),
    land.TILED_ROOF: (-3.0, -11.0, -3.0, -11.0),
    land.FLAT_ROOF: (0.5, -8.5, 0.5, -8.5),
    land.QUARRY: (-12.5, -21.5, -12.5, -21.5),
}
CROP_DECIBEL: dict[str, tuple[float, float, float, float]] = {
    "winter_wheat": (-13.5, -18.2, -11.5, -20.5),
    "maize": (-9.3, -14.6, -12.0, -21.0),
    "rapeseed": (-9.8, -13.8, -11.8, -20.0),
    "winter_barley": (-13.8, -18.0, -11.6, -20.5),
    "sunflower": (-8.6, -14.4, -12.0, -21.0),
    "sugar_beet": (-8.8, -14.2, -12.0, -21.0),
    "soybean": (-9.9, -15.8, -12.0, -21.0),
    "potato": (-8.9, -14.4, -11.4, -19.8),
    "alfalfa": (-10.6, -16.4, -12.0, -20.0),
}


@dataclass(frozen=True, slots=True)
class Pass:
    """One Sentinel-1 pass over the area."""

    index: int
    sensed: dt.datetime
    """UTC."""
    direction: str
    """``ascending`` or ``descending``."""
    relative_orbit: int
    absolute_orbit: int
    platform: str
    raster: Raster
    edge: float
    """Cross-track distance from the middle of the area at which the swath ends on its far side, world metres."""

    @property
    def id(self) -> str:
        """Name of the item, as the Planetary Computer makes it from the product's."""
        stamp = f"{self.sensed:%Y%m%dT%H%M%S}_{self.sensed + dt.timedelta(seconds=25):%Y%m%dT%H%M%S}"
        satellite = "S1A" if self.platform == "SENTINEL-1A" else "S1B"
        return (
            f"{satellite}_IW_GRDH_1SDV_{stamp}_{self.absolute_orbit:06d}_{self.absolute_orbit * 19 % 0xFFFFFF:06X}_rtc"
        )


def passes(spec: WorldSpec) -> tuple[Pass, ...]:
    """All passes of a world in the order of their time, ascending and descending in turn."""
    seed = spec.seed * land.SEEDS + 3072
    span = max((spec.dates - 1) * spec.every_days, 12)
    # A pass every so many of its own repeat cycles of 12 days, so that the passes span the optical series.
    cycles = max(round(2 * span / max(spec.radar_dates, 1) / 12), 1)
    result = []
    for index in range(spec.radar_dates):
        ascending = index % 2 == 0
        day = spec.start + dt.timedelta(days=12 * cycles * (index // 2) + (2 if ascending else 7))
        hours = (16.6 if ascending else 4.9) - (spec.lon - 18) / 15
        sensed = dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(seconds=round(3600 * hours) + index)
        shift = (10 * chance(index, 1, seed), 10 * chance(index, 2, seed))
        snapped = (round(shift[0] * 64) / 64, round(shift[1] * 64) / 64)
        raster = utm_cover(spec, (-0.04, 1.04), zone_of(spec, 0.2 if ascending else 0.8), snap_m=10.0, shift=snapped)
        result.append(
            Pass(
                index=index,
                sensed=sensed,
                direction="ascending" if ascending else "descending",
                relative_orbit=73 if ascending else 124,
                absolute_orbit=37_000 + 175 * cycles * (index // 2) + (73 if ascending else 124),
                platform="SENTINEL-1A" if ascending else "SENTINEL-1B",
                raster=raster,
                # The descending swath ends within the area; the ascending one only in the corners of the file.
                # (0.593 is how far the corner of a square lies across a heading of 12 degrees.)
                edge=spec.size_m * (0.593 if ascending else 0.40) + 10.0 * BORDER_PX + 20.0,
            )
        )
    return tuple(result)


def backscatter_table(day: int, south: bool) -> NDArray[np.float32]:
    """Gamma nought of every surface on a day, decibel: float32 ``(surface, member, 2)``, VV then VH."""
    seen = colours(day, south)
    red, infrared = seen[..., 3], seen[..., 7]
    growth = np.clip((infrared - red) / np.maximum(infrared + red, 1e-6) / 0.8, 0, 1)
    table = np.zeros((land.SURFACES, BINS, 2), np.float32)
    for surface in range(1, land.SURFACES):
        if surface in DECIBEL:
            levels = DECIBEL[surface]
        elif surface >= land.CROP:
            levels = CROP_DECIBEL[land.CROPS[surface - land.CROP]]
        else:
            continue
        for polarisation in range(2):
            full, bare = levels[polarisation], levels[2 + polarisation]
            table[surface, :, polarisation] = bare + (full - bare) * growth[surface]
    return table


@jit
def echo(
    x: np.ndarray,
    y: np.ndarray,
    surface: np.ndarray,
    vary: np.ndarray,
    texture: np.ndarray,
    slope_x: np.ndarray,
    slope_y: np.ndarray,
    table: np.ndarray,
    polarisation: int,
    look_x: float,
    look_y: float,
    edge: float,
    border: float,
    seed: int,
    row0: int,
    out: np.ndarray,
) -> None:
    """Fill ``out`` ``(row, col)`` float32 with linear power; NODATA outside the swath, 0 along its edges."""
    rows, cols = x.shape
    for r in range(rows):
        for c in range(cols):
            across = x[r, c] * look_x + y[r, c] * look_y
            if across > edge:
                out[r, c] = -32768.0
                continue
            if across > edge - border:
                out[r, c] = 0.0
                continue
            s = surface[r, c]
            k = min(int(vary[r, c] * BINS), BINS - 1)
            level = table[s, k, polarisation] + 0.9 * texture[r, c] + 1.6 * (vary[r, c] - 0.5)
            # Terrain flattening leaves some of the slope: facing the radar is brighter.
            level += 6.0 * (slope_x[r, c] * look_x + slope_y[r, c] * look_y)
            if s == 11 or s == 12:
                # Walls turned to the radar shine: it depends on the house and the look.
                level += 5.0 * value(x[r, c] / 25.0, y[r, c] / 25.0, seed % 2 + 5)
            power = 10.0 ** (0.1 * level)
            # Gamma-distributed speckle by the cube-root approximation of Wilson and Hilferty.
            z = bell(c, row0 + r, seed + polarisation)
            root = 1.0 - 1.0 / (9.0 * LOOKS) + z / (3.0 * math.sqrt(LOOKS))
            out[r, c] = power * max(root * root * root, 0.002)


def rounded(power: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same numbers with 5 bits of mantissa, rounded to nearest; exact for 0 and NODATA."""
    bits = power.view(np.uint32)
    result: NDArray[np.float32] = ((bits + np.uint32(0x20000)) & np.uint32(0xFFFC0000)).view(np.float32)
    return result


def look_of(direction: str) -> tuple[float, float]:
    """(east, north) unit vector in which the radar looks: to the right of its flight."""
    heading = math.radians(-12.0 if direction == "ascending" else 192.0)
    return (math.cos(heading), -math.sin(heading))


def swath(spec: WorldSpec, radar_pass: Pass) -> shapely.Polygon:
    """Footprint of a pass: the ground of its file that lies within its swath, EPSG:4326."""
    look_x, look_y = look_of(radar_pass.direction)
    reach = 4 * spec.size_m + 10_000
    edge = radar_pass.edge - 10.0 * BORDER_PX
    per_lon, per_lat = spec.m_per_degree
    # A square whose far side is the edge of the swath, in coordinates across and along it.
    corners = [(-reach, -reach), (edge, -reach), (edge, reach), (-reach, reach)]
    side = shapely.Polygon(
        [
            (spec.lon + (a * look_x - b * look_y) / per_lon, spec.lat + (a * look_y + b * look_x) / per_lat)
            for a, b in corners
        ]
    )
    # A convex ground cut by a straight line is one ring.
    seen = shapely.Polygon(lonlat_outline(radar_pass.raster)).intersection(side)
    return shapely.Polygon(np.round(shapely.get_coordinates(seen), 7))


def write_pass(paths: dict[str, Path], spec: WorldSpec, radar_pass: Pass) -> None:
    """Write a pass: one COG for ``vv`` and one for ``vh``, float32, nodata -32768."""
    raster = radar_pass.raster
    table = backscatter_table(radar_pass.sensed.timetuple().tm_yday, spec.lat < 0)
    look_x, look_y = look_of(radar_pass.direction)
    seed = spec.seed * 64 + radar_pass.index * 4
    blocks = land.blocks_of(around(spec, raster), spec.seed)
    with ExitStack() as stack:
        outputs = [
            stack.enter_context(
                cog(
                    paths[name], raster, "float32", nodata=NODATA, block_px=spec.block_px, compress=spec.compress,
                    overviews="average",
                )
            )
            for name in ("vv", "vh")
        ]  # fmt: skip
        for row in range(0, raster.shape[0], 512):
            x, y = places(spec, raster, (row, min(row + 512, raster.shape[0])))
            here = land.ground(x, y, spec.seed, blocks)
            rise_x, rise_y = land.slope(x, y, spec.seed)
            out = np.empty(x.shape, np.float32)
            for polarisation, write in enumerate(outputs):
                echo(
                    x, y, here.surface, here.vary, here.texture, rise_x, rise_y, table, polarisation, look_x, look_y,
                    radar_pass.edge, 10.0 * BORDER_PX, seed, row, out,
                )  # fmt: skip
                write(row, rounded(out))
