"""Datasets in an Icechunk repository: a build or an update is one commit, and every version a tag.

The keys of the Zarr store lie in a session, all others beside the repository, so whoever reads and writes through a
``Storage`` sees no difference. Each shard is written through a fork of one session that knows the arrays; what a fork
has written (references, not pixels) is kept with the journal, and publishing merges the forks and commits. What a
killed build has sent is in no commit and is seen by nobody.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import logging
import os
import pickle
import posixpath
import re
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from chips.layout import COMMITTED, REPOSITORY, STORE
from chips.metadata import DOCUMENT
from chips.storage import Storage
from curate.errors import OutputError, StoreError
from curate.objects import S3_SCHEMES, s3_endpoint, s3_region, s3_unsigned

if TYPE_CHECKING:
    from types import ModuleType

    from icechunk import Repository, Session
    from icechunk.session import ForkSession
    from zarr.storage import StorePath

logger = logging.getLogger(__name__)

BRANCH = "main"

_AT_ONCE = 512
"""Sizes that are asked for together."""

_LOST = re.compile(r"/chunks/\w+ not found\b|::fetch_chunk\b.*NoSuchKey", re.DOTALL)
"""What Icechunk says of a chunk whose object is gone, on a disk and in S3; it has no exception of its own for it."""

_IN_THE_MAKING_S = 2.0
"""A repository that is made by another process meanwhile is there after this time."""

_ASKED = 12
"""Times that a store is asked before a connection that breaks off is told."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CommitAs:
    """What the commit of a build is to be."""

    repository: str = REPOSITORY
    """Path from the folder of the version: ``../../chips.icechunk`` for those after the first."""
    tag: str = "v1"
    after: str | None = None
    """The tag that it follows; None for the first commit of a repository."""


