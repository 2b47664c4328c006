"""What a build would do, in numbers: shown by `curate plan` before anything is read or written."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from flows.sampling import Sampling, sampling_lines
from flows.words import human, split_shares

if TYPE_CHECKING:
    from flows.plan import Plan

ZSTD_RATIO = 3.0
"""Raw over stored bytes of masked Sentinel-2 chips; 2.9 to 3.8 was measured (blosc, zstd level 1, bit shuffle)."""


@dataclass(frozen=True, slots=True)
class SourceForecast:
    """One source of the plan."""

    collection: str
    scenes: int
    """That will be used."""
    acquisitions: int
    """Passes of a satellite: tiles of one pass are one date."""
    left_out: dict[str, int]
    """Reason -> scenes found and not used."""
    steps: int
    """Length of the time axis in the store."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Counts and sizes of a plan."""

    name: str
    out: str
    chips: int
    chip: str
    zones: dict[str, int]
    """EPSG code -> chips."""
    splits: dict[str, int]
    shards: int
    chips_a_shard: int
    sources: dict[str, SourceForecast]
    labels: list[str]
    raw_bytes: int
    """Of all arrays before compression, with every date that a chip may have."""
    stored_bytes: int
    """Rough guess of what they take when compressed."""
    sampling: dict[str, Any] | None = None
    """Chips to choose from and chips taken, by step and group; None where all are taken."""

    @classmethod
    def of(cls, plan: Plan, out: str) -> Forecast:
        """The numbers of a plan."""
        grid = plan.recipe.grid
        chips = plan.chips
        raw = sum(variable.bytes_per_chip for variable in plan.layout.variables) * len(chips)
        sources = {}
        for request in plan.requests:
            scenes = plan.scenes[request.name]
            dropped = [item for item in plan.locked if item.source == request.name and item.status != "used"]
            sources[request.name] = SourceForecast(
                collection=plan.recipe.sources[request.name].collection,
                scenes=len(scenes),
                acquisitions=len({scene.acquisition for scene in scenes}),
                left_out=dict(Counter(item.reason for item in dropped)),
                steps=request.steps,
            )
        return cls(
            name=plan.name,
            out=out,
            chips=len(chips),
            chip=f"{grid.side_px} px at {grid.resolution_m:g} m",
            zones={str(epsg): count for epsg, count in sorted(Counter(chip.epsg for chip in chips).items())},
            splits=dict(Counter(str(split) for split in plan.split)),
            shards=len(plan.shards),
            chips_a_shard=plan.layout.shard_chips,
            sources=sources,
            labels=list(plan.recipe.labels),
            raw_bytes=raw,
            stored_bytes=round(raw / ZSTD_RATIO),
            sampling=None if plan.sampling is None else dict(Sampling.from_bytes(plan.sampling).summary),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def as_text(self) -> str:
        """Lines for a person."""
        lines = [
            f"{self.name} → {self.out}",
            f"  chips    {self.chips} of {self.chip}, in EPSG {', '.join(f'{e} ({n})' for e, n in self.zones.items())}",
            *(f"  sample   {line}" for line in sampling_lines(self.sampling)),
            f"  splits   {split_shares(self.splits)}",
            f"  shards   {self.shards} of up to {self.chips_a_shard} chips",
        ]
        for name, source in self.sources.items():
            lines.append(
                f"  {name:<8} {source.scenes} scenes of {source.collection}, {source.acquisitions} passes, "
                f"{source.steps} steps in time"
            )
            lines += [f"           left out: {count} × {reason}" for reason, count in source.left_out.items()]
        if self.labels:
            lines.append(f"  labels   {', '.join(self.labels)}")
        lines.append(f"  size     {human(self.raw_bytes)} of pixels, about {human(self.stored_bytes)} stored")
        return "\n".join(lines)
