"""Replays against full forward passes with hooks, and against their blocks alone, on images as JPEG files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import cachetool
from cachetool import Edit
from cachetool.arithmetic import Arithmetic
from cachetool.backbones import load
from cachetool.extraction import prepare
from cachetool.places import runs_directory
from cachetool.plan import plan_replay
from cachetool.replaying.model import compile_blocks
from cachetool.store import StoreReader
from tests.benchmarks.models import BATCH, EDITS, FROM_LAYER, IMAGES, MODEL, REPEATS, decode, make_inputs, prediction
from tests.benchmarks.ratios import Comparison, in_turns, slower, speed


def measure(folder: Path) -> Iterator[Comparison]:
    """Replays against full passes and against their blocks, in a folder on the disk that is to be measured."""
    model, name, weights = make_inputs(folder)
    cache = cachetool.extract(MODEL, name, root=folder / "cached", weights=weights, batch_size=BATCH, device="cpu")
    path = Path(cache.attrs["cachetool_path"])
    registers = slice(1, 5)
    request = prepare(MODEL, name, root=folder / "unused", weights=weights, device="cpu")
    calibration = cachetool.calibrate(path, name="benchmark")
    means = {
        layer: torch.from_numpy(cache.registers.sel(layer=layer).mean("image").values)
        for layer in range(FROM_LAYER, 13)
    }
    edits = [Edit("registers", one, FROM_LAYER) for one in EDITS]

    def clear() -> None:
        shutil.rmtree(runs_directory(path), ignore_errors=True)

    def replay() -> None:
        cachetool.replay(path, edits, calibration=calibration.attrs["cachetool_path"], batch_size=BATCH, device="cpu")

    def with_hooks() -> None:
        """Four forwards with ordinary hooks; what is put in is the mean each time, which costs least."""
        for _ in EDITS:
            hooks = [
                model.blocks[layer - 1].register_forward_hook(_putting(means[layer], registers))
                for layer in range(FROM_LAYER, 13)
            ]
            with torch.inference_mode():
                for batch in decode(request):
                    model.forward_features(batch.images)
            for hook in hooks:
                hook.remove()

    backbone = load(MODEL, weights=weights)
    states = torch.from_numpy(StoreReader(path).read_state(FROM_LAYER, 0, IMAGES))

    def blocks_alone() -> None:
        with torch.inference_mode():
            for _ in EDITS:
                for first in range(0, IMAGES, BATCH):
                    backbone.run(states[first : first + BATCH], FROM_LAYER, 12)

    replayed, hooked, alone = in_turns(replay, with_hooks, blocks_alone, repeats=REPEATS, warm=False, before=clear)
    blocks = len(EDITS) * (12 - FROM_LAYER)
    counts = {"blocks run": f"{blocks} against {len(EDITS) * 12}", "images": str(IMAGES)}
    yield speed(
        f"replay of {len(EDITS)} edits from layer {FROM_LAYER} of 12, end to end", "full forwards with hooks",
        (replayed, hooked), 4.0, counts,
    )  # fmt: skip
    yield slower("the same", "the same blocks on tensors in memory", (replayed, alone), 1.05, counts)
    clear()
    artefact = calibration.attrs["cachetool_path"]
    plan = plan_replay(path, edits, calibration=artefact, batch_size=BATCH, device="cpu")
    yield prediction("replay", plan, replayed)

    last = [Edit("registers", "zero", 11)]
    seconds = in_turns(
        lambda: cachetool.replay(path, last, calibration=artefact, keep_tokens=["cls"], device="cpu"),
        lambda: cachetool.replay(path, last, calibration=artefact, device="cpu"),
        repeats=REPEATS, before=clear,
    )  # fmt: skip
    yield speed(
        "one edit from layer 11, [CLS] alone wanted", "all tokens wanted", seconds, 1.0, {"images": str(IMAGES)}
    )
    wanted = torch.zeros(1, dtype=torch.int64)
    batch = states[:BATCH]
    with torch.inference_mode():
        seconds = in_turns(
            lambda: backbone.run(batch, 11, 12, wanted=wanted), lambda: backbone.run(batch, 11, 12), repeats=10
        )
    yield speed("the block alone, [CLS] alone wanted", "the whole block", seconds, 1.0, {"images": str(BATCH)})

    rounded = Arithmetic("bfloat16")

    def in_bfloat16() -> None:
        with rounded.used(batch.device):
            backbone.run(batch, FROM_LAYER, 12)

    with torch.inference_mode():
        seconds = in_turns(in_bfloat16, lambda: backbone.run(batch, FROM_LAYER, 12), repeats=5)
    yield speed("blocks in bfloat16", "in float32", seconds, 1.0, {"images": str(BATCH)})
    compiled = load(MODEL, weights=weights)
    compile_blocks(compiled, FROM_LAYER)
    with torch.inference_mode():
        started = time.perf_counter()
        compiled.run(batch, FROM_LAYER, 12)
        begun = time.perf_counter() - started
        seconds = in_turns(
            lambda: compiled.run(batch, FROM_LAYER, 12), lambda: backbone.run(batch, FROM_LAYER, 12), repeats=5
        )
    yield speed(
        "blocks compiled", "blocks as they are", seconds, 1.0, {"images": str(BATCH), "compiled in": f"{begun:.1f} s"}
    )


def _putting(values: torch.Tensor, tokens: slice) -> Any:
    def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, tokens] = values
        return output

    return hook
