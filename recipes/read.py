"""Recipes from YAML: every problem at once, each with its line, its place and what would be right.

Pydantic knows what is wrong; this module says it so that a person can mend it.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from curate.errors import RecipeError
from curate.objects import ObjectsError, is_object_url, read_object
from labels.spec import KINDS
from recipes.recipe import Recipe

DEFAULT = "default.yaml"
"""The recipe used when none is given; in this package."""

_NOT_A_MAPPING = (
    "dataclass_type", "dict_type", "model_type", "model_attributes_type", "union_tag_invalid", "union_tag_not_found",
)  # fmt: skip
"""What pydantic says of text, a number or a list where keys are wanted."""

# Below it, a proposal would rather be a riddle.
_NEAR = 0.5


def read_recipe(path: str | Path) -> Recipe:
    """The recipe of a YAML file, which may lie in object storage; its relative paths start from its folder.

    Raises `RecipeError`.
    """
    if is_object_url(str(path)):
        return _read_object(str(path))
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError(str(path), ("no such file; write one with 'curate init'",)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), (f"cannot be read as text ({error}); wanted a YAML file",)) from error
    return parse_recipe(text, name=str(path)).located(file.resolve().parent)


def _read_object(url: str) -> Recipe:
    try:
        text = read_object(url).decode()
    except ObjectsError as error:
        raise RecipeError(url, (f"cannot be read: {error}",)) from error
    except UnicodeDecodeError as error:
        raise RecipeError(url, (f"cannot be read as text ({error}); wanted a YAML file",)) from error
    return parse_recipe(text, name=url).located(url.rpartition("/")[0])


def default_recipe() -> Recipe:
    """The recipe that `curate build` uses when it is given none."""
    text = resources.files("recipes").joinpath(DEFAULT).read_text(encoding="utf-8")
    return parse_recipe(text, name="default recipe").located(Path.cwd())


def parse_recipe(text: str, *, name: str = "recipe") -> Recipe:
    """The recipe written in ``text``. Raises `RecipeError` with all that is wrong, each with its line."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise RecipeError(name, (f"{where}not valid YAML: {error.problem or error.context}",)) from error
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(name, ("holds no keys; wanted a recipe as 'curate init' writes it",))
    problems = [f"line {line}: key {key!r} stands twice; keep one" for line, key in _repeated(node, set())]
    if problems:
        raise RecipeError(name, tuple(problems))
    document = yaml.load(text, Loader=_Loader)
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        raise RecipeError(name, _sentences(error, node)) from error
    switched = tuple(
        f"line {_line(path, node)}: {_place(path)} is {str(value).lower()}; wanted {_A_NUMBER}"
        for path, value in _switches(document, recipe.model_dump(), ())
    )
    if switched:
        raise RecipeError(name, switched)
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; reading it back gives an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates as text, so that `2018-04-01` means the same in every place of a recipe."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _repeated(node: yaml.Node, looked_at: set[int]) -> Iterator[tuple[int, str]]:
    """(line, key) of every key that a mapping holds twice; YAML would silently take the last one.

    A node that aliases repeat is looked at once: a few lines of aliases of aliases stand for millions of nodes.
    """
    if id(node) in looked_at:
        return
    looked_at.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, key.value
            seen.add(key.value)
            yield from _repeated(value, looked_at)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item, looked_at)


def _switches(written: Any, meant: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], bool]]:
    """(path, value) of every true or false that became a number: `yes` would pass for 1, and a chip for one pixel."""
    if isinstance(written, bool):
        if isinstance(meant, int | float) and not isinstance(meant, bool):
            yield path, written
    elif isinstance(written, Mapping) and isinstance(meant, Mapping):
        for key, value in written.items():
            yield from _switches(value, meant.get(key), (*path, key))
    elif isinstance(written, list) and isinstance(meant, list | tuple):
        for index, (value, became) in enumerate(zip(written, meant, strict=False)):
            yield from _switches(value, became, (*path, index))


