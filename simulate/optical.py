"""Sentinel-2 L2A: how the ground, the season, the sun and the clouds make digital numbers and their SCL.

Every pixel is computed from its own position, so two tiles in two zones show the same ground, cloud and shadow. What
differs between them is what differs in reality too: the grid, and the noise of the sensor.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simulate import landscape as land
from simulate.noise import bell, chance, fbm, jit, mix, value
from simulate.world import WorldSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""Order of the columns in the tables of spectra."""

PIXEL_M = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
    "B11": 20, "B12": 20, "SCL": 20,
}  # fmt: skip
"""Native pixel of each asset, metres (Sentinel-2 L2A product definition)."""

OFFSET_DN = 1000
"""Added to the digital numbers from baseline 04.00 on (``BOA_ADD_OFFSET`` is -1000)."""

# Reflectance of what fields and forests are mixed of, by band. Shapes after common spectral libraries, rounded: what
# matters here is that classes differ as they do in nature, not the third digit.
SPECTRA: dict[str, tuple[float, ...]] = {
    #            B01   B02   B03   B04   B05   B06   B07   B08   B8A   B09   B11   B12
    "soil":     (.062, .075, .102, .132, .156, .172, .188, .204, .220, .225, .290, .255),
    "leaf":     (.020, .026, .058, .030, .095, .310, .410, .440, .460, .460, .205, .095),
    "straw":    (.068, .084, .140, .185, .225, .250, .270, .290, .310, .310, .350, .270),
    "rape":     (.030, .040, .150, .135, .200, .370, .440, .470, .490, .490, .240, .125),
    "sunflower":(.035, .045, .115, .110, .170, .330, .420, .450, .470, .470, .230, .120),
    "grass":    (.028, .036, .075, .048, .115, .265, .330, .360, .385, .385, .225, .125),
    "hay":      (.055, .070, .105, .120, .165, .230, .260, .285, .305, .305, .300, .200),
    "broadleaf":(.014, .018, .042, .020, .070, .260, .350, .380, .405, .405, .165, .070),
    "bare_wood":(.035, .045, .060, .070, .095, .130, .150, .170, .190, .190, .195, .135),
    "conifer":  (.011, .014, .027, .017, .045, .140, .175, .195, .215, .215, .090, .042),
    "shrub":    (.025, .032, .060, .045, .095, .210, .260, .285, .305, .305, .190, .105),
    "reed":     (.026, .034, .058, .050, .090, .190, .230, .250, .265, .265, .155, .085),
    "water":    (.030, .032, .036, .022, .016, .010, .009, .007, .006, .006, .004, .003),
    "mud":      (.045, .052, .068, .062, .050, .026, .024, .020, .016, .015, .008, .006),
    "asphalt":  (.090, .098, .108, .118, .124, .130, .136, .142, .148, .150, .170, .160),
    "tile":     (.060, .068, .090, .165, .195, .205, .215, .225, .235, .238, .280, .260),
    "concrete": (.170, .190, .215, .235, .245, .250, .255, .262, .268, .270, .290, .270),
    "gravel":   (.165, .190, .230, .265, .280, .285, .290, .298, .305, .308, .345, .330),
    "snow":     (.870, .880, .880, .870, .860, .850, .840, .830, .810, .780, .110, .080),
}  # fmt: skip

CLOUD = (0.62, 0.64, 0.63, 0.63, 0.64, 0.65, 0.66, 0.67, 0.67, 0.60, 0.46, 0.33)
"""Reflectance of a thick cloud, by band."""
HAZE = (0.16, 0.14, 0.115, 0.095, 0.085, 0.08, 0.075, 0.07, 0.065, 0.06, 0.04, 0.03)
"""What thin cirrus adds at most, by band: scattered blue first."""
SKYLIGHT = (0.62, 0.57, 0.51, 0.46, 0.44, 0.42, 0.41, 0.40, 0.39, 0.39, 0.33, 0.31)
"""Share of the light that is left in a cloud's shadow, by band."""

