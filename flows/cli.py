"""The `curate` command: reads what the user typed, calls the steps, and turns errors into sentences and exit codes.

Imports stay inside the commands so that `curate --help` answers at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from curate import __version__
from curate.errors import CurateError, OutputError

if TYPE_CHECKING:
    from datetime import datetime

    from flows.console import Console
    from flows.steps import Request
    from publish.pictures import Look

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""
OUT_OF_MEMORY = 3
"""Exit code after memory ran out: what was built is kept, and the same command continues."""

EPILOG = """Exit codes: 0 done; 1 the check found problems; 2 something given cannot be used (area, recipe, catalog,
output); 3 something could not be read, what was built is kept and the same command continues; 4 the dataset is damaged;
130 interrupted, the same command continues."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=EPILOG)
@click.version_option(__version__, prog_name="curate")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "bar", "plain", "json"]),
    default="auto",
    envvar="CURATE_LOG_FORMAT",
    show_default=True,
    help="Progress bars on a terminal and plain lines elsewhere, or JSON lines.",
)
@click.option("-v", "--verbose", is_flag=True, help="Also what the stages remark, and tracebacks.")
@click.pass_context
def main(context: click.Context, log_format: str, verbose: bool) -> None:
    """Build analysis-ready Zarr chips with labels and splits that do not leak, from an area and a recipe."""
    context.obj = {"log_format": log_format, "verbose": verbose}


def _request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option(
            "--aoi",
            required=True,
            help="Area of interest: GeoJSON, GeoPackage, GeoParquet, WKT, or 'minx,miny,maxx,maxy' in degrees.",
        ),
        click.option("--recipe", help="Recipe in YAML. Default: a Sentinel-1/-2, DEM and WorldCover recipe."),
        click.option("--catalog", help="Catalog instead of the recipe's: a known name, a STAC API, a catalog.json."),
        click.option("--out", help="Folder of the dataset. Default: named after the recipe or the area."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _version_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--version", type=click.IntRange(1), help="Version of the dataset. Default: the latest.")(
        command
    )


@main.command()
@_request_options
@click.option(
    "--dask",
    help="Dask: an address, local:4, or module:function that makes a cluster. Default: DASK_SCHEDULER_ADDRESS.",
)
@click.option("--jobs", type=click.IntRange(1), help="Shards built at once by threads here. Default: 1.")
@click.option("--prefect/--no-prefect", default=None, help="Track it in Prefect. Default: if PREFECT_API_URL is set.")
@click.pass_obj
def build(
    options: dict[str, Any],
    aoi: str,
    recipe: str | None,
    catalog: str | None,
    out: str | None,
    dask: str | None,
    jobs: int | None,
    prefect: bool | None,
) -> None:
    """Build a dataset: plan, lock the scenes, build by shards, publish. A second run continues where one stopped."""
    with _session(options) as console:
        request = _request(aoi, recipe, catalog, out, dask=dask, jobs=jobs)
        _build(request, console, prefect)


def _build(request: Request, console: Console, prefect: bool | None) -> None:
    if _tracked(prefect):
        from flows.build import build as build_flow

        build_flow(**request.as_parameters())
    else:
        from flows.steps import build as build_here

        build_here(request, console)
    from flows.steps import summary

    click.echo(summary(request.out))


def _tracked(prefect: bool | None) -> bool:
    """Whether a command is to run as a flow; then there must be a server."""
    if not (bool(os.environ.get("PREFECT_API_URL")) if prefect is None else prefect):
        return False
    from flows.tracking import require_server

    require_server()
    return True


@main.command()
@_request_options
@click.option("--json", "as_json", is_flag=True, help="The plan as JSON.")
@click.option("--map", "map_out", help="Also write a page with a map of it, as plan.html.")
@click.option(
    "--refresh", is_flag=True, help="Instead: what moved in the catalog since the dataset in --out was locked."
)
@click.pass_obj
def plan(
    options: dict[str, Any],
    aoi: str,
    recipe: str | None,
    catalog: str | None,
    out: str | None,
    as_json: bool,
    map_out: str | None,
    refresh: bool,
) -> None:
    """Show what a build would do: chips, shards, splits, scenes, bytes. Reads no pixel, writes nothing but --map."""
    with _session(options) as console:
        from flows.steps import moved, preview

        request = _request(aoi, recipe, catalog, out)
        if refresh:
            lines = moved(request, console)
            click.echo(json.dumps(lines, indent=2) if as_json else "\n".join(lines or ["nothing moved"]))
            return
        forecast = preview(request, console, map_out=map_out)
        click.echo(json.dumps(forecast.as_dict(), indent=2) if as_json else forecast.as_text())
        if not as_json:
            click.echo(f"  map      {map_out or 'with --map plan.html as a page to look at'}")


