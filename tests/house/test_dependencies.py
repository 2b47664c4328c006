"""What the code imports is declared, what is declared is imported, and what is installed is what the lock says."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Declared although no module of ours imports them, and why.
NOT_IMPORTED = {
    "fastapi": "only to keep Prefect's server below the release that breaks it",
}


@pytest.fixture(scope="module")
def pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


def declared(pyproject: dict[str, Any]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in pyproject["project"]["dependencies"]}


def imported(root: Path, packages: list[str]) -> dict[str, str]:
    """Distribution → the first module of ours that imports it, imports inside functions included."""
    owners = packages_distributions()
    found: dict[str, str] = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                else:
                    continue
                for name in names:
                    top, _, rest = name.partition(".")
                    if top in packages or top in sys.stdlib_module_names:
                        continue
                    # Several distributions share `odc` and `pystac`: odc.stac is odc-stac's, pystac we ask for whole.
                    owner = f"odc-{rest.partition('.')[0]}" if top == "odc" else top
                    if top not in ("odc", "pystac"):
                        owner = owners.get(top, [top])[0]
                    found.setdefault(canonicalize_name(owner), str(path.relative_to(root)))
    return found


def test_every_import_is_a_declared_dependency(root: Path, pyproject: dict[str, Any]) -> None:
    found = imported(root, pyproject["tool"]["importlinter"]["root_packages"])
    missing = {name: where for name, where in found.items() if name not in declared(pyproject)}
    assert not missing


def test_every_declared_dependency_is_imported_or_has_a_reason(root: Path, pyproject: dict[str, Any]) -> None:
    found = imported(root, pyproject["tool"]["importlinter"]["root_packages"])
    assert declared(pyproject) - set(found) == set(NOT_IMPORTED)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_what_is_installed_is_what_the_lock_says(root: Path, lock: str) -> None:
    differ = {}
    for line in (root / lock).read_text().splitlines():
        if line.startswith((" ", "#")) or "==" not in line:
            continue
        pin, _, marker = line.rstrip("\\ ").partition(" ; ")
        if marker and not Marker(marker).evaluate():
            continue
        name, _, wanted = pin.strip().partition("==")
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        if found != wanted:
            differ[name] = f"{found}, the lock says {wanted}"
    assert not differ


def test_every_locked_line_has_a_hash_and_no_address(root: Path) -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (root / lock).read_text()
        blocks = text.replace("\\\n", " ").splitlines()
        assert blocks
        assert all("--hash=sha256:" in block for block in blocks), lock
        assert "://" not in text, lock
