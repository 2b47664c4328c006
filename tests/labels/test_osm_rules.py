from __future__ import annotations

import csv
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import LabelError
from labels.osm_spec import OsmLabel
from labels.rules import (
    KINDS,
    RULE_SETS,
    Condition,
    Kind,
    Match,
    has_to_close,
    is_area,
    parse_conditions,
    parse_metres,
    read_rules,
)

FACTS = Path(__file__).resolve().parents[2].parent / "shared" / "facts" / "tables"
needs_facts = pytest.mark.skipif(not FACTS.is_dir(), reason="the tables of facts are not here: no ../shared/facts")


def match(rules: str, kind: Kind = "area", **tags: str) -> Match:
    found = read_rules(rules).match(tags, kind)
    assert found is not None
    return found


# --- conditions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tags", "holds"),
    [
        ("natural=wood", {"natural": "wood"}, True),
        ("natural=wood", {"natural": "water"}, False),
        ("natural=wood|water", {"natural": "water"}, True),
        ("natural=wood", {"natural": "water;wood"}, True),
        ("building=*", {"building": "shed"}, True),
        ("building=*", {}, False),
        ("building=*", {"building": "no"}, False),
        ("building=*|construction", {"building": "construction"}, True),
        ("a=b & !tunnel", {"a": "b", "tunnel": "no"}, True),
        ("building=* & building!=no|proposed", {"building": "no"}, False),
        ("building=* & building!=no|proposed", {"building": "yes"}, True),
        ("building!=no", {}, True),
        ("a=b & !tunnel", {"a": "b", "tunnel": "yes"}, False),
        ("a=b & !tunnel", {"a": "b"}, True),
        ("layer<0", {"layer": "-1"}, True),
        ("layer<0", {"layer": "0"}, False),
        ("layer<0", {"layer": "low"}, False),
        ("layer<0", {}, False),
        ("lanes>2", {"lanes": "3"}, True),
        ("area:highway=*", {"area:highway": "footway"}, True),
    ],
)
def test_conditions_mean_what_they_say(text: str, tags: dict[str, str], holds: bool) -> None:
    assert all(c.holds(tags) for c in parse_conditions(text)) is holds


@pytest.mark.parametrize(
    "text", ["natural", "natural=", "=wood", "natural=wood &", "layer<low", "layer<0|1", "", "a=b=c"]
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"condition|value|number"):
        parse_conditions(text)


VALUES = st.frozensets(st.sampled_from(["a", "b", "no", "*"]), min_size=1)
CONDITIONS = st.builds(Condition, st.just("k"), st.sampled_from(["=", "!="]), VALUES)


@given(CONDITIONS, CONDITIONS, st.sampled_from([{}, {"k": "a"}, {"k": "b"}, {"k": "no"}, {"k": "d"}, {"k": "a;d"}]))
def test_what_one_condition_implies_holds_wherever_it_holds(
    one: Condition, other: Condition, tags: dict[str, str]
) -> None:
    if one.implies(other) and one.holds(tags):
        assert other.holds(tags)


@pytest.mark.parametrize(
    ("text", "metres"),
    [("3.5", 3.5), ("3,5 m", 3.5), ("12 ft", 3.6576), ("6'6\"", 1.9812), ("10'", 3.048), ("350 cm", 3.5),
     ("0.01km", 10.0), ("wide", None), ("", None), ("-3", None), ("3-4", None), ("3;4", None)],
)  # fmt: skip
def test_measures_are_read_as_mappers_write_them(text: str, metres: float | None) -> None:
    assert parse_metres(text) == pytest.approx(metres)


@pytest.mark.parametrize(
    ("tags", "area"),
    [
        ({"building": "yes"}, True),
        ({"landuse": "forest"}, True),
        ({"natural": "water"}, True),
        ({"natural": "coastline"}, False),
        ({"natural": "tree_row"}, False),
        ({"highway": "residential"}, False),
        ({"highway": "residential", "area": "yes"}, True),
        ({"highway": "primary", "junction": "roundabout", "surface": "asphalt"}, False),
        ({"highway": "services"}, True),
        ({"leisure": "track"}, True),
        ({"leisure": "park", "area": "no"}, False),
        ({"waterway": "riverbank"}, True),
        ({"waterway": "river"}, False),
        ({"aeroway": "taxiway"}, False),
        ({"aeroway": "apron"}, True),
        ({"barrier": "fence"}, False),
        ({"man_made": "embankment"}, False),
        ({"name": "x"}, False),
    ],
)
def test_a_closed_way_is_an_area_or_a_ring_by_its_tags(tags: dict[str, str], area: bool) -> None:
    assert is_area(tags) is area


