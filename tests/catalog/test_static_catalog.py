"""Catalogs that are files."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from catalog.search import StaticCatalog, item_geometry, open_catalog
from curate.errors import CatalogError

Item = dict[str, Any]
S2 = ["sentinel-2-l2a"]
HERE = shapely.box(15.2, 48.2, 15.3, 48.3)


def day(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def test_the_austria_catalog_gives_its_36_scenes_with_absolute_addresses(shared_data: Path) -> None:
    folder = shared_data / "austria"
    region = shapely.geometry.shape(json.loads((folder / "region.geojson").read_text())["features"][0]["geometry"])
    items = open_catalog(folder / "catalog.json").search(S2, region, day("2018-04-01"), day("2018-10-01"))
    assert len(items) == 36
    for item in items:
        assert set(item["assets"]) == {"B04", "B08", "SCL"}
        for asset in item["assets"].values():
            assert Path(asset["href"]).is_absolute()
            assert Path(asset["href"]).is_file()


def test_every_form_of_a_catalog_gives_the_same_items(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    import pyarrow  # noqa: F401  # stac_geoparquet needs it first
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    items = [s2_item(number) for number in range(3)]
    root = write_catalog(tmp_path / "c", items)
    single = root.parent / "sentinel-2-l2a" / "items.json"
    single.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    single.with_suffix(".geojson").write_text(single.read_text())
    single.with_suffix(".ndjson").write_text("\n".join(json.dumps(item) for item in items) + "\n")
    to_parquet(parse_stac_items_to_arrow(items), single.with_suffix(".parquet"))

    forms = [root, root.parent / "sentinel-2-l2a" / "collection.json", single]
    forms += [single.with_suffix(suffix) for suffix in (".geojson", ".ndjson", ".parquet")]
    expected = [
        (item["id"], str(root.parent / "sentinel-2-l2a" / "B04.tif"), item["properties"]["eo:cloud_cover"])
        for item in items
    ]
    for form in forms:
        found = open_catalog(form).search(S2, HERE, None, None)
        got = [(item["id"], item["assets"]["B04"]["href"], item["properties"]["eo:cloud_cover"]) for item in found]
        assert sorted(got) == expected, form


def test_a_page_saved_from_an_api_keeps_the_addresses_of_the_api(tmp_path: Path, s2_item: Callable[..., Item]) -> None:
    item = s2_item(links=[{"rel": "self", "href": "https://example.com/items/one.json"}])
    path = tmp_path / "page.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    (found,) = open_catalog(path).search(S2, HERE, None, None)
    assert found["assets"]["B04"]["href"] == "https://example.com/items/B04.tif"


def test_addresses_of_object_stores_stay_as_they_are(tmp_path: Path, s2_item: Callable[..., Item]) -> None:
    item = s2_item()
    item["assets"]["B04"]["href"] = "s3://bucket/B04.tif"
    item["assets"]["B08"]["href"] = "file:///data/B08.tif"
    path = tmp_path / "one.json"
    path.write_text(json.dumps(item))
    (found,) = open_catalog(path).search(S2, HERE, None, None)
    hrefs = {key: asset["href"] for key, asset in found["assets"].items()}
    assert hrefs == {
        "B04": "s3://bucket/B04.tif",
        "B08": "/data/B08.tif",
        "B05": str(tmp_path / "B05.tif"),
        "SCL": str(tmp_path / "SCL.tif"),
    }


def test_the_end_of_the_time_does_not_count(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    midnight = s2_item(1, properties={"datetime": "2020-06-02T00:00:00Z"})
    catalog = open_catalog(write_catalog(tmp_path / "c", [midnight]))
    assert catalog.search(S2, HERE, day("2020-06-01"), day("2020-06-02")) == []
    assert len(catalog.search(S2, HERE, day("2020-06-02"), day("2020-06-03"))) == 1
    assert len(catalog.search(S2, HERE, None, day("2020-06-03"))) == 1


def test_an_item_of_a_year_is_found_within_it_and_not_in_the_next(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    properties = {
        "datetime": None,
        "start_datetime": "2023-01-01T00:00:00Z",
        "end_datetime": "2024-01-01T00:00:00Z",
    }
    catalog = open_catalog(write_catalog(tmp_path / "c", [s2_item(properties=properties)]))
    assert len(catalog.search(S2, HERE, day("2023-06-01"), day("2023-06-02"))) == 1
    assert len(catalog.search(S2, HERE, day("2022-12-01"), day("2023-01-02"))) == 1
    assert catalog.search(S2, HERE, day("2024-01-01"), day("2025-01-01")) == []
    assert catalog.search(S2, HERE, day("2022-01-01"), day("2023-01-01")) == []


def test_the_footprint_decides_and_not_its_bbox(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    triangle = shapely.Polygon([(15, 48), (16, 49), (15, 49)])
    catalog = open_catalog(write_catalog(tmp_path / "c", [s2_item(geometry=shapely.geometry.mapping(triangle))]))
    assert catalog.search(S2, shapely.box(15.8, 48.1, 15.9, 48.2), None, None) == []
    assert len(catalog.search(S2, shapely.box(15.1, 48.8, 15.2, 48.9), None, None)) == 1


def test_a_collection_without_anything_here_gives_nothing(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    catalog = open_catalog(write_catalog(tmp_path / "c", [s2_item()]))
    assert catalog.search(S2, shapely.box(0, 0, 1, 1), None, None) == []
    assert catalog.search(S2, HERE, day("1999-01-01"), day("2000-01-01")) == []
    assert open_catalog(write_catalog(tmp_path / "d", [])).search(S2, HERE, None, None) == []


def test_a_collection_that_is_not_there_is_an_error(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    catalog = open_catalog(write_catalog(tmp_path / "c", [s2_item()]))
    with pytest.raises(CatalogError, match=r"no collection 'sentinel-2-l1c'. Did you mean 'sentinel-2-l2a'"):
        catalog.search(["sentinel-2-l1c"], HERE, None, None)


def test_query_and_plain_cql2_filter_here(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    catalog = open_catalog(write_catalog(tmp_path / "c", [s2_item(number) for number in range(5)]))
    found = catalog.search(S2, HERE, None, None, query={"eo:cloud_cover": {"lt": 20}})
    assert [item["properties"]["eo:cloud_cover"] for item in found] == [0, 10]
    cql2 = {"op": ">", "args": [{"property": "eo:cloud_cover"}, 20]}
    assert len(catalog.search(S2, HERE, None, None, cql2=cql2)) == 2


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone.json", None, "No such file"),
        ("cut.json", '{"type": "Catalog", "links": [{"re', "not JSON, or is cut short"),
        ("list.json", "[1, 2]", "JSON but not STAC"),
        ("other.json", '{"type": "Topology"}', "of type 'Topology', not STAC"),
        ("none.json", "{}", "of type None, not STAC"),
        ("geo.geojson", '{"type": "FeatureCollection", "features": [{"properties": {}}]}', "not a STAC item"),
        (
            "plain.geojson",
            '{"type": "FeatureCollection", "features": [{"id": 1, "properties": {}, "geometry": null}]}',
            "no 'assets'",
        ),
        ("cut.ndjson", '{"type": "Fea', "line 1 is not JSON"),
        ("cut.parquet", "PAR1", "not a Parquet file"),
        (
            "api.json",
            '{"type": "Collection", "id": "x", "links": [{"rel": "items", "href": "./items"}]}',
            "collection of a STAC API",
        ),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, name: str, content: str | None, sentence: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(CatalogError, match=sentence) as error:
        open_catalog(path).search(S2, HERE, None, None)
    assert name in str(error.value)


def test_a_missing_or_cut_item_file_is_named(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    items = [s2_item(0), s2_item(1)]
    root = write_catalog(tmp_path / "c", items)
    path = root.parent / "sentinel-2-l2a" / f"{items[1]['id']}.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(CatalogError, match=f"{items[1]['id']}.json: is not JSON, or is cut short"):
        open_catalog(root).search(S2, HERE, None, None)
    path.unlink()
    with pytest.raises(CatalogError, match=f"{items[1]['id']}.json: cannot be read as a catalog: No such file"):
        open_catalog(root).search(S2, HERE, None, None)


def test_plain_parquet_is_not_taken_for_a_catalog(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(CatalogError, match="not stac-geoparquet: columns"):
        open_catalog(tmp_path / "t.parquet").search(S2, HERE, None, None)


def test_a_name_that_is_no_catalog_names_the_nearest() -> None:
    with pytest.raises(CatalogError, match=r"neither a file nor a known name. Did you mean 'planetary-computer'\?"):
        open_catalog("planetary-compuer")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    for name, other in (("a.json", "b.json"), ("b.json", "a.json")):
        links = [{"rel": "child", "href": f"./{other}"}]
        (tmp_path / name).write_text(json.dumps({"type": "Catalog", "id": name, "links": links}))
    with pytest.raises(CatalogError, match="It has: none at all"):
        StaticCatalog(tmp_path / "a.json").search(S2, HERE, None, None)


def test_times_without_a_zone_or_the_wrong_way_round_are_refused(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    catalog = open_catalog(write_catalog(tmp_path / "c", [s2_item()]))
    with pytest.raises(CatalogError, match="no time zone"):
        catalog.search(S2, HERE, dt.datetime(2020, 1, 1), None)
    with pytest.raises(CatalogError, match="is not before"):
        catalog.search(S2, HERE, day("2020-01-02"), day("2020-01-01"))


@given(west=st.floats(90.5, 179.5), width=st.floats(0.5, 80), south=st.floats(-80, 70), height=st.floats(0.5, 10))
def test_a_footprint_drawn_the_long_way_round_is_cut_at_the_antimeridian(
    west: float, width: float, south: float, height: float
) -> None:
    east, north = west + width, south + height
    wrapped = [(x - 360 if x > 180 else x, y) for x, y in [(west, south), (east, south), (east, north), (west, north)]]
    footprint = item_geometry({"geometry": shapely.geometry.mapping(shapely.Polygon(wrapped))})
    assert footprint is not None
    minx, _, maxx, _ = shapely.bounds(footprint)
    assert -180 <= minx <= maxx <= 180
    assert shapely.area(footprint) == pytest.approx(width * height)


def test_a_footprint_of_the_whole_world_and_two_parts_stay_as_they_are() -> None:
    world = shapely.box(-180, -90, 180, 90)
    parts = shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])
    for geometry in (world, parts):
        assert shapely.equals(item_geometry({"geometry": shapely.geometry.mapping(geometry)}), geometry)


def test_a_bbox_over_the_antimeridian_stands_in_for_a_missing_geometry() -> None:
    footprint = item_geometry({"geometry": None, "bbox": [179, 0, -179, 1]})
    assert footprint is not None
    assert shapely.intersects(footprint, shapely.Point(-179.5, 0.5))
    assert shapely.intersects(footprint, shapely.Point(179.5, 0.5))
    assert not shapely.intersects(footprint, shapely.Point(0, 0.5))
    assert item_geometry({"geometry": None}) is None


def test_a_time_that_is_none_is_named(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    catalog = open_catalog(write_catalog(tmp_path / "c", [s2_item(properties={"datetime": "last summer"})]))
    with pytest.raises(CatalogError, match="an item has the time 'last summer'"):
        catalog.search(S2, HERE, day("2020-01-01"), None)
