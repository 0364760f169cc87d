"""What work will cost, said before it is done: bytes, memory, and time from a short measurement on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import humanize
import torch
from rich.table import Table

from cachetool.backbones import Backbone
from cachetool.edits import Edit
from cachetool.environment import resolve_device
from cachetool.extraction.extract import DEFAULT_BATCH_SIZE
from cachetool.extraction.request import Request
from cachetool.replaying.replay import open_backbone, require_cache
from cachetool.store import StoreReader, StoreSpec, storage_dtype


@dataclass(frozen=True)
class Plan:
    """Costs by name, each with its unit."""

    title: str
    """What is planned."""
    costs: dict[str, int | float]
    """Names end in `_bytes`, `_seconds`, `_images` or are plain counts and ratios."""
    verdict: str
    """One sentence: what to do."""

    def to_json(self) -> dict[str, Any]:
        """The plan as one JSON object."""
        return {"plan": self.title, **self.costs, "verdict": self.verdict}

    def table(self) -> Table:
        """The plan as a table with readable units."""
        table = Table(title=self.title, caption=self.verdict)
        table.add_column("cost")
        table.add_column("value", justify="right")
        for name, value in self.costs.items():
            table.add_row(name.rpartition("_")[0].replace("_", " ") or name, _readable(name, value))
        return table


def plan_extraction(request: Request, batch_size: int | None = None) -> Plan:
    """Costs of an extraction, less what is stored already; the forward pass is timed on one batch of noise."""
    spec = request.spec
    images = len(spec.images)
    stored = 0
    if (request.path / "zarr.json").is_file():
        reader = StoreReader(request.path)
        types = [reader.spec.layout.types.index(name) for name in request.token_types]
        finished = reader.complete[:, types][:, :, list(request.layers)].all(axis=(1, 2))
        stored = min(int(finished.sum()) * reader.spec.block, len(reader.spec.images))
    todo = max(images - stored, 0)
    disk = _disk_bytes(spec, todo, len(request.layers), request.token_types)
    block = _disk_bytes(spec, spec.block, len(request.layers), request.token_types)
    size = min(batch_size or DEFAULT_BATCH_SIZE, spec.block)
    seconds = _seconds_per_image(request.backbone, request.backbone.device, size)
    costs = {
        "total_images": images,
        "stored_images": min(stored, images),
        "disk_bytes": disk,
        "block_images": spec.block,
        "memory_bytes": 2 * block + _parameter_bytes(request.backbone, 0),
        "compute_seconds": todo * seconds,
    }
    return Plan(
        f"extract {request.model} to {request.path}",
        costs,
        "nothing to do"
        if todo == 0
        else "the time is that of the forward passes; decoding and writing run beside them",
    )


def plan_replay(
    cache: Path,
    edits: Sequence[Edit],
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
) -> Plan:
    """Costs of replaying edits, and whether recomputing early blocks would beat reading their result.

    One block of images is read and one batch is run, both timed here and now, to predict the whole.
    """
    reader = StoreReader(cache)
    spec = reader.spec
    require_cache(spec, cache)
    resolved = resolve_device(device)
    backbone = open_backbone(spec, weights)
    backbone.place(resolved)
    images, depth = len(spec.images), backbone.depth
    size = min(batch_size or DEFAULT_BATCH_SIZE, spec.block, images)
    starts = sorted({edit.from_layer for edit in edits})
    for edit in edits:
        edit.edited_layers(depth)
    first = starts[0]
    read_seconds = _timed(lambda: reader.read_state(first, 0, min(spec.block, images))) / min(spec.block, images)
    forward_seconds = _seconds_per_image(backbone, resolved, size)
    recompute = forward_seconds * first / depth
    costs: dict[str, int | float] = {
        "total_images": images,
        "edits": len(edits),
        "read_bytes": _disk_bytes(spec, images, 1, backbone.layout.types) * len(starts),
        "written_bytes": _disk_bytes(spec, images, 1, spec.token_types) * len(edits),
        "memory_bytes": 4 * spec.block * spec.layout.tokens * spec.channels * 4 + _parameter_bytes(backbone, first),
        "blocks_run": sum(depth - edit.from_layer for edit in edits),
        "blocks_of_full_forwards": depth * len(edits),
        "reading_seconds": images * read_seconds * len(starts),
        "compute_seconds": images * forward_seconds * sum(depth - edit.from_layer for edit in edits) / depth,
        "recomputing_early_blocks_seconds": images * recompute,
    }
    if recompute < read_seconds:
        verdict = f"recomputing blocks 0 to {first} would be faster than reading state {first} here"
    else:
        verdict = f"reading state {first} saves {first} of {depth} blocks per edit, and all image decoding"
    return Plan(f"replay {len(edits)} edits on {cache}", costs, verdict)


def _disk_bytes(spec: StoreSpec, images: int, layers: int, token_types: Sequence[str]) -> int:
    """Bytes of the chunks of some images, each of which is stored whole even where it is partly filled."""
    geometry = spec.geometry
    total = 0
    for name in token_types:
        array = geometry.array(name)
        chunk = array.chunk_images(spec.block)
        total += -(-images // chunk) * chunk * array.values * layers * storage_dtype(spec.dtype).itemsize
    return total


def _parameter_bytes(backbone: Backbone, first_block: int) -> int:
    blocks = backbone.model.blocks[first_block:]
    return sum(parameter.numel() * parameter.element_size() for parameter in blocks.parameters())


def _seconds_per_image(backbone: Backbone, device: torch.device, batch_size: int) -> float:
    """Time of one image's forward pass within a batch, the second of two, so that set-up is left out."""
    side = backbone.image_size
    images = torch.zeros(batch_size, 3, side, side, device=device)

    def forward() -> None:
        with torch.inference_mode():
            backbone.run(backbone.embed(images), 0, backbone.depth).cpu()

    forward()
    return _timed(forward) / batch_size


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _readable(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return humanize.naturalsize(value)
    if name.endswith("_seconds"):
        return humanize.precisedelta(value, minimum_unit="seconds", format="%0.1f")
    return f"{value:,}"
