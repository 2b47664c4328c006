"""What a recipe says about licences. Light on purpose: recipes import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Policy = Literal["allow", "warn", "refuse"]


@dataclass(frozen=True, slots=True)
class TermsSpec:
    """The terms of one source or label, where our tables do not have them or are wrong about it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    licence: str
    """SPDX identifier (`CC-BY-4.0`, `ODbL-1.0` …), or the name of the terms."""
    attribution: str = ""
    """The line that names its makers; `{years}` becomes the years of the scenes that were used."""
    share_alike: bool | None = None
    """Whether what is made of it must stay under the same terms. Empty: as the licence says, where we know it."""
    non_commercial: bool | None = None
    """Whether it may not be used commercially. Empty: as the licence says, where we know it."""

    def __post_init__(self) -> None:
        if not self.licence.strip():
            raise ValueError("licence is empty; name the terms, or leave the entry out")


@dataclass(frozen=True, slots=True)
class LicenceSpec:
    """Which terms the dataset may end up under, and the terms of files that no table knows."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    allow: tuple[str, ...] = ()
    """The only licences that sources and labels may have. Empty: any that the policies below let through."""
    non_commercial: Policy = "warn"
    """What happens when a source or label may not be used commercially."""
    share_alike: Policy = "warn"
    """What happens when a source or label wants that what is made of it stays under its terms (OpenStreetMap does)."""
    unknown: Policy = "allow"
    """What happens when nobody has said under which terms a source or label is: files of your own, above all."""
    of: Mapping[str, TermsSpec] = field(default_factory=dict, hash=False)
    """Name of a source or label -> its terms, for files of your own and instead of what our tables say."""
