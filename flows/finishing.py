"""Publishing by itself: a build that was stopped when all its shards were there, or a copy of a dataset elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import InputError, OutputError, StoreError
from flows.console import Console, counting
from flows.steps import Prepared, absolute_out, finish, plan_from_lock, wish

if TYPE_CHECKING:
    from chips.storage import Storage

TOLD_SHARDS = 5
"""Shards named when some are missing."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """What was asked: plain text, so that a deployment can store it."""

    dataset: str
    """Folder or address of the dataset, absolute."""
    to: str | None = None
    """Where a finished dataset is to be copied; None to finish the one in ``dataset``."""
    version: int | None = None
    """The version to copy; None for the latest."""
    recipe: str | None = None
    """The recipe's file, from whose folder its relative paths start; None takes the working directory."""

    @property
    def where(self) -> str:
        """The dataset that is published in the end."""
        return self.to or self.dataset

    def as_parameters(self) -> dict[str, Any]:
        """The parameters of the Prefect flow that does the same."""
        return {"dataset": self.dataset, "to": self.to, "version": self.version, "recipe": self.recipe}


def make_publishing(
    dataset: str, *, to: str | None = None, version: int | None = None, recipe: str | None = None
) -> Publishing:
    """The request with its paths made absolute. Raises InputError when a version is named and nothing is copied."""
    if version is not None and to is None:
        raise InputError("--version", "names the version to copy; say with --to where it is to go")
    if recipe is not None and "://" not in recipe:
        recipe = str(Path(recipe).absolute())
    return Publishing(absolute_out(dataset), None if to is None else absolute_out(to), version, recipe)


def publish(asked: Publishing, console: Console) -> bool:
    """Do what was asked; False when it was done already. Raises CurateError."""
    if asked.to is None:
        return _finish(asked, console)
    return _copy(asked, asked.to, console)


def _copy(asked: Publishing, to: str, console: Console) -> bool:
    from chips.copy import copy_dataset

    with console.stage("copying") as stage:
        made = copy_dataset(asked.dataset, to, version=asked.version, on_progress=counting(stage, "objects"))
    if made.was_there:
        console.say(f"{to} has this dataset already, as version {made.version}; nothing to do")
        return False
    kept = f"; {made.kept} were there already and are intact" if made.kept else ""
    console.say(f"sent {made.sent} objects, {made.sent_bytes / 1e6:.1f} MB{kept}; it is version {made.version} there")
    return True


def _finish(asked: Publishing, console: Console) -> bool:
    """Publish a build, or the next version of a dataset, of which all shards are written."""
    from chips.manifest import needed_manifest
    from chips.storage import open_storage
    from chips.versions import make_latest, newest, open_dataset, unfinished, version_url
    from chips.write import JOURNAL, is_published, open_build

    dataset = open_storage(asked.dataset)
    if not is_published(dataset):
        if open_build(dataset) is None:
            raise StoreError(dataset.url, "holds no build and no dataset; 'curate build' makes one")
        _publish(dataset, asked, "curate build", console)
        return True
    following = newest(dataset) + 1
    url = version_url(dataset, following)
    begun = unfinished(dataset)
    if begun is not None:
        fingerprint = _publish(begun, asked, "curate update", console)
    elif ("://" in url or Path(url).exists()) and is_published(open_storage(url)):
        # Stopped when the version was published, and before latest.json named it.
        fingerprint = needed_manifest(open_storage(url)).fingerprint
    else:
        published = open_dataset(asked.dataset)
        published.delete(published.sizes(JOURNAL))  # of a publishing that was stopped at its very last step
        published.sweep()
        console.say(f"{published.url} is published already; nothing to do")
        return False
    make_latest(dataset, following, fingerprint)
    console.say(f"version {following} is the latest one now")
    return True


def _publish(begun: Storage, asked: Publishing, command: str, console: Console) -> str:
    """Publish a build as the command that began it does: its fingerprint. OutputError where shards are missing."""
    from chips.write import failures, finished_shards, open_build, start_build, written_shards
    from recipes.read import read_recipe

    build = open_build(begun)
    assert build is not None  # the caller has seen it
    shards = range(build.layout.n_shards)
    there = written_shards(begun)
    if missing := [ordinal for ordinal in shards if ordinal not in there]:
        raise _unbuilt(begun, missing, len(shards), failures(begun), command)
    recipe, aoi, _ = wish(begun)
    base = Path.cwd() if asked.recipe is None else read_recipe(asked.recipe).base
    plan = plan_from_lock(begun, recipe.located(base), aoi, console)
    ref = start_build(begun, plan.layout, plan.fingerprint)
    with console.stage("verifying what is there"):
        intact = finished_shards(ref)
    if damaged := [ordinal for ordinal in shards if ordinal not in intact]:
        why = dict.fromkeys(damaged, "what was written is damaged or gone")
        raise _unbuilt(begun, damaged, len(shards), why, command)
    finish(Prepared(plan, ref, ()), console)
    return plan.fingerprint


def _unbuilt(begun: Storage, missing: list[int], total: int, reasons: dict[int, str], command: str) -> OutputError:
    named = [f"{ordinal} ({reasons[ordinal]})" if ordinal in reasons else str(ordinal) for ordinal in missing]
    shown = ", ".join(named[:TOLD_SHARDS]) + (" …" if len(named) > TOLD_SHARDS else "")
    return OutputError(
        begun.url,
        f"cannot be published, {len(missing)} of {total} shards are missing: {shown}; run '{command}' as it was begun, "
        "which builds them and publishes",
    )
