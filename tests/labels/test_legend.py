from __future__ import annotations

from pathlib import Path

import pytest

from curate.errors import LabelError
from labels.legend import PRODUCTS, LabelClass, Legend, parse_legend, product_legend, read_legend


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_every_product_has_a_complete_legend_with_one_colour_a_class(name: str) -> None:
    legend = product_legend(name)
    assert PRODUCTS[name].nodata not in legend.codes
    assert all(c.name for c in legend.classes)
    colors = [c.color for c in legend.classes]
    assert None not in colors
    assert len(set(colors)) == len(colors)


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
    with pytest.raises(LabelError, match="known are esa-worldcover"):
        product_legend("worldcover")


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
