"""The state of builds, from what lies in their storage."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chips.status import status, statuses
from chips.storage import Storage, open_storage
from chips.write import BUILD, ROOT, record_failures, start_build
from curate.errors import OutputError, StoreError


def test_a_build_goes_from_planned_over_building_and_built_to_published(tiny: Any) -> None:
    began = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5)
    build = tiny.start()
    states = [status(tiny.storage)]
    for ordinal in range(3):
        tiny.write(build, [ordinal])
        states.append(status(tiny.storage))
    tiny.publish(build)
    states.append(status(tiny.storage))
    assert [one.state for one in states] == ["planned", "building", "building", "built", "published"]
    assert [one.shards_done for one in states] == [0, 1, 2, 3, 3]
    assert {(one.shards, one.chips) for one in states} == {(3, 5)}
    times = [one.last_written for one in states]
    assert all(time is not None and began < time < dt.datetime.now(dt.UTC) + dt.timedelta(seconds=5) for time in times)


def test_shards_that_failed_are_told_until_they_are_written_or_tried_again(tiny: Any) -> None:
    build = tiny.start()
    tiny.write(build, [0])
    record_failures(build, {1: "S2A_x, band red: cannot be opened", 2: "S2A_y, band red: cannot be opened"})
    found = status(tiny.storage)
    assert found.state == "failed"
    assert found.failed == {1: "S2A_x, band red: cannot be opened", 2: "S2A_y, band red: cannot be opened"}
    tiny.write(build, [1])
    assert status(tiny.storage).failed == {2: "S2A_y, band red: cannot be opened"}
    tiny.start()
    assert status(tiny.storage).state == "building"
    record_failures(build, {2: "again"})
    tiny.write(build, [2])
    tiny.publish(build)
    assert status(tiny.storage).failed == {}
    assert not (tiny.folder / ".curate").exists()


def test_a_damaged_note_is_passed_over(tiny: Any) -> None:
    build = tiny.start()
    record_failures(build, {1: "why"})
    tiny.storage.put(".curate/failed/000000.json", b"{")
    assert status(tiny.storage).failed == {1: "why"}


def test_where_nothing_is_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no dataset and no build here"):
        status(open_storage(tmp_path))
    with pytest.raises(OutputError, match="there is no such folder"):
        statuses(str(tmp_path / "missing"))


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_all_builds_below_a_place_are_listed_and_other_things_passed_over(
    make_tiny: Callable[..., Any], tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    root = str(tmp_path / "runs") if where == "folder" else f"{request.getfixturevalue('bucket')}/runs"
    top = open_storage(root, create=True)
    tiny = make_tiny()

    def begin(name: str) -> tuple[Storage, Any]:
        storage = open_storage(f"{root}/{name}", create=True)
        return storage, start_build(storage, tiny.layout, "tiny-1", {"recipe.yaml": b"name: tiny\n"})

    begin("a-planned")
    _, build = begin("b-building")
    tiny.write(build, [1])
    _, build = begin("c-failed")
    record_failures(build, {0: "no scene can be read"})
    _, build = begin("d-published")
    tiny.write(build)
    tiny.publish(build)
    broken, _ = begin("e-broken")
    broken.put(BUILD, b"{")
    top.put("notes.txt", b"")
    top.put("pictures/one.png", b"")
    found = {one.url.removeprefix(f"{root}/"): one for one in statuses(root)}
    assert {name: one.state for name, one in found.items()} == {
        "a-planned": "planned",
        "b-building": "building",
        "c-failed": "failed",
        "d-published": "published",
        "e-broken": "damaged",
    }
    assert found["c-failed"].failed == {0: "no scene can be read"}
    assert "cannot be read" in found["e-broken"].reason
    assert open_storage(f"{root}/d-published").get(ROOT)
