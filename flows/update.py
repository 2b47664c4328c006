"""A new version of a published dataset with more dates, a larger area, or both: only what is new is searched and read.

The version is what a build from nothing would make of the larger recipe and of a lock that holds the old rows as they
are and what was found since (`flows.carry` takes over what cannot have changed). `flows.steps` builds and publishes it.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import InputError, OutputError, StoreError
from flows.console import Console
from flows.steps import (
    ALIGNMENT,
    DRAWN,
    PLACES,
    RECIPE,
    REGION,
    SCENES,
    SCHEDULER_VARIABLES,
    Prepared,
    Request,
    aoi_document,
    build_shards,
    finish,
    plan_from_lock,
    wish,
)

if TYPE_CHECKING:
    from catalog.lock import LockedItem
    from chips.read import Published
    from chips.storage import Storage
    from flows.carry import Carried
    from flows.plan import Area, Plan
    from recipes.recipe import Recipe
    from tiling.aoi import Aoi

TOLD = 5
"""Names given as examples."""
LOST_SHARE = 1e-9
"""Share of the old area that a new one may lack: rounding of coordinates, and nothing that anybody drew."""


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """What was asked on the command line or by a deployment: plain text, so that it can be stored and sent."""

    dataset: str
    """Folder or URL of the dataset, absolute."""
    aoi: str | None = None
    """The larger area; None keeps the area."""
    time: str | None = None
    """The longer time, ``START/END``; None keeps the time."""
    recipe: str | None = None
    """The recipe's file, from whose folder its relative paths start; None takes the working directory."""
    scheduler: str | None = None
    jobs: int = 1

    def as_build(self, out: str) -> Request:
        """The request by which the shards of the new version are built."""
        return Request(aoi=self.aoi or "", out=out, recipe=self.recipe, scheduler=self.scheduler, jobs=self.jobs)


@dataclass(frozen=True, slots=True)
class Before:
    """The version that an update starts from."""

    dataset: Storage
    """All versions."""
    storage: Storage
    """This one."""
    version: int
    recipe: Recipe
    aoi: Aoi


def make_update(
    dataset: str,
    *,
    aoi: str | None = None,
    time: str | None = None,
    recipe: str | None = None,
    dask: str | None = None,
    jobs: int | None = None,
) -> UpdateRequest:
    """The request with its defaults filled in and its paths made absolute."""
    scheduler = dask or next((os.environ[name] for name in SCHEDULER_VARIABLES if os.environ.get(name)), None)
    return UpdateRequest(
        dataset=dataset if "://" in dataset else str(Path(dataset).absolute()),
        aoi=aoi,
        time=time,
        recipe=recipe,
        scheduler=scheduler,
        jobs=jobs or 1,
    )


def grown(
    dataset: str,
    *,
    until: str | None = None,
    aoi: str | None = None,
    recipe: str | None = None,
    dask: str | None = None,
    jobs: int | None = None,
) -> UpdateRequest:
    """The request that lengthens the time of a dataset until a day; one that ends later already keeps its time.

    Args:
        dataset: Folder or URL of the dataset.
        until: A day, ``2024-10-01``, that is not among the dates any more; ``today``; None keeps the time.
        aoi: As for ``make_update``, and so are the others.

    Raises:
        InputError: ``until`` is no day.
        StoreError: There is no published dataset.
    """
    time = None
    if until is not None:
        from chips.versions import open_published

        recipe_there = wish(open_published(dataset))[0]
        end = _day(until)
        if end > recipe_there.interval.end:
            time = f"{recipe_there.time.partition('/')[0]}/{end.date().isoformat()}"
    return make_update(dataset, aoi=aoi, time=time, recipe=recipe, dask=dask, jobs=jobs)


def _day(text: str) -> dt.datetime:
    if text == "today":
        return dt.datetime.combine(dt.datetime.now(dt.UTC).date(), dt.time(), dt.UTC)
    try:
        return dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
    except ValueError as error:
        raise InputError(text, "is no day; write it like 2024-10-01, or today") from error


