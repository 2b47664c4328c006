"""From a STAC item to a Scene: our band names, one CRS and grid a file, nothing left of an endpoint's habits.

Projection metadata stand in different places in every version and endpoint. Where they are missing, the file's header
is opened, so this may touch the network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from catalog import sentinel2
from catalog.access import access
from catalog.acquisitions import acquisition_key, platform_of, tile_of
from catalog.collections import Band, Collection, canonical_band, nearest
from catalog.collections import collection as collection_table
from catalog.describe import BESIDE
from catalog.radiometry import s2_radiometry
from catalog.scene import Asset, Radiometry, Scene
from catalog.search import item_geometry, item_interval
from curate.errors import CatalogError, ReadError

if TYPE_CHECKING:
    import pyproj

Item = Mapping[str, Any]
Transform = tuple[float, float, float, float, float, float]
STORED_AS_FILED = ("reflectance", "brightness", "temperature", "index", "value")
"""Kinds of bands whose numbers are stored in the type of their files; the others become floats."""
IDENTITY: Transform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Stands for the grid of a file that lies by ground control points."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a file lies, as far as its item or its header say."""

    epsg: int | None
    """0: ``wkt`` has a CRS without an EPSG code; None: not said."""
    wkt: str | None
    transform: Transform | None
    shape: tuple[int, int] | None

    @property
    def is_whole(self) -> bool:
        """Whether no file must be opened."""
        return None not in (self.epsg, self.transform, self.shape)


def to_scene(
    item: Item,
    *,
    source: str,
    collection: str | Collection,
    bands: Sequence[str],
    acquisition: str | None = None,
    signing: str | None = None,
) -> Scene:
    """The scene of an item, with one asset for each of ``bands`` in that order.

    Args:
        item: A STAC item with absolute hrefs.
        source: Name of the source in the recipe.
        collection: What the item's assets are.
        bands: Names or aliases of the wanted bands, the quality layer among them when it is wanted.
        acquisition: Name of the look; by default what the item alone tells.
        signing: Name of the signing scheme its files need.

    Raises:
        CatalogError: a band has no asset, or the file has no usable projection.
        ReadError: the item says no projection and its file cannot be opened.
    """
    table = collection if isinstance(collection, Collection) else collection_table(collection)
    wanted = [table.bands[canonical_band(table, name)] for name in bands]
    missing = missing_bands(item, table, [band.name for band in wanted])
    if missing:
        raise CatalogError(f"item {item['id']}", no_asset(item, table, missing))
    assets = tuple(_asset(item, table, band, signing) for band in wanted)
    footprint = item_geometry(item)
    if footprint is None:
        raise CatalogError(f"item {item['id']}", "has neither a geometry nor a bbox, so nobody knows where it lies")
    interval = None if table.timeless else item_interval(item)
    properties = item["properties"]
    cloud_pct = properties.get("eo:cloud_cover")
    return Scene(
        id=str(item["id"]),
        source=source,
        collection=table.id,
        acquired=interval[0] if interval else None,
        acquisition="static" if table.timeless else acquisition or acquisition_key(item, table.mission),
        footprint=footprint,
        assets=assets,
        radiometry=_radiometry(item, table, wanted, assets),
        platform=platform_of(item),
        tile=tile_of(item),
        orbit=str(properties["sat:orbit_state"]).lower() if properties.get("sat:orbit_state") else None,
        relative_orbit=relative_orbit(item),
        baseline=sentinel2.baseline(item) if table.mission == "sentinel-2" else None,
        cloud_pct=float(cloud_pct) if isinstance(cloud_pct, int | float) else None,
        signing=signing,
    )


def missing_bands(item: Item, table: Collection, bands: Sequence[str]) -> tuple[str, ...]:
    """Those of the canonical ``bands`` that an item has no asset for."""
    return tuple(band for band in bands if _key(item, table.bands[band]) is None)


def no_asset(item: Item, table: Collection, missing: Sequence[str]) -> str:
    """A sentence saying which bands an item lacks, and what it has instead."""
    keys = [key for band in missing for key in table.bands[band].keys]
    close = [match for match in (nearest(key, item["assets"]) for key in keys) if match]
    return (
        f"has no asset for {', '.join(missing)} (looked for {', '.join(keys)}).{close[0] if close else ''} "
        f"It has: {', '.join(item['assets']) or 'no assets at all'}"
    )


def relative_orbit(item: Item) -> int | None:
    """Relative orbit of an item, from its property or its product's name; None when nothing says."""
    orbit = item["properties"].get("sat:relative_orbit")
    if isinstance(orbit, int | float):
        return int(orbit)
    product = sentinel2.product_parts(item)
    return int(product[4]) if product else None


