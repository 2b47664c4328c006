"""Where a dataset lies: a local folder or object storage, both through obstore, with errors that are sentences.

A put is atomic: obstore writes a local file under another name and renames it, and an object store does so by itself,
also where an object is sent in parts.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from curate.errors import OutputError
from curate.objects import ObjectsError, no_bucket, open_objects, reason

if TYPE_CHECKING:
    from obstore.store import ObjectStore
    from zarr.storage import StorePath

# obstore writes `name#1` and renames it to `name`. A killed process leaves the former, which obstore never lists.
_HALF_WRITTEN = re.compile(r"#\d+$")

# A key below something that is a file, not a folder: obstore has no exception of its own for it.
_NOT_A_FOLDER = "Not a directory (os error 20)"

# Larger objects are sent in parts, so that a connection that breaks costs a part.
_PART_BYTES = 16 * 2**20

_LISTINGS = 4
"""Times that a folder is listed before a connection that breaks off is told."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A folder of objects named by keys such as ``chips.zarr/zarr.json``. Make it with ``open_storage``."""

    url: str
    """Absolute local path, or the URL of an object store; another process opens the same storage by it."""
    store: ObjectStore

    @property
    def is_remote(self) -> bool:
        """Whether it is object storage and no folder."""
        return "://" in self.url

    def get(self, key: str) -> bytes | None:
        """Content of an object, None where there is none."""
        import obstore

        try:
            return bytes(obstore.get(self.store, key).bytes())
        except FileNotFoundError as error:
            if no_bucket(error):
                raise self.failure(f"{key} cannot be read", error) from error
            return None
        except (obstore.exceptions.BaseError, OSError) as error:
            if _NOT_A_FOLDER in str(error):
                return None
            raise self.failure(f"{key} cannot be read", error) from error

    def digest(self, key: str) -> tuple[int, str] | None:
        """(size, sha256) of an object, read in pieces; None where there is none."""
        import obstore

        found, size = hashlib.sha256(), 0
        try:
            for piece in obstore.get(self.store, key).stream(min_chunk_size=8 * 2**20):
                found.update(piece)
                size += len(piece)
        except FileNotFoundError as error:
            if no_bucket(error):
                raise self.failure(f"{key} cannot be read", error) from error
            return None
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.failure(f"{key} cannot be read", error) from error
        return size, found.hexdigest()

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole or not at all."""
        import obstore

        try:
            obstore.put(self.store, key, data, chunk_size=_PART_BYTES)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.failure(f"{key} cannot be written", error) from error

    def put_first(self, key: str, data: bytes) -> bool:
        """Write an object of which there must be none; False when another process was quicker with other content.

        In object storage the server decides (``If-None-Match``). In a local folder, and where a server does not know
        such requests, it is a plain ``put``: a folder has one user, and not every file system can do it.
        """
        import obstore

        if not self.is_remote:
            self.put(key, data)
            return True
        try:
            obstore.put(self.store, key, data, mode="create")
        except obstore.exceptions.AlreadyExistsError:
            # Also what is said to a request that was repeated because the answer to the first one got lost.
            return self.get(key) == data
        except obstore.exceptions.NotSupportedError:
            self.put(key, data)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.failure(f"{key} cannot be written", error) from error
        return True

    def put_over(self, key: str, data: bytes, old: bytes) -> bool:
        """Write over an object that holds ``old``; False when it holds something else by now.

        In object storage the server decides (``If-Match``), as for ``put_first``.
        """
        import obstore

        try:
            found = obstore.get(self.store, key)
            if bytes(found.bytes()) != old:
                return False
            meta = found.meta
            told = {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}
            if not self.is_remote or not told:
                self.put(key, data)
                return True
            obstore.put(self.store, key, data, mode=told)  # type: ignore[arg-type]
        except obstore.exceptions.PreconditionError:
            return self.get(key) == data  # a request may be repeated because the answer to the first one got lost
        except obstore.exceptions.NotSupportedError:
            self.put(key, data)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.failure(f"{key} cannot be written", error) from error
        return True

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Key -> size in bytes of every object below a folder, sorted by key."""
        import obstore

        for left in reversed(range(_LISTINGS)):
            try:
                listed = [meta for batch in obstore.list(self.store, prefix or None) for meta in batch]
                break
            except (obstore.exceptions.BaseError, OSError) as error:
                # obstore asks again where a server refuses, and not where a listing breaks off half way.
                if not left or "HttpError" not in str(error):
                    raise self.failure("the folder cannot be listed", error) from error
        # No path: what the web consoles leave where somebody made a "folder".
        return dict(sorted((meta["path"], meta["size"]) for meta in listed if meta["path"]))

    def last_written(self, key: str) -> dt.datetime | None:
        """When an object, or any object below a folder, was last written, UTC; None where there is none."""
        import obstore

        try:
            listed = [meta["last_modified"] for batch in obstore.list(self.store, key) for meta in batch]
            if not listed:
                listed = [obstore.head(self.store, key)["last_modified"]]
        except FileNotFoundError:
            return None
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.failure(f"{key} cannot be looked at", error) from error
        return max(listed)

    def folders(self) -> tuple[str, ...]:
        """Names of the folders that lie directly in this one, sorted."""
        import obstore

        try:
            return tuple(sorted(obstore.list_with_delimiter(self.store)["common_prefixes"]))
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.failure("the folder cannot be listed", error) from error

    def top(self) -> tuple[str, ...]:
        """Names that lie directly in the folder, objects and folders alike, sorted."""
        import obstore

        try:
            found = obstore.list_with_delimiter(self.store)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.failure("the folder cannot be listed", error) from error
        objects = (meta["path"] for meta in found["objects"] if meta["path"])
        return tuple(sorted([*found["common_prefixes"], *objects]))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        keys = list(keys)
        # Many with one request, which does not say how far it came where one is missing.
        if self.is_remote and len(keys) > 1 and self._delete(keys):
            return
        for key in keys:
            self._delete(key)

    def _delete(self, keys: str | list[str]) -> bool:
        import obstore

        try:
            obstore.delete(self.store, keys)
        except FileNotFoundError:
            return False
        except (obstore.exceptions.BaseError, OSError) as error:
            if not isinstance(keys, str) and "HttpError" in str(error):
                return False  # a request for many is not repeated when its connection breaks off, one for one is
            what = keys if isinstance(keys, str) else f"{keys[0]} and others"
            raise self.failure(f"{what} cannot be removed", error) from error
        return True

    def place(self, key: str) -> StorePath:
        """Where zarr finds an array or a group, to be read."""
        from zarr.storage import ObjectStore, StorePath

        return StorePath(ObjectStore(self.store, read_only=True), key)

    def sweep(self) -> None:
        """Remove what killed writers left half written, and empty folders. Only for when nobody else writes here."""
        root = Path(self.url)
        if self.is_remote or not root.is_dir():
            return  # object storage shows no half-written objects
        for folder, _, files in os.walk(root, topdown=False):
            for name in files:
                if _HALF_WRITTEN.search(name):
                    Path(folder, name).unlink(missing_ok=True)
            if Path(folder) != root and not any(Path(folder).iterdir()):
                Path(folder).rmdir()

    def failure(self, what: str, error: Exception) -> OutputError:
        """The error a user reads when storage refuses: what was tried, why, and what to do."""
        why, advice = reason(error)
        if not self.is_remote:
            if "No space left" in why or "quota" in why.lower():
                advice = "free some space"
            elif "ermission" in why or "Read-only" in why:
                advice = "make it writable or choose another folder"
        return OutputError(self.url, f"{what}: {why}. Please {advice}, then run the same command again")


