"""A dataset built into object storage: the bytes of a local one, also after a kill, and read as others read it."""

from __future__ import annotations

import functools
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import xarray as xr
import zarr
from obstore.store import HTTPStore, ObjectStore, S3Store

from chips.storage import Storage, open_storage
from curate.errors import CurateError
from flows.console import PlainConsole
from flows.steps import build, check, info, make_request
from simulate.write import World

COMMAND = Path(sys.executable).with_name("curate")


def content(storage: Storage) -> dict[str, bytes | None]:
    return {key: storage.get(key) for key in storage.sizes()}


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def opens(store: ObjectStore) -> bool:
    for group in ("", "/s2", "/s1", "/dem", "/label"):
        try:
            zarr.open_group(zarr.storage.ObjectStore(store, read_only=True), path=f"chips.zarr{group}", mode="r")
        except (FileNotFoundError, KeyError):
            continue
        return True
    return False


def test_a_killed_build_in_object_storage_does_not_open_and_continues_to_the_bytes_of_a_local_one(
    bucket: str,
    world: World,
    world_recipe: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = f"{bucket}/team/small world"
    storage = open_storage(out)
    monkeypatch.chdir(tmp_path)
    arguments = ["build", "--aoi", str(world.region), "--recipe", str(world_recipe), "--out", out]
    process = subprocess.Popen([str(COMMAND), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and len(storage.sizes(".curate/shards")) < 2:
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    kept = len(storage.sizes(".curate/shards"))
    assert kept >= 2
    assert not opens(storage.store)
    assert info(out).summary.startswith(f"unfinished build: {kept} of")

    build(make_request(aoi=str(world.region), recipe=str(world_recipe), out=out), PlainConsole())
    assert f"{kept} of " in capfd.readouterr().err, "the shards that were there are told and kept"
    assert content(storage) == content_of(dataset)
    assert opens(storage.store)
    assert check(out, PlainConsole()).problems == ()
    assert info(f"{out}/").summary.startswith("dataset of")
    assert list(tmp_path.iterdir()) == [], "nothing is left on the disk of whoever built it"
    secrets = [os.environ[name] for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL")]
    for data in content(storage).values():
        assert data is not None
        assert not any(secret.encode() in data for secret in secrets)


INPUTS = """\
name: all-in-s3
time: 2021-04-01/2021-08-01
catalog: ../catalog.json
grid: {resolution_m: 10, size_px: 64, min_cover: 0.3}
sources:
  s2: {collection: sentinel-2-l2a, bands: [red], time: {composite: monthly, how: median}}
labels:
  fields: {vector: ../fields.geojson, attribute: label, background: 0}
  cover: {raster: [WORLDCOVER]}
split: {block_km: 1.2, buffer_km: 0.1, seed: 1}
"""


def test_area_recipe_catalog_scenes_and_labels_may_all_lie_in_object_storage(
    bucket: str, world: World, tmp_path: Path
) -> None:
    store = open_storage(f"{bucket}/inputs")
    for path in world.folder.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(world.folder).as_posix(), path.read_bytes())
    tiles = [f"../{path.relative_to(world.folder).as_posix()}" for path in sorted(world.folder.rglob("map.tif"))]
    text = INPUTS.replace("WORLDCOVER", ", ".join(tiles))
    store.put("recipes/all.yaml", text.encode())
    (world.folder / "recipes").mkdir(exist_ok=True)
    (world.folder / "recipes" / "all.yaml").write_text(text)

    local, remote = tmp_path / "local", f"{bucket}/out"
    region = world.region.relative_to(world.folder).as_posix()
    for base, out in ((str(world.folder), str(local)), (store.url, remote)):
        request = make_request(aoi=f"{base}/{region}", recipe=f"{base}/recipes/all.yaml", out=out)
        build(request, PlainConsole())
    wanted, found = content_of(local), content(open_storage(remote))
    assert found.keys() == wanted.keys()
    pixels = [key for key in wanted if "/c/" in key]
    assert len(pixels) > 20
    # Addresses of scenes differ, so the lock does, and with it the fingerprint.
    assert {key: found[key] for key in pixels} == {key: wanted[key] for key in pixels}
    assert check(remote, PlainConsole()).problems == ()


@pytest.mark.parametrize(
    ("aoi", "recipe", "told"),
    [
        ("no.geojson", "recipe.yaml", "no.geojson: cannot be read: there is no such object; correct the address"),
        ("broken.geojson", "recipe.yaml", "broken.geojson: is not valid JSON"),
        ("region.geojson", "no.yaml", "no.yaml: cannot be read: there is no such object; correct the address"),
        ("region.geojson", "recipe.yaml", "label fields: vector {} cannot be read: there is no such object"),
    ],
)
def test_inputs_that_are_not_there_are_told_by_their_address(
    bucket: str, world: World, aoi: str, recipe: str, told: str
) -> None:
    store = open_storage(bucket)
    store.put("broken.geojson", b"{")
    store.put("region.geojson", world.region.read_bytes())
    store.put("recipe.yaml", INPUTS.replace("../catalog.json", str(world.folder / "catalog.json")).encode())
    with pytest.raises(CurateError) as caught:
        build(make_request(aoi=f"{bucket}/{aoi}", recipe=f"{bucket}/{recipe}", out=f"{bucket}/out"), PlainConsole())
    assert told.format(f"{bucket}/fields.geojson") in str(caught.value).replace("/../", "/")
    assert "/tmp" not in str(caught.value)


@pytest.fixture
def uploaded(bucket: str, dataset: Path) -> str:
    """The dataset copied to a bucket by a tool that is not ours, for everybody to read."""
    public: Any = {"allow_http": True, "default_headers": {"x-amz-acl": "public-read"}}
    store = S3Store.from_url(bucket, client_options=public)
    for name, data in content_of(dataset).items():
        obstore.put(store, f"set/{name}", data)
    return f"{bucket}/set"


@pytest.mark.parametrize("how", ["s3", "http"])
def test_others_read_it_with_zarr_and_xarray_alone(uploaded: str, how: str, dataset: Path, s3_server: str) -> None:
    store: Any
    if how == "s3":
        store = S3Store.from_url(f"{uploaded}/chips.zarr", client_options={"allow_http": True})
    else:  # a public bucket is a web server that cannot list
        address = f"{s3_server}/{uploaded.removeprefix('s3://')}/chips.zarr"
        store = HTTPStore.from_url(address, client_options={"allow_http": True})
    reader = zarr.storage.ObjectStore(store, read_only=True)
    for group in ("s2", "s1", "dem", "label"):
        ours = xr.open_zarr(dataset / "chips.zarr", group=group, chunks=None)
        theirs = xr.open_zarr(reader, group=group, chunks=None)
        xr.testing.assert_identical(theirs.load(), ours.load())
    root = zarr.open_group(reader, mode="r")
    assert isinstance(array := root["s2/reflectance"], zarr.Array)
    assert array.shape[0] == ours.sizes["chip"]


@pytest.mark.parametrize("how", ["s3", "http"])
def test_what_the_page_says_of_addresses_reads_it(
    uploaded: str, how: str, dataset: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reading.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (code,) = (one for one in snippets if "{address}" in one)
    (chips,) = (one for one in snippets if "class Chips" in one)
    # The servers of the page have certificates, that of the tests has none.
    plain = functools.partial(obstore.store.from_url, client_options={"allow_http": True})
    monkeypatch.setattr(obstore.store, "from_url", plain)
    address = uploaded if how == "s3" else f"{s3_server}/{uploaded.removeprefix('s3://')}"
    names: dict[str, Any] = {"address": address, "dataset": str(dataset)}
    exec(compile(code, "reading.md", "exec"), names)
    ours = xr.open_zarr(dataset / "chips.zarr", group="s2", chunks=None)
    xr.testing.assert_identical(names["ds"].load(), ours.load())
    assert names["index"].num_rows == ours.sizes["chip"]
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    index = names["index"]
    assert duckdb.sql("SELECT count(*) FROM index").fetchall() == [(index.num_rows,)]

    exec(compile(chips, "reading.md", "exec"), names)
    there = names["Chips"](zarr.storage.ObjectStore(plain(f"{address}/chips.zarr"), read_only=True), "train")
    there.where = pickle.loads(pickle.dumps(there.where))  # as it comes to a process that is spawned
    sample = there[0]
    for key in ("image", "mask"):
        np.testing.assert_array_equal(sample[key], names["sample"][key])


def test_a_dataset_that_was_copied_is_as_promised(uploaded: str) -> None:
    done = subprocess.run([str(COMMAND), "check", uploaded], capture_output=True, text=True, timeout=120, check=False)
    assert "the dataset is as promised" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "", "AWS_ACCESS_KEY_ID": ""}, "no credentials were found; set AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "cannot be reached. Please check the network"),
        ({"OUT": "s3://no-such-bucket-here/x"}, "there is no such bucket. Please create it, or correct its name"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_no_pixel_is_read_before(
    bucket: str, world: World, world_recipe: Path, setting: dict[str, str], told: str
) -> None:
    out = setting.get("OUT", f"{bucket}/x")
    arguments = ["build", "--aoi", str(world.region), "--recipe", str(world_recipe), "--out", out]
    environment = {**os.environ, **setting}
    done = subprocess.run(
        [str(COMMAND), *arguments], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
