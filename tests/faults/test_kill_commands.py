"""`kill -9` of every command that writes, at random moments and at random steps on disk.

Whatever the moment: what is finished stays and reads as it should, nothing unfinished is read as data, and the same
command again ends with the files of an undisturbed one. `CACHETOOL_KILLS` says how often each command is killed.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cachetool.errors import DamagedError, IncompleteError
from cachetool.places import list_runs
from cachetool.store import StoreReader
from tests.faults.commands import EXTRACT, count, run, start, succeed

KILLS = count("CACHETOOL_KILLS", 4)
CACHE = Path("shapes/tiny-reg.zarr")


@dataclass(frozen=True)
class Case:
    """A command to be killed."""

    arguments: Sequence[object]
    """Without `--root DIRECTORY`, which comes last; `{root}` stands for it elsewhere."""
    made: str
    """Pattern of the files that it makes, below the root."""
    then: Sequence[Sequence[object]] = ()
    """Commands that finish the work once it was let through."""
    damages: bool = False
    """Whether blocks of the cache are damaged beforehand."""


CASES = {
    "extract": Case(EXTRACT, "shapes/tiny-reg.zarr/**/*"),
    "replay": Case(("replay", "--ablation", "shuffle", "--from-layer", "9", "--keep", "all"), "shapes/*.runs/**/*"),
    "calibrate": Case(("calibrate", "--layers", "6-8"), "shapes/*.calibrations/**/*"),
    "repair": Case(("verify", "--repair"), "shapes/tiny-reg.zarr/**/*", (EXTRACT,), damages=True),
    "evaluate": Case(("evaluate", "--task", "retrieval"), "shapes/*.outcomes/**/*"),
    "export": Case(("export", "shapes/tiny-reg", "{root}/cache.h5"), "cache.h5"),
}


def in_root(arguments: Sequence[object], root: Path) -> list[str]:
    """The arguments of a command on a root."""
    return [*(str(argument).replace("{root}", str(root)) for argument in arguments), "--root", str(root)]


def files(root: Path, pattern: str) -> dict[str, bytes]:
    """Files by path; of documents, which hold times and sizes of batches, only that they are there."""
    found = (file for file in root.glob(pattern) if file.is_file() and ".cachetool" not in file.parts)
    return {file.relative_to(root).as_posix(): b"" if file.name == "zarr.json" else file.read_bytes() for file in found}


def begin(root: Path, replayed: Path, case: Case) -> None:
    """The state of the disk before the command."""
    if case is CASES["extract"]:
        return
    shutil.copytree(replayed, root)
    if case.damages:
        for name in ("patches/c.1.0.0.0", "cls/c.3.0.0"):
            shard = root / CACHE / name
            data = bytearray(shard.read_bytes())
            data[len(data) // 3] ^= 16
            shard.write_bytes(data)


def sound(path: Path, expected: Path, *, may_be_damaged: bool) -> int:
    """Assert that what a store gives is what it should be; returns how many blocks are finished."""
    if not (path / "zarr.json").is_file():
        return 0
    reader, whole = StoreReader(path), StoreReader(expected)
    finished = 0
    for block in range(reader.spec.geometry.blocks):
        images = reader.spec.geometry.block_range(block)
        for name in reader.spec.token_types:
            for layer in reader.spec.layers:
                try:
                    found = reader.read(name, layer, images.start, images.stop)
                except IncompleteError:
                    continue
                except DamagedError:
                    assert may_be_damaged
                    continue
                wanted = whole.read(name, layer, images.start, images.stop)
                np.testing.assert_array_equal(found, wanted)
                finished += 1
    return finished


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_moment(name: str, replayed: Path, tmp_path: Path) -> None:
    case = CASES[name]
    whole = tmp_path / "whole"
    begin(whole, replayed, case)
    started = time.monotonic()
    run(in_root(case.arguments, whole), tmp_path)
    seconds = time.monotonic() - started
    steps = int((tmp_path / "steps").read_text())
    for command in case.then:
        succeed(in_root(command, whole), tmp_path)
    expected = files(whole, case.made)
    assert expected

    moments = random.Random(name)
    kills = rounds = 0
    while kills < KILLS:
        root = tmp_path / f"round-{rounds}"
        begin(root, replayed, case)
        finished = 0
        while True:
            die_at = moments.randrange(1, steps + 1) if kills % 2 and kills < KILLS else None
            command = start(in_root(case.arguments, root), tmp_path, die_at=die_at)
            if die_at is None and kills < KILLS:
                command.process.join(moments.uniform(0, seconds))
                command.signal(signal.SIGKILL)
            status = command.wait()
            if status == -signal.SIGKILL:
                kills += 1
            now = check(root, whole, case)
            assert now >= finished or case.damages, "a finished block was lost"
            finished = now
            if status != -signal.SIGKILL:
                assert status == 0 or "is there already" in command.text, command.text
                break
        for then in case.then:
            succeed(in_root(then, root), tmp_path)
        assert files(root, case.made) == expected
        assert not list(root.rglob("*partial*"))
        assert not list(root.rglob("*.lock"))
        shutil.rmtree(root)
        rounds += 1
    print(f"{name}: killed {kills} times in {rounds} rounds")


def check(root: Path, whole: Path, case: Case) -> int:
    """Assert that all stores below a root are as they should be; returns how much of them is finished."""
    finished = sound(root / CACHE, whole / CACHE, may_be_damaged=case.damages)
    for path in list_runs(root / CACHE):
        finished += sound(path, whole / path.relative_to(root), may_be_damaged=False)
    return finished
