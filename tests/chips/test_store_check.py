"""``check`` is silent about what was built right, and names whatever was changed since."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas
import pytest
import shapely

from chips.check import CheckReport, check
from chips.index import INDEX, ChipRecord, LabelRecord, SourceRecord, index_bytes
from chips.manifest import MANIFEST
from chips.publish import publish
from chips.storage import open_storage
from chips.write import write_shard

if TYPE_CHECKING:
    from tests.chips.conftest import Arrays, Tiny


def boxes(records: Sequence[ChipRecord], half: float = 0.5) -> list[shapely.Geometry]:
    return [shapely.box(r.lon - half, 49.5, r.lon + half, 50.5) for r in records]


def build_with(
    tiny: Tiny,
    change_records: Callable[[ChipRecord], ChipRecord] = lambda record: record,
    change_arrays: Callable[[Arrays], None] = lambda arrays: None,
    half: float = 0.5,
) -> CheckReport:
    """A dataset that was written wrong from the start, so that all checksums agree, and what check says of it."""
    build = tiny.start()
    records = []
    for ordinal in range(tiny.layout.n_shards):
        arrays = tiny.arrays(ordinal)
        change_arrays(arrays)
        changed = [change_records(record) for record in tiny.records(ordinal)]
        write_shard(build, ordinal, tiny.layout.chips_of(ordinal).start, arrays, changed)
        records += changed
    publish(build, records, {INDEX: index_bytes(records, boxes(records, half))}, trim={"s2": 2})
    return check(tiny.storage)


def test_a_dataset_as_it_was_built_has_no_problems(tiny: Tiny) -> None:
    tiny.build()
    told: list[tuple[int, int]] = []
    report = check(tiny.storage, on_progress=lambda done, total: told.append((done, total)))
    assert report.problems == ()
    assert report.facts["chips"] == 5
    assert report.facts["splits"] == {"test": 1, "train": 2, "val": 2}
    assert report.facts["status"] == {"empty": 1, "ok": 4}
    assert told[-1] == (21, 21)


def test_a_dataset_can_be_moved(tiny: Tiny, tmp_path: Path) -> None:
    tiny.build()
    moved = tmp_path / "elsewhere"
    shutil.move(tiny.folder, moved)
    assert check(open_storage(moved)).problems == ()


@pytest.mark.parametrize(
    "victim",
    [
        "chips.zarr/s2/reflectance/c/1/0/0/0/0",
        "chips.zarr/s2/clear/c/0/0",
        "chips.zarr/label/fields/c/2/0/0",
        "chips.zarr/split/c/0",
        "chips.zarr/s1/lon/c/0",
        "chips.zarr/s2/zarr.json",
        "chips.zarr/s2/reflectance/zarr.json",
        "chips.parquet",
        "recipe.yaml",
    ],
)
def test_a_flipped_bit_and_a_missing_object_are_found(tiny: Tiny, victim: str) -> None:
    tiny.build()
    path = tiny.folder / victim
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert any(f"{victim} was changed" in problem for problem in check(tiny.storage).problems)
    path.write_bytes(data[:-1])
    assert any(f"{victim} has {len(data) - 1} bytes" in problem for problem in check(tiny.storage).problems)
    path.unlink()
    assert f"{victim} is missing" in check(tiny.storage).problems


def test_strays_are_found_in_the_store_and_allowed_beside_it(tiny: Tiny) -> None:
    tiny.build()
    (tiny.folder / "notes.txt").write_text("mine")
    assert check(tiny.storage).problems == ()
    (tiny.folder / "chips.zarr/s2/scl/c/9").write_text("stray")
    assert check(tiny.storage).problems == ("chips.zarr/s2/scl/c/9 does not belong to the dataset",)


def test_an_unfinished_build_is_told_as_such(tiny: Tiny) -> None:
    build = tiny.start()
    tiny.write(build, [0, 1])
    (problem,) = check(tiny.storage).problems
    assert problem.startswith("this is an unfinished build with 2 of 3 shards")


def test_a_folder_without_a_dataset_is_told_as_such(tmp_path: Path) -> None:
    (problem,) = check(open_storage(tmp_path)).problems
    assert problem.startswith("there is no dataset here")


@pytest.mark.parametrize("damage", [b"{", b'{"layout": {"layout_version": 99}}'])
def test_a_manifest_that_cannot_be_read_is_told(tiny: Tiny, damage: bytes) -> None:
    tiny.build()
    (tiny.folder / MANIFEST).write_bytes(damage)
    (problem,) = check(tiny.storage).problems
    assert problem.startswith(f"{MANIFEST} is damaged or of another release")
    (tiny.folder / MANIFEST).unlink()
    (problem,) = check(tiny.storage).problems
    assert problem.startswith(f"{MANIFEST} is missing")


def test_a_shard_taken_out_of_the_manifest_is_missed(tiny: Tiny) -> None:
    tiny.build()
    path = tiny.folder / MANIFEST
    manifest = json.loads(path.read_bytes())
    del manifest["shards"][1]
    path.write_text(json.dumps(manifest))
    problems = check(tiny.storage).problems
    assert f"{MANIFEST} lists 2 shards, its layout has 3" in problems
    assert "chips.zarr/label/fields/c/1/0/0 does not belong to the dataset" in problems


Change = Callable[[ChipRecord], ChipRecord]


def with_source(**changes: Any) -> Change:
    def change(record: ChipRecord) -> ChipRecord:
        if record.chip != "32631_1_1":
            return record
        return dataclasses.replace(
            record, sources={**record.sources, "s2": dataclasses.replace(record.sources["s2"], **changes)}
        )

    return change


def with_label(shares: dict[int, float], labelled: float) -> Change:
    return lambda record: dataclasses.replace(record, labels={"fields": LabelRecord(shares, labelled)})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda r: dataclasses.replace(r, status="ok"),
            "chip 32631_3_1 is called ok and 0 of 2 sources have pixels there",
        ),
        (
            lambda r: dataclasses.replace(r, status="empty"),
            "chip 32631_0_1 is called empty and 2 of 2 sources have pixels there",
        ),
        (with_source(clear=0.9), "s2: the index says that 0.9000 of chip 32631_1_1 is clear"),
        (with_source(dates=()), "s2: the dates of chip 32631_1_1 differ between index and store"),
        (with_source(dates=()), "s2: chip 32631_1_1 has reflectance beyond its last date"),
        (with_label({1: 1.0}, 1.0), "label fields: the class shares of chip 32631_0_1 in the index are not those"),
    ],
)
def test_an_index_that_says_other_than_the_pixels_is_found(tiny: Tiny, change: Change, problem: str) -> None:
    assert any(found.startswith(problem) for found in build_with(tiny, change).problems)


def test_a_labelled_share_that_is_not_the_sum_of_the_shares_is_found(tiny: Tiny) -> None:
    def change(record: ChipRecord) -> ChipRecord:
        label = record.labels["fields"]
        return dataclasses.replace(record, labels={"fields": LabelRecord(label.shares, label.labelled / 2)})

    assert any("the labelled share of chip 32631_0_1" in problem for problem in build_with(tiny, change).problems)


def test_a_clear_share_that_the_mask_does_not_bear_out_is_found(tiny: Tiny) -> None:
    def change(arrays: Arrays) -> None:
        arrays["s2", "clear_mask"][:] = True

    problems = build_with(tiny, change_arrays=change).problems
    assert "s2: clear of chip 32631_0_1 is not what clear_mask says" in problems


def test_a_label_that_is_void_everywhere_is_found(tiny: Tiny) -> None:
    def change(arrays: Arrays) -> None:
        arrays["label", "fields"][:] = 255

    assert build_with(tiny, with_label({}, 0.0), change).problems == ("label fields tells nothing in any chip",)


def test_a_dataset_without_a_pixel_is_found(make_tiny: Callable[..., Tiny]) -> None:
    tiny = make_tiny(empty=frozenset(range(5)))
    assert "no chip of the dataset has a pixel" in build_with(tiny).problems


def test_chips_of_two_splits_that_overlap_are_found(tiny: Tiny) -> None:
    assert build_with(tiny, half=0.5).problems == ()
    shutil.rmtree(tiny.folder)
    problems = build_with(tiny, half=0.51).problems
    assert "chips 32631_0_1 (train) and 32631_1_1 (val) overlap" in problems
    shutil.rmtree(tiny.folder)
    buffers = build_with(tiny, lambda r: dataclasses.replace(r, split="buffer" if r.col % 2 else r.split), half=0.51)
    assert buffers.problems == ()


def test_an_index_that_differs_from_the_coordinates_is_found(tiny: Tiny) -> None:
    build = tiny.start()
    tiny.write(build)
    records = [record for ordinal in range(3) for record in tiny.records(ordinal)]
    other = [dataclasses.replace(record, split="val", x0=record.x0 + 10) for record in records]
    publish(build, records, {INDEX: index_bytes(other, boxes(other))}, trim={"s2": 2})
    problems = check(tiny.storage).problems
    for folder in ("", "s2/", "s1/", "label/"):
        assert f"{folder}split differs from {INDEX} in 3 chips, first in 32631_0_1" in problems
        assert f"{folder}x0 differs from {INDEX} in 5 chips, first in 32631_0_1" in problems


def test_what_only_the_recipe_knows_is_asked_of_the_caller(tiny: Tiny) -> None:
    tiny.build()

    def promise(table: geopandas.GeoDataFrame) -> list[str]:
        return [f"{len(table)} chips are too few"]

    assert check(tiny.storage, promises=[promise]).problems == ("5 chips are too few",)


def test_many_problems_of_a_kind_are_counted_and_not_all_listed(make_tiny: Callable[..., Tiny]) -> None:
    tiny = make_tiny(n_chips=13, shard_chips=13, empty=frozenset())
    problems = build_with(tiny, lambda r: dataclasses.replace(r, status="empty")).problems
    assert len(problems) == 11
    assert problems[-1] == "… and 3 more like the last"


def test_a_source_with_no_dates_at_all_is_no_problem(tiny: Tiny) -> None:
    assert SourceRecord().dates == ()
    assert build_with(tiny).problems == ()


def test_a_chip_that_some_sources_have_is_partial(tiny: Tiny) -> None:
    def change(record: ChipRecord) -> ChipRecord:
        if record.chip != "32631_0_1":
            return record
        return dataclasses.replace(record, status="partial", sources={**record.sources, "s1": SourceRecord()})

    def without_radar(arrays: Arrays) -> None:
        if arrays["s1", "backscatter"][0, 0, 0, 0] == first:  # the shard of chip 0
            arrays["s1", "backscatter"][0] = float("nan")

    first = tiny.arrays(0)["s1", "backscatter"][0, 0, 0, 0]
    assert build_with(tiny, change, without_radar).problems == ()
