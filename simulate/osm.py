"""The landscape as vectors: ``fields.geojson``, and the same as OpenStreetMap data in an ``.osm.pbf``.

Fields, houses, lakes, rivers and roads are the shapes that the pixels are computed from. Outlines of forest and wetland
exist only as noise, so they are traced from a raster of 15 m and smoothed: true to about a pixel.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from simulate import landscape as land
from simulate.frame import places, world_to_lonlat
from simulate.landscape import Blocks, blocks_of
from simulate.world import Raster, WorldSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

TRACE_M = 15.0
"""Pixel of the raster that outlines of forest and wetland are traced from."""
TRACE_CELL_PX = 320
"""Forests are traced in squares of so many pixels, so that no outline grows without end."""
WAY_NODES = 1900
"""At most so many nodes in a way; the limit of the OpenStreetMap database is 2000."""

Feature = tuple[dict[str, str], shapely.Polygon | shapely.LineString]


def _block_quads(blocks: Blocks, j: int, i: int, cuts: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Corners of a part (u0, v0, u1, v1) of a block, counter-clockwise, world metres, ``(4, 2)``."""
    u0, v0, u1, v1 = cuts
    corners = [(u0, v0), (u1, v0), (u1, v1), (u0, v1)]
    return np.array([land.inside_block(blocks.nodes, j, i, u, v) for u, v in corners])


def _each_block(blocks: Blocks, half: float) -> Iterator[tuple[int, int]]:
    """(j, i) of the blocks that touch the square area."""
    nodes = blocks.nodes
    corners = np.stack([nodes[:-1, :-1], nodes[:-1, 1:], nodes[1:, :-1], nodes[1:, 1:]])
    near = np.all(corners.max(axis=0) > -half, axis=-1) & np.all(corners.min(axis=0) < half, axis=-1)
    yield from zip(*(index.tolist() for index in np.nonzero(near)), strict=True)


def _polygon(
    spec: WorldSpec, ring: NDArray[np.float64], holes: tuple[NDArray[np.float64], ...] = ()
) -> shapely.Polygon:
    """A polygon in EPSG:4326 from rings in world metres."""
    return shapely.Polygon(
        world_to_lonlat(spec, ring[:, 0], ring[:, 1]),
        [world_to_lonlat(spec, hole[:, 0], hole[:, 1]) for hole in holes],
    )


def fields(spec: WorldSpec, blocks: Blocks | None = None) -> Iterator[tuple[int, str, shapely.Polygon]]:
    """(id, crop, polygon in EPSG:4326) of every field whose middle lies in the area."""
    half = spec.size_m / 2
    blocks = blocks or blocks_of((-half, -half, half, half), spec.seed)
    for j, i in _each_block(blocks, half):
        for k, q in itertools.product(range(land.STRIPS), range(land.PIECES)):
            kind = int(blocks.kinds[j, i, k, q])
            if kind < land.CROP or kind == land.VILLAGE:
                continue
            ring = _block_quads(blocks, j, i, land.field_cut(blocks.strips[j, i], blocks.pieces[j, i], k, q))
            if np.abs(ring.mean(axis=0)).max() >= half:
                continue
            number = land.field_id(blocks.i0 + i, blocks.j0 + j, k * land.PIECES + q)
            yield number, land.CROPS[kind - land.CROP], _polygon(spec, ring)


