from __future__ import annotations

import logging
import math
import pickle
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.errors import LabelError
from labels.points import PointCounts, PointsSource, open_points
from labels.points_spec import PointsSpec
from labels.source import ChipLabel, FeatureSource, LabelSource
from tiling.aoi import Aoi
from tiling.grid import Chip
from tiling.shards import Window

Windows = Callable[..., Window]
Pixels = np.ndarray[Any, Any]
X0, Y0 = 500_000.0, 5_376_000.0
TO_DEGREES = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
SUMMER = (datetime(2018, 6, 1, tzinfo=UTC), datetime(2018, 9, 1, tzinfo=UTC))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Points at (column, row) pixels of the world, with other columns, as a file of any kind; gives its path."""

    def table(name: str, places: list[tuple[float, float]], **columns: list[Any]) -> str:
        path = tmp_path / name
        x = np.array([X0 + col * 10 for col, _ in places])
        y = np.array([Y0 - row * 10 for _, row in places])
        if name.endswith((".csv", ".plain.parquet")):
            lon, lat = TO_DEGREES.transform(x, y)
            frame = pd.DataFrame({"lon": lon, "lat": lat, **columns})
            frame.to_csv(path, index=False) if name.endswith(".csv") else frame.to_parquet(path)
        else:
            spatial = gpd.GeoDataFrame(columns, geometry=gpd.points_from_xy(x, y), crs=32633)
            spatial = spatial.to_crs(4326 if name.endswith(".geojson") else 32633)
            spatial.to_parquet(path) if name.endswith(".parquet") else spatial.to_file(path)
        return str(path)

    return table


def opened(area: Aoi, path: str | tuple[str, ...], **options: Any) -> PointsSource:
    return open_points("p", PointsSpec(path, **options), aoi=area, interval=SUMMER)


@pytest.mark.parametrize("name", ["a.csv", "a.plain.parquet", "a.parquet", "a.geojson", "a.gpkg", "a.shp"])
def test_points_of_any_file_are_burnt_in_the_pixel_where_they_lie(
    name: str, write: Callable[..., str], make_window: Windows, area: Aoi
) -> None:
    path = write(name, [(3.5, 4.5), (20.2, 30.9), (63.9, 0.1)], crop=["rye", "maize", "rye"])
    label = opened(area, path, attribute="crop")
    expected = np.full((64, 64), 255, np.uint8)
    expected[4, 3] = expected[0, 63] = 2
    expected[30, 20] = 1
    drawn = label.render(make_window())
    np.testing.assert_array_equal(drawn["p"], expected)
    np.testing.assert_array_equal(drawn["p_points"], expected != 255)
    assert not drawn["p_conflict"].any()
    assert label.legend.codes == (1, 2)
    assert label.attrs["flag_meanings"] == "maize rye"


def test_a_measure_is_a_number_where_a_point_lies_and_nan_elsewhere(
    write: Callable[..., str], make_window: Windows, area: Aoi
) -> None:
    path = write("gedi.csv", [(1.5, 2.5), (9.5, 9.5), (7.5, 7.5), (8.5, 8.5)], agbd=[120.5, np.nan, -9999.0, 33.25])
    label = opened(area, path, attribute="agbd", kind="measure", units="Mg ha-1", valid_range=(0, 1000))
    drawn = label.render(make_window())["p"]
    assert drawn.dtype == np.float32
    assert drawn[2, 1] == 120.5
    assert drawn[8, 8] == 33.25
    assert np.isfinite(drawn).sum() == 2
    assert (label.attrs["points"], label.attrs["units"]) == (2, "Mg ha-1")
    assert label.attrs["points_without_a_value"] == label.attrs["points_with_an_impossible_value"] == 1


def test_without_attribute_every_point_is_class_one(write: Callable[..., str], make_window: Windows, area: Aoi) -> None:
    label = opened(area, write("a.csv", [(5.5, 6.5)]))
    assert label.render(make_window())["p"][6, 5] == 1
    assert label.legend.name(1) == "point"


def test_listed_classes_rest_and_null_decide_the_codes(
    write: Callable[..., str], make_window: Windows, area: Aoi, caplog: pytest.LogCaptureFixture
) -> None:
    path = write("a.csv", [(i + 0.5, 0.5) for i in range(4)], lc1=["B11", "C10", "A", None])
    with caplog.at_level(logging.WARNING):
        label = opened(area, path, attribute="lc1", classes={"B11": 7, "A": None, "*": 300})
    assert label.render(make_window())["p"][0, :4].tolist() == [7, 300, 65535, 65535]
    assert label.attrs["points_left_unlabelled"] == label.attrs["points_without_a_class"] == 1
    assert "1 points are without a class" in caplog.text
    with pytest.raises(LabelError, match="does not list: 'A', 'C10'"):
        opened(area, path, attribute="lc1", classes={"B11": 7})


def test_codes_come_from_the_whole_file_and_not_from_the_area(write: Callable[..., str], area: Aoi) -> None:
    for name in ("a.csv", "a.gpkg"):
        path = write(name, [(1.5, 1.5), (60_000.0, 1.5)], crop=["rye", "barley"])
        assert opened(area, path, attribute="crop").legend.codes == (1, 2)


@pytest.mark.parametrize(("several", "expected"), [("majority", 5), ("last", 2), ("first", 9), (None, 5)])
def test_a_pixel_with_several_points_has_one_class_by_the_rule_and_says_that_they_disagree(
    several: Any, expected: int, write: Callable[..., str], make_window: Windows, area: Aoi
) -> None:
    places = [(3.1, 3.1), (3.9, 3.9), (3.5, 3.5), (3.2, 3.8), (10.5, 10.5), (10.6, 10.6), (20.5, 20.5)]
    path = write(
        "a.csv", places, c=[5, 2, 9, 5, 4, 4, 1],
        day=["2018-07-02", "2018-08-01", "2018-07-01", "2018-07-03", "2018-07-01", "2018-07-02", "2018-07-01"],
    )  # fmt: skip
    label = opened(area, path, attribute="c", classes={5: 5, 2: 2, 9: 9, 4: 4, 1: 1}, date="day", several=several)
    drawn = label.render(make_window())
    assert drawn["p"][3, 3] == expected
    assert drawn["p"][10, 10] == 4
    assert drawn["p_points"][3, 3] == 4
    assert np.argwhere(drawn["p_conflict"]).tolist() == [[3, 3]]
    chip = PointCounts("p_counts", "p", min_points=8)
    assert isinstance(chip, ChipLabel)
    told = chip.derive(drawn)
    assert told.values == {"points": 7.0, "pixels_shared": 2.0, "pixels_in_conflict": 1.0}
    assert told.reason == "7 points, wanted 8"
    assert PointCounts("p_counts", "p", min_points=7).derive(drawn).reason == ""


def test_of_classes_that_are_as_frequent_the_smallest_code_is_taken(
    write: Callable[..., str], make_window: Windows, area: Aoi
) -> None:
    path = write("a.csv", [(3.5, 3.5)] * 4, c=[9, 4, 9, 4])
    label = opened(area, path, attribute="c", classes={9: 9, 4: 4})
    assert label.render(make_window())["p"][3, 3] == 4


def test_measures_in_one_pixel_are_averaged(write: Callable[..., str], make_window: Windows, area: Aoi) -> None:
    path = write("a.csv", [(3.5, 3.5), (3.2, 3.2), (3.9, 3.1)], v=[1.0, 2.0, 6.0])
    drawn = opened(area, path, attribute="v", kind="measure").render(make_window())
    assert drawn["p"][3, 3] == 3.0
    assert drawn["p_conflict"][3, 3] == 1


def test_a_window_around_a_point_ends_where_another_is_nearer(
    write: Callable[..., str], make_window: Windows, area: Aoi
) -> None:
    path = write("a.csv", [(10.5, 10.5), (13.5, 10.5), (0.5, 0.5)], c=[1, 2, 3])
    drawn = opened(area, path, attribute="c", window_px=2).render(make_window())
    assert drawn["p"][10, 7:17].tolist() == [255, 1, 1, 1, 1, 2, 2, 2, 2, 255]
    assert drawn["p"][7:14, 10].tolist() == [255, 1, 1, 1, 1, 1, 255]
    assert (drawn["p"][:3, :3] == 3).all()
    assert drawn["p_points"].sum() == 3


def by_hand(places: Pixels, values: Pixels, shape: tuple[int, int], w: int, several: str) -> Pixels:
    """Each pixel by itself: the points within w pixels, of these the nearest, of these what the rule says."""
    out = np.full(shape, np.nan)
    rows, cols = np.floor(places[:, 1]).astype(int), np.floor(places[:, 0]).astype(int)
    for i in range(shape[0]):
        for j in range(shape[1]):
            reach = (abs(rows - i) <= w) & (abs(cols - j) <= w)
            if reach.any():
                away = (rows - i) ** 2 + (cols - j) ** 2
                found = values[reach & (away == away[reach].min())]
                votes = Counter(found.tolist())
                out[i, j] = {
                    "first": found[0], "last": found[-1], "mean": found.mean(),
                    "majority": min(votes, key=lambda v: (-votes[v], v)),
                }[several]  # fmt: skip
    return out


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 60),
    w=st.integers(0, 3),
    several=st.sampled_from(["majority", "mean", "last", "first"]),
)
def test_every_pixel_is_that_of_the_rule_read_pixel_by_pixel_in_every_window(
    seed: int, n: int, w: int, several: Any, write: Callable[..., str], make_window: Windows, area: Aoi
) -> None:
    random = np.random.default_rng(seed)
    places = random.uniform(-4, 24, (n, 2)).round(2) + 0.003
    values = random.integers(1, 4, n)
    path = write("a.csv", [tuple(p) for p in places.tolist()], v=values.tolist())
    classes = {int(v): int(v) for v in values}
    options: dict[str, Any] = {"kind": "measure"} if several == "mean" else {"classes": classes}
    label = opened(area, path, attribute="v", window_px=w, several=several, **options)
    drawn = label.render(make_window(height=20, width=20))["p"]
    expected = by_hand(places, values, (20, 20), w, several)
    if several != "mean":
        expected = np.where(np.isnan(expected), 255, expected)
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    part = label.render(make_window(5, 3, 9, 11))
    for name, pixels in label.render(make_window(height=20, width=20)).items():
        np.testing.assert_array_equal(part[name], pixels[5:14, 3:14])


def test_points_of_another_time_are_left_out_and_counted(
    write: Callable[..., str], make_window: Windows, area: Aoi
) -> None:
    days = ["2018-05-21", "2018-05-22T00:00:00Z", "2018-09-10T23:59:59", "2018-09-11", None]
    path = write("a.csv", [(i + 0.5, 0.5) for i in range(5)], day=days, c=[1, 2, 3, 4, 5])
    label = opened(area, path, attribute="c", date="day", tolerance_days=10)
    # Half-open on both sides: from ten days before the first day to ten days after the last one, excluded.
    assert (label.render(make_window())["p"][0, :5] != 255).tolist() == [False, True, True, False, False]
    assert label.attrs["points_of_another_time"] == 2
    assert label.attrs["points_without_a_date"] == 1
    assert len(opened(area, path, attribute="c", date="day")) == 5


def test_dates_may_be_whole_numbers_and_anything_else_is_refused(write: Callable[..., str], area: Aoi) -> None:
    path = write("a.csv", [(0.5, 0.5), (1.5, 0.5)], day=[20180701, 20170701])
    assert len(opened(area, path, date="day", tolerance_days=0)) == 1
    for wrong in ("01/07/2018", "summer"):
        with pytest.raises(LabelError, match="wanted dates like 2018-07-01"):
            opened(area, write("b.csv", [(0.5, 0.5)], day=[wrong]), date="day")
    with pytest.raises(LabelError, match=r"holds 1\.5; wanted dates"):
        opened(area, write("c.csv", [(0.5, 0.5)], day=[1.5]), date="day")


def test_only_points_of_the_wanted_quality_are_kept(write: Callable[..., str], area: Aoi) -> None:
    path = write("a.csv", [(i + 0.5, 0.5) for i in range(4)], l4_quality_flag=[1, 0, 1, 1], beam=["a", "b", "c", "b"])
    label = opened(area, path, keep={"l4_quality_flag": 1, "beam": ("a", "b")})
    assert label.attrs["points_of_another_kind"] == 2
    assert label.ids.tolist() == [1, 4]


def test_coordinates_in_metres_need_their_crs_and_their_columns(
    tmp_path: Path, make_window: Windows, area: Aoi
) -> None:
    path = tmp_path / "a.csv"
    pd.DataFrame({"E": [X0 + 5], "N": [Y0 - 15]}).to_csv(path, index=False)
    label = opened(area, str(path), x="E", y="N", crs="EPSG:32633")
    assert np.argwhere(label.render(make_window())["p"] == 1).tolist() == [[1, 0]]
    with pytest.raises(LabelError, match="hold no degrees; say with crs"):
        opened(area, str(path), x="E", y="N")
    with pytest.raises(LabelError, match="name them with x and y"):
        opened(area, str(path))
    with pytest.raises(LabelError, match="has no column 'F'"):
        opened(area, str(path), x="E", y="F", crs="EPSG:32633")


def test_a_point_on_the_border_of_pixels_lies_in_the_right_and_lower_one_and_in_no_other(
    write: Callable[..., str], make_window: Windows, area: Aoi
) -> None:
    label = opened(area, write("a.gpkg", [(32.0, 32.0)]))
    assert np.argwhere(label.render(make_window())["p"] == 1).tolist() == [[32, 32]]
    for row, col in ((0, 0), (0, 32), (32, 0), (32, 32)):
        assert (label.render(make_window(row, col, 32, 32))["p"] == 1).any() == (row == col == 32)


def test_several_files_are_one_label_and_a_multipoint_is_its_points(
    write: Callable[..., str], tmp_path: Path, make_window: Windows, area: Aoi
) -> None:
    csv = write("1.csv", [(1.5, 1.5)], c=[3])
    two = shapely.MultiPoint([(X0 + 25, Y0 - 25), (X0 + 35, Y0 - 35)])
    gpd.GeoDataFrame({"c": [4]}, geometry=[two], crs=32633).to_file(tmp_path / "2.gpkg")
    label = opened(area, (csv, str(tmp_path / "2.gpkg")), attribute="c", classes={3: 3, 4: 4})
    drawn = label.render(make_window())["p"]
    assert [int(drawn[i, i]) for i in range(1, 4)] == [3, 4, 4]
    assert label.ids.tolist() == [1, 3, 3]


def test_points_are_a_label_that_can_be_sent_and_gives_its_features(
    write: Callable[..., str], make_window: Windows, area: Aoi
) -> None:
    path = write("a.csv", [(10.5, 10.5), (70.5, 3.5)], c=["rye", "oats"], day=["2018-07-01", "2018-07-02"])
    label = pickle.loads(pickle.dumps(opened(area, path, attribute="c", date="day")))
    assert isinstance(label, LabelSource)
    assert isinstance(label, FeatureSource)
    drawn = label.render(make_window())
    assert [v.name for v in label.variables] == list(drawn)
    for variable in label.variables:
        assert drawn[variable.name].dtype == variable.dtype
    side = 64 * 10.0
    chips = [Chip(32633, int(X0 // side) + i, int(Y0 // side) - 1, 64, 10.0) for i in (0, 1, 2)]
    found = label.features(chips)
    assert found.crs == 4326
    assert found["class"].tolist() == ["rye", "oats"]
    assert found["id"].tolist() == [1, 2]
    assert found["date"].tolist() == [pd.Timestamp("2018-07-01"), pd.Timestamp("2018-07-02")]
    for chip, place in zip(found["chip"], found.to_crs(32633).geometry, strict=True):
        (here,) = [c for c in chips if c.id == chip]
        assert shapely.box(*here.bounds).covers(place)


def test_a_point_on_a_corner_of_four_chips_is_a_feature_of_the_one_that_draws_it(
    write: Callable[..., str], area: Aoi
) -> None:
    # The corner of four chips of 64 pixels that is nearest to the world's.
    col, row = math.floor(X0 / 640), math.floor(Y0 / 640)
    label = opened(area, write("a.gpkg", [(col * 64 - X0 / 10, Y0 / 10 - row * 64)]))
    chips = [Chip(32633, c, r, 64, 10.0) for c in (col - 1, col) for r in (row - 1, row)]
    (found,) = label.features(chips)["chip"]
    drawn = []
    for chip in chips:
        minx, miny, maxx, maxy = chip.bounds
        window = Window(32633, (minx, miny, maxx, maxy), 10.0, (64, 64), (), ())
        drawn += [chip.id] * int(label.render(window)["p_points"].sum())
    assert drawn == [found]


def test_what_cannot_be_a_label_of_points_is_refused(
    write: Callable[..., str], box: Any, write_vector: Any, area: Aoi
) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"points": ""}, "empty"), ({"x": "lon"}, "both or none"), ({"kind": "measure"}, "needs attribute"),
        ({"tolerance_days": 3}, "name their column with date"), ({"several": "mean"}, "would invent classes"),
        ({"kind": "measure", "attribute": "v", "several": "majority"}, "is for classes"),
        ({"kind": "measure", "attribute": "v", "ignore": 3}, "option of classes"),
        ({"units": "m"}, "options of measures"), ({"classes": {"a": 1}}, "name it with attribute"),
        ({"attribute": "c", "classes": {}}, "classes is empty"),
        ({"attribute": "c", "classes": {"a": 3}, "ignore": 3}, "also the code of a class"),
        ({"kind": "measure", "attribute": "v", "valid_range": (2.0, 1.0)}, "2 is not below 1"),
    ]  # fmt: skip
    for options, why in wrong:
        with pytest.raises(ValueError, match=why):
            PointsSpec(**{"points": "a.csv", **options})
    path = write("a.csv", [(1.5, 1.5)], crop=["rye"])
    with pytest.raises(LabelError, match=r"no column 'corp'; did you mean crop\?"):
        opened(area, path, attribute="corp")
    with pytest.raises(LabelError, match="does not hold numbers"):
        opened(area, path, attribute="crop", kind="measure")
    with pytest.raises(LabelError, match=r"no point of .* lies in the area"):
        opened(area, write("far.csv", [(900_000.0, 1.5)]))
    with pytest.raises(LabelError, match="is left near the area: 1 of another kind"):
        opened(area, path, keep={"crop": "oats"})
    with pytest.raises(LabelError, match="has Polygon and no point here"):
        opened(area, write_vector("p.gpkg", [box(0, 0, 9, 9)]))
    with pytest.raises(LabelError, match="leave x, y and crs out"):
        opened(area, write("a.gpkg", [(1.5, 1.5)]), crs="EPSG:4326")
    with pytest.raises(LabelError, match="does not exist"):
        opened(area, "none.csv")


# --- real places: the fields of Lower Austria as a survey, one point in each -----------------------------------------


def test_a_survey_of_real_fields_has_the_class_of_the_field_it_stands_in(shared_data: Path, tmp_path: Path) -> None:
    fields = gpd.read_file(shared_data / "austria" / "fields.geojson")
    inside = fields.representative_point()
    survey = pd.DataFrame({"gps_long": inside.x, "gps_lat": inside.y, "LC1": fields.crop, "POINT_ID": fields.fid})
    survey.to_csv(tmp_path / "lucas.csv", index=False)
    west, south, east, north = fields.total_bounds
    area = Aoi("austria", shapely.box(west, south, east, north))
    label = opened(area, str(tmp_path / "lucas.csv"), attribute="LC1")
    zone = fields.to_crs(32633)
    minx, miny, maxx, maxy = (math.floor(v / 640) * 640 for v in zone.total_bounds)
    window = Window(
        32633,
        (minx, miny, maxx + 640, maxy + 640),
        10.0,
        ((maxy + 640 - miny) // 10, (maxx + 640 - minx) // 10),
        (),
        (),
    )
    drawn = label.render(window)["p"]
    codes = {c.name: c.code for c in label.legend.classes}
    at = inside.to_crs(32633)
    rows = ((maxy + 640 - at.y) // 10).astype(int).to_numpy()
    cols = ((at.x - minx) // 10).astype(int).to_numpy()
    assert drawn[rows, cols].tolist() == [codes[crop] for crop in fields.crop]
    assert (drawn != 255).sum() == 43
