"""Every key of a recipe on one page of Markdown, from the schema that validates it, so it cannot say anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from recipes.recipe import schema

HEAD = """# Recipe reference

Every key, with its type, its default and what it does. This page is generated: `curate schema --markdown`. A recipe to
start from is written by `curate init`.
"""

Node = Mapping[str, Any]


def reference() -> str:
    """The page: the recipe's own keys, then a section for each group of options, in the order in which they are met."""
    document = schema()
    sections: dict[str, Node] = {"recipe": document}
    queue: list[Node] = [document]
    while queue:
        for name in dict.fromkeys(_named(queue.pop(0).get("properties", {}))):
            if name not in sections:
                sections[name] = document["$defs"][name]
                queue.append(sections[name])
    return HEAD + "".join(_section(name, node) for name, node in sections.items())


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


def _section(name: str, node: Node) -> str:
    needed = node.get("required", ())
    lines = [f"\n## {name}\n", _text(node.get("description", "")), ""]
    if rows := node.get("properties"):
        lines += ["| key | type | default | |", "| --- | --- | --- | --- |"]
        for key, value in rows.items():
            default = "**needed**" if key in needed else _default(value.get("default"))
            lines.append(f"| `{key}` | {_type(value)} | {default} | {_cell(_text(value.get('description', '')))} |")
    return "\n".join(lines) + "\n"


def _type(node: Node) -> str:
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for union in ("anyOf", "oneOf"):
        if union in node:
            return " or ".join(dict.fromkeys(_type(option) for option in node[union] if option.get("type") != "null"))
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    match node.get("type"):
        case "array" if "prefixItems" in node:
            return f"({', '.join(_type(item) for item in node['prefixItems'])})"
        case "array":
            return f"list of {_type(node.get('items', {}))}"
        case "object" if isinstance(node.get("additionalProperties"), Mapping):
            return f"name → {_type(node['additionalProperties'])}"
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
