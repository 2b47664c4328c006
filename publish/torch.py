"""A map-style dataset for training: one sample a chip, with the keys of TorchGeo. PyTorch is used where it is there.

Nothing here is needed to train on a dataset; docs/reading.md has the same in twenty lines without us.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chips.layout import Variable
from curate.errors import OutputError, StoreError
from publish.opened import open_published, open_root

Sample = dict[str, Any]


class ChipDataset:
    """The chips of one split as samples; ``torch.utils.data.DataLoader`` takes it as it is.

    A sample has, for the first source and the first label, and again as ``image_<name>``, ``time_<name>`` and
    ``mask_<name>`` for each further one:

    - ``image``: float32 in physical units, ``void`` where void; (time, band, y, x), without the dimensions it lacks
    - ``time``: int64, seconds since 1970 UTC of each step, -2^63 for padding; only of sources with a time axis
    - ``mask``: int64 codes with the ignore value as it stands in ``ignore``, or float32 of what is measured; (y, x)

    and ``bbox`` of the image (minx, miny, maxx, maxy, float64) in ``crs`` (``EPSG:32633``), and ``chip``, its name.
    Arrays are tensors where PyTorch is installed, else NumPy's. It can be pickled and forked: each process opens the
    store anew. Object storage and Icechunk repositories cannot be read in a forked process; there, give the loader
    ``multiprocessing_context="spawn"``.

    Args:
        dataset: Folder or URL of a published dataset.
        sources: Names of sources, the first of which is ``image``. Empty: all.
        labels: Names of labels or of their variables, the first of which is ``mask``. Empty: all with classes.
        split: train, val, test or buffer; None for all.
        status: Which chips are good enough, by ``status`` of the index.
        void: What stands where an image is void.
        transform: Called with each sample; what it returns is the sample.

    Raises:
        OutputError: There is no such folder.
        StoreError: It holds no published dataset, or it lacks a source, a label or any such chip.
    """

    def __init__(
        self,
        dataset: str,
        sources: Sequence[str] = (),
        labels: Sequence[str] = (),
        *,
        split: str | None = "train",
        status: Collection[str] = ("ok",),
        void: float = float("nan"),
        transform: Callable[[Sample], Sample] | None = None,
    ) -> None:
        opened = open_published(dataset, whole=True)
        layout = opened.layout
        self.url, self.void, self.transform = opened.url, void, transform
        # What reads them has threads, which do not live on in a fork.
        self._threaded = opened.storage.is_remote or layout.store == "icechunk"
        spatial = [variable for variable in layout.variables if variable.spatial]
        images: dict[str, Variable] = {}
        for variable in spatial:
            if "label" not in variable.attrs:
                images.setdefault(variable.group, variable)  # the first of a group is what it measures
        masks = {v.name: v for v in spatial if "label" in v.attrs}
        classes = tuple(v.name for v in masks.values() if v.attrs.get("kind") == "classes" and v.dims == ("y", "x"))
        self._images = tuple(_named(images, name, "source", self.url) for name in sources or images)
        self._masks = tuple(_named(masks, name, "label", self.url) for name in labels or classes)
        self._times = {v.group: v.name for v in layout.variables if v.dims == ("time",) and v.dtype == "datetime64[s]"}
        self._times |= {g.name: "time" for g in layout.groups if any(c.name == "time" for c in g.coords)}
        self.ignore = {v.name: v.stored_fill for v in self._masks if v.void and v.fill != "NaN"}
        """Label -> its value of unlabelled pixels, for the ``ignore_index`` of a loss."""
        root = opened.root()
        column = functools.partial(_column, root)
        wanted = np.isin(column("status"), list(status))
        if split is not None:
            wanted &= column("split") == split
        self.rows: npt.NDArray[np.intp] = np.flatnonzero(wanted)
        """Positions of the samples along ``chip`` in the store."""
        if not len(self.rows):
            raise StoreError(self.url, f"has no chip with split {split} and status {' or '.join(status)}")
        self._chip, self._epsg = column("chip")[self.rows], column("epsg")[self.rows]
        # A source may have chips of its own size about the same centres; the box is that of the image.
        main = (*self._images, *self._masks)[0]
        corner = [column(f"{main.group}/{name}")[self.rows] for name in ("x0", "y0")]
        self._corner = np.stack(corner, axis=1)
        self._side_m = float(layout.group(main.group).attrs["resolution_m"]) * main.shape[-1]
        self._arrays: dict[str, Any] = {}
        self._process, self._made_in = -1, os.getpid()

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """One sample; IndexError beyond the last."""
        row = self.rows[index]
        index = index % len(self)
        arrays = self._opened()
        sample: Sample = {}
        for position, variable in enumerate(self._images):
            ending = "" if position == 0 else f"_{variable.group}"
            sample[f"image{ending}"] = _tensor(_physical(variable, arrays[_path(variable)][row], self.void))
            if "time" in variable.dims:
                times = arrays[f"{variable.group}/{self._times[variable.group]}"]
                sample[f"time{ending}"] = _tensor(times[row] if times.ndim == 2 else times[:])
        for position, variable in enumerate(self._masks):
            stored = arrays[_path(variable)][row]
            ending = "" if position == 0 else f"_{variable.name}"
            sample[f"mask{ending}"] = _tensor(stored.astype(np.float32 if stored.dtype.kind == "f" else np.int64))
        x0, y0 = self._corner[index]
        sample["bbox"] = _tensor(np.array([x0, y0 - self._side_m, x0 + self._side_m, y0]))
        sample["crs"], sample["chip"] = f"EPSG:{self._epsg[index]}", str(self._chip[index])
        return sample if self.transform is None else self.transform(sample)

    def __getstate__(self) -> dict[str, Any]:
        """All but the open store."""
        return {**self.__dict__, "_arrays": {}, "_process": -1}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Remember the process that it is remade in."""
        self.__dict__.update(state, _made_in=os.getpid())

    def _opened(self) -> dict[str, Any]:
        """The arrays by path, opened in this process: a fork must not go on with the handles of its parent."""
        if self._process != os.getpid():
            from chips.repository import attached
            from chips.storage import open_storage

            if self._threaded and self._made_in != os.getpid():
                raise OutputError(
                    self.url,
                    "object storage and Icechunk repositories cannot be read in a forked process; give the data loader "
                    "multiprocessing_context='spawn'",
                )
            storage = open_storage(self.url)  # of which a fork must not even ask whether there is a commit
            root = open_root(attached(storage) if self._threaded else storage)
            paths = [_path(variable) for variable in (*self._images, *self._masks)]
            paths += [f"{v.group}/{self._times[v.group]}" for v in self._images if "time" in v.dims]
            self._arrays, self._process = {path: root[path] for path in paths}, os.getpid()
        return self._arrays


