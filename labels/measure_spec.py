"""What the user says about rasters of something measured. Light on purpose: recipes import it, it opens no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from labels.options import Share

Resampling = Literal["auto", "nearest", "bilinear", "average"]


@dataclass(frozen=True, slots=True)
class MeasureSpec:
    """Rasters of something measured, on any grid and CRS."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ("measure",)

    measure: str | tuple[str, ...]
    """Path, glob or list of them: rasters of whole or real numbers. Where files overlap the first valid pixel wins."""
    band: Annotated[int, Ge(1)] = 1
    """Band of the files, from 1."""
    units: str = ""
    """Unit of the values, as UDUNITS writes it: `Mg ha-1`, `m`, `percent`."""
    scale: float | None = None
    """What the files' numbers are multiplied by, instead of what they say themselves."""
    offset: float | None = None
    """What is added after that, instead of what the files say themselves."""
    nodata: float | None = None
    """Number in the files that means "nothing known", instead of what they say themselves. NaN always does."""
    valid_range: tuple[float, float] | None = None
    """Smallest and largest value that can be true, in units; what lies beyond is nothing known."""
    resampling: Resampling = "auto"
    """`nearest`, `bilinear` or `average` by area. `auto`: `average` where pixels are at least about twice as wide as
    the file's, else `bilinear`."""
    min_labelled: Share = 0.0
    """Share of a chip that should have a value; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        if self.measure in ("", ()):
            raise ValueError("measure is empty: name a file")
        if self.band < 1:
            raise ValueError(f"band {self.band} is none; bands are counted from 1")
        if self.scale == 0:
            raise ValueError("a scale of 0 makes every value the same; leave it out, or say the real one")
        if self.valid_range is not None and not self.valid_range[0] < self.valid_range[1]:
            low, high = self.valid_range
            raise ValueError(f"valid_range goes from the smallest to the largest value; {low:g} is not below {high:g}")
