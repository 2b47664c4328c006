"""A build in progress: started once, filled shard by shard from any number of processes, resumed by content."""

from __future__ import annotations

from dataclasses import dataclass

from chips.layout import Layout


@dataclass(frozen=True, slots=True)
class BuildRef:
    """A build in progress. Small and picklable: all that a worker needs to write a shard."""

    url: str
    """Output folder, absolute, or the URL of an object store."""
    fingerprint: str
    """Of everything the pixels depend on (recipe, region, scenes); a build continues only under the same one."""
    layout: Layout
