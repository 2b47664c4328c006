"""What a new version of a dataset takes from the one before instead of reading scenes, and how the two are joined.

The rule: a chip's time step is taken over only if a build from nothing would make the same numbers of it. That is so
where the same scenes lie near the chip in the same period and are read in the same way. Everything else is read again.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.lock import LockedItem, scenes_from_lock
from chips.read import Published
from cube.build import OTHER_YEARS, CubeRecord, CubeRequest, axis, steps_needed, variables
from cube.radar import told_apart
from cube.steps import grown, join_steps
from cube.terrain import halo_px
from cube.times import Interval
from cube.work import METRES_PER_DEGREE, methods
from curate import __version__
from curate.errors import StoreError
from flows.labelling import PREFIX, Known, Labels
from labels.source import LabelSource
from labels.spec import ProductLabel
from tiling.grid import footprints

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow

    from catalog.scene import Scene
    from cube.build import CubeData
    from cube.steps import Step
    from flows.plan import Plan
    from tiling.grid import Chip

UNREADABLE = "unreadable: "
"""How a reason begins for which a date was left out because a file could not be read; such chips are tried again."""

Slot = tuple[Interval | None, str | None]
"""A place on the time axis: period and orbit. Series and single dates have one, the whole time."""


@dataclass(frozen=True, slots=True)
class Part:
    """Steps in time that are read from scenes for chips whose other steps are taken over."""

    request: CubeRequest
    """Of these steps alone."""
    slots: tuple[int, ...] = ()
    """Where they belong on the axis of the whole request; none for series, which are packed by time."""


@dataclass(frozen=True, slots=True)
class CarriedSource:
    """What is taken over of one source."""

    records: Mapping[str, CubeRecord]
    """Chip -> what the old version knows of it; only the chips that are taken over."""
    slots: tuple[tuple[int, int], ...] = ()
    """(place on the old axis, place on the new one)."""
    parts: tuple[Part, ...] = ()
    times: Mapping[dt.datetime, tuple[dt.datetime, int]] = field(default_factory=dict)
    """Time of a date in the old version -> its time now, and its old place on the axis.

    The time is another one where an acquisition has got an earlier scene, somewhere else.
    """
    order: tuple[str, ...] = ()
    """Acquisitions in the order in which they are looked at."""
    known: frozenset[str] = frozenset()
    """Acquisitions that the records count already."""


@dataclass(frozen=True, slots=True)
class Carried:
    """All that an update takes over; handed to the workers."""

    old: Published
    sources: Mapping[str, CarriedSource] = field(default_factory=dict)
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Label that is drawn from a product -> chips whose pixels are taken over."""


def carry_over(
    old: Published,
    requests: Sequence[CubeRequest],
    scenes: Mapping[str, Sequence[Scene]],
    locked: Sequence[LockedItem],
    plan: Plan,
) -> tuple[Carried, list[str]]:
    """What a plan can take from the version before, and sentences on what it cannot.

    Args:
        old: The version before.
        requests: What was asked of each source then.
        scenes: The scenes of each source then.
        locked: The lock then.
        plan: The new plan.
    """
    if old.curate != __version__:
        return Carried(old), [
            f"the version before was built by curate {old.curate}, this is {__version__}: all of it is read again"
        ]
    chips = [chip for chip in plan.chips if chip.id in old.chips]
    index = old.index()
    sources, told = {}, []
    for before, after in zip(requests, plan.requests, strict=True):
        found = _source(before, after, scenes[after.name], plan.scenes[after.name], chips, old, index)
        if isinstance(found, str):
            told.append(f"{after.name}: all of it is read again, because {found}")
            continue
        sources[after.name] = found
        if again := len(chips) - len(found.records):
            told.append(f"{after.name}: {again} chips are read again, because scenes came or were missing there")
        told += [f"{after.name}: {sentence}" for sentence in _cut(before, found)]
    return Carried(old, sources, _labels(old, locked, plan, chips)), told


def _cut(before: CubeRequest, found: CarriedSource) -> Iterable[str]:
    """Sentences on periods that began or ended elsewhere then, as where the time ended within one."""
    cut = [
        period
        for part in found.parts
        if part.slots
        for period in part.request.periods
        if any(period.start < was.end and was.start < period.end for was in before.periods)
    ]
    if cut:
        names = ", ".join(dict.fromkeys(map(str, cut)))
        yield f"made anew from all their dates, because they were cut elsewhere then: {names}"


