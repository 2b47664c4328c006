from __future__ import annotations

import itertools
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from rasterio.features import rasterize as gdal_rasterize

from curate.errors import LabelError
from labels.read import class_shares
from labels.spec import VectorLabel
from labels.vectors import open_vector
from tiling.aoi import Aoi, read_aoi
from tiling.shards import Window

AUSTRIA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "austria"

Write = Callable[..., str]
Box = Callable[[float, float, float, float], Any]
Windows = Callable[..., Window]


@pytest.mark.parametrize(
    ("name", "crs"),
    # GeoJSON is EPSG:4326 by its standard.
    [("a.geojson", 4326), *itertools.product(["a.gpkg", "a.parquet", "a.shp", "a.fgb"], [32633, 4326, 3035, 32634])],
)
def test_any_vector_file_in_any_crs_gives_the_same_pixels(
    name: str, crs: int, write_vector: Write, box: Box, make_window: Windows, area: Aoi
) -> None:
    # Edges a third of a pixel from all centres: the detour over degrees may not decide.
    shapes = [box(3.2, 4.2, 20.2, 30.2), box(30.8, 10.8, 50.8, 40.8)]
    path = write_vector(name, shapes, crs, crop=["rye", "maize"])
    label = open_vector("crops", VectorLabel(vector=path, attribute="crop"), aoi=area)
    expected = np.full((64, 64), 255, np.uint8)
    expected[4:30, 3:20], expected[11:41, 31:51] = 2, 1
    np.testing.assert_array_equal(label.codes(make_window()), expected)
    assert (label.ignore, label.dtype) == (255, "uint8")
    assert label.attrs["flag_meanings"] == "maize rye"
    assert class_shares(expected, label.ignore) == {1: 600 / 4096, 2: 442 / 4096}


def test_without_attribute_every_polygon_is_class_one_and_the_rest_background(
    write_vector: Write, box: Box, make_window: Windows, area: Aoi
) -> None:
    path = write_vector("a.gpkg", [box(0, 0, 10, 10)])
    label = open_vector("x", VectorLabel(vector=path, background=0), aoi=area)
    drawn = label.codes(make_window())
    assert class_shares(drawn, label.ignore) == {0: 3996 / 4096, 1: 100 / 4096}
    assert [(c.code, c.name) for c in label.legend.classes] == [(0, "background"), (1, "inside")]


def test_codes_come_from_the_whole_file_and_not_from_the_area(write_vector: Write, box: Box, area: Aoi) -> None:
    far = shapely.affinity.translate(box(0, 0, 9, 9), 200_000)
    path = write_vector("a.gpkg", [box(0, 0, 9, 9), far], crop=["rye", "barley"])
    label = open_vector("x", VectorLabel(vector=path, attribute="crop"), aoi=area)
    assert [(c.code, c.name) for c in label.legend.classes] == [(1, "barley"), (2, "rye")]
    assert label.attrs["polygons"] == 1


def test_numbers_as_classes_sort_as_numbers_and_match_text(write_vector: Write, box: Box, area: Aoi) -> None:
    path = write_vector("a.gpkg", [box(0, 0, 9, 9), box(9, 0, 19, 9), box(19, 0, 29, 9)], kind=[10.0, 9.0, 2.0])
    label = open_vector("x", VectorLabel(vector=path, attribute="kind"), aoi=area)
    assert [c.name for c in label.legend.classes] == ["2", "9", "10"]
    open_vector("x", VectorLabel(vector=path, attribute="kind", classes={"2": 5, 9: 6, "10": 7}), aoi=area)


def test_listed_classes_rest_and_null_decide_the_codes(
    write_vector: Write, box: Box, make_window: Windows, area: Aoi, caplog: pytest.LogCaptureFixture
) -> None:
    shapes = [box(i * 10, 0, i * 10 + 10, 10) for i in range(5)]
    path = write_vector("a.gpkg", shapes, crop=["rye", "maize", "oats", "grass", None])
    spec = VectorLabel(vector=path, attribute="crop", classes={"rye": 300, "maize": None, "*": 9}, background=0)
    with caplog.at_level(logging.WARNING):
        label = open_vector("crops", spec, aoi=area)
    assert (label.ignore, label.dtype) == (65535, "uint16")
    assert label.codes(make_window())[5, 5:55:10].tolist() == [300, 65535, 9, 9, 65535]
    assert label.codes(make_window())[20, 20] == 0
    assert label.legend.name(9) == "grass or oats"
    assert "1 of the features in a.gpkg are without a class" in caplog.text
    assert label.attrs["features_without_a_class"] == 1


