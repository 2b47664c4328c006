"""The audit of leakage of a build: made of its index when it is published, and made again when it is checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from catalog.lock import read_lock
from chips.audit import AUDIT, audit, broken, differences
from flows.splits import named_years

if TYPE_CHECKING:
    import pandas as pd

    from recipes.recipe import Recipe
    from tiling.grid import Chip

TOLD = 5
"""Places named where an audit differs from what it says."""


def audit_of(recipe: Recipe, table: pd.DataFrame, chips: Sequence[Chip], lock: bytes) -> dict[str, Any]:
    """The audit of a dataset from its index, its chips and the scenes it was locked to."""
    passes = {row.scene.id: row.scene.acquisition for row in read_lock(lock) if row.scene}
    block_km = getattr(recipe.split, "block_km", None)
    block_m = None if block_km is None else block_km * 1000
    return audit(table, chips, block_m=block_m, acquisitions=passes, years=named_years(recipe))


def sentences(recipe: Recipe, found: dict[str, Any]) -> list[str]:
    """What an audit found that the recipe promised not to be."""
    return broken(found, recipe.audit, recipe.split.buffer_km * 1000)


def check_audit(
    recipe: Recipe, table: pd.DataFrame, chips: Sequence[Chip], lock: bytes, stored: bytes | None
) -> list[str]:
    """What is wrong with the splits of a dataset, and where its audit is not that of its index.

    Datasets without an audit are of an earlier release; they are audited here all the same.
    """
    found = audit_of(recipe, table, chips, lock)
    told = sentences(recipe, found)
    if stored is None:
        return told
    try:
        says = json.loads(stored)
    except ValueError:
        return [*told, f"{AUDIT} is no JSON"]
    if differ := differences(says, found):
        more = f" and {len(differ) - TOLD} more" if len(differ) > TOLD else ""
        told.append(f"{AUDIT} is not the audit of the index: {', '.join(differ[:TOLD])}{more}")
    return told
