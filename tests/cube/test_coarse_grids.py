"""Rasters of coarse grids of their own: MODIS' sinusoidal tiles and weather in tenths of a degree."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from catalog.scene import Asset, Scene
from cube.load import READERS

Array = npt.NDArray[Any]
SINUSOIDAL = CRS.from_proj4("+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs").to_wkt()
PIXEL_M = 231.656358263958
NODATA = -3000


def sinusoidal(folder: Path, name: str, values: Array, *, lon: float = 15.4, lat: float = 48.6, day: int = 0) -> Scene:
    """A scene on MODIS' grid whose middle lies at a place, counted in whole pixels from the grid's origin."""
    x, y = Transformer.from_crs(4326, SINUSOIDAL, always_xy=True).transform(lon, lat)
    rows, cols = values.shape
    left, top = math.floor(x / PIXEL_M) - cols // 2, math.ceil(y / PIXEL_M) + rows // 2
    grid = Affine(PIXEL_M, 0, left * PIXEL_M, 0, -PIXEL_M, top * PIXEL_M)
    path = folder / f"{name}.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=cols, count=1, dtype="int16", crs=SINUSOIDAL, transform=grid
    ) as file:
        file.write(values.astype(np.int16), 1)
    corners = [grid * corner for corner in ((0, 0), (cols, 0), (cols, rows), (0, rows))]
    back = Transformer.from_crs(SINUSOIDAL, 4326, always_xy=True)
    asset = Asset("ndvi", "ndvi", str(path), 0, tuple(grid)[:6], (rows, cols), "int16", NODATA, wkt=SINUSOIDAL)
    return Scene(
        id=name,
        source="modis",
        collection="modis-13Q1-061",
        acquired=dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=day),
        acquisition=name,
        footprint=shapely.Polygon([back.transform(*corner) for corner in corners]),
        assets=(asset,),
    )


def speckled(shape: tuple[int, int], seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    values = rng.integers(-2000, 10_000, shape)
    values[rng.random(shape) < 0.1] = NODATA
    return values


def by_gdal(scene: Scene, grid: GeoBox, method: str) -> Array:
    with (
        rasterio.open(scene.asset("ndvi").href) as source,
        WarpedVRT(
            source,
            crs=str(grid.crs),
            transform=grid.transform,
            height=grid.shape[0],
            width=grid.shape[1],
            resampling=Resampling[method],
            src_nodata=NODATA,
            nodata=NODATA,
            tolerance=0.0001,
            XSCALE=1,
            YSCALE=1,
        ) as warped,
    ):
        return warped.read(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("resolution", [10, 60, 250])
def test_every_reader_puts_sinusoidal_pixels_where_gdal_does(tmp_path: Path, method: str, resolution: int) -> None:
    scene = sinusoidal(tmp_path, "a", speckled((120, 120)))
    side = 16_000 // resolution
    grid = GeoBox((side, side), Affine(resolution, 0, 522_000, 0, -resolution, 5_392_000), "EPSG:32633")
    theirs = by_gdal(scene, grid, method)
    assert 0.05 < (theirs == NODATA).mean() < 0.5
    first: Array | None = None
    for name, reader in READERS.items():
        cube = reader([[scene]], ["ndvi"], grid, resampling=method, dtype="int16", fill=NODATA).to_numpy()[0, 0]
        if first is None:
            first = cube
            differ = cube.astype(int) != theirs
            if method == "bilinear":  # GDAL rounds some halves down, ours all up
                differ = (np.abs(cube.astype(int) - theirs) > 1) | ((cube == NODATA) != (theirs == NODATA))
            # A few centres lie on an edge of the file's pixels within a millimetre.
            assert differ.mean() < 1e-4
        np.testing.assert_array_equal(cube, first, err_msg=name)


def test_pixels_of_degrees_are_measured_in_metres_whatever_their_code(tmp_path: Path) -> None:
    """A tenth of a degree is no tenth of a metre, which would be averaged over the chip."""
    from cube.work import _pixel_m

    grid = (0.1, 0.0, 15.0, 0.0, -0.1, 49.0)
    for epsg, wkt in (
        (4326, None),
        (4258, None),
        (4269, None),
        (0, CRS.from_proj4("+proj=longlat +R=6370000").to_wkt()),
    ):
        asset = Asset("t", "t", "t.tif", epsg, grid, (4, 4), "float32", None, wkt=wkt)
        assert _pixel_m(asset) == pytest.approx(11_132)
    assert (
        _pixel_m(Asset("t", "t", "t.tif", 0, (500.0, 0, 0, 0, -500.0, 0), (4, 4), "int16", None, wkt=SINUSOIDAL)) == 500
    )
