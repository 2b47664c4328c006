"""Steps of time: the scenes of one acquisition, which are joined into one image."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import shapely

    from catalog.scene import Scene
    from cube.build import CubeRequest


def grown(footprint: shapely.Geometry) -> shapely.Geometry:
    """Footprints are drawn by hand and by rule; 0.01 degree (1 km) more costs a look at a file, less costs pixels."""
    import shapely

    wider: shapely.Geometry = shapely.buffer(footprint, 0.01)
    return wider


@dataclass(frozen=True, slots=True)
class Step:
    """All scenes of one acquisition."""

    time: dt.datetime | None
    scenes: tuple[Scene, ...]
    orbit: str | None


def join_steps(request: CubeRequest, scenes: Sequence[Scene]) -> list[Step]:
    """Scenes joined by acquisition, in order of time, held to the periods and orbits of the request."""
    if request.time is None:
        return [Step(None, tuple(scenes), None)] if scenes else []
    joined: dict[str, list[Scene]] = {}
    for scene in scenes:
        joined.setdefault(scene.acquisition, []).append(scene)
    steps = []
    for members in joined.values():
        times = [scene.acquired for scene in members if scene.acquired is not None]
        if not times:
            raise ValueError(f"scene {members[0].id} has no time, but source {request.name} asks for a time axis")
        step = Step(min(times), tuple(members), members[0].orbit)
        if request.periods and not any(step.time in period for period in request.periods):  # type: ignore[operator]
            continue
        if request.orbits and step.orbit not in request.orbits:
            continue
        steps.append(step)
    return sorted(steps, key=lambda step: (step.time, min(scene.id for scene in step.scenes)))
