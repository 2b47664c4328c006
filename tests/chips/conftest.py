"""A tiny dataset whose every pixel follows from the number of its chip, and a way to read a whole folder back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import shapely

from chips.index import INDEX, ChipRecord, LabelRecord, SourceRecord, index_bytes
from chips.layout import Coordinate, Group, Layout, Variable
from chips.manifest import Manifest
from chips.publish import publish
from chips.storage import Storage, open_storage
from chips.write import BuildRef, journal, start_build, write_shard

Arrays = dict[tuple[str, str], npt.NDArray[Any]]

PX = 8
STEPS = 4
"""Padded length of the series; two dates are used."""
DATES = (dt.datetime(2018, 4, 1, 10, 0, 5, tzinfo=dt.UTC), dt.datetime(2018, 5, 3, 10, 0, 7, tzinfo=dt.UTC))


def tiny_layout(n_chips: int = 5, shard_chips: int = 2) -> Layout:
    """A series in uint16 with classes, a mask and times, monthly backscatter in float32, and a label."""
    months = tuple(f"2018-{month:02d}-01" for month in (4, 5, 6, 7))
    return Layout(
        groups=(
            Group(
                "s2",
                {"resolution_m": 10},
                (
                    Coordinate("band", "band", "string", ("red", "nir")),
                    Coordinate("wavelength_nm", "band", "float64", (665, 842), {"units": "nm"}),
                ),
            ),
            Group(
                "s1",
                {},
                (
                    Coordinate("time", "time", "datetime64[s]", months[:3]),
                    Coordinate("time_end", "time", "datetime64[s]", months[1:]),
                    Coordinate("orbit", "time", "string", ("ascending",) * 3),
                ),
            ),
            Group("label"),
        ),
        variables=(
            Variable(
                "s2",
                "reflectance",
                ("time", "band", "y", "x"),
                (STEPS, 2, PX, PX),
                "uint16",
                0,
                {"scale_factor": 0.0001, "units": "1", "_FillValue": 0},
            ),
            Variable("s2", "scl", ("time", "y", "x"), (STEPS, PX, PX), "uint8", 0, {"flag_values": [0, 4, 9]}, True),
            Variable("s2", "clear_mask", ("time", "y", "x"), (STEPS, PX, PX), "bool", None),
            Variable("s2", "clear", ("time",), (STEPS,), "float32", float("nan")),
            Variable("s2", "acquired", ("time",), (STEPS,), "datetime64[s]", "NaT"),
            Variable("s1", "backscatter", ("time", "y", "x"), (3, PX, PX), "float32", float("nan"), {"units": "1"}),
            Variable("label", "fields", ("y", "x"), (PX, PX), "uint8", 255, {"_FillValue": 255, "kind": "classes"}),
        ),
        n_chips=n_chips,
        size_px=PX,
        shard_chips=shard_chips,
        attrs={"title": "tiny"},
    )


@dataclass(frozen=True)
class Tiny:
    """A dataset in the making. Empty chips are as if no scene had met them."""

    layout: Layout
    folder: Path
    empty: frozenset[int] = frozenset({3})

    @property
    def storage(self) -> Storage:
        return open_storage(self.folder, create=True)

    def is_empty(self, chip: int) -> bool:
        return chip in self.empty

    def arrays(self, ordinal: int) -> Arrays:
        chips = self.layout.chips_of(ordinal)
        found: Arrays = {}
        for variable in self.layout.variables:
            fill: Any = {"NaN": np.nan, "NaT": np.datetime64("NaT")}.get(str(variable.fill), variable.fill)
            found[variable.key] = np.full((len(chips), *variable.shape), fill, dtype=variable.dtype)
        for row, chip in enumerate(chips):
            if self.is_empty(chip):
                continue
            seed = np.random.default_rng(chip)
            found["s2", "reflectance"][row, :2] = seed.integers(1, 10_000, (2, 2, PX, PX))
            found["s2", "scl"][row, :2] = seed.choice([4, 9], (2, PX, PX))
            mask = found["s2", "scl"][row, :2] == 4
            found["s2", "clear_mask"][row, :2] = mask
            found["s2", "clear"][row, :2] = mask.mean(axis=(1, 2))
            found["s2", "acquired"][row, :2] = [np.datetime64(date.replace(tzinfo=None), "s") for date in DATES]
            found["s1", "backscatter"][row] = seed.random((3, PX, PX), dtype="float32")
            found["label", "fields"][row] = seed.choice([0, 1, 211, 255], (PX, PX))
        return found

    def records(self, ordinal: int) -> list[ChipRecord]:
        found = []
        arrays = self.arrays(ordinal)
        for row, chip in enumerate(self.layout.chips_of(ordinal)):
            empty = self.is_empty(chip)
            codes, counts = np.unique(arrays["label", "fields"][row], return_counts=True)
            shares = {int(c): int(n) / PX**2 for c, n in zip(codes, counts, strict=True) if c != 255}
            clear = 0.0 if empty else float(arrays["s2", "clear"][row, :2].mean())
            found.append(
                ChipRecord(
                    chip=f"32631_{chip}_1",
                    shard=ordinal,
                    split=("train", "val", "test")[chip % 3],
                    status="empty" if empty else "ok",
                    reason="no scene meets the chip" if empty else "",
                    cover=1.0,
                    epsg=32631,
                    col=chip,
                    row=1,
                    x0=80.0 * chip,
                    y0=160.0,
                    lon=3.0 + chip,
                    lat=50.0,
                    sources={"s2": SourceRecord(), "s1": SourceRecord()}
                    if empty
                    else {
                        "s2": SourceRecord(clear, DATES, ("S2A_a", "S2A_b"), 3, {"cloudy": 1}),
                        "s1": SourceRecord(1.0, DATES[:1], ("S1A_a",), 1),
                    },
                    labels={"fields": LabelRecord(shares, sum(shares.values()))},
                )
            )
        return found

    def start(self) -> BuildRef:
        return start_build(self.storage, self.layout, "tiny-1", {"recipe.yaml": b"name: tiny\n"})

    def write(self, build: BuildRef, ordinals: Sequence[int] | None = None) -> None:
        for ordinal in range(self.layout.n_shards) if ordinals is None else ordinals:
            start = self.layout.chips_of(ordinal).start
            write_shard(build, ordinal, start, self.arrays(ordinal), self.records(ordinal))

    def publish(self, build: BuildRef, steps: int = 2) -> Manifest:
        records = [record for shard in journal(build) for record in shard.chips]
        return publish(build, records, {INDEX: index_bytes(records, footprints(records))}, trim={"s2": steps})

    def build(self) -> Manifest:
        """The whole of it, undisturbed."""
        build = self.start()
        self.write(build)
        return self.publish(build)


def footprints(records: Sequence[ChipRecord]) -> list[shapely.Geometry]:
    return [shapely.box(record.lon - 0.5, 49.5, record.lon + 0.5, 50.5) for record in records]


@pytest.fixture
def make_tiny(tmp_path: Path) -> Callable[..., Tiny]:
    """Makes tiny datasets: name of the folder, number of chips, chips a shard, which chips are empty, which store."""

    def make(
        name: str = "out",
        n_chips: int = 5,
        shard_chips: int = 2,
        empty: frozenset[int] = frozenset({3}),
        store: Literal["zarr", "icechunk"] = "zarr",
    ) -> Tiny:
        return Tiny(replace(tiny_layout(n_chips, shard_chips), store=store), tmp_path / name, empty)

    return make


@pytest.fixture
def tiny(make_tiny: Callable[..., Tiny]) -> Tiny:
    """Five chips in three shards, the last of them short; nothing is written yet."""
    return make_tiny()


@pytest.fixture
def contents() -> Callable[[Path], Mapping[str, bytes]]:
    """Reads a folder back: relative path -> bytes of every file, hidden ones too."""

    def read(folder: Path) -> Mapping[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    return read
