"""Stores with random values that `tests/store` makes, under keys that an import accepts; no waiting for the disk."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cachetool.store import StoreWriter, create
from tests.store.conftest import Example, make_example

KEY = {
    "architecture": "test",
    "weights_sha256": "0" * 64,
    "position_embedding": "native 2x3",
    "transform": {"size": 6, "mean": [0.5, 0.5, 0.5]},
    "dataset": "photos",
}


def complete_key(example: Example) -> Example:
    return replace(example, spec=replace(example.spec, key={**KEY, "dtype": example.spec.dtype}))


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A small cache: 10 images in three blocks, one of them unreadable, the last state of patches unfinished."""
    example: Any = complete_key(make_example())
    path: Path = tmp_path / "root" / "photos" / "model.zarr"
    create(path, example.spec)
    writer = StoreWriter(path)
    bad = {example.spec.images.image_id[5]: "not a JPEG"}
    for block in range(3):
        arrays = example.arrays(block, [0, 1, 2], ["cls", "registers", "patches"], 10)
        writer.write_block(block, arrays, [0, 1, 2], failed=bad if block == 1 else None)
        if block < 2:
            writer.write_block(block, example.arrays(block, [3], ["cls", "registers"], 10), [3])
    return path
