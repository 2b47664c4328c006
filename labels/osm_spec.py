"""What the user says about a label from OpenStreetMap. Light on purpose, because recipes import it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from labels.rules import RULE_SETS, is_path

Output = Literal["mask", "presence", "instances", "fraction", "rank"]

_Code = Annotated[int, Ge(0), Le(65535)]


@dataclass(frozen=True, slots=True)
class OsmLabel:
    """OpenStreetMap's features as classes, channels or instances."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    extract: str
    """Path of an extract: `.osm.pbf` (or another format of OpenStreetMap), or a table made of one (GeoParquet,
    GeoPackage …) with the tags in a column or a column a key."""
    rules: str = "landuse"
    """Which tags are which class: `landuse` (WorldCover's classes), `osmclcplus`, `schultz`, `inta`, `olmoearth`, or
    the path of rules of your own (TOML, YAML or CSV); `curate labels` lists them."""
    extract_date: str | None = None
    """Date of the extract (`2024-01-01`), where the file does not tell it itself; it stands in the output."""
    output: Output | tuple[Output, ...] = "mask"
    """`mask`: one class a pixel. `presence`: a channel of 0 and 1 for each class. `instances`: the number of the
    feature. `fraction`: percent of the pixel that each class covers. `rank`: how high in the order of drawing the
    mask's class stands. Several of them become several variables."""
    background: _Code | None = None
    """Mask: code where no feature lies. Without it such pixels are unlabelled (`ignore`)."""
    ignore: _Code | None = None
    """Mask: value of unlabelled pixels, never a class. Without it 255, or 65535 when a code exceeds 254."""
    all_touched: bool = False
    """Draw on every pixel that a feature touches, not only where the pixel's centre lies inside."""
    lines: Literal["width", "wide", "none"] = "width"
    """Lines are drawn as wide as they are; or only those that are at least one pixel wide; or none."""
    resolution_m: Annotated[float, Gt(0)] | None = None
    """Side of the label's own pixels in metres, where they are not the grid's; it has to divide the chips."""
    features: bool = False
    """Keep the features themselves, with all their tags, as a table beside the store (under the ODbL)."""
    min_labelled: Annotated[float, Ge(0), Le(1)] = 0.0
    """Share of a chip that should have a class; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        if not self.extract:
            raise ValueError("extract is empty: name a file, for example austria-240101.osm.pbf")
        if not is_path(self.rules) and self.rules not in RULE_SETS:
            near = difflib.get_close_matches(self.rules, RULE_SETS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(RULE_SETS)}, or a path"
            raise ValueError(f"rules {self.rules!r} are not known{hint}")
        if self.extract_date is not None:
            try:
                datetime.fromisoformat(self.extract_date)
            except ValueError as error:
                raise ValueError(
                    f"extract_date {self.extract_date!r} is no date; write it like 2024-01-01 or 2024-01-01T20:21:00Z"
                ) from error
        if not self.outputs:
            raise ValueError("output is empty: say mask, presence, instances, fraction or rank")
        if len(set(self.outputs)) < len(self.outputs):
            raise ValueError("output lists something twice")
        if self.background is not None and self.background == self.ignore:
            raise ValueError(f"background and ignore are both {self.ignore}; leave background out to ignore those")
        if "mask" not in self.outputs and (self.background, self.ignore) != (None, None):
            raise ValueError("background and ignore are options of the mask; add mask to output, or leave them out")

    @property
    def outputs(self) -> tuple[Output, ...]:
        """``output`` as a tuple."""
        return (self.output,) if isinstance(self.output, str) else self.output

    @property
    def paths(self) -> tuple[str, ...]:
        """Options that are paths; ``rules`` only where it is no name."""
        return ("extract", "rules") if is_path(self.rules) else ("extract",)
