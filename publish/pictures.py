"""Chips as pictures: which colours a source is shown in, how its numbers become 8 bits, and what void looks like.

Void is never black, because black is a measurement too: it is hatched in a neutral grey. Numbers are stretched between
percentiles of a sample of the dataset and not of the chip, so that two chips can be compared.
"""

from __future__ import annotations

import colorsys
import datetime as dt
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from chips.layout import Layout, Variable
from curate.errors import InputError
from publish.written import WrittenDataset

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

Look = Literal["true-colour", "false-colour", "sar", "hillshade", "label"]
"""What ``curate show --as`` asks for."""
Kind = Literal["bands", "radar", "relief", "ramp", "classes", "bits", "ids", "presence"]

PERCENTILES = (2.0, 98.0)
"""Of the valid pixels of a sample: what is black and what is white."""
SAMPLE_CHIPS = 24
"""Chips that the percentiles are taken from, spread over the dataset."""
SHOWN_RISE = 0.5
"""Metres a metre that the steep slopes of a flat dataset are exaggerated to in its relief, about 27 degrees."""
TRUE_COLOUR = "true colour"
LABELS = "label"
IN_A_ROW = 5
"""Pictures side by side on a sheet."""
CHANNELS = 4
"""Channels of one label that are shown."""

# Standard colours of Sentinel-2's scene classification, as in ESA's Sen2Cor and SNAP.
SCL_COLOURS = {
    0: "#000000", 1: "#ff0000", 2: "#2f2f2f", 3: "#643200", 4: "#00a000", 5: "#ffe65a", 6: "#0000ff", 7: "#808080",
    8: "#c0c0c0", 9: "#ffffff", 10: "#64c8ff", 11: "#ff96ff",
}  # fmt: skip

# K. Tol, Colour Schemes (SRON/EPS/TN/09-002, 2021), "bright" without its grey and "muted": told apart by colour-blind
# readers too. Further classes take hues at golden-ratio steps.
DISTINCT = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ddcc77", "#332288", "#88ccee", "#44aa99",
    "#117733", "#999933", "#cc6677", "#882255",
)  # fmt: skip

# What bits of a quality layer are shown as, first that holds wins.
_BIT_COLOURS = {
    "cloud": "#ffffff", "cloud_shadow": "#643200", "shadow": "#643200", "cirrus": "#64c8ff", "dilated_cloud": "#d8d8d8",
    "snow": "#ff96ff", "water": "#0000ff", "clear": "#00a000", "nothing": "#808080", "fill": "#000000",
}  # fmt: skip

# What a quality layer calls pixels without a measurement.
_VOID_WORDS = {"fill", "no data", "no_data", "nodata", "void"}

_LIGHT, _DARK = 214, 178
_HATCH_PX = 4


@dataclass(frozen=True, slots=True)
class View:
    """One way to show a source or a label."""

    variable: Variable
    kind: Kind
    title: str
    """``s2 · true colour``."""
    bands: tuple[int, ...] = ()
    """Positions along ``band`` that become red, green and blue; one for a grey picture."""
    main: bool = True
    """False for masks, counts and what is derived: shown by ``curate show``, left out of reports."""

    @property
    def group(self) -> str:
        """Source, or ``label``."""
        return self.variable.group

    @property
    def look(self) -> Look | None:
        """What it is asked for by; None for the others, as masks and slopes."""
        if self.group == LABELS:
            return "label"
        if self.kind == "radar":
            return "sar"
        if self.kind == "relief" or self.variable.name == "hillshade":
            return "hillshade"
        return "true-colour" if TRUE_COLOUR in self.title else "false-colour" if self.kind == "bands" else None


