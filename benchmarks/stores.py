"""What a store costs: the same chips in a Zarr folder and in an Icechunk repository, written, read and lengthened.

Arrays are written as a build writes them (`chips.write`, `chips.publish`), without the reading of scenes, which is the
same for both. Then chips are read in random order, a whole series or one date of it, and a version with one month
more is written. Both lie on the local disk, and what was written is read back from the page cache.

    python benchmarks/stores.py --chips 64 --dates 12
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely
import zarr

from chips.index import INDEX, ChipRecord, SourceRecord, index_bytes
from chips.layout import Coordinate, Group, Layout, Variable
from chips.publish import publish
from chips.storage import open_storage
from chips.versions import FIRST, commit_as, make_latest, version_url
from chips.write import start_build, write_shard
from publish.opened import open_published

Store = Literal["zarr", "icechunk"]
BANDS = ("blue", "green", "red", "nir", "nir08", "swir16", "swir22")


def main() -> None:
    """Print seconds and megabytes of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chips", type=int, default=64)
    parser.add_argument("--per-shard", type=int, default=32, help="chips a shard")
    parser.add_argument("--dates", type=int, default=12, help="months of the first version, up to 23")
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--reads", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="the medians of so many are told")
    asked = parser.parse_args()
    told: dict[str, dict[Store, list[float]]] = {}
    stores: tuple[Store, ...] = ("zarr", "icechunk")
    small = argparse.Namespace(**{**vars(asked), "chips": 2, "per_shard": 2, "dates": 1, "reads": 2})
    for store in stores:  # what is compiled and imported once
        with tempfile.TemporaryDirectory() as folder:
            measured(store, Path(folder) / "dataset", small)
    for _ in range(asked.rounds):
        for store in stores:
            with tempfile.TemporaryDirectory() as folder:
                for what, value in measured(store, Path(folder) / "dataset", asked).items():
                    told.setdefault(what, {}).setdefault(store, []).append(value)
    raw = asked.chips * asked.dates * len(BANDS) * asked.size_px**2 * 2 / 1e6
    shape = f"{asked.dates} x {len(BANDS)} x {asked.size_px}²"
    print(f"{asked.chips} chips of {shape}, {raw:.0f} MB raw, medians of {asked.rounds} rounds")
    for what, both in told.items():
        zarr_, ice = (float(np.median(both[store])) for store in stores)
        print(f"{what:<28} zarr {zarr_:9.2f}   icechunk {ice:9.2f}   ratio {ice / zarr_:5.2f}")


def measured(store: Store, out: Path, asked: argparse.Namespace) -> dict[str, float]:
    """One round: what -> seconds, milliseconds or megabytes."""
    layout = laid(store, asked.chips, asked.per_shard, asked.dates, asked.size_px)
    found = {"write and publish, s": written(layout, out, FIRST)}
    found["size, MB"] = size(out)
    array = open_published(str(out)).root()["s2/reflectance"]
    assert isinstance(array, zarr.Array)
    random = np.random.default_rng(1)
    chips, dates = (random.integers(0, n, asked.reads).tolist() for n in (asked.chips, asked.dates))
    np.testing.assert_array_equal(array[chips[0]], pixels(chips[0], layout))
    found["read a series, ms"] = seconds(lambda: [array[i] for i in chips]) / asked.reads * 1000
    one = list(zip(chips, dates, strict=True))
    found["read a date, ms"] = seconds(lambda: [array[at] for at in one]) / asked.reads * 1000
    longer = laid(store, asked.chips, asked.per_shard, asked.dates + 1, asked.size_px)
    found["a version of 1 month more, s"] = written(longer, out, FIRST + 1)
    found["both versions, MB"] = size(out)
    return found


def laid(store: Store, chips: int, per_shard: int, dates: int, size_px: int) -> Layout:
    """Monthly composites of one source."""
    months = tuple(f"{2020 + month // 12}-{month % 12 + 1:02d}-01" for month in range(dates))
    coords = (Coordinate("band", "band", "string", BANDS), Coordinate("time", "time", "datetime64[s]", months))
    shape = (dates, len(BANDS), size_px, size_px)
    reflectance = Variable("s2", "reflectance", ("time", "band", "y", "x"), shape, "uint16", 0, {"scale_factor": 1e-4})
    return Layout((Group("s2", {"resolution_m": 10}, coords),), (reflectance,), chips, size_px, per_shard, store=store)


def pixels(chip: int, layout: Layout) -> npt.NDArray[np.uint16]:
    """Smooth fields with noise, which compress about as reflectance does; the same of a chip in every layout."""
    (variable,) = layout.variables
    steps, bands, height, width = variable.shape
    y, x = np.mgrid[:height, :width] / 40
    out = np.empty(variable.shape, np.uint16)
    for step in range(steps):
        noise = np.random.default_rng((chip, step)).normal(0, 60, (bands, height, width))
        level = 800 + 300 * np.arange(bands)[:, None, None]
        out[step] = level + 400 * np.sin(y + chip) * np.cos(x + step) + noise
    return out


def written(layout: Layout, out: Path, version: int) -> float:
    """Write all shards and publish, as a version of a dataset: the seconds that took, without making up the pixels."""
    dataset = open_storage(out, create=True)
    storage = open_storage(version_url(dataset, version), create=True)
    build = start_build(storage, layout, str(version), {"recipe.yaml": b"-"}, commit=commit_as(version))
    records: list[ChipRecord] = []
    took = 0.0
    for shard in range(layout.n_shards):
        chips = layout.chips_of(shard)
        arrays: dict[tuple[str, str], Any] = {("s2", "reflectance"): np.stack([pixels(i, layout) for i in chips])}
        made = [record(i, shard) for i in chips]
        took += seconds(functools.partial(write_shard, build, shard, chips.start, arrays, made))
        records += made
    index = index_bytes(records, [shapely.box(0, 0, 1, 1)] * len(records))
    took += seconds(lambda: publish(build, records, {INDEX: index}))
    if version > FIRST:
        make_latest(dataset, version, str(version))
    return took


def record(chip: int, shard: int) -> ChipRecord:
    """A row of the index."""
    return ChipRecord(
        chip=f"32631_{chip}_0",
        shard=shard,
        split="train",
        status="ok",
        reason="",
        cover=1.0,
        epsg=32631,
        col=chip,
        row=0,
        x0=0.0,
        y0=0.0,
        lon=3.0,
        lat=0.0,
        sources={"s2": SourceRecord()},
    )


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def size(folder: Path) -> float:
    """Megabytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
