"""The Zarr v3 documents (``zarr.json``) of a layout: arrays first, then groups, the root last."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from chips.layout import (
    CHIP_COORDINATES,
    COORDINATE_CHUNK,
    LAYOUT_VERSION,
    STORE,
    TIME_ATTRS,
    Coordinate,
    Group,
    Layout,
    Variable,
    canonical,
)

DOCUMENT = "zarr.json"

CONVENTIONS = "CF-1.12"

TEXT_LEVEL = 3
"""Level of zstd for text."""

# https://github.com/zarr-conventions/geo-proj, v1: one code in a group holds for its arrays.
PROJ_CONVENTION = {
    "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "name": "proj:",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/geo-proj/refs/tags/v1/schema.json",
}
# https://github.com/zarr-conventions/spatial, v1. Chips differ in place, so there is no `spatial:transform`: that of
# chip i is [res, 0, x0[i], 0, -res, y0[i]].
SPATIAL_CONVENTION = {
    "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "name": "spatial:",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v1/schema.json",
}


def documents(layout: Layout, epsg: tuple[int, ...] = ()) -> dict[str, bytes]:
    """Key -> bytes of every ``zarr.json``, in the order they are to be written: the root comes last.

    Args:
        layout: What to describe; ``Group.steps`` shortens the time axes.
        epsg: The codes found on the chips. Where it is one, groups say so by the ``proj:`` convention.
    """
    arrays: dict[str, dict[str, Any]] = {}
    for name in CHIP_COORDINATES:
        arrays[name] = _chip_coordinate(layout, name)
    for group in layout.groups:
        for name in CHIP_COORDINATES:
            arrays[f"{group.name}/{name}"] = _chip_coordinate(layout, name)
        for coord in group.coords:
            arrays[f"{group.name}/{coord.name}"] = _coordinate(coord, group)
        for variable in layout.of(group.name):
            arrays[f"{group.name}/{variable.name}"] = _variable(layout, variable)
    groups = {group.name: _group(layout, group, epsg) for group in layout.groups}
    if layout.store == "icechunk":  # which knows all its nodes, and refuses documents that tell of others
        arrays |= {**groups, "": _root(layout, epsg)}
        return {"/".join(filter(None, (STORE, path, DOCUMENT))): canonical(node) for path, node in arrays.items()}
    found = {f"{STORE}/{path}/{DOCUMENT}": canonical(array) for path, array in arrays.items()}
    for name, group_document in groups.items():
        # Consolidated in each group too: over HTTP, where nothing can be listed, a group opens by itself.
        inside = {path.split("/")[1]: array for path, array in arrays.items() if path.startswith(f"{name}/")}
        found[f"{STORE}/{name}/{DOCUMENT}"] = canonical(_consolidated(group_document, inside))
    below = {name: _consolidated(group, {}) for name, group in groups.items()}
    found[f"{STORE}/{DOCUMENT}"] = canonical(_consolidated(_root(layout, epsg), {**arrays, **below}))
    return found


def arrays_of(documents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those of the documents that describe arrays and not groups."""
    return {key: data for key, data in documents.items() if json.loads(data)["node_type"] == "array"}


