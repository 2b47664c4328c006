"""``report.html``: one page that shows a dataset to whoever is about to train with it, and opens without a network.

Everything is in the file: style, script, data and pictures. Its policy (CSP) forbids the browser to load anything else.
Equal datasets give equal bytes: there is no clock in it.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
import importlib.resources
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publish.pictures import DISTINCT, LABELS, Gallery, View, data_uri, golden, spread
from publish.written import WrittenDataset

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow

REPORT = "report.html"
MAP_CHIPS = 20_000
"""Chips on the map; of more an even sample, and all counts are of all chips."""
PICTURED_CHIPS = 24
"""Chips shown as pictures, spread over splits and area."""
OPEN_PICTURES = 8
"""Of them those that are open; the others fold away."""
PICTURED_VIEWS = 6
"""Pictures a chip."""
PICTURE_PX = 160
SHOWN_CLASSES = 24
"""Rows of a table of classes that are open; the others fold away."""
SHOWN_REASONS = 8
SCENES, REGION, RECIPE, ATTRIBUTION = "scenes.parquet", "region.geojson", "recipe.yaml", "ATTRIBUTION.txt"
SPLIT_COLOURS = {"train": "#3f7fbf", "val": "#d9a21b", "test": "#d6455d", "buffer": "#9a9a9a"}
STATUS_COLOURS = {"ok": "#2f8f5b", "partial": "#d9a21b", "empty": "#9a9a9a"}

_DEGREE = 100_000
"""Units a degree of the outlines on the map, about a metre."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing that chips on the map are coloured by."""

    name: str
    values: Sequence[int | float | None]
    """A chip each: positions in ``names``, or numbers; None where nothing is known."""
    names: tuple[str, ...] = ()
    """Categories; empty for numbers."""
    colours: tuple[str, ...] = ()
    """Of the categories."""
    unit: str = ""

    @classmethod
    def of_text(cls, name: str, values: Sequence[str], colours: Mapping[str, str]) -> Layer:
        """A layer of categories, those of ``colours`` first and in its order."""
        found = Counter(values)
        names = [*(one for one in colours if one in found), *sorted(found.keys() - colours.keys())]
        rest = (colour for colour in DISTINCT if colour not in colours.values())
        painted = tuple(colours.get(one) or next(rest, golden(at)) for at, one in enumerate(names))
        position = {one: at for at, one in enumerate(names)}
        return cls(name, [position[value] for value in values], tuple(names), painted)

    def to_json(self, shown: Sequence[int]) -> dict[str, Any]:
        """Plain values, of these chips only; what is told of categories counts all chips."""
        told: dict[str, Any] = {"name": self.name, "values": [self.values[chip] for chip in shown], "unit": self.unit}
        if self.names:
            counts = Counter(self.values)
            told["categories"] = [
                [name, colour, counts[at]]
                for at, (name, colour) in enumerate(zip(self.names, self.colours, strict=True))
            ]
        else:
            known = sorted(value for value in self.values if value is not None)
            told["range"] = [known[0], known[-1]] if known else [0, 0]
        return told


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a time line or histogram, in the units of its drawing."""

    x: float
    width: float
    parts: tuple[float, ...]
    """Heights from the ground up, of a tallest bar of 1."""
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Stacked or paired bars with a scale."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    """(x of 0…1000, text)."""
    top: str
    """What the tallest bar is."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One small picture on the page."""

    title: str
    note: str
    uri: str
    smooth: bool
    legend: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ChipMap:
    """Where the chips are, and what they can be coloured by."""

    ids: Sequence[str]
    outlines: npt.NDArray[np.object_]
    """Polygons in EPSG:4326."""
    region: Any
    """Geometry of the area in EPSG:4326, or None."""
    layers: tuple[Layer, ...]
    notes: Sequence[str] = ()
    """A chip each: why it lacks something."""


