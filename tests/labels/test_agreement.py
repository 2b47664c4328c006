from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from curate.errors import LabelError
from labels.agreement import AgreeSpec, agree, agreement_label
from labels.layers import Layer
from labels.legend import LabelClass, Legend
from labels.source import LabelVariable

LEGEND = Legend((LabelClass(1, "crop"), LabelClass(2, "tree"), LabelClass(3, "water")))


def layer(name: str, legend: Legend = LEGEND, ignore: int = 0, dtype: str = "uint8") -> Layer:
    return Layer(LabelVariable(name, dtype, ignore, "classes"), legend)


SOURCES = {name: layer(name) for name in "abc"}


def vote_slowly(votes: list[int], ties: str) -> tuple[int, int, int]:
    """(class or 0, votes, votes for the class) of one pixel, where 0 is no vote."""
    cast = [vote for vote in votes if vote]
    if not cast:
        return 0, 0, 0
    n = Counter(cast)
    top = max(n.values())
    best = [code for code in n if n[code] == top]
    if len(best) > 1 and ties == "ignore":
        return 0, len(cast), top
    return next(vote for vote in cast if vote in best), len(cast), top


@given(
    layers=npst.arrays(np.uint8, st.tuples(st.integers(2, 6), st.just(3), st.just(4)), elements=st.integers(0, 4)),
    ties=st.sampled_from(["first", "ignore"]),
)
def test_every_pixel_is_voted_as_one_would_by_hand(layers: Any, ties: Literal["first", "ignore"]) -> None:
    said = agree(layers, [0] * len(layers), ties=ties, ignore=0)
    for at in np.ndindex(3, 4):
        votes = [int(one[at]) for one in layers]
        code, n, top = vote_slowly(votes, ties)
        assert [int(array[at]) for array in (said.classes, said.votes, said.top)] == [code, n, top]
        percent = np.floor(100 * top / n + 0.5) if n else 255
        assert said.percent[at] == percent


@given(npst.arrays(np.uint8, (4, 2, 2), elements=st.integers(0, 3)), st.permutations(range(4)))
def test_the_order_of_products_decides_ties_and_nothing_else(layers: Any, order: list[int]) -> None:
    one = agree(layers, [0] * 4, ties="ignore", ignore=0)
    other = agree(layers[order], [0] * 4, ties="ignore", ignore=0)
    for array in ("classes", "votes", "top"):
        np.testing.assert_array_equal(getattr(one, array), getattr(other, array))


def test_each_layer_is_void_at_its_own_value_and_codes_keep_their_width() -> None:
    a = np.array([[311, 65535]], np.uint16)
    b = np.array([[255, 112]], np.uint8)
    said = agree([a, b], [65535, 255], dtype="uint16", ignore=65535)
    np.testing.assert_array_equal(said.classes, [[311, 112]])
    np.testing.assert_array_equal(said.votes, [[1, 1]])


def found() -> dict[str, Any]:
    #                     all  2:1  tie  one  none
    return {
        "a": np.array([[1, 1, 1, 0, 0]], np.uint8),
        "b": np.array([[1, 2, 2, 3, 0]], np.uint8),
        "c": np.array([[1, 2, 3, 0, 0]], np.uint8),
    }


def test_a_consensus_tells_class_share_votes_and_trust_by_hand() -> None:
    label = agreement_label("most", AgreeSpec(agree=("a", "b", "c")), SOURCES)
    derived = label.derive(found())
    np.testing.assert_array_equal(derived.arrays["most"], [[1, 2, 1, 3, 255]])
    np.testing.assert_array_equal(derived.arrays["most_agreement"], [[100, 67, 33, 100, 255]])
    np.testing.assert_array_equal(derived.arrays["most_votes"], [[3, 3, 3, 1, 0]])
    np.testing.assert_array_equal(derived.arrays["most_confident"], [[1, 1, 0, 0, 0]])
    assert derived.values["confident"] == pytest.approx(2 / 5)
    assert derived.values["agreement_pct"] == pytest.approx(100 * (1 + 2 / 3 + 1 / 3 + 1) / 4)
    assert derived.reason == ""


def test_variables_are_what_is_derived() -> None:
    label = agreement_label("most", AgreeSpec(agree=("a", "b", "c")), SOURCES)
    arrays = label.derive(found()).arrays
    assert list(arrays) == [v.name for v in label.variables]
    for variable in label.variables:
        assert arrays[variable.name].dtype == variable.dtype
        assert variable.dims == ("y", "x")
    assert label.variables[0].attrs["flag_names"] == ["crop", "tree", "water"]
    assert pickle.loads(pickle.dumps(label)).needs == ("a", "b", "c")


def test_ties_and_unsure_pixels_may_have_no_class() -> None:
    spec = AgreeSpec(agree=("a", "b", "c"), ties="ignore")
    derived = agreement_label("most", spec, SOURCES).derive(found())
    np.testing.assert_array_equal(derived.arrays["most"], [[1, 2, 255, 3, 255]])
    np.testing.assert_array_equal(derived.arrays["most_agreement"], [[100, 67, 33, 100, 255]])
    spec = AgreeSpec(agree=("a", "b", "c"), min_share=0.7, unsure="ignore")
    derived = agreement_label("most", spec, SOURCES).derive(found())
    np.testing.assert_array_equal(derived.arrays["most"], [[1, 255, 255, 255, 255]])


