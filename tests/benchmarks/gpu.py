"""Extraction and replay on CUDA, against the larger of what computes and what writes, and against passes with hooks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import cachetool
from cachetool import Edit
from cachetool.arithmetic import Arithmetic
from cachetool.backbones import Backbone, default_batch_size, load
from cachetool.extraction import Request, extract, prepare
from cachetool.extraction.extract import default_workers
from cachetool.places import runs_directory
from cachetool.plan import plan_extraction, plan_replay
from cachetool.replaying.model import compile_blocks
from cachetool.store import StoreReader
from tests.benchmarks.models import EDITS, FROM_LAYER, MODEL, Inputs, decode, make_inputs, prediction
from tests.benchmarks.ratios import Comparison, in_turns, slower, speed
from tests.benchmarks.raw_files import raw_write

DEVICE = "cuda"
IMAGES = 4096
REPEATS = 3
ARITHMETIC = (Arithmetic(), Arithmetic("tf32"), Arithmetic("bfloat16"), Arithmetic("bfloat16", compiled=True))
BATCH_SIZES = (16, 32, 64, 256)


def measure(folder: Path) -> Iterator[Comparison]:
    """All comparisons on the first CUDA device, in a folder on the disk that is to be measured."""
    if not torch.cuda.is_available():
        print("gpu: there is no CUDA device, so that nothing is measured", file=sys.stderr)
        return
    inputs = make_inputs(folder, IMAGES, DEVICE)
    inputs.model.to(DEVICE)
    request = prepare(MODEL, inputs.dataset, root=folder / "caches", weights=inputs.weights, device=DEVICE)
    yield from _extraction(folder, inputs, request)
    yield from _replays(folder, inputs, request)


def _extraction(folder: Path, inputs: Inputs, request: Request) -> Iterator[Comparison]:
    device = request.backbone.device
    # A batch of an extraction never crosses a block.
    size = min(default_batch_size(request.backbone, device), request.spec.block)
    workers = default_workers(request.dataset, device)
    batches = [batch.images.pin_memory() for batch in decode(request, size, workers)]

    def compute() -> None:
        with torch.inference_mode():
            for batch in batches:
                inputs.model.forward_features(batch.to(DEVICE, non_blocking=True))
        torch.cuda.synchronize()

    def decoding() -> None:
        for _batch in decode(request, size, workers):
            pass

    def extracting() -> None:
        extract(request)

    extracting()
    written = sum(file.stat().st_size for file in request.path.rglob("*") if file.is_file())

    def clear() -> None:
        shutil.rmtree(request.path, ignore_errors=True)

    seconds = in_turns(
        compute, raw_write(folder, written), decoding, extracting, repeats=REPEATS, warm=False, before=clear
    )
    computed, wrote, decoded, extracted = seconds
    counts = {
        "images": str(IMAGES), "batch": str(size), "computing": f"{computed:.2f} s", "writing": f"{wrote:.2f} s",
        "decoding": f"{decoded:.2f} s in {workers} processes", "written": f"{written / 2**20:.0f} MB",
    }  # fmt: skip
    what = "CUDA: extract ViT-S/14 reg4, all states to float16"
    yield slower(what, "the larger of computing and writing", (extracted, max(computed, wrote)), 1.10, counts)
    yield slower("the same", "the largest of computing, writing and decoding", (extracted, max(seconds[:3])), 1.10)
    clear()
    yield prediction("extraction on CUDA", plan_extraction(request), extracted)


def _replays(folder: Path, inputs: Inputs, request: Request) -> Iterator[Comparison]:
    extract(request)
    path = Path(str(request.path))
    calibration = cachetool.calibrate(path, name="benchmark").attrs["cachetool_path"]
    edits = [Edit("registers", one, FROM_LAYER) for one in EDITS]
    reader = StoreReader(path)
    device = request.backbone.device
    size, workers = default_batch_size(request.backbone, device), default_workers(request.dataset, device)
    states = torch.from_numpy(reader.read_state(FROM_LAYER, 0, IMAGES)).to(DEVICE)

    def clear() -> None:
        shutil.rmtree(runs_directory(path), ignore_errors=True)

    def replaying(arithmetic: Arithmetic) -> Callable[[], object]:
        return lambda: cachetool.replay(
            path, edits, calibration=calibration, device=DEVICE,
            precision=arithmetic.precision, compiled=arithmetic.compiled,
        )  # fmt: skip

    def with_hooks() -> None:
        """Full passes with ordinary hooks; a constant is put in each time, which costs least."""
        for _ in EDITS:
            hooks = [block.register_forward_hook(_zero_registers) for block in inputs.model.blocks[FROM_LAYER - 1 :]]
            with torch.inference_mode():
                for batch in decode(request, size, workers):
                    inputs.model.forward_features(batch.images.pin_memory().to(DEVICE, non_blocking=True)).half().cpu()
            for hook in hooks:
                hook.remove()

    def alone(backbone: Backbone, arithmetic: Arithmetic, batch: int = size) -> Callable[[], None]:
        def run() -> None:
            with arithmetic.used(device), torch.inference_mode():
                for _ in EDITS:
                    for part in states.split(batch):
                        backbone.run(part, FROM_LAYER, 12)
            torch.cuda.synchronize()

        return run

    replaying(ARITHMETIC[0])()
    written = sum(file.stat().st_size for file in runs_directory(path).rglob("*") if file.is_file())
    works = (replaying(ARITHMETIC[0]), with_hooks, alone(request.backbone, ARITHMETIC[0]), raw_write(folder, written))
    replayed, hooked, blocks, wrote = in_turns(*works, repeats=REPEATS, warm=False, before=clear)
    counts = {"images": str(IMAGES), "blocks": f"{blocks:.2f} s", "writing": f"{wrote:.2f} s"}
    what = f"CUDA: replay of {len(EDITS)} edits from layer {FROM_LAYER} of 12, end to end"
    yield speed(what, "full forwards with hooks, decoding included", (replayed, hooked), 4.0, counts)
    yield slower("the same", "the larger of the same blocks in memory and writing", (replayed, max(blocks, wrote)), 1.1)
    clear()
    yield prediction("replay on CUDA", plan_replay(path, edits, calibration=calibration, device=DEVICE), replayed)

    for batch in BATCH_SIZES:
        works = (alone(request.backbone, ARITHMETIC[0], batch), alone(request.backbone, ARITHMETIC[0]))
        yield speed(f"CUDA: the blocks in batches of {batch}", f"of {size}", in_turns(*works, repeats=REPEATS), 1.0)
    for arithmetic in ARITHMETIC[1:]:
        backbone = load(MODEL, weights=inputs.weights)
        backbone.place(DEVICE)
        if arithmetic.compiled:
            compile_blocks(backbone, FROM_LAYER)
        quick, plain = in_turns(
            alone(backbone, arithmetic), alone(request.backbone, ARITHMETIC[0]), repeats=REPEATS, warm=True
        )
        clear()
        run = cachetool.replay(
            path, edits[0], calibration=calibration, device=DEVICE,
            precision=arithmetic.precision, compiled=arithmetic.compiled,
        )  # fmt: skip
        error = run.attrs["facts"]["certificate"]["relative_error"]
        yield speed(
            f"CUDA: the blocks with{arithmetic.description.removeprefix(',')}", "in float32", (quick, plain), 1.0,
            {"certificate": f"{error:.1e}"},
        )  # fmt: skip


def _zero_registers(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
    output = output.clone()
    output[:, 1:5] = 0
    return output
