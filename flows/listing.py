"""The rules for splits as a list: what each does, and whether a place keeps its split when a dataset grows."""

from __future__ import annotations

from typing import Any

from tiling.split_rules import RULES, stability


def split_rules() -> list[dict[str, Any]]:
    """A row for every rule: its name, what it does, whether it is stable with the default buffer, and why."""
    rows = []
    for rule, options in RULES.items():
        stable, why = stability(rule, 1.0)
        rows.append({"rule": rule, "what": (options.__doc__ or "").split("\n")[0], "stable": stable, "why": why})
    return rows


def split_rules_text() -> str:
    """The list for a person."""
    lines = []
    for row in split_rules():
        lines += [
            f"{row['rule']:<10} {row['what']}",
            f"{'':<10} {'stable' if row['stable'] else 'not stable'}: {row['why']}",
        ]
    return "\n".join(lines)
