"""`curate publish` ends a build that was stopped before its end, as the build would have; or copies a dataset."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chips.storage import open_storage
from chips.versions import LATEST, latest
from chips.write import BuildRef, is_published, open_build, record_failures
from curate.errors import InputError, OutputError, StoreError
from flows.console import PlainConsole
from flows.finishing import make_publishing, publish
from flows.steps import Request, build, build_shards, check, finish, make_request, prepare
from flows.update import make_update, prepare_update, update
from simulate.write import World

Curate = Callable[..., Any]

RECIPE = """\
name: small
time: 2021-04-01/2021-06-01
catalog: catalog.json
grid: {resolution_m: 10, size_px: 64, min_cover: 0.3}
sources:
  s2: {collection: sentinel-2-l2a, bands: [red], time: {composite: monthly, how: median}}
labels:
  fields: {vector: fields.geojson, attribute: label, background: 0}
split: {block_km: 1.2, buffer_km: 0.1, shares: {train: 0.6, val: 0.2, test: 0.2}, seed: 1}
store: {shard_chips: 16}
"""


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def recipe(world: World) -> Path:
    path = world.folder / "small.yaml"
    path.write_text(RECIPE)
    return path


def request_for(world: World, recipe: Path, out: Path) -> Request:
    return make_request(aoi=str(world.region), recipe=str(recipe), out=str(out))


@pytest.fixture(scope="module")
def stopped(world: World, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that was killed when its last shard was written."""
    out = tmp_path_factory.mktemp("stopped") / "dataset"
    request = request_for(world, recipe, out)
    prepared = prepare(request, PlainConsole())
    assert prepared is not None
    build_shards(prepared, request, PlainConsole())
    return out


