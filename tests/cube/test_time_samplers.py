"""Seasons, dates counted back, mosaics around a day and pairs of dates: which dates a chip gets, and what it says."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import from_bounds

from catalog.scene import Scene
from cube.build import CubeData, CubeRequest, allocate, axis, fill, steps_needed
from cube.mask import MaskSpec
from cube.times import (
    Interval,
    KeepSpec,
    RecordDates,
    TimeSpec,
    period_names,
    periods,
    picks,
    record_slots,
    season_slots,
)
from tiling.grid import Chip
from tiling.shards import lay_shards

Array = npt.NDArray[Any]
SceneFactory = Callable[..., Scene]

YEAR = Interval.parse("2020-01-01/2021-01-01")
SIZE = 16
# The factory puts files at (500000, 5400000), which is the upper left corner of this chip of 160 m.
CHIP = Chip(32633, 3125, 33749, SIZE, 10.0)


def day(number: int) -> dt.date:
    """The day on which the factory's scenes of this number are seen."""
    return dt.date(2020, 1, 1) + dt.timedelta(days=number)


def ask(time: TimeSpec, interval: Interval = YEAR, **options: Any) -> CubeRequest:
    settings: dict[str, Any] = {
        "name": "s2", "kind": "reflectance", "variable": "reflectance", "bands": ("red", "nir"), "quality": "scl",
        "size_px": SIZE, "resolution_m": 10, "time": time, "periods": periods(interval, time), **options,
    }  # fmt: skip
    return CubeRequest(**settings)


def build(request: CubeRequest, scenes: Sequence[Scene], chips: Sequence[Chip] = (CHIP,)) -> CubeData:
    request = replace(request, steps=steps_needed(request, scenes, chips))
    shard = lay_shards(chips, len(chips))[0]
    data = allocate(request, len(chips))
    for window in shard.windows(10**9):
        fill(data, request, scenes, window)
    return data


@pytest.fixture
def dated(make_scene: SceneFactory) -> Callable[..., Scene]:
    """A scene of 16 px whose red is ``value``, with so many rows (20 m, of 8) under cloud and so many unseen."""

    def make(name: str, number: int, value: int, cloudy: int = 0, unseen: int = 0, **options: Any) -> Scene:
        red = np.full((64, 64), value, np.uint16)
        scl = np.full((32, 32), 4, np.uint8)
        scl[:cloudy] = 9
        if unseen:
            red[16 - 2 * unseen :], scl[8 - unseen :] = 0, 0
        resolution = {"red": 10, "nir": 10, "scl": 20}
        return make_scene(name, {"red": red, "nir": red * 2, "scl": scl}, resolution=resolution, day=number, **options)

    return make


def seen_days(data: CubeData, chip: int = 0) -> list[int | None]:
    """Numbers of the days at each place of the axis, None where it is void."""
    acquired = data.arrays["acquired"][chip]
    start = np.datetime64("2020-01-01T00:00:00", "s")
    return [None if np.isnat(time) else int((time - start) / np.timedelta64(86400, "s")) for time in acquired]


# Chips that may have dates of some times only


@pytest.mark.parametrize(
    "time",
    [
        TimeSpec(series=True),
        TimeSpec(series=True, max_dates=2),
        TimeSpec(composite="monthly"),
        TimeSpec(single="clearest"),
        TimeSpec(single="nearest", date=day(40)),
        TimeSpec(back=3, every_days=30, date=day(75)),
        TimeSpec(pair="clarity"),
        TimeSpec(pair="event", date=day(40), complete=True),
    ],
    ids=lambda time: next(name for name in ("series", "composite", "single", "back", "pair") if getattr(time, name)),
)
def test_dates_outside_the_times_of_a_chip_are_as_if_nobody_had_found_them_but_told(
    time: TimeSpec, dated: Callable[..., Scene]
) -> None:
    scenes = [dated(f"s{number}", number, 1000 + number, cloudy=number % 5) for number in (3, 17, 33, 44, 61, 75, 90)]
    far = dated("far", 50, 7000, x0=600_000)
    within = (Interval.parse("2020-01-05/2020-02-14"), Interval.parse("2020-03-02/2020-03-20"))
    mine = [scene for scene in scenes if scene.acquired and any(scene.acquired in span for span in within)]
    assert 0 < len(mine) < len(scenes)
    wanted = build(ask(time), mine)
    request = replace(ask(time, within=within), steps=steps_needed(ask(time), mine, (CHIP,)))
    found = allocate(request, 1)
    for window in lay_shards((CHIP,), 1)[0].windows(10**9):
        fill(found, request, [*scenes, far], window)
    for name, array in wanted.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    (record,), (alone,) = found.records, wanted.records
    others = [scene.acquired for scene in scenes if scene not in mine and scene.acquired]
    dropped = dict(record.dropped)
    told = sum(any(moment in step for step in request.periods) for moment in others)
    assert dropped.pop("in a year of another split", 0) == told, "none for a scene that is elsewhere"
    assert dropped == alone.dropped
    for what in ("dates", "scenes", "clear", "seen"):
        assert getattr(record, what) == getattr(alone, what)


