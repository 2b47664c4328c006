"""The steps of the command line in their order: prepare (plan and lock), build the shards, finish (publish).

Each is a plain function that a Prefect task wraps (`flows.build`) and that a Python shell can call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from curate.errors import AoiError, IncompleteError, OutputError, StoreError
from flows.console import Console, counting

if TYPE_CHECKING:
    from chips.check import CheckReport
    from chips.info import Info
    from chips.status import Status
    from chips.storage import Storage
    from chips.write import BuildRef
    from flows.carry import Carried
    from flows.forecast import Forecast
    from flows.plan import Plan
    from publish.export import ExportSpec
    from recipes.recipe import Recipe
    from tiling.aoi import Aoi
    from tiling.places import Place

SCENES, RECIPE, REGION, ALIGNMENT = "scenes.parquet", "recipe.yaml", "region.geojson", "alignment.json"
"""Documents beside the store: the lock, the recipe with every default, the area, and measured shifts if asked for."""
DRAWN = "splits.json"
"""What a rule for splits drew that looks at more than the places of the chips."""
PLACES = "places.geojson"
"""The points or polygons that the chips stand on, for grids that read them from a file."""
SCHEDULER_VARIABLES = ("CURATE_SCHEDULER", "DASK_SCHEDULER_ADDRESS")
TOLD_FAILURES = 5
"""Reasons named when a build is incomplete; the others say the same."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked on the command line or by a deployment: plain text, so that it can be stored and sent."""

    aoi: str
    out: str
    """Absolute folder of the dataset."""
    recipe: str | None = None
    """Path of the recipe, or its text (of several lines); None for the default one."""
    catalog: str | None = None
    """Instead of the recipe's."""
    scheduler: str | None = None
    """Dask cluster as `flows.cluster.connect` takes it, None for threads here."""
    jobs: int = 1
    """Shards built at once by threads."""

    def as_parameters(self) -> dict[str, Any]:
        """The parameters of the Prefect flow that builds the same."""
        return {
            "aoi": self.aoi,
            "out": self.out,
            "recipe": self.recipe,
            "catalog": self.catalog,
            "dask": self.scheduler,
            "jobs": self.jobs,
        }


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with its place in the output; the shards that are to be built still."""

    plan: Plan
    build: BuildRef
    todo: tuple[int, ...]
    carried: Carried | None = None
    """What is taken over from the version before; None for a first build."""


def make_request(
    *,
    aoi: str,
    recipe: str | None = None,
    catalog: str | None = None,
    out: str | None = None,
    dask: str | None = None,
    jobs: int | None = None,
) -> Request:
    """The request with its defaults filled in and its paths made absolute."""
    if out is None:
        out = _open_recipe(recipe).name or _read_area(aoi).name
    scheduler = dask or next((os.environ[name] for name in SCHEDULER_VARIABLES if os.environ.get(name)), None)
    return Request(
        aoi=_absolute(aoi),
        out=absolute_out(out),
        recipe=None if recipe is None else _absolute(recipe),
        catalog=None if catalog is None else _absolute(catalog),
        scheduler=scheduler,
        jobs=jobs or 1,
    )


def _absolute(value: str) -> str:
    """An existing path as an absolute one; text, names and URLs as they are."""
    if value.startswith("file://"):
        return unquote(urlsplit(value).path)
    return str(Path(value).absolute()) if _exists(value) else value


def _exists(value: str) -> bool:
    try:
        return bool(value.strip()) and "://" not in value and Path(value).exists()
    except OSError:  # WKT can be longer than a file name may be
        return False


def absolute_out(out: str) -> str:
    """A folder as an absolute path; an address as it is."""
    return out.rstrip("/") if "://" in out else str(Path(out).absolute())


def _open(request: Request) -> tuple[Recipe, Aoi]:
    """The recipe, with the request's catalog in place of its own, and the area."""
    recipe = _open_recipe(request.recipe)
    if request.catalog is not None:
        recipe = recipe.model_copy(update={"catalog": request.catalog})
    return recipe, _read_area(request.aoi)


def _open_recipe(asked: str | None) -> Recipe:
    """The recipe of a file or a text; ours when none is asked for."""
    from recipes.read import default_recipe, parse_recipe, read_recipe

    if asked is None:
        return default_recipe()
    if "\n" in asked:
        return parse_recipe(asked, name="the recipe").located(Path.cwd())
    return read_recipe(asked)


