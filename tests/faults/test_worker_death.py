"""A process that decodes images is killed: the command says so and what to do, keeps what is finished, and goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from cachetool.store import StoreReader
from tests.faults.commands import count, records, start, succeed

DEATHS = count("CACHETOOL_DEATHS", 3)
IMAGES = 62


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_worker_is_killed(tmp_path: Path) -> None:
    for attempt in range(DEATHS):
        root = tmp_path / str(attempt)
        arguments = (
            "extract", "tiny-reg", "shapes", "--limit", IMAGES, "--workers", "2", "--batch-size", "2", "--root", root
        )  # fmt: skip
        command = start(arguments, tmp_path)
        while command.process.is_alive() and len(records(root)) < 1 + attempt % 3:
            time.sleep(0.002)
        assert command.process.pid is not None
        workers = psutil.Process(command.process.pid).children()
        assert workers, command.text
        os.kill(workers[attempt % len(workers)].pid, signal.SIGKILL)
        assert command.wait() == 2, command.text
        told = " ".join(command.text.split())
        assert "a process that decodes images of shapes died" in told
        assert "use fewer workers (2 now)" in told
        assert "Traceback" not in told
        kept = {record: record.stat().st_mtime_ns for record in records(root)}
        assert kept
        assert not list(root.rglob("*partial*"))
        assert not list(root.rglob("*.lock"))
        succeed(arguments, tmp_path)
        assert all(record.stat().st_mtime_ns == moment for record, moment in kept.items())
        assert StoreReader(root / "shapes" / "tiny-reg.zarr").complete.all()
    print(f"{DEATHS} workers killed")
