"""What changed between two class layers of one legend, and from which class to which.

Two maps differ where the land changed and where the maps were made differently; which of the two it is, no pixel can
tell. So maps that are known not to compare are refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import annotated_types

from curate.errors import LabelError
from labels.layers import Layer, arrays_of, class_storage, common_legend, layer_of
from labels.legend import NAMED, LabelClass, Legend, find_product, read_table
from labels.source import Derived, LabelVariable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VOID = 255
"""Change where one of the two has no class."""

NO_PAIR = 65535
"""Pair where one of the two has no class."""

CHANGE = Legend((LabelClass(0, "unchanged", "#d9d9d9"), LabelClass(1, "changed", "#e31a1c")))

MAX_LISTED = 1024
"""Most pairs that are listed in the attributes: 32 classes. Of more, the attributes say how to take a pair apart."""


@dataclass(frozen=True, slots=True)
class ChangeSpec:
    """Change between two class labels."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ()

    change: tuple[str, str]
    """The label before and the label after, in one legend."""
    anyway: bool = False
    """Take maps that are known not to compare, because their difference is what you want to study."""
    min_labelled: Annotated[float, annotated_types.Interval(ge=0, le=1)] = 0.0
    """Share of a chip that should have a class; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        if len(self.change) != 2:
            raise ValueError(f"change needs two labels, before and after; found {len(self.change)}")
        if self.change[0] == self.change[1]:
            raise ValueError(f"change compares {self.change[0]} with itself; name the label before and the label after")


def why_not(before: Layer, after: Layer) -> str:
    """Why the difference of two layers is no change of the land, as far as we know; an empty string when it may be one.

    Asked of the products and years that the layers were read from; of files of the user's nothing is known.
    """
    product = _named(before)
    if product is None or product != _named(after):
        return ""
    if before.year is not None and before.year == after.year:
        return f"both are {product} of {before.year}"
    if row := _incomparable().get(product):
        return f"{product}: {row['why']} ({row['source']})"
    versions = NAMED[product].versions if product in NAMED else {}
    # A year that nobody told, or that our table does not have yet, has no version and compares with no other.
    made = [versions.get(layer.year or 0) for layer in (before, after)]
    if versions and (made[0] != made[1] or None in made):
        told = " and ".join(
            f"{layer.year or 'a year not told'} is {how or 'not known'}"
            for layer, how in zip((before, after), made, strict=True)
        )
        return f"the maps of {product} were not made alike ({told}), which part of their difference shows"
    return ""


def caveat(before: Layer, after: Layer) -> str:
    """What to know about the difference of two layers that may be compared; an empty string when there is nothing."""
    products = _named(before), _named(after)
    if None not in products and products[0] != products[1]:
        return f"{products[0]} and {products[1]} are made differently, and part of the difference is that"
    return ""


def _named(layer: Layer) -> str | None:
    """The product's own name, where the layer has it by an alias."""
    try:
        return layer.product and find_product(layer.product).name
    except LabelError:
        return layer.product


@lru_cache(maxsize=1)
def _incomparable() -> dict[str, dict[str, str]]:
    return tomllib.loads(read_table("change.toml"))


def pair_legend(legend: Legend) -> Legend:
    """The pairs of a legend as classes: 256 * place of the class before + place of the class after."""
    classes = tuple(enumerate(legend.classes))
    return Legend(tuple(LabelClass(256 * i + j, f"{a.name} to {b.name}") for i, a in classes for j, b in classes))


@dataclass(frozen=True)
class ChangeLabel:
    """Change between two class labels on a chip; see ``change_label``."""

    name: str
    spec: ChangeSpec
    legend: Legend
    """Of the change: unchanged and changed."""
    variables: tuple[LabelVariable, ...]
    codes: tuple[int, ...]
    """Codes of the two labels, in the order of the places in a pair."""
    ignores: tuple[int, int]

    @property
    def needs(self) -> tuple[str, ...]:
        """The label before and the label after."""
        return self.spec.change

    def derive(self, found: Mapping[str, NDArray[Any]]) -> Derived:
        """Change and pairs of one chip; values ``changed`` and ``compared``.

        ``changed`` is the share of the compared pixels, ``compared`` the share of all pixels that have both classes.
        """
        import numpy as np

        before, after = arrays_of(self.name, found, self.needs)
        both = (before != self.ignores[0]) & (after != self.ignores[1])
        change = np.full(both.shape, VOID, np.uint8)
        change[both] = before[both] != after[both]
        pair = np.full(both.shape, NO_PAIR, np.uint16)
        pair[both] = 256 * self._places(before[both], 0) + self._places(after[both], 1)
        values = {"compared": float(both.mean())}
        if both.any():
            values["changed"] = float((change[both] == 1).mean())
        return Derived(
            arrays={self.name: change, f"{self.name}_pair": pair},
            values=values,
            reason="" if both.any() else f"no pixel has a class in both {self.needs[0]} and {self.needs[1]}",
        )

    def _places(self, codes: NDArray[Any], which: int) -> NDArray[np.int64]:
        import numpy as np

        known = np.array(self.codes, np.int64)
        places = np.searchsorted(known, codes)
        wrong = (places == len(known)) | (known[np.minimum(places, len(known) - 1)] != codes)
        if wrong.any():
            raise LabelError(
                f"label {self.name}",
                f"{self.needs[which]} has the code {int(codes[wrong][0])}, which its legend does not name; add it",
            )
        return places.astype(np.int64)


def change_label(name: str, spec: ChangeSpec, sources: Mapping[str, Layer]) -> ChangeLabel:
    """The label that a spec describes.

    Its variables, each (y, x): ``{name}`` (0 unchanged, 1 changed, 255 void) and ``{name}_pair`` (uint16, void 65535):
    256 * place of the class before + place of the class after, places counted from 0 in ``pair_codes``. Both are void
    where either label is.

    Raises:
        LabelError: A label is missing or holds no classes, they are not in one legend, they are known not to compare,
            or there are more than 255 classes.
    """
    layers = {wanted: layer_of(sources, wanted, name) for wanted in spec.change}
    before, after = layers.values()
    if (reason := why_not(before, after)) and not spec.anyway:
        raise LabelError(f"label {name}", f"{reason}; take other maps, or say `anyway: true`")
    legend = common_legend(name, layers)
    told = all(layer.legend.classes for layer in layers.values())
    dtype, _ = class_storage(layers.values())
    if not told and dtype != "uint8":
        raise LabelError(f"label {name}", "one of its labels has no legend, and codes above 254 may occur; give it one")
    # Without a legend every number of a byte but 255 may be a class.
    codes = legend.codes if told else tuple(range(255))
    if len(codes) > 255:
        raise LabelError(f"label {name}", f"{len(codes)} classes are too many for pairs; at most 255 can be told apart")
    comment = reason or caveat(before, after)
    listed = pair_legend(legend).attrs if told and len(codes) ** 2 <= MAX_LISTED else {}
    said = f"from {spec.change[0]} to {spec.change[1]}"
    noted = {"comment": comment} if comment else {}
    variables = (
        LabelVariable(
            name, "uint8", VOID, "classes", attrs={**CHANGE.attrs, "long_name": f"change {said}", **noted}
        ),
        LabelVariable(
            f"{name}_pair", "uint16", NO_PAIR, "classes",
            attrs={
                **listed,
                "long_name": f"pair of classes {said}",
                "pair_codes": list(codes),
                "pair_encoding": "256 * place of the class before + place of the class after, in pair_codes",
                **noted,
            },
        ),
    )  # fmt: skip
    return ChangeLabel(name, spec, CHANGE, variables, codes, (before.ignore, after.ignore))
