"""Which OpenStreetMap tags mean which class: rule sets as tables, ours and the user's own, read and checked once.

A rule says what tags a feature has to have, as what kind of geometry, and then its class, how wide a line is, and what
it is drawn over. Rule sets are files (TOML or YAML, with tables of rules in CSV, or a CSV alone) of one schema; those
we ship lie in ``tables/osm``. Tags that contradict each other are never settled in silence: see `Match.losers`.
"""

from __future__ import annotations

import csv
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from curate.errors import LabelError
from labels.legend import HEX_COLOR, LabelClass, Legend, find_product

Kind = Literal["point", "line", "area"]
KINDS: tuple[Kind, ...] = ("point", "line", "area")

Draw = Literal["itself", "outline", "centre"]
DRAWS: tuple[Draw, ...] = ("itself", "outline", "centre")

ANY = "*"
NOT_THERE = frozenset(
    {
        "no",
        "proposed",
        "planned",
        "construction",
        "abandoned",
        "disused",
        "razed",
        "dismantled",
        "demolished",
        "removed",
    }
)
"""Values that say that a thing is not, not yet or no longer what its key says: ``*`` does not mean them. A road on an
abandoned railway is a road."""
MAX_RULE_CODE = 65534

WIDTH_KEYS = ("width", "est_width")
"""Tags that tell how wide a line is, the better one first."""
PLAUSIBLE_WIDTH_M = (0.5, 60.0)
"""A width outside of this is a slip of the keyboard, or of the unit."""
LANE_M = 3.25
"""Width of a lane where only their number is known."""
_UNITS_M = {"": 1.0, "m": 1.0, "metres": 1.0, "meters": 1.0, "cm": 0.01, "km": 1000.0, "ft": 0.3048, "feet": 0.3048}
_MEASURE = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_FEET = re.compile(r"\s*(\d+(?:\.\d+)?)\s*'\s*(?:(\d+(?:\.\d+)?)\s*\")?\s*")

DEFAULT_SKIP = (
    # What lies below the ground is not seen from above.
    "tunnel=*",
    "location=underground|underwater|indoor",
    "indoor=*",
    # Brooks have often been given layer -1 for the sake of bridges over them, without any tunnel.
    "layer<0 & !waterway",
    # What is not there yet, or no longer.
    "proposed=yes",
    "razed=yes|true",
    "demolished=yes",
)
"""Features that are never drawn, where a rule set says nothing else."""

# Closed ways are areas by these keys, and else lines (a roundabout is no disc). The keys and values are those that the
# OpenStreetMap community has agreed upon as polygon features, https://wiki.openstreetmap.org/wiki/Overpass_turbo/Polygon_Features
_AREA_KEYS = frozenset(
    {
        "amenity",
        "area:highway",
        "boundary",
        "building",
        "building:part",
        "craft",
        "golf",
        "historic",
        "indoor",
        "landuse",
        "leisure",
        "military",
        "office",
        "place",
        "public_transport",
        "ruins",
        "shop",
        "sport",
        "surface",
        "tourism",
        "water",
    }
)
_AREA_VALUES = {
    "barrier": frozenset({"city_wall", "ditch", "hedge", "retaining_wall", "spikes", "wall"}),
    "highway": frozenset({"elevator", "escape", "platform", "rest_area", "services"}),
    "power": frozenset({"generator", "plant", "substation", "transformer"}),
    "railway": frozenset({"platform", "roundhouse", "station", "turntable"}),
    "waterway": frozenset({"boatyard", "dam", "dock", "fuel", "riverbank"}),
}
_LINE_VALUES = {
    "aeroway": frozenset({"jet_bridge", "parking_position", "taxiway"}),
    "man_made": frozenset({"cutline", "embankment", "pipeline"}),
    "natural": frozenset({"arete", "cliff", "coastline", "ridge", "tree_row", "valley"}),
}
_MAY_BE_OPEN = {"natural": _LINE_VALUES["natural"], "leisure": frozenset({"fishing", "slipway", "track"})}
_LINEAR = ("highway", "railway", "barrier", "waterway")


