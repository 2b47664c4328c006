"""Sentinel-2 scenes whose metadata do not say for sure whether the offset is in the pixels: then the pixels say it.

From baseline 04.00 on, a reflectance of 0 is stored as 1000, so hardly a pixel of land lies below; once the offset has
been taken out again, vegetation and shadows lie at 100 to 600. One coarse look at a few dark bands tells the two apart.
What was decided stands, with its reason, in the scene's radiometry, and so in the lock: it is looked at once.
"""

from __future__ import annotations

import concurrent.futures
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from catalog import sentinel2
from catalog.access import access
from catalog.radiometry import OFFSET_DN, OFFSET_SINCE
from catalog.scene import Asset, Radiometry, Scene
from curate.errors import CatalogError

if TYPE_CHECKING:
    import datetime as dt

    import numpy as np
    import numpy.typing as npt

    from catalog.lock import LockedItem

UNCERTAIN = "uncertain: "
"""How the reason of a radiometry begins that metadata alone could not decide."""
DARK_BANDS = ("blue", "red", "green", "coastal", "rededge071", "swir22")
"""Bands in which land has dark pixels everywhere but on snow, under cloud and in bright deserts; the first are best."""
BANDS = 2
"""Bands that are looked at; a pixel is as dark as the darker of them."""
LAND = (4, 5)
"""Vegetation and bare ground of the scene classification. Over water and in the shade of mountains the atmospheric
correction subtracts too much, and unshifted pixels come to lie below 1000 as well."""
LOOK_PX = 256
"""Side in pixels of a look, at least: an overview of a 60 m file is as good as one of 10 m."""
WHOLE_PX = 2048
"""Side up to which a file without overviews is read as a whole."""
FEW_PX = 200
"""Pixels of land below which nothing is decided."""
SHIFTED_FROM, RAW_UP_TO = 0.01, 0.0001
"""Share of land between 1 and 999: from the one on the pixels are shifted already, up to the other they are raw, if
there is dark land at all."""
DARK_DN = 1600
"""Raw pixels are believed to be raw where the darkest hundredth of the land is darker than this, a reflectance of 0.06:
a bright desert has nothing below 1000 either way."""
NEIGHBOURS, FARTHEST_DAYS = 3, 120
"""Dates of the same tile that a scene in between is held against, and how far away they may be."""
LOOKERS = 16
"""Files that are looked at at once."""


@dataclass(frozen=True, slots=True)
class Look:
    """How dark the land of a scene is, in stored numbers."""

    pixels: int
    below: float
    """Share of the pixels between 1 and 999."""
    dark: float
    """What a hundredth of the pixels is darker than."""
    bands: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.below:.2%} of {self.pixels} pixels of land lie below 1000 in {' and '.join(self.bands)}, a "
            f"hundredth below {self.dark:.0f}"
        )


def settle(rows: Sequence[LockedItem], known: Sequence[LockedItem] = ()) -> list[LockedItem]:
    """The rows of a Sentinel-2 source, with the offsets of uncertain scenes decided by their pixels where they can be.

    A scene that cannot be read, or whose pixels do not tell, keeps what its metadata say, stays ``uncertain`` and
    says why. Scenes before baseline 04.00 have no offset whatever their pixels are. ``known`` are further rows of the
    source, settled before, that these may be held against.
    """
    doubtful = [at for at, row in enumerate(rows) if row.status == "used" and row.scene and is_doubtful(row.scene)]
    if not doubtful:
        return list(rows)
    scenes = [row.scene for row in (*known, *rows) if row.status == "used" and row.scene is not None]
    settled = list(rows)
    with concurrent.futures.ThreadPoolExecutor(LOOKERS) as pool:
        found = pool.map(lambda at: decided(rows[at].scene, scenes), doubtful)  # type: ignore[arg-type]
        for at, radiometry in zip(doubtful, found, strict=True):
            scene = rows[at].scene
            assert scene is not None
            settled[at] = replace(rows[at], scene=replace(scene, radiometry=radiometry))
    return settled


def is_doubtful(scene: Scene) -> bool:
    """Whether the offset of a Sentinel-2 scene is a matter of its pixels."""
    number = sentinel2.baseline_number(scene.baseline)
    return scene.radiometry.why.startswith(UNCERTAIN) and (number is None or number >= OFFSET_SINCE)


