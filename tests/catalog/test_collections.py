"""The tables of collections and endpoints."""

from __future__ import annotations

import subprocess
import sys

import pytest

from catalog.collections import canonical_band, collection, collection_names
from catalog.endpoints import endpoint_at, endpoint_named, endpoints
from curate.errors import CatalogError


def test_every_collection_is_whole() -> None:
    for name in collection_names():
        table = collection(name)
        assert table.id == name
        assert table.default_bands
        assert set(table.default_bands) <= set(table.bands)
        assert table.quality is None or table.bands[table.quality].kind == "quality"
        assert (table.quality is None) == (table.quality_table is None)
        assert table.source.startswith("https://")
        for band in table.bands.values():
            assert band.keys
            assert band.dtype in ("uint8", "int16", "uint16", "float32")
            assert band.gsd_m > 0
            assert band.scale > 0


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("sentinel-2-l2a", "reflectance"),
        ("naip", "brightness"),
        ("modis-13Q1-061", "spectral_index"),
        ("sentinel-1-rtc", "backscatter"),
        ("cop-dem-glo-30", "elevation"),
    ],
)
def test_the_variable_is_called_what_its_bands_measure(name: str, variable: str) -> None:
    table = collection(name)
    assert table.variable(table.default_bands) == variable


def test_bands_of_one_collection_may_measure_different_things_but_not_in_one_variable() -> None:
    modis, landsat = collection("modis-13Q1-061"), collection("landsat-c2-l2")
    assert modis.variable(["red", "nir08"]) == "reflectance"
    assert landsat.variable(["lwir11"]) == "temperature"
    with pytest.raises(CatalogError, match=r"'red' \(reflectance\) and 'lwir11' \(temperature\).*two sources"):
        landsat.variable(["red", "lwir11"])
    for name in collection_names():
        table = collection(name)
        assert table.variable(table.default_bands)


def test_no_name_of_a_band_means_two_bands() -> None:
    for name in collection_names():
        seen: dict[str, str] = {}
        for band in collection(name).bands.values():
            # The layers of one file share its key.
            keys = [key if band.layer == 1 else f"{key}/{band.layer}" for key in band.keys]
            for alias in (band.name, *band.aliases, *keys):
                assert seen.setdefault(alias.casefold(), band.name) == band.name


@pytest.mark.parametrize(
    ("asked", "name"),
    [("B8A", "nir08"), ("b8a", "nir08"), ("rededge1", "rededge071"), ("B04", "red"), ("nir", "nir"), ("SCL", "scl")],
)
def test_a_band_goes_by_its_name_in_any_archive(asked: str, name: str) -> None:
    assert canonical_band("sentinel-2-l2a", asked) == name
    assert canonical_band(collection("sentinel-2-c1-l2a"), asked) == name


def test_an_unknown_band_names_the_nearest_and_all() -> None:
    with pytest.raises(
        CatalogError, match=r"band 'swir1' is not in sentinel-2-l2a. Did you mean 'swir16'\?.*blue.*scl"
    ):
        canonical_band("sentinel-2-l2a", "swir1")


def test_an_unknown_collection_names_the_nearest_and_all() -> None:
    with pytest.raises(CatalogError, match=r"'sentinel2-l2a' is not known. Did you mean 'sentinel-2-l2a'\?.*cop-dem"):
        collection("sentinel2-l2a")


def test_an_endpoint_is_found_by_name_alias_and_address() -> None:
    assert endpoint_named("pc") == endpoint_named("Planetary-Computer") == endpoints()["planetary-computer"]
    assert endpoint_named("elsewhere") is None
    assert endpoint_at("https://earth-search.aws.element84.com/v1/collections/x") == endpoints()["earth-search"]
    assert endpoint_at("https://earth-search.aws.element84.com/v10") is None


def test_the_tables_import_nothing_heavy() -> None:
    heavy = "{'numpy', 'shapely', 'pystac', 'pystac_client', 'rasterio', 'pyarrow', 'requests', 'pydantic'}"
    code = (
        "import sys, catalog.collections, catalog.endpoints, catalog.request\n"
        f"print(*sorted({heavy} & set(sys.modules)), end='')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
