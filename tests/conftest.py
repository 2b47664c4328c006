"""What every test stands on: no network but loopback, no settings of the user's, the real data when it is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

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
