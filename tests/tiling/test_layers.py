"""What layers say about chips, against rasterio's own windows and shapely's areas."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from curate.errors import RecipeError
from tiling.grid import Chip, footprints
from tiling.layers import class_shares, covered, polygon_shares, presence, raster_points, read_vector, touched

CHIPS = tuple(Chip(32633, col, row, 16, 10.0) for row in range(33745, 33749) for col in range(3125, 3129))
WEST, NORTH = 500_000.0, 33749 * 160.0


def _write(path: Path, pixels: np.ndarray, step: float = 20.0, left: float = WEST, nodata: float | None = 0) -> str:
    profile = {
        "driver": "GTiff",
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "count": 1,
        "dtype": pixels.dtype,
    }
    transform = from_origin(left, NORTH, step, step)
    with rasterio.open(path, "w", crs="EPSG:32633", transform=transform, nodata=nodata, **profile) as file:
        file.write(pixels, 1)
    return str(path)


@pytest.fixture
def classes(tmp_path: Path) -> tuple[str, np.ndarray]:
    """32 squared pixels of 20 m over all chips, with void ones among them."""
    pixels = np.random.default_rng(1).choice([0, 1, 2, 7], (32, 32)).astype("uint8")
    return _write(tmp_path / "classes.tif", pixels), pixels


def test_shares_of_classes_are_those_of_the_files_pixels(classes: tuple[str, np.ndarray]) -> None:
    path, pixels = classes
    shares = class_shares(CHIPS, [path])
    assert shares.names == (1, 2, 7)
    for chip, found in zip(CHIPS, shares.values, strict=True):
        top, left = (33748 - chip.row) * 8, (chip.col - 3125) * 8
        mine = pixels[top : top + 8, left : left + 8]
        assert found.tolist() == [(mine == code).mean() for code in (1, 2, 7)]


def test_a_window_too_large_to_read_at_once_gives_the_same(
    classes: tuple[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = raster_points(CHIPS, [classes[0]])
    monkeypatch.setattr("tiling.layers.WINDOW_PX", 100)
    parts = raster_points(CHIPS, [classes[0]])
    assert (once[0] == parts[0]).all()
    assert (once[1] == parts[1]).all()


def test_two_tiles_are_one_layer_and_what_lies_outside_is_void(tmp_path: Path) -> None:
    pixels = np.arange(1, 32 * 32 + 1).reshape(32, 32).astype("uint16")
    left, right = (
        _write(tmp_path / f"{side}.tif", part, left=WEST + x)
        for side, part, x in (("l", pixels[:, :16], 0), ("r", pixels[:16, 16:], 320))
    )
    values, known = raster_points(CHIPS, [left, right])
    chip = CHIPS.index(Chip(32633, 3127, 33748, 16, 10.0))
    assert known[chip].all()
    assert values[chip].reshape(8, 8)[::-1].tolist() == pixels[:8, 16:24].tolist()
    assert not known[CHIPS.index(Chip(32633, 3128, 33745, 16, 10.0))].any()


def test_a_raster_of_measures_is_no_raster_of_classes(tmp_path: Path) -> None:
    path = _write(tmp_path / "height.tif", np.ones((32, 32), "float32"))
    with pytest.raises(RecipeError, match="classes are whole numbers"):
        class_shares(CHIPS, [path])
    with pytest.raises(RecipeError, match="cannot be read as a raster"):
        class_shares(CHIPS, [str(tmp_path / "none.tif")])


def test_shares_of_polygons_are_areas_cut_with_the_chip(tmp_path: Path) -> None:
    x, y = WEST, NORTH - 640
    table = geopandas.GeoDataFrame(
        {"biome": ["wood", "heath", "wood", None]},
        geometry=[
            shapely.box(x, y, x + 80, y + 640), shapely.box(x + 80, y, x + 400, y + 320),
            shapely.box(x + 400, y, x + 640, y + 320), shapely.box(x + 80, y + 320, x + 640, y + 640),
        ],
        crs=32633,
    )  # fmt: skip
    table.to_file(tmp_path / "biomes.gpkg")
    around = shapely.box(14.9, 48.6, 15.1, 48.8)
    found = read_vector(str(tmp_path / "biomes.gpkg"), around, attributes=["biome"])
    shares = polygon_shares(CHIPS, found, "biome")
    assert shares.names == ("heath", "wood")
    for chip, (heath, wood) in zip(CHIPS, shares.values, strict=True):
        box = shapely.box(*chip.bounds)
        for share, which in ((heath, [1]), (wood, [0, 2])):
            truth = sum(shapely.box(*chip.bounds).intersection(table.geometry[at]).area for at in which) / box.area
            assert share == pytest.approx(truth, abs=1e-3)
    lying = table.to_crs(4326).geometry.to_numpy()
    assert covered(CHIPS, lying) == pytest.approx(np.ones(16), abs=1e-3)
    assert covered(CHIPS, lying[[0, 0]])[0] == pytest.approx(0.5, abs=1e-3), "overlaps count once"


def test_points_touch_the_chip_they_lie_in_and_categories_are_told_apart() -> None:
    middles = shapely.centroid(footprints(CHIPS))
    assert np.flatnonzero(touched(CHIPS, middles[[3, 7]])).tolist() == [3, 7]
    has = presence(CHIPS, middles[[0, 0, 5]], [["house"], ["road", "river"], ["house"]])
    assert has.names == ("house", "river", "road")
    assert np.argwhere(has.values > 0).tolist() == [[0, 0], [0, 1], [0, 2], [5, 0]]


def test_a_table_of_points_needs_lon_and_lat_and_its_attributes(tmp_path: Path) -> None:
    around = shapely.box(14, 48, 16, 49)
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("name,lon,lat,people\nA,15.0,48.7,10\nfar,9.0,48.7,10\n")
    bad.write_text("x,y\n15.0,48.7\n")
    assert read_vector(str(good), around)["name"].tolist() == ["A"]
    with pytest.raises(RecipeError, match=r"columns x, y; wanted lon and lat"):
        read_vector(str(bad), around)
    with pytest.raises(RecipeError, match=r"has no attribute 'size'; found name, lon, lat, people"):
        read_vector(str(good), around, attributes=["size"])
    with pytest.raises(RecipeError, match="cannot be read as a vector file"):
        read_vector(str(tmp_path / "none.gpkg"), around)