@dataclass(frozen=True, slots=True)
class Picture:
    """A chip in colours."""

    title: str
    rgb: npt.NDArray[np.uint8]
    """``(y, x, 3)``; whatever where void."""
    void: npt.NDArray[np.bool_]
    """``(y, x)``: nothing was measured there."""
    note: str = ""
    """Date and range, for the line below the title."""
    legend: tuple[tuple[str, str], ...] = ()
    """(name, ``#rrggbb``) of the classes that are in the picture."""
    smooth: bool = True
    """Whether colours may be averaged when it is made smaller; never for classes."""

    def image(self, side_px: int | None = None) -> Image.Image:
        """The picture as an RGB image of this width and height, or as large as the chip, with void hatched."""
        import numpy as np
        from PIL import Image

        image, hole = Image.fromarray(self.rgb, "RGB"), Image.fromarray(self.void.astype(np.uint8) * 255, "L")
        if side_px is not None and image.size != (side_px, side_px):
            down = Image.Resampling.BOX if self.smooth and side_px < image.width else Image.Resampling.NEAREST
            image = image.resize((side_px, side_px), down)
            hole = hole.resize((side_px, side_px), Image.Resampling.NEAREST)
        image.paste(hatch(image.height, image.width), mask=hole)
        return image

    def png(self) -> bytes:
        """The picture in the chip's own pixels as PNG with an alpha channel: void is transparent."""
        import numpy as np
        from PIL import Image

        alpha = np.where(self.void, 0, 255).astype(np.uint8)
        return _encoded(Image.fromarray(np.dstack([self.rgb, alpha]), "RGBA"), "PNG")


