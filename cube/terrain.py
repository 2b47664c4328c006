"""What follows from elevation: slope, aspect, curvature and their like, and elevation itself across the edges of tiles.

Everything is computed on the chips' grid from elevation that reaches further than the window (``halo_px``), so a chip's
edge looks like its middle. Elevation models come in tiles whose pixels may differ in width (Copernicus: at 50, 60 …
degrees of latitude). A tile interpolated by itself is flat over the last half pixel before its edge, which slope shows
as a seam; so each tile is interpolated with a ring of its neighbours' pixels around it (``read_elevation``).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from odc.geo.geobox import GeoBox

    from catalog.scene import Asset, Scene
    from cube.load import PixelReader

Missing = Literal["void", "zero"]

FLAT = -1.0
"""Aspect of level ground: it has none, and it is not void. No true aspect is negative."""
AZIMUTH_DEG, ALTITUDE_DEG = 315.0, 45.0
"""Where the light of a hillshade comes from: GDAL's defaults."""
LEAST_OF_DISK = 0.5
"""Share of a TPI's disk that must hold elevation. At a coast less would compare a place with one side of it alone."""
FIXED_POINT = 2.0**16
"""Elevations are summed over a disk as whole numbers of 1/65536 m (their float32 holds no more above 128 m), so that a
sum is exact and the same in whatever window and order it is made."""

_HORN = "B. K. P. Horn (1981), Hill shading and the reflectance map, Proc. IEEE 69(1)"


