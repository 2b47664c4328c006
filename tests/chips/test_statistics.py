"""What the numbers of a dataset say, against one pass of NumPy over the published store; the same in any sharding."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chips.check import check
from chips.index import INDEX, ChipRecord, LabelRecord, SourceRecord, index_bytes, read_index
from chips.info import describe
from chips.layout import Coordinate, Group, Layout, Variable
from chips.manifest import STATISTICS
from chips.publish import publish
from chips.statistics import (
    PERCENTILES,
    Counted,
    Counter,
    Statistics,
    Tally,
    chip_dates,
    counted,
    dates_of_index,
    fine_bin,
    fine_edge,
    statistics_bytes,
)
from chips.storage import open_storage
from chips.write import JOURNAL, BuildRef, finished_shards, journal, merged_statistics, start_build, write_shard
from curate.errors import StoreError

Arrays = dict[tuple[str, str], npt.NDArray[Any]]

CHIPS, STEPS, PX = 7, 3, 6
SPLITS = ("train", "train", "val", "train", "buffer", "test", "train")
NAMES = {1: "wheat", 2: "maize", 9: "fallow"}


@cache
def layout_of(shard_chips: int) -> Layout:
    """Every kind of variable that statistics tell something about, and some that they must leave alone."""
    plane, series = (PX, PX), (STEPS, PX, PX)
    bands = Coordinate("band", "band", "string", ("red", "nir"))
    months = tuple(f"2020-{month:02d}-01" for month in range(1, STEPS + 1))
    classes = {"kind": "classes", "flag_values": list(NAMES), "flag_meanings": " ".join(NAMES.values())}
    return Layout(
        groups=(
            Group("s2", coords=(bands,)),
            Group("s1", coords=(Coordinate("time", "time", "datetime64[s]", months),)),
            Group("dem"),
            Group("label", coords=(Coordinate("soil_part", "soil_part", "string", ("sand", "clay")),)),
        ),
        variables=(
            Variable(
                "s2", "reflectance", ("time", "band", "y", "x"), (STEPS, 2, *plane), "int16", -999,
                {"scale_factor": 0.0001, "add_offset": -0.1, "units": "1"},
            ),
            Variable(
                "s2", "qa", ("time", "y", "x"), series, "uint16", 1,
                {"flag_masks": [2, 12], "flag_values": [2, 8], "flag_meanings": "cloud cirrus"}, void=False,
            ),
            Variable(
                "s2", "clear_mask", ("time", "y", "x"), series, "bool", None, {"flag_values": [0, 1]}, void=False
            ),
            Variable("s2", "clear", ("time",), (STEPS,), "float32", None),
            Variable("s2", "acquired", ("time",), (STEPS,), "datetime64[s]", None),
            Variable("s1", "backscatter", ("time", "y", "x"), series, "float32", None, {"units": "dB"}),
            Variable("s1", "count", ("time", "y", "x"), series, "uint8", None),
            Variable("dem", "aspect", ("y", "x"), plane, "float32", None, {"units": "degree", "period": 360}),
            Variable("dem", "height", ("y", "x"), plane, "int32", -32768, {"units": "mm"}),
            Variable("dem", "exact", ("y", "x"), plane, "float64", None),
            Variable("label", "crops", ("y", "x"), plane, "uint8", 255, classes, void=True),
            Variable("label", "ids", ("y", "x"), plane, "uint32", 0, {"kind": "ids"}, void=False),
            Variable("label", "edge", ("y", "x"), plane, "uint8", 0, {"kind": "presence"}, void=False),
            Variable(
                "label", "soil", ("soil_part", "y", "x"), (2, *plane), "uint8", 255, {"kind": "measure"}, void=False
            ),
        ),
        n_chips=CHIPS,
        size_px=PX,
        shard_chips=shard_chips,
    )  # fmt: skip


def world(seed: int) -> tuple[Arrays, list[ChipRecord]]:
    """All arrays, chips in front, and the records; chip 4 is empty."""
    rng = np.random.default_rng(seed)
    dates = [dt.datetime(2020, month, 3, tzinfo=dt.UTC) for month in (1, 2)]
    n_dates = rng.integers(0, 3, CHIPS)
    n_dates[4] = 0
    there = np.arange(STEPS) < n_dates[:, np.newaxis]
    scene = there[:, :, np.newaxis, np.newaxis]
    arrays: Arrays = {}
    numbers = rng.integers(-40, 4000, (CHIPS, STEPS, 2, PX, PX)).astype("int16")
    numbers[rng.random(numbers.shape) < 0.1] = -999
    arrays["s2", "reflectance"] = np.where(scene[:, :, np.newaxis], numbers, np.int16(-999))
    qa = rng.choice(np.array([0, 1, 2, 4, 8, 10, 12, 14], "uint16"), (CHIPS, STEPS, PX, PX))
    arrays["s2", "qa"] = np.where(scene, qa, np.uint16(1))
    mask = scene & (rng.random((CHIPS, STEPS, PX, PX)) < 0.7)
    arrays["s2", "clear_mask"] = mask
    arrays["s2", "clear"] = np.where(there, mask.mean(axis=(2, 3)), np.nan).astype("float32")
    stamps = np.array([date.replace(tzinfo=None) for date in [*dates, dates[1]]], "datetime64[s]")
    arrays["s2", "acquired"] = np.where(there, stamps, np.datetime64("NaT", "s"))
    decibels = rng.normal(-12, 6, (CHIPS, STEPS, PX, PX)).astype("float32")
    decibels.ravel()[rng.integers(0, decibels.size, 40)] = rng.choice(
        np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, -1e-40, 3e38, -3e38], "float32"), 40
    )
    arrays["s1", "backscatter"] = decibels
    arrays["s1", "count"] = rng.integers(0, 3, (CHIPS, STEPS, PX, PX)).astype("uint8")
    aspect = rng.uniform(0, 360, (CHIPS, PX, PX)).astype("float32")
    aspect[rng.random(aspect.shape) < 0.2] = np.nan
    arrays["dem", "aspect"] = aspect
    height = rng.integers(-(2**31), 2**31, (CHIPS, PX, PX)).astype("int32")
    height[rng.random(height.shape) < 0.2] = -32768
    arrays["dem", "height"] = height
    arrays["dem", "exact"] = rng.random((CHIPS, PX, PX))
    arrays["label", "crops"] = rng.choice(np.array([0, 1, 2, 255], "uint8"), (CHIPS, PX, PX), p=[0.1, 0.6, 0.1, 0.2])
    arrays["label", "ids"] = rng.choice(np.array([0, 7, 70_000], "uint32"), (CHIPS, PX, PX), p=[0.9, 0.05, 0.05])
    arrays["label", "edge"] = (rng.random((CHIPS, PX, PX)) < 0.1).astype("uint8")
    arrays["label", "soil"] = rng.choice(np.array([0, 50, 100, 255], "uint8"), (CHIPS, 2, PX, PX))
    for (group, name), array in arrays.items():
        if group not in ("s2", "label"):  # who labels asks no satellite
            variable = next(v for v in layout_of(1).variables if v.key == (group, name))
            array[4] = np.nan if array.dtype.kind == "f" else variable.stored_fill
    records = []
    for chip in range(CHIPS):
        clear, n = arrays["s2", "clear"][chip], int(n_dates[chip])
        codes, often = np.unique(arrays["label", "crops"][chip], return_counts=True)
        shares = {int(c): int(k) / PX**2 for c, k in zip(codes, often, strict=True) if c != 255}
        optical = SourceRecord(
            float(np.nanmean(clear)) if n else 0.0, tuple(dates[:n]), ("a", "b")[:n], n + 1, {"cloudy": 1}
        )
        records.append(
            ChipRecord(
                chip=f"32631_{chip}_0",
                shard=0,
                split=SPLITS[chip],
                status="empty" if chip == 4 else "ok" if n else "partial",
                reason="",
                cover=1.0,
                epsg=32631,
                col=chip,
                row=0,
                x0=0.0,
                y0=0.0,
                lon=float(chip),
                lat=50.0,
                sources={"s2": SourceRecord(), "s1": SourceRecord()}
                if chip == 4
                else {"s2": optical, "s1": SourceRecord(1.0, tuple(dates), ("c",), 2)},
                labels={"crops": LabelRecord(shares, sum(shares.values()))},
            )
        )
    return arrays, records


def count_in_parts(arrays: Arrays, records: Sequence[ChipRecord], cuts: Sequence[int], *, by_date: bool) -> bytes:
    """The document of shards that end at ``cuts``, each date an object of its own or not, added up backwards."""
    layout = layout_of(CHIPS)
    packed = []
    for start, end in zip([0, *cuts], [*cuts, CHIPS], strict=True):
        part = {key: array[start:end] for key, array in arrays.items()}
        found = Statistics()
        counter = Counter(
            layout,
            found,
            [record.split for record in records[start:end]],
            [record.status for record in records[start:end]],
            {"s2": part["s2", "acquired"]},
            {"s2": part["s2", "clear_mask"], "s1": part["s1", "count"]},
        )
        for variable in layout.variables:
            timed = variable.dims[:1] == ("time",)
            steps = [slice(i, i + 1) for i in range(STEPS)] if timed and by_date else [slice(0, STEPS)]
            for step in steps:
                block = part[variable.key][:, step] if timed else part[variable.key]
                counter.count(variable, slice(0, end - start), step, block)
        packed.append(found.to_bytes())
    whole = Statistics()
    for data in reversed(packed):
        whole.add_bytes(data, layout)
    return statistics_bytes(layout, whole, map(chip_dates, records))


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.sets(st.integers(1, CHIPS - 1)).map(sorted),
    by_date=st.booleans(),
)
def test_any_sharding_merged_in_any_order_gives_the_same_bytes(seed: int, cuts: list[int], by_date: bool) -> None:
    arrays, records = world(seed)
    assert count_in_parts(arrays, records, cuts, by_date=by_date) == count_in_parts(arrays, records, [], by_date=False)


def build(folder: Path, seed: int = 1, shard_chips: int = 3, order: Sequence[int] | None = None) -> dict[str, Any]:
    """A published dataset; what its statistics say."""
    ref = begin(folder, shard_chips)
    for ordinal in range(ref.layout.n_shards) if order is None else order:
        write(ref, ordinal, seed)
    finish(ref)
    return dict(json.loads((folder / STATISTICS).read_bytes()))


def begin(folder: Path, shard_chips: int = 3) -> BuildRef:
    return start_build(open_storage(folder, create=True), layout_of(shard_chips), "numbers")


def write(ref: BuildRef, ordinal: int, seed: int = 1) -> None:
    arrays, records = world(seed)
    chips = ref.layout.chips_of(ordinal)
    part = {key: array[chips.start : chips.stop] for key, array in arrays.items()}
    mine = [replace(record, shard=ordinal) for record in records[chips.start : chips.stop]]
    write_shard(ref, ordinal, chips.start, part, mine)


def finish(ref: BuildRef, extra: Mapping[str, bytes] | None = None) -> None:
    import shapely

    records = [record for shard in journal(ref) for record in shard.chips]
    outlines = [shapely.box(record.lon - 0.5, 49.5, record.lon + 0.5, 50.5) for record in records]
    numbers = statistics_bytes(ref.layout, merged_statistics(ref), map(chip_dates, records))
    publish(ref, records, {INDEX: index_bytes(records, outlines), STATISTICS: numbers, **(extra or {})}, trim={"s2": 2})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    build(folder)
    return folder


def told(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / STATISTICS).read_bytes()))


def stored(folder: Path, path: str) -> npt.NDArray[Any]:
    return np.asarray(zarr.open_array(folder / "chips.zarr" / path, mode="r")[:])


def of_split(folder: Path, split: str) -> npt.NDArray[np.bool_]:
    """The chips of a split that have an image."""
    return np.asarray((stored(folder, "split") == split) & (stored(folder, "status") != "empty"))


def values_of(folder: Path, split: str, band: str) -> npt.NDArray[Any]:
    """The clear, valid numbers of one band of one split, as the store has them."""
    mine = of_split(folder, split)
    if band in ("red", "nir"):
        pixels = stored(folder, "s2/reflectance")[mine][:, :, ("red", "nir").index(band)]
        return np.asarray(pixels[stored(folder, "s2/clear_mask")[mine] & (pixels != -999)])
    if band == "backscatter":
        pixels = stored(folder, "s1/backscatter")[mine]
        return np.asarray(pixels[(stored(folder, "s1/count")[mine] > 0) & np.isfinite(pixels)])
    pixels = stored(folder, f"dem/{band}")[mine]
    return np.asarray(pixels[pixels != -32768] if band == "height" else pixels[np.isfinite(pixels)])


BANDS = [("s2", "red"), ("s2", "nir"), ("s1", "backscatter"), ("dem", "aspect"), ("dem", "height")]


@pytest.mark.parametrize(("group", "band"), BANDS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_moments_are_those_of_all_clear_pixels_rounded_once(dataset: Path, group: str, band: str, split: str) -> None:
    found = told(dataset)["bands"][group][band]["splits"][split]
    values = [Fraction(value) for value in values_of(dataset, split, band).tolist()]
    assert found["count"] == len(values)
    if not values:
        assert "stored" not in found
        return
    mean = sum(values) / len(values)
    assert found["stored"]["mean"] == float(mean)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    assert found["stored"]["std"] == float(variance) ** 0.5
    assert (found["stored"]["min"], found["stored"]["max"]) == (float(min(values)), float(max(values)))


@pytest.mark.parametrize("band", ["red", "nir"])
def test_percentiles_of_short_integers_are_those_of_numpy(dataset: Path, band: str) -> None:
    found = told(dataset)["bands"]["s2"][band]["splits"]["train"]
    wanted = np.percentile(values_of(dataset, "train", band), PERCENTILES)
    np.testing.assert_allclose(list(found["stored"]["percentiles"].values()), wanted, rtol=1e-12)
    physical = list(found["physical"]["percentiles"].values())
    np.testing.assert_allclose(physical, wanted * 0.0001 - 0.1, rtol=1e-9, atol=1e-12)
    assert found["physical"]["mean"] == pytest.approx(found["stored"]["mean"] * 0.0001 - 0.1)
    assert found["physical"]["std"] == pytest.approx(found["stored"]["std"] * 0.0001)


@pytest.mark.parametrize(("group", "band"), BANDS[2:])
def test_percentiles_of_floats_lie_within_a_fine_bin(dataset: Path, group: str, band: str) -> None:
    found = told(dataset)["bands"][group][band]["splits"]["train"]["stored"]["percentiles"]
    values = values_of(dataset, "train", band)
    for name, value in found.items():
        # Both neighbours in rank are right; between them NumPy interpolates, and so do we.
        low, high = (np.percentile(values, int(name[1:]), method=side) for side in ("lower", "higher"))
        slack = 2.0**-10 * max(abs(float(low)), abs(float(high))) + 2.0**-137  # width of the smallest bins
        assert float(low) - slack <= value <= float(high) + slack


def test_histograms_count_every_pixel_in_its_bin(dataset: Path) -> None:
    for group, band in BANDS:
        told_of = told(dataset)["bands"][group][band]
        for split, found in told_of["splits"].items():
            if "histogram" not in found:
                continue
            values = values_of(dataset, split, band).astype("float64")
            if band == "height":  # bins are of float32
                values = values.astype("float32").astype("float64").clip(max=told_of["edges"][-1])
            assert found["histogram"] == np.histogram(values, told_of["edges"])[0].tolist(), (band, split)
            assert sum(found["histogram"]) == found["count"]


def test_every_pixel_is_counted_void_hidden_or_infinite(dataset: Path) -> None:
    mine = of_split(dataset, "train")
    backscatter, clear = stored(dataset, "s1/backscatter")[mine], stored(dataset, "s1/count")[mine] > 0
    found = told(dataset)["bands"]["s1"]["backscatter"]["splits"]["train"]
    assert found["pixels"] == backscatter.size
    assert found["void"] == np.isnan(backscatter).sum()
    assert found["hidden"] == (~np.isnan(backscatter) & ~clear).sum()
    assert found["infinite"] == (np.isinf(backscatter) & clear).sum()
    assert found["pixels"] == found["count"] + found["void"] + found["hidden"] + found["infinite"]
    for band in told(dataset)["bands"]["s2"].values():
        part = band["splits"]["train"]
        # Only dates that are there have pixels: padding of a series is none.
        there = stored(dataset, "s2/acquired")[mine] != np.iinfo("int64").min
        assert part["pixels"] == int(there.sum()) * PX**2


def test_training_sees_numbers_of_training_only(dataset: Path) -> None:
    found = told(dataset)
    red = found["normalisation"]["s2"]["red"]
    values = values_of(dataset, "train", "red") * 0.0001 - 0.1
    assert red["mean"] == pytest.approx(values.mean())
    assert red["std"] == pytest.approx(values.std())
    assert red["stored"]["mean"] == pytest.approx(values_of(dataset, "train", "red").mean())
    assert red["p50"] == pytest.approx(np.median(values))


def test_directions_have_no_mean_to_train_with(dataset: Path) -> None:
    found = told(dataset)
    assert found["bands"]["dem"]["aspect"]["period"] == 360
    assert set(found["normalisation"]["dem"]) == {"height"}


def test_what_cannot_be_counted_says_so(dataset: Path) -> None:
    assert told(dataset)["not_counted"] == {"dem/exact": "float64 is wider than the 32 bits that are counted"}


def test_classes_are_counted_by_pixel_and_chip(dataset: Path) -> None:
    crops = stored(dataset, "label/crops")
    found = told(dataset)["labels"]["crops"]
    for split in ("train", "val", "test", "buffer"):
        mine = crops[of_split(dataset, split)]
        part = found["splits"][split]
        assert (part["pixels"], part["labelled"]) == (mine.size, int((mine != 255).sum()))
        # Class 9 stands in the legend and nowhere in the pixels, class 0 the other way round; 255 is no class.
        assert list(part["classes"]) == ["0", "1", "2", "9"]
        for code, row in part["classes"].items():
            at = mine == int(code)
            assert (row["pixels"], row["chips"]) == (int(at.sum()), int(at.any(axis=(1, 2)).sum()))
            assert row["name"] == NAMES.get(int(code), "")


def test_labels_of_chips_without_an_image_weigh_nothing(dataset: Path) -> None:
    found = told(dataset)
    empty = stored(dataset, "status") == "empty"
    assert (stored(dataset, "label/crops")[empty] != 255).any()
    (split,) = set(stored(dataset, "split")[empty].tolist())
    assert found["chips"][split] == {"empty": 1}
    assert found["labels"]["crops"]["splits"][split]["labelled"] == 0


def test_weights_follow_their_papers(dataset: Path) -> None:
    crops = stored(dataset, "label/crops")[of_split(dataset, "train")]
    found = told(dataset)["labels"]["crops"]["splits"]["train"]["classes"]
    there = [0, 1, 2]
    n = {code: int((crops == code).sum()) for code in there}
    labelled = (crops != 255).sum(axis=(1, 2))
    # Eigen and Fergus 2015: pixels of the class over labelled pixels of the chips that have it; median over it.
    freq = {c: n[c] / labelled[(crops == c).any(axis=(1, 2))].sum() for c in there}
    chips = {c: int((crops == c).any(axis=(1, 2)).sum()) for c in there}
    # Cui et al. 2019, with weights of mean 1.
    effective = {c: (1 - 0.999 ** chips[c]) / (1 - 0.999) for c in there}
    mean = np.mean([1 / value for value in effective.values()])
    for code in there:
        row = found[str(code)]
        assert row["inverse_frequency"] == pytest.approx(sum(n.values()) / (3 * n[code]))
        assert row["median_frequency"] == pytest.approx(np.median(list(freq.values())) / freq[code])
        assert row["effective_number"] == pytest.approx(1 / effective[code] / mean)
    weights = ("inverse_frequency", "median_frequency", "effective_number")
    assert [found["9"][name] for name in weights] == [None] * 3


def test_objects_are_counted_on_each_chip(dataset: Path) -> None:
    ids = stored(dataset, "label/ids")[of_split(dataset, "train")]
    found = told(dataset)["labels"]["ids"]["splits"]["train"]
    each = [len(set(chip.ravel().tolist()) - {0}) for chip in ids]
    assert found["objects"] == sum(each)
    assert found["chips"] == sum(n > 0 for n in each)
    assert found["most_on_a_chip"] == max(each)
    assert found["objects_per_chip"] == pytest.approx(np.mean(each))
    assert found["covered"] == int((ids > 0).sum())


def test_presence_and_shares_are_told_by_channel(dataset: Path) -> None:
    edge = stored(dataset, "label/edge")[of_split(dataset, "train")]
    found = told(dataset)["labels"]["edge"]["splits"]["train"]
    assert (found["present"], found["chips"]) == (int(edge.sum()), int(edge.any(axis=(1, 2)).sum()))
    clay = stored(dataset, "label/soil")[of_split(dataset, "train")][:, 1]
    part = told(dataset)["bands"]["label"]["soil/clay"]["splits"]["train"]
    assert part["stored"]["mean"] == pytest.approx(clay[clay != 255].mean())
    assert part["void"] == int((clay == 255).sum())


def test_the_quality_layer_tells_why_pixels_are_hidden(dataset: Path) -> None:
    mine = of_split(dataset, "train")
    there = stored(dataset, "s2/acquired")[mine] != np.iinfo("int64").min
    qa = stored(dataset, "s2/qa")[mine][there]
    found = told(dataset)["quality"]["s2"]["qa"]["splits"]["train"]
    assert found["pixels"] == qa.size
    assert found["void"] == int((qa == 1).sum())
    assert found["classes"]["cloud"]["pixels"] == int((qa & 2 == 2).sum())
    assert found["classes"]["cirrus"]["pixels"] == int((qa & 12 == 8).sum())


def test_dates_are_counted_by_chip_and_month(dataset: Path) -> None:
    table = read_index((dataset / INDEX).read_bytes())
    mine = table[table["split"] == "train"]
    found = told(dataset)["dates"]["s2"]["train"]
    used = [len(dates) for dates in mine["s2_dates"]]
    assert (found["seen"], found["used"]) == (int(mine["s2_seen"].sum()), sum(used))
    assert found["dropped"] == {"cloudy": len(mine)}
    assert found["months"]["2020-01"]["mean"] == pytest.approx(np.mean([n > 0 for n in used]))
    # An empty chip stays in the count: it has no date in any month.
    assert told(dataset)["dates"]["s1"]["buffer"]["months"]["2020-02"]["chips_by_dates"] == {"0": 1}


def test_the_index_says_of_dates_what_the_records_say(dataset: Path) -> None:
    table = read_index((dataset / INDEX).read_bytes())
    assert [(d.split, d.status, dict(d.sources)) for d in dates_of_index(layout_of(3), table)] == [
        (d.split, d.status, dict(d.sources)) for d in map(chip_dates, world(1)[1])
    ]


@pytest.mark.parametrize("shard_chips", [1, 2, 7])
def test_other_shards_in_another_order_publish_the_same_file(dataset: Path, tmp_path: Path, shard_chips: int) -> None:
    n = layout_of(shard_chips).n_shards
    build(tmp_path / "other", shard_chips=shard_chips, order=[*reversed(range(n)), 0])
    assert (tmp_path / "other" / STATISTICS).read_bytes() == (dataset / STATISTICS).read_bytes()


def test_a_build_that_goes_on_reads_no_pixels_again(dataset: Path, tmp_path: Path) -> None:
    ref = begin(tmp_path / "out")
    write(ref, 1)
    again = begin(tmp_path / "out")
    assert finished_shards(again) == {1}
    for ordinal in (0, 2):
        write(again, ordinal)
    for path in (tmp_path / "out" / "chips.zarr").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))  # whoever reads pixels now would count zeros
    finish(again)
    assert (tmp_path / "out" / STATISTICS).read_bytes() == (dataset / STATISTICS).read_bytes()


def test_a_shard_whose_counts_are_damaged_is_built_again(tmp_path: Path) -> None:
    ref = begin(tmp_path / "out")
    for ordinal in range(3):
        write(ref, ordinal)
    (tmp_path / "out" / JOURNAL / "statistics" / "000001.bin").write_bytes(b"{}")
    with pytest.raises(StoreError, match="shard 1 is built anew"):
        merged_statistics(ref)
    assert finished_shards(begin(tmp_path / "out")) == {0, 2}


def test_a_good_dataset_is_checked_to_the_last_byte_of_its_statistics(dataset: Path) -> None:
    report = check(open_storage(dataset))
    assert not [problem for problem in report.problems if STATISTICS in problem]
    assert "statistics" not in report.facts


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("normalisation", "s2", "red", "mean"), 0.5),
        (("bands", "s1", "backscatter", "splits", "val", "hidden"), 0),
        (("labels", "crops", "splits", "test", "classes", "1", "pixels"), 1000),
        (("dates", "s2", "train", "used"), 99),
    ],
)
def test_a_number_that_pixels_do_not_bear_out_is_found(tmp_path: Path, path: tuple[str, ...], value: float) -> None:
    ref = begin(tmp_path)
    for ordinal in range(3):
        write(ref, ordinal)
    records = [record for shard in journal(ref) for record in shard.chips]
    wrong = json.loads(statistics_bytes(ref.layout, merged_statistics(ref), map(chip_dates, records)))
    inner = wrong
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    # Published so, all its checksums are right.
    finish(ref, {STATISTICS: json.dumps(wrong).encode()})
    found = [problem for problem in check(open_storage(tmp_path)).problems if STATISTICS in problem]
    assert any(": ".join(path) in problem for problem in found), found


def test_a_damaged_pixel_is_told_once_and_not_as_wrong_statistics(tmp_path: Path) -> None:
    build(tmp_path)
    shard = tmp_path / "chips.zarr" / "label" / "crops" / "c" / "0" / "0" / "0"
    shard.write_bytes(bytes(shard.stat().st_size))
    problems = check(open_storage(tmp_path)).problems
    assert any("crops" in problem for problem in problems)
    assert not any(STATISTICS in problem for problem in problems)


def test_datasets_without_statistics_are_checked_and_described(tmp_path: Path) -> None:
    ref = begin(tmp_path)
    for ordinal in range(3):
        write(ref, ordinal)
    records = [record for shard in journal(ref) for record in shard.chips]
    import shapely

    outlines = [shapely.box(record.lon - 0.5, 49.5, record.lon + 0.5, 50.5) for record in records]
    publish(ref, records, {INDEX: index_bytes(records, outlines)}, trim={"s2": 2})
    report = check(open_storage(tmp_path))
    assert not any("statistics" in problem for problem in report.problems)
    assert "none" in report.facts["statistics"]
    assert describe(open_storage(tmp_path)).statistics is None


def test_the_description_of_a_dataset_has_the_main_numbers(dataset: Path) -> None:
    found = describe(open_storage(dataset)).statistics
    assert found is not None
    assert found["bands"]["s1"]["backscatter"]["units"] == "dB"
    assert found["bands"]["s2"]["red"]["mean"] == told(dataset)["normalisation"]["s2"]["red"]["mean"]
    assert next(iter(found["classes"]["crops"])) == "wheat"


def float_tally(values: Sequence[float]) -> tuple[Counted, Tally]:
    layout = layout_of(1)
    what = next(what for what in counted(layout) if what.variable.key == ("dem", "aspect"))
    tally = Tally.empty(what)
    padded = np.full(-(-len(values) // PX**2) * PX**2, np.nan, "float32")
    padded[: len(values)] = values
    tally.add(padded.reshape(-1, PX, PX), np.arange(len(padded) // PX**2), None)
    return what, tally


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=80))
def test_sums_of_floats_are_exact_whatever_their_sizes(values: list[float]) -> None:
    _, tally = float_tally(values)
    assert Fraction(tally.total[0], 1 << 149) == sum(map(Fraction, values))
    assert Fraction(tally.squares[0], 1 << 298) == sum(Fraction(value) ** 2 for value in values)
    assert (tally.low[0], tally.high[0]) == (min(values), max(values))
    assert tally.histogram.sum() == len(values)


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(3.401992901712019e38)
@example(-3.4028234663852886e38)
def test_a_float_lies_in_its_fine_bin(value: float) -> None:
    found = int(fine_bin([value])[0])
    below, above = fine_edge([found, found + 1])
    # Of negative numbers bins hold their lower end's neighbour up to it, so either edge may be its own.
    assert min(below, above) <= value <= max(below, above)
    if abs(value) > 1e-37:
        assert abs(above - below) <= 2.0**-10 * abs(value)


def test_a_band_of_zeros_has_percentiles_of_zero() -> None:
    what, tally = float_tally([*[0.0] * 90, *[0.25] * 10, -0.0])
    steps = {(group.name, "train"): 0 for group in layout_of(1).groups}
    counts = Statistics({"train": 3}, steps, {(*what.variable.key, "train"): tally})
    found = json.loads(statistics_bytes(layout_of(1), counts, []))
    percentiles = found["bands"]["dem"]["aspect"]["splits"]["train"]["stored"]["percentiles"]
    assert [percentiles[f"p{p}"] for p in (1, 25, 75)] == [0, 0, 0]


def test_counts_of_another_layout_are_refused() -> None:
    layout = layout_of(1)
    other = replace(layout, variables=tuple(v for v in layout.variables if v.name != "crops"))
    arrays, _ = world(1)
    counts = Statistics()
    counter = Counter(layout, counts, SPLITS, ["ok"] * CHIPS, {}, {})
    crops = next(v for v in layout.variables if v.name == "crops")
    counter.count(crops, slice(0, CHIPS), slice(0, 1), arrays["label", "crops"])
    with pytest.raises(KeyError):
        Statistics().add_bytes(counts.to_bytes(), other)
    with pytest.raises(ValueError, match="version"):
        Statistics().add_bytes(counts.to_bytes().replace(b'"version":1', b'"version":9'), layout)
