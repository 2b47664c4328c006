"""One source of one shard, from scenes to the arrays of its chips, in bounded memory."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cube.coverage import CoverageSpec
from cube.encoding import METRES, POWER, REFLECTANCE, Encoding, cf_attrs
from cube.mask import MaskSpec, untold
from cube.quality import QualityTable, quality_table, table_of_layer
from cube.radar import RadarSpec, told_apart
from cube.radar import attributes as radar_attributes
from cube.steps import grown, join_steps
from cube.terrain import TerrainSpec, halo_px
from cube.terrain import attributes as terrain_attributes
from cube.times import DateSlot, Interval, KeepSpec, TimeSpec

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
    """Decides dtype, void and resampling. ``reflectance`` is everything whose numbers are stored as its files have
    them, also temperatures, photographs and weather."""
    variable: str
    """Name of the main variable: ``reflectance``, ``temperature``, ``backscatter``, ``elevation`` …"""
    bands: tuple[str, ...]
    size_px: int
    """Side of a chip."""
    resolution_m: float
    quality: str | None = None
    """Band that holds the classes of the mask (``scl``), or None: then what is not void is clear."""
    quality_table: QualityTable | None = None
    """What its numbers mean (``cube.mask.which_layer``); None: the table that bears the band's name."""
    mask: MaskSpec = MaskSpec()
    time: TimeSpec | None = None
    """None means a static layer, as elevation is."""
    keep: KeepSpec = KeepSpec()
    periods: tuple[Interval, ...] = ()
    """The periods of a composite or the windows of picked dates; for series and single one interval or none, to which
    the scenes are held."""
    within: tuple[Interval, ...] = ()
    """Times outside of which the chips of a window may have no date, though their time axis reaches beyond; dates
    outside are not read, and recorded as ``OTHER_YEARS``. Empty: no such times."""
    orbits: tuple[str, ...] = ()
    """Orbit directions that are kept apart (``ascending``, ``descending``); empty means no split."""
    resampling: tuple[tuple[str, str], ...] = ()
    """(band, method) where the recipe asks for another method than the kind's."""
    apply_mask: bool = False
    """Series and single: make hidden pixels void. By default the pixels stay and the mask lies beside them."""
    moved: tuple[tuple[str, tuple[float, float]], ...] = ()
    """(acquisition, (east, north) in metres) by which acquisitions lie off, to be undone; see ``cube.align.moves``."""
    reader: str = "rasterio"
    """Key of ``cube.load.READERS``; all give the same pixels, this one with the least copying."""
    steps: int = 1
    """Length of the time axis; ``steps_needed`` tells."""
    stored: Encoding | None = None
    """Dtype, void, scale and offset of the main variable (``cube.encoding.encoding_for``); None: those of Sentinel-2
    for reflectance, else float32."""
    long_name: str | None = None
    """What the main variable is called in its attributes; None: by its kind (surface reflectance, …)."""
    terrain: TerrainSpec = TerrainSpec()
    """Elevation: what is derived from it, each a variable beside it, and what is where there is no tile."""
    radar: RadarSpec = RadarSpec()
    """Backscatter: scale, speckle, borders, and by what passes are kept apart (``cube.radar.told_apart``)."""
    angle: str | None = None
    """Backscatter: band with the angle of incidence, which becomes the variable ``incidence``."""
    angle_scale: tuple[float, float] = (1.0, 0.0)
    """(scale, offset) that make degrees of the numbers of that band."""
    coverage: CoverageSpec | None = None
    """Count the clear pixels of every date seen, by the scene classification; they stand in the records."""
    amplitude: bool = False
    """Backscatter: the files hold amplitudes that nobody calibrated (a collection of ``cube.radar.AMPLITUDE``)."""

    def __post_init__(self) -> None:
        if self.terrain != TerrainSpec() and (self.kind != "elevation" or len(self.bands) != 1 or self.time):
            raise ValueError(
                f"source {self.name}: 'terrain' is for one band of elevation without time, not for {self.kind} with "
                f"{len(self.bands)} bands; remove it"
            )
        halo_px(self.terrain.derive, self.resolution_m)  # raises where a scale does not fit the pixels
        if self.kind != "backscatter" and (self.radar != RadarSpec() or self.angle is not None or self.amplitude):
            raise ValueError(f"source {self.name}: options for radar are not for {self.kind}; remove them")
        whole = [orbit for orbit in self.orbits if "-" not in orbit]
        if self.radar.apart == "relative_orbit" and whole:
            raise ValueError(
                f"source {self.name}: tracks are kept apart, and orbit '{whole[0]}' names none; wanted names such as "
                "'ascending-073', which told_apart gives"
            )
        if self.stored is not None and self.kind != "reflectance" and not self.stored.floating:
            raise ValueError(f"source {self.name}: {self.kind} is stored as float32, not {self.stored.dtype}")
        if self.coverage is not None and (self.quality is None or self.classes.name != "scl"):
            raise ValueError(
                f"source {self.name}: 'coverage' is defined by the scene classification of Sentinel-2, and this source "
                "is not masked by it; remove it"
            )
        if self.quality in RESERVED or self.quality == self.variable:
            raise ValueError(
                f"source {self.name}: the quality layer cannot be called '{self.quality}', which is a variable of the "
                "store; describe it under another name"
            )

    @property
    def encoding(self) -> Encoding:
        """How the main variable is stored."""
        return self.stored or {"reflectance": REFLECTANCE, "backscatter": POWER, "elevation": METRES}[self.kind]

    @property
    def dtype(self) -> str:
        """Of the main variable."""
        return self.encoding.dtype

    @property
    def fill(self) -> float | int:
        """Void of the main variable."""
        return self.encoding.fill

    @property
    def class_bytes(self) -> int:
        """Memory a pixel and date of the quality layer: its numbers, their padded copy and two masks."""
        if self.quality is None:
            return 4
        item = np.dtype(self.classes.dtype).itemsize
        # A layer without a void is held against the first band, which is read beside it.
        item += 0 if self.classes.factor == 1 else 4
        return 2 * item + 2 + (2 * np.dtype(self.dtype).itemsize if self.classes.void is None else 0)

    @property
    def classes(self) -> QualityTable:
        """What the numbers of the quality layer mean.

        Raises:
            ValueError: There is no quality layer, or no table for it.
        """
        if self.quality_table is not None:
            return self.quality_table
        name = None if self.quality is None else table_of_layer(self.quality)
        if name is None:
            raise ValueError(f"source {self.name}: no table tells what the values of layer '{self.quality}' mean")
        return quality_table(name)


