"""Where the acquisitions of a source lie, against each other or another source: measured once, frozen with the lock.

Sensors and dates are up to a pixel off (Sentinel-2A and -2B of 2018 differ by 7 m over Lower Austria). The shift of an
acquisition is voted by places spread over the area, larger than most chips, because small ones tell too little. When it
is undone, the same places are measured again, so that what is left is known and not hoped for.

A new version of a dataset keeps the shifts of the one before: its pixels were read by them. Acquisitions that came
since are held against those that were there, as they lie in the dataset.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from catalog.lock import SceneShift
from chips.index import ChipRecord, ShiftRecord
from cube.align import (
    MIN_PX,
    REFERENCE_DATES,
    AcquisitionShift,
    CoregisterSpec,
    Shift,
    by_acquisition,
    comparable_bands,
    measure_series,
    moves,
    nearest_dates,
    why_left,
    why_none,
)
from cube.build import CubeRequest, allocate, fill
from cube.steps import grown, join_steps
from cube.times import KeepSpec, TimeSpec
from curate.errors import ReadError
from tiling.grid import Chip, by_zone, to_utm
from tiling.shards import Window

if TYPE_CHECKING:
    from catalog.scene import Scene
    from flows.console import Console
    from flows.plan import Plan

log = logging.getLogger(__name__)

SAMPLE_PX = 256
"""Side of a place: shifts are known to 0.03 px there, and to 0.1 to 0.3 px on 64 px (`benchmarks/align.py`)."""
SAMPLE_BANDS = 2
"""Bands compared; a second one helps between seasons."""
ENOUGH_CLEAR = 0.3
"""Dates are compared at a place where they are this much as clear as the clearest one there."""
REFERENCE = "the reference"
"""Why the shift of the clearest acquisition is not undone."""
UNREAD = Shift(math.nan, math.nan, math.nan, math.nan, 0, "a file of it cannot be read")
UNCOMPARED = Shift(math.nan, math.nan, math.nan, math.nan, 0, "there is nothing to hold it against where it is clear")
STATIC = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""Stands for the time of a source that has none: any date is as near to it."""

Arrays = npt.NDArray[Any]


class Seen(NamedTuple):
    """What one source saw at one place."""

    dates: list[dt.datetime]
    """UTC; ``STATIC`` for a source without time."""
    cube: Arrays
    """Dims ``(time, band, y, x)``."""
    clear: Arrays
    """Dims ``(time, y, x)``."""
    unread: frozenset[str] = frozenset()
    """Acquisitions that were left out, because a file of theirs cannot be read."""


@dataclass(slots=True)
class Round:
    """What one measurement of all places found."""

    voted: dict[str, list[Shift]]
    """By acquisition, one a place on which it is clear enough."""
    chips: dict[str, list[Shift]] = field(default_factory=dict)
    """By chip, one a date."""


@dataclass(frozen=True, slots=True)
class Task:
    """One source that is to be measured, with all that it takes."""

    spec: CoregisterSpec
    request: CubeRequest
    """Of the dates as a series, in the bands that are compared."""
    scenes: Sequence[Scene]
    """Of the acquisitions that are to be measured."""
    acquisitions: Mapping[dt.datetime, str]
    """These acquisitions."""
    chips: Sequence[Chip]
    """Of the plan."""
    windows: Sequence[Window]
    """The places."""
    other: tuple[CubeRequest, Sequence[Scene]] | None
    """What they are held against, on the same pixels: another source, or what an update found of this one. None when it
    is one another."""
    nearest: int | None
    """Dates of it that make an image, those nearest in time; None for all."""
    pairs: tuple[tuple[str, str], ...]
    """(band, band of the reference)."""
    skip_unreadable: bool = False
    """Leave out scenes that cannot be read, as the shards will."""
    told: frozenset[str] = frozenset()
    """Chips whose medians are those of the dates before; new dates do not change them."""


