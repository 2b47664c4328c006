"""How the numbers of a measured variable are stored: as in the files, with a void that is never a measurement.

Sensors differ in dtype, scale, offset and void. Nothing is converted: a number in the store is the number in the file
(after the offset of its scene, for Sentinel-2), and the attributes say how it becomes physical.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalog.collections import Band
    from catalog.scene import Scene

RANGES: dict[str, tuple[int, int]] = {
    "uint8": (0, 2**8 - 1),
    "int8": (-(2**7), 2**7 - 1),
    "uint16": (0, 2**16 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "uint32": (0, 2**32 - 1),
    "int32": (-(2**31), 2**31 - 1),
}
"""Smallest and largest number of the integer types that are stored."""

WIDER = {"uint8": "int16", "int8": "int16", "uint16": "int32", "int16": "int32"}
"""The type that has room for a void where every number of a type is a measurement."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """Physical value = stored * scale + offset, where stored is not void."""

    dtype: str
    void: float
    """NaN for floats."""
    scale: float = 1.0
    offset: float = 0.0
    units: str = "1"
    """Of the physical value; empty where nobody says."""

    @property
    def floating(self) -> bool:
        """Whether void is NaN."""
        return self.dtype.startswith("float")

    @property
    def fill(self) -> float | int:
        """Void as a number of the dtype."""
        return self.void if self.floating else int(self.void)


REFLECTANCE = Encoding("uint16", 0, 0.0001)
"""Sentinel-2 after the offset of its baseline: 10,000 is a reflectance of 1."""
POWER = Encoding("float32", math.nan)
METRES = Encoding("float32", math.nan, units="m")


def encoding_for(
    dtype: str, nodata: float | None, *, scale: float = 1.0, offset: float = 0.0, units: str = "1"
) -> Encoding:
    """How a band of this type and void is stored.

    Floats are float32 with NaN. Integers keep their type and their void. Two cases have no void of their own: without
    ``nodata`` every number is a measurement, so the next wider type is taken, with void just below the range (uint8
    aerial photographs become int16 with -1); and a void of 0 or more in a signed type lies among the measurements
    (interpolating and averaging would hit it), so void is the smallest number of the type instead.

    Raises:
        ValueError: A type that cannot be stored.
    """
    if dtype.startswith("float"):
        return Encoding("float32", math.nan, scale, offset, units)
    if dtype not in RANGES:
        raise ValueError(f"numbers of type {dtype} cannot be stored; wanted a float type or {', '.join(RANGES)}")
    low, high = RANGES[dtype]
    if nodata is None or math.isnan(nodata) or not low <= nodata <= high:
        if dtype not in WIDER:
            raise ValueError(f"{dtype} without a void value cannot be stored; describe which value is void (nodata)")
        return Encoding(WIDER[dtype], min(low, 0) - 1, scale, offset, units)
    void = low if low < 0 <= nodata else int(nodata)
    return Encoding(dtype, void, scale, offset, units)


UNITS = {"temperature": "K", "value": ""}
"""By kind of band, where its row names none; everything else is a ratio or a plain number."""


def encoding_of(source: str, bands: Sequence[Band]) -> Encoding:
    """The encoding of the measured bands of a source, from their rows in the table of collections.

    Raises:
        ValueError: The bands differ in type, void, scale or offset, or are of a type that cannot be stored.
    """
    return one_encoding(
        source,
        [
            (
                band.name,
                encoding_for(
                    band.dtype,
                    band.nodata,
                    scale=band.scale,
                    offset=band.offset,
                    units=UNITS.get(band.kind, "1") if band.units is None else band.units,
                ),
            )
            for band in bands
        ],
    )


def one_encoding(source: str, bands: Sequence[tuple[str, Encoding]]) -> Encoding:
    """The encoding that all bands of a source share.

    Args:
        source: Name of the source, for the error.
        bands: (band, its encoding).

    Raises:
        ValueError: Bands differ; the sentence names one of each.
    """
    first_band, first = bands[0]
    for band, other in bands[1:]:
        if repr(other) != repr(first):  # NaN is not equal to itself
            raise ValueError(
                f"source {source}: bands '{first_band}' ({told(first)}) and '{band}' ({told(other)}) are stored "
                "differently and cannot share one variable; make two sources of them"
            )
    return first


def told(encoding: Encoding) -> str:
    """An encoding in words: ``int16, scale 0.0001, offset 0, void -9999``, and its units where it has some."""
    units = f", in {encoding.units}" if encoding.units not in ("", "1") else ""
    return f"{encoding.dtype}, scale {encoding.scale:g}, offset {encoding.offset:g}, void {encoding.void:g}{units}"


def check_types(encoding: Encoding, bands: Sequence[str], scenes: Sequence[Scene]) -> None:
    """Refuse scenes whose files hold numbers that the stored type cannot: they would be cut, wrapped or truncated.

    The known trap: negative reflectances of Landsat Collection 1 exported as uint16, where -1 shows as 65535. What is
    read then is not what was measured, and nothing later can tell.

    Raises:
        CatalogError: An asset is of such a type, by what its item or its header says.
    """
    from curate.errors import CatalogError

    if encoding.floating:
        return
    low, high = RANGES[encoding.dtype]
    for scene in scenes:
        for asset in scene.assets:
            if asset.band not in bands or not (asset.dtype in RANGES or asset.dtype.startswith("float")):
                continue
            least, most = RANGES.get(asset.dtype, (-math.inf, math.inf))
            if low <= least and most <= high:
                continue
            hint = (
                "negative values would show as 65xxx: write the file anew with the right type, or describe the band as "
                f"{asset.dtype} if no value is negative"
                if asset.dtype == f"u{encoding.dtype}"
                else f"describe the band as {asset.dtype}"
            )
            raise CatalogError(
                scene.id, f"band {asset.band} holds {asset.dtype}, but is stored as {encoding.dtype}; {hint}"
            )


def cf_attrs(encoding: Encoding) -> dict[str, Any]:
    """CF attributes of an encoding, without the void; only those that change anything."""
    attrs: dict[str, Any] = {"units": encoding.units} if encoding.units else {}
    if encoding.scale != 1:
        attrs["scale_factor"] = encoding.scale
    if encoding.offset != 0:
        attrs["add_offset"] = encoding.offset
    return attrs
