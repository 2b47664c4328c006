"""`curate status` and `curate runs`: how far builds are, for a person and for a program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from curate.errors import IncompleteError, ReadError
from flows import run
from flows.cli import main
from flows.console import PlainConsole
from flows.steps import build, make_request
from simulate.write import World


def test_why_a_build_stopped_is_read_from_its_folder(
    world: World, world_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_fail(work: Any, shards: Any, **_: Any) -> dict[int, ReadError]:
        return {shard.ordinal: ReadError("S2A_x", "red", "cannot be opened") for shard in shards}

    monkeypatch.setattr(run, "run_shards", all_fail)
    out = tmp_path / "dataset"
    request = make_request(aoi=str(world.region), recipe=str(world_recipe), out=str(out))
    with pytest.raises(IncompleteError):
        build(request, PlainConsole())

    said = CliRunner().invoke(main, ["status", str(out)]).stdout
    assert f"{out}: failed, 0 of " in said
    assert "  shard 0: S2A_x, band red: cannot be opened" in said
    found = json.loads(CliRunner().invoke(main, ["status", "--json", str(out)]).stdout)
    assert found["state"] == "failed"
    assert found["failed"]["0"] == "S2A_x, band red: cannot be opened"
    assert found["shards"] == len(found["failed"])
    (listed,) = json.loads(CliRunner().invoke(main, ["runs", "--json", str(tmp_path)]).stdout)
    assert listed == found
    assert said == CliRunner().invoke(main, ["runs", str(tmp_path)]).stdout
    assert "there are no builds" in CliRunner().invoke(main, ["runs", str(out)]).stdout


def test_a_folder_without_a_build_is_an_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert done.exit_code == 4
    assert "there is no dataset and no build here" in done.stderr
