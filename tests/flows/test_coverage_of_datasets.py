"""Coverage from the recipe to the index, the region and the console, against whole tiles read with rasterio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio

from curate.errors import RecipeError
from flows import steps
from flows.console import PlainConsole
from recipes.read import parse_recipe

SIDE = 64
SETS = {"strict": (4, 5, 6, 7), "paper_a": (0, 1, 2, 4, 5, 6, 7, 10, 11), "paper_b": (4, 5)}
RECIPE = """\
time: 2018-04-01/2018-07-01
catalog: {data}/austria/catalog.json
grid: {{resolution_m: 10, size_px: 64, min_cover: 1.0}}
sources:
  s2:
    collection: sentinel-2-l2a
    bands: [red]
    keep: {{min_clear: 0.5}}
    coverage: {{profile: {profile}, sc_min_pct: 60, tc_min_pct: 30}}
    time: {time}
split: {{block_km: 5, buffer_km: 0}}
"""


@pytest.mark.parametrize(
    ("profile", "time"),
    [("strict", "{composite: monthly}"), ("paper_a", "{series: true, max_dates: 3}"), ("paper_b", "{single: newest}")],
)
def test_all_dates_seen_count_whatever_becomes_of_them(
    shared_data: Path, tmp_path: Path, profile: str, time: str
) -> None:
    """Real scenes of Lower Austria: three years of tables, one for each set of classes and kind of time axis."""
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "dataset"
    recipe.write_text(RECIPE.format(data=shared_data, profile=profile, time=time))
    region = shared_data / "austria" / "region.geojson"
    steps.build(steps.make_request(aoi=str(region), recipe=str(recipe), out=str(out)), PlainConsole())
    table = pd.read_parquet(out / "chips.parquet")

    scl = {}
    for folder in sorted((shared_data / "austria" / "sentinel-2-l2a").iterdir()):
        if folder.is_dir() and "20180401" <= folder.name.split("_")[2][:8] < "20180701":
            with rasterio.open(folder / "SCL.tif") as file:
                scl[folder.name], bounds, side = file.read(1), file.bounds, file.res[0]
    assert len(scl) > 10
    ratio = round(side / 10)
    region_clear: dict[str, int] = {}
    for _, row in table.iterrows():
        y, x = round((bounds.top - row.y0) / 10), round((row.x0 - bounds.left) / 10)
        share: dict[str, float] = {}
        for name, classes in scl.items():
            fine = np.repeat(np.repeat(classes, ratio, 0), ratio, 1)[y : y + SIDE, x : x + SIDE]
            clear = int(np.isin(fine, SETS[profile]).sum())
            region_clear[name] = region_clear.get(name, 0) + clear
            if (fine != 0).any():
                share[name] = 100 * clear / SIDE**2
        shares = np.array(list(share.values()))
        assert row.s2_num_timesteps == len(shares) == row.s2_seen > len(row.s2_dates)
        assert row.s2_sc_pct == pytest.approx(shares.mean(), abs=1e-4)
        assert row.s2_tc_pct == pytest.approx(100 * (shares >= 60).mean(), abs=1e-4)
        assert row.s2_sca == ("high" if shares.mean() >= 60 else "low")
        assert row.s2_tca == ("high" if (shares >= 60).mean() >= 0.3 else "low")
        assert row.s2_num_timesteps_above == (shares >= 60).sum()
        assert row.s2_num_timesteps_not_full == (shares != 100).sum()

    found = json.loads((out / "coverage.json").read_text())["s2"]
    whole = np.array(list(region_clear.values())) * 100 / (SIDE**2 * len(table))
    assert found["classes"] == list(SETS[profile])
    assert found["num_timesteps"] == len(scl)
    assert found["sc_pct"] == pytest.approx(whole.mean())
    assert found["tc_pct"] == pytest.approx(100 * (whole >= 60).mean())
    assert sorted(found["dates_pct"].values()) == pytest.approx(sorted(whole), abs=1e-4)
    told = steps.summary(str(out))
    assert f"coverage SC {whole.mean():.1f} %" in told
    assert f"of {len(scl)} dates reach 60 %, profile {profile}" in told
    assert steps.check(str(out), PlainConsole()).problems == ()


def test_without_the_key_nothing_is_counted(dataset: Path) -> None:
    table = pd.read_parquet(dataset / "chips.parquet")
    assert not [name for name in table.columns if name.endswith(("_sc_pct", "_clear_px"))]
    assert not (dataset / "coverage.json").exists()
    assert steps.info(str(dataset)).coverage == {}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"collection": "landsat-c2-l2", "coverage": {}}, "defined by the scene classification"),
        ({"collection": "sentinel-1-rtc", "coverage": {}}, "defined by the scene classification"),
        ({"collection": "sentinel-2-l2a", "coverage": {"profile": "paper_c"}}, "paper_a"),
        ({"collection": "sentinel-2-l2a", "coverage": {"sc_min_pct": 101}}, "is 101; wanted 100 or less"),
    ],
)
def test_what_cannot_be_measured_is_refused(source: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        parse_recipe(json.dumps({"time": "2018-04-01/2018-10-01", "sources": {"a": source}}))
