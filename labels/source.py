"""What a label gives to the store: its variables, how they are drawn, and what is derived from them on a chip.

Two kinds do this. A `LabelSource` draws from the place alone, so a pixel is the same in every window that has it. A
`ChipLabel` derives from what was drawn on one chip (agreement of products, panoptic targets, captions), so it may
depend on the chip's borders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from labels.legend import Legend

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

    from tiling.grid import Chip
    from tiling.shards import Window

Kind = Literal["classes", "presence", "ids", "measure"]
"""What the numbers of a variable are: codes of a legend, 0 or 1 a channel, ids of objects, or something measured."""


@dataclass(frozen=True, slots=True)
class LabelVariable:
    """One array of a label, told for one chip."""

    name: str
    """Full name in the store: the label's own, or ``<label>_<part>``."""
    dtype: str
    """A NumPy name."""
    fill: int | float
    """Where nothing is known: the ignore value of classes, 0 of ids and presence, NaN of floats."""
    kind: Kind
    lead: tuple[tuple[str, int], ...] = ()
    """(dimension, length) before y and x: ``(("channel", 30),)``."""
    pixels: bool = True
    """False for a value, or a vector along ``lead``, of the chip as a whole: no y and x."""
    attrs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """CF attributes, JSON-ready."""
    coords: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Names along dimensions of ``lead``: ``(("channel", ("road", "river")),)``."""

    def shape(self, side_px: int) -> tuple[int, ...]:
        """Lengths for a chip of ``side_px`` pixels a side."""
        lead = tuple(length for _, length in self.lead)
        return (*lead, side_px, side_px) if self.pixels else lead

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions that ``shape`` gives the lengths of."""
        lead = tuple(dim for dim, _ in self.lead)
        return (*lead, "y", "x") if self.pixels else lead


@runtime_checkable
class LabelSource(Protocol):
    """A label that is open: draws its variables on any window. Picklable, so Dask workers can have it."""

    @property
    def name(self) -> str:
        """Name of the label in the recipe."""

    @property
    def legend(self) -> Legend:
        """What its codes mean; empty when nobody told, or when they are no classes."""

    @property
    def variables(self) -> tuple[LabelVariable, ...]:
        """The arrays it draws."""

    @property
    def resolution_m(self) -> float | None:
        """Side of its pixels in metres where that is not the grid's."""

    def render(self, window: Window) -> dict[str, NDArray[Any]]:
        """Its variables by name, each (…, y, x) of a window. A pixel is the same in every window that has it."""


@runtime_checkable
class FeatureSource(Protocol):
    """A label that can also give its features as vectors."""

    def features(self, chips: Sequence[Chip]) -> gpd.GeoDataFrame:
        """One row a feature and chip: chip, id, class and what else is known, geometry cut to the chip, EPSG:4326."""


@dataclass(frozen=True, slots=True)
class Derived:
    """What a `ChipLabel` found on one chip."""

    arrays: dict[str, NDArray[Any]]
    """By variable name, (…, y, x), or along the leading dimensions alone for variables without pixels."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Numbers for the index: agreement, changed share, number of instances."""
    classes: tuple[int, ...] = ()
    """Codes that hold for the chip as a whole, by the label's own rule."""
    text: str = ""
    """Words about the chip."""
    reason: str = ""
    """Why the chip has no label, where it has none."""
    rows: tuple[Mapping[str, Any], ...] = ()
    """A table about the objects on the chip, JSON values by column."""


@runtime_checkable
class ChipLabel(Protocol):
    """A label derived from what was drawn on one chip. Picklable."""

    @property
    def name(self) -> str:
        """Name of the label in the recipe."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the variables it reads."""

    @property
    def variables(self) -> tuple[LabelVariable, ...]:
        """The arrays it makes."""

    def derive(self, found: Mapping[str, NDArray[Any]]) -> Derived:
        """Its arrays and facts from the arrays (…, y, x) of one chip, by variable name."""
