"""Recipes from YAML: every problem at once, each with its line, its place and what would be right.

Pydantic knows what is wrong; this module says it so that a person can mend it.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from curate.errors import RecipeError
from curate.objects import ObjectsError, is_object_url, read_object
from recipes.recipe import Recipe

DEFAULT = "default.yaml"
"""The recipe used when none is given; in this package."""


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
    problems = [f"line {line}: key {key!r} stands twice; keep one" for line, key in _repeated(node)]
    if problems:
        raise RecipeError(name, tuple(problems))
    document = yaml.load(text, Loader=_Loader)
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise RecipeError(name, _sentences(error, node)) from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; reading it back gives an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates as text, so that `2018-04-01` means the same in every place of a recipe."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _repeated(node: yaml.Node) -> Iterator[tuple[int, str]]:
    """(line, key) of every key that a mapping holds twice; YAML would silently take the last one."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, key.value
            seen.add(key.value)
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item)


def _sentences(error: ValidationError, root: yaml.Node) -> tuple[str, ...]:
    sentences = []
    for problem in error.errors():
        path = _in_document(_untagged(problem["loc"]), root)
        place = ".".join(str(part) for part in path)
        line = f"line {_line(path, root)}: "
        match problem["type"]:
            case "extra_forbidden" | "unexpected_keyword_argument":
                sentence = f"{line}unknown key {str(path[-1])!r}{_at(path[:-1])}; {_nearest(path)}"
            case "missing":
                sentence = f"{line}key {problem['loc'][-1]!r} is missing{_at(_untagged(problem['loc'])[:-1])}; add it"
            case "value_error":
                sentence = f"{line}{place}: {problem['ctx']['error']}" if place else f"{line}{problem['ctx']['error']}"
            case "literal_error":
                found = problem["input"]
                sentence = f"{line}{place} is {found!r}; wanted {problem['ctx']['expected']}"
            case _:
                sentence = f"{line}{place} is {problem['input']!r}; {problem['msg']}"
        if sentence not in sentences:
            sentences.append(sentence)
    return tuple(sentences)


def _at(path: Sequence[str | int]) -> str:
    return f" in {'.'.join(str(part) for part in path)}" if path else ""


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


def _nearest(path: Sequence[str | int]) -> str:
    """Advice for an unknown key: the nearest key that would be right there, or all of them."""
    known = sorted(_keys(path[:-1]))
    near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"wanted one of {', '.join(known)}"


def _keys(path: Sequence[str | int]) -> set[str]:
    """Keys that a recipe may hold at ``path``."""
    kinds: list[Any] = [Recipe]
    for part in path:
        kinds = [found for kind in kinds for found in _step(kind, part)]
    return {key for kind in kinds for key in _fields(kind)}


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
