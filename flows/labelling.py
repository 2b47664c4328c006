"""The labels of a build: opened once for the plan, drawn and derived shard by shard, and told chip by chip."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catalog.access import access
from catalog.lock import LockedItem, scenes_from_lock
from chips.index import LabelRecord
from chips.layout import Coordinate, Group, Variable
from labels.read import class_shares, open_label
from labels.source import ChipLabel, Derived, LabelSource, LabelVariable
from labels.spec import LabelSpec, ProductLabel

if TYPE_CHECKING:
    from recipes.recipe import Recipe
    from tiling.aoi import Aoi
    from tiling.grid import Chip
    from tiling.shards import Shard

log = logging.getLogger(__name__)

PREFIX = "label:"
"""In the lock, the items of a label product stand under this prefix and the label's name."""
GROUP = "label"
"""Group of the store with all labels on the grid's pixels; one of another pixel size has a group of its own."""
WINDOW_PX = 4096 * 4096
"""Largest window that is drawn at once: one byte a pixel, or a few."""

Arrays = dict[tuple[str, str], npt.NDArray[Any]]
"""Arrays of a shard's chips by (group, variable)."""


@dataclass(frozen=True, slots=True)
class Labels:
    """All labels of a plan: those drawn from the place, and those derived on a chip, each after what it needs."""

    drawn: tuple[LabelSource, ...] = ()
    derived: tuple[ChipLabel, ...] = ()
    least: Mapping[str, float] = field(default_factory=dict)
    """Label -> share of a chip that it should at least tell something about."""

    @property
    def all(self) -> tuple[LabelSource | ChipLabel, ...]:
        """Every label, in the order in which they are made."""
        return (*self.drawn, *self.derived)

    def group(self, label: LabelSource | ChipLabel) -> str:
        """The group of the store that a label stands in."""
        own = isinstance(label, LabelSource) and label.resolution_m is not None
        return f"{GROUP}_{label.name}" if own else GROUP


def open_labels(recipe: Recipe, aoi: Aoi, chips: Sequence[Chip], locked: Sequence[LockedItem]) -> Labels:
    """Every label of the recipe, opened over the area (a vector is read here, once for the whole build).

    Raises:
        LabelError: A file, a column or a class is missing, or nothing of a label lies in the area.
        ReadError: A raster cannot be opened.
    """
    drawn = []
    for name, spec in recipe.labels.items():
        tiles = scenes_from_lock(locked, PREFIX + name)
        if isinstance(spec, ProductLabel):
            _compare_years(name, spec, recipe)
        drawn.append(
            open_label(
                name,
                _located(spec, recipe),
                aoi=aoi,
                rasters=tuple(tile.assets[0].href for tile in tiles),
                margin_m=1.5 * chips[0].size_m,
                reach=partial(access, signing=tiles[0].signing) if tiles else None,
            )
        )
    return Labels(tuple(drawn), least={name: spec.min_labelled for name, spec in recipe.labels.items()})


def _located(spec: LabelSpec, recipe: Recipe) -> LabelSpec:
    """A label's spec with absolute paths."""
    changes: dict[str, Any] = {}
    for option in spec.paths:
        value = getattr(spec, option)
        if isinstance(value, str):
            changes[option] = recipe.file(value)
        elif value is not None:
            changes[option] = tuple(recipe.file(path) for path in value)
    return dataclasses.replace(spec, **changes)


def _compare_years(name: str, spec: ProductLabel, recipe: Recipe) -> None:
    first, last = recipe.interval.years
    assert spec.year is not None  # the spec fills it in
    if not first <= spec.year <= last:
        images = str(first) if first == last else f"{first} to {last}"
        log.warning(
            "label %s: the map of %s is of %d and the images are of %s; what changed in between is wrong in the label",
            name, spec.product, spec.year, images,
        )  # fmt: skip


def layout_of(labels: Labels, side_m: float, grid_m: float) -> tuple[list[Group], list[Variable]]:
    """Groups and variables of all labels, for chips of ``side_m`` metres on a grid of ``grid_m`` metres a pixel."""
    coords: dict[str, list[Coordinate]] = {}
    sizes: dict[str, float] = {}
    variables = []
    for label in labels.all:
        group = labels.group(label)
        own = label.resolution_m if isinstance(label, LabelSource) else None
        sizes.setdefault(group, grid_m if own is None else own)
        side_px = round(side_m / sizes[group])
        for variable in label.variables:
            variables.append(
                Variable(
                    group=group,
                    name=variable.name,
                    dims=tuple(_dim(label.name, dim) for dim in variable.dims),
                    shape=variable.shape(side_px),
                    dtype=variable.dtype,
                    fill=variable.fill,
                    attrs={**variable.attrs, "label": label.name, "kind": variable.kind},
                    void=variable.kind in ("classes", "measure"),
                )
            )
            for dim, values in variable.coords:
                named = Coordinate(_dim(label.name, dim), _dim(label.name, dim), "string", values)
                if named not in coords.setdefault(group, []):
                    coords[group].append(named)
    groups = [
        Group(name=group, attrs={"resolution_m": size}, coords=tuple(coords.get(group, ())))
        for group, size in sizes.items()
    ]
    return groups, variables


