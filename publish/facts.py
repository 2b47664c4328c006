"""What a dataset says about itself, gathered once for everything that people and catalogs read about it.

Made from the layout, the index and the recipe alone, so the same comes out when a dataset is published and later.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chips.layout import Layout, Variable
from labels.legend import Legend
from publish.licence import RollUp

if TYPE_CHECKING:
    import pyarrow

SPLITS = ("train", "val", "test", "buffer")
"""In the order of tables."""


@dataclass(frozen=True, slots=True)
class File:
    """A file beside the store."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that cards and catalogs are made of."""

    layout: Layout
    index: pyarrow.Table
    """``chips.parquet`` as it is stored."""
    recipe: Mapping[str, Any]
    """The recipe with every default, as plain values."""
    terms: RollUp
    files: Mapping[str, File]
    """Name -> the other files beside the store, those that this is made into left out."""
    curate: str
    """Version that published."""

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return str(self.layout.attrs["title"])

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the groups that are sources, in the order of the recipe."""
        return tuple(name for name in self.recipe["sources"] if any(g.name == name for g in self.layout.groups))

    @property
    def labels(self) -> tuple[Variable, ...]:
        """The variables of labels."""
        return tuple(variable for variable in self.layout.variables if "label" in variable.attrs)

    @property
    def interval(self) -> tuple[dt.datetime, dt.datetime]:
        """What the recipe asked for, half-open, UTC."""
        start, end = self.recipe["time"].split("/")
        return _utc(start), _utc(end)

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """West, south, east, north of all chips, degrees, EPSG:4326."""
        import pyarrow.compute as pc

        box = self.index["bbox"].combine_chunks()
        low = [pc.min(box.field(side)).as_py() for side in ("xmin", "ymin")]
        high = [pc.max(box.field(side)).as_py() for side in ("xmax", "ymax")]
        return (low[0], low[1], high[0], high[1])

    @property
    def epsg(self) -> tuple[int, ...]:
        """Codes of the chips' coordinate systems, ascending."""
        return tuple(sorted(set(self.index["epsg"].to_pylist())))

    def count(self, column: str) -> dict[str, int]:
        """Value of a column of the index -> number of chips."""
        found: dict[str, int] = {}
        for value in self.index[column].to_pylist():
            found[value] = found.get(value, 0) + 1
        return found

    def dates(self, source: str) -> tuple[dt.datetime, ...]:
        """Times of the acquisitions of a source whose pixels are used in any chip, in order."""
        return used_dates(self.index, source)

    def clear(self, source: str) -> float | None:
        """Mean share of clear pixels of a source over the chips that have it."""
        import pyarrow.compute as pc

        name = f"{source}_clear"
        return pc.mean(self.index[name]).as_py() if name in self.index.column_names else None

    def classes(self, variable: Variable) -> Legend:
        """Classes of a label's variable; none where it has no classes, or more than it lists."""
        return Legend.of_attrs(variable.attrs)

    def shares(self, label: str, split: str) -> dict[int, float]:
        """Class code -> its share of the labelled pixels of a split."""
        total: dict[int, float] = {}
        for chip, found in zip(self.index["split"].to_pylist(), _column(self.index, f"{label}_shares"), strict=False):
            if chip == split:
                for code, share in found or ():
                    total[code] = total.get(code, 0.0) + share
        whole = sum(total.values())
        return {code: share / whole for code, share in sorted(total.items())} if whole else {}


def used_dates(index: pyarrow.Table, source: str) -> tuple[dt.datetime, ...]:
    """Times of the acquisitions of a source whose pixels are used in any chip, in order."""
    import pyarrow.compute as pc

    name = f"{source}_dates"
    if name not in index.column_names:
        return ()
    # In Arrow: a large dataset has tens of millions of dates, of which few differ.
    return tuple(sorted(pc.unique(pc.list_flatten(index[name].combine_chunks())).to_pylist()))


def _column(index: pyarrow.Table, name: str) -> list[Any]:
    return list(index[name].to_pylist()) if name in index.column_names else []


def _utc(text: str) -> dt.datetime:
    found = dt.datetime.fromisoformat(text)
    return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)
