from __future__ import annotations

import itertools
import json
import logging
import math
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from osmium.osm import mutable
from rasterio.features import rasterize as gdal_rasterize

from curate.errors import LabelError
from labels.burn import burn_strokes
from labels.extract import read_extract
from labels.osm import ATTRIBUTION, OsmSource, open_osm
from labels.osm_spec import OsmLabel, Output
from labels.rules import KINDS, read_rules
from labels.source import FeatureSource, LabelSource
from labels.spec import VectorLabel
from labels.vectors import open_vector
from tiling.aoi import Aoi, read_aoi
from tiling.grid import Chip
from tiling.shards import Window

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
MONACO, AUSTRIA = SHARED / "monaco-osm" / "monaco.osm.pbf", SHARED / "austria"
needs_monaco = pytest.mark.skipif(not MONACO.exists(), reason="the real extract of Monaco is not here")
needs_austria = pytest.mark.skipif(not AUSTRIA.exists(), reason="the real fields of Lower Austria are not here")

EPSG, X0, Y0 = 32633, 500_000.0, 5_376_000.0
"""Upper-left corner of the drawings below, as in conftest."""

Windows = Callable[..., Window]
Shape = tuple[dict[str, str], Any]
"""Tags and geometry in metres east and south of the corner."""


def write(path: Path, shapes: Sequence[Shape], epsg: int = EPSG, corner: tuple[float, float] = (X0, Y0)) -> str:
    """Write shapes as nodes, ways and multipolygons; ids count from 1 for each kind."""
    to_degrees = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)
    nodes: list[tuple[float, float]] = []
    ways: list[tuple[list[int], dict[str, str]]] = []
    relations: list[tuple[list[tuple[str, int, str]], dict[str, str]]] = []
    tagged: dict[int, dict[str, str]] = {}

    def way(line: Any, tags: dict[str, str]) -> int:
        refs = []
        coordinates = list(line.coords)
        closed = len(coordinates) > 2 and coordinates[0] == coordinates[-1]
        for x, y in coordinates[:-1] if closed else coordinates:
            nodes.append(to_degrees.transform(corner[0] + x, corner[1] - y))
            refs.append(len(nodes))
        ways.append(([*refs, refs[0]] if closed else refs, tags))
        return len(ways)

    for tags, shape in shapes:
        if shape.geom_type == "Point":
            nodes.append(to_degrees.transform(corner[0] + shape.x, corner[1] - shape.y))
            tagged[len(nodes)] = tags
        elif shape.geom_type == "Polygon" and shape.interiors:
            members = [("w", way(shape.exterior, {}), "outer")]
            members += [("w", way(hole, {}), "inner") for hole in shape.interiors]
            relations.append((members, {"type": "multipolygon", **tags}))
        else:
            way(shape.exterior if shape.geom_type == "Polygon" else shape, tags)
    with osmium.SimpleWriter(str(path), overwrite=True) as writer:
        for number, place in enumerate(nodes, 1):
            writer.add_node(mutable.Node(id=number, version=1, location=place, tags=tagged.get(number, {})))
        for number, (refs, tags) in enumerate(ways, 1):
            writer.add_way(mutable.Way(id=number, version=1, nodes=refs, tags=tags))
        for number, (members, tags) in enumerate(relations, 1):
            writer.add_relation(mutable.Relation(id=number, version=1, members=members, tags=tags))
    return str(path)


def opened(path: str, area: Aoi, **options: Any) -> OsmSource:
    return open_osm("osm", OsmLabel(path, **options), aoi=area, margin_m=3000.0)


def drawn(source: OsmSource, window: Window, name: str = "osm") -> Any:
    return source.render(window)[name]


WOOD, WATER, HOUSE, ROAD, TREE = (
    {"natural": "wood"}, {"natural": "water"}, {"building": "yes"}, {"highway": "primary"}, {"natural": "tree"},
)  # fmt: skip


def _move(transformer: Any) -> Any:
    return transformer.transform


def box(left: float, top: float, right: float, bottom: float) -> Any:
    """In pixels of 10 m; a third of a pixel from all centres, so that the detour over degrees may not decide."""
    return shapely.box(left * 10 + 1, top * 10 + 1, right * 10 + 1, bottom * 10 + 1)


# --- the mask --------------------------------------------------------------------------------------------------------


