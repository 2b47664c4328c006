"""Datasets as GeoTIFF chips, WebDataset archives and COCO annotations: read back by others, they are the store."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from curate.errors import OutputError, StoreError
from flows.console import PlainConsole
from flows.showing import write_report
from flows.steps import build, export, make_request
from publish.coco import annotation
from publish.export import ExportSpec
from publish.torch import ChipDataset
from simulate.write import World

if TYPE_CHECKING:
    from tests.flows.conftest import Curate

INSTANCES = """\
name: parcels
time: 2021-04-01/2021-08-01
catalog: catalog.json
grid: {resolution_m: 10, size_px: 64, min_cover: 0.9}
sources:
  s2: {collection: sentinel-2-l2a, bands: [red, nir], time: {series: true}}
labels:
  fields: {vector: fields.geojson, attribute: label, background: 0, targets: [instances]}
split: {block_km: 1.2, buffer_km: 0.1, shares: {train: 0.6, val: 0.2, test: 0.2}, seed: 1}
"""


def run(dataset: Path, out: Path, **options: Any) -> str:
    return export(str(dataset), ExportSpec(**options), str(out), PlainConsole())


def listed(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "files.csv").read_text().splitlines()))


def raw(dataset: Path, group: str) -> xr.Dataset:
    """A group with the numbers as they are stored, by the name of the chip."""
    opened: xr.Dataset = xr.open_zarr(dataset / "chips.zarr", group=group, chunks=None, mask_and_scale=False)
    return opened


@pytest.fixture(scope="module")
def tiffs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "tiffs"
    run(dataset, out, to="geotiff", splits=("val",))
    return out


def test_every_geotiff_is_the_store_pixel_by_pixel_and_lies_where_the_chip_does(dataset: Path, tiffs: Path) -> None:
    groups = {name: raw(dataset, name) for name in ("s2", "s1", "dem", "label")}
    rows = listed(tiffs)
    assert {row["split"] for row in rows} == {"val"}
    assert {row["array"] for row in rows} >= {"s2/reflectance", "s2/scl", "s1/backscatter", "dem/elevation"}
    assert {p.relative_to(tiffs).as_posix() for p in tiffs.rglob("*.tif")} == {row["path"] for row in rows}
    for row in rows:
        group, name = row["array"].split("/")
        ds = groups[group].sel(chip=row["chip"])
        array = ds[name]
        if row["time"]:
            at = np.flatnonzero(ds.time == np.datetime64(row["time"].rstrip("Z")))
            orbit = [o for o in ("ascending", "descending") if o in row["path"]]
            (place,) = [i for i in at if not orbit or ds.orbit[i] == orbit[0]]
            array = array.isel(time=place)
        with rasterio.open(tiffs / row["path"]) as file:
            np.testing.assert_array_equal(file.read().squeeze(), array.to_numpy())
            assert file.crs.to_epsg() == int(ds.epsg)
            assert (file.transform.c, file.transform.f) == (float(ds.x0), float(ds.y0))
            assert file.res == (10, 10)
            assert file.tags()["CHIP"] == row["chip"]
            fill = array.attrs.get("_FillValue", np.nan if array.dtype.kind == "f" else None)
            np.testing.assert_equal(file.nodata, None if fill is None else float(fill))


def test_bands_have_their_names_scales_and_units_and_classes_their_colours(tiffs: Path) -> None:
    first = {row["array"]: tiffs / row["path"] for row in reversed(listed(tiffs))}
    with rasterio.open(first["s2/reflectance"]) as file:
        assert file.descriptions == ("red", "nir", "swir16")
        assert file.scales == pytest.approx((1e-4,) * 3)
        assert file.tags()["TIFFTAG_DATETIME"].startswith("2021:")
    with rasterio.open(first["dem/elevation"]) as file:
        assert file.units == ("m",)
    with rasterio.open(first["label/worldcover"]) as file:
        assert file.colormap(1)[10][:3] == (0, 100, 0)  # Tree cover of ESA WorldCover
        assert "10" in file.tags()["FLAG_VALUES"].split()


def test_an_export_that_was_stopped_continues_and_ends_in_the_same_bytes(
    dataset: Path, tiffs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    told = run(dataset, out, to="geotiff", splits=("val",))
    whole = {p.relative_to(tiffs): p.read_bytes() for p in tiffs.rglob("*") if p.is_file()}
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == whole
    (out / "files.csv").unlink()
    gone = sorted(out.rglob("*.tif"))[::5]
    for path in gone:
        path.unlink()
    kept = {p: p.stat().st_mtime_ns for p in out.rglob("*.tif")}
    told = run(dataset, out, to="geotiff", splits=("val",))
    assert f"{len(gone)} files" in told
    assert all(p.stat().st_mtime_ns == at for p, at in kept.items())
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == whole


def test_a_cloud_optimised_geotiff_is_one_and_has_the_same_pixels(dataset: Path, tiffs: Path, tmp_path: Path) -> None:
    cogs = pytest.importorskip("rio_cogeo.cogeo", reason="rio-cogeo is not installed")
    run(dataset, tmp_path / "cogs", to="geotiff", splits=("val",), groups=("s2", "label"), cog=True)
    rows = listed(tmp_path / "cogs")
    assert {row["array"].split("/")[0] for row in rows} == {"s2", "label"}
    for row in {row["array"]: row for row in rows}.values():
        assert cogs.cog_validate(str(tmp_path / "cogs" / row["path"]))[0]
        with rasterio.open(tmp_path / "cogs" / row["path"]) as cog, rasterio.open(tiffs / row["path"]) as plain:
            np.testing.assert_array_equal(cog.read(), plain.read())
            assert cog.descriptions == plain.descriptions
            assert cog.nodata == plain.nodata


def test_tar_archives_hold_every_chip_once_in_an_order_that_is_not_that_of_the_place(
    dataset: Path, tmp_path: Path
) -> None:
    run(dataset, tmp_path / "tars", to="webdataset", splits=("train",))
    run(dataset, tmp_path / "twice", to="webdataset", splits=("train",))
    [path] = (tmp_path / "tars").glob("*.tar")
    assert path.name == "train-000000.tar"
    assert path.read_bytes() == (tmp_path / "twice" / path.name).read_bytes()
    groups = {name: raw(dataset, name) for name in ("s2", "s1", "dem", "label")}
    chips: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, ending = member.name.split(".", 1)  # as webdataset parts names
            content = tar.extractfile(member)
            assert content is not None
            chips.setdefault(key, {})[ending] = content.read()
    store = groups["s2"]
    wanted = store.chip.to_numpy()[(store.split == "train") & (store.status != "empty")].tolist()
    assert sorted(chips) == sorted(wanted)
    assert list(chips) != wanted
    for key, members in chips.items():
        about = json.loads(members.pop("json"))
        assert (about["chip"], about["crs"]) == (key, f"EPSG:{int(store.epsg.sel(chip=key))}")
        for ending, data in members.items():
            group, variable, kind = ending.split(".")
            assert kind == "npy"
            np.testing.assert_array_equal(np.load(io.BytesIO(data)), groups[group][variable].sel(chip=key))
            assert about["arrays"][f"{group}.{variable}"]["dims"] == list(groups[group][variable].dims[1:])


def decoded(segmentation: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """A mask from its run lengths, pixel by pixel, as the format says it."""
    height, width = segmentation["size"]
    mask, at, value = np.zeros(height * width, bool), 0, False
    for length in segmentation["counts"]:
        mask[at : at + length] = value
        at, value = at + length, not value
    assert at == mask.size
    return np.array([[mask[x * height + y] for x in range(width)] for y in range(height)])


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(lambda mask: bool(mask.any())))
def test_run_lengths_box_and_area_are_those_of_the_mask(mask: npt.NDArray[np.bool_]) -> None:
    told = annotation(mask)
    np.testing.assert_array_equal(decoded(told["segmentation"]), mask)
    y, x = np.nonzero(mask)
    assert told["bbox"] == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
    assert told["area"] == mask.sum()


def test_coco_annotations_are_the_instances_of_the_label_with_their_classes(world: World, tmp_path: Path) -> None:
    recipe = world.folder / "parcels.yaml"
    recipe.write_text(INSTANCES)
    dataset, out = tmp_path / "dataset", tmp_path / "coco"
    build(make_request(aoi=str(world.region), recipe=str(recipe), out=str(dataset)), PlainConsole())
    run(dataset, out, to="coco", splits=("train",))
    told = json.loads((out / "instances_train.json").read_text())
    labels, images = raw(dataset, "label"), raw(dataset, "s2")
    ids = labels["fields_id"]
    names = {category["id"]: category["name"] for category in told["categories"]}
    assert names == dict(zip(labels.fields.flag_values, labels.fields.flag_names, strict=True))
    assert len(told["images"]) == int((labels.split == "train").sum())
    assert len(told["annotations"]) > 10
    for image in told["images"]:
        chip = Path(image["file_name"]).stem
        here = [a for a in told["annotations"] if a["image_id"] == image["id"]]
        found = np.zeros(ids.shape[1:], ids.dtype)
        for one in here:
            mask = decoded(one["segmentation"])
            found[mask] = one["instance"]
            assert set(labels.fields.sel(chip=chip).to_numpy()[mask].tolist()) == {one["category_id"]}
        np.testing.assert_array_equal(found, ids.sel(chip=chip))
        ds = images.sel(chip=chip)
        best = int(ds.clear.argmax("time"))
        with rasterio.open(out / image["file_name"]) as file:
            np.testing.assert_array_equal(file.read(), ds.reflectance.isel(time=best))
        assert image["date_captured"] == f"{ds.acquired[best].to_numpy().astype('datetime64[s]')}Z"


WIDER = """\
name: sites
time: 2021-04-01/2021-05-01
catalog: catalog.json
grid: {scheme: points, places: sites.csv, id_column: site, resolution_m: 10, size_px: 32, min_cover: 0.01}
sources:
  s2: {collection: sentinel-2-l2a, bands: [red], mask: {hide: [void]}, size_m: 640}
  dem: {collection: cop-dem-glo-30, resolution_m: 20}
