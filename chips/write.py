"""A build in progress: started once, filled shard by shard from any number of processes, resumed by content.

Its journal lies in ``.curate/`` in the output: ``build.json`` (fingerprint and layout), the documents the build started
from, and a line a shard, written after the pixels of that shard. Until ``chips.publish`` there is no ``zarr.json``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chips.encode import encode_chunk, encode_shard
from chips.index import ChipRecord
from chips.layout import COMMITTED, STORE, Layout, Variable, canonical
from chips.manifest import MANIFEST, Written, written_from
from chips.metadata import DOCUMENT, arrays_of, chunks
from chips.metadata import documents as zarr_documents
from chips.repository import (
    Begun,
    CommitAs,
    SessionStorage,
    begin,
    collected,
    fork_of,
    forked,
)
from chips.storage import Storage, open_storage
from curate import __version__
from curate.errors import OutputError, StoreError
from curate.telling import count

if TYPE_CHECKING:
    import numpy.typing as npt

    from chips.statistics import Counter, Statistics

logger = logging.getLogger(__name__)

JOURNAL = ".curate"
BUILD = f"{JOURNAL}/build.json"
ROOT = f"{STORE}/{DOCUMENT}"
"""The document that makes a store a store; the last one to be written."""
_FAILED = f"{JOURNAL}/failed"
_BEGUN = f"{JOURNAL}/icechunk.json"

# What operating systems leave in a folder that a person calls empty.
_HARMLESS = {".DS_Store", "Thumbs.db", "desktop.ini", "lost+found", ".directory"}

# Objects encoded at a time in one shard: each holds its bytes in memory, up to 128 MiB where nothing compresses.
_OBJECTS_AT_ONCE = 4

_FORKS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class BuildRef:
    """A build in progress. Small and picklable: all that a worker needs to write a shard."""

    url: str
    """Output folder, absolute, or the URL of an object store."""
    fingerprint: str
    """Of everything the pixels depend on (recipe, region, scenes); a build continues only under the same one."""
    layout: Layout


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One finished shard: what became of its chips and the objects it wrote. A line of the journal."""

    ordinal: int
    start: int
    """Position of its first chip along ``chip``."""
    chips: tuple[ChipRecord, ...]
    objects: tuple[Written, ...]
    """Sorted by key; values that are all void are not stored."""
    statistics: Written
    """What its numbers say (``chips.statistics``), kept with the journal until all shards are merged."""
    fork: Written | None = None
    """In an Icechunk repository: what the shard has written there, kept with the journal until it is committed."""

    @property
    def stored_bytes(self) -> int:
        """Size of its objects."""
        return sum(written.size for written in self.objects)


def start_build(
    storage: Storage,
    layout: Layout,
    fingerprint: str,
    documents: Mapping[str, bytes] | None = None,
    *,
    commit: CommitAs | None = None,
) -> BuildRef:
    """Begin a build in an empty folder, or continue the unfinished one that is there.

    Args:
        storage: Where the dataset is to lie.
        layout: All arrays of the dataset; it cannot change later.
        fingerprint: Decides whether an unfinished build found here is this one.
        documents: Inputs of the build (recipe.yaml, region.geojson, scenes.parquet), kept with the journal, read
            back by ``read_document`` and published beside the store. A build that continues keeps its first ones.
        commit: In an Icechunk repository, what it is to be committed as; by default the first version of a new one.

    Raises:
        OutputError: The folder holds a finished dataset, another build, or files that are not ours.
    """
    build = BuildRef(storage.url, fingerprint, layout)
    if is_published(storage):
        raise OutputError(
            storage.url, "this folder holds a finished dataset; choose another one, or remove it to build it anew"
        )
    found = open_build(storage)
    if found is None:
        _refuse_foreign(storage)
        given = dict(sorted((documents or {}).items()))
        for data in given.values():
            storage.put(_document_key(hashlib.sha256(data).hexdigest()), data)
        if not storage.put_first(BUILD, _build_json(build, given)):
            raise OutputError(
                storage.url, "another process has begun another build here this moment; run the same command again"
            )
        _begin(storage, layout, commit)
        logger.info("started a build of %d chips in %d shards", layout.n_chips, layout.n_shards)
        return build
    if found.fingerprint != fingerprint:
        raise OutputError(
            storage.url,
            "this folder holds an unfinished build of another recipe, region or set of scenes; finish that one, "
            "remove the folder, or choose another",
        )
    if found.layout != layout:
        raise OutputError(
            storage.url,
            "this folder holds an unfinished build whose arrays have another layout, probably of another release of "
            "curate; remove the folder, or choose another",
        )
    storage.delete(storage.sizes(_FAILED))  # what failed is tried again
    _begin(storage, layout, commit)
    # Killed while publishing: take back what already opens, because shards may be written anew.
    storage.delete([MANIFEST, *(key for key in storage.sizes(STORE) if key.endswith(f"/{DOCUMENT}"))])
    return build


