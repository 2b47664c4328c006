"""Uncertain pixels take the class of most pixels around them that look alike: segment-wise relabelling.

After the idea of SAModified (segments of an image, label statistics in each). The rule is our own, because we know no
thresholds of the paper's. What draws the segments is a choice: one of two in scikit-image, or any function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types

from labels.layers import Layer, arrays_of, check_hook, layer_of, resolve
from labels.legend import Legend
from labels.source import Derived, LabelVariable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Segmenter = Callable[["NDArray[np.float64]"], "NDArray[np.integer[Any]]"]
"""From an image (y, x, band), float64 without NaN, each band about 0 to 1, to a number for each segment (y, x)."""

Share = Annotated[float, annotated_types.Interval(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class RelabelSpec:
    """A class label whose uncertain pixels follow their segment of an image."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ()

    of: str
    """Label to relabel."""
    segments: str
    """What draws the segments: `felzenszwalb`, `slic`, or `module:function` of your own."""
    image: str
    """Source whose pixels are segmented, e.g. `s2`."""
    confidence: str | None = None
    """Variable with the confidence of each pixel, e.g. `consensus_agreement`."""
    min_confidence: float | None = None
    """Pixels below it are uncertain; in the units of `confidence`."""
    min_share: Share = 0.1
    """Pixels whose class has less than this share of its segment are uncertain. 0: only `confidence` decides, which is
    the safer where it is known; large shares rewrite small fields that are right (`docs/derived.md`)."""
    min_px: Annotated[int, annotated_types.Ge(1)] = 20
    """Labelled pixels that a segment needs to decide."""
    min_purity: Share = 0.6
    """Share of its labelled pixels that the most frequent class of a segment needs to decide."""
    rest: Literal["keep", "ignore"] = "keep"
    """Uncertain pixels of segments that do not decide: keep their class, or have none."""
    scale: Annotated[float, annotated_types.Gt(0)] = 50.0
    """felzenszwalb: larger makes larger segments."""
    size_px: Annotated[int, annotated_types.Ge(1)] = 60
    """slic: pixels of a segment, about."""
    min_labelled: Share = 0.0
    """Share of a chip that should have a class; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        if self.segments not in SEGMENTERS:
            try:
                check_hook(self.segments)
            except ValueError as error:
                raise ValueError(f"segments is none of {', '.join(SEGMENTERS)}, and {error}") from error
        if (self.confidence is None) != (self.min_confidence is None):
            raise ValueError("confidence and min_confidence need each other: the variable, and the limit")
        for name in ("min_share", "min_purity"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, wanted a share of 0 to 1")
        if self.min_px < 1 or self.size_px < 1 or not self.scale > 0:
            raise ValueError("min_px, size_px and scale must be above 0")


def felzenszwalb(image: NDArray[np.float64], spec: RelabelSpec) -> NDArray[np.integer[Any]]:
    """Segments (y, x) by Felzenszwalb and Huttenlocher (2004), of at least ``min_px`` pixels."""
    import warnings

    from skimage import segmentation

    # It warns of more than three bands, which is what we have. A filter, and not `catch_warnings`: that one is not
    # safe on threads, where shards run.
    warnings.filterwarnings("ignore", "Got image with third dimension", RuntimeWarning)
    drawn: NDArray[np.integer[Any]] = segmentation.felzenszwalb(
        image, scale=spec.scale, sigma=0.8, min_size=spec.min_px, channel_axis=-1
    )
    return drawn


def slic(image: NDArray[np.float64], spec: RelabelSpec) -> NDArray[np.integer[Any]]:
    """Segments (y, x) by SLIC (Achanta et al. 2012), about ``size_px`` pixels each."""
    from skimage import segmentation

    n = max(1, image.shape[0] * image.shape[1] // spec.size_px)
    # Compactness weighs place against colour. With colours of 0 to 1, at 0.1 a quarter of the segments is left over
    # when those that are not connected have been joined.
    drawn: NDArray[np.integer[Any]] = segmentation.slic(
        image, n_segments=n, compactness=1.0, channel_axis=-1, convert2lab=False, start_label=0
    )
    return drawn


SEGMENTERS: dict[str, Callable[[Any, RelabelSpec], Any]] = {"felzenszwalb": felzenszwalb, "slic": slic}
"""The segmenters that a recipe can name."""


def segment(image: NDArray[Any], segmenter: Segmenter) -> NDArray[np.int64]:
    """Segments (y, x) of an image (band, y, x) with NaN as void, numbered from 0; -1 where any band is void.

    Each band is stretched to 0…1 between its 2nd and 98th percentile, so that none decides by its units alone.
    """
    import numpy as np

    pixels = np.asarray(image, np.float64)
    void = ~np.isfinite(pixels).all(axis=0)
    segments = np.full(void.shape, -1, np.int64)
    if void.all():
        return segments
    bands = np.empty((*void.shape, len(pixels)))
    for i, band in enumerate(pixels):
        low, middle, high = np.percentile(band[~void], (2, 50, 98))
        stretched = (np.where(void, middle, band) - low) / (high - low if high > low else 1.0)
        bands[..., i] = np.clip(stretched, 0.0, 1.0)
    drawn = np.asarray(segmenter(bands))
    if drawn.shape != void.shape or not np.issubdtype(drawn.dtype, np.integer):
        raise ValueError(f"the segmenter gave {drawn.dtype} {drawn.shape}, wanted whole numbers {void.shape}")
    segments[~void] = np.unique(drawn[~void], return_inverse=True)[1].ravel()
    return segments


def relabel(
    classes: NDArray[Any],
    segments: NDArray[np.integer[Any]],
    *,
    ignore: int,
    confidence: NDArray[Any] | None = None,
    min_confidence: float | None = None,
    min_share: float = 0.1,
    min_px: int = 20,
    min_purity: float = 0.6,
    rest: Literal["keep", "ignore"] = "keep",
) -> NDArray[Any]:
    """The classes (y, x), where uncertain pixels have the most frequent class of their segment.

    Of a segment only pixels with a class count. It decides with at least ``min_px`` of them and a most frequent class
    (of equal ones the smallest code) that has at least the share ``min_purity``. A pixel is uncertain when its class
    has less than ``min_share`` of its segment, or its confidence is below ``min_confidence`` or unknown (NaN). Pixels
    without a class stay so: a segment is no evidence where there is no label.

    Args:
        classes: Codes.
        segments: A number a segment; pixels below 0 are in none and stay as they are.
        ignore: Value of pixels without a class.
        confidence: (y, x), with ``min_confidence``.
        min_confidence: See above.
        min_share: See above.
        min_px: See above.
        min_purity: See above.
        rest: Uncertain pixels whose segment does not decide keep their class, or get ``ignore``.
    """
    import numpy as np

    out = np.array(classes)
    counted = (classes != ignore) & (segments >= 0)
    if not counted.any():
        return out
    codes, code_at = np.unique(classes[counted], return_inverse=True)
    _, segment_at = np.unique(segments[counted], return_inverse=True)
    key = segment_at.ravel().astype(np.int64) * len(codes) + code_at.ravel()
    pairs, pair_at, n_pair = np.unique(key, return_inverse=True, return_counts=True)
    of_segment = pairs // len(codes)
    n_segment = np.bincount(of_segment, n_pair).astype(np.int64)
    # Pairs are sorted by segment and then by code: a stable sort by falling numbers leaves the smallest code first.
    order = np.lexsort((pairs, -n_pair, of_segment))
    first = order[np.unique(of_segment[order], return_index=True)[1]]
    best, purity = codes[pairs[first] % len(codes)], n_pair[first] / n_segment
    decides = (n_segment >= min_px) & (purity >= min_purity)

    unsure = (n_pair / n_segment[of_segment])[pair_at.ravel()] < min_share
    if confidence is not None and min_confidence is not None:
        unsure |= ~(np.asarray(confidence)[counted] >= min_confidence)
    decided = decides[segment_at.ravel()]
    changed = out[counted]
    changed[unsure & decided] = best[segment_at.ravel()][unsure & decided]
    if rest == "ignore":
        changed[unsure & ~decided] = ignore
    out[counted] = changed
    return out


@dataclass(frozen=True)
class RelabelLabel:
    """A class label, relabelled by segments on a chip; see ``relabel_label``."""

    name: str
    spec: RelabelSpec
    legend: Legend
    variables: tuple[LabelVariable, ...]
    ignore: int
    confidence_fill: float | None = field(default=None, repr=False)

    @property
    def needs(self) -> tuple[str, ...]:
        """The label to relabel, and the confidence if there is one."""
        return (self.spec.of,) if self.spec.confidence is None else (self.spec.of, self.spec.confidence)

    @property
    def image_needs(self) -> tuple[str, ...]:
        """Source whose pixels (band, y, x), float with NaN as void, are wanted as ``found["image:<source>"]``."""
        return (self.spec.image,)

    def derive(self, found: Mapping[str, NDArray[Any]]) -> Derived:
        """Classes and changed pixels of one chip; values ``relabelled`` and ``dropped`` are shares of all pixels."""
        import numpy as np

        spec = self.spec
        key = f"image:{spec.image}"
        arrays = arrays_of(self.name, found, (*self.needs, key))
        classes, image = arrays[0], arrays[-1]
        confidence = None
        if spec.confidence is not None:
            confidence = arrays[1].astype(np.float64)
            confidence[arrays[1] == self.confidence_fill] = np.nan
        segments = segment(image, self._segmenter())
        settled = relabel(
            classes, segments, ignore=self.ignore, confidence=confidence, min_confidence=spec.min_confidence,
            min_share=spec.min_share, min_px=spec.min_px, min_purity=spec.min_purity, rest=spec.rest,
        )  # fmt: skip
        changed = settled != classes
        dropped = changed & (settled == self.ignore)
        return Derived(
            arrays={self.name: settled, f"{self.name}_changed": changed.astype(np.uint8)},
            values={"relabelled": float((changed & ~dropped).mean()), "dropped": float(dropped.mean())},
            reason="" if (segments >= 0).any() else f"{spec.image} has no pixel here, so nothing was relabelled",
        )

    def _segmenter(self) -> Segmenter:
        named = SEGMENTERS.get(self.spec.segments)
        if named is None:
            return resolve(self.name, self.spec.segments)
        return lambda image: named(image, self.spec)


def relabel_label(name: str, spec: RelabelSpec, sources: Mapping[str, Layer]) -> RelabelLabel:
    """The label that a spec describes: ``{name}`` (classes) and ``{name}_changed`` (0 or 1), each (y, x).

    Raises:
        LabelError: A label is missing or holds no classes, or the segmenter cannot be loaded.
    """
    layer = layer_of(sources, spec.of, name)
    fill = None
    if spec.confidence is not None:
        fill = float(layer_of(sources, spec.confidence, name, kinds=("measure", "presence")).variable.fill)
    if spec.segments not in SEGMENTERS:
        resolve(name, spec.segments)
    said = f"{spec.of}, relabelled by segments of {spec.image}"
    variables = (
        LabelVariable(
            name, layer.variable.dtype, layer.ignore, "classes",
            attrs={**layer.legend.attrs, "long_name": said, "segments": spec.segments},
        ),
        LabelVariable(
            f"{name}_changed", "uint8", 0, "presence",
            attrs={"long_name": f"differs from {spec.of}", "flag_values": [0, 1], "flag_meanings": "same changed"},
        ),
    )  # fmt: skip
    return RelabelLabel(name, spec, layer.legend, variables, layer.ignore, fill)
