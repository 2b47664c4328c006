"""Chips and the rule that lays them: UTM cells snapped to one global origin, so a place is the same chip in every run.

The other rules (``GridSpec.scheme``) stand in ``tiling.schemes``; what follows is true of ``utm``.

Columns count from easting 0, rows from the equator (northing 0 in the north, 10 000 000 in the south). Sentinel-2
pixels of 10 m and 20 m lie on whole multiples of both origins, so chips whose side is a multiple of 20 m share their
edges with the pixels of the archive (checked on 74 recorded items; in the south only this anchor also holds for 60 m).

A zone owns a part of the earth (6° of longitude, with the exceptions of Norway and Svalbard), and a point belongs to
the cell of the zone that owns it. Cells on a zone's border reach beyond it: there two zones' chips may overlap a
little, and ``min_cover`` decides which of them are kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import floor, isclose, pi
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from tiling.mgrs import TILE_M, square_from_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from odc.geo.geobox import GeoBox
    from pyproj import Transformer
    from shapely.geometry.base import BaseGeometry

    from tiling.aoi import Aoi
    from tiling.places import Place

FALSE_NORTHING_M = 10_000_000
"""Northing of the equator in the southern UTM zones (EPSG:327xx)."""

SOUTH_END, NORTH_END = -80.0, 84.0
"""Latitudes between which UTM is defined; beyond them lie the polar grids, which we do not lay."""

# Where the rule "6° a zone" is broken: (minlon, minlat, maxlon, maxlat) -> zone. Norway's 32V and Svalbard's 31X, 33X,
# 35X, 37X as in NGA.SIG.0012 (2014), "The Universal Grids and the Transverse Mercator and Polar Stereographic Map
# Projections", §7.3; Sentinel-2 names its tiles by the same rule.
_EXCEPTIONS: tuple[tuple[float, float, float, float, int], ...] = (
    (3, 56, 12, 64, 32),
    (0, 72, 9, 84, 31),
    (9, 72, 21, 84, 33),
    (21, 72, 33, 84, 35),
    (33, 72, 42, 84, 37),
)

# Edges are drawn straight in degrees but curved in metres. With a point every 0.005° (370 m along a parallel at 48°)
# they are off by 3 mm there, s² tan(lat) / 8R.
_DENSIFY_DEG = 0.005

# Two areas that agree to this share are the same area: projecting there and back costs about a nanometre.
SAME_AREA = 1e-9

_ID = re.compile(r"(32[67]\d\d)_(-?\d+)_(-?\d+)")

WEB_MERCATOR = 3857
WEB_MERCATOR_M = 2 * pi * 6_378_137.0
"""Side of the square that Web Mercator (EPSG:3857) maps the earth to, in metres of the map."""


def equator_northing(epsg: int) -> int:
    """Northing of the equator, in metres, in a UTM zone: 0 in EPSG:326xx, 10 000 000 in EPSG:327xx."""
    return FALSE_NORTHING_M if epsg // 100 == 327 else 0


def metres(size_px: int, resolution_m: float) -> float:
    """Length of some pixels in metres, to a micrometre."""
    # 260 px of 0.3 m are 78 m and not 78.00000000000001 m: whole micrometres keep the lattice on round numbers.
    return round(size_px * resolution_m, 6)


PLACED = ("points", "polygons")
"""Schemes that read places from a file."""

_OPTIONS = {
    "places": PLACED,
    "id_column": PLACED,
    "snap_m": PLACED,
    "margin_m": ("polygons",),
    "fit": ("polygons",),
    "tiles": ("mgrs",),
    "overlap": ("mgrs",),
    "spacing_km": ("majortom",),
    "zone_from": ("majortom",),
    "zoom": ("webmercator",),
}


@dataclass(frozen=True, slots=True)
class GridSpec:
    """Which chips are laid: how large, how fine, and how much of a chip must lie in the area."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    scheme: Literal["utm", "utm-cells", "mgrs", "points", "polygons", "majortom", "webmercator"] = "utm"
    """Rule of the grid. ``utm``: square cells in the UTM zone of the place, snapped to a global origin. ``utm-cells``:
    cells of a power of two of pixels, counted from the origin of the projection. ``mgrs``: the tiles of Sentinel-2 cut
    from their upper-left corner. ``points`` and ``polygons``: one chip about each of a file. ``majortom``: rows and
    columns of Major TOM. ``webmercator``: the tiles of web maps."""
    resolution_m: Annotated[float, Gt(0)] = 10.0
    """Size of a pixel in metres. Of ``webmercator`` it follows from zoom and size_px, in metres of the map."""
    size_px: Annotated[int, Gt(0)] = 256
    """Side of a chip in pixels."""
    size_m: Annotated[float, Gt(0)] | None = None
    """Side of a chip in metres, in place of ``size_px``; a whole number of pixels."""
    min_cover: Annotated[float, Gt(0), Le(1)] = 0.5
    """Smallest share of a chip that lies in the area, of ``utm`` and ``utm-cells`` also in its own UTM zone; chips
    with less are not laid."""
    places: str | None = None
    """``points``, ``polygons``: file that they are read from; a vector file, for points also CSV with lon and lat."""
    id_column: str | None = None
    """``points``, ``polygons``: column of the file that names the chips. Empty: they are named by their place."""
    snap_m: Annotated[float, Gt(0)] | None = None
    """``points``, ``polygons``: corners lie on multiples of this, in metres. Empty: of a pixel."""
    margin_m: Annotated[float, Ge(0)] = 0.0
    """``polygons``: ground that a chip has around its polygon on every side, at least."""
    fit: Literal["whole", "centre"] = "whole"
    """``polygons``: ``whole``: about the middle of their bounds, and none may be larger than a chip; ``centre``: about
    their centroid, and what is larger is cut."""
    tiles: tuple[str, ...] = ()
    """``mgrs``: tiles to cut (``33UWP``), as far as they lie in the area. Empty: all that Sentinel-2 has there."""
    overlap: Literal["keep", "drop"] = "keep"
    """``mgrs``: keep the chips of every tile, also where tiles overlap; or only those whose centre is in the tile's
    own 100 km square and zone."""
    spacing_km: Annotated[float, Gt(0)] = 10.0
    """``majortom``: distance of rows, and of columns within a row."""
    zone_from: Literal["corner", "centre"] = "corner"
    """``majortom``: the point of a cell whose UTM zone its chip has, its lower-left corner or its centre."""
    zoom: Annotated[int, Ge(0), Le(24)] | None = None
    """``webmercator``: zoom level of the tiles."""

    def __post_init__(self) -> None:
        if not 0 < self.resolution_m < float("inf"):
            raise ValueError(f"resolution_m is {self.resolution_m:g}; a pixel has a size above 0 metres")
        if not 0 < self.min_cover <= 1:
            raise ValueError(f"min_cover is {self.min_cover:g}; it is a share above 0 and at most 1")
        self._check_options()
        if self.scheme == "webmercator":
            self._check_web_mercator()
            return
        resolution = Fraction(str(self.resolution_m))
        # The sides that are whole metres and whole pixels are the multiples of this one: for p/q metres a pixel, p.
        step = Fraction(resolution.numerator)
        if self.size_m is None:
            side = self.size_px * resolution
            found = f"a chip of {self.size_px} px at {self.resolution_m:g} m is {float(side):g} m wide"
        else:
            side = Fraction(str(self.size_m)) if 0 < self.size_m < float("inf") else Fraction(0)
            found = f"a chip of {self.size_m:g} m is {float(side / resolution):g} px wide at {self.resolution_m:g} m"
            if side > 0 and side % step == 0 and self.size_px not in (256, side / resolution):
                raise ValueError(
                    f"size_px {self.size_px} and size_m {self.size_m:g} do not agree at {self.resolution_m:g} m; "
                    "give one of the two"
                )
        if side <= 0 or side % step:
            below = side // step * step
            near = [size for size in (below, below + step) if size > 0]
            works = " or ".join(f"{float(size):g} m ({size / resolution} px)" for size in near)
            raise ValueError(f"{found}; it must be a whole number of pixels and of metres: {works} would do")
        self._check_scheme()

    def _check_options(self) -> None:
        for option, schemes in _OPTIONS.items():
            default = type(self).__dataclass_fields__[option].default
            if getattr(self, option) != default and self.scheme not in schemes:
                raise ValueError(f"{option} belongs to scheme {' and '.join(schemes)}; with {self.scheme} remove it")
        if self.scheme in PLACED and not self.places:
            raise ValueError(f"scheme {self.scheme} needs a file of {self.scheme}; name it as places")
        for option in ("margin_m", "spacing_km", "snap_m"):
            value = getattr(self, option)
            if value is not None and not (0 <= value < float("inf") and (value > 0 or option == "margin_m")):
                raise ValueError(f"{option} is {value:g}; wanted a length above 0")

    def _check_web_mercator(self) -> None:
        if self.zoom is None or not 0 <= self.zoom <= 24:
            raise ValueError(f"scheme webmercator needs a zoom from 0 to 24, and zoom is {self.zoom}")
        if self.size_m is not None or self.size_px < 1:
            raise ValueError("the tiles of webmercator have their side from zoom; give size_px alone, as 256 or 512")
        pixel = WEB_MERCATOR_M / 2**self.zoom / self.size_px
        if self.resolution_m != 10.0 and not isclose(self.resolution_m, pixel, rel_tol=1e-9):
            raise ValueError(
                f"resolution_m is {self.resolution_m:g}, but {self.size_px} px of a tile at zoom {self.zoom} are "
                f"{pixel:g} m of the map each; leave resolution_m out"
            )
        object.__setattr__(self, "resolution_m", pixel)

    def _check_scheme(self) -> None:
        side = self.side_m
        if self.scheme == "utm-cells" and self.side_px & (self.side_px - 1):
            raise ValueError(f"cells of utm-cells have a power of two of pixels, as 128 or 256, not {self.side_px}")
        if self.scheme == "mgrs":
            if side > TILE_M:
                raise ValueError(f"chips of {side:g} m do not fit a tile of {TILE_M} m; make them smaller")
            for name in self.tiles:
                square_from_name(name)  # raises where there is no such tile
        if self.scheme == "majortom" and side < self.spacing_km * 1000:
            raise ValueError(
                f"chips of {side:g} m leave gaps in a grid of {self.spacing_km:g} km; Major TOM takes 10 680 m on "
                "10 km (size_px: 1068 at 10 m), make them at least as wide as the spacing"
            )
        if self.snap_m is not None and Fraction(str(self.snap_m)) % Fraction(str(self.resolution_m)):
            raise ValueError(
                f"snap_m is {self.snap_m:g}, which is no whole number of pixels of {self.resolution_m:g} m"
            )
        if 2 * self.margin_m >= side:
            raise ValueError(f"a margin of {self.margin_m:g} m leaves no room in chips of {side:g} m")

    @property
    def side_px(self) -> int:
        """Side of a chip in pixels, whichever way it was given."""
        if self.size_m is None:
            return self.size_px
        return int(Fraction(str(self.size_m)) / Fraction(str(self.resolution_m)))

    @property
    def side_m(self) -> float:
        """Side of a chip in metres, a whole number."""
        return metres(self.side_px, self.resolution_m)


