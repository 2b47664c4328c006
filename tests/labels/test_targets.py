from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from labels.ids import FeatureTable, feature_table
from labels.legend import Legend
from labels.rasterize import Polygons, pack, rasterize
from labels.source import ChipLabel, LabelSource, LabelVariable
from labels.targets import PanopticTargets, ParcelTargets, boundaries, distance, extent, grown, panoptic
from tiling.grid import Chip
from tiling.shards import Window, lay_shards

Windows = Callable[..., Window]
Pixels = np.ndarray[Any, Any]

CLASSES = LabelVariable("crop", "uint8", 255, "classes")


@dataclass(frozen=True)
class Parcels:
    """Ids of polygons, drawn as the label of a file draws them."""

    polygons: Polygons = field(repr=False)
    name: str = "fields"
    legend: Legend = Legend(())
    variables: tuple[LabelVariable, ...] = (LabelVariable("fields_id", "uint32", 0, "ids"),)
    resolution_m: float | None = None

    def render(self, window: Window) -> dict[str, Pixels]:
        return {"fields_id": rasterize(self.polygons, window, fill=0, dtype="uint32")}


def patches(side: int, ids: int, seed: int, gaps: bool = True) -> Pixels:
    """Parcels as the nearest of some points, with gaps between a few of them."""
    random = np.random.default_rng(seed)
    y, x = random.uniform(0, side, (2, ids))
    rows, cols = np.mgrid[:side, :side]
    nearest = ((rows[..., None] - y) ** 2 + (cols[..., None] - x) ** 2).argmin(axis=-1)
    numbers = random.permutation(np.arange(1, ids + 1)) * 1_000_003 % (2**32 - 5)
    drawn: Pixels = numbers[nearest].astype(np.uint32)
    if gaps:
        drawn[nearest % 5 == 0] = 0
    return drawn


# --- boundaries and distances ----------------------------------------------------------------------------------------


def by_scipy(ids: Pixels) -> Pixels:
    """Distance in pixels to the nearest pixel that is not of the parcel, parcel by parcel; NaN outside."""
    out = np.full(ids.shape, np.nan)
    for number in np.unique(ids[ids > 0]):
        mask = ids == number
        # Of a mask without any false pixel scipy measures to nowhere in particular.
        out[mask] = np.inf if mask.all() else ndimage.distance_transform_edt(mask)[mask]
    return out


@settings(max_examples=60)
@given(
    arrays(
        np.uint32,
        st.tuples(st.integers(1, 14), st.integers(1, 14)),
        elements=st.sampled_from([0, 1, 7, 4_000_000_000]),
    ),
    st.integers(1, 6),
)
def test_distances_are_those_of_scipy_parcel_by_parcel(ids: Pixels, cap: int) -> None:
    np.testing.assert_allclose(distance(ids, cap, 10.0), np.minimum(by_scipy(ids), cap) * 10, rtol=1e-6)
    np.testing.assert_array_equal(boundaries(ids, cap), by_scipy(ids) <= cap)


@pytest.mark.parametrize("seed", range(3))
def test_distances_in_large_parcels_are_those_of_scipy(seed: int) -> None:
    ids = patches(160, 12, seed)
    np.testing.assert_allclose(distance(ids, 40, 2.5), np.minimum(by_scipy(ids), 40) * 2.5, rtol=1e-6)


def test_parcels_that_touch_have_a_ring_each_and_nothing_is_known_beyond_the_array() -> None:
    ids = np.array([[1, 1, 1, 2, 2, 2, 2, 0]] * 5)
    np.testing.assert_array_equal(boundaries(ids, 1), [[0, 0, 1, 1, 0, 0, 1, 0]] * 5)
    np.testing.assert_array_equal(boundaries(ids, 2), [[0, 1, 1, 1, 1, 1, 1, 0]] * 5)
    np.testing.assert_array_equal(extent(ids, 1), [[1, 1, 2, 2, 1, 1, 2, 0]] * 5)
    np.testing.assert_array_equal(extent(ids, 1, background=255)[:, 7], 255)
    np.testing.assert_array_equal(distance(ids, 9, 10.0)[0], [30, 20, 10, 10, 20, 20, 10, np.nan])


