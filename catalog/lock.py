"""The lock: the frozen answer of the catalogs, one row an item, as stac-geoparquet (``scenes.parquet``).

A build reads only the lock. Scenes come back from it alone: what a file's header had to tell is stored in the asset
(``proj:code``, ``proj:transform``, ``proj:shape``), what we decided stands in the columns ``curate:*``. Of an item's
assets only those that are read are kept, and of its links only where it came from.
"""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from catalog.filters import parse_time
from catalog.scene import Asset, Radiometry, Scene
from catalog.search import item_geometry, no_collector
from curate.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

Status = Literal["used", "dropped"]

_TIMES = ("datetime", "start_datetime", "end_datetime", "created", "updated")
_TEXTS = ("platform", "constellation", "grid:code", "sat:orbit_state", "s2:processing_baseline", "processing:version")
_NUMBERS = ("eo:cloud_cover", "gsd", "view:sun_elevation", "view:sun_azimuth")
_COUNTS = ("sat:relative_orbit", "sat:absolute_orbit")
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_FILE = "scenes.parquet"


@dataclass(frozen=True, slots=True)
class LockedItem:
    """One item of the search result, used or dropped, and why."""

    item: Mapping[str, Any]
    """The STAC item; read back from a lock, it has only the assets and links that the lock keeps."""
    source: str
    """Name of the source in the recipe."""
    status: Status
    reason: str = ""
    """Why it was dropped; empty when used."""
    scene: Scene | None = None
    """What is read; None for an item that no scene could be made of."""


def scenes_from_lock(rows: Iterable[LockedItem], source: str) -> tuple[Scene, ...]:
    """The scenes of one source that are to be used, in the order of the lock."""
    return tuple(row.scene for row in rows if row.source == source and row.status == "used" and row.scene is not None)


@dataclass(frozen=True, slots=True)
class Change:
    """One item that is in two locks and is not the same in both."""

    source: str
    id: str
    what: tuple[str, ...]
    """One phrase a difference: ``baseline 02.14, now 05.00``."""


@dataclass(frozen=True, slots=True)
class LockDiff:
    """What moved in the catalogs between two locks."""

    added: tuple[LockedItem, ...]
    removed: tuple[LockedItem, ...]
    changed: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def lines(self) -> tuple[str, ...]:
        """One line an item, to be printed: ``+ s2 S2A_…``, ``- s2 …``, ``~ s2 …: baseline 02.14, now 05.00``."""
        return (
            *(f"+ {row.source} {row.item['id']}{_dropped(row)}" for row in self.added),
            *(f"- {row.source} {row.item['id']}{_dropped(row)}" for row in self.removed),
            *(f"~ {change.source} {change.id}: {'; '.join(change.what)}" for change in self.changed),
        )


def compare_locks(old: Iterable[LockedItem], new: Iterable[LockedItem]) -> LockDiff:
    """What a new search found that the lock does not have, what is gone, and what changed; each in order of source, id.

    Two rows are of one item when source and id are the same. What no build would notice (links, properties that
    nothing reads) is no change.
    """
    before = {(row.source, str(row.item["id"])): row for row in old}
    after = {(row.source, str(row.item["id"])): row for row in new}
    changes = (
        Change(*key, what) for key in sorted(before.keys() & after.keys()) if (what := _moved(before[key], after[key]))
    )
    return LockDiff(
        added=tuple(after[key] for key in sorted(after.keys() - before.keys())),
        removed=tuple(before[key] for key in sorted(before.keys() - after.keys())),
        changed=tuple(changes),
    )


def _dropped(row: LockedItem) -> str:
    return f" (not used: {row.reason})" if row.status == "dropped" else ""


