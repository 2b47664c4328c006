"""Nothing that is committed knows the machine it was written on, or where that machine gets its packages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

# Put together from pieces, so that this file is not its own first finding.
ROOTS = "|".join(["work", "root", "home", "tmp", "opt", "Users", "private"])
HOSTS = "|".join([r"pypi" + r"\.org", "python" + "hosted", "npm" + r"js\.org", "debian" + r"\.org"])
OPTIONS = "|".join(["--" + "(extra-)?index-url", "--" + "find-links", "--" + "trusted-host"])
FORBIDDEN = re.compile(rf"(?<![\w.}})\]-])/({ROOTS})/|({HOSTS})|({OPTIONS})[ =]")


def tracked(root: Path) -> list[Path]:
    run = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if run.returncode != 0:
        pytest.skip("not a git checkout: there is no list of tracked files")
    return [path for name in run.stdout.split("\0") if name and (path := root / name).is_file()]


def findings(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if FORBIDDEN.search(line)]


def test_no_tracked_file_holds_a_machine_path_or_a_registry_host(root: Path) -> None:
    found = []
    for path in tracked(root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a binary file
        found += [f"{path.relative_to(root)}: {line[:160]}" for line in findings(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    ["out = '/" + "work/main/demo'", "cd /" + "home/me", "see https://" + "pypi" + ".org/x", "--" + "index-url=x"],
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert findings(line)


@pytest.mark.parametrize("line", ["s3://bucket/work/x", "../shared/data/tmp/", "a/home/b", "`make lock`"])
def test_the_search_leaves_other_paths_alone(line: str) -> None:
    assert not findings(line)