def _sentences(error: ValidationError, root: yaml.Node) -> tuple[str, ...]:
    sentences = []
    for problem in error.errors():
        path = _in_document(_untagged(problem["loc"]), root)
        place = _place(path)
        line = f"line {_line(path, root)}: "
        match problem["type"]:
            case "extra_forbidden" | "unexpected_keyword_argument":
                sentence = f"{line}unknown key {str(path[-1])!r}{_at(path[:-1])}; {_nearest(path, root)}"
            case "missing":
                sentence = f"{line}key {problem['loc'][-1]!r} is missing{_at(path)}; add it"
            case "union_tag_invalid" | "union_tag_not_found" if isinstance(problem["input"], dict):
                line, told = _about_tag(path, problem["input"], root)
                sentence = f"{line}{told}"
            case kind if kind in _NOT_A_MAPPING and not _is_empty(problem["input"]):
                sentence = f"{line}{place} is {problem['input']!r}; {_wanted_keys(path, problem['input'])}"
            case "value_error":
                sentence = f"{line}{place}: {problem['ctx']['error']}" if place else f"{line}{problem['ctx']['error']}"
            case "literal_error":
                found = problem["input"]
                sentence = f"{line}{place} is {found!r}; wanted {problem['ctx']['expected']}"
            case _:
                sentence = f"{line}{place} {_found(problem['input'])}; {_wanted(problem, path)}"
        if sentence not in sentences:
            sentences.append(sentence)
    return tuple(sentences)


_A_NUMBER = "a number"
_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": _A_NUMBER,
    "float_parsing": _A_NUMBER,
    "finite_number": "a number that is not infinite",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list, as in [a, b]",
    "tuple_type": "a list, as in [a, b]",
    "set_type": "a list, as in [a, b]",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-', with a letter or a digit first",
}
"""What pydantic asks for by the kind of its complaint, in the words of a recipe."""


def _is_empty(value: Any) -> bool:
    return value is None or value in ({}, [])


def _found(value: Any) -> str:
    return "is empty" if _is_empty(value) else f"is {value!r}"


def _wanted(problem: Any, path: Sequence[str | int]) -> str:
    """What would be right in place of a value of the wrong kind or size."""
    value = problem["input"]
    match problem["type"]:
        case "string_type" if isinstance(value, int | float):
            return f"wanted text; in quotes it is: '{value}'"
        case "string_type":
            return "wanted text"
        case kind if kind in (*_NOT_A_MAPPING, "too_short") and _is_empty(value):
            needed = len(path) == 1 and Recipe.model_fields[str(path[0])].is_required()
            return "wanted something in it" + ("" if needed else ", or leave the key out")
        case kind if kind in _WANTED:
            return "wanted " + _WANTED[kind].format(**problem.get("ctx", {}))
        case _:
            return str(problem["msg"])


def _place(path: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in path)


def _at(path: Sequence[str | int]) -> str:
    return f" in {_place(path)}" if path else ""


def _untagged(loc: Sequence[str | int]) -> Sequence[str | int]:
    """``loc`` without the kind of a label, or the rule of a split, which pydantic puts after the name of the key.

    The kind looks like a key of the label.
    """
    if loc[:1] == ("split",):
        return (*loc[:1], *loc[2:])
    return (*loc[:2], *loc[3:]) if loc[:1] == ("labels",) else loc


def _in_document(loc: Sequence[str | int], node: yaml.Node | None) -> list[str | int]:
    """``loc`` without the parts that name branches of a union and not places of the document."""
    path: list[str | int] = []
    for part in loc:
        child = _child(node, part)
        if child is not None:
            path.append(part)
            node = child
    return path


def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return typing.cast(yaml.Node, node.value[part])
    return None


def _line(path: Sequence[str | int], root: yaml.Node) -> int:
    node, line = root, root.start_mark.line + 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            line = next((k.start_mark.line + 1 for k, _ in node.value if k.value == str(part)), line)
        child = _child(node, part)
        if child is None:
            break
        node = child
    return line


def _about_tag(path: list[str | int], given: dict[str, Any], root: yaml.Node) -> tuple[str, str]:
    """The line, and a sentence about a mapping that does not say which of several it is: a sampler without a method."""
    key, known = _tags(path)
    if key in given:
        place = ".".join(str(part) for part in (*path, key))
        return f"line {_line([*path, key], root)}: ", f"{place} is {given[key]!r}; {_advice(str(given[key]), known)}"
    near = difflib.get_close_matches(key, [str(one) for one in given], n=1)
    told = f"unknown key {near[0]!r}{_at(path)}; did you mean {key!r}?" if near else ""
    return (
        f"line {_line([*path, *near], root)}: ",
        told or f"key {key!r} is missing{_at(path)}; wanted one of {', '.join(known)}",
    )


