"""Which chips train, validate and test: by the hash of a global block, so the place alone decides, before any pixel.

The blocks are rows of latitude cut into columns, the same for every zone, area and run. A chip near a block of another
split is left out as ``buffer``: that is the price of the promise that two chips of different splits are nowhere nearer
than ``buffer_km``, measured from edge to edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt

from tiling.grid import Chip

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
BUFFER = "buffer"

# Goes into every hash: a change of the rule is a new number, for it gives every place a new split.
_RULE = "blocks-1"


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """How the chips are shared out among training, validation and test."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rule: Literal["blocks"] = "blocks"
    """``blocks``: whole blocks of a global lattice, drawn by a hash of their place."""
    block_km: Annotated[float, Gt(0)] = 10.0
    """Side of a block in kilometres; blocks are never narrower than this."""
    buffer_km: Annotated[float, Ge(0)] = 1.0
    """Shortest distance between chips of different splits, edge to edge, in km; chips in between are left out."""
    shares: dict[Literal["train", "val", "test"], Annotated[float, Ge(0)]] = field(
        default_factory=lambda: {"train": 0.7, "val": 0.15, "test": 0.15}
    )
    """Share of the blocks for each of ``train``, ``val`` and ``test``; what is left out gets nothing. They sum to 1."""
    seed: int = 0
    """Another number gives another draw of the blocks."""

    def __post_init__(self) -> None:
        if not (isfinite(self.block_km) and self.block_km > 0):
            raise ValueError(f"block_km is {self.block_km:g}; a block has a side above 0 km")
        if not (isfinite(self.buffer_km) and self.buffer_km >= 0):
            raise ValueError(f"buffer_km is {self.buffer_km:g}; a distance is 0 km or more")
        check_shares(self.shares)


def check_shares(shares: Mapping[Literal["train", "val", "test"], float]) -> None:
    """Pass when shares of train, val and test are numbers from 0 that sum to 1; ValueError otherwise."""
    unknown = [name for name in shares if name not in SPLITS]
    if unknown:
        raise ValueError(f"shares has {', '.join(map(repr, unknown))}; a share belongs to train, val or test")
    if not all(share >= 0 for share in shares.values()):
        raise ValueError(f"shares are {dict(shares)}; a share is 0 or more")
    total = sum(shares.values())
    if not abs(total - 1) <= 1e-6:
        raise ValueError(f"shares sum to {total:g}; they must sum to 1, as in train: 0.7, val: 0.15, test: 0.15")


def check_blocks(spec: SplitSpec, chip_size_m: float) -> None:
    """Pass when a block has room for a chip and the buffer around it.

    Raises:
        ValueError: A chip could only be kept where neighbouring blocks happen to be of one split.
    """
    if sum(share > 0 for share in spec.shares.values()) < 2:
        return  # one split needs no buffer
    needed_km = spec.buffer_km + chip_size_m / 1000
    if spec.block_km < needed_km:
        raise ValueError(
            f"blocks of {spec.block_km:g} km have no room for a chip of {chip_size_m / 1000:g} km and a buffer of "
            f"{spec.buffer_km:g} km; make block_km at least {needed_km:g} (ten times as much keeps most chips) or "
            "buffer_km smaller"
        )


def assign_splits(chips: Sequence[Chip], spec: SplitSpec) -> npt.NDArray[np.object_]:
    """``train``, ``val``, ``test`` or ``buffer`` for every chip: an object array of str in the order of ``chips``.

    A chip has the split of the block that its centre lies in, unless its footprint grown by half the buffer on all
    sides also touches a block of another split: then it is ``buffer``. The answer for a chip depends on its place, its
    size and ``spec``, and on no other chip.

    Raises:
        ValueError: The blocks are too small for chip and buffer (``check_blocks``).
    """
    import numpy as np

    from tiling.lattice import draw_by_block, drawn

    splits: npt.NDArray[np.object_] = np.empty(len(chips), dtype=object)
    if not len(chips):
        return splits
    check_blocks(spec, max(chip.size_m for chip in chips))
    shares = [spec.shares.get(name, 0.0) for name in SPLITS]
    # Shares sum to 1 but for rounding, and what rounding leaves goes to the last split that has a share at all.
    last = max(index for index, share in enumerate(shares) if share > 0)
    below = np.cumsum(shares)[:last].tolist()
    salt = f"{_RULE}|{spec.seed}|{float(spec.block_km)!r}"
    own, alone = draw_by_block(chips, spec.block_km, spec.buffer_km * 500, partial(drawn, salt, below))
    splits[:] = np.where(alone, np.array([*SPLITS, BUFFER], dtype=object)[own], BUFFER)
    return splits
