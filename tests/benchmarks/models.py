"""Extraction against the bare forward pass, and replays against full forwards with hooks, on images as JPEG files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import cachetool
from cachetool import Edit
from cachetool.arithmetic import Arithmetic
from cachetool.backbones import load
from cachetool.datasets import Batch, load_batches
from cachetool.extraction import Request, extract, prepare
from cachetool.places import runs_directory
from cachetool.plan import Plan, plan_extraction, plan_replay
from cachetool.replaying.model import compile_blocks
from cachetool.store import StoreReader
from tests.benchmarks.bare_forward import bare_forward
from tests.benchmarks.ratios import Comparison, in_turns, slower, speed
from tests.reference.plain_models import random_vit, save_weights

MODEL, ARCHITECTURE = "dinov2-reg-s", "vit_small_patch14_reg4_dinov2"
IMAGES, FROM_LAYER = 512, 9
BATCH = 8
"""What `default_batch_size` gives for the model on the CPU; both sides of every comparison take it."""
REPLAYED = 256
"""Images of most replays: four full forwards of each take minutes."""
EDITS = ("zero", "mean", "noise", "shuffle")
REPEATS = 3


def measure(folder: Path) -> Iterator[Comparison]:
    """All comparisons of models, in a folder on the disk that is to be measured."""
    photos = make_photos(folder / "photos")
    model = random_vit(ARCHITECTURE, seed=0)
    weights = save_weights(model, folder / "weights.safetensors")
    name = f"imagefolder:{photos}"
    _warm_up(folder / "warm", name, weights)
    yield from _extraction(folder, model, name, weights)
    yield from _replays(folder, model, name, weights)


def _warm_up(folder: Path, name: str, weights: Path) -> None:
    """Import what is imported late, on a few images: what follows takes minutes, and is not repeated for that."""
    cache = cachetool.extract(MODEL, name, root=folder, weights=weights, limit=BATCH)
    cachetool.replay(cache, [Edit("registers", one, FROM_LAYER) for one in EDITS])


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
    return [batch.images for batch in _batches(request)]


def _batches(request: Request, images: int = IMAGES) -> Iterator[Batch]:
    ranges = [range(first, min(first + BATCH, images)) for first in range(0, images, BATCH)]
    return load_batches(request.dataset, request.transform, ranges, sha256=request.spec.images.sha256)


def _extraction(folder: Path, model: Any, name: str, weights: Path) -> Iterator[Comparison]:
    batches = decoded(name, weights, folder)
    request = prepare(MODEL, name, root=folder / "extracted", weights=weights)
    np.save(folder / "decoded.npy", torch.cat(batches).numpy())

    def extracting() -> None:
        extract(request, batch_size=BATCH)

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                model.forward_features(batch)

    def clear() -> None:
        shutil.rmtree(folder / "extracted", ignore_errors=True)

    with bare_forward(ARCHITECTURE, weights, folder / "decoded.npy", BATCH) as alone:
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


def prediction(what: str, plan: Plan, seconds: float) -> Comparison:
    """A plan's time against what was measured, as the factor between them, whichever is larger."""
    predicted = float(plan.costs["predicted_seconds"])
    factor = max(predicted / seconds, seconds / predicted)
    return Comparison(
        f"predicted time of the {what}", "its measured time", factor, "times the time", 1.3, (predicted, seconds)
    )


