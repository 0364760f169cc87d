from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from analyses.study import plan as planning
from analyses.study.loading import load_study
from analyses.study.narrowing import narrow
from analyses.study.plan import plan_study
from tests.analyses.study.conftest import CALIBRATED, EVALUATED, TRAINING, Finished

CHANNELS, REGISTERS, PATCHES = 96, 4, 64

STARTS = (1, 1, 1, 1, 6, 6, 6, 10, 10)
"""First states of the replays: intact, zero, two shuffles; intact, two means of [CLS]; intact, registers removed."""

RUN = CHANNELS * 2 * (1 + PATCHES)
"""Bytes of one image in a run."""


@pytest.fixture(scope="module", autouse=True)
def _timed_once() -> Iterator[None]:
    """The forward pass is timed once for all tests."""
    measure = planning._seconds_per_image
    seconds = cache(lambda model: measure(model, "shapes#val", None, None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "_seconds_per_image", lambda model, *_: seconds(model))
        yield


def test_a_plan_counts_what_is_left_to_do(definition: Path, tmp_path: Path) -> None:
    plan = plan_study(load_study(str(definition)), root=tmp_path)
    (part,) = plan.parts
    assert (part.replays, part.replays_there, part.refits) == (len(STARTS), 0, 1)
    assert part.blocks == sum(12 - start for start in STARTS)
    assert part.blocks_of_full_passes == 12 * len(STARTS)
    # Four tasks on every replay; classification and segmentation once more for the refitted edit.
    assert (part.measurements, part.measurements_there) == (4 * len(STARTS) + 2, 0)
    assert part.run_bytes == len(STARTS) * EVALUATED * RUN
    evaluated, train, calibration = part.caches
    assert [cache.role for cache in part.caches] == ["evaluated", "train", "calibration"]
    assert [cache.images for cache in part.caches] == [EVALUATED, TRAINING, CALIBRATED]
    assert [cache.images_stored for cache in part.caches] == [0, 0, 0]
    # Shuffles draw [CLS] and registers from every state; replays start from patches of their first state.
    assert evaluated.states == {"cls": list(range(1, 13)), "registers": list(range(1, 13)), "patches": [1, 6, 10, 12]}
    assert evaluated.disk_bytes == EVALUATED * CHANNELS * 2 * (12 * (1 + REGISTERS) + 4 * PATCHES)
    assert train.states == {"cls": [1, 12], "registers": [1, 12], "patches": [1, 12]}
    drawn = [1, *range(6, 13)]
    assert calibration.states == {"cls": drawn, "registers": drawn}
    assert plan.disk_bytes == sum(cache.disk_bytes for cache in part.caches) + part.run_bytes
    assert plan.seconds > 0
    assert plan.notes == []
    assert not any(tmp_path.iterdir())


def test_time_is_that_of_passes_and_blocks(definition: Path, tmp_path: Path) -> None:
    """Both predictions come from one measured time of a forward pass."""
    (part,) = plan_study(load_study(str(definition)), root=tmp_path).parts
    per_pass = part.caches[2].extraction_seconds / CALIBRATED
    # [CLS] and registers are stored at other states than patches, which takes a second pass.
    assert abs(part.caches[0].extraction_seconds - 2 * EVALUATED * per_pass) < 1e-9
    replayed = sum(12 - start for start in STARTS) * EVALUATED + 11 * TRAINING
    assert abs(part.replay_seconds - per_pass * replayed / 12) < 1e-9


def test_what_a_study_left_behind_is_reused(finished: Finished) -> None:
    plan = plan_study(load_study(str(finished.file)), root=finished.root)
    (part,) = plan.parts
    assert [cache.images_stored for cache in part.caches] == [EVALUATED, TRAINING, CALIBRATED]
    assert part.calibration_there
    assert part.replays_there == part.replays
    assert part.measurements_there == part.measurements
    assert (part.blocks, plan.seconds) == (0, 0)


def test_more_images_are_planned_as_more_work(finished: Finished) -> None:
    study = load_study(str(finished.file))
    grown = replace(study, data=tuple(replace(data, limit=EVALUATED + 10) for data in study.data))
    (part,) = plan_study(grown, root=finished.root).parts
    assert (part.caches[0].images_stored, part.caches[0].images) == (EVALUATED, EVALUATED + 10)
    assert part.replays_there == 0
    assert part.calibration_there


def test_without_its_calibration_only_what_needs_none_is_there(finished: Finished, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished.root, root)
    shutil.rmtree(root / "shapes-calibration" / "tiny-reg.calibrations")
    (part,) = plan_study(load_study(str(finished.file)), root=root).parts
    assert not part.calibration_there
    assert part.replays_there == 3 + 1  # the intact arms, and the registers removed


def test_a_smaller_study_is_told_that_all_images_are_used(finished: Finished) -> None:
    plan = plan_study(narrow(load_study(str(finished.file)), limit=20), root=finished.root)
    assert plan.parts[0].replays_there == len(STARTS)
    assert len(plan.notes) == 2
    assert all(note.startswith("tiny-reg on shapes#val: the cache of shapes") for note in plan.notes)


def test_a_plan_is_json(definition: Path, tmp_path: Path) -> None:
    plan = plan_study(load_study(str(definition)), root=tmp_path)
    document = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    assert document["plan"] == "small"
    assert document["parts"][0]["replays"] == len(STARTS)
    assert document["seconds"] == plan.seconds


def test_only_measurements_of_the_planned_tasks_count(finished: Finished) -> None:
    study = load_study(str(finished.file))
    fewer = replace(study, data=tuple(replace(data, tasks=("retrieval",)) for data in study.data))
    (part,) = plan_study(fewer, root=finished.root).parts
    assert part.measurements == len(STARTS)
    assert part.measurements_there <= part.measurements


def test_a_cache_of_two_uses_counts_each_state_once(definition: Path, tmp_path: Path) -> None:
    study = load_study(str(definition))
    shared = replace(study, calibration=replace(study.calibration, data="shapes#train", limit=CALIBRATED))
    plan = plan_study(shared, root=tmp_path)
    (part,) = plan.parts
    evaluated, train, calibration = part.caches
    assert train.path == calibration.path
    # States 1 and 12 of [CLS] and registers are those of the heads already, of more images.
    twice = 2 * CALIBRATED * CHANNELS * 2 * (1 + REGISTERS)
    assert plan.disk_bytes == sum(cache.disk_bytes for cache in part.caches) - twice + part.run_bytes
    assert plan.seconds == sum(cache.extraction_seconds for cache in part.caches) + part.replay_seconds
    assert evaluated.path != train.path
