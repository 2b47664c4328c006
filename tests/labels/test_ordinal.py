from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from curate.errors import LabelError
from labels.layers import Layer
from labels.legend import LabelClass, Legend
from labels.ordinal import OrdinalSpec, cumulative, ordinal_label
from labels.source import LabelVariable

LEGEND = Legend(tuple(LabelClass(code, name) for code, name in enumerate(("none", "low", "moderate", "high", "cloud"))))
SOURCES = {"severity": Layer(LabelVariable("severity", "uint8", 255, "classes"), LEGEND)}


def test_layers_by_hand() -> None:
    label = ordinal_label("steps", OrdinalSpec(of="severity", ordinal=(0, 1, 2, 3)), SOURCES)
    derived = pickle.loads(pickle.dumps(label)).derive({"severity": np.array([[0, 1, 2, 3, 4, 255]], np.uint8)})
    np.testing.assert_array_equal(
        derived.arrays["steps"][:, 0],
        [[0, 1, 1, 1, 255, 255], [0, 0, 1, 1, 255, 255], [0, 0, 0, 1, 255, 255]],
    )
    assert derived.values == {"unordered": 1 / 6}
    variable = label.variables[0]
    assert variable.dims == ("step", "y", "x")
    assert dict(variable.coords)["step"] == ("more than none", "more than low", "more than moderate")
    assert derived.arrays["steps"].dtype == variable.dtype


@given(
    npst.arrays(np.uint8, (4, 4), elements=st.integers(0, 9)),
    st.lists(st.integers(0, 9), min_size=2, max_size=8, unique=True),
)
def test_the_sum_of_the_layers_is_the_place_in_the_order_and_they_never_rise(classes: Any, order: list[int]) -> None:
    layers = cumulative(classes, order)
    assert layers.shape == (len(order) - 1, 4, 4)
    known = np.isin(classes, order)
    assert (layers[:, ~known] == 255).all()
    places = layers[:, known].astype(int).sum(axis=0)
    np.testing.assert_array_equal(np.array(order)[places], classes[known])
    assert (np.diff(layers[:, known].astype(int), axis=0) <= 0).all()


def test_a_chip_without_ordered_classes_has_a_reason() -> None:
    label = ordinal_label("steps", OrdinalSpec(of="severity", ordinal=(0, 1)), SOURCES)
    derived = label.derive({"severity": np.full((2, 2), 4, np.uint8)})
    assert derived.reason == "severity has none of the ordered classes here"
    assert derived.values == {"unordered": 1.0}


def test_what_cannot_be_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="at least two codes"):
        OrdinalSpec(of="severity", ordinal=(1,))
    with pytest.raises(ValueError, match="twice"):
        OrdinalSpec(of="severity", ordinal=(1, 1))
    with pytest.raises(LabelError, match="7 is no class of severity"):
        ordinal_label("steps", OrdinalSpec(of="severity", ordinal=(1, 7)), SOURCES)