@main.command()
@click.argument("dataset")
@click.option("--aoi", help="Larger area that holds the old one. Default: the area stays.")
@click.option("--time", help="Longer time that holds the old one, START/END. Default: the time stays.")
@click.option("--recipe", help="File of the recipe, if it names files relative to its own folder.")
@click.option("--dask", help="Address of a Dask scheduler. Default: DASK_SCHEDULER_ADDRESS, else threads here.")
@click.option("--jobs", type=click.IntRange(1), help="Shards built at once by threads here. Default: 1.")
@click.pass_obj
def update(
    options: dict[str, Any],
    dataset: str,
    aoi: str | None,
    time: str | None,
    recipe: str | None,
    dask: str | None,
    jobs: int | None,
) -> None:
    """Add dates or area to a dataset as a new version beside the old one; only what is new is searched and read."""
    with _session(options) as console:
        from flows.steps import summary
        from flows.update import make_update
        from flows.update import update as update_dataset

        request = make_update(dataset, aoi=aoi, time=time, recipe=recipe, dask=dask, jobs=jobs)
        made = update_dataset(request, console)
        if made is not None:
            click.echo(summary(made))


@main.command()
@click.argument("dataset")
@click.option("--to", help="Copy the finished dataset to this folder or address; an earlier copy becomes a version.")
@_version_option
@click.option("--recipe", help="File of the recipe, if it names files relative to its own folder.")
@click.option("--prefect/--no-prefect", default=None, help="Track it in Prefect. Default: if PREFECT_API_URL is set.")
@click.pass_obj
def publish(
    options: dict[str, Any],
    dataset: str,
    to: str | None,
    version: int | None,
    recipe: str | None,
    prefect: bool | None,
) -> None:
    """Publish a build that was stopped when its shards were written. With --to, copy a dataset to another place."""
    with _session(options) as console:
        from flows.finishing import make_publishing
        from flows.finishing import publish as publish_here
        from flows.steps import summary

        asked = make_publishing(dataset, to=to, version=version, recipe=recipe)
        if _tracked(prefect):
            from flows.release import publish as publish_flow

            publish_flow(**asked.as_parameters())
        else:
            publish_here(asked, console)
        click.echo(summary(asked.where))


def _service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--dask", help="Address of a Dask scheduler for the runs. Default: threads of the run."),
        click.option("--jobs", type=click.IntRange(1), help="Shards built at once by threads. Default: 1."),
        click.option("--update", default="0 2 * * *", show_default=True, help="When to update, as cron in UTC."),
        click.option("--check", default="0 6 * * 0", show_default=True, help="When to check; '' for never."),
        click.option("--watch", default="15 * * * *", show_default=True, help="When to look for new scenes."),
        click.option("--until", default="today", show_default=True, help="Last day wanted; '' for the recipe's time."),
        click.option("--publish-to", help="Copy every version to this folder or address once it is published."),
    )
    for option in reversed(options):
        command = option(command)
    return _request_options(command)


def _deployments(
    asked: dict[str, Any], schedules: tuple[str, str, str], until: str, publish_to: str | None, **where: Any
) -> Any:
    from flows.tracking import require_server

    require_server()
    from flows.deployments import Schedules, deployments
    from flows.steps import check_request

    request = _request(**asked)
    check_request(request)
    return deployments(request, Schedules(*schedules), until=until or None, publish_to=publish_to, **where)


@main.command()
@_service_options
@click.pass_obj
def serve(
    options: dict[str, Any],
    /,
    update: str,
    check: str,
    watch: str,
    until: str,
    publish_to: str | None,
    **asked: Any,
) -> None:
    """Keep a dataset up to date from this machine: update, check and watch on schedules of Prefect, until Ctrl-C."""
    with _session(options, tells=False):
        made = _deployments(asked, (update, check, watch), until, publish_to)
        from prefect import serve as serve_all

        serve_all(*made, limit=1)


