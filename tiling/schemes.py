"""The other rules that lay chips: each as its authors published it, with what they say about zones and overlaps.

=============  ===========================  ======================================  =================================
scheme         chips overlap or leave gaps  zone of a chip                          id
=============  ===========================  ======================================  =================================
utm-cells      neither, but at borders      owns the ground; cover counts there     ``32633_10_234_-2099``
mgrs           yes, where tiles do (9.8 km) that of the tile, also beyond its edge  ``33UWP_07_52``
points         as the points do             owns the point                          ``32633_p60231_534120``
polygons       as the polygons do           owns the middle of the chip             ``32633_p60231_534120``
majortom       yes, with their neighbours   owns the cell's corner (or centre)      ``536U_115R``
webmercator    neither                      EPSG:3857                               ``14_8938_5680``
=============  ===========================  ======================================  =================================

Corners of chips that the definition leaves between pixels (points, polygons, Major TOM) are moved to the nearest whole
pixel from the origin of the zone, easting 0 and the equator, so that pixels of the archive are copied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil, cos, floor, pi, radians

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from curate.errors import AoiError
from tiling.aoi import Aoi
from tiling.grid import (
    NORTH_END,
    SAME_AREA,
    SOUTH_END,
    WEB_MERCATOR,
    WEB_MERCATOR_M,
    Chip,
    GridSpec,
    area_in_zone,
    by_zone,
    cells,
    corners,
    equator_northing,
    polygonal,
    projected,
    to_utm,
    zone_area,
    zone_of,
)
from tiling.mgrs import SQUARE_M, TILE_M, Square, square_from_name, square_name, tile_corner
from tiling.places import Place

Laid = tuple[list[Chip], npt.NDArray[np.float64]]

ZONES = (*range(32601, 32661), *range(32701, 32761))

EARTH_KM = 6378.137
"""Radius of the sphere that Major TOM divides, its authors' number."""
MAJOR_TOM_END = 85.0
"""Latitude, north and south, that the rows of Major TOM reach to."""
M_PER_DEGREE = 111_120.0
"""Metres in a degree by which Major TOM finds the centre of a cell when that chooses the zone."""

_FEW = 8
"""Boxes that an area is cut by one by one."""

_NUMBER = r"(-?\d+)"
_IDS = {
    "utm-cells": re.compile(rf"(32[67]\d\d)_([\d.]+)_{_NUMBER}_{_NUMBER}"),
    "mgrs": re.compile(r"(\d\d[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])_(\d+)_(\d+)"),
    "points": re.compile(rf"(32[67]\d\d)_p{_NUMBER}_{_NUMBER}"),
    "polygons": re.compile(rf"(32[67]\d\d)_p{_NUMBER}_{_NUMBER}"),
    "majortom": re.compile(r"(\d+)([UD])_(\d+)([RL])"),
    "webmercator": re.compile(r"(\d+)_(\d+)_(\d+)"),
}
_LIKE = {
    "utm-cells": "32633_10_234_-2099: EPSG code, pixel size, column, row",
    "mgrs": "33UWP_07_52: tile, column from the west, row from the north",
    "points": "32633_p60231_534120: EPSG code, and the lower-left corner in steps of snap_m",
    "polygons": "32633_p60231_534120: EPSG code, and the lower-left corner in steps of snap_m",
    "majortom": "536U_115R: row up or down of the equator, column right or left of Greenwich",
    "webmercator": "14_8938_5680: zoom, x, y",
}


def lay(aoi: Aoi, spec: GridSpec, places: Sequence[Place]) -> tuple[tuple[Chip, ...], npt.NDArray[np.float64]]:
    """Chips and cover as ``tiling.grid.lay_chips`` tells, of any scheme but ``utm``."""
    geometry = aoi.geometry
    match spec.scheme:
        case "utm-cells":
            found = [_utm_cells(geometry, spec, epsg) for epsg in _zones(geometry)]
        case "mgrs":
            found = [_tile(geometry, spec, square) for square in _squares(geometry, spec)]
        case "points":
            found = [_covered(geometry, _about_points(spec, places))]
        case "polygons":
            found = [_covered(geometry, _about_polygons(aoi, spec, places))]
        case "majortom":
            found = [_covered(geometry, _major_tom(geometry, spec))]
        case _:
            found = [_web_mercator(geometry, spec)]
    chips = [chip for laid, _ in found for chip in laid]
    cover = np.concatenate([np.empty(0), *(cover for _, cover in found)])
    keep = np.flatnonzero((cover > 0) & (cover >= spec.min_cover - SAME_AREA)).tolist()
    keep.sort(key=lambda index: (chips[index].epsg, chips[index].bounds[1], chips[index].bounds[0], chips[index].id))
    return tuple(chips[index] for index in keep), cover[keep]