def test_what_lies_on_top_is_priority_then_the_smaller_area_then_lines(
    tmp_path: Path, make_window: Windows, area: Aoi
) -> None:
    shapes = [
        (HOUSE, box(20, 20, 22, 22)),
        ({"landuse": "residential"}, box(0, 0, 60, 60)),
        ({"landuse": "meadow"}, box(10, 10, 20, 20)),
        (WOOD, box(10, 10, 40, 40)),
        (WATER, shapely.Polygon(box(30, 30, 50, 50).exterior, [box(35, 35, 40, 40).exterior])),
        (ROAD, shapely.LineString([(0, 455), (640, 455)])),
    ]
    source = opened(write(tmp_path / "a.osm.pbf", shapes), area)
    expected = np.full((64, 64), 255, np.uint8)
    expected[:60, :60] = 50
    expected[10:40, 10:40] = 10
    expected[10:20, 10:20] = 30
    hole = np.zeros((64, 64), bool)
    hole[35:40, 35:40] = True
    water = np.zeros((64, 64), bool)
    water[30:50, 30:50] = True
    expected[water & ~hole] = 80
    expected[20:22, 20:22] = 50
    expected[45, :] = 50
    np.testing.assert_array_equal(drawn(source, make_window()), expected)
    (variable,) = source.variables
    assert (variable.name, variable.dtype, variable.fill, variable.kind) == ("osm", "uint8", 255, "classes")
    assert isinstance(source, LabelSource)
    assert isinstance(source, FeatureSource)


def test_background_ignore_and_legend_are_as_asked(tmp_path: Path, make_window: Windows, area: Aoi) -> None:
    path = write(tmp_path / "a.osm.pbf", [(WOOD, box(0, 0, 10, 10))])
    source = opened(path, area, background=0, ignore=200)
    pixels = drawn(source, make_window())
    assert np.unique(pixels).tolist() == [0, 10]
    assert source.legend.name(0) == "background"
    assert source.variables[0].fill == 200
    # A class of the rules may be the background.
    assert np.unique(drawn(opened(path, area, background=30), make_window())).tolist() == [10, 30]
    with pytest.raises(LabelError, match="10 is the ignore value and also the code of a class"):
        opened(path, area, ignore=10)


def test_tunnels_boundaries_and_reserves_are_not_drawn_and_what_is_skipped_is_told(
    tmp_path: Path, make_window: Windows, area: Aoi
) -> None:
    shapes = [
        (WOOD, box(50, 50, 60, 60)),
        ({"boundary": "national_park"}, box(0, 0, 9, 9)),
        ({"leisure": "nature_reserve"}, box(10, 0, 19, 9)),
        ({"place": "island"}, box(20, 0, 29, 9)),
        ({"landuse": "military"}, box(30, 0, 39, 9)),
        ({"building": "no"}, box(40, 0, 49, 9)),
        ({**HOUSE, "location": "underground"}, box(0, 20, 9, 29)),
        ({**ROAD, "tunnel": "yes"}, shapely.LineString([(100, 250), (600, 250)])),
        ({**ROAD, "layer": "-2"}, shapely.LineString([(100, 350), (600, 350)])),
        ({"highway": "proposed"}, shapely.LineString([(100, 450), (600, 450)])),
        ({"route": "ferry"}, shapely.LineString([(100, 150), (600, 150)])),
    ]
    source = opened(write(tmp_path / "a.osm.pbf", shapes), area)
    assert (drawn(source, make_window()) != 255).sum() == 100
    assert sum(source.attrs["skipped"].values()) == 3
    assert source.attrs["features"] == {"points": 0, "lines": 0, "areas": 1}


def test_contradictions_are_settled_and_listed_by_pair(
    tmp_path: Path, make_window: Windows, area: Aoi, caplog: pytest.LogCaptureFixture
) -> None:
    both = {"landuse": "forest", "natural": "wetland"}
    shapes = [(both, box(0, 0, 5, 5)), (both, box(10, 0, 15, 5)), ({**WOOD, "landuse": "meadow"}, box(20, 0, 25, 5))]
    with caplog.at_level(logging.INFO):
        source = opened(write(tmp_path / "a.osm.pbf", shapes), area)
    assert source.attrs["contradictions"] == [
        {"drawn": 90, "also": 10, "features": 2}, {"drawn": 10, "also": 30, "features": 1},
    ]  # fmt: skip
    assert "2 features are 90 and also 10 by their tags" in caplog.text
    assert np.unique(drawn(source, make_window())).tolist() == [10, 90, 255]


