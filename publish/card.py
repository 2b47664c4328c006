"""``README.md``: the dataset card, for people, with the front matter that Hugging Face reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from chips.index import INDEX
from chips.layout import COMMITTED, STORE, Variable
from chips.metadata import shape_of
from publish.facts import SPLITS, Facts
from publish.licence import NO_ADVICE
from publish.stac import describe

CARD = "README.md"

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Upper bound -> word of Hugging Face for the number of chips."""
FILES = {
    "statistics.json": "mean, spread, quantiles and histograms of every band, and classes by split",
    "coverage.json": "how much of the region is seen, and how often",
    "labels/": "the features or the table of a label",
    "alignment.json": "how far acquisitions were measured to lie off",
    "splits.json": "the splits that were drawn",
    "report.html": "all of this with pictures",
}
"""Beginning of the name of a file beside the store -> what it holds."""
MOST_CLASSES = 60
"""Classes of a label that a table lists; CORINE has 44, and lists of crops are long."""


def card(facts: Facts) -> bytes:
    """The card of a dataset in Markdown."""
    parts = [
        f"---\n{_front_matter(facts)}---",
        f"# {facts.name}",
        describe(facts),
        *_chips(facts),
        "## Images",
        _table(("source", "collection", "bands", "pixel", "dates used", "clear"), _sources(facts)),
        *_labels(facts),
        "## Arrays",
        _table(("array", "dimensions", "shape", "dtype", "units"), map(list, _arrays(facts))),
        *_files(facts),
        "## Reading it",
        _reading(facts),
        "## How it was made",
        _made(facts),
        *_licences(facts),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def _front_matter(facts: Facts) -> str:
    import yaml

    one = facts.terms.one
    front: dict[str, Any] = {"pretty_name": facts.name}
    if one is not None and one.hf:
        front["license"] = one.hf
    else:
        front |= {"license": "other", "license_name": _slug(facts.terms.name), "license_link": "ATTRIBUTION.txt"}
    front["tags"] = ["earth-observation", "remote-sensing", "geospatial", "satellite-imagery", "zarr", *facts.sources]
    if any(variable.attrs.get("kind") == "classes" for variable in facts.labels):
        front["task_categories"] = ["image-segmentation"]
    front["size_categories"] = [next((word for most, word in SIZES if facts.layout.n_chips < most), "1M<n<10M")]
    front["configs"] = [{"config_name": "chips", "data_files": INDEX}]
    return str(yaml.safe_dump(front, sort_keys=False, allow_unicode=True))


def _slug(text: str) -> str:
    """A name as Hugging Face wants it: small letters, digits, dots and dashes."""
    kept = "".join(sign if sign.isalnum() or sign == "." else "-" for sign in text.lower())
    return "-".join(part for part in kept.split("-") if part)


def _chips(facts: Facts) -> list[str]:
    splits, status = facts.count("split"), facts.count("status")
    total = sum(splits.values())
    west, south, east, north = facts.bbox
    lines = [
        "## Chips",
        _table(
            ("split", "chips", "share"),
            ([n, str(splits[n]), f"{splits[n] / total:.0%}"] for n in SPLITS if n in splits),
        ),
        f"They lie between {west:.4f}, {south:.4f} and {east:.4f}, {north:.4f} (west, south; east, north, degrees), in "
        f"{', '.join(f'EPSG:{code}' for code in facts.epsg)}. "
        + ("`buffer` keeps the splits apart and is not meant to be trained on. " if "buffer" in splits else "")
        + f"Of all, {', '.join(f'{count} are {name}' for name, count in sorted(status.items()))}.",
    ]
    if "fold" in facts.index.column_names:
        folds = sorted(facts.count("fold").items())
        lines.append(f"Folds: {', '.join(f'{count} in {fold}' for fold, count in folds)} (0 is left out).")
    if years := facts.recipe["split"].get("years"):
        named = "; ".join(f"{n} {', '.join(map(str, years[n]))}" for n in SPLITS if years.get(n))
        lines.append(f"Each split has dates of its own years alone: {named}. `buffer` has those of all.")
    if reasons := {reason: count for reason, count in facts.count("reason").items() if reason}:
        shown = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
        lines.append(_table(("chips", "what they lack"), ([str(count), reason] for reason, count in shown[:10])))
    return lines


def _sources(facts: Facts) -> Iterable[list[str]]:
    for name in facts.sources:
        group = facts.layout.group(name)
        bands = next((coord.values for coord in group.coords if coord.name == "band"), ())
        dates, clear = facts.dates(name), facts.clear(name)
        timed = any("time" in variable.dims for variable in facts.layout.of(name))
        yield [
            f"`{name}`",
            str(group.attrs["collection"]),
            ", ".join(bands) or ", ".join(v.name for v in facts.layout.of(name)),
            f"{float(group.attrs['resolution_m']):g} m",
            f"{len(dates)}, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}" if timed and dates else "",
            f"{clear:.0%}" if timed and clear is not None and "mask_layer" in group.attrs else "",
        ]


def _labels(facts: Facts) -> list[str]:
    if not facts.labels:
        return []
    parts = ["## Labels"]
    for variable in facts.labels:
        about = str(variable.attrs.get("title") or variable.attrs.get("long_name") or "")
        parts.append(f"### `{variable.group}/{variable.name}`" + (f"\n\n{about}" if about else ""))
        legend = facts.classes(variable)
        # The index counts the main variable of a label, which bears its name.
        if legend.classes and variable.name == variable.attrs["label"]:
            parts.append(_classes(facts, variable))
    return parts


def _classes(facts: Facts, variable: Variable) -> str:
    classes = facts.classes(variable).classes
    splits = [split for split in SPLITS if split in facts.count("split")]
    shares = {split: facts.shares(str(variable.attrs["label"]), split) for split in splits}
    rows = [
        [str(c.code), c.name, *(f"{shares[split][c.code]:.1%}" if c.code in shares[split] else "" for split in splits)]
        for c in classes[:MOST_CLASSES]
    ]
    table = _table(("code", "class", *splits), rows)
    more = len(classes) - MOST_CLASSES
    ignored = f"Shares are of the labelled pixels of a split; {variable.stored_fill} is unlabelled and no class."
    return f"{table}\n\n{ignored}" + (f" {more} more classes stand in `flag_names`." if more > 0 else "")


def _arrays(facts: Facts) -> Iterable[Sequence[str]]:
    for variable in facts.layout.variables:
        shape = " × ".join(map(str, shape_of(variable, facts.layout)))
        units = str(variable.attrs.get("units", ""))
        yield (
            f"`{variable.group}/{variable.name}`",
            ", ".join(("chip", *variable.dims)),
            shape,
            variable.stored_dtype,
            units,
        )


def _files(facts: Facts) -> list[str]:
    """What lies beside the store besides what every dataset has."""
    rows = [[f"`{name}`", about] for start, about in FILES.items() for name in facts.files if name.startswith(start)]
    return ["## Beside the store", _table(("file", "holds"), rows)] if rows else []


def _reading(facts: Facts) -> str:
    first = facts.sources[0]
    opened = f"""import xarray as xr

ds = xr.open_zarr("{STORE}", group="{first}", chunks=None)  # lazy"""
    if facts.layout.store == "icechunk":
        opened = f"""import json
import icechunk
import xarray as xr

place = json.load(open("{COMMITTED}"))
repository = icechunk.Repository.open(icechunk.local_filesystem_storage(place["repository"]))
session = repository.readonly_session(tag=place["tag"])
ds = xr.open_zarr(session.store, group="{first}", chunks=None, consolidated=False)  # lazy"""
    return f"""```python
{opened}
train = ds.isel(chip=ds.split == "train")
```

Row *i* of `{INDEX}` (GeoParquet) is chip *i* of every array."""


def _made(facts: Facts) -> str:
    start, end = facts.interval
    fingerprint = facts.layout.attrs["recipe_fingerprint"][:16]
    return (
        f"By curate {facts.curate} from `recipe.yaml` (fingerprint `{fingerprint}`) over `region.geojson`, from "
        f"{start:%Y-%m-%d} until before {end:%Y-%m-%d}. `scenes.parquet` holds every scene that was found and what was "
        "decided about it; `manifest.json` every object with its checksum, which `curate check` verifies."
    )


def _licences(facts: Facts) -> list[str]:
    terms = facts.terms
    rows = (
        [
            f"`{term.name}`",
            term.what,
            term.title,
            f"[{term.licence.title}]({term.licence.url})" if term.licence.url else term.licence.title,
        ]
        for term in terms.terms
    )
    parts = ["## Licences", _table(("name", "", "what", "terms"), rows)]
    if len(terms.licences) > 1:
        parts.append(f"The parts have several licences; {terms.strictest.title} asks most.")
    if terms.remarks:
        parts.append(" ".join(terms.remarks))
    if terms.attribution:
        parts += [
            "To be said where it is used:",
            "\n".join(f"> {line}\n>" for line in terms.attribution).removesuffix("\n>"),
        ]
    return [*parts, NO_ADVICE]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
