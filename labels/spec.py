"""What the user says about one label. Light on purpose: recipes import it, so nothing here opens a file.

Each kind of label is a class of its own with its own options, told apart by the key that names its origin (``vector``,
``raster``, ``product`` …). So an option that a kind does not know cannot be given: an option that is silently without
effect is worse than an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from curate.errors import LabelError
from labels.agreement import AgreeSpec
from labels.caption import CaptionSpec
from labels.change import ChangeSpec
from labels.legend import PRODUCTS, find_product
from labels.measure_spec import MeasureSpec
from labels.options import ClassValue, Code, Share
from labels.ordinal import OrdinalSpec
from labels.osm_spec import OsmLabel
from labels.points_spec import PointsSpec
from labels.scenes import SceneSpec
from labels.segments import RelabelSpec
from labels.translate import TranslateSpec
from labels.zonal import HistogramSpec, ZonalSpec

Target = Literal["instances", "boundary", "distance", "extent", "panoptic"]
"""What can be made of parcels."""


@dataclass(frozen=True, slots=True)
class VectorLabel:
    """Polygons of a vector file as classes."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ("vector", "legend")

    vector: str
    """Path of a vector file (GeoJSON, GeoPackage, GeoParquet, Shapefile, OSM PBF …): its polygons are the label."""
    attribute: str | None = None
    """The column that holds the class. Without it every polygon is class 1."""
    classes: Mapping[ClassValue, Code | None] | None = None
    """Value of the class column to code, or to null to leave it unlabelled; `'*'` stands for all values not
    listed. Without it the sorted values of the whole file become 1, 2, 3 …"""
    layer: str | None = None
    """Layer of the file, needed when it has several (OSM PBF: `multipolygons`)."""
    all_touched: bool = False
    """Burn every pixel that a polygon touches, not only those whose centre lies inside."""
    order: Literal["file", "small_on_top"] | tuple[ClassValue, ...] = "file"
    """What lies on top where polygons overlap: the later in the file, the smaller, or the later class."""
    background: Code | None = None
    """Code where no polygon lies. Without it such pixels are unlabelled (`ignore`)."""
    ignore: Code | None = None
    """Value of unlabelled pixels, never a class. Without it 255, or 65535 when a code exceeds 254."""
    legend: str | None = None
    """What the codes mean: a legend we know by name (`corine`; `curate labels` lists them), or a CSV file with the
    columns code, name and color."""
    targets: tuple[Target, ...] = ()
    """What else is made of the polygons as parcels: `instances` (ids), `boundary`, `distance`, `extent`, `panoptic`."""
    id: str | None = None
    """Column with a whole number for each feature, from 1. Without it ids count the features of the file."""
    columns: tuple[str, ...] = ()
    """Columns of numbers that are kept as pixels too: the quality of the label, its yield …"""
    boundary_px: Annotated[int, Ge(1), Le(64)] = 1
    """Width of `boundary` and of that class of `extent`, within the parcel."""
    distance_px: Annotated[int, Ge(1), Le(256)] = 32
    """Where `distance` is cut off."""
    complete: bool = True
    """Whether there is no parcel where the file has none; otherwise `extent` is unlabelled there."""
    features: bool = False
    """Write the features themselves too, cut to the chips, as `labels/<name>.parquet`."""
    min_labelled: Share = 0.0
    """Share of a chip that should have a class; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        _need_a_name(self, "vector")
        if self.attribute is None and self.classes is not None:
            raise ValueError("classes maps the values of a column: name it with attribute")
        if self.classes is not None and not self.classes:
            raise ValueError("classes is empty: list at least one value, or leave it out")
        if len(set(self.targets)) < len(self.targets) or len(set(self.columns)) < len(self.columns):
            raise ValueError("targets or columns name something twice; name each once")
        if isinstance(self.order, tuple) and self.attribute is None:
            raise ValueError("an order of classes needs attribute, the column that holds the class")
        if self.ignore is None:
            return
        if self.classes is not None and self.ignore in self.classes.values():
            raise ValueError(f"ignore {self.ignore} is also the code of a class; unlabelled pixels need their own")
        if self.ignore == self.background:
            raise ValueError(f"background and ignore are both {self.ignore}; leave background out to ignore those")


@dataclass(frozen=True, slots=True)
class RasterLabel:
    """Class rasters of the user's own, on any grid and CRS."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ("raster", "legend")

    raster: str | tuple[str, ...]
    """Path, glob or list of them. Where files overlap the first valid pixel wins."""
    legend: str | None = None
    """What the codes mean: a legend we know by name (`corine`; `curate labels` lists them), or a CSV file with the
    columns code, name and color."""
    nodata: int | None = None
    """Value that means "no label" in the files, instead of what they say themselves."""
    ignore: Code | None = None
    """Value of unlabelled pixels, never a class. Without it 255, or 65535 when a code exceeds 254."""
    min_labelled: Share = 0.0
    """Share of a chip that should have a class; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        _need_a_name(self, "raster")


@dataclass(frozen=True, slots=True)
class ProductLabel:
    """A land-cover product known by name and found through STAC."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ()

    product: str
    """Its name: `esa-worldcover`, `io-lulc-annual-v02` …; `curate labels` lists them."""
    year: int | None = None
    """The year of the map. Without it the newest one we know of; years are never mixed in one label."""
    catalog: str | None = None
    """STAC API or static catalog to find it in, instead of the build's own."""
    nodata: int | None = None
    """Value that means "no label" in the files, instead of what the product says itself."""
    ignore: Code | None = None
    """Value of unlabelled pixels, never a class. Without it 255, or 65535 when a code exceeds 254."""
    min_labelled: Share = 0.0
    """Share of a chip that should have a class; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        _need_a_name(self, "product")
        try:
            product = find_product(self.product)
        except LabelError as error:
            raise ValueError(f"product {error}") from error
        if product.name not in PRODUCTS:
            raise ValueError(
                f"product {self.product!r}: no catalog is known to have it, only what its codes mean; "
                f"give its files as raster or vector with `legend: {product.name}`"
            )
        # Written into the spec, so that the recipe beside the store says which map it was, whatever it was called.
        object.__setattr__(self, "product", product.name)
        if self.year is None:
            object.__setattr__(self, "year", product.years[-1])


def _need_a_name(spec: Any, key: str) -> None:
    if getattr(spec, key) in ("", ()):
        raise ValueError(f"{key} is empty: name a file or product")


DrawnSpec = VectorLabel | RasterLabel | ProductLabel | OsmLabel | MeasureSpec | PointsSpec
"""Labels that are drawn from the place."""

DerivedSpec = (
    AgreeSpec
    | TranslateSpec
    | RelabelSpec
    | SceneSpec
    | ChangeSpec
    | ZonalSpec
    | HistogramSpec
    | OrdinalSpec
    | CaptionSpec
)
"""Labels that are made from others on each chip."""

LabelSpec = DrawnSpec | DerivedSpec
"""Every kind of label that a recipe can ask for."""

KINDS: dict[str, type[Any]] = {
    "vector": VectorLabel,
    "raster": RasterLabel,
    "product": ProductLabel,
    "extract": OsmLabel,
    "measure": MeasureSpec,
    "points": PointsSpec,
    "agree": AgreeSpec,
    "to": TranslateSpec,
    "segments": RelabelSpec,
    "scene": SceneSpec,
    "change": ChangeSpec,
    "zones": ZonalSpec,
    "histogram": HistogramSpec,
    "ordinal": OrdinalSpec,
    "caption": CaptionSpec,
}
"""The key by which a kind is told -> its class."""


def reads(spec: LabelSpec) -> tuple[str, ...]:
    """The labels, or variables of labels, that a derived label is made from; none for one that is drawn."""
    match spec:
        case AgreeSpec():
            return spec.agree
        case ChangeSpec():
            return spec.change
        case ZonalSpec():
            return (spec.zones, *spec.of)
        case RelabelSpec():
            return (spec.of,) if spec.confidence is None else (spec.of, spec.confidence)
        case TranslateSpec() | SceneSpec() | HistogramSpec() | OrdinalSpec() | CaptionSpec():
            return (spec.of,)
    return ()


def kind_of(given: Mapping[str, Any]) -> str:
    """The key that tells which kind of label the options are.

    Raises:
        ValueError: None or several of these keys are there, or an option is one of another kind.
    """
    found = [key for key in KINDS if key in given]
    *rest, last = KINDS
    if len(found) != 1:
        meant = [near for option in given for near in difflib.get_close_matches(str(option), KINDS, n=1, cutoff=0.7)]
        raise ValueError(
            f"a label needs exactly one of {', '.join(rest)} and {last}, found {' and '.join(found) or 'none'}"
            + (f"; did you mean {meant[0]!r}?" if meant and not found else "")
        )
    kind = found[0]
    known = {field.name for field in fields(KINDS[kind])}
    for option in given:
        others = [key for key, spec in KINDS.items() if option in {field.name for field in fields(spec)}]
        if option not in known and others:
            raise ValueError(f"{option} is an option of {' and '.join(others)} labels; this label is a {kind}")
    return kind