@dataclass(frozen=True, slots=True)
class Begun:
    """How a build began that is not committed yet. Kept as JSON in its journal."""

    commit: CommitAs
    url: str
    """The repository, absolute: forks remember it, so an unfinished build cannot be moved."""
    snapshot: str
    """That the build adds to."""
    fork: bytes
    """The session that knows all arrays and has none of their pixels."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the session, by which its forks are known: those of another one cannot be put together with it."""
        return hashlib.sha256(self.fork).digest()

    def lies_in(self, storage: Storage) -> bool:
        """Whether the repository is still that of the folder; not where an unfinished build was moved or copied."""
        url = _joined(storage.url, self.commit.repository)
        return self.url == url or (not storage.is_remote and os.path.realpath(self.url) == os.path.realpath(url))

    def to_bytes(self) -> bytes:
        """The JSON document."""
        told = {
            "repository": self.commit.repository,
            "tag": self.commit.tag,
            "after": self.commit.after,
            "url": self.url,
            "snapshot": self.snapshot,
            "fork": base64.b64encode(self.fork).decode(),
        }
        return json.dumps(told, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Begun:
        """Of the JSON document; ValueError, KeyError or TypeError where it is none."""
        found = json.loads(data)
        commit = CommitAs(found["repository"], found["tag"], found["after"])
        return cls(commit, found["url"], found["snapshot"], base64.b64decode(found["fork"]))


@dataclass(frozen=True, slots=True)
class SessionStorage(Storage):
    """A storage whose keys below ``chips.zarr/`` are those of an Icechunk session."""

    session: Session

    def get(self, key: str) -> bytes | None:
        """Content of an object, None where there is none, or where a commit has it and its repository has lost it."""
        if not _in_store(key):
            return Storage.get(self, key)
        return self._ask(f"{key} cannot be read", lambda: _get(self.session.store, _inner(key)))

    def digest(self, key: str) -> tuple[int, str] | None:
        """(size, sha256) of an object; None where there is none. One of the store is read whole, at most 128 MiB."""
        if not _in_store(key):
            return Storage.digest(self, key)
        data = self.get(key)
        return None if data is None else (len(data), hashlib.sha256(data).hexdigest())

    def put(self, key: str, data: bytes) -> None:
        """Write an object; one of the store that has this content already is left, and takes no room again."""
        if not _in_store(key):
            return Storage.put(self, key, data)
        return self._ask(f"{key} cannot be written", lambda: _put(self.session.store, _inner(key), data))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Key -> size in bytes of every object below a folder, sorted by key, without those of the repository."""
        found: dict[str, int] = {}
        if not _in_store(f"{prefix}/"):
            beside = Storage.sizes(self, prefix)
            found |= {key: size for key, size in beside.items() if not key.startswith(f"{REPOSITORY}/")}
        if not prefix or _in_store(f"{prefix}/"):
            found |= self._ask("the store cannot be listed", lambda: _sizes(self.session.store, _inner(f"{prefix}/")))
        return dict(sorted(found.items()))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        keys = list(keys)
        Storage.delete(self, [key for key in keys if not _in_store(key)])
        if inner := [_inner(key) for key in keys if _in_store(key)]:
            self._ask("objects cannot be removed", lambda: _delete(self.session.store, inner))

    def place(self, key: str) -> StorePath:
        """Where zarr finds an array or a group."""
        from zarr.storage import StorePath

        return StorePath(self.session.store, _inner(f"{key}/").rstrip("/"))

    def _ask(self, what: str, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        from zarr.core.sync import sync

        for left in reversed(range(_ASKED)):
            try:
                return sync(make())
            except _icechunk().IcechunkError as error:
                # Icechunk asks again where a server refuses, and not where an answer breaks off half way.
                if not left or "I/O error" not in _first_line(error):
                    raise _failure(self, what, error) from error
        raise AssertionError("the last one returns or raises")


# -- published versions ------------------------------------------------------------------------------------------------


def attached(storage: Storage) -> Storage:
    """The same with the store of its commit, where a version has one; other storages as they are.

    Raises:
        StoreError: ``icechunk.json`` names a commit that is not there.
    """
    data = storage.get(COMMITTED)
    if data is None or isinstance(storage, SessionStorage):
        return storage
    try:
        found = json.loads(data)
        where, tag, snapshot = _joined(storage.url, found["repository"]), str(found["tag"]), str(found["snapshot"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(storage.url, f"{COMMITTED} is damaged or of another release: {error}") from error
    return SessionStorage(storage.url, storage.store, _at_tag(where, tag, snapshot))


@lru_cache(maxsize=32)
def _at_tag(url: str, tag: str, snapshot: str) -> Session:
    """The session of a tag, which never changes, so it is opened once a process."""
    try:
        session = _opened(url).readonly_session(tag=tag)
    except _icechunk().IcechunkError as error:
        raise StoreError(url, f"the version {tag} cannot be opened: {_first_line(error)}") from error
    if session.snapshot_id != snapshot:
        raise StoreError(
            url, f"the tag {tag} is not the commit {snapshot} that {COMMITTED} names; the dataset is damaged"
        )
    return session


# -- builds ------------------------------------------------------------------------------------------------------------


def begin(storage: Storage, commit: CommitAs, documents: Mapping[str, bytes]) -> Begun:
    """How a build begins that ends in one commit: a session with all its arrays, of which each shard gets a fork.

    Arrays of the version before whose chunks are cut in the same way keep their chunks, the others go.

    Args:
        storage: Of the build, without a store.
        commit: Where and as what it will be committed.
        documents: Key -> ``zarr.json`` of the arrays, with time axes as long as they are written.

    Raises:
        OutputError: The repository is not at the version that this one follows, or the storage refuses.
    """
    from zarr.core.sync import sync

    url = _joined(storage.url, commit.repository)
    try:
        repository = _repository(storage, url, commit)
        session = repository.writable_session(BRANCH)
        if session.snapshot_id != _expected(repository, commit):
            raise _not_following(url, commit, repository)
        fork = session.fork()
        sync(_lay(fork.store, {_inner(key): data for key, data in documents.items()}))
    except _icechunk().IcechunkError as error:
        raise _failure(storage, f"the repository {commit.repository} cannot be prepared", error) from error
    return Begun(commit, url, session.snapshot_id, pickle.dumps(fork))


def forked(storage: Storage, fork: bytes) -> SessionStorage:
    """The storage of a build as one fork sees it; its changes stay in this process until they are taken by ``fork_of``.

    Raises:
        OutputError: The fork is of another release of Icechunk.
    """
    return SessionStorage(storage.url, storage.store, _load(storage, fork))


def fork_of(storage: SessionStorage) -> bytes:
    """What a fork has written: references to chunks, with which ``collected`` finds them."""
    return pickle.dumps(storage.session)


def collected(storage: Storage, begun: Begun, forks: Iterable[bytes], fingerprint: str) -> SessionStorage:
    """A build with what all its forks have written, to be read, completed and committed.

    Read only where the commit of this build is made already.

    Args:
        storage: Of the build, without a store.
        begun: How it began.
        forks: Of its shards.
        fingerprint: Of the build, by which its own commit is known.

    Raises:
        OutputError: Another build was committed meanwhile, or the storage refuses.
    """
    try:
        repository = _opened(begun.url)
        session = repository.writable_session(BRANCH)
        if session.snapshot_id != begun.snapshot:
            if not _is_ours(repository, session.snapshot_id, begun, fingerprint):
                raise _not_following(begun.url, begun.commit, repository)
            ours = repository.readonly_session(snapshot_id=session.snapshot_id)
            return SessionStorage(storage.url, storage.store, ours)
        session.merge(_load(storage, begun.fork))
        for fork in forks:
            session.merge(_load(storage, fork))
    except _icechunk().IcechunkError as error:
        raise _failure(storage, "the shards cannot be put together", error) from error
    return SessionStorage(storage.url, storage.store, session)


def in_one_go(
    storage: Storage, commit: CommitAs, documents: Mapping[str, bytes], fingerprint: str
) -> tuple[Begun, SessionStorage]:
    """A build without shards and forks: what is put into the storage is committed by ``commit``, or gone.

    Args:
        storage: Of the build, without a store.
        commit: Where and as what it will be committed.
        documents: Key -> ``zarr.json`` of the arrays.
        fingerprint: Of the build. Where its commit is there already, the storage has it, read only.

    Raises:
        OutputError: The repository is not at the version that this one follows, or the storage refuses.
    """
    url = _joined(storage.url, commit.repository)
    try:
        repository = _repository(storage, url, commit)
        expected, tip = _expected(repository, commit), repository.lookup_branch(BRANCH)
    except _icechunk().IcechunkError as error:
        raise _failure(storage, f"the repository {commit.repository} cannot be opened", error) from error
    begun = begin(storage, commit, documents) if tip == expected else Begun(commit, url, expected, b"")
    return begun, collected(storage, begun, (), fingerprint)


def commit(storage: SessionStorage, begun: Begun, message: str, told: Mapping[str, str]) -> bytes:
    """Commit what was collected, tag it, and return the content of ``icechunk.json``. Repeating it changes nothing.

    Args:
        storage: Made by ``collected``.
        begun: How the build began.
        message: Of the commit.
        told: Metadata of the commit; ``fingerprint`` among them.

    Raises:
        OutputError: Another build was committed meanwhile, or the storage refuses.
    """
    made = begun.commit
    try:
        repository = _opened(begun.url)
        snapshot = _committed(storage, repository, begun, message, told)
        if made.tag not in repository.list_tags():
            _tag(repository, made.tag, snapshot)
        if repository.lookup_tag(made.tag) != snapshot:
            raise OutputError(begun.url, f"has another commit with the tag {made.tag}; another process has made it")
    except _icechunk().IcechunkError as error:
        raise _failure(storage, "the commit cannot be made", error) from error
    told_of = {"repository": made.repository, "tag": made.tag, "snapshot": snapshot}
    return (json.dumps(told_of, indent=2) + "\n").encode()


def _committed(
    storage: SessionStorage, repository: Repository, begun: Begun, message: str, told: Mapping[str, str]
) -> str:
    """The snapshot of the commit, made now or before."""
    if not storage.session.read_only:
        try:
            storage.session.commit(message, dict(told))
        except _icechunk().ConflictError as error:
            # Also what is said to a request that was repeated because the answer to the first one got lost.
            tip = repository.lookup_branch(BRANCH)
            if not _is_ours(repository, tip, begun, told["fingerprint"]):
                raise _not_following(begun.url, begun.commit, repository) from error
            return tip
    return storage.session.snapshot_id


def _is_ours(repository: Repository, snapshot: str, begun: Begun, fingerprint: str) -> bool:
    """Whether a commit is that of this build, which an earlier run of it or another process has made."""
    made = repository.lookup_snapshot(snapshot)
    return made.parent_id == begun.snapshot and made.metadata.get("fingerprint") == fingerprint


def _tag(repository: Repository, tag: str, snapshot: str) -> None:
    try:
        repository.create_tag(tag, snapshot)
    except _icechunk().IcechunkError:
        if tag not in repository.list_tags():  # else the answer got lost, or another process was quicker
            raise


def _repository(storage: Storage, url: str, commit: CommitAs) -> Repository:
    """The repository of a build; made for the first version, also where making it was killed half way."""
    if commit.after is not None:
        return _opened(url)
    try:
        return _opened(url, create=True)
    except _icechunk().IcechunkError as error:
        if "clean prefix" not in str(error):
            raise
    time.sleep(_IN_THE_MAKING_S)
    if not _icechunk().Repository.exists(_place(url)) and commit.repository == REPOSITORY:
        logger.info("removing what is left of a repository that was never finished")
        Storage.delete(storage, Storage.sizes(storage, REPOSITORY))
    return _opened(url, create=True)


def _expected(repository: Repository, commit: CommitAs) -> str:
    """The snapshot that a build must find at the tip of the branch."""
    if commit.after is not None:
        return repository.lookup_tag(commit.after)
    *_, first = repository.ancestry(branch=BRANCH)
    return first.id


def _not_following(url: str, commit: CommitAs, repository: Repository) -> OutputError:
    tip = repository.lookup_snapshot(repository.lookup_branch(BRANCH))
    if commit.after is not None and tip.metadata.get("tag") == commit.tag:
        return OutputError(
            url,
            f"the repository has a commit of {commit.tag} already, and the folder of that version is gone or is being "
            "published by another process. Put the folder back, or copy the version before it to another place "
            "('curate publish … --version … --to …') and update it there",
        )
    wanted = "empty" if commit.after is None else f"at {commit.after}"
    why = f"the repository is not {wanted} any more: another process has committed to it"
    return OutputError(url, f"{why}; remove the unfinished build and start again")


async def _lay(store: Any, documents: Mapping[str, bytes]) -> None:
    """Make the arrays of a store those that are wanted; chunks stay where arrays are cut as before."""
    there = [key async for key in store.list() if key.endswith(DOCUMENT)]
    for key in there:
        if key in documents:
            keep = _cut(await _bytes(store, key)) == _cut(documents[key])
        else:
            # A group has arrays below it that are wanted, or goes with them.
            folder = key.removesuffix(DOCUMENT)
            keep = any(wanted.startswith(folder) for wanted in documents)
        if not keep:
            await store.delete_dir(posixpath.dirname(key))
    for key, data in documents.items():
        await store.set(key, _buffer(data))


def _cut(document: bytes) -> tuple[str, ...]:
    """How the chunks of an array are cut and written: where this is equal, equal values are equal bytes."""
    found = json.loads(document)
    parts = ("data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")
    return tuple(json.dumps(found[part], sort_keys=True) for part in parts)


# -- Icechunk ----------------------------------------------------------------------------------------------------------


@cache
def _icechunk() -> ModuleType:
    import icechunk

    # It warns at every opening of a local repository that two processes must not commit at once. Here one does, the
    # one that publishes; a folder has one user.
    if "ICECHUNK_LOG" not in os.environ:
        icechunk.set_logs_filter("icechunk=error")
    return icechunk


def _opened(url: str, *, create: bool = False) -> Repository:
    repository = _icechunk().Repository
    found: Repository = (repository.open_or_create if create else repository.open)(_place(url))
    return found


def _place(url: str) -> Any:
    """Icechunk's storage of a path or of an address; credentials come from the environment of each process."""
    icechunk = _icechunk()
    scheme, bucket, path = urlsplit(url)[:3] if "://" in url else ("", "", url)
    prefix = unquote(path).strip("/")
    if not scheme:
        return icechunk.local_filesystem_storage(path)
    if scheme in S3_SCHEMES:
        endpoint, anonymous = s3_endpoint(), s3_unsigned()
        return icechunk.s3_storage(
            bucket=bucket,
            prefix=prefix,
            region=s3_region(),
            endpoint_url=endpoint,
            allow_http=(endpoint or "").startswith("http://"),
            force_path_style=endpoint is not None,
            anonymous=anonymous or None,
            from_env=None if anonymous else True,
        )
    if scheme == "gs":
        return icechunk.gcs_storage(bucket=bucket, prefix=prefix, from_env=True)
    if scheme in ("az", "azure"):
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
        return icechunk.azure_storage(account=account, container=bucket, prefix=prefix, from_env=True)
    raise OutputError(url, f"no Icechunk repository can lie in {scheme}://; known are folders, s3://, gs:// and az://")


def _joined(url: str, path: str) -> str:
    """A path relative to a folder or a URL, absolute."""
    scheme, found, rest = url.partition("://")
    if not found:
        return str(Path(os.path.normpath(Path(url) / path)))
    return f"{scheme}://{posixpath.normpath(posixpath.join(rest, path))}"


class _Forks(pickle.Unpickler):
    """Journals lie where others may write: nothing but a fork is ever made of one."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) != ("icechunk.session", "ForkSession"):
            raise pickle.UnpicklingError(f"{module}.{name} is no fork")
        return super().find_class(module, name)


def _load(storage: Storage, fork: bytes) -> ForkSession:
    try:
        found: ForkSession = _Forks(io.BytesIO(fork)).load()
    except (pickle.UnpicklingError, EOFError, ValueError, _icechunk().IcechunkError) as error:
        raise OutputError(
            storage.url,
            f"the journal of the unfinished build cannot be used ({_first_line(error)}); it may be of another release "
            "of Icechunk. Remove the unfinished build and start again",
        ) from error
    return found


def _failure(storage: Storage, what: str, error: Exception) -> OutputError:
    # The first line is what a person reads; the rest tells credentials, buckets and connections apart.
    return storage.failure(what, OSError(f"{_first_line(error)}\n{error}"))


def _first_line(error: Exception) -> str:
    plain = re.sub(r"\x1b\[[\d;]*m", "", str(error))
    lines = [re.sub(r"^x ", "", line.strip(" │╰─▶×├")) for line in plain.splitlines()]
    return next((line for line in lines if line), type(error).__name__)


def _in_store(key: str) -> bool:
    return key.startswith(f"{STORE}/")


def _inner(key: str) -> str:
    return key.removeprefix(f"{STORE}/")


def _buffer(data: bytes) -> Any:
    from zarr.core.buffer import default_buffer_prototype

    return default_buffer_prototype().buffer.from_bytes(data)


async def _get(store: Any, key: str) -> bytes | None:
    from zarr.core.buffer import default_buffer_prototype

    try:
        found = await store.get(key, default_buffer_prototype())
    except _icechunk().IcechunkError as error:
        if _LOST.search(str(error)):
            return None
        raise
    return None if found is None else found.to_bytes()


async def _bytes(store: Any, key: str) -> bytes:
    return await _get(store, key) or b""


async def _put(store: Any, key: str, data: bytes) -> None:
    if await store.exists(key) and await store.getsize(key) == len(data) and await _get(store, key) == data:
        return
    await store.set(key, _buffer(data))


async def _sizes(store: Any, prefix: str) -> dict[str, int]:
    keys = [key async for key in store.list_prefix(prefix.rstrip("/"))]
    found: dict[str, int] = {}
    for start in range(0, len(keys), _AT_ONCE):
        part = keys[start : start + _AT_ONCE]
        sizes = await asyncio.gather(*(store.getsize(key) for key in part))
        found |= {f"{STORE}/{key}": size for key, size in zip(part, sizes, strict=True)}
    return found


async def _delete(store: Any, keys: Iterable[str]) -> None:
    for key in keys:
        if await store.exists(key):
            await store.delete(key)
