from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize as gdal_rasterize

from labels.rasterize import Polygons, max_edge, pack, project, rasterize
from tiling.shards import Window

UTM33 = pyproj.CRS.from_epsg(32633)
X0, Y0, RES = 500_000.0, 5_376_000.0, 10.0
"""Upper-left corner of the 64-pixel window that the shapes lie around, metres in EPSG:32633."""


def window(row: int = 0, col: int = 0, height: int = 64, width: int = 64, epsg: int = 32633) -> Window:
    minx, maxy = X0 + col * RES, Y0 - row * RES
    return Window(epsg, (minx, maxy - height * RES, minx + width * RES, maxy), RES, (height, width), (), ())


def at(x: float, y: float) -> tuple[float, float]:
    """Place in pixels from the window's corner, y downwards, to metres."""
    return (X0 + x * RES, Y0 - y * RES)


def polygon(*corners: tuple[float, float]) -> shapely.Polygon:
    return shapely.Polygon([at(*c) for c in corners])


def packed(*shapes: Any, crs: pyproj.CRS = UTM33) -> Polygons:
    return pack(np.array(shapes, object), np.arange(1, len(shapes) + 1, dtype=np.uint16), crs)


def ours(*shapes: Any, all_touched: bool = False) -> np.ndarray[Any, Any]:
    return rasterize(packed(*shapes), window(), fill=255, dtype="uint8", all_touched=all_touched)


def gdal(*shapes: Any, all_touched: bool = False) -> np.ndarray[Any, Any]:
    burnt: np.ndarray[Any, Any] = gdal_rasterize(
        [(shape, code) for code, shape in enumerate(shapes, start=1)],
        out_shape=(64, 64), transform=window().geobox.transform, fill=255, dtype="uint8", all_touched=all_touched,
    )  # fmt: skip
    return burnt


DISC = shapely.Point(at(30, 30)).buffer(173.0)
CASES: dict[str, list[Any]] = {
    "touching": [shapely.box(*at(5, 40), *at(20, 10)), shapely.box(*at(20, 40), *at(33.5, 10))],
    "touching on a slant": [polygon((2, 2), (50, 2), (2, 50.3)), polygon((50, 2), (50, 50.3), (2, 50.3))],
    "edges on pixel centres": [shapely.box(*at(5.5, 40.5), *at(20.5, 10.5)), shapely.box(*at(20.5, 40.5), *at(31, 9))],
    "sliver": [polygon((3, 3), (60, 3.2), (60, 3.4)), polygon((10.1, 5), (10.3, 5), (10.2, 60))],
    "smaller than a pixel": [polygon((8.6, 8.6), (8.9, 8.6), (8.9, 8.9)), polygon((9.4, 9.4), (9.6, 9.4), (9.5, 9.7))],
    "hole": [DISC.difference(shapely.Point(at(32, 31)).buffer(77.0)), shapely.Point(at(32, 31)).buffer(41.0)],
    "hole with its edge on pixel centres": [
        shapely.box(*at(2, 50), *at(50, 2)).difference(shapely.box(*at(10.5, 30.5), *at(20.5, 15.5)))
    ],
    "self-crossing, repaired": [shapely.make_valid(polygon((5.1, 5), (50, 47), (50, 5), (5, 45.3)))],
    "notches with edges on pixel centres": [
        polygon((2.5, 2.5), (20, 2.5), (20, 9.5), (30, 9.5), (30, 2.5), (50, 2.5), (50, 40.5), (44, 40.5), (44, 30.5),
                (38, 30.5), (38, 40.5), (2.5, 40.5)),
    ],
    "two parts": [shapely.MultiPolygon([shapely.box(*at(1, 20), *at(9, 2)), shapely.box(*at(30, 60), *at(44, 30.2))])],
    "across the window's edge": [shapely.Point(at(0, 0)).buffer(217), shapely.Point(at(70, 50)).buffer(333)],
    "around the window": [shapely.Point(at(30, 30)).buffer(5000)],
    "beside the window": [shapely.Point(at(300, 30)).buffer(100)],
    "overlapping": [DISC, shapely.box(*at(20, 60), *at(44, 5)), shapely.Point(at(40, 20)).buffer(91)],
}  # fmt: skip


