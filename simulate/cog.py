"""Cloud-optimised GeoTIFFs written row by row, so that a file may be larger than memory.

GDAL's COG driver copies a finished raster and cannot be written to. So rows go into a plain GeoTIFF first, in memory
while it is small and beside the target when it is not; closing makes the COG and puts it in place in one step.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.io import MemoryFile
from rasterio.transform import Affine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from simulate.world import Raster

IN_MEMORY_BYTES = 64 << 20
"""A raster up to this size is collected in memory."""

LEVELS = {"deflate": 4, "zstd": 5}
"""Half the time of the usual levels for 2 % more bytes."""

Rows = Any
"""A call ``write(first_row, array)`` with an array ``(row, col)`` over the raster's whole width."""


@contextlib.contextmanager
def cog(
    path: Path,
    raster: Raster,
    dtype: str,
    *,
    nodata: float | None,
    block_px: int,
    compress: str,
    overviews: str,
    colours: Mapping[int, tuple[int, int, int, int]] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Rows]:
    """Open a COG of one band for writing; it is there, whole, when the block ends without an error.

    Args:
        path: Of the file; its folder exists.
        raster: Its grid.
        dtype: Of the pixels.
        nodata: Value declared as void, or None to declare none.
        block_px: Side of a block.
        compress: Codec; integers get predictor 2, floats 3.
        overviews: Resampling of the overviews: ``nearest``, ``average``, ``mode``.
        colours: Palette (red, green, blue, alpha) by value.
        tags: Metadata of the file.
    """
    rows, cols = raster.shape
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": cols, "height": rows, "count": 1, "dtype": dtype, "nodata": nodata,
        "crs": f"EPSG:{raster.epsg}", "transform": Affine(*raster.transform),
    }  # fmt: skip
    part = path.with_name(f".{path.name}.part")
    raw = path.with_name(f".{path.name}.raw")
    itemsize = {"uint8": 1, "uint16": 2, "float32": 4}[dtype]
    with contextlib.ExitStack() as stack:
        for leftover in (part, raw):
            stack.callback(leftover.unlink, missing_ok=True)
        # The environment of a world does not depend on the caller's: no sidecar files, no threads inside GDAL.
        stack.enter_context(rasterio.Env(GDAL_PAM_ENABLED=False, GDAL_NUM_THREADS="1"))
        small = rows * cols * itemsize <= IN_MEMORY_BYTES
        pixels = np.zeros((rows, cols) if small else (0, 0), dtype)
        if small:
            target = stack.enter_context(MemoryFile()).open(**profile)
        else:
            target = rasterio.open(raw, "w", tiled=True, blockxsize=512, blockysize=512, bigtiff="if_safer", **profile)
        stack.enter_context(target)

        def write(first_row: int, array: NDArray[Any]) -> None:
            if small:
                # Written as one at the end: parts of a strip would be read back and merged by GDAL.
                pixels[first_row : first_row + array.shape[0]] = array
                return
            target.write(array, 1, window=((first_row, first_row + array.shape[0]), (0, cols)))

        yield write
        if small:
            target.write(pixels, 1)
        if colours is not None:
            target.write_colormap(1, dict(colours))
        if tags:
            target.update_tags(**tags)
        with contextlib.ExitStack() as reopened:
            source = target
            if not small:
                target.close()
                source = reopened.enter_context(rasterio.open(raw))
            rasterio.shutil.copy(
                source,
                part,
                driver="COG",
                blocksize=block_px,
                compress=compress,
                predictor="YES",
                level=LEVELS[compress],
                overview_resampling=overviews,
                bigtiff="IF_SAFER",
            )
        os.replace(part, path)
