"""Build and update as Prefect flows: tasks are stages and batches of shards, never chips."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact
from prefect.artifacts import update_progress_artifact as update_progress

from flows import steps
from flows.tracking import PUBLISHED, RECORDED, RETRIED, RunConsole, emit, recipe_text, run_name, told_run
from flows.update import UpdateRequest, finish_update, grown, prepare_update, reopen_update
from recipes.recipe import Recipe

BATCH_SHARDS = 16
"""Shards of one task: minutes of work, while Prefect itself costs some tens of milliseconds a task."""


_plans: dict[steps.Request | UpdateRequest, steps.Prepared] = {}
"""The build in work in this process. A plan opens the labels, and an extract of OpenStreetMap is read once a build."""


def _prepared(request: steps.Request | UpdateRequest) -> steps.Prepared:
    """The build that was begun: as it was planned here, or planned again from its lock by another process."""
    known = _plans.get(request)
    found = None if known is None else steps.still_todo(known)
    if found is None:
        if isinstance(request, UpdateRequest):
            found = reopen_update(request, RunConsole())
        else:
            found = steps.reopen(request, RunConsole())
        _plans[request] = found
    return found


@task(**RETRIED)
def prepare(request: steps.Request | UpdateRequest) -> tuple[int, ...] | None:
    """Plan, lock the scenes, lay the build out: the shards still to be built, or None when there is nothing to do."""
    _plans.clear()
    if isinstance(request, UpdateRequest):
        prepared = prepare_update(request, RunConsole())
    else:
        prepared = steps.prepare(request, RunConsole())
    if prepared is None:
        return None
    _plans[request] = prepared
    return prepared.todo


@task(**RETRIED, task_run_name="{label}")
def build_shards(request: steps.Request | UpdateRequest, batch: tuple[int, ...], label: str) -> int:
    """Build and write a batch of shards: how many. Running it twice leaves the store as running it once."""
    prepared = _prepared(request)
    here = request.as_build(prepared.build.url) if isinstance(request, UpdateRequest) else request
    steps.build_shards(prepared, here, RunConsole(), only=batch)
    return len(batch)


@task(**RETRIED)
def publish(request: steps.Request | UpdateRequest) -> None:
    """Publish the finished build, or the finished version."""
    prepared = _prepared(request)
    if isinstance(request, UpdateRequest):
        finish_update(request, prepared, RunConsole())
    else:
        steps.finish(prepared, RunConsole())
    _plans.clear()


@flow(name="curate-build", flow_run_name=lambda: run_name("build"), **RECORDED)
def build(
    aoi: str,
    recipe: Recipe | str | None = None,
    catalog: str | None = None,
    out: str | None = None,
    dask: str | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Build a dataset as `curate build` does, with the same functions and the same bytes, as a tracked run.

    Args:
        aoi: Area of interest: a file, WKT, or 'minx,miny,maxx,maxy' in degrees.
        recipe: The recipe, filled in here or as the path of a YAML file; the default recipe when empty.
        catalog: Catalog instead of the recipe's.
        out: Folder or address of the dataset; named after the recipe or the area when empty.
        dask: Address of a Dask scheduler; threads of this process when empty.
        jobs: Shards built at once by threads.
    """
    with told_run():
        text = recipe_text(recipe)
        return _build(steps.make_request(aoi=aoi, recipe=text, catalog=catalog, out=out, dask=dask, jobs=jobs))


def _build(request: steps.Request) -> dict[str, Any]:
    todo = prepare(request)
    if todo is None:
        RunConsole().say(f"{request.out} is built already from the same recipe and area")
        return steps.record(request.out)
    in_batches(request, request.out, todo)
    publish(request)
    return tell(request.out)


@flow(name="curate-update", flow_run_name=lambda: run_name("update"), **RECORDED)
def update(
    aoi: str,
    recipe: Recipe | str | None = None,
    catalog: str | None = None,
    out: str | None = None,
    until: str | None = "today",
    dask: str | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Build a dataset that is not there yet; of one that is there, make the next version when its catalog has more.

    Args:
        aoi: Area of interest: a file, WKT, or 'minx,miny,maxx,maxy' in degrees; a larger one than before adds chips.
        recipe: The recipe, filled in here or as the path of a YAML file; the default recipe when empty.
        catalog: Catalog instead of the recipe's, when the dataset is built.
        out: Folder or address of the dataset; named after the recipe or the area when empty.
        until: Up to when dates are wanted: a day, or `today`. Empty: the time of the recipe.
        dask: Address of a Dask scheduler; threads of this process when empty.
        jobs: Shards built at once by threads.
    """
    with told_run():
        text = recipe_text(recipe)
        request = steps.make_request(aoi=aoi, recipe=text, catalog=catalog, out=out, dask=dask, jobs=jobs)
        if not steps.is_built(request.out):
            return _build(request)
        file = None if text is None or "\n" in text else request.recipe
        wish = grown(request.out, until=until, aoi=request.aoi, recipe=file, dask=dask, jobs=jobs)
        todo = prepare(wish)
        if todo is None:
            return steps.record(request.out)
        in_batches(wish, request.out, todo)
        publish(wish)
        return tell(request.out)


def in_batches(request: steps.Request | UpdateRequest, out: str, todo: tuple[int, ...]) -> None:
    """The shards of a build, a task a batch, with a progress bar in the run."""
    progress = create_progress_artifact(0.0, key="chips", description=f"shards of {out}")
    assert isinstance(progress, UUID)  # a coroutine only where the caller is asynchronous, and a flow body is not
    for start in range(0, len(todo), BATCH_SHARDS):
        batch = todo[start : start + BATCH_SHARDS]
        build_shards(request, batch, label=f"shards {batch[0]} to {batch[-1]}")
        update_progress(progress, 100 * (start + len(batch)) / len(todo))


def tell(dataset: str) -> dict[str, Any]:
    """Leave what was published in the run (summary, splits, status) and tell whoever listens; returns the record."""
    record = steps.record(dataset)
    create_markdown_artifact(f"```\n{steps.summary(dataset)}\n```", key="dataset", description=dataset)
    rows = [{"split": split, "chips": chips} for split, chips in record["splits"].items()]
    create_table_artifact(rows, key="splits", description=f"splits of {dataset}")
    rows = [{"status": status, "chips": chips} for status, chips in record["status"].items()]
    create_table_artifact(rows, key="status", description=f"what became of the chips of {dataset}")
    emit(PUBLISHED, dataset, record)
    return record
