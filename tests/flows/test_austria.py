"""The whole way on real Sentinel-2 over Lower Austria, against the source files themselves."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import xarray as xr
from rasterio.transform import from_origin

from flows.console import PlainConsole
from flows.steps import build, check, make_request

ROOT = Path(__file__).parents[2]
SIDE, RES = 64, 10


def _build(name: str, shared_data: Path, out: Path) -> Path:
    austria = shared_data / "austria"
    text = (ROOT / "examples" / f"{name}.yaml").read_text().replace("../../shared/data", str(shared_data))
    recipe = out.parent / f"{name}.yaml"
    recipe.write_text(text)
    build(make_request(aoi=str(austria / "region.geojson"), recipe=str(recipe), out=str(out)), PlainConsole())
    return out


@pytest.fixture(scope="module")
def series(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("austria-series", shared_data, tmp_path_factory.mktemp("series") / "dataset")


@pytest.fixture(scope="module")
def monthly(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("austria", shared_data, tmp_path_factory.mktemp("monthly") / "dataset")


def _open(out: Path, group: str) -> xr.Dataset:
    ds: xr.Dataset = xr.open_zarr(out / "chips.zarr", group=group, mask_and_scale=False)
    return ds


def _files(shared_data: Path) -> dict[np.datetime64, Path]:
    """Folder of each acquisition, by its time to the second."""
    folders = [path for path in (shared_data / "austria" / "sentinel-2-l2a").iterdir() if path.is_dir()]
    times = (dt.datetime.strptime(path.name.split("_")[2], "%Y%m%dT%H%M%S") for path in folders)
    return {np.datetime64(time, "s"): folder for time, folder in zip(times, folders, strict=True)}


def _from_file(path: Path, x0: float, y0: float, layer_void: int = 0) -> np.ndarray:
    """The chip at (x0, y0) as GDAL's nearest puts it, void outside the file."""
    out = np.full((SIDE, SIDE), layer_void, np.uint16)
    with rasterio.open(path) as file:
        rasterio.warp.reproject(
            file.read(1).astype("uint16"),
            out,
            src_transform=file.transform,
            src_crs=file.crs,
            dst_transform=from_origin(x0, y0, RES, RES),
            dst_crs=file.crs,
            resampling=rasterio.warp.Resampling.nearest,
        )
    return out


def test_series_pixels_are_those_of_the_source_files_bit_for_bit(series: Path, shared_data: Path) -> None:
    ds, files = _open(series, "s2"), _files(shared_data)
    acquired = ds.acquired.values.astype("datetime64[s]")
    compared = 0
    for chip in range(ds.sizes["chip"]):
        x0, y0 = float(ds.x0[chip]), float(ds.y0[chip])
        for time in range(0, ds.sizes["time"], 3):
            if np.isnat(acquired[chip, time]):
                continue
            folder = files[acquired[chip, time]]
            for band, file in enumerate(("B04.tif", "B08.tif")):
                here = ds.reflectance[chip, time, band].values
                np.testing.assert_array_equal(here, _from_file(folder / file, x0, y0))
                compared += 1
    assert compared > 200


def test_the_scene_classification_lies_where_gdal_puts_it(series: Path, shared_data: Path) -> None:
    ds, files = _open(series, "s2"), _files(shared_data)
    acquired = ds.acquired.values.astype("datetime64[s]")
    for chip in range(0, ds.sizes["chip"], 3):
        x0, y0 = float(ds.x0[chip]), float(ds.y0[chip])
        for time in np.flatnonzero(~np.isnat(acquired[chip]))[::4]:
            folder = files[acquired[chip, time]]
            np.testing.assert_array_equal(ds.scl[chip, time].values, _from_file(folder / "SCL.tif", x0, y0))


def test_a_series_keeps_only_dates_that_are_clear_enough_and_pads_the_rest(series: Path) -> None:
    ds = _open(series, "s2")
    there = ~np.isnat(ds.acquired.values)
    clear = ds.clear.values
    assert (clear[there] >= 0.3).all()
    assert np.isnan(clear[~there]).all()
    assert not ds.reflectance.values[~there].any()
    assert (np.diff(there.astype(int), axis=1) <= 0).all(), "dates are packed to the front"
    mask = ds.clear_mask.values == 1
    np.testing.assert_allclose(mask[there].mean(axis=(1, 2)), clear[there], atol=1e-6)
    assert not np.isin(ds.scl.values[mask], [0, 1, 3, 8, 9, 10]).any()


