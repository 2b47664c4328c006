"""Ids of features on pixels, and what is known of each: its area, its parts and the numbers in its columns.

An id raster is burnt like classes (``labels.rasterize`` with uint32), 0 where no feature lies. A column of numbers is
then a raster too, found by looking each id up, so it needs no drawing of its own and lies on the ids pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from curate.errors import LabelError
from labels.rasterize import Polygons

MAX_ID = 2**32 - 1
"""Ids are stored as uint32; 0 means that no feature lies there."""


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """What is known of the features of a label, one position a feature, ascending by id."""

    ids: NDArray[np.uint32]
    area_m2: NDArray[np.float64] = field(repr=False)
    """Whole area of each, holes taken off, also of what other features hide."""
    parts: NDArray[np.int64] = field(repr=False)
    """Of how many polygons each consists."""
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    """Numbers of each; NaN where the file has none."""

    def __len__(self) -> int:
        return len(self.ids)

    def look_up(self, ids: NDArray[np.unsignedinteger[Any]], column: str) -> NDArray[np.float32]:
        """A column on pixels, float32 (y, x): of each pixel's feature, NaN where none lies or nothing is known.

        Args:
            ids: (y, x), 0 where no feature lies.
            column: One of ``columns``; KeyError when it is not.
        """
        out = np.full(ids.shape, np.nan, np.float32)
        _look_up(out, ids, self.ids, self.columns[column])
        return out

    def areas(self, ids: NDArray[np.unsignedinteger[Any]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Area in m² and number of parts of each of ``ids`` (n); NaN and 0 of those that are not in the table."""
        if not len(self):
            return np.full(len(ids), np.nan), np.zeros(len(ids), np.int64)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)
        known = self.ids[place] == ids
        return np.where(known, self.area_m2[place], np.nan), np.where(known, self.parts[place], 0)


def feature_table(polygons: Polygons, columns: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> FeatureTable:
    """What is known of features whose polygons have their ids as codes.

    Args:
        polygons: In a CRS in metres (see ``labels.rasterize.project``), ids as codes.
        columns: Name -> (ids, numbers), in any order and each id once; a feature that is not among them gets NaN.
    """
    ids, owner = np.unique(polygons.codes, return_inverse=True)
    return FeatureTable(
        ids=ids.astype(np.uint32),
        area_m2=np.bincount(owner, polygon_areas(polygons), len(ids)).astype(np.float64),
        parts=np.bincount(owner, minlength=len(ids)),
        columns={name: _ordered(ids, keys, values) for name, (keys, values) in columns.items()},
    )


def _ordered(ids: NDArray[Any], keys: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float32]:
    """The values, which belong to ``keys``, in the order of ``ids``; NaN where there is none."""
    numbers = np.full(len(ids), np.nan, np.float32)
    _, at, there = np.intersect1d(ids, keys, assume_unique=True, return_indices=True)
    numbers[at] = np.asarray(values)[there]
    return numbers


def polygon_areas(polygons: Polygons) -> NDArray[np.float64]:
    """Area of each polygon in squared units of its CRS, holes taken off (n)."""
    if not len(polygons):
        return np.zeros(0)
    first, last = polygons.rings[:-1], polygons.rings[1:]
    # Counted from a vertex of the ring: a zone's northings squared would leave a few cm² of rounding.
    x, y = (polygons.xy - np.repeat(polygons.xy[first], last - first, axis=0)).T
    cross = np.zeros(len(x))
    cross[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
    cross[last - 1] = 0  # from the end of a ring to the beginning of the next
    rings = np.abs(np.add.reduceat(cross, first)) / 2
    shells = polygons.polygons[:-1]
    rings[np.setdiff1d(np.arange(len(rings)), shells, assume_unique=True)] *= -1
    areas: NDArray[np.float64] = np.add.reduceat(rings, shells)
    return areas


def check_ids(label: str, column: str, values: NDArray[Any]) -> NDArray[np.uint32]:
    """The values of a column as ids.

    Raises:
        LabelError: They are not all whole numbers from 1 to 2^32 - 1, or one stands twice.
    """
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise LabelError(label, f"column {column} holds text; ids are whole numbers from 1 to {MAX_ID}") from error
    wrong = numbers[~((numbers >= 1) & (numbers <= MAX_ID) & (numbers == np.floor(numbers)))]
    if wrong.size:
        raise LabelError(label, f"column {column} holds {wrong[0]:g}; ids are whole numbers from 1 to {MAX_ID}")
    ids, n = np.unique(numbers, return_counts=True)
    if (n > 1).any():
        raise LabelError(
            label,
            f"column {column} has {int(ids[n > 1][0])} {n.max()} times; an id is of one feature: "
            "join those that are one (dissolve), or name another column",
        )
    return numbers.astype(np.uint32)


@njit(nogil=True, cache=True)
def _look_up(
    out: NDArray[np.float32],
    ids: NDArray[np.unsignedinteger],
    keys: NDArray[np.uint32],
    values: NDArray[np.float32],
) -> None:
    """Fill ``out`` with the value of each pixel's id; pixels whose id is no key stay as they are."""
    for i in range(ids.shape[0]):
        last, k, known = ids.dtype.type(0), 0, False
        for j in range(ids.shape[1]):
            # Features are wider than a pixel: mostly it is the one of the pixel before.
            if ids[i, j] != last:
                last = ids[i, j]
                k = np.searchsorted(keys, last)
                known = k < len(keys) and keys[k] == last
            if known:
                out[i, j] = values[k]
