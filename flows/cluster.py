"""A Dask cluster by one word: the address of a running one, one on this machine, or one that a function makes."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from curate import __version__
from curate.errors import InputError

CONNECT_TIMEOUT_S = 15
WORKERS_TIMEOUT_S = 300
"""How long a cluster that is made for us may take until its first worker is there: clouds are slow."""

_MADE = re.compile(r"(?P<maker>local|[\w.]+:[A-Za-z_]\w*)(?::(?P<least>\d+)(?:-(?P<most>\d+))?)?")


@contextmanager
def connect(where: str, *, timeout_s: float = CONNECT_TIMEOUT_S) -> Iterator[Any]:
    """A client of the cluster, with at least one worker, all of our release.

    Args:
        where: ``tcp://host:8786``: one that runs. ``local:4``: four processes here. ``package.module:function``: what
            the function gives, a cluster (Dask-Gateway, dask-kubernetes, Coiled …) or its address; with ``:4`` it is
            scaled to four workers, with ``:1-20`` it grows and shrinks between one and twenty as there is work. What
            was made for us is closed at the end.
        timeout_s: How long to wait for the scheduler.

    Raises:
        InputError: Nobody answers, the function cannot be used, there is no worker, or one has another release.
    """
    from distributed import Client

    _quieten()
    with _target(where) as (target, made):
        try:
            client: Any = Client(target, timeout=timeout_s, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            why = f"no Dask scheduler answers there ({error}); start one, or leave --dask away"
            raise InputError(where, why) from error
        with client, client.as_current():
            if made:
                _wait(client, where)
            _same_release(client, where)
            yield client


def _quieten() -> None:
    """Let Dask tell as much as we do: on its own it tells every step of every worker."""
    from distributed.config import config

    if not config.get("logging"):  # nobody has said how much
        logging.getLogger("distributed").setLevel(logging.getLogger().level)


@contextmanager
def _target(where: str) -> Iterator[tuple[Any, bool]]:
    """What a client connects to, and whether it was made for us."""
    asked = _MADE.fullmatch(where)
    if asked is None:
        yield where, False
        return
    least, most = (None if n is None else int(n) for n in (asked["least"], asked["most"]))
    if asked["maker"].startswith("local:"):
        raise InputError(where, "after local: comes how many workers to start, as in local:4")
    if (most is None and least == 0) or (most is not None and most < max(least or 0, 1)):
        raise InputError(where, "these are no workers; wanted is a number from 1, or from least to most, as in 1-20")
    if asked["maker"] == "local":
        made = _local(least or 1 if most is None else least or 0)
    else:
        made = _called(where, asked["maker"])
    try:
        if least is not None and not isinstance(made, str):
            _scale(where, made, least, most)
        yield made, True
    finally:
        if hasattr(made, "close"):
            made.close()


def _local(workers: int) -> Any:
    from distributed import LocalCluster

    # A shard uses all cores by itself: more threads a worker would only take memory.
    return LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    )


def _called(where: str, maker: str) -> Any:
    module, _, name = maker.partition(":")
    try:
        function: Callable[[], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            where, f"{maker} cannot be imported ({error}); name a function that is installed here, as module:function"
        ) from error
    try:
        return function()
    # Whatever somebody else's cluster raises: the user reads which function it was.
    except Exception as error:
        raise InputError(where, f"{maker} made no cluster ({type(error).__name__}: {error})") from error


def _scale(where: str, cluster: Any, least: int, most: int | None) -> None:
    try:
        if most is None:
            cluster.scale(least)
        else:
            cluster.adapt(minimum=least, maximum=most)
    except (AttributeError, NotImplementedError) as error:
        raise InputError(where, "this cluster cannot be scaled from here; leave the number of workers away") from error


def _wait(client: Any, where: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKERS_TIMEOUT_S)
    except TimeoutError as error:
        raise InputError(where, f"the cluster has no worker after {WORKERS_TIMEOUT_S} s; see its own logs") from error


def _same_release(client: Any, where: str) -> None:
    """InputError when a worker has another release of ours, or none: it would build other pixels, or fail oddly."""
    found = client.run(_release, on_error="return")
    if not found:
        raise InputError(where, "the Dask scheduler has no worker; start at least one")
    wrong = {worker: release for worker, release in found.items() if release != __version__}
    if wrong:
        worker, release = next(iter(wrong.items()))
        raise InputError(
            where, f"worker {worker} has curate {release!r}, this is {__version__}; install the same everywhere"
        )


def _release() -> str:
    from curate import __version__ as release

    return release
