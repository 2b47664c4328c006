"""A dataset whose dates were moved onto each other is updated: old shifts stay, new dates are held against the old.

The sensors are drawn at moved places and not resampled, so their shifts are exact.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from pyproj import Transformer

from chips.index import read_index
from chips.storage import open_storage
from chips.versions import LATEST
from cube.align import by_acquisition
from curate.errors import ReadError, StoreError
from flows import alignment
from flows import shard as shards
from flows.alignment import moved
from flows.console import PlainConsole
from flows.steps import build, check, make_request, plan_from_lock, wish
from flows.update import make_update, prepare_update, update
from simulate.view import view
from simulate.world import Raster, WorldSpec

WORLD = WorldSpec(seed=7, size_px=704, dates=8)
LEFT, TOP, SIDE_M = 649_000, 5_353_000, 2_800
TILES = {"w": LEFT, "e": LEFT + SIDE_M - 200}
"""Left edges; they overlap a little."""
SHORT, LONG = "2021-04-01/2021-06-15", "2021-04-01/2021-10-01"

Metres = tuple[float, float]
DATES: dict[str, dict[dt.date, tuple[int, str, Metres]]] = {
    "a": {
        dt.date(2021, 4, 3): (0, "we", (0.0, 0.0)),
        dt.date(2021, 4, 20): (1, "we", (0.0, 0.0)),
        dt.date(2021, 5, 16): (2, "we", (5.5, -3.0)),
        dt.date(2021, 5, 30): (3, "e", (-6.0, 4.0)),
        dt.date(2021, 6, 9): (3, "we", (0.0, 0.0)),
        dt.date(2021, 7, 22): (5, "we", (3.0, 6.4)),
        dt.date(2021, 8, 24): (7, "we", (-4.2, 6.3)),
    },
    "b": {
        dt.date(2021, 4, 5): (0, "we", (6.3, -3.7)),
        dt.date(2021, 5, 14): (2, "we", (-4.1, 7.7)),
        dt.date(2021, 7, 20): (5, "we", (0.0, 0.0)),
        dt.date(2021, 8, 22): (7, "we", (-7.0, -6.2)),
    },
}
"""Day -> (acquisition of the world whose season it has, its tiles, (east, north) by which it lies off)."""
FINE = {"a": 1, "b": 2}
"""Places a pixel at which the ground is looked at."""
CLOUDED = dt.date(2021, 9, 3)
"""One more of b, on which nothing is clear."""

RECIPE = """\
name: growing
time: {time}
grid: {{resolution_m: 10, size_px: 64, min_cover: 0.9}}
split: {{block_km: 2, buffer_km: 0.1}}
store: {{shard_chips: 8}}
report: false
sources:
"""
SOURCE = """\
  NAME:
    collection: SENSOR
    catalog: SENSOR/
    describe:
      bands: {red: red, nir: nir, scl: {asset: scl, dtype: uint8}}
      dtype: uint16
      nodata: 0
      scale: 0.0001
      gsd_m: GSD
      quality: scl
      quality_table: scl
      pattern: '(?P<time>\\d{8})_(?P<tile>\\w)_(?P<band>\\w+)\\.tif$'
    mask: {hide: [cloud, void]}
    time: TIME
    coregister: {reference: REFERENCE, min_places: 1}
