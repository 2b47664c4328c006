from __future__ import annotations

import pickle
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from curate.errors import LabelError
from labels.layers import Layer
from labels.legend import LabelClass, Legend
from labels.segments import SEGMENTERS, RelabelSpec, relabel, relabel_label, segment
from labels.source import LabelVariable

LEGEND = Legend(tuple(LabelClass(code, f"class {code}") for code in range(1, 6)))
SOURCES = {
    "map": Layer(LabelVariable("map", "uint8", 255, "classes"), LEGEND),
    "trust": Layer(LabelVariable("trust", "uint8", 255, "measure")),
}


def relabel_slowly(classes: Any, segments: Any, trust: Any, limit: float, share: float, n: int, q: float) -> Any:
    out = classes.copy()
    for s in set(segments[segments >= 0].tolist()):
        inside = [at for at in np.ndindex(classes.shape) if segments[at] == s and classes[at] != 255]
        count = Counter(int(classes[at]) for at in inside)
        if len(inside) < n:
            continue
        best = min(code for code in count if count[code] == max(count.values()))
        if count[best] / len(inside) < q:
            continue
        for at in inside:
            if count[int(classes[at])] / len(inside) < share or trust[at] < limit:
                out[at] = best
    return out


@given(
    classes=npst.arrays(np.uint8, (8, 8), elements=st.sampled_from([1, 1, 1, 2, 3, 255])),
    segments=npst.arrays(np.int64, (8, 8), elements=st.integers(-1, 3)),
    trust=npst.arrays(np.float64, (8, 8), elements=st.floats(0, 1)),
    limit=st.sampled_from([0.0, 0.5, 1.0]),
    share=st.sampled_from([0.0, 0.3, 0.4]),
    q=st.sampled_from([0.4, 0.6, 0.9]),
)
def test_pixels_are_relabelled_as_a_loop_over_segments_would(
    classes: Any, segments: Any, trust: Any, limit: float, share: float, q: float
) -> None:
    ours = relabel(
        classes, segments, ignore=255, confidence=trust, min_confidence=limit, min_share=share, min_px=5, min_purity=q
    )
    np.testing.assert_array_equal(ours, relabel_slowly(classes, segments, trust, limit, share, 5, q))


def chip(n_other: int, n_px: int = 25) -> Any:
    """A row of one segment: ``n_other`` pixels of class 2, the rest of class 1."""
    classes = np.ones((1, n_px), np.uint8)
    classes[0, :n_other] = 2
    return classes


@pytest.mark.parametrize(
    ("classes", "n_changed"),
    [
        (chip(9), 9),  # 16 of 25 are 0.64, the others have 0.36 < 0.4
        (chip(10), 0),  # 0.6 is enough to decide, but 10 of 25 are 0.4: those are not uncertain
        (chip(11), 0),  # 14 of 25 are 0.56: undecided
        (chip(4, 19), 0),  # too few pixels
        (chip(4, 20), 4),
    ],
)
def test_the_limits_are_those_of_the_rule(classes: Any, n_changed: int) -> None:
    settled = relabel(classes, np.zeros(classes.shape, np.int64), ignore=255, min_share=0.4)
    assert int((settled != classes).sum()) == n_changed


@pytest.mark.parametrize("rest", ["keep", "ignore"])
def test_uncertain_pixels_of_an_undecided_segment_are_kept_or_dropped(rest: Literal["keep", "ignore"]) -> None:
    classes = np.repeat(np.array([[1, 2, 3]], np.uint8), 10, axis=1)
    settled = relabel(classes, np.zeros(classes.shape, np.int64), ignore=255, min_share=0.4, rest=rest)
    assert (settled == (255 if rest == "ignore" else classes)).all()


def test_void_pixels_and_those_in_no_segment_stay_as_they_are() -> None:
    classes = chip(4)
    classes[0, 4:6] = 255
    segments = np.zeros(classes.shape, np.int64)
    segments[0, 0] = -1
    settled = relabel(classes, segments, ignore=255, min_share=0.4)
    np.testing.assert_array_equal(settled[0, :6], [2, 1, 1, 1, 255, 255])


