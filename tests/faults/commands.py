"""`cachetool` commands in processes of their own that start at once and can be killed, interrupted or starved.

A server process imports everything once and forks a process for every command: importing torch for each of hundreds
would take hours.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.reference.quick import quick_load

BLOCK = 4
"""Images a block: a fault should find several finished ones."""

PRELOADED = "tests.faults.preloaded"
STEPS = ("write", "fsync", "open", "mkdir", "rename", "replace", "unlink", "link", "rmdir", "close")
"""Functions of `os` through which a store changes."""

STORES = ("*/*.zarr", "*/*.runs/*.zarr")

IMAGES = 22
EXTRACT = ("extract", "tiny-reg", "shapes", "--limit", IMAGES, "--workers", "0")
"""An extraction of six blocks, the last partly filled; `--root` is to follow."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([PRELOADED])


@dataclass
class Command:
    """A command at work, or done."""

    process: BaseProcess
    output: Path

    def wait(self, timeout: float = 120) -> int:
        """Its exit status; negative for a signal."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running: {self.text}"
        return self.process.exitcode

    def signal(self, number: int) -> None:
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)

    @property
    def text(self) -> str:
        """Standard output and error together."""
        return self.output.read_text()


def start(
    arguments: Sequence[object], folder: Path, *, die_at: int | None = None, prepare: Callable[[], None] | None = None
) -> Command:
    """Start `cachetool ARGUMENTS`; with `die_at` it kills itself with signal 9 at that step on disk.

    `prepare` is called in the new process before; the number of steps ends up in `folder/steps`.
    """
    output = folder / f"output-{time.monotonic_ns()}"
    process = _context.Process(
        target=_command, args=([str(argument) for argument in arguments], output, die_at, folder / "steps", prepare)
    )
    process.start()
    return Command(process, output)


def run(arguments: Sequence[object], folder: Path, **options: Any) -> Command:
    """Start a command and wait for its end."""
    command = start(arguments, folder, **options)
    command.wait()
    return command


def succeed(arguments: Sequence[object], folder: Path, **options: Any) -> Command:
    """Run a command that must end well."""
    command = run(arguments, folder, **options)
    assert command.process.exitcode == 0, command.text
    return command


def _command(
    arguments: list[str], output: Path, die_at: int | None, steps: Path, prepare: Callable[[], None] | None
) -> None:
    from cachetool.cli import main

    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    patch = pytest.MonkeyPatch()
    patch.setattr("cachetool.extraction.request.default_block", lambda *arguments: BLOCK)
    patch.setattr("cachetool.extraction.request.load", quick_load)
    patch.setattr("cachetool.replaying.model.load", quick_load)
    if prepare is not None:
        prepare()
    counter = _Counter(die_at)
    for name in STEPS:
        patch.setattr(os, name, counter.step(getattr(os, name)))
    sys.argv = ["cachetool", *arguments]
    try:
        main()
    finally:
        patch.undo()
        steps.write_text(str(counter.steps))


class _Counter:
    def __init__(self, die_at: int | None) -> None:
        self.steps = 0
        self._die_at = die_at

    def step(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.steps += 1
            if self.steps == self._die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return counted


def locks(root: Path) -> list[Path]:
    """Locks that are held below a root; folders that come and go meanwhile are not looked into."""
    return [file for stores in STORES for file in root.glob(f"{stores}/.cachetool/locks/*.lock")]


def records(root: Path) -> set[Path]:
    """Done records of all stores below a root."""
    return {file for stores in STORES for file in root.glob(f"{stores}/.cachetool/blocks/*.json")}


def count(name: str, usual: int) -> int:
    """How often to try: an environment variable raises it to hundreds."""
    return int(os.environ.get(name, usual))
