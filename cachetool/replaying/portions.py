"""Which edits of a block are computed at a time: as many as memory holds, since they share what they can."""

from __future__ import annotations

from collections.abc import Sequence

from cachetool.edits import Edit
from cachetool.replaying.run_blocks import value_bytes
from cachetool.store import StoreSpec, storage_dtype

HELD_BYTES = 256 * 2**20
"""Stored states of a block that are computed at a time, and values that edits put in, float32: those of as many edits
as fit, of one at least. As many states are written meanwhile, and as many values prepared."""


def portions(
    cache: StoreSpec, edits: Sequence[Edit], images: int, keep: Sequence[int], token_types: Sequence[str]
) -> list[range]:
    """Edits by place, in order, cut where the next one does not fit; for blocks of so many images."""
    stored = stored_bytes(cache, images, len(keep), token_types)
    found: list[range] = []
    begun, put_in = 0, 0
    for place, edit in enumerate(edits):
        values = images * value_bytes(cache, edit, max(keep))
        if place > begun and max((place + 1 - begun) * stored, put_in + values) > HELD_BYTES:
            found.append(range(begun, place))
            begun, put_in = place, 0
        put_in += values
    return [*found, range(begun, len(edits))] if edits else []


def stored_bytes(cache: StoreSpec, images: int, states: int, token_types: Sequence[str]) -> int:
    """Bytes of so many stored states of images."""
    tokens = sum(cache.layout.count(name) for name in token_types)
    return images * states * tokens * cache.channels * storage_dtype(cache.dtype).itemsize
