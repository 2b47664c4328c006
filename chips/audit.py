"""The audit of leakage: what chips of different splits have in common, from the index alone; ``audit.json``.

Nothing here compares all chips with all others: trees find who is near, on the ground and in looks.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge, Le

from chips.prints import alike
from tiling.distance import earth_centred, shared_ground, shortest_distance_m
from tiling.split import SPLITS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from tiling.grid import Chip

AUDIT = "audit.json"
VERSION = 1
SHOWN = 10
"""Pairs of chips that are named; the others are counted."""

# A variogram of this many chips has a million pairs; the chips are drawn by the hash of their ids.
_SAMPLED = 1_500
_LAGS = 20
_FEWEST = 30
"""Chips below which a variogram says nothing."""


@dataclass(frozen=True, slots=True)
class AuditSpec:
    """What the audit of leakage may find between splits before ``curate check`` fails."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    max_duplicates: Annotated[int, Ge(0)] | None = 0
    """Pairs of chips in different splits with the same pixels; null: any number."""
    max_shared_scenes: Annotated[float, Ge(0), Le(1)] = 1.0
    """Largest share of the chips of `val` or `test` that are made from a scene that `train` is made from too."""


def audit(
    table: pd.DataFrame,
    chips: Sequence[Chip],
    *,
    block_m: float | None = None,
    acquisitions: Mapping[str, str] | None = None,
    years: Mapping[str, tuple[dt.datetime, dt.datetime]] | None = None,
) -> dict[str, Any]:
    """What the splits of a dataset have in common, pair by pair, and how far its pixels resemble each other in space.

    Args:
        table: The index, a row for every chip.
        chips: The chips of its rows.
        block_m: Side of the blocks that were drawn as a whole, to be compared with the range of the variogram.
        acquisitions: Scene -> the pass of the satellite that it is a part of.
        years: Name of each year, or other half-open interval, that only one split is given; none where all have all.
    """
    import numpy as np

    split = table["split"].to_numpy()
    rows = {name: np.flatnonzero(split == name) for name in SPLITS}
    sources = [name.removesuffix("_scenes") for name in table.columns if name.endswith("_scenes")]
    labels = [name.removesuffix("_shares") for name in table.columns if name.endswith("_shares")]
    xyz = earth_centred(chips) if len(chips) else np.empty((0, 3))
    pairs = {}
    for one, other in combinations(SPLITS, 2):
        if len(rows[one]) and len(rows[other]):
            mine = (rows[one], rows[other])
            found = _pair(table, chips, xyz, *mine, sources, labels, acquisitions)
            if years:
                found["years"] = {source: _years(years, table[f"{source}_dates"], mine) for source in found["scenes"]}
            pairs[f"{one}-{other}"] = found
    return {
        "version": VERSION,
        "chips": {str(name): int(count) for name, count in sorted(table["split"].value_counts().items())},
        "pairs": pairs,
        "autocorrelation": {name: _ranges(table, xyz, name, block_m) for name in sources if f"{name}_means" in table},
    }


