"""Two workers, one killed, on a root in an object store: a cache and a study as one process makes them on a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distributing.commands import finish, go_on, kill_one_worker, start, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

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


def test_a_cache_and_a_study_with_a_killed_worker(object_root: Any, tmp_path: Path) -> None:
    here, there = tmp_path / "one", tmp_path / "two"
    disk = here / "activations"
    for folder in (here, there):
        folder.mkdir()
        (folder / "small.toml").write_text(STUDY)
    for command in (EXTRACT, ("study", "small.toml", "--no-figures")):
        finish(start((*command, "--root", str(disk)), here))
        cache = "shapes/tiny-reg.zarr" if command is EXTRACT else "shapes-train/tiny-reg.zarr"
        process = start((*command, "--root", str(object_root), "--cluster", "local:2"), there, cache)
        records = object_root / cache / ".cachetool" / "blocks"
        wait_until(lambda records=records: len(list(records.iterdir())) >= 2, process)
        kill_one_worker(process)
        go_on(there)
        assert "lost worker" in finish(process)
    found, expected = contents(object_root), contents(disk)
    assert len(expected) > 150
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    one, two = (folder / "studies" / "small" / "table.csv" for folder in (here, there))
    assert len(one.read_text().splitlines()) > 5
    assert two.read_bytes() == one.read_bytes()
