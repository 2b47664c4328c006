"""Real Sentinel-2 and Landsat-8 of one place in Flanders: one grid, one clause, values as in the files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geom import box as odc_box

from catalog.scene import Asset, Scene
from cube.build import CubeData, CubeRequest, allocate, fill, steps_needed, variables
from cube.encoding import Encoding, encoding_for
from cube.mask import MaskSpec, which_layer
from cube.resample import pixels_a_side
from cube.times import Interval, TimeSpec, periods
from tiling.grid import Chip
from tiling.shards import lay_shards

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "flanders"

SIZE = 24  # 240 m: the files begin on a corner of such chips, at 501360, 5629680
CHIPS = tuple(Chip(32631, 2089 + col, 23456 - row, SIZE, 10.0) for row in range(2) for col in range(2))
SPAN = Interval.parse("2017-08-01/2018-12-01")
CLAUSE = MaskSpec(hide=("void", "saturated", "shadow", "cloud", "cirrus"))
SENTINEL = encoding_for("uint16", 0, scale=1e-4)
# Negative reflectances are measured, and 0 is what the files call void.
LANDSAT = encoding_for("int16", 0, scale=1e-4)


def scenes_of(collection: str, names: Mapping[str, str]) -> list[Scene]:
    if not DATA.is_dir():
        pytest.skip(f"real data is not here: {DATA}")
    scenes = []
    for folder in sorted(path for path in (DATA / collection).iterdir() if path.is_dir()):
        assets = []
        for key, band in names.items():
            path = folder / f"{key}.tif"
            with rasterio.open(path) as file:
                grid = tuple(file.transform)[:6]
                assets.append(Asset(band, key, str(path), 32631, grid, file.shape, file.dtypes[0], file.nodata))
                bounds = file.bounds
        extent = odc_box(bounds.left, bounds.bottom, bounds.right, bounds.top, "EPSG:32631").to_crs("EPSG:4326")
        stamp = folder.name.split("_")[2]
        time = dt.datetime.strptime(stamp[:8], "%Y%m%d").replace(tzinfo=dt.UTC)
        scenes.append(Scene(folder.name, "source", collection, time, folder.name, extent.geom, tuple(assets)))
    return scenes


@pytest.fixture(scope="module")
def sentinel() -> list[Scene]:
    return scenes_of("sentinel-2-l2a", {"B04": "red", "SCL": "scl"})


@pytest.fixture(scope="module")
def landsat() -> list[Scene]:
    return scenes_of("landsat-8-c1-sr", {"B04": "red", "pixel_qa": "pixel_qa"})


def build(
    scenes: list[Scene], stored: Encoding, quality: str, time: TimeSpec, resolution_m: float = 10
) -> tuple[CubeData, CubeRequest]:
    band, table = which_layer(CLAUSE, quality, quality)
    request = CubeRequest(
        name="source",
        kind="reflectance",
        variable="reflectance",
        bands=("red",),
        size_px=pixels_a_side(SIZE * 10.0, resolution_m),
        resolution_m=resolution_m,
        quality=band,
        quality_table=table,
        mask=CLAUSE,
        time=time,
        periods=periods(SPAN, time),
        stored=stored,
    )
    request = replace(request, steps=steps_needed(request, scenes, CHIPS))
    data = allocate(request, len(CHIPS))
    shard = lay_shards(CHIPS, len(CHIPS))[0]
    for window in shard.windows(10**9):
        fill(data, request, scenes, window)
    order = [shard.chips.index(chip) for chip in CHIPS]
    data.arrays = {name: array[order] for name, array in data.arrays.items()}
    return data, request


def spread(chips: np.ndarray) -> np.ndarray:
    """Chips of dims ``(chip, …, y, x)`` laid onto the ground."""
    top, bottom = (np.concatenate([chips[2 * row], chips[2 * row + 1]], axis=-1) for row in range(2))
    return np.concatenate([top, bottom], axis=-2)


def layer(scene: Scene, band: str, px: int = 2 * SIZE) -> np.ndarray:
    with rasterio.open(scene.asset(band).href) as file:
        pixels: np.ndarray = file.read(1)
    return pixels[:px, :px]


def landsat_clear(qa: np.ndarray) -> np.ndarray:
    """Bits of LaSRC's pixel_qa, one by one: fill, shadow, cloud, cirrus of high confidence, or nothing at all."""
    clear: np.ndarray = ~((qa & 1 > 0) | (qa & 8 > 0) | (qa & 32 > 0) | (qa >> 8 & 3 == 3) | (qa & 63 == 0))
    return clear


