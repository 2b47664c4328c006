"""Which times become the time axis: every date, composites of periods, or picked dates. UTC, half-open intervals."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import annotated_types

How = Literal["median", "mean", "first", "best"]
Choose = Literal["clearest", "newest", "nearest", "cloudiest"]
SEASONS = ("spring", "summer", "autumn", "winter")


@dataclass(frozen=True, slots=True)
class Interval:
    """``[start, end)`` in UTC; both ends aware."""

    start: dt.datetime
    end: dt.datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError(f"{self.start} to {self.end} has no time zone; wanted aware datetimes in UTC")
        if not self.start < self.end:
            raise ValueError(
                f"{self.start:%Y-%m-%d} to {self.end:%Y-%m-%d} holds no time; wanted the earlier date first, "
                "and the end is not part of it"
            )

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Read ``2018-04-01/2018-10-01``: dates or datetimes of ISO 8601, UTC where no zone is given.

        Raises:
            ValueError: Not two ends, an open end, not a date, or reversed.
        """
        ends = text.split("/")
        if len(ends) != 2:
            raise ValueError(f"time is '{text}', wanted two dates with a slash between: 2018-04-01/2018-10-01")
        if any(end.strip() in ("", "..") for end in ends):
            raise ValueError(f"time is '{text}', which has an open end; wanted both dates: 2018-04-01/2018-10-01")
        return cls(_moment(ends[0]), _moment(ends[1]))

    def __str__(self) -> str:
        return f"{_short(self.start)}/{_short(self.end)}"

    def __contains__(self, moment: dt.datetime) -> bool:
        return self.start <= moment < self.end

    @property
    def years(self) -> tuple[int, int]:
        """The first and the last year that it touches."""
        return self.start.year, (self.end - dt.timedelta(microseconds=1)).year


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ValueError(
            f"'{text.strip()}' is not a date; wanted one like 2018-04-01 or 2018-04-01T10:00:00Z"
        ) from error
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def _short(moment: dt.datetime) -> str:
    """ISO text: a date alone at midnight."""
    return f"{moment:%Y-%m-%d}" if moment.time() == dt.time() else f"{moment:%Y-%m-%dT%H:%M:%S}Z"


@dataclass(frozen=True, slots=True)
class RecordDates:
    """A day of its own for each chip: that of the record that lies in it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    vector: str
    """Path of the records: points or other features, or a CSV with `lon` and `lat`."""
    attribute: str
    """Attribute with the day, as 2018-07-01. Of several records in a chip the earliest counts."""


@dataclass(frozen=True, slots=True)
class PhenologySpec:
    """Rasters of the days on which the year of the plants turns, as MCD12Q2 has them."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    greenup: str
    """Path, or glob, of rasters with the day since 1970-01-01 on which it greens; spring begins."""
    maturity: str
    """The day on which it is green; summer begins."""
    senescence: str
    """The day on which the green begins to fade; autumn begins."""
    dormancy: str
    """The day on which it is bare; winter begins, until the next greenup."""
    missing: Literal["calendar", "void"] = "calendar"
    """Chips without a cycle, or with one out of order, get meteorological seasons, or nothing."""


