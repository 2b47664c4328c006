"""Legends and crosswalks as lines for a person; colours are shown where the terminal has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from labels.listing import Listing

RIGHT = ("code", "classes", "from", "resolution_m", "mmu_ha", "target_code", "priority", "width_m")
"""Columns of numbers."""
HEADS = {
    "resolution_m": "pixel m", "width_m": "width m", "mmu_ha": "mmu ha",
    "target_code": "becomes", "target_name": "",
}  # fmt: skip
MARGIN = "    "
"""Before every line of a table; the colour of a class is shown in it, so plain text has nothing in its place."""


def listing_text(tables: Sequence[Listing]) -> str:
    """Tables of names, one after the other, each under its title."""
    return "\n\n".join(f"{click.style(table.title, bold=True)}\n{columns(table.rows)}" for table in tables)


def legend_text(facts: Mapping[str, Any]) -> str:
    """What `describe_legend` tells: the facts, then a class a line."""
    lines = [f"{facts['name']}: {facts['title']}"]
    told = ("collection", "years", "resolution_m", "mmu_ha", "use", "nodata", "probabilities", "licence", "attribution")
    for key in (*told, "source", "unverified", "targets"):
        if facts.get(key) not in (None, "", ()):
            lines.append(f"  {HEADS.get(key, key):<14}{cell(facts[key])}")
    if facts.get("versions"):
        told_apart = ", ".join(f"{year} {version}" for year, version in facts["versions"].items())
        lines.append(f"  {'versions':<14}{told_apart}: made differently, so a difference between them is not change")
    return "\n".join([*lines, columns(facts["classes"])])


def rules_text(facts: Mapping[str, Any]) -> str:
    """What `describe_rules` tells: the facts, a class a line, then a rule a line in the order of the file."""
    lines = [f"{facts['name']}: {facts['title']}"]
    lines += [f"  {key:<14}{facts[key]}" for key in ("licence", "attribution") if facts[key]]
    return "\n".join([*lines, columns(facts["classes"]), "", columns(facts["rules"])])


def crosswalk_text(facts: Mapping[str, Any]) -> str:
    """What `describe_crosswalk` tells: where it is from, then a class a line; those left out have a dash."""
    rows = [
        {
            "code": pair["code"],
            "name": pair["name"],
            "target_code": pair["target_code"] if pair["used"] else "-",
            "target_name": pair["target_name"] if pair["used"] else "",
            "quality": pair["quality"],
            "note": "; ".join(text for text in (_instead(pair), pair["note"]) if text),
        }
        for pair in facts["pairs"]
    ]
    used = sum(pair["used"] for pair in facts["pairs"])
    head = f"{facts['from']} to {facts['to']}: {facts['origin']}"
    foot = f"{used} of {len(rows)} classes are used with quality {facts['quality']}; the others become unlabelled"
    return f"{head}\n{columns(rows)}\n{foot}"


def _instead(pair: Mapping[str, Any]) -> str:
    """What a pair that is left out would become, if its quality were asked for."""
    return "" if pair["used"] or pair["target_code"] is None else f"{pair['target_code']} {pair['target_name']}"


def columns(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows in columns as wide as they need to be; columns that are empty everywhere are left out."""
    keys = [key for key in rows[0] if any(cell(row[key]) for row in rows)]
    widths = {key: max(len(head(key)), *(len(cell(row[key])) for row in rows)) for key in keys}
    lines = [{key: head(key) for key in keys}, *({key: cell(row[key]) for key in keys} for row in rows)]
    return "\n".join(_line(line, widths) for line in lines)


def _line(line: Mapping[str, str], widths: Mapping[str, int]) -> str:
    cells = [text.rjust(widths[key]) if key in RIGHT else text.ljust(widths[key]) for key, text in line.items()]
    return _margin(line.get("color", "")) + "  ".join(cells).rstrip()


def _margin(color: str) -> str:
    """The margin, with a swatch of the colour where there is one; `click.echo` takes it off outside a terminal."""
    if not color.startswith("#"):
        return MARGIN
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return click.style(MARGIN[:-1], bg=(red, green, blue)) + MARGIN[-1:]


def head(key: str) -> str:
    """Head of a column."""
    return HEADS.get(key, key)


def cell(value: Any) -> str:
    """A value as text: spans of years, numbers without a tail of zeros, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return span(value) if len(value) > 2 and all(isinstance(v, int) for v in value) else ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def span(years: Sequence[int]) -> str:
    """Numbers with unbroken runs as first–last: ``1985, 1992–1996``."""
    runs: list[list[int]] = []
    for year in years:
        if runs and year == runs[-1][-1] + 1:
            runs[-1].append(year)
        else:
            runs.append([year])
    return ", ".join(f"{r[0]}–{r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs)
