"""Sources that are neither reflectance nor on a metre grid: photographs, indices, weather, radar with its angle.

One dataset of four chips from made-up files, held against what the files were made of.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from pyproj import CRS, Transformer

from curate.errors import RecipeError
from flows import steps
from flows.console import PlainConsole
from recipes.read import parse_recipe

Array = npt.NDArray[Any]
EPSG, SIDE, RES = 32633, 64, 10
X0, Y0 = 800 * 640, 8400 * 640
"""Corner of the lower left of four chips of 640 m."""
SINUSOIDAL = CRS.from_proj4("+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs").to_wkt()
MODIS_M = 231.656358263958
TO_DEGREES = Transformer.from_crs(EPSG, 4326, always_xy=True)

RECIPE = """\
name: others
time: 2020-01-01/2020-03-01
grid: {resolution_m: 10, size_px: 64, min_cover: 1.0}
sources:
  photo: {collection: naip, catalog: stac/catalog.json, time: {single: newest}}
  modis:
    collection: modis-13Q1-061
    catalog: stac/catalog.json
    bands: ndvi
    resolution_m: 160
    resampling: nearest
    time: {series: true}
  weather:
    collection: t2m
    catalog: weather/
    describe:
      kind: values
      bands: {t2m: {asset: t2m, kind: temperature}}
      gsd_m: 11000
      pattern: '(?P<band>\\w+)_(?P<time>\\d{8})'
    resolution_m: 640
    resampling: nearest
    time: {series: true}
  rain:
    collection: tp
    catalog: weather/
    describe:
      kind: values
      bands: {tp: tp}
      units: mm d-1
      gsd_m: 11000
      pattern: '(?P<band>\\w+)_(?P<time>\\d{8})'
    resolution_m: 320
    time: {composite: monthly, how: mean}
  s1:
    collection: my-sigma0
    catalog: radar/
    angle: true
    describe:
      kind: sar
      bands: {vv: vv, incidence_angle: {asset: angle, kind: angle, dtype: int16, scale: 0.01, nodata: -9999}}
      pattern: 'S1_(?P<time>\\d{8})_(?P<band>\\w+)'
    time: {series: true}
  grd: {collection: sentinel-1-grd, catalog: stac/catalog.json, bands: vv, time: {series: true}}
  s1_monthly:
    collection: my-sigma0
    catalog: radar/
    angle: true
    describe:
      kind: sar
      bands: {vv: vv, incidence_angle: {asset: angle, kind: angle, dtype: int16, scale: 0.01, nodata: -9999}}
      pattern: 'S1_(?P<time>\\d{8})_(?P<band>\\w+)'
    time: {composite: monthly}
