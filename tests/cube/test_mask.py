"""What is hidden, and how far around it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import distance_transform_edt

from cube.mask import MaskSpec, clear_mask, halo_px
from cube.quality import lookup, quality_table


def hidden_codes(hide: tuple[str | int, ...]) -> set[int]:
    return set(np.flatnonzero(lookup(quality_table("scl"), hide).hidden).tolist())


def test_the_default_hides_what_is_no_surface() -> None:
    assert hidden_codes(MaskSpec().hide) == {0, 1, 3, 8, 9, 10}


def test_void_is_hidden_whatever_is_asked() -> None:
    assert hidden_codes(()) == {0}
    assert hidden_codes(("snow", 42)) == {0, 11, 42}


def test_every_class_has_a_word() -> None:
    assert all(flag.words for flag in quality_table("scl").flags)


@pytest.mark.parametrize(("item", "says"), [("clouds", "did you mean 'cloud'"), (300, "from 0 to 255"), (-1, "0 to")])
def test_an_unknown_class_is_refused_with_the_nearest_word(item: str | int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        MaskSpec(hide=(item,))


def test_a_negative_distance_is_refused() -> None:
    with pytest.raises(ValueError, match="dilate_m"):
        MaskSpec(dilate_m=-1)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=24), elements=st.sampled_from([0, 1, 4, 9])),
    st.floats(0, 90),
)
def test_clouds_grow_by_a_disk_and_void_does_not(scl: np.ndarray, dilate_m: float) -> None:
    clear = clear_mask(scl, MaskSpec(dilate_m=dilate_m), 10)
    for seen, step in zip(clear, scl, strict=True):
        hidden = np.isin(step, [0, 1, 9])
        if (step == 9).any():
            hidden |= distance_transform_edt(step != 9) <= dilate_m / 10
        np.testing.assert_array_equal(seen, ~hidden)


@given(st.integers(0, 2**32 - 1), st.floats(0, 120))
def test_a_halo_leaves_no_seam(seed: int, dilate_m: float) -> None:
    scl = np.random.default_rng(seed).choice([4, 9], (1, 40, 60), p=[0.99, 0.01]).astype(np.uint8)
    spec = MaskSpec(dilate_m=dilate_m)
    halo = halo_px(spec, 10)
    whole = clear_mask(scl, spec, 10)[:, :, 20:40]
    left = max(20 - halo, 0)
    part = clear_mask(scl[:, :, left : 40 + halo], spec, 10)[:, :, 20 - left : 40 - left]
    np.testing.assert_array_equal(part, whole)
