"""Folding time away: the kernels against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.composite import best_order, fold, fold_classes
from cube.times import How

Array = npt.NDArray[Any]


@st.composite
def observations(draw: st.DrawFn, kind: str) -> tuple[Array, Array]:
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "uint16":
        values: Array = rng.choice([0, 1, 2, 3, 500, 501, 65534, 65535], shape).astype(np.uint16)
    else:
        values = rng.gamma(2, 0.05, shape).astype(np.float32)
        values[rng.random(shape) < 0.2] = np.nan
    return values, rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))


def folded(values: Array, clear: Array, how: How, order: Array | None = None) -> tuple[Array, Array]:
    out, count = np.zeros(values.shape[1:], values.dtype), np.zeros(values.shape[1:], np.uint8)
    fold(values, clear, how, out=out, count=count, order=order)
    return out, count


def reference(values: Array, clear: Array, how: How, order: Array | None = None) -> tuple[Array, Array]:
    whole = values.dtype.kind == "u"
    out = np.full(values.shape[1:], 0 if whole else np.nan, values.dtype)
    count = np.zeros(values.shape[1:], np.uint8)
    for y, x in np.ndindex(out.shape):
        picked = [
            values[t, y, x]
            for t in (range(len(values)) if order is None else order)
            if clear[t, y, x] and (values[t, y, x] != 0 if whole else not np.isnan(values[t, y, x]))
        ]
        count[y, x] = len(picked)
        if not picked:
            continue
        if how == "median":
            value = np.median(np.array(picked, np.float64))
        elif how == "mean":
            value = np.sum(np.array(picked, np.float64)) / len(picked)
        else:
            value = np.float64(picked[0])
        out[y, x] = np.floor(value + 0.5) if whole else value
    return out, count


@given(observations("uint16"), st.sampled_from(["median", "mean", "first"]))
def test_reflectance_is_folded_as_numpy_does(given_: tuple[Array, Array], how: How) -> None:
    for ours, theirs in zip(folded(*given_, how), reference(*given_, how), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(observations("float32"), st.sampled_from(["median", "mean", "first"]))
def test_backscatter_is_folded_as_numpy_does(given_: tuple[Array, Array], how: How) -> None:
    (ours, count), (theirs, their_count) = folded(*given_, how), reference(*given_, how)
    np.testing.assert_array_equal(count, their_count)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@given(observations("uint16"), st.randoms(use_true_random=False))
def test_best_takes_the_first_clear_one_in_the_order_of_clearness(given_: tuple[Array, Array], random: Any) -> None:
    values, clear = given_
    share = np.array([random.choice([0.0, 0.5, 1.0]) for _ in values])
    order = best_order(share)
    assert [(-share[t], t) for t in order] == sorted((-s, t) for t, s in enumerate(share))
    for ours, theirs in zip(folded(values, clear, "best", order), reference(values, clear, "best", order), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(observations("uint16"))
def test_dates_that_are_not_in_the_order_do_not_count(given_: tuple[Array, Array]) -> None:
    values, clear = given_
    some = np.arange(0, len(values), 2)
    ours, count = folded(values, clear, "median", some)
    theirs, their_count = folded(values[some], clear[some], "median")
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(count, their_count)


def test_the_median_of_an_even_number_is_rounded_half_up() -> None:
    values = np.array([1, 2, 65534, 65535], np.uint16).reshape(4, 1, 1)
    clear = np.ones(values.shape, bool)
    assert folded(values[:2], clear[:2], "median")[0] == 2
    assert folded(values[2:], clear[2:], "median")[0] == 65535


def test_more_than_255_observations_are_counted_as_255() -> None:
    values = np.ones((300, 1, 1), np.uint16)
    assert folded(values, np.ones(values.shape, bool), "median")[1] == 255


@given(st.integers(0, 2**32 - 1))
def test_the_folded_class_is_the_most_frequent_clear_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.choice([0, 3, 4, 5, 9, 200], (int(rng.integers(1, 8)), 4, 5)).astype(np.uint8)
    clear = (rng.random(codes.shape) < 0.5) & (codes != 0)
    out = np.full(codes.shape[1:], 77, np.uint8)
    fold_classes(codes, clear, out)
    for y, x in np.ndindex(out.shape):
        votes = codes[:, y, x][clear[:, y, x]]
        if not len(votes):
            votes = codes[:, y, x][codes[:, y, x] != 0]
        expected = np.bincount(votes, minlength=256).argmax() if len(votes) else 0
        assert out[y, x] == expected


@pytest.mark.parametrize("how", ["median", "mean", "first", "best"])
def test_nothing_clear_is_void(how: How) -> None:
    hidden = np.zeros((3, 2, 2), bool)
    assert not folded(np.ones((3, 2, 2), np.uint16), hidden, how)[0].any()
    assert np.isnan(folded(np.ones((3, 2, 2), np.float32), hidden, how)[0]).all()
