"""From recipe, area and locked scenes to the Plan: every chip, split, shard and array, before a pixel is read.

Everything here is derived: the same recipe, area and lock give the same plan on every machine, so a worker or a later
run makes it again instead of being handed it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catalog.lock import LockedItem, read_lock, scenes_from_lock
from catalog.offsets import is_doubtful, settle
from catalog.request import find, order
from catalog.search import Catalog, open_catalog
from chips.layout import Coordinate, Group, Layout, Variable
from cube.build import CubeRequest, Kind, axis, steps_needed, variables
from cube.encoding import Encoding, encoding_of
from cube.radar import AMPLITUDE, told_apart
from cube.terrain import halo_px
from cube.times import Interval, period_names, periods, picks
from curate import __version__
from curate.errors import AoiError, CatalogError, RecipeError
from flows.alignment import moved
from flows.console import Console
from flows.inputs import files
from flows.labelling import PREFIX, Labels, bytes_per_chip, layout_of, open_labels
from flows.sampling import taken_by
from flows.splits import attributes, draw, frozen
from labels.spec import ProductLabel
from recipes.recipe import Recipe, SourceSpec
from tiling.aoi import Aoi
from tiling.grid import Chip, lay_chips
from tiling.places import Place, places_document, read_places
from tiling.shards import Shard, auto_per_shard, lay_shards
from tiling.split import SplitSpec, check_blocks
from tiling.split_rules import FROZEN, YearSplit

if TYPE_CHECKING:
    from catalog.scene import Scene

log = logging.getLogger(__name__)

SHARD_BUDGET_BYTES = 1280 * 2**20
"""Raw size of the arrays of one shard that `shard_chips: auto` stays below: what a worker holds besides its reading.

