"""From the codes of one land-cover product to those of another: what each class becomes, and how well it fits.

Translation loses something nearly always, so every pair carries a quality, only good ones are used unless more is asked
for, and what was merged or left out is told in the attributes of the label. Light: NumPy is imported when codes are
translated, so that a recipe can be read without it.
"""

from __future__ import annotations

import csv
import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from curate.errors import LabelError
from labels.legend import NAMED, Legend, Product, find_legend, find_product, product_legend, read_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Quality = Literal["identity", "exact", "wider", "mixed", "ambiguous", "none"]
"""How a class fits its target: the same class; wholly inside it; a little beyond it; partly something else; a guess
between several; or no target at all."""
Least = Literal["identity", "exact", "wider", "mixed", "ambiguous"]
"""The poorest quality that is still used."""

RANK: dict[str, int] = {quality: rank for rank, quality in enumerate(get_args(Quality))}

TARGETS = ("esa-worldcover", "simple8", "ipcc", "clc19", "clc-level-1", "clc-level-2")
"""Nomenclatures that products can be brought to."""

# The eight classes are unions of WorldCover's, so this decides them for every product.
SIMPLE8 = {10: 1, 20: 2, 30: 2, 40: 3, 50: 4, 60: 5, 70: 6, 80: 7, 90: 8, 95: 1, 100: 2}

PROPOSED = "proposal of this project"
PUBLISHED = {
    ("corine", "clc19"): "BigEarthNet (reBEN), clc_metadata.json",
    ("corine", "clc-level-1"): "CORINE Land Cover nomenclature: the first digit",
    ("corine", "clc-level-2"): "CORINE Land Cover nomenclature: the first two digits",
    ("esa_cci_lc", "ipcc"): "ESA CCI land cover user guide (220, snow and ice, is our addition)",
}
"""Who published a crosswalk, by table of the source and name of the target. The others are our proposal."""


