from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import osmium
import pandas as pd
import pyogrio
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from osmium.osm import mutable

from curate.errors import LabelError
from labels.extract import TYPES, Extract, read_extract
from labels.multipolygon import FAULTS, Member, assemble, join
from labels.rules import KINDS, is_area, read_rules

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
MONACO = SHARED / "monaco-osm" / "monaco.osm.pbf"
needs_monaco = pytest.mark.skipif(not MONACO.exists(), reason="the real extract of Monaco is not here")

BOX = (9.9, 49.9, 10.1, 50.1)
STEP = 0.0001
"""Degrees of one unit in the drawings below."""

Point = tuple[float, float]
Way = tuple[int, list[int], dict[str, str]]
Relation = tuple[int, list[tuple[str, int, str]], dict[str, str]]
WOOD = {"natural": "wood"}


def write_osm(
    path: Path,
    nodes: dict[int, Point],
    ways: Sequence[Way] = (),
    relations: Sequence[Relation] = (),
    **header: str,
) -> str:
    """Write objects, places in steps from 10°E 50°N; ids that are named and not there are missing, as at a border."""
    made = osmium.io.Header()
    for key, value in header.items():
        made.set(key, value)
    with osmium.SimpleWriter(str(path), header=made, overwrite=True) as writer:
        for number, (x, y) in nodes.items():
            tags = {"natural": "tree"} if number >= 900 else {}
            writer.add_node(mutable.Node(id=number, version=1, location=(10 + x * STEP, 50 + y * STEP), tags=tags))
        for number, refs, tags in ways:
            writer.add_way(mutable.Way(id=number, version=1, nodes=refs, tags=tags))
        for number, members, tags in relations:
            writer.add_relation(mutable.Relation(id=number, version=1, members=members, tags=tags))
    return str(path)


def read(path: str, rules: str = "landuse", box: Any = BOX, **options: Any) -> Extract:
    found = read_rules(rules)
    return read_extract("label x", path, keys=found.keys, match=found.match, box=box, **options)


def area(extract: Extract) -> float:
    """In square steps."""
    return round(float(shapely.area(extract.geometry).sum()) / STEP**2, 3)


def square(first: int, x: float, y: float, side: float) -> dict[int, Point]:
    return {first: (x, y), first + 1: (x + side, y), first + 2: (x + side, y + side), first + 3: (x, y + side)}


def ring(first: int) -> list[int]:
    return [first, first + 1, first + 2, first + 3, first]


def ways(*numbers: int, role: str = "outer") -> list[tuple[str, int, str]]:
    return [("w", number, role) for number in numbers]


MULTI = {"type": "multipolygon", **WOOD}
A, B = square(1, 0, 0, 10), square(11, 2, 2, 3)
"""A square of 100 and one of 9 within it."""
C = square(21, 5, 2, 3)
"""Beside B, sharing an edge."""
FAR = square(31, 40, 40, 10)
"""Something whole, so that there is always a feature."""
WHOLE: Way = (9, ring(31), WOOD)

