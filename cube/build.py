"""One source of one shard, from scenes to the arrays of its chips, in bounded memory."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cube.mask import SCL_NAMES, SCL_VOID, MaskSpec
from cube.steps import grown, join_steps
from cube.times import Interval, KeepSpec, TimeSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from catalog.scene import Scene
    from tiling.grid import Chip
    from tiling.shards import Window

Kind = Literal["reflectance", "backscatter", "elevation"]


@dataclass(frozen=True, slots=True)
class CubeRequest:
    """Everything that ``fill`` must know about one source of a recipe; the scenes and the place come beside it."""

    name: str
    """Name of the source in the recipe and of its group in the store: ``s2``."""
    kind: Kind
    """Decides dtype, void and resampling."""
    variable: str
    """Name of the main variable: ``reflectance``, ``backscatter``, ``elevation``."""
    bands: tuple[str, ...]
    size_px: int
    """Side of a chip."""
    resolution_m: float
    quality: str | None = None
    """Band that holds the classes of the mask (``scl``), or None: then what is not void is clear."""
    mask: MaskSpec = MaskSpec()
    time: TimeSpec | None = None
    """None means a static layer, as elevation is."""
    keep: KeepSpec = KeepSpec()
    periods: tuple[Interval, ...] = ()
    """The periods of a composite; for series and single one interval or none, to which the scenes are held."""
    orbits: tuple[str, ...] = ()
    """Orbit directions that are kept apart (``ascending``, ``descending``); empty means no split."""
    resampling: tuple[tuple[str, str], ...] = ()
    """(band, method) where the recipe asks for another method than the kind's."""
    apply_mask: bool = False
    """Series and single: make hidden pixels void. By default the pixels stay and the mask lies beside them."""
    reader: str = "rasterio"
    """Key of ``cube.load.READERS``; all give the same pixels, this one with the least copying."""
    steps: int = 1
    """Length of the time axis; ``steps_needed`` tells."""

    @property
    def dtype(self) -> str:
        """Of the main variable: uint16 for reflectance, else float32."""
        return "uint16" if self.kind == "reflectance" else "float32"

    @property
    def fill(self) -> float | int:
        """Void of the main variable: 0 for reflectance, else NaN."""
        return 0 if self.kind == "reflectance" else float("nan")


@dataclass(frozen=True, slots=True)
class CubeVariable:
    """One array of a source, without its leading ``chip`` dimension."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    fill: Any
    attrs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CubeRecord:
    """What became of one source on one chip."""

    dates: tuple[dt.datetime, ...] = ()
    """Dates whose pixels are used, in order."""
    scenes: tuple[str, ...] = ()
    """Ids of the scenes used, sorted."""
    clear: float = 0.0
    """Mean over the time axis (the dates kept, for series) of the share of clear pixels."""
    seen: int = 0
    """Dates with any pixel on the chip."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of dates seen and not used."""


@dataclass(slots=True)
class CubeData:
    """Arrays of one source with the chips of a shard in front, and a record a chip."""

    arrays: dict[str, npt.NDArray[Any]]
    records: list[CubeRecord]


BUDGET_BYTES = 512 * 2**20
"""Memory that the pixels of one window may take while they are read and folded, the chips themselves apart."""


def axis(request: CubeRequest) -> tuple[tuple[Interval, str | None], ...]:
    """Period and orbit direction of each step of a composite's time axis: orbits within periods."""
    return tuple((period, orbit) for period in request.periods for orbit in request.orbits or (None,))


