"""Tiny worlds for the cube: COGs whose values tell where they came from, and the Scenes that point to them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import box as odc_box

from catalog.scene import Asset, Radiometry, Scene

Array = npt.NDArray[Any]
SceneFactory = Callable[..., Scene]

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def austria() -> Path:
    """Real Sentinel-2 clips of Lower Austria in 2018; they lie beside the checkout, not in it."""
    folder = DATA / "austria"
    if not folder.is_dir():
        pytest.skip(f"real data is not here: {folder}")
    return folder


@pytest.fixture
def austria_scenes(austria: Path) -> list[Scene]:
    """All 36 dates with red, nir and scl, told from the files themselves and not from their items."""
    names = {"B04": "red", "B08": "nir", "SCL": "scl"}
    scenes = []
    for folder in sorted((austria / "sentinel-2-l2a").iterdir()):
        if not folder.is_dir():
            continue
        assets = []
        for key, band in names.items():
            path = folder / f"{key}.tif"
            with rasterio.open(path) as file:
                grid = tuple(file.transform)[:6]
                assets.append(Asset(band, key, str(path), 32633, grid, file.shape, file.dtypes[0], file.nodata))
                bounds = file.bounds
        extent = odc_box(bounds.left, bounds.bottom, bounds.right, bounds.top, "EPSG:32633").to_crs("EPSG:4326")
        time = dt.datetime.strptime(folder.name.split("_")[2], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
        scenes.append(
            Scene(folder.name, "s2", "sentinel-2-l2a", time, folder.name, extent.geom, tuple(assets), tile="33UWP")
        )
    return scenes


@pytest.fixture
def make_scene(tmp_path: Path) -> SceneFactory:
    """Writes the bands of a scene as COGs; ``make_scene(id, {"red": array}, x0=…, y0=…, resolution=…)``."""

    def make(
        name: str,
        bands: Mapping[str, Array],
        *,
        x0: float = 500_000,
        y0: float = 5_400_000,
        resolution: float | Mapping[str, float] = 10,
        epsg: int = 32633,
        nodata: float | None = 0,
        day: int | None = 0,
        acquisition: str | None = None,
        offset_dn: int = 0,
        orbit: str | None = None,
        file_nodata: bool = True,
    ) -> Scene:
        assets, grids = [], []
        for band, values in bands.items():
            path = tmp_path / f"{name}_{band}.tif"
            res = resolution[band] if isinstance(resolution, Mapping) else resolution
            transform = Affine(res, 0, x0, 0, -res, y0)
            layers = values[None] if values.ndim == 2 else values
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                height=layers.shape[1],
                width=layers.shape[2],
                count=len(layers),
                dtype=str(values.dtype),
                crs=f"EPSG:{epsg}",
                transform=transform,
                nodata=nodata if file_nodata else None,
                tiled=True,
                blockxsize=64,
                blockysize=64,
                compress="deflate",
            ) as file:
                file.write(layers)
            shape = (int(layers.shape[1]), int(layers.shape[2]))
            grid = tuple(transform)[:6]
            assets.append(Asset(band, band, str(path), epsg, grid, shape, str(values.dtype), nodata))
            grids.append(GeoBox(shape, transform, f"EPSG:{epsg}").extent.to_crs("EPSG:4326", resolution=res * 16))
        acquired = None if day is None else dt.datetime(2020, 1, 1, 10, tzinfo=dt.UTC) + dt.timedelta(days=day)
        return Scene(
            id=name,
            source="test",
            collection="test",
            acquired=acquired,
            acquisition=acquisition or name,
            footprint=shapely.unary_union([grid.geom for grid in grids]),
            assets=tuple(assets),
            radiometry=Radiometry(offset_dn=offset_dn),
            orbit=orbit,
        )

    return make


@pytest.fixture
def make_grid() -> Callable[..., GeoBox]:
    """A pixel grid from its upper-left corner."""

    def make(
        x0: float = 500_000,
        y0: float = 5_400_000,
        shape: tuple[int, int] = (64, 64),
        resolution: float = 10,
        epsg: int = 32633,
    ) -> GeoBox:
        return GeoBox(shape, Affine(resolution, 0, x0, 0, -resolution, y0), f"EPSG:{epsg}")

    return make


def positions(shape: tuple[int, int], start: int = 1) -> Array:
    """Values that encode their position: no two equal."""
    return np.arange(start, start + shape[0] * shape[1], dtype=np.uint16).reshape(shape)
