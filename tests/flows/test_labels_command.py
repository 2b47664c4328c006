"""`curate labels` as a user meets it: lists, legends with colours, crosswalks, and one sentence for a wrong name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from flows.legends import legend_text, rules_text, span
from labels.crosswalk import TARGETS, crosswalk
from labels.legend import NAMED, PRODUCTS, product_legend
from labels.listing import describe_legend, describe_rules
from labels.rules import RULE_SETS, read_rules

Curate = Callable[..., Any]


@pytest.fixture(scope="module")
def lines(curate: Curate) -> list[str]:
    done = curate("labels")
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout).splitlines()


def test_every_name_is_listed_with_its_years_and_licence(lines: list[str]) -> None:
    for name, product in NAMED.items():
        (line, *_) = [line for line in lines if line.split()[:1] == [name]]
        assert product.licence in line
        assert product.title in line
    (line,) = [line for line in lines if line.split()[:1] == ["esa-cci-lc"]]
    assert "1992–2020" in line
    assert "300" in line
    assert "globeland30" in "".join(line for line in lines if "not verified" in line)


def test_lists_are_json_for_programs(curate: Curate) -> None:
    lists = json.loads(curate("labels", "--json").stdout)
    assert {row["name"] for row in lists["products"]} == set(PRODUCTS)
    assert {row["name"] for row in lists["products"] + lists["legends"]} == set(NAMED)
    assert [row["name"] for row in lists["crosswalks"]] == list(TARGETS)
    assert lists["products"][0]["years"] == [2020, 2021]


@pytest.mark.parametrize("name", NAMED)
def test_a_legend_is_shown_a_class_a_line(name: str) -> None:
    legend = product_legend(name)
    lines = click.unstyle(legend_text(describe_legend(name))).splitlines()[-len(legend.codes) :]
    for line, c in zip(lines, legend.classes, strict=True):
        assert line.split()[0] == str(c.code)
        assert c.name in line
        assert c.color is None or line.endswith(c.color)


def test_colours_are_shown_on_a_terminal_and_left_out_elsewhere(curate: Curate) -> None:
    shown = legend_text(describe_legend("worldcover"))
    assert click.style("   ", bg=(0, 100, 0)) + "   10  Tree cover" in shown
    assert curate("labels", "show", "worldcover").stdout == click.unstyle(shown) + "\n"


def test_a_legend_is_json_for_programs(curate: Curate) -> None:
    facts = json.loads(curate("labels", "show", "CLC", "--json").stdout)
    assert (facts["name"], facts["mmu_ha"], facts["use"], facts["nodata"]) == ("corine", 25, "mixed", [999])
    assert facts["classes"][0] == {"code": 111, "name": "Continuous urban fabric", "color": "#e6004d"}
    assert "clc19" in facts["targets"]


def test_a_crosswalk_is_shown_with_its_quality(curate: Curate) -> None:
    text = curate("labels", "show", "clc", "--to", "worldcover").stdout
    (line,) = [line for line in text.splitlines() if line.split()[:1] == ["311"]]
    assert line.split("  ")[-1] == "exact"
    (line,) = [line for line in text.splitlines() if line.split()[:1] == ["124"]]
    assert line.split()[2] == "-", "a class that is left out does not look as if it were used"
    assert line.endswith("mixed      50 Built-up; runways + large grass")
    assert "22 of 44 classes are used with quality wider" in text
    facts = json.loads(curate("labels", "show", "clc", "--to", "worldcover", "--json").stdout)
    walk = crosswalk("clc", "worldcover")
    assert {p["code"]: p["target_code"] for p in facts["pairs"] if p["used"]} == {p.code: p.target for p in walk.used}


def test_a_wrong_name_is_a_sentence_with_the_nearest(curate: Curate) -> None:
    wrong = curate("labels", "show", "worldcovr")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean 'worldcover'" in wrong.stderr
    nowhere = curate("labels", "show", "nlcd", "--to", "clc19")
    assert nowhere.returncode == 2
    assert "none leads to clc19; it can become esa-worldcover" in nowhere.stderr


def test_years_are_spans_where_they_run_on() -> None:
    assert span([1985, 1992, 1993, 1994, 1996, 1997]) == "1985, 1992–1994, 1996, 1997"


@pytest.mark.parametrize("name", RULE_SETS)
def test_rules_for_openstreetmap_are_shown_a_rule_a_line(name: str) -> None:
    rules = read_rules(name)
    lines = rules_text(describe_rules(name)).splitlines()[-len(rules.rules) :]
    for line, rule in zip(lines, rules.rules, strict=True):
        assert line.strip().startswith(rule.text)
        assert f"{rule.code}  {rules.legend.name(rule.code)}" in line


def test_rules_of_ones_own_are_shown_and_their_mistakes_told(curate: Curate, tmp_path: Path) -> None:
    rules = tmp_path / "mine.csv"
    rules.write_text("tags,code,class,width_m,kinds\nlanduse=forest,1,forest,,area\nhighway=*,2,road,6,line\n")
    assert json.loads(curate("labels", "show", str(rules), "--json").stdout)["rules"][1] == {
        "tags": "highway=*", "kinds": ["line"], "code": 2, "class": "road", "priority": 0, "width_m": 6.0, "draw": "",
        "fallback": "",
    }  # fmt: skip
    rules.write_text("tags,code,class\nlanduse,1,forest\n")
    done = curate("labels", "show", str(rules))
    assert done.returncode == 2
    assert "line 2" in done.stderr