def measure(plan: Plan, console: Console, frozen: bytes | None = None) -> bytes | None:
    """The shifts of all sources that the recipe wants aligned, as ``alignment.json``; None when it wants none.

    A source that is the reference of another comes first, and is read as it will be in the dataset. Reads the places
    once as they are, and once more where something is undone.

    Args:
        plan: Of the build, or of the new version.
        console: Hears what was found.
        frozen: What was measured for the version before. It stays, and only acquisitions that it does not name are
            measured: against another source as in a first build; with ``clearest`` against the acquisition that was the
            clearest then; with ``composite`` against the median of those that were there. Nothing is read for a source
            without new ones.

    Raises:
        ReadError: A file cannot be read, and the recipe does not say ``unreadable: skip``.
    """
    document: dict[str, Any] = {}
    undone: dict[str, dict[str, tuple[float, float]]] = {}
    requests = {request.name: request for request in plan.requests}
    before_it = _read_document(frozen)
    for name in _order(plan):
        known = before_it.get(name)
        undone[name] = dict(moved(frozen, name))
        task = _task(plan, requests, name, undone, known)
        if known is not None and not task.acquisitions:
            document[name] = known
            continue
        with console.stage(f"measuring the alignment of {name}"):
            clearest = _clearest(task) if task.spec.reference == "clearest" and task.other is None else None
            before = _measured(task, {}, clearest)
            shifts = by_acquisition(before.voted, task.request.resolution_m)
            found = moves(shifts, task.spec, task.request.resolution_m)
        after = before
        if found:
            with console.stage(f"measuring {name} again"):
                after = _measured(task, found, clearest)
        undone[name] |= found
        document[name] = _document(task, shifts, before, after, clearest)
        if known is not None:
            document[name] = _extended(known, document[name])
        console.say(_said(name, task.spec, shifts, found, more=known is not None))
    return json.dumps(document, indent=1, sort_keys=True).encode() if document else None


def _document(
    task: Task,
    shifts: Mapping[str, AcquisitionShift],
    before: Round,
    after: Round,
    clearest: dt.datetime | None,
) -> dict[str, Any]:
    """What ``alignment.json`` says of one source."""
    left = by_acquisition(after.voted, task.request.resolution_m)
    reference = None if clearest is None else task.acquisitions[clearest]
    acquisitions = {}
    for key, shift in sorted(shifts.items()):
        why = REFERENCE if key == reference else why_left(shift, task.spec, task.request.resolution_m)
        numbers = {
            **{name: getattr(shift, name) for name in ("east_m", "north_m", "error_m", "spread_m", "quality")},
            "left_m": left[key].length_m,
        }
        acquisitions[key] = {
            **{name: _rounded(value) for name, value in numbers.items()},
            "places": shift.chips,
            "undone": not why,
            "reason": why,
        }
    return {
        "reference": task.spec.reference,
        "bands": [list(pair) for pair in task.pairs],
        "resolution_m": task.request.resolution_m,
        "places": len(task.windows),
        "acquisitions": acquisitions,
        "chips": {chip: _chip(task, before.chips[chip], after.chips.get(chip, [])) for chip in sorted(before.chips)},
    }


