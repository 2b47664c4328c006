"""The built wheel holds exactly our folders, offers exactly one command, and runs without the checkout.

`.ci/run` names the wheel it built (CURATE_WHEEL) and the interpreter it installed it for (CURATE_WHEEL_PYTHON); alone,
the tests build a wheel and leave out what needs an installation.
"""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def folders(root: Path) -> set[str]:
    """Top-level folders that are import packages."""
    return {path.parent.name for path in root.glob("*/__init__.py")}


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    if given := os.environ.get("CURATE_WHEEL"):
        return zipfile.ZipFile(given)
    dist = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    return zipfile.ZipFile(next(dist.glob("*.whl")))


@pytest.fixture(scope="module")
def outside_python() -> str:
    """Interpreter of an environment outside the tree that holds the wheel and nothing of the checkout."""
    if not (given := os.environ.get("CURATE_WHEEL_PYTHON")):
        pytest.skip("no wheel is installed outside the tree: .ci/run does that and names it in CURATE_WHEEL_PYTHON")
    return given


def test_every_place_that_lists_the_packages_lists_the_folders(pyproject: dict[str, Any], folders: set[str]) -> None:
    tool = pyproject["tool"]
    assert set(tool["hatch"]["build"]["targets"]["wheel"]["packages"]) == folders
    assert set(tool["importlinter"]["root_packages"]) == folders
    layers = tool["importlinter"]["contracts"][0]["layers"]
    assert {name.strip() for layer in layers for name in layer.split("|")} == folders
    assert folders <= set(tool["mypy"]["files"])
    assert folders <= set(tool["ruff"]["lint"]["isort"]["known-first-party"])


def test_the_wheel_holds_every_file_of_the_folders_and_nothing_else(
    wheel: zipfile.ZipFile, folders: set[str], root: Path
) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    kept = ("__pycache__", ".mypy_cache", ".ruff_cache")
    wanted = {
        path.relative_to(root).as_posix()
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file() and not set(kept) & set(path.parts)
    }
    assert inside == wanted


@pytest.mark.parametrize("table", ["catalog/tables/collections.toml", "labels/tables", "recipes/default.yaml"])
def test_tables_and_recipes_travel_with_the_wheel(wheel: zipfile.ZipFile, table: str) -> None:
    assert any(name.startswith(table) for name in wheel.namelist())


def test_the_console_script_is_the_only_entry(wheel: zipfile.ZipFile) -> None:
    entries = configparser.ConfigParser()
    entries.read_string(wheel.read(next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))).decode())
    assert {section: dict(entries[section]) for section in entries.sections()} == {
        "console_scripts": {"curate": "flows.cli:main"}
    }
    assert not [name for name in wheel.namelist() if name.endswith("__main__.py")]


def test_tests_are_not_packages(root: Path) -> None:
    assert not list((root / "tests").rglob("__init__.py"))


def test_no_two_test_files_share_a_name(root: Path) -> None:
    names = sorted(path.name for path in (root / "tests").rglob("test_*.py"))
    assert names == sorted(set(names))


def test_no_module_in_flows_is_named_like_a_folder(root: Path, folders: set[str]) -> None:
    # A flow loaded by path would put flows/ on sys.path, and there such a module would hide the folder.
    assert not folders & {path.stem for path in (root / "flows").iterdir()}


def test_the_installed_wheel_imports_nothing_from_the_checkout(
    outside_python: str, folders: set[str], root: Path, tmp_path: Path
) -> None:
    code = (
        "import importlib, json, pkgutil, sys\n"
        "found = {}\n"
        f"for folder in {sorted(folders)!r}:\n"
        "    package = importlib.import_module(folder)\n"
        "    found[folder] = package.__file__\n"
        "    for module in pkgutil.walk_packages(package.__path__, folder + '.'):\n"
        "        found[module.name] = importlib.import_module(module.name).__file__\n"
        "print(json.dumps(found))\n"
    )
    run = subprocess.run([outside_python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    files = json.loads(run.stdout.splitlines()[-1])
    assert folders < set(files)
    assert not [name for name, file in files.items() if Path(file).is_relative_to(root)]


def test_the_installed_command_needs_no_file_of_the_working_directory(outside_python: str, tmp_path: Path) -> None:
    for trap in ("curate", "flows", "catalog"):
        (tmp_path / f"{trap}.py").write_text("raise SystemExit('a file of the working directory was imported')\n")
    command = Path(outside_python).parent / "curate"
    run = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
