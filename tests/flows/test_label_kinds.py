"""Every kind of label in one recipe over the simulated world, each against what it is made from."""

from __future__ import annotations

import pickle
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

from curate.errors import LabelError, RecipeError
from flows.console import PlainConsole
from flows.steps import build, check, make_request, prepare
from labels.crosswalk import crosswalk
from recipes.read import parse_recipe
from simulate.write import World, truth_on

HEAD = """\
name: labels
time: 2021-04-01/2021-08-01
catalog: catalog.json
grid: {resolution_m: 10, size_px: 64, min_cover: 0.3}
sources:
  s2: {collection: sentinel-2-l2a, bands: [red, nir], time: {composite: monthly, how: median}}
split: {block_km: 1.2, buffer_km: 0.1, shares: {train: 0.6, val: 0.2, test: 0.2}, seed: 1}
store: {shard_chips: 16}
labels:
"""
LABELS = """\
  consensus: {agree: [coarse, small], min_share: 0.6}
  coarse: {of: cover, to: simple8}
  cover: {product: worldcover, year: 2021}
  small: {of: cover, to: simple8, quality: exact}
  fields:
    vector: fields.geojson
    attribute: label
    background: 0
    targets: [boundary, distance, extent, panoptic]
    features: true
  clean: {of: consensus, segments: slic, image: s2, confidence: consensus_agreement, min_confidence: 60, min_share: 0}
  scene: {of: coarse, scene: multilabel, max_unlabelled: 0.5}
  words: {of: cover, caption: chatearthnet}
  changed: {change: [coarse, small], anyway: true}
  parcels: {of: [cover, fields_distance], zones: fields_id}
  spread: {of: fields_distance, histogram: [0, 20, 50, 400]}
  steps: {of: coarse, ordinal: [1, 2, 3, 4]}
  mapped: {of: osm, caption: tags}
  osm: {extract: map.osm.pbf, output: [mask, instances], features: true}
  things: {extract: map.osm.pbf, rules: olmoearth, output: presence, resolution_m: 2.5}
  both: {agree: [osm, cover], min_share: 0.6}
"""


def _recipe(world: World, labels: str, name: str) -> str:
    path = world.folder / f"{name}.yaml"
    path.write_text(HEAD + labels)
    return str(path)


