"""Places that chips stand on: points and polygons from a file, as degrees, and as the document a dataset keeps."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import AoiError
from tiling.grid import NORTH_END, SOUTH_END

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

COORDINATES = (("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"), ("x", "y"))
"""Columns of a CSV that are tried in this order, in any case: degrees, EPSG:4326."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Place:
    """A point or polygon that a chip stands on."""

    geometry: BaseGeometry
    """EPSG:4326."""
    id: str = ""
    """Name of the chip; empty: by its place."""


def read_places(source: str | Path, scheme: str, id_column: str | None = None) -> tuple[Place, ...]:
    """The points or polygons of a file in EPSG:4326, in the order of the file.

    Args:
        source: A vector file, or for points a CSV with a column of longitudes and one of latitudes in degrees.
        scheme: ``points`` or ``polygons``. A polygon of several parts is one place; so many points have to be features
            of their own.
        id_column: Column whose values name the chips.

    Raises:
        AoiError: The file cannot be read, or holds something else; says what to do about it.
    """
    path, what = Path(source), str(source)
    if not path.is_file():
        raise AoiError(what, f"there is no such file; grid.places names the file of the {scheme}")
    if path.suffix.lower() == ".csv":
        geometries, table = _read_csv(path, what)
    else:
        geometries, table = _read_vector(path, what)
    _check(geometries, scheme, what)
    names = [""] * len(geometries) if id_column is None else _names(table, id_column, what)
    return tuple(Place(geometry, name) for geometry, name in zip(geometries, names, strict=True))


def places_document(places: Sequence[Place]) -> bytes:
    """The places as GeoJSON, every coordinate to the last bit."""
    import shapely

    features = [
        {"type": "Feature", "properties": {"id": place.id}, "geometry": json.loads(shapely.to_geojson(place.geometry))}
        for place in places
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def read_places_document(document: bytes) -> tuple[Place, ...]:
    """The places that ``places_document`` described."""
    import shapely

    features = json.loads(document)["features"]
    return tuple(
        Place(shapely.from_geojson(json.dumps(feature["geometry"])), feature["properties"]["id"])
        for feature in features
    )


def _read_csv(path: Path, what: str) -> tuple[list[BaseGeometry], Any]:
    import numpy as np
    import pandas as pd
    import shapely

    try:
        table = pd.read_csv(path, sep=None, engine="python", encoding="utf-8-sig", dtype=str)
    except (OSError, ValueError) as error:
        raise AoiError(what, f"cannot be read as CSV: {error}") from error
    known = {str(column).strip().lower(): column for column in table.columns}
    pair = next((pair for pair in COORDINATES if known.keys() >= set(pair)), None)
    if pair is None:
        raise AoiError(what, f"has columns {', '.join(known)}; points need lon and lat, degrees in EPSG:4326")
    lon, lat = (pd.to_numeric(table[known[name]], errors="coerce").to_numpy("float64") for name in pair)
    bad = np.flatnonzero(~(np.isfinite(lon) & np.isfinite(lat)))
    if len(bad):
        raise AoiError(
            what, f"{len(bad)} rows have no place, first row {bad[0] + 1}; give every row {' and '.join(pair)}"
        )
    return [shapely.Point(x, y) for x, y in zip(lon.tolist(), lat.tolist(), strict=True)], table


def _read_vector(path: Path, what: str) -> tuple[list[BaseGeometry], Any]:
    import geopandas as gpd
    import pyproj
    import shapely

    from tiling.aoi import to_lonlat

    try:
        frame = gpd.read_parquet(path) if path.suffix.lower() in (".parquet", ".geoparquet") else gpd.read_file(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise AoiError(what, f"cannot be read as a vector file: {error}") from error
    missing = frame.geometry.isna() | frame.geometry.is_empty
    if missing.any():
        raise AoiError(what, f"{int(missing.sum())} features have no geometry, first {int(missing.argmax()) + 1}")
    geometries = list(shapely.force_2d(frame.geometry.to_numpy()))
    if frame.crs is not None and pyproj.CRS(frame.crs) != pyproj.CRS.from_epsg(4326):
        geometries = [to_lonlat(geometry, pyproj.CRS(frame.crs), what) for geometry in geometries]
    return geometries, frame


def _names(table: Any, column: str, what: str) -> list[str]:
    if column not in table.columns:
        found = ", ".join(str(name) for name in table.columns if name != "geometry")
        raise AoiError(what, f"has no column {column!r} (grid.id_column); it has {found}")
    names = ["" if value is None else str(value) for value in table[column].tolist()]
    wrong = [name for name in names if not _NAME.fullmatch(name)]
    if wrong:
        raise AoiError(
            what, f"{wrong[0]!r} in column {column} cannot name a chip; wanted letters, digits, '.', '_' and '-'"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise AoiError(what, f"{twice[0]!r} stands twice in column {column}; a name is of one chip alone")
    return names


def _check(geometries: Sequence[BaseGeometry], scheme: str, what: str) -> None:
    import shapely

    wanted = {"points": ("Point",), "polygons": ("Polygon", "MultiPolygon")}[scheme]
    other = sorted({geometry.geom_type for geometry in geometries} - set(wanted))
    if other or not len(geometries):
        found = " and ".join(other) or "nothing"
        raise AoiError(
            what, f"holds {found}; the grid stands on {scheme}, so give a file of {' or '.join(wanted)} alone"
        )
    minx, miny, maxx, maxy = shapely.total_bounds(list(geometries)).tolist()
    if minx < -180 or maxx > 180 or miny < SOUTH_END or maxy > NORTH_END:
        raise AoiError(
            what,
            f"reaches from {minx:g} to {maxx:g} and from {miny:g} to {maxy:g}; wanted degrees, longitudes of ±180 and "
            f"latitudes from {SOUTH_END:g} to {NORTH_END:g}, or a file that carries its CRS",
        )
