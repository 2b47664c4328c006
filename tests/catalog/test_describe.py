"""Collections described by the user: STAC collections without a table, and plain raster files."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from catalog.collections import canonical_band, collection
from catalog.describe import BandSpec, DescribeSpec, described, parse_file_time
from catalog.lock import LockedItem, lock_bytes, read_lock
from catalog.request import find
from catalog.scene import Scene
from catalog.search import open_catalog
from curate.errors import CatalogError

Item = dict[str, Any]
EVERYWHERE = shapely.box(-180, -90, 180, 90)
L8 = DescribeSpec(
    bands={
        "blue": "B02",
        "red": "B04",
        "nir08": "B05",
        "lwir11": BandSpec(asset="B10", kind="temperature", scale=0.1),
        "pixel_qa": BandSpec(asset="pixel_qa", dtype="uint16"),
    },
    dtype="int16",
    nodata=0,
    scale=0.0001,
    gsd_m=30,
    quality="pixel_qa",
    quality_table="pixel_qa",
)


def scenes_of(
    where: Any, name: str, spec: DescribeSpec, *bands: str, start: str | None = None, end: str | None = None
) -> list[Scene]:
    table = described(name, spec)
    rows = find(
        open_catalog(where, collection=name, describe=spec),
        source="mine",
        collection=table,
        bands=bands or tuple(table.bands),
        aoi_geometry=EVERYWHERE,
        start=None if start is None else dt.datetime.fromisoformat(start).replace(tzinfo=dt.UTC),
        end=None if end is None else dt.datetime.fromisoformat(end).replace(tzinfo=dt.UTC),
    )
    return [row.scene for row in rows if row.scene is not None and row.status == "used"]


def write_raster(path: Path, *, x: float = 500000, count: int = 1, dtype: str = "uint16", **profile: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"width": 6, "height": 4, "count": count, "dtype": dtype}
    grid = {"crs": "EPSG:32633", "transform": from_origin(x, 5400000, 10, 10)}
    with rasterio.open(path, "w", driver="GTiff", **{**shape, **grid, **profile}) as file:
        file.write(np.ones((count, 4, 6), dtype))
    return path


def test_landsat_of_collection_1_is_read_from_its_own_catalog_by_a_description(shared_data: Path) -> None:
    scenes = scenes_of(
        shared_data / "flanders" / "catalog.json", "landsat-8-c1-sr", L8, start="2018-01-01", end="2018-07-01"
    )
    assert len(scenes) > 3
    for scene in scenes:
        assert [asset.key for asset in scene.assets] == ["B02", "B04", "B05", "B10", "pixel_qa"]
        assert [asset.dtype for asset in scene.assets] == ["int16"] * 4 + ["uint16"]
        assert all(asset.nodata == 0 for asset in scene.assets)
        assert (scene.radiometry.scale, scene.radiometry.offset) == (0.0001, 0)
        assert scene.radiometry.why == "scale of lwir11 is another, see the table of landsat-8-c1-sr"
        assert scene.platform == "landsat-8"
        assert Path(scene.asset("red").href).exists()
    assert canonical_band(described("landsat-8-c1-sr", L8), "B05") == "nir08"


def test_the_same_files_without_their_catalog_give_the_same_scenes(shared_data: Path) -> None:
    folder = shared_data / "flanders" / "landsat-8-c1-sr"
    pattern = r"(?P<platform>LC08)_(?P<tile>\w{5})_(?P<time>\d{8}T\d{6})_SR/(?P<band>\w+)\.tif$"
    spec = DescribeSpec(**{**_fields(L8), "pattern": pattern})
    stac = scenes_of(shared_data / "flanders" / "catalog.json", "landsat-8-c1-sr", L8)
    files = scenes_of(folder, "landsat-8-c1-sr", spec)
    assert [scene.acquired for scene in files] == [scene.acquired for scene in stac]
    assert [scene.assets for scene in files] == [scene.assets for scene in stac]
    assert {scene.tile for scene in files} == {"31UDS"}
    for one, other in zip(files, stac, strict=True):
        # The catalog draws the box around the footprint.
        assert shapely.hausdorff_distance(one.footprint, other.footprint) < 2e-4


def _fields(spec: DescribeSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__slots__}


def test_an_elevation_model_needs_one_word(shared_data: Path) -> None:
    spec = DescribeSpec(kind="elevation")
    (stac,) = scenes_of(shared_data / "flanders" / "catalog.json", "dem", spec, start="2018-01-01", end="2018-02-01")
    (files,) = scenes_of(shared_data / "flanders" / "dem", "dem", spec)
    assert (stac.acquired, stac.acquisition) == (files.acquired, files.acquisition) == (None, "static")
    for scene in (stac, files):
        (asset,) = scene.assets
        assert (asset.band, asset.dtype, asset.nodata, asset.epsg) == ("elevation", "int16", -32767, 32631)


def test_the_layers_of_an_aerial_image_are_bands_by_their_number(tmp_path: Path) -> None:
    paths = [write_raster(tmp_path / f"ortho_{year}.tif", count=4, dtype="uint8") for year in (2019, 2021)]
    spec = DescribeSpec(
        bands={"red": 1, "green": 2, "blue": 3, "nir": 4}, dtype="uint8", pattern=r"_(?P<time>\d{4})", time_format="%Y"
    )
    for where in (tmp_path, tmp_path / "*.tif", paths, str(tmp_path / "ortho_*.tif")):
        scenes = scenes_of(where, "ortho", spec, start="2020-01-01", end="2022-01-01")
        assert [scene.id for scene in scenes] == ["ortho_2021"]
        assert [asset.layer for asset in scenes[0].assets] == [1, 2, 3, 4]
        assert len({asset.href for asset in scenes[0].assets}) == 1
        assert scenes[0].acquired == dt.datetime(2021, 1, 1, tzinfo=dt.UTC)


def test_files_that_differ_only_in_the_band_are_one_scene(tmp_path: Path) -> None:
    for tile, x in (("A", 500000), ("B", 500060)):
        for band in ("red", "nir"):
            write_raster(tmp_path / "2021" / f"{tile}_20210703_{band}.tif", x=x)
    (tmp_path / "2021" / "notes.txt").write_text("no raster")
    write_raster(tmp_path / "2021" / "overview.tif")
    spec = DescribeSpec(
        bands={"red": BandSpec(), "nir": BandSpec()}, pattern=r"(?P<tile>[AB])_(?P<time>\d{8})_(?P<band>\w+)\.tif$"
    )
    scenes = scenes_of(tmp_path, "planet", spec)
    assert [scene.id for scene in scenes] == ["2021_A_20210703", "2021_B_20210703"]
    assert [scene.tile for scene in scenes] == ["A", "B"]
    assert len({scene.acquisition for scene in scenes}) == 1  # one time, so one look
    assert [asset.band for asset in scenes[0].assets] == ["red", "nir"]
    assert scenes[1].asset("red").transform[2] == 500060


def test_a_described_scene_survives_the_lock(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", dtype="int16", nodata=-9999)
    spec = DescribeSpec(bands={"red": 1}, dtype="int16", scale=0.001, offset=-0.1, time="2021-07-03")
    table = described("mine", spec)
    catalog = open_catalog(tmp_path, collection="mine", describe=spec)
    rows = find(catalog, source="m", collection=table, bands=["red"], aoi_geometry=EVERYWHERE, start=None, end=None)
    (back,) = read_lock(lock_bytes(rows))
    assert isinstance(back, LockedItem)
    assert back.scene is not None
    assert rows[0].scene is not None
    assert back.scene.assets == rows[0].scene.assets
    assert (back.scene.radiometry.scale, back.scene.radiometry.offset) == (0.001, -0.1)
    assert back.scene.assets[0].nodata == -9999


def test_what_is_described_holds_against_what_the_file_says(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", dtype="uint16", nodata=65535)
    spec = DescribeSpec(bands={"red": 1}, dtype="int16", nodata=-1, time="2021-07-03")
    (scene,) = scenes_of(tmp_path, "mine", spec)
    assert (scene.assets[0].dtype, scene.assets[0].nodata) == ("int16", -1)


def test_a_type_that_was_not_described_must_be_the_usual_one(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", dtype="int16")
    spec = DescribeSpec(bands={"red": 1}, time="2021-07-03")
    with pytest.raises(CatalogError, match=r"band red is int16, but mine is described without a dtype.*dtype: int16"):
        scenes_of(tmp_path, "mine", spec)


def test_the_footprint_of_a_file_is_its_outline_in_degrees(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif")
    (scene,) = scenes_of(tmp_path, "mine", DescribeSpec(bands={"red": 1}, static=True))
    assert scene.acquired is None
    west, south, east, north = shapely.bounds(scene.footprint)
    assert west == pytest.approx(15.0, abs=1e-6)
    assert (east - west) * 111320 * np.cos(np.radians(north)) == pytest.approx(60, rel=0.01)
    assert (north - south) * 111320 == pytest.approx(40, rel=0.01)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    spec = DescribeSpec(bands={"red": 1}, time="2021-07-03")

    def why(where: Any, spec: DescribeSpec = spec, **when: str) -> str:
        with pytest.raises(CatalogError) as error:
            scenes_of(where, "mine", spec, **when)
        return str(error.value)

    (tmp_path / "empty").mkdir()
    assert "holds no raster; wanted files ending in .tif" in why(tmp_path / "empty")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.tif").write_bytes(b"no raster")
    assert "a.tif: cannot be opened as a raster" in why(tmp_path / "broken")
    with rasterio.open(tmp_path / "nowhere.png", "w", driver="PNG", width=2, height=2, count=1, dtype="uint8") as file:
        file.write(np.ones((1, 2, 2), "uint8"))
    assert "nowhere.png: has no CRS, so nobody knows where it lies" in why([tmp_path / "nowhere.png"])
    good = write_raster(tmp_path / "good" / "x_2021.tif")
    assert re.search(r"none of its 1 rasters matches", why([good], DescribeSpec(bands={"red": 1}, pattern="y")))
    timeless = DescribeSpec(bands={"red": 1})
    assert "nothing says the time of its files" in why([good], timeless, start="2021-01-01", end="2022-01-01")
    odd = DescribeSpec(bands={"red": 1}, pattern=r"_(?P<time>\d{4})", time_format="%Y%j")
    assert "time '2021' cannot be read; wanted one like %Y%j" in why([good], odd)
    twice = DescribeSpec(bands={"red": BandSpec()}, pattern=r"(?P<band>x)_(?P<scene>\d+)")
    other = write_raster(tmp_path / "other" / "x_2021.tif")
    assert "are both band 'x' of scene 2021" in why([good, other], twice)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"quality": "qa"}, "quality 'qa' is not among the bands: none"),
        ({"bands": {"qa": 1}, "quality": "qa"}, "quality and quality_table belong together"),
        ({"dtype": "int12"}, "dtype 'int12' is not known; wanted one of uint8"),
        ({"pattern": "("}, "is not a regular expression"),
        ({"pattern": "(?P<date>x)"}, "names the part 'date'; there are: band, time"),
        ({"time": "summer"}, "time 'summer' cannot be read; wanted ISO 8601"),
    ],
)
def test_a_description_is_checked_before_any_file_is_read(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        DescribeSpec(**options)


@pytest.mark.parametrize(
    ("text", "form", "time"),
    [
        ("20180530", None, dt.datetime(2018, 5, 30, tzinfo=dt.UTC)),
        ("20180530T103914", None, dt.datetime(2018, 5, 30, 10, 39, 14, tzinfo=dt.UTC)),
        ("2018-05-30T12:39:14+02:00", None, dt.datetime(2018, 5, 30, 10, 39, 14, tzinfo=dt.UTC)),
        ("2018150", "%Y%j", dt.datetime(2018, 5, 30, tzinfo=dt.UTC)),
    ],
)
def test_times_of_file_names_are_utc(text: str, form: str | None, time: dt.datetime) -> None:
    assert parse_file_time(text, form) == time


def test_rasters_without_a_description_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="a list of files needs a description"):
        open_catalog([write_raster(tmp_path / "a.tif")])


def test_a_description_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'shapely', 'rasterio', 'pyarrow', 'requests', 'pydantic'}"
    code = f"import sys, catalog.describe\nprint(*sorted({heavy} & set(sys.modules)), end='')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_any_stac_collection_can_be_described(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    item = s2_item(collection="enmap")
    spec = DescribeSpec(bands={"red": "B04", "nir": "B08"}, scale=0.0001)
    (scene,) = scenes_of(write_catalog(tmp_path, [item], "enmap"), "enmap", spec)
    assert [asset.key for asset in scene.assets] == ["B04", "B08"]
    assert collection("sentinel-2-l2a").described is False
