"""A dataset as whoever shows it needs it: layout, index and the pixels of single chips.

Arrays are opened by the metadata that follow from the layout and not by the documents of the store, so the same code
reads a published dataset and one whose shards are all written and whose documents are not.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chips.index import INDEX, read_table
from chips.layout import Group, Layout, Variable
from chips.metadata import DOCUMENT, documents
from chips.storage import Storage
from chips.write import read_document
from curate.errors import InputError, StoreError
from publish.opened import open_published

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow


@dataclass(frozen=True, slots=True)
class WrittenDataset:
    """A dataset whose pixels are all written. Make it with ``published_dataset`` or ``written_dataset``."""

    storage: Storage
    layout: Layout
    """Every array of the store, with time axes as long as they are published."""
    table: pyarrow.Table
    """The index, a row a chip, in the order of the store."""
    chips: tuple[str, ...]
    """Ids of the chips, in the same order."""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Files beside the store that are not written yet."""
    _documents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    _arrays: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Name of the dataset: that of the recipe, or of the area."""
        return str(self.layout.attrs.get("title") or "dataset")

    def group(self, name: str) -> Group:
        """A group of the layout by its name."""
        return self.layout.group(name)

    def position(self, chip: str) -> int:
        """Position of a chip along ``chip``.

        Raises:
            InputError: The dataset has no such chip; names the nearest one that it has.
        """
        if chip in self.chips:
            return self.chips.index(chip)
        near = difflib.get_close_matches(chip, self.chips[:50_000], n=1, cutoff=0)
        raise InputError(chip, f"the dataset has no such chip; one of its {len(self.chips)} chips is '{near[0]}'")

    def values(self, variable: Variable, chip: int, *where: int) -> npt.NDArray[Any]:
        """Stored numbers of one chip, dims as in ``variable``; ``where`` picks from the leading ones (a time step).

        Raises:
            StoreError: The object that holds them is damaged.
        """
        import numpy as np

        try:
            return np.asarray(self._array(variable.path)[(chip, *where)])
        except (ValueError, RuntimeError, OSError) as error:
            why = f"chip {self.chips[chip]} of {variable.path} cannot be read ({error}); 'curate check' tells more"
            raise StoreError(self.storage.url, why) from error

    def _array(self, path: str) -> Any:
        if path not in self._arrays:
            import zarr
            from zarr.core.metadata import ArrayV3Metadata

            metadata = ArrayV3Metadata.from_dict(json.loads(self._documents[f"{path}/{DOCUMENT}"]))
            self._arrays[path] = zarr.Array(zarr.AsyncArray(metadata, self.storage.place(path)))
        return self._arrays[path]

    def coordinate(self, group: str, name: str) -> tuple[Any, ...] | None:
        """Values of a coordinate of a group (``band``, ``time`` …) as published; None where it has none."""
        found = self.group(group)
        for coord in found.coords:
            if coord.name == name:
                return coord.values[: found.steps] if coord.dim == "time" else coord.values
        return None

    def file(self, name: str) -> bytes | None:
        """A file beside the store; None where there is none."""
        return self.files[name] if name in self.files else read_document(self.storage, name)

    def document(self, name: str) -> Any:
        """A JSON file beside the store; None where there is none, or where it is no JSON."""
        data = self.file(name)
        try:
            return None if data is None else json.loads(data)
        except ValueError:
            return None


def written_dataset(storage: Storage, layout: Layout, files: Mapping[str, bytes]) -> WrittenDataset:
    """A dataset that is about to be published: all shards are written, and ``files`` will come beside the store.

    Args:
        storage: Of the build.
        layout: As it will be published, time axes trimmed.
        files: Name -> content, ``chips.parquet`` among them.
    """
    table = read_table(files[INDEX])
    return WrittenDataset(storage, layout, table, tuple(table["chip"].to_pylist()), files, documents(layout))


def published_dataset(where: str, version: int | None = None, *, whole: bool = False) -> WrittenDataset:
    """The dataset in a folder or at a URL such as ``s3://bucket/dataset``: its latest version, or the one asked for.

    Raises:
        OutputError: The folder is missing or cannot be read.
        StoreError: Nothing is published there, or it is damaged; ``whole`` as in ``publish.opened.open_published``.
    """
    found = open_published(where, version, whole=whole)
    table = found.index()
    chips = tuple(table["chip"].to_pylist())
    return WrittenDataset(found.storage, found.layout, table, chips, _documents=documents(found.layout))