def _moved(old: LockedItem, new: LockedItem) -> tuple[str, ...]:
    what = []
    if (old.status, old.reason) != (new.status, new.reason):
        what.append(f"{old.status}, now {new.status}{f' ({new.reason})' if new.reason else ''}")
    if (old.scene is None) != (new.scene is None):
        what.append("no scene before" if old.scene is None else "no scene any more")
    if old.scene is None or new.scene is None:
        return tuple(what)
    for name in ("baseline", "acquired", "acquisition", "platform", "tile", "orbit", "cloud_pct", "radiometry"):
        before, now = getattr(old.scene, name), getattr(new.scene, name)
        if name == "radiometry":
            before, now = before.why, now.why
        if before != now:
            what.append(f"{name.replace('_', ' ')} {before}, now {now}")
    assets = {asset.band: asset for asset in old.scene.assets}
    for asset in new.scene.assets:
        was = assets.pop(asset.band, None)
        if was is None:
            what.append(f"band {asset.band} is new")
            continue
        parts = [
            name
            for name in ("href", "epsg", "transform", "shape", "dtype", "nodata", "layer")
            if not _same(getattr(was, name), getattr(asset, name))
        ]
        if parts:
            what.append(f"{', '.join(parts)} of {asset.band}")
    what += [f"band {band} is gone" for band in assets]
    # Reprocessed in place: the address stays, the pixels do not.
    updated = tuple(_time(row.item["properties"].get("updated")) for row in (old, new))
    if updated[0] != updated[1]:
        what.append(f"updated {updated[0]}, now {updated[1]}")
    return tuple(what)


def _same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # NaN is the void of some files


def _time(text: Any) -> str:
    # A lock gives times back with another number of digits than the catalog did.
    return f"{parse_time(text):%Y-%m-%dT%H:%M:%S}" if text else "never"


def lock_bytes(rows: Sequence[LockedItem]) -> bytes:
    """The lock as one stac-geoparquet file (version 1.1.0): the same rows give the same bytes."""
    import pyarrow as pa

    with no_collector():
        footprints = [row.scene.footprint if row.scene else item_geometry(row.item) for row in rows]
        columns = {**_item_columns(rows, footprints), **_property_columns(rows), **_curate_columns(rows)}
    metadata = {"geo": json.dumps(_geo(footprints)), "stac-geoparquet": json.dumps({"version": "1.1.0"})}
    return _file_of(pa.table(columns).replace_schema_metadata(metadata))


@dataclass(frozen=True, slots=True)
class SceneShift:
    """How far the acquisition of a scene was found to lie off its reference."""

    east_m: float | None
    """The pixels of the scene lie so far east of where they should be; None when it could not be measured."""
    north_m: float | None
    error_m: float | None
    """Standard error."""
    places: int
    """Places on which it was measured."""
    left_m: float | None
    """Length of what is left once everything was undone; None when that could not be measured."""
    undone: bool
    """Whether the pixels of the dataset were moved back by it."""
    reason: str
    """Why it was not undone; empty when it was."""


def with_shifts(lock: bytes, shifts: Mapping[str, Mapping[str, SceneShift]]) -> bytes:
    """The lock with what was measured of its scenes as further columns, ``curate:shift_*``; null for all others.

    What ``read_lock`` reads is the same, so it is still a lock.

    Args:
        lock: From ``lock_bytes``.
        shifts: By source and acquisition.

    Raises:
        StoreError: not a lock, or a damaged one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(pa.BufferReader(lock)).read(use_threads=False)
    told = [
        shifts.get(row.source, {}).get(row.scene.acquisition) if row.status == "used" and row.scene else None
        for row in read_lock(lock)
    ]
    kinds = {
        "east_m": pa.float64(), "north_m": pa.float64(), "error_m": pa.float64(), "left_m": pa.float64(),
        "places": pa.int32(), "undone": pa.bool_(), "reason": pa.string(),
    }  # fmt: skip
    for name, kind in kinds.items():
        values = pa.array([None if shift is None else getattr(shift, name) for shift in told], kind)
        table = table.append_column(f"curate:shift_{name}", values)
    return _file_of(table)


def _file_of(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=3, row_group_size=50_000)
    return sink.getvalue()


def read_lock(data: bytes) -> tuple[LockedItem, ...]:
    """The rows of a lock, with their scenes.

    Raises:
        StoreError: not a lock, or a damaged one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # No threads: one of Arrow's may let go of the buffer while Python shuts down, and then the process aborts.
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(_FILE, f"is not a Parquet file, or is damaged: {error}") from error
    missing = [name for name in ("id", "assets", "curate:source", "curate:bands") if name not in table.column_names]
    if missing:
        raise StoreError(_FILE, f"is not a lock of curate: columns {', '.join(missing)} are missing")
    with no_collector():
        return tuple(_rows(table.combine_chunks()))


