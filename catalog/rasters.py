"""Plain raster files as a catalog: an item a scene, made from the headers of its files."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import glob
import logging
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.access import access
from catalog.collections import Collection
from catalog.describe import FILE, DescribeSpec, parse_file_time
from catalog.search import keep_items
from curate.errors import CatalogError

if TYPE_CHECKING:
    import rasterio
    import shapely

log = logging.getLogger(__name__)

Item = dict[str, Any]

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".asc", ".png")
OPENERS = 16
"""Files whose headers are read at once."""


class RasterCatalog:
    """Rasters of a folder, glob or list, searched like any catalog. Headers are read once, at the first search.

    Args:
        where: A folder (searched to its depth), a glob, or addresses of files.
        collection: Id that the items get.
        spec: How names tell bands and times.
    """

    says_cloud: frozenset[str] = frozenset()

    def __init__(self, where: str | Path | Sequence[str | Path], collection: str, spec: DescribeSpec) -> None:
        self.name = str(where) if isinstance(where, str | Path) else f"{len(where)} rasters"
        self.collection, self.spec = collection, spec
        self._where = where
        self._items: list[Item] | None = None

    def name_of(self, collection: Collection, asked: str) -> str:
        """See ``Catalog.name_of``: everything here is of one collection."""
        return self.collection

    def search(
        self,
        collections: Sequence[str],
        geometry: shapely.Geometry,
        start: dt.datetime | None,
        end: dt.datetime | None,
        *,
        query: Mapping[str, Any] | None = None,
        cql2: Mapping[str, Any] | None = None,
        limit_page: int = 100,
    ) -> list[Item]:
        """See ``Catalog.search``."""
        if self._items is None:
            self._items = self._read()
        if (start is not None or end is not None) and any("datetime" not in item["properties"] for item in self._items):
            raise CatalogError(
                f"catalog {self.name}",
                "nothing says the time of its files; name it in the pattern, (?P<time>...), give `time`, or say "
                "`static: true` when they hold for all times",
            )
        keep = keep_items(collections, geometry, start, end, query, cql2)
        return [item for item in self._items if keep(item)]

    def _read(self) -> list[Item]:
        scenes: dict[str, list[tuple[str, str, Mapping[str, str]]]] = {}
        files = self._files()
        for href, name in files:
            parts = self._parts(name)
            if parts is None:
                continue
            scene, key = _scene_and_key(name, parts)
            scenes.setdefault(scene, []).append((key, href, {k: v for k, v in parts[1].items() if v is not None}))
        if not scenes:
            what = f"none of its {len(files)} rasters matches {self.spec.pattern!r}" if files else "holds no raster"
            raise CatalogError(
                f"catalog {self.name}", f"{what}; wanted files ending in {', '.join(SUFFIXES)}, or a list of files"
            )
        with concurrent.futures.ThreadPoolExecutor(OPENERS) as pool:
            return list(pool.map(lambda scene: self._item(scene, scenes[scene]), sorted(scenes)))

    def _files(self) -> list[tuple[str, str]]:
        """Address and name of every file; the name is the path below the folder, with ``/``."""
        where = self._where
        if not isinstance(where, str | Path):
            return [(_absolute(one), posixpath.basename(str(one))) for one in where]
        folder = Path(where)
        if folder.is_dir():
            paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
            return [(str(path.resolve()), path.relative_to(folder).as_posix()) for path in paths]
        if "://" in str(where):
            return [(str(where), posixpath.basename(str(where)))]
        root = Path(re.split(r"[*?\[]", str(where), maxsplit=1)[0])
        root = root if root.is_dir() else root.parent
        found = sorted(Path(path) for path in glob.glob(str(where), recursive=True))
        return [(str(path.resolve()), path.relative_to(root).as_posix()) for path in found if path.is_file()]

    def _parts(self, name: str) -> tuple[re.Match[str] | None, dict[str, Any]] | None:
        if self.spec.pattern is None:
            return None, {}
        match = re.search(self.spec.pattern, name)
        return (match, match.groupdict()) if match else None

    def _item(self, scene: str, files: Sequence[tuple[str, str, Mapping[str, str]]]) -> Item:
        import shapely

        assets: dict[str, Item] = {}
        footprints = []
        for key, href, _ in files:
            if key in assets:
                raise CatalogError(
                    f"catalog {self.name}",
                    f"{assets[key]['href']} and {href} are both band '{key}' of scene {scene}; name what tells them "
                    "apart in the pattern, as tile or time",
                )
            assets[key], footprint = _asset(href)
            footprints.append(footprint)
        said: dict[str, str] = {name: value for _, _, parts in files for name, value in parts.items()}
        footprint = shapely.union_all(footprints)
        item: Item = {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": [],
            "id": scene,
            "collection": self.collection,
            "geometry": shapely.geometry.mapping(footprint),
            "bbox": list(shapely.bounds(footprint).tolist()),
            "properties": {},
            "links": [],
            "assets": assets,
        }
        if self.spec.time is not None or "time" in said:
            try:
                if "time" in said:
                    time = parse_file_time(said["time"], self.spec.time_format)
                else:
                    time = parse_file_time(str(self.spec.time), None)
            except ValueError as error:
                raise CatalogError(f"file {files[0][1]}", str(error)) from error
            item["properties"]["datetime"] = time.isoformat().replace("+00:00", "Z")
        if "platform" in said:
            item["properties"]["platform"] = said["platform"]
        if "tile" in said:
            item["properties"]["grid:code"] = said["tile"]
        return item


def _scene_and_key(name: str, parts: tuple[re.Match[str] | None, dict[str, Any]]) -> tuple[str, str]:
    """Id of the scene of a file, and key of its asset: all of the path but the band is the scene."""
    match, said = parts
    stem = posixpath.splitext(name)[0]
    if match is None or said.get("band") is None:
        return str(said.get("scene") or stem.replace("/", "_")), FILE
    if said.get("scene"):
        return str(said["scene"]), str(said["band"])
    first, last = match.span("band")
    rest = stem[:first] + stem[last:]
    return re.sub(r"[/_.\- ]+", "_", rest).strip("_") or "scene", str(said["band"])


def _absolute(one: str | Path) -> str:
    return str(one) if "://" in str(one) else str(Path(one).resolve())


def _asset(href: str) -> tuple[Item, shapely.Geometry]:
    """What the header of a file says, as a STAC asset, and its footprint in EPSG:4326."""
    import rasterio
    from rasterio.errors import RasterioError

    reach = access(href)
    try:
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            reach.env(),
            rasterio.open(reach.url) as file,
        ):
            return _described(href, file)
    except (RasterioError, OSError) as error:
        raise CatalogError(f"file {href}", f"cannot be opened as a raster: {reach.hide(str(error))}") from error


def _described(href: str, file: rasterio.DatasetReader) -> tuple[Item, shapely.Geometry]:
    import numpy as np
    import pyproj
    import shapely

    transform = file.transform
    if not file.crs or transform.is_identity:
        lacks = "no CRS" if not file.crs else "no geotransform"
        raise CatalogError(f"file {href}", f"has {lacks}, so nobody knows where it lies; georeference it")
    crs = pyproj.CRS.from_user_input(file.crs)
    epsg = crs.to_epsg()
    rows, cols = file.shape
    outline = shapely.Polygon([transform * corner for corner in ((0, 0), (cols, 0), (cols, rows), (0, rows))])
    # Straight edges of the file are curves in degrees.
    outline = shapely.segmentize(outline, shapely.length(outline) / 40)
    to_degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    footprint = shapely.transform(outline, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1])))
    asset: Item = {
        "href": href,
        "roles": ["data"],
        "proj:transform": list(transform)[:6],
        "proj:shape": [rows, cols],
        "raster:bands": [
            {"data_type": dtype} | ({} if nodata is None else {"nodata": nodata})
            for dtype, nodata in zip(file.dtypes, file.nodatavals, strict=True)
        ],
    }
    asset |= {"proj:code": f"EPSG:{epsg}"} if epsg is not None else {"proj:wkt2": crs.to_wkt()}
    return asset, footprint
