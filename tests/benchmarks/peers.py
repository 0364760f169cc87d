"""What comparisons with other libraries share: their model and images, and a row for one that is not installed.

nnsight and saev are the optional extra `peers`; a row says so where one is not installed. What each side gives is
compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from cachetool.datasets import load_batches
from cachetool.extraction import Request
from cachetool.extraction.extract import default_workers
from tests.benchmarks.models import ARCHITECTURE, BATCH, make_photos
from tests.benchmarks.ratios import Comparison
from tests.reference.plain_models import random_vit, save_weights

IMAGES, REPEATS = 64, 2
TOKENS, CHANNELS, DEPTH = 261, 384, 12
REGISTERS = slice(1, 5)


def model_and_jpegs(folder: Path) -> tuple[Any, str, Path]:
    """A model of random weights, the name of its images and the file of its weights."""
    model = random_vit(ARCHITECTURE, seed=0)
    return model, f"imagefolder:{make_photos(folder / 'photos')}", save_weights(model, folder / "weights.safetensors")


def batches(request: Request) -> Iterator[tuple[slice, torch.Tensor]]:
    """Images as an extraction sees them, decoded in the same way."""
    ranges = [range(first, min(first + BATCH, IMAGES)) for first in range(0, IMAGES, BATCH)]
    loaded = load_batches(
        request.dataset,
        request.transform,
        ranges,
        sha256=request.spec.images.sha256,
        workers=default_workers(request.dataset, request.backbone.device),
    )
    for rows, batch in zip(ranges, loaded, strict=True):
        yield slice(rows.start, rows.stop), batch.images


def absent(what: str, peer: str) -> Comparison:
    """The row of a library that is not installed."""
    nothing = float("nan")
    return Comparison(what, f"{peer}: not installed", nothing, "of its speed", nothing, (nothing, nothing))
