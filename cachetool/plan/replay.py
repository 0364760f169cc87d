"""What replays will cost."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from cachetool.backbones import default_batch_size
from cachetool.edits import Edit
from cachetool.environment import resolve_device
from cachetool.events import Silent
from cachetool.objects import AnyPlace, Place, check_writable
from cachetool.plan.costs import Plan, disk_bytes, parameter_bytes
from cachetool.plan.measuring import (
    count_operations,
    median_seconds,
    project,
    run_blocks,
    seconds_per_image,
    write_speed,
    zeros,
)
from cachetool.plan.preparing import preparing_seconds
from cachetool.replaying.calibrations import Calibrations
from cachetool.replaying.certificate import SAMPLE_IMAGES
from cachetool.replaying.checks import kept_types, require_cache
from cachetool.replaying.model import open_backbone
from cachetool.replaying.portions import portions, stored_bytes
from cachetool.replaying.run_blocks import run_block, state_bytes, value_bytes
from cachetool.store import StoreReader, StoreSpec


def plan_replay(
    cache: Place,
    edits: Sequence[Edit],
    *,
    weights: str | Path | None = None,
    keep: Iterable[int] | Literal["all"] | None = None,
    keep_tokens: Iterable[str] | None = None,
    calibration: AnyPlace | None = None,
    device: str | None = None,
    batch_size: int | None = None,
) -> Plan:
    """Costs of replaying edits, and whether recomputing early blocks would beat reading their result.

    One block of images is read, edits are prepared on it, one batch is run from each first state, and a temporary file
    is written, all timed here and now, to predict the whole. What making a calibration takes is left out.
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
    for edit in edits:
        edit.edited_layers(depth)
    named = None if keep is None or keep == "all" else sorted({*keep})
    types = kept_types(spec, keep_tokens)
    groups = _groups(spec, edits, keep == "all", named or [depth])
    size = min(batch_size or default_batch_size(backbone, resolved), max(one.block for one in groups), images)
    starts = sorted({one.from_layer for one in groups})
    first = starts[0]
    block = min(max(one.block for one in groups), images)
    begun_reading = time.perf_counter()
    state = reader.read_state(first, 0, block)
    read_seconds = (time.perf_counter() - begun_reading) / block
    calibrations = Calibrations(reader, calibration, Silent())
    prepare_seconds = preparing_seconds(reader, calibrations, edits, state, max(max(one.keep) for one in groups))
    forward_seconds = seconds_per_image(backbone, resolved, size)
    recompute = forward_seconds * first / depth
    from_state = {start: seconds_per_image(backbone, resolved, size, start) for start in starts}
    # Edits of a group share what their first block projects, as far as they are computed together; all blocks are of
    # one shape.
    begun = [edit.from_layer for edit in edits]
    shared = sum(one.shared(spec, types) for one in groups if one.from_layer < depth)
    projecting = partial(project, backbone, zeros(backbone, resolved, size, depth - 1))
    written = sum(one.disk_bytes(spec, types) for one in groups)
    reading, preparing = images * read_seconds * len(groups), images * prepare_seconds
    compute = images * (sum(from_state[start] for start in begun) - shared * median_seconds(projecting) / size)
    above = {
        start: count_operations(partial(run_blocks, backbone, zeros(backbone, resolved, 1, start), start))
        for start in starts
    }
    operations = sum(above[start] for start in begun) - shared * count_operations(projecting) // size
    certificate = min(SAMPLE_IMAGES, images) * sum(from_state.values())
    write = written / write_speed(cache)
    costs: dict[str, int | float] = {
        "total_images": images,
        "edits": len(edits),
        "read_bytes": disk_bytes(spec, images, 1, backbone.layout.types) * len(groups),
        "written_bytes": written,
        "memory_bytes": max(one.memory_bytes(spec, types) for one in groups) + parameter_bytes(backbone, first),
        "blocks_run": sum(depth - edit.from_layer for edit in edits),
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
    if recompute < read_seconds:
        verdict = f"recomputing blocks 0 to {first} would be faster than reading state {first} here"
    else:
        verdict = f"reading state {first} saves {first} of {depth} blocks per edit, and all image decoding"
    return Plan(f"replay {len(edits)} edits on {cache}", costs, verdict)


@dataclass(frozen=True)
class _Group:
    """Edits that are replayed on one read of their first state."""

    from_layer: int
    keep: tuple[int, ...]
    block: int
    """Images of a block of their runs."""
    edits: tuple[Edit, ...]

    def shared(self, spec: StoreSpec, token_types: Sequence[str]) -> int:
        """How many of them find their first state projected."""
        return len(self.edits) - len(self._portions(spec, token_types))

    def disk_bytes(self, spec: StoreSpec, token_types: Sequence[str]) -> int:
        """What their runs take."""
        run = replace(spec, block=self.block)
        return len(self.edits) * disk_bytes(run, len(spec.images), len(self.keep), token_types)

    def memory_bytes(self, spec: StoreSpec, token_types: Sequence[str]) -> int:
        """What is held: intact states of two blocks and values of two portions, float32, and stored states.

        The latter are what edits of a portion give, what is written meanwhile, and one on its way there.
        """
        images = min(self.block, len(spec.images))
        stored = stored_bytes(spec, images, len(self.keep), token_types)
        cut = self._portions(spec, token_types)
        held = stored * max(map(len, cut))
        values = [images * value_bytes(spec, edit, self.keep[-1]) for edit in self.edits]
        prepared = max(sum(values[part.start : part.stop]) for part in cut)
        return 2 * (images * state_bytes(spec) + prepared) + held + max(held, 2 * stored) + stored

    def _portions(self, spec: StoreSpec, token_types: Sequence[str]) -> list[range]:
        return portions(spec, self.edits, min(self.block, len(spec.images)), self.keep, token_types)


def _groups(spec: StoreSpec, edits: Sequence[Edit], keep_all: bool, keep: Sequence[int]) -> list[_Group]:
    """Edits by first state and by how their runs are cut."""
    found: dict[tuple[int, tuple[int, ...], int], list[Edit]] = defaultdict(list)
    for edit in edits:
        kept = tuple(range(edit.from_layer, spec.layers[-1] + 1)) if keep_all else tuple(keep)
        found[edit.from_layer, kept, run_block(spec, edit, kept)].append(edit)
    return [_Group(*key, tuple(together)) for key, together in found.items()]
