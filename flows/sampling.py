"""From the chips of an area to those that are taken: opens the layers that the recipe's samplers ask for.

What was taken is frozen in ``sampling.json`` beside the lock, so that a build that continues, a worker and `curate
check` need none of the layers again.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curate.errors import RecipeError, StoreError
from flows.inputs import files
from recipes.recipe import Recipe
from tiling.layers import Shares, class_shares, covered, polygon_shares, raster_points, read_vector, touched
from tiling.sample import (
    Taken,
    take_balanced,
    take_categories,
    take_cities,
    take_distinct,
    take_landcover,
    take_positives,
    take_strata,
    take_uniform,
)
from tiling.sample_spec import (
    AllCells,
    BalancedSample,
    CitySample,
    DistinctSample,
    LandCoverSample,
    OsmSample,
    PositiveSample,
    SampleStep,
    StrataSample,
    UniformSample,
)
from tiling.split import BUFFER

if TYPE_CHECKING:
    from chips.index import ChipRecord
    from flows.console import Console
    from flows.plan import Area
    from tiling.grid import Chip

SAMPLING = "sampling.json"
"""The chips that were taken, with why and how many there were to choose from; there where the recipe samples."""
VERSION = 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """What was taken of an area, as it is stored."""

    summary: Mapping[str, Any]
    """Counts: candidates, buffer, taken, and for each step what came of its groups."""
    chips: Mapping[str, tuple[str, float | None]]
    """Id of each chip taken -> why, and how many candidates it stands for (None where that has no meaning)."""

    def to_bytes(self) -> bytes:
        """The document; a chip a line."""
        chips = ",\n".join(f"  {json.dumps(id)}: {json.dumps(list(why))}" for id, why in sorted(self.chips.items()))
        head = json.dumps({"version": VERSION, **self.summary}, indent=1, sort_keys=True)
        return f'{head[:-2]},\n "chips": {{\n{chips}\n }}\n}}\n'.encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Sampling:
        """The sampling of a document. Raises StoreError when it is none."""
        try:
            found = json.loads(data)
            version, chips = found.pop("version"), found.pop("chips")
            if version != VERSION:
                raise ValueError(f"version {version}")
            return cls(found, {id: (str(by), weight) for id, (by, weight) in chips.items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(SAMPLING, f"is damaged or of another release: {error}") from error


def sampled(recipe: Recipe, area: Area, console: Console) -> Area:
    """The area with the chips that the recipe's samplers take; the same area where it takes all.

    Chips between splits (``buffer``) are not drawn from: nobody trains or tests on them.

    Raises:
        RecipeError: A layer cannot be used, or no chip is left.
    """
    steps = [step for step in recipe.sample_steps if not isinstance(step, AllCells)]
    if not steps:
        return area
    left = np.flatnonzero(area.split != BUFFER)
    by: list[list[str]] = [[] for _ in left]
    weight = np.ones(len(left))
    told = []
    for step in steps:
        if not len(left):
            break
        with files(recipe) as file:
            taken = _take(step, [area.chips[at] for at in left.tolist()], recipe, area, file)
        told.append(
            {
                "method": step.method,
                "candidates": len(left),
                "taken": len(taken.index),
                "groups": {name: dataclasses.asdict(group) for name, group in taken.groups.items()},
                "short": list(taken.short),
            }
        )
        for sentence in taken.short:
            console.say(f"sample {step.method}: {sentence}", level="warning")
        by = [[*by[at], why] for at, why in zip(taken.index.tolist(), taken.by, strict=True)]
        weight = weight[taken.index] * taken.weight
        left = left[taken.index]
    if not len(left):
        method = told[-1]["method"] if told else "sample"
        raise RecipeError("recipe", (f"sample: {method} takes none of {len(area.chips)} chips; ask for other ones",))
    summary = {
        "candidates": len(area.chips),
        "buffer": int((area.split == BUFFER).sum()),
        "taken": len(left),
        "steps": told,
    }
    chips = {
        area.chips[at].id: ("; ".join(why), None if math.isnan(stands_for) else stands_for)
        for at, why, stands_for in zip(left.tolist(), by, weight.round(6).tolist(), strict=True)
    }
    console.say(f"{len(left)} of {len(area.chips)} chips are taken")
    return dataclasses.replace(
        area,
        chips=tuple(area.chips[at] for at in left.tolist()),
        cover=area.cover[left],
        split=area.split[left],
        fold=None if area.fold is None else area.fold[left],
        sampling=Sampling(summary, chips).to_bytes(),
    )


def taken_by(sampling: bytes, chips: Sequence[Chip]) -> npt.NDArray[np.bool_]:
    """Which of an area's chips ``sampling.json`` names. Raises StoreError when it names others."""
    taken = Sampling.from_bytes(sampling).chips
    keep = np.array([chip.id in taken for chip in chips])
    if int(keep.sum()) != len(taken):
        raise StoreError(SAMPLING, f"names {len(taken) - int(keep.sum())} chips that are not of this area and grid")
    return keep


def with_sampling(records: Sequence[ChipRecord], sampling: bytes) -> list[ChipRecord]:
    """The records with why each chip was taken and how many candidates it stands for."""
    chips = Sampling.from_bytes(sampling).chips
    return [
        dataclasses.replace(record, sampled_by=chips[record.chip][0], sample_weight=chips[record.chip][1])
        for record in records
    ]


