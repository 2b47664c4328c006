"""What the documents point to exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
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


def takes(command: click.Command, name: str, words: list[str], parent: click.Context | None = None) -> None:
    """Nothing when a command takes these words; click's error when not. Nothing of it is done."""
    context = command.make_context(name, list(words), parent=parent)
    rest = [*context._protected_args, *context.args]
    if isinstance(command, click.Group) and rest:
        found, following, rest = command.resolve_command(context, rest)
        assert found is not None
        assert following is not None
        takes(following, found, rest, context)


def command_lines(root: Path) -> list[tuple[str, str]]:
    """Every line of code that begins with `curate`: (document, line). What is left out of one stands as "…"."""
    return [
        (str(document.relative_to(root)), match[1])
        for document in documents(root)
        for match in re.finditer(r"^(?: {4})?(curate [a-z].*)$", document.read_text(), re.MULTILINE)
        if document.name != "CHANGELOG.md" and "…" not in match[1]
    ]


def test_every_command_line_of_the_documents_is_understood(root: Path) -> None:
    from flows.cli import main

    lines = command_lines(root)
    assert len(lines) > 30
    refused = []
    for where, line in lines:
        try:
            takes(main, "curate", shlex.split(line, comments=True)[1:])
        except click.ClickException as error:
            refused.append(f"{where}: {line}: {error.format_message()}")
    assert not refused


def test_architecture_draws_every_folder(root: Path) -> None:
    drawn = set(re.findall(r"^([a-z]+)/ ", (root / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    assert {path.parent.name for path in root.glob("*/__init__.py")} <= drawn