def report(dataset: WrittenDataset, *, pictured: int = PICTURED_CHIPS) -> bytes:
    """The page of a dataset, HTML in UTF-8.

    Args:
        dataset: What to show.
        pictured: Chips to show as pictures. With 256 px and four views, 24 are about 1 MB.
    """
    gallery = Gallery(dataset)
    table, layout = dataset.table, dataset.layout
    sources = [group for group in layout.groups if f"{group.name}_seen" in table.column_names]
    shares = {name: Shares.read(table, name) for name in label_names(table)}
    legends = {name: _legend(gallery, name, found) for name, found in shares.items()}
    splits, status = table["split"].to_pylist(), table["status"].to_pylist()
    lock = dataset.file(SCENES)
    timelines = [] if lock is None else timelines_of(lock, [source.name for source in sources])
    recipe = dataset.file(RECIPE)
    return page(
        title=dataset.name,
        kind="Dataset",
        numbers=_numbers(dataset, sources, splits, status),
        chips=ChipMap(
            dataset.chips,
            _outlines(table),
            region_of(dataset.file(REGION)),
            tuple(_layers(dataset, shares, legends)),
            table["reason"].to_pylist(),
        ),
        made_by=_made_by(layout.attrs),
        gallery=_shots(gallery, pictured),
        timelines=[line | (_dates(table, line["source"]) if line["chart"] else {}) for line in timelines],
        balances=[_balance(name, found, legends[name], splits) for name, found in shares.items() if found.codes.size],
        shifts=[shift for source in sources if (shift := _shifts(table, source.name))],
        coverage=dataset.document("coverage.json"),
        audit=_audit(dataset.document("audit.json")),
        statistics=_statistics(dataset.document("statistics.json")),
        terms=_terms(dataset),
        recipe="" if recipe is None else recipe.decode(errors="replace"),
        missing=tuple(name for name in ("audit.json", "statistics.json") if dataset.file(name) is None),
    )


