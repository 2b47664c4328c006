"""Words about a chip, made from its labels by templates: the same pixels give the same words.

The spatial context follows the rules of ChatEarthNet (shares of classes in four quarters and the middle). A language
model may turn it into prose by a hook; none is called unless the recipe names one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types

from curate.errors import LabelError
from labels.layers import Layer, check_hook, histogram, layer_of, resolve
from labels.legend import Legend
from labels.source import Derived, LabelVariable

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tag = tuple[str, str, int, float]
"""(key, value, number of elements, their area in m²): a tag of OpenStreetMap on a chip; area 0 for lines and points."""

WORLDCOVER_NAMES = {
    "Tree cover": "tree",
    "Shrubland": "shrub",
    "Grassland": "grass",
    "Cropland": "crop",
    "Built-up": "developed area",
    "Bare / sparse vegetation": "bare land",
    "Snow and ice": "snow",
    "Permanent water bodies": "water",
    "Herbaceous wetland": "wetland",
    "Mangroves": "mangroves",
    "Moss and lichen": "moss",
}
"""Names of ESA WorldCover's legend in ChatEarthNet's words. Other names stand in lower case."""

SIZES = ((80, "extra large"), (50, "large"), (20, "medium"), (10, "small"), (0, "extra small"))
"""ChatEarthNet: from this percentage on, a class is called so."""

NOUNS = ("part", "portion", "fraction", "amount", "quantity")

TOP = 3
"""ChatEarthNet: classes named in each part of the chip."""


@dataclass(frozen=True, slots=True)
class CaptionSpec:
    """A text a chip."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ()
    min_labelled: ClassVar[float] = 0.0

    of: str
    """Class label to describe; with `tags`, the label of OpenStreetMap features."""
    caption: Literal["chatearthnet", "shares", "tags"]
    """chatearthnet: classes over the chip and in its quarters and middle; shares: one sentence of percentages; tags:
    what is mapped here."""
    min_px: Annotated[int, annotated_types.Ge(1)] = 20
    """Classes with fewer pixels, in the chip or the part of it, are not named."""
    max_tags: Annotated[int, annotated_types.Ge(1)] = 8
    """tags: most areas, and most other things, that are named."""
    vary: bool = False
    """chatearthnet: vary the words (part, portion, fraction …) from chip to chip, by a hash of its pixels."""
    hook: str | None = None
    """`module:function` that makes the final text from ours, a language model for instance. Where it fails on a chip
    our text stays and the reason is recorded."""

    def __post_init__(self) -> None:
        if self.min_px < 1 or self.max_tags < 1:
            raise ValueError("min_px and max_tags must be 1 or more")
        if self.vary and self.caption != "chatearthnet":
            raise ValueError("vary is an option of chatearthnet captions")
        if self.hook is not None:
            check_hook(self.hook)


def plain_names(legend: Legend) -> dict[int, str]:
    """Names of the classes for a sentence, by code."""
    return {c.code: WORLDCOVER_NAMES.get(c.name, c.name.lower()) for c in legend.classes}


def size_word(percent: int) -> str:
    """``extra small`` … ``extra large`` for a percentage of 0 to 100."""
    return next(word for low, word in SIZES if percent >= low)


def ranked(
    classes: NDArray[Any], names: Mapping[int, str], ignore: int, min_px: int
) -> tuple[list[tuple[str, int]], int]:
    """(name, pixels) of the classes with at least ``min_px`` pixels, falling, and the number of all labelled pixels.

    Of equal numbers the smaller code comes first. A code without a name is called ``class <code>``.
    """
    counts = histogram(classes, ignore)
    falling = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(names.get(code, f"class {code}"), n) for code, n in falling if n >= min_px], sum(counts.values())


