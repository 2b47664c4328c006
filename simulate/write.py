"""Write a simulated world to a folder, and read its truth back on any grid.

The folder then holds ``catalog.json`` with the scenes below it, ``region.geojson``, ``fields.geojson``,
``map.osm.pbf`` and, written last, ``world.json``: with it the world is whole, and a second call returns at once.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from curate.errors import OutputError
from simulate import landscape as land
from simulate import optical, stac
from simulate.cog import cog
from simulate.frame import around, places, utm_cover, zone_of
from simulate.landcover import landcover_tiles, write_landcover
from simulate.osm import write_fields, write_osm
from simulate.radar import Pass, passes, swath, write_pass
from simulate.terrain import dem_tiles, write_dem
from simulate.world import Raster, WorldSpec, mgrs_square

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

STRIPE = 512
"""Rows that are computed at a time."""
NOISE_DN = 4.0
"""Deviation of the sensor's noise in digital numbers."""


@dataclass(frozen=True, slots=True)
class World:
    """Where the parts of a written world lie."""

    folder: Path
    spec: WorldSpec
    catalog: Path
    """Static STAC catalog, ``catalog.json``."""
    region: Path
    """The area to build, ``region.geojson``."""
    fields: Path | None
    """Fields with attributes ``id`` and ``label`` (the crop), ``fields.geojson``; None when not asked for."""
    osm: Path | None
    """The same landscape as OpenStreetMap data, ``map.osm.pbf``; None when not asked for."""


class Tile(NamedTuple):
    """A Sentinel-2 tile of the world: a name and a grid for each pixel size in metres."""

    name: str
    rasters: dict[int, Raster]


def s2_tiles(spec: WorldSpec) -> tuple[Tile, ...]:
    """The western and the eastern tile. Each is cut in the zone of its own half, and they overlap in the middle."""
    parts = ((0.0, 0.5 + spec.overlap / 2), (0.5 - spec.overlap / 2, 1.0))
    result: list[Tile] = []
    for number, part in enumerate(parts):
        epsg = zone_of(spec, 0.25 + 0.5 * number)
        # Edges on multiples of 60 m hold for the pixels of 10, 20 and 60 m, as in the archive's tiles.
        raster = utm_cover(spec, part, epsg, snap_m=60.0)
        minx, miny, maxx, maxy = raster.bounds
        name = mgrs_square(epsg, (minx + maxx) / 2, (miny + maxy) / 2, spec.lat)
        if any(tile.name == name for tile in result):
            # Both lie in one square of 100 km: the second takes the name of the square to the east.
            name = mgrs_square(epsg, (minx + maxx) / 2 + 100_000, (miny + maxy) / 2, spec.lat)
        result.append(Tile(name, {10: raster, 20: raster.coarser(2), 60: raster.coarser(6)}))
    return tuple(result)


class Survey(NamedTuple):
    """What the scenes of a tile need of the ground, ``(row, col)``; on disk, so that a tile may exceed the memory."""

    surface: NDArray[np.uint8]
    road: NDArray[np.float32]
    vary: NDArray[np.float32]
    texture: NDArray[np.float32]
    slope_x: NDArray[np.float32]
    slope_y: NDArray[np.float32]
    height: NDArray[np.float32]


def _scratch(path: Path, dtype: type[np.generic], shape: tuple[int, int]) -> NDArray[Any]:
    """An array in a file of its own. The room is claimed at once: a full disk is an error here, not a crash later."""
    with path.open("wb") as file:
        size = shape[0] * shape[1] * np.dtype(dtype).itemsize
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, dtype, "r+", shape=shape)


def _survey(scratch: Path, spec: WorldSpec, raster: Raster) -> Survey:
    """Compute the ground of a raster once, for all dates; ``scratch`` is a folder of its own."""
    scratch.mkdir()
    kinds = {"surface": np.uint8}
    arrays = Survey(*(_scratch(scratch / name, kinds.get(name, np.float32), raster.shape) for name in Survey._fields))
    blocks = land.blocks_of(around(spec, raster), spec.seed)
    for row in range(0, raster.shape[0], STRIPE):
        rows = slice(row, min(row + STRIPE, raster.shape[0]))
        x, y = places(spec, raster, (rows.start, rows.stop))
        here = land.ground(x, y, spec.seed, blocks)
        half = raster.step_x / 2
        # Share of the pixel's width that the road takes, as if it ran along the pixel.
        road = np.minimum(here.road_m + here.road_half_m, half) - np.maximum(here.road_m - here.road_half_m, -half)
        arrays.surface[rows] = here.surface
        arrays.road[rows] = np.clip(road / raster.step_x, 0, 1)
        arrays.vary[rows] = here.vary
        arrays.texture[rows] = here.texture
        arrays.slope_x[rows], arrays.slope_y[rows] = land.slope(x, y, spec.seed)
        arrays.height[rows] = land.elevation(x, y, spec.seed)
    return arrays


