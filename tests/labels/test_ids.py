from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import pytest
import shapely

from curate.errors import LabelError
from labels.ids import MAX_ID, check_ids, feature_table, polygon_areas
from labels.rasterize import Polygons, pack, rasterize
from tiling.shards import Window

UTM33 = pyproj.CRS.from_epsg(32633)
WINDOW = Window(32633, (500_000.0, 5_375_360.0, 500_640.0, 5_376_000.0), 10.0, (64, 64), (), ())


def box(left: float, top: float, right: float, bottom: float) -> Any:
    return shapely.box(500_000 + left * 10, 5_376_000 - bottom * 10, 500_000 + right * 10, 5_376_000 - top * 10)


SHAPES = [
    box(2, 2, 20, 12).difference(box(5, 5, 8, 8)),
    shapely.MultiPolygon([box(30, 2, 40, 12), box(30, 20, 40, 22).difference(box(31, 20.5, 32, 21.5))]),
    shapely.Point(500_300, 5_375_600).buffer(77.7),
]
IDS = np.array([MAX_ID, 70_000, 5], np.uint32)


def packed() -> Polygons:
    return pack(np.array(SHAPES, object), IDS, UTM33)


def test_ids_up_to_the_largest_of_32_bits_are_burnt_as_they_are() -> None:
    drawn = rasterize(packed(), WINDOW, fill=0, dtype="uint32")
    assert drawn.dtype == np.uint32
    assert np.unique(drawn).tolist() == [0, 5, 70_000, MAX_ID]
    codes = rasterize(
        pack(np.array(SHAPES, object), np.array([1, 2, 3], np.uint16), UTM33), WINDOW, fill=0, dtype="uint8"
    )
    np.testing.assert_array_equal(np.array([0, *IDS.tolist()])[codes], drawn)


def test_an_id_that_does_not_fit_is_refused_and_not_wrapped() -> None:
    with pytest.raises(ValueError, match="code 4294967295 does not fit into uint16"):
        rasterize(packed(), WINDOW, fill=0, dtype="uint16")


def test_areas_are_those_of_shapely_with_holes_and_parts() -> None:
    table = feature_table(packed(), {})
    assert table.ids.tolist() == [5, 70_000, MAX_ID]
    assert table.parts.tolist() == [1, 2, 1]
    expected = shapely.area(np.array(SHAPES, object))[[2, 1, 0]]
    np.testing.assert_allclose(table.area_m2, expected, rtol=1e-9)
    assert polygon_areas(packed().subset(np.array([], np.intp))).shape == (0,)


def test_a_column_lies_on_the_ids_pixel_by_pixel_and_is_void_elsewhere() -> None:
    drawn = rasterize(packed(), WINDOW, fill=0, dtype="uint32")
    quality = (np.array([5, MAX_ID, 12], np.uint32), np.array([0.25, 1.0, 7.0]))
    table = feature_table(packed(), {"confidence": quality})
    pixels = table.look_up(drawn, "confidence")
    assert pixels.dtype == np.float32
    expected = np.full(drawn.shape, np.nan)
    expected[drawn == 5], expected[drawn == MAX_ID] = 0.25, 1.0
    np.testing.assert_array_equal(pixels, expected)


def test_without_features_nothing_is_known() -> None:
    table = feature_table(packed().subset(np.array([], np.intp)), {"q": (np.array([1]), np.array([2.0]))})
    assert np.isnan(table.look_up(np.ones((3, 3), np.uint32), "q")).all()
    area, parts = table.areas(np.array([1, 2], np.uint32))
    assert np.isnan(area).all()
    assert parts.tolist() == [0, 0]


def test_whole_numbers_of_any_type_are_ids() -> None:
    assert check_ids("label x", "fid", np.array([1.0, 4e9])).tolist() == [1, 4_000_000_000]
    assert check_ids("label x", "fid", np.array(["7", "8"], object)).dtype == np.uint32


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([1, 2, 0], "holds 0"), ([1, -4], "holds -4"), ([1, 2**32], "holds 4.29497e"), ([1.5], "holds 1.5"),
        ([1, None], "holds nan"), (["a"], "holds text"), ([3, 3, 4], "has 3 2 times"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_id_is_refused(values: list[Any], why: str) -> None:
    with pytest.raises(LabelError, match=why):
        check_ids("label x", "fid", np.array(values, object))
