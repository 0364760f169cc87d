"""Reading and writing of stores against raw files of the same bytes, at the sizes of ViT-S/14 with four registers."""

from __future__ import annotations

import gc
import os
import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import zarr

from cachetool.store import ImageTable, StoreReader, StoreSpec, StoreWriter, create, empty_for_reading
from cachetool.store.format import default_block
from cachetool.tokens import TokenLayout
from tests.benchmarks.ratios import Comparison, in_turns, speed

IMAGES, LAYERS, CHANNELS = 256, 13, 384
LAYOUT = TokenLayout(1, 4, 16, 16)
REPEATS = 7
COLD_REPEATS = 11
"""Disks vary more than memory."""
REGISTER_REPEATS = 41
"""Each takes less than a millisecond."""
MANY_IMAGES = 2048


def measure(folder: Path) -> Iterator[Comparison]:
    """All comparisons of storage, in a folder on the disk that is to be measured."""
    path = make_store(folder / "store.zarr", IMAGES)
    reader = StoreReader(path)
    raw = folder / "patches.raw"
    layer = 6
    yield _cold(path, raw, layer)
    expected = reader.read("patches", layer, 0, IMAGES)
    expected.tofile(raw)
    registers = np.stack([reader.read("registers", one, 0, IMAGES) for one in range(LAYERS)])
    into, raw_into = (empty_for_reading(expected.shape, expected.dtype) for _ in range(2))

    def ours() -> None:
        reader.read("patches", layer, 0, IMAGES, out=into)

    mapped = np.memmap(raw, dtype=np.float16, mode="r", shape=expected.shape)

    def memmap() -> None:
        np.copyto(raw_into, mapped)

    size = f"{expected.nbytes / 2**20:.0f} MB"
    warm = in_turns(ours, memmap, repeats=REPEATS)
    np.testing.assert_array_equal(into, raw_into)
    yield speed("read one layer, all patches, warm", "memmap of the same bytes", warm, 0.7, {"read": size})

    def fresh() -> None:
        StoreReader(path).read("patches", layer, 0, IMAGES, out=into)

    first = in_turns(fresh, memmap, repeats=REPEATS)
    yield speed("the same, opened anew, checksums compared", "memmap of the same bytes", first, 0.2, {"read": size})

    yield _registers(path, folder / "registers.raw", IMAGES)
    many = make_store(folder / "many.zarr", MANY_IMAGES, ("registers",))
    yield _registers(many, folder / "many.raw", MANY_IMAGES)

    found = empty_for_reading(registers.shape, registers.dtype)

    def all_registers() -> None:
        reader.read_layers("registers", range(LAYERS), 0, IMAGES, out=found)

    size = f"{registers.nbytes / 2**20:.0f} MB"
    joint = make_joint_array(folder / "joint.zarr", reader)
    seconds = in_turns(all_registers, lambda: joint[:, :, 1:5], repeats=3)
    yield speed(
        "registers of all layers, all images", "one joint (image, layer, token, channel) Zarr array", seconds, 50,
        {"read": size},
    )  # fmt: skip
    yield from _writing(folder, reader)


def _cold(path: Path, raw: Path, layer: int) -> Comparison:
    """Reading what the system does not hold in memory; nothing may be mapped, for what is mapped is not dropped."""
    StoreReader(path).read("patches", layer, 0, IMAGES).tofile(raw)
    into = empty_for_reading((IMAGES, 256, CHANNELS), np.float16)

    def ours() -> None:
        StoreReader(path).read("patches", layer, 0, IMAGES, out=into)

    def readinto() -> None:
        with raw.open("rb", buffering=0) as file:
            file.readinto(memoryview(into).cast("B"))

    requests: tuple[list[int], list[int]] = ([], [])

    def counted(work: Callable[[], None], counts: list[int]) -> Callable[[], None]:
        def run() -> None:
            before = psutil.disk_io_counters()
            work()
            after = psutil.disk_io_counters()
            counts.append(after.read_count - before.read_count if before and after else 0)

        return run

    seconds = in_turns(
        counted(ours, requests[0]), counted(readinto, requests[1]), repeats=COLD_REPEATS,
        before=lambda: (gc.collect(), forget(path, raw)),
    )  # fmt: skip
    ours_asked, raw_asked = (round(statistics.median(counts)) for counts in requests)
    counts = {"read": f"{into.nbytes / 2**20:.0f} MB", "requests to the disk": f"{ours_asked} / {raw_asked}"}
    return speed("read one layer, all patches, cold", "read of a raw file", seconds, 0.7, counts)