def _write_scene(
    folder: Path, spec: WorldSpec, acquisition: optical.Acquisition, tile: Tile, surveys: Mapping[int, Survey]
) -> dict[str, Any] | None:
    """Write one tile of an acquisition; returns its item, or None when the swath does not reach the tile."""
    sky = optical.sky(spec, acquisition)
    footprint = stac.seen_by(spec, tile.rasters[10], sky.edge_x)
    if footprint.is_empty:
        return None
    scene = folder / "sentinel-2-l2a" / stac.s2_item_id(acquisition, tile.name)
    scene.mkdir(parents=True, exist_ok=True)
    table = optical.snowy(optical.colours(acquisition.day, spec.lat < 0))
    counts = np.zeros(12, np.int64)
    for size, raster in tile.rasters.items():
        names = [band for band in spec.bands if optical.PIXEL_M[band] == size]
        if not names and size != 20:
            continue
        bands = np.array([optical.BANDS.index(band) for band in names], np.int64)
        survey = surveys[size]
        with ExitStack() as stack:
            outputs = [
                stack.enter_context(
                    cog(
                        scene / f"{band}.tif", raster, "uint16", nodata=0, block_px=spec.block_px,
                        compress=spec.compress, overviews="average",
                    )
                )
                for band in names
            ]  # fmt: skip
            scl_output = None
            if size == 20:
                scl_output = stack.enter_context(
                    cog(
                        scene / "SCL.tif", raster, "uint8", nodata=0, block_px=spec.block_px,
                        compress=spec.compress, overviews="nearest",
                    )
                )  # fmt: skip
            for row in range(0, raster.shape[0], STRIPE):
                rows = slice(row, min(row + STRIPE, raster.shape[0]))
                x, y = places(spec, raster, (rows.start, rows.stop))
                out = np.empty((len(names), *x.shape), np.uint16)
                scl = np.empty(x.shape, np.uint8)
                optical.render(
                    x, y, survey.surface[rows], survey.road[rows], survey.vary[rows], survey.texture[rows],
                    optical.sunlight(survey.slope_x[rows], survey.slope_y[rows], acquisition), survey.height[rows],
                    table, optical.UNEVEN, optical.GRAIN, bands, np.array(optical.CLOUD), np.array(optical.HAZE),
                    np.array(optical.SKYLIGHT), sky.seed, sky.level, sky.cirrus_level, sky.shift_x, sky.shift_y,
                    sky.edge_x, sky.snow_line, round(raster.x0 / size), -round(raster.y0 / size) + row,
                    acquisition.offset_dn, NOISE_DN, spec.step_dn, out, scl,
                )  # fmt: skip
                for write, pixels in zip(outputs, out, strict=True):
                    write(row, pixels)
                if scl_output is not None:
                    scl_output(row, scl)
                    counts += np.bincount(scl.ravel(), minlength=12)
    return stac.s2_item(spec, acquisition, tile.name, tile.rasters, footprint, [int(n) for n in counts])


def _write_pass(folder: Path, spec: WorldSpec, radar_pass: Pass) -> dict[str, Any]:
    scene = folder / "sentinel-1-rtc" / radar_pass.id
    scene.mkdir(parents=True, exist_ok=True)
    write_pass({key: scene / f"{key}.tif" for key in ("vv", "vh")}, spec, radar_pass)
    return stac.s1_item(radar_pass, swath(spec, radar_pass))


def _write_dem(folder: Path, spec: WorldSpec, tile: str, raster: Raster) -> dict[str, Any]:
    entry = stac.dem_item(tile, raster)
    (folder / "cop-dem-glo-30" / entry["id"]).mkdir(parents=True, exist_ok=True)
    write_dem(folder / "cop-dem-glo-30" / entry["id"] / "data.tif", spec, raster)
    return entry


def _write_landcover(folder: Path, spec: WorldSpec, tile: str, raster: Raster) -> dict[str, Any]:
    entry = stac.landcover_item(tile, raster)
    (folder / "esa-worldcover" / entry["id"]).mkdir(parents=True, exist_ok=True)
    write_landcover(folder / "esa-worldcover" / entry["id"] / "map.tif", spec, raster)
    return entry


