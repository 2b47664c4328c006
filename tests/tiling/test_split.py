"""Splits: place alone decides, and no chip of one split comes nearer to another's than the buffer."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pyproj import Geod

from tiling.aoi import Aoi
from tiling.distance import shortest_distance_m
from tiling.grid import Chip, GridSpec, chip_at, lay_chips, to_utm
from tiling.split import SplitSpec, assign_splits, check_blocks

SMALL = SplitSpec(block_km=4, buffer_km=1)

PLACES = {
    "inland": (14.5, 48.0, 0.5, 0.4),
    "two zones": (11.7, 47.4, 0.6, 0.4),
    "zones and equator": (29.7, -0.3, 0.6, 0.6),
    "south": (-68.6, -55.0, 0.8, 0.4),
    "Norway": (2.5, 59.9, 1.0, 0.3),
    "Svalbard": (19.8, 79.0, 2.4, 0.25),
    "far north": (8.0, 83.8, 3.0, 0.15),
    "west of the antimeridian": (179.5, -17.0, 0.5, 0.5),
}


@lru_cache
def _chips(place: str, size_px: int = 128) -> tuple[Chip, ...]:
    x, y, width, height = PLACES[place]
    return lay_chips(Aoi(place, shapely.box(x, y, x + width, y + height)), GridSpec(size_px=size_px))[0]


def _fiji() -> tuple[Chip, ...]:
    sides = shapely.MultiPolygon([shapely.box(179.7, -17, 180, -16.6), shapely.box(-180, -17, -179.7, -16.6)])
    return lay_chips(Aoi("fiji", sides), GridSpec(size_px=128))[0]


def _by_split(chips: tuple[Chip, ...], spec: SplitSpec) -> dict[str, list[Chip]]:
    found: dict[str, list[Chip]] = {}
    for chip, split in zip(chips, assign_splits(chips, spec), strict=True):
        found.setdefault(split, []).append(chip)
    return found


# --- the promise


@pytest.mark.parametrize("place", [*PLACES, "fiji"])
@pytest.mark.parametrize(
    "spec", [SMALL, replace(SMALL, block_km=6, buffer_km=2.5, seed=3), replace(SMALL, buffer_km=0)]
)
def test_chips_of_different_splits_are_at_least_the_buffer_apart(place: str, spec: SplitSpec) -> None:
    found = _by_split(_fiji() if place == "fiji" else _chips(place), spec)
    assert {"train", "buffer"} <= found.keys()
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert shortest_distance_m(found.get(one, []), found.get(other, [])) >= spec.buffer_km * 1000


@given(
    st.sampled_from(sorted(PLACES)),
    st.floats(1.5, 30),
    st.floats(0, 0.9),
    st.integers(0, 1000),
    st.sampled_from([32, 64, 128]),
)
@settings(max_examples=30)
def test_the_promise_holds_for_any_block_buffer_and_chip(
    place: str, block_km: float, share: float, seed: int, size_px: int
) -> None:
    x, y, width, height = PLACES[place]
    aoi = Aoi(place, shapely.box(x, y, x + width / 3, y + height / 3))
    buffer_km = max(0.0, share * (block_km - size_px / 100))
    spec = SplitSpec(
        block_km=block_km, buffer_km=buffer_km, seed=seed, shares={"train": 0.5, "val": 0.25, "test": 0.25}
    )
    found = _by_split(lay_chips(aoi, GridSpec(size_px=size_px))[0], spec)
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert shortest_distance_m(found.get(one, []), found.get(other, [])) >= buffer_km * 1000


def test_a_chip_is_left_out_only_near_another_split() -> None:
    # The other side of the promise: whoever is a whole block's buffer away from all others is kept.
    chips = _chips("inland")
    found = _by_split(chips, SMALL)
    assert len(found["buffer"]) < 0.75 * len(chips)
    for chip in random.Random(0).sample(found["buffer"], 30):
        around = [other for other in chips if max(abs(other.col - chip.col), abs(other.row - chip.row)) <= 4]
        assert len(set(assign_splits(around, replace(SMALL, buffer_km=0)).tolist())) > 1


# --- place alone decides


@given(st.sampled_from(sorted(PLACES)), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_the_split_of_a_chip_does_not_change_when_the_area_grows(place: str, seed: int, order: random.Random) -> None:
    spec = replace(SMALL, seed=seed)
    chips = list(_chips(place))
    whole = dict(zip(chips, assign_splits(chips, spec), strict=True))
    few = order.sample(chips, len(chips) // 3)
    assert assign_splits(few, spec).tolist() == [whole[chip] for chip in few]
    assert assign_splits(few[:1], spec).tolist() == [whole[few[0]]]


def test_the_split_of_a_place_is_the_same_for_ever() -> None:
    # Written down once. When this fails, datasets already built would change their splits: bump the rule instead.
    chips = [chip_at(lon, lat, GridSpec(size_px=64)) for lon, lat in WRITTEN]
    spec = SplitSpec(shares={"train": 0.4, "val": 0.3, "test": 0.3})
    assert dict(zip(WRITTEN, assign_splits(chips, spec), strict=True)) == WRITTEN


WRITTEN = {
    (16.37, 48.21): "train",
    (14.29, 48.31): "val",
    (-74.0, 40.7): "train",
    (151.2, -33.9): "val",
    (36.8, -1.3): "test",
    (-78.5, -0.2): "test",
    (10.75, 59.91): "val",
    (15.6, 78.2): "test",
    (-179.99, -16.5): "train",
    (179.99, -16.5): "buffer",
}


def test_shares_are_the_shares_of_the_blocks() -> None:
    rng = np.random.default_rng(0)
    chips = [chip_at(lon, lat, GridSpec(size_px=64)) for lon, lat in rng.uniform((-180, -60), (180, 70), (6000, 2))]
    splits = assign_splits(chips, SplitSpec(buffer_km=0, block_km=20))
    kept = splits[splits != "buffer"]
    assert np.mean(kept == "train") == pytest.approx(0.7, abs=0.03)
    assert np.mean(kept == "val") == pytest.approx(0.15, abs=0.02)


def test_another_seed_is_another_draw() -> None:
    chips = _chips("inland")
    assert (assign_splits(chips, SMALL) != assign_splits(chips, replace(SMALL, seed=1))).any()


def test_a_split_without_share_gets_nothing() -> None:
    chips = _chips("inland")
    spec = replace(SMALL, shares={"train": 0.5, "val": 0.0, "test": 0.5})
    assert set(assign_splits(chips, spec).tolist()) == {"train", "test", "buffer"}
    # The order of the shares is train, val, test, however they are written.
    assert (assign_splits(chips, spec) == assign_splits(chips, replace(spec, shares={"test": 0.5, "train": 0.5}))).all()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_single_split_needs_no_buffer(split: str) -> None:
    spec = SplitSpec(block_km=0.1, shares={split: 1.0})  # type: ignore[dict-item]  # a str stands for the three names
    assert set(assign_splits(_chips("inland", 256), spec).tolist()) == {split}


def test_no_chips_have_no_splits() -> None:
    splits = assign_splits([], SplitSpec())
    assert splits.shape == (0,)
    assert splits.dtype == object


def test_blocks_as_large_as_the_earth_are_one_split() -> None:
    splits = assign_splits(_chips("inland"), SplitSpec(block_km=50_000))
    assert len(set(splits.tolist())) == 1


# --- the spec


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"shares": {"train": 0.7, "val": 0.2}}, "sum to 0.9; they must sum to 1"),
        ({"shares": {}}, "sum to 0"),
        ({"shares": {"train": 1.2, "test": -0.2}}, "a share is 0 or more"),
        ({"shares": {"train": 0.5, "validation": 0.5}}, "'validation'; a share belongs to train, val or test"),
        ({"shares": {"train": float("nan")}}, "0 or more"),
        ({"block_km": 0}, "above 0 km"),
        ({"block_km": float("inf")}, "above 0 km"),
        ({"buffer_km": -1}, "0 km or more"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(given_: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SplitSpec(**given_)  # type: ignore[arg-type]  # a dict of anything stands for all the fields


def test_pydantic_checks_a_spec_as_its_own() -> None:
    adapter = TypeAdapter(SplitSpec)
    assert adapter.validate_python({"block_km": 5, "shares": {"train": 0.8, "test": 0.2}}) == SplitSpec(
        block_km=5, shares={"train": 0.8, "test": 0.2}
    )
    for wrong in ({"block": 5}, {"block_km": -5}, {"shares": {"train": 0.5, "dev": 0.5}}, {"shares": {"train": 0.5}}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
    assert "edge to edge" in adapter.json_schema()["properties"]["buffer_km"]["description"]
    assert "square cells" in TypeAdapter(GridSpec).json_schema()["properties"]["scheme"]["description"]


def test_blocks_without_room_for_chip_and_buffer_are_refused() -> None:
    check_blocks(SplitSpec(), 2560)
    check_blocks(SplitSpec(block_km=3.56), 2560)
    with pytest.raises(
        ValueError, match=r"no room for a chip of 2.56 km and a buffer of 1 km; make block_km at least 3.56"
    ):
        check_blocks(SplitSpec(block_km=3), 2560)
    with pytest.raises(ValueError, match="no room"):
        assign_splits(_chips("inland", 256), SplitSpec(block_km=2))


# --- distances


def _brute(a: Chip, b: Chip) -> float:
    """Distance of two chips by many points on their outlines."""
    geod = Geod(ellps="WGS84")
    outlines = []
    for chip in (a, b):
        x, y = shapely.get_coordinates(shapely.segmentize(shapely.box(*chip.bounds), chip.size_m / 64)).T
        outlines.append(np.stack(to_utm(chip.epsg).transform(x, y, direction="INVERSE"), axis=1))
    from_a, to_b = np.repeat(outlines[0], len(outlines[1]), axis=0), np.tile(outlines[1], (len(outlines[0]), 1))
    return float(geod.inv(*from_a.T, *to_b.T)[2].min())


@given(
    st.sampled_from([(14.9, 48), (11.99, 47), (29.999, 0.001), (17.999, -55), (2.99, 59), (20.99, 79), (-180, -17)]),
    st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
    st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
)
@settings(max_examples=40)
def test_a_distance_is_that_of_the_nearest_edges(
    place: tuple[float, float], step_a: tuple[float, float], step_b: tuple[float, float]
) -> None:
    spec = GridSpec(size_px=128)
    a, b = (chip_at((place[0] + step[0] + 180) % 360 - 180, place[1] + step[1], spec) for step in (step_a, step_b))
    got, want = shortest_distance_m([a], [b]), _brute(a, b)
    # Points on an outline are 20 m apart: the nearest pair of them is at most that much off, and never nearer.
    assert got <= want + 0.001
    assert got >= min(want, np.sqrt(max(0.0, want**2 - 20**2))) - 20 * (want < 50) - 0.05


def test_the_distance_of_sets_is_that_of_their_nearest_chips() -> None:
    chips = _chips("two zones", 256)
    one, other = list(chips[::7]), [chip for chip in chips[3::11] if chip not in chips[::7]]
    want = min(shortest_distance_m([a], [b]) for a, b in product(one[:40], other[:40]))
    assert shortest_distance_m(one[:40], other[:40]) == want


def test_chips_that_touch_or_overlap_have_no_distance() -> None:
    a = chip_at(14.5, 48, GridSpec())
    assert shortest_distance_m([a], [a]) == 0
    assert shortest_distance_m([a], [replace(a, col=a.col + 1)]) == 0
    assert shortest_distance_m([a], [replace(a, col=a.col + 1, row=a.row - 1)]) == 0
    # The chips of two zones at their border lie over each other.
    assert shortest_distance_m([chip_at(11.9999, 47.5, GridSpec())], [chip_at(12.0001, 47.5, GridSpec())]) == 0
    # So do the two sides of the equator and of the antimeridian touch.
    assert shortest_distance_m([chip_at(14.5, 0.001, GridSpec())], [chip_at(14.5, -0.001, GridSpec())]) < 0.001
    assert shortest_distance_m([chip_at(179.9999, -17, GridSpec())], [chip_at(-179.9999, -17, GridSpec())]) == 0


def test_a_gap_of_one_chip_is_as_wide_as_a_chip() -> None:
    a = chip_at(15.0, 48, GridSpec())  # on the central meridian, where UTM draws 0.04 % too small
    assert shortest_distance_m([a], [replace(a, col=a.col + 2)]) == pytest.approx(2560 / 0.9996, rel=1e-5)


def test_far_apart_is_measured_too() -> None:
    vienna, sydney = chip_at(16.37, 48.21, GridSpec()), chip_at(151.2, -33.87, GridSpec())
    _, _, metres = Geod(ellps="WGS84").inv(16.37, 48.21, 151.2, -33.87)
    assert shortest_distance_m([vienna], [sydney]) == pytest.approx(metres, abs=6000)
    assert shortest_distance_m([], [sydney]) == float("inf")
