"""The static STAC catalog around the files of a world: plain JSON with relative links, STAC 1.1.

Ids, asset keys and properties are those of the Planetary Computer's collections, in the form that STAC 1.1 gives them
(``proj:code`` for ``proj:epsg``, ``bands`` for ``eo:bands``).
"""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import shapely.geometry

from simulate.frame import lonlat_outline
from simulate.landcover import CLASSES
from simulate.optical import PIXEL_M, SWATH_TILT, Acquisition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from simulate.radar import Pass
    from simulate.world import Raster, WorldSpec

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
EXTENSIONS = {
    "eo": "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "proj": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "sat": "https://stac-extensions.github.io/sat/v1.0.0/schema.json",
    "sar": "https://stac-extensions.github.io/sar/v1.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "class": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
}

COLLECTIONS: dict[str, tuple[str, str, str]] = {
    "sentinel-2-l2a": (
        "Sentinel-2 Level-2A",
        "Simulated Sentinel-2 surface reflectance and scene classification.",
        "other",
    ),
    "sentinel-1-rtc": (
        "Sentinel 1 Radiometrically Terrain Corrected (RTC)",
        "Simulated Sentinel-1 backscatter.",
        "other",
    ),
    "cop-dem-glo-30": ("Copernicus DEM GLO-30", "Simulated elevation on the grid of Copernicus DEM.", "other"),
    "esa-worldcover": ("ESA WorldCover", "Simulated land cover on the grid of ESA WorldCover.", "other"),
}
"""Title, description and licence of each collection. No pixel comes from the real ones."""

# (common name, centre wavelength um, full width half max um), as the Planetary Computer writes them, so that B05, B06,
# B07 and B8A share a common name here too.
S2_BANDS: dict[str, tuple[str | None, float, float]] = {
    "B01": ("coastal", 0.443, 0.027),
    "B02": ("blue", 0.49, 0.098),
    "B03": ("green", 0.56, 0.045),
    "B04": ("red", 0.665, 0.038),
    "B05": ("rededge", 0.704, 0.019),
    "B06": ("rededge", 0.74, 0.018),
    "B07": ("rededge", 0.783, 0.028),
    "B08": ("nir", 0.842, 0.145),
    "B8A": ("rededge", 0.865, 0.033),
    "B09": (None, 0.945, 0.026),
    "B11": ("swir16", 1.61, 0.143),
    "B12": ("swir22", 2.19, 0.242),
}


def iso(moment: dt.datetime) -> str:
    """A UTC time as STAC wants it, with microseconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document: the same bytes for the same content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def asset(href: str, raster: Raster, dtype: str, nodata: float | None, **more: Any) -> dict[str, Any]:
    """A COG of a scene, with its grid."""
    result: dict[str, Any] = {
        "href": f"./{href}",
        "type": COG_TYPE,
        "roles": ["data"],
        "proj:shape": list(raster.shape),
        "proj:transform": list(raster.transform),
        "proj:bbox": list(raster.bounds),
        "data_type": dtype,
        **more,
    }
    if nodata is not None:
        result["nodata"] = nodata
    return result


def item(
    collection: str,
    name: str,
    footprint: shapely.Polygon,
    properties: Mapping[str, Any],
    assets: Mapping[str, Any],
    extensions: Sequence[str],
) -> dict[str, Any]:
    """A STAC item of a static catalog; ``properties`` hold its ``datetime``."""
    bounds = [round(v, 7) for v in footprint.bounds]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSIONS[key] for key in extensions],
        "id": name,
        "collection": collection,
        "geometry": json.loads(json.dumps(shapely.geometry.mapping(footprint))),
        "bbox": bounds,
        "properties": dict(properties),
        "links": [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
        ],
        "assets": dict(assets),
    }


def outline(raster: Raster) -> shapely.Polygon:
    """The ground of a raster as a polygon in EPSG:4326."""
    return shapely.Polygon(lonlat_outline(raster))


def half_plane(spec: WorldSpec, edge_x: float, tilt: float, side: float) -> shapely.Polygon:
    """The ground west of a line, as a polygon in EPSG:4326.

    Args:
        spec: The world.
        edge_x: World x of the line where world y is 0.
        tilt: World metres by which the line moves to the east for a metre to the north.
        side: How far the polygon reaches, world metres.
    """
    per_lon, per_lat = spec.m_per_degree
    corners = [
        (-side, -side), (edge_x - tilt * side, -side), (edge_x + tilt * side, side), (-side, side),
    ]  # fmt: skip
    return shapely.Polygon([(spec.lon + x / per_lon, spec.lat + y / per_lat) for x, y in corners])


def seen_by(spec: WorldSpec, raster: Raster, edge_x: float) -> shapely.Polygon:
    """Footprint of a scene whose swath ends at ``edge_x`` on the middle row, EPSG:4326, 1e-7 degrees."""
    if edge_x > 1e11:
        return outline(raster)
    seen = outline(raster).intersection(half_plane(spec, edge_x, SWATH_TILT, 4 * spec.size_m + 10_000))
    return shapely.Polygon(np.round(shapely.get_coordinates(seen), 7))


def s2_item_id(acquisition: Acquisition, tile: str) -> str:
    """Id of a Sentinel-2 item on the Planetary Computer: the product's without its baseline."""
    satellite = "S2" + acquisition.platform[-1]
    return (
        f"{satellite}_MSIL2A_{acquisition.sensed:%Y%m%dT%H%M%S}_R{acquisition.relative_orbit:03d}_T{tile}"
        f"_{acquisition.generated:%Y%m%dT%H%M%S}"
    )


