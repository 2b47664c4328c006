"""How fast chips are read in random order, as a training loop does: from the store, and from the same chips as GeoTIFF.

Both are local files, read before, so what is compared is the format and not the disk: opening, finding and decoding. A
"series" is one chip with all dates and bands of the first source, a "date" is one of them. Pixels are compared first.

    python benchmarks/read.py my-dataset --chips 200
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import zarr

from flows.console import PlainConsole
from flows.steps import export
from publish.export import ExportSpec, Source, open_source
from publish.opened import open_published

Read = Callable[[int], npt.NDArray[Any]]


def main() -> None:
    """Export the chips, compare the pixels, and print what reading costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("dataset", help="a published dataset whose first source has a time axis")
    parser.add_argument("--chips", type=int, default=200, help="how many reads are timed")
    parser.add_argument("--rounds", type=int, default=5, help="the best of so many is told")
    asked = parser.parse_args()
    opened = open_published(asked.dataset)
    first = opened.layout.groups[0].name
    spec = ExportSpec(to="geotiff", groups=(first,))
    source = open_source(opened, spec)
    with tempfile.TemporaryDirectory() as folder:
        export(asked.dataset, spec, folder + "/chips", PlainConsole())
        compare(asked.dataset, source, Path(folder) / "chips", asked.chips, asked.rounds)


def compare(dataset: str, source: Source, folder: Path, chips: int, rounds: int) -> None:
    """Print milliseconds a read and megabytes a second for each way."""
    variable = next(v for v in source.variables if v.spatial)
    if "time" not in variable.dims:
        raise SystemExit(f"{dataset}: {variable.group} has no time axis; wanted a dataset whose first source has one")
    group = f"{variable.group}/{variable.name}"
    array = zarr.open_group(f"{dataset}/chips.zarr", mode="r")[group]
    assert isinstance(array, zarr.Array)
    random = np.random.default_rng(0)
    order = random.integers(0, len(source.chips), chips).tolist()
    steps = [source.steps(variable.group, chip) for chip in source.chips]
    dates = [int(random.integers(0, len(steps[i]))) for i in order]

    def store(i: int) -> npt.NDArray[Any]:
        return np.asarray(array[source.chips[order[i]].row])

    def store_date(i: int) -> npt.NDArray[Any]:
        return np.asarray(array[source.chips[order[i]].row, steps[order[i]][dates[i]].index])

    def tiff(i: int, places: Sequence[int]) -> npt.NDArray[Any]:
        chip = source.chips[order[i]]
        found = []
        for place in places:
            name = f"{chip.name}_{steps[order[i]][place].name}.tif"
            with rasterio.open(folder / chip.split / group / name) as file:
                found.append(np.asarray(file.read()))
        return np.stack(found)

    def tiffs(i: int) -> npt.NDArray[Any]:
        return tiff(i, range(len(steps[order[i]])))

    def tiff_date(i: int) -> npt.NDArray[Any]:
        return np.asarray(tiff(i, [dates[i]])[0])

    for i in range(min(chips, 20)):
        used = [step.index for step in steps[order[i]]]
        np.testing.assert_array_equal(store(i)[used], tiffs(i))
        np.testing.assert_array_equal(store_date(i), tiff_date(i))
    shape = " x ".join(map(str, variable.shape))
    print(f"{group}: {len(source.chips)} chips of {shape} {variable.dtype}, {chips} random reads, best of {rounds}")
    for name, read in (
        ("series, store", store),
        ("series, GeoTIFF", tiffs),
        ("date, store", store_date),
        ("date, GeoTIFF", tiff_date),
    ):
        seconds, size = timed(read, chips, rounds)
        print(f"{name:<16} {seconds / chips * 1000:8.2f} ms a read {size / seconds / 1e6:9.0f} MB/s")


def timed(read: Read, chips: int, rounds: int) -> tuple[float, int]:
    """(seconds of the quickest round, bytes read in it)."""
    best, size = float("inf"), 0
    for _ in range(rounds):
        begun = time.perf_counter()
        size = sum(read(i).nbytes for i in range(chips))
        best = min(best, time.perf_counter() - begun)
    return best, size


if __name__ == "__main__":
    main()
