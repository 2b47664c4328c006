"""Translations between nomenclatures: as published, told when they lose something, refused when they do not know."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from curate.errors import LabelError
from labels.crosswalk import (
    RANK,
    SIMPLE8,
    TARGETS,
    CrosswalkSpec,
    Least,
    Pair,
    Quality,
    crosswalk,
    open_crosswalk,
    read_crosswalk,
    targets,
)
from labels.legend import NAMED, product_keys, product_legend

Facts = Callable[[str], list[dict[str, str]]]
LEADS = [(name, target) for name in NAMED for target in targets(name)]
LEAST: tuple[Least, ...] = get_args(Least)


@pytest.mark.parametrize(("source", "target"), LEADS)
def test_every_crosswalk_tells_every_class_of_its_source_once(source: str, target: str) -> None:
    walk = crosswalk(source, target)
    assert [pair.code for pair in walk.pairs] == list(product_legend(source).codes)
    for pair in walk.pairs:
        assert (pair.target is None) == (pair.quality == "none")
        assert pair.target is None or pair.target in walk.legend.codes
    assert walk.used, "a crosswalk that gives nothing by default leads nowhere"
    json.dumps(walk.attrs)
    assert pickle.loads(pickle.dumps(walk)) == walk


@pytest.mark.parametrize(("source", "target"), LEADS)
@pytest.mark.parametrize("least", LEAST)
def test_translating_is_looking_up_each_pixel(source: str, target: str, least: Least) -> None:
    walk = crosswalk(source, target, quality=least)
    codes = np.array([*product_legend(source).codes, 65535], np.uint16)
    found = walk.apply(codes, 65535)
    good = {p.code: p.target for p in walk.pairs if p.target is not None and RANK[p.quality] <= RANK[least]}
    assert found.tolist() == [good.get(int(code), walk.ignore) for code in codes]
    assert found.dtype == walk.dtype


@given(st.sampled_from(LEADS), st.sampled_from(LEAST), st.data())
def test_any_picture_keeps_its_shape_and_each_pixel_its_own_meaning(
    lead: tuple[str, str], least: Least, data: st.DataObject
) -> None:
    walk = crosswalk(*lead, quality=least)
    known = [*product_legend(lead[0]).codes, 65535]
    picture = data.draw(arrays.arrays(np.uint16, arrays.array_shapes(max_dims=3), elements=st.sampled_from(known)))
    found = walk.apply(picture, 65535)
    table = {p.code: p.target for p in walk.used}
    assert found.shape == picture.shape
    assert all(int(b) == table.get(int(a), walk.ignore) for a, b in zip(picture.flat, found.flat, strict=True))
    assert set(found.flat) <= {*walk.legend.codes, walk.ignore}


@given(st.sampled_from(LEADS))
def test_asking_for_less_quality_only_adds_classes(lead: tuple[str, str]) -> None:
    used = [set(crosswalk(*lead, quality=least).used) for least in LEAST]
    assert all(better <= worse for better, worse in itertools.pairwise(used))


@pytest.mark.parametrize("name", NAMED)
def test_a_product_to_itself_changes_nothing(name: str) -> None:
    walk = crosswalk(name, name)
    codes = np.array(product_legend(name).codes, np.uint16)
    assert walk.apply(codes, 65535).tolist() == codes.tolist()
    assert {p.quality for p in walk.pairs} == {"identity"}
    assert walk.lossy == walk.left_out == ()
    assert targets(name) == tuple(t for t in targets(name) if t != name)


def test_corine_becomes_the_19_classes_as_published(facts: Facts) -> None:
    index = {row["name"]: int(row["index"]) for row in facts("ben19")}
    wanted = {
        int(row["code"]): index[row["ben19"]] if row["ben19"] else None for row in facts("clc") if row["code"] != "999"
    }
    walk = crosswalk("corine", "clc19")
    assert {p.code: p.target for p in walk.pairs} == wanted
    assert {p.quality for p in walk.used} == {"exact"}
    by_group = {int(r["index"]): {int(c) for c in r["clc_codes"].split("|")} for r in facts("ben19")}
    assert {t: {p.code for p in walk.used if p.target == t} for t in by_group} == by_group


def test_the_classes_that_bigearthnet_dropped_are_unlabelled_and_named() -> None:
    dropped = [122, 123, 124, 131, 132, 133, 141, 142, 332, 334, 335, 423]
    walk = crosswalk("corine", "clc19", quality="ambiguous")
    assert [p.code for p in walk.left_out] == dropped
    assert (walk.apply(np.array(dropped, np.uint16), 65535) == 255).all()
    assert "124 Airports" in walk.attrs["crosswalk"]["left_out"]


def test_rasters_of_corine_have_other_codes_for_the_same_classes(facts: Facts) -> None:
    grid = {int(r["raster_grid_code"]): int(r["code"]) for r in facts("clc") if r["code"] != "999"}
    for target in targets("corine"):
        polygons = {p.code: (p.target, p.quality) for p in crosswalk("corine", target).pairs}
        cells = {p.code: (p.target, p.quality) for p in crosswalk("corine-raster", target).pairs}
        assert cells == {code: polygons[clc] for code, clc in grid.items()}


@pytest.mark.parametrize("level", [1, 2])
def test_levels_of_corine_are_those_of_the_nomenclature(level: int, facts: Facts) -> None:
    rows = [row for row in facts("clc") if row["code_l1"]]
    walk = crosswalk("corine", f"clc-level-{level}")
    assert {p.code: p.target for p in walk.pairs} == {int(r["code"]): int(r[f"code_l{level}"]) for r in rows}
    assert walk.left_out == ()


def test_cci_becomes_ipcc_as_published(facts: Facts) -> None:
    ours = {
        "Agriculture": "Cropland",
        "Forest": "Forest land",
        "Grassland": "Grassland",
        "Wetland": "Wetlands",
        "Settlement": "Settlements",
        "Other": "Other land",
    }
    walk = crosswalk("esa-cci-lc", "ipcc")
    found = {p.code: walk.legend.name(p.target) for p in walk.used if p.target is not None}
    rows = [row for row in facts("esa_cci_lc") if row["ipcc_class"]]
    assert found == {int(row["code"]): ours[row["ipcc_class"].partition(":")[0]] for row in rows}


PIVOT = {
    "worldcover": "esa-worldcover",
    "dynamic_world": "dynamic-world",
    "clc": "corine",
    "ben19": "clc19",
    "usgs-lcmap": "usgs-lcmap-conus-v13",
    "clcplus-backbone": "clc-plus-backbone",
}
"""Names of products in the proposal where ours are others."""


def test_the_proposal_is_taken_over_row_for_row(facts: Facts) -> None:
    rows = facts("crosswalk_pivot")
    seen = Counter[str]()
    for row in rows:
        name = PIVOT.get(row["source"], row["source"])
        keys = product_keys(name)
        code = keys[row["code"]] if keys else int(row["code"])
        if code in NAMED[name].void:
            continue
        seen[name] += 1
        by_target = {t: {p.code: p for p in crosswalk(name, t).pairs} for t in targets(name)}
        if name != "esa-worldcover":
            pair = by_target["esa-worldcover"][code]
            assert (pair.target or 0, pair.quality) == (int(row["worldcover_code"]), row["quality"]), row
            assert pair.note == row["note"]
        assert (by_target["simple8"][code].target or 0) == int(row["simple8_code"])
        ipcc = by_target["ipcc"][code]
        if row["quality"] != "none":  # burnt areas: no class of WorldCover, and not certain to be "other land"
            assert (product_legend("ipcc").name(ipcc.target) if ipcc.target else "") == row["ipcc"]
    assert seen["corine"] == 44
    assert seen["lucas-lc"] == 99
    assert len(seen) == 18


def test_the_eight_classes_are_those_of_worldcover_joined(facts: Facts) -> None:
    found = {int(r["worldcover_code"]): int(r["simple8_code"]) for r in facts("crosswalk_pivot")}
    assert found == {0: 0, **SIMPLE8}
    assert list(product_legend("simple8").codes) == [int(r["code"]) for r in facts("pivot_simple8") if r["code"] != "0"]


def test_a_fit_belongs_to_its_target() -> None:
    # Rangeland is grass and shrub: two classes of WorldCover, but one of the eight.
    assert _pair("io-lulc-annual-v02", "worldcover", 11).quality == "mixed"
    assert _pair("io-lulc-annual-v02", "simple8", 11).quality == "wider"
    # An olive grove looks like trees and is used as cropland.
    assert _pair("corine", "worldcover", 223) == Pair(223, 10, "mixed")
    assert _pair("corine", "ipcc", 223) == Pair(223, 2, "exact")
    # Shrubland and grassland fall together, so it is no longer the same class.
    assert _pair("worldcover", "simple8", 20) == Pair(20, 2, "exact")


def _pair(source: str, target: str, code: int) -> Pair:
    return next(p for p in crosswalk(source, target).pairs if p.code == code)


def test_what_is_lost_is_told_in_the_attributes() -> None:
    walk = crosswalk("io-lulc-annual-v02", "simple8")
    told = walk.attrs["crosswalk"]
    assert (told["from"], told["to"], told["quality"]) == ("io-lulc-annual-v02", "simple8", "wider")
    assert told["inexact"]["11 Rangeland"].startswith("wider")
    assert told["left_out"] == {"10 Clouds": "none"}
    assert told["merged"] == {}
    assert walk.attrs["flag_values"] == [1, 2, 3, 4, 5, 6, 7, 8]
    wc = crosswalk("worldcover", "simple8")
    assert wc.merged == {1: (10, 95), 2: (20, 30, 100)}
    assert {p.code for p in wc.lossy} == {10, 20, 30, 95, 100}
    assert wc.attrs["crosswalk"]["merged"]["1 Trees"] == ["10 Tree cover", "95 Mangroves"]


def test_a_code_that_nobody_knows_is_an_error_and_not_a_class() -> None:
    walk = crosswalk("worldcover", "simple8")
    with pytest.raises(LabelError, match=r"from esa-worldcover to simple8: does not know 11, 96;"):
        walk.apply(np.array([[10, 11], [96, 255]], np.uint8), 255)


def test_the_ignore_value_moves_with_the_type_and_is_never_a_class() -> None:
    atlas = crosswalk("urban-atlas", "worldcover")
    assert atlas.apply(np.array([11100, 31000, 65535], np.uint16), 65535).tolist() == [255, 10, 255]
    lucas = crosswalk("lucas-lc", "lucas-lc")
    assert (lucas.dtype, lucas.ignore) == ("uint16", 65535)
    walk = crosswalk("worldcover", "simple8")
    assert walk.apply(np.array([10, 0], np.uint8), 0, ignore_out=0).tolist() == [1, 0]
    for wrong in (1, 256, -1):
        with pytest.raises(LabelError, match="cannot be the ignore value"):
            walk.apply(np.array([10], np.uint8), 255, ignore_out=wrong)
    with pytest.raises(LabelError, match="are int64"):
        walk.apply(np.array([10]), 255)


def test_dynamic_world_has_a_class_0_and_it_is_water() -> None:
    walk = crosswalk("dynamic-world", "worldcover")
    assert walk.apply(np.array([0, 1, 255], np.uint8), 255).tolist() == [80, 10, 255]


def test_a_translated_code_is_always_one_of_the_targets_never_something_between() -> None:
    # SatChip warps labels bilinearly and rounds, earthnet-minicuber takes the median over versions of WorldCover: both
    # make classes that nobody mapped. Here 20 next to 40 gives 20 and 40.
    walk = crosswalk("worldcover", "worldcover")
    assert walk.apply(np.array([20, 40], np.uint8), 255).tolist() == [20, 40]
    with pytest.raises(LabelError, match="does not know 25"):
        walk.apply(np.array([25], np.uint8), 255)


OWN = "source_code,target_code,quality\n1,10,exact\n2,10,mixed\n3,,\n4,40,\n5,20,none\n"


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("\ufeff" + OWN)
    spec = CrosswalkSpec(to="worldcover", table=str(path))
    walk = open_crosswalk(spec, "fields")
    assert walk.apply(np.array([1, 2, 3, 4, 5, 255], np.uint8), 255).tolist() == [10, 255, 255, 40, 255, 255]
    assert walk.attrs["crosswalk"] == {
        "from": "fields",
        "to": "worldcover",
        "origin": "mine.csv",
        "quality": "wider",
        "merged": {},
        "inexact": {},
        "left_out": {"2": "mixed", "3": "none", "5": "none"},
    }
    more = read_crosswalk(path, "fields", "worldcover", quality="mixed")
    assert more.apply(np.array([1, 2], np.uint8), 255).tolist() == [10, 10]
    assert more.merged == {10: (1, 2)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found none"),
        ("source,target\n1,10", "found source, target"),
        ("source_code,target_code\n", "gives no class"),
        ("source_code,target_code\n1,\n", "gives no class"),
        ("source_code,target_code\n,10", "line 2: source_code ''"),
        ("source_code,target_code\n-1,10", "source_code '-1'"),
        ("source_code,target_code\n70000,10", "source_code '70000' is not a whole number from 0 to 65535"),
        ("source_code,target_code\n1,11", "line 2: target_code 11 is not in the target's legend"),
        ("source_code,target_code\n1,10\n1,20", "line 3: code 1 stands twice"),
        ("source_code,target_code,quality\n1,10,good", "quality 'good' is not known"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(LabelError, match=said):
        read_crosswalk(path, "fields", "worldcover")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="cannot be read"):
        read_crosswalk(tmp_path / "none.csv", "fields", "worldcover")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"to": ""}, "to is empty"),
        ({"to": "worldcovr"}, "did you mean 'worldcover'"),
        ({"to": "nlcd"}, "no crosswalk leads to nlcd; wanted one of esa-worldcover, simple8"),
    ],
)
def test_a_wrong_target_is_refused_in_the_recipe(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CrosswalkSpec(**fields)


def test_a_target_that_a_product_does_not_lead_to_is_named_with_those_it_does() -> None:
    with pytest.raises(LabelError, match="from nlcd: none leads to clc19; it can become esa-worldcover, simple8, ipcc"):
        crosswalk("nlcd", "clc19")
    with pytest.raises(LabelError, match="it can become nothing, or give a table"):
        crosswalk("lucas-lu", "simple8")


def test_every_target_is_reached_and_every_quality_ranked() -> None:
    assert {target for _, target in LEADS} == set(TARGETS)
    assert tuple(RANK) == get_args(Quality) == (*LEAST, "none")


def test_a_recipe_can_be_read_without_numpy() -> None:
    code = (
        "import sys\nfrom labels.crosswalk import *\n"
        "CrosswalkSpec(to='clc19')\ncrosswalk('clc', 'clc19')\nprint('numpy' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
