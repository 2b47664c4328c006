"""``collection.json``: the dataset as a STAC 1.1 collection, so that it is found by those who know no format of ours.

There are no items: a chip is a row of ``chips.parquet`` and not a file, so the groups of the store, the labels and the
index are assets of the collection.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

from chips.index import INDEX
from chips.layout import Group, Layout, Variable
from publish.facts import Facts
from publish.licence import NO_ADVICE

COLLECTION = "collection.json"

EXTENSION = "https://stac-extensions.github.io/{}/schema.json"
DATACUBE = EXTENSION.format("datacube/v2.3.0")
TABLE = EXTENSION.format("table/v1.2.0")
PROJECTION = EXTENSION.format("projection/v2.0.0")
CLASSIFICATION = EXTENSION.format("classification/v1.1.0")
LABEL = EXTENSION.format("label/v1.0.1")
FILE = EXTENSION.format("file/v2.1.0")

ZARR = "application/vnd.zarr; version=3"
STORE_TITLES = {
    "zarr": "the Zarr store with all groups",
    "icechunk": "names the Icechunk repository and the tag of the Zarr store with all groups",
}
PARQUET = "application/vnd.apache.parquet"
MEDIA = {
    ".parquet": PARQUET,
    ".json": "application/json",
    ".geojson": "application/geo+json",
    ".yaml": "application/yaml",
    ".md": "text/markdown",
    ".html": "text/html",
    ".txt": "text/plain",
    ".png": "image/png",
}
SHA256 = "1220"
"""What a SHA-256 begins with as a multihash: its code and its length."""


def collection_json(facts: Facts) -> bytes:
    """The STAC collection of a dataset; paths are relative to where it lies."""
    start, end = facts.interval
    west, south, east, north = facts.bbox
    one = facts.terms.one
    assets = {
        **{name: _group_asset(facts, _group(facts, name)) for name in facts.sources},
        # With their group: a label may bear the name of a source.
        **{f"{v.group}/{v.name}": _label_asset(facts, v) for v in facts.labels},
        **{_key(name): _file_asset(facts, name) for name in sorted(facts.files)},
    }
    used = {
        DATACUBE: True,
        TABLE: True,
        PROJECTION: True,
        FILE: True,
        LABEL: bool(facts.labels),
        CLASSIFICATION: any("classification:classes" in asset for asset in assets.values()),
    }
    document: dict[str, Any] = {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [extension for extension, wanted in used.items() if wanted],
        "id": facts.name,
        "title": facts.name,
        "description": describe(facts),
        "keywords": ["earth observation", "machine learning", "chips", *facts.sources],
        "license": one.spdx if one is not None and one.spdx else "other",
        "extent": {
            "spatial": {"bbox": [[west, south, east, north]]},
            "temporal": {"interval": [[_stamp(start), _stamp(end)]]},
        },
        "summaries": {
            "proj:code": [f"EPSG:{code}" for code in facts.epsg],
            "gsd": sorted({float(group.attrs["resolution_m"]) for group in facts.layout.groups}),
            "platform": sorted({p for group in facts.layout.groups for p in group.attrs.get("platforms", ())}),
        },
        "links": [
            {"rel": "root", "href": f"./{COLLECTION}", "type": "application/json"},
            {
                "rel": "store",
                "href": f"./{facts.layout.entry}",
                "type": store_type(facts.layout),
                "title": STORE_TITLES[facts.layout.store],
            },
            *(
                {"rel": "license", "href": licence.url, "title": licence.title}
                for licence in facts.terms.licences
                if licence.url
            ),
        ],
        "cube:dimensions": _dimensions(facts),
        "cube:variables": {f"{v.group}/{v.name}": _variable(v) for v in facts.layout.variables},
        "assets": assets,
        "curate:version": facts.curate,
        "curate:recipe_fingerprint": facts.layout.attrs["recipe_fingerprint"],
        "curate:attribution": list(facts.terms.attribution),
        "curate:licence_note": NO_ADVICE,
    }
    summaries = {key: values for key, values in document["summaries"].items() if values}
    return (json.dumps({**document, "summaries": summaries}, indent=2, ensure_ascii=False) + "\n").encode()


def describe(facts: Facts) -> str:
    """What the dataset is, in two sentences."""
    start, end = facts.interval
    what = ", ".join(f"{name} ({_group(facts, name).attrs['collection']})" for name in facts.sources)
    labels = ", ".join(dict.fromkeys(str(v.attrs["label"]) for v in facts.labels))
    side = facts.layout.size_px
    return (
        f"{facts.layout.n_chips} co-registered chips of {side} x {side} pixels from {start:%Y-%m-%d} until before "
        f"{end:%Y-%m-%d}: {what}{f', with the labels {labels}' if labels else ''}. Chips are put into train, val and "
        "test by place."
    )


def _group(facts: Facts, name: str) -> Group:
    return facts.layout.group(name)


def _group_asset(facts: Facts, group: Group) -> dict[str, Any]:
    bands = next((coord.values for coord in group.coords if coord.name == "band"), ())
    centre = next((coord.values for coord in group.coords if coord.name == "wavelength"), (None,) * len(bands))
    told = []
    for name, wavelength in zip(bands, centre, strict=True):
        told.append({"name": name} | ({} if wavelength is None else {"eo:center_wavelength": round(wavelength, 4)}))
    asset = {
        "href": _href(facts, group.name),
        "type": store_type(facts.layout),
        "title": next(term.title for term in facts.terms.terms if term.name == group.name and term.what == "source"),
        "roles": ["data"],
        "gsd": float(group.attrs["resolution_m"]),
    }
    # Only names, so that the extension eo need not be declared for what `wavelength` in the store tells exactly.
    return asset | ({"bands": [{"name": band["name"]} for band in told]} if told else {})


def _label_asset(facts: Facts, variable: Variable) -> dict[str, Any]:
    legend = facts.classes(variable)
    asset: dict[str, Any] = {
        "href": _href(facts, f"{variable.group}/{variable.name}"),
        "type": store_type(facts.layout),
        "title": str(variable.attrs.get("title") or variable.attrs.get("long_name") or variable.name),
        "roles": ["labels", "labels-raster"],
        "label:type": "raster",
        "label:properties": None,
        "label:description": str(variable.attrs.get("title") or f"the label {variable.attrs['label']} as pixels"),
        "label:tasks": ["segmentation" if variable.attrs.get("kind") == "classes" else "regression"],
        "proj:shape": list(variable.shape[-2:]) if variable.spatial else None,
    }
    if asset["proj:shape"] is None:
        del asset["proj:shape"]
    if legend.classes:
        asset["label:classes"] = [{"name": None, "classes": [c.name for c in legend.classes]}]
        asset["classification:classes"] = [
            {"value": c.code, "name": f"class_{c.code}", "title": c.name, "description": c.name}
            | ({} if c.color is None else {"color_hint": c.color.lstrip("#").upper()})
            for c in legend.classes
        ]
    return asset


def _file_asset(facts: Facts, name: str) -> dict[str, Any]:
    file = facts.files[name]
    asset: dict[str, Any] = {
        "href": f"./{name}",
        "type": media_type(name),
        "roles": ["metadata"],
        "file:size": file.size,
        "file:checksum": SHA256 + file.sha256,
    }
    if name == INDEX:
        asset |= {
            "title": "one row for every planned chip",
            "roles": ["metadata", "index"],
            "table:columns": [{"name": field.name, "type": str(field.type)} for field in facts.index.schema],
            "table:primary_geometry": "geometry",
            "table:row_count": facts.index.num_rows,
        }
    return asset


def _href(facts: Facts, path: str) -> str:
    """Where a group or an array lies; within a repository the fragment is its path."""
    return f"./{facts.layout.entry}{'#' if facts.layout.store == 'icechunk' else '/'}{path}"


def store_type(layout: Layout) -> str:
    """Media type of what a reader of the store begins with."""
    return ZARR if layout.store == "zarr" else "application/json"


def media_type(name: str) -> str:
    """Media type of a file by the ending of its name."""
    return next((media for ending, media in MEDIA.items() if name.endswith(ending)), "application/octet-stream")


def _key(name: str) -> str:
    """Key of a file's asset: files and groups may bear one name, so the ending stays."""
    return name.replace("/", "_")


