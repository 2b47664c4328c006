"""One clause hides the same clouds on every sensor: tables of quality layers against their bits, and through a cube."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from catalog.scene import Scene
from cube.build import CubeData, CubeRequest, allocate, fill, steps_needed, variables
from cube.composite import fold_chances, fold_values
from cube.mask import MaskSpec, TableName, clear_mask, untold, which_layer
from cube.quality import WORDS, lookup, own_table, quality_table, quality_table_names
from cube.times import Interval, TimeSpec, periods
from curate.errors import CatalogError
from tiling.grid import Chip
from tiling.shards import lay_shards

SceneFactory = Callable[..., Scene]

SIZE = 16
YEAR = Interval.parse("2020-01-01/2021-01-01")
CHIP = Chip(32633, 3125, 33749, SIZE, 10.0)
CLAUSE = MaskSpec(hide=("void", "saturated", "shadow", "cloud", "cirrus"))

# What one clear, cloudy, shaded, snowy, wet and void pixel looks like on each sensor.
SENSORS: dict[str, tuple[str, dict[str, int]]] = {
    "scl": ("uint8", {"clear": 4, "cloud": 9, "shadow": 3, "snow": 11, "water": 6, "void": 0}),
    # 21824 and so on are values that Collection 2 is full of: clear, all confidences low.
    "qa_pixel": ("uint16", {"clear": 21824, "cloud": 22280, "shadow": 23888, "snow": 30048, "water": 21952, "void": 1}),
    "pixel_qa": ("uint16", {"clear": 322, "cloud": 480, "shadow": 328, "snow": 336, "water": 324, "void": 1}),
    "fmask": ("uint8", {"clear": 64, "cloud": 66, "shadow": 72, "snow": 80, "water": 96, "void": 255}),
    "oa_fmask": ("uint8", {"clear": 1, "cloud": 2, "shadow": 3, "snow": 4, "water": 5, "void": 0}),
}


# Tables


def test_every_table_names_its_source_and_speaks_the_words_of_recipes() -> None:
    assert quality_table_names() == get_args(TableName)
    for name in quality_table_names():
        table = quality_table(name)
        assert table.words <= set(WORDS)
        assert table.source
        assert all(link.startswith("https://") for link in table.source)
        assert pickle.loads(pickle.dumps(table)) == table


@pytest.mark.parametrize("name", SENSORS)
def test_a_pixel_of_each_kind_is_hidden_by_its_word_alone(name: str) -> None:
    table, (_, pixels) = quality_table(name), SENSORS[name]
    for word in ("cloud", "shadow", "snow", "water"):
        hidden = lookup(table, (word,)).hidden
        assert {kind for kind, value in pixels.items() if hidden[value]} == {word, "void"}


def test_the_bits_of_landsat_2_are_those_of_the_usgs() -> None:
    numbers = np.arange(65536)
    bits = {"void": [0], "cloud": [1, 3], "near_cloud": [1], "cirrus": [2], "shadow": [4], "snow": [5], "water": [7]}
    for word, places in bits.items():
        expected = np.any([numbers >> place & 1 for place in {0, *places}], axis=0)
        np.testing.assert_array_equal(lookup(quality_table("qa_pixel"), (word,)).hidden, expected)


def test_the_bits_of_landsat_1_are_those_of_lasrc() -> None:
    numbers = np.arange(65536)
    unseen = (numbers & 1 == 1) | (numbers & 0b111111 == 0)
    for word, holds in {
        "cloud": numbers >> 5 & 1 == 1,
        "shadow": numbers >> 3 & 1 == 1,
        "snow": numbers >> 4 & 1 == 1,
        "water": numbers >> 2 & 1 == 1,
        "cirrus": numbers >> 8 & 3 == 3,
    }.items():
        np.testing.assert_array_equal(lookup(quality_table("pixel_qa"), (word,)).hidden, holds | unseen)


def test_bit_0_of_fmask_is_not_believed_and_255_is_fill_and_no_cloud() -> None:
    found = lookup(quality_table("fmask"), CLAUSE.hide)
    numbers = np.arange(256)
    np.testing.assert_array_equal(found.hidden, (numbers & 0b1110 > 0) | (numbers == 255))
    assert not found.hidden[1]
    assert np.flatnonzero(found.void).tolist() == [255]
    assert not found.grows[255]
    assert untold(CLAUSE, quality_table("fmask")) == ("saturated", "cirrus")
    assert untold(CLAUSE, quality_table("scl")) == ()


def test_numbers_are_bits_in_a_layer_of_bits() -> None:
    hidden = lookup(quality_table("qa_pixel"), (3,)).hidden
    np.testing.assert_array_equal(hidden, np.arange(65536) & 0b1001 > 0)
    with pytest.raises(ValueError, match="bits 0 to 7"):
        lookup(quality_table("fmask"), (9,))
    with pytest.raises(ValueError, match="wanted the word 'cloud' and a threshold"):
        lookup(quality_table("cloud_probability"), (40,))


def test_a_margin_that_the_producer_has_grown_is_not_grown_again() -> None:
    layer = np.full((1, 9, 9), 21824, np.uint16)
    layer[0, 4, 4] = 22280  # cloud
    layer[0, 0, 8] = 21762  # dilated cloud alone
    clear = clear_mask(layer, MaskSpec(dilate_m=20), 10, quality_table("qa_pixel"))[0]
    assert (~clear).sum() == 13 + 1
    assert not clear[4, 2]
    assert not clear[0, 8]


# Which layer, and how it is read


def test_the_recipe_may_name_another_layer_than_the_collection() -> None:
    assert which_layer(MaskSpec(), None, None) == (None, None)
    assert which_layer(MaskSpec(), "scl", "scl") == ("scl", quality_table("scl"))
    assert which_layer(MaskSpec(), "qa", "qa_pixel") == ("qa", quality_table("qa_pixel"))
    assert which_layer(MaskSpec(layer="cloud", threshold=60), "scl", "scl") == (
        "cloud",
        quality_table("cloud_probability"),
    )
    assert which_layer(MaskSpec(layer="pixel_qa"), None, None)[1] == quality_table("pixel_qa")
    assert which_layer(MaskSpec(layer="qa", table="fmask"), "scl", "scl") == ("qa", quality_table("fmask"))
    band, table = which_layer(MaskSpec(layer="net", meanings={1: "cloud", 2: "cloud", 3: "shadow"}), "scl", "scl")
    assert table is not None
    assert band == "net"
    assert np.flatnonzero(lookup(table, ("cloud",)).hidden).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threshold": 0}, "above 0"),
        ({"meanings": {1: "cloud"}}, "wanted 'layer"),
        ({"layer": "net", "meanings": {1: "clowd"}}, "did you mean 'cloud'"),
        ({"layer": "net", "meanings": {300: "cloud"}}, "wanted 0 to 255"),
        ({"layer": "net", "meanings": {1: "cloud"}, "table": "scl"}, "remove 'table'"),
        ({"table": "scl", "threshold": 50}, "for layers of probabilities"),
        ({"table": "fmask", "hide": (12,)}, "bits 0 to 7"),
    ],
)
def test_a_clause_that_cannot_work_is_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        MaskSpec(**options)


def test_a_layer_that_nothing_explains_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing tells what the values of layer 'net' mean"):
        which_layer(MaskSpec(layer="net"), "scl", "scl")
    with pytest.raises(ValueError, match="remove it or name another layer"):
        which_layer(MaskSpec(threshold=50), "scl", "scl")
    with pytest.raises(ValueError, match="did you mean 'fmask'"):
        quality_table("fmsk")
    with pytest.raises(ValueError, match="cannot be called 'clear'"):
        ask(TimeSpec(series=True), "clear", quality_table("scl"))


# Folded over time


@given(
    hnp.arrays(np.uint16, (5, 3, 4), elements=st.sampled_from([0, 1, 322, 328, 480, 65535])),
    hnp.arrays(bool, (5, 3, 4)),
)
def test_the_most_frequent_number_of_a_layer_of_bits_is_kept_whole(values: np.ndarray, open_: np.ndarray) -> None:
    found = lookup(quality_table("pixel_qa"), ())
    clear = open_ & ~found.void[values]
    out = np.zeros((3, 4), np.uint16)
    fold_values(values, clear, out, found.void, 1)
    for i, j in np.ndindex(3, 4):
        seen = values[:, i, j][~found.void[values[:, i, j]]]
        voters = values[:, i, j][clear[:, i, j]] if clear[:, i, j].any() else seen
        numbers, votes = np.unique(voters, return_counts=True)
        assert out[i, j] == (numbers[votes.argmax()] if len(numbers) else 1)


def test_probabilities_become_the_median_of_what_was_clear() -> None:
    values = np.array([[[0, 90, 90]], [[10, 80, 0]], [[20, 5, 0]]], np.uint8)
    clear = np.array([[[1, 0, 0]], [[1, 0, 0]], [[1, 1, 0]]], bool)
    seen = np.array([[[1, 1, 1]], [[1, 1, 0]], [[1, 1, 0]]], bool)
    out = np.full((1, 3), 77, np.uint8)
    fold_chances(values, clear, seen, out)
    assert out.tolist() == [[10, 5, 90]]
    fold_chances(values, clear & False, seen & False, out)
    assert not out.any()


# Through a cube


def ask(time: TimeSpec, quality: str, table: Any, mask: MaskSpec = CLAUSE) -> CubeRequest:
    return CubeRequest(
        name="source",
        kind="reflectance",
        variable="reflectance",
        bands=("red",),
        size_px=SIZE,
        resolution_m=10,
        quality=quality,
        quality_table=table,
        mask=mask,
        time=time,
        periods=periods(YEAR, time),
    )


def build(request: CubeRequest, scenes: list[Scene]) -> tuple[CubeData, CubeRequest]:
    request = replace(request, steps=steps_needed(request, scenes, [CHIP]))
    data = allocate(request, 1)
    for window in lay_shards([CHIP], 1)[0].windows(10**9):
        fill(data, request, scenes, window)
    return data, request


def quarters(pixels: dict[str, int], dtype: str, *kinds: str) -> np.ndarray:
    """Four columns of 4 pixels, one of each kind, from the left."""
    return np.tile(np.repeat([pixels[kind] for kind in kinds], 4).astype(dtype), (SIZE, 1))


@pytest.mark.parametrize("name", SENSORS)
@pytest.mark.parametrize("time", [TimeSpec(series=True), TimeSpec(composite="yearly")], ids=["series", "composite"])
def test_the_same_clause_hides_the_same_pixels_on_every_sensor(
    name: str, time: TimeSpec, make_scene: SceneFactory
) -> None:
    dtype, pixels = SENSORS[name]
    layer = quarters(pixels, dtype, "clear", "cloud", "shadow", "void")
    red = np.full((SIZE, SIZE), 700, np.uint16)
    red[:, 12:] = 0
    scenes = [make_scene("a", {"red": red}), make_scene("b", {name: layer}, nodata=pixels["void"])]
    scene = replace(scenes[0], assets=scenes[0].assets + scenes[1].assets)
    snow = make_scene("later", {"red": np.full((SIZE, SIZE), 900, np.uint16)}, day=9)
    wet = make_scene("q", {name: quarters(pixels, dtype, *4 * ["water"])}, nodata=pixels["void"])
    later = replace(snow, assets=snow.assets + wet.assets)
    data, request = build(ask(time, name, None), [scene, later])
    found = data.arrays[name][0]
    assert found.dtype == dtype
    if time.series:
        assert data.arrays["clear"][0].tolist() == [0.25, 1]
        np.testing.assert_array_equal(data.arrays["clear_mask"][0, 0], np.tile(np.arange(16) < 4, (16, 1)))
        np.testing.assert_array_equal(found[0], layer)
        assert (found[1] == pixels["water"]).all()
    else:
        assert data.arrays["count"][0, 0, 0].tolist() == 4 * [2] + 12 * [1]
        assert data.arrays["reflectance"][0, 0, 0, 0].tolist() == 4 * [800] + 12 * [900]
        # Of a clear and a wet observation the smaller number, elsewhere what was clear.
        assert (found[0, :, 4:] == pixels["water"]).all()
        assert (found[0, :, :4] == min(pixels["clear"], pixels["water"])).all()
    attrs = {variable.name: variable.attrs for variable in variables(request)}
    assert len(attrs[name]["flag_values"]) == len(attrs[name]["flag_meanings"].split())
    assert ("flag_masks" in attrs[name]) == (quality_table(name).kind == "bits")
    if time.series:
        assert ("not told by this layer" in attrs["clear_mask"]["comment"]) == (name != "scl")


@pytest.mark.parametrize("time", [TimeSpec(series=True), TimeSpec(composite="yearly")], ids=["series", "composite"])
def test_a_probability_of_0_is_clear_although_its_file_calls_it_void(time: TimeSpec, make_scene: SceneFactory) -> None:
    red = np.full((SIZE, SIZE), 700, np.uint16)
    red[:, 12:] = 0
    layer = quarters({"none": 0, "some": 39, "much": 40}, "uint8", "none", "some", "much", "none")
    a, b = make_scene("a", {"red": red}), make_scene("b", {"cloud": layer}, nodata=0)
    scene = replace(a, assets=a.assets + b.assets)
    mask = MaskSpec(layer="cloud")
    band, table = which_layer(mask, "scl", "scl")
    assert band is not None
    data, _ = build(ask(time, band, table, mask), [scene])
    seen = data.arrays["clear_mask"][0, 0] if time.series else data.arrays["count"][0, 0]
    assert seen[0].tolist() == 8 * [1] + 8 * [0]
    np.testing.assert_array_equal(data.arrays["cloud"][0, 0], layer)
    assert data.records[0].seen == 1
    strict = MaskSpec(layer="cloud", threshold=10)
    data, _ = build(ask(time, band, table, strict), [scene])
    assert data.arrays["clear"][0, 0] == 0.25


@pytest.mark.parametrize("nodata", [None, 0, np.nan])
@pytest.mark.parametrize("time", [TimeSpec(series=True), TimeSpec(composite="yearly")], ids=["series", "composite"])
def test_probabilities_from_0_to_1_hide_as_those_in_percent_and_are_stored_so(
    time: TimeSpec, nodata: float | None, make_scene: SceneFactory
) -> None:
    red = np.full((SIZE, SIZE), 700, np.uint16)
    red[:, 12:] = 0
    layer = quarters({"none": 0, "some": 39, "much": 41}, "float32", "none", "some", "much", "none") / np.float32(100)
    layer[:, 14:] = np.nan  # where there is no image there may be no answer
    a, b = make_scene("a", {"red": red}), make_scene("b", {"s2cloudless": layer}, nodata=nodata)
    scene = replace(a, assets=a.assets + b.assets)
    mask = MaskSpec(layer="s2cloudless", table="cloud_fraction")
    band, table = which_layer(mask, "scl", "scl")
    assert band is not None
    data, request = build(ask(time, band, table, mask), [scene])
    seen = data.arrays["clear_mask"][0, 0] if time.series else data.arrays["count"][0, 0]
    assert seen[0].tolist() == 8 * [1] + 8 * [0]
    found = data.arrays["s2cloudless"][0, 0]
    assert found.dtype == np.uint8
    assert found[0].tolist() == 4 * [0] + 4 * [39] + 4 * [41] + 4 * [0]
    attrs = {variable.name: variable.attrs for variable in variables(request)}
    assert attrs["s2cloudless"]["units"] == "percent"
    stricter = replace(mask, threshold=10)
    assert build(ask(time, band, table, stricter), [scene])[0].arrays["clear"][0, 0] == 0.25


@pytest.mark.parametrize(
    ("table", "dtype", "right"),
    [("cloud_probability", "float32", "cloud_fraction"), ("snow_fraction", "uint8", "snow_probability")],
)
def test_probabilities_of_the_other_kind_are_refused(
    table: Any, dtype: str, right: str, make_scene: SceneFactory
) -> None:
    a = make_scene("a", {"red": np.ones((SIZE, SIZE), np.uint16), "chance": np.ones((SIZE, SIZE), dtype)})
    mask = MaskSpec(layer="chance", table=table)
    with pytest.raises(CatalogError, match=f"a: band chance holds {dtype}.*write 'table: {right}"):
        build(ask(TimeSpec(series=True), "chance", which_layer(mask, None, None)[1], mask), [a])


@pytest.mark.parametrize("time", [TimeSpec(series=True), TimeSpec(composite="yearly")], ids=["series", "composite"])
def test_a_learned_mask_is_read_by_the_meanings_of_the_recipe(time: TimeSpec, make_scene: SceneFactory) -> None:
    # OmniCloudMask: 0 clear, 1 thick, 2 thin, 3 shadow, and no void.
    red = np.full((SIZE, SIZE), 700, np.uint16)
    red[:8] = 0
    layer = quarters({str(code): code for code in range(4)}, "uint8", *"0123")
    a, b = make_scene("a", {"red": red}), make_scene("b", {"net": layer}, nodata=None)
    scene = replace(a, assets=a.assets + b.assets)
    mask = MaskSpec(layer="net", meanings={1: "cloud", 2: "cirrus", 3: "shadow"}, hide=("cloud", "shadow"))
    band, table = which_layer(mask, "scl", "scl")
    assert band is not None
    data, _ = build(ask(time, band, table, mask), [scene])
    seen = data.arrays["clear_mask"][0, 0] if time.series else data.arrays["count"][0, 0]
    assert seen[12].tolist() == [*4 * [1], *4 * [0], *4 * [1], *4 * [0]]
    assert not seen[:8].any()
    expected = layer.copy()
    if time.composite:
        expected[:8] = 0  # not seen
    np.testing.assert_array_equal(data.arrays["net"][0, 0], expected)


def test_a_void_of_its_own_makes_a_learned_mask_independent_of_the_bands() -> None:
    table = own_table({9: "void", 1: "cloud"})
    assert table.void == 9
    assert np.flatnonzero(lookup(table, ("cloud",)).hidden).tolist() == [1, 9]
