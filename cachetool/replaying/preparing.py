"""States that are read, and edits that are prepared on them, ahead of what computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from cachetool.extraction.buffers import host_memory
from cachetool.replaying.arm import Arm, PreparedEdit
from cachetool.replaying.portions import portions
from cachetool.store import Geometry, StoreReader

Item = TypeVar("Item")


@dataclass(frozen=True)
class Portion:
    """Edits of one block that are computed together."""

    block: int
    """Number of the block in the runs."""
    first: int
    """Its first image."""
    state: npt.NDArray[np.float32]
    """Intact state k, (image, token, channel); valid until the next portion is asked for."""
    edits: list[tuple[Arm, PreparedEdit]]
    """Arms that lack the block, and their edits of it; none where all are finished."""
    finished: int
    """How many other arms have it, counted in the first portion of a block alone."""
    bytes_read: int
    """Bytes of the state, in the first portion of a block alone."""


def prepared_ahead(
    reader: StoreReader,
    geometry: Geometry,
    arms: Sequence[Arm],
    blocks: Sequence[int],
    pending: Mapping[int, set[int]],
    keep: Sequence[int],
    token_types: Sequence[str],
    device: torch.device,
) -> Iterator[Portion]:
    """Portions of blocks in order, the next one read and prepared while one is used.

    `pending` are the blocks that each arm lacks, by its `id`. Arms that have a block are prepared on it too, for what
    is recorded of its images, and what that gives is let go.
    """
    # In turns, since memory that is new to a process comes page by page: a block is read when the one before the last
    # is not needed any more.
    shape = (min(geometry.block, geometry.images), geometry.layout.tokens, geometry.channels)
    rooms = cycle([host_memory(shape, device) for _ in range(min(2, len(blocks)))])
    (from_layer,) = {arm.edit.from_layer for arm in arms}
    # The meter's products and neighbours are small. On several threads, which spin while they wait for each other, they
    # kept both cores of two from the blocks: a replay of four edits took 10 % longer.
    with threadpool_limits(limits=1, user_api="blas"):

        def stream() -> Iterator[Portion]:
            for block in blocks:
                inside = geometry.block_range(block)
                first, last = inside.start, inside.stop
                state = reader.read_state(from_layer, first, last, out=next(rooms)[: len(inside)])
                ids = reader.spec.images.image_id[first:last]
                prepare = partial(Arm.prepare, state=state, first=first, image_ids=ids, last_layer=max(keep))
                lacking = [arm for arm in arms if block in pending[id(arm)]]
                finished = [arm for arm in arms if block not in pending[id(arm)]]
                for arm in finished:
                    prepare(arm)
                told = (len(finished), state.nbytes)
                cut = portions(reader.spec, [arm.edit for arm in lacking], shape[0], keep, token_types)
                for part in cut or [range(0)]:
                    mine = lacking[part.start : part.stop]
                    yield Portion(block, first, state, list(zip(mine, map(prepare, mine), strict=True)), *told)
                    told = (0, 0)

        yield from _one_ahead(stream())


def _one_ahead(stream: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made by a thread while the one before is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="cachetool-reader", initializer=_compute_alone) as pool:
        upcoming = pool.submit(next, stream, None)
        while (current := upcoming.result()) is not None:
            upcoming = pool.submit(next, stream, None)
            yield current


def _compute_alone() -> None:
    """Have this thread, and no other, use no helpers of OpenMP."""
    threadpool_limits(limits=1, user_api="openmp")