OTHER_YEARS = "in a year of another split"
"""Reason for dates outside of ``CubeRequest.within``."""

RESERVED = (
    *("clear", "clear_mask", "count", "acquired", "orbit", "relative_orbit", "incidence"),
    *("chip", "time", "band", "x", "y"),
)
"""Names in a source's group that a quality layer cannot have."""


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
    """Reason -> number of dates seen and not used. Those ``OTHER_YEARS`` are of scenes whose footprint meets the chip;
    nobody has looked at their pixels, and ``seen`` does not count them."""
    clear_px: Mapping[str, int] = field(default_factory=dict)
    """Acquisition seen on the chip, used or not -> pixels that are clear by ``CubeRequest.coverage``."""
    placed: Mapping[str, str] = field(default_factory=dict)
    """Scene -> how its files, which have no grid, were placed by control points, and how well."""
    fates: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Acquisition -> why it was not used, an empty string where it was: what ``seen`` and ``dropped`` count."""


@dataclass(slots=True)
class CubeData:
    """Arrays of one source with the chips of a shard in front, and a record a chip."""

    arrays: dict[str, npt.NDArray[Any]]
    records: list[CubeRecord]
    slots: Sequence[tuple[DateSlot, ...] | None] | None = None
    """For time axes by chip: where each chip looks for its dates, None for a chip that has none."""


BUDGET_BYTES = 512 * 2**20
"""Memory that the pixels of one window may take while they are read and folded, the chips themselves apart."""


def axis(request: CubeRequest) -> tuple[tuple[Interval, str | None], ...]:
    """Period and orbit direction of each step of a time axis that all chips share (composites and picked dates): orbits
    within periods."""
    return tuple((period, orbit) for period in request.periods for orbit in request.orbits or (None,))


def variables(request: CubeRequest) -> tuple[CubeVariable, ...]:
    """The arrays of a source, so that a store can be laid out before any pixel is read."""
    size, steps, bands = request.size_px, request.steps, len(request.bands)
    plane = (size, size)
    main_attrs = {**_main_attrs(request), "resampling": _resampling_text(request)}
    if request.time is None:
        flat = bands == 1
        dims, shape = (("y", "x"), plane) if flat else (("band", "y", "x"), (bands, *plane))
        first = CubeVariable(request.variable, dims, shape, request.dtype, request.fill, main_attrs)
        return (
            first,
            *(
                CubeVariable(name, ("y", "x"), plane, "float32", math.nan, terrain_attributes(name))
                for name in request.terrain.derive
            ),
        )
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
        classes = request.classes
        chance = classes.kind == "probability"
        attrs = {
            "long_name": classes.title,
            "resampling": dict(request.resampling).get(
                request.quality, "nearest" if chance else "nearest, majority where pixels become coarser"
            ),
            **classes.attrs,
        }
        if composite:
            what = "median" if chance else "most frequent class" if classes.kind == "classes" else "most frequent value"
            attrs["comment"] = f"{what} of the clear observations, of all observations where none is clear"
        out.append(
            CubeVariable(request.quality, ("time", "y", "x"), (steps, *plane), classes.dtype, classes.void, attrs)
        )
    if request.angle is not None:
        attrs = {"long_name": "angle of incidence", "units": "degree"}
        if composite:
            attrs["comment"] = "of the observations used, their mean where they are many"
        out.append(CubeVariable("incidence", ("time", "y", "x"), (steps, *plane), "float32", math.nan, attrs))
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
            "comment": _mask_text(request),
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
        if request.radar.apart == "relative_orbit":
            attrs = {"long_name": "relative orbit, 1 to 175"}
            out.append(CubeVariable("relative_orbit", ("time",), (steps,), "uint8", 0, attrs))
    return tuple(out)


def _main_attrs(request: CubeRequest) -> dict[str, Any]:
    encoding = request.encoding
    if request.kind == "reflectance":
        plain = request.stored is None or request.stored == REFLECTANCE
        return {
            "long_name": request.long_name
            or ("surface reflectance" if request.variable == "reflectance" else request.variable),
            **cf_attrs(encoding),
            "comment": (
                "offsets of all scenes are applied; valid pixels are 1 or more" if plain else "numbers as in the files"
            ),
        }
    if request.kind == "backscatter":
        return {**cf_attrs(encoding), **radar_attributes(request.radar, amplitude=request.amplitude)}
    attrs = {"long_name": "elevation", **cf_attrs(encoding)}
    if request.terrain.missing == "zero":
        attrs["comment"] = "0 where the model has no tile, as it leaves out the sea"
    return attrs


def _mask_text(request: CubeRequest) -> str:
    mask, classes = request.mask, request.classes
    least = classes.threshold if mask.threshold is None else mask.threshold
    parts = [
        f"classes hidden: {' '.join(map(str, mask.hide))}",
        f"grown by {mask.dilate_m:g} m",
        *([f"from {least:g} %"] if least is not None else []),
        *([f"not told by this layer: {' '.join(words)}"] if (words := untold(mask, classes)) else []),
    ]
    return "; ".join(parts)


ORBITS = {"unknown": 0, "ascending": 1, "descending": 2}
"""Codes of the variable ``orbit``."""


def _resampling_text(request: CubeRequest) -> str:
    own = [f"{method} for {band}" for band, method in request.resampling if band in request.bands]
    rule = "bilinear" if request.kind == "elevation" else "bilinear, average where pixels become coarser"
    return "; ".join([f"{rule}; none where grids agree", *own])


def steps_needed(request: CubeRequest, scenes: Sequence[Scene], chips: Sequence[Chip]) -> int:
    """Length of the time axis.

    Composites and picked dates: a step a period and orbit. Series: the largest number of acquisitions whose footprints
    meet one chip, at most ``max_dates``. Single: one, or one an orbit. Static: 1.
    """
    if request.time is None:
        return 1
    if request.time.composite is not None or request.time.picked:
        return len(axis(request))
    if request.time.single is not None:
        return max(1, len(request.orbits))
    most = _most_dates(request, scenes, chips)
    return max(1, most if request.time.max_dates is None else min(most, request.time.max_dates))


def _most_dates(request: CubeRequest, scenes: Sequence[Scene], chips: Sequence[Chip]) -> int:
    import shapely

    from tiling.grid import footprints

    steps = join_steps(request, told_apart(request.radar, scenes))
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
        window: Where; of the same chips, its pixels may have another size than the request's.

    Raises:
        ReadError: A file could not be read.
        ValueError: The chips of the window are no whole number of the request's pixels, or of another size.
    """
    from cube.work import Work

    work = Work(data, request, scenes, window_at(window, request))
    if request.time is None:
        work.static()
    elif request.time.composite is not None:
        work.composites()
    else:
        work.dates()


