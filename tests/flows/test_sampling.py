"""Samplers from the recipe to the published store: the chips are those of the whole dataset, and it is told why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import xarray as xr
from rasterio.warp import transform_bounds

from curate.errors import RecipeError, StoreError
from flows import steps
from flows.console import PlainConsole
from flows.plan import Area, lay_area
from flows.sampling import Sampling, sampled
from recipes.read import parse_recipe
from simulate.world import WorldSpec
from simulate.write import World, write_world
from tiling.aoi import Aoi, read_aoi
from tiling.grid import footprints

RECIPE = """\
time: 2021-04-01/2021-06-01
catalog: catalog.json
grid: {resolution_m: 10, size_px: 32, min_cover: 0.3}
sources:
  s2: {collection: sentinel-2-l2a, bands: [red], time: {composite: monthly}}
split: {block_km: 1.2, buffer_km: 0.05}
"""
SAMPLE = "sample: {{method: landcover, raster: '{raster}', each: 5, min_share: 0.3, seed: 3}}\n"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    spec = WorldSpec(size_px=256, dates=2, every_days=20, bands=("B04",), radar_dates=0, terrain=False, osm=True)
    return write_world(tmp_path_factory.mktemp("world"), spec)


@pytest.fixture(scope="module")
def landcover(small: World) -> str:
    return (
        next(
            str(path.relative_to(small.folder))
            for path in sorted(small.folder.rglob("*.tif"))
            if "cover" in str(path).lower()
        )
        .replace("33", "*")
        .replace("34", "*")
    )


def _build(world: World, out: Path, extra: str, name: str) -> Path:
    recipe = world.folder / f"{name}.yaml"
    recipe.write_text(RECIPE + extra)
    steps.build(steps.make_request(aoi=str(world.region), recipe=str(recipe), out=str(out)), PlainConsole())
    return out


@pytest.fixture(scope="module")
def whole(small: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(small, tmp_path_factory.mktemp("whole") / "out", "", "whole")


@pytest.fixture(scope="module")
def some(small: World, landcover: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    extra = SAMPLE.format(raster=landcover) + "store: {shard_chips: 4}\n"
    return _build(small, tmp_path_factory.mktemp("some") / "out", extra, "some")


def _open(out: Path) -> xr.Dataset:
    ds: xr.Dataset = xr.open_zarr(out / "chips.zarr", group="s2", chunks=None, mask_and_scale=False)
    return ds


def test_a_sampled_chip_is_the_chip_of_the_whole_dataset(whole: Path, some: Path) -> None:
    every, few = _open(whole), _open(some)
    names = few.chip.values.tolist()
    assert 5 <= len(names) < every.sizes["chip"]
    assert set(names) <= set(every.chip.values.tolist())
    same = every.sel(chip=names)
    assert (few.reflectance.values == same.reflectance.values).all()
    assert (few.split.values == same.split.values).all()
    assert "buffer" not in few.split.values
    assert steps.check(str(some), PlainConsole()).problems == ()


def test_a_dataset_of_all_chips_says_nothing_of_sampling(whole: Path) -> None:
    assert not (whole / "sampling.json").exists()
    assert "sampled_by" not in pd.read_parquet(whole / "chips.parquet").columns
    assert "sampling" not in json.loads((whole / "manifest.json").read_text())["layout"]["attrs"]


def test_index_manifest_and_store_say_why_and_of_how_many(some: Path, small: World, landcover: str) -> None:
    table = pd.read_parquet(some / "chips.parquet")
    root = xr.open_zarr(some / "chips.zarr", chunks=None).attrs["sampling"]
    assert root == json.loads((some / "manifest.json").read_text())["layout"]["attrs"]["sampling"]
    assert root["taken"] == len(table)
    groups = root["steps"][0]["groups"]
    for code, group in groups.items():
        drawn = table[[code in by.removeprefix("class ").split(", ") for by in table["sampled_by"]]]
        assert len(drawn) == group["taken"] == min(5, group["candidates"])
    assert any(group["candidates"] < 5 for group in groups.values()) == bool(root["steps"][0]["short"])
    assert (table["sample_weight"] >= 1).all()
    # The rule itself, by rasterio over the files: a chip has about a third of the class that it was taken for.
    tiles = [rasterio.open(path) for path in sorted(small.folder.glob(landcover))]
    for row in table.to_dict("records"):
        lon = np.tile(np.linspace(row["bbox"]["xmin"], row["bbox"]["xmax"], 40), 40)
        lat = np.repeat(np.linspace(row["bbox"]["ymin"], row["bbox"]["ymax"], 40), 40)
        found = []
        for tile in tiles:
            west, south, east, north = tile.bounds
            inside = (lon > west) & (lon < east) & (lat > south) & (lat < north)
            found += [code for (code,) in tile.sample(zip(lon[inside], lat[inside], strict=True))]
        assert found
        for code in row["sampled_by"].removeprefix("class ").split(", "):
            assert np.mean(np.array(found) == int(code)) > 0.22


def test_a_build_goes_on_with_the_chips_it_began_with_when_the_layer_is_gone(
    small: World, landcover: str, some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "layer"
    copy.mkdir()
    for path in small.folder.glob(landcover):
        shutil.copy(path, copy)
    recipe = small.folder / "resumed.yaml"
    recipe.write_text(RECIPE + SAMPLE.format(raster=copy / "*.tif") + "store: {shard_chips: 4}\n")
    request = steps.make_request(aoi=str(small.region), recipe=str(recipe), out=str(tmp_path / "out"))
    prepared = steps.prepare(request, PlainConsole())
    assert prepared is not None
    steps.build_shards(prepared, request, PlainConsole(), only=[0])
    shutil.rmtree(copy)
    steps.build(request, PlainConsole())
    assert (_open(tmp_path / "out").reflectance.values == _open(some).reflectance.values).all()
    assert (tmp_path / "out" / "sampling.json").read_bytes() == (some / "sampling.json").read_bytes()


@pytest.mark.parametrize(
    "rule",
    ["{rule: clusters, of: chips, clusters: 4, buffer_km: 0.1}", "{rule: blocks, block_km: 1.2, buffer_km: 0.05}"],
)
def test_splits_are_drawn_over_all_chips_whatever_is_taken_and_kept_when_a_build_goes_on(
    small: World, tmp_path: Path, rule: str
) -> None:
    text = RECIPE.replace("{block_km: 1.2, buffer_km: 0.05}", rule)
    recipe = small.folder / "ruled.yaml"
    recipe.write_text(text + "sample: {method: uniform, n: 12, seed: 1}\nstore: {shard_chips: 4}\n")
    request = steps.make_request(aoi=str(small.region), recipe=str(recipe), out=str(tmp_path / "out"))
    prepared = steps.prepare(request, PlainConsole())
    assert prepared is not None
    asked = parse_recipe(text)
    every = lay_area(asked, read_aoi(small.region))
    of_all = {chip.id: split for chip, split in zip(every.chips, every.split, strict=True)}
    assert [of_all[chip.id] for chip in prepared.plan.chips] == prepared.plan.split.tolist()
    steps.build(request, PlainConsole())  # goes on
    assert _open(tmp_path / "out").sizes["chip"] == 12
    assert steps.check(str(tmp_path / "out"), PlainConsole()).problems == ()


def test_check_finds_a_chip_that_was_not_taken_and_a_changed_reason(some: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(some, copy)
    table = pq.read_table(copy / "chips.parquet")
    names = table["sampled_by"].to_pylist()
    changed = table.set_column(
        table.column_names.index("sampled_by"), "sampled_by", pa.array(["for fun", *names[1:]], pa.string())
    )
    pq.write_table(changed, copy / "chips.parquet")
    problems = steps.check(str(copy), PlainConsole()).problems
    assert any("another sampled_by than sampling.json says" in problem for problem in problems)


def test_the_plan_tells_candidates_and_taken_without_building(small: World, landcover: str) -> None:
    recipe = small.folder / "planned.yaml"
    recipe.write_text(RECIPE + SAMPLE.format(raster=landcover))
    request = steps.make_request(aoi=str(small.region), recipe=str(recipe), out="/nowhere")
    forecast = steps.preview(request, PlainConsole())
    assert forecast.sampling is not None
    assert forecast.sampling["taken"] == forecast.chips
    assert f"{forecast.chips} of {forecast.sampling['candidates']} chips" in forecast.as_text()


def _area(recipe_text: str, aoi: Aoi, base: Path) -> Area:
    recipe = parse_recipe(recipe_text).located(base)
    return sampled(recipe, lay_area(recipe, aoi), PlainConsole())


def _of(area: Area) -> Sampling:
    assert area.sampling is not None
    return Sampling.from_bytes(area.sampling)


PLAIN = "time: 2018-04-01/2018-10-01\ngrid: {size_px: 32}\nsources: {s2: {collection: sentinel-2-l2a, bands: [red]}}\n"
NO_BUFFER = "split: {block_km: 5, buffer_km: 0}\n"


def test_the_crops_of_austria_are_strata_positives_and_classes(shared_data: Path) -> None:
    base = shared_data / "austria"
    aoi = read_aoi(base / "region.geojson")
    text = PLAIN + NO_BUFFER
    strata = _of(_area(text + "sample: {method: strata, vector: fields.geojson, attribute: label, each: 3}", aoi, base))
    groups = strata.summary["steps"][0]["groups"]
    labels = {f["properties"]["label"] for f in json.loads((base / "fields.geojson").read_text())["features"]}
    assert set(groups) <= labels
    assert all(group["taken"] == min(3, group["candidates"]) for group in groups.values())
    found = _area(text + "sample: {method: positives, vector: fields.geojson, n: 10, apart_km: 0.8}", aoi, base)
    fields = shapely.from_geojson((base / "fields.geojson").read_text())
    for chip, outline in zip(found.chips, footprints(found.chips), strict=True):
        assert (_of(found).chips[chip.id][0] == "positive") == outline.intersects(fields)
    balanced = "sample: {method: balanced, vector: fields.geojson, attribute: label, n: 12}"
    assert len(_area(text + balanced, aoi, base).chips) == 12


def test_the_cropland_data_layer_of_kansas_gives_every_crop_its_quota(shared_data: Path) -> None:
    base = shared_data / "kansas-cdl"
    with rasterio.open(base / "2021_30m_cdls.tif") as file:
        aoi = Aoi("kansas", shapely.box(*transform_bounds(file.crs, 4326, *file.bounds)))
    text = PLAIN.replace("32}", "64}")
    taken = {}
    for raster in ("2021_30m_cdls.tif", "tiles/2021_30m_cdls_*.tif"):
        area = _area(
            text + f"sample: {{method: landcover, raster: '{raster}', quota: {{1: 9, 5: 9, 24: 9}}}}", aoi, base
        )
        taken[raster] = _of(area).chips
        assert {name: group["taken"] for name, group in _of(area).summary["steps"][0]["groups"].items()} == {
            "1": 9, "5": 9, "24": 9
        }  # fmt: skip
    assert len(set(map(str, taken.values()))) == 1, "four tiles and the mosaic say the same"
    chain = "sample: [{method: uniform, n: 400}, {method: landcover, raster: 2021_30m_cdls.tif, how: kmeans, n: 20}]"
    summary = _of(_area(text + chain, aoi, base)).summary
    assert [(step["candidates"] >= step["taken"], step["taken"]) for step in summary["steps"]] == [
        (True, 400),
        (True, 20),
    ]


def test_monaco_has_chips_of_each_category_of_openstreetmap(shared_data: Path) -> None:
    base = shared_data / "monaco-osm"
    aoi = Aoi("monaco", shapely.box(7.40, 43.72, 7.45, 43.76))
    text = PLAIN + NO_BUFFER + "sample: {method: osm, extract: monaco.osm.pbf, each: 2}"
    sampling = _of(_area(text, aoi, base))
    groups = sampling.summary["steps"][0]["groups"]
    assert len(groups) > 2
    assert all(group["taken"] == min(2, group["candidates"]) > 0 for group in groups.values())
    wrong = text.replace("each: 2", "quota: {houses: 2}")
    with pytest.raises(RecipeError, match="quota has 'houses', which is none of the rules landuse"):
        _area(wrong, aoi, base)


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ("{method: strata, raster: none*.tif, each: 2}", "no file is named like none"),
        ("{method: uniform, n: 3, land: none.geojson}", "cannot be read as a vector file"),
        ("{method: cities, points: fields.geojson, n: 3}", "other shapes than points"),
        ("{method: strata, vector: fields.geojson, attribute: name, each: 3}", "has no attribute 'name'; found"),
        ("{method: strata, vector: fields.geojson, attribute: label, quota: {x: 3}}", "takes none of"),
        ("{method: unform, n: 3}", "unform"),
        ("{method: uniform, m: 3}", "did you mean|wanted one of"),
        ("[{method: uniform, n: 0}]", "n is 0; wanted 1 or more"),
    ],
)
def test_what_cannot_be_sampled_is_refused_with_a_sentence(shared_data: Path, sample: str, says: str) -> None:
    base = shared_data / "austria"
    with pytest.raises(RecipeError, match=says):
        _area(PLAIN + NO_BUFFER + f"sample: {sample}\n", read_aoi(base / "region.geojson"), base)


def test_a_sampling_of_another_area_or_release_is_refused(shared_data: Path) -> None:
    base = shared_data / "austria"
    recipe: Any = parse_recipe(PLAIN + NO_BUFFER).located(base)
    aoi = read_aoi(base / "region.geojson")
    strange = Sampling({"taken": 1}, {"32601_1_1": ("by chance", None)}).to_bytes()
    with pytest.raises(StoreError, match="names 1 chips that are not of this area"):
        lay_area(recipe, aoi, sampling=strange)
    with pytest.raises(StoreError, match="of another release"):
        Sampling.from_bytes(strange.replace(b'"version": 1', b'"version": 9'))