def _read_area(where: str) -> Aoi:
    """The area, also of a file in object storage."""
    from curate.objects import ObjectsError, nearby
    from tiling.aoi import read_aoi

    with nearby() as near:
        try:
            return read_aoi(near.path(where))
        except ObjectsError as error:
            raise AoiError(where, f"cannot be read: {error}") from error
        except AoiError as error:
            raise AoiError(near.told(error.what), near.told(error.why)) from error


def is_built(out: str) -> bool:
    """Whether a published dataset lies there; an unfinished build is none."""
    from chips.storage import open_storage
    from chips.write import is_published

    where = absolute_out(out)
    return ("://" in where or Path(where).exists()) and is_published(open_storage(where))


def check_request(request: Request) -> None:
    """Nothing when area and recipe can be used; else AoiError or RecipeError, before a schedule would find out."""
    _open(request)


def preview(request: Request, console: Console, *, map_out: str | None = None) -> Forecast:
    """What a build would do, without reading a pixel; writes nothing but the map that is asked for."""
    from catalog.lock import lock_bytes
    from flows.dates import own_dates
    from flows.describing import judge_terms
    from flows.forecast import Forecast
    from flows.plan import lay_area, make_plan, search
    from flows.sampling import sampled
    from flows.showing import write_plan_map
    from flows.splits import warn_of_splits

    recipe, aoi = _open(request)
    with console.stage("laying chips"):
        area = sampled(recipe, lay_area(recipe, aoi), console)
        area = replace(area, dates=own_dates(recipe, area, console))
    with console.stage("searching scenes"):
        lock = lock_bytes(search(recipe, area, console))
    with console.stage("planning"):
        plan = make_plan(recipe, area, lock)
    judge_terms(plan, console)
    warn_of_splits(recipe, plan.split.tolist(), console)
    forecast = Forecast.of(plan, request.out)
    if map_out is not None:
        write_plan_map(plan, forecast, map_out)
    return forecast


def moved(request: Request, console: Console) -> list[str]:
    """What the catalog has now and the lock of the dataset in ``request.out`` has not, a line each."""
    from catalog.lock import compare_locks, read_lock
    from chips.versions import open_dataset
    from flows.plan import lay_area, search

    recipe, aoi = _open(request)
    storage = open_dataset(request.out)
    _same_wish(storage, recipe, aoi)
    old = read_lock(_document(storage, SCENES))
    with console.stage("searching scenes"):
        new = search(recipe, lay_area(recipe, aoi), console)
    return list(compare_locks(old, new).lines())


def build(request: Request, console: Console) -> None:
    """Build the dataset of a request, or continue one that was begun. Raises CurateError."""
    prepared = prepare(request, console)
    if prepared is None:
        console.say(f"{request.out} is built already from the same recipe and area; nothing to do")
        return
    build_shards(prepared, request, console)
    finish(prepared, console)


def prepare(request: Request, console: Console) -> Prepared | None:
    """Plan the build and lock its scenes; None when the same dataset is published there already.

    A build that was begun keeps its lock: the catalog is not asked again. Its shards are verified by content.
    """
    from chips.storage import open_storage
    from chips.write import is_published, open_build

    recipe, aoi = _open(request)
    if "://" in request.out or Path(request.out).exists():
        storage = open_storage(request.out)
        begun = open_build(storage)
        if begun is not None or is_published(storage):
            _same_wish(storage, recipe, aoi)
        if is_published(storage):
            return None
        if begun is not None:
            return _continue(storage, recipe, aoi, console)
    return _begin(request, recipe, aoi, console)


