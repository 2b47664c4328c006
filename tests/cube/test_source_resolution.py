"""A source with pixels of its own size: the same ground as the grid's chips, exactly, whatever window reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.scene import Scene
from cube.build import CubeRequest, allocate, fill, steps_needed, window_at, window_px
from cube.resample import pixels_a_side
from cube.times import Interval, TimeSpec, periods
from tiling.grid import Chip
from tiling.shards import lay_shards

SceneFactory = Callable[..., Scene]

SIZE = 16
YEAR = Interval.parse("2020-01-01/2021-01-01")
CHIPS = tuple(Chip(32633, 3125 + col, 33749 - row, SIZE, 10.0) for row in range(2) for col in range(2))


def ask(resolution_m: float, time: TimeSpec, **options: Any) -> CubeRequest:
    settings: dict[str, Any] = {
        "name": "s2",
        "kind": "reflectance",
        "variable": "reflectance",
        "bands": ("red",),
        "quality": "scl",
        "size_px": pixels_a_side(SIZE * 10.0, resolution_m),
        "resolution_m": resolution_m,
        "time": time,
        "periods": periods(YEAR, time),
        **options,
    }
    return CubeRequest(**settings)


def ground(request: CubeRequest, scenes: list[Scene], name: str, max_px: int = 10**9) -> np.ndarray:
    """A variable of all four chips laid back onto the ground, read in windows of at most so many grid pixels."""
    shard = lay_shards(CHIPS, len(CHIPS))[0]
    request = replace(request, steps=steps_needed(request, scenes, CHIPS))
    data = allocate(request, len(CHIPS))
    for window in shard.windows(max_px):
        fill(data, request, scenes, window)
    size = request.size_px
    out = np.zeros((2 * size, 2 * size), data.arrays[name].dtype)
    for chip, pixels in zip(shard.chips, data.arrays[name], strict=True):
        row, col = 33749 - chip.row, chip.col - 3125
        out[row * size : (row + 1) * size, col * size : (col + 1) * size] = np.squeeze(pixels)
    return out


@pytest.fixture
def scene(make_scene: SceneFactory) -> Scene:
    """32 x 32 pixels of 10 m with values that tell their place, some void, and classes of 10 m."""
    red = (np.arange(32 * 32).reshape(32, 32) * 4 + 4).astype(np.uint16)
    red[5, 7] = 0
    red[8:10, 20:22] = 0
    scl = np.full((32, 32), 4, np.uint8)
    scl[:, 16:] = 6
    scl[0:2, 0:2] = [[9, 9], [9, 4]]
    return make_scene("a", {"red": red, "scl": scl})


@pytest.mark.parametrize("time", [TimeSpec(single="newest"), TimeSpec(composite="yearly")], ids=["single", "composite"])
@pytest.mark.parametrize("max_px", [1, 10**9], ids=["a window a chip", "one window"])
def test_coarser_pixels_are_the_mean_of_what_is_not_void_and_the_class_of_most(
    scene: Scene, time: TimeSpec, max_px: int, make_scene: SceneFactory
) -> None:
    request = ask(20, time)
    assert request.size_px == 8
    found = ground(request, [scene], "reflectance", max_px)
    with_file = np.arange(32 * 32).reshape(32, 32) * 4.0 + 4
    with_file[5, 7] = np.nan
    with_file[8:10, 20:22] = np.nan
    blocks = with_file.reshape(16, 2, 16, 2).swapaxes(1, 2).reshape(16, 16, 4)
    all_void = np.isnan(blocks).all(axis=-1)
    mean = np.nanmean(np.where(all_void[..., None], 0, blocks), axis=-1)
    expected = np.where(all_void, 0, np.floor(mean + 0.5))
    if time.composite:
        expected[0, 0] = 0  # three of its four pixels are cloud
    np.testing.assert_array_equal(found, expected)
    scl = ground(request, [scene], "scl", max_px)
    assert scl[0, 0] == 9
    assert (scl[1:, :8] == 4).all()
    assert (scl[:, 8:] == 6).all()


def test_finer_pixels_are_those_of_the_finer_file_on_the_ground_of_the_chips(make_scene: SceneFactory) -> None:
    red = np.arange(1, 64 * 64 + 1, dtype=np.uint16).reshape(64, 64)
    scene = make_scene("fine", {"red": red}, resolution=5)
    found = ground(ask(5, TimeSpec(single="newest"), quality=None), [scene], "reflectance")
    np.testing.assert_array_equal(found, red)


@pytest.mark.parametrize("resolution_m", [5, 10, 20, 32, 160 / 3])
def test_a_window_covers_the_same_ground_in_pixels_of_any_size(resolution_m: float) -> None:
    request = ask(resolution_m, TimeSpec(single="newest"))
    for max_px in (1, 10**9):
        for window in lay_shards(CHIPS, 4)[0].windows(max_px):
            own = window_at(window, request)
            assert own.chips == window.chips
            np.testing.assert_allclose(own.geobox.boundingbox.bbox, window.bounds, atol=1e-6)
            for (y, x), (row, col) in zip(own.corners, window.corners, strict=True):
                assert (y * resolution_m, x * resolution_m) == pytest.approx((row * 10, col * 10))


def test_chips_of_another_size_are_refused() -> None:
    request = ask(20, TimeSpec(single="newest"), size_px=7)
    with pytest.raises(ValueError, match="wanted the same side in metres"):
        window_at(lay_shards(CHIPS, 4)[0].windows(10**9)[0], request)


def test_the_memory_of_a_window_is_counted_in_pixels_of_the_grid(scene: Scene) -> None:
    time = TimeSpec(composite="yearly")
    same = window_px(ask(10, time), [scene], 2**20)
    assert window_px(ask(10, time), [scene], 2**20, grid_m=10) == same
    assert window_px(ask(20, time), [scene], 2**20, grid_m=10) == 4 * same
    assert window_px(ask(5, time), [scene], 2**20, grid_m=10) == same // 4
    assert window_px(ask(5, time), [scene], 1, grid_m=10) == SIZE**2


@given(st.integers(1, 4096), st.floats(0.1, 1000))
def test_a_whole_number_of_pixels_is_found_despite_rounding(count: int, resolution_m: float) -> None:
    assert pixels_a_side(count * resolution_m, resolution_m) == count


def test_a_pixel_size_that_does_not_fit_is_refused_with_the_nearest_that_do() -> None:
    assert pixels_a_side(2560, 20) == 128
    assert pixels_a_side(2688, 0.6) == 4480
    with pytest.raises(
        ValueError, match=r"30 m do not fill 2560 m \(85.3333 px\).* \(86 px\) and 30.1176471 m \(85 px"
    ):
        pixels_a_side(2560, 30)
    with pytest.raises(ValueError, match=r"nearest that do: 160 m \(1 px\);"):
        pixels_a_side(160, 500)
    with pytest.raises(ValueError, match="above 0"):
        pixels_a_side(2560, 0)
