from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from curate.errors import LabelError, ReadError
from labels.measure import open_measure
from labels.measure_spec import MeasureSpec
from labels.rasters import open_raster, samples_per_pixel
from labels.read import class_shares
from labels.spec import ProductLabel, RasterLabel
from tiling.aoi import Aoi
from tiling.shards import Window

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
KANSAS, FLANDERS = SHARED / "kansas-cdl", SHARED / "flanders" / "worldcereal-labels"

Write = Callable[..., str]
Windows = Callable[..., Window]


def classes(shape: tuple[int, int] = (64, 64), high: int = 9, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(1, high, shape).astype(np.uint8)


def gdal(path: str, window: Window, how: Resampling = Resampling.nearest, fill: int = 255) -> np.ndarray[Any, Any]:
    """What GDAL makes of a file on a window, with exact coordinates."""
    height, width = window.shape
    with (
        rasterio.open(path) as source,
        WarpedVRT(
            source, crs=f"EPSG:{window.epsg}", transform=window.geobox.transform, height=height, width=width,
            resampling=how, tolerance=1e-9, nodata=fill,
        ) as warped,
    ):  # fmt: skip
        pixels: np.ndarray[Any, Any] = warped.read(1)
        return pixels


def test_pixels_of_the_same_grid_are_copied_and_the_rest_ignored(
    write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    pixels = classes()
    pixels[3, 4] = 0
    label = open_raster("x", RasterLabel(raster=write_raster("a.tif", pixels, nodata=0)), aoi=area)
    drawn = label.codes(make_window(-8, -8, 80, 80))
    expected = np.full((80, 80), 255, np.uint8)
    expected[8:72, 8:72] = np.where(pixels == 0, 255, pixels)
    np.testing.assert_array_equal(drawn, expected)
    assert sum(class_shares(drawn, label.ignore).values()) == pytest.approx(4095 / 6400)


def test_files_that_all_lie_elsewhere_are_refused_and_one_that_reaches_in_is_enough(
    write_raster: Write, area: Aoi
) -> None:
    near = write_raster("near.tif", classes())
    with rasterio.open(near) as source:
        place = source.transform
    away = [
        write_raster("east.tif", classes(), transform=Affine.translation(5_000, 0) * place),
        write_raster("degrees.tif", classes(), transform=Affine(1e-4, 0, 100, 0, -1e-4, 10), crs="EPSG:4326"),
    ]
    with pytest.raises(LabelError, match=r"east\.tif and 1 more files do not reach into the area"):
        open_raster("x", RasterLabel(raster=tuple(away)), aoi=area)
    with pytest.raises(LabelError, match=r"degrees\.tif does not reach into the area"):
        open_measure("x", MeasureSpec(away[1]), aoi=area)
    assert len(open_raster("x", RasterLabel(raster=(*away, near)), aoi=area).files) == 3


def test_zero_is_a_class_where_the_file_does_not_say_otherwise(
    write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    mask = np.eye(64, dtype=np.uint8)
    path = write_raster("a.tif", mask)
    np.testing.assert_array_equal(open_raster("x", RasterLabel(raster=path), aoi=area).codes(make_window()), mask)
    told = open_raster("x", RasterLabel(raster=path, nodata=0), aoi=area).codes(make_window())
    np.testing.assert_array_equal(told, np.where(mask == 0, 255, 1))


def test_the_mask_inside_a_file_counts(write_raster: Write, make_window: Windows, area: Aoi) -> None:
    path = write_raster("a.tif", classes())
    mask = np.ones((64, 64), bool)
    mask[10:20] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    drawn = open_raster("x", RasterLabel(raster=path), aoi=area).codes(make_window())
    np.testing.assert_array_equal(drawn == 255, ~mask)


@pytest.mark.parametrize(
    ("dx", "dy", "res"), [(5.0, 5.0, 10.0), (3.3, -7.1, 10.0), (0.0, 0.0, 20.0), (-10.0, 10.0, 20.0), (-7.0, 4.0, 30.0)]
)
def test_shifted_and_coarser_grids_are_read_as_gdal_reads_them(
    dx: float, dy: float, res: float, write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    path = write_raster("a.tif", classes(), x=500_000 + dx, y=5_376_000 + dy, res=res, nodata=0)
    drawn = open_raster("x", RasterLabel(raster=path), aoi=area).codes(make_window())
    np.testing.assert_array_equal(drawn, gdal(path, make_window()))


@pytest.mark.parametrize("epsg", [4326, 3035, 32634, 5070])
def test_other_crs_are_read_as_gdal_reads_them(
    epsg: int, write_raster: Write, make_window: Windows, area: Aoi, tmp_path: Path
) -> None:
    window = make_window(-30, -30, 120, 120)
    west, south, east, north = transform_bounds(32633, epsg, *window.bounds)
    side = max(east - west, north - south)
    n = 150
    path = write_raster(
        "a.tif", classes((n, n)), crs=f"EPSG:{epsg}", nodata=0,
        transform=Affine(side / n, 0, west, 0, -side / n, north),
    )  # fmt: skip
    drawn = open_raster("x", RasterLabel(raster=path), aoi=area).codes(window)
    np.testing.assert_array_equal(drawn, gdal(path, window))
    assert (drawn != 255).mean() > 0.5


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_coarser_chips_get_the_most_frequent_class(
    factor: int, write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    pixels = classes((60, 60), high=4)
    pixels[:7, :9] = 0
    path = write_raster("a.tif", pixels, nodata=0)
    window = make_window(height=60 // factor, width=60 // factor, res=10.0 * factor)
    drawn = open_raster("x", RasterLabel(raster=path), aoi=area).codes(window)
    blocks = pixels.reshape(60 // factor, factor, 60 // factor, factor).swapaxes(1, 2).reshape(-1, factor**2)
    expected = [np.bincount(b[b > 0], minlength=1).argmax() if (b > 0).any() else 255 for b in blocks]
    np.testing.assert_array_equal(drawn.ravel(), expected)


def test_a_vote_begins_where_pixels_are_about_twice_as_wide() -> None:
    assert [samples_per_pixel(r, 10.0) for r in (5, 10, 15, 18.9, 19.99, 20, 25, 30.02, 100)] == [
        1,
        1,
        1,
        1,
        2,
        2,
        3,
        3,
        10,
    ]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    row=st.integers(-40, 80),
    col=st.integers(-40, 80),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    res=st.sampled_from([10.0, 20.0, 30.0]),
)
def test_a_pixel_is_the_same_class_in_every_window(
    row: int, col: int, height: int, width: int, res: float,
    write_raster: Write, make_window: Windows, area: Aoi,
) -> None:  # fmt: skip
    path = write_raster(
        "a.tif", classes((200, 260)), crs="EPSG:4326", transform=Affine(1e-4, 0, 14.99, 0, -7e-5, 48.54), nodata=0
    )
    label = open_raster("x", RasterLabel(raster=path), aoi=area)
    whole = label.codes(make_window(-40, -40, 220, 220, res))
    part = label.codes(make_window(row, col, height, width, res))
    np.testing.assert_array_equal(part, whole[row + 40 : row + 40 + height, col + 40 : col + 40 + width])


def test_a_window_drawn_in_parts_is_the_same(
    write_raster: Write, make_window: Windows, area: Aoi, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_raster("a.tif", classes((90, 90)), nodata=0)
    label = open_raster("x", RasterLabel(raster=path), aoi=area)
    whole = label.codes(make_window(height=40, width=41, res=20.0))
    monkeypatch.setattr("labels.rasters.MAX_SAMPLES", 40 * 40)
    np.testing.assert_array_equal(label.codes(make_window(height=40, width=41, res=20.0)), whole)


def test_tiles_are_the_mosaic_and_the_first_valid_wins(
    write_raster: Write, make_window: Windows, area: Aoi, tmp_path: Path
) -> None:
    pixels = classes()
    upper, lower = pixels[:40].copy(), pixels[30:].copy()
    lower[:10] = 9
    upper[35, :20] = 0
    paths = (write_raster("1.tif", upper, nodata=0), write_raster("2.tif", lower, y=5_376_000 - 300, nodata=0))
    drawn = open_raster("x", RasterLabel(raster=paths), aoi=area).codes(make_window())
    expected = pixels.copy()
    expected[35, :20] = 9
    np.testing.assert_array_equal(drawn, expected)
    by_pattern = open_raster("x", RasterLabel(raster=str(tmp_path / "*.tif")), aoi=area)
    np.testing.assert_array_equal(by_pattern.codes(make_window()), expected)
    assert by_pattern.attrs["source"] == ["1.tif", "2.tif"]
    other_way = open_raster("x", RasterLabel(raster=paths[::-1]), aoi=area).codes(make_window())
    assert (other_way[30:40] == 9).all()


def test_a_product_brings_its_legend_and_its_void(write_raster: Write, make_window: Windows, area: Aoi) -> None:
    pixels = np.where(np.eye(64) > 0, 0, 40).astype(np.uint8)
    path = write_raster("map.tif", pixels)  # without a nodata tag, as some mirrors have it
    label = open_raster("worldcover", ProductLabel(product="esa-worldcover"), aoi=area, rasters=[path])
    drawn = label.codes(make_window())
    assert (drawn[pixels == 0] == 255).all()
    assert class_shares(drawn, label.ignore) == {40: 63 / 64}
    assert label.attrs["year"] == 2021
    assert label.attrs["licence"] == "CC-BY-4.0"
    assert 0 not in label.attrs["flag_values"]
    with pytest.raises(LabelError, match="no file of esa-worldcover was found"):
        open_raster("worldcover", ProductLabel(product="esa-worldcover"), aoi=area)


def test_values_that_the_legend_does_not_have_are_refused(
    write_raster: Write, make_window: Windows, area: Aoi, tmp_path: Path
) -> None:
    path = write_raster("a.tif", classes(high=4))
    (tmp_path / "l.csv").write_text("code,name\n1,One\n2,Two\n")
    label = open_raster("x", RasterLabel(raster=path, legend=str(tmp_path / "l.csv")), aoi=area)
    with pytest.raises(LabelError, match="the files hold 3, not in the legend; add it there, or say nodata"):
        label.codes(make_window())


def test_wide_codes_are_kept_and_values_that_do_not_fit_are_refused(
    write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    codes = classes().astype(np.int32) * 1000
    wide = open_raster("x", RasterLabel(raster=write_raster("a.tif", codes)), aoi=area)
    assert (wide.dtype, wide.ignore) == ("uint16", 65535)
    np.testing.assert_array_equal(wide.codes(make_window()), codes)
    for value, said in ((-1, "value -1, which is no class"), (70000, "value 70000"), (65535, "use 65535 as a value")):
        codes[5, 5] = value
        label = open_raster("x", RasterLabel(raster=write_raster("b.tif", codes)), aoi=area)
        with pytest.raises(LabelError, match=said):
            label.codes(make_window())
        told = open_raster("x", RasterLabel(raster=write_raster("b.tif", codes), nodata=value), aoi=area)
        assert told.codes(make_window())[5, 5] == 65535


def test_255_as_a_class_is_refused_until_ignore_is_another_value(
    write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    pixels = classes()
    pixels[0, 0] = 255
    path = write_raster("a.tif", pixels)
    with pytest.raises(LabelError, match="ignore: 65535 if it is a class"):
        open_raster("x", RasterLabel(raster=path), aoi=area).codes(make_window())
    label = open_raster("x", RasterLabel(raster=path, ignore=65535), aoi=area)
    np.testing.assert_array_equal(label.codes(make_window()), pixels)
    assert label.dtype == "uint16"


def test_files_that_cannot_be_a_class_raster_are_refused(write_raster: Write, area: Aoi, tmp_path: Path) -> None:
    def refuse(path: str, said: str, error: type[Exception] = LabelError) -> None:
        with pytest.raises(error, match=said):
            open_raster("x", RasterLabel(raster=path), aoi=area)

    refuse(str(tmp_path / "none.tif"), "does not exist")
    refuse(str(tmp_path / "*.tif"), "no file matches")
    refuse(write_raster("float.tif", classes().astype(np.float32)), "holds float32; classes are whole numbers")
    refuse(write_raster("rgb.tif", np.stack([classes()] * 3)), "has 3 bands; a class raster has one")
    refuse(write_raster("nocrs.tif", classes(), crs=None), "has no CRS")
    (tmp_path / "text.tif").write_text("not a raster")
    refuse(str(tmp_path / "text.tif"), r"text\.tif.*cannot be opened", ReadError)
    with pytest.raises(ReadError, match=r"gone\.tif.*cannot be opened") as caught:
        open_raster("x", ProductLabel(product="esa-worldcover"), aoi=area, rasters=[str(tmp_path / "gone.tif")])
    assert caught.value.retryable


def test_a_truncated_file_is_a_read_error_that_names_it(write_raster: Write, make_window: Windows, area: Aoi) -> None:
    path = Path(write_raster("cut.tif", classes((512, 512), 250), tiled=True, blockxsize=128, blockysize=128))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    label = open_raster("cover", RasterLabel(raster=str(path)), aoi=area)
    with pytest.raises(ReadError, match=r"cut\.tif, band cover: cannot be read") as caught:
        label.codes(make_window(height=512, width=512))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    # Dask sends the causes too, and GDAL's own cannot be unpickled.
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__cause__ is None


@dataclass(frozen=True)
class Shouted:
    url: str

    def env(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def shout(href: str) -> Shouted:
    return Shouted(href.replace("secret", "a"))


def test_a_file_is_signed_before_each_opening_and_the_label_stays_picklable(
    write_raster: Write, make_window: Windows, area: Aoi
) -> None:
    path = write_raster("a.tif", classes())
    spec = ProductLabel(product="esa-worldcover", nodata=255)
    label = open_raster("x", spec, aoi=area, rasters=[path.replace("a.tif", "secret.tif")], reach=shout)
    with pytest.raises(LabelError, match="not in the legend"):  # so it was read
        pickle.loads(pickle.dumps(label)).codes(make_window())


def test_a_raster_of_the_whole_earth_serves_both_sides_of_the_antimeridian(tmp_path: Path) -> None:
    path = str(tmp_path / "earth.tif")
    pixels = np.tile(np.arange(1, 73, dtype=np.uint8), (36, 1))
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=1, height=36, width=72,
        crs="EPSG:4326", transform=Affine(5, 0, -180, 0, -5, 90),
    ) as file:  # fmt: skip
        file.write(pixels, 1)
    # The first zone begins at 180°; the window reaches 10 km over its edge.
    window = Window(32601, (160_000.0, 600_000.0, 180_000.0, 620_000.0), 100.0, (200, 200), (), ())
    drawn = open_raster("x", RasterLabel(raster=path), aoi=Aoi("fiji", shapely.box(-179.9, 5, -179.5, 6))).codes(window)
    assert set(np.unique(drawn)) == {1, 72}
    assert (np.diff(drawn.astype(int), axis=1) <= 0).all()


needs_kansas = pytest.mark.skipif(not KANSAS.exists(), reason="the Cropland Data Layer of Kansas is not here")
needs_flanders = pytest.mark.skipif(not FLANDERS.exists(), reason="the reference labels of Flanders are not here")


def around(path: Path) -> Aoi:
    with rasterio.open(path) as file:
        return Aoi("area", shapely.box(*transform_bounds(file.crs, 4326, *file.bounds)))


@needs_kansas
@pytest.mark.parametrize("res", [10.0, 30.0, 60.0, 100.0])
def test_kansas_tiles_are_the_mosaic(res: float) -> None:
    aoi = around(KANSAS / "2021_30m_cdls.tif")
    n = int(9000 / res)
    window = Window(32614, (660_000.0, 4_342_000.0, 660_000 + n * res, 4_342_000 + n * res), res, (n, n), (), ())
    whole = open_raster("cdl", RasterLabel(raster=str(KANSAS / "2021_30m_cdls.tif")), aoi=aoi)
    tiles = open_raster("cdl", RasterLabel(raster=str(KANSAS / "tiles" / "*cdls*.tif")), aoi=aoi)
    assert len(tiles.attrs["source"]) == 4
    drawn = whole.codes(window)
    np.testing.assert_array_equal(tiles.codes(window), drawn)
    assert len(np.unique(drawn)) > 10


@needs_kansas
@pytest.mark.parametrize("res", [10.0, 30.0])
@pytest.mark.parametrize("epsg", [32614, 32615])
def test_kansas_on_any_grid_is_what_gdal_gives_with_exact_coordinates(res: float, epsg: int) -> None:
    path = KANSAS / "2021_30m_cdls.tif"
    with rasterio.open(path) as file:
        left, bottom, _, _ = transform_bounds(file.crs, epsg, *file.bounds)
    left, bottom = left // res * res + 8000, bottom // res * res + 8000
    window = Window(epsg, (left, bottom, left + 300 * res, bottom + 300 * res), res, (300, 300), (), ())
    drawn = open_raster("cdl", RasterLabel(raster=str(path)), aoi=around(path)).codes(window)
    np.testing.assert_array_equal(drawn, gdal(str(path), window))


@needs_flanders
@pytest.mark.parametrize("name", ["label_LC.tif", "label_CT.tif"])
def test_labels_of_flanders_keep_their_codes_and_their_void(name: str) -> None:
    path = next(FLANDERS.rglob(name))
    with rasterio.open(path) as file:
        pixels, bounds = file.read(1), file.bounds
    window = Window(32631, tuple(bounds), 10.0, pixels.shape, (), ())
    label = open_raster("crops", RasterLabel(raster=str(path)), aoi=around(path))
    drawn = label.codes(window)
    np.testing.assert_array_equal(drawn, np.where(pixels == 0, 65535, pixels))
    assert 0 not in class_shares(drawn, label.ignore)