def _extended(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What ``alignment.json`` says of a source, with what was measured for a new version beside it."""
    return found | {part: known[part] | found[part] for part in ("acquisitions", "chips")}


def _chip(task: Task, before: Sequence[Shift], after: Sequence[Shift]) -> dict[str, Any]:
    """A ``ShiftRecord`` as plain values."""
    middles = []
    for shifts in (before, after):
        lengths = [math.hypot(shift.dy, shift.dx) for shift in shifts if shift.measured]
        middles.append(float(np.median(lengths)) * task.request.resolution_m if lengths else math.nan)
    return {
        "before_m": _rounded(middles[0]),
        "after_m": _rounded(middles[1]),
        "dates": sum(shift.measured for shift in before),
        "reason": why_none(before),
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def moved(document: bytes | None, source: str) -> tuple[tuple[str, tuple[float, float]], ...]:
    """(acquisition, (east, north) in metres) of what is to be undone for a source, from ``alignment.json``."""
    found = _read_document(document).get(source, {}).get("acquisitions", {})
    return tuple((key, (told["east_m"], told["north_m"])) for key, told in found.items() if told["undone"])


def scene_shifts(document: bytes) -> dict[str, dict[str, SceneShift]]:
    """What ``scenes.parquet`` says of each acquisition, by source."""
    names = [one.name for one in dataclasses.fields(SceneShift)]
    return {
        source: {key: SceneShift(**{name: one[name] for name in names}) for key, one in told["acquisitions"].items()}
        for source, told in _read_document(document).items()
    }


def with_shifts(records: Sequence[ChipRecord], document: bytes) -> list[ChipRecord]:
    """The records with what was measured on their chips; the others say that they are not among the places."""
    found = {source: told["chips"] for source, told in _read_document(document).items()}
    elsewhere = ShiftRecord(reason="not within the places that were measured")
    changed = []
    for record in records:
        sources = dict(record.sources)
        for source, chips in found.items():
            if source in sources:
                told = chips.get(record.chip)
                shift = elsewhere if told is None else ShiftRecord(**told)
                sources[source] = dataclasses.replace(sources[source], shift=shift)
        changed.append(dataclasses.replace(record, sources=sources))
    return changed


def _read_document(document: bytes | None) -> dict[str, dict[str, Any]]:
    return {} if document is None else json.loads(document)


def _order(plan: Plan) -> list[str]:
    """Sources to be measured, each after the one that is its reference; the recipe refuses circles."""
    sources = plan.recipe.sources
    order: list[str] = []
    for name in sources:
        chain: list[str] = []
        following: str | None = name
        while following is not None and sources[following].coregister is not None and following not in order:
            chain.append(following)
            following = sources[following].reference
        order += reversed(chain)
    return order


def _said(
    name: str,
    spec: CoregisterSpec,
    shifts: Mapping[str, AcquisitionShift],
    undone: Mapping[str, tuple[float, float]],
    *,
    more: bool,
) -> str:
    lengths = [shift.length_m for shift in shifts.values() if shift.chips]
    acquisitions = f"{len(shifts)}{' new' if more else ''}"
    if not lengths:
        return f"{name}: no acquisition of {acquisitions} could be measured against the {spec.reference}"
    return (
        f"{name}: {len(lengths)} of {acquisitions} acquisitions could be measured, in the middle "
        f"{np.median(lengths):.1f} m off {spec.reference}; {len(undone)} are moved"
    )


def _task(
    plan: Plan,
    requests: Mapping[str, CubeRequest],
    name: str,
    undone: Mapping[str, Mapping[str, tuple[float, float]]],
    known: Mapping[str, Any] | None,
) -> Task:
    source = plan.recipe.sources[name]
    assert source.coregister is not None
    request, named = requests[name], source.reference
    reference = source if named is None else plan.recipe.sources[named]
    pairs = comparable_bands(source.centres_um, reference.centres_um)[:SAMPLE_BANDS]
    if not pairs:  # indices and temperatures have no light of their own, but the same band is like itself
        pairs = tuple((band, band) for band in request.bands[:SAMPLE_BANDS])
    series, scenes = _series(request, [own for own, _ in pairs]), plan.scenes[name]
    there = {} if known is None else known["acquisitions"]
    if named is None:
        zero = _held_against(source.coregister, there)
        held, against = series, [scene for scene in scenes if scene.acquisition in zero]
    else:
        held, against = _series(requests[named], [band for _, band in pairs]), list(plan.scenes[named])
        held = dataclasses.replace(held, resolution_m=request.resolution_m, resampling=())
    held = dataclasses.replace(held, moved=tuple(sorted(undone.get(named or name, {}).items())))
    return Task(
        spec=source.coregister,
        request=series,
        scenes=[scene for scene in scenes if scene.acquisition not in there],
        acquisitions={
            step.time: step.scenes[0].acquisition
            for step in join_steps(series, scenes)
            if step.time and step.scenes[0].acquisition not in there
        },
        chips=plan.chips,
        windows=_places(plan.chips, request, source.coregister.places),
        other=(held, against) if against else None,
        nearest=None if named is None else REFERENCE_DATES,
        pairs=pairs,
        skip_unreadable=plan.recipe.unreadable == "skip",
        told=frozenset() if known is None else frozenset(chip for chip, one in known["chips"].items() if one["dates"]),
    )


def _held_against(spec: CoregisterSpec, there: Mapping[str, Any]) -> set[str]:
    """Acquisitions of the version before that new ones of the same source are held against; none in a first build."""
    return {key for key, told in there.items() if spec.reference == "composite" or told["reason"] == REFERENCE}


def _series(request: CubeRequest, bands: Sequence[str]) -> CubeRequest:
    """The request for every date of a place that has enough pixels to be measured at all."""
    return dataclasses.replace(
        request,
        bands=tuple(bands),
        size_px=SAMPLE_PX,
        time=None if request.time is None else TimeSpec(series=True),
        keep=KeepSpec(min_clear=MIN_PX / SAMPLE_PX**2),
        apply_mask=False,
        coverage=None,
        moved=(),
    )


def _places(chips: Sequence[Chip], request: CubeRequest, count: int) -> list[Window]:
    """Windows about the middles of chips that lie evenly over the area, on the pixels of the source.

    They overlap by no more than a quarter: an area smaller than a place has one, wherever the lines of its grid run.
    """
    side_m = SAMPLE_PX * request.resolution_m
    best: dict[tuple[int, int, int], tuple[float, Chip]] = {}
    for chip in chips:
        x, y = _middle(chip)
        cell = (chip.epsg, math.floor(x / side_m), math.floor(y / side_m))
        off = max(abs(x - (cell[1] + 0.5) * side_m), abs(y - (cell[2] + 0.5) * side_m))
        if cell not in best or off < best[cell][0]:
            best[cell] = (off, chip)
    kept: list[Chip] = []
    for chip in _evenly([chip for _, chip in best.values()], 4 * count):
        x, y = _middle(chip)
        if all(
            chip.epsg != one.epsg or max(abs(x - _middle(one)[0]), abs(y - _middle(one)[1])) >= 0.75 * side_m
            for one in kept
        ):
            kept.append(chip)
    return [_window(chip, request) for chip in _evenly(kept, count)]


def _evenly(chips: Sequence[Chip], count: int) -> list[Chip]:
    chosen = np.unique(np.linspace(0, len(chips) - 1, min(count, len(chips))).round().astype(int))
    return [chips[index] for index in chosen]


def _middle(chip: Chip) -> tuple[float, float]:
    minx, miny, maxx, maxy = chip.bounds
    return (minx + maxx) / 2, (miny + maxy) / 2


def _window(chip: Chip, request: CubeRequest) -> Window:
    """The place about the middle of a chip, of whole pixels from the chip's corner."""
    res = request.resolution_m
    around = (SAMPLE_PX - round(chip.size_m / res)) // 2
    minx, _, _, maxy = chip.bounds
    left, top, side_m = minx - around * res, maxy + around * res, SAMPLE_PX * res
    bounds = (left, top - side_m, left + side_m, top)
    return Window(chip.epsg, bounds, res, (SAMPLE_PX, SAMPLE_PX), chips=(0,), corners=((0, 0),))


def _measured(task: Task, undone: Mapping[str, tuple[float, float]], clearest: dt.datetime | None) -> Round:
    """Every place of a source measured, with shifts undone; ``clearest`` is the reference where it is a date."""
    request = dataclasses.replace(task.request, moved=tuple(sorted(undone.items())))
    found = Round({acquisition: [] for acquisition in task.acquisitions.values()})
    zones = by_zone(task.chips)
    for window in task.windows:
        seen = _read(request, task.scenes, window, skip_unreadable=task.skip_unreadable)
        for acquisition in seen.unread:
            found.voted[acquisition].append(UNREAD)
        reference = _reference(task, seen, window, clearest)
        if reference is None:
            for date in seen.dates:
                found.voted[task.acquisitions[date]].append(UNCOMPARED)
            continue
        whole = measure_series(seen.cube, seen.clear, reference=reference, max_shift_px=task.spec.max_shift_px)
        for date, shift in zip(seen.dates, whole, strict=True):
            found.voted[task.acquisitions[date]].append(shift)
        for index, y, x in _chips_in(zones, window):
            chip = task.chips[index].id
            if chip in found.chips or chip in task.told:
                continue
            shifts = whole
            if (y.stop - y.start, x.stop - x.start) != window.shape:
                shifts = measure_series(
                    seen.cube[:, :, y, x],
                    seen.clear[:, y, x],
                    reference=reference[:, :, y, x] if isinstance(reference, np.ndarray) else reference,
                    max_shift_px=task.spec.max_shift_px,
                )
            # The clearest date is at no shift from itself by definition.
            found.chips[chip] = [
                shift for date, shift in zip(seen.dates, shifts, strict=True) if clearest is None or date != clearest
            ]
    return found


def _reference(
    task: Task, seen: Seen, window: Window, clearest: dt.datetime | None
) -> Literal["composite"] | int | Arrays | None:
    """What the dates of a place are held against; None where there is nothing."""
    if task.other is not None and seen.dates:
        other = _read(*task.other, window, skip_unreadable=task.skip_unreadable)
        if other.dates:
            count = task.nearest or len(other.dates)
            return nearest_dates(other.cube, other.clear, other.dates, seen.dates, count)
    if len(seen.dates) > 1 and clearest in seen.dates:
        return seen.dates.index(clearest)
    # Also where an update came to ground that was never seen: there the new dates are held against each other.
    return "composite" if len(seen.dates) > 1 and task.spec.reference == "composite" else None


def _clearest(task: Task) -> dt.datetime | None:
    """The date with most clear pixels over all places, the earlier of two alike; None when there is none."""
    total: dict[dt.datetime, int] = {}
    first = dataclasses.replace(task.request, bands=task.request.bands[:1])
    for window in task.windows:
        seen = _read(first, task.scenes, window, skip_unreadable=task.skip_unreadable)
        for date, flags in zip(seen.dates, seen.clear, strict=True):
            total[date] = total.get(date, 0) + int(flags.sum())
    return min(total, key=lambda date: (-total[date], date), default=None)


def _read(request: CubeRequest, scenes: Sequence[Scene], window: Window, *, skip_unreadable: bool) -> Seen:
    """What a source saw at a place: the dates that are not much less clear there than the clearest one."""
    request = dataclasses.replace(request, steps=_steps(request, scenes, window))
    unread: set[str] = set()
    while True:
        data = allocate(request, 1)
        try:
            fill(data, request, scenes, window)
        except ReadError as error:
            broken = {scene.acquisition for scene in scenes if scene.id == error.scene}
            if not skip_unreadable or not broken:
                raise
            log.warning("left out of the alignment: %s", error)
            scenes = [scene for scene in scenes if scene.id != error.scene]
            unread |= broken
            continue
        break
    cube = data.arrays[request.variable]
    if request.time is None:
        cube = cube.reshape(1, len(request.bands), SAMPLE_PX, SAMPLE_PX)
        dates = [STATIC] if data.records[0].scenes else []
    else:
        cube, dates = cube[0], list(data.records[0].dates)
    cube = cube[: len(dates)]
    if "clear_mask" in data.arrays:
        clear = data.arrays["clear_mask"][0, : len(dates)] == 1
    else:
        clear = (~np.isnan(cube) if cube.dtype.kind == "f" else cube != request.fill).all(axis=1)
    share = clear.mean(axis=(1, 2))
    enough = np.flatnonzero(share >= max(ENOUGH_CLEAR * share.max(initial=0), MIN_PX / SAMPLE_PX**2))
    return Seen([dates[t] for t in enough], cube[enough], clear[enough], frozenset(unread))


def _steps(request: CubeRequest, scenes: Sequence[Scene], window: Window) -> int:
    """Dates whose footprints meet a place."""
    import shapely

    if request.time is None:
        return 1
    minx, miny, maxx, maxy = window.bounds
    lon, lat = to_utm(window.epsg).transform(
        np.array([minx, maxx, maxx, minx]), np.array([miny, miny, maxy, maxy]), direction="INVERSE"
    )
    outline = shapely.box(lon.min(), lat.min(), lon.max(), lat.max())
    near = (
        any(shapely.intersects(outline, grown(scene.footprint)) for scene in step.scenes)
        for step in join_steps(request, scenes)
    )
    return max(1, sum(near))


def _chips_in(
    zones: Sequence[tuple[int, npt.NDArray[np.intp], npt.NDArray[np.float64]]], window: Window
) -> Iterator[tuple[int, slice, slice]]:
    """(position, rows, columns) of the chips that lie in a place; of a chip around it, what the place has of it."""
    res, (left, low, right, top) = window.resolution_m, window.bounds
    for epsg, where, bounds in zones:
        if epsg != window.epsg:
            continue
        inside = (bounds[:, 0] >= left) & (bounds[:, 1] >= low) & (bounds[:, 2] <= right) & (bounds[:, 3] <= top)
        around = (bounds[:, 0] <= left) & (bounds[:, 1] <= low) & (bounds[:, 2] >= right) & (bounds[:, 3] >= top)
        for at in np.flatnonzero(inside | around).tolist():
            minx, miny, maxx, maxy = bounds[at]
            y, x = (
                slice(max(0, round(first / res)), min(SAMPLE_PX, round(last / res)))
                for first, last in ((top - maxy, top - miny), (minx - left, maxx - left))
            )
            yield int(where[at]), y, x
