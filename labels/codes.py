"""Codes of classes: what counts as one value of a class column, and which dtype and ignore value hold them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.errors import LabelError
from labels.spec import MAX_CODE, ClassValue

if TYPE_CHECKING:
    import pandas as pd


def class_values(column: pd.Series[Any]) -> list[ClassValue | None]:
    """Class values as a recipe writes them: text or whole numbers, None where there is none."""
    unique: dict[Any, ClassValue | None] = {v: class_value(v) for v in column.dropna().unique()}
    return [unique.get(v) if ok else None for v, ok in zip(column, column.notna(), strict=True)]


def class_value(value: Any) -> ClassValue | None:
    """``3``, ``3.0`` and ``"3"`` are the same class; empty text is none."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, int | float | np.integer | np.floating) and float(value).is_integer():
        return int(value)
    text = str(value).strip()
    digits = text.removeprefix("-")
    plain = digits.isascii() and digits.isdigit() and (digits == "0" or not digits.startswith("0"))
    return int(text) if plain else text or None


def by_kind(value: ClassValue) -> tuple[bool, int, str]:
    """Numbers by size, then words by letter."""
    return (isinstance(value, str), value if isinstance(value, int) else 0, str(value))


def ignore_and_dtype(label: str, ignore: int | None, codes: Iterable[int], background: int | None) -> tuple[int, str]:
    """The ignore value (``ignore`` when it is given) and the dtype that holds it and all codes.

    Raises:
        LabelError: The ignore value is also a class.
    """
    codes = list(codes)
    highest = max([*codes, 0 if background is None else background])
    ignore = ignore if ignore is not None else 255 if highest < 255 else MAX_CODE
    if ignore == background or ignore in codes:
        raise LabelError(label, f"{ignore} is the ignore value and also the code of a class; say another ignore")
    return ignore, "uint8" if max(highest, ignore) <= 255 else "uint16"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not there: what was meant, or what there is."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(by_lower[c] for c in close)}?"
    return f"; it has {', '.join(by_lower.values()) or 'none'}"


def some(values: Iterable[ClassValue]) -> str:
    """A few of the values, for a sentence."""
    shown = sorted(values, key=by_kind)
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return ", ".join(repr(v) for v in shown[:8]) + more
