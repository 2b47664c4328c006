"""What a dataset holds, in plain values, without reading a pixel; an unfinished build as well as a published one."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from chips.index import COVERAGE, INDEX, ChipRecord, read_table
from chips.layout import LAYOUT_VERSION, STORE, Layout
from chips.manifest import STATISTICS, Manifest, Written, read_manifest
from chips.metadata import shape_of
from chips.storage import Storage
from chips.write import journal, open_build
from curate.errors import StoreError


@dataclass(frozen=True, slots=True)
class VariableInfo:
    """One array."""

    group: str
    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What one source gave over all chips."""

    dates: int
    """Different acquisition times."""
    first: dt.datetime | None
    last: dt.datetime | None
    scenes: int
    """Different scenes."""
    clear: float
    """Mean over the chips that have pixels of the share of clear pixels."""


@dataclass(frozen=True, slots=True)
class Info:
    """A dataset at a glance. Of an unfinished build, counts are of what is there already."""

    url: str
    state: Literal["published", "unfinished"]
    curate: str | None
    """Version that published it."""
    layout_version: int
    fingerprint: str
    chips: int
    shards: int
    shards_done: int
    variables: tuple[VariableInfo, ...]
    splits: Mapping[str, int]
    status: Mapping[str, int]
    reasons: Mapping[str, int]
    """Why chips are empty."""
    sources: Mapping[str, SourceInfo]
    coverage: Mapping[str, Mapping[str, Any]]
    """How much of the region is seen, by source, where the recipe asks for it; of a published dataset."""
    statistics: Mapping[str, Any] | None
    """The main numbers of ``statistics.json``: mean and standard deviation by source and band, and shares of classes
    by label, both of the training split. None for an unfinished build, and for a dataset that has none."""
    files: Mapping[str, int]
    """Files beside the store and their sizes."""
    stored_bytes: int
    """Everything, coordinates and files included."""

    @property
    def raw_bytes(self) -> int:
        """Size of all arrays without compression."""
        return sum(variable.raw_bytes for variable in self.variables)

    @property
    def ratio(self) -> float:
        """Raw size of the arrays over their stored size; 0 while nothing is stored."""
        stored = sum(variable.stored_bytes for variable in self.variables)
        return self.raw_bytes / stored if stored else 0.0

    @property
    def summary(self) -> str:
        """One line: ``unfinished build: 12 of 40 shards``."""
        if self.state == "unfinished":
            return f"unfinished build: {self.shards_done} of {self.shards} shards"
        return f"dataset of {self.chips} chips in {self.shards} shards"


def describe(storage: Storage) -> Info:
    """What lies in an output folder.

    Raises:
        StoreError: Neither a dataset nor an unfinished build is there, or its manifest is damaged.
    """
    build = open_build(storage)
    if build is not None:
        shards = list(journal(build))
        objects = [written for shard in shards for written in shard.objects]
        records = [record for shard in shards for record in shard.chips]
        return _info(storage, build.layout, build.fingerprint, len(shards), objects, _of_records(records), None)
    manifest = read_manifest(storage)
    if manifest is None:
        raise StoreError(storage.url, f"there is no dataset and no unfinished build here ({STORE} was looked for)")
    objects = [written for shard in manifest.shards for written in shard.objects]
    counts = _of_index(storage, [group.name for group in manifest.layout.groups])
    return _info(storage, manifest.layout, manifest.fingerprint, len(manifest.shards), objects, counts, manifest)


@dataclass(frozen=True, slots=True)
class _Counts:
    splits: Mapping[str, int]
    status: Mapping[str, int]
    reasons: Mapping[str, int]
    sources: Mapping[str, SourceInfo]


