"""The how-to pages say what is so: every snippet is a recipe, is planned, and gives what the page says it gives.

Recipes for sources are planned over a catalog that is made of our tables (items as the row of their collection
says that they are), the others over the simulated world, where the pages say that they can be tried.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import rasterio
import shapely
import yaml
from affine import Affine
from rasterio.control import GroundControlPoint
from shapely.geometry.base import BaseGeometry

from catalog.collections import Collection, collection, collection_names, read_table
from catalog.describe import DescribeSpec
from catalog.lock import lock_bytes
from cube.times import TimeSpec
from flows.console import PlainConsole
from flows.dates import own_dates
from flows.plan import Plan, lay_area, make_plan, search
from flows.sampling import sampled
from labels.spec import KINDS
from recipes.read import parse_recipe
from recipes.recipe import Recipe, SourceSpec
from simulate.write import World
from tiling.aoi import read_aoi
from tiling.sample_spec import SampleStep
from tiling.split_rules import RULES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HOW_TO = DOCS / "howto"
FENCE = re.compile(r"^( *)```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
COMES_OUT = re.compile(r"`([a-z0-9_]+)/([a-z0-9_]+)`(?: ([a-z]+\d+))?(?:, void (NaN|-?\d+))?")


@dataclasses.dataclass(frozen=True)
class Section:
    """A how-to: its heading, its recipe, the files it shows, and what it says comes out."""

    page: str
    heading: str
    recipe: str
    files: dict[str, str]
    promised: tuple[tuple[str, str, str, str], ...]

    def __str__(self) -> str:
        return f"{self.page}: {self.heading}"


def sections(page: str) -> list[Section]:
    """The sections of a page that have a recipe."""
    found = []
    for part in re.split(r"^## ", (HOW_TO / f"{page}.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        blocks = FENCE.findall(text)
        recipes = [body for _, language, title, body in blocks if language == "yaml" and not title]
        files = {title: body for _, _, title, body in blocks if title}
        (promise,) = re.findall(r"^Comes out: (.*?)\n\n", text + "\n\n", re.DOTALL | re.MULTILINE) or [""]
        promised = tuple(COMES_OUT.findall(promise))
        found += [Section(page, heading, recipe, files, promised) for recipe in recipes]
    return found


def planned(recipe: Recipe, area: BaseGeometry) -> Plan:
    """What `curate plan` makes of a recipe."""
    console = PlainConsole()
    aoi = read_aoi(area.wkt)
    laid = sampled(recipe, lay_area(recipe, aoi), console)
    laid = dataclasses.replace(laid, dates=own_dates(recipe, laid, console))
    return make_plan(recipe, laid, lock_bytes(search(recipe, laid, console)))


def holds(plan: Plan, section: Section) -> None:
    """The store of a plan has the arrays that a section promises."""
    arrays = {variable.key: variable for group in plan.layout.groups for variable in plan.layout.of(group.name)}
    for group, name, dtype, void in section.promised:
        assert (group, name) in arrays, f"{section}: no {group}/{name} but {sorted(arrays)}"
        array = arrays[group, name]
        assert not dtype or array.dtype == dtype, f"{section}: {group}/{name} is {array.dtype}"
        assert not void or str(array.fill) == void, f"{section}: void of {group}/{name} is {array.fill}"


def an_item(name: str, table: Collection, time: str, box: shapely.Polygon) -> dict[str, Any]:
    """An item of a collection with the assets that the table says, and no more metadata than the poorest catalog."""
    keys = {band.keys[0] for band in table.bands.values()}
    asset = {"href": f"./{name}.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}
    grid = {"proj:shape": [20000, 20000], "proj:transform": [10, 0, 600000, 0, -10, 5450000]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"{name}_{time}",
        "collection": name,
        "bbox": list(box.bounds),
        "geometry": shapely.geometry.mapping(box),
        "links": [],
        "assets": {key: {**asset, **grid} for key in sorted(keys)},
        "properties": {
            "datetime": f"{time}T10:00:00Z",
            "platform": table.mission or "none",
            "proj:epsg": 32633,
            "s2:processing_baseline": "05.09",
            "s2:mgrs_tile": "33UYP",
            "sat:orbit_state": "descending" if time.endswith("15") else "ascending",
            "sat:relative_orbit": 22,
        },
    }


def a_catalog(folder: Path, recipe: Recipe, area: shapely.Polygon) -> Path:
    """A static catalog with two items of every collection that a recipe names, within its time."""
    path = folder / "catalog.json"
    month = recipe.time[:7]
    children = {}
    for source in recipe.sources.values():
        found = [an_item(source.collection, source.table, f"{month}-{day}", area.buffer(1)) for day in (15, 20)]
        children[source.collection] = found
    links = []
    for name, found in children.items():
        for item in found:
            (folder / f"{item['id']}.json").write_text(json.dumps(item))
        to_items = [{"rel": "item", "href": f"./{item['id']}.json"} for item in found]
        child = {"type": "Collection", "id": name, "stac_version": "1.1.0", "links": to_items}
        (folder / f"{name}.json").write_text(json.dumps(child))
        links.append({"rel": "child", "href": f"./{name}.json"})
    root = {"type": "Catalog", "id": "all", "stac_version": "1.1.0", "description": "", "links": links}
    path.write_text(json.dumps(root))
    return path


def write_files(folder: Path, source: SourceSpec, recipe: Recipe, area: shapely.Polygon) -> None:
    """The rasters of a described folder, named as its pattern wants."""
    assert source.describe is not None
    assert isinstance(source.catalog, str)
    pattern, day = source.describe.pattern or "", f"{recipe.time[:7].replace('-', '')}15"
    bands = source.describe.bands or {}
    named = "(?P<band>" in pattern
    for band in sorted(str(getattr(spec, "asset", spec)) for spec in bands.values()) if named else [""]:
        name = re.sub(r"\(\?P<time>.*?\)", day, re.sub(r"\(\?P<band>.*?\)", str(band), pattern)) or "one"
        path = folder / source.catalog / f"{name}.tif"
        path.parent.mkdir(exist_ok=True)
        west, south, east, north = area.buffer(0.1).bounds
        grid = Affine((east - west) / 16, 0, west, 0, (south - north) / 16, north)
        layers = 1 if named else len(bands)
        kind = source.describe.dtype or "float32"
        options: dict[str, Any] = {"dtype": kind, "crs": "EPSG:4326", "transform": grid, "count": layers}
        with rasterio.open(path, "w", driver="GTiff", width=16, height=16, **options) as file:
            file.write(np.ones((layers, 16, 16), kind))


def write_radar(path: Path, area: shapely.Polygon) -> None:
    """A file of ground control points, as Sentinel-1 GRD has them."""
    west, south, east, north = area.buffer(0.2).bounds
    at = [(row, column) for row in range(0, 17, 4) for column in range(0, 17, 4)]
    gcps = [
        GroundControlPoint(row, column, west + (east - west) * column / 16, north - (north - south) * row / 16)
        for row, column in at
    ]
    options: dict[str, Any] = {"dtype": "uint16", "gcps": gcps, "crs": "EPSG:4326", "count": 1}
    with rasterio.open(path, "w", driver="GTiff", width=16, height=16, **options) as file:
        file.write(np.ones((1, 16, 16), "uint16"))


@pytest.mark.parametrize("section", sections("sources"), ids=str)
def test_every_source_of_the_pages_is_planned_and_gives_what_they_say(section: Section, tmp_path: Path) -> None:
    recipe = parse_recipe(section.recipe)
    side_deg = 2.5 * recipe.widest_m / 111_195
    area = shapely.Point(18.0, 48.3).buffer(side_deg / 2, cap_style="square")
    a_catalog(tmp_path, recipe, area)
    for source in recipe.sources.values():
        if source.table.georeference == "gcps":
            write_radar(tmp_path / f"{source.collection}.tif", area)
        if isinstance(source.catalog, str) and source.catalog.endswith("/"):
            write_files(tmp_path, source, recipe, area)
    plan = planned(recipe.model_copy(update={"catalog": "catalog.json"}).located(tmp_path), area)
    assert section.promised
    holds(plan, section)


def tried(section: Section, world: World, key: str, name: str) -> Plan:
    """The plan of a section's snippet under the recipe at the head of its page, over the simulated world."""
    page = (HOW_TO / f"{section.page}.md").read_text(encoding="utf-8")
    (head,) = re.findall(rf'```yaml title="{section.page}.yaml"\n(.*?)```', page, re.DOTALL)
    for file, text in section.files.items():
        (world.folder / file).write_text(text)
    assert key in yaml.safe_load(section.recipe)
    recipe = parse_recipe(head + section.recipe, name=name).located(world.folder)
    return planned(recipe, shapely.from_geojson(json.dumps(json.loads(world.region.read_text())["features"][0])))


