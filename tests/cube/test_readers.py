"""Readers: equal pixels, equal to GDAL's, the same wherever the window lies, and honest about bad files."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from catalog.scene import Scene
from cube.load import READERS
from cube.warp import read_onto
from curate.errors import ReadError

Array = npt.NDArray[Any]
SceneFactory = Callable[..., Scene]
GridFactory = Callable[..., GeoBox]

NAMES = sorted(READERS)


def positions(shape: tuple[int, int], start: int = 1) -> Array:
    """Values that tell where they come from: no two equal."""
    return np.arange(start, start + shape[0] * shape[1], dtype=np.uint16).reshape(shape)


def speckled(shape: tuple[int, int], seed: int = 0, void: float = 0.1) -> Array:
    """Values without order, with holes."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 10_000, shape).astype(np.uint16)
    values[rng.random(shape) < void] = 0
    return values


def read(name: str, steps: Any, bands: list[str], grid: GeoBox, **options: Any) -> Array:
    options = {"resampling": "nearest", "dtype": "uint16", "fill": 0, **options}
    cube = READERS[name](steps, bands, grid, **options)
    assert cube.dims == ("time", "band", "y", "x")
    assert cube.shape == (len(steps), len(bands), *grid.shape)
    assert cube.dtype == options["dtype"]
    assert list(cube.band.values) == bands
    assert list(cube.time.values) == list(range(len(steps)))
    assert not cube.attrs
    return cube.to_numpy()


def by_gdal(scene: Scene, band: str, grid: GeoBox, method: str) -> Array:
    """What GDAL's warper makes of a file when its shortcuts are taken away: no guessed filter, little interpolation."""
    exact = {"XSCALE": 1, "YSCALE": 1} if method in ("nearest", "bilinear", "cubic") else {}
    with (
        rasterio.open(scene.asset(band).href) as source,
        WarpedVRT(
            source,
            crs=str(grid.crs),
            transform=grid.transform,
            height=grid.shape[0],
            width=grid.shape[1],
            resampling=Resampling[method],
            nodata=0,
            tolerance=0.001,
            **exact,
        ) as warped,
    ):
        return warped.read(1)  # type: ignore[no-any-return]


GRIDS: dict[str, dict[str, Any]] = {
    "on the file's pixels": {"x0": 500_100, "y0": 5_399_900},
    "beyond the file": {"x0": 499_800, "y0": 5_400_200},
    "half a pixel off": {"x0": 500_105, "y0": 5_399_905},
    "twice as coarse": {"x0": 500_100, "y0": 5_399_900, "shape": (30, 30), "resolution": 20},
    "finer by no whole number": {"x0": 500_101, "y0": 5_399_899, "resolution": 6},
}


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic", "average", "mode"])
@pytest.mark.parametrize("where", GRIDS)
def test_readers_agree_with_gdal_pixel_by_pixel(
    where: str, method: str, make_scene: SceneFactory, make_grid: GridFactory
) -> None:
    scene = make_scene("a", {"red": speckled((96, 96)), "swir": speckled((48, 48))}, resolution={"red": 10, "swir": 20})
    grid = make_grid(**GRIDS[where])
    for name in NAMES:
        for band in ("red", "swir"):
            found = read(name, [[scene]], [band], grid, resampling=method)[0, 0]
            theirs = by_gdal(scene, band, grid, method)
            if method == "bilinear" and grid.resolution.x == 6:
                # Weights in tenths: GDAL rounds some halves down, ours all up.
                assert np.isin(found.astype(int) - theirs, [0, 1]).all()
                theirs = found
            np.testing.assert_array_equal(found, theirs, err_msg=f"{name} {band}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic", "average", "mode"])
def test_no_method_changes_pixels_where_the_grids_agree(
    name: str, method: str, make_scene: SceneFactory, make_grid: GridFactory
) -> None:
    values = positions((96, 96))
    grid = make_grid(500_100, 5_399_900)
    found = read(name, [[make_scene("a", {"red": values})]], ["red"], grid, resampling=method)
    np.testing.assert_array_equal(found[0, 0], values[10:74, 10:74])