64 chips of 256 px with 12 dates of 10 bands fit, and a build stays under 3 GB. With 16 chips a shard, the blocks of a
file that windows share are decoded so often that the same build costs half as much CPU again (70 s against 47 s).
"""
FEW_CHIPS = 8
"""The shard of an area of few chips is rounded up to this, so that it divides into Zarr shards."""
MANY_CHIPS, MOST_CHIPS = 1_000_000, 10_000_000
"""Chips of an area from which laying them is told to take its time, and above which it is refused."""
LAID_S, LAID_BYTES = 30e-6, 600
"""What a chip takes until it has its split, measured on 430,000 of them."""
M_PER_DEGREE = 111_320.0
TOLD_DOUBTS = 5
"""Scenes whose offset stays uncertain that are named one by one; all stand in the lock."""


@dataclass(frozen=True, slots=True)
class Area:
    """The chips of an area with what position alone decides about them, in no particular order."""

    aoi: Aoi
    chips: tuple[Chip, ...]
    cover: npt.NDArray[np.float64]
    """Share of each chip that lies in the area of interest."""
    split: npt.NDArray[np.object_]
    """train, val, test or buffer."""
    fold: npt.NDArray[np.int64] | None = None
    """Fold from 1, 0 where left out; None for rules without folds."""
    sampling: bytes | None = None
    """Which of all chips these are and why, as it is stored; None when they are all."""
    places: tuple[Place, ...] = ()
    """What the chips stand on, in grids that read it from a file."""
    widest_m: float = 0.0
    """Side of the largest chip of all sources, in metres."""
    dates: bytes | None = None
    """Days that each chip has for itself, as they are stored; None where no source asks for them."""

    def search_geometry(self, reach_m: float = 0.0) -> Any:
        """The area of interest grown by a chip and ``reach_m``, EPSG:4326: chips and filters look beyond its edge."""
        geometry = self.aoi.geometry
        _, south, _, north = geometry.bounds
        shrink = math.cos(math.radians(min(max(abs(south), abs(north)), 84)))
        # Chips that are wider in a source, or stand on tiles and cells that go beyond the area, reach further.
        beyond_m = max(self.widest_m - self.chips[0].size_m, 0.0)
        grow_m = 1.5 * self.chips[0].size_m + beyond_m + reach_m
        return geometry.buffer(grow_m / (M_PER_DEGREE * shrink), cap_style="square")


@dataclass(frozen=True, slots=True)
class Searched:
    """What a dataset that is updated was searched for when it was built."""

    area: Area
    interval: Interval
    items: tuple[LockedItem, ...]
    """Its lock."""

    def of(self, name: str) -> list[LockedItem]:
        """The locked rows of a source or label product."""
        return [item for item in self.items if item.source == name]

    def added(
        self, area: Area, interval: Interval | None, of: Interval | None, reach_m: float
    ) -> list[tuple[Any, Interval | None]]:
        """(geometry, interval) of all that was not searched: more time on the whole area, and more area.

        Args:
            area: The whole area now.
            interval: The whole time now; None for what has none.
            of: The time that was searched; None as ``interval``.
            reach_m: How far around the area is searched.
        """
        geometry = area.search_geometry(reach_m)
        found: list[tuple[Any, Interval | None]] = []
        if interval is not None and of is not None:
            if interval.start < of.start:
                found.append((geometry, Interval(interval.start, of.start)))
            if of.end < interval.end:
                found.append((geometry, Interval(of.end, interval.end)))
        if area.aoi.fingerprint != self.area.aoi.fingerprint:
            more = geometry.difference(self.area.search_geometry(reach_m))
            if not more.is_empty:
                found.append((more, of))
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a build will do."""

    name: str
    recipe: Recipe
    aoi: Aoi
    shards: tuple[Shard, ...]
    cover: npt.NDArray[np.float64]
    """In the order of the store, as ``split``."""
    split: npt.NDArray[np.object_]
    requests: tuple[CubeRequest, ...]
    scenes: Mapping[str, tuple[Scene, ...]]
    """Scenes of each source, by its name."""
    labels: Labels
    lock: bytes
    """The lock that all this was planned from, as it is stored."""
    locked: tuple[LockedItem, ...]
    alignment: bytes | None
    """The measured alignment, as it is stored; None when it was not measured."""
    layout: Layout
    fold: npt.NDArray[np.int64] | None = None
    """Fold from 1, 0 where left out, in the order of the store; None for rules without folds."""
    sampling: bytes | None = None
    """Which chips were taken and why, as it is stored; None when all were."""
    places: tuple[Place, ...] = ()
    """What the chips stand on, in grids that read it from a file."""
    dates: bytes | None = None
    """Days that each chip has for itself, as they are stored; None where no source asks for them."""

    @property
    def chips(self) -> tuple[Chip, ...]:
        """Every chip in the order of the store."""
        return tuple(chip for shard in self.shards for chip in shard.chips)

    @property
    def fingerprint(self) -> str:
        """Same fingerprint, same dataset: recipe, area, chips taken, locked scenes and our version."""
        digest = hashlib.sha256(self.lock + b"\0" + (self.alignment or b""))
        for document in (self.sampling, self.dates):
            if document is not None:
                digest.update(b"\0" + document)
        for part in (self.name, self.recipe.fingerprint, self.aoi.fingerprint, __version__):
            digest.update(part.encode() + b"\0")
        if self.recipe.split.rule in FROZEN:
            digest.update("\0".join(self.split.tolist()).encode())
        if self.places:
            digest.update(places_document(self.places))
        return digest.hexdigest()


def lay_area(recipe: Recipe, aoi: Aoi, splits: bytes | None = None, sampling: bytes | None = None) -> Area:
    """The chips over an area, their cover and their splits, drawn or as ``splits`` has frozen them.

    All chips, or those that ``sampling`` says were taken. Raises AoiError when the area holds no chip, or the places
    of the grid cannot be read.
    """
    if isinstance(recipe.split, SplitSpec | YearSplit):
        blocks = recipe.split if isinstance(recipe.split, SplitSpec) else recipe.split.blocks
        try:
            check_blocks(blocks, recipe.widest_m)
        except ValueError as error:
            raise RecipeError("recipe", (f"split: {error}",)) from error
    _require_few(recipe, aoi)
    places = asked_places(recipe)
    chips, cover = lay_chips(aoi, recipe.grid, places)
    if not chips:
        side = recipe.grid.side_m
        raise AoiError(
            aoi.name,
            f"no chip of {side:g} m has {recipe.grid.min_cover:.0%} of its area inside; "
            "take a larger area, smaller chips, or a smaller grid.min_cover",
        )
    if len(chips) < len(places):
        log.warning(
            "%d of %d %s of %s have no chip of their own: it lies less than %.0f %% in the area, or is that of another",
            len(places) - len(chips), len(places), recipe.grid.scheme, recipe.grid.places, 100 * recipe.grid.min_cover,
        )  # fmt: skip
    # Over all chips, also when not all are taken: as it was drawn before the sampling.
    drawn = draw(recipe, chips) if splits is None else frozen(splits, [chip.id for chip in chips])
    area = Area(aoi, chips, cover, drawn.split, drawn.fold, sampling, places, recipe.widest_m)
    if sampling is None:
        return area
    kept = np.flatnonzero(taken_by(sampling, chips))
    return dataclasses.replace(
        area,
        chips=tuple(chips[at] for at in kept.tolist()),
        cover=cover[kept],
        split=area.split[kept],
        fold=None if area.fold is None else area.fold[kept],
    )


