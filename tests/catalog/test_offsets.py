"""Scenes whose metadata contradict each other are decided by how dark their land is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from catalog.lock import LockedItem, lock_bytes, read_lock
from catalog.offsets import look, settle
from catalog.request import find
from catalog.scene import Asset, Radiometry, Scene
from catalog.search import open_catalog

Array = npt.NDArray[Any]
Make = Callable[..., LockedItem]
FLAG = Radiometry(0.0001, -1000, "uncertain: baseline 05.09, boa_offset_applied is false: offset -1000")
SIDE = 1024


def land(seed: int = 0, darkest: int = 150) -> Array:
    """Surface reflectance of fields and woods, in ten-thousandths, no offset, nowhere void."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(darkest, darkest + 700, (SIDE // 16, SIDE // 16))
    return np.repeat(np.repeat(coarse, 16, 0), 16, 1) + rng.integers(0, 40, (SIDE, SIDE))


def write(path: Path, pixels: Array, *, size_m: float = 10, overviews: bool = True) -> Asset:
    grid = from_origin(499980, 5400000, size_m, size_m)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=pixels.shape[0],
        width=pixels.shape[1],
        count=1,
        dtype=str(pixels.dtype),
        crs="EPSG:32633",
        transform=grid,
        nodata=0,
        tiled=True,
    ) as file:
        file.write(pixels, 1)
        if overviews:
            file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    band = path.stem.rpartition("-")[2]
    return Asset(band, band, str(path), 32633, tuple(grid)[:6], pixels.shape, str(pixels.dtype), 0)


@pytest.fixture
def make(tmp_path: Path, s2_item: Callable[..., dict[str, Any]]) -> Make:
    """A row with the bands ``red`` and, where classes are given, ``scl`` of 20 m, on day ``day``."""

    def row(
        name: str, red: Array, scl: Array | None = None, radiometry: Radiometry = FLAG, day: int = 0, **changes: Any
    ) -> LockedItem:
        assets = [write(tmp_path / f"{name}-red.tif", red.astype("uint16"))]
        if scl is not None:
            assets.append(write(tmp_path / f"{name}-scl.tif", scl.astype("uint8"), size_m=20, overviews=False))
        item = s2_item(day, id=name, assets={a.key: {"href": a.href} for a in assets})
        scene = Scene(
            id=name,
            source="s2",
            collection="sentinel-2-l2a",
            acquired=dt.datetime(2022, 6, 1, 10, tzinfo=dt.UTC) + dt.timedelta(days=day),
            acquisition=name,
            footprint=shapely.box(15, 48, 16, 49),
            assets=tuple(assets),
            radiometry=radiometry,
            tile="33UWP",
            baseline="05.09",
        )
        return LockedItem(item, "s2", "used", "", replace(scene, **changes))

    return row


def of(rows: list[LockedItem], name: str) -> Radiometry:
    return next(row.scene.radiometry for row in rows if row.scene is not None and row.scene.id == name)


@pytest.mark.parametrize("said", [-1000, 0])
@pytest.mark.parametrize(("offset", "verdict"), [(-1000, "raw, offset -1000"), (0, "already shifted, no offset")])
def test_dark_land_tells_shifted_pixels_from_raw_ones_whatever_the_flag_says(
    make: Make, said: int, offset: int, verdict: str
) -> None:
    flag = replace(FLAG, offset_dn=said)
    found = of(settle([make("a", land() - offset, radiometry=flag)]), "a")
    assert found.offset_dn == offset
    assert verdict in found.why
    assert found.why.startswith("pixels: ")
    assert ("against" in found.why) == (said != offset)
    assert "boa_offset_applied is false" in found.why, "what the metadata said is kept"


def test_the_decision_and_its_reason_are_frozen_in_the_lock(make: Make) -> None:
    settled = settle([make("a", land())])
    (read,) = read_lock(lock_bytes(settled))
    assert read.scene is not None
    assert settled[0].scene is not None
    assert read.scene.radiometry == settled[0].scene.radiometry
    assert settle([read])[0] is read, "it is looked at once"