@dataclass(frozen=True, slots=True)
class TimeSpec:
    """What becomes of time; exactly one of ``series``, ``composite``, ``single``, ``back``, ``pair``, ``phenology``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    series: bool = False
    """Keep every date that is clear enough, packed to the front of the time axis and padded."""
    composite: Literal["monthly", "seasonal", "astronomical", "quarterly", "yearly", "days"] | None = None
    """One image a period: calendar months, meteorological seasons (DJF, MAM, JJA, SON), astronomical seasons (from the
    equinoxes and solstices), calendar quarters, calendar years, or every so many ``days``."""
    single: Literal["clearest", "newest", "nearest"] | None = None
    """One date a chip: the clearest, the newest, or the nearest to ``date``."""
    back: Annotated[int, annotated_types.Ge(1)] | None = None
    """So many dates a chip, counted back from ``date`` in steps of ``every_days``: the clearest one within
    ``tolerance_days`` of each. They stand in order of time, a place is void where there is none."""
    pair: Literal["event", "clarity"] | None = None
    """Two dates a chip. ``event``: the nearest one that is clear enough on each side of ``date``; that day itself is
    neither before nor after. ``clarity``: the clearest and the cloudiest one."""
    phenology: PhenologySpec | None = None
    """Four dates a chip, one from each of its own seasons (spring, summer, autumn, winter): the clear enough one that
    is nearest to the middle of the season, of any year."""
    days: Annotated[int, annotated_types.Ge(1)] | None = None
    """Length of a period for ``composite: days``, counted from the start of the recipe's time or around ``date``."""
    count: Annotated[int, annotated_types.Ge(1)] | None = None
    """With ``composite: days`` and ``date``: so many periods, the middle of them on that day. Empty: one."""
    how: How | None = None
    """How a composite is made: median, mean, first (the earliest clear observation) or best (from the clearest date
    of the chip). Empty means median for reflectance and mean for backscatter."""
    date: dt.date | None = None
    """The day that ``single: nearest`` looks for, that ``back`` counts from (its first date), the day of the event of
    ``pair: event``, or the middle of ``composite: days``."""
    dates: RecordDates | None = None
    """With ``single: nearest``, ``back`` and ``pair: event``: not one ``date`` for all but that of a record in each
    chip. Chips without a record stay void."""
    every_days: Annotated[int, annotated_types.Ge(1)] | None = None
    """With ``back``: days from one date to the next."""
    tolerance_days: Annotated[int, annotated_types.Ge(0)] = 5
    """With ``back``: how far a date may lie from the day looked for. Twice this is less than ``every_days``."""
    within_days: Annotated[int, annotated_types.Ge(1)] | None = None
    """With ``pair: event``: how far a date may lie from the event. Empty: as far as the recipe's time goes."""
    complete: bool = False
    """With ``back``, ``pair`` and ``phenology``: a chip that lacks one of the dates gets none of them."""
    max_dates: Annotated[int, annotated_types.Ge(1)] | None = None
    """Keep at most so many dates of a series a chip: the clearest ones, in order of time."""

    def __post_init__(self) -> None:
        kinds = ("composite", "single", "back", "pair", "phenology")
        given = [self.series, *(getattr(self, kind) is not None for kind in kinds)]
        if sum(given) != 1:
            found = "none of them" if not any(given) else "more than one"
            raise ValueError(
                f"time holds {found}; wanted exactly one of series: true, composite: …, single: …, back: …, pair: …, "
                "phenology: …"
            )
        if (self.composite == "days") != (self.days is not None):
            raise ValueError("'days: N' and 'composite: days' belong together; wanted both or neither")
        for option in ("days", "back", "count", "every_days", "within_days", "max_dates"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ValueError(f"{option} is {value}, wanted at least 1")
        if self.how is not None and self.composite is None:
            raise ValueError(f"'how: {self.how}' is for composites; remove it or ask for composite: …")
        if self.max_dates is not None and not self.series:
            raise ValueError("'max_dates' is for series; remove it or ask for series: true")
        if self.complete and not self.picked:
            raise ValueError("'complete' is for back, pair and phenology; remove it")
        self._check_date()
        self._check_steps()

    def _check_date(self) -> None:
        wanted = {"single: nearest": self.single == "nearest", "back": self.back, "pair: event": self.pair == "event"}
        if self.dates is not None and (self.date is not None or not any(wanted.values())):
            raise ValueError(
                "'dates' stands in place of 'date', with single: nearest, back or pair: event; remove one of them"
            )
        for option, asked in wanted.items():
            if asked and self.date is None and self.dates is None:
                raise ValueError(f"'date: …' and '{option}' belong together; say the day")
        if self.date is not None and not any(wanted.values()) and self.composite != "days":
            raise ValueError(
                "'date: …' and 'single: nearest' (or back, pair: event, composite: days) belong together; wanted both "
                "or neither"
            )
        if self.count is not None and (self.date is None or self.composite != "days"):
            raise ValueError("'count' is for composite: days around a date; say 'date: …' too, or remove it")
        if self.within_days is not None and self.pair != "event":
            raise ValueError("'within_days' is for pair: event; remove it")

    def _check_steps(self) -> None:
        if (self.back is not None) != (self.every_days is not None):
            raise ValueError("'back: N' and 'every_days: N' belong together; wanted both or neither")
        if self.back is None and self.tolerance_days != 5:
            raise ValueError("'tolerance_days' is for back; remove it")
        if self.every_days is None:
            return
        if not 0 <= 2 * self.tolerance_days < self.every_days:
            raise ValueError(
                f"tolerance_days is {self.tolerance_days} with steps of {self.every_days} days, so that one date could "
                "stand for two; wanted 0 or more, and less than half a step"
            )

    @property
    def picked(self) -> bool:
        """Whether each place on the time axis is one date that a chip picks from a window of its own."""
        return self.back is not None or self.pair is not None or self.phenology is not None

    @property
    def by_chip(self) -> bool:
        """Whether each chip has windows of its own, which are not known from the recipe alone."""
        return self.dates is not None or self.phenology is not None

    def how_for(self, kind: str) -> How:
        """How a composite of this kind of band is made when the recipe does not say."""
        # The mean is what reduces speckle without bias in linear power; for reflectance the median throws out the
        # clouds that the mask has missed.
        return self.how or ("mean" if kind == "backscatter" else "median")


@dataclass(frozen=True, slots=True)
class KeepSpec:
    """Which dates of a chip are worth keeping."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    min_clear: Annotated[float, annotated_types.Interval(ge=0, le=1)] = 0.0
    """Share of the chip's pixels that must be clear, or the date is not used for this chip."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_clear <= 1:
            raise ValueError(f"min_clear is {self.min_clear}, wanted a share from 0 to 1")


@dataclass(frozen=True, slots=True)
class Pick:
    """One place on the time axis that holds one date of a chip."""

    choose: Choose
    role: str
    """What the date stands for: ``before``, ``cloudy``, ``60 days back``; empty for single dates."""
    target: dt.datetime | None = None
    """What ``nearest`` looks for."""


def picks(spec: TimeSpec) -> tuple[Pick, ...]:
    """The places on the axis of single and picked dates, in order; none for series and composites."""
    target = None if spec.date is None else _day(spec.date) + dt.timedelta(hours=12)
    if spec.single is not None:
        return (Pick(spec.single, "", target),)
    if spec.back is not None:
        assert spec.every_days is not None  # __post_init__
        return tuple(Pick("clearest", f"{step * spec.every_days} days back") for step in reversed(range(spec.back)))
    if spec.pair == "event":
        return (Pick("nearest", "before", target), Pick("nearest", "after", target))
    if spec.pair == "clarity":
        return (Pick("clearest", "clear"), Pick("cloudiest", "cloudy"))
    if spec.phenology is not None:
        return tuple(Pick("nearest", season) for season in SEASONS)
    return ()


@dataclass(frozen=True, slots=True)
class DateSlot:
    """Where one chip looks for the date of one place on its axis: in any of the windows, each with its target."""

    windows: tuple[Interval, ...]
    targets: tuple[dt.datetime, ...]
    """What ``nearest`` looks for in each window."""

    def away(self, moment: dt.datetime) -> dt.timedelta | None:
        """How far a moment is from the target of its window; None where it is in no window."""
        found = [abs(moment - to) for window, to in zip(self.windows, self.targets, strict=True) if moment in window]
        return min(found, default=None)


def record_slots(interval: Interval, spec: TimeSpec, day: dt.date) -> tuple[DateSlot, ...] | None:
    """The slots of a chip whose record is of this day; None where one lies outside of the interval."""
    own = replace(spec, date=day, dates=None)
    try:
        windows = periods(interval, own)
    except ValueError:
        return None
    targets = [pick.target or window.start for pick, window in zip(picks(own), windows, strict=True)]
    return tuple(DateSlot((window,), (target,)) for window, target in zip(windows, targets, strict=True))


def season_slots(interval: Interval, turns: Sequence[dt.date]) -> tuple[DateSlot, ...]:
    """The slots for spring, summer, autumn and winter, in every year of the interval.

    After SSL4Eco (Plekhanova et al. 2025), which looks near the middle of each season in any year.

    Args:
        interval: The recipe's time.
        turns: Days on which a chip's spring, summer, autumn and winter begin, rising, within a year. A season lasts
            until the next, winter until the spring after it.
    """
    slots = []
    for season in range(4):
        windows, targets = [], []
        for year in range(interval.start.year - 2, interval.end.year + 2):
            starts = [_moved(turn, year - turns[0].year) for turn in (*turns, _moved(turns[0], 1).date())]
            start, end = starts[season], starts[season + 1]
            if start < interval.end and end > interval.start:
                windows.append(Interval(max(start, interval.start), min(end, interval.end)))
                targets.append(start + (end - start) / 2)
        slots.append(DateSlot(tuple(windows), tuple(targets)))
    return tuple(slots)


def _moved(day: dt.date, years: int) -> dt.datetime:
    """The same day of the year so many years later."""
    return _day(dt.date(day.year + years, 1, 1) + (day - dt.date(day.year, 1, 1)))


def periods(interval: Interval, spec: TimeSpec) -> tuple[Interval, ...]:
    """The periods of a composite, in order and without gaps; the first and last are cut to the interval.

    For picked dates the window of each of ``picks``; the whole interval where every chip has its own. One period, the
    interval itself, for series and single dates.

    Raises:
        ValueError: A period around a date, or a window of picked dates, has no time in the interval.
    """
    if spec.by_chip:
        return (interval,) * len(picks(spec))
    if spec.picked:
        return tuple(_cut(window, interval) for window in _windows(interval, spec))
    if spec.composite is None:
        return (interval,)
    if spec.date is not None:
        assert spec.days is not None  # __post_init__
        count = spec.count or 1
        first = _day(spec.date) - dt.timedelta(days=spec.days * count // 2)
        edges = [first + dt.timedelta(days=spec.days * step) for step in range(count + 1)]
        return tuple(_cut((a, b), interval) for a, b in itertools.pairwise(edges))
    edges = [interval.start]
    while edges[-1] < interval.end:
        edges.append(min(_next_edge(edges[-1], spec), interval.end))
    return tuple(Interval(a, b) for a, b in itertools.pairwise(edges))


def _windows(interval: Interval, spec: TimeSpec) -> list[tuple[dt.datetime, dt.datetime]]:
    """Start and end of the window of each pick."""
    if spec.pair == "clarity":
        return [(interval.start, interval.end)] * 2
    assert spec.date is not None  # __post_init__
    day, one = _day(spec.date), dt.timedelta(days=1)
    if spec.pair == "event":
        # What is seen on the day itself may be before or after: who knows the hour of a storm says another day.
        if not interval.start < day < day + one < interval.end:
            raise ValueError(f"the event of {spec.date} has no time on both sides in {interval}; take a longer time")
        far = None if spec.within_days is None else dt.timedelta(days=spec.within_days)
        return [
            (interval.start if far is None else day - far, day),
            (day + one, interval.end if far is None else day + one + far),
        ]
    assert spec.back is not None  # __post_init__
    assert spec.every_days is not None
    days = [day - dt.timedelta(days=step * spec.every_days) for step in reversed(range(spec.back))]
    far = dt.timedelta(days=spec.tolerance_days)
    return [(day - far, day + far + one) for day in days]


def _cut(window: tuple[dt.datetime, dt.datetime], interval: Interval) -> Interval:
    start, end = max(window[0], interval.start), min(window[1], interval.end)
    if not start < end:
        raise ValueError(
            f"{_short(window[0])}/{_short(window[1])} is wanted on the time axis and lies outside {interval}; take a "
            "longer time, or another date"
        )
    return Interval(start, end)


def period_names(spans: Sequence[Interval], spec: TimeSpec) -> tuple[str, ...]:
    """What each season is called, with its year: ``DJF 2019`` (its January's), ``2018-Q2``, ``June solstice 2018``.

    Empty for periods that their dates tell well enough.
    """
    if spec.composite not in ("seasonal", "astronomical", "quarterly"):
        return ()
    names = []
    for span in spans:
        year, month = span.start.year, span.start.month
        if spec.composite == "quarterly":
            names.append(f"{year}-Q{(month + 2) // 3}")
        elif spec.composite == "seasonal":
            names.append(f"{('DJF', 'MAM', 'JJA', 'SON')[month % 12 // 3]} {year + (month == 12)}")
        else:
            passed = [number for number, day in enumerate(_TURNS) if (month, span.start.day) >= day]
            # Before March it is still the season that began in December of the year before.
            names.append(f"{_TURN_NAMES[passed[-1]]} {year}" if passed else f"{_TURN_NAMES[-1]} {year - 1}")
    return tuple(names)


# (month, day) on which astronomical seasons begin: those of 2021 in UTC, fixed for all years as in SSL4EO-S12 (Wang et
# al. 2023), which names them; in other years of this century the sun is up to a day and a half away from them.
_TURNS = ((3, 20), (6, 21), (9, 22), (12, 21))
_TURN_NAMES = ("March equinox", "June solstice", "September equinox", "December solstice")


def _day(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _next_edge(moment: dt.datetime, spec: TimeSpec) -> dt.datetime:
    """First edge of a period after a moment."""
    if spec.composite == "days":
        assert spec.days is not None  # __post_init__
        return moment + dt.timedelta(days=spec.days)
    if spec.composite == "yearly":
        return dt.datetime(moment.year + 1, 1, 1, tzinfo=dt.UTC)
    if spec.composite == "astronomical":
        turns = [_day(dt.date(year, *day)) for year in (moment.year, moment.year + 1) for day in _TURNS]
        return next(turn for turn in turns if turn > moment)
    # Months since the year 0. Meteorological seasons (DJF, MAM, JJA, SON) begin one month before a whole quarter.
    step, early = {"seasonal": (3, 1), "quarterly": (3, 0), "monthly": (1, 0)}[spec.composite or "monthly"]
    month = moment.year * 12 + moment.month - 1
    month += step - (month + early) % step
    return dt.datetime(month // 12, month % 12 + 1, 1, tzinfo=dt.UTC)