def decided(scene: Scene, others: Sequence[Scene]) -> Radiometry:
    """The radiometry of an uncertain scene after a look at its pixels; ``others`` are the scenes of its source."""
    said = scene.radiometry
    about = said.why.removeprefix(UNCERTAIN)
    try:
        seen = look(scene)
    except _Unseen as error:
        return replace(said, why=f"{said.why} (pixels do not tell: {error})")
    offset = _by_share(seen)
    how = f"pixels: {seen}"
    if offset is None and (middle := _neighbours(scene, others)) is not None:
        offset = min((0, OFFSET_DN), key=lambda shift: abs(seen.dark + shift - middle))
        how = f"{how}; on neighbouring dates below {middle:.0f}"
    if offset is None:
        return replace(said, why=f"{said.why} (pixels do not tell: {seen})")
    verdict = "already shifted, no offset" if offset == 0 else f"raw, offset {OFFSET_DN}"
    against = " against" if offset != said.offset_dn else ""
    return replace(said, offset_dn=offset, why=f"{how}: {verdict};{against} {about}")


def _by_share(seen: Look) -> int | None:
    """The offset that the share of dark pixels tells, or None."""
    if seen.below > SHIFTED_FROM:
        return 0
    return OFFSET_DN if seen.below < RAW_UP_TO and seen.dark < DARK_DN else None


def _neighbours(scene: Scene, others: Sequence[Scene]) -> float | None:
    """How dark the land of the tile is on the nearest certain dates, after their offsets; None when there is none."""
    import statistics

    if scene.acquired is None or scene.tile is None:
        return None
    near = [
        other
        for other in others
        if other.tile == scene.tile
        and other.id != scene.id
        and not other.radiometry.why.startswith(UNCERTAIN)
        and _days(scene.acquired, other.acquired) <= FARTHEST_DAYS
    ]
    near.sort(key=lambda other: (_days(scene.acquired, other.acquired), other.id))
    dark = []
    for other in near[:NEIGHBOURS]:
        try:
            dark.append(look(other).dark + other.radiometry.offset_dn)
        except _Unseen:
            continue
    return statistics.median(dark) if dark else None


def _days(one: dt.datetime | None, other: dt.datetime | None) -> float:
    return math.inf if one is None or other is None else abs((one - other).total_seconds()) / 86400


class _Unseen(Exception):
    """Why there is nothing to decide by."""


def look(scene: Scene) -> Look:
    """How dark the land of a scene is, from the smallest overviews of its files that are large enough."""
    import numpy as np

    assets = [asset for name in DARK_BANDS for asset in scene.assets if asset.band == name][:BANDS]
    if not assets:
        raise _Unseen(f"none of {', '.join(DARK_BANDS)} is read")
    shape = _look_shape(assets[0].shape)
    darkest: npt.NDArray[np.int64] | None = None
    for asset in assets:
        pixels = _read(asset, scene.signing, shape).astype(np.int64)
        darkest = pixels if darkest is None else np.minimum(darkest, pixels)
    assert darkest is not None
    there = _away_from_void(darkest > 0)
    classes = next((asset for asset in scene.assets if asset.band == "scl"), None)
    if classes is not None:
        there &= np.isin(_read(classes, scene.signing, shape), LAND)
    land = darkest[there]
    if len(land) < FEW_PX:
        raise _Unseen(f"only {len(land)} pixels of clear land were found in a coarse look")
    below = float(np.mean(land < -OFFSET_DN))
    return Look(len(land), below, float(np.percentile(land, 1)), tuple(asset.band for asset in assets))


def _look_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the smallest overview, by powers of two, that is no smaller than a look."""
    step = 2 ** max(0, math.floor(math.log2(max(1, min(shape) / LOOK_PX))))
    return max(1, round(shape[0] / step)), max(1, round(shape[1] / step))


def _read(asset: Asset, signing: str | None, shape: tuple[int, int]) -> npt.NDArray[np.generic]:
    """A file in so many rows and columns, from its overviews."""
    import rasterio
    from rasterio.errors import RasterioError

    try:
        reach = access(asset.href, signing)
    except (CatalogError, OSError) as error:
        raise _Unseen(f"band {asset.band} cannot be reached: {error}") from error
    try:
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            reach.env(),
            rasterio.open(reach.url) as file,
        ):
            if not file.overviews(asset.layer) and max(file.shape) > WHOLE_PX:
                raise _Unseen(f"band {asset.band} has no overviews, and reading all of it costs too much")
            pixels: npt.NDArray[np.generic] = file.read(asset.layer, out_shape=shape)
            return pixels
    except (RasterioError, OSError, IndexError) as error:
        raise _Unseen(f"band {asset.band} cannot be read: {reach.hide(str(error))}") from None


def _away_from_void(valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Valid pixels whose eight neighbours are valid too: overviews mix the void of an edge with what lies beside it."""
    import numpy as np

    padded = np.pad(valid, 1, constant_values=True)
    rows, cols = valid.shape
    inner = valid.copy()
    for y in range(3):
        for x in range(3):
            inner &= padded[y : y + rows, x : x + cols]
    return inner