def _registers(path: Path, raw: Path, images: int) -> Comparison:
    """All states of all registers: at few images what Python does counts, at many the memory."""
    reader = StoreReader(path)
    expected = reader.read_layers("registers", range(LAYERS), 0, images)
    expected.tofile(raw)
    mapped = np.memmap(raw, dtype=np.float16, mode="r", shape=expected.shape)
    found, raw_found = (empty_for_reading(expected.shape, expected.dtype) for _ in range(2))

    def ours() -> None:
        reader.read_layers("registers", range(LAYERS), 0, images, out=found)

    seconds = in_turns(ours, lambda: np.copyto(raw_found, mapped), repeats=REGISTER_REPEATS)
    np.testing.assert_array_equal(found, raw_found)
    counts = {"read": f"{expected.nbytes / 2**20:.0f} MB", "blocks": str(reader.complete.shape[0])}
    what = f"registers of all layers, all {images} images"
    return speed(what, "memmap of the same bytes", seconds, 0.7, counts)


def _writing(folder: Path, reader: StoreReader) -> Iterator[Comparison]:
    """One block of all states: everything is synced to the disk on both sides."""
    block = reader.spec.block
    arrays = {
        name: np.stack([reader.read(name, layer, 0, block) for layer in range(LAYERS)])
        for name in ("cls", "registers", "patches")
    }
    arrays["cls"] = arrays["cls"][:, :, 0]
    target, raw = folder / "written.zarr", folder / "written.raw"

    def write() -> None:
        StoreWriter(target).write_block(0, arrays, range(LAYERS))

    def write_raw() -> None:
        with raw.open("wb", buffering=0) as file:
            for array in arrays.values():
                file.write(memoryview(np.ascontiguousarray(array)).cast("B"))
            os.fsync(file.fileno())

    def clear() -> None:
        raw.unlink(missing_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        create(target, _spec(block))

    total = sum(array.nbytes for array in arrays.values())
    seconds = in_turns(write, write_raw, repeats=REPEATS, before=clear)
    yield speed(
        "write of a block, all states", "write and sync of a raw file", seconds, 0.7,
        {"written": f"{total / 2**20:.0f} MB"},
    )  # fmt: skip


def make_store(path: Path, images: int, token_types: tuple[str, ...] = LAYOUT.types) -> Path:
    """A float16 store of random numbers, all states."""
    create(path, replace(_spec(images), token_types=token_types))
    writer = StoreWriter(path)
    generator = np.random.default_rng(0)
    block = writer.spec.block
    for index, first in enumerate(range(0, images, block)):
        count = min(block, images - first)
        arrays = {
            name: generator.standard_normal((LAYERS, count, *tail, CHANNELS), dtype=np.float32).astype(np.float16)
            for name, tail in {"cls": (), "registers": (4,), "patches": (256,)}.items()
            if name in token_types
        }
        writer.write_block(index, arrays, range(LAYERS))
    return path


def make_joint_array(path: Path, reader: StoreReader) -> zarr.Array:
    """The same numbers as one array over all tokens, chunked as activations often are: an image and a layer a chunk."""
    array = zarr.create_array(
        str(path), shape=(IMAGES, LAYERS, LAYOUT.tokens, CHANNELS), chunks=(1, 1, LAYOUT.tokens, CHANNELS),
        dtype="float16", compressors=None,
    )  # fmt: skip
    for layer in range(LAYERS):
        array[:, layer] = reader.read_state(layer, 0, IMAGES, np.float16)
    return array


def forget(*paths: Path) -> None:
    """Drop what the system keeps in memory of files, so that they are read from the disk again."""
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file():
                descriptor = os.open(file, os.O_RDONLY)
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


def _spec(images: int) -> StoreSpec:
    names = tuple(f"{index:06}" for index in range(images))
    return StoreSpec(
        kind="cache",
        key={"architecture": "benchmark", "dtype": "float16"},
        facts={},
        layout=LAYOUT,
        channels=CHANNELS,
        layers=tuple(range(LAYERS)),
        token_types=LAYOUT.types,
        dtype="float16",
        block=default_block(LAYOUT, CHANNELS, LAYERS, 2),
        images=ImageTable(names, names),
        norm=None,
    )
