"""A small dataset with every kind of thing that is shown, whose pixels are known here."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely

from chips.index import INDEX, ChipRecord, LabelRecord, ShiftRecord, SourceRecord, index_bytes
from chips.layout import Coordinate, Group, Layout, Variable
from chips.publish import publish
from chips.storage import Storage, open_storage
from chips.write import journal, start_build, write_shard
from publish.written import WrittenDataset, published_dataset, written_dataset

PX = 16
CHIPS = 12
EMPTY = 7
DAYS = (dt.datetime(2020, 5, 3, 10, tzinfo=dt.UTC), dt.datetime(2020, 6, 20, 10, tzinfo=dt.UTC))
SPLITS = ("train", "train", "val", "test", "buffer", "train")
CROPS = {1: ("wheat", "#112233"), 2: ("maize </script>", "#445566"), 5: ("hemp", "#778899")}


def shown_layout() -> Layout:
    """A series of four bands with times, a month of radar, elevation, and labels of classes and of objects."""
    bands = Coordinate("band", "band", "string", ("blue", "green", "red", "nir"))
    months = [Coordinate("time", "time", "datetime64[s]", ("2020-05-01",))]
    months.append(Coordinate("time_end", "time", "datetime64[s]", ("2020-06-01",)))
    scaled = {"scale_factor": 0.0001, "units": "1"}
    classes = {
        "kind": "classes",
        "label": "crops",
        "flag_values": list(CROPS),
        "flag_names": [name for name, _ in CROPS.values()],
        "flag_colors": " ".join(colour for _, colour in CROPS.values()),
        "licence": "CC-BY-4.0",
        "attribution": "© Somebody & others",
    }
    return Layout(
        groups=(
            Group("s2", {"resolution_m": 10.0, "collection": "sentinel-2-l2a"}, (bands,)),
            Group("s1", {"resolution_m": 10.0}, (Coordinate("band", "band", "string", ("vv", "vh")), *months)),
            Group("dem", {"resolution_m": 10.0}),
            Group("label", {"resolution_m": 10.0}),
        ),
        variables=(
            Variable("s2", "reflectance", ("time", "band", "y", "x"), (3, 4, PX, PX), "uint16", 0, scaled),
            Variable("s2", "clear", ("time",), (3,), "float32", None),
            Variable("s2", "acquired", ("time",), (3,), "datetime64[s]", None),
            Variable("s1", "backscatter", ("time", "band", "y", "x"), (1, 2, PX, PX), "float32", None),
            Variable("dem", "elevation", ("y", "x"), (PX, PX), "float32", None, {"units": "m"}),
            Variable("label", "crops", ("y", "x"), (PX, PX), "uint8", 255, classes),
            Variable("label", "crops_id", ("y", "x"), (PX, PX), "uint32", None, {"kind": "ids", "label": "crops"}),
        ),
        n_chips=CHIPS,
        size_px=PX,
        shard_chips=6,
        attrs={"title": "shown & told", "curate_version": "0", "recipe_fingerprint": "f" * 64},
    )


@dataclass(frozen=True)
class Shown:
    """The dataset, before and after it was published, and what is in it."""

    folder: Path
    before: WrittenDataset
    after: WrittenDataset
    arrays: dict[tuple[str, str], npt.NDArray[Any]]
    """(group, name) -> all chips."""
    records: tuple[ChipRecord, ...]


def _pixels(layout: Layout) -> dict[tuple[str, str], npt.NDArray[Any]]:
    seed = np.random.default_rng(1)
    found: dict[tuple[str, str], npt.NDArray[Any]] = {}
    for variable in layout.variables:
        fill: Any = {"NaN": np.nan, "NaT": np.datetime64("NaT")}.get(str(variable.fill), variable.fill)
        found[variable.key] = np.full((CHIPS, *variable.shape), fill, dtype=variable.dtype)
    for chip in range(CHIPS):
        if chip == EMPTY:
            continue
        dark_to_bright = np.linspace(4000, 400, PX)[:, np.newaxis]  # bright in the first row, the north
        for band in range(4):
            noise = seed.integers(0, 100, (2, PX, PX))
            found["s2", "reflectance"][chip, :2, band] = dark_to_bright + 200 * band + 10 * chip + noise
        found["s2", "reflectance"][chip, :2, :, 3, 5] = 0  # void
        found["s2", "reflectance"][chip, 0, :, :4] = 9000  # a cloud on the first day
        found["s2", "clear"][chip, :2] = [0.75, 1.0]
        found["s2", "acquired"][chip, :2] = [np.datetime64(day.replace(tzinfo=None), "s") for day in DAYS]
        found["s1", "backscatter"][chip, 0] = seed.gamma(4.0, 0.02, (2, PX, PX))
        # A ridge from south to north: its west side is lit, the sun of maps stands in the northwest.
        found["dem", "elevation"][chip] = 300 - 5 * np.abs(np.arange(PX) - PX / 2)
        found["label", "crops"][chip] = seed.choice([1, 2, 5, 255], (PX, PX))
        found["label", "crops_id"][chip, 2:6, 2:6] = 1 + chip
    return found


def _records(arrays: dict[tuple[str, str], npt.NDArray[Any]]) -> list[ChipRecord]:
    found = []
    for chip in range(CHIPS):
        codes, counts = np.unique(arrays["label", "crops"][chip], return_counts=True)
        shares = {int(code): int(n) / PX**2 for code, n in zip(codes, counts, strict=True) if code != 255}
        empty = chip == EMPTY
        shift = ShiftRecord(None, None, 0, "nothing clear") if chip % 2 else ShiftRecord(4.0 + chip / 9, 0.5, 2)
        seen = SourceRecord(0.875, DAYS, ("A", "B"), 3, {"not clear enough": 1}, shift=shift)
        found.append(
            ChipRecord(
                chip=f"32633_{chip}_<1>",
                shard=chip // 6,
                split=SPLITS[chip % 6],
                status="empty" if empty else "ok",
                reason="no scene meets the chip" if empty else "",
                cover=1.0 if chip else 0.5,
                epsg=32633,
                col=chip,
                row=1,
                x0=160.0 * chip,
                y0=160.0,
                lon=15 + 0.01 * chip,
                lat=48.0,
                sources={
                    "s2": SourceRecord(shift=shift) if empty else seen,
                    "s1": SourceRecord() if empty else SourceRecord(1.0, DAYS[:1], ("R",), 1),
                    "dem": SourceRecord() if empty else SourceRecord(1.0, (), ("D",), 1),
                },
                labels={"crops": LabelRecord(shares, sum(shares.values()))},
            )
        )
    return found


def square(lon: float, lat: float, side: float = 0.01) -> shapely.Polygon:
    half = side / 2
    return shapely.box(lon - half, lat - half, lon + half, lat + half)


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Twelve chips in two shards, the eighth of them empty."""
    layout = shown_layout()
    folder = tmp_path_factory.mktemp("shown") / "dataset"
    storage: Storage = open_storage(folder, create=True)
    arrays = _pixels(layout)
    records = _records(arrays)
    region = {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": None}]}
    region["features"][0]["geometry"] = json.loads(shapely.to_geojson(square(15.05, 48.0, 0.2)))  # type: ignore[index]
    documents = {"recipe.yaml": b"name: shown\n", "region.geojson": json.dumps(region).encode()}
    build = start_build(storage, layout, "shown-1", documents)
    for ordinal in range(layout.n_shards):
        chips = layout.chips_of(ordinal)
        part = {key: values[chips.start : chips.stop] for key, values in arrays.items()}
        write_shard(build, ordinal, chips.start, part, records[chips.start : chips.stop])
    journaled = [record for shard in journal(build) for record in shard.chips]
    files = {INDEX: index_bytes(journaled, [square(record.lon, record.lat) for record in journaled])}
    before = written_dataset(storage, layout.trimmed({"s2": 2}), files)
    first = before.values(layout.variables[0], 0).copy()
    assert np.array_equal(first[:2], arrays["s2", "reflectance"][0, :2])
    early = Shown(folder, before, before, arrays, tuple(records))
    from publish.report import report

    (folder.parent / "before.html").write_bytes(report(early.before))
    publish(build, journaled, files, trim={"s2": 2})
    return Shown(folder, before, published_dataset(str(folder)), arrays, tuple(records))