@main.command()
@_service_options
@click.option("--pool", required=True, help="Prefect work pool whose workers do the runs.")
@click.option("--image", help="Container image of the runs, for pools of containers.")
@click.option("--set", "variables", multiple=True, metavar="NAME=VALUE", help="Variable of the pool's job template.")
@click.pass_obj
def deploy(
    options: dict[str, Any],
    /,
    update: str,
    check: str,
    watch: str,
    until: str,
    publish_to: str | None,
    pool: str,
    image: str | None,
    variables: tuple[str, ...],
    **asked: Any,
) -> None:
    """Register update, check and watch of a dataset with a Prefect work pool."""
    with _session(options):
        from flows.deployments import job_variables, register

        where = {"pool": pool, "image": image, "job_variables": job_variables(variables)}
        made = _deployments(asked, (update, check, watch), until, publish_to, **where)
        for name in register(made, pool):
            click.echo(name)


@main.command()
@click.argument("dataset")
@_version_option
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
@click.pass_obj
def check(options: dict[str, Any], dataset: str, version: int | None, as_json: bool) -> None:
    """Read a dataset again and verify everything it promises: bytes, pixels, index, splits."""
    with _session(options) as console:
        from flows.steps import check as check_dataset

        report = check_dataset(dataset, console, version)
        if as_json:
            found = {"problems": list(report.problems), "facts": dict(report.facts)}
            click.echo(json.dumps(found, indent=2, default=str))
        else:
            for problem in report.problems:
                click.echo(f"✗ {problem}")
            for name, value in report.facts.items():
                click.echo(f"{name}: {value}")
            click.echo("the dataset is as promised" if not report.problems else f"{len(report.problems)} problems")
        if report.problems:
            sys.exit(1)


@main.command()
@click.argument("dataset")
@_version_option
@click.option("--json", "as_json", is_flag=True, help="The description as JSON.")
@click.pass_obj
def info(options: dict[str, Any], dataset: str, version: int | None, as_json: bool) -> None:
    """Describe a dataset, finished or not, from its metadata."""
    with _session(options):
        from dataclasses import asdict

        from flows.steps import info as describe_dataset
        from flows.words import describe

        described = describe_dataset(dataset, version)
        click.echo(json.dumps(asdict(described), indent=2, default=str) if as_json else describe(described))


@main.command()
@click.argument("dataset")
@click.option("--json", "as_json", is_flag=True, help="The state as JSON.")
@click.pass_obj
def status(options: dict[str, Any], dataset: str, as_json: bool) -> None:
    """Tell how far a build is and why shards failed, from its journal; any machine may ask."""
    with _session(options):
        from dataclasses import asdict

        from flows.steps import status as status_of
        from flows.words import status_lines

        found = status_of(dataset)
        click.echo(json.dumps(asdict(found), indent=2, default=str) if as_json else "\n".join(status_lines(found)))


@main.command()
@click.argument("root")
@click.option("--json", "as_json", is_flag=True, help="The states as JSON.")
@click.pass_obj
def runs(options: dict[str, Any], root: str, as_json: bool) -> None:
    """List the builds and datasets that lie directly below a folder or an address, and how far each is."""
    with _session(options):
        from dataclasses import asdict

        from flows.steps import statuses
        from flows.words import status_lines

        found = statuses(root)
        if as_json:
            click.echo(json.dumps([asdict(one) for one in found], indent=2, default=str))
        else:
            lines = [line for one in found for line in status_lines(one)]
            click.echo("\n".join(lines or ["there are no builds and no datasets here"]))


@main.command()
@click.argument("dataset")
@_version_option
@click.option("--to", type=click.Choice(["geotiff", "webdataset", "coco"]), required=True, help="The format.")
@click.option("--out", help="Local folder to write to. Default: the dataset's name with the format's.")
@click.option(
    "--split", "splits", multiple=True, help="Only this split; may be given again. Default: train, val, test."
)
@click.option(
    "--group", "groups", multiple=True, help="Only this source, or 'label'; may be given again. Default: all."
)
@click.option("--cog", is_flag=True, help="GeoTIFF: cloud-optimised.")
@click.option("--label", help="COCO: the variable with the instances, where there are several.")
@click.pass_obj
def export(
    options: dict[str, Any],
    dataset: str,
    version: int | None,
    to: Literal["geotiff", "webdataset", "coco"],
    out: str | None,
    splits: tuple[str, ...],
    groups: tuple[str, ...],
    cog: bool,
    label: str | None,
) -> None:
    """Write a dataset as GeoTIFF chips, WebDataset archives or COCO annotations. Run it again to continue."""
    with _session(options) as console:
        from flows.steps import export as export_dataset
        from publish.export import ExportSpec

        spec = ExportSpec(to=to, splits=splits, groups=groups, cog=cog, label=label)
        click.echo(export_dataset(dataset, spec, out, console, version))


