"""Pairs of dates and seasons from the recipe to the published store, on real Sentinel-2 of Lower Austria."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.transform import from_origin

from curate.errors import RecipeError
from flows import steps
from flows.console import PlainConsole
from flows.plan import lay_area
from recipes.read import parse_recipe, read_recipe
from tiling.aoi import read_aoi
from tiling.grid import centres

RECIPE = """\
time: 2018-04-01/2018-10-01
catalog: {data}/austria/catalog.json
grid: {{resolution_m: 10, size_px: 128, min_cover: 0.7}}
sources:
  pair:
    collection: sentinel-2-l2a
    bands: [red]
    time: {{pair: event, date: 2018-07-01, within_days: 40, complete: true}}
    keep: {{min_clear: 0.9}}
  contrast: {{collection: sentinel-2-l2a, bands: [red], time: {{pair: clarity}}}}
  seasons: {{collection: sentinel-2-l2a, bands: [red], time: {{composite: seasonal}}}}
split: {{block_km: 5, buffer_km: 0}}
"""


def test_a_store_says_what_each_date_stands_for(shared_data: Path, tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "dataset"
    recipe.write_text(RECIPE.format(data=shared_data))
    region = shared_data / "austria" / "region.geojson"
    steps.build(steps.make_request(aoi=str(region), recipe=str(recipe), out=str(out)), PlainConsole())
    assert steps.check(str(out), PlainConsole()).problems == ()
    pair = xr.open_zarr(out / "chips.zarr", group="pair", chunks=None)
    assert pair.role.values.tolist() == ["before", "after"]
    there = ~np.isnat(pair.acquired.values)
    assert there.any()
    assert (there[:, 0] == there[:, 1]).all(), "complete: both or none"
    seen = pair.acquired.values[there[:, 0]]
    event = np.datetime64("2018-07-01")
    assert (seen[:, 0] < event).all()
    assert (seen[:, 1] >= event + np.timedelta64(1, "D")).all()
    assert (np.abs(seen - event) <= np.timedelta64(41, "D")).all()
    assert (pair.clear.values[there] >= 0.9).all()
    contrast = xr.open_zarr(out / "chips.zarr", group="contrast", chunks=None)
    assert contrast.role.values.tolist() == ["clear", "cloudy"]
    assert (contrast.acquired.values[:, 0] > contrast.acquired.values[:, 1]).any(), "not in order of time"
    assert (contrast.clear.values[:, 0] > contrast.clear.values[:, 1]).all()
    seasons = xr.open_zarr(out / "chips.zarr", group="seasons", chunks=None)
    assert seasons.season.values.tolist() == ["MAM 2018", "JJA 2018", "SON 2018"]


BY_CHIP = """\
time: 2018-04-01/2018-10-01
catalog: {data}/austria/catalog.json
grid: {{resolution_m: 10, size_px: 128, min_cover: 0.7}}
sources:
  record:
    collection: sentinel-2-l2a
    bands: [red]
    time: {{back: 2, every_days: 30, tolerance_days: 10, dates: {{vector: records.csv, attribute: seen}}}}
  plants:
    collection: sentinel-2-l2a
    bands: [red]
    keep: {{min_clear: 0.8}}
    time: {{phenology: {{greenup: g.tif, maturity: m.tif, senescence: s.tif, dormancy: d.tif}}}}
