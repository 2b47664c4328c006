"""Where the acquisitions of a source lie against each other: measured once before a build, and frozen with its lock.

Sensors and dates are up to a pixel off (Sentinel-2A and -2B of 2018 differ by 7 m over Lower Austria). The shift of an
acquisition is voted by a sample of places of its own, larger than most chips, because small ones tell too little.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cube.align import AcquisitionShift, CoregisterSpec, Shift, by_acquisition, measure_series, moves
from cube.build import CubeRequest, allocate, fill, steps_needed
from cube.steps import join_steps
from cube.times import KeepSpec, TimeSpec
from tiling.grid import Chip, GridSpec, lay_chips
from tiling.shards import Shard

if TYPE_CHECKING:
    from catalog.scene import Scene
    from flows.console import Console
    from flows.plan import Plan
    from tiling.aoi import Aoi

SAMPLE_PX = 256
"""Side of a place: shifts are known to 0.03 px there, and to 0.1 to 0.3 px on 64 px (`benchmarks/align.py`)."""
SAMPLES = 16
"""Places that vote. More do not help: an acquisition is off as a whole."""
SAMPLE_BANDS = 2
"""Bands compared; a second one helps between seasons."""
ENOUGH_CLEAR = 0.3
"""Share of a place that must be clear for a date to be compared there."""


def measure(plan: Plan, console: Console) -> bytes | None:
    """The shifts of all sources that the recipe wants aligned, as ``alignment.json``; None when it wants none.

    Reads the sampled places as they are. Raises ReadError.
    """
    wanted = {name: spec.coregister for name, spec in plan.recipe.sources.items() if spec.coregister is not None}
    if not wanted:
        return None
    document = {}
    for request in plan.requests:
        spec = wanted.get(request.name)
        if spec is None:
            continue
        with console.stage(f"measuring the alignment of {request.name}"):
            shifts = _shifts(request, spec, plan.scenes[request.name], plan.aoi)
            undone = moves(shifts, spec, request.resolution_m)
        console.say(f"{request.name}: {len(undone)} of {len(shifts)} acquisitions are moved onto the {spec.reference}")
        document[request.name] = {key: _told(shift, key in undone) for key, shift in sorted(shifts.items())}
    return json.dumps(document, indent=1, sort_keys=True).encode()


def moved(document: bytes | None, source: str) -> tuple[tuple[str, tuple[float, float]], ...]:
    """(acquisition, (east, north) in metres) of what is to be undone for a source, from ``alignment.json``."""
    if document is None:
        return ()
    found: Mapping[str, Mapping[str, Any]] = json.loads(document).get(source, {})
    return tuple((key, (told["east_m"], told["north_m"])) for key, told in found.items() if told["undone"])


def _told(shift: AcquisitionShift, undone: bool) -> dict[str, Any]:
    values = {name: getattr(shift, name) for name in ("east_m", "north_m", "spread_m", "quality")}
    rounded = {name: None if math.isnan(value) else round(value, 4) for name, value in values.items()}
    return {**rounded, "chips": shift.chips, "undone": undone}


def _shifts(
    request: CubeRequest, spec: CoregisterSpec, scenes: Sequence[Scene], aoi: Aoi
) -> dict[str, AcquisitionShift]:
    series = dataclasses.replace(
        request,
        bands=request.bands[:SAMPLE_BANDS],
        size_px=SAMPLE_PX,
        time=TimeSpec(series=True),
        keep=KeepSpec(min_clear=ENOUGH_CLEAR),
        apply_mask=False,
    )
    acquisitions = {step.time: step.scenes[0].acquisition for step in join_steps(series, scenes)}
    places = [_read(series, scenes, chip) for chip in _sample(aoi, request.resolution_m)]
    clearest = _clearest(places) if spec.reference == "clearest" else None
    voted: dict[str, list[Shift]] = {acquisition: [] for acquisition in acquisitions.values()}
    for dates, cube, clear in places:
        if len(dates) < 2 or (clearest is not None and clearest not in dates):
            continue
        reference: Literal["composite"] | int = "composite" if clearest is None else dates.index(clearest)
        measured = measure_series(cube, clear, reference=reference, max_shift_px=spec.max_shift_px)
        for date, shift in zip(dates, measured, strict=True):
            voted[acquisitions[date]].append(shift)
    return by_acquisition(voted, request.resolution_m)


def _sample(aoi: Aoi, resolution_m: float) -> list[Chip]:
    """Places spread evenly over the area; those at its edge only where there is nothing else."""
    for min_cover in (0.9, 0.3, 0.001):
        chips, _ = lay_chips(aoi, GridSpec(resolution_m=resolution_m, size_px=SAMPLE_PX, min_cover=min_cover))
        if len(chips) >= SAMPLES or min_cover == 0.001:
            break
    chosen = np.unique(np.linspace(0, len(chips) - 1, min(SAMPLES, len(chips))).round().astype(int))
    return [chips[index] for index in chosen]


def _read(series: CubeRequest, scenes: Sequence[Scene], chip: Chip) -> tuple[list[Any], Any, Any]:
    """(dates, pixels (time, band, y, x), clear (time, y, x)) of one place."""
    request = dataclasses.replace(series, steps=steps_needed(series, scenes, [chip]))
    data = allocate(request, 1)
    for window in Shard(0, 0, (chip,)).windows(SAMPLE_PX**2):
        fill(data, request, scenes, window)
    dates = list(data.records[0].dates)
    clear = data.arrays["clear_mask"][0, : len(dates)] == 1
    return dates, data.arrays[request.variable][0, : len(dates)], clear


def _clearest(places: Sequence[tuple[list[Any], Any, Any]]) -> Any:
    """The date with most clear pixels over all places, the earlier of two alike; None when there is none."""
    total: dict[Any, int] = {}
    for dates, _, clear in places:
        for date, flags in zip(dates, clear, strict=True):
            total[date] = total.get(date, 0) + int(flags.sum())
    return min(total, key=lambda date: (-total[date], date), default=None)
