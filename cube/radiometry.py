"""One scale for all scenes of a source, although their files carry different offsets.

A step of time can join scenes of different offsets (an old and a reprocessed tile), so the offset is applied scene by
scene, before they are joined, and never to void.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from odc.geo.geobox import GeoBox

    from catalog.scene import Scene
    from cube.load import Reader


def harmonise(stored: npt.NDArray[np.uint16], offsets: Sequence[int]) -> None:
    """Shift stored numbers in place, dims ``(time, …)``, by the offset of each time.

    Void (0) stays void, and what would become 0 or less becomes 1: a dark pixel is not void.
    """
    for step, offset in zip(stored, offsets, strict=True):
        if offset:
            _shift(step.reshape(-1), offset)


@numba.njit(nogil=True, cache=True)
def _shift(stored: npt.NDArray[np.uint16], offset: int) -> None:
    for i in range(stored.size):
        if stored[i] != 0:
            shifted = int(stored[i]) + offset
            stored[i] = min(max(shifted, 1), 65535)


def read_harmonised(
    reader: Reader,
    steps: Sequence[Sequence[Scene]],
    bands: Sequence[str],
    geobox: GeoBox,
    *,
    resampling: str,
) -> npt.NDArray[np.uint16]:
    """Reflectance of dims ``(time, band, y, x)``, uint16, 0 = void, offsets applied; see ``cube.load.Reader``.

    Scenes of a step are read together as long as they share an offset; a step of one offset, the usual case, is one
    read.
    """
    runs = [
        [list(run) for _, run in itertools.groupby(step, key=lambda scene: scene.radiometry.offset_dn)]
        for step in steps
    ]
    cube: npt.NDArray[np.uint16] | None = None
    for turn in range(max((len(of_step) for of_step in runs), default=0)):
        # The first turn takes every step, so that it allocates the cube; later ones only what still has scenes.
        where = [i for i, of_step in enumerate(runs) if turn == 0 or len(of_step) > turn]
        scenes = [runs[i][turn] if len(runs[i]) > turn else [] for i in where]
        part: npt.NDArray[Any] = reader(scenes, bands, geobox, resampling=resampling, dtype="uint16", fill=0).to_numpy()
        harmonise(part, [step[0].radiometry.offset_dn if step else 0 for step in scenes])
        if cube is None:
            cube = part
        else:
            for i, pixels in zip(where, part, strict=True):
                np.copyto(cube[i], pixels, where=cube[i] == 0)
    return cube if cube is not None else np.zeros((len(steps), len(bands), *geobox.shape), np.uint16)
