"""GeoTIFF chips: a file for every chip, array and date, with place, void, names and units of its bands."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from chips.layout import Variable
from labels.legend import Legend
from publish.export import Chip, Source, Step, Target, path_of


def write_geotiffs(source: Source, target: Target) -> Iterator[int]:
    """Write ``<split>/<group>/<variable>/<chip>[_<date>].tif`` for all that has pixels; gives chips when done."""
    spatial = [v for v in source.variables if v.spatial]
    for chip in source.chips:
        for variable in spatial:
            _write_chip(source, target, chip, variable)
        yield 1


def _write_chip(source: Source, target: Target, chip: Chip, variable: Variable) -> None:
    folder = f"{chip.split}/{path_of(variable)}"
    pixels: list[npt.NDArray[Any]] = []

    def image(step: Step | None) -> bytes:
        # Read once for all dates, and not at all where every file is there.
        if not pixels:
            pixels.append(source.read(variable, chip))
        found = pixels[0] if step is None else pixels[0][step.index]
        return geotiff(found, variable, chip, source, step)

    steps: Sequence[Step | None] = source.steps(variable.group, chip) if "time" in variable.dims else (None,)
    for step in steps:
        name = chip.name if step is None else f"{chip.name}_{step.name}"
        target.put(
            f"{folder}/{name}.tif",
            partial(image, step),
            chip.name,
            chip.split,
            path_of(variable),
            "" if step is None else step.time,
        )


def geotiff(
    pixels: npt.NDArray[Any], variable: Variable, chip: Chip, source: Source, step: Step | None = None
) -> bytes:
    """A GeoTIFF of stored numbers ([band,] y, x): equal pixels give equal bytes.

    Void is its nodata, scale, offset and units stand on the bands, colours of classes in its palette.
    """
    from rasterio.crs import CRS
    from rasterio.io import MemoryFile
    from rasterio.transform import Affine

    bands = pixels.reshape(-1, *pixels.shape[-2:])
    if bands.dtype == bool:
        bands = bands.astype(np.uint8)
    attrs = variable.attrs
    x0, y0 = source.corner(variable.group, chip)
    side_m = float(source.opened.layout.group(variable.group).attrs["resolution_m"])
    whole = bands.dtype.kind != "f"
    options: dict[str, Any] = {"driver": "COG"} if source.spec.cog else {"driver": "GTiff", "interleave": "band"}
    if bands.dtype.itemsize > 1:
        # Classes of one byte do not grow smaller by differences.
        options["predictor"] = ("STANDARD" if whole else "FLOATING_POINT") if source.spec.cog else (2 if whole else 3)
    with MemoryFile() as memory:
        with memory.open(
            **options,
            width=bands.shape[2],
            height=bands.shape[1],
            count=len(bands),
            dtype=bands.dtype.name,
            crs=CRS.from_epsg(chip.epsg),
            transform=Affine(side_m, 0, x0, 0, -side_m, y0),
            nodata=_nodata(variable),
            compress="DEFLATE",
        ) as file:
            file.write(bands)
            file.descriptions = source.names(variable)
            file.scales = [float(attrs.get("scale_factor", 1.0))] * len(bands)
            file.offsets = [float(attrs.get("add_offset", 0.0))] * len(bands)
            if "units" in attrs:
                file.units = [str(attrs["units"])] * len(bands)
            file.update_tags(**_tags(variable, chip, step))
            colors = {c.code: _rgb(c.color) for c in Legend.of_attrs(attrs).classes if c.color}
            if colors and bands.dtype == np.uint8 and len(bands) == 1:
                file.write_colormap(1, colors)
        return bytes(memory.read())


def _nodata(variable: Variable) -> float | None:
    if not variable.void:
        return None
    return float("nan") if variable.fill == "NaN" else float(variable.stored_fill)


def _tags(variable: Variable, chip: Chip, step: Step | None) -> dict[str, str]:
    tags = {"CHIP": chip.name, "SPLIT": chip.split, "ARRAY": path_of(variable)}
    for name in ("flag_values", "flag_meanings"):
        if name in variable.attrs:
            value = variable.attrs[name]
            tags[name.upper()] = value if isinstance(value, str) else " ".join(map(str, value))
    if step is not None:
        tags["TIME"] = step.time
        tags["TIFFTAG_DATETIME"] = dt.datetime.fromisoformat(step.time).strftime("%Y:%m:%d %H:%M:%S")
    return tags


def _rgb(color: str) -> tuple[int, int, int, int]:
    digits = color.lstrip("#")
    return (int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16), 255)