def open_build(storage: Storage) -> BuildRef | None:
    """The unfinished build in a folder; None where there is none, or where it is published already.

    Raises:
        OutputError: The journal cannot be read.
    """
    data = storage.get(BUILD)
    if data is None or is_published(storage):
        return None
    try:
        found = json.loads(data)
        return BuildRef(storage.url, found["fingerprint"], Layout.from_json(found["layout"]))
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            storage.url,
            f"the journal of an unfinished build ({BUILD}) cannot be read: {error}; remove the folder and start again",
        ) from error


def _begin(storage: Storage, layout: Layout, commit: CommitAs | None) -> None:
    """In an Icechunk repository: let the build begin there, once."""
    if layout.store != "icechunk":
        return
    if storage.get(_BEGUN) is not None:
        begun_as(storage)
        return
    storage.put_first(_BEGUN, begin(storage, commit or CommitAs(), arrays_of(zarr_documents(layout))).to_bytes())


def begun_as(storage: Storage) -> Begun:
    """How an unfinished build began whose store is in an Icechunk repository.

    Raises:
        OutputError: Its journal is gone or damaged, or it was begun elsewhere.
    """
    data = storage.get(_BEGUN)
    if data is None:
        raise OutputError(storage.url, "its journal is gone: another process has finished or removed this build")
    try:
        begun = Begun.from_bytes(data)
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            storage.url, f"{_BEGUN} cannot be read: {error}; remove the folder and start again"
        ) from error
    if not begun.lies_in(storage):
        # Its forks would write where it was begun, which may be another build by now.
        raise OutputError(
            storage.url,
            f"this unfinished build was begun with the repository {begun.url} and was moved or copied since, which "
            "only a finished one can be; move it back, or remove it and start again",
        )
    return begun


def written_storage(build: BuildRef) -> Storage:
    """Where a build lies, with the pixels of its finished shards in its store.

    Raises:
        OutputError: The journal cannot be used, or another build was committed to the same repository.
    """
    storage = open_storage(build.url)
    if build.layout.store == "zarr":
        return storage
    begun = begun_as(storage)
    return collected(storage, begun, _forks(storage, begun, list(journal(build))), build.fingerprint)


def _forks(storage: Storage, begun: Begun, shards: Sequence[ShardRecord]) -> Iterator[bytes]:
    """What shards have written in a repository, in order, without those where that is gone or damaged."""
    with ThreadPoolExecutor(_FORKS_AT_ONCE) as pool:
        for start in range(0, len(shards), _FORKS_AT_ONCE):
            part = shards[start : start + _FORKS_AT_ONCE]
            yield from (data for data in pool.map(functools.partial(_fork, storage, begun), part) if data is not None)


def _fork(storage: Storage, begun: Begun, shard: ShardRecord) -> bytes | None:
    """What a shard has written in a repository; None where that is gone, damaged, or the fork of another session."""
    data = None if shard.fork is None else storage.get(shard.fork.key)
    if shard.fork is None or data is None or hashlib.sha256(data).hexdigest() != shard.fork.sha256:
        return None
    return data.removeprefix(begun.digest) if data.startswith(begun.digest) else None


def is_published(storage: Storage) -> bool:
    """Whether the folder holds a finished dataset: what is written last is there.

    That is the root document of the store, or what names the commit in an Icechunk repository.
    """
    return storage.get(ROOT) is not None or storage.get(COMMITTED) is not None


