"""Shifts that are known are found; what cannot be known is not told; undoing them costs one resampling and no seam."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy.ndimage import binary_dilation, gaussian_filter

from catalog.scene import Scene
from cube.align import (
    AcquisitionShift,
    CoregisterSpec,
    Shift,
    _without_one,
    aligned,
    by_acquisition,
    comparable_bands,
    measure_series,
    measure_shift,
    moves,
    nearest_dates,
    why_left,
    why_none,
)
from cube.load import READERS
from simulate.view import view as sensed
from simulate.world import Raster, WorldSpec

Array = npt.NDArray[Any]
SceneFactory = Callable[..., Scene]
GridFactory = Callable[..., GeoBox]

SPEC = WorldSpec(seed=7, size_px=704, dates=8)
SPRING, SUMMER, CLOUDED = 0, 7, 1
"""Acquisitions of the world: 3 April, 24 August (both taken without clouds), and 26 April, a third clouded."""
RED, NIR = 0, 1
PLACES = ((650_000, 5_352_000), (648_700, 5_351_600), (650_900, 5_350_600), (649_600, 5_353_400))
"""Upper-left corners in EPSG:32633, (x, y)."""


@functools.lru_cache(maxsize=64)
def view(
    place: int, date: int, size: int, dy: float = 0.0, dx: float = 0.0, clouds: bool = False
) -> tuple[Array, Array]:
    """Red and near infrared ``(2, size, size)``, and what is clear, of the ground moved by dy, dx pixels."""
    x0, y0 = PLACES[place]
    raster = Raster(32633, x0, y0, 10, 10, (size, size))
    return sensed(SPEC, date, raster, moved_m=(dx * 10, -dy * 10), clouds=clouds)


def noisy(pixels: Array, deviation: float, seed: int) -> Array:
    noise: Array = pixels + np.random.default_rng(seed).normal(0, deviation, pixels.shape)
    return noise


def everywhere(size: int) -> Array:
    return np.ones((size, size), bool)


def off(shift: Shift, dy: float, dx: float) -> float:
    """Pixels between what was measured and what is."""
    assert shift.measured, shift
    return math.hypot(shift.dy - dy, shift.dx - dx)


KNOWN = ((0.3, -0.7), (0.0, 0.5), (1.4, -1.1), (-0.2, 0.1))


@pytest.mark.parametrize(("size", "known"), [*itertools.product((64, 128), KNOWN), (256, KNOWN[0])])
def test_a_known_shift_is_found_within_a_tenth_of_a_pixel(size: int, known: tuple[float, float]) -> None:
    reference, image = view(0, SPRING, size)[0], view(0, SPRING, size, *known)[0]
    shift = measure_shift(noisy(reference[RED], 20, 1), noisy(image[RED], 20, 2), everywhere(size), max_shift_px=2)
    assert off(shift, *known) < 0.1
    assert 0 < shift.error_px < 0.1
    assert 0.5 < shift.quality <= 1


@pytest.mark.parametrize("place", range(len(PLACES)))
def test_other_bands_and_another_season_still_tell_the_shift_as_well_as_they_say(place: int) -> None:
    known = (-0.6, 1.3)
    spring, summer = view(place, SPRING, 128)[0], view(place, SUMMER, 128, *known)[0]
    both = measure_shift(noisy(spring, 10, 1), noisy(summer, 10, 2), everywhere(128), max_shift_px=2)
    # A road that stands out from one of its fields only is off by half its width: one chip says so in its error.
    assert off(both, *known) < max(0.1, 3.5 * both.error_px)
    later = view(place, SPRING, 128, *known)[0]
    across = measure_shift(noisy(spring[RED], 10, 1), noisy(later[NIR], 10, 2), everywhere(128), max_shift_px=2)
    # A single pair of bands has less to say: what it says of itself must hold.
    assert off(across, *known) < max(0.1, 4 * across.error_px)


def test_many_chips_between_seasons_have_no_bias() -> None:
    known = (0.4, 0.45)
    wrong = []
    for place in range(len(PLACES)):
        spring, summer = view(place, SPRING, 128)[0], view(place, SUMMER, 128, *known)[0]
        for y in (0, 64):
            for x in (0, 64):
                part = (slice(None), slice(y, y + 64), slice(x, x + 64))
                shift = measure_shift(spring[part], summer[part], everywhere(64), max_shift_px=2)
                if shift.measured:
                    wrong.append((shift.dy - known[0], shift.dx - known[1]))
    assert len(wrong) > 12
    assert np.abs(np.median(wrong, axis=0)).max() < 0.05


def test_clouds_that_are_masked_do_not_pull() -> None:
    found = 0
    for place in range(len(PLACES)):
        known = (0.7, -0.35)
        image, clear = view(place, CLOUDED, 128, *known, clouds=True)
        valid = clear & ~binary_dilation(~clear, iterations=2)
        shift = measure_shift(view(place, SPRING, 128)[0], image, valid, max_shift_px=2)
        if valid.mean() < 0.3:
            continue
        found += not clear.all()
        assert off(shift, *known) < 0.1
    assert found


def test_a_mask_of_holes_does_not_draw_the_shift_to_zero() -> None:
    known = (0.5, 0.5)
    rng = np.random.default_rng(3)
    valid = ~binary_dilation(rng.random((128, 128)) < 0.003, iterations=4)
    assert 0.7 < valid.mean() < 0.95
    reference, image = view(0, SPRING, 128)[0].copy(), view(0, SPRING, 128, *known)[0].copy()
    # What is hidden is the same bright thing at the same place in both.
    reference[:, ~valid] = image[:, ~valid] = 9000
    assert off(measure_shift(reference, image, valid, max_shift_px=2), *known) < 0.05


def test_gain_offset_and_reversed_contrast_change_nothing() -> None:
    known = (0.25, -0.6)
    reference, image = view(0, SPRING, 128)[0][NIR], view(0, SPRING, 128, *known)[0][NIR]
    plain = measure_shift(reference, image, everywhere(128), max_shift_px=2)
    for other in (0.3 * image + 500, 4000 - image):
        shift = measure_shift(reference, other, everywhere(128), max_shift_px=2)
        assert (shift.dy, shift.dx) == pytest.approx((plain.dy, plain.dx), abs=1e-6)


def test_the_other_way_round_is_the_opposite_shift() -> None:
    reference, image = view(1, SPRING, 128)[0], view(1, SPRING, 128, 0.8, -1.2)[0]
    there = measure_shift(reference, image, everywhere(128), max_shift_px=2)
    back = measure_shift(image, reference, everywhere(128), max_shift_px=2)
    assert (there.dy, there.dx) == pytest.approx((-back.dy, -back.dx), abs=0.02)


def test_pairs_of_different_places_are_refused() -> None:
    for a in range(len(PLACES)):
        for b in range(len(PLACES)):
            if a != b:
                shift = measure_shift(view(a, SPRING, 128)[0], view(b, SPRING, 128)[0], everywhere(128), max_shift_px=2)
                assert not shift.measured
                assert math.isnan(shift.dy)


@pytest.mark.parametrize("seed", range(10))
def test_noise_against_noise_is_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.normal(1000, 100, (2, 64, 64))
    assert not measure_shift(images[0], images[1], everywhere(64), max_shift_px=2).measured


def test_flat_ground_has_no_texture_and_stripes_run_one_way() -> None:
    flat = np.full((64, 64), 1200.0)
    assert "texture" in measure_shift(flat, flat, everywhere(64), max_shift_px=2).reason
    stripes = gaussian_filter(np.random.default_rng(0).normal(0, 1, 64), 1.5)[:, None] * np.ones(64)
    both = [noisy(stripes, 0.01, seed) for seed in (1, 2)]
    assert not measure_shift(both[0], both[1], everywhere(64), max_shift_px=2).measured


def test_too_few_clear_pixels_are_said_in_numbers() -> None:
    valid = np.zeros((64, 64), bool)
    valid[:20, :20] = True
    image = view(0, SPRING, 64)[0][RED]
    shift = measure_shift(image, image, valid, max_shift_px=2)
    assert not shift.measured
    assert f"{shift.n} pixels are clear in both" in shift.reason


def test_a_shift_beyond_the_limit_is_not_told() -> None:
    reference, image = view(0, SPRING, 128)[0], view(0, SPRING, 128, 0.0, 2.5)[0]
    shift = measure_shift(reference, image, everywhere(128), max_shift_px=2)
    assert not shift.measured
    assert math.isnan(shift.dx)
    assert off(measure_shift(reference, image, everywhere(128), max_shift_px=3), 0.0, 2.5) < 0.05


def test_scattered_pixels_do_not_make_a_shift() -> None:
    valid = np.zeros((128, 128), bool)
    valid[::2] = True
    valid[40:66, 40:66] = True
    image = view(0, SPRING, 128)[0]
    assert not measure_shift(image, image, valid, max_shift_px=2).measured


def test_void_that_is_not_masked_stays_out() -> None:
    known = (0.3, 0.4)
    reference, image = view(0, SPRING, 128)[0].copy(), view(0, SPRING, 128, *known)[0].copy()
    reference[0, :40], image[1, :, :30] = np.nan, np.nan
    assert off(measure_shift(reference, image, everywhere(128), max_shift_px=2), *known) < 0.05


def test_images_of_unlike_shape_are_an_error() -> None:
    with pytest.raises(ValueError, match="wanted one grid"):
        measure_shift(np.zeros((64, 64)), np.zeros((64, 63)), everywhere(64), max_shift_px=2)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_median_without_one_is_the_median_of_the_others(times: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few values, so that there are many ties.
    cube = rng.integers(1, 6, (times, 2, 5, 4)).astype(np.uint16)
    clear = rng.random((times, 5, 4)) < 0.7
    for t, median in enumerate(_without_one(cube, clear)):
        for y, x in np.ndindex(5, 4):
            others = [i for i in range(times) if i != t and clear[i, y, x]]
            if len(others) < 2:
                assert np.isnan(median[:, y, x]).all()
            else:
                np.testing.assert_array_equal(median[:, y, x], np.median(cube[others, :, y, x], axis=0))


def test_one_date_that_lies_off_is_found_among_those_that_do_not() -> None:
    places_ = [(0.0, 0.0)] * 4 + [(0.9, -0.4)] + [(0.0, 0.0)] * 2
    cube = np.stack([noisy(view(0, SPRING, 128, *at)[0], 15, i) for i, at in enumerate(places_)])
    clear = np.ones((7, 128, 128), bool)
    clear[3, :50] = False
    for reference in ("composite", 0, view(0, SPRING, 128)[0]):
        shifts = measure_series(cube, clear, reference=reference, max_shift_px=2)
        for shift, at in zip(shifts, places_, strict=True):
            assert off(shift, *at) < 0.1
    assert measure_series(cube, clear, reference=2, max_shift_px=2)[2].dy == 0


def shift_of(dy: float, dx: float, error_px: float = 0.03) -> Shift:
    return Shift(dy, dx, 0.8, error_px, 4000)


def test_an_acquisition_lies_where_most_of_its_chips_say() -> None:
    chips = [shift_of(0.5 + e, -0.25 - e) for e in (-0.02, -0.01, 0.0, 0.01, 0.02)]
    wild = shift_of(-1.9, 1.9)
    unknown = Shift(math.nan, math.nan, math.nan, math.nan, 0, "flat")
    result = by_acquisition({"a": [*chips, wild, unknown], "b": [unknown]}, 10.0)
    # Down and to the left in the image is south and west on the ground.
    assert (result["a"].east_m, result["a"].north_m) == pytest.approx((-2.5, -5.0), abs=0.2)
    assert result["a"].chips == 6
    assert result["a"].spread_m < 0.5
    assert result["b"].chips == 0
    assert math.isnan(result["b"].east_m)


def test_only_shifts_worth_it_are_undone() -> None:
    spec = CoregisterSpec(max_shift_px=2, min_shift_px=0.1, min_places=3)
    shifts = {
        "good": AcquisitionShift(4.0, -3.0, 0.5, 0.8, 9),
        "few": AcquisitionShift(4.0, -3.0, 0.5, 0.8, 2),
        "near": AcquisitionShift(0.5, 0.5, 0.1, 0.8, 9),
        "unsure": AcquisitionShift(2.0, 0.0, 4.0, 0.8, 4),
        "far": AcquisitionShift(21.0, 0.0, 0.5, 0.8, 9),
        "unknown": AcquisitionShift(math.nan, math.nan, math.nan, math.nan, 0, "clouds"),
    }
    assert moves(shifts, spec, 10.0) == {"good": (4.0, -3.0)}
    assert {key: why_left(shift, spec, 10.0) for key, shift in shifts.items()} == {
        "good": "",
        "few": "measured on 2 places, wanted 3",
        "near": "nearer than 0.1 px",
        "unsure": "not twice its own error",
        "far": "further than 2 px",
        "unknown": "not measured: clouds",
    }
    assert moves(shifts, CoregisterSpec(apply=False), 10.0) == {}


def test_what_could_not_be_measured_says_what_most_of_its_places_say() -> None:
    def unknown(reason: str) -> Shift:
        return Shift(math.nan, math.nan, math.nan, math.nan, 0, reason)

    few = [unknown(f"{n} pixels are clear in both, wanted 400") for n in (12, 250)]
    assert why_none([unknown("no texture"), *few]) == "12 pixels are clear in both, wanted 400 (2 of 3 looked at)"
    assert why_none([*few, shift_of(0, 0)]) == ""
    assert why_none([]) == "clear on none of the places"
    assert by_acquisition({"a": few}, 10.0)["a"].reason.startswith("12 pixels")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_another_source_is_seen_by_the_median_of_its_nearest_clear_dates(times: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cube = rng.integers(1, 6, (times, 2, 5, 4)).astype(np.uint16)
    clear = rng.random((times, 5, 4)) < 0.7
    days = [int(day) for day in np.sort(rng.choice(200, times, replace=False))]
    start = dt.datetime(2021, 1, 1, tzinfo=dt.UTC)
    moments = [0, 77, 200]
    images = nearest_dates(
        cube,
        clear,
        [start + dt.timedelta(days=day) for day in days],
        [start + dt.timedelta(days=day) for day in moments],
        count,
    )
    assert images.shape == (3, 2, 5, 4)
    for moment, image in zip(moments, images, strict=True):
        near = sorted(range(times), key=lambda t: (abs(days[t] - moment), days[t]))[:count]
        for y, x in np.ndindex(5, 4):
            there = [t for t in near if clear[t, y, x]]
            if len(there) < min(2, len(near)):
                assert np.isnan(image[:, y, x]).all()
            else:
                np.testing.assert_array_equal(image[:, y, x], np.median(cube[there, :, y, x], axis=0))


def test_each_date_may_have_a_reference_of_its_own() -> None:
    spring, later = view(0, SPRING, 128)[0], view(0, SPRING, 128, 0.6, -0.4)[0]
    cube, clear = np.stack([later, later]), np.ones((2, 128, 128), bool)
    shifts = measure_series(cube, clear, reference=np.stack([spring, later]), max_shift_px=2)
    assert off(shifts[0], 0.6, -0.4) < 0.05
    assert off(shifts[1], 0.0, 0.0) < 0.05


def test_bands_are_compared_that_look_at_the_same_light() -> None:
    sentinel = {"blue": 0.49, "red": 0.665, "nir": 0.842, "nir08": 0.865, "swir16": 1.61}
    landsat = {"coastal": 0.443, "red": 0.655, "nir08": 0.865, "swir16": 1.61}
    assert comparable_bands(sentinel, landsat) == (("red", "red"), ("nir", "nir08"), ("swir16", "swir16"))
    assert comparable_bands(landsat, sentinel)[:2] == (("red", "red"), ("nir08", "nir08"))
    assert comparable_bands({"nir": None}, {"nir08": None}) == (("nir", "nir08"),)
    assert comparable_bands({"b2": 0.66}, landsat) == (("b2", "red"),)
    assert comparable_bands({"b2": None, "blue": 0.49}, {"red": 0.655, "green": 0.56}) == ()


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing would ever be moved"):
        CoregisterSpec(max_shift_px=0.5, min_shift_px=1)
    with pytest.raises(ValueError, match="reference is empty"):
        CoregisterSpec(reference="")


# Correction, on files


def stored(pixels: Array) -> Array:
    return np.clip(np.rint(pixels), 1, 65535).astype(np.uint16)


@pytest.fixture
def shifted_scenes(make_scene: SceneFactory) -> tuple[list[Scene], dict[str, tuple[float, float]]]:
    """Five scenes of one place whose files claim one grid; two of them lie off by what is in the mapping, in pixels."""
    known = {"d1": (0.6, -0.35), "d3": (-1.2, 0.75)}
    scenes = []
    for day in range(5):
        name = f"d{day}"
        pixels = stored(noisy(view(1, SPRING, 256, *known.get(name, (0.0, 0.0)))[0], 10, day))
        scl = np.full((256, 256), 4, np.uint8)
        scenes.append(make_scene(name, {"red": pixels[0], "nir": pixels[1], "scl": scl}, day=day))
    return scenes, known


def test_what_was_measured_is_undone_within_a_tenth_of_a_pixel(
    shifted_scenes: tuple[list[Scene], dict[str, tuple[float, float]]], make_grid: GridFactory
) -> None:
    scenes, known = shifted_scenes
    steps = [[scene] for scene in scenes]
    corners = [(500_000 + x, 5_400_000 - y) for y in (0, 1280) for x in (0, 1280)]
    grids = [make_grid(x0, y0, (128, 128)) for x0, y0 in corners]

    def measured(read: Any) -> dict[str, AcquisitionShift]:
        chips = []
        for grid in grids:
            cube = read(steps, ["red", "nir"], grid, resampling="bilinear", dtype="uint16", fill=0).to_numpy()
            chips.append(measure_series(cube, (cube > 0).all(axis=1), reference="composite", max_shift_px=2))
        by_scene = zip(*chips, strict=True)
        return by_acquisition({scene.id: list(s) for scene, s in zip(scenes, by_scene, strict=True)}, 10.0)

    before = measured(READERS["rasterio"])
    for scene in scenes:
        dy, dx = known.get(scene.id, (0.0, 0.0))
        assert before[scene.id].chips == 4
        assert (before[scene.id].east_m, before[scene.id].north_m) == pytest.approx((dx * 10, -dy * 10), abs=1.0)
    undo = moves(before, CoregisterSpec(), 10.0)
    assert set(undo) == set(known)
    after = measured(aligned(READERS["rasterio"], undo))
    for shift in after.values():
        assert math.hypot(shift.east_m, shift.north_m) < 1.0


@pytest.mark.parametrize("reader", list(READERS))
def test_a_whole_pixel_is_undone_without_resampling_and_the_others_stay_copies(
    reader: str, make_scene: SceneFactory, make_grid: GridFactory
) -> None:
    values = np.arange(1, 96 * 96 + 1, dtype=np.uint16).reshape(96, 96)
    scenes = [make_scene(name, {"red": values}, day=day) for day, name in enumerate("abc")]
    read = aligned(READERS[reader], {"b": (20.0, -10.0)})
    grid = make_grid(500_100, 5_399_900)
    cube = read([[s] for s in scenes], ["red"], grid, resampling="bilinear", dtype="uint16", fill=0)
    assert list(cube["time"].to_numpy()) == [0, 1, 2]
    for time in (0, 2):
        np.testing.assert_array_equal(cube.to_numpy()[time, 0], values[10:74, 10:74])
    # Its pixels lie 20 m to the east and 10 m to the south of where they should be.
    np.testing.assert_array_equal(cube.to_numpy()[1, 0], values[11:75, 12:76])


def test_readers_move_alike(make_scene: SceneFactory, make_grid: GridFactory) -> None:
    rng = np.random.default_rng(0)
    steps = [[make_scene(name, {"red": stored(rng.uniform(0, 3000, (96, 96)))}, day=i)] for i, name in enumerate("abc")]
    for method in ("bilinear", "nearest"):
        cubes = [
            aligned(reader, {"b": (3.3, -12.9), "c": (-0.7, 4.0)})(
                steps, ["red"], make_grid(499_900, 5_400_100), resampling=method, dtype="uint16", fill=0
            ).to_numpy()
            for reader in READERS.values()
        ]
        assert (cubes[0] > 0).any()
        for cube in cubes[1:]:
            np.testing.assert_array_equal(cube, cubes[0])


@pytest.mark.parametrize("epsg", [32633, 32634])
def test_neighbouring_windows_of_a_moved_acquisition_meet_without_a_seam(
    epsg: int, make_scene: SceneFactory, make_grid: GridFactory
) -> None:
    values = stored(np.random.default_rng(0).uniform(500, 3000, (256, 256)))
    scene = make_scene("a", {"red": values}, x0=720_000, y0=5_400_000)
    x0, y0 = (720_640, 5_399_360) if epsg == 32633 else (280_500, 5_400_000)
    if epsg == 32634:
        from pyproj import Transformer

        x, y = Transformer.from_crs(32633, epsg, always_xy=True).transform(721_280, 5_398_720)
        x0, y0 = round(x / 10) * 10 - 640, round(y / 10) * 10 + 640
    read = aligned(READERS["rasterio"], {"a": (3.7, -4.1)})

    def pixels(grid: GeoBox) -> Array:
        out: Array = read([[scene]], ["red"], grid, resampling="bilinear", dtype="uint16", fill=0).to_numpy()[0, 0]
        return out

    whole = pixels(make_grid(x0, y0, (128, 128), epsg=epsg))
    assert (whole > 0).all()
    for y in (0, 64):
        for x in (0, 64):
            part = pixels(make_grid(x0 + x * 10, y0 - y * 10, (64, 64), epsg=epsg))
            np.testing.assert_array_equal(part, whole[y : y + 64, x : x + 64])


def test_lazy_blocks_are_moved_too(make_scene: SceneFactory, make_grid: GridFactory) -> None:
    values = stored(np.random.default_rng(0).uniform(500, 3000, (96, 96)))
    steps = [[make_scene(name, {"red": values}, day=day)] for day, name in enumerate("ab")]
    read = aligned(READERS["odc-stac"], {"a": (2.5, 2.5)})
    options: dict[str, Any] = {"resampling": "bilinear", "dtype": "uint16", "fill": 0}
    grid = make_grid(500_100, 5_399_900)
    lazy = read(steps, ["red"], grid, chunks=32, **options)
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy.to_numpy(), read(steps, ["red"], grid, **options).to_numpy())


def test_one_step_cannot_be_moved_two_ways(make_scene: SceneFactory, make_grid: GridFactory) -> None:
    values = np.ones((64, 64), np.uint16)
    step = [make_scene(name, {"red": values}) for name in "ab"]
    read = aligned(READERS["rasterio"], {"a": (2.5, 2.5)})
    with pytest.raises(ValueError, match="moved differently"):
        read([step], ["red"], make_grid(), resampling="bilinear", dtype="uint16", fill=0)


def test_shifts_in_metres_are_refused_on_a_grid_in_degrees(make_scene: SceneFactory, make_grid: GridFactory) -> None:
    scene = make_scene("a", {"red": np.ones((64, 64), np.uint16)})
    grid = make_grid(15.0, 48.0, (64, 64), resolution=0.0001, epsg=4326)
    with pytest.raises(ValueError, match="projected"):
        aligned(READERS["rasterio"], {"a": (2.5, 2.5)})(
            [[scene]], ["red"], grid, resampling="bilinear", dtype="uint16", fill=0
        )


def test_real_dates_of_austria_lie_half_a_pixel_apart_and_come_together(austria_scenes: list[Scene]) -> None:
    # Clear dates of both satellites, before ESA refined the geometry (2021).
    days = ("0421", "0521", "0526", "0715", "0804", "0829", "0928")
    scenes = [s for s in austria_scenes if s.acquired is not None and f"{s.acquired:%m%d}" in days]
    assert len(scenes) == len(days)
    with rasterio.open(Path(scenes[0].asset("red").href)) as file:
        x0, y0 = file.transform.c, file.transform.f
    grids = [
        GeoBox((160, 160), rasterio.Affine(10, 0, x0 + 100 + x, 0, -10, y0 - 100 - y), "EPSG:32633")
        for x, y in ((0, 0), (2400, 0), (0, 2400))
    ]

    def lengths(read: Any) -> dict[str, AcquisitionShift]:
        chips = []
        for grid in grids:
            steps = [[scene] for scene in scenes]
            cube = read(steps, ["red", "nir"], grid, resampling="bilinear", dtype="uint16", fill=0).to_numpy()
            scl = read(steps, ["scl"], grid, resampling="nearest", dtype="uint8", fill=0).to_numpy()[:, 0]
            hidden = np.isin(scl, (0, 1, 3, 8, 9, 10))
            clear = ~np.stack([binary_dilation(one, iterations=3) for one in hidden])
            chips.append(measure_series(cube, clear, reference="composite", max_shift_px=2))
        by_scene = zip(*chips, strict=True)
        return by_acquisition({s.acquisition: list(found) for s, found in zip(scenes, by_scene, strict=True)}, 10.0)

    reader = READERS["rasterio"]
    before = lengths(reader)
    assert np.median([math.hypot(s.east_m, s.north_m) for s in before.values()]) > 3
    once = moves(before, CoregisterSpec(), 10.0)
    after = lengths(aligned(reader, once))
    assert np.median([math.hypot(s.east_m, s.north_m) for s in after.values()]) < 2
