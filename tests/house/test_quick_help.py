"""`curate --help` answers at once and a worker begins soon: nothing heavy is imported for them without need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HEAVY = {
    "dask", "distributed", "fastapi", "geopandas", "imagecodecs", "matplotlib", "numba", "numpy", "obstore", "odc",
    "osmium", "pandas", "prefect", "pyarrow", "pydantic", "pyogrio", "pyproj", "pystac", "pystac_client", "rasterio",
    "requests", "rioxarray", "rusterize", "scipy", "shapely", "stac_geoparquet", "stackstac", "xarray", "zarr",
}  # fmt: skip


def imported_by(*arguments: str) -> set[str]:
    """Top-level packages that the installed command imports, as the interpreter itself reports them."""
    run = subprocess.run(
        [Path(sys.executable).parent / "curate", *arguments],
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().partition(".")[0] for line in lines}


def test_help_imports_nothing_heavy() -> None:
    imported = imported_by("--help")
    assert "flows" in imported  # the measure works
    assert not HEAVY & imported


def test_version_imports_nothing_heavy() -> None:
    assert not HEAVY & imported_by("--version")


def test_labels_are_listed_without_anything_heavy() -> None:
    assert not HEAVY & imported_by("labels")
    assert not HEAVY & imported_by("labels", "show", "corine", "--to", "clc19")


def test_rules_for_splits_are_listed_without_anything_heavy() -> None:
    assert not HEAVY & imported_by("splits")


def test_a_worker_imports_nothing_that_only_other_readers_and_the_plan_need() -> None:
    """Each would take a second or more of the first shard of every worker."""
    heavy = {"dask.array", "geopandas", "odc.loader", "pandas", "pydantic", "scipy.linalg", "xarray", "zarr"}
    code = "import sys, flows.shard; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cube.load" in run.stdout.split()
    assert not heavy & set(run.stdout.split())
