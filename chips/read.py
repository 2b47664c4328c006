"""Chips of a published dataset, read for what is built on it: every object is held against the manifest first.

A missing object reads as void in any Zarr library. Here it is void only if the manifest says that none was written.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chips.encode import ABSENT
from chips.index import stored_table
from chips.layout import Layout, Variable
from chips.manifest import Written, needed_manifest
from chips.metadata import chunks
from chips.repository import attached
from chips.storage import Storage, open_storage
from curate.errors import StoreError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow

_AGAIN = "the dataset is damaged; 'curate check' tells what else is"


@dataclass(frozen=True, slots=True)
class Published:
    """A published dataset to take chips from. Small enough to be handed to a worker."""

    url: str
    curate: str
    """Version that published it."""
    layout: Layout
    chips: Mapping[str, int]
    """Id of a chip -> its position in the store."""
    objects: Mapping[str, Written]
    """Key -> object of every array that has pixels or a value a chip."""

    def variable(self, group: str, name: str) -> Variable | None:
        """An array of the layout; None where there is none."""
        return next((variable for variable in self.layout.variables if variable.key == (group, name)), None)

    def index(self) -> pyarrow.Table:
        """``chips.parquet``, row i of chip i. Raises StoreError when it is gone or damaged."""
        return stored_table(open_storage(self.url))

    def read(self, variable: Variable, positions: Sequence[int]) -> npt.NDArray[Any]:
        """Values of some chips, dims ``(chip, *variable.dims)`` of the layout, with a time axis as long as was written.

        Times come as ``datetime64[s]``, void as the array's fill value.

        Raises:
            StoreError: An object is missing, or is not what was written.
        """
        import numpy as np

        storage = attached(open_storage(self.url))
        inner, shape = chunks(variable, self.layout)
        fill = np.nan if variable.fill == "NaN" else variable.stored_fill
        out = np.full((len(positions), *variable.shape), fill, variable.stored_dtype)
        rows: dict[int, list[int]] = {}
        for row, position in enumerate(positions):
            rows.setdefault(position // shape[0], []).append(row)
        timed = variable.spatial and variable.dims[0] == "time"
        parts = range(-(-variable.shape[0] // shape[1])) if timed else range(1)
        for number, of_object in rows.items():
            within = [positions[row] - number * shape[0] for row in of_object]
            for part in parts:
                rest = (part, *(0 for _ in shape[2:])) if len(shape) > 1 else ()
                written = self.objects.get("/".join((variable.path, "c", *map(str, (number, *rest)))))
                if written is None:
                    continue
                data = _fetch(storage, written)
                block = _decode(data, inner, shape, variable) if variable.spatial else _chunk(data, shape, variable)
                if timed:
                    steps = slice(part * shape[1], min((part + 1) * shape[1], variable.shape[0]))
                    out[of_object, steps] = block[within, : steps.stop - steps.start]
                else:
                    out[of_object] = block[within]
        return out.view("datetime64[s]") if variable.dtype == "datetime64[s]" else out


def published(storage: Storage) -> Published:
    """The published dataset in a storage, to be read.

    Raises:
        StoreError: Its manifest is gone or damaged.
    """
    manifest = needed_manifest(storage)
    return Published(
        url=storage.url,
        curate=manifest.curate,
        layout=manifest.layout.padded(),
        chips={chip: shard.start + at for shard in manifest.shards for at, chip in enumerate(shard.chips)},
        objects={written.key: written for shard in manifest.shards for written in shard.objects},
    )


def _fetch(storage: Storage, written: Written) -> bytes:
    data = storage.get(written.key)
    if data is None:
        raise StoreError(storage.url, f"{written.key} is missing; {_AGAIN}")
    if len(data) != written.size or hashlib.sha256(data).hexdigest() != written.sha256:
        raise StoreError(storage.url, f"{written.key} is not what was written; {_AGAIN}")
    return data


def _decode(data: bytes, inner: tuple[int, ...], shape: tuple[int, ...], variable: Variable) -> npt.NDArray[Any]:
    """All of a Zarr shard, as ``chips.encode.encode_shard`` writes it."""
    import google_crc32c
    import numpy as np
    from numcodecs import Blosc

    lead = next((axis for axis, step in enumerate(inner) if step != 1), len(inner))
    size = 16 * int(np.prod(shape[:lead]))
    table = data[-size - 4 : -4]
    assert struct.unpack("<I", data[-4:])[0] == google_crc32c.value(table), "its SHA-256 was that of the manifest"
    index = np.frombuffer(table, "<u8").reshape((*shape[:lead], 2))
    fill = np.nan if variable.fill == "NaN" else variable.stored_fill
    block = np.full(shape, fill, variable.stored_dtype)
    codec = Blosc()
    for where in np.ndindex(*shape[:lead]):
        offset, length = (int(value) for value in index[where])
        if offset != ABSENT:
            piece = np.frombuffer(codec.decode(data[offset : offset + length]), variable.stored_dtype)
            block[where] = piece.reshape(shape[lead:])
    return block


def _chunk(data: bytes, shape: tuple[int, ...], variable: Variable) -> npt.NDArray[Any]:
    import numpy as np
    from numcodecs import Blosc

    return np.frombuffer(Blosc().decode(data), variable.stored_dtype).reshape(shape)
