"""The grid: one owner for every place, edges that meet, and chips that do not depend on the area they were laid for."""

from __future__ import annotations

import subprocess
import sys
from math import isclose

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from tiling.aoi import Aoi, read_aoi
from tiling.grid import (
    Chip,
    GridSpec,
    centres,
    chip_at,
    chip_from_id,
    corners,
    equator_northing,
    footprints,
    lay_chips,
    to_utm,
    zone_area,
    zone_of,
)

ZONES = (*range(32601, 32661), *range(32701, 32761))
COARSE = GridSpec(resolution_m=20, size_px=512)

points = st.tuples(st.floats(-180, 180), st.floats(-80, 84))
specs = st.builds(
    GridSpec, resolution_m=st.sampled_from([0.5, 3.0, 10.0, 30.0]), size_px=st.sampled_from([64, 100, 256])
)


def _at(x: float, y: float, width: float, height: float) -> Aoi:
    return Aoi("box", shapely.box(x, y, x + width, y + height))


def _ids(aoi: Aoi, spec: GridSpec) -> set[str]:
    return {chip.id for chip in lay_chips(aoi, spec)[0]}


# --- the spec


def test_the_spec_imports_nothing_heavy() -> None:
    code = (
        "import sys, tiling.grid, tiling.split; "
        "print([name for name in ('numpy', 'shapely', 'pyproj', 'geopandas', 'pydantic') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("given_", "side_px", "side_m"),
    [
        ({}, 256, 2560),
        ({"size_px": 64}, 64, 640),
        ({"size_m": 2560}, 256, 2560),
        ({"size_m": 600, "resolution_m": 30}, 20, 600),
        ({"size_px": 260, "resolution_m": 0.3}, 260, 78),
        ({"size_px": 20, "size_m": 200}, 20, 200),
    ],
)
def test_a_chip_is_sized_in_pixels_or_in_metres(given_: dict[str, float], side_px: int, side_m: float) -> None:
    spec = GridSpec(**given_)  # type: ignore[arg-type]  # a dict of numbers stands for all the fields
    assert (spec.side_px, spec.side_m) == (side_px, side_m)
    assert chip_at(16, 48, spec).size_m == side_m


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"size_m": 100, "resolution_m": 30}, "3.33333 px wide at 30 m.*90 m (3 px) or 120 m (4 px) would do"),
        ({"size_m": 5}, "0.5 px wide at 10 m.*: 10 m (1 px) would do"),
        ({"size_m": -5}, "10 m (1 px) would do"),
        ({"size_px": 256, "resolution_m": 0.3}, "76.8 m wide.*75 m (250 px) or 78 m (260 px) would do"),
        ({"size_px": 0}, "whole number of pixels"),
        ({"size_px": 64, "size_m": 2560}, "do not agree"),
        ({"resolution_m": 0}, "above 0 metres"),
        ({"resolution_m": float("nan")}, "above 0 metres"),
        ({"min_cover": 0}, "above 0 and at most 1"),
        ({"min_cover": 1.5}, "above 0 and at most 1"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_sizes_that_do(given_: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        GridSpec(**given_)  # type: ignore[arg-type]  # as above


# --- zones


def test_the_zones_tile_the_earth_without_gap_or_overlap() -> None:
    areas = [zone_area(epsg) for epsg in ZONES]
    whole = shapely.union_all(areas)
    assert whole.equals(shapely.box(-180, -80, 180, 84))
    assert isclose(sum(area.area for area in areas), whole.area)


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [
        (-180, 10, 32601),
        (180, 10, 32601),
        (179.9, -10, 32760),
        (0, 0, 32631),
        (0, -1e-12, 32731),
        (6, 50, 32632),
        (5.32, 60.39, 32632),  # Bergen, 32V
        (2.9, 60, 32631),
        (5, 55.9, 32631),
        (5, 64, 32631),
        (15.6, 78.2, 32633),  # Longyearbyen, 33X
        (8.9, 80, 32631),
        (9, 80, 32633),
        (21, 80, 32635),
        (33, 80, 32637),
        (41.9, 84, 32637),
        (42, 84, 32638),
        (10, 71.9, 32632),
        (10, 72, 32633),
        (-68.3, -54.8, 32719),  # Ushuaia
    ],
)
def test_a_place_is_in_the_zone_that_sentinel_2_puts_it(lon: float, lat: float, epsg: int) -> None:
    assert zone_of(lon, lat) == epsg


@given(points)
def test_the_zone_of_a_point_owns_the_ground_around_it(point: tuple[float, float]) -> None:
    # Within a nanodegree: 180 + x is rounded before it is divided into zones.
    turns = shapely.points([point[0] - 360, point[0], point[0] + 360], point[1])
    assert shapely.distance(zone_area(int(zone_of(*point))), turns).min() < 1e-9


def test_zones_of_many_points_come_in_their_shape() -> None:
    zones = zone_of(np.array([[-179.0, 3.0], [5.0, 10.0]]), 60.0)
    assert zones.tolist() == [[32601, 32632], [32632, 32632]]
    assert zones.dtype == np.int32


@pytest.mark.parametrize(("lon", "lat"), [(0, 84.1), (0, -80.1), (181, 0), (float("nan"), 0), (0, float("nan"))])
def test_a_point_without_zone_is_refused(lon: float, lat: float) -> None:
    with pytest.raises(ValueError, match="80°S to 84°N"):
        zone_of(lon, lat)


# --- chips


@given(points, specs)
@example((0.0, -5e-324), GridSpec())
@example((3.0, 0.0), GridSpec())
def test_a_point_lies_on_exactly_one_chip(point: tuple[float, float], spec: GridSpec) -> None:
    owner = chip_at(*point, spec)
    x, y = to_utm(owner.epsg).transform(*point)
    # Half-open cells: of the owner and its eight neighbours exactly one holds the point.
    around = [
        Chip(owner.epsg, owner.col + dx, owner.row + dy, owner.size_px, owner.resolution_m)
        for dx in (-1, 0, 1)
        for dy in (-1, 0, 1)
    ]
    y = min(y, np.nextafter(1e7, 0)) if point[1] < 0 else max(y, 0.0)
    holders = [chip for chip in around if chip.bounds[0] <= x < chip.bounds[2] and chip.bounds[1] <= y < chip.bounds[3]]
    assert holders == [owner]
    assert owner.epsg == zone_of(*point)


@given(points, specs)
def test_neighbours_share_their_edges_bit_for_bit(point: tuple[float, float], spec: GridSpec) -> None:
    chip = chip_at(*point, spec)
    east = Chip(chip.epsg, chip.col + 1, chip.row, chip.size_px, chip.resolution_m)
    north = Chip(chip.epsg, chip.col, chip.row + 1, chip.size_px, chip.resolution_m)
    assert chip.bounds[2] == east.bounds[0]
    assert chip.bounds[3] == north.bounds[1]
    assert chip.bounds[1::2] == east.bounds[1::2]
    assert chip.bounds[::2] == north.bounds[::2]
    # Whole metres: no sum of them is ever rounded.
    assert all(edge == int(edge) for edge in chip.bounds)


@given(points, specs)
def test_an_id_leads_back_to_its_chip(point: tuple[float, float], spec: GridSpec) -> None:
    chip = chip_at(*point, spec)
    assert chip_from_id(chip.id, spec) == chip


@pytest.mark.parametrize(
    "text", ["", "32633", "32661_1_1", "32600_1_1", "4326_1_1", "32633_1", "32633_1_1 ", "32633_1.5_2"]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a chip id"):
        chip_from_id(text, GridSpec())


def test_rows_count_from_the_equator_in_both_hemispheres() -> None:
    north, south = chip_at(15, 0.001, GridSpec()), chip_at(15, -0.001, GridSpec())
    assert (north.row, south.row) == (0, -1)
    assert north.bounds[1] == equator_northing(north.epsg) == 0
    assert south.bounds[3] == equator_northing(south.epsg) == 10_000_000


def test_the_pixels_of_a_chip_lie_on_its_bounds() -> None:
    chip = chip_at(16, -30, GridSpec(resolution_m=0.3, size_px=260))
    assert chip.geobox.shape == (260, 260)
    assert tuple(chip.geobox.boundingbox) == pytest.approx(chip.bounds, abs=1e-6)


# --- chips over an area

AREAS = {
    "inland": (14.6, 48.0, 0.4, 0.3),
    "two zones": (11.8, 47.5, 0.4, 0.3),
    "equator": (36.8, -0.2, 0.3, 0.4),
    "zones and equator": (29.85, -0.15, 0.3, 0.3),
    "south": (-68.4, -55.0, 0.5, 0.3),
    "Norway": (2.7, 59.9, 0.6, 0.3),
    "Norway's corner": (5.6, 63.8, 0.8, 0.4),
    "Svalbard": (20.3, 78.9, 1.4, 0.2),
    "far north": (8.0, 83.9, 2.0, 0.1),
    "far south": (8.0, -80.0, 1.0, 0.1),
}


def _brute(aoi: Aoi, spec: GridSpec) -> dict[str, float]:
    """Covers by the definition: every candidate cell against the projected area, one by one."""
    covers: dict[str, float] = {}
    for epsg in ZONES:
        part = shapely.segmentize(aoi.geometry.intersection(zone_area(epsg)), 0.001)
        if part.area == 0:
            continue
        xy = np.stack(to_utm(epsg).transform(*shapely.get_coordinates(part).T), axis=1)
        part = shapely.set_coordinates(part, xy)
        minx, miny, maxx, maxy = part.bounds
        y0, side = equator_northing(epsg), spec.side_m
        for col in range(int(minx // side), int(maxx // side) + 1):
            for row in range(int((miny - y0) // side), int((maxy - y0) // side) + 1):
                chip = Chip(epsg, col, row, spec.side_px, spec.resolution_m)
                share = part.intersection(shapely.box(*chip.bounds)).area / side**2
                if share >= spec.min_cover:
                    covers[chip.id] = share
    return covers


@pytest.mark.parametrize("place", AREAS)
def test_the_chips_of_an_area_are_those_it_covers(place: str) -> None:
    aoi = _at(*AREAS[place])
    spec = GridSpec(size_px=256, min_cover=0.01)
    chips, cover = lay_chips(aoi, spec)
    want = _brute(aoi, spec)
    got = dict(zip((chip.id for chip in chips), cover.tolist(), strict=True))
    # Cells that hang on by 1 % may fall to either side of the rule by a tenth of a metre of a curved edge.
    edge = {id for id in want.keys() ^ got.keys() if abs(want.get(id, got.get(id, 0)) - 0.01) < 1e-3}
    assert want.keys() - edge == got.keys() - edge
    for id in want.keys() & got.keys():
        assert got[id] == pytest.approx(want[id], abs=1e-3)
    assert list(chips) == sorted(chips, key=lambda chip: (chip.epsg, chip.row, chip.col))
    assert len(set(chips)) == len(chips)


@pytest.mark.parametrize("place", AREAS)
def test_the_covers_of_all_chips_add_up_to_the_area(place: str) -> None:
    aoi = _at(*AREAS[place])
    chips, cover = lay_chips(aoi, GridSpec(size_px=64, min_cover=1e-9))
    by_zone: dict[int, float] = {}
    for chip, share in zip(chips, cover.tolist(), strict=True):
        by_zone[chip.epsg] = by_zone.get(chip.epsg, 0) + share * chip.size_m**2
    for epsg, area in by_zone.items():
        part = shapely.segmentize(aoi.geometry.intersection(zone_area(epsg)), 0.001)
        xy = np.stack(to_utm(epsg).transform(*shapely.get_coordinates(part).T), axis=1)
        assert area == pytest.approx(shapely.set_coordinates(part, xy).area, rel=1e-4)


@given(
    st.sampled_from(sorted(AREAS)),
    st.tuples(st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0.3, 1), st.floats(0.3, 1)),
    st.floats(0.05, 1.0),
)
@settings(max_examples=40)
def test_a_larger_area_has_all_the_chips_of_a_smaller_one(
    place: str, part: tuple[float, float, float, float], min_cover: float
) -> None:
    x, y, width, height = AREAS[place]
    spec = GridSpec(size_px=128, min_cover=min_cover)
    small = _at(x + part[0] * width, y + part[1] * height, part[2] * width * 0.7, part[3] * height * 0.7)
    # But for chips that have their cover to a hair: on a shared edge the two areas have different points.
    few = {chip.id for chip, cover in zip(*lay_chips(small, spec), strict=True) if cover > min_cover + 1e-5}
    assert few <= _ids(_at(x, y, width, height), spec)


@given(st.floats(0.05, 1.0))
@settings(max_examples=20)
def test_a_chip_needs_the_cover_that_the_spec_asks_for(min_cover: float) -> None:
    spec = GridSpec(size_px=256, min_cover=min_cover)
    _, cover = lay_chips(_at(*AREAS["two zones"]), spec)
    assert (cover >= min_cover - 1e-9).all()
    assert (cover <= 1).all()


def test_chips_that_lie_wholly_inside_have_a_cover_of_one() -> None:
    chips, cover = lay_chips(_at(*AREAS["inland"]), GridSpec(size_px=64, min_cover=1.0))
    assert len(chips) > 1000
    assert set(cover.tolist()) == {1.0}


def test_two_zones_share_an_area_at_their_border() -> None:
    aoi = _at(*AREAS["two zones"])
    chips, _ = lay_chips(aoi, GridSpec(size_px=64))
    assert {chip.epsg for chip in chips} == {32632, 32633}
    # Every place of the area is on a chip, but for a seam along the border and the edge.
    union = shapely.union_all(footprints(chips), grid_size=1e-9)
    # Footprints have straight edges where the true ones bend by a centimetre: seams of that width are no gaps.
    missing = aoi.geometry.buffer(-0.01).difference(union).buffer(-1e-6).buffer(1e-6)
    assert missing.area < 0.01 * aoi.geometry.area
    assert missing.is_empty or (np.abs(shapely.get_coordinates(missing)[:, 0] - 12) < 0.01).all()


def test_holes_and_thin_places_are_honoured() -> None:
    frame = shapely.box(14, 48, 15, 49).difference(shapely.box(14.1, 48.1, 14.9, 48.9))
    chips, cover = lay_chips(Aoi("frame", frame), GridSpec(size_px=64))
    lon, lat = centres(chips)
    inside = shapely.contains_xy(frame.buffer(0.005), lon, lat)
    assert inside.all()
    assert (cover < 1).any()
    line = shapely.LineString([(13, 47), (17, 49)]).buffer(0.0001)
    assert lay_chips(Aoi("line", line), GridSpec())[0] == ()
    assert len(lay_chips(Aoi("line", line), GridSpec(min_cover=1e-6))[0]) > 100


def test_an_area_on_both_sides_of_the_antimeridian_has_chips_on_both() -> None:
    aoi = Aoi(
        "fiji", shapely.MultiPolygon([shapely.box(179.8, -17, 180, -16.8), shapely.box(-180, -17, -179.8, -16.8)])
    )
    chips, _ = lay_chips(aoi, GridSpec(size_px=64))
    assert {chip.epsg for chip in chips} == {32760, 32701}
    lon, _ = centres(chips)
    assert (np.abs(lon) > 179.79).all()


def test_edges_closer_than_their_bend_do_no_harm() -> None:
    # 0.1 mm high and 150 km long: valid in degrees, and its edges cross when each is drawn in metres with points of
    # its own.
    needle = shapely.Polygon([(15.5, 48), (17.5, 48), (16.5013, 48 + 1e-9)])
    body = shapely.box(14, 47.9, 15.5, 48.1)
    chips, _ = lay_chips(Aoi("needle", shapely.MultiPolygon([needle, body])), GridSpec())
    assert len(chips) > 300
    assert lay_chips(Aoi("needle", needle), GridSpec())[0] == ()


def test_an_area_too_small_for_a_chip_has_none() -> None:
    chips, cover = lay_chips(_at(16, 48, 0.001, 0.001), GridSpec())
    assert chips == ()
    assert cover.shape == (0,)


def test_the_region_in_austria_has_its_chips(shared_data: object) -> None:
    from pathlib import Path

    path = Path(str(shared_data)) / "austria" / "region.geojson"
    if not path.is_file():
        pytest.skip("the Austrian region is not here: no ../shared/data/austria/region.geojson")
    chips, cover = lay_chips(read_aoi(path), GridSpec(size_px=64))
    assert len(chips) == 51
    assert {chip.epsg for chip in chips} == {32633}
    assert all(edge % 20 == 0 for chip in chips for edge in chip.bounds)
    assert cover.min() >= 0.5


# --- places of chips


@given(points)
def test_the_centre_of_a_chip_leads_back_to_it(point: tuple[float, float]) -> None:
    chip = chip_at(*point, GridSpec())
    lon, lat = centres([chip])
    x, y = to_utm(chip.epsg).transform(lon[0], lat[0])
    minx, miny, maxx, maxy = chip.bounds
    assert (x, y) == pytest.approx(((minx + maxx) / 2, (miny + maxy) / 2), abs=1e-3)


@given(st.lists(points, min_size=1, max_size=20))
def test_footprints_are_valid_and_hold_their_centres(places: list[tuple[float, float]]) -> None:
    chips = [chip_at(lon, lat, GridSpec()) for lon, lat in places]
    outlines = footprints(chips)
    lon, lat = centres(chips)
    assert shapely.is_valid(outlines).all()
    assert (np.abs(shapely.bounds(outlines)[:, ::2]) <= 180).all()
    # Within a nanodegree: a centre may lie on the cut at the antimeridian.
    assert (shapely.distance(outlines, shapely.points(lon, lat)) < 1e-9).all()


def test_a_footprint_over_the_antimeridian_is_cut_there() -> None:
    x, y = to_utm(32760).transform(180, -17)
    chip = Chip(32760, int(x // 2560), int((y - 1e7) // 2560), 256, 10)
    (outline,) = footprints([chip])
    assert outline.geom_type == "MultiPolygon"
    whole = shapely.Polygon(corners([chip])[0])
    assert outline.area == pytest.approx(whole.area)
    assert all(part.bounds[2] - part.bounds[0] < 0.1 for part in shapely.get_parts(outline))


def test_no_chips_have_no_places() -> None:
    lon, lat = centres([])
    assert lon.shape == lat.shape == (0,)
    assert footprints([]).shape == (0,)


def test_laying_chips_is_the_same_from_a_complex_outline() -> None:
    # 20 000 points on the border must not change what lies inside, nor be cut as a whole for every cell.
    turn = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    radius = 0.3 + 0.02 * np.sin(40 * turn)
    star: BaseGeometry = shapely.Polygon(
        np.stack([15 + radius * np.cos(turn), 48 + 0.7 * radius * np.sin(turn)], axis=1)
    )
    chips, cover = lay_chips(Aoi("star", star), GridSpec(size_px=64))
    lon, lat = centres(chips)
    assert (cover[shapely.contains_xy(star.buffer(-0.01), lon, lat)] == 1).all()