def audit_bytes(found: Mapping[str, Any]) -> bytes:
    """An audit as its JSON document."""
    return (json.dumps(found, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def broken(found: Mapping[str, Any], spec: AuditSpec, buffer_m: float) -> list[str]:
    """Sentences about what an audit found and the recipe promised not to be."""
    told = []
    for name, pair in found["pairs"].items():
        one, _, other = name.partition("-")
        # The audit is rounded to millimetres.
        if pair["distance_m"]["shortest"] < buffer_m - 0.001:
            told.append(
                f"{one} and {other} come as near as {pair['distance_m']['shortest']:.0f} m; the recipe promises "
                f"{buffer_m:.0f} m"
            )
        if pair["overlap"]["pairs"]:
            told.append(
                f"{pair['overlap']['pairs']} pairs of chips of {one} and {other} share {pair['overlap']['m2']:.0f} m² "
                f"of ground: {_examples(pair['overlap']['examples'])}"
            )
        for source, same in pair["duplicates"].items():
            if spec.max_duplicates is not None and same["pairs"] > spec.max_duplicates:
                told.append(
                    f"{source}: {same['pairs']} pairs of chips of {one} and {other} have the same pixels, the recipe "
                    f"allows {spec.max_duplicates}: {_examples(same['examples'])}"
                )
        for source, same in pair.get("years", {}).items():
            if same["shared"]:
                names = ", ".join(same["names"])
                told.append(f"{source}: {one} and {other} both have dates of {names}; the recipe gives it to one split")
        if one != "train":
            continue
        for source, scenes in pair["scenes"].items():
            if scenes["share"] > spec.max_shared_scenes + 1e-6:
                told.append(
                    f"{source}: {scenes['share']:.1%} of the chips of {other} are made from scenes that train is made "
                    f"from too; the recipe allows {spec.max_shared_scenes:.1%}"
                )
    return told


def _examples(pairs: Sequence[Sequence[str]]) -> str:
    return ", ".join(" and ".join(pair) for pair in pairs[:3]) + (" …" if len(pairs) > 3 else "")


def differences(stored: Any, found: Any, where: str = "") -> list[str]:
    """Places of an audit where two of them differ by more than rounding."""
    if isinstance(stored, Mapping) and isinstance(found, Mapping):
        return [
            place
            for key in sorted(stored.keys() | found.keys())
            for place in differences(stored.get(key), found.get(key), f"{where}.{key}" if where else str(key))
        ]
    if isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        both = zip(stored, found, strict=True)
        return [place for i, (a, b) in enumerate(both) for place in differences(a, b, f"{where}[{i}]")]
    if isinstance(stored, int | float) and isinstance(found, int | float):
        return [] if math.isclose(stored, found, rel_tol=1e-3, abs_tol=2e-3) else [where]
    return [] if stored == found else [where]


def _pair(
    table: pd.DataFrame,
    chips: Sequence[Chip],
    xyz: npt.NDArray[np.float64],
    one: npt.NDArray[np.intp],
    other: npt.NDArray[np.intp],
    sources: Sequence[str],
    labels: Sequence[str],
    acquisitions: Mapping[str, str] | None,
) -> dict[str, Any]:
    """What two splits have in common; shares and quantiles are of the chips of the second."""
    import numpy as np
    from scipy.spatial import cKDTree

    chips_a, chips_b = [chips[i] for i in one.tolist()], [chips[i] for i in other.tolist()]
    names = table["chip"].to_numpy()
    apart, _ = cKDTree(xyz[one]).query(xyz[other])
    p1, p5, p50 = np.percentile(apart, [1, 5, 50])
    first, second, m2 = shared_ground(chips_a, chips_b)
    pixels = float((m2 / np.array([chips_a[i].resolution_m ** 2 for i in first.tolist()])).sum()) if len(m2) else 0.0
    scenes, passes, duplicates, spectra, classes = {}, {}, {}, {}, {}
    for source in sources:
        # What has no date is the same map everywhere: that two chips are cut from one file of it tells nothing.
        if any(len(dates) for dates in table[f"{source}_dates"] if dates is not None):
            used = table[f"{source}_scenes"].to_numpy()
            scenes[source] = _shared(used[one], used[other], {})
            passes[source] = _shared(used[one], used[other], acquisitions or {})
        if f"{source}_print" in table:
            prints = table[f"{source}_print"].to_numpy()
            same = alike(prints[one].tolist(), prints[other].tolist())
            duplicates[source] = {
                "pairs": len(same),
                "examples": [[names[one[i]], names[other[j]]] for i, j in same[:SHOWN]],
            }
        if f"{source}_means" in table:
            means = _matrix(table[f"{source}_means"])
            spectra[source] = _drift(means[one], means[other])
    for label in labels:
        shares = table[f"{label}_shares"].to_numpy()
        if (divergence := _divergence(shares[one], shares[other])) is not None:
            classes[label] = divergence
    return {
        "distance_m": {
            "shortest": round(shortest_distance_m(chips_a, chips_b), 3),
            "nearest_centre_p1": round(float(p1), 1),
            "nearest_centre_p5": round(float(p5), 1),
            "nearest_centre_median": round(float(p50), 1),
        },
        "overlap": {
            "pairs": len(m2),
            "m2": round(float(m2.sum()), 1),
            "pixels": round(pixels),
            "examples": [
                [names[one[i]], names[other[j]]]
                for i, j in zip(first[:SHOWN].tolist(), second[:SHOWN].tolist(), strict=True)
            ],
        },
        "scenes": scenes,
        "acquisitions": passes,
        "duplicates": duplicates,
        "class_divergence": classes,
        "spectra": spectra,
    }


def _shared(one: Iterable[Any], other: Iterable[Any], called: Mapping[str, str]) -> dict[str, Any]:
    """How many scenes (or what they are ``called``) both are made from, and the share of the second that is."""
    sets = [
        [{called.get(s, s) for s in (() if scenes is None else scenes)} for scenes in side] for side in (one, other)
    ]
    mine, theirs = (set().union(*side) for side in sets)
    made = [scenes for scenes in sets[1] if scenes]
    touched = sum(not mine.isdisjoint(scenes) for scenes in made)
    return {"shared": len(mine & theirs), "share": round(touched / len(made), 6) if made else 0.0}


def _years(
    years: Mapping[str, tuple[dt.datetime, dt.datetime]], dates: pd.Series, rows: Sequence[npt.NDArray[np.intp]]
) -> dict[str, Any]:
    """The years that chips of both sides, given by their rows, have dates of."""
    sides = [times_of(dates.iloc[side])[1] for side in rows]
    both = [name for name, span in years.items() if all(lies_in(times, [span]).any() for times in sides)]
    return {"shared": len(both), "names": both}


def times_of(dates: pd.Series) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.datetime64]]:
    """Row and time (UTC, microseconds) of every date of a column ``<source>_dates`` of the index."""
    import numpy as np

    each = [np.asarray(() if found is None else found, "datetime64[us]") for found in dates]
    return np.repeat(np.arange(len(each)), [len(found) for found in each]), np.concatenate(
        [np.empty(0, "datetime64[us]"), *each]
    )


