"""What edits of one state share is computed once per batch, as far as their results fit into memory together."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cachetool import Edit
from cachetool.backbones import Backbone, Projections
from cachetool.errors import OutOfMemoryError
from cachetool.places import list_runs
from cachetool.replaying import engine, portions, replay_edits
from cachetool.replaying.portions import stored_bytes
from cachetool.store import StoreReader
from tests.reference.plain_models import stored_sequence

EDITS = (
    Edit("registers", "zero", 6),
    Edit("registers", "mean", 6, until_layer=8),
    Edit("cls", "remove", 6),
)
BATCHES = 3
"""20 images in blocks of 8."""


@pytest.fixture
def projected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images of each call of `Backbone.project`."""
    calls: list[int] = []
    plain = Backbone.project

    def counted(backbone: Backbone, state: torch.Tensor, block: int) -> Projections | None:
        calls.append(len(state))
        return plain(backbone, state, block)

    monkeypatch.setattr(Backbone, "project", counted)
    return calls


def test_several_edits_project_a_state_once(fresh: Callable[..., Path], projected: list[int]) -> None:
    replay_edits(fresh(), EDITS)
    assert projected == [8, 8, 4]


def test_edits_whose_results_do_not_fit_together_go_one_after_the_other(
    fresh: Callable[..., Path], caches: dict[str, Path], projected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = replay_edits(caches["float32"], EDITS)
    spec = StoreReader(caches["float32"]).spec
    one = 8 * 69 * 96 * 4
    assert stored_bytes(spec, 8, 1, spec.token_types) == one
    projected.clear()
    monkeypatch.setattr(portions, "HELD_BYTES", 2 * one)
    pairs = replay_edits(fresh(name="pairs"), EDITS)
    assert projected == [8, 8, 8, 8, 4, 4]
    projected.clear()
    monkeypatch.setattr(portions, "HELD_BYTES", 1)
    single = replay_edits(fresh(name="single"), EDITS)
    assert len(projected) == BATCHES * len(EDITS)
    for runs in (pairs, single):
        for run, expected in zip(runs, together, strict=True):
            assert np.array_equal(stored_sequence(run.path), stored_sequence(expected.path), equal_nan=True)


@pytest.mark.parametrize(
    ("edit", "options"),
    [
        pytest.param(Edit("patches", "zero", 6), {}, id="most tokens are edited"),
        pytest.param(Edit("registers", "zero", 11), {"keep_tokens": ["cls"]}, id="the last block for few tokens"),
        pytest.param(Edit("registers", "zero", 12), {}, id="no block is run"),
        pytest.param(Edit("registers", "zero", 9), {"compiled": True}, id="blocks are compiled"),
    ],
)
def test_nothing_is_projected_where_it_would_not_pay(
    fresh: Callable[..., Path], projected: list[int], monkeypatch: pytest.MonkeyPatch, edit: Edit, options: dict
) -> None:
    monkeypatch.setattr("cachetool.replaying.replayer.compile_blocks", lambda backbone, first_block: None)
    replay_edits(fresh(), [edit], **options)
    assert projected == []


def test_one_edit_of_most_tokens_does_not_keep_others_from_sharing(
    fresh: Callable[..., Path], projected: list[int]
) -> None:
    replay_edits(fresh(), [Edit("patches", "zero", 6), *EDITS])
    assert projected == [8, 8, 4]


def test_states_stay_while_they_are_computed_and_their_memory_is_used_in_turns(
    fresh: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, places = engine._compute, []

    def slowly(backbone: Backbone, reader: StoreReader, group: Any, state: np.ndarray, *rest: Any) -> Any:
        before = state.copy()
        time.sleep(0.2)  # the next block is read meanwhile
        result = plain(backbone, reader, group, state, *rest)
        np.testing.assert_array_equal(state, before)
        places.append(state.ctypes.data)
        return result

    monkeypatch.setattr(engine, "_compute", slowly)
    replay_edits(fresh(), EDITS)
    first, second, third = places
    assert first == third != second


@pytest.mark.parametrize("error", [MemoryError("unable to allocate"), RuntimeError("CUDA error: out of memory")])
def test_states_for_which_there_is_no_memory_are_named_and_nothing_is_written(
    fresh: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def none(*_: Any) -> Any:
        raise error

    cache = fresh()
    monkeypatch.setattr("cachetool.extraction.buffers.empty_for_reading", none)
    with pytest.raises(OutOfMemoryError, match=r"no memory for a state of 8 images .*\(8, 69, 96\)\): .*free some"):
        replay_edits(cache, EDITS[:1])
    assert not any(StoreReader(run).complete.any() for run in list_runs(cache))
    monkeypatch.undo()
    (run,) = replay_edits(cache, EDITS[:1])
    assert not run.reused
