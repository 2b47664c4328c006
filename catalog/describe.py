"""A collection that has no table, described by the user: any STAC collection, or a folder, glob or list of rasters.

Of plain rasters items are made from the headers of the files: footprint, CRS, grid and type; the name of a file says
which scene, band and time it is. Light on purpose: recipes import this.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt

from catalog.collections import Band, BandKind, Collection

GROUPS = ("band", "time", "tile", "platform", "scene")
"""Names that a pattern may give to parts of a path."""
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_MEASURES: dict[str, BandKind] = {
    "optical": "reflectance",
    "sar": "backscatter",
    "elevation": "elevation",
    "classes": "classes",
    "values": "value",
}
_DTYPE = {"optical": "uint16", "sar": "float32", "elevation": "float32", "classes": "uint8", "values": "float32"}
BESIDE = ("quality", "angle")
"""Kinds of bands that stand beside the measurements, and have neither their type nor their scale."""


@dataclass(frozen=True, slots=True)
class BandSpec:
    """Where a band lies and what its numbers mean, where that differs from the rest of the collection."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    asset: str | None = None
    """Key of the asset in the items, or what the pattern calls `band`. Empty: the name of the band."""
    layer: Annotated[int, Ge(1)] = 1
    """Number of the layer in the file, from 1."""
    kind: BandKind | None = None
    """What it measures: `reflectance`, `brightness` of photographs, `temperature`, spectral `index`, `value` … ; the
    angle of incidence of radar is `angle`. Empty: what the collection measures; for the quality band `quality`."""
    dtype: str | None = None
    """Type of its numbers, also against what the file says: `int16` for negative numbers stored as uint16."""
    nodata: float | None = None
    """Void, also against what the file says."""
    scale: float | None = None
    """Physical value = stored * scale + offset."""
    offset: float | None = None
    """In physical units."""
    units: str | None = None
    """Unit of the physical value, `K`, `mm d-1` …"""
    center_um: Annotated[float, Gt(0)] | None = None
    """Centre wavelength in micrometres."""

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"dtype '{self.dtype}' is not known; wanted one of {', '.join(DTYPES)}")


@dataclass(frozen=True, slots=True)
class DescribeSpec:
    """A collection in a few lines: what it measures, its bands, and for plain files where the time stands."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    kind: Literal["optical", "sar", "elevation", "classes", "values"] = "optical"
    """What it measures: reflectance, backscatter in linear power, metres, classes, or any other values, as of
    weather."""
    bands: Mapping[str, BandSpec | str | int] | None = None
    """Our name of each band, and where it is: an asset key, a layer number, or more in a mapping of its own."""
    dtype: str | None = None
    """Type of the numbers of all measured bands. Empty: uint16, float32 for radar, elevation and other values."""
    nodata: float | None = None
    """Void of all measured bands. Empty: what the files say."""
    scale: float = 1.0
    """Physical value = stored * scale + offset."""
    offset: float = 0.0
    """In physical units."""
    units: str | None = None
    """Unit of the physical values of all measured bands. Empty: by kind, `K` for temperature; none for other values."""
    gsd_m: Annotated[float, Gt(0)] = 10.0
    """Native pixel size in metres."""
    quality: str | None = None
    """Which of the bands is the quality layer."""
    quality_table: str | None = None
    """How the quality layer is read: `scl`, `qa_pixel`, `fmask` …"""
    static: bool = False
    """The time of the recipe does not select its scenes. Elevation is always static."""
    pattern: str | None = None
    r"""Files: a regular expression on the path below the folder, e.g. `(?P<time>\d{8})_(?P<band>\w+)\.tif$`. Parts
    may be named `band`, `time`, `tile`, `platform` and `scene`; files that differ only in `band` are one scene. Files
    that do not match are left out."""
    time: str | None = None
    """Files: their time in UTC where the name does not say it, e.g. `2021-07-03`."""
    time_format: str | None = None
    """Files: how `time` is written, as for strptime, e.g. `%Y%j`. Empty: ISO 8601, with or without separators."""

    def __post_init__(self) -> None:
        bands = self.bands or {}
        if self.quality is not None and self.quality not in bands:
            raise ValueError(f"quality '{self.quality}' is not among the bands: {', '.join(bands) or 'none'}")
        if (self.quality is None) != (self.quality_table is None):
            raise ValueError("quality and quality_table belong together: which band it is, and how it is read")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"dtype '{self.dtype}' is not known; wanted one of {', '.join(DTYPES)}")
        if self.pattern is not None:
            try:
                named = re.compile(self.pattern).groupindex
            except re.error as error:
                raise ValueError(f"pattern {self.pattern!r} is not a regular expression: {error}") from error
            odd = sorted(set(named) - set(GROUPS))
            if odd:
                raise ValueError(f"pattern names the part {odd[0]!r}; there are: {', '.join(GROUPS)}")
        if self.time is not None:
            parse_file_time(self.time, None)


def described(name: str, spec: DescribeSpec) -> Collection:
    """The table of a described collection, in the place of ``catalog.collections.collection``."""
    given = spec.bands if spec.bands is not None else {"elevation" if spec.kind == "elevation" else "map": 1}
    bands = {band: _band(band, one, spec, len(given)) for band, one in given.items()}
    return Collection(
        id=name,
        title=name,
        kind=spec.kind,
        bands=bands,
        default_bands=tuple(name for name, band in bands.items() if band.kind not in BESIDE),
        quality=spec.quality,
        quality_table=spec.quality_table,
        mission=None,
        timeless=spec.static or spec.kind == "elevation",
        source="the recipe",
        described=True,
    )


def _band(name: str, one: BandSpec | str | int, spec: DescribeSpec, n: int) -> Band:
    if isinstance(one, int):
        one = BandSpec(layer=one)
    elif isinstance(one, str):
        one = BandSpec(asset=one)
    kind: BandKind = "quality" if name == spec.quality else one.kind or _MEASURES[spec.kind]
    dtype, nodata = one.dtype, one.nodata
    measures = kind not in BESIDE
    if measures:
        dtype = dtype or spec.dtype
        nodata = spec.nodata if nodata is None else nodata
    firm = tuple(what for what, value in (("dtype", dtype), ("nodata", nodata)) if value is not None)
    own = one.asset or name
    return Band(
        name=name,
        kind=kind,
        # `data` and `image` are the usual names where an item has but one file.
        keys=(own,) if one.asset else (own, FILE, "data", "image"),
        aliases=(one.asset,) if one.asset and one.asset != name and n > 1 else (),
        dtype=dtype or ("uint8" if kind == "quality" else _DTYPE[spec.kind]),
        nodata=nodata,
        scale=one.scale if one.scale is not None else spec.scale if measures else 1.0,
        gsd_m=spec.gsd_m,
        center_um=one.center_um,
        layer=one.layer,
        offset=one.offset if one.offset is not None else spec.offset if measures else 0.0,
        firm=firm,
        units=one.units or (spec.units if measures else None),
    )


FILE = "file"
"""Key of the asset of an item made of a single raster."""


def parse_file_time(text: str, form: str | None) -> dt.datetime:
    """A time as it stands in a file's name, UTC; ValueError with a sentence when it cannot be read."""
    try:
        time = dt.datetime.strptime(text, form) if form else dt.datetime.fromisoformat(text)
    except ValueError as error:
        wanted = f"one like {form}" if form else "ISO 8601 such as 20180530 or 2018-05-30T10:39:14"
        raise ValueError(f"time '{text}' cannot be read; wanted {wanted}") from error
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
