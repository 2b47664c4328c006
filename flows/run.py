"""Shards onto threads or a Dask cluster: whatever finishes is journaled, whatever fails is told, nothing is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from curate.errors import CurateError, InputError
from curate.tracing import Trace, flush, here
from flows.cluster import connect
from flows.shard import ShardDone, Work, build_and_write

if TYPE_CHECKING:
    from tiling.shards import Shard

log = logging.getLogger(__name__)

WORKER_RETRIES = 3
"""A worker that dies takes its shards with it; others get them this often, Dask's or, where all have died, ours."""


def run_shards(
    work: Work,
    shards: Sequence[Shard],
    *,
    scheduler: str | None = None,
    jobs: int = 1,
    on_done: Callable[[ShardDone], None] = lambda done: None,
    say: Callable[[str], None] = log.info,
) -> dict[int, CurateError]:
    """Build and write shards; what failed comes back as ordinal -> error.

    A shard that failed in a way that may pass is tried once more when all others are done. Errors that are not ours are
    raised at once.
    """
    with _submitter(work, scheduler, jobs, say) as submit:
        failed = _pass(shards, submit, on_done)
        again = [shard for shard in shards if shard.ordinal in failed and failed[shard.ordinal].retryable]
        if again:
            log.info("%d shards failed and are tried again", len(again))
            failed |= dict.fromkeys((shard.ordinal for shard in again), None)
            failed |= _pass(again, submit, on_done)
    return {ordinal: error for ordinal, error in failed.items() if error is not None}


Submit = Callable[[Sequence[Any]], Iterator[tuple[int, ShardDone | CurateError]]]


def _pass(shards: Sequence[Shard], submit: Submit, on_done: Callable[[ShardDone], None]) -> dict[int, Any]:
    failed: dict[int, Any] = {}
    for ordinal, outcome in submit(shards):
        if isinstance(outcome, CurateError):
            log.info("shard %d failed: %s", ordinal, outcome)
            failed[ordinal] = outcome
        else:
            on_done(outcome)
    return failed


def _try(work: Work, shard: Shard, under: Trace) -> ShardDone | CurateError:
    """Our errors as values: they are told at the end, and do not stop the other shards."""
    try:
        return build_and_write(work, shard, under)
    except CurateError as error:
        return error


@contextmanager
def _submitter(work: Work, scheduler: str | None, jobs: int, say: Callable[[str], None]) -> Iterator[Submit]:
    if scheduler is None:
        with _threads(work, jobs) as submit:
            yield submit
    else:
        with _cluster(work, scheduler, say) as submit:
            yield submit


@contextmanager
def _threads(work: Work, jobs: int) -> Iterator[Submit]:
    from concurrent.futures import ThreadPoolExecutor, as_completed

    pool = ThreadPoolExecutor(jobs, thread_name_prefix="shard")

    def submit(shards: Sequence[Shard]) -> Iterator[tuple[int, ShardDone | CurateError]]:
        under = here()
        futures = {pool.submit(_try, work, shard, under): shard.ordinal for shard in shards}
        for future in as_completed(futures):
            yield futures[future], future.result()

    try:
        yield submit
    except BaseException:
        # Ctrl-C: the shard in work is given up, not waited for; without its line in the journal it does not count.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _cluster(work: Work, scheduler: str, say: Callable[[str], None]) -> Iterator[Submit]:
    with connect(scheduler) as client:
        workers = len(client.scheduler_info()["workers"])
        say(f"on Dask with {workers} workers now; dashboard {client.dashboard_link}")

        def submit(shards: Sequence[Shard]) -> Iterator[tuple[int, ShardDone | CurateError]]:
            left = {shard.ordinal: shard for shard in shards}
            tries = 0
            while left and tries <= WORKER_RETRIES:
                before = len(left)
                for ordinal, outcome in _round(client, work, list(left.values())):
                    del left[ordinal]
                    yield ordinal, outcome
                tries = tries + 1 if len(left) == before else 0
                if left:
                    say(f"all workers went away at once; {len(left)} shards wait for new ones")
            for ordinal in left:
                yield ordinal, _deadly(ordinal, f"all workers died {tries} times before any shard was done")

        yield submit
        if here().headers and client.status == "running":  # workers that were made for us end now
            client.run(flush, on_error="ignore")


def _round(client: Any, work: Work, shards: Sequence[Shard]) -> Iterator[tuple[int, ShardDone | CurateError]]:
    """Shards onto the workers there are; those that are lost with all of the workers do not come back."""
    from distributed import KilledWorker, as_completed
    from distributed.client import FutureCancelledError

    client.wait_for_workers(1)
    # What is handed over lies in the memory of workers alone, and goes with the last of those that have it.
    (handed,) = client.scatter([work], broadcast=True, hash=False)
    under = here()
    futures = {
        client.submit(_try, handed, shard, under, pure=False, retries=WORKER_RETRIES): shard.ordinal for shard in shards
    }
    for future in as_completed(futures):  # type: ignore[no-untyped-call]
        ordinal = futures[future]
        try:
            yield ordinal, future.result()
        except KilledWorker as error:
            yield ordinal, _deadly(ordinal, f"{error.allowed_failures + 1} workers died at it")
        except FutureCancelledError as error:
            if error.reason == "scheduler-connection-lost":
                why = "the scheduler went away; what was built is kept, start it again and run the same command"
                yield ordinal, InputError("Dask", why)
        del futures[future]
        future.release()


def _deadly(ordinal: int, what: str) -> InputError:
    # Nearly always workers with less memory than a shard takes.
    return InputError(
        f"shard {ordinal}", f"{what}; give workers more memory, or make shards smaller with store.shard_chips"
    )