# Seasons


def test_quarters_are_calendar_quarters_and_bear_their_year() -> None:
    spec = TimeSpec(composite="quarterly")
    cut = periods(Interval.parse("2018-11-15/2019-07-01"), spec)
    assert [str(p) for p in cut] == ["2018-11-15/2019-01-01", "2019-01-01/2019-04-01", "2019-04-01/2019-07-01"]
    assert period_names(cut, spec) == ("2018-Q4", "2019-Q1", "2019-Q2")


def test_a_meteorological_winter_bears_the_year_of_its_january() -> None:
    spec = TimeSpec(composite="seasonal")
    cut = periods(Interval.parse("2018-10-15/2019-12-02"), spec)
    assert period_names(cut, spec) == ("SON 2018", "DJF 2019", "MAM 2019", "JJA 2019", "SON 2019", "DJF 2020")


def test_astronomical_seasons_begin_with_equinoxes_and_solstices() -> None:
    spec = TimeSpec(composite="astronomical")
    cut = periods(Interval.parse("2021-01-10/2022-01-10"), spec)
    assert [str(p) for p in cut] == [
        "2021-01-10/2021-03-20", "2021-03-20/2021-06-21", "2021-06-21/2021-09-22", "2021-09-22/2021-12-21",
        "2021-12-21/2022-01-10",
    ]  # fmt: skip
    assert period_names(cut, spec) == (
        "December solstice 2020", "March equinox 2021", "June solstice 2021", "September equinox 2021",
        "December solstice 2021",
    )  # fmt: skip


@given(
    st.sampled_from(["seasonal", "astronomical", "quarterly"]),
    st.dates(dt.date(2015, 1, 1), dt.date(2030, 1, 1)),
    st.integers(1, 900),
)
def test_seasons_fill_the_interval_and_no_two_bear_one_name(how: Any, start: dt.date, length: int) -> None:
    spec = TimeSpec(composite=how)
    interval = Interval.parse(f"{start}/{start + dt.timedelta(days=length)}")
    cut = periods(interval, spec)
    assert (cut[0].start, cut[-1].end) == (interval.start, interval.end)
    assert all(a.end == b.start for a, b in itertools.pairwise(cut))
    names = period_names(cut, spec)
    assert len(set(names)) == len(cut)


# Mosaics around a day


def test_periods_around_a_day_have_it_in_the_middle() -> None:
    around = TimeSpec(composite="days", days=11, date=dt.date(2020, 6, 15))
    assert [str(p) for p in periods(YEAR, around)] == ["2020-06-10/2020-06-21"]
    three = TimeSpec(composite="days", days=10, count=3, date=dt.date(2020, 6, 15))
    assert [str(p) for p in periods(YEAR, three)] == [
        "2020-05-31/2020-06-10", "2020-06-10/2020-06-20", "2020-06-20/2020-06-30"
    ]  # fmt: skip


def test_a_mosaic_around_a_day_folds_the_scenes_of_its_days_alone(dated: Callable[..., Scene]) -> None:
    scenes = [dated("a", 94, 9), dated("b", 95, 100), dated("c", 100, 300), dated("d", 105, 200), dated("e", 106, 9)]
    data = build(ask(TimeSpec(composite="days", days=11, date=day(100), how="median")), scenes)
    assert (data.arrays["reflectance"][0, 0, 0] == 200).all()
    assert (data.arrays["count"][0, 0] == 3).all()
    assert data.records[0].scenes == ("b", "c", "d")


# Counted back


def test_dates_counted_back_are_the_clearest_near_each_day_in_order_of_time(dated: Callable[..., Scene]) -> None:
    scenes = [
        dated("old", 34, 1), dated("a", 36, 2), dated("b", 44, 3, cloudy=2),  # around day 40 (35 to 45)
        dated("between", 50, 4),
        dated("c", 65, 5, cloudy=1), dated("d", 75, 6), dated("late", 76, 7),  # around day 70
        dated("e", 99, 8, cloudy=4), dated("f", 101, 9, cloudy=3),  # around day 100
    ]  # fmt: skip
    request = ask(TimeSpec(back=3, every_days=30, tolerance_days=5, date=day(100)))
    data = build(request, scenes)
    assert seen_days(data) == [36, 75, 101]
    assert data.arrays["reflectance"][0, :, 0, 0, 0].tolist() == [2, 6, 9]
    assert [pick.role for pick in picks(request.time)] == ["60 days back", "30 days back", "0 days back"]  # type: ignore[arg-type]
    assert dict(data.records[0].dropped) == {"not chosen": 3}  # the others were not even looked at