def _begin(request: Request, recipe: Recipe, aoi: Aoi, console: Console) -> Prepared:
    from catalog.lock import lock_bytes
    from chips.storage import open_storage
    from chips.write import start_build
    from flows.alignment import measure
    from flows.dates import DATES, own_dates
    from flows.describing import judge_terms
    from flows.metrics import metrics
    from flows.plan import lay_area, make_plan, search
    from flows.sampling import SAMPLING, sampled
    from flows.splits import settle, warn_of_splits
    from recipes.read import dump_recipe
    from tiling.places import places_document

    with console.stage("laying chips"):
        area = sampled(recipe, lay_area(recipe, aoi), console)
        area = replace(area, dates=own_dates(recipe, area, console))
    with console.stage("searching scenes"):
        locked = search(recipe, area, console)
        lock = lock_bytes(locked)
    metrics().scenes_locked(locked)
    with console.stage("planning"):
        area, splits = settle(recipe, area, lock)
        plan = make_plan(recipe, area, lock)
    judge_terms(plan, console)
    warn_of_splits(recipe, plan.split.tolist(), console)
    documents = {SCENES: plan.lock, RECIPE: dump_recipe(recipe).encode(), REGION: aoi_document(aoi)}
    if splits is not None:
        documents[DRAWN] = splits
    if plan.places:
        documents[PLACES] = places_document(plan.places)
    if (alignment := measure(plan, console)) is not None:
        plan = make_plan(recipe, area, lock, alignment)
        documents[ALIGNMENT] = alignment
    if area.sampling is not None:
        documents[SAMPLING] = area.sampling
    if area.dates is not None:
        documents[DATES] = area.dates
    ref = start_build(open_storage(request.out, create=True), plan.layout, plan.fingerprint, documents)
    return _prepared(plan, ref, set())


def _continue(storage: Storage, recipe: Recipe, aoi: Aoi, console: Console) -> Prepared:
    from chips.write import finished_shards, start_build

    console.say(f"continuing the build in {storage.url}")
    plan = plan_from_lock(storage, recipe, aoi, console)
    ref = start_build(storage, plan.layout, plan.fingerprint)
    with console.stage("verifying what is there"):
        done = finished_shards(ref)
    console.say(f"{len(done)} of {len(plan.shards)} shards are there and intact")
    return _prepared(plan, ref, done)


def reopen(request: Request, console: Console) -> Prepared:
    """The build that `prepare` began, planned again from its own lock; what the journal says is believed."""
    from chips.storage import open_storage
    from chips.write import finished_shards, open_build

    recipe, aoi = _open(request)
    storage = open_storage(request.out)
    begun = open_build(storage)
    if begun is None:
        raise OutputError(request.out, "holds no unfinished build; start it with 'curate build'")
    plan = plan_from_lock(storage, recipe, aoi, console)
    return _prepared(plan, begun, finished_shards(begun, verify=False))


def still_todo(prepared: Prepared) -> Prepared | None:
    """The same with the shards that the journal has not now; None when another build, or none, is begun there."""
    from chips.storage import open_storage
    from chips.write import finished_shards, open_build

    begun = open_build(open_storage(prepared.build.url))
    if begun is None or begun.fingerprint != prepared.build.fingerprint:
        return None
    done = finished_shards(begun, verify=False)
    return replace(prepared, todo=tuple(s.ordinal for s in prepared.plan.shards if s.ordinal not in done))


def plan_from_lock(storage: Storage, recipe: Recipe, aoi: Aoi, console: Console) -> Plan:
    """The plan of a build that was begun, from its own lock."""
    from chips.write import read_document
    from flows.dates import DATES
    from flows.plan import lay_area, make_plan
    from flows.sampling import SAMPLING

    with console.stage("planning from the lock"):
        lock, alignment = _document(storage, SCENES), read_document(storage, ALIGNMENT)
        area = lay_area(recipe, aoi, read_document(storage, DRAWN), read_document(storage, SAMPLING))
        area = replace(area, dates=read_document(storage, DATES))
        return make_plan(recipe, area, lock, alignment)


def _prepared(plan: Plan, ref: BuildRef, done: set[int]) -> Prepared:
    return Prepared(plan, ref, tuple(shard.ordinal for shard in plan.shards if shard.ordinal not in done))


def _same_wish(storage: Storage, recipe: Recipe, aoi: Aoi) -> None:
    """OutputError when the output holds the dataset, finished or not, of another recipe or area."""
    from flows.plan import asked_places
    from tiling.places import places_document

    there, area, places = wish(storage)
    differs = [
        what
        for what, same in (
            ("recipe", there.fingerprint == recipe.fingerprint),
            ("area", area.fingerprint == aoi.fingerprint),
            ("file of places", places_document(places) == places_document(asked_places(recipe))),
        )
        if not same
    ]
    if differs:
        why = f"holds a dataset of another {' and another '.join(differs)}; choose another folder, or remove this one"
        raise OutputError(storage.url, why)