def _source(
    before: CubeRequest,
    after: CubeRequest,
    old_scenes: Sequence[Scene],
    new_scenes: Sequence[Scene],
    chips: Sequence[Chip],
    old: Published,
    index: pyarrow.Table,
) -> CarriedSource | str:
    """What is taken over of one source; a sentence where nothing can be."""
    was, now = _steps(before, old_scenes), _steps(after, new_scenes)
    if _timeless(before, was) != _timeless(after, was) or methods(before, old_scenes) != methods(after, new_scenes):
        return "its new scenes have files of another kind, and all are stored in one way"
    if after.time is not None and after.time.by_chip:
        return "its chips have days of their own"
    if (why := _depends_on_window(after, new_scenes, chips)) is not None:
        return why
    if after.time is None:
        kept: set[Slot] = {(None, None)}
    else:
        kept = set(_slots(before)) & set(_slots(after)) if _shared_axis(after) else {(p, None) for p in before.periods}
    disturbed = _disturbed(before, after, was, now, kept)
    order = tuple(now)
    if [name for name in order if name in was] != [name for name in was if name in now]:
        return "new scenes change the order of the old dates"
    times = _times(before, was, now)
    if times is None:
        return "two of its dates have the same time"
    halo_m = halo_px(after.terrain.derive, after.resolution_m) * after.resolution_m
    near = _near(disturbed, halo_m, on_ground(after, chips))
    records = _records(index, after.name, [chip for chip, touched in zip(chips, near, strict=True) if not touched], old)
    return CarriedSource(
        records=records,
        slots=_same_places(before, after),
        parts=_parts(after, before, kept),
        times=times,
        order=order,
        known=frozenset(was),
    )


def _timeless(request: CubeRequest, was: Mapping[str, Step]) -> CubeRequest:
    """The request without what more dates change; shifts of dates that were there are the same for ever."""
    moved = tuple((name, place) for name, place in request.moved if name in was)
    return replace(request, periods=(), orbits=(), steps=1, moved=moved)


def _steps(request: CubeRequest, scenes: Sequence[Scene]) -> dict[str, Step]:
    """The steps of a source by the name of their acquisition, in order; a static source has one."""
    steps = join_steps(request, told_apart(request.radar, scenes))
    return {"" if request.time is None else step.scenes[0].acquisition: step for step in steps}


def _shared_axis(request: CubeRequest) -> bool:
    """Whether all chips have one time axis."""
    return request.time is not None and (request.time.composite is not None or request.time.picked)


def _slots(request: CubeRequest) -> list[Slot]:
    """The places on a time axis that all chips share."""
    return [(period, orbit) for period, orbit in axis(request)]


def _same_places(before: CubeRequest, after: CubeRequest) -> tuple[tuple[int, int], ...]:
    if after.time is None or after.time.series:
        return ()
    if not _shared_axis(after):  # a single date, or one an orbit
        old, new = list(before.orbits or (None,)), list(after.orbits or (None,))
        return tuple((old.index(orbit), new.index(orbit)) for orbit in old if orbit in new)
    if after.time.picked:  # one window may stand twice on the axis
        return tuple(zip(range(len(_slots(before))), range(len(_slots(after))), strict=True))
    new_slots = {slot: place for place, slot in enumerate(_slots(after))}
    return tuple((place, new_slots[slot]) for place, slot in enumerate(_slots(before)) if slot in new_slots)


def _depends_on_window(request: CubeRequest, scenes: Sequence[Scene], chips: Sequence[Chip]) -> str | None:
    """Why pixels of a source may differ with the window they are read in; None where they do not.

    Only the methods that ``cube.warp`` leaves to GDAL do, and but for cubic only between coordinate systems.
    """
    others = sorted(set(methods(request, scenes).values()) - {"nearest", "bilinear"})
    if "cubic" in others:
        return "'cubic' between grids depends a little on the window that is read"
    zones = {chip.epsg for chip in chips}
    if others and (len(zones) > 1 or {asset.epsg for scene in scenes for asset in scene.assets} - zones):
        return f"'{others[0]}' between coordinate systems depends a little on the window that is read"
    return None