@main.command()
@click.argument("dataset")
@_version_option
@click.option("--out", default="report.html", show_default=True, help="File to write.")
@click.option("--pictures", type=click.IntRange(0), help="Chips to show as pictures. Default: 24.")
@click.pass_obj
def report(options: dict[str, Any], dataset: str, version: int | None, out: str, pictures: int | None) -> None:
    """Write a page that shows a dataset: map, pictures, scenes, classes. It opens from disk and needs no network."""
    with _session(options):
        from flows.showing import write_report

        click.echo(write_report(dataset, out, pictures, version))


@main.command(name="show")
@click.argument("chip")
@click.option("--dataset", required=True, help="Folder or URL of the dataset.")
@_version_option
@click.option("--out", help="PNG to write. Default: named after the chip.")
@click.option("--source", help="Only this source, or 'label'.")
@click.option(
    "--as",
    "look",
    type=click.Choice(["true-colour", "false-colour", "sar", "hillshade", "label"]),
    help="Only this view. Default: all that the dataset has, side by side.",
)
@click.option("--date", type=click.DateTime(["%Y-%m-%d"]), help="Day to show. Default: the clearest date or period.")
@click.option("--plain", is_flag=True, help="The first view alone in its own pixels, void transparent.")
@click.pass_obj
def show_chip(
    options: dict[str, Any],
    chip: str,
    dataset: str,
    version: int | None,
    out: str | None,
    source: str | None,
    look: Look | None,
    date: datetime | None,
    plain: bool,
) -> None:
    """Draw a chip as PNG: every source and label of it, or one view."""
    with _session(options):
        from flows.showing import show_chip as draw

        day = None if date is None else date.date()
        name = out or f"{chip.replace('/', '_')}.png"
        click.echo(draw(dataset, chip, name, source=source, look=look, date=day, plain=plain, version=version))


@main.command()
@click.option("--out", help="A dataset, or where one is to be: can it be listed?")
@click.option("--catalog", help="A catalog: does it answer?")
@click.option("--dask", help="A Dask cluster: has it workers with this release?")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
@click.pass_obj
def health(options: dict[str, Any], out: str | None, catalog: str | None, dask: str | None, as_json: bool) -> None:
    """Say whether what a run needs can be reached, for probes; exit code 3 when something cannot."""
    with _session(options):
        from dataclasses import asdict

        from flows.health import examine

        findings = examine(out=out, catalog=catalog, dask=dask)
        if as_json:
            click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        else:
            for finding in findings:
                click.echo(f"{'✓' if finding.ok else '✗'} {finding.what}: {finding.told}")
        if not all(finding.ok for finding in findings):
            sys.exit(3)


@main.command()
@click.argument("path", default="recipe.yaml")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.pass_obj
def init(options: dict[str, Any], path: str, force: bool) -> None:
    """Write a commented recipe to start from, and its schema beside it for the editor."""
    with _session(options):
        from importlib import resources

        target = Path(path)
        if target.exists() and not force:
            raise OutputError(str(target), "is there already; give another name, or --force to write over it")
        text = resources.files("recipes").joinpath("template.yaml").read_text(encoding="utf-8")
        _write_text(target, text)
        _write_text(target.with_name("recipe.schema.json"), _schema_text())
        click.echo(f"{target}: edit it, then 'curate plan --aoi region.geojson --recipe {target}'")


@main.command()
@click.option("--out", help="Write it to a file instead of printing it.")
@click.option("--markdown", is_flag=True, help="Instead: every key, its default and what it does, as a page to read.")
@click.pass_obj
def schema(options: dict[str, Any], out: str | None, markdown: bool) -> None:
    """Print the JSON Schema of a recipe, for editors and forms."""
    with _session(options):
        from recipes.reference import reference

        text = reference() if markdown else _schema_text()
        if out is None:
            click.echo(text, nl=False)
        else:
            _write_text(Path(out), text)


