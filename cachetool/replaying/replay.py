"""Replay edits on a cache: check all of them first, then run each group that starts at the same state on one read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from cachetool import places
from cachetool.arithmetic import Arithmetic
from cachetool.backbones import Backbone, default_batch_size, load
from cachetool.edits import Edit
from cachetool.environment import describe_environment, resolve_device
from cachetool.errors import IncompleteError, InvalidEditError, KeyMismatchError, MissingDataError, WeightsError
from cachetool.events import Events, Silent
from cachetool.extraction.halving import Halving
from cachetool.images import image_digest
from cachetool.provenance import MODEL, check_provenance
from cachetool.replaying.arm import Arm
from cachetool.replaying.calibrations import Calibrations
from cachetool.replaying.certificate import certify
from cachetool.replaying.engine import replay_arms
from cachetool.replaying.reading import describe_reading, states_read
from cachetool.replaying.sources import CacheSources
from cachetool.store import (
    StateDigests,
    StoreReader,
    StoreSpec,
    StoreWriter,
    create,
    differences,
    key_digest,
    lock,
)


@dataclass(frozen=True)
class Run:
    """One edit replayed on one cache."""

    path: Path
    """Where the run lies."""
    edit: Edit
    """What was edited."""
    certificate: dict[str, Any]
    """How well the unedited replay gives the stored last state; see `cachetool.replaying.certificate`."""
    reused: bool
    """Whether the finished run was there already, so that nothing was computed."""
    seconds: float
    """Wall time of the group of edits that it was replayed with; 0 where it was reused."""

    def to_json(self) -> dict[str, Any]:
        """One entry of the `runs` that `cachetool replay --json` prints."""
        return {
            "path": str(self.path),
            **self.edit.to_json(),
            "oracle": self.edit.build().oracle,
            "certificate": self.certificate,
            "reused": self.reused,
            "seconds": self.seconds,
        }


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


def open_backbone(path: str | Path, spec: StoreSpec, weights: str | Path | None = None) -> Backbone:
    """Load the model that the cache at `path` was extracted with, and prove that it is the same.

    Without `weights`, the file that the cache names is opened, which may be somebody else's cache: as any weights file
    it is read as data alone, and used only if its digest is that of the cache.

    Raises
    ------
    DamagedError
        The cache does not say which model it was extracted with.
    MissingDataError
        Its weights are not at hand.
    WeightsError
        The weights, architecture or position embedding are not those of the cache.
    """
    check_provenance(Path(path), spec.key, spec.facts, *MODEL)
    named = spec.facts.get("weights_file") if weights is None else None
    file = named if weights is None else weights
    model = str(spec.facts["model"])
    try:
        backbone = load(model, weights=None if file is None else Path(file), image_size=spec.key["transform"]["size"])
    except (MissingDataError, WeightsError) as error:
        if named is None:
            raise
        raise type(error)(f"{error}\nThis file is named by {path}; name another with --weights") from error
    found = {
        "architecture": backbone.architecture,
        "weights_sha256": backbone.weights_sha256,
        "position_embedding": backbone.position_embedding,
    }
    wrong = [
        f"  {name}: {spec.key[name]} in the cache, {value} now"
        for name, value in found.items()
        if value != spec.key[name]
    ]
    if wrong:
        listing = "\n".join(wrong)
        raise WeightsError(
            f"{model} as it loads now is not the model of the cache:\n{listing}\nname the right file with --weights"
        )
    return backbone


def replay_edits(
    cache: str | Path,
    edits: Sequence[Edit],
    *,
    keep: Iterable[int] | Literal["all"] | None = None,
    keep_tokens: Iterable[str] | None = None,
    calibration: str | Path | None = None,
    no_overlap: bool = False,
    weights: str | Path | None = None,
    device: str | None = None,
    precision: str = "float32",
    compiled: bool = False,
    batch_size: int | None = None,
    events: Events | None = None,
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

    Raises
    ------
    InvalidEditError
        An edit does not fit the cache; nothing is computed.
    IncompleteError
        The cache lacks a state that an edit needs; names the states.
    CertificateError
        The unedited replay does not give the stored last state within the bound.
    """
    listener = events or Silent()
    reader = StoreReader(Path(cache))
    spec = reader.spec
    require_cache(spec, cache)
    depth = spec.layers[-1]
    types = kept_types(spec, keep_tokens)
    named = None if keep is None or keep == "all" else tuple(sorted({int(layer) for layer in keep}))
    _check_states(reader, edits, named or (depth,), depth, own_calibration=calibration is None)
    if no_overlap and calibration is None and any(_draws(edit) for edit in edits):
        raise InvalidEditError(
            f"--no-overlap: without --calibration the cache calibrates on itself, so that {len(spec.images)} of "
            f"{len(spec.images)} evaluated images are calibration images; name a calibration of other images with "
            "--calibration"
        )
    backbone = open_backbone(cache, spec, weights)
    if weights is None and spec.facts.get("weights_file") is not None:
        listener.message(f"weights: {spec.facts['weights_file']}, which {cache} names")
    calibrations = Calibrations(reader, calibration, listener)
    described = {}
    for edit in dict.fromkeys(edits):
        edit.check(CacheSources(reader, calibrations.maker(edit)))
        described[edit] = calibrations.describe(edit, refuse_overlap=no_overlap) if _draws(edit) else None
    resolved = resolve_device(device)
    arithmetic = Arithmetic(precision, compiled)
    arithmetic.check(resolved)
    environment = describe_environment(resolved)
    size = min(batch_size or default_batch_size(backbone, resolved), spec.block)
    digests = StateDigests(reader.path)

    runs: dict[Edit, Run] = {}
    # Late starts first: blocks that were placed on the device for an early start stay there.
    distinct = sorted(dict.fromkeys(edits), key=lambda edit: -edit.from_layer)
    for from_layer, group in groupby(distinct, key=lambda edit: edit.from_layer):
        kept = tuple(range(from_layer, depth + 1)) if keep == "all" else named or (depth,)
        backbone.place(resolved, first_block=from_layer, embedding=False)
        if compiled:
            compile_blocks(backbone, from_layer)
        certificate = certify(backbone, reader, from_layer, resolved, token_types=types, arithmetic=arithmetic)
        arms, facts, unfinished = [], [], []
        for edit in group:
            read = describe_reading(edit, spec, digests, described[edit])
            arm = _open_arm(reader, edit, kept, types, calibrations, certificate, arithmetic, read)
            lacking = arm.writer.pending(kept, types)  # a block may be lost, or discarded by a repair
            finished = bool(arm.writer.spec.facts.get("finished")) and not lacking and not arm.stale
            stored = arm.writer.spec.facts.get("certificate", certificate) if finished else certificate
            runs[edit] = Run(arm.path, edit, stored, reused=finished, seconds=0.0)
            if not finished:
                arms.append(arm)
                facts.append({"calibration": described[edit]})
                unfinished.append(edit)
        if arms:
            started = time.monotonic()
            halving = Halving(size, listener)
            with ExitStack() as held:
                for arm in arms:
                    held.enter_context(lock(arm.path, "replay"))
                    if arm.stale:
                        listener.message(
                            f"{arm.path.name} was made from other values than {reader.path} or its calibration holds "
                            "now; it is replayed anew"
                        )
                        arm.start_over()
                replay_arms(
                    backbone, reader, arms, kept, types,
                    device=resolved, arithmetic=arithmetic, batch_size=size, halving=halving,
                    events=listener,
                )  # fmt: skip
                seconds = time.monotonic() - started
                for arm, own in zip(arms, facts, strict=True):
                    arm.finish(
                        {
                            **own,
                            "certificate": certificate,
                            "environment": environment,
                            "batch_size": size,
                            **halving.facts,
                            "seconds": seconds,
                        }
                    )
            for edit in unfinished:
                runs[edit] = replace(runs[edit], seconds=seconds)
    return [runs[edit] for edit in edits]


