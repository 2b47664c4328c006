"""A reader sees a whole dataset or none, wherever publishing is killed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import pytest
import xarray as xr
import zarr

from chips.check import check
from chips.index import INDEX
from chips.manifest import MANIFEST, read_manifest
from chips.publish import publish
from chips.storage import open_storage
from chips.write import JOURNAL, BuildRef, finished_shards, is_published, journal, write_shard
from curate.errors import IncompleteError, OutputError, StoreError

if TYPE_CHECKING:
    from tests.chips.conftest import Tiny

Contents = Callable[[Path], Mapping[str, bytes]]


class Killed(Exception):
    """Stands for kill -9 at one operation on the storage."""


def kill_at(patch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Make the storage operation of that number fail before it does anything; the list counts them."""
    done = [0]

    def fails(name: str) -> None:
        original = getattr(obstore, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            done[0] += 1
            if done[0] >= number:
                raise Killed
            return original(*args, **kwargs)

        patch.setattr(obstore, name, counted)

    for name in ("put", "delete"):
        fails(name)
    return done


def opens(folder: Path) -> bool:
    try:
        zarr.open_group(folder / "chips.zarr", mode="r")
    except (FileNotFoundError, KeyError):
        return False
    return True


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_step_the_store_is_closed_and_the_next_run_gives_the_same_bytes(
    make_tiny: Callable[..., Tiny], contents: Contents, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    undisturbed = make_tiny("undisturbed", n_chips=3)
    with monkeypatch.context() as patch:
        done = kill_at(patch, 10_000)
        undisturbed.build()
    wanted, steps = contents(undisturbed.folder), done[0]
    # The first and the last steps are the telling ones; of the many alike ones between, every so many.
    for number in sorted({*range(1, 6), *range(6, steps - 7, stride), *range(steps - 7, steps + 1)}):
        tiny = make_tiny(f"killed-{number}", n_chips=3)
        with monkeypatch.context() as patch:
            kill_at(patch, number)
            with pytest.raises(Killed):
                tiny.build()
        assert opens(tiny.folder) == is_published(tiny.storage)
        if is_published(tiny.storage):
            # Killed while the journal was being removed: publishing once more removes the rest.
            publish(BuildRef(str(tiny.folder), "tiny-1", tiny.layout), [], {})
        else:
            again(tiny)
        assert contents(tiny.folder) == wanted, f"killed at step {number} of {steps}"


def again(tiny: Tiny) -> None:
    """What the same command does when it is run again."""
    build = tiny.start()
    assert not opens(tiny.folder)
    tiny.write(build, sorted(set(range(tiny.layout.n_shards)) - finished_shards(build)))
    tiny.publish(build)


def test_after_a_kill_while_publishing_no_document_is_left_when_the_build_goes_on(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = tiny.start()
    tiny.write(build)
    original = obstore.put

    def fails_at_the_root(store: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        if key == "chips.zarr/zarr.json":
            raise Killed
        return original(store, key, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", fails_at_the_root)
        with pytest.raises(Killed):
            tiny.publish(build)
    assert not opens(tiny.folder)
    assert list(tiny.folder.rglob("zarr.json"))
    tiny.start()
    assert not list(tiny.folder.rglob("zarr.json"))
    assert not (tiny.folder / MANIFEST).exists()


def test_the_root_document_is_written_last_and_the_manifest_before_any_document(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = tiny.start()
    tiny.write(build)
    put: list[str] = []
    original = obstore.put

    def noted(store: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        put.append(key)
        return original(store, key, *args, **kwargs)

    monkeypatch.setattr(obstore, "put", noted)
    tiny.publish(build)
    written = [key for key in put if key.endswith("zarr.json")]
    assert put[-1] == "chips.zarr/zarr.json"
    assert put[-len(written) - 1] == MANIFEST
    groups = [f"chips.zarr/{name}/zarr.json" for name in ("s2", "s1", "label")]
    assert written[-4:-1] == groups


def test_a_build_with_missing_shards_is_not_published(tiny: Tiny) -> None:
    build = tiny.start()
    tiny.write(build, [0, 2])
    with pytest.raises(IncompleteError, match="2 of 3 shards are built and kept") as caught:
        tiny.publish(build)
    assert "not written yet: shard 1" in str(caught.value)
    assert not opens(tiny.folder)


def test_an_object_that_vanished_before_publishing_is_told(tiny: Tiny) -> None:
    build = tiny.start()
    tiny.write(build)
    (tiny.folder / "chips.zarr/label/fields/c/0/0/0").unlink()
    with pytest.raises(StoreError, match=r"label/fields/c/0/0/0 of shard 0 is gone"):
        tiny.publish(build)
    tiny.write(build, sorted({0, 1, 2} - finished_shards(build)))
    tiny.publish(build)
    assert opens(tiny.folder)


def test_objects_that_no_shard_knows_are_removed(tiny: Tiny) -> None:
    build = tiny.start()
    tiny.write(build)
    stray = tiny.folder / "chips.zarr/s2/reflectance/c/99/0/0/0/0"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"of an attempt with other chips")
    half = tiny.folder / "chips.zarr/s2/scl/c/0/0/0/0#3"
    half.write_bytes(b"of a writer that was killed")
    tiny.publish(build)
    assert not stray.parent.parent.exists()
    assert not half.exists()
    assert not (tiny.folder / JOURNAL).exists()


def test_the_manifest_lists_every_file_with_its_size_and_checksum(tiny: Tiny, contents: Contents) -> None:
    import hashlib

    manifest = tiny.build()
    found = contents(tiny.folder)
    assert read_manifest(tiny.storage) == manifest
    assert manifest.objects().keys() | {MANIFEST} == found.keys()
    for key, written in manifest.objects().items():
        assert written.size == len(found[key])
        assert written.sha256 == hashlib.sha256(found[key]).hexdigest()
    assert [written.key for written in manifest.files] == [INDEX, "recipe.yaml"]
    assert found["recipe.yaml"] == b"name: tiny\n"
    assert str(tiny.folder) not in found[MANIFEST].decode()
    assert json.loads(found[MANIFEST])["shards"][1]["chips"] == ["32631_2_1", "32631_3_1"]


def test_xarray_opens_store_groups_and_tree_without_our_code_or_a_warning(tiny: Tiny) -> None:
    tiny.build()
    url = str(tiny.folder / "chips.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_zarr(url) as root:
            assert set(root.coords) == {"chip", "split", "status", "epsg", "x0", "y0", "lon", "lat"}
            assert root.sizes == {"chip": 5}
        with xr.open_zarr(url, group="s2", chunks=None) as ds:
            assert ds.sizes == {"chip": 5, "time": 2, "band": 2, "y": 8, "x": 8}
            train = ds.isel(chip=ds.split == "train")
            assert train.chip.to_numpy().tolist() == ["32631_0_1", "32631_3_1"]
            assert ds.band.to_numpy().tolist() == ["red", "nir"]
            assert ds.status.to_numpy().tolist() == ["ok", "ok", "ok", "empty", "ok"]
            assert np.isnan(ds.reflectance.to_numpy()[3]).all()
            assert 0 < float(ds.reflectance.max()) <= 1
            assert ds.acquired.to_numpy()[0].astype("datetime64[s]").astype(str).tolist() == [
                "2018-04-01T10:00:05",
                "2018-05-03T10:00:07",
            ]
            assert np.isnat(ds.acquired.to_numpy()[3]).all()
            assert ds.clear_mask.dtype == bool
            assert "wavelength_nm" in ds.coords
        with xr.open_zarr(url, group="s1") as ds:
            assert ds.time.to_numpy().astype("datetime64[D]").astype(str).tolist() == [
                "2018-04-01",
                "2018-05-01",
                "2018-06-01",
            ]
            assert {"time_end", "orbit"} <= set(ds.coords)
        with xr.open_datatree(url, engine="zarr") as tree:
            assert set(tree.children) == {"s2", "s1", "label"}
            assert tree["label/fields"].sizes == {"chip": 5, "y": 8, "x": 8}


def test_one_request_opens_the_store_and_one_each_group(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.build()
    read: list[str] = []
    original = obstore.get_async

    async def noted(store: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        read.append(key)
        return await original(store, key, *args, **kwargs)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("over HTTP nothing can be listed")

    monkeypatch.setattr(obstore, "get_async", noted)
    for name in ("list", "list_with_delimiter_async"):
        monkeypatch.setattr(obstore, name, refuse)
    store = zarr.storage.ObjectStore(open_storage(tiny.folder / "chips.zarr").store, read_only=True)
    root = zarr.open_group(store, mode="r")
    inside = root["s2"]
    assert isinstance(inside, zarr.Group)
    assert "reflectance" in dict(inside.members())
    # zarr also asks for the documents of Zarr 2, which are not there.
    assert [key for key in read if key.endswith("zarr.json")] == ["zarr.json"]
    read.clear()
    group = zarr.open_group(store, path="s2", mode="r")
    assert "reflectance" in dict(group.members())
    assert [key for key in read if key.endswith("zarr.json")] == ["s2/zarr.json"]


def test_trimming_that_would_cut_off_dates_is_refused(tiny: Tiny) -> None:
    build = tiny.start()
    tiny.write(build)
    records = [record for shard in journal(build) for record in shard.chips]
    with pytest.raises(ValueError, match="trimming to 1 steps would cut off dates, 2 are used"):
        publish(build, records, {}, trim={"s2": 1})


def test_records_of_another_order_are_refused(tiny: Tiny) -> None:
    build = tiny.start()
    tiny.write(build)
    records = [record for shard in journal(build) for record in shard.chips]
    with pytest.raises(ValueError, match="in their order"):
        publish(build, records[::-1], {})


@pytest.mark.parametrize("name", ["chips.zarr/s2/x", "manifest.json", "../x", ".curate/build.json", "/etc/x"])
def test_a_side_file_cannot_take_the_place_of_the_store(tiny: Tiny, name: str) -> None:
    build = tiny.start()
    tiny.write(build)
    records = [record for shard in journal(build) for record in shard.chips]
    with pytest.raises(ValueError, match="cannot be named"):
        publish(build, records, {name: b""})


def test_publishing_over_another_dataset_is_refused(tiny: Tiny) -> None:
    from dataclasses import replace

    build = tiny.start()
    tiny.write(build)
    manifest = tiny.publish(build)
    assert publish(build, [], {}) == manifest
    with pytest.raises(OutputError, match="finished dataset of another build"):
        publish(replace(build, fingerprint="other"), [], {})


def test_attributes_reach_the_root_and_one_zone_is_named(tiny: Tiny) -> None:
    build = tiny.start()
    for ordinal in range(3):
        chips = tiny.layout.chips_of(ordinal)
        write_shard(build, ordinal, chips.start, tiny.arrays(ordinal), tiny.records(ordinal))
    records = [record for shard in journal(build) for record in shard.chips]
    publish(build, records, {}, {"license": "CC-BY-4.0"})
    root = zarr.open_group(tiny.folder / "chips.zarr", mode="r")
    assert dict(root.attrs) | {"license": "CC-BY-4.0", "title": "tiny", "proj:code": "EPSG:32631"} == dict(root.attrs)
    assert root["s2"].attrs["spatial:dimensions"] == ["y", "x"]
    assert root["s2/reflectance"].attrs["scale_factor"] == 0.0001


def test_coordinates_of_many_chips_have_several_chunks(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chips.metadata.COORDINATE_CHUNK", 2)
    tiny.build()
    assert len(list((tiny.folder / "chips.zarr/s2/split/c").iterdir())) == 3
    with xr.open_zarr(tiny.folder / "chips.zarr", group="s2", chunks=None) as ds:
        assert ds.chip.to_numpy().tolist() == [f"32631_{i}_1" for i in range(5)]
        assert ds.split.to_numpy().tolist() == ["train", "val", "test", "train", "val"]
        assert ds.x0.to_numpy().tolist() == [0, 80, 160, 240, 320]
    assert check(tiny.storage).problems == ()
