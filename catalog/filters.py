"""Filters on the properties of an item, evaluated here: for catalogs that cannot filter, and to check those that can.

Two dialects: STAC ``query`` (``{"eo:cloud_cover": {"lt": 20}}``) and the plain part of CQL2-JSON (comparisons, ``and``,
``or``, ``not``, ``in``, ``between``, ``isNull``, ``like``). As on a server, an item without the property does not
match, and neither does it match the opposite: ``not`` of unknown is unknown.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from catalog.collections import nearest
from curate.errors import CatalogError

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, wanted: bool(value == wanted),
    "neq": lambda value, wanted: bool(value != wanted),
    "lt": lambda value, wanted: bool(value < wanted),
    "lte": lambda value, wanted: bool(value <= wanted),
    "gt": lambda value, wanted: bool(value > wanted),
    "gte": lambda value, wanted: bool(value >= wanted),
    "in": lambda value, wanted: value in wanted,
    "startsWith": lambda value, wanted: str(value).startswith(wanted),
    "endsWith": lambda value, wanted: str(value).endswith(wanted),
    "contains": lambda value, wanted: wanted in value,
}
COMPARISONS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
"""The operators of ``query`` that every server has, and what CQL2 calls them: pgstac refuses the others."""
TIMES = frozenset({"datetime", "start_datetime", "end_datetime", "created", "updated"})
"""Properties that are compared as times, also when a filter gives text: ``…31Z`` is not later than ``…31.5Z``."""
_CQL2_COMPARISONS = {sign: name for name, sign in COMPARISONS.items()}
_CQL2_PLAIN = (*_CQL2_COMPARISONS, "and", "or", "not", "in", "between", "isNull", "like")

Test = Callable[[Mapping[str, Any]], bool | None]
"""Of one item: true, false, or None for unknown, as in SQL."""


def platform_name(platform: str) -> str:
    """Name of a platform as STAC spells it: ``Sentinel-2A`` and ``SENTINEL 2A`` are ``sentinel-2a``."""
    return re.sub(r"[\s_]+", "-", platform.strip().lower())


def check_query(query: Mapping[str, Any]) -> None:
    """CatalogError when a ``query`` has an unknown operator or another shape than property, operator, value."""
    for name, tests in query.items():
        if not isinstance(tests, Mapping) or not tests:
            raise CatalogError(
                "query", f"'{name}' has {tests!r}; wanted an operator and a value, e.g. {{'{name}': {{'lte': 20}}}}"
            )
        for operator, wanted in tests.items():
            if operator not in OPERATORS:
                raise CatalogError(
                    "query",
                    f"'{name}' has operator '{operator}', which does not exist."
                    f"{nearest(operator, OPERATORS)} There are: {', '.join(OPERATORS)}",
                )
            if operator == "in" and (isinstance(wanted, str) or not isinstance(wanted, Sequence)):
                raise CatalogError("query", f"'{name}' has 'in' with {wanted!r}; wanted a list of values")


def matches_query(item: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    """Whether an item meets every condition of a checked ``query``."""
    return all(
        _compare(item, name, operator, wanted) is True
        for name, tests in query.items()
        for operator, wanted in tests.items()
    )


def cql2_test(expression: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    """A CQL2-JSON expression as a test of one item; CatalogError when it uses more than the plain part of CQL2."""
    test = _compiled(expression)
    return lambda item: test(item) is True


def is_plain(expression: Mapping[str, Any]) -> bool:
    """Whether a CQL2-JSON expression can be evaluated here."""
    try:
        _compiled(expression)
    except CatalogError:
        return False
    return True


def conjuncts(expression: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parts of a CQL2-JSON expression that must all hold, each by itself."""
    args = expression.get("args")
    if expression.get("op") != "and" or not isinstance(args, Sequence):
        return [expression]
    return [part for arg in args for part in (conjuncts(arg) if isinstance(arg, Mapping) else [arg])]


