"""From scenes to the chips of a window: time, masks, offsets and what is said about it, on worlds of a few pixels."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pyproj import Transformer

import cube.work
from catalog.scene import Scene
from cube.build import CubeData, CubeRequest, allocate, axis, fill, steps_needed, variables, window_px
from cube.mask import MaskSpec
from cube.resample import resampling_for
from cube.times import Interval, KeepSpec, TimeSpec, periods
from tiling.grid import Chip
from tiling.shards import Shard, lay_shards

Array = npt.NDArray[Any]
SceneFactory = Callable[..., Scene]

SIZE = 16
YEAR = Interval.parse("2020-01-01/2021-01-01")
# The factory puts files at (500000, 5400000), which is a corner of chips of 160 m: pixel (0, 0) is the first of both.
CHIPS = tuple(Chip(32633, 3125 + col, 33749 - row, SIZE, 10.0) for row in range(2) for col in range(2))


def ask(time: TimeSpec | None, **options: Any) -> CubeRequest:
    """A request for two reflectance bands with their classes, over the year 2020."""
    settings: dict[str, Any] = {
        "name": "s2",
        "kind": "reflectance",
        "variable": "reflectance",
        "bands": ("red", "nir"),
        "quality": "scl",
        "size_px": SIZE,
        "resolution_m": 10,
        "time": time,
        "periods": periods(YEAR, time) if time is not None else (),
        **options,
    }
    return CubeRequest(**settings)


def build(request: CubeRequest, scenes: Sequence[Scene], max_px: int = 10**9) -> tuple[CubeData, Shard]:
    """All four chips in one shard, in windows of at most so many pixels."""
    shard = lay_shards(CHIPS, len(CHIPS))[0]
    request = replace(request, steps=steps_needed(request, scenes, CHIPS))
    data = allocate(request, len(CHIPS))
    for window in shard.windows(max_px):
        fill(data, request, scenes, window)
    return data, shard


def spread(data: Array, shard: Shard) -> Array:
    """Chips laid back onto the ground, dims ``(…, y, x)`` of 32 x 32 pixels."""
    ground = np.empty((*data.shape[1:-2], 2 * SIZE, 2 * SIZE), data.dtype)
    for chip, pixels in zip(shard.chips, data, strict=True):
        row, col = 33749 - chip.row, chip.col - 3125
        ground[..., row * SIZE : (row + 1) * SIZE, col * SIZE : (col + 1) * SIZE] = pixels
    return ground


@pytest.fixture
def dated(make_scene: SceneFactory) -> Callable[..., Scene]:
    """A scene whose red is ``value`` everywhere and nir twice that, with classes as given (all vegetation if not)."""

    def make(name: str, day: int, value: int | Array, scl: Array | int = 4, **options: Any) -> Scene:
        red = np.broadcast_to(np.asarray(value, np.uint16), (64, 64)).copy()
        classes = np.broadcast_to(np.asarray(scl, np.uint8), (32, 32)).copy()
        resolution = {"red": 10, "nir": 10, "scl": 20}
        return make_scene(name, {"red": red, "nir": red * 2, "scl": classes}, resolution=resolution, day=day, **options)

    return make


def cloudy_left() -> Array:
    """Classes (20 m) with a cloud over the left column of chips."""
    scl = np.full((32, 32), 4, np.uint8)
    scl[:, :8] = 9
    return scl


# Composites


def test_a_monthly_median_takes_the_clear_dates_of_each_month(dated: Callable[..., Scene]) -> None:
    scenes = [
        dated("a", 2, 100),
        dated("b", 7, 300),
        dated("c", 12, 1000, cloudy_left()),
        dated("d", 40, 500, 9),
        dated("e", 70, 0, 0),
    ]
    data, shard = build(ask(TimeSpec(composite="monthly")), scenes)
    red, nir = spread(data.arrays["reflectance"], shard).swapaxes(0, 1)
    assert red.shape == (12, 32, 32)
    assert (red[0, :, :16] == 200).all()  # a, b
    assert (red[0, :, 16:] == 300).all()  # a, b, c
    np.testing.assert_array_equal(nir, red * 2)
    assert not red[1:].any()
    scl = spread(data.arrays["scl"], shard)
    assert (scl[0] == 4).all()
    assert (scl[1] == 9).all()  # why February is void
    assert not scl[2:].any()
    count = spread(data.arrays["count"], shard)
    assert set(count[0, :, :16].flat) == {2}
    assert set(count[0, :, 16:].flat) == {3}
    assert not count[1:].any()
    np.testing.assert_array_equal(data.arrays["clear"], np.eye(1, 12).repeat(4, 0))
    record = data.records[[chip.col for chip in shard.chips].index(3125)]
    assert record.dates == tuple(scene.acquired for scene in scenes[:2])
    assert record.scenes == ("a", "b")
    assert record.seen == 4  # e is void and was never there
    assert record.dropped == {"not clear enough": 2}
    assert record.clear == pytest.approx(1 / 12)


def test_a_date_is_kept_or_dropped_chip_by_chip(dated: Callable[..., Scene]) -> None:
    half = np.full((32, 32), 4, np.uint8)
    half[:, 4:8] = 8  # right half of the left chips
    scenes = [dated("a", 2, 100), dated("b", 7, 300, half)]
    data, shard = build(ask(TimeSpec(composite="monthly"), keep=KeepSpec(min_clear=0.6)), scenes)
    red = spread(data.arrays["reflectance"], shard)[0, 0]
    assert (red[:, :16] == 100).all()
    assert (red[:, 16:] == 200).all()


def test_best_takes_the_clearest_date_of_the_chip_and_fills_its_holes(dated: Callable[..., Scene]) -> None:
    small, large = np.full((32, 32), 4, np.uint8), np.full((32, 32), 4, np.uint8)
    small[1:3, 0:2] = 9
    large[4:6, 0:6] = 9
    scenes = [dated("a", 2, 100, large), dated("b", 7, 300, small)]
    data, shard = build(ask(TimeSpec(composite="monthly", how="best")), scenes)
    red = spread(data.arrays["reflectance"], shard)[0, 0]
    expected = np.full((32, 32), 100)  # where both are clear on the whole chip: the earlier one
    expected[:16, :16] = 300
    expected[2:6, :4] = 100  # the cloud of b
    np.testing.assert_array_equal(red, expected)
    first, _ = build(ask(TimeSpec(composite="monthly", how="first")), scenes)
    expected = np.full((32, 32), 100)
    expected[8:12, :12] = 300  # the cloud of a
    np.testing.assert_array_equal(spread(first.arrays["reflectance"], shard)[0, 0], expected)


def test_orbits_are_kept_apart_and_radar_is_averaged_in_linear_power(make_scene: SceneFactory) -> None:
    def radar(name: str, day: int, power: float, orbit: str) -> Scene:
        values = np.full((64, 64), power, np.float32)
        values[:, :12] = 0  # a border filled with zeros
        values[:16] = -32768
        return make_scene(name, {"vv": values}, nodata=-32768, day=day, orbit=orbit)

    scenes = [
        radar("a", 2, 0.1, "ascending"),
        radar("b", 14, 0.4, "ascending"),
        radar("c", 5, 0.9, "descending"),
        radar("d", 35, 0.2, "descending"),
    ]
    request = ask(
        TimeSpec(composite="monthly"),
        kind="backscatter",
        variable="backscatter",
        bands=("vv",),
        quality=None,
        orbits=("ascending", "descending"),
    )
    data, shard = build(request, scenes)
    assert axis(request)[:3] == (
        (request.periods[0], "ascending"),
        (request.periods[0], "descending"),
        (request.periods[1], "ascending"),
    )
    power = spread(data.arrays["backscatter"], shard)[:, 0]
    assert power.shape == (24, 32, 32)
    assert np.allclose(power[0, 16:, 12:], 0.25)
    assert np.allclose(power[1, 16:, 12:], 0.9)
    assert np.allclose(power[3, 16:, 12:], 0.2)
    assert np.isnan(power[:, :16]).all()
    assert np.isnan(power[:, :, :12]).all()
    assert np.isnan(power[[2, *range(4, 24)]]).all()
    assert "scl" not in data.arrays
    series = replace(request, time=TimeSpec(series=True), periods=(YEAR,), orbits=())
    data, shard = build(series, scenes)
    below = [chip.row == 33748 for chip in shard.chips]  # above, all is void
    assert data.arrays["orbit"].tolist() == [[1, 2, 1, 2] if low else [0] * 4 for low in below]


def test_a_border_of_zeros_does_not_hide_the_next_slice_of_the_pass(make_scene: SceneFactory) -> None:
    upper, lower = np.full((64, 64), 0.5, np.float32), np.full((64, 64), 0.25, np.float32)
    upper[12:] = 0
    scenes = [
        make_scene(name, {"vv": values}, nodata=-32768, acquisition="pass")
        for name, values in (("a", upper), ("b", lower))
    ]
    request = ask(TimeSpec(series=True), kind="backscatter", variable="backscatter", bands=("vv",), quality=None)
    data, shard = build(request, scenes)
    power = spread(data.arrays["backscatter"], shard)[0, 0]
    assert (power[:12] == 0.5).all()
    assert (power[12:] == 0.25).all()


# Series and single


def test_a_series_keeps_pixels_packs_dates_and_pads(dated: Callable[..., Scene]) -> None:
    values = np.arange(1, 64 * 64 + 1, dtype=np.uint16).reshape(64, 64)
    scenes = [
        dated("a", 2, values),
        dated("b", 7, 5, 9),
        dated("c", 12, values + 1, cloudy_left()),
        dated("d", 20, values + 2),
        dated("outside", 400, 7),
    ]
    request = ask(TimeSpec(series=True), keep=KeepSpec(min_clear=0.5))
    data, shard = build(request, scenes)
    assert data.arrays["reflectance"].shape == (4, 4, 2, SIZE, SIZE)
    red = spread(data.arrays["reflectance"], shard)[:, 0]
    ground = values[:32, :32]
    np.testing.assert_array_equal(red[0], ground)
    np.testing.assert_array_equal(red[1, :, 16:], ground[:, 16:] + 1)
    np.testing.assert_array_equal(red[1, :, :16], ground[:, :16] + 2)
    np.testing.assert_array_equal(red[2, :, 16:], ground[:, 16:] + 2)
    assert not red[2, :, :16].any()
    assert not red[3].any()
    left = [chip.col for chip in shard.chips].index(3125)
    right = [chip.col for chip in shard.chips].index(3126)
    assert data.arrays["acquired"].dtype == "datetime64[s]"
    days = data.arrays["acquired"].astype("datetime64[D]").astype(object)
    assert days[left].tolist() == [dt.date(2020, 1, 3), dt.date(2020, 1, 21), None, None]
    assert days[right].tolist() == [dt.date(2020, 1, 3), dt.date(2020, 1, 13), dt.date(2020, 1, 21), None]
    np.testing.assert_array_equal(data.arrays["clear"][right], [1, 1, 1, np.nan])
    assert data.records[left].dates == (scenes[0].acquired, scenes[3].acquired)
    assert data.records[left].dropped == {"not clear enough": 2}
    assert data.records[right].seen == 4
    # Every date that was seen is kept unless the recipe asks for clear ones; its pixels stay, the mask lies beside.
    data, shard = build(ask(TimeSpec(series=True)), scenes)
    assert (spread(data.arrays["reflectance"], shard)[1, 0] == 5).all()
    assert not data.arrays["clear_mask"][:, 1].any()
    assert (data.arrays["clear"][:, 1] == 0).all()


def test_apply_mask_makes_hidden_pixels_void(dated: Callable[..., Scene]) -> None:
    data, shard = build(ask(TimeSpec(series=True), apply_mask=True), [dated("a", 2, 100, cloudy_left())])
    red = spread(data.arrays["reflectance"], shard)[0, 0]
    assert not red[:, :16].any()
    assert (red[:, 16:] == 100).all()
    np.testing.assert_array_equal(spread(data.arrays["clear_mask"], shard)[0], red > 0)


def test_a_pixel_that_lacks_a_band_is_not_clear(make_scene: SceneFactory) -> None:
    red, nir = np.full((64, 64), 100, np.uint16), np.full((64, 64), 200, np.uint16)
    nir[:, :4] = 0
    scene = make_scene("a", {"red": red, "nir": nir, "scl": np.full((64, 64), 4, np.uint8)})
    data, shard = build(ask(TimeSpec(series=True)), [scene])
    mask = spread(data.arrays["clear_mask"], shard)[0]
    assert not mask[:, :4].any()
    assert mask[:, 4:].all()
    assert (spread(data.arrays["reflectance"], shard)[0, 0] == 100).all()
    data, shard = build(ask(TimeSpec(composite="monthly")), [scene])
    np.testing.assert_array_equal(spread(data.arrays["count"], shard)[0], mask)


def test_at_most_so_many_dates_are_the_clearest_in_order_of_time(dated: Callable[..., Scene]) -> None:
    scenes = [dated("a", 2, 100, cloudy_left()), dated("b", 7, 200), dated("c", 9, 300, 9), dated("d", 12, 400)]
    data, shard = build(ask(TimeSpec(series=True, max_dates=2)), scenes)
    red = spread(data.arrays["reflectance"], shard)[:, 0]
    assert red.shape[0] == 2
    assert (red[0, :, :16] == 200).all()
    assert (red[1, :, :16] == 400).all()
    assert (red[0, :, 16:] == 100).all()
    assert (red[1, :, 16:] == 200).all()


@pytest.mark.parametrize(
    ("time", "left", "right"),
    [
        (TimeSpec(single="clearest"), 200, 100),
        (TimeSpec(single="newest"), 400, 400),
        (TimeSpec(single="nearest", date=dt.date(2020, 1, 9)), 200, 200),
        (TimeSpec(single="nearest", date=dt.date(2020, 1, 1)), 200, 100),
    ],
)
def test_a_single_date_is_chosen_for_each_chip(
    time: TimeSpec, left: int, right: int, dated: Callable[..., Scene]
) -> None:
    scenes = [dated("a", 2, 100, cloudy_left()), dated("b", 7, 200), dated("c", 9, 300, 9), dated("d", 12, 400)]
    data, shard = build(ask(time, keep=KeepSpec(min_clear=0.5)), scenes)
    red = spread(data.arrays["reflectance"], shard)[0, 0]
    assert (red[:, :16] == left).all()
    assert (red[:, 16:] == right).all()
    assert {len(record.dates) for record in data.records} == {1}
    assert data.records[0].dropped["not clear enough"] >= 1


# Offsets, joins, edges


def test_offsets_are_applied_scene_by_scene_before_scenes_are_joined(dated: Callable[..., Scene]) -> None:
    part = np.full((64, 64), 300, np.uint16)
    part[:, 12:] = 0
    middle = np.full((64, 64), 1400, np.uint16)
    middle[:16] = 900  # darker than the offset allows
    middle[:, 24:] = 0
    scenes = [
        dated("a", 2, part, acquisition="one"),
        dated("b", 2, middle, acquisition="one", offset_dn=-1000),
        dated("c", 2, 500, acquisition="one"),
    ]
    for reader in ("rasterio", "odc-stac", "stackstac"):
        data, shard = build(ask(TimeSpec(series=True), bands=("red",), reader=reader), scenes)
        red = spread(data.arrays["reflectance"], shard)[:, 0]
        assert red.shape[0] == 1
        assert (red[0, :, :12] == 300).all()
        assert (red[0, :16, 12:24] == 1).all()  # dark, not void
        assert (red[0, 16:, 12:24] == 400).all()
        assert (red[0, :, 24:] == 500).all()


@pytest.mark.parametrize("reader", ["rasterio", "odc-stac", "stackstac"])
def test_offsets_reach_every_band_of_every_reader(reader: str, dated: Callable[..., Scene]) -> None:
    scenes = [dated("a", 2, 1500, offset_dn=-1000), dated("b", 7, 1500)]
    data, shard = build(ask(TimeSpec(series=True), reader=reader), scenes)
    cube = spread(data.arrays["reflectance"], shard)
    assert [[int(band.min()), int(band.max())] for band in cube[0]] == [[500, 500], [2000, 2000]]
    assert [[int(band.min()), int(band.max())] for band in cube[1]] == [[1500, 1500], [3000, 3000]]


def test_the_windows_own_zone_comes_first(dated: Callable[..., Scene], make_scene: SceneFactory) -> None:
    own = dated("z", 2, 100, acquisition="one")
    east, north = Transformer.from_crs(32633, 32632, always_xy=True).transform(500_160, 5_399_840)
    other = make_scene(
        "a",
        {"red": np.full((400, 400), 900, np.uint16), "scl": np.full((400, 400), 4, np.uint8)},
        epsg=32632,
        x0=round(east, -1) - 2000,
        y0=round(north, -1) + 2000,
        day=2,
        acquisition="one",
    )
    data, shard = build(ask(TimeSpec(series=True), bands=("red",)), [other, own])
    assert (spread(data.arrays["reflectance"], shard)[0, 0] == 100).all()
    assert data.records[0].scenes == ("a", "z")


@pytest.mark.parametrize(
    "time", [TimeSpec(composite="monthly"), TimeSpec(series=True), TimeSpec(single="clearest")], ids=str
)
def test_windows_and_memory_do_not_change_the_result(
    time: TimeSpec, dated: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    scenes = []
    for day in range(0, 40, 5):
        scl = rng.choice([4, 5, 9, 0], (32, 32), p=[0.6, 0.3, 0.07, 0.03]).astype(np.uint8)
        values = rng.integers(1, 5000, (64, 64)).astype(np.uint16)
        scenes.append(dated(f"s{day}", day, values, scl))
    request = ask(time, mask=MaskSpec(dilate_m=35), keep=KeepSpec(min_clear=0.1))
    whole, _ = build(request, scenes)
    split, _ = build(request, scenes, max_px=SIZE**2)
    monkeypatch.setattr(cube.work, "BUDGET_BYTES", 5000)
    tight, _ = build(request, scenes)
    for other in (split, tight):
        assert other.records == whole.records
        for name, array in whole.arrays.items():
            np.testing.assert_array_equal(other.arrays[name], array, err_msg=name)


def test_scenes_elsewhere_are_not_opened(dated: Callable[..., Scene], make_scene: SceneFactory) -> None:
    far = make_scene("far", {"red": np.ones((8, 8), np.uint16)}, x0=700_000)
    gone = replace(far, assets=(replace(far.assets[0], href="/nowhere/red.tif"),))
    data, _ = build(ask(TimeSpec(series=True)), [dated("a", 2, 100), gone])
    assert data.records[0].scenes == ("a",)


def test_nothing_at_all_is_a_fact_and_no_error(dated: Callable[..., Scene]) -> None:
    for time in (TimeSpec(composite="monthly"), TimeSpec(series=True), TimeSpec(single="newest"), None):
        request = ask(time, quality=None if time is None else "scl")
        data, _ = build(request, [])
        assert not data.arrays["reflectance"].any()
        assert data.records[0].dates == ()
        assert (data.records[0].clear, data.records[0].seen) == (0, 0)


# Static


def test_static_layers_join_all_scenes(make_scene: SceneFactory) -> None:
    left = np.full((64, 20), 7, np.float32)
    right = np.full((64, 20), 9, np.float32)
    scenes = [
        make_scene("w", {"elevation": left}, nodata=None, day=None),
        make_scene("e", {"elevation": right}, nodata=None, day=None, x0=500_150),
    ]
    request = ask(None, kind="elevation", variable="elevation", bands=("elevation",), quality=None)
    data, shard = build(request, scenes)
    assert data.arrays["elevation"].shape == (4, SIZE, SIZE)
    height = spread(data.arrays["elevation"], shard)
    assert (height[:, :15] == 7).all()
    assert (height[:, 15:32] == 9).all()
    assert data.records[0].clear == 1
    assert {record.scenes for record in data.records} == {("e", "w")}


# What is promised before a pixel is read


@pytest.mark.parametrize(
    "time",
    [TimeSpec(composite="monthly"), TimeSpec(series=True), TimeSpec(single="newest"), None],
    ids=["composite", "series", "single", "static"],
)
def test_what_is_allocated_is_what_was_announced(time: TimeSpec | None) -> None:
    request = pickle.loads(pickle.dumps(ask(time, steps=5)))
    data = allocate(request, 3)
    assert list(data.arrays) == [variable.name for variable in variables(request)]
    for variable in variables(request):
        array = data.arrays[variable.name]
        assert array.shape == (3, *variable.shape)
        assert len(variable.dims) == len(variable.shape)
        assert array.dtype == variable.dtype
        assert variable.attrs["long_name"]
        blank = np.zeros((), variable.dtype) if variable.fill is None else np.asarray(variable.fill, variable.dtype)
        np.testing.assert_array_equal(array, np.broadcast_to(blank, array.shape))


def test_a_series_is_as_long_as_the_most_acquisitions_over_one_chip(
    dated: Callable[..., Scene], make_scene: SceneFactory
) -> None:
    near = [dated("a", 2, 1), dated("b", 7, 1), dated("b2", 7, 1, acquisition="b"), dated("outside", 400, 1)]
    far = [make_scene(f"f{day}", {"red": np.ones((8, 8), np.uint16)}, x0=600_000, day=day) for day in range(9)]
    assert steps_needed(ask(TimeSpec(series=True)), near + far, CHIPS) == 2
    assert steps_needed(ask(TimeSpec(series=True, max_dates=1)), near + far, CHIPS) == 1
    assert steps_needed(ask(TimeSpec(composite="monthly")), near, CHIPS) == 12
    assert steps_needed(ask(TimeSpec(single="newest")), near, CHIPS) == 1
    assert steps_needed(ask(TimeSpec(series=True)), [], CHIPS) == 1


def test_windows_grow_with_the_budget_and_shrink_with_the_dates(dated: Callable[..., Scene]) -> None:
    scenes = [dated(f"s{day}", day, 1) for day in range(0, 360, 30)]
    monthly, yearly = ask(TimeSpec(composite="monthly")), ask(TimeSpec(composite="yearly"))
    assert window_px(monthly, scenes) > window_px(yearly, scenes) > window_px(yearly, scenes, 2**20)
    assert window_px(yearly, scenes, 1) == SIZE**2


def test_too_short_a_time_axis_is_refused(dated: Callable[..., Scene]) -> None:
    shard = lay_shards(CHIPS, 4)[0]
    request = ask(TimeSpec(series=True), steps=1)
    with pytest.raises(ValueError, match="steps_needed"):
        fill(allocate(request, 4), request, [dated("a", 2, 1), dated("b", 7, 1)], shard.windows(10**9)[0])


# Resampling by kind


@pytest.mark.parametrize(
    ("kind", "source_m", "target_m", "method"),
    [
        ("reflectance", 20, 10, "bilinear"),
        ("reflectance", 10, 10, "bilinear"),
        ("reflectance", 10, 20, "average"),
        ("reflectance", 10, 60, "average"),
        ("backscatter", 10, 20, "average"),
        ("backscatter", 10, 10, "bilinear"),
        ("elevation", 30, 10, "bilinear"),
        ("classes", 20, 10, "nearest"),
        ("classes", 10, 20, "mode"),
        ("classes", 20, 30, "nearest"),
    ],
)
def test_resampling_follows_the_kind_of_band(kind: Any, source_m: float, target_m: float, method: str) -> None:
    assert resampling_for(kind, source_m=source_m, target_m=target_m) == method


def test_classes_are_never_interpolated() -> None:
    with pytest.raises(ValueError, match="would invent classes"):
        resampling_for("classes", "bilinear")
    with pytest.raises(ValueError, match="is not a resampling method"):
        resampling_for("elevation", "quintic")
    assert resampling_for("elevation", "cubic") == "cubic"
