"""What every test stands on: no network but loopback, no settings of the user's, the real data when it is there."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

# Before anything imports Prefect or opens GDAL. Prefect calls home unless told not to; the rest would let the settings
# of whoever runs the tests decide how they end.
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["GDAL_PAM_ENABLED"] = "NO"  # no .aux.xml beside the files that tests read
for prefix in ("PREFECT_API", "CURATE_", "DASK_", "OTEL_"):
    for setting in [name for name in os.environ if name.startswith(prefix) and not name.startswith("CURATE_WHEEL")]:
        del os.environ[setting]

# Python's own sockets are held to loopback by pytest-socket (pyproject.toml). GDAL and obstore open theirs in C and
# Rust, but both obey the proxy variables: this port answers nobody.
NO_PROXY_LISTENS = "http://127.0.0.1:9"
PROXY_SETTINGS = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
LOOPBACK = "127.0.0.1,localhost"

# No deadline: a shared machine stalls now and then, and that says nothing about our code. In CI the examples are the
# same every time, so that a red run is about the change and not about luck.
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Open the sockets for tests that say they need the network."""
    for item in items:
        if item.get_closest_marker("network"):
            item.add_marker(pytest.mark.enable_socket)


@pytest.fixture(autouse=True)
def _only_loopback(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("network"):
        return
    for name in PROXY_SETTINGS:
        monkeypatch.setenv(name, NO_PROXY_LISTENS)
    monkeypatch.setenv("no_proxy", LOOPBACK)
    monkeypatch.setenv("NO_PROXY", LOOPBACK)


@pytest.fixture(scope="session")
def root() -> Path:
    """Root folder of the project."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets, which are not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets are not here: no folder ../shared/data beside the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an S3 server (moto's) that runs as a process of its own on the loopback, like any other server."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as out:
        command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        for _ in range(600):
            if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text()):
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.05)
        assert found, "the S3 server did not start"
        yield found[1]
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty bucket of its own, ``s3://…``, that this process and those it starts may use."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "no-aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-aws-credentials"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/{name}", method="PUT"), timeout=30)
    return f"s3://{name}"


# -- PostgreSQL with pgstac, and a STAC API over it

POSTGRES_WANTED = "install PostgreSQL 13 or newer with PostGIS, e.g. apt-get install postgresql postgresql-postgis"
SERVER_START_S = 60
UNTIL_WE_ARE_GONE = 'signal=$1; shift; "$@" & server=$!; read -r _; kill -s "$signal" "$server"; wait "$server"'
"""A shell that runs a command until its own input closes: nothing is left behind, even when the tests are killed."""


def newest_postgres() -> Path:
    """Folder of the programs of the newest PostgreSQL that has PostGIS; skips the test where there is none."""
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    for name in ("pg_config", "initdb"):
        if (found := shutil.which(name)) is not None:
            places.append(
                Path(told(found, "--bindir")) if name == "pg_config" else Path(found).resolve().parent,
            )
    places = [place for place in dict.fromkeys(places) if (place / "initdb").is_file()]
    if not places:
        pytest.skip(f"no PostgreSQL here (neither pg_config nor initdb): {POSTGRES_WANTED}")
    able = {number: place for place in places if (number := version_with_postgis(place)) is not None}
    if not able:
        pytest.skip(f"the PostgreSQL in {', '.join(map(str, places))} has no PostGIS: {POSTGRES_WANTED}")
    return able[max(able)]


def version_with_postgis(programs: Path) -> int | None:
    match = re.search(r"\d+", told(programs / "postgres", "--version"))
    number = int(match[0]) if match else 0
    share = [programs.parent / "share", programs.parent / "share/postgresql", Path(f"/usr/share/postgresql/{number}")]
    if (programs / "pg_config").is_file():
        share.insert(0, Path(told(programs / "pg_config", "--sharedir")))
    has_postgis = any((place / "extension/postgis.control").is_file() for place in share)
    return number if has_postgis and number >= 13 else None


def told(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server_process(
    command: Sequence[str | Path], log: Path, *, end: str, ready: Callable[[], bool], **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers, ended at the end, with the tail of its log in the error when it does not start."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", UNTIL_WE_ARE_GONE, "sh", end, *map(str, command)],
            stdin=subprocess.PIPE, stdout=output, stderr=output, **options,
        )  # fmt: skip
    try:
        until = time.monotonic() + SERVER_START_S
        while not ready():
            if time.monotonic() > until:
                pytest.fail(f"{command[0]} does not answer after {SERVER_START_S} s:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


@dataclasses.dataclass(frozen=True)
class Database:
    """A PostgreSQL with the schema of pgstac."""

    folder: Path
    settings: Mapping[str, str]
    """The environment in which programs find it."""

    def load(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        file = self.folder / f"{table}.ndjson"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.pypgstac("load", table, str(file))

    def pypgstac(self, *arguments: str) -> None:
        command: list[str | Path] = [Path(sys.executable).with_name("pypgstac"), *arguments]
        run = subprocess.run(
            command, env={**os.environ, **self.settings}, cwd=self.folder, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-2000:]

    @contextlib.contextmanager
    def api(self, **settings: str) -> Iterator[str]:
        """The address of a STAC API over it; ``settings`` are those of stac-fastapi-pgstac."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [
            sys.executable, "-m", "uvicorn", "--factory", "stac_fastapi.pgstac.app:create_app", "--host", "127.0.0.1",
            "--port", str(port), "--log-level", "warning",
        ]  # fmt: skip

        def ready() -> bool:
            with contextlib.suppress(requests.RequestException), requests.Session() as session:
                session.trust_env = False  # no proxy of whoever runs the tests
                return session.get(f"{url}/_mgmt/ping", timeout=5).ok
            return False

        environment = {**os.environ, **self.settings, **settings}
        with server_process(
            command, self.folder / f"api-{port}.log", end="KILL", ready=ready, cwd=self.folder, env=environment
        ):
            yield url