def _disturbed(
    before: CubeRequest,
    after: CubeRequest,
    was: Mapping[str, Step],
    now: Mapping[str, Step],
    kept: set[Slot],
) -> list[Scene]:
    """Scenes that change what would be taken over: chips near one of them are read again."""
    found: list[Scene] = []
    one = after.time is not None and (after.time.single is not None or after.time.picked)
    for name in dict.fromkeys((*was, *now)):
        old, new = was.get(name), now.get(name)
        old_slot = None if old is None else _slot(before, old)
        new_slot = None if new is None else _slot(after, new) if _shared_axis(after) else _slot(before, new)
        everything = [*(old.scenes if old else ()), *(new.scenes if new else ())]
        if old is None:
            found += everything if new_slot in kept else ()
        elif new is None or (one and old.time != new.time) or (old_slot != new_slot and {old_slot, new_slot} & kept):
            found += everything
        else:
            ids = {scene.id for scene in old.scenes}
            found += [scene for scene in new.scenes if scene.id not in ids]
            left = {scene.id for scene in new.scenes}
            found += [scene for scene in old.scenes if scene.id not in left]
    return found


def _slot(request: CubeRequest, step: Step) -> Slot | None:
    """Where a step belongs by the periods of a request; None where it belongs nowhere."""
    if request.time is None:
        return None, None
    assert step.time is not None  # join_steps refuses others
    period = next((period for period in request.periods if step.time in period), None)
    if period is None:
        return None
    return period, step.orbit if _shared_axis(request) and request.orbits else None


def _near(scenes: Sequence[Scene], halo_m: float, chips: Sequence[Chip]) -> npt.NDArray[np.bool_]:
    """Which chips, or a halo around them, may have pixels of any of the scenes, by the rule of ``cube.work``."""
    import shapely

    near = np.zeros(len(chips), bool)
    if not scenes or not chips:
        return near
    places = footprints(chips)
    _, south, _, north = shapely.total_bounds(places)
    aside = halo_m / METRES_PER_DEGREE / math.cos(math.radians(min(max(abs(south), abs(north)), 85)))
    tree = shapely.STRtree(places)
    for scene in scenes:
        near[tree.query(shapely.buffer(grown(scene.footprint), aside), predicate="intersects")] = True
    return near


def _times(
    before: CubeRequest, was: Mapping[str, Step], now: Mapping[str, Step]
) -> dict[dt.datetime, tuple[dt.datetime, int]] | None:
    """Old time -> new time and old place on the axis; None where a time is that of two."""
    slots = {slot: place for place, slot in enumerate(_slots(before))} if _shared_axis(before) else {}
    found: dict[dt.datetime, tuple[dt.datetime, int]] = {}
    for name, step in was.items():
        if step.time is None or name not in now:
            continue
        time = now[name].time
        assert time is not None
        slot = _slot(before, step)
        told = (time, 0 if slot is None else slots.get(slot, 0))
        if found.setdefault(step.time, told) != told:
            return None
    return found


def _records(index: pyarrow.Table, name: str, chips: Sequence[Chip], old: Published) -> dict[str, CubeRecord]:
    """What the index knows of a source, by chip, without the chips that lack a file."""
    has = set(index.column_names)

    def column(what: str) -> list[Any]:
        return index[f"{name}_{what}"].to_pylist() if f"{name}_{what}" in has else [None] * len(index)

    columns = {what: column(what) for what in ("dates", "scenes", "clear", "seen", "dropped", "clear_px", "placed")}
    ids = index["chip"].to_pylist()
    found = {}
    for chip in chips:
        row = old.chips[chip.id]
        if row >= len(ids) or ids[row] != chip.id:
            raise StoreError(old.url, f"row {row} of chips.parquet is not chip {chip.id}; the dataset is damaged")
        told = {what: values[row] for what, values in columns.items()}
        record = CubeRecord(
            dates=tuple(date.astimezone(dt.UTC) for date in told["dates"]),
            scenes=tuple(told["scenes"]),
            clear=told["clear"],
            seen=told["seen"],
            dropped=dict(told["dropped"]),
            clear_px=dict(told["clear_px"] or ()),
            placed=dict(told["placed"] or ()),
        )
        if not any(reason.startswith(UNREADABLE) for reason in record.dropped):
            found[chip.id] = record
    return found


