"""What lies under each parcel, and how a measured layer is spread over a chip: numbers instead of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from labels.layers import Layer, arrays_of, layer_of
from labels.legend import Legend
from labels.source import Derived, LabelVariable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ZonalSpec:
    """A table of what lies under each object: one row a chip and id."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ()
    min_labelled: ClassVar[float] = 0.0

    of: tuple[str, ...]
    """Variables to summarise: class layers or measured ones, (y, x)."""
    zones: str
    """Variable with the id of each object, 0 where there is none."""

    def __post_init__(self) -> None:
        if not self.of:
            raise ValueError("of is empty: name at least one variable to summarise")
        if self.zones in self.of:
            raise ValueError(f"{self.zones} cannot be summarised by itself; take it out of `of`")


@dataclass(frozen=True, slots=True)
class HistogramSpec:
    """How a measured layer is spread over a chip."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ()
    min_labelled: ClassVar[float] = 0.0

    of: str
    """Measured variable (y, x)."""
    histogram: tuple[float, ...]
    """Edges of the bins, ascending. A bin has its lower edge and not its upper one; the last has both."""

    def __post_init__(self) -> None:
        if len(self.histogram) < 2:
            raise ValueError(f"histogram needs at least two edges, found {len(self.histogram)}")
        if not all(low < high for low, high in pairwise(self.histogram)):
            raise ValueError("the edges of histogram must ascend, each above the one before")


def zonal(
    ids: NDArray[np.integer[Any]],
    *,
    measures: Mapping[str, NDArray[Any]] | None = None,
    classes: Mapping[str, tuple[NDArray[Any], int]] | None = None,
) -> pd.DataFrame:
    """What lies under each object, a row an id in ascending order.

    Columns: ``id``, ``n_px``; for a measure ``m``: ``m_n`` (pixels with a value), ``m_mean``, ``m_std`` (of all pixels,
    so divided by n), ``m_min``, ``m_max``, NaN without a value; for classes ``c``: ``c_majority`` (of equal ones the
    smallest code, NA without a class) and ``c_shares`` (code -> share of ``n_px``).

    Args:
        ids: (y, x), 0 where there is no object.
        measures: Layers (y, x) by name; NaN is no value.
        classes: Layers (y, x) and their ignore value, by name.
    """
    import numpy as np
    import pandas as pd

    inside = ids != 0
    zones, zone_at, n_px = np.unique(ids[inside], return_inverse=True, return_counts=True)
    zone_at = zone_at.ravel()
    columns: dict[str, Any] = {"id": zones.astype(np.int64), "n_px": n_px}
    for name, layer in (measures or {}).items():
        for part, column in _moments(layer[inside].astype(np.float64), zone_at, len(zones)).items():
            columns[f"{name}_{part}"] = column
    for name, (layer, ignore) in (classes or {}).items():
        majority, shares = _ballots(layer[inside], ignore, zone_at, n_px)
        columns[f"{name}_majority"] = pd.array(majority, dtype="Int64")
        columns[f"{name}_shares"] = pd.Series(shares, dtype=object)
    return pd.DataFrame(columns)


def _moments(values: NDArray[np.float64], zone_at: NDArray[np.intp], n_zones: int) -> dict[str, NDArray[Any]]:
    import numpy as np

    known = ~np.isnan(values)
    values, zone_at = values[known], zone_at[known]
    n = np.bincount(zone_at, minlength=n_zones)
    some = np.maximum(n, 1)
    mean = np.where(n, np.bincount(zone_at, values, n_zones) / some, np.nan)
    # In two passes: the difference of two large sums would lose the small spread of large numbers.
    squares = np.bincount(zone_at, (values - mean[zone_at]) ** 2, n_zones)
    low, high = np.full(n_zones, np.inf), np.full(n_zones, -np.inf)
    np.minimum.at(low, zone_at, values)
    np.maximum.at(high, zone_at, values)
    return {
        "n": n,
        "mean": mean,
        "std": np.where(n, np.sqrt(squares / some), np.nan),
        "min": np.where(n, low, np.nan),
        "max": np.where(n, high, np.nan),
    }


def _ballots(
    codes: NDArray[Any], ignore: int, zone_at: NDArray[np.intp], n_px: NDArray[np.intp]
) -> tuple[list[int | None], list[dict[int, float]]]:
    import numpy as np

    majority: list[int | None] = [None] * len(n_px)
    shares: list[dict[int, float]] = [{} for _ in n_px]
    known = codes != ignore
    pairs, counts = np.unique(np.stack([zone_at[known], codes[known]]), axis=1, return_counts=True)
    most = [0] * len(n_px)
    # By zone and then by ascending code, so that of equal numbers the smallest code stays.
    for zone, code, n in zip(*pairs.tolist(), counts.tolist(), strict=True):
        shares[zone][code] = n / int(n_px[zone])
        if n > most[zone]:
            most[zone], majority[zone] = n, code
    return majority, shares


@dataclass(frozen=True)
class ZonalLabel:
    """A table of what lies under each object; see ``zonal_label``. It has no pixels."""

    name: str
    spec: ZonalSpec
    layers: tuple[Layer, ...]
    legend: Legend = Legend(())
    variables: tuple[LabelVariable, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids, and what is summarised."""
        return (self.spec.zones, *self.spec.of)

    def derive(self, found: Mapping[str, NDArray[Any]]) -> Derived:
        """The number of objects on a chip (``objects``), which may well be 0; their rows are ``rows``."""
        import numpy as np

        return Derived(arrays={}, values={"objects": float(len(np.setdiff1d(found[self.spec.zones], (0,))))})

    def rows(self, found: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
        """One row an object of the chip, with the columns of ``zonal``; the chip's id is for the caller to add."""
        ids, *arrays = arrays_of(self.name, found, self.needs)
        layers = dict(zip(self.spec.of, zip(self.layers, arrays, strict=True), strict=True))
        return zonal(
            ids,
            measures={
                name: _measured(array, layer.variable.fill)
                for name, (layer, array) in layers.items()
                if layer.variable.kind != "classes"
            },
            classes={
                name: (array, layer.ignore)
                for name, (layer, array) in layers.items()
                if layer.variable.kind == "classes"
            },
        )


def _measured(array: NDArray[Any], fill: float) -> NDArray[np.float64]:
    """As float64, with NaN where there is no value."""
    import numpy as np

    values = array.astype(np.float64)
    values[array == fill] = np.nan
    return values


def zonal_label(name: str, spec: ZonalSpec, sources: Mapping[str, Layer]) -> ZonalLabel:
    """The label that a spec describes: ``rows(found)`` gives its table, ``derive`` the number of objects.

    Raises:
        LabelError: A variable is missing, or is neither classes nor measured.
    """
    layer_of(sources, spec.zones, name, kinds=("ids",))
    return ZonalLabel(name, spec, tuple(layer_of(sources, of, name, kinds=("classes", "measure")) for of in spec.of))


@dataclass(frozen=True)
class HistogramLabel:
    """A histogram of a measured layer; see ``histogram_label``."""

    name: str
    spec: HistogramSpec
    variables: tuple[LabelVariable, ...]
    fill: float
    legend: Legend = Legend(())

    @property
    def needs(self) -> tuple[str, ...]:
        """The measured variable."""
        return (self.spec.of,)

    def derive(self, found: Mapping[str, NDArray[Any]]) -> Derived:
        """Shares of the bins on one chip, NaN without a value.

        Values: ``known`` (share of all pixels with a value), ``mean``, ``below`` and ``above`` (shares of those that no
        bin has).
        """
        import numpy as np

        values = _measured(found[self.spec.of], self.fill)
        known = values[~np.isnan(values)]
        if not known.size:
            empty = np.full(len(self.spec.histogram) - 1, np.nan, np.float32)
            return Derived({self.name: empty}, {"known": 0.0}, reason=f"{self.spec.of} has no value here")
        counts, _ = np.histogram(known, np.array(self.spec.histogram))
        return Derived(
            {self.name: (counts / known.size).astype(np.float32)},
            {
                "known": known.size / values.size,
                "mean": float(known.mean()),
                "below": float((known < self.spec.histogram[0]).mean()),
                "above": float((known > self.spec.histogram[-1]).mean()),
            },
        )


def histogram_label(name: str, spec: HistogramSpec, sources: Mapping[str, Layer]) -> HistogramLabel:
    """The label that a spec describes: ``{name}`` (float32, ``bin``), shares of the pixels that have a value.

    Raises:
        LabelError: The variable is missing or not measured.
    """
    layer = layer_of(sources, spec.of, name, kinds=("measure",))
    bins = tuple(f"{low:g} to {high:g}" for low, high in pairwise(spec.histogram))
    variable = LabelVariable(
        name, "float32", float("nan"), "measure", lead=(("bin", len(bins)),), pixels=False, coords=(("bin", bins),),
        attrs={
            "long_name": f"share of the pixels with a value, {spec.of}",
            "units": "1",
            "bin_edges": list(spec.histogram),
            "bin_units": str(layer.variable.attrs.get("units", "1")),
        },
    )  # fmt: skip
    return HistogramLabel(name, spec, (variable,), float(layer.variable.fill))
