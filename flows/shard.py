"""One shard from scenes to the store: the whole pipeline as one plain function, for a thread and for a cluster."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from chips.index import ChipRecord, LabelRecord, SourceRecord
from chips.prints import Remembered, remember
from chips.write import BuildRef, write_shard
from cube.build import OTHER_YEARS, CubeData, CubeRecord, CubeRequest, allocate, fill, variables, window_px
from cube.times import DateSlot, Interval
from curate.errors import ReadError
from curate.telling import What, about, take
from curate.tracing import Trace, span
from flows.carry import UNREADABLE, Carried, carried_labels, joined, on_ground, part_request, taken
from flows.coverage import chip_coverage
from flows.labelling import Labels, image_needs, label_shard
from tiling.grid import centres

if TYPE_CHECKING:
    from catalog.scene import Scene
    from flows.plan import Plan
    from tiling.shards import Shard

log = logging.getLogger(__name__)

READ_BUDGET_BYTES = 512 * 2**20
"""Memory that reading and folding one window may take, besides the arrays of the shard."""


@dataclass(frozen=True, slots=True)
class Work:
    """All that a worker needs to build any shard of a plan; handed over once, not with every shard."""

    build: BuildRef
    requests: tuple[CubeRequest, ...]
    scenes: Mapping[str, tuple[Scene, ...]]
    labels: Labels
    cover: npt.NDArray[np.float64]
    split: npt.NDArray[np.object_]
    skip_unreadable: bool = False
    """Leave out scenes that cannot be read, and record them, instead of failing the shard."""
    fold: npt.NDArray[np.int64] | None = None
    slots: Mapping[str, tuple[tuple[DateSlot, ...] | None, ...]] = field(default_factory=dict)
    """Where chips have days of their own, by source: where each, in the order of the store, looks for its dates."""
    years: Mapping[str, tuple[Interval, ...]] = field(default_factory=dict)
    """Split -> the times that its chips may have dates of; a split that is not named has all."""
    carried: Carried | None = None
    """What an update takes over from the version before."""

    @classmethod
    def of(cls, plan: Plan, build: BuildRef, carried: Carried | None = None) -> Work:
        """What the shards of ``plan`` need."""
        # Here, because a worker is handed the work and needs nothing of the recipe.
        from flows.dates import slots_of
        from flows.splits import years_of

        skip = plan.recipe.unreadable == "skip"
        return cls(
            build=build,
            requests=plan.requests,
            scenes=plan.scenes,
            labels=plan.labels,
            cover=plan.cover,
            split=plan.split,
            skip_unreadable=skip,
            fold=plan.fold,
            slots=slots_of(plan),
            years=years_of(plan.recipe),
            carried=carried,
        )


@dataclass(frozen=True, slots=True)
class ShardData:
    """The arrays of a shard's chips, by (group, variable), and a record a chip."""

    arrays: dict[tuple[str, str], npt.NDArray[Any]]
    records: tuple[ChipRecord, ...]


@dataclass(frozen=True, slots=True)
class ShardDone:
    """What came of one shard, small enough to send around."""

    ordinal: int
    chips: int
    counts: Mapping[What, int] = field(default_factory=dict)
    """What the process counted since the shard before."""


def build_shard(work: Work, shard: Shard) -> ShardData:
    """Images and labels of the chips of one shard, on the same pixels.

    Raises ReadError when a scene or a label cannot be read.
    """
    arrays: dict[tuple[str, str], npt.NDArray[Any]] = {}
    cubes: dict[str, CubeData] = {}
    for request in work.requests:
        cube = _source(work, request, shard)
        cubes[request.name] = cube
        arrays |= {(request.name, name): array for name, array in cube.arrays.items()}
    known = {} if work.carried is None else carried_labels(work.carried, work.labels, shard.chips)
    drawn, told = label_shard(work.labels, shard, _images(work, arrays), known)
    return ShardData(arrays | drawn, _records(work, shard, cubes, told))


