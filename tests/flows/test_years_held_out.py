"""Datasets whose splits have years of their own: no place and no year of a test chip is one that train has seen."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

import flows.splits
from chips.audit import AUDIT
from chips.index import INDEX, read_index
from curate.errors import CurateError, RecipeError
from flows.console import PlainConsole
from flows.shard import Work, build_shard
from flows.splits import years_of
from flows.steps import build, check, make_request, prepare
from flows.update import make_update, update
from recipes.read import parse_recipe, read_recipe
from simulate.world import WorldSpec
from simulate.write import World, write_world

YEARS = "{train: [2020], val: [2021-01-01/2021-02-01], test: [2021-02-01/2022-01-01]}"
RECIPE = """\
name: years
time: TIME
catalog: catalog.json
grid: {resolution_m: 10, size_px: 32, min_cover: 0.5}
sources:
  s2:
    collection: sentinel-2-l2a
    bands: [red]
    coverage: {}
    time: {composite: monthly}
  dates: {collection: sentinel-2-l2a, bands: [red], time: {series: true}, keep: {min_clear: 0.3}}
  s1: {collection: sentinel-1-rtc, bands: [vv], time: {series: true}}
  dem: {collection: cop-dem-glo-30}
labels:
  worldcover: {product: esa-worldcover, year: 2021}
split:
  rule: years
  years: YEARS
  block_km: 0.8
  buffer_km: 0.05
  shares: {train: 0.5, val: 0.25, test: 0.25}
  seed: 13
store: {shard_chips: 16}
report: false
""".replace("YEARS", YEARS)
SHORT, LONG = "2020-11-01/2021-02-20", "2020-11-01/2021-04-01"
TIMED = ("s2", "dates", "s1")
OTHER = "in a year of another split"


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two zones, six dates of the winter of 2020 and 2021."""
    start = dt.date(2020, 11, 3)
    spec = WorldSpec(size_px=288, start=start, dates=6, every_days=25, bands=("B04",), radar_dates=6, osm=False)
    return write_world(tmp_path_factory.mktemp("winter"), spec)


def _recipe(land: World, time: str = LONG) -> str:
    path = land.folder / f"recipe-{time.replace('/', '-')}.yaml"
    path.write_text(RECIPE.replace("TIME", time))
    return str(path)


def _build(land: World, out: Path, time: str = LONG) -> Path:
    build(make_request(aoi=str(land.region), recipe=_recipe(land, time), out=str(out)), PlainConsole())
    return out


