"""Draws every rule for splits: which chips train, validate and test, and which are left out between them."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiling.distance import earth_centred, near
from tiling.grid import Chip, centres, to_utm, zone_of
from tiling.lattice import Lattice, draw_by_block, drawn, uniform
from tiling.mgrs import SQUARE_M, TILE_M, Square, square_from_name, square_name, tile_corner
from tiling.split import BUFFER, SPLITS, SplitSpec, assign_splits, check_blocks
from tiling.split_rules import (
    AnySplit,
    BalancedSplit,
    BandSplit,
    ClusterSplit,
    FoldSplit,
    LongitudeSplit,
    RegionSplit,
    RingSplit,
    Shares,
    TileSplit,
    YearSplit,
)

Splits = npt.NDArray[np.object_]
Classes = Sequence[Mapping[int, float]]
"""For each chip, class code -> share of its pixels."""

_TILE_ID = re.compile(r"(\d\d[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])_\d+_\d+")


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a rule drew, in the order of the chips."""

    split: Splits
    """train, val, test or buffer."""
    fold: npt.NDArray[np.int64] | None = None
    """Fold of each chip from 1, 0 where it is left out; None for rules without folds."""


def draw_splits(
    chips: Sequence[Chip], spec: AnySplit, *, file: Callable[[str], str] = str, classes: Classes | None = None
) -> Drawn:
    """The split of every chip by any rule.

    ``blocks``, ``years`` and ``folds`` leave out chips near a block of another split or fold, whether a chip lies there
    or not. The other rules leave out chips that are nearer than the buffer to one of another split that is there, or
    share ground with it: train gives way to val and test, val to test.

    Args:
        chips: All chips of the area.
        spec: The rule.
        file: Makes an absolute path of one in the recipe.
        classes: For ``balanced``: the classes of each chip.

    Raises:
        ValueError: The rule cannot be drawn: blocks too small, a region or tile that is not there, a file that is
            not to be read.
    """
    match spec:
        case SplitSpec():
            return Drawn(assign_splits(chips, spec))
        case YearSplit():
            return Drawn(assign_splits(chips, spec.blocks))
        case FoldSplit():
            return _folds(chips, spec)
        case BalancedSplit():
            if classes is None:
                raise ValueError(f"the rule balanced needs the classes of label {spec.label}")
            wanted = _balanced(chips, spec, classes)
        case RingSplit():
            wanted = _rings(chips, spec)
        case BandSplit():
            wanted = _bands(chips, spec)
        case LongitudeSplit():
            wanted = _longitude(chips, spec)
        case RegionSplit():
            wanted = _regions(chips, spec, file(spec.polygons))
        case TileSplit():
            wanted = _tiles(chips, spec, None if spec.file is None else file(spec.file))
        case ClusterSplit():
            wanted = _clusters(chips, spec)
    return Drawn(keep_apart(chips, wanted, spec.buffer_km * 1000))


def keep_apart(chips: Sequence[Chip], wanted: Splits, buffer_m: float) -> Splits:
    """The splits with ``buffer`` for chips nearer than ``buffer_m`` to another split, or on the same ground as it.

    Train gives way to val and test, val to test: the dearest chips are kept, and there are most of train.
    """
    split = wanted.copy()
    for gives_way, to in (("val", ("test",)), ("train", ("val", "test"))):
        mine, theirs = np.flatnonzero(split == gives_way), np.flatnonzero(np.isin(split, to))
        close = near([chips[i] for i in mine.tolist()], [chips[i] for i in theirs.tolist()], buffer_m)
        split[mine[close]] = BUFFER
    return split


# --- blocks


