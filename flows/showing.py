"""What people are shown: the report of a dataset, single chips as pictures, and a map of what a build would do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from curate.errors import OutputError

if TYPE_CHECKING:
    from chips.layout import Layout
    from chips.storage import Storage
    from flows.forecast import Forecast
    from flows.plan import Plan
    from publish.pictures import Look


def report_of_build(storage: Storage, layout: Layout, files: Mapping[str, bytes]) -> bytes:
    """``report.html`` of a build whose shards are all written.

    Args:
        storage: Of the build.
        layout: As it will be published.
        files: Name -> content of what will lie beside the store; documents that the build began with need not be there.
    """
    from publish.report import report
    from publish.written import written_dataset

    return report(written_dataset(storage, layout, files))


def write_report(dataset: str, out: str, pictured: int | None = None, version: int | None = None) -> Path:
    """Write the report of a published dataset to a file, with as many chips as pictures; returns where it lies."""
    from publish.report import PICTURED_CHIPS, report
    from publish.written import published_dataset

    found = report(
        published_dataset(dataset, version, whole=True), pictured=PICTURED_CHIPS if pictured is None else pictured
    )
    return _write(out, found)


def show_chip(
    dataset: str,
    chip: str,
    out: str,
    *,
    source: str | None = None,
    look: Look | None = None,
    date: dt.date | None = None,
    plain: bool = False,
    version: int | None = None,
) -> Path:
    """Draw a chip of a published dataset as PNG; returns where it lies.

    Args:
        dataset: Folder or URL.
        chip: Id of the chip.
        out: File to write.
        source: Only this source, or ``label``.
        look: Only these views.
        date: Of each source the date or period that holds this day or lies nearest; without it the clearest.
        plain: The first view alone in the chip's own pixels, void transparent, nothing written on it.
        version: Of the dataset; without it the latest.
    """
    import io

    from publish.pictures import Gallery, render
    from publish.written import published_dataset

    image, pictures = render(Gallery(published_dataset(dataset, version)), chip, source=source, look=look, date=date)
    if plain:
        return _write(out, pictures[0].png())
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return _write(out, data.getvalue())


def plan_map(plan: Plan, forecast: Forecast) -> bytes:
    """A page that shows what a build would do: chips by split and shard, and the scenes over time."""
    from publish.report import SPLIT_COLOURS, ChipMap, Layer, page, split_counts, timelines_of
    from tiling.grid import footprints

    chips, splits = plan.chips, [str(split) for split in plan.split]
    shards = [shard.ordinal for shard in plan.shards for _ in shard.chips]
    layers = (
        Layer.of_text("split", splits, SPLIT_COLOURS),
        Layer("inside the region", [round(100 * float(share)) for share in plan.cover], unit="%"),
        Layer("shard", shards),
    )
    lines = forecast.as_text().splitlines()
    return page(
        title=plan.name,
        kind="Plan",
        numbers=[("Chips", f"{len(chips):,}"), *((name, f"{count:,}") for name, count in split_counts(splits))],
        chips=ChipMap([chip.id for chip in chips], footprints(chips), plan.aoi.geometry, layers),
        lines=[line.strip() for line in lines[1:]],
        timelines=timelines_of(plan.lock, list(plan.recipe.sources)),
    )


def write_plan_map(plan: Plan, forecast: Forecast, out: str) -> Path:
    """Write ``plan_map`` to a file; returns where it lies."""
    return _write(out, plan_map(plan, forecast))


def _write(out: str, data: bytes) -> Path:
    path = Path(out)
    if (path.parent / "manifest.json").exists():
        why = "would lie in a dataset, whose manifest holds the checksum of every file; give another place with --out"
        raise OutputError(str(path), why)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(str(path), f"cannot be written ({error.strerror}); choose another place") from error
    return path
