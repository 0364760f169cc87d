"""Preparing edits is timed on the first images, with the calibration that a replay would draw on where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cachetool
from cachetool import Edit
from cachetool.errors import IncompleteError, InvalidEditError
from cachetool.events import Silent
from cachetool.plan import plan_replay, preparing
from cachetool.replaying import replay_edits
from cachetool.replaying.calibrations import Calibrations
from cachetool.store import StoreReader

IMAGES = 12
FIRST = 8
"""Images that are prepared."""
NOISE, ZERO, REMOVE = Edit("registers", "noise", 9), Edit("registers", "zero", 9), Edit("cls", "remove", 9)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("preparing")
    opened = cachetool.extract("tiny-reg", "shapes", root=root, limit=IMAGES, layers=[9, 12], workers=0)
    return Path(opened.attrs["cachetool_path"])


@pytest.fixture
def cache(extracted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(extracted, tmp_path / "cache.zarr"))


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., float]:
    """`preparing_seconds` by a clock by which every block takes 8 seconds: a second an image."""

    def eight(work: Callable[[], object]) -> float:
        work()
        return 8.0

    def measure(cache: Path, *edits: Edit, calibration: Path | None = None, readable: bool = True) -> float:
        reader = StoreReader(cache)
        if not readable:
            reader.readable[:FIRST] = False
        calibrations = Calibrations(reader, calibration, Silent())
        state = reader.read_state(9, 0, FIRST)
        return preparing.preparing_seconds(reader, calibrations, edits, state, 12)

    monkeypatch.setattr(preparing, "timed", eight)
    return measure


def test_each_edit_counts_and_those_that_differ_by_seed_are_measured_once(
    cache: Path, seconds: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[tuple[Edit, int]] = []
    plain = preparing.EditInHand.prepare

    def noted(arm: preparing.EditInHand, state: np.ndarray, *arguments: object) -> object:
        prepared.append((arm.edit, len(state)))
        return plain(arm, state, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing.EditInHand, "prepare", noted)
    once = Edit("registers", "noise", 9, sustained=False)
    seeds = [Edit("registers", "noise", 9, sustained=False, seed=seed) for seed in range(3)]
    assert seconds(cache, *seeds, ZERO, REMOVE) == 3 + 1 + 1
    assert prepared == [(edit, images) for edit in (once, ZERO, REMOVE) for images in (1, FIRST)]


def test_nothing_is_written_and_no_state_is_asked_for_that_a_replay_does_not_need(
    cache: Path, seconds: Callable[..., float]
) -> None:
    before = sorted(cache.parent.rglob("*"))
    assert seconds(cache, ZERO, Edit("registers", "shuffle", 9, sustained=False)) == 2
    assert sorted(cache.parent.rglob("*")) == before


def test_the_calibration_is_the_one_that_is_given_or_at_hand(
    cache: Path, seconds: Callable[..., float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[int] = []
    calibrate = preparing.calibrate

    def counted(*arguments: object, **options: object) -> object:
        made.append(1)
        return calibrate(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing, "calibrate", counted)
    seconds(cache, ZERO)
    assert made == [1]
    given = Path(cachetool.calibrate(cache, name="given").attrs["cachetool_path"])
    seconds(cache, ZERO, calibration=given)
    assert made == [1]
    replay_edits(cache, [ZERO])
    seconds(cache, ZERO)
    assert made == [1]


def test_images_that_cannot_be_read_take_no_time(cache: Path, seconds: Callable[..., float]) -> None:
    assert seconds(cache, ZERO, readable=False) == 0


def test_what_a_replay_would_refuse_a_plan_refuses(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="registers: states 10, 11"):
        plan_replay(cache, [Edit("registers", "shuffle", 9)])
    with pytest.raises(InvalidEditError, match="nobody"):
        plan_replay(cache, [Edit("registers", "patch:nobody", 9, sustained=False)])
    cachetool.extract("tiny-reg", "shapes", root=tmp_path, name="one", limit=1, layers=[9, 12], workers=0)
    (single,) = tmp_path.glob("*/one.zarr")
    with pytest.raises(InvalidEditError, match="a donor must be another image"):
        plan_replay(single, [Edit("registers", "shuffle", 9, sustained=False)])


def test_what_takes_longest_decides_and_reading_waits_for_preparing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachetool.plan.replay.preparing_seconds", lambda *_: 1000.0)
    costs = plan_replay(cache, [ZERO]).costs
    assert costs["preparing_seconds"] == 1000 * IMAGES
    parts = [costs[f"{name}_seconds"] for name in ("opening", "certificate", "reading", "preparing")]
    assert costs["predicted_seconds"] == pytest.approx(sum(parts))
