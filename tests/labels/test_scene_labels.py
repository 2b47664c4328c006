from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from curate.errors import LabelError
from labels.layers import Layer
from labels.legend import LabelClass, Legend
from labels.scenes import SceneSpec, scene_label
from labels.source import LabelVariable

LEGEND = Legend((LabelClass(1, "arable"), LabelClass(2, "forest"), LabelClass(7, "water")))
SOURCES = {"map": Layer(LabelVariable("map", "uint8", 255, "classes"), LEGEND)}


def chip(**pixels: int) -> Any:
    """A 10 x 10 chip with so many pixels of each code (``c1=3``), the rest unlabelled."""
    flat = np.full(100, 255, np.uint8)
    codes = [int(code[1:]) for code, n in pixels.items() for _ in range(n)]
    flat[: len(codes)] = codes
    return {"map": flat.reshape(10, 10)}


def scene(of: dict[str, Any], **options: Any) -> Any:
    return scene_label("scene", SceneSpec(of="map", **{"scene": "multilabel", **options}), SOURCES).derive(of)


def test_one_pixel_is_enough_and_the_classes_are_told() -> None:
    derived = scene(chip(c1=98, c7=1))
    np.testing.assert_array_equal(derived.arrays["scene"], [1, 0, 1])
    np.testing.assert_allclose(derived.arrays["scene_shares"], [0.98, 0, 0.01])
    assert derived.classes == (1, 7)
    assert derived.values == {"unlabelled": 0.01, "unlisted": 0.0}
    assert derived.reason == ""


def test_a_chip_at_the_limit_of_unlabelled_is_kept_out_with_its_reason() -> None:
    assert scene(chip(c1=76)).classes == (1,)
    derived = scene(chip(c1=75))
    np.testing.assert_array_equal(derived.arrays["scene"], [255, 255, 255])
    np.testing.assert_allclose(derived.arrays["scene_shares"], [0.75, 0, 0])
    assert derived.classes == ()
    assert derived.reason == "25.0% of the chip is unlabelled, wanted less than 25.0%"


def test_a_least_share_leaves_out_small_classes() -> None:
    assert scene(chip(c1=85, c2=10, c7=5), min_share=0.1).classes == (1, 2)


def test_codes_that_the_legend_does_not_name_count_as_unlabelled_and_are_told() -> None:
    derived = scene(chip(c1=70, c9=30))
    assert derived.values == {"unlabelled": 0.3, "unlisted": 0.3}
    assert (derived.arrays["scene"] == 255).all()


def test_the_dominant_class_is_one_and_of_equal_ones_the_smallest_code() -> None:
    derived = scene(chip(c1=10, c2=40, c7=40), scene="dominant")
    np.testing.assert_array_equal(derived.arrays["scene"], [0, 1, 0])
    assert derived.classes == (2,)
    derived = scene(chip(c1=10, c2=40, c7=40), scene="dominant", min_share=0.5)
    assert (derived.arrays["scene"] == 255).all()
    assert derived.reason == "no class has the share 0.5 of the chip"


def test_presence_keeps_what_was_seen_and_calls_nothing_absent_that_may_be_hidden() -> None:
    np.testing.assert_array_equal(scene(chip(c2=40), scene="presence").arrays["scene"], [255, 1, 255])
    np.testing.assert_array_equal(scene(chip(c2=80), scene="presence").arrays["scene"], [0, 1, 0])


def test_a_chip_without_any_class_has_no_shares() -> None:
    derived = scene(chip(), max_unlabelled=1.0)
    assert np.isnan(derived.arrays["scene_shares"]).all()
    assert derived.reason == "100.0% of the chip is unlabelled, wanted less than 100.0%"


@given(npst.arrays(np.uint8, (6, 6), elements=st.sampled_from([1, 2, 7, 9, 255])), st.sampled_from([0.0, 0.2]))
def test_labels_and_shares_are_those_of_a_count_by_hand(pixels: Any, least: float) -> None:
    derived = scene({"map": pixels}, min_share=least)
    shares = [float((pixels == code).sum() / 36) for code in LEGEND.codes]
    unlabelled = ((pixels == 255) | (pixels == 9)).sum() / 36
    expected = [255] * 3 if unlabelled >= 0.25 else [int(share > 0 and share >= least) for share in shares]
    np.testing.assert_array_equal(derived.arrays["scene"], expected)
    if unlabelled < 1:
        np.testing.assert_allclose(derived.arrays["scene_shares"], shares, rtol=1e-6)


def test_variables_have_no_pixels_and_name_their_classes() -> None:
    label = scene_label("scene", SceneSpec(of="map", scene="multilabel"), SOURCES)
    arrays = label.derive(chip(c1=90)).arrays
    for variable in label.variables:
        assert variable.dims == ("class",)
        assert arrays[variable.name].shape == variable.shape(10)
        assert arrays[variable.name].dtype == variable.dtype
        assert dict(variable.coords)["class"] == ("arable", "forest", "water")
        assert variable.attrs["class_codes"] == [1, 2, 7]
    assert pickle.loads(pickle.dumps(label)).needs == ("map",)


def test_a_label_whose_classes_nobody_told_is_refused() -> None:
    with pytest.raises(LabelError, match="map has no legend"):
        scene_label("s", SceneSpec(of="map", scene="dominant"), {"map": Layer(SOURCES["map"].variable)})
    lines = Layer(LabelVariable("map", "uint8", 255, "classes", lead=(("time", 2),)), LEGEND)
    with pytest.raises(LabelError, match="map is time, y, x, wanted y, x alone"):
        scene_label("s", SceneSpec(of="map", scene="dominant"), {"map": lines})


@pytest.mark.parametrize("options", [{"max_unlabelled": 0.0}, {"max_unlabelled": 1.1}, {"min_share": -0.1}])
def test_shares_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="wanted a share"):
        SceneSpec(of="map", scene="multilabel", **options)