# -- writing ----------------------------------------------------------------------------------------------------------


def _item_columns(rows: Sequence[LockedItem], footprints: Sequence[Any]) -> dict[str, pa.Array]:
    import pyarrow as pa
    import shapely

    bounds = [None if geometry is None or geometry.is_empty else geometry.bounds for geometry in footprints]
    box = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
    link = pa.struct([("href", pa.string()), ("rel", pa.string()), ("type", pa.string()), ("title", pa.string())])
    return {
        "stac_version": pa.array([str(row.item.get("stac_version", "1.1.0")) for row in rows], pa.string()),
        "stac_extensions": pa.array([_extensions(row) for row in rows], pa.list_(pa.string())),
        "id": pa.array([str(row.item["id"]) for row in rows], pa.string()),
        "geometry": pa.array(
            [None if geometry is None else shapely.to_wkb(geometry) for geometry in footprints], pa.binary()
        ),
        "bbox": pa.array(
            [None if box is None else dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in bounds],
            box,
        ),
        "links": pa.array([_links(row.item) for row in rows], pa.list_(link)),
        "assets": _asset_column(rows),
        "collection": pa.array([row.item.get("collection") for row in rows], pa.string()),
    }


def _extensions(row: LockedItem) -> list[str]:
    """The item's extensions, and the projection extension in which we write the grids of its assets."""
    declared = [str(one) for one in row.item.get("stac_extensions") or ()]
    return declared if row.scene is None else [*(one for one in declared if "/projection/" not in one), _PROJECTION]


def _links(item: Mapping[str, Any]) -> list[dict[str, str]]:
    kept = [link for link in item.get("links") or () if link.get("rel") in ("self", "collection")]
    return [{name: str(link[name]) for name in ("href", "rel", "type", "title") if link.get(name)} for link in kept]


def _asset_column(rows: Sequence[LockedItem]) -> pa.StructArray:
    """One struct a row with a field for each asset key; all assets have the same fields, so the schema stays small."""
    import pyarrow as pa

    kinds = {
        "href": pa.string(),
        "type": pa.string(),
        "title": pa.string(),
        "roles": pa.list_(pa.string()),
        "proj:code": pa.string(),
        "proj:wkt2": pa.string(),
        "proj:transform": pa.list_(pa.float64()),
        "proj:shape": pa.list_(pa.int64()),
        "file:size": pa.int64(),
    }
    by_key: dict[str, dict[int, dict[str, Any]]] = {}
    for at, row in enumerate(rows):
        for asset in row.scene.assets if row.scene else ():
            said = row.item["assets"][asset.key]
            by_key.setdefault(asset.key, {})[at] = {
                "href": asset.href,
                "type": _text(said.get("type")),
                "title": _text(said.get("title")),
                "roles": [str(role) for role in said.get("roles") or ()],
                "proj:code": f"EPSG:{asset.epsg}" if asset.epsg else None,
                "proj:wkt2": asset.wkt,
                "proj:transform": list(asset.transform),
                "proj:shape": list(asset.shape),
                "file:size": said["file:size"] if isinstance(said.get("file:size"), int) else None,
            }
    # Parquet has no empty struct, so a lock without any asset gets one that is null everywhere.
    keys = sorted(by_key) or ["data"]
    one = pa.struct(list(kinds.items()))
    fields = []
    for key in keys:
        held = by_key.get(key, {})
        present = [at in held for at in range(len(rows))]
        arrays = [
            pa.array([held[at][name] if at in held else None for at in range(len(rows))], kind)
            for name, kind in kinds.items()
        ]
        mask = pa.array([not is_here for is_here in present], pa.bool_())
        fields.append(pa.StructArray.from_arrays(arrays, fields=list(one), mask=mask))
    return pa.StructArray.from_arrays(fields, names=keys)


