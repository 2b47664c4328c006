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

from flows.console import PlainConsole
from flows.steps import build, check, make_request
from simulate.world import WorldSpec
from simulate.write import World, write_world

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


def _looks_like_the_files(world: World, built: Built, tolerance_dn: float) -> int:
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
        assert np.abs(found[both] - wanted[both] - shift).mean() < tolerance_dn
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
    assert _looks_like_the_files(world, built, 1.0 if name != "webmercator" else 40.0) >= 3
    assert built.open("dem").elevation.shape[1:] == (built.open("s2").sizes["y"] // 2,) * 2
    assert np.isfinite(built.open("dem").elevation.values).all()
    assert (built.open("label").worldcover.values != 255).any()
    assert built.table["fields_labelled"].gt(0).all()
