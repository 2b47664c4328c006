"""Measured bands keep the numbers of their files, whatever dtype, scale, offset and void, and void is never a value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from catalog.collections import collection, collection_names
from catalog.scene import Asset, Scene
from cube.build import CubeData, CubeRequest, allocate, fill, steps_needed, variables
from cube.composite import fold
from cube.encoding import RANGES, REFLECTANCE, Encoding, check_types, encoding_for, encoding_of, one_encoding
from cube.mask import MaskSpec, which_layer
from cube.radiometry import harmonise
from cube.times import Interval, TimeSpec, periods
from curate.errors import CatalogError
from tiling.grid import Chip
from tiling.shards import lay_shards

SceneFactory = Callable[..., Scene]

SIZE = 16
YEAR = Interval.parse("2020-01-01/2021-01-01")
CHIP = Chip(32633, 3125, 33749, SIZE, 10.0)

HLS = encoding_for("int16", -9999, scale=1e-4)
LANDSAT = encoding_for("uint16", 0, scale=2.75e-05, offset=-0.2)
THERMAL = encoding_for("uint16", 0, scale=0.00341802, offset=149.0, units="K")
AERIAL = encoding_for("uint8", None)
SIGNED = encoding_for("int16", 0, scale=1e-4)
FLOAT = encoding_for("float32", -3.4e38)


def build(encoding: Encoding, time: TimeSpec, scenes: Sequence[Scene], **options: Any) -> tuple[CubeData, CubeRequest]:
    request = CubeRequest(
        name="source",
        kind="reflectance",
        variable="reflectance",
        bands=("red",),
        size_px=SIZE,
        resolution_m=10,
        time=time,
        periods=periods(YEAR, time),
        stored=encoding,
        **options,
    )
    request = replace(request, steps=steps_needed(request, scenes, [CHIP]))
    data = allocate(request, 1)
    for window in lay_shards([CHIP], 1)[0].windows(10**9):
        fill(data, request, scenes, window)
    return data, request


# Which type and void


def test_the_void_is_that_of_the_file_where_it_can_be_no_measurement() -> None:
    assert (HLS.dtype, HLS.void) == ("int16", -9999)
    assert (LANDSAT.dtype, LANDSAT.void) == ("uint16", 0)
    assert (FLOAT.dtype, math.isnan(FLOAT.void)) == ("float32", True)
    assert encoding_for("uint16", 0, scale=1e-4) == REFLECTANCE
    # 0 lies between -1 and 1: interpolating would hit it.
    assert (SIGNED.dtype, SIGNED.void) == ("int16", -32768)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_without_a_void_in_the_file_the_type_grows_to_have_one(dtype: str) -> None:
    found = encoding_for(dtype, None)
    low, high = RANGES[dtype]
    least, most = RANGES[found.dtype]
    assert least <= found.void < low
    assert high <= most
    assert encoding_for(dtype, math.nan) == found == encoding_for(dtype, 1e9)


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(ValueError, match="describe which value is void"):
        encoding_for("int32", None)
    with pytest.raises(ValueError, match="numbers of type complex64"):
        encoding_for("complex64", None)
    with pytest.raises(ValueError, match="stored as float32, not int16"):
        CubeRequest("s1", "backscatter", "backscatter", ("vv",), 16, 10, stored=HLS)


def test_bands_of_different_scales_do_not_share_a_variable() -> None:
    assert one_encoding("l8", [("red", LANDSAT), ("blue", LANDSAT)]) == LANDSAT
    assert one_encoding("s", [("a", FLOAT), ("b", encoding_for("float32", None))]).dtype == "float32"
    with pytest.raises(ValueError, match=r"'red' \(uint16, scale 2.75e-05, .* 'lwir11' .* make two sources"):
        one_encoding("l8", [("red", LANDSAT), ("lwir11", THERMAL)])


@pytest.mark.parametrize(
    ("name", "bands", "expected"),
    [
        ("sentinel-2-l2a", ["red", "nir"], REFLECTANCE),
        ("landsat-c2-l2", ["red", "nir08"], LANDSAT),
        ("landsat-c2-l2", ["lwir11"], THERMAL),
        ("hls2-s30", ["red"], HLS),
        ("naip", ["red", "nir"], AERIAL),
    ],
)
def test_every_collection_has_its_encoding(name: str, bands: list[str], expected: Encoding) -> None:
    table = collection(name)
    assert encoding_of("source", [table.bands[band] for band in bands]) == expected


def test_a_quality_layer_of_a_collection_has_a_table() -> None:
    for name in collection_names():
        table = collection(name)
        if table.quality is not None:
            assert which_layer(MaskSpec(), table.quality, table.quality_table)[1] is not None


def test_the_attributes_say_how_a_number_becomes_physical() -> None:
    def attrs(encoding: Encoding | None, variable: str = "reflectance") -> dict[str, Any]:
        request = CubeRequest("s", "reflectance", variable, ("red",), SIZE, 10, time=TimeSpec(series=True))
        main = variables(replace(request, stored=encoding))[0]
        return {**main.attrs, "dtype": main.dtype, "fill": main.fill}

    landsat = attrs(LANDSAT)
    assert (landsat["scale_factor"], landsat["add_offset"], landsat["fill"]) == (2.75e-05, -0.2, 0)
    thermal = attrs(THERMAL, "temperature")
    assert (thermal["units"], thermal["add_offset"], thermal["long_name"]) == ("K", 149.0, "temperature")
    assert thermal["comment"] == "numbers as in the files"
    assert "add_offset" not in attrs(HLS)
    assert "scale_factor" not in attrs(AERIAL)
    # Sentinel-2 said in full is Sentinel-2 by default.
    assert attrs(encoding_for("uint16", 0, scale=1e-4)) == attrs(None)


# Pixels


@pytest.mark.parametrize(
    ("encoding", "dtype", "nodata", "values"),
    [
        (HLS, "int16", -9999, [-2000, -1, 0, 1, 16000]),
        (LANDSAT, "uint16", 0, [1, 7273, 43636, 65535]),
        (AERIAL, "uint8", None, [0, 1, 254, 255]),
        (SIGNED, "int16", 0, [-536, -1, 1, 16000]),
        (FLOAT, "float32", -9999.0, [-0.05, 0.0, 0.3, 1.2]),
        (encoding_for("uint16", None), "uint16", None, [0, 1, 65535]),
    ],
    ids=["hls", "landsat", "aerial", "signed", "float", "uint16"],
)
@pytest.mark.parametrize("time", [TimeSpec(single="newest"), TimeSpec(composite="yearly")], ids=["single", "median"])
def test_numbers_come_out_as_they_lie_in_the_file_and_void_outside_it(
    encoding: Encoding, dtype: str, nodata: float | None, values: list[float], time: TimeSpec, make_scene: SceneFactory
) -> None:
    # A file that covers the upper half, its first column void where it can be.
    pixels = np.resize(np.array(values, dtype), (SIZE // 2, SIZE))
    if nodata is not None:
        pixels[:, 0] = nodata
    data, _ = build(encoding, time, [make_scene("a", {"red": pixels}, nodata=nodata)])
    found = data.arrays["reflectance"][0, 0, 0]
    assert found.dtype == encoding.dtype
    void = np.zeros((SIZE, SIZE), bool)
    void[SIZE // 2 :] = True
    void[:, 0] |= nodata is not None
    np.testing.assert_array_equal(np.isnan(found) if encoding.floating else found == encoding.fill, void)
    whole = np.vstack([pixels, pixels])
    np.testing.assert_array_equal(found[~void], whole[~void])
    assert data.arrays["clear"][0, 0] == pytest.approx((~void).mean())


@given(
    hnp.arrays(np.int16, (4, 2, 3), elements=st.sampled_from([-32768, -10, -2, -1, 0, 1, 2, 7])),
    st.sampled_from([-32768, -1, 0, 1]),
    st.sampled_from(["median", "mean"]),
)
def test_a_median_or_mean_is_that_of_the_stored_numbers_and_never_void(values: np.ndarray, void: int, how: Any) -> None:
    out, count = np.zeros((2, 3), np.int16), np.zeros((2, 3), np.uint8)
    fold(values, np.ones(values.shape, bool), how, out=out, count=count, void=void)
    for i, j in np.ndindex(2, 3):
        seen = values[:, i, j][values[:, i, j] != void].astype(float)
        assert count[i, j] == len(seen)
        if not len(seen):
            assert out[i, j] == void
            continue
        exact = np.floor((np.median(seen) if how == "median" else seen.mean()) + 0.5)
        assert out[i, j] != void
        assert abs(out[i, j] - exact) == (exact == void)


@given(hnp.arrays(np.int16, (2, 2, 3)), st.integers(-70000, 70000))
def test_an_offset_makes_no_pixel_void_and_no_void_a_pixel(values: np.ndarray, offset: int) -> None:
    found = values.copy()
    harmonise(found, [offset, 0], HLS)
    np.testing.assert_array_equal(found == -9999, values == -9999)
    np.testing.assert_array_equal(found[1], values[1])
    moved = np.clip(values[0].astype(int) + offset, -32768, 32767)
    expected = np.where(values[0] == -9999, -9999, np.where(moved == -9999, -9998, moved))
    np.testing.assert_array_equal(found[0], expected)


def test_files_on_another_grid_interpolate_across_zero_without_becoming_void(make_scene: SceneFactory) -> None:
    # -536 and 536 side by side, and pixels of half their size: GDAL's midpoint is the 0 that the file calls void.
    pixels = np.where(np.arange(12) % 2, 536, -536).astype(np.int16)[None].repeat(12, axis=0)
    scene = make_scene("a", {"red": pixels}, resolution=20, x0=499_990, nodata=0)
    data, _ = build(SIGNED, TimeSpec(single="newest"), [scene])
    found = data.arrays["reflectance"][0, 0, 0]
    assert (found != SIGNED.fill).all()
    assert set(np.unique(found).tolist()) <= {-268, 268, -536, 536, 0}


@pytest.mark.parametrize(
    ("encoding", "dtype", "says"),
    [
        (SIGNED, "uint16", "65xxx"),
        (REFLECTANCE, "int16", "describe the band as int16"),
        (REFLECTANCE, "float32", "describe the band as float32"),
        (AERIAL, "uint16", "stored as int16"),
    ],
)
def test_a_file_whose_numbers_would_be_bent_is_refused(
    encoding: Encoding, dtype: str, says: str, make_scene: SceneFactory
) -> None:
    scene = make_scene("a", {"red": np.ones((SIZE, SIZE), dtype)})
    with pytest.raises(CatalogError, match=says):
        build(encoding, TimeSpec(single="newest"), [scene])
    other = Asset("blue", "blue", "b.tif", 32633, (10, 0, 0, 0, -10, 0), (1, 1), "uint8", None)
    check_types(SIGNED, ["blue"], [replace(scene, assets=(*scene.assets, other))])
