"""How far images of one place lie apart, in parts of a pixel, and reading them so that they lie on each other.

What is compared is the direction in which edges run, not brightness: it survives other bands, other sensors and a
field that was dark and has become bright. Only pixels that are valid in both images are compared, so a cloud's outline,
which is where it is in no other image, is no edge. A shift is measured on chips but corrected for a whole acquisition:
chips moved one by one would no longer meet at their edges.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, cast

import annotated_types

if TYPE_CHECKING:
    import datetime as dt

    import numpy as np
    import numpy.typing as npt
    from odc.geo.geobox import GeoBox

    from catalog.scene import Scene
    from cube.load import PixelReader

    Floats = npt.NDArray[np.float64]
    Complexes = npt.NDArray[np.complex128]
    Flags = npt.NDArray[np.bool_]

AnyReader = TypeVar("AnyReader", bound="PixelReader")

AROUND = 12
"""How many widths of the Gaussian around the searched shifts tell what likeness is chance."""

BLOCK_PX = 16
"""Side of the blocks whose disagreement tells the error of a shift. An edge that has changed pulls along its whole
length, so smaller blocks take what is one disagreement for several."""

STRONG = 0.95
"""Share of the slopes that fade because they are weak. With all edges alike (0.5), the many faint ones that come and
go with the season made the error between spring and summer half as large again."""

MIN_PX = 400
"""Comparable pixels below which nothing is measured."""

MIN_PAIRS = 100
"""Pairs of pixels without which the likeness at one shift is not looked at."""

SURE, LIKELY, ALIKE = 5.0, 2.5, 0.3
"""The likeness of two images must be 5 times what is chance, or 2.5 times if it is above 0.3: long parallel edges are
much like themselves anywhere along their length. Of 210 pairs of different places or of noise
the best came to 4.3 and 0.21."""

MAX_ERROR_PX = 0.2
"""Standard error beyond which a shift is not told: the texture is too weak or runs one way only."""

MIN_OTHERS = 2
"""Other dates of which a composite is made at least; a pixel that fewer have seen is not compared."""

REFERENCE_DATES = 9
"""Dates of another source that make the image an acquisition is held against."""

SAME_BAND = (("nir", "nir08"),)
"""Names of bands that look at the same light: broad and narrow near infrared."""
NEAR_UM = 0.04
"""Bands of other names are comparable when their centres lie within this."""
TELLING = ("red", "nir", "nir08", "green", "swir16", "swir22")
"""Bands by how well they tell a shift: sharp and little touched by haze come first; others follow."""

FLOOR_PX = 0.05
"""Added to the error of a chip before chips are weighed, so that one of rich texture does not decide alone."""

EXACT_M = 1 / 1024
"""Grids are moved by whole multiples of it, in metres. As coordinates they are exact, so that a pixel is the same in
every window. Other fractions are rounded otherwise once a coordinate passes a power of two, as in Greece."""


@dataclass(frozen=True, slots=True)
class CoregisterSpec:
    """Whether and how the acquisitions of a source are moved onto a reference."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    reference: str = "composite"
    """What the acquisitions are moved onto: `composite` (for each the median of all others), `clearest` (the one
    acquisition with most clear pixels, the same everywhere) or the name of another optical source of the recipe."""
    max_shift_px: Annotated[float, annotated_types.Gt(0), annotated_types.Le(20)] = 2.0
    """Shifts beyond it are not believed."""
    min_shift_px: Annotated[float, annotated_types.Ge(0)] = 0.1
    """Acquisitions that lie nearer than this are left as they are: moving them would only blur them."""
    places: Annotated[int, annotated_types.Ge(1), annotated_types.Le(10_000)] = 16
    """Places of 256 pixels, spread over the area, on which shifts are measured. More cost more reading; they tell the
    shift of more chips, and that of an acquisition hardly better."""
    min_places: Annotated[int, annotated_types.Ge(1)] = 3
    """Places on which a shift must have been measured before it is believed. A small area may have fewer."""
    apply: bool = True
    """Undo the shifts. `false`: measure and report them only."""

    def __post_init__(self) -> None:
        if not self.reference:
            raise ValueError("reference is empty; wanted 'composite', 'clearest' or the name of another source")
        if self.min_shift_px >= self.max_shift_px:
            raise ValueError(
                f"min_shift_px is {self.min_shift_px:g} and max_shift_px {self.max_shift_px:g}, so nothing would "
                "ever be moved; wanted the smaller number first"
            )


