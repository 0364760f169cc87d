"""The loop over blocks: decode images, run the model with a visitor that stores each state, write; in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch

from cachetool.datasets import Batch, load_batches, worker_deaths
from cachetool.errors import ImageError
from cachetool.events import Events
from cachetool.extraction.buffers import BlockBuffer, to_device
from cachetool.extraction.halving import Halving
from cachetool.extraction.request import Request
from cachetool.extraction.storage_error import measured_images, storage_error
from cachetool.store import StoreWriter


class BlockLoop:
    """Decoding (processes), computing (this thread) and writing (one thread) overlap; a batch never crosses a block."""

    def __init__(
        self,
        request: Request,
        writer: StoreWriter,
        batch_size: int,
        on_error: str,
        events: Events,
        *,
        load: Callable[..., Iterator[Batch]] = load_batches,
    ) -> None:
        """Make ready; `load` is what decodes, called as `load_batches` is."""
        self._request = request
        self._writer = writer
        self._batch_size = batch_size
        self._on_error = on_error
        self._events = events
        self._halving = Halving(batch_size, events)
        self._device = request.backbone.device
        self._images = writer.spec.images
        self._load = load
        self._unmeasured: Sequence[int] = ()
        self._spare: BlockBuffer | None = None
        self.failed: dict[str, str] = {}
        """Images of the last call that could not be read: id to message."""

    def run(self, pending: Sequence[int], workers: int, unmeasured: Sequence[int]) -> int:
        """Compute and write blocks, `workers` of `load` decoding; returns bytes written.

        `unmeasured` are states whose storage error is to be measured on the first batch.
        """
        request = self._request
        self.failed = {}
        self._unmeasured = unmeasured if self._writer.spec.dtype != "float32" else ()
        geometry = self._writer.spec.geometry
        ranges = [(images.start, images.stop) for images in map(geometry.block_range, pending)]
        batches = [
            range(start, min(start + self._batch_size, last))
            for first, last in ranges
            for start in range(first, last, self._batch_size)
        ]
        stream = self._load(request.dataset, request.transform, batches, sha256=self._images.sha256, workers=workers)
        written = 0
        writing: tuple[Future[int], BlockBuffer] | None = None
        with (
            worker_deaths(request.dataset, workers),
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
                self._spare = writing[1]  # for the next call
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
        if not self._unmeasured:
            return
        request = self._request
        count = measured_images(len(self._images.image_id), self._unmeasured, request.backbone.depth)
        spread = torch.linspace(0, len(images) - 1, min(count, len(images)), dtype=torch.int64)
        sample = images[spread.to(images.device)]
        measured = storage_error(request.backbone, sample, self._unmeasured, request.token_types, spec.dtype)
        self._writer.update_facts({"storage_error": {**spec.facts.get("storage_error", {}), **measured}})
        self._unmeasured = ()

    def _record_halving(self) -> None:
        own = set(self._halving.facts.get("batch_sizes", []))
        if own <= set(self._writer.spec.facts.get("batch_sizes", [])):
            return
        # Others may have added theirs since this writer looked.
        self._writer.update_facts(
            lambda now: {"batch_sizes": sorted({*now.get("batch_sizes", []), *own}, reverse=True)}
        )
