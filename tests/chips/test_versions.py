"""Published chips read again, and the file that names the latest version of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from chips.read import published
from chips.storage import open_storage
from chips.versions import LATEST, latest, make_latest, open_dataset
from curate.errors import OutputError, StoreError

if TYPE_CHECKING:
    from tests.chips.conftest import Tiny


def test_chips_are_read_back_as_they_were_written(tiny: Tiny) -> None:
    tiny.build()
    found = published(tiny.storage)
    assert list(found.chips.values()) == list(range(5))
    wanted = {ordinal: tiny.arrays(ordinal) for ordinal in range(tiny.layout.n_shards)}
    positions = [4, 0, 3, 1]
    for variable in found.layout.variables:
        rows = [wanted[position // 2][variable.key][position % 2] for position in positions]
        np.testing.assert_array_equal(found.read(variable, positions), np.stack(rows))


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_damaged_object_is_an_error_and_never_void(damage: str, tiny: Tiny) -> None:
    tiny.build()
    found = published(tiny.storage)
    for path in sorted((tiny.folder / "chips.zarr" / "label" / "fields" / "c").rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            path.unlink() if damage == "gone" else path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    variable = found.variable("label", "fields")
    assert variable is not None
    with pytest.raises(StoreError, match="is missing" if damage == "gone" else "is not what was written"):
        found.read(variable, [0])


def test_readers_see_the_latest_version_and_any_that_is_asked_for(make_tiny: Callable[..., Tiny]) -> None:
    first = make_tiny()
    first.build()
    assert latest(first.storage) is None
    assert open_dataset(str(first.folder)).url == str(first.folder)
    second = make_tiny("out/versions/0002")
    manifest = second.build()
    assert open_dataset(str(first.folder)).url == str(first.folder), "published, and not yet named"
    make_latest(first.storage, 2, manifest.fingerprint)
    assert open_dataset(str(first.folder)).url == str(second.folder)
    assert open_dataset(str(first.folder), 1).url == str(first.folder)
    assert open_dataset(str(second.folder)).url == str(second.folder)
    said = (first.folder / LATEST).read_bytes()
    make_latest(first.storage, 2, manifest.fingerprint)
    assert (first.folder / LATEST).read_bytes() == said, "naming it again changes nothing"
    for wrong in (2, 4):
        with pytest.raises(OutputError, match="became the latest one meanwhile"):
            make_latest(first.storage, wrong, "another")
    with pytest.raises(StoreError, match="has no version 3"):
        open_dataset(str(first.folder), 3)


def test_a_damaged_pointer_is_told(tiny: Tiny) -> None:
    tiny.build()
    tiny.storage.put(LATEST, b"{")
    with pytest.raises(StoreError, match="is damaged"):
        open_dataset(str(tiny.folder))


def test_of_two_updates_that_end_at_once_one_is_told(bucket: str) -> None:
    dataset = open_storage(f"{bucket}/dataset")
    make_latest(dataset, 2, "ours")
    old = dataset.get(LATEST)
    assert old is not None
    make_latest(dataset, 3, "ours")
    assert not dataset.put_over(LATEST, b"theirs", old)
    assert not dataset.put_first(LATEST, b"theirs")
    found = latest(dataset)
    assert found is not None
    assert (found.version, found.fingerprint) == (3, "ours")
