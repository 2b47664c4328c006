"""Real Sentinel-2 of Lower Austria, 2018: pixels, classes, clouds and field edges where they belong."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT

from catalog.scene import Scene
from cube.build import CubeData, CubeRequest, allocate, fill, steps_needed, window_px
from cube.mask import MaskSpec
from cube.times import Interval, KeepSpec, TimeSpec, periods
from tiling.grid import Chip
from tiling.shards import Shard, lay_shards

Array = npt.NDArray[Any]

SIZE = 64
CHIPS = tuple(Chip(32633, col, row, SIZE, 10.0) for row in range(8390, 8400) for col in range(826, 836))
SEASON = Interval.parse("2018-04-01/2018-10-01")


def build(time: TimeSpec, scenes: list[Scene], **options: Any) -> tuple[CubeData, Shard]:
    request = CubeRequest(
        name="s2",
        kind="reflectance",
        variable="reflectance",
        bands=("red", "nir"),
        quality="scl",
        size_px=SIZE,
        resolution_m=10,
        time=time,
        periods=periods(SEASON, time),
        **options,
    )
    request = replace(request, steps=steps_needed(request, scenes, CHIPS))
    shard = lay_shards(CHIPS, len(CHIPS))[0]
    data = allocate(request, len(CHIPS))
    for window in shard.windows(window_px(request, scenes)):
        fill(data, request, scenes, window)
    return data, shard


def on_chip(path: str, chip: Chip) -> Array:
    """The file on a chip as GDAL's nearest puts it, 0 outside."""
    grid = chip.geobox
    with (
        rasterio.open(path) as source,
        WarpedVRT(
            source,
            crs="EPSG:32633",
            transform=grid.transform,
            height=SIZE,
            width=SIZE,
            resampling=Resampling.nearest,
            nodata=0,
        ) as warped,
    ):
        return warped.read(1)  # type: ignore[no-any-return]


@pytest.fixture
def series(austria_scenes: list[Scene]) -> tuple[CubeData, Shard]:
    return build(TimeSpec(series=True), austria_scenes)


def test_series_pixels_and_classes_are_those_of_the_files(
    series: tuple[CubeData, Shard], austria_scenes: list[Scene]
) -> None:
    data, shard = series
    by_time = {scene.acquired: scene for scene in austria_scenes}
    compared = 0
    for row in range(0, len(CHIPS), 7):
        for slot, date in enumerate(data.records[row].dates[::5]):
            scene = by_time[date]
            for i, band in enumerate(("red", "nir")):
                expected = on_chip(scene.asset(band).href, shard.chips[row])
                np.testing.assert_array_equal(data.arrays["reflectance"][row, slot * 5, i], expected)
            # SCL starts 10 m above the 10 m bands and ends 10 m below them.
            expected = on_chip(scene.asset("scl").href, shard.chips[row])
            np.testing.assert_array_equal(data.arrays["scl"][row, slot * 5], expected)
            compared += 1
    assert compared > 50


def test_void_stays_void_and_is_never_clear(series: tuple[CubeData, Shard]) -> None:
    data, _ = series
    void = (data.arrays["reflectance"] == 0).any(axis=2)
    assert 0.3 < void[:, 0].mean() < 0.9  # the clip is a rotated region within the chips
    assert not data.arrays["clear_mask"][void].any()
    empty = [record for record in data.records if not record.dates]
    assert empty
    assert all(record.seen == 0 for record in empty)


def test_fully_cloudy_dates_give_no_clear_pixel(series: tuple[CubeData, Shard], austria_scenes: list[Scene]) -> None:
    data, shard = series
    inside = max(range(len(CHIPS)), key=lambda row: int((data.arrays["reflectance"][row, 0, 0] > 0).sum()))
    share = data.arrays["clear"][inside]
    assert len(data.records[inside].dates) == 36
    hidden = 0
    for scene, clear in zip(sorted(austria_scenes, key=lambda scene: str(scene.acquired)), share, strict=True):
        scl = on_chip(scene.asset("scl").href, shard.chips[inside])
        if np.isin(scl, [0, 1, 3, 8, 9, 10]).all():
            assert clear == 0
            hidden += 1
    assert hidden >= 12
    monthly, _ = build(TimeSpec(composite="monthly"), austria_scenes)
    assert monthly.records[inside].dropped["not clear enough"] == hidden
    assert len(monthly.records[inside].dates) == 36 - hidden


def test_composites_are_void_exactly_where_nothing_was_clear(austria_scenes: list[Scene]) -> None:
    data, _ = build(TimeSpec(composite="monthly"), austria_scenes, mask=MaskSpec(dilate_m=60))
    red, count = data.arrays["reflectance"][:, :, 0], data.arrays["count"]
    np.testing.assert_array_equal(red > 0, count > 0)
    np.testing.assert_allclose(data.arrays["clear"], (count > 0).mean(axis=(2, 3)))
    for record, clear in zip(data.records, data.arrays["clear"], strict=True):
        assert record.clear == pytest.approx(clear.mean())


def test_field_edges_lie_on_the_right_pixels(austria: Path, austria_scenes: list[Scene]) -> None:
    fields = geopandas.read_file(austria / "fields.geojson").to_crs(32633).geometry.buffer(-10)
    corner = rasterio.Affine(10, 0, 826 * 640, 0, -10, 8400 * 640)
    shapes = [(field, i) for i, field in enumerate(fields, 1) if not field.is_empty]
    ids = rasterize(shapes, (640, 640), transform=corner)

    def best_shift(time: TimeSpec) -> tuple[dict[tuple[int, int], float], tuple[int, int]]:
        """Spread of NDVI within fields, by how many pixels down and right the fields are moved."""
        data, shard = build(time, austria_scenes, keep=KeepSpec(min_clear=0.3))
        red, nir = np.zeros((2, 640, 640))
        for chip, pixels in zip(shard.chips, data.arrays["reflectance"][:, -1], strict=True):
            y, x = (8399 - chip.row) * SIZE, (chip.col - 826) * SIZE
            red[y : y + SIZE, x : x + SIZE], nir[y : y + SIZE, x : x + SIZE] = pixels
        total = red + nir
        ndvi = np.divide(nir - red, total, out=np.full(red.shape, np.nan), where=total > 0)
        found = {}
        for shift in np.ndindex(5, 5):
            moved = np.roll(ids, (shift[0] - 2, shift[1] - 2), (0, 1))
            spread = [np.nanstd(ndvi[moved == i]) for i in range(1, len(fields) + 1) if (ids == i).sum() > 20]
            found[shift[0] - 2, shift[1] - 2] = float(np.mean(spread))
        return found, min(found, key=lambda shift: found[shift])

    # The archive of 2018 is itself off by up to one pixel from date to date (read from the files, without us, most
    # clear dates fit best 10 m to the south or east). 4 August sits right, and so must our chips of it.
    _, best = best_shift(TimeSpec(single="nearest", date=dt.date(2018, 8, 4)))
    assert best == (0, 0)
    spread, best = best_shift(TimeSpec(composite="monthly"))
    assert max(map(abs, best)) <= 1
    assert all(spread[0, 0] < value for shift, value in spread.items() if max(map(abs, shift)) == 2)
