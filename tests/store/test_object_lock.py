"""Locks in object stores: one of several has it, the dead lose it, and of other hosts nothing is presumed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath
from cachetool.store import create, holds, lock, object_lock
from cachetool.store.lock import Owner, exclusive, living_owners, remove_dead_locks
from cachetool.store.object_lock import gone, started

HERE = socket.gethostname()
DEAD = 2**22 + 1
"""Beyond the largest number that a process can have."""


@pytest.fixture
def path(object_root, example):
    create(object_root / "a.zarr", example.spec)
    return object_root / "a.zarr"


def held_by(path, name: str = "extract", /, **changes: object) -> None:
    owner = {"name": name, "host": HERE, "process": os.getpid(), "since": "2020-01-01T00:00:00", "shared": False}
    (path / ".cachetool" / "locks" / f"{name}.lock").put(json.dumps(owner | changes).encode())


@pytest.mark.parametrize(
    ("held", "wanted", "refused"),
    [
        ("extract", "extract", True),
        ("extract", "extract-part-1-of-2", True),
        ("extract-part-1-of-2", "extract-part-2-of-2", False),
    ],
)
def test_which_locks_exclude_each_other(path, held, wanted, refused) -> None:
    with lock(path, held) as owner:
        assert holds(path, owner)
        if refused:
            with pytest.raises(StoreError, match=f"{held}: process {os.getpid()} on {HERE}"), lock(path, wanted):
                pass
        else:
            with lock(path, wanted):
                pass
    assert not holds(path, owner)
    assert living_owners(path) == []


def test_the_lock_of_a_dead_process_is_taken_over(path) -> None:
    script = "import os, sys; from cachetool.store import lock\nwith lock(sys.argv[1], 'extract'): os._exit(1)"
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert len(list((path / ".cachetool" / "locks").iterdir())) == 1
    assert living_owners(path) == []
    with lock(path, "extract"):
        pass
    held_by(path, process=DEAD)
    remove_dead_locks(path)
    assert list((path / ".cachetool" / "locks").iterdir()) == []


def test_a_process_that_has_the_number_of_a_dead_one_is_another(path) -> None:
    here = started()
    assert here is not None
    system, _, ticks = here.rpartition(" ")
    assert not gone(os.getpid(), here)
    assert gone(os.getpid(), f"{system} {int(ticks) - 1}")
    assert gone(DEAD, f"{system} {ticks}")
    assert not gone(os.getpid(), f"another-boot 1 {ticks}"), "nothing is known of another system of this name"
    assert not gone(os.getpid(), None)
    assert gone(DEAD, None)
    child = subprocess.Popen([sys.executable, "-c", ""])
    for _ in range(1200):  # until it is a zombie
        time.sleep(0.05)
        if object_lock._start(child.pid) is None:
            break
    else:
        pytest.fail("a process that ended, and was not yet waited for, counts as living")
    assert gone(child.pid, f"{system} 1")
    child.wait()
    held_by(path, started=f"{system} {int(ticks) - 1}")
    with lock(path, "extract"):
        pass
    held_by(path, started=here)
    with pytest.raises(StoreError, match="Wait for it to end"), lock(path, "extract"):
        pass


@pytest.mark.parametrize("changes", [{"host": f"not-{HERE}"}, {"started": "another-boot 1 1"}])
def test_what_cannot_be_looked_up_is_respected_and_named(path, changes) -> None:
    held_by(path, **changes)
    with pytest.raises(StoreError, match=r"process .*remove its lock file in s3://"), lock(path, "extract"):
        pass
    remove_dead_locks(path)
    assert len(living_owners(path)) == 1
    (path / ".cachetool" / "locks" / "extract.lock").put(b"{")
    with pytest.raises(StoreError, match="cannot be read"), lock(path, "extract"):
        pass


def test_a_name_that_another_task_was_given_excludes_nobody_else(path) -> None:
    held_by(path, "extract", name="verify", host=f"not-{HERE}", process=7)
    with pytest.raises(StoreError, match=rf"\(verify: process 7 on not-{HERE} since 2020"), lock(path, "extract"):
        pass  # its object is there, though the lock in it would not exclude this one
    assert [owner.name for owner in living_owners(path)] == ["verify"]


def test_a_lock_that_somebody_else_has_taken_is_not_given_back(path) -> None:
    with lock(path, "extract"):
        held_by(path, host="elsewhere")
    assert [owner.host for owner in living_owners(path)] == ["elsewhere"]


def test_changes_follow_one_another(path) -> None:
    counter = path / "counter"
    counter.put(b"0")

    def count() -> None:
        for _ in range(3):
            with exclusive(path):
                counter.put(str(int(counter.read_text()) + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "12"
    assert not (path / ".cachetool" / "guard").is_file()


def test_the_guard_of_the_dead_is_taken_over_at_once_and_of_others_after_a_while(path, monkeypatch) -> None:
    guard = path / ".cachetool" / "guard"
    holder = {"host": HERE, "process": DEAD, "since": "", "started": started(), "token": "1"}
    guard.put(json.dumps(holder).encode())
    with exclusive(path):
        assert json.loads(guard.read_bytes())["process"] == os.getpid()
    assert not guard.is_file()
    monkeypatch.setattr(object_lock, "ABANDONED_SECONDS", 0.5)
    for content in (json.dumps(holder | {"host": "elsewhere"}).encode(), b"no document"):
        guard.put(content)
        began = time.monotonic()
        with exclusive(path):
            assert time.monotonic() - began >= 0.5
            time.sleep(0.3)  # so that it is looked at before it is given back
        assert not guard.is_file()
    monkeypatch.setattr(object_lock, "ABANDONED_SECONDS", 100.0)
    monkeypatch.setattr(object_lock, "PATIENCE_SECONDS", 0.3)
    guard.put(json.dumps(holder | {"host": "elsewhere"}).encode())
    with pytest.raises(StoreError, match=r"is being changed by others .*elsewhere.*remove s3://"), exclusive(path):
        pass


def test_locks_on_disks_do_not_say_when_their_process_started(tmp_path, example) -> None:
    create(tmp_path / "a.zarr", example.spec)
    with lock(tmp_path / "a.zarr", "extract") as owner:
        assert owner == Owner("extract", HERE, os.getpid(), owner.since)
        written = json.loads((tmp_path / "a.zarr" / ".cachetool" / "locks" / "extract.lock").read_text())
    assert sorted(written) == ["host", "name", "process", "shared", "since"]


def test_where_the_system_does_not_say_numbers_of_processes_have_to_do(monkeypatch) -> None:
    def silent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    here = started()
    monkeypatch.setattr(Path, "read_text", silent)
    object_lock._system.cache_clear()
    assert object_lock._system() is None
    assert started() is None
    assert not gone(DEAD, here), "it cannot be looked up here"
    assert gone(DEAD, None)
    assert not gone(os.getpid(), None)
    assert not object_lock.is_of_this_system(here)
    assert object_lock.is_of_this_system(None)
    monkeypatch.undo()
    object_lock._system.cache_clear()
    assert started() == here


def test_a_guard_that_goes_while_it_is_looked_at_is_free(path, monkeypatch) -> None:
    guard = path / ".cachetool" / "guard"
    guard.put(json.dumps({"host": "elsewhere", "process": 1, "started": None}).encode())
    original = ObjectPath.read_tagged

    def goes(self: ObjectPath) -> object:
        if b"elsewhere" in self.read_bytes():
            self.unlink()
        return original(self)

    monkeypatch.setattr(ObjectPath, "read_tagged", goes)
    with exclusive(path):
        assert json.loads(guard.read_bytes())["process"] == os.getpid()
    assert not guard.is_file()


def test_a_guard_that_was_lost_is_not_given_back(path) -> None:
    guard = path / ".cachetool" / "guard"
    with exclusive(path):
        guard.put(b"theirs")
    assert guard.read_bytes() == b"theirs"
    guard.unlink()
    with exclusive(path):
        guard.unlink()


def test_a_guard_says_whose_it_is(path, monkeypatch) -> None:
    guard = path / ".cachetool" / "guard"
    tokens = []
    for _ in range(2):
        with exclusive(path):
            holder = json.loads(guard.read_bytes())
        tokens.append(holder.pop("token"))
        age = datetime.now(UTC) - datetime.fromisoformat(holder.pop("since"))
        assert 0 <= age.total_seconds() < 60
        assert holder == {"host": HERE, "process": os.getpid(), "started": started()}
    assert tokens[0] != tokens[1], "two holders of one process are told apart"
    monkeypatch.setattr(object_lock, "PATIENCE_SECONDS", 0.0)
    theirs = json.dumps({"host": "elsewhere", "process": DEAD, "started": None}).encode()
    for content in (
        theirs,
        b"[]",
        b"{}",
        b'{"host": 1}',
        b"x" * 200 + b"y",
        json.dumps({"host": HERE, "process": "x"}).encode(),
    ):
        guard.put(content)
        named = re.escape(content[:200].decode())
        with pytest.raises(StoreError, match=rf"^{path} is being changed by others \({named}\)\."), exclusive(path):
            pass
        assert guard.read_bytes() == content


def test_the_start_of_a_process_of_any_name_is_known(tmp_path) -> None:
    program = tmp_path / os.fsdecode(b"a) Z \xff")
    program.symlink_to(Path(sys.executable).resolve())
    child = subprocess.Popen([program, "-I", "-S", "-c", "import time; time.sleep(600)"])
    try:
        began = object_lock._start(child.pid)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
    finally:
        child.kill()
        child.wait()
    assert began is not None
    assert 0 <= now - int(began) / os.sysconf("SC_CLK_TCK") < 60
    assert object_lock._start(child.pid) is None