def open_storage(url: str | Path, *, create: bool = False) -> Storage:
    """Storage of a local folder or of a URL such as ``s3://bucket/dataset``.

    Args:
        url: Path, ``file://``, or an address in object storage (``curate.objects``).
        create: Make the local folder when it is missing.

    Raises:
        OutputError: The folder is missing, is a file, or cannot be made; or there is no such storage, or no credentials
            for it.
    """
    text = str(url)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    if "://" in text:
        return _remote(text)
    return _local(Path(text).expanduser().absolute(), create=create)


def _local(path: Path, *, create: bool) -> Storage:
    from obstore.store import LocalStore

    if path.exists() and not path.is_dir():
        raise OutputError(str(path), "this is a file, and a dataset is a folder; choose another name")
    if not path.exists() and not create:
        raise OutputError(str(path), "there is no such folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(str(path), f"the folder cannot be made ({error.strerror}); choose another place") from error
    # automatic_cleanup: removing the last object of a folder removes the folder, as object storage would have it.
    return Storage(str(path), LocalStore(path, automatic_cleanup=True))


def _remote(url: str) -> Storage:
    if "?" in url or "#" in url:
        raise OutputError(url, "an address with ? or # in it names no folder; what follows would be left out")
    url = url.rstrip("/") if urlsplit(url).netloc else url
    try:
        return Storage(url, open_objects(url))
    except ObjectsError as error:
        raise OutputError(url, str(error)) from error