def _dimensions(facts: Facts) -> dict[str, Any]:
    """Dimensions of the store; those of a group bear its name, because groups differ in bands, times and pixels."""
    west, south, east, north = facts.bbox
    found: dict[str, Any] = {
        "chip": {
            "type": "count",
            "description": f"rows of {INDEX}; row i is chip i",
            "extent": [0, facts.layout.n_chips - 1],
        },
        # A chip has its own corner (x0, y0), so the axes have no common values: this is where all of them lie.
        "x": {"type": "spatial", "axis": "x", "extent": [west, east], "reference_system": 4326},
        "y": {"type": "spatial", "axis": "y", "extent": [south, north], "reference_system": 4326},
    }
    start, end = facts.interval
    for variable in facts.layout.variables:
        for dim in variable.dims:
            if dim in found or dim in ("x", "y"):
                continue
            key = _dimension(variable, dim)
            if dim == "time":
                found.setdefault(key, {"type": "temporal", "extent": [_stamp(start), _stamp(end)]})
                continue
            values = _values(facts.layout.group(variable.group).coords, dim)
            length = variable.shape[variable.dims.index(dim)]
            found.setdefault(
                key, {"type": "bands" if dim == "band" else "other", "values": values or list(range(length))}
            )
    return found


def _values(coords: Sequence[Any], dim: str) -> list[Any]:
    return next((list(coord.values) for coord in coords if coord.name == dim), [])


def _dimension(variable: Variable, dim: str) -> str:
    return dim if dim in ("chip", "x", "y") else f"{variable.group}/{dim}"


def _variable(variable: Variable) -> dict[str, Any]:
    found: dict[str, Any] = {
        "dimensions": ["chip", *(_dimension(variable, dim) for dim in variable.dims)],
        "type": "data" if variable.void or variable.spatial else "auxiliary",
        "data_type": variable.stored_dtype,
    }
    if "long_name" in variable.attrs:
        found["description"] = variable.attrs["long_name"]
    if "units" in variable.attrs:
        found["unit"] = variable.attrs["units"]
    if variable.void:
        found["nodata"] = "nan" if variable.fill == "NaN" else variable.stored_fill
    return found


def _stamp(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
