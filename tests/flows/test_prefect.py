"""The Prefect flow builds the same bytes as the command line, and never starts a server by itself."""

from __future__ import annotations

import gc
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
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
    # Prefect keeps a client that nobody closes; it goes here and not in the middle of another test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def asked(world: World, world_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Parameters of a run."""
    out = tmp_path_factory.mktemp("tracked") / "dataset"
    return {"aoi": str(world.region), "recipe": str(world_recipe), "out": str(out)}


@pytest.fixture(scope="module")
def record(server: None, asked: dict[str, Any]) -> dict[str, Any]:
    """What the run with these parameters gave back."""
    from flows.build import build

    made: dict[str, Any] = build(**asked)
    return made


def test_the_flow_builds_the_same_bytes_and_finds_them_built(
    record: dict[str, Any], asked: dict[str, Any], dataset: Path
) -> None:
    from flows.build import build

    assert _content(Path(asked["out"])) == _content(dataset)
    assert record["dataset"] == asked["out"]
    assert sum(record["splits"].values()) == record["chips"] > 0
    assert build(**asked) == record


@pytest.mark.usefixtures("server")
def test_a_build_of_many_batches_is_planned_once(
    world: World, located_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import build as flows_build
    from flows import steps

    def again(*_: Any) -> Any:
        raise AssertionError("planned again")

    monkeypatch.setattr(flows_build, "BATCH_SHARDS", 1)
    monkeypatch.setattr(steps, "reopen", again)
    recipe = tmp_path / "recipe.yaml"
    s2 = located_recipe.split("  s1:")[0]
    recipe.write_text(s2 + "split: {block_km: 1.2, buffer_km: 0.1}\nstore: {shard_chips: 16}\n")
    made = flows_build.build(aoi=str(world.region), recipe=str(recipe), out=str(tmp_path / "dataset"))
    assert made["chips"] > 32


@pytest.mark.usefixtures("record")
def test_a_flow_run_leaves_its_summary_as_an_artifact() -> None:
    from prefect.artifacts import Artifact

    found: Any = Artifact.get("dataset")
    assert found is not None
    assert "train" in found.data


@pytest.mark.usefixtures("server")
def test_a_recipe_filled_in_on_the_form_builds_the_same_bytes(
    world: World, world_recipe: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.build import build

    monkeypatch.chdir(world_recipe.parent)
    out = tmp_path / "dataset"
    filled: Any = yaml.safe_load(world_recipe.read_text())
    build(aoi=str(world.region), recipe=filled, out=str(out))
    assert _content(out) == _content(dataset)


def test_the_form_of_the_flow_knows_every_key_of_a_recipe() -> None:
    from flows.build import build
    from recipes.recipe import Recipe

    definitions = build.parameters.definitions
    assert definitions["Recipe"]["properties"].keys() == Recipe.model_json_schema()["properties"].keys()


@pytest.mark.usefixtures("server")
def test_a_recipe_with_an_unknown_key_is_refused_before_the_run_begins(world: World, tmp_path: Path) -> None:
    from prefect.exceptions import ParameterTypeError

    from flows.build import build

    wrong: Any = {"name": "x", "tmie": "2021"}
    with pytest.raises(ParameterTypeError):
        build(aoi=str(world.region), recipe=wrong, out=str(tmp_path / "out"))


@pytest.mark.usefixtures("server")
def test_a_check_that_finds_something_is_a_failed_run_with_all_of_it_in_an_artifact(
    dataset: Path, tmp_path: Path
) -> None:
    from prefect.artifacts import Artifact

    from curate.errors import StoreError
    from flows.verify import check

    assert check(str(dataset))["problems"] == 0
    damaged = tmp_path / "damaged"
    shutil.copytree(dataset, damaged)
    with (damaged / "chips.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(StoreError, match="breaks 2 of its promises: chips"):
        check(str(damaged))
    found: Any = Artifact.get("check")
    assert "chips.parquet" in found.data


def test_who_listens_hears_of_a_published_dataset(record: dict[str, Any]) -> None:
    from prefect.settings import get_current_settings

    from flows.tracking import resource_of

    api = get_current_settings().api.url
    out = record["dataset"]
    wanted = {"filter": {"event": {"name": ["curate.dataset.published"]}}}
    about: list[Any] = []
    end = time.monotonic() + 30  # events travel beside the run
    while not about and time.monotonic() < end:
        events = requests.post(f"{api}/events/filter", json=wanted, timeout=10).json()["events"]
        about = [event for event in events if event["resource"]["curate.url"] == out]
        time.sleep(0.2)
    assert [event["payload"] for event in about] == [record]
    assert about[0]["resource"]["prefect.resource.id"] == resource_of(out)["prefect.resource.id"]


@pytest.mark.usefixtures("server")
def test_who_listens_hears_of_a_copy_and_of_none_that_was_there(record: dict[str, Any], tmp_path: Path) -> None:
    from flows.release import publish

    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.build.emit", lambda event, dataset, facts: told.append(f"{event} {dataset}"))
        copied = publish(record["dataset"], to=str(tmp_path / "copy"))
        assert told == [f"curate.dataset.published {tmp_path / 'copy'}"]
        assert copied == record | {"dataset": str(tmp_path / "copy")}
        assert publish(record["dataset"], to=str(tmp_path / "copy")) == copied
        assert publish(record["dataset"]) == record
    assert len(told) == 1
    assert _content(tmp_path / "copy") == _content(Path(record["dataset"]))


@pytest.mark.usefixtures("server")
def test_a_run_of_a_worker_tells_its_numbers_and_its_trace(
    record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import release, tracking

    spans: list[str] = []

    @contextmanager
    def noted(name: str, run: str) -> Iterator[None]:
        spans.append(name)
        yield

    monkeypatch.setattr(tracking, "traced", noted)
    monkeypatch.setenv("CURATE_METRICS_FILE", str(tmp_path / "{flow}.prom"))
    to = str(tmp_path / "copy")
    release.publish(record["dataset"], to=to)
    said = (tmp_path / "curate-publish.prom").read_text()
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    sent = [*manifest["coordinates"], *manifest["files"], *(o for s in manifest["shards"] for o in s["objects"])]
    labels = f'{{dataset="{to}",flow="curate-publish"'
    assert f"curate_objects_written_total{labels}}} {len(sent)}.0" in said
    assert f'curate_stage_seconds_count{labels},stage="copying"}} 1.0' in said
    assert f'curate_last_end_timestamp_seconds{labels},outcome="done"}}' in said
    assert spans == ["curate-publish"]


def test_a_flow_that_a_command_starts_is_counted_once(
    record: dict[str, Any], tmp_path: Path, curate: Callable[..., Any]
) -> None:
    from prefect.settings import get_current_settings

    file, api = tmp_path / "numbers.prom", str(get_current_settings().api.url)
    asked = ["publish", record["dataset"], "--to", tmp_path / "copy", "--prefect"]
    done = curate(*asked, PREFECT_API_URL=api, CURATE_METRICS_FILE=str(file))
    assert done.returncode == 0, done.stderr
    numbers = dict(line.rsplit(" ", 1) for line in file.read_text().splitlines() if line[0] != "#")
    metadata = json.loads((tmp_path / "copy" / "manifest.json").read_text())["metadata"]
    whole = len(_content(tmp_path / "copy")) - len(metadata) - 1  # without the manifest
    assert float(numbers["curate_objects_written_total"]) == whole
    assert float(numbers['curate_stage_seconds_count{stage="copying"}']) == 1
    assert 'curate_last_end_timestamp_seconds{outcome="done"}' in numbers


def test_without_a_server_prefect_is_refused_and_none_is_started(
    curate: Callable[..., Any], world: World, world_recipe: Path, tmp_path: Path
) -> None:
    asked = ["--aoi", world.region, "--recipe", world_recipe, "--out", tmp_path / "out"]
    run = curate("build", *asked, "--prefect", PREFECT_HOME=str(tmp_path / "home"))
    assert run.returncode == 2
    assert "set PREFECT_API_URL" in run.stderr
    assert not (tmp_path / "home" / "prefect.db").exists()


def test_a_server_that_does_not_answer_is_told_in_a_sentence() -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from curate.errors import InputError
    from flows.tracking import require_server

    for url, sentence in (
        ("http://127.0.0.1:9/api", "no server answers at http://127.0.0.1:9/api"),
        ("", "configured"),
    ):
        with temporary_settings({PREFECT_API_URL: url}), pytest.raises(InputError, match=sentence):
            require_server()


@pytest.mark.usefixtures("server")
def test_a_dataset_is_built_watched_and_updated_when_scenes_arrive(
    world: World, located_recipe: str, tmp_path: Path
) -> None:
    from flows.build import update
    from flows.watch import watch

    recipe = tmp_path / "recipe.yaml"
    start, end = yaml.safe_load(located_recipe)["time"].split("/")
    recipe.write_text(located_recipe.replace(f"{start}/{end}", f"{start}/2021-06-01"))
    out = str(tmp_path / "dataset")
    assert watch(out)["arrived"] == 0  # nothing is there to be watched
    given: dict[str, Any] = {"aoi": str(world.region), "recipe": str(recipe), "out": out}
    first = update(**given, until=None)
    assert first["dataset"] == out
    assert watch(out, until=None)["arrived"] == 0
    seen = watch(out, until=end)
    assert seen["arrived"] == len(seen["scenes"]) > 0
    second = update(**given, until=end)
    assert second["fingerprint"] != first["fingerprint"]
    assert (tmp_path / "dataset" / "versions" / "0002").is_dir()
    assert watch(out, until=end)["arrived"] == 0
    assert update(**given, until=end) == second


def _deployed(tmp_path: Path, world: World, **options: Any) -> Any:
    from flows.deployments import Schedules, deployments
    from flows.steps import make_request

    request = make_request(aoi=str(world.region), recipe="recipe.yaml", out=str(tmp_path / "dataset"))
    return deployments(request, Schedules(), **options)


def test_the_file_of_deployments_says_what_the_command_registers(world: World, tmp_path: Path) -> None:
    from prefect.flows import load_flow_from_entrypoint

    document = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    registered = _deployed(tmp_path, world, pool="curate")
    assert len(document["deployments"]) == len(registered) == 3
    for said, made in zip(document["deployments"], registered, strict=True):
        flow: Any = load_flow_from_entrypoint(said["entrypoint"], use_placeholder_flow=False)
        assert made.entrypoint == said["entrypoint"]
        assert made.flow_name == flow.name
        assert said["parameters"].keys() == made.parameters.keys() <= flow.parameters.properties.keys()
        assert [s["cron"] for s in said["schedules"]] == [s.schedule.cron for s in made.schedules]
        assert said["concurrency_limit"]["limit"] == made.concurrency_limit == 1
        assert [set(t["expect"]) for t in said.get("triggers", [])] == [t.expect for t in made.triggers]
        assert (said["description"], said["tags"]) == (made.description, made.tags)


def _starts(trigger: Any, dataset: str, event: str) -> bool:
    """Whether Prefect's server starts a run on an event about a dataset."""
    from datetime import UTC, datetime
    from uuid import uuid4

    from prefect.server.events.schemas.automations import EventTrigger
    from prefect.server.events.schemas.events import ReceivedEvent, Resource

    from flows.tracking import resource_of

    trigger.set_deployment_id(uuid4())
    there = EventTrigger.model_validate(trigger.as_automation().trigger.model_dump(mode="json"))
    given: dict[str, Any] = {"id": uuid4(), "occurred": datetime.now(UTC), "received": datetime.now(UTC)}
    return there.covers(ReceivedEvent(event=event, resource=Resource(resource_of(dataset)), payload={}, **given))


def _trigger_of_file(out: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The trigger of prefect.yaml as `prefect deploy` fills it in."""
    from prefect.events.schemas.deployment_triggers import DeploymentTriggerTypes
    from prefect.utilities.templating import apply_values
    from pydantic import TypeAdapter

    monkeypatch.setenv("CURATE_OUT", out)
    (said,) = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"][0]["triggers"]
    adapter: TypeAdapter[Any] = TypeAdapter(DeploymentTriggerTypes)
    return adapter.validate_python(apply_values(said, {}, warn_on_notset=False))


@pytest.mark.parametrize("how", ["command", "file"])
def test_an_update_starts_when_scenes_of_its_own_dataset_arrive(
    how: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.tracking import ARRIVED, PUBLISHED

    out = str(tmp_path / "dataset")
    made = _deployed(tmp_path, world)[0].triggers[0] if how == "command" else _trigger_of_file(out, monkeypatch)
    assert _starts(made, out, ARRIVED)
    assert _starts(made, f"{out}/", ARRIVED)
    assert not _starts(made, out, PUBLISHED)
    # The third has the same id as ours.
    for other in (str(tmp_path / "other"), f"{out}2", f"{tmp_path}-dataset", "s3://bucket/dataset"):
        assert not _starts(made, other, ARRIVED)


def test_a_copy_starts_when_a_version_of_its_own_dataset_is_published(world: World, tmp_path: Path) -> None:
    from flows.tracking import ARRIVED, PUBLISHED

    out, to = str(tmp_path / "dataset"), str(tmp_path / "released")
    *_, made = _deployed(tmp_path, world, publish_to=f"{to}/")
    assert (made.flow_name, made.entrypoint) == ("curate-publish", "flows.release.publish")
    assert made.parameters == {"dataset": out, "to": to}
    assert made.schedules == []
    (trigger,) = made.triggers
    assert _starts(trigger, out, PUBLISHED)
    assert not _starts(trigger, to, PUBLISHED), "or it would start itself"
    assert not _starts(trigger, out, ARRIVED)


@pytest.mark.usefixtures("server")
def test_deployments_are_registered_with_a_pool_that_is_there(world: World, tmp_path: Path) -> None:
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    from curate.errors import InputError
    from flows.deployments import job_variables, register

    made = _deployed(tmp_path, world, pool="machines", job_variables=job_variables(["stream_output=false"]))
    with pytest.raises(InputError, match="there is no such work pool; make one with"):
        register(made, "machines")
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="machines", type="process"))
        names = register(made, "machines")
        assert names == ["curate-update/dataset", "curate-check/dataset", "curate-watch/dataset"]
        found = client.read_deployment_by_name("curate-update/dataset")
    assert found.enforce_parameter_schema
    assert found.parameters["until"] == "today"
    assert found.job_variables["stream_output"] is False


def test_a_schedule_that_is_none_and_a_variable_without_value_are_told(world: World, tmp_path: Path) -> None:
    from curate.errors import InputError
    from flows.deployments import Schedules, deployments, job_variables
    from flows.steps import make_request

    request = make_request(aoi=str(world.region), out=str(tmp_path / "dataset"))
    with pytest.raises(InputError, match="is no schedule in cron's form"):
        deployments(request, Schedules(update="nightly"))
    with pytest.raises(InputError, match="write NAME=VALUE"):
        job_variables(["memory"])
