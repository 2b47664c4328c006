"""Files with control points and no grid land where their points say, to half a pixel, and never by a plane."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.control import GroundControlPoint

from catalog.scene import Asset, Scene
from cube.build import CubeRequest, allocate, fill
from cube.gcps import CUBIC, SPLINE, Point, place
from cube.load import placed, read_rasterio
from cube.times import Interval, TimeSpec
from curate.errors import ReadError
from tiling.grid import Chip
from tiling.shards import lay_shards

Array = npt.NDArray[Any]
LON, LAT, HEADING, STEP_KM = 17.5, 48.5, math.radians(-12), 0.01


def swath(lon: Array, lat: Array) -> tuple[Array, Array]:
    """Column and row of places in a made-up pass: a ball seen from a track to its west, 250 km wide at 10 m."""
    turn, up, up0 = np.radians(lon - LON), np.radians(lat), math.radians(LAT)
    east = np.cos(up) * np.sin(turn)
    north = np.sin(up) * math.cos(up0) - np.cos(up) * math.sin(up0) * np.cos(turn)
    above = np.sin(up) * math.sin(up0) + np.cos(up) * math.cos(up0) * np.cos(turn)
    across = 6371 * np.arcsin(east * math.cos(HEADING) - north * math.sin(HEADING))
    along = 6371 * np.arctan2(east * math.sin(HEADING) + north * math.cos(HEADING), above)
    # Ground range is taken from slant range by a polynomial, which leaves a gentle wave.
    return (across + 125 + 6 * np.sin(across / 300)) / STEP_KM, (85 - along) / STEP_KM


def control_points(bump_px: float = 0.0) -> tuple[Point, ...]:
    """21 by 10 points, as in a Sentinel-1 product; hills move them by up to so many pixels."""
    lon, lat = np.meshgrid(np.linspace(15.8, 19.2, 21), np.linspace(49.4, 47.6, 10))
    col, row = swath(lon, lat)
    col = col + bump(lon, lat, bump_px)
    return tuple(zip(*(axis.ravel().tolist() for axis in (col, row, lon, lat)), strict=True))


def bump(lon: Array, lat: Array, px: float) -> Array:
    """A range of hills: too narrow for a third order."""
    return px * np.exp(-(((lon - 17.2) / 0.5) ** 2) - ((lat - 48.6) / 0.5) ** 2)


@pytest.mark.parametrize(("bump_px", "method"), [(0.0, CUBIC), (12.0, SPLINE)])
def test_places_are_found_to_half_a_pixel(bump_px: float, method: str) -> None:
    points = control_points(bump_px)
    found = place(points)
    assert found.method == method
    lon, lat = np.meshgrid(np.linspace(16, 19, 150), np.linspace(49.2, 47.8, 150))
    col, row = found.pixels(lon, lat)
    true_col, true_row = swath(lon, lat)
    error = np.hypot(col - true_col - bump(lon, lat, bump_px), row - true_row)
    assert error.max() < 0.5  # measured: third order 0.06, spline 0.30
    table = np.array(points)
    plane = np.column_stack([np.ones(len(table)), table[:, 2:]])
    missed = plane @ np.linalg.lstsq(plane, table[:, :2], rcond=None)[0] - table[:, :2]
    assert np.hypot(*missed.T).max() > 200


def test_the_error_without_a_point_is_what_leaving_it_out_gives() -> None:
    rng = np.random.default_rng(5)
    for bump_px in (0.0, 12.0):
        points = tuple((c + rng.normal(0, 0.3), r + rng.normal(0, 0.3), x, y) for c, r, x, y in control_points(bump_px))
        whole = place(points)
        errors = []
        for index, (col, row, x, y) in enumerate(points):
            rest = place(points[:index] + points[index + 1 :])
            u, v = rest.pixels(np.array([x]), np.array([y]))
            if rest.method == whole.method:
                errors.append(math.hypot(float(u[0]) - col, float(v[0]) - row))
            if len(errors) == 10:
                break
        assert len(errors) == 10
        assert max(errors) <= whole.worst_px * 1.02
        assert np.mean(errors) == pytest.approx(whole.rms_px, rel=0.9)


@pytest.mark.parametrize(
    ("points", "why"),
    [
        (control_points()[:12], "12 control points, wanted 20"),
        (tuple((float(i), float(i), 17 + i / 100, 48.0) for i in range(40)), "on one line"),
        (tuple((float(i), float(i), 17 + i / 100, 48 + i / 100) for i in range(40)), "line"),
        (control_points()[:40] * 2, "twice in one place|line"),
    ],
)
def test_points_that_do_not_place_a_file_are_refused(points: tuple[Point, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        place(points)


def test_points_that_contradict_each_other_are_refused() -> None:
    rng = np.random.default_rng(2)
    points = tuple((c + rng.normal(0, 80), r, x, y) for c, r, x, y in control_points())
    with pytest.raises(ValueError, match="contradict each other"):
        place(points)


@pytest.fixture
def grd(tmp_path: Path) -> Callable[..., Scene]:
    """A piece of the made-up pass as a file with control points alone; its item's transform is invented."""

    def make(values: Array, col0: int, row0: int, collection: str = "sentinel-1-grd") -> Scene:
        path = tmp_path / "iw-vv.tiff"
        points = [
            GroundControlPoint(row=row - row0, col=col - col0, x=lon, y=lat) for col, row, lon, lat in control_points()
        ]
        with rasterio.open(
            path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype=values.dtype,
            gcps=points, crs="EPSG:4326", nodata=0,
        ) as file:  # fmt: skip
            file.write(values, 1)
        asset = Asset("vv", "vv", str(path), 4326, (1e-4, 0, 10.0, 0, -1e-4, 50.0), values.shape, str(values.dtype), 0)
        return Scene("grd", "s1", collection, None, "grd", None, (asset,), orbit="ascending")  # type: ignore[arg-type]

    return make


