"""Where a pixel of a file lies that has ground control points and no grid, as Sentinel-1 GRD has.

A plane through the points (GDAL's default in many tools) misses by kilometres: of Sentinel-1 GRD by 2008 m, a second
order by 52 m, a third by 1.7 m, a thin-plate spline by 0.3 m (measured in titiler-openeo issue 343). So the choice here
is between a spline and a third order, by what each says about a point that was kept from it; nothing coarser is fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

Point = tuple[float, float, float, float]
"""Column and row in the file (0.5 is the centre of the first pixel), and x and y in the CRS of the points."""

LEAST_POINTS = 20
"""Twice the ten terms of a third order: with fewer, nothing tells how good it is."""
SPLINE_POINTS = 2000
"""A spline through more points costs more than it says; Sentinel-1 has 210, and no product has ten times that."""
WORST_RMS_PX = 20.0
"""More than this is no geolocation: of a pixel of 10 m 200 m, ten times what the worst real product shows."""

_POWERS = tuple((i, j) for i in range(4) for j in range(4 - i))


@dataclass(frozen=True)
class Placement:
    """From coordinates to pixels of a file, by control points."""

    method: str
    """``thin-plate spline`` or ``third order``."""
    points: int
    """How many control points it is made of."""
    rms_px: float
    """Root mean square of the error at each point when that point is left out, pixels of the file. At the edges this
    extrapolates, so between the points the error is smaller."""
    worst_px: float
    """Largest of these errors."""
    at: npt.NDArray[np.float64]
    """The points' coordinates, scaled, dims ``(point, 2)``."""
    weights: npt.NDArray[np.float64]
    """Of the terms, dims ``(term, 2)``."""
    middle: tuple[float, float]
    scale: tuple[float, float]

    def pixels(
        self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Column and row of places given in the CRS of the points; any shape, also outside the file."""
        place = np.column_stack(
            [(x.ravel() - self.middle[0]) / self.scale[0], (y.ravel() - self.middle[1]) / self.scale[1]]
        )
        out = np.empty_like(place)
        # So many at a time that the distances to all points stay small.
        for first in range(0, len(place), 4096):
            part = place[first : first + 4096]
            terms = _bends(part, self.at) if self.method == SPLINE else _cubic(part)
            out[first : first + 4096] = terms @ self.weights
        return out[:, 0].reshape(x.shape), out[:, 1].reshape(x.shape)

    def __str__(self) -> str:
        return (
            f"{self.method} through {self.points} control points, "
            f"{self.rms_px:.2g} px rms and {self.worst_px:.2g} px at most where a point is left out"
        )


SPLINE, CUBIC = "thin-plate spline", "third order"


@lru_cache(maxsize=64)
def place(points: tuple[Point, ...]) -> Placement:
    """The better of a thin-plate spline and a third order through control points.

    Raises:
        ValueError: Too few points, points in one place or in a line, or points that contradict each other.
    """
    if len(points) < LEAST_POINTS:
        raise ValueError(f"it has {len(points)} control points, wanted {LEAST_POINTS} or more to place it")
    table = np.array(points, float)
    pixel, ground = table[:, :2], table[:, 2:]
    if not np.isfinite(table).all():
        raise ValueError("its control points are not all numbers")
    middle = ground.mean(axis=0)
    half = np.ptp(ground, axis=0) / 2
    if not (half > 0).all():
        raise ValueError("its control points lie on one line")
    # Degrees of longitude are shorter than those of latitude; a spline should bend alike in all directions. Where both
    # are stretched onto pixels they are alike, so one scale for each axis, from the extent in pixels, does it.
    scaled = (ground - middle) / half
    extent = np.linalg.lstsq(np.column_stack([scaled, np.ones(len(scaled))]), pixel, rcond=None)[0]
    stretch = np.linalg.norm(extent[:2], axis=1)
    if not (stretch > 0).all():
        raise ValueError("its control points lie in one place of the file")
    half = half / (stretch / stretch.max())
    scaled = (ground - middle) / half
    found = [fit for fit in (_spline(scaled, pixel), _third_order(scaled, pixel)) if fit is not None]
    if not found:
        raise ValueError("its control points lie on one line, or twice in one place")
    method, weights, left_out = min(found, key=lambda fit: float(np.square(fit[2]).sum()))
    error = np.hypot(*left_out.T)
    rms = math.sqrt(float(np.mean(error**2)))
    if rms > WORST_RMS_PX:
        raise ValueError(
            f"its control points contradict each other by {rms:.3g} pixels; wanted {WORST_RMS_PX:g} at most"
        )
    return Placement(
        method,
        len(points),
        rms,
        float(error.max()),
        scaled,
        weights,
        (float(middle[0]), float(middle[1])),
        (float(half[0]), float(half[1])),
    )


_Fit = tuple[str, "npt.NDArray[np.float64]", "npt.NDArray[np.float64]"]


def _bends(place: npt.NDArray[np.float64], at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Terms of a thin-plate spline, dims ``(place, point + 3)``: r² log r of each point, 1, x, y (Bookstein 1989)."""
    square = (place[:, None, 0] - at[None, :, 0]) ** 2 + (place[:, None, 1] - at[None, :, 1]) ** 2
    # Half of it, and 0 log 0 = 0.
    bend = square * np.log(np.where(square > 0, square, 1))
    return np.column_stack([bend, np.ones(len(place)), place])


def _spline(ground: npt.NDArray[np.float64], pixel: npt.NDArray[np.float64]) -> _Fit | None:
    """The spline through all points. It meets each, so its error is what it says without that point: by Rippa (1999),
    the point's weight over the diagonal of the inverse."""
    n = len(ground)
    if n > SPLINE_POINTS:
        return None
    system = np.zeros((n + 3, n + 3))
    system[:n] = _bends(ground, ground)
    system[n:, :n] = system[:n, n:].T
    if np.linalg.cond(system) > 1e12:
        return None
    inverse = np.linalg.inv(system)
    weights = inverse[:, :n] @ pixel
    return SPLINE, weights, weights[:n] / np.diag(inverse)[:n, None]


def _cubic(place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The ten terms of a third order in two variables, dims ``(place, 10)``."""
    return np.column_stack([place[:, 0] ** i * place[:, 1] ** j for i, j in _POWERS])


def _third_order(ground: npt.NDArray[np.float64], pixel: npt.NDArray[np.float64]) -> _Fit | None:
    """Least squares; the error without a point is its residual over one less its leverage."""
    terms = _cubic(ground)
    if np.linalg.cond(terms) > 1e10:
        return None
    weights = np.linalg.lstsq(terms, pixel, rcond=None)[0]
    q = np.linalg.qr(terms)[0]
    leverage: npt.NDArray[np.float64] = np.minimum(np.square(q).sum(axis=1), 1 - 1e-9)
    left_out: npt.NDArray[np.float64] = (pixel - terms @ weights) / (1 - leverage)[:, None]
    return CUBIC, np.asarray(weights, np.float64), left_out
