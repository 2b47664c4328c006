"""Re-reads a published dataset and compares it with everything it promises: bytes, arrays, index, labels, splits.

Objects are read once each, hashed and decoded in the same go, so memory is bounded by one Zarr shard a thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chips.audit import AUDIT
from chips.index import INDEX, read_index
from chips.layout import CHIP_COORDINATES, COMMITTED, STORE, Layout, Variable
from chips.manifest import MANIFEST, STATISTICS, Manifest, Written, read_manifest
from chips.metadata import DOCUMENT, chunks, documents, shape_of
from chips.repository import SessionStorage
from chips.storage import Storage
from chips.write import JOURNAL, is_published, journal, open_build
from curate.errors import OutputError, StoreError

if TYPE_CHECKING:
    import geopandas
    import numpy as np
    import numpy.typing as npt

    from chips.statistics import Statistics

SHOWN = 10
"""Problems of one kind that are named one by one; the rest is counted."""

_LOST = "is in the commit, and the repository has lost it"

# Shares are float32 in the store and in the index, and may have been averaged in either precision.
TOLERANCE = 1e-5

# Variables whose share of pixels above 0 is the `clear` of the same chip and date.
CLEAR_FROM = ("count", "clear_mask")

SHORT_TEXT = 60
"""Characters shown of a value that differs."""

# Neighbours share an edge bit for bit in metres; in degrees the two outlines may overlap by rounding.
OVERLAP_SHARE = 1e-3


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found. No problems means that the dataset is what it promises to be."""

    problems: tuple[str, ...]
    """One sentence each."""
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Counts of what was looked at: chips, shards, objects, bytes, chips per split and status."""


def check(
    storage: Storage,
    *,
    promises: Sequence[Callable[[geopandas.GeoDataFrame], list[str]]] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Everything that is wrong with a dataset.

    Args:
        storage: The output folder.
        promises: What only the recipe knows (distances between splits, splits recomputed): each takes the index and
            returns problems.
        on_progress: Called with the number of objects read and their total.
    """
    if not is_published(storage):
        return CheckReport((_unpublished(storage),))
    try:
        manifest = read_manifest(storage)
    except StoreError as error:
        return CheckReport((error.why,))
    if manifest is None:
        return CheckReport((f"{MANIFEST} is missing, so nothing can be compared with what was written",))
    problems: list[str] = []
    problems += _check_plan(manifest)
    problems += _check_listing(storage, manifest)
    problems += _check_small_objects(storage, manifest)
    table = _read_table(storage, problems)
    seen = _Seen(manifest.layout, _label_names(table))
    recount = _Recount.of(manifest, table)
    problems += _read_pixels(storage, manifest, seen, recount, on_progress)
    problems += _check_arrays(storage, manifest.layout)
    if table is not None:
        problems += _check_coordinates(storage, manifest, table)
        if len(table) == manifest.layout.n_chips:
            problems += _check_pixels(manifest.layout, seen, table)
        problems += _check_overlaps(table)
        # What could not be read is told already; the numbers that lack it need not be.
        if recount is not None and recount.objects == sum(len(shard.objects) for shard in manifest.shards):
            problems += _check_statistics(storage, manifest.layout, recount.found, table)
        for promise in promises:
            problems += promise(table)
    return CheckReport(tuple(problems), _facts(manifest, table))