def says_projection(item: Item, table: Collection, bands: Sequence[str]) -> bool:
    """Whether ``to_scene`` can do without opening a file."""
    for band in bands:
        key = _key(item, table.bands[band])
        if key is not None and not _placed(item, item["assets"][key], table).is_whole:
            return False
    return True


def _key(item: Item, band: Band) -> str | None:
    assets = item["assets"]
    for key in band.keys:
        if key in assets and assets[key].get("href"):
            return key
    return None


def _asset(item: Item, table: Collection, band: Band, signing: str | None) -> Asset:
    key = _key(item, band)
    if key is None:
        raise KeyError(band.name)
    asset = item["assets"][key]
    placed = _placed(item, asset, table)
    dtype, nodata = _values(item, asset, band, table)
    if not placed.is_whole:
        header = _header(item, band.name, key, signing, table)
        knows = placed if placed.epsg is not None else header
        placed = Placed(knows.epsg, knows.wkt, placed.transform or header.transform, placed.shape or header.shape)
    assert placed.epsg is not None  # a header is whole or an error
    assert placed.transform is not None
    assert placed.shape is not None
    return Asset(
        band=band.name,
        key=key,
        href=asset["href"],
        epsg=placed.epsg,
        transform=placed.transform,
        shape=placed.shape,
        dtype=dtype,
        nodata=nodata,
        layer=band.layer,
        wkt=placed.wkt,
    )


def _placed(item: Item, asset: Item, table: Collection) -> Placed:
    """CRS, transform and shape as far as the metadata say them: the asset's own words before the item's."""
    properties = item["properties"]
    if table.georeference == "gcps":
        # proj:transform is made up from the bounding box; `s1:shape` is the true size, but as (width, height).
        size = properties.get("s1:shape")
        return Placed(4326, None, IDENTITY, (int(size[1]), int(size[0])) if size else None)
    holders = (asset, properties)
    epsg, wkt = next((crs for holder in holders if (crs := _crs(item, holder))[0] is not None), (None, None))
    transform = next((holder["proj:transform"] for holder in holders if holder.get("proj:transform")), None)
    shape = next((holder["proj:shape"] for holder in holders if holder.get("proj:shape")), None)
    if transform is not None and len(transform) not in (6, 9):
        raise CatalogError(f"item {item['id']}", f"proj:transform has {len(transform)} numbers; wanted 6 or 9")
    return Placed(epsg, wkt, _six(transform) if transform else None, (int(shape[0]), int(shape[1])) if shape else None)


def _six(transform: Sequence[float]) -> Transform:
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    if c == e == 0 and a != 0 and b != 0:
        # GDAL's order (x, width, 0, y, 0, -height), seen in items of landsat-8-l1; read as STAC's it is a shear with
        # its corner at 0, which nothing real has.
        return b, c, a, e, f, d
    return a, b, c, d, e, f


def _crs(item: Item, holder: Item) -> tuple[int | None, str | None]:
    """EPSG code, or 0 and the WKT of a CRS that has none; None and None where nothing is said."""
    code = holder.get("proj:code")
    if code:
        match = re.fullmatch(r"EPSG:(\d+)", str(code), re.IGNORECASE)
        if match:
            return int(match[1]), None
    elif holder.get("proj:epsg"):
        return int(holder["proj:epsg"]), None
    definition = code or holder.get("proj:wkt2") or holder.get("proj:projjson")
    if not definition:
        return None, None
    import pyproj

    try:
        return _coded(pyproj.CRS.from_user_input(definition))
    except pyproj.exceptions.CRSError as error:
        raise CatalogError(f"item {item['id']}", f"its CRS cannot be understood: {error}") from error


def _coded(crs: pyproj.CRS) -> tuple[int, str | None]:
    epsg = crs.to_epsg()
    return (int(epsg), None) if epsg is not None else (0, crs.to_wkt())


def _values(item: Item, asset: Item, band: Band, table: Collection) -> tuple[str, float | None]:
    """Data type and void: of the raster extension in either version, else of the table."""
    listed = asset.get("raster:bands") or asset.get("bands") or []
    layer = listed[band.layer - 1] if len(listed) >= band.layer else {}
    said = layer.get("data_type") or asset.get("data_type")
    dtype = band.dtype if "dtype" in band.firm else str(said or band.dtype)
    if table.described and band.kind in STORED_AS_FILED and dtype != band.dtype:
        # The store is laid out from what was described, before a file is read.
        raise CatalogError(
            f"item {item['id']}",
            f"band {band.name} is {dtype}, but {table.id} is described without a dtype, which means {band.dtype}; "
            f"write dtype: {dtype} into the description",
        )
    if "nodata" in band.firm:
        return dtype, band.nodata
    nodata = layer.get("nodata") if layer.get("nodata") is not None else asset.get("nodata")
    return dtype, band.nodata if nodata is None else float(nodata)  # may be the text "nan"


