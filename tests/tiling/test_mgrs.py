"""Names of 100 km squares, against the names and corners that Sentinel-2 items of the archive carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.grid import equator_northing, to_utm, zone_of
from tiling.mgrs import SQUARE_M, Square, square_at, square_from_name, square_name, tile_corner


def recorded(items: Path) -> list[tuple[str, int, float, float]]:
    """(tile, EPSG code, x, y of the upper-left corner) of every recorded item."""
    if not items.exists():
        pytest.skip("the recorded items are not here: no items in ../shared/data/stac")
    found: list[dict[str, Any]] = json.loads(items.read_text())["features"]
    return [
        (item["properties"]["s2:mgrs_tile"], item["properties"]["proj:epsg"], transform[2], transform[5])
        for item in found
        if (transform := item["assets"].get("B04", {}).get("proj:transform"))
    ]


def test_tiles_of_the_archive_lie_where_their_names_say(shared_data: Path) -> None:
    found = recorded(shared_data / "stac" / "items" / "planetary-computer__sentinel-2-l2a.json")
    assert len(found) > 40
    assert {epsg // 100 for _, epsg, _, _ in found} == {326, 327}
    for name, epsg, x, y in found:
        square = square_from_name(name)
        assert (square.epsg, *tile_corner(square)) == (epsg, x, y), name


@given(st.floats(-179.99, 179.99), st.floats(-79.99, 83.99))
def test_the_name_of_the_square_of_a_place_leads_back_to_it(lon: float, lat: float) -> None:
    epsg = int(zone_of(lon, lat))
    square = square_at(lon, lat)
    assert square.epsg == epsg
    x, y = to_utm(epsg).transform(lon, lat)
    assert 0 <= x - square.east * SQUARE_M < SQUARE_M
    # The equator's hemisphere is decided in degrees.
    assert 0 <= y - square.north * SQUARE_M < SQUARE_M or abs(y - equator_northing(epsg)) < 0.01
    assert square_from_name(square_name(square, lat)) == square


def test_a_square_that_a_band_of_latitude_runs_through_is_one_square() -> None:
    # 48°N, where band T ends and U begins, runs through row P of zone 33.
    assert square_from_name("33TWP") == square_from_name("33UWP") == Square(32633, 5, 53)
    assert square_name(Square(32633, 5, 53), 47.9) == "33TWP"
    assert square_name(Square(32633, 5, 53), 48.1) == "33UWP"


@pytest.mark.parametrize("name", ["33UWP", "T33UWP", "MGRS-33UWP", "t33uwp"])
def test_the_spellings_of_catalogs_are_one_name(name: str) -> None:
    assert square_from_name(name) == square_from_name("33UWP")


@pytest.mark.parametrize("name", ["", "33", "61UWP", "00UWP", "33IWP", "33UOP", "33UWW", "33UAP", "33NWP", "vienna"])
def test_what_is_no_tile_is_told(name: str) -> None:
    with pytest.raises(ValueError, match="is no MGRS tile"):
        square_from_name(name)
