"""Files that samplers, splits and grids name may lie in object storage, as the area and labels may."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chips.storage import open_storage
from curate.errors import CurateError, RecipeError
from flows.console import PlainConsole
from flows.inputs import files
from flows.plan import lay_area
from flows.steps import make_request, preview
from recipes.read import read_recipe
from simulate.write import World
from tiling.aoi import read_aoi
from tiling.layers import raster_points
from tiling.sample_spec import AllCells

RECIPE = """\
name: elsewhere
time: 2021-04-01/2021-08-01
catalog: CATALOG
grid: {resolution_m: 10, size_px: 64, min_cover: 0.3}
sources:
  s2: {collection: sentinel-2-l2a, bands: [red], time: {composite: monthly, how: median}}
sample: {method: positives, vector: fields.geojson}
split: {rule: regions, polygons: regions.geojson, attribute: name, test: [east], buffer_km: 0}
"""


def write_inputs(world: World, put: object, *, broken: bool = False) -> None:
    assert callable(put)
    import shapely

    west, south, east, north = shapely.from_geojson(world.region.read_text()).bounds
    middle = (west + east) / 2
    halves = {"west": (west - 1, south - 1, middle, north + 1), "east": (middle, south - 1, east + 1, north + 1)}
    features = ",".join(
        f'{{"type":"Feature","properties":{{"name":"{name}"}},"geometry":{shapely.to_geojson(shapely.box(*box))}}}'
        for name, box in halves.items()
    )
    text = f'{{"type":"FeatureCollection","features":[{features}]}}'
    put("regions.geojson", (text[:-9] if broken else text).encode())
    put("fields.geojson", (world.folder / "fields.geojson").read_bytes())
    put("recipe.yaml", RECIPE.replace("CATALOG", str(world.folder / "catalog.json")).encode())


def test_a_plan_is_the_same_from_files_in_object_storage(bucket: str, world: World, tmp_path: Path) -> None:
    write_inputs(world, open_storage(f"{bucket}/in").put)
    write_inputs(world, lambda name, data: (tmp_path / name).write_bytes(data))
    plans = [
        preview(make_request(aoi=str(world.region), recipe=f"{base}/recipe.yaml", out="x"), PlainConsole()).as_dict()
        for base in (f"{bucket}/in", str(tmp_path))
    ]
    assert plans[0]["splits"] == plans[1]["splits"]
    assert plans[0]["chips"] == plans[1]["chips"]
    assert set(plans[0]["splits"]) >= {"train", "test"}


def test_rasters_of_samplers_are_read_where_they_lie(bucket: str, world: World, tmp_path: Path) -> None:
    write_inputs(world, lambda name, data: (tmp_path / name).write_bytes(data))
    recipe = read_recipe(tmp_path / "recipe.yaml").model_copy(update={"sample": AllCells()})
    chips = lay_area(recipe, read_aoi(world.region)).chips
    tiles = sorted(world.folder.rglob("map.tif"))
    store = open_storage(bucket)
    for number, tile in enumerate(tiles):
        store.put(f"{number}.tif", tile.read_bytes())
    wanted = raster_points(chips, [str(tile) for tile in tiles])
    found = raster_points(chips, [f"{bucket}/{number}.tif" for number in range(len(tiles))])
    assert wanted[1].any()
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])


def test_a_broken_file_is_named_by_its_address(bucket: str, world: World) -> None:
    write_inputs(world, open_storage(bucket).put, broken=True)
    with pytest.raises(CurateError) as caught:
        preview(make_request(aoi=str(world.region), recipe=f"{bucket}/recipe.yaml", out="x"), PlainConsole())
    assert f"{bucket}/regions.geojson" in str(caught.value)
    assert "/curate-" not in str(caught.value), "no temporary path"


def test_files_are_gone_afterwards_and_paths_stay_paths(bucket: str, world: World, tmp_path: Path) -> None:
    write_inputs(world, open_storage(bucket).put)
    with files(read_recipe(f"{bucket}/recipe.yaml")) as file:
        path = Path(file("fields.geojson"))
        assert path.name == "fields.geojson"
        assert path.read_bytes() == (world.folder / "fields.geojson").read_bytes()
        assert file(str(tmp_path / "x")) == str(tmp_path / "x")
        assert file(f"file://{tmp_path}/x%20y") == f"{tmp_path}/x y"
        assert file("https://example.org/x.gpkg") == "https://example.org/x.gpkg"
        with pytest.raises(RecipeError, match=r"nothing\.geojson cannot be read: there is no such object"):
            file("nothing.geojson")
    assert not path.exists()