def _folds(chips: Sequence[Chip], spec: FoldSplit) -> Drawn:
    if not len(chips):
        return Drawn(np.empty(0, dtype=object), np.empty(0, dtype="int64"))
    check_blocks(SplitSpec(block_km=spec.block_km, buffer_km=spec.buffer_km), max(chip.size_m for chip in chips))
    below = [fold / spec.k for fold in range(1, spec.k)]
    salt = f"folds-1|{spec.seed}|{float(spec.block_km)!r}"
    own, alone = draw_by_block(chips, spec.block_km, spec.buffer_km * 500, partial(drawn, salt, below))
    fold = np.where(alone, own + 1, 0)
    names = np.array(
        [BUFFER, *("val" if f in spec.val else "test" if f in spec.test else "train" for f in range(1, spec.k + 1))],
        dtype=object,
    )
    return Drawn(names[fold], fold)


def _balanced(chips: Sequence[Chip], spec: BalancedSplit, classes: Classes) -> Splits:
    """Blocks dealt out one by one, the rarest class first, each to the split that lacks most of what is in it.

    The order is that of iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the stratification of
    multi-label data", ECML PKDD 2011, algorithm 1). There a split is chosen by one class; here by all, because nearly
    every block has every common class: by the squares of what is lacking, each relative to the amount of its class and
    to the share of the split. Then single blocks are moved as long as that mends more than it upsets.
    """
    lattice = Lattice(spec.block_km)
    lon, lat = centres(chips)
    row = lattice.row(lat)
    blocks, block = np.unique(np.stack([row, lattice.col(lon, row)], axis=1), axis=0, return_inverse=True)
    block = block.ravel()
    codes = sorted({code for found in classes for code, share in found.items() if share > 0})
    if not codes:
        raise ValueError(f"label {spec.label} has no class on any chip, so nothing can be balanced")
    # The last column counts chips, so that what is left when all classes are dealt out is dealt out too.
    content = np.zeros((len(blocks), len(codes) + 1))
    for chip, found in enumerate(classes):
        content[block[chip], :-1] += [found.get(code, 0.0) for code in codes]
        content[block[chip], -1] += 1
    names = [name for name in SPLITS if spec.shares.get(name, 0.0) > 0]
    share = np.array([spec.shares[name] for name in names])
    total = content.sum(axis=0)
    # From here on an amount is relative to all that there is of its class.
    content /= total
    lacks = np.repeat(share[:, np.newaxis], len(total), axis=1)
    tie = np.array([uniform(f"balanced-1|{spec.seed}|{r}|{c}") for r, c in blocks.tolist()])
    dealt = np.full(len(blocks), -1)
    while (open_ := np.flatnonzero(dealt < 0)).size:
        left = content[open_].sum(axis=0) * total
        rarest = int(np.argmin(np.where(left[:-1] > 1e-9, left[:-1], np.inf))) if (left[:-1] > 1e-9).any() else -1
        # The fullest block first: small ones can still mend what a large one upset.
        most = open_[np.lexsort((tie[open_], -content[open_, rarest]))[0]]
        gain = ((2 * lacks - content[most]) @ content[most]) / share
        dealt[most] = np.lexsort((-share, -gain.round(12)))[0]
        lacks[dealt[most]] -= content[most]
    everywhere = np.arange(len(blocks))
    for _ in range(10 * len(blocks)):
        gets = (2 * content @ lacks.T - (content**2).sum(axis=1)[:, np.newaxis]) / share
        loses = ((2 * content * lacks[dealt]).sum(axis=1) + (content**2).sum(axis=1)) / share[dealt]
        better = gets - loses[:, np.newaxis]
        better[everywhere, dealt] = 0
        mover, to = (int(index) for index in np.unravel_index(int(np.argmax(better.round(12))), better.shape))
        if better[mover, to] <= 1e-9:
            break
        lacks[dealt[mover]] += content[mover]
        lacks[to] -= content[mover]
        dealt[mover] = to
    split: Splits = np.array(names, dtype=object)[dealt[block]]
    return split


# --- tiles


