"""Images to cache, resumable block by block: what is lacking, under whose lock, and what is recorded of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cachetool.backbones import default_batch_size
from cachetool.datasets import Dataset, processors_for_decoding
from cachetool.errors import UnknownNameError
from cachetool.events import Events, Silent
from cachetool.extraction.loop import BlockLoop
from cachetool.extraction.opening import check_same, open_for_writing
from cachetool.extraction.request import Request
from cachetool.objects import Place
from cachetool.store import Owner, StoreReader, StoreWriter, lock, share


@dataclass(frozen=True)
class Extracted:
    """What an extraction did."""

    path: Place
    """Where the cache lies."""
    images: int
    """Images of the cache, which may be more than were asked for."""
    blocks_written: int
    """Blocks computed and written now; 0 where everything was there."""
    blocks: int
    """Blocks of this request, written now or before."""
    bytes_written: int
    """Bytes written to shards now."""
    seconds: float
    """Wall time of the loop, without opening model and data set."""
    failed: dict[str, str]
    """Images that could not be read now: id to message; all their activations are NaN."""


@dataclass(frozen=True)
class Work:
    """Blocks of a cache that are to be computed and written while its lock is held."""

    request: Request
    """What is stored of them."""
    writer: StoreWriter
    """The cache."""
    owner: Owner
    """Who holds the lock: under it others may write too, where they compute."""
    blocks: Sequence[int]
    """Numbers of the blocks, at least one."""
    batch_size: int | None
    """Images per forward pass, at most a block; None for what the device takes well."""
    workers: int | None
    """How many decode images beside what computes; None for as many as there are processors."""
    on_error: str
    """What an unreadable image does: `stop` or `continue`."""

    @property
    def unmeasured(self) -> list[int]:
        """States whose storage error is not known yet: it is measured on the first batch of the first block."""
        measured = self.writer.spec.facts.get("storage_error", {})
        return [layer for layer in self.request.layers if str(layer) not in measured]

    @property
    def images(self) -> int:
        """Number of images in the blocks."""
        return sum(len(self.writer.spec.geometry.block_range(block)) for block in self.blocks)


@dataclass(frozen=True)
class Done:
    """What became of some blocks."""

    bytes_written: int
    """Bytes written to shards."""
    failed: dict[str, str]
    """Images that could not be read: id to message."""


Compute = Callable[[Work, Events], Done]
"""What computes and writes blocks: this process, or others."""


def compute_here(work: Work, events: Events) -> Done:
    """Compute in this process, one block after another."""
    request, writer = work.request, work.writer
    size = min(work.batch_size or default_batch_size(request.backbone, request.backbone.device), writer.spec.block)
    events.start("extract", work.images)
    record_environment(writer, request.spec.facts["environment"], size)
    loop = BlockLoop(request, writer, size, work.on_error, events)
    workers = default_workers(request.dataset, request.backbone.device) if work.workers is None else work.workers
    written = loop.run(work.blocks, workers, work.unmeasured)
    return Done(written, loop.failed)


def extract(
    request: Request,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    part: tuple[int, int] = (1, 1),
    on_error: str = "stop",
    events: Events | None = None,
    compute: Compute = compute_here,
) -> Extracted:
    """Store the states of all images that the cache does not hold yet.

    Parameters
    ----------
    batch_size
        Images per forward pass, at most a block; recorded, since kernels may round differently at another size.
        Halved where memory runs out, which is told and recorded too.
    workers
        Processes that decode images; 0 for none, so that this process decodes. By default see `default_workers`.
    part
        (i, n), 1-based: take the i-th of n equal shares of the cache's blocks, so that n jobs fill one cache.
    on_error
        What an unreadable image does: `stop` raises, `continue` stores NaN, marks it in `readable` and reports it.
    compute
        What computes: this process, unless `cachetool.distributing` gives others.

    Raises
    ------
    KeyMismatchError
        Another key lies at the same place; names the parts that differ.
    ImageError
        An image cannot be read, under `on_error="stop"`; names the file. Finished blocks stay.
    RangeError
        A value exceeds the range of the storage dtype.
    StoreError
        The cache cannot be written.
    OutOfMemoryError
        A single image does not fit into memory.
    """
    check_options(batch_size, part, on_error)
    started = time.monotonic()
    request, writer = open_for_writing(request)
    name = "extract" if part == (1, 1) else f"extract-part-{part[0]}-of-{part[1]}"
    asked, there = len(request.spec.images), len(writer.spec.images)
    fewer = asked if asked < there else None
    with lock(request.path, name, shared=compute is not compute_here, images=fewer) as owner:
        whole = share(writer.spec.geometry.blocks, part)
        mine = range(whole.start, min(whole.stop, -(-asked // writer.spec.block)))
        pending = writer.pending(request.layers, request.token_types, mine)
        done = Done(0, {})
        if pending:
            work = Work(request, writer, owner, pending, batch_size, workers, on_error)
            done = compute(work, events or Silent())
    return Extracted(
        path=request.path,
        images=there,
        blocks_written=len(pending),
        blocks=len(mine),
        bytes_written=done.bytes_written,
        seconds=time.monotonic() - started,
        failed=done.failed,
    )


def check_options(batch_size: int | None, part: tuple[int, int], on_error: str) -> None:
    """Raise `UnknownNameError` for values that `extract` refuses; hashing images, which takes long, comes after."""
    if on_error not in ("stop", "continue"):
        raise UnknownNameError(f"--on-error {on_error}: expected stop or continue")
    if not 1 <= part[0] <= part[1]:
        raise UnknownNameError(f"--part {part[0]}/{part[1]}: expected i/n with 1 <= i <= n")
    if batch_size is not None and batch_size < 1:
        raise UnknownNameError(f"--batch-size {batch_size}: expected at least 1")


def extract_again(
    request: Request,
    blocks: Sequence[int],
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    on_error: str = "stop",
    events: Events | None = None,
) -> int:
    """Compute the states of a request for some blocks of an existing cache, and write them whatever lies there.

    How damage is repaired: states and token types of these blocks that the request does not name stay. Returns bytes
    written. Raises as `extract` does.
    """
    check_same(request, StoreReader(request.path).spec)
    writer = StoreWriter(request.path)
    with lock(request.path, "extract") as owner:
        work = Work(request, writer, owner, blocks, batch_size, workers, on_error)
        return compute_here(work, events or Silent()).bytes_written


def default_workers(dataset: Dataset, device: torch.device) -> int:
    """Processes that decode images: one per usable processor, up to 8.

    None where there is only one, nor on the CPU for images that threads of this process decode: an extraction of 128
    images with ViT-S took 1.27 times the time of the bare forward passes with two processes, 1.25 with one, and 1.18
    with none and no threads (medians of 3 in turns, two cores).
    """
    if device.type == "cpu" and dataset.decodes_in_threads:
        return 0
    processors = processors_for_decoding()
    return processors if processors > 1 else 0


def record_environment(writer: StoreWriter, environment: Mapping[str, Any], batch_size: int) -> None:
    """Record what blocks are computed with from now on; what earlier ones were, where that was something else."""
    facts = writer.spec.facts
    now = {"environment": dict(environment), "batch_size": batch_size}
    before = {name: facts.get(name) for name in now}
    earlier = list(facts.get("earlier_environments", []))
    if "batch_size" in facts and before != now and before not in earlier:
        earlier.append(before)
    writer.update_facts({**now, "earlier_environments": earlier} if earlier else now)
