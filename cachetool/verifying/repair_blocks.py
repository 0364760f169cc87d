"""Blocks made again: of a cache from the images, of a run from the cache; everything else stays as it is.

Nothing is given up before it is known that the same model, data set or cache is at hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cachetool.environment import resolve_device
from cachetool.errors import CachetoolError, DamagedError
from cachetool.events import Events
from cachetool.extraction import extract_again, request_of
from cachetool.objects import Place
from cachetool.replaying import RecordedRun
from cachetool.store import Record, StoreReader, StoreSpec, StoreWriter, lock, read_record
from cachetool.verifying.report import Repair
from cachetool.verifying.sources import open_model


@dataclass(frozen=True)
class Means:
    """What repairs compute with."""

    weights: str | Path | None
    device: str | None
    batch_size: int | None
    workers: int | None
    events: Events


def repair_cache(path: Place, blocks: Sequence[int], means: Means) -> list[Repair]:
    """Extract the states again that damaged blocks of a cache held."""
    spec = StoreReader(path).spec
    before = {block: _record(path, spec, block) for block in blocks}
    try:
        backbone = open_model(path, spec, means.weights, download=True)
        backbone.place(resolve_device(means.device))
        requests = [
            (request_of(StoreReader(path), backbone, layers, types), concerned)
            for (layers, types), concerned in _coverage(path, spec, before).items()
        ]
        for request, concerned in requests:
            unreadable = any(record is None or record.failed for record in map(before.get, concerned))
            extract_again(
                request,
                concerned,
                batch_size=means.batch_size or spec.facts.get("batch_size"),
                workers=means.workers,
                on_error="continue" if unreadable else "stop",
                events=means.events,
            )
    except CachetoolError as error:
        return [_refused(spec, block, f"it could not be extracted again: {error}") for block in blocks]
    return [_done(path, spec, block, before[block], "it was extracted again") for block in blocks]


def repair_run(path: Place, blocks: Sequence[int], tables: Sequence[str], means: Means) -> list[Repair]:
    """Replay damaged blocks of a run again, and arrays over its images; all of it where its cache has changed."""
    spec = StoreReader(path).spec
    before = {block: _record(path, spec, block) for block in blocks}
    try:
        run = RecordedRun(path, means.events)
        run.check_key()
        open_model(run.cache.path, run.cache.spec, means.weights, download=True)
        with lock(path, "replay"):
            writer = StoreWriter(path)
            for block in blocks:
                writer.discard(block)
            if tables:
                writer.update_facts({"finished": False})
        batch_size = means.batch_size or spec.facts.get("batch_size")
        run.replay(weights=means.weights, device=means.device, batch_size=batch_size)
    except CachetoolError as error:
        text = f"it could not be replayed again: {error}"
        named = [Repair(name, False, text) for name in tables] or [Repair("run", False, text)]
        return [_refused(spec, block, text) for block in blocks] or named
    found = [_done(path, spec, block, before[block], "it was replayed again") for block in blocks]
    found += [Repair(name, True, "it was written again by a replay") for name in tables]
    return found or [Repair("run", True, "it was replayed anew from the cache as it is now")]


def _record(path: Place, spec: StoreSpec, block: int) -> Record | None:
    try:
        return read_record(path, block, spec.geometry)
    except DamagedError:
        return None


def _coverage(
    path: Place, spec: StoreSpec, records: Mapping[int, Record | None]
) -> dict[tuple[tuple[int, ...], tuple[str, ...]], list[int]]:
    """Blocks by what they held: states, and the token types that held just these.

    Where a record cannot be read, what the other blocks hold is taken: a block never holds more than was asked for.
    """
    found: dict[tuple[tuple[int, ...], tuple[str, ...]], list[int]] = defaultdict(list)
    for block, record in records.items():
        layers = _held_elsewhere(path, spec) if record is None else record.layers
        types: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for name, held in layers.items():
            if held:
                types[tuple(held)].append(name)
        for held, names in types.items():
            found[held, tuple(names)].append(block)
    return found


def _held_elsewhere(path: Place, spec: StoreSpec) -> dict[str, tuple[int, ...]]:
    """States by token type that all blocks with a readable record hold; all of the store where there is none."""
    others = [
        record for record in (_record(path, spec, block) for block in range(spec.geometry.blocks)) if record is not None
    ]
    if not others:
        return dict.fromkeys(spec.token_types, spec.layers)
    held = {}
    for name in spec.token_types:
        common = set(spec.layers).intersection(*(record.layers.get(name, ()) for record in others))
        held[name] = tuple(np.sort(list(common)).tolist())
    return held


def _span(spec: StoreSpec, block: int) -> tuple[int, int]:
    images = spec.geometry.block_range(block)
    return images.start, images.stop - 1


def _refused(spec: StoreSpec, block: int, text: str) -> Repair:
    return Repair(f"block {block}", False, text, _span(spec, block))


def _done(path: Place, spec: StoreSpec, block: int, before: Record | None, text: str) -> Repair:
    """A finished repair, with whether the bytes are those that the old record vouched for."""
    now = _record(path, spec, block)
    same = None
    if before is not None and now is not None:
        same = all(now.files.get(name) == facts for name, facts in before.files.items())
        text += (
            ", to the same bytes"
            if same
            else (
                "; its values differ from those before within rounding (another device, kernel or batch size), so that "
                "what was made from them has to be made anew"
            )
        )
    return Repair(f"block {block}", True, text, _span(spec, block), same)