@dataclass(frozen=True, slots=True)
class TerrainSpec:
    """What is wanted of an elevation model besides elevation."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    derive: tuple[str, ...] = ()
    """Variables to derive: `slope`, `aspect`, `northness`, `eastness`, `curvature`, `hillshade`, `roughness`, `tpi`.
    A number of metres after it is the scale: `slope_90` looks 90 m to each side, `tpi_300` at a disk of 300 m."""
    missing: Missing = "void"
    """Where the model has no tile at all: `zero` for models that leave out the sea. Holes in tiles stay void."""

    def __post_init__(self) -> None:
        for name in self.derive:
            parse(name)
        if len(set(self.derive)) != len(self.derive):
            raise ValueError(f"derive {list(self.derive)} names a variable twice; name each once")


@dataclass(frozen=True, slots=True)
class Derived:
    """One derived variable, as its name says."""

    name: str
    measure: str
    scale_m: float | None
    """Radius of the disk of a TPI, spacing of the nine points of all others; None: one pixel."""

    def reach_px(self, resolution_m: float) -> int:
        """How many pixels away the farthest elevation lies that it looks at.

        Raises:
            ValueError: The scale does not fit the pixels.
        """
        if self.scale_m is None:
            return 1
        ratio = self.scale_m / resolution_m
        if self.measure == "tpi":
            if ratio < 1:
                raise ValueError(
                    f"{self.name}: a disk of {self.scale_m:g} m holds no neighbour on pixels of {resolution_m:g} m; "
                    f"wanted {resolution_m:g} or more, or 'tpi' for the 8 neighbours"
                )
            return math.floor(ratio + 1e-9)
        if ratio < 1 - 1e-9 or abs(ratio - round(ratio)) > 1e-6:
            better = max(1, round(ratio)) * resolution_m
            raise ValueError(
                f"{self.name}: {self.scale_m:g} m is not a whole number of pixels of {resolution_m:g} m; "
                f"take '{self.measure}_{better:g}'"
            )
        return round(ratio)


def parse(name: str) -> Derived:
    """What a name such as ``tpi_300`` means.

    Raises:
        ValueError: No such variable.
    """
    found = re.fullmatch(r"([a-z]+)(?:_(\d+(?:\.\d+)?))?", name)
    if found is None or found[1] not in MEASURES:
        near = difflib.get_close_matches(found[1] if found else name, MEASURES, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"'{name}' cannot be derived from elevation.{hint} "
            f"Known are {', '.join(MEASURES)}, each also with a scale in metres as in tpi_300"
        )
    scale = float(found[2]) if found[2] else None
    if scale == 0:
        raise ValueError(f"'{name}' has a scale of 0 m; wanted more, or none")
    return Derived(name, found[1], scale)


def halo_px(derive: Sequence[str], resolution_m: float) -> int:
    """Pixels of elevation needed around a window to derive all of these on it; 0 when there are none."""
    return max((parse(name).reach_px(resolution_m) for name in derive), default=0)


def attributes(name: str) -> dict[str, Any]:
    """Attributes of a derived variable: name, units, and by which formula."""
    derived = parse(name)
    attrs = dict(MEASURES[derived.measure].attrs)
    if derived.measure == "tpi":
        ring = "the 8 neighbours" if derived.scale_m is None else f"the disk of {derived.scale_m:g} m around it"
        attrs["comment"] = f"elevation less the mean of {ring}, the place itself not counted; {attrs['comment']}"
    elif derived.scale_m is not None:
        attrs["comment"] = f"from nine points {derived.scale_m:g} m apart; {attrs['comment']}"
    return attrs


def derive(elevation: npt.NDArray[np.float32], name: str, resolution_m: float, halo: int) -> npt.NDArray[np.float32]:
    """One derived variable on the window inside a halo, float32, dims ``(y, x)``, NaN = void.

    Args:
        elevation: Metres, NaN = void, with ``halo`` more pixels on each side than what comes out; north up.
        name: See ``TerrainSpec.derive``.
        resolution_m: Side of a pixel.
        halo: At least ``halo_px`` of this name. Void where elevation is not known: a variable of nine points is void
            when one of them is.
    """
    import numpy as np

    derived = parse(name)
    reach = derived.reach_px(resolution_m)
    if halo < reach:
        raise ValueError(f"{name} looks {reach} pixels around, and the halo has {halo}")
    spare = halo - reach
    if spare:
        elevation = elevation[spare:-spare, spare:-spare]
    rows, cols = elevation.shape[0] - 2 * reach, elevation.shape[1] - 2 * reach
    out = np.empty((rows, cols), np.float32)
    if derived.measure == "tpi":
        radius = math.sqrt(2) if derived.scale_m is None else derived.scale_m / resolution_m
        _tpi(elevation, radius, reach, out)
        return out
    formula = MEASURES[derived.measure].formula
    # A stripe at a time, so that what is between stays in the processor's cache.
    for row in range(0, rows, STRIPE):
        last = min(row + STRIPE, rows)
        z = elevation[row : last + 2 * reach].astype(np.float64)
        nine = [z[y * reach : y * reach + last - row, x * reach : x * reach + cols] for y in range(3) for x in range(3)]
        out[row:last] = formula(nine, reach * resolution_m)
    if derived.measure == "aspect":
        out[out >= 360] = 0  # what rounds up to a full turn
    return out


STRIPE = 128
"""Rows that are derived at a time."""
NODE_STEPS = 2.0**20
"""Coordinates on the lattice are whole numbers of this part of a pixel (of 30 m: 0.03 mm). What lies between them is
then told without rounding, wherever in the file the window begins that is read; else one pixel in 6000 differs in the
last bit of its float32."""

# Nine points a b c / d e f / g h i from the north-west, all float64; d is how far they are apart in metres.
_Nine = list[Any]


def _gradient(nine: _Nine, d: float) -> tuple[Any, Any]:
    """Rise to the east and to the south, metres a metre, by Horn's weights."""
    nw, n, ne, w, e, east, sw, s, se = nine
    # Each point counts for void, also the middle one, which Horn's weights leave out.
    hole = e - e
    return (
        ((ne + 2 * east + se) - (nw + 2 * w + sw)) / (8 * d) + hole,
        ((sw + 2 * s + se) - (nw + 2 * n + ne)) / (8 * d) + hole,
    )


def _slope(nine: _Nine, d: float) -> Any:
    import numpy as np

    east, south = _gradient(nine, d)
    return np.degrees(np.arctan(np.sqrt(east * east + south * south)))


def _aspect(nine: _Nine, d: float) -> Any:
    import numpy as np

    east, south = _gradient(nine, d)
    turn = np.degrees(np.arctan2(-east, south))
    return np.where((east == 0) & (south == 0), FLAT, np.where(turn < 0, turn + 360, turn))


