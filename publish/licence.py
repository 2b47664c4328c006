"""The terms of everything in a dataset in one place: what is strictest, what must be named, and what a policy forbids.

This reads tables and adds up; it is no legal advice, and what it prints says so.
"""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from publish.licence_spec import LicenceSpec, Policy, TermsSpec

NO_ADVICE = "This is read from tables and is no legal advice; the terms themselves decide."
UNKNOWN = "not stated"
"""What stands for a licence that nobody has told."""
MIXED = "mixed"
"""What the whole is called when its parts have several licences."""
UNVERIFIED = ("", "not verified", UNKNOWN)
"""How the tables spell that nobody knows."""


@dataclass(frozen=True, slots=True)
class Licence:
    """What a licence asks."""

    name: str
    title: str
    url: str = ""
    spdx: str = ""
    """SPDX identifier; empty where the terms have none."""
    hf: str = ""
    """Identifier at Hugging Face; empty where there is none."""
    rank: int = 2
    """How much it asks: 0 nothing, 1 a name, 2 terms of its own, 3 share-alike, 4 no commerce, 5 nobody knows."""
    share_alike: bool = False
    non_commercial: bool = False

    @property
    def known(self) -> bool:
        """Whether anybody has said what the terms are."""
        return self.name != UNKNOWN


@dataclass(frozen=True, slots=True)
class Term:
    """One source or label with its terms."""

    name: str
    """As in the recipe."""
    what: str
    """``source`` or ``label``."""
    title: str
    licence: Licence
    attribution: str = ""
    """What has to be said, with the years filled in; empty where nothing is known."""
    found: str = ""
    """Link to where the terms were found."""


@dataclass(frozen=True, slots=True)
class RollUp:
    """The terms of a whole dataset."""

    terms: tuple[Term, ...]

    @property
    def licences(self) -> tuple[Licence, ...]:
        """Every licence once, the strictest first."""
        found = {term.licence.name: term.licence for term in self.terms}
        return tuple(sorted(found.values(), key=lambda licence: (-licence.rank, licence.name)))

    @property
    def strictest(self) -> Licence:
        """The licence that asks most; of equals the first by name."""
        return self.licences[0] if self.terms else find_licence("")

    @property
    def one(self) -> Licence | None:
        """The licence of all parts, None when they have several."""
        return self.licences[0] if len(self.licences) == 1 else None

    @property
    def name(self) -> str:
        """One word for the whole: the licence that all parts have, or ``mixed``."""
        return MIXED if self.one is None else self.one.name

    @property
    def share_alike(self) -> tuple[str, ...]:
        """Names of the sources and labels whose terms stick to what is made of them."""
        return tuple(term.name for term in self.terms if term.licence.share_alike)

    @property
    def non_commercial(self) -> tuple[str, ...]:
        """Names of the sources and labels that may not be used commercially."""
        return tuple(term.name for term in self.terms if term.licence.non_commercial)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the sources and labels whose terms nobody has told."""
        return tuple(term.name for term in self.terms if not term.licence.known)

    @property
    def attribution(self) -> tuple[str, ...]:
        """Lines to paste, each once, in the order of the recipe."""
        return tuple(dict.fromkeys(term.attribution for term in self.terms if term.attribution))

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about what the terms together mean."""
        said = []
        if self.non_commercial:
            said.append(f"{_listed(self.non_commercial)} may not be used commercially, so neither may the whole.")
        sticky = [licence for licence in self.licences if licence.share_alike]
        if self.share_alike:
            said.append(
                f"{_listed(self.share_alike)}: what is derived from it stays under {_listed([s.name for s in sticky])}."
            )
        if len(sticky) > 1 or (
            sticky and any(licence.non_commercial and not licence.share_alike for licence in self.licences)
        ):
            others = [licence.name for licence in self.licences if licence.share_alike or licence.non_commercial]
            said.append(f"{_listed(others)} contradict each other for what is made of both; keep the layers apart.")
        if self.unknown:
            said.append(
                f"Nobody has said under which terms {_listed(self.unknown)} may be used; ask before you publish."
            )
        return tuple(said)

    @property
    def text(self) -> str:
        """The attribution as a file: the lines to paste, then what each layer is under."""
        lines = [*self.attribution, ""] if self.attribution else []
        lines += [f"{term.what} {term.name}: {term.title}, {term.licence.title}" for term in self.terms]
        return "\n".join([*lines, "", *self.remarks, NO_ADVICE]) + "\n"


