"""Numbers of a run for Prometheus: asked for over HTTP, or left in a file for runs that are over before anybody asks.

``CURATE_METRICS_PORT`` says where to answer, ``CURATE_METRICS_FILE`` what to write at the end, for the node exporter's
collector of text files. Where neither is set nothing is told. A command tells, and so does a flow that a worker runs; a
flow that a command starts is told with the command.

Workers of a cluster send their counts with each finished shard, so one process tells them all.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import CurateError, InputError
from curate.tracing import span

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

    from catalog.lock import LockedItem
    from flows.console import Console, Stage
    from flows.shard import ShardDone

PORT, FILE = "CURATE_METRICS_PORT", "CURATE_METRICS_FILE"
LABELS = ("flow", "dataset")
"""Of the numbers of a flow's run; ``{flow}`` and ``{dataset}`` in the name of the file stand for them."""
COUNTED = {
    "read": ("reads", "Windows of files that were read."),
    "read_again": ("read_retries", "Reads that were repeated after a bad answer."),
    "searched": ("catalog_requests", "Requests to STAC APIs."),
    "written": ("objects_written", "Objects of the store that were written."),
    "written_bytes": ("bytes_written", "Bytes of the store that were written."),
}
"""Counts of `curate.telling` -> name and help of the metric."""


class Metrics:
    """Every number we tell, in a registry of our own, so that nobody else's numbers are among them."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "curate"}
        self.chips = Counter("chips", "Chips that were built.", **own)
        self.shards = Counter("shards", "Shards by what became of them.", ["outcome"], **own)
        self.dropped = Counter("scenes_dropped", "Scenes that are not used.", ["source", "reason"], **own)
        self.seconds = Histogram(
            "stage_seconds", "Duration of the stages.", ["stage"], buckets=(0.1, 1, 10, 60, 600, 3600, 36000), **own
        )
        self.ended = Gauge("last_end_timestamp_seconds", "When the last run ended.", ["outcome"], **own)
        self.counts = {what: Counter(name, text, **own) for what, (name, text) in COUNTED.items()}

    def add(self, counts: Mapping[Any, int]) -> None:
        """Counts that were taken, here or by a worker."""
        for what, n in counts.items():
            self.counts[what].inc(n)

    def shard_done(self, done: ShardDone) -> None:
        """A shard is written."""
        self.chips.inc(done.chips)
        self.shards.labels("built").inc()
        self.add(done.counts)

    def shards_failed(self, errors: Iterable[CurateError]) -> None:
        """Shards could not be built."""
        for error in errors:
            self.shards.labels(type(error).__name__).inc()

    def scenes_locked(self, locked: Iterable[LockedItem]) -> None:
        """Scenes were found and some are not used."""
        for row in locked:
            if row.status != "used":
                self.dropped.labels(row.source, re.split(r"[:\d]", row.reason)[0].strip() or row.status).inc()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage; what stands behind the first number in its name is left out, or there would be no end."""
        with self.seconds.labels(re.split(r"\d", name)[0].strip()).time():
            yield

    def collect(self) -> Iterator[Metric]:
        """Everything that was counted up to now, for a registry."""
        from curate.telling import take

        self.add(take())
        yield from self.registry.collect()


class Labelled:
    """The numbers with labels more, so that those of several flows and datasets can stand side by side."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = dict(labels)

    def collect(self) -> Iterator[Metric]:
        """As ``Metrics.collect``."""
        from prometheus_client import Metric

        for family in metrics().collect():
            told = Metric(family.name, family.documentation, family.type)
            told.samples = [sample._replace(labels={**self.labels, **sample.labels}) for sample in family.samples]
            yield told


@cache
def metrics() -> Metrics:
    """The numbers of this process."""
    return Metrics()


_open = 0
"""Blocks of ``told`` that are open: a flow within its command, or runs side by side."""
_guard = threading.Lock()


@contextmanager
def told(labels: Mapping[str, str] | None = None, *, forgive: Callable[[str], None] | None = None) -> Iterator[None]:
    """Tell the numbers of a block where the environment says so; a block within another is told with that one.

    Args:
        labels: Added to every number, and put in the place of their names in ``CURATE_METRICS_FILE``.
        forgive: Told what goes wrong with telling, and the work goes on; None to raise it.

    Raises:
        InputError: The port cannot be taken, or the file cannot be written.
    """
    port, file = os.environ.get(PORT), os.environ.get(FILE)
    if not port and not file:  # and then nothing of Prometheus is loaded either
        yield
        return
    with _counted_in() as outermost:
        server = None
        if outermost:
            _start_anew()
            server = _forgiven(forgive, lambda: _served(port, labels or {})) if port else None
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            metrics().ended.labels(outcome).set_to_current_time()
            if server is not None:
                server.shutdown()
                server.server_close()
            if outermost and file:
                _forgiven(forgive, lambda: _leave(file, labels or {}))


@contextmanager
def _counted_in() -> Iterator[bool]:
    """Whether this is the outermost block of ``told``."""
    global _open
    with _guard:
        _open += 1
        outermost = _open == 1
    try:
        yield outermost
    finally:
        with _guard:
            _open -= 1


def _start_anew() -> None:
    """Forget what was counted before: a process may run one flow after the other, each with numbers of its own."""
    from curate.telling import take

    metrics.cache_clear()
    take()


def _forgiven(forgive: Callable[[str], None] | None, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except InputError as error:
        if forgive is None:
            raise
        forgive(f"no numbers are told: {error}")
    return None


def _registry(labels: Mapping[str, str]) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(Labelled(labels))
    return registry


def _served(port: str, labels: Mapping[str, str]) -> Any:
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(int(port), registry=_registry(labels))
    except ValueError as error:
        raise InputError(PORT, f"is {port!r}; wanted the number of a port, such as 9101") from error
    except OSError as error:
        raise InputError(PORT, f"port {port} cannot be taken ({error.strerror}); choose another one") from error
    return server


def _leave(where: str, labels: Mapping[str, str]) -> None:
    from prometheus_client import generate_latest

    for name in LABELS:
        where = where.replace(f"{{{name}}}", re.sub(r"[^\w.]+", "-", labels.get(name, "")).strip("-") or "curate")
    file = Path(where)
    # The collector may read at any time: a file that is renamed is whole.
    half = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        half.write_bytes(generate_latest(_registry(labels)))
        half.replace(file)
    except OSError as error:
        raise InputError(FILE, f"{file} cannot be written ({error.strerror}); name another file") from error


class Metered:
    """A console that also measures how long the stages take, and traces them."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str, **facts: Any) -> None:
        """As the console does."""
        self.console.say(text, **facts)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """As the console does."""
        with span(name), metrics().stage(name), self.console.stage(name, total) as given:
            yield given
