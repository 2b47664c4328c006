"""Acquisitions that lie off are measured once, frozen with the lock, undone and told; shifts that are known, and real.

The simulated pair of sensors is drawn at moved places and not resampled, so its shifts are exact.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rasterio
import xarray as xr
from pyproj import Transformer

from catalog.lock import read_lock
from chips.storage import open_storage
from chips.write import read_document
from curate.errors import RecipeError
from flows import steps
from flows.alignment import moved
from flows.console import PlainConsole
from recipes.read import parse_recipe
from simulate.view import view
from simulate.world import Raster, WorldSpec

ROOT = Path(__file__).parents[2]

WORLD = WorldSpec(seed=7, size_px=704, dates=8)
LEFT, TOP, SIDE_M = 649_000, 5_353_000, 2_800
FINE = {10: 2, 20: 4}
DAYS = (dt.date(2021, 4, 3), dt.date(2021, 5, 16), dt.date(2021, 7, 22), dt.date(2021, 8, 24))
SEASONS = (0, 2, 5, 7)
"""Acquisition of the world whose season and light each of the days has."""
KNOWN_A = ((0.0, 0.0), (5.5, -3.0), (0.0, 0.0), (-4.2, 6.3))
KNOWN_B = ((6.3, -3.7), (-4.1, 7.7), (0.0, 0.0), (-7.0, -6.2))
"""(east, north) in metres by which each date lies off."""
FLAT, CLOUDED = dt.date(2021, 6, 1), dt.date(2021, 6, 20)
"""Two more dates of the second sensor: fog without a texture, and clouds everywhere."""

PAIR = """\
name: pair
time: 2021-04-01/2021-10-01
grid: {resolution_m: 10, size_px: 64, min_cover: 0.9}
split: {block_km: 2, buffer_km: 0.1}
sources:
"""
SENSOR = """\
  NAME:
    collection: NAME
    catalog: NAME/
    describe:
      bands: {red: red, INFRARED: INFRARED, scl: {asset: scl, dtype: uint8}}
      dtype: uint16
      nodata: 0
      scale: 0.0001
      gsd_m: GSD
      quality: scl
      quality_table: scl
      pattern: '(?P<time>\\d{8})_(?P<band>\\w+)\\.tif$'
    mask: {hide: [cloud, void]}
    time: {series: true}