def _on_ground(grid: GeoBox) -> tuple[Array, Array]:
    """Column and row in the pass of each pixel centre of a grid."""
    x = grid.transform.c + (np.arange(grid.shape[1]) + 0.5) * grid.transform.a
    y = grid.transform.f + (np.arange(grid.shape[0]) + 0.5) * grid.transform.e
    lon, lat = Transformer.from_crs(str(grid.crs), "EPSG:4326", always_xy=True).transform(*np.meshgrid(x, y))
    return swath(lon, lat)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_file_with_control_points_lands_to_half_a_pixel(
    grd: Callable[..., Scene], make_grid: Callable[..., GeoBox], axis: int
) -> None:
    grid = make_grid(x0=690_000, y0=5_360_000, shape=(96, 96))
    truth = _on_ground(grid)
    col0, row0 = (int(edge.min()) - 20 for edge in truth)
    size = int(max(np.ptp(edge) for edge in truth)) + 40
    # Amplitudes whose square is the column, or the row.
    place_px = np.arange(size) + 0.5 + 1000
    values = np.broadcast_to(np.rint(np.sqrt(place_px) * 1900) if axis == 0 else 0, (size, size))
    if axis == 1:
        values = np.broadcast_to(np.rint(np.sqrt(place_px) * 1900)[:, None], (size, size))
    scene = grd(np.ascontiguousarray(values).astype(np.uint16), col0, row0)
    power = read_rasterio([[scene]], ["vv"], grid, resampling="bilinear", dtype="float32", fill=np.nan)
    found = power.to_numpy()[0, 0] / 1900**2 - 1000
    error = np.abs(found - (truth[axis] - (col0, row0)[axis]))
    assert error.max() < 0.5  # measured: 0.03
    # Part by part it is the same.
    for y, x in ((0, 0), (32, 64)):
        part = read_rasterio(
            [[scene]], ["vv"], grid[y : y + 32, x : x + 32], resampling="bilinear", dtype="float32", fill=np.nan
        )
        np.testing.assert_allclose(part[0, 0], power[0, 0, y : y + 32, x : x + 32], rtol=1e-6)
    coarse = read_rasterio(
        [[scene]], ["vv"], grid.zoom_out(3), resampling="average", dtype="float32", fill=np.nan
    ).to_numpy()[0, 0]
    blocks = power.to_numpy()[0, 0].reshape(32, 3, 32, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse, blocks, rtol=1e-5)