def test_a_day_without_a_date_stays_void_and_the_others_keep_their_places(dated: Callable[..., Scene]) -> None:
    scenes = [dated("a", 40, 2), dated("b", 70, 3, cloudy=6), dated("c", 100, 4)]
    spec = TimeSpec(back=3, every_days=30, date=day(100))
    data = build(ask(spec, keep=KeepSpec(min_clear=0.5)), scenes)
    assert seen_days(data) == [40, None, 100]
    assert not data.arrays["reflectance"][0, 1].any()
    assert np.isnan(data.arrays["clear"][0, 1])
    assert dict(data.records[0].dropped) == {"not clear enough": 1}


def test_a_chip_that_lacks_a_date_of_a_complete_axis_gets_none_and_says_so(dated: Callable[..., Scene]) -> None:
    scenes = [dated("a", 40, 2), dated("b", 70, 3, cloudy=6), dated("c", 100, 4)]
    spec = TimeSpec(back=3, every_days=30, date=day(100), complete=True)
    data = build(ask(spec, keep=KeepSpec(min_clear=0.5)), scenes)
    assert seen_days(data) == [None, None, None]
    assert not data.arrays["reflectance"].any()
    assert data.records[0].scenes == ()
    assert dict(data.records[0].dropped) == {"not clear enough": 1, "the other dates are missing": 2}


def test_pixels_that_turn_out_void_leave_no_half_of_a_complete_axis(dated: Callable[..., Scene]) -> None:
    """The classes call the second date clear, and its pixels are void all the same."""
    scenes = [dated("a", 70, 2), dated("b", 100, 0)]
    spec = TimeSpec(back=2, every_days=30, date=day(100))
    assert seen_days(build(ask(spec), scenes)) == [70, None]
    data = build(ask(replace(spec, complete=True)), scenes)
    assert seen_days(data) == [None, None]
    assert not data.arrays["reflectance"].any()
    assert not data.arrays["scl"].any()
    assert np.isnan(data.arrays["clear"]).all()


# Pairs


def test_a_pair_about_an_event_is_the_nearest_clear_date_on_each_side_but_not_on_the_day(
    dated: Callable[..., Scene],
) -> None:
    scenes = [
        dated("far before", 60, 1), dated("before", 80, 2), dated("cloudy before", 95, 3, cloudy=5),
        dated("on the day", 100, 4),
        dated("cloudy after", 101, 5, cloudy=5), dated("after", 120, 6, cloudy=1), dated("far after", 130, 7),
    ]  # fmt: skip
    request = ask(TimeSpec(pair="event", date=day(100)), keep=KeepSpec(min_clear=0.8))
    data = build(request, scenes)
    assert seen_days(data) == [80, 120]
    assert [str(period) for period, _ in axis(request)] == ["2020-01-01/2020-04-10", "2020-04-11/2021-01-01"]
    near = build(ask(TimeSpec(pair="event", date=day(100), within_days=15), keep=KeepSpec(min_clear=0.8)), scenes)
    assert seen_days(near) == [None, None]


def test_a_pair_of_clear_and_cloudy_takes_the_most_hidden_and_not_the_least_seen(dated: Callable[..., Scene]) -> None:
    scenes = [
        dated("a", 10, 1, cloudy=1),
        dated("clear", 20, 2),
        dated("edge", 30, 3, cloudy=1, unseen=6),
        dated("cloudy", 40, 4, cloudy=7),
    ]
    data = build(ask(TimeSpec(pair="clarity"), keep=KeepSpec(min_clear=0.9)), scenes)
    assert seen_days(data) == [20, 40]
    assert data.arrays["clear"][0].tolist() == pytest.approx([1, 1 / 8])
    assert (data.arrays["reflectance"][0, 1, 0] == 4).all(), "clouds are what it is for"
    assert data.records[0].scenes == ("clear", "cloudy")


def test_where_every_date_is_clear_the_cloudy_one_is_void(dated: Callable[..., Scene]) -> None:
    data = build(ask(TimeSpec(pair="clarity")), [dated("a", 10, 1), dated("b", 20, 2)])
    assert seen_days(data) == [10, None]


