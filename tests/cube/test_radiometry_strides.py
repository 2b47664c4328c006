"""Offsets reach the pixels whatever the memory layout of the array a reader hands out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cube.radiometry import harmonise


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (2, 3, 0, 1), (3, 2, 1, 0), (0, 2, 3, 1)])
def test_offsets_are_applied_in_place_to_transposed_arrays(axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 3000, (3, 4, 3, 4), dtype=np.uint16).transpose(axes)
    stored[stored < 300] = 0
    before = stored.astype(int)
    offsets = [-1000, 0, -1000, 0][: len(stored)]
    harmonise(stored, offsets)
    for after, old, offset in zip(stored, before, offsets, strict=True):
        np.testing.assert_array_equal(after, np.where(old == 0, 0, np.maximum(old + offset, 1)))


def test_threads_that_begin_at_once_make_what_they_share_once(tmp_path: Path) -> None:
    script = """
import threading, numpy as np
from cube.radiometry import harmonise
ready = threading.Barrier(8)
def work(n):
    pixels = np.full((1, 4, 4), 2000, np.uint16)
    ready.wait()
    harmonise(pixels, [-1000])
    assert (pixels == 1000).all()
    done.append(n)
done = []
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(done) == 8
"""
    cold = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=cold,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
