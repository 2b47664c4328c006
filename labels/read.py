"""Open a label, or make ready one that is derived from others: one function for every kind of label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labels.agreement import AgreeSpec, agreement_label
from labels.caption import CaptionSpec, caption_label
from labels.change import ChangeSpec, change_label
from labels.layers import Layer
from labels.legend import Legend, find_product, is_file
from labels.measure import open_measure
from labels.measure_spec import MeasureSpec
from labels.ordinal import OrdinalSpec, ordinal_label
from labels.osm import OsmSource, open_osm
from labels.osm_spec import OsmLabel
from labels.points import PointCounts, open_points
from labels.points_spec import PointsSpec
from labels.rasters import Reach, open_raster
from labels.scenes import SceneSpec, scene_label
from labels.segments import RelabelSpec, relabel_label
from labels.source import ChipLabel, LabelSource
from labels.spec import DerivedSpec, DrawnSpec, LabelSpec, ProductLabel, RasterLabel, VectorLabel
from labels.targets import PanopticTargets, ParcelTargets, Part
from labels.translate import TranslateSpec, translated_label
from labels.vectors import MARGIN_M, VectorSource, open_vector
from labels.zonal import HistogramSpec, ZonalSpec, histogram_label, zonal_label

if TYPE_CHECKING:
    from tiling.aoi import Aoi


def open_label(
    name: str,
    spec: DrawnSpec,
    *,
    aoi: Aoi,
    rasters: Sequence[str] = (),
    margin_m: float = MARGIN_M,
    reach: Callable[[str], Reach] | None = None,
    interval: tuple[datetime, datetime] | None = None,
) -> tuple[LabelSource, ...]:
    """A label ready to draw; the first one gives its main variable, others what is made of it.

    Args:
        name: Its name in the recipe; stands in errors.
        spec: What the recipe says about it, with absolute paths.
        aoi: Area of interest: what lies further away than ``margin_m`` is not read.
        rasters: Files of a product, found by the caller; where they overlap, the first valid one wins.
        margin_m: At least the side of a chip.
        reach: How an address is opened, asked just before each opening (a signature lives shorter than a build).
        interval: Of the images, half-open, UTC.

    Raises:
        LabelError: The file, a column or a class is missing, or nothing of it lies in the area.
        ReadError: A raster cannot be opened.
    """
    match spec:
        case VectorLabel():
            vector = open_vector(name, spec, aoi=aoi, margin_m=margin_m)
            return (vector, *_parcel_targets(vector, spec))
        case RasterLabel() | ProductLabel():
            return (open_raster(name, spec, aoi=aoi, rasters=rasters, reach=reach),)
        case OsmLabel():
            return (open_osm(name, spec, aoi=aoi, margin_m=margin_m),)
        case MeasureSpec():
            return (open_measure(name, spec, aoi=aoi),)
        case PointsSpec():
            return (open_points(name, spec, aoi=aoi, margin_m=margin_m, interval=interval),)


def own_label(
    spec: LabelSpec, drawn: Sequence[LabelSource], *, epsg: int, resolution_m: float
) -> PanopticTargets | PointCounts | None:
    """What a label that is drawn tells of each chip by itself: panoptic targets of parcels, counts of points.

    Args:
        spec: What the recipe says about it.
        drawn: What ``open_label`` gave for it.
        epsg: UTM zone in which whole parcels are measured.
        resolution_m: Side of the grid's pixels.
    """
    if isinstance(spec, PointsSpec):
        return PointCounts(drawn[0].name, drawn[0].name, spec.min_points)
    if not isinstance(spec, VectorLabel) or "panoptic" not in spec.targets:
        return None
    vector = drawn[0]
    assert isinstance(vector, VectorSource)
    return PanopticTargets(
        vector.name,
        ids=vector.id_name,
        classes=vector.variables[0],
        resolution_m=resolution_m,
        background=spec.background,
        table=vector.table(epsg),
    )


def derive_label(name: str, spec: DerivedSpec, layers: Mapping[str, Layer]) -> ChipLabel:
    """A label that is made from others on each chip.

    Args:
        name: Its name in the recipe; stands in errors.
        spec: What the recipe says about it, with absolute paths.
        layers: Every variable that exists already, by name.

    Raises:
        LabelError: A label that it is made from is missing, or is not of the kind that it needs.
    """
    match spec:
        case AgreeSpec():
            return agreement_label(name, spec, layers)
        case TranslateSpec():
            return translated_label(name, spec, layers)
        case RelabelSpec():
            return relabel_label(name, spec, layers)
        case SceneSpec():
            return scene_label(name, spec, layers)
        case ChangeSpec():
            return change_label(name, spec, layers)
        case ZonalSpec():
            return zonal_label(name, spec, layers)
        case HistogramSpec():
            return histogram_label(name, spec, layers)
        case OrdinalSpec():
            return ordinal_label(name, spec, layers)
        case CaptionSpec():
            return caption_label(name, spec, layers)


def layers_of(label: LabelSource | ChipLabel, spec: LabelSpec, known: Mapping[str, Layer]) -> dict[str, Layer]:
    """The variables of a label with what their codes mean and which product they are from.

    Args:
        label: Opened, or made ready.
        spec: What the recipe says about it.
        known: The layers that it may be made from.
    """
    product, year, nomenclature = None, None, None
    match spec:
        case ProductLabel():
            product, year, nomenclature = spec.product, spec.year, spec.product
        case OsmLabel():
            assert isinstance(label, OsmSource)
            nomenclature = label.nomenclature
        case RasterLabel() | VectorLabel() if spec.legend is not None and not is_file(spec.legend):
            nomenclature = find_product(spec.legend).name
        case TranslateSpec():
            before = known[spec.of]
            product, year = before.product, before.year
            nomenclature = None if spec.table is not None else find_product(spec.to).name
    return {v.name: Layer(v, Legend.of_attrs(v.attrs), product, year, nomenclature) for v in label.variables}


def _parcel_targets(vector: VectorSource, spec: VectorLabel) -> tuple[ParcelTargets, ...]:
    parts: tuple[Part, ...] = tuple(part for part in spec.targets if part != "instances" and part != "panoptic")
    if not parts:
        return ()
    made = ParcelTargets(
        vector.name, vector, vector.id_name, parts,
        width_px=spec.boundary_px, max_px=spec.distance_px, complete=spec.complete,
    )  # fmt: skip
    return (made,)


def class_shares(pixels: NDArray[np.unsignedinteger[Any]], ignore: int) -> dict[int, float]:
    """Share of all pixels, 0 to 1, of each class that occurs, by code. They sum up to the labelled share."""
    n = np.bincount(pixels.ravel())
    return {int(code): float(n[code] / pixels.size) for code in np.flatnonzero(n) if code != ignore}