def compile_blocks(backbone: Backbone, first_block: int) -> None:
    """Have blocks compiled when they are first called; lengths of batches may differ."""
    for block in backbone.model.blocks[first_block:]:
        block.compile(dynamic=True)


def require_cache(spec: StoreSpec, path: str | Path) -> None:
    """Raise `InvalidEditError` for a store that is no cache: edited tokens are neither replayed nor natural."""
    if spec.kind != "cache":
        raise InvalidEditError(f"{path} is a {spec.kind}, not a cache; name the cache that it was made from")


def kept_types(spec: StoreSpec, wanted: Iterable[str] | None) -> tuple[str, ...]:
    """Token types to store, in storage order. Raises `InvalidEditError` naming those that the cache does not hold."""
    if wanted is None:
        return spec.token_types
    chosen = set(wanted)
    absent = sorted(chosen - set(spec.token_types))
    if absent or not chosen:
        raise InvalidEditError(
            f"--keep-tokens {', '.join(absent) or '(none)'}: the cache holds {', '.join(spec.token_types)}; "
            "choose among these"
        )
    return tuple(name for name in spec.token_types if name in chosen)


def _draws(edit: Edit) -> bool:
    """Whether a calibration plays a part: as what is drawn from, or as what distances are measured against."""
    return edit.build().kind in ("values", "add")


