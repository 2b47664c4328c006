"""A look at the catalog as a Prefect flow: cheap, reads no pixel, and tells whoever listens when scenes arrived."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from flows import steps
from flows.tracking import ARRIVED, RECORDED, RETRIED, RunConsole, emit, run_name, told_run
from flows.update import UpdateRequest, arrived, grown

SHOWN = 50
"""Scenes named in the artifact."""


@task(**RETRIED)
def compare(request: UpdateRequest) -> list[str]:
    """Ids of scenes that the catalog has and the lock of the dataset has not."""
    return arrived(request, RunConsole())


@flow(name="curate-watch", flow_run_name=lambda: run_name("watch"), **RECORDED)
def watch(dataset: str, recipe: str | None = None, until: str | None = None) -> dict[str, Any]:
    """Compare a dataset's lock with its catalog; when there are new scenes, emit `curate.scenes.arrived`.

    Args:
        dataset: Folder or address of the dataset. One that is not published yet counts as nothing to watch.
        recipe: The recipe's file, from whose folder its relative paths start.
        until: Also later than the dataset's time: a day, or `today`.
    """
    with told_run():
        where = steps.absolute_out(dataset)
        if not steps.is_built(where):
            return {"dataset": where, "arrived": 0, "scenes": []}
        scenes = compare(grown(where, recipe=recipe, until=until))
        record = {"dataset": where, "arrived": len(scenes), "scenes": scenes[:SHOWN]}
        if scenes:
            lines = "\n".join(f"- {scene}" for scene in scenes[:SHOWN])
            more = f"\n- and {len(scenes) - SHOWN} more" if len(scenes) > SHOWN else ""
            create_markdown_artifact(f"{lines}{more}", key="scenes", description=f"{len(scenes)} new scenes of {where}")
            emit(ARRIVED, where, record)
        return record
