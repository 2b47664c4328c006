"""Polygons from the ways of OpenStreetMap: rings joined, told apart as outer and inner, repaired, every fault named.

Nothing here stops at broken input and nothing is mended in silence: every function gives back the kinds of faults it
met, as keys of `FAULTS`. Coordinates are degrees (EPSG:4326), x first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

Fate = Literal["repaired", "partly drawn", "not drawn"]

FAULTS: dict[str, Fate] = {
    # nodes and ways
    "way without nodes": "not drawn",
    "way with a single node": "not drawn",
    "nodes missing": "partly drawn",
    "place beyond the earth": "partly drawn",
    "repeated nodes": "repaired",
    "line without length": "not drawn",
    "area not closed": "not drawn",
    "closed by place and not by node": "repaired",
    "ring of too few nodes": "not drawn",
    "ring without area": "not drawn",
    "ring that crosses itself": "repaired",
    "ring that touches itself": "repaired",
    "spike": "repaired",
    "across the antimeridian": "not drawn",
    # relations
    "relation without ways": "not drawn",
    "member that is no way": "partly drawn",
    "member missing": "partly drawn",
    "member twice": "repaired",
    "member of an unknown role": "repaired",
    "ring not closed": "partly drawn",
    "ring of ways of both roles": "repaired",
    "inner ring outside of the outer": "partly drawn",
    "inner ring within an inner": "repaired",
    "inner ring crosses the outer": "repaired",
    "inner rings touch": "repaired",
    "inner rings overlap": "repaired",
    "outer ring within an outer": "repaired",
    "outer rings overlap": "repaired",
    "outer way repeats its relation": "repaired",
    "tags on the outer way": "repaired",
    "tags of outer ways differ": "not drawn",
    # any
    "without geometry": "not drawn",
    "object twice": "repaired",
}
"""Every kind of fault, and what becomes of the feature."""

SAME = 1e-6
"""Two areas or lengths that agree to this share are the same: rounding of coordinates, not a fault."""

Path = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Member:
    """A way of a relation."""

    way: int
    role: str
    xy: Path | None
    """None where the file does not have it."""


def polygons_of(lines: NDArray[np.object_]) -> tuple[NDArray[np.object_], dict[str, NDArray[np.intp]]]:
    """Valid polygons of closed lines, None where nothing has an area, and which of them have which fault.

    Args:
        lines: LineStrings whose last point is the first.
    """
    faults: dict[str, NDArray[np.intp]] = {}
    out = np.full(len(lines), None, object)
    clean = shapely.remove_repeated_points(lines, 0.0)
    n = shapely.get_num_coordinates(clean)
    _note(faults, "repeated nodes", np.flatnonzero(n < shapely.get_num_coordinates(lines)))
    _note(faults, "ring of too few nodes", np.flatnonzero(n < 4))
    whole = np.flatnonzero(n >= 4)
    if not len(whole):
        return out, faults
    xy, owner = shapely.get_coordinates(clean[whole], return_index=True)
    polygons: Any = shapely.polygons(shapely.linearrings(xy, indices=owner))
    broken = np.flatnonzero(~shapely.is_valid(polygons))
    if len(broken):
        mended = areas_only(shapely.make_valid(polygons[broken], method="structure", keep_collapsed=False))
        before, after = shapely.area(polygons[broken]), shapely.area(mended)
        flat = after == 0
        # A crossing takes one lobe from the other; a line that runs out and back on itself adds length and no area.
        crosses = ~flat & (np.abs(before - after) > SAME * after)
        longer = shapely.length(polygons[broken]) > shapely.length(mended) * (1 + SAME)
        for what, these in (
            ("ring without area", flat),
            ("ring that touches itself", ~flat & ~crosses & ~longer),
            ("spike", ~flat & ~crosses & longer),
            ("ring that crosses itself", crosses),
        ):
            _note(faults, what, whole[broken[these]])
        mended[flat] = None
        polygons[broken] = mended
    out[whole] = polygons
    return out, faults


def areas_only(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    """The geometries without the points and lines that repairing leaves in collections."""
    out = geometries.copy()
    for i in np.flatnonzero(shapely.get_type_id(geometries) == shapely.GeometryType.GEOMETRYCOLLECTION):
        parts = shapely.get_parts(shapely.get_parts(geometries[i]))
        out[i] = shapely.multipolygons(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
    return out


def _note(faults: dict[str, NDArray[np.intp]], what: str, where: NDArray[np.intp]) -> None:
    if len(where):
        faults[what] = where


def assemble(members: Sequence[Member]) -> tuple[Any, set[str]]:
    """The polygon or multipolygon of a relation, None where nothing encloses an area, and the kinds of its faults.

    Roles are believed where they are given; what has none is outer or inner by how the rings lie in each other.
    """
    faults: set[str] = set()
    ways: dict[int, Member] = {}
    for member in members:
        if member.way in ways:
            faults.add("member twice")
        elif member.xy is None:
            faults.add("member missing")
        else:
            ways[member.way] = member
    if any(m.role not in ("outer", "inner", "") for m in ways.values()):
        faults.add("member of an unknown role")

    paths: dict[str, list[Path]] = {"outer": [], "inner": [], "": []}
    for m in ways.values():
        if m.xy is not None and len(m.xy) > 1:
            paths[m.role if m.role in paths else ""].append(m.xy)
    rings: list[tuple[str, Path]] = []
    rest: list[tuple[str, Path]] = []
    for role, found in paths.items():
        closed, open_ = join(found)
        rings += [(role, ring) for ring in closed]
        rest += [(role, path) for path in open_]
    if rest:
        # What does not close among ways of one role may do so with those of the other.
        closed, open_ = join([path for _, path in rest])
        longest = max(rest, key=lambda item: len(item[1]))[0]
        if closed:
            faults.add("ring of ways of both roles")
            rings += [(longest, ring) for ring in closed]
        if open_:
            faults.add("ring not closed")
    if not rings:
        if not faults & {"member missing", "ring not closed"}:
            faults.add("ring without area")
        return None, faults

    lines = np.array([shapely.linestrings(ring) for _, ring in rings], object)
    polygons, bad = polygons_of(lines)
    faults.update(bad)
    good = [i for i, p in enumerate(polygons) if p is not None]
    if not good:
        return None, faults
    shape = _nest(polygons[good], [rings[i][0] for i in good], faults)
    if "member missing" in faults:
        # The outer ring around it may be what is missing.
        faults.discard("inner ring outside of the outer")
    return shape, faults


def join(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Closed rings from paths that meet at their ends, and the paths that are left open.

    Where more than two paths meet, a ring is closed as soon as it comes back to a place it has been to.
    """
    rings: list[Path] = []
    ends: dict[tuple[float, float], list[int]] = {}
    for i, path in enumerate(paths):
        if path[0] == path[-1]:
            rings.append(path)
        else:
            ends.setdefault(path[0], []).append(i)
            ends.setdefault(path[-1], []).append(i)
    used = [path[0] == path[-1] for path in paths]
    left: list[Path] = []
    # From the loose ends first: begun elsewhere, an open path would be found in two pieces.
    for start in sorted(ends, key=lambda place: len(ends[place]) % 2 == 0):
        while any(not used[i] for i in ends[start]):
            places, pieces = [start], list[Path]()
            while (at := next((i for i in ends.get(places[-1], ()) if not used[i]), None)) is not None:
                used[at] = True
                piece = paths[at] if paths[at][0] == places[-1] else paths[at][::-1]
                pieces.append(piece)
                if piece[-1] in places:
                    back = places.index(piece[-1])
                    rings.append(_chain(pieces[back:]))
                    del pieces[back:], places[back + 1 :]
                else:
                    places.append(piece[-1])
            if pieces:
                left.append(_chain(pieces))
    return rings, left


