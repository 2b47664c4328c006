"""Samplers: the same chips whatever their order, never more than there are, and as many of each kind as was asked."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyproj import Geod

from curate.errors import RecipeError
from tiling.aoi import Aoi
from tiling.grid import Chip, GridSpec, centres, footprints, lay_chips
from tiling.layers import Shares
from tiling.sample import (
    Taken,
    take_balanced,
    take_categories,
    take_cities,
    take_distinct,
    take_landcover,
    take_positives,
    take_strata,
    take_uniform,
    uniforms,
)
from tiling.sample_spec import (
    BalancedSample,
    CitySample,
    DistinctSample,
    LandCoverSample,
    OsmSample,
    PositiveSample,
    StrataSample,
    UniformSample,
)

GEOD = Geod(ellps="WGS84")
NAMES = ("a", "b", "c", "d")


@lru_cache
def area(width: float = 0.3, height: float = 0.2, size_px: int = 64) -> tuple[Chip, ...]:
    # Across the border of two zones.
    return lay_chips(Aoi("area", shapely.box(17.9, 48.0, 17.9 + width, 48.0 + height)), GridSpec(size_px=size_px))[0]


def world(chips: tuple[Chip, ...], seed: int) -> dict[str, Any]:
    """What layers might say about each chip, by its name alone, so that it goes with it in any order."""
    shares = np.stack([uniforms(chips, seed, name) ** 6 for name in NAMES], axis=1)
    shares /= np.maximum(1, shares.sum(axis=1))[:, None]
    shares[uniforms(chips, seed, "void") < 0.1] = 0
    return {
        "land": uniforms(chips, seed, "land"),
        "shares": Shares(NAMES, shares),
        "positive": uniforms(chips, seed, "positive") < 0.05,
        "pixels": np.floor(np.stack([uniforms(chips, seed, str(i)) * 2 for i in range(4)], axis=1)).astype("uint8"),
        "known": np.repeat(uniforms(chips, seed, "known")[:, None] > 0.2, 4, axis=1),
    }


CITIES = geopandas.GeoDataFrame(
    {"name": ["Big", "Small"], "people": [900_000, 100_000]},
    geometry=geopandas.points_from_xy([18.0, 18.15], [48.1, 48.15]),
    crs=4326,
)
METHODS: dict[str, Callable[[tuple[Chip, ...], dict[str, Any], int, int], Taken]] = {
    "uniform": lambda chips, w, n, seed: take_uniform(chips, UniformSample("uniform", n=n, seed=seed)),
    "land": lambda chips, w, n, seed: take_uniform(
        chips, UniformSample("uniform", n=n, land="x", seed=seed), w["land"]
    ),
    "lattice": lambda chips, w, n, seed: take_uniform(chips, UniformSample("uniform", n=n, every_km=2, seed=seed)),
    "cities": lambda chips, w, n, seed: take_cities(
        chips, CitySample("cities", "x", n, weight="people", name="name", sigma_km=5, seed=seed), CITIES
    ),
    "strata": lambda chips, w, n, seed: take_strata(
        chips, StrataSample("strata", raster="x", n=n, seed=seed), w["shares"]
    ),
    "kmeans": lambda chips, w, n, seed: take_landcover(
        chips, LandCoverSample("landcover", "x", "kmeans", n=n, min_known=0.1, seed=seed), w["shares"]
    ),
    "entropy": lambda chips, w, n, seed: take_landcover(
        chips, LandCoverSample("landcover", "x", "entropy", n=n, min_known=0.1, seed=seed), w["shares"]
    ),
    "quota": lambda chips, w, n, seed: take_landcover(
        chips, LandCoverSample("landcover", "x", each=n, min_known=0.1, seed=seed), w["shares"]
    ),
    "positives": lambda chips, w, n, seed: take_positives(
        chips, PositiveSample("positives", "x", n=n, hard=1, hard_km=1.5, seed=seed), w["positive"]
    ),
    "balanced": lambda chips, w, n, seed: take_balanced(
        chips, BalancedSample("balanced", n, raster="x", seed=seed), w["shares"]
    ),
    "distinct": lambda chips, w, n, seed: take_distinct(
        chips, DistinctSample("distinct", "x", within_km=3, seed=seed), w["pixels"], w["known"]
    ),
}  # fmt: skip


def told(chips: tuple[Chip, ...], taken: Taken) -> dict[Chip, tuple[str, float]]:
    return {
        chips[at]: (by, round(float(weight), 9))
        for at, by, weight in zip(taken.index.tolist(), taken.by, np.nan_to_num(taken.weight), strict=True)
    }


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**9), n=st.integers(1, 400))
@example(seed=202492, n=289)  # sums of shares once differed in their last bit
@settings(max_examples=4)
def test_the_same_chips_are_taken_in_any_order(method: str, seed: int, n: int) -> None:
    chips = area(0.2, 0.1)
    once = METHODS[method](chips, world(chips, seed), n, seed)
    assert len(once.index) == len(once.by) == len(once.weight) == len(set(once.index.tolist()))
    assert (np.diff(once.index) > 0).all()
    assert (np.isnan(once.weight) | (once.weight >= 1 - 1e-9)).all()
    for group in once.groups.values():
        assert group.taken <= min(group.wanted, group.candidates)
        assert group.taken == min(group.wanted, group.candidates) or method == "cities"
    mixed = tuple(random.Random(seed).sample(chips, len(chips)))
    assert told(mixed, METHODS[method](mixed, world(mixed, seed), n, seed)) == told(chips, once)


@given(seed=st.integers(0, 10**9), n=st.integers(1, 200))
@settings(max_examples=8)
def test_a_larger_sample_has_all_chips_of_a_smaller_one(seed: int, n: int) -> None:
    chips = area()
    few, more = (take_uniform(chips, UniformSample("uniform", n=m, seed=seed)).index for m in (n, n + 50))
    assert set(few.tolist()) <= set(more.tolist())


def test_another_seed_takes_other_chips() -> None:
    chips = area()
    a, b = (set(take_uniform(chips, UniformSample("uniform", n=50, seed=seed)).index.tolist()) for seed in (1, 2))
    assert len(a & b) < 25


def test_a_uniform_sample_is_as_dense_in_each_part_of_the_area() -> None:
    chips = area(0.8, 0.5)
    drawn = [take_uniform(chips, UniformSample("uniform", n=400, seed=seed)).index for seed in range(8)]
    lon, lat = centres(chips)
    west, south = lon < np.median(lon), lat < np.median(lat)
    for part in (west & south, west & ~south, ~west & south, ~west & ~south):
        expected = 400 * part.mean()
        found = np.mean([part[index].sum() for index in drawn])
        assert abs(found - expected) < 4 * np.sqrt(expected / len(drawn))


def test_a_lattice_keeps_its_spacing_and_its_chips_when_the_area_grows() -> None:
    spec = UniformSample("uniform", every_km=5)
    small, large = area(0.3, 0.2), area(0.6, 0.4)
    few = {small[at] for at in take_uniform(small, spec).index.tolist()}
    chosen = [large[at] for at in take_uniform(large, spec).index.tolist()]
    assert few <= set(chosen)
    assert 0.7 * len(large) * 0.64**2 / 25 < len(chosen) < 1.3 * len(large) * 0.64**2 / 25
    lon, lat = centres(chosen)
    for at in range(len(chosen)):
        others = np.arange(len(chosen)) != at
        here = np.full(others.sum(), lon[at]), np.full(others.sum(), lat[at])
        away = GEOD.inv(here[0], here[1], lon[others], lat[others])[2]
        # Between rows of different numbers of columns points may come nearer than along a row; never than a row.
        assert away.min() > 4_000


def test_the_weights_of_a_draw_sum_to_the_candidates() -> None:
    chips = area()
    for method in ("uniform", "strata", "kmeans", "distinct"):
        layers = world(chips, 3)
        taken = METHODS[method](chips, layers, 40, 3)
        known = {"strata": layers["shares"].values.any(axis=1).sum(),
                 "kmeans": (layers["shares"].values.sum(axis=1) >= 0.1).sum()}.get(method, len(chips))  # fmt: skip
        assert taken.weight.sum() == pytest.approx(known)


def test_cities_are_drawn_by_their_people_and_left_by_a_gaussian() -> None:
    chips = area(0.8, 0.5)
    apart = geopandas.GeoDataFrame(
        {"name": ["Big", "Small"], "people": [900_000, 100_000]},
        geometry=geopandas.points_from_xy([18.1, 18.5], [48.25, 48.25]),
        crs=4326,
    )
    spec = CitySample("cities", "x", 150, weight="people", name="name", sigma_km=4.0, seed=4)
    taken = take_cities(chips, spec, apart)
    by = Counter(taken.by)
    assert set(by) == {"around city Big", "around city Small"}
    assert 3.5 < by["around city Big"] / by["around city Small"] < 20
    lon, lat = (degrees[taken.index] for degrees in centres(chips))
    big = np.array([one == "around city Big" for one in taken.by])
    azimuth, _, metres = GEOD.inv(np.full(big.sum(), 18.1), np.full(big.sum(), 48.25), lon[big], lat[big])
    east, north = metres * np.sin(np.radians(azimuth)), metres * np.cos(np.radians(azimuth))
    # No chip twice, so the middle thins out and the spread is a little wider than sigma; alike in both directions.
    assert 3500 < east.std() < 6500
    assert 3500 < north.std() < 6500
    assert abs(east.mean()) < 1500
    assert abs(north.mean()) < 1500


def test_chips_around_cities_keep_apart_and_a_full_area_is_a_recorded_shortfall() -> None:
    chips = area()
    spec = CitySample("cities", "x", 500, sigma_km=20, apart_km=3, seed=4)
    taken = take_cities(chips, spec, CITIES)
    lon, lat = (degrees[taken.index] for degrees in centres(chips))
    first, second = np.triu_indices(len(lon), 1)
    assert GEOD.inv(lon[first], lat[first], lon[second], lat[second])[2].min() > 2_980
    assert taken.short == (f"cities: {len(taken.index)} of 500 wanted chips, there are no more",)
    assert len(taken.index) > 20


def test_only_the_largest_cities_count_when_so_asked() -> None:
    spec = CitySample("cities", "x", 20, weight="people", largest=1, name="name", sigma_km=3)
    assert set(take_cities(area(), spec, CITIES).by) == {"around city Big"}


@given(sizes=st.lists(st.integers(0, 60), min_size=4, max_size=4), n=st.integers(1, 150))
@settings(max_examples=15)
def test_strata_share_a_number_evenly_and_what_one_lacks_goes_to_the_others(sizes: list[int], n: int) -> None:
    chips = area()[: sum(sizes)]
    which = np.repeat(np.arange(4), sizes)
    taken = take_strata(chips, StrataSample("strata", raster="x", n=n), Shares(NAMES, np.eye(4)[which]))
    assert len(taken.index) == min(n, len(chips))
    given_ = {NAMES[at]: count for at, count in Counter(which[taken.index].tolist()).items()}
    level = max(given_.values(), default=0)
    for name, size in zip(NAMES, sizes, strict=True):
        assert given_.get(name, 0) >= min(size, level - 1)
    assert bool(taken.short) == (0 < len(chips) < n)


def test_a_quota_that_is_larger_than_its_stratum_is_told_and_not_filled_from_others() -> None:
    chips = area()[:30]
    shares = Shares(("dry", "wet"), np.eye(2)[np.repeat([0, 1], [25, 5])])
    spec = StrataSample("strata", raster="x", quota={"wet": 9, "dry": 3, "icy": 2})
    taken = take_strata(chips, spec, shares)
    assert Counter(taken.by) == {"stratum wet": 5, "stratum dry": 3}
    assert taken.short == ("wet: 5 of 9 wanted chips, there are no more", "icy: 0 of 2 wanted chips, there are no more")
    assert taken.weight.tolist() == [25 / 3] * 3 + [1.0] * 5


def test_kmeans_takes_a_chip_of_every_kind_of_cover() -> None:
    """Nine in ten chips are of one kind, and three other kinds are rare: chance would miss them."""
    chips = area()
    kind = np.where(uniforms(chips, 0, "kind") < 0.97, 0, 1 + np.floor(uniforms(chips, 0, "rare") * 3)).astype(int)
    noise = np.stack([uniforms(chips, 0, name) for name in NAMES], axis=1) * 0.05
    cover = np.eye(4)[kind] + noise
    cover /= cover.sum(axis=1, keepdims=True)
    assert all((kind == rare).sum() < 20 for rare in (1, 2, 3))
    taken = take_landcover(chips, LandCoverSample("landcover", "x", "kmeans", n=12), Shares(NAMES, cover))
    assert len(taken.index) == 12
    assert set(kind[taken.index].tolist()) == {0, 1, 2, 3}


def test_clusters_of_alike_chips_still_give_the_number_asked() -> None:
    chips = area()[:200]
    cover = np.eye(4)[np.arange(200) % 2]
    taken = take_landcover(chips, LandCoverSample("landcover", "x", "kmeans", n=10), Shares(NAMES, cover))
    assert len(taken.index) == 10
    assert Counter((taken.index % 2).tolist()) == {0: 5, 1: 5}


def test_entropy_takes_the_purest_or_the_most_mixed_by_the_formula() -> None:
    chips = area()
    cover = np.stack([uniforms(chips, 1, name) for name in NAMES], axis=1)
    cover /= cover.sum(axis=1, keepdims=True)
    bits = -(cover * np.log2(cover)).sum(axis=1)
    for mixed in (False, True):
        spec = LandCoverSample("landcover", "x", "entropy", n=25, mixed=mixed)
        taken = take_landcover(chips, spec, Shares(NAMES, cover))
        best = np.argsort(-bits if mixed else bits)[:25]
        assert set(taken.index.tolist()) == set(best.tolist())


def test_a_category_gets_its_own_draw_and_a_chip_may_serve_several() -> None:
    chips = area()
    has = np.stack(
        [uniforms(chips, 2, name) < share for name, share in zip(NAMES, (0.9, 0.5, 0.02, 0), strict=True)], 1
    )
    spec = OsmSample("osm", "x", each=20)
    taken = take_categories(chips, Shares(NAMES, has.astype(float)), each=spec.each, quota={}, seed=0)
    for place, name in enumerate(NAMES[:3]):
        drawn = [at for at, by in zip(taken.index.tolist(), taken.by, strict=True) if name in by[9:].split(", ")]
        assert len(drawn) == min(20, has[:, place].sum())
        assert has[drawn, place].all()
    assert set(taken.groups) == {"a", "b", "c"}


def test_negatives_are_as_many_and_as_far_as_asked_and_hard_ones_are_near() -> None:
    chips = area()
    positive = uniforms(chips, 5, "p") < 0.02
    spec = PositiveSample("positives", "x", negatives=2, hard=1.5, hard_km=1.0, apart_km=2.5)
    taken = take_positives(chips, spec, positive)
    by = np.array(taken.by)
    count = int(positive.sum())
    assert count > 5
    assert Counter(taken.by) == {
        "positive": count, "random negative": 2 * count, "hard negative": round(1.5 * count)
    }  # fmt: skip
    lon, lat = centres(chips)
    yes = np.flatnonzero(positive)

    def nearest(index: int) -> float:
        return float(
            GEOD.inv(np.full(len(yes), lon[index]), np.full(len(yes), lat[index]), lon[yes], lat[yes])[2].min()
        )

    assert set(taken.index[by == "positive"].tolist()) == set(yes.tolist())
    assert min(nearest(at) for at in taken.index[by == "random negative"].tolist()) > 2_480
    hard = [nearest(at) for at in taken.index[by == "hard negative"].tolist()]
    assert min(hard) > 0
    assert max(hard) < 1_010


def test_features_that_look_alike_make_hard_negatives_but_never_of_a_positive() -> None:
    chips = area()[:100]
    positive, alike = np.arange(100) < 10, np.arange(100) < 14
    spec = PositiveSample("positives", "x", negatives=0, hard=1, hard_vector="y")
    taken = take_positives(chips, spec, positive, alike)
    assert taken.index.tolist() == list(range(14))
    assert taken.short == ("hard negative: 4 of 10 wanted chips, there are no more",)


def test_a_balanced_draw_evens_out_the_classes_and_follows_their_weights() -> None:
    chips = area(0.8, 0.5)
    kind = np.searchsorted([0.85, 0.95, 0.99], uniforms(chips, 6, "kind"))
    shares = Shares(NAMES, np.eye(4)[kind])
    even = Counter(kind[take_balanced(chips, BalancedSample("balanced", 60, raster="x"), shares).index].tolist())
    assert all(8 <= even[at] <= 24 for at in range(4)), even
    spec = BalancedSample("balanced", 60, raster="x", weights={"a": 3, "d": 0})
    some = Counter(kind[take_balanced(chips, spec, shares).index].tolist())
    assert some[3] == 0
    assert some[0] > 25
    with pytest.raises(RecipeError, match="weights has class 'x', which no chip has; found a, b, c, d"):
        take_balanced(chips, BalancedSample("balanced", 60, raster="x", weights={"x": 1}), shares)


def test_of_chips_that_look_the_same_one_stays_and_void_ones_are_like_no_other() -> None:
    chips = area()[:6]
    pixels = np.array([[1, 2], [1, 2], [3, 4], [1, 2], [0, 0], [0, 0]])
    known = np.array([[True, True]] * 4 + [[False, False]] * 2)
    taken = take_distinct(chips, DistinctSample("distinct", "x"), pixels, known)
    assert len(taken.index) == 4
    assert len({0, 1, 3} & set(taken.index.tolist())) == 1
    assert sorted(taken.weight.tolist()) == [1, 1, 1, 3]


@given(seed=st.integers(0, 10**9), tolerance=st.floats(0, 3), within_km=st.floats(0.5, 5))
@settings(max_examples=8)
def test_no_two_chips_that_stay_are_near_and_alike_and_each_that_went_has_a_twin(
    seed: int, tolerance: float, within_km: float
) -> None:
    chips = area()[:120]
    pixels = np.floor(np.stack([uniforms(chips, seed, str(i)) * 5 for i in range(3)], axis=1)).astype("uint8")
    spec = DistinctSample("distinct", "x", tolerance=tolerance, within_km=within_km, seed=seed)
    kept = set(take_distinct(chips, spec, pixels, np.ones(pixels.shape, bool)).index.tolist())
    lon, lat = (np.radians(v) for v in centres(chips))
    xyz = 6_371_000 * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    gap = np.abs(pixels[:, None].astype(float) - pixels[None].astype(float)).mean(axis=2)
    away = np.linalg.norm(xyz[:, None] - xyz[None], axis=2)
    twins = (gap <= tolerance) & (away <= within_km * 1000)
    for at in range(len(chips)):
        others = {other for other in np.flatnonzero(twins[at]).tolist() if other != at}
        assert (at in kept) == (not others & kept)


def test_a_chip_on_the_border_of_lattice_points_is_found_by_its_outline() -> None:
    """Each chip that the lattice takes holds one of its points, as a count over all points tells."""
    chips = area()
    spec = UniformSample("uniform", every_km=3)
    rows = round(np.pi * 6_371_000 / 3000)
    points = []
    for row in range(rows):
        lat = (row + 0.5) * 180 / rows - 90
        if 47.9 < lat < 48.3:
            cols = round(2 * np.pi * 6_371_000 * np.cos(np.radians(lat)) / 3000)
            points += [(lon, lat) for lon in (np.arange(cols) + 0.5) * 360 / cols - 180 if 17.8 < lon < 18.3]
    hit = set(shapely.STRtree(footprints(chips)).query(shapely.points(points), predicate="intersects")[1].tolist())
    assert set(take_uniform(chips, spec).index.tolist()) == hit


# Options


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: UniformSample("uniform"), "say n, every_km or land"),
        (lambda: UniformSample("uniform", n=3, min_land=0.9), "'min_land' is for land"),
        (lambda: CitySample("cities", "x", 3, largest=9), "needs to know by what"),
        (lambda: StrataSample("strata", vector="x", n=3), "'vector' and 'attribute' belong together"),
        (lambda: StrataSample("strata", n=3), "needs one layer"),
        (lambda: StrataSample("strata", raster="x"), "holds none of n, each, quota"),
        (lambda: StrataSample("strata", raster="x", n=1, each=1), "holds n and each"),
        (lambda: StrataSample("strata", raster="x", quota={"a": 0}), "asks for no chip"),
        (lambda: LandCoverSample("landcover", "x", "kmeans"), "needs n"),
        (lambda: LandCoverSample("landcover", "x", n=3, each=2), "'n' is for kmeans"),
        (lambda: LandCoverSample("landcover", "x", "kmeans", n=3, mixed=True), "'mixed' is for"),
        (lambda: OsmSample("osm", "x"), "holds none of each, quota"),
        (lambda: PositiveSample("positives", "x", hard=1), "told by one of"),
        (lambda: PositiveSample("positives", "x", hard_km=1), "say how many"),
        (lambda: BalancedSample("balanced", 3, raster="x", weights={"a": float("nan")}), "weight of 'a'"),
        (lambda: DistinctSample("distinct", "x", tolerance=1), "say within_km"),
    ],
)
def test_options_that_contradict_each_other_are_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    "grid",
    [
        GridSpec(scheme="majortom", size_px=1068),
        GridSpec(scheme="webmercator", zoom=13),
        GridSpec(scheme="mgrs", size_px=128),
        GridSpec(scheme="utm-cells", size_px=128),
    ],
    ids=lambda grid: grid.scheme,
)
def test_chips_of_every_grid_can_be_sampled(grid: GridSpec) -> None:
    chips = lay_chips(Aoi("area", shapely.box(17.7, 48.0, 18.4, 48.5)), grid)[0]
    assert len(chips) > 10
    mixed = tuple(random.Random(1).sample(chips, len(chips)))
    for method in ("uniform", "lattice", "cities", "kmeans", "positives", "distinct"):
        once = METHODS[method](chips, world(chips, 1), 9, 1)
        assert told(mixed, METHODS[method](mixed, world(mixed, 1), 9, 1)) == told(chips, once)
        assert len(once.index)