def sampling_attrs(sampling: bytes | None) -> dict[str, Any]:
    """What the store says about it: the counts, as the attribute ``sampling`` of its root."""
    return {} if sampling is None else {"sampling": dict(Sampling.from_bytes(sampling).summary)}


def sampling_lines(summary: Mapping[str, Any] | None) -> list[str]:
    """For a person: how many chips were taken, and by what; nothing where all were."""
    if summary is None:
        return []
    lines = [
        f"{summary['taken']} of {summary['candidates']} chips; {summary['buffer']} between splits are not drawn from"
    ]
    for step in summary["steps"]:
        groups = [f"{name} {group['taken']} of {group['candidates']}" for name, group in step["groups"].items()]
        shown = ", ".join(groups[:TOLD]) + (f" and {len(groups) - TOLD} more" if len(groups) > TOLD else "")
        lines.append(f"{step['method']}: {step['taken']} of {step['candidates']} ({shown})")
        lines += [f"  {sentence}" for sentence in step["short"]]
    return lines


TOLD = 8
"""Groups that are named one by one; all stand in the document."""


def _take(step: SampleStep, chips: Sequence[Chip], recipe: Recipe, area: Area, file: Callable[[str], str]) -> Taken:
    """What one step takes of the chips that are left."""
    around = area.search_geometry()

    def vector(path: str, *attributes: str | None) -> Any:
        return read_vector(file(path), around, attributes=[name for name in attributes if name])

    def shares(spec: StrataSample | BalancedSample) -> Shares:
        if spec.raster is not None:
            return class_shares(chips, rasters_of(recipe, spec.raster))
        assert spec.vector is not None  # __post_init__
        assert spec.attribute is not None
        return polygon_shares(chips, vector(spec.vector, spec.attribute), spec.attribute)

    match step:
        case UniformSample():
            land = None if step.land is None else covered(chips, vector(step.land).geometry.to_numpy())
            return take_uniform(chips, step, land)
        case CitySample():
            return take_cities(chips, step, _cities(step, area, file))
        case StrataSample():
            return take_strata(chips, step, shares(step))
        case LandCoverSample():
            return take_landcover(chips, step, class_shares(chips, rasters_of(recipe, step.raster)))
        case OsmSample():
            return take_categories(chips, _osm(step, chips, area, file), each=step.each, quota=step.quota,
                                   seed=step.seed)  # fmt: skip
        case PositiveSample():
            positive = touched(chips, vector(step.vector).geometry.to_numpy())
            alike = None
            if step.hard_vector is not None:
                alike = touched(chips, vector(step.hard_vector).geometry.to_numpy())
            return take_positives(chips, step, positive, alike)
        case BalancedSample():
            return take_balanced(chips, step, shares(step))
        case DistinctSample():
            return take_distinct(chips, step, *raster_points(chips, rasters_of(recipe, step.raster)))
    raise AssertionError(f"{step} takes every chip and is left out before")


def rasters_of(recipe: Recipe, value: str | tuple[str, ...]) -> list[str]:
    """Absolute paths of rasters, globs resolved, sorted as they were asked for."""
    out: list[str] = []
    for one in (value,) if isinstance(value, str) else value:
        path = recipe.file(one)
        found = sorted(glob.glob(path)) if "://" not in path and glob.has_magic(path) else [path]
        if not found:
            raise RecipeError("recipe", (f"sample: no file is named like {one}",))
        out += found
    return out


def _cities(step: CitySample, area: Area, file: Callable[[str], str]) -> Any:
    """The points from which a step may end in the area: five standard deviations around it."""
    reach = area.search_geometry(5 * step.sigma_km * 1000)
    attributes = [name for name in (step.weight, step.name) if name]
    table = read_vector(file(step.points), reach, attributes=attributes)
    if not (table.geometry.geom_type == "Point").all():
        raise RecipeError("recipe", (f"sample: {step.points} holds other shapes than points; wanted a point a city",))
    if step.weight is not None and not np.issubdtype(table[step.weight].dtype, np.number):
        raise RecipeError("recipe", (f"sample: {step.weight} of {step.points} holds text; wanted numbers",))
    return table


def _osm(step: OsmSample, chips: Sequence[Chip], area: Area, file: Callable[[str], str]) -> Shares:
    """Which chips have which categories of OpenStreetMap, 1 or 0."""
    from labels.extract import read_extract
    from labels.rules import is_path, read_rules
    from tiling.layers import presence

    rules = read_rules(file(step.rules) if is_path(step.rules) else step.rules)
    extract = read_extract(
        "sample",
        file(step.extract),
        keys=rules.keys,
        match=rules.match,
        box=area.search_geometry().bounds,
        points=any("point" in rule.kinds for rule in rules.rules),
        tags=False,
    )
    names = {each.code: each.name for each in rules.legend.classes}
    codes = [{match.code, *(code for code, *_ in match.also)} for match in extract.matches]
    if strange := [name for name in step.quota if name not in names.values()]:
        known = ", ".join(sorted(names.values()))
        raise RecipeError(
            "recipe", (f"sample: quota has {strange[0]!r}, which is none of the rules {rules.name}: {known}",)
        )
    return presence(chips, extract.geometry, [[names[code] for code in each if code in names] for each in codes])
