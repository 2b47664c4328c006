"""What a run tells while it works: numbers for Prometheus, log lines with ids, and whether what it needs is there."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from curate.errors import InputError
from curate.telling import about, carried, count, ids, take
from flows import cluster
from flows.health import examine
from flows.metrics import told
from simulate.write import World

Curate = Callable[..., Any]

# Dask warns of networks and ports of the machine; that is nothing of ours.
pytestmark = pytest.mark.filterwarnings("default")


def _numbers(file: Path) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse(file.read_text())
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def run(curate: Curate, world: World, world_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A build with metrics and JSON lines, over a world with one damaged file."""
    folder = tmp_path_factory.mktemp("told")
    shutil.copytree(world.folder, folder / "world")
    damaged = next((folder / "world").rglob("*B04.tif"))
    damaged.write_bytes(damaged.read_bytes()[: 2**12])
    recipe = folder / "world" / "skip.yaml"
    recipe.write_text(world_recipe.read_text() + "unreadable: skip\n")
    asked = ["--aoi", folder / "world" / "region.geojson", "--recipe", recipe, "--out", folder / "dataset"]
    done = curate(
        "--log-format", "json", "build", *asked, CURATE_METRICS_FILE=str(folder / "curate.prom"), CURATE_RUN="night-1"
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    return folder, lines, damaged


def test_the_numbers_are_those_of_the_dataset(run: Any) -> None:
    folder, _, _ = run
    numbers = _numbers(folder / "curate.prom")
    manifest = json.loads((folder / "dataset" / "manifest.json").read_text())
    written = [entry for shard in manifest["shards"] for entry in shard["objects"]]
    assert numbers["curate_chips_total",] == sum(len(shard["chips"]) for shard in manifest["shards"])
    assert numbers["curate_shards_total", "built"] == len(manifest["shards"])
    assert numbers["curate_objects_written_total",] == len(written)
    assert numbers["curate_bytes_written_total",] == sum(size for _, size, _ in written)
    assert numbers["curate_reads_total",] > 0
    assert numbers["curate_stage_seconds_count", "building chips"] == 1
    assert numbers["curate_last_end_timestamp_seconds", "done"] > 1.7e9


def test_lines_of_a_log_say_which_run_shard_and_scene_they_are_about(run: Any) -> None:
    _, lines, damaged = run
    assert {line["run"] for line in lines} == {"night-1"}
    left_out = [line for line in lines if line["message"].startswith("left out")]
    assert left_out
    assert all(isinstance(line["shard"], int) for line in left_out)
    assert all(damaged.parent.name in line["message"] or line.get("scene") for line in left_out)


def test_a_run_within_another_is_told_with_it_and_the_next_one_begins_at_nought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_after_reading() -> None:
        count("read", 5)
        raise ZeroDivisionError

    file = tmp_path / "curate-{flow}-{dataset}.prom"
    monkeypatch.setenv("CURATE_METRICS_FILE", str(file))
    count("read", 100)  # by somebody who told nothing
    with told():
        count("read", 3)
        with told({"flow": "curate-build", "dataset": "s3://b/x"}):
            count("read", 4)
    assert _numbers(tmp_path / "curate-curate-curate.prom")["curate_reads_total",] == 7
    with pytest.raises(ZeroDivisionError), told({"flow": "curate-check", "dataset": "s3://b/x"}):
        fail_after_reading()
    assert len(list(tmp_path.iterdir())) == 2
    numbers = _numbers(tmp_path / "curate-curate-check-s3-b-x.prom")
    assert numbers["curate_reads_total", "s3://b/x", "curate-check"] == 5
    assert ("curate_last_end_timestamp_seconds", "s3://b/x", "curate-check", "failed") in numbers


def test_what_cannot_be_told_of_a_flow_does_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("CURATE_METRICS_PORT", str(port))
        monkeypatch.setenv("CURATE_METRICS_FILE", str(tmp_path / "no" / "such.prom"))
        with told({}, forgive=said.append):
            count("read")
        with pytest.raises(InputError, match="cannot be taken"), told():
            raise AssertionError("begun")
    assert [line.partition(" (")[0] for line in said] == [
        f"no numbers are told: CURATE_METRICS_PORT: port {port} cannot be taken",
        f"no numbers are told: CURATE_METRICS_FILE: {tmp_path / 'no' / 'such.prom'} cannot be written",
    ]


def test_a_port_tells_what_was_counted_up_to_now(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("CURATE_METRICS_PORT", str(port))

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    with told({"flow": "curate-update"}):
        count("read", 2)
        assert 'curate_reads_total{flow="curate-update"} 2.0' in read()
        count("read")
        assert 'curate_reads_total{flow="curate-update"} 3.0' in read()
    with pytest.raises(urllib.error.URLError):
        read()


def test_a_port_that_is_taken_is_told(curate: Curate) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = curate("schema", CURATE_METRICS_PORT="many")
    assert done.returncode == 2
    assert "CURATE_METRICS_PORT: is 'many'; wanted the number of a port" in done.stderr


def test_counts_are_taken_once_and_none_is_lost_between_threads() -> None:
    take()

    def work() -> None:
        for _ in range(1000):
            count("read")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    found = 0
    while any(thread.is_alive() for thread in threads):
        found += take().get("read", 0)
    assert found + take().get("read", 0) == 8000
    assert take() == {}


def test_what_a_line_is_about_goes_along_to_another_thread() -> None:
    seen: list[Any] = []

    def look(scene: str) -> None:
        with about(scene=scene):
            seen.append(dict(ids()))

    with about(shard=3):
        thread = threading.Thread(target=carried(look), args=("S2A",))
        thread.start()
        thread.join()
    assert seen == [{"shard": 3, "scene": "S2A"}]
    assert dict(ids()) == {}


@pytest.fixture
def api() -> Iterator[str]:
    """Something that answers as a healthy Prefect server does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_health_asks_what_is_configured(
    api: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{api}/api")
    assert [finding.told for finding in examine(out=str(dataset))][1:] == ["answers", "published"]
    assert examine(out=str(tmp_path))[-1].told == "empty"
    monkeypatch.setenv("PREFECT_API_URL", api)
    (_, prefect) = examine()
    assert not prefect.ok
    assert "answers 404" in prefect.told


def test_a_probe_fails_with_an_exit_code(curate: Curate, tmp_path: Path) -> None:
    done = curate("health", "--out", tmp_path / "nothing", "--json")
    assert done.returncode == 3
    assert [finding["ok"] for finding in json.loads(done.stdout)] == [True, False]
    assert curate("health").returncode == 0


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nowhere.at_all:make", "cannot be imported"),
        ("json:loads", "made no cluster"),
        ("flows.cluster:absent", "cannot be imported"),
        ("tcp://127.0.0.1:9", "no Dask scheduler answers there"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_told(where: str, said: str) -> None:
    with pytest.raises(InputError, match=said), cluster.connect(where, timeout_s=1):
        pass


def make_cluster() -> Any:
    from distributed import LocalCluster

    return LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=0, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )


def test_a_cluster_that_a_function_makes_is_scaled_used_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(make_cluster())
        return made[0]

    monkeypatch.setattr(cluster, "make_for_test", make, raising=False)
    with cluster.connect("flows.cluster:make_for_test:1-2") as client:
        assert client.submit(sum, (1, 2)).result(timeout=30) == 3
    assert made[0].status.name == "closed"