def _northness(nine: _Nine, d: float) -> Any:
    import numpy as np

    # sin(slope) cos(aspect): the northward part of the level direction downhill, which is 0 on level ground.
    east, south = _gradient(nine, d)
    return south / np.sqrt(1 + east * east + south * south)


def _eastness(nine: _Nine, d: float) -> Any:
    import numpy as np

    east, south = _gradient(nine, d)
    return -east / np.sqrt(1 + east * east + south * south)


def _hillshade(nine: _Nine, d: float) -> Any:
    import numpy as np

    east, south = _gradient(nine, d)
    azimuth, altitude = math.radians(AZIMUTH_DEG), math.radians(ALTITUDE_DEG)
    toward = -east * math.sin(azimuth) + south * math.cos(azimuth)
    shade = (math.sin(altitude) + math.cos(altitude) * toward) / np.sqrt(1 + east * east + south * south)
    return np.maximum(shade, 0)


def _curvature(nine: _Nine, d: float) -> Any:
    _, n, _, w, e, east, _, s, _ = nine
    whole = sum(nine) - sum(nine)  # void when one of the nine is, as with the others
    return -2 * (((w + east) / 2 - e) + ((n + s) / 2 - e)) * 100 / (d * d) + whole


def _roughness(nine: _Nine, d: float) -> Any:
    import numpy as np

    return np.maximum.reduce(nine) - np.minimum.reduce(nine)


def _tpi(z: npt.NDArray[np.float32], radius: float, reach: int, out: npt.NDArray[np.float32]) -> None:
    """Elevation less the mean over a disk without its centre, the disk as one run of pixels a row."""
    import numpy as np

    runs = [(dy, math.floor(math.sqrt(radius * radius - dy * dy) + 1e-9)) for dy in range(-reach, reach + 1)]
    least = LEAST_OF_DISK * (sum(2 * run + 1 for _, run in runs) - 1)
    rows, cols = out.shape
    for top in range(0, rows, STRIPE):
        height = min(STRIPE, rows - top)
        part = z[top : top + height + 2 * reach]
        known = ~np.isnan(part)
        metres = np.where(known, np.rint(np.where(known, part, 0).astype(np.float64) * FIXED_POINT), 0).astype(np.int64)
        sums = np.zeros((part.shape[0], part.shape[1] + 1), np.int64)
        np.cumsum(metres, axis=1, out=sums[:, 1:])
        counts = np.zeros(sums.shape, np.int32)
        np.cumsum(known, axis=1, out=counts[:, 1:])
        centre = (slice(reach, reach + height), slice(reach, reach + cols))
        total, number = -metres[centre], -known[centre].astype(np.int32)
        for dy, run in runs:
            row = slice(reach + dy, reach + dy + height)
            right, left = slice(reach + run + 1, reach + run + 1 + cols), slice(reach - run, reach - run + cols)
            total += sums[row, right]
            total -= sums[row, left]
            number += counts[row, right]
            number -= counts[row, left]
        mean = total / (np.maximum(number, 1) * FIXED_POINT)
        out[top : top + height] = np.where(known[centre] & (number >= least), part[centre] - mean, np.nan)


@dataclass(frozen=True, slots=True)
class _Measure:
    attrs: dict[str, Any]
    formula: Callable[[_Nine, float], Any]


def _no_formula(nine: _Nine, d: float) -> Any:
    raise NotImplementedError("TPI is not a formula of nine points")


