"""`kill -9` at random moments of an extraction: finished blocks stay as they are, the result is the same bytes."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.commands import count, start, succeed

IMAGES = 48
"""Twelve blocks: a kill should find several finished ones."""
KILLS = count("CACHETOOL_KILLS", 4)


def command(root: Path) -> tuple[object, ...]:
    return ("extract", "tiny-reg", "shapes", "--limit", IMAGES, "--workers", "1", "--root", root)


def finished_blocks(cache: Path) -> dict[str, tuple[int, ...]]:
    """Modification times of the shards of every block with a done record."""
    times = {}
    for record in sorted((cache / ".cachetool" / "blocks").glob("*.json")):
        files = json.loads(record.read_text())["files"]
        times[record.name] = tuple((cache / name).stat().st_mtime_ns for name in sorted(files))
    return times


def shard_bytes(cache: Path) -> dict[str, str]:
    """Digest of every shard of the token arrays and of the flags."""
    return {
        str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("cls", "registers", "patches", "complete")
        for path in (cache / name).glob("c.*")
    }


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_kill_at_random_moments(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    succeed(command(whole), tmp_path)
    expected = shard_bytes(whole / "shapes" / "tiny-reg.zarr")

    moments = random.Random(0)
    kills = rounds = 0
    while kills < KILLS:
        root = tmp_path / f"round-{rounds}"
        cache = root / "shapes" / "tiny-reg.zarr"
        done: dict[str, tuple[int, ...]] = {}
        while True:
            child = start(command(root), tmp_path)
            if kills < KILLS:
                # A moment is a number of finished blocks and a little more, so that it means the same on any machine.
                blocks = len(done) + moments.randrange(5)
                while child.process.is_alive() and len(finished_blocks(cache)) < blocks:
                    time.sleep(0.002)
                time.sleep(moments.uniform(0, 0.05))
                child.signal(signal.SIGKILL)
            status = child.wait()
            kills += status == -signal.SIGKILL
            now = finished_blocks(cache)
            assert done.items() <= now.items(), "a finished block was written again"
            done = now
            if status != -signal.SIGKILL:
                assert status == 0, child.text
                break
        assert shard_bytes(cache) == expected
        assert not list(cache.rglob("*partial*"))
        rounds += 1
    assert kills == KILLS
