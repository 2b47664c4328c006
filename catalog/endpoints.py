"""STAC APIs that have a short name, and what it takes to open their files, read from ``tables/endpoints.toml``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
    requests_per_s: float | None = None
    """How many requests a second we allow ourselves; None: no limit."""
    area: Literal["intersects", "bbox"] = "intersects"
    """How the area is asked for."""
    collections: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Its names of our collections, where they differ."""


@dataclass(frozen=True, slots=True)
class Host:
    """What it takes to open the files of one bucket or server."""

    match: tuple[str, ...]
    """Beginnings of their addresses."""
    auth: Literal["none", "requester-pays", "cdse", "earthdata"]
    region: str | None
    s3_endpoint: str | None
    """Address of the S3 service where it is not AWS; its buckets are then named in the path."""
    alternate: str | None
    """Key of another address in the asset (``alternate`` extension) that is opened instead."""
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
            requests_per_s=row.get("requests_per_s"),
            area=row.get("area", "intersects"),
            collections=row.get("collections", {}),
        )
        for name, row in read_table("endpoints.toml")["endpoints"].items()
    }


@functools.cache
def hosts() -> tuple[Host, ...]:
    """All known buckets and servers, in the order in which they are tried."""
    rows: list[dict[str, Any]] = read_table("endpoints.toml")["hosts"]
    return tuple(
        Host(
            match=tuple(row["match"]),
            auth=row["auth"],
            region=row.get("region"),
            s3_endpoint=row.get("s3_endpoint"),
            alternate=row.get("alternate"),
            source=row["source"],
        )
        for row in rows
    )


def host_of(href: str) -> Host | None:
    """The row of the bucket or server of an address, or None."""
    return next((host for host in hosts() if href.startswith(host.match)), None)


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
