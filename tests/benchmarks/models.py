"""What the benchmarks of extraction and replay have in common: a model with random weights, and JPEG files."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import cachetool
from cachetool import Edit
from cachetool.datasets import Batch, load_batches
from cachetool.extraction import Request
from cachetool.plan import Plan
from tests.benchmarks.ratios import Comparison
from tests.reference.plain_models import random_vit, save_weights

MODEL, ARCHITECTURE = "dinov2-reg-s", "vit_small_patch14_reg4_dinov2"
IMAGES, FROM_LAYER = 512, 9
BATCH = 8
"""What `default_batch_size` gives for the model on the CPU; both sides of every comparison take it."""
EDITS = ("zero", "mean", "noise", "shuffle")
REPEATS = 3


class Inputs(NamedTuple):
    """A model and images for it."""

    model: Any
    """As timm makes it."""
    dataset: str
    """Name of the images."""
    weights: Path
    """File of the model's weights."""


def make_inputs(folder: Path, images: int = IMAGES, device: str = "cpu") -> Inputs:
    """Make a model and images in a folder, and import what is imported late: what follows is not repeated for that."""
    photos = make_photos(folder / "photos", images)
    model = random_vit(ARCHITECTURE, seed=0)
    inputs = Inputs(model, f"imagefolder:{photos}", save_weights(model, folder / "weights.safetensors"))
    cache = cachetool.extract(
        MODEL, inputs.dataset, root=folder / "warm", weights=inputs.weights, limit=BATCH, device=device
    )
    cachetool.replay(cache, [Edit("registers", one, FROM_LAYER) for one in EDITS], device=device)
    return inputs


def make_photos(folder: Path, images: int = IMAGES) -> Path:
    """JPEG files of the size that photographs of ImageNet have, in one class."""
    (folder / "one").mkdir(parents=True)
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 256, (images, 24, 32, 3), dtype=np.uint8)

    def save(index: int) -> None:
        small = Image.fromarray(drawn[index])
        small.resize((500, 375), Image.Resampling.BICUBIC).save(folder / "one" / f"{index:05}.jpg", quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(save, range(images)))
    return folder


def decode(request: Request, batch: int = BATCH, workers: int = 0) -> Iterator[Batch]:
    """The batches that an extraction sees."""
    sha256 = request.spec.images.sha256
    ranges = [range(first, min(first + batch, len(sha256))) for first in range(0, len(sha256), batch)]
    return load_batches(request.dataset, request.transform, ranges, sha256=sha256, workers=workers)


def prediction(what: str, plan: Plan, seconds: float) -> Comparison:
    """A plan's time against what was measured, as the factor between them, whichever is larger."""
    predicted = float(plan.costs["predicted_seconds"])
    factor = max(predicted / seconds, seconds / predicted)
    return Comparison(
        f"predicted time of the {what}", "its measured time", factor, "times the time", 1.3, (predicted, seconds)
    )