def variables(request: CubeRequest) -> tuple[CubeVariable, ...]:
    """The arrays of a source, so that a store can be laid out before any pixel is read."""
    size, steps, bands = request.size_px, request.steps, len(request.bands)
    plane = (size, size)
    main_attrs = {**_MAIN_ATTRS[request.kind], "resampling": _resampling_text(request)}
    if request.time is None:
        flat = bands == 1
        dims, shape = (("y", "x"), plane) if flat else (("band", "y", "x"), (bands, *plane))
        return (CubeVariable(request.variable, dims, shape, request.dtype, request.fill, main_attrs),)
    composite = request.time.composite is not None
    out = [
        CubeVariable(
            request.variable,
            ("time", "band", "y", "x"),
            (steps, bands, *plane),
            request.dtype,
            request.fill,
            main_attrs,
        )
    ]
    if request.quality is not None:
        attrs = {
            "long_name": "scene classification",
            "resampling": dict(request.resampling).get(
                request.quality, "nearest, majority where pixels become coarser"
            ),
            "flag_values": list(SCL_NAMES),
            "flag_meanings": " ".join(SCL_NAMES.values()),
        }
        if composite:
            attrs["comment"] = "most frequent class of the clear observations, of all observations where none is clear"
        out.append(CubeVariable(request.quality, ("time", "y", "x"), (steps, *plane), "uint8", SCL_VOID, attrs))
    what = "pixels with at least one clear observation" if composite else "clear pixels"
    out.append(
        CubeVariable("clear", ("time",), (steps,), "float32", math.nan, {"long_name": f"share of {what}", "units": "1"})
    )
    if composite:
        attrs = {"long_name": "number of clear observations; of the band that has the fewest", "units": "1"}
        out.append(CubeVariable("count", ("time", "y", "x"), (steps, *plane), "uint8", None, attrs))
        return tuple(out)
    if request.quality is not None:
        attrs = {
            "long_name": "mask of clear pixels",
            "comment": f"classes hidden: {' '.join(map(str, request.mask.hide))}; grown by {request.mask.dilate_m:g} m",
            "flag_values": [0, 1],
            "flag_meanings": "hidden clear",
        }
        out.append(CubeVariable("clear_mask", ("time", "y", "x"), (steps, *plane), "uint8", None, attrs))
    out.append(
        CubeVariable(
            "acquired", ("time",), (steps,), "datetime64[s]", np.datetime64("NaT"), {"long_name": "time seen, UTC"}
        )
    )
    if request.kind == "backscatter":
        attrs = {
            "long_name": "orbit direction",
            "flag_values": list(ORBITS.values()),
            "flag_meanings": " ".join(ORBITS),
        }
        out.append(CubeVariable("orbit", ("time",), (steps,), "uint8", 0, attrs))
    return tuple(out)


_MAIN_ATTRS: dict[str, dict[str, Any]] = {
    "reflectance": {
        "long_name": "surface reflectance",
        "units": "1",
        # Stored numbers of Sentinel-2 after the offset of its baseline: 10,000 is a reflectance of 1.
        "scale_factor": 0.0001,
        "comment": "offsets of all scenes are applied; valid pixels are 1 or more",
    },
    "backscatter": {"long_name": "radar backscatter, linear power", "units": "1"},
    "elevation": {"long_name": "elevation", "units": "m"},
}

ORBITS = {"unknown": 0, "ascending": 1, "descending": 2}
"""Codes of the variable ``orbit``."""


def _resampling_text(request: CubeRequest) -> str:
    own = [f"{method} for {band}" for band, method in request.resampling if band in request.bands]
    rule = "bilinear" if request.kind == "elevation" else "bilinear, average where pixels become coarser"
    return "; ".join([f"{rule}; none where grids agree", *own])


def steps_needed(request: CubeRequest, scenes: Sequence[Scene], chips: Sequence[Chip]) -> int:
    """Length of the time axis.

    Composites: a step a period and orbit. Series: the largest number of acquisitions whose footprints meet one chip,
    at most ``max_dates``. Single: one, or one an orbit. Static: 1.
    """
    if request.time is None:
        return 1
    if request.time.composite is not None:
        return len(axis(request))
    if request.time.single is not None:
        return max(1, len(request.orbits))
    most = _most_dates(request, scenes, chips)
    return max(1, most if request.time.max_dates is None else min(most, request.time.max_dates))


