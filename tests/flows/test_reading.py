"""Datasets read for training: the snippets of docs/reading.md as they stand there, and samples against xarray."""

from __future__ import annotations

import importlib.util
import multiprocessing
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from chips.storage import open_storage
from curate.errors import OutputError, StoreError
from publish.torch import ChipDataset

PAGE = Path(__file__).parents[2] / "docs" / "reading.md"
TORCH = importlib.util.find_spec("torch") is not None


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_python_of_the_page_runs_in_one_go_and_uses_nothing_of_ours(dataset: Path) -> None:
    # Those of an address and of a repository: test_build_to_s3.py, test_icechunk.py.
    *others, ours = (code for code in snippets("python") if not re.search(r"icechunk|address", code))
    names: dict[str, Any] = {"dataset": str(dataset)}
    for code in others:
        assert not re.search(r"^(from|import) (publish|chips|cube|catalog|labels|tiling|flows|recipes)\b", code, re.M)
        if "torch" not in code or TORCH:
            exec(compile(code, str(PAGE), "exec"), names)
    assert names["block"].shape == (3, 64, 64)
    assert names["rows"]
    np.testing.assert_allclose(
        names["sample"]["image"], names["image"].isel(time=0).to_numpy(), rtol=1e-6, equal_nan=True
    )
    exec(compile(ours, str(PAGE), "exec"), names)
    assert list(names["sample"]) == ["image", "time", "image_s1", "time_s1", "mask", "bbox", "crs", "chip"]
    assert names["unlabelled"] == 255


def test_the_sql_of_the_page_counts_the_splits(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    monkeypatch.chdir(dataset)
    (query,) = snippets("sql")
    index = ChipDataset(str(dataset), split=None, status=("ok", "partial", "empty"))
    assert sum(row[1] for row in duckdb.sql(query).fetchall()) == len(index)


@pytest.fixture(scope="module")
def opened(dataset: Path) -> dict[str, xr.Dataset]:
    """Every group with its physical values, as xarray decodes them."""
    return {g: xr.open_zarr(dataset / "chips.zarr", group=g, chunks=None) for g in ("s2", "s1", "dem", "label")}


def test_samples_are_what_xarray_decodes_in_the_order_of_the_split(
    dataset: Path, opened: dict[str, xr.Dataset]
) -> None:
    chips = ChipDataset(str(dataset), split="val")
    ds = opened["s2"]
    rows = np.flatnonzero((ds.split == "val") & (ds.status == "ok"))
    assert len(chips) == len(rows) > 2
    for index in (0, len(chips) - 1):
        sample, row = {k: np.asarray(v) for k, v in chips[index].items()}, rows[index]
        for key, group, name in (
            ("image", "s2", "reflectance"),
            ("image_s1", "s1", "backscatter"),
            ("image_dem", "dem", "elevation"),
        ):
            assert sample[key].dtype == np.float32
            np.testing.assert_allclose(sample[key], opened[group][name][row].to_numpy(), rtol=1e-6)
        raw = xr.open_zarr(dataset / "chips.zarr", group="label", chunks=None, mask_and_scale=False)
        np.testing.assert_array_equal(sample["mask"], raw["worldcover"][row].to_numpy())
        np.testing.assert_array_equal(sample["mask_fields"], raw["fields"][row].to_numpy())
        assert sample["mask"].dtype == np.int64
        np.testing.assert_array_equal(sample["time"], ds.time.to_numpy().astype("datetime64[s]").astype(np.int64))
        x0, y0 = float(ds.x0[row]), float(ds.y0[row])
        assert sample["bbox"].tolist() == [x0, y0 - 640, x0 + 640, y0]
        assert (str(sample["crs"]), str(sample["chip"])) == (f"EPSG:{int(ds.epsg[row])}", str(ds.chip[row].item()))
    assert str(chips[-1]["chip"]) == str(ds.chip[rows[-1]].item())
    with pytest.raises(IndexError):
        chips[len(chips)]


def test_void_is_what_was_asked_for_and_a_transform_sees_every_sample(dataset: Path) -> None:
    chips = ChipDataset(str(dataset), ["s2"], ["fields"], void=-1.0, transform=lambda s: {**s, "seen": True})
    plain = ChipDataset(str(dataset), ["s2"], ["fields"])
    hidden = 0
    for index in range(len(plain)):
        filled, void = chips[index], np.isnan(np.asarray(plain[index]["image"]))
        assert (np.asarray(filled["image"])[void] == -1).all()
        assert filled["seen"]
        hidden += int(void.sum())
    assert hidden


def _checksum(chips: ChipDataset) -> float:
    images = (np.asarray(chips[index]["image"]) for index in range(len(chips)))
    return float(sum(np.nansum(image, dtype=np.float64) for image in images))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_worker_processes_read_the_same_also_after_their_parent_has(dataset: Path) -> None:
    chips = ChipDataset(str(dataset), ["s2"], split="val")
    here = _checksum(chips)
    assert here > 0
    assert _checksum(pickle.loads(pickle.dumps(chips))) == here
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_checksum, (chips,)).get(timeout=60) == here


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_samples_in_object_storage_are_the_same_and_a_forked_process_says_why_it_cannot_read_them(
    dataset: Path, bucket: str
) -> None:
    storage = open_storage(f"{bucket}/data")
    for path in dataset.rglob("*"):
        if path.is_file():
            storage.put(path.relative_to(dataset).as_posix(), path.read_bytes())
    there, here = ChipDataset(f"{bucket}/data", ["s2"], split="val"), ChipDataset(str(dataset), ["s2"], split="val")
    assert _checksum(pickle.loads(pickle.dumps(there))) == _checksum(here)
    # A worker of a data loader has its dataset from its parent, not by pickle.
    queue = multiprocessing.get_context("fork").Queue()
    worker = multiprocessing.get_context("fork").Process(target=lambda: queue.put(_refusal(there)))
    worker.start()
    assert "multiprocessing_context='spawn'" in queue.get(timeout=60)
    worker.join()


def _refusal(chips: ChipDataset) -> str:
    try:
        return f"read {len(chips[0])}"
    except OutputError as error:
        return str(error)


@pytest.mark.skipif(not TORCH, reason="PyTorch is not installed")
def test_a_data_loader_makes_batches_of_tensors(dataset: Path) -> None:
    data = pytest.importorskip("torch.utils.data")
    (batch, *_) = data.DataLoader(ChipDataset(str(dataset)), batch_size=2, num_workers=1)
    assert tuple(batch["image"].shape[:1]) == (2,)


def test_what_is_not_there_is_said_in_a_sentence(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no source 'landsat'; found s2, s1, dem"):
        ChipDataset(str(dataset), ["landsat"])
    with pytest.raises(StoreError, match="has no label 'crops'; found worldcover, fields"):
        ChipDataset(str(dataset), labels=["crops"])
    with pytest.raises(StoreError, match="has no chip with split holdout"):
        ChipDataset(str(dataset), split="holdout")
    with pytest.raises(StoreError, match="no published dataset"):
        ChipDataset(str(tmp_path))
    with pytest.raises(OutputError, match="no such folder"):
        ChipDataset(str(tmp_path / "nothing"))