def read_document(storage: Storage, name: str) -> bytes | None:
    """A document the build was started with, unfinished or published; None where there is none."""
    if is_published(storage):
        return storage.get(name)
    digest = _begun_with(storage).get(name)
    return None if digest is None else storage.get(_document_key(digest))


def started_with(storage: Storage) -> dict[str, bytes]:
    """All documents an unfinished build was started with, by name.

    Raises:
        OutputError: They are gone, because another process finished or removed the build meanwhile.
    """
    found = {name: storage.get(_document_key(digest)) for name, digest in _begun_with(storage).items()}
    kept = {name: data for name, data in found.items() if data is not None}
    if kept.keys() != found.keys() or storage.get(BUILD) is None:
        raise OutputError(storage.url, "its journal is gone: another process has finished or removed this build")
    return kept


def _begun_with(storage: Storage) -> dict[str, str]:
    """Name -> SHA-256 of the documents of an unfinished build."""
    data = storage.get(BUILD)
    try:
        return {} if data is None else dict(json.loads(data)["documents"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(storage.url, f"{BUILD} cannot be read: {error}; remove the folder and start again") from error


def _document_key(digest: str) -> str:
    # By content: of two processes that begin at once, the slower one must not write over what the other goes by.
    return f"{JOURNAL}/documents/{digest}"


def write_shard(
    build: BuildRef,
    ordinal: int,
    start: int,
    arrays: Mapping[tuple[str, str], npt.NDArray[Any]],
    records: Sequence[ChipRecord],
) -> ShardRecord:
    """Write the pixels of one shard, then its line in the journal. Running it twice leaves what running it once leaves.

    Args:
        build: The build; any process may hold it.
        ordinal: Number of the shard in the plan.
        start: Position of its first chip along ``chip``.
        arrays: ``(group, name)`` -> values of every variable of the layout, the chips of the shard in front.
        records: What became of each chip, in order.

    Raises:
        ValueError: The arrays do not fit the layout.
        OutputError: The storage refuses: full, gone, not writable.
    """
    from chips.statistics import MASKS, Counter, Statistics

    _check_shard(build.layout, ordinal, start, arrays, records)
    beside = open_storage(build.url)
    begun = begun_as(beside) if build.layout.store == "icechunk" else None
    storage = beside if begun is None else forked(beside, begun.fork)
    found = Statistics()
    counter = Counter(
        build.layout,
        found,
        [record.split for record in records],
        [record.status for record in records],
        {group: array for (group, name), array in arrays.items() if name == "acquired"},
        {group: array for (group, name), array in arrays.items() if name in MASKS},
    )
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _OBJECTS_AT_ONCE)) as pool:
        tasks = [
            pool.submit(_write_object, storage, variable, build.layout, where, start, arrays[variable.key], counter)
            for variable in build.layout.variables
            for where in _objects(variable, build.layout, len(records))
        ]
        objects = [written for task in tasks if (written := task.result()) is not None]
    told = _put(beside, _statistics_key(ordinal), found.to_bytes())
    fork = None
    if begun is not None and isinstance(storage, SessionStorage):
        # Two processes may begin in one folder at once, and the forks of the slower one would be lost unseen.
        fork = _put(beside, _fork_key(ordinal), begun.digest + fork_of(storage))
    shard = ShardRecord(ordinal, start, tuple(records), tuple(sorted(objects)), told, fork)
    beside.put(_line_key(ordinal), _line_json(build, shard))
    logger.debug("wrote shard %d: %d chips, %d bytes", ordinal, len(records), shard.stored_bytes)
    return shard


def record_failures(build: BuildRef, reasons: Mapping[int, str]) -> None:
    """Note in the journal why shards could not be built; a note counts until its shard is written."""
    storage = open_storage(build.url)
    for ordinal, reason in reasons.items():
        storage.put(f"{_FAILED}/{ordinal:06d}.json", canonical({"ordinal": ordinal, "reason": reason}))


