"""Which of an area's chips are taken, why, and how many there were to choose from.

Every chance hangs on the hash of a chip's name and a seed, so the same chips are taken whatever their order, their
shards and the machine. Nothing here opens a file: what layers say about the chips is handed in.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curate.errors import RecipeError
from tiling.grid import Chip, centres, footprints
from tiling.layers import Shares
from tiling.sample_spec import (
    BalancedSample,
    CitySample,
    DistinctSample,
    LandCoverSample,
    PositiveSample,
    StrataSample,
    UniformSample,
)

if TYPE_CHECKING:
    import geopandas

# Goes into every hash: a change of the rule is a new number, for it draws other chips.
_RULE = "sample-1"
EARTH_M = 6_371_000.0
"""Radius of the sphere on which cities are stepped away from."""
BATCH = 4096
ROUNDS = 30
"""Of k-means, at most; what it changes later is little."""
FITTED = 20_000
"""Chips that centres of clusters are found from, where they are ten a cluster; with more it would take minutes."""
MOST_TRIES = 200
"""Steps away from cities for each chip that is wanted; after that the area is taken to have no more."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Group:
    """What came of one stratum, class or category."""

    candidates: int
    """Chips that could be drawn."""
    wanted: int
    taken: int


@dataclass(frozen=True, eq=False)
class Taken:
    """The chips that one step takes."""

    index: Indices
    """Positions among the candidates, rising."""
    by: tuple[str, ...]
    """Why each was taken, in words."""
    weight: Floats
    """How many candidates each stands for: 1 over the chance that it had. NaN where that has no meaning."""
    groups: Mapping[str, Group] = field(default_factory=dict)

    @property
    def short(self) -> tuple[str, ...]:
        """Sentences about the groups that have fewer chips than were wanted."""
        return tuple(
            f"{name}: {group.taken} of {group.wanted} wanted chips, there are no more"
            for name, group in self.groups.items()
            if group.taken < group.wanted
        )


def uniforms(chips: Sequence[Chip], seed: int, salt: str = "") -> Floats:
    """A number in (0, 1) for each chip, from its name alone: uniform over chips, and independent for each salt."""
    prefix = f"{_RULE}|{seed}|{salt}|".encode()
    out = np.empty(len(chips))
    for index, chip in enumerate(chips):
        digest = blake2b(prefix + f"{chip.id}|{chip.size_m:g}".encode(), digest_size=8).digest()
        out[index] = ((int.from_bytes(digest, "big") >> 11) + 0.5) / (1 << 53)
    return out


def _first(keys: Floats, chips: Sequence[Chip], among: Indices, n: int) -> Indices:
    """The ``n`` positions of ``among`` with the smallest keys; names decide between equal ones."""
    if n >= len(among):
        return np.sort(among)
    ranked = sorted(among.tolist(), key=lambda index: (keys[index], chips[index]))
    return np.sort(np.array(ranked[:n], np.intp))


def _where(mask: Bools) -> Indices:
    return np.flatnonzero(mask)


def take_uniform(chips: Sequence[Chip], spec: UniformSample, land: Floats | None = None) -> Taken:
    """Chips evenly over the ground; ``land`` is the share of each chip that lies on it."""
    among = np.arange(len(chips)) if land is None else _where(land >= spec.min_land - 1e-9)
    by, there = "all of the land", len(among)
    if spec.every_km is not None:
        among = _lattice_chips(chips, among, spec.every_km)
        by = f"lattice of {spec.every_km:g} km"
    wanted = len(among) if spec.n is None else spec.n
    index = _first(uniforms(chips, spec.seed, "uniform"), chips, among, wanted)
    if spec.n is not None:
        by = "by chance" if spec.every_km is None else f"by chance from the {by}"
    stands_for = there / max(len(index), 1)
    return Taken(
        index, (by,) * len(index), np.full(len(index), stands_for), {"uniform": Group(len(among), wanted, len(index))}
    )


