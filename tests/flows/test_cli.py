"""The command as a user meets it: help, exit codes, one sentence an error, plain lines or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulate.write import World

Curate = Callable[..., Any]


def test_help_names_every_command_and_the_exit_codes(curate: Curate) -> None:
    run = curate("--help")
    assert run.returncode == 0
    for command in ("build", "check", "demo", "info", "init", "labels", "plan", "report", "schema", "show"):
        assert f"  {command}" in run.stdout
    assert "Exit codes" in run.stdout


def test_init_writes_a_recipe_that_plans_and_does_not_write_over_yours(
    curate: Curate, world: World, tmp_path: Path
) -> None:
    assert curate("init", "mine.yaml", cwd=tmp_path).returncode == 0
    text = (tmp_path / "mine.yaml").read_text()
    assert (tmp_path / "recipe.schema.json").exists()
    again = curate("init", "mine.yaml", cwd=tmp_path)
    assert (again.returncode, (tmp_path / "mine.yaml").read_text()) == (2, text)
    assert "--force" in again.stderr
    (tmp_path / "mine.yaml").write_text(text.replace("2024-04-01/2024-10-01", "2021-04-01/2021-10-01"))
    plan = curate("plan", "--aoi", world.region, "--recipe", "mine.yaml", "--catalog", world.catalog, cwd=tmp_path)
    # The world has no blue band: the first thing that the catalog lacks is named.
    assert plan.returncode == 2
    assert "blue" in plan.stderr


def test_a_plan_is_text_for_people_and_json_for_programs(
    curate: Curate, world: World, world_recipe: Path, tmp_path: Path
) -> None:
    asked = ["plan", "--aoi", world.region, "--recipe", world_recipe]
    text = curate(*asked, cwd=tmp_path)
    assert text.returncode == 0, text.stderr
    assert "splits   train" in text.stdout
    forecast = json.loads(curate(*asked, "--json", cwd=tmp_path).stdout)
    assert forecast["out"].endswith("small-world"), "the folder is named after the recipe"
    assert forecast["chips"] == sum(forecast["splits"].values()) == sum(forecast["zones"].values())
    assert list(tmp_path.iterdir()) == []


def test_build_check_and_info_from_the_command_line(
    curate: Curate, world: World, world_recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    asked = ["--aoi", world.region, "--recipe", world_recipe, "--out", out]
    run = curate("--log-format", "json", "build", *asked)
    assert run.returncode == 0, run.stderr
    events = [json.loads(line) for line in run.stderr.splitlines()]
    assert {"stage-started", "stage-finished"} <= {event["event"] for event in events}
    assert all({"time", "level", "event"} <= event.keys() for event in events)
    assert "s2/reflectance" in run.stdout
    assert curate("check", out).returncode == 0
    described = json.loads(curate("info", out, "--json").stdout)
    assert described["state"] == "published"

    (out / "chips.zarr" / "s2" / "zarr.json").unlink()
    damaged = curate("check", out)
    assert damaged.returncode == 1
    assert "s2/zarr.json" in damaged.stdout


def test_errors_are_one_sentence_with_their_exit_code(curate: Curate, tmp_path: Path) -> None:
    for arguments, code, words in (
        (["build", "--aoi", "nowhere.geojson"], 2, "nowhere.geojson"),
        (["build", "--aoi", "0,0,1,1", "--recipe", "none.yaml"], 2, "curate init"),
        (["check", str(tmp_path)], 4, "no published dataset"),
        (["info", str(tmp_path / "none")], 2, "no such folder"),
    ):
        run = curate(*arguments, cwd=tmp_path)
        assert run.returncode == code, run.stderr
        assert words in run.stderr
        assert "Traceback" not in run.stderr


def test_memory_that_runs_out_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from flows import cli, steps

    def exhaust(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cli, "_leave", sys.exit)
    monkeypatch.setattr(steps, "info", exhaust)
    run = CliRunner().invoke(cli.main, ["info", "dataset"])
    assert run.exit_code == 3
    assert "memory ran out; what was built is kept" in run.stderr


def test_the_schema_is_printed_for_editors(curate: Curate) -> None:
    assert json.loads(curate("schema").stdout)["properties"]["sources"]


def test_a_refreshed_plan_tells_what_moved_in_the_catalog(
    curate: Curate, world: World, dataset: Path, tmp_path: Path
) -> None:
    import shutil

    folder = Path(shutil.copytree(world.folder, tmp_path / "world"))
    asked = ["plan", "--refresh", "--recipe", folder / "recipe.yaml", "--aoi", folder / "region.geojson"]
    out = Path(shutil.copytree(dataset, tmp_path / "dataset"))
    same = curate(*asked, "--catalog", world.catalog, "--out", out)
    # The catalog is part of the recipe: another one is another dataset.
    assert same.returncode == 2
    assert "another recipe" in same.stderr

    build = curate("build", *asked[2:], "--out", tmp_path / "mine")
    assert build.returncode == 0, build.stderr
    assert curate(*asked, "--out", tmp_path / "mine").stdout.strip() == "nothing moved"

    gone = sorted((folder / "sentinel-1-rtc").iterdir())
    victim = next(path for path in gone if path.is_dir())
    collection = folder / "sentinel-1-rtc" / "collection.json"
    document = json.loads(collection.read_text())
    document["links"] = [link for link in document["links"] if victim.name not in link["href"]]
    collection.write_text(json.dumps(document))
    shutil.rmtree(victim)
    assert victim.name in curate(*asked, "--out", tmp_path / "mine").stdout
