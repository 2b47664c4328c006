"""What the label stage knows by name, as plain values: `curate labels` prints them, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from labels.crosswalk import TARGETS, Crosswalk, targets
from labels.legend import NAMED, PRODUCTS, LabelClass, Product, find_product, product_legend
from labels.rules import KINDS, RULE_SETS, RuleSetInfo, read_rules


@dataclass(frozen=True, slots=True)
class Listing:
    """One table of names."""

    key: str
    """Its name for machines."""
    title: str
    """What they are and how a recipe has them."""
    rows: tuple[Mapping[str, Any], ...]
    """One a name, with the same columns in every row; values are JSON-ready."""


def listings() -> tuple[Listing, ...]:
    """Every table of names: products, legends, targets of crosswalks, rules for OpenStreetMap."""
    alone = [product for name, product in NAMED.items() if name not in PRODUCTS]
    return (
        Listing("products", "products that catalogs have, product: <name>", tuple(map(_row, PRODUCTS.values()))),
        Listing("legends", "legends for files of yours, legend: <name>", tuple(map(_row, alone))),
        Listing("crosswalks", "nomenclatures that codes can be translated to", tuple(map(_target, TARGETS))),
        Listing("rules", "OpenStreetMap tags as classes, rules: <name>", tuple(map(_rules, RULE_SETS.values()))),
    )


def describe_legend(name: str) -> dict[str, Any]:
    """All about a product or nomenclature and its classes, JSON-ready; LabelError when it is not known."""
    product = find_product(name)
    facts = {key: value for key, value in asdict(product).items() if value not in ("", (), None, {}) and key != "codes"}
    facts["nodata"] = facts.pop("void", ())
    return {
        **facts,
        "targets": targets(product.name),
        "classes": [_class(c) for c in product_legend(product.name).classes],
    }


def describe_crosswalk(walk: Crosswalk) -> dict[str, Any]:
    """A crosswalk and all its pairs, JSON-ready; ``used`` says whether the pair is good enough."""
    used = set(walk.used)
    pairs = [
        {
            "code": pair.code,
            "name": walk.names.get(pair.code, ""),
            "target_code": pair.target,
            "target_name": "" if pair.target is None else walk.legend.name(pair.target),
            "quality": pair.quality,
            "used": pair in used,
            "note": pair.note,
        }
        for pair in walk.pairs
    ]
    return {"from": walk.source, "to": walk.target, "origin": walk.origin, "quality": walk.least, "pairs": pairs}


def describe_rules(name: str) -> dict[str, Any]:
    """A rule set, ours by name or the user's by path, with every rule of it, JSON-ready; LabelError as `read_rules`."""
    rules = read_rules(name)
    rows = [
        {
            "tags": rule.text,
            "kinds": tuple(kind for kind in KINDS if kind in rule.kinds),
            "code": rule.code,
            "class": rules.legend.name(rule.code),
            "priority": rule.priority,
            "width_m": rule.width_m,
            "draw": "" if rule.draw == "itself" else rule.draw,
            "fallback": "fallback" if rule.fallback else "",
        }
        for rule in rules.rules
    ]
    facts = {"name": rules.name, "title": rules.title, "licence": rules.licence, "attribution": rules.attribution}
    return {**facts, "classes": [_class(c) for c in rules.legend.classes], "rules": rows}


def _row(product: Product) -> dict[str, Any]:
    return {
        "name": product.name,
        "years": product.years,
        "resolution_m": product.resolution_m,
        "mmu_ha": product.mmu_ha,
        "form": product.form,
        "use": product.use,
        "classes": len(product_legend(product.name).classes),
        "licence": product.licence,
        "title": product.title + (" (not verified)" if product.unverified else ""),
    }


def _rules(info: RuleSetInfo) -> dict[str, Any]:
    return {"name": info.name, "classes": len(info.classes), "licence": info.licence, "title": info.title}


def _target(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "classes": len(product_legend(name).classes),
        "from": sum(name in targets(source) for source in NAMED),
        "title": NAMED[name].title,
    }


def _class(c: LabelClass) -> dict[str, Any]:
    return {"code": c.code, "name": c.name, "color": c.color}