split: {block_km: 3, buffer_km: 0, shares: {train: 1, val: 0, test: 0}}
"""


def test_sources_with_wider_chips_and_coarser_pixels_lie_where_they_do(world: World, tmp_path: Path) -> None:
    (world.folder / "sites.csv").write_text("site,lon,lat\nc.3,18.004,48.297\n")
    (world.folder / "wider.yaml").write_text(WIDER)
    dataset = tmp_path / "dataset"
    build(
        make_request(aoi=str(world.region), recipe=str(world.folder / "wider.yaml"), out=str(dataset)), PlainConsole()
    )
    run(dataset, tmp_path / "tiffs", to="geotiff")
    run(dataset, tmp_path / "tars", to="webdataset")
    corners = {group: raw(dataset, group).isel(chip=0) for group in ("s2", "dem")}
    assert float(corners["dem"].x0 - corners["s2"].x0) == 160
    for row in listed(tmp_path / "tiffs"):
        ds = corners[row["array"].split("/")[0]]
        with rasterio.open(tmp_path / "tiffs" / row["path"]) as file:
            assert (file.transform.c, file.transform.f) == (float(ds.x0), float(ds.y0))
            assert file.transform.a == ds.attrs["resolution_m"]
    ds = corners["s2"]
    sample = ChipDataset(str(dataset), ["s2"])[0]
    x0, y0 = float(ds.x0), float(ds.y0)
    assert np.asarray(sample["bbox"]).tolist() == [x0, y0 - 640, x0 + 640, y0]
    with tarfile.open(tmp_path / "tars" / "train-000000.tar") as tar:
        assert {name.split(".")[0] for name in tar.getnames()} == {"c%2E3"}
        content = tar.extractfile("c%2E3.json")
        assert content is not None
        told = json.load(content)
    assert (told["chip"], told["arrays"]["s2.reflectance"]["x0"]) == ("c.3", x0)


def test_the_command_writes_where_it_is_told_and_fails_with_a_sentence(
    dataset: Path, tmp_path: Path, curate: Curate
) -> None:
    out = tmp_path / "tiffs"
    done = curate("export", dataset, "--to", "geotiff", "--out", out, "--split", "val", "--group", "dem")
    assert done.returncode == 0, done.stderr
    chips = {row["chip"] for row in listed(out)}
    assert done.stdout == f"{out}: {len(chips)} files of {len(chips)} chips written\n"
    failed = curate("export", dataset, "--to", "coco", "--label", "parcels", "--out", tmp_path / "coco")
    assert failed.returncode == 4
    assert "has no instances called 'parcels'; found none" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_damaged_dataset_is_neither_exported_nor_reported_as_if_it_were_void(dataset: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(dataset, tmp_path / "damaged"))
    victim = next(path for path in sorted((damaged / "chips.zarr/s2/reflectance/c").rglob("*")) if path.is_file())
    whole = victim.read_bytes()
    name = str(victim.relative_to(damaged))
    victim.unlink()  # Zarr reads void where there is no object
    for command in (
        lambda: run(damaged, tmp_path / "gone", to="geotiff"),
        lambda: write_report(str(damaged), str(tmp_path / "report.html")),
    ):
        with pytest.raises(StoreError, match=f"{name} is missing; the dataset is damaged"):
            command()
    victim.write_bytes(whole[:-9])
    with pytest.raises(StoreError, match=f"{name} has {len(whole) - 9} bytes, it was written with {len(whole)}"):
        run(damaged, tmp_path / "short", to="webdataset")
    victim.write_bytes(bytes(len(whole)))
    with pytest.raises(StoreError, match=r"s2/reflectance cannot be read \(.*'curate check' tells more"):
        run(damaged, tmp_path / "zeros", to="geotiff", splits=("train", "val", "buffer"))


def test_an_index_that_is_cut_short_is_told_in_a_sentence(dataset: Path, tmp_path: Path, curate: Curate) -> None:
    damaged = Path(shutil.copytree(dataset, tmp_path / "damaged"))
    (damaged / "chips.parquet").write_bytes(b"PAR1")
    for asked in (["info", damaged], ["report", damaged, "--out", tmp_path / "report.html"]):
        told = curate(*asked)
        assert told.returncode == 4
        assert "chips.parquet is damaged" in told.stderr
        assert "Traceback" not in told.stderr


def test_what_cannot_be_exported_is_said_in_a_sentence(dataset: Path, tiffs: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no label with instances; ask for them in the recipe"):
        run(dataset, tmp_path / "a", to="coco")
    assert not (tmp_path / "a").exists()
    with pytest.raises(StoreError, match="has no source 'landsat'"):
        run(dataset, tmp_path / "b", to="geotiff", groups=("landsat",))
    with pytest.raises(StoreError, match="no chips of split holdout"):
        run(dataset, tmp_path / "c", to="geotiff", splits=("holdout",))
    with pytest.raises(OutputError, match="with other options"):
        run(dataset, tiffs, to="geotiff", splits=("train",))
    with pytest.raises(OutputError, match="is no export"):
        run(dataset, dataset, to="geotiff")
    with pytest.raises(OutputError, match="local folder"):
        export(str(dataset), ExportSpec(to="geotiff"), "s3://bucket/x", PlainConsole())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        run(dataset, tmp_path / "file", to="geotiff")
