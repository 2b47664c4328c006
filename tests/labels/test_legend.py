from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.collections import collection
from curate.errors import LabelError
from labels.legend import (
    NAMED,
    PRODUCTS,
    LabelClass,
    Legend,
    find_legend,
    find_product,
    parse_legend,
    product_keys,
    product_legend,
    read_legend,
)
from labels.options import MAX_CODE

Facts = Callable[[str], list[dict[str, str]]]


@pytest.mark.parametrize("name", NAMED)
def test_every_legend_is_complete_and_has_no_value_for_no_data(name: str) -> None:
    product, legend = NAMED[name], product_legend(name)
    assert legend.classes
    assert not set(product.void) & set(legend.codes)
    assert all(0 <= c.code <= MAX_CODE and c.name for c in legend.classes)
    assert len({c.name for c in legend.classes}) == len(legend.classes) or name == "usda-cdl"  # Barren, Shrubland twice
    colors = {c.color is None for c in legend.classes}
    assert len(colors) == 1, "colours of some classes only would be read shifted"


@pytest.mark.parametrize("name", NAMED)
def test_every_product_says_where_it_is_from_and_what_it_may_be_used_for(name: str) -> None:
    product = NAMED[name]
    assert name == "simple8" or product.source.startswith("https://")
    assert product.form == "scheme" or (product.licence and (product.attribution or product.unverified))
    assert list(product.years) == sorted(set(product.years))
    assert (product.resolution_m is None) == (product.form != "raster")
    assert product.mmu_ha is None or product.mmu_ha > 0
    assert set(product.versions) <= set(product.years)
    assert len(product.probabilities) in (0, len(product_legend(name).codes))
    if product.collection:
        assert product.asset
        assert product.years
        assert product.nodata is not None


def test_every_product_of_a_catalog_is_a_collection_that_we_know() -> None:
    for name, product in PRODUCTS.items():
        table = collection(product.collection)
        (band,) = table.bands.values()
        assert name == product.collection  # until a label finds its collection by the product's
        assert table.kind == "classes"
        assert product.asset in band.keys
        assert band.nodata == product.nodata
        assert band.gsd_m == product.resolution_m


FACTS = {
    "esa-worldcover": ("worldcover", "code", "color"),
    "io-lulc-annual-v02": ("io_lulc", "code", "color"),
    "io-lulc-9-class": ("io_lulc", "code", "color"),
    "io-lulc": ("io_lulc_2020_10class", "code", ""),
    "dynamic-world": ("dynamic_world", "code", "color"),
    "corine": ("clc", "code", "color"),
    "corine-raster": ("clc", "raster_grid_code", "color"),
    "clc19": ("ben19", "index", ""),
    "clc-plus-backbone": ("clcplus_backbone", "code", "color"),
    "urban-atlas": ("urban_atlas", "code", "color_2018_2021"),
    "cgls-lc100": ("cgls_lc100", "code", "color"),
    "esa-cci-lc": ("esa_cci_lc", "code", "color"),
    "mcd12q1-igbp": ("mcd12q1_igbp", "code", "color"),
    "nlcd": ("nlcd", "code", "color"),
    "usda-cdl": ("usda_cdl", "code", "color"),
    "usgs-lcmap-conus-v13": ("usgs_lcmap", "code", "color"),
    "usgs-lcmap-hawaii-v10": ("usgs_lcmap", "code", "color"),
    "noaa-c-cap": ("noaa_ccap", "code", ""),
    "nrcan-landcover": ("nrcan_landcover", "code", ""),
    "chesapeake-lc-7": ("chesapeake_lc-7", "code", "color"),
    "chesapeake-lc-13": ("chesapeake_lc-13", "code", "color"),
    "chesapeake-lu": ("chesapeake_lu", "code", "color"),
    "mapbiomas-brazil": ("mapbiomas_brazil", "code", "color"),
    "eucropmap": ("eucropmap", "code", "color"),
    "lcz": ("lcz", "code", "color_zenodo"),
    "from-glc10": ("from_glc10", "code", ""),
    "globeland30": ("globeland30", "code", ""),
    "flair-hub": ("flair", "flair_hub_code", "color"),
    "flair-1": ("flair", "flair1_code", "color"),
    "lucas-lc": ("lucas_lc", "code", ""),
    "lucas-lu": ("lucas_lu", "code", ""),
}
"""Table of facts of each legend, and its columns with the codes and the colours."""


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"simple8", "ipcc", "clc-level-1", "clc-level-2"}))
def test_a_legend_is_its_table_of_facts_row_for_row(name: str, facts: Facts) -> None:
    table, code, color = FACTS[name]
    rows, keys, legend = facts(table), product_keys(name), product_legend(name)
    codes = [keys[row[code]] if keys else int(row[code]) for row in rows]
    void = set(NAMED[name].void)
    wanted = {c: row for c, row in zip(codes, rows, strict=True) if c not in void}
    assert set(legend.codes) == set(wanted)
    assert set(codes) - set(wanted) == void & set(codes)
    for c in legend.classes:
        row = wanted[c.code]
        fact = row.get("name") or row["name_l3"]
        assert c.name == (f"{row['lcz']} {fact}" if name == "lcz" else " ".join(fact.split()))
        if color and row[color]:
            assert c.color == row[color].lower()


