"""What the user says about a label of points. Light on purpose: recipes import it, so nothing here opens a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from labels.options import ClassValue, Code, Share

Several = Literal["majority", "mean", "last", "first"]


@dataclass(frozen=True, slots=True)
class PointsSpec:
    """Places with a class or a value: field surveys, laser footprints, stations."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ("points", "legend")

    points: str | tuple[str, ...]
    """Path, glob or list of them: CSV or Parquet with a column for each coordinate, or any vector file with points."""
    attribute: str | None = None
    """The column that holds the class or the value. Without it every point is class 1."""
    kind: Literal["classes", "measure"] = "classes"
    """Whether the column holds classes, or something measured (float32, NaN where there is no point)."""
    classes: Mapping[ClassValue, Code | None] | None = None
    """Value of the class column to code, or to null to leave the point out; `'*'` stands for all values not listed.
    Without it the sorted values of all files become 1, 2, 3 …"""
    x: str | None = None
    """Column of longitudes or eastings, where the file has no geometries. Without it `lon`, `longitude`, `x` and what
    GEDI and LUCAS call it are tried."""
    y: str | None = None
    """Column of latitudes or northings."""
    crs: str | None = None
    """CRS of `x` and `y`. Without it they are degrees in EPSG:4326."""
    layer: str | None = None
    """Layer of the file, needed when it has several with points."""
    keep: Mapping[str, ClassValue | tuple[ClassValue, ...]] | None = None
    """Only points whose column has (one of) this value: `{l4_quality_flag: 1}`. How many had another is recorded."""
    date: str | None = None
    """Column with the date of each point, ISO 8601, UTC where it does not say."""
    tolerance_days: Annotated[float, Ge(0)] | None = None
    """How far before or after the images' interval a point may lie. Without it dates do not matter, except for
    `several: last` and `first`."""
    window_px: Annotated[int, Ge(0), Le(64)] = 0
    """A point counts for the (2 w + 1)² pixels around it; where several reach a pixel, the nearest."""
    several: Several | None = None
    """What a pixel with several points gets: the most frequent class (`majority`, the default for classes), the `mean`
    (the default for measures), or the `last` or `first` by date, else by place in the file. Pixels whose points
    disagree are recorded."""
    min_points: Annotated[int, Ge(0)] = 0
    """Points a chip should have; chips with fewer are `partial`, and the index says why."""
    ignore: Code | None = None
    """Classes: value of pixels without a point, never a class. Without it 255, or 65535 when a code exceeds 254."""
    legend: str | None = None
    """Classes: CSV file with the columns code, name and color: what the codes mean."""
    units: str = ""
    """Measures: unit of the values, as UDUNITS writes it."""
    valid_range: tuple[float, float] | None = None
    """Measures: smallest and largest value that can be true; other points are left out."""
    min_labelled: Share = 0.0
    """Share of a chip that should have a label; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        if self.points in ("", ()):
            raise ValueError("points is empty: name a file")
        if (self.x is None) != (self.y is None):
            raise ValueError("x and y name the columns of both coordinates; give both or none")
        if self.kind == "measure":
            self._check_measure()
        else:
            self._check_classes()
        if self.tolerance_days is not None and self.date is None:
            raise ValueError("tolerance_days compares dates: name their column with date")

    def _check_measure(self) -> None:
        if self.attribute is None:
            raise ValueError("a measure needs attribute, the column that holds the values")
        for name in ("classes", "ignore", "legend"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is an option of classes; this label is a measure")
        if self.several == "majority":
            raise ValueError("several: majority is for classes; a measure has mean, last or first")
        if self.valid_range is not None and not self.valid_range[0] < self.valid_range[1]:
            low, high = self.valid_range
            raise ValueError(f"valid_range goes from the smallest to the largest value; {low:g} is not below {high:g}")

    def _check_classes(self) -> None:
        if self.several == "mean":
            raise ValueError("several: mean would invent classes; take majority, last or first, or kind: measure")
        if self.units or self.valid_range is not None:
            raise ValueError("units and valid_range are options of measures; this label has classes")
        if self.attribute is None and self.classes is not None:
            raise ValueError("classes maps the values of a column: name it with attribute")
        if self.classes is not None and not self.classes:
            raise ValueError("classes is empty: list at least one value, or leave it out")
        if self.classes is not None and self.ignore is not None and self.ignore in self.classes.values():
            raise ValueError(f"ignore {self.ignore} is also the code of a class; unlabelled pixels need their own")