def test_width_two_takes_in_the_corner_within_two_pixels() -> None:
    ids = np.ones((7, 7), np.uint8)
    ids[3, 3] = 0
    near = np.hypot(*np.mgrid[-3:4, -3:4])
    np.testing.assert_array_equal(boundaries(ids, 2), (near <= 2) & (near > 0))


def ring_of_fields(side: int, seed: int) -> Parcels:
    """Crooked fields around the world's corner, some with a hole or in two parts."""
    random = np.random.default_rng(seed)
    shapes = [
        shapely.Point(500_000 + x, 5_376_000 - y).buffer(r, quad_segs=3).difference(
            shapely.Point(500_000 + x, 5_376_000 - y).buffer(r / 3)
        )
        for x, y, r in zip(*random.uniform(-200, 10 * side + 200, (2, 30)), random.uniform(30, 190, 30), strict=True)
    ]  # fmt: skip
    ids = np.arange(3_000_000_001, 3_000_000_001 + len(shapes), dtype=np.uint32)
    return Parcels(pack(np.array(shapes, object), ids, pyproj.CRS.from_epsg(32633)))


@settings(max_examples=25)
@given(
    row=st.integers(-20, 60), col=st.integers(-20, 60), height=st.integers(1, 60), width=st.integers(1, 60),
    width_px=st.integers(1, 3), max_px=st.integers(1, 20),
)  # fmt: skip
def test_a_pixel_has_the_same_targets_in_every_window(
    row: int, col: int, height: int, width: int, width_px: int, max_px: int, make_window: Windows
) -> None:
    targets = ParcelTargets("fields", ring_of_fields(64, 1), "fields_id", width_px=width_px, max_px=max_px)
    whole = targets.render(make_window(-20, -20, 140, 140))
    part = targets.render(make_window(row, col, height, width))
    inside = np.s_[row + 20 : row + 20 + height, col + 20 : col + 20 + width]
    for name, pixels in part.items():
        np.testing.assert_array_equal(pixels, whole[name][inside])


def test_parcel_targets_are_a_label_with_the_arrays_they_promise(make_window: Windows) -> None:
    targets = ParcelTargets("fields", ring_of_fields(64, 2), "fields_id", complete=False)
    assert isinstance(targets, LabelSource)
    drawn = pickle.loads(pickle.dumps(targets)).render(make_window())
    assert [v.name for v in targets.variables] == list(drawn)
    for variable in targets.variables:
        assert drawn[variable.name].dtype == variable.dtype
        assert drawn[variable.name].shape == (64, 64)
    assert set(np.unique(drawn["fields_extent"])) == {1, 2, 255}
    assert np.isnan(drawn["fields_distance"]).sum() == (drawn["fields_extent"] == 255).sum()
    np.testing.assert_array_equal(drawn["fields_boundary"] == 1, drawn["fields_extent"] == 2)


def test_only_as_much_is_drawn_around_a_window_as_the_parts_look(make_window: Windows) -> None:
    source = ring_of_fields(64, 2)
    assert ParcelTargets("fields", source, "fields_id", parts=("extent",), width_px=2).halo_px == 2
    assert ParcelTargets("fields", source, "fields_id", max_px=40).halo_px == 40
    window = make_window(3, 4, 10, 12)
    assert grown(window, 5) == make_window(-2, -1, 20, 22)


# --- panoptic targets ------------------------------------------------------------------------------------------------