MEASURES: dict[str, _Measure] = {
    "slope": _Measure(
        {"long_name": "slope", "units": "degree", "comment": f"angle to the horizontal; {_HORN}"}, _slope
    ),
    "aspect": _Measure(
        {
            "long_name": "aspect",
            "units": "degree",
            "period": 360,
            "comment": f"direction downhill, clockwise from grid north; {FLAT:g} on level ground; {_HORN}",
        },
        _aspect,
    ),
    "northness": _Measure(
        {"long_name": "northness", "units": "1", "comment": f"sin(slope) cos(aspect), 0 on level ground; {_HORN}"},
        _northness,
    ),
    "eastness": _Measure(
        {"long_name": "eastness", "units": "1", "comment": f"sin(slope) sin(aspect), 0 on level ground; {_HORN}"},
        _eastness,
    ),
    "curvature": _Measure(
        {
            "long_name": "curvature",
            "units": "0.01 m-1",
            "comment": "-2 (D + E) 100 / L2 of L. W. Zevenbergen and C. R. Thorne (1987), Quantitative analysis of "
            "land surface topography, Earth Surf. Process. Landf. 12(1); positive is convex; finer than the model's "
            "own pixels it shows their outlines",
        },
        _curvature,
    ),
    "hillshade": _Measure(
        {
            "long_name": "hillshade",
            "units": "1",
            "comment": f"cosine between ground and light, at least 0; light from {AZIMUTH_DEG:g} degrees, "
            f"{ALTITUDE_DEG:g} degrees high; {_HORN}",
        },
        _hillshade,
    ),
    "roughness": _Measure(
        {
            "long_name": "roughness",
            "units": "m",
            "comment": "largest less smallest of nine points; M. F. J. Wilson et al. (2007), Multiscale terrain "
            "analysis of multibeam bathymetry data, Marine Geodesy 30(1)",
        },
        _roughness,
    ),
    "tpi": _Measure(
        {
            "long_name": "topographic position index",
            "units": "m",
            "comment": "A. Weiss (2001), Topographic position and landforms analysis, ESRI User Conference",
        },
        _no_formula,
    ),
}


# Elevation across the edges of tiles


def read_elevation(
    reader: PixelReader,
    scenes: Sequence[Scene],
    band: str,
    geobox: GeoBox,
    *,
    resampling: str = "bilinear",
    missing: Missing = "void",
) -> npt.NDArray[np.float32]:
    """Elevation in metres of dims ``(y, x)``, float32, NaN = void, without seams where tiles meet.

    A pixel comes from the first scene in whose tile its centre lies and which has a value there. Between the last
    pixels of a tile and the first of the next it is interpolated like anywhere else, also where their widths differ.

    Args:
        reader: See ``cube.load.PixelReader``.
        scenes: Those near the grid, in the order in which they win.
        band: Our name of the band.
        geobox: Grid that comes out, north up.
        resampling: GDAL's name of the method. Only ``bilinear`` looks across the edges of tiles; GDAL's do not.
        missing: What is where no scene has a tile. All scenes whose tiles touch the grid must be given for ``zero``.

    Raises:
        ReadError: A file could not be read.
    """
    import numpy as np

    tiles = [(scene, asset) for scene in scenes for asset in scene.assets if asset.band == band]
    out = np.full(geobox.shape, np.nan, np.float32)
    owned = np.zeros(geobox.shape, bool)
    many = [(scene, asset, inside) for scene, asset in tiles if (inside := covered(geobox, asset)).any()]
    if resampling != "bilinear" or all(_aligned(geobox, asset) for _, asset in tiles):
        for _, _, inside in many:
            owned |= inside
        if tiles:
            given = [scene for scene, _ in tiles]
            cube = reader([given], [band], geobox, resampling=resampling, dtype="float32", fill=math.nan)
            out = np.asarray(cube)[0, 0]
    else:
        for scene, asset, inside in many:
            others = [other for other, _ in tiles if other is not scene]
            part = _with_neighbours(reader, scene, others, asset, [a for _, a in tiles], geobox, missing)
            np.copyto(out, part, where=inside & np.isnan(out))
            owned |= inside
    if missing == "zero":
        out[np.isnan(out) & ~owned] = 0
    return out


def covered(geobox: GeoBox, asset: Asset) -> npt.NDArray[np.bool_]:
    """True for the pixels of a grid whose centre lies in a file's tile, whatever the file holds there."""
    import numpy as np

    from cube.warp import _nearest_bent

    u, v, row_at, col_at = _on_tile(geobox, asset)
    rows, cols = asset.shape
    x0, x1 = max(math.floor(u.min()), 0), min(math.ceil(u.max()) + 1, cols)
    y0, y1 = max(math.floor(v.min()), 0), min(math.ceil(v.max()) + 1, rows)
    inside = np.zeros(geobox.shape, np.uint8)
    if x0 < x1 and y0 < y1:
        ones = np.ones((y1 - y0, x1 - x0), np.uint8)
        _nearest_bent(ones, ones.astype(bool), u - x0, v - y0, row_at, col_at, 0, 0, x1 - x0, y1 - y0, inside)
    return inside.astype(bool)


