"""Days that each chip has for itself: those of records that lie in it, or the turns of its year of plants.

They are read once from the layers that the recipe names and frozen as ``dates.json`` beside the lock, so that a build
that continues and its workers need the layers no more.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cube.times import DateSlot, PhenologySpec, RecordDates, record_slots, season_slots
from curate.errors import RecipeError, StoreError
from flows.inputs import files
from flows.sampling import rasters_of
from tiling.grid import Chip, centres, footprints
from tiling.layers import raster_points, read_vector

if TYPE_CHECKING:
    from flows.console import Console
    from flows.plan import Area, Plan
    from recipes.recipe import Recipe

DATES = "dates.json"
"""The days of each chip, by source; there where a recipe asks for days by chip."""
VERSION = 1
EPOCH = dt.date(1970, 1, 1)
NORTH = (dt.date(2001, 3, 1), dt.date(2001, 6, 1), dt.date(2001, 9, 1), dt.date(2001, 12, 1))
SOUTH = (dt.date(2000, 9, 1), dt.date(2000, 12, 1), dt.date(2001, 3, 1), dt.date(2001, 6, 1))
"""Meteorological spring, summer, autumn and winter."""


def own_dates(recipe: Recipe, area: Area, console: Console) -> bytes | None:
    """The days of each chip for the sources that ask for them, as they are stored; None where none does.

    Raises:
        RecipeError: A layer cannot be used, or says nothing about any chip.
    """
    found: dict[str, Any] = {}
    for name, source in recipe.sources.items():
        spec = source.time
        if source.table.timeless or not spec.by_chip:
            continue
        if spec.dates is not None:
            chips = _of_records(recipe, area, spec.dates)
        else:
            assert spec.phenology is not None  # by_chip
            chips = _of_phenology(recipe, area.chips, spec.phenology)
        if not chips:
            layer = spec.dates.vector if spec.dates is not None else "phenology"
            raise RecipeError("recipe", (f"sources.{name}: {layer} has a day for none of {len(area.chips)} chips",))
        by = [each["by"] for each in chips.values()]
        counts = ", ".join(f"{by.count(how)} by {how}" for how in dict.fromkeys(by))
        console.say(f"{name}: {len(chips)} of {len(area.chips)} chips have days of their own ({counts})")
        found[name] = chips
    if not found:
        return None
    return (json.dumps({"version": VERSION, "sources": found}, sort_keys=True, indent=1) + "\n").encode()


def _of_records(recipe: Recipe, area: Area, spec: RecordDates) -> dict[str, Any]:
    """Chip -> the earliest day of its records."""
    import shapely

    with files(recipe) as file:
        table = read_vector(file(spec.vector), area.search_geometry(), attributes=[spec.attribute])
    days = [_day(value, spec) for value in table[spec.attribute]]
    chip, record = shapely.STRtree(table.geometry.to_numpy()).query(footprints(area.chips), predicate="intersects")
    earliest: dict[int, dt.date] = {}
    for at, one in zip(chip.tolist(), record.tolist(), strict=True):
        day = days[one]
        if day is not None and (at not in earliest or day < earliest[at]):
            earliest[at] = day
    return {area.chips[at].id: {"by": "record", "days": [str(day)]} for at, day in sorted(earliest.items())}


def _day(value: Any, spec: RecordDates) -> dt.date | None:
    """The day that an attribute says; None where it says nothing."""
    if value is None or value != value or value == "":
        return None
    if isinstance(value, dt.datetime):  # pandas' too
        return value.date()
    if isinstance(value, dt.date):
        return value
    try:
        return dt.date.fromisoformat(str(value)[:10])
    except ValueError as error:
        wrong = f"time.dates: {spec.attribute} of {spec.vector} has {value!r}; wanted days like 2018-07-01"
        raise RecipeError("recipe", (wrong,)) from error


def _of_phenology(recipe: Recipe, chips: Sequence[Chip], spec: PhenologySpec) -> dict[str, Any]:
    """Chip -> the median days on which its spring, summer, autumn and winter begin."""
    turns = np.full((4, len(chips)), np.nan)
    for season, path in enumerate((spec.greenup, spec.maturity, spec.senescence, spec.dormancy)):
        pixels, known = raster_points(chips, rasters_of(recipe, path))
        for at in np.flatnonzero(known.any(axis=1)).tolist():
            turns[season, at] = np.median(pixels[at][known[at]])
    found: dict[str, Any] = {}
    south = centres(chips)[1] < 0
    for at, chip in enumerate(chips):
        own = turns[:, at]
        # One cycle within a year, or it is none: pixels of two cycles a year mix into days out of order.
        if np.isfinite(own).all() and (np.diff(own) > 0).all() and own[3] - own[0] < 365:
            days = [EPOCH + dt.timedelta(days=int(day)) for day in own]
            found[chip.id] = {"by": "phenology", "days": [str(day) for day in days]}
        elif spec.missing == "calendar":
            found[chip.id] = {"by": "calendar", "days": [str(day) for day in (SOUTH if south[at] else NORTH)]}
    return found


def slots_of(plan: Plan) -> dict[str, tuple[tuple[DateSlot, ...] | None, ...]]:
    """Where each chip of a plan, in the order of the store, looks for its dates, by source; None where it has none.

    Raises StoreError when ``dates.json`` is missing or damaged.
    """
    recipe = plan.recipe
    asked = [name for name, source in recipe.sources.items() if source.time.by_chip and not source.table.timeless]
    if not asked:
        return {}
    if plan.dates is None:
        raise StoreError(DATES, "is missing, and the recipe asks for days by chip; build anew in another folder")
    try:
        document = json.loads(plan.dates)
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']}")
        sources: Mapping[str, Any] = document["sources"]
        out = {}
        for name in asked:
            days = {chip: tuple(map(dt.date.fromisoformat, found["days"])) for chip, found in sources[name].items()}
            spec = recipe.sources[name].time
            slots: dict[tuple[dt.date, ...], tuple[DateSlot, ...] | None] = {}
            for own in days.values():
                if own not in slots:
                    slots[own] = (
                        record_slots(recipe.interval, spec, own[0])
                        if spec.dates is not None
                        else season_slots(recipe.interval, own)
                    )
            out[name] = tuple(slots[days[chip.id]] if chip.id in days else None for chip in plan.chips)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(DATES, f"is damaged or of another release: {error}") from error
    return out