"""
SOURCES = (
    ("b", "b", "20", "{series: true}", "a"),
    ("a", "a", "10", "{series: true}", "composite"),
    ("m", "a", "10", "{composite: monthly}", "clearest"),
)


def _write(folder: Path, day: dt.date, tile: str, step: int, pixels: Any, scl: int) -> None:
    rng = np.random.default_rng(day.toordinal() + step)
    values = [np.clip(np.round(band + rng.normal(0, 10, band.shape)), 1, 10_000).astype("uint16") for band in pixels]
    for name, array in (("red", values[0]), ("nir", values[1]), ("scl", np.full(values[0].shape, scl, "uint8"))):
        side = array.shape[0]
        with rasterio.open(
            folder / f"{day:%Y%m%d}_{tile}_{name}.tif", "w", driver="GTiff", width=side, height=side, count=1,
            dtype=array.dtype, crs="EPSG:32633", nodata=0,
            transform=rasterio.Affine(step, 0, TILES[tile], 0, -step, TOP),
        ) as file:  # fmt: skip
            file.write(array, 1)


@pytest.fixture(scope="module")
def sensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sensor a of 10 m and sensor b of 20 m, in tiles, both off by known amounts."""
    folder = tmp_path_factory.mktemp("sensors")
    for name, step in (("a", 10), ("b", 20)):
        (folder / name).mkdir()
        for day, (season, tiles, off) in DATES[name].items():
            for tile in tiles:
                raster = Raster(32633, TILES[tile], TOP, step, step, (SIDE_M // step,) * 2)
                pixels, _ = view(WORLD, season, raster, moved_m=off, fine=FINE[name])
                _write(folder / name, day, tile, step, pixels, scl=4)
    blank = np.full((2, SIDE_M // 20, SIDE_M // 20), 3000.0)
    _write(folder / "b", CLOUDED, "w", 20, blank, scl=9)
    return folder


def _recipe(folder: Path, time: str) -> str:
    text = RECIPE.format(time=time)
    for values in SOURCES:
        text += SOURCE
        for key, value in zip(("NAME", "SENSOR", "GSD", "TIME", "REFERENCE"), values, strict=True):
            text = text.replace(key, value)
    path = folder / f"{time.replace('/', '-')}.yaml"
    path.write_text(text)
    return str(path)


def _box(width_m: float) -> str:
    inner = (LEFT + 100, TOP - 2_100, LEFT + width_m, TOP - 700)
    box = Transformer.from_crs(32633, 4326, always_xy=True).transform_bounds(*inner)
    return ",".join(f"{value:.6f}" for value in box)


SMALL, LARGE = _box(1_200), _box(2 * SIDE_M - 400)
"""The eastern tiles are found by the larger one alone."""


@pytest.fixture(scope="module")
def built(sensors: Path) -> Path:
    request = make_request(aoi=SMALL, recipe=_recipe(sensors, SHORT), out=str(sensors / "small"))
    build(request, PlainConsole())
    return Path(request.out)


@pytest.fixture
def small(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "growing"))


@dataclass
class Seen:
    """What was read to measure, (source, acquisitions, those that were moved), and the files read to build."""

    places: list[tuple[str, set[str], set[str]]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    cubes: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    read, opened, cube = alignment._read, rasterio.open, shards._cube

    def looked(request: Any, scenes: Any, window: Any, **options: Any) -> Any:
        there = {scene.acquisition for scene in scenes}
        found.places.append((request.name, there, there & dict(request.moved).keys()))
        with monkeypatch.context() as patch:
            patch.setattr(rasterio, "open", opened)
            return read(request, scenes, window, **options)

    def noted(path: Any, *arguments: Any, **more: Any) -> Any:
        found.files.append(Path(path).name)
        return opened(path, *arguments, **more)

    def built(request: Any, scenes: Any, shard: Any, *rest: Any, **more: Any) -> Any:
        found.cubes.append((request.name, tuple(chip.id for chip in shard.chips)))
        return cube(request, scenes, shard, *rest, **more)

    monkeypatch.setattr(alignment, "_read", looked)
    monkeypatch.setattr(rasterio, "open", noted)
    monkeypatch.setattr(shards, "_cube", built)
    return found


def _told(dataset: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((dataset / "alignment.json").read_bytes())
    return told


def _key(sensor: str, day: dt.date) -> str:
    return f"{sensor}_{day:%Y%m%d}T000000"


def _content(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but the versions below it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in ("versions", LATEST)
    }


def _same_as_built_anew(
    made: Path, sensors: Path, time: str, aoi: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build from nothing is given the larger recipe, and the shifts that the update has frozen."""
    with monkeypatch.context() as patch:
        patch.setattr(alignment, "measure", lambda *_: (made / "alignment.json").read_bytes())
        build(make_request(aoi=aoi, recipe=_recipe(sensors, time), out=str(out)), PlainConsole())
    got, wanted = _content(made), _content(out)
    assert sorted(got) == sorted(wanted)
    assert [name for name in wanted if got[name] != wanted[name]] == []


def _kept(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """What was measured stays as it was."""
    for source, told in old.items():
        assert told["acquisitions"].items() <= new[source]["acquisitions"].items()
        measured = {chip: one for chip, one in told["chips"].items() if one["dates"]}
        assert measured
        assert measured.items() <= new[source]["chips"].items()


def _recovered(told: Mapping[str, Any], sensor: str, day: dt.date) -> None:
    """Within a tenth of a pixel of 10 m, and gone once undone."""
    one, off = told["acquisitions"][_key(sensor, day)], DATES[sensor][day][2]
    assert math.dist((one["east_m"], one["north_m"]), off) < 1.0, (sensor, day)
    assert one["places"] >= 1
    assert one["left_m"] < 1.0
    assert one["undone"] == (off != (0.0, 0.0))
    assert bool(one["reason"]) != one["undone"]


def test_new_dates_are_held_against_old_ones_as_they_lie_in_the_dataset_and_these_stay(
    sensors: Path, built: Path, small: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = make_update(str(small), time=LONG, recipe=_recipe(sensors, SHORT))
    begun = prepare_update(request, PlainConsole())
    assert begun is not None
    assert begun.plan.alignment is not None
    old, new = _told(built), json.loads(begun.plan.alignment)
    _kept(old, new)
    for source, sensor in (("a", "a"), ("m", "a"), ("b", "b")):
        for day in (day for day in DATES[sensor] if day > dt.date(2021, 6, 15)):
            _recovered(new[source], sensor, day)
    clouded = new["b"]["acquisitions"][_key("b", CLOUDED)]
    assert (clouded["east_m"], clouded["undone"], clouded["places"]) == (None, False, 0)
    assert "clear on none of the places" in clouded["reason"]
    assert new["a"]["places"] == old["a"]["places"], "the same ones"

    # The reference of a are its old dates, moved as they were then; of m the one date; of b all of a, moved.
    off = {source: {key for key, _ in moved(begun.plan.alignment, source)} for source in new}
    before = {source: told["acquisitions"].keys() for source, told in old.items()}
    added = {source: told["acquisitions"].keys() - before[source] for source, told in new.items()}
    (clearest,) = (key for key, told in old["m"]["acquisitions"].items() if told["reason"] == "the reference")
    wanted = {"a": (before["a"], before["a"] & off["a"]), "m": ({clearest}, set())}
    for source, there, undone in seen.places:
        both = source == "a" and there == before["a"] | added["a"]
        assert both or there == added[source] or (there, undone) == wanted[source]
        assert not both or undone == off["a"], "b is held against it"

    # A build that continues measures nothing, and reads no old date but of the month that was cut.
    seen.places.clear()
    seen.files.clear()
    assert update(request, PlainConsole()) == str(small / "versions" / "0002")
    assert seen.places == []
    dates = {dt.datetime.strptime(name[:8], "%Y%m%d").date() for name in seen.files if name.endswith(".tif")}
    assert dates
    assert min(dates) >= dt.date(2021, 6, 1)
    _same_as_built_anew(small / "versions" / "0002", sensors, LONG, SMALL, tmp_path / "anew", monkeypatch)
    assert _content(small) == _content(built)
    assert check(str(small), PlainConsole()).problems == ()


def test_more_area_measures_the_acquisitions_that_came_with_it_over_all_of_it(
    sensors: Path, built: Path, small: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = update(make_update(str(small), aoi=LARGE, recipe=_recipe(sensors, SHORT)), PlainConsole())
    old, new = _told(built), _told(Path(str(made)))
    _kept(old, new)
    came = dt.date(2021, 5, 30)
    assert new["a"]["acquisitions"].keys() - old["a"]["acquisitions"].keys() == {_key("a", came)}
    _recovered(new["a"], "a", came)
    _recovered(new["m"], "a", came)
    assert new["a"]["places"] > old["a"]["places"]
    assert new["b"] == old["b"], "all its acquisitions are known"
    assert "b" not in {source for source, _, _ in seen.places}
    assert new["a"]["chips"].keys() > old["a"]["chips"].keys()
    chips = set(read_index((built / "chips.parquet").read_bytes())["chip"])
    assert not [name for name, read in seen.cubes if chips & set(read)], "old chips are not read"
    _same_as_built_anew(Path(str(made)), sensors, SHORT, LARGE, tmp_path / "anew", monkeypatch)


def test_on_ground_that_no_old_date_saw_new_dates_are_held_against_each_other(sensors: Path, built: Path) -> None:
    storage = open_storage(str(built))
    recipe, aoi, _ = wish(storage)
    plan = plan_from_lock(storage, recipe, aoi, PlainConsole())
    requests = {request.name: request for request in plan.requests}
    task = alignment._task(plan, requests, "a", {}, None)
    assert task.other is None, "a first build"
    anew, beyond = (alignment._measured(replace(task, other=other), {}, None) for other in (None, (task.request, ())))
    assert anew == beyond
    elsewhere = replace(task, other=(task.request, ()), spec=replace(task.spec, reference="clearest"))
    told = by_acquisition(alignment._measured(elsewhere, {}, None).voted, 10)
    assert {one.reason for one in told.values()} == {"there is nothing to hold it against where it is clear"}


def test_a_file_that_cannot_be_read_stops_the_measurement_or_is_left_out_and_told(sensors: Path, built: Path) -> None:
    plan = plan_from_lock(open_storage(str(built)), *wish(open_storage(str(built)))[:2], PlainConsole())
    task = alignment._task(plan, {request.name: request for request in plan.requests}, "b", {}, None)
    broken = [
        replace(scene, assets=tuple(replace(asset, href=f"{sensors}/gone.tif") for asset in scene.assets))
        if scene.acquisition == _key("b", dt.date(2021, 5, 14))
        else scene
        for scene in task.scenes
    ]
    with pytest.raises(ReadError, match=r"gone.tif"):
        alignment._measured(replace(task, scenes=broken), {}, None)
    told = alignment._measured(replace(task, scenes=broken, skip_unreadable=True), {}, None).voted
    others = [scene for scene in task.scenes if scene in broken]
    assert len(others) < len(task.scenes)
    wanted = alignment._measured(replace(task, scenes=others), {}, None).voted
    assert {shift.reason for shift in told.pop(_key("b", dt.date(2021, 5, 14)))} == {"a file of it cannot be read"}
    assert told.items() <= wanted.items()


def test_a_dataset_that_has_lost_its_shifts_is_not_updated(sensors: Path, small: Path) -> None:
    (small / "alignment.json").unlink()
    with pytest.raises(StoreError, match=r"alignment.json is missing; the dataset is damaged"):
        update(make_update(str(small), time=LONG, recipe=_recipe(sensors, SHORT)), PlainConsole())
    assert not (small / "versions").exists()
