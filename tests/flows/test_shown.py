"""What people are shown of a build: its report is part of the dataset, chips become pictures, a plan becomes a map."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from curate.errors import InputError, OutputError
from flows.console import PlainConsole
from flows.showing import show_chip, write_report
from flows.steps import build, make_request
from simulate.write import World

Curate = Callable[..., Any]


def test_a_build_leaves_a_report_that_its_manifest_knows(dataset: Path) -> None:
    html = (dataset / "report.html").read_bytes()
    files = {key: digest for key, _, digest in json.loads((dataset / "manifest.json").read_text())["files"]}
    assert files["report.html"] == hashlib.sha256(html).hexdigest()
    text = html.decode()
    for words in ("small-world", "s2 · false colour", "s1 · vv, vh", "dem · relief", "Grassland", "ESA WorldCover"):
        assert words in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")


def test_the_report_of_a_published_dataset_is_the_one_that_the_build_wrote(
    curate: Curate, dataset: Path, tmp_path: Path
) -> None:
    run = curate("report", dataset, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "report.html").read_bytes() == (dataset / "report.html").read_bytes()
    with pytest.raises(OutputError, match="manifest"):
        write_report(str(dataset), str(dataset / "report.html"))


def test_a_recipe_can_do_without_a_report(world: World, located_recipe: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(located_recipe.replace("name: small-world", "name: plain\nreport: false"))
    out = tmp_path / "plain"
    build(make_request(aoi=str(world.region), recipe=str(recipe), out=str(out)), PlainConsole())
    assert (out / "manifest.json").exists()
    assert not (out / "report.html").exists()


def test_a_chip_becomes_a_picture_whose_pixels_are_those_of_the_store(
    curate: Curate, dataset: Path, tmp_path: Path
) -> None:
    ds = xr.open_zarr(dataset / "chips.zarr", group="label", chunks=None, mask_and_scale=False)
    chip = str(ds.chip.values[5])
    run = curate("show", chip, "--dataset", dataset, "--as", "label", "--plain", "--out", "label.png", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "label.png") as image:
        rgba = np.asarray(image)
    codes = ds.worldcover.isel(chip=5).values
    attrs = ds.worldcover.attrs
    palette = dict(zip(attrs["flag_values"], attrs["flag_colors"].split(), strict=True))
    for code in np.unique(codes[codes != attrs["_FillValue"]]).tolist():
        colour = palette[code]
        assert (rgba[codes == code] == [*bytes.fromhex(colour[1:]), 255]).all()
    show_chip(str(dataset), chip, str(tmp_path / "sheet.png"), date=dt.date(2021, 5, 15))
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 3 * 256
    with pytest.raises(InputError, match="false-colour, sar, hillshade, label"):
        show_chip(str(dataset), chip, str(tmp_path / "none.png"), look="true-colour")


def test_a_plan_becomes_a_map_when_it_is_asked_for(
    curate: Curate, world: World, world_recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    asked = ["plan", "--aoi", world.region, "--recipe", world_recipe]
    run = curate(*asked, "--map", "plan.html", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "map      plan.html" in run.stdout
    text = (tmp_path / "plan.html").read_text()
    built = xr.open_zarr(dataset / "chips.zarr", chunks=None)
    assert all(f'"{chip}"' in text for chip in built.chip.values)
    assert "What a build would do" in text
    assert [path.name for path in tmp_path.iterdir()] == ["plan.html"]
