"""Which of an area's chips are taken: the options of the samplers. Light on purpose, because recipes import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

_CONFIG: dict[str, Any] = {"extra": "forbid", "use_attribute_docstrings": True}

_Count = Annotated[int, Ge(1)]
_Key = int | str


@dataclass(frozen=True, slots=True)
class AllCells:
    """Every chip of the area."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    method: Literal["all"] = "all"
    """``all``: every chip."""


@dataclass(frozen=True, slots=True)
class UniformSample:
    """Chips evenly over the ground: drawn by chance, or one at each point of a regular lattice."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    method: Literal["uniform"]
    """``uniform``: evenly over the ground."""
    n: _Count | None = None
    """So many chips, drawn by chance."""
    every_km: Annotated[float, Gt(0)] | None = None
    """The chip at each point of a lattice with this spacing, the same in every latitude. With ``n``, some of them."""
    land: str | None = None
    """Path of polygons; only chips of which they cover ``min_land`` are drawn from."""
    min_land: Annotated[float, Gt(0), Le(1)] = 0.5
    """Smallest share of a chip that lies on land."""
    seed: int = 0
    """Another number gives another draw."""

    def __post_init__(self) -> None:
        _positive("n", self.n)
        _positive_km("every_km", self.every_km)
        if self.n is None and self.every_km is None and self.land is None:
            raise ValueError("uniform takes every chip as it is; say n, every_km or land")
        if not 0 < self.min_land <= 1:
            raise ValueError(f"min_land is {self.min_land:g}; it is a share above 0 and at most 1")
        if self.land is None and self.min_land != 0.5:
            raise ValueError("'min_land' is for land; name the polygons, or remove it")

    @property
    def paths(self) -> tuple[str, ...]:
        """Options that are paths."""
        return ("land",) if self.land else ()


@dataclass(frozen=True, slots=True)
class CitySample:
    """Chips around cities: a city by chance, then a step away from it by a Gaussian, as SSL4EO-S12 does."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    method: Literal["cities"]
    """``cities``: around the points of a file."""
    points: str
    """Path of the cities: points with attributes (GeoJSON, GeoPackage, GeoParquet), or a CSV with `lon` and `lat`."""
    n: _Count
    """So many chips."""
    weight: str | None = None
    """Attribute, such as the population, by which a city is drawn more often. Empty: all alike."""
    largest: _Count | None = None
    """Only so many cities, those with the largest ``weight``, each drawn alike."""
    name: str | None = None
    """Attribute with the city's name, for the record."""
    sigma_km: Annotated[float, Gt(0)] = 50.0
    """Standard deviation of the step, in kilometres to the north and to the east alike."""
    apart_km: Annotated[float, Ge(0)] = 0.0
    """Middles of the chips taken are at least this far from each other."""
    seed: int = 0
    """Another number gives another draw."""

    def __post_init__(self) -> None:
        _positive("n", self.n)
        _positive("largest", self.largest)
        _positive_km("sigma_km", self.sigma_km)
        _distance_km("apart_km", self.apart_km)
        if self.largest is not None and self.weight is None:
            raise ValueError("'largest' needs to know by what; say the attribute as 'weight'")

    @property
    def paths(self) -> tuple[str, ...]:
        """Options that are paths."""
        return ("points",)


