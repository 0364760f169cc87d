"""What a replay takes beside its blocks, which cost nothing here: the least that a device can bring it down to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from threadpoolctl import threadpool_limits

import cachetool
from cachetool import Edit
from cachetool.backbones import Backbone
from cachetool.extraction.buffers import BlockBuffer
from cachetool.places import runs_directory
from cachetool.plan import plan_replay
from tests.benchmarks.models import EDITS, FROM_LAYER, MODEL, REPEATS, make_inputs, prediction
from tests.benchmarks.ratios import Comparison, in_turns, slower
from tests.benchmarks.raw_files import raw_write

IMAGES, BATCH = 2048, 128
"""The batch is that of CUDA."""

IN_TURNS = 16
"""Blocks in memory: more than are computed and written at a time."""


def measure(folder: Path) -> Iterator[Comparison]:
    """A replay whose blocks cost nothing against a raw file of what it writes, on the disk of a folder."""
    inputs = make_inputs(folder, IMAGES)
    states = torch.randn((BATCH, 261, 384), generator=torch.Generator().manual_seed(0))

    def run(
        _: Backbone, state: torch.Tensor, start: int, stop: int, visit: Callable[..., Any] | None = None, **_kw: Any
    ) -> torch.Tensor:
        for layer in range(start, stop + 1) if visit else ():
            visit(layer, states[: len(state)])
        return states[: len(state)]

    with patch.object(Backbone, "run", run):
        cache = cachetool.extract(MODEL, inputs.dataset, root=folder / "caches", weights=inputs.weights, device="cpu")
    path = Path(cache.attrs["cachetool_path"])
    calibration = cachetool.calibrate(path, name="benchmark").attrs["cachetool_path"]
    edits = [Edit("registers", one, FROM_LAYER) for one in EDITS]

    @contextmanager
    def costing_nothing() -> Iterator[None]:
        with (
            patch.object(Backbone, "run", run),
            # What a device does: products that edits share, the edit itself, rounding, looking at the range.
            patch.object(Backbone, "project", lambda *_: None),
            patch("cachetool.replaying.engine.replace_tokens", lambda state, *_, **_kw: state),
            patch("cachetool.replaying.engine.BlockBuffer", filled),
            patch.object(BlockBuffer, "store", _noted),
            patch("cachetool.replaying.replayer.certify", lambda *_, **_kw: {"relative_error": 0.0}),
            threadpool_limits(limits=1, user_api="openmp"),  # as `copying_alone` has it on a device
        ):
            yield

    def replay() -> None:
        with costing_nothing():
            cachetool.replay(path, edits, calibration=calibration, batch_size=BATCH, device="cpu")

    fill, kept = BlockBuffer.store, list[BlockBuffer]()
    calls = count()

    def filled(*arguments: Any) -> BlockBuffer:
        """Numbers in memory that is used again, as pinned memory is: pages that nobody touched cost nothing to read."""
        turn = next(calls) % IN_TURNS
        if turn == len(kept):
            kept.append(BlockBuffer(*arguments))
            fill(kept[turn], 12, torch.arange(kept[turn].images), states[: kept[turn].images], ())
        kept[turn].clear()
        return kept[turn]

    def clear() -> None:
        shutil.rmtree(runs_directory(path), ignore_errors=True)

    replay()
    written = [file.stat().st_size for file in runs_directory(path).rglob("*") if file.is_file()]
    seconds = in_turns(replay, raw_write(folder, sum(written)), repeats=REPEATS, warm=False, before=clear)
    what = f"replay of {len(EDITS)} edits from layer {FROM_LAYER} whose blocks cost nothing"
    counts = {"images": str(IMAGES), "written": f"{sum(written) / 2**20:.0f} MB in {len(written)} files"}
    yield slower(what, "a raw file of what it writes", seconds, 2.0, counts)
    clear()
    with costing_nothing():
        plan = plan_replay(path, edits, calibration=calibration, batch_size=BATCH, device="cpu")
    yield prediction("same", plan, seconds[0])


def _noted(buffer: BlockBuffer, layer: int, images: torch.Tensor, *_: Any) -> None:
    """Note that a state was stored, without the copy, which a device makes by itself."""
    if layer in buffer._row:
        buffer._stored[buffer._row[layer], images.numpy()] = True