def test_a_share_that_is_just_reached_is_enough() -> None:
    names = tuple("abcde")
    sources = {name: layer(name) for name in names}
    votes = {name: np.array([[code]], np.uint8) for name, code in zip(names, (1, 1, 1, 2, 3), strict=True)}
    label = agreement_label("most", AgreeSpec(agree=names, min_share=0.6), sources)
    assert label.derive(votes).arrays["most_confident"].item() == 1


def test_a_chip_without_any_class_says_so_and_is_not_zero() -> None:
    nothing = {name: np.zeros((2, 2), np.uint8) for name in "abc"}
    derived = agreement_label("most", AgreeSpec(agree=("a", "b", "c")), SOURCES).derive(nothing)
    assert (derived.arrays["most"] == 255).all()
    assert "agreement_pct" not in derived.values
    assert derived.reason == "none of a, b, c has a class here"


def test_layers_that_are_not_in_one_legend_are_refused() -> None:
    other = layer("b", Legend((LabelClass(1, "urban"),)))
    with pytest.raises(LabelError, match="code 1 is 'crop' in a and 'urban' in b; translate them"):
        agreement_label("most", AgreeSpec(agree=("a", "b")), {"a": layer("a"), "b": other})
    with pytest.raises(LabelError, match="no label 'z' to derive it from; found a, b, c"):
        agreement_label("most", AgreeSpec(agree=("a", "z")), SOURCES)
    ids = Layer(LabelVariable("b", "uint32", 0, "ids"))
    with pytest.raises(LabelError, match="b holds ids, wanted classes"):
        agreement_label("most", AgreeSpec(agree=("a", "b")), {"a": layer("a"), "b": ids})


def test_layers_on_other_pixels_are_refused() -> None:
    label = agreement_label("most", AgreeSpec(agree=("a", "b")), SOURCES)
    with pytest.raises(LabelError, match="a 2 x 2, b 4 x 4"):
        label.derive({"a": np.ones((2, 2), np.uint8), "b": np.ones((4, 4), np.uint8)})


@pytest.mark.parametrize(
    ("legends", "storage"),
    [
        ((LEGEND, LEGEND), ("uint8", 255)),
        ((LEGEND, Legend((LabelClass(311, "forest"),))), ("uint16", 65535)),
        ((LEGEND, Legend((LabelClass(255, "other"),))), ("uint16", 65535)),
        ((LEGEND, Legend(())), ("uint16", 65535)),  # a byte whose void is 0 may hold a class 255
    ],
)
def test_codes_are_stored_in_the_least_type_that_cannot_clash_with_void(
    legends: tuple[Legend, Legend], storage: tuple[str, int]
) -> None:
    sources = {"a": layer("a", legends[0]), "b": layer("b", legends[1])}
    variable = agreement_label("most", AgreeSpec(agree=("a", "b")), sources).variables[0]
    assert (variable.dtype, variable.fill) == storage


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"agree": ("a",)}, "at least two labels, found 1"),
        ({"agree": ("a", "b", "a")}, "a stands twice"),
        ({"agree": ("a", "b"), "min_share": 0.0}, "min_share is 0.0"),
        ({"agree": ("a", "b"), "min_votes": 3}, "wanted 1 to 2"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AgreeSpec(**options)


def test_crops_of_kansas_agree_with_the_cultivated_layer_as_numpy_counts_them(shared_data: Path) -> None:
    import rasterio

    folder = shared_data / "kansas-cdl"
    with rasterio.open(folder / "2021_30m_cdls.tif") as crops, rasterio.open(folder / "2021_cultivated_layer.tif") as c:
        cdl, cultivated = crops.read(1), c.read(1)
    # USDA's codes: crops are 1-60, 66-77 and 204-254; 61 is fallow, which is cultivated land too. 2 is cultivated.
    is_crop = (cdl <= 61) | ((cdl >= 66) & (cdl <= 77)) | (cdl >= 204)
    legend = Legend((LabelClass(1, "not cultivated"), LabelClass(2, "cultivated")))
    sources = {"cdl": layer("cdl", legend), "five_years": layer("five_years", legend)}
    label = agreement_label("both", AgreeSpec(agree=("cdl", "five_years"), min_share=1.0), sources)
    derived = label.derive({"cdl": np.where(is_crop, 2, 1).astype(np.uint8), "five_years": cultivated})
    same = is_crop == (cultivated == 2)
    assert derived.values["confident"] == pytest.approx(same.mean())
    assert derived.values["agreement_pct"] == pytest.approx(100 * (same + 0.5 * ~same).mean())
    assert 0.8 < derived.values["confident"] < 1
    np.testing.assert_array_equal(derived.arrays["both"], np.where(is_crop, 2, 1))  # ties: the first
