"""Every rule for splits: what its authors published, what it promises, and what it refuses."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tiling.aoi import Aoi
from tiling.distance import near, shared_ground, shortest_distance_m
from tiling.grid import Chip, GridSpec, centres, footprints, lay_chips
from tiling.mgrs import square_at, square_from_name
from tiling.split import BUFFER, SPLITS, SplitSpec, assign_splits
from tiling.split_draw import draw_splits, keep_apart, ring_of
from tiling.split_rules import (
    BY_PLACE,
    RULES,
    AnySplit,
    BalancedSplit,
    BandSplit,
    ClusterSplit,
    FoldSplit,
    LongitudeSplit,
    RegionSplit,
    RingSplit,
    TileSplit,
    YearSplit,
    check_years,
    stability,
)

WEST, SOUTH, EAST, NORTH = 14.2, 47.6, 15.8, 48.6


@lru_cache
def area(size_px: int = 256, west: float = WEST, east: float = EAST) -> tuple[Chip, ...]:
    return lay_chips(Aoi("area", shapely.box(west, SOUTH, east, NORTH)), GridSpec(size_px=size_px))[0]


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("regions") / "regions.geojson"
    names = ["west", "middle", "east", "corner"]
    outlines = [
        shapely.box(14.0, 47, 14.7, 49),
        shapely.box(14.7, 47, 15.3, 49),
        shapely.box(15.3, 47, 15.7, 49),
        shapely.box(15.5, 48.3, 15.7, 49),
    ]
    geopandas.GeoDataFrame({"name": names}, geometry=outlines, crs=4326).to_crs(3035).to_file(path, driver="GeoJSON")
    return str(path)


def specs(regions: str, buffer_km: float) -> dict[str, AnySplit]:
    """A rule of every kind that holds something out of ``area``."""
    return {
        "blocks": SplitSpec(buffer_km=buffer_km),
        "folds": FoldSplit("folds", buffer_km=buffer_km),
        "years": YearSplit("years", {"train": (2018,), "val": (2019,), "test": (2020,)}, buffer_km=buffer_km),
        "balanced": BalancedSplit("balanced", label="crops", buffer_km=buffer_km),
        "rings": RingSplit("rings", buffer_km=buffer_km),
        "tiles": TileSplit("tiles", val=("33UVP",), test=("33TVN",), buffer_km=buffer_km),
        "regions": RegionSplit("regions", polygons=regions, attribute="name", val=("east",), test=("west",),
                               buffer_km=buffer_km),
        "bands": BandSplit("bands", bands=10, angle_rad=0.9, buffer_km=buffer_km),
        "longitude": LongitudeSplit("longitude", buffer_km=buffer_km),
        "clusters": ClusterSplit("clusters", of="chips", clusters=12, buffer_km=buffer_km),
    }  # fmt: skip


def classes_of(chips: tuple[Chip, ...]) -> list[dict[int, float]]:
    """Two classes that follow the place, and one that is rare."""
    lon, lat = centres(chips)
    return [
        {1: float(x - WEST) / 2, 2: 1 - float(x - WEST) / 2, **({7: 0.1} if y > 48.5 else {})}
        for x, y in zip(lon, lat, strict=True)
    ]


def by_split(chips: tuple[Chip, ...], split: np.ndarray[Any, Any]) -> dict[str, list[Chip]]:
    return {name: [chip for chip, s in zip(chips, split, strict=True) if s == name] for name in (*SPLITS, BUFFER)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("buffer_km", [0.0, 3.0])
def test_splits_of_every_rule_are_apart_and_share_no_ground(rule: str, buffer_km: float, regions: str) -> None:
    chips = area()
    drawn = draw_splits(chips, specs(regions, buffer_km)[rule], classes=classes_of(chips))
    found = by_split(chips, drawn.split)
    assert all(found[name] for name in SPLITS)
    assert len(found[BUFFER]) < 0.75 * len(chips)
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert shortest_distance_m(found[one], found[other]) >= buffer_km * 1000
        assert not len(shared_ground(found[one], found[other])[0])


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_calls_itself_stable_keeps_the_split_of_every_place_when_the_area_grows(
    rule: str, regions: str
) -> None:
    spec = specs(regions, 1.0 if rule in BY_PLACE else 0.0)[rule]
    assert stability(rule, 1.0)[0] == (rule in BY_PLACE)
    small, large = area(), area(west=13.6, east=16.2)
    few, many = (draw_splits(chips, spec, classes=classes_of(chips)) for chips in (small, large))
    then = dict(zip(large, many.split.tolist(), strict=True))
    kept = [then[chip] == split for chip, split in zip(small, few.split.tolist(), strict=True)]
    assert all(kept) == stability(rule, spec.buffer_km)[0]


@pytest.mark.parametrize("rule", ["rings", "tiles", "regions"])
def test_with_a_buffer_the_edge_of_an_area_may_be_left_out_but_nothing_changes_its_split(
    rule: str, regions: str
) -> None:
    spec = specs(regions, 4.0)[rule]
    small, large = area(east=15.28), area()
    then = dict(zip(large, draw_splits(large, spec).split.tolist(), strict=True))
    pairs = [(s, then[chip]) for chip, s in zip(small, draw_splits(small, spec).split.tolist(), strict=True)]
    assert {(s, t) for s, t in pairs if s != t} <= {("train", BUFFER), ("val", BUFFER)}


# --- what comes too near


@given(st.integers(0, 3000), st.integers(0, 40), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_near_is_what_shortest_distance_says_of_each_chip(within_m: int, first: int, count: int) -> None:
    # Two zones: the lattices overlap at 12°E and no edge is parallel.
    chips = lay_chips(Aoi("two zones", shapely.box(11.9, 47.4, 12.1, 47.5)), GridSpec(size_px=64, min_cover=0.1))[0]
    mine, theirs = chips[::7], chips[first :: count + 3]
    says = near(mine, theirs, within_m)
    for chip, close in zip(mine, says.tolist(), strict=True):
        distance = shortest_distance_m([chip], theirs)
        assert close == (distance < within_m or (distance == 0 and len(shared_ground([chip], theirs)[0]) > 0))


def test_shared_ground_is_measured_across_zones() -> None:
    chips = lay_chips(Aoi("two zones", shapely.box(11.9, 47.4, 12.1, 47.5)), GridSpec(size_px=64, min_cover=0.1))[0]
    west, east = ([chip for chip in chips if chip.epsg == epsg] for epsg in (32632, 32633))
    first, second, area_m2 = shared_ground(west, east)
    outlines = [geopandas.GeoSeries(footprints(side), crs=4326).to_crs(3035).to_numpy() for side in (west, east)]
    grid = shapely.area(shapely.intersection(outlines[0][:, np.newaxis], outlines[1]))
    assert {(int(i), int(j)) for i, j in zip(*np.nonzero(grid > 1), strict=True)} == set(
        zip(first.tolist(), second.tolist(), strict=True)
    )
    assert area_m2 == pytest.approx(grid[first, second], rel=2e-3, abs=1)
    assert not len(shared_ground(west, west[:0])[0])


def test_train_gives_way_to_val_and_val_to_test() -> None:
    row = tuple(Chip(32633, col, 2000, 64, 10) for col in range(9))
    wanted = np.array(["train"] * 3 + ["val"] * 3 + ["test"] * 3, dtype=object)
    left = keep_apart(row, wanted, 700.0)
    assert left.tolist() == ["train", BUFFER, BUFFER, "val", BUFFER, BUFFER, "test", "test", "test"]


# --- rings


def test_rings_are_those_of_the_published_tile() -> None:
    # BigEarthNet v2 cuts a tile of 109.8 km into 91 x 91 patches of 1200 m and counts 4056, 2109 and 2116 of them; its
    # rings are 16 079.84 m and 11 370.16 m wide.
    middle = 1200 * np.arange(91) + 600.0
    down, right = np.meshgrid(middle, middle, indexing="ij")
    split = ring_of(right, down, 109_800, RingSplit("rings").shares)
    assert [int((split == name).sum()) for name in SPLITS] == [4056, 2109, 2116]
    border = ring_of(np.array([16_079.83, 16_079.85]), np.array([5e4, 5e4]), 109_800, RingSplit("rings").shares)
    assert border.tolist() == ["train", "val"]
    neighbours = [
        {split[y, x], split[y + dy, x + dx]}
        for y in range(90) for x in range(90) for dy, dx in ((0, 1), (1, 0), (1, 1))
    ]  # fmt: skip
    assert {"train", "test"} not in neighbours


def test_rings_of_squares_have_the_shares_that_were_asked_for() -> None:
    chips = [Chip(32633, col, row, 100, 10) for col in range(500, 600) for row in range(5300, 5400)]
    shares = {"train": 0.6, "val": 0.1, "test": 0.3}
    spec = RingSplit("rings", of="square", shares=shares, buffer_km=0)  # type: ignore[arg-type]
    split = draw_splits(chips, spec).split
    assert {name: pytest.approx((split == name).mean(), abs=0.02) for name in SPLITS} == shares


# --- the others


def test_folds_are_drawn_by_place_and_some_of_them_are_val_and_test() -> None:
    chips = area(128)
    drawn = draw_splits(chips, FoldSplit("folds", k=4, val=(1,), test=(3,), buffer_km=0.5))
    assert drawn.fold is not None
    says = {(int(fold), split) for fold, split in zip(drawn.fold, drawn.split, strict=True)}
    assert says == {(0, BUFFER), (1, "val"), (2, "train"), (3, "test"), (4, "train")}
    for one in range(1, 5):
        for other in range(one + 1, 5):
            pair = [[chip for chip, f in zip(chips, drawn.fold, strict=True) if f == fold] for fold in (one, other)]
            assert shortest_distance_m(*pair) >= 500


def test_balanced_blocks_give_every_class_its_share() -> None:
    chips = area(128)
    classes = classes_of(chips)
    balanced = draw_splits(chips, BalancedSplit("balanced", label="crops", buffer_km=0), classes=classes).split
    hashed = assign_splits(chips, SplitSpec(buffer_km=0))

    def off(split: np.ndarray[Any, Any]) -> float:
        """Largest difference between the share of a class in a split and what was asked for."""
        worst = 0.0
        for code in (1, 2, 7):
            values = np.array([found.get(code, 0.0) for found in classes])
            used = values[split != BUFFER].sum()
            worst = max(
                worst,
                *(abs(values[split == n].sum() / used - s) for n, s in (("train", 0.7), ("val", 0.15), ("test", 0.15))),
            )
        return worst

    assert off(balanced) < 0.05 < off(hashed)


@pytest.mark.parametrize(("angle", "order"), [(0.0, "lat"), (np.pi / 2, "lon")])
def test_bands_follow_each_other_along_their_direction(angle: float, order: str) -> None:
    chips = area()
    split = draw_splits(chips, BandSplit("bands", bands=10, angle_rad=angle, buffer_km=0)).split
    lon, lat = centres(chips)
    along = {"lon": lon, "lat": lat}[order]
    band = np.floor((along - along.min()) / (along.max() - along.min()) * 9.9999999).astype(int)
    pattern = np.array(["train", "train", "train", "test", "val"], dtype=object)
    same = split == pattern[band % 5]
    assert same[split != BUFFER].mean() > 0.99


def test_chips_in_order_of_longitude_train_in_the_west_and_test_in_the_east() -> None:
    chips = area()
    split = draw_splits(chips, LongitudeSplit("longitude", buffer_km=0)).split
    lon, _ = centres(chips)
    assert lon[split == "train"].max() <= lon[split == "val"].min()
    assert lon[split == "val"].max() <= lon[split == "test"].min()
    assert (split == "train").mean() == pytest.approx(0.6, abs=0.03)


def test_regions_go_by_the_polygon_that_a_centre_lies_in(regions: str) -> None:
    chips = area()
    spec = RegionSplit("regions", polygons=regions, attribute="name", val=("east",), test=("corner",), buffer_km=0)
    split = draw_splits(chips, spec).split
    lon, lat = centres(chips)
    east, corner = (lon > 15.3) & (lon < 15.7), (lon > 15.5) & (lon < 15.7) & (lat > 48.3)
    wanted = np.select([corner, east, lon < 15.3], ["test", "val", "train"], BUFFER)
    assert (split == wanted).mean() > 0.97  # all but those beside a border, which give way where zones overlap
    only = draw_splits(chips, replace(spec, train=("west",))).split
    assert set(only[lon > 14.71].tolist()) <= {"val", "test", BUFFER}


def test_tiles_go_by_the_square_of_a_centre_and_a_list_may_be_a_file(tmp_path: Path) -> None:
    chips = area()
    split = draw_splits(chips, TileSplit("tiles", test=("33UVP", "33TVN"), buffer_km=0)).split
    held_out = {square_from_name("33UVP"), square_from_name("33TVN")}
    inside = [square_at(float(x), float(y)) in held_out for x, y in zip(*centres(chips), strict=True)]
    assert (split == np.where(inside, "test", "train")).all()
    path = tmp_path / "list.csv"
    path.write_text("tile,split\nT33UVP,test\nT33UWP,train\n")
    listed = draw_splits(chips, TileSplit("tiles", file="list.csv"), file=lambda name: str(tmp_path / name)).split
    assert {"train", "test", BUFFER} == set(listed.tolist())
    path.write_text(f"chip,split\n{chips[0].id},test\n{chips[-1].id},train\n")
    listed = draw_splits(chips, TileSplit("tiles", file=str(path))).split
    assert [listed[0], listed[-1], set(listed[1:-1].tolist())] == ["test", "train", {BUFFER}]


def test_clusters_hold_out_whole_groups_that_lie_together() -> None:
    chips = area()
    spec = ClusterSplit("clusters", of="chips", clusters=12, buffer_km=0)
    split = draw_splits(chips, spec).split
    assert (split == "test").mean() == pytest.approx(0.2, abs=0.08)
    assert (split == draw_splits(chips, spec).split).all()


def test_linked_places_stay_together_however_long_the_chain() -> None:
    # Three islands 12 km from each other, each of chips 2.56 km apart: linked within 3 km they are three groups.
    chips = tuple(
        Chip(32633, 190 + 12 * island + col, 2070 + row, 256, 10)
        for island in range(3) for col in range(7) for row in range(4)
    )  # fmt: skip
    spec = ClusterSplit("clusters", of="chips", link_km=3, buffer_km=0, shares={"train": 0.4, "val": 0.3, "test": 0.3})
    split = draw_splits(chips, spec).split.reshape(3, 28)
    assert all(len(set(island.tolist())) == 1 for island in split)
    assert set(split[:, 0].tolist()) == set(SPLITS)
    with pytest.raises(ValueError, match="1 groups of places, none of which is left for"):
        draw_splits(chips, replace(spec, link_km=20))


# --- years


ALL: dict[Any, Any] = {"train": (2018,), "val": (2019,), "test": (2020, 2021)}


def test_years_are_drawn_in_space_as_blocks_are() -> None:
    chips, spec = area(), YearSplit("years", ALL, block_km=7, buffer_km=0.5, seed=3)
    blocks = draw_splits(chips, SplitSpec(block_km=7, buffer_km=0.5, seed=3)).split
    assert draw_splits(chips, spec).split.tolist() == blocks.tolist()


def _day(year: int, month: int = 1, day: int = 1) -> dt.datetime:
    return dt.datetime(year, month, day, tzinfo=dt.UTC)


@given(st.lists(st.sampled_from(["train", "val", "test"]), min_size=3, max_size=12))
def test_every_day_of_named_years_is_of_the_split_that_names_its_year(owners: list[Any]) -> None:
    years: dict[Any, tuple[int | str, ...]] = {}
    for number, split in enumerate(owners):
        # Whole years in both spellings.
        name: int | str = 2000 + number if number % 2 else f"{2000 + number}-01-01/{2001 + number}-01-01"
        years[split] = (*years.get(split, ()), name)
    assume(len(years) > 1)
    spec = YearSplit("years", years, shares={split: 1 / len(years) for split in years})
    for number, split in enumerate(owners):
        for moment in (_day(2000 + number), _day(2001 + number) - dt.timedelta(microseconds=1)):
            assert [s for s, spans in spec.spans.items() if any(a <= moment < b for a, b in spans)] == [split]
    for spans in spec.spans.values():
        assert all(one[1] < other[0] for one, other in pairwise(spans)), "years in a row are one"
    check_years(spec, (_day(2000), _day(2000 + len(owners))), {}, ())


@pytest.mark.parametrize(
    ("time", "periods", "why"),
    [
        ((_day(2018), _day(2022)), {}, None),
        ((_day(2018, 7), _day(2020, 2)), {}, None),
        ((_day(2017, 12), _day(2022)), {}, "no split is given 2017-12-01/2018-01-01"),
        ((_day(2018), _day(2022, 1, 2)), {}, "no split is given 2022-01-01/2022-01-02"),
        ((_day(2018), _day(2020)), {}, "test is given 2020, 2021, which lies outside 2018-01-01/2020-01-01"),
        ((_day(2018), _day(2022)), {"s2": [(_day(2018, 12), _day(2019, 3)), (_day(2020), _day(2021))]},
         "one image of 2018-12-01/2019-03-01, which lies in the years of train and val"),
        ((_day(2018), _day(2022)), {"s2": [(_day(2018), _day(2019)), (_day(2019), _day(2022))]},
         "one image of 2019-01-01/2022-01-01, which lies in the years of val and test"),
        ((_day(2018), _day(2022)), {"s2": [(_day(2018), _day(2020))]}, "lie outside the years of test"),
        ((_day(2018), _day(2022)), {"s1": [(_day(2018), _day(2022))]}, None),
        ((_day(2018), _day(2022)), {"s2": [(_day(y), _day(y + 1)) for y in range(2018, 2022)]}, None),
    ],
)  # fmt: skip
def test_years_that_do_not_fit_a_recipe_are_told(time: Any, periods: Any, why: str | None) -> None:
    spec = YearSplit("years", ALL)
    if why is None:
        check_years(spec, time, periods, ["s2"])
        return
    with pytest.raises(ValueError, match=why):
        check_years(spec, time, periods, ["s2"])


def test_a_gap_between_years_is_told() -> None:
    spec = YearSplit("years", {"train": (2018,), "val": (2020,), "test": (2021,)})
    with pytest.raises(ValueError, match="no split is given 2019-01-01/2020-01-01"):
        check_years(spec, (_day(2018), _day(2022)), {}, ())


# --- what is refused


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: FoldSplit("folds", k=3), "fold 4 is none of the 3 folds"),
        (lambda: FoldSplit("folds", val=(1,), test=(1,)), "fold 1 stands twice"),
        (lambda: TileSplit("tiles"), "neither val nor test names a tile"),
        (lambda: TileSplit("tiles", test=("vienna",)), "is no MGRS tile"),
        (lambda: TileSplit("tiles", test=("33UWP",), file="x.csv"), "give one of the two"),
        (lambda: RegionSplit("regions", "x", "name"), "neither val nor test names a region"),
        (lambda: BandSplit("bands", shares={"train": 0.55, "test": 0.45}), "no multiples of the smallest"),
        (lambda: RingSplit("rings", shares={"train": 0.5}), "shares sum to 0.5"),
        (lambda: RingSplit("rings", buffer_km=-1), "a distance is 0 km or more"),
        (lambda: BalancedSplit("balanced", "crops", block_km=0), "a block has a side above 0 km"),
        (lambda: YearSplit("years", {"train": (2018,), "val": (2019,)}), "test has a share of 0.15 and no years"),
        (lambda: YearSplit("years", {**ALL, "val": (2018,)}), "2018 and 2018 share days"),
        (
            lambda: YearSplit("years", {**ALL, "val": ("2018-12-01/2019-12-01",)}),
            "2018 and 2018-12-01/2019-12-01 share",
        ),
        (lambda: YearSplit("years", ALL, shares={"train": 0.5, "test": 0.5}), "val has years and a share of 0"),
        (lambda: YearSplit("years", {"train": (2018,)}, shares={"train": 1}), "one split has all the years"),
        (lambda: YearSplit("years", {**ALL, "val": ("spring",)}), "'spring' is no year; wanted one like 2018"),
        (lambda: YearSplit("years", {**ALL, "val": ("2019-05-01/2019-04-01",)}), "holds no day"),
    ],
)
def test_options_that_cannot_be_are_refused(make: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()


def test_what_the_area_does_not_allow_is_told(regions: str, tmp_path: Path) -> None:
    chips = area()
    region = RegionSplit("regions", polygons=regions, attribute="name", test=("west",))
    for spec, why in (
        (replace(region, test=("Atlantis",)), "has no region 'Atlantis' in name; found corner, east"),
        (replace(region, attribute="code"), "has no column 'code'"),
        (replace(region, polygons=str(tmp_path / "none.geojson")), "cannot be read"),
        (TileSplit("tiles", test=("31UDQ",), train=("31UEQ",)), "no tile of the list has a chip in the area"),
        (TileSplit("tiles", file=str(tmp_path / "none.csv")), "cannot be read"),
        (ClusterSplit("clusters"), "4 MGRS squares for 20 clusters"),
        (BalancedSplit("balanced", label="crops"), "needs the classes of label crops"),
        (FoldSplit("folds", block_km=2), "blocks of 2 km have no room"),
    ):
        with pytest.raises(ValueError, match=why):
            draw_splits(chips, spec)
    with pytest.raises(ValueError, match="nothing can be balanced"):
        draw_splits(chips, BalancedSplit("balanced", label="crops"), classes=[{}] * len(chips))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tile,label\n33UVP,1\n", "wanted tile or chip, and split"),
        ("tile,split\n33UVP,holdout\n", "puts 33UVP into 'holdout'"),
        ("tile,split\n33UVP,test\n33UVP,val\n", "puts 33UVP into test and val"),
    ],
)
def test_a_list_that_cannot_be_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=why):
        draw_splits(area(), TileSplit("tiles", file=str(path)))