def page(*, title: str, kind: str, numbers: Sequence[tuple[str, str]], chips: ChipMap, **sections: Any) -> bytes:
    """Fill the template; ``sections`` that are not given are left out."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("publish"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _text("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    empty: dict[str, Any] = dict.fromkeys(
        ("gallery", "timelines", "balances", "shifts", "audit", "statistics", "terms", "missing", "lines"), ()
    )
    html = environment.get_template(REPORT).render(
        **{**empty, "coverage": None, "recipe": "", "made_by": "", **sections},
        title=title,
        kind=kind,
        numbers=numbers,
        shown=min(len(chips.ids), MAP_CHIPS),
        total=len(chips.ids),
        data=_map_json(chips),
        style=_text("report.css"),
        script=script,
        script_hash=digest,
        open_classes=SHOWN_CLASSES,
        open_pictures=OPEN_PICTURES,
    )
    return html.encode()


@functools.cache
def _text(name: str) -> str:
    return (importlib.resources.files("publish") / "templates" / name).read_text(encoding="utf-8")


def _made_by(attrs: Mapping[str, Any]) -> str:
    version, recipe = attrs.get("curate_version"), str(attrs.get("recipe_fingerprint", ""))
    return f"Made by curate {version} from recipe {recipe[:12]}." if version else ""


def _numbers(
    dataset: WrittenDataset, sources: Sequence[Any], splits: Sequence[str], status: Sequence[str]
) -> list[tuple[str, str]]:
    """What stands at the top, (name, number)."""
    table, layout = dataset.table, dataset.layout
    resolution = layout.groups[0].attrs.get("resolution_m")
    pixels = f"{layout.size_px} × {layout.size_px} px" + (f" at {resolution:g} m" if resolution else "")
    numbers = [("Chips", f"{len(splits):,}"), ("Size of a chip", pixels)]
    numbers += [(name, f"{count:,}") for name, count in split_counts(splits)]
    if (short := Counter(status)).keys() - {"ok"}:
        numbers += [(f"{name} chips", f"{short[name]:,}") for name in ("partial", "empty") if short[name]]
    for source in sources:
        dates = _days(table, source.name)
        numbers.append(
            (source.name, str(source.attrs.get("collection", "")) + (f", {len(dates)} days" if dates else ""))
        )
    return numbers


def split_counts(splits: Sequence[str]) -> list[tuple[str, int]]:
    """(split, chips), those of the usual names first."""
    found = Counter(splits)
    order = [*(name for name in SPLIT_COLOURS if name in found), *sorted(found.keys() - SPLIT_COLOURS.keys())]
    return [(name, found[name]) for name in order]


def _days(table: pyarrow.Table, source: str) -> list[Any]:
    """Days on which any chip was seen and used."""
    import numpy as np

    times = table[f"{source}_dates"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return list(np.unique(times.astype("datetime64[D]")).tolist())


# ---- the map


def _map_json(chips: ChipMap) -> str:
    """Everything the script draws, as JSON that can stand in a page."""
    shown = spread(range(len(chips.ids)), MAP_CHIPS)
    cut = _cut([outline.centroid.x for outline in chips.outlines[shown]])
    document = {
        "ids": [chips.ids[chip] for chip in shown],
        "rings": [_ring(chips.outlines[chip], cut) for chip in shown],
        "region": _region_rings(chips.region, cut),
        "layers": [layer.to_json(shown) for layer in chips.layers],
        "notes": {str(at): chips.notes[chip] for at, chip in enumerate(shown) if chips.notes and chips.notes[chip]},
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Within a script element the only dangers are a closing tag and a comment, and both begin with this sign.
    return text.replace("<", "\\u003c")


def _cut(longitudes: Sequence[float]) -> float:
    """Where the globe is cut for the map, a longitude: in the widest gap, so that the antimeridian parts no region."""
    import numpy as np

    around = np.sort(np.asarray(longitudes))
    if around[-1] - around[0] <= 180:
        return -180.0
    gaps = np.diff(around, append=around[0] + 360)
    widest = int(np.argmax(gaps))
    return float(around[widest] + gaps[widest] / 2) if widest < len(around) - 1 else -180.0


def _ring(outline: Any, cut: float) -> list[int]:
    """Corners of a chip in 1e-5 degree: the first, then each less the one before."""
    import numpy as np
    import shapely

    if outline.geom_type != "Polygon":  # cut at the antimeridian: sewn together again
        points = shapely.get_coordinates(outline)
        points[points[:, 0] < 0, 0] += 360
        outline = shapely.convex_hull(shapely.multipoints(points))
    corners = shapely.get_coordinates(outline.exterior)[:-1]
    if corners[:, 0].mean() < cut:
        corners[:, 0] += 360
    whole = np.round(corners * _DEGREE).astype(np.int64)
    return [int(step) for step in np.diff(whole, axis=0, prepend=0).ravel()]


def _region_rings(region: Any, cut: float) -> list[list[int]]:
    """Outlines of the area, coarse enough that they never weigh more than the chips."""
    import shapely

    if region is None or region.is_empty:
        return []
    west, south, east, north = region.bounds
    coarse = shapely.simplify(region, max(east - west, north - south) / 2000)
    parts = [part for part in shapely.get_parts(coarse) if part.geom_type == "Polygon" and not part.is_empty]
    largest = sorted(parts, key=lambda part: -part.area)[:200]
    return [_ring(part, cut) for part in largest]


def region_of(document: bytes | None) -> Any:
    """The geometry of a GeoJSON document in EPSG:4326; None where there is none."""
    import shapely

    if document is None:
        return None
    found = json.loads(document)
    features = found.get("features", [found])
    return shapely.union_all([shapely.from_geojson(json.dumps(feature["geometry"])) for feature in features])


def _outlines(table: pyarrow.Table) -> npt.NDArray[np.object_]:
    import numpy as np
    import shapely

    return np.asarray(shapely.from_wkb(table["geometry"].to_numpy()), dtype=object)


def _layers(
    dataset: WrittenDataset, shares: Mapping[str, Shares], legends: Mapping[str, Mapping[int, tuple[str, str]]]
) -> list[Layer]:
    """All that chips can be coloured by, splits first."""
    import numpy as np

    table = dataset.table
    found = [
        Layer.of_text("split", table["split"].to_pylist(), SPLIT_COLOURS),
        Layer.of_text("status", table["status"].to_pylist(), STATUS_COLOURS),
    ]
    for group in dataset.layout.groups:
        timed = any(variable.name == "clear" for variable in dataset.layout.of(group.name))
        if timed and f"{group.name}_clear" in table.column_names:
            found.append(_number(f"{group.name}: clear share", table, f"{group.name}_clear", 100, "%"))
            counts = table[f"{group.name}_dates"].combine_chunks().value_lengths().to_pylist()
            found.append(Layer(f"{group.name}: dates used", counts))
    for name, of in shares.items():
        legend = legends[name]
        strongest = of.strongest(len(table))
        codes = [int(code) for code in np.unique(strongest[strongest >= 0])]
        names = tuple(legend.get(code, (str(code), ""))[0] for code in codes)
        colours = tuple(legend.get(code, ("", golden(code)))[1] for code in codes)
        position = {code: at for at, code in enumerate(codes)}
        if codes:
            values = [position.get(int(code)) for code in strongest]
            found.append(Layer(f"{name}: most frequent class", values, names, colours))
        found.append(_number(f"{name}: labelled share", table, f"{name}_labelled", 100, "%"))
    for column in table.column_names:
        if column.endswith("_shift_left_m"):
            found.append(_number(f"{column.removesuffix('_shift_left_m')}: shift left", table, column, 1, "m", 2))
    return [*found, _number("inside the region", table, "cover", 100, "%")]


def _number(name: str, table: pyarrow.Table, column: str, times: float, unit: str, digits: int = 0) -> Layer:
    values = [None if value is None else round(value * times, digits) for value in table[column].to_pylist()]
    if digits == 0:
        values = [None if value is None else int(value) for value in values]
    return Layer(name, values, unit=unit)


# ---- classes


def label_names(table: pyarrow.Table) -> list[str]:
    """Labels that the index has shares of."""
    ends = "_shares"
    return [column.removesuffix(ends) for column in table.column_names if column.endswith(ends)]


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of classes, an entry a chip and class."""

    chips: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]

    @classmethod
    def read(cls, table: pyarrow.Table, name: str) -> Shares:
        """Those of one label, from the index."""
        import numpy as np

        column = table[f"{name}_shares"].combine_chunks()
        offsets = column.offsets.to_numpy()
        chips = np.repeat(np.arange(len(column)), np.diff(offsets))
        codes, shares = (part.to_numpy(zero_copy_only=False) for part in (column.keys, column.items))
        inside = slice(offsets[0], offsets[-1])
        return cls(chips, codes[inside].astype(np.int64), shares[inside].astype(np.float64))

    def strongest(self, n_chips: int) -> npt.NDArray[np.int64]:
        """Class with the largest share of each chip, of equals the smaller code; -1 without any."""
        import numpy as np

        found = np.full(n_chips, -1)
        order = np.lexsort((-self.codes, self.shares, self.chips))
        found[self.chips[order]] = self.codes[order]  # the last one of each chip stays
        return found