@dataclass(slots=True)
class Gallery:
    """Pictures of the chips of one dataset; remembers the stretch of each source."""

    dataset: WrittenDataset
    _limits: dict[tuple[str, str, tuple[int, ...]], list[tuple[float, float]]] = field(default_factory=dict)
    _legends: dict[tuple[str, str], dict[int, tuple[str, str]]] = field(default_factory=dict)

    @property
    def views(self) -> tuple[View, ...]:
        """Every way to show this dataset, sources first."""
        return views(self.dataset.layout)

    def picture(self, chip: int, view: View, *, date: dt.date | None = None) -> Picture:
        """A chip in one view.

        Args:
            chip: Position along ``chip``.
            view: One of ``views``.
            date: Of the time steps the one that holds this day or else lies nearest to it; without it the clearest.
        """
        step, when = self.step(chip, view.variable, date)
        values = self._values(chip, view, step)
        draw = {
            "bands": self._bands, "radar": self._radar, "relief": self._relief, "ramp": self._ramp,
            "classes": self._classes, "bits": self._bits, "ids": _ids, "presence": _presence,
        }[view.kind]  # fmt: skip
        picture = draw(view, values)
        note = " · ".join(part for part in (when, picture.note) if part)
        return replace(picture, title=view.title, note=note)

    def step(self, chip: int, variable: Variable, date: dt.date | None = None) -> tuple[int | None, str]:
        """Position along ``time`` of the step to show, and what to call it; None where there is no time."""
        import numpy as np

        if "time" not in variable.dims:
            return None, ""
        group = variable.group
        steps, named = self._steps(chip, group)
        if not steps:
            return 0, ""
        if date is not None:
            day = dt.datetime(date.year, date.month, date.day)
            away = [0.0 if a <= day < b else min(abs((a - day).days), abs((b - day).days)) + 0.5 for a, b in steps]
            chosen = int(np.argmin(away))
        else:
            clear = next((v for v in self.dataset.layout.of(group) if v.name == "clear"), None)
            share = np.nan_to_num(self.dataset.values(clear, chip)[: len(steps)]) if clear else np.zeros(len(steps))
            chosen = int(np.argmax(share))
        return chosen, named[chosen]

    def _steps(self, chip: int, group: str) -> tuple[list[tuple[dt.datetime, dt.datetime]], list[str]]:
        """Begin and end of the time steps that the chip has, and their names."""
        begins, ends = (self.dataset.coordinate(group, name) for name in ("time", "time_end"))
        orbits = self.dataset.coordinate(group, "orbit")
        if begins is None:
            acquired = next((v for v in self.dataset.layout.of(group) if v.name == "acquired"), None)
            if acquired is None:
                return [], []
            seconds = [int(s) for s in self.dataset.values(acquired, chip).astype("int64") if s > -(2**62)]
            days = [dt.datetime.fromtimestamp(s, dt.UTC).replace(tzinfo=None) for s in seconds]
            spans = [(day.replace(hour=0, minute=0, second=0), day + dt.timedelta(seconds=1)) for day in days]
            return spans, [f"{day:%Y-%m-%d}" for day in days]
        starts = [dt.datetime.fromisoformat(str(begin)) for begin in begins]
        stops = [dt.datetime.fromisoformat(str(end)) for end in ends or begins]
        names = [_period(start, stop) for start, stop in zip(starts, stops, strict=True)]
        if orbits:
            names = [f"{name} {orbit}" for name, orbit in zip(names, orbits, strict=True)]
        return list(zip(starts, stops, strict=True)), names

    def _values(self, chip: int, view: View, step: int | None) -> npt.NDArray[Any]:
        """Numbers of a view, ``(layer, y, x)``: stored ones of classes, else physical ones with NaN where void."""
        import numpy as np

        variable = view.variable
        values = self.dataset.values(variable, chip, *(() if step is None else (step,)))
        values = values[np.newaxis] if values.ndim == 2 else values
        if view.bands:
            values = values[list(view.bands)]
        if view.kind in ("classes", "bits", "ids", "presence"):
            return values
        return physical(values, variable)

    def _bands(self, view: View, values: npt.NDArray[Any]) -> Picture:
        limits = self.limits(view)
        rgb, void = colours(values, limits)
        return Picture("", rgb, void, _ranges(limits))

    def _radar(self, view: View, values: npt.NDArray[Any]) -> Picture:
        composite = radar_layers(values, decibel=_is_db(view.variable))
        limits = self.limits(view)
        rgb, void = colours(composite, limits)
        return Picture("", rgb, void, f"{_ranges(limits)} dB")

    def _relief(self, view: View, values: npt.NDArray[Any]) -> Picture:
        import numpy as np

        elevation = values[0]
        group = self.dataset.group(view.group)
        void = np.isnan(elevation)
        times = self._exaggeration(view)
        shade = relief(elevation, float(group.attrs.get("resolution_m", 10.0)), times)
        grey = stretch(shade, 0.0, 1.0)
        note = "" if void.all() else f"{np.nanmin(elevation):.0f}…{np.nanmax(elevation):.0f} m"
        note += f", heights x {times:g}" if note and times > 1 else ""
        return Picture("", np.dstack([grey] * 3), void, note)

    def _ramp(self, view: View, values: npt.NDArray[Any]) -> Picture:
        limits = self.limits(view)
        rgb, void = colours(values[:1], limits)
        if view.variable.name == "count":
            void = values[0] == 0  # never seen clear: nothing is there to look at
        unit = str(view.variable.attrs.get("units", ""))
        return Picture("", rgb, void, f"{_ranges(limits)} {unit if unit != '1' else ''}".strip())

    def _classes(self, view: View, values: npt.NDArray[Any]) -> Picture:
        import numpy as np

        legend = self.legend(view.variable)
        codes = values[0]
        void = np.isin(codes, _void_codes(view.variable, legend))
        rgb, there = paint(codes, void, {code: colour for code, (_, colour) in legend.items()})
        found = tuple((legend[code][0], legend[code][1]) for code in there if code in legend)
        return Picture("", rgb, void, legend=found, smooth=False)

    def _bits(self, view: View, values: npt.NDArray[Any]) -> Picture:
        import numpy as np

        attrs = view.variable.attrs
        rows = zip(attrs["flag_meanings"].split(), attrs["flag_masks"], attrs["flag_values"], strict=True)
        rules = {name: (mask, value) for name, mask, value in rows}
        shown = [name for name in _BIT_COLOURS if name in rules]
        codes = np.full(values[0].shape, len(shown), np.int64)
        for position in range(len(shown) - 1, -1, -1):
            mask, value = rules[shown[position]]
            codes[values[0] & mask == value] = position
        palette = {position: _BIT_COLOURS[name] for position, name in enumerate(shown)}
        rgb, there = paint(codes, np.zeros(codes.shape, bool), {**palette, len(shown): "#808080"})
        names = [*shown, "other"]
        void = np.isin(codes, [position for position, name in enumerate(shown) if name in _VOID_WORDS])
        seen = [code for code in there if names[code] not in _VOID_WORDS]
        legend = tuple((names[code].replace("_", " "), palette.get(code, "#808080")) for code in seen)
        return Picture("", rgb, void, legend=legend, smooth=False)

    def legend(self, variable: Variable) -> dict[int, tuple[str, str]]:
        """Code -> (name, ``#rrggbb``) of a variable of classes."""
        key = variable.key
        if key not in self._legends:
            self._legends[key] = legend_of(variable, self._codes_of(variable))
        return self._legends[key]

    def _codes_of(self, variable: Variable) -> Sequence[int]:
        """Codes that the index knows of a label without a legend."""
        column = f"{variable.name}_shares"
        if "flag_values" in variable.attrs or column not in self.dataset.table.column_names:
            return ()
        shares = self.dataset.table[column].combine_chunks()
        return sorted(int(code) for code in shares.keys.unique().to_pylist())

    def limits(self, view: View) -> list[tuple[float, float]]:
        """What is black and what is white of each layer of a view, from a sample of the dataset."""
        key = (view.group, view.variable.name, view.bands)
        if key not in self._limits:
            self._limits[key] = self._measured(view)
        return self._limits[key]

    def _measured(self, view: View) -> list[tuple[float, float]]:
        import numpy as np

        layers: list[list[npt.NDArray[Any]]] = []
        for chip in spread(self._filled(), SAMPLE_CHIPS):
            step, _ = self.step(chip, view.variable)
            values = self._values(chip, view, step)
            if view.kind == "radar":
                values = radar_layers(values, decibel=_is_db(view.variable))
            layers = layers or [[] for _ in values]
            for layer, pixels in zip(layers, values, strict=True):
                layer.append(pixels[np.isfinite(pixels)])
        pooled = [np.concatenate(layer) for layer in layers]
        if view.title.endswith(TRUE_COLOUR):
            return [limits(np.concatenate(pooled))] * len(pooled)  # one range for all, or hues would not be true
        if view.kind == "ramp" and (view.group == LABELS or view.variable.name == "count"):
            return [limits(np.append(pixels, 0), (0, 100)) for pixels in pooled]
        return [limits(pixels) for pixels in pooled]

    def _exaggeration(self, view: View) -> float:
        """By how much heights are multiplied so that the relief of this dataset shows: 1 in mountains, 20 at most."""
        import numpy as np

        key = (view.group, view.variable.name, (-1,))
        if key not in self._limits:
            resolution_m = float(self.dataset.group(view.group).attrs.get("resolution_m", 10.0))
            rises = []
            for chip in spread(self._filled(), SAMPLE_CHIPS):
                rises += [np.abs(rise) / resolution_m for rise in np.gradient(self._values(chip, view, None)[0])]
            steep = limits(np.concatenate([rise[np.isfinite(rise)] for rise in rises]), (0, 95))[1]
            times = max(step for step in (1.0, 2.0, 5.0, 10.0, 20.0) if step == 1 or step * steep <= SHOWN_RISE)
            self._limits[key] = [(times, times)]
        return self._limits[key][0][0]

    def _filled(self) -> list[int]:
        """Positions of the chips that have any pixels."""
        status = self.dataset.table["status"].to_pylist()
        return [position for position, what in enumerate(status) if what != "empty"] or [0]


