"""What work will cost, said before it is done: bytes, memory, and time from a short measurement on this machine."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import humanize
import torch
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cachetool.backbones import Backbone, default_batch_size
from cachetool.datasets import load_batches
from cachetool.edits import Edit
from cachetool.environment import resolve_device
from cachetool.extraction.extract import default_workers
from cachetool.extraction.request import Request
from cachetool.extraction.storage_error import forward_passes, measured_images
from cachetool.objects import ObjectPath, Place
from cachetool.replaying.certificate import SAMPLE_IMAGES
from cachetool.replaying.checks import kept_types, require_cache
from cachetool.replaying.engine import HELD_BYTES, block_bytes
from cachetool.replaying.model import open_backbone
from cachetool.store import StoreReader, StoreSpec, storage_dtype

TIMED_PASSES = 3

TRIAL_BYTES = 2**23
"""Size of the object by which the speed of an object store is measured."""


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


def plan_extraction(request: Request, batch_size: int | None = None, images: int | None = None) -> Plan:
    """Costs of an extraction, less what is stored already.

    One batch of noise is run, eight images are decoded and a temporary file of 32 MB is written, all timed here and
    now. Decoding, computing and writing overlap: the slowest decides, and on the CPU decoding takes turns with the
    blocks. `images` plans for that many images like those of the request, which need not be at hand.
    """
    spec, backbone = request.spec, request.backbone
    images = len(spec.images) if images is None else images
    stored = 0
    if (request.path / "zarr.json").is_file():
        reader = StoreReader(request.path)
        types = [reader.spec.layout.types.index(name) for name in request.token_types]
        finished = reader.complete[:, types][:, :, list(request.layers)].all(axis=(1, 2))
        stored = min(int(finished.sum()) * reader.spec.block, len(reader.spec.images))
    todo = max(images - stored, 0)
    disk = _disk_bytes(spec, todo, len(request.layers), request.token_types)
    block = _disk_bytes(spec, spec.block, len(request.layers), request.token_types)
    size = min(batch_size or default_batch_size(backbone, backbone.device), spec.block)
    seconds = _seconds_per_image(backbone, backbone.device, size)
    processes = 1 if request.dataset.decodes_in_threads else default_workers(request.dataset, backbone.device)
    compute, decode = todo * seconds, todo * _decode_seconds(request) / max(1, processes)
    write = disk / _write_speed(request.path)
    # The rounding of each state is measured by running the blocks above it.
    rounded = todo > 0 and not stored and spec.dtype != "float32"
    measured = measured_images(images, request.layers, backbone.depth) if rounded else 0
    storage_error = measured * seconds * forward_passes(request.layers, backbone.depth)
    stages = (compute + decode, write) if backbone.device.type == "cpu" else (compute, decode, write)
    costs = {
        "total_images": images,
        "stored_images": min(stored, images),
        "disk_bytes": disk,
        "block_images": spec.block,
        "memory_bytes": 2 * block + _parameter_bytes(backbone, 0),
        "floating_point_operations": todo
        * _operations(partial(_pass, backbone, _input(backbone, backbone.device, 1, 0), 0)),
        "compute_seconds": compute,
        "decode_seconds": decode,
        "write_seconds": write,
        "storage_error_seconds": storage_error,
        "predicted_seconds": max(stages) + storage_error,
    }
    return Plan(
        f"extract {request.model} to {request.path}",
        costs,
        "nothing to do"
        if todo == 0
        else "decoding, forward passes and writing overlap, so that the slowest of them decides",
    )


def plan_replay(
    cache: Place,
    edits: Sequence[Edit],
    *,
    weights: str | Path | None = None,
    keep: Iterable[int] | Literal["all"] | None = None,
    keep_tokens: Iterable[str] | None = None,
    device: str | None = None,
    batch_size: int | None = None,
) -> Plan:
    """Costs of replaying edits, and whether recomputing early blocks would beat reading their result.

    One block of images is read, one batch is run from each first state, and a temporary file of 32 MB is written, all
    timed here and now, to predict the whole. What calibrations and the off-distribution meter take is left out.
    """
    started = time.perf_counter()
    reader = StoreReader(cache)
    spec = reader.spec
    require_cache(spec, cache)
    resolved = resolve_device(device)
    backbone = open_backbone(cache, spec, weights)
    backbone.place(resolved)
    opening = time.perf_counter() - started
    images, depth = len(spec.images), backbone.depth
    size = min(batch_size or default_batch_size(backbone, resolved), spec.block, images)
    begun = [edit.from_layer for edit in edits]
    starts = sorted(set(begun))
    for edit in edits:
        edit.edited_layers(depth)
    first = starts[0]
    read_seconds = _timed(lambda: reader.read_state(first, 0, min(spec.block, images))) / min(spec.block, images)
    forward_seconds = _seconds_per_image(backbone, resolved, size)
    recompute = forward_seconds * first / depth
    from_state = {start: _seconds_per_image(backbone, resolved, size, start) for start in starts}
    # Edits of one state share what their first block projects of it; all blocks are of one shape.
    shared = sum(start < depth for start in begun) - sum(start < depth for start in starts)
    projecting = partial(_project, backbone, _input(backbone, resolved, size, depth - 1))
    types = kept_types(spec, keep_tokens)
    states = 1 if keep is None else len({*keep})
    kept = [depth + 1 - edit.from_layer if keep == "all" else states for edit in edits]
    written = sum(_disk_bytes(spec, images, count, types) for count in kept)
    reading = images * read_seconds * len(starts)
    compute = images * (sum(from_state[start] for start in begun) - shared * _median(projecting) / size)
    above = {
        start: _operations(partial(_pass, backbone, _input(backbone, resolved, 1, start), start)) for start in starts
    }
    operations = sum(above[start] for start in begun) - shared * _operations(projecting) // size
    certificate = min(SAMPLE_IMAGES, images) * sum(from_state.values())
    write = written / _write_speed(cache)
    # A state that is computed and one that is read, float32; what edits of it give, and three such that are written.
    state = spec.block * spec.layout.tokens * spec.channels * 4
    edited = block_bytes(spec, max(kept), types)
    held = max(edited, min(len(edits) * edited, HELD_BYTES))
    costs: dict[str, int | float] = {
        "total_images": images,
        "edits": len(edits),
        "read_bytes": _disk_bytes(spec, images, 1, backbone.layout.types) * len(starts),
        "written_bytes": written,
        "memory_bytes": 2 * state + held + 3 * edited + _parameter_bytes(backbone, first),
        "blocks_run": sum(depth - edit.from_layer for edit in edits),
        "blocks_of_full_forwards": depth * len(edits),
        "floating_point_operations": images * operations,
        "opening_seconds": opening,
        "reading_seconds": reading,
        "compute_seconds": compute,
        "certificate_seconds": certificate,
        "write_seconds": write,
        "recomputing_early_blocks_seconds": images * recompute,
        "predicted_seconds": opening + certificate + max(reading, compute, write),
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


def _operations(work: Callable[[], object]) -> int:
    """Floating-point operations of some work; two per multiplication and sum."""
    # Of the kernels of attention the plain one alone is counted on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def _seconds_per_image(backbone: Backbone, device: torch.device, batch_size: int, first_state: int = 0) -> float:
    """Time of one image within a batch from a state on."""
    values = _input(backbone, device, batch_size, first_state)
    return _median(lambda: _pass(backbone, values, first_state)) / batch_size


def _median(work: Callable[[], torch.Tensor]) -> float:
    """Seconds of some work, the median of a few times after one that sets things up; a device is waited for."""
    work().cpu()
    return statistics.median(_timed(lambda: work().cpu()) for _ in range(TIMED_PASSES))


def _input(backbone: Backbone, device: torch.device, images: int, first_state: int) -> torch.Tensor:
    """Zeros in place of images, or of a state where the first is not 0."""
    side = backbone.image_size
    shape = (3, side, side) if first_state == 0 else (backbone.layout.tokens, backbone.channels)
    return torch.zeros(images, *shape, device=device)


def _pass(backbone: Backbone, values: torch.Tensor, first_state: int) -> torch.Tensor:
    with torch.inference_mode():
        state = backbone.embed(values) if first_state == 0 else values
        return backbone.run(state, first_state, backbone.depth)


def _project(backbone: Backbone, values: torch.Tensor) -> torch.Tensor:
    """What the last block projects of its input; nothing where it has no such part."""
    with torch.inference_mode():
        found = backbone.project(values, backbone.depth - 1)
        return values[:0] if found is None else found.parts[0]


def _decode_seconds(request: Request) -> float:
    """Time to decode one image in this process, on all processors where the data set's images allow it."""
    count = min(8, len(request.spec.images))
    stream = load_batches(
        request.dataset,
        request.transform,
        [range(1), range(count)],
        sha256=request.spec.images.sha256,
    )
    next(stream)
    return _timed(lambda: next(stream)) / count


def _write_speed(path: Place) -> float:
    """Bytes per second of the disk that holds, or will hold, a path: a synced file of 32 MB that leaves nothing.

    Of an object store: an object of 8 MB, which is removed.
    """
    if isinstance(path, ObjectPath):
        trial = path.with_name(f"{path.name}.trial-{uuid4().hex}")
        try:
            return TRIAL_BYTES / _timed(lambda: trial.put(bytes(TRIAL_BYTES)))
        finally:
            trial.unlink()
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    content = memoryview(bytes(32 * 2**20))
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:

        def write() -> None:
            file.write(content)
            os.fsync(file.fileno())

        return len(content) / _timed(write)


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