def _legend(gallery: Gallery, name: str, shares: Shares) -> dict[int, tuple[str, str]]:
    """Code -> (name, colour) of a label; codes without a legend are called by their number."""
    import numpy as np

    known = next((v for v in gallery.dataset.layout.of(LABELS) if v.name == name), None)
    if known is not None and known.attrs.get("kind") == "presence":
        return {0: ("no", "#2b2f36"), 1: ("yes", "#f2c14e")}
    legend = {} if known is None else dict(gallery.legend(known))
    for at, code in enumerate(code for code in np.unique(shares.codes).tolist() if code not in legend):
        legend[code] = (str(code), golden(at))
    return legend


def _balance(name: str, shares: Shares, legend: Mapping[int, tuple[str, str]], splits: Sequence[str]) -> dict[str, Any]:
    """Share of each class of the labelled pixels of each split, largest first."""
    import numpy as np

    of_chip = np.asarray(splits, dtype=object)[shares.chips]
    named = [split for split, _ in split_counts(splits)]
    totals: dict[str, dict[int, float]] = {}
    chips: Counter[int] = Counter(shares.codes[shares.shares > 0].tolist())
    for split in named:
        mine = of_chip == split
        codes, where = np.unique(shares.codes[mine], return_inverse=True)
        sums = np.bincount(where, shares.shares[mine], len(codes))
        whole = sums.sum()
        totals[split] = dict(zip(codes.tolist(), (100 * sums / (whole or 1)).tolist(), strict=True))
    order = sorted(chips, key=lambda code: (-sum(of.get(code, 0.0) for of in totals.values()), code))
    trained = totals.get("train")
    absent = [] if trained is None else [legend[code][0] for code in order if not trained.get(code)]
    rows = [
        {
            "code": code,
            "name": legend[code][0],
            "colour": legend[code][1],
            "chips": chips[code],
            "shares": [totals[split].get(code) for split in named],
        }
        for code in order
    ]
    return {"name": name, "splits": named, "rows": rows, "absent": absent}


