"""WebDataset: chips as files in tar archives, read from first to last by many workers at once.

The members of a chip bear its name: ``<chip>.json`` and ``<chip>.<group>.<variable>.npy``. Chips are shuffled by the
hash of their names, because a tar is read in order and neighbours are alike. A dot in a name is ``%2E``.
https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from chips.layout import Variable
from publish.export import Chip, Source, Target

TAR_BYTES = 256 * 2**20
"""Raw size that a tar stays under, where a chip does not pass it alone: it is made in memory."""


def write_tars(source: Source, target: Target) -> Iterator[int]:
    """Write ``<split>-000000.tar`` and so on; gives the number of chips of each as it is done."""
    raw = sum(variable.bytes_per_chip for variable in source.variables)
    together = max(1, TAR_BYTES // max(raw, 1))
    for split in source.splits:
        chips = sorted((c for c in source.chips if c.split == split), key=lambda chip: _shuffled(chip.name))
        for ordinal, start in enumerate(range(0, len(chips), together)):
            part = chips[start : start + together]
            target.put(
                f"{split}-{ordinal:06d}.tar",
                partial(_tar, source, part),
                f"{len(part)} chips",
                split,
                "",
                "",
            )
            yield len(part)


def _shuffled(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _tar(source: Source, chips: list[Chip]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for chip in chips:
            # A sample's name ends at the first dot.
            key = chip.name.replace(".", "%2E")
            _add(tar, f"{key}.json", json.dumps(_about(source, chip), sort_keys=True).encode())
            for variable in source.variables:
                array = io.BytesIO()
                np.save(array, source.read(variable, chip), allow_pickle=False)
                _add(tar, f"{key}.{variable.group}.{variable.name}.npy", array.getvalue())
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # No times and no owners: equal chips give equal archives.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _about(source: Source, chip: Chip) -> dict[str, Any]:
    """What is needed to use the arrays of a chip."""
    groups = dict.fromkeys(variable.group for variable in source.variables)
    return {
        "chip": chip.name,
        "split": chip.split,
        "crs": f"EPSG:{chip.epsg}",
        "x0": chip.x0,
        "y0": chip.y0,
        "lon": chip.lon,
        "lat": chip.lat,
        "times": {group: [step.time for step in steps] for group in groups if (steps := source.steps(group, chip))},
        "arrays": {f"{v.group}.{v.name}": _array(source, v, source.corner(v.group, chip)) for v in source.variables},
    }


def _array(source: Source, variable: Variable, corner: tuple[float, float]) -> dict[str, Any]:
    told: dict[str, Any] = {"dims": list(variable.dims)}
    if variable.spatial:
        told["resolution_m"] = source.opened.layout.group(variable.group).attrs["resolution_m"]
        told["x0"], told["y0"] = corner
        told["names"] = list(source.names(variable))
    if variable.void:
        told["void"] = variable.stored_fill
    for name in ("scale_factor", "add_offset", "units", "flag_values", "flag_names"):
        if name in variable.attrs:
            told[name] = variable.attrs[name]
    return told