@dataclass(frozen=True, slots=True)
class StrataSample:
    """A quota of chips from each stratum, such as a biome; a chip is of the one that most of it lies in."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    method: Literal["strata"]
    """``strata``: so many of each part."""
    vector: str | None = None
    """Path of polygons; ``attribute`` names their strata."""
    attribute: str | None = None
    """Attribute of the polygons."""
    raster: str | tuple[str, ...] | None = None
    """Path, glob or list of rasters of whole numbers, the codes of the strata."""
    n: _Count | None = None
    """So many chips in all, the same number of each stratum; what a small one lacks goes to the others."""
    each: _Count | None = None
    """So many chips of each stratum."""
    quota: dict[_Key, Annotated[int, Ge(0)]] = field(default_factory=dict)
    """Stratum -> number of chips; of the others none."""
    seed: int = 0
    """Another number gives another draw."""

    def __post_init__(self) -> None:
        _one_layer("strata", self.vector, self.attribute, self.raster)
        _one_amount("strata", {"n": self.n, "each": self.each, "quota": self.quota or None})
        _quota(self.quota)

    @property
    def paths(self) -> tuple[str, ...]:
        """Options that are paths."""
        return _layer_paths(self.vector)


@dataclass(frozen=True, slots=True)
class LandCoverSample:
    """Chips by their land cover on a coarse raster."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    method: Literal["landcover"]
    """``landcover``: by how much of each class a chip has."""
    raster: str | tuple[str, ...]
    """Path, glob or list of rasters of classes (whole numbers)."""
    how: Literal["quota", "kmeans", "entropy"] = "quota"
    """``quota``: chips that have enough of a class, so many a class. ``kmeans``: the chips nearest the centres of ``n``
    clusters of class shares, so that every kind of landscape is there once. ``entropy``: the ``n`` chips with the
    purest (or most mixed) cover."""
    n: _Count | None = None
    """With ``kmeans`` and ``entropy``: so many chips."""
    each: _Count | None = None
    """With ``quota``: so many chips of each class."""
    quota: dict[int, Annotated[int, Ge(0)]] = field(default_factory=dict)
    """With ``quota``: class -> number of chips; of the others none."""
    min_share: Annotated[float, Gt(0), Le(1)] = 0.1
    """With ``quota``: share of a chip from which on it has a class."""
    mixed: bool = False
    """With ``entropy``: the most mixed chips and not the purest."""
    min_known: Annotated[float, Ge(0), Le(1)] = 0.5
    """Chips of which the raster knows less than this share are left out."""
    seed: int = 0
    """Another number gives another draw."""

    def __post_init__(self) -> None:
        if self.how == "quota":
            _one_amount("landcover: quota", {"each": self.each, "quota": self.quota or None})
            if self.n is not None:
                raise ValueError("'n' is for kmeans and entropy; say each, or quota: {class: number}")
        elif self.n is None:
            raise ValueError(f"how: {self.how} needs n, the number of chips")
        elif self.each is not None or self.quota:
            raise ValueError(f"'each' and 'quota' are for how: quota, and this is {self.how}; remove them")
        if self.mixed and self.how != "entropy":
            raise ValueError("'mixed' is for how: entropy; remove it")
        _quota(self.quota)
        _positive("n", self.n)
        _positive("each", self.each)
        for option in ("min_share", "min_known"):
            if not 0 <= getattr(self, option) <= 1:
                raise ValueError(f"{option} is {getattr(self, option):g}; it is a share from 0 to 1")

    @property
    def paths(self) -> tuple[str, ...]:
        """Options that are paths; rasters are resolved by themselves, because they may be lists."""
        return ()


@dataclass(frozen=True, slots=True)
class OsmSample:
    """So many chips of each category that OpenStreetMap has in them, as OlmoEarth draws its places."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    method: Literal["osm"]
    """``osm``: by what OpenStreetMap has in a chip."""
    extract: str
    """Path of an extract, as for labels: `.osm.pbf` or a table made of one."""
    rules: str = "landuse"
    """Which tags are which category: the name of a rule set of ours (`curate labels`), or the path of your own."""
    each: _Count | None = None
    """So many chips of each category."""
    quota: dict[str, Annotated[int, Ge(0)]] = field(default_factory=dict)
    """Category -> number of chips; of the others none."""
    seed: int = 0
    """Another number gives another draw."""

    def __post_init__(self) -> None:
        _one_amount("osm", {"each": self.each, "quota": self.quota or None})
        _positive("each", self.each)
        _quota(self.quota)

    @property
    def paths(self) -> tuple[str, ...]:
        """Options that are paths; ``rules`` may be a name."""
        return ("extract",)


@dataclass(frozen=True, slots=True)
class PositiveSample:
    """Chips that have something, chips that have not, and chips that only look or lie as if they had."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    method: Literal["positives"]
    """``positives``: chips with the features of a file, and negatives to them."""
    vector: str
    """Path of the features: points, lines or polygons. A chip that one of them touches is positive."""
    n: _Count | None = None
    """So many positives, drawn by chance. Empty: all of them."""
    negatives: Annotated[float, Ge(0)] = 1.0
    """So many random negatives for each positive."""
    hard: Annotated[float, Ge(0)] = 0.0
    """So many hard negatives for each positive: near a positive (``hard_km``), or with features that look alike."""
    apart_km: Annotated[float, Ge(0)] | None = None
    """Random negatives lie at least this far from all positives, middle to middle. Empty: two sides of a chip."""
    hard_km: Annotated[float, Gt(0)] | None = None
    """Hard negatives lie within this distance of a positive, middle to middle."""
    hard_vector: str | None = None
    """Path of features that look alike: a chip that they touch, and no positive feature, is a hard negative."""
    seed: int = 0
    """Another number gives another draw."""

    def __post_init__(self) -> None:
        _positive("n", self.n)
        for option in ("negatives", "hard", "apart_km"):
            _distance_km(option, getattr(self, option))
        _positive_km("hard_km", self.hard_km)
        told = (self.hard_km is not None) + (self.hard_vector is not None)
        if self.hard and told != 1:
            raise ValueError("hard negatives need to be told by one of hard_km and hard_vector")
        if not self.hard and told:
            raise ValueError("'hard_km' and 'hard_vector' are for hard negatives; say how many, as hard: 1")

    @property
    def paths(self) -> tuple[str, ...]:
        """Options that are paths."""
        return ("vector", "hard_vector") if self.hard_vector else ("vector",)


