"""Which pixels are hidden: the classes of a quality layer, and how far around them we do not trust the surface.

Void is always hidden, whatever the recipe says: what was not seen cannot be clear.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import annotated_types

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Codes and meanings of the Sen2Cor scene classification, as ESA and Google Earth Engine list them:
# https://sentiwiki.copernicus.eu/web/s2-processing#S2Processing-SceneClassification
# https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S2_SR_HARMONIZED
SCL_NAMES: dict[int, str] = {
    0: "no_data",
    1: "saturated_or_defective",
    2: "dark_area",
    3: "cloud_shadow",
    4: "vegetation",
    5: "not_vegetated",
    6: "water",
    7: "unclassified",
    8: "cloud_medium_probability",
    9: "cloud_high_probability",
    10: "thin_cirrus",
    11: "snow_or_ice",
}

SCL_VOID = 0

HIDE_NAMES: dict[str, frozenset[int]] = {
    "void": frozenset({0}),
    "saturated": frozenset({1}),
    "dark": frozenset({2}),
    "shadow": frozenset({3}),
    "vegetation": frozenset({4}),
    "bare": frozenset({5}),
    "water": frozenset({6}),
    "unclassified": frozenset({7}),
    "cloud": frozenset({8, 9}),
    "cirrus": frozenset({10}),
    "snow": frozenset({11}),
}
"""The words a recipe uses in ``hide``, and the SCL codes they stand for."""

NEVER_GROWN = frozenset({0, 1})
"""Void and saturated pixels say nothing about their neighbours: only weather is grown by ``dilate_m``."""


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """Which pixels count as hidden."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    hide: tuple[str | int, ...] = ("void", "saturated", "shadow", "cloud", "cirrus")
    """What hides the surface: words (void, saturated, dark, shadow, vegetation, bare, water, unclassified, cloud,
    cirrus, snow) or code numbers of the quality layer. Void always hides."""
    dilate_m: Annotated[float, annotated_types.Ge(0)] = 0.0
    """Metres by which hidden areas are grown, void and saturated pixels apart: clouds are bigger than their mask."""
    layer: str | None = None
    """Band that holds the quality classes; empty means the one the collection is known to have."""

    def __post_init__(self) -> None:
        scl_codes(self.hide)
        if not self.dilate_m >= 0 or math.isinf(self.dilate_m):
            raise ValueError(f"dilate_m is {self.dilate_m}, wanted a distance of 0 or more metres")


def scl_codes(hide: Iterable[str | int]) -> frozenset[int]:
    """SCL codes that the words and numbers of ``hide`` stand for; void (0) is always among them.

    Raises:
        ValueError: A word that is not known, or a number outside 0-255.
    """
    codes = {SCL_VOID}
    for item in hide:
        if isinstance(item, str):
            if item not in HIDE_NAMES:
                near = difflib.get_close_matches(item, HIDE_NAMES, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(HIDE_NAMES)}"
                raise ValueError(f"'{item}' is not a class that can be hidden; {hint}")
            codes |= HIDE_NAMES[item]
        elif isinstance(item, bool) or not 0 <= item <= 255:
            raise ValueError(f"class {item} cannot be hidden; wanted a code from 0 to 255")
        else:
            codes.add(item)
    return frozenset(codes)


def halo_px(spec: MaskSpec, resolution_m: float) -> int:
    """Pixels that a quality layer must be read beyond an edge, so that growing clouds leaves no seam there."""
    return math.ceil(spec.dilate_m / resolution_m)


def clear_mask(scl: npt.NDArray[np.uint8], spec: MaskSpec, resolution_m: float) -> npt.NDArray[np.bool_]:
    """True where the surface is seen, of the same dims ``(time, y, x)`` as the classes.

    Hidden areas are grown by a disk of ``dilate_m`` around pixel centres. Near the edges of the array that is only
    right if the array was read ``halo_px`` wider than needed.
    """
    import numpy as np

    from cube.grow import hide_around

    codes = scl_codes(spec.hide)
    hidden = np.zeros(256, bool)
    hidden[sorted(codes)] = True
    clear = ~hidden[scl]
    reach = spec.dilate_m / resolution_m
    grown = sorted(codes - NEVER_GROWN)
    if reach >= 1 and grown:
        grows = np.zeros(256, bool)
        grows[grown] = True
        for step, seen in zip(grows[scl], clear, strict=True):
            hide_around(step, reach, seen)
    return clear
