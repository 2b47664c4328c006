"""Filters that are evaluated here instead of by a server."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.filters import check_query, matches_cql2, matches_query
from curate.errors import CatalogError

ITEM = {
    "id": "S2A_1",
    "collection": "sentinel-2-l2a",
    "properties": {"eo:cloud_cover": 20.0, "platform": "Sentinel-2A", "s2:mgrs_tile": "33UWP", "list": [1, 2]},
}


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ({"eo:cloud_cover": {"lte": 20}}, True),
        ({"eo:cloud_cover": {"lt": 20}}, False),
        ({"eo:cloud_cover": {"gt": 10, "lt": 30}}, True),
        ({"eo:cloud_cover": {"gte": 20.5}}, False),
        ({"s2:mgrs_tile": {"in": ["33UWP", "33UXP"]}}, True),
        ({"s2:mgrs_tile": {"startsWith": "33"}}, True),
        ({"s2:mgrs_tile": {"endsWith": "WQ"}}, False),
        ({"s2:mgrs_tile": {"contains": "UW"}}, True),
        ({"list": {"contains": 2}}, True),
        ({"properties.eo:cloud_cover": {"eq": 20}}, True),
        ({"platform": {"eq": "sentinel-2a"}}, True),
        ({"platform": {"in": ["SENTINEL-2A"]}}, True),
        ({"platform": {"neq": "sentinel-2a"}}, False),
        ({"absent": {"neq": 1}}, False),
        ({"id": {"eq": "S2A_1"}}, True),
    ],
)
def test_a_query_matches_as_on_a_server(query: dict[str, Any], matches: bool) -> None:
    check_query(query)
    assert matches_query(ITEM, query) is matches


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"eo:cloud_cover": {"startswith": 1}}, "Did you mean 'startsWith'"),
        ({"eo:cloud_cover": 20}, "wanted an operator and a value"),
        ({"eo:cloud_cover": {"in": "20"}}, "wanted a list"),
    ],
)
def test_a_query_of_another_shape_is_refused(query: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CatalogError, match=sentence):
        check_query(query)


def test_values_that_cannot_be_compared_are_named() -> None:
    with pytest.raises(CatalogError, match="'s2:mgrs_tile' is '33UWP' in item S2A_1; 'lt' cannot compare it to 3"):
        matches_query(ITEM, {"s2:mgrs_tile": {"lt": 3}})


def op(name: str, *args: Any) -> dict[str, Any]:
    return {"op": name, "args": list(args)}


CLOUD = {"property": "eo:cloud_cover"}
TILE = {"property": "s2:mgrs_tile"}


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        (op("<=", CLOUD, 20), True),
        (op("<>", CLOUD, 20), False),
        (op("and", op(">", CLOUD, 10), op("=", TILE, "33UWP")), True),
        (op("or", op(">", CLOUD, 30), op("=", TILE, "33UWP")), True),
        (op("not", op(">", CLOUD, 10)), False),
        (op("in", TILE, ["33UWP"]), True),
        (op("between", CLOUD, 20, 30), True),
        (op("isNull", {"property": "absent"}), True),
        (op("like", TILE, "33U_P"), True),
        (op("like", TILE, "33%"), True),
        (op("like", TILE, "33U.P"), False),
        (op("=", {"property": "platform"}, "sentinel-2a"), True),
    ],
)
def test_plain_cql2_is_evaluated(expression: dict[str, Any], matches: bool) -> None:
    assert matches_cql2(ITEM, expression) is matches


@pytest.mark.parametrize(
    "expression",
    [
        op("s_intersects", {"property": "geometry"}, {}),
        op("=", op("casei", TILE), "33uwp"),
        op("<", CLOUD, {"property": "s2:nodata"}),
        {},
    ],
)
def test_cql2_beyond_that_is_refused(expression: dict[str, Any]) -> None:
    with pytest.raises(CatalogError, match="more than can be filtered here"):
        matches_cql2(ITEM, expression)
