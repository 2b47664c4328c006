"""Which pixels are hidden: the classes of a quality layer, and how far around them we do not trust the surface.

Void is always hidden, whatever the recipe says: what was not seen cannot be clear. The same words work for the layer
of every sensor (``cube.quality``); one that a layer does not tell hides nothing there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types

from cube.quality import (
    QualityTable,
    check_hide,
    check_word,
    lookup,
    own_table,
    quality_table,
    table_of_layer,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TableName = Literal[
    "scl",
    "qa_pixel",
    "pixel_qa",
    "fmask",
    "oa_fmask",
    "cloud_probability",
    "snow_probability",
    "cloud_fraction",
    "snow_fraction",
]


FURTHEST_M = 10_000
"""Clouds are grown by no more than this, because as wide a ring of files is read around every chip."""


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """Which pixels count as hidden."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    hide: tuple[str | int, ...] = ("void", "saturated", "shadow", "cloud", "cirrus")
    """What hides the surface: words (void, saturated, dark, shadow, vegetation, bare, water, unclassified, cloud,
    near_cloud, cirrus, snow, haze) or numbers of the quality layer (codes; bits in Landsat's and HLS's). Void always
    hides. A word that the layer of a sensor does not tell hides nothing."""
    dilate_m: Annotated[float, annotated_types.Interval(ge=0, le=FURTHEST_M)] = 0.0
    """Metres by which hidden areas are grown, void and saturated pixels apart: clouds are bigger than their mask."""
    layer: str | None = None
    """Band that holds the quality classes; empty means the one the collection is known to have."""
    table: TableName | None = None
    """How the numbers of the layer are read; empty means by the layer's name or the collection."""
    threshold: Annotated[float, annotated_types.Interval(gt=0, le=100)] | None = None
    """For a layer of probabilities: percent from which it hides. Empty: the usual one of that layer."""
    meanings: Mapping[int, str] | None = field(default=None, hash=False)
    """For a mask of your own, value -> word: `{1: cloud, 2: cloud, 3: shadow}`. Values that are not told are clear;
    when none means void, the pixels of the first band tell what was seen."""

    def __post_init__(self) -> None:
        check_hide(self.hide)
        if not 0 <= self.dilate_m <= FURTHEST_M:
            raise ValueError(f"dilate_m is {self.dilate_m:g}, wanted a distance of 0 to {FURTHEST_M:,} metres")
        if self.threshold is not None and not 0 < self.threshold <= 100:
            raise ValueError(f"threshold is {self.threshold}, wanted a percentage above 0 and up to 100")
        if self.meanings is not None:
            if self.layer is None:
                raise ValueError("'meanings' tells the values of a layer; wanted 'layer: <band>' beside it")
            if self.table is not None or self.threshold is not None:
                raise ValueError("'meanings' is a table of its own; remove 'table' and 'threshold'")
            for value, word in self.meanings.items():
                check_word(word)
                if not 0 <= value <= 255:
                    raise ValueError(f"value {value} of 'meanings' is not one of a mask; wanted 0 to 255")
        elif self.table is not None:
            _check_threshold(self, quality_table(self.table))


def which_layer(
    spec: MaskSpec, quality: str | None, quality_table_name: str | None
) -> tuple[str | None, QualityTable | None]:
    """The band that masks and the table it is read by; (None, None) where the source has no quality layer.

    Args:
        spec: What the recipe asks for; it may name another layer than the collection's.
        quality: Band of the collection's own quality layer, if any.
        quality_table_name: Name of that band's table.

    Raises:
        ValueError: Nothing tells how the layer is read, or a threshold is given for classes.
    """
    band = spec.layer or quality
    if band is None:
        return None, None
    if spec.meanings is not None:
        return band, own_table(spec.meanings)
    name = spec.table
    if name is None:
        named = quality_table_name if band == quality else None
        found = named or table_of_layer(band)
        if found is None:
            raise ValueError(
                f"nothing tells what the values of layer '{band}' mean; wanted 'table: …' (a known one) or "
                "'meanings: {value: word, …}' beside it"
            )
        table = quality_table(found)
    else:
        table = quality_table(name)
    _check_threshold(spec, table)
    return band, table


def _check_threshold(spec: MaskSpec, table: QualityTable) -> None:
    if spec.threshold is not None and table.kind != "probability":
        raise ValueError(
            f"'threshold' is for layers of probabilities and the table '{table.name}' has {table.kind}; remove it or "
            "name another layer"
        )
    lookup(table, spec.hide, spec.threshold)  # refuses numbers that the layer cannot hold


def untold(spec: MaskSpec, table: QualityTable) -> tuple[str, ...]:
    """Words of ``hide`` that a layer cannot tell, in their order."""
    told = table.words | {"void"}
    return tuple(item for item in spec.hide if isinstance(item, str) and item not in told)


def halo_px(spec: MaskSpec, resolution_m: float) -> int:
    """Pixels that a quality layer must be read beyond an edge, so that growing clouds leaves no seam there."""
    return math.ceil(spec.dilate_m / resolution_m)


def clear_mask(
    layer: npt.NDArray[np.uint8 | np.uint16], spec: MaskSpec, resolution_m: float, table: QualityTable | None = None
) -> npt.NDArray[np.bool_]:
    """True where the surface is seen, of the same dims ``(time, y, x)`` as the layer.

    Hidden areas are grown by a disk of ``dilate_m`` around pixel centres. Near the edges of the array that is only
    right if the array was read ``halo_px`` wider than needed.

    Args:
        layer: Numbers of the quality layer.
        spec: What hides.
        resolution_m: Side of a pixel.
        table: What the numbers mean; None for Sentinel-2's scene classification.
    """
    from cube.grow import hide_around

    answers = lookup(table or quality_table("scl"), tuple(spec.hide), spec.threshold)
    clear: npt.NDArray[np.bool_] = ~answers.hidden[layer]
    reach = spec.dilate_m / resolution_m
    if reach >= 1 and answers.grows.any():
        for step, seen in zip(answers.grows[layer], clear, strict=True):
            hide_around(step, reach, seen)
    return clear
