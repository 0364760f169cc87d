from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from analyses.study.checks import contradictions
from analyses.study.definition import CalibrationData, EditGroup, Study, StudyData, StudyModel

GROUP = EditGroup("g", ("cls",), ("zero",))
DATA = StudyData("shapes#val", ("classification",), "shapes#train", limit=40, train_limit=60)
STUDY = Study("s", CalibrationData("shapes#calibration", 40), (StudyModel("tiny-reg"),), (DATA,), (GROUP,))


def test_a_sound_study_has_no_contradiction() -> None:
    assert contradictions(STUDY) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": -1}, "seed: expected 0 or more, found -1"),
        ({"confidence": 1.0}, "confidence: expected a number between 0 and 1, found 1.0"),
        ({"models": ()}, "models: expected at least one entry"),
        ({"models": (StudyModel("a"), StudyModel("a"))}, "models: 'a' is there 2 times"),
        ({"calibration": CalibrationData("shapes#val", 40)}, "shapes#val is evaluated too"),
        (
            {"calibration": CalibrationData("shapes#train", 61)},
            "shapes#train has the limit 61 here and 60 elsewhere, but shares one cache",
        ),
        ({"calibration": CalibrationData("shapes#train")}, "shapes#train has the limit (none) here and 60 elsewhere"),
    ],
)
def test_a_contradiction_of_the_study_is_named(change: dict[str, Any], words: str) -> None:
    (found,) = contradictions(replace(STUDY, **change))
    assert words in found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": ("retrieval", "retrieval:cls")}, "data[0].tasks: 'retrieval' is there 2 times"),
        ({"train": "shapes#val", "train_limit": 40}, "shapes#val is evaluated and trained on"),
        ({"train": None}, "data[0].train: missing"),
        ({"train_limit": 0}, "data[0].train_limit: expected at least 1, found 0"),
        ({"calibration": CalibrationData("shapes#val", 9)}, "shapes#val is evaluated too"),
    ],
)
def test_a_contradiction_of_a_data_set_is_named(change: dict[str, Any], words: str) -> None:
    (found,) = contradictions(replace(STUDY, data=(replace(DATA, **change),)))
    assert words in found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"from_layers": (9,), "until_layers": (3,)}, "from state 9 until state 3 ends before it begins"),
        ({"from_layers": (-1,), "until_layers": (-2,)}, "from state -1 until state -2 ends before it begins"),
        ({"replacements": ("remove",), "until_layers": (-2,)}, "'remove' cannot end before the last state"),
        ({"replacements": ("remove",), "once": True}, "'remove' cannot end before the last state"),
        ({"until_layers": ()}, "expected at least one state in from_layers and until_layers"),
        ({"once": True, "until_layers": (5,)}, "an edit of one state (once) has no until_layers"),
    ],
)
def test_a_contradiction_of_an_edit_group_is_named(change: dict[str, Any], words: str) -> None:
    (found,) = contradictions(replace(STUDY, edits=(replace(GROUP, **change),)))
    assert found.startswith("edits[0] (g)")
    assert words in found


def test_a_calibration_on_fewer_training_images_is_fine() -> None:
    assert contradictions(replace(STUDY, calibration=CalibrationData("shapes#train", 60))) == []


def test_uses_of_one_cache_have_one_limit() -> None:
    other = StudyData("shapes#test", ("classification",), "shapes#train", limit=40, train_limit=50)
    (found,) = contradictions(replace(STUDY, data=(DATA, other)))
    assert "data set shapes#train: its uses as evaluated or training images have the limits 50 and 60" in found
