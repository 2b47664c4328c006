"""Shards written under the journal: in any order, from any process, again and again."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chips.storage import open_storage
from chips.write import JOURNAL, finished_shards, journal, open_build, read_document, start_build, write_shard
from curate.errors import OutputError

if TYPE_CHECKING:
    from tests.chips.conftest import Tiny

Contents = Callable[[Path], Mapping[str, bytes]]


def assert_closed(folder: Path) -> None:
    """Nothing of an unfinished build opens: not the store, not a group, not an array."""
    store = folder / "chips.zarr"
    for path in ("", "s2", "s1", "label"):
        with pytest.raises((FileNotFoundError, KeyError)):
            zarr.open_group(store, path=path, mode="r")
        with pytest.raises((FileNotFoundError, KeyError)):
            xr.open_zarr(store, group=path or None)
    with pytest.raises(FileNotFoundError):
        zarr.open_array(store, path="s2/reflectance", mode="r")


def test_nothing_of_an_unfinished_build_opens(tiny: Tiny) -> None:
    build = tiny.start()
    assert_closed(tiny.folder)
    tiny.write(build)
    assert_closed(tiny.folder)
    assert not list(tiny.folder.rglob("zarr.json"))


@pytest.mark.parametrize("group", ["s2", "s1", "label"])
def test_pixels_come_back_as_they_were_given(tiny: Tiny, group: str) -> None:
    tiny.build()
    for ordinal in range(tiny.layout.n_shards):
        chips = tiny.layout.chips_of(ordinal)
        with xr.open_zarr(tiny.folder / "chips.zarr", group=group, mask_and_scale=False) as ds:
            for variable in tiny.layout.of(group):
                found = ds[variable.name].to_numpy()[chips.start : chips.stop]
                wanted = tiny.arrays(ordinal)[variable.key]
                if group == "s2":
                    wanted = wanted[:, :2]  # trimmed to the two dates that are used
                np.testing.assert_array_equal(found, wanted)
                if variable.dtype != "datetime64[s]":
                    assert found.dtype == variable.dtype


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations([0, 1, 2, 1]))
def test_any_order_of_writes_gives_the_same_bytes(
    make_tiny: Callable[..., Tiny], contents: Contents, order: list[int]
) -> None:
    # Shard 1 is written twice, as when a scheduler runs a task again.
    one = make_tiny("-".join(map(str, order)))
    other = make_tiny("in-order")
    if not open_storage(other.folder, create=True).top():
        other.build()
    if not open_storage(one.folder, create=True).top():
        build = one.start()
        one.write(build, order)
        one.publish(build)
    assert contents(one.folder) == contents(other.folder)


@pytest.mark.parametrize(("n_chips", "shard_chips"), [(1, 1), (3, 1), (7, 4), (4, 4), (2, 64)])
def test_shards_of_one_chip_and_short_last_shards_work(
    make_tiny: Callable[..., Tiny], n_chips: int, shard_chips: int
) -> None:
    tiny = make_tiny(n_chips=n_chips, shard_chips=shard_chips)
    build = tiny.start()
    tiny.write(build)
    assert finished_shards(build) == set(range(-(-n_chips // shard_chips)))
    tiny.publish(build)
    with xr.open_zarr(tiny.folder / "chips.zarr", group="s2", mask_and_scale=False) as ds:
        found = ds["reflectance"].to_numpy()
    wanted = np.concatenate([tiny.arrays(i)["s2", "reflectance"][:, :2] for i in range(tiny.layout.n_shards)])
    np.testing.assert_array_equal(found, wanted)


def test_a_write_reads_nothing_and_writes_each_object_once(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    build = tiny.start()
    put: list[str] = []
    original = obstore.put

    def counted(store: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        put.append(key)
        return original(store, key, *args, **kwargs)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a writer of a whole shard has nothing to read")

    monkeypatch.setattr(obstore, "put", counted)
    for name in ("get_async", "get_range_async", "get"):
        monkeypatch.setattr(obstore, name, refuse)
    for ordinal in range(3):
        chips = tiny.layout.chips_of(ordinal)
        record = write_shard(build, ordinal, chips.start, tiny.arrays(ordinal), tiny.records(ordinal))
        assert [written.key for written in record.objects] == sorted(put[:-2])
        # The line of the journal comes last: a shard is finished with its counts, or not at all.
        assert put[-2] == record.statistics.key
        assert put[-1] == f"{JOURNAL}/shards/{ordinal:06d}.json"
        assert len(set(put)) == len(put)
        put.clear()


def test_two_processes_write_different_shards(make_tiny: Callable[..., Tiny], contents: Contents) -> None:
    alone, tiny = make_tiny("alone"), make_tiny("together")
    alone.build()
    build = tiny.start()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tasks = [
            pool.submit(write_shard, build, i, tiny.layout.chips_of(i).start, tiny.arrays(i), tiny.records(i))
            for i in range(3)
        ]
        records = [task.result() for task in tasks]
    assert list(journal(build)) == records
    tiny.publish(build)
    assert contents(tiny.folder) == contents(alone.folder)


def test_empty_chips_cost_nothing(make_tiny: Callable[..., Tiny]) -> None:
    tiny = make_tiny(n_chips=4, shard_chips=2, empty=frozenset({0, 1}))
    build = tiny.start()
    tiny.write(build)
    first, second = journal(build)
    assert first.objects == ()
    assert len(second.objects) == len(tiny.layout.variables)
    assert finished_shards(build) == {0, 1}


def test_an_object_that_a_second_attempt_does_not_write_is_gone(make_tiny: Callable[..., Tiny]) -> None:
    tiny = make_tiny(n_chips=2, shard_chips=2, empty=frozenset())
    build = tiny.start()
    tiny.write(build)
    emptied = make_tiny(n_chips=2, shard_chips=2, empty=frozenset({0, 1}))
    emptied.write(build)
    assert not list((tiny.folder / "chips.zarr").rglob("c/*"))
    assert finished_shards(build) == {0}


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_shard_whose_objects_are_damaged_is_built_again(tiny: Tiny, contents: Contents, damage: str) -> None:
    build = tiny.start()
    tiny.write(build)
    before = contents(tiny.folder)
    victim = next((tiny.folder / "chips.zarr/s2/reflectance/c/1").rglob("0"))
    while victim.is_dir():
        victim = victim / "0"
    data = bytearray(victim.read_bytes())
    if damage == "remove":
        victim.unlink()
    else:
        data[len(data) // 2] ^= 1
        victim.write_bytes(data if damage == "flip" else data[:-1])
    assert finished_shards(build) == {0, 2}
    assert finished_shards(build, verify=False) == {0, 1, 2}
    tiny.write(build, [1])
    assert finished_shards(build) == {0, 1, 2}
    assert contents(tiny.folder) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"ordinal":1', b'"ordinal":2'), (b'"split":"test"', b'"split":"train"'), (b"{", b""), (b"tiny-1", b"tiny-2")],
)
def test_a_changed_line_of_the_journal_does_not_count(tiny: Tiny, old: bytes, new: bytes) -> None:
    build = tiny.start()
    tiny.write(build)
    line = tiny.folder / JOURNAL / "shards" / "000001.json"
    assert old in line.read_bytes()
    line.write_bytes(line.read_bytes().replace(old, new, 1))
    assert finished_shards(build) == {0, 2}


def test_a_build_continues_only_under_its_fingerprint_and_layout(make_tiny: Callable[..., Tiny]) -> None:
    tiny = make_tiny()
    build = tiny.start()
    tiny.write(build, [0])
    assert open_build(tiny.storage) == build
    assert start_build(tiny.storage, tiny.layout, "tiny-1", {"recipe.yaml": b"another\n"}) == build
    assert read_document(tiny.storage, "recipe.yaml") == b"name: tiny\n"
    assert finished_shards(build) == {0}
    with pytest.raises(OutputError, match="unfinished build of another recipe"):
        start_build(tiny.storage, tiny.layout, "tiny-2")
    with pytest.raises(OutputError, match="another layout"):
        start_build(tiny.storage, make_tiny(n_chips=6).layout, "tiny-1")
    tiny.write(build, [1, 2])
    tiny.publish(build)
    with pytest.raises(OutputError, match="finished dataset"):
        tiny.start()
    assert open_build(tiny.storage) is None


def test_a_folder_with_other_files_is_refused_and_left_alone(tiny: Tiny) -> None:
    tiny.folder.mkdir()
    (tiny.folder / "thesis.docx").write_text("years of work")
    with pytest.raises(OutputError, match=r"not empty \(thesis.docx\)"):
        tiny.start()
    assert [path.name for path in tiny.folder.iterdir()] == ["thesis.docx"]


def test_a_folder_that_only_looks_full_is_taken(tiny: Tiny) -> None:
    tiny.folder.mkdir()
    (tiny.folder / ".DS_Store").touch()
    (tiny.folder / JOURNAL / "documents").mkdir(parents=True)
    (tiny.folder / JOURNAL / "documents" / "recipe.yaml").touch()  # a start that was killed before build.json
    build = tiny.start()
    assert read_document(tiny.storage, "recipe.yaml") == b"name: tiny\n"
    assert finished_shards(build) == set()


def test_a_journal_that_cannot_be_read_is_told(tiny: Tiny) -> None:
    tiny.start()
    (tiny.folder / JOURNAL / "build.json").write_text("{")
    with pytest.raises(OutputError, match="remove the folder and start again"):
        tiny.start()


def test_arrays_that_do_not_fit_the_layout_are_refused(tiny: Tiny) -> None:
    build = tiny.start()
    arrays, records = tiny.arrays(0), tiny.records(0)
    with pytest.raises(ValueError, match=r"chips 2 to 4, the layout has 0 to 2 of 5"):
        write_shard(build, 0, 2, arrays, records)
    with pytest.raises(ValueError, match="records of another shard"):
        write_shard(build, 0, 0, arrays, tiny.records(1))
    with pytest.raises(ValueError, match=r"uint8\[2, 4, 2, 8, 8\] was given, the layout has uint16"):
        write_shard(build, 0, 0, {**arrays, ("s2", "reflectance"): arrays["s2", "reflectance"].astype("u1")}, records)
    del arrays["label", "fields"]
    with pytest.raises(ValueError, match="were given, the layout has"):
        write_shard(build, 0, 0, arrays, records)
    assert finished_shards(build) == set()


def test_a_full_disk_is_told_in_a_sentence_and_the_shard_is_not_done(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = tiny.start()

    def full(*args: Any, **kwargs: Any) -> Any:
        raise obstore.exceptions.GenericError(
            "Generic LocalFileSystem error: Unable to copy data to file: No space left on device (os error 28)\n\nDebug"
        )

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", full)
        with pytest.raises(OutputError) as caught:
            tiny.write(build, [0])
    message = str(caught.value)
    assert message.startswith(f"{tiny.folder}: chips.zarr/")
    assert message.endswith("No space left on device. Please free some space, then run the same command again")
    assert finished_shards(build) == set()
    tiny.write(build, [0])
    assert finished_shards(build) == {0}


WRITER = """
    import pickle, sys
    from chips.write import write_shard
    with open(sys.argv[1], "rb") as file:
        build, shards = pickle.load(file)
    while True:  # until killed
        for ordinal, start, arrays, records in shards:
            write_shard(build, ordinal, start, arrays, records)
            print(ordinal, flush=True)
"""


@pytest.mark.parametrize("pause_s", [0.0, 0.005, 0.02])
def test_after_kill_9_the_store_does_not_open_and_the_build_continues_to_the_same_bytes(
    make_tiny: Callable[..., Tiny], contents: Contents, tmp_path: Path, pause_s: float
) -> None:
    undisturbed, tiny = make_tiny("undisturbed"), make_tiny("killed")
    undisturbed.build()
    build = tiny.start()
    shards = [(i, tiny.layout.chips_of(i).start, tiny.arrays(i), tiny.records(i)) for i in range(3)]
    (tmp_path / "work.pickle").write_bytes(pickle.dumps((build, shards)))
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "work.pickle")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause_s)
        writer.send_signal(signal.SIGKILL)
    assert_closed(tiny.folder)
    (tiny.folder / "chips.zarr" / "half#1").write_bytes(b"what obstore leaves when killed while writing")
    build = tiny.start()
    tiny.write(build, sorted(set(range(3)) - finished_shards(build)))
    tiny.publish(build)
    assert contents(tiny.folder) == contents(undisturbed.folder)