def _squares(chips: Sequence[Chip]) -> tuple[list[Square], npt.NDArray[np.float64]]:
    """The MGRS square of each chip's centre, and the centre (x, y) in metres of the square's zone.

    Chips that were cut out of a tile, whose ids begin with its name, belong to that one.
    """
    lon, lat = centres(chips)
    named = {index: found[1] for index, chip in enumerate(chips) if (found := _TILE_ID.fullmatch(chip.id))}
    told = {name: square_from_name(name) for name in set(named.values())}
    epsg = np.array(zone_of(lon, lat))
    for index, name in named.items():
        epsg[index] = told[name].epsg
    xy = np.empty((len(chips), 2))
    for zone in np.unique(epsg).tolist():
        where = epsg == zone
        xy[where] = np.stack(to_utm(zone).transform(lon[where], lat[where]), axis=1)
    east, north = np.floor(xy / SQUARE_M).astype(int).T
    squares = [
        told[named[index]] if index in named else Square(*found)
        for index, found in enumerate(zip(epsg.tolist(), east.tolist(), north.tolist(), strict=True))
    ]
    return squares, xy


def _rings(chips: Sequence[Chip], spec: RingSplit) -> Splits:
    squares, xy = _squares(chips)
    tile = spec.of == "tile"
    corner = np.array(
        [tile_corner(square) if tile else (square.east * SQUARE_M, (square.north + 1) * SQUARE_M) for square in squares]
    ).reshape(-1, 2)
    return ring_of(xy[:, 0] - corner[:, 0], corner[:, 1] - xy[:, 1], TILE_M if tile else SQUARE_M, spec.shares)


def ring_of(right_m: npt.NDArray[np.float64], down_m: npt.NDArray[np.float64], side_m: float, shares: Shares) -> Splits:
    """Split of places in a square by the distance to its nearest edge: outer ring train, inner ring val, core test.

    The rule of the BigEarthNet pipeline (its migration V1_2) for any shares: what lies farther than s (1 - sqrt(p)) / 2
    from the edges of a square of side s is the share p of it.

    Args:
        right_m: Metres to the right of the square's upper-left corner.
        down_m: Metres down from it.
        side_m: Side of the square.
        shares: Shares of the square's area.
    """
    edge = np.min([right_m, side_m - right_m, down_m, side_m - down_m], axis=0)
    core = shares.get("test", 0.0)
    train_m = side_m * (1 - np.sqrt(core + shares.get("val", 0.0))) / 2
    test_m = side_m * (1 - np.sqrt(core)) / 2
    return np.select([edge <= train_m, edge <= test_m], ["train", "val"], "test").astype(object)


def _tiles(chips: Sequence[Chip], spec: TileSplit, file: str | None) -> Splits:
    column, rest = "tile", BUFFER if spec.train or file is not None else "train"
    rows: dict[str, str] = {name: split for split in SPLITS for name in getattr(spec, split)}
    if file is not None:
        column, rows = _listed(file)
    keys: Sequence[Square | str] = [chip.id for chip in chips]
    found: Mapping[Any, str] = rows
    if column == "tile":
        keys = _squares(chips)[0]
        found = {square_from_name(name): split for name, split in rows.items()}
    if not found.keys() & set(keys):
        raise ValueError(f"no {column} of the list has a chip in the area; the list begins with {next(iter(rows))!r}")
    return np.array([found.get(key, rest) for key in keys], dtype=object)


def _listed(file: str) -> tuple[str, dict[str, str]]:
    """Which column names the places of a list (``tile`` or ``chip``), and the split of each."""
    try:
        with Path(file).open(newline="", encoding="utf-8-sig") as opened:
            lines = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read ({error}); wanted a CSV file with tile or chip, and split") from error
    columns = set(lines[0]) if lines else set()
    column = next((name for name in ("chip", "tile") if name in columns), None)
    if column is None or "split" not in columns:
        raise ValueError(f"{file} has the columns {sorted(map(str, columns))}; wanted tile or chip, and split")
    found: dict[str, str] = {}
    for line in lines:
        name, split = (line[column] or "").strip(), (line["split"] or "").strip()
        if split not in SPLITS:
            raise ValueError(f"{file} puts {name} into {split!r}; wanted train, val or test")
        if found.setdefault(name, split) != split:
            raise ValueError(f"{file} puts {name} into {found[name]} and {split}; a {column} belongs to one split")
    return column, found