split: {block_km: 5, buffer_km: 0}
"""


RADAR = {"kind": "sar", "bands": {"vv": 1, "a": {"kind": "angle"}}}


def write(path: Path, values: Array, grid: Affine, crs: Any, nodata: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    layers = values[None] if values.ndim == 2 else values
    count, rows, cols = layers.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=cols, count=count, dtype=str(values.dtype), crs=crs,
        transform=grid, nodata=nodata,
    ) as file:  # fmt: skip
        file.write(layers)


def write_by_points(path: Path, values: Array, grid: Affine) -> None:
    """A file that lies by control points in degrees, and has no grid."""
    rows, cols = values.shape
    points = []
    for row in np.linspace(0, rows, 6):
        for col in np.linspace(0, cols, 6):
            lon, lat = TO_DEGREES.transform(*rasterio.transform.xy(grid, row, col, offset="ul"))
            points.append(rasterio.control.GroundControlPoint(row, col, lon, lat))
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=cols, count=1, dtype="uint16", gcps=points, crs="EPSG:4326",
    ) as file:  # fmt: skip
        file.write(values, 1)


def item(name: str, collection: str, key: str, path: Path, time: str) -> dict[str, Any]:
    with rasterio.open(path) as file:
        grid, shape = list(file.transform)[:6], list(file.shape)
    box = (15.0, 48.0, 15.4, 49.0)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "bbox": list(box),
        "geometry": shapely.geometry.mapping(shapely.box(*box)),
        "properties": {
            "datetime": time,
            "proj:transform": grid,
            "proj:shape": shape,
            **({"proj:wkt2": SINUSOIDAL} if collection.startswith("modis") else {"proj:epsg": EPSG}),
        },
        "links": [],
        "assets": {key: {"href": f"./{path.name}"}},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, the recipe and the area."""
    folder = tmp_path_factory.mktemp("others")
    rng = np.random.default_rng(5)
    utm = Affine(10, 0, X0 - 200, 0, -10, Y0 + 1280 + 200)
    items = []
    write(folder / "stac/photo.tif", rng.integers(0, 256, (4, 168, 168)).astype("uint8"), utm, f"EPSG:{EPSG}")
    items.append(item("photo", "naip", "image", folder / "stac/photo.tif", "2020-02-01T00:00:00Z"))
    x, y = Transformer.from_crs(EPSG, SINUSOIDAL, always_xy=True).transform(X0 + 640, Y0 + 640)
    sinusoidal = Affine(MODIS_M, 0, (x // MODIS_M - 10) * MODIS_M, 0, -MODIS_M, (y // MODIS_M + 10) * MODIS_M)
    for day in (1, 17):
        path = folder / f"stac/ndvi-{day}.tif"
        values = rng.integers(-2000, 10_000, (20, 20))
        values[rng.random((20, 20)) < 0.2] = -3000
        write(path, values.astype("int16"), sinusoidal, SINUSOIDAL)
        items.append(item(path.stem, "modis-13Q1-061", "250m_16_days_NDVI", path, f"2020-01-{day:02}T00:00:00Z"))
    write_by_points(folder / "stac/grd.tif", rng.integers(50, 900, (168, 168)).astype("uint16"), utm)
    items.append(item("grd", "sentinel-1-grd", "vv", folder / "stac/grd.tif", "2020-01-09T05:00:00Z"))
    items[-1]["properties"] |= {"s1:shape": [168, 168], "sat:orbit_state": "ascending", "sat:relative_orbit": 73}
    (folder / "stac/catalog.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    for day in range(1, 11):
        for name, low in (("t2m", 260), ("tp", 0)):
            values = (low + rng.random((20, 20)) * 20).astype("float32")
            write(folder / f"weather/{name}_202001{day:02}.tif", values, Affine(0.1, 0, 14, 0, -0.1, 49.5), "EPSG:4326")
    for day, start in ((5, 30.0), (17, 40.0)):
        power = rng.gamma(4, 0.05, (168, 168)).astype("float32")
        write(folder / f"radar/S1_202001{day:02}_vv.tif", power, utm, f"EPSG:{EPSG}")
        east = np.arange(42) * 40 + 20
        ramp = np.rint((start + east / 1000) * 100).astype("int16")
        coarse = Affine(40, 0, X0 - 200, 0, -40, Y0 + 1280 + 200)
        write(folder / f"radar/S1_202001{day:02}_angle.tif", np.tile(ramp, (42, 1)), coarse, f"EPSG:{EPSG}", -9999)
    corners = [(X0 - 1, Y0 - 1), (X0 + 1281, Y0 - 1), (X0 + 1281, Y0 + 1281), (X0 - 1, Y0 + 1281)]
    area = shapely.Polygon([TO_DEGREES.transform(*corner) for corner in corners])
    (folder / "region.geojson").write_text(shapely.to_geojson(area))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def built(made: Path) -> Path:
    out = made / "dataset"
    aoi, recipe = str(made / "region.geojson"), str(made / "recipe.yaml")
    steps.build(steps.make_request(aoi=aoi, recipe=recipe, out=str(out)), PlainConsole())
    return out


def group(built: Path, name: str, **options: Any) -> xr.Dataset:
    ds: xr.Dataset = xr.open_zarr(built / "chips.zarr", group=name, chunks=None, **options)
    assert ds.sizes["chip"] == 4
    return ds


def centres(ds: xr.Dataset, chip: int, size: int, res: float) -> tuple[Array, Array]:
    """Easting and northing of the pixel centres of a chip, each (y, x)."""
    steps_ = (np.arange(size) + 0.5) * res
    x, y = np.meshgrid(float(ds.x0[chip]) + steps_, float(ds.y0[chip]) - steps_)
    return x, y


def pixels_of(path: Path, x: Array, y: Array) -> Array:
    """Values of a file at places of the chips' CRS: the pixel in which each lies."""
    with rasterio.open(path) as file:
        u, v = Transformer.from_crs(EPSG, file.crs, always_xy=True).transform(x, y)
        rows, cols = rasterio.transform.rowcol(file.transform, u.ravel(), v.ravel())
        found: Array = file.read(1)[np.asarray(rows, int), np.asarray(cols, int)].reshape(x.shape)
        return found


def test_photographs_are_brightness_as_in_the_file(made: Path, built: Path) -> None:
    ds = group(built, "photo", mask_and_scale=False)
    assert ds.brightness.dtype == np.int16
    assert "scale_factor" not in ds.brightness.attrs
    for chip in range(4):
        x, y = centres(ds, chip, SIDE, RES)
        np.testing.assert_array_equal(ds.brightness[chip, 0, 0], pixels_of(made / "stac/photo.tif", x, y))


def test_indices_of_the_sinusoidal_grid_lie_where_they_belong(made: Path, built: Path) -> None:
    ds = group(built, "modis")
    assert ds.sizes["y"] == 4
    assert "reflectance" not in ds
    void = 0
    for chip in range(4):
        x, y = centres(ds, chip, 4, 160)
        for t, day in enumerate((1, 17)):
            wanted = pixels_of(made / f"stac/ndvi-{day}.tif", x, y).astype(float)
            wanted[wanted == -3000] = np.nan
            void += int(np.isnan(wanted).sum())
            np.testing.assert_allclose(ds.spectral_index[chip, t, 0], wanted * 0.0001, rtol=1e-6)
    assert void


def test_weather_of_a_tenth_of_a_degree_is_one_pixel_a_chip_and_day(made: Path, built: Path) -> None:
    ds = group(built, "weather")
    assert ds.temperature.shape == (4, 10, 1, 1, 1)
    assert ds.temperature.attrs["units"] == "K"
    rain = group(built, "rain")
    assert rain.value.shape == (4, 2, 1, 2, 2)
    assert rain.value.attrs["units"] == "mm d-1"
    for chip in range(4):
        x, y = centres(ds, chip, 1, 640)
        for day in range(10):
            path = made / f"weather/t2m_202001{day + 1:02}.tif"
            assert float(ds.temperature[chip, day, 0, 0, 0]) == pixels_of(path, x, y)[0, 0]
        assert np.isfinite(rain.value[chip, 0]).all()
        assert np.isnan(rain.value[chip, 1]).all(), "no file is of February"
    table = pd.read_parquet(built / "chips.parquet")
    assert (table.weather_seen == 10).all()
    lon, lat = TO_DEGREES.transform(*centres(rain, 0, 2, 320))
    days = []
    for day in range(1, 11):
        with rasterio.open(made / f"weather/tp_202001{day:02}.tif") as file:
            column, row = (lon - 14) / 0.1 - 0.5, (49.5 - lat) / 0.1 - 0.5
            values, c, r = file.read(1).astype(float), np.floor(column).astype(int), np.floor(row).astype(int)
            fx, fy = column - c, row - r
            top = values[r, c] * (1 - fx) + values[r, c + 1] * fx
            days.append(top * (1 - fy) + (values[r + 1, c] * (1 - fx) + values[r + 1, c + 1] * fx) * fy)
    np.testing.assert_allclose(rain.value[0, 0, 0], np.mean(days, axis=0), rtol=1e-4)


def test_the_angle_of_incidence_lies_beside_backscatter_in_degrees(built: Path) -> None:
    ds = group(built, "s1")
    assert list(ds.band.values) == ["vv"]
    assert ds.incidence.attrs["units"] == "degree"
    monthly = group(built, "s1_monthly")
    for chip in range(4):
        x, _ = centres(ds, chip, SIDE, RES)
        ramp = (x - X0 + 200) / 1000
        np.testing.assert_allclose(ds.incidence[chip, 0], 30 + ramp, atol=0.006)
        np.testing.assert_allclose(ds.incidence[chip, 1], 40 + ramp, atol=0.006)
        np.testing.assert_allclose(monthly.incidence[chip, 0], 35 + ramp, atol=0.006)
        assert np.isnan(monthly.incidence[chip, 1]).all()


def test_the_index_tells_how_a_file_without_a_grid_was_placed(made: Path, built: Path) -> None:
    table = pd.read_parquet(built / "chips.parquet")
    assert "s1_placed" not in table.columns, "files with a grid need no placing"
    for placed in table.grd_placed:
        ((scene, how),) = placed
        assert scene == "grd"
        assert "36 control points" in how
        assert "px rms" in how
    ds = group(built, "grd")
    with rasterio.open(made / "stac/grd.tif") as file:
        power = file.read(1).astype(float) ** 2
    for chip in range(4):
        col, row = round((float(ds.x0[chip]) - X0 + 200) / 10), round((Y0 + 1480 - float(ds.y0[chip])) / 10)
        wanted = power[row : row + SIDE, col : col + SIDE]
        assert np.corrcoef(wanted.ravel(), ds.backscatter[chip, 0, 0].values.ravel())[0, 1] > 0.999


def test_the_dataset_is_as_it_promises(built: Path) -> None:
    assert steps.check(str(built), PlainConsole()).problems == ()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"collection": "sentinel-1-rtc", "angle": True}, "'angle' wants a band with the angle of incidence"),
        ({"collection": "sentinel-2-l2a", "angle": True}, "'angle' is for SAR"),
        ({"collection": "modis-13Q1-061", "bands": ["ndvi", "red"]}, "measure different things"),
        ({"collection": "landsat-c2-l2", "bands": ["red", "lwir11"]}, "measure different things"),
        ({"collection": "landsat-c2-l2", "bands": ["red", "qa_pixel"]}, "asked for by 'mask'"),
        ({"collection": "x", "bands": ["vv", "a"], "describe": RADAR}, "asked for by 'angle: true'"),
        ({"collection": "cop-dem-glo-30", "resolution_m": 5000}, "do not fill 2560 m"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_sentence(source: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        parse_recipe(json.dumps({"time": "2018-04-01/2018-10-01", "sources": {"a": source}}))


def test_bands_of_different_units_are_two_sources(made: Path) -> None:
    text = RECIPE.replace("bands: {tp: tp}", "bands: {tp: tp, t: {asset: t2m, units: K}}")
    recipe = made / "mixed.yaml"
    recipe.write_text(text)
    with pytest.raises(RecipeError, match=r"mm d-1.*K.*make two sources"):
        steps.prepare(
            steps.make_request(aoi=str(made / "region.geojson"), recipe=str(recipe), out=str(made / "mixed")),
            PlainConsole(),
        )
