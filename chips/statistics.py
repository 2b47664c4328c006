"""Counts of the numbers of a dataset, made while its shards are written, and what they say: ``statistics.json``.

All that is added up are whole numbers, so parts can be merged in any order and come out the same to the last bit.
Numbers of up to 16 bits are counted one by one; moments and percentiles follow exactly. Of floats (and integers of 32
bits) the sums of values and squares are exact, as integers in units of the smallest float, and bins of a fixed relative
width (2**-11) hold the distribution. Rounding happens once, when the document is made.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numba
import numpy as np
import numpy.typing as npt

from chips.layout import Layout, Variable, canonical

if TYPE_CHECKING:
    import pandas as pd

    from chips.index import ChipRecord

VERSION = 1
"""Of ``statistics.json`` and of the counts beside the journal."""

TRAIN = "train"
"""The split that values for training are of."""

MASKS = ("clear_mask", "count")
"""Variables of a group that say which pixels of its measurements are clear: those above 0."""

FINE_BITS = 12
"""Low bits of a float32 that its bin leaves out: 11 bits of the mantissa stay."""
FINE_BINS = 2 ** (32 - FINE_BITS)
FLOAT_UNIT = 149
"""Every float32 is a whole number of 2**-149; https://doi.org/10.1109/IEEESTD.2019.8766229, binary32."""

PERCENTILES = (1, 2, 5, 10, 25, 50, 75, 90, 95, 98, 99)
BINS = 100
"""Bins of the published histograms between the 0.1th and the 99.9th percentile; one more on either side for tails."""

EFFECTIVE_BETA = Decimal("0.999")
"""Of the effective number of samples, https://arxiv.org/abs/1901.05555; counted over chips."""

MOST_OBJECTS = 65_535
"""Objects of a chip beyond which they are counted as this many; a chip of 256 px has as many pixels."""

Role = Literal["values", "classes", "presence", "ids", "quality"]
"""Measurements; codes of a label; its 0 or 1 by channel; its ids of objects; the layer that tells why pixels hide."""
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counted:
    """How one variable of a layout is counted."""

    variable: Variable
    role: Role
    channels: tuple[str, ...]
    """Names along the dimensions between time and pixels; one empty name where there are none."""
    void: int | None
    """Number that is no measurement; None for floats, whose void is NaN."""
    mask: Variable | None
    """The variable that tells which pixels are clear."""

    @property
    def exact(self) -> bool:
        """Whether every number has a bin of its own."""
        return np.dtype(self.variable.dtype).itemsize <= 2

    @property
    def bins(self) -> int:
        """Length of a histogram."""
        if self.role == "ids":
            return MOST_OBJECTS + 1
        return 1 << 8 * int(np.dtype(self.variable.dtype).itemsize) if self.exact else FINE_BINS

    @property
    def lowest(self) -> int:
        """Number of the first bin, where bins are exact."""
        kind = np.dtype(self.variable.dtype)
        return int(np.iinfo(kind).min) if kind.kind == "i" else 0

    @property
    def timed(self) -> bool:
        """Whether the variable has a time axis."""
        return self.variable.dims[:1] == ("time",)

    @property
    def plane_px(self) -> int:
        """Values of one channel, chip and date."""
        return math.prod(length for dim, length in self.variable.axes() if dim in ("y", "x"))


def counted(layout: Layout) -> tuple[Counted, ...]:
    """The variables that statistics are made of, and how: all but masks, counts, times and numbers too wide."""
    found = []
    for variable in layout.variables:
        role = _role(variable)
        if role is None or _why_not(variable, role):
            continue
        # Layers of classes and labels have no _FillValue, so as to stay whole numbers; their fill still is "nothing
        # is known", and not stored where a whole chunk has it.
        void = None if variable.dtype.startswith("float") else int(variable.fill or 0)
        timed = role == "values" and variable.dims[:1] == ("time",)
        masks = [m for m in layout.of(variable.group) if timed and m.name in MASKS]
        found.append(Counted(variable, role, _channels(layout, variable), void, masks[0] if masks else None))
    return tuple(found)


def not_counted(layout: Layout) -> dict[str, str]:
    """``group/variable`` -> why there are no statistics of something that should have them."""
    roles = {variable: _role(variable) for variable in layout.variables}
    return {f"{v.group}/{v.name}": why for v, role in roles.items() if role and (why := _why_not(v, role))}


def _why_not(variable: Variable, role: Role) -> str:
    width = np.dtype(variable.stored_dtype).itemsize
    if role == "values" and width > 4:
        return f"{variable.dtype} is wider than the 32 bits that are counted"
    if role not in ("values", "ids") and (width > 2 or variable.dtype.startswith("float")):
        return f"codes of type {variable.dtype}, of which at most 16 bits are counted"
    return ""


def _role(variable: Variable) -> Role | None:
    kind = variable.attrs.get("kind")
    if kind is not None:
        roles: dict[str, Role] = {"classes": "classes", "presence": "presence", "ids": "ids", "measure": "values"}
        return roles.get(kind)
    if not variable.spatial or variable.name in MASKS or variable.dtype == "datetime64[s]":
        return None
    if {"flag_values", "flag_masks"} & variable.attrs.keys():
        return "quality"
    return "values" if variable.void else None