split: {{block_km: 5, buffer_km: 0}}
"""


def test_chips_have_days_of_their_own_from_records_and_from_the_year_of_their_plants(
    shared_data: Path, tmp_path: Path
) -> None:
    """The west greens in April and the east in May; a strip of the raster has no cycle; and a build goes on."""
    recipe, out, layers = tmp_path / "recipe.yaml", tmp_path / "dataset", []
    recipe.write_text(BY_CHIP.format(data=shared_data))
    aoi = read_aoi(shared_data / "austria" / "region.geojson")
    area = lay_area(read_recipe(recipe), aoi)
    boxes = np.array([chip.bounds for chip in area.chips])
    west, north = boxes[:, 0].min(), boxes[:, 3].max()
    days = {"g": (100, 130), "m": (150, 170), "s": (200, 210), "d": (240, 250)}
    for name, (left, right) in days.items():
        pixels = np.full((8, 8), 17_532, np.int16)  # 2018-01-01
        pixels[:, :4] += left
        pixels[:, 4:] += right
        pixels[4:] = 32767
        layers.append(tmp_path / f"{name}.tif")
        profile = {"driver": "GTiff", "height": 8, "width": 8, "count": 1, "dtype": "int16", "nodata": 32767}
        transform = from_origin(west, north, 640, 640)
        with rasterio.open(layers[-1], "w", crs=f"EPSG:{area.chips[0].epsg}", transform=transform, **profile) as file:
            file.write(pixels, 1)
    lon, lat = centres(area.chips)
    records = {area.chips[0].id: "2018-06-30", area.chips[1].id: "2018-08-29"}
    rows = [f"{lon[at]},{lat[at]},{day}" for at, day in enumerate(records.values())]
    # A later record in the first chip, and one far away.
    rows += [f"{lon[0]},{lat[0]},2018-09-20", "3.0,50.0,2018-07-07"]
    layers.append(tmp_path / "records.csv")
    layers[-1].write_text("lon,lat,seen\n" + "\n".join(rows) + "\n")
    request = steps.make_request(aoi=str(shared_data / "austria" / "region.geojson"), recipe=str(recipe), out=str(out))
    assert steps.prepare(request, PlainConsole()) is not None
    for layer in layers:
        layer.unlink()
    steps.build(request, PlainConsole())
    assert steps.check(str(out), PlainConsole()).problems == ()

    told = json.loads((out / "dates.json").read_text())["sources"]
    found = xr.open_zarr(out / "chips.zarr", group="record", chunks=None)
    assert {chip: each["days"] for chip, each in told["record"].items()} == {k: [v] for k, v in records.items()}
    for chip, acquired in zip(found.chip.values.tolist(), found.acquired.values, strict=True):
        if chip not in records:
            assert np.isnat(acquired).all()
            continue
        for back, moment in zip((30, 0), acquired, strict=True):
            target = np.datetime64(records[chip]) - np.timedelta64(back, "D")
            assert abs(moment.astype("datetime64[D]") - target) <= np.timedelta64(10, "D")

    plants = xr.open_zarr(out / "chips.zarr", group="plants", chunks=None)
    assert plants.role.values.tolist() == ["spring", "summer", "autumn", "winter"]
    by = {chip: each["by"] for chip, each in told["plants"].items()}
    assert {"phenology", "calendar"} == set(by.values())
    year = np.datetime64("2018-01-01")
    for chip, acquired in zip(plants.chip.values.tolist(), plants.acquired.values, strict=True):
        turns = np.array(told["plants"][chip]["days"], "datetime64[D]")
        if by[chip] == "phenology":
            assert (turns - year).astype(int).tolist() in ([d[0] for d in days.values()], [d[1] for d in days.values()])
            for season in range(3):
                if not np.isnat(acquired[season]):
                    assert turns[season] <= acquired[season].astype("datetime64[D]") < turns[season + 1]
        else:
            assert turns[0] == np.datetime64("2001-03-01")
    assert (~np.isnat(plants.acquired.values[:, :3])).sum() > len(by)


@pytest.mark.parametrize(
    ("time", "says"),
    [
        ("{pair: event, date: 2018-07-01}", "say what is enough"),
        ("{phenology: {greenup: a, maturity: b, senescence: c, dormancy: d}}", "'phenology' takes the nearest"),
        ("{back: 9, every_days: 30, date: 2018-09-01}", "lies outside 2018-04-01/2018-10-01"),
    ],
)
def test_a_recipe_whose_dates_cannot_be_is_refused_at_its_source(time: str, says: str) -> None:
    text = f"time: 2018-04-01/2018-10-01\nsources:\n  s2: {{collection: sentinel-2-l2a, bands: [red], time: {time}}}\n"
    with pytest.raises(RecipeError, match=says):
        parse_recipe(text)
