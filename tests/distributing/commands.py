"""Commands as processes of their own with blocks of 16 images, and a driver that waits while a test acts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import cachetool.extraction.request as request
request.default_block = lambda *arguments: 16
from cachetool.cli import main
main()
"""
"""Tests that are begun in the background ignore Ctrl-C, which a child inherits."""
HELD = """
import contextlib, pathlib, time
from cachetool.distributing import cluster
cluster.AHEAD = 4
each = cluster.Cluster.each
def held(self, job, *arguments):
    with contextlib.closing(each(self, job, *arguments)) as outcomes:
        for outcome in outcomes:
            while any(STORE in str(path) for path, _owner in job.locks) and not pathlib.Path("go on").exists():
                time.sleep(0.05)
            yield outcome
cluster.Cluster.each = held
"""
"""The driver keeps its first outcome of a job that writes a store back until it may go on: two workers cannot be given
more than 8 blocks meanwhile, and it cannot be done."""


def start(arguments: Sequence[str], folder: Path, hold: str | None = None) -> subprocess.Popen[str]:
    """A command in a folder of its own, in a process group of its own.

    Its driver is held in jobs that write stores with `hold` in their paths, until `go_on`.
    """
    folder.mkdir(exist_ok=True)
    (folder / "go on").unlink(missing_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("CACHETOOL_ROOT", None)
    before = "" if hold is None else HELD.replace("STORE", repr(hold))
    return subprocess.Popen(
        [sys.executable, "-c", before + COMMAND, *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def go_on(folder: Path) -> None:
    (folder / "go on").touch()


def finish(process: subprocess.Popen[str]) -> str:
    """What a command that succeeds printed."""
    text, _ = process.communicate(timeout=900)
    assert process.returncode == 0, text
    return text


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for what a command that still runs will do."""
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def worker_processes(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    return [
        child for child in psutil.Process(driver.pid).children(recursive=True) if "spawn_main" in str(child.cmdline())
    ]


def kill_one_worker(driver: subprocess.Popen[str]) -> None:
    """End a worker at once, and wait until the driver knows."""
    worker = worker_processes(driver)[0]
    worker.kill()
    worker.wait(60)