def arrived(request: UpdateRequest, console: Console) -> list[str]:
    """Scenes that the catalog has and the lock has not, ``source: id``, sorted; reads no pixel and writes nothing.

    Raises CurateError, as ``prepare_update`` does.
    """
    before = _before(request, console, adopt=False)
    recipe, aoi = _wanted(request, before)
    if recipe.fingerprint == before.recipe.fingerprint and aoi.fingerprint == before.aoi.fingerprint:
        return []
    _, locked, found = _look(before, recipe, aoi, console)
    there = {(row.source, row.scene.id) for row in locked if row.scene is not None}
    return sorted(
        f"{row.source}: {row.scene.id}"
        for row in found
        if row.status == "used" and row.scene is not None and (row.source, row.scene.id) not in there
    )


def update(request: UpdateRequest, console: Console) -> str | None:
    """Make the next version of a dataset, or continue one that was begun: where it lies, None when nothing is new.

    Raises CurateError.
    """
    prepared = prepare_update(request, console)
    if prepared is None:
        return None
    build_shards(prepared, request.as_build(prepared.build.url), console)
    finish_update(request, prepared, console)
    return prepared.build.url


def prepare_update(request: UpdateRequest, console: Console) -> Prepared | None:
    """Plan the next version and lock its scenes; None when there is nothing new, and then nothing is written.

    A version that was begun keeps its lock: the catalog is not asked again. Its shards are verified by content.

    Raises:
        InputError: What is asked for is smaller than what is there, or would change it.
        OutputError: Another update was begun and is not finished.
        StoreError: There is no published dataset.
    """
    from chips.versions import commit_as, unfinished
    from chips.write import finished_shards, start_build

    before = _before(request, console)
    recipe, aoi = _wanted(request, before)
    begun_in = unfinished(before.dataset)
    if begun_in is None:
        if recipe.fingerprint == before.recipe.fingerprint and aoi.fingerprint == before.aoi.fingerprint:
            console.say("neither more time nor a larger area is asked for; nothing to do")
            return None
        return _begin(before, recipe, aoi, console)
    begun = wish(begun_in)[:2]
    if request.aoi is None and request.time is None:
        recipe, aoi = begun[0].located(recipe.base), begun[1]
    _same(begun_in, begun, recipe, aoi)
    console.say(f"continuing the update in {begun_in.url}")
    plan = plan_from_lock(begun_in, recipe, aoi, console)
    ref = start_build(begun_in, plan.layout, plan.fingerprint, commit=commit_as(before.version + 1))
    with console.stage("verifying what is there"):
        done = finished_shards(ref)
    console.say(f"{len(done)} of {len(plan.shards)} shards are there and intact")
    todo = tuple(shard.ordinal for shard in plan.shards if shard.ordinal not in done)
    return Prepared(plan, ref, todo, _carried(before, plan, console))


def reopen_update(request: UpdateRequest, console: Console) -> Prepared:
    """The version that ``prepare_update`` began, planned again from its own lock; what the journal says is believed."""
    from chips.versions import unfinished
    from chips.write import finished_shards, open_build

    before = _before(request, console)
    begun_in = unfinished(before.dataset)
    begun = None if begun_in is None else open_build(begun_in)
    if begun_in is None or begun is None:
        raise OutputError(request.dataset, "holds no unfinished update; start it with 'curate update'")
    recipe, aoi, _ = wish(begun_in)
    plan = plan_from_lock(begun_in, recipe.located(_base(request)), aoi, console)
    done = finished_shards(begun, verify=False)
    todo = tuple(shard.ordinal for shard in plan.shards if shard.ordinal not in done)
    return Prepared(plan, begun, todo, _carried(before, plan, console))


def finish_update(request: UpdateRequest, prepared: Prepared, console: Console) -> None:
    """Publish the version, then let ``latest.json`` name it."""
    from chips.storage import open_storage
    from chips.versions import make_latest, newest

    finish(prepared, console)
    dataset = open_storage(request.dataset)
    make_latest(dataset, newest(dataset) + 1, prepared.build.fingerprint)