@dataclass(slots=True)
class _Seen:
    """What the pixels say, chip by chip, gathered while objects are read."""

    layout: Layout
    labels: frozenset[str]
    """Names of the variables whose classes are counted."""
    filled: dict[tuple[str, str], npt.NDArray[np.bool_]] = field(default_factory=dict)
    """(chip, time): any pixel that is not void; for variables that have a void."""
    share: dict[tuple[str, str], npt.NDArray[np.float64]] = field(default_factory=dict)
    """(chip, time): share of pixels above 0; for counts and masks."""
    most: dict[tuple[str, str], int] = field(default_factory=dict)
    """Largest value of a count."""
    values: dict[tuple[str, str], npt.NDArray[Any]] = field(default_factory=dict)
    """(chip, time) values of the small arrays."""
    classes: dict[str, dict[int, dict[int, int]]] = field(default_factory=dict)
    """Label -> chip -> code -> pixels."""

    def __post_init__(self) -> None:
        import numpy as np

        n = self.layout.n_chips
        for variable in self.layout.variables:
            steps = variable.shape[0] if variable.dims[:1] == ("time",) else 1
            if not variable.spatial:
                fill = np.nan if variable.fill == "NaN" else variable.stored_fill
                self.values[variable.key] = np.full((n, *variable.shape), fill, dtype=variable.stored_dtype)
            elif variable.void:
                self.filled[variable.key] = np.zeros((n, steps), dtype=bool)
            else:
                self.share[variable.key] = np.zeros((n, steps))
                self.most[variable.key] = 0
            if self.is_label(variable):
                self.classes[variable.name] = {}

    def is_label(self, variable: Variable) -> bool:
        """Whether the classes of a variable are counted: those of a label's class mask."""
        return variable.name in self.labels and variable.dims == ("y", "x") and variable.attrs.get("kind") == "classes"

    def add(self, variable: Variable, where: tuple[slice, ...], block: npt.NDArray[Any]) -> None:
        """Take in the values of one object."""
        import numpy as np

        chips = where[0]
        if not variable.spatial:
            self.values[variable.key][where] = block
            return
        if variable.dims[0] != "time":
            block = block[:, np.newaxis]
        steps = where[1] if variable.dims[0] == "time" else slice(0, 1)
        rest = tuple(range(2, block.ndim))
        if variable.void:
            there = ~np.isnan(block) if variable.fill == "NaN" else block != variable.fill
            self.filled[variable.key][chips, steps] = there.any(axis=rest)
        else:
            self.share[variable.key][chips, steps] = (block > 0).mean(axis=rest)
            self.most[variable.key] = max(self.most[variable.key], int(block.max()))
        if self.is_label(variable):
            for chip, pixels in zip(range(chips.start, chips.stop), block, strict=True):
                codes, counts = np.unique(pixels, return_counts=True)
                found = dict(zip(codes.tolist(), counts.tolist(), strict=True))
                found.pop(variable.fill if variable.void else None, None)
                self.classes[variable.name][chip] = found


class _Recount:
    """The statistics of a dataset, counted again shard by shard from what is stored."""

    def __init__(self, layout: Layout, splits: Sequence[str], statuses: Sequence[str]) -> None:
        from chips.statistics import Statistics

        self.layout, self.splits, self.statuses = layout, splits, statuses
        self.found = Statistics()
        self.objects = 0
        """Objects that were taken in."""
        self._lock = threading.Lock()

    @classmethod
    def of(cls, manifest: Manifest, table: geopandas.GeoDataFrame | None) -> _Recount | None:
        """None where there are no statistics to compare with, or no index that tells the splits."""
        listed = any(written.key == STATISTICS for written in manifest.files)
        if not listed or table is None or len(table) != manifest.layout.n_chips:
            return None
        return cls(manifest.layout.padded(), table["split"].tolist(), table["status"].tolist())

    def is_first(self, variable: Variable) -> bool:
        """Whether a variable decides which pixels of others count, and so must be read before them."""
        from chips.statistics import MASKS

        return variable.name == "acquired" or variable.name in MASKS

    def begin(self, chips: range) -> None:
        """Make room for what decides about the chips of one shard."""
        import numpy as np

        self.chips = chips
        # What is not stored is void: no date, nothing clear.
        self.first = {
            variable.key: np.full((len(chips), *variable.shape), variable.stored_fill, variable.stored_dtype)
            for variable in self.layout.variables
            if self.is_first(variable)
        }

    def decide(self) -> None:
        """What was added of this shard so far decides which pixels count."""
        from chips.statistics import Counter

        self.counter = Counter(
            self.layout,
            self.found,
            [self.splits[chip] for chip in self.chips],
            [self.statuses[chip] for chip in self.chips],
            {group: array for (group, name), array in self.first.items() if name == "acquired"},
            {group: array for (group, name), array in self.first.items() if name != "acquired"},
        )

    def add(self, variable: Variable, where: tuple[slice, ...], block: npt.NDArray[Any]) -> None:
        """Take in the values of one object."""
        chips = slice(where[0].start - self.chips.start, where[0].stop - self.chips.start)
        if self.is_first(variable):
            self.first[variable.key][(chips, *where[1:])] = block
        else:
            self.counter.count(variable, chips, where[1] if len(where) > 1 else slice(0, 1), block)
        with self._lock:
            self.objects += 1


