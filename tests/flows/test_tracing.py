"""Spans of a run come out where somebody collects them, belong together across threads, and cost nothing elsewhere."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from curate import tracing
from curate.errors import IncompleteError
from curate.tracing import here, span, traced
from flows.console import PlainConsole
from flows.metrics import Metered
from flows.steps import build, make_request
from simulate.write import World

Curate = Callable[..., Any]

RECIPE = """\
name: small
time: 2021-04-01/2021-06-01
catalog: catalog.json
grid: {resolution_m: 10, size_px: 64, min_cover: 0.3}
sources:
  s2: {collection: sentinel-2-l2a, bands: [red], time: {composite: monthly, how: median}}
split: {block_km: 1.2, buffer_km: 0.1, seed: 1}
store: {shard_chips: 16}
report: false
"""


@dataclass
class Kept(NonRecordingSpan):
    """A span that stays in memory, over nothing but the API."""

    name: str
    parent: int
    attributes: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    code: StatusCode = StatusCode.UNSET
    ended: bool = False

    def is_recording(self) -> bool:
        return True

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self.attributes |= attributes

    def record_exception(self, exception: BaseException, *_: Any, **__: Any) -> None:
        self.errors.append(str(exception))

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.code = status.status_code if isinstance(status, Status) else status

    def end(self, end_time: int | None = None) -> None:
        self.ended = True

    @property
    def id(self) -> int:
        return self.get_span_context().span_id


class Keeper(trace.TracerProvider, trace.Tracer):
    """Makes spans that stay in memory, and counts how often they were to be sent."""

    def __init__(self) -> None:
        self.spans: list[Kept] = []
        self.flushed = 0

    def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
        return self

    def start_span(self, name: str, context: Any = None, *_: Any, **__: Any) -> trace.Span:
        above = trace.get_current_span(context).get_span_context()
        made = Kept(name, above.span_id)
        trace_id = above.trace_id or 7 + len(self.spans)
        own = SpanContext(trace_id, 100 + len(self.spans), False, TraceFlags(TraceFlags.SAMPLED))
        NonRecordingSpan.__init__(made, own)
        self.spans.append(made)
        return made

    def start_as_current_span(self, name: str, context: Any = None, *_: Any, **__: Any) -> Any:
        return trace.use_span(self.start_span(name, context), end_on_exit=True)

    def force_flush(self) -> None:
        self.flushed += 1

    def named(self, name: str) -> list[Kept]:
        return [found for found in self.spans if found.name == name]


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """What a program has set as its tracer provider."""
    made = Keeper()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", made)
    return made


@pytest.fixture(autouse=True)
def _set_up_anew() -> Iterator[None]:
    tracing._set_up.cache_clear()
    yield
    tracing._set_up.cache_clear()


def written_recipe(world: World, name: str, more: str = "") -> Path:
    path = world.folder / name
    path.write_text(RECIPE + more)
    return path


@pytest.fixture(scope="module")
def build_traced(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Keeper, Path]:
    """A build with its spans."""
    recipe, out = written_recipe(world, "traced.yaml"), tmp_path_factory.mktemp("traced") / "dataset"
    request, keeper = make_request(aoi=str(world.region), recipe=str(recipe), out=str(out), jobs=2), Keeper()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "_TRACER_PROVIDER", keeper)
        with traced("curate build", "night-1"):
            build(request, Metered(PlainConsole()))
    return keeper, out


def test_a_run_its_stages_and_its_shards_are_one_trace(build_traced: tuple[Keeper, Path]) -> None:
    keeper, out = build_traced
    (run,) = keeper.named("curate build")
    (stage,) = keeper.named("building chips")
    shards = keeper.named("shard")
    manifest = json.loads((out / "manifest.json").read_text())
    assert [(s.attributes["curate.shard"], s.attributes["curate.chips"]) for s in shards] == [
        (shard["ordinal"], len(shard["chips"])) for shard in manifest["shards"]
    ]
    assert all(1 <= s.attributes["curate.scenes"] <= 8 for s in shards)
    assert {s.parent for s in shards} == {stage.id}
    stages = {"laying chips", "searching scenes", "planning", "building chips", "publishing"}
    assert {found.name for found in keeper.spans if found.parent == run.id} == stages
    assert {found.attributes["curate.run"] for found in keeper.spans} == {"night-1"}
    assert len({found.get_span_context().trace_id for found in keeper.spans}) == 1
    assert all(found.ended for found in keeper.spans)
    assert keeper.flushed == 1


def test_what_fails_is_recorded_where_it_failed(keeper: Keeper, world: World, tmp_path: Path) -> None:
    recipe = written_recipe(world, "failing.yaml")
    request = make_request(aoi=str(world.region), recipe=str(recipe), out=str(tmp_path / "dataset"))
    (red, *_) = sorted(world.folder.rglob("*B04.tif"))
    whole = red.read_bytes()
    red.write_bytes(whole[: 2**12])
    try:
        with pytest.raises(IncompleteError), traced("curate build", "night-2"):
            build(request, Metered(PlainConsole()))
    finally:
        red.write_bytes(whole)
    failed = [found for found in keeper.named("shard") if found.errors]
    assert failed
    assert all(found.code == StatusCode.ERROR for found in failed)
    assert all(red.parent.name in found.errors[0] for found in failed)
    (run,) = keeper.named("curate build")
    assert run.code == StatusCode.ERROR


def test_where_we_are_can_be_handed_to_another_thread_or_process(keeper: Keeper) -> None:
    with traced("run", "r1"), traced("flow", "r2"):
        trail = here()
    ((_, header),) = trail.headers
    assert trail.run == "r1", "a run within another keeps the name of that one"

    def work() -> None:
        with span("elsewhere", trail, shard=3):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (there,) = keeper.named("elsewhere")
    assert header.split("-")[1:3] == [
        format(keeper.spans[0].get_span_context().trace_id, "032x"),
        f"{there.parent:016x}",
    ]
    assert there.attributes == {"curate.run": "r1", "curate.shard": 3}
    assert tracing._here.get() == ""


def test_without_an_exporter_nothing_is_loaded_and_nothing_is_handed_on(
    build_traced: tuple[Keeper, Path], tmp_path: Path
) -> None:
    command = Path(sys.executable).with_name("curate")
    done = subprocess.run(
        [command, "publish", build_traced[1], "--to", tmp_path / "copy"],
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rsplit("|", 1)[1].strip().partition(".")[0] for line in lines}
    assert "obstore" in imported  # the measure works
    assert not {"opentelemetry", "prefect"} & imported
    assert here().headers == ()
    with span("nothing") as note:
        note(chips=3)


def test_it_can_be_switched_off_as_everywhere(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with traced("run", "r1"):
        assert here().headers == ()
    assert keeper.spans == []


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ({}, ()),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, ()),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ("console", "otlp")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, ("otlp",)),
    ],
)
def test_the_usual_variables_say_where_spans_go(
    setting: dict[str, str], wanted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    assert tracing._exporters() == wanted


def test_what_is_not_installed_is_told_once_and_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with caplog.at_level(logging.WARNING), traced("run", "r1"), span("stage"):
        pass
    (said,) = caplog.messages
    assert said.startswith("no traces are sent: ")
    assert "install opentelemetry-sdk and an exporter, or unset OTEL_*" in said


@pytest.mark.skipif(find_spec("opentelemetry.sdk") is None, reason="opentelemetry-sdk is not installed")
def test_with_the_sdk_spans_come_out_of_the_command_and_of_workers(
    curate: Curate, world: World, tmp_path: Path
) -> None:
    recipe = written_recipe(world, "console.yaml")
    asked = ["--aoi", world.region, "--recipe", recipe, "--out", tmp_path / "dataset", "--dask", "local:1"]
    done = curate("build", *asked, OTEL_TRACES_EXPORTER="console", CURATE_RUN="night-3")
    assert done.returncode == 0, done.stderr
    decoder, text, spans = json.JSONDecoder(), done.stdout, []
    while (start := text.find('{\n    "name"')) >= 0:
        found, end = decoder.raw_decode(text[start:])
        spans.append(found)
        text = text[start + end :]
    (stage,) = [found for found in spans if found["name"] == "building chips"]
    shards = [found for found in spans if found["name"] == "shard"]
    assert len(shards) == len(json.loads((tmp_path / "dataset" / "manifest.json").read_text())["shards"])
    assert {found["parent_id"] for found in shards} == {stage["context"]["span_id"]}
    assert {found["attributes"]["curate.run"] for found in spans} == {"night-3"}
    processes = {found["resource"]["attributes"]["service.instance.id"] for found in (stage, *shards)}
    assert len(processes) == 2
