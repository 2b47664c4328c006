"""The same build as a Prefect flow: tasks are stages and batches of shards, never chips.

Prefect wraps, it does not think: every task is a few lines around a step of `flows.steps`. No server is ever started
from here; without a configured API the command refuses, because Prefect would start one behind the user's back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact
from prefect.artifacts import update_progress_artifact as update_progress
from prefect.runtime import flow_run

from curate.errors import CurateError, InputError
from flows import steps

BATCH_SHARDS = 16
"""Shards of one task: minutes of work, while Prefect itself costs some tens of milliseconds a task."""
RETRY_DELAYS_S: list[float] = [10, 60, 300]


def require_server() -> None:
    """InputError unless a Prefect API is configured; we never start one."""
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        raise InputError(
            "Prefect",
            "no server is configured; set PREFECT_API_URL (http://127.0.0.1:4200/api after 'prefect server start'), "
            "or build without --prefect",
        )


def worth_another_try(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect's question whether to retry a task, asked of the error."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, CurateError) and error.retryable


class RunConsole:
    """What the steps say, in the log of the Prefect run."""

    def say(self, text: str, **facts: Any) -> None:
        """A line of the log."""
        get_run_logger().info("%s", text)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[RunConsole]:
        """A line when a stage begins; how far it is stands in the progress artifact."""
        self.say(name if total is None else f"{name}: {total}")
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Nothing: a line a shard would drown the log."""


@task(retries=len(RETRY_DELAYS_S), retry_delay_seconds=RETRY_DELAYS_S, retry_condition_fn=worth_another_try)
def prepare(request: steps.Request) -> tuple[int, ...] | None:
    """Plan, lock the scenes, lay the build out: the shards still to be built, or None when all is published."""
    prepared = steps.prepare(request, RunConsole())
    return None if prepared is None else prepared.todo


@task(
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=worth_another_try,
    task_run_name="{label}",
)
def build_shards(request: steps.Request, batch: tuple[int, ...], label: str) -> int:
    """Build and write a batch of shards: how many. Running it twice leaves the store as running it once."""
    steps.build_shards(steps.reopen(request, RunConsole()), request, RunConsole(), only=batch)
    return len(batch)


@task(retries=len(RETRY_DELAYS_S), retry_delay_seconds=RETRY_DELAYS_S, retry_condition_fn=worth_another_try)
def publish(request: steps.Request) -> str:
    """Publish the finished build: its summary."""
    steps.finish(steps.reopen(request, RunConsole()), RunConsole())
    return steps.summary(request.out)


def _run_name() -> str:
    out = str(flow_run.parameters.get("out") or flow_run.parameters["aoi"])
    return f"build {out.rstrip('/').rsplit('/', 1)[-1]}"


@flow(name="curate-build", flow_run_name=_run_name)
def build(
    aoi: str,
    recipe: str | None = None,
    catalog: str | None = None,
    out: str | None = None,
    dask: str | None = None,
    jobs: int = 1,
) -> str:
    """Build a dataset as `curate build` does, with the same functions and the same bytes, as a tracked run.

    Args:
        aoi: Area of interest: a file, WKT, or 'minx,miny,maxx,maxy' in degrees.
        recipe: Recipe in YAML; the default recipe when empty.
        catalog: Catalog instead of the recipe's.
        out: Folder of the dataset; named after the recipe or the area when empty.
        dask: Address of a Dask scheduler; threads of this process when empty.
        jobs: Shards built at once by threads.
    """
    request = steps.make_request(aoi=aoi, recipe=recipe, catalog=catalog, out=out, dask=dask, jobs=jobs)
    todo = prepare(request)
    if todo is None:
        return f"{request.out} is built already from the same recipe and area"
    progress = create_progress_artifact(0.0, key="chips", description=f"shards of {request.out}")
    assert isinstance(progress, UUID)  # a coroutine only where the caller is asynchronous, and a flow body is not
    for start in range(0, len(todo), BATCH_SHARDS):
        batch = todo[start : start + BATCH_SHARDS]
        build_shards(request, batch, label=f"shards {batch[0]} to {batch[-1]}")
        update_progress(progress, 100 * (start + len(batch)) / len(todo))
    text = publish(request)
    create_markdown_artifact(f"```\n{text}\n```", key="dataset", description=request.out)
    return text
