"""The labels of a build: opened once for the plan, drawn and derived shard by shard, and told chip by chip."""

from __future__ import annotations

import dataclasses
import io
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
from chips.index import ChipRecord, LabelRecord, table_bytes
from chips.layout import Coordinate, Group, Variable
from curate.errors import LabelError
from curate.objects import Nearby, ObjectsError, nearby
from labels.caption import CaptionLabel, CaptionSpec, Tag
from labels.layers import Layer
from labels.legend import is_file
from labels.osm import OsmSource
from labels.osm_spec import OsmLabel
from labels.read import class_shares, derive_label, layers_of, open_label, own_label
from labels.source import ChipLabel, Derived, FeatureSource, LabelSource, LabelVariable
from labels.spec import DerivedSpec, DrawnSpec, LabelSpec, ProductLabel
from labels.zonal import ZonalLabel

if TYPE_CHECKING:
    import pandas as pd

    from recipes.recipe import Recipe
    from tiling.aoi import Aoi
    from tiling.grid import Chip
    from tiling.shards import Shard

log = logging.getLogger(__name__)

PREFIX = "label:"
"""In the lock, the items of a label product stand under this prefix and the label's name."""
GROUP = "label"
"""Group of the store with all labels on the grid's pixels; one of another pixel size has a group of its own."""
READ_BY_WINDOWS = ("raster", "measure")
"""Paths of labels whose files are read piece by piece, wherever they lie."""
HALO_PX = 256
"""How far around a window targets of parcels look at most."""
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
    tags: Mapping[str, Mapping[str, Sequence[Tag]]] = field(default_factory=dict, repr=False)
    """Label -> chip -> what OpenStreetMap has there, of labels whose tags a caption tells."""

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
        LabelError: A file, a column or a class is missing, nothing of a label lies in the area, or a label cannot be
            made from those that it names.
        ReadError: A raster cannot be opened.
    """
    with nearby() as near:
        try:
            return _open_labels(recipe, aoi, chips, locked, near)
        except LabelError as error:
            raise LabelError(near.told(error.what), near.told(error.why)) from error


def _open_labels(recipe: Recipe, aoi: Aoi, chips: Sequence[Chip], locked: Sequence[LockedItem], near: Nearby) -> Labels:
    drawn: list[LabelSource] = []
    derived: list[ChipLabel] = []
    layers: dict[str, Layer] = {}
    tags: dict[str, Mapping[str, Sequence[Tag]]] = {}
    captioned = {s.of for s in recipe.labels.values() if isinstance(s, CaptionSpec) and s.caption == "tags"}
    for name in recipe.label_order:
        spec = _located(name, recipe.labels[name], recipe, near)
        found: tuple[LabelSource | ChipLabel, ...]
        if isinstance(spec, DerivedSpec):
            derived.append(derive_label(name, spec, layers))
            _can_be_derived(derived[-1], drawn, tags)
            found = (derived[-1],)
        else:
            tiles = scenes_from_lock(locked, PREFIX + name)
            if isinstance(spec, ProductLabel):
                _compare_years(name, spec, recipe)
            opened = open_label(
                name,
                _with_tags(spec) if name in captioned else spec,
                aoi=aoi,
                rasters=tuple(tile.assets[0].href for tile in tiles),
                margin_m=1.5 * chips[0].size_m + HALO_PX * chips[0].resolution_m,
                reach=partial(access, signing=tiles[0].signing) if tiles else access,
                interval=(recipe.interval.start, recipe.interval.end),
            )
            if isinstance(spec, OsmLabel) and name in captioned:
                (source,) = opened
                assert isinstance(source, OsmSource)
                tags[name] = source.tag_counts(chips)
                opened = (source if spec.features else dataclasses.replace(source, kept=None),)
            own = own_label(spec, opened, epsg=chips[0].epsg, resolution_m=chips[0].resolution_m)
            drawn += opened
            derived += () if own is None else (own,)
            found = opened if own is None else (*opened, own)
        for label in found:
            layers |= layers_of(label, spec, layers)
    least = {name: spec.min_labelled for name, spec in recipe.labels.items()}
    return Labels(tuple(drawn), tuple(derived), least, tags)


def _with_tags(spec: DrawnSpec) -> DrawnSpec:
    """The spec so that what is opened knows the tags of its features, whether they are written or not."""
    return dataclasses.replace(spec, features=True) if isinstance(spec, OsmLabel) else spec


def _can_be_derived(label: ChipLabel, drawn: Sequence[LabelSource], tags: Mapping[str, Any]) -> None:
    """LabelError when a label is made from pixels of another size than the grid's, or from tags that there are not."""
    if isinstance(label, CaptionLabel) and (without := set(label.tag_needs) - set(tags)):
        raise LabelError(
            f"label {label.name}",
            f"tells the tags of {without.pop()}, which has none; name a label that is made from an `extract` of "
            "OpenStreetMap",
        )
    for source in drawn:
        if source.resolution_m is not None and any(v.name in label.needs for v in source.variables):
            raise LabelError(
                f"label {label.name}",
                f"is made from {source.name}, whose pixels have {source.resolution_m:g} m and not those of the grid; "
                f"take resolution_m away from {source.name}",
            )


