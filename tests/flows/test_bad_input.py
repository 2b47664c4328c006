"""Whatever a user gets wrong ends in a sentence that says what was found, what was wanted and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from curate.errors import AoiError, CatalogError, CurateError, IncompleteError, LabelError, OutputError, RecipeError
from flows.console import PlainConsole
from flows.steps import build, make_request, preview
from simulate.write import World


@pytest.fixture
def copy(world: World, world_recipe: Path, tmp_path: Path) -> Path:
    """A copy of the world that a test may damage."""
    return Path(shutil.copytree(world.folder, tmp_path / "world"))


def _ask(folder: Path, *, aoi: str | None = None, change: tuple[str, str] = ("", ""), out: Path | None = None) -> None:
    recipe = folder / "asked.yaml"
    text = (folder / "recipe.yaml").read_text()
    assert change[0] in text
    recipe.write_text(text.replace(*change, 1))
    request = make_request(
        aoi=aoi or str(folder / "region.geojson"), recipe=str(recipe), out=str(out or folder / "out")
    )
    build(request, PlainConsole())


BOWTIE = "POLYGON ((18 48.29, 18.01 48.3, 18.01 48.29, 18 48.3, 18 48.29))"


@pytest.mark.parametrize(
    ("aoi", "sentence"),
    [
        ("POLYGON EMPTY", "empty"),
        (BOWTIE, "cross"),
        ("179.9,10,-179.9,10.1", "antimeridian"),
        ("POINT (18 48.3)", "olygon"),
        ("500000,5300000,510000,5310000", "degrees"),
        ("nowhere.geojson", "nowhere.geojson"),
        (" ", "none is given"),
        ("https://127.0.0.1:1/region.geojson", "download it"),
        ("-10,35,30,60", "about .* chips 640 m apart"),
        ("18.0,48.30,18.0001,48.3001", "no chip"),
    ],
)
def test_an_area_that_cannot_be_built_is_refused(copy: Path, aoi: str, sentence: str) -> None:
    with pytest.raises(AoiError, match=sentence):
        _ask(copy, aoi=aoi)
    assert not (copy / "out" / "chips.zarr").exists()


def test_an_area_outside_the_catalog_is_told_with_its_place(copy: Path) -> None:
    with pytest.raises(CatalogError, match=r"no scene of sentinel-2-l2a touches .*check the area"):
        _ask(copy, aoi="10.0,50.0,10.05,50.05")


def test_a_time_that_is_still_to_come_is_told_as_such(copy: Path) -> None:
    with pytest.raises(CatalogError, match="which lies in the future"):
        _ask(copy, change=("2021-04-01/2021-08-01", "2121-04-01/2121-08-01"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("bands: [red, nir, swir16]", "bands: [red, nir, swir99]"), "Did you mean 'swir22'"),
        (("collection: sentinel-2-l2a", "collection: sentinel-2-l2b"), "Did you mean 'sentinel-2-l2a'"),
        (("2021-04-01/2021-08-01", "2021-08-01/2021-04-01"), "earlier date first"),
        (("size_px: 64", "size_m: 645"), "645"),
        (("min_cover: 0.3", "min_cover: 3"), "min_cover"),
        (("block_km: 1.2", "block_km: 0.2"), "block_km"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_written(
    copy: Path, change: tuple[str, str], sentence: str
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        _ask(copy, change=change)
    assert not (copy / "out" / "chips.zarr").exists()


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (("catalog: catalog.json", "catalog: missing.json"), CatalogError, "missing.json"),
        (
            ("catalog: catalog.json", "catalog: sentinel-2-l2a"),
            CatalogError,
            "is a folder; give the catalog.json in it",
        ),
        (("vector: fields.geojson", "vector: missing.geojson"), LabelError, "missing.geojson"),
        (("attribute: label", "attribute: labl"), LabelError, "label"),
        (("year: 2021", "year: 2019"), CatalogError, "2019"),
    ],
)
def test_what_the_recipe_names_must_be_there(
    copy: Path, change: tuple[str, str], error: type[CurateError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        _ask(copy, change=change)


def test_an_item_without_projection_is_read_from_its_file(copy: Path, dataset: Path) -> None:
    def damage(item: dict) -> None:  # type: ignore[type-arg]
        for part in (item["properties"], *item["assets"].values()):
            _forget_projection(part)

    _edit_items(copy, damage)
    _ask(copy)
    assert (copy / "out" / "chips.zarr" / "s2" / "reflectance").exists()


def test_an_item_without_projection_whose_file_is_gone_is_named(copy: Path) -> None:
    def damage(item: dict) -> None:  # type: ignore[type-arg]
        for asset in item["assets"].values():
            _forget_projection(asset)
            asset["href"] = "./gone.tif"
        _forget_projection(item["properties"])

    _edit_items(copy, damage, only=1)
    with pytest.raises(CurateError, match=r"gone\.tif"):
        _ask(copy)


def _forget_projection(part: dict) -> None:  # type: ignore[type-arg]
    for name in [name for name in part if name.startswith("proj:")]:
        del part[name]


def _edit_items(folder: Path, edit: Callable[..., object], only: int | None = None) -> None:
    paths = sorted((folder / "sentinel-2-l2a").rglob("S2*.json"))
    assert paths
    for path in paths[:only]:
        item = json.loads(path.read_text())
        edit(item)
        path.write_text(json.dumps(item))


def _red(folder: Path) -> Path:
    return sorted((folder / "sentinel-2-l2a").rglob("B04.tif"))[0]


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _replace(path: Path) -> None:
    path.write_text("<html><body>Please log in</body></html>")


@pytest.mark.parametrize("damage", [_remove, _truncate, _replace], ids=["missing", "truncated", "not-a-tiff"])
def test_a_damaged_file_is_named_the_rest_is_kept_and_the_build_continues(
    copy: Path, damage: Callable[[Path], None]
) -> None:
    victim = _red(copy)
    whole = victim.read_bytes()
    damage(victim)
    with pytest.raises(IncompleteError) as caught:
        _ask(copy)
    assert victim.parent.name in str(caught.value), "the scene is named"
    assert "Run the same command again" in str(caught.value)
    assert not (copy / "out" / "chips.zarr" / "zarr.json").exists()

    victim.write_bytes(whole)
    _ask(copy)
    assert (copy / "out" / "chips.zarr" / "zarr.json").exists()


def test_a_damaged_file_may_be_left_out_and_is_recorded(copy: Path) -> None:
    import pandas as pd

    victim = _red(copy)
    victim.unlink()
    _ask(copy, change=("split:", "unreadable: skip\nsplit:"))
    table = pd.read_parquet(copy / "out" / "chips.parquet")
    used = {scene for scenes in table["s2_scenes"] for scene in scenes}
    assert victim.parent.name not in used
    assert used


def test_an_occupied_folder_is_not_touched(copy: Path) -> None:
    out = copy / "mine"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        _ask(copy, out=out)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_not_touched(copy: Path) -> None:
    out = copy / "file"
    out.write_text("x")
    with pytest.raises(OutputError, match="file"):
        _ask(copy, out=out)


def test_another_recipe_does_not_continue_or_overwrite_a_dataset(world: World, copy: Path, dataset: Path) -> None:
    with pytest.raises(OutputError, match="another recipe"):
        _ask(copy, change=("how: median", "how: first"), out=dataset)
    with pytest.raises(OutputError, match="another area"):
        _ask(copy, aoi="17.99,48.29,18.01,48.31", out=dataset)


def test_an_unwritable_folder_is_told_as_such(copy: Path) -> None:
    with pytest.raises(OutputError, match="cannot be"):
        _ask(copy, out=Path("/proc/nowhere"))


def test_a_plan_reads_no_pixel_and_writes_nothing(copy: Path) -> None:
    for source in ("sentinel-2-l2a", "sentinel-1-rtc", "cop-dem-glo-30"):
        for file in (copy / source).rglob("*.tif"):
            file.write_bytes(b"")
    request = make_request(aoi=str(copy / "region.geojson"), recipe=str(copy / "recipe.yaml"), out=str(copy / "out"))
    forecast = preview(request, PlainConsole())
    assert forecast.chips > 20
    assert forecast.sources["s2"].left_out, "the reprocessed twin is left out and told"
    assert not (copy / "out").exists()