def _require_few(recipe: Recipe, aoi: Aoi) -> None:
    """AoiError, before hours are spent on it, when the area would hold more chips than a machine can carry."""
    from pyproj import Geod

    grid = recipe.grid
    if grid.places is not None:
        return
    apart_m = grid.spacing_km * 1000 if grid.scheme == "majortom" else grid.side_m
    area_m2, _ = Geod(ellps="WGS84").geometry_area_perimeter(aoi.geometry)
    about = abs(area_m2) / apart_m**2
    if about > MOST_CHIPS:
        raise AoiError(
            aoi.name,
            f"holds about {about:,.0f} chips {apart_m:g} m apart, and more than {MOST_CHIPS:,} are not laid at once; "
            "take a smaller area, larger chips, or a dataset for each part of it",
        )
    if about > MANY_CHIPS:
        log.warning(
            "%s holds about %s chips; laying them takes about %.0f minutes and %.1f GB",
            aoi.name, f"{about:,.0f}", about * LAID_S / 60, about * LAID_BYTES / 1e9,
        )  # fmt: skip


def asked_places(recipe: Recipe) -> tuple[Place, ...]:
    """The places that the recipe's grid stands on, read from their file; none for most grids."""
    grid = recipe.grid
    if grid.places is None:
        return ()
    with files(recipe) as file:
        return read_places(file(grid.places), grid.scheme, grid.id_column)


def search(recipe: Recipe, area: Area, console: Console, before: Searched | None = None) -> tuple[LockedItem, ...]:
    """Every item that the recipe's sources and label products find over the area; one search each.

    With ``before`` only what was not searched then is asked for, and what is locked stays as it is.

    Raises CatalogError when a source or product has none that can be used.
    """
    catalogs: dict[str, Catalog] = {}

    def catalog(where: str | tuple[str, ...] | None, source: SourceSpec | None = None) -> Catalog:
        where = where or recipe.catalog
        if source is not None and source.describe is not None:
            places = recipe.path(where) if isinstance(where, str) else [recipe.path(path) for path in where]
            return open_catalog(places, collection=source.collection, describe=source.describe)
        if not isinstance(where, str):
            raise CatalogError("catalog", f"is a list ({', '.join(where)}); a list of files needs 'describe' beside it")
        place = recipe.path(where)
        if place not in catalogs:
            catalogs[place] = open_catalog(place)
        return catalogs[place]

    interval = recipe.interval
    locked: list[LockedItem] = []
    for name, source in recipe.sources.items():
        table = source.table
        static = table.timeless
        layer, _ = source.mask_layer
        resolution_m = recipe.pixel_m(source)
        bands = (
            *source.band_names,
            *((layer,) if layer and not static else ()),
            *((table.angle,) if source.angle and table.angle else ()),
        )
        found = _find(
            area,
            None if static else interval,
            halo_px(source.terrain.derive, resolution_m) * resolution_m,
            before,
            None if static or before is None else before.interval,
            console if table.mission == "sentinel-2" else None,
            catalog=catalog(source.catalog, source),
            source=name,
            collection=source.collection if source.describe is None else table,
            bands=bands,
            spec=source.search,
            orbits=source.orbit,
        )
        _need_some(name, source.collection, found, None if static else interval, area)
        console.say(
            f"{name}: {_used(found)} of {len(found)} scenes of {source.collection}{_of_them_new(before, found)}"
        )
        locked += found
    for name, label in recipe.labels.items():
        if not isinstance(label, ProductLabel):
            continue
        year = None if label.year is None else Interval(_new_year(label.year), _new_year(label.year + 1))
        found = _find(
            area,
            year,
            0.0,
            before,
            year,
            None,
            catalog=catalog(label.catalog),
            source=PREFIX + name,
            collection=label.product,
            bands=_product_bands(label.product),
        )
        _need_some(f"label {name}", label.product, found, year, area)
        console.say(f"label {name}: {_used(found)} tiles of {label.product}{_of_them_new(before, found)}")
        locked += found
    return tuple(locked)


