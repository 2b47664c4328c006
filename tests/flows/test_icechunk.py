"""`store: {format: icechunk}`: a build and its updates as commits that anybody can read, also in object storage."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import icechunk
import pytest
import xarray as xr

from chips.copy import copy_dataset
from chips.layout import COMMITTED, REPOSITORY
from chips.storage import Storage, open_storage
from flows.console import PlainConsole
from flows.steps import build, check, info, make_request, status
from flows.update import make_update, update
from publish.torch import ChipDataset
from simulate.world import WorldSpec
from simulate.write import World, write_world

RECIPE = """\
name: committed
time: {time}
catalog: catalog.json
grid: {{resolution_m: 10, size_px: 32, min_cover: 0.5}}
sources:
  s2:
    collection: sentinel-2-l2a
    bands: [red, nir]
    mask: {{hide: [void, saturated, shadow, cloud, cirrus], dilate_m: 20}}
    time: {{composite: monthly}}
  dates: {{collection: sentinel-2-l2a, bands: [red], time: {{series: true}}, keep: {{min_clear: 0.3}}}}
  dem: {{collection: cop-dem-glo-30, terrain: {{derive: [slope]}}}}
labels:
  worldcover: {{product: esa-worldcover, year: 2021}}
split: {{block_km: 1, buffer_km: 0.1, shares: {{train: 0.6, val: 0.2, test: 0.2}}, seed: 1}}
store: {{format: {store}, shard_chips: 16}}
report: {report}
"""
SHORT, LONG = "2021-04-01/2021-06-01", "2021-04-01/2021-07-01"
GROUPS = ("s2", "dates", "dem", "label")
Curate = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> World:
    spec = WorldSpec(size_px=200, dates=4, every_days=20, bands=("B04", "B08"), radar_dates=1, cloudiness=0.2)
    return write_world(tmp_path_factory.mktemp("land"), spec)


def recipe(land: World, store: str = "icechunk", span: str = SHORT, report: bool = False) -> str:
    path = land.folder / f"{store}-{span.replace('/', '-')}.yaml"
    path.write_text(RECIPE.format(store=store, time=span, report=str(report).lower()))
    return str(path)


def made(land: World, out: str, store: str = "icechunk", span: str = SHORT, report: bool = False) -> str:
    request = make_request(aoi=str(land.region), recipe=recipe(land, store, span, report), out=out)
    build(request, PlainConsole())
    return out


@pytest.fixture(scope="module")
def plain(land: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(made(land, str(tmp_path_factory.mktemp("plain") / "dataset"), "zarr"))


@pytest.fixture(scope="module")
def longer(land: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(made(land, str(tmp_path_factory.mktemp("longer") / "dataset"), "zarr", LONG))


def same(session: icechunk.Session, dataset: Path) -> None:
    """All values and attributes in a repository are those of a plain store."""
    options: dict[str, Any] = {"chunks": None, "mask_and_scale": False}
    for group in GROUPS:
        found = xr.open_zarr(session.store, group=group, consolidated=False, **options)
        wanted = xr.open_zarr(dataset / "chips.zarr", group=group, **options)
        xr.testing.assert_identical(found.load(), wanted.load())


def local(folder: Path) -> icechunk.Repository:
    return icechunk.Repository.open(icechunk.local_filesystem_storage(str(folder / REPOSITORY)))


def _one_sample(dataset: str, queue: Any) -> None:
    queue.put(float(ChipDataset(dataset, sources=["s2"], labels=["worldcover"])[0]["image"][0].mean()))


def test_a_dataset_is_one_commit_and_every_command_reads_it(
    land: World, plain: Path, tmp_path: Path, curate: Curate
) -> None:
    out = tmp_path / "committed"
    made(land, str(out), report=True)
    same(local(out).readonly_session(branch="main"), plain)
    assert check(str(out), PlainConsole()).problems == ()
    assert status(str(out)).state == "published"
    assert info(str(out)).chips == info(str(plain)).chips

    card = (out / "README.md").read_text()
    snippet = card.split("```python\n")[1].split("```")[0]
    ran = subprocess.run([sys.executable, "-c", snippet + "print(train.sizes['chip'])"], cwd=out, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    assert int(ran.stdout.split()[-1]) == info(str(out)).splits["train"]
    page = (Path(__file__).parents[2] / "docs" / "reading.md").read_text(encoding="utf-8")
    (code,) = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "icechunk" in one)
    names: dict[str, Any] = {"dataset": str(out)}
    exec(compile(code, "reading.md", "exec"), names)
    assert names["ds"].sizes["chip"] == info(str(out)).chips

    collection = json.loads((out / "collection.json").read_text())
    assert collection["assets"]["s2"]["href"] == f"./{COMMITTED}#s2"

    chip = xr.open_zarr(plain / "chips.zarr", group="s2").chip.to_numpy()[0]
    for arguments in (
        ("show", str(chip), "--dataset", str(out), "--out", str(tmp_path / "chip.png")),
        ("report", str(out), "--out", str(tmp_path / "report.html")),
        ("export", str(out), "--to", "geotiff", "--out", str(tmp_path / "tiffs")),
    ):
        done = curate(*arguments)
        assert done.returncode == 0, done.stderr
    one, two = ChipDataset(str(out), labels=["worldcover"]), ChipDataset(str(plain), labels=["worldcover"])
    again = pickle.loads(pickle.dumps(one))
    for key in ("image", "mask", "bbox"):
        assert (abs(again[0][key] - two[0][key]) > 0).sum() == 0
    spawned = get_context("spawn")
    queue = spawned.Queue()
    process = spawned.Process(target=_one_sample, args=(str(out), queue))
    process.start()
    mean = queue.get(timeout=120)
    process.join(60)
    assert mean == pytest.approx(float(two[0]["image"][0].mean()), nan_ok=True)


def test_an_update_is_one_commit_and_who_reads_keeps_the_snapshot(
    land: World, plain: Path, longer: Path, tmp_path: Path
) -> None:
    out = Path(made(land, str(tmp_path / "growing")))
    reader = local(out).readonly_session(branch="main")
    size = sum(path.stat().st_size for path in (out / REPOSITORY / "chunks").iterdir())

    new = update(make_update(str(out), time=LONG, recipe=recipe(land)), PlainConsole())
    assert new is not None
    repository = local(out)
    commits = [commit.message.split(":")[0] for commit in repository.ancestry(branch="main")]
    assert commits == ["v2", "v1", "Repository initialized"]
    assert repository.list_tags() == {"v1", "v2"}
    same(reader, plain)
    same(repository.readonly_session(tag="v1"), plain)
    attributes_differ = xr.open_zarr(repository.readonly_session(tag="v2").store, group="s2", consolidated=False)
    assert attributes_differ.sizes["time"] == 3
    same(repository.readonly_session(tag="v2"), longer)
    for version in (1, 2):
        assert check(str(out), PlainConsole(), version).problems == ()
    assert not (Path(new) / "chips.zarr").exists()
    # Elevation, labels and the months before lie there once.
    grown = sum(path.stat().st_size for path in (out / REPOSITORY / "chunks").iterdir())
    whole = sum(path.stat().st_size for path in (longer / "chips.zarr").rglob("*") if path.is_file())
    assert grown - size < 0.6 * whole


def test_a_killed_build_in_object_storage_continues_to_one_commit_and_keeps_no_secret(
    bucket: str, land: World, plain: Path, tmp_path: Path
) -> None:
    out = f"{bucket}/team/committed"
    storage = open_storage(out)
    command = [str(Path(sys.executable).with_name("curate")), "build", "--aoi", str(land.region)]
    command += ["--recipe", recipe(land), "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    while process.poll() is None and not storage.sizes(".curate/shards"):
        time.sleep(0.05)
    process.kill()
    process.wait(60)
    secrets = [os.environ[name].encode() for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
    assert storage.sizes(".curate/forks")
    for key in storage.sizes():
        data = storage.get(key)
        assert data is not None
        assert not [secret for secret in secrets if secret in data], key

    again = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert check(out, PlainConsole()).problems == ()
    parts = icechunk.s3_storage(
        bucket=bucket.removeprefix("s3://"),
        prefix=f"team/committed/{REPOSITORY}",
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        region="us-east-1",
        allow_http=True,
        force_path_style=True,
        from_env=True,
    )
    repository = icechunk.Repository.open(parts)
    same(repository.readonly_session(tag="v1"), plain)
    assert len(list(repository.ancestry(branch="main"))) == 2
    assert update(make_update(out, time=LONG, recipe=recipe(land)), PlainConsole()) == f"{out}/versions/0002"
    assert check(out, PlainConsole()).problems == ()


def test_a_copy_has_the_same_versions_as_commits_of_its_own(
    land: World, plain: Path, longer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, to = Path(made(land, str(tmp_path / "growing"))), tmp_path / "copy"

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> bool:
        raise Killed

    copied = Storage.put
    with monkeypatch.context() as patch:  # before the commit, and right after it

        def without_manifest(storage: Storage, key: str, data: bytes) -> None:
            killed() if key == "manifest.json" else copied(storage, key, data)

        patch.setattr(Storage, "put", without_manifest)
        with pytest.raises(Killed):
            copy_dataset(str(out), str(to))
    first_put = Storage.put_first
    with monkeypatch.context() as patch:
        patch.setattr(
            Storage, "put_first", lambda s, key, data: killed() if key == COMMITTED else first_put(s, key, data)
        )
        with pytest.raises(Killed):
            copy_dataset(str(out), str(to))
    assert copy_dataset(str(out), str(to)).version == 1
    update(make_update(str(out), time=LONG, recipe=recipe(land)), PlainConsole())
    assert copy_dataset(str(out), str(to)).version == 2
    assert copy_dataset(str(out), str(to)).was_there
    repository = local(to)
    same(repository.readonly_session(tag="v1"), plain)
    same(repository.readonly_session(tag="v2"), longer)
    assert [commit.message.split(":")[0] for commit in repository.ancestry(branch="main")][:2] == ["v2", "v1"]
    for version in (1, 2):
        assert check(str(to), PlainConsole(), version).problems == ()