def _header(item: Item, band: str, key: str, signing: str | None, table: Collection) -> Placed:
    """Where a file lies, from the file itself; whole."""
    import pyproj
    import rasterio
    from rasterio.errors import RasterioError

    href = item["assets"][key]["href"]
    try:
        reach = access(href, signing)
    except OSError as error:
        why = f"the item says no projection, and the token service gives none to open its file {href} with ({error})"
        raise ReadError(str(item["id"]), band, why) from None  # the cause may not be picklable
    try:
        # EMPTY_DIR: GDAL would otherwise list the folder of every remote file.
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            reach.env(),
            rasterio.open(reach.url) as file,
        ):
            crs, transform, shape, has_gcps = file.crs, file.transform, file.shape, bool(file.gcps[0])
    except (RasterioError, OSError) as error:
        why = f"the item says no projection, and its file {href} cannot be opened to find it: {reach.hide(str(error))}"
        raise ReadError(str(item["id"]), band, why) from None if reach.is_secret else error
    size = (int(shape[0]), int(shape[1]))
    if table.georeference == "gcps" and has_gcps:
        return Placed(4326, None, IDENTITY, size)
    if not crs or transform.is_identity:
        lacks = "no CRS" if not crs else "no geotransform"
        raise CatalogError(
            f"item {item['id']}",
            f"asset '{key}' says no projection, and its file {href} has {lacks}. Add proj:code, proj:transform and "
            "proj:shape to the item, or georeference the file",
        )
    return Placed(*_coded(pyproj.CRS.from_user_input(crs)), _six(transform), size)


def _radiometry(item: Item, table: Collection, bands: Sequence[Band], assets: Sequence[Asset]) -> Radiometry:
    measured = [(band, asset) for band, asset in zip(bands, assets, strict=True) if band.kind not in BESIDE]
    if not measured:
        return Radiometry()
    if table.mission != "sentinel-2":
        return _as_declared(item, table, measured)
    found = {s2_radiometry(item, asset.key, asset.href, table.id) for _, asset in measured}
    if len({(one.scale, one.offset_dn) for one in found}) > 1:
        whys = "; ".join(sorted(one.why for one in found))
        raise CatalogError(f"item {item['id']}", f"its bands differ in radiometry and cannot be one scene: {whys}")
    first = min(found, key=lambda one: one.why)
    return replace(first, why=f"uncertain: {table.unverified}; {first.why}") if table.unverified else first


def _as_declared(item: Item, table: Collection, measured: Sequence[tuple[Band, Asset]]) -> Radiometry:
    """Scale and offset of the table, with a word on every band whose item says otherwise."""
    band = measured[0][0]
    notes = []
    others = [one for one, _ in measured if (one.scale, one.offset) != (band.scale, band.offset)]
    if others:
        notes.append(f"scale of {', '.join(one.name for one in others)} is another, see the table of {table.id}")
    wrong = []
    for one, asset in measured:
        scale, offset = _declared(item["assets"][asset.key], one.layer)
        # Within a ten-thousandth: items round 0.00341802 as they please.
        if (scale is not None and not math.isclose(scale, one.scale, rel_tol=1e-4)) or (
            offset is not None and not math.isclose(offset, one.offset, rel_tol=1e-4, abs_tol=1e-9)
        ):
            wrong.append(f"the item says {one.name} * {scale} + {offset or 0:g}")
    if table.unverified:
        wrong.append(table.unverified)
    if wrong:
        notes.insert(0, f"uncertain: {'; '.join(wrong)}; taken: * {band.scale:g} + {band.offset:g}")
    return Radiometry(scale=band.scale, offset=band.offset, why="; ".join(notes) or "as stored")


def _declared(asset: Item, layer: int) -> tuple[float | None, float | None]:
    """Scale and offset that the raster extension announces, in either version; None where it does not."""
    listed = asset.get("raster:bands") or asset.get("bands") or []
    holders = [*listed[layer - 1 : layer], asset]
    found = []
    for what in ("scale", "offset"):
        values = (holder.get(name) for holder in holders for name in (what, f"raster:{what}"))
        found.append(next((float(value) for value in values if isinstance(value, int | float)), None))
    return found[0], found[1]
