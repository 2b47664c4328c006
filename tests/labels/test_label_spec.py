from __future__ import annotations

import subprocess
import sys
from typing import Any

import pydantic
import pytest

from labels.legend import PRODUCTS
from labels.spec import ProductLabel
from recipes.recipe import OneLabel

SPEC: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(OneLabel)


def test_a_recipe_fills_in_a_spec_with_the_types_it_says() -> None:
    spec = SPEC.validate_python({"vector": "a.gpkg", "attribute": "crop", "classes": {"maize": 1, 7: None, "*": 0}})
    assert spec.classes == {"maize": 1, 7: None, "*": 0}
    assert SPEC.validate_python({"raster": ["a.tif", "b.tif"]}).raster == ("a.tif", "b.tif")
    assert SPEC.validate_python({"vector": "a", "attribute": "c", "order": ["x", 2]}).order == ("x", 2)
    assert "description" in SPEC.json_schema()["$defs"]["VectorLabel"]["properties"]["all_touched"]


def test_a_product_without_a_year_gets_the_newest_one_written_down() -> None:
    assert ProductLabel("esa-worldcover").year == max(PRODUCTS["esa-worldcover"].years) == 2021
    assert ProductLabel("esa-worldcover", year=2020).year == 2020


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "exactly one of vector, raster, product, .* and caption, found none"),
        ({"vector": "a", "raster": "b"}, "found vector and raster"),
        ({"vector": ""}, "vector is empty"),
        ({"raster": ()}, "raster is empty"),
        (
            {"raster": "a", "all_touched": True},
            "all_touched is an option of vector and extract labels; this label is a raster",
        ),
        ({"raster": "a", "background": 0}, "background is an option of vector"),
        ({"raster": "a", "year": 2020}, "year is an option of product"),
        ({"vector": "a", "nodata": 0}, "nodata is an option of raster and product and measure labels"),
        ({"vector": "a", "classes": {"x": 1}}, "name it with attribute"),
        ({"vector": "a", "attribute": "c", "classes": {}}, "classes is empty"),
        ({"vector": "a", "order": ("x",)}, "needs attribute"),
        ({"vector": "a", "attribute": "c", "classes": {"x": 9}, "ignore": 9}, "ignore 9 is also the code of a class"),
        ({"vector": "a", "background": 0, "ignore": 0}, "are both 0"),
        ({"product": "worldcovr"}, "did you mean 'worldcover'"),
        ({"product": "esa-worldcover", "legend": "x.csv"}, "legend is an option of vector and raster and points"),
    ],
)
def test_what_contradicts_itself_is_refused_with_a_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        SPEC.validate_python(options)


@pytest.mark.parametrize("options", [{"vector": "a", "ignore": -1}, {"vector": "a", "colour": 1}])
def test_codes_out_of_range_and_unknown_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        SPEC.validate_python(options)


def test_the_spec_imports_nothing_heavy() -> None:
    code = (
        "import sys, labels.spec; print([m for m in ('numpy','shapely','rasterio','geopandas','numba','pydantic') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
