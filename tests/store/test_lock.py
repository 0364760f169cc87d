from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from cachetool.errors import StoreError
from cachetool.store import create, lock


@pytest.fixture
def path(tmp_path, example):
    create(tmp_path / "a.zarr", example.spec)
    return tmp_path / "a.zarr"


@pytest.mark.parametrize(
    ("held", "wanted", "refused"),
    [
        ("extract", "extract", True),
        ("extract", "extract-part-1-of-2", True),
        ("extract-part-1-of-2", "extract", True),
        ("extract-part-1-of-2", "extract-part-1-of-2", True),
        ("extract-part-1-of-2", "extract-part-2-of-2", False),
        ("extract-part-1-of-2", "extract-part-2-of-3", True),
        ("extract", "verify", False),
    ],
)
def test_which_locks_exclude_each_other(path, held, wanted, refused) -> None:
    with lock(path, held):
        if refused:
            with pytest.raises(StoreError, match=f"{held}: process "), lock(path, wanted):
                pass
        else:
            with lock(path, wanted):
                pass
    with lock(path, wanted):
        pass
    assert not list(path.rglob("*.lock"))


def test_the_lock_of_a_dead_process_is_taken_over(path) -> None:
    script = "import os, sys; from cachetool.store import lock\nwith lock(sys.argv[1], 'extract'): os._exit(1)"
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert len(list(path.rglob("*.lock"))) == 1
    with lock(path, "extract"):
        pass


def test_the_lock_of_another_host_is_respected_and_named(path) -> None:
    folder = path / ".cachetool" / "locks"
    folder.mkdir()
    owner = {"name": "extract", "host": f"not-{socket.gethostname()}", "process": 1, "since": "2020-01-01T00:00:00"}
    (folder / "extract.lock").write_text(json.dumps(owner))
    with pytest.raises(StoreError, match=r"process 1 on not-.*remove its lock file"), lock(path, "extract"):
        pass
    (folder / "extract.lock").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"), lock(path, "extract"):
        pass