def s2_item(
    spec: WorldSpec,
    acquisition: Acquisition,
    tile: str,
    rasters: Mapping[int, Raster],
    footprint: shapely.Polygon,
    scl_counts: Sequence[int],
) -> dict[str, Any]:
    """The item of one tile of an acquisition; shares of classes come from the counts of its SCL.

    Args:
        spec: The world.
        acquisition: The pass.
        tile: Name of the MGRS square.
        rasters: Grid by pixel size in metres.
        footprint: Of the valid pixels, EPSG:4326.
        scl_counts: Pixels of each of the classes 0 .. 11.
    """
    satellite = "S2" + acquisition.platform[-1]
    number = f"N{acquisition.baseline.replace('.', '')}"
    orbit = f"R{acquisition.relative_orbit:03d}"
    total = sum(scl_counts)
    seen = max(total - scl_counts[0], 1)

    def percent(*classes: int) -> float:
        return round(100 * sum(scl_counts[k] for k in classes) / seen, 6)

    sensed, made = f"{acquisition.sensed:%Y%m%dT%H%M%S}", f"{acquisition.generated:%Y%m%dT%H%M%S}"
    properties: dict[str, Any] = {
        "datetime": iso(acquisition.sensed),
        "platform": acquisition.platform,
        "constellation": "Sentinel 2",
        "instruments": ["msi"],
        "proj:code": f"EPSG:{rasters[20].epsg}",
        "eo:cloud_cover": percent(8, 9, 10),
        "sat:orbit_state": "descending",
        "sat:relative_orbit": acquisition.relative_orbit,
        "s2:mgrs_tile": tile,
        "s2:processing_baseline": acquisition.baseline,
        "s2:datatake_id": f"G{satellite}_{sensed}_{acquisition.absolute_orbit:06d}_N{acquisition.baseline}",
        "s2:product_uri": f"{satellite}_MSIL2A_{sensed}_{number}_{orbit}_T{tile}_{made}.SAFE",
        "s2:granule_id": (
            f"{satellite}_OPER_MSI_L2A_TL_SIML_{made}_A{acquisition.absolute_orbit:06d}_T{tile}_N{acquisition.baseline}"
        ),
        "s2:product_type": "S2MSI2A",
        "s2:datatake_type": "INS-NOBS",
        "s2:generation_time": iso(acquisition.generated),
        "s2:mean_solar_zenith": round(acquisition.sun_zenith, 6),
        "s2:mean_solar_azimuth": round(acquisition.sun_azimuth, 6),
        "s2:nodata_pixel_percentage": round(100 * scl_counts[0] / max(total, 1), 6),
        "s2:saturated_defective_pixel_percentage": percent(1),
        "s2:dark_features_percentage": percent(2),
        "s2:cloud_shadow_percentage": percent(3),
        "s2:vegetation_percentage": percent(4),
        "s2:not_vegetated_percentage": percent(5),
        "s2:water_percentage": percent(6),
        "s2:unclassified_percentage": percent(7),
        "s2:medium_proba_clouds_percentage": percent(8),
        "s2:high_proba_clouds_percentage": percent(9),
        "s2:thin_cirrus_percentage": percent(10),
        "s2:snow_ice_percentage": percent(11),
    }
    assets = {}
    for band in spec.bands:
        common, centre, width = S2_BANDS[band]
        described: dict[str, Any] = {"name": band, "eo:center_wavelength": centre, "eo:full_width_half_max": width}
        if common:
            described["eo:common_name"] = common
        size = PIXEL_M[band]
        assets[band] = asset(
            f"{band}.tif", rasters[size], "uint16", 0, gsd=size, title=f"{band} - {size}m", bands=[described]
        )
    assets["SCL"] = asset("SCL.tif", rasters[20], "uint8", 0, gsd=20, title="Scene classification map (SCL)")
    return item(
        "sentinel-2-l2a", s2_item_id(acquisition, tile), footprint, properties, assets, ("eo", "sat", "proj", "raster")
    )


