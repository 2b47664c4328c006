"""The other rules for splits, as options of a recipe. Light on purpose: recipes import it, the drawing is elsewhere.

``tiling.split_draw`` draws them. Every rule puts a chip, and so a place with all its dates and sources, into one split.
``years`` also says which dates the chips of a split have.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite, pi
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from tiling.mgrs import square_from_name
from tiling.split import SPLITS, SplitSpec, check_shares

Span = tuple[dt.datetime, dt.datetime]
"""From, and up to but without, UTC."""
Shares = dict[Literal["train", "val", "test"], Annotated[float, Ge(0)]]


def _shares(train: float, val: float, test: float) -> Any:
    return field(default_factory=lambda: {"train": train, "val": val, "test": test})


def _check_buffer(buffer_km: float) -> None:
    if not (isfinite(buffer_km) and buffer_km >= 0):
        raise ValueError(f"buffer_km is {buffer_km:g}; a distance is 0 km or more")


def _check_blocks(block_km: float, buffer_km: float) -> None:
    if not (isfinite(block_km) and block_km > 0):
        raise ValueError(f"block_km is {block_km:g}; a block has a side above 0 km")
    _check_buffer(buffer_km)


def _check_lists(what: str, **lists: tuple[Any, ...]) -> None:
    """Lists of val and test that name something, and nothing that stands twice."""
    if not lists["val"] and not lists["test"]:
        raise ValueError(f"neither val nor test names a {what}; name those that are held out")
    everything = [entry for entries in lists.values() for entry in entries]
    if twice := sorted({entry for entry in everything if everything.count(entry) > 1}):
        raise ValueError(f"{what} {twice[0]!r} stands twice; a {what} belongs to one split")


@dataclass(frozen=True, slots=True)
class BalancedSplit:
    """Whole blocks, dealt out so that every class of a label has its share in every split."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rule: Literal["balanced"]
    """``balanced``: blocks of a global lattice, dealt out by the classes in them."""
    label: str
    """Name of the label, one that is drawn from polygons, rasters, points or a product and not made from another."""
    block_km: Annotated[float, Gt(0)] = 10.0
    """Side of a block in kilometres; blocks are never narrower than this."""
    buffer_km: Annotated[float, Ge(0)] = 1.0
    """Shortest distance between chips of different splits, edge to edge, in km; chips in between are left out."""
    shares: Shares = _shares(0.7, 0.15, 0.15)
    """Share of every class for each of ``train``, ``val`` and ``test``. They sum to 1."""
    seed: int = 0
    """Another number breaks ties between blocks otherwise."""

    def __post_init__(self) -> None:
        _check_blocks(self.block_km, self.buffer_km)
        check_shares(self.shares)


@dataclass(frozen=True, slots=True)
class FoldSplit:
    """Whole blocks in k folds, for cross-validation; some of the folds are val and test."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rule: Literal["folds"]
    """``folds``: blocks of a global lattice in ``k`` folds, drawn by a hash of their place."""
    k: Annotated[int, Ge(2), Le(100)] = 5
    """Number of folds; the column ``fold`` of ``chips.parquet`` counts them from 1."""
    val: tuple[Annotated[int, Ge(1)], ...] = (4,)
    """Folds that are ``val``; those named neither here nor under ``test`` are ``train``."""
    test: tuple[Annotated[int, Ge(1)], ...] = (5,)
    """Folds that are ``test``."""
    block_km: Annotated[float, Gt(0)] = 10.0
    """Side of a block in kilometres; blocks are never narrower than this."""
    buffer_km: Annotated[float, Ge(0)] = 1.0
    """Shortest distance between chips of different folds, edge to edge, in km; chips in between are left out."""
    seed: int = 0
    """Another number gives another draw of the blocks."""

    def __post_init__(self) -> None:
        _check_blocks(self.block_km, self.buffer_km)
        _check_lists("fold", val=self.val, test=self.test)
        if beyond := [fold for fold in (*self.val, *self.test) if not 1 <= fold <= self.k]:
            raise ValueError(f"fold {beyond[0]} is none of the {self.k} folds; they are counted from 1")


@dataclass(frozen=True, slots=True)
class RingSplit:
    """Rings within each Sentinel-2 tile, as in BigEarthNet v2: train outside, val between, test in the core."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rule: Literal["rings"]
    """``rings``: by the distance of a chip's centre to the nearest edge of its tile."""
    of: Literal["tile", "square"] = "tile"
    """Edges of what: the ``tile`` of 109.8 km, neighbours of which overlap, or the MGRS ``square`` of 100 km."""
    shares: Shares = _shares(0.5, 0.25, 0.25)
    """Share of the area of a tile for each of ``train``, ``val`` and ``test``. They sum to 1."""
    buffer_km: Annotated[float, Ge(0)] = 1.0
    """Shortest distance between chips of different splits, edge to edge, in km; chips in between are left out."""

    def __post_init__(self) -> None:
        check_shares(self.shares)
        _check_buffer(self.buffer_km)


