"""Which chips train, validate and test: by the hash of a global block, so the place alone decides, before any pixel.

The blocks are rows of latitude cut into columns, the same for every zone, area and run. A chip near a block of another
split is left out as ``buffer``: that is the price of the promise that two chips of different splits are nowhere nearer
than ``buffer_km``, measured from edge to edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import isfinite, pi
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt

from tiling.grid import Chip

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
BUFFER = "buffer"

# Goes into every hash: a change of the rule is a new number, for it gives every place a new split.
_RULE = "blocks-1"

# Smallest radius of curvature of the WGS 84 ellipsoid, a(1 - e²), in metres. On a sphere of this radius all distances
# between given degrees are shorter than on the earth, so bounds made with it hold on the earth.
_SMALL_RADIUS_M = 6_335_439.0


# Pairs of chips measured at once; nearest first, so that most of the rest need no measuring.
_BATCH = 10_000
# Up to here two chips are measured in the plane of a zone, where an edge is straight; beyond, corner to corner, which
# with chips of 2560 m is at most s²/8d = 8 m too long.
_PLANE_M = 100_000.0


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """How the chips are shared out among training, validation and test."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rule: Literal["blocks"] = "blocks"
    """``blocks``: whole blocks of a global lattice, drawn by a hash of their place."""
    block_km: Annotated[float, Gt(0)] = 10.0
    """Side of a block in kilometres; blocks are never narrower than this."""
    buffer_km: Annotated[float, Ge(0)] = 1.0
    """Shortest distance between chips of different splits, edge to edge, in km; chips in between are left out."""
    shares: dict[Literal["train", "val", "test"], Annotated[float, Ge(0)]] = field(
        default_factory=lambda: {"train": 0.7, "val": 0.15, "test": 0.15}
    )
    """Share of the blocks for each of ``train``, ``val`` and ``test``; what is left out gets nothing. They sum to 1."""
    seed: int = 0
    """Another number gives another draw of the blocks."""

    def __post_init__(self) -> None:
        if not (isfinite(self.block_km) and self.block_km > 0):
            raise ValueError(f"block_km is {self.block_km:g}; a block has a side above 0 km")
        if not (isfinite(self.buffer_km) and self.buffer_km >= 0):
            raise ValueError(f"buffer_km is {self.buffer_km:g}; a distance is 0 km or more")
        unknown = [name for name in self.shares if name not in SPLITS]
        if unknown:
            raise ValueError(f"shares has {', '.join(map(repr, unknown))}; a share belongs to train, val or test")
        if not all(share >= 0 for share in self.shares.values()):
            raise ValueError(f"shares are {dict(self.shares)}; a share is 0 or more")
        total = sum(self.shares.values())
        if not abs(total - 1) <= 1e-6:
            raise ValueError(f"shares sum to {total:g}; they must sum to 1, as in train: 0.7, val: 0.15, test: 0.15")


def check_blocks(spec: SplitSpec, chip_size_m: float) -> None:
    """Pass when a block has room for a chip and the buffer around it.

    Raises:
        ValueError: A chip could only be kept where neighbouring blocks happen to be of one split.
    """
    if sum(share > 0 for share in spec.shares.values()) < 2:
        return  # one split needs no buffer
    needed_km = spec.buffer_km + chip_size_m / 1000
    if spec.block_km < needed_km:
        raise ValueError(
            f"blocks of {spec.block_km:g} km have no room for a chip of {chip_size_m / 1000:g} km and a buffer of "
            f"{spec.buffer_km:g} km; make block_km at least {needed_km:g} (ten times as much keeps most chips) or "
            "buffer_km smaller"
        )


def assign_splits(chips: Sequence[Chip], spec: SplitSpec) -> npt.NDArray[np.object_]:
    """``train``, ``val``, ``test`` or ``buffer`` for every chip: an object array of str in the order of ``chips``.

    A chip has the split of the block that its centre lies in, unless its footprint grown by half the buffer on all
    sides also touches a block of another split: then it is ``buffer``. The answer for a chip depends on its place, its
    size and ``spec``, and on no other chip.

    Raises:
        ValueError: The blocks are too small for chip and buffer (``check_blocks``).
    """
    import numpy as np

    from tiling.grid import centres

    splits: npt.NDArray[np.object_] = np.empty(len(chips), dtype=object)
    if not len(chips):
        return splits
    check_blocks(spec, max(chip.size_m for chip in chips))
    lattice = _Lattice(spec.block_km)
    draw = _Draw(spec)

    lon, lat = centres(chips)
    row = lattice.row(lat)
    own = draw(row, lattice.col(lon, row))

    west, south, east, north = _reach(chips, spec.buffer_km * 500)
    first_row, last_row = lattice.row(south), lattice.row(north)
    alone = np.ones(len(chips), dtype=bool)
    for row_step in range(int((last_row - first_row).max()) + 1):
        row = first_row + row_step
        inside = row <= last_row
        row = np.minimum(row, last_row)
        first_col, last_col = lattice.col(west, row), lattice.col(east, row)
        for col_step in range(int((last_col - first_col).max()) + 1):
            col = first_col + col_step
            touched = np.flatnonzero(inside & alone & (col <= last_col))
            alone[touched] = draw(row[touched], col[touched] % lattice.cols(row[touched])) == own[touched]
    splits[:] = np.where(alone, np.array([*SPLITS, BUFFER], dtype=object)[own], BUFFER)
    return splits