# ---- pictures


def _shots(gallery: Gallery, pictured: int) -> list[dict[str, Any]]:
    """Chips with their pictures: of each split as many as its share, at least one, spread over the store's order."""
    table = gallery.dataset.table
    splits, status = table["split"].to_pylist(), table["status"].to_pylist()
    filled = [chip for chip, what in enumerate(status) if what != "empty"]
    order: list[tuple[float, int]] = []
    for split, _ in split_counts([splits[chip] for chip in filled]):
        mine = [chip for chip in filled if splits[chip] == split]
        picked = spread(mine, max(1, round(pictured * len(mine) / len(filled)))) if pictured else []
        order += [((at + 0.5) / len(picked), chip) for at, chip in enumerate(picked)]
    chosen = [chip for _, chip in sorted(order)]  # splits take turns, so that the first few show all of them
    views = shown_views(gallery.views)
    return [
        {
            "chip": gallery.dataset.chips[chip],
            "split": splits[chip],
            "lat": table["lat"][chip].as_py(),
            "lon": table["lon"][chip].as_py(),
            "shots": [_shot(gallery, chip, view) for view in views],
        }
        for chip in chosen
    ]


def shown_views(views: Sequence[View]) -> list[View]:
    """The views of a report: the first one of every source and label before the second of any."""
    main = [view for view in views if view.main]
    seen: Counter[str] = Counter()
    ranked = []
    for at, view in enumerate(main):
        owner = str(view.variable.attrs.get("label", view.variable.name)) if view.group == LABELS else view.group
        ranked.append((seen[owner], at, view))
        seen[owner] += 1
    kept = sorted(ranked, key=lambda one: one[:2])[:PICTURED_VIEWS]
    return [view for _, _, view in sorted(kept, key=lambda one: one[1])]


def _shot(gallery: Gallery, chip: int, view: View) -> Shot:
    picture = gallery.picture(chip, view)
    uri = data_uri(picture.image(PICTURE_PX), photo=picture.smooth)
    fine = picture.smooth and picture.void.shape[1] > PICTURE_PX
    return Shot(picture.title, picture.note, uri, fine, picture.legend)


# ---- scenes


def timelines_of(lock: bytes, sources: Sequence[str]) -> list[dict[str, Any]]:
    """Of each source how many scenes were kept and dropped when, and why, from the lock."""
    from chips.index import read_table

    table = read_table(lock)
    times = ("curate:acquired", "datetime", "start_datetime")
    columns = [table[name].to_pylist() for name in times if name in table.column_names]
    when = [next((value for value in row if value is not None), None) for row in zip(*columns, strict=True)]
    kinds = ("curate:source", "curate:status", "curate:reason")
    rows = list(zip(*(table[name].to_pylist() for name in kinds), when, strict=True))
    names = [*sources, *dict.fromkeys(source for source, *_ in rows if source not in sources)]
    lines = []
    for name in names:
        mine = [(status == "used", reason or "", time) for source, status, reason, time in rows if source == name]
        if not mine:
            continue
        reasons = Counter(_alike(reason) for used, reason, _ in mine if not used)
        lines.append(
            {
                "source": name,
                "used": sum(used for used, _, _ in mine),
                "dropped": sum(not used for used, _, _ in mine),
                "reasons": reasons.most_common(SHOWN_REASONS),
                "seen": 0,
                "dates_used": 0,
                "dates_dropped": [],
                "chart": _scene_chart([(used, time) for used, _, time in mine if time is not None]),
            }
        )
    return lines


def _alike(reason: str) -> str:
    """A reason without the names of scenes and the numbers in it, so that equal reasons are counted together."""
    return re.sub(r"[^\s,]*\d[\w.:-]{9,}[^\s,]*", "…", reason).split(": ")[0] or "no reason told"


