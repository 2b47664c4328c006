"""How far the builds in a place are, read from their journals alone: no server that remembers runs, and no pixel."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from chips.copy import MARKER
from chips.manifest import MANIFEST, needed_manifest
from chips.storage import Storage, open_storage
from chips.write import JOURNAL, failures, is_published, open_build, written_shards
from curate.errors import OutputError, StoreError

State = Literal["planned", "building", "failed", "built", "published", "damaged"]


@dataclass(frozen=True, slots=True)
class Status:
    """One build. ``building`` is also what a build looks like that was killed: ``last_written`` tells."""

    url: str
    state: State
    """planned: no shard is written yet; failed: shards could not be built; built: all are there, to be published."""
    shards: int = 0
    shards_done: int = 0
    chips: int = 0
    last_written: dt.datetime | None = None
    """When its journal, or the published manifest, was last written to, UTC, by the clock of the storage."""
    failed: Mapping[int, str] = field(default_factory=dict, hash=False)
    """Shard -> why it could not be built, of those that are still missing."""
    reason: str = ""
    """Why it is damaged."""


def status(storage: Storage) -> Status:
    """The state of the build in a place.

    Raises:
        StoreError: There is neither a build nor a dataset, or it is damaged.
        OutputError: The storage refuses, or the journal cannot be read.
    """
    if is_published(storage):
        manifest = needed_manifest(storage)
        shards, chips = len(manifest.shards), manifest.layout.n_chips
        return Status(storage.url, "published", shards, shards, chips, storage.last_written(MANIFEST))
    build = open_build(storage)
    if build is None:
        if storage.get(MARKER) is not None:
            raise StoreError(storage.url, "holds an unfinished copy; the same 'curate publish … --to' continues it")
        raise StoreError(storage.url, "there is no dataset and no build here")
    done, total = written_shards(storage), build.layout.n_shards
    failed = {ordinal: why for ordinal, why in failures(storage).items() if ordinal not in done}
    state: State = "building"
    if failed:
        state = "failed"
    elif len(done) == total:
        state = "built"
    elif not done:
        state = "planned"
    return Status(storage.url, state, total, len(done), build.layout.n_chips, storage.last_written(JOURNAL), failed)


def statuses(url: str) -> tuple[Status, ...]:
    """The builds and datasets that lie directly below a folder or an address, by name; other folders are passed over.

    Raises:
        OutputError: There is no such place, or it cannot be listed.
    """
    root = open_storage(url)

    def one(name: str) -> Status | None:
        place = f"{root.url.rstrip('/')}/{name}"
        try:
            storage = open_storage(place)
            if not is_published(storage) and not storage.sizes(JOURNAL):
                return None
            return status(storage)
        except (StoreError, OutputError) as error:
            return Status(place, "damaged", reason=error.why)

    with ThreadPoolExecutor(8) as pool:
        return tuple(found for found in pool.map(one, root.folders()) if found is not None)