def from_id(id: str, spec: GridSpec) -> Chip:
    """The chip of a grid that has this id, as ``tiling.grid.chip_from_id`` tells."""
    match = _IDS[spec.scheme].fullmatch(id)
    chip = None if match is None else _from_match(match, spec)
    if chip is None or chip.id != id:
        raise ValueError(f"{id!r} is not a chip id of scheme {spec.scheme}; one reads like {_LIKE[spec.scheme]}")
    return chip


def _from_match(match: re.Match[str], spec: GridSpec) -> Chip | None:
    if spec.scheme == "mgrs":
        return _tile_chip(square_from_name(match[1]), match[1], int(match[2]), int(match[3]), spec)
    if spec.scheme == "majortom":
        row, col = int(match[1]) * (-1 if match[2] == "D" else 1), int(match[3]) * (-1 if match[4] == "L" else 1)
        return _major_tom_chip(row, col, spec)
    if spec.scheme == "webmercator":
        return _map_tile(int(match[2]), int(match[3]), spec)
    epsg = int(match[1])
    if not 1 <= epsg % 100 <= 60:
        return None
    if spec.scheme == "utm-cells":
        return _utm_cell(epsg, int(match[3]), int(match[4]), spec)
    return _place_chip(epsg, int(match[2]), int(match[3]), spec)


def _chip(epsg: int, col: int, row: int, spec: GridSpec, edges: tuple[float, float, float, float], name: str) -> Chip:
    return Chip(epsg, col, row, spec.side_px, spec.resolution_m, edges, name)


def _zones(geometry: BaseGeometry) -> list[int]:
    shapely.prepare(geometry)
    return [epsg for epsg in ZONES if geometry.intersects(zone_area(epsg))]


def _covered(geometry: BaseGeometry, chips: Sequence[Chip]) -> Laid:
    """Chips that touch an area (EPSG:4326) and the share of each that lies in it; the area goes on beyond zones."""
    cover = np.zeros(len(chips))
    for epsg, where, bounds in by_zone(chips):
        ring = corners([chips[index] for index in where.tolist()]).reshape(-1, 2)
        (west, south), (east, north) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
        # Edges bulge in degrees.
        parts = _around(geometry, west - 0.2, south - 0.2, east + 0.2, north + 0.2)
        area = polygonal(shapely.union_all([_on_map(part, epsg) for part in parts]))
        cover[where] = _shares(area, bounds)
    touched = np.flatnonzero(cover > 0).tolist()
    return [chips[index] for index in touched], cover[touched]


