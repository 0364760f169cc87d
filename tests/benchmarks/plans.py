"""What ImageNet would take, from measurements on this machine: `python -m tests.benchmarks.plans`.

ViT-B/14 with four registers at 224 pixels and random weights, which cost what any weights cost; a few JPEG files of the
size of ImageNet's stand for the rest. Nothing but measurements and their extrapolation is printed.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

import humanize
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from cachetool.extraction import Request, prepare
from cachetool.plan import Plan, plan_extraction
from cachetool.store import storage_dtype
from tests.benchmarks.models import make_photos
from tests.benchmarks.ratios import timed
from tests.benchmarks.storage import forget
from tests.reference.plain_models import random_vit, save_weights

MODEL, ARCHITECTURE = "dinov2-reg-b", "vit_base_patch14_reg4_dinov2"
BATCH = 16
SETS = {"ImageNet val": 50_000, "ImageNet train": 1_281_167}
CHOICES: dict[str, dict[str, list[int] | list[str]]] = {
    "all states, all tokens": {},
    "--layers 6-12": {"layers": list(range(6, 13))},
    "--layers 9,12": {"layers": [9, 12]},
    "--tokens cls,registers": {"tokens": ["cls", "registers"]},
    "--tokens registers": {"tokens": ["registers"]},
}
EDITS, FROM_LAYERS = 4, (1, 3, 6, 9, 11)


def main() -> None:
    """Print three tables: what was measured, what a cache takes, and what replays of it take."""
    console = Console(width=150)
    with tempfile.TemporaryDirectory(prefix="cachetool-plans-") as temporary:
        folder = Path(temporary)
        dataset = f"imagefolder:{make_photos(folder / 'photos')}"
        weights = save_weights(random_vit(ARCHITECTURE, seed=0), folder / "weights.safetensors")
        requests = {
            what: prepare(MODEL, dataset, root=folder / "caches", weights=weights, limit=64, **chosen)
            for what, chosen in CHOICES.items()
        }
        whole = requests["all states, all tokens"]
        plans = {
            (name, what): plan_extraction(request, BATCH, images)
            for what, request in requests.items()
            for name, images in SETS.items()
        }
        reading = _read_speed(folder)
        block_seconds = [_block_seconds(whole, wanted) for wanted in (None, torch.zeros(1, dtype=torch.int64))]
    first = plans["ImageNet val", "all states, all tokens"]
    forward = first.costs["compute_seconds"] / SETS["ImageNet val"]
    decoding = first.costs["decode_seconds"] / SETS["ImageNet val"]
    state = _state_bytes(whole)
    writing = first.costs["disk_bytes"] / first.costs["write_seconds"]
    console.print(
        f"measured: forward {1e3 * forward:.1f} ms an image; one block {1e3 * block_seconds[0]:.2f} ms, for [CLS] "
        f"alone {1e3 * block_seconds[1]:.2f} ms; decoding {1e3 * decoding:.2f} ms; "
        f"writing {writing / 1e6:.0f} MB/s, reading (cold) {reading / 1e6:.0f} MB/s; a state is {state / 1e3:.0f} kB; "
        f"{torch.get_num_threads()} threads"
    )
    console.print(_caches(plans, {what: len(request.token_types) for what, request in requests.items()}))
    console.print(_replays(forward, state, reading, writing, block_seconds))


def _caches(plans: dict[tuple[str, str], Plan], types: dict[str, int]) -> Table:
    table = Table("images", "stored", "size", "files", "memory", "forward passes", "decoding", "writing", "predicted")
    for (name, what), plan in plans.items():
        costs = plan.costs
        shards = types[what] * -(-int(costs["total_images"]) // int(costs["block_images"]))
        table.add_row(
            name, what, humanize.naturalsize(costs["disk_bytes"]), f"{shards:,}",
            humanize.naturalsize(costs["memory_bytes"]),
            *(_hours(costs[f"{one}_seconds"]) for one in ("compute", "decode", "write", "predicted")),
        )  # fmt: skip
    return table


def _replays(forward: float, state: float, reading: float, writing: float, block_seconds: list[float]) -> Table:
    """Edits from one state, against as many full forward passes; all final tokens written, or [CLS] alone."""
    depth = 12
    table = Table(
        "ImageNet val, 4 edits from state", "read", "reading", "blocks", "written", "with --keep-tokens cls",
        "full passes", "edits that pay for the cache", "reading beats recomputing above",
    )  # fmt: skip
    images = SETS["ImageNet val"]
    for layer in FROM_LAYERS:
        block = forward / depth
        kept = block * (depth - layer) - (block_seconds[0] - block_seconds[1])
        saved = forward * layer / depth
        extra = state * (depth + 1) / writing
        table.add_row(
            str(layer), humanize.naturalsize(state * images), _hours(state * images / reading),
            _hours(EDITS * images * block * (depth - layer)), humanize.naturalsize(EDITS * state * images),
            f"{_hours(EDITS * images * kept)}, {humanize.naturalsize(EDITS * state / 261 * images)}",
            _hours(EDITS * images * forward), f"{(forward + max(0.0, extra - forward)) / saved:.1f}",
            f"{state / saved / 1e6:.1f} MB/s",
        )  # fmt: skip
    return table


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds > 360 else f"{seconds:.0f} s"


def _state_bytes(request: Request) -> float:
    spec = request.spec
    return spec.layout.tokens * spec.channels * storage_dtype(spec.dtype).itemsize


def _block_seconds(request: Request, wanted: torch.Tensor | None) -> float:
    """Time of the last block for one image of a batch."""
    backbone = request.backbone
    state = torch.randn(BATCH, backbone.layout.tokens, backbone.channels)
    with torch.inference_mode():
        backbone.run(state, 11, 12, wanted=wanted)
        return statistics.median(timed(lambda: backbone.run(state, 11, 12, wanted=wanted)) for _ in range(3)) / BATCH


def _read_speed(folder: Path, size: int = 256 * 2**20) -> float:
    """Bytes per second of a file that the system does not hold in memory."""
    path = folder / "raw"
    path.write_bytes(os.urandom(size))
    into = np.empty(size, np.uint8)

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            file.readinto(memoryview(into))

    found = []
    for _ in range(3):
        forget(path)
        found.append(timed(read))
    path.unlink()
    return size / statistics.median(found)


if __name__ == "__main__":
    main()
