"""One small world for all tests of the folder: 96 pixels square around the edge of two zones."""

from __future__ import annotations

import pytest

from simulate.world import WorldSpec
from simulate.write import World, write_world

SMALL = WorldSpec(seed=45, size_px=96, dates=6, radar_dates=2, overlap=0.4, block_px=128)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world") / "small", SMALL)
