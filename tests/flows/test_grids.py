"""Whole builds on every grid: planned, built and checked, with pixels held against the simulated world's files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import rasterio.warp
import shapely
import xarray as xr
import yaml
from rasterio.transform import from_origin

from curate.errors import AoiError, OutputError, RecipeError
from flows.console import PlainConsole
from flows.steps import build, check, make_request
from recipes.read import parse_recipe
from simulate.world import WorldSpec
from simulate.write import World, write_world
from tiling.places import places_document, read_places, read_places_document

RECIPE: dict[str, Any] = {
    "time": "2021-04-01/2021-05-01",
    "catalog": "catalog.json",
    "sources": {
        "s2": {
            "collection": "sentinel-2-l2a",
            "bands": ["red"],
            "mask": {"hide": ["void"]},
            "time": {"composite": "monthly", "how": "median"},
        },
        "dem": {"collection": "cop-dem-glo-30", "resolution_m": 20},
    },
    "labels": {
        "worldcover": {"product": "esa-worldcover", "year": 2021},
        "fields": {"vector": "fields.geojson", "attribute": "label", "background": 0},
    },
    "split": {"block_km": 3, "buffer_km": 0, "shares": {"train": 0.5, "test": 0.5}, "seed": 3},
}

SITES = {"a1": (17.985, 48.3), "b-2": (17.99, 48.305), "c.3": (18.004, 48.297)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One clear date of one band, where two zones meet."""
    spec = WorldSpec(size_px=256, dates=1, bands=("B04",), radar_dates=0, cloudiness=0, overlap=1.0)
    made = write_world(tmp_path_factory.mktemp("grids"), spec)
    rows = [f"{name},{lon},{lat}" for name, (lon, lat) in SITES.items()]
    (made.folder / "sites.csv").write_text("site,lon,lat\n" + "\n".join(rows) + "\n")
    plots = [
        {
            "type": "Feature",
            "properties": {"plot": name},
            "geometry": json.loads(shapely.to_geojson(shapely.box(lon, lat, lon + 0.0015, lat + 0.001))),
        }
        for name, (lon, lat) in SITES.items()
    ]
    (made.folder / "plots.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": plots}))
    return made


@dataclass(frozen=True)
class Built:
    """A dataset with what a test looks at."""

    folder: Path
    table: pd.DataFrame

    def open(self, group: str) -> xr.Dataset:
        ds: xr.Dataset = xr.open_zarr(self.folder / "chips.zarr", group=group, mask_and_scale=False, chunks=None)
        return ds


def _build(world: World, out: Path, grid: Mapping[str, Any], sources: Mapping[str, Any] | None = None) -> Built:
    recipe = {**RECIPE, "grid": dict(grid)}
    recipe["sources"] = {
        name: {**source, **(sources or {}).get(name, {})} for name, source in RECIPE["sources"].items()
    }
    path = world.folder / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    build(make_request(aoi=str(world.region), recipe=str(path), out=str(out)), PlainConsole())
    found = check(str(out), PlainConsole())
    assert not found.problems
    return Built(out, pd.read_parquet(out / "chips.parquet"))


def _warped(world: World, epsg: int, x0: float, y0: float, px: int, res: float) -> np.ndarray[Any, Any]:
    """The one red band that lies nearest in zone, warped by GDAL onto a chip; 0 where it has nothing."""
    out = np.zeros((px, px), "uint16")
    files = sorted(world.folder.glob("sentinel-2-l2a/*/B04.tif"))
    with rasterio.open(next((f for f in files if f"EPSG:{epsg}" == str(rasterio.open(f).crs)), files[0])) as file:
        rasterio.warp.reproject(
            rasterio.band(file, 1),
            out,
            dst_transform=from_origin(x0, y0, res, res),
            dst_crs=f"EPSG:{epsg}",
            resampling=rasterio.warp.Resampling.bilinear,
            src_nodata=0,
            dst_nodata=0,
        )
    return out


