"""The floors of the architecture hold, and the contract that holds them can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).parent / "lint-imports"
    return subprocess.run([command, "--no-cache"], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A copy of the import packages and their contract, to break."""
    packages = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    for package in packages:
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_go_down_only(root: Path) -> None:
    run = lint_imports(root)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("where", "planted", "broken"),
    [
        ("tiling", "import cube.load", "Imports go down only"),
        ("curate", "import simulate", "Imports go down only"),
        ("recipes", "import flows.cli", "Imports go down only"),
        ("labels", "import catalog.scene", "Imports go down only"),
        ("chips", "import labels", "Imports go down only"),
        ("cube", "import prefect", "Only flows imports Prefect"),
        ("chips", "import pydantic", "Only recipes imports pydantic"),
    ],
)
def test_a_planted_import_breaks_the_contract(copy: Path, where: str, planted: str, broken: str) -> None:
    # Inside a function: heavy imports stand there, and the contract must see them.
    (copy / where / "planted.py").write_text(f"def planted() -> None:\n    {planted}\n")
    run = lint_imports(copy)
    assert run.returncode == 1, run.stdout + run.stderr
    assert any(line.startswith(broken) and line.endswith("BROKEN") for line in run.stdout.splitlines()), run.stdout
    assert f"{where}.planted" in run.stdout