def test_radar_pairs_are_of_one_orbit_direction_each(make_scene: SceneFactory) -> None:
    def pass_(number: int, orbit: str) -> Scene:
        vv = np.full((64, 64), number / 1000, np.float32)
        return make_scene(f"{orbit}{number}", {"vv": vv}, day=number, orbit=orbit, nodata=None)

    scenes = [
        pass_(number, orbit)
        for number, orbit in [
            (90, "ascending"), (95, "descending"), (98, "descending"), (103, "ascending"), (110, "descending"),
        ]
    ]  # fmt: skip
    request = ask(
        TimeSpec(pair="event", date=day(100)),
        kind="backscatter", variable="backscatter", bands=("vv",), quality=None, orbits=("ascending", "descending"),
    )  # fmt: skip
    data = build(request, scenes)
    assert seen_days(data) == [90, 98, 103, 110]
    assert data.arrays["orbit"][0].tolist() == [1, 2, 1, 2]


# Days by chip


def test_the_seasons_of_a_chip_fill_the_time_and_come_again_every_year() -> None:
    interval = Interval.parse("2017-06-01/2020-02-01")
    turns = tuple(dt.date(2018, 4, 1) + dt.timedelta(days=days) for days in (0, 50, 130, 200))
    places = season_slots(interval, turns)
    covered = sorted((w.start, w.end) for place in places for w in place.windows)
    assert covered[0][0] == interval.start
    assert covered[-1][1] == interval.end
    assert all(a[1] == b[0] for a, b in itertools.pairwise(covered))
    spring = places[0]
    assert [str(window) for window in spring.windows] == ["2018-04-01/2018-05-21", "2019-04-01/2019-05-21"]
    assert spring.targets[0] == dt.datetime(2018, 4, 26, tzinfo=dt.UTC)
    assert spring.away(dt.datetime(2019, 4, 27, tzinfo=dt.UTC)) == dt.timedelta(days=1)
    assert spring.away(dt.datetime(2019, 6, 27, tzinfo=dt.UTC)) is None
    winter = places[3]
    assert str(winter.windows[1]) == "2018-10-18/2019-04-01"


def test_a_record_whose_dates_lie_outside_the_time_gives_no_places() -> None:
    spec = TimeSpec(back=2, every_days=30, dates=RecordDates("x", "day"))
    assert record_slots(YEAR, spec, dt.date(2020, 1, 10)) is None
    places = record_slots(YEAR, spec, dt.date(2020, 3, 10))
    assert places is not None
    assert [str(place.windows[0]) for place in places] == ["2020-02-04/2020-02-15", "2020-03-05/2020-03-16"]


def test_each_chip_picks_by_its_own_day_and_one_without_stays_void(dated: Callable[..., Scene]) -> None:
    scenes = [dated("a", 40, 2), dated("b", 70, 3), dated("c", 100, 4)]
    chips = (CHIP, replace(CHIP, col=CHIP.col + 1), replace(CHIP, row=CHIP.row - 1))
    spec = TimeSpec(single="nearest", dates=RecordDates("x", "day"))
    request = ask(spec, steps=1)
    shard = lay_shards(chips, 3)[0]
    data = allocate(request, 3)
    own = {chips[0]: day(45), chips[1]: day(90)}
    data.slots = [record_slots(YEAR, spec, own[chip]) if chip in own else None for chip in shard.chips]
    for window in shard.windows(10**9):
        fill(data, request, scenes, window)
    found = {chip: (seen_days(data, at), dict(data.records[at].dropped)) for at, chip in enumerate(shard.chips)}
    assert found[chips[0]] == ([40], {"not chosen": 2})
    assert found[chips[1]] == ([100], {"not chosen": 2})
    assert found[chips[2]] == ([None], {"no day of its own": 3})


