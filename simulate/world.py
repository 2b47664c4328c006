"""What a simulated world is made of: its options, its frame of coordinates and its calendar. Light to import.

The world frame is the plate carrée about the centre, stretched to metres: ``x`` grows to the east, ``y`` to the north,
and a straight line in it is a straight line in longitude and latitude. So a polygon of the landscape, written as
GeoJSON, *is* the truth, without a curved edge that a vertex list could only come near.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

LAYOUT = 1
"""Raised whenever the same options would give other pixels, so that a world written before is written anew."""

M_PER_DEGREE = 111_195.0
"""Metres in a degree of latitude on a sphere of 6371 km. The frame needs a fixed number, not an exact one."""

OPTICAL_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""Bands of 10 m and 20 m; ``B01`` and ``B09`` (60 m) are written when asked for."""


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """The options of a simulated world. The same options give the same bytes."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    seed: Annotated[int, Ge(0)] = 7
    """Every hill, field and cloud hangs on it."""
    size_px: Annotated[int, Ge(64), Le(20_000)] = 704
    """Side of the square area in pixels of 10 m."""
    lon: float = 18.0
    """Centre of the area, degrees east. 18.0 lies where the UTM zones 33 and 34 meet."""
    lat: Annotated[float, Ge(-56), Le(72)] = 48.3
    """Centre of the area, degrees north."""
    start: dt.date = dt.date(2021, 4, 3)
    """Day of the first Sentinel-2 acquisition."""
    dates: Annotated[int, Ge(1)] = 8
    """Number of Sentinel-2 acquisitions; a reprocessed twin of one of them comes on top."""
    every_days: Annotated[int, Ge(5)] = 20
    """Days between two acquisitions. Every second one is of the neighbouring orbit, three days later."""
    bands: tuple[str, ...] = OPTICAL_BANDS
    """Sentinel-2 bands to write, by the names of the instrument. SCL always comes along."""
    step_dn: Annotated[int, Ge(1), Le(100)] = 8
    """Reflectance is rounded to so many digital numbers (1 is 0.0001): 8 halves the files and is below the noise of the
    real sensor, 1 gives a decoder as much to do as the real archive."""
    overlap: Annotated[float, Gt(0), Le(1)] = 0.2
    """Share of the area's width that both Sentinel-2 tiles cover; 1.0 gives two complete tiles."""
    cloudiness: Annotated[float, Ge(0), Le(1)] = 0.35
    """Mean share of clouded ground. 0 means no cloud at all; otherwise one date in eight is fully clouded."""
    radar_dates: Annotated[int, Ge(0)] = 4
    """Number of Sentinel-1 passes, ascending and descending in turn."""
    terrain: bool = True
    """Write the elevation model."""
    landcover: bool = True
    """Write the land-cover map."""
    osm: bool = True
    """Write OpenStreetMap data and fields.geojson."""
    compress: Literal["deflate", "zstd"] = "deflate"
    """Codec of the COGs. The real archives have deflate."""
    block_px: Literal[128, 256, 512, 1024] = 512
    """Side of a COG block."""

    def __post_init__(self) -> None:
        known = {"B01", "B09", *OPTICAL_BANDS}
        unknown = [band for band in self.bands if band not in known]
        if unknown:
            raise ValueError(f"bands {unknown} are not Sentinel-2 L2A bands; known are {sorted(known)}")
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise ValueError(f"bands {list(self.bands)} must name at least one band, and none twice")
        if not -180 + 1 <= self.lon <= 180 - 1:
            raise ValueError(f"lon {self.lon} is too near the antimeridian; stay within -179 .. 179")

    @property
    def size_m(self) -> float:
        """Side of the area in metres."""
        return self.size_px * 10.0

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the options and the layout version, as 64 hex digits."""
        text = json.dumps({"layout": LAYOUT, **asdict(self)}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def m_per_degree(self) -> tuple[float, float]:
        """World metres in a degree of (longitude, latitude)."""
        return (M_PER_DEGREE * math.cos(math.radians(self.lat)), M_PER_DEGREE)

    @property
    def lonlat_bounds(self) -> tuple[float, float, float, float]:
        """(minx, miny, maxx, maxy) of the area in EPSG:4326."""
        per_lon, per_lat = self.m_per_degree
        half = self.size_m / 2
        return (
            self.lon - half / per_lon,
            self.lat - half / per_lat,
            self.lon + half / per_lon,
            self.lat + half / per_lat,
        )


def utm_epsg(lon: float, lat: float) -> int:
    """EPSG code of the UTM zone of a place, by the regular zones of 6 degrees."""
    zone = min(max(math.floor((lon + 180) / 6) + 1, 1), 60)
    return (32600 if lat >= 0 else 32700) + zone


def mgrs_square(epsg: int, easting: float, northing: float, lat: float) -> str:
    """Name of the 100 km square of a place: ``33UYP``.

    Source: the MGRS lettering of NGA.STND.0037: columns run A-Z without I and O in three sets of eight by zone, rows
    A-V without I and O and begin at F in even zones, latitude bands C-X of 8 degrees without I and O.
    """
    zone = epsg % 100
    column = "ABCDEFGHJKLMNPQRSTUVWXYZ"[((zone - 1) % 3) * 8 + int(easting // 100_000) - 1]
    row = "ABCDEFGHJKLMNPQRSTUV"[(int(northing // 100_000) + (5 if zone % 2 == 0 else 0)) % 20]
    band = "CDEFGHJKLMNPQRSTUVWX"[min(int((lat + 80) // 8), 19)]
    return f"{zone:02d}{band}{column}{row}"


@dataclass(frozen=True, slots=True)
class Raster:
    """A north-up pixel grid: what a file of the world covers."""

    epsg: int
    x0: float
    """Left edge, in units of the CRS."""
    y0: float
    """Upper edge."""
    step_x: float
    step_y: float
    """Side of a pixel; both positive, rows run to the south."""
    shape: tuple[int, int]
    """(y, x) in pixels."""

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Row-major affine (a, b, c, d, e, f) from (col, row) to coordinates, as in ``proj:transform``."""
        return (self.step_x, 0.0, self.x0, 0.0, -self.step_y, self.y0)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(minx, miny, maxx, maxy) in the CRS."""
        rows, cols = self.shape
        return (self.x0, self.y0 - rows * self.step_y, self.x0 + cols * self.step_x, self.y0)

    def coarser(self, ratio: int) -> Raster:
        """The same ground in pixels ``ratio`` times as wide; the shape must divide."""
        rows, cols = self.shape
        if rows % ratio or cols % ratio:
            raise ValueError(f"a raster of {rows} x {cols} pixels cannot be made {ratio} times coarser")
        return Raster(
            self.epsg, self.x0, self.y0, self.step_x * ratio, self.step_y * ratio, (rows // ratio, cols // ratio)
        )
