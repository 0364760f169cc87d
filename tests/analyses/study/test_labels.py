from __future__ import annotations

from typing import Any

import pytest

from analyses.study.edits import PlannedEdit
from analyses.study.labels import FirstImages, split_by_labels
from cachetool import Edit

NAMES = ("zero", "class-mean", "same-class-shuffle", "other-class-shuffle", "interpolate:class-mean:0.5")


class Stand:
    """A data set with labels and nothing else; hashable by identity, as data sets are."""

    def __init__(
        self, name: str, labels: tuple[int, ...] | None, names: tuple[str, ...] = ("ape", "bee", "cat")
    ) -> None:
        self.name, self.labels = name, labels
        self.class_names = None if labels is None else names


def split(evaluated: Any, calibration: Any, images: int = 6, calibrated: int = 6) -> tuple[list[str], dict[str, str]]:
    edits = [PlannedEdit(Edit("cls", name, 1), ()) for name in NAMES]
    possible, impossible = split_by_labels(edits, FirstImages(evaluated, images), FirstImages(calibration, calibrated))
    reasons = dict(line.removeprefix("cls ").split(": ", 1) for line in impossible)
    return [planned.edit.replacement for planned in possible], reasons


TWICE = (0, 1, 2, 0, 1, 2)


def test_nothing_is_left_out_where_classes_are_known_and_the_same() -> None:
    assert split(Stand("photos", TWICE), Stand("others", TWICE)) == (list(NAMES), {})


def test_without_labels_only_what_needs_none_is_left() -> None:
    possible, reasons = split(Stand("photos", None), Stand("others", TWICE))
    assert possible == ["zero"]
    assert reasons == dict.fromkeys(NAMES[1:], "photos has no labels")


def test_class_means_need_every_evaluated_class_among_the_calibration_images() -> None:
    possible, reasons = split(Stand("photos", TWICE), Stand("others", (0, 1, 1, 2)), calibrated=3)
    assert possible == ["zero", "same-class-shuffle", "other-class-shuffle"]
    wanted = "the calibration images of others lack 1 of the 3 classes of photos"
    assert reasons == dict.fromkeys(("class-mean", "interpolate:class-mean:0.5"), wanted)
    assert "class-mean" in split(Stand("photos", (0, 1, 0, 1, 2, 2)), Stand("others", TWICE), 4, 2)[0]


def test_class_means_need_the_same_numbers_for_the_same_classes() -> None:
    _, reasons = split(Stand("photos", TWICE), Stand("others", TWICE, names=("ape", "cat", "bee")))
    assert reasons["class-mean"] == "the calibration images of others count 2 of the 3 classes of photos otherwise"


@pytest.mark.parametrize(
    ("labels", "left_out", "words"),
    [
        ((0, 1, 2, 0, 1, 1), "same-class-shuffle", "1 of the 3 classes of photos have a single image"),
        ((0, 0, 0, 0, 1, 1), "other-class-shuffle", "more than half of the 6 images of photos are of one class"),
    ],
)
def test_donors_by_class_need_enough_images(labels: tuple[int, ...], left_out: str, words: str) -> None:
    possible, reasons = split(Stand("photos", labels), Stand("others", TWICE))
    assert list(reasons) == [left_out]
    assert words in reasons[left_out]
    assert possible == [name for name in NAMES if name != left_out]


def test_exactly_half_of_one_class_still_has_donors() -> None:
    assert split(Stand("photos", (0, 0, 0, 1, 1, 1)), Stand("others", TWICE))[1] == {}


def test_unknown_classes_rule_out_all_that_asks_for_classes() -> None:
    possible, reasons = split(Stand("photos", (0, 1, 2, 0, -1, -1)), Stand("others", TWICE))
    assert possible == ["zero"]
    assert set(reasons.values()) == {"the class of 2 images of photos is unknown"}