# --- rules over the whole area


def _bands(chips: Sequence[Chip], spec: BandSplit) -> Splits:
    """Bands of equal width by a weighted sum of longitude and latitude, each scaled to 0…1 over the area (M3LEO)."""
    lon, lat = (_unit(values) for values in centres(chips))
    angle = abs(spec.angle_rad)
    if spec.angle_rad < 0:
        lon, lat = 1 - lon, 1 - lat
    if angle < np.pi / 4:
        east, north = angle / (np.pi / 4), 1.0
    else:
        east, north = float(np.sign(spec.angle_rad)), (np.pi / 2 - angle) / (np.pi / 4)
    place = _unit(east * lon + north * lat)
    band = np.minimum((place * spec.bands).astype(int), spec.bands - 1)
    pattern = np.array(spec.pattern, dtype=object)
    split: Splits = pattern[band % len(pattern)]
    return split


def _unit(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    span = values.max() - values.min() if len(values) else 0.0
    return (values - values.min()) / span if span > 0 else np.zeros(len(values))


def _longitude(chips: Sequence[Chip], spec: LongitudeSplit) -> Splits:
    lon, lat = centres(chips)
    place = np.empty(len(chips))
    place[np.lexsort((lat, lon))] = (np.arange(len(chips)) + 0.5) / max(len(chips), 1)
    train = spec.shares.get("train", 0.0)
    return np.select([place <= train, place <= train + spec.shares.get("val", 0.0)], ["train", "val"], "test").astype(
        object
    )


def _regions(chips: Sequence[Chip], spec: RegionSplit, file: str) -> Splits:
    import geopandas
    import shapely
    from pyogrio.errors import DataSourceError

    try:
        table = geopandas.read_file(file, **({} if spec.layer is None else {"layer": spec.layer}))
    except (DataSourceError, OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}); wanted a vector file with polygons") from error
    if spec.attribute not in table:
        raise ValueError(f"{file} has no column {spec.attribute!r}; found {', '.join(map(str, table.columns))}")
    if table.crs is None:
        raise ValueError(f"{file} does not say its CRS; write it with one")
    names = table[spec.attribute].astype(str).to_numpy()
    for split in SPLITS:
        if missing := [name for name in getattr(spec, split) if str(name) not in names]:
            known = ", ".join(sorted(set(names))[:10])
            raise ValueError(f"{file} has no region {str(missing[0])!r} in {spec.attribute}; found {known}")
    outlines = table.to_crs(4326).geometry.to_numpy()
    lon, lat = centres(chips)
    inside, region = shapely.STRtree(outlines).query(shapely.points(lon, lat), predicate="intersects")
    found = np.full(len(chips), BUFFER, dtype=object)
    held_out = {str(name) for name in (*spec.val, *spec.test)}
    for split in SPLITS:  # test last, so that it wins
        listed = {str(name) for name in getattr(spec, split)}
        if split == "train" and not listed:
            mine = np.array([name not in held_out for name in names])
        else:
            mine = np.array([name in listed for name in names])
        found[inside[mine[region]]] = split
    if (found == BUFFER).all():
        raise ValueError(f"no chip of the area lies in a region of {file}")
    return found


