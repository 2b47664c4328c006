"""What a dataset looks like before there are pixels: groups, variables and the Zarr v3 documents that describe them.

The documents are made here by hand and not by a library, so that their bytes depend on the layout alone: a build that
is resumed with another release of zarr-python still publishes the same store. ``docs/store.md`` says it in words.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

LAYOUT_VERSION = 1
"""Counts up when a reader of the old layout would read the new one wrongly."""

STORE = "chips.zarr"
"""Folder of the Zarr store within the output. In an Icechunk repository no such folder exists, and keys begin with it
all the same."""

REPOSITORY = "chips.icechunk"
"""Folder of an Icechunk repository in the dataset; all versions share it."""

COMMITTED = "icechunk.json"
"""Where the store of a version is that lies in a repository: the repository, the tag and its snapshot."""

SHARD_BYTES = 128 * 2**20
"""Raw size a Zarr shard stays under: zarr-python encodes a whole shard in memory, several at a time."""

COORDINATE_CHUNK = 65_536
"""Chips in one chunk of a coordinate: one object for any dataset of ordinary size."""

CHIP_COORDINATES: dict[str, tuple[str, dict[str, Any]]] = {
    "chip": ("string", {"long_name": "name of the chip: EPSG code, column and row of the grid"}),
    "split": ("string", {"long_name": "train, val, test, or buffer (left out between splits)"}),
    "status": ("string", {"long_name": "ok, partial or empty: whether every, some or no source has pixels"}),
    "epsg": ("int32", {"long_name": "EPSG code of the chip's coordinate system"}),
    "x0": ("float64", {"long_name": "easting of the outer edge of the upper-left pixel", "units": "m"}),
    "y0": ("float64", {"long_name": "northing of the outer edge of the upper-left pixel", "units": "m"}),
    "lon": ("float64", {"long_name": "longitude of the centre", "standard_name": "longitude", "units": "degrees_east"}),
    "lat": ("float64", {"long_name": "latitude of the centre", "standard_name": "latitude", "units": "degrees_north"}),
}
"""Coordinates on ``chip``, in the root and again in every group: name -> (dtype, attributes)."""

NAT = -(2**63)
"""How a missing time is stored; NumPy's own bit pattern of NaT."""

# CF, and what xarray itself writes: int64 since the epoch reads the same in every Zarr library, while the data type
# `numpy.datetime64` is an extension that not all of them know.
TIME_ATTRS = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian", "standard_name": "time"}

