"""Chunks of the states of a block: of arrays, and as another shard holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.errors import DamagedError
from cachetool.store.mending import advice
from cachetool.store.shards import Buffer, Shard, ShardLayout


def image_chunks(
    layout: ShardLayout, states: npt.NDArray[Any], readable: npt.NDArray[np.bool_], fill: np.generic[Any]
) -> list[list[Buffer]]:
    """Chunks of one state, (image, [token,] channel): views of the array where nothing has to become NaN."""
    chunks: list[list[Buffer]] = []
    for start in range(0, len(readable), layout.chunk_images):
        rows = slice(start, start + layout.chunk_images)
        part = np.ascontiguousarray(states[rows])
        if not readable[rows].all():
            part = part.copy()
            part[~readable[rows]] = fill
        parts: list[Buffer] = [part.data.cast("B")]
        missing = layout.payload_bytes - part.nbytes
        if missing:
            parts.append(np.full(missing // fill.nbytes, fill).tobytes())
        chunks.append(parts)
    return chunks


def kept_chunks(
    shard: Shard, used: int, indices: Sequence[int], layers: Sequence[int]
) -> dict[int, Sequence[Sequence[Buffer]]]:
    """Chunks of states that stay, with their checksums. Raises `DamagedError` naming every state that is damaged."""
    damaged = [
        layer
        for index, layer in zip(indices, layers, strict=True)
        if not all(shard.has(index, chunk) and shard.intact(index, chunk) for chunk in range(used))
    ]
    if damaged:
        raise DamagedError(
            f"{shard.path} is damaged at the states {damaged}, so it cannot be extended. {advice(shard.path)}"
        )
    return {index: [[shard.encoded_chunk(index, chunk)] for chunk in range(used)] for index in indices}
