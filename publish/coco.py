"""COCO: instances of a label as annotations of images, their pixels exactly as run lengths.

The format is that of https://cocodataset.org/#format-data: ``instances_<split>.json``, with uncompressed run lengths
down the columns, which pycocotools reads. An image is one date of one source, the clearest, as a GeoTIFF.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from chips.layout import Variable
from curate.errors import StoreError
from labels.legend import Legend
from publish.export import Chip, Source, Step, Target, path_of
from publish.geotiff import geotiff


@dataclass(frozen=True, slots=True)
class Coco:
    """The variables that annotations are made of."""

    instances: Variable
    classes: Variable | None
    """The classes on the same pixels; without them there is one class, the label."""
    image: Variable


def coco_of(source: Source) -> Coco:
    """What of a dataset becomes annotations and images.

    Raises:
        StoreError: The dataset has no instances, or several and none is named, or no image of their size.
    """
    instances = _instances(source)
    return Coco(instances, _classes(source, instances), _image(source, instances))


def write_coco(source: Source, coco: Coco, target: Target) -> Iterator[int]:
    """Write ``images/<split>/<chip>.tif`` and ``instances_<split>.json``; gives chips as they are done."""
    instances, classes, image = coco.instances, coco.classes, coco.image
    legend = () if classes is None else Legend.of_attrs(classes.attrs).classes
    one = [{"id": 1, "name": str(instances.attrs["label"]), "supercategory": ""}]
    for split in source.splits:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        unlabelled = 0
        chips = [chip for chip in source.chips if chip.split == split]
        for chip in chips:
            step = _clearest(source, image, chip)
            path = f"images/{split}/{chip.name}.tif"
            target.put(
                path,
                partial(_pixels, source, image, chip, step),
                chip.name,
                split,
                path_of(image),
                "" if step is None else step.time,
            )
            ids = source.read(instances, chip)
            images.append(
                {
                    "id": chip.row + 1,
                    "file_name": path,
                    "width": ids.shape[1],
                    "height": ids.shape[0],
                    "date_captured": "" if step is None else step.time,
                }
            )
            codes = None if classes is None else source.read(classes, chip)
            for number in np.unique(ids[ids != instances.stored_fill]).tolist():
                mask = ids == number
                code = 1 if codes is None or classes is None else _code(codes[mask], classes)
                if code is None:
                    unlabelled += 1
                    continue
                told = annotation(mask)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": chip.row + 1,
                        "category_id": code,
                        "instance": number,
                        **told,
                    }
                )
            yield 1
        if chips:
            document = {
                "info": {
                    "description": f"{instances.name} of {source.opened.layout.attrs['title']}, {split}",
                    "without_class": unlabelled,
                },
                "licenses": [],
                "images": images,
                "annotations": annotations,
                "categories": [{"id": c.code, "name": c.name, "supercategory": ""} for c in legend] or one,
            }
            path = f"instances_{split}.json"
            target.put(path, partial(_json, document), "", split, path_of(instances), "")


def annotation(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Run lengths, area in pixels and box (x, y, width, height) of a mask (y, x) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return {
        "segmentation": {"counts": run_lengths(mask), "size": list(mask.shape)},
        "area": int(mask.sum()),
        "bbox": [
            int(columns[0]),
            int(rows[0]),
            int(columns[-1] - columns[0] + 1),
            int(rows[-1] - rows[0] + 1),
        ],
        "iscrowd": 0,
    }


def run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a mask (y, x) down its columns, beginning with those that are not set (which may be 0)."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], ends, [flat.size]])
    lengths: list[int] = np.diff(bounds).tolist()
    return [0, *lengths] if flat[0] else lengths


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _instances(source: Source) -> Variable:
    known = {v.name: v for v in source.opened.layout.variables if v.attrs.get("kind") == "ids" and v.dims == ("y", "x")}
    if source.spec.label is not None:
        if source.spec.label not in known:
            found = ", ".join(known) or "none"
            raise StoreError(source.opened.url, f"has no instances called '{source.spec.label}'; found {found}")
        return known[source.spec.label]
    # The zones of panoptic targets are ids too, but not of what lies on the pixel.
    likely = [v for name, v in known.items() if not name.endswith("_zone")]
    if len(likely) != 1:
        found = ", ".join(v.name for v in likely)
        why = (
            f"has several labels with instances; name one of {found}"
            if likely
            else ("has no label with instances; ask for them in the recipe (targets: [instances])")
        )
        raise StoreError(source.opened.url, why)
    return likely[0]


def _classes(source: Source, instances: Variable) -> Variable | None:
    """The classes on the same pixels as the instances: the main variable of their label."""
    for v in source.opened.layout.variables:
        same = v.group == instances.group and v.name == instances.attrs["label"] and v.dims == ("y", "x")
        if same and v.attrs.get("kind") == "classes":
            return v
    return None


def _image(source: Source, instances: Variable) -> Variable:
    """What a source measures, on pixels of the instances' size; the first source that is wanted."""
    sides = instances.shape[-2:]
    for variable in source.variables:
        if variable.spatial and "label" not in variable.attrs and variable.shape[-2:] == sides:
            return variable
    raise StoreError(source.opened.url, f"has no source with pixels of the size of {instances.name} to annotate")


def _clearest(source: Source, image: Variable, chip: Chip) -> Step | None:
    """The step with the largest clear share, of equals the first; None where there is no time axis."""
    if "time" not in image.dims:
        return None
    steps = source.steps(image.group, chip)
    clear = source.arrays.get(f"{image.group}/clear")
    if not steps or clear is None:
        return steps[0] if steps else None
    shares = np.nan_to_num(np.asarray(clear[chip.row]), nan=-1.0)
    return max(steps, key=lambda step: (shares[step.index], -step.index))


def _pixels(source: Source, image: Variable, chip: Chip, step: Step | None) -> bytes:
    found = source.read(image, chip)
    if "time" in image.dims:
        found = found[0 if step is None else step.index]
    return geotiff(found, image, chip, source, step)


def _code(codes: npt.NDArray[Any], classes: Variable) -> int | None:
    """The most frequent class of an instance's pixels, None where they have none."""
    values, counts = np.unique(codes[codes != classes.stored_fill], return_counts=True)
    return int(values[counts.argmax()]) if len(values) else None