@pytest.mark.parametrize("all_touched", [False, True], ids=["centre", "touched"])
@pytest.mark.parametrize("case", CASES)
def test_pixels_are_those_of_gdal(case: str, all_touched: bool) -> None:
    np.testing.assert_array_equal(
        ours(*CASES[case], all_touched=all_touched), gdal(*CASES[case], all_touched=all_touched)
    )


near = st.floats(-20, 84, allow_nan=False).map(lambda v: round(v, 3))
shapes = st.one_of(
    st.builds(lambda x, y, r: shapely.Point(at(x, y)).buffer(r * RES), near, near, st.floats(0.2, 40)),
    st.builds(lambda c: shapely.make_valid(polygon(*c)), st.lists(st.tuples(near, near), min_size=3, max_size=6)),
    st.builds(
        lambda x, y, w, h: shapely.box(*at(x / 2, y / 2), *at((x + w) / 2, (y - h) / 2)),
        st.integers(-20, 120), st.integers(-20, 120), st.integers(1, 60), st.integers(1, 60),
    ),
).filter(lambda shape: shape.geom_type in ("Polygon", "MultiPolygon") and shape.area > 0)  # fmt: skip


@settings(max_examples=150)
@given(st.lists(shapes, min_size=1, max_size=5), st.booleans())
def test_a_pixel_is_the_same_in_every_window(drawn: list[Any], all_touched: bool) -> None:
    polygons = packed(*drawn)
    whole = rasterize(polygons, window(-16, -16, 96, 96), fill=0, dtype="uint8", all_touched=all_touched)
    for row, col in ((-16, -16), (-16, 16), (16, -16), (16, 16), (-3, 11)):
        part = rasterize(polygons, window(row, col, 48, 40), fill=0, dtype="uint8", all_touched=all_touched)
        np.testing.assert_array_equal(part, whole[row + 16 : row + 64, col + 16 : col + 56])


@settings(max_examples=150)
@given(near, near, st.floats(0.2, 40), st.booleans())
def test_round_shapes_anywhere_are_those_of_gdal(x: float, y: float, radius: float, all_touched: bool) -> None:
    # Off the pixel centres by a number that no vertex hits: where a centre lies on an edge within rounding,
    # GDAL's answer hangs on the window's corner and is nobody's oracle.
    disc = shapely.Point(at(x + 0.000137, y + 0.000173)).buffer(radius * RES)
    rows, cols = np.nonzero(ours(disc, all_touched=all_touched) != gdal(disc, all_touched=all_touched))
    differing = [shapely.box(*at(c, r + 1), *at(c + 1, r)) for r, c in zip(rows.tolist(), cols.tolist(), strict=True)]
    assert all_touched or not differing
    # What shares less than a square centimetre with a pixel need not have touched it.
    assert all(shapely.intersection(disc, pixel).area < 1e-4 for pixel in differing)


corner = st.integers(0, 24).map(float)


@settings(max_examples=100)
@given(st.lists(st.tuples(corner, corner), min_size=3, max_size=4))
def test_touched_is_what_shares_area_with_the_polygon_also_through_pixel_corners(
    corners: list[tuple[float, float]],
) -> None:
    shape = shapely.make_valid(polygon(*corners))
    assume(shape.geom_type == "Polygon")
    pixels = np.array([[shapely.box(*at(c, r + 1), *at(c + 1, r)) for c in range(25)] for r in range(25)])
    shares = shapely.area(shapely.intersection(shape, pixels)) > 1e-6
    np.testing.assert_array_equal(ours(shape, all_touched=True)[:25, :25] == 1, shares)


