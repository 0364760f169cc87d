"""Runs: what one is called and identified by, and its store, made where it is not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cachetool import places
from cachetool.arithmetic import Arithmetic
from cachetool.edits import Edit
from cachetool.errors import KeyMismatchError
from cachetool.images import image_digest
from cachetool.objects import Place
from cachetool.replaying.arm import Arm
from cachetool.replaying.calibrations import Calibrations
from cachetool.replaying.checks import draws
from cachetool.replaying.run_blocks import run_block
from cachetool.replaying.sources import CacheSources
from cachetool.store import StoreReader, StoreWriter, create, differences, key_digest


@dataclass(frozen=True)
class Run:
    """One edit replayed on one cache."""

    path: Place
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


def open_arm(
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
        block = run_block(spec, edit, keep)
        create(
            path,
            replace(spec, kind="run", key=key, facts=facts, layers=tuple(keep), token_types=token_types, block=block),
        )
    writer = StoreWriter(path)
    different = differences(key, writer.spec.key)
    if different:
        raise KeyMismatchError(f"{path} holds another run: {'; '.join(different)}; remove it, then replay again")
    return Arm(edit, sources, writer, lambda: calibrations.meter(edit))


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
        "measured_against": calibrations.for_edit(edit).digest if draws(edit) else None,
        "labels": key_digest({"label": spec.images.label}) if "labels" in replacement.needs else None,
        "keep": list(keep),
        "keep_tokens": list(token_types),
        **arithmetic.key_parts,
    }