def test_fully_cloudy_dates_give_no_pixel(series: Path, shared_data: Path) -> None:
    cloudy = set()
    for acquired, folder in _files(shared_data).items():
        with rasterio.open(folder / "SCL.tif") as file:
            # Twelve dates have no pixel of vegetation, soil or water; five of them some dark or unclassified ones.
            if not np.isin(file.read(1), [2, 4, 5, 6, 7, 11]).any():
                cloudy.add(acquired)
    assert len(cloudy) == 7
    used = np.unique(_open(series, "s2").acquired.values.astype("datetime64[s]"))
    assert not cloudy & set(used)


def test_void_stays_void_in_every_composite(monthly: Path, shared_data: Path) -> None:
    ds = _open(monthly, "s2")
    folder = next(iter(_files(shared_data).values()))
    void_pixels = 0
    for chip in range(ds.sizes["chip"]):
        void = _from_file(folder / "B04.tif", float(ds.x0[chip]), float(ds.y0[chip])) == 0
        assert not ds.reflectance[chip].values[:, :, void].any()
        assert not ds["count"][chip].values[:, void].any()
        void_pixels += int(void.sum())
    assert void_pixels > 1000


def test_a_monthly_median_is_the_median_of_the_clear_observations(monthly: Path, shared_data: Path) -> None:
    ds, files = _open(monthly, "s2"), _files(shared_data)
    chip = int(np.argmax(ds["count"].values.sum(axis=(1, 2, 3))))
    x0, y0 = float(ds.x0[chip]), float(ds.y0[chip])
    for month in range(6):
        red, clear = [], []
        for acquired, folder in sorted(files.items()):
            if acquired.astype("datetime64[M]") != np.datetime64("2018-04", "M") + month:
                continue
            here = np.isin(_from_file(folder / "SCL.tif", x0, y0), [2, 4, 5, 6, 7, 11])
            if here.mean() >= 0.1:
                red.append(_from_file(folder / "B04.tif", x0, y0).astype(float))
                clear.append(here & (red[-1] > 0))
        seen = np.ma.masked_array(red, ~np.array(clear))
        expected = np.floor(np.ma.median(seen, axis=0).filled(0) + 0.5)  # type: ignore[no-untyped-call]
        np.testing.assert_array_equal(ds.reflectance[chip, month, 0].values, expected)
        np.testing.assert_array_equal(ds["count"][chip, month].values, np.array(clear).sum(axis=0))


def test_field_labels_fall_on_the_right_pixels(series: Path, shared_data: Path) -> None:
    import geopandas

    fields = geopandas.read_file(shared_data / "austria" / "fields.geojson").to_crs(32633)
    ds, label = _open(series, "s2"), _open(series, "label")
    clearest = np.nanargmax(np.where(np.isnan(ds.clear.values), -1, ds.clear.values), axis=1)
    spread: dict[tuple[int, int], list[float]] = {shift: [] for shift in ((0, 0), (3, 0), (-3, 0), (0, 3), (0, -3))}
    for chip in range(ds.sizes["chip"]):
        red, nir = ds.reflectance[chip, clearest[chip]].values.astype(float)
        clear = ds.clear_mask[chip, clearest[chip]].values == 1
        with np.errstate(divide="ignore", invalid="ignore"):
            ndvi = np.where(clear & (red > 0), (nir - red) / (nir + red), np.nan)
        transform = from_origin(float(ds.x0[chip]), float(ds.y0[chip]), RES, RES)
        ids = rasterio.features.rasterize(
            zip(fields.geometry, range(1, len(fields) + 1), strict=True), (SIDE, SIDE), transform=transform
        )
        drawn = label.fields[chip].values
        np.testing.assert_array_equal(drawn == label.fields.attrs["_FillValue"], ids == 0)
        for number in np.unique(ids[ids > 0]):
            inside = ids == number
            for (dy, dx), spreads in spread.items():
                values = np.roll(ndvi, (dy, dx), (0, 1))[inside]
                if np.isfinite(values).sum() > 60:
                    spreads.append(float(np.nanstd(values)))
    means = {shift: np.mean(values) for shift, values in spread.items()}
    assert min(means, key=means.__getitem__) == (0, 0), means


def test_the_dataset_is_as_it_promises(series: Path, monthly: Path) -> None:
    for out in (series, monthly):
        assert check(str(out), PlainConsole()).problems == ()