def _dim(label: str, dim: str) -> str:
    """Dimensions besides the pixels' are the label's own: two labels may have other numbers of channels."""
    return dim if dim in ("y", "x") else f"{label}_{dim}"


def bytes_per_chip(labels: Labels, side_px: int, grid_m: float) -> int:
    """Raw size of all labels of one chip."""
    total = 0
    for label in labels.all:
        own = label.resolution_m if isinstance(label, LabelSource) else None
        side = side_px if own is None else round(side_px * grid_m / own)
        total += sum(math.prod(v.shape(side)) * np.dtype(v.dtype).itemsize for v in label.variables)
    return total


def label_shard(labels: Labels, shard: Shard) -> tuple[Arrays, list[dict[str, LabelRecord]]]:
    """All labels of a shard: arrays (chip, …) by (group, variable), and what each label says about each chip.

    Raises:
        ReadError: A raster cannot be read.
        LabelError: A raster holds a value that is no class.
    """
    arrays: Arrays = {}
    for label in labels.drawn:
        arrays |= _draw(label, labels.group(label), shard)
    found: list[dict[str, Derived]] = [{} for _ in shard.chips]
    for derived in labels.derived:
        arrays |= _derive(derived, labels, arrays, found)
    records = []
    for index in range(len(shard.chips)):
        told = {}
        for each in labels.all:
            own = {v.name: arrays[labels.group(each), v.name][index] for v in each.variables}
            told[each.name] = _record(each.variables, own, found[index].get(each.name), labels.least[each.name])
        records.append(told)
    return arrays, records


def _draw(label: LabelSource, group: str, shard: Shard) -> Arrays:
    """The variables of a label drawn from the place, chip by chip."""
    first = shard.chips[0]
    size = label.resolution_m or first.resolution_m
    side = round(first.size_m / size)
    out = {v.name: np.full((len(shard.chips), *v.shape(side)), v.fill, v.dtype) for v in label.variables}
    channels = sum(math.prod(v.shape(1)) for v in label.variables)
    largest_px = max(int(WINDOW_PX / channels * (size / first.resolution_m) ** 2), first.size_px**2)
    for window in shard.windows(largest_px):
        own = window.at(size)
        drawn = label.render(own)
        for chip, (y, x) in zip(own.chips, own.corners, strict=True):
            for name, array in out.items():
                array[chip] = drawn[name][..., y : y + side, x : x + side]
    return {(group, name): array for name, array in out.items()}


def _derive(label: ChipLabel, labels: Labels, arrays: Arrays, found: list[dict[str, Derived]]) -> Arrays:
    """The variables of a label derived on each chip; what it says besides goes into ``found``."""
    inputs = {name: array for (_, name), array in arrays.items() if name in label.needs}
    results = [label.derive({name: array[index] for name, array in inputs.items()}) for index in range(len(found))]
    for told, result in zip(found, results, strict=True):
        told[label.name] = result
    group = labels.group(label)
    return {(group, v.name): np.stack([result.arrays[v.name] for result in results]) for v in label.variables}


def _record(
    variables: Sequence[LabelVariable], pixels: Mapping[str, npt.NDArray[Any]], derived: Derived | None, least: float
) -> LabelRecord:
    """What a label says about one chip; its first variable is what counts as labelled."""
    shares: dict[int, float] = {}
    labelled = 1.0 if derived is not None and derived.text else 0.0
    if variables:
        first = variables[0]
        array = pixels[first.name]
        if first.kind == "classes" and first.pixels:
            shares = class_shares(array, int(first.fill))
            labelled = sum(shares.values())
        elif first.kind == "presence" and first.pixels and array.ndim == 3:
            shares = {i: float((layer > 0).mean()) for i, layer in enumerate(array) if layer.any()}
            labelled = float((array > 0).any(axis=0).mean())
        else:
            labelled = float(_told(array, first).mean())
    reason = "" if derived is None else derived.reason
    if labelled < least:
        reason = reason or f"{labelled:.1%} labelled, wanted {least:.1%}"
    if derived is None:
        return LabelRecord(shares=shares, labelled=labelled, reason=reason)
    values = {what: float(value) for what, value in derived.values.items() if math.isfinite(value)}
    return LabelRecord(shares, labelled, values, derived.classes, derived.text, reason)


def _told(array: npt.NDArray[Any], variable: LabelVariable) -> npt.NDArray[np.bool_]:
    """Where a variable tells something."""
    if array.dtype.kind == "f":
        return np.asarray(~np.isnan(array))
    return np.asarray(array != variable.fill)
