"""Squares of 100 km as the Military Grid Reference System names them, and the Sentinel-2 tiles cut around them.

A place belongs to one square, while the tiles (109.8 km) overlap: splits go by the square. The band letter of a name
tells squares 2000 km apart from each other and nothing more, so 33TWP and 33UWP, one square that 48°N runs through, are
the same one here. Letters as in NGA.STND.0037 (2014), "The Universal Grids and the Transverse Mercator and Polar
Stereographic Map Projections", chapter 3; the corners of the tiles were compared with recorded items.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

SQUARE_M = 100_000
TILE_M = 109_800
"""Side of a Sentinel-2 tile."""
_TILE_STEP_M = 60
"""The coarsest pixel of Sentinel-2: a tile's upper-left corner is the square's, moved out to the next whole pixel."""

_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_COLUMNS = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")
"""Letters of eastings 100 km to 800 km, by the zone's number modulo 3."""
_ROWS = "ABCDEFGHJKLMNPQRSTUV"
_NAME = re.compile(r"(?:MGRS-|T)?(\d{1,2})([C-HJ-NP-X])([A-HJ-NP-Z])([A-HJ-NP-V])")


class Square(NamedTuple):
    """One square: its zone and its lower left corner in units of 100 km of the zone's own metres."""

    epsg: int
    east: int
    north: int


def square_at(lon: float, lat: float) -> Square:
    """The square that a place (degrees, EPSG:4326) lies in, in the zone that owns it.

    Raises:
        ValueError: The point lies outside ±180° or outside 80°S to 84°N.
    """
    from tiling.grid import to_utm, zone_of

    epsg = int(zone_of(lon, lat))
    x, y = to_utm(epsg).transform(lon, lat)
    north = math.floor(y / SQUARE_M)
    # A hair from the equator the metres round to it; the hemisphere was decided in degrees and stays.
    return Square(epsg, math.floor(x / SQUARE_M), min(north, 99) if epsg // 100 == 327 else max(north, 0))


def square_name(square: Square, lat: float) -> str:
    """Name of a square, ``33UWP``, at a latitude in degrees (the band's letter)."""
    zone = square.epsg % 100
    first, last = (0, 9) if square.epsg // 100 == 327 else (10, 19)
    band = _BANDS[min(max(int((lat + 80) // 8), first), last)]
    column = _COLUMNS[zone % 3][square.east - 1]
    return f"{zone:02d}{band}{column}{_ROWS[(square.north + (0 if zone % 2 else 5)) % 20]}"


def square_from_name(name: str) -> Square:
    """The square of a name: ``33UWP``, ``T33UWP`` or ``MGRS-33UWP``.

    Raises:
        ValueError: There is no such square.
    """
    match = _NAME.fullmatch(name.upper())
    why = f"{name!r} is no MGRS tile; one reads like '33UWP': zone, band, column and row"
    if match is None or not 1 <= (zone := int(match[1])) <= 60:
        raise ValueError(why)
    band = _BANDS.index(match[2])
    column, row = _COLUMNS[zone % 3].find(match[3]), _ROWS.index(match[4])
    if column < 0:
        raise ValueError(f"{name!r} is no MGRS tile: zone {zone} has the columns {_COLUMNS[zone % 3]}")
    south = band < 10
    start = (row - (0 if zone % 2 else 5)) % 20
    # About 110.6 km a degree: 1.5 squares of room take in the curve of the parallels and squares across a border.
    low, high = (-80 + 8 * band) * 1.106, ((-80 + 8 * band) + (12 if band == 19 else 8)) * 1.116
    base = 100 if south else 0
    for north in range(start, 120, 20):
        if low - 2 <= north - base <= high + 1:
            return Square((32700 if south else 32600) + zone, column + 1, north)
    raise ValueError(f"{name!r} is no MGRS tile: band {match[2]} has no row {match[4]} in zone {zone}")


def tile_corner(square: Square) -> tuple[int, int]:
    """Upper-left corner (x, y) of the Sentinel-2 tile of a square, metres in the square's zone."""
    base = 10_000_000 if square.epsg // 100 == 327 else 0
    x = math.floor(square.east * SQUARE_M / _TILE_STEP_M) * _TILE_STEP_M
    y = base + math.ceil(((square.north + 1) * SQUARE_M - base) / _TILE_STEP_M) * _TILE_STEP_M
    return x, y
