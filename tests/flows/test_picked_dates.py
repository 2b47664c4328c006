"""Pairs of dates and seasons from the recipe to the published store, on real Sentinel-2 of Lower Austria."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from curate.errors import RecipeError
from flows import steps
from flows.console import PlainConsole
from recipes.read import parse_recipe

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
    seasons = xr.open_zarr(out / "chips.zarr", group="seasons", chunks=None)
    assert seasons.season.values.tolist() == ["MAM 2018", "JJA 2018", "SON 2018"]


@pytest.mark.parametrize(
    ("time", "says"),
    [
        ("{pair: event, date: 2018-07-01}", "say what is enough"),
        ("{back: 9, every_days: 30, date: 2018-09-01}", "lies outside 2018-04-01/2018-10-01"),
    ],
)
def test_a_recipe_whose_dates_cannot_be_is_refused_at_its_source(time: str, says: str) -> None:
    text = f"time: 2018-04-01/2018-10-01\nsources:\n  s2: {{collection: sentinel-2-l2a, bands: [red], time: {time}}}\n"
    with pytest.raises(RecipeError, match=says):
        parse_recipe(text)
