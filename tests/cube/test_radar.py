"""Backscatter: speckle, borders, passes and decibels, by the published formulas and without seams."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from scipy import ndimage

from catalog.scene import Asset, Scene
from cube.build import CubeRequest, allocate, axis, fill, steps_needed, variables
from cube.load import READERS
from cube.radar import RadarSpec, attributes, despeckle, hide_border, read_backscatter, to_decibel, told_apart
from cube.times import Interval, TimeSpec, periods
from tiling.grid import Chip
from tiling.shards import Shard, lay_shards

Array = npt.NDArray[Any]
SceneFactory = Callable[..., Scene]

SIZE = 16
YEAR = Interval.parse("2020-01-01/2021-01-01")
CHIPS = tuple(Chip(32633, 3125 + col, 33749 - row, SIZE, 10.0) for row in range(2) for col in range(2))
FILTERS = ("lee", "enhanced-lee", "gamma-map")


def speckled(shape: tuple[int, int], looks: float = 4.4, seed: int = 0, level: float = 0.1) -> Array:
    """Even ground under fully developed speckle."""
    power: Array = level * np.random.default_rng(seed).gamma(looks, 1 / looks, shape)
    return power.astype(np.float32)


# Speckle


def plain(power: Array, spec: RadarSpec) -> Array:
    """The filters pixel by pixel, as their papers have them."""
    half, looks = spec.speckle_px // 2, spec.looks
    out = np.full(power.shape, np.nan)
    for i in range(power.shape[0]):
        for j in range(power.shape[1]):
            value = float(power[i, j])
            if math.isnan(value):
                continue
            square = power[max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1].astype(float)
            square = square[~np.isnan(square)]
            mean, here, noise = square.mean(), square.std() / square.mean(), 1 / math.sqrt(looks)
            if spec.speckle == "lee":
                weight = max(0.0, 1 - noise**2 / here**2) if here else 0.0
                out[i, j] = mean + weight * (value - mean)
                continue
            most = math.sqrt(1 + 2 / looks) if spec.speckle == "enhanced-lee" else math.sqrt(2) * noise
            if here <= noise:
                out[i, j] = mean
            elif here >= most:
                out[i, j] = value
            elif spec.speckle == "enhanced-lee":
                weight = math.exp(-(here - noise) / (most - here))
                out[i, j] = mean * weight + value * (1 - weight)
            else:
                alpha = (1 + noise**2) / (here**2 - noise**2)
                b = mean * (alpha - looks - 1)
                out[i, j] = (b + math.sqrt(b * b + 4 * alpha * looks * value * mean)) / (2 * alpha)
    return out


@pytest.mark.parametrize("speckle", FILTERS)
def test_filters_are_those_of_their_papers(speckle: Any) -> None:
    power = speckled((40, 45), seed=1)
    power[:, 20:] *= 8
    power[5, 5] = power[30:, :6] = np.nan
    spec = RadarSpec(speckle=speckle)
    np.testing.assert_allclose(despeckle(power, spec), plain(power, spec), rtol=1e-5)


@pytest.mark.parametrize("speckle", FILTERS)
def test_even_ground_gets_quiet_and_keeps_its_mean(speckle: Any) -> None:
    power = speckled((256, 256))
    quiet = despeckle(power, RadarSpec(speckle=speckle))
    looks = float(np.mean(quiet) ** 2 / np.var(quiet))
    assert looks > 4 * 4.4
    assert np.mean(quiet) == pytest.approx(np.mean(power), rel=0.05)


@pytest.mark.parametrize("speckle", FILTERS)
def test_a_bright_target_stays(speckle: Any) -> None:
    power = speckled((41, 41))
    power[20, 20] = 100
    assert despeckle(power, RadarSpec(speckle=speckle))[20, 20] == pytest.approx(100, rel=0.1)


@given(
    top=st.integers(0, 200), left=st.integers(0, 40), rows=st.integers(1, 100), cols=st.integers(1, 40),
    speckle=st.sampled_from(FILTERS), side=st.sampled_from([3, 5, 7]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_part_is_filtered_as_the_whole(top: int, left: int, rows: int, cols: int, speckle: Any, side: int) -> None:
    spec = RadarSpec(speckle=speckle, speckle_px=side)
    halo = spec.halo_px
    power = speckled((300 + 2 * halo, 80 + 2 * halo))
    power[np.random.default_rng(3).random(power.shape) < 0.05] = np.nan
    inner = (slice(halo, -halo), slice(halo, -halo))
    whole = despeckle(power, spec)[inner]
    part = despeckle(power[top : top + rows + 2 * halo, left : left + cols + 2 * halo], spec)[inner]
    np.testing.assert_array_equal(part, whole[top : top + rows, left : left + cols])


# Borders


def test_dark_noise_at_a_border_is_void_and_calm_water_is_not() -> None:
    power = np.full((2, 40, 60), 0.1, np.float32)
    power[:, :, :10] = np.nan  # outside the swath
    power[:, :, 10:14] = 1e-7  # noise of an old product
    power[:, 20:30, 30:40] = 1e-4  # a lake
    power[0, 5, 14:20] = 1e-5  # dark in one polarisation alone
    before = power.copy()
    hide_border(power, 6, -30)
    assert np.isnan(power[:, :, :14]).all()
    np.testing.assert_array_equal(power[:, :, 14:], before[:, :, 14:])
    wide = before.copy()
    hide_border(wide, 2, -30)
    assert np.isnan(wide[:, :, :12]).all()
    assert not np.isnan(wide[:, :, 12:]).any()  # farther than it was told to look


@pytest.fixture
def passes(make_scene: SceneFactory) -> list[Scene]:
    """Two slices of one ascending pass with noise at their borders, and passes of two more tracks."""
    rng = np.random.default_rng(0)

    def make(name: str, acquisition: str, day: int, track: int, orbit: str, cut: slice | None = None) -> Scene:
        bands = {}
        edge = rng.random(64) * 3
        for band, level in (("vv", 0.1), ("vh", 0.02)):
            power = speckled((64, 64), seed=day + len(name), level=level)
            if cut is not None:
                power[cut] = 0
                first = cut.start or cut.stop
                for j in range(64):
                    deep = 1 + int(edge[j])
                    power[slice(first - deep, first) if cut.start else slice(first, first + deep), j] = 1e-6
            bands[band] = power
        bands["angle"] = np.full((64, 64), 30 + track / 10, np.float32)
        scene = make_scene(name, bands, nodata=-32768, day=day, acquisition=acquisition, orbit=orbit)
        return replace(scene, relative_orbit=track)

    return [
        make("a1", "a", 2, 73, "ascending", slice(18, None)),
        make("a2", "a", 2, 73, "ascending", slice(0, 12)),
        make("b", "b", 5, 124, "descending"),
        make("c", "c", 9, 146, "ascending"),
        make("d", "d", 14, 73, "ascending"),
    ]


def ask(time: TimeSpec, **options: Any) -> CubeRequest:
    settings = {
        "name": "s1", "kind": "backscatter", "variable": "backscatter", "bands": ("vv", "vh"), "size_px": SIZE,
        "resolution_m": 10, "time": time, "periods": periods(YEAR, time)[:1] if time.composite else (YEAR,), **options,
    }  # fmt: skip
    return CubeRequest(**settings)


def build(request: CubeRequest, scenes: Sequence[Scene], max_px: int = 10**9) -> tuple[dict[str, Array], Shard]:
    shard = lay_shards(CHIPS, len(CHIPS))[0]
    request = replace(request, steps=steps_needed(request, scenes, CHIPS))
    data = allocate(request, len(CHIPS))
    for window in shard.windows(max_px):
        fill(data, request, scenes, window)
    return data.arrays, shard


FULL = RadarSpec(speckle="lee", border_px=8, scale="db", speckle_px=5)


@pytest.mark.parametrize("time", [TimeSpec(composite="monthly", how="mean"), TimeSpec(series=True)])
@pytest.mark.parametrize("spec", [RadarSpec(), RadarSpec(border_px=8), FULL])
def test_windows_leave_no_trace(passes: list[Scene], time: TimeSpec, spec: RadarSpec) -> None:
    whole, _ = build(ask(time, radar=spec, angle="angle"), passes)
    parts, _ = build(ask(time, radar=spec, angle="angle"), passes, max_px=1)
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array, err_msg=name)
    assert not np.isnan(whole["backscatter"][:, 0]).all()


def test_noise_between_two_slices_is_replaced_by_the_other_slice(passes: list[Scene]) -> None:
    window = lay_shards(CHIPS, len(CHIPS))[0].windows(10**9)[0]
    read = READERS["rasterio"]

    def power(spec: RadarSpec, bands: Sequence[str] = ("vv", "vh")) -> Array:
        cube: Array = read_backscatter(
            read, [passes[:2]], bands, window, spec, resampling="bilinear", together=("vv", "vh")
        )
        first: Array = cube[0]
        return first

    left, mended = power(RadarSpec()), power(RadarSpec(border_px=8))
    assert (left < 1e-4).any()
    assert not np.isnan(mended).any()
    assert (mended > 1e-4).all()
    # What one band becomes does not hang on the others being asked for.
    np.testing.assert_array_equal(power(RadarSpec(border_px=8), ["vh"])[0], mended[1])


def test_decibels_are_taken_after_everything_else(passes: list[Scene]) -> None:
    time = TimeSpec(composite="monthly", how="mean")
    linear, _ = build(ask(time), passes)
    decibel, _ = build(ask(time, radar=RadarSpec(scale="db")), passes)
    np.testing.assert_allclose(decibel["backscatter"], 10 * np.log10(linear["backscatter"]), rtol=1e-5)
    np.testing.assert_array_equal(decibel["count"], linear["count"])
    power = np.array([1, 0.1, np.nan], np.float32)
    to_decibel(power)
    np.testing.assert_allclose(power, [0, -10, np.nan], atol=1e-6)


def test_tracks_are_kept_apart_when_asked_for(passes: list[Scene]) -> None:
    spec = RadarSpec(apart="relative_orbit")
    names = tuple(sorted({str(scene.orbit) for scene in told_apart(spec, passes)}))
    assert names == ("ascending-073", "ascending-146", "descending-124")
    request = ask(TimeSpec(composite="monthly", how="mean"), radar=spec, orbits=names, angle="angle")
    arrays, _ = build(request, passes)
    assert [orbit for _, orbit in axis(request)] == list(names)
    assert arrays["backscatter"].shape[1] == 3
    assert arrays["count"][:, 1].max() == arrays["count"][:, 2].max() == 1
    assert arrays["count"][:, 0].max() == 2
    for step, angle in enumerate((37.3, 44.6, 42.4)):
        seen = arrays["count"][:, step] > 0
        assert np.allclose(arrays["incidence"][:, step][seen], angle, atol=1e-4)
        assert np.isnan(arrays["incidence"][:, step][~seen]).all()
    series, _ = build(ask(TimeSpec(series=True), radar=spec, angle="angle"), passes)
    assert series["relative_orbit"][0].tolist() == [73, 124, 146, 73]
    assert series["orbit"][0].tolist() == [1, 2, 1, 1]
    assert np.allclose(series["incidence"][:, 1], 42.4)
    with pytest.raises(ValueError, match="no relative orbit"):
        told_apart(spec, [replace(passes[0], relative_orbit=None)])


def test_what_was_done_is_told_in_the_attributes() -> None:
    request = ask(TimeSpec(series=True), radar=FULL, amplitude=True, angle="angle")
    found = {variable.name: variable.attrs for variable in variables(request)}
    assert found["backscatter"]["units"] == "dB"
    for told in ("not calibrated", "10 log10", "-30 dB", "Lee (1980)", "5 x 5 px"):
        assert told in found["backscatter"]["comment"]
    assert found["incidence"]["units"] == "degree"
    assert attributes(RadarSpec(), amplitude=False) == {"long_name": "radar backscatter, linear power", "units": "1"}


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="take 7"):
        RadarSpec(speckle_px=6)
    with pytest.raises(ValueError, match="options for radar"):
        CubeRequest("dem", "elevation", "elevation", ("elevation",), 64, 10.0, radar=RadarSpec(scale="db"))
    # Directions would leave out every track in silence.
    with pytest.raises(ValueError, match="'ascending' names none"):
        ask(TimeSpec(series=True), radar=RadarSpec(apart="relative_orbit"), orbits=("ascending",))


# Real data


def test_flanders_is_stored_as_its_files_have_it() -> None:
    folder = Path(__file__).resolve().parents[2].parent / "shared/data/flanders/sentinel-1-rtc"
    if not folder.is_dir():
        pytest.skip(f"real data is not here: {folder}")
    scenes = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir())[:12]:
        assets = []
        for key in ("VV", "VH"):
            with rasterio.open(place / f"{key}.tif") as file:
                grid = tuple(file.transform)[:6]
                assets.append(Asset(key.lower(), key, file.name, 32631, grid, file.shape, "float32", file.nodata))
                bounds = file.bounds
        west, south, east, north = Transformer.from_crs(32631, 4326, always_xy=True).transform_bounds(*bounds)
        time = dt.datetime.strptime(place.name.split("_")[2], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
        scenes.append(
            Scene(
                place.name, "s1", "sentinel-1-rtc", time, place.name, shapely.box(west, south, east, north),
                tuple(assets), orbit="ascending",
            )
        )  # fmt: skip
    # A chip of 16 pixels of 20 m inside the files, on their own grid: pixels are copied.
    chip = Chip(32631, 1567, 17591, 16, 20.0)
    minx, _, _, maxy = chip.bounds
    x, y = round((minx - bounds.left) / 20), round((bounds.top - maxy) / 20)
    assert 0 <= x <= 16
    assert 0 <= y <= 16
    years = Interval.parse("2017-01-01/2019-01-01")
    request = CubeRequest(
        "s1", "backscatter", "backscatter", ("vv", "vh"), 16, 20.0, time=TimeSpec(series=True), periods=(years,)
    )
    request = replace(request, steps=steps_needed(request, scenes, [chip]))
    results = {}
    for name, spec in {"as is": RadarSpec(), "db": RadarSpec(scale="db"), "lee": RadarSpec(speckle="lee")}.items():
        asked = replace(request, radar=spec)
        data = allocate(asked, 1)
        shard = lay_shards([chip], 1)[0]
        fill(data, asked, scenes, shard.windows(10**9)[0])
        results[name] = data.arrays["backscatter"][0]
    for step, scene in enumerate(scenes):
        for band, asset in enumerate(scene.assets):
            with rasterio.open(asset.href) as file:
                values = file.read(1)
            np.testing.assert_array_equal(results["as is"][step, band], values[y : y + 16, x : x + 16])
            smooth = plain(values, RadarSpec(speckle="lee"))[y : y + 16, x : x + 16]
            np.testing.assert_allclose(results["lee"][step, band], smooth, rtol=1e-4)
    np.testing.assert_allclose(results["db"], 10 * np.log10(results["as is"]), rtol=1e-5)
    assert -15 < np.median(results["db"][:, 0]) < -5  # fields in VV
    assert np.median(results["db"][:, 1]) < np.median(results["db"][:, 0]) - 4
    assert (
        ndimage.generic_filter(results["lee"][0, 0], np.std, 3).mean()
        < ndimage.generic_filter(results["as is"][0, 0], np.std, 3).mean()
    )