def test_one_clause_masks_both_sensors_and_their_numbers_are_those_of_the_files(
    sentinel: list[Scene], landsat: list[Scene]
) -> None:
    every = TimeSpec(series=True)
    data, _ = build(landsat, LANDSAT, "pixel_qa", every)
    red, qa, clear = (spread(data.arrays[name]) for name in ("reflectance", "pixel_qa", "clear_mask"))
    assert (str(red.dtype), str(qa.dtype)) == ("int16", "uint16")
    assert red.shape[0] == len(landsat) == 26
    negative = 0
    for t, scene in enumerate(landsat):
        stored, bits = layer(scene, "red"), layer(scene, "pixel_qa")
        np.testing.assert_array_equal(red[t, 0], np.where(stored == 0, -32768, stored))
        np.testing.assert_array_equal(qa[t], np.where(bits == 0, 1, bits))
        np.testing.assert_array_equal(clear[t], landsat_clear(bits) & (stored != 0))
        negative += int((stored < 0).sum())
    assert negative > 0
    assert not clear[red[:, 0] == -999].any()  # the void of the producer, under a void quality

    data, _ = build(sentinel, SENTINEL, "scl", every)
    red, clear = (spread(data.arrays[name]) for name in ("reflectance", "clear_mask"))
    scl = np.stack([layer(scene, "scl", SIZE).repeat(2, 0).repeat(2, 1) for scene in sentinel])
    seen = [t for t, classes in enumerate(scl) if classes.any()]
    # Chips count their own dates; all see the same ones here.
    for t, date in enumerate(seen):
        stored = layer(sentinel[date], "red")
        np.testing.assert_array_equal(red[t, 0], stored)
        np.testing.assert_array_equal(clear[t], ~np.isin(scl[date], [0, 1, 3, 8, 9, 10]) & (stored != 0))


TIED = 0xFFFF


def majority(numbers: np.ndarray) -> int:
    """The most frequent number that is not void; TIED where two are."""
    found, votes = np.unique(numbers[numbers != 0], return_counts=True)
    if not len(found):
        return 0
    return int(found[votes.argmax()]) if (votes == votes.max()).sum() == 1 else TIED


@pytest.mark.parametrize("resolution_m", [10, 30])
def test_a_landsat_composite_is_the_median_of_clear_stored_numbers(landsat: list[Scene], resolution_m: float) -> None:
    data, request = build(landsat, LANDSAT, "pixel_qa", TimeSpec(composite="yearly"), resolution_m)
    attrs = variables(request)[0].attrs
    found = spread(data.arrays["reflectance"])[:, 0]
    counts = spread(data.arrays["count"])
    k = int(resolution_m // 10)
    for slot, year in enumerate((2017, 2018)):
        values, clear = [], []
        for scene in landsat:
            assert scene.acquired is not None
            if scene.acquired.year != year:
                continue
            stored, qa = layer(scene, "red").astype(float), layer(scene, "pixel_qa")
            if k > 1:
                n = 2 * SIZE // k
                stored = np.floor(stored.reshape(n, k, n, k).mean(axis=(1, 3)) + 0.5)
                blocks = qa.reshape(n, k, n, k).swapaxes(1, 2).reshape(n, n, k * k)
                qa = np.apply_along_axis(majority, -1, blocks)
            values.append(stored)
            clear.append(np.where(qa == TIED, np.nan, landsat_clear(qa)))
        cube, open_ = np.array(values), np.array(clear)
        sure = ~np.isnan(open_).any(axis=0)
        median = np.full(cube.shape[1:], LANDSAT.void)
        for i, j in np.argwhere(sure):
            seen = cube[open_[:, i, j] == 1, i, j]
            assert counts[slot, i, j] == len(seen)
            if len(seen):
                median[i, j] = np.floor(np.median(seen) + 0.5)
        assert sure.mean() > 0.3
        np.testing.assert_array_equal(found[slot][sure], median[sure])
    assert attrs["scale_factor"] == 1e-4


def test_both_sensors_see_the_same_fields(sentinel: list[Scene], landsat: list[Scene]) -> None:
    summer = TimeSpec(composite="seasonal")
    a, request = build(sentinel, SENTINEL, "scl", summer)
    b, _ = build(landsat, LANDSAT, "pixel_qa", summer)
    slot = [period.start.isoformat()[:7] for period in request.periods].index("2018-06")
    s2 = spread(a.arrays["reflectance"])[slot, 0] * SENTINEL.scale
    l8 = spread(b.arrays["reflectance"])[slot, 0] * LANDSAT.scale
    assert np.corrcoef(s2.ravel(), l8.ravel())[0, 1] > 0.6
    assert abs(float(np.median(s2) - np.median(l8))) < 0.03