def is_area(tags: Mapping[str, str]) -> bool:
    """Whether a closed way with these tags encloses an area, or is a line that ends where it began."""
    area = tags.get("area")
    if area in ("yes", "no"):
        return area == "yes"
    for key, values in _AREA_VALUES.items():
        if tags.get(key) in values:
            return True
    for key, values in _LINE_VALUES.items():
        if key in tags and tags[key] not in values:
            return True
    # A ring road with a surface or a name of a place is still a road.
    weak = {"surface", "place", "sport", "boundary"} if any(key in tags for key in _LINEAR) else frozenset()
    return any(key in _AREA_KEYS and key not in weak for key in tags)


def has_to_close(tags: Mapping[str, str]) -> bool:
    """Whether a way with these tags makes no sense as a line, so that one which is open is a mistake."""
    if tags.get("area") == "yes" or "building" in tags or "landuse" in tags:
        return True
    return any(key in tags and tags[key] not in values for key, values in _MAY_BE_OPEN.items())


# --- conditions and rules --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Condition:
    """What one key has to be: ``=`` one of the values, ``!=`` absent or none of them, ``<`` or ``>`` a number."""

    key: str
    op: Literal["=", "!=", "<", ">"]
    values: frozenset[str]
    """``*`` among them is any value but those in ``NOT_THERE``."""

    def holds(self, tags: Mapping[str, str]) -> bool:
        """Whether tags fulfil it; of ``forest;meadow`` each part counts."""
        value = tags.get(self.key)
        if self.op in ("<", ">"):
            number = _number(value)
            limit = float(next(iter(self.values)))
            return number is not None and (number < limit if self.op == "<" else number > limit)
        found = value is not None and (
            (ANY in self.values and value not in NOT_THERE) or not self.values.isdisjoint(spellings(value))
        )
        return found if self.op == "=" else not found

    def implies(self, other: Condition) -> bool:
        """Whether tags that fulfil this one always fulfil the other."""
        if self == other:
            return True
        if self.key != other.key or self.op != other.op:
            return False
        if self.op == "=":
            some = ANY in other.values and self.values.isdisjoint(NOT_THERE - other.values)
            return some or (ANY not in self.values and self.values <= other.values)
        return self.op == "!=" and other.values <= self.values


def spellings(value: str) -> tuple[str, ...]:
    """The value itself, and its parts where it lists several: ``a;b`` is a, b and ``a;b``."""
    if ";" not in value:
        return (value,)
    return (value, *(part.strip() for part in value.split(";") if part.strip()))


_CONDITION = re.compile(r"(?P<key>[^=!<>&|\s]+)\s*(?P<op>!=|=|<|>)\s*(?P<values>[^=<>&]+)")


def parse_conditions(text: str) -> tuple[Condition, ...]:
    """Conditions in the form ``natural=wetland & wetland=bog|fen & !tunnel & layer<0``; all have to hold.

    Raises:
        ValueError: It cannot be read; the sentence says which part.
    """
    found = []
    for part in text.split("&"):
        part = part.strip()
        if part.startswith("!") and "=" not in part and part[1:].strip():
            found.append(Condition(part[1:].strip(), "!=", frozenset({ANY})))
            continue
        match = _CONDITION.fullmatch(part)
        if match is None:
            raise ValueError(
                f"{part!r} is no condition; wanted key=value, key=*, key=a|b, key!=a|b, !key or key<0, joined by &"
            )
        values = frozenset(v.strip() for v in match["values"].split("|") if v.strip())
        op: Any = match["op"]
        if not values:
            raise ValueError(f"{part!r} has no value")
        if op in "<>" and (len(values) != 1 or _number(next(iter(values))) is None):
            raise ValueError(f"{part!r} compares with no number")
        found.append(Condition(match["key"], op, values))
    return tuple(found)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text.replace(",", "."))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Rule:
    """Features of these kinds with these tags are of a class."""

    conditions: tuple[Condition, ...]
    """All have to hold."""
    code: int
    kinds: frozenset[Kind] = frozenset({"area"})
    priority: int = 0
    """Higher ones are drawn over lower ones, and win where a feature's tags match several rules."""
    width_m: float | None = None
    """Lines: full width where the tags do not tell one; points: diameter. None: as thin as a line."""
    draw: Draw = "itself"
    """``outline``: the edge of an area; ``centre``: one point, the centroid, of a line or area."""
    fallback: bool = False
    """Holds only for features that no other rule matches."""

    @property
    def text(self) -> str:
        """The conditions as they are written."""
        parts = []
        for c in self.conditions:
            absent = c.op == "!=" and ANY in c.values
            parts.append(f"!{c.key}" if absent else f"{c.key}{c.op}{'|'.join(sorted(c.values))}")
        return " & ".join(parts)

    def refines(self, other: Rule) -> bool:
        """Whether it is a special case of the other, so that both matching is no contradiction."""
        return all(any(_narrows(mine, theirs) for mine in self.conditions) for theirs in other.conditions)


