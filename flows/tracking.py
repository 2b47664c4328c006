"""What the flows share: the log of a run as a console, when to try again, events and artifacts.

Prefect wraps, it does not think: every task is a few lines around a step of `flows.steps`. No server is ever started
from here; without a configured API the command refuses, because Prefect would start one behind the user's back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prefect import get_run_logger
from prefect.events import emit_event
from prefect.runtime import flow_run

from curate.errors import CurateError, InputError
from curate.tracing import span, traced
from flows import steps
from flows.health import TIMEOUT_S
from flows.metrics import metrics, told
from recipes.read import dump_recipe
from recipes.recipe import Recipe

RETRY_DELAYS_S: list[float] = [10, 60, 300]
PUBLISHED, ARRIVED = "curate.dataset.published", "curate.scenes.arrived"
"""Events, about the resource that `resource_of` names."""


def require_server() -> None:
    """InputError unless a Prefect API is configured and there; we never start one."""
    import requests
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        raise InputError(
            "Prefect",
            "no server is configured; set PREFECT_API_URL (http://127.0.0.1:4200/api after 'prefect server start'), "
            "or build without --prefect",
        )
    try:
        # Whatever it answers: a server that wants a key is one, too.
        requests.get(f"{url.rstrip('/')}/health", timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise InputError(
            "Prefect", f"no server answers at {url}; start it, correct PREFECT_API_URL, or build without --prefect"
        ) from error


def worth_another_try(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect's question whether to retry a task, asked of the error."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, CurateError) and error.retryable


RETRIED: dict[str, Any] = {
    "retries": len(RETRY_DELAYS_S),
    "retry_delay_seconds": RETRY_DELAYS_S,
    "retry_condition_fn": worth_another_try,
    "persist_result": False,
}
"""Options of every task that reads or writes; what they leave is in the store, so their results are not kept."""
RECORDED: dict[str, Any] = {"persist_result": True, "result_serializer": "json"}
"""Options of every flow: its result is a record that others can fetch."""


class RunConsole:
    """What the steps say, in the log of the Prefect run."""

    def say(self, text: str, **facts: Any) -> None:
        """A line of the log."""
        get_run_logger().info("%s", text)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[RunConsole]:
        """A line when a stage begins; how far it is stands in the progress artifact."""
        self.say(name if total is None else f"{name}: {total}")
        with span(name), metrics().stage(name):
            yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Nothing: a line a shard would drown the log."""


@contextmanager
def told_run() -> Iterator[None]:
    """The body of a flow: its numbers and its trace are told, with the command's where a command has started it.

    Told or not, the run goes on: nobody is there to choose another port at night.
    """
    given = flow_run.parameters
    about = next((str(given[key]) for key in ("to", "dataset", "out") if given.get(key)), "")
    labels = {"flow": flow_run.flow_name or "", "dataset": steps.absolute_out(about) if about else ""}
    say = RunConsole().say
    with told(labels, forgive=say), traced(flow_run.flow_name or "flow", str(flow_run.id or "")):
        yield


def recipe_text(recipe: Recipe | str | None) -> str | None:
    """What `steps.Request` takes: a path as it is, a recipe filled in on the form as its text."""
    return dump_recipe(recipe) if isinstance(recipe, Recipe) else recipe


def run_name(verb: str) -> str:
    """``build <dataset> · <area> · <recipe>`` of the flow run that asks."""
    given = flow_run.parameters
    parts = [short_name(str(given[key])) for key in ("dataset", "out", "aoi", "to") if given.get(key)]
    recipe = given.get("recipe")
    if isinstance(recipe, Mapping):
        parts.append(str(recipe.get("name") or "recipe"))
    elif recipe:
        parts.append(getattr(recipe, "name", None) or short_name(str(recipe)))
    return f"{verb} {' · '.join(dict.fromkeys(parts))}"


def short_name(where: str) -> str:
    """Last part of a path or an address without its ending; text that is no path is cut short."""
    last = where.rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0] if "\n" not in where else "recipe"
    return last if len(last) <= 40 else f"{last[:39]}…"


def resource_of(dataset: str) -> dict[str, str]:
    """The resource that events about a dataset speak of; the same id for the same address."""
    where = steps.absolute_out(dataset)
    slug = re.sub(r"[^a-z0-9]+", "-", where.lower()).strip("-")
    return {
        "prefect.resource.id": f"curate.dataset.{slug}",
        "prefect.resource.name": short_name(where),
        "curate.url": where,
    }


def emit(event: str, dataset: str, facts: Mapping[str, Any]) -> None:
    """Tell whoever listens (automations of Prefect, deployments that an event starts)."""
    emit_event(event=event, resource=resource_of(dataset), payload=dict(facts))
