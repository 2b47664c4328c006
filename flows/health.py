"""Whether what a run needs can be reached: for probes of containers, and for people before they start a long one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from curate import __version__
from curate.errors import CurateError, InputError

TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one question."""

    what: str
    ok: bool
    told: str
    """What was found, or what is wrong."""


def examine(*, out: str | None = None, catalog: str | None = None, dask: str | None = None) -> tuple[Finding, ...]:
    """Ask everything that is named or configured; nothing is written.

    Args:
        out: Folder or address of a dataset: can it be listed?
        catalog: STAC API, or static catalog: does it answer?
        dask: Address of a scheduler: has it workers of our release?
    """
    questions: list[tuple[str, Callable[[], str]]] = [("curate", lambda: __version__)]
    if api := os.environ.get("PREFECT_API_URL"):
        questions.append((f"Prefect at {api}", lambda: _prefect(api)))
    if dask:
        questions.append((f"Dask at {dask}", lambda: _dask(dask)))
    if out:
        questions.append((f"storage {out}", lambda: _storage(out)))
    if catalog:
        questions.append((f"catalog {catalog}", lambda: _catalog(catalog)))
    return tuple(_ask(what, question) for what, question in questions)


def _ask(what: str, question: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, question())
    except (CurateError, OSError) as error:
        return Finding(what, False, str(error))


def _prefect(api: str) -> str:
    import requests

    answer = requests.get(f"{api.rstrip('/')}/health", timeout=TIMEOUT_S)
    if not answer.ok:
        raise InputError(api, f"answers {answer.status_code}; is it the address of an API, with /api at its end?")
    return "answers"


def _dask(address: str) -> str:
    from flows.cluster import connect

    with connect(address, timeout_s=TIMEOUT_S) as client:
        return f"{len(client.scheduler_info()['workers'])} workers, dashboard {client.dashboard_link}"


def _storage(out: str) -> str:
    from chips.info import describe
    from chips.storage import open_storage
    from flows.steps import absolute_out

    storage = open_storage(absolute_out(out))
    return describe(storage).state if storage.top() else "empty"


def _catalog(catalog: str) -> str:
    import requests

    from catalog.search import StacApi, open_catalog

    found = open_catalog(catalog)
    if isinstance(found, StacApi):
        requests.get(found.url, timeout=TIMEOUT_S).raise_for_status()
    return "answers"
