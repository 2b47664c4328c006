"""Areas of interest: the same area from every format, and a sentence for everything that is none."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod
from shapely.geometry.base import BaseGeometry

from curate.errors import AoiError
from tiling.aoi import Aoi, read_aoi, read_aoi_document

VIENNA = shapely.Polygon([(16.2, 48.1), (16.6, 48.12), (16.55, 48.35), (16.18, 48.3)])
BOW_TIE = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])


def _write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _geometry(geometry: BaseGeometry) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(shapely.to_geojson(geometry))
    return document


def _feature(geometry: BaseGeometry | None) -> dict[str, Any]:
    return {"type": "Feature", "properties": {}, "geometry": None if geometry is None else _geometry(geometry)}


def _collection(*geometries: BaseGeometry | None, **members: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": [_feature(geometry) for geometry in geometries], **members}


def _frame(*geometries: BaseGeometry, crs: str | None = "EPSG:4326") -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame({"name": ["a"] * len(geometries)}, geometry=list(geometries), crs=crs)


@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "fgb", "shp", "geojson", "json", "wkt", "text"])
def test_every_format_gives_the_same_area_to_the_last_bit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vienna.{suffix}"
    source: str | Path = path
    if suffix == "parquet":
        _frame(VIENNA).to_parquet(path)
    elif suffix in {"json", "geojson"}:
        _write(path, _geometry(VIENNA) if suffix == "json" else _collection(VIENNA))
    elif suffix == "wkt":
        path.write_text(f"{shapely.to_wkt(VIENNA, rounding_precision=-1)}\n", encoding="utf-8")
    elif suffix == "text":
        source = shapely.to_wkt(VIENNA, rounding_precision=-1)
    else:
        _frame(VIENNA).to_file(path)
    aoi = read_aoi(source)
    assert aoi.name == ("wkt" if suffix == "text" else "vienna")
    assert aoi.fingerprint == Aoi("vienna", VIENNA).fingerprint


@pytest.mark.parametrize("text", ["16,48,17,48.5", " 16.0, 48.0 ,17, 4.85e1 ", "[16,48,17,48.5]"])
def test_a_box_is_read_from_text(text: str) -> None:
    aoi = read_aoi(text)
    assert aoi.name == "bbox"
    assert aoi.geometry.equals(shapely.box(16, 48, 17, 48.5))


def test_a_name_can_be_given() -> None:
    assert read_aoi("-3,-2,-1,0", name="gulf").name == "gulf"


def test_several_polygons_are_joined_into_one_area(tmp_path: Path) -> None:
    document = _collection(shapely.box(0, 0, 1, 1), None, shapely.box(0.5, 0, 2, 1), shapely.box(5, 5, 6, 6))
    aoi = read_aoi(_write(tmp_path / "three.geojson", document))
    assert aoi.geometry.equals(shapely.MultiPolygon([shapely.box(0, 0, 2, 1), shapely.box(5, 5, 6, 6)]))


def test_a_collection_and_heights_are_taken_apart() -> None:
    aoi = read_aoi("GEOMETRYCOLLECTION Z (GEOMETRYCOLLECTION Z (POLYGON Z ((0 0 5, 1 0 5, 1 1 5, 0 0 5))))")
    assert not aoi.geometry.has_z
    assert aoi.geometry.area == 0.5


def test_points_beside_polygons_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # A boundary from overpass turbo brings the point of its label along.
    path = _write(tmp_path / "town.geojson", _collection(VIENNA, shapely.Point(16.3, 48.2)))
    with caplog.at_level(logging.WARNING):
        assert read_aoi(path).geometry.equals(VIENNA)
    assert "1 points and lines are left out" in caplog.text


@pytest.mark.parametrize("crs", ["EPSG:31287", "EPSG:32633", "EPSG:3035", "EPSG:4258", "EPSG:2263"])
def test_other_systems_are_brought_to_degrees(tmp_path: Path, crs: str) -> None:
    place = shapely.box(-74.1, 40.6, -73.8, 40.8) if crs == "EPSG:2263" else VIENNA  # New York, in feet
    path = tmp_path / "area.gpkg"
    _frame(shapely.segmentize(place, 0.01)).to_crs(crs).to_file(path)
    area = read_aoi(path).geometry
    assert shapely.area(area.symmetric_difference(place)) < 1e-6 * place.area


def test_straight_edges_of_another_system_stay_on_their_ground(tmp_path: Path) -> None:
    # 200 km along a line of constant northing in a Lambert projection: in degrees it bends by more than a kilometre.
    corners = [(4_000_000, 2_800_000), (4_200_000, 2_800_000), (4_200_000, 2_900_000), (4_000_000, 2_900_000)]
    path = tmp_path / "laea.gpkg"
    _frame(shapely.Polygon(corners), crs="EPSG:3035").to_file(path)
    area = read_aoi(path).geometry
    geod = Geod(ellps="WGS84")
    for along in (10_500.0, 99_000.0, 155_500.0):
        edge = geopandas.GeoSeries([shapely.Point(4_000_000 + along, 2_800_000)], crs="EPSG:3035").to_crs(4326)[0]
        nearest = shapely.shortest_line(edge, area.boundary)
        (lon, lat), (lon_b, lat_b) = shapely.get_coordinates(nearest)
        assert geod.inv(lon, lat, lon_b, lat_b)[2] < 0.5


def test_the_crs_member_of_old_geojson_is_honoured(tmp_path: Path) -> None:
    metres = geopandas.GeoSeries([shapely.segmentize(VIENNA, 0.01)], crs="EPSG:4326").to_crs(32633)[0]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    area = read_aoi(_write(tmp_path / "old.geojson", _collection(metres, crs=crs))).geometry
    assert shapely.area(area.symmetric_difference(VIENNA)) < 1e-5 * VIENNA.area
    lonlat = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    aoi = read_aoi(_write(tmp_path / "lonlat.geojson", _collection(VIENNA, crs=lonlat)))
    assert aoi.fingerprint == Aoi("", VIENNA).fingerprint


def test_wkt_may_name_its_system() -> None:
    area = read_aoi("SRID=32633;POLYGON((600000 5300000, 610000 5300000, 610000 5310000, 600000 5300000))").geometry
    assert shapely.box(16, 47, 17, 48).contains(area)


def test_an_area_split_at_the_antimeridian_is_one_area() -> None:
    aoi = read_aoi(
        "MULTIPOLYGON(((178 -18, 180 -18, 180 -16, 178 -16, 178 -18)),((-180 -18,-179 -18,-179 -16,-180 -18)))"
    )
    assert len(shapely.get_parts(aoi.geometry)) == 2


def test_an_area_as_wide_as_the_world_may_come_in_parts(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "tropics.geojson", _collection(*(shapely.box(x, -20, x + 90, 20) for x in (-180, -90, 0, 90)))
    )
    assert read_aoi(path).geometry.equals(shapely.box(-180, -20, 180, 20))


@given(
    st.lists(
        st.tuples(st.floats(-170, 160), st.floats(-70, 70), st.floats(0.01, 9), st.floats(0.01, 9)),
        min_size=1,
        max_size=6,
    )
)
def test_an_area_survives_being_written_as_geojson(boxes: list[tuple[float, float, float, float]]) -> None:
    drawn = json.dumps(_collection(*(shapely.box(x, y, x + w, y + h) for x, y, w, h in boxes)))
    aoi = read_aoi_document(drawn.encode())
    again = read_aoi_document(json.dumps(_feature(aoi.geometry)).encode(), name="again")
    assert again.name == "again"
    assert again.fingerprint == aoi.fingerprint


def test_the_fingerprint_knows_the_ground_and_not_how_it_was_drawn() -> None:
    parts = [shapely.box(0, 0, 1, 1), shapely.box(3, 3, 4, 4)]
    one, other = Aoi("a", shapely.MultiPolygon(parts)), Aoi("b", shapely.MultiPolygon(parts[::-1]).reverse())
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != Aoi("a", parts[0]).fingerprint


def test_an_area_travels_between_processes() -> None:
    aoi = Aoi("vienna", VIENNA)
    assert pickle.loads(pickle.dumps(aoi)) == aoi


SENTENCES: dict[str, tuple[str, str]] = {
    # what is given: what the sentence must say
    "no/such/file.gpkg": ("no such file", "give a vector file"),
    "": ("none is given", "a vector file, WKT or a box"),
    "POLYGON((0 0, 1": ("not well-formed WKT", "wanted is a POLYGON"),
    "POLYGON EMPTY": ("is empty", "at least one polygon"),
    "POINT(1 2)": ("no polygon but Point", "buffer"),
    "LINESTRING(1 2, 3 4)": ("no polygon but LineString", "outline"),
    "SRID=123456;POLYGON((0 0, 1 0, 1 1, 0 0))": ("'EPSG:123456' is not known", "EPSG:4326"),
    "POLYGON((0 0, 2 2, 2 0, 0 2, 0 0))": ("Self-intersection[1 1]", "make_valid"),
    "POLYGON((600000 5300000, 600100 5300000, 600100 5300100, 600000 5300000))": ("probably metres", "EPSG:4326"),
    "POLYGON((600000 5300000, 700000 5300000, 700000 5310000, 600000 5300000))": ("probably metres", "EPSG:4326"),
    "POLYGON((170 0, -170 0, -170 5, 170 5, 170 0))": ("340° wide", "split it there into a MultiPolygon"),
    "POLYGON((170 0, 190 0, 190 5, 170 5, 170 0))": ("beyond ±180°", "split it there into a MultiPolygon"),
    "POLYGON((0 83, 1 83, 1 85, 0 83))": ("83° to 85°", "80°S to 84°N"),
    "POLYGON((0 -83, 1 -79, 1 -78, 0 -83))": ("-83° to -78°", "80°S to 84°N"),
    "POLYGON((0 0, inf 0, 1 1, 0 0))": ("not a number", "longitude"),
    "170,0,-170,5": ("cross the antimeridian", "split it there into a MultiPolygon"),
    "700000,0,600000,5": ("is not left of its east edge", "minx,miny,maxx,maxy"),
    "1,5,2,3": ("south edge 5 is not below", "minx,miny,maxx,maxy"),
    "1,2,1,3": ("is empty", "edges are both 1"),
    "600000,5300000,610000,5310000": ("probably metres", "EPSG:4326"),
    "-180,-10,180,10": ("360° wide", "parts narrower than 180°"),
    "1,2,3": ("no such file", "bounding box"),
}


@pytest.mark.parametrize("source", SENTENCES)
def test_what_is_no_area_is_refused_with_a_sentence(source: str) -> None:
    with pytest.raises(AoiError) as caught:
        read_aoi(source)
    for part in SENTENCES[source]:
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


DOCUMENTS: dict[str, tuple[Any, str]] = {
    "an empty collection": (_collection(), "is empty"),
    "features without a place": (_collection(None), "is empty"),
    "another kind of JSON": ({"type": "Topology", "objects": {}}, "type is 'Topology'"),
    "a list": ([1, 2], "type is None"),
    "a bow tie": (_collection(BOW_TIE), "Self-intersection[1 1]"),
    "a bow tie among good ones": (_collection(VIENNA, BOW_TIE), "Self-intersection[1 1]"),
    "an open ring": ({"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1]]]}, "feature 1 cannot be read"),
    "a feature that is none": ({"type": "FeatureCollection", "features": [7]}, "feature 1 cannot be read"),
    "an unknown system": (
        _collection(VIENNA, crs={"type": "name", "properties": {"name": "Mars"}}),
        "'Mars' is not known",
    ),
    "a system without a name": (_collection(VIENNA, crs={"type": "link"}), "names no CRS"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_geojson_that_is_no_area_is_refused_with_a_sentence(tmp_path: Path, case: str) -> None:
    document, sentence = DOCUMENTS[case]
    path = _write(tmp_path / "area.geojson", document)
    with pytest.raises(AoiError) as caught:
        read_aoi(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["geojson", "wkt", "gpkg", "parquet", "shp"])
def test_a_file_of_rubbish_is_refused_with_a_sentence(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rubbish.{suffix}"
    path.write_bytes(b"\xff\xfe\x00 rubbish")
    with pytest.raises(AoiError, match=r"cannot be read|not valid JSON"):
        read_aoi(path)


def test_bytes_that_are_no_text_are_refused_with_a_sentence() -> None:
    with pytest.raises(AoiError, match="region: cannot be read as text"):
        read_aoi_document(b"\xff\xfe")


def test_a_file_without_a_system_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.shp"
    _frame(VIENNA).to_file(path)
    path.with_suffix(".prj").unlink()
    with pytest.raises(AoiError, match="does not say in which CRS"):
        read_aoi(path)


def test_a_table_without_geometries_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.parquet"
    geopandas.pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(AoiError, match="cannot be read as a vector file"):
        read_aoi(path)
    csv = tmp_path / "plain.csv"
    csv.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(AoiError, match="no layer with geometries"):
        read_aoi(csv)


def test_a_file_with_two_layers_is_refused_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "two.gpkg"
    _frame(VIENNA).to_file(path, layer="town")
    _frame(VIENNA).to_file(path, layer="country", mode="a")
    with pytest.raises(AoiError, match=r"2 layers \(town, country\)"):
        read_aoi(path)


def test_an_area_in_metres_across_the_antimeridian_is_told_to_be_split(tmp_path: Path) -> None:
    path = tmp_path / "fiji.gpkg"
    _frame(shapely.box(780_000, 8_000_000, 900_000, 8_100_000), crs="EPSG:32760").to_file(path)
    with pytest.raises(AoiError, match="split it there into a MultiPolygon"):
        read_aoi(path)


def test_edges_closer_than_their_bend_are_mended(tmp_path: Path) -> None:
    needle = shapely.Polygon([(4_000_000, 2_800_000), (4_200_000, 2_800_000), (4_100_777, 2_800_000.001)])
    body = shapely.box(4_000_000, 2_700_000, 4_100_000, 2_750_000)
    path = tmp_path / "needle.gpkg"
    _frame(needle, body, crs="EPSG:3035").to_file(path)
    assert read_aoi(path).geometry.is_valid


@pytest.mark.parametrize("geometry", [shapely.Point(0, 0), shapely.Polygon(), BOW_TIE, shapely.box(0, 0, 200, 10)])
def test_an_area_cannot_be_made_of_anything_else(geometry: BaseGeometry) -> None:
    with pytest.raises(AoiError, match="thing: "):
        Aoi("thing", geometry)


def test_the_region_in_austria_is_read(shared_data: Path) -> None:
    path = shared_data / "austria" / "region.geojson"
    if not path.is_file():
        pytest.skip("the Austrian region is not here: no ../shared/data/austria/region.geojson")
    aoi = read_aoi(path)
    assert aoi.name == "region"
    assert shapely.box(15, 48, 16, 49).contains(aoi.geometry)