@settings(max_examples=50)
@given(st.integers(0, 60), st.integers(0, 60), st.floats(1, 29))
def test_neighbours_leave_no_gap_and_do_not_overlap(x: int, y: int, cut: float) -> None:
    left, right, top, bottom = x / 2, x / 2 + 30, y / 2, y / 2 + 30
    above = polygon((left, top), (right, top), (right, top + 11.13), (left, top + cut))
    below = polygon((left, top + cut), (right, top + 11.13), (right, bottom), (left, bottom))
    whole = rasterize(packed(shapely.box(*at(left, bottom), *at(right, top))), window(), fill=0, dtype="uint8")
    parts = [rasterize(packed(part), window(), fill=0, dtype="uint8") for part in (above, below)]
    np.testing.assert_array_equal(parts[0] + parts[1], whole)


def test_the_later_polygon_lies_on_top() -> None:
    big, small = shapely.box(*at(10, 50), *at(50, 10)), shapely.box(*at(20, 40), *at(40, 20))
    assert ours(big, small)[30, 30] == 2
    assert ours(small, big)[30, 30] == 2
    assert (ours(small, big) == 1).sum() == 0


def test_rings_may_turn_either_way() -> None:
    corners = [at(5.5, 5.5), at(40.5, 5.5), at(40.5, 30.5), at(5.5, 30.5)]
    one, other = ours(shapely.Polygon(corners)), ours(shapely.Polygon(corners[::-1]))
    np.testing.assert_array_equal(one, other)


def test_a_polygon_across_a_zone_edge_lands_on_the_same_place_in_both_zones() -> None:
    field = shapely.box(17.99, 48.50, 18.01, 48.51)
    for epsg in (32633, 32634):
        polygons = project(packed(field, crs=pyproj.CRS.from_epsg(4326)), epsg)
        minx, _, _, maxy = np.round(polygons.bounds[0] / RES) * RES
        minx, maxy = minx - 100, maxy + 100
        there = Window(epsg, (minx, maxy - 2000, minx + 2000, maxy), RES, (200, 200), (), ())
        drawn = rasterize(polygons, there, fill=0, dtype="uint8")
        to_degrees = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)
        x, y = np.meshgrid(minx + (np.arange(200) + 0.5) * RES, maxy - (np.arange(200) + 0.5) * RES)
        lon, lat = to_degrees.transform(x, y)
        inside = shapely.contains_xy(field, lon, lat)
        # A pixel whose centre lies nearer to the edge than the bend that we allow may fall on either side.
        sure = np.abs(shapely.distance(field.exterior, shapely.points(lon, lat))) > 1e-6
        np.testing.assert_array_equal(drawn[sure] == 1, inside[sure])
        assert drawn.sum() > 1000


@pytest.mark.parametrize("epsg", [4326, 3035, 2263])
def test_long_edges_follow_the_line_of_the_file_to_a_twentieth_of_a_pixel(epsg: int) -> None:
    crs = pyproj.CRS.from_epsg(epsg)
    to_zone = pyproj.Transformer.from_crs(crs, 32618, always_xy=True)
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(-74.0, 41.0)
    long = 60 * max_edge(crs)
    edge = shapely.box(x, y, x + long, y + long)
    got = project(packed(edge, crs=crs), 32618).xy
    fine = shapely.LinearRing(np.column_stack(to_zone.transform(*shapely.segmentize(edge, long / 60_000).exterior.xy)))
    middles = shapely.points((got[1:] + got[:-1]) / 2)
    assert shapely.distance(fine, middles).max() < 0.5


def test_a_polygon_without_long_edges_keeps_its_vertices() -> None:
    field = shapely.box(*at(0, 10), *at(10, 0))
    assert len(packed(field).xy) == 5


def test_picking_polygons_keeps_their_holes_and_parts() -> None:
    polygons = packed(*CASES["hole"], *CASES["two parts"])
    picked = polygons.subset(np.array([3, 0]))
    assert picked.codes.tolist() == [3, 1]
    np.testing.assert_array_equal(np.diff(picked.polygons), [1, 2])
    np.testing.assert_array_equal(picked.bounds, polygons.bounds[[3, 0]])


def test_no_polygons_leave_the_fill() -> None:
    assert (ours(shapely.box(*at(200, 210), *at(210, 200))) == 255).all()