def _property_columns(rows: Sequence[LockedItem]) -> dict[str, pa.Array]:
    """The properties that tools filter by as typed columns, the rest as JSON: catalogs disagree on their types."""
    import pyarrow as pa

    columns: dict[str, pa.Array] = {}
    properties = [row.item["properties"] for row in rows]
    for name in _TIMES:
        times = [parse_time(one[name]) if one.get(name) else None for one in properties]
        columns[name] = pa.array(times, pa.timestamp("us", tz="UTC"))
    for name in _TEXTS:
        columns[name] = pa.array([_text(one.get(name)) for one in properties], pa.string())
    for name in _NUMBERS:
        columns[name] = pa.array([_number(one.get(name)) for one in properties], pa.float64())
    for name in _COUNTS:
        numbers = [_number(one.get(name)) for one in properties]
        columns[name] = pa.array([None if number is None else int(number) for number in numbers], pa.int64())
    typed = {*_TIMES, *_TEXTS, *_NUMBERS, *_COUNTS}
    rest = [{name: value for name, value in one.items() if name not in typed} for one in properties]
    columns["curate:properties"] = pa.array(
        [json.dumps(one, sort_keys=True, separators=(",", ":")) for one in rest], pa.string()
    )
    return columns


def _curate_columns(rows: Sequence[LockedItem]) -> dict[str, pa.Array]:
    import pyarrow as pa

    scenes = [row.scene for row in rows]

    def of_scene(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([None if scene is None else getattr(scene, name) for scene in scenes], kind)

    def of_radiometry(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([None if scene is None else getattr(scene.radiometry, name) for scene in scenes], kind)

    band = pa.struct(
        [
            ("name", pa.string()),
            ("key", pa.string()),
            ("layer", pa.int64()),
            ("dtype", pa.string()),
            ("nodata", pa.float64()),
        ]
    )
    bands = [
        None
        if scene is None
        else [
            {"name": one.band, "key": one.key, "layer": one.layer, "dtype": one.dtype, "nodata": one.nodata}
            for one in scene.assets
        ]
        for scene in scenes
    ]
    return {
        "curate:source": pa.array([row.source for row in rows], pa.string()),
        "curate:status": pa.array([row.status for row in rows], pa.string()),
        "curate:reason": pa.array([row.reason for row in rows], pa.string()),
        "curate:collection": of_scene("collection", pa.string()),
        "curate:acquired": of_scene("acquired", pa.timestamp("us", tz="UTC")),
        "curate:acquisition": of_scene("acquisition", pa.string()),
        "curate:offset_dn": of_radiometry("offset_dn", pa.int64()),
        "curate:scale": of_radiometry("scale", pa.float64()),
        "curate:offset": of_radiometry("offset", pa.float64()),
        "curate:radiometry": of_radiometry("why", pa.string()),
        "curate:platform": of_scene("platform", pa.string()),
        "curate:tile": of_scene("tile", pa.string()),
        "curate:orbit": of_scene("orbit", pa.string()),
        "curate:relative_orbit": of_scene("relative_orbit", pa.int64()),
        "curate:baseline": of_scene("baseline", pa.string()),
        "curate:cloud_pct": of_scene("cloud_pct", pa.float64()),
        "curate:signing": of_scene("signing", pa.string()),
        "curate:bands": pa.array(bands, pa.list_(band)),
    }


def _geo(footprints: Sequence[Any]) -> dict[str, Any]:
    """GeoParquet 1.1 metadata; without a ``crs`` it is OGC:CRS84, which is what STAC has."""
    import shapely

    known = [geometry for geometry in footprints if geometry is not None]
    covering = {"bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}}
    types = sorted({geometry.geom_type for geometry in known})
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": types, "covering": covering}
    if known:
        column["bbox"] = shapely.total_bounds(known).tolist()
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


# -- reading ----------------------------------------------------------------------------------------------------------


def _rows(table: pa.Table) -> Iterable[LockedItem]:
    import shapely

    columns = {name: table[name].to_pylist() for name in table.column_names if name not in ("assets", "geometry")}
    geometries = shapely.from_wkb(table["geometry"].to_pylist()) if len(table) else []
    assets = _read_assets(table)
    for at in range(len(table)):
        row = {name: values[at] for name, values in columns.items()}
        scene = _scene(row, assets[at], geometries[at]) if row["curate:bands"] is not None else None
        yield LockedItem(
            item=_item(row, assets[at], geometries[at]),
            source=row["curate:source"],
            status=row["curate:status"],
            reason=row["curate:reason"],
            scene=scene,
        )


def _read_assets(table: pa.Table) -> list[dict[str, dict[str, Any]]]:
    """For each row its assets by key."""
    import pyarrow.compute as pc

    assets: list[dict[str, dict[str, Any]]] = [{} for _ in range(len(table))]
    column = table["assets"].combine_chunks() if len(table) else None
    if column is None:
        return assets
    for key in (field.name for field in column.type):
        held = pc.struct_field(column, key)
        here = pc.indices_nonzero(held.is_valid())
        for at, asset in zip(here.to_pylist(), held.take(here).to_pylist(), strict=True):
            assets[at][key] = {name: value for name, value in asset.items() if value is not None}
    return assets


def _item(row: Mapping[str, Any], assets: Mapping[str, Any], geometry: Any) -> dict[str, Any]:
    import shapely

    properties = json.loads(row["curate:properties"])
    for name in _TIMES:
        if row[name] is not None:
            properties[name] = row[name].astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    properties.setdefault("datetime", None)
    properties |= {name: row[name] for name in (*_TEXTS, *_NUMBERS, *_COUNTS) if row[name] is not None}
    return {
        "type": "Feature",
        "stac_version": row["stac_version"],
        "stac_extensions": row["stac_extensions"],
        "id": row["id"],
        "collection": row["collection"],
        "geometry": None if geometry is None else json.loads(shapely.to_geojson(geometry)),
        "bbox": None if row["bbox"] is None else list(row["bbox"].values()),
        "properties": properties,
        "links": [{name: value for name, value in link.items() if value is not None} for link in row["links"]],
        "assets": dict(assets),
    }


def _scene(row: Mapping[str, Any], assets: Mapping[str, Any], geometry: Any) -> Scene:
    acquired = row["curate:acquired"]
    return Scene(
        id=row["id"],
        source=row["curate:source"],
        collection=row["curate:collection"],
        acquired=None if acquired is None else acquired.astimezone(dt.UTC),
        acquisition=row["curate:acquisition"],
        footprint=geometry,
        assets=tuple(_asset(band, assets[band["key"]]) for band in row["curate:bands"]),
        radiometry=Radiometry(
            scale=row["curate:scale"],
            offset_dn=row["curate:offset_dn"],
            why=row["curate:radiometry"],
            offset=row.get("curate:offset") or 0.0,  # locks of version 0.1 have none
        ),
        platform=row["curate:platform"],
        tile=row["curate:tile"],
        orbit=row["curate:orbit"],
        relative_orbit=row["curate:relative_orbit"],
        baseline=row["curate:baseline"],
        cloud_pct=row["curate:cloud_pct"],
        signing=row["curate:signing"],
    )


def _asset(band: Mapping[str, Any], asset: Mapping[str, Any]) -> Asset:
    a, b, c, d, e, f = asset["proj:transform"]
    height, width = asset["proj:shape"]
    return Asset(
        band=band["name"],
        key=band["key"],
        href=asset["href"],
        epsg=int(asset["proj:code"].removeprefix("EPSG:")) if "proj:code" in asset else 0,
        transform=(a, b, c, d, e, f),
        shape=(height, width),
        dtype=band["dtype"],
        nodata=band["nodata"],
        layer=band["layer"],
        wkt=asset.get("proj:wkt2"),
    )
