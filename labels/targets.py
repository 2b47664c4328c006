"""What a network is trained on, made from parcels on pixels: boundaries, distances, extents, and panoptic targets.

Boundaries, distances and extents come from the place alone: they are drawn with as many pixels around the window as
they look far, so there are no seams. Panoptic targets come from one chip: a parcel is what of it lies on the chip.

A parcel is a connected or unconnected set of pixels of one id; id 0 means no parcel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from curate.errors import LabelError
from labels.ids import FeatureTable
from labels.legend import LabelClass, Legend
from labels.source import Derived, LabelSource, LabelVariable
from tiling.shards import Window

Part = Literal["boundary", "distance", "extent"]

EXTENT = Legend((LabelClass(0, "background"), LabelClass(1, "interior"), LabelClass(2, "boundary")))
"""The three classes of Fields of The World (Kerner et al. 2025, arXiv:2409.16252)."""

UNKNOWN = 255
"""Of ``extent``, where no parcel lies and nobody says that there is none."""

CUT_SHARE = 0.5
"""A parcel with less of its area than this on the chip has no class there: PASTIS calls it void."""

MAX_INSTANCES = 65535


# --- from the place alone --------------------------------------------------------------------------------------------


def boundaries(ids: NDArray[np.unsignedinteger[Any]], width_px: int) -> NDArray[np.uint8]:
    """1 on the boundary pixels of parcels, 0 inside them and where no parcel lies, uint8 (y, x).

    A pixel of a parcel is on its boundary when the centre of a pixel that is not of this parcel lies within
    ``width_px`` pixels of its own centre. So width 1 is the parcel's outermost ring of pixels, in the sense of four
    neighbours, and two parcels that touch have a ring each. What lies beyond the array is unknown and no boundary.

    Args:
        ids: (y, x), 0 where no parcel lies.
        width_px: From 1.
    """
    near: NDArray[np.uint8] = ((ids != 0) & (_squared_distance(ids, width_px + 1) <= width_px**2)).astype(np.uint8)
    return near


def distance(ids: NDArray[np.unsignedinteger[Any]], max_px: int, resolution_m: float) -> NDArray[np.float32]:
    """Distance to the parcel's boundary in metres, float32 (y, x); NaN where no parcel lies.

    It is the Euclidean distance from the centre of a pixel to the nearest centre of a pixel that is not of the same
    parcel: one pixel in a parcel's outermost ring, and at most ``max_px`` pixels. Exact, as
    ``scipy.ndimage.distance_transform_edt`` on the mask of each parcel by itself. The distance task of ResUNet-a
    (Diakogiannis et al. 2020, doi:10.1016/j.isprsjprs.2020.01.013) divides it by its largest value in each parcel,
    which a parcel on a chip's edge does not tell; divide by ``max_px * resolution_m`` instead.

    Args:
        ids: (y, x), 0 where no parcel lies.
        max_px: Where it is cut off; the ids must reach so far beyond the pixels that count.
        resolution_m: Side of a pixel in metres.
    """
    metres = np.sqrt(_squared_distance(ids, max_px), dtype=np.float32) * np.float32(resolution_m)
    metres[ids == 0] = np.nan
    return metres


def extent(ids: NDArray[np.unsignedinteger[Any]], width_px: int, *, background: int = 0) -> NDArray[np.uint8]:
    """0 where no parcel lies (or ``background``), 1 inside a parcel, 2 on its ``boundaries``, uint8 (y, x)."""
    classes = 1 + boundaries(ids, width_px)
    classes[ids == 0] = background
    return classes


@njit(nogil=True, cache=True)
def _squared_distance(ids: NDArray[np.unsignedinteger], cap: int) -> NDArray[np.int32]:
    """Squared distance in pixels to the nearest pixel of another id, at most ``cap`` squared; 0 where the id is 0.

    First along rows, then along columns (Felzenszwalb and Huttenlocher 2012, doi:10.4086/toc.2012.v008a019), with the
    parcels side by side instead of one mask after the other. Along a column the search may stop at the parcel's end:
    whatever of another id lies behind it is further away than the end itself.
    """
    height, width = ids.shape
    along = np.empty((height, width), np.int32)
    for i in range(height):
        left = cap
        for j in range(width):
            if j > 0:
                left = min(left + 1, cap) if ids[i, j] == ids[i, j - 1] else 1
            along[i, j] = left
        right = cap
        for j in range(width - 1, -1, -1):
            if j < width - 1:
                right = min(right + 1, cap) if ids[i, j] == ids[i, j + 1] else 1
            along[i, j] = min(along[i, j], right)
    out = np.zeros((height, width), np.int32)
    for i in range(height):
        for j in range(width):
            if ids[i, j] == 0:
                continue
            best = along[i, j] * along[i, j]
            up, down = True, True
            k = 1
            while k * k < best and (up or down):
                up = up and i - k >= 0
                if up:
                    up = ids[i - k, j] == ids[i, j]
                    best = min(best, k * k + (along[i - k, j] * along[i - k, j] if up else 0))
                down = down and i + k < height
                if down:
                    down = ids[i + k, j] == ids[i, j]
                    best = min(best, k * k + (along[i + k, j] * along[i + k, j] if down else 0))
                k += 1
            out[i, j] = best
    return out


def grown(window: Window, px: int) -> Window:
    """The window with ``px`` more pixels on each side; it has no chips."""
    minx, miny, maxx, maxy = window.bounds
    more = px * window.resolution_m
    height, width = window.shape
    return Window(
        window.epsg,
        (minx - more, miny - more, maxx + more, maxy + more),
        window.resolution_m,
        (height + 2 * px, width + 2 * px),
        (),
        (),
    )


@dataclass(frozen=True, slots=True)
class ParcelTargets:
    """Boundaries, distances and extents of the parcels of another label; a ``LabelSource``."""

    name: str
    """The variables are ``<name>_boundary``, ``<name>_distance`` and ``<name>_extent``."""
    source: LabelSource
    """Draws the ids. It is asked for up to ``halo_px`` pixels around a window and must have been opened so wide."""
    ids: str
    """The variable of ``source`` with the ids."""
    parts: tuple[Part, ...] = ("extent", "boundary", "distance")
    width_px: int = 1
    """Width of a boundary, within the parcel."""
    max_px: int = 32
    """Where distances are cut off."""
    complete: bool = True
    """Whether there is no parcel where the file has none. Otherwise ``extent`` is 255 there: a third of the countries
    in Fields of The World tell only where parcels are."""

    @property
    def legend(self) -> Legend:
        """Of ``extent``."""
        return EXTENT if "extent" in self.parts else Legend(())

    @property
    def resolution_m(self) -> float | None:
        """As the ids."""
        return self.source.resolution_m

    @property
    def halo_px(self) -> int:
        """How many pixels around a window are looked at."""
        reach = {"boundary": self.width_px, "extent": self.width_px, "distance": self.max_px}
        return max(reach[part] for part in self.parts)

    @property
    def variables(self) -> tuple[LabelVariable, ...]:
        """One a part; see ``LabelSource``."""
        ring = f"pixels of a parcel within {self.width_px} px of one that is not of it"
        known: dict[str, LabelVariable] = {
            "boundary": LabelVariable(
                f"{self.name}_boundary", "uint8", 0, "presence", attrs={"long_name": "parcel boundary", "rule": ring}
            ),
            "distance": LabelVariable(
                f"{self.name}_distance",
                "float32",
                math.nan,
                "measure",
                attrs={
                    "long_name": "distance to the parcel's boundary",
                    "units": "m",
                    "rule": f"to the nearest centre of a pixel that is not of the parcel, at most {self.max_px} px",
                },
            ),
            "extent": LabelVariable(
                f"{self.name}_extent", "uint8", UNKNOWN, "classes", attrs={**EXTENT.attrs, "rule": f"boundary: {ring}"}
            ),
        }
        return tuple(known[part] for part in self.parts)

    def render(self, window: Window) -> dict[str, NDArray[Any]]:
        """The parts of a window; see ``LabelSource``."""
        halo = self.halo_px
        ids = self.source.render(grown(window, halo))[self.ids]
        inner = (slice(halo, halo + window.shape[0]), slice(halo, halo + window.shape[1]))
        drawn: dict[str, NDArray[Any]] = {}
        for part in self.parts:
            if part == "boundary":
                found: NDArray[Any] = boundaries(ids, self.width_px)
            elif part == "distance":
                found = distance(ids, self.max_px, window.resolution_m)
            else:
                found = extent(ids, self.width_px, background=0 if self.complete else UNKNOWN)
            drawn[f"{self.name}_{part}"] = np.ascontiguousarray(found[inner])
        return drawn


# --- from one chip ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parcel:
    """What of a parcel lies on a chip."""

    instance: int
    """Its number on the chip, from 1, ascending by ``id``."""
    id: int
    code: int
    """Its class; the ignore value when it has none, or when most of it lies outside the chip."""
    rows: tuple[int, int]
    """First and last row of its box, both included: a pixel wider than the parcel on each side, but on the chip."""
    cols: tuple[int, int]
    """First and last column of its box, likewise."""
    centre: tuple[int, int]
    """(y, x) of the pixel in the middle of its box, the upper or left one of two."""
    size: tuple[int, int]
    """(y, x): in how many rows and columns of the chip it has a pixel."""
    pixels: int
    cut: bool
    """Whether most of it lies outside the chip."""


@dataclass(frozen=True, eq=False)
class Panoptic:
    """Panoptic targets of one chip."""

    instance: NDArray[np.uint16]
    """(y, x): number of the pixel's parcel, 0 where none lies."""
    heatmap: NDArray[np.float32]
    """(y, x): 1 on the centre of a parcel, falling off as a Gaussian as wide as its box; the largest of all."""
    zone: NDArray[np.uint16]
    """(y, x): the parcel whose Gaussian is the largest here; 0 on a chip without parcels."""
    size: NDArray[np.uint16]
    """(2, y, x): height and width in pixels of the parcel of the zone; 0 on a chip without parcels."""
    code: NDArray[np.unsignedinteger[Any]]
    """(y, x): class of the parcel of the zone; ignore on a chip without parcels."""
    semantic: NDArray[np.unsignedinteger[Any]]
    """(y, x): class of the pixel; ignore on parcels that lie mostly outside."""
    parcels: tuple[Parcel, ...]
    """Ascending by instance."""