def find_licence(name: str) -> Licence:
    """What we know of a licence by its name, upper or lower case; of one that we do not know, what its name says."""
    if name.strip() in UNVERIFIED:
        return Licence(UNKNOWN, "terms not stated", rank=5)
    known = {key.casefold(): licence for key, licence in licences().items()}
    if (found := known.get(name.strip().casefold())) is not None:
        return found
    # Creative Commons writes what it asks into its names; versions and ND variants are not all in the table.
    words = name.upper().replace(" ", "-").split("-")
    alike, unpaid = (words[0] == "CC" and word in words for word in ("SA", "NC"))
    rank = 4 if unpaid else 3 if alike else 2
    return Licence(name.strip(), name.strip(), rank=rank, share_alike=alike, non_commercial=unpaid)


@functools.cache
def licences() -> dict[str, Licence]:
    """Every licence of ``tables/licences.toml`` by its name."""
    text = (importlib.resources.files("publish") / "tables" / "licences.toml").read_text(encoding="utf-8")
    return {name: Licence(name=name, **row) for name, row in tomllib.loads(text).items()}


def term(
    name: str,
    what: str,
    title: str,
    licence: str,
    attribution: str,
    *,
    found: str = "",
    said: TermsSpec | None = None,
    years: Iterable[int] = (),
) -> Term:
    """The terms of one source or label; what the recipe says about it goes before the tables."""
    terms = find_licence(licence if said is None else said.licence)
    if said is not None:
        attribution = said.attribution or attribution
        alike = terms.share_alike if said.share_alike is None else said.share_alike
        unpaid = terms.non_commercial if said.non_commercial is None else said.non_commercial
        rank = 4 if unpaid else 3 if alike else terms.rank if not terms.known else min(terms.rank, 2)
        terms = replace(terms, share_alike=alike, non_commercial=unpaid, rank=rank)
    line = attribution.replace("{years}", spell_years(years)).replace("  ", " ").strip()
    return Term(name, what, title, terms, line, found)


def spell_years(years: Iterable[int]) -> str:
    """Years in order, consecutive ones as a range: ``2016, 2018-2020``; nothing for none."""
    spans: list[list[int]] = []
    for year in sorted(set(years)):
        if spans and year == spans[-1][1] + 1:
            spans[-1][1] = year
        else:
            spans.append([year, year])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def judge(roll_up: RollUp, spec: LicenceSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(refusals, warnings) of a recipe's policy about these terms, a sentence each."""
    refused: list[str] = []
    warned: list[str] = []
    allowed = {find_licence(name).name.casefold() for name in spec.allow}
    for one in roll_up.terms:
        licence = one.licence
        who = f"{one.what} {one.name} ({one.title})"
        if spec.allow and licence.name.casefold() not in allowed:
            refused.append(
                f"{who} is under '{licence.name}', which licence.allow does not name; found there: "
                f"{', '.join(spec.allow)}"
            )
        for holds, policy, sentence in (
            (licence.non_commercial, spec.non_commercial, f"may not be used commercially ({licence.name})"),
            (licence.share_alike, spec.share_alike, f"wants what is derived from it under the same {licence.name}"),
            (not licence.known, spec.unknown, "has no stated licence; say it under licence.of"),
        ):
            if holds and (into := _where(policy, refused, warned)) is not None:
                into.append(f"{who} {sentence}")
    return tuple(refused), tuple(warned)


def _where(policy: Policy, refused: list[str], warned: list[str]) -> list[str] | None:
    return {"allow": None, "warn": warned, "refuse": refused}[policy]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