def _parts(after: CubeRequest, before: CubeRequest, kept: set[Slot]) -> tuple[Part, ...]:
    """What of the time is read for chips that are taken over."""
    if after.time is None or after.time.single or after.time.picked:
        return ()
    if after.time.series:
        (old,), (new,) = before.periods, after.periods
        more = [(new.start, old.start), (old.end, new.end)]
        spans = tuple(Interval(start, end) for start, end in more if start < end)
        return (Part(replace(after, periods=spans)),) if spans else ()
    places = {slot: place for place, slot in enumerate(_slots(after))}
    parts = []
    for orbit in after.orbits or (None,):
        periods = tuple(period for period in after.periods if (period, orbit) not in kept)
        if periods:
            own = replace(after, periods=periods, orbits=() if orbit is None else (orbit,), steps=len(periods))
            parts.append(Part(own, tuple(places[period, orbit] for period in periods)))
    return tuple(parts)


def _labels(
    old: Published, locked: Sequence[LockedItem], plan: Plan, chips: Sequence[Chip]
) -> dict[str, frozenset[str]]:
    """Labels from products of which chips are taken over; all others are drawn again, from files that are at hand."""
    found = {}
    for label in plan.labels.drawn:
        if not isinstance(plan.recipe.labels.get(label.name), ProductLabel) or not _same_label(old, plan, label):
            continue
        before = {tile.id for tile in scenes_from_lock(locked, PREFIX + label.name)}
        more = [tile for tile in scenes_from_lock(plan.locked, PREFIX + label.name) if tile.id not in before]
        near = _near(more, 0.0, chips)
        found[label.name] = frozenset(chip.id for chip, touched in zip(chips, near, strict=True) if not touched)
    return found


def _same_label(old: Published, plan: Plan, label: LabelSource) -> bool:
    """Whether a label's arrays are told in the same way as before, and drawn pixel by pixel."""
    group = plan.labels.group(label)
    arrays = {variable.key: variable for variable in plan.layout.variables}
    return all(
        variable.dims == ("y", "x") and old.variable(group, variable.name) == arrays[group, variable.name]
        for variable in label.variables
    )


# -- joining ----------------------------------------------------------------------------------------------------------


def taken(carried: Carried, request: CubeRequest, chips: Sequence[Chip], cube: CubeData, rows: Sequence[int]) -> None:
    """Write what is taken over of a source into the rows of a cube, and what the old version knows of these chips."""
    source = carried.sources[request.name]
    positions = [carried.old.chips[chips[row].id] for row in rows]
    where = np.array(rows)
    for variable in variables(request):
        stored = carried.old.variable(request.name, variable.name)
        if stored is None:
            raise StoreError(carried.old.url, f"has no array {request.name}/{variable.name}; build anew elsewhere")
        values = carried.old.read(stored, positions).astype(variable.dtype, copy=False)
        target = cube.arrays[variable.name]
        if request.time is None:
            target[where] = values
        elif request.time.series:
            steps = min(values.shape[1], target.shape[1])
            target[where, :steps] = values[:, :steps]
        else:
            for old_place, new_place in source.slots:
                target[where, new_place] = values[:, old_place]
    for row in rows:
        cube.records[row] = source.records[chips[row].id]


def joined(
    source: CarriedSource, request: CubeRequest, cube: CubeData, rows: Sequence[int], parts: Sequence[CubeData]
) -> None:
    """Join what was read into the rows that were taken over.

    Args:
        source: What is taken over.
        request: The whole request.
        cube: With what was ``taken``.
        rows: The chips that were taken over.
        parts: For each of ``source.parts`` these chips, in their order.
    """
    if request.time is None or request.time.single is not None or request.time.picked:
        return
    for at, row in enumerate(rows):
        found = [part.records[at] for part in parts]
        if request.time.series:
            dates = _join_series(source, request, cube, row, at, parts)
        else:
            for part, data in zip(source.parts, parts, strict=True):
                for place, slot in enumerate(part.slots):
                    for name, array in data.arrays.items():
                        cube.arrays[name][row, slot] = array[at, place]
            dates = _join_dates(source, cube.records[row], found)
        record = _join_records(source, cube.records[row], found, dates)
        cube.records[row] = replace(record, clear=_clear(request, cube, row, record))