def _before(request: UpdateRequest, console: Console, *, adopt: bool = True) -> Before:
    """The latest version; with ``adopt`` one that a run published that was killed right then becomes it first."""
    from chips.manifest import read_manifest
    from chips.storage import open_storage
    from chips.versions import make_latest, newest, open_published
    from chips.write import is_published

    dataset = open_storage(request.dataset)
    version = newest(dataset)
    following = _version(dataset, version + 1)
    if (
        adopt
        and following is not None
        and is_published(following)
        and (manifest := read_manifest(following)) is not None
    ):
        make_latest(dataset, version + 1, manifest.fingerprint)
        console.say(f"version {version + 1} was finished before and is the latest one now")
        version += 1
    storage = open_published(request.dataset)
    recipe, aoi, _ = wish(storage)
    return Before(dataset, storage, version, recipe, aoi)


def _version(dataset: Storage, version: int) -> Storage | None:
    """Storage of a version; None where it has no folder."""
    from chips.storage import open_storage
    from chips.versions import version_url

    url = version_url(dataset, version)
    return open_storage(url) if "://" in url or Path(url).exists() else None


def _same(storage: Storage, begun: tuple[Recipe, Aoi], recipe: Recipe, aoi: Aoi) -> None:
    """OutputError when another update was begun."""
    if begun[0].fingerprint != recipe.fingerprint or begun[1].fingerprint != aoi.fingerprint:
        raise OutputError(
            storage.url,
            f"holds an unfinished update to another time or area ({begun[0].time}, {begun[1].name}); finish that one "
            "with its own command, or remove this folder",
        )


# -- what is asked for ------------------------------------------------------------------------------------------------


def _base(request: UpdateRequest) -> Path | str:
    """The folder, or its address in object storage, that relative paths of the recipe start from."""
    from recipes.read import read_recipe

    return Path.cwd() if request.recipe is None else read_recipe(request.recipe).base


def _wanted(request: UpdateRequest, before: Before) -> tuple[Recipe, Aoi]:
    """The recipe with the longer time and the larger area. Raises InputError where they are not."""
    from recipes.read import dump_recipe, parse_recipe, read_recipe
    from tiling.aoi import read_aoi

    recipe, aoi = before.recipe, before.aoi
    if request.recipe is not None:
        _same_recipe(before.recipe, read_recipe(request.recipe), request.recipe)
    if request.time is not None:
        longer = recipe.model_copy(update={"time": request.time})
        recipe = parse_recipe(dump_recipe(longer), name=f"recipe with time {request.time}")
        old, new = before.recipe.interval, recipe.interval
        if new.start > old.start or new.end < old.end:
            raise InputError(
                "time",
                f"{new} leaves out a part of {old}, which the dataset has; a new version keeps all that is there, so "
                "name a time that begins no later and ends no earlier, or build another dataset",
            )
        if (old.start, old.end) == (new.start, new.end):
            recipe = before.recipe
    if request.aoi is not None:
        larger = read_aoi(request.aoi)
        lost = aoi.geometry.difference(larger.geometry).area / aoi.geometry.area
        if lost > LOST_SHARE:
            raise InputError(
                request.aoi,
                f"leaves out {lost:.2%} of the area that the dataset has; a new version keeps all that is there, so "
                "give an area that holds the old one, or build another dataset",
            )
        if larger.fingerprint != aoi.fingerprint:
            aoi = larger
    can_grow(before.recipe, recipe, more_area=aoi.fingerprint != before.aoi.fingerprint)
    recipe = recipe.located(_base(request))
    _at_hand(recipe)
    return recipe, aoi


