"""Every key of a recipe on one page of Markdown, from the schema that validates it, so it cannot say anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from labels.spec import KINDS
from recipes.recipe import schema

HEAD = """# Recipe reference

Every key, with its type, its default and what it does. This page is generated: `curate schema --markdown`. A recipe to
start from is written by `curate init`.
"""

Node = Mapping[str, Any]


def reference() -> str:
    """The page: the recipe's own keys, then a section for each group of options, each before the groups it is made of.

    A section is called as a recipe reaches it: ``source: time``, ``label: vector``, ``split: folds``.
    """
    document = schema()
    titles = {name: title for title, name in _titled(document, document["$defs"], "", set())}
    sections = [("recipe", document), *((title, document["$defs"][name]) for name, title in titles.items())]
    return HEAD + "".join(_section(title, found, titles) for title, found in sections)


def _titled(node: Node, definitions: Node, where: str, known: set[str]) -> Iterator[tuple[str, str]]:
    """(title, name) of every definition below a part of the schema that is not ``known``; it is known from then on."""
    for key, value in node.get("properties", {}).items():
        names = list(dict.fromkeys(_named(value)))
        for name in names:
            if name in known:
                continue
            known.add(name)
            parts = (where, _one_of(key, value), _told_by(name, definitions[name]) if len(names) > 1 else "")
            title = ": ".join(filter(None, parts))
            yield title, name
            yield from _titled(definitions[name], definitions, title, known)


def _one_of(key: str, node: Node) -> str:
    """What one of the things below a key is called: a source of `sources`."""
    several = any("additionalProperties" in option for option in (node, *node.get("anyOf", ())))
    return key.removesuffix("s") if several else key


def _told_by(name: str, node: Node) -> str:
    """By what a recipe tells a class of options from the others in its place: a method, a rule, the key of a label."""
    for key in ("method", "rule"):
        if "const" in (found := node.get("properties", {}).get(key, {})):
            return str(found["const"])
    return next((key for key, kind in KINDS.items() if kind.__name__ == name), name)


def _named(node: Any) -> Iterator[str]:
    """Definitions that a part of the schema speaks of."""
    if isinstance(node, Mapping):
        if "$ref" in node:
            yield node["$ref"].rsplit("/", 1)[-1]
        for key, value in node.items():
            if key not in ("default", "discriminator"):
                yield from _named(value)
    elif isinstance(node, list):
        for value in node:
            yield from _named(value)


def _section(title: str, node: Node, titles: Mapping[str, str]) -> str:
    needed = node.get("required", ())
    lines = [f"\n## {title}\n", _text(node.get("description", "")), ""]
    if rows := node.get("properties"):
        lines += ["| key | type | default | |", "| --- | --- | --- | --- |"]
        for key, value in rows.items():
            default = "**needed**" if key in needed else _default(value.get("default"))
            told = _cell(_text(value.get("description", "")))
            lines.append(f"| `{key}` | {_type(value, titles)} | {default} | {told} |")
    return "\n".join(lines) + "\n"


def _type(node: Node, titles: Mapping[str, str]) -> str:
    if "$ref" in node:
        title = titles[node["$ref"].rsplit("/", 1)[-1]]
        return f"[{title.rpartition(': ')[2]}](#{title.replace(': ', '-')})"
    for union in ("anyOf", "oneOf"):
        if union in node:
            options = (_type(option, titles) for option in node[union] if option.get("type") != "null")
            return " or ".join(dict.fromkeys(options))
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    match node.get("type"):
        case "array" if "prefixItems" in node:
            return f"({', '.join(_type(item, titles) for item in node['prefixItems'])})"
        case "array":
            return f"list of {_type(node.get('items', {}), titles)}"
        case "object" if isinstance(node.get("additionalProperties"), Mapping):
            return f"name → {_type(node['additionalProperties'], titles)}"
        case kind:
            return f"{kind or 'any'}{_bounds(node)}"


def _bounds(node: Node) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {node[key]:g}" for key, sign in signs.items() if key in node]
    return f" {', '.join(told)}" if told else ""


def _default(value: Any) -> str:
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, Mapping):
        return "as below"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _text(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
