"""Four kinds of data in one store from one command, against the files and the truth of the simulated world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import xarray as xr
from rasterio.transform import from_origin

from flows.console import PlainConsole
from flows.steps import check
from simulate.write import World, truth_on

SIDE, RES = 64, 10
HIDDEN = (0, 1, 3, 8, 9, 10)
GROWN = (3, 8, 9, 10)
DILATE_PX = 2


def _open(dataset: Path, group: str) -> xr.Dataset:
    ds: xr.Dataset = xr.open_zarr(dataset / "chips.zarr", group=group, mask_and_scale=False, chunks=None)
    return ds


def _tile_chips(ds: xr.Dataset, file: rasterio.DatasetReader) -> list[tuple[int, int, int]]:
    """(chip, y, x) of the chips in the file's zone wholly inside it; y and x in 10 m pixels from its corner."""
    found = []
    for chip in np.flatnonzero(ds.epsg.values == file.crs.to_epsg()):
        x, y = (ds.x0.values[chip] - file.bounds.left) / RES, (file.bounds.top - ds.y0.values[chip]) / RES
        if x >= 0 and y >= 0 and x + SIDE <= file.width and y + SIDE <= file.height:
            found.append((int(chip), int(y), int(x)))
    return found


def _clear(scl_path: Path, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Clear pixels at 10 m of a whole tile: hidden classes, clouds and shadows grown by a disk."""
    from scipy.ndimage import binary_dilation

    with rasterio.open(scl_path) as file:
        scl = np.repeat(np.repeat(file.read(1), 2, 0), 2, 1)[: shape[0], : shape[1]]
    y, x = np.mgrid[-DILATE_PX : DILATE_PX + 1, -DILATE_PX : DILATE_PX + 1]
    grown = binary_dilation(np.isin(scl, GROWN), y**2 + x**2 <= DILATE_PX**2)
    clear: npt.NDArray[np.bool_] = ~(np.isin(scl, HIDDEN) | grown)
    return clear


def test_composites_are_those_of_the_files_with_every_baseline_on_one_scale(world: World, dataset: Path) -> None:
    """The oracle reads whole tiles with rasterio; offsets come from the items' baselines, duplicates from the lock."""
    ds = _open(dataset, "s2")
    lock = pd.read_parquet(dataset / "scenes.parquet")
    used = lock[(lock["curate:source"] == "s2") & (lock["curate:status"] == "used")]["id"]
    assert len(used) < (lock["curate:source"] == "s2").sum(), "the reprocessed acquisition is there twice"
    red: dict[tuple[str, int], list[npt.NDArray[np.float64]]] = {}
    where: dict[str, list[tuple[int, int, int]]] = {}
    offsets = set()
    for name in used:
        folder = world.folder / "sentinel-2-l2a" / name
        item = json.loads((folder / f"{name}.json").read_text())
        offset = -1000 if item["properties"]["s2:processing_baseline"] >= "04.00" else 0
        offsets.add(offset)
        with rasterio.open(folder / "B04.tif") as file:
            dn = file.read(1).astype("int32")
            tile = item["properties"]["s2:mgrs_tile"]
            where.setdefault(tile, _tile_chips(ds, file))
        values = np.where(dn == 0, 0, np.maximum(dn + offset, 1)).astype(float)
        clear = _clear(folder / "SCL.tif", dn.shape) & (dn > 0)
        month = int(item["properties"]["datetime"][5:7]) - 4
        red.setdefault((tile, month), []).append(np.where(clear, values, np.nan))
    assert offsets == {0, -1000}
    compared = 0
    for (tile, month), images in red.items():
        count = np.isfinite(images).sum(axis=0)
        seen = np.ma.masked_invalid(images)
        median = np.floor(np.ma.median(seen, axis=0).filled(0) + 0.5)  # type: ignore[no-untyped-call]
        for chip, y, x in where[tile]:
            box = (slice(y, y + SIDE), slice(x, x + SIDE))
            np.testing.assert_array_equal(ds["count"].values[chip, month], count[box])
            np.testing.assert_array_equal(ds.reflectance.values[chip, month, 0], median[box])
            compared += 1
    assert compared > 20


def test_both_zones_and_all_four_kinds_are_in_one_store(dataset: Path) -> None:
    assert set(np.unique(_open(dataset, "s2").epsg)) == {32633, 32634}
    for group, name in (("s2", "reflectance"), ("s1", "backscatter"), ("dem", "elevation"), ("label", "worldcover")):
        assert _open(dataset, group)[name].sizes["chip"] == _open(dataset, "s2").sizes["chip"]


def test_orbit_directions_are_kept_apart(dataset: Path) -> None:
    ds = _open(dataset, "s1")
    assert list(np.unique(ds.orbit.values)) == ["ascending", "descending"]
    power = ds.backscatter.values
    lock = pd.read_parquet(dataset / "scenes.parquet")
    lock = lock[lock["curate:source"] == "s1"]
    passes = {(str(time)[:7], orbit) for time, orbit in zip(lock["datetime"], lock["sat:orbit_state"], strict=True)}
    filled = np.isfinite(power).any(axis=(0, 2, 3, 4))
    labelled = {
        (str(time)[:7], orbit) for time, orbit in zip(ds.time.values[filled], ds.orbit.values[filled], strict=True)
    }
    assert labelled == passes, "each step bears the month and the direction of the passes it was made of"
    assert (power[np.isfinite(power)] > 0).all()
    table = pd.read_parquet(dataset / "chips.parquet")
    for chip in range(ds.sizes["chip"]):
        assert np.isfinite(power[chip]).any() == (len(table["s1_dates"][chip]) > 0)


def _truth(world: World, ds: xr.Dataset, chip: int) -> dict[str, npt.NDArray[np.generic]]:
    transform = from_origin(float(ds.x0.values[chip]), float(ds.y0.values[chip]), RES, RES)
    return truth_on(world.spec, int(ds.epsg.values[chip]), transform, (SIDE, SIDE))


def test_heights_classes_and_fields_are_the_truth(world: World, dataset: Path) -> None:
    dem, label = _open(dataset, "dem"), _open(dataset, "label")
    fields_there = fields_drawn = 0
    for chip in range(0, dem.sizes["chip"], 3):
        truth = _truth(world, dem, chip)
        height = dem.elevation.values[chip]
        assert np.nanmax(np.abs(height - truth["height"])) < 1.5, "metres; the DEM has pixels of 20 to 30 m"
        assert (label.worldcover.values[chip] == truth["class"]).mean() > 0.9, "nearest of pixels of 6 to 9 m"
        drawn, field = label.fields.values[chip] > 0, np.asarray(truth["field"]) > 0
        assert (drawn & ~field).mean() < 0.001, "what is drawn is a field"
        fields_there += int(field.sum())
        fields_drawn += int((drawn & field).sum())
    # Fields that the edge of the world cuts are not in the file.
    assert fields_drawn > 0.8 * fields_there


def test_the_dataset_is_as_it_promises(dataset: Path) -> None:
    report = check(str(dataset), PlainConsole())
    assert report.problems == ()
    assert report.facts["status"]


def test_every_planned_chip_has_a_row_with_status_dates_and_shares(dataset: Path) -> None:
    table = pd.read_parquet(dataset / "chips.parquet")
    assert set(table["status"]) <= {"ok", "partial", "empty"}
    assert (table.loc[table["status"] == "ok", "reason"] == "").all()
    assert (table.loc[table["status"] != "ok", "reason"] != "").all()
    assert table["chip"].is_unique
    assert {"split", "cover", "s2_clear", "s2_dates", "s2_scenes", "fields_shares"} <= set(table.columns)


@pytest.mark.parametrize("damage", ["pixel", "split", "missing"])
def test_a_damaged_dataset_is_found_out(dataset: Path, tmp_path: Path, damage: str) -> None:
    import shutil

    out = Path(shutil.copytree(dataset, tmp_path / "dataset"))
    if damage == "split":
        table = pq.read_table(out / "chips.parquet")
        train = pa.array(["train"] * len(table))
        pq.write_table(table.set_column(table.column_names.index("split"), "split", train), out / "chips.parquet")
    else:
        victim = next(
            path for path in sorted((out / "chips.zarr" / "dem" / "elevation" / "c").rglob("*")) if path.is_file()
        )
        if damage == "missing":
            victim.unlink()
        else:
            data = bytearray(victim.read_bytes())
            data[40] ^= 255
            victim.write_bytes(data)
    assert check(str(out), PlainConsole()).problems
