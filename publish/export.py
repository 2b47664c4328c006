"""A dataset as other people's formats: what is common to all of them.

An export is written file by file, each whole or not at all, and continues where it was stopped: files that are there
are not written again. What it is of stands in ``export.json``, which comes first; ``files.csv`` lists what was written
and comes last, so a folder without it is not finished.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from chips.layout import NAT, Coordinate, Variable
from curate import __version__
from curate.errors import OutputError, StoreError
from publish.opened import Opened

if TYPE_CHECKING:
    import zarr

Format = Literal["geotiff", "webdataset", "coco"]
WANTED = "export.json"
FILES = "files.csv"
ATTRIBUTION = "ATTRIBUTION.txt"
TRAINED_ON = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """What is exported, and how."""

    to: Format
    splits: tuple[str, ...] = ()
    """Which splits. Empty: train, val and test, as far as there are chips of them."""
    groups: tuple[str, ...] = ()
    """Names of sources, and `label`. Empty: all."""
    cog: bool = False
    """GeoTIFF: with the layout of a cloud-optimised one."""
    label: str | None = None
    """COCO: the variable with the instances. None: the only one there is."""


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip that is exported."""

    row: int
    """Position along ``chip`` in the store."""
    name: str
    split: str
    epsg: int
    x0: float
    y0: float
    lon: float
    lat: float


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the time axis of a chip."""

    index: int
    name: str
    """Part of a file's name: the day, or the second, and what tells two steps of one day apart."""
    time: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset with the chips and variables that are wanted of it."""

    opened: Opened
    spec: ExportSpec
    splits: tuple[str, ...]
    """Those that are exported."""
    chips: tuple[Chip, ...]
    left_out: int
    """Chips of the splits that have no pixels at all."""
    variables: tuple[Variable, ...]
    arrays: Mapping[str, zarr.Array[Any]]

    def read(self, variable: Variable, chip: Chip) -> npt.NDArray[Any]:
        """The stored numbers of one chip, in the dimensions of the variable; StoreError when they are damaged."""
        try:
            found = np.asarray(self.arrays[path_of(variable)][chip.row])
        except (ValueError, RuntimeError, OSError) as error:
            why = f"chip {chip.name} of {path_of(variable)} cannot be read ({error}); 'curate check' tells more"
            raise StoreError(self.opened.url, why) from error
        return found[..., None] if found.shape == () else found

    def corner(self, group: str, chip: Chip) -> tuple[float, float]:
        """(x, y) of the upper-left corner of a chip in a group, whose chips may be wider than the grid's."""
        off = self.opened.layout.group(group).corner_off
        return chip.x0 + off["x0"], chip.y0 + off["y0"]

    def steps(self, group: str, chip: Chip) -> tuple[Step, ...]:
        """The steps of a source on a chip that are no padding; none where it has no time axis."""
        acquired = self.arrays.get(f"{group}/acquired")
        if acquired is not None:
            seconds = np.asarray(acquired[chip.row]).tolist()
            return _unlike([(i, _time(s), "%Y%m%dT%H%M%S") for i, s in enumerate(seconds) if s != NAT])
        coords = self.opened.layout.group(group).coords
        times = next((coord.values for coord in coords if coord.name == "time"), ())
        apart: list[Coordinate] = [c for c in coords if c.dim == "time" and c.dtype == "string"]
        found = []
        for index, value in enumerate(times[: self.opened.layout.group(group).steps]):
            what = "".join(f"-{coord.values[index]}" for coord in apart)
            found.append((index, f"{value}Z", f"%Y%m%d{what}"))
        return _unlike(found)

    def names(self, variable: Variable) -> tuple[str, ...]:
        """Names along the one dimension of a variable that is neither time nor place; its own where it has none."""
        lead = [dim for dim in variable.dims if dim not in ("time", "y", "x")]
        if not lead:
            return (variable.name,)
        length = variable.shape[variable.dims.index(lead[0])]
        coords = self.opened.layout.group(variable.group).coords
        named = next((coord.values for coord in coords if coord.name == lead[0]), None)
        return tuple(map(str, named)) if named else tuple(f"{lead[0]}_{i}" for i in range(length))


def path_of(variable: Variable) -> str:
    """Path of a variable within the store."""
    return f"{variable.group}/{variable.name}"


def _time(seconds: int) -> str:
    return str(np.datetime64(int(seconds), "s")) + "Z"


def _unlike(found: Sequence[tuple[int, str, str]]) -> tuple[Step, ...]:
    """Steps with names by a format, numbered where two would have one."""
    import datetime as dt

    names = [dt.datetime.fromisoformat(time).strftime(form) for _, time, form in found]
    return tuple(
        Step(index, name if names.count(name) == 1 else f"{name}-{names[:place].count(name) + 1}", time)
        for place, ((index, time, _), name) in enumerate(zip(found, names, strict=True))
    )


