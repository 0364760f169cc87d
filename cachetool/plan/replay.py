"""What replays will cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from cachetool.backbones import default_batch_size
from cachetool.edits import Edit
from cachetool.environment import resolve_device
from cachetool.objects import Place, check_writable
from cachetool.plan.costs import Plan, disk_bytes, parameter_bytes
from cachetool.plan.measuring import (
    count_operations,
    median_seconds,
    project,
    run_blocks,
    seconds_per_image,
    timed,
    write_speed,
    zeros,
)
from cachetool.replaying.certificate import SAMPLE_IMAGES
from cachetool.replaying.checks import kept_types, require_cache
from cachetool.replaying.engine import HELD_BYTES, stored_bytes
from cachetool.replaying.model import open_backbone
from cachetool.replaying.runs import run_block
from cachetool.store import StoreReader


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

    One block of images is read, one batch is run from each first state, and a temporary file is written, all timed here
    and now, to predict the whole. What calibrations and the off-distribution meter take is left out.
    """
    check_writable(cache)
    started = time.perf_counter()
    reader = StoreReader(cache)
    spec = reader.spec
    require_cache(spec, cache)
    resolved = resolve_device(device)
    backbone = open_backbone(cache, spec, weights)
    backbone.place(resolved)
    opening = time.perf_counter() - started
    images, depth = len(spec.images), backbone.depth
    states = 1 if keep is None else len({*keep})
    kept = [depth + 1 - edit.from_layer if keep == "all" else states for edit in edits]
    block = run_block(spec, max(kept))
    size = min(batch_size or default_batch_size(backbone, resolved), block, images)
    begun = [edit.from_layer for edit in edits]
    starts = sorted(set(begun))
    for edit in edits:
        edit.edited_layers(depth)
    first = starts[0]
    read_seconds = timed(lambda: reader.read_state(first, 0, min(block, images))) / min(block, images)
    forward_seconds = seconds_per_image(backbone, resolved, size)
    recompute = forward_seconds * first / depth
    from_state = {start: seconds_per_image(backbone, resolved, size, start) for start in starts}
    # Edits of one state share what their first block projects of it; all blocks are of one shape.
    shared = sum(start < depth for start in begun) - sum(start < depth for start in starts)
    projecting = partial(project, backbone, zeros(backbone, resolved, size, depth - 1))
    types = kept_types(spec, keep_tokens)
    written = sum(disk_bytes(spec, images, count, types) for count in kept)
    reading = images * read_seconds * len(starts)
    compute = images * (sum(from_state[start] for start in begun) - shared * median_seconds(projecting) / size)
    above = {
        start: count_operations(partial(run_blocks, backbone, zeros(backbone, resolved, 1, start), start))
        for start in starts
    }
    operations = sum(above[start] for start in begun) - shared * count_operations(projecting) // size
    certificate = min(SAMPLE_IMAGES, images) * sum(from_state.values())
    write = written / write_speed(cache)
    # A state that is computed and one that is read, float32; what edits of it give, what is written meanwhile, and one
    # on its way there.
    state = block * spec.layout.tokens * spec.channels * 4
    edited = stored_bytes(spec, block, max(kept), types)
    held = max(edited, min(len(edits) * edited, HELD_BYTES))
    costs: dict[str, int | float] = {
        "total_images": images,
        "edits": len(edits),
        "read_bytes": disk_bytes(spec, images, 1, backbone.layout.types) * len(starts),
        "written_bytes": written,
        "memory_bytes": 2 * state + held + max(held, 2 * edited) + edited + parameter_bytes(backbone, first),
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
