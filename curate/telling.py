"""What the stages tell while they work: counts of this process, and of which shard and scene a log line speaks.

Counts are taken, not read: what one taker got no other gets, so counts of many shards and workers can be added up.
"""

from __future__ import annotations

import contextvars
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

What = Literal["read", "read_again", "searched", "written", "written_bytes"]
"""Files read (windows of them), read again after a bad answer, requests to catalogs, objects and bytes written."""

T = TypeVar("T")
R = TypeVar("R")

_counts: Counter[What] = Counter()
_counting = threading.Lock()
_about: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("about", default={})  # noqa: B039 - never changed


def count(what: What, n: int = 1) -> None:
    """Add ``n`` to what this process has counted."""
    with _counting:
        _counts[what] += n


def take() -> dict[What, int]:
    """What was counted in this process since the last call."""
    with _counting:
        found = dict(_counts)
        _counts.clear()
    return found


@contextmanager
def about(**ids: Any) -> Iterator[None]:
    """Log lines of the block, in this thread, are about these: ``about(shard=3)``, ``about(scene="S2A…")``."""
    token = _about.set({**_about.get(), **ids})
    try:
        yield
    finally:
        _about.reset(token)


def carried(work: Callable[[T], R]) -> Callable[[T], R]:
    """``work`` for another thread, where its log lines are about what they would be about here."""
    here = contextvars.copy_context()
    return lambda item: here.copy().run(work, item)


def ids() -> Mapping[str, Any]:
    """What log lines of this thread are about just now."""
    return _about.get()
