from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from curate.errors import LabelError, ReadError
from labels.measure import open_measure
from labels.measure_spec import MeasureSpec
from labels.source import LabelSource
from tiling.aoi import Aoi
from tiling.shards import Window

Write = Callable[..., str]
Windows = Callable[..., Window]
Pixels = np.ndarray[Any, Any]


def numbers(shape: tuple[int, int] = (64, 64), seed: int = 0, holes: float = 0.1) -> Pixels:
    random = np.random.default_rng(seed)
    pixels = random.uniform(0, 400, shape).astype(np.float32)
    pixels[random.uniform(size=shape) < holes] = -9999
    return pixels


def true(pixels: Pixels) -> Pixels:
    return np.where(pixels == -9999, np.nan, pixels)


def drawn(path: str | tuple[str, ...], window: Window, area: Aoi, **options: Any) -> Pixels:
    pixels: Pixels = open_measure("agb", MeasureSpec(path, **options), aoi=area).render(window)["agb"]
    assert pixels.dtype == np.float32
    return pixels


def gdal(path: str, window: Window, how: Resampling) -> Pixels:
    height, width = window.shape
    with (
        rasterio.open(path) as source,
        WarpedVRT(
            source, crs=f"EPSG:{window.epsg}", transform=window.geobox.transform, height=height, width=width,
            resampling=how, tolerance=1e-9, nodata=-9999, dtype="float32", XSCALE=1, YSCALE=1,
        ) as warped,
    ):  # fmt: skip
        return true(warped.read(1))