def published(ids: Pixels, classes: Pixels, background: int | None) -> dict[str, Any]:
    """The definition of PASTIS, parcel by parcel and pixel by pixel, as slow as it reads."""
    ids = np.where(classes == background, 0, ids) if background is not None else ids
    height, width = ids.shape
    numbers = [int(n) for n in np.unique(ids) if n != 0]
    exponents, boxes, centres, sizes, codes = [], [], [], [], []
    for number in numbers:
        rows, cols = np.nonzero(ids == number)
        top, left = max(rows.min() - 1, 0), max(cols.min() - 1, 0)
        bottom, right = min(rows.max() + 1, height - 1), min(cols.max() + 1, width - 1)
        centre = (top + (bottom - top) // 2, left + (right - left) // 2)
        sigma = [(1 - 0.7) / (1 + 0.7) * side / 3 for side in (bottom - top, right - left)]
        exponents.append(
            [
                [
                    (y - centre[0]) ** 2 / (2 * sigma[0] ** 2) + (x - centre[1]) ** 2 / (2 * sigma[1] ** 2)
                    for x in range(width)
                ]
                for y in range(height)
            ]
        )
        boxes.append(((top, bottom), (left, right)))
        centres.append(centre)
        sizes.append((len(set(rows.tolist())), len(set(cols.tolist()))))
        codes.append(int(classes[rows[0], cols[0]]))
    gaussians = np.exp(-np.array(exponents))
    return {
        "numbers": numbers, "boxes": boxes, "centres": centres, "sizes": sizes, "codes": codes,
        "heatmap": gaussians.max(axis=0), "nearest": np.array(exponents).argmin(axis=0) + 1,
        "zone": gaussians.argmax(axis=0) + 1, "gaussians": np.sort(gaussians, axis=0),
        "instance": np.searchsorted(numbers, ids) + 1 - (ids == 0) * (1 + np.searchsorted(numbers, ids)),
    }  # fmt: skip


@pytest.mark.parametrize(("side", "n", "seed"), [(24, 6, 0), (40, 30, 1), (33, 3, 2), (48, 90, 3)])
def test_panoptic_targets_are_those_of_the_published_definition(side: int, n: int, seed: int) -> None:
    ids = patches(side, n, seed)
    classes = (ids % 7).astype(np.uint8)
    wanted = published(ids, classes, background=0)
    got = panoptic(ids, classes, ignore=255, background=0)
    np.testing.assert_array_equal(got.instance, wanted["instance"])
    np.testing.assert_allclose(got.heatmap, wanted["heatmap"], rtol=1e-6, atol=1e-40)
    np.testing.assert_array_equal(got.zone, wanted["nearest"])
    # Where all Gaussians are too small for a number, or two are equal in all its digits, the published code's argmax
    # takes the first; everywhere else the zones are its own.
    tied = len(wanted["numbers"]) > 1 and (wanted["gaussians"][-1] == wanted["gaussians"][-2])
    np.testing.assert_array_equal(got.zone[~np.broadcast_to(tied, (side, side))], wanted["zone"][~tied])
    assert np.mean(tied) < 0.2
    rows = zip(*(wanted[k] for k in ("numbers", "codes", "boxes", "centres", "sizes")), strict=True)
    assert [(p.id, p.code, (p.rows, p.cols), p.centre, p.size) for p in got.parcels] == list(rows)
    assert [p.instance for p in got.parcels] == list(range(1, len(wanted["numbers"]) + 1))
    np.testing.assert_array_equal(got.size[0], np.array(wanted["sizes"])[got.zone - 1, 0])
    np.testing.assert_array_equal(got.size[1], np.array(wanted["sizes"])[got.zone - 1, 1])
    np.testing.assert_array_equal(got.code, np.array(wanted["codes"])[got.zone - 1])
    np.testing.assert_array_equal(got.semantic, classes)


def test_a_parcel_by_hand() -> None:
    ids = np.zeros((12, 12), np.uint32)
    ids[2:7, 3:5] = 900  # five rows, two columns
    got = panoptic(ids, np.where(ids > 0, 4, 0).astype(np.uint8), ignore=255, background=0)
    (parcel,) = got.parcels
    # One pixel more on each side: rows 1 to 7 and columns 2 to 5; their middles are 4, and 3 of 3 and 4.
    assert (parcel.rows, parcel.cols, parcel.centre, parcel.size) == ((1, 7), (2, 5), (4, 3), (5, 2))
    assert (parcel.id, parcel.instance, parcel.code, parcel.pixels, parcel.cut) == (900, 1, 4, 10, False)
    # sigma = 0.3 / 1.7 * 6 / 3 = 0.352941 for the rows, 0.3 / 1.7 * 3 / 3 = 0.176471 for the columns.
    assert got.heatmap[4, 3] == 1
    assert got.heatmap[5, 3] == pytest.approx(np.exp(-1 / (2 * 0.35294117647058826**2)))
    assert got.heatmap[4, 4] == pytest.approx(np.exp(-1 / (2 * 0.17647058823529413**2)))
    assert (got.zone == 1).all()
    assert (got.code == 4).all()
    assert got.size[:, 0, 0].tolist() == [5, 2]


def test_a_large_parcel_reaches_further_than_the_middle_between_two_centres() -> None:
    ids = np.zeros((9, 40), np.uint32)
    ids[:, 1:26] = 1
    ids[:, 30:35] = 2
    got = panoptic(ids, (ids > 0).astype(np.uint8), ignore=255)
    first, second = (p.centre[1] for p in got.parcels)
    assert got.zone[4, (first + second) // 2 + 3] == 1
    assert got.zone[4, second - 1] == 2


def test_equal_gaussians_belong_to_the_first_and_a_box_ends_with_the_chip() -> None:
    ids = np.zeros((9, 9), np.uint32)
    ids[:, 0], ids[:, 8] = 5, 3
    got = panoptic(ids, (ids > 0).astype(np.uint8), ignore=255)
    assert [(p.id, p.rows, p.cols) for p in got.parcels] == [(3, (0, 8), (7, 8)), (5, (0, 8), (0, 1))]
    assert got.zone[0].tolist() == [2, 2, 2, 2, 1, 1, 1, 1, 1]
    centred = panoptic(np.array([[1, 0, 0, 0, 2]] * 3), np.ones((3, 5), np.uint8), ignore=255)
    # Columns 0 to 1 and 3 to 4 have their middles at 0 and 3, so no column is as far from both.
    assert centred.zone[0].tolist() == [1, 1, 2, 2, 2]


def test_a_chip_full_of_parcels_begins_counting_at_one() -> None:
    got = panoptic(np.array([[8, 8, 9], [8, 8, 9], [8, 8, 9]]), np.ones((3, 3), np.uint8), ignore=255)
    assert got.instance[0].tolist() == [1, 1, 2]


def test_a_chip_without_parcels_has_no_zone_and_no_heat() -> None:
    got = panoptic(np.zeros((8, 8), np.uint32), np.zeros((8, 8), np.uint8), ignore=255, background=0)
    assert not got.parcels
    assert not got.instance.any()
    assert not got.zone.any()
    assert not got.heatmap.any()
    assert not got.size.any()
    assert (got.code == 255).all()
    assert (got.semantic == 0).all()


def targets(table: FeatureTable | None = None, background: int | None = 0) -> PanopticTargets:
    return PanopticTargets("fields", "fields_id", CLASSES, 10.0, background, table)


def test_parcels_that_lie_mostly_outside_keep_their_place_and_lose_their_class() -> None:
    ids = np.zeros((20, 20), np.uint32)
    ids[5:10, 0:4] = 11  # 20 pixels of 50
    ids[12:16, 0:8] = 12  # 32 pixels of 50
    ids[10:12, 10:12] = 13  # away from the edge: drawn with 4 pixels, whatever its area
    ids[15:17, 10:12] = 14  # away from the edge too, but its other part lies elsewhere
    ids[2:4, 10:12] = 15  # not in the table
    table = FeatureTable(
        ids=np.array([11, 12, 13, 14], np.uint32),
        area_m2=np.array([5000.0, 5000.0, 900.0, 9000.0]),
        parts=np.array([1, 1, 1, 2]),
    )
    classes = np.where(ids > 0, ids % 10, 0).astype(np.uint8)
    chip = targets(table)
    assert isinstance(chip, ChipLabel)
    found = chip.derive({"fields_id": ids, "crop": classes})
    assert found.values == {"parcels": 5.0, "parcels_cut": 2.0}
    assert found.classes == (2, 3, 5)
    assert np.unique(found.arrays["fields_semantic"][np.isin(ids, [11, 14])]).tolist() == [255]
    assert np.unique(found.arrays["fields_semantic"][np.isin(ids, [12, 13, 15])]).tolist() == [2, 3, 5]
    assert (found.arrays["fields_instance"] > 0).sum() == (ids > 0).sum()
    assert set(np.unique(found.arrays["fields_class"])) == {2, 3, 5, 255}
    whole = targets().derive({"fields_id": ids, "crop": classes})
    assert whole.values["parcels_cut"] == 0


def test_the_arrays_of_a_chip_are_those_that_were_promised() -> None:
    ids = patches(32, 9, 4)
    chip = pickle.loads(pickle.dumps(targets()))
    found = chip.derive({"fields_id": ids, "crop": (ids % 7).astype(np.uint8)})
    assert chip.needs == ("fields_id", "crop")
    assert [v.name for v in chip.variables] == list(found.arrays)
    for variable in chip.variables:
        assert found.arrays[variable.name].dtype == variable.dtype
        assert found.arrays[variable.name].shape == variable.shape(32)


# --- the fields of Lower Austria -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fields(shared_data: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(shared_data / "austria" / "fields.geojson").to_crs(32633)


@pytest.fixture(scope="module")
def austria(fields: gpd.GeoDataFrame) -> Parcels:
    return Parcels(
        pack(fields.geometry.to_numpy(), fields.fid.to_numpy().astype(np.uint32), pyproj.CRS.from_epsg(32633))
    )


def chips_over(fields: gpd.GeoDataFrame, size_px: int) -> tuple[Chip, ...]:
    minx, miny, maxx, maxy = (v // (size_px * 10.0) for v in fields.total_bounds)
    return tuple(
        Chip(32633, int(col), int(row), size_px, 10.0)
        for row in range(int(miny), int(maxy) + 1)
        for col in range(int(minx), int(maxx) + 1)
    )


def test_real_fields_are_void_on_the_chips_that_hold_less_than_half_of_them(
    fields: gpd.GeoDataFrame, austria: Parcels
) -> None:
    table = feature_table(austria.polygons, {})
    assert len(table) == 43
    chip_targets = targets(table)
    (shard,) = lay_shards(chips_over(fields, 128), 64)
    seen: set[int] = set()
    cut = 0
    for window in shard.windows(10**8):
        ids = austria.render(window)["fields_id"]
        for position, (y, x) in zip(window.chips, window.corners, strict=True):
            chip = shard.chips[position]
            here = ids[y : y + 128, x : x + 128]
            made = chip_targets.targets(here, (here > 0).astype(np.uint8))
            for parcel in made.parcels:
                shape = fields.geometry[fields.fid == parcel.id].iloc[0]
                share = shape.intersection(shapely.box(*chip.bounds)).area / shape.area
                # Drawn areas are off by a few pixels along the edge.
                assert parcel.cut == (share < 0.5) or abs(share - 0.5) < 0.1
                seen.add(parcel.id)
                cut += parcel.cut
    assert seen == set(fields.fid)
    assert cut > 3


def test_targets_of_real_fields_do_not_depend_on_the_shards_windows(fields: gpd.GeoDataFrame, austria: Parcels) -> None:
    parcel_targets = ParcelTargets("fields", austria, "fields_id", max_px=6)
    (shard,) = lay_shards(chips_over(fields, 64), 256)
    drawn: list[dict[int, Pixels]] = []
    for most in (64 * 64, 10**8):
        chips: dict[int, Pixels] = {}
        for window in shard.windows(most):
            found = parcel_targets.render(window)["fields_distance"]
            for position, (y, x) in zip(window.chips, window.corners, strict=True):
                chips[position] = found[y : y + 64, x : x + 64]
        drawn.append(chips)
    assert len(drawn[0]) == len(shard.chips)
    for position, pixels in drawn[0].items():
        np.testing.assert_array_equal(pixels, drawn[1][position])
    assert max(np.nanmax(p, initial=0) for p in drawn[0].values()) == 60


def test_the_distance_of_real_fields_is_that_of_their_polygons_to_a_pixel(
    fields: gpd.GeoDataFrame, austria: Parcels
) -> None:
    minx, miny, maxx, maxy = np.round(fields.total_bounds / 10) * 10 + [-100, -100, 100, 100]
    window = Window(32633, (minx, miny, maxx, maxy), 10.0, (int((maxy - miny) / 10), int((maxx - minx) / 10)), (), ())
    found = ParcelTargets("fields", austria, "fields_id", max_px=20).render(window)["fields_distance"]
    ids = austria.render(window)["fields_id"]
    rows, cols = np.nonzero(ids)
    centres = shapely.points(minx + (cols + 0.5) * 10, maxy - (rows + 0.5) * 10)
    edges = fields.set_index("fid").geometry.boundary
    off = found[rows, cols] - 5 - shapely.distance(centres, edges.loc[ids[rows, cols]].to_numpy())
    # Half a pixel before the next one's centre the boundary is drawn. It runs within a pixel of where it really is,
    # except in tips that are narrower than a pixel (4 of 5264 pixels).
    assert np.percentile(np.abs(off), 99.5) < 10
    assert abs(off.mean()) < 1
