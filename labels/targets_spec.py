"""What the user says about targets made from parcels. Light on purpose: recipes import it, it opens no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from labels.spec import Share

Target = Literal["extent", "boundary", "distance", "panoptic"]


@dataclass(frozen=True, slots=True)
class TargetsSpec:
    """Training targets made from the parcels of another label."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ()

    parcels: str
    """The label with the parcels."""
    targets: tuple[Target, ...] = ("extent", "boundary", "distance")
    """`extent` (background, interior, boundary), `boundary`, `distance` to it in metres, `panoptic` (as PASTIS)."""
    boundary_px: Annotated[int, Ge(1), Le(64)] = 1
    """Width of a boundary in pixels, within the parcel."""
    max_distance_px: Annotated[int, Ge(1), Le(1024)] = 32
    """Where distances are cut off, in pixels."""
    complete: bool = True
    """Whether there is no parcel where the file has none. Otherwise `extent` is 255 there."""
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.7
    """Panoptic: the smaller, the wider the Gaussians: their sigma is (1 - alpha) / (1 + alpha) of a side / r."""
    r: Annotated[float, Gt(0)] = 3.0
    """Panoptic: the larger, the narrower the Gaussians."""
    min_labelled: Share = 0.0
    """Share of a chip that should have a target; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        if not self.targets:
            raise ValueError("targets is empty: name at least one of extent, boundary, distance and panoptic")
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("targets names one twice; keep one of them")