def panoptic(
    ids: NDArray[np.unsignedinteger[Any]],
    classes: NDArray[np.unsignedinteger[Any]],
    *,
    ignore: int,
    background: int | None = None,
    whole_px: Mapping[int, float] | None = None,
    alpha: float = 0.7,
    r: float = 3.0,
) -> Panoptic:
    """The panoptic targets of a chip, as PASTIS has them.

    Garnot and Landrieu 2021 (arXiv:2107.07933), equation 6 and its published code: the Gaussian of a parcel has
    ``sigma = (1 - alpha) / (1 + alpha) * side / r``, for height and width of its box by themselves, where a side is
    the last row (column) less the first one. The zones are the largest Gaussian and not the nearest centre: large
    parcels reach further. They are compared by their exponents, so they also hold where every Gaussian is too small
    for a number; there the published code names the first parcel.

    Args:
        ids: (y, x) of the chip, 0 where no parcel lies.
        classes: (y, x); a parcel has the class of its first pixel.
        ignore: Value of ``classes`` where nothing is known, and what parcels that lie mostly outside get.
        background: Class of what is no parcel: its pixels get no instance.
        whole_px: Id -> area of the whole parcel in pixels. Parcels with less than half of it here are ``cut``; those
            that are not listed are whole.
        alpha: Of the definition.
        r: Of the definition.

    Raises:
        LabelError: There are more than 65,535 parcels.
    """
    kept = ids if background is None else np.where(classes == background, 0, ids)
    numbers, first, inverse, pixels = np.unique(kept, return_index=True, return_inverse=True, return_counts=True)
    parcels = slice(1 if numbers[0] == 0 else 0, None)
    numbers, pixels, codes = numbers[parcels], pixels[parcels], classes.ravel()[first[parcels]]
    n = len(numbers)
    if n > MAX_INSTANCES:
        raise LabelError("panoptic targets", f"a chip has {n} parcels, at most {MAX_INSTANCES} fit; check the ids")
    instance: NDArray[np.uint16] = (np.reshape(inverse, ids.shape) + 1 - parcels.start).astype(np.uint16)
    whole = np.array([(whole_px or {}).get(int(number), 0.0) for number in numbers])
    cut = pixels < CUT_SHARE * whole
    codes[cut] = ignore

    box, size = _boxes(instance, n)
    centre = box[:, :2] + (box[:, 2:] - box[:, :2]) // 2
    sides = (box[:, 2:] - box[:, :2]).astype(np.float64)
    sigma = np.asarray((1 - alpha) / (1 + alpha) * sides / r, np.float64)
    heatmap, zone = _splat(instance.shape[0], instance.shape[1], centre, sigma)
    # Position 0 is for a chip without parcels: there every zone is 0.
    of_zone = np.concatenate([np.array([ignore], classes.dtype), codes])[zone]
    sizes = np.concatenate([np.zeros((1, 2), np.uint16), size])[zone]
    semantic = classes.copy()
    semantic[np.concatenate([[False], cut])[instance]] = ignore
    return Panoptic(
        instance=instance,
        heatmap=heatmap,
        zone=zone,
        size=np.ascontiguousarray(np.moveaxis(sizes, -1, 0)),
        code=of_zone,
        semantic=semantic,
        parcels=tuple(
            Parcel(
                instance=i + 1,
                id=int(numbers[i]),
                code=int(codes[i]),
                rows=(int(box[i, 0]), int(box[i, 2])),
                cols=(int(box[i, 1]), int(box[i, 3])),
                centre=(int(centre[i, 0]), int(centre[i, 1])),
                size=(int(size[i, 0]), int(size[i, 1])),
                pixels=int(pixels[i]),
                cut=bool(cut[i]),
            )
            for i in range(n)
        ),
    )