def _wanted_keys(path: Sequence[str | int], found: Any) -> str:
    """Advice for a value that stands where a mapping is wanted."""
    key, known = _tags(path)
    if not known:
        keys = sorted({name for kind in _kinds(path) for name in _fields(kind)})
        return f"wanted keys below it: {', '.join(keys)}" if keys else "wanted names below it, each with its keys"
    if not key:
        return f"wanted keys below it, one of them {', '.join(known)}"
    near = difflib.get_close_matches(str(found), known, n=1, cutoff=_NEAR)
    return f"wanted {{{key}: {near[0] if near else '…'}}}" + ("" if near else f" with one of {', '.join(known)}")


def _tags(path: Sequence[str | int]) -> tuple[str, list[str]]:
    """The key that tells apart what may be at ``path``, and what it may say; of labels no key and their own keys."""
    kinds = _kinds(path)
    key = next((key for key in ("method", "rule") if any(key in _fields(kind) for kind in kinds)), "")
    return key, [tag for kind in kinds for tag in _tag(kind)]


def _nearest(path: Sequence[str | int], root: yaml.Node) -> str:
    """Advice for an unknown key: the nearest key that would be right there, or whose key it is, or all of them."""
    key, every = str(path[-1]), _kinds(path[:-1])
    meant = _meant(every, _node(path[:-1], root))
    known = sorted({name for kind in meant for name in _fields(kind)})
    others = sorted({name for kind in every for name in _fields(kind)})
    near = difflib.get_close_matches(key, others, n=1, cutoff=_NEAR)
    if not near or near[0] in known:
        return _advice(key, known)
    owners = ", ".join(tag for kind in every if near[0] in _fields(kind) for tag in _tag(kind))
    return f"{near[0]!r} belongs to {owners}, and this is {_tag(meant[0])[0]}, which has {', '.join(known)}"


def _advice(found: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(found, known, n=1, cutoff=_NEAR)
    return f"did you mean {near[0]!r}?" if near else f"wanted one of {', '.join(known)}"


def _kinds(path: Sequence[str | int]) -> list[Any]:
    """The classes of what a recipe may hold at ``path``."""
    kinds: list[Any] = [Recipe]
    for part in path:
        kinds = [found for kind in kinds for found in _step(kind, part)]
    return kinds


def _meant(kinds: list[Any], node: yaml.Node | None) -> list[Any]:
    """Those of ``kinds`` that a mapping says it is; all of them where it does not say."""
    if not isinstance(node, yaml.MappingNode):
        return kinds
    given = {key.value: value.value for key, value in node.value}
    told = {given.get("method"), given.get("rule", "blocks"), *given}
    return [kind for kind in kinds if told.intersection(_tag(kind))] or kinds


def _tag(kind: Any) -> tuple[str, ...]:
    """By what a recipe tells this class from the others of its union: a method, a rule, or the key of a label."""
    for key in ("method", "rule"):
        if key in (found := _fields(kind)):
            return tuple(typing.get_args(found[key]))
    return tuple(key for key, label in KINDS.items() if label is kind)


def _node(path: Sequence[str | int], root: yaml.Node) -> yaml.Node | None:
    node: yaml.Node | None = root
    for part in path:
        node = _child(node, part)
    return node


def _step(kind: Any, part: str | int) -> Iterator[Any]:
    if fields := _fields(kind):
        if part in fields:
            yield from _options(fields[str(part)])
    elif typing.get_origin(kind) in (dict, typing.get_origin(typing.Mapping[str, Any])):
        yield from _options(typing.get_args(kind)[1])
    elif typing.get_origin(kind) in (tuple, list):
        yield from _options(typing.get_args(kind)[0])


def _options(annotation: Any) -> Iterator[Any]:
    """The classes an annotation allows, without Annotated and unions."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _options(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for option in typing.get_args(annotation):
            yield from _options(option)
    else:
        yield annotation


def _fields(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return {}