def _scene_chart(scenes: Sequence[tuple[bool, dt.datetime]]) -> Chart | None:
    """Scenes by day, week or month, kept ones below; None where all are of one time."""
    if len({time for _, time in scenes}) < 2:
        return None
    first, last = min(time for _, time in scenes).date(), max(time for _, time in scenes).date()
    span = (last - first).days + 1
    days = next((days for days in (1, 5, 10, 30) if span / days <= 130), span // 130 + 1)
    counts: dict[int, list[int]] = {}
    for used, time in scenes:
        counts.setdefault((time.date() - first).days // days, [0, 0])[0 if used else 1] += 1
    tallest = max(sum(pair) for pair in counts.values())
    width = 1000 * days / span
    bars = []
    for at, (kept, dropped) in sorted(counts.items()):
        start = first + dt.timedelta(days * at)
        told = f"{start}" if days == 1 else f"{start} and {days - 1} days after"
        title = f"{told}: {kept} kept, {dropped} dropped"
        bars.append(Bar(at * width, min(width, 1000 - at * width), (kept / tallest, dropped / tallest), title))
    return Chart(tuple(bars), _month_ticks(first, last), f"{counted(tallest, 'scene')} in {counted(days, 'day')}")


def counted(number: int, what: str) -> str:
    """``1 scene``, ``2 scenes``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _month_ticks(first: dt.date, last: dt.date) -> tuple[tuple[float, str], ...]:
    """At most ten beginnings of months or years between two days."""
    span = (last - first).days + 1
    months = []
    year, month = first.year, first.month
    while (day := dt.date(year, month, 1)) <= last:
        if day >= first:
            months.append(day)
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    step = next((step for step in (1, 2, 3, 6, 12, 24, 60, 120) if len(months) <= 10 * step), 240)
    kept = [day for day in months if (day.year * 12 + day.month - 1) % step == 0]
    return tuple((1000 * (day - first).days / span, f"{day:%Y}" if step >= 12 else f"{day:%Y-%m}") for day in kept)


def _dates(table: pyarrow.Table, source: str) -> dict[str, Any]:
    """What became of the dates of a source on the chips, summed over chips."""
    if f"{source}_dropped" not in table.column_names:
        return {}
    dropped: Counter[str] = Counter()
    for pairs in table[f"{source}_dropped"].to_pylist():
        for reason, count in pairs or ():
            dropped[reason] += count
    used = sum(table[f"{source}_dates"].combine_chunks().value_lengths().fill_null(0).to_pylist())
    seen = sum(count or 0 for count in table[f"{source}_seen"].to_pylist())
    return {"seen": seen, "dates_used": used, "dates_dropped": dropped.most_common(SHOWN_REASONS)}


# ---- alignment, statistics, audit, terms


def _shifts(table: pyarrow.Table, source: str) -> dict[str, Any] | None:
    """Distances of a source from its reference before and after its dates were moved; None where nobody measured."""
    import numpy as np

    if f"{source}_shift_m" not in table.column_names:
        return None
    before, after = (
        np.array([value for value in table[f"{source}_{name}"].to_pylist() if value is not None], float)
        for name in ("shift_m", "shift_left_m")
    )
    reasons = Counter(reason for reason in table[f"{source}_shift_reason"].to_pylist() if reason)
    told: dict[str, Any] = {
        "source": source, "before": None, "after": None, "chart": None,
        "measured": len(before), "reasons": reasons.most_common(SHOWN_REASONS),
    }  # fmt: skip
    if not before.size:
        return told
    edges = np.linspace(0, max(float(np.percentile(np.append(before, after), 99)), 0.1), 21)
    counts = [np.histogram(np.clip(values, 0, edges[-1]), edges)[0] for values in (before, after)]
    tallest = max(int(max(of.max() for of in counts)), 1)
    bars = []
    for at in range(20):
        for which, of in enumerate(counts):
            told_of = ("before", "after")[which]
            title = f"{edges[at]:.1f} to {edges[at + 1]:.1f} m, {told_of}: {counted(int(of[at]), 'chip')}"
            parts = (of[at] / tallest, 0.0) if which else (0.0, of[at] / tallest)
            bars.append(Bar(at * 50 + 25 * which, 25, parts, title))
    ticks = tuple((50.0 * at, f"{edges[at]:.1f} m") for at in range(0, 20, 4))
    medians = {"before": float(np.median(before)), "after": float(np.median(after)) if after.size else None}
    return told | medians | {"chart": Chart(tuple(bars), ticks, counted(tallest, "chip"))}


def _statistics(document: Any) -> list[dict[str, Any]]:
    """Rows of the bands of ``statistics.json``, from the training split; nothing of a document of another shape."""
    if not isinstance(document, Mapping) or not isinstance(document.get("bands"), Mapping):
        return []
    rows = []
    for group, bands in document["bands"].items():
        for band, told in bands.items():
            train = told.get("splits", {}).get("train", {})
            physical = train.get("physical")
            if not physical:
                continue
            counts = train.get("histogram") or []
            tallest = max(counts, default=0) or 1
            width = 1000 / max(len(counts), 1)
            bars = tuple(Bar(at * width, width, (count / tallest,), "") for at, count in enumerate(counts))
            rows.append(
                {
                    "group": group,
                    "band": band,
                    "units": told.get("units", ""),
                    "values": [physical.get(name) for name in ("mean", "std", "min", "max")],
                    "middle": [physical.get("percentiles", {}).get(name) for name in ("p2", "p50", "p98")],
                    "void": train.get("void_share"),
                    "hidden": train.get("hidden_share"),
                    "chart": Chart(bars, (), ""),
                }
            )
    return rows


def _audit(document: Any) -> dict[str, Any]:
    """``audit.json`` as a table, a column a pair of splits; empty for none, and for one of another shape.

    Each cell is (text, whether it is a leak: ground or pixels that two splits share).
    """
    pairs = document.get("pairs") if isinstance(document, Mapping) else None
    if not isinstance(pairs, Mapping) or not pairs:
        return {}
    found = [_told_of_pair(pair) for pair in pairs.values()]
    names = dict.fromkeys(name for one in found for name in one)
    rows = [(name, [one.get(name, ("", False)) for one in found]) for name in names]
    return {"pairs": list(pairs), "rows": rows, "ranges": _ranges(document.get("autocorrelation", {}))}


def _told_of_pair(pair: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """What two splits share, and how they differ: name of the row -> cell."""
    told: dict[str, tuple[str, bool]] = {}
    if (shortest := pair.get("distance_m", {}).get("shortest")) is not None:
        told["shortest distance"] = (f"{shortest:,.0f} m", False)
    if (ground := pair.get("overlap", {}).get("m2")) is not None:
        told["shared ground"] = (f"{ground:,.0f} m²" if ground else "none", ground > 0)
    for source, same in pair.get("duplicates", {}).items():
        count = same["pairs"]
        told[f"{source}: chips with the same pixels"] = (counted(count, "pair") if count else "none", count > 0)
    for source, same in pair.get("scenes", {}).items():
        told[f"{source}: shared scenes"] = (f"{same['shared']:,}, in {100 * same['share']:.0f} % of the chips", False)
    for label, divergence in pair.get("class_divergence", {}).items():
        told[f"{label}: divergence of classes"] = (_plain(divergence), False)
    for source, drift in pair.get("spectra", {}).items():
        known = [value for value in drift.get("difference", ()) if value is not None]
        if known:
            told[f"{source}: largest difference of means"] = (f"{max(known, key=abs):+.2f} deviations", False)
    return told


def _ranges(autocorrelation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Source -> how far chips are alike, and how blocks compare with it."""
    told = []
    for source, bands in autocorrelation.items():
        known = [band for band in bands if band.get("range_m") is not None]
        if known:
            widest = max(known, key=lambda band: float(band["range_m"]))
            ratio = widest.get("block_over_range")
            blocks = "" if ratio is None else f"; blocks are {ratio:.2f} times as wide"
            told.append((source, f"up to {widest['range_m']:,.0f} m{blocks}"))
        elif bands:
            told.append((source, str(bands[0].get("why") or "not known")))
    return told


def _plain(value: Any) -> str:
    return "not known" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _terms(dataset: WrittenDataset) -> list[list[str]]:
    """Paragraphs about licences: those of ``ATTRIBUTION.txt``, or what the labels in the store say of themselves."""
    text = dataset.file(ATTRIBUTION)
    if text is not None:
        return [paragraph.splitlines() for paragraph in text.decode(errors="replace").strip().split("\n\n")]
    attrs = [variable.attrs for variable in dataset.layout.of(LABELS)]
    lines = [
        f"label {told['label']}: {', '.join(str(told[key]) for key in ('licence', 'attribution') if told.get(key))}"
        for told in attrs
        if told.get("label") and (told.get("licence") or told.get("attribution"))
    ]
    return [list(dict.fromkeys(lines))] if lines else []
