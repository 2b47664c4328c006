"""The area of interest: read from whatever people have it in, checked once, and trusted from then on.

Edges are straight in degrees, as GeoJSON means them. An area given in another CRS is reprojected with extra points on
its edges, so that what was straight there lies on the right ground here.
"""

from __future__ import annotations

import errno
import json
import logging
import re
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely
from shapely.geometry.base import BaseGeometry

from curate.errors import AoiError
from tiling.grid import NORTH_END, SOUTH_END

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pyproj import CRS

logger = logging.getLogger(__name__)

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BBOX = re.compile(rf"\s*\[?\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]?\s*")
_WKT = re.compile(
    r"\s*(?:SRID\s*=\s*(\d+)\s*;\s*)?"
    r"((?:MULTI)?(?:POINT|LINESTRING|POLYGON)\b.*|LINEARRING\b.*|GEOMETRYCOLLECTION\b.*)",
    re.IGNORECASE | re.DOTALL,
)

_GEOMETRIES = {
    *("Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon", "GeometryCollection"),
}

# A straight edge of 2 km in metres and the same edge in degrees part by less than 0.1 m at 48°.
_DENSIFY_M = 2_000.0
_MAX_POINTS = 200_000

_BBOX_ORDER = "minx,miny,maxx,maxy in degrees"
_SPLIT_HINT = "split it there into a MultiPolygon with one part on each side of ±180°"


@dataclass(frozen=True, slots=True)
class Aoi:
    """An area on the earth, with the name that the dataset takes from it.

    Raises:
        AoiError: The geometry is empty, no polygon, invalid, or beyond ±180° or 80°S to 84°N.
    """

    name: str
    geometry: BaseGeometry
    """Polygon or MultiPolygon, 2D, valid, EPSG:4326 (x is longitude)."""

    def __post_init__(self) -> None:
        problem = _problem(self.geometry)
        if problem:
            raise AoiError(self.name, problem)

    @property
    def fingerprint(self) -> str:
        """Hash of the geometry, the same for any order of its parts and starting points; the name has no say."""
        wkb = shapely.to_wkb(shapely.normalize(self.geometry), output_dimension=2, byte_order=1)
        return blake2b(wkb, digest_size=16).hexdigest()


def read_aoi(source: str | Path, name: str | None = None) -> Aoi:
    """The area of interest that a file or a text describes; several polygons are joined into one area.

    Args:
        source: A file (GeoJSON, GeoPackage, GeoParquet, Shapefile, ``.wkt``, anything geopandas opens), a WKT text, or
            a bounding box ``"minx,miny,maxx,maxy"``. GeoJSON without ``crs``, WKT without ``SRID=`` and boxes are
            longitude and latitude, EPSG:4326.
        name: What to call it; the file's stem, ``wkt`` or ``bbox`` when left out.

    Raises:
        AoiError: The area cannot be read, or is none that a UTM grid covers; says what to do about it.
    """
    what = str(source)
    if not what.strip():
        raise AoiError("area of interest", f"none is given; wanted is a vector file, WKT or a box ({_BBOX_ORDER})")
    if what.startswith(("http://", "https://")):
        raise AoiError(what, "is not fetched from the web; download it, and give the file")
    path = Path(source)
    if _is_there(path, what):
        geometries, crs = _read_file(path, what)
        stem = path.stem
    elif isinstance(source, str) and (match := _BBOX.fullmatch(source)):
        minx, miny, maxx, maxy = (float(number) for number in match.groups())
        geometries, crs, stem = [_box(what, minx, miny, maxx, maxy)], None, "bbox"
    elif isinstance(source, str) and _WKT.fullmatch(source):
        what = what if len(what) <= 60 else f"{what[:57]}..."
        (geometries, crs), stem = _from_wkt(source, what), "wkt"
    else:
        raise AoiError(
            what, f"there is no such file; give a vector file, a WKT polygon or a bounding box ({_BBOX_ORDER})"
        )
    return Aoi(name or stem, _area(geometries, crs, what))