@pytest.fixture
def over_the_zone_border(make_scene: SceneFactory, make_grid: GridFactory) -> tuple[Scene, GeoBox]:
    """A scene in zone 32 and a grid in zone 33 on the same ground."""
    scene = make_scene("z", {"red": speckled((160, 160), void=0.02)}, epsg=32632, x0=940_000)
    x, y = Transformer.from_crs(32632, 32633, always_xy=True).transform(940_800, 5_399_200)
    return scene, make_grid(round(x, -1) - 400, round(y, -1) + 400, shape=(80, 80))


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_readers_agree_across_a_zone_border(method: str, over_the_zone_border: tuple[Scene, GeoBox]) -> None:
    scene, grid = over_the_zone_border
    first, *others = (read(name, [[scene]], ["red"], grid, resampling=method) for name in NAMES)
    for other in others:
        np.testing.assert_array_equal(other, first)
    assert (first > 0).mean() > 0.9
    # GDAL interpolates coordinates, here with up to 0.001 pixel of error. Neighbours of this scene differ by up to
    # 10,000, so that moves a bilinear value by up to 20, and a nearest pixel in 2 of 6400 cases; ours is exact (below).
    difference = np.abs(first[0, 0].astype(int) - by_gdal(scene, "red", grid, method))
    if method == "nearest":
        assert (difference > 0).mean() < 0.001
    else:
        assert np.percentile(difference, 99.9) <= 20


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_a_pixel_across_a_zone_border_is_the_same_in_every_window(
    method: str, over_the_zone_border: tuple[Scene, GeoBox]
) -> None:
    scene, grid = over_the_zone_border
    whole = read("rasterio", [[scene]], ["red"], grid, resampling=method)[0, 0]
    for y, x in [(0, 0), (13, 37), (50, 3)]:
        part = read("rasterio", [[scene]], ["red"], grid[y : y + 30, x : x + 17], resampling=method)[0, 0]
        np.testing.assert_array_equal(part, whole[y : y + 30, x : x + 17])


def test_nearest_across_a_zone_border_is_the_pixel_that_holds_the_centre(
    over_the_zone_border: tuple[Scene, GeoBox],
) -> None:
    scene, grid = over_the_zone_border
    y, x = np.mgrid[: grid.shape[0], : grid.shape[1]] + 0.5
    t = grid.transform
    east, north = Transformer.from_crs(32633, 32632, always_xy=True).transform(t.c + x * t.a, t.f + y * t.e)
    with rasterio.open(scene.asset("red").href) as source:
        values = source.read(1)
    exact = values[((5_400_000 - north) / 10).astype(int), ((east - 940_000) / 10).astype(int)]
    np.testing.assert_array_equal(read("rasterio", [[scene]], ["red"], grid)[0, 0], exact)


def test_an_elevation_in_degrees_is_read_onto_metres(make_scene: SceneFactory, make_grid: GridFactory) -> None:
    step = 1 / 3600
    heights = (np.arange(120 * 120, dtype=np.float32) / 7).reshape(120, 120)
    grid = make_grid(500_000, 5_400_000, shape=(64, 64))
    west, north = Transformer.from_crs(32633, 4326, always_xy=True).transform(499_700, 5_400_300)
    scene = make_scene(
        "dem", {"elevation": heights}, epsg=4326, x0=west, y0=north, resolution=step, nodata=None, day=None
    )
    options = {"resampling": "bilinear", "dtype": "float32", "fill": float("nan")}
    first, *others = (read(name, [[scene]], ["elevation"], grid, **options) for name in NAMES)
    assert np.isfinite(first).all()
    for other in others:
        np.testing.assert_array_equal(other, first)
    # Heights grow by 1/7 a column and 120/7 a row: the value tells the place to a thousandth of a pixel.
    t = grid.transform
    lon, lat = Transformer.from_crs(32633, 4326, always_xy=True).transform(t.c + 0.5 * t.a, t.f + 0.5 * t.e)
    expected = ((lon - west) / step - 0.5 + 120 * ((north - lat) / step - 0.5)) / 7
    assert first[0, 0, 0, 0] == pytest.approx(expected, abs=0.02)