# Green cover of a crop through the year: (day it begins to grow, day it is full, day it begins to ripen, day of
# harvest, cover before it grows, cover left after harvest). Days of the year for about 48 degrees north.
CALENDAR: dict[str, tuple[int, int, int, int, float, float]] = {
    "winter_wheat": (75, 125, 170, 203, 0.30, 0.05),
    "maize": (140, 190, 245, 275, 0.02, 0.04),
    "rapeseed": (70, 105, 160, 190, 0.38, 0.10),
    "winter_barley": (72, 118, 152, 180, 0.33, 0.12),
    "sunflower": (128, 178, 225, 262, 0.02, 0.04),
    "sugar_beet": (118, 170, 270, 292, 0.02, 0.03),
    "soybean": (140, 185, 235, 268, 0.03, 0.04),
    "potato": (130, 168, 225, 255, 0.02, 0.05),
    "alfalfa": (70, 105, 320, 340, 0.35, 0.30),
}
CLOUDY = (0.3, 1.5, 0.05, 1.9, 0.0, 0.5, 0.0, 2.75)
"""Cloudiness of the dates in turn, against the mean; that of the fifth is another matter, see below."""
BINS = 32
"""So many members of each surface, from the earliest and brightest to the latest and darkest."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """One pass of a Sentinel-2 satellite over the whole area."""

    index: int
    sensed: dt.datetime
    """Start of the data take, UTC."""
    platform: str
    """``Sentinel-2A`` or ``Sentinel-2B``, as the Planetary Computer spells it."""
    relative_orbit: int
    absolute_orbit: int
    baseline: str
    """Processing baseline: ``03.01``."""
    generated: dt.datetime
    """When the product was made, UTC."""
    sun_zenith: float
    """Degrees."""
    sun_azimuth: float
    """Degrees clockwise from north."""
    cloud_share: float
    """Share of clouded ground aimed at; the true share is that of the SCL."""
    cloud_height_m: float
    edge: float | None
    """Share of the area's width, along its middle row, east of which the swath has ended; None within the swath."""

    @property
    def offset_dn(self) -> int:
        """What the digital numbers carry on top of the reflectance."""
        return OFFSET_DN if self.baseline >= "04.00" else 0

    @property
    def day(self) -> int:
        """Day of the year, 1 .. 366."""
        return self.sensed.timetuple().tm_yday


def _sun(sensed: dt.datetime, lon: float, lat: float) -> tuple[float, float]:
    """(zenith, azimuth) of the sun in degrees, by Cooper's declination and mean solar time: good to about a degree."""
    day = sensed.timetuple().tm_yday
    declination = math.radians(23.45 * math.sin(math.radians(360 * (284 + day) / 365)))
    hours = sensed.hour + sensed.minute / 60 + lon / 15 - 12
    hour_angle = math.radians(15 * hours)
    phi = math.radians(lat)
    cos_zenith = math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(hour_angle)
    zenith = math.acos(cos_zenith)
    east = -math.cos(declination) * math.sin(hour_angle)
    north = math.sin(declination) * math.cos(phi) - math.cos(declination) * math.sin(phi) * math.cos(hour_angle)
    return math.degrees(zenith), math.degrees(math.atan2(east, north)) % 360


def _baseline(sensed: dt.date) -> str:
    """Baseline in operation on a day (Sentinel-2 L2A processing baselines, ESA; the ones that matter here)."""
    if sensed < dt.date(2018, 11, 6):
        return "02.09"
    if sensed < dt.date(2021, 6, 30):
        return "03.00" if sensed >= dt.date(2021, 3, 30) else "02.14"
    if sensed < dt.date(2022, 1, 25):
        return "03.01"
    if sensed < dt.date(2022, 12, 6):
        return "04.00"
    return "05.09" if sensed < dt.date(2023, 12, 13) else "05.10"


