"""All targets by the names that the command knows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from cachetool.edits.grammar import unknown_name
from tests.hostile.fuzzing import files, stores
from tests.hostile.fuzzing.target import Target

TARGETS: dict[str, Callable[[Path], Target]] = {
    "root": stores.root, "opened": stores.opened, "record": stores.record, "lock": stores.lock, "shard": stores.shard,
    "table": stores.table, "calibration": stores.calibration, "export": stores.export,
    "safetensors": files.safetensors, "pickle": files.pickled, "checkpoint": files.checkpoint, "image": files.image,
    "pairs": files.pairs, "tar": files.tar, "hdf5": files.hdf5, "results": files.results,
    "direction": files.direction, "study": files.study, "edit": files.edit,
}  # fmt: skip
"""What makes each target in an empty folder."""


def make(name: str, folder: Path) -> Target:
    """A target in an empty folder; a name that is none ends the command."""
    if name not in TARGETS:
        sys.exit(str(unknown_name("target", name, tuple(TARGETS))))
    return TARGETS[name](folder)
