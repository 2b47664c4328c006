"""A tiny world for labels: 64 pixels in a zone, and an area around them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely

from tiling.aoi import Aoi
from tiling.shards import Window

EPSG, X0, Y0, RES = 32633, 500_000.0, 5_376_000.0, 10.0
"""Upper-left corner of the world, metres."""


@pytest.fixture(scope="session")
def make_window() -> Callable[..., Window]:
    """A window of the world by its place and size in pixels (of ``res`` metres)."""

    def window(row: int = 0, col: int = 0, height: int = 64, width: int = 64, res: float = RES) -> Window:
        minx, maxy = X0 + col * res, Y0 - row * res
        bounds = (minx, maxy - height * res, minx + width * res, maxy)
        return Window(EPSG, bounds, res, (height, width), (), ())

    return window


@pytest.fixture(scope="session")
def area() -> Aoi:
    to_degrees = pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True)
    return Aoi("area", shapely.box(*to_degrees.transform_bounds(X0, Y0 - 640, X0 + 640, Y0)))


@pytest.fixture(scope="session")
def box() -> Callable[[float, float, float, float], Any]:
    """A rectangle by its left, top, right and bottom in pixels of the world."""

    def rectangle(left: float, top: float, right: float, bottom: float) -> Any:
        return shapely.box(X0 + left * RES, Y0 - bottom * RES, X0 + right * RES, Y0 - top * RES)

    return rectangle


@pytest.fixture
def write_vector(tmp_path: Path) -> Callable[..., str]:
    """Write shapes (in the world's CRS) and columns to a file of any kind and CRS; gives its path."""
    import geopandas as gpd

    def write(name: str, shapes: list[Any], crs: int | None = EPSG, **columns: list[Any]) -> str:
        frame = gpd.GeoDataFrame(columns, geometry=shapes, crs=EPSG)
        frame = frame.to_crs(EPSG if crs is None else crs)
        path = tmp_path / name
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
        if crs is None:
            path.with_suffix(".prj").unlink()  # a shapefile has its CRS beside it
        return str(path)

    return write


@pytest.fixture
def write_raster(tmp_path: Path) -> Callable[..., str]:
    """Write pixels (y, x) to a GeoTIFF whose upper-left corner is given in metres; gives its path."""
    import rasterio
    from affine import Affine

    def write(
        name: str, pixels: np.ndarray[Any, Any], *, x: float = X0, y: float = Y0, res: float = RES, **profile: Any
    ) -> str:
        path = str(tmp_path / name)
        count = 1 if pixels.ndim == 2 else len(pixels)
        options = {"crs": f"EPSG:{EPSG}", "transform": Affine(res, 0, x, 0, -res, y), **profile}
        with rasterio.open(
            path, "w", driver="GTiff", dtype=pixels.dtype, count=count,
            height=pixels.shape[-2], width=pixels.shape[-1], **options,
        ) as file:  # fmt: skip
            file.write(pixels, 1) if count == 1 else file.write(pixels)
        return path

    return write


@pytest.fixture(scope="session")
def facts(root: Path) -> Callable[[str], list[dict[str, str]]]:
    """Rows of a table of facts by its name; the test is skipped where the tables are absent."""
    folder = root.parent / "shared" / "facts" / "tables"
    if not folder.is_dir():
        pytest.skip(f"no tables of facts in {folder}")

    def read(name: str) -> list[dict[str, str]]:
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    return read