def _lattice_chips(chips: Sequence[Chip], among: Indices, every_km: float) -> Indices:
    """The chips, of those at ``among``, that a point of a global lattice lies in.

    Rows of equal height from the south pole; in each, columns of equal width from 180°W, as many as keep the spacing
    at its latitude. So a place keeps its points when the area grows.
    """
    if not len(among):
        return among
    import shapely

    # In the order of their names: where two zones' chips overlap, the first of them has the point.
    among = np.array(sorted(among.tolist(), key=lambda at: chips[at]), np.intp)
    outlines = footprints([chips[at] for at in among.tolist()])
    west, south, east, north = shapely.total_bounds(outlines)
    rows = max(1, round(np.pi * EARTH_M / (every_km * 1000)))
    first, last = (int((lat + 90) * rows / 180) for lat in (south, north))
    tree = shapely.STRtree(outlines)
    found: list[Indices] = []
    for row in range(max(first, 0), min(last, rows - 1) + 1):
        lat = (row + 0.5) * 180 / rows - 90
        cols = max(1, round(2 * np.pi * EARTH_M * np.cos(np.radians(lat)) / (every_km * 1000)))
        col = np.arange(int((west + 180) * cols / 360), min(int((east + 180) * cols / 360), cols - 1) + 1)
        points = shapely.points((col + 0.5) * 360 / cols - 180, np.full(len(col), lat))
        found.append(_one_each(*tree.query(points, predicate="intersects")))
    return np.unique(among[np.concatenate(found)]) if found else among[:0]


def _one_each(points: npt.NDArray[Any], hits: npt.NDArray[Any]) -> Indices:
    """Of the numbers of those that each point lies in, which may be more than one, the smallest; by point."""
    order = np.lexsort((hits, points))
    _, first = np.unique(points[order], return_index=True)
    return hits[order][first].astype(np.intp)


def take_cities(chips: Sequence[Chip], spec: CitySample, cities: geopandas.GeoDataFrame) -> Taken:
    """Chips around cities: a city by chance, a Gaussian step to the north and the east, and the chip where that ends.

    After SSL4EO-S12 (Wang et al. 2023), whose step is the same number of degrees in both directions; here it is the
    same distance.
    """
    import shapely
    from scipy.spatial import cKDTree

    weight = np.ones(len(cities)) if spec.weight is None else cities[spec.weight].to_numpy(float, na_value=0.0)
    weight = np.where(np.isfinite(weight) & (weight > 0), weight, 0.0)
    order = np.lexsort((cities.geometry.y, cities.geometry.x, -weight))
    if spec.largest is not None:
        order = order[: spec.largest]
        weight = np.where(weight > 0, 1.0, 0.0)
    order = order[weight[order] > 0]
    if not len(order):
        return _nothing({"cities": Group(len(chips), spec.n, 0)})
    weight = weight[order] / weight[order].sum()
    lon, lat = cities.geometry.x.to_numpy()[order], cities.geometry.y.to_numpy()[order]
    names = [str(at) for at in order] if spec.name is None else [str(name) for name in cities[spec.name].iloc[order]]
    outlines = footprints(chips)
    tree = shapely.STRtree(outlines)
    near = cKDTree(_earth_centred(chips))
    # Where two zones' chips overlap, the first by name has the point.
    order_of = np.array(sorted(range(len(chips)), key=lambda at: chips[at]), np.intp)
    rank = np.argsort(order_of)
    rng = np.random.default_rng(spec.seed)
    free = np.ones(len(chips), bool)
    found: dict[int, str] = {}
    tries = 0
    while len(found) < spec.n and tries < MOST_TRIES * spec.n + BATCH and free.any():
        city = rng.choice(len(order), BATCH, p=weight)
        north, east = rng.normal(0.0, spec.sigma_km * 1000, (2, BATCH))
        there_lat = lat[city] + np.degrees(north / EARTH_M)
        there_lon = lon[city] + np.degrees(east / (EARTH_M * np.cos(np.radians(lat[city]))))
        points = shapely.points((there_lon + 180) % 360 - 180, there_lat)
        draw, chip = tree.query(points, predicate="intersects")
        for one, hit in zip(np.unique(draw).tolist(), order_of[_one_each(draw, rank[chip])].tolist(), strict=True):
            if not free[hit] or len(found) >= spec.n:
                continue
            found[hit] = f"around city {names[city[one]]}"
            free[hit] = False
            if spec.apart_km:
                free[near.query_ball_point(near.data[hit], spec.apart_km * 1000 * (1 - 1e-9))] = False
        tries += BATCH
    index = np.array(sorted(found), np.intp)
    by = tuple(found[at] for at in index.tolist())
    return Taken(index, by, np.full(len(index), np.nan), {"cities": Group(len(chips), spec.n, len(index))})