def _looks_like_the_files(world: World, built: Built) -> int:
    """Number of chips whose red is that of the file, but for resampling; the offset of the baseline apart."""
    ds = built.open("s2")
    res, px = ds.attrs["resolution_m"], ds.sizes["y"]
    compared = 0
    for chip in range(ds.sizes["chip"]):
        wanted = _warped(world, int(ds.epsg[chip]), float(ds.x0[chip]), float(ds.y0[chip]), px, res).astype(int)
        found = ds.reflectance.values[chip, 0, 0].astype(int)
        both = (wanted > 0) & (found > 0)
        if both.sum() < 0.3 * px * px:
            continue
        shift = int(np.median(found[both] - wanted[both]))
        assert shift in (0, -1000)
        assert np.abs(found[both] - wanted[both] - shift).mean() < 0.1
        compared += 1
    return compared


GRIDS: dict[str, dict[str, Any]] = {
    "majortom": {"scheme": "majortom", "spacing_km": 1, "size_px": 110, "min_cover": 0.3},
    "mgrs": {"scheme": "mgrs", "size_px": 48, "overlap": "drop"},
    "points": {"scheme": "points", "places": "sites.csv", "id_column": "site", "size_px": 32},
    "polygons": {"scheme": "polygons", "places": "plots.geojson", "size_px": 32, "margin_m": 50},
    "webmercator": {"scheme": "webmercator", "zoom": 15, "size_px": 128, "min_cover": 0.3},
    "utm-cells": {"scheme": "utm-cells", "size_px": 64, "min_cover": 0.3},
}


