"""Pictures say what the pixels say: colours, ranges, void, north and light, against NumPy over what was written."""

from __future__ import annotations

import datetime as dt
import io
import pickle

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from chips.layout import Variable
from curate.errors import CurateError, InputError
from publish.pictures import Gallery, View, colours, legend_of, limits, radar_layers, relief, render, spread, stretch


def _view(gallery: Gallery, name: str) -> View:
    return next(view for view in gallery.views if name in view.title)


def test_true_colour_is_stretched_alike_in_all_bands_between_percentiles_of_the_dataset(shown) -> None:  # type: ignore[no-untyped-def]
    gallery = Gallery(shown.after)
    view = _view(gallery, "true colour")
    picture = gallery.picture(2, view)
    stored = shown.arrays["s2", "reflectance"][:, 1, [2, 1, 0]].astype(float)  # the second day is the clearest
    physical = np.where(stored == 0, np.nan, stored * 0.0001)
    low, high = np.nanpercentile(physical, [2, 98])
    assert gallery.limits(view) == [pytest.approx((low, high))] * 3
    expected = np.clip((physical[2] - low) / (high - low), 0, 1) * 255
    there = np.isfinite(expected).all(axis=0)
    assert np.abs(picture.rgb.astype(float) - expected.transpose(1, 2, 0))[there].max() <= 0.5
    assert (picture.void == ~there).all()
    assert picture.void[3, 5]
    assert "2020-06-20" in picture.note


def test_north_is_up(shown) -> None:  # type: ignore[no-untyped-def]
    gallery = Gallery(shown.after)
    rgb = gallery.picture(0, _view(gallery, "false colour")).rgb.mean(axis=(1, 2))
    assert rgb[0] > rgb[-1] + 100, "the first row of the array lies in the north and is the bright one"


def test_a_date_picks_its_day_or_the_nearest_and_without_one_the_clearest(shown) -> None:  # type: ignore[no-untyped-def]
    gallery = Gallery(shown.after)
    view = _view(gallery, "true colour")
    for date, day in ((None, "2020-06-20"), (dt.date(2020, 5, 3), "2020-05-03"), (dt.date(2019, 1, 1), "2020-05-03")):
        assert day in gallery.picture(1, view, date=date).note
    cloudy = gallery.picture(1, view, date=dt.date(2020, 5, 3)).rgb
    assert (cloudy[:3, :5] == 255).all(), "the cloud of the first day"


def test_void_is_hatched_on_sheets_and_transparent_alone(shown) -> None:  # type: ignore[no-untyped-def]
    gallery = Gallery(shown.after)
    for name in ("true colour", "label · crops"):
        picture = gallery.picture(7, _view(gallery, name))
        assert picture.void.all(), "the chip is empty"
        greys = np.unique(np.asarray(picture.image()).reshape(-1, 3), axis=0)
        assert len(greys) == 2
        assert greys.min() > 100
        assert (np.asarray(Image.open(io.BytesIO(picture.png())))[..., 3] == 0).all()


def test_classes_have_the_colours_of_their_legend_and_ignore_is_none_of_them(shown) -> None:  # type: ignore[no-untyped-def]
    gallery = Gallery(shown.after)
    picture = gallery.picture(0, _view(gallery, "label · crops"))
    codes = shown.arrays["label", "crops"][0]
    for code, colour in ((1, (0x11, 0x22, 0x33)), (2, (0x44, 0x55, 0x66)), (5, (0x77, 0x88, 0x99))):
        assert (picture.rgb[codes == code] == colour).all()
    assert (picture.void == (codes == 255)).all()
    assert [name for name, _ in picture.legend] == ["wheat", "maize </script>", "hemp"]
    large = np.asarray(picture.image(8 * 16))[::8, ::8]
    assert (large[codes == 5] == (0x77, 0x88, 0x99)).all(), "classes are never averaged"


def test_radar_is_two_polarisations_and_their_ratio_in_decibels(shown) -> None:  # type: ignore[no-untyped-def]
    power = shown.arrays["s1", "backscatter"][0, 0].astype(float)
    vv, vh = 10 * np.log10(power)
    assert np.allclose(radar_layers(power, decibel=False), [vv, vh, vv - vh])
    assert np.allclose(radar_layers(np.stack([vv, vh]), decibel=True), [vv, vh, vv - vh])
    assert np.isnan(radar_layers(np.zeros((2, 2, 2)), decibel=False)).all(), "no power has no logarithm"
    gallery = Gallery(shown.after)
    assert gallery.picture(0, _view(gallery, "vv, vh")).note.endswith("dB")


