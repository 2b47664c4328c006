"""Acquisitions that lie off are measured once, frozen with the lock and undone; on real Sentinel-2 over Austria."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from cube.align import by_acquisition, measure_series
from flows import steps
from flows.alignment import _read, _sample, moved
from flows.console import PlainConsole
from recipes.read import parse_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def request_(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> steps.Request:
    folder = tmp_path_factory.mktemp("aligned")
    text = (ROOT / "examples" / "austria-series.yaml").read_text().replace("../../shared/data", str(shared_data))
    recipe = folder / "recipe.yaml"
    recipe.write_text(text.replace("    keep:", "    coregister: {reference: composite, min_chips: 1}\n    keep:"))
    return steps.make_request(
        aoi=str(shared_data / "austria" / "region.geojson"), recipe=str(recipe), out=str(folder / "dataset")
    )


@pytest.fixture(scope="module")
def prepared(request_: steps.Request) -> steps.Prepared:
    found = steps.prepare(request_, PlainConsole())
    assert found is not None
    return found


def test_the_shifts_of_real_dates_are_metres_and_gone_once_undone(prepared: steps.Prepared) -> None:
    plan = prepared.plan
    assert plan.alignment is not None
    told = json.loads(plan.alignment)["s2"]
    before = [math.hypot(one["east_m"], one["north_m"]) for one in told.values() if one["undone"]]
    assert len(before) > 15
    assert 3 < float(np.median(before)) < 8, "Sentinel-2A and -2B lie about 7 m apart in 2018"

    (request,) = plan.requests
    assert dict(request.moved) == dict(moved(plan.alignment, "s2"))
    sampled = dataclasses.replace(request, size_px=256, steps=1)
    after: dict[str, list[object]] = {}
    for chip in _sample(plan.aoi, request.resolution_m):
        dates, cube, clear = _read(sampled, plan.scenes["s2"], chip)
        if len(dates) < 2:
            continue
        shifts = measure_series(cube, clear, reference="composite", max_shift_px=2)
        for date, shift in zip(dates, shifts, strict=True):
            after.setdefault(str(date), []).append(shift)
    left = by_acquisition(after, request.resolution_m)  # type: ignore[arg-type]
    lengths = [math.hypot(one.east_m, one.north_m) for one in left.values() if one.chips]
    assert float(np.median(lengths)) < 1.0, "a tenth of a pixel"


def test_a_build_that_continues_uses_the_frozen_shifts(
    request_: steps.Request, prepared: steps.Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    again = steps.prepare(request_, PlainConsole())
    assert again is not None
    assert again.plan.alignment == prepared.plan.alignment
    assert again.plan.fingerprint == prepared.plan.fingerprint
    assert "measuring the alignment" not in capsys.readouterr().err
    steps.build(request_, PlainConsole())
    assert (Path(request_.out) / "alignment.json").read_bytes() == prepared.plan.alignment
    assert steps.check(request_.out, PlainConsole()).problems == ()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{collection: sentinel-1-rtc, coregister: {}}", "no quality layer"),
        ("{collection: sentinel-2-l2a, coregister: {reference: s1}}", "wanted 'composite' or 'clearest'"),
        ("{collection: sentinel-2-l2a, coregister: {min_shift_px: 3}}", "smaller number first"),
    ],
)
def test_what_cannot_be_aligned_is_refused(source: str, sentence: str) -> None:
    from curate.errors import RecipeError

    with pytest.raises(RecipeError, match=sentence):
        parse_recipe(f"time: 2018-04-01/2018-10-01\nsources: {{a: {source}}}\n")
