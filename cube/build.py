"""One source of one shard, from scenes to the arrays of its chips, in bounded memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cube.mask import MaskSpec
from cube.times import Interval, KeepSpec, TimeSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from catalog.scene import Scene
    from tiling.grid import Chip
    from tiling.shards import Window

Kind = Literal["reflectance", "backscatter", "elevation"]


@dataclass(frozen=True, slots=True)
class CubeRequest:
    """Everything that ``fill`` must know about one source of a recipe; the scenes and the place come beside it."""

    name: str
    """Name of the source in the recipe and of its group in the store: ``s2``."""
    kind: Kind
    """Decides dtype, void and resampling."""
    variable: str
    """Name of the main variable: ``reflectance``, ``backscatter``, ``elevation``."""
    bands: tuple[str, ...]
    size_px: int
    """Side of a chip."""
    resolution_m: float
    quality: str | None = None
    """Band that holds the classes of the mask (``scl``), or None: then what is not void is clear."""
    mask: MaskSpec = MaskSpec()
    time: TimeSpec | None = None
    """None means a static layer, as elevation is."""
    keep: KeepSpec = KeepSpec()
    periods: tuple[Interval, ...] = ()
    """The periods of a composite; for series and single one interval or none, to which the scenes are held."""
    orbits: tuple[str, ...] = ()
    """Orbit directions that are kept apart (``ascending``, ``descending``); empty means no split."""
    resampling: tuple[tuple[str, str], ...] = ()
    """(band, method) where the recipe asks for another method than the kind's."""
    apply_mask: bool = False
    """Series and single: make hidden pixels void. By default the pixels stay and the mask lies beside them."""
    reader: str = "odc-stac"
    steps: int = 1
    """Length of the time axis; ``steps_needed`` tells."""

    @property
    def dtype(self) -> str:
        """Of the main variable: uint16 for reflectance, else float32."""
        return "uint16" if self.kind == "reflectance" else "float32"

    @property
    def fill(self) -> float | int:
        """Void of the main variable: 0 for reflectance, else NaN."""
        return 0 if self.kind == "reflectance" else float("nan")


@dataclass(frozen=True, slots=True)
class CubeVariable:
    """One array of a source, without its leading ``chip`` dimension."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    fill: Any
    attrs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CubeRecord:
    """What became of one source on one chip."""

    dates: tuple[dt.datetime, ...] = ()
    """Dates whose pixels are used, in order."""
    scenes: tuple[str, ...] = ()
    """Ids of the scenes used, sorted."""
    clear: float = 0.0
    """Mean over the time axis (the dates kept, for series) of the share of clear pixels."""
    seen: int = 0
    """Dates with any pixel on the chip."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of dates seen and not used."""


@dataclass(slots=True)
class CubeData:
    """Arrays of one source with the chips of a shard in front, and a record a chip."""

    arrays: dict[str, npt.NDArray[Any]]
    records: list[CubeRecord]


def variables(request: CubeRequest) -> tuple[CubeVariable, ...]:
    """The arrays of a source, so that a store can be laid out before any pixel is read."""
    raise NotImplementedError  # TODO: follows within this landing


def steps_needed(request: CubeRequest, scenes: Sequence[Scene], chips: Sequence[Chip]) -> int:
    """Length of the time axis; for series the largest number of acquisitions whose footprints meet one chip."""
    raise NotImplementedError  # TODO: follows within this landing


def allocate(request: CubeRequest, n_chips: int) -> CubeData:
    """Arrays of void and empty records for the chips of a shard."""
    raise NotImplementedError  # TODO: follows within this landing


def fill(data: CubeData, request: CubeRequest, scenes: Sequence[Scene], window: Window) -> None:
    """Read a window of a shard and write its chips into the rows ``window.chips`` of ``data``."""
    raise NotImplementedError  # TODO: follows within this landing


def window_px(request: CubeRequest, scenes: Sequence[Scene], budget_bytes: int = 512 * 2**20) -> int:
    """Pixels of the largest window whose reading and folding stays inside a memory budget."""
    raise NotImplementedError  # TODO: follows within this landing