@pytest.mark.parametrize(
    ("order", "on_top"),
    [("file", 1), ("small_on_top", 2), (("wood",), 1), (("wood", "pond"), 2), (("pond", "wood"), 1)],
)
def test_what_lies_on_top_is_what_the_recipe_says(
    order: Any, on_top: int, write_vector: Write, box: Box, make_window: Windows, area: Aoi
) -> None:
    path = write_vector("a.gpkg", [box(10, 10, 20, 20), box(0, 0, 40, 40)], cover=["pond", "wood"])
    spec = VectorLabel(vector=path, attribute="cover", classes={"wood": 1, "pond": 2}, order=order)
    assert open_vector("x", spec, aoi=area).codes(make_window())[15, 15] == on_top


def test_broken_empty_and_flat_shapes_are_repaired_or_dropped_and_counted(
    write_vector: Write, box: Box, make_window: Windows, area: Aoi, caplog: pytest.LogCaptureFixture
) -> None:
    (x, _, _, y) = box(0, 0, 64, 64).bounds
    bow = shapely.Polygon([(x + 55, y - 55), (x + 303, y - 303), (x + 303, y - 55), (x + 55, y - 303)])
    flat = shapely.Polygon([(x, y), (x + 50, y), (x + 100, y), (x, y)])
    shapes = [bow, flat, shapely.Polygon(), None, shapely.Point(x + 50, y - 50), box(40, 40, 50, 50)]
    path = write_vector("a.parquet", shapes)
    with caplog.at_level(logging.WARNING):
        label = open_vector("x", VectorLabel(vector=path), aoi=area)
    drawn = label.codes(make_window()) == 1
    assert drawn[45, 45]
    assert drawn[17, 10]
    assert drawn[17, 25]
    assert not drawn[8, 18]
    assert not drawn[28, 18]
    for what in ("repaired", "without geometry", "without area", "points or lines and not drawn"):
        assert what in caplog.text
    assert label.attrs["features_repaired"] == 2
    assert label.attrs["features_without_geometry"] == 2


def test_a_label_goes_to_another_process_and_draws_the_same(
    write_vector: Write, box: Box, make_window: Windows, area: Aoi
) -> None:
    label = open_vector("x", VectorLabel(vector=write_vector("a.gpkg", [box(3, 3, 40, 50)])), aoi=area)
    before = label.codes(make_window())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(label)).codes(make_window()), before)


def test_a_polygon_as_large_as_a_continent_is_drawn(
    write_vector: Write, tmp_path: Path, make_window: Windows, area: Aoi
) -> None:
    path = tmp_path / "big.geojson"
    gpd.GeoDataFrame(geometry=[shapely.box(-170, -80, 170, 85)], crs=4326).to_file(path)
    assert (open_vector("x", VectorLabel(vector=str(path)), aoi=area).codes(make_window()) == 1).all()


def test_a_window_beyond_what_was_read_is_refused(
    write_vector: Write, box: Box, make_window: Windows, area: Aoi
) -> None:
    label = open_vector("x", VectorLabel(vector=write_vector("a.gpkg", [box(3, 3, 4, 4)])), aoi=area)
    with pytest.raises(ValueError, match="larger margin_m"):
        label.codes(make_window(row=5000))


def test_a_legend_file_names_the_codes(write_vector: Write, box: Box, area: Aoi, tmp_path: Path) -> None:
    path = write_vector("a.gpkg", [box(0, 0, 9, 9)], crop=["r"])
    (tmp_path / "l.csv").write_text("code,name,color\n1,Rye,#aa0000\n2,Oats,#00aa00\n")
    spec = VectorLabel(vector=path, attribute="crop", legend=str(tmp_path / "l.csv"))
    assert open_vector("x", spec, aoi=area).attrs["flag_names"] == ["Rye", "Oats"]
    (tmp_path / "l.csv").write_text("code,name\n2,Oats\n")
    with pytest.raises(LabelError, match="has no row for code 1"):
        open_vector("x", spec, aoi=area)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attribute": "crob"}, "no column 'crob'; did you mean crop"),
        ({"attribute": "zzzzzz"}, "no column 'zzzzzz'; it has crop, empty"),
        ({"attribute": "empty"}, "column empty of .* has no value in the area"),
        ({"attribute": "crop", "classes": {"rye": 1}}, "does not list: 'maize'; list them"),
        ({"attribute": "crop", "classes": {"rye": 1, "maize": 2, "oats": 3}}, "does not have: 'oats'; it has"),
        ({"attribute": "crop", "classes": {"rye": 1, "maize": 65535}}, "65535 is the ignore value and also"),
        ({"attribute": "crop", "order": ("corn",)}, "order names 'corn', which is no class here"),
        ({"layer": "fields"}, "has no layer 'fields'; it has a"),
        ({"background": 2, "attribute": "crop"}, "background 2 is the code that 'rye' gets"),
        ({"background": 1}, "background 1 is the code that 1 gets"),
        ({"background": 7, "attribute": "crop", "ignore": 1}, "1 is the ignore value and also the code of a class"),
    ],
)
def test_what_does_not_fit_the_file_is_refused_with_a_sentence(
    options: dict[str, Any], said: str, write_vector: Write, box: Box, area: Aoi
) -> None:
    shapes = [box(0, 0, 9, 9), box(9, 9, 20, 20)]
    path = write_vector("a.gpkg", shapes, crop=["rye", "maize"], empty=[None, None])
    with pytest.raises(LabelError, match=said):
        open_vector("crops", VectorLabel(vector=path, **options), aoi=area)