def write_fields(path: Path, spec: WorldSpec) -> int:
    """Write the fields as GeoJSON (properties ``id`` and ``label``); returns their number."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "name": "fields", "features": [')
        for number, crop, polygon in fields(spec):
            feature = {
                "type": "Feature",
                "properties": {"id": number, "label": crop},
                "geometry": shapely.geometry.mapping(polygon),
            }
            file.write(("," if count else "") + "\n" + json.dumps(feature))
            count += 1
        file.write("\n]}\n")
    return count


def _parcels(spec: WorldSpec, blocks: Blocks) -> Iterator[Feature]:
    """Meadows, quarries and villages with their houses."""
    half = spec.size_m / 2
    seed = land.spread(spec.seed)
    use = {land.MEADOW: {"landuse": "meadow"}, land.QUARRY: {"landuse": "quarry"}}
    for j, i in _each_block(blocks, half):
        if blocks.kinds[j, i, 0, 0] == land.VILLAGE:
            yield {"landuse": "residential"}, _polygon(spec, _block_quads(blocks, j, i, (0.0, 0.0, 1.0, 1.0)))
            bi, bj = blocks.i0 + i, blocks.j0 + j
            for pu, pv in itertools.product(range(land.PLOTS), range(land.PLOTS)):
                u0, v0, u1, v1, roof = land.house_cut(bi, bj, pu, pv, seed)
                if roof:
                    kind = "house" if roof == land.TILED_ROOF else "industrial"
                    yield {"building": kind}, _polygon(spec, _block_quads(blocks, j, i, (u0, v0, u1, v1)))
            continue
        for k, q in itertools.product(range(land.STRIPS), range(land.PIECES)):
            tags = use.get(int(blocks.kinds[j, i, k, q]))
            if tags:
                cuts = land.field_cut(blocks.strips[j, i], blocks.pieces[j, i], k, q)
                yield tags, _polygon(spec, _block_quads(blocks, j, i, cuts))


def _roads(spec: WorldSpec, blocks: Blocks) -> Iterator[Feature]:
    """Tracks, main roads and streets as lines. Sides of blocks that follow each other become one way."""
    half = spec.size_m / 2
    names = {1: {"highway": "track"}, 2: {"highway": "secondary"}}
    lines = [(blocks.east[j], blocks.nodes[j]) for j in range(blocks.east.shape[0])]
    lines += [(blocks.north[:, i], blocks.nodes[:, i]) for i in range(blocks.north.shape[1])]
    for kinds, nodes in lines:
        near = (np.abs(nodes[:-1]).max(axis=1) < half) | (np.abs(nodes[1:]).max(axis=1) < half)
        effective = np.where(near, kinds, 0)
        for road, run in itertools.groupby(range(len(effective)), key=lambda n, e=effective: int(e[n])):  # type: ignore[misc]
            if road:
                steps = list(run)
                points = nodes[steps[0] : steps[-1] + 2]
                yield names[road], shapely.LineString(world_to_lonlat(spec, points[:, 0], points[:, 1]))
    for j, i in _each_block(blocks, half):
        if blocks.kinds[j, i, 0, 0] == land.VILLAGE:
            for ends in (((0.0, 0.5), (1.0, 0.5)), ((0.5, 0.0), (0.5, 1.0))):
                points = np.array([land.inside_block(blocks.nodes, j, i, u, v) for u, v in ends])
                line = shapely.LineString(world_to_lonlat(spec, points[:, 0], points[:, 1]))
                yield {"highway": "residential"}, line


def _waters(spec: WorldSpec) -> Iterator[Feature]:
    """Lakes, with their islands as holes, and rivers in reaches."""
    half = spec.size_m / 2
    seed = land.spread(spec.seed)
    cells = range(math.floor(-half / land.LAKE_EVERY_M) - 1, math.floor(half / land.LAKE_EVERY_M) + 2)
    angles = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    for j, i in itertools.product(cells, cells):
        x, y, radius = land.lake_shape(i, j, seed)
        if radius == 0.0 or max(abs(x), abs(y)) > half + radius:
            continue
        outer, inner = np.array([land.shore(i, j, angle, seed) for angle in angles]).T * radius
        rings = [np.stack([x + r * np.cos(angles), y + r * np.sin(angles)], axis=1) for r in (outer, inner)]
        yield {"natural": "water", "water": "lake"}, _polygon(spec, rings[0], tuple(rings[1:]) if inner[0] > 0 else ())
    reach = 20.0 * (WAY_NODES // 4)
    for number in range(math.floor(-half / land.RIVER_EVERY_M) - 1, math.ceil(half / land.RIVER_EVERY_M) + 2):
        for start in np.arange(-half, half, reach):
            ys = np.arange(start, min(start + reach, half) + 10.0, 20.0)
            banks = np.array([land.river_course(number, y, seed) for y in ys])
            left, right = banks[:, 0] - banks[:, 1], banks[:, 0] + banks[:, 1]
            if left.min() > half or right.max() < -half:
                continue
            ring = np.concatenate([np.stack([left, ys], 1), np.stack([right, ys], 1)[::-1]])
            yield {"natural": "water", "water": "river"}, _polygon(spec, ring)


def _wild(spec: WorldSpec) -> Iterator[Feature]:
    """Forests and wetlands, traced."""
    import rasterio.features
    from rasterio.transform import Affine

    tags = {
        land.BROADLEAF: {"landuse": "forest", "leaf_type": "broadleaved"},
        land.CONIFER: {"landuse": "forest", "leaf_type": "needleleaved"},
        land.WETLAND: {"natural": "wetland", "wetland": "marsh"},
    }
    west, south, east, north = spec.lonlat_bounds
    per_lon, per_lat = spec.m_per_degree
    step_x, step_y = TRACE_M / per_lon, TRACE_M / per_lat
    cols, rows = math.ceil((east - west) / step_x), math.ceil((north - south) / step_y)
    for row, col in itertools.product(range(0, rows, TRACE_CELL_PX), range(0, cols, TRACE_CELL_PX)):
        shape = (min(TRACE_CELL_PX, rows - row), min(TRACE_CELL_PX, cols - col))
        raster = Raster(4326, west + col * step_x, north - row * step_y, step_x, step_y, shape)
        surface = land.ground(*places(spec, raster), spec.seed).surface
        # A speck of fewer than 30 pixels (0.7 ha) is no forest of its own.
        surface = rasterio.features.sieve(surface, 30)
        chosen = np.isin(surface, list(tags))
        for geometry, kind in rasterio.features.shapes(surface, mask=chosen, transform=Affine(*raster.transform)):
            traced = shapely.geometry.shape(geometry)
            smooth, tolerance = traced.simplify(0.7 * step_y), 0.7 * step_y
            while shapely.get_num_coordinates(smooth) > WAY_NODES:
                tolerance *= 2
                smooth = traced.simplify(tolerance)
            for part in shapely.get_parts(shapely.set_precision(smooth, 1e-7)):
                yield tags[int(kind)], part


def features(spec: WorldSpec) -> Iterator[Feature]:
    """Every feature of the area in the order it is written: (tags, geometry in EPSG:4326)."""
    half = spec.size_m / 2
    blocks = blocks_of((-half, -half, half, half), spec.seed)
    for number, crop, polygon in fields(spec, blocks):
        yield {"landuse": "farmland", "crop": crop, "ref": str(number)}, polygon
    yield from _parcels(spec, blocks)
    yield from _waters(spec)
    yield from _wild(spec)
    yield from _roads(spec, blocks)


def write_osm(path: Path, spec: WorldSpec) -> dict[str, int]:
    """Write the features as OpenStreetMap data; a polygon with a hole becomes a multipolygon relation.

    Returns:
        How many nodes, ways and relations there are.
    """
    import osmium
    from osmium.osm import mutable

    nodes: dict[tuple[float, float], int] = {}
    ways: list[tuple[list[int], dict[str, str]]] = []
    relations: list[tuple[list[tuple[int, str]], dict[str, str]]] = []

    def way(coordinates: Any, tags: dict[str, str]) -> int:
        refs = [nodes.setdefault((round(x, 7), round(y, 7)), len(nodes) + 1) for x, y in coordinates]
        ways.append((refs, tags))
        return len(ways)

    for tags, geometry in features(spec):
        if isinstance(geometry, shapely.Polygon) and geometry.interiors:
            members = [(way(geometry.exterior.coords, {}), "outer")]
            members += [(way(ring.coords, {}), "inner") for ring in geometry.interiors]
            relations.append((members, {"type": "multipolygon", **tags}))
        else:
            line = geometry.exterior if isinstance(geometry, shapely.Polygon) else geometry
            way(line.coords, tags)
    path.unlink(missing_ok=True)
    with osmium.SimpleWriter(str(path)) as writer:
        for location, number in nodes.items():
            writer.add_node(mutable.Node(id=number, version=1, location=location))
        for number, (refs, tags) in enumerate(ways, 1):
            writer.add_way(mutable.Way(id=number, version=1, nodes=refs, tags=tags))
        for number, (members, tags) in enumerate(relations, 1):
            refs_of = [("w", ref, role) for ref, role in members]
            writer.add_relation(mutable.Relation(id=number, version=1, members=refs_of, tags=tags))
    return {"nodes": len(nodes), "ways": len(ways), "relations": len(relations)}
