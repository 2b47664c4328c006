"""The lock: scenes come back from it alone, the same rows give the same bytes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.lock import LockedItem, SceneShift, compare_locks, lock_bytes, read_lock, scenes_from_lock, with_shifts
from catalog.scene import Asset, Radiometry, Scene
from catalog.scenes import to_scene
from catalog.search import open_catalog
from curate.errors import StoreError

Item = dict[str, Any]
WORDS = st.text("abcXYZ019_-:. ä", min_size=1, max_size=12)
NUMBERS = st.floats(-1e7, 1e7, allow_nan=False)
TIMES = st.datetimes(dt.datetime(1999, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    # Layers of one file share its key, and with it address and grid.
    grid = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
    files = {key: (draw(grid), draw(st.integers(1, 10980))) for key in ("image", "B04", "odd key")}

    def asset(band: str) -> Asset:
        key = draw(st.sampled_from(sorted(files)))
        transform, width = files[key]
        return Asset(
            band=band,
            key=key,
            href=f"https://example.com/{key}.tif",
            epsg=32633,
            transform=transform,
            shape=(10980, width),
            dtype=draw(st.sampled_from(["uint16", "float32"])),
            nodata=draw(st.none() | NUMBERS),
            layer=draw(st.integers(1, 4)),
        )

    west, south = draw(st.floats(-179, 170)), draw(st.floats(-80, 80))
    return Scene(
        id=draw(WORDS),
        source=draw(st.sampled_from(["s1", "s2", "dem"])),
        collection=draw(WORDS),
        acquired=draw(st.none() | TIMES),
        acquisition=draw(WORDS),
        footprint=shapely.box(west, south, west + 1, south + 1),
        assets=tuple(asset(band) for band in draw(st.lists(WORDS, max_size=4, unique=True))),
        radiometry=Radiometry(draw(st.floats(1e-6, 10)), draw(st.integers(-1000, 0)), draw(WORDS)),
        platform=draw(st.none() | WORDS),
        tile=draw(st.none() | WORDS),
        orbit=draw(st.sampled_from([None, "ascending", "descending"])),
        relative_orbit=draw(st.none() | st.integers(1, 175)),
        baseline=draw(st.none() | WORDS),
        cloud_pct=draw(st.none() | st.floats(0, 100)),
        signing=draw(st.sampled_from([None, "planetary-computer"])),
    )


@st.composite
def locked_items(draw: st.DrawFn) -> LockedItem:
    scene = draw(scenes())
    properties = {
        "datetime": scene.acquired and scene.acquired.isoformat(),
        "platform": draw(st.none() | WORDS),
        "eo:cloud_cover": draw(st.none() | NUMBERS | WORDS),
        "odd": draw(
            st.none() | st.integers(-9, 9) | WORDS | st.lists(st.integers(0, 9)) | st.dictionaries(WORDS, WORDS)
        ),
    }
    assets = {asset.key: {"href": asset.href, "roles": ["data"]} for asset in scene.assets}
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": scene.id,
        "collection": draw(st.none() | WORDS),
        "geometry": json.loads(shapely.to_geojson(scene.footprint)),
        "properties": properties,
        "links": [{"rel": "self", "href": "https://example.com"}, {"rel": "next", "href": "x", "body": {"a": 1}}],
        "assets": assets,
    }
    dropped = draw(st.booleans())
    return LockedItem(item, scene.source, "dropped" if dropped else "used", draw(WORDS) if dropped else "", scene)


@settings(max_examples=30)
@given(rows=st.lists(locked_items(), max_size=4))
def test_scenes_come_back_from_the_lock_alone(rows: list[LockedItem]) -> None:
    data = lock_bytes(rows)
    read = read_lock(data)
    assert [row.scene for row in read] == [row.scene for row in rows]
    assert [(row.source, row.status, row.reason) for row in read] == [
        (row.source, row.status, row.reason) for row in rows
    ]
    assert [row.item["properties"].get("odd") for row in read] == [row.item["properties"]["odd"] for row in rows]
    assert lock_bytes(rows) == data
    assert lock_bytes(read_lock(lock_bytes(read))) == lock_bytes(read)
    for source in ("s1", "s2", "dem"):
        expected = [row.scene for row in rows if row.source == source and row.status == "used"]
        assert list(scenes_from_lock(read, source)) == expected


@settings(max_examples=30)
@given(rows=st.lists(locked_items(), min_size=1, max_size=4))
def test_shifts_stand_beside_the_lock_and_change_nothing_in_it(rows: list[LockedItem]) -> None:
    lock = lock_bytes(rows)
    scene = rows[0].scene
    assert scene is not None
    shift = SceneShift(4.5, None, 0.5, 3, None, undone=False, reason="nearer than 0.1 px")
    told = with_shifts(lock, {scene.source: {scene.acquisition: shift}})
    assert read_lock(told) == read_lock(lock)
    schemas = [pq.read_schema(io.BytesIO(data)) for data in (lock, told)]
    assert schemas[0].metadata == schemas[1].metadata
    table = pq.read_table(io.BytesIO(told))
    for row, east, why in zip(
        rows, table["curate:shift_east_m"].to_pylist(), table["curate:shift_reason"].to_pylist(), strict=True
    ):
        assert row.scene is not None
        key = (row.scene.source, row.scene.acquisition)
        same = row.status == "used" and key == (scene.source, scene.acquisition)
        assert (east, why) == ((4.5, "nearer than 0.1 px") if same else (None, None))


def austria(shared_data: Path) -> list[LockedItem]:
    catalog = open_catalog(shared_data / "austria" / "catalog.json")
    items = catalog.search(["sentinel-2-l2a"], shapely.box(15, 48, 16, 49), None, None)
    bands = ("red", "nir", "scl")
    return [
        LockedItem(item, "s2", "used", "", to_scene(item, source="s2", collection="sentinel-2-l2a", bands=bands))
        for item in items
    ]


def test_the_lock_is_valid_stac_geoparquet(shared_data: Path, tmp_path: Path) -> None:
    from stac_geoparquet.arrow import stac_table_to_items

    rows = austria(shared_data)
    data = lock_bytes(rows)
    table = pq.read_table(io.BytesIO(data))
    metadata = table.schema.metadata
    assert json.loads(metadata[b"stac-geoparquet"]) == {"version": "1.1.0"}
    geo = json.loads(metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["encoding"] == "WKB"
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]
    for name in ("stac_extensions", "id", "geometry", "bbox", "links", "assets"):
        assert name in table.column_names
    assert str(table.schema.field("datetime").type) == "timestamp[us, tz=UTC]"
    assert [field.name for field in table.schema.field("bbox").type] == ["xmin", "ymin", "xmax", "ymax"]

    items = list(stac_table_to_items(table))
    assert [item["id"] for item in items] == [row.item["id"] for row in rows]
    assert items[0]["assets"]["B04"]["proj:transform"] == [10, 0, 528780, 0, -10, 5375550]
    assert items[0]["properties"]["curate:offset_dn"] == 0


def test_geopandas_opens_the_lock(shared_data: Path, tmp_path: Path) -> None:
    import geopandas

    (tmp_path / "scenes.parquet").write_bytes(lock_bytes(austria(shared_data)))
    frame = geopandas.read_parquet(tmp_path / "scenes.parquet")
    assert frame.crs == "OGC:CRS84"
    assert len(frame) == 36
    assert set(frame["curate:status"]) == {"used"}


def test_a_lock_is_a_catalog_again(shared_data: Path, tmp_path: Path) -> None:
    rows = austria(shared_data)
    (tmp_path / "scenes.parquet").write_bytes(lock_bytes(rows))
    catalog = open_catalog(tmp_path / "scenes.parquet")
    items = catalog.search(["sentinel-2-l2a"], shapely.box(15, 48, 16, 49), None, None)
    bands = ("red", "nir", "scl")
    again = [to_scene(item, source="s2", collection="sentinel-2-l2a", bands=bands) for item in items]
    assert again == [row.scene for row in rows]


def test_an_empty_lock_works() -> None:
    data = lock_bytes([])
    assert read_lock(data) == ()
    assert lock_bytes([]) == data
    assert "geo" in {key.decode() for key in pq.read_schema(io.BytesIO(data)).metadata}


def test_a_dropped_item_without_a_scene_keeps_its_reason(s2_item: Callable[..., Item]) -> None:
    (row,) = read_lock(lock_bytes([LockedItem(s2_item(), "s2", "dropped", "has no asset for nir09")]))
    assert (row.status, row.reason, row.scene) == ("dropped", "has no asset for nir09", None)
    assert row.item["id"] == s2_item()["id"]
    assert scenes_from_lock([row], "s2") == ()


@pytest.mark.parametrize("cut", [0, 4, 1000, -9])
def test_a_damaged_lock_is_refused(s2_item: Callable[..., Item], cut: int) -> None:
    data = lock_bytes([LockedItem(s2_item(), "s2", "dropped", "x")])
    with pytest.raises(StoreError, match="not a Parquet file, or is damaged"):
        read_lock(data[:cut])


def test_another_parquet_file_is_not_taken_for_a_lock() -> None:
    import pyarrow as pa

    sink = io.BytesIO()
    pq.write_table(pa.table({"id": ["a"]}), sink)
    with pytest.raises(StoreError, match="columns assets, curate:source, curate:bands are missing"):
        read_lock(sink.getvalue())


def _row(item: Item, status: str = "used", reason: str = "") -> LockedItem:
    scene = to_scene(item, source="s2", collection="sentinel-2-l2a", bands=["red", "scl"])
    return LockedItem(item, "s2", "used" if status == "used" else "dropped", reason, scene)


def test_a_lock_does_not_differ_from_the_search_it_was_made_of(recorded: Callable[[str], list[Item]]) -> None:
    rows = [_row(item) for item in recorded("sentinel-2-l2a")[:20]]
    assert not compare_locks(read_lock(lock_bytes(rows)), rows)
    assert not compare_locks(rows, rows[::-1])


def test_what_moved_in_the_catalog_is_told(s2_item: Callable[..., Item]) -> None:
    old = [_row(s2_item(number)) for number in range(4)]
    again = s2_item(2, properties={"s2:processing_baseline": "05.00", "updated": "2024-01-01T00:00:00Z"})
    again["assets"]["B04"]["href"] = "./moved.tif"
    new = [_row(s2_item(1), "dropped", "copy of another"), _row(again), old[3], _row(s2_item(9))]
    moved = compare_locks(read_lock(lock_bytes(old)), new)
    assert [row.item["id"][11:19] for row in moved.added] == ["20200610"]
    assert [row.item["id"][11:19] for row in moved.removed] == ["20200601"]
    dropped, changed = moved.changed
    assert dropped.what == ("used, now dropped (copy of another)",)
    assert changed.what == (
        "baseline 02.12, now 05.00",
        "radiometry baseline 02.12 is before 04.00: no offset, now baseline 05.00 of sentinel-2-l2a: raw, offset -1000",
        "href of red",
        "updated never, now 2024-01-01T00:00:00",
    )
    assert [line[:5] for line in moved.lines()] == ["+ s2 ", "- s2 ", "~ s2 ", "~ s2 "]


def test_a_crs_without_a_code_and_an_offset_survive_the_lock(s2_item: Callable[..., Item]) -> None:
    item = s2_item(properties={"proj:epsg": None, "proj:code": "ESRI:54008"})
    scene = to_scene(item, source="x", collection="sentinel-2-l2a", bands=["red"])
    scene = dataclasses.replace(scene, radiometry=Radiometry(2.75e-05, 0, "as stored", -0.2))
    row = read_lock(lock_bytes([LockedItem(item, "x", "used", "", scene)]))[0]
    assert row.scene == scene
    assert scene.assets[0].wkt is not None
