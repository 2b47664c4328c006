"""STAC APIs that have a short name: address, signing scheme and page size, read from ``tables/endpoints.toml``."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from catalog.collections import read_table


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A known STAC API."""

    name: str
    url: str
    aliases: tuple[str, ...]
    signing: str | None
    """Name of the signing scheme its files need (see ``catalog.signing``), or None."""
    page_limit: int
    """Items a page that the server answers without choking."""
    source: str


@functools.cache
def endpoints() -> dict[str, Endpoint]:
    """All known endpoints by their main name."""
    return {
        name: Endpoint(
            name=name,
            url=row["url"],
            aliases=tuple(row.get("aliases", ())),
            signing=row.get("signing"),
            page_limit=row["page_limit"],
            source=row["source"],
        )
        for name, row in read_table("endpoints.toml").items()
    }


def endpoint_named(name: str) -> Endpoint | None:
    """The endpoint of a short name or alias, or None."""
    for endpoint in endpoints().values():
        if name.casefold() in (endpoint.name, *endpoint.aliases):
            return endpoint
    return None


def endpoint_at(url: str) -> Endpoint | None:
    """The known endpoint that a URL belongs to, or None."""
    for endpoint in endpoints().values():
        if url == endpoint.url or url.startswith(endpoint.url + "/"):
            return endpoint
    return None
