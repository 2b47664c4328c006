"""From a STAC item to a Scene: our band names, one CRS and grid a file, nothing left of an endpoint's habits.

Projection metadata stand in different places in every version and endpoint. Where they are missing, the file's header
is opened, so this may touch the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from catalog import sentinel2
from catalog.acquisitions import acquisition_key, platform_of, tile_of
from catalog.collections import Band, Collection, canonical_band, nearest
from catalog.collections import collection as collection_table
from catalog.radiometry import s2_radiometry
from catalog.scene import Asset, Radiometry, Scene
from catalog.search import item_geometry, item_interval
from catalog.signing import sign
from curate.errors import CatalogError, ReadError

Item = Mapping[str, Any]
Transform = tuple[float, float, float, float, float, float]


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
    assets = tuple(_asset(item, band, signing) for band in wanted)
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
        if key is not None and None in _projection(item, item["assets"][key]):
            return False
    return True


def _key(item: Item, band: Band) -> str | None:
    assets = item["assets"]
    for key in band.keys:
        if key in assets and assets[key].get("href"):
            return key
    return None


def _asset(item: Item, band: Band, signing: str | None) -> Asset:
    key = _key(item, band)
    if key is None:
        raise KeyError(band.name)
    asset = item["assets"][key]
    epsg, transform, shape = _projection(item, asset)
    dtype, nodata = _values(asset, band)
    if epsg is None or transform is None or shape is None:
        header = _header(item, band.name, key, signing)
        epsg, transform, shape = epsg or header[0], transform or header[1], shape or header[2]
    return Asset(band.name, key, asset["href"], epsg, transform, shape, dtype, nodata, band.layer)


def _projection(item: Item, asset: Item) -> tuple[int | None, Transform | None, tuple[int, int] | None]:
    """EPSG code, transform and shape as far as the metadata say them: the asset's own words before the item's."""
    properties = item["properties"]
    holders = (asset, properties)
    epsg = next((code for holder in holders if (code := _epsg(item, holder)) is not None), None)
    transform = next((holder["proj:transform"] for holder in holders if holder.get("proj:transform")), None)
    shape = next((holder["proj:shape"] for holder in holders if holder.get("proj:shape")), None)
    if transform is not None and len(transform) not in (6, 9):
        raise CatalogError(f"item {item['id']}", f"proj:transform has {len(transform)} numbers; wanted 6 or 9")
    return epsg, _six(transform) if transform else None, (int(shape[0]), int(shape[1])) if shape else None


def _six(transform: Sequence[float]) -> Transform:
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    return a, b, c, d, e, f


def _epsg(item: Item, holder: Item) -> int | None:
    code = holder.get("proj:code")
    if code:
        match = re.fullmatch(r"EPSG:(\d+)", str(code), re.IGNORECASE)
        if match:
            return int(match[1])
        raise CatalogError(f"item {item['id']}", f"proj:code is '{code}'; only EPSG codes can be read")
    if holder.get("proj:epsg"):
        return int(holder["proj:epsg"])
    definition = holder.get("proj:wkt2") or holder.get("proj:projjson")
    if not definition:
        return None
    import pyproj

    try:
        epsg = pyproj.CRS.from_user_input(definition).to_epsg()
    except pyproj.exceptions.CRSError as error:
        raise CatalogError(f"item {item['id']}", f"its CRS cannot be understood: {error}") from error
    return None if epsg is None else int(epsg)


def _values(asset: Item, band: Band) -> tuple[str, float | None]:
    """Data type and void: of the raster extension in either version, else of the table."""
    listed = asset.get("raster:bands") or asset.get("bands") or []
    layer = listed[band.layer - 1] if len(listed) >= band.layer else {}
    dtype = layer.get("data_type") or asset.get("data_type") or band.dtype
    nodata = layer.get("nodata") if layer.get("nodata") is not None else asset.get("nodata")
    return str(dtype), band.nodata if nodata is None else float(nodata)  # may be the text "nan"


def _header(item: Item, band: str, key: str, signing: str | None) -> tuple[int, Transform, tuple[int, int]]:
    """EPSG code, transform and shape from the file itself."""
    import rasterio
    from rasterio.errors import RasterioError

    href = item["assets"][key]["href"]
    try:
        # EMPTY_DIR: GDAL would otherwise list the folder of every remote file.
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), rasterio.open(sign(href, signing)) as file:
            crs, transform, shape = file.crs, file.transform, file.shape
    except (RasterioError, OSError) as error:
        why = f"the item says no projection, and its file {href} cannot be opened to find it: {error}"
        raise ReadError(str(item["id"]), band, why) from error
    epsg = crs.to_epsg() if crs else None
    if epsg is None or transform.is_identity:
        lacks = "no CRS" if not crs else "a CRS without an EPSG code" if epsg is None else "no geotransform"
        raise CatalogError(
            f"item {item['id']}",
            f"asset '{key}' says no projection, and its file {href} has {lacks}. Add proj:code, proj:transform and "
            "proj:shape to the item, or georeference the file",
        )
    return int(epsg), _six(transform), (int(shape[0]), int(shape[1]))


def _radiometry(item: Item, table: Collection, bands: Sequence[Band], assets: Sequence[Asset]) -> Radiometry:
    measured = [(band, asset) for band, asset in zip(bands, assets, strict=True) if band.kind != "quality"]
    if not measured:
        return Radiometry()
    if table.mission != "sentinel-2":
        return Radiometry(scale=measured[0][0].scale)
    found = {s2_radiometry(item, asset.key, asset.href, table.id) for _, asset in measured}
    if len({(one.scale, one.offset_dn) for one in found}) > 1:
        whys = "; ".join(sorted(one.why for one in found))
        raise CatalogError(f"item {item['id']}", f"its bands differ in radiometry and cannot be one scene: {whys}")
    return min(found, key=lambda one: one.why)
