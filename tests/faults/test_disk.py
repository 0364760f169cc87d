"""A disk that is full, read-only or gone, also in the middle: what is finished stays, and the command goes on later.

The disk is a small one in memory; where it cannot be mounted, which takes the superuser, its tests are skipped.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachetool.store import StoreReader, check_block
from tests.faults.commands import EXTRACT, count, locks, records, run, start, succeed

TIMES = count("CACHETOOL_FULL_DISKS", 3)
COMMANDS: dict[str, tuple[object, ...]] = {
    "extract": EXTRACT,
    "replay": ("replay", "--ablation", "shuffle", "--from-layer", "9", "--keep", "all"),
    "calibrate": ("calibrate", "--layers", "6-8"),
    "evaluate": ("evaluate", "--task", "retrieval"),
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Leave some bytes free."""
    filler = disk / "filler"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    filler.write_bytes(bytes(max(free - leave, 0)))
    return filler


def files(root: Path) -> dict[str, bytes]:
    """All files; of documents, which hold times, only that they are there."""
    found = (file for file in root.rglob("*") if file.is_file() and file.name != "guard")
    return {file.relative_to(root).as_posix(): b"" if file.suffix == ".json" else file.read_bytes() for file in found}


@pytest.fixture
def before(name: str, extracted: Path, replayed: Path, tmp_path: Path) -> Path:
    """A root as the command finds it; to be copied."""
    return {"extract": tmp_path / "nothing", "evaluate": replayed}.get(name, extracted)


def begin(root: Path, before: Path) -> None:
    if before.exists():
        shutil.copytree(before, root)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk(name: str, disk: Path, before: Path, tmp_path: Path) -> None:
    arguments = (*COMMANDS[name], "--root")
    whole = tmp_path / "whole"
    begin(whole, before)
    succeed((*arguments, whole), tmp_path)
    expected = files(whole)
    needed = sum(map(len, expected.values())) - sum(map(len, files(before).values()))
    amounts = random.Random(name)
    refused = 0
    for _ in range(TIMES):
        root = disk / "root"
        begin(root, before)
        filler = fill(disk, amounts.randrange(needed))
        command = run((*arguments, root), tmp_path)
        assert command.process.exitcode in (0, 2), command.text
        assert "Traceback" not in command.text
        if command.process.exitcode:
            refused += 1
            assert "disk is full" in command.text or "No space left" in command.text, command.text
            assert "again" in command.text
        assert not list(root.rglob("*partial*"))
        assert not list(root.rglob("*.lock"))
        cache = root / "shapes" / "tiny-reg.zarr"
        if (cache / "zarr.json").is_file():
            finished = StoreReader(cache).complete.all(axis=(1, 2)).nonzero()[0]
            assert all(check_block(cache, int(block)) == [] for block in finished)
        filler.unlink()
        succeed((*arguments, root), tmp_path)
        assert files(root) == expected
        shutil.rmtree(root)
    print(f"{name}: {refused} of {TIMES} met a full disk")
    assert refused


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_disk(name: str, disk: Path, before: Path, tmp_path: Path) -> None:
    begin(disk / "root", before)
    found = files(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    command = run((*COMMANDS[name], "--root", disk / "root"), tmp_path)
    assert command.process.exitcode == 2, command.text
    assert "ead-only" in command.text
    assert "Traceback" not in command.text
    assert files(disk) == found
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    succeed((*COMMANDS[name], "--root", disk / "root"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extract", "replay"])
@pytest.mark.parametrize("blocks", [0, 2])
def test_a_folder_that_goes_away_and_comes_back(name: str, blocks: int, before: Path, tmp_path: Path) -> None:
    root, away = tmp_path / "root", tmp_path / "away"
    begin(root, before)
    done = len(records(root))
    command = start((*COMMANDS[name], "--root", root), tmp_path)
    while len(records(root)) < done + blocks or not locks(root):
        assert command.process.is_alive(), command.text
        time.sleep(0.001)
    command.signal(signal.SIGSTOP)
    root.rename(away)
    command.signal(signal.SIGCONT)
    assert command.wait() == 2, command.text
    assert "Traceback" not in command.text
    assert str(root) in command.text.replace("\n", "")
    assert not root.exists()
    kept = {record: record.stat().st_mtime_ns for record in records(away)}
    away.rename(root)
    succeed((*COMMANDS[name], "--root", root), tmp_path)
    assert all((root / record.relative_to(away)).stat().st_mtime_ns == moment for record, moment in kept.items())
    assert not list(root.rglob("*partial*"))
    assert not list(root.rglob("*.lock"))
