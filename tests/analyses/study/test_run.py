from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cachetool
from analyses.study.definition import EditGroup
from analyses.study.loading import load_study
from analyses.study.narrowing import narrow
from analyses.study.parts import take_apart
from analyses.study.plan import plan_study
from analyses.study.run import run_study
from cachetool import Edit
from cachetool.errors import InvalidEditError, MissingDataError
from tests.analyses.study.conftest import CALIBRATED, EVALUATED, TRAINING, Finished


class Recorded:
    """Events as a list."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.messages: list[str] = []

    def start(self, phase: str, total: int) -> None:
        self.phases.append(phase)

    def advance(self, images: int, nbytes: int = 0) -> None:
        pass

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.mark.slow
def test_a_finished_study_is_not_computed_again(finished: Finished, tmp_path: Path) -> None:
    events = Recorded()
    result = run_study(load_study(str(finished.file)), root=finished.root, workers=0, events=events)
    assert {phase.split()[0] for phase in events.phases} == {"hash", "measure"}
    assert [message.split(": ")[0] for message in events.messages] == [
        f"[{k}/4] tiny-reg on shapes#val" for k in (1, 2, 3, 4)
    ]
    rows = [row.to_json() for row in result.parts[0].rows]
    assert rows == [{name: row[name] for name in rows[0]} for row in finished.document["rows"]]
    assert result.notes == ()


@pytest.mark.slow
def test_an_interrupted_study_goes_on(finished: Finished, tmp_path: Path) -> None:
    """What an interruption leaves: a run is missing, and the outcomes of another."""
    root = tmp_path / "root"
    shutil.copytree(finished.root, root)
    (run,) = (root / "shapes").glob("tiny-reg.runs/registers.shuffle.*seed4*.zarr")
    shutil.rmtree(run)
    (outcomes,) = (root / "shapes").glob("tiny-reg.outcomes/retrieval/registers.remove.*.nc")
    outcomes.unlink()
    events = Recorded()
    result = run_study(load_study(str(finished.file)), root=root, workers=0, events=events)
    assert [phase for phase in events.phases if not phase.startswith(("hash", "measure"))] == ["replay from state 1"]
    again = [row.to_json() for row in result.parts[0].rows]
    assert again == [{name: row[name] for name in again[0]} for row in finished.document["rows"]]


def test_caches_hold_what_the_study_asked_for(finished: Finished) -> None:
    caches = {path.parent.name: cachetool.open(path) for path in sorted(finished.root.glob("*/tiny-reg.zarr"))}
    images = {name: cache.sizes["image"] for name, cache in caches.items()}
    assert images == {"shapes-calibration": CALIBRATED, "shapes-train": TRAINING, "shapes": EVALUATED}
    runs = cachetool.runs(finished.cache)
    edits = {Edit(**run.attrs["key"]["edit"]) for run in runs}
    assert edits == {
        *(Edit("cls", "none", start) for start in (1, 6, 10)),
        *(Edit("registers", "shuffle", 1, seed=seed) for seed in (3, 4)),
        Edit("registers", "zero", 1, seed=3),
        Edit("registers", "remove", 10, seed=3),
        *(Edit("cls", "mean", 6, until_layer=until, seed=3) for until in (11, None)),
    }
    for run in runs:
        assert run.layer.values.tolist() == [12]
        assert run.attrs["key"]["keep_tokens"] == ["cls", "patches"]
        assert (run.attrs["facts"]["calibration"] or {"overlap": 0})["overlap"] == 0


def test_a_smaller_study_in_the_same_root_measures_all_images_and_says_so(finished: Finished, tmp_path: Path) -> None:
    """States that only the smaller study needs are stored for all images: replays run on all of them."""
    root = tmp_path / "root"
    shutil.copytree(finished.root, root)
    study = narrow(load_study(str(finished.file)), tasks=["retrieval"], limit=20)
    study = replace(study, edits=(EditGroup("other", ("patches",), ("mean",), (3,)),))
    result = run_study(study, root=root, workers=0)
    labels = cachetool.open(finished.cache).label.values
    queries = sum(int((labels == label).sum() > 1) for label in labels)
    assert {row.images for row in result.parts[0].rows} == {queries}
    assert queries > 20
    (note,) = result.notes
    assert f"the cache of shapes#val holds {EVALUATED} images, more than the 20 asked for" in note


def test_calibration_images_among_the_evaluated_ones_are_refused(finished: Finished, tmp_path: Path) -> None:
    """The names differ, the images do not."""
    folder = tmp_path / "photos"
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
    for index, name in enumerate(("one", "two", "one", "two")):
        pixels = np.full((80, 80, 3), 40 * index, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{index}.png")
    shutil.copytree(folder, tmp_path / "copy")
    study = narrow(
        load_study(str(finished.file)),
        data=f"imagefolder:{folder}",
        calibration=f"imagefolder:{tmp_path / 'copy'}",
        tasks=["retrieval"],
    )
    with pytest.raises(InvalidEditError, match="4 of 4 evaluated images are calibration images too"):
        run_study(study, root=tmp_path / "root", workers=0)


def test_everything_that_is_missing_is_named_before_anything_is_done(finished: Finished, tmp_path: Path) -> None:
    study = narrow(
        load_study(str(finished.file)), data="imagefolder:absent", train="imagefolder:gone", tasks=["classification"]
    )
    events = Recorded()
    with pytest.raises(MissingDataError) as raised:
        run_study(study, root=tmp_path, workers=0, events=events)
    assert "absent" in str(raised.value)
    assert "gone" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_allows_no_task_is_refused_before_anything_is_done(finished: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(np.full((70, 70, 3), 60 * index, dtype=np.uint8)).save(folder / f"{index}.png")
    study = narrow(load_study(str(finished.file)), data=f"imagefolder:{folder}", tasks=["retrieval", "correspondence"])
    with pytest.raises(MissingDataError) as raised:
        run_study(study, root=tmp_path / "root", workers=0)
    assert "retrieval: " in str(raised.value)
    assert "correspondence: " in str(raised.value)
    assert not (tmp_path / "root").exists()


def test_rows_are_those_of_the_edits(finished: Finished) -> None:
    frame = pd.DataFrame(finished.document["rows"])
    shuffled = frame[(frame.edit == "registers shuffle") & (frame.metric == "top1")].iloc[0]
    runs = [run for run in cachetool.runs(finished.cache) if run.attrs["key"]["edit"]["replacement"] == "shuffle"]
    assert shuffled.seeds == len(runs) == 2
    distance = np.mean([float(run.off_distribution_mahalanobis_percentile.mean()) for run in runs])
    assert shuffled.off_distribution == pytest.approx(distance)
    assert set(frame[frame["head"] == "refit"].edit) == {"registers zero"}
    assert set(frame[frame["head"] == "refit"].task) == {"classification", "segmentation"}
    constructed = frame[frame.by_construction]
    assert set(zip(constructed.edit, constructed.task, strict=True)) == {
        ("[CLS] mean", "classification"),
        ("[CLS] mean", "retrieval"),
    }


@pytest.mark.slow
def test_calibration_images_of_a_larger_cache_are_stored_once(finished: Finished, tmp_path: Path) -> None:
    """The training cache holds more images than are calibrated on: a second run must not calibrate on all of them."""
    study = load_study(str(finished.file))
    data = tuple(replace(one, tasks=("classification",)) for one in study.data)
    calibration = replace(study.calibration, data="shapes#train", limit=10)
    shared = replace(study, calibration=calibration, data=data, edits=study.edits[-1:])
    run_study(shared, root=tmp_path, workers=0)
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.glob("shapes-train/*.zarr/**/*") if path.is_file()}
    (part,) = take_apart(shared, root=tmp_path)
    assert (part.calibration.images, part.train.images if part.train else 0) == (10, TRAINING)
    plan = plan_study(shared, root=tmp_path)
    assert plan.parts[0].calibration_there
    assert plan.seconds == 0
    run_study(shared, root=tmp_path, workers=0)
    assert {path: path.stat().st_mtime_ns for path in stored} == stored


def test_training_images_among_the_evaluated_ones_are_noted(finished: Finished, tmp_path: Path) -> None:
    study = load_study(str(finished.file))
    data = tuple(replace(one, train="shapes", train_limit=EVALUATED, tasks=("classification",)) for one in study.data)
    edits = tuple(replace(group, refit=False) for group in study.edits[:1])
    result = run_study(replace(study, data=data, edits=edits), root=tmp_path, workers=0)
    assert any(f"{EVALUATED} of {EVALUATED} evaluated images are training images too" in note for note in result.notes)
    assert {row.training_overlap for row in result.parts[0].rows} == {EVALUATED}