def _shares(area: BaseGeometry, bounds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of each box ``(n, 4)`` that lies in an area, float64.

    Halves the boxes and cuts the area to each half on the way, so that a border of 100 000 points is never cut as a
    whole for every box on it.
    """
    if area.is_empty or not len(bounds):
        return np.zeros(len(bounds))
    low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    around = shapely.box(*low.tolist(), *high.tolist())
    part = polygonal(shapely.intersection(area, around))
    if part.area >= around.area * (1 - SAME_AREA):
        return np.ones(len(bounds))
    if len(bounds) <= _FEW:
        boxes = np.array(shapely.box(*bounds.T), dtype=object)
        shares: npt.NDArray[np.float64] = shapely.area(shapely.intersection(part, boxes)) / shapely.area(boxes)
        return np.where(shares >= 1 - SAME_AREA, 1.0, shares)
    axis = int(np.argmax(high - low))
    order = np.argsort(bounds[:, axis], kind="stable")
    cover = np.zeros(len(bounds))
    for half in np.array_split(order, 2):
        cover[half] = _shares(part, bounds[half])
    return cover


def _around(geometry: BaseGeometry, west: float, south: float, east: float, north: float) -> list[BaseGeometry]:
    """What of an area lies in a box in degrees, whose longitudes may run beyond ±180°: then it is on two sides."""
    found = [
        polygonal(shapely.intersection(geometry, shapely.box(west + turn, south, east + turn, north)))
        for turn in (-360, 0, 360)
    ]
    return [part for part in found if not part.is_empty]


def _on_map(geometry: BaseGeometry, epsg: int) -> BaseGeometry:
    """The polygons of a lon/lat geometry in the metres of a CRS, mended where bending made edges cross."""
    found = projected(geometry, epsg)
    return polygonal(found if found.is_valid else shapely.make_valid(found))


# --- utm-cells


def _utm_cell(epsg: int, col: int, row: int, spec: GridSpec) -> Chip:
    """A cell of OlmoEarth: columns and rows of pixels counted from the projection's origin, rows downwards from it."""
    side = spec.side_m
    edges = (col * side, -(row + 1) * side, (col + 1) * side, -row * side)
    return _chip(epsg, col, row, spec, edges, f"{epsg}_{spec.resolution_m:g}_{col}_{row}")


def _utm_cells(geometry: BaseGeometry, spec: GridSpec, epsg: int) -> Laid:
    col, up, cover = cells(area_in_zone(geometry, epsg), spec.side_m, 0)
    return [_utm_cell(epsg, c, -r - 1, spec) for c, r in zip(col.tolist(), up.tolist(), strict=True)], cover


# --- mgrs


def _squares(geometry: BaseGeometry, spec: GridSpec) -> list[Square]:
    """The squares whose tiles may reach an area: those that the recipe names, else all that there are tiles of."""
    if spec.tiles:
        return sorted({square_from_name(name) for name in spec.tiles})
    found: list[Square] = []
    for epsg in ZONES:
        # A tile reaches beyond its square, and squares beyond their zone by less than themselves.
        minlon, minlat, maxlon, maxlat = zone_area(epsg).bounds
        reach = 2.2 * SQUARE_M / M_PER_DEGREE
        high = min(max(abs(minlat), abs(maxlat)), 84.0)
        wide = reach / cos(radians(high))
        parts = [
            _on_map(part, epsg)
            for part in _around(geometry, minlon - wide, minlat - reach, maxlon + wide, maxlat + reach)
        ]
        for part in parts:
            if part.is_empty:
                continue
            shapely.prepare(part)
            west, south, east, north = part.bounds
            for col in range(max(1, floor(west / SQUARE_M) - 1), min(8, floor(east / SQUARE_M)) + 1):
                for row in range(floor(south / SQUARE_M), floor(north / SQUARE_M) + 2):
                    square = Square(epsg, col, row)
                    left, top = tile_corner(square)
                    if part.intersects(shapely.box(left, top - TILE_M, left + TILE_M, top)) and _has_tile(square):
                        found.append(square)
    return sorted(set(found))


def _has_tile(square: Square) -> bool:
    """Whether Sentinel-2 has a tile of a square.

    ESA's list has the squares with ground of their zone, but for those in the west of a zone that the last square of
    the zone before reaches over. On the edge towards the equator, which is the widest, that is where neither the left
    end nor the middle belongs to the zone. Found from the list of 20 430 tiles with land: this rule tells all of them
    but six of 31V, in the ground that zone 32 has around Bergen. Zone 1 has no zone before it.
    """
    y0 = equator_northing(square.epsg)
    y = square.north * SQUARE_M + (SQUARE_M - 1 if y0 else 1)
    looks = (1, SQUARE_M / 2, SQUARE_M - 1) if square.epsg % 100 == 1 else (1, SQUARE_M / 2)
    for look in looks:
        lon, lat = to_utm(square.epsg).transform(square.east * SQUARE_M + look, y, direction="INVERSE")
        hemisphere = lat < 0 if y0 else lat >= 0
        if SOUTH_END <= lat <= NORTH_END and abs(lon) <= 180 and hemisphere and int(zone_of(lon, lat)) == square.epsg:
            return True
    return False


def tile_name(square: Square) -> str:
    """Name of the Sentinel-2 tile of a square: the band's letter is that of the square's centre."""
    x, y = (square.east + 0.5) * SQUARE_M, (square.north + 0.5) * SQUARE_M
    _, lat = to_utm(square.epsg).transform(x, y, direction="INVERSE")
    return square_name(square, lat)


def _tile(geometry: BaseGeometry, spec: GridSpec, square: Square) -> Laid:
    name, count = tile_name(square), int(TILE_M // spec.side_m)
    if spec.tiles:  # as the recipe spells it: 33TWP for 33UWP
        spelled = next(tile.upper() for tile in spec.tiles if square_from_name(tile) == square)
        name = spelled.removeprefix("MGRS-").removeprefix("T")
    chips = [_tile_chip(square, name, col, row, spec) for row in range(count) for col in range(count)]
    laid, cover = _covered(geometry, [chip for chip in chips if chip is not None])
    if spec.overlap == "keep":
        return laid, cover
    own = np.array([_in_square(chip, square) for chip in laid], dtype=bool)
    return [chip for chip, kept in zip(laid, own.tolist(), strict=True) if kept], cover[own]


def _in_square(chip: Chip, square: Square) -> bool:
    """Whether the centre of a chip lies in a square and its zone."""
    minx, miny, maxx, maxy = chip.bounds
    x, y = (minx + maxx) / 2, (miny + maxy) / 2
    if (floor(x / SQUARE_M), floor(y / SQUARE_M)) != (square.east, square.north):
        return False
    lon, lat = to_utm(square.epsg).transform(x, y, direction="INVERSE")
    return SOUTH_END <= lat <= NORTH_END and int(zone_of(lon, lat)) == square.epsg


def _tile_chip(square: Square, name: str, col: int, row: int, spec: GridSpec) -> Chip | None:
    """A chip of a tile, counted from its upper-left corner; None beyond the last whole one."""
    left, top = tile_corner(square)
    side = spec.side_m
    count = int(TILE_M // side)
    if not (0 <= col < count and 0 <= row < count):
        return None
    digits = len(str(count - 1))
    edges = (left + col * side, top - (row + 1) * side, left + (col + 1) * side, top - row * side)
    return _chip(square.epsg, col, row, spec, edges, f"{name}_{col:0{digits}d}_{row:0{digits}d}")


# --- points and polygons


def _place_chip(epsg: int, east: int, north: int, spec: GridSpec, name: str = "") -> Chip:
    """The chip whose lower-left corner lies on a step of the lattice that places are moved to."""
    step, side = spec.snap_m or spec.resolution_m, spec.side_m
    x, y = round(east * step, 6), round(equator_northing(epsg) + north * step, 6)
    return _chip(epsg, east, north, spec, (x, y, x + side, y + side), name or f"{epsg}_p{east}_{north}")


def _centred(epsg: int, x: float, y: float, spec: GridSpec, name: str) -> Chip:
    """The chip about a place: with an odd number of pixels the place lies in the middle one, with an even number the
    nearest corner of four pixels is the middle."""
    step, half = spec.snap_m or spec.resolution_m, spec.side_m / 2
    east = floor((x - half) / step + 0.5)
    north = floor((y - half - equator_northing(epsg)) / step + 0.5)
    return _place_chip(epsg, east, north, spec, name)


def _about_points(spec: GridSpec, places: Sequence[Place]) -> list[Chip]:
    """Chips about points; points whose chip is the same, and that have no names, are one."""
    chips: dict[str, Chip] = {}
    for place in places:
        middle = place.geometry.centroid  # of a point itself
        epsg = int(zone_of(middle.x, middle.y))
        x, y = to_utm(epsg).transform(middle.x, middle.y)
        chip = _centred(epsg, x, y, spec, place.id)
        chips.setdefault(chip.id, chip)
    return list(chips.values())


def _about_polygons(aoi: Aoi, spec: GridSpec, places: Sequence[Place]) -> list[Chip]:
    """Chips about polygons: around the middle of their bounds, so that they hold the whole; or about the centroid."""
    chips: dict[str, Chip] = {}
    for number, place in enumerate(places, start=1):
        middle = place.geometry.centroid
        epsg = int(zone_of(middle.x, middle.y))
        shape = projected(place.geometry, epsg)
        minx, miny, maxx, maxy = shape.bounds
        if spec.fit == "centre":
            chip = _centred(epsg, shape.centroid.x, shape.centroid.y, spec, place.id)
        else:
            chip = _centred(epsg, (minx + maxx) / 2, (miny + maxy) / 2, spec, place.id)
            left, low, right, high = chip.bounds
            spare = min(minx - left, miny - low, right - maxx, high - maxy)
            # Only those that have a chip at all are worth an error.
            if spare < spec.margin_m - 1e-6 and place.geometry.intersects(aoi.geometry):
                step = spec.snap_m or spec.resolution_m
                needed = ceil((max(maxx - minx, maxy - miny) + 2 * spec.margin_m + step) / spec.resolution_m)
                raise AoiError(
                    str(spec.places),
                    f"polygon {place.id or number} is {maxx - minx:.0f} m wide and {maxy - miny:.0f} m high and does "
                    f"not fit a chip of {spec.side_m:g} m with a margin of {spec.margin_m:g} m; make size_px at least "
                    f"{needed}, or let chips cut their polygons with fit: centre",
                )
        chips.setdefault(chip.id, chip)
    return list(chips.values())


# --- majortom


def major_tom_rows(spacing_km: float) -> int:
    """Rows of the grid from pole to pole; they lie 180°/rows apart, row 0 on the equator."""
    return ceil(pi * EARTH_KM / spacing_km)


def major_tom_columns(lat: float, spacing_km: float) -> int:
    """Columns of a row at a latitude (degrees); they lie 360°/columns apart, column 0 at longitude 0."""
    return max(1, ceil(2 * pi * EARTH_KM * cos(lat * pi / 180) / spacing_km))


def _major_tom_chip(row: int, col: int, spec: GridSpec) -> Chip | None:
    """The chip of a cell; None where the grid or UTM ends.

    A cell is named by its lower-left corner (Francis and Czerkawski, "Major TOM: Expandable Datasets for Earth
    Observation", 2024, and the authors' ``grid.py``). Chips wider than the spacing reach equally far beyond the corner
    to the left and below as they would beyond a square cell to the right and above.
    """
    km = spec.spacing_km
    lat = row * (180 / major_tom_rows(km))
    count = major_tom_columns(lat, km)
    lon = col * (360 / count)
    if abs(lat) > MAJOR_TOM_END or not -(count // 2) <= col <= count - 1 - count // 2:
        return None
    zone_lon, zone_lat = lon, lat
    if spec.zone_from == "centre":
        zone_lat = lat + km * 500 / M_PER_DEGREE
        zone_lon = lon + km * 500 / (M_PER_DEGREE * cos(zone_lat * pi / 180))
    if not SOUTH_END <= zone_lat <= NORTH_END:
        return None
    epsg = int(zone_of((zone_lon + 180) % 360 - 180, zone_lat))
    x, y = to_utm(epsg).transform(lon, lat)
    y0, step = equator_northing(epsg), spec.resolution_m
    beyond = (spec.side_m - km * 1000) / 2
    left = round(floor((x - beyond) / step + 0.5) * step, 6)
    low = round(y0 + floor((y - beyond - y0) / step + 0.5) * step, 6)
    edges = (left, low, left + spec.side_m, low + spec.side_m)
    name = f"{abs(row)}{'U' if row >= 0 else 'D'}_{abs(col)}{'R' if col >= 0 else 'L'}"
    return _chip(epsg, col, row, spec, edges, name)


def _major_tom(geometry: BaseGeometry, spec: GridSpec) -> list[Chip]:
    """Chips of the cells near an area. Which of them it touches is not known before they are laid."""
    step = 180 / major_tom_rows(spec.spacing_km)
    reach = 1.5 * spec.side_m / M_PER_DEGREE
    chips: list[Chip | None] = []
    for part in shapely.get_parts(geometry):
        west, south, east, north = part.bounds
        for row in range(floor((south - reach) / step), floor((north + reach) / step) + 1):
            lat = row * step
            if abs(lat) > MAJOR_TOM_END:
                continue
            count = major_tom_columns(lat, spec.spacing_km)
            wide = reach / cos(radians(min(abs(lat) + reach, 89.0)))
            for col in range(floor((west - wide) / (360 / count)), floor((east + wide) / (360 / count)) + 1):
                turned = (col + count // 2) % count - count // 2
                chips.append(_major_tom_chip(row, turned, spec))
    return list({chip.id: chip for chip in chips if chip is not None}.values())


# --- webmercator


def _map_tile(x: int, y: int, spec: GridSpec) -> Chip | None:
    """A tile of web maps, x from the west and y from the north, both from 0."""
    assert spec.zoom is not None  # the spec asks for it
    count = 1 << spec.zoom
    if not (0 <= x < count and 0 <= y < count):
        return None
    side, half = WEB_MERCATOR_M / count, WEB_MERCATOR_M / 2
    edges = (x * side - half, half - (y + 1) * side, (x + 1) * side - half, half - y * side)
    return _chip(WEB_MERCATOR, x, y, spec, edges, f"{spec.zoom}_{x}_{y}")


def _web_mercator(geometry: BaseGeometry, spec: GridSpec) -> Laid:
    assert spec.zoom is not None  # the spec asks for it
    half = 1 << spec.zoom >> 1
    area = _on_map(geometry, WEB_MERCATOR)
    # Tiles are counted from a corner of the map, cells from its middle; with one tile there is no middle.
    side = WEB_MERCATOR_M / (1 << spec.zoom)
    if spec.zoom == 0:
        return _covered(geometry, [chip for chip in [_map_tile(0, 0, spec)] if chip is not None])
    col, up, cover = cells(area, side, 0)
    chips = [_map_tile(c + half, half - 1 - r, spec) for c, r in zip(col.tolist(), up.tolist(), strict=True)]
    there = np.array([chip is not None for chip in chips], dtype=bool)
    return [chip for chip in chips if chip is not None], cover[there]
