"""Radar from scenes to backscatter: borders of a pass, speckle, passes kept apart, and decibels at the very end.

Every step works on linear power and looks only so far around a pixel (``RadarSpec.halo_px``), so that a pixel does not
depend on the window in which it is made. Means of decibels are not means: they are the last step, on what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from catalog.scene import Scene
    from cube.load import PixelReader
    from tiling.shards import Window

AMPLITUDE = frozenset({"sentinel-1-grd"})
"""Collections whose files hold amplitudes (uint16, 0 = void) and no power; their GCPs say where they lie.
Source: Sentinel-1 Product Definition (S1-RS-MDA-52-7440), GRD; no collection offers its calibration as a raster."""


@dataclass(frozen=True, slots=True)
class RadarSpec:
    """What is done to backscatter besides putting it on the grid."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    scale: Literal["linear", "db"] = "linear"
    """Of the stored values: power, or 10 log10 of it, taken after everything else."""
    speckle: Literal["none", "lee", "enhanced-lee", "gamma-map"] = "none"
    """Speckle filter, on each date by itself."""
    speckle_px: Annotated[int, annotated_types.Ge(3), annotated_types.Le(25)] = 7
    """Side of the square that a filter looks at, in pixels of the chips; odd."""
    looks: Annotated[float, annotated_types.Gt(0)] = 4.4
    """Equivalent number of looks, which is how much speckle there is. 4.4 holds for IW GRDH at 10 m and what is made of
    it; averaging pixels raises it."""
    border_px: Annotated[int, annotated_types.Ge(0), annotated_types.Le(1000)] = 0
    """Void what is darker than `border_db` in all bands and joined to void over at most so many pixels of that kind.
    For products before March 2018, whose edges hold noise; 0 leaves it. Zeros are void anyway."""
    border_db: float = -30.0
    """How dark noise at a border is. Calm water is that dark too, so it is hidden only where it is joined to void."""
    apart: Literal["orbit", "relative_orbit"] = "orbit"
    """Which passes are never joined: those of the two directions, or of each track, which all look alike."""

    def __post_init__(self) -> None:
        if self.speckle_px % 2 == 0:
            raise ValueError(f"speckle_px {self.speckle_px} has no middle pixel; take {self.speckle_px + 1}")

    @property
    def halo_px(self) -> int:
        """Pixels around a window that have a say in it."""
        return self.border_px + (0 if self.speckle == "none" else self.speckle_px // 2)


def attributes(spec: RadarSpec, *, amplitude: bool) -> dict[str, Any]:
    """Attributes of stored backscatter: units, and what was done to it.

    Args:
        spec: What was asked.
        amplitude: The files hold amplitudes without calibration (see ``AMPLITUDE``).
    """
    decibel = spec.scale == "db"
    attrs: dict[str, Any] = {
        "long_name": "radar backscatter, " + ("decibel" if decibel else "linear power"),
        "units": "dB" if decibel else "1",
    }
    said = []
    if amplitude:
        said.append("square of the amplitude, not calibrated; placed by ground control points, no terrain correction")
    if decibel:
        said.append("10 log10 of power, taken after filters and composites")
    if spec.border_px:
        said.append(f"borders darker than {spec.border_db:g} dB and joined to void within {spec.border_px} px are void")
    if spec.speckle != "none":
        said.append(
            f"speckle filter {spec.speckle}, {spec.speckle_px} x {spec.speckle_px} px, {spec.looks:g} looks: "
            f"{SOURCES[spec.speckle]}"
        )
    if said:
        attrs["comment"] = "; ".join(said)
    return attrs


SOURCES = {
    "lee": "J.-S. Lee (1980), Digital image enhancement and noise filtering by use of local statistics, "
    "IEEE Trans. Pattern Anal. Mach. Intell. 2(2)",
    "enhanced-lee": "A. Lopes, R. Touzi, E. Nezry (1990), Adaptive speckle filters and scene heterogeneity, "
    "IEEE Trans. Geosci. Remote Sens. 28(6)",
    "gamma-map": "A. Lopes, E. Nezry, R. Touzi, H. Laur (1993), Structure detection and statistical adaptive speckle "
    "filtering in SAR images, Int. J. Remote Sens. 14(9)",
}
"""Where each speckle filter was published."""


def told_apart(spec: RadarSpec, scenes: Sequence[Scene]) -> tuple[Scene, ...]:
    """The scenes with the name of the pass that they are kept apart by as their ``orbit``.

    The direction (``ascending``), or direction and track (``ascending-073``) where tracks are kept apart.

    Raises:
        ValueError: Tracks are to be kept apart, and a scene does not tell its own.
    """
    if spec.apart == "orbit":
        return tuple(scenes)
    blind = [scene.id for scene in scenes if scene.relative_orbit is None]
    if blind:
        raise ValueError(
            f"scene {blind[0]} has no relative orbit, and passes are to be kept apart by it; wanted the property "
            "sat:relative_orbit; take 'apart: orbit' for this catalog"
        )
    return tuple(replace(scene, orbit=f"{scene.orbit or 'unknown'}-{scene.relative_orbit:03d}") for scene in scenes)


def direction(orbit: str | None) -> str:
    """Direction of a pass from the name that ``told_apart`` gives it; ``unknown`` when there is none."""
    return (orbit or "unknown").partition("-")[0]


def read_backscatter(
    reader: PixelReader,
    steps: Sequence[Sequence[Scene]],
    bands: Sequence[str],
    window: Window,
    spec: RadarSpec,
    *,
    resampling: str,
    together: Sequence[str] = (),
) -> npt.NDArray[np.float32]:
    """Linear power of dims ``(time, band, y, x)`` on a window, float32, NaN = void; borders and speckle dealt with.

    Args:
        reader: See ``cube.load.PixelReader``.
        steps: Scenes of each date, in the order in which they win.
        bands: Those that come out.
        window: Where.
        spec: What is done.
        resampling: GDAL's name of the method.
        together: All bands of the source: a border must be dark in each of them, whichever come out.

    Raises:
        ReadError: A file could not be read.
    """
    import numpy as np

    from cube.radiometry import read_power

    halo = spec.halo_px
    grid = window.padded(halo)
    if not spec.border_px:
        cube = read_power(reader, steps, bands, grid, resampling=resampling)
    else:
        # The border belongs to the scene, so each is mended before it is joined to the next.
        every = tuple(together) or tuple(bands)
        cube = np.full((len(steps), len(every), *grid.shape), np.nan, np.float32)
        for turn in range(max(map(len, steps), default=0)):
            where = [index for index, step in enumerate(steps) if len(step) > turn]
            turns = [[steps[index][turn]] for index in where]
            for index, pixels in zip(where, read_power(reader, turns, every, grid, resampling=resampling), strict=True):
                hide_border(pixels, spec.border_px, spec.border_db)
                np.copyto(cube[index], pixels, where=np.isnan(cube[index]))
        cube = cube[:, [every.index(band) for band in bands]]
    if not halo:
        return cube
    inner = (slice(halo, halo + window.shape[0]), slice(halo, halo + window.shape[1]))
    if spec.speckle == "none":
        return np.ascontiguousarray(cube[(..., *inner)])
    from concurrent.futures import ThreadPoolExecutor

    out = np.empty((*cube.shape[:2], *window.shape), np.float32)

    def one(place: tuple[int, ...]) -> None:
        out[place] = despeckle(cube[place], spec)[inner]

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(one, np.ndindex(*cube.shape[:2])):
            pass
    return out


def hide_border(power: npt.NDArray[np.float32], reach_px: int, dark_db: float) -> None:
    """Void, in place, the noise at the edges of one scene, dims ``(band, y, x)``, linear power, NaN = void.

    A pixel is noise when it is dark in every band and a walk of at most ``reach_px`` such pixels, side by side, joins
    it to a place without any power. The bound makes it the same in every window with a halo of that width.
    """
    import numpy as np
    from scipy import ndimage

    void = np.isnan(power)
    nothing = void.all(axis=0)
    dark = (void | (power < 10 ** (dark_db / 10))).all(axis=0)
    if not (dark & ~nothing).any() or not nothing.any():
        return
    # The plus-shaped neighbourhood, so that speckle does not open a diagonal way into the scene.
    reached = ndimage.binary_dilation(nothing, iterations=reach_px, mask=dark)
    power[:, reached] = np.nan


def despeckle(power: npt.NDArray[np.float32], spec: RadarSpec) -> npt.NDArray[np.float32]:
    """Linear power with less speckle, float32, dims ``(y, x)``; NaN stays NaN and has no say in its neighbours.

    The outermost ``speckle_px // 2`` pixels look at a smaller square: ask for them as a halo and leave them.

    With L looks, speckle multiplies by a variable of mean 1 and variation Cu = 1/sqrt(L). The mean and variation Ci of
    the square tell how much of what varies is speckle:

    - Lee: ``m + (I - m) max(0, 1 - Cu² / Ci²)``.
    - Enhanced Lee: m where Ci is at most Cu, I where Ci is at least ``sqrt(1 + 2/L)``, between them
      ``m W + I (1 - W)`` with ``W = exp(-(Ci - Cu) / (Cmax - Ci))``.
    - Gamma MAP: as that with ``Cmax = sqrt(2) Cu``, and between them the most likely value of a gamma distribution.
    """
    import numpy as np

    half = spec.speckle_px // 2
    out = np.empty_like(power)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for top in range(0, len(power), STRIPE):
            last = min(top + STRIPE, len(power))
            first, end = max(0, top - half), min(len(power), last + half)
            stripe = power[first:end].astype(np.float64)
            known = ~np.isnan(stripe)
            stripe[~known] = 0
            rows = slice(top - first, last - first)
            number = _box(known.astype(np.float64), half)[rows]
            mean = _box(stripe, half)[rows] / number
            spread = np.maximum(_box(stripe * stripe, half)[rows] / number - mean * mean, 0)
            value = stripe[rows]
            filtered = _FILTERS[spec.speckle](value, mean, spread / (mean * mean), spec.looks)
            out[top:last] = np.where(known[rows], filtered, np.nan)
    return out


STRIPE = 128
"""Rows that are filtered at a time, so that what is between stays in the processor's cache."""


def _box(values: npt.NDArray[np.float64], half: int) -> npt.NDArray[np.float64]:
    """Sum over a square around each pixel, what lies outside counting 0.

    Term by term in the order of places: a running sum would carry the rounding of wherever it began.
    """
    import numpy as np

    for axis in (0, 1):
        widths = [(half, half) if axis == which else (0, 0) for which in (0, 1)]
        padded = np.pad(values, widths)
        n = values.shape[axis]
        total = np.zeros_like(values)
        for shift in range(2 * half + 1):
            total += padded[shift : shift + n] if axis == 0 else padded[:, shift : shift + n]
        values = total
    return values


def _lee(value: Any, mean: Any, varied: Any, looks: float) -> Any:
    import numpy as np

    weight = np.where(varied > 0, np.maximum(1 - (1 / looks) / varied, 0), 0)
    return mean + weight * (value - mean)


def _enhanced_lee(value: Any, mean: Any, varied: Any, looks: float) -> Any:
    import numpy as np

    least, most, here = 1 / math.sqrt(looks), math.sqrt(1 + 2 / looks), np.sqrt(varied)
    weight = np.exp(-(here - least) / (most - here))
    between = mean * weight + value * (1 - weight)
    return np.where(here <= least, mean, np.where(here >= most, value, between))


def _gamma_map(value: Any, mean: Any, varied: Any, looks: float) -> Any:
    import numpy as np

    noise = 1 / looks
    shape = (1 + noise) / (varied - noise)
    b = (shape - looks - 1) * mean
    between = (b + np.sqrt(np.maximum(b * b + 4 * shape * looks * value * mean, 0))) / (2 * shape)
    return np.where(varied <= noise, mean, np.where(varied >= 2 * noise, value, between))


_FILTERS = {"lee": _lee, "enhanced-lee": _enhanced_lee, "gamma-map": _gamma_map}


def to_decibel(power: npt.NDArray[np.float32]) -> None:
    """Turn linear power into decibels in place; NaN stays NaN. Power is positive (``read_power`` sees to it)."""
    import numpy as np

    np.log10(power, out=power)
    power *= np.float32(10)
