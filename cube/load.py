"""Reads scenes onto a pixel grid: the only module of ``cube`` that opens files.

Readers are interchangeable and give equal pixels. What they get are items built here from our own Scenes, so no
endpoint's habit (scale, offset, ``proj:`` version, footprint) reaches them. A file that cannot be read is an error
that names the file; it never becomes void.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.windows import Window as PixelWindow

from catalog.access import Access, access
from cube.radar import AMPLITUDE
from cube.warp import UnusableFile, placement, read_onto
from curate.errors import ReadError
from curate.remote import HTTP, persistent
from curate.telling import about, carried, count

if TYPE_CHECKING:
    import numpy.typing as npt
    import pystac
    import xarray as xr

    from catalog.scene import Asset, Scene

DIMS = ("time", "band", "y", "x")

GDAL_ENV: dict[str, Any] = {
    **HTTP,
    # Blocks are read once, so a large cache only adds to the peak (GDAL's default is 5 % of the machine's memory).
    "GDAL_CACHEMAX": 128,
}

REMOTE_THREADS = 16
"""Threads that wait for a server cost little; 16 hide 40 ms a request on two cores."""

EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
"""Items carry the position of their step as days after this one, because readers sort and group by time."""

BROKEN = (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError)
"""What a server's bad answer makes of itself, and a bad file too."""
READ_FAILURES = (*BROKEN, UnusableFile)
"""What a bad file makes of itself."""


NO_FILE = "scene://none"
"""Stands where a scene lacks a band."""


class Reader(Protocol):
    """Reads steps of scenes onto one grid."""

    def __call__(
        self,
        steps: Sequence[Sequence[Scene]],
        bands: Sequence[str],
        geobox: GeoBox,
        *,
        resampling: str,
        dtype: str,
        fill: float | int,
        chunks: int | None = None,
    ) -> xr.DataArray:
        """Stored numbers (no scale, no offset) of dims ``(time, band, y, x)``, time counting the steps from 0.

        Args:
            steps: Scenes of each step of time; within a step the first scene with a valid pixel wins. A scene
                without one of the bands adds nothing to it.
            bands: Our band names.
            geobox: Grid that comes out; any CRS, north up.
            resampling: GDAL's name of the method.
            dtype: dtype that comes out.
            fill: Void of what comes out. Void in a file is what the file says, else what its asset says.
            chunks: Side in pixels of a lazy (Dask) block; None reads at once, with threads.

        Raises:
            ReadError: A file is missing, damaged, not a raster, or does not hold the layer it should.
        """
        ...


