"""The service, each part a process as in `docker/compose.yaml`: the same command lines, settings and probes.

Always run is Dask with a bucket. By name (`-m slow`) all of it: scenes from a STAC API, a deployment's run worked by a
Prefect worker, shards by two Dask workers of which one is killed in the middle, and the dataset appears in the bucket.
Everything listens on loopback and ends with the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from flows.console import PlainConsole
from flows.steps import build, make_request
from simulate.world import WorldSpec
from simulate.write import write_world

# A cluster that loses a worker and goes down in the middle of a heartbeat warns; what counts here is the dataset.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]

START_S, RUN_S, END_S = 90, 180, 5
MARK = "CURATE_TEST_MARK"
"""In the environment of every process of the service, so that at the end none can hide."""
UNTIL_WE_ARE_GONE = '"$@" & ours=$!; read -r _; kill -s TERM "$ours"; wait "$ours"'
"""A shell that runs a command until its own input closes: the service ends even when the tests are killed."""
RECIPE = """\
name: small-world
time: 2021-04-01/2021-08-01
catalog: catalog.json
grid: {resolution_m: 10, size_px: 64, min_cover: 0.3}
sources:
  s2:
    collection: sentinel-2-l2a
    bands: [red, nir]
    mask: {hide: [void, saturated, shadow, cloud, cirrus], dilate_m: 20}
    time: {composite: monthly, how: median}
  dem: {collection: cop-dem-glo-30}
labels:
  worldcover: {product: esa-worldcover, year: 2021}
  fields: {vector: fields.geojson, attribute: label, background: 0}
split: {block_km: 1.2, buffer_km: 0.1, shares: {train: 0.6, val: 0.2, test: 0.2}, seed: 1}
store: {shard_chips: 4}
report: false
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, ready: Callable[[], bool], seconds: float, log: Callable[[], str] = str) -> None:
    """Nothing once it is so; a failed test, with the end of a log, when it is not within some time."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            pytest.fail(f"{what}: not within {seconds} s\n{log()[-3000:]}")
        time.sleep(0.1)


def answers(url: str) -> bool:
    with contextlib.suppress(requests.RequestException), requests.Session() as session:
        session.trust_env = False  # no proxy of whoever runs the tests
        return session.get(url, timeout=5).ok
    return False


def answers_or_ended(url: str, process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None or answers(url)


def marked(mark: str) -> list[int]:
    """The processes with our mark in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


