"""How far chips are from each other, and what ground they share, edge to edge on the ellipsoid and across zones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tiling.grid import Chip

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Pairs of chips measured at once; nearest first, so that most of the rest need no measuring.
_BATCH = 10_000
# Chips whose whole neighbourhood is looked at in one go.
_AROUND = 2_000
# Up to here two chips are measured in the plane of a zone, where an edge is straight; beyond, corner to corner, which
# with chips of 2560 m is at most s²/8d = 8 m too long.
_PLANE_M = 100_000.0
SAME_EDGE = 1e-6
"""Share of a chip up to which an overlap is a common edge that was rounded on its way from zone to zone."""


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
    tree_a, tree_b = cKDTree(earth_centred(chips_a)), cKDTree(earth_centred(chips_b))
    apart, partner = tree_b.query(tree_a.data)
    first = np.argsort(apart, kind="stable")[:_BATCH]
    best = float(_edge_to_edge(chips_a, chips_b, first, partner[first]).min())
    # The way along the ground is never shorter than the straight one: what is farther apart cannot beat ``best``.
    pairs = tree_a.sparse_distance_matrix(tree_b, best + reach_m, output_type="ndarray")
    pairs = pairs[np.argsort(pairs["v"], kind="stable")]
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        batch = batch[batch["v"] < best + reach_m]
        if best <= 0 or not len(batch):
            break
        best = min(best, float(_edge_to_edge(chips_a, chips_b, batch["i"], batch["j"]).min()))
    return best


def _edge_to_edge(
    chips_a: Sequence[Chip], chips_b: Sequence[Chip], index_a: npt.NDArray[np.intp], index_b: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Distance of each pair of chips given by their positions, float64, in metres on the ellipsoid."""
    import numpy as np
    from pyproj import Geod

    from tiling.grid import corners

    geod = Geod(ellps="WGS84")
    a, b = [chips_a[index] for index in index_a.tolist()], [chips_b[index] for index in index_b.tolist()]
    from_a = np.repeat(corners(a), 4, axis=1).reshape(-1, 2)
    to_b = np.tile(corners(b), (1, 4, 1)).reshape(-1, 2)
    _, _, metres = geod.inv(from_a[:, 0], from_a[:, 1], to_b[:, 0], to_b[:, 1])
    found: npt.NDArray[np.float64] = np.asarray(metres).reshape(-1, 16).min(axis=1)
    zones: dict[tuple[int, int], list[int]] = {}
    for pair in np.flatnonzero(found < _PLANE_M).tolist():
        zones.setdefault((a[pair].epsg, b[pair].epsg), []).append(pair)
    for (epsg, _), pairs in zones.items():
        ends = _nearest_ends([a[pair] for pair in pairs], [b[pair] for pair in pairs], epsg)
        _, _, metres = geod.inv(ends[:, 0, 0], ends[:, 0, 1], ends[:, 1, 0], ends[:, 1, 1])
        # Ends that coincide in the plane come back with a nanometre between them.
        metres = np.where((ends[:, 0] == ends[:, 1]).all(axis=1), 0.0, metres)
        found[pairs] = np.minimum(found[pairs], metres)
    return found


def _nearest_ends(a: Sequence[Chip], b: Sequence[Chip], epsg: int) -> npt.NDArray[np.float64]:
    """Where each chip of ``a`` (all in zone ``epsg``) and its partner in ``b`` (all in one zone) come nearest.

    float64 ``(pair, 2, 2)``: the end on a and the end on b, each (lon, lat) in degrees, EPSG:4326.
    """
    import numpy as np
    import shapely

    from tiling.grid import to_utm

    boxes_a, boxes_b = _boxes(a, b, epsg)
    ends = shapely.get_coordinates(shapely.shortest_line(boxes_a, boxes_b)).reshape(-1, 2, 2)
    lon, lat = to_utm(epsg).transform(ends[:, :, 0], ends[:, :, 1], direction="INVERSE")
    return np.stack([lon, lat], axis=-1)


def _boxes(a: Sequence[Chip], b: Sequence[Chip], epsg: int) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
    """Outlines of chips ``a`` (all in zone ``epsg``) and ``b`` (all in one zone) in the metres of that zone."""
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
    return boxes_a, boxes_b


