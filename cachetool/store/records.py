"""Done records: which blocks are finished, with the size and checksum of every file they consist of.

A record is written after everything it vouches for is on disk, so it is the truth about a block; `complete` repeats it
for plain Zarr readers. When a finished block is written again with more states, its record first announces the new
files (`replacing`): until the last step, a file may be the old or the new one, and both hold what the record promises.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from cachetool.errors import DamagedError
from cachetool.objects import ObjectPath, Place
from cachetool.store.atomic import write_atomically
from cachetool.store.documents import is_integer, read_json, shown
from cachetool.store.format import PRIVATE, Geometry
from cachetool.store.mending import advice

_OBJECTS = ("layers", "files", "failed", "facts", "replacing")


@dataclass(frozen=True)
class FileFacts:
    """What a record says about one file."""

    bytes: int
    crc32c: int
    """CRC32C of the checksums in the file: `Shard.digest`."""
    states: Mapping[str, int] = field(default_factory=dict, compare=False)
    """The same of each state alone, by its number: `Shard.state_digest`. Compared on reading, and to tell
    whether values are still those that a run was made from."""


@dataclass(frozen=True)
class Record:
    """One finished block."""

    block: int
    first: int
    """Its first image."""
    last: int
    """One past its last image; fewer than a full block only at the end of the store."""
    layers: Mapping[str, tuple[int, ...]]
    """Finished states of each token type."""
    files: Mapping[str, FileFacts]
    """Its shards, by path relative to the store."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Why images could not be read, by image id."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    replacing: Mapping[str, FileFacts] = field(default_factory=dict)
    """New versions of files, which may have taken their place already."""

    def sizes(self, path: str) -> set[int]:
        """The sizes that a file of this block may have."""
        return {facts[path].bytes for facts in (self.files, self.replacing) if path in facts}

    def state_digests(self, path: str, layer: int) -> set[int]:
        """The digests that a state of a file may have; none where they were not recorded."""
        versions = [facts[path] for facts in (self.files, self.replacing) if path in facts]
        return {facts.states[str(layer)] for facts in versions if str(layer) in facts.states}

    def covers(self, geometry: Geometry) -> bool:
        """Whether the record speaks of the block as it is now: the last one changes when images are added."""
        images = geometry.block_range(self.block)
        return (self.first, self.last) == (images.start, images.stop)

    def to_json(self) -> bytes:
        """The record as it is stored."""
        document = {
            "block": self.block,
            "first": self.first,
            "last": self.last,
            "layers": {name: list(layers) for name, layers in self.layers.items()},
            "files": {path: vars(facts) for path, facts in self.files.items()},
            "failed": dict(self.failed),
            "facts": dict(self.facts),
        }
        if self.replacing:
            document["replacing"] = {path: vars(facts) for path, facts in self.replacing.items()}
        return json.dumps(document, indent=1, ensure_ascii=False).encode()


@overload
def records_folder(store: Path) -> Path: ...
@overload
def records_folder(store: ObjectPath) -> ObjectPath: ...
def records_folder(store: Place) -> Place:
    """The folder that holds the records of a store."""
    return store / PRIVATE / "blocks"


def record_path(store: Place, block: int) -> Place:
    """The file of one record."""
    return records_folder(store) / f"{block:07d}.json"


def write_record(store: Place, record: Record) -> None:
    """Write or replace a record atomically. Raises `StoreError`."""
    write_atomically(record_path(store, record.block), record.to_json())


def read_record(store: Place, block: int, geometry: Geometry) -> Record | None:
    """The record of a block, None where there is none.

    Raises `DamagedError` for one that cannot be read, or that speaks of what the store has no place for.
    """
    path = record_path(store, block)
    try:
        document = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if problems := _problems(document, block, geometry):
        raise DamagedError(f"{path} is damaged: {'; '.join(problems)}. {advice(path)}")
    return Record(
        block=document["block"],
        first=document["first"],
        last=document["last"],
        layers={name: tuple(layers) for name, layers in document["layers"].items()},
        files={name: FileFacts(**facts) for name, facts in document["files"].items()},
        failed=document["failed"],
        facts=document["facts"],
        replacing={name: FileFacts(**facts) for name, facts in document.get("replacing", {}).items()},
    )


def _problems(document: Mapping[str, Any], block: int, geometry: Geometry) -> list[str]:
    """What of a record is not as the format has it, or claims more than its files can hold."""
    first: Any = document.get("first")
    last: Any = document.get("last")
    parts = {"replacing": {}, **document}
    if document.get("block") != block or not (is_integer(first, 0, 2**48) and is_integer(last, 0, 2**48)):
        return [f"it must be of block {block}, and name its first and last image"]
    if wrong := [name for name in _OBJECTS if not isinstance(parts.get(name), Mapping)]:
        return [f"{name} must be an object, found {shown(parts.get(name))}" for name in wrong]
    # Shards have one name each, so that no other file is ever looked at.
    shards = {f"{name}/{geometry.array(name).chunk_key(block)}": name for name in geometry.token_types}
    problems = [
        f"{shown(name)} failed for a reason that is no text, but {shown(reason)}"
        for name, reason in parts["failed"].items()
        if not isinstance(reason, str)
    ]
    for name, layers in parts["layers"].items():
        known = isinstance(layers, list) and all(is_integer(layer, 0, 2**48) for layer in layers)
        if name not in geometry.token_types or not known or not set(layers) <= set(geometry.layers):
            problems.append(f"{shown(name)} cannot be finished at {shown(layers)}")
        elif layers and f"{name}/{geometry.array(name).chunk_key(block)}" not in parts["files"]:
            problems.append(f"{name} is finished, but no file is named that holds it")
    for which in ("files", "replacing"):
        for name, facts in parts[which].items():
            if name not in shards or not _are_facts(facts):
                problems.append(
                    f"{which} must name shards with bytes, crc32c and states, found {shown(name)}: {shown(facts)}"
                )
    if problems:
        return problems
    images = min(geometry.block, last - first) if last > first else 0
    for name, token_type in shards.items():
        least = geometry.shard_layout(token_type).shard_bytes(len(set(parts["layers"].get(token_type, ()))), images)
        if name in parts["files"] and parts["files"][name]["bytes"] < least:
            problems.append(f"{name} of {parts['files'][name]['bytes']} bytes cannot hold what takes {least}")
    return problems


def _are_facts(facts: Any) -> bool:
    if not isinstance(facts, Mapping) or not {"bytes", "crc32c"} <= set(facts) <= {"bytes", "crc32c", "states"}:
        return False
    states: Any = facts.get("states", {})
    numbers = [facts["bytes"], facts["crc32c"], *(states.values() if isinstance(states, Mapping) else [None])]
    return all(is_integer(number, 0, 2**63) for number in numbers)


def misfits(store: Place, record: Record) -> list[str]:
    """Files of a record that are missing or have another size, each as `PATH: expected ..., found ...`."""
    if isinstance(store, ObjectPath):
        found = {name: (store / name).found() for name in record.files}
        return [
            f"{name}: expected {facts.bytes} bytes, found {'no object' if one is None else one.size}"
            for name, facts in record.files.items()
            if (one := found[name]) is None or one.size not in record.sizes(name)
        ]
    problems = []
    for name, facts in record.files.items():
        try:
            status = (store / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            problems.append(f"{name}: expected {facts.bytes} bytes, found no file")
            continue
        if not stat.S_ISREG(status.st_mode):
            problems.append(f"{name}: expected a file, found a link, folder or pipe")
        elif status.st_size not in record.sizes(name):
            problems.append(f"{name}: expected {facts.bytes} bytes, found {status.st_size}")
    return problems