def lies_in(
    times: npt.NDArray[np.datetime64], spans: Iterable[tuple[dt.datetime, dt.datetime]]
) -> npt.NDArray[np.bool_]:
    """Which of the times (UTC) lie in any of the half-open spans."""
    import numpy as np

    found = np.zeros(len(times), bool)
    for span in spans:
        start, end = (np.datetime64(moment.astimezone(dt.UTC).replace(tzinfo=None), "us") for moment in span)
        found |= (times >= start) & (times < end)
    return found


def _matrix(column: pd.Series) -> npt.NDArray[np.float64]:
    """A column of lists as (row, band), NaN where there is none."""
    import numpy as np

    values = [() if value is None else value for value in column]
    out = np.full((len(values), max(map(len, values), default=0)), np.nan)
    for row, value in enumerate(values):
        out[row, : len(value)] = value
    return out


def _drift(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Standardised difference of the means of each band (Cohen's d), and what lies outside the range of the first."""
    import numpy as np

    difference: list[float | None] = []
    outside = np.zeros(len(other), dtype=bool)
    for a, b in zip(one.T, other.T, strict=True):
        a_there, b_there = a[np.isfinite(a)], b[np.isfinite(b)]
        if len(a_there) < 2 or len(b_there) < 2:
            difference.append(None)
            continue
        spread = math.sqrt((a_there.var(ddof=1) + b_there.var(ddof=1)) / 2)
        difference.append(round(float((b_there.mean() - a_there.mean()) / spread), 4) if spread > 0 else 0.0)
        outside |= (b < a_there.min()) | (b > a_there.max())
    there = np.isfinite(other).any(axis=1)
    return {"difference": difference, "outside": round(float(outside[there].mean()), 6) if there.any() else 0.0}


def _divergence(one: Iterable[Any], other: Iterable[Any]) -> float | None:
    """Jensen–Shannon divergence of the class shares of two splits in bits: 0 the same, 1 no class in common.

    Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory 37 (1991).
    """
    totals: list[dict[int, float]] = []
    for side in (one, other):
        total: dict[int, float] = {}
        for shares in side:
            for code, share in shares if shares is not None else ():
                total[int(code)] = total.get(int(code), 0.0) + float(share)
        totals.append(total)
    sums = [sum(total.values()) for total in totals]
    if min(sums) <= 0:
        return None
    divergence = 0.0
    for code in totals[0].keys() | totals[1].keys():
        p, q = (total.get(code, 0.0) / whole for total, whole in zip(totals, sums, strict=True))
        divergence += sum(0.5 * x * math.log2(2 * x / (p + q)) for x in (p, q) if x > 0)
    return round(max(divergence, 0.0), 6)


def _ranges(
    table: pd.DataFrame, xyz: npt.NDArray[np.float64], source: str, block_m: float | None
) -> list[dict[str, Any]]:
    """For each band of a source how far apart chips must be before their means have nothing to do with each other."""
    import numpy as np

    means = _matrix(table[f"{source}_means"])
    ids = table["chip"].tolist()
    bands = []
    for values in means.T:
        there = np.flatnonzero(np.isfinite(values))
        if len(there) > _SAMPLED:
            order = sorted(there.tolist(), key=lambda row: blake2b(ids[row].encode(), digest_size=8).digest())
            there = np.array(sorted(order[:_SAMPLED]))
        range_m, why = variogram_range(xyz[there], values[there])
        ratio = None if range_m is None or block_m is None else round(block_m / range_m, 3)
        bands.append({"range_m": range_m, "why": why, "block_over_range": ratio})
    return bands


def variogram_range(places: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> tuple[float | None, str]:
    """Range in metres of a spherical variogram, and where there is none why not.

    Half the mean squared difference of pairs (Matheron) in lags of growing width up to half the extent; the model with
    the least squares, weighted by the number of pairs, over a hundred ranges.

    Args:
        places: float64 ``(n, 3)``, metres.
        values: One for each place.
    """
    import numpy as np
    from scipy.optimize import nnls
    from scipy.spatial.distance import pdist

    if len(values) < _FEWEST:
        return None, f"{len(values)} chips have pixels, a variogram needs {_FEWEST}"
    if values.std() <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return None, "all chips have the same mean"
    apart, gamma = pdist(places), 0.5 * pdist(values[:, np.newaxis], "sqeuclidean")
    reach = float(apart.max()) / 2
    edges = np.geomspace(max(float(np.percentile(apart, 0.1)), reach / 100), reach, _LAGS)
    lag = np.searchsorted(edges, apart)
    count = np.bincount(lag, minlength=_LAGS + 1)[:_LAGS]
    some = np.flatnonzero(count > 0)
    h = np.bincount(lag, weights=apart, minlength=_LAGS + 1)[some] / count[some]
    g = np.bincount(lag, weights=gamma, minlength=_LAGS + 1)[some] / count[some]
    weight = np.sqrt(count[some] / count[some].max())
    ranges = np.geomspace(edges[0], reach, 100)
    misfits = []
    for a in ranges:
        x = np.minimum(h / a, 1)
        model = np.column_stack([np.ones(len(h)), 1.5 * x - 0.5 * x**3])
        misfits.append(nnls(model * weight[:, np.newaxis], g * weight)[1])
    best = int(np.argmin(misfits))
    if best == len(ranges) - 1:
        return None, f"chips still become less alike at {reach:.0f} m, half the extent of the dataset"
    return round(float(ranges[best]), 1), ""