@given(st.integers(-60, 140), st.integers(-60, 140), st.sampled_from([2, 3]), st.sampled_from(["nearest", "bilinear"]))
def test_finer_grids_at_any_offset_follow_gdal(dx: int, dy: int, ratio: int, method: str) -> None:
    values = speckled((40, 40), seed=dx % 7)
    transform = Affine(10 * ratio, 0, 500_000, 0, -10 * ratio, 5_400_000)
    grid = GeoBox((32, 32), Affine(10, 0, 500_000 + 10 * dx, 0, -10, 5_400_000 - 10 * dy), "EPSG:32633")
    profile = {"height": 40, "width": 40, "count": 1, "dtype": "uint16", "crs": "EPSG:32633", "transform": transform}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", nodata=0, **profile) as file:
            file.write(values, 1)
        with memory.open() as source:
            ours = read_onto(source, 1, None, grid, resampling=method, dtype="uint16", fill=0)
            with WarpedVRT(
                source,
                crs="EPSG:32633",
                transform=grid.transform,
                height=32,
                width=32,
                resampling=Resampling[method],
                XSCALE=1,
                YSCALE=1,
            ) as warped:
                theirs = warped.read(1)
    if ratio == 2 or method == "nearest":
        np.testing.assert_array_equal(ours, theirs)
    else:  # weights in thirds: GDAL rounds some halves down
        np.testing.assert_array_equal(ours == 0, theirs == 0)
        assert np.isin(ours.astype(int) - theirs, [0, 1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_first_scene_with_a_valid_pixel_wins(name: str, make_scene: SceneFactory, make_grid: GridFactory) -> None:
    left, right = positions((96, 96)), positions((96, 96), 20_000)
    left[:, 60:] = 0  # the edge of a swath
    a, b = make_scene("a", {"red": left}), make_scene("b", {"red": right}, x0=500_300)
    grid = make_grid(500_000, 5_400_000, shape=(96, 140))
    first = read(name, [[a, b], [b, a]], ["red"], grid)[:, 0]
    expected = np.zeros((2, 96, 140), np.uint16)
    expected[:, :, 30:126] = right
    expected[0, :, :60] = left[:, :60]
    expected[1, :, :30] = left[:, :30]
    np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize("name", NAMES)
def test_bands_and_steps_that_no_scene_has_are_void(
    name: str, make_scene: SceneFactory, make_grid: GridFactory
) -> None:
    a = make_scene("a", {"red": positions((64, 64))})
    b = make_scene("b", {"red": positions((64, 64)), "nir": positions((64, 64), 9000)})
    found = read(name, [[], [a], [a, b], []], ["nir", "red"], make_grid())
    assert [[bool(band.any()) for band in step] for step in found] == [
        [False, False],
        [False, True],
        [True, True],
        [False, False],
    ]
    assert not read(name, [[], []], ["nir"], make_grid()).any()
    assert np.isnan(read(name, [[a]], ["vv"], make_grid(), dtype="float32", fill=float("nan"))).all()


@pytest.mark.parametrize("name", NAMES)
def test_void_is_the_files_own_or_else_the_assets(name: str, make_scene: SceneFactory, make_grid: GridFactory) -> None:
    power = np.full((64, 64), 0.25, np.float32)
    power[:8] = -32768
    for in_file in (True, False):
        scene = make_scene(f"s1{in_file}", {"vv": power}, nodata=-32768, file_nodata=in_file)
        grid = make_grid(500_005, 5_399_995, shape=(40, 40))
        found = read(name, [[scene]], ["vv"], grid, resampling="bilinear", dtype="float32", fill=float("nan"))
        assert np.isnan(found[0, 0, :7]).all()
        assert (found[0, 0, 8:] == 0.25).all()


@pytest.mark.parametrize("name", NAMES)
def test_any_layer_of_a_file_is_read(name: str, make_scene: SceneFactory, make_grid: GridFactory) -> None:
    layers = np.stack([positions((64, 64), start) for start in (1, 5000, 9000)])
    scene = make_scene("naip", {"image": layers})
    asset = scene.asset("image")
    bands = tuple(replace(asset, band=band, layer=i) for i, band in enumerate(("red", "green", "blue"), 1))
    found = read(name, [[replace(scene, assets=bands)]], ["blue", "red"], make_grid())
    np.testing.assert_array_equal(found[0], layers[[2, 0]])


@pytest.mark.parametrize("name", ["odc-stac", "stackstac"])
def test_lazy_blocks_hold_the_same_pixels(name: str, make_scene: SceneFactory, make_grid: GridFactory) -> None:
    a, b = make_scene("a", {"red": speckled((96, 96))}), make_scene("b", {"red": speckled((96, 96), 1)}, x0=500_300)
    grid = make_grid(500_000, 5_400_000, shape=(90, 120))
    options = {"resampling": "bilinear", "dtype": "uint16", "fill": 0}
    lazy = READERS[name]([[a, b], [b]], ["red"], grid, chunks=50, **options)  # type: ignore[arg-type]
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy.to_numpy(), read("rasterio", [[a, b], [b]], ["red"], grid, **options))


# Bad files


def _missing(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>Please log in</body></html>")


def _text(path: Path) -> None:
    path.write_text("not a raster")


def _cut_early(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _cut_late(path: Path) -> None:
    """The header and most blocks are there, the last ones are not."""
    path.write_bytes(path.read_bytes()[:-3000])


BAD = {
    "missing": (_missing, "does not exist"),
    "empty": (_empty, "is empty"),
    "a web page": (_html, "web page"),
    "text": (_text, "not a raster"),
    "cut in its header": (_cut_early, "raster"),
    "cut in its last blocks": (_cut_late, "damaged or cut off"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", BAD)
def test_a_bad_file_is_an_error_that_names_it(
    how: str, name: str, make_scene: SceneFactory, make_grid: GridFactory
) -> None:
    spoil, says = BAD[how]
    good = make_scene("good", {"red": speckled((256, 256)), "nir": speckled((256, 256))})
    bad = make_scene("bad", {"red": speckled((256, 256)), "nir": speckled((256, 256))}, x0=502_000)
    spoil(Path(bad.asset("nir").href))
    with pytest.raises(ReadError, match=says) as caught:
        read(name, [[good], [bad, good]], ["red", "nir"], make_grid(502_000, 5_400_000, shape=(256, 256)))
    assert (caught.value.scene, caught.value.band) == ("bad", "nir")
    assert bad.asset("nir").href in caught.value.why


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_cut_late_still_gives_the_blocks_it_has(
    name: str, make_scene: SceneFactory, make_grid: GridFactory
) -> None:
    values = speckled((256, 256))
    scene = make_scene("a", {"red": values})
    _cut_late(Path(scene.asset("red").href))
    np.testing.assert_array_equal(read(name, [[scene]], ["red"], make_grid())[0, 0], values[:64, :64])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_without_the_layer_is_an_error_that_says_so(
    name: str, make_scene: SceneFactory, make_grid: GridFactory
) -> None:
    scene = make_scene("a", {"red": speckled((64, 64))})
    scene = replace(scene, assets=(replace(scene.asset("red"), layer=4),))
    with pytest.raises(ReadError, match="has 1 layers, wanted layer 4"):
        read(name, [[scene]], ["red"], make_grid())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_without_a_place_is_an_error(
    name: str, make_scene: SceneFactory, make_grid: GridFactory, tmp_path: Path
) -> None:
    scene = make_scene("a", {"red": speckled((64, 64))})
    nowhere = tmp_path / "nowhere.tif"
    with rasterio.open(scene.asset("red").href) as file:
        profile = file.profile | {"crs": None, "transform": Affine.scale(10)}
        with rasterio.open(nowhere, "w", **profile) as copy:
            copy.write(file.read())
    shutil.move(nowhere, scene.asset("red").href)
    with pytest.raises(ReadError, match="coordinate reference system"):
        read(name, [[scene]], ["red"], make_grid())


def test_a_signature_is_not_told_to_the_world(make_grid: GridFactory, make_scene: SceneFactory) -> None:
    scene = make_scene("a", {"red": speckled((8, 8))})
    url = "http://127.0.0.1:9/red.tif?sig=secret"
    scene = replace(scene, assets=(replace(scene.assets[0], href=url),))
    with pytest.raises(ReadError) as caught:
        read("rasterio", [[scene]], ["red"], make_grid())
    assert "http://127.0.0.1:9/red.tif" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_token_service_that_is_down_is_worth_another_try(
    name: str, make_scene: SceneFactory, make_grid: GridFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(href: str, scheme: str | None) -> str:
        raise OSError("503 Server Error")

    monkeypatch.setattr("catalog.access.sign", no_answer)
    scene = replace(make_scene("a", {"red": positions((64, 64))}), signing="planetary-computer")
    with pytest.raises(ReadError, match=r"token service of planetary-computer gives none.*503.*again later") as caught:
        read(name, [[scene]], ["red"], make_grid())
    assert caught.value.retryable
    assert (caught.value.scene, caught.value.band) == ("a", "red")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_amplitudes_that_somebody_put_on_a_grid_are_not_called_damaged(
    make_scene: SceneFactory, make_grid: GridFactory
) -> None:
    scene = replace(make_scene("a", {"vv": positions((64, 64))}), collection="sentinel-1-grd")
    with pytest.raises(ReadError) as caught:
        read("rasterio", [[scene]], ["vv"], make_grid(), resampling="bilinear", dtype="float32", fill=np.nan)
    assert "is whole, but it has a grid" in caught.value.why
    assert "describe it as a collection of your own" in caught.value.why
    assert "damaged" not in caught.value.why
