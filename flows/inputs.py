"""Files that a recipe names and that are read as a whole, as paths on the disk wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from curate.errors import AoiError, LabelError, RecipeError
from curate.objects import ObjectsError, nearby

if TYPE_CHECKING:
    from recipes.recipe import Recipe


@contextmanager
def files(recipe: Recipe) -> Iterator[Callable[[str], str]]:
    """A function from a path of the recipe to a path on the disk; what lies in object storage is there meanwhile.

    Errors of ours that name such a path name the address instead. Raises RecipeError when a file cannot be brought.
    """
    with nearby() as near:

        def file(value: str) -> str:
            where = recipe.file(value)
            try:
                return near.path(where)
            except ObjectsError as error:
                raise RecipeError("recipe", (f"{where} cannot be read: {error}",)) from error

        try:
            yield file
        except AoiError as error:
            raise AoiError(near.told(error.what), near.told(error.why)) from error
        except LabelError as error:
            raise LabelError(near.told(error.what), near.told(error.why)) from error
        except RecipeError as error:
            raise RecipeError(near.told(error.source), tuple(near.told(one) for one in error.problems)) from error