def test_the_light_of_a_relief_comes_from_the_northwest(shown) -> None:  # type: ignore[no-untyped-def]
    gallery = Gallery(shown.after)
    rgb = gallery.picture(0, _view(gallery, "relief")).rgb[..., 0].astype(int)
    assert rgb[:, 3].min() > rgb[:, 12].max() + 30, "the west side of the ridge is lit, the east side is not"
    flat = relief(np.full((9, 9), 80.0), 10.0)
    assert np.ptp(flat) == pytest.approx(0)
    holed = np.full((9, 9), 80.0)
    holed[4, 4] = np.nan
    shade = relief(holed, 10.0)
    assert np.isnan(shade[4, 4])
    assert np.isfinite(shade).sum() == 80


def test_a_sheet_holds_every_view_or_those_asked_for(shown) -> None:  # type: ignore[no-untyped-def]
    gallery = Gallery(shown.after)
    chip = shown.after.chips[0]
    image, pictures = render(gallery, chip)
    assert len(pictures) == len(gallery.views) == 6
    assert image.size[0] > 256 * 2
    assert [picture.title for picture in render(gallery, chip, look="sar")[1]] == ["s1 · vv, vh, vv/vh"]
    assert len(render(gallery, chip, look="label")[1]) == 2
    assert all(picture.title.startswith("dem") for picture in render(gallery, chip, source="dem")[1])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"chip": "nowhere"}, "no such chip; one of its 12 chips is '32633_"),
        ({"source": "s3"}, "it has s2, s1, dem, label"),
        ({"source": "dem", "look": "sar"}, "dem has no bands for it; it can be shown as hillshade"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(shown, asked, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words) as caught:
        render(Gallery(shown.after), **{"chip": shown.after.chips[0], **asked})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_damaged_object_is_a_sentence(shown, tmp_path) -> None:  # type: ignore[no-untyped-def]
    import shutil

    from publish.written import published_dataset

    copy = shutil.copytree(shown.folder, tmp_path / "copy")
    for path in (copy / "chips.zarr/s2/reflectance/c").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:100])
    opened = published_dataset(str(copy))
    with pytest.raises(CurateError, match="curate check"):
        opened.values(opened.layout.variables[0], 0)


def test_bits_and_codes_without_a_legend_have_colours_of_their_own() -> None:
    plain = Variable("label", "raw", ("y", "x"), (4, 4), "uint16", 0, {"kind": "classes"})
    legend = legend_of(plain, [11, 13, 60, 99])
    assert [name for name, _ in legend.values()] == ["11", "13", "60", "99"]
    assert len({colour for _, colour in legend.values()}) == 4
    many = legend_of(plain, range(200))
    assert len({colour for _, colour in many.values()}) > 190


@given(st.integers(0, 300), st.integers(0, 50))
def test_a_spread_is_even_and_never_more_than_asked(length: int, count: int) -> None:
    found = spread(range(length), count)
    assert len(found) == min(length, count)
    assert found == sorted(set(found))
    if 0 < count < length:
        gaps = np.diff([-1, *found, length])
        assert gaps.max() <= 2 * length / count + 1


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=30),
    st.floats(-1e5, 1e5),
    st.floats(1e-3, 1e5),
)
def test_a_stretch_keeps_order_and_ends(values: list[float], low: float, span: float) -> None:
    array: npt.NDArray[np.float64] = np.array(values)
    grey = stretch(array, low, low + span)
    assert (grey[array <= low] == 0).all()
    assert (grey[array >= low + span] == 255).all()
    order = np.argsort(array[np.isfinite(array)])
    assert (np.diff(grey[np.isfinite(array)][order].astype(int)) >= 0).all()


def test_no_values_and_equal_values_have_a_range_still() -> None:
    assert limits(np.array([])) == (0.0, 1.0)
    low, high = limits(np.full(9, 3.0))
    assert low == 3
    assert high > low
    rgb, void = colours(np.full((1, 2, 2), np.nan), [(0.0, 1.0)])
    assert rgb.shape == (2, 2, 3)
    assert void.all()