# Refusals


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TimeSpec(back=3, date=day(9)), "every_days"),
        (lambda: TimeSpec(back=3, every_days=30), "say the day"),
        (lambda: TimeSpec(back=3, every_days=10, date=day(9)), "less than half a step"),
        (lambda: TimeSpec(series=True, tolerance_days=3), "is for back"),
        (lambda: TimeSpec(pair="event"), "say the day"),
        (lambda: TimeSpec(pair="clarity", date=day(9)), "belong together"),
        (lambda: TimeSpec(pair="clarity", within_days=3), "is for pair: event"),
        (lambda: TimeSpec(composite="monthly", count=3), "'count' is for"),
        (lambda: TimeSpec(series=True, complete=True), "for back, pair and phenology"),
        (lambda: TimeSpec(pair="clarity", dates=RecordDates("x", "day")), "stands in place of"),
        (lambda: TimeSpec(single="nearest", date=day(9), dates=RecordDates("x", "day")), "stands in place of"),
        (lambda: TimeSpec(back=2, pair="clarity"), "more than one"),
    ],
)
def test_a_contradiction_in_the_options_is_refused(make: Callable[[], TimeSpec], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (TimeSpec(back=3, every_days=400, date=dt.date(2020, 6, 1)), "lies outside 2020-01-01/2021-01-01"),
        (TimeSpec(pair="event", date=dt.date(2020, 1, 1)), "no time on both sides"),
        (TimeSpec(composite="days", days=5, date=dt.date(2019, 6, 1)), "lies outside"),
    ],
)
def test_dates_outside_the_time_of_the_recipe_are_refused(spec: TimeSpec, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        periods(YEAR, spec)


# Real Sentinel-2 of Lower Austria, against the classes in the files


AUSTRIA = tuple(Chip(32633, col, row, 64, 10.0) for row in range(8393, 8396) for col in range(829, 832))
SEASON = Interval.parse("2018-04-01/2018-10-01")
HIDE = (0, 1, 3, 8, 9, 10)


@pytest.fixture
def in_time(austria_scenes: list[Scene]) -> list[Scene]:
    """All dates in order of time; their files are in order of the satellites."""
    return sorted(austria_scenes, key=lambda scene: str(scene.acquired))


@pytest.fixture
def clear_of(in_time: list[Scene]) -> Array:
    """(date, chip): clear share and hidden share of every date by its SCL file alone, dims ``(2, date, chip)``."""
    out = np.empty((2, len(in_time), len(AUSTRIA)))
    for t, scene in enumerate(in_time):
        with rasterio.open(next(asset.href for asset in scene.assets if asset.band == "scl")) as file:
            for c, chip in enumerate(AUSTRIA):
                scl = file.read(1, window=from_bounds(*chip.bounds, file.transform), boundless=True, fill_value=0)
                assert scl.shape == (32, 32)
                out[:, t, c] = (~np.isin(scl, HIDE)).mean(), (np.isin(scl, HIDE) & (scl != 0)).mean()
    return out


def austria_build(time: TimeSpec, scenes: Sequence[Scene], **options: Any) -> tuple[CubeData, list[list[int | None]]]:
    """What was built, and the positions of the scenes at each place of each chip's axis."""
    request = ask(
        time, SEASON, size_px=64, mask=MaskSpec(hide=("void", "saturated", "shadow", "cloud", "cirrus")), **options
    )
    data = build(request, scenes, AUSTRIA)
    ordered = lay_shards(AUSTRIA, len(AUSTRIA))[0].chips
    times = {np.datetime64(s.acquired.replace(tzinfo=None), "s"): t for t, s in enumerate(scenes) if s.acquired}
    found = {chip: [times.get(one) for one in data.arrays["acquired"][i]] for i, chip in enumerate(ordered)}
    return data, [found[chip] for chip in AUSTRIA]


def test_dates_counted_back_over_austria_are_the_clearest_by_its_scl_files(
    in_time: list[Scene], clear_of: Array
) -> None:
    spec = TimeSpec(back=4, every_days=30, tolerance_days=10, date=dt.date(2018, 9, 1))
    _, found = austria_build(spec, in_time)
    days = [scene.acquired.date() for scene in in_time if scene.acquired]
    for c in range(len(AUSTRIA)):
        for place, back in enumerate((90, 60, 30, 0)):
            target = dt.date(2018, 9, 1) - dt.timedelta(days=back)
            near = [t for t, one in enumerate(days) if abs((one - target).days) <= 10]
            assert near
            assert found[c][place] == max(near, key=lambda t, c=c: (clear_of[0, t, c], -t))  # type: ignore[misc]


def test_pairs_over_austria_are_those_that_its_scl_files_tell(in_time: list[Scene], clear_of: Array) -> None:
    event = dt.date(2018, 7, 1)
    _, found = austria_build(TimeSpec(pair="event", date=event), in_time, keep=KeepSpec(min_clear=0.9))
    _, contrast = austria_build(TimeSpec(pair="clarity"), in_time)
    days = [scene.acquired.date() for scene in in_time if scene.acquired]
    for c in range(len(AUSTRIA)):
        fit = [t for t in range(len(days)) if clear_of[0, t, c] >= 0.9]
        assert found[c] == [max(t for t in fit if days[t] < event), min(t for t in fit if days[t] > event)]
        clear, cloudy = clear_of[0, :, c], clear_of[1, :, c]
        assert contrast[c] == [int(np.argmax(clear)), int(np.argmax(cloudy))]
        assert cloudy[contrast[c][1]] > 0.9