# kind of fault -> nodes, ways, relations, and the area that is left of what is broken
BROKEN: dict[str, tuple[dict[int, Point], list[Way], list[Relation], float]] = {
    "way without nodes": ({}, [(1, [], WOOD)], [], 0),
    "way with a single node": (A, [(1, [1], WOOD)], [], 0),
    "nodes missing": ({k: A[k] for k in (1, 2, 3)}, [(1, ring(1), WOOD)], [], 0),
    "repeated nodes": (A, [(1, [1, 2, 2, 3, 3, 3, 4, 1], WOOD)], [], 100),
    "line without length": ({1: (0, 0), 2: (0, 0)}, [(1, [1, 2], {"highway": "primary"})], [], 0),
    "area not closed": (A, [(1, [1, 2, 3, 4], WOOD)], [], 0),
    "closed by place and not by node": ({**A, 5: (0, 0)}, [(1, [1, 2, 3, 4, 5], WOOD)], [], 100),
    "ring of too few nodes": (A, [(1, [1, 2, 1], WOOD)], [], 0),
    "ring without area": ({1: (0, 0), 2: (5, 0), 3: (10, 0)}, [(1, [1, 2, 3, 1], WOOD)], [], 0),
    # A bow tie: two triangles of 25.
    "ring that crosses itself": (A, [(1, [1, 3, 2, 4, 1], WOOD)], [], 50),
    # Two squares that meet in a corner, as one ring.
    "ring that touches itself": (
        {**A, **square(41, 10, 10, 5)}, [(1, [1, 2, 3, 42, 43, 44, 3, 4, 1], WOOD)], [], 125,
    ),
    "spike": ({**A, 5: (20, 10)}, [(1, [1, 2, 3, 5, 3, 4, 1], WOOD)], [], 100),
    "across the antimeridian": (
        {1: (1699000, 0), 2: (-1899000, 0), 3: (-1899000, 10), 4: (1699000, 10)}, [(1, ring(1), WOOD)], [], 0,
    ),
    "relation without ways": (A, [], [(1, [("n", 1, "")], MULTI)], 0),
    "member that is no way": (A, [(1, ring(1), {})], [(1, [*ways(1), ("n", 1, "label")], MULTI)], 100),
    "member missing": (A, [(1, ring(1), {})], [(1, ways(1, 2), MULTI)], 100),
    "member twice": (A, [(1, ring(1), {})], [(1, ways(1, 1), MULTI)], 100),
    "member of an unknown role": (A, [(1, ring(1), {})], [(1, ways(1, role="edge"), MULTI)], 100),
    "ring not closed": (A, [(1, [1, 2, 3], {}), (2, [3, 4], {})], [(1, ways(1, 2), MULTI)], 0),
    "ring of ways of both roles": (
        A, [(1, [1, 2, 3], {}), (2, [3, 4, 1], {})], [(1, [*ways(1), *ways(2, role="inner")], MULTI)], 100,
    ),
    "inner ring outside of the outer": (
        {**A, **square(11, 20, 0, 3)}, [(1, ring(1), {}), (2, ring(11), {})],
        [(1, [*ways(1), *ways(2, role="inner")], MULTI)], 100,
    ),
    "inner ring within an inner": (
        {**A, **B, **square(41, 3, 3, 1)}, [(1, ring(1), {}), (2, ring(11), {}), (3, ring(41), {})],
        [(1, [*ways(1), *ways(2, 3, role="inner")], MULTI)], 91,
    ),
    "inner ring crosses the outer": (
        {**A, **square(11, 9, 0, 3)}, [(1, ring(1), {}), (2, ring(11), {})],
        [(1, [*ways(1), *ways(2, role="inner")], MULTI)], 97,
    ),
    "inner rings touch": (
        {**A, **B, **C}, [(1, ring(1), {}), (2, ring(11), {}), (3, ring(21), {})],
        [(1, [*ways(1), *ways(2, 3, role="inner")], MULTI)], 82,
    ),
    "inner rings overlap": (
        {**A, **B, **square(21, 4, 2, 3)}, [(1, ring(1), {}), (2, ring(11), {}), (3, ring(21), {})],
        [(1, [*ways(1), *ways(2, 3, role="inner")], MULTI)], 85,
    ),
    "outer ring within an outer": (
        {**A, **B}, [(1, ring(1), {}), (2, ring(11), {})], [(1, ways(1, 2), MULTI)], 100,
    ),
    "outer rings overlap": (
        {**A, **square(11, 5, 5, 10)}, [(1, ring(1), {}), (2, ring(11), {})], [(1, ways(1, 2), MULTI)], 175,
    ),
    "outer way repeats its relation": (
        {**A, **B}, [(1, ring(1), WOOD), (2, ring(11), {})], [(1, [*ways(1), *ways(2, role="inner")], MULTI)], 91,
    ),
    "tags on the outer way": (
        {**A, **B}, [(1, ring(1), WOOD), (2, ring(11), {})],
        [(1, [*ways(1), *ways(2, role="inner")], {"type": "multipolygon"})], 91,
    ),
    "tags of outer ways differ": (
        {**A, **square(11, 20, 0, 3)}, [(1, ring(1), WOOD), (2, ring(11), {"natural": "water"})],
        [(1, ways(1, 2), {"type": "multipolygon"})], 109,
    ),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".osm", ".osm.pbf"])
