"""The other rules for splits, as options of a recipe. Light on purpose: recipes import it, the drawing is elsewhere.

``tiling.split_draw`` draws them. Every rule puts a chip, and so a place with all its dates and sources, into one split.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, pi
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from tiling.mgrs import square_from_name
from tiling.split import SPLITS, SplitSpec, check_shares

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


AnySplit = (
    SplitSpec
    | BalancedSplit
    | FoldSplit
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

_STABLE: dict[str, tuple[bool, str]] = {
    "blocks": (True, "a hash of the place decides, whatever the area, the dates and the sources"),
    "folds": (True, "a hash of the place decides, whatever the area, the dates and the sources"),
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
    if stable and buffer_km > 0 and rule not in ("blocks", "folds"):
        return False, why + _EDGE
    return stable, why


def rule_of(value: Any) -> str:
    """The rule that a mapping of a recipe, or options already read, name; without a name it is ``blocks``.

    Raises:
        ValueError: There is no such rule.
    """
    rule = value.get("rule", "blocks") if isinstance(value, dict) else getattr(value, "rule", "blocks")
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; wanted one of {', '.join(RULES)}")
    return str(rule)
