"""The loop from 0 with a visitor that stores each state: images to cache, resumable block by block."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from cachetool.backbones import default_batch_size
from cachetool.datasets import Batch, Dataset, load_batches, processors_for_decoding, worker_deaths
from cachetool.errors import ImageError, UnknownNameError
from cachetool.events import Events, Silent
from cachetool.extraction.buffers import BlockBuffer, to_device
from cachetool.extraction.halving import Halving
from cachetool.extraction.opening import check_same, open_for_writing
from cachetool.extraction.request import Request
from cachetool.extraction.storage_error import measured_images, storage_error
from cachetool.store import StoreReader, StoreWriter, lock, share


@dataclass(frozen=True)
class Extracted:
    """What an extraction did."""

    path: Path
    """Where the cache lies."""
    images: int
    """Images that the cache covers."""
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


def extract(
    request: Request,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    part: tuple[int, int] = (1, 1),
    on_error: str = "stop",
    events: Events | None = None,
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
        (i, n), 1-based: take the i-th of n equal shares of the blocks, so that n jobs fill one cache.
    on_error
        What an unreadable image does: `stop` raises, `continue` stores NaN, marks it in `readable` and reports it.

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
    listener = events or Silent()
    if on_error not in ("stop", "continue"):
        raise UnknownNameError(f"--on-error {on_error}: expected stop or continue")
    if not 1 <= part[0] <= part[1]:
        raise UnknownNameError(f"--part {part[0]}/{part[1]}: expected i/n with 1 <= i <= n")
    if batch_size is not None and batch_size < 1:
        raise UnknownNameError(f"--batch-size {batch_size}: expected at least 1")
    started = time.monotonic()
    request, writer = open_for_writing(request)
    with lock(request.path, "extract" if part == (1, 1) else f"extract-part-{part[0]}-of-{part[1]}"):
        size = min(batch_size or default_batch_size(request.backbone, request.backbone.device), writer.spec.block)
        loop = _Loop(request, writer, size, on_error, listener)
        mine = share(-(-len(request.spec.images) // writer.spec.block), part)
        unfinished = set(writer.pending(request.layers, request.token_types))
        pending = [block for block in mine if block in unfinished]
        written = loop.run(pending, workers) if pending else 0
    return Extracted(
        path=request.path,
        images=len(writer.spec.images.image_id),
        blocks_written=len(pending),
        blocks=len(mine),
        bytes_written=written,
        seconds=time.monotonic() - started,
        failed=loop.failed,
    )


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
    with lock(request.path, "extract"):
        size = min(batch_size or default_batch_size(request.backbone, request.backbone.device), writer.spec.block)
        return _Loop(request, writer, size, on_error, events or Silent()).run(blocks, workers)


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


class _Loop:
    """Decoding (processes), computing (this thread) and writing (one thread) overlap; a batch never crosses a block."""

    def __init__(self, request: Request, writer: StoreWriter, batch_size: int, on_error: str, events: Events) -> None:
        self._request = request
        self._writer = writer
        self._batch_size = batch_size
        self._on_error = on_error
        self._events = events
        self._halving = Halving(batch_size, events)
        self._device = request.backbone.device
        self._images = writer.spec.images
        self._unmeasured = [
            layer for layer in request.layers if str(layer) not in writer.spec.facts.get("storage_error", {})
        ]
        self._spare: BlockBuffer | None = None
        self.failed: dict[str, str] = {}

    def run(self, pending: Sequence[int], workers: int | None) -> int:
        """Compute and write the pending blocks; returns bytes written."""
        request = self._request
        ranges = [self._image_range(block) for block in pending]
        batches = [
            range(start, min(start + self._batch_size, last))
            for first, last in ranges
            for start in range(first, last, self._batch_size)
        ]
        self._events.start("extract", sum(last - first for first, last in ranges))
        self._record_environment()
        processes = default_workers(request.dataset, self._device) if workers is None else workers
        stream = load_batches(
            request.dataset, request.transform, batches, sha256=self._images.sha256, workers=processes
        )
        written = 0
        writing: tuple[Future[int], BlockBuffer] | None = None
        with (
            worker_deaths(request.dataset, processes),
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="cachetool-writer") as pool,
        ):
            for block, (first, last) in zip(pending, ranges, strict=True):
                buffer = self._buffer(last - first)
                failed = self._compute_block(stream, first, last, buffer)
                if writing is not None:
                    written += writing[0].result()  # at most one block waits, so that memory stays bounded
                    self._spare = writing[1]
                arrays = buffer.arrays()
                writing = pool.submit(self._writer.write_block, block, arrays, request.layers, failed=failed), buffer
            if writing is not None:
                written += writing[0].result()
        return written

    def _buffer(self, images: int) -> BlockBuffer:
        """Room for a block: that of the block before the last, which is written, or new."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.images == images:
            spare.clear()
            return spare
        spec, request = self._writer.spec, self._request
        return BlockBuffer(
            spec.layout, spec.channels, request.layers, request.token_types, spec.dtype, images, self._device
        )

    def _compute_block(self, stream: Iterator[Batch], first: int, last: int, buffer: BlockBuffer) -> dict[str, str]:
        """Fill the buffer with the states of a block of images; returns those that could not be read."""
        failed: dict[str, str] = {}
        done = first
        while done < last:
            batch = next(stream)
            done += len(batch.indices)
            failed |= self._report_failures(batch)
            rows = [row for row, index in enumerate(batch.indices) if index not in batch.failures]
            if rows:
                self._halving.run(len(rows), partial(self._compute_rows, batch, rows, first, buffer))
                self._record_halving()
            self._events.advance(len(batch.indices), len(batch.indices) * buffer.image_bytes)
        return failed

    def _compute_rows(self, batch: Batch, readable: list[int], first: int, buffer: BlockBuffer, part: slice) -> None:
        backbone, rows = self._request.backbone, readable[part]
        indices = [batch.indices[row] for row in rows]
        ids = [self._images.image_id[index] for index in indices]
        position = torch.tensor(indices) - first

        def visit(layer: int, state: torch.Tensor) -> torch.Tensor:
            buffer.store(layer, position, state, ids)
            return state

        images = batch.images[rows] if len(rows) < len(batch.indices) else batch.images
        with torch.inference_mode():
            moved = to_device(images.numpy(), self._device)
            backbone.run(backbone.embed(moved), 0, self._request.layers[-1], visit)
        buffer.check()
        self._measure_storage_error(moved)

    def _report_failures(self, batch: Batch) -> dict[str, str]:
        named = {self._images.image_id[index]: text for index, text in batch.failures.items()}
        if named and self._on_error == "stop":
            listing = "\n".join(f"  {text}" for text in named.values())
            raise ImageError(
                f"{len(named)} unreadable images:\n{listing}\n"
                "mend or remove them, or store NaN for them with --on-error continue"
            )
        for image_id, text in named.items():
            self._events.message(f"{image_id} stored as NaN: {text}")
        self.failed |= named
        return named

    def _measure_storage_error(self, images: torch.Tensor) -> None:
        """Once per cache and coverage, on the first batch: what rounding costs the final tokens."""
        spec = self._writer.spec
        if spec.dtype == "float32" or not self._unmeasured:
            return
        request = self._request
        count = measured_images(len(self._images.image_id), self._unmeasured, request.backbone.depth)
        spread = torch.linspace(0, len(images) - 1, min(count, len(images)), dtype=torch.int64)
        sample = images[spread.to(images.device)]
        measured = storage_error(request.backbone, sample, self._unmeasured, request.token_types, spec.dtype)
        self._writer.update_facts({"storage_error": {**spec.facts.get("storage_error", {}), **measured}})
        self._unmeasured = []

    def _record_halving(self) -> None:
        before = self._writer.spec.facts.get("batch_sizes", [])
        sizes = sorted({*before, *self._halving.facts.get("batch_sizes", [])}, reverse=True)
        if sizes != before:
            self._writer.update_facts({"batch_sizes": sizes})

    def _record_environment(self) -> None:
        """What blocks are computed with from now on; what earlier ones were, where that was something else."""
        facts = self._writer.spec.facts
        now = {"environment": self._request.spec.facts["environment"], "batch_size": self._batch_size}
        before = {name: facts.get(name) for name in now}
        earlier = list(facts.get("earlier_environments", []))
        if "batch_size" in facts and before != now and before not in earlier:
            earlier.append(before)
        self._writer.update_facts({**now, "earlier_environments": earlier} if earlier else now)

    def _image_range(self, block: int) -> tuple[int, int]:
        size = self._writer.spec.block
        return block * size, min((block + 1) * size, len(self._images.image_id))