def _replays(folder: Path, model: Any, name: str, weights: Path) -> Iterator[Comparison]:
    cache = cachetool.extract(MODEL, name, root=folder / "cached", weights=weights, batch_size=BATCH, limit=REPLAYED)
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
                for batch in _batches(request, REPLAYED):
                    model.forward_features(batch.images)
            for hook in hooks:
                hook.remove()

    backbone = load(MODEL, weights=weights)
    states = torch.from_numpy(StoreReader(path).read_state(FROM_LAYER, 0, REPLAYED))

    def blocks_alone() -> None:
        with torch.inference_mode():
            for _ in EDITS:
                for first in range(0, REPLAYED, BATCH):
                    backbone.run(states[first : first + BATCH], FROM_LAYER, 12)

    replayed, hooked, alone = in_turns(replay, with_hooks, blocks_alone, repeats=REPEATS, warm=False, before=clear)
    blocks = len(EDITS) * (12 - FROM_LAYER)
    counts = {"blocks run": f"{blocks} against {len(EDITS) * 12}", "images": str(REPLAYED)}
    yield speed(
        f"replay of {len(EDITS)} edits from layer {FROM_LAYER} of 12, end to end", "full forwards with hooks",
        (replayed, hooked), 4.0, counts,
    )  # fmt: skip
    yield slower("the same", "the same blocks on tensors in memory", (replayed, alone), 1.05, counts)
    clear()
    yield prediction("replay", plan_replay(path, edits, batch_size=BATCH), replayed)
    yield _without_fixed_costs(folder, name, weights, edits, blocks_alone)

    artefact = calibration.attrs["cachetool_path"]
    last = [Edit("registers", "zero", 11)]
    seconds = in_turns(
        lambda: cachetool.replay(path, last, calibration=artefact, keep_tokens=["cls"]),
        lambda: cachetool.replay(path, last, calibration=artefact),
        repeats=REPEATS, before=clear,
    )  # fmt: skip
    yield speed(
        "one edit from layer 11, [CLS] alone wanted", "all tokens wanted", seconds, 1.0, {"images": str(REPLAYED)}
    )
    wanted = torch.zeros(1, dtype=torch.int64)
    batch = states[:BATCH]
    with torch.inference_mode():
        seconds = in_turns(
            lambda: backbone.run(batch, 11, 12, wanted=wanted), lambda: backbone.run(batch, 11, 12), repeats=10
        )
    yield speed("the block alone, [CLS] alone wanted", "the whole block", seconds, 1.0, {"images": str(BATCH)})

    rounded = Arithmetic("bfloat16")

    def in_bfloat16() -> None:
        with rounded.used(batch.device):
            backbone.run(batch, FROM_LAYER, 12)

    with torch.inference_mode():
        seconds = in_turns(in_bfloat16, lambda: backbone.run(batch, FROM_LAYER, 12), repeats=5)
    yield speed("blocks in bfloat16", "in float32", seconds, 1.0, {"images": str(BATCH)})
    compiled = load(MODEL, weights=weights)
    compile_blocks(compiled, FROM_LAYER)
    with torch.inference_mode():
        started = time.perf_counter()
        compiled.run(batch, FROM_LAYER, 12)
        begun = time.perf_counter() - started
        seconds = in_turns(
            lambda: compiled.run(batch, FROM_LAYER, 12), lambda: backbone.run(batch, FROM_LAYER, 12), repeats=5
        )
    yield speed(
        "blocks compiled", "blocks as they are", seconds, 1.0, {"images": str(BATCH), "compiled in": f"{begun:.1f} s"}
    )


def _without_fixed_costs(
    folder: Path, name: str, weights: Path, edits: list[Edit], blocks_alone: Callable[[], None]
) -> Comparison:
    """The same replay of twice the images: opening the model and the certificate take as long for any number."""
    cache = cachetool.extract(
        MODEL, name, root=folder / "larger", weights=weights, batch_size=BATCH, limit=2 * REPLAYED
    )
    path = Path(cache.attrs["cachetool_path"])
    artefact = cachetool.calibrate(path, name="benchmark").attrs["cachetool_path"]

    def twice() -> None:
        blocks_alone()
        blocks_alone()

    seconds = in_turns(
        lambda: cachetool.replay(path, edits, calibration=artefact, batch_size=BATCH), twice, repeats=REPEATS,
        warm=False, before=lambda: shutil.rmtree(runs_directory(path), ignore_errors=True),
    )  # fmt: skip
    return slower(
        f"the same of {2 * REPLAYED} images", "the same blocks on tensors in memory, twice", seconds, 1.05,
        {"images": str(2 * REPLAYED)},
    )  # fmt: skip


def _putting(values: torch.Tensor, tokens: slice) -> Any:
    def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, tokens] = values
        return output

    return hook