@pytest.mark.parametrize("resampling", ["auto", "nearest", "bilinear", "average"])
def test_pixels_of_the_same_grid_are_copied_whatever_the_method(
    resampling: str, write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    pixels = numbers()
    got = drawn(write_raster("a.tif", pixels, nodata=-9999), make_window(-8, -8, 80, 80), area, resampling=resampling)
    expected = np.full((80, 80), np.nan)
    expected[8:72, 8:72] = true(pixels)
    np.testing.assert_allclose(got, expected, rtol=1e-6 if resampling == "average" else 0)


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    ("dx", "dy", "res"), [(5.0, 5.0, 10.0), (3.3, -7.1, 10.0), (0.0, 0.0, 20.0), (-7.0, 4.0, 30.0), (2.0, 1.0, 7.0)]
)
def test_shifted_and_coarser_files_are_read_as_gdal_reads_them(
    how: str, dx: float, dy: float, res: float, write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    path = write_raster("a.tif", numbers((90, 90)), x=500_000 + dx, y=5_376_000 + dy, res=res, nodata=-9999)
    got = drawn(path, make_window(), area, resampling=how)
    np.testing.assert_allclose(got, gdal(path, make_window(), Resampling[how]), rtol=2e-5)
    assert np.isfinite(got).mean() > 0.7


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
@pytest.mark.parametrize("epsg", [4326, 3035, 32634])
def test_files_in_other_crs_are_read_as_gdal_reads_them(
    epsg: int, how: str, write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    window = make_window(-30, -30, 120, 120)
    west, south, east, north = transform_bounds(32633, epsg, *window.bounds)
    side = max(east - west, north - south)
    path = write_raster(
        "a.tif", numbers((150, 150)), crs=f"EPSG:{epsg}", nodata=-9999,
        transform=Affine(side / 150, 0, west, 0, -side / 150, north),
    )  # fmt: skip
    got, expected = drawn(path, window, area, resampling=how), gdal(path, window, Resampling[how])
    # GDAL rounds places to a few thousandths of a pixel, so where one lies on an edge it may take the other side.
    differ = ~np.isclose(got, expected, rtol=1e-2, atol=0.5, equal_nan=True)
    assert differ.mean() < 2e-3
    assert np.isfinite(got).mean() > 0.5


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_coarser_chips_get_the_mean_of_the_pixels_under_them(
    factor: int, write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    pixels = numbers((60, 60), holes=0.4)
    n = 60 // factor
    got = drawn(write_raster("a.tif", pixels, nodata=-9999), make_window(height=n, width=n, res=10.0 * factor), area)
    blocks = true(pixels).reshape(n, factor, n, factor).swapaxes(1, 2).reshape(n, n, -1).astype(np.float64)
    known = np.isfinite(blocks)
    mean = np.where(known, blocks, 0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
    np.testing.assert_allclose(got, np.where(known.mean(axis=-1) >= 0.5, mean, np.nan), rtol=1e-6)
    assert np.isnan(got).any()


def overlaps(origin: float, step: float, n: int, file_origin: float, file_step: float, file_n: int) -> Pixels:
    """Length that each of n intervals shares with each of the file's (n, file_n)."""
    low, file_low = origin + step * np.arange(n), file_origin + file_step * np.arange(file_n)
    shared = np.minimum(low[:, None] + step, file_low + file_step) - np.maximum(low[:, None], file_low)
    lengths: Pixels = np.maximum(shared, 0)
    return lengths


@pytest.mark.parametrize(
    ("dx", "dy", "res"), [(3.0, 4.0, 25.0), (-7.5, 2.5, 33.3), (1.0, 1.0, 100.0), (5.0, 5.0, 10.0)]
)
def test_an_average_weighs_by_the_area_that_pixels_share(
    dx: float, dy: float, res: float, write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    pixels = numbers((64, 64), seed=3)
    path = write_raster("a.tif", pixels, x=500_000 + dx, y=5_376_000 - dy, nodata=-9999)
    n = int(640 // res)
    window = make_window(height=n, width=n, res=res)
    got = drawn(path, window, area, resampling="average")
    # The file begins dx and dy metres into the window.
    rows, cols = overlaps(0, res, n, dy, 10, 64), overlaps(0, res, n, dx, 10, 64)
    values = true(pixels).astype(np.float64)
    known = np.isfinite(values)
    area_known = rows @ known @ cols.T
    with np.errstate(invalid="ignore"):
        mean = rows @ np.where(known, values, 0) @ cols.T / area_known
    np.testing.assert_allclose(got, np.where(area_known / res**2 >= 0.5 - 1e-6, mean, np.nan), rtol=1e-5)


@pytest.mark.parametrize("epsg", [4326, 3035])
def test_an_average_in_another_crs_is_that_of_many_samples(
    epsg: int, write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    window = make_window(height=8, width=8, res=50.0)
    west, south, east, north = transform_bounds(32633, epsg, *window.bounds)
    n = 47
    step_x, step_y = (east - west) / n, (north - south) / n
    pixels = numbers((n + 8, n + 8), holes=0)
    place = Affine(step_x, 0, west - 4 * step_x, 0, -step_y, north + 4 * step_y)
    path = write_raster("a.tif", pixels, crs=f"EPSG:{epsg}", transform=place)
    got = drawn(path, window, area, resampling="average")
    k = 120
    fine = (np.arange(8 * k) + 0.5) * 50 / k
    x, y = np.meshgrid(window.bounds[0] + fine, window.bounds[3] - fine)
    x, y = pyproj.Transformer.from_crs(32633, epsg, always_xy=True).transform(x, y)
    cols, rows = ~place @ (x, y)
    samples = pixels[np.floor(rows).astype(int), np.floor(cols).astype(int)]
    expected = samples.reshape(8, k, 8, k).mean(axis=(1, 3), dtype=np.float64)
    # What is left is the error of the samples, which four times as many on a side make a quarter of this.
    np.testing.assert_allclose(got, expected, rtol=1.2e-2)
    assert abs(got / expected - 1).mean() < 3e-3


def test_an_average_keeps_the_sum_where_pixels_tile_the_file(
    write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    pixels = numbers((64, 64), holes=0)
    got = drawn(write_raster("a.tif", pixels), make_window(height=20, width=20, res=32.0), area, resampling="average")
    assert got.mean(dtype=np.float64) == pytest.approx(pixels.mean(dtype=np.float64), rel=1e-6)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    row=st.integers(-40, 80), col=st.integers(-40, 80), height=st.integers(1, 90), width=st.integers(1, 90),
    res=st.sampled_from([10.0, 20.0, 30.0]), how=st.sampled_from(["nearest", "bilinear", "average"]),
)  # fmt: skip
def test_a_pixel_has_the_same_value_in_every_window(
    row: int, col: int, height: int, width: int, res: float, how: Any,
    write_raster: Write, make_window: Windows, area: Aoi,
) -> None:  # fmt: skip
    path = write_raster(
        "a.tif", numbers((200, 260)), crs="EPSG:4326", transform=Affine(1e-4, 0, 14.99, 0, -7e-5, 48.54), nodata=-9999
    )
    label = open_measure("agb", MeasureSpec(path, resampling=how), aoi=area)
    whole = label.values(make_window(-40, -40, 220, 220, res))
    part = label.values(make_window(row, col, height, width, res))
    np.testing.assert_array_equal(part, whole[row + 40 : row + 40 + height, col + 40 : col + 40 + width])


@pytest.mark.parametrize("how", ["nearest", "bilinear", "average"])
def test_tiles_are_the_mosaic_also_across_their_seams(
    how: Any, write_raster: Write, make_window: Windows, area: Aoi, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = numbers((64, 64), seed=5)
    options: dict[str, Any] = {"x": 500_003.0, "nodata": -9999}
    whole = write_raster("whole.tif", pixels, y=5_376_004.0, **options)
    tiles = (
        write_raster("1.tif", pixels[:31], y=5_376_004.0, **options),
        write_raster("2.tif", pixels[31:], y=5_376_004.0 - 310, **options),
    )
    window = make_window(height=25, width=25, res=23.0)
    expected = drawn(whole, window, area, resampling=how)
    np.testing.assert_array_equal(drawn(tiles, window, area, resampling=how), expected)
    monkeypatch.setattr("labels.measure.MAX_SAMPLES", 300)
    np.testing.assert_array_equal(drawn(tiles, window, area, resampling=how), expected)


def test_where_files_overlap_the_first_valid_pixel_wins(write_raster: Write, make_window: Windows, area: Aoi) -> None:
    upper, lower = numbers((40, 64), seed=1, holes=0.3), numbers((64, 64), seed=2, holes=0)
    paths = (write_raster("1.tif", upper, nodata=-9999), write_raster("2.tif", lower))
    expected = lower.copy()
    expected[:40] = np.where(upper == -9999, lower[:40], upper)
    np.testing.assert_array_equal(drawn(paths, make_window(), area), expected)


def test_files_on_other_grids_fill_what_the_first_leaves(write_raster: Write, make_window: Windows, area: Aoi) -> None:
    left, right = np.full((64, 35), 10, np.float32), np.full((64, 40), 30, np.float32)
    paths = (
        write_raster("1.tif", left),
        write_raster("2.tif", right, x=500_000 + 300.5, y=5_376_000.5),
    )
    got = drawn(paths, make_window(height=16, width=16, res=40.0), area)
    assert set(got[:, :8].ravel()) == {10}
    assert set(got[:, 9:].ravel()) == {30}
    # Columns 320 to 360 m: the first file knows 30 of its 40 m, the second one fills the rest.
    np.testing.assert_allclose(got[1:15, 8], (30 * 10 + 10 * 30) / 40)


def test_scale_offset_range_and_void_are_those_of_the_file_unless_said_otherwise(
    write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    pixels = np.arange(64 * 64, dtype=np.int16).reshape(64, 64)
    path = write_raster("a.tif", pixels, nodata=7)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.5,), (100.0,)
    expected = np.where(pixels == 7, np.nan, pixels * 0.5 + 100)
    np.testing.assert_array_equal(drawn(path, make_window(), area), expected)
    told = drawn(path, make_window(), area, scale=2.0, offset=0.0, nodata=9, valid_range=(4, 6000))
    own = np.where((pixels == 9) | (pixels * 2.0 < 4) | (pixels * 2.0 > 6000), np.nan, pixels * 2.0)
    np.testing.assert_array_equal(told, own)


def test_nan_infinity_and_the_mask_inside_a_file_are_void(write_raster: Write, make_window: Windows, area: Aoi) -> None:
    pixels = numbers(holes=0)
    pixels[2, 3], pixels[4, 5] = np.nan, np.inf
    path = write_raster("a.tif", pixels)
    mask = np.ones((64, 64), bool)
    mask[10:20] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    void = np.isnan(drawn(path, make_window(), area))
    mask[2, 3] = mask[4, 5] = False
    np.testing.assert_array_equal(void, ~mask)


def test_any_band_can_be_the_measure(write_raster: Write, make_window: Windows, area: Aoi) -> None:
    both = np.stack([numbers(seed=1, holes=0), numbers(seed=2, holes=0)])
    path = write_raster("a.tif", both)
    np.testing.assert_array_equal(drawn(path, make_window(), area, band=2), both[1])
    with pytest.raises(LabelError, match="has 2 bands, wanted band 3"):
        drawn(path, make_window(), area, band=3)


def test_a_measure_is_a_label_that_says_what_it_is(write_raster: Write, make_window: Windows, area: Aoi) -> None:
    spec = MeasureSpec(write_raster("a.tif", numbers()), units="Mg ha-1", valid_range=(0, 500))
    label = pickle.loads(pickle.dumps(open_measure("agb", spec, aoi=area)))
    assert isinstance(label, LabelSource)
    (variable,) = label.variables
    assert (variable.name, variable.dtype, variable.kind) == ("agb", "float32", "measure")
    assert math.isnan(variable.fill)
    assert variable.attrs["units"] == "Mg ha-1"
    assert label.render(make_window())["agb"].shape == (64, 64)


def test_what_cannot_be_a_measure_is_refused(
    write_raster: Write, make_window: Windows, area: Aoi, tmp_path: Path
) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"measure": ""}, "empty"), ({"band": 0}, "counted from 1"), ({"scale": 0.0}, "scale of 0"),
        ({"valid_range": (3.0, 3.0)}, "3 is not below 3"),
    ]  # fmt: skip
    for options, why in wrong:
        with pytest.raises(ValueError, match=why):
            MeasureSpec(**{"measure": "a.tif", **options})
    path = write_raster("a.tif", np.ones((4, 4), np.uint8))
    with pytest.raises(LabelError, match=r"nodata -1 is no number that .* can hold \(uint8\)"):
        open_measure("agb", MeasureSpec(path, nodata=-1), aoi=area)
    with pytest.raises(LabelError, match="does not exist"):
        open_measure("agb", MeasureSpec(str(tmp_path / "none.tif")), aoi=area)
    (tmp_path / "b.tif").write_bytes(b"no raster")
    with pytest.raises(ReadError) as caught:
        open_measure("agb", MeasureSpec(str(tmp_path / "b.tif")), aoi=area)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(LabelError, match="no CRS"):
        open_measure("agb", MeasureSpec(write_raster("c.tif", numbers(), crs=None)), aoi=area)


# --- the confidence of the Cropland Data Layer in Kansas -------------------------------------------------------------

KANSAS_EPSG = 32614


@pytest.fixture(scope="module")
def kansas(shared_data: Path) -> Path:
    return shared_data / "kansas-cdl"


@pytest.fixture(scope="module")
def kansas_window(kansas: Path) -> Callable[[float, int], Window]:
    with rasterio.open(kansas / "2021_30m_confidence_layer.tif") as file:
        west, south, east, north = transform_bounds(file.crs, KANSAS_EPSG, *file.bounds)

    def window(res: float, px: int) -> Window:
        # Around the middle, on whole pixels.
        x, y = (round((a + b) / 2 / res) * res for a, b in ((west, east), (south, north)))
        half = px // 2 * res
        return Window(KANSAS_EPSG, (x - half, y - half, x + half, y + half), res, (px, px), (), ())

    return window


@pytest.fixture(scope="module")
def kansas_area() -> Aoi:
    import shapely

    return Aoi("kansas", shapely.box(-97.15, 39.2, -96.95, 39.35))


@pytest.mark.parametrize(("res", "how"), [(10.0, "auto"), (30.0, "nearest"), (30.0, "auto"), (100.0, "auto")])
def test_the_confidence_tiles_of_kansas_are_their_mosaic(
    res: float, how: Any, kansas: Path, kansas_window: Callable[[float, int], Window], kansas_area: Aoi
) -> None:
    window = kansas_window(res, 160)
    whole = drawn(str(kansas / "2021_30m_confidence_layer.tif"), window, kansas_area, resampling=how)
    tiles = drawn(str(kansas / "tiles" / "2021_30m_confidence_layer_*.tif"), window, kansas_area, resampling=how)
    assert np.isfinite(whole).all()
    assert 13 <= whole.min() < whole.max() <= 100
    np.testing.assert_array_equal(tiles, whole)


def test_the_confidence_of_kansas_is_what_gdal_makes_of_it(
    kansas: Path, kansas_window: Callable[[float, int], Window], kansas_area: Aoi
) -> None:
    path = str(kansas / "2021_30m_confidence_layer.tif")
    fine, coarse = kansas_window(10.0, 200), kansas_window(120.0, 100)
    assert np.abs(drawn(path, fine, kansas_area) - gdal(path, fine, Resampling.bilinear)).max() < 0.2
    # GDAL's average takes the box around a turned pixel, ours its outline; the grids are turned by 0.6 degrees.
    off = drawn(path, coarse, kansas_area) - gdal(path, coarse, Resampling.average)
    assert np.abs(off).mean() < 0.6
    assert abs(off.mean()) < 0.05
