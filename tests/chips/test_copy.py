"""A copy of a dataset opens when all of it is there, wherever copying is killed, and is the dataset byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import pytest
import xarray as xr
import zarr
from obstore.store import S3Store

from chips.check import check
from chips.copy import MARKER, copy_dataset
from chips.manifest import MANIFEST
from chips.status import status
from chips.storage import Storage, open_storage
from chips.versions import LATEST, latest, make_latest, open_dataset
from chips.write import ROOT, is_published
from curate.errors import OutputError, StoreError
from curate.telling import take

if TYPE_CHECKING:
    from tests.chips.conftest import Tiny

Contents = Callable[[Path], Mapping[str, bytes]]
Make = Callable[..., "Tiny"]


class Killed(Exception):
    """Stands for kill -9 at one operation on the storage."""


@contextmanager
def killed_at(number: int) -> Iterator[list[int]]:
    """The put or delete of that number, and all after it, fail before they do anything; the list counts them."""
    done = [0]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("put", "delete"):
            original = getattr(obstore, name)

            def counted(*args: Any, original: Any = original, **kwargs: Any) -> Any:
                done[0] += 1
                if done[0] >= number:
                    raise Killed
                return original(*args, **kwargs)

            patch.setattr(obstore, name, counted)
        yield done


def content(storage: Storage) -> dict[str, bytes | None]:
    return {key: storage.get(key) for key in storage.sizes()}


@pytest.fixture
def source(tiny: Tiny) -> Tiny:
    tiny.build()
    return tiny


@pytest.fixture
def updated(source: Tiny, make_tiny: Make) -> Tiny:
    """The same dataset with a second version."""
    add_version(source, make_tiny, 2)
    return source


def add_version(source: Tiny, make_tiny: Make, number: int) -> None:
    made = make_tiny(f"out/versions/{number:04d}", n_chips=4 + number, empty=frozenset({number})).build()
    make_latest(source.storage, number, made.fingerprint)


def test_a_copy_has_the_bytes_of_the_dataset_and_counts_them(source: Tiny, tmp_path: Path, contents: Contents) -> None:
    take()
    told: list[tuple[int, int]] = []
    made = copy_dataset(
        str(source.folder), str(tmp_path / "copy"), on_progress=lambda done, of: told.append((done, of))
    )
    assert contents(tmp_path / "copy") == contents(source.folder)
    assert (made.version, made.was_there, made.kept) == (1, False, 0)
    assert told[-1] == (made.sent, made.sent)
    counted = take()
    assert (counted["written"], counted["written_bytes"]) == (made.sent, made.sent_bytes)
    again = copy_dataset(str(source.folder), str(tmp_path / "copy"))
    assert (again.was_there, again.sent) == (True, 0)


def test_killed_at_any_step_the_copy_is_closed_and_the_next_run_completes_it(
    source: Tiny, tmp_path: Path, contents: Contents
) -> None:
    with killed_at(10_000) as done:
        copy_dataset(str(source.folder), str(tmp_path / "undisturbed"))
    steps = done[0]
    wanted = contents(source.folder)
    for number in sorted({1, 2, 3, steps // 2, *range(steps - 8, steps + 1)}):
        folder = tmp_path / f"copy-{number}"
        with killed_at(number), pytest.raises(Killed):
            copy_dataset(str(source.folder), str(folder))
        whole = wanted.keys() <= contents(folder).keys()
        assert is_published(open_storage(folder)) == whole, "the root is the last to come"
        made = copy_dataset(str(source.folder), str(folder))
        assert contents(folder) == wanted, f"killed at {number} of {steps}"
        assert made.was_there == whole


def test_what_an_earlier_run_sent_is_kept_and_what_is_damaged_there_is_sent_again(
    source: Tiny, tmp_path: Path, contents: Contents
) -> None:
    folder = tmp_path / "copy"
    first = copy_dataset(str(source.folder), str(folder))
    # As after a kill before the documents: the marker and the objects.
    target = open_storage(folder)
    target.delete([MANIFEST, *(key for key in target.sizes("chips.zarr") if key.endswith("zarr.json"))])
    with killed_at(2), pytest.raises(Killed):
        copy_dataset(str(source.folder), str(tmp_path / "other"))
    target.put(MARKER, (tmp_path / "other" / MARKER).read_bytes())
    keys = [key for key in target.sizes("chips.zarr") if "/c/" in key][:2]
    data = target.get(keys[0])
    assert data is not None
    target.put(keys[0], bytes([data[0] ^ 1]) + data[1:])
    target.delete([keys[1]])
    made = copy_dataset(str(source.folder), str(folder))
    assert (made.sent, made.kept) == (2, first.sent - 2)
    assert contents(folder) == contents(source.folder)


@pytest.mark.parametrize("damage", ["gone", "changed", "document"])
def test_what_is_damaged_at_the_source_is_not_published(damage: str, source: Tiny, tmp_path: Path) -> None:
    key = "s1/zarr.json" if damage == "document" else "s1/backscatter/c/0/0/0/0"
    path = source.folder / "chips.zarr" / key
    data = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(StoreError, match=f"{key} is (missing|not what was written), so nothing was published"):
        copy_dataset(str(source.folder), str(tmp_path / "copy"))
    assert not is_published(open_storage(tmp_path / "copy"))
    path.write_bytes(data)
    copy_dataset(str(source.folder), str(tmp_path / "copy"))
    assert check(open_storage(tmp_path / "copy")).problems == ()


def test_the_latest_version_stands_as_the_first_and_then_as_the_next(
    source: Tiny, make_tiny: Make, tmp_path: Path, contents: Contents
) -> None:
    one, all_of_them = str(tmp_path / "one"), str(tmp_path / "all")
    copy_dataset(str(source.folder), all_of_them)
    add_version(source, make_tiny, 2)
    assert copy_dataset(str(source.folder), one).version == 1
    assert contents(Path(one)) == contents(source.folder / "versions" / "0002")
    assert copy_dataset(str(source.folder), all_of_them).version == 2
    found, there = (latest(open_storage(where)) for where in (all_of_them, source.folder))
    assert found is not None
    assert there is not None
    assert (found.version, found.path, found.fingerprint) == (2, "versions/0002", there.fingerprint)
    ours, theirs = contents(Path(all_of_them)), contents(source.folder)
    assert {key: ours[key] for key in ours if key != LATEST} == {key: theirs[key] for key in theirs if key != LATEST}
    for version in (1, 2):
        assert check(open_dataset(all_of_them, version)).problems == ()
        again = copy_dataset(str(source.folder), all_of_them, version=version)
        assert (again.was_there, again.version) == (True, version)
    assert copy_dataset(str(source.folder), str(tmp_path / "old"), version=1).version == 1
    assert contents(tmp_path / "old").keys() < theirs.keys()


@pytest.mark.parametrize("missing", ["objects", "root", "pointer"])
def test_a_copy_that_was_stopped_is_finished_first_when_the_dataset_was_updated_meanwhile(
    missing: str, updated: Tiny, make_tiny: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    copy_dataset(str(updated.folder), str(folder), version=1)
    with killed_at(10_000) as done:
        copy_dataset(str(updated.folder), str(tmp_path / "undisturbed"))
    # After the root come the marker's removal and latest.json.
    number = {"objects": 5, "root": done[0] - 1, "pointer": done[0] + 1}[missing]
    with killed_at(number), pytest.raises(Killed):
        copy_dataset(str(updated.folder), str(folder))
    assert latest(open_storage(folder)) is None
    assert is_published(open_storage(folder / "versions" / "0002")) == (missing == "pointer")
    add_version(updated, make_tiny, 3)
    assert copy_dataset(str(updated.folder), str(folder)).version == 3
    for version in (1, 2, 3):
        wanted = content(open_dataset(str(updated.folder), version))
        mine = content(open_dataset(str(folder), version))
        own = [key for key in wanted if not key.startswith(("versions/", LATEST))]
        assert {key: mine[key] for key in own} == {key: wanted[key] for key in own}


def test_a_target_that_holds_something_else_is_refused_and_left_alone(
    source: Tiny, make_tiny: Make, tmp_path: Path, contents: Contents
) -> None:
    other = make_tiny("other", n_chips=3)
    build = other.start()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("ten years of work")
    with killed_at(4), pytest.raises(Killed):
        copy_dataset(str(source.folder), str(tmp_path / "begun"))
    with pytest.raises(StoreError, match="holds an unfinished copy; the same"):
        status(open_storage(tmp_path / "begun"))
    before = {name: contents(tmp_path / name) for name in ("other", "mine", "begun")}

    def refused(folder: str, why: str) -> None:
        with pytest.raises(OutputError, match=why):
            copy_dataset(str(source.folder), str(tmp_path / folder))

    refused("other", r"is not empty \(.curate\) and no copy")
    refused("mine", r"is not empty \(thesis.txt\)")
    refused("out/copy", "lies in the dataset that is to be copied")
    refused("out", "lies in the dataset that is to be copied")
    assert {name: contents(tmp_path / name) for name in before} == before
    other.write(build)
    other.publish(build)
    refused("other", "holds another dataset")
    with pytest.raises(OutputError, match="holds an unfinished copy of another dataset"):
        copy_dataset(str(other.folder), str(tmp_path / "begun"))
    with pytest.raises(StoreError, match="holds no published dataset"):
        copy_dataset(str(tmp_path / "mine"), str(tmp_path / "copy"))


def test_an_earlier_version_is_not_put_on_top_of_a_later_one(updated: Tiny, tmp_path: Path) -> None:
    copy_dataset(str(updated.folder), str(tmp_path / "copy"))
    with pytest.raises(OutputError, match="a version of this one that is not an earlier one"):
        copy_dataset(str(updated.folder), str(tmp_path / "copy"), version=1)


def test_a_copy_in_object_storage_is_read_by_xarray_alone(updated: Tiny, bucket: str) -> None:
    to = f"{bucket}/released/tiny"
    assert copy_dataset(str(updated.folder), to, version=1).version == 1
    with killed_at(20), pytest.raises(Killed):
        copy_dataset(str(updated.folder), to)
    assert open_dataset(to).url == to
    made = copy_dataset(str(updated.folder), to)
    assert made.version == 2
    assert made.kept > 0
    wanted, found = content(updated.storage), content(open_storage(to))
    assert wanted.keys() == found.keys()
    assert {key: wanted[key] for key in wanted if key != LATEST} == {key: found[key] for key in found if key != LATEST}
    store = S3Store.from_url(f"{to}/versions/0002/chips.zarr", client_options={"allow_http": True})
    reader: Any = zarr.storage.ObjectStore(store, read_only=True)
    local = updated.folder / "versions" / "0002" / "chips.zarr"
    for group in ("s2", "s1", "label"):
        theirs, ours = (xr.open_zarr(where, group=group, chunks=None).load() for where in (reader, local))
        xr.testing.assert_identical(theirs, ours)
    # And from there to somewhere else.
    assert copy_dataset(to, f"{bucket}/mirror").version == 1
    mirrored = content(open_storage(f"{bucket}/mirror"))
    assert mirrored == {key.removeprefix("versions/0002/"): wanted[key] for key in wanted if "0002/" in key}
    assert ROOT in mirrored