@dataclass(frozen=True, slots=True)
class BandSplit:
    """Parallel bands across the area, as in M3LEO, given to the splits in turn."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rule: Literal["bands"]
    """``bands``: the area is cut into bands of one width and direction."""
    bands: Annotated[int, Ge(2)] = 60
    """Number of bands over the whole area."""
    angle_rad: Annotated[float, Ge(-pi / 2), Le(pi / 2)] = 0.0
    """Direction in which bands follow each other: 0 from south to north, towards π/2 more and more to the east."""
    shares: Shares = _shares(0.6, 0.2, 0.2)
    """Shares, as whole multiples of the smallest: 0.6, 0.2, 0.2 are three bands train, one test and one val in turn."""
    buffer_km: Annotated[float, Ge(0)] = 1.0
    """Shortest distance between chips of different splits, edge to edge, in km; chips in between are left out."""

    def __post_init__(self) -> None:
        check_shares(self.shares)
        _check_buffer(self.buffer_km)
        self.pattern  # noqa: B018 - raises where the shares are no multiples

    @property
    def pattern(self) -> tuple[str, ...]:
        """The splits of consecutive bands, to be repeated: train first, then test, then val."""
        least = min(share for share in self.shares.values() if share > 0)
        counts = {name: self.shares.get(name, 0.0) / least for name in SPLITS}
        if any(abs(count - round(count)) > 0.01 for count in counts.values()):
            raise ValueError(f"shares {dict(self.shares)} are no multiples of the smallest, as 0.6, 0.2, 0.2 are")
        return tuple(name for name in ("train", "test", "val") for _ in range(round(counts[name])))


@dataclass(frozen=True, slots=True)
class LongitudeSplit:
    """Chips in order from west to east, as EuroSAT-Spatial: train, then val, then test."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rule: Literal["longitude"]
    """``longitude``: the westernmost chips train, the easternmost test."""
    shares: Shares = _shares(0.6, 0.2, 0.2)
    """Share of the chips for each of ``train``, ``val`` and ``test``. They sum to 1."""
    buffer_km: Annotated[float, Ge(0)] = 1.0
    """Shortest distance between chips of different splits, edge to edge, in km; chips in between are left out."""

    def __post_init__(self) -> None:
        check_shares(self.shares)
        _check_buffer(self.buffer_km)