def take_strata(chips: Sequence[Chip], spec: StrataSample, shares: Shares) -> Taken:
    """A quota from each stratum; a chip is of the stratum that has most of it, the first where two have as much."""
    most = shares.values.argmax(axis=1) if len(shares.names) else np.zeros(len(chips), np.intp)
    known = shares.values.max(axis=1, initial=0.0) > 0
    members = {name: _where(known & (most == place)) for place, name in enumerate(shares.names)}
    members = {name: among for name, among in members.items() if len(among) or name in spec.quota}
    wanted = _wanted(members, n=spec.n, each=spec.each, quota=spec.quota)
    keys = uniforms(chips, spec.seed, "strata")
    parts, by, weight, groups = [], [], [], {}
    for name, n in wanted.items():
        among = members.get(name, np.empty(0, np.intp))
        index = _first(keys, chips, among, n)
        parts.append(index)
        by += [f"stratum {name}"] * len(index)
        weight += [len(among) / max(len(index), 1)] * len(index)
        groups[str(name)] = Group(len(among), n, len(index))
    return _joined(parts, by, weight, groups)


def _wanted(
    members: Mapping[Any, Indices], *, n: int | None, each: int | None, quota: Mapping[Any, int]
) -> dict[Any, int]:
    """How many chips of each group are wanted.

    ``n`` is shared out evenly; what a group cannot give goes to the others, and the first ones get what is left over.
    """
    if n is None:
        return dict(quota) if each is None else dict.fromkeys(members, each)
    sizes = {name: len(among) for name, among in members.items()}
    # The highest level to which all can be filled, each up to what it has.
    levels = range(max(sizes.values(), default=0) + 1)
    level = bisect_right(levels, n, key=lambda level: sum(min(size, level) for size in sizes.values())) - 1
    out = {name: min(size, level) for name, size in sizes.items()}
    for name in [name for name, size in sizes.items() if size > level][: n - sum(out.values())]:
        out[name] += 1
    if left := n - sum(out.values()):
        # What nobody can give is still wanted, and told as lacking of the largest.
        largest = max(sizes, key=lambda name: sizes[name], default=None)
        out = {name: count + (left if name == largest else 0) for name, count in out.items()}
    return out


def take_landcover(chips: Sequence[Chip], spec: LandCoverSample, shares: Shares) -> Taken:
    """Chips by the shares of their classes."""
    among = _where(shares.values.sum(axis=1) >= max(spec.min_known, 1e-9) - 1e-9)
    if spec.how == "quota":
        has = np.zeros(shares.values.shape, bool)
        has[among] = shares.values[among] >= spec.min_share - 1e-9
        return take_categories(
            chips, Shares(shares.names, has.astype(float)), each=spec.each, quota=spec.quota, seed=spec.seed,
            word="class",
        )  # fmt: skip
    assert spec.n is not None  # __post_init__
    known = shares.values[among] / shares.values[among].sum(axis=1, keepdims=True)
    if spec.how == "entropy":
        logs = np.log2(known, where=known > 0, out=np.zeros_like(known))
        bits = np.full(len(chips), np.inf)
        bits[among] = np.round(-(known * logs).sum(axis=1), 9)
        # Many chips have one class alone; among those chance decides.
        keys = np.argsort(np.argsort(uniforms(chips, spec.seed, "entropy"))) / (len(chips) + 1)
        ranks = np.unique(-bits if spec.mixed else bits, return_inverse=True)[1]
        index = _first(ranks + keys, chips, among, spec.n)
        by = tuple(f"cover of {abs(bits[at]):.2f} bit" for at in index.tolist())
        return Taken(index, by, np.full(len(index), np.nan), {"entropy": Group(len(among), spec.n, len(index))})
    return _clusters(chips, spec.n, spec.seed, among, known)


