"""Raw files: the least that writing can take."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

PIECE = 64 * 2**20
"""Bytes of one call."""


def raw_write(folder: Path, size: int) -> Callable[[], None]:
    """A call that writes so many bytes to a raw file and has them synced."""
    piece = os.urandom(PIECE)

    def write() -> None:
        raw = folder / "raw"
        with raw.open("wb", buffering=0) as file:
            for start in range(0, size, PIECE):
                file.write(memoryview(piece)[: size - start])
            os.fsync(file.fileno())
        raw.unlink()

    return write
