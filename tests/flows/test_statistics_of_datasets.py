"""Statistics of a dataset built from a recipe, against what xarray decodes from the store."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from chips.index import INDEX, read_index
from chips.manifest import STATISTICS, Manifest
from flows.console import PlainConsole
from flows.steps import check, info
from flows.words import describe

PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"


@pytest.fixture(scope="module")
def numbers(dataset: Path) -> dict[str, Any]:
    return dict(json.loads((dataset / STATISTICS).read_text()))


def opened(dataset: Path, group: str) -> xr.Dataset:
    """A group with physical values, of the training split."""
    ds: xr.Dataset = xr.open_zarr(dataset / "chips.zarr", group=group, chunks=None)
    return ds.isel(chip=(ds.split == "train").to_numpy())


def test_every_band_has_the_mean_and_spread_of_its_clear_training_pixels(
    dataset: Path, numbers: dict[str, Any]
) -> None:
    compared = []
    for group, bands in numbers["normalisation"].items():
        ds = opened(dataset, group)
        masks = [ds[name] for name in ("clear_mask", "count") if name in ds]
        for band, found in bands.items():
            name = numbers["bands"][group][band]["variable"]
            values = ds[name].sel(band=band) if "band" in ds[name].dims else ds[name]
            if masks and "time" in values.dims:
                values = values.where(masks[0].astype(float) > 0)
            values = values.to_numpy().astype("float64")
            assert found["mean"] == pytest.approx(np.nanmean(values), rel=1e-6)
            assert found["std"] == pytest.approx(np.nanstd(values), rel=1e-6)
            np.testing.assert_allclose(
                [found["p2"], found["p98"]], np.nanpercentile(values, [2, 98]), rtol=2e-3, err_msg=f"{group}/{band}"
            )
            compared.append(f"{group}/{band}")
    assert {"s2/nir", "s1/vv", "dem/elevation"} <= set(compared)


def test_the_snippet_of_the_page_leaves_clear_training_pixels_with_mean_0_and_spread_1(dataset: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code.replace('"dataset/', f'"{dataset}/'), str(PAGE), "exec"), names)
    x, ds = names["x"], names["ds"]
    seen = ds.reflectance.notnull() & (ds["count"].astype(float) > 0)
    clear = x.where(seen).isel(chip=(ds.split == "train").to_numpy())
    np.testing.assert_allclose(clear.mean(["chip", "time", "y", "x"]), 0, atol=1e-4)
    np.testing.assert_allclose(clear.std(["chip", "time", "y", "x"]), 1, atol=1e-4)
    assert not x.isnull().any()


def test_shares_of_classes_are_those_of_the_index(dataset: Path, numbers: dict[str, Any]) -> None:
    table = read_index((dataset / INDEX).read_bytes())
    mine = table[table["split"] == "train"]
    for label, told in numbers["labels"].items():
        part = told["splits"]["train"]
        shares: dict[str, float] = {}
        for chip in mine[f"{label}_shares"]:
            for code, share in chip:
                shares[str(code)] = shares.get(str(code), 0) + share / len(mine)
        found = {code: row["pixels"] / part["pixels"] for code, row in part["classes"].items() if row["pixels"]}
        assert found == pytest.approx(shares, abs=1e-6)


def test_the_file_is_promised_checked_and_described(dataset: Path, numbers: dict[str, Any]) -> None:
    assert STATISTICS in Manifest.from_bytes((dataset / "manifest.json").read_bytes()).objects()
    assert check(str(dataset), PlainConsole()).problems == ()
    told = describe(info(str(dataset)))
    nir = numbers["normalisation"]["s2"]["nir"]
    assert f"nir {nir['mean']:.3g} ± {nir['std']:.2g}" in told


def test_classes_of_chips_as_a_whole_are_told_in_one_line(dataset: Path) -> None:
    told = info(str(dataset))
    assert told.statistics is not None
    classes = {"scene/rare": {"absent": 0.9, "present": 0.1}, "scene/common/mixed": {"present": 1.0}}
    classes |= {f"scene/never{n}": {"absent": 1.0} for n in range(100)}
    statistics = {"bands": {}, "classes": {"fields": {"maize": 1.0}, **classes}}
    lines = describe(dataclasses.replace(told, statistics=statistics)).splitlines()
    assert [line for line in lines if " train: " in line] == [
        "  fields   train: maize 100.0%",
        "  scene    train: common/mixed 100.0%, rare 10.0% of the chips",
    ]
