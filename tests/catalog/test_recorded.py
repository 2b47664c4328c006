"""Every recorded item of the real endpoints: those of a known collection become scenes, all others are named here."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shapely

from catalog.acquisitions import acquisition_keys, resolve_duplicates, tile_of
from catalog.collections import canonical_band, collection, collection_names
from catalog.scene import Scene
from catalog.scenes import missing_bands, says_projection, to_scene
from catalog.search import SAYS_CLOUD
from curate.errors import CatalogError

Item = dict[str, Any]

UNKNOWN = {
    "HLSL30.v1.5": "version 1.5 of HLS, withdrawn by NASA",
    "landsat-8-l1": "Level-1 of Collection 1, withdrawn by USGS",
    "landsat-c2-l1": "Level-1: needs the calibration of each scene's MTL file",
    "lcv_blue_landsat.glad.ard": "a product of one project, to be described by its user",
    "sentinel-s2-l2a-cogs": "version 0 of Earth Search, no longer served",
    "None": "items cut out of their collection by another project: nothing says what they are",
}
"""Collections that have no table, with the reason."""


def _is_left_out(item: Item) -> bool:
    """Items of a known collection without any of its bands: other layers of the CDL, and Landsat in the layout that
    USGS left in 2021, whose keys (``SR_B4.TIF``) mean another band for each satellite.
    """
    return item["properties"].get("usda_cdl:type") in ("cultivated", "frequency") or "SR_B1.TIF" in item["assets"]


@pytest.fixture(scope="module")
def items(shared_data: Path) -> list[Item]:
    """All of them, once each per file."""
    folders = (shared_data / "stac" / "items", shared_data.parent / "facts" / "tables" / "fixtures")
    found = [item for folder in folders for path in sorted(folder.glob("*.json")) for item in _items_in(path)]
    if not found:
        pytest.skip("the recorded items are not here: no items in ../shared/data/stac")
    return found


def _items_in(path: Path) -> Iterator[Item]:
    document = json.loads(path.read_text())
    many = document if isinstance(document, list) else document.get("features", [document])
    for item in many:
        if isinstance(item, dict) and item.get("type") == "Feature" and item.get("assets"):
            yield item


def _known(items: list[Item]) -> list[tuple[Item, str]]:
    names = {alias for name in collection_names() for alias in (name, *collection(name).aliases)}
    return [(item, str(item["collection"])) for item in items if item.get("collection") in names]


def test_what_is_not_known_is_named_with_its_reason(items: list[Item]) -> None:
    known = {name for _, name in _known(items)}
    assert {str(item.get("collection")) for item in items} - known == set(UNKNOWN)


def test_every_item_of_a_known_collection_becomes_a_scene(items: list[Item]) -> None:
    """All bands an item has are asked for; projection, type and place are held against what the item says."""
    seen: dict[str, int] = {}
    for item, name in _known(items):
        table = collection(name)
        bands = [band for band in table.bands if not missing_bands(item, table, [band])]
        if not bands:
            assert _is_left_out(item), item["id"]
            continue
        if not says_projection(item, table, bands):
            # Its files would be opened. Early items of NAIP and Sentinel-1 GRD and of Landsat's older thermal assets.
            assert name in ("naip", "sentinel-1-grd"), item["id"]
            continue
        scene = to_scene(item, source="x", collection=name, bands=bands)
        assert scene.collection == table.id
        assert len(scene.assets) == len(bands)
        assert table.timeless == (scene.acquired is None)
        assert scene.acquisition
        for asset in scene.assets:
            _check_grid(item, scene, asset.band)
            band = table.bands[asset.band]
            assert asset.dtype == band.dtype, (item["id"], asset.band)
            assert asset.nodata == band.nodata or (asset.nodata is not None and math.isnan(asset.nodata))
            assert asset.layer == band.layer
        measured = [band for band in bands if table.bands[band].kind != "quality"]
        if measured and table.mission != "sentinel-2":
            first = table.bands[measured[0]]
            assert (scene.radiometry.scale, scene.radiometry.offset) == (first.scale, first.offset)
            assert scene.radiometry.offset_dn == 0
            assert "uncertain" not in scene.radiometry.why, (item["id"], scene.radiometry.why)
        seen[table.id] = seen.get(table.id, 0) + 1
    assert set(seen) >= {
        "sentinel-2-l2a",
        "sentinel-2-c1-l2a",
        "sentinel-2-l1c",
        "sentinel-1-rtc",
        "sentinel-1-grd",
        "landsat-c2-l2",
        "landsat-8-c2-l2",
        "naip",
        "modis-09A1-061",
        "modis-09Q1-061",
        "cop-dem-glo-30",
        "cop-dem-glo-90",
        "esa-worldcover",
        "io-lulc",
        "io-lulc-9-class",
        "io-lulc-annual-v02",
        "usda-cdl",
    }
    assert sum(seen.values()) > 200


def _check_grid(item: Item, scene: Scene, band: str) -> None:
    """The corners of the file, from CRS, transform and shape, lie on the footprint of the item."""
    import pyproj

    asset = scene.asset(band)
    if collection(scene.collection).georeference == "gcps":
        assert asset.transform == (1, 0, 0, 0, 1, 0)
        assert asset.epsg == 4326
        size = item["properties"]["s1:shape"]
        assert asset.shape == (size[1], size[0])
        return
    if scene.collection == "io-lulc":
        return  # its footprints and grids contradict each other: the grids were shrunk later
    a, b, c, d, e, f = asset.transform
    rows, cols = asset.shape
    corners = [(a * x + b * y + c, d * x + e * y + f) for x, y in ((0, 0), (cols, 0), (cols, rows), (0, rows))]
    crs = pyproj.CRS.from_epsg(asset.epsg) if asset.epsg else pyproj.CRS.from_user_input(asset.wkt)
    outline = shapely.segmentize(shapely.Polygon(corners), shapely.length(shapely.Polygon(corners)) / 40)
    to_degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    lonlat = shapely.transform(outline, lambda xy: _stacked(to_degrees.transform(xy[:, 0], xy[:, 1])))
    minx, _, maxx, _ = shapely.bounds(lonlat)
    if not math.isfinite(minx) or min(minx, shapely.bounds(scene.footprint)[0]) < -179 or maxx > 179:
        return  # over the antimeridian, or the corner of a sinusoidal tile outside of the earth
    inside = shapely.area(shapely.intersection(lonlat, scene.footprint)) / shapely.area(scene.footprint)
    assert inside > 0.98, (item["id"], band, inside)


def _stacked(xy: tuple[Any, Any]) -> Any:
    import numpy as np

    return np.column_stack(xy)


def test_landsat_of_the_southern_hemisphere_keeps_its_northern_zone(items: list[Item]) -> None:
    southern = [item for item, name in _known(items) if name == "landsat-c2-l2" and item["bbox"][3] < 0]
    assert southern
    for item in southern:
        asset = to_scene(item, source="l", collection="landsat-c2-l2", bands=["red"]).assets[0]
        assert asset.epsg // 100 == 326
        assert asset.transform[5] < 0
        assert asset.transform[2] % 30 == asset.transform[5] % 30 == 15


def test_rows_of_one_landsat_pass_are_one_acquisition(items: list[Item]) -> None:
    for name in ("landsat-c2-l2", "landsat-8-c2-l2"):
        scenes = [item for item, known in _known(items) if known == name]
        keys = acquisition_keys(scenes, "landsat")
        passes: dict[str, list[Item]] = {}
        for item, key in zip(scenes, keys, strict=True):
            passes.setdefault(key, []).append(item)
        for members in passes.values():
            paths = {(item["properties"]["platform"], item["properties"]["landsat:wrs_path"]) for item in members}
            days = {item["properties"]["datetime"][:10] for item in members}
            assert len(paths) == len(days) == 1
        assert len(passes) < len(scenes)


def test_the_two_satellites_of_modis_are_two_acquisitions_of_one_time(items: list[Item]) -> None:
    item = next(item for item, name in _known(items) if name == "modis-09A1-061")
    assert item["id"].startswith("MYD")
    other = {**item, "id": item["id"].replace("MYD", "MOD")}
    keys = acquisition_keys([item, other], "modis")
    assert len(set(keys)) == 2
    assert tile_of(item) == "h35v10"
    assert resolve_duplicates([item, other], keys, "modis") == {}


def test_usgs_and_the_others_spell_one_landsat_scene_alike(items: list[Item]) -> None:
    scenes = [
        to_scene(item, source="l", collection=name, bands=["red"])
        for item, name in _known(items)
        if collection(name).id == "landsat-c2-l2" and not _is_left_out(item)
    ]
    assert {"landsat-8", "landsat-9"} <= {scene.platform for scene in scenes}
    assert all(scene.platform and scene.platform.startswith("landsat-") for scene in scenes)
    assert all(scene.tile is not None and len(scene.tile) == 6 and scene.tile.isdigit() for scene in scenes)


def test_a_temperature_has_a_scale_of_its_own_and_the_scene_says_so(items: list[Item]) -> None:
    item = next(item for item, name in _known(items) if name == "landsat-c2-l2" and "lwir11" in item["assets"])
    why = to_scene(item, source="l", collection="landsat-c2-l2", bands=["red", "lwir11"]).radiometry.why
    assert why == "scale of lwir11 is another, see the table of landsat-c2-l2"


def test_an_item_that_contradicts_the_table_is_uncertain(items: list[Item]) -> None:
    item = next(item for item, name in _known(items) if name == "landsat-c2-l2" and "raster:bands" in str(item))
    red = {**item["assets"]["red"], "raster:bands": [{"scale": 0.0001, "offset": 0, "nodata": 0}]}
    odd = {**item, "assets": {**item["assets"], "red": red}}
    radiometry = to_scene(odd, source="l", collection="landsat-c2-l2", bands=["red"]).radiometry
    assert radiometry.why == "uncertain: the item says red * 0.0001 + 0; taken: * 2.75e-05 + -0.2"
    assert (radiometry.scale, radiometry.offset) == (2.75e-05, -0.2)


def test_the_radiometry_before_collection_1_is_told_to_be_unverified(items: list[Item]) -> None:
    item = next(item for item, name in _known(items) if name == "sentinel-2-c1-l2a")
    radiometry = to_scene(item, source="s", collection="sentinel-2-pre-c1-l2a", bands=["red"]).radiometry
    assert radiometry.why.startswith("uncertain: no item of this collection was seen")
    assert radiometry.offset_dn == -1000


def test_top_of_atmosphere_has_its_offset_and_no_scl(items: list[Item]) -> None:
    item = next(item for item, name in _known(items) if name == "sentinel-2-l1c")
    scene = to_scene(item, source="s", collection="sentinel-2-l1c", bands=["red", "cirrus"])
    assert scene.radiometry.offset_dn == -1000
    assert scene.acquired == dt.datetime(2025, 7, 31, 13, 19, 22, 930000, dt.UTC)
    with pytest.raises(CatalogError, match="band 'scl' is not in sentinel-2-l1c"):
        to_scene(item, source="s", collection="sentinel-2-l1c", bands=["scl"])


def test_narrow_infrared_of_the_two_halves_of_hls_lies_in_different_files() -> None:
    assert collection("HLSS30_2.0").bands["nir08"].keys == ("B8A",)
    assert collection("hls2-s30").bands["rededge071"].keys == collection("HLSL30_2.0").bands["nir08"].keys == ("B05",)
    assert collection("HLSL30_2.0").id == "hls2-l30"
    with pytest.raises(CatalogError, match="band 'B05' is not in hls2-l30"):
        canonical_band("hls2-l30", "B05")


def test_missions_of_which_servers_filter_by_cloud_always_say_it(items: list[Item]) -> None:
    silent = {
        table.id: item["id"]
        for item, name in _known(items)
        if (table := collection(name)).mission in SAYS_CLOUD and "eo:cloud_cover" not in item["properties"]
    }
    assert not silent
