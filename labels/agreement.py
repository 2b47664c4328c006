"""Where several class layers agree: the class of most of them, how many said so, and where to trust it.

The layers must be in one legend before; a layer without a class at a pixel has no vote there. Consensus of this form is
published with LandCoverNet (majority and a share of 0 to 100).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types

from labels.layers import Layer, arrays_of, class_storage, common_legend, layer_of, rounded_pct
from labels.legend import Legend
from labels.source import Derived, LabelVariable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_VOTED = 255
"""Agreement where no layer has a class."""


@dataclass(frozen=True, slots=True)
class AgreeSpec:
    """Consensus of several class labels."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    paths: ClassVar[tuple[str, ...]] = ()

    agree: tuple[str, ...]
    """Labels that vote, in one legend, the most trusted first."""
    min_share: Annotated[float, annotated_types.Interval(gt=0, le=1)] = 0.6
    """Share of the votes that the class needs to be trusted."""
    min_votes: Annotated[int, annotated_types.Ge(1)] = 2
    """Votes that a pixel needs to be trusted: one label alone agrees with itself."""
    ties: Literal["first", "ignore"] = "first"
    """Equal votes: the class of the first label named, or none."""
    unsure: Literal["keep", "ignore"] = "keep"
    """Pixels that are not trusted: keep their class, or have none."""
    min_labelled: Annotated[float, annotated_types.Interval(ge=0, le=1)] = 0.0
    """Share of a chip that should have a class; chips with less are `partial`, and the index says why."""

    def __post_init__(self) -> None:
        if len(self.agree) < 2:
            raise ValueError(f"agree needs at least two labels, found {len(self.agree)}")
        if twice := [name for i, name in enumerate(self.agree) if name in self.agree[:i]]:
            raise ValueError(f"{twice[0]} stands twice in agree; a label has one vote")
        if len(self.agree) > 254:
            raise ValueError(f"agree has {len(self.agree)} labels; at most 254 are counted")
        if not 0 < self.min_share <= 1:
            raise ValueError(f"min_share is {self.min_share}, wanted a share above 0 and up to 1")
        if not 1 <= self.min_votes <= len(self.agree):
            raise ValueError(f"min_votes is {self.min_votes}, wanted 1 to {len(self.agree)}, the number of labels")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the layers voted, each (y, x)."""

    classes: NDArray[Any]
    """Class of most votes, or the ignore value."""
    votes: NDArray[np.uint8]
    """Layers that have a class here."""
    top: NDArray[np.uint8]
    """Votes for the class of most votes."""

    @property
    def percent(self) -> NDArray[np.uint8]:
        """Agreement in percent, 255 where nobody voted."""
        import numpy as np

        voted = self.votes > 0
        percent = np.full(self.votes.shape, NOT_VOTED, np.uint8)
        percent[voted] = rounded_pct(self.top[voted], self.votes[voted])
        return percent


def agree(
    layers: Sequence[NDArray[Any]],
    ignores: Sequence[int],
    *,
    ties: Literal["first", "ignore"] = "first",
    dtype: str = "uint8",
    ignore: int = 255,
) -> Agreement:
    """The votes of class layers (y, x) on the same pixels.

    Args:
        layers: Codes of one legend, the most trusted layer first.
        ignores: Value of each layer that means "no class": no vote.
        ties: Where several classes have most votes: that of the earliest layer which voted for one of them, or none.
        dtype: Type of the resulting codes.
        ignore: Value of the result where there is no class.
    """
    import numpy as np

    voted = [np.asarray(layer) != void for layer, void in zip(layers, ignores, strict=True)]
    votes: NDArray[np.uint8] = np.asarray(np.sum(voted, axis=0, dtype=np.uint8))
    # The votes for each layer's own class. Going through the layers in their order and taking only what is more than
    # before makes the earliest layer win where numbers are equal.
    classes = np.full(votes.shape, ignore, dtype)
    top = np.zeros(votes.shape, np.uint8)
    tied = np.zeros(votes.shape, bool)
    for layer, has in zip(layers, voted, strict=True):
        same = [(layer == other) & also for other, also in zip(layers, voted, strict=True)]
        n = np.where(has, np.sum(same, axis=0, dtype=np.uint8), np.uint8(0))
        code = np.where(has, layer, 0).astype(dtype)
        more = n > top
        tied = np.where(more, False, tied | (has & (n == top) & (code != classes)))
        classes = np.where(more, code, classes)
        top = np.maximum(top, n)
    if ties == "ignore":
        classes[tied] = ignore
    return Agreement(classes, votes, top)


@dataclass(frozen=True)
class AgreeLabel:
    """Consensus of class labels on a chip; see ``agreement_label``."""

    name: str
    spec: AgreeSpec
    legend: Legend
    variables: tuple[LabelVariable, ...]
    ignores: tuple[int, ...] = field(repr=False)

    @property
    def needs(self) -> tuple[str, ...]:
        """The labels that vote."""
        return self.spec.agree

    def derive(self, found: Mapping[str, NDArray[Any]]) -> Derived:
        """Consensus, agreement, votes and trusted pixels of one chip.

        The values are ``agreement_pct``, the mean over pixels with a vote, and ``confident``, the share of all pixels.
        """
        import numpy as np

        spec, ignore = self.spec, int(self.variables[0].fill)
        layers = arrays_of(self.name, found, self.needs)
        said = agree(layers, self.ignores, ties=spec.ties, dtype=self.variables[0].dtype, ignore=ignore)
        voted = said.votes > 0
        share = np.divide(said.top, said.votes, out=np.zeros(voted.shape), where=voted)
        confident = (share >= spec.min_share) & (said.votes >= spec.min_votes) & (said.classes != ignore)
        classes = said.classes
        if spec.unsure == "ignore":
            classes = np.where(confident, classes, np.array(ignore, classes.dtype))
        arrays = (classes, said.percent, said.votes, confident.astype(np.uint8))
        values = {"confident": float(confident.mean())}
        if voted.any():
            values["agreement_pct"] = float(100 * share[voted].mean())
        return Derived(
            arrays=dict(zip((v.name for v in self.variables), arrays, strict=True)),
            values=values,
            reason="" if voted.any() else f"none of {', '.join(self.needs)} has a class here",
        )


def agreement_label(name: str, spec: AgreeSpec, sources: Mapping[str, Layer]) -> AgreeLabel:
    """The label that a spec describes.

    Its variables, each (y, x): ``{name}`` (classes), ``{name}_agreement`` (percent, uint8, 255 where nobody voted),
    ``{name}_votes`` (uint8) and ``{name}_confident`` (0 or 1).

    Raises:
        LabelError: A label is missing, holds no classes, or the labels are not in one legend.
    """
    layers = {wanted: layer_of(sources, wanted, name) for wanted in spec.agree}
    legend = common_legend(name, layers)
    dtype, ignore = class_storage(layers.values())
    said = f"of {', '.join(spec.agree)}"
    variables = (
        LabelVariable(name, dtype, ignore, "classes", attrs={**legend.attrs, "long_name": f"consensus {said}"}),
        LabelVariable(
            f"{name}_agreement", "uint8", NOT_VOTED, "measure",
            attrs={"long_name": f"share of the votes for the consensus {said}", "units": "percent"},
        ),
        LabelVariable(
            f"{name}_votes", "uint8", 0, "measure",
            attrs={"long_name": f"number of labels with a class, {said}", "units": "1"},
        ),
        LabelVariable(
            f"{name}_confident", "uint8", 0, "presence",
            attrs={
                "long_name": f"share of at least {spec.min_share:g} among at least {spec.min_votes} votes",
                "flag_values": [0, 1],
                "flag_meanings": "unsure confident",
            },
        ),
    )  # fmt: skip
    return AgreeLabel(name, spec, legend, variables, tuple(layers[wanted].ignore for wanted in spec.agree))
