"""The Scene: one STAC item reduced to what the later stages need, with our band names and no endpoint's habits left."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import shapely


@dataclass(frozen=True, slots=True)
class Asset:
    """One band of a scene as it lies in a file."""

    band: str
    """Our name of the band: ``red``, ``nir08``, ``scl``, ``vv``, ``elevation``, ``map`` …"""
    key: str
    """Name of the asset in the item it came from (``B04``, ``red`` …)."""
    href: str
    """Absolute path or URL, unsigned."""
    epsg: int
    """0 where the CRS has no EPSG code (MODIS' sinusoidal): then ``wkt`` has it."""
    transform: tuple[float, float, float, float, float, float]
    """Row-major affine (a, b, c, d, e, f) from (col, row) to coordinates, as in ``proj:transform``. The identity where
    the file lies by ground control points instead; then ``epsg`` is that of the points."""
    shape: tuple[int, int]
    """(y, x) in pixels."""
    dtype: str
    nodata: float | None
    layer: int = 1
    """Band number in the file, from 1."""
    wkt: str | None = None
    """The CRS where it has no EPSG code."""


@dataclass(frozen=True, slots=True)
class Radiometry:
    """How stored numbers become physical: ``(dn + offset_dn) * scale + offset``; void stays void, never shifted.

    Where the bands of a scene differ in scale (temperature beside reflectance) this is that of the first measured
    band, ``why`` says so, and the table of the collection has each band's own.
    """

    scale: float = 1.0
    offset_dn: int = 0
    why: str = "as stored"
    """The rule that decided, for ``scenes.parquet``: ``baseline 05.09: raw, offset -1000`` …"""
    offset: float = 0.0
    """In physical units: -0.2 for Landsat Collection 2."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One acquisition over one footprint. Scenes with the same ``acquisition`` are one step in time."""

    id: str
    source: str
    """Name of the source in the recipe (``s2``, ``s1`` …)."""
    collection: str
    acquired: dt.datetime | None
    """UTC, aware; None for static layers (DEM)."""
    acquisition: str
    """Same for all tiles and slices of one pass of one satellite, so that they are joined, not counted twice."""
    footprint: shapely.Geometry
    """EPSG:4326."""
    assets: tuple[Asset, ...]
    radiometry: Radiometry = Radiometry()
    platform: str | None = None
    tile: str | None = None
    orbit: str | None = None
    """``ascending`` or ``descending``."""
    relative_orbit: int | None = None
    baseline: str | None = None
    cloud_pct: float | None = None
    signing: str | None = None
    """Name of the signing scheme of the endpoint (``planetary-computer``), or None; see ``catalog.access``."""

    def asset(self, band: str) -> Asset:
        """The asset of a band; KeyError when the scene has none."""
        for asset in self.assets:
            if asset.band == band:
                return asset
        raise KeyError(band)

    @property
    def epsg(self) -> int:
        """CRS of the first asset: the zone the scene was cut in."""
        return self.assets[0].epsg