def _most_dates(request: CubeRequest, scenes: Sequence[Scene], chips: Sequence[Chip]) -> int:
    import shapely

    from tiling.grid import footprints

    steps = join_steps(request, scenes)
    if not steps or not chips:
        return 0
    # Tiles are revisited: a year of scenes has a handful of distinct footprints.
    tree = shapely.STRtree(footprints(chips))
    touched: dict[bytes, npt.NDArray[np.intp]] = {}
    dates = np.zeros(len(chips), np.int64)
    for step in steps:
        met = np.zeros(len(chips), bool)
        for scene in step.scenes:
            key = shapely.to_wkb(scene.footprint)
            if key not in touched:
                touched[key] = tree.query(grown(scene.footprint), predicate="intersects")
            met[touched[key]] = True
        dates += met
    return int(dates.max())


def allocate(request: CubeRequest, n_chips: int) -> CubeData:
    """Arrays of void and empty records for the chips of a shard."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for variable in variables(request):
        shape = (n_chips, *variable.shape)
        # Zeros are not touched until they are written, other voids are.
        blank = variable.fill is None or variable.fill == 0
        arrays[variable.name] = (
            np.zeros(shape, variable.dtype) if blank else np.full(shape, variable.fill, variable.dtype)
        )
    return CubeData(arrays, [CubeRecord() for _ in range(n_chips)])


def fill(data: CubeData, request: CubeRequest, scenes: Sequence[Scene], window: Window) -> None:
    """Read a window of a shard and write its chips into the rows ``window.chips`` of ``data``.

    Args:
        data: From ``allocate``.
        request: What is asked.
        scenes: Scenes of this source; those that do not touch the window are left aside. Whole acquisitions, because
            the time of one is the earliest of its scenes.
        window: Where.

    Raises:
        ReadError: A file could not be read.
    """
    from cube.work import Work

    work = Work(data, request, scenes, window)
    if request.time is None:
        work.static()
    elif request.time.composite is not None:
        work.composites()
    else:
        work.dates()


def window_px(request: CubeRequest, scenes: Sequence[Scene], budget_bytes: int = BUDGET_BYTES) -> int:
    """Pixels of the largest window whose reading and folding stays inside a memory budget, the chips apart.

    Never less than one chip.
    """
    item = np.dtype(request.dtype).itemsize
    if request.time is None:
        per_px = 2 * item + 1  # one band, the reader's copy of it, and what of it is valid
    elif request.time.composite is None:
        per_px = 2 * item * len(request.bands) + 4  # one date
    else:
        # All dates of a period: the classes, their padded copy and masks; or the mask and one band with its copy.
        dates = _most_at_once(request, scenes)
        per_px = dates * max(4, 1 + 2 * item) + 3
    return max(budget_bytes // per_px, request.size_px**2)


def _most_at_once(request: CubeRequest, scenes: Sequence[Scene]) -> int:
    """Largest number of acquisitions in one period at one place, from footprints looked at in their middle and
    towards their corners, where neighbours overlap."""
    import shapely

    steps = join_steps(request, scenes)
    if not steps:
        return 1
    distinct = {shapely.to_wkb(scene.footprint): scene.footprint for step in steps for scene in step.scenes}
    tree = shapely.STRtree(list(distinct.values()))
    position = {key: i for i, key in enumerate(distinct)}
    looks = []
    for footprint in distinct.values():
        left, bottom, right, top = shapely.bounds(footprint)
        looks += [
            shapely.Point(left + fx * (right - left), bottom + fy * (top - bottom))
            for fx, fy in ((0.5, 0.5), (0.1, 0.1), (0.1, 0.9), (0.9, 0.1), (0.9, 0.9))
        ]
    met = np.zeros((len(looks), len(distinct)), bool)
    met[tuple(tree.query(looks, predicate="dwithin", distance=0.1))] = True
    most = 1
    for period, orbit in axis(request):
        there = [
            met[:, [position[shapely.to_wkb(scene.footprint)] for scene in step.scenes]].any(axis=1)
            for step in steps
            if step.time is not None and step.time in period and orbit in (None, step.orbit)
        ]
        if there:
            most = max(most, int(np.sum(there, axis=0).max()))
    return most
