from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analyses.study.definition import CalibrationData, EditGroup, Study, StudyData, StudyModel
from analyses.study.parts import Part, take_apart
from cachetool import Edit
from cachetool.errors import MissingDataError

DATA = StudyData("shapes#val", ("retrieval",), limit=30)
STUDY = Study(
    name="s",
    calibration=CalibrationData("shapes#calibration", 20),
    models=(StudyModel("tiny-reg"),),
    data=(DATA,),
    edits=(
        EditGroup("registers", ("registers",), ("zero", "shuffle"), (6,)),
        EditGroup("refitted", ("cls",), ("mean",), (9,), until_layers=(-2,), refit=True),
    ),
)
CHANNELS, REGISTERS, PATCHES = 96, 4, 64


def part_of(study: Study, root: Path) -> Part:
    (part,) = take_apart(study, root=root)
    return part


def test_caches_hold_the_states_that_replays_and_calibrations_read(tmp_path: Path) -> None:
    part = part_of(STUDY, tmp_path)
    sustained = tuple(range(6, 13))
    assert part.evaluated.states == {"cls": sustained, "registers": sustained, "patches": (6, 9, 12)}
    assert part.calibration.states == {"cls": (6, 9, 10, 11), "registers": (6, 9, 10, 11)}
    assert (part.evaluated.asked, part.evaluated.images, part.calibration.images) == (30, 30, 20)
    assert (part.train, part.tokens, part.tasks, part.notes) == (None, ("cls",), ("retrieval",), ())
    assert not any(tmp_path.iterdir())


def test_bytes_are_values_times_two(tmp_path: Path) -> None:
    use = part_of(STUDY, tmp_path).evaluated
    assert use.bytes_on_disk == 30 * CHANNELS * 2 * (7 * 1 + 7 * REGISTERS + 3 * PATCHES)
    assert use.bytes_of_run(("cls", "patches")) == 30 * CHANNELS * 2 * (1 + PATCHES)


def test_a_training_cache_is_there_for_heads_alone_and_holds_refitted_states(tmp_path: Path) -> None:
    data = replace(DATA, tasks=("classification", "correspondence"), train="shapes#train", train_limit=40)
    part = part_of(replace(STUDY, data=(data,)), tmp_path)
    assert part.tokens == ("cls", "patches")
    assert part.train is not None
    assert part.train.states == dict.fromkeys(("cls", "registers", "patches"), (9, 12))
    assert part.train.images == 40
    unrefitted = tuple(replace(group, refit=False) for group in STUDY.edits)
    plain = part_of(replace(STUDY, data=(data,), edits=unrefitted), tmp_path)
    assert plain.train is not None
    assert plain.train.states == {"cls": (12,)}


def test_edits_of_attention_alone_need_no_calibration(tmp_path: Path) -> None:
    study = replace(STUDY, edits=(EditGroup("gone", ("registers",), ("remove", "knockout"), (-3,)),))
    part = part_of(study, tmp_path)
    assert part.calibration.states == {}
    assert [planned.edit for planned in part.edits] == [
        Edit("cls", "none", 10), Edit("registers", "remove", 10), Edit("registers", "knockout", 10)
    ]  # fmt: skip


def test_tasks_that_cannot_be_measured_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for index in range(4):
        (folder / f"class{index % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((70, 70, 3), 60 * index, dtype=np.uint8)).save(folder / f"class{index % 2}/{index}.png")
    data = StudyData(f"imagefolder:{folder}", ("retrieval", "segmentation", "correspondence"), "shapes#train")
    part = part_of(replace(STUDY, data=(data,)), tmp_path / "root")
    assert part.tasks == ("retrieval",)
    assert [note.split(":")[0] for note in part.notes] == ["segmentation", "correspondence"]
    assert (part.tokens, part.train) == (("cls",), None)
    alone = replace(data, tasks=("segmentation",))
    with pytest.raises(MissingDataError, match=r"nothing can be measured.*\n.*segmentation: .* has no masks"):
        take_apart(replace(STUDY, data=(alone,)), root=tmp_path / "root")


def test_names_of_caches_keep_models_apart(tmp_path: Path) -> None:
    models = (StudyModel("tiny-reg"), StudyModel("tiny-reg", cache="again"))
    parts = take_apart(replace(STUDY, models=models), root=tmp_path)
    assert [part.name for part in parts] == ["tiny-reg on shapes#val", "again on shapes#val"]
    assert [part.evaluated.path.name for part in parts] == ["tiny-reg.zarr", "again.zarr"]
