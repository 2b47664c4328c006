"""Which resampling a band gets: by its kind, and by whether it becomes finer or coarser. One resample, never two."""

from __future__ import annotations

import math
from typing import Literal

BandKind = Literal["reflectance", "backscatter", "elevation", "classes"]

METHODS = ("nearest", "bilinear", "cubic", "average", "mode")
"""Methods a recipe may ask for, by GDAL's names."""

CLASS_METHODS = ("nearest", "mode")
"""Methods that never invent a class."""

# Ratios of pixel sizes come from floats such as 0.6 m; a thousandth of a pixel over a whole pixel is still "whole".
RATIO_TOLERANCE = 1e-3


def resampling_for(
    kind: BandKind, override: str | None = None, *, source_m: float | None = None, target_m: float | None = None
) -> str:
    """Name of the GDAL method for one band.

    Reflectance and backscatter (in linear power) are averaged when the target pixel is a whole number, two or more,
    of source pixels; classes take the majority then. Else values are interpolated and classes take the nearest.
    Where source and target grid agree no method changes a pixel.

    Args:
        kind: What the band holds.
        override: The method that the recipe asks for, if any.
        source_m: Pixel size of the file in metres, where it is known.
        target_m: Pixel size of the chips in metres.

    Raises:
        ValueError: The override is unknown, or would interpolate classes.
    """
    if override is not None:
        if override not in METHODS:
            raise ValueError(f"'{override}' is not a resampling method; known are {', '.join(METHODS)}")
        if kind == "classes" and override not in CLASS_METHODS:
            raise ValueError(f"'{override}' would invent classes; wanted one of {', '.join(CLASS_METHODS)}")
        return override
    coarsens = source_m is not None and target_m is not None and _whole_ratio(target_m / source_m)
    if kind == "classes":
        return "mode" if coarsens else "nearest"
    if kind == "elevation":
        return "bilinear"
    return "average" if coarsens else "bilinear"


def _whole_ratio(ratio: float) -> bool:
    return ratio > 1.5 and math.isclose(ratio, round(ratio), abs_tol=RATIO_TOLERANCE)


def pixels_a_side(side_m: float, resolution_m: float) -> int:
    """Number of pixels along a side, when it is a whole one.

    Raises:
        ValueError: It is not; the sentence names the nearest resolutions that work.
    """
    if not resolution_m > 0 or math.isinf(resolution_m):
        raise ValueError(f"resolution_m is {resolution_m}, wanted a pixel size above 0")
    exact = side_m / resolution_m
    count = round(exact)
    if count >= 1 and math.isclose(exact, count, rel_tol=1e-8):
        return count
    finer = max(math.ceil(exact), 1)
    coarser = max(math.floor(exact), 1)
    near = dict.fromkeys(f"{side_m / pixels:.9g} m ({pixels} px)" for pixels in (finer, coarser))
    raise ValueError(
        f"pixels of {resolution_m:g} m do not fill {side_m:g} m ({exact:.6g} px); the nearest that do: "
        f"{' and '.join(near)}; or choose chips of another size"
    )
