"""Shards and windows: an order that stays, squares that stay together, and every chip read exactly once."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tiling.aoi import Aoi
from tiling.grid import Chip, GridSpec, lay_chips
from tiling.shards import Shard, auto_per_shard, hilbert, lay_shards

cells = st.tuples(st.sampled_from([32632, 32633, 32733]), st.integers(-40, 40), st.integers(-40, 40))
chip_sets = st.sets(cells, min_size=1, max_size=60).map(lambda found: [Chip(*cell, 64, 10.0) for cell in sorted(found)])


def _order(chips: list[Chip] | tuple[Chip, ...]) -> list[Chip]:
    return [chip for shard in lay_shards(chips, 7) for chip in shard.chips]


@given(chip_sets, st.integers(1, 70), st.randoms(use_true_random=False))
def test_every_chip_is_in_one_shard_at_its_place(chips: list[Chip], per_shard: int, random: object) -> None:
    shuffled = list(chips)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis hands over a random.Random
    shards = lay_shards(shuffled, per_shard)
    assert shards == lay_shards(chips, per_shard)
    assert sorted(chip for shard in shards for chip in shard.chips) == sorted(chips)
    assert [shard.ordinal for shard in shards] == list(range(len(shards)))
    assert [shard.start for shard in shards] == [per_shard * shard.ordinal for shard in shards]
    assert all(len(shard.chips) == per_shard for shard in shards[:-1])
    assert shards[-1].stop == len(chips)
    zones = [chip.epsg for shard in shards for chip in shard.chips]
    assert zones == sorted(zones)


@given(chip_sets, chip_sets)
def test_chips_keep_their_order_when_the_area_grows(chips: list[Chip], more: list[Chip]) -> None:
    few = set(chips)
    assert [chip for chip in _order(sorted(few | set(more))) if chip in few] == _order(chips)


@given(st.integers(0, 5), st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_an_aligned_square_of_cells_is_one_unbroken_run(level: int, col: int, row: int) -> None:
    side = 1 << level
    within = np.arange(side)
    place = np.sort(hilbert(np.repeat(col * side + within, side), np.tile(row * side + within, side)))
    assert (np.diff(place) == 1).all()
    assert place[0] % side**2 == 0


def test_steps_along_the_curve_go_to_a_neighbour() -> None:
    # Around the origin, where a curve that knew no negative cells would jump.
    col, row = (axis.ravel() for axis in np.meshgrid(np.arange(-32, 32), np.arange(-32, 32)))
    place = hilbert(col, row)
    order = np.argsort(place)
    consecutive = np.diff(place[order]) == 1
    steps = np.abs(np.diff(col[order])) + np.abs(np.diff(row[order]))
    assert (steps[consecutive] == 1).all()
    assert consecutive.sum() >= 64 * 64 - 4


def test_the_curve_refuses_cells_beyond_its_end() -> None:
    with pytest.raises(ValueError, match="2\\^30"):
        hilbert(np.array([1 << 30]), np.array([0]))
    with pytest.raises(ValueError, match="2\\^30"):
        hilbert(np.array([0]), np.array([-(1 << 30) - 1]))


def test_a_shard_has_a_chip() -> None:
    with pytest.raises(ValueError, match="at least 1 chip"):
        lay_shards([], 0)
    assert lay_shards([], 5) == ()


@given(chip_sets, st.sampled_from([1, 64**2, 4 * 64**2, 20 * 64**2, 10_000 * 64**2]))
def test_the_windows_of_a_shard_hold_every_chip_once(chips: list[Chip], max_px: int) -> None:
    shard = Shard(0, 0, tuple(chips))
    windows = shard.windows(max_px)
    assert sorted(position for window in windows for position in window.chips) == list(range(len(chips)))
    for window in windows:
        pixels = window.shape[0] * window.shape[1]
        assert len(window.chips) == 1 or pixels <= max_px
        assert len(window.chips) * 64**2 * 2 >= pixels
        minx, miny, maxx, maxy = window.bounds
        assert window.shape == ((maxy - miny) / 10, (maxx - minx) / 10)
        held = np.array([chips[position].bounds for position in window.chips])
        assert window.bounds == (*held[:, :2].min(axis=0), *held[:, 2:].max(axis=0))
        for position, (top, left) in zip(window.chips, window.corners, strict=True):
            chip = chips[position]
            assert chip.epsg == window.epsg
            # The chip's pixels are the window's pixels from its corner on, bit for bit.
            assert window.geobox[top : top + 64, left : left + 64] == chip.geobox


def test_a_full_shard_of_one_zone_is_one_window() -> None:
    chips, _ = lay_chips(Aoi("box", shapely.box(14.5, 48, 15.2, 48.5)), GridSpec())
    for shard in lay_shards(chips, 16)[1:-1]:
        windows = shard.windows(2048**2)
        assert sum(window.shape[0] * window.shape[1] for window in windows) <= 2 * 16 * 256**2
    square = tuple(Chip(32633, 80 + col, 80 + row, 256, 10.0) for col in range(8) for row in range(8))
    (shard,) = lay_shards(square, 64)
    (window,) = shard.windows(2048**2)
    assert window.shape == (2048, 2048)
    assert len(shard.windows(2048**2 - 1)) == 4


def test_far_corners_of_a_shard_are_read_apart() -> None:
    shard = Shard(0, 0, (Chip(32633, 0, 0, 64, 10.0), Chip(32633, 500, 900, 64, 10.0), Chip(32633, 500, 901, 64, 10.0)))
    assert [window.chips for window in shard.windows(10**12)] == [(0,), (1, 2)]


@given(st.integers(0, 40), st.sampled_from([10.0, 0.5, 20.0]))
@settings(max_examples=30)
def test_a_padded_window_has_more_pixels_on_each_side(px: int, resolution_m: float) -> None:
    (window,) = Shard(0, 0, (Chip(32733, 100, -30, 64, resolution_m), Chip(32733, 101, -30, 64, resolution_m))).windows(
        10**6
    )
    padded = window.padded(px)
    assert padded.shape == (64 + 2 * px, 128 + 2 * px)
    assert padded[px : px + 64, px : px + 128] == window.geobox
    assert str(padded.crs) == "EPSG:32733"


@pytest.mark.parametrize(
    ("size_px", "bytes_per_chip", "want"),
    [
        (256, 1, 64),
        (64, 1, 1024),
        (128, 1, 256),
        (16, 1, 1024),
        (512, 1, 16),
        (1024, 1, 4),
        (2048, 1, 1),
        (10_000, 1, 1),
        (200, 1, 64),
        (256, 8 * 2**20, 64),
        (256, 8 * 2**20 + 1, 16),
        (256, 100 * 2**20, 4),
        (256, 2**40, 1),
    ],
)
def test_a_shard_is_as_large_as_reading_likes_and_memory_allows(size_px: int, bytes_per_chip: int, want: int) -> None:
    assert auto_per_shard(size_px, bytes_per_chip) == want
