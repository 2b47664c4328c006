from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from curate.errors import LabelError
from labels.layers import Layer
from labels.legend import LabelClass, Legend
from labels.source import LabelVariable
from labels.zonal import HistogramSpec, ZonalSpec, histogram_label, zonal, zonal_label

SOURCES = {
    "parcels": Layer(LabelVariable("parcels", "uint32", 0, "ids")),
    "height": Layer(LabelVariable("height", "float32", float("nan"), "measure", attrs={"units": "m"})),
    "trust": Layer(LabelVariable("trust", "uint8", 255, "measure")),
    "crop": Layer(LabelVariable("crop", "uint8", 255, "classes"), Legend((LabelClass(1, "maize"),))),
}


@given(
    ids=npst.arrays(np.uint32, (6, 7), elements=st.sampled_from([0, 3, 4_000_000_000, 7])),
    values=npst.arrays(np.float32, (6, 7), elements=st.floats(-1e4, 1e4, width=32) | st.just(np.nan)),
    codes=npst.arrays(np.uint16, (6, 7), elements=st.sampled_from([1, 2, 311, 65535])),
)
def test_rows_are_those_of_a_groupby(ids: Any, values: Any, codes: Any) -> None:
    rows = zonal(ids, measures={"m": values}, classes={"c": (codes, 65535)})
    frame = pd.DataFrame({"id": ids.ravel(), "m": values.ravel().astype(float), "c": codes.ravel()})
    frame = frame[frame.id != 0]
    groups = frame.groupby("id")
    assert rows.id.tolist() == sorted(frame.id.unique())
    np.testing.assert_array_equal(rows.n_px, groups.size())
    np.testing.assert_array_equal(rows.m_n, groups.m.count())
    np.testing.assert_array_equal(rows.m_min, groups.m.min())
    np.testing.assert_array_equal(rows.m_max, groups.m.max())
    np.testing.assert_allclose(rows.m_mean, groups.m.mean(), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(rows.m_std, groups.m.std(ddof=0), rtol=1e-9, atol=1e-6)
    for zone, n_px, majority, shares in zip(rows.id, rows.n_px, rows.c_majority, rows.c_shares, strict=True):
        inside = frame[(frame.id == zone) & (frame.c != 65535)].c
        assert shares == {code: n / n_px for code, n in inside.value_counts().items()}
        assert majority == inside.mode().min() if len(inside) else majority is pd.NA


def test_rows_of_a_chip_by_hand() -> None:
    ids = np.array([[1, 1, 1], [2, 2, 0]], np.uint32)
    found: dict[str, Any] = {
        "parcels": ids,
        "height": np.array([[1, 2, np.nan], [np.nan, np.nan, 9]], np.float32),
        "trust": np.array([[90, 255, 70], [255, 50, 10]], np.uint8),
        "crop": np.array([[2, 1, 255], [255, 255, 1]], np.uint8),
    }
    label = zonal_label("table", ZonalSpec(of=("height", "trust", "crop"), zones="parcels"), SOURCES)
    rows = pickle.loads(pickle.dumps(label)).rows(found)
    assert list(rows) == [
        "id", "n_px", "height_n", "height_mean", "height_std", "height_min", "height_max",
        "trust_n", "trust_mean", "trust_std", "trust_min", "trust_max", "crop_majority", "crop_shares",
    ]  # fmt: skip
    assert rows.n_px.tolist() == [3, 2]
    assert rows.height_n.tolist() == [2, 0]
    np.testing.assert_array_equal(rows.height_mean, [1.5, np.nan])
    np.testing.assert_array_equal(rows.height_std, [0.5, np.nan])
    assert rows.trust_mean.tolist() == [80, 50]  # 255 is no value
    assert rows.crop_majority[0] == 1
    assert rows.crop_majority[1] is pd.NA
    assert rows.crop_shares.tolist() == [{2: 1 / 3, 1: 1 / 3}, {}]
    assert label.derive(found).values == {"objects": 2.0}


def test_a_chip_without_objects_has_no_rows_which_is_no_fault() -> None:
    label = zonal_label("table", ZonalSpec(of=("height", "crop"), zones="parcels"), SOURCES)
    found: dict[str, Any] = {
        "parcels": np.zeros((2, 2), np.uint32),
        "height": np.ones((2, 2), np.float32),
        "crop": np.ones((2, 2), np.uint8),
    }
    assert len(label.rows(found)) == 0
    derived = label.derive(found)
    assert (derived.values, derived.reason) == ({"objects": 0.0}, "")


def test_ids_and_layers_must_be_what_they_are_called() -> None:
    with pytest.raises(LabelError, match="crop holds classes, wanted ids"):
        zonal_label("table", ZonalSpec(of=("height",), zones="crop"), SOURCES)
    with pytest.raises(ValueError, match="cannot be summarised by itself"):
        ZonalSpec(of=("parcels",), zones="parcels")


def test_confidence_of_usda_by_crop_is_what_scipy_says(shared_data: Path) -> None:
    import rasterio
    from scipy import ndimage

    with (
        rasterio.open(shared_data / "kansas-cdl" / "2021_30m_cdls.tif") as crops,
        rasterio.open(shared_data / "kansas-cdl" / "2021_30m_confidence_layer.tif") as trust,
    ):
        ids, confidence = crops.read(1), trust.read(1)
    rows = zonal(ids, measures={"trust": confidence})
    assert len(rows) == 35
    codes, places = np.unique(ids, return_inverse=True)  # scipy divides by nothing for numbers that do not occur
    assert rows.id.tolist() == codes.tolist()
    ids, zones = places.reshape(ids.shape), np.arange(len(codes))
    np.testing.assert_allclose(rows.trust_mean, ndimage.mean(confidence, ids, zones), rtol=1e-12)
    np.testing.assert_allclose(rows.trust_std, ndimage.standard_deviation(confidence, ids, zones), rtol=1e-9)
    np.testing.assert_array_equal(rows.trust_min, ndimage.minimum(confidence, ids, zones))
    np.testing.assert_array_equal(rows.trust_max, ndimage.maximum(confidence, ids, zones))


def test_a_histogram_has_the_shares_of_known_pixels_and_tells_what_lies_outside() -> None:
    label = histogram_label("spread", HistogramSpec(of="height", histogram=(0, 10, 20)), SOURCES)
    heights = np.array([[-1, 0, 9.5, 10], [20, 21, np.nan, np.nan]], np.float32)
    derived = pickle.loads(pickle.dumps(label)).derive({"height": heights})
    np.testing.assert_allclose(derived.arrays["spread"], [2 / 6, 2 / 6])
    assert derived.values == pytest.approx({"known": 0.75, "mean": 59.5 / 6, "below": 1 / 6, "above": 1 / 6})
    variable = label.variables[0]
    assert variable.dims == ("bin",)
    assert dict(variable.coords)["bin"] == ("0 to 10", "10 to 20")
    assert variable.attrs["bin_units"] == "m"


@given(npst.arrays(np.uint8, (5, 5), elements=st.integers(0, 255)))
def test_all_shares_of_a_histogram_sum_to_one(values: Any) -> None:
    label = histogram_label("spread", HistogramSpec(of="trust", histogram=(10, 50, 200)), SOURCES)
    derived = label.derive({"trust": values})
    if (values == 255).all():
        assert np.isnan(derived.arrays["spread"]).all()
        assert derived.reason == "trust has no value here"
        return
    total = derived.arrays["spread"].sum() + derived.values["below"] + derived.values["above"]
    assert total == pytest.approx(1, abs=1e-6)
    assert derived.values["known"] == (values != 255).mean()


@pytest.mark.parametrize(("edges", "said"), [((1,), "at least two edges"), ((1, 1), "must ascend"), ((2, 1), "ascend")])
def test_edges_that_make_no_bins_are_refused(edges: tuple[float, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        HistogramSpec(of="height", histogram=edges)