@dataclass(frozen=True, slots=True)
class Shift:
    """Where an image lies: what is at (y, x) in the reference is at (y + dy, x + dx) in the image."""

    dy: float
    """Pixels towards the last row (south); NaN when it could not be measured."""
    dx: float
    """Pixels towards the last column (east); NaN when it could not be measured."""
    quality: float
    """Likeness of the edges once the shift is undone: 1 is the same, 0 none. NaN when none was computed."""
    error_px: float
    """Standard error along the direction in which the shift is known worst; NaN when it was not computed."""
    n: int
    """Pixels that were compared."""
    reason: str = ""
    """Why there is no shift; empty when there is one."""

    @property
    def measured(self) -> bool:
        """Whether there is a shift."""
        return not self.reason

    def metres(self, resolution_m: float) -> tuple[float, float]:
        """The shift as (east, north) on a north-up grid."""
        return self.dx * resolution_m, -self.dy * resolution_m


@dataclass(frozen=True, slots=True)
class AcquisitionShift:
    """Where an acquisition lies against the reference: the middle of what its chips say."""

    east_m: float
    """NaN when no chip could be measured."""
    north_m: float
    spread_m: float
    """Deviation of one chip along the worse axis: 1.4826 times the median distance from the middle, and never less
    than the error that the chips tell of themselves."""
    quality: float
    """Median over the chips."""
    chips: int
    """Chips on which it was measured."""
    reason: str = ""
    """Why there is no shift: what most of the chips say; empty when there is one."""

    @property
    def error_m(self) -> float:
        """Standard error of the middle; a median needs 1.25 times the deviation of a mean."""
        return 1.2533 * self.spread_m / math.sqrt(self.chips) if self.chips else math.nan

    @property
    def length_m(self) -> float:
        """Length of the shift; NaN when there is none."""
        return math.hypot(self.east_m, self.north_m)


def measure_shift(
    reference: npt.NDArray[Any],
    image: npt.NDArray[Any],
    valid: Flags,
    *,
    max_shift_px: float,
    sigma_px: float = 1.0,
) -> Shift:
    """Shift of an image against a reference on the same grid, in parts of a pixel.

    The nearest whole shift is the peak of the correlation of edge directions over all pairs of valid pixels, found by
    FFT; from there Gauss-Newton steps maximise the same likeness with derivatives of Gaussians that are moved by parts
    of a pixel. No window (Hann) is laid over the images: pairs beyond an edge or under a cloud do not take part at all,
    so nothing wraps around and there is nothing to taper.

    What differs for another cause than position is taken for a shift all the same: a road that can be told from one of
    its two fields only moves an edge by half its width. So a single chip between seasons may be 0.2 px off, and says
    so in ``error_px``; the middle of many chips is not.

    Args:
        reference: Dims ``(y, x)``, or ``(band, y, x)`` with as many bands as the image: all vote on one shift.
        image: As the reference; any numbers, any sensor.
        valid: Dims ``(y, x)``: pixels that are clear in both.
        max_shift_px: Longest shift that is looked for along each axis.
        sigma_px: Width of the Gaussian under which edges are seen. The default also holds Landsat's 30 m against
            10 m: with wider ones fewer pairs could be measured (Flanders, 64 px chips).
    """
    import numpy as np

    if reference.shape != image.shape or image.shape[-2:] != valid.shape or image.ndim not in (2, 3):
        raise ValueError(
            f"reference {reference.shape}, image {image.shape} and valid {valid.shape} differ; wanted one grid, and as "
            "many bands in both images"
        )
    if sigma_px < 0.8:
        raise ValueError(f"sigma_px is {sigma_px:g}; below 0.8 a Gaussian can no longer be moved by parts of a pixel")
    shape = (-1, *valid.shape)
    first, second = reference.reshape(shape), image.reshape(shape)
    whole = valid & np.isfinite(first).all(axis=0) & np.isfinite(second).all(axis=0)
    usable = _shrunk(whole, _radius(sigma_px) + 1)
    n = int(usable.sum())
    if n < MIN_PX:
        return _unmeasured(n, f"{n} pixels are clear in both and far enough from clouds and edges, wanted {MIN_PX}")
    first, second = _filled(first, whole), _filled(second, whole)
    soft = []
    edges: list[list[Complexes]] = [[], []]
    for images, kept in zip((first, second), edges, strict=True):
        slopes = [_slopes(band, 0.0, 0.0, sigma_px, order=1) for band in images]
        levels = [float(np.quantile(np.abs(slope[0][usable]), STRONG)) for slope in slopes]
        soft.append(levels)
        if not any(levels):
            return _unmeasured(n, "no texture: one of the images is flat")
        kept.extend(_direction(slope[0], level) for slope, level in zip(slopes, levels, strict=True))
    start, chance = _whole_shift(edges[0], edges[1], usable, math.ceil(max_shift_px), math.ceil(AROUND * sigma_px))
    return _refined(first, second, soft, usable, start, chance, max_shift_px, sigma_px)


