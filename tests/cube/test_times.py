"""Intervals and periods: half-open, in order, without gaps."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.times import Interval, KeepSpec, TimeSpec, periods

SPECS = [
    TimeSpec(composite="monthly"),
    TimeSpec(composite="seasonal"),
    TimeSpec(composite="yearly"),
    TimeSpec(composite="days", days=16),
    TimeSpec(series=True),
]


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    start = draw(st.datetimes(dt.datetime(2015, 1, 1), dt.datetime(2026, 1, 1)))
    length = draw(st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(days=900)))
    return Interval(start.replace(tzinfo=dt.UTC), (start + length).replace(tzinfo=dt.UTC))


@given(intervals(), st.sampled_from(SPECS))
def test_periods_fill_the_interval_without_gap_or_overlap(interval: Interval, spec: TimeSpec) -> None:
    cut = periods(interval, spec)
    assert cut[0].start == interval.start
    assert cut[-1].end == interval.end
    assert all(a.end == b.start for a, b in itertools.pairwise(cut))


def test_the_end_of_an_interval_is_not_part_of_it() -> None:
    interval = Interval.parse("2018-04-01/2018-10-01")
    assert dt.datetime(2018, 4, 1, tzinfo=dt.UTC) in interval
    assert dt.datetime(2018, 10, 1, tzinfo=dt.UTC) not in interval


def test_months_are_calendar_months_cut_to_the_interval() -> None:
    cut = periods(Interval.parse("2018-11-15/2019-02-02"), TimeSpec(composite="monthly"))
    assert [str(p) for p in cut] == [
        "2018-11-15/2018-12-01",
        "2018-12-01/2019-01-01",
        "2019-01-01/2019-02-01",
        "2019-02-01/2019-02-02",
    ]


def test_seasons_are_meteorological_and_winter_keeps_its_december() -> None:
    cut = periods(Interval.parse("2018-10-15/2019-07-01"), TimeSpec(composite="seasonal"))
    assert [str(p) for p in cut] == [
        "2018-10-15/2018-12-01",
        "2018-12-01/2019-03-01",
        "2019-03-01/2019-06-01",
        "2019-06-01/2019-07-01",
    ]


def test_years_and_runs_of_days() -> None:
    interval = Interval.parse("2018-07-01/2020-02-01")
    assert [str(p) for p in periods(interval, TimeSpec(composite="yearly"))] == [
        "2018-07-01/2019-01-01",
        "2019-01-01/2020-01-01",
        "2020-01-01/2020-02-01",
    ]
    runs = periods(Interval.parse("2018-07-01/2018-07-25"), TimeSpec(composite="days", days=10))
    assert [str(p) for p in runs] == ["2018-07-01/2018-07-11", "2018-07-11/2018-07-21", "2018-07-21/2018-07-25"]


def test_datetimes_are_read_as_utc() -> None:
    interval = Interval.parse("2018-04-01T10:00:00+02:00/2018-04-02")
    assert interval.start == dt.datetime(2018, 4, 1, 8, tzinfo=dt.UTC)
    assert str(interval) == "2018-04-01T08:00:00Z/2018-04-02"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2018-10-01/2018-04-01", "earlier date first"),
        ("2018-04-01/2018-04-01", "holds no time"),
        ("2018-04-01/..", "open end"),
        ("/2018-04-01", "open end"),
        ("2018-04-01", "two dates with a slash"),
        ("2018-04-01/spring", "'spring' is not a date"),
        ("2018-02-30/2018-03-30", "'2018-02-30' is not a date"),
    ],
)
def test_a_bad_interval_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Interval.parse(text)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TimeSpec(), "exactly one of"),
        (lambda: TimeSpec(series=True, composite="monthly"), "exactly one of"),
        (lambda: TimeSpec(composite="days"), "belong together"),
        (lambda: TimeSpec(series=True, days=3), "belong together"),
        (lambda: TimeSpec(series=True, how="mean"), "is for composites"),
        (lambda: TimeSpec(single="nearest"), "belong together"),
        (lambda: TimeSpec(composite="monthly", max_dates=3), "is for series"),
        (lambda: KeepSpec(min_clear=1.5), "share from 0 to 1"),
    ],
)
def test_a_contradiction_in_the_options_is_refused(make: object, says: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=says):
        make()


def test_radar_is_averaged_and_reflectance_takes_the_median_unless_asked_otherwise() -> None:
    assert TimeSpec(composite="monthly").how_for("backscatter") == "mean"
    assert TimeSpec(composite="monthly").how_for("reflectance") == "median"
    assert TimeSpec(composite="monthly", how="best").how_for("backscatter") == "best"