def _info(
    storage: Storage,
    layout: Layout,
    fingerprint: str,
    done: int,
    objects: Iterable[Written],
    counts: _Counts,
    manifest: Manifest | None,
) -> Info:
    stored: Counter[str] = Counter()
    for written in objects:
        stored[written.key.rpartition("/c/")[0]] += written.size
    chips = layout.n_chips if manifest is not None else min(done * layout.shard_chips, layout.n_chips)
    variables = []
    for variable in layout.variables:
        shape = (chips, *shape_of(variable, layout)[1:])
        cells = variable.bytes_per_chip
        for dim, length in variable.axes():
            if dim == "time":
                cells = cells // length * shape[1 + variable.dims.index("time")]
        variables.append(
            VariableInfo(
                group=variable.group,
                name=variable.name,
                dims=("chip", *variable.dims),
                shape=shape,
                dtype=variable.dtype,
                raw_bytes=chips * cells,
                stored_bytes=stored[variable.path],
            )
        )
    return Info(
        url=storage.url,
        state="unfinished" if manifest is None else "published",
        curate=None if manifest is None else manifest.curate,
        layout_version=LAYOUT_VERSION,
        fingerprint=fingerprint,
        chips=layout.n_chips,
        shards=layout.n_shards,
        shards_done=done,
        variables=tuple(variables),
        splits=counts.splits,
        status=counts.status,
        reasons=counts.reasons,
        sources=counts.sources,
        coverage=_json(storage, COVERAGE) or {} if manifest is not None else {},
        statistics=_main_numbers(storage) if manifest is not None else None,
        files={} if manifest is None else {written.key: written.size for written in manifest.files},
        stored_bytes=stored.total() if manifest is None else sum(w.size for w in manifest.objects().values()),
    )


def _json(storage: Storage, name: str) -> dict[str, Any] | None:
    data = storage.get(name)
    try:
        return None if data is None else dict(json.loads(data))
    except ValueError as error:
        raise StoreError(storage.url, f"{name} is not JSON, or is damaged: {error}") from error


def _main_numbers(storage: Storage) -> dict[str, Any] | None:
    found = _json(storage, STATISTICS)
    if found is None:
        return None
    try:
        bands = {
            group: {name: {key: band[key] for key in ("mean", "std", "units")} for name, band in bands.items()}
            for group, bands in found["normalisation"].items()
        }
        labels = {}
        for name, label in found["labels"].items():
            classes = label["splits"].get("train", {}).get("classes", {})
            shares = {told["name"] or code: told["share"] for code, told in classes.items() if told["share"]}
            if shares:
                labels[name] = dict(sorted(shares.items(), key=lambda pair: -pair[1]))
        return {"bands": bands, "classes": labels}
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(storage.url, f"{STATISTICS} is of another release, or is damaged: {error!r}") from error


def _of_records(records: list[ChipRecord]) -> _Counts:
    names = dict.fromkeys(name for record in records for name in record.sources)
    sources = {}
    for name in names:
        found = [record.sources[name] for record in records if name in record.sources]
        sources[name] = _source(
            [date for source in found for date in source.dates],
            [scene for source in found for scene in source.scenes],
            [source.clear for source in found if source.scenes],
        )
    return _Counts(
        splits=_count(record.split for record in records),
        status=_count(record.status for record in records),
        reasons=_count(record.reason for record in records if record.reason),
        sources=sources,
    )


def _of_index(storage: Storage, groups: list[str]) -> _Counts:
    data = storage.get(INDEX)
    if data is None:
        return _Counts({}, {}, {}, {})
    try:
        table = read_table(data)
    except (ValueError, OSError) as error:
        raise StoreError(storage.url, f"{INDEX} is damaged: {error}; 'curate check' tells what else is") from error
    sources = {}
    for name in groups:
        if f"{name}_clear" in table.column_names:
            used = table[f"{name}_scenes"].combine_chunks()
            clear = zip(table[f"{name}_clear"].to_pylist(), used.value_lengths().to_pylist(), strict=True)
            sources[name] = _source(
                table[f"{name}_dates"].combine_chunks().flatten().unique().to_pylist(),
                used.flatten().unique().to_pylist(),
                [value for value, count in clear if count],
            )
    return _Counts(
        splits=_count(table["split"].to_pylist()),
        status=_count(table["status"].to_pylist()),
        reasons=_count(reason for reason in table["reason"].to_pylist() if reason),
        sources=sources,
    )


def _source(dates: list[dt.datetime], scenes: list[str], clear: list[float]) -> SourceInfo:
    return SourceInfo(
        dates=len(set(dates)),
        first=min(dates, default=None),
        last=max(dates, default=None),
        scenes=len(set(scenes)),
        clear=sum(clear) / len(clear) if clear else 0.0,
    )


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
