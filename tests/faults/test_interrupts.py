"""Ctrl-C once and twice: finished blocks are kept, exit code 130, no traceback, nothing left behind."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from cachetool.store import StoreReader
from tests.faults.commands import count, locks, records, start, succeed

INTERRUPTS = count("CACHETOOL_INTERRUPTS", 4)
EXTRACT = ("extract", "tiny-reg", "shapes", "--limit", "42", "--workers", "1", "--root")
REPLAY = ("replay", "--ablation", "zero", "--ablation", "shuffle", "--from-layer", "1", "--keep", "all", "--root")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the whole cache; to be copied."""
    folder = tmp_path_factory.mktemp("whole")
    succeed((*EXTRACT, folder / "root"), folder)
    return folder / "root"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("presses", [1, 2, 3])
@pytest.mark.parametrize("name", ["extract", "replay"])
def test_interrupted(name: str, presses: int, whole: Path, tmp_path: Path) -> None:
    moments = random.Random(presses)
    interrupted = 0
    for attempt in range(INTERRUPTS // 2):
        root = tmp_path / str(attempt)
        if name == "replay":
            shutil.copytree(whole, root)
        before = records(root)
        arguments = (*(EXTRACT if name == "extract" else REPLAY), root)
        command = start(arguments, tmp_path)
        wanted = moments.randrange(4)
        while command.process.is_alive() and len(records(root) - before) < wanted:
            time.sleep(0.002)
        while not locks(root) and command.process.is_alive():
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        kept = records(root)
        for _ in range(presses):
            command.signal(signal.SIGINT)
            time.sleep(moments.uniform(0, 0.05))
        status = command.wait()
        assert "Traceback" not in command.text
        assert status in (0, 130), command.text
        interrupted += status == 130
        if status == 130:
            assert "interrupted: finished blocks are kept" in command.text
        assert kept <= records(root)
        assert not list(root.rglob("*partial*"))
        assert not list(root.rglob("*.lock"))
        times = {record: record.stat().st_mtime_ns for record in records(root)}
        succeed(arguments, tmp_path)
        assert all(record.stat().st_mtime_ns == moment for record, moment in times.items())
        assert all(StoreReader(path.parent).complete.all() for path in root.glob("shapes/**/.cachetool"))
    print(f"{name}, Ctrl-C {presses} times: {interrupted} of {INTERRUPTS // 2} interrupted before the end")
    assert interrupted
