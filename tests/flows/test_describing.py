"""Card, attribution, STAC collection and Croissant of a dataset, held against their own schemas and readers."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

from chips.manifest import Manifest
from curate.errors import RecipeError
from flows.console import PlainConsole
from flows.steps import build, make_request, preview
from simulate.write import World

SCHEMAS = Path(__file__).parents[1] / "publish" / "schemas"
STAC = "https://schemas.stacspec.org/v1.1.0/"
WRITTEN = ("ATTRIBUTION.txt", "README.md", "collection.json", "croissant.json")


@pytest.fixture(scope="session")
def collection(dataset: Path) -> dict[str, Any]:
    return dict(json.loads((dataset / "collection.json").read_text()))


@pytest.fixture(scope="session")
def croissant(dataset: Path) -> dict[str, Any]:
    return dict(json.loads((dataset / "croissant.json").read_text()))


def test_card_and_catalogs_are_part_of_what_the_manifest_promises(dataset: Path) -> None:
    promised = Manifest.from_bytes((dataset / "manifest.json").read_bytes()).objects()
    for name in WRITTEN:
        assert promised[name].sha256 == hashlib.sha256((dataset / name).read_bytes()).hexdigest()


def test_a_dataset_built_twice_says_the_same(dataset: Path, world: World, world_recipe: Path, tmp_path: Path) -> None:
    build(make_request(aoi=str(world.region), recipe=str(world_recipe), out=str(tmp_path / "again")), PlainConsole())
    for name in WRITTEN:
        assert (tmp_path / "again" / name).read_bytes() == (dataset / name).read_bytes()


def _stored_schemas() -> Registry[Any]:
    """Extensions as stored beside the tests, the core as pystac brings it; geometry of others is not looked into."""
    import pystac

    registry: Registry[Any] = Registry()
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        registry = registry.with_resource(schema["$id"].rstrip("#"), Resource.from_contents(schema))
    core = Path(pystac.__file__).parent / "validation" / "jsonschemas"
    folders = {"collection.json": "collection-spec/json-schema", "catalog.json": "catalog-spec/json-schema"}
    for path in (core / "stac-spec" / "v1.1.0").glob("*.json"):
        folder = folders.get(path.name, "item-spec/json-schema")
        registry = registry.with_resource(
            f"{STAC}{folder}/{path.name}", Resource.from_contents(json.loads(path.read_text()))
        )
    anything = Resource.from_contents({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"})
    for elsewhere in (
        "https://proj.org/schemas/v0.7/projjson.schema.json",
        "https://geojson.org/schema/Geometry.json",
        "https://geojson.org/schema/Feature.json",
    ):
        registry = registry.with_resource(elsewhere, anything)
    return registry


def _stac_errors(document: dict[str, Any]) -> list[str]:
    registry = _stored_schemas()
    found = []
    for url in (f"{STAC}collection-spec/json-schema/collection.json", *document["stac_extensions"]):
        schema = registry.contents(url)
        validator = jsonschema.validators.validator_for(schema)(schema, registry=registry)
        found += [f"{url}: {error.message}" for error in validator.iter_errors(document)]
        # Of collections the table extension wants that anything is right; so its fields are looked at one by one.
        if url.startswith("https://stac-extensions.github.io/table/"):
            fields = type(validator)({"$ref": f"{url}#/definitions/fields"}, registry=registry)
            found += [f"{url}: {e.message}" for asset in document["assets"].values() for e in fields.iter_errors(asset)]
    return found


def test_the_collection_is_valid_by_the_schemas_of_stac_and_its_extensions(collection: dict[str, Any]) -> None:
    assert len(collection["stac_extensions"]) == 6
    assert _stac_errors(collection) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"license": 7},
        {"extent": {}},
        {"cube:dimensions": {"chip": {"type": "spatial"}}},
        {"assets": {"a": {"href": "./a", "file:checksum": "xyz"}}},
        {"assets": {"a": {"href": "./a", "label:type": "pixels"}}},
        {"assets": {"a": {"href": "./a", "classification:classes": [{"value": "one", "name": "a"}]}}},
        {"assets": {"a": {"href": "./a", "table:columns": [{}]}}},
    ],
    ids=lambda wrong: json.dumps(wrong)[:50],
)
def test_a_collection_that_is_wrong_is_not_valid(collection: dict[str, Any], wrong: dict[str, Any]) -> None:
    assert _stac_errors({**collection, **wrong}) != []


def test_pystac_opens_the_collection_and_finds_every_file(dataset: Path) -> None:
    import pystac

    opened = pystac.Collection.from_file(str(dataset / "collection.json"))
    assert opened.id == "small-world"
    for asset in opened.assets.values():
        assert (dataset / asset.href).exists(), asset.href
        if "file:checksum" in asset.extra_fields:
            digest = hashlib.sha256((dataset / asset.href).read_bytes()).hexdigest()
            assert asset.extra_fields["file:checksum"] == f"1220{digest}"
    west, south, east, north = opened.extent.spatial.bboxes[0]
    region = json.loads((dataset / "region.geojson").read_text())["features"][0]["geometry"]["coordinates"]
    lon, lat = zip(*re.findall(r"\[(-?[\d.]+), (-?[\d.]+)\]", json.dumps(region)), strict=True)
    assert west <= min(map(float, lon)) + 0.01
    assert east >= max(map(float, lon)) - 0.01
    assert south <= min(map(float, lat)) + 0.01
    assert north >= max(map(float, lat)) - 0.01


def test_the_collection_describes_the_arrays_that_zarr_finds(dataset: Path, collection: dict[str, Any]) -> None:
    import zarr

    store = zarr.open_group(dataset / "chips.zarr", mode="r")
    for path, variable in collection["cube:variables"].items():
        array = store[path]
        assert isinstance(array, zarr.Array)
        assert len(variable["dimensions"]) == array.ndim
        assert variable["data_type"] == str(array.dtype)
        for name, length in zip(variable["dimensions"], array.shape, strict=True):
            dimension = collection["cube:dimensions"][name]
            assert "values" not in dimension or len(dimension["values"]) == length


# rdflib, through which mlcroissant reads JSON-LD, warns of a class of its own.
@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")
def test_mlcroissant_finds_nothing_wrong_and_reads_the_records(dataset: Path) -> None:
    import geopandas

    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")

    opened = mlcroissant.Dataset(jsonld=str(dataset / "croissant.json"))
    assert opened.metadata.ctx.issues.errors == set()
    index = geopandas.read_parquet(dataset / "chips.parquet")
    read = list(opened.records("chips"))
    assert [record["chips/chip"].decode() for record in read] == index["chip"].tolist()
    assert [record["chips/s2_clear"] for record in read] == pytest.approx(index["s2_clear"].tolist())
    assert {record["splits/name"] for record in opened.records("splits")} == {"train", "val", "test", "buffer"}


def test_croissant_names_the_place_the_bands_and_the_arrays(dataset: Path, croissant: dict[str, Any]) -> None:
    import zarr

    south, west, north, east = map(float, croissant["spatialCoverage"]["geo"]["box"].split())
    assert 47 < south < north < 50
    assert 17 < west < east < 19
    bands = croissant["geocr:bandConfiguration"]
    assert bands["geocr:bandNamesList"] == ["s2/red", "s2/nir", "s2/swir16", "s1/vv", "s1/vh"]
    assert croissant["geocr:spectralBandMetadata"][0]["geocr:centerWavelength"]["value"] == 665
    store = zarr.open_group(dataset / "chips.zarr", mode="r")
    (arrays,) = (found["data"] for found in croissant["recordSet"] if found["@id"] == "arrays")
    for record in arrays:
        array = store[record["arrays/path"]]
        assert isinstance(array, zarr.Array)
        assert record["arrays/shape"] == " ".join(map(str, array.shape))
        assert record["arrays/dtype"] == str(array.dtype)


def test_the_card_has_the_front_matter_of_hugging_face_and_counts_what_is_there(dataset: Path) -> None:
    import geopandas

    front, body = (dataset / "README.md").read_text().removeprefix("---\n").split("---\n", 1)
    told = yaml.safe_load(front)
    assert told["license"] == "other"  # Sentinel, Copernicus DEM, CC-BY and a file of nobody knows whom
    assert told["license_name"] == "mixed"
    assert (dataset / told["license_link"]).exists()
    assert told["size_categories"] == ["n<1K"]
    index = geopandas.read_parquet(dataset / "chips.parquet")
    for split, count in index["split"].value_counts().items():
        assert f"| {split} | {count} |" in body
    table = index[index.split == "train"]
    trees = sum(dict(shares).get(10, 0.0) for shares in table["worldcover_shares"]) / table["worldcover_labelled"].sum()
    assert re.search(rf"\| 10 \| Tree cover \| {trees:.1%} \|", body)


def test_the_attribution_says_what_the_terms_want_with_the_years_that_were_used(dataset: Path) -> None:
    text = (dataset / "ATTRIBUTION.txt").read_text()
    assert "Contains modified Copernicus Sentinel data 2021\n" in text
    assert "© ESA WorldCover project" in text
    assert "DLR e.V." in text
    assert "fields.geojson" in text
    assert "fields may be used; ask" in text  # nobody said the terms of the user's own file


def _with(world: World, recipe: Path, licence: str, tmp_path: Path) -> Any:
    shutil.copytree(world.folder, tmp_path / "world", dirs_exist_ok=True)
    path = tmp_path / "world" / "licensed.yaml"
    path.write_text(recipe.read_text() + licence)
    return make_request(aoi=str(world.region), recipe=str(path), out=str(tmp_path / "refused"))


def test_terms_that_the_recipe_refuses_stop_the_build_before_a_pixel_is_read(
    world: World, world_recipe: Path, tmp_path: Path
) -> None:
    request = _with(world, world_recipe, "licence: {unknown: refuse}\n", tmp_path)
    for start in (build, preview):
        with pytest.raises(RecipeError, match=r"label fields .*has no stated licence"):
            start(request, PlainConsole())
    assert not (tmp_path / "refused").exists()


def test_terms_that_the_recipe_tells_are_believed_and_warned_about(
    world: World, world_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    licence = "licence: {unknown: refuse, of: {fields: {licence: ODbL-1.0}}}\n"
    preview(_with(world, world_recipe, licence, tmp_path), PlainConsole())
    assert (
        "label fields (fields.geojson) wants what is derived from it under the same ODbL-1.0" in capsys.readouterr().err
    )
