"""Extraction against the bare forward pass, on images as JPEG files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from cachetool.extraction import extract, prepare
from cachetool.plan import plan_extraction
from tests.benchmarks.bare_forward import bare_forward
from tests.benchmarks.models import ARCHITECTURE, BATCH, IMAGES, MODEL, REPEATS, decode, make_inputs, prediction
from tests.benchmarks.ratios import Comparison, in_turns, slower


def measure(folder: Path) -> Iterator[Comparison]:
    """Extraction against the bare forward pass, in a folder on the disk that is to be measured."""
    inputs = make_inputs(folder)
    request = prepare(MODEL, inputs.dataset, root=folder / "extracted", weights=inputs.weights, device="cpu")
    batches = [batch.images for batch in decode(request)]
    np.save(folder / "decoded.npy", torch.cat(batches).numpy())

    def extracting() -> None:
        extract(request, batch_size=BATCH)

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                inputs.model.forward_features(batch)

    def clear() -> None:
        shutil.rmtree(folder / "extracted", ignore_errors=True)

    with bare_forward(ARCHITECTURE, inputs.weights, folder / "decoded.npy", BATCH) as alone:
        apart, here, extracted = in_turns(alone, bare, extracting, repeats=REPEATS, warm=False, before=clear)
    size = sum(file.stat().st_size for file in request.path.rglob("*") if file.is_file())
    clear()
    counts = {"images": str(IMAGES), "written": f"{size / 2**20:.0f} MB"}
    what = "extract ViT-S/14 reg4, all states to float16"
    yield slower(
        what, "bare timm forward of decoded batches, in a process of its own", (extracted, apart), 1.10, counts
    )
    yield slower("the same", "bare timm forward in this process, which keeps freed memory", (extracted, here), 1.10)
    yield prediction("extraction", plan_extraction(request, BATCH), extracted)
