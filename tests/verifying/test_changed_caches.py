"""Runs of a cache that changed: which notice it, and are made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cachetool
from cachetool.errors import StaleRunWarning
from tests.verifying.conftest import EDITS, Made, alter, run_of, tree, where


class Told:
    """Events that keep what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def start(self, phase: str, total: int) -> None: ...
    def advance(self, images: int, nbytes: int = 0) -> None: ...
    def message(self, text: str) -> None:
        self.said.append(text)


def test_runs_notice_values_that_changed_and_nothing_else(made: Made) -> None:
    """State 6 decides two runs, state 9 one; the shuffle also reads registers at all later states."""
    assert len(cachetool.runs(made.cache)) == 3
    alter(made.cache, "registers", 8, 2, lambda values: values * np.float16(1.01))
    with pytest.warns(StaleRunWarning, match=r"1 of 3 runs are left out(.|\n)*shuffle.*: registers at state 8"):
        assert len(cachetool.open_runs(made.cache).run) == 2
    shuffle = run_of(made, "shuffle")
    report = cachetool.verify(shuffle, recompute=0)
    assert where(report) == {("cache", "tiny-reg.zarr")}
    assert "registers at state 8" in report.problems[0].text
    told = Told()
    assert len(cachetool.runs(made.cache, events=told)) == 2
    assert "1 of 3 runs" in told.said[0]
    assert cachetool.verify(shuffle, repair=True, recompute=12).sound
    assert len(cachetool.runs(made.cache)) == 3


def test_a_replay_on_changed_values_is_made_anew_rather_than_found_again(made: Made) -> None:
    before = tree(run_of(made, "none"))
    alter(made.cache, "cls", 6, 2, lambda values: values * np.float16(1.01))
    told = Told()
    cachetool.replay(made.cache, EDITS[2], events=told)
    assert ["replayed anew" in text for text in told.said] == [True]
    after = tree(run_of(made, "none"))
    assert before["cls/c.0.0.0"] != after["cls/c.0.0.0"]
    assert before["cls/c.1.0.0"] == after["cls/c.1.0.0"]
    cachetool.replay(made.cache, EDITS[2], events=told)
    assert len(told.said) == 1


def test_an_extended_cache_keeps_its_runs(made: Made, tmp_path: Path) -> None:
    options: dict[str, Any] = {"root": tmp_path, "workers": 0, "name": "growing"}
    dataset = f"imagefolder:{made.images}"
    cache = cachetool.extract("tiny-reg", dataset, layers=(6, 12), limit=10, **options)
    cachetool.replay(cache, EDITS[2])
    cache = cachetool.extract("tiny-reg", dataset, layers=(6, 9, 12), **options)
    (run,) = cachetool.runs(cache)
    report = cachetool.verify(run)
    assert report.sound
    assert "was made of 10 images" in report.notes[0]