def _named(found: dict[str, Variable], name: str, what: str, url: str) -> Variable:
    if name not in found:
        raise StoreError(url, f"has no {what} '{name}'; found {', '.join(found)}")
    return found[name]


def _column(root: Any, name: str) -> npt.NDArray[Any]:
    return np.asarray(root[name][:])


def _path(variable: Variable) -> str:
    return f"{variable.group}/{variable.name}"


def _physical(variable: Variable, stored: npt.NDArray[Any], void: float) -> npt.NDArray[np.float32]:
    """Stored numbers in physical units, float32, ``void`` where void."""
    gone = np.isnan(stored) if variable.fill == "NaN" else stored == variable.fill if variable.void else None
    scale, offset = variable.attrs.get("scale_factor", 1.0), variable.attrs.get("add_offset", 0.0)
    image = stored.astype(np.float32)
    if (scale, offset) != (1.0, 0.0):
        image = image * np.float32(scale) + np.float32(offset)
    if gone is not None:
        image[gone] = void
    return image


@functools.cache
def _from_numpy() -> Callable[[Any], Any] | None:
    """PyTorch's way from arrays to tensors, None where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    found: Callable[[Any], Any] = importlib.import_module("torch").from_numpy
    return found


def _tensor(array: npt.NDArray[Any]) -> Any:
    convert = _from_numpy()
    return array if convert is None else convert(np.ascontiguousarray(array))