def views(layout: Layout) -> tuple[View, ...]:
    """Every way to show a dataset: colours of each source, then its masks and what is derived, then labels."""
    found: list[View] = []
    groups = [group for group in layout.groups if group.name != LABELS]
    groups += [group for group in layout.groups if group.name == LABELS]
    for group in groups:
        bands = next((tuple(map(str, coord.values)) for coord in group.coords if coord.name == "band"), ())
        for variable in layout.of(group.name):
            if not variable.spatial:
                continue
            if group.name == LABELS:
                on = (coord.values for coord in group.coords if coord.dim in variable.dims)
                found += _label_views(variable, tuple(map(str, next(on, ()))))
            else:
                found += _source_views(variable, bands)
    return tuple(found)


def _source_views(variable: Variable, bands: tuple[str, ...]) -> list[View]:
    if "band" in variable.dims:
        return _band_views(variable, bands)
    name = f"{variable.group} · {variable.name.replace('_', ' ')}"
    if variable.name == "elevation":
        return [View(variable, "relief", f"{variable.group} · relief")]
    if "flag_masks" in variable.attrs and "flag_meanings" in variable.attrs:
        return [View(variable, "bits", name, main=False)]
    if "flag_values" in variable.attrs:
        return [View(variable, "classes", name, main=False)]
    if variable.name == "clear_mask":
        return [View(variable, "presence", name, main=False)]
    alone = variable.name not in ("count", "incidence") and "time" in variable.dims
    return [View(variable, "ramp", name, main=alone)]


