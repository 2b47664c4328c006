from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chips.index import LabelRecord
from labels.empty import empty_labels


@dataclass(frozen=True)
class Record:
    labelled: float = 0.0
    classes: tuple[int, ...] = ()
    text: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


def test_a_label_that_says_nothing_on_any_chip_is_named() -> None:
    chips = [
        {name: Record() for name in ("fields", "crops", "scene", "words", "table", "agree")},
        {
            "fields": Record(values={"objects": 0.0}),
            "crops": Record(0.01),
            "scene": Record(classes=(3,)),
            "words": Record(text="Water."),
            "table": Record(values={"objects": 2.0}),
            "agree": Record(values={"confident": 0.0}),
        },
    ]
    assert empty_labels(chips) == ("agree", "fields")


def test_the_records_of_the_index_are_such_records() -> None:
    record = LabelRecord(labelled=0.5)
    assert empty_labels([{"fields": record, "crops": LabelRecord()}]) == ("crops",)


def test_of_no_chips_nothing_is_said() -> None:
    assert empty_labels([]) == ()
