"""``croissant.json``: the dataset for those who search and load by Croissant 1.1, with its vocabulary for places.

Croissant has no words for arrays in Zarr: the store is a set of files, its arrays stand in a record set of their own
with what is needed to open them, and the index, which is a table, is described column by column.
https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html, …/croissant-geo-spec.html
"""

from __future__ import annotations

import json
from typing import Any

from chips.index import INDEX
from chips.layout import STORE
from chips.metadata import shape_of
from publish.facts import SPLITS, Facts
from publish.stac import PARQUET, STORE_TITLES, describe, media_type, store_type

CROISSANT = "croissant.json"

CONFORMS = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/geo/1.0"]
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "geocr": "http://mlcommons.org/croissant/geo/",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
PARQUET_HERE = "application/x-parquet"
"""How loaders of Croissant know Parquet; the registered type, which STAC has, means nothing to them."""
SPLIT_WORDS = {"train": "TrainingSplit", "val": "ValidationSplit", "test": "TestSplit"}
TYPES = {
    "string": "sc:Text",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "float": "cr:Float32",
    "double": "cr:Float64",
}
"""Types of Arrow that Croissant has a word for; other columns (maps, lists, geometry) stay undescribed."""


def croissant_json(facts: Facts) -> bytes:
    """The Croissant description of a dataset; addresses are relative to where it lies."""
    start, end = facts.interval
    west, south, east, north = facts.bbox
    wavelengths = _wavelengths(facts)
    bands = [f"{group}/{band}" for group, band in wavelengths]
    document: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": facts.name,
        "description": describe(facts),
        "license": [licence.url or licence.title for licence in facts.terms.licences],
        "creditText": "; ".join(facts.terms.attribution),
        "keywords": ["earth observation", "machine learning", *facts.sources],
        "sdVersion": facts.curate,
        "spatialCoverage": {
            "@type": "sc:Place",
            # Latitude first, as the vocabulary wants it.
            "geo": {"@type": "sc:GeoShape", "box": f"{south} {west} {north} {east}"},
        },
        "temporalCoverage": f"{start:%Y-%m-%dT%H:%M:%SZ}/{end:%Y-%m-%dT%H:%M:%SZ}",
        "geocr:coordinateReferenceSystem": ", ".join(f"EPSG:{code}" for code in facts.epsg),
        "geocr:spatialResolution": _quantity(min(float(g.attrs["resolution_m"]) for g in facts.layout.groups), "m"),
        "geocr:bandConfiguration": {
            "@type": "geocr:BandConfiguration",
            "geocr:totalBands": len(bands),
            "geocr:bandNamesList": bands,
        },
        "geocr:spectralBandMetadata": [
            {
                "@type": "geocr:SpectralBand",
                "name": f"{group}/{band}",
                "geocr:centerWavelength": _quantity(round(micrometres * 1000, 3), "nm"),
            }
            for (group, band), micrometres in wavelengths.items()
            if micrometres is not None
        ],
        "geocr:samplingStrategy": (
            f"Chips of a grid that is snapped to a global origin; put into train, val and test by the rule "
            f"'{facts.recipe['split']['rule']}' of the recipe"
        ),
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": facts.layout.entry,
                "name": facts.layout.entry,
                "description": f"{STORE_TITLES[facts.layout.store]}: Zarr v3, one a source and one for the labels",
                "encodingFormat": store_type(facts.layout),
                "includes": f"{STORE}/**" if facts.layout.store == "zarr" else facts.layout.entry,
            },
            *(
                {
                    "@type": "cr:FileObject",
                    "@id": name,
                    "name": name,
                    "contentUrl": name,
                    "contentSize": f"{file.size} B",
                    "encodingFormat": PARQUET_HERE if media_type(name) == PARQUET else media_type(name),
                    "sha256": file.sha256,
                }
                for name, file in sorted(facts.files.items())
            ),
        ],
        "recordSet": [_splits(), _chips(facts), _arrays(facts)],
    }
    kept = {key: value for key, value in document.items() if value not in ([], "")}
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()


def _wavelengths(facts: Facts) -> dict[tuple[str, str], float | None]:
    """(source, band) -> centre wavelength in micrometres, None where it is not known."""
    found: dict[tuple[str, str], float | None] = {}
    for name in facts.sources:
        coords = {coord.name: coord.values for coord in facts.layout.group(name).coords}
        bands = coords.get("band", ())
        for band, centre in zip(bands, coords.get("wavelength", (None,) * len(bands)), strict=True):
            found[name, band] = centre
    return found


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"@type": "sc:QuantitativeValue", "value": value, "unitText": unit}


def _splits() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [_field("splits", "name", "sc:Text"), _field("splits", "url", "sc:URL")],
        "data": [
            {"splits/name": name, "splits/url": f"http://mlcommons.org/croissant/{SPLIT_WORDS.get(name, 'Split')}"}
            for name in SPLITS
        ],
    }


def _chips(facts: Facts) -> dict[str, Any]:
    fields = []
    for column in facts.index.schema:
        kind = TYPES.get(str(column.type))
        if kind is None:
            continue
        field = _field("chips", column.name, kind)
        field["source"] = {"fileObject": {"@id": INDEX}, "extract": {"column": column.name}}
        if column.name == "split":
            field["references"] = {"field": {"@id": "splits/name"}}
        fields.append(field)
    return {
        "@type": "cr:RecordSet",
        "@id": "chips",
        "name": "chips",
        "description": "One record a planned chip; record i is chip i along the first axis of every array.",
        "key": {"@id": "chips/chip"},
        "field": fields,
    }


def _arrays(facts: Facts) -> dict[str, Any]:
    records = [
        {
            "arrays/path": f"{variable.group}/{variable.name}",
            "arrays/dimensions": " ".join(("chip", *variable.dims)),
            "arrays/shape": " ".join(map(str, shape_of(variable, facts.layout))),
            "arrays/dtype": variable.stored_dtype,
            "arrays/units": str(variable.attrs.get("units", "")),
        }
        for variable in facts.layout.variables
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "arrays",
        "name": "arrays",
        "description": "The arrays of the store: their paths within it, dimensions and types.",
        "key": {"@id": "arrays/path"},
        "field": [_field("arrays", name, "sc:Text") for name in ("path", "dimensions", "shape", "dtype", "units")],
        "data": records,
    }


def _field(record_set: str, name: str, kind: str) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": f"{record_set}/{name}", "name": name, "dataType": kind}