def wish(storage: Storage) -> tuple[Recipe, Aoi, tuple[Place, ...]]:
    """The recipe, the area and the places of the grid that a dataset, finished or not, was asked for with."""
    from recipes.read import parse_recipe
    from tiling.aoi import read_aoi_document
    from tiling.places import read_places_document

    recipe = parse_recipe(_document(storage, RECIPE).decode(), name=f"{storage.url}/{RECIPE}")
    places = () if recipe.grid.places is None else read_places_document(_document(storage, PLACES))
    return recipe, read_aoi_document(_document(storage, REGION), f"{storage.url}/{REGION}"), places


def _document(storage: Storage, name: str) -> bytes:
    from chips.write import read_document

    data = read_document(storage, name)
    if data is None:
        raise StoreError(storage.url, f"{name} is missing; the dataset is damaged, build it anew in another folder")
    return data


def aoi_document(aoi: Aoi) -> bytes:
    """The area as GeoJSON, with its name."""
    import json

    import shapely

    feature = {
        "type": "Feature",
        "properties": {"name": aoi.name},
        "geometry": json.loads(shapely.to_geojson(aoi.geometry)),
    }
    return json.dumps({"type": "FeatureCollection", "features": [feature]}).encode()


def build_shards(prepared: Prepared, request: Request, console: Console, *, only: Sequence[int] | None = None) -> None:
    """Build the shards that are not there yet, or those of them named in ``only``.

    Raises IncompleteError when some fail.
    """
    from chips.write import record_failures
    from flows.metrics import metrics
    from flows.run import run_shards
    from flows.shard import ShardDone, Work

    plan = prepared.plan
    shards = [plan.shards[ordinal] for ordinal in prepared.todo if only is None or ordinal in only]
    if not shards:
        return
    with console.stage("building chips", total=sum(len(shard.chips) for shard in shards)) as stage:

        def told(done: ShardDone) -> None:
            metrics().shard_done(done)
            stage.advance(done.chips, f"shard {done.ordinal}")

        failed = run_shards(
            Work.of(plan, prepared.build, prepared.carried),
            shards,
            scheduler=request.scheduler,
            jobs=request.jobs,
            on_done=told,
            say=console.say,
        )
    if failed:
        record_failures(prepared.build, {ordinal: str(error) for ordinal, error in sorted(failed.items())})
        metrics().shards_failed(failed.values())
        reasons = tuple(dict.fromkeys(str(error) for _, error in sorted(failed.items())))
        done = len(plan.shards) - len(prepared.todo) + len(shards) - len(failed)
        raise IncompleteError(request.out, done, len(plan.shards), reasons[:TOLD_FAILURES])


def finish(prepared: Prepared, console: Console) -> None:
    """Publish: index, side files, manifest, and the metadata that makes the store open, the root's last."""
    import json

    from catalog.lock import with_shifts as scenes_with_shifts
    from chips.audit import AUDIT, audit_bytes
    from chips.index import COVERAGE, INDEX, index_bytes, read_index, read_table
    from chips.manifest import STATISTICS
    from chips.publish import publish
    from chips.statistics import chip_dates, statistics_bytes
    from chips.write import journal, merged_statistics, started_with, written_storage
    from flows.alignment import scene_shifts, with_shifts
    from flows.auditing import audit_of, sentences
    from flows.coverage import region_coverage
    from flows.describing import ATTRIBUTION, descriptions, terms
    from flows.labelling import label_documents
    from flows.sampling import sampling_attrs, with_sampling
    from flows.showing import report_of_build
    from flows.splits import seen_ground
    from publish.report import REPORT
    from tiling.grid import footprints

    plan = prepared.plan
    with console.stage("publishing"):
        storage = written_storage(prepared.build)
        records = [record for shard in journal(prepared.build) for record in shard.chips]
        files: dict[str, bytes] = {}
        if plan.alignment is not None:
            records = with_shifts(records, plan.alignment)
            files[SCENES] = scenes_with_shifts(plan.lock, scene_shifts(plan.alignment))
        if plan.sampling is not None:
            records = with_sampling(records, plan.sampling)
        files |= label_documents(plan.labels, plan.chips, records)
        files[INDEX] = index_bytes(records, list(footprints(plan.chips)))
        series = [request.name for request in plan.requests if request.time is not None and request.time.series]
        steps = {name: max(len(record.sources[name].dates) for record in records) for name in series}
        if (found := region_coverage(plan.requests, records)) is not None:
            files[COVERAGE] = found
        leaks = audit_of(plan.recipe, read_index(files[INDEX]), seen_ground(plan.chips, plan.recipe), plan.lock)
        files[AUDIT] = audit_bytes(leaks)
        counts = merged_statistics(prepared.build)
        dates = map(chip_dates, records)
        files[STATISTICS] = statistics_bytes(prepared.build.layout, counts, dates, json.loads(files[AUDIT]))
        known, layout = started_with(storage) | files, plan.layout.trimmed(steps)
        if plan.recipe.report:
            attribution = {ATTRIBUTION: terms(plan, read_table(files[INDEX])).text.encode()}
            files[REPORT] = report_of_build(storage, layout, known | attribution)
        files |= descriptions(plan, layout, known | files)
        publish(prepared.build, records, files, sampling_attrs(plan.sampling), trim=steps)
    for sentence in sentences(plan.recipe, leaks):
        console.say(f"splits leak: {sentence}", level="warning")