def _unmeasured(n: int, reason: str, quality: float = math.nan, error_px: float = math.nan) -> Shift:
    return Shift(math.nan, math.nan, quality, error_px, n, reason)


def _radius(sigma_px: float) -> int:
    """Reach of the filters: beyond 4 deviations a Gaussian is 0.0003, and half a pixel more because they are moved."""
    return math.ceil(4 * sigma_px + 0.5)


def _shrunk(valid: Flags, radius: int) -> Flags:
    """Pixels whose whole neighbourhood is valid; what is outside the array is not."""
    from scipy.ndimage import minimum_filter

    shrunk: Flags = minimum_filter(valid, size=2 * radius + 1, mode="constant", cval=0)
    return shrunk


def _filled(images: npt.NDArray[Any], valid: Flags) -> Floats:
    """Whatever stands in pixels that are not valid never reaches a usable one; a number is needed all the same."""
    import numpy as np

    return np.where(valid, images, 0).astype(np.float64)


def _slopes(image: Floats, dy: float, dx: float, sigma_px: float, order: int) -> list[Complexes]:
    """Slope of an image at places (y + dy, x + dx), as x + iy; for order 2 also its derivatives by x and y.

    The filters are sampled at the moved places. A Gaussian of 0.8 px or more passes no frequency that sampling would
    fold back, so this is as good as moving the image, and equally smooth for every part of a pixel.
    """
    import numpy as np
    from scipy.ndimage import correlate1d

    reach = _radius(sigma_px)
    whole_y, whole_x = round(dy), round(dx)
    if whole_y or whole_x:
        image = _moved(image, whole_y, whole_x)

    def filters(part: float) -> list[Floats]:
        u = (np.arange(-reach, reach + 1) - part) / sigma_px
        bell = np.exp(-u * u / 2)
        bell /= bell.sum()
        # Weights over neighbours k for the derivative at `part`: of G(k - part) by part.
        return [bell, u / sigma_px * bell, (u * u - 1) / sigma_px**2 * bell]

    in_y, in_x = filters(dy - whole_y), filters(dx - whole_x)
    along_x = [correlate1d(image, weights, axis=1, mode="nearest") for weights in in_x[: order + 1]]

    def both(y: int, x: int) -> Floats:
        filtered: Floats = correlate1d(along_x[x], in_y[y], axis=0, mode="nearest")
        return filtered

    result = [both(0, 1) + 1j * both(1, 0)]
    if order == 2:
        mixed = both(1, 1)
        result += [both(0, 2) + 1j * mixed, mixed + 1j * both(2, 0)]
    return result


def _moved(image: npt.NDArray[Any], dy: int, dx: int) -> npt.NDArray[Any]:
    """What is at (y + dy, x + dx), at (y, x); zero (False) where that is outside."""
    import numpy as np

    out = np.zeros_like(image)
    height, width = image.shape
    if abs(dy) < height and abs(dx) < width:
        out[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)] = image[
            max(dy, 0) : height - max(-dy, 0), max(dx, 0) : width - max(-dx, 0)
        ]
    return out


