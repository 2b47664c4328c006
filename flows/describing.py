"""What a dataset says about itself: its terms before a pixel is read, card and catalogs when it is published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from chips.index import INDEX, read_table
from curate import __version__
from curate.errors import RecipeError
from labels.spec import DerivedSpec, LabelSpec
from publish.card import CARD, card
from publish.croissant import CROISSANT, croissant_json
from publish.facts import Facts, File, used_dates
from publish.licence import RollUp, Term, judge, term
from publish.stac import COLLECTION, collection_json

if TYPE_CHECKING:
    import pyarrow

    from chips.layout import Layout
    from flows.console import Console
    from flows.plan import Plan

ATTRIBUTION = "ATTRIBUTION.txt"


def judge_terms(plan: Plan, console: Console) -> None:
    """Hold the terms of all sources and labels against the recipe's policy, before a pixel is read.

    Raises:
        RecipeError: The policy refuses the terms of a source or label.
    """
    refused, warned = judge(terms(plan), plan.recipe.licence)
    for sentence in warned:
        console.say(sentence, level="warning")
    if refused:
        raise RecipeError("recipe", tuple(f"licence: {sentence}" for sentence in refused))


def terms(plan: Plan, index: pyarrow.Table | None = None) -> RollUp:
    """The terms of every source and of every label that is drawn; with the index of the chips also the years used.

    What is derived from other labels is under their terms and named only where the recipe says terms of its own.
    """
    said = plan.recipe.licence.of
    found: list[Term] = []
    for name, source in plan.recipe.sources.items():
        table = source.table
        years = set() if index is None or table.timeless else {date.year for date in used_dates(index, name)}
        found.append(
            term(
                name,
                "source",
                table.title or source.collection,
                table.licence,
                table.attribution,
                found=table.licence_source,
                said=said.get(name),
                years=years,
            )
        )
    for name, label in plan.recipe.labels.items():
        if isinstance(label, DerivedSpec) and name not in said:
            continue
        told = _told(plan.layout, name)
        found.append(
            term(
                name,
                "label",
                str(told.get("title") or told.get("rules_title") or _origin(label)),
                str(told.get("licence", "")),
                str(told.get("attribution", "")),
                said=said.get(name),
            )
        )
    return RollUp(tuple(found))


def _told(layout: Layout, label: str) -> Mapping[str, Any]:
    """The attributes of the first variable of a label that says its terms; nothing where none does."""
    variables = (variable.attrs for variable in layout.variables if variable.attrs.get("label") == label)
    return next((attrs for attrs in variables if "licence" in attrs), {})


def _origin(label: LabelSpec) -> str:
    """The names of the files of a label, without their folders."""
    for option in label.paths:
        value = getattr(label, option)
        if option != "legend" and value:
            return ", ".join(path.rsplit("/", 1)[-1] for path in _several(value))
    return "derived from other labels"


def _several(value: str | Iterable[str]) -> Iterable[str]:
    return (value,) if isinstance(value, str) else value


def descriptions(plan: Plan, layout: Layout, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Card, attribution and catalogs of a dataset: name -> content. The same for the same dataset.

    Args:
        plan: What was built.
        layout: The layout as it will be published.
        files: Name -> content of all other files beside the store, the index among them.
    """
    index = read_table(files[INDEX])
    facts = Facts(
        layout=layout,
        index=index,
        recipe=plan.recipe.model_dump(mode="json"),
        terms=terms(plan, index),
        files={name: File(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
        curate=__version__,
    )
    attribution = facts.terms.text.encode()
    return {
        ATTRIBUTION: attribution,
        CARD: card(facts),
        COLLECTION: collection_json(facts),
        CROISSANT: croissant_json(facts),
    }