def _clusters(chips: Sequence[Chip], spec: ClusterSplit) -> Splits:
    if spec.of == "tiles":
        squares, _ = _squares(chips)
        units = sorted(set(squares))
        position = {square: index for index, square in enumerate(units)}
        unit = np.array([position[square] for square in squares])
        names = [square_name(square, 0.0) + str(square) for square in units]
    else:
        unit = np.arange(len(chips))
        names = [chip.id for chip in chips]
    size = np.bincount(unit, minlength=len(names))
    place = np.stack([np.bincount(unit, weights=axis) / size for axis in centres(chips)], axis=1)
    if spec.link_km is None:
        group, order = _k_means(place, spec, what="MGRS squares" if spec.of == "tiles" else "chips")
    else:
        xyz = earth_centred(chips)
        middle = np.stack([np.bincount(unit, weights=axis) / size for axis in xyz.T], axis=1)
        group = _linked(middle, spec.link_km * 1000)
        first = {int(g): min(names[i] for i in np.flatnonzero(group == g)) for g in np.unique(group)}
        order = sorted(first, key=lambda g: uniform(f"linked-1|{spec.seed}|{first[g]}"))
    weight = np.bincount(group, weights=size)
    split: Splits = np.full(len(weight), "train", dtype=object)
    waiting = list(order)
    for name in ("test", "val"):
        wanted, has = spec.shares.get(name, 0.0) * len(chips), 0.0
        while waiting and has < wanted:
            # A group that overshoots by more than is lacking is left to others.
            fits = [g for g in waiting if has + weight[g] - wanted <= wanted - has]
            if not fits:
                break
            split[fits[0]] = name
            has += weight[fits[0]]
            waiting.remove(fits[0])
    empty = [name for name in SPLITS if spec.shares.get(name, 0.0) > 0 and not (split == name).any()]
    if empty:
        raise ValueError(
            f"the area falls into {len(weight)} groups of places, none of which is left for {' and '.join(empty)}; "
            "take more clusters, a smaller link_km, of: chips, or the rule blocks"
        )
    found: Splits = split[group[unit]]
    return found


def _k_means(
    place: npt.NDArray[np.float64], spec: ClusterSplit, *, what: str
) -> tuple[npt.NDArray[np.int64], list[int]]:
    """Cluster of each place, and clusters in the order in which the closest pairs are taken out."""
    from scipy.cluster.vq import kmeans2

    if len(place) < spec.clusters:
        raise ValueError(
            f"the area has {len(place)} {what} for {spec.clusters} clusters; take fewer clusters, of: chips, or the "
            "rule blocks"
        )
    scale = place.std(axis=0)
    scaled = (place - place.mean(axis=0)) / np.where(scale > 0, scale, 1)
    _, group = kmeans2(scaled, spec.clusters, iter=100, minit="++", rng=np.random.default_rng(spec.seed))
    _, group = np.unique(group, return_inverse=True)
    middle = np.stack([scaled[group == g].mean(axis=0) for g in range(group.max() + 1)])
    apart = np.linalg.norm(middle[:, np.newaxis] - middle, axis=2)
    np.fill_diagonal(apart, np.inf)
    order: list[int] = []
    while len(order) < len(middle):
        if np.isinf(apart).all():
            order += [g for g in range(len(middle)) if g not in order]
            break
        pair = [int(index) for index in np.unravel_index(int(np.argmin(apart)), apart.shape)]
        order += pair
        apart[pair], apart[:, pair] = np.inf, np.inf
    return group.astype("int64"), order


def _linked(middle: npt.NDArray[np.float64], link_m: float) -> npt.NDArray[np.int64]:
    """Number of the chain each place (x, y, z in metres) belongs to."""
    from scipy.cluster.hierarchy import DisjointSet
    from scipy.spatial import cKDTree

    # All places within a cube of this side are linked, so only cubes that are near each other have to be compared, and
    # a hundred thousand chips linked over 50 km do not become all their pairs.
    cubes, cube = np.unique(np.floor(middle / (0.577 * link_m)), axis=0, return_inverse=True)
    cube = cube.ravel()
    members = np.split(middle[np.argsort(cube, kind="stable")], np.cumsum(np.bincount(cube))[:-1])
    trees = [cKDTree(places) for places in members]
    chains = DisjointSet(range(len(cubes)))
    for one, other in sorted(cKDTree(cubes).query_pairs(2.5, p=np.inf)):
        if chains[one] != chains[other]:
            apart, _ = trees[one].query(members[other], distance_upper_bound=np.nextafter(link_m, np.inf))
            if np.isfinite(apart).any():
                chains.merge(one, other)
    _, chain = np.unique([chains[index] for index in range(len(cubes))], return_inverse=True)
    return chain.ravel()[cube].astype("int64")
