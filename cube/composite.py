"""Time folded away: kernels that make one value of the clear observations of a pixel.

They take plain arrays, release the GIL and touch nothing but their arguments, so that chips can be folded in threads.
An observation counts when it is clear and its band is not void.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from cube.times import How

CODES: dict[How, int] = {"median": 0, "mean": 1, "first": 2, "best": 2}
"""``first`` and ``best`` differ in the order in which they are offered the dates."""


CLEAR_VOTE = 65536
"""Weight of a clear observation against a hidden one: more than there are dates."""


def best_order(share: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.intp]:
    """Order of dates from the clearest to the least clear; the earlier one first where they are equal."""
    return np.argsort(-share, kind="stable")


def fold(
    values: npt.NDArray[Any],
    clear: npt.NDArray[np.bool_],
    how: How,
    *,
    out: npt.NDArray[Any],
    count: npt.NDArray[np.uint8],
    order: npt.NDArray[np.intp] | None = None,
    void: float = 0,
) -> None:
    """Fold one band over time, into ``out`` and ``count``.

    Args:
        values: dims ``(time, y, x)``; void is ``void`` in integers and NaN in floats.
        clear: True where an observation is clear, same dims.
        how: median (of an even number: the mean of the middle two, rounded half up in integers), mean (rounded half
            up in integers), first (the earliest), best (the first in ``order``).
        out: dims ``(y, x)``; void where no observation counts.
        count: Observations that count, dims ``(y, x)``; 255 stands for more as well.
        order: Order in which the dates are offered; by default as they come.
        void: Void of integers. A median or mean that hits it becomes the number beside it.
    """
    if order is None:
        order = np.arange(len(values))
    _fold(values, clear, order, CODES[how], out.dtype.kind != "f", float(void), out, count)


@numba.njit(nogil=True, cache=True)
def _fold(
    values: npt.NDArray[Any],
    clear: npt.NDArray[np.bool_],
    order: npt.NDArray[np.intp],
    how: int,
    whole: bool,
    void: float,
    out: npt.NDArray[Any],
    count: npt.NDArray[np.uint8],
) -> None:
    height, width = out.shape
    if not whole:
        void = np.nan
    seen = np.empty((width, len(order)), values.dtype)  # a row of pixels, so that memory is read along its grain
    n = np.empty(width, np.int64)
    for i in range(height):
        n[:] = 0
        for t in order:
            for j in range(width):
                value = values[t, i, j]
                if clear[t, i, j] and value == value and value != void:
                    seen[j, n[j]] = value
                    n[j] += 1
        for j in range(width):
            k = n[j]
            count[i, j] = min(k, 255)
            if k == 0:
                out[i, j] = void
            elif how == 2 or k == 1:
                out[i, j] = seen[j, 0]
            elif how == 1:
                total = 0.0  # exact for integers: the sum of 255 dates is far below 2**53
                for m in range(k):
                    total += seen[j, m]
                out[i, j] = _whole(total / k, void) if whole else total / k
            else:
                low, high = _middle(seen[j], k)
                mid = (np.float64(low) + np.float64(high)) / 2
                out[i, j] = _whole(mid, void) if whole else mid


@numba.njit(nogil=True, cache=True)
def _whole(value: float, void: float) -> float:
    """Rounded half up; never void."""
    rounded: float = np.floor(value + 0.5)
    if rounded != void:
        return rounded
    return rounded - 1 if rounded > 0 else rounded + 1


@numba.njit(nogil=True, cache=True)
def _middle(row: npt.NDArray[Any], k: int) -> Any:
    """The two middle values of the first ``k`` (twice the same when ``k`` is odd); reorders ``row``."""
    for a in range(1, k):
        value = row[a]
        b = a
        while b > 0 and row[b - 1] > value:
            row[b] = row[b - 1]
            b -= 1
        row[b] = value
    return row[(k - 1) // 2], row[k // 2]


@numba.njit(nogil=True, cache=True)
def fold_classes(codes: npt.NDArray[Any], clear: npt.NDArray[np.bool_], out: npt.NDArray[Any]) -> None:
    """The most frequent class of the clear observations of each pixel, into ``out`` of dims ``(y, x)``.

    Where nothing is clear, the most frequent class of all observations that are not void (0), so that the layer tells
    why a pixel is void. Of equally frequent classes the smaller code.

    Args:
        codes: Classes, dims ``(time, y, x)``; 0 is void.
        clear: True where an observation is clear, same dims.
        out: dims ``(y, x)``; 0 where nothing was seen.
    """
    height, width = out.shape
    top = 0
    for seen in codes.flat:
        top = max(top, int(seen))
    votes = np.zeros((width, top + 1), np.int32)
    for i in range(height):
        votes[:] = 0
        for t in range(len(codes)):
            for j in range(width):
                code = int(codes[t, i, j])
                if code != 0:
                    votes[j, code] += CLEAR_VOTE if clear[t, i, j] else 1
        for j in range(width):
            best, most = 0, 0
            for code in range(1, top + 1):
                weight = votes[j, code]
                if weight >= CLEAR_VOTE:
                    weight -= weight % CLEAR_VOTE  # hidden observations do not decide between clear ones
                if weight > most:
                    best, most = code, weight
            out[i, j] = best


def fold_values(
    values: npt.NDArray[Any],
    clear: npt.NDArray[np.bool_],
    out: npt.NDArray[Any],
    void: npt.NDArray[np.bool_],
    fill: int,
) -> None:
    """As ``fold_classes`` for any numbers, as of bits: the most frequent number, whole, of the clear observations.

    Args:
        values: dims ``(time, y, x)``.
        clear: True where an observation is clear, same dims.
        out: dims ``(y, x)``; ``fill`` where nothing was seen.
        void: For every number that may occur whether it is void.
        fill: What stands for all void ones in ``out``.
    """
    there = np.zeros(len(void), bool)
    there[values] = True
    numbers = np.flatnonzero(there & ~void)
    # Ranks instead of numbers, so that as many votes are counted as there are numbers, and not 65,536 a pixel.
    rank = np.zeros(len(void), np.uint16)
    rank[numbers] = np.arange(1, len(numbers) + 1)
    ranks = np.empty(out.shape, np.uint16)
    fold_classes(rank[values], clear, ranks)
    out[...] = np.concatenate([[fill], numbers])[ranks]


def fold_chances(
    values: npt.NDArray[np.uint8],
    clear: npt.NDArray[np.bool_],
    seen: npt.NDArray[np.bool_],
    out: npt.NDArray[np.uint8],
) -> None:
    """Median of the probabilities of the clear observations, of all that were seen where none is clear, else 0.

    Args:
        values: Percent, dims ``(time, y, x)``.
        clear: True where an observation is clear, same dims.
        seen: True where there is an observation, same dims.
        out: dims ``(y, x)``.
    """
    count, every = np.empty(out.shape, np.uint8), np.empty_like(out)
    fold(values, seen, "median", out=every, count=count, void=255)
    every[count == 0] = 0
    fold(values, clear, "median", out=out, count=count, void=255)
    np.copyto(out, every, where=count == 0)
