"""Done records: which blocks are finished, with the size and checksum of every file they consist of.

A record is written after everything it vouches for is on disk, so it is the truth about a block; `complete` repeats it
for plain Zarr readers. When a finished block is written again with more states, its record first announces the new
files (`replacing`): until the last step, a file may be the old or the new one, and both hold what the record promises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cachetool.errors import DamagedError
from cachetool.store.atomic import write_atomically
from cachetool.store.format import PRIVATE, Geometry


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


def records_folder(store: Path) -> Path:
    """The folder that holds the records of a store."""
    return store / PRIVATE / "blocks"


def record_path(store: Path, block: int) -> Path:
    """The file of one record."""
    return records_folder(store) / f"{block:07d}.json"


def write_record(store: Path, record: Record) -> None:
    """Write or replace a record atomically. Raises `StoreError`."""
    write_atomically(record_path(store, record.block), record.to_json())


def read_record(store: Path, block: int) -> Record | None:
    """The record of a block, None where there is none. Raises `DamagedError` for one that cannot be read."""
    path = record_path(store, block)
    try:
        document = json.loads(path.read_bytes())
        record = Record(
            block=document["block"],
            first=document["first"],
            last=document["last"],
            layers={name: tuple(layers) for name, layers in document["layers"].items()},
            files={name: FileFacts(**facts) for name, facts in document["files"].items()},
            failed=document["failed"],
            facts=document["facts"],
            replacing={name: FileFacts(**facts) for name, facts in document.get("replacing", {}).items()},
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged: {error!r}. Run `cachetool verify --repair`.") from error
    if record.block != block:
        raise DamagedError(f"{path} is the record of block {record.block}. Run `cachetool verify --repair`.")
    return record


def misfits(store: Path, record: Record) -> list[str]:
    """Files of a record that are missing or have another size, each as `PATH: expected ..., found ...`."""
    problems = []
    for name, facts in record.files.items():
        try:
            found = (store / name).stat().st_size
        except FileNotFoundError:
            problems.append(f"{name}: expected {facts.bytes} bytes, found no file")
            continue
        if found not in record.sizes(name):
            problems.append(f"{name}: expected {facts.bytes} bytes, found {found}")
    return problems
