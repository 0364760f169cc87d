"""A kill between any two steps loses no finished block, and the store ends as if nothing had happened."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cachetool.errors import StoreError
from cachetool.store import StoreReader, StoreWriter, check_block, create, extend
from cachetool.tokens import TokenLayout


class KilledError(BaseException):
    """Stands for the end of the process: nothing that the code does afterwards has an effect."""


class Killer:
    """Lets a number of steps on disk pass, then fails each, those that would clean up included."""

    def __init__(self, monkeypatch) -> None:
        self._patch = monkeypatch
        self.steps = 0
        self.allowed = 0

    def __enter__(self) -> Killer:
        self.steps = 0
        for owner, name in [
            *((os, name) for name in ("write", "fsync", "open", "mkdir", "rename", "replace", "unlink", "link")),
            *((Path, name) for name in ("replace", "rename", "unlink", "mkdir")),
        ]:
            self._patch.setattr(owner, name, self._step(getattr(owner, name)))
        return self

    def _step(self, function):
        def step(*arguments, **options):
            self.steps += 1
            if self.steps > self.allowed:
                raise KilledError
            return function(*arguments, **options)

        return step

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


def killed_after(monkeypatch, steps: int, action) -> bool:
    """Run an action that is killed after some steps; returns whether it came to its end before."""
    killer = Killer(monkeypatch)
    killer.allowed = steps
    try:
        with killer:
            action()
    except KilledError:
        return False
    return True


def modified(path: Path, block: int) -> dict[str, int]:
    return {file.as_posix(): file.stat().st_mtime_ns for file in path.glob(f"*/c.{block}.*")}


def test_a_kill_while_writing_new_blocks(tmp_path, kit, monkeypatch, request) -> None:
    example = kit.make_example(images=5, block=4, layers=(0, 1))
    expected = kit.tree(example.make(tmp_path / "expected.zarr"))
    path = tmp_path / "a.zarr"
    for steps in range(1000):
        create(path, example.spec)
        StoreWriter(path).write_block(0, example.arrays(0, (0, 1), example.spec.token_types, 5), (0, 1))
        before = modified(path, 0)
        arrays = example.arrays(1, (0, 1), example.spec.token_types, 5)
        writer = StoreWriter(path)
        finished = killed_after(monkeypatch, steps, lambda: writer.write_block(1, arrays, (0, 1)))  # noqa: B023
        reader = StoreReader(path)
        reader.read_state(1, 0, 4)
        assert reader.complete[0].all()
        monkeypatch.setattr("cachetool.store.atomic.process_alive", lambda process: False)
        assert example.fill(path) <= 1
        monkeypatch.undo()
        assert modified(path, 0) == before
        assert kit.tree(path) == expected
        path.rename(tmp_path / f"{steps}.zarr")
        if finished:
            break
    assert steps > 20


def test_a_kill_while_adding_states_to_a_finished_block(tmp_path, kit, monkeypatch) -> None:
    example = kit.make_example(images=2, block=2, layers=(0, 1))
    types = example.spec.token_types
    expected = kit.tree(example.make(tmp_path / "expected.zarr"))
    for steps in range(1000):
        path = tmp_path / f"{steps}.zarr"
        create(path, example.spec)
        example.fill(path, [1])
        writer, arrays = StoreWriter(path), example.arrays(0, [0], types, 2)
        finished = killed_after(monkeypatch, steps, lambda: writer.write_block(0, arrays, [0]))  # noqa: B023
        assert 1 in StoreReader(path).coverage("patches")
        example.check(path, layers=[1])
        assert StoreWriter(path).pending([1], types) == []
        monkeypatch.setattr("cachetool.store.atomic.process_alive", lambda process: False)
        example.fill(path, [0])
        monkeypatch.undo()
        assert kit.tree(path) == expected
        if finished:
            break
    assert steps > 20


@pytest.mark.slow
def test_a_kill_while_adding_images(tmp_path, kit, monkeypatch) -> None:
    example = kit.make_example(TokenLayout(1, 0, 1, 1), images=4, block=2, layers=(0,))
    expected = kit.tree(example.make(tmp_path / "expected.zarr"))
    for steps in range(1000):
        path = tmp_path / f"{steps}.zarr"
        create(path, replace(example.spec, images=kit.image_table(3), token_types=("cls",)))
        example.fill(path, token_types=["cls"])
        grow = lambda: extend(path, images=example.spec.images, token_types=["patches"])  # noqa: B023, E731
        finished = killed_after(monkeypatch, steps, grow)
        assert StoreReader(path).complete[0, 0].all()
        if len(StoreReader(path).images) == 3:
            StoreWriter(path)
            assert check_block(path, 1) == []
            example.check(path, images=3)
        grow()
        monkeypatch.setattr("cachetool.store.atomic.process_alive", lambda process: False)
        example.fill(path)
        monkeypatch.undo()
        assert {k: v for k, v in kit.tree(path).items() if k != ".cachetool/blocks/0000000.json"} == {
            k: v for k, v in expected.items() if k != ".cachetool/blocks/0000000.json"
        }
        if finished:
            break
    assert steps > 20


@pytest.mark.parametrize(
    ("code", "text"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.ENOENT, "its folder is gone")],
)
@pytest.mark.parametrize("step", ["write", "fsync", "open"])
def test_a_failing_disk_leaves_a_block_as_it_was(tmp_path, kit, example, monkeypatch, code, text, step) -> None:
    path = tmp_path / "a.zarr"
    create(path, example.spec)
    example.fill(path, [1])
    writer, arrays = StoreWriter(path), example.arrays(0, [0], ["patches"], 10)
    before = kit.tree(path)

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StoreError, match=text):
        writer.write_block(0, arrays, [0])
    monkeypatch.undo()
    assert kit.tree(path) == before


WORK = """
import sys
import numpy as np
from cachetool.store import StoreWriter
writer = StoreWriter(sys.argv[1])
spec = writer.spec
for block in writer.pending(spec.layers, spec.token_types):
    images = len(spec.geometry.block_range(block))
    writer.write_block(block, {"patches": np.full((2, images, 64, 256), block, np.float16)}, spec.layers)
    print(block, flush=True)
"""


def test_a_process_killed_at_random_moments(tmp_path, kit) -> None:
    example = kit.make_example(TokenLayout(0, 0, 8, 8), images=300, channels=256, layers=(0, 1), block=4)
    path = tmp_path / "a.zarr"
    create(path, example.spec)
    finished: list[int] = []
    for delay in (0.01, 0.03, 0.05):
        process = subprocess.Popen([sys.executable, "-c", WORK, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        finished.append(int(process.stdout.readline()))
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        finished += [int(line) for line in process.stdout.read().split()]
        process.wait()
        process.stdout.close()
        pending = StoreWriter(path).pending((0, 1), ["patches"])
        assert not set(finished) & set(pending)
        assert not list(path.rglob("*.partial-*"))
        reader = StoreReader(path)
        for block in set(range(75)) - set(pending):
            assert (reader.read("patches", 1, 4 * block, 4 * block + 4) == block).all()
            assert check_block(path, block) == []
    assert len(set(finished)) == len(finished)
