"""Reading beside the same numbers in other files: one memmap, and HDF5 in two layouts."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np

import cachetool
from cachetool.store import StoreReader
from tests.benchmarks import storage
from tests.benchmarks.peers import CHANNELS, DEPTH, REGISTERS, TOKENS
from tests.benchmarks.ratios import Comparison, in_turns, speed

Reading = Callable[[str], np.ndarray]
"""Reads `registers` of all layers, or `patches` of one, from a file that is open."""


def measure(folder: Path) -> Iterator[Comparison]:
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