@dataclass(frozen=True, slots=True)
class CrosswalkSpec:
    """What a label's codes are translated to."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    to: str
    """Nomenclature to translate to: `worldcover`, `simple8`, `ipcc`, `clc19`, `clc-level-1`, `clc-level-2`. With
    `table`, any legend: a known name, or a CSV file with code, name and color."""
    quality: Least = "wider"
    """The poorest fit that is used; classes that fit worse become unlabelled. From best to worst: `identity`, `exact`,
    `wider` (the class reaches a little beyond its target), `mixed` (part of it is something else), `ambiguous`."""
    table: str | None = None
    """A crosswalk of your own: CSV file with source_code, target_code and, if you like, quality."""

    def __post_init__(self) -> None:
        if not self.to:
            raise ValueError("to is empty: name what to translate to, as worldcover or simple8")
        if self.table is not None:
            return
        try:
            target = find_product(self.to).name
        except LabelError as error:
            raise ValueError(f"to: {error}") from error
        if target not in TARGETS:
            raise ValueError(f"to: no crosswalk leads to {self.to}; wanted one of {', '.join(TARGETS)}, or a table")


@dataclass(frozen=True, slots=True)
class Pair:
    """What one class becomes."""

    code: int
    target: int | None
    """None where it has no class in the target."""
    quality: Quality
    note: str = ""


@dataclass(frozen=True, slots=True)
class Crosswalk:
    """Translation of one product's codes to a target, with the pairs that are good enough."""

    source: str
    """Name of the product, or of whatever the codes are from."""
    target: str
    pairs: tuple[Pair, ...]
    """Every class of the source in ascending order of its code, also those that are left out."""
    legend: Legend
    """Of the target."""
    origin: str
    """Who says so."""
    least: Least = "wider"
    names: Mapping[int, str] = field(default_factory=dict, hash=False)
    """Names of the source's classes, where known."""

    @property
    def used(self) -> tuple[Pair, ...]:
        """The pairs that give a class: those with a target and of a good enough quality."""
        return tuple(p for p in self.pairs if p.target is not None and RANK[p.quality] <= RANK[self.least])

    @property
    def left_out(self) -> tuple[Pair, ...]:
        """The pairs whose pixels become unlabelled."""
        used = set(self.used)
        return tuple(p for p in self.pairs if p not in used)

    @property
    def merged(self) -> dict[int, tuple[int, ...]]:
        """Codes of the source by the target that several of them become: there is no way back."""
        sources: dict[int, list[int]] = defaultdict(list)
        for pair in self.used:
            if pair.target is not None:
                sources[pair.target].append(pair.code)
        return {target: tuple(codes) for target, codes in sorted(sources.items()) if len(codes) > 1}

    @property
    def lossy(self) -> tuple[Pair, ...]:
        """The used pairs that lose or change something: merged with others, or a fit that is not exact."""
        merged = {code for codes in self.merged.values() for code in codes}
        return tuple(p for p in self.used if p.code in merged or RANK[p.quality] > RANK["exact"])

    @property
    def ignore(self) -> int:
        """Value of unlabelled pixels in what `apply` gives: 255, or 65535 when a code of the target exceeds 254."""
        return 255 if max(self.legend.codes) < 255 else 65535

    @property
    def dtype(self) -> str:
        """``uint8``, or ``uint16`` when a code of the target exceeds 254."""
        return "uint8" if self.ignore == 255 else "uint16"

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes for the store, JSON-ready: the target's legend, and under ``crosswalk`` what was done."""
        return {
            **self.legend.attrs,
            "crosswalk": {
                "from": self.source,
                "to": self.target,
                "origin": self.origin,
                "quality": self.least,
                "merged": {
                    self._target(target): [self._source(c) for c in codes] for target, codes in self.merged.items()
                },
                "inexact": {
                    self._source(p.code): f"{p.quality}: {p.note}" if p.note else p.quality
                    for p in self.used
                    if RANK[p.quality] > RANK["exact"]
                },
                "left_out": {self._source(p.code): p.quality for p in self.left_out},
            },
        }

    def apply(
        self, codes: NDArray[np.unsignedinteger[Any]], ignore: int, *, ignore_out: int | None = None
    ) -> NDArray[np.unsignedinteger[Any]]:
        """The target's codes, of the same shape, ``dtype`` as above.

        Args:
            codes: Codes of the source (…), uint8 or uint16.
            ignore: The value of unlabelled pixels in ``codes``.
            ignore_out: The value for them in the result, ``self.ignore`` by default; must fit ``dtype``.

        Raises:
            LabelError: A code occurs that the crosswalk does not know, or ``ignore_out`` is a class of the target.
        """
        import numpy as np

        out = self.ignore if ignore_out is None else ignore_out
        if out in self.legend.codes or not 0 <= out <= np.iinfo(self.dtype).max:
            raise LabelError(self._title, f"{out} cannot be the ignore value: it is a class, or no {self.dtype}")
        if codes.dtype not in (np.uint8, np.uint16):
            raise LabelError(self._title, f"the codes are {codes.dtype}; wanted uint8 or uint16")
        size = int(np.iinfo(codes.dtype).max) + 1
        table, known = np.full(size, out, self.dtype), np.zeros(size, bool)
        for pair in self.pairs:
            known[pair.code : pair.code + 1] = True  # a slice: a code beyond this dtype cannot occur
        for pair in self.used:
            table[pair.code : pair.code + 1] = pair.target
        # Last, so that it wins over a class of the source that the label gave up for its ignore value.
        known[ignore : ignore + 1], table[ignore : ignore + 1] = True, out
        if not known[codes].all():
            strange = np.unique(codes[~known[codes]]).tolist()
            raise LabelError(self._title, f"does not know {_some(strange)}; add them to its table, or say nodata")
        translated: NDArray[np.unsignedinteger[Any]] = table[codes]
        return translated

    @property
    def _title(self) -> str:
        return f"crosswalk from {self.source} to {self.target}"

    def _source(self, code: int) -> str:
        return f"{code} {self.names[code]}" if code in self.names else str(code)

    def _target(self, code: int) -> str:
        return f"{code} {self.legend.name(code)}"


