"""From the values of one object to its bytes: a Zarr shard, or a Zarr chunk of a small array or a coordinate.

Why not by zarr's own writer: it costs as much again as the compression itself, it reads a short last shard back before
writing it (and fails if that one is damaged), and it lays the chunks of a shard along a Morton curve. Here the dates of
a chip lie side by side, so that a reader gets a whole series in one range. Tests read everything back with zarr.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chips.metadata import TEXT_LEVEL, coordinate_chunk, empty_value, shuffled

if TYPE_CHECKING:
    import numpy.typing as npt

ABSENT = 2**64 - 1
"""Offset and length, in the index of a shard, of a chunk that is not stored because it is all void."""


def encode_shard(
    block: npt.NDArray[Any], inner: tuple[int, ...], shard: tuple[int, ...], fill: int | float | str | bool
) -> bytes | None:
    """A shard of the Zarr v3 sharding codec with its index at the end; None when every value is the fill value.

    Args:
        block: Values, at most as long as ``shard`` along each axis; what is missing at the end reads as ``fill``.
        inner: Shape of a chunk: 1 along the leading axes that a shard divides, whole along the others.
        shard: Shape of the shard.
        fill: The fill value as ``Variable.stored_fill``.
    """
    import google_crc32c
    import numpy as np
    from numcodecs import Blosc

    lead = next((axis for axis, step in enumerate(inner) if step != 1), len(inner))
    assert inner[lead:] == shard[lead:] == block.shape[lead:], "chunks are whole behind the leading axes"
    codec = Blosc("zstd", clevel=1, shuffle=shuffled(block.dtype.itemsize))
    index = np.full((*shard[:lead], 2), ABSENT, dtype="<u8")
    pieces: list[bytes] = []
    offset = 0
    for where in np.ndindex(*block.shape[:lead]):
        chunk = np.ascontiguousarray(block[where])
        if _is_void(chunk, fill):
            continue
        piece = codec.encode(chunk)
        index[where] = offset, len(piece)
        pieces.append(piece)
        offset += len(piece)
    if not pieces:
        return None
    table = index.tobytes()
    return b"".join([*pieces, table, struct.pack("<I", google_crc32c.value(table))])


def encode_chunk(block: npt.NDArray[Any], shape: tuple[int, ...], fill: int | float | str | bool) -> bytes | None:
    """A plain Zarr chunk, padded to its shape with the fill value; None when every value is the fill value."""
    import numpy as np
    from numcodecs import Blosc

    if _is_void(block, fill):
        return None
    if block.shape != shape:
        whole = np.full(shape, float("nan") if fill == "NaN" else fill, dtype=block.dtype)
        whole[tuple(slice(length) for length in block.shape)] = block
        block = whole
    codec = Blosc("zstd", clevel=1, shuffle=shuffled(block.dtype.itemsize))
    return bytes(codec.encode(np.ascontiguousarray(block)))


def encode_coordinate(values: Sequence[Any], dtype: str) -> list[bytes]:
    """The chunks of a coordinate, each as long as ``coordinate_chunk`` says, the last one padded.

    Args:
        values: All values; text for the dtype ``string``.
        dtype: Data type in the store.
    """
    import numpy as np
    from numcodecs import Blosc, VLenUTF8, Zstd

    (length,) = coordinate_chunk(len(values))
    found = []
    for start in range(0, len(values), length):
        part = list(values[start : start + length])
        part += [empty_value(dtype)] * (length - len(part))
        if dtype == "string":
            found.append(bytes(Zstd(level=TEXT_LEVEL).encode(VLenUTF8().encode(np.array(part, dtype=object)))))
        else:
            codec = Blosc("zstd", clevel=1, shuffle=shuffled(np.dtype(dtype).itemsize))
            found.append(bytes(codec.encode(np.array(part, dtype=dtype))))
    return found


def _is_void(values: npt.NDArray[Any], fill: int | float | str | bool) -> bool:
    import numpy as np

    first = values.flat[0]
    if fill == "NaN":
        return bool(np.isnan(first) and np.isnan(values).all())
    return bool(first == fill and (values == fill).all())
