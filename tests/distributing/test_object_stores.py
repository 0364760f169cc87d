"""Two workers, one killed, on a root in an object store: a cache and a study as one process makes them on a disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.distributing.commands import finish, go_on, kill_one_worker, start, wait_until

pytestmark = pytest.mark.timeout(1800)

EXTRACT = ("extract", "tiny-reg", "shapes", "--limit", "160", "--workers", "1", "--layers", "6-12")
STUDY = """
name = "small"
resamples = 200
[calibration]
data = "shapes#calibration"
limit = 32
[[models]]
name = "tiny-reg"
[[data]]
evaluate = "shapes#val"
train = "shapes#train"
tasks = ["classification", "retrieval"]
limit = 48
train_limit = 48
[[edits]]
name = "registers replaced"
targets = ["registers"]
replacements = ["zero", "mean"]
from_layers = [6]
"""


def contents(root: Any) -> dict[str, bytes]:
    """Shards, tables and flags below a root by relative name; of other files that they are there."""
    if isinstance(root, Path):
        files = {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.is_file()}
    else:
        files = {file.key.removeprefix(f"{root.key}/"): file for file, _ in root.walk_objects()}
    told = ("zarr.json", ".nc", ".json")
    wanted = {name: file for name, file in files.items() if not name.endswith("guard")}
    return {name: b"" if name.endswith(told) else file.read_bytes() for name, file in sorted(wanted.items())}


def twice(command: Sequence[str], cache: str, root: Any, folder: Path) -> None:
    """A command by one process on a disk, and by two, one of them killed, on a root in an object store."""
    here, there = folder / "one", folder / "two"
    disk = here / "activations"
    for one in (here, there):
        one.mkdir()
        (one / "small.toml").write_text(STUDY)
    finish(start((*command, "--root", str(disk)), here))
    process = start((*command, "--root", str(root), "--cluster", "local:2"), there, cache)
    records = root / cache / ".cachetool" / "blocks"
    wait_until(lambda: len(list(records.iterdir())) >= 2, process)
    kill_one_worker(process)
    go_on(there)
    assert "lost worker" in finish(process)
    found, expected = contents(root), contents(disk)
    assert len(expected) > 70
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.slow
def test_a_cache_with_a_killed_worker(object_root: Any, tmp_path: Path) -> None:
    twice(EXTRACT, "shapes/tiny-reg.zarr", object_root, tmp_path)


@pytest.mark.exhaustive
def test_a_study_with_a_killed_worker(object_root: Any, tmp_path: Path) -> None:
    twice(("study", "small.toml", "--no-figures"), "shapes-train/tiny-reg.zarr", object_root, tmp_path)
    one, two = (tmp_path / name / "studies" / "small" / "table.csv" for name in ("one", "two"))
    assert len(one.read_text().splitlines()) > 5
    assert two.read_bytes() == one.read_bytes()