"""


def _write(folder: Path, day: dt.date, infrared: str, step: int, pixels: npt.NDArray[Any], scl: int) -> None:
    rng = np.random.default_rng(day.toordinal() + step)
    bands = {
        "red": (pixels[0] + rng.normal(0, 10, pixels[0].shape)).round().clip(1, 10_000).astype("uint16"),
        infrared: (pixels[1] + rng.normal(0, 10, pixels[1].shape)).round().clip(1, 10_000).astype("uint16"),
        "scl": np.full(pixels[0].shape, scl, "uint8"),
    }
    folder.mkdir(exist_ok=True)
    for name, values in bands.items():
        side = values.shape[0]
        with rasterio.open(
            folder / f"{day:%Y%m%d}_{name}.tif", "w", driver="GTiff", width=side, height=side, count=1,
            dtype=values.dtype, crs="EPSG:32633", nodata=0, transform=rasterio.Affine(step, 0, LEFT, 0, -step, TOP),
        ) as file:  # fmt: skip
            file.write(values, 1)


@pytest.fixture(scope="module")
def sensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sensor a of 10 m, sensor b of 20 m, both off by known amounts; and truth, which is b where it should be."""
    folder = tmp_path_factory.mktemp("sensors")
    for name, infrared, step, known in (
        ("a", "nir", 10, KNOWN_A),
        ("b", "nir08", 20, KNOWN_B),
        ("truth", "nir08", 20, ((0.0, 0.0),) * 4),
    ):
        raster = Raster(32633, LEFT, TOP, step, step, (SIDE_M // step,) * 2)
        for day, season, off in zip(DAYS, SEASONS, known, strict=True):
            pixels, _ = view(WORLD, season, raster, moved_m=off, fine=FINE[step])
            _write(folder / name, day, infrared, step, pixels, scl=4)
    blank = np.full((2, SIDE_M // 20, SIDE_M // 20), 3000.0)
    with_texture, _ = view(WORLD, 0, Raster(32633, LEFT, TOP, 20, 20, (SIDE_M // 20,) * 2))
    _write(folder / "b", CLOUDED, "nir08", 20, with_texture, scl=9)
    _write(folder / "b", FLAT, "nir08", 20, blank, scl=4)
    # Fog is flat to the last digit: noise would be texture to whoever looks closely enough.
    for band in ("red", "nir08"):
        with rasterio.open(folder / "b" / f"{FLAT:%Y%m%d}_{band}.tif", "r+") as file:
            file.write(np.full((SIDE_M // 20,) * 2, 3000, "uint16"), 1)
    return folder


def _request(folder: Path, *, apply: bool = True) -> steps.Request:
    def sensor(name: str, infrared: str, gsd: int, more: str = "") -> str:
        return SENSOR.replace("NAME", name).replace("INFRARED", infrared).replace("GSD", str(gsd)) + more

    options = f"min_places: 1, apply: {str(apply).lower()}"
    # b comes first, so that the order of the recipe is not the order of the measurement.
    text = (
        PAIR
        + sensor("b", "nir08", 20, f"    coregister: {{reference: a, {options}}}\n")
        + sensor("a", "nir", 10, f"    coregister: {{reference: clearest, {options}}}\n")
        + sensor("truth", "nir08", 20)
    )
    recipe = folder / f"recipe-{apply}.yaml"
    recipe.write_text(text)
    inner = (LEFT + 100, TOP - SIDE_M + 100, LEFT + SIDE_M - 100, TOP - 100)
    box = Transformer.from_crs(32633, 4326, always_xy=True).transform_bounds(*inner)
    aoi = ",".join(f"{value:.6f}" for value in box)
    return steps.make_request(aoi=aoi, recipe=str(recipe), out=str(folder / f"built-{apply}"))


@pytest.fixture(scope="module")
def pair(sensors: Path) -> Path:
    request = _request(sensors)
    steps.build(request, PlainConsole())
    return Path(request.out)


def _scenes(dataset: Path, source: str) -> Any:
    table = pd.read_parquet(dataset / "scenes.parquet")
    table = table[table["curate:source"] == source]
    return table.set_index(table["datetime"].dt.date).rename(columns=lambda name: name.removeprefix("curate:shift_"))


def test_known_shifts_between_dates_and_between_sensors_are_told_within_a_tenth_of_a_pixel(pair: Path) -> None:
    for source, known in (("a", KNOWN_A), ("b", KNOWN_B)):
        told = _scenes(pair, source)
        for day, off in zip(DAYS, known, strict=True):
            found = told.loc[day]
            assert math.dist((found.east_m, found.north_m), off) < 1.0, (source, day)
            assert found.places >= 1
            assert 0 <= found.error_m < 1
            assert found.left_m < 1.0
            assert found.undone == (off != (0.0, 0.0))
            assert bool(found.reason) != found.undone
    reference = _scenes(pair, "a").loc[DAYS[0]]
    assert (reference.reason, reference.left_m) == ("the reference", 0)
    assert _scenes(pair, "truth").east_m.isna().all(), "nobody asked for these"


def test_what_cannot_be_measured_says_why_and_is_never_zero(pair: Path) -> None:
    told = _scenes(pair, "b")
    for day, why in ((FLAT, "no texture"), (CLOUDED, "clear on none of the places")):
        assert why in told.loc[day].reason
        assert not told.loc[day].undone
        assert told.loc[day].places == 0
        for number in ("east_m", "north_m", "error_m", "left_m"):
            assert math.isnan(told.loc[day][number])


def _reflectance(dataset: Path, group: str, day: dt.date) -> npt.NDArray[np.float64]:
    """Pixels of one day on every chip."""
    ds = xr.open_zarr(dataset / "chips.zarr", group=group, chunks=None, mask_and_scale=False)
    seen = ds.acquired.values.astype("datetime64[s]").astype("datetime64[D]")
    chip, time = np.nonzero(seen == np.datetime64(day))
    assert len(chip) == ds.sizes["chip"]
    pixels: npt.NDArray[np.float64] = ds.reflectance.values[chip, time].astype(float)
    return pixels


def test_the_build_undoes_them_and_measuring_only_leaves_the_pixels_as_they_are(sensors: Path, pair: Path) -> None:
    """The oracle is the same sensor where it should be, interpolated elsewhere between its pixels."""
    request = _request(sensors, apply=False)
    steps.build(request, PlainConsole())
    as_it_was = Path(request.out)
    for day, off in zip(DAYS, KNOWN_B, strict=True):
        truth = _reflectance(pair, "truth", day)
        wrong = {
            folder.name: float(np.sqrt(np.mean((_reflectance(folder, "b", day) - truth) ** 2)))
            for folder in (pair, as_it_was)
        }
        if off == (0.0, 0.0):
            assert wrong[pair.name] == wrong[as_it_was.name]
        else:
            assert wrong[pair.name] < wrong[as_it_was.name] * 0.8, day
    told, undone = _scenes(as_it_was, "b"), _scenes(pair, "b")
    assert (told.loc[list(DAYS[1:])].reason == "only measured, as asked").all()
    assert not told.undone.any()
    assert moved((as_it_was / "alignment.json").read_bytes(), "b") == ()
    # Sensor a lies where it did, and so does what is held against it: by what a was moved.
    april = DAYS[0]
    assert told.loc[april].east_m == pytest.approx(undone.loc[april].east_m, abs=3)


def test_chips_tell_what_was_and_what_is_left_and_others_why_not(pair: Path) -> None:
    table = geopandas.read_parquet(pair / "chips.parquet")
    within = table[table.b_shift_dates > 2]
    assert len(within) >= 4
    assert (within.b_shift_m > 2).all()
    assert float(within.b_shift_left_m.median()) < 1.0
    assert (within.b_shift_reason == "").all()
    others = table[table.b_shift_dates == 0]
    assert len(others)
    assert (others.b_shift_reason != "").all()
    assert others.b_shift_m.isna().all()
    assert not any(name.startswith("truth_shift") for name in table)


def test_the_published_scenes_are_still_the_lock_and_the_dataset_is_as_it_promises(sensors: Path, pair: Path) -> None:
    request = _request(sensors)
    again = Path(f"{request.out}-again")
    begun = steps.prepare(steps.make_request(aoi=request.aoi, recipe=request.recipe, out=str(again)), PlainConsole())
    assert begun is not None
    lock = read_document(open_storage(str(again)), "scenes.parquet")
    assert lock == begun.plan.lock, "the lock itself knows nothing of shifts"
    assert read_lock((pair / "scenes.parquet").read_bytes()) == read_lock(lock)
    assert begun.plan.alignment == (pair / "alignment.json").read_bytes(), "measured twice, told the same"
    document = json.loads(begun.plan.alignment)
    assert document["b"]["bands"] == [["red", "red"], ["nir08", "nir"]]
    assert steps.check(str(pair), PlainConsole()).problems == ()


def test_an_orthophoto_without_time_or_mask_is_a_reference_for_pixels_of_another_size(sensors: Path) -> None:
    folder = sensors / "ortho"
    folder.mkdir()
    for band in ("red", "nir"):
        (folder / f"{band}.tif").write_bytes((sensors / "a" / f"{DAYS[0]:%Y%m%d}_{band}.tif").read_bytes())
    photo = """\
  ortho:
    collection: ortho
    catalog: ortho/
    describe: {bands: {red: red, nir: nir}, dtype: uint16, static: true, pattern: '(?P<band>\\w+)\\.tif$'}
"""
    text = SENSOR.replace("NAME", "b").replace("INFRARED", "nir08").replace("GSD", "20")
    recipe = sensors / "ortho.yaml"
    recipe.write_text(PAIR + text + "    resolution_m: 20\n    coregister: {reference: ortho, min_places: 1}\n" + photo)
    request = steps.make_request(aoi=_request(sensors).aoi, recipe=str(recipe), out=str(sensors / "built-ortho"))
    steps.build(request, PlainConsole())
    told = _scenes(sensors / "built-ortho", "b")
    for day, off in zip(DAYS, KNOWN_B, strict=True):
        assert math.dist((told.loc[day].east_m, told.loc[day].north_m), off) < 2.0, "a tenth of a pixel of 20 m"
    assert _scenes(sensors / "built-ortho", "ortho").reason.isna().all()


# Real dates, and real sensors


@pytest.fixture(scope="module")
def request_(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> steps.Request:
    folder = tmp_path_factory.mktemp("aligned")
    text = (ROOT / "examples" / "austria-series.yaml").read_text().replace("../../shared/data", str(shared_data))
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        text.replace("    keep:", "    coregister: {reference: composite, places: 2, min_places: 1}\n    keep:")
    )
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
    told = json.loads(plan.alignment)["s2"]["acquisitions"]
    before = [math.hypot(one["east_m"], one["north_m"]) for one in told.values() if one["undone"]]
    assert len(before) > 15
    assert 3 < float(np.median(before)) < 8, "Sentinel-2A and -2B lie about 7 m apart in 2018"
    (request,) = plan.requests
    assert dict(request.moved) == dict(moved(plan.alignment, "s2"))
    left = [one["left_m"] for one in told.values() if one["undone"]]
    assert float(np.median(left)) < 1.0, "a tenth of a pixel"
    chips = json.loads(plan.alignment)["s2"]["chips"].values()
    apart = [(chip["before_m"], chip["after_m"]) for chip in chips if chip["dates"] > 5]
    assert len(apart) > 10
    assert np.median([after for _, after in apart]) < np.median([before for before, _ in apart]) / 2


def test_a_build_that_continues_uses_the_frozen_shifts(
    request_: steps.Request, prepared: steps.Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    again = steps.prepare(request_, PlainConsole())
    assert again is not None
    assert again.plan.alignment == prepared.plan.alignment
    assert again.plan.fingerprint == prepared.plan.fingerprint
    assert "measuring" not in capsys.readouterr().err
    steps.build(request_, PlainConsole())
    assert (Path(request_.out) / "alignment.json").read_bytes() == prepared.plan.alignment
    assert steps.check(request_.out, PlainConsole()).problems == ()


def test_real_landsat_is_metres_off_sentinel_2_and_is_like_it_once_moved(shared_data: Path, tmp_path: Path) -> None:
    text = (ROOT / "examples" / "flanders.yaml").read_text().replace("../../shared/data", str(shared_data))
    text = text[: text.index("  s1:")].replace("time: 2018-03-01/2018-11-01", "time: 2017-08-01/2018-12-01")
    text = (
        text.replace("{composite: monthly, how: median}", "{series: true}") + "split: {block_km: 2, buffer_km: 0.1}\n"
    )
    datasets = {}
    for apply in ("true", "false"):
        recipe = tmp_path / f"{apply}.yaml"
        recipe.write_text(
            text.replace(
                "  landsat:\n", f"  landsat:\n    coregister: {{reference: s2, min_places: 1, apply: {apply}}}\n"
            )
        )
        datasets[apply] = tmp_path / apply
        request = steps.make_request(aoi="3.0193,50.8131,3.0284,50.8188", recipe=str(recipe), out=str(datasets[apply]))
        steps.build(request, PlainConsole())
    told = _scenes(datasets["true"], "landsat")
    measured = told[told.places > 0]
    assert len(measured) >= 10, "of 14 that are clear"
    middle = measured[["east_m", "north_m"]].median()
    assert middle.abs().max() < 5
    lengths = np.hypot(measured.east_m, measured.north_m)
    assert lengths.max() < 12, "Collection 1 promises 12 m for nine scenes of ten"
    off = told[told.undone.astype(bool)]
    assert len(off) >= 5
    assert off.left_m.median() < 1
    assert np.hypot(off.east_m, off.north_m).median() > 3
    assert (told[told.places == 0].reason.str.startswith("not measured: ")).all()

    # What measured the shifts looks at edges; brightness is another witness. The farthest date against the median of
    # the Sentinel-2 dates of a month before and after it:
    day = np.hypot(off.east_m, off.north_m).idxmax()
    assert _alike(datasets["true"], day) > _alike(datasets["false"], day)


def _alike(dataset: Path, day: dt.date) -> float:
    """Correlation of near infrared, Landsat of a day against the median of Sentinel-2 about it, over all chips."""
    s2, landsat = (
        xr.open_zarr(dataset / "chips.zarr", group=group, chunks=None) for group in ("s2", "landsat")
    )  # fmt: skip
    at = np.datetime64(day)
    first, second = [], []
    for chip in range(s2.sizes["chip"]):
        near = np.abs(s2.acquired.values[chip] - at) < np.timedelta64(31, "D")
        mean = s2.reflectance[chip].where(s2.clear_mask[chip] == 1).values[near][:, 1]
        here = np.flatnonzero(landsat.acquired.values[chip].astype("datetime64[D]") == at)
        image = landsat.reflectance[chip].where(landsat.clear_mask[chip] == 1).values[here[0], 1]
        count = np.isfinite(mean).sum(axis=0)
        both = np.isfinite(image) & (count > 0)
        first.append(np.nanmedian(mean[:, both], axis=0))
        second.append(image[both])
    return float(np.corrcoef(np.concatenate(first), np.concatenate(second))[0, 1])


# What is refused

A = "{collection: sentinel-2-l2a, bands: [red, nir], coregister: {reference: b}}"


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        ("{a: {collection: sentinel-1-rtc, coregister: {}}}", "no quality layer"),
        (
            "{a: {collection: sentinel-2-l2a, coregister: {reference: s1}}}",
            "no source of the recipe; wanted 'composite'",
        ),
        ("{a: {collection: sentinel-2-l2a, coregister: {min_shift_px: 3}}}", "smaller number first"),
        ("{a: {collection: sentinel-2-l2a, coregister: {reference: a}}}", "the source itself"),
        (f"{{a: {A}, b: {{collection: sentinel-1-rtc}}}}", "b is sar"),
        (f"{{a: {A}, b: {{collection: cop-dem-glo-30}}}}", "b is elevation"),
        (f"{{a: {A}, b: {{collection: landsat-c2-l2, bands: [blue]}}}}", "the same light"),
        (f"{{a: {A}, b: {A.replace('reference: b', 'reference: a')}}}", "a -> b -> a"),
    ],
)
def test_what_cannot_be_aligned_is_refused(sources: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        parse_recipe(f"time: 2018-04-01/2018-10-01\nsources: {sources}\n")


def test_near_infrared_of_one_sensor_is_held_against_that_of_another() -> None:
    recipe = parse_recipe(
        f"time: 2018-04-01/2018-10-01\nsources: {{a: {A}, b: {{collection: landsat-c2-l2, bands: [nir08]}}}}\n"
    )
    assert recipe.sources["a"].reference == "b"
