"""A class label in another legend: what a crosswalk makes of it, beside the native codes and never in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import annotated_types

from labels.crosswalk import Crosswalk, CrosswalkSpec, Least, open_crosswalk
from labels.layers import Layer, layer_of
from labels.source import Derived, LabelVariable

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TranslateSpec:
    """A class label translated to another legend."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ("table",)

    of: str
    """Class label: a product, or a raster or vector whose `legend` is one that we know by name."""
    to: str
    """Nomenclature to translate to: `worldcover`, `simple8`, `ipcc`, `clc19`, `clc-level-1`, `clc-level-2`. With
    `table`, any legend that we know by name."""
    quality: Least = "wider"
    """The poorest fit that is used; classes that fit worse become unlabelled. From best to worst: `identity`, `exact`,
    `wider` (the class reaches a little beyond its target), `mixed` (part of it is something else), `ambiguous`."""
    table: str | None = None
    """A crosswalk of your own: CSV file with source_code, target_code and, if you like, quality."""
    min_labelled: Annotated[float, annotated_types.Interval(ge=0, le=1)] = 0.0
    """Share of a chip that should have a class; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        CrosswalkSpec(self.to, self.quality, self.table)  # raises where nothing leads there


@dataclass(frozen=True)
class TranslatedLabel:
    """A class label in another legend, chip by chip; a ``ChipLabel``."""

    name: str
    of: str
    crosswalk: Crosswalk
    ignore: int
    """Of the label that is translated."""
    variables: tuple[LabelVariable, ...] = field(repr=False)

    @property
    def needs(self) -> tuple[str, ...]:
        """The label that is translated."""
        return (self.of,)

    def derive(self, found: Mapping[str, NDArray[Any]]) -> Derived:
        """The target's codes (y, x); LabelError when a code occurs that the crosswalk does not know."""
        return Derived({self.name: self.crosswalk.apply(found[self.of], self.ignore)})


def translated_label(name: str, spec: TranslateSpec, sources: Mapping[str, Layer]) -> TranslatedLabel:
    """The label that a spec describes: ``{name}`` (y, x), classes of the target.

    Raises:
        LabelError: The label is missing or holds no classes, nobody knows what its codes mean, or no crosswalk leads
            from them to the target.
    """
    layer = layer_of(sources, spec.of, name)
    walk = open_crosswalk(
        CrosswalkSpec(spec.to, spec.quality, spec.table), layer.nomenclature or spec.of, legend=layer.legend
    )
    variable = LabelVariable(
        name, walk.dtype, walk.ignore, "classes", attrs={**walk.attrs, "long_name": f"{spec.of} in {walk.target}"}
    )
    return TranslatedLabel(name, spec.of, walk, layer.ignore, (variable,))
