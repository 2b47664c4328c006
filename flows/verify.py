"""The check of a dataset as a Prefect flow, for a schedule: a dataset that breaks a promise is a failed run."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from curate.errors import StoreError
from flows import steps
from flows.tracking import RECORDED, RETRIED, RunConsole, run_name, told_run


@task(**RETRIED)
def read_again(dataset: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The problems of a dataset, and what was counted on the way."""
    report = steps.check(dataset, RunConsole())
    return report.problems, dict(report.facts)


@flow(name="curate-check", flow_run_name=lambda: run_name("check"), **RECORDED)
def check(dataset: str) -> dict[str, Any]:
    """Read a dataset again and verify everything it promises, as `curate check` does.

    Args:
        dataset: Folder or address of the dataset.
    """
    with told_run():
        problems, facts = read_again(dataset)
        lines = [f"- {problem}" for problem in problems] or ["The dataset is as promised."]
        lines += ["", "| counted | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())]
        create_markdown_artifact("\n".join(lines), key="check", description=dataset)
        if problems:
            shown = "; ".join(problems[:3])
            raise StoreError(
                dataset, f"breaks {len(problems)} of its promises: {shown}. The artifact 'check' lists all"
            )
        return {"dataset": steps.absolute_out(dataset), "problems": 0}
