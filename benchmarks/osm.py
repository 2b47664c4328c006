"""Drawing OpenStreetMap features beside ``rasterio.features.rasterize`` (GDAL) and geocube, where that is installed.

Made up as a landscape is: parcels and houses as polygons, and roads as lines. Everybody gets the geometries ready in
the zone's CRS and draws the same pixels; GDAL gets the roads as polygons, and making those is timed apart, because ours
need none. The differences are pixels within rounding of an edge of those polygons. Medians of several runs, in seconds.

    python benchmarks/osm.py --polygons 200000 --roads 20000
    python benchmarks/osm.py --extract ../shared/data/monaco-osm/monaco.osm.pbf
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyproj
import shapely
from rasterio.features import rasterize as gdal_rasterize

from labels.extract import read_extract
from labels.rasterize import draw_polygons, pack
from labels.rules import RULE_SETS, read_rules
from labels.strokes import draw_strokes, pack_strokes
from tiling.shards import Window

EPSG, X0, Y0, PIXEL_M = 32633, 500_000.0, 5_400_000.0, 10.0


def median(of: Callable[[], Any], runs: int) -> float:
    """Seconds, without a first run that compiles."""
    of()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        of()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def landscape(n_polygons: int, n_roads: int, side_m: float) -> tuple[Any, Any, Any]:
    """Polygons of 20 m to 400 m, roads of five edges, and the codes of both."""
    random = np.random.default_rng(7)
    x, y = random.uniform(0, side_m, (2, n_polygons))
    size = np.exp(random.uniform(np.log(10), np.log(200), n_polygons))
    angle = np.sort(random.uniform(0, 2 * np.pi, (n_polygons, 8)), axis=1)
    places = np.stack([x[:, None] + size[:, None] * np.cos(angle), y[:, None] + size[:, None] * np.sin(angle)], axis=-1)
    polygons = shapely.polygons(np.concatenate([places, places[:, :1]], axis=1) + np.array([X0, Y0 - side_m]))
    steps = np.cumsum(random.uniform(-300, 300, (n_roads, 6, 2)), axis=1)
    roads = shapely.linestrings(random.uniform(0, side_m, (n_roads, 1, 2)) + steps + np.array([X0, Y0 - side_m]))
    return polygons, roads, random.integers(1, 200, n_polygons + n_roads).astype(np.uint32)


def drawing(n_polygons: int, n_roads: int, side_px: int, runs: int) -> None:
    """One window with everything in it."""
    side_m = side_px * PIXEL_M
    window = Window(EPSG, (X0, Y0 - side_m, X0 + side_m, Y0), PIXEL_M, (side_px, side_px), (), ())
    polygons, roads, codes = landscape(n_polygons, n_roads, side_m)
    crs = pyproj.CRS.from_epsg(EPSG)
    areas = pack(polygons, codes[:n_polygons], crs)
    lines = pack_strokes(roads, codes[n_polygons:], np.full(n_roads, 6.0), crs)

    def ours(part: str) -> Any:
        out = np.zeros(window.shape, np.uint8)
        if part != "roads":
            draw_polygons(out, areas, window)
        if part != "polygons":
            draw_strokes(out, lines, window)
        return out

    buffered = shapely.buffer(roads, 6.0, quad_segs=8)

    def theirs(part: str) -> Any:
        shapes = [(polygons, codes[:n_polygons])] if part != "roads" else []
        shapes += [(buffered, codes[n_polygons:])] if part != "polygons" else []
        pairs = [pair for geometry, values in shapes for pair in zip(geometry, values.tolist(), strict=True)]
        return gdal_rasterize(pairs, out_shape=window.shape, transform=window.geobox.transform, dtype="uint8")

    print(f"{n_polygons} polygons and {n_roads} roads of 12 m on {side_px} x {side_px} pixels of {PIXEL_M:g} m")
    print(f"{'':12}{'ours':>9}{'GDAL':>9}{'ratio':>8}   pixels that differ")
    for part in ("polygons", "roads", "both"):
        a, b = median(lambda p=part: ours(p), runs), median(lambda p=part: theirs(p), runs)  # type: ignore[misc]
        differ = int((ours(part) != theirs(part)).sum())
        print(f"{part:12}{a:9.3f}{b:9.3f}{b / a:8.1f}   {differ} of {side_px**2}")
    print(f"roads as polygons, before GDAL can draw them: {median(lambda: shapely.buffer(roads, 6.0), runs):.3f}")
    if importlib.util.find_spec("geocube") is None:
        print("geocube is not installed: skipped")
        return
    import geopandas as gpd

    make_geocube = importlib.import_module("geocube.api.core").make_geocube
    frame = gpd.GeoDataFrame({"code": codes}, geometry=np.concatenate([polygons, buffered]), crs=EPSG)
    outline = shapely.geometry.mapping(shapely.box(*window.bounds))
    box = json.dumps({**outline, "crs": {"properties": {"name": f"EPSG:{EPSG}"}}})
    cube = median(lambda: make_geocube(frame, measurements=["code"], resolution=(-PIXEL_M, PIXEL_M), geom=box), runs)
    print(f"geocube: {cube:.3f}, {cube / median(lambda: ours('both'), runs):.1f} times ours")


def reading(path: str, runs: int) -> None:
    """Reading an extract by each of our rule sets, and by GDAL."""
    import pyogrio

    for name in sorted(RULE_SETS):
        rules = read_rules(name)

        def read(rules: Any = rules) -> Any:
            return read_extract("benchmark", path, keys=rules.keys, match=rules.match, box=(-180, -90, 180, 90))

        print(f"{name:12}{median(read, runs):9.3f}   {len(read())} features")

    def layers() -> None:
        for layer in ("points", "lines", "multipolygons"):
            pyogrio.read_dataframe(path, layer=layer)

    print(f"{'GDAL':12}{median(layers, runs):9.3f}   three layers, all of their features")


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polygons", type=int, default=200_000)
    parser.add_argument("--roads", type=int, default=20_000)
    parser.add_argument("--side-px", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--extract", help="an .osm.pbf: time reading instead of drawing")
    options = parser.parse_args()
    if options.extract:
        reading(options.extract, options.runs)
    else:
        drawing(options.polygons, options.roads, options.side_px, options.runs)


if __name__ == "__main__":
    main()