_ITEMSIZE = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8, "int64": 8,
    "float32": 4, "float64": 8, "datetime64[s]": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variable:
    """One array of a group, told without its leading ``chip`` dimension."""

    group: str
    name: str
    dims: tuple[str, ...]
    """Dimensions after ``chip``: ``("time", "band", "y", "x")``."""
    shape: tuple[int, ...]
    """Lengths of ``dims``; ``time`` may be padded."""
    dtype: str
    """A NumPy name: bool, (u)int8…64, float32, float64, ``datetime64[s]`` (a coordinate, UTC)."""
    fill: int | float | str | None
    """What is read where nothing was written: void. Kept as ``"NaN"`` for floats and ``"NaT"`` for times.

    None for whole numbers and masks in which every value is an answer, as in a count of observations: they are 0 where
    nothing was written.
    """
    attrs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """CF attributes; JSON values."""
    void: bool | None = None
    """Whether ``fill`` means void and is the CF ``_FillValue`` too, which makes xarray decode to floats with NaN.

    Follows from ``fill`` when it is not given. False keeps a layer of classes whole numbers. Floats and times have no
    choice: NaN and NaT are void.
    """

    def __post_init__(self) -> None:
        if self.dtype not in _ITEMSIZE:
            raise ValueError(f"{self.group}/{self.name}: dtype '{self.dtype}' is not one of {', '.join(_ITEMSIZE)}")
        if len(self.dims) != len(self.shape) or "chip" in self.dims or min(self.shape, default=1) < 1:
            raise ValueError(f"{self.group}/{self.name}: dims {self.dims} (without chip) do not fit {self.shape}")
        _set(self, dims=tuple(self.dims), shape=tuple(int(length) for length in self.shape))
        given = self.attrs.get("_FillValue")
        void = self.fill is not None and self.void is not False
        fill: int | float | str
        if self.dtype == "datetime64[s]":
            fill, void = "NaT", True
        elif self.dtype.startswith("float"):
            # NaN is void by itself: no _FillValue needed, which xarray spells as base64 for floats.
            fill, void = "NaN", True
            if isinstance(self.fill, int | float) and not math.isnan(self.fill):
                raise ValueError(f"{self.group}/{self.name}: the void of floats is NaN, not {self.fill}")
        else:
            fill = int(self.fill or 0)
            if void and given is not None and int(given) != fill:
                raise ValueError(f"{self.group}/{self.name}: _FillValue {given} is not the fill value {fill}")
        attrs = {key: _plain(value) for key, value in self.attrs.items() if key != "_FillValue"}
        _set(self, fill=fill, void=void and self.dtype != "bool", attrs=attrs)

    @property
    def key(self) -> tuple[str, str]:
        """(group, name): how arrays are named when a shard is written."""
        return (self.group, self.name)

    @property
    def path(self) -> str:
        """Where the array lies in the output: ``chips.zarr/s2/reflectance``."""
        return f"{STORE}/{self.group}/{self.name}"

    @property
    def spatial(self) -> bool:
        """Whether the variable has pixels, and not only a value a chip or a date."""
        return "y" in self.dims or "x" in self.dims

    @property
    def bytes_per_chip(self) -> int:
        """Raw size of one chip."""
        return math.prod(self.shape) * _ITEMSIZE[self.dtype]

    @property
    def stored_dtype(self) -> str:
        """Data type in the store: times are int64 seconds since 1970."""
        return "int64" if self.dtype == "datetime64[s]" else self.dtype

    @property
    def stored_fill(self) -> int | float | str | bool:
        """The fill value as Zarr spells it in JSON."""
        if self.dtype == "bool":
            return bool(self.fill)
        return NAT if self.fill == "NaT" else self.fill or 0

    def chunk_shape(self, n: int) -> tuple[int, ...]:
        """What is read at once, ``chip`` in front: one time of one chip with all bands; small arrays ``n`` chips."""
        if not self.spatial:
            return (n, *self.shape)
        return (1, *(1 if dim == "time" else length for dim, length in zip(self.dims, self.shape, strict=True)))

    def shard_shape(self, n: int, steps: int | None = None) -> tuple[int, ...]:
        """What is written at once, ``chip`` in front: the most chips that divide ``n`` and stay under 128 MiB.

        With ``steps`` it holds so many of a time axis. Without, all, and only where a single chip is larger than that
        its time axis is cut, into equal parts.
        """
        if not self.spatial:
            return (n, *self.shape)
        length = self.shape[0] if self.dims[0] == "time" else 1
        size = max(self.bytes_per_chip // length * min(steps or length, length), 1)
        chips = max((k for k in range(1, n + 1) if n % k == 0 and k * size <= SHARD_BYTES), default=1)
        at_once = min(steps or math.ceil(length / math.ceil(size / SHARD_BYTES)), length)
        return (chips, *(at_once if dim == "time" else extent for dim, extent in self.axes()))

    def axes(self) -> tuple[tuple[str, int], ...]:
        """(dimension, length) pairs after ``chip``."""
        return tuple(zip(self.dims, self.shape, strict=True))


@dataclass(frozen=True, slots=True)
class Coordinate:
    """Values along one dimension of a group other than ``chip``: bands, periods, orbits."""

    name: str
    dim: str
    """Dimension it lies on; a coordinate named as its dimension becomes its index."""
    dtype: str
    """``string``, ``datetime64[s]`` (UTC) or a numeric NumPy name."""
    values: tuple[Any, ...]
    """Times as ``datetime``, ``numpy.datetime64`` or ISO text; kept as ISO text without a zone."""
    attrs: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.dtype not in _ITEMSIZE and self.dtype != "string":
            raise ValueError(f"coordinate {self.name}: dtype '{self.dtype}' is not string or {', '.join(_ITEMSIZE)}")
        plain = _iso if self.dtype == "datetime64[s]" else _plain
        _set(
            self,
            values=tuple(plain(value) for value in self.values),
            attrs={key: _plain(value) for key, value in self.attrs.items()},
        )


@dataclass(frozen=True, slots=True)
class Group:
    """One source of the dataset, or all labels: a group of the store that opens by itself."""

    name: str
    attrs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    coords: tuple[Coordinate, ...] = ()
    steps: int | None = None
    """Published length of a padded ``time`` axis; None means all of it. Shards keep their padded shape."""
    wider_m: float = 0.0
    """How far its chips reach beyond those of the grid on every side, in metres; below 0 they are narrower."""

    def __post_init__(self) -> None:
        _set(self, attrs={key: _plain(value) for key, value in self.attrs.items()}, coords=tuple(self.coords))

    @property
    def corner_off(self) -> dict[str, float]:
        """What the coordinates of its chips' corner have beyond those of the index, in metres."""
        return {"x0": -self.wider_m, "y0": self.wider_m}


@dataclass(frozen=True, slots=True)
class Layout:
    """The whole store: its groups, its variables, and how its chips are dealt to shards."""

    groups: tuple[Group, ...]
    variables: tuple[Variable, ...]
    n_chips: int
    size_px: int
    """Side of a chip on the grid of the recipe; a group of another resolution has other lengths."""
    shard_chips: int
    """Chips of a shard of the plan, the unit of work; the last shard may have fewer."""
    attrs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Attributes of the root group: name of the dataset, resolution, licence, whatever the recipe says."""
    store: Literal["zarr", "icechunk"] = "zarr"
    """Whether the Zarr store lies in a folder or in an Icechunk repository."""

    def __post_init__(self) -> None:
        _set(
            self,
            groups=tuple(self.groups),
            variables=tuple(self.variables),
            attrs={key: _plain(value) for key, value in self.attrs.items()},
        )
        if self.n_chips < 1 or self.shard_chips < 1:
            raise ValueError(f"a layout has at least one chip and one chip a shard, not {self.n_chips} in shards of "
                             f"{self.shard_chips}")  # fmt: skip
        names = [group.name for group in self.groups]
        paths = [variable.path for variable in self.variables]
        paths += [f"{STORE}/{group.name}/{coord.name}" for group in self.groups for coord in group.coords]
        paths += [f"{STORE}/{name}/{coord}" for name in names for coord in CHIP_COORDINATES]
        for found in (names, paths):
            if twice := sorted({name for name in found if found.count(name) > 1}):
                raise ValueError(f"these names stand twice in the layout: {', '.join(twice)}")
        for variable in self.variables:
            if variable.group not in names:
                raise ValueError(f"{variable.group}/{variable.name}: the layout has no group '{variable.group}'")
        for group in self.groups:
            lengths: dict[str, int] = {}
            axes = [axis for variable in self.of(group.name) for axis in variable.axes()]
            for dim, length in [*axes, *((coord.dim, len(coord.values)) for coord in group.coords)]:
                if lengths.setdefault(dim, length) != length:
                    raise ValueError(f"group {group.name}: dimension '{dim}' is both {lengths[dim]} and {length} long")

    @property
    def entry(self) -> str:
        """What a reader begins with, in the folder of the dataset: the store, or what names its commit."""
        return COMMITTED if self.store == "icechunk" else STORE

    @property
    def object_steps(self) -> int | None:
        """Dates in one object; None for all of a chip's.

        One in a repository: what later dates are added to stays as it is, and a version takes the room of what is new.
        """
        return 1 if self.store == "icechunk" else None

    @property
    def n_shards(self) -> int:
        """Number of shards of the plan."""
        return -(-self.n_chips // self.shard_chips)

    def chips_of(self, ordinal: int) -> range:
        """Positions along ``chip`` of one shard."""
        return range(ordinal * self.shard_chips, min((ordinal + 1) * self.shard_chips, self.n_chips))

    def of(self, group: str) -> tuple[Variable, ...]:
        """The variables of one group."""
        return tuple(variable for variable in self.variables if variable.group == group)

    def group(self, name: str) -> Group:
        """The group of that name; KeyError when there is none."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def trimmed(self, steps: Mapping[str, int]) -> Layout:
        """The same layout with the padded time axes of some groups published shorter (at least one step)."""
        return replace(
            self,
            groups=tuple(
                replace(group, steps=max(1, steps[group.name])) if group.name in steps else group
                for group in self.groups
            ),
        )

    def padded(self) -> Layout:
        """The same layout with the time axes that shards were written with."""
        return replace(self, groups=tuple(replace(group, steps=None) for group in self.groups))

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back to an equal layout."""
        return {
            "layout_version": LAYOUT_VERSION,
            "n_chips": self.n_chips,
            "size_px": self.size_px,
            "shard_chips": self.shard_chips,
            **({} if self.store == "zarr" else {"store": self.store}),
            "attrs": dict(self.attrs),
            "groups": [
                {
                    "name": group.name,
                    "steps": group.steps,
                    **({"wider_m": group.wider_m} if group.wider_m else {}),
                    "attrs": dict(group.attrs),
                    "coords": [
                        {
                            "name": coord.name,
                            "dim": coord.dim,
                            "dtype": coord.dtype,
                            "values": list(coord.values),
                            "attrs": dict(coord.attrs),
                        }
                        for coord in group.coords
                    ],
                }
                for group in self.groups
            ],
            "variables": [
                {
                    "group": variable.group,
                    "name": variable.name,
                    "dims": list(variable.dims),
                    "shape": list(variable.shape),
                    "dtype": variable.dtype,
                    "fill": variable.fill,
                    "void": variable.void,
                    "attrs": dict(variable.attrs),
                }
                for variable in self.variables
            ],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Layout:
        """The layout that ``to_json`` described; ValueError when it is of another version."""
        if found.get("layout_version") != LAYOUT_VERSION:
            raise ValueError(
                f"layout version {found.get('layout_version')} was found, this release knows {LAYOUT_VERSION}"
            )
        return cls(
            groups=tuple(
                Group(
                    name=group["name"],
                    attrs=group["attrs"],
                    coords=tuple(Coordinate(**{**c, "values": tuple(c["values"])}) for c in group["coords"]),
                    steps=group["steps"],
                    wider_m=group.get("wider_m", 0.0),
                )
                for group in found["groups"]
            ),
            variables=tuple(
                Variable(**{**v, "dims": tuple(v["dims"]), "shape": tuple(v["shape"])}) for v in found["variables"]
            ),
            n_chips=found["n_chips"],
            size_px=found["size_px"],
            shard_chips=found["shard_chips"],
            attrs=found["attrs"],
            store=found.get("store", "zarr"),
        )


def canonical(value: Any) -> bytes:
    """JSON bytes that are equal for equal values: keys sorted, one line, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _set(value: Any, **fields: Any) -> None:
    """Set fields of a frozen dataclass from its own ``__post_init__``."""
    for name, content in fields.items():
        object.__setattr__(value, name, content)


def _plain(value: Any) -> Any:
    """JSON value of ``value``: NumPy scalars become numbers, tuples become lists; what JSON cannot say is refused."""
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, without importing NumPy for it
        return _plain(value.tolist())
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError(f"{value!r} cannot stand in a JSON document")


def _iso(value: Any) -> str:
    """Time in UTC as ISO text to the second, without a zone: ``2018-04-01T00:00:00``."""
    if hasattr(value, "astype"):
        value = str(value.astype("datetime64[s]"))
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return str(value.isoformat(timespec="seconds"))