def _find(
    area: Area,
    interval: Interval | None,
    reach_m: float,
    before: Searched | None,
    searched: Interval | None,
    settle_with: Console | None,
    *,
    source: str,
    **asked: Any,
) -> list[LockedItem]:
    """The rows of one source, those that are locked already among them.

    Args:
        area: The whole area.
        interval: The whole time; None for what has none.
        reach_m: How far around the area is searched.
        before: What is locked already.
        searched: The time that was searched then.
        settle_with: Look at the pixels of scenes whose offset is not sure, and tell it here; None: do not.
        source: Name of the source, or of the label with its prefix.
        asked: What else ``catalog.request.find`` is asked.
    """
    if before is None:
        pieces = [(area.search_geometry(reach_m), interval)]
    else:
        pieces = before.added(area, interval, searched, reach_m)
    rows = [] if before is None else before.of(source)
    for geometry, span in pieces:
        found = find(
            aoi_geometry=geometry,
            start=None if span is None else span.start,
            end=None if span is None else span.end,
            source=source,
            known=rows,
            **asked,
        )
        if settle_with is not None:
            found = _settled(source, found, rows, settle_with)
        rows = sorted([*rows, *found], key=order)
    return rows


def _of_them_new(before: Searched | None, found: Sequence[LockedItem]) -> str:
    """How many of the rows were not locked before, for a person."""
    if before is None or not found:
        return ""
    return f", {_used(found) - _used(before.of(found[0].source))} of them new"


def _settled(name: str, found: Sequence[LockedItem], known: Sequence[LockedItem], console: Console) -> list[LockedItem]:
    """The items with offsets decided by a look at the pixels where metadata are not sure; says what came of it."""
    doubtful = {row.scene.id for row in found if row.status == "used" and row.scene and is_doubtful(row.scene)}
    if not doubtful:
        return list(found)
    with console.stage(f"looking at the pixels of {len(doubtful)} scenes of {name} whose offset is not sure"):
        settled = settle(found, known)
    looked = [row.scene for row in settled if row.scene and row.scene.id in doubtful]
    raw = sum(scene.radiometry.offset_dn != 0 for scene in looked if not is_doubtful(scene))
    left = [scene for scene in looked if is_doubtful(scene)]
    console.say(
        f"{name}: {raw} of them are raw, {len(looked) - len(left) - raw} are shifted already, {len(left)} do not tell "
        "and are read as their metadata say"
    )
    for scene in left[:TOLD_DOUBTS]:
        console.say(f"{scene.id}: {scene.radiometry.why}", level="warning")
    return settled


def _new_year(year: int) -> dt.datetime:
    return dt.datetime(year, 1, 1, tzinfo=dt.UTC)


def _product_bands(product: str) -> tuple[str, ...]:
    from catalog.collections import collection

    return collection(product).default_bands


def _used(items: Iterable[LockedItem]) -> int:
    return sum(item.status == "used" for item in items)


def _need_some(name: str, collection: str, found: Sequence[LockedItem], interval: Interval | None, area: Area) -> None:
    if _used(found):
        return
    if found:
        reasons = sorted({item.reason for item in found if item.reason})
        raise CatalogError(name, f"none of {len(found)} scenes of {collection} can be used: {'; '.join(reasons[:3])}")
    west, south, east, north = area.aoi.geometry.bounds
    when = "" if interval is None else f" and {interval}"
    if interval is not None and interval.start > dt.datetime.now(dt.UTC):
        when += ", which lies in the future"
    raise CatalogError(
        name,
        f"no scene of {collection} touches {area.aoi.name} ({west:.3f},{south:.3f},{east:.3f},{north:.3f}){when}; "
        "check the area (longitude comes before latitude), the time and the catalog",
    )


