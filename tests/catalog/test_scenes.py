"""From real and odd items to scenes: bands, grid, radiometry, acquisition, copies."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from catalog.acquisitions import acquisition_key, acquisition_keys, resolve_duplicates
from catalog.collections import collection
from catalog.radiometry import s2_radiometry
from catalog.scene import Scene
from catalog.scenes import to_scene
from curate.errors import CatalogError, ReadError

Item = dict[str, Any]
Recorded = Callable[[str], list[Item]]


def scene_of(item: Item, *bands: str) -> Scene:
    return to_scene(item, source="s2", collection=item["collection"], bands=bands)


# -- recorded items ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sentinel-2-l2a", "sentinel-2-c1-l2a"])
def test_every_recorded_sentinel_2_item_becomes_a_scene(recorded: Recorded, name: str) -> None:
    items = recorded(name)
    assert items
    for item in items:
        scene = scene_of(item, "blue", "red", "nir08", "rededge071", "scl")
        assert [asset.band for asset in scene.assets] == ["blue", "red", "nir08", "rededge071", "scl"]
        assert [asset.shape for asset in scene.assets] == [(10980, 10980)] * 2 + [(5490, 5490)] * 3
        assert [asset.transform[0] for asset in scene.assets] == [10, 10, 20, 20, 20]
        assert [asset.dtype for asset in scene.assets] == ["uint16"] * 4 + ["uint8"]
        assert all(asset.nodata == 0 for asset in scene.assets)
        assert len({asset.transform[2::3] for asset in scene.assets}) == 1  # one corner
        assert len({asset.epsg for asset in scene.assets}) == 1
        assert scene.tile is not None
        assert scene.epsg % 100 == int(scene.tile[:2])
        assert scene.epsg // 100 == (326 if scene.tile[2] >= "N" else 327)
        assert scene.platform in ("sentinel-2a", "sentinel-2b", "sentinel-2c")
        assert scene.relative_orbit is not None
        assert scene.baseline is not None
        assert scene.acquired is not None
        assert scene.cloud_pct is not None
        assert scene.acquisition.startswith(f"S2{scene.platform[-1].upper()}_{scene.acquired:%Y%m}")
        assert "uncertain" not in scene.radiometry.why
        shifted = "sentinel-cogs.s3" in scene.asset("red").href
        assert scene.radiometry.offset_dn == (-1000 if scene.baseline >= "04.00" and not shifted else 0)
        assert scene.radiometry.scale == 0.0001


def test_the_recorded_items_cover_both_sides_of_every_rule(recorded: Recorded) -> None:
    scenes = [scene_of(item, "red") for name in ("sentinel-2-l2a", "sentinel-2-c1-l2a") for item in recorded(name)]
    hosts = {(scene.asset("red").href.split("/")[2], scene.radiometry.offset_dn) for scene in scenes}
    assert hosts >= {
        ("sentinel-cogs.s3.us-west-2.amazonaws.com", 0),
        ("e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com", -1000),
        ("sentinel2l2a01.blob.core.windows.net", 0),
        ("eodata", -1000),
    }


def test_bands_are_found_by_key_although_planetary_computer_calls_four_bands_rededge(recorded: Recorded) -> None:
    item = next(item for item in recorded("sentinel-2-l2a") if "B04" in item["assets"])
    scene = scene_of(item, "rededge071", "rededge075", "rededge078", "nir08")
    assert [asset.key for asset in scene.assets] == ["B05", "B06", "B07", "B8A"]


def test_cdse_bands_are_the_originals_and_not_the_resampled_ones(recorded: Recorded) -> None:
    item = next(item for item in recorded("sentinel-2-l2a") if "B04_10m" in item["assets"])
    bands = ("coastal", "blue", "rededge071", "nir08", "nir09", "swir16", "scl")
    for asset in scene_of(item, *bands).assets:
        roles = item["assets"][asset.key]["roles"]
        assert "sampling:original" in roles or asset.band == "scl"
        assert asset.transform[0] == collection("sentinel-2-l2a").bands[asset.band].gsd_m


def test_two_tiles_of_one_datatake_are_one_acquisition(recorded: Recorded) -> None:
    """Earth Search stamps them four seconds apart, CDSE alike; the neighbouring day is another acquisition."""
    tiles: dict[str, set[str]] = {}
    times: dict[str, set[dt.datetime]] = {}  # in whole seconds
    for item in recorded("sentinel-2-l2a"):
        scene = scene_of(item, "red")
        if scene.tile in ("32TMT", "32TNT"):
            assert scene.acquired is not None
            tiles.setdefault(scene.acquisition, set()).add(scene.tile)
            times.setdefault(scene.acquisition, set()).add(scene.acquired.replace(microsecond=0))
    assert tiles["S2A_20200302T102021"] == tiles["S2A_20200703T103031"] == {"32TMT", "32TNT"}
    assert tiles["S2A_20200305T103021"] == {"32TMT"}
    assert len(times["S2A_20200302T102021"]) == 2
    assert len(times["S2A_20200703T103031"]) == 1


def test_of_two_baselines_of_one_scene_the_newer_stays_whatever_the_order(recorded: Recorded) -> None:
    items = [item for item in recorded("sentinel-2-l2a") if "20200302" in item["id"] or "20200305" in item["id"]]
    for order in (items, items[::-1]):
        keys = acquisition_keys(order, "sentinel-2")
        dropped = {order[at]["id"]: why for at, why in resolve_duplicates(order, keys, "sentinel-2").items()}
        assert set(dropped) == {"S2A_32TMT_20200302_0_L2A", "S2A_32TNT_20200302_0_L2A", "S2A_32TMT_20200305_0_L2A"}
        assert dropped["S2A_32TMT_20200302_0_L2A"] == (
            "copy of S2A_32TMT_20200302_1_L2A, which is preferred: baseline 05.00 against 02.14"
        )


def test_every_recorded_sentinel_1_rtc_item_becomes_a_scene(recorded: Recorded) -> None:
    items = recorded("sentinel-1-rtc")
    assert len(items) == 5
    keys = acquisition_keys(items, "sentinel-1")
    for item, key in zip(items, keys, strict=True):
        scene = to_scene(item, source="s1", collection="sentinel-1-rtc", bands=["vv", "vh"], acquisition=key)
        assert [(asset.dtype, asset.nodata) for asset in scene.assets] == [("float32", -32768.0)] * 2
        assert scene.asset("vv").transform[0] == 10
        assert scene.platform == "sentinel-1a"
        assert scene.orbit == "descending"
        assert scene.radiometry.offset_dn == 0
        assert scene.radiometry.scale == 1
        assert scene.baseline is None
    # Four slices of one pass follow each other, 25 s each; the fifth item is of another year.
    assert sorted(keys.count(key) for key in set(keys)) == [1, 4]
    assert not resolve_duplicates(items, keys, "sentinel-1")


@pytest.mark.parametrize(
    ("name", "band", "kind"),
    [
        ("cop-dem-glo-30", "elevation", ("float32", None)),
        ("cop-dem-glo-90", "elevation", ("float32", None)),
        ("io-lulc-annual-v02", "map", ("uint8", 0.0)),
    ],
)
def test_every_recorded_static_layer_becomes_a_scene(
    recorded: Recorded, name: str, band: str, kind: tuple[str, float | None]
) -> None:
    items = recorded(name)
    assert items
    for item in items:
        scene = to_scene(item, source="x", collection=name, bands=[band])
        assert (scene.assets[0].dtype, scene.assets[0].nodata) == kind
        assert (scene.acquired is None) == name.startswith("cop-dem")
        assert scene.radiometry.offset_dn == 0
    keys = acquisition_keys(items, None)
    assert not resolve_duplicates(items, keys, None)


def test_land_cover_of_two_years_is_two_acquisitions_and_its_tiles_are_no_copies(recorded: Recorded) -> None:
    items = recorded("esa-worldcover")
    keys = acquisition_keys(items, None)
    years = [item["properties"]["start_datetime"][:4] for item in items]
    assert dict(zip(keys, years, strict=True)) == {
        "esa-worldcover_20200101T000000": "2020",
        "esa-worldcover_20210101T000000": "2021",
    }
    assert not resolve_duplicates(items, keys, None)


# -- projection -------------------------------------------------------------------------------------------------------


def without_projection(item: Item) -> Item:
    item["properties"].pop("proj:epsg", None)
    for asset in item["assets"].values():
        asset.pop("proj:transform", None)
        asset.pop("proj:shape", None)
    return item


@pytest.mark.parametrize(
    ("on_asset", "on_item", "epsg"),
    [
        ({"proj:code": "EPSG:32634"}, {"proj:epsg": 32633}, 32634),
        ({"proj:epsg": 32634}, {"proj:code": "EPSG:32633"}, 32634),
        ({"proj:code": "EPSG:32634", "proj:epsg": 32635}, {}, 32634),
        ({}, {"proj:code": "EPSG:32633", "proj:epsg": 32635}, 32633),
        ({}, {"proj:epsg": 32633}, 32633),
    ],
)
def test_the_crs_is_taken_from_the_asset_then_from_the_item_code_before_number(
    s2_item: Callable[..., Item], on_asset: Item, on_item: Item, epsg: int
) -> None:
    item = s2_item()
    del item["properties"]["proj:epsg"]
    item["properties"] |= on_item
    item["assets"]["B04"] |= on_asset
    assert scene_of(item, "red").epsg == epsg


def test_the_crs_may_be_wkt_or_projjson(s2_item: Callable[..., Item]) -> None:
    import pyproj

    crs = pyproj.CRS.from_epsg(32633)
    for said in ({"proj:wkt2": crs.to_wkt()}, {"proj:projjson": crs.to_json_dict()}):
        item = s2_item()
        del item["properties"]["proj:epsg"]
        item["properties"] |= said
        assert scene_of(item, "red").epsg == 32633


def test_nine_numbers_of_a_transform_are_read_as_six(s2_item: Callable[..., Item]) -> None:
    item = s2_item()
    item["assets"]["B04"]["proj:transform"] += [0, 0, 1]
    assert scene_of(item, "red").assets[0].transform == (10, 0, 499980, 0, -10, 5400000)


def test_a_crs_without_an_epsg_code_stays_as_wkt(s2_item: Callable[..., Item]) -> None:
    asset = scene_of(s2_item(properties={"proj:code": "ESRI:54008"}), "red").assets[0]
    assert asset.epsg == 0
    assert asset.wkt is not None
    assert "Sinusoidal" in asset.wkt


def test_a_crs_that_nobody_knows_is_refused(s2_item: Callable[..., Item]) -> None:
    with pytest.raises(CatalogError, match="its CRS cannot be understood"):
        scene_of(s2_item(properties={"proj:code": "HERE:1"}), "red")


def test_a_transform_in_the_order_of_gdal_is_understood(s2_item: Callable[..., Item]) -> None:
    item = s2_item()
    item["assets"]["B04"]["proj:transform"] = [357585.0, 30.0, 0.0, 4423815.0, 0.0, -30.0]
    assert scene_of(item, "red").assets[0].transform == (30, 0, 357585, 0, -30, 4423815)


def write_raster(path: Path, crs: str | None = "EPSG:32633") -> None:
    profile = {"driver": "GTiff", "width": 5, "height": 4, "count": 1, "dtype": "uint16"}
    if crs:
        profile |= {"crs": crs, "transform": from_origin(500000, 5400000, 10, 10)}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.ones((1, 4, 5), "uint16"))


def test_without_projection_metadata_the_file_itself_is_asked(tmp_path: Path, s2_item: Callable[..., Item]) -> None:
    write_raster(tmp_path / "B04.tif")
    item = without_projection(s2_item())
    item["assets"]["B04"]["href"] = str(tmp_path / "B04.tif")
    asset = scene_of(item, "red").assets[0]
    assert (asset.epsg, asset.transform, asset.shape) == (32633, (10, 0, 500000, 0, -10, 5400000), (4, 5))


def test_without_projection_and_file_the_error_names_item_band_and_file(
    tmp_path: Path, s2_item: Callable[..., Item]
) -> None:
    item = without_projection(s2_item())
    item["assets"]["B04"]["href"] = str(tmp_path / "gone.tif")
    with pytest.raises(ReadError, match=rf"{item['id']}, band red: .*says no projection.*gone.tif cannot be opened"):
        scene_of(item, "red")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_file_without_georeference_is_refused(tmp_path: Path, s2_item: Callable[..., Item]) -> None:
    write_raster(tmp_path / "B04.tif", crs=None)
    item = without_projection(s2_item())
    item["assets"]["B04"]["href"] = str(tmp_path / "B04.tif")
    with pytest.raises(CatalogError, match=r"asset 'B04' says no projection, and its file .*B04.tif has no CRS"):
        scene_of(item, "red")


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ({}, ("uint16", 0.0)),
        ({"raster:bands": [{"data_type": "int16", "nodata": -9999}]}, ("int16", -9999.0)),
        ({"bands": [{"name": "B04", "data_type": "int16", "nodata": -1}]}, ("int16", -1.0)),
        ({"data_type": "int16", "nodata": -1, "bands": [{"name": "B04"}]}, ("int16", -1.0)),
        ({"raster:bands": [{"nodata": None}]}, ("uint16", 0.0)),
    ],
)
def test_type_and_void_come_from_the_raster_extension_or_the_table(
    s2_item: Callable[..., Item], said: Item, values: tuple[str, float]
) -> None:
    item = s2_item()
    item["assets"]["B04"] |= said
    asset = scene_of(item, "red").assets[0]
    assert (asset.dtype, asset.nodata) == values


def test_void_may_be_the_word_nan(s2_item: Callable[..., Item]) -> None:
    item = s2_item()
    item["assets"]["B04"]["raster:bands"] = [{"data_type": "float32", "nodata": "nan"}]
    nodata = scene_of(item, "red").assets[0].nodata
    assert nodata is not None
    assert np.isnan(nodata)


def test_a_band_without_an_asset_names_the_nearest_key_and_all(s2_item: Callable[..., Item]) -> None:
    item = s2_item()
    item["assets"]["B4"] = item["assets"].pop("B04")
    with pytest.raises(CatalogError, match=r"no asset for red \(looked for red, B04.*Did you mean 'B4'\?.*B08, B05"):
        scene_of(item, "red")


def test_an_item_that_lies_nowhere_is_refused(s2_item: Callable[..., Item]) -> None:
    with pytest.raises(CatalogError, match="neither a geometry nor a bbox"):
        scene_of({**s2_item(), "geometry": None, "bbox": None}, "red")


# -- radiometry -------------------------------------------------------------------------------------------------------

COG = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs/33/U/WP/B04.tif"
JP2 = "s3://sentinel-s2-l2a/tiles/33/U/WP/R10m/B04.jp2"
LOCAL = "/data/B04.tif"
FLAG = "earthsearch:boa_offset_applied"


@pytest.mark.parametrize(
    ("baseline", "properties", "declared", "key", "href", "offset", "why"),
    [
        ("02.12", {}, None, "B04", LOCAL, 0, "baseline 02.12 is before 04.00: no offset"),
        ("03.01", {FLAG: False}, 0, "red", COG, 0, "baseline 03.01 is before 04.00"),
        ("02.12", {}, -0.1, "B04", LOCAL, 0, "offset of -1000 is wrong"),
        ("02.xx (GEE)", {}, 0, "B04", LOCAL, 0, "is before 04.00"),
        ("04.00", {}, None, "B04", LOCAL, -1000, "baseline 04.00 of sentinel-2-l2a: raw"),
        ("05.09", {}, -0.1, "B04_10m", JP2, -1000, "baseline 05.09 of sentinel-2-l2a: raw"),
        ("05.09", {FLAG: True}, -0.1, "red", COG, 0, "already shifted"),
        ("05.09", {FLAG: True}, -0.1, "red-jp2", JP2, -1000, "raw"),
        ("05.09", {FLAG: True}, -0.1, "red", LOCAL, 0, "already shifted"),
        ("05.09", {FLAG: False}, -0.1, "red", COG, -1000, "uncertain: "),
        ("05.09", {}, -0.1, "red", COG, 0, "uncertain: "),
        ("05.09", {}, 0, "red", LOCAL, -1000, "uncertain: "),
        (None, {}, None, "red", LOCAL, 0, "uncertain: no baseline"),
        (None, {}, -0.1, "red", LOCAL, -1000, "uncertain: no baseline"),
        (None, {}, 0, "red", LOCAL, 0, "uncertain: no baseline"),
        ("05.09", {}, -0.1, "AOT_10m", LOCAL, 0, "not reflectance"),
        ("05.09", {}, -0.1, "SCL", LOCAL, 0, "not reflectance"),
        ("05.09", {}, -0.1, "wvp-jp2", LOCAL, 0, "not reflectance"),
    ],
)
def test_the_offset_follows_baseline_and_provider(
    s2_item: Callable[..., Item],
    baseline: str | None,
    properties: Item,
    declared: float | None,
    key: str,
    href: str,
    offset: int,
    why: str,
) -> None:
    item = s2_item(id="made-by-hand", properties={"s2:processing_baseline": baseline, **properties})
    item["assets"] = {key: {"href": href}}
    if declared is not None:
        item["assets"][key]["raster:bands"] = [{"scale": 0.0001, "offset": declared}]
    radiometry = s2_radiometry(item, key, href, "sentinel-2-l2a")
    assert radiometry.offset_dn == offset
    assert why in radiometry.why
    assert radiometry.why.startswith("uncertain") == why.startswith("uncertain")


def test_the_baseline_may_stand_in_the_name_of_the_product(s2_item: Callable[..., Item]) -> None:
    name = "S2A_MSIL2A_20231008T175231_N0509_R141_T13TDE_20231008T233154"
    by_id = s2_item(id=name, properties={"s2:processing_baseline": None})
    by_uri = s2_item(properties={"s2:processing_baseline": None, "s2:product_uri": f"{name}.SAFE"})
    for item in (by_id, by_uri):
        scene = scene_of(item, "red")
        assert scene.baseline == "05.09"
        assert scene.radiometry.offset_dn == -1000
        assert scene.relative_orbit == 141


# -- acquisitions and copies ------------------------------------------------------------------------------------------


def test_without_a_datatake_the_name_of_the_product_gives_the_same_key(s2_item: Callable[..., Item]) -> None:
    item = s2_item()
    key = acquisition_key(item, "sentinel-2")
    assert key == "S2A_20200601T100000"
    del item["properties"]["s2:datatake_id"]
    assert acquisition_key(item, "sentinel-2") == key


def test_with_nothing_but_times_items_within_ten_seconds_are_one_acquisition(s2_item: Callable[..., Item]) -> None:
    seconds = (4, 6, 14, 40)
    items = [
        s2_item(id=f"x{at}", properties={"s2:datatake_id": None, "datetime": f"2020-06-01T10:00:{second:02d}Z"})
        for at, second in enumerate(seconds)
    ]
    keys = acquisition_keys(items, "sentinel-2")
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_the_two_halves_of_a_split_tile_are_both_kept(s2_item: Callable[..., Item]) -> None:
    halves = [
        s2_item(
            id=f"half{start}",
            properties={"s2:datastrip_id": f"S2A_OPER_MSI_L2A_DS_VGS4_20200601T140000_S20200601T10{start}_N02.12"},
        )
        for start in ("0200", "0400")
    ]
    keys = acquisition_keys(halves, "sentinel-2")
    assert keys[0] == keys[1]
    assert not resolve_duplicates(halves, keys, "sentinel-2")


def test_of_equal_baselines_the_later_generation_stays(s2_item: Callable[..., Item]) -> None:
    items = [
        s2_item(id=f"copy{at}", properties={"s2:generation_time": f"2020-06-0{day}T00:00:00Z"})
        for at, day in enumerate((1, 3, 2))
    ]
    dropped = resolve_duplicates(items, acquisition_keys(items, "sentinel-2"), "sentinel-2")
    assert set(dropped) == {0, 2}
    assert "generated 20200603000000 against 20200601000000" in dropped[0]


def test_ascending_and_descending_passes_never_join() -> None:
    items = [
        {
            "id": f"s1{at}",
            "collection": "sentinel-1-rtc",
            "properties": {"datetime": f"2020-06-01T10:00:0{at}Z", "sat:orbit_state": orbit},
        }
        for at, orbit in enumerate(("ascending", "descending", "ascending"))
    ]
    keys = acquisition_keys(items, "sentinel-1")
    assert keys[0] == keys[2] == "sentinel-1_ascending_20200601T100000"
    assert keys[1] == "sentinel-1_descending_20200601T100001"