class _Lattice:
    """Blocks of the earth: rows of equal height from the south pole, each cut into equal columns from 180°W.

    Counted with the smallest radius and at the poleward edge of a row, so that no block is smaller than asked for.
    """

    def __init__(self, block_km: float) -> None:
        self.block_m = block_km * 1000
        self.rows = max(1, int(pi * _SMALL_RADIUS_M / self.block_m))

    def row(self, lat: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Row of each latitude."""
        import numpy as np

        row: npt.NDArray[np.int64] = np.floor((lat + 90) * (self.rows / 180)).astype("int64")
        return np.clip(row, 0, self.rows - 1)

    def cols(self, row: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Number of columns in each row, at least 1."""
        import numpy as np

        edges = np.abs(np.stack([row, row + 1]) * (180 / self.rows) - 90).max(axis=0)
        around_m = 2 * pi * _SMALL_RADIUS_M * np.cos(np.radians(edges))
        cols: npt.NDArray[np.int64] = np.floor(around_m / self.block_m).astype("int64")
        return np.maximum(1, cols)

    def col(self, lon: npt.NDArray[np.float64], row: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Column of each longitude in its row; beyond ±180° it counts on, to be taken modulo ``cols``."""
        import numpy as np

        col: npt.NDArray[np.int64] = np.floor((lon + 180) * (self.cols(row) / 360)).astype("int64")
        return col


class _Draw:
    """Split of a block, as a position in ``SPLITS``: its hash, uniform in [0, 1), against the cumulated shares."""

    def __init__(self, spec: SplitSpec) -> None:
        import numpy as np

        shares = [spec.shares.get(name, 0.0) for name in SPLITS]
        # Shares sum to 1 but for rounding, and what rounding leaves goes to the last split that has a share at all.
        last = max(index for index, share in enumerate(shares) if share > 0)
        self._below = np.cumsum(shares)[:last]
        self._salt = f"{_RULE}|{spec.seed}|{float(spec.block_km)!r}"

    def __call__(self, row: npt.NDArray[np.int64], col: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        import numpy as np

        blocks, where = np.unique(np.stack([row, col], axis=1), axis=0, return_inverse=True)
        uniform = np.array([self._uniform(r, c) for r, c in blocks.tolist()])
        return np.searchsorted(self._below, uniform, side="right").astype("int64")[where]

    def _uniform(self, row: int, col: int) -> float:
        digest = blake2b(f"{self._salt}|{row}|{col}".encode(), digest_size=8).digest()
        # 53 bits are what a float holds; all 64 could round up to 1.
        return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def _reach(chips: Sequence[Chip], grow_m: float) -> tuple[npt.NDArray[np.float64], ...]:
    """Boxes (west, south, east, north), in degrees, that surely hold the chips grown by ``grow_m`` on all sides."""
    import numpy as np

    from tiling.grid import corners

    ring = corners(chips)
    lon, lat = ring[:, :, 0], ring[:, :, 1]
    side = np.array([chip.size_m for chip in chips])
    steepest = np.radians(np.abs(lat).max(axis=1))
    # Edges are straight in metres and bulge in degrees, by side² tan(lat) / 8R to the eye; twice that, and a millimetre
    # against rounding.
    bulge_m = side**2 * np.maximum(1, np.tan(steepest)) / (4 * _SMALL_RADIUS_M) + 0.001
    reach = (grow_m + bulge_m) / _SMALL_RADIUS_M
    # A cap of this radius around a point at this latitude is this wide (at its widest, which is not its middle).
    wide = np.degrees(np.arcsin(np.minimum(1, np.sin(reach) / np.cos(steepest))))
    high = np.degrees(reach)
    return lon.min(axis=1) - wide, lat.min(axis=1) - high, lon.max(axis=1) + wide, lat.max(axis=1) + high


def shortest_distance_m(chips_a: Sequence[Chip], chips_b: Sequence[Chip]) -> float:
    """Shortest way from a chip of the one to a chip of the other, edge to edge, in metres on the ellipsoid.

    0 where two chips touch or overlap, also across zones; infinity when one side has no chip. Good to a millimetre for
    the distances that buffers have, and to a few metres beyond 100 km.
    """
    import numpy as np
    from scipy.spatial import cKDTree

    if not len(chips_a) or not len(chips_b):
        return float("inf")
    # Centres in three dimensions know no zone and no antimeridian, so a tree of them finds who can be near at all. From
    # its centre a chip reaches half a diagonal, 0.707 sides, and a little more for the scale of UTM.
    reach_m = 0.75 * (max(chip.size_m for chip in chips_a) + max(chip.size_m for chip in chips_b))
    tree_a, tree_b = cKDTree(_earth_centred(chips_a)), cKDTree(_earth_centred(chips_b))
    apart, partner = tree_b.query(tree_a.data)
    first = np.argsort(apart, kind="stable")[:_BATCH]
    best = _edge_to_edge(chips_a, chips_b, first, partner[first])
    # The way along the ground is never shorter than the straight one: what is farther apart cannot beat ``best``.
    pairs = tree_a.sparse_distance_matrix(tree_b, best + reach_m, output_type="ndarray")
    pairs = pairs[np.argsort(pairs["v"], kind="stable")]
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        batch = batch[batch["v"] < best + reach_m]
        if best <= 0 or not len(batch):
            break
        best = min(best, _edge_to_edge(chips_a, chips_b, batch["i"], batch["j"]))
    return best


def _edge_to_edge(
    chips_a: Sequence[Chip], chips_b: Sequence[Chip], index_a: npt.NDArray[np.intp], index_b: npt.NDArray[np.intp]
) -> float:
    """Smallest distance, in metres on the ellipsoid, of pairs of chips given by their positions."""
    import numpy as np
    from pyproj import Geod

    from tiling.grid import corners

    geod = Geod(ellps="WGS84")
    a, b = [chips_a[index] for index in index_a.tolist()], [chips_b[index] for index in index_b.tolist()]
    from_a = np.repeat(corners(a), 4, axis=1).reshape(-1, 2)
    to_b = np.tile(corners(b), (1, 4, 1)).reshape(-1, 2)
    _, _, metres = geod.inv(from_a[:, 0], from_a[:, 1], to_b[:, 0], to_b[:, 1])
    metres = np.asarray(metres).reshape(-1, 16).min(axis=1)
    best = float(metres.min())
    zones: dict[tuple[int, int], list[int]] = {}
    for pair in np.flatnonzero(metres < _PLANE_M).tolist():
        zones.setdefault((a[pair].epsg, b[pair].epsg), []).append(pair)
    for (epsg, _), pairs in zones.items():
        ends = _nearest_ends([a[pair] for pair in pairs], [b[pair] for pair in pairs], epsg)
        _, _, metres = geod.inv(ends[:, 0, 0], ends[:, 0, 1], ends[:, 1, 0], ends[:, 1, 1])
        # Ends that coincide in the plane come back with a nanometre between them.
        metres = np.where((ends[:, 0] == ends[:, 1]).all(axis=1), 0.0, metres)
        best = min(best, float(metres.min()))
    return best


def _nearest_ends(a: Sequence[Chip], b: Sequence[Chip], epsg: int) -> npt.NDArray[np.float64]:
    """Where each chip of ``a`` (all in zone ``epsg``) and its partner in ``b`` (all in one zone) come nearest.

    float64 ``(pair, 2, 2)``: the end on a and the end on b, each (lon, lat) in degrees, EPSG:4326.
    """
    import numpy as np
    import shapely

    from tiling.grid import to_utm

    boxes_a, boxes_b = (shapely.box(*np.array([chip.bounds for chip in chips]).T) for chips in (a, b))
    if b[0].epsg != epsg:
        # Straight edges of one zone bend in another: with eight points an edge by less than a millimetre a chip.
        dense = shapely.segmentize(boxes_b, max(chip.size_m for chip in b) / 8)
        x, y = shapely.get_coordinates(dense).T
        lon, lat = to_utm(b[0].epsg).transform(x, y, direction="INVERSE")
        boxes_b = shapely.set_coordinates(dense, np.stack(to_utm(epsg).transform(lon, lat), axis=1))
    ends = shapely.get_coordinates(shapely.shortest_line(boxes_a, boxes_b)).reshape(-1, 2, 2)
    lon, lat = to_utm(epsg).transform(ends[:, :, 0], ends[:, :, 1], direction="INVERSE")
    return np.stack([lon, lat], axis=-1)


def _earth_centred(chips: Sequence[Chip]) -> npt.NDArray[np.float64]:
    """Centres of the chips in metres from the middle of the earth, float64 ``(chip, 3)``."""
    import numpy as np
    from pyproj import Transformer

    from tiling.grid import centres

    lon, lat = centres(chips)
    transformer = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    return np.stack(transformer.transform(lon, lat, np.zeros(len(chips))), axis=1)
