"""What replays will cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from cachetool.arithmetic import Arithmetic
from cachetool.backbones import default_batch_size
from cachetool.edits import Edit
from cachetool.environment import resolve_device
from cachetool.events import Silent
from cachetool.objects import AnyPlace, Place, check_writable
from cachetool.plan.costs import Plan, disk_bytes, parameter_bytes
from cachetool.plan.groups import group_edits
from cachetool.plan.measuring import (
    count_operations,
    median_seconds,
    project,
    run_blocks,
    seconds_per_image,
    write_speed,
    zero_state,
)
from cachetool.plan.preparing import Preparing
from cachetool.replaying.calibrations import Calibrations
from cachetool.replaying.certificate import SAMPLE_IMAGES, wanted_positions
from cachetool.replaying.checks import check_states, kept_types, require_cache
from cachetool.replaying.model import open_backbone
from cachetool.store import StoreReader


def plan_replay(
    cache: Place,
    edits: Sequence[Edit],
    *,
    weights: str | Path | None = None,
    keep: Iterable[int] | Literal["all"] | None = None,
    keep_tokens: Iterable[str] | None = None,
    calibration: AnyPlace | None = None,
    device: str | None = None,
    precision: str = "float32",
    compiled: bool = False,
    batch_size: int | None = None,
) -> Plan:
    """Costs of replaying edits, and whether recomputing early blocks would beat reading their result.

    For each read of a replay one block of images is read and edits are prepared on it, one batch is run from each first
    state, and a temporary file is written, all timed here and now, to predict the whole. What making a calibration and
    compiling take is left out. Raises what keeps the edits from being replayed, as far as that is known without a
    calibration that is to be made.
    """
    check_writable(cache)
    started = time.perf_counter()
    reader = StoreReader(cache)
    spec = reader.spec
    require_cache(spec, cache)
    resolved, arithmetic = resolve_device(device), Arithmetic(precision, compiled)
    arithmetic.check(resolved)
    backbone = open_backbone(cache, spec, weights)
    backbone.place(resolved)
    opening = time.perf_counter() - started
    images, depth = len(spec.images), backbone.depth
    named = None if keep is None or keep == "all" else sorted({*keep})
    types = kept_types(spec, keep_tokens)
    check_states(reader, edits, named or (depth,), depth, own_calibration=calibration is None)
    edits = list(dict.fromkeys(edits))  # as a replay does
    groups = group_edits(spec, edits, keep == "all", named or [depth])
    size = min(batch_size or default_batch_size(backbone, resolved), max(one.block for one in groups), images)
    starts = sorted({one.from_layer for one in groups})
    first, stop = starts[0], max(one.keep[-1] for one in groups)
    wanted = wanted_positions(backbone.layout, types)
    wanted = None if wanted is None else wanted.to(resolved)
    preparing_edits = Preparing(reader, Calibrations(reader, calibration, Silent()))
    reading, preparing, read_seconds = 0.0, 0.0, dict[int, float]()
    for one in groups:
        block = min(one.block, images)
        begun_reading = time.perf_counter()
        state = reader.read_state(one.from_layer, 0, block)
        read_seconds[one.from_layer] = (time.perf_counter() - begun_reading) / block
        reading += images * read_seconds[one.from_layer]
        preparing += images * preparing_edits.seconds(one.edits, state, stop)
    forward_seconds = seconds_per_image(backbone, resolved, size)
    recompute = forward_seconds * first / depth
    run = partial(run_blocks, backbone, stop=stop, wanted=wanted)
    with arithmetic.used(resolved):
        from_state = {
            start: median_seconds(partial(run, zero_state(backbone, resolved, size), start)) / size for start in starts
        }
        projecting = partial(project, backbone, zero_state(backbone, resolved, size))
        project_seconds = median_seconds(projecting) / size
    # Edits of a group share what their first block projects, as far as they are computed together, unless it computes
    # the wanted tokens alone or is compiled; all blocks are of one shape.
    begun = [edit.from_layer for edit in edits]
    whole = [one for one in groups if one.from_layer < stop - (wanted is not None) and not compiled]
    shared = sum(one.shared(spec, types) for one in whole)
    written = sum(one.disk_bytes(spec, types) for one in groups)
    compute = images * (sum(from_state[start] for start in begun) - shared * project_seconds)
    above = {start: count_operations(partial(run, zero_state(backbone, resolved, 1), start)) for start in starts}
    operations = sum(above[start] for start in begun) - shared * count_operations(projecting) // size
    certificate = min(SAMPLE_IMAGES, images) * sum(forward_seconds * (depth - start) / depth for start in starts)
    write = written / write_speed(cache)
    memory = max(one.memory_bytes(spec, types, pinned=resolved.type == "cuda") for one in groups)
    costs: dict[str, int | float] = {
        "total_images": images,
        "edits": len(edits),
        "read_bytes": disk_bytes(spec, images, 1, backbone.layout.types) * len(groups),
        "written_bytes": written,
        "memory_bytes": memory + parameter_bytes(backbone, first),
        "blocks_run": sum(stop - edit.from_layer for edit in edits),
        "blocks_of_full_forwards": depth * len(edits),
        "floating_point_operations": images * operations,
        "opening_seconds": opening,
        "reading_seconds": reading,
        "preparing_seconds": preparing,
        "compute_seconds": compute,
        "certificate_seconds": certificate,
        "write_seconds": write,
        "recomputing_early_blocks_seconds": images * recompute,
        "predicted_seconds": opening + certificate + max(reading + preparing, compute, write),
    }
    if recompute < read_seconds[first]:
        verdict = f"recomputing blocks 0 to {first} would be faster than reading state {first} here"
    else:
        verdict = f"reading state {first} saves {first} of {depth} blocks per edit, and all image decoding"
    return Plan(f"replay {len(edits)} edits on {cache}", costs, verdict)
