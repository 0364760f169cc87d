"""Stores with random values, and the same values as plain arrays to compare with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from cachetool.objects import ObjectPath
from cachetool.store import (
    DTYPES,
    ImageTable,
    NormSpec,
    StoreReader,
    StoreSpec,
    StoreWriter,
    create,
    storage_dtype,
)
from cachetool.tokens import TokenLayout


def image_table(count: int) -> ImageTable:
    """Images with ids that need UTF-8, and all columns."""
    return ImageTable(
        image_id=tuple(f"größe/{index:04}.jpg" for index in range(count)),
        sha256=tuple(f"{index:064x}" for index in range(count)),
        label=tuple(index % 3 - 1 for index in range(count)),
        class_name=tuple(("", "猫", "dog")[index % 3] for index in range(count)),
    )


@dataclass(frozen=True)
class Example:
    """A store to be, with all values it could hold."""

    spec: StoreSpec
    values: dict[str, npt.NDArray[Any]] = field(repr=False)
    """(image, layer, token, channel) by token type, storage dtype."""

    def arrays(self, block: int, layers: Sequence[int], token_types: Sequence[str], images: int) -> dict[str, Any]:
        """What `write_block` takes, where the store has `images` images."""
        rows = slice(block * self.spec.block, min((block + 1) * self.spec.block, images))
        indices = [self.spec.layers.index(layer) for layer in layers]
        found = {name: np.ascontiguousarray(self.values[name][rows][:, indices].swapaxes(0, 1)) for name in token_types}
        return {name: array[:, :, 0] if name == "cls" else array for name, array in found.items()}

    def fill(self, path: Path, layers: Sequence[int] | None = None, token_types: Sequence[str] | None = None) -> int:
        """Write all blocks that are not finished for this coverage; returns how many."""
        writer = StoreWriter(path)
        layers = self.spec.layers if layers is None else layers
        token_types = self.spec.token_types if token_types is None else token_types
        pending = writer.pending(layers, token_types)
        for block in pending:
            writer.write_block(block, self.arrays(block, layers, token_types, len(writer.spec.images)), layers)
        return len(pending)

    def make(self, path: Path) -> Path:
        """Create the store and fill it as a whole."""
        create(path, self.spec)
        self.fill(path)
        return path

    def check(self, path: Path, layers: Sequence[int] | None = None, images: int | None = None) -> None:
        """Assert that the reader returns these values for all token types of the store."""
        reader = StoreReader(path)
        images = len(self.spec.images) if images is None else images
        for name in reader.spec.token_types:
            for layer in self.spec.layers if layers is None else layers:
                expected = self.values[name][:images, self.spec.layers.index(layer)]
                np.testing.assert_array_equal(reader.read(name, layer, 0, images), expected)


LAYOUT = TokenLayout(cls=1, registers=2, rows=2, columns=3)


def make_example(
    layout: TokenLayout = LAYOUT,
    *,
    images: int = 10,
    channels: int = 5,
    layers: tuple[int, ...] = (0, 1, 2, 3),
    dtype: str = "float16",
    block: int = 4,
    token_types: tuple[str, ...] | None = None,
) -> Example:
    """An example with random bits, so that NaN with payloads, infinities and negative zeros occur too."""
    random = np.random.default_rng(images * 1000 + channels)
    stored = storage_dtype(dtype)
    values = {
        name: np.frombuffer(random.bytes(math.prod(shape) * stored.itemsize), stored).reshape(shape)
        for name in layout.types
        for shape in [(images, len(layers), layout.count(name), channels)]
    }
    spec = StoreSpec(
        kind="cache",
        key={"architecture": "test", "dtype": dtype, "transform": {"size": 6, "mean": [0.5, 0.5, 0.5]}},
        facts={},
        layout=layout,
        channels=channels,
        layers=layers,
        token_types=layout.types if token_types is None else token_types,
        dtype=dtype,
        block=block,
        images=image_table(images),
        norm=NormSpec("layer_norm", 1e-6, np.arange(channels, dtype=np.float32), np.ones(channels, np.float32)),
    )
    return Example(spec, values)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Stores of any geometry: without registers, without [CLS], one image, blocks that chunks divide badly."""
    layout = TokenLayout(
        cls=draw(st.integers(0, 1)),
        registers=draw(st.integers(0, 3)),
        rows=draw(st.integers(1, 3)),
        columns=draw(st.integers(1, 3)),
    )
    return make_example(
        layout,
        images=draw(st.integers(1, 30)),
        channels=draw(st.integers(1, 4)),
        layers=tuple(sorted(draw(st.sets(st.integers(0, 12), min_size=1, max_size=4)))),
        dtype=draw(st.sampled_from(DTYPES)),
        block=draw(st.sampled_from([1, 2, 3, 7, 8, 12, 16, 22])),
    )


def tree(path: Path) -> dict[str, bytes]:
    """All files of a store by relative path, the guard of its locks left out."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != "guard")
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def objects(path: ObjectPath) -> dict[str, bytes]:
    """All objects of a store by relative key."""
    return {one.key.removeprefix(f"{path.key}/"): one.read_bytes() for one, _found in path.walk_objects()}


@pytest.fixture(autouse=True)
def _no_sync() -> Iterator[None]:
    """Spare the wait for the disk: thousands of files are written here, none of which has to survive a power loss."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def example() -> Example:
    """A small cache with three blocks, the last partly filled."""
    return make_example()


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers of this file, since test files cannot import it."""
    return SimpleNamespace(
        make_example=make_example, examples=examples(), image_table=image_table, tree=tree, objects=objects
    )