def check(dataset: str, console: Console, version: int | None = None) -> CheckReport:
    """Everything a dataset promises, verified by reading it again; also what only its recipe knows."""
    from chips.audit import AUDIT
    from chips.check import check as check_store
    from chips.versions import open_published
    from flows.promises import promises
    from flows.sampling import SAMPLING

    storage = open_published(absolute_out(dataset), version)
    drawn, sampling, audit, lock = (storage.get(name) for name in (DRAWN, SAMPLING, AUDIT, SCENES))
    recipe, aoi, places = wish(storage)
    promised = promises(recipe, aoi, drawn, sampling, places, audit=audit, lock=lock)
    with console.stage("checking") as stage:
        return check_store(storage, promises=promised, on_progress=counting(stage, "objects"))


def export(dataset: str, spec: ExportSpec, out: str | None, console: Console, version: int | None = None) -> str:
    """Write a dataset as another format, or continue where that stopped; a sentence about what came of it."""
    from publish.export import open_source, open_target, writer_of
    from publish.opened import open_published

    source = open_source(open_published(absolute_out(dataset), version, whole=True), spec)
    writer = writer_of(source)
    folder = out or f"{dataset.rstrip('/').rsplit('/', 1)[-1]}-{spec.to}"
    target = open_target(absolute_out(folder), source)
    with console.stage(f"writing {spec.to}", total=len(source.chips)) as stage:
        for done in writer(target):
            stage.advance(done)
        target.finish(source)
    told = f"{folder}: {target.written} files of {len(source.chips)} chips written"
    told += f", {target.kept} were there" if target.kept else ""
    return told + (f"; {source.left_out} chips have no pixels and were left out" if source.left_out else "")


def info(dataset: str, version: int | None = None) -> Info:
    """What lies in a folder, from its metadata: of the latest version, or of the one asked for."""
    from chips.info import describe
    from chips.versions import open_dataset

    return describe(open_dataset(absolute_out(dataset), version))


def status(dataset: str) -> Status:
    """How far the build in a folder is, from its journal: an update that was begun, else the latest version."""
    from chips.status import status as status_of
    from chips.storage import open_storage
    from chips.versions import open_dataset, unfinished

    where = absolute_out(dataset)
    return status_of(unfinished(open_storage(where)) or open_dataset(where))


def statuses(root: str) -> tuple[Status, ...]:
    """How far the builds directly below a folder are."""
    from chips.status import statuses as statuses_of

    return statuses_of(absolute_out(root))


def record(out: str) -> dict[str, Any]:
    """What a published dataset is, as JSON values: address, fingerprint, chips, splits, status, bytes."""
    found = info(out)
    return {
        "dataset": absolute_out(out),
        "fingerprint": found.fingerprint,
        "chips": found.chips,
        "splits": dict(found.splits),
        "status": dict(found.status),
        "stored_bytes": found.stored_bytes,
    }


def summary(out: str) -> str:
    """A few lines about a published dataset and how to open it."""
    from flows.words import describe

    return describe(info(out))