@given(
    st.dictionaries(
        st.sampled_from(["natural", "leisure", "landuse", "building", "area"]),
        st.sampled_from(["yes", "no", "water", "track", "cliff"]),
    )
)
def test_what_has_to_close_is_an_area_when_it_does(tags: dict[str, str]) -> None:
    if tags.get("area") != "no" and has_to_close(tags):
        assert is_area(tags)


# --- what we ship ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(RULE_SETS))
def test_every_shipped_rule_set_is_whole(name: str) -> None:
    info, rules = RULE_SETS[name], read_rules(name)
    assert rules.legend.classes == info.classes
    assert info.title
    assert info.licence
    assert info.attribution
    # A class that no rule gives would be a promise; the two that osmclcplus has only through its other source are none.
    assert {rule.code for rule in rules.rules} == set(rules.legend.codes)
    for rule in rules.rules:
        assert rule.kinds <= set(KINDS)
        assert not {"boundary", "route"} & {c.key for c in rule.conditions}
        if "line" in rule.kinds and name != "olmoearth":
            assert rule.width_m is not None
    assert not any(
        rules.match({"boundary": "administrative", "place": "city", "leisure": "nature_reserve"}, k) for k in KINDS
    ) or name in ("olmoearth", "osmclcplus")


@needs_facts
def test_our_landuse_rules_are_the_crosswalk() -> None:
    """Every tag of the comparison gives the class proposed there, and those without a class give none."""
    rules = read_rules("landuse")
    with (FACTS / "osm_tag_crosswalk.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if "(" not in row["value"]]
    assert len(rows) > 85
    for row in rows:
        tags = {row["key"]: "yes" if row["value"] == "*" else row["value"]}
        codes = {m.code for kind in KINDS if (m := rules.match(tags, kind))}
        proposed = int(row["worldcover_pivot_proposed"])
        assert codes == ({proposed} if proposed else set()), row


GONE = {
    "building": {"no", "proposed", "demol", "demolished", "razed", "removed"},
    "railway": {"abandoned", "construction", "disused", "dismantled", "proposed", "razed"},
    "highway": {"proposed"},
}


@needs_facts
def test_osmclcplus_is_the_published_table() -> None:
    """Every row by itself gives its class, but for the keys and lifecycles that are left out by name."""
    rules = read_rules("osmclcplus")
    with (FACTS / "osm_polygon_rules.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2736
    wrong = []
    for row in rows:
        found = rules.match({row["key"]: row["value"]}, "area")
        gone = row["key"] in ("boundary", "place", "route") or (
            row["key"] in ("building", "railway", "highway") and row["value"] in GONE[row["key"]]
        )
        if gone:
            assert found is None, row
        elif found is None or (not found.skipped and found.code != int(row["code"])):
            wrong.append((row["key"], row["value"]))
    assert not wrong
    with (FACTS / "osm_line_rules.csv").open() as file:
        for row in csv.DictReader(file):
            found = rules.match({row["key"]: row["value"]}, "line")
            if row["key"] == "route" or (row["key"] == "railway" and row["value"] in GONE["railway"]):
                assert found is None
            else:
                assert found is not None
                assert (found.code, found.width_m) == (int(row["code"]), 2 * float(row["buffer_m"])), row


@needs_facts
@pytest.mark.parametrize(
    ("name", "table", "column"),
    [("schultz", "osm_clc2_schultz.csv", "clc_l2"), ("inta", "osm_lccs_inta.csv", "lccs_class")],
)
def test_schultz_and_inta_say_what_the_papers_say(name: str, table: str, column: str) -> None:
    """Our tables come from the comparison; the published lists of values must not say otherwise."""
    with (FACTS / table).open() as file:
        published = {row["osm_value"]: float(row[column]) for row in csv.DictReader(file)}
    scale = 10 if name == "schultz" else 1
    for rule in read_rules(name).rules:
        (value,) = rule.conditions[0].values
        assert rule.code == round(scale * published[value]), rule.text


def test_olmoearth_has_its_thirty_channels_in_order() -> None:
    names = [c.name for c in RULE_SETS["olmoearth"].classes]
    assert len(names) == 30
    assert names == sorted(names)
    assert match("olmoearth", "area", man_made="chimney").draw == "centre"
    assert match("olmoearth", "line", highway="footway").width_m is None
    # Nothing excludes anything: a fuel station in a building is both.
    both = match("olmoearth", "area", building="yes", amenity="fuel")
    assert {names[code - 1] for code, _, _ in both.also} == {"building", "amenity_fuel"}


# --- matching --------------------------------------------------------------------------------------------------------


def test_a_special_case_wins_over_the_general_one_and_is_no_contradiction() -> None:
    assert match("landuse", natural="wetland").code == 90
    mangrove = match("landuse", natural="wetland", wetland="mangrove")
    assert (mangrove.code, mangrove.losers) == (95, ())


def test_contradicting_tags_are_settled_by_priority_and_told() -> None:
    found = match("landuse", landuse="forest", natural="wetland")
    assert (found.code, found.losers) == (90, (10,))
    assert match("landuse", landuse="forest;meadow").losers == (30,)
    assert match("landuse", landuse="forest", natural="wood").losers == ()


@pytest.mark.parametrize(
    "tags",
    [{"tunnel": "yes"}, {"layer": "-1"}, {"location": "underground"}, {"proposed": "yes"}, {"indoor": "yes"}],
)
def test_what_is_underground_or_not_there_is_skipped_with_a_reason(tags: dict[str, str]) -> None:
    assert match("landuse", "line", highway="primary", **tags).skipped
    assert not match("landuse", "line", highway="primary", tunnel="no", layer="1").skipped


def test_a_road_on_an_abandoned_railway_is_a_road() -> None:
    assert match("landuse", "line", highway="primary", railway="abandoned").code == 50
    assert read_rules("landuse").match({"railway": "abandoned"}, "line") is None
    assert read_rules("olmoearth").match({"highway": "proposed"}, "line") is None


def test_brooks_with_layer_minus_one_are_not_underground() -> None:
    assert not match("landuse", "line", waterway="river", layer="-1").skipped
    assert match("landuse", "line", waterway="river", tunnel="culvert").skipped


@pytest.mark.parametrize(
    ("tags", "metres"),
    [
        ({"highway": "residential"}, 6.0),
        ({"highway": "residential", "lanes": "3"}, 9.75),
        ({"highway": "residential", "lanes": "3", "est_width": "7"}, 7.0),
        ({"highway": "residential", "est_width": "7", "width": "5.5 m"}, 5.5),
        ({"highway": "residential", "width": "0.2"}, 6.0),
        ({"highway": "residential", "width": "600"}, 6.0),
        ({"highway": "residential", "width": "wide", "lanes": "2"}, 6.5),
        ({"highway": "residential", "lanes": "40"}, 6.0),
        ({"waterway": "river", "lanes": "2"}, 10.0),
        ({"waterway": "river", "width": "25"}, 25.0),
    ],
)
def test_widths_come_from_the_tags_where_they_are_plausible(tags: dict[str, str], metres: float) -> None:
    assert match("landuse", "line", **tags).width_m == metres


SOME_KEYS = st.sampled_from(["landuse", "natural", "building", "highway", "width", "lanes", "layer", "name"])
SOME_VALUES = st.sampled_from(["forest", "water", "yes", "no", "primary", "3", "-1", "a;b", ""])


@given(st.dictionaries(SOME_KEYS, SOME_VALUES), st.sampled_from(KINDS), st.sampled_from(sorted(RULE_SETS)))
def test_any_tags_give_a_class_of_the_legend_or_none(tags: dict[str, str], kind: Kind, name: str) -> None:
    rules = read_rules(name)
    found = rules.match(tags, kind)
    if found is None:
        return
    assert rules.keys & tags.keys()
    if not found.skipped:
        assert found.code in rules.legend.codes
        assert found.also[0][0] == found.code
        assert {found.code, *found.losers} == {code for code, _, _ in found.also}


# --- files of one's own ----------------------------------------------------------------------------------------------

TOML = """
title = "Mine"
[[classes]]
code = 1
name = "wood"
[[classes]]
code = 2
name = "road"
color = "#FF0000"
[[rules]]
tags = ["natural=wood", "landuse=forest"]
class = "wood"
[[rules]]
tags = "highway=*"
class = 2
kinds = ["line"]
width_m = 5
priority = 9
"""
YAML = """
title: Mine
classes:
  - {code: 1, name: wood}
  - {code: 2, name: road, color: "#FF0000"}
rules:
  - tags: [natural=wood, landuse=forest]
    class: wood
  - tags: highway=*
    class: 2
    kinds: [line]
    width_m: 5
    priority: 9
"""
CSV = """tags,code,class,kinds,width_m,priority,color
natural=wood,1,wood,area,,,
landuse=forest,1,wood,area,,,
highway=*,2,road,line,5,9,#ff0000
"""


@pytest.mark.parametrize(("name", "text"), [("mine.toml", TOML), ("mine.yaml", YAML), ("mine.csv", CSV)])
def test_rules_of_ones_own_are_the_same_in_every_format(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    rules = read_rules(str(tmp_path / name))
    assert [(c.code, c.name, c.color) for c in rules.legend.classes] == [(1, "wood", None), (2, "road", "#ff0000")]
    assert rules.keys == {"natural", "landuse", "highway"}
    road = rules.match({"highway": "path"}, "line")
    assert road is not None
    assert (road.code, road.width_m, road.priority) == (2, 5.0, 9)
    assert rules.match({"highway": "path"}, "area") is None
    assert rules.match({"landuse": "forest"}, "area") is not None


def test_a_table_may_stand_beside_its_rules(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[[tables]]\nfile = "t.csv"\nkinds = ["line"]\nwithout = ["highway=path"]\n')
    (tmp_path / "t.csv").write_text("key,value,code,class,buffer_m\nhighway,path,3,path,1\nhighway,road,4,road,2.5\n")
    rules = read_rules(str(tmp_path / "a.toml"))
    assert [(r.text, r.code, r.width_m) for r in rules.rules] == [("highway=road", 4, 5.0)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "rules = 3", r"a\.toml, rules: found 3, wanted a list"),
        ("a.toml", "x = 3", r"a\.toml: key 'x' is not known"),
        ("a.toml", "rules = [", r"a\.toml: this is no TOML"),
        ("a.toml", "", r"a\.toml: there is no rule"),
        ("a.toml", '[[rules]]\ntags = "a=b"\nclas = 1', r"rules\[1\]: key 'clas' is not known; did you mean class"),
        ("a.toml", '[[rules]]\ntags = "a=b"', r"rules\[1\]: class is missing"),
        ("a.toml", '[[rules]]\ntags = "a~b"\nclass = 1', r"rules\[1\]: 'a~b' is no condition"),
        ("a.toml", '[[rules]]\ntags = "a!=b"\nclass = 1', r"rules\[1\]: at least one condition has to be key=value"),
        ("a.toml", '[[rules]]\ntags = "a=b"\nclass = 1\nkinds = ["way"]', r"rules\[1\]: kinds is \['way'\]; wanted"),
        ("a.toml", '[[rules]]\ntags = "a=b"\nclass = 1\nwidth_m = -2', r"rules\[1\]: width_m is -2"),
        ("a.toml", '[[rules]]\ntags = "a=b"\nclass = 99999', r"rules\[1\]: code 99999 is not between"),
        ("a.toml", '[[rules]]\ntags = "a=b"\nclass = 1\ndraw = "blob"', r"rules\[1\]: draw is 'blob'"),
        ("a.toml", '[[classes]]\ncode = 1\nname = "x"\n[[rules]]\ntags = "a=b"\nclass = 2', r"class 2, which classes"),
        ("a.toml", '[[classes]]\ncode = 1\nname = "oak"\n[[rules]]\ntags = "a=b"\nclass = "oac"', "did you mean 'oak'"),
        ("a.toml", '[[classes]]\ncode = 1\nname = "x"\n[[classes]]\ncode = 1\nname = "y"', "code 1 stands twice"),
        ("a.toml", '[[classes]]\ncode = 1', r"classes\[1\]: class 1 has no name"),
        ("a.toml", '[[tables]]\nfile = "none.csv"', r"none\.csv: the file cannot be read"),
        ("a.yaml", "rules:\n- tags: a=b\n  class: 1\n- tags: a=c\n  klass: 2\n", r"\[2\] \(line 4\): key 'klass'"),
        ("a.yaml", "- 3\n", r"has keys \(rules, classes …\) at its top"),
        ("a.yaml", "rules: [", r"this is no YAML: .*line 1"),
        ("a.csv", "tags,code\na=b,1\na~b,2\n", r"a\.csv, line 3: 'a~b' is no condition"),
        ("a.csv", "tags,code\na=b,one\n", r"a\.csv, line 2: found 'one', wanted a whole number"),
        ("a.csv", "tags,code,width_m\na=b,1,thick\n", r"a\.csv, line 2: width_m or buffer_m is no number"),
        ("a.csv", "tags,code,with\na=b,1,2\n", r"column 'with' is not known"),
        ("a.csv", "key,code\na,1\n", r"has the columns tags \(or key and value\)"),
        ("a.csv", "tags,code,class\na=b,1,x\na=c,1,y\n", r"line 3: code 1 is 'x' above and 'y' here"),
    ],
)  # fmt: skip
def test_a_mistake_in_rules_is_told_with_its_place(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(LabelError, match=said) as caught:
        read_rules(str(tmp_path / name))
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


def test_rules_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="did you mean landuse"):
        read_rules("landuze")
    with pytest.raises(LabelError, match="the file cannot be read"):
        read_rules(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rules": "landuze"}, "did you mean 'landuse'"),
        ({"extract": ""}, "extract is empty"),
        ({"output": ()}, "output is empty"),
        ({"output": ("mask", "mask")}, "twice"),
        ({"background": 3, "ignore": 3}, "both 3"),
        ({"output": "presence", "background": 3}, "options of the mask"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OsmLabel(**{"extract": "a.osm.pbf", **options})  # type: ignore[arg-type]


def test_rules_are_a_path_only_where_they_look_like_one() -> None:
    assert OsmLabel("a.osm.pbf").paths == ("extract",)
    assert OsmLabel("a.osm.pbf", rules="mine.toml").paths == ("extract", "rules")