@dataclass
class Service:
    """The parts of the compose file as processes of this machine."""

    root: Path
    folder: Path
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    """Service and the port it has in its container -> its port here."""
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    probes: dict[str, str] = field(default_factory=dict)
    """Name of what was started -> the address where it says that it is ready."""
    compose: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.compose = yaml.safe_load((self.root / "docker/compose.yaml").read_text())["services"]

    def port(self, service: str, inside: int) -> int:
        return self.ports.setdefault((service, inside), free_port())

    def here(self, text: str, service: str) -> str:
        """An argument or a setting as it is where all services share one machine."""
        text = re.sub(r"(://(?:\w+:\w+@)?)([a-z][a-z0-9-]*):(\d+)", self._address, text)
        text = re.sub(r"127\.0\.0\.1:(\d+)(?=/)", lambda m: self._own(m, service), text) if service else text
        return text.replace("0.0.0.0", "127.0.0.1")

    def _address(self, match: re.Match[str]) -> str:
        return f"{match[1]}127.0.0.1:{self.port(match[2], int(match[3]))}"

    def _own(self, match: re.Match[str], service: str) -> str:
        inside = int(match[1])
        return f"127.0.0.1:{self.ports.get((service, inside), inside)}"

    def command(self, name: str, service: str) -> list[str]:
        """The command line of a service with the programs, ports and folders that are here."""
        words: list[str] = []
        given: list[str] = self.compose[service]["command"]
        for option, word in zip(["", *given], given, strict=False):
            if "stac" not in self.started and (
                "//stac:" in word or option == "--stac" or word in ("--stac", "--catalog")
            ):
                continue  # there is no PostgreSQL: the recipe's own catalog will do
            if words[-1:] == ["--port"]:
                word = str(self.port(name, int(word)))
            elif words[-1:] == ["--dashboard-address"]:
                word = f"127.0.0.1:{self.port(name, int(word.removeprefix(':')))}"
            elif word == "/app/share/seed.py":
                word = str(self.root / "docker/seed.py")
            elif re.match(r"/data\b", word):
                word = f"{self.folder}{word}"
            words.append(self.here(word, ""))
        program = Path(sys.executable) if words[0] == "python" else Path(sys.executable).with_name(words[0])
        # In a container a service has an address of its own; here it would listen to the world.
        return [str(program), *words[1:], *(["--host", "127.0.0.1"] if words[0] == "dask" else [])]

    def environment(self, service: str, **further: str) -> dict[str, str]:
        given = {
            name: self.here(str(value), "") for name, value in self.compose[service].get("environment", {}).items()
        }
        kept = {
            name: value for name, value in os.environ.items() if not re.search(r"^AWS_|^PREFECT_|_proxy$", name, re.I)
        }
        ours = {
            MARK: self.mark,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "CURATE_LOG_FORMAT": "plain",
        }
        return kept | ours | given | further

    def start(self, service: str, name: str = "", **settings: str) -> str:
        """Start a service: the name it goes by, its own or that of one of several."""
        name = name or service
        with self.log(name).open("wb") as output:
            self.started[name] = subprocess.Popen(
                ["sh", "-c", UNTIL_WE_ARE_GONE, "sh", *self.command(name, service)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=self.environment(service, **settings),
                start_new_session=True,
            )
        probe = " ".join(self.compose[service]["healthcheck"]["test"])
        found = re.search(r"http://127\.0\.0\.1:\d+[^']*", probe)
        assert found, f"{service} has no probe over HTTP"
        self.probes[name] = self.here(found[0], name)
        return name

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def ready(self, *names: str) -> None:
        """Wait until the probes of services say that they are ready."""
        for name in names:
            url, process = self.probes[name], self.started[name]
            told = self.log(name).read_text
            wait_for(f"{name} at {url}", partial(answers_or_ended, url, process), START_S, told)
            assert process.poll() is None, f"{name} ended: {told()[-3000:]}"

    def run(self, service: str, **settings: str) -> str:
        """Do what a service does that ends by itself: what it said."""
        done = subprocess.run(
            self.command(service, service), env=self.environment(service, **settings), cwd=self.folder,
            capture_output=True, text=True, timeout=RUN_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{service}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
        return done.stdout

    def stop(self) -> None:
        """End everything, politely first."""
        for process in reversed(self.started.values()):
            assert process.stdin is not None
            process.stdin.close()
        until = time.monotonic() + END_S
        while marked(self.mark) and time.monotonic() < until:
            time.sleep(0.1)
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started.values():
            process.wait(END_S)
        wait_for("the end of every process", lambda: not marked(self.mark), END_S)


@contextlib.contextmanager
def databases(service: Service, request: pytest.FixtureRequest) -> Iterator[bool]:
    """PostgreSQL with the schema of pgstac and a database for Prefect; False where there is no PostgreSQL."""
    try:
        new_database = request.getfixturevalue("throw_away_database")
    except pytest.skip.Exception:
        yield False
        return
    with new_database() as made:
        import psycopg

        port = int(made.settings["PGPORT"])
        with psycopg.connect(host="127.0.0.1", port=port, user="curate", dbname="postgres", autocommit=True) as session:
            # Who asks gets in without a password there, so the users of the compose file are enough.
            session.execute("CREATE ROLE stac SUPERUSER LOGIN")
            session.execute("CREATE ROLE prefect SUPERUSER LOGIN")
            session.execute("CREATE DATABASE prefect OWNER prefect")
        service.ports |= {("stac-db", 5432): port, ("prefect-db", 5432): port}
        yield True


@pytest.fixture(scope="module")
def cluster(root: Path, s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Dask's scheduler and two workers, a world, and a bucket that the seed has made."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "data").mkdir()
    spec = WorldSpec(size_px=400, dates=4, every_days=30, bands=("B04", "B08"), radar_dates=0, osm=True)
    (write_world(folder / "data/world", spec).folder / "recipe.yaml").write_text(RECIPE)
    made = Service(root, folder)
    made.ports["s3", 5000] = urlsplit(s3_server).port or 0
    try:
        made.ready(made.start("scheduler"))
        made.ready(*[made.start("dask-worker", f"dask-worker-{n}") for n in (1, 2)])
        made.run("seed")
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def service(cluster: Service, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Everything that `docker compose up` starts, up to the seed."""
    with databases(cluster, request) as there:
        try:
            file = f"sqlite+aiosqlite:///{cluster.folder}/prefect.db"
            sqlite = {} if there else {"PREFECT_SERVER_DATABASE_CONNECTION_URL": file}
            first = [cluster.start("prefect", **sqlite)]
            if there:
                port = str(cluster.port("stac-db", 5432))
                settings = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGDATABASE": "postgres", "DB_MAX_CONN_SIZE": "2"}
                first.append(cluster.start("stac", **settings))
            cluster.ready(*first)
            port = str(cluster.port("worker", 8080))
            settings = {"PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_WORKER_WEBSERVER_PORT": port}
            cluster.ready(cluster.start("worker", PREFECT_WORKER_QUERY_SECONDS="1", **settings))
            yield cluster
        finally:
            cluster.stop()  # before its databases end


def store_of(service: Service, prefix: str | None = None) -> Any:
    """The bucket, or what lies below a prefix, as somebody sees it who knows the address and a key."""
    from obstore.store import S3Store

    return S3Store(
        "datasets",
        prefix=prefix,
        endpoint=f"http://127.0.0.1:{service.ports['s3', 5000]}",
        access_key_id="reader",
        secret_access_key="reader-secret",
        region="us-east-1",
        client_options={"allow_http": True},
    )


def client(service: Service) -> Any:
    """A client of the Dask cluster."""
    from distributed import Client

    address = f"tcp://127.0.0.1:{service.ports['scheduler', 8786]}"
    return Client(address, timeout=START_S, set_as_default=False)  # type: ignore[no-untyped-call]


def curate(service: Service, *arguments: str, **settings: str) -> str:
    """What `curate` says where the settings are those of the service; nothing of Prefect unless it runs."""
    environment = service.environment("worker", **settings)
    if "prefect" not in service.started:
        del environment["PREFECT_API_URL"]
    command = [str(Path(sys.executable).with_name("curate")), *arguments]
    run = subprocess.run(
        command, env=environment, cwd=service.folder, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return run.stdout + run.stderr


def test_a_client_builds_on_the_cluster_into_the_bucket(cluster: Service) -> None:
    world = cluster.folder / "data/world"
    asked = ["--aoi", str(world / "region.geojson"), "--recipe", str(world / "recipe.yaml")]
    told = curate(cluster, "build", *asked, "--out", "s3://datasets/by-hand")
    assert "on Dask with 2 workers" in told
    store = store_of(cluster, "by-hand")
    assert json.loads(bytes(store.get("manifest.json").bytes()))["shards"]
    assert store.head("chips.zarr/zarr.json")["size"] > 0


@dataclass(frozen=True)
class FirstRun:
    """What was seen while the first run went on."""

    bucket: Any
    """The store of the bucket."""
    journaled: int
    """Shards that were in the journal when the worker was killed."""
    victim: int
    """Process id of the worker that was killed."""


def shards(bucket: Any) -> int:
    """Shards in the journal of the build."""
    names = [Path(entry["path"]).name for page in bucket.list("demo/.curate/shards") for entry in page]
    return len({name.partition(".")[0] for name in names})


@pytest.fixture(scope="module")
def first_run(service: Service) -> FirstRun:
    """Seed, deploy, run; and as soon as one shard is written one of the workers dies."""
    service.run("seed")  # again, now that there may be a STAC API
    service.run("deploy")
    bucket = store_of(service)
    with client(service) as dask:
        victim = min(dask.run(os.getpid).values())
    with service.log("first-run").open("w") as log:
        run = subprocess.Popen(
            service.command("first-run", "first-run"), env=service.environment("first-run"), cwd=service.folder,
            stdout=log, stderr=log,
        )  # fmt: skip
    wait_for("a first shard", lambda: shards(bucket) > 0, RUN_S, service.log("worker").read_text)
    os.kill(victim, signal.SIGKILL)
    journaled = shards(bucket)
    wait_for("the end of the first run", lambda: run.poll() is not None, RUN_S, service.log("worker").read_text)
    assert run.returncode == 0, service.log("worker").read_text()[-3000:]
    return FirstRun(bucket, journaled, victim)


@pytest.fixture(scope="module")
def alone(service: Service, first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same dataset built by this process alone from the same catalog."""
    world, out = service.folder / "data/world", tmp_path_factory.mktemp("alone") / "demo"
    catalog = f"http://127.0.0.1:{service.ports['stac', 8080]}" if "stac" in service.started else None
    request = make_request(
        aoi=str(world / "region.geojson"), recipe=str(world / "recipe.yaml"), catalog=catalog, out=str(out)
    )
    build(request, PlainConsole())
    return out


@pytest.mark.slow
def test_the_dataset_in_the_bucket_is_the_one_that_one_process_builds(first_run: FirstRun, alone: Path) -> None:
    names = sorted(entry["path"] for page in first_run.bucket.list("demo") for entry in page)
    wanted = sorted(f"demo/{path.relative_to(alone).as_posix()}" for path in alone.rglob("*") if path.is_file())
    beside = {name for name in set(names) ^ set(wanted) if ".curate/" not in name}
    assert not beside
    for name in wanted:
        if ".curate/" not in name:
            assert bytes(first_run.bucket.get(name).bytes()) == (alone.parent / name).read_bytes(), name


@pytest.mark.slow
def test_the_worker_died_in_the_middle_and_its_place_was_taken(service: Service, first_run: FirstRun) -> None:
    manifest = json.loads(bytes(first_run.bucket.get("demo/manifest.json").bytes()))
    assert 0 < first_run.journaled < len(manifest["shards"])
    with client(service) as dask:
        dask.wait_for_workers(2, timeout=START_S)
        assert first_run.victim not in dask.run(os.getpid).values()


@pytest.mark.slow
def test_others_read_it_from_the_bucket_with_nothing_of_ours(first_run: FirstRun, service: Service) -> None:
    import numpy as np
    import xarray as xr
    from zarr.storage import ObjectStore

    store = ObjectStore(store_of(service, "demo/chips.zarr"), read_only=True)
    with xr.open_zarr(store, group="s2", chunks=None) as dataset:
        assert {"train", "val", "test"} & set(dataset.split.values) > {"train"}
        pixels = dataset["reflectance"].isel(chip=dataset.split == "train").values
    assert pixels.shape[-2:] == (64, 64)
    assert np.isfinite(pixels).mean() > 0.5


@pytest.mark.slow
def test_the_scenes_came_from_the_stac_api(service: Service, first_run: FirstRun) -> None:
    if "stac" not in service.started:
        pytest.skip("no PostgreSQL with PostGIS here (CONTRIBUTING.md): the recipe's own catalog was taken")
    assert "/search" in service.log("stac").read_text()


@pytest.mark.slow
def test_prefect_knows_the_run_and_what_is_on_schedule(first_run: FirstRun, service: Service) -> None:
    api = f"http://127.0.0.1:{service.ports['prefect', 4200]}/api"
    runs = requests.post(f"{api}/flow_runs/filter", json={}, timeout=30).json()
    assert [run["state_type"] for run in runs if run["name"].startswith("update")] == ["COMPLETED"]
    deployments = requests.post(f"{api}/deployments/filter", json={}, timeout=30).json()
    assert {made["name"] for made in deployments} == {"demo"}
    assert len(deployments) == 3
    assert all(schedule["active"] for made in deployments for schedule in made["schedules"])


@pytest.mark.slow
def test_the_health_of_all_parts_is_told(first_run: FirstRun, service: Service) -> None:
    scheduler = f"tcp://127.0.0.1:{service.ports['scheduler', 8786]}"
    told = curate(service, "health", "--out", "s3://datasets/demo", "--dask", scheduler)
    assert f"Prefect at http://127.0.0.1:{service.ports['prefect', 4200]}/api" in told
    assert "2 workers" in told
    assert "published" in told
