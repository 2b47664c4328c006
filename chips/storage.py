"""Where a dataset lies: a local folder or object storage, both through obstore, with errors that are sentences.

A put is atomic: obstore writes a local file under another name and renames it, and an object store does so by itself.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from curate.errors import OutputError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# obstore writes `name#1` and renames it to `name`. A killed process leaves the former, which obstore never lists.
_HALF_WRITTEN = re.compile(r"#\d+$")

# A key below something that is a file, not a folder: obstore has no exception of its own for it.
_NOT_A_FOLDER = "Not a directory (os error 20)"


@dataclass(frozen=True, slots=True)
class Storage:
    """A folder of objects named by keys such as ``chips.zarr/zarr.json``. Make it with ``open_storage``."""

    url: str
    """Absolute local path, or the URL of an object store; another process opens the same storage by it."""
    store: ObjectStore

    def get(self, key: str) -> bytes | None:
        """Content of an object, None where there is none."""
        import obstore

        try:
            return bytes(obstore.get(self.store, key).bytes())
        except FileNotFoundError:
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
        except FileNotFoundError:
            return None
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.failure(f"{key} cannot be read", error) from error
        return size, found.hexdigest()

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole or not at all."""
        import obstore

        try:
            obstore.put(self.store, key, data)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.failure(f"{key} cannot be written", error) from error

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Key -> size in bytes of every object below a folder, sorted by key."""
        import obstore

        try:
            found = {meta["path"]: meta["size"] for batch in obstore.list(self.store, prefix or None) for meta in batch}
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.failure("the folder cannot be listed", error) from error
        return dict(sorted(found.items()))

    def top(self) -> tuple[str, ...]:
        """Names that lie directly in the folder, objects and folders alike, sorted."""
        import obstore

        try:
            found = obstore.list_with_delimiter(self.store)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.failure("the folder cannot be listed", error) from error
        return tuple(sorted([*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        import obstore

        for key in keys:
            try:
                obstore.delete(self.store, key)
            except FileNotFoundError:
                continue
            except (obstore.exceptions.BaseError, OSError) as error:
                raise self.failure(f"{key} cannot be removed", error) from error

    def sweep(self) -> None:
        """Remove what killed writers left half written, and empty folders. Only for when nobody else writes here."""
        root = Path(self.url)
        if "://" in self.url or not root.is_dir():
            return  # object storage has no half-written objects
        for folder, _, files in os.walk(root, topdown=False):
            for name in files:
                if _HALF_WRITTEN.search(name):
                    Path(folder, name).unlink(missing_ok=True)
            if Path(folder) != root and not any(Path(folder).iterdir()):
                Path(folder).rmdir()

    def failure(self, what: str, error: Exception) -> OutputError:
        """The error a user reads when storage refuses: what was tried, why, and what to do."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # obstore: "Generic LocalFileSystem error: …: No space left on device (os error 28)", then a page for debuggers.
        why = re.sub(r"^Generic \w+ error: | \(os error \d+\)$", "", lines[0])
        if "No space left" in why or "quota" in why.lower():
            advice = "free some space"
        elif "ermission" in why or "Read-only" in why or "credential" in why.lower():
            advice = "make it writable or choose another folder"
        else:
            advice = "see that the storage can be reached and written"
        return OutputError(self.url, f"{what}: {why}. Please {advice}, then run the same command again")


def open_storage(url: str | Path, *, create: bool = False) -> Storage:
    """Storage of a local folder or of a URL such as ``s3://bucket/dataset``.

    Args:
        url: Path, or a URL that obstore knows; credentials come from the environment as its documentation says.
        create: Make the local folder when it is missing.

    Raises:
        OutputError: The folder is missing, is a file, or cannot be made.
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
    import obstore
    from obstore.store import from_url

    try:
        return Storage(url.rstrip("/"), from_url(url))
    except (obstore.exceptions.BaseError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OutputError(url, f"this is no folder and no storage URL we can open: {reason}") from error