def _join_series(
    source: CarriedSource, request: CubeRequest, cube: CubeData, row: int, at: int, parts: Sequence[CubeData]
) -> tuple[dt.datetime, ...]:
    """Old and new dates of a chip packed in order of time."""
    dates: list[tuple[dt.datetime, CubeData | None, int]] = [
        (source.times[date][0], None, place) for place, date in enumerate(cube.records[row].dates)
    ]
    for data in parts:
        dates += [(date, data, place) for place, date in enumerate(data.records[at].dates)]
    dates.sort(key=lambda one: one[0])
    for variable in variables(request):
        target = cube.arrays[variable.name][row]
        packed = np.full_like(target, 0 if variable.fill is None else variable.fill)
        for place, (date, part, was) in enumerate(dates):
            packed[place] = target[was] if part is None else part.arrays[variable.name][at, was]
            if variable.name == "acquired":
                packed[place] = np.datetime64(date.replace(tzinfo=None), "s")
        target[...] = packed
    return tuple(date for date, _, _ in dates)


def _join_dates(source: CarriedSource, old: CubeRecord, found: Sequence[CubeRecord]) -> tuple[dt.datetime, ...]:
    """Dates of a composite in the order of the time axis."""
    kept = dict(source.slots)
    dates = []
    for number, date in enumerate(old.dates):
        time, place = source.times[date]
        if place in kept:
            dates.append((kept[place], number, time))
    for part, record in zip(source.parts, found, strict=True):
        for number, date in enumerate(record.dates):
            period = next(place for place, period in enumerate(part.request.periods) if date in period)
            dates.append((part.slots[period], number, date))
    return tuple(date for *_, date in sorted(dates))


def _join_records(
    source: CarriedSource, old: CubeRecord, found: Sequence[CubeRecord], dates: tuple[dt.datetime, ...]
) -> CubeRecord:
    """What is known of a chip from both; of a date that both have looked at, it is the same."""
    fates = {name: fate for record in found for name, fate in record.fates.items() if name not in source.known}
    told = [reason for record in found for reason in record.dropped if reason.startswith(UNREADABLE)]
    dropped = Counter(old.dropped) + Counter(fate for fate in fates.values() if fate) + Counter(dict.fromkeys(told, 1))
    pixels, placed = dict(old.clear_px), dict(old.placed)
    for record in found:
        pixels |= record.clear_px
        placed |= record.placed
    scenes = tuple(sorted({*old.scenes, *(name for record in found for name in record.scenes)}))
    return CubeRecord(
        dates=dates,
        scenes=scenes,
        seen=old.seen + sum(fate != OTHER_YEARS for fate in fates.values()),
        dropped=dict(dropped),
        clear_px={name: pixels[name] for name in source.order if name in pixels},
        placed={name: placed[name] for name in scenes if name in placed},
    )


def _clear(request: CubeRequest, cube: CubeData, row: int, record: CubeRecord) -> float:
    """Mean over the time axis of the share of clear pixels, as ``cube.work`` has it."""
    assert request.time is not None
    if request.time.composite is not None:
        return float((cube.arrays["count"][row] > 0).mean(axis=(1, 2)).mean())
    return float(np.nanmean(cube.arrays["clear"][row])) if record.dates else 0.0


def part_request(part: Part, scenes: Sequence[Scene], chips: Sequence[Chip]) -> CubeRequest:
    """The request of a part for some chips, with a time axis as long as they need."""
    if part.slots:
        return part.request
    return replace(part.request, steps=steps_needed(part.request, scenes, on_ground(part.request, chips)))


def on_ground(request: CubeRequest, chips: Sequence[Chip]) -> tuple[Chip, ...]:
    """The chips as a source sees them: they may be wider or narrower there than the grid's, about the same centre."""
    side_m = request.size_px * request.resolution_m
    if not chips or math.isclose(side_m, chips[0].size_m, rel_tol=1e-9):
        return tuple(chips)
    return tuple(chip.around(side_m, request.resolution_m) for chip in chips)


def carried_labels(carried: Carried, labels: Labels, chips: Sequence[Chip]) -> dict[str, Known]:
    """Pixels of labels that are taken over, of the chips of a shard."""
    found: dict[str, Known] = {}
    for label in labels.drawn:
        kept = carried.labels.get(label.name, frozenset())
        rows = [row for row, chip in enumerate(chips) if chip.id in kept]
        if not rows:
            continue
        positions = [carried.old.chips[chips[row].id] for row in rows]
        arrays = {}
        for variable in label.variables:
            stored = carried.old.variable(labels.group(label), variable.name)
            assert stored is not None  # _same_label
            arrays[variable.name] = carried.old.read(stored, positions)
        found[label.name] = (rows, arrays)
    return found