def _images(work: Work, arrays: Mapping[tuple[str, str], npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
    """Pixels (chip, band, y, x) of the sources that labels are derived from: mean over time, NaN where void."""
    images = {}
    for name in {source for label in work.labels.derived for source in image_needs(label)}:
        request = next(request for request in work.requests if request.name == name)
        pixels = arrays[name, request.variable]
        variable = next(v for v in variables(request) if v.name == request.variable)
        values = pixels.astype(np.float32)
        if variable.fill is not None and pixels.dtype.kind != "f":
            values[pixels == variable.fill] = np.nan
        if variable.dims[0] == "time":
            seen = np.isfinite(values)
            values = np.where(seen, values, 0).sum(axis=1) / np.where(seen.any(axis=1), seen.sum(axis=1), np.nan)
        images[name] = values if values.ndim == 4 else values[:, np.newaxis]
    return images


def _source(work: Work, request: CubeRequest, shard: Shard) -> CubeData:
    """One source of a shard, with what an update takes over from the version before."""
    scenes, skip = work.scenes[request.name], work.skip_unreadable
    years = [work.years.get(str(split), ()) for split in work.split[shard.start : shard.stop]]
    source = None if work.carried is None else work.carried.sources.get(request.name)
    rows = [] if source is None else [row for row, chip in enumerate(shard.chips) if chip.id in source.records]
    if work.carried is None or source is None or not rows:
        own = work.slots.get(request.name)
        slots = None if own is None else own[shard.start : shard.stop]
        return _cube(request, scenes, shard, slots, years, skip_unreadable=skip)
    assert request.name not in work.slots  # chips with days of their own are read anew
    cube = allocate(request, len(shard.chips))
    taken(work.carried, request, shard.chips, cube, rows)
    kept = replace(shard, chips=tuple(shard.chips[row] for row in rows))
    own_years = [years[row] for row in rows]
    parts = [
        _cube(part_request(part, scenes, kept.chips), scenes, kept, None, own_years, skip_unreadable=skip)
        for part in source.parts
    ]
    joined(source, request, cube, rows, parts)
    others = [row for row in range(len(shard.chips)) if row not in set(rows)]
    if others:
        rest = replace(shard, chips=tuple(shard.chips[row] for row in others))
        found = _cube(request, scenes, rest, None, [years[row] for row in others], skip_unreadable=skip)
        for name, array in found.arrays.items():
            cube.arrays[name][others] = array
        for row, record in zip(others, found.records, strict=True):
            cube.records[row] = record
    # A scene that cannot be read is left out of the whole shard, and every chip of it says so.
    told = {why: 1 for record in cube.records for why in record.dropped if why.startswith(UNREADABLE)}
    if told:
        cube.records[:] = [replace(record, dropped={**record.dropped, **told}) for record in cube.records]
    return cube


def _cube(
    request: CubeRequest,
    scenes: Sequence[Scene],
    shard: Shard,
    slots: Sequence[tuple[DateSlot, ...] | None] | None,
    years: Sequence[tuple[Interval, ...]],
    *,
    skip_unreadable: bool,
) -> CubeData:
    """One source of a shard; scenes that cannot be read are left out and recorded when that is allowed.

    Args:
        request: What is asked.
        scenes: All scenes of the source.
        shard: Where.
        slots: Where each chip looks for its dates, if it has days of its own.
        years: The times that each chip may have dates of; empty for all.
        skip_unreadable: Whether it is allowed.
    """
    unreadable: list[ReadError] = []
    shard = replace(shard, chips=on_ground(request, shard.chips))
    # Chips of other years are in windows of their own, so that nothing is read for one that only the other has.
    groups = {within: [row for row, own in enumerate(years) if own == within] for within in dict.fromkeys(years)}
    if request.time is None:
        groups = {(): list(range(len(shard.chips)))}
    while True:
        cube = allocate(request, len(shard.chips))
        cube.slots = slots
        try:
            largest_px = window_px(request, scenes, READ_BUDGET_BYTES, grid_m=shard.chips[0].resolution_m)
            for within, rows in groups.items():
                held, chips = replace(request, within=within), tuple(shard.chips[row] for row in rows)
                for window in replace(shard, chips=chips).windows(largest_px, request.resolution_m):
                    fill(cube, held, scenes, replace(window, chips=tuple(rows[at] for at in window.chips)))
        except ReadError as error:
            left = [scene for scene in scenes if scene.id != error.scene]
            if not skip_unreadable or len(left) == len(scenes):
                raise
            log.warning("left out: %s", error)
            unreadable.append(error)
            scenes = left
            continue
        if unreadable:
            told = {f"{UNREADABLE}{error.scene}": 1 for error in unreadable}
            cube.records[:] = [replace(found, dropped={**found.dropped, **told}) for found in cube.records]
        return cube


def build_and_write(work: Work, shard: Shard, under: Trace | None = None) -> ShardDone:
    """Build one shard and write it, as a span of a trace; running it twice leaves the store as running it once."""
    told = {"shard": shard.ordinal, "chips": len(shard.chips)}
    with about(shard=shard.ordinal), span("shard", under, **told) as note:
        data = build_shard(work, shard)
        sources = [source for record in data.records for source in record.sources.values()]
        note(scenes=len({scene for source in sources for scene in source.scenes}))
        write_shard(work.build, shard.ordinal, shard.start, data.arrays, data.records)
    return ShardDone(shard.ordinal, len(shard.chips), take())


def _records(
    work: Work, shard: Shard, cubes: Mapping[str, CubeData], labels: Sequence[Mapping[str, LabelRecord]]
) -> tuple[ChipRecord, ...]:
    lon, lat = centres(shard.chips)
    records = []
    for index, chip in enumerate(shard.chips):
        sources = {name: cube.records[index] for name, cube in cubes.items()}
        status, reason = _status(work.requests, sources, labels[index])
        minx, _, _, maxy = chip.bounds
        records.append(
            ChipRecord(
                chip=chip.id,
                shard=shard.ordinal,
                split=str(work.split[shard.start + index]),
                fold=None if work.fold is None else int(work.fold[shard.start + index]),
                status=status,
                reason=reason,
                cover=float(work.cover[shard.start + index]),
                epsg=chip.epsg,
                col=chip.col,
                row=chip.row,
                x0=minx,
                y0=maxy,
                lon=float(lon[index]),
                lat=float(lat[index]),
                sources={
                    request.name: _source_record(request, sources[request.name], cubes[request.name], index)
                    for request in work.requests
                },
                labels=labels[index],
            )
        )
    return tuple(records)


def _source_record(request: CubeRequest, found: CubeRecord, cube: CubeData, index: int) -> SourceRecord:
    return SourceRecord(
        clear=found.clear,
        dates=found.dates,
        scenes=found.scenes,
        seen=found.seen,
        dropped=found.dropped,
        placed=found.placed,
        coverage=chip_coverage(request, found),
        remembered=_remembered(request, cube, index),
    )


def _remembered(request: CubeRequest, cube: CubeData, index: int) -> Remembered:
    variable = next(variable for variable in variables(request) if variable.name == request.variable)
    kept = remember(cube.arrays[request.variable][index], variable.dims, variable.fill)
    # Slopes look alike wherever they are; only what a sensor saw on a day tells a place.
    return replace(kept, print="") if request.kind == "elevation" else kept


def _status(
    requests: Sequence[CubeRequest], sources: Mapping[str, CubeRecord], labels: Mapping[str, LabelRecord]
) -> tuple[Any, str]:
    missing = {}
    for request in requests:
        found = sources[request.name]
        if found.clear > 0 or found.dates or (request.time is None and found.scenes):
            continue
        dropped = ", ".join(f"{count} {why}" for why, count in sorted(found.dropped.items()))
        own = " of its split's years" if OTHER_YEARS in found.dropped else ""
        seen = f"{found.seen} dates{own} seen" if found.seen else f"no scene{own} has a pixel here"
        missing[request.name] = f"{request.name}: {seen}{': ' + dropped if dropped else ''}"
    wanting = [f"label {name}: {label.reason}" for name, label in labels.items() if label.reason]
    if not missing and not wanting:
        return "ok", ""
    return ("empty" if len(missing) == len(requests) else "partial"), "; ".join([*missing.values(), *wanting])