def crosswalk(source: str, target: str, *, quality: Least = "wider") -> Crosswalk:
    """The crosswalk between two products or nomenclatures by their names.

    Args:
        source: Product whose codes are to be translated (``corine``, ``usda-cdl``).
        target: One of `targets` of the source.
        quality: The poorest fit that is used.

    Raises:
        LabelError: A name is not known, or no crosswalk leads from one to the other.
    """
    here, there = find_product(source), find_product(target)
    pairs = _pairs(here, there)
    if pairs is None:
        leads = ", ".join(targets(here.name)) or "nothing"
        raise LabelError(
            f"crosswalk from {here.name}", f"none leads to {there.name}; it can become {leads}, or give a table"
        )
    return Crosswalk(
        source=here.name,
        target=there.name,
        pairs=tuple(sorted(pairs, key=lambda p: p.code)),
        legend=product_legend(there.name),
        origin="the same codes" if here.name == there.name else PUBLISHED.get((here.legend, there.name), PROPOSED),
        least=quality,
        names={c.code: c.name for c in product_legend(here.name).classes},
    )


def open_crosswalk(spec: CrosswalkSpec, source: str, legend: Legend | None = None) -> Crosswalk:
    """The crosswalk that a recipe asks for.

    Args:
        spec: What the recipe says, with absolute paths.
        source: Name of the product whose codes are to be translated; with ``spec.table`` any text that names the label.
        legend: What the source's codes mean, for names; needed with ``spec.table`` only.

    Raises:
        LabelError: No such crosswalk, or the table cannot be understood.
    """
    if spec.table is None:
        return crosswalk(source, spec.to, quality=spec.quality)
    return read_crosswalk(spec.table, source, spec.to, quality=spec.quality, legend=legend)


def read_crosswalk(
    path: str | Path, source: str, target: str, *, quality: Least = "wider", legend: Legend | None = None
) -> Crosswalk:
    """Crosswalk in a CSV file with ``source_code``, ``target_code`` and, if it has it, ``quality`` and ``note``.

    A row without target_code, or of quality none, leaves its class unlabelled. Without quality a row is exact.

    Args:
        path: The file.
        source: What the source's codes are from; for sentences and attributes.
        target: Legend of the target: a known name, or a CSV file.
        quality: The poorest fit that is used.
        legend: What the source's codes mean, for names.

    Raises:
        LabelError: The file is missing, or a row cannot be understood; it names the line.
    """
    where = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(where, f"the crosswalk cannot be read ({error}); wanted a CSV in UTF-8") from error
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    columns = [c.strip().lower() for c in rows.fieldnames or ()]
    if not {"source_code", "target_code"} <= set(columns):
        found = ", ".join(columns) or "none"
        raise LabelError(where, f"the crosswalk needs the columns source_code and target_code, found {found}")
    rows.fieldnames = columns
    meaning = find_legend(target)
    pairs: dict[int, Pair] = {}
    for row in rows:
        pair = _row(row, f"{where}, line {rows.line_num}", meaning)
        if pair.code in pairs:
            raise LabelError(f"{where}, line {rows.line_num}", f"code {pair.code} stands twice; keep one row for each")
        pairs[pair.code] = pair
    if not any(pair.target is not None for pair in pairs.values()):
        raise LabelError(where, "the crosswalk gives no class; wanted one row a class of the source")
    names = {} if legend is None else {c.code: c.name for c in legend.classes}
    return Crosswalk(
        source, target, tuple(sorted(pairs.values(), key=lambda p: p.code)), meaning, Path(path).name, quality, names
    )


def targets(source: str) -> tuple[str, ...]:
    """Names of the nomenclatures that a product can be brought to, itself not among them."""
    here = find_product(source)
    return tuple(t for t in TARGETS if t != here.name and _pairs(here, NAMED[t]) is not None)