def test_unknown_confidence_is_no_confidence() -> None:
    classes = chip(11)
    classes[:, 11:] = 1
    trust = np.full(classes.shape, 90.0)
    trust[0, 0] = np.nan
    segments = np.zeros(classes.shape, np.int64)
    settled = relabel(classes, segments, ignore=255, confidence=trust, min_confidence=50, min_purity=0.5)
    assert settled[0, 0] == 1
    assert (settled[0, 1:11] == 2).all()


def halves(noise: float = 0.02) -> Any:
    """Three bands of two flat halves, left and right."""
    image = np.random.default_rng(5).normal(0, noise, (3, 32, 32))
    image[:, :, 16:] += 1
    return image


@pytest.mark.parametrize("name", sorted(SEGMENTERS))
def test_segments_do_not_cross_a_clear_border_and_are_the_same_every_time(name: str) -> None:
    label = relabel_label("clean", RelabelSpec(of="map", segments=name, image="s2"), SOURCES)
    image = halves()
    image[1, 3, 3] = np.nan
    drawn = segment(image, label._segmenter())
    np.testing.assert_array_equal(drawn, segment(image, label._segmenter()))
    assert drawn[3, 3] == -1
    left, right = set(drawn[:, :16].ravel()) - {-1}, set(drawn[:, 16:].ravel())
    assert left.isdisjoint(right)
    assert left | right == set(range(len(left | right)))


@pytest.mark.parametrize("name", sorted(SEGMENTERS))
def test_stray_pixels_take_the_class_of_what_looks_like_them(name: str) -> None:
    classes = np.ones((32, 32), np.uint8)
    classes[:, 16:] = 2
    noisy = classes.copy()
    noisy[4::8, 4::8] = 3
    label = relabel_label("clean", RelabelSpec(of="map", segments=name, image="s2"), SOURCES)
    derived = label.derive({"map": noisy, "image:s2": halves()})
    np.testing.assert_array_equal(derived.arrays["clean"], classes)
    np.testing.assert_array_equal(derived.arrays["clean_changed"], noisy == 3)
    assert derived.values == {"relabelled": 16 / 1024, "dropped": 0.0}
    assert label.image_needs == ("s2",)
    assert pickle.loads(pickle.dumps(label)) == label


def test_many_bands_are_segmented_without_a_warning() -> None:
    label = relabel_label("clean", RelabelSpec(of="map", segments="felzenszwalb", image="s2"), SOURCES)
    assert segment(np.repeat(halves(), 4, axis=0), label._segmenter()).max() >= 1


def test_where_the_image_is_void_nothing_is_relabelled_and_the_reason_is_told() -> None:
    label = relabel_label("clean", RelabelSpec(of="map", segments="slic", image="s2"), SOURCES)
    noisy = np.random.default_rng(1).integers(1, 4, (8, 8)).astype(np.uint8)
    derived = label.derive({"map": noisy, "image:s2": np.full((2, 8, 8), np.nan)})
    np.testing.assert_array_equal(derived.arrays["clean"], noisy)
    assert derived.reason == "s2 has no pixel here, so nothing was relabelled"


