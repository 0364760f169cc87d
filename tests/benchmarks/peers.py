"""Beside what else one would take, on the same weights, images and results: hooks, nnsight, saev, HDF5, one memmap.

nnsight and saev are the optional extra `peers`; a row says so where one is not installed. What each side gives is
compared before anything is timed.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import cachetool
from cachetool import Edit
from cachetool.datasets import load_batches
from cachetool.extraction import Request, extract, prepare
from cachetool.extraction.extract import default_workers
from cachetool.extraction.storage_error import measured_images, relative_error, storage_error
from cachetool.places import runs_directory
from cachetool.store import StoreReader
from tests.benchmarks import storage
from tests.benchmarks.models import ARCHITECTURE, BATCH, FROM_LAYER, MODEL, make_photos
from tests.benchmarks.ratios import Comparison, in_turns, speed, timed
from tests.reference.plain_models import random_vit, save_weights

IMAGES, REPEATS = 64, 2
TOKENS, CHANNELS, DEPTH = 261, 384, 12
REGISTERS = slice(1, 5)
EDITS = tuple(Edit("registers", name, FROM_LAYER, seed=seed) for name, seed in (
    ("zero", 0), ("mean", 0), ("shuffle", 0), ("shuffle", 1)
))  # fmt: skip
STATES = range(FROM_LAYER, DEPTH + 1)
REPLAY = f"replay of {len(EDITS)} edits of registers from state {FROM_LAYER} of {DEPTH}"
ROUNDING = 5e-3
"""Largest relative error between final tokens that were replayed from a float16 state, and ones that were not."""

Reading = Callable[[str], np.ndarray]
"""Reads `registers` of all layers, or `patches` of one, from a file that is open."""


def measure_extraction(folder: Path) -> Iterator[Comparison]:
    """All states of images as JPEG files to disk, and the registers alone without a cache."""
    if find_spec("saev"):
        import saev.activations  # noqa: F401  nnsight gives `object` a method that saev's beartype cannot import with
    model, name, weights = _model_and_photos(folder)
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
        for rows, images in _batches(ours):
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
    _, images = next(_batches(ours))
    sample = images[: measured_images(IMAGES, ours.layers, DEPTH)]
    once = timed(lambda: storage_error(ours.backbone, sample, ours.layers, ours.token_types, "float16"))
    what = "extract ViT-S/14 reg4, 13 states to float16"
    counts = {"images": str(IMAGES), "of ours, once per cache: storage error": f"{once:.1f} s"}
    for name_of_side, other in zip(sides, seconds[1:], strict=True):
        yield speed(what, name_of_side, (seconds[0], other), 0.9, counts)
    if not find_spec("nnsight"):
        yield _absent(what, "nnsight")
    yield from _registers(folder, model, ours)
    yield _saev(folder, model, name, weights)


def measure_replay(folder: Path) -> Iterator[Comparison]:
    """Four edits of registers from state 9 of 12, all final tokens to disk, against forwards with hooks."""
    model, request, artefact = _cached(folder)
    edited = _injected(request, artefact)

    def each_its_forward(name: str) -> None:
        for edit in range(len(EDITS)):
            for rows, images in _batches(request):
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
        for rows, images in _batches(request):
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
        yield _absent(REPLAY, "nnsight")
        return
    from tests.benchmarks.peer_nnsight import edited_forward, edited_from_state

    model, request, artefact = _cached(folder)
    edited = _injected(request, artefact)
    np.save(folder / "state.npy", StoreReader(request.path).read_state(FROM_LAYER, 0, IMAGES, np.float16))

    def forwards(name: str) -> None:
        for edit in range(len(EDITS)):
            for rows, images in _batches(request):
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


def measure_reading(folder: Path) -> Iterator[Comparison]:
    """Registers of all images at all layers, and the patches of one layer, against the same numbers in other files.

    Cold, every side opens its file anew and the system holds nothing of it; warm, files are kept open.
    """
    path = storage.make_store(folder / "store.zarr", storage.IMAGES)
    joint, joint_hdf5, split_hdf5 = folder / "joint.dat", folder / "joint.h5", folder / "split.h5"
    shape = _make_files(StoreReader(path), joint, joint_hdf5, split_hdf5)
    patches, layer = slice(5, TOKENS), 6

    def opened() -> Reading:
        cache = cachetool.open(path, dtype="stored")
        return lambda what: cache.registers.values if what == "registers" else cache.patches.sel(layer=layer).values

    def reader() -> Reading:
        store = StoreReader(path)

        def read(what: str) -> np.ndarray:
            if what == "registers":
                return store.read_layers("registers", range(DEPTH + 1), 0, shape[0]).swapaxes(0, 1)
            return store.read("patches", layer, 0, shape[0])

        return read

    def memmap() -> Reading:
        mapped = np.memmap(joint, np.float16, "r", shape=shape)
        return lambda what: np.array(mapped[:, :, REGISTERS] if what == "registers" else mapped[:, layer, patches])

    def one_dataset() -> Reading:
        states = h5py.File(joint_hdf5, "r")["states"]
        return lambda what: states[:, :, REGISTERS] if what == "registers" else states[:, layer, patches]

    def dataset_per_type() -> Reading:
        file = h5py.File(split_hdf5, "r")
        return lambda what: file["registers"][...] if what == "registers" else file["patches"][:, layer]

    others = {
        "one memmap (image, layer, token, channel)": memmap,
        "HDF5, one dataset, a chunk per image and layer": one_dataset,
        "HDF5, one contiguous dataset per token type": dataset_per_type,
    }
    sides = (opened, reader, *others.values())

    def fresh(side: Callable[[], Reading], what: str) -> np.ndarray:
        return side()(what)

    def forget() -> None:
        gc.collect()  # what is still mapped is not dropped
        storage.forget(path, joint, joint_hdf5, split_hdf5)

    for what, title in {"registers": "registers of all images and layers", "patches": "patches of one layer"}.items():
        expected = opened()(what)
        for side in sides[1:]:
            np.testing.assert_array_equal(side()(what), expected)
        counts = {"read": f"{expected.nbytes / 2**20:.0f} MB"}
        cold = in_turns(*(partial(fresh, side, what) for side in sides), repeats=storage.REPEATS, before=forget)
        warm = in_turns(*(partial(side(), what) for side in sides), repeats=storage.REPEATS)
        for state, seconds in {"cold": cold, "warm": warm}.items():
            for ours, found in {"cachetool.open": seconds[0], "StoreReader": seconds[1]}.items():
                for name, other in zip(others, seconds[2:], strict=True):
                    yield speed(f"{title}, {state}, {ours}", name, (found, other), 1.0, counts)


def _model_and_photos(folder: Path) -> tuple[Any, str, Path]:
    model = random_vit(ARCHITECTURE, seed=0)
    return model, f"imagefolder:{make_photos(folder / 'photos')}", save_weights(model, folder / "weights.safetensors")


def _batches(request: Request) -> Iterator[tuple[slice, torch.Tensor]]:
    """Images as an extraction sees them, decoded in the same way."""
    ranges = [range(first, min(first + BATCH, IMAGES)) for first in range(0, IMAGES, BATCH)]
    loaded = load_batches(
        request.dataset,
        request.transform,
        ranges,
        sha256=request.spec.images.sha256,
        workers=default_workers(request.dataset, request.backbone.device),
    )
    for rows, batch in zip(ranges, loaded, strict=True):
        yield slice(rows.start, rows.stop), batch.images


def _hooked_states(model: Any, request: Request) -> Iterator[tuple[slice, list[torch.Tensor]]]:
    """All states of each batch, gathered by hooks during an ordinary forward pass."""
    states: list[torch.Tensor] = []
    hooks = [model.blocks[0].register_forward_pre_hook(lambda _module, inputs: states.append(inputs[0]))]
    hooks += [block.register_forward_hook(lambda _module, _in, output: states.append(output)) for block in model.blocks]
    for rows, images in _batches(request):
        states.clear()
        with torch.inference_mode():
            model.forward_features(images)
        yield rows, states
    for hook in hooks:
        hook.remove()


def _put(values: torch.Tensor, _module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    output = output.clone()
    output[:, REGISTERS] = values
    return output


def _registers(folder: Path, model: Any, request: Request) -> Iterator[Comparison]:
    """Registers of all layers: from the cache, and from another forward pass that keeps nothing else."""
    extract(request, batch_size=BATCH)
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        found["ours"] = cachetool.open(request.path, dtype="stored").registers.values

    def forward() -> None:
        batches = [
            torch.stack([state[:, REGISTERS] for state in states], dim=1).half().numpy()
            for _, states in _hooked_states(model, request)
        ]
        found["forward"] = np.concatenate(batches)

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
        return _absent(what, "saev")
    from tests.benchmarks.peer_saev import record

    ours = prepare(
        MODEL, name, root=folder / "ours", name="exact", weights=weights, limit=IMAGES, dtype="float32",
        layers=range(1, DEPTH + 1),
    )  # fmt: skip
    recorded: list[np.ndarray] = []

    def saev() -> None:
        shutil.rmtree(folder / "saev", ignore_errors=True)
        recorded[:] = [record(model, (images for _, images in _batches(ours)), folder / "saev", IMAGES, TOKENS)]

    def clear() -> None:
        shutil.rmtree(ours.path, ignore_errors=True)

    def check() -> None:
        extract(ours, batch_size=BATCH)
        reader = StoreReader(ours.path)
        for layer in range(1, DEPTH + 1):
            np.testing.assert_array_equal(recorded[0][:, layer - 1], reader.read_state(layer, 0, IMAGES))

    seconds = in_turns(lambda: extract(ours, batch_size=BATCH), saev, repeats=REPEATS, before=clear, check=check)
    return speed(what, "saev recorder and shards", seconds, 0.9, {"images": str(IMAGES)})


def _cached(folder: Path) -> tuple[Any, Request, str]:
    """The model, its cache and a calibration of it."""
    model, name, weights = _model_and_photos(folder)
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


def _make_files(reader: StoreReader, joint: Path, joint_hdf5: Path, split_hdf5: Path) -> tuple[int, ...]:
    """The numbers of a store as one memmap and as two HDF5 files; returns the shape of the joint array."""
    images = len(reader.spec.images)
    shape = (images, DEPTH + 1, TOKENS, CHANNELS)
    mapped = np.memmap(joint, np.float16, "w+", shape=shape)
    with h5py.File(joint_hdf5, "w") as one, h5py.File(split_hdf5, "w") as split:
        states = one.create_dataset("states", shape, np.float16, chunks=(1, 1, TOKENS, CHANNELS))
        for name, tokens in {"registers": 4, "patches": 256}.items():
            split.create_dataset(name, (*shape[:2], tokens, CHANNELS), np.float16)
        for layer in range(DEPTH + 1):
            state = reader.read_state(layer, 0, images, np.float16)
            mapped[:, layer] = states[:, layer] = state
            split["registers"][:, layer], split["patches"][:, layer] = state[:, REGISTERS], state[:, 5:]
    return shape


def _absent(what: str, peer: str) -> Comparison:
    nothing = float("nan")
    return Comparison(what, f"{peer}: not installed", nothing, "of its speed", nothing, (nothing, nothing))
