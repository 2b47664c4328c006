"""What the codes of a label mean: code, name and colour, and the land-cover products that we know by name.

Light on purpose (standard library only): the recipe checks product names with it. Codes are always the product's own;
to translate them is a later step and never happens in silence.
"""

from __future__ import annotations

import csv
import difflib
import functools
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

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

    @classmethod
    def of_attrs(cls, attrs: Mapping[str, Any]) -> Legend:
        """The legend that ``attrs`` told; without classes where they tell none."""
        codes, names = attrs.get("flag_values", []), attrs.get("flag_names", [])
        colors = attrs["flag_colors"].split() if "flag_colors" in attrs else [None] * len(names)
        return cls(tuple(map(LabelClass, codes, names, colors)))

    def _words(self) -> list[str]:
        words = [NOT_A_WORD.sub("_", c.name).strip("_") or f"class_{c.code}" for c in self.classes]
        # Names that differ only in signs or in a foreign alphabet would fall together; the code tells them apart again.
        seen = Counter(words)
        return [w if seen[w] == 1 else f"{w}_{c.code}" for w, c in zip(words, self.classes, strict=True)]


@dataclass(frozen=True, slots=True)
class Product:
    """A land-cover product or nomenclature that a recipe can name: what its codes mean, and where STAC has it."""

    name: str
    """The id of its STAC collection, where it has one."""
    title: str
    legend: str
    """Its table of classes; products that share it share their codes' meaning, and their crosswalks."""
    use: Literal["cover", "use", "mixed"]
    """Whether it tells what covers the land, what people use it for, or a mixture of both."""
    form: Literal["raster", "vector", "points", "scheme"] = "raster"
    """How it is published; a scheme is classes alone."""
    aliases: tuple[str, ...] = ()
    codes: str = "code"
    """Column of the table with the codes: CORINE's rasters and polygons number the same classes differently."""
    collection: str = ""
    """Id of the STAC collection; empty where none is known."""
    asset: str = ""
    """Key of the asset with the classes."""
    void: tuple[int, ...] = ()
    """Values that it calls "no data", the one of its files first; never a class."""
    resolution_m: float | None = None
    """Side of a pixel in metres; None for polygons, points and schemes."""
    mmu_ha: float | None = None
    """Smallest area that is mapped, in hectares, where that is more than a pixel."""
    years: tuple[int, ...] = ()
    """Years recorded when the table was made, ascending."""
    versions: Mapping[int, str] = field(default_factory=dict, hash=False)
    """Version by year, where the years were made differently: their difference is not change."""
    probabilities: tuple[str, ...] = ()
    """Bands with the probability of each class, in the order of the codes."""
    licence: str = ""
    attribution: str = ""
    source: str = ""
    """Link to where the codes and colours were found."""
    unverified: str = ""
    """What of this is not confirmed by a source."""

    @property
    def nodata(self) -> int | None:
        """The value that its files call "no data"; None where none is known."""
        return self.void[0] if self.void else None

    def comparable(self, year: int, other: int) -> bool:
        """Whether the maps of two years were made alike, so that a difference between them may be change."""
        return self.versions.get(year) == self.versions.get(other)


def _read_products() -> dict[str, Product]:
    return {name: _product(name, row) for name, row in tomllib.loads(read_table("products.toml")).items()}


def _product(name: str, row: dict[str, Any]) -> Product:
    nodata, years = row.pop("nodata", []), row.pop("years", [])
    if isinstance(years, str):
        first, last = map(int, years.split("-"))
        years = range(first, last + 1)
    return Product(
        name=name,
        void=tuple(nodata) if isinstance(nodata, list) else (nodata,),
        years=tuple(years),
        aliases=tuple(row.pop("aliases", ())),
        probabilities=tuple(row.pop("probabilities", ())),
        versions={int(year): version for year, version in row.pop("versions", {}).items()},
        **row,
    )