def read_aoi_document(document: bytes, name: str = "region") -> Aoi:
    """The area of interest that the bytes of a GeoJSON file describe, as ``read_aoi`` reads it from the file.

    Raises:
        AoiError: As ``read_aoi``.
    """
    try:
        text = document.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AoiError(name, f"cannot be read as text: {error}; wanted is GeoJSON in UTF-8") from error
    geometries, crs = _read_geojson(text, name)
    return Aoi(name, _area(geometries, crs, name))


def _area(geometries: list[BaseGeometry], crs: CRS | None, what: str) -> BaseGeometry:
    """Geometries of a CRS (None: longitude and latitude) as one that an Aoi takes."""
    parts = _parts(geometries, what)
    # Lon/lat stays untouched: degrees to radians and back would change the last bit.
    lonlat = crs is None or crs.to_authority() in {("EPSG", "4326"), ("OGC", "CRS84")}
    if lonlat:
        # Before neighbours become one: an area as wide as the world may come in parts.
        _require_narrow(parts, what)
    # A single part stays as it was drawn, to the last bit.
    geometry = parts[0] if len(parts) == 1 else shapely.union_all(parts)
    if crs is not None and not lonlat:
        geometry = to_lonlat(geometry, crs, what)
        # Before its validity: what is torn apart at the antimeridian crosses itself, too, and is not to be mended.
        _require_narrow(shapely.get_parts(geometry), what)
        if not geometry.is_valid:
            # It was valid as drawn: edges closer to each other than their new points are to the true line have crossed.
            geometry = _only_polygons(shapely.make_valid(geometry))
    problem = _problem(geometry)
    if problem:
        raise AoiError(what, problem)
    return geometry


def _is_there(path: Path, what: str) -> bool:
    try:
        return path.exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a WKT text is longer than a file name may be
            return False
        raise AoiError(what, f"cannot be looked at: {error.strerror}; check the permissions of its folders") from error


def _box(what: str, minx: float, miny: float, maxx: float, maxy: float) -> BaseGeometry:
    if miny >= maxy:
        raise AoiError(what, f"its south edge {miny:g} is not below its north edge {maxy:g}; wanted is {_BBOX_ORDER}")
    if minx == maxx:
        raise AoiError(what, f"the box is empty: its west and east edges are both {minx:g}")
    if minx > maxx:
        if max(abs(minx), abs(maxx)) > 180:
            raise AoiError(
                what, f"its west edge {minx:g} is not left of its east edge {maxx:g}; wanted is {_BBOX_ORDER}"
            )
        raise AoiError(
            what,
            f"its west edge {minx:g} is east of its east edge {maxx:g}, so it would cross the antimeridian; wanted is "
            f"{_BBOX_ORDER}. If it really crosses: {_SPLIT_HINT}, in a file or as WKT",
        )
    return shapely.box(minx, miny, maxx, maxy)


def _from_wkt(text: str, what: str) -> tuple[list[BaseGeometry], CRS | None]:
    match = _WKT.fullmatch(text)
    try:
        if match is None:
            raise shapely.errors.GEOSException("it does not begin with the name of a geometry")
        geometry = shapely.from_wkt(match[2])
    except shapely.errors.GEOSException as error:
        raise AoiError(what, f"is not well-formed WKT ({error}); wanted is a POLYGON or MULTIPOLYGON") from error
    return [geometry], _crs(f"EPSG:{match[1]}", what) if match[1] else None


def _crs(text: Any, what: str) -> CRS:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise AoiError(what, f"its CRS {text!r} is not known; write it in EPSG:4326") from error


