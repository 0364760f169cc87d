"""A small store that is sound, to be harmed; and limits, so that a test fails rather than the machine."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from cachetool.errors import CachetoolError
from cachetool.store import StoreReader, check_block, check_flags, check_tables
from tests.store.conftest import make_example

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))

MEMORY = 2**31
"""Bytes of address space that a test may take beyond what the process has: no document may cost more."""


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store of three blocks; a test that harms it puts back what it changed."""
    return make_example().make(tmp_path_factory.mktemp("hostile") / "sound.zarr")


@contextmanager
def little_memory() -> Iterator[None]:
    """Let an allocation bomb fail with MemoryError, which no test expects; torch maps more than this when imported."""
    torch.zeros(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    with little_memory():
        yield


@contextmanager
def harmed(file: Path, content: bytes) -> Iterator[None]:
    """The file with other content while the block runs."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


def read_everything(path: Path) -> dict[str, Any]:
    """Every value of a store, by all ways of reading it."""
    reader = StoreReader(path)
    spec, images = reader.spec, len(reader.images)
    found: dict[str, Any] = {name: reader.array(name) for name in reader.beside}
    found |= {"readable": reader.readable, "complete": reader.complete}
    for name in spec.token_types:
        held = reader.coverage(name)
        for layer in held:
            found[f"{name}{layer}"] = reader.read(name, layer, 0, images)
            reader.read_float32(name, layer, 0, images)
            reader.read_tokens(name, layer, np.arange(images), np.zeros(images, dtype=np.int64))
        if held:
            reader.read_layers(name, held, 0, images)
    check_tables(path)
    for block in range(spec.geometry.blocks):
        check_block(path, block)
        check_flags(path, block)
    return found


def forged(store: Path) -> dict[str, Any]:
    """The root document of a store as somebody begins to forge it: without checksums, which would tell."""
    document: dict[str, Any] = json.loads((store / "zarr.json").read_bytes())
    for name in ("crc32c", "tables"):
        document["attributes"]["cachetool"].pop(name, None)
    return document


def refused_or_same(read: Callable[[], dict[str, Any]], expected: dict[str, Any], name: str) -> bool:
    """Whether a reading is refused by a message that names the place; else it must agree with the sound store.

    Arrays that the harmed store no longer declares need not be there.
    """
    try:
        found = read()
    except CachetoolError as error:
        assert name in str(error), error
        return True
    for array in expected.keys() & found.keys():
        same = found[array].shape == expected[array].shape and np.array_equal(
            found[array].view(np.uint8) if found[array].dtype.kind in "fu" else found[array],
            expected[array].view(np.uint8) if expected[array].dtype.kind in "fu" else expected[array],
        )
        assert same, f"{array} was read with other values"
    return False
