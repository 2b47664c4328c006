"""Numbers about a dataset as lines for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tiling.split import BUFFER, SPLITS

if TYPE_CHECKING:
    from chips.info import Info
    from chips.status import Status


SHOWN = 6
"""Bands and classes that are named; files have the others."""


def human(size: float) -> str:
    """A number of bytes for people: ``1.5 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def split_shares(splits: Mapping[str, int]) -> str:
    """``train 21 (41%), val 4 (8%) …`` in the usual order."""
    total = sum(splits.values())
    named = [*(name for name in (*SPLITS, BUFFER) if name in splits), *sorted(splits.keys() - {*SPLITS, BUFFER})]
    return ", ".join(f"{name} {splits[name]} ({splits[name] / total:.0%})" for name in named)


def _covered(found: Mapping[str, Any]) -> str:
    """``coverage SC 81.9 % (high), TC 78.9 % (high): 30 of 38 dates reach 70 %, profile strict``."""
    if not found["num_timesteps"]:
        return "coverage: no date was seen"
    return (
        f"coverage SC {found['sc_pct']:.1f} % ({found['sca']}), TC {found['tc_pct']:.1f} % ({found['tca']}): "
        f"{found['num_timesteps_above']} of {found['num_timesteps']} dates reach {found['sc_min_pct']:g} %, profile "
        f"{found['profile']}"
    )


def _numbers(info: Info) -> list[str]:
    """Mean ± standard deviation of each band and the commonest classes, of the training split."""
    if info.state == "unfinished":
        return []
    if info.statistics is None:
        return ["  numbers  unknown: there is no statistics.json, the dataset was published without it"]
    bands: Mapping[str, Mapping[str, Any]] = info.statistics["bands"]
    lines = []
    for group, found in bands.items():
        if told := [f"{name} {band['mean']:.3g} ± {band['std']:.2g}" for name, band in found.items()]:
            lines.append(f"  {group:<8} train: {_first(told)}")
    classes: Mapping[str, Mapping[str, float]] = info.statistics["classes"]
    present: dict[str, dict[str, float]] = {}
    """Of labels of the chip as a whole: class -> share of chips; each class has its own present and absent."""
    for label, shares in classes.items():
        of, _, name = label.partition("/")
        if name and shares.keys() <= {"present", "absent"}:
            present.setdefault(of, {})[name] = shares.get("present", 0.0)
        else:
            lines.append(f"  {label:<8} train: {_first([f'{name} {share:.1%}' for name, share in shares.items()])}")
    for label, shares in present.items():
        told = [f"{name} {share:.1%}" for name, share in sorted(shares.items(), key=lambda pair: -pair[1]) if share]
        lines.append(f"  {label:<8} train: {_first(told)} of the chips" if told else f"  {label:<8} train: none")
    return lines


def _first(told: Sequence[str]) -> str:
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return ", ".join(told[:SHOWN]) + more


def describe(info: Info) -> str:
    """What lies in a folder: state, chips, arrays, sources, size."""
    lines = [f"{info.url}: {info.summary}"]
    if info.splits:
        lines.append(f"  splits   {split_shares(info.splits)}")
    if info.status:
        lines.append(f"  status   {', '.join(f'{count} {name}' for name, count in sorted(info.status.items()))}")
    lines += [f"           {count} × {reason}" for reason, count in info.reasons.items()]
    for variable in info.variables:
        shape = ", ".join(f"{dim} {size}" for dim, size in zip(variable.dims, variable.shape, strict=True))
        name = f"{variable.group}/{variable.name}"
        lines.append(f"  {name:<20} {variable.dtype:<14} ({shape})  {human(variable.stored_bytes)}")
    for name, source in info.sources.items():
        if source.first is not None and source.last is not None:
            span = f"{source.dates} dates from {source.first:%Y-%m-%d} to {source.last:%Y-%m-%d}"
            lines.append(f"  {name:<8} {source.scenes} scenes, {span}, {source.clear:.0%} clear")
        else:
            lines.append(f"  {name:<8} {source.scenes} scenes")
    for name, found in info.coverage.items():
        lines.append(f"  {name:<8} {_covered(found)}")
    lines += _numbers(info)
    ratio = f", {info.ratio:.1f} times less than raw" if info.ratio else ""
    lines.append(f"  size     {human(info.stored_bytes)}{ratio}; curate {info.curate or '(unpublished)'}")
    return "\n".join(lines)


def status_lines(status: Status) -> list[str]:
    """One build: state, shards, when it was last written to, and why shards failed."""
    if status.state == "damaged":
        return [f"{status.url}: damaged: {status.reason}"]
    told = f"{status.url}: {status.state}, {status.shards_done} of {status.shards} shards, {status.chips} chips"
    if status.last_written is not None:
        told += f", last written {status.last_written:%Y-%m-%d %H:%M:%S} UTC"
    return [told, *(f"  shard {ordinal}: {reason}" for ordinal, reason in status.failed.items())]
