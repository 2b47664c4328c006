"""Noise as a pure function of position: hashed integers on a lattice, blended smoothly in between.

Nothing is drawn from a stream of random numbers, so any block of any grid can be made alone, in any order, by any
thread, and agrees with its neighbours. All kernels are compiled by numba and release the GIL.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable


Kernel = TypeVar("Kernel", bound="Callable[..., Any]")


def jit(function: Kernel) -> Kernel:
    """Compile a kernel: no GIL, cached on disk, strict floating point so that the bytes are the same everywhere.

    numba renews a cached kernel when its own file changes, not when one it calls does: after an edit of this module
    remove the ``__pycache__`` beside it.
    """
    compiled: Any = numba.njit(nogil=True, cache=True, fastmath=False)(function)
    return cast("Kernel", compiled)


@jit
def mix(a: int, b: int, c: int) -> int:
    """32 well-mixed bits from three integers (the finaliser of MurmurHash3 after a multiply-add of each)."""
    h = (a * 0x9E3779B1 + 0x7F4A7C15) & 0xFFFFFFFF
    h = ((h ^ (b & 0xFFFFFFFF)) * 0x85EBCA6B) & 0xFFFFFFFF
    h ^= h >> 15
    h = ((h ^ (c & 0xFFFFFFFF)) * 0xC2B2AE35) & 0xFFFFFFFF
    h ^= h >> 16
    h = (h * 0x85EBCA6B) & 0xFFFFFFFF
    h ^= h >> 13
    h = (h * 0xC2B2AE35) & 0xFFFFFFFF
    return h ^ (h >> 16)


@jit
def chance(a: int, b: int, c: int) -> float:
    """A number in [0, 1), even over it, from three integers."""
    return mix(a, b, c) * (1.0 / 4294967296.0)


@jit
def value(x: float, y: float, seed: int) -> float:
    """Value noise in [-1, 1] on the unit lattice, twice differentiable."""
    i = math.floor(x)
    j = math.floor(y)
    u = x - i
    v = y - j
    u = u * u * u * (u * (u * 6.0 - 15.0) + 10.0)
    v = v * v * v * (v * (v * 6.0 - 15.0) + 10.0)
    a = chance(int(i), int(j), seed)
    b = chance(int(i) + 1, int(j), seed)
    c = chance(int(i), int(j) + 1, seed)
    d = chance(int(i) + 1, int(j) + 1, seed)
    low = a + (b - a) * u
    high = c + (d - c) * u
    return 2.0 * (low + (high - low) * v) - 1.0


@jit
def fbm(x: float, y: float, octaves: int, seed: int) -> float:
    """Sum of octaves of value noise, each half as high and twice as fine, in about [-1, 1].

    Each octave is turned by 37 degrees against the one before, which hides the lattice.
    """
    total = 0.0
    height = 0.5
    for octave in range(octaves):
        total += height * value(x, y, seed + octave)
        x, y = 1.6 * x - 1.2 * y + 17.3, 1.2 * x + 1.6 * y - 9.1
        height *= 0.5
    return total


@jit
def bell(a: int, b: int, c: int) -> float:
    """A number of about the normal distribution with mean 0 and deviation 1, from three integers.

    The sum of four even 16-bit numbers (Irwin-Hall): no tail beyond 3.5, no logarithm, no square root.
    """
    h = mix(a, b, c)
    g = mix(h, c, a)
    total = (h & 0xFFFF) + (h >> 16) + (g & 0xFFFF) + (g >> 16)
    return (total * (1.0 / 65536.0) - 2.0) * 1.7320508075688772
