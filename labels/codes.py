"""Codes of classes: what counts as one value of a class column, and which dtype and ignore value hold them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.errors import LabelError
from labels.legend import LabelClass, Legend, find_legend
from labels.options import MAX_CODE, ClassValue

if TYPE_CHECKING:
    import pandas as pd

REST = "*"
"""Key of ``classes`` that stands for every value not listed."""


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


def listed_value(label: str, key: ClassValue) -> ClassValue:
    """A value that the recipe lists, as ``class_value`` has it; LabelError when it is empty."""
    value = class_value(key)
    if value is None:
        raise LabelError(label, "classes lists an empty value; features without a class are unlabelled anyway")
    return value


def assign_codes(
    label: str,
    path: str,
    attribute: str,
    classes: Mapping[ClassValue, int | None] | None,
    values: Sequence[ClassValue | None],
    everything: Callable[[], set[ClassValue]],
) -> dict[ClassValue, int | None]:
    """Code of each value of a class column; None for values that the recipe leaves unlabelled.

    Args:
        label: What to call it in errors.
        path: Of the file, for errors.
        attribute: The column.
        classes: What the recipe lists; without it the values of the whole file become 1, 2, 3 … in their order.
        values: Of the features in the area.
        everything: Gives all values of the whole file; asked only where it matters.

    Raises:
        LabelError: There is no value, or the recipe and the file do not know the same ones.
    """
    present = {v for v in values if v is not None}
    if not present:
        raise LabelError(label, f"column {attribute} of {path} has no value in the area; name another one")
    if classes is None:
        # Of the whole file and not of the area: the same file gives the same codes to every area.
        ordered = sorted(everything(), key=by_kind)
        if len(ordered) > MAX_CODE - 1:
            raise LabelError(
                label, f"column {attribute} has {len(ordered)} values, too many for classes; name another one"
            )
        return {value: code for code, value in enumerate(ordered, start=1)}
    listed = {REST if key == REST else listed_value(label, key): code for key, code in classes.items()}
    if len(listed) < len(classes):
        raise LabelError(label, "classes lists a value twice (3 and '3' are the same); keep one of them")
    rest = listed.pop(REST, None)
    new = present - listed.keys()
    if new and REST not in classes:
        raise LabelError(
            label,
            f"column {attribute} of {path} has values that classes does not list: {some(new)}; "
            f"list them (null leaves them unlabelled), or say what becomes of all others with '{REST}'",
        )
    if gone := listed.keys() - present:
        gone -= everything()
    if gone:
        raise LabelError(
            label,
            f"classes lists values that column {attribute} of {path} does not have: {some(gone)}; "
            f"it has {some(present)}",
        )
    return {**listed, **dict.fromkeys(new, rest)}


def legend_of(label: str, names: Mapping[int, Sequence[str]], path: str | None) -> Legend:
    """What codes mean: the legend in a CSV file, or without one the values that have each code.

    Raises:
        LabelError: The file lacks a code.
    """
    if path is None:
        return Legend(tuple(LabelClass(code, " or ".join(sorted(words)[:4])) for code, words in names.items()))
    legend = find_legend(path)
    if missing := names.keys() - set(legend.codes):
        raise LabelError(label, f"{path} has no row for code {some(missing)}; add it, or leave legend out")
    return legend


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
