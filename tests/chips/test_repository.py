"""A dataset in an Icechunk repository: one commit, nothing before it, and the values of a plain store."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
import pytest
import xarray as xr
import zarr

from chips.check import check
from chips.info import describe
from chips.layout import COMMITTED, REPOSITORY
from chips.read import published
from chips.repository import CommitAs, attached, commit
from chips.status import status
from chips.storage import Storage, open_storage
from chips.versions import commit_as, make_latest, open_dataset, version_url
from chips.write import (
    JOURNAL,
    begun_as,
    finished_shards,
    is_published,
    journal,
    start_build,
    write_shard,
    written_storage,
)
from curate.errors import OutputError, StoreError

if TYPE_CHECKING:
    from tests.chips.conftest import Tiny

GROUPS = ("s2", "s1", "label")


@pytest.fixture
def tiny(make_tiny: Callable[..., Tiny]) -> Tiny:
    return make_tiny("repository", store="icechunk")


def repository(folder: Path) -> icechunk.Repository:
    return icechunk.Repository.open(icechunk.local_filesystem_storage(str(folder / REPOSITORY)))


def groups(session: icechunk.Session) -> dict[str, xr.Dataset]:
    """All groups as a reader without curate opens them, stored numbers."""
    return {
        name: xr.open_zarr(session.store, group=name, chunks=None, consolidated=False, mask_and_scale=False)
        for name in GROUPS
    }


def chunks_of(folder: Path) -> set[str]:
    return {path.name for path in (folder / REPOSITORY / "chunks").iterdir()}


def test_every_value_is_that_of_a_plain_store(tiny: Tiny, make_tiny: Callable[..., Tiny]) -> None:
    plain = make_tiny("plain")
    plain.build()
    tiny.build()
    told = json.loads((tiny.folder / COMMITTED).read_text())
    found = groups(repository(tiny.folder).readonly_session(tag=told["tag"]))
    for name in GROUPS:
        wanted = xr.open_zarr(plain.folder / "chips.zarr", group=name, chunks=None, mask_and_scale=False)
        xr.testing.assert_identical(found[name].load(), wanted.load())
    assert not (tiny.folder / "chips.zarr").exists()
    assert not (tiny.folder / JOURNAL).exists()
    assert repository(tiny.folder).lookup_tag(told["tag"]) == told["snapshot"]


def test_a_build_is_one_commit_and_nothing_opens_before_it(tiny: Tiny) -> None:
    build = tiny.start()
    tiny.write(build)
    before = repository(tiny.folder)
    assert len(list(before.ancestry(branch="main"))) == 1
    with pytest.raises((FileNotFoundError, KeyError, ValueError)):
        zarr.open_group(before.readonly_session(branch="main").store, mode="r")
    assert not is_published(open_storage(tiny.folder))
    assert status(open_dataset(str(tiny.folder))).state == "built"

    tiny.publish(build)
    commits = list(repository(tiny.folder).ancestry(branch="main"))
    assert [commit.message for commit in commits] == ["v1: 5 chips", "Repository initialized"]
    assert commits[0].metadata["fingerprint"] == "tiny-1"
    assert status(open_dataset(str(tiny.folder))).state == "published"


def test_objects_hold_one_date_so_that_later_ones_leave_them_alone(tiny: Tiny) -> None:
    tiny.build()
    root = zarr.open_group(open_dataset(str(tiny.folder)).place("chips.zarr"), mode="r")
    array = root["s2/reflectance"]
    assert isinstance(array, zarr.Array)
    assert array.shards == (2, 1, 2, 8, 8)
    assert array.chunks == (1, 1, 2, 8, 8)


def test_it_is_read_by_our_own_code_and_keeps_its_promises(tiny: Tiny) -> None:
    tiny.build()
    storage = open_dataset(str(tiny.folder))
    assert check(storage).problems == ()
    assert describe(storage).state == "published"
    opened = published(storage)
    variable = opened.variable("s2", "reflectance")
    assert variable is not None
    wanted = np.concatenate([tiny.arrays(ordinal)[variable.key] for ordinal in range(3)])
    np.testing.assert_array_equal(opened.read(variable, [4, 0, 3]), wanted[[4, 0, 3]])
    assert pickle.loads(pickle.dumps(opened)).read(variable, [1]).tolist() == wanted[[1]].tolist()


def _write(arguments: tuple[Any, ...]) -> None:
    write_shard(*arguments)


def test_shards_are_written_by_any_process_in_any_order_and_again(tiny: Tiny, make_tiny: Callable[..., Tiny]) -> None:
    build = tiny.start()
    work = [
        (build, n, tiny.layout.chips_of(n).start, tiny.arrays(n), tiny.records(n)) for n in (2, 0, 1, 0)
    ]  # fmt: skip
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_write, work))
    assert finished_shards(build) == {0, 1, 2}
    tiny.publish(build)
    other = make_tiny("other", store="icechunk")
    other.build()
    one, two = (groups(repository(each.folder).readonly_session(tag="v1")) for each in (tiny, other))
    for name in GROUPS:
        xr.testing.assert_identical(one[name].load(), two[name].load())
    assert (tiny.folder / "manifest.json").read_bytes() == (other.folder / "manifest.json").read_bytes()


@pytest.mark.parametrize("harm", ["gone", "damaged", "chunk", "chunk gone"])
def test_what_was_lost_of_a_shard_is_found_and_the_shard_built_again(tiny: Tiny, harm: str) -> None:
    build = tiny.start()
    tiny.write(build, [0])
    there = chunks_of(tiny.folder)
    tiny.write(build, [1, 2])
    fork = tiny.folder / JOURNAL / "forks" / "000000.bin"
    if harm == "gone":
        fork.unlink()
    elif harm == "damaged":
        fork.write_bytes(fork.read_bytes()[:-1])
    else:
        for name in there:
            path = tiny.folder / REPOSITORY / "chunks" / name
            path.write_bytes(path.read_bytes()[::-1])
            if harm == "chunk gone":
                path.unlink()
    again = tiny.start()
    assert finished_shards(again) == {1, 2}
    tiny.write(again, [0])
    tiny.publish(again)
    assert check(open_dataset(str(tiny.folder))).problems == ()


@pytest.mark.parametrize("stage", ["commit", "tag", "marker"])
def test_killed_while_publishing_it_is_finished_with_one_commit(
    tiny: Tiny, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    build = tiny.start()
    tiny.write(build)
    with monkeypatch.context() as patch:
        if stage == "marker":
            patch.setattr(Storage, "put_first", killed)
        else:
            owner = icechunk.Session if stage == "commit" else icechunk.Repository
            patch.setattr(owner, "commit" if stage == "commit" else "create_tag", killed)
        with pytest.raises(Killed):
            tiny.publish(build)
    assert not is_published(open_storage(tiny.folder))
    again = tiny.start()
    assert finished_shards(again) == {0, 1, 2}
    tiny.publish(again)
    assert len(list(repository(tiny.folder).ancestry(branch="main"))) == 2
    assert check(open_dataset(str(tiny.folder))).problems == ()


def test_two_builds_of_one_repository_cannot_both_be_committed(tiny: Tiny) -> None:
    build = tiny.start()
    tiny.write(build)
    session = repository(tiny.folder).writable_session("main")
    zarr.group(session.store)
    session.commit("another")
    with pytest.raises(OutputError, match="not empty any more: another process has committed"):
        tiny.publish(build)


def test_a_version_follows_the_one_before_and_takes_the_room_of_what_is_new(tiny: Tiny) -> None:
    tiny.build()
    old = groups(repository(tiny.folder).readonly_session(branch="main"))
    before = {name: ds.copy(deep=True).load() for name, ds in old.items()}
    first = chunks_of(tiny.folder)

    longer = replace(tiny, layout=_with_steps(tiny, 6), folder=Path(version_url(tiny.storage, 2)))
    build = start_build(longer.storage, longer.layout, "tiny-2", {"recipe.yaml": b"-"}, commit=commit_as(2))
    for ordinal in range(3):
        start = tiny.layout.chips_of(ordinal).start
        arrays = {
            key: _lengthened(array, 6) if key[0] == "s2" else array for key, array in tiny.arrays(ordinal).items()
        }
        if ordinal == 0:
            arrays["s2", "reflectance"][:, 2] = np.random.default_rng(9).integers(1, 10_000, (2, 2, 8, 8))
            arrays["s2", "scl"][0, 2] = 4
            arrays["s2", "acquired"][0, 2] = np.datetime64("2018-06-01T00:00:00", "s")
        write_shard(build, ordinal, start, arrays, tiny.records(ordinal))
    longer.publish(build, steps=3)
    make_latest(open_storage(tiny.folder), 2, "tiny-2")

    commits = [commit.message for commit in repository(tiny.folder).ancestry(branch="main")]
    assert commits == ["v2: 5 chips", "v1: 5 chips", "Repository initialized"]
    assert json.loads((longer.folder / COMMITTED).read_text())["repository"] == f"../../{REPOSITORY}"
    new = groups(repository(tiny.folder).readonly_session(branch="main"))
    for name in GROUPS:
        xr.testing.assert_identical(old[name].load(), before[name])  # who had it open goes on reading it
    assert (new["s2"].reflectance[:, :2].to_numpy() == before["s2"].reflectance.to_numpy()).all()
    # Of pixels only the date that came; what is smaller than half a kilobyte lies in Icechunk's own manifests.
    assert len(chunks_of(tiny.folder) - first) == 1
    assert first <= chunks_of(tiny.folder)
    copy = tiny.folder.with_name("moved")
    shutil.move(tiny.folder, copy)
    latest, earlier = open_dataset(str(copy)), open_dataset(str(copy), 1)
    assert published(latest).layout.object_steps == 1
    assert check(earlier).problems == ()
    # The records tell nothing of the third date, so that much is wrong with the later one.
    assert not [problem for problem in check(latest).problems if "chips.zarr/" in problem or "opens" in problem]


def _with_steps(tiny: Tiny, steps: int) -> Any:
    changed = [
        replace(v, shape=(steps, *v.shape[1:])) if v.group == "s2" and v.dims[0] == "time" else v
        for v in tiny.layout.variables
    ]
    return replace(tiny.layout, variables=tuple(changed))


def _lengthened(array: Any, steps: int) -> Any:
    void: Any = np.nan if array.dtype.kind == "f" else np.datetime64("NaT") if array.dtype.kind == "M" else 0
    out = np.full((len(array), steps, *array.shape[2:]), void, array.dtype)
    out[:, : array.shape[1]] = array
    return out


def test_a_version_that_does_not_follow_the_latest_is_refused(tiny: Tiny) -> None:
    tiny.build()
    session = repository(tiny.folder).writable_session("main")
    zarr.open_group(session.store).attrs["mine"] = 1
    session.commit("by hand")
    storage = open_storage(version_url(tiny.storage, 2), create=True)
    with pytest.raises(OutputError, match="not at v1 any more"):
        start_build(storage, tiny.layout, "tiny-2", {}, commit=commit_as(2))


def test_a_version_whose_folder_was_removed_is_told_from_another_commit(tiny: Tiny) -> None:
    tiny.build()
    later = replace(tiny, folder=Path(version_url(tiny.storage, 2)))
    for _ in range(2):  # of a version that is in no commit nothing is left
        shutil.rmtree(later.folder, ignore_errors=True)
        build = start_build(later.storage, later.layout, "tiny-2", {"recipe.yaml": b"-"}, commit=commit_as(2))
        later.write(build)
    later.publish(build)
    shutil.rmtree(later.folder)
    with pytest.raises(OutputError, match="has a commit of v2 already, and the folder of that version is gone"):
        start_build(later.storage, later.layout, "tiny-2", {}, commit=commit_as(2))


def test_a_commit_that_is_not_there_is_told(tiny: Tiny) -> None:
    tiny.build()
    place = tiny.folder / COMMITTED
    told = json.loads(place.read_text())
    place.write_text(json.dumps({**told, "tag": "v9"}))
    with pytest.raises(StoreError, match="the version v9 cannot be opened"):
        open_dataset(str(tiny.folder))
    place.write_text(json.dumps({**told, "snapshot": "1CECHNKREP0F1RSTCMT0"}))
    with pytest.raises(StoreError, match="is not the commit 1CECHNKREP0F1RSTCMT0"):
        open_dataset(str(tiny.folder))
    place.write_text("{")
    with pytest.raises(StoreError, match="damaged or of another release"):
        open_dataset(str(tiny.folder))


def test_damage_in_the_repository_is_found(tiny: Tiny) -> None:
    tiny.build()
    largest = max((tiny.folder / REPOSITORY / "chunks").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[10] ^= 255
    largest.write_bytes(data)
    problems = check(attached(open_storage(tiny.folder))).problems
    assert any("SHA-256" in problem for problem in problems)


def test_a_chunk_that_the_repository_has_lost_is_told_and_not_taken_for_void(tiny: Tiny) -> None:
    tiny.build()
    max((tiny.folder / REPOSITORY / "chunks").iterdir(), key=lambda path: path.stat().st_size).unlink()
    (problem,) = check(attached(open_storage(tiny.folder))).problems
    assert "is in the commit, and the repository has lost it" in problem


@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
def test_an_unfinished_build_that_was_copied_or_moved_does_not_write_where_it_was_begun(
    tiny: Tiny, make_tiny: Callable[..., Tiny], how: Callable[[Path, Path], object]
) -> None:
    tiny.write(tiny.start(), [0])
    other = make_tiny("elsewhere", store="icechunk")
    how(tiny.folder, other.folder)
    with pytest.raises(OutputError, match="was moved or copied since"):
        other.start()
    if how is shutil.move:
        shutil.move(other.folder, tiny.folder)
    alias = replace(tiny, folder=tiny.folder.with_name("alias"))
    alias.folder.symlink_to(tiny.folder)
    build = alias.start()
    assert finished_shards(build) == {0}
    alias.write(build, [1, 2])
    alias.publish(build)
    assert check(open_dataset(str(tiny.folder))).problems == ()


def test_of_two_processes_that_begin_at_once_the_shards_of_one_are_built_again(tiny: Tiny) -> None:
    tiny.write(tiny.start(), [0])
    (tiny.folder / JOURNAL / "icechunk.json").unlink()  # as the other one saw it
    tiny.write(tiny.start(), [1, 2])
    again = tiny.start()
    assert finished_shards(again) == {1, 2}
    tiny.write(again, [0])
    tiny.publish(again)
    assert check(open_dataset(str(tiny.folder))).problems == ()


def test_killed_while_its_repository_is_made_it_begins_anew(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chips.repository._IN_THE_MAKING_S", 0.0)
    tiny.start()
    (tiny.folder / JOURNAL / "icechunk.json").unlink()
    shutil.rmtree(tiny.folder / REPOSITORY / "refs")
    tiny.build()
    assert check(open_dataset(str(tiny.folder))).problems == ()


def test_another_process_that_commits_the_same_build_meanwhile_is_no_harm(tiny: Tiny) -> None:
    build = tiny.start()
    tiny.write(build)
    late = written_storage(build)
    begun = begun_as(open_storage(tiny.folder))
    told = {"fingerprint": build.fingerprint, "tag": "v1"}
    first = commit(written_storage(build), begun, "v1: 5 chips", told)  # type: ignore[arg-type]
    assert commit(late, begun, "v1: 5 chips", told) == first  # type: ignore[arg-type]
    assert len(list(repository(tiny.folder).ancestry(branch="main"))) == 2


def test_a_journal_makes_nothing_but_forks(tiny: Tiny, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    build = tiny.start()
    tiny.write(build)
    place = tiny.folder / JOURNAL / "icechunk.json"
    told = json.loads(place.read_text())
    place.write_text(json.dumps({**told, "fork": base64.b64encode(pickle.dumps(Evil())).decode()}))
    with pytest.raises(OutputError, match="is no fork"):
        written_storage(build)
    assert not (tmp_path / "touched").exists()


def test_a_first_version_wants_an_empty_repository(tiny: Tiny) -> None:
    tiny.build()
    other = open_storage(tiny.folder.parent / "beside", create=True)
    with pytest.raises(OutputError, match="not empty any more"):
        start_build(other, tiny.layout, "x", {}, commit=CommitAs(f"../{tiny.folder.name}/{REPOSITORY}"))


def test_the_journal_of_a_build_lists_its_forks(tiny: Tiny) -> None:
    build = tiny.start()
    tiny.write(build)
    assert [shard.fork is not None and shard.fork.key for shard in journal(build)] == [
        f"{JOURNAL}/forks/{ordinal:06d}.bin" for ordinal in range(3)
    ]
