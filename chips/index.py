"""What is known about each chip, and the index that holds it: ``chips.parquet``, one row for every planned chip."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from chips.prints import Remembered
from curate.errors import StoreError

if TYPE_CHECKING:
    import geopandas
    import numpy.typing as npt
    import pyarrow
    import shapely

    from chips.storage import Storage

INDEX = "chips.parquet"
COVERAGE = "coverage.json"
"""Coverage of the whole region, by source; there where the recipe asks for it."""

Status = Literal["ok", "partial", "empty"]


@dataclass(frozen=True, slots=True)
class CoverageRecord:
    """How much of a chip is seen, and how often, over all dates of a source, whether they were used or not."""

    sc_pct: float | None
    """Spatial coverage: mean over the dates of the percentage of clear pixels; None without dates."""
    tc_pct: float | None
    """Temporal coverage: percentage of the dates that are clear enough; None without dates."""
    sca: str
    """high or low."""
    tca: str
    """high or low."""
    num_timesteps: int
    num_timesteps_above: int
    """Dates that are clear enough."""
    num_timesteps_not_full: int
    """Dates with any pixel that is not clear."""
    clear_px: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Acquisition -> clear pixels: what the coverage of a region is made of."""


@dataclass(frozen=True, slots=True)
class ShiftRecord:
    """How far the dates of one source lie off their reference on one chip, in its own pixels."""

    before_m: float | None = None
    """Median length over the dates, metres, as the scenes were; None where nothing was measured."""
    after_m: float | None = None
    """The same as the pixels are in the store, with the shifts of whole acquisitions undone."""
    dates: int = 0
    """Dates that could be measured."""
    reason: str = ""
    """Why nothing was measured; empty when something was."""


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """What one source gave to one chip."""

    clear: float = 0.0
    """Mean over the used dates or periods of the share of clear pixels, 0…1."""
    dates: tuple[dt.datetime, ...] = ()
    """UTC times of the acquisitions whose pixels are used, in order."""
    scenes: tuple[str, ...] = ()
    """Ids of the scenes used."""
    seen: int = 0
    """Dates with any pixel on the chip, used or not."""
    dropped: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Reason -> number of dates seen and not used; of years of another split, of dates that nobody looked at."""
    placed: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Scene used -> how its files, which have no grid, were placed by control points, and how well."""
    coverage: CoverageRecord | None = None
    """None where the recipe does not ask for it."""
    shift: ShiftRecord | None = None
    """Measured shifts; None for sources whose recipe asks for none."""
    remembered: Remembered | None = None
    """Means of the bands and print of the pixels."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dates", tuple(_utc(date) for date in self.dates))
        object.__setattr__(self, "scenes", tuple(self.scenes))


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """What one label says about one chip. Shares are of all pixels of the chip, so they sum to ``labelled``."""

    shares: Mapping[int, float] = field(default_factory=dict, hash=False)
    """Class code -> share of the chip's pixels; the ignore value is not a class."""
    labelled: float = 0.0
    """Share of the chip's pixels that have a class, or whatever else the label tells."""
    values: Mapping[str, float] = field(default_factory=dict, hash=False)
    """What else was counted or measured: agreement, changed share, number of instances."""
    classes: tuple[int, ...] = ()
    """Codes that hold for the chip as a whole, where the label says so."""
    text: str = ""
    """Words about the chip, where the label gives them."""
    reason: str = ""
    """Why the chip has less of this label than was asked for; an empty string when it has enough."""
    rows: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """What a table of the label says about the objects of the chip, JSON values by column; not in the index."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(int(code) for code in self.classes))


@dataclass(frozen=True, slots=True)
class ChipRecord:
    """One row of the index: where a chip is, what became of it and why."""

    chip: str
    """Id of the chip, unique in the dataset."""
    shard: int
    split: str
    """train, val, test or buffer."""
    status: Status
    """ok: every source has pixels; partial: some have; empty: none has. Empty chips keep their row and cost nothing."""
    reason: str
    """Which sources have no pixels, and why; an empty string for ``ok``."""
    cover: float
    """Share of the chip that lies in the area of interest, 0…1."""
    epsg: int
    col: int
    row: int
    x0: float
    """Easting of the upper-left corner, metres in ``epsg``."""
    y0: float
    """Northing of the upper-left corner, metres in ``epsg``."""
    lon: float
    """Longitude of the centre, degrees, EPSG:4326."""
    lat: float
    """Latitude of the centre, degrees, EPSG:4326."""
    sources: Mapping[str, SourceRecord] = field(default_factory=dict, hash=False)
    labels: Mapping[str, LabelRecord] = field(default_factory=dict, hash=False)
    fold: int | None = None
    """Fold of a split by folds, from 1, 0 where the chip is left out; None where the rule has no folds."""
    sampled_by: str = ""
    """Why this chip was taken; an empty string where all chips of the area are."""
    sample_weight: float | None = None
    """How many chips of the area it stands for; None where that has no meaning."""

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back to an equal record."""
        sampled = {"sampled_by": self.sampled_by, "sample_weight": self.sample_weight}
        return {
            **(sampled if self.sampled_by else {}),
            "chip": self.chip,
            "shard": int(self.shard),
            "split": str(self.split),
            "status": self.status,
            "reason": self.reason,
            "cover": float(self.cover),
            "epsg": int(self.epsg),
            "col": int(self.col),
            "row": int(self.row),
            "x0": float(self.x0),
            "y0": float(self.y0),
            "lon": float(self.lon),
            "lat": float(self.lat),
            "sources": {
                name: {
                    "clear": float(source.clear),
                    "dates": [date.isoformat() for date in source.dates],
                    "scenes": list(source.scenes),
                    "seen": int(source.seen),
                    "dropped": {reason: int(count) for reason, count in source.dropped.items()},
                    "placed": dict(source.placed),
                    "coverage": None if source.coverage is None else dataclasses.asdict(source.coverage),
                    **({} if source.shift is None else {"shift": dataclasses.asdict(source.shift)}),
                    **_remembered_json(source.remembered),
                }
                for name, source in self.sources.items()
            },
            **({} if self.fold is None else {"fold": int(self.fold)}),
            "labels": {
                name: {
                    # JSON keys are text; pairs keep the codes numbers.
                    "shares": [[int(code), float(share)] for code, share in sorted(label.shares.items())],
                    "labelled": float(label.labelled),
                    "values": {what: float(value) for what, value in sorted(label.values.items())},
                    "classes": list(label.classes),
                    "text": label.text,
                    "reason": label.reason,
                    "rows": [dict(row) for row in label.rows],
                }
                for name, label in self.labels.items()
            },
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ChipRecord:
        """The record that ``to_json`` described."""
        sources = {
            name: SourceRecord(
                clear=source["clear"],
                dates=tuple(dt.datetime.fromisoformat(date) for date in source["dates"]),
                scenes=tuple(source["scenes"]),
                seen=source["seen"],
                dropped=dict(source["dropped"]),
                placed=dict(source["placed"]),
                coverage=None if source["coverage"] is None else CoverageRecord(**source["coverage"]),
                shift=ShiftRecord(**source["shift"]) if "shift" in source else None,
                remembered=_remembered(source),
            )
            for name, source in found["sources"].items()
        }
        labels = {
            name: LabelRecord(**{**label, "shares": dict(label["shares"]), "rows": tuple(label["rows"])})
            for name, label in found["labels"].items()
        }
        return cls(**{**found, "sources": sources, "labels": labels})


def _remembered_json(found: Remembered | None) -> dict[str, Any]:
    if found is None:
        return {}
    # NaN is no JSON.
    return {"means": [None if math.isnan(mean) else mean for mean in found.means], "print": found.print}


def _remembered(source: Mapping[str, Any]) -> Remembered | None:
    if "means" not in source:
        return None
    return Remembered(tuple(math.nan if mean is None else mean for mean in source["means"]), source["print"])


def index_bytes(records: Sequence[ChipRecord], footprints: Sequence[shapely.Geometry]) -> bytes:
    """The index as GeoParquet 1.1: row i is chip i of the store. Equal records give equal bytes.

    Beside the plain fields there are ``fold`` where splits have folds, ``sampled_by`` and ``sample_weight`` where only
    some chips of an area were taken, and for a source ``s2`` the columns
    ``s2_clear``, ``s2_dates`` (list of UTC times), ``s2_scenes``, ``s2_seen`` and ``s2_dropped`` (map reason -> dates),
    where there is any ``s2_placed`` (map scene -> how), the coverage (``s2_sc_pct`` …, ``s2_clear_px``: map acquisition
    -> pixels), ``s2_means`` (list: mean of each band) and ``s2_print`` (``chips.prints``), and where shifts were
    measured ``s2_shift_m``, ``s2_shift_left_m`` (undone), ``s2_shift_dates`` and ``s2_shift_reason``. For a label
    ``fields`` the columns are ``fields_labelled`` and ``fields_shares`` (map code -> share), and where it has them
    ``fields_values`` (map what -> number), ``fields_classes`` (list of codes), ``fields_text`` and ``fields_reason``.

    Args:
        records: One for every planned chip, in the order of the store.
        footprints: The outline of each, EPSG:4326 in the order lon, lat.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    if len(records) != len(footprints):
        raise ValueError(f"{len(records)} records and {len(footprints)} footprints were given")
    outlines = np.asarray(footprints, dtype=object)
    columns: dict[str, pyarrow.Array] = {
        name: pa.array([getattr(record, name) for record in records], kind) for name, kind in _plain_columns().items()
    }
    if any(record.fold is not None for record in records):
        columns["fold"] = pa.array([record.fold for record in records], pa.int32())
    if any(record.sampled_by for record in records):
        columns["sampled_by"] = pa.array([record.sampled_by for record in records], pa.string())
        columns["sample_weight"] = pa.array([record.sample_weight for record in records], pa.float64())
    for name in _names(record.sources for record in records):
        sources = [record.sources.get(name) for record in records]
        columns |= {
            f"{name}_clear": pa.array([s and s.clear for s in sources], pa.float32()),
            f"{name}_dates": pa.array([s and s.dates for s in sources], pa.list_(pa.timestamp("us", "UTC"))),
            f"{name}_scenes": pa.array([s and s.scenes for s in sources], pa.list_(pa.string())),
            f"{name}_seen": pa.array([s and s.seen for s in sources], pa.int32()),
            f"{name}_dropped": pa.array(
                [s and sorted(s.dropped.items()) for s in sources], pa.map_(pa.string(), pa.int32())
            ),
        }
        if any(s is not None and s.placed for s in sources):
            placed = [s and sorted(s.placed.items()) for s in sources]
            columns[f"{name}_placed"] = pa.array(placed, pa.map_(pa.string(), pa.string()))
        if any(s is not None and s.coverage is not None for s in sources):
            columns |= _coverage_columns(name, [None if s is None else s.coverage for s in sources])
        if any(s is not None and s.remembered is not None for s in sources):
            kept = [s and s.remembered for s in sources]
            columns[f"{name}_means"] = pa.array([r and r.means for r in kept], pa.list_(pa.float32()))
            prints = [bytes.fromhex(r.print) if r and r.print else None for r in kept]
            columns[f"{name}_print"] = pa.array(prints, pa.binary())
        shifts = [s and s.shift for s in sources]
        if any(shifts):
            columns |= {
                f"{name}_shift_m": pa.array([v and v.before_m for v in shifts], pa.float32()),
                f"{name}_shift_left_m": pa.array([v and v.after_m for v in shifts], pa.float32()),
                f"{name}_shift_dates": pa.array([v and v.dates for v in shifts], pa.int32()),
                f"{name}_shift_reason": pa.array([v and v.reason for v in shifts], pa.string()),
            }
    for name in _names(record.labels for record in records):
        labels = [record.labels.get(name) for record in records]
        columns |= {
            f"{name}_labelled": pa.array([v and v.labelled for v in labels], pa.float32()),
            f"{name}_shares": pa.array(
                [v and sorted(v.shares.items()) for v in labels], pa.map_(pa.int32(), pa.float32())
            ),
        }
        # Only the columns that a label has something to say in.
        if any(v and v.values for v in labels):
            pairs = [v and sorted(v.values.items()) for v in labels]
            columns[f"{name}_values"] = pa.array(pairs, pa.map_(pa.string(), pa.float64()))
        if any(v and v.classes for v in labels):
            columns[f"{name}_classes"] = pa.array([v and v.classes for v in labels], pa.list_(pa.int32()))
        for column in ("text", "reason"):
            if any(v and getattr(v, column) for v in labels):
                columns[f"{name}_{column}"] = pa.array([v and getattr(v, column) for v in labels], pa.string())
    corners = shapely.bounds(outlines).reshape(-1, 4)
    sides = ("xmin", "ymin", "xmax", "ymax")
    columns["bbox"] = pa.StructArray.from_arrays([pa.array(corners[:, i]) for i in range(4)], list(sides))
    columns["geometry"] = pa.array(shapely.to_wkb(outlines), pa.binary())
    table = pa.table(columns).replace_schema_metadata({"geo": json.dumps(_geo(outlines, corners), sort_keys=True)})
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", row_group_size=32_768)
    return out.getvalue()


def _coverage_columns(source: str, found: Sequence[CoverageRecord | None]) -> dict[str, pyarrow.Array]:
    import pyarrow as pa

    kinds = {
        **dict.fromkeys(("sc_pct", "tc_pct"), pa.float32()),
        **dict.fromkeys(("sca", "tca"), pa.string()),
        **dict.fromkeys(("num_timesteps", "num_timesteps_above", "num_timesteps_not_full"), pa.int32()),
    }
    columns = {
        f"{source}_{name}": pa.array([None if one is None else getattr(one, name) for one in found], kind)
        for name, kind in kinds.items()
    }
    clear = [None if one is None else sorted(one.clear_px.items()) for one in found]
    return {**columns, f"{source}_clear_px": pa.array(clear, pa.map_(pa.string(), pa.int32()))}


def table_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A table about objects as Parquet: a column a key, null where a row lacks it; pairs of numbers become a map."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, pyarrow.Array] = {}
    for name in _names(rows):
        values = [row.get(name) for row in rows]
        if pairs := any(isinstance(value, list) for value in values):
            values = [value and [tuple(pair) for pair in value] for value in values]
        columns[name] = pa.array(values, pa.map_(pa.int32(), pa.float64()) if pairs else None)
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()


def read_index(data: bytes) -> geopandas.GeoDataFrame:
    """The index as a table: maps are lists of pairs, dates UTC, geometry EPSG:4326."""
    import geopandas
    import shapely

    table = read_table(data).drop_columns("bbox").to_pandas()
    return geopandas.GeoDataFrame(table, geometry=shapely.from_wkb(table["geometry"].to_numpy()), crs="EPSG:4326")


def read_table(data: bytes) -> pyarrow.Table:
    """The index as an Arrow table, as it is stored."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # No threads: one of Arrow's may let go of the buffer while Python shuts down, and then the process aborts.
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def stored_table(storage: Storage) -> pyarrow.Table:
    """The index of a published dataset. Raises StoreError when it is gone or damaged."""
    data = storage.get(INDEX)
    if data is None:
        raise StoreError(storage.url, f"{INDEX} is missing; the dataset is damaged, 'curate check' tells what else is")
    try:
        return read_table(data)
    except (ValueError, OSError) as error:
        raise StoreError(storage.url, f"{INDEX} is damaged: {error}; 'curate check' tells what else is") from error


def _plain_columns() -> dict[str, pyarrow.DataType]:
    import pyarrow as pa

    text, number, real = pa.string(), pa.int32(), pa.float64()
    return {
        "chip": text, "shard": number, "split": text, "status": text, "reason": text, "cover": real, "epsg": number,
        "col": number, "row": number, "x0": real, "y0": real, "lon": real, "lat": real,
    }  # fmt: skip


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names that stand in any mapping, in the order they are first seen."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _geo(outlines: npt.NDArray[Any], corners: npt.NDArray[Any]) -> dict[str, Any]:
    """The ``geo`` metadata of GeoParquet 1.1, https://geoparquet.org/releases/v1.1.0/."""
    import pyproj
    import shapely

    names = {shapely.GeometryType.POLYGON: "Polygon", shapely.GeometryType.MULTIPOLYGON: "MultiPolygon"}
    kinds = sorted({names[shapely.GeometryType(kind)] for kind in set(shapely.get_type_id(outlines).tolist())})
    whole = [*corners[:, :2].min(axis=0).tolist(), *corners[:, 2:].max(axis=0).tolist()] if len(corners) else []
    column = {
        "encoding": "WKB",
        "geometry_types": kinds,
        # Written out: without it a reader takes OGC:CRS84, which geopandas does not hold equal to EPSG:4326.
        "crs": pyproj.CRS.from_epsg(4326).to_json_dict(),
        "bbox": whole,
        "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
    }
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _utc(date: dt.datetime) -> dt.datetime:
    """The same moment with the zone UTC; a time without a zone is taken as UTC."""
    return date.replace(tzinfo=dt.UTC) if date.tzinfo is None else date.astimezone(dt.UTC)
