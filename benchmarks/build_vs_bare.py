"""Times `curate build` against the bare loaders on the same cube: odc-stac → to_zarr and stackstac → to_zarr.

All contestants get the same scenes of a simulated world, the same pixels, bands and dates, and write with the same
codec, each in a process of its own, in turns. The bare ones do less: no mask, no offset, no splits, no index, no
checksums, no resume. Figures are of the whole process: wall, CPU (user and system), and the most memory it ever held.

    make bench BENCH_ARGS="--size-px 4096 --dates 12 --rounds 3"
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

CHIP_PX = 256
RESOLUTION_M = 10
BLOCK_PX = 1024
"""Side of a Dask chunk and of a Zarr shard of the bare loaders; smaller ones decode a file's blocks more than once."""
BANDS = ("blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22")
ASSETS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "SCL")
START = dt.date(2020, 4, 3)
"""Before baseline 04.00 (January 2022) and its offset, which the bare loaders ignore."""

# A process counts the memory of the one that started it as its own first peak, so a small interpreter stands between.
MEASURE = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
wall_s = time.perf_counter() - started
# ru_maxrss is in kilobytes on Linux.
print(json.dumps([wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


class Job(NamedTuple):
    """One cube: an area of whole chips, and the scenes over it."""

    items: str
    """Item collection of the locked scenes, for the bare loaders."""
    catalog: str
    aoi: str
    recipe: str
    epsg: int
    bounds: tuple[float, float, float, float]
    """(minx, miny, maxx, maxy) in the CRS, on whole chips."""


class Cost(NamedTuple):
    """What one run took."""

    wall_s: float
    cpu_s: float
    rss_mb: float
    out_mb: float


def main() -> None:
    """Run the comparison, or one contestant of it when called with --contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-px", type=int, default=1024, help="side of the world in pixels (default: %(default)s)")
    parser.add_argument("--dates", type=int, default=6, help="Sentinel-2 dates (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each contestant (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=sorted(COMMANDS), help="contestants (default: all)")
    parser.add_argument("--grow", action="store_true", help="also build a quarter of the area, to see memory grow")
    parser.add_argument("--counting", action="store_true", help="only: how much of a build's CPU its statistics take")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "curate-bench", help="workspace")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--contestant", nargs=3, metavar=("NAME", "JOB", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        name, job, out = options.contestant
        BARE[name](Job(**json.loads(Path(job).read_text())), out)
        return
    compare(options)


def compare(options: argparse.Namespace) -> None:
    """Make the world, warm up, run the rounds in turns, and print medians and ratios."""
    folder: Path = options.folder
    world = make_world(folder, options.size_px, options.dates)
    # Two chips less than the world: the area stays off its ragged edge and every chip is inside.
    side = options.size_px // CHIP_PX - 2
    if side < 1:
        sys.exit(f"--size-px {options.size_px} leaves no whole chip; take {3 * CHIP_PX} or more")
    jobs = {"full": lay_job(folder / "full", world, side)}
    if options.grow:
        jobs["quarter"] = lay_job(folder / "quarter", world, max(1, side // 2))
    warm = lay_job(folder / "warm", world, 1)
    if options.counting:
        counting_share(warm, folder / "out-counting")  # compiled kernels
        spent = [counting_share(jobs["full"], folder / "out-counting") for _ in range(options.rounds)]
        middle = statistics.median(counting / whole for counting, whole in spent)
        told = ", ".join(f"{counting:.2f} of {whole:.1f} s" for counting, whole in spent)
        print(f"statistics: {middle:.1%} of the CPU of a build ({told})")
        return
    names = options.only or list(COMMANDS)
    for name in names:  # compiled kernels, page cache
        run(name, warm, folder, keep=True)
    if {"curate", "odc-stac"} <= set(names):
        print(f"{same_pixels(folder / 'out-curate', folder / 'out-odc-stac')} chip dates hold the same 10 m pixels")
    costs: dict[str, list[Cost]] = {f"{name} {area}": [] for area in jobs for name in names}
    for turn in range(options.rounds):
        for area, job in jobs.items():
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                costs[f"{name} {area}"].append(cost := run(name, job, folder))
                print(f"round {turn + 1}, {name} {area}: {cost.wall_s:.1f} s, {cost.rss_mb:.0f} MB", file=sys.stderr)
    table(costs, side, options)


def counting_share(job: Job, out: Path) -> tuple[float, float]:
    """CPU seconds of a build's statistics and of the whole of it, by the clocks of threads: load plays no part."""
    from unittest.mock import patch

    import chips.statistics
    import chips.write
    from chips.statistics import Counter, Statistics
    from flows.console import PlainConsole
    from flows.steps import build, make_request

    spent: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent.append(time.thread_time() - started)

        return call

    shutil.rmtree(out, ignore_errors=True)
    started = time.process_time()
    with (
        patch.object(Counter, "__init__", timed(Counter.__init__)),
        patch.object(Counter, "count", timed(Counter.count)),
        patch.object(Statistics, "to_bytes", timed(Statistics.to_bytes)),
        patch("chips.write.merged_statistics", timed(chips.write.merged_statistics)),
        patch("chips.statistics.statistics_bytes", timed(chips.statistics.statistics_bytes)),
    ):
        build(make_request(aoi=job.aoi, recipe=job.recipe, out=str(out)), PlainConsole())
    whole = time.process_time() - started
    shutil.rmtree(out)
    return sum(spent), whole


def table(costs: dict[str, list[Cost]], side: int, options: argparse.Namespace) -> None:
    """Print medians side by side, walls and CPU also as ratio to curate's."""
    middle = {who: Cost(*map(statistics.median, zip(*runs, strict=True))) for who, runs in costs.items()}
    cube = f"{side * CHIP_PX}² px, {options.dates} dates, {len(BANDS)} bands + SCL"
    print(f"{cube}; {os.cpu_count()} cores, medians of {options.rounds}")
    print(f"{'':20}{'wall s':>10}{'ratio':>8}{'CPU s':>10}{'ratio':>8}{'peak MB':>10}{'out MB':>10}")
    for who, cost in middle.items():
        ours = middle.get(f"curate {who.split()[1]}", cost)
        walls = f"{cost.wall_s:10.1f}{cost.wall_s / ours.wall_s:8.2f}"
        works = f"{cost.cpu_s:10.1f}{cost.cpu_s / ours.cpu_s:8.2f}"
        print(f"{who:20}{walls}{works}{cost.rss_mb:10.0f}{cost.out_mb:10.0f}")
    if options.json:
        runs = {who: [cost._asdict() for cost in all_runs] for who, all_runs in costs.items()}
        facts = {"side_px": side * CHIP_PX, "dates": options.dates, "bands": len(BANDS), "cores": os.cpu_count()}
        options.json.write_text(json.dumps({**facts, "runs": runs}, indent=2) + "\n")


def make_world(folder: Path, size_px: int, dates: int) -> Path:
    """Folder of a world in the middle of a zone, so that one cube holds it; made once."""
    from simulate.world import WorldSpec
    from simulate.write import write_world

    spec = WorldSpec(
        size_px=size_px, dates=dates, start=START, lon=15.0, lat=48.3, radar_dates=0, terrain=False, landcover=False,
        osm=False, block_px=1024,
    )  # fmt: skip

    def told(what: str, done: int, total: int) -> None:
        print(f"world: {what} {done}/{total}", file=sys.stderr)

    return write_world(folder / f"world-{size_px}-{dates}", spec, progress=told).folder


def lay_job(folder: Path, world: Path, side: int) -> Job:
    """A square of ``side`` × ``side`` whole chips in the middle of the world, and the scenes that are kept for it."""
    import numpy as np
    import shapely
    from pyproj import Transformer

    from flows.console import PlainConsole
    from flows.plan import lay_area, search
    from recipes.read import read_recipe
    from tiling.aoi import read_aoi

    folder.mkdir(parents=True, exist_ok=True)
    epsg = 32633
    step = CHIP_PX * RESOLUTION_M
    spec = json.loads((world / "world.json").read_text())["spec"]
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(spec["lon"], spec["lat"])
    minx, miny = round(x / step - side / 2) * step, round(y / step - side / 2) * step
    bounds = (minx, miny, minx + side * step, miny + side * step)
    # A little larger than the chips, because an edge that is straight in degrees is bent in metres.
    edge = np.array(shapely.box(*bounds).buffer(100).segmentize(1000).exterior.coords)
    area = shapely.Polygon(np.stack(Transformer.from_crs(epsg, 4326, always_xy=True).transform(*edge.T), axis=1))
    aoi = folder / "area.wkt"
    aoi.write_text(area.wkt)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: bench\ntime: {START}/2022-01-01\ncatalog: {world / 'catalog.json'}\n"
        f"grid: {{resolution_m: {RESOLUTION_M}, size_px: {CHIP_PX}, min_cover: 0.9}}\n"
        "sources:\n  s2:\n    collection: sentinel-2-l2a\n    time: {series: true}\n"
        f"    bands: [{', '.join(BANDS)}]\n"
    )
    locked = search(read_recipe(recipe), lay_area(read_recipe(recipe), read_aoi(aoi)), PlainConsole())
    items = folder / "items.json"
    features = [row.item for row in locked if row.status == "used"]
    items.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return Job(str(items), str(world / "catalog.json"), str(aoi), str(recipe), epsg, bounds)


def same_pixels(ours: Path, bare: Path) -> int:
    """How many dates of chips were compared (bands of 10 m: copied, not resampled); exits when one differs."""
    import numpy as np
    import xarray as xr

    ds = xr.open_zarr(ours / "chips.zarr", group="s2", mask_and_scale=False)
    cube = xr.open_zarr(bare, consolidated=False)
    compared = 0
    for chip in range(ds.sizes["chip"]):
        one = ds.isel(chip=chip)
        x0, y0 = float(one.x0), float(one.y0)
        half, side = RESOLUTION_M / 2, CHIP_PX * RESOLUTION_M
        window = cube.sel(x=slice(x0 + half, x0 + side - half), y=slice(y0 - half, y0 - side + half))
        days = {str(time)[:10]: step for step, time in enumerate(window.time.values)}
        for step, acquired in enumerate(one.acquired.values):
            if np.isnat(acquired):  # padding
                continue
            day = days[str(acquired)[:10]]
            for band, asset in (("blue", "B02"), ("nir", "B08")):
                got = one.reflectance.isel(time=step).sel(band=band).values
                raw = window[asset].isel(time=day).values
                shifted = np.where(raw > 0, np.maximum(raw.astype("int32") - 1000, 1), 0)
                if not (np.array_equal(got, raw) or np.array_equal(got, shifted)):
                    sys.exit(f"chip {one.chip.values!s}, {band}, {acquired!s:.10}: curate and odc-stac differ")
            compared += 1
    return compared


def run(name: str, job: Job, folder: Path, *, keep: bool = False) -> Cost:
    """One contestant in a process of its own; its output is measured and, unless kept, removed."""
    out = folder / f"out-{name}"
    shutil.rmtree(out, ignore_errors=True)
    document = folder / "job.json"
    document.write_text(json.dumps(job._asdict()))
    measured = [sys.executable, "-I", "-S", "-c", MEASURE, *COMMANDS[name](job, document, out)]
    process = subprocess.run(measured, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        sys.exit(f"{name} failed")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if not keep:
        shutil.rmtree(out)
    wall_s, cpu_s, rss_mb = json.loads(process.stdout)
    return Cost(wall_s, cpu_s, rss_mb, size / 1e6)


def curate_command(job: Job, document: Path, out: Path) -> list[str]:
    """`curate build`, as a user types it."""
    command = Path(sys.executable).parent / "curate"
    return [str(command), "--log-format", "plain", "build", "--aoi", job.aoi, "--recipe", job.recipe, "--out", str(out)]


def bare_command(name: str) -> Callable[[Job, Path, Path], list[str]]:
    """This file again, as one contestant."""
    return lambda job, document, out: [sys.executable, __file__, "--contestant", name, str(document), str(out)]


def compressors() -> list[Any]:
    """The codec of curate's store."""
    from zarr.codecs import BloscCodec

    return [BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")]


def odc_to_zarr(job: Job, out: str) -> None:
    """One lazy odc-stac cube, written."""
    import odc.stac
    import pystac
    from odc.geo.geobox import GeoBox

    cube = odc.stac.load(
        pystac.ItemCollection.from_file(job.items),
        bands=ASSETS,
        geobox=GeoBox.from_bbox(job.bounds, crs=job.epsg, resolution=RESOLUTION_M),
        groupby="solar_day",
        resampling={"SCL": "nearest", "*": "bilinear"},
        chunks={"x": BLOCK_PX, "y": BLOCK_PX},
    )
    block = tuple(min(BLOCK_PX, size) for size in cube["SCL"].shape[1:])
    encoding = {
        name: {"chunks": (1, CHIP_PX, CHIP_PX), "shards": (1, *block), "compressors": compressors()} for name in cube
    }
    cube.to_zarr(out, encoding=encoding, zarr_format=3, consolidated=False)


def stackstac_to_zarr(job: Job, out: str) -> None:
    """One lazy stackstac cube, tiles of a day mosaicked, written."""
    import numpy as np
    import pystac
    import rasterio.enums
    import stackstac
    import xarray as xr

    def stack(assets: Sequence[str], resampling: rasterio.enums.Resampling) -> xr.DataArray:
        cube = stackstac.stack(
            pystac.ItemCollection.from_file(job.items),
            assets=list(assets),
            epsg=job.epsg,
            resolution=RESOLUTION_M,
            bounds=job.bounds,
            snap_bounds=False,
            dtype=np.dtype("uint16"),
            fill_value=np.uint16(0),
            rescale=False,
            resampling=resampling,
            chunksize=BLOCK_PX,
            properties=False,
            band_coords=False,
            xy_coords=False,
        )
        cube.attrs = {}  # a RasterSpec, which Zarr cannot store
        days = cube.assign_coords(time=cube.time.dt.floor("D"), band=np.arange(len(assets)))
        mosaic: xr.DataArray = days.groupby("time").map(stackstac.mosaic, nodata=0, reverse=True)
        return mosaic.drop_vars("id", errors="ignore")

    cubes = {
        "reflectance": stack(ASSETS[:-1], rasterio.enums.Resampling.bilinear),
        "scl": stack(ASSETS[-1:], rasterio.enums.Resampling.nearest).squeeze("band"),
    }
    encoding = {}
    for name, cube in cubes.items():
        ones = (1,) * (cube.ndim - 2)
        block = tuple(min(BLOCK_PX, size) for size in cube.shape[-2:])
        encoding[name] = {
            "chunks": (*ones, CHIP_PX, CHIP_PX),
            "shards": (*ones, *block),
            "compressors": compressors(),
        }
    xr.Dataset(cubes).to_zarr(out, encoding=encoding, zarr_format=3, consolidated=False)


BARE: dict[str, Callable[[Job, str], None]] = {"odc-stac": odc_to_zarr, "stackstac": stackstac_to_zarr}
COMMANDS: dict[str, Callable[[Job, Path, Path], Sequence[str]]] = {
    "curate": curate_command,
    **{name: bare_command(name) for name in BARE},
}


if __name__ == "__main__":
    main()