def _read_file(path: Path, what: str) -> tuple[list[BaseGeometry], CRS | None]:
    """Geometries of a file and their CRS (None: longitude and latitude)."""
    suffix = path.suffix.lower()
    if suffix == ".wkt":
        return _from_wkt(_text(path, what).strip(), what)
    if suffix in {".json", ".geojson"}:
        return _read_geojson(_text(path, what), what)
    return _read_table(path, what)


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AoiError(what, f"cannot be read as text: {error}") from error


def _read_geojson(text: str, what: str) -> tuple[list[BaseGeometry], CRS | None]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise AoiError(what, f"is not valid JSON: {error}; wanted is GeoJSON") from error
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "FeatureCollection":
        features = document.get("features") or ()
        members = [feature.get("geometry") if isinstance(feature, dict) else feature for feature in features]
    elif kind == "Feature":
        members = [document.get("geometry")]
    elif kind in _GEOMETRIES:
        members = [document]
    else:
        raise AoiError(
            what, f"is JSON but not GeoJSON (its type is {kind!r}); wanted is a FeatureCollection or Polygon"
        )
    geometries = []
    for number, member in enumerate(members, start=1):
        if member is None:  # RFC 7946 §3.2: a feature without a place
            continue
        try:
            geometries.append(shapely.from_geojson(json.dumps(member)))
        except shapely.errors.GEOSException as error:
            raise AoiError(what, f"the geometry of feature {number} cannot be read: {error}") from error
    crs = document.get("crs")
    if crs is None:
        return geometries, None
    # The CRS member of GeoJSON 2008; RFC 7946 dropped it, and files in metres still carry it.
    try:
        crs_name = crs["properties"]["name"]
    except (KeyError, TypeError):
        raise AoiError(what, f"its 'crs' member {crs!r} names no CRS; write the file in EPSG:4326") from None
    return geometries, _crs(crs_name, what)


def _read_table(path: Path, what: str) -> tuple[list[BaseGeometry], CRS | None]:
    import geopandas
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        if path.suffix.lower() in {".parquet", ".geoparquet", ".pq"}:
            table = geopandas.read_parquet(path)
        else:
            table = geopandas.read_file(path, layer=_layer(path, what), columns=[])
    except (OSError, ValueError, DataSourceError, DataLayerError) as error:
        raise AoiError(what, f"cannot be read as a vector file: {error}") from error
    if not isinstance(table, geopandas.GeoDataFrame):
        raise AoiError(what, "is a table without geometries; an area needs polygons")
    if table.crs is None:
        raise AoiError(
            what, "does not say in which CRS its coordinates are; save it with one (GeoDataFrame.set_crs, or in QGIS)"
        )
    return list(table.geometry[table.geometry.notna()]), table.crs


def _layer(path: Path, what: str) -> str:
    import pyogrio

    layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if len(layers) == 1:
        return layers[0]
    if layers:
        raise AoiError(what, f"holds {len(layers)} layers ({', '.join(layers)}); save the one you mean in its own file")
    raise AoiError(what, "holds no layer with geometries; an area needs polygons")


def _parts(geometries: list[BaseGeometry], what: str) -> npt.NDArray[np.object_]:
    """All polygons, each valid, in the CRS they came in."""
    parts: npt.NDArray[np.object_] = shapely.get_parts(shapely.force_2d(geometries))
    # Collections may hold collections.
    while (shapely.get_type_id(parts) == shapely.GeometryType.GEOMETRYCOLLECTION).any():
        parts = shapely.get_parts(parts)
    parts = parts[~shapely.is_empty(parts)]
    parts = shapely.get_parts(parts)
    if not len(parts):
        raise AoiError(what, "is empty: it holds no geometry; an area needs at least one polygon")
    flat = shapely.get_type_id(parts) != shapely.GeometryType.POLYGON
    if flat.all():
        kinds = " and ".join(sorted({part.geom_type for part in parts}))
        raise AoiError(what, f"holds no polygon but {kinds}; an area needs polygons: buffer them, or draw an outline")
    if flat.any():
        logger.warning("%s: %d points and lines are left out, they have no area", what, int(flat.sum()))
    parts = parts[~flat]
    _require_finite(parts, what)
    # A MultiPolygon with overlapping parts is invalid as a whole but means their union, so parts are judged one by one.
    invalid = parts[~shapely.is_valid(parts)]
    if len(invalid):
        raise AoiError(what, _invalid(invalid[0]))
    return parts


