"""What reaches the device of a batch: its part of each edit, moved before any block is begun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cachetool import Edit
from cachetool.backbones import Backbone
from cachetool.edits import Selection
from cachetool.replaying import engine, replay_edits
from cachetool.replaying.arm import PreparedEdit
from cachetool.replaying.batches import batch_edit

CPU = torch.device("cpu")
IMAGE, POSITION = np.array([0, 0, 2, 3, 3]), np.array([1, 4, 2, 1, 3])
VALUES = np.arange(10, dtype=np.float32).reshape(5, 2)
EDIT = PreparedEdit(Selection("registers", IMAGE, POSITION, POSITION - 1, 4), {6: VALUES, 7: VALUES + 1})


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2, 3], [0, 3], [1], []])
def test_a_batch_has_the_pairs_of_its_images_numbered_from_0(rows: list[int]) -> None:
    found = batch_edit(EDIT, np.array(rows, dtype=np.int64), CPU)
    pairs = [pair for pair in range(5) if IMAGE[pair] in rows]
    assert found.selection.images == len(rows)
    assert found.where[0].tolist() == found.selection.image.tolist() == [rows.index(IMAGE[pair]) for pair in pairs]
    assert found.where[1].tolist() == found.selection.position.tolist() == POSITION[pairs].tolist()
    assert found.selection.token.tolist() == (POSITION[pairs] - 1).tolist()
    for layer, more in ((6, 0), (7, 1)):
        assert torch.equal(found.values[layer], torch.from_numpy(VALUES[pairs] + more))


def test_one_row_for_all_pairs_may_be_given() -> None:
    once = np.broadcast_to(VALUES[0], (5, 2))
    found = batch_edit(PreparedEdit(EDIT.selection, {6: once}), np.arange(4), CPU)
    found.values[6][0] = 7
    assert found.values[6][1].tolist() == once[1].tolist() == VALUES[0].tolist()


def test_everything_is_moved_before_the_first_block_of_a_batch(
    fresh: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy from memory that is not pinned has a GPU finish what was begun before it."""
    order: list[str] = []
    move, run, project = engine.batch_edit, Backbone.run, Backbone.project

    def moved(*arguments: Any) -> Any:
        order.append("move")
        return move(*arguments)

    def ran(*arguments: Any, **options: Any) -> Any:
        order.append("run")
        return run(*arguments, **options)

    def projected(*arguments: Any) -> Any:
        order.append("project")
        return project(*arguments)

    cache = fresh()
    edits = [Edit("registers", "mean", 6), Edit("registers", "zero", 6)]
    replay_edits(cache, [Edit("registers", "mean", 9)])
    monkeypatch.setattr("cachetool.replaying.replayer.certify", lambda *_, **_kw: {"relative_error": 0.0})
    monkeypatch.setattr(engine, "batch_edit", moved)
    monkeypatch.setattr(Backbone, "run", ran)
    monkeypatch.setattr(Backbone, "project", projected)
    replay_edits(cache, edits)
    assert order == ["move", "move", "project", "run", "run"] * 3
