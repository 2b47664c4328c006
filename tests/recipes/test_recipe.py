"""A recipe says what is asked; what is wrong with it is said all at once, in sentences with line numbers."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import RecipeError
from recipes.read import default_recipe, dump_recipe, parse_recipe, read_recipe
from recipes.recipe import Recipe, schema

ROOT = Path(__file__).parents[2]

SMALL = """\
time: 2018-04-01/2018-10-01
sources:
  s2:
    collection: sentinel-2-l2a
    bands: [red, nir]
"""


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text)
    return caught.value.problems


def test_the_smallest_recipe_has_careful_defaults() -> None:
    recipe = parse_recipe(SMALL)
    source = recipe.sources["s2"]
    assert source.mask.hide == ("void", "saturated", "shadow", "cloud", "cirrus")
    assert (source.time.composite, source.apply_mask, recipe.grid.side_px) == ("monthly", False, 256)
    assert recipe.unreadable == "fail"


def test_bands_may_be_named_as_any_endpoint_names_them() -> None:
    recipe = parse_recipe(SMALL.replace("[red, nir]", "[B04, rededge1, B8A]"))
    assert recipe.sources["s2"].band_names == ("red", "rededge071", "nir08")


def test_an_unknown_key_is_refused_with_the_nearest_right_one_and_its_line() -> None:
    (problem,) = problems(SMALL + "    serch: {max_cloud_pct: 20}\n")
    assert problem == "line 6: unknown key 'serch' in sources.s2; did you mean 'search'?"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("    mask: {dilate: 20}\n", "'dilate_m'"),
        ("    time: {composit: monthly}\n", "'composite'"),
        ("    keep: {min_clr: 0.5}\n", "'min_clear'"),
        ("grid: {size: 3}\n", "'size_"),
        ("split: {buffer: 3}\n", "'buffer_km'"),
        ("store: {shard_chip: 3}\n", "'shard_chips'"),
        ("labels: {a: {vectr: x.gpkg}}\n", "'vector'"),
        ("labels: {a: {vector: x.gpkg, atribute: b}}\n", "'attribute'"),
        ("sample: {method: uniform, ever_km: 5}\n", "'every_km'"),
        ("sample: [{method: uniform, n: 5}, {method: strata, raster: a.tif, eech: 3}]\n", "'each'"),
        ("sample: {metod: uniform, n: 5}\n", "'method'"),
        ("sample: {method: unifrm, n: 5}\n", "'uniform'"),
        ("split: {rule: fold}\n", "'folds'"),
        ("split: {rule: folds, tst: [1]}\n", "'test'"),
    ],
)
def test_every_clause_knows_its_nearest_key(wrong: str, right: str) -> None:
    assert any(f"did you mean {right}" in problem for problem in problems(SMALL + wrong))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            "sample: {method: cities, points: a.csv, n: 3, evry_km: 4}\n",
            "unknown key 'evry_km' in sample; 'every_km' belongs to uniform, and this is cities, which has apart_km, "
            "largest, method, n, name, points, seed, sigma_km, weight",
        ),
        (
            "sample: {method: distinct, zzz: 4, raster: a.tif}\n",
            "wanted one of method, raster, seed, tolerance, within_km",
        ),
        ("sample: {method: cities, points: a.csv}\n", "key 'n' is missing in sample; add it"),
        ("sample: {n: 4}\n", "key 'method' is missing in sample; wanted one of all, uniform, cities,"),
        ("sample: uniform\n", "sample is 'uniform'; wanted {method: uniform}"),
        ("sample:\n  - {method: uniform, n: 5}\n  - 3\n", "line 6: sample.1 is 3; wanted {method: …} with one of all,"),
        ("split: folds\n", "split is 'folds'; wanted {rule: folds}"),
        ("split: {rule: longitude, blok_km: 3}\n", "'block_km' belongs to blocks, folds, years, balanced, and this is"),
        ("labels: {a: x.tif}\n", "labels.a is 'x.tif'; wanted keys below it, one of them vector, raster,"),
        ("labels: [a]\n", "labels is ['a']; wanted names below it, each with its keys"),
        ("grid: utm\n", "grid is 'utm'; wanted keys below it: fit, id_column,"),
    ],
)
def test_what_is_told_apart_by_a_key_is_advised_by_the_keys_of_what_was_meant(wrong: str, sentence: str) -> None:
    (problem,) = problems(SMALL + wrong)
    assert sentence in problem


def test_all_problems_are_reported_at_once() -> None:
    text = """\
