"""What the documents point to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
MAKE = re.compile(r"\bmake ([a-z]+)\b")


def documents(root: Path) -> list[Path]:
    return [*sorted(root.glob("*.md")), *sorted(root.glob("docs/**/*.md"))]


def test_every_relative_link_leads_somewhere(root: Path) -> None:
    broken = [
        f"{document.relative_to(root)}: {target}"
        for document in documents(root)
        for target in LINK.findall(document.read_text())
        if not (document.parent / target).exists()
    ]
    assert not broken


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_that_is_named_is_there(root: Path, name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.MULTILINE))
    # Only in code: a sentence may well "make sense".
    code = re.findall(r"`[^`]+`|^    .*$", (root / name).read_text(), re.MULTILINE)
    named = {target for line in code for target in MAKE.findall(line)}
    assert named
    assert named <= targets


def test_architecture_draws_every_folder(root: Path) -> None:
    drawn = set(re.findall(r"^([a-z]+)/ ", (root / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    assert {path.parent.name for path in root.glob("*/__init__.py")} <= drawn
