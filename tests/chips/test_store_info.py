"""``describe`` tells of a dataset and of an unfinished build without reading a pixel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chips.info import describe
from chips.storage import open_storage
from curate import __version__
from curate.errors import StoreError

if TYPE_CHECKING:
    from tests.chips.conftest import Tiny


def test_a_published_dataset_is_described(tiny: Tiny) -> None:
    tiny.build()
    info = describe(tiny.storage)
    assert (info.state, info.curate, info.layout_version) == ("published", __version__, 1)
    assert info.summary == "dataset of 5 chips in 3 shards"
    assert info.splits == {"test": 1, "train": 2, "val": 2}
    assert info.status == {"empty": 1, "ok": 4}
    assert info.reasons == {"no scene meets the chip": 1}
    reflectance = info.variables[0]
    assert (reflectance.dims, reflectance.shape) == (("chip", "time", "band", "y", "x"), (5, 2, 2, 8, 8))
    assert reflectance.raw_bytes == 5 * 2 * 2 * 8 * 8 * 2
    assert reflectance.stored_bytes > 0
    s2 = info.sources["s2"]
    assert (s2.dates, s2.scenes) == (2, 2)
    assert str(s2.first) == "2018-04-01 10:00:05+00:00"
    assert 0.3 < s2.clear < 0.7
    assert set(info.files) == {"chips.parquet", "recipe.yaml"}
    files = [path for path in tiny.folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert info.stored_bytes == sum(path.stat().st_size for path in files)


def test_an_unfinished_build_is_described(tiny: Tiny) -> None:
    build = tiny.start()
    info = describe(tiny.storage)
    assert (info.summary, info.ratio, info.sources) == ("unfinished build: 0 of 3 shards", 0.0, {})
    tiny.write(build, [0, 1])
    info = describe(tiny.storage)
    assert info.summary == "unfinished build: 2 of 3 shards"
    assert info.splits == {"test": 1, "train": 2, "val": 1}
    assert info.sources["s1"].scenes == 1
    assert info.ratio > 0


def test_a_folder_with_neither_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no dataset and no unfinished build"):
        describe(open_storage(tmp_path))
