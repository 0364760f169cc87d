"""Threads that read through one driver of fsspec at a time, and a fork between them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

from cachetool.objects import ObjectPath, filesystem
from tests.objects.failing import Failing


@pytest.mark.parametrize("together", [True, False])
def test_threads_take_turns_but_with_drivers_that_bear_several(
    one: ObjectPath, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    if together:
        monkeypatch.setattr(filesystem, "_SHARED", ("failing",))
    source, meeting, met = filesystem.FileSystem("failing", "host", ""), Barrier(2), list[bool]()

    def meet(what: str) -> None:
        try:
            meeting.wait(60 if together else 0.2)
            met.append(True)
        except BrokenBarrierError:
            met.append(False)

    source.head(one.key)
    Failing.fail = staticmethod(meet)
    with ThreadPoolExecutor(2) as pool:
        assert [bytes(found) for found in pool.map(source.get, [one.key] * 2)] == [b"0123456789"] * 2
    assert met == [together] * 2


def test_a_forked_process_waits_for_no_thread_of_its_parent(tmp_path: Path) -> None:
    """One that had its turn with the driver when the process was forked is not there to give it back."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one", b"0123456789")
    path = ObjectPath(f"zip://one::{tmp_path / 'a.zip'}")
    assert path.read_bytes() == b"0123456789"
    program = f"""
import os, signal
from cachetool.objects import ObjectPath
path = ObjectPath({str(path)!r})
with path.source._turn:
    if not (child := os.fork()):
        signal.alarm(20)
        os._exit(0 if path.read_bytes() == b"0123456789" else 1)
    assert os.waitpid(child, 0)[1] == 0
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