time: 2018-10-01/2018-04-01
grid: {size_m: 1000, resolution_m: 30}
sources:
  s2: {collection: sentinel-2-l2b}
  s1: {collection: sentinel-1-rtc, bands: [vx]}
  dem: {colection: cop-dem-glo-30}
split: {shares: {train: 0.9, test: 0.3}}
"""
    found = "\n".join(problems(text))
    for sentence in (
        "holds no time",
        "1000",
        "collection 'sentinel-2-l2b' is not known. Did you mean 'sentinel-2-l2a'?",
        "band 'vx' is not in sentinel-1-rtc",
        "unknown key 'colection' in sources.dem; did you mean 'collection'?",
        "key 'collection' is missing in sources.dem",
        "line 7",
    ):
        assert sentence in found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("time: [", "not valid YAML"),
        ("", "holds no keys"),
        ("- a\n", "holds no keys"),
        (SMALL + "time: 2018-04-01/2018-05-01\n", "line 6: key 'time' stands twice"),
        (SMALL.replace("[red, nir]", "[red, B04]"), "name a band twice"),
        (SMALL + "    orbit: ascending\n", "'orbit' is for SAR"),
        (SMALL + "    time: {series: true, composite: monthly}\n", "exactly one of"),
        (SMALL + "    time: {composite: weekly}\n", "'monthly'"),
        (SMALL.replace("s2:", "label:"), "cannot be a name in the store"),
        (SMALL.replace("sentinel-2-l2a", "esa-worldcover").replace("[red, nir]", "[map]"), "under 'labels'"),
        (SMALL + "store: {shard_chips: 0}\n", "shard_chips is 0"),
        ("time: 2018-04-01/2018-10-01\nsources: {}\n", "sources"),
        ("time: 2018-04-01\nsources: {s2: {collection: sentinel-2-l2a}}\n", "two dates with a slash"),
    ],
)
def test_what_is_wrong_is_said(text: str, sentence: str) -> None:
    assert any(sentence in problem for problem in problems(text))


def test_a_missing_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="curate init"):
        read_recipe(tmp_path / "none.yaml")


def test_a_recipe_survives_being_written_out_and_read_again() -> None:
    recipe = parse_recipe((ROOT / "recipes" / "demo.yaml").read_text())
    again = parse_recipe(dump_recipe(recipe))
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint


def test_the_fingerprint_ignores_order_and_spelling_but_no_choice() -> None:
    here = parse_recipe(SMALL)
    turned = parse_recipe(
        "sources: {s2: {bands: [red, nir], collection: sentinel-2-l2a}}\ntime: 2018-04-01/2018-10-01\n"
    )
    assert here.fingerprint == turned.fingerprint
    assert here.fingerprint != parse_recipe(SMALL + "    apply_mask: true\n").fingerprint


@given(st.permutations(["void", "cloud", "shadow", "snow"]))
def test_an_equal_recipe_has_an_equal_fingerprint(hide: list[str]) -> None:
    text = SMALL + f"    mask: {{hide: [{', '.join(hide)}]}}\n"
    assert parse_recipe(text).fingerprint == parse_recipe(text).fingerprint


@pytest.mark.parametrize("name", ["recipes/default.yaml", "recipes/demo.yaml", "recipes/template.yaml"])
def test_shipped_recipes_are_right_by_parser_and_by_schema(name: str) -> None:
    text = (ROOT / name).read_text()
    assert isinstance(parse_recipe(text), Recipe)
    jsonschema.validate(yaml.load(text, Loader=yaml.BaseLoader) and _plain(text), schema())


def _plain(text: str) -> object:
    """The document as an editor sees it: dates as text."""
    return json.loads(json.dumps(yaml.safe_load(text), default=str))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_right_and_name_the_schema(path: Path) -> None:
    assert isinstance(read_recipe(path), Recipe)
    assert path.read_text().startswith("# yaml-language-server: $schema=../recipes/recipe.schema.json\n")
    jsonschema.validate(_plain(path.read_text()), schema())


def test_the_committed_schema_is_the_one_of_the_code() -> None:
    assert json.loads((ROOT / "recipes" / "recipe.schema.json").read_text()) == json.loads(json.dumps(schema()))


def test_every_option_is_described_in_the_schema() -> None:
    document = schema()
    for name, part in {"Recipe": document, **document["$defs"]}.items():
        for key, field in part.get("properties", {}).items():
            assert field.get("description"), f"{name}.{key} has no description"


def test_the_default_recipe_needs_no_file() -> None:
    assert set(default_recipe().sources) == {"s2", "s1", "dem"}


def test_what_the_template_only_offers_is_right_too() -> None:
    text = (ROOT / "recipes" / "template.yaml").read_text()
    for offered in ("landsat:", "photos:", "fields:", "landuse:"):
        text = text.replace(f"\n  # {offered}", f"\n  {offered}")
    text = text.replace("\n  #   ", "\n    ")
    recipe = parse_recipe(text)
    assert set(recipe.sources) == {"s2", "s1", "dem", "landsat", "photos"}
    assert set(recipe.labels) == {"worldcover", "fields", "landuse"}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("grid: {size_px: big}\n", "line 6: grid.size_px is 'big'; wanted a whole number"),
        ("grid: {size_px: -64}\n", "line 6: grid.size_px is -64; wanted more than 0"),
        ("grid: {min_cover: 2}\n", "line 6: grid.min_cover is 2; wanted 1 or less"),
        ("grid: {size_px: yes}\n", "line 6: grid.size_px is true; wanted a number"),
        ("split: {seed: off}\n", "line 6: split.seed is false; wanted a number"),
        ("labels:\n", "line 6: labels is empty; wanted something in it, or leave the key out"),
        ("sample: []\n", "line 6: sample: the list is empty; wanted a sampler in it, or leave the key out"),
        ("name: 2018\n", "line 6: name is 2018; wanted text; in quotes it is: '2018'"),
        (
            "split: {shares: [0.6, 0.4]}\n",
            "line 6: split.shares is [0.6, 0.4]; wanted names below it, each with its keys",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_in_the_words_of_a_recipe(wrong: str, sentence: str) -> None:
    assert problems(SMALL + wrong) == (sentence,)


def test_sources_cannot_be_left_out() -> None:
    (problem,) = problems("time: 2018-04-01/2018-10-01\nsources:\n")
    assert problem == "line 2: sources is empty; wanted something in it"


def test_true_and_false_stay_what_they_are_where_they_are_meant() -> None:
    assert parse_recipe(SMALL + "report: no\n").report is False
    assert parse_recipe(SMALL + "    time: {series: yes}\n").sources["s2"].time.series is True


def test_aliases_of_aliases_are_looked_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    found = problems("\n".join(lines))  # 9^12 nodes if each alias were followed
    assert any("unknown key 'a11'" in problem for problem in found)


def test_clouds_are_grown_by_no_more_than_a_machine_reads_around_a_chip() -> None:
    (problem,) = problems(SMALL + "    mask: {dilate_m: 1.0e+7}\n")
    assert problem == "line 6: sources.s2.mask.dilate_m is 10000000.0; wanted 10000 or less"
    assert parse_recipe(SMALL + "    mask: {dilate_m: 10000}\n").sources["s2"].mask.dilate_m == 10_000