def _narrows(mine: Condition, theirs: Condition) -> bool:
    """Whether one asks for no less than the other; ``building=barn`` does so of ``building!=no``."""
    named = (mine.key, mine.op, theirs.op) == (theirs.key, "=", "!=") and ANY not in mine.values | theirs.values
    return mine.implies(theirs) or (named and mine.values.isdisjoint(theirs.values))


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule set makes of one feature."""

    code: int = 0
    priority: int = 0
    width_m: float | None = None
    """Width to draw a line or point with: from its tags where they tell one, else the rule's."""
    draw: Draw = "itself"
    also: tuple[tuple[int, float | None, Draw], ...] = ()
    """(code, width, draw) of every class that the tags match, the winner first: for presence."""
    losers: tuple[int, ...] = ()
    """Codes of other classes that the tags match as well: a contradiction, settled by priority."""
    skipped: str = ""
    """Why it is not drawn although a rule matches: the condition of ``skip``."""


@dataclass(frozen=True)
class RuleSet:
    """Rules of one nomenclature, ready to match."""

    name: str
    title: str
    licence: str
    attribution: str
    nomenclature: str | None
    """The product whose codes these are, so that a mask of them can be compared and translated as it can."""
    legend: Legend
    rules: tuple[Rule, ...] = field(repr=False)
    skip: tuple[tuple[Condition, ...], ...] = field(repr=False)

    _seen: dict[Any, Match | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def keys(self) -> frozenset[str]:
        """Every feature that a rule matches has at least one of these keys."""
        return frozenset(key for key, _ in self._by_tag)

    @cached_property
    def _by_tag(self) -> dict[tuple[str, str], list[int]]:
        """Rules by (key, value) of the first condition that asks for one; the value may be ``*``."""
        found: dict[tuple[str, str], list[int]] = {}
        for i, rule in enumerate(self.rules):
            start = next(c for c in rule.conditions if c.op == "=")
            for value in start.values:
                found.setdefault((start.key, value), []).append(i)
        return found

    @cached_property
    def _relevant(self) -> tuple[str, ...]:
        """The keys that can make a difference."""
        asked = {c.key for rule in self.rules for c in rule.conditions} | {c.key for s in self.skip for c in s}
        return tuple(sorted(asked | {*WIDTH_KEYS, "lanes", "highway"}))

    def match(self, tags: Mapping[str, str], kind: Kind) -> Match | None:
        """What becomes of a feature with these tags, or None where no rule speaks of it."""
        # Millions of features have but thousands of combinations of the tags that matter.
        memo = (kind, tuple((key, tags[key]) for key in self._relevant if key in tags))
        if memo not in self._seen:
            self._seen[memo] = self._match(dict(memo[1]), kind)
        return self._seen[memo]

    def _match(self, tags: dict[str, str], kind: Kind) -> Match | None:
        near: set[int] = set()
        for key, value in tags.items():
            near.update(self._by_tag.get((key, ANY), ()))
            # Parts of a list count only where the list as a whole means nothing.
            for spelling in (value,) if (key, value) in self._by_tag else spellings(value):
                near.update(self._by_tag.get((key, spelling), ()))
        found = [
            (i, rule)
            for i in sorted(near)
            if kind in (rule := self.rules[i]).kinds and all(c.holds(tags) for c in rule.conditions)
        ]
        found = [(i, rule) for i, rule in found if not rule.fallback] or found
        if not found:
            return None
        for conditions in self.skip:
            if all(c.holds(tags) for c in conditions):
                return Match(skipped=Rule(conditions, 0).text)
        special = [
            (i, rule)
            for i, rule in found
            if not any(j != i and other.refines(rule) and not rule.refines(other) for j, other in found)
        ]
        special.sort(key=lambda item: (-item[1].priority, item[0]))
        first = special[0][1]
        also: dict[int, tuple[int, float | None, Draw]] = {}
        for _, rule in special:
            also.setdefault(rule.code, (rule.code, _width(tags, rule, kind), rule.draw))
        return Match(
            code=first.code,
            priority=first.priority,
            width_m=_width(tags, first, kind),
            draw=first.draw,
            also=tuple(also.values()),
            losers=tuple(code for code in also if code != first.code),
        )


def _width(tags: Mapping[str, str], rule: Rule, kind: Kind) -> float | None:
    if rule.width_m is None or kind != "line":
        return rule.width_m
    low, high = PLAUSIBLE_WIDTH_M
    for key in WIDTH_KEYS:
        width = parse_metres(tags.get(key, ""))
        if width is not None and low <= width <= high:
            return width
    lanes = _number(tags.get("lanes")) if "highway" in tags else None
    if lanes is not None and low <= lanes * LANE_M <= high:
        return lanes * LANE_M
    return rule.width_m


def parse_metres(text: str) -> float | None:
    """Metres of a measure as mappers write it (``3.5``, ``3,5 m``, ``12 ft``, ``6'6"``), None where it is none."""
    if match := _FEET.fullmatch(text):
        return float(match[1]) * 0.3048 + float(match[2] or 0) * 0.0254
    match = _MEASURE.fullmatch(text)
    if match is None or match[2].lower() not in _UNITS_M:
        return None
    return float(match[1].replace(",", ".")) * _UNITS_M[match[2].lower()]


# --- files of rules --------------------------------------------------------------------------------------------------

_HEAD = {
    "title", "licence", "attribution", "nomenclature", "source", "classes", "rules", "tables", "skip", "priorities",
}  # fmt: skip
_RULE = {"tags", "class", "kinds", "priority", "width_m", "draw", "fallback"}
_TABLE = {"file", "kinds", "without", "fallback_keys", "fallback_classes", "priority", "draw"}
_COLUMNS = {
    "tags", "key", "value", "code", "class", "kinds", "width_m", "buffer_m", "priority", "draw", "fallback", "color",
}  # fmt: skip
SUFFIXES = (".toml", ".yaml", ".yml", ".csv")
"""How the name of a file with rules ends."""


@dataclass(frozen=True, slots=True)
class RuleSetInfo:
    """A rule set that we ship, as told before any of its rules is read."""

    name: str
    title: str
    classes: tuple[LabelClass, ...]
    licence: str
    attribution: str


def _shipped() -> dict[str, RuleSetInfo]:
    found = {}
    for file in sorted((resources.files("labels") / "tables" / "osm").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            name = file.name.removesuffix(".toml")
            head = tomllib.loads(file.read_text(encoding="utf-8"))
            legend = _legend(file.name, head["classes"])
            found[name] = RuleSetInfo(name, head["title"], legend.classes, head["licence"], head["attribution"])
    return found


def is_path(rules: str) -> bool:
    """Whether ``rules`` names a file and not one of our rule sets."""
    return rules.lower().endswith(SUFFIXES)


@lru_cache(maxsize=16)
def read_rules(rules: str) -> RuleSet:
    """A rule set by name (see ``RULE_SETS``) or from a TOML, YAML or CSV file by path.

    Raises:
        LabelError: There is none of this name, or the file has a mistake; the sentence says in which rule or line.
    """
    if not is_path(rules):
        if rules not in RULE_SETS:
            near = difflib.get_close_matches(rules, RULE_SETS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            known = ", ".join(sorted(RULE_SETS))
            raise LabelError(
                f"rules {rules}", f"no such rule set{hint} Known are {known}, or a path ({', '.join(SUFFIXES)})"
            )
        folder = resources.files("labels") / "tables" / "osm"
        head = tomllib.loads((folder / f"{rules}.toml").read_text(encoding="utf-8"))
        return _build(rules, f"{rules}.toml", head, lambda file: (folder / file).read_text(encoding="utf-8"))
    path = Path(rules)
    text = _read_text(path)
    if path.suffix.lower() == ".csv":
        return _build(path.stem, path.name, {"tables": [{"file": path.name}]}, lambda _: text)
    head = _parse(path, text)
    return _build(path.stem, path.name, head, lambda file: _read_text(path.parent / file))


def _read_text(path: Path) -> str:
    try:
        # utf-8-sig: spreadsheets like to begin a CSV with a byte-order mark.
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"rules {path}", f"the file cannot be read ({error})") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    if path.suffix.lower() == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise LabelError(path.name, f"this is no TOML: {error}") from error
    import yaml

    try:
        head = yaml.load(text, Loader=_lined_loader())
    except yaml.YAMLError as error:
        raise LabelError(path.name, f"this is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(head, dict):
        raise LabelError(path.name, "a file of rules has keys (rules, classes …) at its top")
    return head


@lru_cache(maxsize=1)
def _lined_loader() -> Any:
    """YAML's safe loader, whose mappings know their line."""
    import yaml

    class LinedLoader(yaml.SafeLoader):
        pass

    def mapping(loader: Any, node: Any) -> Any:
        made = _Lined(loader.construct_mapping(node, deep=True))
        made.line = node.start_mark.line + 1
        return made

    LinedLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return LinedLoader


class _Lined(dict[str, Any]):
    line: int = 0


def _where(source: str, what: str, i: int, row: Any) -> str:
    line = getattr(row, "line", 0)
    return f"{source}, {what}[{i}]" + (f" (line {line})" if line else "")


def _known(where: str, row: Any, keys: Iterable[str]) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise LabelError(where, f"found {row!r}, wanted keys and values")
    for key in row:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, 1)
            raise LabelError(
                where,
                f"key {key!r} is not known"
                + (f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(keys))}"),
            )
    return row


def _build(name: str, source: str, head: Mapping[str, Any], read: Any) -> RuleSet:
    _known(source, head, _HEAD)
    listed = _legend(source, head["classes"]) if "classes" in head else None
    priorities = head.get("priorities", {})
    by_code = {
        _code(f"{source}, priorities", code, listed): _whole(f"{source}, priorities", p)
        for code, p in priorities.items()
    }
    rules: list[Rule] = []
    for i, row in enumerate(_listing(source, head, "rules"), 1):
        rules.extend(_rules_of(_where(source, "rules", i, row), row, listed, by_code))
    named: dict[int, tuple[str, str | None]] = {}
    for i, row in enumerate(_listing(source, head, "tables"), 1):
        where = _where(source, "tables", i, row)
        table = _known(where, row, _TABLE)
        if not isinstance(table.get("file"), str):
            raise LabelError(where, "file is missing: the name of a CSV beside this file")
        rules.extend(_read_table(table, read(table["file"]), listed, by_code, named))
    if not rules:
        raise LabelError(source, "there is no rule; list some under rules, or in a CSV under tables")
    used = {rule.code for rule in rules}
    if listed is None:
        unnamed = {code: (f"class {code}", None) for code in used}
        listed = Legend(tuple(LabelClass(code, *{**unnamed, **named}[code]) for code in sorted(used)))
    if missing := sorted(used - set(listed.codes)):
        raise LabelError(
            source, f"a rule has the class {missing[0]}, which classes does not list; it has {listed.codes}"
        )
    skip = head.get("skip", DEFAULT_SKIP)
    if isinstance(skip, str) or not isinstance(skip, Sequence):
        raise LabelError(f"{source}, skip", f"found {skip!r}, wanted a list of conditions")
    return RuleSet(
        name=name,
        title=head.get("title", name),
        licence=head.get("licence", ""),
        attribution=head.get("attribution", ""),
        nomenclature=_nomenclature(source, head),
        legend=listed,
        rules=tuple(rules),
        skip=tuple(_conditions(f"{source}, skip[{i}]", text) for i, text in enumerate(skip, 1)),
    )


def _nomenclature(source: str, head: Mapping[str, Any]) -> str | None:
    if "nomenclature" not in head:
        return None
    try:
        return find_product(str(head["nomenclature"])).name
    except LabelError as error:
        raise LabelError(f"{source}, nomenclature", str(error)) from error


def _listing(source: str, head: Mapping[str, Any], key: str) -> Sequence[Any]:
    rows = head.get(key, [])
    if not isinstance(rows, list):
        raise LabelError(f"{source}, {key}", f"found {rows!r}, wanted a list")
    return rows


def _legend(source: str, rows: Any) -> Legend:
    if not isinstance(rows, list):
        raise LabelError(f"{source}, classes", f"found {rows!r}, wanted a list of code and name")
    classes = []
    for i, row in enumerate(rows, 1):
        where = _where(source, "classes", i, row)
        row = _known(where, row, ("code", "name", "color"))
        code, name, color = _whole(where, row.get("code")), row.get("name"), row.get("color")
        if not isinstance(name, str) or not name:
            raise LabelError(where, f"class {code} has no name; every class needs one")
        if color is not None and not HEX_COLOR.fullmatch(str(color).lower()):
            raise LabelError(where, f"color {color!r} is not of the form #rrggbb")
        classes.append(LabelClass(_code(where, code, None), name, color and str(color).lower()))
    try:
        return Legend(tuple(classes))
    except ValueError as error:
        raise LabelError(f"{source}, classes", str(error)) from error


def _rules_of(where: str, row: Any, listed: Legend | None, by_code: Mapping[int, int]) -> list[Rule]:
    row = _known(where, row, _RULE)
    tags = row.get("tags")
    texts = [tags] if isinstance(tags, str) else tags
    if not isinstance(texts, list) or not texts:
        raise LabelError(where, f"tags is {tags!r}; wanted conditions as text, or a list of them of which any may hold")
    if "class" not in row:
        raise LabelError(where, "class is missing: the code or the name of one of the classes")
    code = _code(where, row["class"], listed)
    kinds = _kinds(where, row.get("kinds", ["area"]))
    return [
        _rule(where, _conditions(where, text), code, kinds, by_code,
              priority=row.get("priority"), width_m=row.get("width_m"), draw=row.get("draw", "itself"),
              fallback=row.get("fallback", False))
        for text in texts
    ]  # fmt: skip


def _rule(
    where: str,
    conditions: tuple[Condition, ...],
    code: int,
    kinds: frozenset[Kind],
    by_code: Mapping[int, int],
    *,
    priority: Any,
    width_m: Any,
    draw: Any,
    fallback: Any,
) -> Rule:
    if not any(c.op == "=" for c in conditions):
        raise LabelError(
            where, "at least one condition has to be key=value or key=*; else every feature would be looked at"
        )
    if draw not in DRAWS:
        raise LabelError(where, f"draw is {draw!r}; wanted {', '.join(DRAWS)}")
    if width_m is not None and (
        isinstance(width_m, bool) or not isinstance(width_m, int | float) or not 0 < width_m < 1000
    ):
        raise LabelError(where, f"width_m is {width_m!r}; wanted metres above 0 and below 1000")
    if not isinstance(fallback, bool):
        raise LabelError(where, f"fallback is {fallback!r}; wanted true or false")
    level = by_code.get(code, 0) if priority is None else _whole(where, priority)
    return Rule(conditions, code, kinds, level, None if width_m is None else float(width_m), draw, fallback)


def _read_table(
    table: Mapping[str, Any],
    text: str,
    listed: Legend | None,
    by_code: Mapping[int, int],
    named: dict[int, tuple[str, str | None]],
) -> list[Rule]:
    source = table["file"]
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    columns = [c.strip().lower() for c in rows.fieldnames or ()]
    for column in columns:
        if column not in _COLUMNS:
            raise LabelError(source, f"column {column!r} is not known; known are {', '.join(sorted(_COLUMNS))}")
    if not ({"tags"} <= set(columns) or {"key", "value"} <= set(columns)) or not {"code", "class"} & set(columns):
        raise LabelError(
            source,
            f"a table of rules has the columns tags (or key and value) and code (or class); found {', '.join(columns)}",
        )
    rows.fieldnames = columns
    kinds = _kinds(source, table.get("kinds", ["area"]))
    without = [_conditions(f"{source}, without", t)[0] for t in table.get("without", ())]
    last_keys, last_codes = set(table.get("fallback_keys", ())), set(table.get("fallback_classes", ()))
    rules = []
    for row in rows:
        where = f"{source}, line {rows.line_num}"
        cell = {name: (value or "").strip() for name, value in row.items() if name is not None}
        conditions = (
            _conditions(where, cell["tags"])
            if "tags" in columns
            else (Condition(cell["key"], "=", frozenset({cell["value"]})),)
        )
        if any(gone.key == c.key and (ANY in gone.values or c.implies(gone)) for gone in without for c in conditions):
            continue
        if "tags" not in columns and not (cell["key"] and cell["value"]):
            raise LabelError(where, "key or value is empty")
        code = _code(where, _digits(cell["code"]) if cell.get("code") else cell.get("class", ""), listed)
        if cell.get("class"):
            color = cell.get("color", "").lower() or None
            if color and not HEX_COLOR.fullmatch(color):
                raise LabelError(where, f"color {color!r} is not of the form #rrggbb")
            known = named.setdefault(code, (cell["class"], color))
            if known[0] != cell["class"]:
                raise LabelError(
                    where, f"code {code} is {known[0]!r} above and {cell['class']!r} here; a code has one name"
                )
        width = _number(cell.get("width_m")) if cell.get("width_m") else None
        if cell.get("buffer_m"):
            reach = _number(cell["buffer_m"])
            width = None if reach is None else 2 * reach
        if width is None and (cell.get("width_m") or cell.get("buffer_m")):
            raise LabelError(where, "width_m or buffer_m is no number of metres")
        rules.append(
            _rule(
                where, conditions, code,
                _kinds(where, re.split(r"[;| ]+", cell["kinds"])) if cell.get("kinds") else kinds,
                by_code,
                priority=_digits(cell["priority"]) if cell.get("priority") else table.get("priority"),
                width_m=width,
                draw=cell.get("draw") or table.get("draw", "itself"),
                fallback=cell.get("fallback", "").lower() in ("1", "yes", "true")
                or code in last_codes or conditions[0].key in last_keys,
            )
        )  # fmt: skip
    return rules


def _digits(text: str) -> int | str:
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() else text


def _conditions(where: str, text: Any) -> tuple[Condition, ...]:
    if not isinstance(text, str):
        raise LabelError(where, f"found {text!r}, wanted a condition such as natural=water")
    try:
        return parse_conditions(text)
    except ValueError as error:
        raise LabelError(where, str(error)) from error


def _kinds(where: str, kinds: Any) -> frozenset[Kind]:
    found = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(found, list) or not found or any(kind not in KINDS for kind in found):
        raise LabelError(where, f"kinds is {kinds!r}; wanted some of {', '.join(KINDS)}")
    return frozenset(found)


def _whole(where: str, value: Any) -> int:
    if isinstance(value, str):
        value = _digits(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise LabelError(where, f"found {value!r}, wanted a whole number")
    return value


def _code(where: str, value: Any, listed: Legend | None) -> int:
    """Code of a class that is named by its code or its name."""
    if isinstance(value, str):
        value = _digits(value)
    if isinstance(value, str) and listed is not None:
        for c in listed.classes:
            if c.name == value:
                return c.code
        near = difflib.get_close_matches(value, [c.name for c in listed.classes], 1)
        raise LabelError(where, f"class {value!r} is not listed" + (f"; did you mean {near[0]!r}?" if near else ""))
    code = _whole(where, value)
    if not 0 <= code <= MAX_RULE_CODE:
        raise LabelError(where, f"code {code} is not between 0 and {MAX_RULE_CODE}")
    return code


RULE_SETS: dict[str, RuleSetInfo] = _shipped()
"""The rule sets we ship, by name."""
