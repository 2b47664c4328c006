"""Tables of quality layers: which numbers mean cloud, shadow, snow … on every sensor, so that one clause works for all.

A layer is decoded by looking its numbers up in a table of 256 or 65,536 answers, never bit by bit.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from curate.errors import CatalogError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from catalog.scene import Scene

WORDS = (
    "void",
    "saturated",
    "dark",
    "shadow",
    "vegetation",
    "bare",
    "water",
    "unclassified",
    "cloud",
    "near_cloud",
    "cirrus",
    "snow",
    "haze",
)
"""The words of a recipe's ``hide``. A layer that does not tell one of them hides nothing for it."""

NEVER_GROWN = frozenset({"void", "saturated"})
"""Void and saturated pixels say nothing about their neighbours: only weather is grown by ``dilate_m``."""

OWN = "own"
"""Name of the table that a recipe makes itself, of the values of a mask that it brings along."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One meaning: it holds where ``number & mask == value``."""

    name: str
    mask: int
    value: int
    words: tuple[str, ...] = ()
    grow: bool = True
    """Whether ``dilate_m`` grows it."""


@dataclass(frozen=True, slots=True)
class QualityTable:
    """What the numbers of one quality layer mean."""

    name: str
    title: str
    kind: Literal["classes", "bits", "probability"]
    dtype: str
    """uint8 or uint16, in the store, and in the file where ``factor`` is 1."""
    void: int | None
    """Stands where nothing was seen. None: the layer cannot tell, and the first band of the source does."""
    flags: tuple[Flag, ...]
    threshold: float | None = None
    """Probability in percent from which the flag holds, when the recipe gives none."""
    source: tuple[str, ...] = ()
    factor: float = 1.0
    """Probabilities whose files hold floats: a number of the file times this is percent."""

    @property
    def words(self) -> frozenset[str]:
        """Words that this layer can tell."""
        return frozenset(word for flag in self.flags for word in flag.words)

    @property
    def attrs(self) -> dict[str, Any]:
        """CF attributes of the flags, JSON values."""
        if self.kind == "probability":
            return {"units": "percent"}
        masks = {"flag_masks": [flag.mask for flag in self.flags]} if self.kind == "bits" else {}
        return {
            **masks,
            "flag_values": [flag.value for flag in self.flags],
            "flag_meanings": " ".join(flag.name for flag in self.flags),
        }


@dataclass(frozen=True, slots=True)
class Lookup:
    """Answers for every number of a layer, bool, read-only."""

    void: npt.NDArray[np.bool_]
    hidden: npt.NDArray[np.bool_]
    """Void is always hidden."""
    grows: npt.NDArray[np.bool_]
    """Hidden, and its neighbours within ``dilate_m`` as well."""


def quality_table(name: str) -> QualityTable:
    """A table by its name.

    Raises:
        ValueError: There is none; the nearest is named.
    """
    tables = _tables()[0]
    if name in tables:
        return tables[name]
    near = difflib.get_close_matches(name, tables, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(tables)}"
    raise ValueError(f"'{name}' is not a table of quality classes; {hint}")


def quality_table_names() -> tuple[str, ...]:
    """Names of all tables, in their order."""
    return tuple(_tables()[0])


def table_of_layer(band: str) -> str | None:
    """Name of the table that a band of this name is decoded by, or None."""
    return _tables()[1].get(band)


def own_table(meanings: Mapping[int, str]) -> QualityTable:
    """The table of a mask whose values are told by the recipe: value -> word. What is not told is clear."""
    flags = tuple(Flag(word, 255, value, (word,)) for value, word in sorted(meanings.items()))
    void = min((flag.value for flag in flags if flag.words == ("void",)), default=None)
    return QualityTable(OWN, "mask of the recipe", "classes", "uint8", void, flags)


def check_hide(hide: Iterable[str | int]) -> None:
    """Refuse what no table knows.

    Raises:
        ValueError: A word that is not known, or a number outside 0-255.
    """
    for item in hide:
        if isinstance(item, str):
            check_word(item)
        elif isinstance(item, bool) or not 0 <= item <= 255:
            raise ValueError(f"class {item} cannot be hidden; wanted a code from 0 to 255")


def check_word(word: str) -> None:
    """Raise ValueError, with the nearest word, when there is no such word."""
    if word not in WORDS:
        near = difflib.get_close_matches(word, WORDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(WORDS)}"
        raise ValueError(f"'{word}' is not a class that can be hidden; {hint}")