def shared_ground(
    chips_a: Sequence[Chip], chips_b: Sequence[Chip]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Pairs of chips that share ground: position in the one, position in the other, square metres (of the first's CRS).

    Neighbours that only touch share none.
    """
    import numpy as np
    from scipy.spatial import cKDTree

    none = np.empty(0, dtype=np.intp)
    if not len(chips_a) or not len(chips_b):
        return none, none, np.empty(0)
    reach_m = 0.75 * (max(chip.size_m for chip in chips_a) + max(chip.size_m for chip in chips_b))
    tree_a, tree_b = cKDTree(earth_centred(chips_a)), cKDTree(earth_centred(chips_b))
    pairs = tree_a.sparse_distance_matrix(tree_b, reach_m, output_type="ndarray")
    first, second = pairs["i"].astype(np.intp), pairs["j"].astype(np.intp)
    area = _overlaps(chips_a, chips_b, first, second)
    order = np.lexsort((second, first))
    order = order[area[order] > 0]
    return first[order], second[order], area[order]


def _overlaps(
    chips_a: Sequence[Chip], chips_b: Sequence[Chip], index_a: npt.NDArray[np.intp], index_b: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Square metres that each pair of chips shares; 0 for what rounding makes of a common edge."""
    import numpy as np
    import shapely

    a, b = [chips_a[index] for index in index_a.tolist()], [chips_b[index] for index in index_b.tolist()]
    area = np.zeros(len(a))
    zones: dict[tuple[int, int], list[int]] = {}
    for pair, (one, other) in enumerate(zip(a, b, strict=True)):
        zones.setdefault((one.epsg, other.epsg), []).append(pair)
    for (epsg, _), pairs in zones.items():
        boxes = _boxes([a[pair] for pair in pairs], [b[pair] for pair in pairs], epsg)
        area[pairs] = shapely.area(shapely.intersection(*boxes))
        smaller = np.minimum(*(shapely.area(box) for box in boxes))
        area[pairs] = np.where(area[pairs] > SAME_EDGE * smaller, area[pairs], 0)
    return area


def near(chips_a: Sequence[Chip], chips_b: Sequence[Chip], within_m: float) -> npt.NDArray[np.bool_]:
    """Which chips of the one come nearer than ``within_m`` to any of the other, edge to edge, or share ground with one.

    Agrees with ``shortest_distance_m``: what is left when these are taken out is nowhere nearer.
    """
    import numpy as np
    from scipy.spatial import cKDTree

    found = np.zeros(len(chips_a), dtype=bool)
    if not len(chips_a) or not len(chips_b):
        return found
    (centres_a, reach_a), (centres_b, reach_b) = _round(chips_a), _round(chips_b)
    tree_b = cKDTree(centres_b)
    # The line between two centres leaves each square after half a side or more, and 0.7 half diagonals are less than
    # that: what is nearer than this is near without any doubt, and most of what is near is that.
    apart, partner = tree_b.query(centres_a)
    found |= apart - 0.69 * (reach_a + reach_b[partner]) < within_m
    open_ = np.flatnonzero(~found & (apart <= within_m + reach_a + reach_b.max()))
    for start in range(0, len(open_), _AROUND):
        some = open_[start : start + _AROUND]
        tree = cKDTree(centres_a[some])
        pairs = tree.sparse_distance_matrix(
            tree_b, within_m + reach_a[some].max() + reach_b.max(), output_type="ndarray"
        )
        first, second = some[pairs["i"]], pairs["j"].astype(np.intp)
        surely = pairs["v"] - 0.69 * (reach_a[first] + reach_b[second]) < within_m
        found[first[surely]] = True
        maybe = ~found[first] & (pairs["v"] <= within_m + reach_a[first] + reach_b[second])
        first, second = first[maybe], second[maybe]
        if len(first):
            metres = _edge_to_edge(chips_a, chips_b, first, second)
            close = metres < within_m
            touch = np.flatnonzero((metres <= 0) & ~close)
            close[touch] = _overlaps(chips_a, chips_b, first[touch], second[touch]) > 0
            found[first[close]] = True
    return found


def _round(chips: Sequence[Chip]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Centres (earth-centred metres) and the radius around each that holds the chip."""
    import numpy as np
    from pyproj import Transformer

    from tiling.grid import corners

    centres = earth_centred(chips)
    ring = corners(chips).reshape(-1, 2)
    transformer = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    xyz = np.stack(transformer.transform(ring[:, 0], ring[:, 1], np.zeros(len(ring))), axis=1).reshape(-1, 4, 3)
    return centres, np.linalg.norm(xyz - centres[:, np.newaxis], axis=2).max(axis=1) * 1.001


def earth_centred(chips: Sequence[Chip]) -> npt.NDArray[np.float64]:
    """Centres of the chips in metres from the middle of the earth, float64 ``(chip, 3)``."""
    import numpy as np
    from pyproj import Transformer

    from tiling.grid import centres

    lon, lat = centres(chips)
    transformer = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    return np.stack(transformer.transform(lon, lat, np.zeros(len(chips))), axis=1)
