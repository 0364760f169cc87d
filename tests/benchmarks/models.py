"""Extraction against the bare forward pass, and replays against full forwards with hooks, on images as JPEG files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import cachetool
from cachetool import Edit
from cachetool.backbones import load
from cachetool.datasets import Batch, load_batches
from cachetool.extraction import Request, extract, prepare
from cachetool.places import runs_directory
from cachetool.store import StoreReader
from tests.benchmarks.ratios import Comparison, in_turns, slower, speed
from tests.reference.plain_models import random_vit, save_weights

MODEL, ARCHITECTURE = "dinov2-reg-s", "vit_small_patch14_reg4_dinov2"
IMAGES, BATCH, FROM_LAYER = 64, 32, 9
EDITS = ("zero", "mean", "noise", "shuffle")
REPEATS = 3


def measure(folder: Path) -> Iterator[Comparison]:
    """All comparisons of models, in a folder on the disk that is to be measured."""
    photos = make_photos(folder / "photos")
    model = random_vit(ARCHITECTURE, seed=0)
    weights = save_weights(model, folder / "weights.safetensors")
    name = f"imagefolder:{photos}"
    yield _extraction(folder, model, name, weights)
    yield from _replays(folder, model, name, weights)


def make_photos(folder: Path) -> Path:
    """JPEG files of the size that photographs of ImageNet have, in one class."""
    generator = np.random.default_rng(0)
    (folder / "one").mkdir(parents=True)
    for index in range(IMAGES):
        small = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(folder / "one" / f"{index:03}.jpg", quality=90)
    return folder


def decoded(name: str, weights: Path, folder: Path) -> list[torch.Tensor]:
    """The batches that an extraction sees."""
    request = prepare(MODEL, name, root=folder / "unused", weights=weights)
    return [batch.images for batch in _batches(request, workers=0)]


def _batches(request: Request, workers: int) -> Iterator[Batch]:
    ranges = [range(first, min(first + BATCH, IMAGES)) for first in range(0, IMAGES, BATCH)]
    return load_batches(request.dataset, request.transform, ranges, sha256=request.spec.images.sha256, workers=workers)


def _extraction(folder: Path, model: Any, name: str, weights: Path) -> Comparison:
    batches = decoded(name, weights, folder)
    request = prepare(MODEL, name, root=folder / "extracted", weights=weights)

    def extracting() -> None:
        extract(request, batch_size=BATCH)

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                model.forward_features(batch)

    def clear() -> None:
        shutil.rmtree(folder / "extracted", ignore_errors=True)

    seconds = in_turns(extracting, bare, repeats=REPEATS, before=clear)
    extracting()
    size = sum(file.stat().st_size for file in request.path.rglob("*") if file.is_file())
    return slower(
        "extract ViT-S/14 reg4, all states to float16", "bare timm forward of decoded batches", seconds, 1.10,
        {"images": str(IMAGES), "written": f"{size / 2**20:.0f} MB"},
    )  # fmt: skip


def _replays(folder: Path, model: Any, name: str, weights: Path) -> Iterator[Comparison]:
    cache = cachetool.extract(MODEL, name, root=folder / "cached", weights=weights, batch_size=BATCH)
    path = Path(cache.attrs["cachetool_path"])
    registers = slice(1, 5)
    request = prepare(MODEL, name, root=folder / "unused", weights=weights)
    calibration = cachetool.calibrate(path, name="benchmark")
    means = {
        layer: torch.from_numpy(cache.registers.sel(layer=layer).mean("image").values)
        for layer in range(FROM_LAYER, 13)
    }
    edits = [Edit("registers", one, FROM_LAYER) for one in EDITS]

    def clear() -> None:
        shutil.rmtree(runs_directory(path), ignore_errors=True)

    def replay() -> None:
        cachetool.replay(path, edits, calibration=calibration.attrs["cachetool_path"], batch_size=BATCH)

    def with_hooks() -> None:
        """Four forwards with ordinary hooks; what is put in is the mean each time, which costs least."""
        for _ in EDITS:
            hooks = [
                model.blocks[layer - 1].register_forward_hook(_putting(means[layer], registers))
                for layer in range(FROM_LAYER, 13)
            ]
            with torch.inference_mode():
                for batch in _batches(request, workers=1):
                    model.forward_features(batch.images)
            for hook in hooks:
                hook.remove()

    seconds = in_turns(replay, with_hooks, repeats=REPEATS, before=clear)
    blocks = len(EDITS) * (12 - FROM_LAYER)
    counts = {"blocks run": f"{blocks} against {len(EDITS) * 12}", "images": str(IMAGES)}
    yield speed(
        f"replay of {len(EDITS)} edits from layer {FROM_LAYER} of 12, end to end", "full forwards with hooks", seconds,
        4.0, counts,
    )  # fmt: skip

    backbone = load(MODEL, weights=weights)
    states = torch.from_numpy(StoreReader(path).read_state(FROM_LAYER, 0, IMAGES))

    def blocks_alone() -> None:
        with torch.inference_mode():
            for _ in EDITS:
                for first in range(0, IMAGES, BATCH):
                    backbone.run(states[first : first + BATCH], FROM_LAYER, 12)

    seconds = in_turns(replay, blocks_alone, repeats=REPEATS, before=clear)
    yield slower("the same", "the same blocks on tensors in memory", seconds, 1.05, counts)

    last = [Edit("registers", "zero", 11)]
    seconds = in_turns(
        lambda: cachetool.replay(path, last, calibration=calibration.attrs["cachetool_path"], keep_tokens=["cls"]),
        lambda: cachetool.replay(path, last, calibration=calibration.attrs["cachetool_path"]),
        repeats=REPEATS, before=clear,
    )  # fmt: skip
    yield slower("one edit from layer 11, [CLS] alone kept", "all tokens kept", seconds, 1.0, {"blocks run": "1"})


def _putting(values: torch.Tensor, tokens: slice) -> Any:
    def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, tokens] = values
        return output

    return hook
