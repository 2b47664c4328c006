"""What the page for operators says in figures and in quoted messages is what the code has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from curate import __version__
from flows.deployments import Schedules
from flows.plan import SHARD_BUDGET_BYTES
from flows.shard import READ_BUDGET_BYTES
from flows.tracking import RETRY_DELAYS_S


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return " ".join((root / "docs" / "operations.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def said(root: Path) -> list[list[str]]:
    """Every text of the code, in the pieces between what is filled in."""
    found = []
    for path in root.glob("*/*.py"):
        if path.parent.name == "tests":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.append("".join(map(str, parts)).split("\0"))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append([node.value])
    return found


def says(pieces: list[str], message: str) -> bool:
    """Whether a text of the code is what a message quotes, with "…" for what is filled in or left out."""
    text, at = "\0".join(pieces), 0
    for quoted in filter(None, (part.strip() for part in message.split("…"))):
        if (at := text.find(quoted, at)) < 0:
            return False
        at += len(quoted)
    return True


def test_every_message_that_is_quoted_is_one_of_the_code(root: Path, said: list[list[str]]) -> None:
    rows = re.findall(
        r"^\|.*\|.*\|(.*)\|$", (root / "docs" / "operations.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    quoted = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) >= 8
    assert not [message for message in quoted if not any(says(pieces, message) for pieces in said)]


def test_a_message_that_nothing_says_would_be_noticed(said: list[list[str]]) -> None:
    assert not any(says(pieces, "the … dog ate the shard") for pieces in said)
    assert says(["shard ", " is lost"], "shard … is lost")


def test_budgets_and_delays_are_those_of_the_code(page: str) -> None:
    assert f"at most {SHARD_BUDGET_BYTES // 2**20} MiB of raw data" in page
    assert f"another {READ_BUDGET_BYTES // 2**20} MiB at a time" in page
    seconds = [f"{delay:g} s" if delay < 60 else f"{delay / 60:g} min" for delay in RETRY_DELAYS_S]
    assert f"tried again after {', '.join(seconds[:-1])} and {seconds[-1]}" in page


def test_what_containers_are_given_is_what_the_manifests_say(page: str, root: Path) -> None:
    workers = (root / "docker" / "kubernetes" / "workers.yaml").read_text(encoding="utf-8")
    (memory,) = re.findall(r"requests: \{cpu: \"2\", memory: (\d+)Gi", workers)
    assert f"the manifests ask for {memory} GiB" in page
    (user,) = re.findall(r"^USER (\d+)$", (root / "docker" / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"runs as user {user}" in page
    assert set(re.findall(r"curate:(\d+\.\d+\.\d+)", page)) == {__version__}


def test_the_watch_asks_as_often_as_it_says(page: str) -> None:
    assert "A watch asks the catalog once an hour" in page
    assert re.fullmatch(r"\d+ \* \* \* \*", Schedules().watch)


def test_what_the_readme_measured_is_what_is_quoted(page: str, root: Path) -> None:
    (peak,) = re.findall(r"`curate build` \|.*\| ([\d.]+ GB) \(", (root / "README.md").read_text(encoding="utf-8"))
    assert f"took {peak} (`make bench`" in page
