from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cachetool
from analyses.study.definition import CalibrationData, EditGroup, Study, StudyData, StudyModel
from analyses.study.parts import Part, take_apart
from cachetool import Edit
from cachetool.errors import MissingDataError
from tests.reference.plain_models import save_weights

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


def test_what_would_stop_a_study_after_hours_is_named_before_it_begins(tmp_path: Path) -> None:
    data = replace(DATA, tasks=("retrieval", "classification:registers:9"), train="shapes#train", group_by="(zzz)")
    absent = ("add:nowhere.npy", "interpolate:patch:nobody:0.5", "patch:nobody")
    lost = EditGroup("lost", ("registers",), absent, (6,))
    gone = EditGroup("gone", ("registers",), (f"patch:same@{tmp_path / 'no.zarr'}",), (6,))
    with pytest.raises(MissingDataError) as refused:
        take_apart(replace(STUDY, data=(data,), edits=(lost, gone)), root=tmp_path)
    for text in ("'nowhere.npy', but there is no such", "'patch:nobody' needs an image", "no.zarr', but there is none"):
        assert text in str(refused.value)
    assert "'(zzz)' finds no sequence in 30 of 30 image ids" in str(refused.value)
    part = part_of(replace(STUDY, data=(replace(data, group_by=""),)), tmp_path)
    assert part.notes == (
        "classification:registers:9: the model has 4 registers, numbered from 0: there is no register 9",
    )


def test_a_note_is_there_once(tmp_path: Path) -> None:
    model = StudyModel("timm:vit_tiny_patch16_224", weights=str(_weights(tmp_path)))
    edits = (EditGroup("registers", ("registers", "registers:0", "cls"), ("zero",), (6,)),)
    part = part_of(replace(STUDY, models=(model,), edits=edits), tmp_path)
    assert len(set(part.notes)) == len(part.notes)
    assert any("registers" in note for note in part.notes)


def _weights(folder: Path) -> Path:
    import timm

    return save_weights(timm.create_model("vit_tiny_patch16_224", num_classes=0), folder / "weights.safetensors")


def test_a_cache_of_another_key_is_named_before_anything_is_done(tmp_path: Path) -> None:
    cachetool.extract("tiny-reg", "shapes#val", limit=4, layers=[12], root=tmp_path, workers=0)
    other = replace(STUDY, models=(StudyModel("tiny-reg", image_size=48),))
    with pytest.raises(MissingDataError) as refused:
        take_apart(other, root=tmp_path)
    assert "holds another cache" in str(refused.value)
    assert "transform" in str(refused.value)
    assert "name another place with `cache`" in str(refused.value)
    take_apart(STUDY, root=tmp_path)