def test_only_land_counts_and_neither_the_sea_nor_the_edge_of_a_scene(make: Make) -> None:
    raw = land() + 1000
    raw[:, : SIDE // 2] = 950  # deep water, corrected too much: below 1000 although nothing was shifted
    scl = np.full((SIDE // 2, SIDE // 2), 4)
    scl[:, : SIDE // 4] = 6
    raw[: SIDE // 3] = 0  # overviews mix the edge with void
    assert of(settle([make("a", raw, scl)]), "a").offset_dn == -1000
    seen = look(make("b", raw, scl).scene)  # type: ignore[arg-type]
    assert seen.below == 0
    assert 0.25 * (SIDE / 4) ** 2 < seen.pixels < 0.34 * (SIDE / 4) ** 2


def test_a_bright_place_is_held_against_certain_dates_of_its_tile(make: Make) -> None:
    """A desert has nothing below 1000 when it is shifted, so its share says nothing."""
    desert = land(darkest=1900)
    sure = Radiometry(0.0001, -1000, "baseline 05.09 of sentinel-2-l2a: raw, offset -1000")
    rows = [
        make("shifted", desert, day=5),
        make("raw", desert + 1000, day=6),
        make("known", land(1, darkest=1900) + 1000, radiometry=sure, day=9),
    ]
    settled = settle(rows)
    assert of(settled, "shifted").offset_dn == 0
    assert of(settled, "raw").offset_dn == -1000
    assert "neighbouring dates" in of(settled, "raw").why
    alone = of(settle(rows[:1]), "shifted")
    assert alone.offset_dn == -1000, "nothing but the flag is left"
    assert alone.why.startswith("uncertain: ")
    assert "pixels do not tell" in alone.why


def test_what_cannot_be_seen_stays_as_the_metadata_say_with_the_reason(make: Make, tmp_path: Path) -> None:
    cloudy = make("cloudy", land(), np.full((SIDE // 2, SIDE // 2), 9))
    gone, broken, nir = make("gone", land()), make("broken", land()), make("nir", land())
    (tmp_path / "gone-red.tif").unlink()
    (tmp_path / "broken-red.tif").write_bytes(b"<html>404</html>")
    assert nir.scene is not None
    nir = replace(nir, scene=replace(nir.scene, assets=(replace(nir.scene.assets[0], band="nir"),)))
    settled = settle([cloudy, gone, broken, nir])
    for name, why in (
        ("cloudy", "only 0 pixels of clear land"),
        ("gone", "band red cannot be read"),
        ("broken", "band red cannot be read"),
        ("nir", "none of blue, red"),
    ):
        found = of(settled, name)
        assert found.offset_dn == FLAG.offset_dn
        assert found.why.startswith(FLAG.why)
        assert why in found.why


def test_scenes_before_baseline_04_and_dropped_ones_are_not_looked_at(make: Make) -> None:
    old = make("old", land() + 1000, radiometry=replace(FLAG, offset_dn=0), baseline="02.14")
    dropped = replace(make("dropped", land()), status="dropped", reason="baseline 05.11 against 05.09")
    assert settle([old, dropped]) == [old, dropped]


def test_real_scenes_are_told_in_either_state(shared_data: Path, tmp_path: Path) -> None:
    """Lower Austria in 2018, baseline 02: the numbers of shifted scenes. A thousand more make raw ones of them."""
    rows = find(
        open_catalog(shared_data / "austria" / "catalog.json"),
        source="s2",
        collection="sentinel-2-l2a",
        bands=["red", "scl"],
        aoi_geometry=shapely.box(15.38, 48.48, 15.48, 48.54),
        start=None,
        end=None,
    )
    doubted, clear = [], 0
    for row in rows:
        assert row.scene is not None
        scene = replace(row.scene, baseline="05.09", radiometry=FLAG)
        with rasterio.open(scene.asset("red").href) as file:
            dn = file.read(1).astype(int)
        with rasterio.open(scene.asset("scl").href) as file:
            clear += int(np.isin(file.read(1), (4, 5)).sum() > 5000)
        raised = write(tmp_path / f"{scene.id}-red.tif", np.where(dn == 0, 0, dn + 1000).astype("uint16"))
        doubted += [
            replace(row, scene=scene),
            replace(row, scene=replace(scene, id=f"{scene.id} raw", assets=(raised, scene.asset("scl")))),
        ]
    decided = [row.scene for row in settle(doubted) if row.scene and row.scene.radiometry.why.startswith("pixels")]
    assert len(decided) >= 2 * clear > 30
    for scene in decided:
        assert scene.radiometry.offset_dn == (-1000 if scene.id.endswith("raw") else 0), scene.radiometry.why
