"""What only the recipe can promise about a dataset: its chips, its splits, the distance between them.

`curate check` hands these to the store's own check, which knows nothing of recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.recipe import Recipe
from tiling.aoi import Aoi
from tiling.grid import Chip, chip_from_id, lay_chips
from tiling.split import SPLITS, assign_splits, shortest_distance_m

if TYPE_CHECKING:
    import pandas as pd

Promise = Callable[["pd.DataFrame"], list[str]]
TOLD = 5
"""Names given as examples of what is wrong."""


def promises(recipe: Recipe, aoi: Aoi) -> tuple[Promise, ...]:
    """Checks of the chip index against its recipe and area; each gives the sentences of what is broken."""
    return (
        lambda table: _all_planned(table, recipe, aoi),
        lambda table: _splits_by_rule(table, recipe),
        lambda table: _splits_apart(table, recipe),
    )


def _chips(table: pd.DataFrame, recipe: Recipe) -> list[Chip]:
    return [chip_from_id(name, recipe.grid) for name in table["chip"]]


def _all_planned(table: pd.DataFrame, recipe: Recipe, aoi: Aoi) -> list[str]:
    planned, there = {chip.id for chip in lay_chips(aoi, recipe.grid)[0]}, set(table["chip"])
    return _differ(sorted(planned - there), "chips of the area have no row in chips.parquet") + _differ(
        sorted(there - planned), "chips of chips.parquet are not of this area and grid"
    )


def _splits_by_rule(table: pd.DataFrame, recipe: Recipe) -> list[str]:
    right = assign_splits(_chips(table, recipe), recipe.split)
    wrong = table["chip"].to_numpy()[right != table["split"].to_numpy()]
    return _differ(list(wrong), "chips are in another split than the recipe's rule puts them")


def _splits_apart(table: pd.DataFrame, recipe: Recipe) -> list[str]:
    chips, split = np.array(_chips(table, recipe), dtype=object), table["split"].to_numpy()
    promised = recipe.split.buffer_km * 1000
    broken = []
    for a, b in combinations(SPLITS, 2):
        if (split == a).any() and (split == b).any():
            apart = shortest_distance_m(list(chips[split == a]), list(chips[split == b]))
            if apart < promised:
                broken.append(f"{a} and {b} come as near as {apart:.0f} m; the recipe promises {promised:.0f} m")
    return broken


def _differ(names: Sequence[Any], what: str) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return [f"{len(names)} {what}: {', '.join(map(str, names[:TOLD]))}{more}"]
