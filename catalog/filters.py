"""Filters on the properties of an item, evaluated here: for catalogs that cannot filter, and to check those that can.

Two dialects: STAC ``query`` (``{"eo:cloud_cover": {"lt": 20}}``) and the plain part of CQL2-JSON (comparisons, ``and``,
``or``, ``not``, ``in``, ``between``, ``isNull``, ``like``). As on a server, an item without the property does not
match.
"""

from __future__ import annotations

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
_CQL2_COMPARISONS = {"=": "eq", "<>": "neq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_CQL2_PLAIN = (*_CQL2_COMPARISONS, "and", "or", "not", "in", "between", "isNull", "like")


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
        _compare(item, name, operator, wanted) for name, tests in query.items() for operator, wanted in tests.items()
    )


def matches_cql2(item: Mapping[str, Any], expression: Mapping[str, Any]) -> bool:
    """Whether an item meets a CQL2-JSON expression; CatalogError when it uses more than the plain part of CQL2."""
    operator, args = expression.get("op"), expression.get("args", ())
    if operator == "and":
        return all(matches_cql2(item, arg) for arg in args)
    if operator == "or":
        return any(matches_cql2(item, arg) for arg in args)
    if operator == "not" and len(args) == 1:
        return not matches_cql2(item, args[0])
    if operator == "isNull" and len(args) == 1:
        return _property(item, _property_name(args[0], expression)) is None
    if operator in _CQL2_COMPARISONS and len(args) == 2:
        name, wanted = _property_name(args[0], expression), _literal(args[1], expression)
        return _compare(item, name, _CQL2_COMPARISONS[operator], wanted)
    if operator == "in" and len(args) == 2:
        name, values = _property_name(args[0], expression), [_literal(value, expression) for value in args[1]]
        return _compare(item, name, "in", values)
    if operator == "between" and len(args) == 3:
        name, low, high = (
            _property_name(args[0], expression),
            _literal(args[1], expression),
            _literal(args[2], expression),
        )
        return _compare(item, name, "gte", low) and _compare(item, name, "lte", high)
    if operator == "like" and len(args) == 2:
        value = _property(item, _property_name(args[0], expression))
        return value is not None and _like(str(value), str(_literal(args[1], expression)))
    raise _not_plain(expression)


def _compare(item: Mapping[str, Any], name: str, operator: str, wanted: Any) -> bool:
    value = _property(item, name)
    if value is None:
        return False
    if name.removeprefix("properties.") == "platform":
        value, wanted = platform_name(value), _platform_names(wanted)
    try:
        return OPERATORS[operator](value, wanted)
    except TypeError as error:
        raise CatalogError(
            "query", f"'{name}' is {value!r} in item {item.get('id')}; '{operator}' cannot compare it to {wanted!r}"
        ) from error


def _property(item: Mapping[str, Any], name: str) -> Any:
    if name in ("id", "collection"):
        return item.get(name)
    return item["properties"].get(name.removeprefix("properties."))


def _platform_names(wanted: Any) -> Any:
    if isinstance(wanted, str):
        return platform_name(wanted)
    return [platform_name(name) for name in wanted] if isinstance(wanted, Sequence) else wanted


def _property_name(arg: Any, expression: Mapping[str, Any]) -> str:
    if isinstance(arg, Mapping) and isinstance(arg.get("property"), str):
        return str(arg["property"])
    raise _not_plain(expression)


def _literal(arg: Any, expression: Mapping[str, Any]) -> Any:
    if isinstance(arg, Mapping):
        if set(arg) <= {"timestamp", "date"} and len(arg) == 1:
            return next(iter(arg.values()))
        raise _not_plain(expression)
    return arg


def _like(value: str, pattern: str) -> bool:
    # CQL2: % stands for any run of characters, _ for one, a backslash takes the next literally.
    parts = re.findall(r"\\.|%|_|[^\\%_]+", pattern)
    translated = (".*" if part == "%" else "." if part == "_" else re.escape(part.removeprefix("\\")) for part in parts)
    return re.fullmatch("".join(translated), value, re.DOTALL) is not None


def _not_plain(expression: Mapping[str, Any]) -> CatalogError:
    return CatalogError(
        "cql2",
        f"this catalog does not filter by CQL2, and {expression!r} is more than can be filtered here; "
        f"use {', '.join(_CQL2_PLAIN)} on properties and plain values, or a catalog that offers CQL2",
    )