def test_a_segmenter_of_the_users_and_a_confidence_layer_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ModuleType("my_segments")
    mine.__dict__["whole"] = lambda image: np.zeros(image.shape[:2], int)
    mine.__dict__["wrong"] = lambda image: np.zeros(image.shape)
    monkeypatch.setitem(sys.modules, "my_segments", mine)
    # Class 2 has 24 of 64 pixels, which would be uncertain by itself; with min_share 0 only the confidence counts.
    spec = RelabelSpec(
        of="map", segments="my_segments:whole", image="s2", confidence="trust", min_confidence=50, min_share=0
    )
    classes = np.ones((8, 8), np.uint8)
    classes[:4, :6] = 2
    trust = np.full((8, 8), 80, np.uint8)
    trust[0, 0], trust[0, 1] = 20, 255  # 255 is unknown
    label = relabel_label("clean", spec, SOURCES)
    derived = label.derive({"map": classes, "trust": trust, "image:s2": np.zeros((1, 8, 8))})
    assert [tuple(at) for at in np.argwhere(derived.arrays["clean_changed"])] == [(0, 0), (0, 1)]
    wrong = relabel_label("clean", RelabelSpec(of="map", segments="my_segments:wrong", image="s2"), SOURCES)
    with pytest.raises(ValueError, match="wanted whole numbers"):
        wrong.derive({"map": classes, "image:s2": np.zeros((1, 8, 8))})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"segments": "sam"}, "none of felzenszwalb, slic, and 'sam' is not of the form module:function"),
        ({"segments": "slic", "confidence": "trust"}, "need each other"),
        ({"segments": "slic", "min_purity": 2.0}, "min_purity is 2.0"),
        ({"segments": "slic", "size_px": 0}, "must be above 0"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RelabelSpec(of="map", image="s2", **options)


def test_a_segmenter_that_is_not_there_is_an_error_before_any_pixel() -> None:
    with pytest.raises(LabelError, match="no_such_module:draw cannot be loaded"):
        relabel_label("clean", RelabelSpec(of="map", segments="no_such_module:draw", image="s2"), SOURCES)


@pytest.fixture
def flanders(shared_data: Path) -> tuple[Any, Any]:
    """Land cover of 2018 (y, x), void 255, and nine bands of Sentinel-2 on three clear days (band, y, x)."""
    import rasterio

    folder = shared_data / "flanders"
    with rasterio.open(next(folder.glob("worldcereal-labels/*/label_LC.tif"))) as file:
        cover = file.read(1)
    bands = []
    for day in ("20180419", "20180628", "20180807"):  # clear everywhere by their scene classification
        for band in ("B03", "B04", "B08"):
            with rasterio.open(folder / "sentinel-2-l2a" / f"S2_31UDS_{day}_L2A" / f"{band}.tif") as file:
                bands.append(file.read(1).astype(float))
    image = np.stack(bands)
    image[image == 0] = np.nan
    return np.where(cover == 99, 255, cover).astype(np.uint8), image  # 99 is what no farmer declared


COVER = {
    "map": Layer(LabelVariable("map", "uint8", 255, "classes")),
    "trust": Layer(LabelVariable("trust", "uint8", 255, "measure")),
}


@pytest.mark.parametrize("name", sorted(SEGMENTERS))
def test_pixels_in_flanders_that_are_known_to_be_uncertain_come_back(flanders: tuple[Any, Any], name: str) -> None:
    truth, image = flanders
    rng = np.random.default_rng(7)
    uncertain = (rng.random(truth.shape) < 0.1) & (truth != 255)
    noisy = truth.copy()
    noisy[uncertain] = rng.choice([11, 13, 60], int(uncertain.sum()))
    spec = RelabelSpec(
        of="map", segments=name, image="s2", confidence="trust", min_confidence=50, min_share=0
    )  # fmt: skip
    trust = np.where(uncertain, 10, 90).astype(np.uint8)
    derived = relabel_label("clean", spec, COVER).derive({"map": noisy, "trust": trust, "image:s2": image})
    clean = derived.arrays["clean"]
    assert (clean != truth).sum() < 0.35 * (noisy != truth).sum()
    np.testing.assert_array_equal(clean[~uncertain], truth[~uncertain])
    assert derived.values["relabelled"] == pytest.approx((clean != noisy).mean())


@pytest.mark.parametrize("name", sorted(SEGMENTERS))
def test_a_map_of_flanders_that_is_right_stays_nearly_as_it_is(flanders: tuple[Any, Any], name: str) -> None:
    truth, image = flanders
    label = relabel_label("clean", RelabelSpec(of="map", segments=name, image="s2"), COVER)
    changed = label.derive({"map": truth, "image:s2": image}).arrays["clean"] != truth
    assert changed[truth != 255].mean() < 0.02
