"""Replay: the loop from k with a visitor that edits each state; one read of a state feeds all edits from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from cachetool.arithmetic import Arithmetic
from cachetool.backbones import Backbone
from cachetool.edits import Selection
from cachetool.edits.apply import add_tokens, attention_mask, replace_tokens
from cachetool.events import Events
from cachetool.extraction.buffers import BlockBuffer, to_device
from cachetool.extraction.halving import Halving
from cachetool.replaying.arm import Arm, EditInHand, PreparedEdit
from cachetool.replaying.certificate import wanted_positions
from cachetool.store import StoreReader


def replay_arms(
    backbone: Backbone,
    reader: StoreReader,
    arms: Sequence[Arm],
    keep: Sequence[int],
    token_types: Sequence[str],
    *,
    device: torch.device,
    arithmetic: Arithmetic,
    batch_size: int,
    halving: Halving,
    events: Events,
) -> int:
    """Replay edits that start at the same state, block by block; returns bytes written.

    Reading and preparing the next block (one thread), computing (this thread) and writing (one thread) overlap. Blocks
    of a run that were finished before are not computed again.
    """
    (from_layer,) = {arm.edit.from_layer for arm in arms}
    pending = {id(arm): set(arm.writer.pending(keep, token_types)) for arm in arms}
    images = len(reader.spec.images)
    written = 0
    wanted = wanted_positions(backbone.layout, token_types)
    wanted = None if wanted is None else wanted.to(device)
    writing: list[Future[int]] = []
    events.start(f"replay from state {from_layer}", images * len(arms))
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="cachetool-writer") as writer:
        for block, first, state, prepared in _read_ahead(reader, arms, from_layer, max(keep)):
            for arm, edit in zip(arms, prepared, strict=True):
                if block in pending[id(arm)]:
                    buffer = _compute(
                        backbone, reader, arm, edit, state, first, keep, token_types, wanted,
                        device, arithmetic, batch_size, halving,
                    )  # fmt: skip
                    failed = _unreadable(reader, first, len(state))
                    writing.append(writer.submit(arm.writer.write_block, block, buffer.arrays(), keep, failed))
                    while len(writing) > 2:  # memory stays bounded where the disk is slower than the blocks
                        written += writing.pop(0).result()
                events.advance(len(state), state.nbytes if arm is arms[0] else 0)
        for future in writing:
            written += future.result()
    return written


def _unreadable(reader: StoreReader, first: int, count: int) -> dict[str, str]:
    """Images of a block that the cache lacks: a run lacks them too, and says so."""
    rows = first + np.flatnonzero(~reader.readable[first : first + count])
    return {reader.spec.images.image_id[row]: "could not be decoded when the cache was extracted" for row in rows}


def _read_ahead(
    reader: StoreReader, arms: Sequence[Arm], from_layer: int, last_layer: int
) -> Iterator[tuple[int, int, npt.NDArray[np.float32], list[PreparedEdit]]]:
    """Blocks in order (number, first image, intact state k, prepared edits), the next one read while one is used."""
    size, images = reader.spec.block, reader.spec.images

    def read(block: int) -> tuple[int, int, npt.NDArray[np.float32], list[PreparedEdit]]:
        first, last = block * size, min((block + 1) * size, len(images))
        state = reader.read_state(from_layer, first, last)
        ids = images.image_id[first:last]
        return block, first, state, [arm.prepare(state, first, ids, last_layer) for arm in arms]

    blocks = -(-len(images) // size)
    # The meter's products and neighbours are small. On several threads, which spin while they wait for each other, they
    # kept both cores of two from the blocks: a replay of four edits took 10 % longer.
    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(1, thread_name_prefix="cachetool-reader", initializer=_compute_alone) as pool,
    ):
        upcoming = pool.submit(read, 0)
        for block in range(blocks):
            current = upcoming.result()
            if block + 1 < blocks:
                upcoming = pool.submit(read, block + 1)
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
    return _compute(
        backbone, reader, edit, prepared, state, image, keep, token_types, wanted, device, arithmetic, 1, Halving(1)
    ).arrays()


def _compute(
    backbone: Backbone,
    reader: StoreReader,
    arm: EditInHand,
    edit: PreparedEdit,
    state: npt.NDArray[np.float32],
    first: int,
    keep: Sequence[int],
    token_types: Sequence[str],
    wanted: torch.Tensor | None,
    device: torch.device,
    arithmetic: Arithmetic,
    batch_size: int,
    halving: Halving,
) -> BlockBuffer:
    """The kept states of one block under one edit, in storage dtype; images that could not be read stay NaN."""
    spec = reader.spec
    buffer = BlockBuffer(spec.layout, spec.channels, keep, token_types, spec.dtype, len(state), device)
    readable = reader.readable[first : first + len(state)]

    def compute(window: npt.NDArray[np.int64], part: slice) -> None:
        rows = window[part]
        pairs, selection = _restrict(edit.selection, rows)
        values = {layer: found[pairs] for layer, found in edit.values.items()}
        ids = [spec.images.image_id[first + row] for row in rows]
        whole = int(rows[-1]) - int(rows[0]) == len(rows) - 1
        batch = to_device(state[rows[0] : rows[-1] + 1] if whole else state[rows], device)
        with arithmetic.used(device):
            _run_batch(backbone, arm, selection, values, batch, torch.from_numpy(rows), ids, buffer, max(keep), wanted)
        buffer.check()

    for start in range(0, len(state), batch_size):
        window = start + np.flatnonzero(readable[start : start + batch_size])
        halving.run(len(window), partial(compute, window))
    if arm.replacement.name == "remove":
        buffer.erase(edit.selection.image, edit.selection.position)
    return buffer


def _run_batch(
    backbone: Backbone,
    arm: EditInHand,
    selection: Selection,
    values: dict[int, npt.NDArray[np.float32]],
    state: torch.Tensor,
    rows: torch.Tensor,
    image_ids: Sequence[str],
    buffer: BlockBuffer,
    stop: int,
    wanted: torch.Tensor | None,
) -> None:
    """Run the blocks from k on, editing each state before it is stored and goes on."""
    put = add_tokens if arm.replacement.kind == "add" else replace_tokens
    start = arm.edit.from_layer

    def edit(layer: int, running: torch.Tensor) -> torch.Tensor:
        if layer in values and len(selection):
            # What a block gives is nobody else's; the first state is read by all edits.
            running = put(running, selection, values[layer], in_place=layer > start)
        buffer.store(layer, rows, running, image_ids)
        return running

    def go_on(layer: int, running: torch.Tensor) -> torch.Tensor:
        return running if layer == unmasked_from else edit(layer, running)

    masked = arm.edit.masked_blocks(backbone.depth)
    with torch.inference_mode():
        if not masked or start == stop:
            backbone.run(state, start, stop, edit, wanted=wanted)
            return
        mask = attention_mask(selection, state.shape[1], state.device)
        unmasked_from = min(masked.stop, stop)
        last = wanted if unmasked_from == stop else None
        state = backbone.run(state, start, unmasked_from, edit, attention_mask=mask, wanted=last)
        if unmasked_from < stop:
            backbone.run(state, unmasked_from, stop, go_on, wanted=wanted)


def _restrict(selection: Selection, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Selection]:
    """The pairs of some images of a block, and the selection that numbers these images from 0 on."""
    pairs = np.flatnonzero(np.isin(selection.image, rows))
    image = np.searchsorted(rows, selection.image[pairs])
    return pairs, Selection(selection.token_type, image, selection.position[pairs], selection.token[pairs], len(rows))
