"""The tutorial does what it says, as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recipes.reference import reference

DOCS = Path(__file__).parents[2] / "docs"


def test_the_baseline_of_the_tutorial_learns_something(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "dataset").symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "tutorial.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    # The world of the tests is too small for a test split.
    exec(compile(code.replace('pixels("test")', 'pixels("val")'), "tutorial.md", "exec"), names)
    score = names["score"]
    assert isinstance(score, float)
    # Guessing the largest class gives less than 0.2.
    assert score > 0.4
    assert f"{score:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize(("page", "place"), [("docs/index.md", "demo/dataset"), ("README.md", "region")])
def test_the_first_lines_that_a_reader_pastes_show_the_training_chips(
    page: str, place: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).symlink_to(dataset)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS.parent / page).read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, page, "exec"), names)
    assert set(names["train"].split.to_numpy()) == {"train"}
    assert names["train"].reflectance.dims == ("chip", "time", "band", "y", "x")


def test_the_reference_of_recipes_is_that_of_the_schema() -> None:
    told = "run: curate schema --markdown --out docs/recipe.md"
    assert (DOCS / "recipe.md").read_text(encoding="utf-8") == reference(), told


def test_every_page_of_the_site_is_there_and_every_page_is_in_the_site() -> None:
    site = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"([\w/-]+\.md)", site))
    assert named == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_the_site_builds_without_network_and_without_a_broken_link(tmp_path: Path) -> None:
    mkdocs = Path(sys.executable).with_name("mkdocs")
    command = [str(mkdocs), "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "tutorial" / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(https?:)?//(?!github\.com)[^"]*\.(?:js|css|woff2?)', page)
