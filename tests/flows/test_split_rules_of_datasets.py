"""Whole datasets with other rules for splits than blocks: built, continued, and checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from chips.index import INDEX, read_index
from chips.storage import open_storage
from curate.errors import RecipeError
from flows.console import PlainConsole
from flows.promises import promises
from flows.splits import warn_of_splits
from flows.steps import DRAWN, build, check, info, make_request, prepare, preview
from recipes.read import parse_recipe, read_recipe
from simulate.write import World
from tiling.aoi import read_aoi

HEAD = """\
name: splits
time: 2021-04-01/2021-06-01
catalog: catalog.json
grid: {resolution_m: 10, size_px: 64, min_cover: 0.3}
sources:
  s2: {collection: sentinel-2-l2a, bands: [red], time: {composite: monthly, how: median}}
labels:
  fields: {vector: fields.geojson, attribute: label, background: 0}
store: {shard_chips: 16}
"""


def _built(world: World, tmp_path: Path, name: str, split: str) -> Path:
    recipe = world.folder / f"split-{name}.yaml"
    recipe.write_text(f"{HEAD}split: {split}\n")
    request = make_request(aoi=str(world.region), recipe=str(recipe), out=str(tmp_path / name))
    assert preview(request, PlainConsole()).chips > 0
    # Begun and then continued from what was frozen, as after a crash.
    assert prepare(request, PlainConsole()) is not None
    build(request, PlainConsole())
    return tmp_path / name


def test_a_dataset_of_balanced_blocks_keeps_what_was_drawn(world: World, tmp_path: Path) -> None:
    out = _built(world, tmp_path, "balanced", "{rule: balanced, label: fields, block_km: 0.7, buffer_km: 0}")
    report = check(str(out), PlainConsole())
    assert report.problems == ()
    table = read_index((out / INDEX).read_bytes())
    drawn = json.loads((out / DRAWN).read_bytes())
    assert {name: set(chips) for name, chips in drawn["chips"].items()} == {
        name: set(rows["chip"]) for name, rows in table.groupby("split")
    }
    fields = np.array([sum(share for code, share in shares if code) for shares in table["fields_shares"]])
    share = {name: fields[(table["split"] == name).to_numpy()].sum() / fields.sum() for name in ("val", "test")}
    assert share == pytest.approx({"val": 0.15, "test": 0.15}, abs=0.06)
    root = json.loads((out / "chips.zarr" / "zarr.json").read_bytes())["attributes"]
    assert (root["split_rule"], root["split_stable"]) == ("balanced", False)

    recipe, aoi = read_recipe(out / "recipe.yaml"), read_aoi(str(out / "region.geojson"))
    told = [problem for promise in promises(recipe, aoi) for problem in promise(table)]
    assert told == [f"{DRAWN} is missing, so the splits cannot be compared with those that were drawn"]
    # A chip moved over is seen.
    table.loc[table.index[table["split"] == "train"][0], "split"] = "test"
    told = [problem for promise in promises(recipe, aoi, (out / DRAWN).read_bytes()) for problem in promise(table)]
    assert any("1 chips are in another split than the recipe's rule puts them" in problem for problem in told)


def test_a_dataset_of_folds_has_the_fold_of_each_chip(world: World, tmp_path: Path) -> None:
    out = _built(world, tmp_path, "folds", "{rule: folds, k: 3, val: [2], test: [3], block_km: 1.2, buffer_km: 0.1}")
    assert check(str(out), PlainConsole()).problems == ()
    table = read_index((out / INDEX).read_bytes())
    assert set(zip(table["fold"], table["split"], strict=True)) == {
        (0, "buffer"), (1, "train"), (2, "val"), (3, "test"),
    }  # fmt: skip
    assert open_storage(out).get(DRAWN) is None
    assert info(str(out)).splits.keys() == {"train", "val", "test", "buffer"}
    recipe, aoi = read_recipe(out / "recipe.yaml"), read_aoi(str(out / "region.geojson"))
    moved = table.assign(fold=table["fold"].replace({1: 2}))
    told = [problem for promise in promises(recipe, aoi) for problem in promise(moved)]
    assert any("in another fold" in problem for problem in told)


def test_rules_are_told_apart_by_their_name() -> None:
    assert parse_recipe(HEAD).split.rule == "blocks"
    recipe = parse_recipe(f"{HEAD}split: {{rule: rings, of: square}}\n")
    assert recipe.split.rule == "rings"
    for split, why in (
        ("{rule: random}", "rule is 'random'; wanted one of blocks, folds"),
        ("{rule: rings, seed: 1}", "unknown key 'seed' in split"),
        ("{rule: folds, k: 2, val: [3]}", "fold 3 is none of the 2 folds"),
        ("{rule: balanced, label: crops}", "is no label of the recipe; wanted one that is drawn: fields"),
        ("{rule: balanced}", "key 'label' is missing in split"),
    ):
        with pytest.raises(RecipeError, match=why):
            parse_recipe(f"{HEAD}split: {split}\n")


@pytest.mark.parametrize(
    ("split", "told"),
    [
        (["train", "val", "test", "buffer"], []),
        (["train", "val", "buffer", "buffer", "buffer"], ["no chip is in test;", "60% of the chips lie in the buffer"]),
        (["pending"] * 3, []),
    ],
)
def test_splits_that_are_empty_or_mostly_buffer_are_told_before_a_pixel_is_read(
    split: list[str], told: list[str], world_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_splits(read_recipe(str(world_recipe)), split, PlainConsole())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(told)
    assert all(line.startswith(f"warning: {start}") for line, start in zip(lines, told, strict=True))
