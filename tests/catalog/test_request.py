"""The whole way from a wish to locked rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shapely
from pydantic import TypeAdapter, ValidationError

from catalog.lock import lock_bytes, read_lock, scenes_from_lock
from catalog.request import SearchSpec, find
from catalog.search import open_catalog
from curate.errors import CatalogError, ReadError

Item = dict[str, Any]
HERE = shapely.box(15.2, 48.2, 15.3, 48.3)


def rows_of(where: Path, spec: SearchSpec | None = None, **changes: Any) -> list[Any]:
    asked: dict[str, Any] = {
        "source": "s2",
        "collection": "sentinel-2-l2a",
        "bands": ["red", "scl"],
        "aoi_geometry": HERE,
        "start": dt.datetime(2018, 1, 1, tzinfo=dt.UTC),
        "end": dt.datetime(2021, 1, 1, tzinfo=dt.UTC),
    }
    return find(open_catalog(where), spec=spec, **(asked | changes))


def test_austria_gives_36_dates_in_order_that_survive_the_lock(shared_data: Path) -> None:
    region = shapely.box(15.38, 48.48, 15.48, 48.54)
    rows = rows_of(shared_data / "austria" / "catalog.json", aoi_geometry=region, bands=["B04", "nir", "SCL"])
    scenes = scenes_from_lock(read_lock(lock_bytes(rows)), "s2")
    assert len(scenes) == 36
    times = [scene.acquired for scene in scenes]
    assert times == sorted(times, key=str)
    assert len({scene.acquisition for scene in scenes}) == 36
    assert {scene.radiometry.offset_dn for scene in scenes} == {0}
    assert {tuple(asset.band for asset in scene.assets) for scene in scenes} == {("red", "nir", "scl")}


@pytest.mark.parametrize(
    ("collection", "bands", "count"), [("sentinel-2-l2a", ["red", "scl"], 118), ("sentinel-1-rtc", ["vv", "vh"], 159)]
)
def test_flanders_gives_its_scenes_although_items_say_little(
    shared_data: Path, collection: str, bands: list[str], count: int
) -> None:
    here = shapely.box(3.02, 50.814, 3.025, 50.818)
    where = shared_data / "flanders" / "catalog.json"
    rows = rows_of(where, collection=collection, bands=bands, aoi_geometry=here, start=None, end=None)
    assert len(rows) == count
    assert all(row.status == "used" for row in rows)
    assert len({row.scene.acquisition for row in rows}) == count


def test_cloudy_scenes_are_left_out_and_those_that_do_not_say_are_kept(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    items = [s2_item(number) for number in range(4)]
    del items[3]["properties"]["eo:cloud_cover"]
    rows = rows_of(write_catalog(tmp_path / "c", items), SearchSpec(max_cloud_pct=10))
    assert [row.scene.cloud_pct for row in rows] == [0, 10, None]


def test_wishes_for_tile_orbit_platform_and_properties_select(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    other = {"s2:mgrs_tile": "33UXP", "platform": "Sentinel-2B", "sat:relative_orbit": 22, "x": 1}
    where = write_catalog(tmp_path / "c", [s2_item(0), s2_item(1, properties=other)])
    for spec in (
        SearchSpec(tiles=("T33UXP",)),
        SearchSpec(platforms=("sentinel-2b",)),
        SearchSpec(relative_orbits=(22,)),
        SearchSpec(query={"x": {"eq": 1}}),
        SearchSpec(cql2={"op": "=", "args": [{"property": "x"}, 1]}),
    ):
        (row,) = rows_of(where, spec)
        assert row.scene.tile == "33UXP"
    assert len(rows_of(where)) == 2


def test_only_the_wanted_orbit_directions_are_kept(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    items = [s2_item(at, properties={"sat:orbit_state": orbit}) for at, orbit in enumerate(("Ascending", "descending"))]
    where = write_catalog(tmp_path / "c", items)
    assert [row.scene.orbit for row in rows_of(where, orbits=("ascending",))] == ["ascending"]
    assert len(rows_of(where, orbits=("ascending", "descending"))) == 2


def test_a_copy_is_dropped_with_its_reason_and_stays_in_the_lock(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    new = s2_item(id="new", properties={"s2:processing_baseline": "05.00"})
    rows = read_lock(lock_bytes(rows_of(write_catalog(tmp_path / "c", [s2_item(), new]))))
    assert [(row.item["id"], row.status) for row in rows] == [(s2_item()["id"], "dropped"), ("new", "used")]
    assert rows[0].reason == "copy of new, which is preferred: baseline 05.00 against 02.12"
    (scene,) = scenes_from_lock(rows, "s2")
    assert scene.radiometry.offset_dn == -1000


def test_what_is_locked_is_not_found_again_and_keeps_its_place_when_copies_come(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    known = read_lock(lock_bytes(rows_of(write_catalog(tmp_path / "old", [s2_item(0)]))))
    new = s2_item(0, id="new", properties={"s2:processing_baseline": "05.00"})
    where = write_catalog(tmp_path / "new", [s2_item(0), new, s2_item(1)])
    rows = rows_of(where, known=known)
    assert {row.item["id"]: row.status for row in rows} == {"new": "dropped", s2_item(1)["id"]: "used"}
    (copy,) = [row for row in rows if row.status == "dropped"]
    assert copy.reason.startswith(f"copy of {s2_item(0)['id']}, which is in the dataset already: baseline 02.12")


def test_what_is_found_joins_the_acquisition_that_is_locked(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    """Slices of one pass: the earlier one, which names a pass when all are found at once, comes later."""
    radar: dict[str, Any] = {"collection": "sentinel-1-rtc", "bands": ["vv"], "source": "s1"}
    slices = []
    for number, seconds in enumerate((0, 25)):
        time = f"2020-03-02T05:00:{seconds:02d}Z"
        item = s2_item(number, id=f"slice-{number}", collection="sentinel-1-rtc")
        item["properties"] |= {
            "datetime": time,
            "start_datetime": time,
            "end_datetime": time,
            "platform": "SENTINEL-1A",
        }
        item["properties"] |= {"sat:absolute_orbit": 31500, "sat:orbit_state": "ascending"}
        item["assets"] = {"vv": {**next(iter(item["assets"].values()))}}
        slices.append(item)
    known = rows_of(write_catalog(tmp_path / "late", slices[1:], "sentinel-1-rtc"), **radar)
    where = write_catalog(tmp_path / "both", slices, "sentinel-1-rtc")
    (found,) = rows_of(where, **radar, known=known)
    assert found.item["id"] == "slice-0"
    assert found.scene.acquisition == known[0].scene.acquisition
    both = rows_of(where, **radar)
    assert {row.scene.acquisition for row in both} != {found.scene.acquisition}, "from nothing it has another name"


def test_an_item_that_lacks_a_band_is_dropped_with_its_reason(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    poor = s2_item(1)
    del poor["assets"]["SCL"]
    rows = rows_of(write_catalog(tmp_path / "c", [s2_item(0), poor]))
    assert [row.status for row in rows] == ["used", "dropped"]
    assert rows[1].reason.startswith("has no asset for scl (looked for scl, SCL, SCL_20m).")


def test_an_incomplete_copy_does_not_push_out_the_complete_one(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    new = s2_item(id="new", properties={"s2:processing_baseline": "05.00"})
    del new["assets"]["B04"]
    rows = rows_of(write_catalog(tmp_path / "c", [s2_item(), new]))
    assert {row.item["id"]: row.status for row in rows} == {s2_item()["id"]: "used", "new": "dropped"}


def test_a_band_that_no_item_has_is_an_error(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    where = write_catalog(tmp_path / "c", [s2_item(0), s2_item(1)])
    with pytest.raises(CatalogError, match=r"none of the 2 items of .* has all of red, nir09.*It has: B04, B08"):
        rows_of(where, bands=["red", "nir09"])


def test_nothing_found_is_an_empty_answer(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    assert rows_of(write_catalog(tmp_path / "c", [s2_item()]), aoi_geometry=shapely.box(0, 0, 1, 1)) == []


def test_a_static_layer_is_found_whatever_the_time(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    item = s2_item(id="dem", collection="cop-dem-glo-30")
    item["assets"] = {"data": item["assets"]["B04"]}
    where = write_catalog(tmp_path / "c", [item], "cop-dem-glo-30")
    (row,) = rows_of(
        where, collection="cop-dem-glo-30", bands=["elevation"], end=dt.datetime(2019, 1, 1, tzinfo=dt.UTC)
    )
    assert row.scene.acquired is None
    assert row.scene.acquisition == "static"


def test_items_without_projection_have_their_files_opened_and_the_lock_remembers(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    import numpy as np
    import rasterio

    items = [s2_item(0), s2_item(1)]
    for item in items:
        for asset in item["assets"].values():
            del asset["proj:transform"]
    where = write_catalog(tmp_path / "c", items)
    with pytest.raises(ReadError, match=r"cannot be opened to find it"):
        rows_of(where)
    for key in ("B04", "SCL"):
        path = where.parent / "sentinel-2-l2a" / f"{key}.tif"
        transform = rasterio.Affine(10, 0, 500000, 0, -10, 5400000)
        profile = {"driver": "GTiff", "width": 3, "height": 2, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
        with rasterio.open(path, "w", transform=transform, **profile) as file:
            file.write(np.ones((1, 2, 3), "uint8"))
    rows = rows_of(where)
    for key in ("B04", "SCL"):
        (where.parent / "sentinel-2-l2a" / f"{key}.tif").unlink()
    (first, second) = scenes_from_lock(read_lock(lock_bytes(rows)), "s2")
    assert first.assets[0].transform == second.assets[1].transform == (10, 0, 500000, 0, -10, 5400000)


def test_what_came_from_planetary_computer_is_signed_also_when_saved_to_a_file(
    tmp_path: Path, s2_item: Callable[..., Item], write_catalog: Callable[..., Path]
) -> None:
    root = "https://planetarycomputer.microsoft.com/api/stac/v1"
    theirs = s2_item(0, links=[{"rel": "collection", "href": f"{root}/collections/sentinel-2-l2a"}])
    rows = read_lock(lock_bytes(rows_of(write_catalog(tmp_path / "c", [theirs, s2_item(1)]))))
    assert [row.scene.signing for row in rows if row.scene] == ["planetary-computer", None]


def test_the_options_are_checked_by_pydantic() -> None:
    adapter = TypeAdapter(SearchSpec)
    spec = adapter.validate_python({"max_cloud_pct": 80, "tiles": ["33UWP"]})
    assert spec == SearchSpec(max_cloud_pct=80, tiles=("33UWP",))
    for bad in ({"max_cloud_pct": 101}, {"max_clouds": 1}, {"query": {"x": {"is": 1}}}):
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)
    schema = adapter.json_schema()
    assert all("description" in field for field in schema["properties"].values())