def write_world(
    folder: str | Path, spec: WorldSpec | None = None, *, progress: Callable[[str, int, int], None] | None = None
) -> World:
    """Write a world, unless the folder already holds the same one, and say where its parts lie.

    Args:
        folder: Made when missing. It may be empty or hold a world, whole or half; anything else is left alone.
        spec: The options; the demo's by default.
        progress: Called as ``progress(what, done, total)`` with done from 0 to total, in files and groups of files.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
    """
    spec = spec or WorldSpec()
    folder = Path(folder)
    marker = folder / "world.json"
    world = World(
        folder=folder,
        spec=spec,
        catalog=folder / "catalog.json",
        region=folder / "region.geojson",
        fields=folder / "fields.geojson" if spec.osm else None,
        osm=folder / "map.osm.pbf" if spec.osm else None,
    )
    started = folder / ".simulated"
    if marker.is_file():
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            found = {}
        if found.get("fingerprint") == spec.fingerprint and world.catalog.is_file():
            return world
    elif folder.exists() and not started.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(str(folder), "is not empty and holds no simulated world; name another folder or empty it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        started.touch()
        _clear(folder)
        _write_parts(world, progress or (lambda what, done, total: None))
        stac.write_json(
            marker, {"fingerprint": spec.fingerprint, "spec": json.loads(json.dumps(asdict(spec), default=str))}
        )
        started.unlink()
    except OSError as error:
        raise OutputError(
            str(folder), f"cannot be written ({error.strerror or error}); choose another folder"
        ) from error
    return world


def _clear(folder: Path) -> None:
    """Remove what an earlier world left. The marker goes first, so that a crash leaves no world that seems whole."""
    for name in ("world.json", "catalog.json", "region.geojson", "fields.geojson", "map.osm.pbf"):
        (folder / name).unlink(missing_ok=True)
    for name in (*stac.COLLECTIONS, ".scratch"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)


def _write_parts(world: World, progress: Callable[[str, int, int], None]) -> None:
    folder, spec = world.folder, world.spec
    scratch = folder / ".scratch"
    scratch.mkdir()
    tiles = s2_tiles(spec)
    sizes = sorted({optical.PIXEL_M[band] for band in spec.bands} | {20})
    scenes = [(acquisition, tile) for acquisition in optical.acquisitions(spec) for tile in tiles]
    jobs: list[Future[dict[str, Any] | None]] = []
    vectors: list[Future[Any]] = []
    with ThreadPoolExecutor(max(os.cpu_count() or 1, 1)) as pool:
        surveys = {
            (tile.name, size): pool.submit(_survey, scratch / f"{tile.name}_{size}", spec, tile.rasters[size])
            for tile in tiles
            for size in sizes
        }
        if spec.terrain:
            jobs += [pool.submit(_write_dem, folder, spec, name, raster) for name, raster in dem_tiles(spec).items()]
        if spec.landcover:
            jobs += [
                pool.submit(_write_landcover, folder, spec, name, raster)
                for name, raster in landcover_tiles(spec).items()
            ]
        if world.fields is not None and world.osm is not None:
            vectors = [pool.submit(write_fields, world.fields, spec), pool.submit(write_osm, world.osm, spec)]
        jobs += [pool.submit(_write_pass, folder, spec, radar_pass) for radar_pass in passes(spec)]
        total = len(jobs) + len(vectors) + len(scenes) + len(surveys)
        progress("ground", 0, total)
        for done, survey in enumerate(as_completed(surveys.values()), 1):
            survey.result()
            progress("ground", done, total)
        for acquisition, tile in scenes:
            here = {size: surveys[tile.name, size].result() for size in sizes}
            jobs.append(pool.submit(_write_scene, folder, spec, acquisition, tile, here))
        try:
            for done, job in enumerate(as_completed([*jobs, *vectors]), len(surveys) + 1):
                job.result()
                progress("scenes", done, total)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    shutil.rmtree(scratch)
    stac.write_region(world.region, spec)
    stac.write_catalog(folder, spec, [item for job in jobs if (item := job.result()) is not None])


def truth_on(
    spec: WorldSpec,
    epsg: int,
    transform: Sequence[float],
    shape: tuple[int, int],
    *,
    acquired: dt.datetime | None = None,
) -> dict[str, NDArray[Any]]:
    """The exact truth at the pixel centres of a north-up grid, arrays ``(y, x)``.

    Args:
        spec: The world.
        epsg: A UTM zone or 4326.
        transform: Row-major affine (a, b, c, d, e, f) from (col, row) to coordinates.
        shape: (y, x) in pixels.
        acquired: Start of an acquisition; adds ``clear``.

    Returns:
        ``class`` uint8 WorldCover codes, ``surface`` uint8 codes of :mod:`simulate.landscape`, ``field`` int32 ids (0:
        none), ``crop`` uint8 place in CROPS plus 1 (0: none), ``height`` float32 metres, and ``clear`` bool: seen, no
        cloud, no shadow, no cirrus.
    """
    a, b, c, d, e, f = transform[:6]
    if b or d or a <= 0 or e >= 0:
        raise ValueError(f"transform {tuple(transform)} is not north-up")
    raster = Raster(epsg, c, f, a, -e, shape)
    x, y = places(spec, raster)
    here = land.ground(x, y, spec.seed)
    result: dict[str, NDArray[Any]] = {
        "class": here.cover,
        "surface": here.surface,
        "field": here.field,
        "crop": here.crop,
        "height": land.elevation(x, y, spec.seed),
    }
    if acquired is not None:
        match = [acq for acq in optical.acquisitions(spec) if acq.sensed == acquired]
        if not match:
            raise ValueError(f"the world has no acquisition at {acquired.isoformat()}")
        sky = optical.sky(spec, match[0])
        clear = np.empty(shape, np.bool_)
        optical.clear_places(x, y, sky.seed, sky.level, sky.cirrus_level, sky.shift_x, sky.shift_y, sky.edge_x, clear)
        result["clear"] = clear
    return result
