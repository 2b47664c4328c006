"""What the collections hold: bands, data types, void and scale, read from ``tables/collections.toml``.

Band names are the STAC common names, the same for every endpoint and sensor. An asset is found by its key, never by its
common name: Planetary Computer gives ``rededge`` to four different bands.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from curate.errors import CatalogError

Kind = Literal["optical", "sar", "elevation", "classes", "values"]
BandKind = Literal[
    "reflectance",
    "brightness",
    "temperature",
    "index",
    "value",
    "backscatter",
    "angle",
    "elevation",
    "classes",
    "quality",
]
Georeference = Literal["transform", "gcps"]

VARIABLES: Mapping[str, str] = {
    "reflectance": "reflectance",
    "brightness": "brightness",
    "temperature": "temperature",
    "index": "spectral_index",
    "value": "value",
    "backscatter": "backscatter",
    "elevation": "elevation",
    "classes": "classes",
}
"""What the variable of a source is called in the store, by the kind of its bands. Angles and quality layers have
variables of their own beside it."""


@dataclass(frozen=True, slots=True)
class Band:
    """One band of a collection, under our name."""

    name: str
    kind: BandKind
    keys: tuple[str, ...]
    """Names of its asset in the items of any endpoint, the preferred first."""
    aliases: tuple[str, ...]
    """Further names a recipe may use (``B8A`` for ``nir08``)."""
    dtype: str
    """Of the file, where the item does not say."""
    nodata: float | None
    """Void in the file, where the item does not say; None: NaN only, or nothing where the type has no NaN."""
    scale: float
    """Physical value = stored * scale + ``offset``, after ``Radiometry.offset_dn`` of the scene was added."""
    gsd_m: float
    """Native pixel size in metres."""
    center_um: float | None
    """Centre wavelength in micrometres, for optical bands."""
    layer: int = 1
    """Band number in the file, from 1."""
    offset: float = 0.0
    """In physical units. Sentinel-2's offset is not here, because it is a matter of the scene."""
    firm: tuple[str, ...] = ()
    """Which of ``dtype`` and ``nodata`` hold also against what the item says."""
    units: str | None = None
    """Of physical values; None: by kind."""


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection of scenes: what it measures and what its bands are called."""

    id: str
    title: str
    kind: Kind
    bands: Mapping[str, Band] = field(hash=False)
    """By canonical name, the quality layer included."""
    default_bands: tuple[str, ...]
    quality: str | None
    """Canonical name of the quality layer (``scl``), or None."""
    quality_table: str | None
    """Which table of classes or bits decodes the quality layer."""
    mission: str | None
    """Which rules of acquisition and radiometry hold: ``sentinel-2``, ``sentinel-1``, ``landsat``, ``hls``, ``modis``
    or None."""
    timeless: bool
    """True for static layers: the time of the recipe does not select their items."""
    source: str
    """Link to where this was found."""
    aliases: tuple[str, ...] = ()
    """Names of the same collection at other endpoints (``HLSS30_2.0`` for ``hls2-s30``)."""
    georeference: Georeference = "transform"
    """``gcps``: the files lie by ground control points, and a grid in the items is not to be believed."""
    unverified: str = ""
    """What is expected of this collection and was never seen; becomes part of the scenes' radiometry."""
    licence: str = ""
    """Name of the terms its scenes are under; empty where the table does not say."""
    attribution: str = ""
    """The line that its terms or makers ask for; ``{years}`` stands for those of the scenes used."""
    licence_source: str = ""
    """Link to where the terms stand."""
    described: bool = False
    """True for a collection of the user's (``catalog.describe``): what its files are must match what was said."""

    @property
    def angle(self) -> str | None:
        """Canonical name of the band with the angle of incidence, or None."""
        return next((band.name for band in self.bands.values() if band.kind == "angle"), None)

    def variable(self, bands: Sequence[str]) -> str:
        """What the variable is called that holds these bands, given by their canonical names.

        Raises:
            CatalogError: They measure different things, or one is not a measurement but stands beside them.
        """
        kinds: dict[str, str] = {}
        for name in bands:
            kinds.setdefault(self.bands[name].kind, name)
        for kind, name in kinds.items():
            if kind not in VARIABLES:
                how = "'angle: true'" if kind == "angle" else "'mask'"
                raise CatalogError("catalog", f"band '{name}' of {self.id} is asked for by {how}, not among the bands")
        if len(kinds) > 1:
            (one, first), (other, second) = list(kinds.items())[:2]
            raise CatalogError(
                "catalog",
                f"bands '{first}' ({one}) and '{second}' ({other}) of {self.id} measure different things and cannot "
                "share one variable; make two sources of them",
            )
        return VARIABLES[next(iter(kinds))]