def _on_tile(geobox: GeoBox, asset: Asset) -> tuple[Any, Any, Any, Any]:
    """Columns and rows of a file on the lattice around a grid; see ``cube.warp``."""
    import numpy as np

    from cube.warp import _lattice

    x, y, row_at, col_at = _lattice(geobox, _crs(asset))
    step_x, _, left, _, step_y, top = asset.transform
    u, v = (np.rint(pixel * NODE_STEPS) / NODE_STEPS for pixel in ((x - left) / step_x, (y - top) / step_y))
    return u, v, row_at, col_at


def _crs(asset: Asset) -> str:
    """CRS of a file, also of one without an EPSG code."""
    return asset.wkt or f"EPSG:{asset.epsg}"


def _aligned(geobox: GeoBox, asset: Asset) -> bool:
    """True when the pixels of a file are pixels of the grid, so that nothing is interpolated."""
    step_x, _, left, _, step_y, top = asset.transform
    t = geobox.transform
    if geobox.crs is None or geobox.crs.to_epsg() != asset.epsg or not math.isclose(step_x, t.a, rel_tol=1e-9):
        return False
    dx, dy = (t.c - left) / step_x, (t.f - top) / step_y
    return math.isclose(step_y, t.e, rel_tol=1e-9) and abs(dx - round(dx)) < 1e-3 and abs(dy - round(dy)) < 1e-3


def _with_neighbours(
    reader: PixelReader,
    scene: Scene,
    others: Sequence[Scene],
    asset: Asset,
    assets: Sequence[Asset],
    geobox: GeoBox,
    missing: Missing,
) -> npt.NDArray[np.float32]:
    """One tile interpolated onto a grid, with a ring of one of its own pixels around it taken from the other tiles."""
    import numpy as np
    from affine import Affine
    from odc.geo.geobox import GeoBox

    from cube.warp import _bilinear_bent

    u, v, row_at, col_at = _on_tile(geobox, asset)
    rows, cols = asset.shape
    x0, x1 = max(math.floor(u.min()) - 1, -1), min(math.ceil(u.max()) + 1, cols + 1)
    y0, y1 = max(math.floor(v.min()) - 1, -1), min(math.ceil(v.max()) + 1, rows + 1)
    step_x, _, left, _, step_y, top = asset.transform

    def read(of: Sequence[Scene], row: int, col: int, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Scenes on the tile's own grid, from a row and column of it."""
        corner = Affine(step_x, 0, left + col * step_x, 0, step_y, top + row * step_y)
        grid = GeoBox(shape, corner, _crs(asset))
        cube = reader([of], [asset.band], grid, resampling="bilinear", dtype="float32", fill=math.nan)
        values: npt.NDArray[np.float32] = np.asarray(cube)[0, 0]
        return values

    pixels = read([scene], y0, x0, (y1 - y0, x1 - x0))  # its own pixels are copied
    if others:
        # Neighbours on the same grid are copied too, wider or narrower pixels interpolated along the edge. Strips begin
        # at the tile's corner and not at the window's, so that they are the same for every window.
        for row in {-1, rows} & {y0, y1 - 1}:
            pixels[row - y0] = read(others, row, -1, (1, x1 + 1))[0, x0 + 1 :]
        for col in {-1, cols} & {x0, x1 - 1}:
            pixels[:, col - x0] = read(others, -1, col, (y1 + 1, 1))[y0 + 1 :, 0]
    if missing == "zero":
        nowhere = np.isnan(pixels)
        corner = Affine(step_x, 0, left + x0 * step_x, 0, step_y, top + y0 * step_y)
        grid = GeoBox(pixels.shape, corner, _crs(asset))
        for other in assets if nowhere.any() else ():
            nowhere &= ~covered(grid, other)
        pixels[nowhere] = 0
    out = np.full(geobox.shape, np.nan, np.float32)
    _bilinear_bent(
        pixels, ~np.isnan(pixels), u - x0, v - y0, row_at, col_at, 0, 0, x1 - x0, y1 - y0, 0.0, 0.0, out
    )  # fmt: skip
    return out
