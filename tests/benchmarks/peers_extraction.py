"""Extraction beside what else one would take, on the same weights and images: forward hooks, nnsight, saev."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import cachetool
from cachetool.extraction import Request, extract, prepare
from cachetool.extraction.storage_error import measured_images, storage_error
from cachetool.store import StoreReader
from tests.benchmarks.models import BATCH, MODEL
from tests.benchmarks.peers import CHANNELS, DEPTH, IMAGES, REGISTERS, REPEATS, TOKENS, absent, batches, model_and_jpegs
from tests.benchmarks.ratios import Comparison, in_turns, speed, timed


def measure(folder: Path) -> Iterator[Comparison]:
    """All states of images as JPEG files to disk, and the registers alone without a cache."""
    if find_spec("saev"):
        import saev.activations  # noqa: F401  nnsight gives `object` a method that saev's beartype cannot import with
    model, name, weights = model_and_jpegs(folder)
    ours = prepare(MODEL, name, root=folder / "ours", weights=weights, limit=IMAGES)
    shape = (IMAGES, DEPTH + 1, TOKENS, CHANNELS)
    memmap, hdf5, traced = folder / "hooks.dat", folder / "hooks.h5", folder / "traced.dat"

    def clear() -> None:
        shutil.rmtree(folder / "ours", ignore_errors=True)

    def hooks_to_memmap() -> None:
        stored = np.memmap(memmap, np.float16, "w+", shape=shape)
        for rows, states in _hooked_states(model, ours):
            for layer, state in enumerate(states):
                stored[rows, layer] = state.half().numpy()
        stored.flush()

    def hooks_to_hdf5() -> None:
        with h5py.File(hdf5, "w") as file:
            stored = file.create_dataset("states", shape, np.float16, chunks=(1, 1, TOKENS, CHANNELS))
            for rows, states in _hooked_states(model, ours):
                for layer, state in enumerate(states):
                    stored[rows, layer] = state.half().numpy()
            file.flush()
            os.fsync(file.id.get_vfd_handle())

    def nnsight_to_memmap() -> None:
        from tests.benchmarks.peer_nnsight import all_states

        stored = np.memmap(traced, np.float16, "w+", shape=shape)
        for rows, images in batches(ours):
            for layer, state in enumerate(all_states(model, images)):
                stored[rows, layer] = state.half().numpy()
        stored.flush()

    sides: dict[str, Callable[[], None]] = {
        "forward hooks to one memmap": hooks_to_memmap,
        "forward hooks to HDF5 (h5py)": hooks_to_hdf5,
    }
    files = [memmap]
    if find_spec("nnsight"):
        sides["nnsight trace to one memmap"] = nnsight_to_memmap
        files.append(traced)

    def check() -> None:
        # The last side is not ours, so that our cache was removed.
        extract(ours, batch_size=BATCH)
        reader = StoreReader(ours.path)
        with h5py.File(hdf5, "r") as file:
            others = [*(np.memmap(path, np.float16, "r", shape=shape) for path in files), file["states"]]
            for layer in range(DEPTH + 1):
                expected = reader.read_state(layer, 0, IMAGES, np.float16)
                for other in others:
                    np.testing.assert_array_equal(other[:, layer], expected)

    seconds = in_turns(
        lambda: extract(ours, batch_size=BATCH), *sides.values(), repeats=REPEATS, before=clear, check=check
    )
    _, images = next(batches(ours))
    sample = images[: measured_images(IMAGES, ours.layers, DEPTH)]
    once = timed(lambda: storage_error(ours.backbone, sample, ours.layers, ours.token_types, "float16"))
    what = "extract ViT-S/14 reg4, 13 states to float16"
    counts = {"images": str(IMAGES), "of ours, once per cache: storage error": f"{once:.1f} s"}
    for name_of_side, other in zip(sides, seconds[1:], strict=True):
        yield speed(what, name_of_side, (seconds[0], other), 0.9, counts)
    if not find_spec("nnsight"):
        yield absent(what, "nnsight")
    yield from _registers(folder, model, ours)
    yield _saev(folder, model, name, weights)


def _hooked_states(model: Any, request: Request) -> Iterator[tuple[slice, list[torch.Tensor]]]:
    """All states of each batch, gathered by hooks during an ordinary forward pass."""
    states: list[torch.Tensor] = []
    hooks = [model.blocks[0].register_forward_pre_hook(lambda _module, inputs: states.append(inputs[0]))]
    hooks += [block.register_forward_hook(lambda _module, _in, output: states.append(output)) for block in model.blocks]
    for rows, images in batches(request):
        states.clear()
        with torch.inference_mode():
            model.forward_features(images)
        yield rows, states
    for hook in hooks:
        hook.remove()


def _registers(folder: Path, model: Any, request: Request) -> Iterator[Comparison]:
    """Registers of all layers: from the cache, and from another forward pass that keeps nothing else."""
    extract(request, batch_size=BATCH)
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        found["ours"] = cachetool.open(request.path, dtype="stored").registers.values

    def forward() -> None:
        gathered = [
            torch.stack([state[:, REGISTERS] for state in states], dim=1).half().numpy()
            for _, states in _hooked_states(model, request)
        ]
        found["forward"] = np.concatenate(gathered)

    seconds = in_turns(
        ours, forward, repeats=REPEATS, check=lambda: np.testing.assert_array_equal(found["ours"], found["forward"])
    )
    yield speed(
        "registers of all images and layers, cachetool.open", "running the model again with hooks", seconds, 100,
        {"images": str(IMAGES)},
    )  # fmt: skip


def _saev(folder: Path, model: Any, name: str, weights: Path) -> Comparison:
    """saev records outputs of blocks as float32, so that state 0 is left out on both sides."""
    what = "extract ViT-S/14 reg4, states 1-12 to float32"
    if not find_spec("saev"):
        return absent(what, "saev")
    from tests.benchmarks.peer_saev import record

    ours = prepare(
        MODEL, name, root=folder / "ours", name="exact", weights=weights, limit=IMAGES, dtype="float32",
        layers=range(1, DEPTH + 1),
    )  # fmt: skip
    recorded: list[np.ndarray] = []

    def saev() -> None:
        shutil.rmtree(folder / "saev", ignore_errors=True)
        recorded[:] = [record(model, (images for _, images in batches(ours)), folder / "saev", IMAGES, TOKENS)]

    def clear() -> None:
        shutil.rmtree(ours.path, ignore_errors=True)

    def check() -> None:
        extract(ours, batch_size=BATCH)
        reader = StoreReader(ours.path)
        for layer in range(1, DEPTH + 1):
            np.testing.assert_array_equal(recorded[0][:, layer - 1], reader.read_state(layer, 0, IMAGES))

    seconds = in_turns(lambda: extract(ours, batch_size=BATCH), saev, repeats=REPEATS, before=clear, check=check)
    return speed(what, "saev recorder and shards", seconds, 0.9, {"images": str(IMAGES)})
