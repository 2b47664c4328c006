"""One scale for all scenes of a source, although their files carry different offsets.

A step of time can join scenes of different offsets (an old and a reprocessed tile), so the offset is applied scene by
scene, before they are joined, and never to void. Radar has its own trap at the borders of a pass.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from cube.encoding import RANGES, REFLECTANCE, Encoding

if TYPE_CHECKING:
    import numpy.typing as npt
    from odc.geo.geobox import GeoBox

    from catalog.scene import Scene
    from cube.load import PixelReader


def harmonise(stored: npt.NDArray[Any], offsets: Sequence[int], encoding: Encoding = REFLECTANCE) -> None:
    """Shift stored numbers in place, dims ``(time, …)``, by the offset of each time.

    Void stays void and nothing becomes void: what Sentinel-2 (void 0) would shift to 0 or less becomes 1, because a
    dark pixel was seen.
    """
    for step, offset in zip(stored, offsets, strict=True):
        if not offset:
            continue
        if encoding.dtype == "uint16" and encoding.void == 0:
            # In place whatever the strides: readers hand out transposed arrays, and a flattened one would be a copy.
            with _MAKING:
                shift = _make_shift()
            shift(step, offset, out=step)
        elif encoding.floating:
            step += offset
        else:
            void = step == encoding.fill
            low, high = RANGES[encoding.dtype]
            shifted = np.clip(step.astype(np.int64) + offset, low, high)
            shifted[shifted == encoding.fill] += -1 if encoding.fill > 0 else 1
            step[...] = np.where(void, encoding.fill, shifted)


_MAKING = threading.Lock()


@functools.cache
def _make_shift() -> Any:
    # Made when it is first wanted, or every import of this module would start LLVM; under a lock, because threads that
    # want it at once would each make it.
    @numba.vectorize(["uint16(uint16, int64)"], cache=True)  # type: ignore[no-untyped-call]
    def shifted(stored: int, offset: int) -> Any:
        if stored == 0:
            return np.uint16(0)
        return np.uint16(min(max(stored + offset, 1), 65535))

    return shifted


def read_harmonised(
    reader: PixelReader,
    steps: Sequence[Sequence[Scene]],
    bands: Sequence[str],
    geobox: GeoBox,
    *,
    resampling: str,
    encoding: Encoding = REFLECTANCE,
) -> npt.NDArray[Any]:
    """Reflectance of dims ``(time, band, y, x)`` as it is stored, offsets applied; see ``cube.load.PixelReader``.

    Scenes of a step are read together as long as they share an offset; a step of one offset, the usual case, is one
    read.
    """
    return _in_turns(
        lambda part: np.asarray(
            reader(part, bands, geobox, resampling=resampling, dtype=encoding.dtype, fill=encoding.fill)
        ),
        steps,
        lambda scene: scene.radiometry.offset_dn,
        lambda pixels, part: harmonise(
            pixels, [step[0].radiometry.offset_dn if step else 0 for step in part], encoding
        ),
        np.isnan if encoding.floating else lambda pixels: pixels == encoding.fill,
    )


def read_power(
    reader: PixelReader,
    steps: Sequence[Sequence[Scene]],
    bands: Sequence[str],
    geobox: GeoBox,
    *,
    resampling: str,
) -> npt.NDArray[np.float32]:
    """Backscatter in linear power of dims ``(time, band, y, x)``, float32, NaN = void; see ``cube.load.PixelReader``.

    Power is positive. Some archives fill the borders of a pass with zeros that no void value covers, and those must
    not hide the next scene of the step: so the scenes of a step are read one after the other.
    """

    def hide_zeros(pixels: npt.NDArray[Any], part: Sequence[Sequence[Scene]]) -> None:
        pixels[~(pixels > 0)] = np.nan

    return _in_turns(
        lambda part: np.asarray(reader(part, bands, geobox, resampling=resampling, dtype="float32", fill=np.nan)),
        steps,
        lambda scene: scene.id,
        hide_zeros,
        np.isnan,
    )


def _in_turns(
    read: Callable[[Sequence[Sequence[Scene]]], npt.NDArray[Any]],
    steps: Sequence[Sequence[Scene]],
    key: Callable[[Scene], object],
    mend: Callable[[npt.NDArray[Any], Sequence[Sequence[Scene]]], None],
    void: Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]],
) -> npt.NDArray[Any]:
    """Read runs of scenes that share a key, mend them in place, and join them first-valid-wins in their order."""
    runs = [[list(run) for _, run in itertools.groupby(step, key=key)] for step in steps]
    # The first turn takes every step, so that it makes the whole cube; later ones only what still has scenes.
    first = [of_step[0] if of_step else [] for of_step in runs]
    cube = read(first)
    mend(cube, first)
    for turn in range(1, max(map(len, runs), default=0)):
        where = [i for i, of_step in enumerate(runs) if len(of_step) > turn]
        part = [runs[i][turn] for i in where]
        pixels = read(part)
        mend(pixels, part)
        for i, step in zip(where, pixels, strict=True):
            np.copyto(cube[i], step, where=void(cube[i]))
    return cube
