"""The last step of a build: everything that makes a reader see the dataset, in an order that never shows half of it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chips.encode import encode_coordinate
from chips.index import ChipRecord
from chips.layout import CHIP_COORDINATES, COMMITTED, STORE, Layout
from chips.manifest import MANIFEST, Manifest, ShardEntry, Written, read_manifest
from chips.metadata import coordinate_values, documents, stored_dtype
from chips.repository import Begun, SessionStorage, commit
from chips.storage import Storage, open_storage
from chips.write import (
    JOURNAL,
    ROOT,
    BuildRef,
    ShardRecord,
    begun_as,
    is_published,
    journal,
    started_with,
    written_storage,
)
from curate import __version__
from curate.errors import IncompleteError, OutputError, StoreError

logger = logging.getLogger(__name__)


def publish(
    build: BuildRef,
    records: Sequence[ChipRecord],
    side_files: Mapping[str, bytes],
    attrs: Mapping[str, Any] | None = None,
    *,
    trim: Mapping[str, int] | None = None,
) -> Manifest:
    """Turn a finished build into a dataset and return its manifest.

    Coordinates, then the files beside the store, then the manifest, then the ``zarr.json`` documents with the root's
    last, then the journal goes. Killed anywhere, the store does not open, and calling this again gives the same bytes.
    In an Icechunk repository the store is one commit, made when everything beside it is there.

    Args:
        build: The build, all of whose shards are written.
        records: What became of each chip, in the order of the store; usually those of the journal.
        side_files: Name -> content of further files, ``chips.parquet`` among them. They come beside the documents that
            the build was started with and win over those of the same name.
        attrs: Attributes of the root group, added to those of the layout.
        trim: Group -> number of time steps to publish of a padded series. The rest must be void.

    Raises:
        IncompleteError: Shards are missing.
        StoreError: Objects of a written shard are gone or have another size.
        OutputError: The storage refuses.
    """
    storage = open_storage(build.url)
    if is_published(storage):
        return _publish_again(storage, build)
    storage = written_storage(build)
    shards = _complete(build, storage)
    layout = replace(build.layout, attrs={**build.layout.attrs, **(attrs or {})}).trimmed(trim or {})
    _check_records(layout, records, shards)
    storage.sweep()
    zarr_documents = documents(layout, tuple(sorted({record.epsg for record in records})))
    if isinstance(storage, SessionStorage):  # it takes no chunk of an array that it does not know
        _put_all(storage, zarr_documents)
    coordinates = _write_coordinates(storage, layout, records)
    _remove_strays(storage, shards, coordinates, zarr_documents)
    files = started_with(storage) | dict(side_files)
    for name, data in sorted(files.items()):
        _check_name(name)
        storage.put(name, data)
    manifest = Manifest(
        curate=__version__,
        fingerprint=build.fingerprint,
        layout=layout,
        shards=tuple(
            ShardEntry(shard.ordinal, shard.start, tuple(chip.chip for chip in shard.chips), shard.objects)
            for shard in shards
        ),
        coordinates=coordinates,
        files=tuple(_written(name, data) for name, data in sorted(files.items())),
        metadata=tuple(_written(key, data) for key, data in zarr_documents.items()),
    )
    storage.put(MANIFEST, manifest.to_bytes())
    if isinstance(storage, SessionStorage):
        last, data = COMMITTED, commit_dataset(storage, begun_as(storage), manifest)
    else:
        last, data = ROOT, zarr_documents.pop(ROOT)
        _put_all(storage, zarr_documents)
    if not storage.put_first(last, data):
        raise OutputError(storage.url, "another process has published another dataset here meanwhile")
    _remove_journal(storage)
    logger.info("published %d chips", layout.n_chips)
    return manifest


def _put_all(storage: Storage, documents: Mapping[str, bytes]) -> None:
    for key, data in documents.items():
        storage.put(key, data)


def commit_dataset(storage: SessionStorage, begun: Begun, manifest: Manifest) -> bytes:
    """Commit the store of a dataset to its repository; the content of ``icechunk.json``, which names the commit.

    Raises:
        OutputError: Another build was committed meanwhile, or the storage refuses.
    """
    told = {"curate": manifest.curate, "fingerprint": manifest.fingerprint, "tag": begun.commit.tag}
    message = f"{begun.commit.tag}: {manifest.layout.n_chips} chips"
    return commit(storage, begun, message, told)


def _publish_again(storage: Storage, build: BuildRef) -> Manifest:
    """What is left of a publishing that was killed after the root document: the journal."""
    manifest = read_manifest(storage)
    if manifest is None or manifest.fingerprint != build.fingerprint:
        raise OutputError(storage.url, "this folder holds a finished dataset of another build; choose another folder")
    _remove_journal(storage)
    return manifest


def _remove_journal(storage: Storage) -> None:
    storage.delete(storage.sizes(JOURNAL))
    storage.sweep()


def _complete(build: BuildRef, storage: Storage) -> list[ShardRecord]:
    """The records of all shards, whose objects are all there with the right sizes."""
    shards = {shard.ordinal: shard for shard in journal(build)}
    total = build.layout.n_shards
    if missing := [ordinal for ordinal in range(total) if ordinal not in shards]:
        shown = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
        raise IncompleteError(build.url, len(shards), total, (f"not written yet: shard {shown}",))
    sizes = storage.sizes(STORE)
    for shard in shards.values():
        for written in shard.objects:
            if sizes.get(written.key) != written.size:
                found = f"has {sizes[written.key]} bytes" if written.key in sizes else "is gone"
                raise StoreError(
                    build.url,
                    f"{written.key} of shard {shard.ordinal} {found} and was written with {written.size}; run the "
                    "same command again, and the shard is built anew",
                )
    return [shards[ordinal] for ordinal in range(total)]


def _check_records(layout: Layout, records: Sequence[ChipRecord], shards: Sequence[ShardRecord]) -> None:
    written = [(chip.chip, shard.ordinal) for shard in shards for chip in shard.chips]
    if [(record.chip, record.shard) for record in records] != written:
        raise ValueError("the records are not those of the written shards, in their order")
    if len({chip for chip, _ in written}) != len(written):
        raise ValueError("a chip stands twice in the plan")
    for group in layout.groups:
        sources = (record.sources.get(group.name) for record in records)
        used = max((len(source.dates) for source in sources if source), default=0)
        series = any(variable.dtype == "datetime64[s]" for variable in layout.of(group.name))
        if series and group.steps is not None and used > group.steps:
            raise ValueError(f"{group.name}: trimming to {group.steps} steps would cut off dates, {used} are used")


def _write_coordinates(storage: Storage, layout: Layout, records: Sequence[ChipRecord]) -> tuple[Written, ...]:
    """Write the coordinates of the root and of every group; small, so written by one process at the end."""
    arrays: dict[str, tuple[str, list[Any]]] = {}
    for name, (dtype, _) in CHIP_COORDINATES.items():
        values = [getattr(record, name) for record in records]
        arrays[name] = (dtype, values)
        for group in layout.groups:
            off = group.corner_off.get(name)
            arrays[f"{group.name}/{name}"] = (dtype, [value + off for value in values] if off else values)
    for group in layout.groups:
        for coord in group.coords:
            arrays[f"{group.name}/{coord.name}"] = (stored_dtype(coord), coordinate_values(coord, group.steps))
    written = []
    for path, (dtype, values) in arrays.items():
        for number, data in enumerate(encode_coordinate(values, dtype)):
            written.append(_written(f"{STORE}/{path}/c/{number}", data))
            storage.put(written[-1].key, data)
    return tuple(sorted(written))


def _remove_strays(
    storage: Storage, shards: Sequence[ShardRecord], coordinates: Sequence[Written], zarr_documents: Mapping[str, bytes]
) -> None:
    """Remove objects that no finished shard knows, left by an attempt at a shard that was built anew."""
    known = {written.key for shard in shards for written in shard.objects}
    known.update(written.key for written in coordinates)
    known.update(zarr_documents)
    strays = [key for key in storage.sizes(STORE) if key not in known]
    if strays:
        logger.info("removing %d objects that belong to no shard", len(strays))
    storage.delete(strays)


def _check_name(name: str) -> None:
    first = name.split("/")[0]
    if first in {STORE, MANIFEST, JOURNAL, "", ".", ".."}:
        raise ValueError(f"a file beside the store cannot be named '{name}'")


def _written(key: str, data: bytes) -> Written:
    return Written(key, len(data), hashlib.sha256(data).hexdigest())
