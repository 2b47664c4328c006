"""Labels that say nothing anywhere: the quiet failure of a wrong path, CRS or crosswalk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol


class Labelled(Protocol):
    """What the index knows of one label on one chip."""

    @property
    def labelled(self) -> float:
        """Share of the chip's pixels that have a class."""

    @property
    def classes(self) -> Sequence[int]:
        """Classes that hold for the chip as a whole."""

    @property
    def text(self) -> str:
        """Words about the chip."""

    @property
    def values(self) -> Mapping[str, float]:
        """What was counted or measured."""


def empty_labels(chips: Iterable[Mapping[str, Labelled]]) -> tuple[str, ...]:
    """Names of the labels that have no class, object or word on any chip, in order; none when there is no chip."""
    said: dict[str, bool] = {}
    for labels in chips:
        for name, record in labels.items():
            said[name] = said.get(name, False) or _says(record)
    return tuple(sorted(name for name, any_chip in said.items() if not any_chip))


def _says(record: Labelled) -> bool:
    # A table of objects (labels.zonal) has no pixels of its own: it is empty where it counts none.
    counted = record.values.get("objects", 0.0)
    return record.labelled > 0 or counted > 0 or bool(record.classes) or bool(record.text)
