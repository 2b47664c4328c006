"""What is remembered of the pixels of a chip while they are written, so that an audit needs no second pass.

The mean of each band, and a *print*: how bright each of 8 x 8 blocks is, relative to the chip. Copies of a chip have
the same print; two places that only look alike have not, because 64 blocks would have to agree to a twentieth of their
own contrast.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BLOCKS = 8
"""Blocks a side of a print."""
_SAMPLED_PX = 64
"""Pixels a side that are looked at; of a larger chip every second, fourth … is taken."""
_LEVELS = 32
"""Levels of a print to one standard deviation of its blocks."""
_MIDDLE = 128
_HEAD = struct.Struct("<ff")
PRINT_BYTES = _HEAD.size + BLOCKS**2
ALIKE = 0.06
"""Root mean square difference of two prints, in their own contrast, up to which they are of the same pixels; rounding
to levels makes up 0.013 of it."""
SAME_LEVEL = 0.05
"""Difference of mean (in contrasts) and of contrast (as a share) up to which two prints are of the same pixels."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is remembered of one source on one chip."""

    means: tuple[float, ...] = ()
    """Mean of each band over all pixels looked at and all times, in stored numbers; NaN for a band that is void."""
    print: str = ""
    """Print as hexadecimal digits; empty where most blocks are void or all are equally bright."""


def remember(pixels: npt.NDArray[Any], dims: Sequence[str], fill: float | None) -> Remembered:
    """What is remembered of the pixels of one chip.

    Args:
        pixels: Of one source on one chip, any numeric type.
        dims: Their dimensions: some of ``time`` and ``band``, then ``y``, ``x``.
        fill: Number that is void, besides NaN; None where there is none.
    """
    import numpy as np

    step = max(1, pixels.shape[-1] // _SAMPLED_PX)
    sample = pixels[..., step // 2 :: step, step // 2 :: step]
    if "time" not in dims:
        sample = sample[np.newaxis]
    if "band" not in dims:
        sample = sample[:, np.newaxis]
    there = np.isfinite(sample) if sample.dtype.kind == "f" else np.ones(sample.shape, dtype=bool)
    if fill is not None and not np.isnan(fill):
        there &= sample != fill
    side = sample.shape[-1]
    if side < BLOCKS:
        count = there.sum(axis=(0, 2, 3))
        total = np.where(there, sample, 0).sum(axis=(0, 2, 3), dtype="float64")
        return Remembered(_means(total, count))
    starts = np.arange(BLOCKS) * side // BLOCKS
    count, total = there.sum(axis=0), np.where(there, sample, 0).sum(axis=0, dtype="float64")
    for axis in (1, 2):
        count, total = np.add.reduceat(count, starts, axis=axis), np.add.reduceat(total, starts, axis=axis)
    means = _means(total.sum(axis=(1, 2)), count.sum(axis=(1, 2)))
    seen = count > 0
    bands = seen.sum(axis=0)
    blocks = np.where(seen, total / np.maximum(count, 1), 0).sum(axis=0) / np.maximum(bands, 1)
    # A block that lacks a band would be told apart by the lack and not by its brightness.
    full = bands == seen.any(axis=(1, 2)).sum()
    if not full.any() or full.mean() <= 0.5:
        return Remembered(means)
    middle, contrast = float(blocks[full].mean()), float(blocks[full].std())
    if contrast <= 1e-6 * max(abs(middle), 1e-12):
        return Remembered(means)
    levels = np.round((blocks - middle) / contrast * _LEVELS) + _MIDDLE
    codes = np.where(full, np.clip(levels, 0, 255), _MIDDLE).astype("uint8")
    return Remembered(means, (_HEAD.pack(middle, contrast) + codes.tobytes()).hex())


def _means(total: npt.NDArray[np.float64], count: npt.NDArray[np.int64]) -> tuple[float, ...]:
    import numpy as np

    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype("float32")
    return tuple(float(value) for value in mean)


def alike(first: Sequence[bytes | None], second: Sequence[bytes | None]) -> list[tuple[int, int]]:
    """Pairs of positions, one in each list, whose prints are of the same pixels; chips without a print have no pair."""
    import numpy as np
    from scipy.spatial import cKDTree

    (here, mean_a, contrast_a, a), (there, mean_b, contrast_b, b) = _decoded(first), _decoded(second)
    if not len(here) or not len(there):
        return []
    reach = ALIKE * BLOCKS
    # Six coarse waves of a print and its contrast, scaled so that what is alike is within reach: a tree of seven
    # dimensions instead of all pairs.
    tree_a, tree_b = (
        cKDTree(np.column_stack([values @ _waves().T, np.log(contrast) * (reach / SAME_LEVEL)]))
        for values, contrast in ((a, contrast_a), (b, contrast_b))
    )
    found = []
    for start in range(0, len(here), 5_000):
        part = cKDTree(tree_a.data[start : start + 5_000])
        pairs = part.sparse_distance_matrix(tree_b, 1.5 * reach, output_type="ndarray")
        one, other = pairs["i"] + start, pairs["j"]
        contrast = np.minimum(contrast_a[one], contrast_b[other])
        close = np.abs(mean_a[one] - mean_b[other]) <= SAME_LEVEL * contrast
        close &= np.abs(contrast_a[one] - contrast_b[other]) <= SAME_LEVEL * contrast
        one, other = one[close], other[close]
        same = np.sqrt(((a[one] - b[other]) ** 2).mean(axis=1)) <= ALIKE
        found += list(zip(here[one[same]].tolist(), there[other[same]].tolist(), strict=True))
    return sorted(found)


def _decoded(prints: Sequence[bytes | None]) -> tuple[npt.NDArray[Any], ...]:
    """Positions, means, contrasts and levels (in contrasts) of the prints that are there."""
    import numpy as np

    where = [index for index, found in enumerate(prints) if isinstance(found, bytes) and len(found) == PRINT_BYTES]
    raw = np.frombuffer(b"".join(prints[index] or b"" for index in where), dtype="uint8").reshape(-1, PRINT_BYTES)
    head = np.ascontiguousarray(raw[:, : _HEAD.size]).view("<f4").astype("float64").reshape(-1, 2)
    levels = (raw[:, _HEAD.size :].astype("float64") - _MIDDLE) / _LEVELS
    return np.array(where, dtype=int), head[:, 0], head[:, 1], levels


def _waves() -> npt.NDArray[np.float64]:
    """Orthonormal cosines over the blocks, the six of the longest waves."""
    import numpy as np

    at = (np.arange(BLOCKS) + 0.5) * np.pi / BLOCKS
    rows = [np.cos(k * at) / np.linalg.norm(np.cos(k * at)) for k in range(3)]
    return np.array([np.outer(rows[i], rows[j]).ravel() for i, j in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2))])