@pytest.mark.parametrize("level", [1, 2])
def test_the_levels_of_corine_are_those_of_the_table(level: int, facts: Facts) -> None:
    rows = [row for row in facts("clc") if row["code_l1"]]
    legend = product_legend(f"clc-level-{level}")
    assert {c.code: c.name for c in legend.classes} == {
        int(row[f"code_l{level}"]): row[f"name_l{level}"] for row in rows
    }


def test_dynamic_world_names_its_probability_bands_in_the_order_of_the_codes(facts: Facts) -> None:
    rows = facts("dynamic_world")
    assert [int(row["code"]) for row in rows] == list(range(9))
    assert list(NAMED["dynamic-world"].probabilities) == [row["probability_band"] for row in rows]


def test_no_unverified_colour_is_given_as_a_fact() -> None:
    doubtful = [name for name, product in NAMED.items() if product.unverified]
    assert doubtful == ["from-glc10", "globeland30"]
    assert all(c.color is None for name in doubtful for c in product_legend(name).classes)


def test_the_two_worldcovers_are_two_algorithms_and_no_change_can_be_read_from_them() -> None:
    product = NAMED["esa-worldcover"]
    assert dict(product.versions) == {2020: "v100", 2021: "v200"}
    assert not product.comparable(2020, 2021)
    assert product.comparable(2021, 2021)
    assert NAMED["io-lulc-annual-v02"].comparable(2018, 2019)


def test_the_text_codes_of_lucas_become_numbers_and_each_its_own() -> None:
    keys = product_keys("lucas-lc")
    assert (keys["A00"], keys["A11"], keys["B55"], keys["BX1"], keys["H23"]) == (100, 111, 255, 291, 823)
    assert sorted(keys.values()) == list(product_legend("lucas-lc").codes)
    assert product_keys("lucas-lu")["U110"] == 110
    assert product_keys("corine") == {}


@pytest.mark.parametrize(
    ("text", "name"),
    [("worldcover", "esa-worldcover"), ("CLC", "corine"), ("corine_raster", "corine-raster"), ("cdl", "usda-cdl")],
)
def test_a_product_goes_by_its_names(text: str, name: str) -> None:
    assert find_product(text).name == name
    assert find_legend(text) == product_legend(name)


def test_no_name_means_two_products() -> None:
    names = [text for product in NAMED.values() for text in (product.name, *product.aliases)]
    assert len({find_product(text).name for text in names}) == len(NAMED)
    assert len(set(names)) == len(names)


def test_a_legend_is_a_name_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("code,name\n1,Maize\n")
    assert find_legend(str(path)).codes == (1,)
    with pytest.raises(LabelError, match="cannot be read"):
        find_legend("clc.csv")
    with pytest.raises(LabelError, match="did you mean 'worldcover'"):
        find_legend("worldcovr")


def test_worldcover_is_as_its_manual_has_it() -> None:
    legend = product_legend("esa-worldcover")
    assert legend.codes == (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)
    assert legend.name(95) == "Mangroves"
    assert legend.classes[0] == LabelClass(10, "Tree cover", "#006400")


def test_attributes_are_cf_flags_one_word_a_class() -> None:
    attrs = product_legend("esa-worldcover").attrs
    assert len(attrs["flag_meanings"].split()) == len(attrs["flag_values"]) == len(attrs["flag_colors"].split()) == 11
    assert attrs["flag_meanings"].split()[5] == "Bare_sparse_vegetation"
    assert attrs["flag_names"][5] == "Bare / sparse vegetation"


def test_names_that_become_the_same_word_are_told_apart_by_code() -> None:
    legend = Legend((LabelClass(1, "a/b"), LabelClass(2, "a b"), LabelClass(3, "森")))
    assert legend.attrs["flag_meanings"] == "a_b_1 a_b_2 class_3"
    assert "flag_colors" not in legend.attrs


def test_an_unknown_product_names_the_known_ones() -> None:
    with pytest.raises(LabelError, match=r"known are cgls-lc100, chesapeake-lc-13.*usgs-lcmap"):
        product_legend("xyz")


def test_a_legend_file_is_read_with_byte_order_mark_and_without_colours(tmp_path: Path) -> None:
    path = tmp_path / "legend.csv"
    path.write_text("\ufeffcode,name,color\n2,Maize,#FFD200\n1,Other,\n", encoding="utf-8")
    assert read_legend(path).classes == (LabelClass(1, "Other"), LabelClass(2, "Maize", "#ffd200"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "code is missing, found none"),
        ("code,color\n1,#ffffff", "name is missing"),
        ("code,name\n", "no rows"),
        ("code,name\nx,Maize", "line 2: code 'x' is not a whole number"),
        ("code,name\n-1,Maize", "code '-1'"),
        ("code,name\n1,", "code 1 has no name"),
        ("code,name\n1,a\n1,b", "code 1 stands twice"),
        ("code,name,color\n1,a,red", "not of the form #rrggbb"),
    ],
)
def test_a_wrong_legend_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(LabelError, match=said):
        parse_legend(text, "legend.csv")


def test_a_missing_legend_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="cannot be read"):
        read_legend(tmp_path / "none.csv")


def test_the_page_about_labels_names_every_product(root: Path) -> None:
    page = (root / "docs" / "labels.md").read_text(encoding="utf-8")
    assert [name for name in PRODUCTS if f"`{name}`" not in page] == []
