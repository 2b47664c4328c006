"""Splits of a plan: drawn from the place, and frozen beside the lock where a rule looks at more than the place."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.lock import read_lock
from cube.times import Interval
from curate.errors import RecipeError
from flows.inputs import files
from flows.labelling import Labels, label_shard, open_labels
from tiling.shards import auto_per_shard, lay_shards
from tiling.split import BUFFER
from tiling.split_draw import Drawn, draw_splits
from tiling.split_rules import FROZEN, BalancedSplit, YearSplit, stability

if TYPE_CHECKING:
    from flows.console import Console
    from flows.plan import Area
    from recipes.recipe import Recipe
    from tiling.grid import Chip

MOSTLY = 0.5
"""Share of chips in buffers above which a user is warned."""

PENDING = "pending"
"""Split of all chips of a plan whose rule needs the classes of a label, which only a build looks at."""


def draw(recipe: Recipe, chips: Sequence[Chip]) -> Drawn:
    """The splits of the chips by the recipe's rule. Raises RecipeError when they cannot be drawn."""
    if isinstance(recipe.split, BalancedSplit):
        return Drawn(np.full(len(chips), PENDING, dtype=object))
    with files(recipe) as file:
        return _drawn(recipe, lambda: draw_splits(seen_ground(chips, recipe), recipe.split, file=file))


def seen_ground(chips: Sequence[Chip], recipe: Recipe) -> list[Chip]:
    """The chips as large as the largest of any source: what must not lie in chips of two splits."""
    widest_m = recipe.widest_m
    if widest_m == recipe.grid.side_m:
        return list(chips)
    return [chip.around(widest_m, widest_m / chip.size_px) for chip in chips]


def warn_of_splits(recipe: Recipe, split: Sequence[str], console: Console) -> None:
    """Say so where most chips lie between splits, or a split has none, before a pixel is read."""
    there = Counter(split)
    wanted = [name for name, share in getattr(recipe.split, "shares", {}).items() if share > 0]
    if PENDING not in there and (missing := [name for name in wanted if not there[name]]):
        console.say(
            f"no chip is in {' and '.join(missing)}; smaller blocks (split.block_km), another split.seed or a larger "
            "area may change that",
            level="warning",
        )
    if (share := there[BUFFER] / len(split)) > MOSTLY:
        console.say(
            f"{share:.0%} of the chips lie in the buffer between splits, where nobody trains or tests; larger blocks "
            "(split.block_km), or a smaller split.buffer_km, leave more in splits",
            level="warning",
        )


def _drawn(recipe: Recipe, how: Callable[[], Drawn]) -> Drawn:
    try:
        return how()
    except ValueError as error:
        raise RecipeError("recipe", (f"split: {error}",)) from error


def settle(recipe: Recipe, area: Area, lock: bytes) -> tuple[Area, bytes | None]:
    """The area with splits that wait for nothing more, and the document that freezes them where places are not enough.

    For ``balanced`` the label is drawn here once over all chips.
    """
    if isinstance(recipe.split, BalancedSplit):
        spec, classes = recipe.split, _classes(recipe, area, lock, recipe.split.label)
        drawn = _drawn(recipe, lambda: draw_splits(seen_ground(area.chips, recipe), spec, classes=classes))
        area = dataclasses.replace(area, split=drawn.split)
    if recipe.split.rule not in FROZEN:
        return area, None
    names: dict[str, list[str]] = {}
    for chip, split in sorted(zip((chip.id for chip in area.chips), area.split.tolist(), strict=True)):
        names.setdefault(split, []).append(chip)
    document = {"split": dataclasses.asdict(recipe.split), "chips": names}
    return area, (json.dumps(document, sort_keys=True, indent=1) + "\n").encode()


def frozen(document: bytes, chips: Sequence[str]) -> Drawn:
    """The splits that a build began with, for chips named by their ids; ``pending`` for those that it did not take."""
    found = {chip: split for split, names in json.loads(document)["chips"].items() for chip in names}
    return Drawn(np.array([found.get(chip, PENDING) for chip in chips], dtype=object))


def _classes(recipe: Recipe, area: Area, lock: bytes, label: str) -> list[Mapping[int, float]]:
    """Class shares of a label on every chip of an area."""
    opened = open_labels(recipe, aoi=area.aoi, chips=area.chips, locked=read_lock(lock))
    one = Labels(tuple(source for source in opened.drawn if source.name == label), (), opened.least)
    shares: dict[Chip, Mapping[int, float]] = {}
    for shard in lay_shards(area.chips, auto_per_shard(recipe.grid.side_px, 1)):
        _, records = label_shard(one, shard, {})
        shares |= {chip: found[label].shares for chip, found in zip(shard.chips, records, strict=True)}
    return [shares[chip] for chip in area.chips]


def years_of(recipe: Recipe) -> dict[str, tuple[Interval, ...]]:
    """Split -> the times that its chips may have dates of, in order; none but for the rule ``years``."""
    if not isinstance(recipe.split, YearSplit):
        return {}
    return {split: tuple(Interval(*span) for span in spans) for split, spans in recipe.split.spans.items()}


def named_years(recipe: Recipe) -> dict[str, tuple[dt.datetime, dt.datetime]]:
    """What the recipe calls a year -> its first moment and the one after its last; none but for the rule ``years``."""
    if not isinstance(recipe.split, YearSplit):
        return {}
    return {name: span for named in recipe.split.entries.values() for name, span in named.items()}


def attributes(recipe: Recipe) -> dict[str, Any]:
    """What the root of the store says about its splits: the rule, whether places keep theirs when more is added, and
    the times of each where it has its own."""
    stable, why = stability(recipe.split.rule, recipe.split.buffer_km)
    years = {split: [str(span) for span in spans] for split, spans in years_of(recipe).items()}
    told = {"split_rule": recipe.split.rule, "split_stable": stable, "split_stability": why}
    return told | ({"split_years": years} if years else {})