@pytest.fixture(scope="module")
def out(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labels") / "dataset"
    request = make_request(aoi=str(world.region), recipe=_recipe(world, LABELS, "labels"), out=str(out))
    build(request, PlainConsole())
    return out


@pytest.fixture(scope="module")
def label(out: Path) -> xr.Dataset:
    ds: xr.Dataset = xr.open_zarr(out / "chips.zarr", group="label", mask_and_scale=False).load()
    return ds


@pytest.fixture(scope="module")
def index(out: Path) -> gpd.GeoDataFrame:
    return gpd.read_parquet(out / "chips.parquet")


def test_the_dataset_is_as_promised(out: Path) -> None:
    assert check(str(out), PlainConsole()).problems == ()


def test_a_translation_stands_beside_the_native_codes(label: xr.Dataset) -> None:
    pairs = {pair.code: pair.target for pair in crosswalk("esa-worldcover", "simple8").used}
    assert len(np.unique(label.cover)) > 3
    np.testing.assert_array_equal(label.coarse, np.vectorize(lambda code: pairs.get(code, 255))(label.cover))
    assert label.coarse.attrs["flag_names"][0] == "Trees"


def test_equal_votes_agree_and_a_missing_vote_does_not_count(label: xr.Dataset) -> None:
    votes = (label.coarse != 255).astype(int) + (label.small != 255).astype(int)
    np.testing.assert_array_equal(label.consensus_votes, votes)
    np.testing.assert_array_equal(label.consensus, np.where(label.coarse != 255, label.coarse, label.small))


def test_a_scene_has_the_classes_that_its_pixels_have(label: xr.Dataset, index: gpd.GeoDataFrame) -> None:
    names = {name: code for code, name in enumerate(label.coarse.attrs["flag_names"], start=1)}
    codes = np.array([names[name] for name in label.scene_class.values.tolist()])
    for chip, (hot, pixels) in enumerate(zip(label.scene.values, label.coarse.values, strict=True)):
        assert set(codes[hot == 1]) == set(np.unique(pixels)) - {255} == set(index["scene_classes"][chip])


def test_parcels_are_instances_of_their_ids(label: xr.Dataset) -> None:
    for ids, instance, fields in zip(
        label.fields_id.values, label.fields_instance.values, label.fields.values, strict=True
    ):
        np.testing.assert_array_equal(instance > 0, (ids > 0) & (fields != 0))
        for number in np.unique(instance[instance > 0]):
            assert len(np.unique(ids[instance == number])) == 1
    assert (label.fields_id > 0).any()


def test_the_table_of_parcels_counts_the_pixels_under_each(out: Path, label: xr.Dataset) -> None:
    table = pd.read_parquet(out / "labels" / "parcels.parquet")
    chips = label.chip.values.tolist()
    for chip, rows in table.groupby("chip"):
        ids = label.fields_id.values[chips.index(chip)]
        found, counts = np.unique(ids[ids > 0], return_counts=True)
        assert dict(zip(rows["id"], rows["n_px"], strict=True)) == dict(zip(found, counts, strict=True))
        assert all(sum(share for _, share in shares) == pytest.approx(1) for shares in rows["cover_shares"])


def test_features_lie_on_their_chips_with_the_ids_of_their_pixels(
    out: Path, label: xr.Dataset, index: gpd.GeoDataFrame
) -> None:
    features = gpd.read_parquet(out / "labels" / "fields.parquet")
    drawn = {
        (str(chip), int(number))
        for chip, ids in zip(label.chip.values, label.fields_id.values, strict=True)
        for number in np.unique(ids[ids > 0])
    }
    written = set(zip(features["chip"], features["id"].astype(int), strict=True))
    assert drawn <= written  # a sliver has no pixel centre, but is a feature
    outlines = index.set_index("chip").geometry
    around = shapely.buffer(outlines.loc[features["chip"]].to_numpy(), 1e-9)
    assert shapely.covers(around, features.geometry.to_numpy()).all()


def test_words_and_numbers_stand_in_the_index(index: gpd.GeoDataFrame, label: xr.Dataset) -> None:
    assert all(text.startswith("Land cover, from most to least: ") for text in index["words_text"])
    for chip, values in enumerate(index["spread_values"]):
        distance = label.fields_distance.values[chip]
        if np.isfinite(distance).any():
            assert dict(values)["mean"] == pytest.approx(np.nanmean(distance), rel=1e-5)


def test_a_worker_draws_the_same_from_what_it_is_sent(world: World, out: Path, tmp_path: Path) -> None:
    from flows.shard import Work, build_shard

    request = make_request(aoi=str(world.region), recipe=_recipe(world, LABELS, "labels"), out=str(tmp_path / "again"))
    prepared = prepare(request, PlainConsole())
    assert prepared is not None
    work, shard = Work.of(prepared.plan, prepared.build), prepared.plan.shards[-1]
    here, there = build_shard(work, shard), build_shard(pickle.loads(pickle.dumps(work)), shard)
    assert here.records == there.records
    for key, array in here.arrays.items():
        np.testing.assert_array_equal(there.arrays[key], array)


def test_a_chip_with_too_little_label_is_partial_and_says_why(world: World, tmp_path: Path) -> None:
    recipe = _recipe(world, "  fields: {vector: fields.geojson, attribute: label, min_labelled: 0.8}\n", "least")
    build(make_request(aoi=str(world.region), recipe=recipe, out=str(tmp_path / "d")), PlainConsole())
    table = gpd.read_parquet(tmp_path / "d" / "chips.parquet")
    little = table["fields_labelled"] < 0.8
    assert 0 < little.sum() < len(table)
    np.testing.assert_array_equal(table["status"] == "partial", little)
    assert table["reason"][little].str.contains("label fields: .* labelled, wanted 80.0%").all()
    assert check(str(tmp_path / "d"), PlainConsole()).problems == ()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("  a: {of: b, to: simple8}\n", "there is no label 'b'"),
        ("  a: {of: b, to: ipcc}\n  b: {of: a, to: simple8}\n", "made from each other in a circle"),
        ("  a: {product: worldcovr}\n", "did you mean"),
        ("  a: {product: clc19}\n", "no catalog is known to have it"),
        ("  a: {vector: x.gpkg, targets: [boundaries]}\n", "wanted 'instances', 'boundary'"),
        (
            "  a: {product: worldcover}\n  b: {of: a, segments: slic, image: s3}\n",
            "there is no source 's3' to segment",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_in_the_recipe(labels: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(HEAD + labels, name="recipe.yaml")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("  f: {vector: fields.geojson}\n  a: {of: f, to: simple8}\n", "no land-cover product or legend"),
        ("  f: {vector: fields.geojson, columns: [yield]}\n", "has no column 'yield'"),
        ("  f: {vector: fields.geojson, columns: [label]}\n", "is not of numbers"),
        (
            "  a: {product: worldcover, year: 2021}\n  b: {product: worldcover, year: 2020}\n  c: {change: [a, b]}\n",
            "were not made alike",
        ),
    ],
)
def test_what_only_the_files_show_is_told_before_a_pixel_is_read(
    world: World, tmp_path: Path, labels: str, said: str
) -> None:
    from dataclasses import replace

    from flows.labelling import open_labels
    from flows.plan import lay_area, search
    from recipes.read import read_recipe
    from tiling.aoi import read_aoi

    recipe = read_recipe(_recipe(world, labels, "wrong"))
    area = lay_area(recipe, read_aoi(str(world.region)))
    # The world has one map; the other year gets its tiles.
    asked = recipe.model_copy(update={"labels": {k: v for k, v in recipe.labels.items() if k != "b"}})
    locked = search(asked, area, PlainConsole())
    locked += tuple(replace(item, source="label:b") for item in locked if item.source == "label:a")
    with pytest.raises(LabelError, match=said):
        open_labels(recipe, area.aoi, area.chips, locked)


def test_what_openstreetmap_has_is_the_truth_where_it_was_drawn_from_it(
    label: xr.Dataset, index: gpd.GeoDataFrame, world: World
) -> None:
    mask = label.osm.values
    corners = zip(index["epsg"].tolist(), index["x0"].tolist(), index["y0"].tolist(), strict=True)
    true = np.stack(
        [truth_on(world.spec, epsg, (10.0, 0.0, x, 0.0, -10.0, y), mask.shape[1:])["class"] for epsg, x, y in corners]
    )
    found = {int(code): float((true[mask == code] == code).mean()) for code in np.unique(mask) if code != 255}
    assert set(found) >= {10, 30, 40, 50, 80}
    # Fields, meadows and water are the very shapes that the pixels are computed from; woods are traced on 15 m, and
    # a village of the map has gardens between its houses.
    assert min(found[code] for code in (30, 40, 80)) > 0.97
    assert found[10] > 0.9
    # The chips at the border reach beyond the map.
    assert (mask != 255).mean() > 0.6


def test_instances_of_openstreetmap_are_the_features_beside_the_store(out: Path, label: xr.Dataset) -> None:
    features = gpd.read_parquet(out / "labels" / "osm.parquet")
    of_number = dict(zip(features["number"], features["code"], strict=True))
    instances, mask = label.osm_instances.values, label.osm.values
    assert set(np.unique(instances)) - {0} <= set(of_number)
    for number in np.unique(instances[instances > 0])[:200]:
        assert np.unique(mask[instances == number]).tolist() == [of_number[number]]
    assert label.osm.attrs["licence"] == "ODbL-1.0"
    assert "OpenStreetMap contributors" in label.osm.attrs["attribution"]


def test_channels_of_2_5_m_stand_in_a_group_of_their_own(out: Path, label: xr.Dataset) -> None:
    fine = xr.open_zarr(out / "chips.zarr", group="label_things", mask_and_scale=False)
    assert fine.things.shape == (label.sizes["chip"], 30, 256, 256)
    names = fine.things_channel.values.tolist()
    house = fine.things[:, names.index("building")].values.reshape(-1, 64, 4, 64, 4)
    # A pixel of 10 m that is building all over is built-up in the mask too.
    assert (label.osm.values[house.all(axis=(2, 4))] == 50).all()
    assert house.all(axis=(2, 4)).any()


def test_the_words_of_a_chip_tell_what_is_mapped_on_it(out: Path, index: gpd.GeoDataFrame) -> None:
    features = gpd.read_parquet(out / "labels" / "osm.parquet")
    for chip, text in zip(index["chip"], index["mapped_text"], strict=True):
        tags = features.loc[features["chip"] == chip, "tags"]
        assert ("farmland (landuse)" in text) == tags.str.contains('"landuse":"farmland"').any()
    assert index["mapped_text"].str.contains("farmland").any()


def test_a_map_votes_with_a_product_of_the_same_classes(label: xr.Dataset) -> None:
    votes = (label.osm != 255).astype(int) + (label.cover != 255).astype(int)
    np.testing.assert_array_equal(label.both_votes, votes)


def test_tags_of_a_label_without_any_are_refused(world: World) -> None:
    recipe = _recipe(world, "  cover: {product: worldcover}\n  w: {of: cover, caption: tags}\n", "untagged")
    request = make_request(aoi=str(world.region), recipe=recipe, out=str(world.folder / "x"))
    with pytest.raises(LabelError, match="tells the tags of cover, which has none; name a label"):
        prepare(request, PlainConsole())