@pytest.fixture(scope="module")
def undisturbed(stopped: Path, world: World, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same build, ended by the command that began it."""
    out = tmp_path_factory.mktemp("undisturbed") / "dataset"
    shutil.copytree(stopped, out)
    build(request_for(world, recipe, out), PlainConsole())
    return out


@pytest.fixture
def there(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path / "dataset")
    return tmp_path / "dataset"


def begun_in(folder: Path) -> BuildRef:
    found = open_build(open_storage(folder))
    assert found is not None
    return found


def test_a_build_that_was_stopped_after_its_shards_is_published_by_the_command(
    there: Path, undisturbed: Path, recipe: Path, curate: Curate
) -> None:
    done = curate("publish", there, "--recipe", recipe)
    assert done.returncode == 0, done.stderr
    assert content(there) == content(undisturbed)
    assert "chips" in done.stdout
    (there / ".curate").mkdir()
    (there / ".curate" / "build.json").write_text("{}")  # as after a kill between the root and the journal's end
    again = curate("publish", there)
    assert content(there) == content(undisturbed)
    assert (again.returncode, "is published already; nothing to do" in again.stderr) == (0, True)


def test_a_build_that_was_stopped_while_publishing_ends_in_the_same_bytes(
    there: Path, undisturbed: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = make_publishing(str(there), recipe=str(recipe))
    with monkeypatch.context() as patch:

        def killed(*_: Any) -> bool:
            raise KeyboardInterrupt

        patch.setattr("chips.storage.Storage.put_first", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(asked, PlainConsole())
    assert (there / "manifest.json").exists()
    assert not is_published(open_storage(there))
    assert publish(asked, PlainConsole())
    assert content(there) == content(undisturbed)
    assert not publish(asked, PlainConsole())


def test_what_is_missing_is_named_with_its_reason_and_nothing_is_changed(there: Path, recipe: Path) -> None:
    lines = sorted((there / ".curate" / "shards").iterdir())
    total = len(lines)
    assert total >= 3
    for line in lines[1:]:
        line.unlink()
    record_failures(begun_in(there), {1: "scene S2A_x cannot be read"})
    before = content(there)
    with pytest.raises(OutputError) as caught:
        publish(make_publishing(str(there), recipe=str(recipe)), PlainConsole())
    said = str(caught.value)
    assert f"{total - 1} of {total} shards are missing: 1 (scene S2A_x cannot be read), 2" in said
    assert "run 'curate build' as it was begun" in said
    assert content(there) == before


def test_a_shard_that_was_damaged_since_is_not_published(there: Path, recipe: Path) -> None:
    path = next(path for path in sorted((there / "chips.zarr" / "s2" / "reflectance").rglob("*")) if path.is_file())
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(OutputError, match=r"shards are missing: \d+ \(what was written is damaged or gone\)"):
        publish(make_publishing(str(there), recipe=str(recipe)), PlainConsole())
    assert not is_published(open_storage(there))


@pytest.mark.parametrize("stopped_at", ["shards", "pointer"])
def test_an_update_that_was_stopped_becomes_the_latest_version(
    stopped_at: str, undisturbed: Path, recipe: Path, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        shutil.copytree(undisturbed, folder)
    asked: dict[str, Any] = {"time": "2021-04-01/2021-08-01", "recipe": str(recipe)}
    update(make_update(str(theirs), **asked), PlainConsole())
    request = make_update(str(ours), **asked)
    prepared = prepare_update(request, PlainConsole())
    assert prepared is not None
    wish = make_publishing(str(ours), recipe=str(recipe))
    with pytest.raises(OutputError, match=r"shards are missing: 0, 1, .*run 'curate update'"):
        publish(wish, PlainConsole())
    build_shards(prepared, request.as_build(prepared.build.url), PlainConsole())
    if stopped_at == "pointer":
        finish(prepared, PlainConsole())
    assert latest(open_storage(ours)) is None
    assert publish(wish, PlainConsole())
    mine, wanted = content(ours), content(theirs)
    found, meant = (json.loads(files.pop(LATEST)) for files in (mine, wanted))
    assert mine == wanted
    assert found | {"published": ""} == meant | {"published": ""}
    assert not publish(wish, PlainConsole())


@pytest.mark.parametrize("stopped_at", ["shards", "pointer"])
def test_in_a_repository_each_is_the_commit_that_it_would_have_been(
    stopped_at: str, world: World, tmp_path: Path
) -> None:
    recipe, out = world.folder / "repository.yaml", tmp_path / "dataset"
    recipe.write_text(RECIPE.replace("store: {", "report: false\nstore: {format: icechunk, "))
    request = request_for(world, recipe, out)
    prepared = prepare(request, PlainConsole())
    assert prepared is not None
    build_shards(prepared, request, PlainConsole())
    wish = make_publishing(str(out), recipe=str(recipe))
    assert publish(wish, PlainConsole())
    assert check(str(out), PlainConsole()).problems == ()
    later = make_update(str(out), time="2021-04-01/2021-08-01", recipe=str(recipe))
    prepared = prepare_update(later, PlainConsole())
    assert prepared is not None
    build_shards(prepared, later.as_build(prepared.build.url), PlainConsole())
    if stopped_at == "pointer":
        finish(prepared, PlainConsole())
    assert publish(wish, PlainConsole())
    found = latest(open_storage(out))
    assert found is not None
    assert (found.version, found.fingerprint) == (2, prepared.build.fingerprint)
    for version in (1, 2):
        assert check(str(out), PlainConsole(), version).problems == ()
    assert not publish(wish, PlainConsole())


def test_what_cannot_be_published_is_told(tmp_path: Path, undisturbed: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="holds no build and no dataset"):
        publish(make_publishing(str(tmp_path / "empty")), PlainConsole())
    with pytest.raises(OutputError, match="there is no such folder"):
        publish(make_publishing(str(tmp_path / "nowhere")), PlainConsole())
    with pytest.raises(InputError, match="say with --to where it is to go"):
        make_publishing(str(undisturbed), version=1)


def test_a_dataset_is_copied_to_object_storage_and_is_as_promised_there(
    undisturbed: Path, bucket: str, curate: Curate
) -> None:
    to = f"{bucket}/released/small"
    done = curate("publish", undisturbed, "--to", to)
    assert done.returncode == 0, done.stderr
    target = open_storage(to)
    assert {key: target.get(key) for key in target.sizes()} == content(undisturbed)
    assert "it is version 1 there" in done.stderr
    assert to in done.stdout
    assert check(to, PlainConsole()).problems == ()
    again = curate("publish", undisturbed, "--to", f"{to}/")
    assert "has this dataset already, as version 1; nothing to do" in again.stderr
    damaged = curate("publish", f"{to}/none", "--to", f"{bucket}/other")
    assert (damaged.returncode, "holds no published dataset" in damaged.stderr) == (4, True)
