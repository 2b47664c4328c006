"""The demo: a simulated world and a recipe for it, so that one command shows everything without any download."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from curate.errors import OutputError
from flows.console import Console
from flows.steps import Request, make_request
from simulate.world import WorldSpec

WORLD = WorldSpec(osm=True)
"""Two UTM zones, both processing baselines, one reprocessed duplicate."""


def demo_request(folder: Path, console: Console) -> Request:
    """Write the world below ``folder``, if it is not there yet, and ask for a dataset of it."""
    from simulate.write import write_world

    with console.stage("simulating a world") as stage:
        done = 0

        def progress(what: str, now: int, total: int) -> None:
            nonlocal done
            stage.advance(now - done, what)
            done = now

        world = write_world(folder / "world", WORLD, progress=progress)
    recipe = world.folder / "recipe.yaml"
    text = resources.files("recipes").joinpath("demo.yaml").read_text(encoding="utf-8")
    try:
        recipe.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(str(recipe), f"cannot be written ({error.strerror}); choose another folder") from error
    return make_request(aoi=str(world.region), recipe=str(recipe), out=str(folder / "dataset"))


def how_to_open(out: str) -> str:
    """Lines that a reader can paste."""
    return f"""
Open it with xarray, nothing of ours needed:

    import xarray as xr
    ds = xr.open_zarr("{out}/chips.zarr", group="s2", chunks=None)
    train = ds.isel(chip=ds.split == "train")
"""
