"""What ImageNet would take, from measurements on this machine: `python -m tests.benchmarks.plans`.

ViT-B/14 with four registers at 224 pixels and random weights, which cost what any weights cost; a few JPEG files of the
size of ImageNet's stand for the rest. Nothing but measurements and their extrapolation is printed.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import humanize
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from cachetool.datasets import processors_for_decoding
from cachetool.extraction import Request, prepare
from cachetool.plan import Plan, plan_extraction
from cachetool.store import storage_dtype
from tests.benchmarks.models import make_photos
from tests.benchmarks.ratios import timed
from tests.benchmarks.storage import forget
from tests.reference.plain_models import random_vit, save_weights

MODEL, ARCHITECTURE = "dinov2-reg-b", "vit_base_patch14_reg4_dinov2"
BATCH = 8
SETS = {"ImageNet val": 50_000, "ImageNet train": 1_281_167}
CHOICES: dict[str, dict[str, tuple[int, ...] | tuple[str, ...]]] = {
    "all states, all tokens": {},
    "--layers 6-12": {"layers": tuple(range(6, 13))},
    "--layers 9,12": {"layers": (9, 12)},
    "--tokens cls,registers": {"token_types": ("cls", "registers")},
    "--tokens registers": {"token_types": ("registers",)},
}
EDITS, FROM_LAYERS = 4, (1, 3, 6, 9, 11)
DEPTH, TOKENS, REPEATS = 12, 261, 4


@dataclass(frozen=True)
class Measured:
    """What everything is computed from."""

    forward: float
    """Seconds of one image through the whole model."""
    block: float
    """Seconds of one image through the last block."""
    block_for_cls: float
    """The same where [CLS] alone is wanted."""
    decoding: float
    """Seconds to decode one image, on all processors."""
    writing: float
    """Bytes per second of a synced file."""
    reading: float
    """Bytes per second of a file that the system does not hold in memory."""
    state: float
    """Bytes of one state of one image."""


def main() -> None:
    """Print three tables: what was measured, what a cache takes, and what replays of it take."""
    console = Console(width=150)
    with tempfile.TemporaryDirectory(prefix="cachetool-plans-") as temporary:
        folder = Path(temporary)
        dataset = f"imagefolder:{make_photos(folder / 'photos')}"
        weights = save_weights(random_vit(ARCHITECTURE, seed=0), folder / "weights.safetensors")
        whole = prepare(MODEL, dataset, root=folder / "caches", weights=weights, limit=16)
        requests = {what: replace(whole, **chosen) for what, chosen in CHOICES.items()}
        # One image a pass: bytes and memory are counted, and passes are timed below.
        plans = {
            (name, what): plan_extraction(request, 1, images)
            for what, request in requests.items()
            for name, images in SETS.items()
        }
        measured = Measured(
            forward=_seconds(whole, 0),
            block=_seconds(whole, 11),
            block_for_cls=_seconds(whole, 11, torch.zeros(1, dtype=torch.int64)),
            decoding=statistics.median(
                plan.costs["decode_seconds"] / plan.costs["total_images"] for plan in plans.values()
            ),
            writing=statistics.median(
                plan.costs["disk_bytes"] / plan.costs["write_seconds"] for plan in plans.values()
            ),
            reading=_read_speed(folder),
            state=_state_bytes(whole),
        )
        types = {what: len(request.token_types) for what, request in requests.items()}
    console.print(
        f"measured: forward {1e3 * measured.forward:.0f} ms an image; last block {1e3 * measured.block:.1f} ms, for "
        f"[CLS] alone {1e3 * measured.block_for_cls:.1f} ms; decoding {1e3 * measured.decoding:.1f} ms (on "
        f"{processors_for_decoding()} processors); writing {measured.writing / 1e6:.0f} MB/s, reading (cold) "
        f"{measured.reading / 1e6:.0f} MB/s; a state is {measured.state / 1e3:.0f} kB; "
        f"{torch.get_num_threads()} threads"
    )
    console.print(_caches(plans, types, measured))
    console.print(_replays(measured))


def _caches(plans: dict[tuple[str, str], Plan], types: dict[str, int], measured: Measured) -> Table:
    table = Table("images", "stored", "size", "files", "memory", "forward passes", "decoding", "writing")
    for (name, what), plan in plans.items():
        costs = plan.costs
        shards = types[what] * -(-int(costs["total_images"]) // int(costs["block_images"]))
        table.add_row(
            name, what, humanize.naturalsize(costs["disk_bytes"]), f"{shards:,}",
            humanize.naturalsize(costs["memory_bytes"]), _hours(SETS[name] * measured.forward),
            _hours(SETS[name] * measured.decoding), _hours(costs["disk_bytes"] / measured.writing),
        )  # fmt: skip
    return table


def _replays(measured: Measured) -> Table:
    """Edits from one state, against as many full forward passes; all final tokens written, or [CLS] alone."""
    table = Table(
        f"ImageNet val, {EDITS} edits from state", "read", "reading", "blocks", "written", "with --keep-tokens cls",
        "full passes", "edits that pay for the cache", "a read beats recomputing above",
    )  # fmt: skip
    images, written = SETS["ImageNet val"], measured.state * (DEPTH + 1) / measured.writing
    block = measured.forward / DEPTH
    for layer in FROM_LAYERS:
        last = block * measured.block_for_cls / measured.block
        saved = block * layer
        table.add_row(
            str(layer), humanize.naturalsize(measured.state * images),
            _hours(measured.state * images / measured.reading), _hours(EDITS * images * block * (DEPTH - layer)),
            humanize.naturalsize(EDITS * measured.state * images),
            f"{_hours(EDITS * images * (block * (DEPTH - layer - 1) + last))}, "
            f"{humanize.naturalsize(EDITS * measured.state / TOKENS * images)}",
            _hours(EDITS * images * measured.forward), f"{max(measured.forward, written) / saved:.1f}",
            f"{measured.state / saved / 1e6:.1f} MB/s",
        )  # fmt: skip
    return table


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds > 360 else f"{seconds:.0f} s"


def _state_bytes(request: Request) -> float:
    spec = request.spec
    return spec.layout.tokens * spec.channels * storage_dtype(spec.dtype).itemsize


def _seconds(request: Request, first_state: int, wanted: torch.Tensor | None = None) -> float:
    """Shortest time of one image of a batch from a state (0: from images) to the last: other programmes only add."""
    backbone = request.backbone
    size = backbone.image_size
    shape = (3, size, size) if first_state == 0 else (backbone.layout.tokens, backbone.channels)
    values = torch.randn(BATCH, *shape)

    def run() -> None:
        state = backbone.embed(values) if first_state == 0 else values
        backbone.run(state, first_state, DEPTH, wanted=wanted)

    with torch.inference_mode():
        run()
        return min(timed(run) for _ in range(REPEATS)) / BATCH


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