@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_broken_geometry_is_repaired_or_left_out_and_told_by_kind(kind: str, suffix: str, tmp_path: Path) -> None:
    nodes, broken, relations, left = BROKEN[kind]
    path = write_osm(tmp_path / f"a{suffix}", {**nodes, **FAR}, [*broken, WHOLE], relations)
    everywhere = (-180.0, 40.0, 180.0, 60.0)
    extract = read(path, box=everywhere if "meridian" in kind else BOX)
    assert shapely.is_valid(extract.geometry).all()
    assert area(extract) == pytest.approx(left + 100)
    told = extract.report.attrs["faults"]
    assert kind in told
    # Nothing else is said of it, but that a way whose tags a relation takes over is not drawn as well.
    assert set(told) - {kind} <= ({"outer way repeats its relation"} if kind == "tags on the outer way" else set())
    assert told[kind] == {"count": 1, "fate": FAULTS[kind], "examples": told[kind]["examples"]}
    assert told[kind]["examples"][0] in ("way/1", "relation/1")
    json.dumps(extract.report.attrs)


def test_a_place_beyond_the_earth_is_left_out_and_told(tmp_path: Path) -> None:
    text = """<osm version="0.6"><node id="1" version="1" lon="10" lat="50"/>
    <node id="2" version="1" lon="10.001" lat="95"/>
    <node id="3" version="1" lon="10.001" lat="50.001"/><node id="4" version="1" lon="10.002" lat="50.001"/>
    <way id="1" version="1"><nd ref="1"/><nd ref="2"/><nd ref="3"/><nd ref="4"/><tag k="highway" v="primary"/></way>
    <way id="2" version="1"><nd ref="1"/><nd ref="3"/><tag k="highway" v="primary"/></way></osm>"""
    (tmp_path / "a.osm").write_text(text)
    extract = read(str(tmp_path / "a.osm"))
    assert extract.report.attrs["faults"] == {
        "place beyond the earth": {"count": 1, "fate": "partly drawn", "examples": ["way/1"]}
    }
    assert [g.geom_type for g in extract.geometry] == ["LineString", "LineString"]


def test_a_line_with_gaps_keeps_its_pieces_as_one_feature(tmp_path: Path) -> None:
    nodes = {i: (float(i), 0.0) for i in (1, 2, 4, 5, 7)}
    path = write_osm(tmp_path / "a.osm.pbf", nodes, [(1, [1, 2, 3, 4, 5, 6, 7], {"highway": "primary"})])
    extract = read(path)
    assert [g.geom_type for g in extract.geometry] == ["MultiLineString"]
    assert shapely.length(extract.geometry[0]) == pytest.approx(2 * STEP)
    assert extract.report.attrs["faults"]["nodes missing"]["count"] == 1


def test_rings_of_many_ways_and_islands_in_lakes_in_islands_are_put_together(tmp_path: Path) -> None:
    nodes = {**A, **square(11, 1, 1, 8), **square(21, 2, 2, 6), **square(41, 30, 0, 2)}
    parts: list[Way] = [
        (1, [1, 2, 3], {}), (2, [1, 4, 3], {}), (3, ring(11), {}), (4, [21, 22], {}), (5, [23, 22], {}),
        (6, [23, 24, 21], {}), (7, ring(41), {}),
    ]  # fmt: skip
    members = [*ways(1, 2), *ways(3, role="inner"), *ways(4, 5, 6, 7)]
    extract = read(write_osm(tmp_path / "a.osm.pbf", nodes, parts, [(1, members, MULTI)]))
    assert area(extract) == 100 - 64 + 36 + 4
    assert extract.report.attrs["faults"] == {}
    assert shapely.get_num_geometries(extract.geometry[0]) == 3
    no_roles = [(kind, number, "") for kind, number, _ in members]
    again = read(write_osm(tmp_path / "b.osm.pbf", nodes, parts, [(1, no_roles, MULTI)]))
    assert shapely.equals(again.geometry[0], extract.geometry[0])


