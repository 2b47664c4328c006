"""A build that is killed or interrupted shows no half dataset, continues, and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zarr

from simulate.write import World

COMMAND = Path(sys.executable).with_name("curate")


def _start(world: World, recipe: Path, out: Path) -> subprocess.Popen[str]:
    arguments = ["build", "--aoi", str(world.region), "--recipe", str(recipe), "--out", str(out)]
    return subprocess.Popen([str(COMMAND), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _shards(out: Path) -> int:
    return len(list((out / ".curate" / "shards").glob("*.json")))


def _wait_for_a_shard(process: subprocess.Popen[str], out: Path, shards: int) -> None:
    for _ in range(2400):
        if _shards(out) >= shards or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, "the build ended before it could be disturbed"


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _opens(out: Path) -> bool:
    opened = 0
    for group in ("", "s2", "s1", "dem", "label"):
        try:
            zarr.open_group(out / "chips.zarr" / group, mode="r")
            opened += 1
        except (FileNotFoundError, zarr.errors.GroupNotFoundError):
            pass
    return opened > 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_a_disturbed_build_does_not_open_and_continues_to_the_same_bytes(
    how: signal.Signals, world: World, world_recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    process = _start(world, world_recipe, out)
    _wait_for_a_shard(process, out, shards=2)
    os.kill(process.pid, how)
    _, said = process.communicate(timeout=60)
    if how == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert "interrupted; what was built is kept" in said
        assert "Traceback" not in said
    kept = _shards(out)
    assert kept >= 2
    assert not _opens(out)
    if how == signal.SIGTERM:
        return  # it continues as after SIGINT, which takes the same way out

    again = _start(world, world_recipe, out)
    _, said = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert f"{kept} of " in said, "the shards that were there are told and kept"
    assert _opens(out)
    assert _content(out) == _content(dataset)


def test_a_shard_that_was_damaged_meanwhile_is_built_again(
    world: World, world_recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    process = _start(world, world_recipe, out)
    _wait_for_a_shard(process, out, shards=2)
    process.kill()
    process.communicate()
    kept = _shards(out)
    victim = max((out / "chips.zarr" / "s1").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)

    again = _start(world, world_recipe, out)
    _, said = again.communicate(timeout=240)
    assert again.returncode == 0, said
    assert f"{kept - 1} of " in said
    assert _content(out) == _content(dataset)


def test_building_again_what_is_built_does_nothing(world: World, world_recipe: Path, dataset: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    again = _start(world, world_recipe, dataset)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0
    assert "is built already" in said
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before
