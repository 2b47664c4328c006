"""Classes with an order (severity 0 to 4) as one layer a step: is it more than this?

The encoding is that of Frank and Hall (2001), "A simple approach to ordinal classification": K classes are K - 1
questions with yes or no, which is what ordinal regression learns from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import annotated_types

from curate.errors import LabelError
from labels.layers import Layer, layer_of
from labels.legend import Legend
from labels.source import Derived, LabelVariable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VOID = 255
"""Where the class is unknown or has no place in the order."""


@dataclass(frozen=True, slots=True)
class OrdinalSpec:
    """A class label with an order, encoded cumulatively."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ()

    of: str
    """Class label."""
    ordinal: tuple[int, ...]
    """Its codes from least to most. Classes that are not listed are void."""
    min_labelled: Annotated[float, annotated_types.Interval(ge=0, le=1)] = 0.0
    """Share of a chip that should have a class; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        if len(self.ordinal) < 2:
            raise ValueError(f"ordinal needs at least two codes, found {len(self.ordinal)}")
        if len(set(self.ordinal)) < len(self.ordinal):
            raise ValueError("a code stands twice in ordinal; each has one place")


def cumulative(classes: NDArray[Any], order: Sequence[int]) -> NDArray[np.uint8]:
    """Layers (len(order) - 1, y, x): layer k is 1 where the class stands after ``order[k]``, 0 where not, 255 void.

    Their sum over k is the place of the class in ``order``.
    """
    import numpy as np

    places = np.full(classes.shape, -1, np.int64)
    for place, code in enumerate(order):
        places[classes == code] = place
    steps = np.arange(len(order) - 1)[:, None, None]
    return np.where(places < 0, VOID, places > steps).astype(np.uint8)


@dataclass(frozen=True)
class OrdinalLabel:
    """A class label with an order on a chip; see ``ordinal_label``."""

    name: str
    spec: OrdinalSpec
    legend: Legend
    variables: tuple[LabelVariable, ...]
    ignore: int

    @property
    def needs(self) -> tuple[str, ...]:
        """The class label."""
        return (self.spec.of,)

    def derive(self, found: Mapping[str, NDArray[Any]]) -> Derived:
        """The layers of one chip; value ``unordered`` is the share of all pixels whose class has no place."""
        import numpy as np

        classes = found[self.spec.of]
        layers = cumulative(classes, self.spec.ordinal)
        void = layers[0] == VOID
        unordered = void & (classes != self.ignore)
        return Derived(
            {self.name: layers},
            {"unordered": float(np.mean(unordered))},
            reason=f"{self.spec.of} has none of the ordered classes here" if void.all() else "",
        )


def ordinal_label(name: str, spec: OrdinalSpec, sources: Mapping[str, Layer]) -> OrdinalLabel:
    """The label that a spec describes: ``{name}``, uint8 (``step``, y, x), see ``cumulative``.

    Raises:
        LabelError: The label is missing or holds no classes, or a code is not in its legend or its ignore value.
    """
    layer = layer_of(sources, spec.of, name)
    known = layer.legend.codes
    wrong = [code for code in spec.ordinal if code == layer.ignore or (known and code not in known)]
    if wrong:
        raise LabelError(f"label {name}", f"{wrong[0]} is no class of {spec.of}, so it has no place in ordinal")
    steps = tuple(f"more than {layer.legend.name(code) if known else code}" for code in spec.ordinal[:-1])
    variable = LabelVariable(
        name, "uint8", VOID, "classes", lead=(("step", len(steps)),), coords=(("step", steps),),
        attrs={
            "long_name": f"order of {spec.of}",
            "flag_values": [0, 1],
            "flag_meanings": "no yes",
            "ordered_codes": list(spec.ordinal),
        },
    )  # fmt: skip
    return OrdinalLabel(name, spec, layer.legend, (variable,), layer.ignore)
