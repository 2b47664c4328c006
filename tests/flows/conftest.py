"""A small simulated world and one dataset of it, made once for all tests of the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.console import PlainConsole
from flows.steps import build, make_request
from simulate.world import WorldSpec
from simulate.write import World, write_world

Curate = Callable[..., "subprocess.CompletedProcess[str]"]

WORLD_RECIPE = """\
name: small-world
time: 2021-04-01/2021-08-01
catalog: catalog.json
grid: {resolution_m: 10, size_px: 64, min_cover: 0.3}
sources:
  s2:
    collection: sentinel-2-l2a
    bands: [red, nir, swir16]
    mask: {hide: [void, saturated, shadow, cloud, cirrus], dilate_m: 20}
    time: {composite: monthly, how: median}
  s1: {collection: sentinel-1-rtc, bands: [vv, vh], time: {composite: monthly, how: mean}}
  dem: {collection: cop-dem-glo-30}
labels:
  worldcover: {product: esa-worldcover, year: 2021}
  fields: {vector: fields.geojson, attribute: label, background: 0}
split: {block_km: 1.2, buffer_km: 0.1, shares: {train: 0.6, val: 0.2, test: 0.2}, seed: 1}
store: {shard_chips: 16}
"""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two zones, both baselines, a reprocessed duplicate; a few kilometres across."""
    spec = WorldSpec(size_px=400, dates=4, every_days=30, bands=("B04", "B08", "B11"), radar_dates=2, osm=True)
    return write_world(tmp_path_factory.mktemp("world"), spec)


@pytest.fixture(scope="session")
def world_recipe(world: World) -> Path:
    path = world.folder / "recipe.yaml"
    path.write_text(WORLD_RECIPE)
    return path


@pytest.fixture(scope="session")
def located_recipe(world: World) -> str:
    """The text of the recipe with the paths of its files, so that it may lie anywhere."""
    text = WORLD_RECIPE.replace("catalog: catalog.json", f"catalog: {world.catalog}")
    return text.replace("vector: fields.geojson", f"vector: {world.folder / 'fields.geojson'}")


@pytest.fixture(scope="session")
def dataset(world: World, world_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world's dataset, built undisturbed in this process."""
    out = tmp_path_factory.mktemp("built") / "dataset"
    build(make_request(aoi=str(world.region), recipe=str(world_recipe), out=str(out)), PlainConsole())
    return out


@pytest.fixture(scope="session")
def curate() -> Curate:
    """The installed command, run as a user runs it."""
    command = Path(sys.executable).with_name("curate")

    def run(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(command), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            cwd=cwd,
            env={**os.environ, **environment},
        )

    return run