def _band_views(variable: Variable, bands: tuple[str, ...]) -> list[View]:
    """Colour composites of what bands there are."""

    def view(kind: Kind, what: str, *names: str) -> View:
        return View(variable, kind, f"{variable.group} · {what}", tuple(bands.index(name) for name in names))

    if variable.name == "backscatter" or {"vv", "vh"} <= set(bands):
        for co, cross in (("vv", "vh"), ("hh", "hv")):
            if co in bands and cross in bands:
                return [view("radar", f"{co}, {cross}, {co}/{cross}", co, cross)]
        return [view("radar", bands[0], bands[0])]
    found = []
    nir = next((name for name in ("nir", "nir08", "nir09") if name in bands), None)
    if {"red", "green", "blue"} <= set(bands):
        found.append(view("bands", TRUE_COLOUR, "red", "green", "blue"))
    if nir and "red" in bands:
        third = "green" if "green" in bands else "red"
        found.append(view("bands", f"false colour {nir}, red, {third}", nir, "red", third))
    if not found and len(bands) >= 3:
        found.append(view("bands", ", ".join(bands[:3]), *bands[:3]))
    return found or [view("bands", bands[0], bands[0])]


def _label_views(variable: Variable, channels: tuple[str, ...]) -> list[View]:
    kinds: dict[str, Kind] = {"classes": "classes", "ids": "ids", "presence": "presence", "measure": "ramp"}
    kind = kinds.get(str(variable.attrs.get("kind")), "classes" if "flag_values" in variable.attrs else "ramp")
    if "time" in variable.dims:
        return []
    title = f"label · {variable.name.replace('_', ' ')}"
    if len(variable.dims) == 2:
        return [View(variable, kind, title, main=kind in ("classes", "ids"))]
    # Of many channels the first few, so that a sheet stays one.
    named = channels or tuple(map(str, range(variable.shape[0])))
    return [View(variable, kind, f"{title} {name}", (at,), main=False) for at, name in enumerate(named[:CHANNELS])]


def physical(values: npt.NDArray[Any], variable: Variable) -> npt.NDArray[np.float64]:
    """Stored numbers × ``scale_factor`` + ``add_offset``, float64 with NaN where they are void."""
    import numpy as np

    found = values.astype(np.float64)
    if variable.void and variable.fill != "NaN":
        found[values == variable.fill] = np.nan
    return found * float(variable.attrs.get("scale_factor", 1)) + float(variable.attrs.get("add_offset", 0))


