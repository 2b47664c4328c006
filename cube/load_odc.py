"""How odc-loader opens our files. By itself, because odc-loader brings Dask, which the default reader does without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.loader._rio import RioDriver, RioReader

from cube.load import NO_FILE, SourceFile, read_file

if TYPE_CHECKING:
    import numpy.typing as npt
    from odc.geo.geobox import GeoBox
    from odc.loader.types import RasterLoadParams, RasterSource


class OdcFile(RioReader):
    """What odc-loader calls a reader: one file, opened on demand."""

    def __init__(self, file: SourceFile | None, src: RasterSource, ctx: Any) -> None:
        super().__init__(src, ctx)
        self._file = file

    def read(
        self, cfg: RasterLoadParams, dst_geobox: GeoBox, *, dst: Any = None, selection: Any = None
    ) -> tuple[tuple[slice, slice], npt.NDArray[Any]]:
        """Its pixels on a grid, and where they lie in it: everywhere."""
        # odc-loader's own read takes the void from the file alone, pastes nearest pixels that are up to 0.9 pixel
        # off, and lets GDAL guess the filter.
        assert cfg.dtype is not None  # read_odc gives both
        assert cfg.fill_value is not None
        if self._file is None:
            pixels = np.full(dst_geobox.shape, cfg.fill_value, cfg.dtype)
        else:
            pixels = read_file(self._file, dst_geobox, resampling=cfg.resampling, dtype=cfg.dtype, fill=cfg.fill_value)
        if dst is not None:
            dst[...] = pixels
        return (slice(None), slice(None)), pixels


class OdcDriver(RioDriver):
    """odc-loader's driver with our files found by token: signed hrefs, layers and names stay out of the items."""

    def __init__(self, files: Mapping[str, SourceFile]) -> None:
        super().__init__()
        self._files = files

    def open(self, src: RasterSource, ctx: Any) -> OdcFile:
        """The file of a token."""
        return OdcFile(None if src.uri == NO_FILE else self._files[src.uri], src, ctx)