def test_files_that_cannot_be_a_label_are_refused(write_vector: Write, box: Box, area: Aoi, tmp_path: Path) -> None:
    def refuse(path: str, said: str) -> None:
        with pytest.raises(LabelError, match=said) as caught:
            open_vector("x", VectorLabel(vector=path), aoi=area)
        assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
        # Dask sends the causes too, and those of GDAL cannot be unpickled.
        cause = caught.value.__cause__
        assert cause is None or (cause.__cause__ is None and cause.__context__ is None)

    refuse(str(tmp_path / "none.gpkg"), "does not exist")
    (tmp_path / "text.geojson").write_text("not json")
    refuse(str(tmp_path / "text.geojson"), "cannot be read as a vector file")
    (tmp_path / "text.parquet").write_text("not parquet")
    refuse(str(tmp_path / "text.parquet"), "cannot be read as a vector file")
    refuse(write_vector("nocrs.shp", [box(0, 0, 9, 9)], None), "has no CRS")
    refuse(write_vector("point.gpkg", [box(0, 0, 9, 9).centroid]), "has Point and no polygon here; .* buffer them")
    refuse(write_vector("line.gpkg", [shapely.LineString(box(0, 0, 9, 9).exterior)]), "buffer them to polygons first")
    far = shapely.affinity.translate(box(0, 0, 9, 9), 200_000)
    refuse(write_vector("far.gpkg", [far]), r"no polygon of .* lies in the area .* the file covers \(17\.7")
    gpd.GeoDataFrame(geometry=[box(0, 0, 9, 9)], crs=32633).to_file(tmp_path / "two.gpkg", layer="a")
    gpd.GeoDataFrame(geometry=[box(0, 0, 9, 9)], crs=32633).to_file(tmp_path / "two.gpkg", layer="b")
    refuse(str(tmp_path / "two.gpkg"), "has the layers a, b; say which with layer")


needs_austria = pytest.mark.skipif(not AUSTRIA.exists(), reason="the real fields of Lower Austria are not here")


def austrian_window() -> Window:
    left, bottom, right, top = 528_900.0, 5_370_000.0, 534_900.0, 5_375_600.0
    return Window(32633, (left, bottom, right, top), 10.0, (560, 600), (), ())


@needs_austria
@pytest.mark.parametrize("all_touched", [False, True], ids=["centre", "touched"])
def test_austrian_fields_are_drawn_as_gdal_draws_them(all_touched: bool) -> None:
    path = str(AUSTRIA / "fields.geojson")
    label = open_vector(
        "fields",
        VectorLabel(vector=path, attribute="label", all_touched=all_touched),
        aoi=read_aoi(AUSTRIA / "region.geojson"),
    )
    window = austrian_window()
    frame = gpd.read_file(path).to_crs(32633)
    codes = {value: code for code, value in enumerate(sorted(frame.label.unique()), start=1)}
    expected = gdal_rasterize(
        zip(frame.geometry, frame.label.map(codes), strict=True),
        out_shape=window.shape, transform=window.geobox.transform, fill=255, dtype="uint8", all_touched=all_touched,
    )  # fmt: skip
    drawn = label.codes(window)
    np.testing.assert_array_equal(drawn, expected)
    assert (drawn != 255).sum() > 5000


@needs_austria
def test_austrian_fields_from_an_osm_extract_are_the_same_pixels() -> None:
    aoi = read_aoi(AUSTRIA / "region.geojson")
    from_json = open_vector("fields", VectorLabel(vector=str(AUSTRIA / "fields.geojson")), aoi=aoi)
    from_osm = open_vector("fields", VectorLabel(vector=str(AUSTRIA / "fields.osm.pbf")), aoi=aoi)
    # OSM keeps seven digits of a degree, one centimetre: a centre that near to an edge may change sides.
    one, other = from_json.codes(austrian_window()), from_osm.codes(austrian_window())
    assert (one != other).sum() <= 5
    assert (one == 1).sum() > 5000
