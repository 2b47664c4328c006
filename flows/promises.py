"""What only the recipe can promise about a dataset: its chips, its splits, the distance between them.

`curate check` hands these to the store's own check, which knows nothing of recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from chips.audit import lies_in, times_of
from cube.times import Interval
from flows.auditing import check_audit
from flows.sampling import Sampling
from flows.splits import frozen, seen_ground, years_of
from flows.steps import DRAWN
from recipes.recipe import Recipe
from tiling.aoi import Aoi
from tiling.distance import shortest_distance_m
from tiling.grid import Chip, chip_from_id, lay_chips
from tiling.split import SPLITS
from tiling.split_draw import Drawn, draw_splits
from tiling.split_rules import BY_PLACE, FROZEN

if TYPE_CHECKING:
    import pandas as pd

    from tiling.places import Place

Promise = Callable[["pd.DataFrame"], list[str]]
TOLD = 5
"""Names given as examples of what is wrong."""


def promises(
    recipe: Recipe,
    aoi: Aoi,
    splits: bytes | None = None,
    sampling: bytes | None = None,
    places: Sequence[Place] = (),
    *,
    audit: bytes | None = None,
    lock: bytes | None = None,
) -> tuple[Promise, ...]:
    """Checks of the chip index against its recipe and area; each gives the sentences of what is broken.

    Args:
        recipe: What was asked for.
        aoi: The area.
        splits: What was drawn by a rule that looks at more than the places of the chips.
        sampling: Which chips were taken, where not all of them were.
        places: What the chips stand on, in grids that read it from a file.
        audit: The audit that was published.
        lock: The scenes; without them nothing is audited.
    """
    taken = None if sampling is None else Sampling.from_bytes(sampling)
    found: list[Promise] = [
        lambda table: _all_planned(table, recipe, aoi, taken, places),
        lambda table: _splits_by_rule(*_known(table, recipe, aoi, places), recipe, aoi, splits, places),
    ]
    if years := years_of(recipe):
        found.append(lambda table: _years_held(table, years))
    if lock is not None:
        found.append(lambda table: _audited(*_known(table, recipe, aoi, places), recipe, lock, audit))
    if lock is None or recipe.split.rule == "folds":  # else the audit measures the same distances
        found.append(lambda table: _splits_apart(*_known(table, recipe, aoi, places), recipe))
    return tuple(found)


def _audited(chips: list[Chip], table: pd.DataFrame, recipe: Recipe, lock: bytes, audit: bytes | None) -> list[str]:
    return check_audit(recipe, table, chips, lock, audit)


def _known(table: pd.DataFrame, recipe: Recipe, aoi: Aoi, places: Sequence[Place]) -> tuple[list[Chip], pd.DataFrame]:
    """The chips of the index, as large as they are seen, and their rows."""
    if recipe.grid.id_column is None:
        chips = [chip_from_id(name, recipe.grid) for name in table["chip"]]
    else:  # only the file tells where a chip of that name is
        planned = {chip.id: chip for chip in lay_chips(aoi, recipe.grid, places)[0]}
        table = table[table["chip"].isin(list(planned))]
        chips = [planned[name] for name in table["chip"]]
    return seen_ground(chips, recipe), table


def _all_planned(
    table: pd.DataFrame, recipe: Recipe, aoi: Aoi, sampling: Sampling | None, places: Sequence[Place]
) -> list[str]:
    laid, there = {chip.id for chip in lay_chips(aoi, recipe.grid, places)[0]}, set(table["chip"])
    planned = laid if sampling is None else set(sampling.chips)
    broken = _differ(sorted(planned - there), "chips of the area have no row in chips.parquet") + _differ(
        sorted(there - laid), "chips of chips.parquet are not of this area and grid"
    )
    if sampling is None:
        if any(step.method != "all" for step in recipe.sample_steps):
            broken.append("the recipe samples, and sampling.json is missing")
        return broken
    rows = zip(table["chip"], table.get("sampled_by", [None] * len(table)), strict=True)
    other = [chip for chip, by in rows if chip in planned and by != sampling.chips[chip][0]]
    broken += _differ(sorted((there & laid) - planned), "chips of chips.parquet were not taken by sampling.json")
    broken += _differ(other, "chips have another sampled_by than sampling.json says")
    if len(planned) != sampling.summary["taken"]:
        broken.append(f"sampling.json names {len(planned)} chips and counts {sampling.summary['taken']}")
    return broken


def _splits_by_rule(
    chips: list[Chip],
    table: pd.DataFrame,
    recipe: Recipe,
    aoi: Aoi,
    splits: bytes | None,
    places: Sequence[Place],
) -> list[str]:
    if recipe.split.rule in BY_PLACE:
        right = draw_splits(chips, recipe.split)
    elif recipe.split.rule not in FROZEN:
        # Over the whole area, as when it was planned: these rules look at all chips, also at those no sampler took.
        laid, _ = lay_chips(aoi, recipe.grid, places)
        position = {chip.id: index for index, chip in enumerate(laid)}
        rows = [position[chip] for chip in table["chip"] if chip in position]
        if len(rows) != len(table):
            return []  # chips of another area or grid are told already
        right = Drawn(draw_splits(seen_ground(laid, recipe), recipe.split).split[rows])
    elif splits is None:
        return [f"{DRAWN} is missing, so the splits cannot be compared with those that were drawn"]
    else:
        right = frozen(splits, table["chip"].tolist())
    wrong = table["chip"].to_numpy()[right.split != table["split"].to_numpy()]
    found = _differ(list(wrong), "chips are in another split than the recipe's rule puts them")
    if right.fold is not None and (right.fold != table["fold"].to_numpy()).any():
        wrong = table["chip"].to_numpy()[right.fold != table["fold"].to_numpy()]
        found += _differ(list(wrong), "chips are in another fold than the recipe's rule puts them")
    return found


def _years_held(table: pd.DataFrame, years: Mapping[str, Sequence[Interval]]) -> list[str]:
    """No chip has a date outside of the years that its split is given."""
    chips, splits = table["chip"].to_numpy(), table["split"].to_numpy()
    broken = []
    for column in (name for name in table.columns if name.endswith("_dates")):
        row, times = times_of(table[column])
        outside = np.zeros(len(times), bool)
        for split, spans in years.items():
            outside |= (splits[row] == split) & ~lies_in(times, [(span.start, span.end) for span in spans])
        # The first wrong date of each chip.
        wrong, first = np.unique(row[outside], return_index=True)
        days = times[outside][first].astype("datetime64[D]")
        names = [f"{chips[at]} ({splits[at]}, {day})" for at, day in zip(wrong.tolist(), days, strict=True)]
        broken += _differ(names, f"chips have dates of {column.removesuffix('_dates')} in a year of another split")
    return broken


def _splits_apart(chips: list[Chip], table: pd.DataFrame, recipe: Recipe) -> list[str]:
    """Splits, and where there are any folds, are as far apart as the recipe promises."""
    promised = recipe.split.buffer_km * 1000
    parts: dict[str, npt.NDArray[np.bool_]] = {}
    if "fold" in table:
        parts = {f"fold {fold}": table["fold"].to_numpy() == fold for fold in sorted(set(table["fold"]) - {0})}
    else:
        parts = {name: table["split"].to_numpy() == name for name in SPLITS}
    broken = []
    for (a, in_a), (b, in_b) in combinations(parts.items(), 2):
        if in_a.any() and in_b.any():
            first, second = ([chips[i] for i in np.flatnonzero(part).tolist()] for part in (in_a, in_b))
            apart = shortest_distance_m(first, second)
            if apart < promised:
                broken.append(f"{a} and {b} come as near as {apart:.0f} m; the recipe promises {promised:.0f} m")
    return broken


def _differ(names: Sequence[Any], what: str) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return [f"{len(names)} {what}: {', '.join(map(str, names[:TOLD]))}{more}"]