def test_attributes_say_where_it_comes_from_and_under_which_terms(tmp_path: Path, area: Aoi) -> None:
    source = opened(
        write(tmp_path / "a.osm.pbf", [(WOOD, box(0, 0, 5, 5))]),
        area,
        rules="osmclcplus",
        extract_date="2024-01-01",
        output=("mask", "presence", "instances", "fraction", "rank"),
    )
    for variable in source.variables:
        attrs = json.loads(json.dumps(dict(variable.attrs)))
        assert "© OpenStreetMap contributors" in attrs["attribution"]
        assert "CC BY 4.0" in attrs["attribution"]
        assert attrs["licence"] == "ODbL-1.0"
        assert (attrs["extract_date"], attrs["extract_date_from"]) == ("2024-01-01", "recipe")
        assert (attrs["source"], attrs["rules"]) == ("a.osm.pbf", "osmclcplus")
    assert [v.name for v in source.variables] == ["osm", "osm_presence", "osm_instances", "osm_fraction", "osm_rank"]


# --- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epsg", "lat"), [(32633, 0.5), (32633, 48.3), (32633, 71.0), (32633, 79.0), (32733, -55.0)])
def test_lines_are_as_wide_as_they_are_in_metres_at_every_latitude(epsg: int, lat: float, tmp_path: Path) -> None:
    _, y = pyproj.Transformer.from_crs(4326, epsg, always_xy=True).transform(15.0, lat)
    corner = (500_000.0, round(y / 10) * 10.0)
    along, across = shapely.LineString([(100, 300), (500, 300)]), shapely.LineString([(300, 50), (300, 250)])
    path = write(tmp_path / "a.osm.pbf", [({**ROAD, "width": "12"}, along), (ROAD, across)], epsg, corner)
    window = Window(epsg, (corner[0], corner[1] - 640, corner[0] + 640, corner[1]), 0.5, (1280, 1280), (), ())
    to_degrees = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)
    aoi = Aoi("a", shapely.box(*to_degrees.transform_bounds(*window.bounds)))
    pixels = drawn(opened(path, aoi), window) == 50
    # In the middle of each: 12 m by its tag, 10 m by its class.
    assert pixels[:, 400].sum() * 0.5 == pytest.approx(12, abs=0.51)
    assert pixels[300, :].sum() * 0.5 == pytest.approx(10, abs=0.51)


COORDINATE = st.floats(-5, 25).map(lambda v: round(v, 6))
XY = st.tuples(COORDINATE, COORDINATE)
LINE = st.lists(XY, min_size=1, max_size=5)
REACHES = st.sampled_from([0.0, 0.3, 0.5, 2.0, 6.5])
LINES = st.lists(st.tuples(LINE, REACHES), min_size=1, max_size=5)


def burnt(lines: Any, shape: tuple[int, int], row0: int, col0: int, all_touched: bool) -> Any:
    out = np.zeros(shape, np.uint8)
    xy = np.array([place for line, _ in lines for place in line], float)
    offsets = np.concatenate([[0], np.cumsum([len(line) for line, _ in lines])]).astype(np.int64)
    codes = np.arange(1, len(lines) + 1, dtype=np.uint8)
    reach = np.array([r for _, r in lines])
    burn_strokes(out, codes, offsets, xy[:, 0].copy(), xy[:, 1].copy(), reach, row0, col0, all_touched)
    return out


@given(LINES, st.booleans())
def test_a_line_covers_what_is_within_its_reach_and_nothing_else(lines: Any, all_touched: bool) -> None:
    pixels = burnt(lines, (20, 20), 0, 0, all_touched)
    rows, cols = np.mgrid[:20, :20]
    cells = shapely.box(cols, rows, cols + 1, rows + 1) if all_touched else shapely.points(cols + 0.5, rows + 0.5)
    expected = np.zeros((20, 20), np.uint8)
    unsure = np.zeros((20, 20), bool)
    for code, (line, reach) in enumerate(lines, 1):
        if reach == 0:
            continue
        shape = shapely.LineString(line) if len(line) > 1 else shapely.Point(line[0])
        distance = shapely.distance(cells, shape)
        expected[distance < reach] = code
        unsure |= np.abs(distance - reach) < 1e-9
    if all(reach > 0 for _, reach in lines):
        np.testing.assert_array_equal(pixels[~unsure], expected[~unsure])


@given(LINE)
def test_a_line_without_width_is_drawn_where_it_passes(line: Any) -> None:
    pixels = burnt([(line, 0.0)], (20, 20), 0, 0, False) > 0
    shape = shapely.LineString(line) if len(line) > 1 else shapely.Point(line[0])
    rows, cols = np.mgrid[:20, :20]
    inside = shapely.length(shapely.intersection(shapely.box(cols, rows, cols + 1, rows + 1), shape))
    assert not (pixels & (shapely.distance(shapely.box(cols, rows, cols + 1, rows + 1), shape) > 1e-6)).any()
    # An edge may run along a border, or only just reach into a pixel; what it crosses is drawn.
    steep = all(abs(a[0] - b[0]) > 0.02 and abs(a[1] - b[1]) > 0.02 for a, b in itertools.pairwise(line))
    if steep:
        assert pixels[inside > 1e-3].all()


