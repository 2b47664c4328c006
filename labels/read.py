"""Open a label, or make ready one that is derived from others: one function for every kind of label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labels.rasters import Reach, open_raster
from labels.source import LabelSource
from labels.spec import LabelSpec, ProductLabel, RasterLabel, VectorLabel
from labels.vectors import MARGIN_M, open_vector

if TYPE_CHECKING:
    from tiling.aoi import Aoi


def open_label(
    name: str,
    spec: LabelSpec,
    *,
    aoi: Aoi,
    rasters: Sequence[str] = (),
    margin_m: float = MARGIN_M,
    reach: Callable[[str], Reach] | None = None,
) -> LabelSource:
    """A label ready to draw.

    Args:
        name: Its name in the recipe; stands in errors.
        spec: What the recipe says about it, with absolute paths.
        aoi: Area of interest: what lies further away than ``margin_m`` is not read.
        rasters: Files of a product, found by the caller; where they overlap, the first valid one wins.
        margin_m: At least the side of a chip.
        reach: How an address is opened, asked just before each opening (a signature lives shorter than a build).

    Raises:
        LabelError: The file, a column or a class is missing, or nothing of it lies in the area.
        ReadError: A raster cannot be opened.
    """
    match spec:
        case VectorLabel():
            return open_vector(name, spec, aoi=aoi, margin_m=margin_m)
        case RasterLabel() | ProductLabel():
            return open_raster(name, spec, aoi=aoi, rasters=rasters, reach=reach)


def class_shares(pixels: NDArray[np.unsignedinteger[Any]], ignore: int) -> dict[int, float]:
    """Share of all pixels, 0 to 1, of each class that occurs, by code. They sum up to the labelled share."""
    n = np.bincount(pixels.ravel())
    return {int(code): float(n[code] / pixels.size) for code in np.flatnonzero(n) if code != ignore}
