"""A published dataset opened to be read: its layout, its index and its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chips import versions
from chips.index import stored_table
from chips.layout import STORE, Layout
from chips.manifest import Manifest, needed_manifest
from chips.repository import SessionStorage
from chips.storage import Storage
from curate.errors import StoreError

if TYPE_CHECKING:
    import pyarrow
    import zarr


@dataclass(frozen=True, slots=True)
class Opened:
    """A published dataset."""

    storage: Storage
    layout: Layout
    fingerprint: str

    @property
    def url(self) -> str:
        """Where it lies."""
        return self.storage.url

    def index(self) -> pyarrow.Table:
        """``chips.parquet``; StoreError when it is gone or damaged."""
        return stored_table(self.storage)

    def root(self) -> zarr.Group:
        """The store, read only."""
        return open_root(self.storage)


def open_published(dataset: str, version: int | None = None, *, whole: bool = False) -> Opened:
    """The dataset in a folder or at a URL: its latest version, or the one that is asked for.

    ``whole`` is for whoever reads all of it, and costs a listing: a Zarr reader takes an object that is gone for void.

    Raises:
        OutputError: There is no such folder.
        StoreError: It holds no published dataset, or one that cannot be understood; with ``whole``, an object of its
            store is gone or has another size than it was written with.
    """
    storage = versions.open_published(dataset, version)
    manifest = needed_manifest(storage)
    if whole:
        _require_whole(storage, manifest)
    return Opened(storage, manifest.layout, manifest.fingerprint)


def _require_whole(storage: Storage, manifest: Manifest) -> None:
    sizes = storage.sizes(STORE)
    for written in manifest.objects().values():
        found = sizes.get(written.key)
        if written.key.startswith(f"{STORE}/") and found != written.size:
            what = "is missing" if found is None else f"has {found} bytes, it was written with {written.size}"
            raise StoreError(
                storage.url, f"{written.key} {what}; the dataset is damaged, 'curate check' tells what else is"
            )


def open_root(storage: Storage) -> zarr.Group:
    """The Zarr store of a dataset, read only."""
    import zarr
    from zarr.storage import LocalStore, StorePath

    place = storage.place(STORE)
    if not storage.is_remote and not isinstance(storage, SessionStorage):
        # Files are read by Python and not by obstore, whose threads do not live on in a forked process: a worker of a
        # data loader would wait for them without end.
        place = StorePath(LocalStore(storage.url, read_only=True), STORE)
    return zarr.open_group(place, mode="r", use_consolidated=None if isinstance(storage, SessionStorage) else True)
