"""Flags that contradict the pixels: the plan decides by the pixels, freezes that in the lock, and builds from it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

from catalog.lock import read_lock
from flows import steps
from flows.console import PlainConsole
from simulate.world import WorldSpec
from simulate.write import write_world

RECIPE = """\
time: 2021-04-01/2021-12-01
catalog: {catalog}
grid: {{resolution_m: 10, size_px: 64, min_cover: 0.9}}
sources:
  s2: {{collection: sentinel-2-l2a, bands: [red], time: {{series: true}}}}
split: {{block_km: 5, buffer_km: 0}}
"""


def test_pixels_overrule_flags_once_and_the_same_reflectance_comes_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = WorldSpec(size_px=300, dates=4, every_days=30, bands=("B04",), cloudiness=0.1)
    spec = dataclasses.replace(small, radar_dates=0, terrain=False, landcover=False, osm=False)
    world = write_world(tmp_path / "world", spec)
    doubted = Path(shutil.copytree(world.folder, tmp_path / "doubted"))
    shifted: list[bool] = []
    for path in sorted((doubted / "sentinel-2-l2a").glob("*/*.json")):
        item = json.loads(path.read_text())
        if item.get("type") != "Feature" or item["properties"]["s2:processing_baseline"] < "04.00":
            continue
        item["properties"]["earthsearch:boa_offset_applied"] = False
        path.write_text(json.dumps(item))
        if len(shifted) % 2 == 0:  # what Earth Search did to most of its files, and then wrote the wrong flag
            with rasterio.open(path.parent / "B04.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
                dn = file.read(1).astype(int)
                file.write(np.where(dn == 0, 0, np.maximum(dn - 1000, 1)).astype("uint16"), 1)
        shifted.append(len(shifted) % 2 == 0)
    assert set(shifted) == {True, False}
    recipes = {}
    for name, folder in (("sure", world.folder), ("doubted", doubted)):
        recipes[name] = tmp_path / f"{name}.yaml"
        recipes[name].write_text(RECIPE.format(catalog=folder / "catalog.json"))
    requests = {
        name: steps.make_request(aoi=str(world.region), recipe=str(path), out=str(tmp_path / f"out-{name}"))
        for name, path in recipes.items()
    }
    steps.build(requests["sure"], PlainConsole())
    assert "offset is not sure" not in capsys.readouterr().err

    assert steps.prepare(requests["doubted"], PlainConsole()) is not None
    said = capsys.readouterr().err
    assert f"{shifted.count(False)} of them are raw, {shifted.count(True)} are shifted already, 0 do not tell" in said
    monkeypatch.setattr("flows.plan.settle", lambda rows: pytest.fail("the pixels are looked at once"))
    steps.build(requests["doubted"], PlainConsole())
    lock = read_lock((tmp_path / "out-doubted" / "scenes.parquet").read_bytes())
    why = [row.scene.radiometry.why for row in lock if row.scene and row.status == "used"]
    assert sum(one.startswith("pixels: ") for one in why) == len(shifted)

    pixels = {
        name: xr.open_zarr(tmp_path / f"out-{name}" / "chips.zarr", group="s2", chunks=None).reflectance.values
        for name in recipes
    }
    np.testing.assert_array_equal(pixels["doubted"], pixels["sure"])
