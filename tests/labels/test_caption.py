from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from curate.errors import LabelError
from labels.caption import (
    NOUNS,
    WORLDCOVER_NAMES,
    CaptionSpec,
    caption_label,
    chatearthnet_text,
    plain_names,
    shares_text,
    size_word,
    tags_text,
)
from labels.layers import Layer
from labels.legend import LabelClass, Legend, product_legend
from labels.source import LabelVariable

WORLDCOVER = product_legend("esa-worldcover")
NAMES = plain_names(WORLDCOVER)
SOURCES = {"cover": Layer(LabelVariable("cover", "uint8", 255, "classes"), WORLDCOVER)}


def test_every_class_of_worldcover_has_its_word() -> None:
    assert {c.name for c in WORLDCOVER.classes} == set(WORLDCOVER_NAMES)
    assert NAMES[50] == "developed area"
    assert plain_names(Legend((LabelClass(1, "Mixed Forest"),))) == {1: "mixed forest"}


@pytest.mark.parametrize(
    ("percent", "word"),
    [
        (0, "extra small"), (9, "extra small"), (10, "small"), (19, "small"), (20, "medium"), (49, "medium"),
        (50, "large"), (79, "large"), (80, "extra large"), (100, "extra large"),
    ],
)  # fmt: skip
def test_sizes_change_where_chatearthnet_changes_them(percent: int, word: str) -> None:
    assert size_word(percent) == word


def four_quarters() -> Any:
    """40 x 40: tree, crop, water and built-up, with 19 pixels of grass and 20 of shrub in the first quarter."""
    chip = np.empty((40, 40), np.uint8)
    chip[:20, :20], chip[:20, 20:], chip[20:, :20], chip[20:, 20:] = 10, 40, 80, 50
    chip[0, :19] = 30
    chip[1, :20] = 20
    return chip


def test_the_text_of_a_chip_by_hand() -> None:
    assert chatearthnet_text(four_quarters(), NAMES, ignore=255).split("\n") == [
        "Land cover, from most to least: crop, developed area, water, tree, shrub.",
        "Top left: tree (extra large part) and shrub (extra small part).",
        "Top right: crop (extra large part).",
        "Bottom left: water (extra large part).",
        "Bottom right: developed area (extra large part).",
        "Middle: tree (medium part), crop (medium part) and developed area (medium part).",
    ]


def test_shares_are_of_labelled_pixels_and_a_part_without_any_says_so() -> None:
    chip = four_quarters()
    chip[:20, 20:] = 255
    chip[0:10, 20:] = 40  # half of the quarter is unlabelled, all that is known is crop
    chip[20:, 20:] = 255
    lines = chatearthnet_text(chip, NAMES, ignore=255).split("\n")
    assert lines[2] == "Top right: crop (extra large part)."
    assert lines[4] == "Bottom right: nothing that can be told."


@given(npst.arrays(np.uint8, (16, 16), elements=st.sampled_from([10, 20, 30, 40, 60, 80, 255])))
def test_each_part_names_its_three_largest_classes_with_the_word_for_their_share(chip: Any) -> None:
    lines = chatearthnet_text(chip, NAMES, ignore=255, min_px=3).split("\n")
    places = {
        "Top left": chip[:8, :8], "Top right": chip[:8, 8:], "Bottom left": chip[8:, :8],
        "Bottom right": chip[8:, 8:], "Middle": chip[4:12, 4:12],
    }  # fmt: skip
    if len(lines) == 1:
        assert lines == [""]
        return
    for line, (where, part) in zip(lines[1:], places.items(), strict=True):
        counts = sorted(((-int((part == code).sum()), code) for code in NAMES), key=lambda pair: pair)
        top = [(code, -n) for n, code in counts if -n >= 3][:3]
        labelled = int((part != 255).sum())
        said = [f"{NAMES[code]} ({size_word(int(100 * n / labelled + 0.5))} part)" for code, n in top]
        text = line.removeprefix(f"{where}: ").removesuffix(".")
        assert text.replace(" and ", ", ").split(", ") == (said or ["nothing that can be told"])


def test_words_vary_by_the_pixels_and_stay_the_same_for_the_same_pixels() -> None:
    chip = four_quarters()
    text = chatearthnet_text(chip, NAMES, ignore=255, vary=True)
    assert text == chatearthnet_text(chip.copy(), NAMES, ignore=255, vary=True)
    chips = np.random.default_rng(3).choice(np.array([10, 40], np.uint8), (20, 16, 16))
    texts = [chatearthnet_text(one, NAMES, ignore=255, vary=True) for one in chips]
    assert all(any(noun in text for text in texts) for noun in NOUNS)
    assert chatearthnet_text(chip, NAMES, ignore=255).replace(" part", "") == _without_nouns(text)


def _without_nouns(text: str) -> str:
    for noun in NOUNS:
        text = text.replace(f" {noun}", "")
    return text