def all_of(parts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The CQL2-JSON expression in which all parts hold; None for none."""
    if len(parts) > 1:
        return {"op": "and", "args": [dict(part) for part in parts]}
    return parts[0] if parts else None


def query_as_cql2(query: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The comparisons of a checked ``query`` as parts of a CQL2-JSON expression."""
    return [
        {"op": COMPARISONS[operator], "args": [{"property": name.removeprefix("properties.")}, wanted]}
        for name, tests in query.items()
        for operator, wanted in tests.items()
    ]


def same_everywhere(query: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The part of a checked ``query`` that servers answer as we do; the rest is to be applied here."""
    kept = {
        name: {operator: wanted for operator, wanted in tests.items() if operator in COMPARISONS}
        for name, tests in query.items()
        if name.removeprefix("properties.") not in _OF_THEIR_OWN
    }
    return {name: tests for name, tests in kept.items() if tests}


def differs(expression: Any) -> bool:
    """Whether servers answer a CQL2-JSON expression each in its own way: it is about a platform or a time.

    Every server spells platforms differently (``Sentinel-2A``, ``sentinel-2a``). pgstac takes the start of an item for
    its ``datetime``, finds nothing by ``{"date": …}``, and fails on a ``{"timestamp": …}`` beside another property.
    """
    if isinstance(expression, Mapping):
        name = expression.get("property")
        if isinstance(name, str) and name.removeprefix("properties.") in _OF_THEIR_OWN:
            return True
        return "timestamp" in expression or "date" in expression or any(map(differs, expression.values()))
    return isinstance(expression, list | tuple) and any(map(differs, expression))


_OF_THEIR_OWN = TIMES | {"platform"}


def parse_time(text: str | dt.datetime) -> dt.datetime:
    """A time of an item, in UTC. Without a zone it is taken as UTC."""
    try:
        time = text if isinstance(text, dt.datetime) else dt.datetime.fromisoformat(text)
    except (ValueError, TypeError) as error:
        raise CatalogError("catalog", f"an item has the time {text!r}; wanted one like 2020-06-01T10:00:00Z") from error
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


def _compiled(expression: Any) -> Test:
    operator, args = (expression.get("op"), expression.get("args")) if isinstance(expression, Mapping) else (None, None)
    if not isinstance(operator, str) or not isinstance(args, Sequence) or isinstance(args, str):
        raise _not_plain(expression)
    if operator in ("and", "or"):
        return _joined(operator, [_compiled(arg) for arg in args])
    if operator == "not" and len(args) == 1:
        inner = _compiled(args[0])
        return lambda item: None if (held := inner(item)) is None else not held
    if operator == "isNull" and len(args) == 1:
        absent = _property_name(args[0], expression)
        return lambda item: _property(item, absent) is None
    if operator in _CQL2_COMPARISONS and len(args) == 2:
        return _comparison(args[0], _CQL2_COMPARISONS[operator], _literal(args[1], expression), expression)
    if operator == "in" and len(args) == 2 and isinstance(args[1], list | tuple):
        return _comparison(args[0], "in", [_literal(value, expression) for value in args[1]], expression)
    if operator == "between" and len(args) == 3:
        low, high = (_literal(arg, expression) for arg in args[1:])
        ends = [_comparison(args[0], "gte", low, expression), _comparison(args[0], "lte", high, expression)]
        return _joined("and", ends)
    if operator == "like" and len(args) == 2 and isinstance(args[1], str):
        name, pattern = _property_name(args[0], expression), args[1]
        return lambda item: None if (value := _property(item, name)) is None else _like(str(value), pattern)
    raise _not_plain(expression)


def _joined(operator: str, tests: Sequence[Test]) -> Test:
    """All or any of the tests, where one that is unknown leaves open what the others do not decide."""
    decides = operator == "or"

    def test(item: Mapping[str, Any]) -> bool | None:
        held = [one(item) for one in tests]
        return decides if decides in held else None if None in held else not decides

    return test


def _comparison(arg: Any, operator: str, wanted: Any, expression: Mapping[str, Any]) -> Test:
    name = _property_name(arg, expression)
    return lambda item: _compare(item, name, operator, wanted)


def _compare(item: Mapping[str, Any], name: str, operator: str, wanted: Any) -> bool | None:
    value = _property(item, name)
    if value is None:
        return None
    if operator == "in":
        return any(_compare(item, name, "eq", one) for one in wanted)
    bare = name.removeprefix("properties.")
    if bare == "platform":
        value, wanted = platform_name(value), platform_name(wanted) if isinstance(wanted, str) else wanted
    if isinstance(wanted, dt.date) or (bare in TIMES and operator in COMPARISONS):
        value = parse_time(value)
        if isinstance(wanted, dt.date) and not isinstance(wanted, dt.datetime):
            value = value.date()
        else:
            wanted = _wanted_time(name, wanted)
    try:
        return OPERATORS[operator](value, wanted)
    except TypeError as error:
        raise CatalogError(
            "query", f"'{name}' is {value!r} in item {item.get('id')}; '{operator}' cannot compare it to {wanted!r}"
        ) from error


def _wanted_time(name: str, wanted: Any) -> dt.datetime:
    try:
        return parse_time(wanted)
    except CatalogError as error:
        raise CatalogError(
            "query", f"'{name}' is compared to {wanted!r}; wanted a time like 2020-06-01T10:00:00Z"
        ) from error


def _property(item: Mapping[str, Any], name: str) -> Any:
    if name in ("id", "collection"):
        return item.get(name)
    return item["properties"].get(name.removeprefix("properties."))


def _property_name(arg: Any, expression: Mapping[str, Any]) -> str:
    if isinstance(arg, Mapping) and isinstance(arg.get("property"), str):
        return str(arg["property"])
    raise _not_plain(expression)


def _literal(arg: Any, expression: Mapping[str, Any]) -> Any:
    match arg:
        case {"timestamp": str(text), **more} if not more:
            return _wanted_time("timestamp", text)
        case {"date": str(text), **more} if not more:
            return _wanted_time("date", text).date()
        case Mapping() | list() | tuple():
            raise _not_plain(expression)
    return arg


def _like(value: str, pattern: str) -> bool:
    # CQL2: % stands for any run of characters, _ for one, a backslash takes the next literally.
    parts = re.findall(r"\\.|%|_|[^\\%_]+", pattern)
    translated = (".*" if part == "%" else "." if part == "_" else re.escape(part.removeprefix("\\")) for part in parts)
    return re.fullmatch("".join(translated), value, re.DOTALL) is not None


def _not_plain(expression: Any) -> CatalogError:
    return CatalogError(
        "cql2",
        f"this catalog does not filter by CQL2, and {expression!r} is more than can be filtered here; "
        f"use {', '.join(_CQL2_PLAIN)} on properties and plain values, or a catalog that offers CQL2",
    )
