"""What licences ask, what they ask together, and what a policy makes of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from catalog.collections import collection, collection_names
from labels.legend import NAMED
from labels.osm import LICENCE as OSM_LICENCE
from publish.licence import MIXED, UNKNOWN, RollUp, find_licence, judge, licences, spell_years, term
from publish.licence_spec import LicenceSpec, TermsSpec


def roll_up(**licence: str) -> RollUp:
    return RollUp(tuple(term(name, "source", name.upper(), said, f"by {name}") for name, said in licence.items()))


def test_every_licence_that_a_table_names_is_known() -> None:
    named = {collection(name).licence for name in collection_names()} - {""} | {p.licence for p in NAMED.values()}
    named.add(OSM_LICENCE)
    assert {name for name in named if name not in licences() and find_licence(name).known} == set()


def test_every_collection_of_images_has_terms_and_a_line_to_say() -> None:
    rows = {name: collection(name) for name in collection_names()}
    images = {name: row for name, row in rows.items() if row.kind != "classes"}
    assert {
        name for name, row in images.items() if not (row.licence and row.attribution and row.licence_source)
    } == set()


def test_the_strictest_of_a_mix_is_the_one_that_asks_most() -> None:
    mix = roll_up(s2="Copernicus Sentinel", osm="ODbL-1.0", lulc="CC-BY-4.0")
    assert mix.strictest.name == "ODbL-1.0"
    assert mix.share_alike == ("osm",)
    assert mix.non_commercial == mix.unknown == ()
    assert (mix.one, mix.name) == (None, MIXED)
    assert roll_up(a="CC-BY-4.0", b="cc-by-4.0").name == "CC-BY-4.0"


@pytest.mark.parametrize(
    ("name", "alike", "unpaid"),
    [
        ("CC-BY-NC-ND-3.0", False, True),
        ("CC BY-NC-SA 3.0", True, True),
        ("CC-BY-SA-3.0", True, False),
        ("mine", False, False),
    ],
)
def test_the_name_of_a_creative_commons_licence_tells_what_it_asks(name: str, alike: bool, unpaid: bool) -> None:
    found = find_licence(name)
    assert (found.share_alike, found.non_commercial, found.known) == (alike, unpaid, True)


@pytest.mark.parametrize("name", ["", " ", "not verified", "not stated"])
def test_terms_that_nobody_told_are_the_strictest_of_all(name: str) -> None:
    assert find_licence(name).name == UNKNOWN
    assert roll_up(a="CC-BY-NC-SA-4.0", b=name).unknown == ("b",)
    assert roll_up(a="CC-BY-NC-SA-4.0", b=name).strictest.name == UNKNOWN


def test_share_alike_and_non_commercial_terms_contradict_each_other() -> None:
    (_, sticky, clash) = roll_up(osm="ODbL-1.0", crops="CC-BY-NC-4.0").remarks
    assert "osm" in sticky
    assert "ODbL-1.0" in clash
    assert "CC-BY-NC-4.0" in clash


def test_a_policy_refuses_warns_or_is_silent() -> None:
    mix = roll_up(osm="ODbL-1.0", crops="CC-BY-NC-4.0", own="", s2="Copernicus Sentinel")
    refused, warned = judge(mix, LicenceSpec())
    assert refused == ()
    assert [sentence.split(" (")[0] for sentence in warned] == ["source osm", "source crops"]
    refused, warned = judge(mix, LicenceSpec(non_commercial="refuse", share_alike="allow", unknown="refuse"))
    assert [sentence.split(" (")[0] for sentence in refused] == ["source crops", "source own"]
    assert warned == ()
    refused, _ = judge(mix, LicenceSpec(allow=("copernicus sentinel", "odbl-1.0")))
    assert [sentence.split(" (")[0] for sentence in refused] == ["source crops", "source own"]


def test_what_the_recipe_says_goes_before_the_tables() -> None:
    said = TermsSpec("ours", attribution="Us {years}", non_commercial=True)
    found = term("crops", "label", "crops.gpkg", "", "", said=said, years=(2021, 2018, 2020))
    assert found.licence.name == "ours"
    assert found.licence.non_commercial
    assert found.attribution == "Us 2018, 2020-2021"
    kept = term("s2", "source", "S2", "CC-BY-4.0", "by ESA", said=TermsSpec("CC-BY-4.0"))
    assert (kept.attribution, kept.licence.rank) == ("by ESA", 1)


def test_years_are_spelled_as_spans() -> None:
    assert spell_years([]) == ""
    assert spell_years([2020, 2018, 2019, 2019, 2022]) == "2018-2020, 2022"


def test_a_line_to_say_without_years_has_no_gap() -> None:
    assert term("s2", "source", "S2", "", "data {years} of ESA").attribution == "data of ESA"


def test_the_licences_of_the_page_are_what_a_recipe_may_say() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    spec = TypeAdapter(LicenceSpec).validate_python(yaml.safe_load(snippet)["licence"])
    assert (spec.unknown, spec.non_commercial) == ("refuse", "refuse")
    assert "{years}" in spec.of["fields"].attribution
    with pytest.raises(ValueError, match="licence is empty"):
        TypeAdapter(LicenceSpec).validate_python({"of": {"fields": {"licence": " "}}})