def make_plan(recipe: Recipe, area: Area, lock: bytes, alignment: bytes | None = None) -> Plan:
    """The plan of a build, from its lock and measured alignment alone.

    Opens the labels (once for the whole build), reads no pixel.
    """
    name = recipe.name or area.aoi.name
    locked = read_lock(lock)
    scenes = used_scenes(recipe, locked)
    requests = cube_requests(recipe, scenes, area.chips, alignment)
    labels = open_labels(recipe, aoi=area.aoi, chips=area.chips, locked=locked)
    per_shard = _per_shard(recipe, requests, labels, len(area.chips))
    shards = lay_shards(area.chips, per_shard)
    position = {chip: index for index, chip in enumerate(area.chips)}
    order = np.array([position[chip] for shard in shards for chip in shard.chips])
    return Plan(
        name=name,
        recipe=recipe,
        aoi=area.aoi,
        shards=shards,
        cover=area.cover[order],
        split=area.split[order],
        fold=None if area.fold is None else area.fold[order],
        requests=requests,
        scenes=scenes,
        labels=labels,
        lock=lock,
        locked=locked,
        alignment=alignment,
        layout=_layout(name, recipe, requests, scenes, labels, len(order), per_shard),
        sampling=area.sampling,
        places=area.places,
        dates=area.dates,
    )


def used_scenes(recipe: Recipe, locked: Sequence[LockedItem]) -> dict[str, tuple[Scene, ...]]:
    """The scenes of each source of a lock, by its name."""
    return {source: tuple(scenes_from_lock(locked, source)) for source in recipe.sources}


def cube_requests(
    recipe: Recipe, scenes: Mapping[str, Sequence[Scene]], chips: Sequence[Chip], alignment: bytes | None = None
) -> tuple[CubeRequest, ...]:
    """What is asked of each source. Raises RecipeError where only the scenes show that it is impossible."""
    try:
        return tuple(
            dataclasses.replace(_request(source, spec, recipe, scenes[source], chips), moved=moved(alignment, source))
            for source, spec in recipe.sources.items()
        )
    except ValueError as error:
        raise RecipeError("recipe", (str(error),)) from error


def _request(
    name: str, source: SourceSpec, recipe: Recipe, scenes: Sequence[Scene], chips: Sequence[Chip]
) -> CubeRequest:
    table = source.table
    assert table.kind != "classes"  # the recipe refuses land-cover products as sources
    kind: Kind = "backscatter" if table.kind == "sar" else "elevation" if table.kind == "elevation" else "reflectance"
    angle = table.bands[table.angle] if source.angle and table.angle else None
    static = table.timeless
    spans = () if static else periods(recipe.interval, source.time)
    orbits: tuple[str, ...] = ()
    if table.kind == "sar":
        names = {scene.orbit for scene in told_apart(source.radar, scenes) if scene.orbit}
        orbits = tuple(sorted(names if source.radar.apart == "relative_orbit" else source.orbit or names))
    layer, layer_table = source.mask_layer
    request = CubeRequest(
        name=name,
        kind=kind,
        variable=source.variable,
        bands=source.band_names,
        size_px=recipe.side_px(source),
        resolution_m=recipe.pixel_m(source),
        quality=layer,
        quality_table=layer_table,
        mask=source.mask,
        time=None if static else source.time,
        keep=source.keep,
        periods=spans,
        orbits=orbits,
        resampling=() if source.resampling is None else tuple((band, source.resampling) for band in source.band_names),
        coverage=source.coverage,
        apply_mask=source.apply_mask,
        reader=recipe.reader,
        stored=_encoding(name, source, scenes) if kind == "reflectance" else None,
        long_name=table.title if kind == "reflectance" else None,
        terrain=source.terrain,
        radar=source.radar,
        angle=None if angle is None else angle.name,
        angle_scale=(1.0, 0.0) if angle is None else (angle.scale, angle.offset),
        amplitude=source.collection in AMPLITUDE,
    )
    size_m = recipe.size_m(source)
    own = chips if size_m == recipe.grid.side_m else [chip.around(size_m, request.resolution_m) for chip in chips]
    return dataclasses.replace(request, steps=steps_needed(request, scenes, own))


def _encoding(name: str, source: SourceSpec, scenes: Sequence[Scene]) -> Encoding:
    """How the measured bands are stored: as their files do, where all files agree, else as the table says."""
    bands = []
    for band in (source.table.bands[name] for name in source.band_names):
        kinds = {(asset.dtype, asset.nodata) for scene in scenes for asset in scene.assets if asset.band == band.name}
        dtype, nodata = kinds.pop() if len(kinds) == 1 else (band.dtype, band.nodata)
        bands.append(dataclasses.replace(band, dtype=dtype, nodata=nodata))
    return encoding_of(name, bands)


