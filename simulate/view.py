"""The simulated ground as a sensor that lies off sees it: nothing is resampled, so the shift is exact and known.

The files of a world are drawn at the middles of their pixels. Here each pixel is the mean of many places, as a sensor
sees it, so that half a pixel is half a pixel; and there is no grain, which stands still on the grid of pixels and would
draw every measured shift to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simulate import landscape, optical
from simulate.frame import places
from simulate.world import Raster, WorldSpec

NO_CLOUDS = 9.0
"""A level that no cloud reaches."""


def view(
    spec: WorldSpec,
    date: int,
    raster: Raster,
    *,
    moved_m: tuple[float, float] = (0.0, 0.0),
    bands: Sequence[str] = ("B04", "B08"),
    fine: int = 4,
    clouds: bool = False,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Digital numbers ``(band, y, x)`` without offset or noise, and what is neither cloud nor shadow ``(y, x)``.

    Args:
        spec: The world.
        date: Number of its acquisition, which decides season, sun and clouds.
        raster: Pixels that the image is said to have.
        moved_m: (east, north) in metres by which the ground lies off in them.
        bands: By the names of Sentinel-2.
        fine: Places a pixel along each axis.
        clouds: Draw those of the acquisition.
    """
    acquisition = optical.acquisitions(spec)[date]
    rows, cols = raster.shape
    dense = replace(
        raster,
        x0=raster.x0 - moved_m[0],
        y0=raster.y0 - moved_m[1],
        step_x=raster.step_x / fine,
        step_y=raster.step_y / fine,
        shape=(rows * fine, cols * fine),
    )
    x, y = places(spec, dense)
    ground = landscape.ground(x, y, spec.seed)
    road = (ground.road_m < ground.road_half_m).astype(np.float32)
    sky = optical.sky(spec, acquisition)
    levels = (sky.level, sky.cirrus_level) if clouds else (NO_CLOUDS, NO_CLOUDS)
    out, scl = np.empty((len(bands), *x.shape), np.uint16), np.empty(x.shape, np.uint8)
    optical.render(
        x, y, ground.surface, road, ground.vary, ground.texture,
        optical.sunlight(*landscape.slope(x, y, spec.seed), acquisition), landscape.elevation(x, y, spec.seed),
        optical.snowy(optical.colours(acquisition.day)), optical.UNEVEN, np.zeros_like(optical.GRAIN),
        np.array([optical.BANDS.index(band) for band in bands]), np.array(optical.CLOUD),
        np.array(optical.HAZE), np.array(optical.SKYLIGHT), sky.seed, *levels, sky.shift_x, sky.shift_y, 1e12, 1e9,
        0, 0, 0, 0.0, 1, out, scl,
    )  # fmt: skip
    hidden: npt.NDArray[Any] = np.isin(scl, (3, 8, 9, 10)).reshape(rows, fine, cols, fine)
    pixels: npt.NDArray[np.float64] = out.reshape(len(bands), rows, fine, cols, fine).mean((2, 4))
    clear: npt.NDArray[np.bool_] = np.asarray(~hidden.any(axis=(1, 3)))
    return pixels, clear