@dataclass(frozen=True, slots=True, order=True)
class Chip:
    """One cell of a grid: what we search, label, write and train on. ``bounds`` are metres in ``EPSG:epsg``."""

    epsg: int
    col: int
    row: int
    """Counts upwards (to the north), negative in the south; with other schemes than ``utm`` as they count."""
    size_px: int
    """Side in pixels; chips are square."""
    resolution_m: float
    edges: tuple[float, float, float, float] | None = None
    """``bounds`` of a chip that does not lie on the lattice of its size and ``utm``."""
    name: str = ""
    """``id`` where it is not made of code, column and row."""

    @property
    def id(self) -> str:
        """Name of this chip in the store, stable across runs of one grid: ``32631_12_-4``."""
        return self.name or f"{self.epsg}_{self.col}_{self.row}"

    @property
    def cell(self) -> tuple[int, int]:
        """Column and row, in the lattice of chips of this size, of the cell that holds the lower-left corner."""
        if self.edges is None:
            return self.col, self.row
        side, y0 = self.size_m, equator_northing(self.epsg)
        # A corner on the lattice's own line stays there, whatever division makes of it.
        return floor(self.edges[0] / side + 1e-9), floor((self.edges[1] - y0) / side + 1e-9)

    def around(self, side_m: float, resolution_m: float) -> Chip:
        """The same place with another side and other pixels: same id, same centre."""
        if side_m == self.size_m and resolution_m == self.resolution_m:
            return self
        minx, miny, maxx, maxy = self.bounds
        more = (side_m - self.size_m) / 2
        edges = (minx - more, miny - more, maxx + more, maxy + more)
        return Chip(self.epsg, self.col, self.row, round(side_m / resolution_m), resolution_m, edges, self.id)

    @property
    def size_m(self) -> float:
        """Side in metres."""
        return metres(self.size_px, self.resolution_m)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(minx, miny, maxx, maxy) in metres; neighbours share these numbers bit for bit."""
        if self.edges is not None:
            return self.edges
        y0 = equator_northing(self.epsg)
        side = self.size_m
        return (self.col * side, y0 + self.row * side, (self.col + 1) * side, y0 + (self.row + 1) * side)

    @property
    def geobox(self) -> GeoBox:
        """Pixel grid of the chip: ``size_px`` squared, north up."""
        from affine import Affine
        from odc.geo.geobox import GeoBox

        minx, _, _, maxy = self.bounds
        transform = Affine(self.resolution_m, 0, minx, 0, -self.resolution_m, maxy)
        return GeoBox((self.size_px, self.size_px), transform, f"EPSG:{self.epsg}")


def zone_of(lon: npt.ArrayLike, lat: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """EPSG codes of the UTM zones that own the points, int32, in the shape of ``lon`` and ``lat`` (degrees, EPSG:4326).

    West and south borders belong to a zone, east and north ones to its neighbour; 180° is -180°, the equator is north,
    84°N belongs to the zone below it.

    Raises:
        ValueError: A point lies outside ±180° or outside 80°S to 84°N.
    """
    import numpy as np

    x, y = np.broadcast_arrays(np.asarray(lon, dtype="float64"), np.asarray(lat, dtype="float64"))
    if not ((np.abs(x) <= 180) & (y >= SOUTH_END) & (y <= NORTH_END)).all():
        raise ValueError("UTM zones exist from 180°W to 180°E and from 80°S to 84°N; a point lies outside")
    zone = (np.floor((x + 180) / 6).astype("int32") % 60) + 1
    for minlon, minlat, maxlon, maxlat, number in _EXCEPTIONS:
        # 84°N closes the map: nothing lies above that could own it.
        below = (y < maxlat) | (y == NORTH_END)
        zone = np.where((x >= minlon) & (x < maxlon) & (y >= minlat) & below, number, zone)
    epsg: npt.NDArray[np.int32] = (np.where(y < 0, 32700, 32600) + zone).astype("int32")
    return epsg


@lru_cache(maxsize=128)
def zone_area(epsg: int) -> BaseGeometry:
    """The part of the earth a UTM zone owns, a polygon in EPSG:4326; the areas of all zones tile 80°S to 84°N."""
    import shapely

    zone = epsg % 100
    west = -180 + 6 * (zone - 1)
    if epsg // 100 == 327:
        return shapely.box(west, SOUTH_END, west + 6, 0)
    area: BaseGeometry = shapely.box(west, 0, west + 6, NORTH_END)
    for minlon, minlat, maxlon, maxlat, number in _EXCEPTIONS:
        box = shapely.box(minlon, minlat, maxlon, maxlat)
        area = area.union(box) if number == zone else area.difference(box)
    return area.normalize()


@lru_cache(maxsize=128)
def to_utm(epsg: int) -> Transformer:
    """Transformer from (lon, lat) in degrees, EPSG:4326, to (x, y) in metres in a UTM zone; the inverse goes back."""
    from pyproj import Transformer

    return Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)


@lru_cache(maxsize=128)
def zone_area_m(epsg: int) -> BaseGeometry:
    """``zone_area`` in the zone's own metres: one drawing for all areas, so that a border chip's cover is stable."""
    return projected(zone_area(epsg), epsg)


def projected(geometry: BaseGeometry, epsg: int) -> BaseGeometry:
    """A lon/lat geometry in a zone's metres, with enough points on its edges that they bend as they should."""
    import numpy as np
    import shapely

    def project(lonlat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack(to_utm(epsg).transform(lonlat[:, 0], lonlat[:, 1]), axis=1)

    return shapely.transform(shapely.segmentize(geometry, _DENSIFY_DEG), project)


def chip_at(lon: float, lat: float, spec: GridSpec) -> Chip:
    """The one chip of scheme ``utm`` that owns a point (degrees, EPSG:4326): the cell it falls in, in its zone.

    Raises:
        ValueError: The point lies outside ±180° or outside 80°S to 84°N.
    """
    epsg = int(zone_of(lon, lat))
    x, y = to_utm(epsg).transform(lon, lat)
    col, row = floor(x / spec.side_m), floor((y - equator_northing(epsg)) / spec.side_m)
    # A hair from the equator the metres round to it; the hemisphere was decided in degrees and stays.
    row = min(row, -1) if lat < 0 else max(row, 0)
    return Chip(epsg, col, row, spec.side_px, spec.resolution_m)


def chip_from_id(id: str, spec: GridSpec) -> Chip:
    """The chip of a grid that has this id.

    Raises:
        ValueError: The text is not the id of a chip of this grid.
    """
    if spec.scheme != "utm":
        from tiling.schemes import from_id

        return from_id(id, spec)
    match = _ID.fullmatch(id)
    if match is None or not 1 <= int(match[1]) % 100 <= 60:
        raise ValueError(f"{id!r} is not a chip id; one reads like '32633_234_2098': EPSG code, column, row")
    return Chip(int(match[1]), int(match[2]), int(match[3]), spec.side_px, spec.resolution_m)


def lay_chips(
    aoi: Aoi, spec: GridSpec, places: Sequence[Place] = ()
) -> tuple[tuple[Chip, ...], npt.NDArray[np.float64]]:
    """The chips of an area and their cover, ordered by EPSG code, row and column.

    The cover of a chip, float64 in (0, 1], is the share of it that lies in the area *and* (``utm``, ``utm-cells``) in
    the part of the earth its zone owns; chips below ``spec.min_cover`` are left out. Whether a chip is laid depends on
    nothing but its own cover, so a larger area has all the chips of a smaller one.

    Args:
        aoi: The area.
        spec: The grid.
        places: Points or polygons of the schemes that stand on them.

    Raises:
        AoiError: A polygon is larger than its chip.
    """
    import numpy as np
    import shapely

    if spec.scheme != "utm":
        from tiling.schemes import lay

        return lay(aoi, spec, places)

    chips: list[Chip] = []
    covers: list[npt.NDArray[np.float64]] = []
    size_px, resolution_m = spec.side_px, spec.resolution_m
    shapely.prepare(aoi.geometry)
    for epsg in (*range(32601, 32661), *range(32701, 32761)):
        if not aoi.geometry.intersects(zone_area(epsg)):
            continue
        col, row, cover = cells(area_in_zone(aoi.geometry, epsg), spec.side_m, equator_northing(epsg))
        keep = np.flatnonzero((cover > 0) & (cover >= spec.min_cover - SAME_AREA))
        keep = keep[np.lexsort((col[keep], row[keep]))]
        chips.extend(
            Chip(epsg, c, r, size_px, resolution_m) for c, r in zip(col[keep].tolist(), row[keep].tolist(), strict=True)
        )
        covers.append(cover[keep])
    return tuple(chips), np.concatenate(covers) if covers else np.empty(0)


def area_in_zone(geometry: BaseGeometry, epsg: int) -> BaseGeometry:
    """What a zone owns of a lon/lat geometry, in the zone's metres."""
    import shapely

    # Cut wider than the zone first, so that the zone's own border is always the same drawing and not a new one for
    # every area of interest.
    minlon, minlat, maxlon, maxlat = zone_area(epsg).bounds
    near = shapely.intersection(geometry, shapely.box(minlon - 0.5, minlat - 0.5, maxlon + 0.5, maxlat + 0.5))
    part = projected(polygonal(near), epsg)
    if not part.is_valid:
        # Edges that are straight in degrees and millimetres apart may cross as polylines in metres.
        part = polygonal(shapely.make_valid(part))
    return polygonal(shapely.intersection(part, zone_area_m(epsg)))


def polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """The polygons of a geometry. Areas that touch leave lines and points in an intersection, which have no cover."""
    import shapely

    if geometry.geom_type != "GeometryCollection":
        return geometry
    parts = shapely.get_parts(geometry)
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def cells(
    area: BaseGeometry, side_m: float, y0: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Columns, rows and covers of the cells that share ground with an area (metres of one zone), in no order.

    Goes down a quadtree and carries along what each square holds of the area: full squares are done at once, and a
    border of 100 000 points is never cut as a whole for every cell on it.
    """
    import numpy as np
    import shapely

    done_col, done_row, done_cover = [np.empty(0, "int64")], [np.empty(0, "int64")], [np.empty(0)]
    if area.is_empty:
        return done_col[0], done_row[0], done_cover[0]
    minx, miny, maxx, maxy = area.bounds
    first_col, last_col = int(minx // side_m), int(maxx // side_m)
    first_row, last_row = int((miny - y0) // side_m), int((maxy - y0) // side_m)
    level = max(last_col - first_col, last_row - first_row).bit_length()
    col, row = np.array([first_col]), np.array([first_row])
    parts = np.array([area], dtype=object)
    while True:
        width = 1 << level
        boxes = shapely.box(col * side_m, y0 + row * side_m, (col + width) * side_m, y0 + (row + width) * side_m)
        parts = shapely.intersection(parts, boxes)
        mixed = np.flatnonzero(shapely.get_type_id(parts) == shapely.GeometryType.GEOMETRYCOLLECTION)
        for index in mixed.tolist():
            parts[index] = polygonal(parts[index])
        cover = shapely.area(parts) / (width * side_m) ** 2
        full = cover >= 1 - SAME_AREA
        done = full if level else cover > 0
        within = np.arange(width)
        cols = col[done, None, None] + within[None, None, :] + np.zeros((1, width, 1), "int64")
        rows = row[done, None, None] + within[None, :, None] + np.zeros((1, 1, width), "int64")
        done_col.append(cols.ravel())
        done_row.append(rows.ravel())
        done_cover.append(np.repeat(np.where(full, 1.0, cover)[done], width * width))
        open_ = (cover > 0) & ~done
        if not open_.any():
            return np.concatenate(done_col), np.concatenate(done_row), np.concatenate(done_cover)
        level -= 1
        half = 1 << level
        col = np.concatenate([col[open_] + dx * half for dy in (0, 1) for dx in (0, 1)])
        row = np.concatenate([row[open_] + dy * half for dy in (0, 1) for dx in (0, 1)])
        parts = np.tile(parts[open_], 4)


def centres(chips: Sequence[Chip]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Longitudes and latitudes of the chips' centres, degrees in EPSG:4326, float64, in the order of ``chips``."""
    import numpy as np

    lon, lat = np.empty(len(chips)), np.empty(len(chips))
    for epsg, where, bounds in by_zone(chips):
        x, y = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
        lon[where], lat[where] = to_utm(epsg).transform(x, y, direction="INVERSE")
    return lon, lat


def corners(chips: Sequence[Chip]) -> npt.NDArray[np.float64]:
    """Corners of the chips, float64 ``(chip, 4, 2)``: (lon, lat) in degrees, EPSG:4326, from the lower left against the
    clock. Longitudes of one chip belong together: on the antimeridian they run beyond ±180° rather than jump.
    """
    import numpy as np

    ring = np.empty((len(chips), 4, 2))
    for epsg, where, bounds in by_zone(chips):
        x, y = bounds[:, [0, 2, 2, 0]], bounds[:, [1, 1, 3, 3]]
        lon, lat = to_utm(epsg).transform(x, y, direction="INVERSE")
        meridian = 0 if epsg == WEB_MERCATOR else 6 * (epsg % 100) - 183
        lon = np.where(lon - meridian > 180, lon - 360, lon)
        lon = np.where(lon - meridian < -180, lon + 360, lon)
        ring[where] = np.stack([lon, lat], axis=-1)
    return ring


def footprints(chips: Sequence[Chip]) -> npt.NDArray[np.object_]:
    """Outlines of the chips, shapely polygons in EPSG:4326, in the order of ``chips``.

    The four corners are exact and the edges straight in degrees, which for a chip of 2560 m is off by at most 0.15 m
    at 48° (a pixel's 70th). A chip that reaches over the antimeridian is a MultiPolygon cut at ±180°, as RFC 7946 asks.
    """
    import numpy as np
    import shapely

    ring = corners(chips)
    outlines: npt.NDArray[np.object_] = np.asarray(shapely.polygons(ring), dtype=object)
    for index in np.flatnonzero((np.abs(ring[:, :, 0]) > 180).any(axis=1)).tolist():
        # The same place a turn to the west and a turn to the east: together they leave no part of it out of the map.
        turns = [shapely.polygons(ring[index] + (turn, 0)) for turn in (-360, 0, 360)]
        outlines[index] = shapely.union_all(shapely.intersection(turns, shapely.box(-180, -90, 180, 90)))
    return outlines


def by_zone(
    chips: Sequence[Chip],
) -> list[tuple[int, npt.NDArray[np.intp], npt.NDArray[np.float64]]]:
    """Chips taken apart by zone: (EPSG code, positions in ``chips``, bounds ``(n, 4)`` in metres), by EPSG code."""
    import numpy as np

    codes = np.array([chip.epsg for chip in chips], dtype="int64")
    bounds = np.array([chip.bounds for chip in chips], dtype="float64").reshape(-1, 4)
    return [(epsg, np.flatnonzero(codes == epsg), bounds[codes == epsg]) for epsg in np.unique(codes).tolist()]
