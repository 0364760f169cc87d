"""Two workers, one killed, on a root in an object store: a cache and a study as one process makes them on a disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COMMAND = """
import cachetool.extraction.request as request
request.default_block = lambda *arguments: 16
from cachetool.cli import main
main()
"""
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


def start(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    (folder / "small.toml").write_text(STUDY)
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=900)
    assert process.returncode == 0, text
    return text


def kill_one_worker(process: subprocess.Popen[str], store: Any) -> None:
    """Half-way: when some blocks of a store are there."""
    while len(list((store / ".cachetool" / "blocks").iterdir())) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    next(child for child in children if "spawn_main" in str(child.cmdline())).kill()


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
    disk = tmp_path / "one" / "activations"
    for command in (EXTRACT, ("study", "small.toml", "--no-figures")):
        finish(start((*command, "--root", str(disk)), tmp_path / "one"))
        process = start((*command, "--root", str(object_root), "--cluster", "local:2"), tmp_path / "two")
        dataset = "shapes" if command is EXTRACT else "shapes-train"
        kill_one_worker(process, object_root / dataset / "tiny-reg.zarr")
        assert "lost worker" in finish(process)
    found, expected = contents(object_root), contents(disk)
    assert len(expected) > 150
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    one, two = (tmp_path / name / "studies" / "small" / "table.csv" for name in ("one", "two"))
    assert len(one.read_text().splitlines()) > 5
    assert two.read_bytes() == one.read_bytes()
