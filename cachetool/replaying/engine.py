"""Replay: the loop from k with a visitor that edits each state; one read of a state feeds all edits from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import cycle

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from cachetool.arithmetic import Arithmetic
from cachetool.backbones import Backbone, Projections
from cachetool.edits import Selection
from cachetool.edits.apply import add_tokens, attention_mask, places, replace_tokens
from cachetool.environment import copying_alone
from cachetool.events import Events
from cachetool.extraction.buffers import BlockBuffer, host_memory, to_device
from cachetool.extraction.halving import Halving
from cachetool.replaying.arm import Arm, EditInHand, PreparedEdit
from cachetool.replaying.certificate import wanted_positions
from cachetool.store import Geometry, StoreReader, StoreSpec, storage_dtype

HELD_BYTES = 256 * 2**20
"""Stored states of a block that are computed at a time, those of as many edits as fit, of one at least; as many are
written meanwhile."""

WRITERS = 2
"""Threads that write: one encodes while the other waits for the disk.

Where blocks cost nothing, a replay of four edits of 2,048 images took 3.0, 3.0 and 2.7 s with two threads, and 3.2, 3.2
and 3.3 s with one, in turns.
"""


def replay_arms(
    backbone: Backbone,
    reader: StoreReader,
    arms: Sequence[Arm],
    keep: Sequence[int],
    token_types: Sequence[str],
    *,
    blocks: Sequence[int],
    device: torch.device,
    arithmetic: Arithmetic,
    batch_size: int,
    halving: Halving,
    events: Events,
) -> None:
    """Replay edits that start at the same state, block by block.

    `blocks` are those of the runs, which must all be cut alike. Reading and preparing the next block (one thread),
    computing (this thread) and writing (two threads) overlap. Blocks of a run that were finished before are prepared,
    for what is recorded of their images, but not computed again. What edits share in their first block is computed
    once.
    """
    (from_layer,) = {arm.edit.from_layer for arm in arms}
    (geometry,) = {arm.writer.spec.geometry for arm in arms}
    pending = {id(arm): set(arm.writer.pending(keep, token_types, blocks)) for arm in arms}
    wanted = wanted_positions(backbone.layout, token_types)
    wanted = None if wanted is None else wanted.to(device)
    together = edits_together(reader.spec, min(geometry.block, geometry.images), len(keep), token_types)
    writing: list[Future[int]] = []
    with (
        copying_alone(device),
        ThreadPoolExecutor(max_workers=WRITERS, thread_name_prefix="cachetool-writer") as writer,
    ):
        for block, first, state, prepared in _read_ahead(reader, geometry, arms, blocks, from_layer, max(keep), device):
            lacking = [pair for pair in zip(arms, prepared, strict=True) if block in pending[id(pair[0])]]
            events.advance(len(state) * (len(arms) - len(lacking)), state.nbytes)
            failed = _unreadable(reader, first, len(state))
            for start in range(0, len(lacking), together):
                group = lacking[start : start + together]
                buffers = _compute(
                    backbone, reader, group, state, first, keep, token_types, wanted,
                    device, arithmetic, batch_size, halving,
                )  # fmt: skip
                # Told before anything is written: whoever listens may end the work here.
                events.advance(len(state) * len(group), 0)
                for (arm, _edit), buffer in zip(group, buffers, strict=True):
                    writing.append(writer.submit(arm.writer.write_block, block, buffer.arrays(), keep, failed))
                # All of a group are written while the next is computed, and no more: memory stays bounded where the
                # disk is slower than the blocks.
                while len(writing) > max(2, len(group)):
                    writing.pop(0).result()
        for future in writing:
            future.result()


def edits_together(spec: StoreSpec, images: int, states: int, token_types: Sequence[str]) -> int:
    """Edits of so many images that are computed at a time, sharing what they can."""
    return max(1, HELD_BYTES // stored_bytes(spec, images, states, token_types))


def stored_bytes(spec: StoreSpec, images: int, states: int, token_types: Sequence[str]) -> int:
    """Bytes of so many stored states of images."""
    tokens = sum(spec.layout.count(name) for name in token_types)
    return images * states * tokens * spec.channels * storage_dtype(spec.dtype).itemsize


def _unreadable(reader: StoreReader, first: int, count: int) -> dict[str, str]:
    """Images of a block that the cache lacks: a run lacks them too, and says so."""
    rows = first + np.flatnonzero(~reader.readable[first : first + count])
    return {reader.spec.images.image_id[row]: "could not be decoded when the cache was extracted" for row in rows}


def _read_ahead(
    reader: StoreReader,
    geometry: Geometry,
    arms: Sequence[Arm],
    blocks: Sequence[int],
    from_layer: int,
    last_layer: int,
    device: torch.device,
) -> Iterator[tuple[int, int, npt.NDArray[np.float32], list[PreparedEdit]]]:
    """Blocks in order (number, first image, intact state k, prepared edits), the next one read while one is used."""
    images = reader.spec.images
    # In turns, since memory that is new to a process comes page by page: a block is read when the one before the last
    # is not needed any more.
    shape = (min(geometry.block, geometry.images), geometry.layout.tokens, geometry.channels)
    rooms = cycle([host_memory(shape, device) for _ in range(min(2, len(blocks)))])

    def read(block: int) -> tuple[int, int, npt.NDArray[np.float32], list[PreparedEdit]]:
        inside = geometry.block_range(block)
        first, last = inside.start, inside.stop
        state = reader.read_state(from_layer, first, last, out=next(rooms)[: len(inside)])
        ids = images.image_id[first:last]
        return block, first, state, [arm.prepare(state, first, ids, last_layer) for arm in arms]

    # The meter's products and neighbours are small. On several threads, which spin while they wait for each other, they
    # kept both cores of two from the blocks: a replay of four edits took 10 % longer.
    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(1, thread_name_prefix="cachetool-reader", initializer=_compute_alone) as pool,
    ):
        upcoming = pool.submit(read, blocks[0])
        for following in (*blocks[1:], None):
            current = upcoming.result()
            if following is not None:
                upcoming = pool.submit(read, following)
            yield current


def _compute_alone() -> None:
    """Have this thread, and no other, use no helpers of OpenMP."""
    threadpool_limits(limits=1, user_api="openmp")


def replay_image(
    backbone: Backbone,
    reader: StoreReader,
    edit: EditInHand,
    image: int,
    keep: Sequence[int],
    token_types: Sequence[str],
    *,
    device: torch.device,
    arithmetic: Arithmetic,
) -> dict[str, npt.NDArray[np.generic]]:
    """The kept states of one image, given by position, under an edit: (layer, 1[, token], channel) by token type.

    In storage dtype, as `replay_arms` writes it; an image that could not be read is NaN.
    """
    state = reader.read_state(edit.edit.from_layer, image, image + 1)
    prepared = edit.prepare(state, image, [reader.spec.images.image_id[image]], max(keep))
    wanted = wanted_positions(backbone.layout, token_types)
    wanted = None if wanted is None else wanted.to(device)
    (buffer,) = _compute(
        backbone, reader, [(edit, prepared)], state, image, keep, token_types, wanted, device, arithmetic, 1, Halving(1)
    )
    return buffer.arrays()


def _compute(
    backbone: Backbone,
    reader: StoreReader,
    group: Sequence[tuple[EditInHand, PreparedEdit]],
    state: npt.NDArray[np.float32],
    first: int,
    keep: Sequence[int],
    token_types: Sequence[str],
    wanted: torch.Tensor | None,
    device: torch.device,
    arithmetic: Arithmetic,
    batch_size: int,
    halving: Halving,
) -> list[BlockBuffer]:
    """The kept states of one block under each edit, in storage dtype; images that could not be read stay NaN."""
    spec = reader.spec
    start, stop = group[0][0].edit.from_layer, max(keep)
    buffers = [
        BlockBuffer(spec.layout, spec.channels, keep, token_types, spec.dtype, len(state), device) for _ in group
    ]
    readable = reader.readable[first : first + len(state)]
    # The choice is each edit's own: what is stored of it must not depend on which others are replayed with it.
    sharing = [_shares(edit, spec.layout.tokens) for _arm, edit in group]
    whole_first = start < stop - (wanted is not None) and not arithmetic.compiled

    def compute(window: npt.NDArray[np.int64], part: slice) -> None:
        rows = window[part]
        ids = [spec.images.image_id[first + row] for row in rows]
        whole = int(rows[-1]) - int(rows[0]) == len(rows) - 1
        batch = to_device(state[rows[0] : rows[-1] + 1] if whole else state[rows], device)
        with arithmetic.used(device), torch.inference_mode():
            projections = backbone.project(batch, start) if whole_first and any(sharing) else None
            for (arm, edit), shares, buffer in zip(group, sharing, buffers, strict=True):
                _run_batch(
                    backbone, arm, _of_rows(edit, rows), batch, projections if shares else None,
                    torch.from_numpy(rows), ids, buffer, stop, wanted,
                )  # fmt: skip
            # After all edits: to look at one's values has a GPU finish them before the next edit is begun.
            for buffer in buffers:
                buffer.check()

    for begin in range(0, len(state), batch_size):
        window = begin + np.flatnonzero(readable[begin : begin + batch_size])
        halving.run(len(window), partial(compute, window))
    for (arm, edit), buffer in zip(group, buffers, strict=True):
        if arm.replacement.name == "remove":
            buffer.erase(edit.selection.image, edit.selection.position)
    return buffers


def _shares(edit: PreparedEdit, tokens: int) -> bool:
    """Whether an edit leaves most tokens of a block as they are, so that to compute the changed ones anew pays."""
    return not edit.values or 2 * len(edit.selection) <= edit.selection.images * tokens


def _run_batch(
    backbone: Backbone,
    arm: EditInHand,
    prepared: PreparedEdit,
    state: torch.Tensor,
    projections: Projections | None,
    rows: torch.Tensor,
    image_ids: Sequence[str],
    buffer: BlockBuffer,
    stop: int,
    wanted: torch.Tensor | None,
) -> None:
    """Run the blocks from k on, editing each state before it is stored and goes on."""
    put = add_tokens if arm.replacement.kind == "add" else replace_tokens
    start, selection, values = arm.edit.from_layer, prepared.selection, prepared.values
    if projections is not None and start in values and len(selection):
        projections = projections.after_edit(*places(selection, state.device))

    def edit(layer: int, running: torch.Tensor) -> torch.Tensor:
        if layer in values and len(selection):
            # What a block gives is nobody else's; the first state is read by all edits.
            running = put(running, selection, values[layer], in_place=layer > start)
        buffer.store(layer, rows, running, image_ids)
        return running

    def go_on(layer: int, running: torch.Tensor) -> torch.Tensor:
        return running if layer == unmasked_from else edit(layer, running)

    masked = arm.edit.masked_blocks(backbone.depth)
    if not masked or start == stop:
        backbone.run(state, start, stop, edit, wanted=wanted, projections=projections)
        return
    mask = attention_mask(selection, state.shape[1], state.device)
    unmasked_from = min(masked.stop, stop)
    last = wanted if unmasked_from == stop else None
    state = backbone.run(state, start, unmasked_from, edit, attention_mask=mask, wanted=last, projections=projections)
    if unmasked_from < stop:
        backbone.run(state, unmasked_from, stop, go_on, wanted=wanted)


def _of_rows(edit: PreparedEdit, rows: npt.NDArray[np.int64]) -> PreparedEdit:
    """The part of a block's edit that concerns some of its images, which are numbered from 0 on."""
    selection = edit.selection
    pairs = np.flatnonzero(np.isin(selection.image, rows))
    image = np.searchsorted(rows, selection.image[pairs])
    return PreparedEdit(
        Selection(selection.token_type, image, selection.position[pairs], selection.token[pairs], len(rows)),
        {layer: found[pairs] for layer, found in edit.values.items()},
    )