def _located(name: str, spec: LabelSpec, recipe: Recipe, near: Nearby) -> LabelSpec:
    """A label's spec with absolute paths; what is read as a whole is brought near, rasters are read where they lie."""
    changes: dict[str, Any] = {}
    for option in spec.paths:
        value = getattr(spec, option)
        if value is None or (option == "legend" and not is_file(value)):
            continue  # a name
        files = [recipe.file(path) for path in ((value,) if isinstance(value, str) else value)]
        if option not in READ_BY_WINDOWS:
            try:
                files = [near.path(file) for file in files]
            except ObjectsError as error:
                raise LabelError(f"label {name}", f"{option} {', '.join(files)} cannot be read: {error}") from error
        changes[option] = files[0] if isinstance(value, str) else tuple(files)
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
                    void=variable.kind == "classes",
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


def label_documents(labels: Labels, chips: Sequence[Chip], records: Sequence[ChipRecord]) -> dict[str, bytes]:
    """What labels say that is no pixel: ``labels/<name>.parquet`` -> features (GeoParquet) or a table (Parquet)."""
    documents = {}
    for table in labels.derived:
        rows = [{"chip": record.chip, **row} for record in records for row in record.labels[table.name].rows]
        if rows:
            documents[f"labels/{table.name}.parquet"] = table_bytes(rows)
    for label in labels.drawn:
        if isinstance(label, FeatureSource) and len(found := label.features(chips)):
            out = io.BytesIO()
            found.to_parquet(out, index=False, compression="zstd")
            documents[f"labels/{label.name}.parquet"] = out.getvalue()
    return documents


def bytes_per_chip(labels: Labels, side_px: int, grid_m: float) -> int:
    """Raw size of all labels of one chip."""
    total = 0
    for label in labels.all:
        own = label.resolution_m if isinstance(label, LabelSource) else None
        side = side_px if own is None else round(side_px * grid_m / own)
        total += sum(math.prod(v.shape(side)) * np.dtype(v.dtype).itemsize for v in label.variables)
    return total


Known = tuple[Sequence[int], Mapping[str, npt.NDArray[Any]]]
"""Positions of chips within a shard, and their arrays by variable."""


def label_shard(
    labels: Labels,
    shard: Shard,
    images: Mapping[str, npt.NDArray[np.float32]],
    known: Mapping[str, Known] | None = None,
) -> tuple[Arrays, list[dict[str, LabelRecord]]]:
    """All labels of a shard: arrays (chip, …) by (group, variable), and what each label says about each chip.

    Args:
        labels: What to draw and to derive.
        shard: The chips.
        images: Pixels (chip, band, y, x) of the sources that ``image_needs`` names, NaN where void.
        known: Drawn label -> chips that need not be drawn, because their pixels are known.

    Raises:
        ReadError: A raster cannot be read.
        LabelError: A raster holds a value that is no class.
    """
    arrays: Arrays = {}
    for label in labels.drawn:
        arrays |= _draw(label, labels.group(label), shard, (known or {}).get(label.name))
    found: list[dict[str, Derived]] = [{} for _ in shard.chips]
    for derived in labels.derived:
        arrays |= _derive(derived, labels, shard, arrays, images, found)
    # What else is made of a label has its name too; the first variable is what counts as labelled.
    first = {each.name: (labels.group(each), each.variables[:1]) for each in reversed(labels.all)}
    records = [
        {
            name: _record(
                main, arrays[group, main[0].name][index] if main else None, told.get(name), labels.least[name]
            )
            for name, (group, main) in first.items()
        }
        for index, told in enumerate(found)
    ]
    return arrays, records