def failures(storage: Storage) -> dict[int, str]:
    """Ordinal -> reason of the notes that ``record_failures`` has left, in order; a damaged one is passed over."""
    found = {}
    for key in storage.sizes(_FAILED):
        try:
            note = json.loads(storage.get(key) or b"")
            found[int(note["ordinal"])] = str(note["reason"])
        except (ValueError, KeyError, TypeError):
            logger.warning("%s in %s is damaged and passed over", key, storage.url)
    return found


def written_shards(storage: Storage) -> set[int]:
    """Ordinals of the shards that have a line in the journal, which is not read."""
    names = (key.rpartition("/")[2].removesuffix(".json") for key in storage.sizes(f"{JOURNAL}/shards"))
    return {int(name) for name in names if name.isdigit()}


def finished_shards(build: BuildRef, *, verify: bool = True) -> set[int]:
    """Ordinals of the shards that need not be built again.

    Args:
        build: The build.
        verify: Read every object back and compare its SHA-256 with the journal. Without it, only the journal counts.
    """
    storage = open_storage(build.url)
    lines = list(journal(build))
    if not verify:
        return {shard.ordinal for shard in lines}

    def intact(place: Storage, written: Written) -> bool:
        return place.digest(written.key) == (written.size, written.sha256)

    begun = begun_as(storage) if build.layout.store == "icechunk" else None
    good = set()
    with ThreadPoolExecutor(4) as pool:
        for shard in lines:
            place: Storage | None = storage
            if begun is not None:
                fork = _fork(storage, begun, shard)
                place = None if fork is None else forked(storage, fork)
            wanted = (*shard.objects, shard.statistics)
            if place is not None and all(pool.map(intact, [place] * len(wanted), wanted)):
                good.add(shard.ordinal)
    return good


def journal(build: BuildRef) -> Iterator[ShardRecord]:
    """The finished shards as the journal has them, in order; a damaged line or one of another build is passed over."""
    storage = open_storage(build.url)
    keys = [key for key in storage.sizes(f"{JOURNAL}/shards") if key.endswith(".json")]
    with ThreadPoolExecutor(8) as pool:
        for key, data in zip(keys, pool.map(storage.get, keys), strict=True):
            shard = None if data is None else _read_line(build, data)
            if shard is None or key != _line_key(shard.ordinal):
                logger.warning("%s in %s is damaged: its shard will be built again", key, build.url)
            else:
                yield shard


def merged_statistics(build: BuildRef) -> Statistics:
    """What the numbers of all finished shards say together; the same bytes in whatever order they were built.

    Raises:
        StoreError: The counts of a shard are gone or damaged.
    """
    from chips.statistics import Statistics

    storage = open_storage(build.url)
    found = Statistics()
    for shard in journal(build):
        data = storage.get(shard.statistics.key)
        if data is None or hashlib.sha256(data).hexdigest() != shard.statistics.sha256:
            raise StoreError(
                build.url,
                f"{shard.statistics.key} is {'gone' if data is None else 'damaged'}; run the same command again, and "
                f"shard {shard.ordinal} is built anew",
            )
        found.add_bytes(data, build.layout)
    return found


def _refuse_foreign(storage: Storage) -> None:
    found = [name for name in storage.top() if name not in _HARMLESS and name != JOURNAL]
    if found:
        shown = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
        raise OutputError(
            storage.url, f"this folder is not empty ({shown}) and not an unfinished build; choose a new or an empty one"
        )


def _build_json(build: BuildRef, given: Mapping[str, bytes]) -> bytes:
    return canonical(
        {
            "curate": __version__,
            "fingerprint": build.fingerprint,
            "layout": build.layout.to_json(),
            "documents": {name: hashlib.sha256(data).hexdigest() for name, data in given.items()},
        }
    )


def _line_key(ordinal: int) -> str:
    return f"{JOURNAL}/shards/{ordinal:06d}.json"


def _fork_key(ordinal: int) -> str:
    return f"{JOURNAL}/forks/{ordinal:06d}.bin"


def _put(storage: Storage, key: str, data: bytes) -> Written:
    storage.put(key, data)
    return Written(key, len(data), hashlib.sha256(data).hexdigest())


def _statistics_key(ordinal: int) -> str:
    return f"{JOURNAL}/statistics/{ordinal:06d}.bin"


