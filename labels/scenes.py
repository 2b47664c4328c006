"""What a chip is as a whole: the classes on it, or the one that most of it is, with a limit on what is not labelled.

The rule for several labels a chip is BigEarthNet's (reBEN): one pixel is enough, and a chip counts only if less than a
quarter of it is unlabelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types

from curate.errors import LabelError
from labels.layers import Layer, histogram, layer_of
from labels.legend import Legend
from labels.source import Derived, LabelVariable

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNKNOWN = 255
"""Where a chip does not tell: neither present nor absent."""


@dataclass(frozen=True, slots=True)
class SceneSpec:
    """Labels of the chip as a whole, from a class label."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ()
    min_labelled: ClassVar[float] = 0.0

    of: str
    """Class label whose pixels are counted."""
    scene: Literal["multilabel", "dominant", "presence"]
    """multilabel: all classes on the chip, or unknown as a whole; dominant: the most frequent class, or unknown;
    presence: each class by itself, where a class that is seen counts however much is unlabelled."""
    max_unlabelled: Annotated[float, annotated_types.Interval(gt=0, le=1)] = 0.25
    """A chip tells what is absent only if less than this share of it is unlabelled."""
    min_share: Annotated[float, annotated_types.Interval(ge=0, le=1)] = 0.0
    """Share of all pixels that a class needs. 0: one pixel is enough."""

    def __post_init__(self) -> None:
        if not 0 < self.max_unlabelled <= 1:
            raise ValueError(f"max_unlabelled is {self.max_unlabelled}, wanted a share above 0 and up to 1")
        if not 0 <= self.min_share <= 1:
            raise ValueError(f"min_share is {self.min_share}, wanted a share of 0 to 1")


@dataclass(frozen=True)
class SceneLabel:
    """Labels of a chip as a whole; see ``scene_label``."""

    name: str
    spec: SceneSpec
    legend: Legend
    variables: tuple[LabelVariable, ...]
    ignore: int

    @property
    def needs(self) -> tuple[str, ...]:
        """The class label that is counted."""
        return (self.spec.of,)

    def derive(self, found: Mapping[str, NDArray[Any]]) -> Derived:
        """Labels and shares of one chip.

        Values are ``unlabelled`` (share of all pixels) and ``unlisted`` (share of those whose code the legend does not
        name; they count as unlabelled). A chip that does not tell has 255 and the reason.
        """
        import numpy as np

        spec, pixels = self.spec, found[self.spec.of]
        counts = histogram(pixels, self.ignore)
        n = np.array([counts.pop(code, 0) for code in self.legend.codes])
        unlabelled = (pixels.size - int(n.sum())) / pixels.size
        values = {"unlabelled": unlabelled, "unlisted": sum(counts.values()) / pixels.size}
        shares = (n / pixels.size).astype(np.float32) if n.any() else np.full(len(n), np.nan, np.float32)

        enough = (n > 0) & (n / pixels.size >= spec.min_share)
        known = unlabelled < spec.max_unlabelled
        reason = ""
        if not known:
            reason = f"{unlabelled:.1%} of the chip is unlabelled, wanted less than {spec.max_unlabelled:.1%}"
        hot = np.full(len(n), UNKNOWN, np.uint8)
        if spec.scene == "presence":
            hot = np.where(enough, 1, 0 if known else UNKNOWN).astype(np.uint8)
        elif known and spec.scene == "multilabel":
            hot = enough.astype(np.uint8)
        elif known:
            top = int(n.argmax())
            if enough[top]:
                hot = np.zeros(len(n), np.uint8)
                hot[top] = 1
            else:
                reason = f"no class has the share {spec.min_share:g} of the chip"
        return Derived(
            arrays={self.name: hot, f"{self.name}_shares": shares},
            values=values,
            classes=tuple(code for code, on in zip(self.legend.codes, hot, strict=True) if on == 1),
            reason=reason,
        )


def scene_label(name: str, spec: SceneSpec, sources: Mapping[str, Layer]) -> SceneLabel:
    """The label that a spec describes.

    Its variables, along ``class`` in the order of the legend: ``{name}`` (uint8: 1 there, 0 not, 255 unknown)
    and ``{name}_shares`` (float32: share of all pixels, NaN where nothing is labelled).

    Raises:
        LabelError: The label is missing, holds no classes, or nobody told what its codes are.
    """
    layer = layer_of(sources, spec.of, name)
    if not layer.legend.classes:
        raise LabelError(f"label {name}", f"{spec.of} has no legend, so its classes are not known; give it one")
    lead = (("class", len(layer.legend.classes)),)
    coords = (("class", tuple(c.name for c in layer.legend.classes)),)
    codes = {"class_codes": list(layer.legend.codes)}
    variables = (
        LabelVariable(
            name, "uint8", UNKNOWN, "classes", lead=lead, pixels=False, coords=coords,
            attrs={
                "long_name": f"{spec.scene} of {spec.of}",
                "flag_values": [0, 1],
                "flag_meanings": "absent present",
                **codes,
            },
        ),
        LabelVariable(
            f"{name}_shares", "float32", float("nan"), "measure", lead=lead, pixels=False, coords=coords,
            attrs={"long_name": f"share of all pixels, classes of {spec.of}", "units": "1", **codes},
        ),
    )  # fmt: skip
    return SceneLabel(name, spec, layer.legend, variables, layer.ignore)