@main.group(name="labels", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="The lists as JSON.")
@click.pass_context
def label_names(context: click.Context, as_json: bool) -> None:
    """List what labels know by name: land-cover products, legends, translations, rules for OpenStreetMap."""
    if context.invoked_subcommand is not None:
        return
    with _session(context.obj):
        from flows.legends import listing_text
        from labels.listing import listings

        tables = listings()
        if as_json:
            click.echo(json.dumps({table.key: table.rows for table in tables}, indent=2, ensure_ascii=False))
        else:
            click.echo(listing_text(tables))


@label_names.command()
@click.argument("name")
@click.option("--to", help="Instead: what each class becomes there, and how well it fits.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.pass_obj
def show(options: dict[str, Any], name: str, to: str | None, as_json: bool) -> None:
    """Show the classes of a product or legend with their colours, a crosswalk from it, or rules for OpenStreetMap."""
    with _session(options):
        from flows.legends import crosswalk_text, legend_text, rules_text
        from labels.crosswalk import crosswalk
        from labels.listing import describe_crosswalk, describe_legend, describe_rules
        from labels.rules import RULE_SETS, is_path

        if to is not None:
            facts, text = describe_crosswalk(crosswalk(name, to)), crosswalk_text
        elif name in RULE_SETS or is_path(name):
            facts, text = describe_rules(name), rules_text
        else:
            facts, text = describe_legend(name), legend_text
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else text(facts))


@main.command(name="splits")
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
@click.pass_obj
def split_names(options: dict[str, Any], as_json: bool) -> None:
    """List the rules for splits, and which of them keep the split of every place when a dataset grows."""
    with _session(options):
        from flows.listing import split_rules, split_rules_text

        click.echo(json.dumps(split_rules(), indent=2) if as_json else split_rules_text())


@main.command()
@click.option("--out", default="demo", show_default=True, help="Folder for the simulated world and the dataset.")
@click.pass_obj
def demo(options: dict[str, Any], out: str) -> None:
    """Simulate a small world and build a dataset of it: Sentinel-2, Sentinel-1, DEM and labels in one store."""
    with _session(options) as console:
        from flows.demo import demo_request, how_to_open

        if "://" in out:
            raise OutputError(out, "the demo simulates a world of files, which needs a folder on a disk")
        request = demo_request(Path(out), console)
        _build(request, console, False)
        click.echo(how_to_open(request.out))


def _request(aoi: str, recipe: str | None, catalog: str | None, out: str | None, **how: Any) -> Request:
    from flows.steps import make_request

    return make_request(aoi=aoi, recipe=recipe, catalog=catalog, out=out, **how)


def _schema_text() -> str:
    from recipes.recipe import schema as recipe_schema

    return json.dumps(recipe_schema(), indent=2) + "\n"


def _write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(str(path), f"cannot be written ({error.strerror}); choose another place") from error


@contextmanager
def _session(options: dict[str, Any], *, tells: bool = True) -> Iterator[Console]:
    """Run a command's body: errors become one sentence and an exit code, Ctrl-C and SIGTERM leave at once.

    ``tells`` says whether it has numbers to tell, or leaves that, and the port, to processes that it starts.
    Leaving at once is safe: a shard that was not finished is not in the journal, so the next run builds it again.
    """
    from curate.tracing import run_id, traced
    from flows.console import open_console
    from flows.metrics import Metered, told

    console = Metered(open_console(options["log_format"], verbose=options["verbose"]))
    name = click.get_current_context().command_path
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with told() if tells else nullcontext(), traced(name, run_id()):
            yield console
    except KeyboardInterrupt:
        console.say("interrupted; what was built is kept, the same command continues", level="warning")
        _leave(INTERRUPTED)
    except MemoryError:
        told_what = (
            "memory ran out; what was built is kept. Take fewer --jobs, a smaller store.shard_chips or less area"
        )
        console.say(told_what, level="error", event="error", kind="MemoryError")
        _leave(OUT_OF_MEMORY)
    except CurateError as error:
        if options["verbose"]:
            import traceback

            console.say(traceback.format_exc(), level="error")
        console.say(str(error), level="error", event="error", kind=type(error).__name__)
        sys.exit(error.exit_code)


def _leave(code: int) -> None:
    """End the process without waiting for threads that still read or write."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
