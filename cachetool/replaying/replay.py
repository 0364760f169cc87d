"""Replay edits on a cache: check all of them first, then run each group that starts at the same state on one read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from cachetool.arithmetic import Arithmetic
from cachetool.edits import Edit
from cachetool.errors import InvalidEditError
from cachetool.events import Events, Silent
from cachetool.objects import AnyPlace, Place, check_writable, place
from cachetool.replaying.arm import Arm
from cachetool.replaying.calibrations import Calibrations
from cachetool.replaying.checks import check_states, draws, kept_types, require_cache
from cachetool.replaying.model import open_backbone
from cachetool.replaying.reading import describe_reading
from cachetool.replaying.replayer import Replayer, Replaying, Settings
from cachetool.replaying.runs import Run, open_arm
from cachetool.replaying.sources import CacheSources
from cachetool.store import StateDigests, StoreReader

Open = Callable[[Settings, StoreReader, Events], Replaying]
"""How a replay gets what computes it."""


def replay_here(settings: Settings, reader: StoreReader, events: Events) -> Replaying:
    """Compute in this process. Raises as `open_backbone` and `Replayer` do."""
    return Replayer(settings, reader, open_backbone(settings.cache, reader.spec, settings.weights), events)


def repeated(edits: Iterable[Edit], repeat: int) -> list[Edit]:
    """Each edit with `repeat` seeds counted from its own; an edit without randomness is kept once, as all would agree.

    Raises
    ------
    InvalidEditError
        `repeat` is not positive.
    """
    if repeat < 1:
        raise InvalidEditError(f"--repeat {repeat}: expected at least 1")
    return [replace(edit, seed=edit.seed + offset) for edit in edits for offset in range(repeat if edit.random else 1)]


def replay_edits(
    cache: AnyPlace,
    edits: Sequence[Edit],
    *,
    keep: Iterable[int] | Literal["all"] | None = None,
    keep_tokens: Iterable[str] | None = None,
    calibration: AnyPlace | None = None,
    no_overlap: bool = False,
    weights: str | Path | None = None,
    device: str | None = None,
    precision: str = "float32",
    compiled: bool = False,
    batch_size: int | None = None,
    events: Events | None = None,
    compute: Open = replay_here,
) -> list[Run]:
    """Replay edits on a cache, in the order given; finished runs are found again, interrupted ones go on.

    Parameters
    ----------
    cache
        Path of the cache.
    keep
        States to store, as they are after the edit; by default the last alone, "all" from each edit's first on.
    keep_tokens
        Token types to store; by default all that the cache holds. A read-out of [CLS] alone needs no patches.
    calibration
        A calibration to draw means and variances from, and to measure distances against; by default the cache's own.
    no_overlap
        Refuse a calibration that shares images with the cache.
    weights
        Weights file, where it has moved since the extraction.
    precision
        `float32`, `tf32` (CUDA) or `bfloat16`: of the products within blocks. The certificate says what it costs.
    compiled
        Compile the blocks with `torch.compile` first: worth its seconds in long replays.
    compute
        What computes: this process, unless `cachetool.distributing` gives others.

    Raises
    ------
    InvalidEditError
        An edit does not fit the cache; nothing is computed.
    IncompleteError
        The cache lacks a state that an edit needs; names the states.
    CertificateError
        The unedited replay does not give the stored last state within the bound.
    StoreError
        The cache lies where things can only be read.
    """
    check_writable(place(cache))
    listener = events or Silent()
    reader = StoreReader(place(cache))
    spec = reader.spec
    require_cache(spec, cache)
    depth = spec.layers[-1]
    types = kept_types(spec, keep_tokens)
    named = None if keep is None or keep == "all" else tuple(sorted({int(layer) for layer in keep}))
    check_states(reader, edits, named or (depth,), depth, own_calibration=calibration is None)
    if no_overlap and calibration is None and any(draws(edit) for edit in edits):
        raise InvalidEditError(
            f"--no-overlap: without --calibration the cache calibrates on itself, so that {len(spec.images)} of "
            f"{len(spec.images)} evaluated images are calibration images; name a calibration of other images with "
            "--calibration"
        )
    arithmetic = Arithmetic(precision, compiled)
    replaying = compute(
        Settings(reader.path, types, calibration, weights, device, arithmetic, batch_size), reader, listener
    )
    if weights is None and spec.facts.get("weights_file") is not None:
        listener.message(f"weights: {spec.facts['weights_file']}, which {cache} names")
    calibrations = Calibrations(reader, calibration, listener, replaying.summarize)
    described = {}
    for edit in dict.fromkeys(edits):
        edit.check(CacheSources(reader, calibrations.maker(edit)))
        described[edit] = calibrations.describe(edit, refuse_overlap=no_overlap) if draws(edit) else None
    digests = StateDigests(reader.path)

    runs: dict[Edit, Run] = {}
    # Late starts first: blocks that were placed on the device for an early start stay there.
    distinct = sorted(dict.fromkeys(edits), key=lambda edit: -edit.from_layer)
    for from_layer, group in groupby(distinct, key=lambda edit: edit.from_layer):
        kept = tuple(range(from_layer, depth + 1)) if keep == "all" else named or (depth,)
        certificate = replaying.certify(from_layer)
        unfinished = []
        for edit in group:
            read = describe_reading(edit, spec, digests, described[edit])
            arm = open_arm(reader, edit, kept, types, calibrations, certificate, arithmetic, read)
            lacking = arm.writer.pending(kept, types)  # a block may be lost, or discarded by a repair
            finished = bool(arm.writer.spec.facts.get("finished")) and not lacking and not arm.stale(read)
            stored = arm.writer.spec.facts.get("certificate", certificate) if finished else certificate
            runs[edit] = Run(arm.path, edit, stored, reused=finished, seconds=0.0)
            if not finished:
                unfinished.append(_Unfinished(arm, read, {"calibration": described[edit], "certificate": certificate}))
        # An edit that puts much in has smaller blocks, and runs that an earlier version began have blocks of their own.
        by_block = sorted(unfinished, key=lambda one: one.arm.writer.spec.block)
        for _block, alike in groupby(by_block, key=lambda one: one.arm.writer.spec.block):
            together = list(alike)
            seconds = _replay_together(together, kept, replaying, reader.path, listener)
            for one in together:
                runs[one.arm.edit] = replace(runs[one.arm.edit], seconds=seconds)
    return [runs[edit] for edit in edits]


@dataclass(frozen=True)
class _Unfinished:
    """An edit whose run is not there yet, or not as a whole."""

    arm: Arm
    read: dict[str, Any]
    """Digests of what the run reads of its cache and calibration, see `cachetool.replaying.reading`."""
    facts: dict[str, Any]
    """What is recorded with the run when it is finished."""


def _replay_together(
    unfinished: Sequence[_Unfinished], keep: Sequence[int], replaying: Replaying, cache: Place, events: Events
) -> float:
    """Replay edits that start at the same state on one read of it; returns seconds."""
    started = time.monotonic()
    with ExitStack() as held:
        for one in unfinished:
            held.enter_context(one.arm.locked(shared=replaying.shared))
            if one.arm.stale(one.read):
                events.message(
                    f"{one.arm.path.name} was made from other values than {cache} or its calibration holds now; it is "
                    "replayed anew"
                )
                one.arm.start_over(one.read)
        found = replaying.replay([one.arm for one in unfinished], keep)
        seconds = time.monotonic() - started
        for one in unfinished:
            size = min(replaying.batch_size, one.arm.writer.spec.block)
            computed = {"environment": replaying.environment, "batch_size": size, **found}
            one.arm.finish({**one.facts, **computed, "seconds": seconds})
    return seconds
