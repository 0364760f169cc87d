"""Replay: the loop from k with a visitor that edits each state; one read of a state feeds all edits from there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from cachetool.arithmetic import Arithmetic
from cachetool.backbones import Backbone, Projections
from cachetool.edits.apply import add_tokens, attention_mask, replace_tokens
from cachetool.environment import copying_alone
from cachetool.events import Events
from cachetool.extraction.buffers import BlockBuffer, to_device
from cachetool.extraction.halving import Halving
from cachetool.replaying.arm import Arm, EditInHand, PreparedEdit
from cachetool.replaying.batches import BatchEdit, batch_edit
from cachetool.replaying.certificate import wanted_positions
from cachetool.replaying.preparing import prepared_ahead
from cachetool.store import StoreReader

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

    `blocks` are those of the runs, which must all be cut alike. Reading and preparing what comes next (one thread),
    computing (this thread) and writing (two threads) overlap. Blocks of a run that were finished before are prepared,
    for what is recorded of their images, but not computed again. What the edits of a portion share in their first block
    is computed once.
    """
    (geometry,) = {arm.writer.spec.geometry for arm in arms}
    pending = {id(arm): set(arm.writer.pending(keep, token_types, blocks)) for arm in arms}
    wanted = wanted_positions(backbone.layout, token_types)
    wanted = None if wanted is None else wanted.to(device)
    writing: list[Future[int]] = []
    with (
        copying_alone(device),
        ThreadPoolExecutor(max_workers=WRITERS, thread_name_prefix="cachetool-writer") as writer,
    ):
        for portion in prepared_ahead(reader, geometry, arms, blocks, pending, keep, token_types, device):
            first, state, group = portion.first, portion.state, portion.edits
            events.advance(len(state) * portion.finished, portion.bytes_read)
            if not group:
                continue
            failed = _unreadable(reader, first, len(state))
            buffers = _compute(
                backbone, reader, group, state, first, keep, token_types, wanted,
                device, arithmetic, batch_size, halving,
            )  # fmt: skip
            # Told before anything is written: whoever listens may end the work here.
            events.advance(len(state) * len(group), 0)
            # In a scope of its own: a name that outlived it would hold an edit's values while the next are computed.
            writing += [
                writer.submit(arm.writer.write_block, portion.block, buffer.arrays(), keep, failed)
                for (arm, _edit), buffer in zip(group, buffers, strict=True)
            ]
            # All of a portion are written while the next is computed, and no more: memory stays bounded where the disk
            # is slower than the blocks.
            while len(writing) > max(2, len(group)):
                writing.pop(0).result()
        for future in writing:
            future.result()


def _unreadable(reader: StoreReader, first: int, count: int) -> dict[str, str]:
    """Images of a block that the cache lacks: a run lacks them too, and says so."""
    rows = first + np.flatnonzero(~reader.readable[first : first + count])
    return {reader.spec.images.image_id[row]: "could not be decoded when the cache was extracted" for row in rows}


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
        # Of all edits before the first block: a device that computes is not waited for.
        edits = [batch_edit(edit, rows, device) for _arm, edit in group]
        with arithmetic.used(device), torch.inference_mode():
            projections = backbone.project(batch, start) if whole_first and any(sharing) else None
            for (arm, _edit), edit, shares, buffer in zip(group, edits, sharing, buffers, strict=True):
                _run_batch(
                    backbone, arm, edit, batch, projections if shares else None,
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
    prepared: BatchEdit,
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
        projections = projections.after_edit(*prepared.where)

    def edit(layer: int, running: torch.Tensor) -> torch.Tensor:
        if layer in values and len(selection):
            # What a block gives is nobody else's; the first state is read by all edits.
            running = put(running, prepared.where, values[layer], in_place=layer > start)
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
