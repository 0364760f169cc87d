"""How many images a block of a run has: some blocks of its cache, as stored states, memory and images allow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cachetool.edits import Edit
from cachetool.replaying.checks import draws
from cachetool.store import StoreSpec, default_block, storage_dtype

PREPARED_BYTES = 64 * 2**20
"""Bytes of a block's intact state, and of the values that one edit puts in, float32: each is in memory twice, for what
is computed and for what is read meanwhile. What all edits put in is bounded by `cachetool.replaying.portions`."""

FEWEST_BLOCKS = 4
"""Blocks that larger ones must leave: the first is read, and the last written, while nothing is computed."""


def run_block(cache: StoreSpec, edit: Edit, keep: Sequence[int]) -> int:
    """Images per block of a run of an edit that keeps some states.

    A run mostly has fewer states than its cache, so that in blocks of as many images most of its time on a GPU would go
    into beginning things: reads, batches, files that are synced. A cache that is cut finer than by default stays so in
    its runs.
    """
    default = partial(default_block, cache.layout, cache.channels, itemsize=storage_dtype(cache.dtype).itemsize)
    times = max(default(layers=len(keep)) // default(layers=len(cache.layers)), 1)
    image_bytes = max(state_bytes(cache), value_bytes(cache, edit, max(keep)))
    while times > 1 and (
        times * cache.block * image_bytes > PREPARED_BYTES or times * cache.block * FEWEST_BLOCKS > len(cache.images)
    ):
        times //= 2
    return times * cache.block


def state_bytes(cache: StoreSpec) -> int:
    """Bytes of one image's whole state, float32."""
    return cache.layout.tokens * cache.channels * 4


def value_bytes(cache: StoreSpec, edit: Edit, last_layer: int) -> int:
    """Bytes of what an edit puts into one image up to a state, float32, at most."""
    if not draws(edit):
        return 0
    states = sum(layer <= last_layer for layer in edit.edited_layers(cache.layers[-1]))
    return edit.parsed_target().most(cache.layout) * states * cache.channels * 4