def test_zeros_of_a_file_with_control_points_are_void_and_have_no_weight(
    grd: Callable[..., Scene], make_grid: Callable[..., GeoBox]
) -> None:
    grid = make_grid(x0=690_000, y0=5_360_000, shape=(64, 64))
    col, row = _on_ground(grid)
    col0, row0 = int(col.min()) - 20, int(row.min()) - 20
    values = np.full((160, 160), 300, np.uint16)
    values[:, : int(col.mean()) - col0] = 0
    scene = grd(values, col0, row0)
    power = read_rasterio([[scene]], ["vv"], grid, resampling="bilinear", dtype="float32", fill=np.nan).to_numpy()[0, 0]
    assert set(np.unique(power[~np.isnan(power)])) == {90_000.0}
    known = col > int(col.mean())
    assert (np.isnan(power) == ~known).mean() > 0.99


def test_how_a_file_was_placed_is_told(grd: Callable[..., Scene]) -> None:
    told = placed(grd(np.ones((64, 64), np.uint16), 0, 0), "vv")
    assert told is not None
    assert told.startswith("third order through 210 control points")
    assert "px rms" in told


@pytest.mark.parametrize("resolution", [10.0, 20.0])
def test_chips_of_a_scene_with_control_points_say_how_it_was_placed(
    grd: Callable[..., Scene], resolution: float
) -> None:
    size = 32
    # The item of such a scene has no grid to tell; the catalog gives the identity and the CRS of the points.
    chips = [Chip(32633, int(690_000 / size / resolution), int(5_360_000 / size / resolution), size, resolution)]
    shard = lay_shards(chips, 1)[0]
    window = shard.windows(10**9)[0]
    col, row = _on_ground(window.geobox)
    values = np.random.default_rng(0).integers(100, 400, (120, 120)).astype(np.uint16)
    scene = grd(values, int(col.min()) - 20, int(row.min()) - 20)
    lon, lat = Transformer.from_crs(32633, 4326, always_xy=True).transform(*chips[0].bounds[:2])
    asset = replace(scene.assets[0], transform=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    scene = replace(
        scene,
        acquired=dt.datetime(2020, 1, 5, tzinfo=dt.UTC),
        footprint=shapely.Point(lon, lat).buffer(0.1),
        assets=(asset,),
    )
    request = CubeRequest(
        "s1", "backscatter", "backscatter", ("vv",), size, resolution, time=TimeSpec(series=True),
        periods=(Interval.parse("2020-01-01/2021-01-01"),), amplitude=True,
    )  # fmt: skip
    data = allocate(request, 1)
    fill(data, request, [scene], window)
    power = data.arrays["backscatter"][0, 0, 0]
    seen = ~np.isnan(power)
    assert seen.mean() > 0.99
    assert power[seen].mean() == pytest.approx(np.mean(values.astype(float) ** 2), rel=0.1)
    # Averaged where chips are coarser than the file, so that speckle goes.
    assert (power[seen].std() < 0.5 * np.std(values.astype(float) ** 2)) == (resolution == 20)
    assert data.records[0].placed == {"grd": placed(scene, "vv")}


def test_amplitudes_on_a_grid_are_refused(make_scene: Callable[..., Scene], make_grid: Callable[..., GeoBox]) -> None:
    scene = replace(make_scene("a", {"vv": np.ones((64, 64), np.uint16)}), collection="sentinel-1-grd")
    with pytest.raises(ReadError, match="only in files with ground control points"):
        read_rasterio([[scene]], ["vv"], make_grid(), resampling="bilinear", dtype="float32", fill=np.nan)
