"""What a replay on CUDA waits for, and what it must wait for: memory that is used in turns, and nothing more."""

from __future__ import annotations

import shutil
import warnings
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cachetool
from cachetool import Edit
from cachetool.extraction.buffers import host_memory, to_device
from cachetool.replaying import engine, preparing, replay_edits
from tests.reference.plain_models import stored_sequence

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

DEVICE = torch.device("cuda")
LATE = 50_000_000
"""Clock cycles that the device is kept busy before a state reaches it: some 30 ms, long enough for the next read."""
EDITS = [
    Edit("registers", "mean", 6),
    Edit("registers", "noise", 6),
    Edit("patches:random4", "shuffle", 6),
    Edit("patches", "mean", 6),
    Edit("cls", "remove", 6),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("caches")
    opened = cachetool.extract("tiny-reg", "shapes", root=root, limit=70, dtype="float32", device="cuda")
    return Path(opened.attrs["cachetool_path"])


def replayed(cache: Path, folder: Path, **options: Any) -> list[np.ndarray]:
    """All states of the runs of a copy of a cache, in nine blocks of 8 images."""
    copy = Path(shutil.copytree(cache, folder / "copy.zarr"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachetool.replaying.runs.run_block", lambda cache, edit, keep: 8)
        return [stored_sequence(run.path) for run in replay_edits(copy, EDITS, keep="all", device="cuda", **options)]


@pytest.mark.parametrize("bound", [None, 1])
@pytest.mark.parametrize("batch", [8, 3])
def test_a_state_stays_until_its_copy_is_made(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, bound: int | None
) -> None:
    with monkeypatch.context() as patch:
        # New memory for each block, which is not pinned.
        patch.setattr(preparing, "cycle", lambda rooms: (np.empty_like(rooms[0]) for _ in count()))
        expected = replayed(cache, tmp_path / "new", batch_size=batch)

    def late(values: np.ndarray, device: torch.device) -> torch.Tensor:
        torch.cuda._sleep(LATE)
        return to_device(values, device)

    monkeypatch.setattr(engine, "to_device", late)
    if bound is not None:
        monkeypatch.setattr("cachetool.replaying.portions.HELD_BYTES", bound)
    for found, right in zip(replayed(cache, tmp_path / "turns", batch_size=batch), expected, strict=True):
        # Edits that share nothing, one at a time, are computed by other products.
        np.testing.assert_allclose(found, right, rtol=0, atol=0 if bound is None else 1e-4)


def test_states_go_to_the_device_from_the_memory_that_they_are_read_into() -> None:
    room = host_memory((4, 5, 6), DEVICE)
    tensor = torch.from_numpy(room[1:3])
    assert tensor.is_pinned()
    assert tensor.pin_memory().data_ptr() == tensor.data_ptr()


def test_a_batch_waits_for_the_device_once_an_edit(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, waits = engine._compute, []

    def watched(*arguments: Any) -> Any:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return compute(*arguments)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                waits.append(sum("synchroniz" in str(one.message) for one in told))

    monkeypatch.setattr(engine, "_compute", watched)
    replayed(cache, tmp_path, batch_size=8)
    assert len(waits) == 9
    # `remove` also moves its mask; each edit of seven states would wait fifteen times for what is put in there.
    assert len(EDITS) <= max(waits) <= 2 * len(EDITS)