def _clusters(chips: Sequence[Chip], n: int, seed: int, among: Indices, known: Floats) -> Taken:
    """The chips nearest the centres of ``n`` clusters; a cluster gives a second one where another came out empty."""
    from scipy.spatial import cKDTree

    groups = {"kmeans": Group(len(among), n, min(n, len(among)))}
    if n >= len(among):
        return Taken(among, ("one of few",) * len(among), np.ones(len(among)), groups)
    # In the order of their names, because the first centres are drawn by position.
    order = np.array(sorted(range(len(among)), key=lambda at: chips[int(among[at])]), np.intp)
    among, known = among[order], known[order]
    # Centres from some of the chips, those whose hashes come first, when there are very many.
    keys = uniforms([chips[at] for at in among.tolist()], seed, "kmeans")
    some = np.sort(np.argsort(keys, kind="stable")[: max(FITTED, 10 * n)])
    centre = _kmeans(known[some], n, np.random.default_rng(seed))
    cluster = cKDTree(centre).query(known)[1].astype(np.intp)
    away = ((known - centre[cluster]) ** 2).sum(axis=1)
    ranked = np.lexsort((keys, np.round(away, 12), cluster))
    # Rank of each chip within its cluster; first all firsts, then the seconds of the largest clusters.
    sizes = np.bincount(cluster, minlength=n)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.empty(len(among), np.intp)
    rank[ranked] = np.arange(len(among)) - starts[cluster[ranked]]
    chosen = np.lexsort((cluster, -sizes[cluster], rank))[:n]
    given = np.bincount(cluster[chosen], minlength=n)
    chosen = chosen[np.argsort(among[chosen])]
    by = tuple(f"cluster {cluster[at]} of {n}" for at in chosen.tolist())
    return Taken(among[chosen], by, sizes[cluster[chosen]] / given[cluster[chosen]], groups)