@given(
    st.lists(st.integers(3, 7), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
    st.floats(0.1, 1),
)
def test_rings_are_found_however_they_are_cut_turned_and_shuffled(
    sizes: list[int], random: Any, density: float
) -> None:
    paths, whole = [], 0.0
    for k, n in enumerate(sizes):
        places = [(10.0 * k + np.cos(t), float(np.sin(t))) for t in np.linspace(0, 2 * np.pi, n, endpoint=False)]
        closed = [*places, places[0]]
        whole += shapely.Polygon(closed).area
        cuts = [0, *[i for i in range(1, n) if random.random() < density], n]
        pieces = [closed[a : b + 1] for a, b in itertools.pairwise(cuts)]
        paths += [p if random.random() < 0.5 else p[::-1] for p in pieces]
    random.shuffle(paths)
    rings, left = join(paths)
    assert not left
    assert len(rings) == len(sizes)
    shape, faults = assemble([Member(i, "outer", p) for i, p in enumerate(paths)])
    assert not faults
    assert shape.area == pytest.approx(whole)


PLACES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=6)


@given(st.lists(st.tuples(st.sampled_from(["outer", "inner", "", "x"]), PLACES), max_size=6))
def test_no_members_whatever_stop_the_assembly(members: list[tuple[str, list[tuple[int, int]]]]) -> None:
    given_ = [Member(i, role, [(float(x), float(y)) for x, y in xy]) for i, (role, xy) in enumerate(members)]
    shape, faults = assemble(given_)
    assert faults <= set(FAULTS)
    if shape is None:
        assert faults
    else:
        assert shape.is_valid
        assert 0 < shape.area <= 16
        assert shape.geom_type in ("Polygon", "MultiPolygon")


def test_an_object_of_merged_extracts_that_is_there_twice_is_one_feature(tmp_path: Path) -> None:
    path = write_osm(tmp_path / "a.osm.pbf", {**A, **FAR}, [(1, ring(1), WOOD), (1, ring(1), WOOD), WHOLE])
    extract = read(path)
    assert extract.ids.tolist() == [1, 9]
    assert extract.report.attrs["faults"]["object twice"]["examples"] == ["way/1"]


def test_faults_far_away_are_not_told(tmp_path: Path) -> None:
    away = {k + 100: (x + 5000, y) for k, (x, y) in A.items()}
    path = write_osm(tmp_path / "a.osm.pbf", {**away, **FAR}, [(1, [101, 103, 102, 104, 101], WOOD), WHOLE])
    extract = read(path)
    assert extract.ids.tolist() == [9]
    assert not extract.report.attrs["faults"]


def test_points_lines_and_areas_come_in_order_with_their_tags(tmp_path: Path) -> None:
    nodes = {**A, **B, 900: (5.0, 5.0)}
    path = write_osm(
        tmp_path / "a.osm.pbf", nodes,
        [(1, ring(11), {"building": "yes"}), (2, [1, 3], {"highway": "primary", "name": "Ring"}), (3, ring(1), {})],
        [(5, ways(3), MULTI)],
    )  # fmt: skip
    extract = read(path, tags=True)
    assert [TYPES[t] for t in extract.types] == ["node", "way", "way", "relation"]
    assert extract.ids.tolist() == [900, 1, 2, 5]
    assert [KINDS[k] for k in extract.kinds] == ["point", "area", "line", "area"]
    assert extract.tags is not None
    assert json.loads(extract.tags[2]) == {"highway": "primary", "name": "Ring"}
    assert len(read(path, points=False)) == 3


# --- dates -----------------------------------------------------------------------------------------------------------


