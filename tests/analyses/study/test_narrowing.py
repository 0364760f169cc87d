from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analyses.study.definition import CalibrationData, EditGroup, Study, StudyData, StudyModel
from analyses.study.narrowing import narrow
from cachetool.errors import UnknownNameError

STUDY = Study(
    name="s",
    calibration=CalibrationData("shapes#calibration", 1000),
    models=(StudyModel("tiny-reg"), StudyModel("dinov2-s", weights="mine.pth", cache="mine")),
    data=(
        StudyData("shapes#val", ("classification", "retrieval"), "shapes#train", limit=30, group_by="(a)"),
        StudyData("pairs:photos", ("correspondence",), calibration=CalibrationData("shapes#test", 5)),
    ),
    edits=(EditGroup("g", ("cls",), ("zero",)),),
)


def test_without_options_a_study_stays_as_it_is() -> None:
    assert narrow(STUDY) == STUDY


def test_models_of_the_study_keep_their_weights_and_others_are_new() -> None:
    assert narrow(STUDY, models=["dinov2-s"]).models == STUDY.models[1:]
    assert narrow(STUDY, models=["mine"]).models == STUDY.models[1:]
    assert narrow(STUDY, models=["dinov3-s", "tiny-reg"]).models == (StudyModel("dinov3-s"), StudyModel("tiny-reg"))


def test_weights_and_batch_size_reach_the_model() -> None:
    narrowed = narrow(STUDY, models=["timm:vit_tiny_patch16_224"], weights=Path("x.safetensors"), batch_size=8)
    assert narrowed.models == (StudyModel("timm:vit_tiny_patch16_224", weights="x.safetensors", batch_size=8),)


def test_a_data_set_of_the_study_keeps_its_settings() -> None:
    (entry,) = narrow(STUDY, data="shapes#val", train="shapes#test", tasks=["retrieval"]).data
    assert entry == replace(STUDY.data[0], train="shapes#test", tasks=("retrieval",))


def test_another_data_set_gets_the_tasks_of_all() -> None:
    (entry,) = narrow(STUDY, data="imagefolder:x", train="imagefolder:y").data
    assert entry == StudyData("imagefolder:x", ("classification", "retrieval", "correspondence"), "imagefolder:y")


def test_a_calibration_replaces_those_of_data_sets_and_keeps_the_limit() -> None:
    narrowed = narrow(STUDY, calibration="imagefolder:z")
    assert narrowed.calibration == CalibrationData("imagefolder:z", 1000)
    assert [entry.calibration for entry in narrowed.data] == [None, None]


def test_a_limit_never_raises_one() -> None:
    narrowed = narrow(STUDY, limit=40)
    assert [(entry.limit, entry.train_limit) for entry in narrowed.data] == [(30, 40), (40, 40)]
    assert narrowed.data[1].calibration == CalibrationData("shapes#test", 5)
    assert narrowed.calibration.limit == 40


def test_all_that_does_not_fit_is_named() -> None:
    with pytest.raises(UnknownNameError) as raised:
        narrow(STUDY, weights=Path("x"), train="y", tasks=["nonsense"], calibration="pairs:photos")
    text = str(raised.value)
    assert text.startswith("these options and the study s do not fit each other:")
    for words in ("--weights is of one model, but the study has 2", "--train goes with --data", "'nonsense'",
                  "pairs:photos is evaluated too"):  # fmt: skip
        assert words in text


def test_a_head_needs_a_training_set() -> None:
    with pytest.raises(UnknownNameError, match=r"data\[0\]\.train: missing; classification need"):
        narrow(STUDY, data="imagefolder:x")