def acquisitions(spec: WorldSpec) -> tuple[Acquisition, ...]:
    """All acquisitions of a world in the order of their time; a reprocessed one follows its older twin.

    Of the scenes sensed before 2022 every third was reprocessed with baseline 05.00 and replaced the first processing,
    as Collection-1 does: the date of a scene does not tell whether its numbers carry the offset. The second scene of
    the world was reprocessed too, but its first processing is still there.
    """
    seed = spec.seed * land.SEEDS + 2048
    result = []
    for index in range(spec.dates):
        day = spec.start + dt.timedelta(days=index * spec.every_days + 3 * (index % 2))
        orbit = (36, 79)[index % 2]
        # Local solar time of the descending node is 10:30; the zones here are crossed some minutes earlier or later.
        minute = 10 * 60 + 30 - round(spec.lon * 4) + (10 if orbit == 36 else 0) - 18
        sensed = dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(
            minutes=minute, seconds=29 + 2 * (index % 2), milliseconds=24
        )
        zenith, azimuth = _sun(sensed, spec.lon, spec.lat)
        share = 0.0
        if spec.cloudiness > 0:
            if index % 8 == 4:
                share = 1.0
            else:
                # Seven dates of eight make up what the clouded one leaves of the mean; one of them is quite clear.
                rest = max(spec.cloudiness - 0.125, 0.0) * 8 / 7
                share = min(rest * CLOUDY[index % 8] * (0.8 + 0.4 * chance(index, 1, seed)), 0.9)
        first = _baseline(day)
        generated = sensed + dt.timedelta(hours=2 + int(3 * chance(index, 2, seed)), minutes=17, seconds=index)
        again = dt.datetime(2023, 2, 1, 3, 5, 7, tzinfo=dt.UTC) + dt.timedelta(days=index, minutes=11 * index)
        versions = [(first, generated)]
        if day < dt.date(2022, 1, 25) and index % 3 == 2:
            versions = [("05.00", again)]
        elif day < dt.date(2022, 1, 25) and index == 1:
            versions.append(("05.00", again))
        for baseline, made in versions:
            result.append(
                Acquisition(
                    index=index,
                    sensed=sensed,
                    platform="Sentinel-2A" if (index // 2) % 2 == 0 else "Sentinel-2B",
                    relative_orbit=orbit,
                    absolute_orbit=30_000 + 71 * index,
                    baseline=baseline,
                    generated=made,
                    sun_zenith=zenith,
                    sun_azimuth=azimuth,
                    cloud_share=share,
                    cloud_height_m=900.0 + 900.0 * chance(index, 3, seed),
                    edge=0.80 if index % 4 == 3 else None,
                )
            )
    return tuple(result)


def _ramp(day: float, start: float, end: float) -> float:
    """Smooth step from 0 at ``start`` to 1 at ``end``."""
    t = min(max((day - start) / (end - start), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def _mixture(surface: int, member: float, day: float, south: bool) -> dict[str, float]:
    """Shares of the spectra in a surface on a day; ``member`` in 0 .. 1 says which of its kind it is."""
    if south:
        day = (day + 182) % 365
    leafy = _ramp(day, 96 + 12 * member, 132 + 8 * member) * (1 - _ramp(day, 278, 318 + 8 * member))
    grow = 0.35 + 0.65 * _ramp(day, 70, 125) * (1 - 0.75 * _ramp(day, 270, 330))
    if surface >= land.CROP:
        crop = land.CROPS[surface - land.CROP]
        begin, full, ripen, harvest, before, after = CALENDAR[crop]
        late = 16 * (member - 0.5)
        green = before + (0.96 - before) * _ramp(day, begin + late, full + late)
        dry = _ramp(day, ripen + late, harvest - 8 + late)
        cut = _ramp(day, harvest + late - 1, harvest + late + 1)
        if crop == "alfalfa":
            # Four cuts a year: a quick fall and three to four weeks to grow again.
            phase = (day - 135 - 14 * (member - 0.5)) / 34
            if 0 <= phase < 5:
                green *= 0.35 + 0.65 * _ramp(phase % 1, 0.05, 0.75)
            return {"leaf": green, "soil": 1 - green}
        leaf = "leaf"
        if crop == "rapeseed" and 108 + late < day < 140 + late:
            leaf = "rape"
        if crop == "sunflower" and 188 + late < day < 215 + late:
            leaf = "sunflower"
        living = green * (1 - dry) * (1 - cut) + after * cut
        stubble = 0.75 * cut * (1 - _ramp(day, harvest + 12 + 30 * member, harvest + 40 + 30 * member))
        straw = green * dry * (1 - cut) + stubble
        return {leaf: living, "straw": straw, "soil": max(1 - living - straw, 0.0)}
    if surface == land.BROADLEAF:
        return {"broadleaf": leafy, "bare_wood": 1 - leafy}
    if surface == land.CONIFER:
        return {"conifer": 0.92, "bare_wood": 0.08}
    if surface == land.SHRUB:
        return {"shrub": 0.35 + 0.65 * leafy, "bare_wood": 0.65 * (1 - leafy)}
    if surface in (land.MEADOW, land.VERGE, land.GARDEN):
        mown = max(_ramp(day, 152 + 20 * member, 155 + 20 * member) * (1 - _ramp(day, 160 + 20 * member, 195)), 0.0)
        green = grow * (1 - (0.5 * mown if surface == land.MEADOW else 0.15))
        return {"grass": green, "hay": 1 - green}
    if surface == land.WETLAND:
        return {"reed": 0.4 + 0.6 * leafy, "hay": 0.35 * (1 - leafy), "water": 0.25 * (1 - leafy)}
    if surface == land.RIVER:
        return {"water": 0.45, "mud": 0.55}
    if surface == land.LAKE:
        return {"water": 0.85, "mud": 0.15}
    if surface == land.ROAD:
        return {"asphalt": 0.8, "gravel": 0.2}
    if surface == land.TILED_ROOF:
        return {"tile": 0.85, "asphalt": 0.15}
    if surface == land.FLAT_ROOF:
        return {"concrete": 0.4 + 0.6 * member, "asphalt": 0.6 * (1 - member)}
    if surface == land.QUARRY:
        return {"gravel": 1.0}
    return {"soil": 1.0}


@functools.lru_cache(maxsize=64)
def colours(day: int, south: bool = False) -> NDArray[np.float32]:
    """Reflectance of every surface on a day of the year: float32 ``(surface, member, band)``, bands as BANDS."""
    table = np.zeros((land.SURFACES, BINS, len(BANDS)), np.float32)
    for surface in range(1, land.SURFACES):
        for k in range(BINS):
            member = (k + 0.5) / BINS
            total = np.zeros(len(BANDS))
            for name, share in _mixture(surface, member, day, south).items():
                spectrum = np.array(SPECTRA[name])
                if name == "soil":
                    # Members differ in how dark their soil is, by their bits rather than by their order.
                    spectrum = spectrum * (0.72 + 0.5 * ((k * 7) % BINS) / BINS)
                total += share * spectrum
            if surface >= land.CROP or surface in (land.TILED_ROOF, land.FLAT_ROOF):
                # One bright parcel beside a dark one; where members blend into each other, the order must stay.
                total *= 0.93 + 0.14 * ((k * 11) % BINS) / BINS
            table[surface, k] = total
    table.setflags(write=False)
    return table


UNEVEN = np.zeros(land.SURFACES, np.float32)
"""How much the smooth texture brightens or darkens a surface, as a share."""
UNEVEN[:] = 0.08
UNEVEN[land.CROP :] = 0.14
UNEVEN[[land.BROADLEAF, land.CONIFER]] = 0.10
UNEVEN[[land.MEADOW, land.SHRUB, land.WETLAND]] = 0.14
UNEVEN[[land.RIVER, land.LAKE]] = 0.15
GRAIN = np.zeros(land.SURFACES, np.float32)
"""The same for the grain of single crowns, gables and furrows: it differs from pixel to pixel."""
GRAIN[:] = 0.004
GRAIN[[land.BROADLEAF, land.CONIFER]] = 0.035
GRAIN[[land.SHRUB, land.GARDEN, land.WETLAND]] = 0.025
GRAIN[[land.TILED_ROOF, land.FLAT_ROOF, land.ROAD]] = 0.05


@jit
def cloud_field(x: float, y: float, seed: int) -> float:
    """How cloudy the air is over a place, in about -1 .. 1; a threshold makes clouds of it."""
    return fbm(x / 2600.0, y / 2300.0, 5, seed)


@jit
def cover_at(x: float, y: float, seed: int, level: float) -> float:
    """Opacity of the cloud over a place, 0 .. 1."""
    if level > 8.0:
        return 0.0
    t = (cloud_field(x, y, seed) - level) / 0.10
    return min(max(t, 0.0), 1.0)


@jit
def cirrus_at(x: float, y: float, seed: int, level: float) -> float:
    """Strength of the cirrus over a place, 0 .. 1: long streaks from the north-west."""
    if level > 8.0:
        return 0.0
    a = 0.8 * x - 0.6 * y
    b = 0.6 * x + 0.8 * y
    t = (fbm(a / 9000.0, b / 1500.0, 3, seed + 64) - level) / 0.35
    return min(max(t, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Sky:
    """Where the clouds of an acquisition are: what the kernels need to know."""

    seed: int
    level: float
    """Threshold of the cloud field; 9 means no cloud."""
    cirrus_level: float
    shift_x: float
    """From a place to the cloud that shades it, world metres."""
    shift_y: float
    edge_x: float
    """World x of the end of the swath on the middle row; 1e12 within the swath."""
    snow_line: float
    """Height above which snow lies, metres; 1e9 in the warm season."""


@jit
def _sample(seed: int, half: float, clouds: np.ndarray, cirrus: np.ndarray) -> None:
    for n in range(clouds.size):
        x = half * (2.0 * chance(n, 5, seed) - 1.0)
        y = half * (2.0 * chance(n, 6, seed) - 1.0)
        clouds[n] = cloud_field(x, y, seed)
        a = 0.8 * x - 0.6 * y
        b = 0.6 * x + 0.8 * y
        cirrus[n] = fbm(a / 9000.0, b / 1500.0, 3, seed + 64)


def sky(spec: WorldSpec, acquisition: Acquisition) -> Sky:
    """Place the clouds of an acquisition: the threshold that clouds the wanted share of the area."""
    seed = mix(spec.seed, acquisition.index, 77) & 0x7FFFFFFF
    level = cirrus_level = 9.0
    if acquisition.cloud_share >= 1.0:
        level, cirrus_level = -9.0, 9.0
    elif acquisition.cloud_share > 0.0:
        clouds = np.empty(4096)
        cirrus = np.empty(4096)
        _sample(seed, spec.size_m / 2, clouds, cirrus)
        level = float(np.quantile(clouds, 1 - acquisition.cloud_share))
        cirrus_level = float(np.quantile(cirrus, 1 - 0.35 * acquisition.cloud_share))
    tangent = math.tan(math.radians(acquisition.sun_zenith)) * acquisition.cloud_height_m
    azimuth = math.radians(acquisition.sun_azimuth)
    winter = abs((acquisition.day - (15 if spec.lat >= 0 else 197) + 182) % 365 - 182) < 45
    return Sky(
        seed=seed,
        level=level,
        cirrus_level=cirrus_level,
        shift_x=tangent * math.sin(azimuth),
        shift_y=tangent * math.cos(azimuth),
        edge_x=1e12 if acquisition.edge is None else (acquisition.edge - 0.5) * spec.size_m,
        snow_line=180.0 if winter else 1e9,
    )


SWATH_TILT = 0.24
"""The edge of the swath moves so many metres to the west for a metre to the south: the heading of the orbit."""


@jit
def _scl_of(
    surface: int, near_infrared: float, red: float, cloud: float, cirrus: float, shadow: float, snow: bool, lit: float
) -> int:
    """SCL class (Sen2Cor) of a pixel, from the truth."""
    if cloud >= 0.55:
        return 9
    if cloud >= 0.18:
        return 8
    if cirrus >= 0.25:
        return 10
    if shadow >= 0.35:
        return 3
    if cloud > 0.02 or shadow > 0.12:
        return 7
    if snow:
        return 11
    if surface == 8 or surface == 9:
        return 6
    if lit < 0.75:
        return 2
    if near_infrared > 2.5 * red:  # NDVI above 0.43
        return 4
    return 5


@jit
def render(
    x: np.ndarray,
    y: np.ndarray,
    surface: np.ndarray,
    road: np.ndarray,
    vary: np.ndarray,
    texture: np.ndarray,
    lit: np.ndarray,
    height: np.ndarray,
    table: np.ndarray,
    uneven: np.ndarray,
    grain: np.ndarray,
    bands: np.ndarray,
    cloud_colour: np.ndarray,
    haze: np.ndarray,
    skylight: np.ndarray,
    seed: int,
    level: float,
    cirrus_level: float,
    shift_x: float,
    shift_y: float,
    edge_x: float,
    snow_line: float,
    col0: int,
    row0: int,
    offset_dn: int,
    noise_dn: float,
    step_dn: int,
    out: np.ndarray,
    scl: np.ndarray,
) -> None:
    """Fill ``out`` ``(band, row, col)`` uint16 with digital numbers and ``scl`` ``(row, col)`` with classes.

    Void is 0 in both. ``col0``, ``row0`` count pixels of the zone, so that the noise does not depend on the block.
    """
    rows, cols = x.shape
    nb = bands.size
    for r in range(rows):
        for c in range(cols):
            px = x[r, c]
            py = y[r, c]
            if px > edge_x + SWATH_TILT * py:
                for b in range(nb):
                    out[b, r, c] = 0
                scl[r, c] = 0
                continue
            s = surface[r, c]
            k = min(int(vary[r, c] * BINS), BINS - 1)
            cloud = cover_at(px, py, seed, level)
            if level < -8.0:
                # A closed deck: nothing below is seen, its own waves are.
                cloud = 1.0
            shadow = cover_at(px + shift_x, py + shift_y, seed, level) if cloud < 1.0 else 0.0
            cirrus = cirrus_at(px, py, seed, cirrus_level)
            snow = False
            if snow_line < 1e8:
                snow = height[r, c] + 60.0 * value(px / 300.0, py / 300.0, seed + 99) > snow_line
                snow = snow and s != 1 and s != 2 and s != 8 and s != 9
            light = lit[r, c] * (1.0 + uneven[s] * texture[r, c])
            noise = mix(col0 + c, row0 + r, seed)
            light *= 1.0 + grain[s] * bell(col0 + c, row0 + r, 31)
            thick = 0.86 + 0.16 * fbm(px / 900.0, py / 900.0, 3, seed + 32) if cloud > 0.0 else 1.0
            paved = road[r, c]
            for b in range(nb):
                band = bands[b]
                value_b = table[s, k, band] * (1.0 - paved) + paved * table[10, 16, band]
                if snow:
                    value_b = 0.8 * table[0, 0, band] + 0.2 * value_b
                value_b *= light
                value_b *= 1.0 - shadow * (1.0 - skylight[band])
                value_b += cirrus * haze[band]
                value_b += cloud * (cloud_colour[band] * thick - value_b)
                dn = math.floor((value_b * 10000.0 + noise_dn * bell(noise, band, 17)) / step_dn + 0.5) * step_dn
                out[b, r, c] = min(max(dn + offset_dn, 1), 65535)
            scl[r, c] = _scl_of(
                s, table[s, k, 7] * (1.0 - paved), table[s, k, 3], cloud, cirrus, shadow, snow, lit[r, c]
            )


@jit
def clear_places(
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    level: float,
    cirrus_level: float,
    shift_x: float,
    shift_y: float,
    edge_x: float,
    out: np.ndarray,
) -> None:
    """Fill ``out`` (bool) with whether a place is seen and neither clouded, shaded nor under cirrus (see _scl_of)."""
    rows, cols = x.shape
    for r in range(rows):
        for c in range(cols):
            px = x[r, c]
            py = y[r, c]
            seen = px <= edge_x + SWATH_TILT * py and level > -8.0
            out[r, c] = (
                seen
                and cover_at(px, py, seed, level) < 0.18
                and cirrus_at(px, py, seed, cirrus_level) < 0.25
                and cover_at(px + shift_x, py + shift_y, seed, level) < 0.35
            )


def sunlight(
    slope_x: NDArray[np.float32], slope_y: NDArray[np.float32], acquisition: Acquisition
) -> NDArray[np.float32]:
    """Brightness of a slope against flat ground, float32.

    Half of what the cosine law says: Sen2Cor corrects the rest.
    """
    zenith, azimuth = math.radians(acquisition.sun_zenith), math.radians(acquisition.sun_azimuth)
    towards = slope_x * math.sin(azimuth) + slope_y * math.cos(azimuth)
    cosine = (1 - towards * math.tan(zenith)) / np.sqrt(1 + slope_x**2 + slope_y**2)
    lit: NDArray[np.float32] = np.clip(0.45 + 0.55 * cosine, 0.3, 1.6).astype(np.float32)
    return lit


def snowy(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """The table with the spectrum of snow in the place of surface 0, where the kernel looks for it."""
    table = table.copy()
    table[0, 0] = SPECTRA["snow"]
    return table
