"""Which times become the time axis: every date, composites of periods, or one date. UTC, half-open intervals."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import annotated_types

How = Literal["median", "mean", "first", "best"]


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
class TimeSpec:
    """What becomes of time; exactly one of ``series``, ``composite`` and ``single``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    series: bool = False
    """Keep every date that is clear enough, packed to the front of the time axis and padded."""
    composite: Literal["monthly", "seasonal", "yearly", "days"] | None = None
    """One image a period: calendar months, meteorological seasons, calendar years, or every so many ``days``."""
    single: Literal["clearest", "newest", "nearest"] | None = None
    """One date a chip: the clearest, the newest, or the nearest to ``date``."""
    days: Annotated[int, annotated_types.Ge(1)] | None = None
    """Length of a period for ``composite: days``, counted from the start of the recipe's time."""
    how: How | None = None
    """How a composite is made: median, mean, first (the earliest clear observation) or best (from the clearest date
    of the chip). Empty means median for reflectance and mean for backscatter."""
    date: dt.date | None = None
    """The day that ``single: nearest`` looks for."""
    max_dates: Annotated[int, annotated_types.Ge(1)] | None = None
    """Keep at most so many dates of a series a chip: the clearest ones, in order of time."""

    def __post_init__(self) -> None:
        given = [self.series, self.composite is not None, self.single is not None]
        if sum(given) != 1:
            found = "none of them" if not any(given) else "more than one"
            raise ValueError(f"time holds {found}; wanted exactly one of series: true, composite: …, single: …")
        if (self.composite == "days") != (self.days is not None):
            raise ValueError("'days: N' and 'composite: days' belong together; wanted both or neither")
        if self.days is not None and self.days < 1:
            raise ValueError(f"days is {self.days}, wanted at least 1")
        if self.how is not None and self.composite is None:
            raise ValueError(f"'how: {self.how}' is for composites; remove it or ask for composite: …")
        if (self.single == "nearest") != (self.date is not None):
            raise ValueError("'date: …' and 'single: nearest' belong together; wanted both or neither")
        if self.max_dates is not None and not self.series:
            raise ValueError("'max_dates' is for series; remove it or ask for series: true")
        if self.max_dates is not None and self.max_dates < 1:
            raise ValueError(f"max_dates is {self.max_dates}, wanted at least 1")

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


def periods(interval: Interval, spec: TimeSpec) -> tuple[Interval, ...]:
    """The periods of a composite, in order and without gaps; the first and last are cut to the interval.

    One period, the interval itself, when the spec asks for no composite.
    """
    if spec.composite is None:
        return (interval,)
    edges = [interval.start]
    while edges[-1] < interval.end:
        edges.append(min(_next_edge(edges[-1], spec), interval.end))
    return tuple(Interval(a, b) for a, b in itertools.pairwise(edges))


def _next_edge(moment: dt.datetime, spec: TimeSpec) -> dt.datetime:
    """First edge of a period after a moment."""
    if spec.composite == "days":
        assert spec.days is not None  # __post_init__
        return moment + dt.timedelta(days=spec.days)
    if spec.composite == "yearly":
        return dt.datetime(moment.year + 1, 1, 1, tzinfo=dt.UTC)
    # Months since the year 0. Meteorological seasons (DJF, MAM, JJA, SON) begin one month before a whole quarter.
    step, early = (3, 1) if spec.composite == "seasonal" else (1, 0)
    month = moment.year * 12 + moment.month - 1
    month += step - (month + early) % step
    return dt.datetime(month // 12, month % 12 + 1, 1, tzinfo=dt.UTC)