def _check_statistics(
    storage: Storage, layout: Layout, found: Statistics, table: geopandas.GeoDataFrame
) -> Iterator[str]:
    """``statistics.json`` is what the pixels and the index say, to the last byte."""
    from chips.statistics import dates_of_index, statistics_bytes

    told = storage.get(STATISTICS)
    if told is None:
        return  # told by the listing
    audit = _read_json(storage.get(AUDIT) or b"")
    wanted = statistics_bytes(layout, found, dates_of_index(layout, table), audit)
    if told != wanted:
        yield from _some(_differences(json.loads(wanted), _read_json(told), STATISTICS))


def _read_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _differences(wanted: Any, told: Any, where: str) -> list[str]:
    """Where two JSON values differ, a sentence each."""
    if isinstance(wanted, dict) and isinstance(told, dict):
        keys = sorted({*wanted, *told})
        found = [_differences(wanted.get(key), told.get(key), f"{where}: {key}") for key in keys]
        return [sentence for sentences in found for sentence in sentences]
    return [] if wanted == told else [f"{where} is {_short(told)}, the pixels say {_short(wanted)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHORT_TEXT else f"{text[:SHORT_TEXT]} …"


def _unpublished(storage: Storage) -> str:
    try:
        build = open_build(storage)
    except OutputError as error:
        return error.why
    if build is not None:
        done = sum(1 for _ in journal(build))
        return (
            f"this is an unfinished build with {done} of {build.layout.n_shards} shards; run the same command again to "
            "finish it"
        )
    if JOURNAL in storage.top():
        return "this is a build that was stopped before it began; run the same command again"
    return f"there is no dataset here: {STORE}/{DOCUMENT} is missing, and so is {COMMITTED}"


def _check_plan(manifest: Manifest) -> Iterator[str]:
    """The shards of the manifest against its layout."""
    layout = manifest.layout
    if [shard.ordinal for shard in manifest.shards] != list(range(layout.n_shards)):
        yield f"{MANIFEST} lists {len(manifest.shards)} shards, its layout has {layout.n_shards}"
        return
    for shard in manifest.shards:
        wanted = layout.chips_of(shard.ordinal)
        if shard.start != wanted.start or len(shard.chips) != len(wanted):
            yield f"shard {shard.ordinal} in {MANIFEST} has not the chips {wanted.start} to {wanted.stop}"
    chips = [chip for shard in manifest.shards for chip in shard.chips]
    twice = sorted(chip for chip, count in Counter(chips).items() if count > 1)
    yield from _some(f"chip {chip} stands twice in the dataset" for chip in twice)


def _check_listing(storage: Storage, manifest: Manifest) -> Iterator[str]:
    """Every object is there with its size, and nothing else is in the store."""
    wanted = manifest.objects()
    sizes = storage.sizes()
    yield from _some([f"{key} is missing" for key in wanted if key not in sizes])
    wrong = [written for written in wanted.values() if sizes.get(written.key, written.size) != written.size]
    yield from _some([f"{w.key} has {sizes[w.key]} bytes, it was written with {w.size}" for w in wrong])
    strays = [key for key in sizes if key.startswith(f"{STORE}/") and key not in wanted]
    yield from _some([f"{key} does not belong to the dataset" for key in strays])


def _check_small_objects(storage: Storage, manifest: Manifest) -> Iterator[str]:
    """Checksums of all that is not pixels."""
    small = [*manifest.coordinates, *manifest.files, *manifest.metadata]
    with ThreadPoolExecutor(8) as pool:
        yield from _some([problem for problem in pool.map(lambda w: _checksum(storage, w), small) if problem])


def _checksum(storage: Storage, written: Written) -> str | None:
    found = storage.digest(written.key)
    if found is None and _is_lost(storage, written.key):
        return f"{written.key} {_LOST}"
    if found is None or found[0] != written.size or found[1] == written.sha256:
        return None  # missing and wrong sizes are told by the listing
    return f"{written.key} was changed: its SHA-256 is not that of the manifest"


def _is_lost(storage: Storage, key: str) -> bool:
    """Whether a commit has an object that its repository has not, which no listing of the commit tells."""
    return isinstance(storage, SessionStorage) and key in storage.sizes(key.rpartition("/c/")[0])


def _read_pixels(
    storage: Storage,
    manifest: Manifest,
    seen: _Seen,
    recount: _Recount | None,
    on_progress: Callable[[int, int], None] | None,
) -> list[str]:
    """Hash and decode every object of every shard, shard by shard; problems found on the way."""
    # Read as the shards were written: with the padded time axis, so that what trimming hides is seen too.
    layout = manifest.layout.padded()
    zarr_documents = documents(layout)
    variables = {variable.path: variable for variable in layout.variables}
    total = sum(len(shard.objects) for shard in manifest.shards)
    done = 0
    problems = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for shard in manifest.shards:
            groups: list[list[Written]] = [list(shard.objects)]
            if recount is not None:
                recount.begin(layout.chips_of(shard.ordinal))
                groups = [[], []]
                for written in shard.objects:
                    variable = variables.get(written.key.rpartition("/c/")[0])
                    groups[0 if variable is not None and recount.is_first(variable) else 1].append(written)
            for number, objects in enumerate(groups):
                if recount is not None and number == 1:
                    recount.decide()
                tasks = [
                    pool.submit(_read_object, storage, written, variables, layout, zarr_documents, seen, recount)
                    for written in objects
                ]
                for task in tasks:
                    problem = task.result()
                    if problem:
                        problems.append(f"shard {shard.ordinal}: {problem}")
                    done += 1
                    if on_progress is not None:
                        on_progress(done, total)
    return list(_some(problems))


def _read_object(
    storage: Storage,
    written: Written,
    variables: Mapping[str, Variable],
    layout: Layout,
    zarr_documents: Mapping[str, bytes],
    seen: _Seen,
    recount: _Recount | None,
) -> str | None:
    import numpy as np
    import zarr
    from zarr.core.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    path, _, chunk = written.key.rpartition("/c/")
    variable = variables.get(path)
    if variable is None:
        return f"{written.key} is of no variable of the layout"
    data = storage.get(written.key)
    if data is None and _is_lost(storage, written.key):
        return f"{written.key} {_LOST}"
    if data is None or len(data) != written.size:
        return None  # told by the listing
    if hashlib.sha256(data).hexdigest() != written.sha256:
        return f"{written.key} was changed: its SHA-256 is not that of the manifest"
    document = f"{path}/{DOCUMENT}"
    store = MemoryStore({document: Buffer.from_bytes(zarr_documents[document]), written.key: Buffer.from_bytes(data)})
    _, shape = chunks(variable, layout)
    axes = zip(map(int, chunk.split("/")), shape, shape_of(variable, layout), strict=True)
    where = tuple(slice(index * step, min((index + 1) * step, length)) for index, step, length in axes)
    try:
        block = zarr.open_array(store, path=path, mode="r", zarr_format=3)[where]
    except (ValueError, RuntimeError, OSError) as error:
        return f"{written.key} cannot be decoded: {error}"
    seen.add(variable, where, np.asarray(block))
    if recount is not None:
        recount.add(variable, where, np.asarray(block))
    return None


def _check_arrays(storage: Storage, layout: Layout) -> Iterator[str]:
    """Every array opens through the root document and is of the shape, type and chunks of the layout."""
    import zarr

    try:
        root = zarr.open_group(storage.place(STORE), mode="r", use_consolidated=layout.store == "zarr" or None)
    except (ValueError, KeyError, TypeError, OSError) as error:
        yield f"the store does not open: {error}"
        return
    for variable in layout.variables:
        path = f"{variable.group}/{variable.name}"
        array = root.get(path)
        if not isinstance(array, zarr.Array):
            yield f"{path} is missing in the store"
            continue
        inner, shard = chunks(variable, layout)
        found = (array.shape, str(array.dtype), array.chunks, array.shards or array.chunks)
        wanted = (shape_of(variable, layout), variable.stored_dtype, inner, shard)
        for what, is_, should in zip(("shape", "dtype", "chunks", "shards"), found, wanted, strict=True):
            if is_ != should:
                yield f"{path}: its {what} is {is_}, the layout has {should}"


def _check_coordinates(storage: Storage, manifest: Manifest, table: geopandas.GeoDataFrame) -> Iterator[str]:
    """The coordinates of the root and of every group are the columns of the index, row by row."""
    import numpy as np
    import zarr

    n = manifest.layout.n_chips
    if len(table) != n:
        yield f"{INDEX} has {len(table)} rows, the store has {n} chips"
        return
    if table["chip"].tolist() != [chip for shard in manifest.shards for chip in shard.chips]:
        yield f"{INDEX} does not have the chips of {MANIFEST} in their order"
    off = {"": {}, **{f"{group.name}/": group.corner_off for group in manifest.layout.groups}}
    for folder, beyond in off.items():
        for name in CHIP_COORDINATES:
            try:
                found = zarr.open_array(storage.place(f"{STORE}/{folder}{name}"), mode="r", zarr_format=3)[:]
            except (ValueError, RuntimeError, OSError) as error:
                yield f"{folder}{name} cannot be read: {error}"
                continue
            wanted = table[name].to_numpy()
            wanted = wanted + beyond[name] if beyond.get(name) else wanted
            differ = np.flatnonzero(np.asarray(found, dtype=wanted.dtype) != wanted)
            if len(differ):
                yield f"{folder}{name} differs from {INDEX} in {len(differ)} chips, first in {table['chip'][differ[0]]}"


def _check_pixels(layout: Layout, seen: _Seen, table: geopandas.GeoDataFrame) -> Iterator[str]:
    """What the index says about pixels, recomputed from the pixels."""
    import numpy as np

    chips = table["chip"].to_numpy()
    sources = [group.name for group in layout.groups if f"{group.name}_clear" in table]
    there = np.zeros((len(table), len(sources)), dtype=bool)
    for (group, _), filled in seen.filled.items():
        if group in sources:
            there[:, sources.index(group)] |= filled.any(axis=1)
    if sources:
        counts = there.sum(axis=1)
        enough = np.ones(len(table), dtype=bool)
        for label in seen.labels:
            if f"{label}_reason" in table:
                enough &= table[f"{label}_reason"].fillna("").eq("").to_numpy()
        found = np.select([(counts == len(sources)) & enough, counts > 0], ["ok", "partial"], "empty")
        says = table["status"].to_numpy()
        wrong = np.flatnonzero(found != says)
        yield from _some(
            f"chip {chips[i]} is called {says[i]} and {counts[i]} of {len(sources)} sources have pixels there"
            for i in wrong
        )
        if not there.any():
            yield "no chip of the dataset has a pixel"
    for group in sources:
        yield from _check_source(layout, group, seen, table)
    for label in sorted(seen.labels):
        if not table[f"{label}_labelled"].fillna(0).gt(0).any():
            yield f"label {label} tells nothing in any chip"
    for variable in layout.variables:
        if seen.is_label(variable):
            yield from _check_label(variable, seen.classes[variable.name], table)


def _check_source(layout: Layout, group: str, seen: _Seen, table: geopandas.GeoDataFrame) -> Iterator[str]:
    import numpy as np

    chips = table["chip"].to_numpy()
    dates = [_times(value) for value in table[f"{group}_dates"]]
    n_dates = np.array([len(found) for found in dates])
    clear = seen.values.get((group, "clear"))
    if clear is not None:
        empty = np.isnan(clear).all(axis=1)
        mean = np.nansum(clear, axis=1, dtype="float64") / np.maximum((~np.isnan(clear)).sum(axis=1), 1)
        index = table[f"{group}_clear"].fillna(0).to_numpy()
        differ = np.abs(np.where(empty, 0, mean) - index) > TOLERANCE
        yield from _some(
            [
                f"{group}: the index says that {says:.4f} of chip {chip} is clear, its dates say {found:.4f}"
                for chip, says, found in zip(chips[differ], index[differ], mean[differ], strict=True)
            ]
        )
        for name in CLEAR_FROM:
            share = seen.share.get((group, name))
            if share is not None:
                wrong = (np.abs(np.nan_to_num(clear) - share) > TOLERANCE).any(axis=1)
                yield from _some([f"{group}: clear of chip {chip} is not what {name} says" for chip in chips[wrong]])
    acquired = seen.values.get((group, "acquired"))
    if acquired is not None:
        # The index has them in order of time; on the axis of a pair the later one may stand first.
        used = [_times(np.sort(row[row != np.iinfo("int64").min].view("datetime64[s]"))) for row in acquired]
        wrong_dates = [chip for chip, a, b in zip(chips, used, dates, strict=True) if a != b]
        yield from _some([f"{group}: the dates of chip {chip} differ between index and store" for chip in wrong_dates])
        for variable in layout.of(group):
            filled = seen.filled.get(variable.key)
            if filled is not None and variable.dims[0] == "time":
                beyond = (filled & (np.arange(filled.shape[1]) >= n_dates[:, np.newaxis])).any(axis=1)
                yield from _some(
                    [f"{group}: chip {chip} has {variable.name} beyond its last date" for chip in chips[beyond]]
                )
    most = seen.most.get((group, "count"), 0)
    if most > n_dates.max(initial=0):
        yield f"{group}: a pixel has {most} clear observations, and no chip has more than {n_dates.max()} dates"


def _check_label(
    variable: Variable, classes: Mapping[int, Mapping[int, int]], table: geopandas.GeoDataFrame
) -> Iterator[str]:
    import numpy as np

    name, pixels = variable.name, int(np.prod(variable.shape))
    wrong = []
    rows = zip(table["chip"], table[f"{name}_shares"], table[f"{name}_labelled"], strict=True)
    for row, (chip, shares, labelled) in enumerate(rows):
        found = {code: count / pixels for code, count in classes.get(row, {}).items()}
        says = {int(code): float(share) for code, share in shares} if shares is not None else {}
        says = {code: share for code, share in says.items() if share > 0}
        total = 0.0 if labelled is None or np.isnan(labelled) else float(labelled)
        if found.keys() != says.keys() or any(abs(found[code] - says[code]) > TOLERANCE for code in found):
            wrong.append(f"label {name}: the class shares of chip {chip} in the index are not those of its pixels")
        elif abs(sum(found.values()) - total) > TOLERANCE:
            wrong.append(f"label {name}: the labelled share of chip {chip} in the index is not that of its pixels")
    yield from _some(wrong)


def _check_overlaps(table: geopandas.GeoDataFrame) -> Iterator[str]:
    """No ground lies in chips of two splits; ``buffer`` is left out of training and testing alike."""
    import numpy as np
    import shapely

    used = table[table["split"] != "buffer"]
    outlines, splits, chips = used.geometry.to_numpy(), used["split"].to_numpy(), used["chip"].to_numpy()
    first, second = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    pairs = (first < second) & (splits[first] != splits[second])
    first, second = first[pairs], second[pairs]
    shared = shapely.area(shapely.intersection(outlines[first], outlines[second]))
    smaller = np.minimum(shapely.area(outlines[first]), shapely.area(outlines[second]))
    over = np.flatnonzero(shared > OVERLAP_SHARE * smaller)
    yield from _some(
        [
            f"chips {chips[first[i]]} ({splits[first[i]]}) and {chips[second[i]]} ({splits[second[i]]}) overlap"
            for i in over
        ]
    )


def _read_table(storage: Storage, problems: list[str]) -> geopandas.GeoDataFrame | None:
    import pyarrow

    data = storage.get(INDEX)
    if data is None:
        problems.append(f"{INDEX} is missing")
        return None
    try:
        table = read_index(data)
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        problems.append(f"{INDEX} cannot be read: {error}")
        return None
    missing = [name for name in CHIP_COORDINATES if name not in table]
    if missing:
        problems.append(f"{INDEX} has no column {', '.join(missing)}")
        return None
    return table


def _label_names(table: geopandas.GeoDataFrame | None) -> frozenset[str]:
    columns = [] if table is None else list(table.columns)
    return frozenset(name.removesuffix("_shares") for name in columns if name.endswith("_shares"))


def _times(values: Any) -> list[int]:
    """Times as whole seconds since 1970, from the index or the store."""
    import numpy as np

    if values is None:
        return []
    return [int(value) for value in np.asarray(values, dtype="datetime64[s]").astype("int64")]


def _facts(manifest: Manifest, table: geopandas.GeoDataFrame | None) -> dict[str, Any]:
    objects = manifest.objects().values()
    facts: dict[str, Any] = {
        "chips": manifest.layout.n_chips,
        "shards": len(manifest.shards),
        "objects": len(objects),
        "bytes": sum(written.size for written in objects),
    }
    if not any(written.key == STATISTICS for written in manifest.files):
        facts["statistics"] = f"none: this dataset is older than {STATISTICS}, or was published without it"
    if table is not None:
        facts["splits"] = {str(name): int(count) for name, count in table["split"].value_counts().sort_index().items()}
        facts["status"] = {str(name): int(count) for name, count in table["status"].value_counts().sort_index().items()}
    return facts


def _some(problems: Iterable[str]) -> Iterator[str]:
    """The first problems of a kind, and how many more there are."""
    found = list(problems)
    yield from found[:SHOWN]
    if len(found) > SHOWN:
        yield f"… and {len(found) - SHOWN} more like the last"