def test_the_date_is_of_the_header_else_of_the_newest_object_else_of_the_file(tmp_path: Path) -> None:
    stamped = write_osm(
        tmp_path / "a.osm.pbf", A, [(1, ring(1), WOOD)], osmosis_replication_timestamp="2024-02-03T04:05:06Z"
    )
    extract = read(stamped)
    assert (extract.date, extract.date_from) == ("2024-02-03T04:05:06Z", "header")

    with osmium.SimpleWriter(str(tmp_path / "b.osm.pbf"), overwrite=True) as writer:
        for number, (x, y) in A.items():
            writer.add_node(mutable.Node(id=number, version=1, location=(10 + x * STEP, 50 + y * STEP)))
        for number, stamp in ((1, "2020-01-01T00:00:00Z"), (2, "2021-06-01T12:00:00Z")):
            writer.add_way(mutable.Way(id=number, version=1, nodes=ring(1), tags=WOOD, timestamp=stamp))
    extract = read(str(tmp_path / "b.osm.pbf"))
    assert (extract.date, extract.date_from) == ("2021-06-01T12:00:00Z", "newest object")

    bare = write_osm(tmp_path / "c.osm.pbf", A, [(1, ring(1), WOOD)])
    extract = read(bare)
    assert (extract.date, extract.date_from) == ("unknown", "nothing in the file")


# --- tables ----------------------------------------------------------------------------------------------------------


def table() -> tuple[gpd.GeoDataFrame, list[dict[str, str]]]:
    tags: list[dict[str, str]] = [
        {"natural": "wood", "name": 'Big "old" one'}, {"highway": "primary", "lanes": "2"}, {"natural": "tree"},
        {"shop": "x"},
    ]  # fmt: skip
    shapes = [shapely.box(10, 50, 10.001, 50.001), shapely.LineString([(10, 50), (10.001, 50.001)]),
              shapely.Point(10.0005, 50.0005), shapely.Point(10, 50)]  # fmt: skip
    return gpd.GeoDataFrame({"feature_id": ["way/7", "way/8", "node/9", "node/10"]}, geometry=shapes, crs=4326), tags