@dataclass(frozen=True, slots=True)
class RegionSplit:
    """Regions held out as a whole: countries, departments, cities, disasters, halves of a city."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rule: Literal["regions"]
    """``regions``: by the polygon that a chip's centre lies in."""
    polygons: str
    """Path of a vector file with the regions."""
    attribute: str
    """The column with the region's name."""
    train: tuple[str | int, ...] = ()
    """Names of the regions that train. Empty: all that are not held out. Chips in no region are left out."""
    val: tuple[str | int, ...] = ()
    """Names of the regions that validate."""
    test: tuple[str | int, ...] = ()
    """Names of the regions that test. Where polygons of several splits lie on each other, test goes first, then val."""
    layer: str | None = None
    """Layer of the file, needed when it has several."""
    buffer_km: Annotated[float, Ge(0)] = 1.0
    """Shortest distance between chips of different splits, edge to edge, in km; chips in between are left out."""

    def __post_init__(self) -> None:
        _check_buffer(self.buffer_km)
        _check_lists("region", train=self.train, val=self.val, test=self.test)


@dataclass(frozen=True, slots=True)
class TileSplit:
    """Lists of MGRS tiles, or a list of your own of tiles or chips."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rule: Literal["tiles"]
    """``tiles``: by the MGRS square of 100 km that a chip's centre lies in, or by the id of the chip."""
    train: tuple[str, ...] = ()
    """Tiles that train, ``33UWP``. Empty: all that are not held out; otherwise chips of no tile are left out."""
    val: tuple[str, ...] = ()
    """Tiles that validate."""
    test: tuple[str, ...] = ()
    """Tiles that test."""
    file: str | None = None
    """Instead: a CSV file with the columns ``tile`` or ``chip``, and ``split``; what is not in it is left out."""
    buffer_km: Annotated[float, Ge(0)] = 1.0
    """Shortest distance between chips of different splits, edge to edge, in km; chips in between are left out."""

    def __post_init__(self) -> None:
        _check_buffer(self.buffer_km)
        if self.file is not None:
            if self.train or self.val or self.test:
                raise ValueError("tiles are listed in the recipe and in a file; give one of the two")
            return
        _check_lists("tile", train=self.train, val=self.val, test=self.test)
        for name in (*self.train, *self.val, *self.test):
            square_from_name(name)


@dataclass(frozen=True, slots=True)
class ClusterSplit:
    """Groups of places that lie together, held out as a whole, as InstaGeo does."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rule: Literal["clusters"]
    """``clusters``: k-means of coordinates, or chains of places that are linked."""
    of: Literal["tiles", "chips"] = "tiles"
    """What is grouped: MGRS squares of 100 km, or the chips themselves."""
    clusters: Annotated[int, Ge(2)] = 20
    """Number of clusters; the closest are held out together."""
    link_km: Annotated[float, Gt(0)] | None = None
    """Instead of k-means: places whose centres are this near, and what is linked through them, stay together."""
    shares: Shares = _shares(0.6, 0.2, 0.2)
    """Share of the chips for each of ``train``, ``val`` and ``test``; whole groups reach them as nearly as they can."""
    buffer_km: Annotated[float, Ge(0)] = 1.0
    """Shortest distance between chips of different splits, edge to edge, in km; chips in between are left out."""
    seed: int = 0
    """Another number starts k-means elsewhere and draws linked groups in another order."""

    def __post_init__(self) -> None:
        check_shares(self.shares)
        _check_buffer(self.buffer_km)


@dataclass(frozen=True, slots=True)
class YearSplit:
    """Places and years held out together: blocks as of ``blocks``, whose chips have only the years of their split."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rule: Literal["years"]
    """``years``: whole blocks of a global lattice, and for each split years of its own."""
    years: dict[Literal["train", "val", "test"], tuple[int | str, ...]]
    """For each of ``train``, ``val`` and ``test`` its years: ``[2018, 2019]``, or intervals of whole days
    (``2018-10-01/2019-10-01``, without the last day). No day belongs to two splits, none of the recipe's time to no
    split."""
    block_km: Annotated[float, Gt(0)] = 10.0
    """Side of a block in kilometres; blocks are never narrower than this."""
    buffer_km: Annotated[float, Ge(0)] = 1.0
    """Shortest distance between chips of different splits, edge to edge, in km; chips in between are left out. They
    belong to no split and have the dates of all years."""
    shares: Shares = _shares(0.7, 0.15, 0.15)
    """Share of the blocks for each of ``train``, ``val`` and ``test``. They sum to 1."""
    seed: int = 0
    """Another number gives another draw of the blocks."""

    def __post_init__(self) -> None:
        _check_blocks(self.block_km, self.buffer_km)
        check_shares(self.shares)
        for split in SPLITS:
            share = self.shares.get(split, 0.0)
            if share > 0 and not self.years.get(split):
                raise ValueError(f"{split} has a share of {share:g} and no years; give it years, or a share of 0")
            if not share > 0 and self.years.get(split):
                raise ValueError(f"{split} has years and a share of 0; give it a share, or no years")
        entries = sorted((span, split, name) for split, spans in self.entries.items() for name, span in spans.items())
        for (one, _, name), (other, _, following) in pairwise(entries):
            if other[0] < one[1]:
                raise ValueError(f"{name} and {following} share days; a day belongs to one split, and is named once")
        if len(self.entries) < 2:
            raise ValueError("one split has all the years; give val or test some, or take the rule blocks")

    @property
    def blocks(self) -> SplitSpec:
        """The rule that draws the places."""
        return SplitSpec(block_km=self.block_km, buffer_km=self.buffer_km, shares=self.shares, seed=self.seed)

    @property
    def entries(self) -> dict[str, dict[str, Span]]:
        """Split -> what the recipe calls a year -> its first moment and the one after its last, in order of time."""
        found = {split: [(_span(name), str(name)) for name in self.years.get(split, ())] for split in SPLITS}
        return {split: {name: span for span, name in sorted(spans)} for split, spans in found.items() if spans}

    @property
    def spans(self) -> dict[str, tuple[Span, ...]]:
        """Split -> its times in order; years that follow each other are one."""
        return {split: joined_spans(list(named.values())) for split, named in self.entries.items()}