def parts(classes: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The four quarters of a chip (y, x) and its middle, which lies over all of them."""
    rows, cols = classes.shape
    return {
        "top left": classes[: rows // 2, : cols // 2],
        "top right": classes[: rows // 2, cols // 2 :],
        "bottom left": classes[rows // 2 :, : cols // 2],
        "bottom right": classes[rows // 2 :, cols // 2 :],
        "middle": classes[rows // 4 : 3 * rows // 4, cols // 4 : 3 * cols // 4],
    }


def chatearthnet_text(
    classes: NDArray[Any], names: Mapping[int, str], *, ignore: int, min_px: int = 20, vary: bool = False
) -> str:
    """What lies where on a chip, in six lines; an empty string when no class has ``min_px`` pixels.

    The first line has all classes from most to least. Then each part of the chip has its three largest classes, with a
    word for their share of its labelled pixels (percent, rounded half up): under 10 extra small, under 20 small, under
    50 medium, under 80 large, else extra large.

    Source: generate_description_chatgpt3_5_text.py in github.com/zhu-xlab/ChatEarthNet. It draws the noun after the
    size at random; here it is ``part``, or with ``vary`` chosen by a hash of the pixels.
    """
    overall, _ = ranked(classes, names, ignore, min_px)
    if not overall:
        return ""
    lines = [f"Land cover, from most to least: {', '.join(name for name, _ in overall)}."]
    for where, part in parts(classes).items():
        found, labelled = ranked(part, names, ignore, min_px)
        noun = NOUNS[zlib.crc32(part.tobytes()) % len(NOUNS)] if vary else NOUNS[0]
        said = [f"{name} ({size_word(_percent(n, labelled))} {noun})" for name, n in found[:TOP]]
        lines.append(f"{where.capitalize()}: {_listed(said) or 'nothing that can be told'}.")
    return "\n".join(lines)


def shares_text(classes: NDArray[Any], names: Mapping[int, str], *, ignore: int, min_px: int = 20) -> str:
    """The classes of a chip from most to least with their percentages; an empty string when none has ``min_px`` pixels.

    Percentages are of the labelled pixels. What is unlabelled is told when it is one percent or more.
    """
    found, labelled = ranked(classes, names, ignore, min_px)
    if not found:
        return ""
    said = [f"{name} {_percent(n, labelled) or 'under 1'} %" for name, n in found]
    text = f"Land cover: {_listed(said)}."
    unlabelled = _percent(classes.size - labelled, classes.size)
    return f"{text} Unlabelled: {unlabelled} %." if unlabelled else text


def tags_text(tags: Iterable[Tag], *, max_tags: int = 8) -> str:
    """What OpenStreetMap has on a chip, areas by size and other things by number; an empty string when it has nothing.

    ``farmland (landuse)`` is the value and the key of a tag, because many values mean something only with their key.
    Equal tags are added up. Of the rest of more than ``max_tags`` only the number is told.
    """
    sums: dict[tuple[str, str], tuple[int, float]] = {}
    for key, value, n, area_m2 in tags:
        n_before, area_before = sums.get((key, value), (0, 0.0))
        sums[key, value] = (n_before + int(n), area_before + float(area_m2))
    areas = sorted(((-area, tag, n) for tag, (n, area) in sums.items() if area > 0))
    others = sorted(((-n, tag) for tag, (n, area) in sums.items() if not area > 0))
    sentences = []
    if areas:
        said = [f"{_phrase(tag)} {_area(-area)}{f' in {n} pieces' if n > 1 else ''}" for area, tag, n in areas]
        sentences.append(f"Areas: {_cut(said, max_tags)}.")
    if others:
        said = [f"{_phrase(tag)}{f' {-n} times' if n < -1 else ''}" for n, tag in others]
        sentences.append(f"{'Also mapped' if areas else 'Mapped'}: {_cut(said, max_tags)}.")
    return " ".join(sentences)


def _percent(n: int, of: int) -> int:
    return (200 * n + of) // (2 * of)


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _cut(words: Sequence[str], n: int) -> str:
    more = len(words) - n
    return f"{', '.join(words[:n])} and {more} more" if more > 0 else _listed(words)


def _phrase(tag: tuple[str, str]) -> str:
    key, value = (word.replace("_", " ") for word in tag)
    return key if value == "yes" else f"{value} ({key})"


def _area(area_m2: float) -> str:
    if area_m2 >= 1e6:
        return f"{area_m2 / 1e6:.1f} km²"
    return f"{area_m2 / 1e4:.1f} ha" if area_m2 >= 1e4 else f"{area_m2:.0f} m²"


@dataclass(frozen=True)
class CaptionLabel:
    """A text a chip; see ``caption_label``. It has no pixels."""

    name: str
    spec: CaptionSpec
    legend: Legend
    ignore: int
    variables: tuple[LabelVariable, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The class label that is described."""
        return () if self.spec.caption == "tags" else (self.spec.of,)

    @property
    def tag_needs(self) -> tuple[str, ...]:
        """Label whose tags on the chip are wanted as ``found["tags:<label>"]``, rows of ``Tag``."""
        return (self.spec.of,) if self.spec.caption == "tags" else ()

    def derive(self, found: Mapping[str, Any]) -> Derived:
        """The text of one chip. With a hook the value ``hook_failed`` is 1 where our own text stands instead.

        A chip without a class of ``min_px`` pixels has no text but a reason; one on which nothing is mapped has
        neither, because an empty place is no fault.
        """
        text = self._plain(found)
        if not text:
            reason = "" if self.tag_needs else f"no class of {self.spec.of} has {self.spec.min_px} pixels here"
            return Derived({}, reason=reason)
        if self.spec.hook is None:
            return Derived({}, text=text)
        reworded, failure = self._reworded(text, self.spec.hook)
        return Derived({}, {"hook_failed": float(bool(failure))}, text=reworded, reason=failure)

    def _plain(self, found: Mapping[str, Any]) -> str:
        spec = self.spec
        if spec.caption == "tags":
            return tags_text(found[f"tags:{spec.of}"], max_tags=spec.max_tags)
        classes, names = found[spec.of], plain_names(self.legend)
        if spec.caption == "shares":
            return shares_text(classes, names, ignore=self.ignore, min_px=spec.min_px)
        return chatearthnet_text(classes, names, ignore=self.ignore, min_px=spec.min_px, vary=spec.vary)

    def _reworded(self, text: str, hook: str) -> tuple[str, str]:
        called = resolve(self.name, hook)
        try:
            reworded = called(text)
        # Whatever a model of the user's raises: a chip without prose still has its pixels and our text.
        except Exception as error:
            return text, f"{hook} failed ({type(error).__name__}: {error}), the plain text stands"
        if not isinstance(reworded, str) or not reworded.strip():
            return text, f"{hook} gave {type(reworded).__name__} without words, the plain text stands"
        return reworded, ""


def caption_label(name: str, spec: CaptionSpec, sources: Mapping[str, Layer]) -> CaptionLabel:
    """The label that a spec describes. It has no variables: its text is ``Derived.text``.

    Raises:
        LabelError: The label is missing, holds no classes or has no legend, or the hook cannot be loaded.
    """
    if spec.hook is not None:
        resolve(name, spec.hook)
    if spec.caption == "tags":
        return CaptionLabel(name, spec, Legend(()), 0)
    layer = layer_of(sources, spec.of, name)
    if not layer.legend.classes:
        raise LabelError(f"label {name}", f"{spec.of} has no legend, so its classes have no names; give it one")
    return CaptionLabel(name, spec, layer.legend, layer.ignore)
