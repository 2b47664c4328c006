"""The index: valid GeoParquet that common readers take as it is."""

from __future__ import annotations

import datetime as dt
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from chips.index import ChipRecord, LabelRecord, ShiftRecord, SourceRecord, index_bytes, read_index

if TYPE_CHECKING:
    from tests.chips.conftest import Tiny

shares = st.dictionaries(st.integers(-5, 70_000), st.floats(0, 1), max_size=4)
moments = st.datetimes(dt.datetime(1972, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))


@st.composite
def records(draw: st.DrawFn) -> ChipRecord:
    source = SourceRecord(
        clear=draw(st.floats(0, 1)),
        dates=tuple(draw(st.lists(moments, max_size=3))),
        scenes=tuple(draw(st.lists(st.text(max_size=5), max_size=3))),
        seen=draw(st.integers(0, 99)),
        dropped=draw(st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=2)),
        shift=draw(st.none() | st.builds(ShiftRecord, st.none() | st.floats(0, 9), st.none(), st.integers(0, 9))),
    )
    return ChipRecord(
        chip=draw(st.text(min_size=1)), shard=0, split="train", status="ok", reason=draw(st.text(max_size=5)),
        cover=draw(st.floats(0, 1)), epsg=32733, col=draw(st.integers(-9999, 9999)), row=-4, x0=1.5, y0=2.5, lon=15.0,
        lat=-20.0, sources={"s2": source}, labels={"osm": LabelRecord(draw(shares), draw(st.floats(0, 1)))},
    )  # fmt: skip


@given(records())
def test_records_survive_json(record: ChipRecord) -> None:
    assert ChipRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_times_without_a_zone_are_utc_and_others_are_turned_to_it() -> None:
    east = dt.timezone(dt.timedelta(hours=2))
    source = SourceRecord(dates=(dt.datetime(2018, 4, 1, 10), dt.datetime(2018, 4, 1, 12, tzinfo=east)))
    assert source.dates == (dt.datetime(2018, 4, 1, 10, tzinfo=dt.UTC),) * 2


def outlines(n: int) -> list[shapely.Geometry]:
    return [shapely.box(i, 0, i + 1, 1) for i in range(n)]


def tiny_index(tiny: Tiny) -> tuple[list[ChipRecord], bytes]:
    found = [record for ordinal in range(tiny.layout.n_shards) for record in tiny.records(ordinal)]
    return found, index_bytes(found, outlines(len(found)))


def test_geopandas_reads_every_planned_chip_in_the_order_of_the_store(tiny: Tiny) -> None:
    found, data = tiny_index(tiny)
    table = read_index(data)
    assert table.crs.to_epsg() == 4326
    assert table["chip"].tolist() == [record.chip for record in found]
    assert table["status"].tolist() == ["ok", "ok", "ok", "empty", "ok"]
    assert table["reason"][3] == "no scene meets the chip"
    assert table.geometry[1].equals(shapely.box(1, 0, 2, 1))
    assert dict(table["fields_shares"][0]) == pytest.approx(found[0].labels["fields"].shares)
    assert table["s2_dates"][0].astype("datetime64[s]").astype(str).tolist() == [
        "2018-04-01T10:00:05",
        "2018-05-03T10:00:07",
    ]
    assert dict(table["s2_dropped"][0]) == {"cloudy": 1}
    assert table["s2_scenes"][3].tolist() == []


def test_the_file_is_geoparquet_1_1_with_a_covering(tiny: Tiny) -> None:
    _, data = tiny_index(tiny)
    geo = json.loads(pq.read_schema(io.BytesIO(data)).metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    column = geo["columns"][geo["primary_column"]]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Polygon"]
    assert column["bbox"] == [0.0, 0.0, 5.0, 1.0]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    assert column["covering"]["bbox"] == {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}
    row = pq.read_table(io.BytesIO(data))["bbox"].to_pylist()[2]
    assert row == {"xmin": 2, "ymin": 0, "xmax": 3, "ymax": 1}


def test_equal_records_give_equal_bytes_and_a_source_may_be_missing(tiny: Tiny) -> None:
    found, data = tiny_index(tiny)
    assert index_bytes(found, outlines(len(found))) == data
    import dataclasses

    without = [dataclasses.replace(found[0], sources={}, labels={}), *found[1:]]
    table = read_index(index_bytes(without, outlines(len(found))))
    assert np.isnan(table["s2_clear"][0])
    assert table["fields_shares"][0] is None


def test_shifts_have_columns_only_where_they_were_asked_for_and_null_is_not_zero(tiny: Tiny) -> None:
    import dataclasses

    found, data = tiny_index(tiny)
    assert not any("shift" in name for name in read_index(data))
    shifts = [ShiftRecord(4.5, 0.25, 3), ShiftRecord(reason="no texture"), None, None, None]
    changed = [
        dataclasses.replace(
            record, sources={**record.sources, "s2": dataclasses.replace(record.sources["s2"], shift=shift)}
        )
        for record, shift in zip(found, shifts, strict=True)
    ]
    table = read_index(index_bytes(changed, outlines(len(found))))
    assert table[["s2_shift_m", "s2_shift_left_m", "s2_shift_dates"]].iloc[0].tolist() == [4.5, 0.25, 3]
    assert table["s2_shift_m"].isna().tolist() == [False, True, True, True, True]
    assert table["s2_shift_reason"].tolist() == ["", "no texture", None, None, None]
    assert "s1_shift_m" not in table


def test_every_record_needs_its_outline(tiny: Tiny) -> None:
    found, _ = tiny_index(tiny)
    with pytest.raises(ValueError, match="5 records and 4 footprints"):
        index_bytes(found, outlines(4))


def test_duckdb_reads_lists_and_maps(tiny: Tiny, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    found, data = tiny_index(tiny)
    path = tmp_path / "chips.parquet"
    path.write_bytes(data)
    rows = duckdb.sql(
        f"select chip, fields_shares[211], len(s2_dates) from '{path}' where split = 'train' order by chip"
    ).fetchall()
    assert [row[0] for row in rows] == ["32631_0_1", "32631_3_1"]
    assert rows[0][1] == pytest.approx(found[0].labels["fields"].shares[211])
    assert [row[2] for row in rows] == [2, 0]