def as_parquet(frame: gpd.GeoDataFrame, tags: list[dict[str, str]], how: str, path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if how == "columns":
        for key in sorted({key for row in tags for key in row}):
            frame[key] = [row.get(key) for row in tags]
        frame.to_parquet(path)
        return str(path)
    if how == "json":
        frame["tags"] = [json.dumps(row) for row in tags]
    elif how == "hstore":
        frame["other_tags"] = [
            ",".join('"{}"=>"{}"'.format(k, v.replace('"', '\\"')) for k, v in row.items()) for row in tags
        ]
    elif how == "struct":
        frame["tags"] = tags
    frame.to_parquet(path)
    if how == "map":
        plain = pq.read_table(path)
        column = pa.array([list(row.items()) for row in tags], pa.map_(pa.string(), pa.string()))
        pq.write_table(plain.append_column("tags", column).replace_schema_metadata(plain.schema.metadata), path)
    return str(path)


@pytest.mark.parametrize("how", ["columns", "json", "hstore", "struct", "map"])
def test_a_table_with_tags_in_any_form_gives_the_same_features(how: str, tmp_path: Path) -> None:
    path = as_parquet(*table(), how, tmp_path / "a.parquet")
    extract = read(path, tags=True)
    assert [f"{TYPES[t]}/{i}" for t, i in zip(extract.types, extract.ids, strict=True)] == ["node/9", "way/7", "way/8"]
    assert [m.code for m in extract.matches] == [10, 10, 50]
    assert extract.matches[2].width_m == 6.5
    assert extract.tags is not None
    assert json.loads(extract.tags[1]) == {"natural": "wood", "name": 'Big "old" one'}
    assert extract.date_from == "nothing in the file"


def test_a_table_in_another_crs_with_broken_rows_is_read(tmp_path: Path) -> None:
    frame, tags = table()
    bow = shapely.Polygon([(10, 50), (10.001, 50.001), (10.001, 50), (10, 50.001)])
    frame = pd.concat([frame, gpd.GeoDataFrame({"feature_id": ["way/20", "way/21"]}, geometry=[bow, None], crs=4326)])
    as_parquet(frame.to_crs(3857), [*tags, WOOD, WOOD], "columns", tmp_path / "a.parquet")
    extract = read(str(tmp_path / "a.parquet"))
    assert extract.ids.tolist() == [9, 7, 8, 20]
    assert set(extract.report.faults) == {"ring that crosses itself", "without geometry"}
    assert shapely.is_valid(extract.geometry).all()


def test_a_table_without_tags_or_crs_is_refused(tmp_path: Path) -> None:
    frame, _ = table()
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(LabelError, match="has no column tags and none of the keys of the rules"):
        read(str(tmp_path / "a.parquet"))
    frame.set_crs(None, allow_override=True).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(LabelError, match="has no CRS"):
        read(str(tmp_path / "b.parquet"))


# --- what cannot be read ---------------------------------------------------------------------------------------------


def refused(path: Path | str, said: str, **options: Any) -> None:
    with pytest.raises(LabelError, match=said) as caught:
        read(str(path), **options)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    cause = caught.value.__cause__
    assert cause is None or pickle.loads(pickle.dumps(cause)).args == cause.args


def test_extracts_that_give_nothing_are_refused_with_the_reason(tmp_path: Path) -> None:
    refused(tmp_path / "none.osm.pbf", "does not exist")
    (tmp_path / "bad.osm.pbf").write_bytes(b"this is no protobuf")
    refused(tmp_path / "bad.osm.pbf", "cannot be read as OpenStreetMap data")
    (tmp_path / "bad.parquet").write_bytes(b"nor parquet")
    refused(tmp_path / "bad.parquet", "cannot be read")
    refused(write_osm(tmp_path / "empty.osm.pbf", {}), "is empty: it holds no object at all")
    refused(write_osm(tmp_path / "node.osm.pbf", {1: (0, 0)}), "has one of the keys that the rules ask")
    refused(
        write_osm(tmp_path / "plain.osm.pbf", A, [(1, ring(1), {"shop": "x"})]),
        "has one of the keys that the rules ask",
    )
    refused(
        write_osm(tmp_path / "sea.osm.pbf", A, [(1, ring(1), {"natural": "bay"})]),
        "none of the 1 objects .* becomes a feature",
    )
    wood = write_osm(tmp_path / "wood.osm.pbf", A, [(1, ring(1), WOOD)])
    refused(
        wood,
        r"has 1 features of these rules, but none near the area .* they cover 10\.000,50\.000",
        box=(20, 20, 21, 21),
    )
    only_broken = write_osm(tmp_path / "broken.osm.pbf", A, [(1, [1], WOOD)])
    refused(only_broken, r"becomes a feature by the rules \(1 are not drawn: way with a single node\)")


def test_a_history_is_refused(tmp_path: Path) -> None:
    header = osmium.io.Header()
    header.has_multiple_object_versions = True
    with osmium.SimpleWriter(str(tmp_path / "a.osh.pbf"), header=header) as writer:
        writer.add_node(mutable.Node(id=1, version=1, location=(10, 50), tags={"natural": "tree"}))
        writer.add_node(mutable.Node(id=1, version=2, location=(10, 50), tags={"natural": "tree"}))
    refused(tmp_path / "a.osh.pbf", "is a history of OpenStreetMap")


# --- the real extract of Monaco, by other readers ----------------------------------------------------------------

EVERYWHERE = (-180.0, -90.0, 180.0, 90.0)


@needs_monaco
def test_monaco_has_the_objects_that_osmium_itself_finds() -> None:
    """Areas by libosmium's own assembler: the same ids, and areas equal to rounding where nothing is missing."""
    rules = read_rules("landuse")
    extract = read(str(MONACO), box=EVERYWHERE)
    ours = {
        ("r" if TYPES[t] == "relation" else "w", int(i)): g
        for t, i, k, g in zip(extract.types, extract.ids, extract.kinds, extract.geometry, strict=True)
        if KINDS[k] == "area"
    }
    theirs: dict[tuple[str, int], Any] = {}
    wkb = osmium.geom.WKBFactory()
    areas: Any = osmium.FileProcessor(str(MONACO)).with_areas()
    for o in areas:
        if o.is_area():
            tags = {t.k: t.v for t in o.tags}
            found = rules.match(tags, "area")
            closed_as_area = not o.from_way() or is_area(tags)
            if found is not None and not found.skipped and closed_as_area:
                theirs["w" if o.from_way() else "r", o.orig_id()] = shapely.from_wkb(wkb.create_multipolygon(o))
    assert len(theirs) > 1500
    # What libosmium drops without a word, because a part is missing at the border, is drawn as far as it is known.
    only_ours = {f"{'relation' if kind == 'r' else 'way'}/{i}" for kind, i in ours.keys() - theirs.keys()}
    assert only_ours <= set(extract.report.faults.get("member missing", []))
    repeated = {
        ("w", int(name.split("/")[1])) for name in extract.report.faults.get("outer way repeats its relation", [])
    }
    assert theirs.keys() - ours.keys() <= repeated
    for key in ours.keys() & theirs.keys():
        assert ours[key].symmetric_difference(theirs[key]).area <= 1e-9 * theirs[key].area, key


@needs_monaco
def test_monaco_has_the_buildings_and_roads_that_gdal_finds() -> None:
    polygons = pyogrio.read_dataframe(MONACO, layer="multipolygons", columns=["osm_id", "osm_way_id", "building"])
    built = polygons[polygons.building.notna() & ~polygons.building.isin(["no", "construction"])]
    extract = read(str(MONACO), box=EVERYWHERE, tags=True)
    assert extract.tags is not None
    tags = [json.loads(text) for text in extract.tags]
    ours = [
        i
        for i, row in enumerate(tags)
        if "building" in row and row["building"] != "construction" and KINDS[extract.kinds[i]] == "area"
    ]
    ours_total = shapely.area(extract.geometry[ours]).sum()
    skipped = extract.report.skipped
    # Underground ones are in GDAL's list and not in ours.
    assert 0 <= len(built) - len(ours) <= sum(skipped.values())
    assert ours_total == pytest.approx(shapely.area(built.geometry.to_numpy()).sum(), rel=0.05)
    by_id = dict(zip(built.osm_way_id.fillna("r" + built.osm_id.fillna("")), built.geometry, strict=True))
    only_ours = set()
    for i in ours:
        of_relation = TYPES[extract.types[i]] == "relation"
        theirs = by_id.get(f"{'r' if of_relation else ''}{extract.ids[i]}")
        if theirs is None:
            only_ours.add(f"{TYPES[extract.types[i]]}/{extract.ids[i]}")
        else:
            assert extract.geometry[i].symmetric_difference(theirs).area <= 1e-9 * theirs.area
    # Buildings across the extract's border: GDAL drops them, here they are drawn as far as they are known.
    assert only_ours <= set(extract.report.faults["member missing"])

    lines = pyogrio.read_dataframe(MONACO, layer="lines", columns=["osm_id", "highway", "other_tags"])
    primary = lines[(lines.highway == "primary") & ~lines.other_tags.fillna("").str.contains('"tunnel"|"layer"=>"-')]
    drawn = {int(i) for i, t in zip(extract.ids, tags, strict=True) if t.get("highway") == "primary"}
    assert drawn == set(primary.osm_id.astype(int))


@needs_monaco
def test_a_table_that_gdal_makes_of_monaco_gives_the_same_areas(tmp_path: Path) -> None:
    """The road over a GeoPackage with GDAL's columns and hstore, as many people have it."""
    for layer in ("points", "lines", "multipolygons"):
        frame = pyogrio.read_dataframe(MONACO, layer=layer)
        frame.to_file(tmp_path / "m.gpkg", layer=layer)
    straight, detour = read(str(MONACO), box=EVERYWHERE), read(str(tmp_path / "m.gpkg"), box=EVERYWHERE)
    areas = [
        dict(zip(zip(e.types.tolist(), e.ids.tolist(), strict=True), shapely.area(e.geometry), strict=True))
        for e in (straight, detour)
    ]
    both = areas[0].keys() & areas[1].keys()
    assert len(both) > 0.97 * len(areas[0])
    assert np.allclose([areas[0][k] for k in both], [areas[1][k] for k in both], rtol=1e-6)