@pytest.mark.parametrize("name", list(GRIDS))
def test_a_dataset_on_each_grid_is_as_it_promises_and_has_the_pixels_of_the_files(
    name: str, world: World, tmp_path: Path
) -> None:
    dem = {"resolution_m": 40075016.68557849 / 2**15 / 64} if name == "webmercator" else {}
    built = _build(world, tmp_path / name, GRIDS[name], {"dem": dem})
    assert _looks_like_the_files(world, built) >= 3
    assert built.open("dem").elevation.shape[1:] == (built.open("s2").sizes["y"] // 2,) * 2
    assert np.isfinite(built.open("dem").elevation.values).all()
    assert (built.open("label").worldcover.values != 255).any()
    assert built.table["fields_labelled"].gt(0).all()


def test_a_source_with_wider_chips_has_the_same_centre_and_the_split_goes_by_what_it_sees(
    world: World, tmp_path: Path
) -> None:
    """Elevation on 1920 m at 60 m about points whose chips are 330 m wide."""
    grid = {"scheme": "points", "places": "sites.csv", "id_column": "site", "size_px": 33}
    built = _build(world, tmp_path / "super", grid, {"dem": {"resolution_m": 60, "size_m": 1920}})
    fine, coarse = built.open("s2"), built.open("dem")
    assert coarse.elevation.shape[1:] == (32, 32)
    assert sorted(built.table["chip"]) == sorted(SITES)
    np.testing.assert_array_equal(coarse.x0.values + 960, fine.x0.values + 165)
    np.testing.assert_array_equal(coarse.y0.values - 960, fine.y0.values - 165)
    np.testing.assert_array_equal(fine.x0.values, built.table["x0"])
    tiles = sorted(world.folder.glob("cop-dem-glo-30/*/data.tif"))
    for chip in range(3):
        wanted = np.full((32, 32), np.nan, "float32")
        for tile in tiles:
            with rasterio.open(tile) as file:
                rasterio.warp.reproject(
                    rasterio.band(file, 1),
                    wanted,
                    dst_transform=from_origin(float(coarse.x0[chip]), float(coarse.y0[chip]), 60, 60),
                    dst_crs=f"EPSG:{int(coarse.epsg[chip])}",
                    resampling=rasterio.warp.Resampling.bilinear,
                    dst_nodata=np.nan,
                    init_dest_nodata=False,
                )
        found = coarse.elevation.values[chip]
        both = np.isfinite(found) & np.isfinite(wanted)
        assert both.mean() > 0.5
        assert np.median(np.abs(found - wanted)[both]) < 0.01 * np.ptp(wanted[both])
    # The wide chips overlap though the fine ones are far apart, so they cannot be in two splits.
    assert set(built.table["split"]) - {"buffer"} in ({"train"}, {"test"}, set())


def test_a_changed_file_of_points_is_another_wish_and_the_dataset_keeps_the_one_it_was_built_with(
    world: World, tmp_path: Path
) -> None:
    points = world.folder / "few.csv"
    points.write_text("lon,lat\n17.985,48.3\n")
    recipe = {**RECIPE, "grid": {"scheme": "points", "places": "few.csv", "size_px": 16}}
    path = world.folder / "few.yaml"
    path.write_text(yaml.safe_dump(recipe))
    request = make_request(aoi=str(world.region), recipe=str(path), out=str(tmp_path / "few"))
    build(request, PlainConsole())
    points.write_text("lon,lat\n17.986,48.3\n")
    with pytest.raises(OutputError, match="another file of places"):
        build(request, PlainConsole())
    points.unlink()
    assert not check(str(tmp_path / "few"), PlainConsole()).problems
    with pytest.raises(AoiError, match=r"there is no such file; grid\.places names the file"):
        build(make_request(aoi=str(world.region), recipe=str(path), out=str(tmp_path / "new")), PlainConsole())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lon,lat\n16,48\n16,north\n", "1 rows have no place, first row 2"),
        ("east,lat\n16,48\n", "points need lon and lat"),
        ("lon,lat\n1600000,4800000\n", "or a file that carries its CRS"),
        ("lon,lat,site\n16,48,a\n16.1,48,a\n", "'a' stands twice in column site"),
        ("lon,lat,site\n16,48,a b\n", "'a b' in column site cannot name a chip"),
        ("lon,lat,name\n16,48,a\n", "has no column 'site'"),
    ],
)
def test_a_file_of_points_that_cannot_be_meant_is_told(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(AoiError, match=sentence):
        read_places(tmp_path / "points.csv", "points", "site" if "site" in text or "name" in text else None)


def test_points_in_metres_come_back_in_degrees_and_polygons_are_no_points(tmp_path: Path) -> None:
    import geopandas as gpd

    frame = gpd.GeoDataFrame({"n": ["7"]}, geometry=[shapely.Point(1_800_000, 6_100_000)], crs="EPSG:3857")
    frame.to_file(tmp_path / "points.gpkg")
    (place,) = read_places(tmp_path / "points.gpkg", "points", "n")
    lon, lat = rasterio.warp.transform("EPSG:3857", "EPSG:4326", [1_800_000], [6_100_000])
    assert place.id == "7"
    assert shapely.get_coordinates(place.geometry)[0] == pytest.approx((lon[0], lat[0]))
    assert read_places_document(places_document([place])) == (place,)
    with pytest.raises(AoiError, match="holds Point; the grid stands on polygons"):
        read_places(tmp_path / "points.gpkg", "polygons")


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"sources": {"dem": {"collection": "cop-dem-glo-30", "terrain": {"derive": ["slope"]}}}}, "'terrain.derive'"),
        ({"labels": {"f": {"vector": "f.geojson", "targets": ["distance"]}}}, "'targets: distance' goes by metres"),
        ({"labels": {"f": {"extract": "f.osm.pbf"}}}, "'lines as wide as they are' goes by metres"),
    ],
)
def test_what_is_told_in_metres_is_refused_on_web_tiles(part: dict[str, Any], sentence: str) -> None:
    recipe = {**RECIPE, "grid": {"scheme": "webmercator", "zoom": 14}, "labels": {}, **part}
    recipe["sources"] = {"s2": RECIPE["sources"]["s2"], **part.get("sources", {})}
    with pytest.raises(RecipeError, match=sentence):
        parse_recipe(yaml.safe_dump(recipe), name="recipe.yaml")


def test_a_source_of_other_ground_is_not_segmented_for_a_label() -> None:
    """With 5120 m at 20 m its chips have as many pixels as those of 2560 m at 10 m."""
    recipe = {**RECIPE, "grid": {"size_px": 256}, "labels": {}}
    recipe["sources"] = {"s2": {**RECIPE["sources"]["s2"], "resolution_m": 20, "size_m": 5120}}
    recipe["labels"] = {
        "worldcover": {"product": "esa-worldcover", "year": 2021},
        "cut": {"segments": "slic", "of": "worldcover", "image": "s2"},
    }
    recipe["split"] = {"shares": {"train": 1}}
    with pytest.raises(RecipeError, match="'s2' are 5120 m wide and those of the label 2560 m"):
        parse_recipe(yaml.safe_dump(recipe), name="recipe.yaml")