@contextlib.contextmanager
def postgres_with_pgstac(programs: Path) -> Iterator[Database]:
    """A PostgreSQL cluster in a folder of its own, on loopback."""
    user: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="pgstac-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            names = {entry.pw_name for entry in pwd.getpwall()}
            name = "postgres" if "postgres" in names else "nobody"
            os.chown(folder, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
            user = {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
        told_by_initdb = subprocess.run(
            [
                programs / "initdb", "--pgdata", folder / "data", "--username", "curate", "--auth", "trust",
                "--encoding", "UTF8", "--locale", "C", "--no-sync",
            ],
            capture_output=True, text=True, timeout=60, check=False, cwd=folder, **user,
        )  # fmt: skip
        assert told_by_initdb.returncode == 0, told_by_initdb.stderr
        port = free_port()
        settings = {
            "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "curate", "PGPASSWORD": "any",
            "PGDATABASE": "postgres",
        }  # fmt: skip
        quick = {
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(folder), "shared_buffers": "64MB", "max_connections": "30", "jit": "off",
        }  # fmt: skip
        command: list[str | Path] = [programs / "postgres", "-D", folder / "data", "-p", str(port)]
        for key, value in quick.items():
            command += ["-c", f"{key}={value}"]

        def ready() -> bool:
            ask: list[str | Path] = [programs / "pg_isready", "-q"]
            return subprocess.run(ask, env={**os.environ, **settings}, timeout=30, check=False).returncode == 0

        with server_process(command, folder / "postgres.log", end="QUIT", ready=ready, cwd=folder, **user):
            database = Database(folder, settings)
            database.pypgstac("migrate")
            yield database


@pytest.fixture(scope="session")
def throw_away_database() -> Callable[[], contextlib.AbstractContextManager[Database]]:
    """Makes a PostgreSQL with the schema of pgstac that ends with its context; skips where none is installed."""
    return functools.partial(postgres_with_pgstac, newest_postgres())


@pytest.fixture(scope="session")
def running() -> Callable[..., contextlib.AbstractContextManager[subprocess.Popen[bytes]]]:
    """Runs a server as those of the database are run; see ``server_process``."""
    return server_process