def _only_polygons(geometry: BaseGeometry) -> BaseGeometry:
    parts = shapely.get_parts(geometry)
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def _require_narrow(parts: npt.NDArray[np.object_], what: str) -> None:
    bounds = shapely.bounds(parts)
    widest = float((bounds[:, 2] - bounds[:, 0]).max())
    # Only degrees: metres are told apart with a sentence of their own.
    if widest > 180 and abs(bounds).max() <= 360:
        raise AoiError(
            what,
            f"has a part that is {widest:g}° wide, so it probably crosses the antimeridian; {_SPLIT_HINT}. "
            "An area that really is that wide: cut it into parts narrower than 180°",
        )


def _require_finite(parts: npt.NDArray[np.object_], what: str) -> None:
    import numpy as np

    if not np.isfinite(shapely.get_coordinates(parts)).all():
        raise AoiError(what, "holds a coordinate that is not a number; every corner needs a longitude and a latitude")


def _invalid(geometry: BaseGeometry) -> str:
    reason = shapely.is_valid_reason(geometry)
    return (
        f"its outline is not valid: {reason} (x y of the place); an outline may not cross itself: "
        "repair it there, for example with shapely.make_valid or 'Fix geometries' in QGIS"
    )


def to_lonlat(geometry: BaseGeometry, crs: CRS, what: str) -> BaseGeometry:
    """A geometry of any CRS in EPSG:4326."""
    import numpy as np
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    if not (crs.is_projected or crs.is_geographic or crs.is_bound or crs.is_compound):
        raise AoiError(what, f"its CRS {crs.name!r} is not tied to the earth; write it in EPSG:4326")
    if not crs.is_geographic:
        metres = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        step = max(_DENSIFY_M / (metres or 1.0), geometry.length / _MAX_POINTS)
        geometry = shapely.segmentize(geometry, step)
    try:
        transformer = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        x, y = shapely.get_coordinates(geometry).T
        lon, lat = transformer.transform(x, y, errcheck=True)
    except ProjError as error:
        raise AoiError(what, f"cannot be brought from {crs.name} to EPSG:4326: {error}") from error
    return shapely.set_coordinates(geometry, np.stack([lon, lat], axis=1))


def _problem(geometry: BaseGeometry) -> str | None:
    """What keeps a lon/lat geometry from being an area of interest, as a sentence; None when nothing does."""
    if geometry.geom_type not in {"Polygon", "MultiPolygon"}:
        return f"is a {geometry.geom_type}; an area needs polygons"
    if geometry.is_empty:
        return "is empty; an area needs at least one polygon"
    minx, miny, maxx, maxy = geometry.bounds
    extent = f"x from {minx:g} to {maxx:g} and y from {miny:g} to {maxy:g}"
    if abs(miny) > 90 or abs(maxy) > 90 or max(abs(minx), abs(maxx)) > 360:
        return (
            f"has {extent}, which are no degrees (±180, ±90) but probably metres; "
            "write it in EPSG:4326, or in a format that carries its CRS (GeoPackage)"
        )
    if minx < -180 or maxx > 180:
        return f"has {extent}: it reaches beyond ±180°, the antimeridian; {_SPLIT_HINT}"
    if not geometry.is_valid:
        return _invalid(geometry)
    if miny < SOUTH_END or maxy > NORTH_END:
        return (
            f"reaches from latitude {miny:g}° to {maxy:g}°, and UTM grids cover 80°S to 84°N; "
            "cut off what lies beyond (the poles need another grid)"
        )
    return None
