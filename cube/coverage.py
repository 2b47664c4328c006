"""How much of a place is seen, and how often: spatial and temporal coverage by the scene classification.

The metric of Sanchez et al. (sits-s2coverage): for each date the share of clear pixels, over all dates the share of
dates that are clear enough. Their label sets call void, saturated, cirrus and snow clean; ours, the default, does not.
Counts of chips add up, so a region is measured from its chips without reading it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LABEL_SETS: dict[str, frozenset[int]] = {
    # All but cloud shadow and cloud of medium and high probability; void counts as clean here.
    "paper_a": frozenset({0, 1, 2, 4, 5, 6, 7, 10, 11}),
    "paper_b": frozenset({4, 5}),
    "strict": frozenset({4, 5, 6, 7}),
}
"""Codes of the scene classification that count as clear."""

SNOW, DARK, VOID = 11, 2, 0


@dataclass(frozen=True, slots=True)
class CoverageSpec:
    """Whether and how it is measured how much of a place is seen, over all its dates, also those that are not kept."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    profile: Literal["strict", "paper_a", "paper_b"] = "strict"
    """Classes that count as clear: vegetation, bare, water and unclassified (`strict`); all but cloud shadow and cloud,
    so void and cirrus too (`paper_a`); vegetation and bare (`paper_b`)."""
    sc_min_pct: Annotated[float, annotated_types.Ge(0), annotated_types.Le(100)] = 70.0
    """Percentage of clear pixels from which a date counts, and from which spatial coverage is called high."""
    tc_min_pct: Annotated[float, annotated_types.Ge(0), annotated_types.Le(100)] = 70.0
    """Percentage of such dates from which temporal coverage is called high."""
    snow: bool = False
    """Snow counts as clear as well."""
    dark: bool = False
    """Dark areas count as clear as well."""

    @property
    def labels(self) -> frozenset[int]:
        """Codes of the scene classification that count as clear."""
        return label_set(self.profile, snow=self.snow, dark=self.dark)

    def of(self, counts: Counts) -> Coverage:
        """The coverage of a chip or a region, held against the thresholds."""
        return coverage(counts, spatial_pct=self.sc_min_pct, temporal_pct=self.tc_min_pct)


@dataclass(frozen=True, slots=True)
class Counts:
    """Clear pixels of each date, int64 of dims ``(time,)``, and how many pixels there are."""

    clear: npt.NDArray[np.int64]
    pixels: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage of a chip or a region over its dates."""

    spatial_pct: float
    """SC: mean over the dates of the percentage of clear pixels; NaN without dates or pixels."""
    temporal_pct: float
    """TC: percentage of the dates whose own percentage reaches the spatial threshold; NaN likewise."""
    spatial: Literal["high", "low"]
    temporal: Literal["high", "low"]
    num_timesteps: int
    num_timesteps_above: int
    num_timesteps_not_full: int
    """Dates with any pixel that is not clear."""


def label_set(name: str = "strict", *, snow: bool = False, dark: bool = False) -> frozenset[int]:
    """Codes that count as clear: a set of ``LABEL_SETS``, with snow (11) and dark areas (2) on request.

    Raises:
        ValueError: There is no such set.
    """
    if name not in LABEL_SETS:
        raise ValueError(f"'{name}' is not a set of clear classes; known are {', '.join(LABEL_SETS)}")
    return LABEL_SETS[name] | ({SNOW} if snow else set()) | ({DARK} if dark else set())


def count_clear(
    scl: npt.NDArray[np.uint8],
    labels: frozenset[int] = LABEL_SETS["strict"],
    inside: npt.NDArray[np.bool_] | None = None,
) -> Counts:
    """Clear pixels of each date.

    Args:
        scl: Scene classification, dims ``(time, y, x)``.
        labels: Codes that count as clear.
        inside: Dims ``(y, x)``; True on the pixels that are measured. None: all.
    """
    import numpy as np

    good = np.zeros(256, bool)
    good[sorted(labels)] = True
    clear = good[scl]
    if inside is not None:
        clear &= inside
    pixels = int(np.prod(scl.shape[1:])) if inside is None else int(np.count_nonzero(inside))
    return Counts(np.count_nonzero(clear, axis=(1, 2)).astype(np.int64), pixels)


def of_chip(clear_px: Mapping[str, int], pixels: int) -> Counts:
    """Counts of one chip of so many pixels, from the clear pixels of each date that was seen there."""
    import numpy as np

    return Counts(np.array([clear_px[date] for date in sorted(clear_px)], np.int64), pixels)


def of_region(
    chips: Sequence[Mapping[str, int]], pixels: int, labels: frozenset[int]
) -> tuple[tuple[str, ...], Counts]:
    """Dates seen on any chip, sorted, and the counts of all chips together over these dates.

    A chip that a date has not seen is void on it, so its pixels are clear only where void counts as clear.

    Args:
        chips: For each chip the clear pixels of each date that was seen there.
        pixels: How many pixels a chip has.
        labels: Codes that count as clear.
    """
    import numpy as np

    dates = tuple(sorted({date for chip in chips for date in chip}))
    unseen = pixels if VOID in labels else 0
    clear = [sum(chip.get(date, unseen) for chip in chips) for date in dates]
    return dates, Counts(np.array(clear, np.int64), pixels * len(chips))


def coverage(counts: Counts, *, spatial_pct: float = 70, temporal_pct: float = 70) -> Coverage:
    """Spatial and temporal coverage; high where a threshold in percent is reached."""
    import numpy as np

    n = len(counts.clear)
    if n == 0 or counts.pixels == 0:
        return Coverage(float("nan"), float("nan"), "low", "low", n, 0, n)
    share = 100 * counts.clear / counts.pixels
    above = int(np.count_nonzero(share >= spatial_pct))
    sc, tc = float(share.mean()), 100 * above / n
    return Coverage(
        spatial_pct=sc,
        temporal_pct=tc,
        spatial="high" if sc >= spatial_pct else "low",
        temporal="high" if tc >= temporal_pct else "low",
        num_timesteps=n,
        num_timesteps_above=above,
        num_timesteps_not_full=int(np.count_nonzero(counts.clear != counts.pixels)),
    )
