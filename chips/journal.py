"""How zarr writes the pixels of a build whose ``zarr.json`` documents do not exist yet.

A Zarr store whose writer was killed opens normally and reads as zeros. So a build keeps its documents in memory until
everything else is written: ``JournalStore`` answers them from there and remembers what it wrote, with checksums.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Self

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, WrapperStore

from chips.manifest import Written
from chips.metadata import DOCUMENT


class JournalStore(WrapperStore[Any]):
    """Object storage that answers ``zarr.json`` from memory, and lists what was written through it."""

    def __init__(self, store: Any, documents: Mapping[str, bytes]) -> None:
        super().__init__(store)
        self.documents = documents
        self.written: dict[str, Written] = {}

    @classmethod
    def over(cls, store: Any, documents: Mapping[str, bytes]) -> JournalStore:
        """Journal over an obstore store."""
        return cls(ObjectStore(store), documents)

    def _with_store(self, store: Any) -> Self:
        return type(self)(store, self.documents)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The document from memory, anything else from storage."""
        if key.endswith(DOCUMENT):
            found = self.documents.get(key)
            return None if found is None else prototype.buffer.from_bytes(found)
        return await super().get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Whether ``get`` would find something."""
        if key.endswith(DOCUMENT):
            return key in self.documents
        return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object and remember its checksum, taken from the bytes in hand and not read back."""
        assert not key.endswith(DOCUMENT), f"{key} is written by publish, and by nobody else"
        data = value.as_buffer_like()
        digest = hashlib.sha256(data).hexdigest()
        await super().set(key, value)
        self.written[key] = Written(key, memoryview(data).nbytes, digest)

    async def delete(self, key: str) -> None:
        """Remove an object: zarr does so where every value is the fill value, so an empty chip costs nothing."""
        await super().delete(key)
        self.written.pop(key, None)