def read_table(name: str) -> str:
    """Text of one of the tables that lie beside this module."""
    return (resources.files("labels") / "tables" / name).read_text(encoding="utf-8")


NAMED: dict[str, Product] = _read_products()
"""Every product and nomenclature whose legend we have, by name."""

PRODUCTS: dict[str, Product] = {name: product for name, product in NAMED.items() if product.collection}
"""Those that a catalog can have: what a recipe may ask for as ``product``."""


def find_product(name: str) -> Product:
    """A product or nomenclature by its name or an alias (``clc``), in any case and with ``_`` for ``-``.

    Raises:
        LabelError: There is none of that name; it names the most similar ones.
    """
    by_name = _by_name()
    found = by_name.get(_fold(name))
    if found is None:
        close = difflib.get_close_matches(_fold(name), by_name, n=3, cutoff=0.5)
        meant = " or ".join(f"'{text}'" for text in close)
        hint = f"did you mean {meant}?" if close else f"known are {', '.join(sorted(NAMED))}"
        raise LabelError(name, f"no land-cover product or legend has this name; {hint}")
    return found


@functools.cache
def _by_name() -> dict[str, Product]:
    return {_fold(text): product for product in NAMED.values() for text in (product.name, *product.aliases)}


def _fold(name: str) -> str:
    return name.strip().casefold().replace("_", "-").replace(" ", "-")


@functools.cache
def product_legend(name: str) -> Legend:
    """Legend of a product or nomenclature, without its "no data" values; LabelError when it is not known."""
    product = find_product(name)
    table = f"legends/{product.legend}.csv"
    return parse_legend(read_table(table), table, codes=product.codes).without(product.void)


def product_keys(name: str) -> dict[str, int]:
    """Code by the text that the data of a product have for it (LUCAS: ``A11`` is 111); empty where data have codes."""
    product = find_product(name)
    rows = csv.DictReader(read_table(f"legends/{product.legend}.csv").splitlines())
    return {row["key"]: int(row[product.codes]) for row in rows if row.get("key")}


def find_legend(text: str) -> Legend:
    """Legend that a recipe names: of a product or nomenclature (``corine``), or in a CSV file.

    Raises:
        LabelError: There is no such name or file, or the file cannot be understood.
    """
    return read_legend(text) if is_file(text) else product_legend(text)


def is_file(text: str) -> bool:
    """Whether the text for a legend is a file's path and no name: it ends in ``.csv`` or has a folder in it."""
    return Path(text).suffix.lower() == ".csv" or "/" in text or "\\" in text


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


def parse_legend(text: str, source: str, *, codes: str = "code") -> Legend:
    """Legend from the text of a CSV; ``source`` names it in errors, ``codes`` the column with the codes."""
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    columns = [c.strip().lower() for c in rows.fieldnames or ()]
    if missing := [c for c in (codes, "name") if c not in columns]:
        found = f"{missing[0]} is missing, found {', '.join(columns) or 'none'}"
        raise LabelError(source, f"the legend needs the columns {codes} and name; {found}")
    rows.fieldnames = columns
    classes = [_parse_class(row, f"{source}, line {rows.line_num}", codes) for row in rows]
    if not classes:
        raise LabelError(source, "the legend has no rows; wanted one a class")
    try:
        return Legend(tuple(classes))
    except ValueError as error:
        raise LabelError(source, f"{error}; keep one row for each code") from error


def _parse_class(row: dict[str, str | None], where: str, codes: str) -> LabelClass:
    code, name, color = ((row.get(key) or "").strip() for key in (codes, "name", "color"))
    if not code.isascii() or not code.isdigit():
        raise LabelError(where, f"code {code!r} is not a whole number from 0 up")
    if not name:
        raise LabelError(where, f"code {code} has no name; every class needs one")
    if color and not HEX_COLOR.fullmatch(color.lower()):
        raise LabelError(where, f"color {color!r} is not of the form #rrggbb; correct it or leave it empty")
    return LabelClass(int(code), name, color.lower() or None)