def _kmeans(points: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Centres of at most ``n`` clusters.

    Lloyd's iteration from centres drawn as k-means++ does (Arthur and Vassilvitskii 2007). Points that coincide count
    as one with a weight, so there are no more clusters than different points.
    """
    from scipy.spatial import cKDTree

    different, weight = np.unique(points.round(6), axis=0, return_counts=True)
    if n >= len(different):
        return different
    chosen = [int(rng.choice(len(different), p=weight / weight.sum()))]
    away = ((different - different[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < n:
        chance = away * weight
        chosen.append(int(rng.choice(len(different), p=chance / chance.sum())))
        away = np.minimum(away, ((different - different[chosen[-1]]) ** 2).sum(axis=1))
    centre, cluster = different[chosen], np.full(len(different), -1, np.intp)
    for _ in range(ROUNDS):
        nearest = cKDTree(centre).query(different)[1].astype(np.intp)
        if (nearest == cluster).all():
            break
        cluster = nearest
        mass = np.bincount(cluster, weight, minlength=n)
        sums = np.stack([np.bincount(cluster, weight * column, minlength=n) for column in different.T], axis=1)
        # A centre that lost all its points stays where it is.
        centre = np.where(mass[:, None] > 0, sums / np.maximum(mass, 1)[:, None], centre)
    return centre


def take_categories(
    chips: Sequence[Chip],
    has: Shares,
    *,
    each: int | None,
    quota: Mapping[Any, int],
    seed: int,
    word: str = "category",
) -> Taken:
    """So many chips that have each category, each drawn by itself, and all of them together; a chip may serve several.

    After OlmoEarth, which draws up to so many places of each category of OpenStreetMap.
    """
    members = {name: _where(has.values[:, place] > 0) for place, name in enumerate(has.names)}
    if each is not None:
        members = {name: among for name, among in members.items() if len(among)}
    missed: Floats = np.ones(len(chips))
    why: dict[int, list[str]] = {}
    groups = {}
    for name, n in _wanted(members, n=None, each=each, quota=quota).items():
        among = members.get(name, np.empty(0, np.intp))
        index = _first(uniforms(chips, seed, f"{word} {name}"), chips, among, n)
        missed[among] *= 1 - len(index) / max(len(among), 1)
        for at in index.tolist():
            why.setdefault(at, []).append(str(name))
        groups[str(name)] = Group(len(among), n, len(index))
    index = np.array(sorted(why), np.intp)
    by = tuple(f"{word} {', '.join(why[at])}" for at in index.tolist())
    return Taken(index, by, 1 / (1 - missed[index]), groups)


def take_positives(chips: Sequence[Chip], spec: PositiveSample, positive: Bools, alike: Bools | None = None) -> Taken:
    """Positives, random negatives away from them, and hard negatives near them or with features ``alike``."""
    from scipy.spatial import cKDTree

    places = _earth_centred(chips)
    keys = uniforms(chips, spec.seed, "positives")
    among = {"positive": _where(positive)}
    taken = {"positive": _first(keys, chips, among["positive"], len(chips) if spec.n is None else spec.n)}
    wanted = {"positive": len(among["positive"]) if spec.n is None else spec.n}
    away = np.full(len(chips), np.inf)
    if positive.any():
        away = np.asarray(cKDTree(places[positive]).query(places)[0])
    # Ratios are of the positives that there are: with few of them there shall not be more of the others.
    ours = len(taken["positive"])
    free = ~positive
    if spec.hard:
        looks = away <= spec.hard_km * 1000 if spec.hard_km is not None else alike
        assert looks is not None  # read where hard_vector is given
        wanted["hard negative"] = round(spec.hard * ours)
        among["hard negative"] = _where(free & looks)
        taken["hard negative"] = _first(keys, chips, among["hard negative"], wanted["hard negative"])
        free = free & ~looks
    apart_m = 2 * max(chip.size_m for chip in chips) if spec.apart_km is None else spec.apart_km * 1000
    wanted["random negative"] = round(spec.negatives * ours)
    among["random negative"] = _where(free & (away >= apart_m))
    taken["random negative"] = _first(keys, chips, among["random negative"], wanted["random negative"])
    parts, by, weight, groups = [], [], [], {}
    for name, index in taken.items():
        parts.append(index)
        by += [name] * len(index)
        weight += [len(among[name]) / max(len(index), 1)] * len(index)
        groups[name] = Group(len(among[name]), wanted[name], len(index))
    return _joined(parts, by, weight, groups)


def take_balanced(chips: Sequence[Chip], spec: BalancedSample, shares: Shares) -> Taken:
    """Chips drawn with a chance that grows with what they have of rare classes.

    A chip's chance is the sum over classes of its share, over what the whole area has of the class: so each class gets
    as much of the draws as another, or as its weight says. Drawn without putting back by the keys of Efraimidis and
    Spirakis (2006).
    """
    factor = {str(name): value for name, value in spec.weights.items()}
    if strange := [name for name in factor if name not in map(str, shares.names)]:
        there = ", ".join(map(str, shares.names)) or "none at all"
        raise RecipeError("recipe", (f"sample: weights has class {strange[0]!r}, which no chip has; found {there}",))
    # Sums that do not depend on the order of the chips, to the last bit: a draw may hang on it.
    total = np.array([math.fsum(column) for column in shares.values.T])
    per_class = np.array([factor.get(str(name), 1.0) for name in shares.names]) / np.where(total > 0, total, np.inf)
    chance = (shares.values * per_class).sum(axis=1)
    among = _where(chance > 0)
    # u^(1/w) without its rounding to 1: the smallest of -log(u) / w.
    keys = np.full(len(chips), np.inf)
    keys[among] = -np.log(uniforms(chips, spec.seed, "balanced")[among]) / chance[among]
    index = _first(keys, chips, among, spec.n)
    stands_for = np.maximum(1.0, math.fsum(chance[among]) / (max(len(index), 1) * chance[index]))
    by = []
    for at in index.tolist():
        best = int(np.argmax(shares.values[at] * per_class))
        by.append(f"for class {shares.names[best]}")
    groups = {"balanced": Group(len(among), spec.n, len(index))}
    return Taken(index, tuple(by), stands_for, groups)


def take_distinct(chips: Sequence[Chip], spec: DistinctSample, pixels: npt.NDArray[Any], known: Bools) -> Taken:
    """Of chips that look the same, one: the one whose hash comes first. ``pixels`` and ``known`` are (chip, point).

    Chips of which the raster knows nothing are like no other and stay.
    """
    from scipy.spatial import cKDTree

    keys = uniforms(chips, spec.seed, "distinct")
    order = sorted(range(len(chips)), key=lambda at: (keys[at], chips[at]))
    places = _earth_centred(chips)
    near = cKDTree(places)
    reach_m = np.inf if spec.within_km is None else spec.within_km * 1000
    values = np.where(known, pixels, 0)
    equal: dict[bytes, list[int]] = {}
    kept: Bools = np.zeros(len(chips), bool)
    stands_for = np.zeros(len(chips))
    for at in order:
        looks = blake2b(known[at].tobytes() + values[at].tobytes()).digest()
        if not known[at].any():
            twins = []
        elif spec.tolerance:
            others = [other for other in near.query_ball_point(places[at], reach_m) if kept[other]]
            twins = [other for other in others if _gap(values, known, at, other) <= spec.tolerance]
        else:
            others = equal.setdefault(looks, [])
            twins = [other for other in others if np.linalg.norm(places[other] - places[at]) <= reach_m]
        if twins:
            stands_for[min(twins, key=lambda other: (keys[other], chips[other]))] += 1
            continue
        kept[at], stands_for[at] = True, 1
        equal.setdefault(looks, []).append(at)
    index = _where(kept)
    by = tuple("like no other" if stands_for[at] == 1 else f"one of {stands_for[at]:g} alike" for at in index.tolist())
    groups = {"distinct": Group(len(chips), len(index), len(index))}
    return Taken(index, by, stands_for[index], groups)


def _gap(values: npt.NDArray[Any], known: Bools, one: int, other: int) -> float:
    """Mean difference of two chips; infinite where one knows a point that the other does not."""
    if (known[one] != known[other]).any():
        return np.inf
    points = known[one]
    return float(np.abs(values[one][points].astype(float) - values[other][points].astype(float)).mean())


def _earth_centred(chips: Sequence[Chip]) -> Floats:
    """Middles of the chips in metres from the middle of a sphere, float64 (chip, 3)."""
    lon, lat = (np.radians(degrees) for degrees in centres(chips))
    return EARTH_M * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def _joined(parts: Sequence[Indices], by: Sequence[str], weight: Sequence[float], groups: Mapping[str, Group]) -> Taken:
    index = np.concatenate([np.empty(0, np.intp), *parts])
    order = np.argsort(index, kind="stable")
    return Taken(index[order], tuple(by[at] for at in order.tolist()), np.array(weight, float)[order], dict(groups))


def _nothing(groups: Mapping[str, Group]) -> Taken:
    return Taken(np.empty(0, np.intp), (), np.empty(0), groups)