@njit(nogil=True, cache=True)
def _boxes(instance: NDArray[np.uint16], n: int) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Box (top, left, bottom, right) of each parcel, a pixel wider where the chip goes on, and its (height, width)."""
    height, width = instance.shape
    rows, cols = np.zeros((n, height), np.bool_), np.zeros((n, width), np.bool_)
    for i in range(height):
        for j in range(width):
            if instance[i, j] > 0:
                rows[instance[i, j] - 1, i] = True
                cols[instance[i, j] - 1, j] = True
    box, size = np.zeros((n, 4), np.int64), np.zeros((n, 2), np.uint16)
    for p in range(n):
        down, across = np.flatnonzero(rows[p]), np.flatnonzero(cols[p])
        box[p, 0], box[p, 1] = max(down[0] - 1, 0), max(across[0] - 1, 0)
        box[p, 2], box[p, 3] = min(down[-1] + 1, height - 1), min(across[-1] + 1, width - 1)
        size[p, 0], size[p, 1] = len(down), len(across)
    return box, size


@njit(nogil=True, cache=True)
def _splat(
    height: int, width: int, centre: NDArray[np.int64], sigma: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """The largest Gaussian of each pixel and whose it is, from 1; of equal ones the first."""
    heat, zone = np.zeros((height, width), np.float32), np.zeros((height, width), np.uint16)
    n = len(centre)
    across = np.empty((n, width))
    for p in range(n):
        for j in range(width):
            across[p, j] = (j - centre[p, 1]) ** 2 / (2 * sigma[p, 1] ** 2)
    least = np.empty(width)
    for i in range(height):
        least[:] = np.inf
        for p in range(n):
            down = (i - centre[p, 0]) ** 2 / (2 * sigma[p, 0] ** 2)
            for j in range(width):
                exponent = down + across[p, j]
                if exponent < least[j]:
                    least[j] = exponent
                    zone[i, j] = p + 1
        for j in range(width):
            heat[i, j] = math.exp(-least[j])
    return heat, zone


@dataclass(frozen=True, slots=True)
class PanopticTargets:
    """The panoptic targets of a label of parcels, chip by chip; a ``ChipLabel``."""

    name: str
    """The variables are ``<name>_instance``, ``_heatmap``, ``_zone``, ``_size``, ``_class`` and ``_semantic``."""
    ids: str
    """The variable with the ids of parcels."""
    classes: LabelVariable
    """The variable with their classes."""
    resolution_m: float
    """Side of a pixel."""
    background: int | None = None
    """Class of what is no parcel."""
    table: FeatureTable | None = field(default=None, repr=False)
    """Areas of the whole parcels. Without it parcels that lie mostly outside a chip cannot be told and keep their
    class."""
    alpha: float = 0.7
    r: float = 3.0

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids and classes."""
        return (self.ids, self.classes.name)

    @property
    def variables(self) -> tuple[LabelVariable, ...]:
        """See ``Panoptic``; all but the size are (y, x)."""
        name, classes = self.name, self.classes
        rule = f"sigma = (1 - {self.alpha:g}) / (1 + {self.alpha:g}) * side of the box / {self.r:g}"
        void = "parcels with less than half of their area on the chip have the ignore value"
        return (
            LabelVariable(f"{name}_instance", "uint16", 0, "ids", attrs={"long_name": "number of the parcel"}),
            LabelVariable(
                f"{name}_heatmap", "float32", math.nan, "measure",
                attrs={"long_name": "nearness to the centre of a parcel", "units": "1", "rule": rule},
            ),
            LabelVariable(
                f"{name}_zone", "uint16", 0, "ids", attrs={"long_name": "parcel with the largest Gaussian, by number"}
            ),
            LabelVariable(
                f"{name}_size", "uint16", 0, "measure", lead=(("side", 2),), coords=(("side", ("height", "width")),),
                attrs={"long_name": "height and width of the parcel of the zone", "units": "pixel"},
            ),
            LabelVariable(
                f"{name}_class", classes.dtype, classes.fill, "classes",
                attrs={**classes.attrs, "long_name": "class of the parcel of the zone", "rule": void},
            ),
            LabelVariable(
                f"{name}_semantic", classes.dtype, classes.fill, "classes",
                attrs={**classes.attrs, "long_name": "class of the pixel", "rule": void},
            ),
        )  # fmt: skip

    def targets(self, ids: NDArray[np.unsignedinteger[Any]], classes: NDArray[np.unsignedinteger[Any]]) -> Panoptic:
        """The targets of one chip (y, x), with a record a parcel."""
        return panoptic(
            ids, classes, ignore=int(self.classes.fill), background=self.background,
            whole_px=self._whole_px(ids), alpha=self.alpha, r=self.r,
        )  # fmt: skip

    def derive(self, found: Mapping[str, NDArray[Any]]) -> Derived:
        """Arrays, number of parcels and of cut ones, and the classes of those that are not cut; see ``ChipLabel``."""
        made = self.targets(found[self.ids], found[self.classes.name])
        ignore = int(self.classes.fill)
        return Derived(
            arrays={
                f"{self.name}_instance": made.instance,
                f"{self.name}_heatmap": made.heatmap,
                f"{self.name}_zone": made.zone,
                f"{self.name}_size": made.size,
                f"{self.name}_class": made.code,
                f"{self.name}_semantic": made.semantic,
            },
            values={
                "parcels": float(len(made.parcels)),
                "parcels_cut": float(sum(parcel.cut for parcel in made.parcels)),
            },
            classes=tuple(sorted({parcel.code for parcel in made.parcels} - {ignore})),
        )

    def _whole_px(self, ids: NDArray[np.unsignedinteger[Any]]) -> dict[int, float]:
        """Area in pixels of the parcels of which a part may lie outside the chip."""
        if self.table is None:
            return {}
        edge = np.unique(np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]]))
        numbers = np.unique(ids)
        area, parts = self.table.areas(numbers)
        # One polygon that keeps off the edge is whole, however few pixels a small one may have been drawn with.
        partial = (area > 0) & (np.isin(numbers, edge) | (parts > 1))
        return {
            int(number): float(m2) / self.resolution_m**2
            for number, m2 in zip(numbers[partial], area[partial], strict=True)
        }
