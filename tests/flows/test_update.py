"""A dataset that is updated is the one that would be built anew, byte for byte, and nothing old is read for it."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import rasterio
import shapely

from catalog import search as catalog_search
from catalog.lock import read_lock
from chips.index import read_index
from chips.storage import open_storage
from chips.versions import LATEST
from chips.write import write_shard
from curate.errors import CurateError, IncompleteError, InputError, OutputError, StoreError
from flows import shard as shards
from flows.console import PlainConsole
from flows.steps import build, check, info, make_request, status
from flows.update import can_grow, make_update, reopen_update, update
from recipes.read import parse_recipe
from simulate.world import WorldSpec
from simulate.write import World, write_world

RECIPE = """\
name: growing
time: {time}
catalog: catalog.json
grid: {{resolution_m: 10, size_px: 32, min_cover: 0.5}}
sources:
  s2:
    collection: sentinel-2-l2a
    bands: [red]
    mask: {{hide: [void, saturated, shadow, cloud, cirrus], dilate_m: 20}}
    coverage: {{}}
    keep: {{min_clear: 0.2}}
    time: {{composite: monthly}}
  dates: {{collection: sentinel-2-l2a, bands: [red], time: {{series: true}}, keep: {{min_clear: 0.5}}}}
  s1: {{collection: sentinel-1-rtc, bands: [vv], time: {{composite: monthly}}}}
  c: {{collection: sentinel-1-rtc, bands: [vv], time: {{series: true}}}}
  dem: {{collection: cop-dem-glo-30, terrain: {{derive: [slope]}}}}
labels:
  worldcover: {{product: esa-worldcover, year: 2021}}
  fields: {{vector: fields.geojson, attribute: label, background: 0}}
  scene: {{of: worldcover, scene: multilabel}}
split: {{block_km: 1, buffer_km: 0.1, shares: {{train: 0.6, val: 0.2, test: 0.2}}, seed: 1}}
store: {{shard_chips: 8}}
report: false
"""
Curate = Callable[..., "subprocess.CompletedProcess[str]"]
SHORT, LONG = "2021-04-01/2021-05-20", "2021-03-01/2021-07-01"
SMALL, LARGE = (0.2, 0.3), (0.65, 0.4)
"""Shares of the world's width and height. The eastern tile of Sentinel-2 is found by the larger one alone."""


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two zones, four dates over two months, radar of both directions."""
    spec = WorldSpec(size_px=320, dates=4, every_days=20, bands=("B04",), radar_dates=4, cloudiness=0.3)
    return write_world(tmp_path_factory.mktemp("land"), spec)


def _recipe(land: World, time: str) -> str:
    path = land.folder / f"recipe-{time.replace('/', '-')}.yaml"
    path.write_text(RECIPE.format(time=time))
    return str(path)


def _box(land: World, shares: tuple[float, float]) -> str:
    """The south-western part of the world."""
    west, south, east, north = land.spec.lonlat_bounds
    return f"{west},{south},{west + shares[0] * (east - west)},{south + shares[1] * (north - south)}"


def _build(land: World, out: Path, time: str, shares: tuple[float, float]) -> Path:
    build(make_request(aoi=_box(land, shares), recipe=_recipe(land, time), out=str(out)), PlainConsole())
    return out


@pytest.fixture(scope="module")
def built(land: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small dataset, and those with more of everything built from nothing."""
    folder = tmp_path_factory.mktemp("built")
    return {
        "small": _build(land, folder / "small", SHORT, SMALL),
        "time": _build(land, folder / "time", LONG, SMALL),
        "area": _build(land, folder / "area", SHORT, LARGE),
        "both": _build(land, folder / "both", LONG, LARGE),
    }


