"""A published dataset opened to be read: its layout, its index and its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chips.index import INDEX, read_table
from chips.layout import STORE, Layout
from chips.manifest import MANIFEST, read_manifest
from chips.storage import Storage
from chips.versions import open_dataset
from chips.write import is_published
from curate.errors import StoreError

if TYPE_CHECKING:
    import pyarrow
    import zarr
    from zarr.abc.store import Store


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
        """``chips.parquet``; StoreError when it is gone."""
        data = self.storage.get(INDEX)
        if data is None:
            raise StoreError(self.url, f"{INDEX} is missing; the dataset is damaged, 'curate check' tells what else is")
        return read_table(data)

    def root(self) -> zarr.Group:
        """The store, read only."""
        return open_root(self.storage)


def open_published(dataset: str, version: int | None = None) -> Opened:
    """The dataset in a folder or at a URL: its latest version, or the one that is asked for.

    Raises:
        OutputError: There is no such folder.
        StoreError: It holds no published dataset, or one that cannot be understood.
    """
    storage = open_dataset(dataset, version)
    if not is_published(storage):
        raise StoreError(storage.url, "holds no published dataset; 'curate info' tells what is there")
    manifest = read_manifest(storage)
    if manifest is None:
        raise StoreError(
            storage.url, f"{MANIFEST} is missing; the dataset is damaged, 'curate check' tells what else is"
        )
    return Opened(storage, manifest.layout, manifest.fingerprint)


def open_root(storage: Storage) -> zarr.Group:
    """The Zarr store of a dataset, read only."""
    import zarr
    from zarr.storage import LocalStore, ObjectStore

    # Files are read by Python and not by obstore, whose threads do not live on in a forked process: a worker of a
    # data loader would wait for them without end.
    if storage.is_remote:
        store: Store = ObjectStore(storage.store, read_only=True)
    else:
        store = LocalStore(storage.url, read_only=True)
    return zarr.open_group(store, path=STORE, mode="r", use_consolidated=True)
