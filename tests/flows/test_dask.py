"""A running Dask cluster builds the same bytes as the threads of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curate.errors import IncompleteError, InputError
from flows.console import PlainConsole
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


def test_a_worker_that_dies_costs_only_time(world: World, world_recipe: Path, dataset: Path, tmp_path: Path) -> None:
    """One of the workers is killed as soon as the first shard is journaled."""
    import os
    import signal
    import threading
    import time

    from distributed import Client, LocalCluster

    out = tmp_path / "dataset"
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as running:  # type: ignore[no-untyped-call]
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
