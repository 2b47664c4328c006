"""What a person or a log collector sees while `curate` works: bars on a terminal, plain lines elsewhere, or JSON lines.

Everything here goes to standard error; standard output is kept for results.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from curate.telling import ids
from curate.tracing import run_id

LogFormat = Literal["auto", "bar", "plain", "json"]
REPORT_EVERY_S = 10.0
"""Plain and JSON output say how far a stage is at least this often when something moved."""


class Stage(Protocol):
    """A stretch of work with a known or unknown number of steps."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that ``steps`` more are done."""


def counting(stage: Stage, what: str) -> Callable[[int, int], None]:
    """What takes (done, all), told by who counts from the beginning each time, as steps of a stage."""
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        stage.advance(done - told, f"of {total} {what}")
        told = done

    return progress


class Console(Protocol):
    """Where progress and remarks go."""

    def say(self, text: str, **facts: Any) -> None:
        """A remark; ``facts`` are its values for machines."""

    def stage(self, name: str, total: int | None = None) -> Any:
        """Context manager that gives a `Stage`."""


def open_console(log_format: LogFormat = "auto", *, verbose: bool = False) -> Console:
    """The console for this run; also sends the warnings of the library modules there."""
    if log_format == "auto":
        log_format = "bar" if sys.stderr.isatty() else "plain"
    consoles: dict[str, Callable[[], Console]] = {"bar": BarConsole, "plain": PlainConsole, "json": JsonConsole}
    console = consoles[log_format]()
    handler = _ToConsole(console)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    # Each retry of a connection, as the library words it; that it failed in the end is told by ours.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO if verbose else logging.ERROR)
    return console


class _ToConsole(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        # Some libraries log an exception without a word.
        text = record.getMessage() or repr(record.exc_info and record.exc_info[1])
        self.console.say(text, level=record.levelname.lower(), logger=record.name, **ids())


class _Timed:
    """Counts steps and knows when it is time to speak again."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name, self.total, self.done = name, total, 0
        self.begun = self.spoken = time.monotonic()

    def due(self, steps: int) -> bool:
        """Count ``steps``; true when a tenth more is done or enough time has passed."""
        before, self.done = self.done, self.done + steps
        now = time.monotonic()
        tenth = self.total is not None and self.total > 0 and before * 10 // self.total != self.done * 10 // self.total
        if tenth or now - self.spoken >= REPORT_EVERY_S:
            self.spoken = now
            return True
        return False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun


class PlainConsole:
    """One line a remark and a line every now and then while a stage runs."""

    def say(self, text: str, **facts: Any) -> None:
        """A line; warnings and errors are marked."""
        level = facts.get("level", "info")
        print(text if level == "info" else f"{level}: {text}", file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Say that a stage begins, how far it is, and how long it took."""
        timed = _Timed(name, total)
        self.say(f"{name} …" if total is None else f"{name} … 0/{total}")
        console = self

        class _Stage:
            def advance(self, steps: int = 1, note: str = "") -> None:
                if timed.due(steps):
                    of = "" if timed.total is None else f"/{timed.total}"
                    console.say(f"{name} … {timed.done}{of} {note}".rstrip())

        yield _Stage()
        self.say(f"{name}: done in {timed.seconds:.1f} s")


class JsonConsole:
    """One JSON object a line: ``time``, ``run``, ``level``, ``event`` and the values that belong to it.

    Lines of the stages also say which shard, scene and band they are about. ``run`` is ``CURATE_RUN``, or made up.
    """

    def __init__(self) -> None:
        self.run = run_id()

    def say(self, text: str, **facts: Any) -> None:
        """A remark as an object."""
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "run": self.run, "level": "info", "event": "message", "message": text, **facts}
        print(json.dumps(line, default=str), file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Events ``stage-started``, ``stage-progress`` and ``stage-finished``."""
        timed = _Timed(name, total)
        self.say(name, event="stage-started", stage=name, total=total)
        console = self

        class _Stage:
            def advance(self, steps: int = 1, note: str = "") -> None:
                if timed.due(steps):
                    facts = {"stage": name, "done": timed.done, "total": timed.total}
                    console.say(note or name, event="stage-progress", **facts)

        yield _Stage()
        self.say(name, event="stage-finished", stage=name, done=timed.done, seconds=round(timed.seconds, 3))


class BarConsole:
    """Progress bars on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole

        self.rich = RichConsole(stderr=True, highlight=False)

    def say(self, text: str, **facts: Any) -> None:
        """A line above the bar; warnings in yellow, errors in red."""
        style = {"warning": "yellow", "error": "red", "critical": "red"}.get(str(facts.get("level")))
        self.rich.print(text, style=style, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """A bar with count, time gone and time to go."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as TimeRemaining

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemaining(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.rich) as bars:
            task = bars.add_task(name, total=total, note="")

            class _Stage:
                def advance(self, steps: int = 1, note: str = "") -> None:
                    bars.update(task, advance=steps, note=note)

            yield _Stage()
