"""Coverage of a place by clear dates: the definition of the paper, on numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cube.coverage import Counts, CoverageSpec, count_clear, coverage, label_set, of_chip, of_region

SERIES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(4), st.just(6)), elements=st.integers(0, 11))


@pytest.mark.parametrize(
    ("sc", "above", "tc", "spatial", "temporal"),
    [(81.87, 30, 78.95, "high", "high"), (73.21, 23, 60.53, "high", "low"), (61.21, 18, 47.37, "low", "low")],
)
def test_the_published_examples_come_out(sc: float, above: int, tc: float, spatial: str, temporal: str) -> None:
    # 38 dates of 100,000 pixels: as many above the threshold of 70 % as published, with the published mean.
    share = np.where(np.arange(38) < above, 90.0, 0.0)
    rest = sc * 38 - share.sum()
    if rest > 0:
        share[above:] = rest / (38 - above)
    else:
        share[:above] = sc * 38 / above
    assert (share[:above] >= 70).all()
    assert (share[above:] < 70).all()
    counts = Counts(np.rint(share * 1000).astype(np.int64), 100_000)
    found = coverage(counts)
    assert CoverageSpec(profile="paper_a").of(counts) == found, "the recipe's thresholds are those published"
    assert found.spatial_pct == pytest.approx(sc, abs=0.005)
    assert round(found.temporal_pct, 2) == tc
    assert (found.spatial, found.temporal) == (spatial, temporal)
    assert (found.num_timesteps, found.num_timesteps_above, found.num_timesteps_not_full) == (38, above, 38)


@given(SERIES, st.sampled_from(["paper_a", "paper_b", "strict"]))
def test_a_date_is_the_percentage_of_its_pixels_in_the_set(scl: np.ndarray, name: str) -> None:
    labels = label_set(name)
    counts = count_clear(scl, labels)
    assert counts.pixels == 24
    assert counts.clear.tolist() == [sum(int(code) in labels for code in date.flat) for date in scl]


def test_the_paper_calls_void_cirrus_and_snow_clean_and_the_default_does_not() -> None:
    scl = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    assert count_clear(scl, label_set("paper_a")).clear.tolist() == [9]
    assert count_clear(scl).clear.tolist() == [4]
    assert count_clear(scl, label_set(snow=True, dark=True)).clear.tolist() == [6]
    with pytest.raises(ValueError, match="known are paper_a"):
        label_set("paper_c")


@given(SERIES, hnp.arrays(bool, (4, 6)))
def test_only_pixels_inside_the_boundary_count(scl: np.ndarray, inside: np.ndarray) -> None:
    counts = count_clear(scl, inside=inside)
    assert counts.pixels == inside.sum()
    assert counts.clear.tolist() == np.isin(scl[:, inside], [4, 5, 6, 7]).sum(axis=1).tolist()


@given(SERIES, st.sampled_from(["paper_a", "paper_b", "strict"]), st.data())
def test_a_region_counts_a_date_that_a_chip_has_not_seen_as_void_there(
    scl: np.ndarray, name: str, data: st.DataObject
) -> None:
    labels = label_set(name)
    halves = [scl[:, :, :3], scl[:, :, 3:]]
    for half in halves:
        half[data.draw(hnp.arrays(bool, len(scl)))] = 0
    seen = [[t for t in range(len(scl)) if half[t].any()] for half in halves]
    chips = [
        {f"S2_{t}": int(count_clear(half, labels).clear[t]) for t in dates}
        for half, dates in zip(halves, seen, strict=True)
    ]
    dates, counts = of_region(chips, 12, labels)
    both = sorted({*seen[0], *seen[1]})
    assert list(dates) == [f"S2_{t}" for t in both]
    assert counts.pixels == 24
    assert counts.clear.tolist() == count_clear(scl[both], labels).clear.tolist()
    alone = of_chip(chips[0], 12)
    assert (alone.clear.tolist(), alone.pixels) == (count_clear(halves[0][seen[0]], labels).clear.tolist(), 12)


def test_no_dates_are_no_coverage() -> None:
    nothing = coverage(count_clear(np.zeros((0, 2, 2), np.uint8)))
    assert np.isnan(nothing.spatial_pct)
    assert (nothing.spatial, nothing.temporal, nothing.num_timesteps) == ("low", "low", 0)
    assert of_region([{}, {}], 4, label_set())[1].clear.tolist() == []