def _direction(slope: Complexes, soft: float) -> Complexes:
    """The axis along which a slope lies, at most 1 long: a slope and its opposite are the same.

    Slopes below ``soft`` fade, so that noise on flat ground has no say; a flat band (soft is 0) has none at all.
    """
    return slope**2 / (slope.real**2 + slope.imag**2 + (soft**2 or 1.0))


def _whole_shift(
    reference: Sequence[Complexes], image: Sequence[Complexes], usable: Flags, reach: int, around: int
) -> tuple[tuple[int, int], float]:
    """Peak (dy, dx) of the correlation over all pairs of usable pixels, within ``reach`` along each axis.

    With it comes the likeness that is chance: the root mean square over shifts up to ``around`` pixels further away,
    those next to the peak left out.
    """
    import numpy as np
    from scipy import fft

    far = reach + around
    axis = np.arange(-far, far + 1)
    # Zeros beyond the edges, as many as the longest shift: nothing wraps around.
    size = [fft.next_fast_len(length + far) for length in usable.shape]

    def correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
        surface = fft.ifft2(np.conj(fft.fft2(a, size)) * fft.fft2(b, size))
        return np.real(surface[np.ix_(axis, axis)])

    weight = usable.astype(np.float64)
    alike = np.zeros((2 * far + 1,) * 2)
    power_a, power_b = np.zeros_like(alike), np.zeros_like(alike)
    for a, b in zip(reference, image, strict=True):
        a, b = (np.where(usable, z - z[usable].mean(), 0) for z in (a, b))
        alike += correlation(a, b)
        power_a += correlation(np.abs(a) ** 2, weight)
        power_b += correlation(weight, np.abs(b) ** 2)
    enough = correlation(weight, weight) >= MIN_PAIRS
    likeness = np.where(enough, alike / np.sqrt(np.maximum(power_a * power_b, 1e-12)), np.nan)
    near = likeness[around : around + 2 * reach + 1, around : around + 2 * reach + 1]
    row, col = np.unravel_index(int(np.nanargmax(near)), near.shape)
    dy, dx = int(row) - reach, int(col) - reach
    apart = np.maximum(np.abs(axis[:, None] - dy), np.abs(axis - dx)) > around // 2
    elsewhere = likeness[apart & enough]
    return (dy, dx), float(np.sqrt(np.mean(elsewhere**2))) if elsewhere.size else math.inf


def _refined(
    reference: Floats,
    image: Floats,
    soft: Sequence[Sequence[float]],
    usable: Flags,
    start: tuple[int, int],
    chance: float,
    max_shift_px: float,
    sigma_px: float,
) -> Shift:
    """Gauss-Newton from a whole shift to the place of greatest likeness, and how sure it is."""
    import numpy as np

    dy, dx = float(start[0]), float(start[1])
    # The pixels are chosen once: likeness over changing pixels would jump.
    common = usable & _moved(usable, *start)
    n = int(common.sum())
    if n < MIN_PX:
        return _unmeasured(n, f"{n} pixels are clear in both and far enough from clouds and edges, wanted {MIN_PX}")
    target, *known = _edges(reference, 0.0, 0.0, sigma_px, soft[0], common)
    for _ in range(15):
        found, *changes = _edges(image, dy, dx, sigma_px, soft[1], common)
        jacobian: Complexes = np.stack(changes)
        power = float(np.vdot(found, found).real)
        gain = float(np.vdot(found, target).real) / power if power > 0 else 0.0
        normal = np.real(jacobian @ jacobian.conj().T)
        if gain <= 0 or np.linalg.cond(normal) > 1e6:
            return _unmeasured(n, "the edges of the two images have nothing in common")
        residual: npt.NDArray[Any] = target - gain * found
        step = np.linalg.solve(normal, np.real(jacobian.conj() @ residual)) / gain
        # Derivatives hold for half a pixel.
        step *= min(1.0, 0.5 / max(float(np.abs(step).max()), 1e-9))
        dy, dx = dy + float(step[0]), dx + float(step[1])
        if abs(dy - start[0]) > 1.5 or abs(dx - start[1]) > 1.5:
            return _unmeasured(n, "the likeness of the two images has no peak")
        if float(np.abs(step).max()) < 0.002:
            break
    quality = gain * math.sqrt(power / float(np.vdot(target, target).real))
    error_px = _error(residual, jacobian, np.stack(known), common)
    # Where only scattered pixels are left there may be no pairs to tell chance by: then nothing is told.
    wanted = min(SURE * chance, max(LIKELY * chance, ALIKE))
    if quality < wanted:
        return _unmeasured(
            n, f"the likeness of the two images, {quality:.2f}, may be chance; wanted {wanted:.2f}", quality, error_px
        )
    if error_px > MAX_ERROR_PX:
        return _unmeasured(n, "the texture is too weak, or runs one way only", quality, error_px)
    if abs(dy) > max_shift_px or abs(dx) > max_shift_px:
        return _unmeasured(
            n, f"the images are alike at ({dy:.1f}, {dx:.1f}) px, beyond {max_shift_px:g} px", quality, error_px
        )
    return Shift(dy, dx, quality, error_px, n)