@pytest.mark.parametrize("section", sections("labels"), ids=str)
def test_every_label_of_the_pages_is_planned_and_gives_what_they_say(section: Section, world: World) -> None:
    assert section.promised
    holds(tried(section, world, "labels", "labels"), section)


@pytest.mark.parametrize("section", sections("splits"), ids=str)
def test_every_split_of_the_pages_is_planned(section: Section, world: World) -> None:
    plan = tried(section, world, "split", "splits")
    rule = plan.recipe.split.rule
    assert f"`{rule}`" in section.heading
    # Rings and tiles are larger than this world; what looks at a label is drawn when a build begins.
    if rule not in ("rings", "balanced"):
        assert len({"train", "val", "test"} & set(plan.split)) > 1


@pytest.mark.parametrize("section", sections("sampling"), ids=str)
def test_every_sampler_of_the_pages_is_planned(section: Section, world: World) -> None:
    plan = tried(section, world, "sample", "sampling")
    laid = len(lay_area(plan.recipe, plan.aoi).chips)
    assert plan.chips
    assert (len(plan.chips) < laid) != (plan.recipe.sample_steps[0].method == "all")


@pytest.mark.parametrize("section", sections("times"), ids=str)
def test_every_time_of_the_pages_is_planned_and_gives_what_they_say(section: Section, world: World) -> None:
    for number, name in enumerate(("greenup", "maturity", "senescence", "dormancy")):
        days = np.full((1, 4, 4), 18_000 + 400 + 60 * number, "int16")
        with rasterio.open(
            world.folder / f"{name}.tif", "w", driver="GTiff", width=4, height=4, count=1, dtype="int16",
            crs="EPSG:4326", transform=Affine(0.5, 0, 17, 0, -0.5, 49),
        ) as file:  # fmt: skip
            file.write(days)
    snippet = "".join(f"    {line}\n" for line in section.recipe.splitlines())
    assert section.promised
    plan = tried(dataclasses.replace(section, recipe=snippet), world, "time", "times")
    holds(plan, section)


