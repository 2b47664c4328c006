"""A built dataset is audited, its check fails when splits leak, and an audit that is not its own is told."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import chips.write
from chips.audit import AUDIT, AuditSpec
from chips.index import INDEX, ChipRecord, read_index
from chips.write import BuildRef, ShardRecord
from flows.console import PlainConsole
from flows.promises import promises
from flows.steps import SCENES, build_shards, check, finish, make_request, prepare
from recipes.read import read_recipe
from simulate.write import World
from tiling.aoi import read_aoi
from tiling.split import SplitSpec

Change = Callable[[list[ChipRecord]], list[ChipRecord]]

RECIPE = """\
name: leaks
time: 2021-04-01/2021-06-01
catalog: catalog.json
grid: {resolution_m: 10, size_px: 64, min_cover: 0.3}
sources:
  s2: {collection: sentinel-2-l2a, bands: [red, nir], time: {composite: monthly, how: median}}
split: {block_km: 1.2, buffer_km: 0.1, shares: {train: 0.6, val: 0.2, test: 0.2}, seed: 1}
store: {shard_chips: 64}
"""


def test_a_dataset_without_leaks_has_an_audit_and_passes(dataset: Path) -> None:
    assert check(str(dataset), PlainConsole()).problems == ()
    audit = json.loads((dataset / AUDIT).read_bytes())
    table = read_index((dataset / INDEX).read_bytes())
    assert audit["chips"] == table["split"].value_counts().to_dict()
    pair = audit["pairs"]["train-val"]
    assert pair["distance_m"]["shortest"] >= 100
    assert set(pair["scenes"]) == {"s1", "s2"}  # elevation has no date
    assert pair["acquisitions"]["s2"]["shared"] <= pair["scenes"]["s2"]["shared"]
    ok = table[table["s2_clear"] > 0.9]
    assert ok["s2_print"].notna().mean() > 0.9
    assert table["dem_print"].isna().all()
    assert {len(means) for means in table["dem_means"]} == {1}


def test_means_are_those_of_the_pixels(dataset: Path) -> None:
    import numpy as np
    import xarray as xr

    table = read_index((dataset / INDEX).read_bytes())
    pixels = xr.open_zarr(dataset / "chips.zarr", group="s2", chunks=None, mask_and_scale=False)["reflectance"]
    for row in range(0, len(table), 9):
        values = pixels[row].values.astype(float)
        values[values == pixels.attrs["_FillValue"]] = np.nan
        if not np.isnan(values).all():
            assert table["s2_means"][row] == pytest.approx(np.nanmean(values, axis=(0, 2, 3)), rel=1e-4)


@pytest.fixture(scope="module")
def begun(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build whose shards are all written and which is not published."""
    recipe = world.folder / "leaks.yaml"
    recipe.write_text(RECIPE)
    out = tmp_path_factory.mktemp("leaks") / "begun"
    request = make_request(aoi=str(world.region), recipe=str(recipe), out=str(out))
    prepared = prepare(request, PlainConsole())
    assert prepared is not None
    build_shards(prepared, request, PlainConsole())
    return out


def _published(begun: Path, world: World, out: Path, change: Change, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The build published from records that were changed before, so that all checksums agree."""
    shutil.copytree(begun, out)
    request = make_request(aoi=str(world.region), recipe=str(world.folder / "leaks.yaml"), out=str(out))
    prepared = prepare(request, PlainConsole())
    assert prepared is not None
    assert prepared.todo == ()
    journal = chips.write.journal

    def changed(build: BuildRef) -> Iterator[ShardRecord]:
        shards = list(journal(build))
        records = iter(change([record for shard in shards for record in shard.chips]))
        return iter([dataclasses.replace(s, chips=tuple(next(records) for _ in s.chips)) for s in shards])

    monkeypatch.setattr(chips.write, "journal", changed)
    finish(prepared, PlainConsole())
    monkeypatch.undo()
    return out


def _first(records: list[ChipRecord], split: str) -> int:
    return next(i for i, record in enumerate(records) if record.split == split and record.status == "ok")


def _moved_over(records: list[ChipRecord]) -> list[ChipRecord]:
    at = _first(records, "buffer")
    records[at] = dataclasses.replace(records[at], split="test")
    return records


def _copied(records: list[ChipRecord]) -> list[ChipRecord]:
    here, there = _first(records, "train"), _first(records, "val")
    kept = records[here].sources["s2"].remembered
    other = dataclasses.replace(records[there].sources["s2"], remembered=kept)
    records[there] = dataclasses.replace(records[there], sources={"s2": other})
    return records


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_moved_over, "the recipe promises 100 m"),
        (_copied, "1 pairs of chips of train and val have the same pixels, the recipe allows 0"),
    ],
)
def test_a_planted_leak_is_told_when_building_and_fails_the_check(
    begun: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    change: Change, why: str,
) -> None:  # fmt: skip
    out = _published(begun, world, tmp_path / "out", change, monkeypatch)
    captured = capfd.readouterr()
    assert "splits leak" in captured.out + captured.err
    assert any(why in problem for problem in check(str(out), PlainConsole()).problems)


def test_what_a_recipe_promises_is_held_against_the_index(dataset: Path) -> None:
    recipe, aoi = read_recipe(dataset / "recipe.yaml"), read_aoi(str(dataset / "region.geojson"))
    table = read_index((dataset / INDEX).read_bytes())
    lock, audit = (dataset / SCENES).read_bytes(), (dataset / AUDIT).read_bytes()

    def told(audit: bytes | None = audit, **changes: object) -> list[str]:
        wish = recipe.model_copy(update=changes)
        return [found for promise in promises(wish, aoi, audit=audit, lock=lock) for found in promise(table)]

    assert told() == []
    assert told(None) == []  # a dataset of an earlier release
    wider = SplitSpec(block_km=5, buffer_km=2)
    assert any("the recipe promises 2000 m" in problem for problem in told(split=wider))
    strict = AuditSpec(max_shared_scenes=0.0)
    wish = recipe.model_copy(update={"audit": strict})
    found = [said for promise in promises(wish, aoi, audit=audit, lock=lock) for said in promise(table)]
    assert (
        "s2: 100.0% of the chips of val are made from scenes that train is made from too; the recipe allows 0.0%"
        in found
    )
    changed = audit.replace(b'"version": 1', b'"version": 2')
    assert told(changed) == [f"{AUDIT} is not the audit of the index: version"]
    assert told(b"{") == [f"{AUDIT} is no JSON"]
