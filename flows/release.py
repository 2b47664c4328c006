"""Publishing as a Prefect flow: a build that was stopped before its end, or a copy of a dataset elsewhere."""

from __future__ import annotations

from typing import Any

from prefect import flow, task

from flows import finishing, steps
from flows.build import tell
from flows.finishing import Publishing, make_publishing
from flows.tracking import RECORDED, RETRIED, RunConsole, run_name, told_run


@task(**RETRIED)
def finish_or_copy(asked: Publishing) -> bool:
    """Do what was asked; False when it was done already. Running it twice leaves what running it once leaves."""
    return finishing.publish(asked, RunConsole())


@flow(name="curate-publish", flow_run_name=lambda: run_name("publish"), **RECORDED)
def publish(
    dataset: str, to: str | None = None, version: int | None = None, recipe: str | None = None
) -> dict[str, Any]:
    """Publish as `curate publish` does, and emit `curate.dataset.published` about what is there then.

    Args:
        dataset: Folder or address of the dataset.
        to: Copy it there; empty to finish a build of which all shards are written.
        version: The version to copy; the latest when empty.
        recipe: The recipe's file, from whose folder its relative paths start.
    """
    with told_run():
        asked = make_publishing(dataset, to=to, version=version, recipe=recipe)
        if not finish_or_copy(asked):
            return steps.record(asked.where)
        return tell(asked.where)
