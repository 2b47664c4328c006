"""What the codes of a label mean: code, name and colour, and the land-cover products that we know by name.

Light on purpose (standard library only): the recipe checks product names with it. Codes are always the product's own;
to translate them is a later step and never happens in silence.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from curate.errors import LabelError

HEX_COLOR = re.compile(r"#[0-9a-f]{6}")
NOT_A_WORD = re.compile(r"[^A-Za-z0-9_\-.+@]+")
"""What CF §3.5 does not allow in one word of ``flag_meanings``."""


@dataclass(frozen=True, slots=True)
class LabelClass:
    """One class of a label."""

    code: int
    name: str
    color: str | None = None
    """``#rrggbb`` in lower case, or None when the source has no colour for it."""


@dataclass(frozen=True, slots=True)
class Legend:
    """All classes of a label in ascending order of code. The ignore value is never among them."""

    classes: tuple[LabelClass, ...]

    def __post_init__(self) -> None:
        twice = sorted(code for code, n in Counter(self.codes).items() if n > 1)
        if twice:
            raise ValueError(f"code {twice[0]} stands twice in the legend")
        object.__setattr__(self, "classes", tuple(sorted(self.classes, key=lambda c: c.code)))

    @property
    def codes(self) -> tuple[int, ...]:
        """The codes, ascending."""
        return tuple(c.code for c in self.classes)

    def name(self, code: int) -> str:
        """Name of a code; KeyError when the legend does not have it."""
        for c in self.classes:
            if c.code == code:
                return c.name
        raise KeyError(code)

    def without(self, codes: Iterable[int]) -> Legend:
        """The legend without these codes (the product's own "no data", above all)."""
        gone = set(codes)
        return Legend(tuple(c for c in self.classes if c.code not in gone))

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes for the store, JSON-ready: CF ``flag_values`` and ``flag_meanings``, the plain names, the colours.

        CF wants one word a class, so "Tree cover" is ``Tree_cover`` in ``flag_meanings`` and itself in ``flag_names``.
        ``flag_colors`` stands only where every class has one: a list with gaps would be read shifted.
        """
        if not self.classes:
            return {}
        attrs: dict[str, Any] = {
            "flag_values": list(self.codes),
            "flag_meanings": " ".join(self._words()),
            "flag_names": [c.name for c in self.classes],
        }
        colors = [c.color for c in self.classes if c.color is not None]
        if len(colors) == len(self.classes):
            attrs["flag_colors"] = " ".join(colors)
        return attrs

    def _words(self) -> list[str]:
        words = [NOT_A_WORD.sub("_", c.name).strip("_") or f"class_{c.code}" for c in self.classes]
        # Names that differ only in signs or in a foreign alphabet would fall together; the code tells them apart again.
        seen = Counter(words)
        return [w if seen[w] == 1 else f"{w}_{c.code}" for w, c in zip(words, self.classes, strict=True)]


@dataclass(frozen=True, slots=True)
class Product:
    """A land-cover product that a recipe can name: where STAC has it and what its codes mean."""

    name: str
    title: str
    collection: str
    """Id of the STAC collection."""
    asset: str
    """Key of the asset with the classes."""
    legend: str
    """File name of its legend among our tables."""
    nodata: int
    """The value it calls "no data"."""
    resolution_m: float
    years: tuple[int, ...]
    """Years recorded when the table was made, ascending."""
    licence: str
    attribution: str


def _read_products() -> dict[str, Product]:
    table = tomllib.loads(_table("products.toml"))
    return {name: Product(name=name, **{**row, "years": tuple(row["years"])}) for name, row in table.items()}


def _table(name: str) -> str:
    return (resources.files("labels") / "tables" / name).read_text(encoding="utf-8")


PRODUCTS: dict[str, Product] = _read_products()
"""The products by name."""


def product_legend(name: str) -> Legend:
    """Legend of a product in ``PRODUCTS``, without the row of its "no data" value; LabelError when it is not known."""
    product = PRODUCTS.get(name)
    if product is None:
        raise LabelError(name, f"no such land-cover product; known are {', '.join(sorted(PRODUCTS))}")
    return parse_legend(_table(product.legend), product.legend).without([product.nodata])


def read_legend(path: str | Path) -> Legend:
    """Legend in a CSV file with the columns ``code`` and ``name``, and ``color`` (``#rrggbb``) where it is known.

    Raises:
        LabelError: The file is missing, or a row cannot be understood; it names the line.
    """
    try:
        # utf-8-sig: spreadsheets like to begin a CSV with a byte-order mark, which would hide the first column.
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(str(path), f"the legend cannot be read ({error}); wanted a CSV in UTF-8") from error
    return parse_legend(text, str(path))


def parse_legend(text: str, source: str) -> Legend:
    """Legend from the text of a CSV; ``source`` names it in errors."""
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    columns = [c.strip().lower() for c in rows.fieldnames or ()]
    if missing := [c for c in ("code", "name") if c not in columns]:
        found = ", ".join(columns) or "none"
        raise LabelError(source, f"the legend needs the columns code and name; {missing[0]} is missing, found {found}")
    rows.fieldnames = columns
    classes = [_parse_class(row, f"{source}, line {rows.line_num}") for row in rows]
    if not classes:
        raise LabelError(source, "the legend has no rows; wanted one a class")
    try:
        return Legend(tuple(classes))
    except ValueError as error:
        raise LabelError(source, f"{error}; keep one row for each code") from error


def _parse_class(row: dict[str, str | None], where: str) -> LabelClass:
    code, name, color = ((row.get(key) or "").strip() for key in ("code", "name", "color"))
    if not code.isascii() or not code.isdigit():
        raise LabelError(where, f"code {code!r} is not a whole number from 0 up")
    if not name:
        raise LabelError(where, f"code {code} has no name; every class needs one")
    if color and not HEX_COLOR.fullmatch(color.lower()):
        raise LabelError(where, f"color {color!r} is not of the form #rrggbb; correct it or leave it empty")
    return LabelClass(int(code), name, color.lower() or None)
