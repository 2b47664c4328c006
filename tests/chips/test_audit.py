"""The audit of leakage: what was planted is found, and what is clean has nothing to tell."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chips.audit import AuditSpec, audit, audit_bytes, broken, differences, variogram_range
from chips.prints import Remembered, alike, remember
from tiling.grid import Chip
from tiling.split import SplitSpec, assign_splits

SPLIT = SplitSpec(block_km=4, buffer_km=1)


def landscape(side: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Means of a field that is smooth over some chips."""
    rng = np.random.default_rng(seed)
    wave = rng.normal(size=(side + 8, side + 8))
    kernel = np.ones(9) / 9
    for axis in (0, 1):
        wave = np.apply_along_axis(lambda row: np.convolve(row, kernel, mode="same"), axis, wave)
    return wave[4:-4, 4:-4]


def dataset(side: int = 25, px: int = 64) -> tuple[pd.DataFrame, list[Chip]]:
    """An index of side x side chips of 640 m with pictures of noise, clean by construction."""
    chips = [Chip(32633, 800 + col, 8200 + row, px, 10) for row in range(side) for col in range(side)]
    rng = np.random.default_rng(1)
    means = landscape(side).ravel()
    prints = [bytes.fromhex(print_of(rng, 1000 + 400 * mean)) for mean in means]
    table = pd.DataFrame(
        {
            "chip": [chip.id for chip in chips],
            "split": assign_splits(chips, SPLIT),
            "s2_dates": [[np.datetime64("2021-05-01")]] * len(chips),
            "s2_scenes": [[f"scene-{chip.col // 10}"] for chip in chips],
            "s2_means": [[1000 + 400 * mean, 2000 - 100 * mean] for mean in means],
            "s2_print": prints,
            "crops_shares": [[(1, 0.5), (2, 0.5)]] * len(chips),
        }
    )
    return table, chips


def print_of(rng: np.random.Generator, level: float) -> str:
    return remember(rng.normal(level, 50, (2, 16, 16)).astype("float32"), ("band", "y", "x"), None).print


def rows_of(table: pd.DataFrame, split: str) -> list[int]:
    return np.flatnonzero(table["split"].to_numpy() == split).tolist()


def told(table: pd.DataFrame, chips: list[Chip], spec: AuditSpec | None = None) -> list[str]:
    return broken(audit(table, chips), spec or AuditSpec(), SPLIT.buffer_km * 1000)


def test_a_clean_dataset_has_nothing_to_tell() -> None:
    table, chips = dataset()
    found = audit(table, chips, block_m=4000, acquisitions={"scene-80": "pass"})
    assert broken(found, AuditSpec(), 1000) == []
    pair = found["pairs"]["train-test"]
    assert pair["distance_m"]["shortest"] >= 1000
    assert (pair["overlap"]["pairs"], pair["duplicates"]["s2"]["pairs"]) == (0, 0)
    assert pair["class_divergence"]["crops"] == 0
    assert found["chips"] == table["split"].value_counts().to_dict()
    assert differences(json.loads(audit_bytes(found)), found) == []


# --- planted leaks


def test_a_chip_moved_over_is_found() -> None:
    table, chips = dataset()
    inside = next(row for row in rows_of(table, "train") if table["split"][row + 1] == "train")
    table.loc[inside, "split"] = "test"
    assert "train and test come as near as 0 m; the recipe promises 1000 m" in told(table, chips)


def test_a_shrunken_buffer_is_found() -> None:
    table, chips = dataset()
    table["split"] = assign_splits(chips, SplitSpec(block_km=4, buffer_km=0.5))
    assert any("and test come as near as 6" in problem for problem in told(table, chips))


def test_a_copied_chip_is_found_though_its_place_is_another() -> None:
    table, chips = dataset()
    here, there = rows_of(table, "train")[3], rows_of(table, "test")[-1]
    table.at[there, "s2_print"] = table["s2_print"][here]
    assert told(table, chips) == [
        f"s2: 1 pairs of chips of train and test have the same pixels, the recipe allows 0: "
        f"{chips[here].id} and {chips[there].id}"
    ]
    assert told(table, chips, AuditSpec(max_duplicates=1)) == []
    assert told(table, chips, AuditSpec(max_duplicates=None)) == []


