"""Copies from a device may be made late: nothing is read, erased or computed over before they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import cachetool
from cachetool import Edit
from cachetool.extraction.copies import Copies
from cachetool.replaying import replay_edits
from tests.reference.plain_models import stored_sequence

EDITS = (Edit("registers", "zero", 6), Edit("cls", "remove", 6), Edit("registers", "knockout", 9))


class LateCopies:
    """The latest that a copy on another stream may be made: when it is waited for, of what its source holds by then."""

    waiting_at_most = 0

    def __init__(self, device: torch.device) -> None:
        del device
        self._waiting: list[tuple[torch.Tensor, torch.Tensor]] = []

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        target.fill_(7)
        self._waiting.append((target, source))
        LateCopies.waiting_at_most = max(LateCopies.waiting_at_most, len(self._waiting))

    def wait(self) -> None:
        for target, source in self._waiting:
            target.copy_(source)
        self._waiting.clear()


@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("float16", "bfloat16"))]
)
def test_late_copies_give_the_same_states(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(name: str) -> list[np.ndarray]:
        cache = cachetool.extract("tiny-reg", "shapes", root=tmp_path, name=name, limit=6, dtype=dtype, workers=0)
        path = Path(cache.attrs["cachetool_path"])
        runs = replay_edits(path, EDITS, keep="all")
        return [stored_sequence(path), *(stored_sequence(run.path) for run in runs)]

    expected = made("at-once")
    monkeypatch.setattr("cachetool.extraction.buffers.Copies", LateCopies)
    for found, right in zip(made("late"), expected, strict=True):
        np.testing.assert_array_equal(found, right)
    assert LateCopies.waiting_at_most > 1


def test_without_a_stream_of_their_own_copies_are_there_at_once() -> None:
    target = torch.zeros(3)
    copies = Copies(torch.device("cpu"))
    copies.copy(target, torch.arange(3.0))
    assert target.tolist() == [0, 1, 2]
    copies.wait()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_states_are_those_of_copies_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: only the order of copies and blocks differs."""

    class AtOnce(Copies):
        def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
            target.copy_(source)

    def made(name: str) -> list[np.ndarray]:
        cache = cachetool.extract(
            "tiny-reg", "shapes", root=tmp_path, name=name, limit=300, device="cuda", batch_size=64
        )
        path = Path(cache.attrs["cachetool_path"])
        return [stored_sequence(path), *(stored_sequence(run.path) for run in replay_edits(path, EDITS, device="cuda"))]

    found = made("own-stream")
    monkeypatch.setattr("cachetool.extraction.buffers.Copies", AtOnce)
    for own, right in zip(found, made("at-once"), strict=True):
        np.testing.assert_array_equal(own, right)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_copies_that_are_made_late_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: the stream of copies is kept busy before each of them."""

    class Late(Copies):
        def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
            assert self._stream is not None
            with torch.cuda.stream(self._stream):
                torch.cuda._sleep(5_000_000)
            super().copy(target, source)

    cache = cachetool.extract("tiny-reg", "shapes", root=tmp_path, limit=40, device="cuda")
    path = Path(cache.attrs["cachetool_path"])
    states = stored_sequence(path)
    found = [stored_sequence(run.path) for run in replay_edits(path, EDITS, keep="all", device="cuda")]
    monkeypatch.setattr("cachetool.extraction.buffers.Copies", Late)
    again = cachetool.extract("tiny-reg", "shapes", root=tmp_path, name="late", limit=40, device="cuda")
    late = Path(again.attrs["cachetool_path"])
    np.testing.assert_array_equal(stored_sequence(late), states)
    for run, right in zip(replay_edits(late, EDITS, keep="all", device="cuda"), found, strict=True):
        np.testing.assert_array_equal(stored_sequence(run.path), right)
