"""Preparing edits is timed on the first images, with the calibration that a replay would draw on where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import cachetool
from cachetool import Edit
from cachetool.edits.meter import FittedReference
from cachetool.errors import IncompleteError, InvalidEditError, UnknownNameError
from cachetool.events import Silent
from cachetool.plan import plan_replay, preparing
from cachetool.replaying import replay_edits
from cachetool.replaying.calibrations import Calibrations
from cachetool.replaying.sources import CacheSources
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
    """What is told by a clock by which every block takes 8 seconds: a second an image."""

    def eight(work: Callable[[], object]) -> float:
        work()
        return 8.0

    def measure(cache: Path, *edits: Edit, calibration: Path | None = None, unreadable: int = 0) -> float:
        reader = StoreReader(cache)
        reader.readable[:unreadable] = False
        timing = preparing.Preparing(reader, Calibrations(reader, calibration, Silent()))
        return timing.seconds(edits, reader.read_state(9, 0, FIRST), 12)

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
    assert seconds(cache, ZERO, unreadable=FIRST) == 0


def test_what_is_done_once_is_done_before_also_where_the_first_image_cannot_be_read(
    cache: Path, seconds: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []
    fit, told = FittedReference.__init__, preparing.timed

    def noted(reference: FittedReference, *arguments: object) -> None:
        fitted.append(max(pool["num_threads"] for pool in threadpool_info()))
        fit(reference, *arguments)  # type: ignore[arg-type]

    def timed(work: Callable[[], object]) -> float:
        before = len(fitted)
        found = told(work)
        assert len(fitted) == before > 0
        return found

    monkeypatch.setattr(FittedReference, "__init__", noted)
    given = Path(cachetool.calibrate(cache, name="given").attrs["cachetool_path"])
    monkeypatch.setattr(preparing, "timed", timed)
    matched = Edit("registers", "norm-matched", 9, sustained=False)
    assert seconds(cache, ZERO, ZERO, matched, unreadable=3, calibration=given) == 3
    assert len(fitted) == 4, "each register, for all edits"
    assert set(fitted) == {1}, "on one thread, as in a replay"


def test_what_a_replay_would_refuse_a_plan_refuses(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="registers: states 10, 11"):
        plan_replay(cache, [Edit("registers", "shuffle", 9)])
    with pytest.raises(InvalidEditError, match="nobody"):
        plan_replay(cache, [Edit("registers", "patch:nobody", 9, sustained=False)])
    with pytest.raises(InvalidEditError, match="knockout"):
        plan_replay(cache, [Edit("registers", "knockout", 12)])
    cachetool.extract("tiny-reg", "shapes", root=tmp_path, name="one", limit=1, layers=[9, 12], workers=0)
    (single,) = tmp_path.glob("*/one.zarr")
    with pytest.raises(InvalidEditError, match="a donor must be another image"):
        plan_replay(single, [Edit("registers", "shuffle", 9, sustained=False)])


@pytest.mark.parametrize("replacement", ["class-mean", "interpolate:class-mean:0.5"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_classes_that_a_cache_does_not_have_are_asked_for_as_a_replay_asks(
    cache: Path, monkeypatch: pytest.MonkeyPatch, replacement: str, calibrated: bool
) -> None:
    edit = Edit("registers", replacement, 9, sustained=False)
    given = Path(cachetool.calibrate(cache, name="given").attrs["cachetool_path"]) if calibrated else None
    plan_replay(cache, [edit], calibration=given)
    monkeypatch.setattr(CacheSources, "images", property(lambda self: replace(self._reader.spec.images, label=None)))
    messages = []
    for what in (plan_replay, replay_edits):
        with pytest.raises(InvalidEditError, match="class of each image") as refused:
            what(cache, [edit], calibration=given)  # type: ignore[operator]
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


def test_products_that_a_device_lacks_are_refused(cache: Path) -> None:
    with pytest.raises(UnknownNameError, match="only CUDA devices compute in it"):
        plan_replay(cache, [ZERO], precision="tf32", device="cpu")


@pytest.mark.parametrize(("seconds", "longest"), [(1000.0, ("reading", "preparing")), (1e-9, ("write",))])
def test_what_takes_longest_decides_and_reading_waits_for_preparing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, longest: tuple[str, ...]
) -> None:
    monkeypatch.setattr(preparing.Preparing, "seconds", lambda *_: seconds)
    monkeypatch.setattr("cachetool.plan.replay.write_speed", lambda _: 1000.0)
    costs = plan_replay(cache, [ZERO]).costs
    assert costs["preparing_seconds"] == pytest.approx(seconds * IMAGES)
    parts = [costs[f"{name}_seconds"] for name in ("opening", "certificate", *longest)]
    assert costs["predicted_seconds"] == pytest.approx(sum(parts))
