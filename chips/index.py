"""What is known about each chip, and the index that holds it: ``chips.parquet``, one row for every planned chip."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "empty"]


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """What one source gave to one chip."""

    clear: float = 0.0
    """Mean over the used dates or periods of the share of clear pixels, 0…1."""
    dates: tuple[dt.datetime, ...] = ()
    """UTC times of the acquisitions whose pixels are used, in order."""
    scenes: tuple[str, ...] = ()
    """Ids of the scenes used."""
    seen: int = 0
    """Dates with any pixel on the chip, used or not."""
    dropped: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Reason -> number of dates seen and not used."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dates", tuple(_utc(date) for date in self.dates))
        object.__setattr__(self, "scenes", tuple(self.scenes))


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """What one label says about one chip. Shares are of all pixels of the chip, so they sum to ``labelled``."""

    shares: Mapping[int, float] = field(default_factory=dict, hash=False)
    """Class code -> share of the chip's pixels; the ignore value is not a class."""
    labelled: float = 0.0
    """Share of the chip's pixels that have a class."""


@dataclass(frozen=True, slots=True)
class ChipRecord:
    """One row of the index: where a chip is, what became of it and why."""

    chip: str
    """Id of the chip, unique in the dataset."""
    shard: int
    split: str
    """train, val, test or buffer."""
    status: Status
    """``empty`` chips have no pixel in any source; they keep their row and cost no storage."""
    reason: str
    """Why the chip is empty; an empty string for ``ok``."""
    cover: float
    """Share of the chip that lies in the area of interest, 0…1."""
    epsg: int
    col: int
    row: int
    x0: float
    """Easting of the upper-left corner, metres in ``epsg``."""
    y0: float
    """Northing of the upper-left corner, metres in ``epsg``."""
    lon: float
    """Longitude of the centre, degrees, EPSG:4326."""
    lat: float
    """Latitude of the centre, degrees, EPSG:4326."""
    sources: Mapping[str, SourceRecord] = field(default_factory=dict, hash=False)
    labels: Mapping[str, LabelRecord] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back to an equal record."""
        return {
            "chip": self.chip,
            "shard": int(self.shard),
            "split": str(self.split),
            "status": self.status,
            "reason": self.reason,
            "cover": float(self.cover),
            "epsg": int(self.epsg),
            "col": int(self.col),
            "row": int(self.row),
            "x0": float(self.x0),
            "y0": float(self.y0),
            "lon": float(self.lon),
            "lat": float(self.lat),
            "sources": {
                name: {
                    "clear": float(source.clear),
                    "dates": [date.isoformat() for date in source.dates],
                    "scenes": list(source.scenes),
                    "seen": int(source.seen),
                    "dropped": {reason: int(count) for reason, count in source.dropped.items()},
                }
                for name, source in self.sources.items()
            },
            "labels": {
                name: {
                    # JSON keys are text; pairs keep the codes numbers.
                    "shares": [[int(code), float(share)] for code, share in sorted(label.shares.items())],
                    "labelled": float(label.labelled),
                }
                for name, label in self.labels.items()
            },
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ChipRecord:
        """The record that ``to_json`` described."""
        sources = {
            name: SourceRecord(
                clear=source["clear"],
                dates=tuple(dt.datetime.fromisoformat(date) for date in source["dates"]),
                scenes=tuple(source["scenes"]),
                seen=source["seen"],
                dropped=dict(source["dropped"]),
            )
            for name, source in found["sources"].items()
        }
        labels = {
            name: LabelRecord(shares=dict(label["shares"]), labelled=label["labelled"])
            for name, label in found["labels"].items()
        }
        return cls(**{**found, "sources": sources, "labels": labels})


def _utc(date: dt.datetime) -> dt.datetime:
    """The same moment with the zone UTC; a time without a zone is taken as UTC."""
    return date.replace(tzinfo=dt.UTC) if date.tzinfo is None else date.astimezone(dt.UTC)