def test_a_sentence_of_shares_by_hand() -> None:
    chip = np.full((20, 20), 40, np.uint8)
    chip[:5] = 10
    chip[5:7] = 255
    chip[7, :19] = 80
    assert shares_text(chip, NAMES, ignore=255) == "Land cover: crop 67 % and tree 28 %. Unlabelled: 10 %."
    chip = np.full((100, 100), 40, np.uint8)
    chip[0, :30] = 80
    assert shares_text(chip, NAMES, ignore=255) == "Land cover: crop 100 % and water under 1 %."
    assert shares_text(np.full((9, 9), 255, np.uint8), NAMES, ignore=255) == ""


def test_tags_are_told_areas_by_size_and_the_rest_by_number() -> None:
    tags = [
        ("highway", "residential", 3, 0.0),
        ("landuse", "farmland", 1, 431_000.0),
        ("building", "yes", 12, 1_840.0),
        ("natural", "wood", 2, 2_300_000.0),
        ("amenity", "bench", 1, 0.0),
        ("highway", "residential", 2, 0.0),
    ]
    text = (
        "Areas: wood (natural) 2.3 km² in 2 pieces, farmland (landuse) 43.1 ha and building 1840 m² in 12 pieces. "
        "Also mapped: residential (highway) 5 times and bench (amenity)."
    )
    assert tags_text(tags) == text
    assert tags_text(reversed(tags)) == text
    assert tags_text(tags, max_tags=1) == (
        "Areas: wood (natural) 2.3 km² in 2 pieces and 2 more. Also mapped: residential (highway) 5 times and 1 more."
    )
    assert tags_text(tags[4:5]) == "Mapped: bench (amenity)."
    assert tags_text([]) == ""


def test_a_label_gives_the_text_or_the_reason_why_there_is_none() -> None:
    label = caption_label("words", CaptionSpec(of="cover", caption="chatearthnet"), SOURCES)
    label = pickle.loads(pickle.dumps(label))
    assert label.derive({"cover": four_quarters()}).text.startswith("Land cover, from most to least: crop")
    derived = label.derive({"cover": np.full((8, 8), 255, np.uint8)})
    assert derived.text == ""
    assert derived.reason == "no class of cover has 20 pixels here"
    assert label.needs == ("cover",)
    assert label.variables == ()


def test_a_label_of_tags_asks_for_tags() -> None:
    label = caption_label("words", CaptionSpec(of="osm", caption="tags"), {})
    assert (label.needs, label.tag_needs) == ((), ("osm",))
    assert label.derive({"tags:osm": [("amenity", "bench", 1, 0.0)]}).text == "Mapped: bench (amenity)."
    nothing = label.derive({"tags:osm": []})
    assert (nothing.text, nothing.reason) == ("", "")


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str) -> str:
        raise ConnectionError("nobody answers")

    module = ModuleType("my_model")
    module.__dict__.update(shout=str.upper, fail=fail, mute=lambda text: " ", none=lambda text: None, number=3)
    monkeypatch.setitem(sys.modules, "my_model", module)


@pytest.mark.usefixtures("hooks")
def test_a_hook_makes_the_final_text_and_where_it_fails_ours_stays_with_the_reason() -> None:
    def derive(hook: str) -> Any:
        spec = CaptionSpec(of="cover", caption="shares", hook=hook)
        return caption_label("words", spec, SOURCES).derive({"cover": np.full((8, 8), 10, np.uint8)})

    ours = "Land cover: tree 100 %."
    derived = derive("my_model:shout")
    assert (derived.text, derived.values, derived.reason) == (ours.upper(), {"hook_failed": 0.0}, "")
    for hook, why in [("fail", "ConnectionError: nobody answers"), ("mute", "str without words"), ("none", "NoneType")]:
        derived = derive(f"my_model:{hook}")
        assert (derived.text, derived.values) == (ours, {"hook_failed": 1.0})
        assert why in derived.reason


@pytest.mark.usefixtures("hooks")
@pytest.mark.parametrize("hook", ["no_such_module:f", "my_model:no_such_function", "my_model:number"])
def test_a_hook_that_is_not_there_is_an_error_before_any_chip(hook: str) -> None:
    with pytest.raises(LabelError, match="label words"):
        caption_label("words", CaptionSpec(of="cover", caption="shares", hook=hook), SOURCES)


def test_what_cannot_be_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="not of the form module:function"):
        CaptionSpec(of="cover", caption="shares", hook="my model")
    with pytest.raises(ValueError, match="vary is an option of chatearthnet"):
        CaptionSpec(of="cover", caption="shares", vary=True)
    nameless = {"cover": Layer(SOURCES["cover"].variable)}
    with pytest.raises(LabelError, match="no legend, so its classes have no names"):
        caption_label("words", CaptionSpec(of="cover", caption="shares"), nameless)


def test_crops_of_kansas_are_told_in_the_order_numpy_counts_them(shared_data: Path) -> None:
    import rasterio

    with rasterio.open(shared_data / "kansas-cdl" / "2021_30m_cdls.tif") as file:
        chip = file.read(1)[:256, :256]
    codes, counts = np.unique(chip, return_counts=True)
    falling = sorted(zip(-counts, codes, strict=True))
    names = {int(code): f"crop number {code}" for code in codes}
    first = chatearthnet_text(chip, names, ignore=255).split("\n")[0]
    assert first.split(": ")[1] == ", ".join(names[int(code)] for n, code in falling if -n >= 20) + "."
