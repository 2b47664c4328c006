"""Grids other than ``utm``, each against its published definition, worked out here in another way."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from curate.errors import AoiError
from tiling.aoi import Aoi
from tiling.grid import Chip, GridSpec, centres, chip_from_id, corners, footprints, lay_chips, to_utm, zone_of
from tiling.mgrs import square_from_name
from tiling.places import Place
from tiling.schemes import major_tom_columns, major_tom_rows
from tiling.shards import lay_shards

VIENNA = Aoi("vienna", shapely.box(16.2, 48.1, 16.35, 48.2))
SYDNEY = Aoi("sydney", shapely.box(151.1, -33.9, 151.25, -33.8))
BORDER = Aoi("border", shapely.box(17.93, 48.25, 18.07, 48.35))
FIJI = Aoi("fiji", shapely.union_all([shapely.box(179.95, -17, 180, -16.9), shapely.box(-180, -17, -179.95, -16.9)]))
SVALBARD = Aoi("svalbard", shapely.box(20.8, 79.0, 21.2, 79.05))
AREAS = (VIENNA, SYDNEY, BORDER, FIJI, SVALBARD)

SPECS = {
    "utm-cells": GridSpec(scheme="utm-cells", size_px=128),
    "mgrs": GridSpec(scheme="mgrs", size_px=120),
    "majortom": GridSpec(scheme="majortom", spacing_km=2, size_px=214),
    "webmercator": GridSpec(scheme="webmercator", zoom=13),
}


def _about(lon: float, lat: float, size_px: int, **options: object) -> Chip:
    spec = GridSpec(scheme="points", places="points.csv", size_px=size_px, min_cover=1e-6, **options)  # type: ignore[arg-type]
    area = shapely.box(max(lon - 1, -180), max(lat - 1, -80), min(lon + 1, 180), min(lat + 1, 84))
    (chip,) = lay_chips(Aoi("around", area), spec, [Place(shapely.Point(lon, lat))])[0]
    return chip


def test_chips_windows_and_shards_of_the_default_scheme_are_those_of_the_first_release() -> None:
    """The digest was made by the code before there were other schemes."""
    places = (
        ((15.2, 48.0, 15.6, 48.2), GridSpec()),
        ((17.9, 48.2, 18.1, 48.4), GridSpec(size_px=64, min_cover=0.3)),
        ((15.0, -0.05, 15.2, 0.05), GridSpec(size_px=120)),
        ((151.0, -33.9, 151.3, -33.7), GridSpec(resolution_m=0.3, size_px=2600)),
    )
    out = [
        (
            shard.ordinal,
            shard.start,
            [(chip.id, chip.bounds, tuple(chip.geobox.transform)[:6]) for chip in shard.chips],
            [(w.epsg, w.bounds, w.shape, w.chips, w.corners) for w in shard.windows(2048**2)],
        )
        for box, spec in places
        for shard in lay_shards(lay_chips(Aoi("box", shapely.box(*box)), spec)[0], 64)
    ]
    digest = hashlib.sha256(repr(out).encode()).hexdigest()
    assert digest == "1e9d4bd369678d7cef5c3da2dfb5a4368c4aa2b5e9431ae19740ab4f94e7e52e"


# --- Major TOM


def _axis(count: int, span: int) -> dict[int, float]:
    """Lines of a full turn or half turn as the paper lays them: cut evenly, turned so that 0 is a line, then sorted.

    In fractions, because in floats a line at the very end of the span may come out at either end.
    """
    step, half = Fraction(span, count), Fraction(span, 2)
    lines = sorted((index * step - half) % span - half for index in range(count))
    zero = lines.index(Fraction(0))
    return {index - zero: float(line) for index, line in enumerate(lines)}


@pytest.mark.parametrize("spacing_km", [1000, 500, 123.4, 10])
def test_rows_and_columns_of_major_tom_are_even_cuts_of_circles_with_zero_among_them(spacing_km: float) -> None:
    rows = _axis(math.ceil(math.pi * 6378.137 / spacing_km), 180)
    assert len(rows) == major_tom_rows(spacing_km)
    for row in list(rows)[:: max(1, len(rows) // 40)]:
        lat = rows[row]
        assert lat == pytest.approx(row * 180 / major_tom_rows(spacing_km), abs=1e-9)
        around_km = 2 * math.pi * 6378.137 * math.cos(math.radians(lat))
        columns = _axis(max(1, math.ceil(around_km / spacing_km)), 360)
        assert len(columns) == major_tom_columns(lat, spacing_km)
        spec = GridSpec(scheme="majortom", spacing_km=spacing_km, resolution_m=100, size_m=math.ceil(spacing_km) * 1000)
        for col in (min(columns), 0, max(columns)):
            name = f"{abs(row)}{'U' if row >= 0 else 'D'}_{abs(col)}{'R' if col >= 0 else 'L'}"
            if not -80 <= lat <= 84:
                continue
            assert chip_from_id(name, spec).id == name
            lon = columns[col]
            assert chip_from_id(name, spec).epsg == zone_of(lon, lat)
        beyond = f"{abs(row)}{'U' if row >= 0 else 'D'}_{max(columns) + 1}R"
        with pytest.raises(ValueError, match="is not a chip id of scheme majortom"):
            chip_from_id(beyond, spec)


def test_a_cell_of_major_tom_core_begins_340_m_before_its_corner_on_a_whole_pixel() -> None:
    """Row 451 of 2004 is 451·180/2004 = 40.508982°N; there 2π·6378.137·cos(lat)/10 km, rounded up, is 3047 columns, and
    column -946 is -946·360/3047 = -111.768953°: the cell of Snowbird, Utah, which the authors take as an example."""
    assert major_tom_rows(10) == 2004
    assert major_tom_columns(40.508982035928145, 10) == 3047
    chip = chip_from_id("451U_946L", GridSpec(scheme="majortom", size_px=1068))
    x, y = Transformer.from_crs(4326, 32612, always_xy=True).transform(-946 * 360 / 3047, 451 * 180 / 2004)
    assert chip.epsg == 32612
    assert (chip.bounds[0] - (x - 340), chip.bounds[1] - (y - 340)) == pytest.approx((0, 0), abs=5)
    assert chip.bounds[0] % 10 == chip.bounds[1] % 10 == 0
    assert chip.bounds[2] - chip.bounds[0] == chip.bounds[3] - chip.bounds[1] == 10_680


def test_the_zone_of_a_cell_is_that_of_its_corner_or_if_asked_of_its_centre() -> None:
    half_km = 5 / 111.120
    for row in range(480, 520):
        lat = row * 180 / 2004
        step = 360 / major_tom_columns(lat, 10)
        col = math.ceil(18 / step) - 1  # the last that begins west of 18°E
        if col * step + half_km / math.cos(math.radians(lat + half_km)) < 18:
            continue
        name = f"{row}U_{col}R"
        assert chip_from_id(name, GridSpec(scheme="majortom", size_px=1068)).epsg == 32633
        assert chip_from_id(name, GridSpec(scheme="majortom", size_px=1068, zone_from="centre")).epsg == 32634
        return
    pytest.fail("no cell lies so")


def test_chips_of_major_tom_cover_the_area_without_gaps() -> None:
    for aoi in (VIENNA, SYDNEY, BORDER):
        chips, _ = lay_chips(aoi, GridSpec(scheme="majortom", spacing_km=2, size_px=214, min_cover=1e-9))
        assert shapely.union_all(footprints(chips)).buffer(1e-6).contains(aoi.geometry)


# --- MGRS tiles

# Upper-left corners of recorded Sentinel-2 items, as their proj:transform has them.
TILES = {
    "32TNT": (32632, 499980, 5300040),
    "13TDE": (32613, 399960, 4500000),
    "06VVN": (32606, 399960, 6800040),
    "32VKR": (32632, 199980, 7100040),
    "24MUA": (32724, 300000, 9600040),
    "20EPT": (32720, 600000, 3300040),
}


@pytest.mark.parametrize("tile", list(TILES))
def test_the_cut_of_a_tile_begins_at_its_corner_and_keeps_only_whole_chips(tile: str) -> None:
    epsg, left, top = TILES[tile]
    reben, s4a = GridSpec(scheme="mgrs", size_px=120), GridSpec(scheme="mgrs", size_px=366)
    first, last = chip_from_id(f"{tile}_00_00", reben), chip_from_id(f"{tile}_90_90", reben)
    assert (first.epsg, first.bounds) == (epsg, (left, top - 1200, left + 1200, top))
    # 109 800 / 1200 = 91.5: 91 chips a side, and half a chip is left over.
    assert last.bounds == (left + 90 * 1200, top - 91 * 1200, left + 91 * 1200, top - 90 * 1200)
    # 109 800 / 3660 = 30 exactly.
    assert chip_from_id(f"{tile}_29_29", s4a).bounds[1:3] == (top - 109_800, left + 109_800)
    for id, spec in ((f"{tile}_91_00", reben), (f"{tile}_30_00", s4a), (f"{tile}_0_00", reben)):
        with pytest.raises(ValueError, match="is not a chip id of scheme mgrs"):
            chip_from_id(id, spec)


def _tiles(chips: Sequence[Chip]) -> set[str]:
    return {chip.id[:5] for chip in chips}


def test_tiles_are_those_that_sentinel_2_has() -> None:
    """Checked by hand against ESA's list: 33UUP begins zone 33 at 48°N, where 33UTP has no tile, because 32UQU reaches
    over its ground; zone 1 has no zone before it, so its first column is there."""
    spec = GridSpec(scheme="mgrs", size_px=366, min_cover=1e-9)
    west = Aoi("west of zone 33", shapely.box(12.01, 48.4, 12.6, 48.6))
    assert {"32UQU", "33UUP"} <= _tiles(lay_chips(west, spec)[0])
    assert "33UTP" not in _tiles(lay_chips(west, spec)[0])
    named = GridSpec(scheme="mgrs", size_px=366, min_cover=1e-9, tiles=("33UTP",))
    assert _tiles(lay_chips(west, named)[0]) == {"33UTP"}
    # Squares of the same name in the band below are the same square, and names are as ESA gives them.
    assert square_from_name("33TWP") == square_from_name("33UWP")
    assert _tiles(lay_chips(Aoi("at 48°N", shapely.box(15.2, 47.99, 15.3, 48.01)), spec)[0]) >= {"33UWP"}
    assert "01KAA" in _tiles(lay_chips(Aoi("fiji", shapely.box(-179.99, -18.0, -179.9, -17.9)), spec)[0])


@pytest.mark.parametrize("aoi", [VIENNA, SYDNEY, BORDER], ids=lambda aoi: aoi.name)
def test_with_drop_no_centre_lies_in_two_tiles_and_each_is_in_its_own_square_and_zone(aoi: Aoi) -> None:
    kept, _ = lay_chips(aoi, GridSpec(scheme="mgrs", size_px=120, overlap="drop"))
    every, _ = lay_chips(aoi, GridSpec(scheme="mgrs", size_px=120))
    assert {chip.id for chip in kept} <= {chip.id for chip in every}
    lon, lat = centres(kept)
    for chip, x, y in zip(kept, lon, lat, strict=True):
        square = square_from_name(chip.id[:5])
        assert zone_of(x, y) == chip.epsg == square.epsg
        east, north = to_utm(chip.epsg).transform(x, y)
        assert (east // 100_000, north // 100_000) == (square.east, square.north)


# --- UTM cells and web maps


@given(st.floats(-179, 179), st.floats(-79, 83))
@settings(max_examples=40, deadline=None)
def test_cells_of_olmoearth_are_counted_in_pixels_from_the_origin_downwards(lon: float, lat: float) -> None:
    """Its builder takes x/10 and y/-10 of the projection and divides both by 256, rounding down."""
    epsg = int(zone_of(lon, lat))
    x, y = to_utm(epsg).transform(lon, lat)
    col, row = math.floor(x / 10 / 256), math.floor(y / -10 / 256)
    chip = chip_from_id(f"{epsg}_10_{col}_{row}", GridSpec(scheme="utm-cells"))
    assert chip.bounds == (col * 2560, -(row + 1) * 2560, (col + 1) * 2560, -row * 2560)
    assert chip.bounds[0] <= x < chip.bounds[2]
    assert chip.bounds[1] < y <= chip.bounds[3]


@given(st.floats(-179.9, 179.9), st.floats(-85, 85), st.integers(0, 18))
@settings(max_examples=60, deadline=None)
def test_a_web_tile_holds_the_points_that_the_usual_formula_gives_it(lon: float, lat: float, zoom: int) -> None:
    """x and y by the formula of web maps: asinh(tan(lat)) is the northing of the unit sphere."""
    count = 2**zoom
    x = math.floor((lon + 180) / 360 * count)
    y = math.floor((1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2 * count)
    chip = chip_from_id(f"{zoom}_{x}_{y}", GridSpec(scheme="webmercator", zoom=zoom))
    east, north = Transformer.from_crs(4326, 3857, always_xy=True).transform(lon, lat)
    left, low, right, high = chip.bounds
    assert chip.epsg == 3857
    assert left - 1e-3 <= east <= right + 1e-3
    assert low - 1e-3 <= north <= high + 1e-3
    assert right - left == pytest.approx(40_075_016.6855785 / count, abs=1e-6)


@pytest.mark.parametrize("name", ["webmercator", "utm-cells"])
@pytest.mark.parametrize("aoi", AREAS, ids=lambda aoi: aoi.name)
def test_cells_that_tile_the_ground_share_it_out_without_gaps_or_overlaps(name: str, aoi: Aoi) -> None:
    chips, cover = lay_chips(aoi, replace(SPECS[name], min_cover=1e-12))
    for epsg in {chip.epsg for chip in chips}:
        here = [chip for chip in chips if chip.epsg == epsg]
        boxes = [shapely.box(*chip.bounds) for chip in here]
        union = shapely.union_all(boxes)
        assert union.area == pytest.approx(sum(box.area for box in boxes), rel=1e-9), "no overlaps"
    ground = sum(share * _geodesic_m2(shape) for share, shape in zip(cover, footprints(chips), strict=True))
    assert ground == pytest.approx(_geodesic_m2(aoi.geometry), rel=2e-3), "no gaps"


def _geodesic_m2(shape: shapely.Geometry) -> float:
    from pyproj import Geod

    return sum(
        abs(Geod(ellps="WGS84").geometry_area_perimeter(part)[0])
        for part in shapely.get_parts(shapely.segmentize(shape, 0.01))
    )


# --- all of them


@pytest.mark.parametrize("name", list(SPECS))
@pytest.mark.parametrize("aoi", AREAS, ids=lambda aoi: aoi.name)
def test_names_are_unique_and_read_back_as_the_same_chip_and_covers_are_shares(name: str, aoi: Aoi) -> None:
    spec = SPECS[name]
    chips, cover = lay_chips(aoi, spec)
    assert len(chips) > 2
    assert len({chip.id for chip in chips}) == len(chips)
    assert all(chip_from_id(chip.id, spec) == chip for chip in chips[:50])
    assert ((cover >= spec.min_cover - 1e-9) & (cover <= 1)).all()
    shapes = footprints(chips)
    both = np.array([shapely.intersection(shape, aoi.geometry).area / shape.area for shape in shapes])
    if name != "utm-cells":  # there the zone's own ground counts alone
        np.testing.assert_allclose(cover, both, atol=0.02)


@pytest.mark.parametrize("name", list(SPECS))
def test_a_larger_area_has_all_the_chips_of_a_smaller_one(name: str) -> None:
    spec = SPECS[name]
    few = {chip.id for chip in lay_chips(Aoi("few", shapely.box(16.22, 48.12, 16.33, 48.19)), spec)[0]}
    many = {chip.id for chip in lay_chips(VIENNA, spec)[0]}
    assert few
    assert few <= many


# --- points and polygons


@given(st.floats(-179.99, 179.99), st.floats(-79.5, 83.5), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_a_point_is_in_the_middle_pixel_of_an_odd_chip_and_about_the_middle_of_an_even_one(
    lon: float, lat: float, size_px: int
) -> None:
    chip = _about(lon, lat, size_px)
    x, y = to_utm(chip.epsg).transform(lon, lat)
    left, low, right, high = chip.bounds
    assert chip.epsg == zone_of(lon, lat)
    assert left % 10 == low % 10 == 0
    col, row = math.floor((x - left) / 10), math.floor((y - low) / 10)
    middle = ((size_px - 1) // 2,) if size_px % 2 else (size_px // 2 - 1, size_px // 2)
    assert {col, row} <= set(middle)
    assert (right - left, high - low) == (size_px * 10, size_px * 10)
    assert chip_from_id(chip.id, GridSpec(scheme="points", places="points.csv", size_px=size_px)) == chip


def test_snapped_corners_lie_on_pixels_of_60_m_also_in_the_south() -> None:
    for lon, lat in ((16.3, 48.1), (151.2, -33.8)):
        chip = _about(lon, lat, 64, snap_m=60.0)
        equator = 10_000_000 if lat < 0 else 0
        assert chip.bounds[0] % 60 == (chip.bounds[1] - equator) % 60 == 0
        assert chip_from_id(chip.id, GridSpec(scheme="points", places="p", size_px=64, snap_m=60.0)) == chip


def test_a_chip_around_a_point_has_the_same_centre_at_every_scale() -> None:
    chip = _about(16.3, 48.1, 65)
    for side_m, resolution_m in ((1920.0, 60.0), (50.0, 10.0), (650.0, 10.0)):
        other = chip.around(side_m, resolution_m)
        assert other.id == chip.id
        assert (other.size_m, other.size_px) == (side_m, round(side_m / resolution_m))
        assert np.add(other.bounds[:2], other.bounds[2:]) == pytest.approx(np.add(chip.bounds[:2], chip.bounds[2:]))


def test_chips_that_overlap_are_read_in_windows_of_whole_pixels_of_their_source() -> None:
    """Wider chips at 60 m about chips on a lattice of 10 m begin anywhere in a pixel of 60 m."""
    chips = [
        chip.around(1920, 60) for chip in lay_chips(VIENNA, GridSpec(scheme="majortom", spacing_km=1, size_px=108))[0]
    ]
    (shard,) = lay_shards(chips, len(chips))
    windows = shard.windows(10**6, 60.0)
    assert sorted(position for window in windows for position in window.chips) == list(range(len(chips)))
    for window in windows:
        for position, (y, x) in zip(window.chips, window.corners, strict=True):
            part = window.geobox[y : y + 32, x : x + 32]
            assert tuple(part.boundingbox) == pytest.approx(shard.chips[position].bounds, abs=1e-6)


def test_polygons_lie_whole_in_their_chips_or_the_error_says_how_large_these_must_be() -> None:
    fields = [Place(shapely.box(16.25, 48.15, 16.25 + d, 48.15 + d / 2), f"f{i}") for i, d in enumerate((0.001, 0.004))]
    spec = GridSpec(scheme="polygons", places="fields.gpkg", size_px=40, margin_m=30)
    chips, cover = lay_chips(VIENNA, spec, fields)
    assert {chip.id for chip in chips} == {"f0", "f1"}
    assert (cover == 1).all()
    for chip in chips:
        lon, lat = shapely.get_coordinates(fields[int(chip.id[1])].geometry).T
        x, y = to_utm(chip.epsg).transform(lon, lat)
        left, low, right, high = chip.bounds
        assert min(x.min() - left, y.min() - low, right - x.max(), high - y.max()) >= 30
    small = GridSpec(scheme="polygons", places="fields.gpkg", size_px=20, margin_m=30)
    with pytest.raises(
        AoiError, match=r"polygon f1 is \d+ m wide and \d+ m high .* make size_px at least (\d+)"
    ) as error:
        lay_chips(VIENNA, small, fields)
    enough = int(str(error.value).split("at least ")[1].split(",")[0])
    lay_chips(VIENNA, GridSpec(scheme="polygons", places="fields.gpkg", size_px=enough, margin_m=30), fields)
    cut = GridSpec(scheme="polygons", places="fields.gpkg", size_px=20, fit="centre")
    chip = next(chip for chip in lay_chips(VIENNA, cut, fields)[0] if chip.id == "f1")
    assert np.add(chip.bounds[:2], chip.bounds[2:]) / 2 == pytest.approx(
        to_utm(chip.epsg).transform(16.252, 48.151), abs=8
    )


def test_a_chip_that_reaches_over_the_antimeridian_is_covered_by_both_sides_of_the_area() -> None:
    (chip,), cover = lay_chips(
        FIJI, GridSpec(scheme="points", places="p", size_px=200), [Place(shapely.Point(179.9999, -16.95))]
    )
    assert cover == pytest.approx([1.0])
    assert corners([chip])[0, :, 0].max() > 180


def test_options_of_another_scheme_and_what_cannot_be_are_told() -> None:
    wrong = [
        ({"scheme": "webmercator", "zoom": 14, "tiles": ("33UWP",)}, "tiles belongs to scheme mgrs; with webmercator"),
        ({"zoom": 3}, "zoom belongs to scheme webmercator; with utm"),
        ({"scheme": "webmercator"}, "needs a zoom from 0 to 24"),
        ({"scheme": "webmercator", "zoom": 14, "size_m": 2560}, "have their side from zoom"),
        ({"scheme": "webmercator", "zoom": 14, "resolution_m": 20}, "leave resolution_m out"),
        ({"scheme": "mgrs", "tiles": ("33UIP",)}, "is no MGRS tile"),
        ({"scheme": "mgrs", "size_px": 20_000}, "do not fit a tile of 109800 m"),
        ({"scheme": "points"}, "needs a file of points"),
        ({"scheme": "points", "places": "p", "snap_m": 15}, "no whole number of pixels of 10 m"),
        ({"scheme": "points", "places": "p", "margin_m": 5}, "margin_m belongs to scheme polygons"),
        ({"scheme": "polygons", "places": "p", "size_px": 8, "margin_m": 40}, "leaves no room"),
        ({"scheme": "majortom", "size_px": 256}, "leave gaps in a grid of 10 km"),
        ({"scheme": "utm-cells", "size_px": 120}, "a power of two of pixels"),
    ]
    for options, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            GridSpec(**options)  # type: ignore[arg-type]
