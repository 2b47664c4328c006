"""Offsets reach the pixels whatever the memory layout of the array a reader hands out."""

from __future__ import annotations

import numpy as np
import pytest

from cube.radiometry import harmonise


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (2, 3, 0, 1), (3, 2, 1, 0), (0, 2, 3, 1)])
def test_offsets_are_applied_in_place_to_transposed_arrays(axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 3000, (3, 4, 3, 4), dtype=np.uint16).transpose(axes)
    stored[stored < 300] = 0
    before = stored.astype(int)
    offsets = [-1000, 0, -1000, 0][: len(stored)]
    harmonise(stored, offsets)
    for after, old, offset in zip(stored, before, offsets, strict=True):
        np.testing.assert_array_equal(after, np.where(old == 0, 0, np.maximum(old + offset, 1)))