def _channels(layout: Layout, variable: Variable) -> tuple[str, ...]:
    names = [""]
    for dim, length in variable.axes():
        if dim in ("time", "y", "x"):
            continue
        own = [c.values for c in layout.group(variable.group).coords if c.name == dim and c.dtype == "string"]
        along = [str(value) for value in own[0]] if own else [str(i) for i in range(length)]
        names = [f"{before}/{name}" if before else name for before in names for name in along]
    return tuple(names)


@dataclass(slots=True)
class Tally:
    """Counts of one variable in one split, by channel: whole numbers, to which those of other pixels are added."""

    what: Counted
    histogram: Ints
    """(channel, bin): values that count, by number or by fine bin; of ids, chips by how many objects they have."""
    hidden: Ints
    """(channel,): values that are not void and not clear."""
    infinite: Ints
    """(channel,): clear values that are infinite; they are in no bin and no sum."""
    total: list[int]
    """Sum of the values that count, in units of 2**-149 for floats; only where bins are not exact. Of ids: pixels."""
    squares: list[int]
    """Sum of their squares, in units of 2**-298 for floats."""
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    """(channel,): smallest and largest value; only where bins are not exact."""
    chips: Ints
    """(channel, bin): chips that have the class at all; empty for measurements."""
    beside: Ints
    """(channel, bin): labelled pixels of those chips."""
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False)
    """Held while numbers are added, not while they are counted."""

    @classmethod
    def empty(cls, what: Counted) -> Tally:
        """Nothing counted yet. Memory is taken when bins are filled."""
        n = len(what.channels)
        classes = what.bins if what.role in ("classes", "presence") else 0
        return cls(
            what,
            np.zeros((n, what.bins), np.int64),
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
            [0] * n,
            [0] * n,
            np.full(n, np.inf),
            np.full(n, -np.inf),
            np.zeros((n, classes), np.int64),
            np.zeros((n, classes), np.int64),
        )

    def filled(self, c: int) -> Ints:
        """The bins of a channel that are not empty, in order."""
        if self.what.exact or self.what.role == "ids":
            return np.flatnonzero(self.histogram[c])
        if self.low[c] > self.high[c]:
            return np.zeros(0, np.int64)
        # Bins are ordered as the values are; looking at a million of them would cost more than counting a chip.
        first, last = fine_bin([self.low[c], self.high[c]]).tolist()
        return np.asarray(first + np.flatnonzero(self.histogram[c, first : last + 1]))

    def _arrays(self) -> tuple[Ints, Ints, Ints]:
        return self.histogram, self.chips, self.beside

    def add(self, block: npt.NDArray[Any], planes: Ints, clear: npt.NDArray[np.bool_] | None) -> None:
        """Count some planes of a block.

        Args:
            block: dims ``(chip, [time,] channels …, [y, x])`` as in the store.
            planes: Which planes (chip and time flattened) count.
            clear: dims ``(chip, time, y, x)`` of the same chips and times; None: all pixels are clear.
        """
        channels = len(self.what.channels)
        values = np.ascontiguousarray(block).reshape(-1, channels, self.what.plane_px)
        mask = _NO_MASK if clear is None else np.ascontiguousarray(clear).reshape(-1, self.what.plane_px)
        if self.what.role == "ids":
            self._add_ids(values[planes])
        elif self.what.role in ("classes", "presence"):
            for plane in planes:
                self._add_classes(values[plane : plane + 1])
        elif self.what.exact:
            histogram, hidden = self._count(values, planes, mask)
            with self.lock:
                self.histogram += histogram
                self.hidden += hidden
        elif values.dtype == np.float32:
            self._add_floats(values, planes, mask)
        else:
            self._add_wide(values, planes, mask)

    def _count(self, values: npt.NDArray[Any], planes: Ints, mask: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """(channel, bin) of numbers of up to 16 bits, and how many are hidden."""
        bits = values.view(f"u{values.dtype.itemsize}")
        n = len(self.what.channels)
        histogram, hidden = np.zeros((n, self.what.bins), np.int64), np.zeros(n, np.int64)
        assert self.what.void is not None, "whole numbers have a void"
        void = self.what.void % self.what.bins
        _count_numbers(bits, planes, mask.view(np.uint8), bits.dtype.type(void), histogram, hidden)
        histogram[:, void] = 0
        return (np.roll(histogram, -self.what.lowest, axis=1) if self.what.lowest else histogram), hidden

    def _add_classes(self, values: npt.NDArray[Any]) -> None:
        found, _ = self._count(values, np.zeros(1, np.int64), _NO_MASK)
        labelled = found.sum(axis=1)
        with self.lock:
            for c, row in enumerate(found):
                where = np.flatnonzero(row)
                self.histogram[c, where] += row[where]
                self.chips[c, where] += 1
                self.beside[c, where] += labelled[c]

    def _add_ids(self, values: npt.NDArray[Any]) -> None:
        for plane in values:
            for c, ids in enumerate(plane):
                # Objects are runs of pixels along the rows, so few numbers remain to be told apart.
                first = np.flatnonzero(ids[1:] != ids[:-1]) + 1
                found = np.unique(np.append(ids[:1], ids[first]))
                objects = len(found) - int(self.what.void in found)
                with self.lock:
                    self.histogram[c, min(objects, MOST_OBJECTS)] += 1
                    self.total[c] += int(np.count_nonzero(ids != self.what.void))

    def _add_floats(self, values: npt.NDArray[Any], planes: Ints, mask: npt.NDArray[np.bool_]) -> None:
        n = len(self.what.channels)
        histogram = np.zeros((n, FINE_BINS), np.uint32)
        sums = np.zeros((n, 256, 3), np.int64)
        ends = np.tile(np.array([0xFFFFFFFF, 0], np.uint32), (n, 1))
        hidden, infinite = np.zeros(n, np.int64), np.zeros(n, np.int64)
        _count_floats(values.view(np.uint32), planes, mask, histogram, sums, ends, hidden, infinite)
        with self.lock:
            self.hidden += hidden
            self.infinite += infinite
            for c in np.flatnonzero(ends[:, 0] <= ends[:, 1]).tolist():
                low, high = _of_keys(ends[c])
                self.low[c], self.high[c] = min(self.low[c], low), max(self.high[c], high)
                # Bins are as ordered as the values, so only those between the ends can be filled.
                first, last = (int(end) >> FINE_BITS for end in ends[c])
                self.histogram[c, first : last + 1] += histogram[c, first : last + 1]
                for exponent in np.flatnonzero(sums[c].any(axis=1)).tolist():
                    total, low, high = sums[c, exponent].tolist()
                    shift = max(exponent, 1) - 1
                    self.total[c] += total << shift
                    self.squares[c] += (low + (high << 32)) << (2 * shift)

    def _add_wide(self, values: npt.NDArray[Any], planes: Ints, mask: npt.NDArray[np.bool_]) -> None:
        """Integers of 32 bits."""
        for c in range(len(self.what.channels)):
            plane = values[planes, c]
            there = plane != self.what.void if self.what.void is not None else np.ones(plane.shape, bool)
            clear = there & mask[planes] if mask.size else there
            found = plane[clear].astype(np.int64)
            bins, often = np.unique(fine_bin(found.astype(np.float32)), return_counts=True)
            size = np.abs(found).astype(np.uint64)
            square = size * size
            with self.lock:
                self.hidden[c] += int((there & ~clear).sum())
                self.histogram[c, bins] += often
                self.total[c] += int(found.sum())
                self.squares[c] += int((square & 0xFFFFFFFF).sum()) + (int((square >> 32).sum()) << 32)
                self.low[c] = min(self.low[c], found.min(initial=2**31))
                self.high[c] = max(self.high[c], found.max(initial=-(2**31)))


_NO_MASK: npt.NDArray[np.bool_] = np.zeros((0, 0), bool)


@numba.njit(nogil=True, cache=True)
def _count_numbers(values, planes, mask, void, histogram, hidden):  # type: ignore[no-untyped-def]  # numba infers them
    """Count numbers by their bits; void ones too, whose bin the caller empties. No branch depends on a pixel."""
    for plane in planes:
        clear = values.shape[2]
        if mask.size > 0:
            clear = 0
            for p in range(mask.shape[1]):
                clear += mask[plane, p]
        for c in range(values.shape[1]):
            numbers, row = values[plane, c], histogram[c]
            if clear == numbers.size:
                for p in range(numbers.size):
                    row[numbers[p]] += 1
                continue
            if clear > 0:
                for p in range(numbers.size):
                    row[numbers[p]] += mask[plane, p]
            there = 0
            for p in range(numbers.size):
                there += (numbers[p] != void) & (mask[plane, p] == 0)
            hidden[c] += there


@numba.njit(nogil=True, cache=True)
def _count_floats(bits, planes, mask, histogram, sums, ends, hidden, infinite):  # type: ignore[no-untyped-def]
    """Count float32 by their bits: fine bins; for each exponent the sums of mantissas and of their squares' halves."""
    masked = mask.size > 0
    for plane in planes:
        for c in range(bits.shape[1]):
            low, high = np.uint32(0xFFFFFFFF), np.uint32(0)  # of the keys, which are ordered as the values are
            for p in range(bits.shape[2]):
                value = bits[plane, c, p]
                size = value & np.uint32(0x7FFFFFFF)
                if size > np.uint32(0x7F800000):
                    continue
                if masked and not mask[plane, p]:
                    hidden[c] += 1
                    continue
                if size == np.uint32(0x7F800000):
                    infinite[c] += 1
                    continue
                negative = value != size and size != 0  # -0 is 0
                key = np.uint32(~value) if negative else np.uint32(size | np.uint32(0x80000000))
                low, high = min(low, key), max(high, key)
                histogram[c, key >> np.uint32(12)] += 1
                exponent = size >> np.uint32(23)
                mantissa = np.int64(size & np.uint32(0x7FFFFF))
                if exponent:
                    mantissa |= 0x800000
                square = mantissa * mantissa
                sums[c, exponent, 0] += -mantissa if negative else mantissa
                sums[c, exponent, 1] += square & 0xFFFFFFFF
                sums[c, exponent, 2] += square >> 32
            ends[c, 0], ends[c, 1] = min(ends[c, 0], low), max(ends[c, 1], high)


def fine_bin(values: npt.ArrayLike) -> Ints:
    """The bin of each float32; bins are ordered as the values are."""
    bits = (np.asarray(values, np.float32) + np.float32(0)).view(np.uint32).astype(np.int64)  # -0 becomes 0
    return np.where(bits >> 31, 0xFFFFFFFF - bits, bits | 0x80000000) >> FINE_BITS


def fine_edge(found: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Smallest value of each fine bin; of those at the ends the last finite one."""
    return _of_keys(np.clip(np.asarray(found, np.int64) << FINE_BITS, *_FINITE_KEYS))


def _of_keys(keys: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The float32 of each key: 32 bits that are ordered as the values are."""
    keys = np.asarray(keys, np.int64)
    bits = np.where(keys >> 31, keys & 0x7FFFFFFF, 0xFFFFFFFF - keys).astype(np.uint32)
    return bits.view(np.float32).astype(np.float64)


_FINITE_KEYS = (0x00800000, 0xFF7FFFFF)
"""Those of the smallest and the largest finite float32."""

_NEW_TALLY = threading.Lock()


@dataclass(slots=True)
class Statistics:
    """What some shards of a dataset hold: chips and dates by split, and a tally for each variable and split."""

    chips: dict[str, int] = field(default_factory=dict)
    """Split -> chips."""
    steps: dict[tuple[str, str], int] = field(default_factory=dict)
    """(group, split) -> dates or periods of all chips; of a series those that are there."""
    tallies: dict[tuple[str, str, str], Tally] = field(default_factory=dict)
    """(group, variable, split) -> counts."""

    def tally(self, what: Counted, split: str) -> Tally:
        """The counts of a variable in a split."""
        with _NEW_TALLY:
            key = (*what.variable.key, split)
            if key not in self.tallies:
                self.tallies[key] = Tally.empty(what)
            return self.tallies[key]

    def to_bytes(self) -> bytes:
        """The counts as the journal keeps them: a JSON line, then the filled bins, compressed."""
        from numcodecs import Blosc

        arrays: list[npt.NDArray[np.int64]] = []
        tallies = []
        for (group, name, split), tally in sorted(self.tallies.items()):
            lengths = []
            for array in tally._arrays():
                for c, row in enumerate(array):
                    where = tally.filled(c) if array is tally.histogram else np.flatnonzero(row)
                    lengths.append(len(where))
                    arrays += [np.diff(where, prepend=0), row[where]]
            ends = [[low, high] if low <= high else None for low, high in zip(tally.low, tally.high, strict=True)]
            tallies.append(
                {
                    "variable": [group, name, split],
                    "lengths": lengths,
                    "hidden": tally.hidden.tolist(),
                    "infinite": tally.infinite.tolist(),
                    # As text, because readers of JSON may take whole numbers this long for floats.
                    "total": [hex(number) for number in tally.total],
                    "squares": [hex(number) for number in tally.squares],
                    "ends": ends,
                }
            )
        steps = [[group, split, n] for (group, split), n in sorted(self.steps.items())]
        head = canonical({"version": VERSION, "chips": self.chips, "steps": steps, "tallies": tallies})
        body = np.concatenate(arrays).astype("<i8") if arrays else np.zeros(0, "<i8")
        packed = bytes(Blosc("zstd", clevel=3, shuffle=Blosc.SHUFFLE).encode(body)) if body.size else b""
        return head + b"\n" + packed

    def add_bytes(self, data: bytes, layout: Layout) -> None:
        """Add the counts that ``to_bytes`` wrote; ValueError or KeyError when they are not of this layout."""
        from numcodecs import Blosc

        head, _, packed = data.partition(b"\n")
        found = json.loads(head)
        if found["version"] != VERSION:
            raise ValueError(f"version {found['version']} of the counts, this release knows {VERSION}")
        body = np.frombuffer(Blosc().decode(packed), "<i8") if packed else np.zeros(0, "<i8")
        variables = {what.variable.key: what for what in counted(layout)}
        for split, n in found["chips"].items():
            self.chips[split] = self.chips.get(split, 0) + n
        for group, split, n in found["steps"]:
            self.steps[group, split] = self.steps.get((group, split), 0) + n
        at = 0
        for told in found["tallies"]:
            group, name, split = told["variable"]
            tally = self.tally(variables[group, name], split)
            lengths = iter(told["lengths"])
            for array in tally._arrays():
                for row in array:
                    n = next(lengths)
                    # Only what is filled is touched: a shard costs what it holds and not what bins there are.
                    row[np.cumsum(body[at : at + n])] += body[at + n : at + 2 * n]
                    at += 2 * n
            tally.hidden += told["hidden"]
            tally.infinite += told["infinite"]
            tally.total = [a + int(b, 16) for a, b in zip(tally.total, told["total"], strict=True)]
            tally.squares = [a + int(b, 16) for a, b in zip(tally.squares, told["squares"], strict=True)]
            for c, ends in enumerate(told["ends"]):
                if ends is not None:
                    tally.low[c], tally.high[c] = min(tally.low[c], ends[0]), max(tally.high[c], ends[1])
        if at != body.size:
            raise ValueError("the counts are longer than they say")


class Counter:
    """Counts the blocks of some chips of a dataset; blocks may come from several threads."""

    def __init__(
        self,
        layout: Layout,
        into: Statistics,
        splits: Sequence[str],
        statuses: Sequence[str],
        acquired: Mapping[str, npt.NDArray[Any]],
        masks: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Take what decides which pixels count.

        Args:
            layout: All arrays, with time axes as long as they are written.
            into: What the counts are added to.
            splits: Of each chip.
            statuses: Of each chip. Those that are ``empty`` are not counted: they have no image, so nobody trains on
                them, and their labels would weigh classes that are not learnt from.
            acquired: Group -> times (chip, time) of a series, int64 or datetime64; NaT where there is no date.
            masks: Group -> values (chip, time, y, x) of its mask, clear above 0.
        """
        self.into = into
        self.splits = np.asarray(splits, dtype=object)
        self.used = np.asarray(statuses, dtype=object) != "empty"
        self.masks = masks
        self.counted = {what.variable.key: what for what in counted(layout)}
        self.seen = {group: ~np.isnat(np.asarray(times).view("datetime64[s]")) for group, times in acquired.items()}
        lengths = {
            group.name: next((v.shape[0] for v in layout.of(group.name) if v.dims[:1] == ("time",)), None)
            for group in layout.groups
        }
        self.names = sorted(set(self.splits.tolist()))
        for split in self.names:
            mine = (self.splits == split) & self.used
            n = int(mine.sum())
            into.chips[split] = into.chips.get(split, 0) + n
            for group, length in lengths.items():
                if length is not None:
                    seen = self.seen.get(group)
                    steps = length * n if seen is None else int(seen[mine].sum())
                    into.steps[group, split] = into.steps.get((group, split), 0) + steps

    def count(self, variable: Variable, chips: slice, steps: slice, block: npt.NDArray[Any]) -> None:
        """Count one block, ``(chip, …)`` as in the store; several threads may do so at once.

        Args:
            variable: Which; one that is not counted is passed over.
            chips: Where the block lies among the chips.
            steps: Where it lies on the time axis, if there is one.
            block: Its values.
        """
        what = self.counted.get(variable.key)
        if what is None:
            return
        n_steps = steps.stop - steps.start if what.timed else 1
        use = np.ones((chips.stop - chips.start, n_steps), bool)
        if what.timed and variable.group in self.seen:
            use = self.seen[variable.group][chips, steps]
        clear = None
        if what.mask is not None:
            clear = self.masks[variable.group][chips, steps] > 0
        for split in self.names:
            mine = (self.splits[chips] == split) & self.used[chips]
            planes = np.flatnonzero(use & mine[:, np.newaxis])
            if len(planes):
                self.into.tally(what, split).add(block, planes, clear)


@dataclass(frozen=True, slots=True)
class SourceDates:
    """The dates of one source on one chip."""

    months: tuple[str, ...]
    """Month (``2021-04``, UTC) of each date whose pixels are used."""
    seen: int
    """Dates with any pixel on the chip."""
    dropped: tuple[tuple[str, int], ...]
    """Reason -> dates seen and not used."""


@dataclass(frozen=True, slots=True)
class ChipDates:
    """What the index knows of a chip that statistics are made of."""

    split: str
    status: str
    sources: Mapping[str, SourceDates] = field(default_factory=dict, hash=False)


def chip_dates(record: ChipRecord) -> ChipDates:
    """What statistics need of a row of the index."""
    sources = {
        name: SourceDates(
            tuple(date.strftime("%Y-%m") for date in of.dates), int(of.seen), tuple(sorted(of.dropped.items()))
        )
        for name, of in record.sources.items()
    }
    return ChipDates(record.split, record.status, sources)


def dates_of_index(layout: Layout, table: pd.DataFrame) -> list[ChipDates]:
    """The same from the index as it was published."""
    sources: list[dict[str, SourceDates]] = [{} for _ in range(len(table))]
    for name in (group.name for group in layout.groups if f"{group.name}_seen" in table):
        columns = (table[f"{name}_{column}"] for column in ("dates", "seen", "dropped"))
        for found, dates, seen, dropped in zip(sources, *columns, strict=True):
            if dates is not None:
                reasons = () if dropped is None else tuple((str(reason), int(n)) for reason, n in dropped)
                found[name] = SourceDates(_month_names(dates), int(seen), reasons)
    rows = zip(table["split"], table["status"], sources, strict=True)
    return [ChipDates(split, status, found) for split, status, found in rows]


def _month_names(dates: Any) -> tuple[str, ...]:
    return tuple(str(m) for m in np.asarray(dates, "datetime64[s]").astype("datetime64[M]"))


def statistics_bytes(
    layout: Layout, found: Statistics, chips: Iterable[ChipDates], audit: Mapping[str, Any] | None = None
) -> bytes:
    """``statistics.json``: equal counts give equal bytes; see ``docs/statistics.md``.

    Args:
        layout: All arrays.
        found: Counts of the whole dataset.
        chips: What the index says of every chip.
        audit: What splits have in common, as ``audit.json`` tells it; it stands in the document too.
    """
    rows = list(chips)
    bands: dict[str, dict[str, Any]] = {}
    labels: dict[str, Any] = {}
    quality: dict[str, Any] = {}
    splits = sorted(found.chips, key=_split_order)
    for what in counted(layout):
        group, name = what.variable.key
        tallies = {split: found.tallies.get((group, name, split)) or Tally.empty(what) for split in splits}
        planes = {split: found.steps[group, split] if what.timed else found.chips[split] for split in splits}
        pixels = {split: n * what.plane_px for split, n in planes.items()}
        for c, channel in enumerate(what.channels):
            if what.role == "values":
                of = bands.setdefault(group, {})
                own = _band_name(what, channel)
                of[own if own not in of else f"{name}/{own}"] = _band(what, c, tallies, pixels)
            elif what.role == "quality":
                own = f"{name}/{channel}" if channel else name
                quality.setdefault(group, {})[own] = _quality(what, c, tallies, pixels)
            else:
                labels[f"{name}/{channel}" if channel else name] = _label(what, c, tallies, pixels)
    document = {
        "version": VERSION,
        "normalisation": {
            group: {band: told for band, of in found_in.items() if (told := _normalisation(of))}
            for group, found_in in bands.items()
        },
        "chips": {
            split: _counts(row.status for row in rows if row.split == split)
            for split in sorted({row.split for row in rows}, key=_split_order)
        },
        "bands": bands,
        "quality": quality,
        "labels": labels,
        "dates": _dates(rows),
        "not_counted": not_counted(layout),
        **({} if audit is None else {"audit": audit}),
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _split_order(split: str) -> tuple[int, str]:
    known = (TRAIN, "val", "test")
    return (known.index(split) if split in known else len(known), split)


def _band_name(what: Counted, channel: str) -> str:
    """Name of a band; what has no bands bears its variable's name."""
    variable = what.variable
    if not channel:
        return variable.name
    return channel if "band" in variable.dims else f"{variable.name}/{channel}"


def _counts(values: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return dict(sorted(found.items()))


def _normalisation(told: Mapping[str, Any]) -> dict[str, Any]:
    train = told["splits"].get(TRAIN, {}).get("physical")
    # The mean of directions is none: 350° and 10° lie around north.
    if train is None or told["period"] is not None:
        return {}
    stored = told["splits"][TRAIN]["stored"]
    plain = {name: value for name, value in stored.items() if name != "percentiles"} | stored["percentiles"]
    physical = {name: value for name, value in train.items() if name != "percentiles"} | train["percentiles"]
    return {**physical, "units": told["units"], "stored": plain}


def _band(what: Counted, c: int, tallies: Mapping[str, Tally], pixels: Mapping[str, int]) -> dict[str, Any]:
    attrs = what.variable.attrs
    scale, offset = float(attrs.get("scale_factor", 1)), float(attrs.get("add_offset", 0))
    bins = _published_bins(what, c, tallies)
    out: dict[str, Any] = {
        "variable": what.variable.name,
        "dtype": what.variable.dtype,
        "scale_factor": scale,
        "add_offset": offset,
        "units": attrs.get("units", ""),
        "period": attrs.get("period"),
        "percentiles": "exact" if what.exact else "within 2**-11 of the value",
        "masked_by": what.mask.name if what.mask is not None else None,
        "edges": bins[1],
        "splits": {},
    }
    moments = {}
    for split, tally in tallies.items():
        told = _Distribution(what, tally, c)
        n, hidden, infinite = told.n, int(tally.hidden[c]), int(tally.infinite[c])
        void = pixels[split] - n - hidden - infinite
        part: dict[str, Any] = {
            "pixels": pixels[split],
            "count": n,
            "void": void,
            "hidden": hidden,
            "infinite": infinite,
            "void_share": _share(void, pixels[split]),
            "hidden_share": _share(hidden, pixels[split]),
        }
        if n:
            moments[split] = told
            part["physical"] = told.summary(Fraction(scale), Fraction(offset))
            part["stored"] = told.summary(Fraction(1), Fraction(0))
            part["histogram"] = told.binned(bins[0])
        out["splits"][split] = part
    if TRAIN in moments:
        train = moments[TRAIN]
        out["drift"] = {split: train.drift(other) for split, other in moments.items() if split != TRAIN}
    return out


class _Distribution:
    """One channel of one split, ready to be described."""

    def __init__(self, what: Counted, tally: Tally, c: int) -> None:
        self.what = what
        self.bins = filled = tally.filled(c)
        self.counts = tally.histogram[c, filled]
        self.below = np.cumsum(self.counts)
        self.n = int(self.counts.sum())
        if what.exact:
            values = [int(b) + what.lowest for b in filled.tolist()]
            pairs = list(zip(values, self.counts.tolist(), strict=True))
            self.total = Fraction(sum(v * n for v, n in pairs))
            self.squares = Fraction(sum(v * v * n for v, n in pairs))
            self.low, self.high = (values[0], values[-1]) if values else (0, 0)
        else:
            unit = FLOAT_UNIT if what.variable.dtype == "float32" else 0
            self.total = Fraction(tally.total[c], 1 << unit)
            self.squares = Fraction(tally.squares[c], 1 << (2 * unit))
            self.low, self.high = tally.low[c], tally.high[c]

    @property
    def mean(self) -> Fraction:
        return self.total / self.n

    @property
    def variance(self) -> Fraction:
        return self.squares / self.n - self.mean**2

    def ranked(self, rank: int) -> Fraction:
        """The value of that rank, from 0; of fine bins as if its values were spread evenly in it."""
        place = int(np.searchsorted(self.below, rank, side="right"))
        bin_ = int(self.bins[place])
        if self.what.exact:
            return Fraction(bin_ + self.what.lowest)
        if rank in (0, self.n - 1):
            return Fraction(float(self.low if rank == 0 else self.high))
        low, high = (Fraction(float(edge)) for edge in fine_edge([bin_, bin_ + 1]))
        if low == 0:
            return low  # the one bin that many equal values are likely to fill; no other of its values exceeds 2**-137
        n = int(self.counts[place])
        nth = rank - (int(self.below[place]) - n)
        value = low + (high - low) * Fraction(2 * nth + 1, 2 * n)
        return min(max(value, Fraction(float(self.low))), Fraction(float(self.high)))

    def percentile(self, percent: Fraction) -> Fraction:
        """By linear interpolation between ranks, as ``numpy.percentile`` (Hyndman and Fan 1996, type 7)."""
        place = percent / 100 * (self.n - 1)
        rank = math.floor(place)
        low = self.ranked(rank)
        return low if rank == place else low + (place - rank) * (self.ranked(rank + 1) - low)

    def summary(self, scale: Fraction, offset: Fraction) -> dict[str, Any]:
        """Moments, ends and percentiles of value × scale + offset."""
        ends = sorted(Fraction(float(end)) * scale + offset for end in (self.low, self.high))
        percentiles = {
            # A negative scale turns the order round.
            f"p{p}": float(self.percentile(Fraction(p if scale >= 0 else 100 - p)) * scale + offset)
            for p in PERCENTILES
        }
        return {
            "mean": float(self.mean * scale + offset),
            "std": math.sqrt(self.variance * scale**2),
            "min": float(ends[0]),
            "max": float(ends[1]),
            "percentiles": percentiles,
        }

    def binned(self, starts: Ints) -> list[int]:
        """Values in each published bin, which begin at these bins."""
        place = np.searchsorted(starts, self.bins, side="right") - 1
        counts = np.zeros(len(starts), np.int64)
        np.add.at(counts, place, self.counts)
        return [int(n) for n in counts]

    def drift(self, other: _Distribution) -> dict[str, Any]:
        """How far another split lies from this one."""
        spread = math.sqrt(self.variance)
        both = np.union1d(self.bins, other.bins)
        mine, theirs = self._until(both), other._until(both)
        # Whole numbers, so that no order of sums plays a part.
        gap = max(abs(a * other.n - b * self.n) for a, b in zip(mine, theirs, strict=True))
        return {
            "mean_shift_std": float(other.mean - self.mean) / spread if spread else None,
            "std_ratio": math.sqrt(other.variance) / spread if spread else None,
            "kolmogorov_smirnov": float(Fraction(gap, self.n * other.n)),
        }

    def _until(self, bins: Ints) -> list[int]:
        place = np.searchsorted(self.bins, bins, side="right")
        return [int(n) for n in np.concatenate([[0], self.below])[place]]


def _published_bins(what: Counted, c: int, tallies: Mapping[str, Tally]) -> tuple[Ints, list[float]]:
    """First bin of each published bin, and the edges in stored numbers: half-open, the last closed."""
    there = {split: tally for split, tally in tallies.items() if len(tally.filled(c))}
    if not there:
        return np.zeros(0, np.int64), []
    middle = there.get(TRAIN) or next(iter(there.values()))
    filled = np.unique(np.concatenate([tally.filled(c) for tally in there.values()]))
    told = _Distribution(what, middle, c)
    low, high = told.percentile(Fraction(1, 10)), told.percentile(Fraction(999, 10))
    if what.exact:
        first, last = math.floor(low), math.ceil(high)
        width = max(1, -(-(last - first) // BINS))
        edges = np.arange(first, last + width, width)
        starts = np.unique(np.concatenate([filled[:1], edges - what.lowest]))
        starts = starts[starts <= filled[-1]]
        top = [int(starts[-1]) + 1] if starts[-1] == filled[-1] and len(starts) == 1 else [int(filled[-1])]
        if len(starts) > 1 and starts[-1] == filled[-1]:
            starts = starts[:-1]
        return starts, [int(start) + what.lowest for start in [*starts.tolist(), *top]]
    even = [float(low + (high - low) * Fraction(i, BINS)) for i in range(BINS + 1)]
    starts = np.unique(np.concatenate([filled[:1], fine_bin(even)]))
    starts = starts[(starts >= filled[0]) & (starts <= filled[-1])]
    end = max(float(tally.high[c]) for tally in there.values())
    if len(starts) > 1 and fine_edge(starts[-1:])[0] == end:
        starts = starts[:-1]
    edges_of = fine_edge(starts).tolist()
    return starts, [*edges_of, end if end > edges_of[-1] else float(fine_edge(starts[-1:] + 1)[0])]


def _label(what: Counted, c: int, tallies: Mapping[str, Tally], pixels: Mapping[str, int]) -> dict[str, Any]:
    out: dict[str, Any] = {"group": what.variable.group, "variable": what.variable.name, "kind": what.role}
    if what.role == "presence":
        out["splits"] = {
            split: {
                "pixels": pixels[split],
                "present": int(tally.histogram[c].sum()),
                "share": _share(int(tally.histogram[c].sum()), pixels[split]),
                "chips": int(tally.chips[c].max(initial=0)),
            }
            for split, tally in tallies.items()
        }
        return out
    if what.role == "ids":
        out["splits"] = {split: _objects(tally, c, pixels[split]) for split, tally in tallies.items()}
        return out
    names = _names(what)
    seen = {int(b) + what.lowest for tally in tallies.values() for b in np.flatnonzero(tally.histogram[c])}
    codes = sorted(seen | {int(code) for code in names})
    out["ignore"] = what.void
    out["splits"] = {split: _classes(what, c, tally, pixels[split], codes, names) for split, tally in tallies.items()}
    return out


def _names(what: Counted) -> dict[int, str]:
    attrs = what.variable.attrs
    names = attrs.get("flag_names") or str(attrs.get("flag_meanings", "")).split()
    return {int(code): name for code, name in zip(attrs.get("flag_values", ()), names, strict=False)}


def _objects(tally: Tally, c: int, pixels: int) -> dict[str, Any]:
    """Objects by chip: one that lies on several chips counts on each."""
    numbers = np.flatnonzero(tally.histogram[c])
    chips = tally.histogram[c, numbers]
    objects, total = int((numbers * chips).sum()), int(chips.sum())
    return {
        "pixels": pixels,
        "covered": tally.total[c],
        "share": _share(tally.total[c], pixels),
        "objects": objects,
        "chips": int(chips[numbers > 0].sum()),
        "objects_per_chip": _share(objects, total),
        "most_on_a_chip": int(numbers.max(initial=0)),
    }


def _quality(what: Counted, c: int, tallies: Mapping[str, Tally], pixels: Mapping[str, int]) -> dict[str, Any]:
    """Why pixels are hidden or void: how many each class, or each meaning of bits, holds for."""
    attrs = what.variable.attrs
    masks = [int(mask) for mask in attrs.get("flag_masks", ())]
    out: dict[str, Any] = {"void": what.void, "bits": bool(masks), "splits": {}}
    for split, tally in tallies.items():
        filled = np.flatnonzero(tally.histogram[c])
        n = dict(zip((filled + what.lowest).tolist(), tally.histogram[c, filled].tolist(), strict=True))
        told = sum(n.values())
        if masks:
            names = str(attrs.get("flag_meanings", "")).split()
            flags = zip(names, masks, (int(value) for value in attrs["flag_values"]), strict=True)
            classes = {
                name: sum(count for number, count in n.items() if number & mask == value) for name, mask, value in flags
            }
        else:
            codes = _names(what)
            classes = {codes.get(code, str(code)): count for code, count in n.items()}
        out["splits"][split] = {
            "pixels": pixels[split],
            "void": pixels[split] - told,
            "classes": {name: {"pixels": n, "share": _share(n, pixels[split])} for name, n in classes.items()},
        }
    return out


def _classes(
    what: Counted, c: int, tally: Tally, pixels: int, codes: Sequence[int], names: Mapping[int, str]
) -> dict[str, Any]:
    from statistics import median

    bins = {code: code - what.lowest for code in codes}
    n = {code: int(tally.histogram[c, b]) for code, b in bins.items()}
    labelled = sum(n.values())
    there = [code for code in codes if n[code]]
    often = {code: Fraction(n[code], int(tally.beside[c, bins[code]])) for code in there}
    middle = median(often.values()) if often else Fraction(0)
    effective = {code: _effective(int(tally.chips[c, bins[code]])) for code in there}
    mean_weight = sum((1 / number for number in effective.values()), Fraction(0)) / max(len(there), 1)
    return {
        "pixels": pixels,
        "labelled": labelled,
        "void": pixels - labelled,
        "void_share": _share(pixels - labelled, pixels),
        "classes": {
            str(code): {
                "name": names.get(code, ""),
                "pixels": n[code],
                "chips": int(tally.chips[c, bins[code]]),
                "share": _share(n[code], labelled),
                "inverse_frequency": float(Fraction(labelled, len(there) * n[code])) if n[code] else None,
                "median_frequency": float(middle / often[code]) if n[code] else None,
                "effective_number": float(1 / effective[code] / mean_weight) if n[code] else None,
            }
            for code in codes
        },
    }


def _effective(n: int) -> Fraction:
    """Effective number of ``n`` samples, of Cui et al. 2019, equation 2, to 28 digits on every machine."""
    power = Context(prec=28).power(EFFECTIVE_BETA, n)
    return (1 - Fraction(power)) / (1 - Fraction(EFFECTIVE_BETA))


def _dates(rows: Sequence[ChipDates]) -> dict[str, Any]:
    """Source -> split -> dates seen, used and dropped, by reason; and how many chips have how many in each month."""
    out: dict[str, Any] = {}
    for source in sorted({name for row in rows for name in row.sources}):
        everywhere = [row.sources[source] for row in rows if source in row.sources]
        months = sorted({month for found in everywhere for month in found.months})
        out[source] = {}
        for split in sorted({row.split for row in rows}, key=_split_order):
            mine = [row.sources[source] for row in rows if row.split == split and source in row.sources]
            dropped: dict[str, int] = {}
            for reason, n in sorted(pair for found in mine for pair in found.dropped):
                dropped[reason] = dropped.get(reason, 0) + n
            out[source][split] = {
                "seen": sum(found.seen for found in mine),
                "used": sum(len(found.months) for found in mine),
                "dropped": dropped,
                "months": {month: _month([found.months.count(month) for found in mine]) for month in months if mine},
            }
    return out


def _month(dates: Sequence[int]) -> dict[str, Any]:
    return {
        "mean": float(Fraction(sum(dates), len(dates))),
        "min": min(dates),
        "max": max(dates),
        "chips_by_dates": {str(n): dates.count(n) for n in sorted(set(dates))},
    }


def _share(part: int, whole: int) -> float | None:
    return float(Fraction(part, whole)) if whole else None
