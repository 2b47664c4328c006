"""Filters that are evaluated here instead of by a server."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.filters import all_of, check_query, conjuncts, cql2_test, differs, matches_query, same_everywhere
from curate.errors import CatalogError

ITEM: dict[str, Any] = {
    "id": "S2A_1",
    "collection": "sentinel-2-l2a",
    "properties": {"eo:cloud_cover": 20.0, "platform": "Sentinel-2A", "s2:mgrs_tile": "33UWP", "list": [1, 2]},
}
ITEM["properties"] |= {"datetime": "2021-05-06T09:00:31.024Z", "made": "2021-05-06T12:17:32Z"}


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
        ({"datetime": {"gt": "2021-05-06T09:00:31Z"}}, True),
        ({"datetime": {"lt": "2021-05-06T11:00:32+02:00"}}, True),
        ({"datetime": {"startsWith": "2021-05-06"}}, True),
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
ABSENT, TIME, MADE = ({"property": name} for name in ("absent", "datetime", "made"))


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
        # Unknown is neither true nor false, as in SQL: what it is a part of is so only where the rest decides.
        (op("not", op("=", ABSENT, 1)), False),
        (op("not", op("in", ABSENT, [1])), False),
        (op("not", op("like", ABSENT, "%")), False),
        (op("or", op("=", ABSENT, 1), op("=", CLOUD, 20)), True),
        (op("not", op("and", op("=", ABSENT, 1), op("=", CLOUD, 21))), True),
        (op("not", op("or", op("=", ABSENT, 1), op("=", CLOUD, 21))), False),
        (op(">", TIME, {"timestamp": "2021-05-06T09:00:31Z"}), True),
        (op(">", TIME, "2021-05-06T09:00:31Z"), True),
        (op("<", TIME, {"timestamp": "2021-05-06T11:00:32+02:00"}), True),
        (op("=", TIME, {"date": "2021-05-06"}), True),
        (op(">", TIME, {"date": "2021-05-06"}), False),
        (op("in", TIME, [{"date": "2021-05-06"}]), True),
        (op("=", MADE, {"timestamp": "2021-05-06T12:17:32+00:00"}), True),
    ],
)
def test_plain_cql2_is_evaluated(expression: dict[str, Any], matches: bool) -> None:
    assert cql2_test(expression)(ITEM) is matches


@pytest.mark.parametrize(
    "expression",
    [
        op("s_intersects", {"property": "geometry"}, {}),
        op("=", op("casei", TILE), "33uwp"),
        op("<", CLOUD, {"property": "s2:nodata"}),
        op("and", op("<", CLOUD, 0), op("casei", TILE)),  # also where the first part decides
        op("in", TILE, "33UWP"),
        {"op": "and", "args": 3},
        {"op": {}, "args": []},
        {},
    ],
)
def test_cql2_beyond_that_is_refused(expression: dict[str, Any]) -> None:
    with pytest.raises(CatalogError, match="more than can be filtered here"):
        cql2_test(expression)


@pytest.mark.parametrize("wanted", ["yesterday", 5])
def test_a_time_that_is_none_is_named(wanted: Any) -> None:
    with pytest.raises(CatalogError, match=r"'datetime' is compared to .*; wanted a time like"):
        cql2_test(op("<", TIME, wanted))(ITEM)


def test_parts_that_servers_answer_in_their_own_way_are_known() -> None:
    platform = op("=", {"property": "properties.platform"}, "sentinel-2a")
    assert differs(op("or", op("=", CLOUD, 1), platform))
    assert differs(op("<", MADE, {"timestamp": "2021-05-06T00:00:00Z"}))
    assert differs(op("in", TIME, ["2021-05-06T00:00:00Z"]))
    assert not differs(op("and", op("=", CLOUD, 1), op("in", TILE, ["platform", "datetime"])))
    assert same_everywhere({"platform": {"eq": "x"}, "a": {"in": [1], "lt": 3}, "b": {"contains": "x"}}) == {
        "a": {"lt": 3}
    }


def test_an_expression_is_its_conjuncts() -> None:
    parts = [op("=", CLOUD, 1), op("or", op("=", CLOUD, 1), op("=", CLOUD, 2)), op("isNull", TILE)]
    assert conjuncts(op("and", parts[0], op("and", *parts[1:]))) == parts
    assert conjuncts(parts[1]) == [parts[1]]
    assert all_of(parts) == op("and", *parts)
    assert all_of(parts[:1]) == parts[0]
    assert all_of([]) is None