def _chain(pieces: Sequence[Path]) -> Path:
    return [pieces[0][0], *(place for piece in pieces for place in piece[1:])]


def _nest(polygons: NDArray[np.object_], roles: Sequence[str], faults: set[str]) -> Any:
    """One geometry of rings that lie in each other."""
    area = shapely.area(polygons)
    order = np.argsort(-area, kind="stable")
    polygons, area, roles = polygons[order], area[order], [roles[i] for i in order]
    tree = shapely.STRtree(polygons)
    inside, around = tree.query(shapely.point_on_surface(polygons), predicate="within")
    parent = np.full(len(polygons), -1)
    for i, j in zip(inside, around, strict=True):
        # They are sorted by size, so the nearest ring around is the last one before.
        if j < i:
            parent[i] = max(parent[i], j)
    shell_of: list[int] = []  # the shell a ring belongs to: itself, the one it is cut out of, or -1 where it is neither
    holes: dict[int, list[int]] = {}
    solid: list[bool] = []  # whether just inside of a ring there is land
    for i, role in enumerate(roles):
        up = int(parent[i])
        land = up >= 0 and solid[up]
        outer = role == "outer" or (role != "inner" and not land)
        if outer and land:
            faults.add("outer ring within an outer")
        elif not outer and not land and up >= 0:
            faults.add("inner ring within an inner")
        if outer and not land:
            holes[i] = []
            shell_of.append(i)
        elif not outer and land:
            holes[shell_of[up]].append(i)
            shell_of.append(shell_of[up])
        else:
            shell_of.append(shell_of[up] if up >= 0 else -1)
        solid.append(outer)
    for i in (i for i, shell in enumerate(shell_of) if shell < 0):
        # Its middle lies in no outer ring, but it may cross some.
        crossed = [j for j in tree.query(polygons[i], predicate="overlaps").tolist() if j in holes]
        for j in crossed:
            holes[j].append(i)
        if not crossed:
            faults.add("inner ring outside of the outer")
    parts = [_cut_out(polygons[i], polygons[inner], faults) for i, inner in holes.items()]
    parts = [part for whole in parts for part in shapely.get_parts(whole)]
    if not parts:
        return None
    shape = parts[0] if len(parts) == 1 else shapely.multipolygons(parts)
    if not shapely.is_valid(shape):
        faults.add("outer rings overlap")
        shape = shapely.union_all(parts)
    return None if shapely.area(shape) == 0 else shape


def _cut_out(shell: Any, holes: NDArray[np.object_], faults: set[str]) -> Any:
    if not len(holes):
        return shell
    if shell.geom_type == "Polygon" and all(hole.geom_type == "Polygon" for hole in holes):
        simple = shapely.Polygon(shell.exterior, [hole.exterior for hole in holes])
        if not shell.interiors and all(not hole.interiors for hole in holes) and simple.is_valid:
            return simple
    away = shapely.union_all(holes)
    if not shapely.covers(shell, holes).all():
        faults.add("inner ring crosses the outer")
    elif shapely.area(holes).sum() > away.area * (1 + SAME):
        faults.add("inner rings overlap")
    else:
        faults.add("inner rings touch")
    return areas_only(np.array([shell.difference(away)], object))[0]