def _line_json(build: BuildRef, shard: ShardRecord) -> bytes:
    line = {
        "fingerprint": build.fingerprint,
        "ordinal": shard.ordinal,
        "start": shard.start,
        "objects": [written.to_json() for written in shard.objects],
        "chips": [record.to_json() for record in shard.chips],
        "statistics": shard.statistics.to_json(),
        **({} if shard.fork is None else {"fork": shard.fork.to_json()}),
    }
    return canonical({"line": line, "sha256": hashlib.sha256(canonical(line)).hexdigest()})


def _read_line(build: BuildRef, data: bytes) -> ShardRecord | None:
    try:
        found = json.loads(data)
        line = found["line"]
        if found["sha256"] != hashlib.sha256(canonical(line)).hexdigest() or line["fingerprint"] != build.fingerprint:
            return None
        chips = tuple(ChipRecord.from_json(chip) for chip in line["chips"])
        (statistics,) = written_from([line["statistics"]])
        (fork,) = written_from([line["fork"]]) if "fork" in line else (None,)
        return ShardRecord(line["ordinal"], line["start"], chips, written_from(line["objects"]), statistics, fork)
    except (ValueError, KeyError, TypeError):
        return None


def _check_shard(
    layout: Layout,
    ordinal: int,
    start: int,
    arrays: Mapping[tuple[str, str], npt.NDArray[Any]],
    records: Sequence[ChipRecord],
) -> None:
    wanted = layout.chips_of(ordinal)
    if ordinal not in range(layout.n_shards) or start != wanted.start or len(records) != len(wanted):
        raise ValueError(
            f"shard {ordinal} was given chips {start} to {start + len(records)}, the layout has {wanted.start} to "
            f"{wanted.stop} of {layout.n_chips}"
        )
    if wrong := [record.chip for record in records if record.shard != ordinal]:
        raise ValueError(f"shard {ordinal} was given records of another shard: {', '.join(wrong[:5])}")
    keys = {variable.key for variable in layout.variables}
    if keys != arrays.keys():
        raise ValueError(f"shard {ordinal}: arrays {sorted(arrays)} were given, the layout has {sorted(keys)}")
    for variable in layout.variables:
        array = arrays[variable.key]
        if array.shape != (len(wanted), *variable.shape) or str(array.dtype) != variable.dtype:
            raise ValueError(
                f"shard {ordinal}, {variable.group}/{variable.name}: an array {array.dtype}{list(array.shape)} was "
                f"given, the layout has {variable.dtype}{[len(wanted), *variable.shape]}"
            )


def _objects(variable: Variable, layout: Layout, n: int) -> Iterator[tuple[slice, ...]]:
    """The part of a shard's array that each of its objects holds: whole Zarr shards, so that none is ever read back."""
    _, shape = chunks(variable, layout)
    steps = shape[1] if variable.spatial and variable.dims[0] == "time" else None
    for first in range(0, n, shape[0]):
        chips = slice(first, min(first + shape[0], n))
        if steps is None:
            yield (chips,)
        else:
            for time in range(0, variable.shape[0], steps):
                yield (chips, slice(time, min(time + steps, variable.shape[0])))


def _write_object(
    storage: Storage,
    variable: Variable,
    layout: Layout,
    where: tuple[slice, ...],
    start: int,
    array: npt.NDArray[Any],
    counter: Counter,
) -> Written | None:
    """Count, encode and put one object; not put where all of it is void, and then one of an earlier attempt goes."""
    inner, shape = chunks(variable, layout)
    block = array[where].view(variable.stored_dtype)
    steps = where[1] if len(where) > 1 else slice(0, variable.shape[0] if variable.shape else 1)
    counter.count(variable, where[0], steps, block)
    if variable.spatial:
        data = encode_shard(block, inner, shape, variable.stored_fill)
    else:
        data = encode_chunk(block, shape, variable.stored_fill)
    first = [start + where[0].start, *(part.start for part in where[1:])]
    first += [0] * (len(shape) - len(first))
    numbers = "/".join(str(position // length) for position, length in zip(first, shape, strict=True))
    key = f"{variable.path}/c/{numbers}"
    if data is None:
        storage.delete([key])
        return None
    count("written")
    count("written_bytes", len(data))
    return _put(storage, key, data)