def s1_item(radar_pass: Pass, footprint: shapely.Polygon) -> dict[str, Any]:
    """The item of a Sentinel-1 pass."""
    end = radar_pass.sensed + dt.timedelta(seconds=25)
    properties = {
        "datetime": iso(radar_pass.sensed + dt.timedelta(seconds=12, milliseconds=500)),
        "start_datetime": iso(radar_pass.sensed),
        "end_datetime": iso(end),
        "platform": radar_pass.platform,
        "constellation": "Sentinel-1",
        "proj:code": f"EPSG:{radar_pass.raster.epsg}",
        "sat:orbit_state": radar_pass.direction,
        "sat:relative_orbit": radar_pass.relative_orbit,
        "sat:absolute_orbit": radar_pass.absolute_orbit,
        "sar:instrument_mode": "IW",
        "sar:frequency_band": "C",
        "sar:center_frequency": 5.405,
        "sar:polarizations": ["VV", "VH"],
        "sar:product_type": "GRD",
        "sar:observation_direction": "right",
        "sar:looks_equivalent_number": 4.4,
        "sar:pixel_spacing_range": 10,
        "sar:pixel_spacing_azimuth": 10,
        "s1:orbit_source": "RESORB",
        "s1:processing_level": "1",
    }
    assets = {
        key: asset(f"{key}.tif", radar_pass.raster, "float32", -32768, title=f"{key.upper()}: gamma nought", gsd=10)
        for key in ("vv", "vh")
    }
    return item("sentinel-1-rtc", radar_pass.id, footprint, properties, assets, ("sar", "sat", "proj", "raster"))


def dem_item(tile: str, raster: Raster) -> dict[str, Any]:
    """The item of an elevation tile."""
    properties = {
        "datetime": "2021-04-22T00:00:00Z",
        "platform": "tandem-x",
        "gsd": 30,
        "proj:code": "EPSG:4326",
    }
    assets = {"data": asset("data.tif", raster, "float32", None, unit="meter", **{"raster:sampling": "point"})}
    return item(
        "cop-dem-glo-30", f"Copernicus_DSM_COG_10_{tile}_DEM", outline(raster), properties, assets, ("proj", "raster")
    )