def _check_states(
    reader: StoreReader, edits: Sequence[Edit], keep: Sequence[int], depth: int, *, own_calibration: bool
) -> None:
    """Refuse all at once what the cache cannot serve."""
    if not edits:
        raise InvalidEditError("no edit was named; name at least one replacement with --ablation")
    for edit in edits:
        edit.edited_layers(depth)
        edit.parsed_target().check(reader.spec.layout)
    beyond = [layer for layer in keep if not 0 <= layer <= depth]
    early = [
        f"{layer} (edited from state {edit.from_layer} on)"
        for edit in dict.fromkeys(edits)
        for layer in keep
        if layer < edit.from_layer
    ]
    if beyond:
        raise InvalidEditError(f"--keep {', '.join(map(str, beyond))}: the cache has states 0 to {depth}")
    if early:
        raise InvalidEditError(f"--keep {', '.join(early)}: a run holds states from its first edited one on")
    missing: dict[str, set[int]] = {}
    for edit in edits:
        for name, wanted in states_read(edit, reader.spec, own_calibration=own_calibration).items():
            held = reader.coverage(name) if name in reader.spec.token_types else ()
            missing.setdefault(name, set()).update(wanted - set(held))
    lacking = [f"  {name}: states {', '.join(map(str, sorted(layers)))}" for name, layers in missing.items() if layers]
    if lacking:
        listing = "\n".join(lacking)
        raise IncompleteError(
            f"{reader.path} does not hold all states that these edits need:\n{listing}\n"
            "extract them into the same cache with --layers and --tokens (sustained edits that draw on the cache need "
            "every edited state), or edit one state with --once"
        )


def _open_arm(
    reader: StoreReader,
    edit: Edit,
    keep: Sequence[int],
    token_types: tuple[str, ...],
    calibrations: Calibrations,
    certificate: dict[str, Any],
    arithmetic: Arithmetic,
    read: dict[str, Any],
) -> Arm:
    """The run store of an edit, created where it is not there yet; its name holds the key's digest, so none collide."""
    sources = CacheSources(reader, calibrations.maker(edit))
    spec = reader.spec
    key = run_key(reader, edit, sources, keep, token_types, calibrations, arithmetic)
    path = places.runs_directory(reader.path) / f"{edit.slug}.{key_digest(key)[:8]}.zarr"
    if not (path / "zarr.json").is_file():
        facts = {
            "cache": reader.path.name,
            "depth": spec.layers[-1],
            "oracle": edit.build().oracle,
            "certificate": certificate,
            "storage_error": spec.facts.get("storage_error"),
            "read": read,
        }
        create(path, replace(spec, kind="run", key=key, facts=facts, layers=tuple(keep), token_types=token_types))
    writer = StoreWriter(path)
    different = differences(key, writer.spec.key)
    if different:
        raise KeyMismatchError(f"{path} holds another run: {'; '.join(different)}; remove it, then replay again")
    return Arm(edit, sources, path, writer, certificate, read, lambda: calibrations.meter(edit))


def run_key(
    reader: StoreReader,
    edit: Edit,
    sources: CacheSources,
    keep: Sequence[int],
    token_types: Sequence[str],
    calibrations: Calibrations,
    arithmetic: Arithmetic,
) -> dict[str, Any]:
    """The key of the run of an edit: all that its values depend on, but the values of the cache themselves."""
    spec, replacement = reader.spec, edit.build()
    return {
        "cache": key_digest(spec.key),
        "images": image_digest(spec.images),
        "edit": edit.to_json(),
        "drawn_from": replacement.key_parts(sources, edit),
        "measured_against": calibrations.for_edit(edit).digest if _draws(edit) else None,
        "labels": key_digest({"label": spec.images.label}) if "labels" in replacement.needs else None,
        "keep": list(keep),
        "keep_tokens": list(token_types),
        **arithmetic.key_parts,
    }
