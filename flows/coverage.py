"""How much of chips and of the whole region is seen, and how often: the metric of `cube.coverage` over a dataset."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chips.index import CoverageRecord
from cube.coverage import Coverage, of_chip, of_region

if TYPE_CHECKING:
    from chips.index import ChipRecord
    from cube.build import CubeRecord, CubeRequest


def chip_coverage(request: CubeRequest, found: CubeRecord) -> CoverageRecord | None:
    """Coverage of one chip over all dates that were seen there; None where it is not asked for."""
    if request.coverage is None:
        return None
    values = _values(request.coverage.of(of_chip(found.clear_px, request.size_px**2)))
    return CoverageRecord(**values, clear_px=dict(found.clear_px))


def region_coverage(requests: Sequence[CubeRequest], records: Sequence[ChipRecord]) -> bytes | None:
    """Coverage of all chips together, as ``coverage.json``: by source, with what was asked; None when nothing was.

    A date counts for the region when any chip has seen it.
    """
    document: dict[str, Any] = {}
    for request in requests:
        spec = request.coverage
        if spec is None:
            continue
        found = [record.sources[request.name].coverage for record in records]
        chips = [one.clear_px for one in found if one is not None]
        dates, counts = of_region(chips, request.size_px**2, spec.labels)
        share = (100 * counts.clear / max(counts.pixels, 1)).round(4).tolist()
        document[request.name] = {
            **dataclasses.asdict(spec),
            "classes": sorted(spec.labels),
            **_values(spec.of(counts)),
            "chips": len(chips),
            "dates_pct": dict(zip(dates, share, strict=True)),
        }
    return json.dumps(document, indent=1).encode() if document else None


def _values(found: Coverage) -> dict[str, Any]:
    """By the names that the paper's tables have."""
    return {
        "sc_pct": None if math.isnan(found.spatial_pct) else found.spatial_pct,
        "tc_pct": None if math.isnan(found.temporal_pct) else found.temporal_pct,
        "sca": found.spatial,
        "tca": found.temporal,
        "num_timesteps": found.num_timesteps,
        "num_timesteps_above": found.num_timesteps_above,
        "num_timesteps_not_full": found.num_timesteps_not_full,
    }