def _same_recipe(there: Recipe, given: Recipe, path: str) -> None:
    """InputError when a recipe differs from that of the dataset by more than its time and catalog."""
    old, new = (recipe.model_dump(mode="json") for recipe in (there, given))
    differs = [key for key in _differences(old, new) if key not in ("time", "catalog")]
    if differs:
        more = f" and {len(differs) - TOLD} more" if len(differs) > TOLD else ""
        raise InputError(
            path,
            f"differs from the recipe of the dataset in {', '.join(differs[:TOLD])}{more}; an update adds time or area "
            "and nothing else, so take the old recipe, or build another dataset",
        )


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    """Keys of two documents whose values are not the same."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys((*old, *new))
        return [
            name for key in keys for name in _differences(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))
        ]
    return [] if old == new else [at]


def can_grow(old: Recipe, new: Recipe, *, more_area: bool) -> None:
    """InputError where more time or area would change what the chips that are there have already."""
    from cube.times import periods
    from tiling.sample_spec import AllCells
    from tiling.split_rules import stability

    for name, source in new.sources.items():
        time = source.time
        chooses = time.single or time.picked or time.max_dates
        if not source.table.timeless and chooses and periods(old.interval, time) != periods(new.interval, time):
            options = ("single", "back", "pair", "phenology", "max_dates")
            what, value = next((option, getattr(time, option)) for option in options if getattr(time, option))
            said = value if isinstance(value, str | int) else "…"
            raise InputError(
                f"sources.{name}",
                f"'{what}: {said}' chooses among the dates of the whole time, so a longer one could "
                "change chips that are there; keep the time and add area, or build a new dataset",
            )
    sampled = [step.method for step in new.sample_steps if not isinstance(step, AllCells)]
    if more_area and sampled:
        raise InputError(
            "sample",
            f"'{sampled[0]}' draws from all chips of the area, so a larger one would draw others; keep the area and "
            "add time, or build a new dataset",
        )
    stable, why = stability(new.split.rule, new.split.buffer_km)
    if more_area and not stable:
        raise InputError("split", f"rule '{new.split.rule}': {why}; keep the area and add time, or build a new dataset")


def _at_hand(recipe: Recipe) -> None:
    """InputError when a file that the recipe names relative to its own folder is not there."""
    from glob import has_magic

    from labels.legend import is_file

    places = [recipe.catalog, *(source.catalog for source in recipe.sources.values())]
    named = [one for place in places if place for one in ((place,) if isinstance(place, str) else place)]
    found = [recipe.path(one) for one in named]
    for label in recipe.labels.values():
        for option in label.paths:
            value = getattr(label, option)
            values = (value,) if isinstance(value, str) else value or ()
            found += [recipe.file(one) for one in values if option != "legend" or is_file(one)]
    for path in found:
        local = Path(path)
        if "://" not in path and local.is_absolute() and not has_magic(path) and not local.exists():
            raise InputError(
                path,
                "is not there, and the recipe names it; relative paths start from the working directory, or with "
                "--recipe from the folder of the recipe that the dataset was built with",
            )


# -- the next version -------------------------------------------------------------------------------------------------


def _look(
    before: Before, recipe: Recipe, aoi: Aoi, console: Console
) -> tuple[Area, tuple[LockedItem, ...], tuple[LockedItem, ...]]:
    """The larger area with its chips, the old lock, and the new one: only what was not asked before is searched."""
    from catalog.lock import read_lock
    from chips.read import published
    from flows.dates import own_dates
    from flows.plan import Searched, lay_area, search
    from flows.sampling import SAMPLING

    with console.stage("laying chips"):
        docs = before.storage.get(DRAWN), before.storage.get(SAMPLING)
        area_then = lay_area(before.recipe.located(recipe.base), before.aoi, *docs)
        area = lay_area(recipe, aoi, *docs)
        area = replace(area, dates=own_dates(recipe, area, console))
    _keeps(published(before.storage), area)
    locked = read_lock(_needed(before.storage, SCENES))
    with console.stage("searching what is new"):
        found = search(recipe, area, console, Searched(area_then, before.recipe.interval, locked))
    return area, locked, found


def _begin(before: Before, recipe: Recipe, aoi: Aoi, console: Console) -> Prepared | None:
    from catalog.lock import lock_bytes
    from chips.read import published
    from chips.storage import open_storage
    from chips.versions import commit_as, version_url
    from chips.write import start_build
    from flows.alignment import measure
    from flows.dates import DATES
    from flows.describing import judge_terms
    from flows.plan import make_plan
    from flows.sampling import SAMPLING
    from recipes.read import dump_recipe
    from tiling.places import places_document

    area, locked, found = _look(before, recipe, aoi, console)
    more = len(area.chips) - len(published(before.storage).chips)
    if not more and not _new_scenes(locked, found):
        console.say("there are no new chips and no new scenes; nothing to do")
        return None
    with console.stage("planning"):
        plan = make_plan(recipe, area, lock_bytes(found))
    judge_terms(plan, console)
    if (alignment := measure(plan, console, _alignment(before))) is not None:
        plan = make_plan(recipe, area, plan.lock, alignment)
    carried = _carried(before, plan, console)
    region = before.storage.get(REGION) if aoi is before.aoi else None
    frozen = {name: data for name in (DRAWN, SAMPLING) if (data := before.storage.get(name)) is not None}
    documents = {SCENES: plan.lock, RECIPE: dump_recipe(recipe).encode(), REGION: region or aoi_document(aoi), **frozen}
    if plan.places:
        documents[PLACES] = places_document(plan.places)
    if plan.alignment is not None:
        documents[ALIGNMENT] = plan.alignment
    if area.dates is not None:
        documents[DATES] = area.dates
    storage = open_storage(version_url(before.dataset, before.version + 1), create=True)
    commit = commit_as(before.version + 1)
    ref = start_build(storage, plan.layout, plan.fingerprint, documents, commit=commit)
    console.say(f"version {before.version + 1}: {more} new chips, {_new_scenes(locked, found)} new scenes")
    return Prepared(plan, ref, tuple(shard.ordinal for shard in plan.shards), carried)


def _keeps(old: Published, area: Area) -> None:
    """InputError when a chip that is there would be gone or elsewhere, or change its split."""
    names = [chip.id for chip in area.chips]
    corners = ((chip.bounds[0], chip.bounds[3]) for chip in area.chips)
    planned = dict(zip(names, zip(corners, area.split.tolist(), strict=True), strict=True))
    index = old.index()
    rows = [index[column].to_pylist() for column in ("chip", "x0", "y0", "split")]
    gone, moved, other = [], [], []
    for chip, x0, y0, split in zip(*rows, strict=True):
        corner, now = planned.get(chip, (None, None))
        if corner is None:
            gone.append(chip)
        elif corner != (x0, y0):
            moved.append(chip)
        elif now != split:
            other.append(chip)
    for what, chips in (("are not of this area", gone), ("would move", moved), ("would change their split", other)):
        if chips:
            raise InputError(
                area.aoi.name,
                f"{len(chips)} chips of the dataset {what}: {', '.join(chips[:TOLD])}; a new version keeps all that is "
                "there, so build another dataset",
            )


def _new_scenes(locked: tuple[LockedItem, ...], found: tuple[LockedItem, ...]) -> int:
    used = [sum(item.status == "used" for item in items) for items in (found, locked)]
    return used[0] - used[1]


def _carried(before: Before, plan: Plan, console: Console) -> Carried:
    """What the shards take over from the version before; says what they cannot."""
    from catalog.lock import read_lock
    from chips.read import published
    from flows.carry import carry_over
    from flows.plan import cube_requests, used_scenes

    locked = read_lock(_needed(before.storage, SCENES))
    scenes = used_scenes(before.recipe, locked)
    requests = cube_requests(before.recipe, scenes, (), _alignment(before))
    carried, told = carry_over(published(before.storage), requests, scenes, locked, plan)
    for sentence in told:
        console.say(sentence)
    return carried


def _alignment(before: Before) -> bytes | None:
    """What was measured for the version before; None where the recipe does not ask for it."""
    asked = any(source.coregister is not None for source in before.recipe.sources.values())
    return _needed(before.storage, ALIGNMENT) if asked else None


def _needed(storage: Storage, name: str) -> bytes:
    data = storage.get(name)
    if data is None:
        raise StoreError(storage.url, f"{name} is missing; the dataset is damaged, 'curate check' tells what else is")
    return data
