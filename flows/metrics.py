"""Numbers of a run for Prometheus: asked for over HTTP, or left in a file for runs that are over before anybody asks.

``CURATE_METRICS_PORT`` says where to answer, ``CURATE_METRICS_FILE`` what to write at the end, for the node exporter's
collector of text files. Where neither is set nothing is told.

Workers of a cluster send their counts with each finished shard, so one process tells them all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import CurateError, InputError

if TYPE_CHECKING:
    from catalog.lock import LockedItem
    from flows.console import Console, Stage
    from flows.shard import ShardDone

PORT, FILE = "CURATE_METRICS_PORT", "CURATE_METRICS_FILE"
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

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        from prometheus_client import generate_latest

        from curate.telling import take

        self.add(take())
        return generate_latest(self.registry)


@cache
def metrics() -> Metrics:
    """The numbers of this process."""
    return Metrics()


@contextmanager
def told() -> Iterator[None]:
    """Tell the numbers of a block where the environment says so. Raises InputError when the port cannot be taken."""
    port, file = os.environ.get(PORT), os.environ.get(FILE)
    if not port and not file:  # and then nothing of Prometheus is loaded either
        yield
        return
    stop = _served(port) if port else None
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        metrics().ended.labels(outcome).set_to_current_time()
        if file:
            _leave(Path(file))
        if stop is not None:
            stop.shutdown()


def _served(port: str) -> Any:
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(int(port), registry=metrics().registry)
    except ValueError as error:
        raise InputError(PORT, f"is {port!r}; wanted the number of a port, such as 9101") from error
    except OSError as error:
        raise InputError(PORT, f"port {port} cannot be taken ({error.strerror}); choose another one") from error
    return server


def _leave(file: Path) -> None:
    # The collector may read at any time: a file that is renamed is whole.
    half = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        half.write_bytes(metrics().text())
        half.replace(file)
    except OSError as error:
        raise InputError(FILE, f"{file} cannot be written ({error.strerror}); name another file") from error


class Metered:
    """A console that also measures how long the stages take."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str, **facts: Any) -> None:
        """As the console does."""
        self.console.say(text, **facts)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """As the console does."""
        with metrics().stage(name), self.console.stage(name, total) as given:
            yield given
