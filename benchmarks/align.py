"""How well known shifts are measured: the simulated world moved by parts of a pixel, under noise, clouds and seasons.

The ground is computed at the moved places and averaged over each pixel; nothing is resampled, so the truth is exact.
For each size of chip and each kind of pair: how many were measured, and of those the bias (y, x), the root mean square
and the 95th percentile of the error along one axis, all in pixels; the error over what the chip said of itself (1 is
honest); and the milliseconds a chip took.

    python benchmarks/align.py --chips 40 --figures errors.csv
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation

from cube.align import Shift, measure_shift
from simulate.view import view as sensed
from simulate.world import Raster, WorldSpec

SPEC = WorldSpec(seed=7, size_px=704, dates=8)
SPRING, CLOUDED, SUMMER = 0, 1, 7
"""Acquisitions of 3 April, 26 April (a third clouded) and 24 August."""
EPSG, CENTRE = 32633, (650_000, 5_352_000)
AREA_PX = 300
"""Chips lie within so many pixels of the centre."""


class Case(NamedTuple):
    """A kind of pair."""

    name: str
    date: int
    bands: tuple[Sequence[int], Sequence[int]]
    """Of the reference and of the image: 0 is red, 1 near infrared."""
    noise_dn: float
    clouds: bool = False


CASES = (
    Case("same date", SPRING, ([0], [0]), 10),
    Case("strong noise", SPRING, ([0], [0]), 100),
    Case("red against infrared", SPRING, ([0], [1]), 10),
    Case("April to August, one band", SUMMER, ([0], [0]), 10),
    Case("April to August, two bands", SUMMER, ([0, 1], [0, 1]), 10),
    Case("clouds masked, two bands", CLOUDED, ([0, 1], [0, 1]), 10, clouds=True),
)


def view(
    corner: tuple[float, float], size: int, date: int, *, dy: float = 0, dx: float = 0, clouds: bool = False
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Red and near infrared ``(2, size, size)``, and what is clear, of the ground moved by dy, dx pixels."""
    raster = Raster(EPSG, *corner, 10, 10, (size, size))
    return sensed(SPEC, date, raster, moved_m=(dx * 10, -dy * 10), clouds=clouds)


class Trial(NamedTuple):
    """One chip, moved by a known shift and measured."""

    known: tuple[float, float]
    found: Shift
    seconds: float


def trials(case: Case, size: int, chips: int, rng: np.random.Generator) -> list[Trial]:
    """Chips at places drawn by chance, each moved by up to 1.8 pixels; those under a cloud are not drawn."""
    done: list[Trial] = []
    while len(done) < chips:
        x, y = rng.integers(-AREA_PX, AREA_PX, 2) * 10
        corner = (CENTRE[0] + float(x), CENTRE[1] + float(y))
        dy, dx = (float(part) for part in rng.uniform(-1.8, 1.8, 2))
        image, clear = view(corner, size, case.date, dy=dy, dx=dx, clouds=case.clouds)
        valid = ~binary_dilation(~clear, iterations=2)
        if valid.mean() < 0.4:
            continue
        reference = view(corner, size, SPRING)[0]
        pair = [
            pixels[list(bands)] + rng.normal(0, case.noise_dn, (len(bands), size, size))
            for pixels, bands in zip((reference, image), case.bands, strict=True)
        ]
        start = time.perf_counter()
        found = measure_shift(pair[0], pair[1], valid, max_shift_px=2)
        done.append(Trial((dy, dx), found, time.perf_counter() - start))
    return done


def line(case: Case, size: int, done: Sequence[Trial]) -> str:
    """What came out of one kind of pair on one size of chip."""
    good = [trial for trial in done if trial.found.measured]
    head = f"{size:4d} px  {case.name:28s}{len(good):4d} of {len(done)}"
    if not good:
        return head
    wrong = np.array([(t.found.dy - t.known[0], t.found.dx - t.known[1]) for t in good])
    told = wrong / np.array([t.found.error_px for t in good])[:, None]
    return (
        f"{head}  bias {wrong[:, 0].mean():+.3f} {wrong[:, 1].mean():+.3f}  rms {np.sqrt(np.mean(wrong**2)):.3f}"
        f"  p95 {np.quantile(np.abs(wrong), 0.95):.3f}  over told {np.sqrt(np.mean(told**2)):.1f}"
        f"  {1000 * np.median([t.seconds for t in good]):.0f} ms"
    )


def main() -> None:
    """Run all cases and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=30, help="chips a case")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256], help="sides of chips in pixels")
    parser.add_argument("--figures", help="CSV file for every single shift, known and measured")
    options = parser.parse_args()
    rows: list[tuple[Any, ...]] = []
    for size in options.sizes:
        for number, case in enumerate(CASES):
            # A line is the same whichever others are asked for.
            done = trials(case, size, options.chips, np.random.default_rng([size, number]))
            print(line(case, size, done), flush=True)
            rows += [(size, case.name, *t.known, t.found.dy, t.found.dx, t.found.error_px) for t in done]
    if options.figures:
        with open(options.figures, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("size_px", "case", "known_dy", "known_dx", "dy", "dx", "error_px"))
            writer.writerows(rows)


if __name__ == "__main__":
    main()
