from __future__ import annotations

import dataclasses
import pickle
import tomllib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from curate.errors import LabelError
from labels.change import ChangeSpec, caveat, change_label, pair_legend, why_not
from labels.layers import Layer
from labels.legend import NAMED, PRODUCTS, LabelClass, Legend, read_table
from labels.source import LabelVariable

LEGEND = Legend((LabelClass(1, "urban"), LabelClass(11, "arable"), LabelClass(200, "water")))
BEFORE = Layer(LabelVariable("old", "uint8", 255, "classes"), LEGEND)
AFTER = Layer(LabelVariable("new", "uint8", 0, "classes"), LEGEND)
SOURCES = {"old": BEFORE, "new": AFTER}
SPEC = ChangeSpec(change=("old", "new"))


def test_change_pairs_and_shares_by_hand() -> None:
    old = np.array([[1, 1, 255, 11], [200, 11, 1, 255]], np.uint8)
    new = np.array([[1, 11, 11, 0], [11, 11, 1, 0]], np.uint8)
    label = change_label("changed", SPEC, SOURCES)
    derived = label.derive({"old": old, "new": new})
    np.testing.assert_array_equal(derived.arrays["changed"], [[0, 1, 255, 255], [1, 0, 0, 255]])
    np.testing.assert_array_equal(derived.arrays["changed_pair"], [[0, 1, 65535, 65535], [513, 257, 0, 65535]])
    assert derived.values == {"compared": 5 / 8, "changed": 2 / 5}
    assert label.variables[1].attrs["pair_codes"] == [1, 11, 200]
    for variable in label.variables:
        assert derived.arrays[variable.name].dtype == variable.dtype
    assert pickle.loads(pickle.dumps(label)).needs == ("old", "new")


@given(
    npst.arrays(np.uint8, (5, 5), elements=st.sampled_from([1, 11, 200, 255])),
    npst.arrays(np.uint8, (5, 5), elements=st.sampled_from([1, 11, 200, 0])),
)
def test_a_pair_can_be_taken_apart_into_both_labels(old: Any, new: Any) -> None:
    label = change_label("changed", SPEC, SOURCES)
    derived = label.derive({"old": old, "new": new})
    pair, codes = derived.arrays["changed_pair"], np.array(label.variables[1].attrs["pair_codes"])
    both = (old != 255) & (new != 0)
    np.testing.assert_array_equal(pair != 65535, both)
    np.testing.assert_array_equal(codes[pair[both] // 256], old[both])
    np.testing.assert_array_equal(codes[pair[both] % 256], new[both])
    np.testing.assert_array_equal(derived.arrays["changed"], np.where(both, old != new, 255))


def test_every_pair_has_its_name_in_the_attributes_when_there_are_few() -> None:
    pairs = pair_legend(LEGEND)
    assert len(pairs.classes) == 9
    assert pairs.name(513) == "water to arable"
    attrs = change_label("changed", SPEC, SOURCES).variables[1].attrs
    assert dict(zip(attrs["flag_values"], attrs["flag_names"], strict=True))[513] == "water to arable"
    many = Legend(tuple(LabelClass(code, f"crop {code}") for code in range(1, 134)))
    layers = {name: dataclasses.replace(layer, legend=many) for name, layer in SOURCES.items()}
    attrs = change_label("changed", SPEC, layers).variables[1].attrs
    assert "flag_values" not in attrs
    assert len(attrs["pair_codes"]) == 133


def test_without_legends_the_bytes_of_a_pair_are_the_codes() -> None:
    layers = {"old": Layer(BEFORE.variable), "new": Layer(dataclasses.replace(BEFORE.variable, name="new"))}
    label = change_label("changed", SPEC, layers)
    derived = label.derive({"old": np.array([[254]], np.uint8), "new": np.array([[3]], np.uint8)})
    assert derived.arrays["changed_pair"].item() == 254 * 256 + 3


def test_codes_of_two_bytes_have_places_and_need_a_legend() -> None:
    corine = Legend((LabelClass(112, "urban"), LabelClass(311, "forest")))
    variable = LabelVariable("old", "uint16", 65535, "classes")
    layers = {name: Layer(dataclasses.replace(variable, name=name), corine) for name in ("old", "new")}
    chip = {"old": np.array([[311, 112]], np.uint16), "new": np.array([[112, 65535]], np.uint16)}
    derived = change_label("changed", SPEC, layers).derive(chip)
    np.testing.assert_array_equal(derived.arrays["changed_pair"], [[256, 65535]])
    with pytest.raises(LabelError, match="has no legend, and codes above 254 may occur"):
        change_label("changed", SPEC, {name: Layer(layer.variable) for name, layer in layers.items()})


def test_a_code_that_the_legend_does_not_name_is_an_error_that_names_it() -> None:
    label = change_label("changed", SPEC, SOURCES)
    with pytest.raises(LabelError, match="old has the code 5"):
        label.derive({"old": np.array([[5]], np.uint8), "new": np.array([[1]], np.uint8)})


def test_a_chip_that_cannot_be_compared_has_no_share_but_a_reason() -> None:
    derived = change_label("changed", SPEC, SOURCES).derive(
        {"old": np.full((2, 2), 255, np.uint8), "new": np.ones((2, 2), np.uint8)}
    )
    assert derived.values == {"compared": 0.0}
    assert derived.reason == "no pixel has a class in both old and new"


def of(product: str | None, year: int | None) -> Layer:
    return dataclasses.replace(BEFORE, product=product, year=year)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (of("esa-worldcover", 2020), of("esa-worldcover", 2021), "2020 is v100"),
        (of("worldcover", 2020), of("esa-worldcover", 2021), "2021 is v200"),
        (of("esa-worldcover", None), of("esa-worldcover", 2021), "a year not told is not known"),
        (of("esa-worldcover", 2030), of("esa-worldcover", 2031), "2031 is not known"),
        (of("esa-worldcover", 2021), of("esa-worldcover", 2021), "both are esa-worldcover of 2021"),
        (of("corine", 2012), of("clc", 2018), "CLC-Change"),
        (of("corine-raster", 2012), of("corine-raster", 2018), "CLC-Change"),
        (of("nlcd", 2001), of("nlcd", 2011), ""),
        (of("a map of mine", 2001), of("a map of mine", 2011), ""),
        (of("io-lulc-annual-v02", 2018), of("io-lulc-annual-v02", 2023), ""),
        (of("io-lulc-annual-v02", 2018), of("esa-worldcover", 2021), ""),
        (of(None, None), of(None, None), ""),
    ],
)
def test_maps_that_do_not_compare_are_known(before: Layer, after: Layer, said: str) -> None:
    found = why_not(before, after)
    assert said in found
    assert bool(found) == bool(said)
    assert bool(why_not(after, before)) == bool(said)