def _draw(label: LabelSource, group: str, shard: Shard, known: Known | None = None) -> Arrays:
    """The variables of a label drawn from the place, chip by chip, but for those that are known."""
    first = shard.chips[0]
    size = label.resolution_m or first.resolution_m
    side = round(first.size_m / size)
    out = {v.name: np.full((len(shard.chips), *v.shape(side)), v.fill, v.dtype) for v in label.variables}
    channels = sum(math.prod(v.shape(1)) for v in label.variables)
    largest_px = max(int(WINDOW_PX / channels * (size / first.resolution_m) ** 2), first.size_px**2)
    left = list(range(len(shard.chips)))
    if known is not None:
        there, values = known
        for name, array in out.items():
            array[list(there)] = values[name]
        left = sorted(set(left) - set(there))
        shard = dataclasses.replace(shard, chips=tuple(shard.chips[row] for row in left))
    for window in shard.windows(largest_px, size) if left else ():
        own = window.at(size)
        drawn = label.render(own)
        for chip, (y, x) in zip(own.chips, own.corners, strict=True):
            for name, array in out.items():
                array[left[chip]] = drawn[name][..., y : y + side, x : x + side]
    return {(group, name): array for name, array in out.items()}


def _derive(
    label: ChipLabel,
    labels: Labels,
    shard: Shard,
    arrays: Arrays,
    images: Mapping[str, npt.NDArray[np.float32]],
    found: list[dict[str, Derived]],
) -> Arrays:
    """The variables of a label derived on each chip; what it says besides goes into ``found``."""
    inputs = {name: array for (_, name), array in arrays.items() if name in label.needs}
    inputs |= {f"image:{source}": images[source] for source in image_needs(label)}
    results = []
    wanted = label.tag_needs if isinstance(label, CaptionLabel) else ()
    for index, (chip, told) in enumerate(zip(shard.chips, found, strict=True)):
        given: dict[str, Any] = {name: array[index] for name, array in inputs.items()}
        given |= {f"tags:{source}": labels.tags[source][chip.id] for source in wanted}
        result = label.derive(given)
        if isinstance(label, ZonalLabel):
            result = dataclasses.replace(result, rows=_rows(label.rows(given)))
        # Parcels and points derive something beside what they draw, under one name.
        told[label.name] = result
        results.append(result)
    group = labels.group(label)
    return {(group, v.name): np.stack([result.arrays[v.name] for result in results]) for v in label.variables}


def image_needs(label: ChipLabel) -> tuple[str, ...]:
    """Sources whose pixels a label is derived from."""
    needs: tuple[str, ...] = getattr(label, "image_needs", ())
    return needs


def _rows(table: pd.DataFrame) -> tuple[dict[str, Any], ...]:
    """The rows of a table as JSON values: nothing for what is missing, pairs for maps."""
    import pandas as pd

    rows = []
    for row in table.to_dict("records"):
        plain = {}
        for column, value in row.items():
            if isinstance(value, Mapping):
                plain[str(column)] = [[int(code), float(share)] for code, share in sorted(value.items())]
            elif not pd.isna(value):
                plain[str(column)] = value.item() if hasattr(value, "item") else value
        rows.append(plain)
    return tuple(rows)


def _record(
    main: Sequence[LabelVariable], array: npt.NDArray[Any] | None, derived: Derived | None, least: float
) -> LabelRecord:
    """What a label says about one chip, by its main variable (y, x) and by what it derived."""
    shares: dict[int, float] = {}
    if array is None:  # words, or a table
        labelled = 1.0 if derived is not None and (derived.text or derived.values.get("objects")) else 0.0
    elif main[0].kind == "classes" and main[0].pixels:
        shares = class_shares(array, int(main[0].fill))
        labelled = sum(shares.values())
    elif main[0].kind == "presence" and main[0].lead:
        shares = {i: float((layer > 0).mean()) for i, layer in enumerate(array) if layer.any()}
        labelled = float((array > 0).any(axis=0).mean())
    else:
        labelled = float(_told(array, main[0]).mean())
    reason = "" if derived is None else derived.reason
    if labelled < least:
        reason = reason or f"{labelled:.1%} labelled, wanted {least:.1%}"
    if derived is None:
        return LabelRecord(shares=shares, labelled=labelled, reason=reason)
    values = {what: float(value) for what, value in derived.values.items() if math.isfinite(value)}
    return LabelRecord(shares, labelled, values, derived.classes, derived.text, reason, derived.rows)


def _told(array: npt.NDArray[Any], variable: LabelVariable) -> npt.NDArray[np.bool_]:
    """Where a variable tells something."""
    if array.dtype.kind == "f":
        return np.asarray(~np.isnan(array))
    return np.asarray(array != variable.fill)