@dataclass(frozen=True, slots=True)
class BalancedSample:
    """Chips drawn so that the classes come out as even as chance and the area allow."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    method: Literal["balanced"]
    """``balanced``: chips with rare classes are drawn more often."""
    n: _Count
    """So many chips."""
    vector: str | None = None
    """Path of polygons; ``attribute`` names their classes."""
    attribute: str | None = None
    """Attribute of the polygons."""
    raster: str | tuple[str, ...] | None = None
    """Path, glob or list of rasters of classes (whole numbers)."""
    weights: dict[_Key, Annotated[float, Ge(0)]] = field(default_factory=dict)
    """Class -> how much it should have of the whole, 1 where nothing is said; 0 leaves it out of account."""
    seed: int = 0
    """Another number gives another draw."""

    def __post_init__(self) -> None:
        _positive("n", self.n)
        _one_layer("balanced", self.vector, self.attribute, self.raster)
        for name, value in self.weights.items():
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"the weight of {name!r} is {value:g}; it is 0 or more")

    @property
    def paths(self) -> tuple[str, ...]:
        """Options that are paths."""
        return _layer_paths(self.vector)


@dataclass(frozen=True, slots=True)
class DistinctSample:
    """Chips no two of which look the same on a raster, anywhere or near each other."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    method: Literal["distinct"]
    """``distinct``: of chips that look the same, one."""
    raster: str | tuple[str, ...]
    """Path, glob or list of rasters on which chips are compared, point by point."""
    tolerance: Annotated[float, Ge(0)] = 0.0
    """Largest mean difference, in the raster's units, at which two chips are the same. 0: equal at every point."""
    within_km: Annotated[float, Gt(0)] | None = None
    """Only chips whose middles are nearer than this are compared. Empty: all, which wants a tolerance of 0."""
    seed: int = 0
    """Another number keeps another one of those that look the same."""

    def __post_init__(self) -> None:
        _distance_km("tolerance", self.tolerance)
        _positive_km("within_km", self.within_km)
        if self.tolerance and self.within_km is None:
            raise ValueError("chips that are only nearly the same are looked for near each other; say within_km")

    @property
    def paths(self) -> tuple[str, ...]:
        """Options that are paths; rasters are resolved by themselves, because they may be lists."""
        return ()


SampleStep = (
    AllCells
    | UniformSample
    | CitySample
    | StrataSample
    | LandCoverSample
    | OsmSample
    | PositiveSample
    | BalancedSample
    | DistinctSample
)


def _positive(option: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{option} is {value}, wanted at least 1")


def _positive_km(option: str, value: float | None) -> None:
    if value is not None and not (isfinite(value) and value > 0):
        raise ValueError(f"{option} is {value:g}; wanted a number above 0")


def _distance_km(option: str, value: float | None) -> None:
    if value is not None and not (isfinite(value) and value >= 0):
        raise ValueError(f"{option} is {value:g}; wanted 0 or more")


def _one_layer(method: str, vector: str | None, attribute: str | None, raster: str | tuple[str, ...] | None) -> None:
    if (vector is None) == (raster is None):
        raise ValueError(f"{method} needs one layer: vector with attribute, or raster")
    if (vector is None) != (attribute is None):
        raise ValueError("'vector' and 'attribute' belong together; wanted both or neither")


def _layer_paths(vector: str | None) -> tuple[str, ...]:
    return ("vector",) if vector else ()


def _one_amount(method: str, amounts: Mapping[str, Any]) -> None:
    given = [name for name, value in amounts.items() if value is not None]
    if len(given) != 1:
        found = "none" if not given else " and ".join(given)
        raise ValueError(f"{method} holds {found} of {', '.join(amounts)}; wanted exactly one")


def _quota(quota: Mapping[Any, int]) -> None:
    if quota and not any(quota.values()):
        raise ValueError("quota asks for no chip at all")
    for name, count in quota.items():
        if count < 0:
            raise ValueError(f"the quota of {name!r} is {count}; it is 0 or more")
