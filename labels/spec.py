"""What the user says about one label. Light on purpose: recipes import it, so nothing here opens a file.

A label has exactly one origin (`vector`, `raster` or `product`), and an option that its origin does not know is
refused: an option that is silently without effect is worse than an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from labels.legend import PRODUCTS

MAX_CODE = 65535
"""Codes are stored as uint8, or uint16 when one of them is above 254."""

Code = Annotated[int, Ge(0), Le(MAX_CODE)]
ClassValue = str | int
"""A value of the class column: text or a whole number; ``3``, ``3.0`` and ``"3"`` mean the same."""

VECTOR_ONLY = ("attribute", "classes", "layer", "all_touched", "order", "background")
PRODUCT_ONLY = ("year", "catalog")


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """Where one label comes from and how it is drawn: exactly one of ``vector``, ``raster`` and ``product``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    vector: str | None = None
    """Path of a vector file (GeoJSON, GeoPackage, GeoParquet, Shapefile, OSM PBF …): its polygons are the label."""
    raster: str | tuple[str, ...] | None = None
    """Path, glob or list of them: class rasters on any grid and CRS. Where they overlap the first valid wins."""
    product: str | None = None
    """A land-cover product known by name and found through STAC: `esa-worldcover`, `io-lulc-annual-v02` …"""
    attribute: str | None = None
    """Vector: the column that holds the class. Without it every polygon is class 1."""
    classes: Mapping[ClassValue, Code | None] | None = None
    """Vector: value of the class column to code, or to null to leave it unlabelled; `'*'` stands for all values not
    listed. Without it the sorted values of the whole file become 1, 2, 3 …"""
    layer: str | None = None
    """Vector: layer of the file, needed when it has several (OSM PBF: `multipolygons`)."""
    all_touched: bool = False
    """Vector: burn every pixel that a polygon touches, not only those whose centre lies inside."""
    order: Literal["file", "small_on_top"] | tuple[ClassValue, ...] = "file"
    """Vector: what lies on top where polygons overlap: the later in the file, the smaller, or the later class."""
    background: Code | None = None
    """Vector: code where no polygon lies. Without it such pixels are unlabelled (`ignore`)."""
    ignore: Code | None = None
    """Value of unlabelled pixels, never a class. Without it 255, or 65535 when a code exceeds 254."""
    legend: str | None = None
    """CSV file with the columns code, name and color: what the codes mean."""
    nodata: int | None = None
    """Raster, product: value that means "no label" in the files, instead of what they say themselves."""
    year: int | None = None
    """Product: the year of the map. Without it the newest one we know of; years are never mixed in one label."""
    catalog: str | None = None
    """Product: STAC API or static catalog to find it in, instead of the build's own."""

    def __post_init__(self) -> None:
        origins = [name for name in ("vector", "raster", "product") if getattr(self, name) is not None]
        if len(origins) != 1:
            found = " and ".join(origins) or "none"
            raise ValueError(f"a label needs exactly one of vector, raster and product, found {found}")
        origin = origins[0]
        if getattr(self, origin) in ("", ()):
            raise ValueError(f"{origin} is empty: name a file or product")
        for name in VECTOR_ONLY if origin != "vector" else ():
            # A default written out (`all_touched: false` on a raster) asks for nothing, so it does no harm.
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise ValueError(f"{name} is an option of vector labels; this label is a {origin}")
        for name in PRODUCT_ONLY if origin != "product" else ():
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is an option of product labels; this label is a {origin}")
        if origin == "vector":
            self._check_vector()
        if self.product is not None and self.product not in PRODUCTS:
            raise ValueError(f"product {self.product!r} is not known; known are {', '.join(sorted(PRODUCTS))}")
        if self.product is not None and self.legend is not None:
            raise ValueError(f"product {self.product} brings its own legend; leave legend out, or use raster")
        if self.product is not None and self.year is None:
            # Written into the spec, so that the recipe beside the store says which map it was.
            object.__setattr__(self, "year", PRODUCTS[self.product].years[-1])

    def _check_vector(self) -> None:
        if self.nodata is not None:
            raise ValueError("nodata is an option of raster and product labels; a vector has none, see background")
        if self.attribute is None and self.classes is not None:
            raise ValueError("classes maps the values of a column: name it with attribute")
        if self.classes is not None and not self.classes:
            raise ValueError("classes is empty: list at least one value, or leave it out")
        if isinstance(self.order, tuple) and self.attribute is None:
            raise ValueError("an order of classes needs attribute, the column that holds the class")
        if self.ignore is None:
            return
        if self.classes is not None and self.ignore in self.classes.values():
            raise ValueError(f"ignore {self.ignore} is also the code of a class; unlabelled pixels need their own")
        if self.ignore == self.background:
            raise ValueError(f"background and ignore are both {self.ignore}; leave background out to ignore those")
