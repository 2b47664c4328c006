"""The truth is a function of the place alone, and its polygons are its pixels."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.features import rasterize
from rasterio.transform import Affine

from simulate import landscape as land
from simulate.frame import places
from simulate.osm import features, fields
from simulate.world import Raster, WorldSpec, mgrs_square, utm_epsg
from simulate.write import s2_tiles, truth_on

SPEC = WorldSpec(size_px=256)


@given(
    x=st.floats(-40_000, 40_000),
    y=st.floats(-40_000, 40_000),
    seed=st.integers(0, 5),
    reach=st.sampled_from([1.0, 900.0]),
)
@settings(max_examples=60)
def test_a_place_has_one_truth_whatever_is_asked_for_beside_it(x: float, y: float, seed: int, reach: float) -> None:
    alone = land.ground(np.array([x]), np.array([y]), seed)
    xs, ys = np.array([x - reach, x + reach, x, x - 2 * reach]), np.array([y, y - reach, y, y + 3 * reach])
    among = land.ground(xs, ys, seed)
    for name in alone._fields:
        assert getattr(alone, name)[0] == getattr(among, name)[2], name
    assert land.elevation(np.array([x]), np.array([y]), seed)[0] == land.elevation(xs, ys, seed)[2]


def test_blocks_of_rows_make_up_the_whole() -> None:
    raster = Raster(32633, 722_000, 5_352_000, 10, 10, (130, 90))
    whole = land.ground(*places(SPEC, raster), SPEC.seed)
    parts = [land.ground(*places(SPEC, raster, rows), SPEC.seed) for rows in ((0, 41), (41, 42), (42, 130))]
    for n, name in enumerate(whole._fields):
        np.testing.assert_array_equal(whole[n], np.concatenate([part[n] for part in parts]), err_msg=name)


def test_tiles_of_one_zone_agree_wherever_they_begin() -> None:
    big = places(SPEC, Raster(32633, 722_000, 5_352_000, 10, 10, (200, 200)))
    small = places(SPEC, Raster(32633, 722_730, 5_351_110, 10, 10, (50, 60)))
    np.testing.assert_array_equal(big[0][89:139, 73:133], small[0])
    np.testing.assert_array_equal(big[1][89:139, 73:133], small[1])


def test_a_pixel_of_20_m_has_the_truth_of_its_middle() -> None:
    coarse = truth_on(SPEC, 32634, (20, 0, 277_000, 0, -20, 5_352_000), (60, 70))
    fine = truth_on(SPEC, 32634, (10, 0, 277_005, 0, -10, 5_351_995), (120, 140))
    for name, values in coarse.items():
        np.testing.assert_array_equal(values, fine[name][::2, ::2], err_msg=name)


def test_places_are_those_of_proj_to_a_millimetre() -> None:
    per_lon, per_lat = SPEC.m_per_degree
    for tile in s2_tiles(SPEC):
        raster = tile.rasters[10]
        x, y = places(SPEC, raster)
        cols, rows = np.meshgrid(np.arange(raster.shape[1]) + 0.5, np.arange(raster.shape[0]) + 0.5)
        lon, lat = Transformer.from_crs(raster.epsg, 4326, always_xy=True).transform(
            raster.x0 + 10 * cols, raster.y0 - 10 * rows
        )
        assert np.abs((lon - SPEC.lon) * per_lon - x).max() < 1e-3
        assert np.abs((lat - SPEC.lat) * per_lat - y).max() < 1e-3


def test_the_same_ground_has_the_same_truth_in_both_zones() -> None:
    west, east = (tile.rasters[10] for tile in s2_tiles(SPEC))
    assert {west.epsg, east.epsg} == {32633, 32634}
    here = truth_on(SPEC, west.epsg, west.transform, west.shape)
    cols, rows = np.meshgrid(np.arange(west.shape[1]) + 0.5, np.arange(west.shape[0]) + 0.5)
    over = Transformer.from_crs(west.epsg, east.epsg, always_xy=True).transform(
        west.x0 + 10 * cols, west.y0 - 10 * rows
    )
    # The truth of the eastern zone at those very places: pixels of 1 m around them would be as good.
    lon, lat = Transformer.from_crs(east.epsg, 4326, always_xy=True).transform(*over)
    per_lon, per_lat = SPEC.m_per_degree
    x, y = (lon - SPEC.lon) * per_lon, (lat - SPEC.lat) * per_lat
    there = land.ground(x, y, SPEC.seed)
    assert np.mean(here["surface"] != there.surface) < 2e-4
    assert np.abs(here["height"] - land.elevation(x, y, SPEC.seed)).max() < 1e-3


def test_fields_burnt_at_pixel_centres_are_the_truth() -> None:
    spec = WorldSpec(size_px=300)
    raster = s2_tiles(spec)[0].rasters[10]
    to_zone = Transformer.from_crs(4326, raster.epsg, always_xy=True)

    def local(places: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(to_zone.transform(places[:, 0], places[:, 1]), axis=1)

    shapes = [(shapely.transform(polygon, local), number) for number, _, polygon in fields(spec)]
    burnt = rasterize(shapes, raster.shape, transform=Affine(*raster.transform), dtype="int32")
    truth = truth_on(spec, raster.epsg, raster.transform, raster.shape)
    inside = np.isin(truth["field"], [number for _, number in shapes]) | (burnt > 0)
    assert inside.sum() > 10_000
    # A road, lake or river may lie across a field's edge; and GDAL and we may differ on a centre within a centimetre.
    assert np.mean(burnt[inside] != truth["field"][inside]) < 1e-3


def test_fields_do_not_overlap_and_have_a_crop_each() -> None:
    found = list(fields(WorldSpec(size_px=500)))
    assert len({number for number, _, _ in found}) == len(found) > 50
    assert {crop for _, crop, _ in found} <= set(land.CROPS)
    assert all(0 < number < 2**28 for number, _, _ in found)
    polygons = [polygon for _, _, polygon in found]
    assert all(polygon.is_valid and len(polygon.exterior.coords) == 5 for polygon in polygons)
    assert shapely.union_all(polygons).area == pytest.approx(sum(polygon.area for polygon in polygons), rel=1e-9)


@pytest.mark.parametrize("seed", [1, 7, 2024])
def test_a_landscape_has_every_kind_of_cover_in_sane_shares(seed: int) -> None:
    x, y = np.meshgrid(np.arange(-10_000, 10_000, 60.0), np.arange(-10_000, 10_000, 60.0))
    codes, counts = np.unique(land.ground(x, y, seed).cover, return_counts=True)
    share = dict(zip(codes.tolist(), (counts / x.size).tolist(), strict=True))
    assert set(share) == {10, 20, 30, 40, 50, 60, 80, 90}
    assert 0.1 < share[10] < 0.65
    assert 0.1 < share[40] < 0.6
    assert share[80] > 0.003
    assert share[50] > 0.005
    height = land.elevation(x, y, seed)
    assert 100 < height.min() < 200
    assert 250 < height.max() < 700


def test_blocks_are_convex_so_that_every_place_lies_in_one() -> None:
    nodes = land.blocks_of((-30_000, -30_000, 30_000, 30_000), 3).nodes
    ring = [nodes[:-1, :-1], nodes[:-1, 1:], nodes[1:, 1:], nodes[1:, :-1]]
    for k in range(4):
        a, b, c = ring[k], ring[(k + 1) % 4], ring[(k + 2) % 4]
        turn = (b - a)[..., 0] * (c - b)[..., 1] - (b - a)[..., 1] * (c - b)[..., 0]
        assert turn.min() > 0


def test_a_lake_with_an_island_is_a_polygon_with_a_hole() -> None:
    spec = WorldSpec(size_px=1500)
    lakes = [shape for tags, shape in features(spec) if tags.get("water") == "lake"]
    holed = [lake for lake in lakes if isinstance(lake, shapely.Polygon) and lake.interiors]
    assert holed
    for lake in holed:
        per_lon, per_lat = spec.m_per_degree
        for place, wet in ((lake.representative_point(), True), (shapely.Polygon(lake.interiors[0]).centroid, False)):
            x, y = np.array([(place.x - spec.lon) * per_lon]), np.array([(place.y - spec.lat) * per_lat])
            surface = land.ground(x, y, spec.seed).surface[0]
            assert (surface == land.LAKE) is np.bool_(wet) or surface == land.ROAD


@pytest.mark.parametrize(
    ("epsg", "x", "y", "lat", "name"),
    [
        (32633, 722_000, 5_352_000, 48.3, "33UYP"),
        (32634, 277_000, 5_352_000, 48.3, "34UBU"),
        # Middles of tiles of recorded items.
        (32658, 650_000, 5_950_000, 53.9, "58UFE"),
        (32632, 450_000, 5_250_000, 47.4, "32TMT"),
        (32635, 650_000, 5_850_000, 52.7, "35UPU"),
        (32632, 250_000, 7_050_000, 63.4, "32VKR"),
        (32720, 650_000, 3_250_000, -60.4, "20EPT"),
        (32724, 350_000, 9_550_000, -4.1, "24MUA"),
        (32613, 450_000, 4_450_000, 40.2, "13TDE"),
    ],
)
def test_squares_are_named_as_in_the_archive(epsg: int, x: float, y: float, lat: float, name: str) -> None:
    assert mgrs_square(epsg, x, y, lat) == name


def test_zones_follow_from_the_place() -> None:
    assert [utm_epsg(17.99, 48), utm_epsg(18.0, 48), utm_epsg(-70.2, -33), utm_epsg(179.9, 1)] == [
        32633, 32634, 32719, 32660,
    ]  # fmt: skip