def window_at(window: Window, request: CubeRequest) -> Window:
    """The same window in the pixels of a source: same ground, same chips, its own resolution."""
    side_m = request.size_px * request.resolution_m
    sides = window.shape if window.side_px is None else (window.side_px,)
    for px in sides:
        chips = px * window.resolution_m / side_m
        wanted = round(chips) if window.side_px is None else 1
        if not math.isclose(chips, wanted, rel_tol=1e-9, abs_tol=1e-9):
            raise ValueError(
                f"source {request.name}: its chips of {request.size_px} px at {request.resolution_m:g} m do not fit "
                "those of the grid; wanted the same side in metres"
            )
    return window.at(request.resolution_m)


def window_px(
    request: CubeRequest,
    scenes: Sequence[Scene],
    budget_bytes: int = BUDGET_BYTES,
    *,
    grid_m: float | None = None,
) -> int:
    """Pixels of the largest window whose reading and folding stays inside a memory budget, the chips apart.

    Never less than one chip. Counted in pixels of ``grid_m`` metres, those of the shards; by default in the source's.
    """
    item = np.dtype(request.dtype).itemsize
    if request.time is None:
        # One band, the reader's copy of it and what of it is valid; where tiles meet one beside it; a derivative.
        per_px = 2 * item + 1 + (2 * item + 2 if request.kind == "elevation" else 0) + 4 * bool(request.terrain.derive)
    elif request.time.composite is None:
        per_px = 2 * item * len(request.bands) + request.class_bytes  # one date
    else:
        # All dates of a period: the classes, their padded copy and masks; or the mask and one band with its copy.
        dates = _most_at_once(request, scenes)
        # A border is looked for in all bands at once.
        at_once = len(request.bands) if request.radar.border_px else 1
        at_once += request.angle is not None
        per_px = dates * max(request.class_bytes, 1 + 2 * item * at_once) + 3
    larger = 1.0 if grid_m is None else (request.resolution_m / grid_m) ** 2
    return math.floor(max(budget_bytes // per_px, request.size_px**2) * larger)


def _most_at_once(request: CubeRequest, scenes: Sequence[Scene]) -> int:
    """Largest number of acquisitions in one period at one place, from footprints looked at in their middle and
    towards their corners, where neighbours overlap."""
    import shapely

    steps = join_steps(request, told_apart(request.radar, scenes))
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