def test_overlapping_windows_are_found_and_measured() -> None:
    table, chips = dataset()
    here, there = rows_of(table, "val")[0], rows_of(table, "test")[-1]
    # Twice as large and on the same corner: three quarters of it are ground that the other has not.
    chip = chips[here]
    chips[there] = Chip(32633, chip.col // 2, chip.row // 2, 128, 10)
    pair = audit(table, chips)["pairs"]["val-test"]["overlap"]
    assert pair["pairs"] >= 1
    assert pair["m2"] == pytest.approx(pair["pairs"] * 640**2)
    assert pair["pixels"] == pair["pairs"] * 64**2
    assert any("share" in problem and chip.id in problem for problem in told(table, chips))


def test_scenes_that_train_is_made_from_too_are_counted() -> None:
    table, chips = dataset()
    test = rows_of(table, "test")
    mine = {scene for row in rows_of(table, "train") for scene in table["s2_scenes"][row]}
    share = np.mean([table["s2_scenes"][row][0] in mine for row in test])
    found = audit(table, chips, acquisitions={f"scene-{n}": "one pass" for n in range(200)})
    assert found["pairs"]["train-test"]["scenes"]["s2"]["share"] == pytest.approx(share, abs=1e-6)
    assert found["pairs"]["train-test"]["acquisitions"]["s2"] == {"shared": 1, "share": 1.0}
    strict = AuditSpec(max_shared_scenes=0.1)
    assert any(
        "of the chips of test are made from scenes that train is made from" in p for p in told(table, chips, strict)
    )


def test_drift_of_classes_and_bands_is_measured() -> None:
    table, chips = dataset()
    test = set(rows_of(table, "test"))
    crops: Any = [[(3, 1.0)] if i in test else found for i, found in enumerate(table["crops_shares"])]
    table["crops_shares"] = crops
    table["s2_means"] = [[red + 5000 * (i in test), nir] for i, (red, nir) in enumerate(table["s2_means"])]
    pair = audit(table, chips)["pairs"]["train-test"]
    assert pair["class_divergence"]["crops"] == 1.0  # no class in common: one bit
    assert pair["spectra"]["s2"]["difference"][0] > 10 > 1 > abs(pair["spectra"]["s2"]["difference"][1])
    assert pair["spectra"]["s2"]["outside"] == 1.0
    assert audit(table, chips)["pairs"]["train-val"]["class_divergence"]["crops"] == 0


def test_an_audit_that_was_changed_differs_from_that_of_its_index() -> None:
    found = audit(*dataset(25))
    changed = json.loads(audit_bytes(found))
    changed["pairs"]["train-val"]["duplicates"]["s2"]["pairs"] = 3
    assert differences(changed, found) == ["pairs.train-val.duplicates.s2.pairs"]
    del changed["autocorrelation"]
    assert differences(changed, found)[0] == "autocorrelation"


# --- prints and means


@given(
    st.integers(0, 1000), st.sampled_from([8, 13, 64, 100, 256]), st.sampled_from(["uint16", "int16", "float32"]),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_a_print_is_of_its_pixels_and_of_no_others(seed: int, side: int, dtype: str, dated: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = (3, 2, side, side) if dated else (2, side, side)
    dims = ("time", "band", "y", "x") if dated else ("band", "y", "x")

    def picture() -> npt.NDArray[Any]:
        blocks = rng.uniform(500, 3000, (*shape[:-2], 8, 8))
        index = np.arange(side) * 8 // side
        return blocks[..., index, :][..., index].astype(dtype)

    one, other = picture(), picture()
    noisy = (one + rng.normal(0, 3, one.shape)).astype(dtype)
    prints = [bytes.fromhex(remember(pixels, dims, 0).print) for pixels in (one, one.copy(), noisy, other)]
    assert alike(prints[:1], prints) == [(0, 0), (0, 1), (0, 2)]


def test_void_pixels_count_neither_in_means_nor_in_prints() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 3000, (4, 3, 64, 64)).astype("uint16")
    pixels[:2, :, :30] = 0
    pixels[:, :, :, 60:] = 0
    found = remember(pixels, ("time", "band", "y", "x"), 0)
    wanted = [pixels[:, band][pixels[:, band] > 0].mean() for band in range(3)]
    assert found.means == pytest.approx(wanted, rel=1e-6)
    assert found.print
    real = np.where(pixels > 0, pixels.astype("float32"), np.nan)
    assert remember(real, ("time", "band", "y", "x"), float("nan")) == found


def test_what_is_void_or_of_one_brightness_has_no_print() -> None:
    flat = np.full((2, 64, 64), 7, "uint16")
    assert remember(flat, ("band", "y", "x"), 0) == Remembered((7.0, 7.0), "")
    empty = remember(np.zeros((2, 64, 64), "uint16"), ("band", "y", "x"), 0)
    assert np.isnan(empty.means).all()
    assert empty.print == ""
    assert alike([None, None], [None]) == []
    tiny = remember(np.arange(16, dtype="float32").reshape(4, 4), ("y", "x"), None)
    assert tiny == Remembered((7.5,), "")


# --- the variogram


@pytest.mark.parametrize("scale_m", [4_000.0, 10_000.0])
def test_the_range_of_a_field_of_known_range_is_found(scale_m: float) -> None:
    # Means over discs of this diameter of white noise are a field whose covariance is the circular model, and nothing
    # farther apart than the diameter has anything in common.
    rng = np.random.default_rng(4)
    cells = 240
    noise = np.fft.rfft2(rng.normal(size=(cells, cells)))
    y, x = np.meshgrid(*[np.minimum(np.arange(cells), cells - np.arange(cells))] * 2, indexing="ij")
    disc = np.hypot(y, x) * 500 <= scale_m / 2
    field = np.fft.irfft2(noise * np.fft.rfft2(disc), s=(cells, cells))
    at = rng.choice(cells * cells, 1500, replace=False)
    places = np.stack([at % cells * 500.0, at // cells * 500.0, np.zeros(len(at))], axis=1)
    range_m, why = variogram_range(places, field.ravel()[at])
    assert why == ""
    assert range_m == pytest.approx(scale_m, rel=0.35)


def test_a_variogram_says_why_it_has_no_range() -> None:
    places = np.stack([np.arange(50) * 100.0, np.zeros(50), np.zeros(50)], axis=1)
    assert variogram_range(places[:10], np.arange(10.0)) == (None, "10 chips have pixels, a variogram needs 30")
    assert variogram_range(places, np.full(50, 3.0)) == (None, "all chips have the same mean")
    assert "still become less alike" in variogram_range(places, np.arange(50.0))[1]


def test_sixteen_times_the_chips_take_not_much_more_than_sixteen_times_the_time() -> None:
    seconds = []
    for side in (15, 60):
        table, chips = dataset(side)
        began = time.process_time()
        audit(table, chips, block_m=4000)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 64 * max(seconds[0], 0.05)  # all pairs would be 256 times