def headings(page: str) -> str:
    """All headings of a page that begin a how-to."""
    return "\n".join(re.findall(r"^## .*$", (HOW_TO / f"{page}.md").read_text(encoding="utf-8"), re.MULTILINE))


def missing(names: tuple[str, ...], where: str) -> list[str]:
    """Those of the names that stand nowhere as code."""
    return [name for name in names if f"`{name}`" not in where]


def test_every_collection_has_a_how_to() -> None:
    maps = [name for name in collection_names() if collection(name).kind == "classes"]
    images = [name for name in collection_names() if name not in maps]
    assert not missing(tuple(images), headings("sources"))
    rows = re.findall(r"^\| `.*$", (HOW_TO / "labels.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert not missing(tuple(maps), "\n".join(rows))
    # Classes are labels.
    kinds = [f"describe: {kind}" for kind in get_args(DescribeSpec.__annotations__["kind"]) if kind != "classes"]
    assert not missing(tuple(kinds), headings("sources"))


def test_every_catalog_is_told_of_where_it_has_something() -> None:
    page = (HOW_TO / "sources.md").read_text(encoding="utf-8").replace("`catalog: ", "`")
    named = [name for name in read_table("endpoints.toml")["endpoints"] if name != "planetary-computer"]
    told = re.findall(r"^catalog: (\S+)$", page, re.MULTILINE)
    assert not missing(tuple(set(named) - set(told)), page)
    assert "Planetary Computer, the default" in page


def test_every_kind_of_label_has_a_how_to() -> None:
    assert not missing(tuple(KINDS), headings("labels"))


def test_every_rule_for_splits_has_a_how_to() -> None:
    assert not missing(tuple(RULES), headings("splits"))


def test_every_sampler_has_a_how_to() -> None:
    methods = [get_args(get_type_hints(spec)["method"])[0] for spec in get_args(SampleStep)]
    assert not missing(tuple(methods), headings("sampling"))


def test_every_way_to_choose_dates_has_a_how_to() -> None:
    ways = re.findall(r"``(\w+)``", (TimeSpec.__doc__ or "").split("exactly one of")[1])
    assert len(ways) == 6
    assert not missing((*ways, "dates"), headings("times"))


def test_every_how_to_has_a_recipe_or_points_to_one() -> None:
    for page in sorted(HOW_TO.glob("*.md")):
        for part in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            assert "```yaml" in part or "](" in part, f"{page.name}: {part.splitlines()[0]}"


# What the labels of a snippet may be made from, where the page has them elsewhere.
OTHERS = {
    **{key: {"product": "esa-worldcover"} for key in ("worldcover", "esri", "corine", "lc2018", "lc2023", "severity")},
    "consensus": {"agree": ["worldcover", "esri"]},
    "parcels": {"vector": "parcels.gpkg", "targets": ["instances"]},
    "fields": {"vector": "fields.gpkg"},
    "crop": {"vector": "fields.gpkg"},
    "ndvi_max": {"measure": "ndvi.tif"},
    "height": {"measure": "height.tif"},
}
SMALL = {"time": "2018-04-01/2022-10-01", "sources": {"s2": {"collection": "sentinel-2-l2a"}}}


def snippets() -> list[tuple[str, str]]:
    """Every YAML of the documents: (where, text). A block that gives a key twice shows that many alternatives."""
    found = []
    tried_above = {HOW_TO / f"{name}.md" for name in ("labels", "splits", "sampling", "times")}
    for page in sorted({ROOT / "README.md", *DOCS.rglob("*.md")} - tried_above):
        for number, (indent, language, _, body) in enumerate(FENCE.findall(page.read_text(encoding="utf-8"))):
            if language != "yaml":
                continue
            lines = [line.removeprefix(indent) for line in body.splitlines(keepends=True)]
            margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
            texts = [""]
            for line in (line[margin:] for line in lines):
                key = re.match(r"(\w+):", line)
                if key and re.search(rf"^{key[1]}:", texts[-1], re.MULTILINE):
                    texts.append("")
                texts[-1] += line
            found += [(f"{page.relative_to(ROOT)}, block {number + 1}", text) for text in texts]
    return found


def as_recipe(text: str) -> str:
    """A snippet as a whole recipe: keys of a recipe, of one source, or sources by their names."""
    given = yaml.safe_load(text)
    if {"time", "sources"} <= given.keys():
        return text
    one = set(SourceSpec.model_fields)
    # `time: {…}` is the time axis of a source, `time: 2018-01-01/…` the recipe's own.
    inside = {key for key in given if key in one and not (key == "time" and isinstance(given[key], str))}
    if inside == set(given):
        source = {"collection": "sentinel-2-l2a", **given}
        return yaml.safe_dump({**SMALL, "sources": {"s2": source}}, sort_keys=False)
    if not set(given) & set(Recipe.model_fields):
        return yaml.safe_dump({**SMALL, "sources": given}, sort_keys=False)
    labels = {**OTHERS, **given.get("labels", {})}
    return yaml.safe_dump({**SMALL, **given, "labels": labels}, sort_keys=False)


@pytest.mark.parametrize(("where", "text"), [pytest.param(*one, id=one[0]) for one in snippets()])
def test_every_snippet_of_the_documents_is_a_recipe_or_a_part_of_one(where: str, text: str) -> None:
    if {"classes", "rules"} <= yaml.safe_load(text).keys():
        return
    parse_recipe(as_recipe(text), name=where)
