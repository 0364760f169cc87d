from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cachetool.errors import StoreError
from cachetool.store import create, holds, lock, lock_path
from cachetool.store.documents import read_json
from cachetool.store.lock import Owner, exclusive, living_owners


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


HERE = socket.gethostname()
DEAD = 2**22 + 1
"""Beyond the largest number that a process can have."""


def held_by(path, name: str, /, **changes: object) -> Path:
    """Write a lock file as its owner would."""
    file = path / ".cachetool" / "locks" / f"{name}.lock"
    file.parent.mkdir(exist_ok=True)
    owner = {"name": name, "host": HERE, "process": os.getpid(), "since": "2020-01-01T00:00:00+00:00"} | changes
    file.write_text(json.dumps(owner))
    return file


def test_a_lock_says_who_holds_it(path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    with lock(path, "extract"):
        (owner,) = living_owners(path)
        assert (owner.name, owner.host, owner.process) == ("extract", HERE, os.getpid())
        assert before <= datetime.fromisoformat(owner.since) <= datetime.now(UTC)
        assert owner.age.startswith(" (")
        assert owner.age.endswith(" ago)")
        assert [file.name for file in (path / ".cachetool" / "locks").iterdir()] == ["extract.lock"]
    assert living_owners(path) == []


def test_a_lock_that_is_shared_is_held_by_whom_it_was_given_to_until_it_is_given_back(path) -> None:
    with lock(path, "extract", shared=True) as owner:
        assert owner.shared
        assert living_owners(path) == [owner]
        assert lock_path(path, owner) == path / ".cachetool" / "locks" / "extract.lock"
        assert holds(path, owner)
        assert not holds(path, replace(owner, process=owner.process + 1)), "taken over by another process"
        assert not holds(path, replace(owner, shared=False))
    assert not holds(path, owner)
    with lock(path, "extract") as alone:
        assert not alone.shared
        assert not holds(path, owner)


@pytest.mark.parametrize(
    ("since", "age"),
    [
        ((datetime.now(UTC) - timedelta(days=3, minutes=1)).isoformat(), " (3 days ago)"),
        ((datetime.now(UTC) + timedelta(days=3)).isoformat(), ""),
        ("yesterday", ""),
        ("2020-01-01T00:00:00", ""),
        (5, ""),
    ],
    ids=["3 days ago", "in 3 days", "no time", "without a zone", "a number"],
)
def test_how_long_ago_a_lock_was_taken(since, age) -> None:
    assert Owner("extract", HERE, 1, since).age == age


def test_an_owner_is_gone_only_where_that_is_known(path) -> None:
    unheld = held_by(path, "extract")
    assert Owner("extract", HERE, os.getpid(), "").gone(unheld), "its number belongs to another process by now"
    assert Owner("extract", HERE, os.getpid(), "").gone(path / "absent")
    assert not Owner("extract", "elsewhere", DEAD, "").gone(unheld)
    with unheld.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not Owner("extract", HERE, os.getpid(), "").gone(unheld)
        assert Owner("extract", HERE, DEAD, "").gone(unheld), "a child may hold what its dead parent took"
    assert Owner("extract", HERE, os.getpid(), "").gone(unheld), "looking does not take the lock"


def test_what_excludes_a_lock_is_named_and_all_of_it(path) -> None:
    for name, number in (("extract-part-1-of-2", 7), ("extract-part-2-of-2", 8), ("verify", 9)):
        held_by(path, name, host="elsewhere", process=number, since="2020-01-01T00:00:00+00:00")
    with pytest.raises(StoreError) as caught, lock(path, "extract"):
        pass
    text = str(caught.value)
    assert text.startswith(f"{path} is being written by another cachetool (extract-part-1-of-2: process 7 on elsewhere")
    assert "since 2020-01-01T00:00:00+00:00 (" in text
    assert "; extract-part-2-of-2: process 8 on elsewhere" in text
    assert "verify" not in text
    assert text.endswith(f"remove its lock file in {path / '.cachetool' / 'locks'}.")


def test_what_dead_processes_left_is_removed_whatever_its_name(path) -> None:
    dead = held_by(path, "replay", process=DEAD)
    left = dead.with_name(f"extract.lock.partial-elsewhere-{os.getpid()}")
    left.write_text("")
    with lock(path, "extract"):
        assert [file.name for file in dead.parent.iterdir()] == ["extract.lock"]


def test_a_name_that_another_task_was_given_excludes_nobody_else(path) -> None:
    held_by(path, "extract", name="verify", host="elsewhere")
    with pytest.raises(StoreError, match=r"being written by another cachetool \(verify: "), lock(path, "extract"):
        pass  # the file is taken, though the lock in it would not exclude this one
    assert [file.name for file in (path / ".cachetool" / "locks").iterdir()] == ["extract.lock"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process": 0}, r"it names no process, but Owner\(name="),
        ({"process": 2**31}, r"it names no process, but Owner\(name="),
        ({"process": True}, r"it names no process, but Owner\(name="),
        ({"host": 3}, r"it names no process, but Owner\(name="),
        ({"name": None}, r"it names no process, but Owner\(name="),
        ({"more": 1}, "unexpected keyword argument 'more'"),
        ({"started": 3}, r"it names no process, but Owner\(name="),
        ({"images": 0}, r"it works on 0 images\)"),
        ({"images": 2**63}, rf"it works on {2**63} images\)"),
        ({"images": "5"}, r"it works on '5' images\)"),
        ({"images": True}, r"it works on True images\)"),
    ],
)
def test_locks_that_name_nobody_are_refused(path, changes, message) -> None:
    held_by(path, "extract", **changes)
    with pytest.raises(StoreError, match=rf"The lock .*extract\.lock cannot be read \(.*{message}"):
        living_owners(path)
    held_by(path, "extract", process=2**31 - 1, host="elsewhere")
    assert living_owners(path)[0].process == 2**31 - 1
    for images in (1, 2**63 - 1):
        held_by(path, "extract", images=images, host="elsewhere")
        assert living_owners(path)[0].images == images


def test_a_lock_that_was_replaced_is_not_removed_and_a_store_that_is_gone_is_no_error(path) -> None:
    file = path / ".cachetool" / "locks" / "extract.lock"
    with lock(path, "extract"):
        file.unlink()
        held_by(path, "extract", host="elsewhere")
    assert file.exists(), "of another owner"
    file.unlink()
    with lock(path, "extract"):
        path.rename(path.with_name("b.zarr"))
    assert not path.exists()
    with pytest.raises(StoreError, match=r"Cannot write .*its folder is gone"), lock(path, "extract"):
        pass
    assert not path.exists()


def test_a_lock_is_given_back_when_its_work_fails(path) -> None:
    with pytest.raises(ZeroDivisionError), lock(path, "extract"):
        raise ZeroDivisionError
    assert living_owners(path) == []
    before = set(Path("/proc/self/fd").iterdir()) if Path("/proc/self/fd").is_dir() else set()
    with lock(path, "extract"), exclusive(path):
        pass
    after = set(Path("/proc/self/fd").iterdir()) if before else set()
    assert after <= before, "no file stays open"


def test_changes_of_documents_follow_one_another(path) -> None:
    order: list[str] = []

    def wait() -> None:
        with exclusive(path):
            order.append("second")

    thread = threading.Thread(target=wait)
    with exclusive(path):
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize("step", ["write_file", "os.link"])
def test_a_lock_that_cannot_be_made_leaves_nothing(path, monkeypatch, step) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    owner, name = (os, "link") if step == "os.link" else (sys.modules["cachetool.store.lock"], step)
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(StoreError, match=r"Cannot write .*extract\.lock: the disk is full"), lock(path, "extract"):
        pass
    assert list((path / ".cachetool" / "locks").iterdir()) == []


def test_a_lock_that_is_given_back_while_others_look_is_held_by_nobody(path, monkeypatch) -> None:
    held_by(path, "extract", host="elsewhere")

    def given_back(file: Path) -> dict:
        file.unlink()
        return read_json(file)

    monkeypatch.setattr(sys.modules["cachetool.store.lock"], "read_json", given_back)
    assert living_owners(path) == []
