"""The Cropland Data Layer of Kansas, 2021: real tiles become one label with our legend, and with WorldCover's classes.

The tiles are those that the STAC collection serves; the big file is USDA's own and the oracle of the mosaic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio.warp import transform_bounds

from labels.crosswalk import crosswalk
from labels.legend import product_legend
from labels.rasters import RasterSource, open_raster
from labels.read import class_shares
from labels.spec import ProductLabel, RasterLabel
from tiling.aoi import Aoi
from tiling.shards import Window

Pixels = np.ndarray[Any, Any]

# Across the corner where the four tiles meet; 10 m, so that each of their pixels is about nine of ours.
SIDE = 900
WINDOW = Window(32614, (660_000.0, 4_345_000.0, 669_000.0, 4_354_000.0), 10.0, (SIDE, SIDE), (), ())


@pytest.fixture(scope="module")
def kansas(shared_data: Path) -> Path:
    folder = shared_data / "kansas-cdl"
    if not folder.is_dir():
        pytest.skip("the Cropland Data Layer of Kansas is not here")
    return folder


@pytest.fixture(scope="module")
def area(kansas: Path) -> Aoi:
    with rasterio.open(kansas / "2021_30m_cdls.tif") as file:
        return Aoi("kansas", shapely.box(*transform_bounds(file.crs, 4326, *file.bounds)))


@pytest.fixture(scope="module")
def cdl(kansas: Path, area: Aoi) -> RasterSource:
    tiles = [str(path) for path in sorted((kansas / "tiles").glob("*cdls*.tif"))]
    assert len(tiles) == 4
    return open_raster("crops", ProductLabel(product="usda-cdl", year=2021), aoi=area, rasters=tiles)


def under(path: Path, window: Window) -> Pixels:
    """The pixels of a file that lie under the centres of a window's pixels, each looked up by itself."""
    minx, _, _, maxy = window.bounds
    height, width = window.shape
    x, y = np.meshgrid(
        minx + (np.arange(width) + 0.5) * window.resolution_m, maxy - (np.arange(height) + 0.5) * window.resolution_m
    )
    with rasterio.open(path) as file:
        east, north = pyproj.Transformer.from_crs(window.epsg, file.crs, always_xy=True).transform(x, y)
        rows, cols = rasterio.transform.rowcol(file.transform, east.ravel(), north.ravel())
        found: Pixels = file.read(1)[np.reshape(rows, window.shape), np.reshape(cols, window.shape)]
    return found


def palette(path: Path) -> dict[int, tuple[int, int, int]]:
    with rasterio.open(path) as file:
        return {code: tuple(rgba[:3]) for code, rgba in file.colormap(1).items()}


def colors() -> dict[int, tuple[int, int, int]]:
    return {
        c.code: (int(c.color[1:3], 16), int(c.color[3:5], 16), int(c.color[5:7], 16))
        for c in product_legend("usda-cdl").classes
        if c.color
    }


def test_the_four_tiles_become_one_label_that_is_usdas_own_map(kansas: Path, cdl: RasterSource) -> None:
    drawn = cdl.codes(WINDOW)
    np.testing.assert_array_equal(drawn, under(kansas / "2021_30m_cdls.tif", WINDOW))
    assert all(map(has_part_of_it, (kansas / "tiles").glob("*cdls*.tif"))), "the window lies on all four tiles"


def has_part_of_it(path: Path) -> bool:
    """Whether a file lies under the window in part."""
    with rasterio.open(path) as file:
        west, south, east, north = transform_bounds(file.crs, WINDOW.epsg, *file.bounds)
    minx, miny, maxx, maxy = WINDOW.bounds
    return bool(west < maxx and east > minx and south < maxy and north > miny)


def test_the_colours_of_our_legend_are_those_of_the_files(kansas: Path) -> None:
    ours = colors()
    assert len(ours) == 133
    for path in (kansas / "tiles").glob("*cdls*.tif"):
        file = palette(path)
        assert {code: file[code] for code in ours} == ours
        assert not {code for code, rgb in file.items() if rgb != (0, 0, 0)} - set(ours), "a colour without a class"


def test_usdas_own_palette_is_the_same_up_to_rounding_and_two_double_crops(kansas: Path) -> None:
    ours, theirs = colors(), palette(kansas / "2021_30m_cdls.tif")
    apart = {code: max(abs(a - b) for a, b in zip(rgb, theirs[code], strict=True)) for code, rgb in ours.items()}
    assert {code for code, levels in apart.items() if levels > 2} == {228, 233}


def test_every_class_of_the_map_has_a_name(kansas: Path, cdl: RasterSource) -> None:
    with rasterio.open(kansas / "2021_30m_cdls.tif") as file:
        codes, n = np.unique(file.read(1), return_counts=True)
    assert len(codes) == 35
    names = {cdl.legend.name(int(code)) for code in codes}
    assert {"Corn", "Soybeans", "Winter Wheat", "Grassland/Pasture"} <= names
    assert cdl.legend.name(int(codes[n.argmax()])) == "Grassland/Pasture"
    assert cdl.attrs["flag_values"] == list(product_legend("usda-cdl").codes)


def test_kansas_in_worldcovers_classes_keeps_what_is_certain_and_says_how_much_that_is(
    kansas: Path, cdl: RasterSource
) -> None:
    drawn = cdl.codes(WINDOW)
    walk = crosswalk("usda-cdl", "worldcover")
    found = walk.apply(drawn, cdl.ignore)
    assert (found.shape, str(found.dtype), walk.ignore) == (drawn.shape, "uint8", 255)
    np.testing.assert_array_equal(found[drawn == 176], 30)  # Grassland/Pasture
    np.testing.assert_array_equal(found[np.isin(drawn, (1, 5, 24))], 40)  # Corn, Soybeans, Winter Wheat
    np.testing.assert_array_equal(found[drawn == 121], 255)  # Developed/Open Space: lawns as much as roofs
    shares = class_shares(found, walk.ignore)
    certain = [p.code for p in walk.pairs if p.quality == "exact"]
    assert sum(shares.values()) == pytest.approx(np.isin(drawn, certain).mean())
    more = crosswalk("usda-cdl", "worldcover", quality="mixed").apply(drawn, cdl.ignore)
    np.testing.assert_array_equal(more[drawn == 121], 50)
    assert (more[found != 255] == found[found != 255]).all(), "asking for less quality only fills what was unlabelled"
    assert (more != 255).mean() > (found != 255).mean() > 0.5


def test_the_confidence_of_a_class_lies_on_the_same_pixels(kansas: Path, area: Aoi, cdl: RasterSource) -> None:
    pattern = str(kansas / "tiles" / "*confidence*.tif")
    confidence = open_raster("sure", RasterLabel(raster=pattern), aoi=area).codes(WINDOW)
    np.testing.assert_array_equal(confidence, under(kansas / "2021_30m_confidence_layer.tif", WINDOW))
    drawn = cdl.codes(WINDOW)
    with (
        rasterio.open(kansas / "2021_30m_cdls.tif") as classes,
        rasterio.open(kansas / "2021_30m_confidence_layer.tif") as sure,
    ):
        assert classes.transform == sure.transform
        pairs = set(zip(classes.read(1).ravel().tolist(), sure.read(1).ravel().tolist(), strict=True))
    assert set(zip(drawn.ravel().tolist(), confidence.ravel().tolist(), strict=True)) <= pairs
    assert confidence.min() > 0
    assert confidence.max() <= 100  # per cent
