"""What is written is what the real archives hold: files, items, numbers."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from rasterio.features import geometry_mask
from rio_cogeo.cogeo import cog_validate

import simulate.write as writing
from curate.errors import OutputError
from simulate import optical
from simulate.landscape import CROPS
from simulate.radar import NODATA, passes
from simulate.world import OPTICAL_BANDS, WorldSpec
from simulate.write import World, truth_on, write_world

TINY = WorldSpec(size_px=64, dates=2, radar_dates=1, bands=("B04", "B11"), block_px=128)


def items_of(world: World, collection: str) -> list[tuple[Path, dict[str, Any]]]:
    paths = sorted((world.folder / collection).glob("*/*.json"))
    return [(path.parent, json.loads(path.read_text())) for path in paths]


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read(1)  # type: ignore[no-any-return]


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_options_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path / "a", TINY)
    monkeypatch.setattr(writing, "STRIPE", 37)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    write_world(tmp_path / "b", TINY)
    first, second = digest(tmp_path / "a"), digest(tmp_path / "b")
    assert first.keys() == second.keys()
    differ = [name for name in first if first[name] != second[name]]
    assert not differ, [told_apart(tmp_path / "a" / name, tmp_path / "b" / name) for name in differ]


def told_apart(a: Path, b: Path) -> str:
    """How two files differ: whether their pixels do, and where, or only their bytes."""
    if a.suffix != ".tif":
        return f"{a.name}: {a.stat().st_size} and {b.stat().st_size} bytes"
    with rasterio.open(a) as one, rasterio.open(b) as other:
        here, there = one.read(1), other.read(1)
    places = np.argwhere(here != there)
    return f"{a.parent.name}/{a.name}: {len(places)} pixels of {here.shape} differ, first at {places[:3].tolist()}"


def test_another_seed_gives_another_world(tmp_path: Path, world: World) -> None:
    other = write_world(tmp_path / "a", WorldSpec(size_px=64, dates=1, radar_dates=0, seed=8, bands=("B08",)))
    assert json.loads(other.catalog.read_text())["id"] != json.loads(world.catalog.read_text())["id"]
    assert other.fields is not None
    assert world.fields is not None
    assert other.fields.read_bytes() != world.fields.read_bytes()


def test_a_finished_world_is_found_and_another_replaces_it(tmp_path: Path) -> None:
    progress: list[tuple[str, int, int]] = []
    first = write_world(tmp_path / "w", TINY, progress=lambda *step: progress.append(step))
    assert progress[0][1] == 0
    assert progress[-1][1] == progress[-1][2]
    assert [step[1] for step in progress] == sorted(step[1] for step in progress)
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    assert write_world(tmp_path / "w", TINY) == first
    assert stamps == {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    fewer = WorldSpec(size_px=64, dates=1, radar_dates=0, bands=("B04",), osm=False, terrain=False, landcover=False)
    second = write_world(tmp_path / "w", fewer)
    assert sorted(path.name for path in second.folder.iterdir()) == [
        "catalog.json", "region.geojson", "sentinel-2-l2a", "world.json",
    ]  # fmt: skip
    assert second.fields is None


def test_a_world_that_was_interrupted_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_pass", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_world(tmp_path / "w", TINY)
    assert not (tmp_path / "w" / "world.json").exists()
    assert not (tmp_path / "w" / "catalog.json").exists()
    write_world(tmp_path / "w", TINY)
    write_world(tmp_path / "whole", TINY)
    assert digest(tmp_path / "w") == digest(tmp_path / "whole")


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="holds no simulated world"):
        write_world(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="B10"):
        WorldSpec(bands=("B04", "B10"))
    with pytest.raises(ValueError, match="at least one"):
        WorldSpec(bands=())
    with pytest.raises(ValueError, match="antimeridian"):
        WorldSpec(lon=179.9)


def test_the_options_import_nothing_heavy() -> None:
    heavy = "{'numpy', 'numba', 'rasterio', 'shapely', 'pyproj'}"
    code = f"import sys, simulate.world; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_raster_is_a_valid_cog(world: World) -> None:
    paths = sorted(world.folder.rglob("*.tif"))
    assert len(paths) > 100
    for path in paths:
        valid, errors, warnings = cog_validate(path, strict=True)
        assert valid, (path.name, errors, warnings)
    with rasterio.open(next(path for path in paths if path.name == "B04.tif")) as band:
        assert (band.dtypes[0], band.nodata, band.block_shapes[0]) == ("uint16", 0, (128, 128))
        assert band.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
    assert not list(world.folder.rglob(".*"))


def test_a_raster_larger_than_its_buffer_has_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simulate import cog

    write_world(tmp_path / "a", TINY)
    monkeypatch.setattr(cog, "IN_MEMORY_BYTES", 0)
    write_world(tmp_path / "b", TINY)
    for path in (tmp_path / "a").rglob("*.tif"):
        np.testing.assert_array_equal(read(path), read(tmp_path / "b" / path.relative_to(tmp_path / "a")))


def test_pystac_reads_the_catalog_and_finds_it_valid(world: World) -> None:
    catalog = pystac.Catalog.from_file(str(world.catalog))
    assert sorted(child.id for child in catalog.get_children()) == [
        "cop-dem-glo-30", "esa-worldcover", "sentinel-1-rtc", "sentinel-2-l2a",
    ]  # fmt: skip
    items = list(catalog.get_items(recursive=True))
    assert len({item.id for item in items}) == len(items)
    for item in items:
        # The schemas of STAC itself come with pystac; those of the extensions would have to be fetched.
        item.stac_extensions = []
        item.validate()
        assert shapely.geometry.shape(item.to_dict()["geometry"]).is_valid
        for asset in item.assets.values():
            assert Path(str(asset.get_absolute_href())).is_file()
    for child in catalog.get_children():
        child.validate()


def test_every_asset_describes_its_file(world: World) -> None:
    for collection in ("sentinel-2-l2a", "sentinel-1-rtc", "cop-dem-glo-30", "esa-worldcover"):
        for folder, item in items_of(world, collection):
            for asset in item["assets"].values():
                with rasterio.open(folder / asset["href"]) as source:
                    assert list(source.shape) == asset["proj:shape"]
                    assert list(source.transform)[:6] == pytest.approx(asset["proj:transform"], rel=1e-15)
                    assert source.crs.to_string() == item["properties"]["proj:code"]
                    assert source.dtypes[0] == asset["data_type"]
                    assert source.nodata == asset.get("nodata")


def test_sentinel_2_items_carry_what_the_real_ones_do(world: World) -> None:
    items = [item for _, item in items_of(world, "sentinel-2-l2a")]
    assert {item["properties"]["s2:mgrs_tile"] for item in items} == {"33UYP", "34UBU"}
    assert {item["properties"]["proj:code"] for item in items} == {"EPSG:32633", "EPSG:32634"}
    for item in items:
        properties = item["properties"]
        assert set(item["assets"]) == {*OPTICAL_BANDS, "SCL"}
        assert properties["s2:product_uri"].endswith(".SAFE")
        assert properties["s2:datatake_id"].endswith(f"_N{properties['s2:processing_baseline']}")
        assert properties["platform"] in ("Sentinel-2A", "Sentinel-2B")
        for asset in item["assets"].values():
            size = asset["proj:transform"][0]
            assert asset["proj:transform"][2] % 60 == asset["proj:transform"][5] % 60 == 0
            assert size == asset["gsd"]
    baselines = {item["properties"]["s2:processing_baseline"] for item in items}
    assert min(baselines) < "04.00" <= max(baselines)


def test_both_tiles_of_a_datatake_share_it(world: World) -> None:
    takes: dict[str, set[str]] = {}
    for _, item in items_of(world, "sentinel-2-l2a"):
        takes.setdefault(item["properties"]["s2:datatake_id"], set()).add(item["properties"]["datetime"])
    assert len(takes) == 7
    assert all(len(times) == 1 for times in takes.values())


def pairs(world: World) -> list[tuple[Path, Path]]:
    """(older, newer) folders of the scenes that were processed twice."""
    groups: dict[tuple[str, str], list[tuple[str, Path]]] = {}
    for folder, item in items_of(world, "sentinel-2-l2a"):
        p = item["properties"]
        groups.setdefault((p["datetime"], p["s2:mgrs_tile"]), []).append((p["s2:processing_baseline"], folder))
    return [(a[1], b[1]) for a, b in (sorted(group) for group in groups.values() if len(group) == 2)]


def test_the_offset_is_there_exactly_from_baseline_04_on(world: World) -> None:
    assert len(pairs(world)) == 2
    for older, newer in pairs(world):
        for band in OPTICAL_BANDS:
            old, new = read(older / f"{band}.tif").astype(int), read(newer / f"{band}.tif").astype(int)
            np.testing.assert_array_equal(old == 0, new == 0)
            seen = old > 1
            np.testing.assert_array_equal((new - old)[seen], 1000)
        np.testing.assert_array_equal(read(older / "SCL.tif"), read(newer / "SCL.tif"))
    darkest: dict[bool, int] = {}
    for folder, item in items_of(world, "sentinel-2-l2a"):
        dn, late = read(folder / "B12.tif"), item["properties"]["s2:processing_baseline"] >= "04.00"
        darkest[late] = min(darkest.get(late, 65535), int(dn[dn > 0].min()))
    assert darkest[False] < 300
    assert 900 < darkest[True] < 1300


def test_scl_is_the_truth_of_the_sky(world: World) -> None:
    acquired = {optical_pass.sensed for optical_pass in optical.acquisitions(world.spec)}
    by_time = {moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"): moment for moment in acquired}
    hidden = set()
    for folder, item in items_of(world, "sentinel-2-l2a"):
        scl, asset = read(folder / "SCL.tif"), item["assets"]["SCL"]
        truth = truth_on(
            world.spec, int(item["properties"]["proj:code"][5:]), asset["proj:transform"], tuple(asset["proj:shape"]),
            acquired=by_time[item["properties"]["datetime"]],
        )  # fmt: skip
        np.testing.assert_array_equal(truth["clear"], ~np.isin(scl, [0, 3, 8, 9, 10]))
        clear = truth["clear"] & (scl != 7)
        np.testing.assert_array_equal((truth["class"] == 80)[clear], (scl == 6)[clear])
        hidden |= set(np.unique(scl).tolist())
        seen = scl[scl > 0]
        assert item["properties"]["eo:cloud_cover"] == pytest.approx(100 * np.isin(seen, [8, 9, 10]).mean(), abs=1e-5)
        void = read(folder / "B04.tif") == 0
        assert (void[::2, ::2] & void[1::2, 1::2] & (scl != 0)).sum() == 0
    assert hidden >= {0, 3, 4, 5, 6, 7, 8, 9}


def test_one_date_in_eight_is_wholly_clouded_and_some_end_within_the_area(world: World) -> None:
    covers = {item["id"]: item["properties"] for _, item in items_of(world, "sentinel-2-l2a")}
    assert any(properties["eo:cloud_cover"] == 100 for properties in covers.values())
    assert any(properties["eo:cloud_cover"] < 5 for properties in covers.values())
    assert any(0 < properties["s2:nodata_pixel_percentage"] < 100 for properties in covers.values())


def test_footprints_hold_the_valid_pixels(world: World) -> None:
    for folder, item in items_of(world, "sentinel-2-l2a") + items_of(world, "sentinel-1-rtc"):
        for key in ("SCL", "vv"):
            if key not in item["assets"]:
                continue
            asset = item["assets"][key]
            footprint = gpd.GeoSeries([shapely.geometry.shape(item["geometry"])], crs=4326)
            local = footprint.to_crs(item["properties"]["proj:code"])
            outside = geometry_mask(local, asset["proj:shape"], rasterio.Affine(*asset["proj:transform"]))
            valid = read(folder / asset["href"]) > 0
            # Edges are straight in longitude and latitude, and bent on the ground: a row of pixels may differ.
            assert (valid == outside).mean() < 0.02


def test_reflectance_is_what_each_cover_looks_like(tmp_path: Path) -> None:
    spec = WorldSpec(
        size_px=400, dates=1, radar_dates=0, start=dt.date(2021, 6, 12), cloudiness=0, overlap=0.01,
        bands=("B03", "B04", "B08", "B11"), osm=False, terrain=False, landcover=False, step_dn=1,
    )  # fmt: skip
    world = write_world(tmp_path / "w", spec)
    folder, item = items_of(world, "sentinel-2-l2a")[0]
    asset = item["assets"]["B04"]
    truth = truth_on(
        spec, int(item["properties"]["proj:code"][5:]), asset["proj:transform"], tuple(asset["proj:shape"])
    )
    red, nir = (read(folder / f"{band}.tif") * 1e-4 for band in ("B04", "B08"))
    ndvi = (nir - red) / (nir + red)
    mean = {code: ndvi[truth["class"] == code].mean() for code in np.unique(truth["class"]).tolist()}
    assert mean[10] > 0.75
    assert mean[30] > 0.5
    assert mean[80] < 0.0
    assert mean[50] < 0.35
    assert nir[truth["class"] == 80].mean() < 0.03
    crop = {name: ndvi[truth["crop"] == k + 1].mean() for k, name in enumerate(CROPS) if (truth["crop"] == k + 1).any()}
    assert crop["winter_wheat"] > crop["maize"] + 0.2


def test_crops_green_up_ripen_and_are_harvested_in_their_season() -> None:
    def greenness(day: int, crop: str) -> float:
        seen = optical.colours(day)[20 + CROPS.index(crop)]
        return float(((seen[:, 7] - seen[:, 3]) / (seen[:, 7] + seen[:, 3])).mean())

    assert greenness(150, "winter_wheat") > 0.75 > 0.3 > greenness(215, "winter_wheat")
    assert greenness(110, "maize") < 0.3 < 0.75 < greenness(215, "maize")
    days = range(1, 366, 7)
    assert all(np.all((optical.colours(day) >= 0) & (optical.colours(day) < 1)) for day in days)


def test_dem_and_land_cover_are_the_truth_at_their_pixel_centres(world: World) -> None:
    for collection, key, name in (("cop-dem-glo-30", "data", "height"), ("esa-worldcover", "map", "class")):
        found = items_of(world, collection)
        assert len(found) == 2
        for folder, item in found:
            asset = item["assets"][key]
            truth = truth_on(world.spec, 4326, asset["proj:transform"], tuple(asset["proj:shape"]))
            np.testing.assert_array_equal(read(folder / asset["href"]), truth[name])


def test_dem_pixels_are_centred_on_whole_seconds(world: World) -> None:
    for _, item in items_of(world, "cop-dem-glo-30"):
        a, _, c, _, _, f = item["assets"]["data"]["proj:transform"]
        assert a == 1 / 3600
        assert (c + a / 2) * 3600 == pytest.approx(round((c + a / 2) * 3600), abs=1e-5)
        assert (f - a / 2) * 3600 == pytest.approx(round((f - a / 2) * 3600), abs=1e-5)


def test_land_cover_has_the_palette_of_the_real_map(world: World) -> None:
    folder, _ = items_of(world, "esa-worldcover")[0]
    with rasterio.open(folder / "map.tif") as source:
        assert source.colormap(1)[40] == (240, 150, 255, 255)


def test_radar_grids_are_nobody_elses(world: World) -> None:
    origins = [item["assets"]["vv"]["proj:transform"][2:6:3] for _, item in items_of(world, "sentinel-1-rtc")]
    assert all(value % 1 != 0 for value in itertools.chain(*origins))
    directions = [item["properties"]["sat:orbit_state"] for _, item in items_of(world, "sentinel-1-rtc")]
    assert sorted(directions) == ["ascending", "descending"]


def test_backscatter_is_linear_power_with_speckle_zeros_and_void(tmp_path: Path) -> None:
    spec = WorldSpec(
        size_px=300, dates=1, radar_dates=2, bands=("B04",), osm=False, terrain=False, landcover=False
    )  # fmt: skip
    world = write_world(tmp_path / "w", spec)
    for folder, item in items_of(world, "sentinel-1-rtc"):
        asset = item["assets"]["vv"]
        truth = truth_on(
            spec, int(item["properties"]["proj:code"][5:]), asset["proj:transform"], tuple(asset["proj:shape"])
        )
        vv, vh = read(folder / "vv.tif"), read(folder / "vh.tif")
        assert ((vv == NODATA) == (vh == NODATA)).all()
        assert (vv == NODATA).any()
        assert (vv == 0).any()
        valid = vv > 0
        assert ((vv > 0) | (vv == 0) | (vv == NODATA)).all()
        decibel = {code: 10 * np.log10(vv[valid & (truth["class"] == code)].mean()) for code in (10, 80)}
        assert -10 < decibel[10] < -6
        assert decibel[80] < -15
        forest = vv[valid & (truth["class"] == 10)]
        # Looks of 4.4 mean a variance of 1 / 4.4 of the mean squared; the ground adds some of its own.
        assert 3.0 < forest.mean() ** 2 / forest.var() < 4.6
        assert vh[valid].mean() < 0.5 * vv[valid].mean()


def test_passes_follow_each_other_by_their_repeat_cycle() -> None:
    found = passes(WorldSpec(radar_dates=6))
    for first, second in zip(found, found[2:], strict=False):
        assert first.relative_orbit == second.relative_orbit
        assert (second.sensed - first.sensed).days % 12 in (0, 11)
    assert len({radar_pass.id for radar_pass in found}) == 6


def test_openstreetmap_has_the_fields_of_the_geojson(world: World) -> None:
    assert world.osm is not None
    assert world.fields is not None
    fields = gpd.read_file(world.fields).set_index("id")
    areas = gpd.read_file(world.osm, layer="multipolygons")
    farmland = areas[areas.landuse == "farmland"]
    tags = farmland.other_tags.str
    farmland = farmland.assign(
        id=tags.extract(r'"ref"=>"(\d+)"')[0].astype(int), crop=tags.extract(r'"crop"=>"(\w+)"')[0]
    ).set_index("id")
    assert sorted(farmland.index) == sorted(fields.index)
    joined = farmland.loc[fields.index]
    assert (joined.crop == fields.label).all()
    # The file holds coordinates as multiples of 1e-7 degrees, and so does the GeoJSON.
    assert shapely.equals_exact(
        shapely.normalize(shapely.get_parts(joined.geometry.values)), shapely.normalize(fields.geometry.values), 1e-9
    ).all()


def test_openstreetmap_has_forests_waters_roads_and_houses(tmp_path: Path) -> None:
    from simulate.osm import write_osm

    counts = write_osm(tmp_path / "map.osm.pbf", WorldSpec(size_px=1000))
    assert min(counts.values()) > 0
    areas = gpd.read_file(tmp_path / "map.osm.pbf", layer="multipolygons")
    lines = gpd.read_file(tmp_path / "map.osm.pbf", layer="lines")
    assert {"farmland", "forest", "meadow", "residential"} <= set(areas.landuse.dropna())
    assert {"water", "wetland"} <= set(areas.natural.dropna())
    assert areas.building.notna().sum() > 20
    assert set(lines.highway.dropna()) == {"track", "secondary", "residential"}
    holed = areas.geometry.apply(lambda shape: any(part.interiors for part in shape.geoms))
    assert {"forest", None} <= set(areas.landuse[holed].where(areas.landuse[holed].notna(), None))
    assert (tmp_path / "map.osm.pbf").read_bytes() == _again(tmp_path)


def _again(folder: Path) -> bytes:
    from simulate.osm import write_osm

    write_osm(folder / "again.osm.pbf", WorldSpec(size_px=1000))
    return (folder / "again.osm.pbf").read_bytes()


def test_the_region_is_no_rectangle_and_lies_within_the_scenes(world: World) -> None:
    region = gpd.read_file(world.region).geometry[0]
    assert region.is_valid
    assert region.area < 0.97 * region.minimum_rotated_rectangle.area
    assert shapely.box(*world.spec.lonlat_bounds).contains(region)
    footprints = [shapely.geometry.shape(item["geometry"]) for _, item in items_of(world, "sentinel-2-l2a")]
    assert shapely.union_all(footprints).contains(region)
    assert region.bounds[0] < 18.0 < region.bounds[2]


@pytest.mark.parametrize(
    ("lon", "lat", "zones"), [(16.2, 48.3, {32633}), (-70.4, -33.5, {32719}), (24.1, 62.0, {32635})]
)
def test_a_world_may_lie_anywhere(tmp_path: Path, lon: float, lat: float, zones: set[int]) -> None:
    spec = WorldSpec(size_px=64, dates=1, radar_dates=1, lon=lon, lat=lat, bands=("B04",), osm=False)
    world = write_world(tmp_path / "w", spec)
    items = [item for _, item in items_of(world, "sentinel-2-l2a")]
    assert {int(item["properties"]["proj:code"][5:]) for item in items} == zones
    assert len({item["properties"]["s2:mgrs_tile"] for item in items}) == 2
    assert all(read(folder / "B04.tif").max() > 0 for folder, _ in items_of(world, "sentinel-2-l2a"))


def test_a_place_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_world(tmp_path / "file" / "world", TINY)


def test_a_world_half_removed_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path / "w", TINY)
    with monkeypatch.context() as patch:
        patch.setattr("simulate.write.shutil.rmtree", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_world(tmp_path / "w", WorldSpec(size_px=64, dates=1, radar_dates=0, bands=("B04",)))
    world = write_world(tmp_path / "w", TINY)
    assert world.catalog.is_file()
