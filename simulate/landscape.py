"""The ground truth: what lies at a place, as a pure function of its position in the world frame.

Blocks of farmland hang on a bent, jittered lattice of nodes. Roads run along the sides of a block, and straight cuts
divide it into parcels: a field is a quadrangle with four straight sides, the same in a pixel and in a polygon. Where
forest, river or lake come near, a parcel is left to nature, whose outlines are noise; some blocks are villages.

Positions are world metres (see :mod:`simulate.world`), angles radians, heights metres above the geoid.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulate.noise import chance, fbm, jit, value

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What covers the ground. Values above CROP are crops, in the order of CROPS.
BROADLEAF, CONIFER, SHRUB, MEADOW, VERGE, GARDEN, WETLAND, RIVER, LAKE, ROAD, TILED_ROOF, FLAT_ROOF, QUARRY = range(
    1, 14
)
CROP = 20
CROPS = (
    "winter_wheat",
    "maize",
    "rapeseed",
    "winter_barley",
    "sunflower",
    "sugar_beet",
    "soybean",
    "potato",
    "alfalfa",
)
SURFACES = CROP + len(CROPS)
"""Number of surface codes, 0 (nothing) included."""

VILLAGE = 200
"""Kind of a parcel in a village. Not a surface: houses, gardens and streets lie on it."""
NATURE = 0
"""Kind of a parcel left to forest, meadow, shrub and wetland."""

# WorldCover codes (ESA WorldCover product user manual v2.0, table 3).
TREE_COVER, SHRUBLAND, GRASSLAND, CROPLAND, BUILT_UP, BARE, WATER, HERBACEOUS_WETLAND = 10, 20, 30, 40, 50, 60, 80, 90


def _cover_table() -> NDArray[np.uint8]:
    table = np.zeros(256, dtype=np.uint8)
    table[[BROADLEAF, CONIFER]] = TREE_COVER
    table[SHRUB] = SHRUBLAND
    table[[MEADOW, VERGE, GARDEN]] = GRASSLAND
    table[[ROAD, TILED_ROOF, FLAT_ROOF]] = BUILT_UP
    table[QUARRY] = BARE
    table[[RIVER, LAKE]] = WATER
    table[WETLAND] = HERBACEOUS_WETLAND
    table[CROP:SURFACES] = CROPLAND
    return table


COVER = _cover_table()
"""WorldCover code of each surface code."""

BLOCK_M = 640.0
"""Mean side of a block of farmland."""
TURN = 0.33
"""Angle of the lattice of blocks against north: nothing in the world is parallel to the pixels."""
STRIPS, PIECES = 5, 3
"""At most so many strips in a block and parcels in a strip."""
INDEX_SHIFT = 2048
"""Block indices are -2048 .. 2047 (1300 km to each side), so that a field id fits into 28 bits."""
RIVER_EVERY_M = 12_000.0
LAKE_EVERY_M = 3_000.0
ROAD_HALF_M = (0.0, 2.2, 5.0)
"""Half width of: no road, track, main road."""
STREET_HALF_M = 3.5
PLOTS = 15
"""Plots along a side of a village block; a plot has at most one house."""

# One number a use of the noise; `seed * SEEDS` keeps the octaves of different worlds apart.
SEEDS = 4096
HILLS, RIVER_BEND, RIVER_WIDTH, LAKES, WOODS, TREES, BUSH, BEND_X, BEND_Y, JITTER = (
    0,
    16,
    32,
    48,
    64,
    80,
    96,
    112,
    128,
    144,
)
CUTS, KINDS, ROADS, HAMLET, HOUSE, VARY, TEXTURE, SOIL = 160, 176, 192, 208, 224, 240, 256, 272


@jit
def river_course(k: int, y: float, seed: int) -> tuple[float, float]:
    """(x of the middle, half width) of river number ``k`` at a northing, metres; both along the row."""
    s = seed + RIVER_BEND + 7919 * k
    middle = k * RIVER_EVERY_M - 900.0
    middle += 1300.0 * value(y / 5200.0, 0.5, s) + 480.0 * value(y / 1300.0, 0.5, s + 1)
    middle += 150.0 * value(y / 470.0, 0.5, s + 2)
    half = 27.0 + 10.0 * value(y / 2100.0, 0.5, seed + RIVER_WIDTH + k)
    return middle, half


@jit
def river_at(x: float, y: float, seed: int) -> tuple[float, float]:
    """(distance of ``x`` from the middle of the nearest river along the row, half width of that river), metres."""
    middle, half = river_course(math.floor(x / RIVER_EVERY_M + 0.5), y, seed)
    return abs(x - middle), half


@jit
def lake_shape(i: int, j: int, seed: int) -> tuple[float, float, float]:
    """(x, y, radius) of the lake in a cell of the lake lattice; radius 0 where there is none."""
    s = seed + LAKES
    if chance(i, j, s) > 0.55:
        return 0.0, 0.0, 0.0
    x = (i + 0.5 + 0.6 * (chance(i, j, s + 1) - 0.5)) * LAKE_EVERY_M
    y = (j + 0.5 + 0.6 * (chance(i, j, s + 2) - 0.5)) * LAKE_EVERY_M
    radius = 80.0 + 260.0 * chance(i, j, s + 3) ** 2
    distance, _ = river_at(x, y, seed)
    if distance < 1.4 * radius + 200.0:
        return 0.0, 0.0, 0.0
    return x, y, radius


@jit
def shore(i: int, j: int, angle: float, seed: int) -> tuple[float, float]:
    """(shore, island) of a lake in a direction, as shares of its radius; island 0 where the lake has none."""
    s = seed + LAKES + 4
    a = 6.283185307179586 * chance(i, j, s)
    b = 6.283185307179586 * chance(i, j, s + 1)
    c = 6.283185307179586 * chance(i, j, s + 2)
    outer = 1.0 + 0.24 * math.cos(2.0 * angle + a) + 0.12 * math.cos(3.0 * angle + b) + 0.05 * math.cos(5.0 * angle + c)
    inner = 0.0
    if chance(i, j, s + 3) < 0.6:
        inner = 0.22 + 0.06 * math.cos(2.0 * angle + b) + 0.03 * math.cos(3.0 * angle + c)
    return outer, inner


@jit
def lake_at(x: float, y: float, seed: int) -> tuple[float, bool]:
    """(distance from the middle of the nearest lake as a share of its shore's, on water). Far away the share is 9."""
    ci = math.floor(x / LAKE_EVERY_M)
    cj = math.floor(y / LAKE_EVERY_M)
    for j in range(cj - 1, cj + 2):
        for i in range(ci - 1, ci + 2):
            lx, ly, radius = lake_shape(i, j, seed)
            if radius == 0.0:
                continue
            dx = x - lx
            dy = y - ly
            distance = math.sqrt(dx * dx + dy * dy)
            if distance > 2.2 * radius:
                continue
            outer, inner = shore(i, j, math.atan2(dy, dx), seed)
            share = distance / (radius * outer)
            return share, share < 1.0 and distance >= radius * inner
    return 9.0, False


@jit
def height_at(x: float, y: float, seed: int) -> float:
    """Height of the ground in metres. Hills fade into the valley of a river."""
    distance, _ = river_at(x, y, seed)
    t = min(distance / 3200.0, 1.0)
    valley = t * t * (3.0 - 2.0 * t)
    hills = 0.5 + 0.5 * fbm(x / 5200.0, y / 5200.0, 6, seed + HILLS)
    return (
        128.0
        + 14.0 * t
        + valley * 420.0 * hills * hills * (0.45 + 0.55 * hills)
        + 3.0 * value(x / 310.0, y / 310.0, seed + HILLS + 9)
    )


@jit
def wood_at(x: float, y: float, seed: int) -> float:
    """Bent to be forest: above 0 it is one. More so on hills than in the valley."""
    distance, _ = river_at(x, y, seed)
    upland = min(distance / 3600.0, 1.0)
    hills = fbm(x / 5200.0, y / 5200.0, 3, seed + HILLS)
    return 0.9 * fbm(x / 1300.0, y / 1300.0, 5, seed + WOODS) + 0.55 * hills * upland + 0.34 * upland - 0.30


@jit
def nature_near(x: float, y: float, seed: int) -> bool:
    """Whether a farmer would leave this place alone: forest, or the bank of a river or lake."""
    if wood_at(x, y, seed) > -0.03:
        return True
    distance, half = river_at(x, y, seed)
    if distance < half + 35.0:
        return True
    share, _ = lake_at(x, y, seed)
    return share < 1.25


@jit
def node_at(i: int, j: int, seed: int) -> tuple[float, float]:
    """(x, y) of a node of the lattice of blocks."""
    c = math.cos(TURN)
    s = math.sin(TURN)
    x = BLOCK_M * (c * i - s * j)
    y = BLOCK_M * (s * i + c * j)
    bx = 330.0 * fbm(x / 4700.0, y / 4700.0, 2, seed + BEND_X)
    by = 330.0 * fbm(x / 4700.0, y / 4700.0, 2, seed + BEND_Y)
    return (
        x + bx + 0.26 * BLOCK_M * (chance(i, j, seed + JITTER) - 0.5),
        y + by + 0.26 * BLOCK_M * (chance(i, j, seed + JITTER + 1) - 0.5),
    )


@jit
def field_id(i: int, j: int, p: int) -> int:
    """Number of the field on parcel ``p`` of a block: positive, below 2**28, the same in every world of a seed."""
    return ((j + INDEX_SHIFT) * 4096 + i + INDEX_SHIFT) * 16 + p + 1


@jit
def village_at(i: int, j: int, seed: int) -> tuple[int, int]:
    """Middle block of the village of the 5 x 5 blocks around a block."""
    ci = i // 5
    cj = j // 5
    s = seed + HAMLET
    return ci * 5 + 1 + int(3 * chance(ci, cj, s)), cj * 5 + 1 + int(3 * chance(ci, cj, s + 1))


@jit
def hamlet_at(i: int, j: int, seed: int) -> bool:
    """Whether a block would be part of a village. Each 5 x 5 blocks have one, of one to five blocks around a middle."""
    mi, mj = village_at(i, j, seed)
    steps = abs(i - mi) + abs(j - mj)
    return steps == 0 or (steps == 1 and chance(i, j, seed + HAMLET + 2) < 0.75)


@jit
def crop_at(i: int, j: int, p: int, seed: int) -> int:
    """Surface code of the crop on a parcel; wheat and maize are the most common."""
    c = chance(i * 16 + p, j, seed + KINDS)
    shares = (0.27, 0.47, 0.60, 0.70, 0.78, 0.85, 0.91, 0.95)
    for k in range(8):
        if c < shares[k]:
            return CROP + k
    return CROP + 8


@jit
def lay_blocks(
    i0: int, j0: int, ni: int, nj: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tables of ``nj`` x ``ni`` blocks from (i0, j0) on.

    Returns:
        nodes ``(nj + 1, ni + 1, 2)`` metres; strips ``(nj, ni, 6)`` cuts across the block, 0 .. 1, padded with 2;
        pieces ``(nj, ni, 5, 4)`` cuts along each strip, the same way; kinds ``(nj, ni, 5, 3)`` uint8 surface codes of
        crops, NATURE, MEADOW, QUARRY or VILLAGE; roads east ``(nj + 1, ni)`` and roads north ``(nj, ni + 1)`` uint8:
        0 none, 1 track, 2 main road, of the side that begins at a node.
    """
    nodes = np.empty((nj + 1, ni + 1, 2))
    for j in range(nj + 1):
        for i in range(ni + 1):
            x, y = node_at(i0 + i, j0 + j, seed)
            nodes[j, i, 0] = x
            nodes[j, i, 1] = y
    strips = np.full((nj, ni, STRIPS + 1), 2.0)
    pieces = np.full((nj, ni, STRIPS, PIECES + 1), 2.0)
    kinds = np.zeros((nj, ni, STRIPS, PIECES), np.uint8)
    for j in range(nj):
        for i in range(ni):
            bi = i0 + i
            bj = j0 + j
            hamlet = hamlet_at(bi, bj, seed)
            if hamlet:
                mx = 0.25 * (nodes[j, i, 0] + nodes[j, i + 1, 0] + nodes[j + 1, i, 0] + nodes[j + 1, i + 1, 0])
                my = 0.25 * (nodes[j, i, 1] + nodes[j, i + 1, 1] + nodes[j + 1, i, 1] + nodes[j + 1, i + 1, 1])
                hamlet = not nature_near(mx, my, seed)
            n = 2 + int(4 * chance(bi, bj, seed + CUTS))
            if hamlet:
                n = 1
            for k in range(n + 1):
                wobble = 0.0 if k in (0, n) else 0.5 * (chance(bi * 16 + k, bj, seed + CUTS + 1) - 0.5)
                strips[j, i, k] = (k + wobble) / n
            for k in range(n):
                m = 1 + int(3 * chance(bi * 16 + k, bj, seed + CUTS + 2))
                if hamlet:
                    m = 1
                for q in range(m + 1):
                    wobble = 0.0 if q in (0, m) else 0.5 * (chance(bi * 16 + k, bj * 16 + q, seed + CUTS + 3) - 0.5)
                    pieces[j, i, k, q] = (q + wobble) / m
                for q in range(m):
                    if hamlet:
                        kinds[j, i, k, q] = VILLAGE
                        continue
                    wild = False
                    for a in range(3):
                        for b in range(3):
                            u = strips[j, i, k] + 0.5 * a * (strips[j, i, k + 1] - strips[j, i, k])
                            v = pieces[j, i, k, q] + 0.5 * b * (pieces[j, i, k, q + 1] - pieces[j, i, k, q])
                            x, y = inside_block(nodes, j, i, u, v)
                            wild = wild or nature_near(x, y, seed)
                    c = chance(bi * 16 + k * 3 + q, bj, seed + KINDS + 1)
                    if wild:
                        kinds[j, i, k, q] = NATURE
                    elif c < 0.09:
                        kinds[j, i, k, q] = MEADOW
                    elif c < 0.10:
                        kinds[j, i, k, q] = QUARRY
                    else:
                        kinds[j, i, k, q] = crop_at(bi, bj, k * 3 + q, seed)
    east = np.zeros((nj + 1, ni), np.uint8)
    north = np.zeros((nj, ni + 1), np.uint8)
    for j in range(nj + 1):
        for i in range(ni + 1):
            for turn in range(2):
                oi = i + 1 - turn
                oj = j + turn
                if oi > ni or oj > nj:
                    continue
                line = j0 + j if turn == 0 else i0 + i
                road = 2 if line % 4 == 0 else 1
                if road == 1 and chance(i0 + i, j0 + j, seed + ROADS + turn) > 0.8:
                    road = 0
                for k in range(13):
                    t = k / 12.0
                    x = nodes[j, i, 0] + t * (nodes[oj, oi, 0] - nodes[j, i, 0])
                    y = nodes[j, i, 1] + t * (nodes[oj, oi, 1] - nodes[j, i, 1])
                    share, _ = lake_at(x, y, seed)
                    distance, half = river_at(x, y, seed)
                    if share < 1.05 or (road == 1 and (distance < half + 60.0 or wood_at(x, y, seed) > 0.2)):
                        road = 0
                if turn == 0:
                    east[j, i] = road
                else:
                    north[j, i] = road
    return nodes, strips, pieces, kinds, east, north


@jit
def inside_block(nodes: np.ndarray, j: int, i: int, u: float, v: float) -> tuple[float, float]:
    """World (x, y) of the place (u, v) in a block; lines of equal u or v are straight."""
    x = (1 - u) * (1 - v) * nodes[j, i, 0] + u * (1 - v) * nodes[j, i + 1, 0]
    x += (1 - u) * v * nodes[j + 1, i, 0] + u * v * nodes[j + 1, i + 1, 0]
    y = (1 - u) * (1 - v) * nodes[j, i, 1] + u * (1 - v) * nodes[j, i + 1, 1]
    y += (1 - u) * v * nodes[j + 1, i, 1] + u * v * nodes[j + 1, i + 1, 1]
    return x, y


@jit
def beside(ax: float, ay: float, bx: float, by: float, x: float, y: float) -> float:
    """Distance of a place from the line a to b, metres, positive on the left."""
    dx = bx - ax
    dy = by - ay
    return (dx * (y - ay) - dy * (x - ax)) / math.sqrt(dx * dx + dy * dy)


@jit
def find_block(nodes: np.ndarray, i: int, j: int, x: float, y: float) -> tuple[int, int]:
    """(i, j) in the tables of the block around a place, walking from a guess."""
    for _ in range(64):
        if beside(nodes[j, i, 0], nodes[j, i, 1], nodes[j, i + 1, 0], nodes[j, i + 1, 1], x, y) < 0.0:
            j -= 1
        elif (
            beside(nodes[j + 1, i, 0], nodes[j + 1, i, 1], nodes[j + 1, i + 1, 0], nodes[j + 1, i + 1, 1], x, y) >= 0.0
        ):
            j += 1
        elif beside(nodes[j, i, 0], nodes[j, i, 1], nodes[j + 1, i, 0], nodes[j + 1, i, 1], x, y) >= 0.0:
            i -= 1
        elif beside(nodes[j, i + 1, 0], nodes[j, i + 1, 1], nodes[j + 1, i + 1, 0], nodes[j + 1, i + 1, 1], x, y) < 0.0:
            i += 1
        else:
            break
    return i, j


@jit
def inverse(nodes: np.ndarray, j: int, i: int, x: float, y: float) -> tuple[float, float]:
    """(u, v) of a place in its block: :func:`inside_block` undone."""
    ex = nodes[j, i + 1, 0] - nodes[j, i, 0]
    ey = nodes[j, i + 1, 1] - nodes[j, i, 1]
    fx = nodes[j + 1, i, 0] - nodes[j, i, 0]
    fy = nodes[j + 1, i, 1] - nodes[j, i, 1]
    gx = nodes[j + 1, i + 1, 0] - nodes[j + 1, i, 0] - ex
    gy = nodes[j + 1, i + 1, 1] - nodes[j + 1, i, 1] - ey
    hx = x - nodes[j, i, 0]
    hy = y - nodes[j, i, 1]
    k2 = gx * fy - gy * fx
    k1 = ex * fy - ey * fx + hx * gy - hy * gx
    k0 = hx * ey - hy * ex
    # The root that goes to -k0 / k1 when the block is a parallelogram (k2 = 0), in the form that does not cancel.
    v = -2.0 * k0 / (k1 + math.sqrt(max(k1 * k1 - 4.0 * k2 * k0, 0.0)))
    dx = ex + gx * v
    dy = ey + gy * v
    u = ((hx - fx * v) * dx + (hy - fy * v) * dy) / (dx * dx + dy * dy)
    return u, v


@jit
def field_cut(strips: np.ndarray, pieces: np.ndarray, k: int, q: int) -> tuple[float, float, float, float]:
    """(u0, v0, u1, v1) of the tilled part of a parcel: a verge stays free beside roads and between neighbours."""
    u0, u1 = strips[k], strips[k + 1]
    v0, v1 = pieces[k, q], pieces[k, q + 1]
    u0 = 0.016 if u0 == 0.0 else u0 + 0.0025
    v0 = 0.016 if v0 == 0.0 else v0 + 0.0025
    u1 = 0.984 if u1 == 1.0 else u1 - 0.0025
    v1 = 0.984 if v1 == 1.0 else v1 - 0.0025
    return u0, v0, u1, v1


@jit
def built_at(i: int, j: int, u: float, v: float, seed: int) -> float:
    """How dense a village is at a place (u, v) of one of its blocks: 1 at its heart, 0 and below outside."""
    mi, mj = village_at(i, j, seed)
    # Measured in blocks: the village is bent as they are, which a distance in metres would not be.
    du = i + u - mi - 0.5
    dv = j + v - mj - 0.5
    size = 0.55 + 0.35 * chance(mi, mj, seed + HAMLET + 3)
    ragged = 0.55 * fbm((i + u) * 2.3, (j + v) * 2.3, 2, seed + HAMLET + 4)
    return 1.0 - math.sqrt(du * du + dv * dv) / size + ragged


@jit
def house_cut(bi: int, bj: int, pu: int, pv: int, seed: int) -> tuple[float, float, float, float, int]:
    """(u0, v0, u1, v1, surface) of the house on a plot of a village block; surface 0 where there is none."""
    s = seed + HOUSE
    a = bi * 16 + pu
    b = bj * 16 + pv
    dense = built_at(bi, bj, (pu + 0.5) / PLOTS, (pv + 0.5) / PLOTS, seed)
    if dense < 0.0 or chance(a, b, s) > 0.55 + 0.6 * dense:
        return 0.0, 0.0, 0.0, 0.0, 0
    big = chance(a, b, s + 1) + 0.12 * dense
    width = 0.28 + 0.24 * chance(a, b, s + 2) + (0.28 if big > 0.92 else 0.0)
    depth = 0.28 + 0.20 * chance(a, b, s + 3) + (0.22 if big > 0.92 else 0.0)
    u0 = (pu + 0.1 + (0.8 - width) * chance(a, b, s + 4)) / PLOTS
    v0 = (pv + 0.1 + (0.8 - depth) * chance(a, b, s + 5)) / PLOTS
    surface = FLAT_ROOF if big > 0.82 else TILED_ROOF
    return u0, v0, u0 + width / PLOTS, v0 + depth / PLOTS, surface


@jit
def survey(
    x: np.ndarray,
    y: np.ndarray,
    i0: int,
    j0: int,
    nodes: np.ndarray,
    strips: np.ndarray,
    pieces: np.ndarray,
    kinds: np.ndarray,
    east: np.ndarray,
    north: np.ndarray,
    seed: int,
    surface: np.ndarray,
    field: np.ndarray,
    road_m: np.ndarray,
    road_half_m: np.ndarray,
    vary: np.ndarray,
    texture: np.ndarray,
) -> None:
    """Fill the outputs (flat, one value a place) from the tables; see :class:`Ground` for what they hold."""
    c = math.cos(TURN)
    s = math.sin(TURN)
    ni = kinds.shape[1]
    nj = kinds.shape[0]
    i = -1
    j = -1
    for n in range(x.size):
        px = x[n]
        py = y[n]
        if i < 0 or n % 512 == 0:
            gi = (c * px + s * py) / BLOCK_M
            gj = (-s * px + c * py) / BLOCK_M
            i = min(max(math.floor(gi) - i0, 0), ni - 1)
            j = min(max(math.floor(gj) - j0, 0), nj - 1)
        i, j = find_block(nodes, i, j, px, py)
        bi = i0 + i
        bj = j0 + j
        u, v = inverse(nodes, j, i, px, py)
        k = 0
        while k < STRIPS - 1 and u >= strips[j, i, k + 1]:
            k += 1
        q = 0
        while q < PIECES - 1 and v >= pieces[j, i, k, q + 1]:
            q += 1
        kind = kinds[j, i, k, q]
        p = k * 3 + q
        fine = fbm(px / 260.0, py / 260.0, 3, seed + TEXTURE)
        texture[n] = fine
        vary[n] = chance(bi * 16 + p, bj, seed + VARY)
        field[n] = 0

        # The nearest road among the four sides of the block.
        road = 1e9
        half = 0.0
        for side in range(4):
            if side == 0:
                width = ROAD_HALF_M[east[j, i]]
                d = beside(nodes[j, i, 0], nodes[j, i, 1], nodes[j, i + 1, 0], nodes[j, i + 1, 1], px, py)
            elif side == 1:
                width = ROAD_HALF_M[east[j + 1, i]]
                d = -beside(
                    nodes[j + 1, i, 0], nodes[j + 1, i, 1], nodes[j + 1, i + 1, 0], nodes[j + 1, i + 1, 1], px, py
                )
            elif side == 2:
                width = ROAD_HALF_M[north[j, i]]
                d = -beside(nodes[j, i, 0], nodes[j, i, 1], nodes[j + 1, i, 0], nodes[j + 1, i, 1], px, py)
            else:
                width = ROAD_HALF_M[north[j, i + 1]]
                d = beside(
                    nodes[j, i + 1, 0], nodes[j, i + 1, 1], nodes[j + 1, i + 1, 0], nodes[j + 1, i + 1, 1], px, py
                )
            if width > 0.0 and d - width < road - half:
                road = d
                half = width
        if kind == VILLAGE:
            for street in range(2):
                d = abs((u if street == 0 else v) - 0.5) * BLOCK_M
                if d - STREET_HALF_M < road - half:
                    road = d
                    half = STREET_HALF_M
        road_m[n] = min(road, 1000.0)
        road_half_m[n] = half

        river, river_half = river_at(px, py, seed)
        lake, on_lake = lake_at(px, py, seed) if kind in (NATURE, VILLAGE) else (9.0, False)
        if road < half:
            surface[n] = ROAD
        elif river < river_half:
            surface[n] = RIVER
        elif on_lake:
            surface[n] = LAKE
        elif kind == VILLAGE:
            pu = min(int(u * PLOTS), PLOTS - 1)
            pv = min(int(v * PLOTS), PLOTS - 1)
            hu0, hv0, hu1, hv1, roof = house_cut(bi, bj, pu, pv, seed)
            if roof != 0 and hu0 <= u < hu1 and hv0 <= v < hv1:
                surface[n] = roof
                vary[n] = chance(bi * 16 + pu, bj * 16 + pv, seed + VARY + 1)
            else:
                green = value(px / 28.0, py / 28.0, seed + BUSH + 5)
                dense = built_at(bi, bj, u, v, seed)
                vary[n] = 0.5 + 0.49 * value(px / 40.0, py / 40.0, seed + VARY + 2)
                if dense > -0.12:
                    surface[n] = BROADLEAF if green > 0.5 else GARDEN
                elif green > 0.75:
                    surface[n] = SHRUB
                else:
                    surface[n] = MEADOW
        elif kind == NATURE:
            vary[n] = min(max(0.5 + 0.9 * fbm(px / 420.0, py / 420.0, 3, seed + VARY + 3), 0.0), 0.999)
            bank = min(river - river_half, 250.0 * (lake - 1.0)) if lake >= 1.0 else 0.0
            wood = wood_at(px, py, seed)
            if bank < 22.0 + 55.0 * value(px / 160.0, py / 160.0, seed + BUSH + 3):
                surface[n] = WETLAND if value(px / 190.0, py / 190.0, seed + BUSH + 4) > -0.1 else BROADLEAF
            elif wood > 0.0:
                firs = fbm(px / 800.0, py / 800.0, 6, seed + TREES) + 0.25 * min(wood, 0.6)
                surface[n] = CONIFER if firs > 0.14 else BROADLEAF
            elif fbm(px / 150.0, py / 150.0, 3, seed + BUSH) > 0.27:
                surface[n] = SHRUB
            else:
                surface[n] = MEADOW
        else:
            u0, v0, u1, v1 = field_cut(strips[j, i], pieces[j, i], k, q)
            if u0 <= u < u1 and v0 <= v < v1:
                surface[n] = kind
                if kind >= CROP:
                    field[n] = field_id(bi, bj, p)
            else:
                surface[n] = VERGE


@jit
def heights(x: np.ndarray, y: np.ndarray, seed: int, out: np.ndarray) -> None:
    """Fill ``out`` with the height at each place, metres."""
    for n in range(x.size):
        out[n] = height_at(x[n], y[n], seed)


@jit
def slopes(x: np.ndarray, y: np.ndarray, seed: int, out_x: np.ndarray, out_y: np.ndarray) -> None:
    """Fill the outputs with the rise to the east and to the north, metres a metre, over 20 m."""
    for n in range(x.size):
        out_x[n] = (height_at(x[n] + 10.0, y[n], seed) - height_at(x[n] - 10.0, y[n], seed)) / 20.0
        out_y[n] = (height_at(x[n], y[n] + 10.0, seed) - height_at(x[n], y[n] - 10.0, seed)) / 20.0


class Ground(NamedTuple):
    """The truth at some places; all arrays have the shape of the places."""

    surface: NDArray[np.uint8]
    """What covers the ground: one of the surface codes of this module."""
    field: NDArray[np.int32]
    """Number of the field, 0 where there is none."""
    road_m: NDArray[np.float32]
    """Distance to the middle of the nearest road, at most 1000 m."""
    road_half_m: NDArray[np.float32]
    """Half width of that road."""
    vary: NDArray[np.float32]
    """How a parcel differs from its like, 0 .. 1: sowing date, species, roof."""
    texture: NDArray[np.float32]
    """Smooth unevenness within a parcel, about -1 .. 1."""

    @property
    def cover(self) -> NDArray[np.uint8]:
        """WorldCover code."""
        return COVER[self.surface]

    @property
    def crop(self) -> NDArray[np.uint8]:
        """Crop as its place in CROPS plus 1; 0 outside the fields."""
        return np.where(self.surface >= CROP, self.surface - (CROP - 1), 0).astype(np.uint8)


class Blocks(NamedTuple):
    """Tables of the blocks around some area; see :func:`lay_blocks`."""

    i0: int
    j0: int
    nodes: NDArray[np.float64]
    strips: NDArray[np.float64]
    pieces: NDArray[np.float64]
    kinds: NDArray[np.uint8]
    east: NDArray[np.uint8]
    north: NDArray[np.uint8]


def spread(seed: int) -> int:
    """The number that the kernels of this module take for a world's seed: far apart for neighbouring seeds."""
    return seed * SEEDS + 1


def blocks_of(bounds: tuple[float, float, float, float], seed: int) -> Blocks:
    """Blocks that may touch an area, with enough around it that a walk from any guess stays inside.

    Args:
        bounds: (minx, miny, maxx, maxy), world metres.
        seed: The world's.
    """
    minx, miny, maxx, maxy = bounds
    c, s = math.cos(TURN), math.sin(TURN)
    corners = [(x, y) for x in (minx, maxx) for y in (miny, maxy)]
    along = [(c * x + s * y) / BLOCK_M for x, y in corners]
    across = [(-s * x + c * y) / BLOCK_M for x, y in corners]
    # Bends of at most 330 m each way and a jitter of 83 m move a node by less than one block; one more to walk over.
    i0, i1 = math.floor(min(along)) - 3, math.floor(max(along)) + 4
    j0, j1 = math.floor(min(across)) - 3, math.floor(max(across)) + 4
    return Blocks(i0, j0, *lay_blocks(i0, j0, i1 - i0, j1 - j0, spread(seed)))


def ground(x: NDArray[np.float64], y: NDArray[np.float64], seed: int, blocks: Blocks | None = None) -> Ground:
    """The truth at places given in world metres; ``blocks`` saves laying them again for every call.

    Args:
        x: World metres to the east, any shape.
        y: World metres to the north, the same shape.
        seed: The world's.
        blocks: From :func:`blocks_of` for an area that holds all places.
    """
    if x.size == 0:
        empty = np.zeros(x.shape, np.float32)
        return Ground(np.zeros(x.shape, np.uint8), np.zeros(x.shape, np.int32), empty, empty, empty, empty)
    if blocks is None:
        blocks = blocks_of((float(x.min()), float(y.min()), float(x.max()), float(y.max())), seed)
    out = Ground(
        np.empty(x.shape, np.uint8),
        np.empty(x.shape, np.int32),
        np.empty(x.shape, np.float32),
        np.empty(x.shape, np.float32),
        np.empty(x.shape, np.float32),
        np.empty(x.shape, np.float32),
    )
    survey(
        np.ascontiguousarray(x).ravel(),
        np.ascontiguousarray(y).ravel(),
        *blocks,
        spread(seed),
        *(array.ravel() for array in out),
    )
    return out


def elevation(x: NDArray[np.float64], y: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    """Height of the ground at places given in world metres: float32 metres above the geoid, no void."""
    out = np.empty(x.shape, np.float32)
    heights(np.ascontiguousarray(x).ravel(), np.ascontiguousarray(y).ravel(), spread(seed), out.ravel())
    return out


def slope(x: NDArray[np.float64], y: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(rise to the east, rise to the north) at places given in world metres, metres a metre."""
    rise_x = np.empty(x.shape, np.float32)
    rise_y = np.empty(x.shape, np.float32)
    slopes(
        np.ascontiguousarray(x).ravel(), np.ascontiguousarray(y).ravel(), spread(seed), rise_x.ravel(), rise_y.ravel()
    )
    return rise_x, rise_y