@pytest.fixture
def small(built: Mapping[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(built["small"], tmp_path / "growing"))


def _update(land: World, dataset: Path, what: str = "both") -> str | None:
    """More time, more area, or both."""
    time = None if what == "area" else LONG
    aoi = None if what == "time" else _box(land, LARGE)
    return update(make_update(str(dataset), aoi=aoi, time=time, recipe=_recipe(land, SHORT)), PlainConsole())


@dataclass
class Seen:
    """What catalogs were asked, which files were opened, and which chips were read from scenes."""

    searches: list[tuple[Any, Any, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    cubes: list[tuple[Any, tuple[str, ...]]] = field(default_factory=list)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    search, opened, cube = catalog_search.StaticCatalog.search, rasterio.open, shards._cube

    def searched(self: Any, collections: Any, geometry: Any, start: Any, end: Any, **more: Any) -> Any:
        found.searches.append((geometry, start, end))
        return search(self, collections, geometry, start, end, **more)

    def read(path: Any, *arguments: Any, **more: Any) -> Any:
        found.files.append(str(path))
        return opened(path, *arguments, **more)

    def built(request: Any, scenes: Any, shard: Any, *rest: Any, **more: Any) -> Any:
        found.cubes.append((request, tuple(chip.id for chip in shard.chips)))
        return cube(request, scenes, shard, *rest, **more)

    monkeypatch.setattr(catalog_search.StaticCatalog, "search", searched)
    monkeypatch.setattr(rasterio, "open", read)
    monkeypatch.setattr(shards, "_cube", built)
    return found


def _content(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but the versions below it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in ("versions", LATEST)
    }


def _same(new: Path, fresh: Path) -> None:
    got, wanted = _content(new), _content(fresh)
    assert sorted(got) == sorted(wanted)
    assert [name for name in wanted if got[name] != wanted[name]] == []


def _lock(dataset: Path) -> dict[tuple[str, str], Any]:
    return {(row.source, row.item["id"]): row for row in read_lock((dataset / "scenes.parquet").read_bytes())}


def _chips(dataset: Path) -> dict[str, Any]:
    table = read_index((dataset / "chips.parquet").read_bytes())
    return dict(zip(table["chip"], table.geometry, strict=True))


def test_more_time_is_the_dataset_that_would_be_built_anew_and_reads_no_old_date(
    land: World, built: Mapping[str, Path], small: Path, seen: Seen
) -> None:
    made = _update(land, small, "time")
    assert made == str(small / "versions" / "0002")
    _same(Path(made), built["time"])
    _same(small, built["small"])
    old, new = _lock(small), _lock(Path(made))
    assert old.items() < new.items(), "old rows stay as they are, and there are more"

    start, end = dt.datetime(2021, 4, 1, tzinfo=dt.UTC), dt.datetime(2021, 5, 20, tzinfo=dt.UTC)
    assert seen.searches
    assert all(last is not None and (last <= start or first >= end) for _, first, last in seen.searches), (
        "only the time that was added is searched, and nothing that has no time"
    )
    cut = dt.datetime(2021, 5, 1, tzinfo=dt.UTC)
    for request, _ in seen.cubes:
        assert request.time is not None, "elevation is taken over"
        since = cut if request.time.composite else end
        assert all(period.end <= start or period.start >= since for period in request.periods)
    early = {
        row.item["id"] for row in old.values() if row.source in ("s2", "s1") and row.scene and row.scene.acquired < cut
    }
    assert early
    assert not [path for path in seen.files if any(name in path for name in early)]

    said = json.loads((small / LATEST).read_text())
    assert (said["version"], said["path"]) == (2, "versions/0002")
    assert check(str(small), PlainConsole()).problems == ()
    assert info(str(small)).url == made
    assert info(str(small), 1).url == str(small)
    with pytest.raises(StoreError, match="has no version 3; it has versions 1 to 2"):
        info(str(small), 3)

    made = _update(land, small, "area")
    assert made == str(small / "versions" / "0003")
    _same(Path(made), built["both"])


def test_more_area_is_the_dataset_that_would_be_built_anew_and_reads_old_chips_only_where_scenes_came(
    land: World, built: Mapping[str, Path], small: Path, seen: Seen
) -> None:
    made = _update(land, small, "area")
    _same(Path(str(made)), built["area"])
    old, before, after = _chips(small), _lock(small), _lock(Path(str(made)))
    west, south, east, north = map(float, _box(land, SMALL).split(","))
    box = shapely.box(west, south, east, north)
    assert seen.searches
    assert not [geometry for geometry, _, _ in seen.searches if geometry.intersection(box).area]
    new = [row for key, row in after.items() if key not in before]
    assert {row.source for row in new} >= {"s2", "dates"}, "the eastern tile"
    again = {chip for _, chips in seen.cubes for chip in chips} & old.keys()
    assert again < old.keys(), "some old chips are not read at all"
    for request, chips in seen.cubes:
        came = [row.scene.footprint.buffer(0.01) for row in new if row.source == request.name]
        assert all(any(near.intersects(old[chip]) for near in came) for chip in set(chips) & old.keys())


def test_nothing_new_writes_nothing(land: World, small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = _content(small)
    recipe = _recipe(land, SHORT)
    for time in (None, SHORT, "2021-03-30/2021-05-20"):
        assert update(make_update(str(small), time=time, recipe=recipe), PlainConsole()) is None
        assert "nothing to do" in capfd.readouterr().err
    assert not (small / "versions").exists()
    assert not (small / LATEST).exists()
    assert _content(small) == before


class Killed(BaseException):
    """The end of a process, as a test can stage it."""


def test_a_killed_update_continues_with_the_same_command(
    land: World, built: Mapping[str, Path], small: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    write = write_shard

    def killed(build: Any, ordinal: int, *rest: Any) -> Any:
        if ordinal == 1:
            raise Killed
        return write(build, ordinal, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_shard", killed)
        with pytest.raises(Killed):
            _update(land, small)
    assert not (small / LATEST).exists()
    assert info(str(small)).url == str(small), "readers see the first version"
    assert (status(str(small)).state, status(str(small)).shards_done) == ("building", 1)
    request = make_update(str(small), recipe=_recipe(land, SHORT))
    again = reopen_update(request, PlainConsole())
    assert again.todo == tuple(range(1, len(again.plan.shards)))
    assert again.carried is not None
    assert again.carried.sources.keys() == {"s2", "dates", "s1", "c", "dem"}
    assert pickle.loads(pickle.dumps(again.carried)) == again.carried, "it is handed to workers"
    with pytest.raises(OutputError, match="unfinished update to another time or area"):
        _update(land, small, "time")

    seen.searches.clear()
    with monkeypatch.context() as patch:
        patch.setattr("chips.versions.make_latest", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            _update(land, small)
    assert seen.searches == [], "the lock is kept"
    assert info(str(small)).url == str(small)

    assert _update(land, small) is None
    assert info(str(small)).url == str(small / "versions" / "0002")
    _same(small / "versions" / "0002", built["both"])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"time": "2021-04-15/2021-07-01"}, "leaves out a part of 2021-04-01/2021-05-20"),
        ({"time": "2021-04-01"}, "two dates"),
        ({"aoi": (0.1, 0.4)}, "leaves out .*% of the area"),
        ({"recipe": "bands: [red, nir]"}, r"differs from the recipe of the dataset in sources.s2.bands"),
    ],
)
def test_what_would_change_the_dataset_is_refused(how: dict[str, Any], says: str, land: World, small: Path) -> None:
    recipe = _recipe(land, SHORT)
    if "recipe" in how:
        recipe = str(land.folder / "other.yaml")
        Path(recipe).write_text(RECIPE.format(time=SHORT).replace("bands: [red]", how["recipe"]))
    aoi = _box(land, how["aoi"]) if "aoi" in how else None
    with pytest.raises(CurateError, match=says):
        update(make_update(str(small), time=how.get("time"), aoi=aoi, recipe=recipe), PlainConsole())
    assert not (small / "versions").exists()


def test_what_another_release_built_is_read_again(
    land: World, built: Mapping[str, Path], small: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    monkeypatch.setattr("flows.carry.__version__", "another")
    _same(Path(str(_update(land, small, "time"))), built["time"])
    assert {request.name for request, _ in seen.cubes} == {"s2", "dates", "s1", "c", "dem"}


def test_a_damaged_old_version_stops_the_update_and_is_not_taken_for_void(land: World, small: Path) -> None:
    victim = next(path for path in sorted((small / "chips.zarr" / "dem" / "slope" / "c").rglob("*")) if path.is_file())
    victim.unlink()
    with pytest.raises(IncompleteError, match=r"chips.zarr/dem/slope/c/0/0/0 is missing; the dataset is damaged"):
        _update(land, small, "time")
    assert not (small / LATEST).exists()


def test_a_dataset_in_object_storage_is_updated_to_the_bytes_of_a_local_one(
    bucket: str, land: World, built: Mapping[str, Path]
) -> None:
    out = f"{bucket}/growing"
    storage = open_storage(out)
    for name, data in _content(built["small"]).items():
        storage.put(name, data)
    made = update(make_update(out, time=LONG, recipe=_recipe(land, SHORT)), PlainConsole())
    assert made == f"{out}/versions/0002"
    new = open_storage(made)
    assert {key: new.get(key) for key in new.sizes()} == _content(built["time"])
    assert info(out).url == made


def test_the_command_says_why_it_refuses(curate: Curate, land: World, small: Path) -> None:
    refused = curate("update", small, "--time", "2021-04-15/2021-07-01", "--recipe", _recipe(land, SHORT))
    assert refused.returncode == 2
    assert "leaves out a part of 2021-04-01/2021-05-20" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no published dataset"):
        update(make_update(str(tmp_path), time=LONG), PlainConsole())
    with pytest.raises(OutputError, match="no such folder"):
        update(make_update(str(tmp_path / "nothing"), time=LONG), PlainConsole())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("time: {single: clearest}", "'single: clearest' chooses among the dates of the whole time"),
        ("time: {series: true, max_dates: 3}", "'max_dates: 3' chooses"),
        ("time: {pair: clarity}", "'pair: clarity' chooses"),
    ],
)
def test_rules_that_look_at_all_dates_refuse_more_time(options: str, says: str) -> None:
    source = f"sources: {{s2: {{collection: sentinel-2-l2a, {options}}}}}\n"
    old, new = (parse_recipe(f"time: {time}\n{source}") for time in (SHORT, LONG))
    with pytest.raises(InputError, match=says):
        can_grow(old, new, more_area=False)
    can_grow(old, old, more_area=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("split: {rule: longitude}", "a larger area moves the limits"),
        ("sample: {method: uniform, n: 3}", "'uniform' draws from all chips of the area"),
    ],
)
def test_rules_that_look_at_the_whole_area_refuse_more_of_it(options: str, says: str) -> None:
    recipe = parse_recipe(f"time: {SHORT}\nsources: {{s2: {{collection: sentinel-2-l2a}}}}\n{options}\n")
    with pytest.raises(InputError, match=says):
        can_grow(recipe, recipe, more_area=True)
    can_grow(recipe, recipe, more_area=False)