def _edges(
    images: Floats, dy: float, dx: float, sigma_px: float, soft: Sequence[float], common: Flags
) -> list[Complexes]:
    """Axes of the slopes of all bands at moved places, without their mean, and how they change along y and x."""
    import numpy as np

    bands = [
        [part[common] for part in _derived(_slopes(image, dy, dx, sigma_px, order=2), level)]
        for image, level in zip(images, soft, strict=True)
    ]
    return [np.concatenate([part - part.mean() for part in parts]) for parts in zip(*bands, strict=True)]


def _derived(slopes: Sequence[Complexes], soft: float) -> tuple[Complexes, Complexes, Complexes]:
    """The axis of a slope (see ``_direction``), and how it changes when the place moves along y and x."""
    slope, by_x, by_y = slopes
    power = slope.real**2 + slope.imag**2 + (soft**2 or 1.0)
    axis = slope**2 / power
    changes = [
        2 * slope * by / power - axis * (2 * (slope.real * by.real + slope.imag * by.imag) / power)
        for by in (by_x, by_y)
    ]
    return axis, changes[1], changes[0]


def _error(residual: npt.NDArray[Any], jacobian: Complexes, known: Complexes, common: Flags) -> float:
    """Standard error of the shift along its worst direction; infinite where the images share no texture.

    Neighbouring pixels say the same, so what counts is how far blocks of pixels disagree (a sandwich estimate). What
    a shift would change is taken from both images: the noise of one alone would look like texture.
    """
    import numpy as np

    rows, cols = np.nonzero(common)
    across = -(-common.shape[1] // BLOCK_PX)
    block = np.tile(rows // BLOCK_PX * across + cols // BLOCK_PX, residual.size // len(rows))
    pulls = np.stack([np.bincount(block, np.real(row.conj() * residual)) for row in jacobian])
    shared = np.real(known @ jacobian.conj().T)
    shared = (shared + shared.T) / 2
    if np.linalg.eigvalsh(shared)[0] <= 0:
        return math.inf
    inverse = np.linalg.inv(shared)
    covariance = inverse @ (pulls @ pulls.T) @ inverse
    return math.sqrt(float(np.linalg.eigvalsh(covariance)[-1]))


def measure_series(
    cube: npt.NDArray[Any],
    clear: Flags,
    *,
    reference: Literal["composite"] | int | npt.NDArray[Any],
    max_shift_px: float,
    sigma_px: float = 1.0,
) -> tuple[Shift, ...]:
    """Shift of each time of one chip against a reference; times are measured at once on all cores.

    Against a composite of evenly spread dates a shift comes out up to n / (n - 1) times too long for n dates, because
    the composite lies where the others are on average.

    Args:
        cube: Dims ``(time, band, y, x)``, any numbers.
        clear: Dims ``(time, y, x)``.
        reference: ``composite`` is the median of the clear pixels of all *other* times, because an image is always
            alike to itself where it is; a number is the time that all others are held against, itself at no shift; an
            image ``(band, y, x)`` is one of another source on comparable bands, NaN where it is void, and with time in
            front it is one for each time (``nearest_dates``).
        max_shift_px: As in ``measure_shift``.
        sigma_px: As in ``measure_shift``.
    """
    import numpy as np

    if isinstance(reference, str):
        images: Iterable[npt.NDArray[Any]] = _without_one(cube, clear)
    elif isinstance(reference, int):
        images = [np.where(clear[reference], cube[reference], np.nan)] * len(cube)
    else:
        images = reference if reference.ndim == 4 else [reference] * len(cube)

    def one(t: int, image: npt.NDArray[Any]) -> Shift:
        valid = clear[t] & np.isfinite(image).all(axis=0)
        if isinstance(reference, int) and t == reference:
            return Shift(0.0, 0.0, 1.0, 0.0, int(valid.sum()))
        return measure_shift(image, cube[t], valid, max_shift_px=max_shift_px, sigma_px=sigma_px)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(pool.map(one, range(len(cube)), images))


def nearest_dates(
    cube: npt.NDArray[Any],
    clear: Flags,
    times: Sequence[dt.datetime],
    when: Sequence[dt.datetime],
    count: int = REFERENCE_DATES,
) -> npt.NDArray[np.float32]:
    """What a source looked like about each of some moments: the median of the clear pixels of its nearest dates.

    Neither one date, which lies off by itself and is clouded in part, nor the whole year, in which fields change:
    Landsat-8 over Flanders scatters about Sentinel-2 by 5.2 m with 1 date, 3.2 m with 5 and 3.1 m with 9, and of 14
    dates 13 can be measured up to 9 dates, 11 against the median of all 59.

    Args:
        cube: Dims ``(time, band, y, x)``, any numbers.
        clear: Dims ``(time, y, x)``.
        times: Of the cube.
        when: The moments.
        count: Dates that make one image; of two as near as each other the earlier comes first.

    Returns:
        Dims ``(moment, band, y, x)``, NaN where fewer than ``MIN_OTHERS`` of the dates are clear (one, where a source
        has but one).
    """
    import numpy as np

    made: dict[tuple[int, ...], npt.NDArray[np.float32]] = {}
    images = []
    for moment in when:
        order = sorted(range(len(times)), key=lambda t: (abs(times[t] - moment), times[t]))
        chosen = tuple(sorted(order[:count]))
        if chosen not in made:
            made[chosen] = _median(cube[list(chosen)], clear[list(chosen)])
        images.append(made[chosen])
    return np.stack(images) if images else np.empty((0, *cube.shape[1:]), np.float32)


def _median(cube: npt.NDArray[Any], clear: Flags) -> npt.NDArray[np.float32]:
    """Median of the clear pixels ``(band, y, x)``, NaN where fewer than ``MIN_OTHERS`` of several times see it."""
    import numpy as np

    ranked = np.sort(np.where(clear[:, None], cube, np.nan).astype(np.float32), axis=0)  # NaN comes last
    count = np.broadcast_to(clear.sum(axis=0), cube.shape[1:])
    low, high = (np.clip(place, 0, len(ranked) - 1) for place in ((count - 1) // 2, count // 2))
    middle = (np.take_along_axis(ranked, low[None], 0)[0] + np.take_along_axis(ranked, high[None], 0)[0]) / 2
    middle[count < min(MIN_OTHERS, len(cube))] = np.nan
    median: npt.NDArray[np.float32] = middle.astype(np.float32)
    return median


def _without_one(cube: npt.NDArray[Any], clear: Flags) -> Iterable[npt.NDArray[Any]]:
    """For each time the median of the others, ``(band, y, x)`` float32, NaN where fewer than ``MIN_OTHERS`` see it.

    Sorted once: without one value the median lies on two of the three values in the middle.
    """
    import numpy as np

    values = np.where(clear[:, None], cube, np.nan).astype(np.float32)
    ranked = np.sort(values, axis=0)  # NaN comes last
    count = np.broadcast_to(clear.sum(axis=0), values.shape[1:])

    def ranked_at(place: npt.NDArray[Any]) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = np.take_along_axis(ranked, np.clip(place, 0, len(ranked) - 1)[None], axis=0)[0]
        return values

    half = count // 2
    before, middle, after = ranked_at(half - 1), ranked_at(half), ranked_at(half + 1)
    whole = np.where(count % 2 == 1, middle, (before + middle) / 2)
    for t, value in enumerate(values):
        odd = np.where(
            value < middle, (middle + after) / 2, np.where(value > middle, (before + middle) / 2, (before + after) / 2)
        )
        even = np.where(value <= before, middle, before)
        median = np.where(np.isnan(value), whole, np.where(count % 2 == 1, odd, even))
        median[count - clear[t] < MIN_OTHERS] = np.nan
        yield median


def by_acquisition(measured: Mapping[str, Sequence[Shift]], resolution_m: float) -> dict[str, AcquisitionShift]:
    """Where each acquisition lies: the weighted median of its chips, so that a chip gone wrong does not pull.

    Args:
        measured: Shifts on all chips of each acquisition, by its key; those that were not measured have no say.
        resolution_m: Side of a pixel.
    """
    import numpy as np

    result = {}
    for key, shifts in measured.items():
        good = [shift for shift in shifts if shift.measured]
        if not good:
            result[key] = AcquisitionShift(math.nan, math.nan, math.nan, math.nan, 0, why_none(shifts))
            continue
        places = np.array([shift.metres(resolution_m) for shift in good])
        weights = 1 / (np.array([shift.error_px for shift in good]) ** 2 + FLOOR_PX**2)
        east, north = (_weighted_median(places[:, axis], weights) for axis in (0, 1))
        apart = np.median(np.abs(places - (east, north)), axis=0).max()
        told = np.median([shift.error_px for shift in good]) * resolution_m
        spread = max(1.4826 * float(apart), float(told))
        quality = float(np.median([shift.quality for shift in good]))
        result[key] = AcquisitionShift(east, north, spread, quality, len(good))
    return result


def _weighted_median(values: Floats, weights: Floats) -> float:
    """Halfway between the values on which half of the weight is reached from below and from above."""
    import numpy as np

    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    low, high = (values[order][int(np.searchsorted(reached, half))] for half in (0.5 - 1e-9, 0.5 + 1e-9))
    return float((low + high) / 2)


def why_none(shifts: Sequence[Shift]) -> str:
    """What most say that could not be measured, with how many there are; empty when one was measured."""
    if any(shift.measured for shift in shifts):
        return ""
    if not shifts:
        return "clear on none of the places"
    # Numbers differ from place to place; the sentence is the same.
    counts = Counter(_kind(shift.reason) for shift in shifts)
    kind, _ = min(counts.items(), key=lambda item: (-item[1], item[0]))
    told = next(shift.reason for shift in shifts if _kind(shift.reason) == kind)
    return told if len(shifts) == 1 else f"{told} ({counts[kind]} of {len(shifts)} looked at)"


def _kind(reason: str) -> str:
    return re.sub(r"[-\d.]+", "#", reason)


def why_left(shift: AcquisitionShift, spec: CoregisterSpec, resolution_m: float) -> str:
    """Why the shift of an acquisition is not undone; empty when it is.

    Left are acquisitions measured on too few places, those nearer than ``min_shift_px``, those whose shift is not
    twice its own error, those that would have to be moved further than ``max_shift_px``, and all when nothing is to be
    applied.
    """
    if not shift.chips:
        return f"not measured: {shift.reason}"
    if not spec.apply:
        return "only measured, as asked"
    if shift.chips < spec.min_places:
        return f"measured on {shift.chips} places, wanted {spec.min_places}"
    if shift.length_m < spec.min_shift_px * resolution_m:
        return f"nearer than {spec.min_shift_px:g} px"
    if not shift.length_m > 2 * shift.error_m:
        return "not twice its own error"
    if max(abs(shift.east_m), abs(shift.north_m)) > spec.max_shift_px * resolution_m:
        return f"further than {spec.max_shift_px:g} px"
    return ""


def moves(
    shifts: Mapping[str, AcquisitionShift], spec: CoregisterSpec, resolution_m: float
) -> dict[str, tuple[float, float]]:
    """The shifts (east, north) in metres that are worth undoing (``why_left``), by acquisition."""
    return {
        key: (shift.east_m, shift.north_m) for key, shift in shifts.items() if not why_left(shift, spec, resolution_m)
    }


def comparable_bands(
    image: Mapping[str, float | None], reference: Mapping[str, float | None]
) -> tuple[tuple[str, str], ...]:
    """Pairs (band of the image, band of the reference) that look at the same light, those that tell most first.

    Of the same name, or both near infrared (``nir``, ``nir08``), or with centres within 0.04 µm; each band once.

    Args:
        image: Centre wavelength in micrometres of each band, None where it is not known.
        reference: The same of the other source.
    """
    rank = {name: index for index, name in enumerate(TELLING)}
    pairs: list[tuple[str, str]] = []
    for own in sorted(image, key=lambda name: rank.get(name, len(rank))):
        near = [
            (distance, other)
            for other in reference
            if other not in {taken for _, taken in pairs}
            and (distance := _apart(own, image[own], other, reference[other])) is not None
        ]
        if near:
            pairs.append((own, min(near)[1]))
    return tuple(pairs)


def _apart(own: str, own_um: float | None, other: str, other_um: float | None) -> tuple[int, float] | None:
    """How unlike two bands are; None when they cannot be compared."""
    if own == other:
        return (0, 0.0)
    if any(own in names and other in names for names in SAME_BAND):
        return (1, 0.0)
    if own_um is not None and other_um is not None and abs(own_um - other_um) <= NEAR_UM:
        return (2, abs(own_um - other_um))
    return None


def aligned(reader: AnyReader, moved: Mapping[str, tuple[float, float]]) -> AnyReader:
    """A reader that undoes shifts: it reads an acquisition where its pixels are, not where they should be.

    The grid that is asked for moves, not the image, so pixels are still resampled once, by the reader's own rules, and
    quality layers move with their bands. Acquisitions without a shift are read as before, copies stay copies.

    Args:
        reader: One of ``cube.load.READERS`` or ``PIXEL_READERS``; what comes out is of its kind.
        moved: (east, north) in metres by which acquisitions lie off, from ``moves``.
    """

    def read(steps: Sequence[Sequence[Scene]], bands: Sequence[str], geobox: GeoBox, **options: Any) -> Any:
        groups: dict[tuple[float, float], list[int]] = {}
        for index, step in enumerate(steps):
            found = {moved.get(scene.acquisition, (0.0, 0.0)) for scene in step} or {(0.0, 0.0)}
            if len(found) > 1:
                raise ValueError(f"step {index} joins scenes of several acquisitions that are moved differently")
            groups.setdefault(found.pop(), []).append(index)
        parts: list[Any] = [
            reader([steps[index] for index in members], bands, _grid_at(geobox, *place), **options)
            for place, members in groups.items()
        ]
        if len(parts) == 1:
            return parts[0]
        return _in_order(parts, list(groups.values()))

    return cast("AnyReader", read)


def _grid_at(geobox: GeoBox, east_m: float, north_m: float) -> GeoBox:
    """The grid, moved; itself when there is nothing to move."""
    if not east_m and not north_m:
        return geobox
    from affine import Affine
    from odc.geo.geobox import GeoBox

    if geobox.crs is None or not geobox.crs.projected:
        raise ValueError(f"the grid is in {geobox.crs}; shifts are in metres and want a projected CRS")
    t = geobox.transform
    east, north = (round(value / EXACT_M) * EXACT_M for value in (east_m, north_m))
    return GeoBox(geobox.shape, Affine(t.a, t.b, t.c + east, t.d, t.e, t.f + north), geobox.crs)


def _in_order(parts: Sequence[Any], members: Sequence[Sequence[int]]) -> Any:
    """Steps that were read in groups, in the order in which they were asked for."""
    import numpy as np

    order = np.argsort([index for group in members for index in group])
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)[order]
    import xarray as xr

    joined = xr.concat(
        [part.assign_coords(time=list(group)) for part, group in zip(parts, members, strict=True)], "time"
    )
    return joined.isel(time=order)