def collection(name: str) -> Collection:
    """The table of a collection by its id or an alias; CatalogError naming the nearest known one when there is none."""
    table = _collections()
    if name in table:
        return table[name]
    for known in table.values():
        if name in known.aliases:
            return known
    raise CatalogError(
        "catalog",
        f"collection '{name}' is not known.{nearest(name, table)} Known are: {', '.join(sorted(table))}. "
        "Any other can be described in the recipe",
    )


def collection_names() -> tuple[str, ...]:
    """Ids of all known collections, sorted."""
    return tuple(sorted(_collections()))


def canonical_band(of: str | Collection, name: str) -> str:
    """Our name of a band, from any name it is known by (``B8A`` is ``nir08``); CatalogError when there is none."""
    table = of if isinstance(of, Collection) else collection(of)
    if name in table.bands:
        return name
    known = {alias.casefold(): band.name for band in table.bands.values() for alias in (band.name, *band.aliases)}
    if name.casefold() in known:
        return known[name.casefold()]
    names = [alias for band in table.bands.values() for alias in (band.name, *band.aliases)]
    raise CatalogError(
        "catalog", f"band '{name}' is not in {table.id}.{nearest(name, names)} It has: {', '.join(table.bands)}"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the known name most like this one, or nothing when none is like it."""
    by_fold = {candidate.casefold(): candidate for candidate in known}
    match = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.5)
    return f" Did you mean '{by_fold[match[0]]}'?" if match else ""


@functools.cache
def _collections() -> dict[str, Collection]:
    tables = read_table("collections.toml")
    return {name: _collection(name, row, tables["band_sets"]) for name, row in tables["collections"].items()}


def _collection(name: str, row: Mapping[str, Any], band_sets: Mapping[str, Any]) -> Collection:
    band_set = band_sets[row["bands"]]
    bands = {band: _band(band, {**band_set["defaults"], **fields}) for band, fields in band_set["bands"].items()}
    return Collection(
        id=name,
        title=row["title"],
        kind=row["kind"],
        bands=bands,
        default_bands=tuple(row["default_bands"]),
        quality=row.get("quality"),
        quality_table=row.get("quality_table"),
        mission=row.get("mission"),
        timeless=row.get("timeless", False),
        source=row["source"],
        aliases=tuple(row.get("aliases", ())),
        georeference=row.get("georeference", "transform"),
        unverified=row.get("unverified", ""),
        licence=row.get("licence", ""),
        attribution=row.get("attribution", ""),
        licence_source=row.get("licence_source", ""),
    )


def _band(name: str, row: Mapping[str, Any]) -> Band:
    nodata, center_um = row.get("nodata"), row.get("center_um")
    return Band(
        name=name,
        kind=row["kind"],
        keys=tuple(row["keys"]),
        aliases=tuple(row.get("aliases", ())),
        dtype=row["dtype"],
        nodata=None if nodata is None else float(nodata),
        scale=float(row["scale"]),
        gsd_m=float(row["gsd_m"]),
        center_um=None if center_um is None else float(center_um),
        layer=row.get("layer", 1),
        offset=float(row.get("offset", 0.0)),
        units=row.get("units"),
    )


def read_table(name: str) -> dict[str, Any]:
    """One of the tables of facts that lie beside this module."""
    return tomllib.loads((importlib.resources.files("catalog") / "tables" / name).read_text(encoding="utf-8"))