@pytest.fixture(scope="module")
def held(land: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(land, tmp_path_factory.mktemp("held") / "dataset")


@pytest.fixture(scope="module")
def loose(land: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same from a build that has forgotten the years: every chip has all dates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.splits, "years_of", lambda _: {})
        out = _build(land, tmp_path_factory.mktemp("loose") / "dataset")
    return out


def _table(dataset: Path) -> Any:
    return read_index((dataset / INDEX).read_bytes()).set_index("chip")


def _group(dataset: Path, group: str) -> xr.Dataset:
    found: xr.Dataset = xr.open_zarr(dataset / "chips.zarr", group=group, chunks=None, mask_and_scale=False)
    return found


def _own(times: Any, split: str) -> Any:
    """Which times the recipe gives to a split, written out by hand."""
    times = np.asarray(times, "datetime64[s]")
    january, february = np.datetime64("2021-01-01"), np.datetime64("2021-02-01")
    return {
        "train": times < january,
        "val": (times >= january) & (times < february),
        "test": times >= february,
        "buffer": np.ones(len(times), bool),
    }[split]


def test_every_chip_has_all_the_dates_of_its_own_years_and_none_of_another(held: Path, loose: Path) -> None:
    assert check(str(held), PlainConsole()).problems == ()
    mine, all_of = _table(held), _table(loose)
    assert mine.index.tolist() == all_of.index.tolist()
    assert set(mine["split"]) == {"train", "val", "test", "buffer"}
    for source in TIMED:
        for chip, row in mine.iterrows():
            wanted = np.asarray(all_of.loc[chip, f"{source}_dates"])
            own = _own(wanted, row["split"])
            assert np.asarray(row[f"{source}_dates"]).tolist() == wanted[own].tolist(), (source, chip)
            others = dict(row[f"{source}_dropped"]).get(OTHER, 0)
            assert others >= (~own).sum()
            assert (others == 0) == (row["split"] == "buffer")
            if others and not row[f"{source}_seen"]:
                assert f"{source}: no scene of its split's years has a pixel here: {others} {OTHER}" in row["reason"]
            # Footprints also meet chips that the pixels of their scenes do not reach.
            assert row[f"{source}_seen"] <= all_of.loc[chip, f"{source}_seen"] <= row[f"{source}_seen"] + others
        for split in ("train", "val", "test") if source != "s1" else ("train",):
            assert mine.loc[mine["split"] == split, f"{source}_dates"].map(len).any(), (source, split)


def test_steps_of_composites_are_those_of_all_dates_in_the_own_years_and_void_elsewhere(
    held: Path, loose: Path
) -> None:
    mine, all_of = _group(held, "s2"), _group(loose, "s2")
    assert mine.time.values.tolist() == all_of.time.values.tolist()
    void = mine.reflectance.attrs["_FillValue"]
    for chip, split in enumerate(mine.split.values.tolist()):
        own = _own(mine.time.values, split)
        for name in ("reflectance", "count"):
            np.testing.assert_array_equal(mine[name].values[chip][own], all_of[name].values[chip][own])
        assert (mine.reflectance.values[chip][~own] == void).all()
        assert not mine["count"].values[chip][~own].any()


def test_pixels_of_series_are_those_of_all_dates_and_static_layers_and_labels_have_no_years(
    held: Path, loose: Path
) -> None:
    for source, name in (("dates", "reflectance"), ("s1", "backscatter")):
        mine, all_of = _group(held, source), _group(loose, source)
        for chip in range(mine.sizes["chip"]):
            kept = np.isin(all_of.acquired.values[chip], mine.acquired.values[chip]) & ~np.isnat(
                all_of.acquired.values[chip]
            )
            pixels = mine[name].values[chip]
            np.testing.assert_array_equal(pixels[: kept.sum()], all_of[name].values[chip][kept])
            assert np.isnat(mine.acquired.values[chip][kept.sum() :]).all()
    for group, name in (("dem", "elevation"), ("label", "worldcover")):
        np.testing.assert_array_equal(_group(held, group)[name].values, _group(loose, group)[name].values)


def test_the_audit_tells_the_years_that_splits_share_and_the_check_names_the_chips(held: Path, loose: Path) -> None:
    names = ["2020", "2021-01-01/2021-02-01", "2021-02-01/2022-01-01"]
    for dataset, shared in ((held, []), (loose, names)):
        pairs = json.loads((dataset / AUDIT).read_bytes())["pairs"]
        assert set(pairs) == {"train-val", "train-test", "val-test"}
        for pair in pairs.values():
            assert set(pair["years"]) == set(TIMED), "what has no date has no year"
            assert pair["years"]["s2"] == {"shared": len(shared), "names": shared}
            assert (pair["scenes"]["s2"]["shared"] == 0) == (dataset == held)
    problems = check(str(loose), PlainConsole()).problems
    wrong = [chip for chip, row in _table(loose).iterrows() if not _own(row["s2_dates"], row["split"]).all()]
    assert len(wrong) > 5
    said = f"{len(wrong)} chips have dates of s2 in a year of another split: {wrong[0]} ("
    assert any(said in problem for problem in problems), problems
    assert any(f"s2: train and val both have dates of {', '.join(names)};" in problem for problem in problems)


def test_statistics_and_the_store_know_the_years(held: Path) -> None:
    counts = json.loads((held / "statistics.json").read_bytes())["dates"]["s2"]
    table = _table(held)
    for split in ("train", "val", "test", "buffer"):
        rows = table[table["split"] == split]
        told = sum(dict(dropped).get(OTHER, 0) for dropped in rows["s2_dropped"])
        assert counts[split]["dropped"].get(OTHER, 0) == told
        assert counts[split]["seen"] == rows["s2_seen"].sum()
    card = (held / "README.md").read_text()
    assert "train 2020; val 2021-01-01/2021-02-01; test 2021-02-01/2022-01-01. `buffer` has those of all." in card
    root = json.loads((held / "chips.zarr" / "zarr.json").read_bytes())["attributes"]
    assert root["split_years"] == {
        "train": ["2020-01-01/2021-01-01"],
        "val": ["2021-01-01/2021-02-01"],
        "test": ["2021-02-01/2022-01-01"],
    }
    assert root["split_stable"] is True


def test_nothing_is_read_for_chips_that_may_not_have_it(
    land: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(
        make_request(aoi=str(land.region), recipe=_recipe(land), out=str(tmp_path / "a")), PlainConsole()
    )
    assert prepared is not None
    work = Work.of(prepared.plan, prepared.build)
    assert work.years == years_of(read_recipe(_recipe(land)))
    work = replace(work, split=np.full(len(work.split), "train", dtype=object))
    opened: list[str] = []
    real = rasterio.open

    def remembered(path: Any, *rest: Any, **more: Any) -> Any:
        opened.append(str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(rasterio, "open", remembered)
    build_shard(work, prepared.plan.shards[0])
    scenes = [scene for source in TIMED for scene in work.scenes[source]]
    files = {year: {asset.href for scene in scenes if scene.acquired and scene.acquired.year == year
                    for asset in scene.assets} for year in (2020, 2021)}  # fmt: skip
    assert files[2020] & set(opened)
    assert files[2021]
    assert not files[2021] & set(opened)


def test_a_year_that_comes_later_is_what_a_build_from_nothing_makes_and_one_that_nobody_is_given_is_refused(
    land: World, held: Path, tmp_path: Path
) -> None:
    small = _build(land, tmp_path / "growing", SHORT)
    with pytest.raises(CurateError, match="no split is given 2022-01-01/2022-02-01; name it under years"):
        update(make_update(str(small), time="2020-11-01/2022-02-01", recipe=_recipe(land, SHORT)), PlainConsole())
    made = update(make_update(str(small), time=LONG, recipe=_recipe(land, SHORT)), PlainConsole())
    assert made is not None
    wanted = {path.relative_to(held): path.read_bytes() for path in held.rglob("*") if path.is_file()}
    assert [str(name) for name, data in wanted.items() if (Path(made) / name).read_bytes() != data] == []


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("composite: monthly", "composite: seasonal", "s2 makes one image of 2020-12-01/2021-03-01, which lies in"),
        ("composite: monthly", "back: 1, every_days: 20, date: 2021-03-10", "lie outside the years of train"),
        ("val: [2021-01-01/2021-02-01], ", "", "val has a share of 0.25 and no years"),
        ("[2021-01-01/2021-02-01]", "[2021-01-05/2021-02-01]", "no split is given 2021-01-01/2021-01-05"),
        ("train: [2020]", "train: [spring]", "'spring' is no year"),
        ("train: [2020]", "train: [2020, 2021]", "share days; a day belongs to one split"),
        ("  years: ", "  label: fields\n  years: ", "unknown key 'label' in split"),
        (f"  years: {YEARS}\n", "", "key 'years' is missing in split"),
    ],
)
def test_a_recipe_whose_years_cannot_be_held_is_refused(old: str, new: str, why: str) -> None:
    text = RECIPE.replace("TIME", LONG)
    assert text.count(old) == 1
    with pytest.raises(RecipeError, match=why):
        parse_recipe(text.replace(old, new))


def test_seasons_fit_years_that_end_with_one() -> None:
    text = RECIPE.replace("TIME", "2020-09-01/2021-09-01").replace("composite: monthly", "composite: seasonal")
    years = "{train: [2020-09-01/2020-12-01], val: [2020-12-01/2021-03-01], test: [2021-03-01/2021-09-01]}"
    recipe = parse_recipe(text.replace(YEARS, years))
    assert [str(span) for span in years_of(recipe)["val"]] == ["2020-12-01/2021-03-01"]
