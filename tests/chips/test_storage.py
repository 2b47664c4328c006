"""Storage: a local folder or an object store, with errors that are sentences."""

from __future__ import annotations

import os
from pathlib import Path

import obstore
import pytest

from chips.storage import Storage, open_storage
from curate.errors import OutputError


def test_objects_are_put_read_listed_and_removed(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "new" / "folder", create=True)
    assert storage.get("a/b.json") is None
    storage.put("a/b.json", b"one")
    storage.put("a/b.json", b"two")
    storage.put("c", b"")
    assert storage.get("a/b.json") == b"two"
    assert storage.digest("a/b.json") == (3, "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3")
    assert storage.digest("nothing") is None
    assert storage.sizes() == {"a/b.json": 3, "c": 0}
    assert storage.sizes("a") == {"a/b.json": 3}
    assert storage.top() == ("a", "c")
    storage.delete(["a/b.json", "a/b.json", "nothing"])
    assert storage.top() == ("c",)


def test_a_key_below_an_object_reads_as_missing(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.put("file", b"")
    assert storage.get("file/below") is None


def test_a_path_relative_to_the_working_directory_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage("out", create=True).url == str(tmp_path / "out")
    assert open_storage((tmp_path / "out").as_uri()).url == str(tmp_path / "out")


def test_a_missing_folder_is_made_only_when_asked(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no such folder"):
        open_storage(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="this is a file"):
        open_storage(tmp_path / "file", create=True)
    with pytest.raises(OutputError, match=r"cannot be made \(Not a directory\)"):
        open_storage(tmp_path / "file" / "below", create=True)


def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere, so permissions cannot be tried")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        open_storage(tmp_path / "locked" / "out", create=True)
    with pytest.raises(OutputError, match="make it writable or choose another folder"):
        open_storage(tmp_path / "locked").put("x", b"")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            obstore.exceptions.GenericError(
                "Generic LocalFileSystem error: Unable to copy: No space left on device (os error 28)\n\nDebug"
            ),
            ": Unable to copy: No space left on device. Please free some space, then run",
        ),
        (OSError("Permission denied (os error 13)"), "Permission denied. Please make it writable or choose another"),
        (obstore.exceptions.GenericError("HTTP 503"), "HTTP 503. Please see that the storage can be reached"),
    ],
)
def test_what_the_storage_refuses_becomes_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, advice: str
) -> None:
    storage = open_storage(tmp_path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(obstore, "put", refuse)
    with pytest.raises(OutputError) as caught:
        storage.put("a/b", b"")
    assert str(caught.value).startswith(f"{tmp_path}: a/b cannot be written: ")
    assert advice in str(caught.value)
    assert "Debug" not in str(caught.value)


def test_an_address_we_do_not_know_is_told() -> None:
    with pytest.raises(
        OutputError, match="gopher:// is no storage that can be opened here; known are s3://, gs:// and az://"
    ):
        open_storage("gopher://somewhere/out")


def test_object_stores_open_by_their_address() -> None:
    storage = open_storage("memory:///", create=True)
    assert isinstance(storage, Storage)
    storage.put("a/b", b"x")
    storage.sweep()
    assert storage.sizes() == {"a/b": 1}
    storage.delete(["a/b", "a/b"])
    assert storage.top() == ()


def test_sweeping_removes_what_killed_writers_left_and_nothing_else(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.put("a/whole", b"x")
    (tmp_path / "a" / "half#12").touch()
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "half#1").touch()
    (tmp_path / "issue#x").touch()
    storage.sweep()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "a/whole", "issue#x"]