def check_layer(table: QualityTable, band: str, scenes: Iterable[Scene]) -> None:
    """Refuse probabilities that would be read wrongly: floats from 0 to 1 as percent are all 0, and the reverse.

    Raises:
        CatalogError: An asset is of the other kind, by what its item or its header says.
    """
    if table.kind != "probability":
        return
    for scene in scenes:
        for asset in scene.assets:
            if asset.band != band or asset.dtype.startswith("float") == (table.factor != 1):
                continue
            other, what = table.name.replace("fraction", "probability"), "whole percent"
            if table.factor == 1:
                other, what = table.name.replace("probability", "fraction"), "0 to 1"
            raise CatalogError(
                scene.id,
                f"band {band} holds {asset.dtype}, and is read by the table '{table.name}'; write 'table: {other}' "
                f"under 'mask' if its numbers are {what}, or describe the band with the type they are meant to have",
            )


def percent(pixels: npt.NDArray[np.float32], table: QualityTable) -> npt.NDArray[Any]:
    """Numbers of a file of floats as the whole percent that are stored, dims as they are."""
    import numpy as np

    whole: npt.NDArray[Any] = np.clip(np.rint(pixels * np.float32(table.factor)), 0, 100).astype(table.dtype)
    return whole


@functools.lru_cache(maxsize=32)
def lookup(table: QualityTable, hide: tuple[str | int, ...], threshold: float | None = None) -> Lookup:
    """What the words and numbers of ``hide`` hide in a layer.

    Args:
        table: Of the layer.
        hide: Words; and numbers, which are codes in a layer of classes and bits (counted from 0) in a layer of bits.
        threshold: Percent, for probabilities; the table's own when None.

    Raises:
        ValueError: A bit that the layer does not have, or a number for a layer of probabilities.
    """
    import numpy as np

    n = 256 if table.dtype == "uint8" else 65536
    numbers = np.arange(n)
    words = {item for item in hide if isinstance(item, str)}
    codes = {item for item in hide if isinstance(item, int)}
    void, hidden, grows = (np.zeros(n, bool) for _ in range(3))
    for flag in table.flags:
        if table.kind == "probability":
            least = table.threshold if threshold is None else threshold
            assert least is not None  # every such table has one
            holds = numbers >= least
        else:
            holds = (numbers & flag.mask) == flag.value
        if "void" in flag.words:
            void |= holds
        elif words & set(flag.words):
            hidden |= holds
            if flag.grow and not NEVER_GROWN & set(flag.words):
                grows |= holds
    for code in sorted(codes):
        hidden_by_code, grown = _by_number(table, code, numbers)
        hidden |= hidden_by_code
        if grown:
            grows |= hidden_by_code
    # A byte of fill has every bit set; it is not a cloud for that.
    grows &= ~void
    hidden |= void
    for answers in (void, hidden, grows):
        answers.setflags(write=False)
    return Lookup(void, hidden, grows)


def _by_number(table: QualityTable, code: int, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], bool]:
    """Where a code or bit of ``hide`` holds, and whether it is grown."""
    if table.kind == "probability":
        raise ValueError(
            f"number {code} cannot be hidden in the layer of {table.title}; wanted the word "
            f"'{table.flags[0].words[0]}' and a threshold"
        )
    if table.kind == "classes":
        grow = all(flag.grow and not NEVER_GROWN & set(flag.words) for flag in table.flags if flag.value == code)
        return numbers == code, grow
    bits = 8 if table.dtype == "uint8" else 16
    if code >= bits:
        raise ValueError(f"bit {code} cannot be hidden: the layer of {table.title} has the bits 0 to {bits - 1}")
    grow = all(flag.grow and not NEVER_GROWN & set(flag.words) for flag in table.flags if flag.mask == 1 << code)
    return (numbers >> code) & 1 == 1, grow


@functools.cache
def _tables() -> tuple[dict[str, QualityTable], dict[str, str]]:
    """All tables by name, and the name of the table of each layer."""
    text = (importlib.resources.files("cube") / "tables" / "quality.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)["tables"]
    return {name: _table(name, row) for name, row in rows.items()}, {
        layer: name for name, row in rows.items() for layer in row["layers"]
    }


def _table(name: str, row: Mapping[str, Any]) -> QualityTable:
    whole = 255 if row["dtype"] == "uint8" else 65535
    flags = []
    for flag in row["flags"]:
        mask = flag.get("mask", whole)
        value = flag.get("code", flag.get("value", mask))
        flags.append(Flag(flag["name"], mask, value, tuple(flag.get("words", ())), flag.get("grow", True)))
    return QualityTable(
        name=name,
        title=row["title"],
        kind=row["kind"],
        dtype=row["dtype"],
        void=row.get("void"),
        flags=tuple(flags),
        threshold=row.get("threshold"),
        source=tuple(row["source"]),
        factor=float(row.get("factor", 1)),
    )