def chunks(variable: Variable, layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(inner chunk, shard) of an array, ``chip`` in front; equal where the array is not sharded."""
    n = layout.shard_chips
    return variable.chunk_shape(n), variable.shard_shape(n, layout.object_steps)


def coordinate_values(coord: Coordinate, steps: int | None) -> list[Any]:
    """Values of a coordinate as they are stored: times as seconds since 1970, the first ``steps`` of a time axis."""
    values = coord.values if coord.dim != "time" else coord.values[:steps]
    if coord.dtype != "datetime64[s]":
        return list(values)
    return [int(dt.datetime.fromisoformat(value).replace(tzinfo=dt.UTC).timestamp()) for value in values]


def shuffled(itemsize: int) -> int:
    """How blosc shuffles values of so many bytes: 0 not at all, 1 by bytes, 2 by bits."""
    # Bit shuffle pays for reflectance (3.8 against 2.9) and is the faster of two equals for floats. On classes and
    # masks of one byte it costs: 2.5 against 4.9 on a crop map, because codes are names and not quantities.
    return 0 if itemsize == 1 else 2


def stored_dtype(coord: Coordinate) -> str:
    """Data type of a coordinate in the store: times are int64."""
    return "int64" if coord.dtype == "datetime64[s]" else coord.dtype


def coordinate_chunk(length: int) -> tuple[int]:
    """Shape of a chunk of a coordinate of that length."""
    return (max(1, min(length, COORDINATE_CHUNK)),)


def empty_value(dtype: str) -> int | str | bool:
    """Fill value of a coordinate, as Zarr spells it: seen by nobody, because coordinates are written in full."""
    if dtype == "string":
        return ""
    if dtype == "bool":
        return False
    return "NaN" if dtype.startswith("float") else 0


def shape_of(variable: Variable, layout: Layout) -> tuple[int, ...]:
    """Published shape, ``chip`` in front."""
    steps = layout.group(variable.group).steps
    lengths = (min(length, steps or length) if dim == "time" else length for dim, length in variable.axes())
    return (layout.n_chips, *lengths)


def _variable(layout: Layout, variable: Variable) -> dict[str, Any]:
    attrs = dict(variable.attrs)
    if variable.dtype == "datetime64[s]":
        attrs = {**TIME_ATTRS, **attrs}
    elif names := _coordinate_names(layout, variable):
        attrs["coordinates"] = " ".join(names)  # CF: which variables say where and when this one is
    if variable.void and not isinstance(variable.stored_fill, str):
        attrs["_FillValue"] = variable.stored_fill
    inner, shard = chunks(variable, layout)
    codecs = _codecs(variable.stored_dtype)
    if variable.spatial:
        index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        sharding = {"chunk_shape": list(inner), "codecs": codecs, "index_codecs": index, "index_location": "end"}
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return _array(
        shape=shape_of(variable, layout),
        dims=("chip", *variable.dims),
        dtype=variable.stored_dtype,
        chunk=shard,
        fill=variable.stored_fill,
        codecs=codecs,
        attrs=attrs,
    )


def _chip_coordinate(layout: Layout, name: str) -> dict[str, Any]:
    dtype, attrs = CHIP_COORDINATES[name]
    if name == "chip" and (grid := layout.attrs.get("grid")):  # a scheme whose names are made in another way
        attrs = {"long_name": f"name of the chip in the grid {grid}"}
    shape = (layout.n_chips,)
    return _array(shape, ("chip",), dtype, coordinate_chunk(*shape), empty_value(dtype), _codecs(dtype), dict(attrs))


def _coordinate(coord: Coordinate, group: Group) -> dict[str, Any]:
    shape = (len(coordinate_values(coord, group.steps)),)
    attrs = {**TIME_ATTRS, **coord.attrs} if coord.dtype == "datetime64[s]" else dict(coord.attrs)
    dtype = stored_dtype(coord)
    return _array(shape, (coord.dim,), dtype, coordinate_chunk(*shape), empty_value(dtype), _codecs(dtype), attrs)


def _coordinate_names(layout: Layout, variable: Variable) -> list[str]:
    """Coordinates of a variable that are no index: those whose dimensions it has."""
    names = [name for name in CHIP_COORDINATES if name != "chip"]
    dims = {"chip", *variable.dims}
    coords = layout.group(variable.group).coords
    names += [coord.name for coord in coords if coord.dim in dims and coord.name != coord.dim]
    return names + [
        other.name
        for other in layout.of(variable.group)
        if other.dtype == "datetime64[s]" and dims.issuperset(other.dims)
    ]


def _codecs(dtype: str) -> list[dict[str, Any]]:
    """From values to bytes. Sizes and speeds were measured, see ``docs/store.md``."""
    if dtype == "string":
        text = {"name": "vlen-utf8", "configuration": {}}
        return [text, {"name": "zstd", "configuration": {"level": TEXT_LEVEL, "checksum": False}}]
    size = _bytes_of(dtype)
    shuffle = ("noshuffle", "shuffle", "bitshuffle")[shuffled(size)]
    blosc = {"typesize": size, "cname": "zstd", "clevel": 1, "shuffle": shuffle, "blocksize": 0}
    endian: dict[str, Any] = {"name": "bytes"}
    if size > 1:
        endian["configuration"] = {"endian": "little"}
    return [endian, {"name": "blosc", "configuration": blosc}]


def _bytes_of(dtype: str) -> int:
    return 1 if dtype == "bool" else int(dtype.lstrip("uintfloa")) // 8


def _array(
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    dtype: str,
    chunk: tuple[int, ...],
    fill: Any,
    codecs: list[dict[str, Any]],
    attrs: dict[str, Any],
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": attrs,
        "dimension_names": list(dims),
        "storage_transformers": [],
    }


def _root(layout: Layout, epsg: tuple[int, ...]) -> dict[str, Any]:
    attrs = {
        "Conventions": CONVENTIONS,
        "layout_version": LAYOUT_VERSION,
        "size_px": layout.size_px,
        # The root has no variable that could name them, so the group does, as xarray reads and writes it.
        "coordinates": " ".join(name for name in CHIP_COORDINATES if name != "chip"),
        **_proj(epsg),
        **layout.attrs,
    }
    return {"zarr_format": 3, "node_type": "group", "attributes": attrs}


def _group(layout: Layout, group: Group, epsg: tuple[int, ...]) -> dict[str, Any]:
    attrs: dict[str, Any] = {"Conventions": CONVENTIONS, **_proj(epsg)}
    if any(variable.spatial for variable in layout.of(group.name)):
        attrs["zarr_conventions"] = [*attrs.get("zarr_conventions", []), SPATIAL_CONVENTION]
        attrs["spatial:dimensions"] = ["y", "x"]
    return {"zarr_format": 3, "node_type": "group", "attributes": {**attrs, **group.attrs}}


def _proj(epsg: tuple[int, ...]) -> dict[str, Any]:
    if len(set(epsg)) != 1:
        return {}
    return {"zarr_conventions": [PROJ_CONVENTION], "proj:code": f"EPSG:{epsg[0]}"}


def _consolidated(group: dict[str, Any], inside: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A group document that holds those of everything below it, as zarr-python and zarrita read them."""
    metadata = dict(sorted(inside.items()))
    return {**group, "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": metadata}}
