"""Replay beside what else one would take, on the same weights, images and edits: forward hooks, a loop, nnsight."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cachetool
from cachetool import Edit
from cachetool.extraction import Request, extract, prepare
from cachetool.extraction.storage_error import relative_error
from cachetool.places import runs_directory
from cachetool.store import StoreReader
from tests.benchmarks.models import BATCH, FROM_LAYER, MODEL
from tests.benchmarks.peers import CHANNELS, DEPTH, IMAGES, REGISTERS, REPEATS, TOKENS, absent, batches, model_and_jpegs
from tests.benchmarks.ratios import Comparison, in_turns, speed

EDITS = tuple(Edit("registers", name, FROM_LAYER, seed=seed) for name, seed in (
    ("zero", 0), ("mean", 0), ("shuffle", 0), ("shuffle", 1)
))  # fmt: skip
STATES = range(FROM_LAYER, DEPTH + 1)
REPLAY = f"replay of {len(EDITS)} edits of registers from state {FROM_LAYER} of {DEPTH}"
ROUNDING = 5e-3
"""Largest relative error between final tokens that were replayed from a float16 state, and ones that were not."""


def measure(folder: Path) -> Iterator[Comparison]:
    """Four edits of registers from state 9 of 12, all final tokens to disk, against forwards with hooks."""
    model, request, artefact = _cached(folder)
    edited = _injected(request, artefact)

    def each_its_forward(name: str) -> None:
        for edit in range(len(EDITS)):
            for rows, images in batches(request):
                hooks = [
                    model.blocks[layer - 1].register_forward_hook(partial(_put, edited(edit, layer, rows)))
                    for layer in STATES
                ]
                last: list[torch.Tensor] = []
                hooks.append(model.blocks[-1].register_forward_hook(lambda _m, _i, output, to=last: to.append(output)))
                with torch.inference_mode():
                    model.forward_features(images)
                _final(folder, name, edit)[rows] = last[0].half().numpy()
                for hook in hooks:
                    hook.remove()

    def early_blocks_once(name: str) -> None:
        for rows, images in batches(request):
            with torch.inference_mode():
                state = model._pos_embed(model.patch_embed(images))
                for block in model.blocks[:FROM_LAYER]:
                    state = block(state)
                for edit in range(len(EDITS)):
                    running = _put(edited(edit, FROM_LAYER, rows), None, None, state)
                    for layer in STATES[1:]:
                        running = _put(edited(edit, layer, rows), None, None, model.blocks[layer - 1](running))
                    _final(folder, name, edit)[rows] = running.half().numpy()

    sides = {
        "one forward with hooks per edit": each_its_forward,
        "hand-written loop: early blocks once per batch": early_blocks_once,
    }
    yield from _compare_replays(folder, request, artefact, sides)


def measure_nnsight(folder: Path) -> Iterator[Comparison]:
    """The same edits by nnsight: as full forward passes, and from a stored state, with the blocks before it skipped."""
    if not find_spec("nnsight"):
        yield absent(REPLAY, "nnsight")
        return
    from tests.benchmarks.peer_nnsight import edited_forward, edited_from_state

    model, request, artefact = _cached(folder)
    edited = _injected(request, artefact)
    np.save(folder / "state.npy", StoreReader(request.path).read_state(FROM_LAYER, 0, IMAGES, np.float16))

    def forwards(name: str) -> None:
        for edit in range(len(EDITS)):
            for rows, images in batches(request):
                values = {layer: edited(edit, layer, rows) for layer in STATES}
                _final(folder, name, edit)[rows] = edited_forward(model, images, values, REGISTERS).half().numpy()

    def skipping(name: str) -> None:
        stored = np.load(folder / "state.npy", mmap_mode="r")
        for edit in range(len(EDITS)):
            for first in range(0, IMAGES, BATCH):
                rows = slice(first, first + BATCH)
                values = {layer: edited(edit, layer, rows) for layer in STATES}
                state = torch.from_numpy(stored[rows].astype(np.float32))
                found = edited_from_state(model, state, values, REGISTERS, request.backbone.image_size)
                _final(folder, name, edit)[rows] = found.half().numpy()

    sides = {"nnsight, one forward per edit": forwards, "nnsight, blocks skipped, state from a file": skipping}
    yield from _compare_replays(folder, request, artefact, sides)


def _put(values: torch.Tensor, _module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    output = output.clone()
    output[:, REGISTERS] = values
    return output


def _cached(folder: Path) -> tuple[Any, Request, str]:
    """The model, its cache and a calibration of it."""
    model, name, weights = model_and_jpegs(folder)
    request = prepare(MODEL, name, root=folder / "ours", weights=weights, limit=IMAGES)
    extract(request, batch_size=BATCH)
    return model, request, cachetool.calibrate(request.path, name="benchmark").attrs["cachetool_path"]


def _injected(request: Request, artefact: str) -> Callable[[int, int, slice], torch.Tensor]:
    """What an edit puts in at a state of some images: (register, channel), or (image, register, channel)."""
    cache = cachetool.open(request.path)
    registers = {layer: torch.from_numpy(cache.registers.sel(layer=layer).values) for layer in STATES}
    means = {layer: tokens.double().mean(dim=0).float() for layer, tokens in registers.items()}
    shuffles = cachetool.replay(request.path, list(EDITS[2:]), calibration=artefact, batch_size=BATCH)
    donors = [run.donor.values for run in shuffles]

    def edited(edit: int, layer: int, rows: slice) -> torch.Tensor:
        match edit:
            case 0:
                return torch.zeros(1)
            case 1:
                return means[layer]
            case _:
                return registers[layer][donors[edit - 2][rows]]

    return edited


def _compare_replays(
    folder: Path, request: Request, artefact: str, sides: dict[str, Callable[[str], None]]
) -> Iterator[Comparison]:
    path = request.path

    def ours() -> None:
        cachetool.replay(path, list(EDITS), calibration=artefact, batch_size=BATCH)

    def clear() -> None:
        shutil.rmtree(runs_directory(path), ignore_errors=True)

    def check() -> None:
        # The last side is not ours, so that our runs were removed.
        runs = cachetool.replay(path, list(EDITS), calibration=artefact, batch_size=BATCH)
        for edit, run in enumerate(runs):
            expected = torch.from_numpy(StoreReader(run.attrs["cachetool_path"]).read_state(DEPTH, 0, IMAGES))
            for side in sides:
                error = relative_error(torch.from_numpy(np.array(_final(folder, side, edit))), expected)
                assert error < ROUNDING, f"edit {edit}, {side}: final tokens differ by {error}"

    works = [partial(work, name) for name, work in sides.items()]
    seconds = in_turns(ours, *works, repeats=REPEATS, before=clear, check=check)
    counts = {"images": str(IMAGES), "blocks run": f"{len(EDITS) * (DEPTH - FROM_LAYER)}"}
    for side, other in zip(sides, seconds[1:], strict=True):
        yield speed(REPLAY, side, (seconds[0], other), 1.0, counts)


def _final(folder: Path, side: str, edit: int) -> np.memmap:
    path = folder / f"{side} {edit}.dat"
    mode = "r+" if path.exists() else "w+"
    return np.memmap(path, np.float16, mode, shape=(IMAGES, TOKENS, CHANNELS))