def _pairs(here: Product, there: Product) -> list[Pair] | None:
    """The pairs from one to the other in the codes of ``here``, or None where no crosswalk leads there."""
    if here.legend == there.legend and here.codes == there.codes:
        return [Pair(code, code, "identity") for code in product_legend(here.name).codes]
    pairs = _corine(there.name) if here.legend == "corine" else None
    if pairs is None:
        pairs = _proposed(here.legend, there.name)
    if pairs is None or here.codes == "code":
        return pairs
    # The table has the usual codes of the same classes; these files have others.
    column = _columns(here.legend, "code", here.codes)
    return [Pair(int(column[p.code]), p.target, p.quality, p.note) for p in pairs]


def _corine(target: str) -> list[Pair] | None:
    """What the nomenclature itself says about its classes."""
    if target == "clc19":
        group = _columns("corine", "code", "clc19")
        return [
            Pair(code, int(text), "exact") if text else Pair(code, None, "none", "dropped by BigEarthNet-19")
            for code, text in group.items()
        ]
    if target in ("clc-level-1", "clc-level-2"):
        digits = int(target[-1])
        return [Pair(code, int(str(code)[:digits]), "exact") for code in product_legend("corine").codes]
    return None


def _proposed(table: str, target: str) -> list[Pair] | None:
    """The pairs of our table, which has WorldCover and IPCC; the eight classes follow from WorldCover."""
    rows = _table().get(table)
    if rows is None or target not in ("esa-worldcover", "simple8", "ipcc"):
        return None
    pairs = []
    for row in rows:
        quality, note = row["quality"], row["note"]
        if target == "ipcc":
            text, quality = row["ipcc"], row["ipcc_quality"] or quality
        elif target == "simple8":
            text = str(SIMPLE8[int(row["worldcover"])]) if row["worldcover"] else ""
            quality = row["simple8_quality"] or quality
        else:
            text = row["worldcover"]
        # The notes speak of WorldCover's classes; where the fit to another target is better, they do not hold.
        note = note if quality == row["quality"] else ""
        pairs.append(Pair(int(row["code"]), int(text), _quality(quality), note) if text else _nothing(row))
    return pairs


def _nothing(row: Mapping[str, str]) -> Pair:
    return Pair(int(row["code"]), None, "none", row["note"])


@functools.cache
def _table() -> dict[str, list[dict[str, str]]]:
    by_source: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in csv.DictReader(read_table("crosswalk.csv").splitlines()):
        by_source[row["source"]].append(row)
    return dict(by_source)


def _columns(legend: str, key: str, value: str) -> dict[int, str]:
    return {int(r[key]): r[value] for r in csv.DictReader(read_table(f"legends/{legend}.csv").splitlines())}


def _row(row: Mapping[str, str | None], where: str, meaning: Legend) -> Pair:
    source, target, quality, note = (
        (row.get(key) or "").strip() for key in ("source_code", "target_code", "quality", "note")
    )
    for what, text in (("source_code", source), ("target_code", target)):
        if not (text.isascii() and text.isdigit() and int(text) <= 65535) and (text or what == "source_code"):
            raise LabelError(where, f"{what} {text!r} is not a whole number from 0 to 65535")
    if quality and quality not in RANK:
        raise LabelError(where, f"quality {quality!r} is not known; wanted one of {', '.join(RANK)}")
    if not target or quality == "none":
        return Pair(int(source), None, "none", note)
    if int(target) not in meaning.codes:
        raise LabelError(where, f"target_code {target} is not in the target's legend, which has {_some(meaning.codes)}")
    return Pair(int(source), int(target), _quality(quality or "exact"), note)


def _quality(text: str) -> Quality:
    qualities: Sequence[Quality] = get_args(Quality)
    return next(quality for quality in qualities if quality == text)


def _some(codes: Iterable[int]) -> str:
    shown = sorted(codes)
    return ", ".join(map(str, shown[:8])) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