class PixelReader(Protocol):
    """Reads as a ``Reader`` does, at once, also into a plain array: to import xarray, with Dask, takes seconds."""

    def __call__(
        self,
        steps: Sequence[Sequence[Scene]],
        bands: Sequence[str],
        geobox: GeoBox,
        *,
        resampling: str,
        dtype: str,
        fill: float | int,
    ) -> xr.DataArray | npt.NDArray[Any]:
        """See ``Reader``."""
        ...


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to be read, and whose it is."""

    scene: str
    band: str
    href: str
    """As in the scene, unsigned: it is signed each time it is opened."""
    layer: int
    nodata: float | None
    amplitude: bool = False
    """Holds amplitudes, and power is wanted."""
    dtype: str | None = None
    """Of its numbers, as the catalog has it."""
    signing: str | None = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[rasterio.DatasetReader]:
        """The file, with a fresh signature and the settings of its server."""
        reach = self.reach()
        with reach.env(), rasterio.open(reach.url, sharing=False) as source:
            yield source

    def reach(self) -> Access:
        """How to open the file now. Raises ReadError when nobody gives the token that it needs."""
        try:
            return access(self.href, self.signing)
        except OSError as error:
            why = (
                f"{self.href} needs a token, and the token service of {self.signing} gives none ({error}); run the "
                "same command again later, and see whether this machine reaches the service"
            )
            raise ReadError(self.scene, self.band, why) from None  # the cause may not be picklable

    def failed(self, error: BaseException) -> ReadError:
        """The error that names the file, without its signature."""
        return ReadError(self.scene, self.band, why_unreadable(self.reach(), self.layer, error))


def read_odc(
    steps: Sequence[Sequence[Scene]],
    bands: Sequence[str],
    geobox: GeoBox,
    *,
    resampling: str,
    dtype: str,
    fill: float | int,
    chunks: int | None = None,
) -> xr.DataArray:
    """Read with odc-stac; see ``Reader``."""
    import odc.stac
    import pystac
    import xarray as xr

    from cube.load_odc import OdcDriver

    items, files = _items(steps, bands, geobox)
    if not items:
        return _empty(len(steps), bands, geobox, dtype, fill)
    for item in items:
        for band in set(bands) - set(item.assets):
            # odc-stac takes the first item for a model of all.
            item.add_asset(band, pystac.Asset(NO_FILE, media_type=pystac.MediaType.COG))
    with rasterio.Env(**GDAL_ENV):
        loaded = odc.stac.load(
            items,
            bands=list(bands),
            geobox=geobox,
            groupby="time",
            preserve_original_order=True,
            resampling=resampling,
            dtype=dtype,
            nodata=fill,
            fail_on_error=True,
            # Overviews are made with a resampling that nobody wrote down.
            use_overviews=False,
            chunks=None if chunks is None else {"y": chunks, "x": chunks},
            pool=None if chunks is not None else threads_for(files.values()),
            driver=OdcDriver(files),
        )
    layers = [xr.DataArray(loaded[band].data, dims=("time", "y", "x")) for band in bands]
    return _on_steps(xr.concat(layers, "band").transpose(*DIMS), items, len(steps), bands, fill)


def read_file(file: SourceFile, geobox: GeoBox, *, resampling: str, dtype: str, fill: float | int) -> npt.NDArray[Any]:
    """One file on a pixel grid, dims ``(y, x)``; every reader comes through here."""

    def read() -> npt.NDArray[Any]:
        with file.opened() as source:
            _check_sign(file, source, dtype)
            return read_onto(
                source,
                file.layer,
                file.nodata,
                geobox,
                resampling=resampling,
                dtype=dtype,
                fill=fill,
                amplitude=file.amplitude,
            )

    count("read")
    try:
        with about(scene=file.scene, band=file.band):
            return persistent(read, file.href, BROKEN)
    except READ_FAILURES as error:
        raise file.failed(error) from error


def _check_sign(file: SourceFile, source: rasterio.DatasetReader, dtype: str) -> None:
    """Refuse whole numbers whose sign the catalog and the file disagree on: -1 would be read as 65535, or the reverse.

    Negative reflectances of Landsat Collection 1 have been exported as uint16; interpolating them cannot be undone.
    """
    if file.dtype is None or np.dtype(dtype).kind == "f" or file.layer > source.count:
        return
    found = source.dtypes[file.layer - 1]
    if {found, file.dtype} in ({"uint8", "int8"}, {"uint16", "int16"}, {"uint32", "int32"}):
        raise UnusableFile(
            f"it holds {found}, but the band is described as {file.dtype}; write the file anew as {file.dtype}, or "
            f"describe the band as {found} if no number is negative"
        )


def placed(scene: Scene, band: str) -> str | None:
    """How the file of a band without a grid is placed by its control points, and how well; None where it has a grid.

    Raises:
        ReadError: The file could not be read, or its points do not place it.
    """
    file = _file(scene, scene.asset(band))
    try:
        with rasterio.Env(**GDAL_ENV), file.opened() as source:
            return str(placement(source)) if source.gcps[0] and source.transform.is_identity else None
    except READ_FAILURES as error:
        raise file.failed(error) from error


def read_stackstac(
    steps: Sequence[Sequence[Scene]],
    bands: Sequence[str],
    geobox: GeoBox,
    *,
    resampling: str,
    dtype: str,
    fill: float | int,
    chunks: int | None = None,
) -> xr.DataArray:
    """Read with stackstac; see ``Reader``."""
    import stackstac
    import xarray as xr

    items, files = _items(steps, bands, geobox)
    if not items:
        return _empty(len(steps), bands, geobox, dtype, fill)
    for item in items:
        for asset in item.assets.values():
            # stackstac makes its readers from the href alone, also on a worker far away.
            asset.href = json.dumps(asdict(files[asset.href]))
    with rasterio.Env(**GDAL_ENV):
        stack = stackstac.stack(
            [item.to_dict(transform_hrefs=False) for item in items],
            assets=list(bands),
            epsg=_epsg(geobox),
            bounds=tuple(geobox.boundingbox.bbox),
            resolution=(abs(geobox.resolution.x), abs(geobox.resolution.y)),
            snap_bounds=False,
            resampling=Resampling[resampling],
            chunksize=chunks or max(geobox.shape),
            dtype=np.dtype(dtype),
            # A plain 0 is refused for uint16: the fill must have the dtype of the pixels.
            fill_value=np.dtype(dtype).type(fill),
            # Scales of STAC 1.1 would silently not be applied; ours are, in cube.radiometry.
            rescale=False,
            sortby_date=False,
            xy_coords=False,
            properties=False,
            band_coords=False,
            # By default HTTP 404 becomes void.
            errors_as_nodata=(),
            reader=_StackstacFile,
        )
        of_step = [_index(item) for item in items]
        joined = [
            stackstac.mosaic(
                stack[[i for i, step in enumerate(of_step) if step == index]],
                dim="time",
                # By default the last scene is on top.
                reverse=True,
                nodata=fill,
            ).data
            for index in sorted(set(of_step))
        ]
        cube = xr.concat([xr.DataArray(step, dims=DIMS[1:]) for step in joined], "time")
        if chunks is None:
            cube = cube.load(scheduler="threads", num_workers=threads_for(files.values()))
    return _on_steps(cube, items, len(steps), bands, fill)


class _StackstacFile:
    """What stackstac calls a reader: one file, opened on demand."""

    def __init__(
        self, *, url: str, spec: Any, resampling: Resampling, dtype: Any, fill_value: float | int, **ignored: Any
    ) -> None:
        self._made_of = {"url": url, "spec": spec, "resampling": resampling, "dtype": dtype, "fill_value": fill_value}
        self._file = SourceFile(**json.loads(url))

    def read(self, window: PixelWindow, **ignored: Any) -> npt.NDArray[Any]:
        spec = self._made_of["spec"]
        (step_x, step_y), (left, _, _, top) = spec.resolutions_xy, spec.bounds
        corner = Affine(step_x, 0, left + window.col_off * step_x, 0, -step_y, top - window.row_off * step_y)
        with rasterio.Env(**GDAL_ENV):
            return read_file(
                self._file,
                GeoBox((int(window.height), int(window.width)), corner, f"EPSG:{spec.epsg}"),
                resampling=self._made_of["resampling"].name,
                dtype=str(self._made_of["dtype"]),
                fill=self._made_of["fill_value"],
            )

    def close(self) -> None:
        """Nothing stays open."""

    def __getstate__(self) -> dict[str, Any]:
        return self._made_of

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # the same object, made again


def read_rasterio(
    steps: Sequence[Sequence[Scene]],
    bands: Sequence[str],
    geobox: GeoBox,
    *,
    resampling: str,
    dtype: str,
    fill: float | int,
    chunks: int | None = None,
) -> xr.DataArray:
    """Read with threads and nothing between (``read_pixels``); see ``Reader``.

    ``chunks`` is not for this reader: it always reads at once.
    """
    import xarray as xr

    if chunks is not None:
        raise ValueError("the reader 'rasterio' reads at once; for lazy blocks take 'odc-stac' or 'stackstac'")
    cube = read_pixels(steps, bands, geobox, resampling=resampling, dtype=dtype, fill=fill)
    return xr.DataArray(cube, dims=DIMS, coords={"time": np.arange(len(steps)), "band": list(bands)})


def read_pixels(
    steps: Sequence[Sequence[Scene]],
    bands: Sequence[str],
    geobox: GeoBox,
    *,
    resampling: str,
    dtype: str,
    fill: float | int,
) -> npt.NDArray[Any]:
    """The ``PixelReader`` of rasterio. A scene is not opened where earlier ones leave no void."""
    cube = np.full((len(steps), len(bands), *geobox.shape), fill, dtype)
    jobs = []
    for index, step in enumerate(steps):
        for position, band in enumerate(bands):
            files = [_file(scene, asset) for scene in step for asset in scene.assets if asset.band == band]
            if files:
                jobs.append((cube[index, position], files))

    def join(job: tuple[npt.NDArray[Any], list[SourceFile]]) -> None:
        out, files = job
        with rasterio.Env(**GDAL_ENV):
            for position, file in enumerate(files):
                pixels = read_file(file, geobox, resampling=resampling, dtype=dtype, fill=fill)
                if position == 0:
                    out[...] = pixels
                    continue
                void = _is_void(out, fill)
                np.copyto(out, pixels, where=void)
                if not _is_void(out, fill).any():
                    break

    with ThreadPoolExecutor(threads_for(file for _, files in jobs for file in files)) as pool:
        for _ in pool.map(carried(join), jobs):
            pass
    return cube


def _is_void(pixels: npt.NDArray[Any], fill: float | int) -> npt.NDArray[np.bool_]:
    void: npt.NDArray[np.bool_] = np.isnan(pixels) if np.isnan(fill) else pixels == fill
    return void


READERS: dict[str, Reader] = {
    "odc-stac": read_odc,
    "stackstac": read_stackstac,
    "rasterio": read_rasterio,
}
PIXEL_READERS: dict[str, PixelReader] = {**READERS, "rasterio": read_pixels}
"""The same by the same names, for whoever wants arrays."""


def threads_for(files: Iterable[SourceFile]) -> int:
    """Threads worth having: one a core for local files, more where the wait is for a server."""
    cores = os.cpu_count() or 1
    return max(cores, REMOTE_THREADS) if any("://" in file.href for file in files) else cores


def why_unreadable(reach: Access, layer: int, error: BaseException) -> str:
    """One sentence on a file that could not be read: what was found, and what to do.

    What follows a ``?`` in an address is left out: it may be a signature.
    """
    href, reason = reach.url, reach.hide(str(error))
    place = href.partition("?")[0] if "://" in href else href
    if not href.startswith("/vsi") and "://" not in href:
        try:
            with open(href, "rb") as stream:
                head = stream.read(512)
        except FileNotFoundError:
            return f"{href} does not exist; fetch the file again or take the scene out of the lock"
        except OSError as cause:
            return f"{href} cannot be opened ({cause.strerror}); wanted a raster file that this user may read"
        if not head:
            return f"{href} is empty; fetch the file again"
        if head.lstrip()[:1] == b"<":
            return (
                f"{href} is a web page or an error message saved under this name, not a raster; "
                "the server may want a login: sign the request and fetch the file again"
            )
    with contextlib.suppress(*READ_FAILURES), rasterio.Env(**GDAL_ENV), reach.env(), rasterio.open(href) as source:
        if layer > source.count:
            return f"{place} has {source.count} layers, wanted layer {layer}; correct the asset's layer in the catalog"
        if isinstance(error, UnusableFile):
            return f"{place} is whole, but {reason}"
        return (
            f"{place} opens but part of it cannot be read, so it is damaged or cut off; fetch the file again ({reason})"
        )
    return f"{place} is not a raster that GDAL can open; fetch the file again ({reason})"


def _items(
    steps: Sequence[Sequence[Scene]], bands: Sequence[str], geobox: GeoBox
) -> tuple[list[pystac.Item], dict[str, SourceFile]]:
    """The least that a reader needs: an item a scene, and the files behind the tokens of its assets.

    The footprint is the whole grid, so that no reader leaves out a scene because its footprint is drawn too small;
    for the same reason the items say nothing of the grid of a file: the file itself knows better.
    """
    import pystac

    box = geobox.extent.to_crs("EPSG:4326", resolution=geobox.resolution.x * 64).buffer(0.01).boundingbox
    geometry = {"type": "Polygon", "coordinates": [[list(p) for p in box.polygon.exterior.points]]}
    items: list[pystac.Item] = []
    files: dict[str, SourceFile] = {}
    for index, step in enumerate(steps):
        for scene in step:
            item = pystac.Item(
                id=f"{index}/{scene.id}",
                geometry=geometry,
                bbox=list(box.bbox),
                datetime=EPOCH + dt.timedelta(days=index),
                properties={"proj:code": f"EPSG:{scene.epsg}"} if scene.epsg else {"proj:wkt2": scene.assets[0].wkt},
            )
            for asset in scene.assets:
                if asset.band not in bands:
                    continue
                token = f"scene://{len(items)}/{asset.band}"
                raster = {"data_type": asset.dtype}
                item.add_asset(
                    asset.band,
                    pystac.Asset(token, media_type=pystac.MediaType.COG, extra_fields={"raster:bands": [raster]}),
                )
                files[token] = _file(scene, asset)
            if item.assets:
                items.append(item)
    return items, files


def _file(scene: Scene, asset: Asset) -> SourceFile:
    """The file of an asset."""
    amplitude = scene.collection in AMPLITUDE and asset.dtype.startswith("uint")
    return SourceFile(
        scene.id, asset.band, asset.href, asset.layer, asset.nodata, amplitude, asset.dtype, scene.signing
    )


def _epsg(geobox: GeoBox) -> int:
    code = None if geobox.crs is None else geobox.crs.to_epsg()
    if code is None:
        raise ValueError(f"stackstac wants a grid with an EPSG code, not {geobox.crs}; take the reader 'rasterio'")
    return code


def _index(item: pystac.Item) -> int:
    """Position of the item's step."""
    assert item.datetime is not None
    return (item.datetime - EPOCH).days


def _on_steps(
    cube: xr.DataArray, items: Sequence[pystac.Item], n: int, bands: Sequence[str], fill: float | int
) -> xr.DataArray:
    """A cube of the steps that have an item, as a cube of all steps, without anything a reader hung onto it."""
    import xarray as xr

    present = sorted({_index(item) for item in items})
    array = xr.DataArray(cube.data, dims=DIMS, coords={"time": np.array(present), "band": list(bands)})
    return array if len(present) == n else array.reindex(time=np.arange(n), fill_value=fill)


def _empty(n: int, bands: Sequence[str], geobox: GeoBox, dtype: str, fill: float | int) -> xr.DataArray:
    """All void."""
    import xarray as xr

    return xr.DataArray(
        np.full((n, len(bands), *geobox.shape), fill, dtype),
        dims=DIMS,
        coords={"time": np.arange(n), "band": list(bands)},
    )