@given(LINES, st.booleans(), st.integers(0, 15), st.integers(0, 15), st.integers(1, 12), st.integers(1, 12))
def test_a_line_is_the_same_in_every_window(
    lines: Any, all_touched: bool, row: int, col: int, height: int, width: int
) -> None:
    whole = burnt(lines, (30, 30), 0, 0, all_touched)
    part = burnt(lines, (height, width), row, col, all_touched)
    np.testing.assert_array_equal(part, whole[row : row + height, col : col + width])


def test_narrow_lines_can_be_left_out_and_touched_pixels_joined(
    tmp_path: Path, make_window: Windows, area: Aoi
) -> None:
    shapes = [
        ({"highway": "residential"}, shapely.LineString([(5, 102), (635, 402)])),
        ({"highway": "motorway"}, shapely.LineString([(5, 505), (635, 505)])),
        (WOOD, box(30, 0, 31, 1)),
    ]
    path = write(tmp_path / "a.osm.pbf", shapes)
    n = {
        lines: (drawn(opened(path, area, lines=lines), make_window()) == 50).sum(axis=1)
        for lines in ("width", "wide", "none")
    }
    assert n["none"].sum() == 0
    assert n["wide"][:45].sum() == 0
    assert n["wide"][50] >= 62
    assert n["width"][:45].sum() == pytest.approx(0.6 * math.hypot(63, 30), rel=0.1)
    from scipy.ndimage import label

    touched = drawn(opened(path, area, lines="width", all_touched=True), make_window()) == 50
    assert label(touched[:45])[1] == 1
    assert touched[:45].any(axis=0).all()


# --- windows ---------------------------------------------------------------------------------------------------------


def scatter(seed: int) -> list[Shape]:
    random = np.random.default_rng(seed)
    shapes: list[Shape] = []
    for _ in range(60):
        x, y = random.uniform(-50, 690, 2)
        angle = np.sort(random.uniform(0, 2 * np.pi, 6))
        ring = np.column_stack([x + 60 * np.cos(angle), y + 60 * np.sin(angle)])
        shapes.append(([WOOD, WATER, HOUSE][random.integers(3)], shapely.Polygon(ring)))
        shapes.append((ROAD, shapely.LineString(random.uniform(-50, 690, (3, 2)))))
        shapes.append((TREE, shapely.Point(random.uniform(0, 640, 2))))
    return shapes


OUTPUTS: tuple[Output, ...] = ("mask", "presence", "instances", "fraction", "rank")


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory, area: Aoi) -> dict[bool, OsmSource]:
    path = write(tmp_path_factory.mktemp("osm") / "a.osm.pbf", scatter(3))
    return {t: opened(path, area, output=OUTPUTS, all_touched=t, features=True) for t in (False, True)}


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_a_pixel_is_the_same_in_every_window(
    scattered: dict[bool, OsmSource], make_window: Windows, row: int, col: int, height: int, width: int, touched: bool
) -> None:
    source = scattered[touched]
    whole, part = source.render(make_window(0, 0, 96, 96)), source.render(make_window(row, col, height, width))
    assert whole.keys() == part.keys() == {v.name for v in source.variables}
    for variable in source.variables:
        assert part[variable.name].dtype == variable.dtype
        np.testing.assert_array_equal(
            part[variable.name], whole[variable.name][..., row : row + height, col : col + width]
        )