def _per_shard(recipe: Recipe, requests: Sequence[CubeRequest], labels: Labels, n_chips: int) -> int:
    asked, side = recipe.store.shard_chips, recipe.grid.side_px
    if asked != "auto":
        return asked
    size = _bytes_per_chip(requests) + bytes_per_chip(labels, side, recipe.grid.resolution_m)
    fitting = auto_per_shard(side, size, SHARD_BUDGET_BYTES)
    # A Zarr shard has an index entry for every chip it has room for: no more room than a small area needs.
    return min(fitting, -(-n_chips // FEW_CHIPS) * FEW_CHIPS)


def _bytes_per_chip(requests: Sequence[CubeRequest]) -> int:
    arrays = [(variable.shape, variable.dtype) for request in requests for variable in variables(request)]
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in arrays)


def _layout(
    name: str,
    recipe: Recipe,
    requests: Sequence[CubeRequest],
    scenes: Mapping[str, Sequence[Scene]],
    labels: Labels,
    n_chips: int,
    shard_chips: int,
) -> Layout:
    side = recipe.grid.side_px
    groups, arrays = [], []
    for request in requests:
        source = recipe.sources[request.name]
        attrs = {
            "collection": source.collection,
            "resolution_m": request.resolution_m,
            "platforms": sorted({scene.platform for scene in scenes[request.name] if scene.platform}),
        }
        if request.quality is not None:
            attrs |= {"mask_layer": request.quality, "mask_hide": list(request.mask.hide)}
            attrs |= {"mask_dilate_m": request.mask.dilate_m, "min_clear": request.keep.min_clear}
        wider_m = (recipe.size_m(source) - recipe.grid.side_m) / 2
        groups.append(Group(name=request.name, attrs=attrs, coords=_coords(request, source), wider_m=wider_m))
        arrays += [
            Variable(
                group=request.name,
                name=variable.name,
                dims=variable.dims,
                shape=variable.shape,
                dtype=variable.dtype,
                fill=0 if variable.fill is None else variable.fill,
                attrs=dict(variable.attrs),
                # Only measured bands: with a _FillValue, a class layer would be decoded to floats.
                void=variable.name == request.variable,
            )
            for variable in variables(request)
        ]
    told = layout_of(labels, recipe.grid.side_m, recipe.grid.resolution_m)
    groups += told[0]
    arrays += told[1]
    return Layout(
        groups=tuple(groups),
        variables=tuple(arrays),
        n_chips=n_chips,
        size_px=side,
        shard_chips=shard_chips,
        attrs={
            "title": name,
            "curate_version": __version__,
            "recipe_fingerprint": recipe.fingerprint,
            **attributes(recipe),
            **({} if recipe.grid.scheme == "utm" else {"grid": recipe.grid.scheme}),
        },
        store=recipe.store.format,
    )


def _coords(request: CubeRequest, source: SourceSpec) -> tuple[Coordinate, ...]:
    """Coordinates of a group besides those of the chips: bands, and the time axis where all chips share it."""
    coords = []
    if any("band" in variable.dims for variable in variables(request)):
        bands = [source.table.bands[band] for band in request.bands]
        gsd, centre = tuple(band.gsd_m for band in bands), tuple(band.center_um for band in bands)
        coords.append(Coordinate("band", "band", "string", request.bands, {"long_name": "STAC common name"}))
        coords.append(Coordinate("gsd", "band", "float32", gsd, {"long_name": "native pixel size", "units": "m"}))
        if all(centre):
            attrs = {"long_name": "centre wavelength", "units": "um"}
            coords.append(Coordinate("wavelength", "band", "float32", centre, attrs))
    if request.time is not None and (request.time.composite is not None or request.time.picked):
        steps = axis(request)
        starts, ends = tuple(period.start for period, _ in steps), tuple(period.end for period, _ in steps)
        coords.append(Coordinate("time", "time", "datetime64[s]", starts, {"long_name": "start of the period"}))
        attrs = {"long_name": "end of the period, not part of it"}
        coords.append(Coordinate("time_end", "time", "datetime64[s]", ends, attrs))
        roles = tuple(pick.role for pick in picks(request.time)) or period_names(request.periods, request.time)
        if roles:
            each = tuple(role for role in roles for _ in request.orbits or (None,))
            what = "what the date stands for" if request.time.picked else "season"
            coords.append(
                Coordinate("role" if request.time.picked else "season", "time", "string", each, {"long_name": what})
            )
        if request.orbits:
            orbits = tuple(orbit for _, orbit in steps)
            what = "orbit direction" if source.radar.apart == "orbit" else "orbit direction and track"
            coords.append(Coordinate("orbit", "time", "string", orbits, {"long_name": what}))
    return tuple(coords)