def limits(values: npt.NDArray[Any], percentiles: tuple[float, float] = PERCENTILES) -> tuple[float, float]:
    """What becomes black and what white: percentiles of finite values, never equal; (0, 1) where there are none."""
    import numpy as np

    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, percentiles))
    return (low, high) if high > low else (low, low + max(abs(low) * 1e-3, 1e-6))


def stretch(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Values from ``low`` to ``high`` as 0 to 255, beyond them 0 or 255; void (NaN) as 0."""
    import numpy as np

    share = np.nan_to_num((values - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    return np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)


def colours(
    values: npt.NDArray[Any], limits: Sequence[tuple[float, float]]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Layers ``(layer, y, x)`` as ``(y, x, 3)``, and where any of them is void. One layer gives grey."""
    import numpy as np

    layers = [stretch(layer, low, high) for layer, (low, high) in zip(values, limits, strict=True)]
    layers = layers * 3 if len(layers) == 1 else layers[:3]
    return np.dstack(layers), ~np.isfinite(values).all(axis=0)


def radar_layers(values: npt.NDArray[Any], *, decibel: bool) -> npt.NDArray[np.float64]:
    """``(co, cross)`` backscatter as co, cross and co/cross in decibels ``(3, y, x)``; one polarisation stays one.

    Args:
        values: Linear power, or decibels. Power of 0 or less has no logarithm and is void here.
        decibel: What ``values`` are.
    """
    import numpy as np

    if decibel:
        db = values.astype(np.float64)
    else:
        db = np.full(values.shape, np.nan)
        np.log10(values, out=db, where=values > 0)
        db *= 10
    return np.concatenate([db, db[:1] - db[1:2]]) if len(db) == 2 else db


def relief(elevation: npt.NDArray[Any], resolution_m: float, times: float = 1.0) -> npt.NDArray[np.float64]:
    """Hillshade of a chip by itself, ``(y, x)`` 0…1, NaN where void; the formula is that of ``cube.terrain``.

    A picture need not agree with its neighbour: the ring around the chip is extrapolated, and holes are filled with the
    nearest elevation for the slopes beside them. ``times`` exaggerates heights.
    """
    import numpy as np
    from scipy.ndimage import distance_transform_edt

    from cube.terrain import derive

    void = np.isnan(elevation)
    if void.all():
        return np.full(elevation.shape, np.nan)
    nearest = distance_transform_edt(void, return_distances=False, return_indices=True)
    around = np.pad(times * elevation[tuple(nearest)], 1, mode="reflect", reflect_type="odd").astype(np.float32)
    return np.where(void, np.nan, derive(around, "hillshade", resolution_m, 1))


def paint(
    codes: npt.NDArray[Any], void: npt.NDArray[np.bool_], palette: Mapping[int, str]
) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Classes in their colours, ``(y, x, 3)``, and the codes that are there. Codes without a colour are magenta."""
    import numpy as np

    rgb = np.zeros((*codes.shape, 3), np.uint8)
    there = [int(code) for code in np.unique(codes[~void])]
    for code in there:
        rgb[codes == code] = to_rgb(palette.get(code, "#ff00ff"))
    return rgb, there


def _ids(view: View, values: npt.NDArray[Any]) -> Picture:
    """Objects: the same id the same colour, neighbours in number far apart; 0 is none."""
    import numpy as np

    ids = values[0]
    void = ids == 0
    rgb, there = paint(ids, void, {int(one): golden(int(one)) for one in np.unique(ids)})
    return Picture("", rgb, void, f"{len(there)} object{'' if len(there) == 1 else 's'}", smooth=False)


def _presence(view: View, values: npt.NDArray[Any]) -> Picture:
    import numpy as np

    mask = values[0] > 0
    void = values[0] == view.variable.fill if view.variable.void else np.zeros(mask.shape, bool)
    rgb, there = paint(mask.astype(int), void, {0: "#2b2f36", 1: "#f2c14e"})
    legend = tuple((("no", "#2b2f36"), ("yes", "#f2c14e"))[code] for code in there)
    return Picture("", rgb, void, legend=legend, smooth=False)


def legend_of(variable: Variable, codes: Sequence[int] = ()) -> dict[int, tuple[str, str]]:
    """Code -> (name, ``#rrggbb``): the legend's own colours where it has them, else a palette of distinct ones."""
    attrs = variable.attrs
    found = [int(code) for code in attrs.get("flag_values", codes)]
    names = [str(name) for name in attrs.get("flag_names") or str(attrs.get("flag_meanings", "")).split()]
    if len(names) != len(found):
        names = [str(code) for code in found]
    own = str(attrs.get("flag_colors", "")).split()
    if len(own) == len(found) and all(re.fullmatch("#[0-9a-fA-F]{6}", colour) for colour in own):
        palette = own
    elif variable.name == "scl":
        palette = [SCL_COLOURS.get(code, "#ff00ff") for code in found]
    else:
        palette = _palette(found, names)
    rows = zip(found, names, palette, strict=True)
    return {code: (name.replace("_", " "), colour) for code, name, colour in rows}


def _palette(codes: Sequence[int], names: Sequence[str]) -> list[str]:
    """Distinct colours; what is called background is a dull one, so that it stays behind."""
    rest = iter([*DISTINCT, *(golden(number) for number in range(len(codes)))])
    dull = {"background", "other", "none", "unknown", "unclassified"}
    return ["#b9b4a7" if name.lower() in dull else next(rest) for name in names]


def golden(number: int) -> str:
    """A colour of its own for a number: hues at steps of the golden ratio, three lightnesses in turn."""
    hue = (number * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, (0.45, 0.62, 0.35)[number % 3], 0.62)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def to_rgb(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def hatch(height: int, width: int) -> Image.Image:
    """The neutral pattern of void: diagonal stripes of two greys."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:height, :width]
    stripes = np.where(((x + y) // _HATCH_PX) % 2 == 0, _LIGHT, _DARK).astype(np.uint8)
    return Image.fromarray(np.dstack([stripes] * 3), "RGB")


def spread(positions: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the positions, evenly spread; the same ones every time."""
    if len(positions) <= count:
        return list(positions)
    return [positions[(2 * number + 1) * len(positions) // (2 * count)] for number in range(count)]


def render(
    gallery: Gallery,
    chip: str,
    *,
    source: str | None = None,
    look: Look | None = None,
    date: dt.date | None = None,
) -> tuple[Image.Image, list[Picture]]:
    """All views of a chip side by side on one sheet, a row a source, and the pictures themselves.

    Args:
        gallery: Of the dataset.
        chip: Id of the chip.
        source: Only this source, or ``label``.
        look: Only these views.
        date: See ``Gallery.picture``.

    Raises:
        InputError: The dataset has no such chip, source or view.
    """
    dataset = gallery.dataset
    position = dataset.position(chip)
    groups = list(dict.fromkeys(view.group for view in gallery.views))
    if source is not None and source not in groups:
        raise InputError(source, f"the dataset has no such source; it has {', '.join(groups)}")
    of_source = [view for view in gallery.views if source in (None, view.group)]
    wanted = [view for view in of_source if look in (None, view.look)]
    if not wanted:
        looks = ", ".join(dict.fromkeys(view.look for view in of_source if view.look)) or "nothing of the kind"
        raise InputError(str(look), f"{source or 'the dataset'} has no bands for it; it can be shown as {looks}")
    pictures = [(view.group, gallery.picture(position, view, date=date)) for view in wanted]
    row = {name: dataset.table[name][position].as_py() for name in ("split", "status", "lon", "lat")}
    head = f"{dataset.name} · {chip} · {row['split']} · {row['status']} · {row['lat']:.4f}°, {row['lon']:.4f}°"
    rows = [[picture for owner, picture in pictures if owner == name] for name in groups]
    parts = [row[first : first + IN_A_ROW] for row in rows for first in range(0, len(row), IN_A_ROW)]
    return sheet(head, parts), [picture for _, picture in pictures]


def sheet(head: str, rows: Sequence[Sequence[Picture]]) -> Image.Image:
    """Pictures in rows with their titles, notes and legends, on white."""
    from PIL import Image, ImageDraw, ImageFont

    side, gap, line, most = 256, 20, 17, 8
    bold, small = ImageFont.load_default(15), ImageFont.load_default(13)
    lines = [max((min(len(picture.legend), most + 1) for picture in row), default=0) for row in rows]
    heights = [3 * line + 6 + side + 6 + count * line + gap for count in lines]
    width = max(gap + max(map(len, rows), default=1) * (side + gap), 640)
    image = Image.new("RGB", (width, 2 * gap + line + sum(heights)), "white")
    draw = ImageDraw.Draw(image)
    draw.text((gap, gap - 4), head, "#111111", bold)
    top = gap + line + 10
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            left = gap + column * (side + gap)
            draw.text((left, top), _fit(picture.title, draw, bold, side), "#111111", bold)
            for number, part in enumerate(picture.note.split(" · ", 1), 1):
                draw.text((left, top + number * line + 1), _fit(part, draw, small, side), "#555555", small)
            at = top + 3 * line + 6
            image.paste(picture.image(side), (left, at))
            draw.rectangle((left - 1, at - 1, left + side, at + side), outline="#999999")
            shown = picture.legend if len(picture.legend) <= most + 1 else picture.legend[:most]
            for number, (name, colour) in enumerate(shown):
                y = at + side + 6 + number * line
                draw.rectangle((left, y + 2, left + 12, y + 14), fill=colour, outline="#999999")
                draw.text((left + 20, y), _fit(name, draw, small, side - 20), "#333333", small)
            if len(shown) < len(picture.legend):
                more = f"and {len(picture.legend) - len(shown)} more"
                draw.text((left + 20, at + side + 6 + len(shown) * line), more, "#555555", small)
        top += height
    return image


def _fit(text: str, draw: Any, font: Any, width: int) -> str:
    """The text, cut with an ellipsis where it is wider than this."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"


def _void_codes(variable: Variable, legend: Mapping[int, tuple[str, str]]) -> list[int]:
    """Codes that are no class: the void, and what a quality layer calls so."""
    named = [code for code, (name, _) in legend.items() if name in _VOID_WORDS]
    return [*named, int(variable.fill or 0)] if variable.void else named


def _ranges(limits: Sequence[tuple[float, float]]) -> str:
    """``0.02…0.16``, one a layer where they differ."""

    def short(value: float) -> str:
        return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"

    return ", ".join(f"{short(low)}…{short(high)}" for low, high in dict.fromkeys(limits))


def _is_db(variable: Variable) -> bool:
    return str(variable.attrs.get("units", "")) == "dB"


def _period(start: dt.datetime, stop: dt.datetime) -> str:
    """``2021-05`` for a month, else the day or both days."""
    if start.day == 1 and stop == (start.replace(day=28) + dt.timedelta(days=4)).replace(day=1):
        return f"{start:%Y-%m}"
    last = stop - dt.timedelta(seconds=1)
    return f"{start:%Y-%m-%d}" if last.date() <= start.date() else f"{start:%Y-%m-%d} to {last:%Y-%m-%d}"


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def data_uri(image: Image.Image, *, photo: bool) -> str:
    """An image as a data URI: JPEG for photographs, PNG with a palette for classes."""
    import base64

    from PIL import Image

    if photo:
        kind, data = "jpeg", _encoded(image, "JPEG", quality=84, optimize=True)
    else:
        kind, data = "png", _encoded(image.quantize(256, dither=Image.Dither.NONE), "PNG", optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
