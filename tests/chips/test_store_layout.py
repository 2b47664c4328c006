"""The layout of the store is a promise: a golden document holds it, and changes only together with its version."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.buffer.cpu import Buffer
from zarr.storage import MemoryStore

from chips.encode import encode_chunk, encode_shard
from chips.layout import LAYOUT_VERSION, SHARD_BYTES, Coordinate, Group, Layout, Variable, canonical
from chips.metadata import documents
from chips.write import BuildRef

if TYPE_CHECKING:
    from tests.chips.conftest import Tiny

# Changes only in a commit that says why, and together with LAYOUT_VERSION when a reader of old stores would go wrong.
GOLDEN = "d5d947d2cf24d6ab4e8d1626d6f8e43a481cd802c1a10b8eb4a771c7e2e8a226"


def test_the_documents_of_the_layout_have_not_changed(tiny: Tiny) -> None:
    assert LAYOUT_VERSION == 1
    found = documents(tiny.layout.trimmed({"s2": 2}), (32631,))
    assert hashlib.sha256(b"\n".join([*map(str.encode, found), *found.values()])).hexdigest() == GOLDEN


def test_the_reflectance_of_the_layout_reads_like_this(tiny: Tiny) -> None:
    document = json.loads(documents(tiny.layout.trimmed({"s2": 2}))["chips.zarr/s2/reflectance/zarr.json"])
    assert document["shape"] == [5, 2, 2, 8, 8]
    assert document["dimension_names"] == ["chip", "time", "band", "y", "x"]
    assert document["data_type"] == "uint16"
    assert document["fill_value"] == 0
    assert document["chunk_grid"]["configuration"]["chunk_shape"] == [2, 4, 2, 8, 8]
    (sharding,) = document["codecs"]
    assert sharding["name"] == "sharding_indexed"
    assert sharding["configuration"]["chunk_shape"] == [1, 1, 2, 8, 8]
    assert sharding["configuration"]["codecs"][1] == {
        "name": "blosc",
        "configuration": {"typesize": 2, "cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "blocksize": 0},
    }
    assert document["attributes"] == {
        "units": "1",
        "scale_factor": 0.0001,
        "_FillValue": 0,
        "coordinates": "split status epsg x0 y0 lon lat wavelength_nm acquired",
    }


def test_zarr_itself_would_describe_the_arrays_in_the_same_way(tiny: Tiny) -> None:
    for variable in tiny.layout.variables:
        ours = json.loads(documents(tiny.layout)[f"{variable.path}/zarr.json"])
        store = MemoryStore({"zarr.json": Buffer.from_bytes(canonical(ours))})
        array = zarr.open_array(store, mode="r", zarr_format=3)
        assert json.loads(json.dumps(array.metadata.to_dict(), default=str)) == ours | {"storage_transformers": []}


def test_layouts_survive_json_and_pickle(tiny: Tiny) -> None:
    assert Layout.from_json(json.loads(canonical(tiny.layout.to_json()))) == tiny.layout
    trimmed = tiny.layout.trimmed({"s2": 2})
    assert Layout.from_json(json.loads(canonical(trimmed.to_json()))) == trimmed != tiny.layout
    assert trimmed.padded() == tiny.layout
    build = BuildRef("/somewhere", "abc", tiny.layout)
    assert pickle.loads(pickle.dumps(build)) == build
    assert hash(build) == hash(pickle.loads(pickle.dumps(build)))


def test_a_layout_of_another_version_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="layout version 2 was found, this release knows 1"):
        Layout.from_json({**tiny.layout.to_json(), "layout_version": 2})


@given(
    n=st.integers(1, 256),
    steps=st.integers(1, 400),
    bands=st.integers(1, 13),
    side=st.sampled_from([64, 128, 256, 512, 1024]),
)
def test_zarr_shards_divide_the_shard_of_the_plan_and_stay_small(n: int, steps: int, bands: int, side: int) -> None:
    variable = Variable("s2", "reflectance", ("time", "band", "y", "x"), (steps, bands, side, side), "uint16", 0)
    chips, times, *rest = variable.shard_shape(n)
    assert n % chips == 0
    assert rest == [bands, side, side]
    step_bytes = 2 * bands * side**2
    assert chips * times * step_bytes <= max(SHARD_BYTES + step_bytes, step_bytes)
    assert times == steps or chips == 1  # a chip's dates are parted only where one chip is too large
    assert variable.chunk_shape(n) == (1, 1, bands, side, side)


def test_a_build_of_64_chips_of_256_pixels_and_12_dates_writes_8_chips_an_object() -> None:
    variable = Variable("s2", "reflectance", ("time", "band", "y", "x"), (12, 10, 256, 256), "uint16", 0)
    assert variable.shard_shape(64) == (8, 12, 10, 256, 256)
    assert Variable("label", "fields", ("y", "x"), (256, 256), "uint8", 255).shard_shape(64) == (64, 256, 256)
    assert Variable("s2", "clear", ("time",), (12,), "float32", float("nan")).chunk_shape(64) == (64, 12)


def variable(**changes: Any) -> Variable:
    given: dict[str, Any] = {
        "group": "s2",
        "name": "v",
        "dims": ("y", "x"),
        "shape": (8, 8),
        "dtype": "uint8",
        "fill": 0,
    }
    return Variable(**{**given, **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: variable(dtype="complex64"), "dtype 'complex64' is not one of"),
        (lambda: variable(dims=("y",)), "do not fit"),
        (lambda: variable(shape=(0, 8)), "do not fit"),
        (lambda: variable(dims=("chip", "x")), "do not fit"),
        (lambda: variable(attrs={"_FillValue": 255}), "_FillValue 255 is not the fill value 0"),
        (lambda: variable(dtype="float32", fill=0.0), "the void of floats is NaN"),
        (lambda: variable(attrs={"x": object()}), "cannot stand in a JSON document"),
        (lambda: variable(attrs={"x": float("inf")}), "cannot stand in a JSON document"),
        (lambda: Coordinate("band", "band", "U3", ("red",)), "dtype 'U3' is not string or"),
        (lambda: Layout((), (), 0, 8, 1), "at least one chip"),
        (lambda: Layout((), (variable(),), 1, 8, 1), "the layout has no group 's2'"),
        (lambda: Layout((Group("s2"),), (variable(), variable()), 1, 8, 1), "stand twice in the layout"),
        (lambda: Layout((Group("s2"),), (variable(name="split"),), 1, 8, 1), "stand twice in the layout"),
        (
            lambda: Layout((Group("s2"),), (variable(), variable(name="w", shape=(9, 8))), 1, 8, 1),
            "dimension 'y' is both 8 and 9 long",
        ),
    ],
)
def test_a_layout_that_cannot_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_values_of_other_libraries_become_plain() -> None:
    found = variable(attrs={"scale": np.float32(0.5), "codes": np.array([1, 2]), "names": ("a", "b")})
    assert found.attrs == {"scale": 0.5, "codes": [1, 2], "names": ["a", "b"]}
    times = Coordinate("time", "time", "datetime64[s]", (np.datetime64("2018-04-01T00:00:00.5", "ns"), "2018-05-01"))
    assert times.values == ("2018-04-01T00:00:00", "2018-05-01T00:00:00")


def blocks() -> st.SearchStrategy[tuple[str, int, int, int]]:
    return st.tuples(
        st.sampled_from(["bool", "uint8", "uint16", "int16", "int32", "float32", "float64"]),
        st.integers(1, 4),
        st.integers(1, 3),
        st.integers(0, 2**32 - 1),
    )


@given(blocks())
def test_zarr_reads_the_shards_that_we_encode(drawn: tuple[str, int, int, int]) -> None:
    dtype, chips, steps, seed = drawn
    rng = np.random.default_rng(seed)
    fill: Any = float("nan") if dtype.startswith("float") else None if dtype == "bool" else 7
    v = Variable("g", "v", ("time", "band", "y", "x"), (steps, 2, 4, 4), dtype, fill)
    layout = Layout((Group("g"),), (v,), 4, 4, 4)
    block = rng.integers(0, 2 if dtype == "bool" else 100, (chips, steps, 2, 4, 4)).astype(dtype)
    void = rng.random((chips, steps)) < 0.5
    block[void] = 0 if fill is None else fill
    data = encode_shard(block, v.chunk_shape(4), v.shard_shape(4), v.stored_fill)
    wanted = np.full((4, *v.shape), 0 if fill is None else fill, dtype=dtype)
    wanted[:chips] = block
    if data is None:
        assert void.all() or dtype == "bool"
        return
    store = MemoryStore(
        {
            "chips.zarr/g/v/zarr.json": Buffer.from_bytes(documents(layout)["chips.zarr/g/v/zarr.json"]),
            "chips.zarr/g/v/c/0/0/0/0/0": Buffer.from_bytes(data),
        }
    )
    np.testing.assert_array_equal(zarr.open_array(store, path="chips.zarr/g/v", mode="r", zarr_format=3)[:], wanted)


@pytest.mark.parametrize(("dtype", "fill"), [("float32", float("nan")), ("uint16", 0), ("datetime64[s]", "NaT")])
def test_zarr_reads_the_small_arrays_that_we_encode(dtype: str, fill: Any) -> None:
    v = Variable("g", "v", ("time",), (3,), dtype, fill)
    layout = Layout((Group("g"),), (v,), 4, 4, 4)
    block = np.arange(1, 7).reshape(2, 3).astype(v.stored_dtype)
    data = encode_chunk(block, (4, 3), v.stored_fill)
    assert data is not None
    store = MemoryStore(
        {
            "chips.zarr/g/v/zarr.json": Buffer.from_bytes(documents(layout)["chips.zarr/g/v/zarr.json"]),
            "chips.zarr/g/v/c/0/0": Buffer.from_bytes(data),
        }
    )
    found = np.asarray(zarr.open_array(store, path="chips.zarr/g/v", mode="r", zarr_format=3)[:])
    np.testing.assert_array_equal(found[:2], block)
    assert encode_chunk(found[2:], (4, 3), v.stored_fill) is None  # the rest reads as void


def test_the_values_of_a_build_are_light_to_import() -> None:
    modules = "chips.layout, chips.index, chips.write, chips.publish, chips.check, chips.info, chips.storage"
    code = f"import sys, {modules}; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"numpy", "zarr", "xarray", "pyarrow", "geopandas", "obstore", "shapely", "numcodecs"}