def landcover_item(tile: str, raster: Raster) -> dict[str, Any]:
    """The item of a land-cover tile, of the year 2021."""
    properties = {
        "datetime": None,
        "start_datetime": "2021-01-01T00:00:00Z",
        "end_datetime": "2021-12-31T23:59:59Z",
        "platform": "sentinel-1a, sentinel-1b, sentinel-2a, sentinel-2b",
        "mission": "sentinel-1, sentinel-2",
        "instruments": ["c-sar", "msi"],
        "esa_worldcover:product_version": "2.0.0",
        "esa_worldcover:product_tile": tile,
        "proj:code": "EPSG:4326",
    }
    classes = [{"value": code, "description": name, "color_hint": colour} for code, (name, colour) in CLASSES.items()]
    for entry in classes:
        entry["name"] = "_".join(str(entry["description"]).lower().replace("/", " ").replace("-", " ").split())
    assets = {
        "map": asset("map.tif", raster, "uint8", 0, title="Land Cover Classes", **{"classification:classes": classes})
    }
    name = f"ESA_WorldCover_10m_2021_v200_{tile}"
    return item("esa-worldcover", name, outline(raster), properties, assets, ("proj", "raster", "class"))


def write_catalog(folder: Path, spec: WorldSpec, items: Sequence[Mapping[str, Any]]) -> None:
    """Write the items, their collections and, last, ``catalog.json``."""
    root = {"rel": "root", "href": "../catalog.json", "type": "application/json"}
    children = []
    for collection, (title, description, licence) in COLLECTIONS.items():
        members = sorted((it for it in items if it["collection"] == collection), key=lambda it: str(it["id"]))
        if not members:
            continue
        for member in members:
            write_json(folder / collection / str(member["id"]) / f"{member['id']}.json", member)
        boxes = [member["bbox"] for member in members]
        times = sorted(
            moment
            for member in members
            for key in ("datetime", "start_datetime", "end_datetime")
            if (moment := member["properties"].get(key))
        )
        write_json(
            folder / collection / "collection.json",
            {
                "type": "Collection",
                "id": collection,
                "stac_version": "1.1.0",
                "title": title,
                "description": description,
                "license": licence,
                "extent": {
                    "spatial": {
                        "bbox": [[
                            min(b[0] for b in boxes), min(b[1] for b in boxes),
                            max(b[2] for b in boxes), max(b[3] for b in boxes),
                        ]]
                    },
                    "temporal": {"interval": [[times[0], times[-1]]]},
                },
                "links": [
                    root,
                    {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
                    *(
                        {"rel": "item", "href": f"./{m['id']}/{m['id']}.json", "type": "application/geo+json"}
                        for m in members
                    ),
                ],
            },
        )  # fmt: skip
        children.append(
            {"rel": "child", "href": f"./{collection}/collection.json", "type": "application/json", "title": title}
        )
    write_json(
        folder / "catalog.json",
        {
            "type": "Catalog",
            "id": f"simulated-{spec.fingerprint[:12]}",
            "stac_version": "1.1.0",
            "title": "A simulated world",
            "description": (
                f"{spec.size_px} x {spec.size_px} pixels of 10 m around {spec.lon} E, {spec.lat} N; seed {spec.seed}."
            ),
            "links": [{"rel": "root", "href": "./catalog.json", "type": "application/json"}, *children],
        },
    )


def region_polygon(spec: WorldSpec) -> shapely.Polygon:
    """The area to build: a bent outline within what the files cover, across both tiles; EPSG:4326."""
    per_lon, per_lat = spec.m_per_degree
    ring = []
    for k in range(24):
        angle = 2 * math.pi * k / 24
        # A superellipse keeps it near the square; the waves make it nobody's rectangle.
        radius = 0.47 / (abs(math.cos(angle)) ** 5 + abs(math.sin(angle)) ** 5) ** 0.2
        radius *= 1 - 0.055 * (1 + math.sin(3 * angle + spec.seed)) / 2 - 0.035 * (1 + math.cos(7 * angle)) / 2
        ring.append(
            (
                round(spec.lon + radius * spec.size_m * math.cos(angle) / per_lon, 6),
                round(spec.lat + radius * spec.size_m * math.sin(angle) / per_lat, 6),
            )
        )
    return shapely.Polygon(ring)


def write_region(path: Path, spec: WorldSpec) -> None:
    """Write the region as GeoJSON."""
    geometry = shapely.geometry.mapping(region_polygon(spec))
    feature = {"type": "Feature", "properties": {"name": "Simulated region"}, "geometry": geometry}
    write_json(path, {"type": "FeatureCollection", "features": [feature]})