def test_products_that_never_compare_are_products_that_we_know() -> None:
    table = tomllib.loads(read_table("change.toml"))
    assert set(table) <= set(NAMED)


def test_worldcover_is_refused_unless_one_says_anyway_and_then_says_so_in_the_store() -> None:
    assert PRODUCTS["esa-worldcover"].years == (2020, 2021)
    sources = {"old": of("esa-worldcover", 2020), "new": of("esa-worldcover", 2021)}
    with pytest.raises(LabelError, match=r"v200.*say `anyway: true`"):
        change_label("changed", SPEC, sources)
    label = change_label("changed", ChangeSpec(change=("old", "new"), anyway=True), sources)
    assert all("v200" in variable.attrs["comment"] for variable in label.variables)


def test_different_products_may_be_compared_with_a_word_of_caution() -> None:
    one, other = of("io-lulc-annual-v02", 2021), of("esa-worldcover", 2021)
    assert "made differently" in caveat(one, other)
    assert caveat(one, one) == ""
    assert caveat(of(None, 2020), other) == ""
    label = change_label("changed", SPEC, {"old": one, "new": other})
    assert label.variables[0].attrs["comment"] == caveat(one, other)


def test_what_cannot_be_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="compares a with itself"):
        ChangeSpec(change=("a", "a"))
    with pytest.raises(ValueError, match="found 3"):
        ChangeSpec(change=("a", "b", "c"))  # type: ignore[arg-type]  # what a recipe may hold before pydantic checks it
    urban = dataclasses.replace(AFTER, legend=Legend((LabelClass(1, "forest"),)))
    with pytest.raises(LabelError, match="code 1 is 'urban' in old and 'forest' in new"):
        change_label("changed", SPEC, {"old": BEFORE, "new": urban})
    many = Legend(tuple(LabelClass(code, str(code)) for code in range(300)))
    variable = LabelVariable("old", "uint16", 65535, "classes")
    with pytest.raises(LabelError, match="300 classes are too many for pairs"):
        change_label("changed", SPEC, {"old": Layer(variable, many), "new": Layer(variable, many)})