def test_a_label_goes_to_another_process_and_draws_the_same(
    scattered: dict[bool, OsmSource], make_window: Windows
) -> None:
    source = scattered[False]
    there = pickle.loads(pickle.dumps(source))
    assert len(there.features(chips_of(int(X0 // 320), int(Y0 // 320)))) == 0  # they are written where they were read
    for name, pixels in source.render(make_window()).items():
        np.testing.assert_array_equal(there.render(make_window())[name], pixels)


def test_a_window_beyond_what_was_read_is_refused(scattered: dict[bool, OsmSource], make_window: Windows) -> None:
    with pytest.raises(ValueError, match="larger margin_m"):
        scattered[False].render(make_window(row=5000))


# --- the other outputs -----------------------------------------------------------------------------------------------


def test_mask_instances_and_rank_are_of_one_drawing(scattered: dict[bool, OsmSource], make_window: Windows) -> None:
    source = scattered[False]
    pixels = source.render(make_window())
    number = pixels["osm_instances"].astype(int)
    there = number > 0
    np.testing.assert_array_equal(pixels["osm"][there], source.codes[number[there] - 1])
    assert (pixels["osm"][~there] == 255).all()
    levels = source.variables[4].attrs["levels"]
    assert levels == sorted(set(source.priorities.tolist()))
    np.testing.assert_array_equal(
        np.array([0, *levels])[pixels["osm_rank"]][there], source.priorities[number[there] - 1]
    )
    frame = source.features(chips_of(int(X0 // 320), int(Y0 // 320), n=4))
    assert set(np.unique(number[there])) <= set(frame.number)


def test_presence_has_a_channel_a_class_and_none_hides_another(
    scattered: dict[bool, OsmSource], make_window: Windows
) -> None:
    source = scattered[False]
    pixels = source.render(make_window())
    variable = source.variables[1]
    assert variable.dims == ("channel", "y", "x")
    assert variable.shape(64) == (10, 64, 64)
    names = dict(variable.coords)["channel"]
    codes = variable.attrs["class_codes"]
    for code, name, layer in zip(codes, names, pixels["osm_presence"], strict=True):
        assert source.legend.name(code) == name
        on_top = pixels["osm"] == code
        assert (layer[on_top] == 1).all()
        if name in ("Tree cover", "Built-up", "Permanent water bodies"):
            assert layer.sum() > on_top.sum()
        else:
            assert layer.sum() == 0


def test_olmoearth_has_points_thin_lines_and_holes_at_its_own_resolution(
    tmp_path: Path, make_window: Windows, area: Aoi
) -> None:
    outer, inner = shapely.box(401.2, 401.2, 441.2, 441.2), shapely.box(411.2, 411.2, 421.2, 421.2)
    shapes: list[Shape] = [
        ({"man_made": "chimney"}, shapely.Point(101, 101)),
        ({"man_made": "chimney"}, shapely.box(201, 101, 211, 111)),
        ({"highway": "footway"}, shapely.LineString([(51, 301), (551, 301)])),
        ({"highway": "pedestrian", "area": "yes"}, shapely.box(301.2, 401.2, 341.2, 441.2)),
        ({"building": "yes", "amenity": "fuel"}, shapely.Polygon(outer.exterior, [inner.exterior])),
    ]  # fmt: skip
    path = write(tmp_path / "a.osm.pbf", shapes)
    source = opened(path, area, rules="olmoearth", output="presence", resolution_m=2.5)
    assert source.resolution_m == 2.5
    assert [v.name for v in source.variables] == ["osm"]
    pixels = drawn(source, make_window().at(2.5))
    assert pixels.shape == (30, 256, 256)
    channels = dict(zip(dict(source.variables[0].coords)["channel"], pixels, strict=True))
    assert np.argwhere(channels["chimney"]).tolist() == [[40, 40], [42, 82]]
    # As thin as a line: one row; and the outline of the square, not what it encloses.
    assert channels["highway"][120].sum() == 201
    assert channels["highway"][160:177].sum() == 4 * 16
    for name in ("building", "amenity_fuel"):
        assert channels[name].sum() == 16 * 16 - 4 * 4
    assert {name for name, layer in channels.items() if layer.any()} == {
        "chimney",
        "highway",
        "building",
        "amenity_fuel",
    }


def test_shares_are_the_area_that_is_covered(tmp_path: Path, make_window: Windows, area: Aoi) -> None:
    wood = shapely.Polygon([(33, 41), (402, 97), (311, 507), (88, 333)])
    house = shapely.box(200, 200, 283, 261)
    path = write(tmp_path / "a.osm.pbf", [(WOOD, wood), (HOUSE, house)])
    source = opened(path, area, output="fraction")
    (variable,) = source.variables
    shares = dict(zip(variable.attrs["class_codes"], drawn(source, make_window()), strict=True))
    rows, cols = np.mgrid[:64, :64]
    cells = shapely.box(cols * 10.0, rows * 10.0, cols * 10 + 10.0, rows * 10 + 10.0)
    for code, shape in ((10, wood.difference(house)), (50, house)):
        exact = shapely.area(shapely.intersection(cells, shape))
        # 64 places a pixel: an edge through it misses at most a few of them.
        assert np.abs(shares[code] - exact).max() < 8
        assert abs(shares[code].sum() - exact.sum()) < 0.003 * exact.sum()
    assert max(int(s.max()) for s in shares.values()) == 100
    assert sum(s.astype(int) for s in shares.values()).max() <= 101


def test_a_road_narrower_than_a_pixel_has_its_share(tmp_path: Path, make_window: Windows, area: Aoi) -> None:
    path = write(tmp_path / "a.osm.pbf", [({"highway": "residential"}, shapely.LineString([(-50, 305), (700, 305)]))])
    share = drawn(opened(path, area, output="fraction"), make_window())[4]
    assert np.unique(share[30]).tolist() == [50]  # four of eight rows have their centre within 3 m: 6 m of 10, in steps
    assert share.sum() == 64 * 50


# --- features --------------------------------------------------------------------------------------------------------


def chips_of(col: int, row: int, n: int = 2, size_px: int = 32) -> list[Chip]:
    return [Chip(EPSG, col + i, row - j, size_px, 10.0) for i in range(n) for j in range(n)]


def test_features_are_cut_to_chips_with_their_tags(scattered: dict[bool, OsmSource]) -> None:
    # The four chips of 320 m that are the 640 m of the drawing.
    chips = chips_of(int(X0 // 320), int(Y0 // 320) - 1)
    assert chips[0].bounds[0] == X0 - X0 % 320
    frame = scattered[False].features(chips)
    assert frame.crs == 4326
    assert frame.attrs["attribution"] == ATTRIBUTION
    assert set(frame.osm_type) == {"node", "way"}
    to_metres = pyproj.Transformer.from_crs(4326, EPSG, always_xy=True)
    for chip in chips:
        own = frame[frame.chip == chip.id]
        assert len(own) > 20
        moved = shapely.transform(own.geometry.to_numpy(), _move(to_metres), interleaved=False)
        assert shapely.covers(shapely.box(*chip.bounds).buffer(1e-3), moved).all()
    for row in frame.itertuples():
        tags = json.loads(row.tags)
        dimension = 0 if tags == TREE else 1 if tags == ROAD else 2
        assert shapely.get_dimensions(row.geometry) == dimension
        assert row.id == f"{row.osm_type}/{row.osm_id}"
        if tags == ROAD:
            assert (row.code, row.width_m) == (50, 10.0)
    assert len(scattered[False].features([Chip(EPSG, 100, 100, 32, 10.0)])) == 0


def test_parts_of_a_feature_on_neighbouring_chips_make_the_whole(scattered: dict[bool, OsmSource]) -> None:
    source = scattered[False]
    chips = [Chip(EPSG, int(X0 // 320) + i, int(Y0 // 320) - j, 32, 10.0) for i in range(-1, 4) for j in range(-1, 4)]
    frame = source.features(chips)
    assert source.kept is not None
    for number, parts in frame.groupby("number"):
        whole = source.kept.geometry[number - 1]
        together = shapely.union_all(parts.geometry.to_numpy())
        assert together.symmetric_difference(whole).area <= 1e-5 * max(whole.area, 1e-12)
        assert together.length == pytest.approx(whole.length, rel=1e-3)


def test_tags_are_counted_a_chip_without_names_and_sources(tmp_path: Path, area: Aoi) -> None:
    chip = Chip(EPSG, int(X0 // 640), int(Y0 // 640) - 1, 64, 10.0)
    left, top = chip.bounds[0] - X0, Y0 - chip.bounds[3]
    shapes = [
        ({**WOOD, "name": "A", "leaf_type": "broadleaved"}, shapely.box(left, top, left + 100, top + 100)),
        ({**WOOD, "addr:city": "x"}, shapely.box(left - 100, top + 200, left + 100, top + 300)),
        ({**ROAD, "width": "8"}, shapely.LineString([(left + 300, top + 300), (left + 400, top + 300)])),
    ]  # fmt: skip
    source = opened(write(tmp_path / "a.osm.pbf", shapes), area, features=True)
    counts = source.tag_counts([chip])[chip.id]
    assert [row[:3] for row in counts] == [
        ("natural", "wood", 2), ("leaf_type", "broadleaved", 1), ("highway", "primary", 1),
    ]  # fmt: skip
    assert [row[3] for row in counts] == pytest.approx([20_000, 10_000, 800], rel=1e-3)
    elsewhere = Chip(EPSG, 10, 10, 64, 10.0)
    assert source.tag_counts([elsewhere]) == {elsewhere.id: []}
    with pytest.raises(ValueError, match="opened without its features"):
        opened(str(tmp_path / "a.osm.pbf"), area).tag_counts([chip])


# --- opening ---------------------------------------------------------------------------------------------------------


def test_nothing_here_but_something_around_is_told(tmp_path: Path, area: Aoi) -> None:
    path = write(tmp_path / "a.osm.pbf", [(WOOD, box(150, 0, 160, 10))])
    with pytest.raises(
        LabelError, match=r"nothing of the rules landuse lies in the area .* only around it: 1 features"
    ):
        opened(path, area)
    far = write(tmp_path / "b.osm.pbf", [(WOOD, box(5000, 0, 5010, 10))])
    with pytest.raises(LabelError, match="has 1 features of these rules, but none near the area"):
        opened(far, area)


def test_faults_are_logged_with_an_example(tmp_path: Path, area: Aoi, caplog: pytest.LogCaptureFixture) -> None:
    bow = shapely.Polygon([(10, 10), (200, 200), (200, 10), (10, 200)])
    with caplog.at_level(logging.WARNING):
        source = opened(write(tmp_path / "a.osm.pbf", [(WOOD, bow)]), area)
    assert "1 × ring that crosses itself (repaired), for example way/1" in caplog.text
    assert source.attrs["faults"]["ring that crosses itself"]["count"] == 1


def test_a_feature_as_large_as_a_continent_is_drawn(tmp_path: Path, make_window: Windows, area: Aoi) -> None:
    with osmium.SimpleWriter(str(tmp_path / "a.osm.pbf")) as writer:
        for number, place in enumerate([(-80.0, 10.0), (90.0, 10.0), (90.0, 80.0), (-80.0, 80.0)], 1):
            writer.add_node(mutable.Node(id=number, version=1, location=place))
        writer.add_way(mutable.Way(id=1, version=1, nodes=[1, 2, 3, 4, 1], tags=WOOD))
    assert (drawn(opened(str(tmp_path / "a.osm.pbf"), area), make_window()) == 10).all()


# --- real data, and the simulated world -------------------------------------------------------------------------------


@needs_austria
@pytest.mark.parametrize("touched", [False, True], ids=["centre", "touched"])
def test_austrian_fields_are_the_same_pixels_as_an_extract_and_as_a_vector(touched: bool) -> None:
    aoi = read_aoi(AUSTRIA / "region.geojson")
    window = Window(32633, (528_900.0, 5_370_000.0, 534_900.0, 5_375_600.0), 10.0, (560, 600), (), ())
    osm = open_osm("osm", OsmLabel(str(AUSTRIA / "fields.osm.pbf"), all_touched=touched), aoi=aoi)
    vector = open_vector("v", VectorLabel(str(AUSTRIA / "fields.geojson"), all_touched=touched), aoi=aoi)
    ours, theirs = drawn(osm, window) == 40, vector.codes(window) == 1
    # OpenStreetMap rounds coordinates to 1e-7 degrees.
    assert (ours != theirs).sum() <= 3
    assert ours.sum() > 5000


@needs_austria
def test_austrian_crops_by_rules_of_ones_own_are_the_vectors_classes(tmp_path: Path) -> None:
    rows = ["crop=grain_maize_corn_popcorn,1,maize", "crop=hemp_cannabis,2,hemp", "crop=*,3,other"]
    (tmp_path / "crops.csv").write_text("\n".join(["tags,code,class", *rows]))
    aoi = read_aoi(AUSTRIA / "region.geojson")
    window = Window(32633, (528_900.0, 5_370_000.0, 534_900.0, 5_375_600.0), 10.0, (560, 600), (), ())
    osm = open_osm("osm", OsmLabel(str(AUSTRIA / "fields.osm.pbf"), rules=str(tmp_path / "crops.csv")), aoi=aoi)
    classes: dict[str | int, int | None] = {"grain_maize_corn_popcorn": 1, "hemp_cannabis": 2, "other": 3}
    spec = VectorLabel(str(AUSTRIA / "fields.geojson"), attribute="label", classes=classes)
    vector = open_vector("v", spec, aoi=aoi)
    assert (drawn(osm, window) != vector.codes(window)).sum() <= 3
    assert np.unique(drawn(osm, window)).tolist() == [1, 2, 3, 255]
    assert osm.attrs["contradictions"] == []


MONACO_AREA = Aoi("monaco", shapely.box(7.409, 43.725, 7.44, 43.752))
MONACO_WINDOW = Window(32632, (371_800.0, 4_842_400.0, 374_400.0, 4_845_600.0), 2.0, (1600, 1300), (), ())


@needs_monaco
@pytest.mark.parametrize("rules", ["landuse", "osmclcplus", "schultz", "inta"])
def test_monaco_is_drawn_as_gdal_draws_it(rules: str) -> None:
    """Polygons, and lines as polygons around them, each by GDAL on its own, in an order that is worked out anew."""
    found = read_rules(rules)
    extract = read_extract("x", str(MONACO), keys=found.keys, match=found.match, box=(7.3, 43.6, 7.6, 43.9))
    to_metres = pyproj.Transformer.from_crs(4326, 32632, always_xy=True)
    metres = shapely.transform(extract.geometry, _move(to_metres), interleaved=False)
    rank = {"area": 0, "line": 1, "point": 2}
    kinds = [KINDS[k] for k in extract.kinds]
    area = shapely.area(metres)
    order = sorted(range(len(metres)), key=lambda i: (extract.matches[i].priority, rank[kinds[i]], -area[i]))
    expected = np.full(MONACO_WINDOW.shape, 255, np.uint8)
    unsure = np.zeros(MONACO_WINDOW.shape, bool)
    transform = Affine(2.0, 0, MONACO_WINDOW.bounds[0], 0, -2.0, MONACO_WINDOW.bounds[3])
    shapes, blurred = [], []
    for i in order:
        match, shape = extract.matches[i], metres[i]
        if kinds[i] != "area":
            assert match.width_m is not None
            shape = shapely.buffer(shape, match.width_m / 2, quad_segs=32)
            blurred.append(shapely.buffer(shape.boundary, 0.02))
        shapes.append((shape, match.code))
    expected = gdal_rasterize(shapes, out_shape=MONACO_WINDOW.shape, transform=transform, fill=255, dtype="uint8")
    if blurred:
        # A polygon with 128 corners is not a circle: within 2 cm of its edge the centre of a pixel may lie either way.
        unsure = gdal_rasterize(blurred, out_shape=MONACO_WINDOW.shape, transform=transform).astype(bool)
    pixels = drawn(open_osm("osm", OsmLabel(str(MONACO), rules=rules), aoi=MONACO_AREA, margin_m=3000.0), MONACO_WINDOW)
    wrong = (pixels != expected) & ~unsure
    assert wrong.sum() <= 2
    assert unsure.mean() < 0.01
    assert (pixels != 255).sum() > 50_000


@needs_monaco
def test_chips_of_monaco_have_no_seams() -> None:
    source = open_osm("osm", OsmLabel(str(MONACO), output=OUTPUTS), aoi=MONACO_AREA, margin_m=3000.0)
    whole = source.render(MONACO_WINDOW)
    minx, _, _, maxy = MONACO_WINDOW.bounds
    for row in range(0, 1600, 400):
        for col in range(0, 1300, 325):
            bounds = (minx + col * 2, maxy - (row + 400) * 2, minx + (col + 325) * 2, maxy - row * 2)
            part = source.render(Window(32632, bounds, 2.0, (400, 325), (), ()))
            for name, pixels in part.items():
                np.testing.assert_array_equal(pixels, whole[name][..., row : row + 400, col : col + 325])


def test_the_simulated_world_is_its_own_truth_where_it_is_drawn(tmp_path: Path) -> None:
    from simulate.frame import places
    from simulate.landscape import ROAD_HALF_M, STREET_HALF_M, ground
    from simulate.osm import write_osm
    from simulate.world import Raster, WorldSpec

    spec = WorldSpec(seed=7, size_px=200, dates=1)
    write_osm(tmp_path / "map.osm.pbf", spec)
    roads = {"track": 2 * ROAD_HALF_M[1], "secondary": 2 * ROAD_HALF_M[2], "residential": 2 * STREET_HALF_M}
    rows = ["landuse=farmland,40,crop,area,,20", "landuse=quarry,60,bare,area,,20", "natural=water,80,water,area,,30"]
    rows += ["building=*,50,built,area,,70", *(f"highway={k},50,built,line,{w},90" for k, w in roads.items())]
    (tmp_path / "mine.csv").write_text("\n".join(["tags,code,class,kinds,width_m,priority", *rows]))
    west, south, east, north = spec.lonlat_bounds
    aoi = Aoi("a", shapely.box(west, south, east, north))
    epsg = 32634
    left, bottom, right, top = pyproj.Transformer.from_crs(4326, epsg, always_xy=True).transform_bounds(
        *aoi.geometry.bounds
    )
    x0, y0 = math.ceil(left / 10) * 10 + 200.0, math.floor(top / 10) * 10 - 200.0
    shape = (int((y0 - bottom - 200) // 2), int((right - 200 - x0) // 2))
    window = Window(epsg, (x0, y0 - 2 * shape[0], x0 + 2 * shape[1], y0), 2.0, shape, (), ())
    source = open_osm(
        "osm", OsmLabel(str(tmp_path / "map.osm.pbf"), rules=str(tmp_path / "mine.csv")), aoi=aoi, margin_m=3000.0
    )
    pixels = drawn(source, window)
    truth = ground(*places(spec, Raster(epsg, x0, y0, 2.0, 2.0, shape)), spec.seed).cover
    shares = {
        code: ((pixels == code) & (truth == code)).sum() / ((pixels == code) | (truth == code)).sum()
        for code in (40, 50, 60, 80)
        if (truth == code).any()
    }
    assert {40, 50} <= shares.keys()
    assert min(shares.values()) > 0.98, shares