def open_source(opened: Opened, spec: ExportSpec) -> Source:
    """What a spec wants of a dataset.

    Raises:
        StoreError: The dataset lacks a split or a source, or the splits have no chip with pixels.
    """
    layout, root = opened.layout, opened.root()
    known = [group.name for group in layout.groups]
    if strange := [name for name in spec.groups if name not in known]:
        raise StoreError(opened.url, f"has no source '{strange[0]}'; found {', '.join(known)}")
    columns = {name: np.asarray(_array(root, name)[:]).tolist() for name in _COLUMNS}
    there = tuple(dict.fromkeys(columns["split"]))
    if strange := [split for split in spec.splits if split not in there]:
        raise StoreError(opened.url, f"has no chips of split {', '.join(strange)}; found {', '.join(there)}")
    splits = spec.splits or tuple(split for split in TRAINED_ON if split in there)
    chips, left_out = [], 0
    for row, split in enumerate(columns["split"]):
        if split not in splits:
            continue
        if columns["status"][row] == "empty":
            left_out += 1
            continue
        at = {name: columns[name][row] for name in ("epsg", "x0", "y0", "lon", "lat")}
        chips.append(Chip(row=row, name=columns["chip"][row], split=split, **at))
    if not chips:
        raise StoreError(opened.url, f"has no chip with pixels in {', '.join(splits or TRAINED_ON)}; nothing to export")
    wanted = tuple(v for v in layout.variables if not spec.groups or v.group in spec.groups)
    arrays = {path_of(v): _array(root, path_of(v)) for v in layout.variables}
    return Source(opened, spec, splits, tuple(chips), left_out, wanted, arrays)


_COLUMNS = ("chip", "split", "status", "epsg", "x0", "y0", "lon", "lat")


def _array(root: zarr.Group, path: str) -> zarr.Array[Any]:
    import zarr

    found = root[path]
    assert isinstance(found, zarr.Array)
    return found


@dataclass(slots=True)
class Target:
    """The folder of an export: knows which of its files are there already."""

    folder: Path
    rows: list[tuple[str, ...]]
    """(path, chip, split, array, time) of every file."""
    written: int = 0
    kept: int = 0

    def put(self, path: str, make: Callable[[], bytes], *about: str) -> None:
        """Write a file that is not there yet, whole or not at all."""
        self.rows.append((path, *about))
        if (self.folder / path).exists():
            self.kept += 1
            return
        self.write(path, make())
        self.written += 1

    def write(self, path: str, data: bytes) -> None:
        """Write a file, in place of one that is there; OutputError when the disk refuses."""
        target = self.folder / path
        half = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            half.write_bytes(data)
            os.replace(half, target)
        except OSError as error:
            half.unlink(missing_ok=True)
            raise OutputError(
                str(target), f"cannot be written ({error.strerror}); then run the same command again to continue"
            ) from error

    def finish(self, source: Source) -> None:
        """The list of files, last."""
        if (terms := source.opened.storage.get(ATTRIBUTION)) is not None:
            self.write(ATTRIBUTION, terms)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "chip", "split", "array", "time"))
        writer.writerows(self.rows)
        self.write(FILES, text.getvalue().encode())


def open_target(folder: str, source: Source) -> Target:
    """The folder of an export, begun or new.

    Raises:
        OutputError: It is no local folder, or holds something else.
    """
    if "://" in folder:
        raise OutputError(folder, "exports are written to a local folder; give one, and copy it from there")
    path = Path(folder)
    spec = source.spec
    told = {
        "curate": __version__,
        "dataset": source.opened.layout.attrs["title"],
        "fingerprint": source.opened.fingerprint,
        "to": spec.to,
        "splits": list(source.splits),
        "groups": list(spec.groups),
        "cog": spec.cog,
        "label": spec.label,
    }
    wanted = (json.dumps(told, indent=2) + "\n").encode()
    target = Target(path, [])
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(folder, "is a file; choose another name for the export")
        if path.exists() and any(path.iterdir()):
            begun = path / WANTED
            if not begun.exists():
                raise OutputError(folder, "holds something that is no export; choose another folder")
            if begun.read_bytes() != wanted:
                raise OutputError(
                    folder, "holds an export of another dataset or with other options; choose another folder"
                )
    except OSError as error:
        raise OutputError(folder, f"cannot be read ({error.strerror}); choose another folder") from error
    target.write(WANTED, wanted)
    return target


Writer = Callable[[Target], Iterator[int]]
"""Writes an export and gives the number of chips done, now and then."""


def writer_of(source: Source) -> Writer:
    """What writes the format that is wanted. StoreError when the dataset has nothing for it; nothing is written yet."""
    if source.spec.to == "geotiff":
        from publish.geotiff import write_geotiffs

        return partial(write_geotiffs, source)
    if source.spec.to == "webdataset":
        from publish.webdataset import write_tars

        return partial(write_tars, source)
    from publish.coco import coco_of, write_coco

    return partial(write_coco, source, coco_of(source))
