"""What is prepared ahead: bounded in memory, on one read of each state."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachetool import Edit
from cachetool.places import list_runs
from cachetool.replaying import engine, portions, replay_edits
from cachetool.replaying.arm import Arm, EditInHand, PreparedEdit
from cachetool.store import StoreReader, StoreWriter
from tests.reference.plain_models import stored_array, stored_sequence

EDITS = (
    Edit("patches", "mean", 6),
    Edit("patches", "noise", 6),
    Edit("registers", "shuffle", 6),
    Edit("registers", "noise", 6),
    Edit("cls", "remove", 6),
)
VALUES = 8 * 64 * 7 * 96 * 4
"""Bytes that are put into all patches of a block of 8 images at 7 states."""


@pytest.fixture
def natural(caches: dict[str, Path]) -> dict[str, Any]:
    """What the edits give, all at once, by run."""
    return {run.path.name: found(run.path) for run in replay_edits(caches["float32"], EDITS)}


def found(run: Path) -> list[np.ndarray]:
    """All that a run holds of its images."""
    names = StoreReader(run).beside
    return [stored_sequence(run), *(stored_array(run, name) for name in sorted(names))]


def assert_same(cache: Path, natural: dict[str, Any]) -> None:
    runs = list_runs(cache)
    assert {run.name for run in runs} == set(natural)
    for run in runs:
        for one, other in zip(found(run), natural[run.name], strict=True):
            assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def test_what_edits_put_in_is_held_for_two_portions_at_most_and_states_are_read_once(
    fresh: Callable[..., Path], natural: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[PreparedEdit]] = []
    most, reads = [], []
    prepare, compute, read = EditInHand.prepare, engine._compute, StoreReader.read_state

    def prepared(arm: EditInHand, *arguments: Any, **options: Any) -> PreparedEdit:
        one = prepare(arm, *arguments, **options)
        alive.append(weakref.ref(one))
        return one

    def computed(*arguments: Any) -> Any:
        gc.collect()
        held = [one() for one in alive]
        most.append(sum(values.nbytes for one in held if one is not None for values in one.values.values()))
        return compute(*arguments)

    def counted(reader: StoreReader, layer: int, start: int, stop: int, **options: Any) -> Any:
        reads.append((layer, start, stop))
        return read(reader, layer, start, stop, **options)

    cache = fresh()
    monkeypatch.setattr(portions, "HELD_BYTES", VALUES)
    monkeypatch.setattr(Arm, "prepare", prepared)
    monkeypatch.setattr(engine, "_compute", computed)
    monkeypatch.setattr(StoreReader, "read_state", counted)
    replay_edits(cache, EDITS)
    assert len(most) == 3 * 3, "each edit of patches alone, the others together, in three blocks"
    assert VALUES <= max(most) <= 2 * VALUES
    assert [one for one in reads if one[2] - one[1] > 1] == [(6, 0, 8), (6, 8, 16), (6, 16, 20)]
    monkeypatch.undo()
    assert_same(cache, natural)


def test_what_preparing_raises_reaches_the_caller_and_finished_blocks_stay(
    fresh: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = EditInHand.prepare

    def failing(arm: EditInHand, state: Any, first: int, *arguments: Any, **options: Any) -> PreparedEdit:
        if first == 8:
            raise OSError("the disk is gone")
        return prepare(arm, state, first, *arguments, **options)

    cache = fresh()
    monkeypatch.setattr(Arm, "prepare", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        replay_edits(cache, EDITS)
    assert all(StoreWriter(run).pending([12], ["cls"], range(3)) == [1, 2] for run in list_runs(cache))
    monkeypatch.undo()
    assert not any(run.reused for run in replay_edits(cache, EDITS))
