"""The Prefect flow builds the same bytes as the command line, and never starts a server by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulate.write import World

ROOT = Path(__file__).parents[2]

# Prefect's server closes its database late; that is nothing of ours.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """One temporary Prefect server on loopback for all tests of this module."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.usefixtures("server")
def test_the_flow_builds_the_same_bytes_and_finds_them_built(
    world: World, world_recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    from flows.build import build

    out = tmp_path / "dataset"
    asked: dict[str, Any] = {"aoi": str(world.region), "recipe": str(world_recipe), "out": str(out)}
    assert "chips" in build(**asked)
    assert _content(out) == _content(dataset)
    assert "built already" in build(**asked)


@pytest.mark.usefixtures("server")
def test_a_flow_run_leaves_its_summary_as_an_artifact(world: World, world_recipe: Path, tmp_path: Path) -> None:
    from prefect.artifacts import Artifact

    from flows.build import build

    build(aoi=str(world.region), recipe=str(world_recipe), out=str(tmp_path / "other"))
    found: Any = Artifact.get("dataset")
    assert found is not None
    assert "train" in found.data


@pytest.mark.usefixtures("server")
def test_bad_input_fails_at_once_without_retries(world: World, tmp_path: Path) -> None:
    from curate.errors import AoiError
    from flows.build import build

    with pytest.raises(AoiError, match="empty"):
        build(aoi="POLYGON EMPTY", out=str(tmp_path / "out"))


def test_without_a_server_prefect_is_refused_and_none_is_started(
    curate: Callable[..., Any], world: World, world_recipe: Path, tmp_path: Path
) -> None:
    asked = ["--aoi", world.region, "--recipe", world_recipe, "--out", tmp_path / "out"]
    run = curate("build", *asked, "--prefect", PREFECT_HOME=str(tmp_path / "home"))
    assert run.returncode == 2
    assert "set PREFECT_API_URL" in run.stderr
    assert not (tmp_path / "home" / "prefect.db").exists()


def test_every_deployment_names_a_flow_that_is_there() -> None:
    from prefect.flows import load_flow_from_entrypoint

    document = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    for deployment in document["deployments"]:
        flow: Any = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
        assert set(deployment["parameters"]) <= set(flow.parameters.properties)
        assert deployment["schedules"]
