"""Short measurements on this machine: forward passes, decoding, writing."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from uuid import uuid4

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cachetool.backbones import Backbone
from cachetool.datasets import load_batches
from cachetool.datasets.loading import BatchDecoder
from cachetool.extraction.request import Request
from cachetool.objects import ObjectPath, Place

TIMED_PASSES = 3

TRIAL_BYTES = 2**23
"""Size of the object by which the speed of an object store is measured."""

PIECE_BYTES = 2**24
"""Size of what is written to a disk at a time to measure its speed."""

TRIAL_SECONDS = 0.25
"""Time that is spent on writing to a disk to measure its speed, about."""


def count_operations(work: Callable[[], object]) -> int:
    """Floating-point operations of some work; two per multiplication and sum."""
    # Of the kernels of attention the plain one alone is counted on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def seconds_per_image(backbone: Backbone, device: torch.device, batch_size: int) -> float:
    """Time of one image within a batch."""
    images = zero_images(backbone, device, batch_size)
    return median_seconds(lambda: forward(backbone, images)) / batch_size


def median_seconds(work: Callable[[], torch.Tensor]) -> float:
    """Seconds of some work, the median of a few times after one that sets things up; a device is waited for."""

    def waited_for() -> None:
        # One value alone: to copy all would take as long as a block on a fast GPU, and is done beside the blocks.
        work().flatten()[:1].cpu()

    waited_for()
    return statistics.median(timed(waited_for) for _ in range(TIMED_PASSES))


def zero_images(backbone: Backbone, device: torch.device, images: int) -> torch.Tensor:
    """Zeros in place of images, (image, rgb, row, column)."""
    return torch.zeros(images, 3, backbone.image_size, backbone.image_size, device=device)


def zero_state(backbone: Backbone, device: torch.device, images: int) -> torch.Tensor:
    """Zeros in place of a state, (image, token, channel)."""
    return torch.zeros(images, backbone.layout.tokens, backbone.channels, device=device)


def forward(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
    """The embedding and all blocks."""
    with torch.inference_mode():
        return backbone.run(backbone.embed(images), 0, backbone.depth)


def run_blocks(
    backbone: Backbone, state: torch.Tensor, start: int, stop: int, wanted: torch.Tensor | None
) -> torch.Tensor:
    """The blocks between two states; `wanted` as for `Backbone.run`."""
    with torch.inference_mode():
        return backbone.run(state, start, stop, wanted=wanted)


def project(backbone: Backbone, values: torch.Tensor) -> torch.Tensor:
    """What the last block projects of its input; nothing where it has no such part."""
    with torch.inference_mode():
        found = backbone.project(values, backbone.depth - 1)
        return values[:0] if found is None else found.parts[0]


def decode_seconds(request: Request, processes: int) -> float:
    """Time to decode one image in so many processes; 0 for this one, on all processors where its images allow it."""
    count = min(8, len(request.spec.images))
    if processes:
        decoder = BatchDecoder(request.dataset, request.transform, request.spec.images.sha256)
        decoder[range(1)]
        return timed(lambda: decoder[range(count)]) / count / processes
    stream = load_batches(
        request.dataset,
        request.transform,
        [range(1), range(count)],
        sha256=request.spec.images.sha256,
    )
    next(stream)
    return timed(lambda: next(stream)) / count


def write_speed(path: Place) -> float:
    """Bytes per second of the disk that holds, or will hold, a path: synced pieces of a file, which leave nothing.

    Pieces are written for a quarter of a second, two at least: the first may go into memory that the disk has to spare.
    Of an object store: an object of 8 MB, which is removed.
    """
    if isinstance(path, ObjectPath):
        trial = path.with_name(f"{path.name}.trial-{uuid4().hex}")
        try:
            return TRIAL_BYTES / timed(lambda: trial.put(bytes(TRIAL_BYTES)))
        finally:
            trial.unlink()
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    piece = memoryview(np.random.default_rng(0).bytes(PIECE_BYTES))
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:

        def write() -> None:
            file.write(piece)
            os.fsync(file.fileno())

        seconds = [timed(write), timed(write)]
        while sum(seconds) < TRIAL_SECONDS:
            seconds.append(timed(write))
        return len(seconds) * PIECE_BYTES / sum(seconds)


def timed(work: Callable[[], object]) -> float:
    """Seconds of some work, once."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
