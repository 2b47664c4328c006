"""The deployments of one dataset: a nightly update, a weekly check, and a watch; scenes that it sees start an update.

Where the dataset is to be copied, a fourth does it whenever a version was published.

`curate serve` works them in this process; `curate deploy` registers them with a work pool, whose workers need nothing
but curate installed: flows are named by module, never by path. `prefect.yaml` says the same for `prefect deploy`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.errors import InputError

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

    from flows.steps import Request


@dataclass(frozen=True, slots=True)
class Schedules:
    """When what is done, as cron in UTC; empty for never."""

    update: str = "0 2 * * *"
    check: str = "0 6 * * 0"
    watch: str = "15 * * * *"


def deployments(
    request: Request,
    schedules: Schedules,
    *,
    until: str | None = "today",
    publish_to: str | None = None,
    pool: str | None = None,
    image: str | None = None,
    job_variables: dict[str, Any] | None = None,
) -> tuple[RunnerDeployment, ...]:
    """The update, check and watch of a dataset, and its copy.

    Each runs once at a time: a run that finds the one before it still going is cancelled and leaves nothing behind; a
    copy waits for the one before it.

    Args:
        request: The dataset: area, recipe, catalog, output; all absolute, as the worker sees them.
        schedules: When.
        until: Up to when dates are wanted: a day, or ``today``; None for the time of the recipe.
        publish_to: Where each version is copied once it is published; None for nowhere.
        pool: The work pool; None to be served by this process.
        image: Container image of the runs, for pools of containers.
        job_variables: Variables of the work pool's template.

    Raises:
        InputError: A schedule is no cron.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.events import DeploymentEventTrigger
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.build import update
    from flows.release import publish
    from flows.steps import absolute_out
    from flows.tracking import ARRIVED, PUBLISHED, resource_of, short_name
    from flows.verify import check
    from flows.watch import watch

    name = short_name(request.out)
    said = {key: value for key, value in request.as_parameters().items() if value is not None and value != 1}
    building = {**said, "until": until}
    file = None if request.recipe is None or "\n" in request.recipe else request.recipe
    watching = {"dataset": request.out, "recipe": file, "until": until}
    variables = dict(job_variables or {}) | ({"image": image} if image else {})
    # Of this dataset alone. The address too: two addresses may be one id ("a-b" and "a/b").
    ours: dict[str, Any] = {label: resource_of(request.out)[label] for label in ("prefect.resource.id", "curate.url")}
    arrived = DeploymentEventTrigger(
        name=f"scenes for {name}",
        description="Updates the dataset when the watch has seen new scenes.",
        expect={ARRIVED},
        match=ours,
    )
    published = DeploymentEventTrigger(
        name=f"new version of {name}",
        description="Copies the dataset when a version was published.",
        expect={PUBLISHED},
        match=ours,
    )
    made: list[RunnerDeployment] = []
    rows: list[tuple[Any, str, dict[str, Any], list[Any], str]] = [
        (update, schedules.update, building, [arrived], "Builds the dataset, or adds what its catalog has since."),
        (check, schedules.check, {"dataset": request.out}, [], "Reads the dataset again and verifies its promises."),
        (watch, schedules.watch, watching, [], "Asks the catalog for scenes that the dataset has not; reads no pixel."),
    ]
    if publish_to is not None:
        copying: dict[str, Any] = {"dataset": request.out, "to": absolute_out(publish_to)}
        rows.append((publish, "", copying, [published], "Copies the latest version to where its readers are."))
    for flow, cron, parameters, triggers, about in rows:
        try:
            when = [Cron(cron, timezone="UTC")] if cron else []
        except ValueError as error:
            raise InputError(cron, f"is no schedule in cron's form ({error}); write it like '0 2 * * *'") from error
        made.append(
            flow.to_deployment(
                name=name,
                description=about,
                parameters=parameters,
                schedules=when,
                triggers=triggers,
                tags=["curate"],
                concurrency_limit=ConcurrencyLimitConfig(
                    limit=1,
                    collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
                    if flow is publish
                    else ConcurrencyLimitStrategy.CANCEL_NEW,
                ),
                work_pool_name=pool,
                job_variables=variables or None,
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        )
    return tuple(made)


def register(made: Sequence[RunnerDeployment], pool: str) -> list[str]:
    """Register deployments with a work pool: their names. Raises InputError when there is no such pool."""
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound as error:
            raise InputError(
                pool, "there is no such work pool; make one with 'prefect work-pool create --type process NAME'"
            ) from error
    for deployment in made:
        deployment.apply()
    return [f"{deployment.flow_name}/{deployment.name}" for deployment in made]


def job_variables(given: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` as values for a work pool's template; JSON where the value is JSON. Raises InputError."""
    variables: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(text, "is no variable of a job; write NAME=VALUE")
        try:
            variables[name] = json.loads(value)
        except ValueError:
            variables[name] = value
    return variables
