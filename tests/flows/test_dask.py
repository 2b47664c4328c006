"""A running Dask cluster builds the same bytes as the threads of one process."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import KilledWorker
from distributed.client import FutureCancelledError

from curate.errors import IncompleteError, InputError
from flows.console import PlainConsole
from flows.run import run_shards
from flows.steps import build, make_request
from simulate.write import World

# A cluster that goes down in the middle of a heartbeat warns; what counts here are the bytes.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as running:  # type: ignore[no-untyped-call]
        yield running


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_cluster_builds_the_same_bytes(
    cluster: Any, world: World, world_recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    request = make_request(
        aoi=str(world.region), recipe=str(world_recipe), out=str(out), dask=cluster.scheduler_address
    )
    build(request, PlainConsole())
    assert _content(out) == _content(dataset)


def test_a_damaged_file_is_named_from_a_worker_too(
    cluster: Any, world: World, world_recipe: Path, tmp_path: Path
) -> None:
    import shutil

    folder = Path(shutil.copytree(world.folder, tmp_path / "world"))
    victim = sorted((folder / "sentinel-2-l2a").rglob("B08.tif"))[-1]
    victim.write_bytes(victim.read_bytes()[:5000])
    request = make_request(
        aoi=str(folder / "region.geojson"),
        recipe=str(folder / "recipe.yaml"),
        out=str(tmp_path / "out"),
        dask=cluster.scheduler_address,
    )
    with pytest.raises(IncompleteError, match=victim.parent.name):
        build(request, PlainConsole())


def test_an_address_where_nobody_answers_is_told(world: World, world_recipe: Path, tmp_path: Path) -> None:
    request = make_request(
        aoi=str(world.region), recipe=str(world_recipe), out=str(tmp_path / "out"), dask="tcp://127.0.0.1:1"
    )
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        build(request, PlainConsole())


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("local:0", "number from 1"),
        ("local:4-2", "number from 1"),
        ("made.up:cluster:0", "number from 1"),
        ("local:many", "as in local:4"),
    ],
)
def test_a_number_of_workers_that_is_none_is_told_at_once(where: str, sentence: str) -> None:
    from flows.cluster import connect

    with pytest.raises(InputError, match=sentence), connect(where):
        pass


@pytest.mark.parametrize("workers", [2, 1], ids=["one of two", "all there are"])
def test_a_worker_that_dies_costs_only_time(
    workers: int, world: World, world_recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    """One of the workers is killed as soon as the first shard is journaled; another one takes its place."""
    import os
    import signal
    import threading
    import time

    from distributed import Client, LocalCluster

    out = tmp_path / "dataset"
    with LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0") as running:  # type: ignore[no-untyped-call]
        with Client(running, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            victim = next(iter(client.run(os.getpid).values()))

        def kill() -> None:
            while not list((out / ".curate" / "shards").glob("*.json")):
                time.sleep(0.02)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        request = make_request(
            aoi=str(world.region), recipe=str(world_recipe), out=str(out), dask=running.scheduler_address
        )
        build(request, PlainConsole())
        killer.join(timeout=10)
    assert _content(out) == _content(dataset)


class Lost:
    """A client, and all its futures: what is asked of it ends as it was told."""

    dashboard_link = ""

    def __init__(self, error: Exception) -> None:
        self.error, self.rounds = error, 0

    def scheduler_info(self) -> dict[str, Any]:
        return {"workers": {}}

    def wait_for_workers(self, n: int) -> None:
        self.rounds += 1

    def scatter(self, values: list[Any], **_: Any) -> list[Any]:
        return values

    def submit(self, *_: Any, **__: Any) -> Lost:
        return Lost(self.error)

    def result(self) -> None:
        raise self.error

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "told", "rounds"),
    [
        (
            KilledWorker("task", SimpleNamespace(address="tcp://10.0.0.7:1"), 3),  # type: ignore[arg-type]
            "4 workers died at it; give workers more memory, or make shards smaller with store.shard_chips",
            1,
        ),
        (FutureCancelledError("task", "already forgotten"), "all workers died 4 times before any shard was done;", 4),
        (
            FutureCancelledError("task", "scheduler-connection-lost"),
            "the scheduler went away; what was built is kept",
            1,
        ),
    ],
    ids=["killed", "all gone", "no scheduler"],
)
def test_what_dies_for_good_is_told_for_each_shard(
    error: Exception, told: str, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Lost(error)
    monkeypatch.setattr("flows.run.connect", lambda _: nullcontext(client))
    monkeypatch.setattr("distributed.as_completed", list)
    shards: Any = [SimpleNamespace(ordinal=7), SimpleNamespace(ordinal=8)]
    work: Any = None
    failed = run_shards(work, shards, scheduler="tcp://10.0.0.1:8786")
    assert failed.keys() == {7, 8}
    assert all(told in str(one) for one in failed.values())
    assert client.rounds == rounds


def test_dask_does_not_tell_its_own_steps_among_ours(tmp_path: Path) -> None:
    script = tmp_path / "asks.py"
    script.write_text(
        "from flows.cluster import connect\n"
        "from flows.console import open_console\n"
        "if __name__ == '__main__':\n"
        "    open_console('plain')\n"
        "    with connect('local:1') as client:\n"
        "        print(client.submit(sum, [1, 2]).result())\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "3\n", done.stderr
    assert not re.search("nanny|scheduler|stream|jupyter", done.stderr, re.IGNORECASE), done.stderr
