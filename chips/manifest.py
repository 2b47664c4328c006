"""What was written, with checksums: ``manifest.json``. No times, no machine paths: equal builds have equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chips.layout import Layout
from chips.storage import Storage
from curate.errors import StoreError

MANIFEST = "manifest.json"
STATISTICS = "statistics.json"
"""What the numbers say (``chips.statistics``), which datasets of older releases lack."""


@dataclass(frozen=True, slots=True, order=True)
class Written:
    """One object: its key in the output, its size in bytes and the SHA-256 of its content."""

    key: str
    size: int
    sha256: str

    def to_json(self) -> list[Any]:
        """``[key, size, sha256]``: short, because a large dataset has tens of thousands."""
        return [self.key, self.size, self.sha256]


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard of the plan in the manifest."""

    ordinal: int
    start: int
    chips: tuple[str, ...]
    """Ids of its chips in order."""
    objects: tuple[Written, ...]
    """Sorted by key; a shard of empty chips has none."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a published dataset consists of."""

    curate: str
    """Version of curate that published."""
    fingerprint: str
    layout: Layout
    shards: tuple[ShardEntry, ...]
    coordinates: tuple[Written, ...]
    files: tuple[Written, ...]
    """Files beside the store: chips.parquet, recipe.yaml and so on."""
    metadata: tuple[Written, ...]
    """The ``zarr.json`` documents in the order they were written."""

    def objects(self) -> dict[str, Written]:
        """Key -> object, for everything but the manifest itself."""
        groups = [*(entry.objects for entry in self.shards), self.coordinates, self.files, self.metadata]
        return {written.key: written for group in groups for written in group}

    def to_bytes(self) -> bytes:
        """The JSON document; a shard a line, so that people and ``diff`` can read it."""
        shards = ",\n    ".join(
            _line({"ordinal": s.ordinal, "start": s.start, "chips": s.chips, "objects": _lists(s.objects)})
            for s in self.shards
        )
        parts = {
            "curate": _line(self.curate),
            "fingerprint": _line(self.fingerprint),
            "layout": _line(self.layout.to_json()),
            "coordinates": _line(_lists(self.coordinates)),
            "files": _line(_lists(self.files)),
            "metadata": _line(_lists(self.metadata)),
            "shards": f"[\n    {shards}\n  ]",
        }
        body = ",\n".join(f'  "{name}": {part}' for name, part in parts.items())
        return f"{{\n{body}\n}}\n".encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """The manifest of a document; ValueError, KeyError or TypeError when it is none."""
        found = json.loads(data)
        return cls(
            curate=found["curate"],
            fingerprint=found["fingerprint"],
            layout=Layout.from_json(found["layout"]),
            shards=tuple(
                ShardEntry(s["ordinal"], s["start"], tuple(s["chips"]), written_from(s["objects"]))
                for s in found["shards"]
            ),
            coordinates=written_from(found["coordinates"]),
            files=written_from(found["files"]),
            metadata=written_from(found["metadata"]),
        )


def written_from(found: Any) -> tuple[Written, ...]:
    """Objects from their JSON lists."""
    return tuple(Written(key, int(size), sha256) for key, size, sha256 in found)


def read_manifest(storage: Storage) -> Manifest | None:
    """The manifest of an output, None where there is none; StoreError when it cannot be understood."""
    data = storage.get(MANIFEST)
    if data is None:
        return None
    try:
        return Manifest.from_bytes(data)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(storage.url, f"{MANIFEST} is damaged or of another release: {error}") from error


def needed_manifest(storage: Storage) -> Manifest:
    """The manifest of a published dataset; StoreError when it is gone or cannot be understood."""
    manifest = read_manifest(storage)
    if manifest is None:
        raise StoreError(
            storage.url, f"{MANIFEST} is missing; the dataset is damaged, 'curate check' tells what else is"
        )
    return manifest


def _lists(objects: tuple[Written, ...]) -> list[list[Any]]:
    return [written.to_json() for written in objects]


def _line(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return json.dumps(value, ensure_ascii=False)
