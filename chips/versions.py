"""Versions of a dataset that is updated: each is complete and never changes, and one small file names the latest.

The first lies where it was built, the others in ``versions/0002`` and so on below it. ``latest.json`` is written in one
put once a version is published, so a reader sees the old one or the new one, and never half of one.
"""

from __future__ import annotations

import datetime as dt
import json
import posixpath
from dataclasses import asdict, dataclass
from pathlib import Path

from chips.layout import REPOSITORY
from chips.repository import CommitAs, attached
from chips.storage import Storage, open_storage
from chips.write import is_published, open_build
from curate.errors import OutputError, StoreError

LATEST = "latest.json"
FIRST = 1


@dataclass(frozen=True, slots=True)
class Version:
    """What ``latest.json`` says."""

    version: int
    path: str
    """Where it lies, from the folder of the dataset: ``versions/0002``."""
    fingerprint: str
    """That of its manifest."""
    published: str
    """When it became the latest one: UTC, ISO 8601."""


def version_path(version: int) -> str:
    """Where a version lies within the dataset; an empty string for the first one."""
    return "" if version == FIRST else f"versions/{version:04d}"


def version_url(dataset: Storage, version: int) -> str:
    """The folder or URL of a version."""
    return "/".join(part for part in (dataset.url, version_path(version)) if part)


def commit_as(version: int) -> CommitAs:
    """What a version is committed as where the store is an Icechunk repository, which all versions share."""
    repository = posixpath.relpath(REPOSITORY, version_path(version) or ".")
    return CommitAs(repository, f"v{version}", None if version == FIRST else f"v{version - 1}")


def latest(dataset: Storage) -> Version | None:
    """The version that readers should see; None where there never was more than one.

    Raises:
        StoreError: ``latest.json`` cannot be understood.
    """
    return _read(dataset, dataset.get(LATEST))


def newest(dataset: Storage) -> int:
    """The number of the version that readers should see; the first where there never was more than one.

    Raises:
        StoreError: ``latest.json`` cannot be understood.
    """
    return _number(latest(dataset))


def _number(found: Version | None) -> int:
    return FIRST if found is None else found.version


def _read(dataset: Storage, data: bytes | None) -> Version | None:
    if data is None:
        return None
    try:
        return Version(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise StoreError(dataset.url, f"{LATEST} is damaged or of another release: {error}") from error


def open_dataset(url: str, version: int | None = None) -> Storage:
    """The storage of a dataset as readers should see it: of the latest version, or of the one that is asked for.

    A folder that was never updated, a build that is not finished, and the folder of a version are what they are.

    Raises:
        OutputError: There is no such folder.
        StoreError: There is no such version.
    """
    dataset = open_storage(url)
    latest_one = newest(dataset)
    wanted = latest_one if version is None else version
    if wanted == FIRST:
        return attached(dataset)
    if not FIRST <= wanted <= latest_one:
        there = f"versions {FIRST} to {latest_one}" if latest_one > FIRST else "one version"
        raise StoreError(dataset.url, f"has no version {wanted}; it has {there}")
    storage = open_storage(version_url(dataset, wanted), create=False)
    if not is_published(storage):
        raise StoreError(storage.url, f"{LATEST} names this version, and there is no dataset; it was removed")
    return attached(storage)


def open_published(url: str, version: int | None = None) -> Storage:
    """``open_dataset`` where nothing but a published dataset will do.

    Raises:
        OutputError: There is no such folder.
        StoreError: There is no such version, or nothing is published.
    """
    storage = open_dataset(url, version)
    if not is_published(storage):
        raise StoreError(
            storage.url, "holds no published dataset; 'curate info' tells what is there, 'curate build' makes one"
        )
    return storage


def unfinished(dataset: Storage) -> Storage | None:
    """Where the version after the latest one is being built; None where it is not."""
    url = version_url(dataset, newest(dataset) + 1)
    if not dataset.is_remote and not Path(url).exists():
        return None
    storage = open_storage(url)
    return None if open_build(storage) is None else storage


def make_latest(dataset: Storage, version: int, fingerprint: str) -> None:
    """Let readers see a version from now on. The version must be published.

    Raises:
        OutputError: Another process made another version the latest one meanwhile, or the storage refuses.
    """
    before = dataset.get(LATEST)
    found = _read(dataset, before)
    if found is not None and (found.version, found.fingerprint) == (version, fingerprint):
        return
    refused = OutputError(dataset.url, "another version became the latest one meanwhile; run the same command again")
    if _number(found) + 1 != version:
        raise refused
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    said = Version(version, version_path(version), fingerprint, now)
    data = (json.dumps(asdict(said), indent=2) + "\n").encode()
    if not (dataset.put_first(LATEST, data) if before is None else dataset.put_over(LATEST, data, before)):
        raise refused
