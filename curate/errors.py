"""Every error that `curate` raises on purpose, grouped by what the catcher would do.

    CurateError
    ├── InputError         the user changes something and starts again     exit 2
    │   ├── AoiError       the area of interest
    │   ├── RecipeError    the recipe: all problems at once
    │   ├── CatalogError   the catalog, a collection, a band, a filter
    │   ├── LabelError     a label source
    │   └── OutputError    the output folder
    ├── ReadError          a scene's file could not be read: worth a retry  exit 3
    ├── StoreError         the dataset is not what it promised to be        exit 4
    └── IncompleteError    some shards failed, the rest is kept             exit 3

Errors cross process borders (Dask, Prefect), so each hands *all* its arguments to ``super().__init__`` and makes
its sentence in ``__str__``: that is what lets pickle remake it.
"""

from __future__ import annotations


class CurateError(Exception):
    """Root of the tree. ``retryable`` says whether the same call may succeed later without any change."""

    retryable = False
    exit_code = 1


class InputError(CurateError):
    """Something the user gave cannot be used as it is."""

    exit_code = 2

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what, self.why = what, why

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


class AoiError(InputError):
    """The area of interest is missing, empty, invalid or in a place that no UTM grid covers."""


class CatalogError(InputError):
    """The catalog cannot answer what the recipe asks: no such collection or band, or a filter it would ignore."""


class LabelError(InputError):
    """A label source cannot be used: file, attribute or class missing."""


class OutputError(InputError):
    """The output folder cannot be written, or holds something else."""


class RecipeError(CurateError):
    """The recipe is wrong; ``problems`` names everything that is, one sentence each."""

    exit_code = 2

    def __init__(self, source: str, problems: tuple[str, ...]) -> None:
        super().__init__(source, problems)
        self.source, self.problems = source, problems

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"{self.source}: {self.problems[0]}"
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        return f"{self.source}: {len(self.problems)} problems{lines}"


class ReadError(CurateError):
    """An asset could not be read. Often the network: worth another try."""

    retryable = True
    exit_code = 3

    def __init__(self, scene: str, band: str, why: str) -> None:
        super().__init__(scene, band, why)
        self.scene, self.band, self.why = scene, band, why

    def __str__(self) -> str:
        return f"{self.scene}, band {self.band}: {self.why}"


class StoreError(CurateError):
    """A dataset or its journal is damaged or of another kind than expected."""

    exit_code = 4

    def __init__(self, store: str, why: str) -> None:
        super().__init__(store, why)
        self.store, self.why = store, why

    def __str__(self) -> str:
        return f"{self.store}: {self.why}"


class IncompleteError(CurateError):
    """Some shards could not be built. What was built is kept, and the same command continues."""

    retryable = True
    exit_code = 3

    def __init__(self, out: str, done: int, total: int, reasons: tuple[str, ...]) -> None:
        super().__init__(out, done, total, reasons)
        self.out, self.done, self.total, self.reasons = out, done, total, reasons

    def __str__(self) -> str:
        lines = "".join(f"\n  - {reason}" for reason in self.reasons)
        return (
            f"{self.out}: {self.done} of {self.total} shards are built and kept, nothing is published yet. "
            f"Run the same command again to continue. What failed:{lines}"
        )