def _span(name: int | str) -> Span:
    """The moments of a year, ``2018`` or ``2018-10-01/2019-10-01``."""
    text = str(name).strip()
    try:
        if "/" not in text:
            year = int(text)
            return _midnight(dt.date(year, 1, 1)), _midnight(dt.date(year + 1, 1, 1))
        first, end = (_midnight(dt.date.fromisoformat(day.strip())) for day in text.split("/"))
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no year; wanted one like 2018, or whole days like 2018-10-01/2019-10-01"
        ) from error
    if not first < end:
        raise ValueError(f"{text!r} holds no day; wanted the earlier one first, and the last is not part of it")
    return first, end


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def joined_spans(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Spans in order of time, those joined that touch or overlap."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return tuple(found)


def check_years(spec: YearSplit, time: Span, periods: Mapping[str, Sequence[Span]], composites: Sequence[str]) -> None:
    """Pass when the years of the splits fit the time of a recipe and the time axes of its sources.

    Args:
        spec: The rule.
        time: The recipe's time.
        periods: Name of each source with dates -> the periods of its composites, or the windows of its dates; the whole
            time for others.
        composites: Names of those with composites.

    Raises:
        ValueError: Days of the time are of no split, a split has none of it, a period of a composite lies in two
            splits, or a split has no part in any period or window.
    """
    left = time[0]
    for start, end in joined_spans([span for spans in spec.spans.values() for span in spans]):
        if start >= time[1] or left >= time[1]:
            break
        if start > left:
            raise ValueError(f"no split is given {_days(left, start)}; name it under years, or leave it out of time")
        left = max(left, end)
    if left < time[1]:
        raise ValueError(f"no split is given {_days(left, time[1])}; name it under years, or leave it out of time")
    for split, spans in spec.spans.items():
        if not any(_overlap(span, time) for span in spans):
            names = ", ".join(spec.entries[split])
            raise ValueError(f"{split} is given {names}, which lies outside {_days(*time)}; take years within it")
    for name, steps in periods.items():
        for split, spans in spec.spans.items():
            if not any(_overlap(span, step) for span in spans for step in steps):
                raise ValueError(
                    f"the dates that source {name} looks for lie outside the years of {split}, whose chips would stay "
                    "void; take another date, or other years"
                )
        for step in steps if name in composites else ():
            within = [split for split, spans in spec.spans.items() if any(_overlap(span, step) for span in spans)]
            if len(within) > 1:
                raise ValueError(
                    f"source {name} makes one image of {_days(*step)}, which lies in the years of "
                    f"{' and '.join(within)}; take periods that end with the years, or years that end with a period, "
                    f"as …/{step[0]:%Y-%m-%d} or …/{step[1]:%Y-%m-%d}"
                )


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _days(start: dt.datetime, end: dt.datetime) -> str:
    return f"{start:%Y-%m-%d}/{end:%Y-%m-%d}"


AnySplit = (
    SplitSpec
    | BalancedSplit
    | FoldSplit
    | YearSplit
    | RingSplit
    | BandSplit
    | LongitudeSplit
    | RegionSplit
    | TileSplit
    | ClusterSplit
)

RULES: dict[str, type[AnySplit]] = {
    "blocks": SplitSpec,
    "folds": FoldSplit,
    "years": YearSplit,
    "balanced": BalancedSplit,
    "rings": RingSplit,
    "tiles": TileSplit,
    "regions": RegionSplit,
    "bands": BandSplit,
    "longitude": LongitudeSplit,
    "clusters": ClusterSplit,
}
"""Name -> class of every rule."""

FROZEN: tuple[str, ...] = ("balanced", "regions", "tiles", "clusters")
"""Rules that look at more than the places of the chips; what they drew is kept in ``splits.json``."""

BY_PLACE: tuple[str, ...] = ("blocks", "folds", "years")
"""Rules by which the place of a chip alone decides on its split."""

_STABLE: dict[str, tuple[bool, str]] = {
    "blocks": (True, "a hash of the place decides, whatever the area, the dates and the sources"),
    "folds": (True, "a hash of the place decides, whatever the area, the dates and the sources"),
    "years": (True, "a hash of the place decides, whatever the area, the dates and the sources, and years are named"),
    "balanced": (
        False,
        "blocks are dealt out by the classes of the whole area: a larger area or another label deals anew",
    ),
    "rings": (True, "the place within its tile decides, whatever the area, the dates and the sources"),
    "tiles": (True, "the list decides, whatever the area, the dates and the sources"),
    "regions": (True, "the polygons decide, whatever the area, the dates and the sources"),
    "bands": (False, "bands are cut from the extent of the area: a larger area cuts them anew"),
    "longitude": (False, "the order of all chips decides: a larger area moves the limits"),
    "clusters": (False, "groups are made of all places of the area: a larger area groups them anew"),
}
_EDGE = "; with a buffer, chips that were the edge of an area may be left out when it grows, but none changes its split"


def stability(rule: str, buffer_km: float = 0.0) -> tuple[bool, str]:
    """Whether every place keeps its split when the area, the dates or the sources grow, and why."""
    stable, why = _STABLE[rule]
    if stable and buffer_km > 0 and rule not in BY_PLACE:
        return False, why + _EDGE
    return stable, why


def rule_of(value: Any) -> str:
    """The rule that a mapping of a recipe, or options already read, name; without a name it is ``blocks``.

    Raises:
        ValueError: There is no such rule.
    """
    rule = value.get("rule", "blocks") if isinstance(value, dict) else getattr(value, "rule", "blocks")
    if rule not in RULES:
        near = difflib.get_close_matches(str(rule), RULES, n=1)
        raise ValueError(
            f"rule is {rule!r}; " + (f"did you mean {near[0]!r}?" if near else f"wanted one of {', '.join(RULES)}")
        )
    return str(rule)
