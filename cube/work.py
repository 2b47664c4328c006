"""One window in work: read, harmonised, masked, folded and cut into chips, in parts so that memory is bounded."""

from __future__ import annotations

import datetime as dt
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from cube.align import aligned
from cube.build import BUDGET_BYTES, ORBITS, OTHER_YEARS, CubeRecord, axis, variables
from cube.composite import best_order, fold, fold_chances, fold_classes, fold_values
from cube.coverage import count_clear
from cube.encoding import check_types
from cube.load import PIXEL_READERS, placed
from cube.mask import clear_mask, halo_px
from cube.quality import check_layer, lookup, percent
from cube.radar import direction, read_backscatter, to_decibel, told_apart
from cube.radiometry import read_harmonised
from cube.resample import resampling_for
from cube.steps import Step, grown, join_steps
from cube.terrain import derive, read_elevation
from cube.terrain import halo_px as terrain_halo_px
from cube.times import DateSlot, Interval, Pick, picks

if TYPE_CHECKING:
    import numpy.typing as npt

    from catalog.scene import Asset, Scene
    from cube.build import CubeData, CubeRequest
    from tiling.shards import Window

UNUSED, NEXT = -1, -2
"""Places on the time axis: none, and the next free one."""


class Work:
    """One window in work: what the steps below share."""

    def __init__(self, data: CubeData, request: CubeRequest, scenes: Sequence[Scene], window: Window) -> None:
        self.data, self.request, self.window = data, request, window
        reader = PIXEL_READERS[request.reader]
        self.reader = aligned(reader, dict(request.moved)) if request.moved else reader
        self.geobox = window.geobox
        self.px = window.shape[0] * window.shape[1]
        size = request.size_px
        self.boxes = [(slice(y, y + size), slice(x, x + size)) for y, x in window.corners]
        self.methods = methods(request, scenes)
        self.places = _chip_places(window, size, request.resolution_m)
        steps = self._near(join_steps(request, told_apart(request.radar, scenes)))
        self.steps = [step for step in steps if _within(step, request.within)]
        self.elsewhen = [step for step in steps if not _within(step, request.within)]
        check_types(request.encoding, request.bands, [scene for step in self.steps for scene in step.scenes])
        if request.quality is not None:
            check_layer(request.classes, request.quality, [scene for step in self.steps for scene in step.scenes])
        self._surveyed: list[tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]] = []
        self._known = False
        self._clear_px: list[dict[str, int]] = [{} for _ in self.boxes]

    def _near(self, steps: list[Step]) -> list[Step]:
        """Steps with a scene on the window, each with those scenes alone, in the order in which they are joined."""
        area = shapely.union_all(self.places).envelope
        halo_m = terrain_halo_px(self.request.terrain.derive, self.request.resolution_m) * self.request.resolution_m
        if halo_m:
            west, south, east, north = area.bounds
            up = halo_m / METRES_PER_DEGREE
            aside = up / math.cos(math.radians(min(max(abs(south), abs(north)), 85)))
            area = shapely.box(west - aside, south - up, east + aside, north + up)
        shapely.prepare(area)
        near = []
        for step in steps:
            there = [scene for scene in step.scenes if shapely.intersects(area, grown(scene.footprint))]
            if there:
                # Scenes of the window's own zone come first, because their pixels need no resampling.
                there.sort(key=lambda scene: (scene.epsg != self.window.epsg, scene.id))
                near.append(Step(step.time, tuple(there), step.orbit))
        return near

    # Reading

    def read(self, steps: Sequence[Step], bands: Sequence[str]) -> npt.NDArray[Any]:
        """The main variable on the window, dims ``(time, band, y, x)``, harmonised."""
        scenes = [step.scenes for step in steps]
        parts = {}
        for method in dict.fromkeys(self.methods[band] for band in bands):
            same = [band for band in bands if self.methods[band] == method]
            if self.request.kind == "reflectance":
                cube: npt.NDArray[Any] = read_harmonised(
                    self.reader, scenes, same, self.geobox, resampling=method, encoding=self.request.encoding
                )
            elif self.request.kind == "backscatter":
                cube = read_backscatter(
                    self.reader,
                    scenes,
                    same,
                    self.window,
                    self.request.radar,
                    resampling=method,
                    together=self.request.bands,
                )
            else:
                cube = np.asarray(
                    self.reader(scenes, same, self.geobox, resampling=method, dtype="float32", fill=math.nan)
                )
            parts.update({band: cube[:, i] for i, band in enumerate(same)})
            if len(same) == len(bands):
                break
        else:
            cube = np.stack([parts[band] for band in bands], axis=1)
        return cube

    def read_classes(
        self, steps: Sequence[Step]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Quality layer, clear mask and what was seen at all on the window, each ``(time, y, x)``."""
        request = self.request
        assert request.quality is not None
        table = request.classes
        halo = halo_px(request.mask, request.resolution_m)
        padded = self.window.padded(halo)
        cube = self.reader(
            [step.scenes for step in steps],
            [request.quality],
            padded,
            resampling=self.methods[request.quality],
            dtype=table.dtype if table.factor == 1 else "float32",
            fill=table.void or 0,
        )
        layer: npt.NDArray[Any] = np.asarray(cube)[:, 0]
        if table.factor != 1:
            layer = percent(layer, table)
        inner = (slice(None), slice(halo, halo + self.window.shape[0]), slice(halo, halo + self.window.shape[1]))
        clear = np.empty((len(layer), *self.window.shape), bool)

        def one(i: int) -> None:
            clear[i] = clear_mask(layer[i : i + 1], request.mask, request.resolution_m, table)[inner][0]

        _in_threads(one, range(len(layer)))
        if table.void is None:
            # 0 is an answer in this layer, and where there is no file as well: only the pixels tell what was seen.
            seen = self.valid(self.read(steps, request.bands[:1])[:, 0])
            clear &= seen
        else:
            void = lookup(table, tuple(request.mask.hide), request.mask.threshold).void
            seen = layer[inner] != table.void if void.sum() == 1 else ~void[layer[inner]]
        return layer[inner], clear, seen

    def valid(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """True where a pixel of the main variable is not void."""
        valid: npt.NDArray[np.bool_] = ~np.isnan(pixels) if pixels.dtype.kind == "f" else pixels != self.request.fill
        return valid

    def shares(self, flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Share of True of each time on each chip, dims ``(time, chip)``."""
        out = np.empty((len(flags), len(self.boxes)))

        def one(c: int) -> None:
            y, x = self.boxes[c]
            out[:, c] = np.count_nonzero(flags[:, y, x], axis=(1, 2))

        _in_threads(one, range(len(self.boxes)))
        return out / self.request.size_px**2

    def count(self, steps: Sequence[Step], layer: npt.NDArray[Any], seen: npt.NDArray[np.bool_]) -> None:
        """Remember the clear pixels of dates on each chip that they have seen, where coverage is asked for.

        Args:
            steps: The dates.
            layer: Scene classification, dims ``(time, y, x)``.
            seen: Dims ``(time, chip)``.
        """
        spec = self.request.coverage
        if spec is None:
            return

        def one(c: int) -> None:
            clear = count_clear(layer[(slice(None), *self.boxes[c])], spec.labels).clear
            for t in np.flatnonzero(seen[:, c]).tolist():
                self._clear_px[c][steps[t].scenes[0].acquisition] = int(clear[t])

        _in_threads(one, range(len(self.boxes)))

    def slices(self, n: int, bytes_per_px: int) -> Iterator[slice]:
        """Cuts n times or bands into runs that stay inside the budget, at least one in each."""
        run = max(1, BUDGET_BYTES // (self.px * bytes_per_px))
        return (slice(i, min(i + run, n)) for i in range(0, n, run))

    # Static

    def static(self) -> None:
        """All scenes joined into one image."""
        if self.request.kind == "elevation" and len(self.request.bands) == 1:
            self._terrain()
            return
        if not self.steps:
            return
        name, bands = self.request.variable, self.request.bands
        item = np.dtype(self.request.dtype).itemsize
        clear = np.ones((len(self.boxes), *(2 * [self.request.size_px])), bool)
        for part in self.slices(len(bands), 2 * item + 1):
            cube = self.read(self.steps, bands[part])[0]
            for c, (row, box) in enumerate(zip(self.window.chips, self.boxes, strict=True)):
                chip = cube[(slice(None), *box)]
                clear[c] &= self.valid(chip).all(axis=0)
                target = self.data.arrays[name][row]
                (target[None] if target.ndim == 2 else target)[part] = chip
        for c, row in enumerate(self.window.chips):
            share = float(clear[c].mean())
            used = self._names([self.steps[0]], c) if share else ()
            self.data.records[row] = CubeRecord((), used, share, int(share > 0), {})

    def _terrain(self) -> None:
        """Elevation from all tiles, and what is derived from it."""
        request, band = self.request, self.request.bands[0]
        spec = request.terrain
        halo = terrain_halo_px(spec.derive, request.resolution_m)
        scenes = self.steps[0].scenes if self.steps else ()
        elevation = read_elevation(
            self.reader,
            scenes,
            band,
            self.window.padded(halo),
            resampling=self.methods[band],
            missing=spec.missing,
        )
        inner = tuple(slice(halo, halo + side) for side in self.window.shape)
        arrays = self.data.arrays
        for name in (request.variable, *spec.derive):
            own = name == request.variable
            pixels = elevation[inner] if own else derive(elevation, name, request.resolution_m, halo)
            for row, box in zip(self.window.chips, self.boxes, strict=True):
                arrays[name][row] = pixels[box]
        for c, row in enumerate(self.window.chips):
            share = float(np.mean(self.valid(arrays[request.variable][row])))
            used = self._names(self.steps[:1], c) if share else ()
            self.data.records[row] = CubeRecord((), used, share, int(share > 0), {})

    def _names(self, steps: Sequence[Step], chip: int) -> tuple[str, ...]:
        """Ids of the scenes of steps that touch a chip."""
        place = self.places[chip]
        return tuple(
            sorted({scene.id for step in steps for scene in step.scenes if shapely.intersects(place, scene.footprint)})
        )

    def _tally(self, chip: int) -> _Tally:
        """What becomes of the dates of a chip: those of other years are told already, by their footprints."""
        tally, place = _Tally(), self.places[chip]
        for step in self.elsewhen:
            if any(shapely.intersects(place, scene.footprint) for scene in step.scenes):
                tally.fates[step.scenes[0].acquisition] = OTHER_YEARS
        return tally

    # Composites

    def composites(self) -> None:
        """Period by period, and in each the classes first and then as many bands at a time as memory allows."""
        tallies = [self._tally(c) for c in range(len(self.boxes))]
        for slot, (period, orbit) in enumerate(axis(self.request)):
            steps = [
                step
                for step in self.steps
                if step.time is not None and step.time in period and orbit in (None, step.orbit)
            ]
            if steps:
                self._composite(slot, steps, tallies)
        for c, row in enumerate(self.window.chips):
            count = self.data.arrays["count"][row]
            clear = (count > 0).mean(axis=(1, 2))
            self.data.arrays["clear"][row] = clear
            found = tallies[c].record(float(clear.mean()), self._names(tallies[c].steps, c))
            self.data.records[row] = replace(found, clear_px=self._clear_px[c])
        self._scale()

    def _scale(self) -> None:
        """The last step: what is stored, in the scale that is asked for, and how it was placed."""
        if self.request.radar.scale == "db":
            for row in self.window.chips:
                to_decibel(self.data.arrays[self.request.variable][row])
        if self.request.amplitude:
            records, band = self.data.records, self.request.bands[0]
            scenes = {scene.id: scene for step in self.steps for scene in step.scenes}
            used = {name for row in self.window.chips for name in records[row].scenes}
            told = {name: placed(scenes[name], band) for name in sorted(used)}
            for row in self.window.chips:
                how = {name: said for name in records[row].scenes if (said := told[name]) is not None}
                records[row] = replace(records[row], placed=how)

    def _angles(self, steps: Sequence[Step]) -> npt.NDArray[np.float32] | None:
        """Angle of incidence, degrees, dims ``(time, y, x)``, NaN = void; None when it is not asked for."""
        angle = self.request.angle
        if angle is None:
            return None
        cube = self.reader(
            [step.scenes for step in steps], [angle], self.geobox, resampling="bilinear", dtype="float32", fill=math.nan
        )
        pixels: npt.NDArray[np.float32] = np.asarray(cube)[:, 0]
        scale, offset = self.request.angle_scale
        return pixels if (scale, offset) == (1, 0) else pixels * np.float32(scale) + np.float32(offset)

    def _composite(self, slot: int, steps: list[Step], tallies: list[_Tally]) -> None:
        request, arrays, rows = self.request, self.data.arrays, self.window.chips
        bands = list(request.bands)
        first: npt.NDArray[Any] | None = None
        layer: npt.NDArray[Any] | None = None
        if request.quality is not None:
            layer, clear, there = self.read_classes(steps)
        else:
            first = self.read(steps, bands[:1])
            clear = there = self.valid(first[:, 0])
        seen = self.shares(there) > 0
        share = self.shares(clear)
        keep = seen & (share > 0) & (share >= request.keep.min_clear)
        for c, tally in enumerate(tallies):
            for t, step in enumerate(steps):
                tally.add(step, bool(seen[t, c]), bool(keep[t, c]), enough=False)
        if layer is not None:
            self.count(steps, layer, seen)
            # The layer tells why a pixel is void, so it is folded over the dates that were dropped as well.
            self._fold_classes(layer, clear, there, keep, slot)
        del layer, there
        used = np.flatnonzero(keep.any(axis=1))
        if not len(used):
            return
        if len(used) < len(steps):
            clear = clear[used]
            first = None if first is None else first[used]
        keep, share = keep[used], share[used]
        assert request.time is not None
        how = request.time.how_for(request.kind)
        item = np.dtype(request.dtype).itemsize
        chosen = [steps[t] for t in used]
        void = float(request.fill)
        for part in self.slices(len(bands), 2 * item * len(used)):
            cube = self._group(chosen, bands[part], bands[0], first)

            def one(c: int, cube: npt.NDArray[Any] = cube, part: slice = part) -> None:
                y, x = self.boxes[c]
                dates = np.flatnonzero(keep[:, c])
                if not len(dates):
                    return
                order = dates[best_order(share[dates, c])] if how == "best" else dates
                out = arrays[request.variable][rows[c], slot, part]
                total = arrays["count"][rows[c], slot]
                count = np.empty_like(total)
                for b in range(cube.shape[1]):
                    fold(cube[:, b, y, x], clear[:, y, x], how, out=out[b], count=count, order=order, void=void)
                    if part.start + b == 0:
                        total[...] = count
                    else:
                        np.minimum(total, count, out=total)

            _in_threads(one, range(len(rows)))
        angles = self._angles(chosen)
        if angles is None:
            return
        count = np.empty((request.size_px, request.size_px), np.uint8)
        for c, (y, x) in enumerate(self.boxes):
            order = np.flatnonzero(keep[:, c])
            if how == "best":
                order = order[best_order(share[order, c])]
            one_date = how in ("first", "best")
            out = arrays["incidence"][rows[c], slot]
            fold(angles[:, y, x], clear[:, y, x], how if one_date else "mean", out=out, count=count, order=order)

    def _group(
        self, steps: Sequence[Step], bands: Sequence[str], known: str, cube: npt.NDArray[Any] | None
    ) -> npt.NDArray[Any]:
        """Bands of steps, without reading again the one that is known."""
        if cube is None or known not in bands:
            return self.read(steps, bands)
        return cube if len(bands) == 1 else np.concatenate([cube, self.read(steps, bands[1:])], axis=1)

    def _fold_classes(
        self,
        layer: npt.NDArray[Any],
        clear: npt.NDArray[np.bool_],
        seen: npt.NDArray[np.bool_],
        keep: npt.NDArray[np.bool_],
        slot: int,
    ) -> None:
        request = self.request
        assert request.quality is not None
        out, table = self.data.arrays[request.quality], request.classes
        void = lookup(table, tuple(request.mask.hide), request.mask.threshold).void

        def one(c: int) -> None:
            y, x = self.boxes[c]
            part, target = layer[:, y, x], out[self.window.chips[c], slot]
            good = clear[:, y, x] & keep[:, c, None, None]
            if table.kind == "probability":
                fold_chances(part, good, seen[:, y, x], target)
            elif table.dtype == "uint8" and table.void == 0 and void.sum() == 1:
                fold_classes(part, good, target)
            elif table.void is not None:
                fold_values(part, good, target, void, table.void)
            else:
                # One number more stands for what was not seen.
                part = np.where(seen[:, y, x], part, np.uint16(len(void)))
                fold_values(part, good, target, np.append(void, True), 0)

        _in_threads(one, range(len(self.boxes)))

    # Series and single

    def dates(self) -> None:
        """Dates of each chip: first which ones, from the classes alone, then their pixels in slices of time."""
        request, steps, rows = self.request, self.steps, self.window.chips
        seen, share, hidden = self._survey()
        slots = np.full((len(steps), len(rows)), UNUSED)
        for c in range(len(rows)):
            for t, slot in self._choose(seen[:, c], share[:, c], hidden[:, c], rows[c]):
                slots[t, c] = slot
        least = self._least()
        used = np.zeros(slots.shape, bool)
        cursor = np.zeros(len(rows), int)
        wanted = np.flatnonzero((slots != UNUSED).any(axis=1))
        item = np.dtype(request.dtype).itemsize
        # The pixels and the reader's copy of them, the angle, classes and masks.
        layers = len(request.bands) + (request.angle is not None)
        for part in self.slices(len(wanted), 2 * item * layers + request.class_bytes):
            times = wanted[part]
            cube = self.read([steps[t] for t in times], request.bands)
            layer, clear = self._classes(times)
            angles = self._angles([steps[t] for t in times])

            def one(
                c: int,
                times: npt.NDArray[np.intp] = times,
                cube: npt.NDArray[Any] = cube,
                layer: npt.NDArray[Any] | None = layer,
                clear: npt.NDArray[np.bool_] | None = clear,
                angles: npt.NDArray[np.float32] | None = angles,
            ) -> None:
                box = self.boxes[c]
                for i, t in enumerate(times):
                    if slots[t, c] == UNUSED:
                        continue
                    slot = cursor[c] if slots[t, c] == NEXT else slots[t, c]
                    classes = None if layer is None else layer[(i, *box)]
                    open_ = None if clear is None else clear[(i, *box)]
                    pixels = cube[(i, slice(None), *box)]
                    used[t, c] = self._put(rows[c], slot, steps[t], pixels, classes, open_, least.get(slot))
                    if used[t, c] and angles is not None:
                        self.data.arrays["incidence"][rows[c], slot] = angles[(i, *box)]
                    cursor[c] += used[t, c]

            _in_threads(one, range(len(rows)))
        for c, row in enumerate(rows):
            tally = self._tally(c)
            lacking = self._lacking(used[:, c])
            dateless = self.data.slots is not None and self.data.slots[row] is None
            if lacking and cursor[c]:
                self._blank(row)
                used[:, c], cursor[c] = False, 0
            for t, step in enumerate(steps):
                enough = share[t, c] >= request.keep.min_clear and (used[t, c] or slots[t, c] == UNUSED)
                tally.add(step, bool(seen[t, c] or used[t, c]), bool(used[t, c]), bool(enough), lacking, dateless)
            clear_share = self.data.arrays["clear"][row]
            mean = float(np.nanmean(clear_share)) if cursor[c] else 0.0
            found = tally.record(mean, self._names(tally.steps, c))
            self.data.records[row] = replace(found, clear_px=self._clear_px[c])
        self._scale()

    def _least(self) -> dict[int, float]:
        """Share that must be clear at places on the time axis that do not ask for ``keep.min_clear``."""
        time, orbits = self.request.time, max(1, len(self.request.orbits))
        assert time is not None
        # Who asks for the cloudiest date does not ask that it be clear.
        cloudy = [place for place, pick in enumerate(picks(time)) if pick.choose == "cloudiest"]
        return {place * orbits + orbit: 0.0 for place in cloudy for orbit in range(orbits)}

    def _lacking(self, used: npt.NDArray[np.bool_]) -> bool:
        """Whether a chip lacks a date of an axis that is wanted complete."""
        time = self.request.time
        return time is not None and time.complete and int(used.sum()) < self.request.steps

    def _blank(self, row: int) -> None:
        """Make a chip void again."""
        for variable in variables(self.request):
            self.data.arrays[variable.name][row] = 0 if variable.fill is None else variable.fill

    def _survey(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """What was seen, and the shares that are clear and hidden, of each time on each chip, dims ``(time, chip)``."""
        request, n, c = self.request, len(self.steps), len(self.boxes)
        assert request.time is not None
        seen, share, hidden = np.zeros((n, c), bool), np.zeros((n, c)), np.zeros((n, c))
        if request.quality is None and request.time.series and not request.time.max_dates:
            # Nothing to choose by: every date is read, and its pixels decide.
            return seen, np.ones((n, c)), hidden
        kept = 1 + (0 if request.quality is None else np.dtype(request.classes.dtype).itemsize)
        self._known = n * self.px * kept <= BUDGET_BYTES // 4
        item = np.dtype(request.dtype).itemsize
        for part in self.slices(n, request.class_bytes if request.quality is not None else 2 * item + 1):
            if request.quality is not None:
                layer, clear, there = self.read_classes(self.steps[part])
                seen[part] = self.shares(there) > 0
                share[part] = self.shares(clear)
                hidden[part] = self.shares(there & ~clear)
                self.count(self.steps[part], layer, seen[part])
                if self._known:
                    self._surveyed.append((layer, clear))
            else:
                valid = self.valid(self.read(self.steps[part], request.bands[:1])[:, 0])
                share[part] = self.shares(valid)
                seen[part] = share[part] > 0
        return seen, share, hidden

    def _classes(self, times: npt.NDArray[np.intp]) -> tuple[npt.NDArray[Any] | None, npt.NDArray[np.bool_] | None]:
        """Classes and clear mask of some times: kept from the survey where memory allowed it."""
        if self.request.quality is None:
            return None, None
        if not self._surveyed:
            return self.read_classes([self.steps[t] for t in times])[:2]
        if len(self._surveyed) > 1:
            self._surveyed = [tuple(np.concatenate(part) for part in zip(*self._surveyed, strict=True))]  # type: ignore[list-item]
        layer, clear = self._surveyed[0]
        return layer[times], clear[times]

    def _choose(
        self,
        seen: npt.NDArray[np.bool_],
        share: npt.NDArray[np.float64],
        hidden: npt.NDArray[np.float64],
        row: int,
    ) -> Iterator[tuple[int, int]]:
        """Positions of the times that the chip in ``row`` uses, with their place on the time axis."""
        request = self.request
        time, least = request.time, request.keep.min_clear
        assert time is not None
        if time.series:
            if request.quality is None and not time.max_dates:
                seen = np.ones_like(seen)
            fit = np.flatnonzero(seen & (share >= least))
            if time.max_dates is not None:
                fit = np.sort(fit[best_order(share[fit])][: time.max_dates])
            yield from ((int(t), NEXT) for t in fit)
            return
        chosen: dict[int, int] = {}
        for slot, (pick, place, orbit) in enumerate(
            (pick, place, orbit)
            for pick, place in zip(picks(time), self._date_slots(row), strict=True)
            for orbit in request.orbits or (None,)
        ):
            enough = hidden > 0 if pick.choose == "cloudiest" else share >= least
            away = [place.away(step.time) for step in self.steps]  # type: ignore[arg-type]
            fit = np.array(
                [
                    t
                    for t, step in enumerate(self.steps)
                    if seen[t] and enough[t] and t not in chosen and orbit in (None, step.orbit) and away[t] is not None
                ],
                np.intp,
            )
            if len(fit):
                chosen[self._pick(pick, away, fit, share, hidden)] = slot
        if not time.complete or len(chosen) == request.steps:
            yield from chosen.items()

    def _date_slots(self, row: int) -> Sequence[DateSlot]:
        """Where a chip looks for each of its dates; places without a window where it has none."""
        request = self.request
        assert request.time is not None
        if request.time.by_chip:
            assert self.data.slots is not None  # a plan with such an axis has them
            return self.data.slots[row] or (DateSlot((), ()),) * len(picks(request.time))
        anywhen = Interval(dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC))
        windows = request.periods or (anywhen,)
        targets = [pick.target or window.start for pick, window in zip(picks(request.time), windows, strict=True)]
        return [DateSlot((window,), (target,)) for window, target in zip(windows, targets, strict=True)]

    def _pick(
        self,
        pick: Pick,
        away: Sequence[dt.timedelta | None],
        fit: npt.NDArray[np.intp],
        share: npt.NDArray[np.float64],
        hidden: npt.NDArray[np.float64],
    ) -> int:
        """The one of the times ``fit`` that a place on the time axis asks for; the earlier where two are alike."""
        if pick.choose == "clearest":
            return int(fit[best_order(share[fit])[0]])
        if pick.choose == "cloudiest":
            return int(fit[best_order(hidden[fit])[0]])
        if pick.choose == "newest":
            return int(fit[-1])
        return min((int(t) for t in fit), key=lambda t: away[t])  # type: ignore[arg-type,return-value]

    def _put(
        self,
        row: int,
        slot: int,
        step: Step,
        pixels: npt.NDArray[Any],
        classes: npt.NDArray[Any] | None,
        clear: npt.NDArray[np.bool_] | None,
        least: float | None,
    ) -> bool:
        """Write one date of one chip, unless it is void or its pixels turn out not clear enough.

        Not clear enough is below ``least``, or below what the request keeps.
        """
        request, arrays = self.request, self.data.arrays
        valid = self.valid(pixels)
        if not valid.any():
            return False
        good = valid.all(axis=0)
        if clear is not None:
            good &= clear
        share = float(good.mean())
        if share < (request.keep.min_clear if least is None else least):
            return False
        if slot >= request.steps:
            raise ValueError(
                f"source {request.name} has more dates on a chip than the {request.steps} steps of its time axis; "
                "wanted the number that steps_needed gives for all scenes and chips"
            )
        arrays[request.variable][row, slot] = np.where(good, pixels, request.fill) if request.apply_mask else pixels
        if classes is not None:
            assert request.quality is not None
            arrays[request.quality][row, slot] = classes
            arrays["clear_mask"][row, slot] = good
        arrays["clear"][row, slot] = share
        assert step.time is not None
        arrays["acquired"][row, slot] = np.datetime64(step.time.astimezone(dt.UTC).replace(tzinfo=None), "s")
        if "orbit" in arrays:
            arrays["orbit"][row, slot] = ORBITS[direction(step.orbit)]
        if "relative_orbit" in arrays:
            arrays["relative_orbit"][row, slot] = step.scenes[0].relative_orbit
        return True


class _Tally:
    """What becomes of the dates of one chip."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.fates: dict[str, str] = {}

    def add(
        self, step: Step, seen: bool, used: bool, enough: bool, lacking: bool = False, dateless: bool = False
    ) -> None:
        if not seen:
            return
        if dateless:
            reason = "no day of its own"
        elif not enough:
            reason = "not clear enough"
        else:
            reason = "the other dates are missing" if lacking else "not chosen"
        self.fates[step.scenes[0].acquisition] = "" if used else reason
        if used:
            self.steps.append(step)

    def record(self, clear: float, scenes: tuple[str, ...]) -> CubeRecord:
        dates = tuple(step.time for step in self.steps if step.time is not None)
        dropped = dict(Counter(reason for reason in self.fates.values() if reason))
        seen = len(self.fates) - dropped.get(OTHER_YEARS, 0)
        return CubeRecord(dates, scenes, clear, seen, dropped, fates=self.fates)


def _within(step: Step, spans: Sequence[Interval]) -> bool:
    """Whether a step lies in one of the spans, where there are any; what has no time lies everywhere."""
    return not spans or step.time is None or any(step.time in span for span in spans)


def _in_threads(work: Callable[[int], None], items: Iterable[int]) -> None:
    """Run on all cores: what is run here spends its time outside the GIL."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, items):
            pass


def methods(request: CubeRequest, scenes: Sequence[Scene]) -> dict[str, str]:
    """Resampling of every band, from the pixel size of the first scene (by id) that has it."""
    asked = dict(request.resampling)
    found: dict[str, float] = {}
    for scene in sorted(scenes, key=lambda scene: scene.id):
        for asset in scene.assets:
            if asset.band not in found:
                found[asset.band] = _pixel_m(asset)
    chosen_methods = {
        band: resampling_for(request.kind, asked.get(band), source_m=found.get(band), target_m=request.resolution_m)
        for band in request.bands
    }
    if request.quality is not None:
        # Files call a probability of 0 void, and a majority would leave it out: one pixel speaks for all then.
        chance = request.classes.kind == "probability"
        chosen_methods[request.quality] = resampling_for(
            "classes",
            asked.get(request.quality) or ("nearest" if chance else None),
            source_m=found.get(request.quality),
            target_m=request.resolution_m,
        )
    return chosen_methods


METRES_PER_DEGREE = 111_320
"""Along a meridian and the equator; enough to tell coarser from finer."""


AMPLITUDE_PX_M = 10.0
"""Side of a pixel of a file with control points and no grid: that of Sentinel-1 IW GRDH, the one collection of them."""


def _pixel_m(asset: Asset) -> float:
    """Side of a pixel in metres, from south to north."""
    if asset.transform == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0):
        return AMPLITUDE_PX_M
    step = abs(asset.transform[4])
    return step * METRES_PER_DEGREE if _in_degrees(asset.epsg, asset.wkt) else step


@lru_cache(maxsize=64)
def _in_degrees(epsg: int, wkt: str | None) -> bool:
    """Whether a CRS, given by its code or else in words, has degrees and not metres."""
    from pyproj import CRS

    geographic: bool = CRS.from_user_input(epsg or wkt).is_geographic
    return geographic


def _chip_places(window: Window, size_px: int, resolution_m: float) -> list[shapely.Geometry]:
    """Outlines of the chips of a window, EPSG:4326."""
    from pyproj import Transformer

    corners = np.array(window.corners, float)
    left, top = window.bounds[0] + corners[:, 1] * resolution_m, window.bounds[3] - corners[:, 0] * resolution_m
    side = size_px * resolution_m
    x = left[:, None] + np.array([0, side, side, 0])
    y = top[:, None] - np.array([0, 0, side, side])
    lon, lat = Transformer.from_crs(window.epsg, 4326, always_xy=True).transform(x, y)
    return [shapely.Polygon(np.column_stack(ring)) for ring in zip(lon, lat, strict=True)]
