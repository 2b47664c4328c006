"""The layers that a derived label reads, and what several of them have in common: one legend, one grid, one void.

Light on purpose: what a derived label is can be known before NumPy is there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.errors import LabelError
from labels.legend import LabelClass, Legend
from labels.source import Kind, LabelVariable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Layer:
    """A variable of another label, with what its codes mean and where they come from."""

    variable: LabelVariable
    legend: Legend = Legend(())
    product: str | None = None
    """The land-cover product it was read from, however it was translated since; None for files of the user's."""
    year: int | None = None
    nomenclature: str | None = None
    """Name of the legend that its codes are of, where it is one that we know."""

    @property
    def ignore(self) -> int:
        """Value of unlabelled pixels."""
        return int(self.variable.fill)


def layer_of(sources: Mapping[str, Layer], wanted: str, label: str, *, kinds: tuple[Kind, ...] = ("classes",)) -> Layer:
    """The layer that ``label`` asks for.

    Raises:
        LabelError: There is no such layer, its numbers are not of one of the ``kinds``, or it is more than (y, x).
    """
    layer = sources.get(wanted)
    if layer is None:
        known = ", ".join(sorted(sources)) or "none"
        raise LabelError(f"label {label}", f"there is no label {wanted!r} to derive it from; found {known}")
    if layer.variable.kind not in kinds:
        raise LabelError(
            f"label {label}", f"{wanted} holds {layer.variable.kind}, wanted {' or '.join(kinds)}; name another label"
        )
    if layer.variable.lead or not layer.variable.pixels:
        raise LabelError(f"label {label}", f"{wanted} is {', '.join(layer.variable.dims)}, wanted y, x alone")
    return layer


def common_legend(label: str, layers: Mapping[str, Layer]) -> Legend:
    """The classes of all layers together.

    Raises:
        LabelError: One code has two meanings, so the layers are not in one legend.
    """
    names: dict[int, tuple[str, str]] = {}
    classes: dict[int, LabelClass] = {}
    for where, layer in layers.items():
        for c in layer.legend.classes:
            before = names.setdefault(c.code, (c.name, where))
            if before[0] != c.name:
                raise LabelError(
                    f"label {label}",
                    f"code {c.code} is {before[0]!r} in {before[1]} and {c.name!r} in {where}; "
                    "translate them into one legend first",
                )
            classes.setdefault(c.code, c)
    return Legend(tuple(classes.values()))


def class_storage(layers: Iterable[Layer]) -> tuple[str, int]:
    """NumPy type and ignore value that hold the codes of all layers: uint8 and 255 where no code exceeds 254."""
    for layer in layers:
        told = layer.legend.codes
        # Without a legend any number of the type may be a class, except the one that means "none".
        highest = max(told) if told else 255 if layer.ignore != 255 else 254
        if highest > 254 or (not told and layer.variable.dtype != "uint8"):
            return "uint16", 65535
    return "uint8", 255


def arrays_of(label: str, found: Mapping[str, NDArray[Any]], names: Iterable[str]) -> list[NDArray[Any]]:
    """The arrays by name, all on one grid.

    Raises:
        LabelError: They differ in height and width.
    """
    arrays = {name: found[name] for name in names}
    sizes = {name: array.shape[-2:] for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {height} x {width}" for name, (height, width) in sizes.items())
        raise LabelError(f"label {label}", f"its layers have different pixels ({told}); give them one resolution_m")
    return list(arrays.values())


def histogram(classes: NDArray[Any], ignore: int) -> dict[int, int]:
    """Pixels of each class that occurs, by ascending code; ``ignore`` is not among them."""
    import numpy as np

    codes, counts = np.unique(classes, return_counts=True)
    return {int(code): int(n) for code, n in zip(codes, counts, strict=True) if code != ignore}


def rounded_pct(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.int64]:
    """100 * part / whole of whole numbers, rounded half up and exact; ``whole`` must not be 0."""
    import numpy as np

    n, of = np.asarray(part, np.int64), np.asarray(whole, np.int64)
    percent: NDArray[np.int64] = (200 * n + of) // (2 * of)
    return percent


def resolve(label: str, hook: str) -> Callable[..., Any]:
    """The function that ``module:function`` names.

    Raises:
        LabelError: The module cannot be imported, or has no such function.
    """
    module, _, function = hook.partition(":")
    try:
        called = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise LabelError(f"label {label}", f"{hook} cannot be loaded ({error}); wanted module:function") from error
    if not callable(called):
        raise LabelError(f"label {label}", f"{hook} is no function")
    found: Callable[..., Any] = called
    return found


def check_hook(hook: str) -> None:
    """ValueError when a text is not of the form ``module:function``."""
    module, colon, function = hook.partition(":")
    if not colon or not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"{hook!r} is not of the form module:function")
