"""Files are written, synced, renamed and synced again in that order; only what nobody works on is removed."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from cachetool.errors import DamagedError, StoreError
from cachetool.store import atomic
from cachetool.store.atomic import (
    Staged,
    make_folder,
    process_alive,
    remove_file,
    remove_leftovers,
    storage_errors,
    sync_folders,
    temporary_name,
    write_atomically,
    write_file,
)

HERE = socket.gethostname()
DEAD = 2**22 + 1
"""Beyond the largest number that a process can have."""


@pytest.fixture
def steps(monkeypatch) -> list[str]:
    """What is synced and renamed, in order, by the name of the file or folder."""
    found: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda number: found.append(f"sync {Path(f'/proc/self/fd/{number}').resolve().name}")
    )

    def renamed(old: Path, new: Path) -> Path:
        found.append(f"rename {old.name} to {new.name}")
        return replace(old, new)

    monkeypatch.setattr(Path, "replace", renamed)
    return found


pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to tell what is synced")


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, steps) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_atomically(folder / "a", b"one, ", memoryview(b"two"))
    aside = f"a.partial-{HERE}-{os.getpid()}"
    assert temporary_name(folder / "a") == folder / aside
    assert steps == [f"sync {aside}", f"rename {aside} to a", "sync folder"]
    assert (folder / "a").read_bytes() == b"one, two"
    assert [file.name for file in folder.iterdir()] == ["a"]


def test_files_are_renamed_together_once_all_are_written(tmp_path, steps) -> None:
    with Staged() as staged:
        for name in ("a", "b"):
            assert staged.add(tmp_path / name, [name.encode()]).read_bytes() == name.encode()
        assert [step.split()[0] for step in steps] == ["sync", "sync"]
        staged.commit()
    assert [step.split()[0] for step in steps] == ["sync", "sync", "rename", "rename", "sync"], (
        "one folder, synced once"
    )
    with Staged() as staged:
        staged.add(tmp_path / "c", [b"never"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def test_a_write_that_is_cut_short_goes_on_where_it_stopped(tmp_path, monkeypatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))
    write_file(tmp_path / "a", [b"0123456789", b"", b"abc"])
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"0123456789abc"
    write_file(tmp_path / "a", [b"shorter"])
    assert (tmp_path / "a").read_bytes() == b"shorter"


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no advice on files")
def test_large_files_go_to_the_disk_while_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int, int]] = []

    def advised(descriptor: int, start: int, length: int, advice: int) -> None:
        told.append((start, length, advice))
        assert os.fstat(descriptor).st_size == start + length

    monkeypatch.setattr("cachetool.store.atomic.WRITE_BACK", 10)
    monkeypatch.setattr(os, "posix_fadvise", advised)
    write_file(tmp_path / "a", [b"0123456", b"789", b"abc", b"defghijklmnopq", b"r"])
    assert told == [(0, 10, os.POSIX_FADV_DONTNEED), (10, 17, os.POSIX_FADV_DONTNEED)]
    assert (tmp_path / "a").read_bytes() == b"0123456789abcdefghijklmnopqr"


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no advice on files")
def test_files_are_written_where_advice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr("cachetool.store.atomic.WRITE_BACK", 2)
    monkeypatch.setattr(os, "posix_fadvise", refused)
    write_file(tmp_path / "a", [b"0123456", b"789"])
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_files_can_be_read_by_others_where_the_umask_lets_them_and_run_by_nobody(tmp_path) -> None:
    before = os.umask(0o022)
    try:
        write_file(tmp_path / "a", [b"text"])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_folder_is_made_unless_it_is_there_and_its_parents_where_they_are_asked_for(tmp_path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a")
    (tmp_path / "a" / "file").write_text("")
    with pytest.raises(StoreError, match=r"b/c: its folder is gone"):
        make_folder(tmp_path / "b" / "c")
    for _ in range(2):
        make_folder(tmp_path / "b" / "c", parents=True)
    assert sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")) == ["a", "a/file", "b", "b/c"]
    with pytest.raises(StoreError, match=r"file: something is there already"):
        make_folder(tmp_path / "a" / "file")


def test_removal_and_the_folders_below_are_synced(tmp_path, steps) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("")
    remove_file(tmp_path / "a" / "file")
    remove_file(tmp_path / "a" / "file")
    assert steps == ["sync a", "sync a"]
    assert not (tmp_path / "a" / "file").exists()
    steps.clear()
    sync_folders(tmp_path / "a")
    assert sorted(steps) == ["sync a", "sync b"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "the disk is full; free space, then run the same command again: finished blocks are kept"),
        (
            errno.EDQUOT,
            "the disk quota is used up; free space, then run the same command again: finished blocks are kept",
        ),
        (errno.EROFS, "the file system is read-only; choose another --root"),
        (errno.EACCES, "permission denied; choose another --root or change its permissions"),
        (errno.EPERM, "permission denied; choose another --root or change its permissions"),
        (errno.EEXIST, "something is there already"),
        (errno.ENOTEMPTY, "something is there already"),
        (errno.ENOENT, "its folder is gone; was the store moved or removed meanwhile?"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_what_the_system_says_comes_with_what_to_do(number, text) -> None:
    with pytest.raises(StoreError) as caught, storage_errors(Path("x/y")):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"Cannot write x/y: {text}."
    assert caught.value.__cause__.errno == number


def test_errors_of_the_store_pass_and_an_error_without_a_number_is_shown() -> None:
    with pytest.raises(DamagedError, match=r"^as it is$"), storage_errors(Path("x")):
        raise DamagedError("as it is")
    with pytest.raises(StoreError, match=r"^Cannot write x: odd\.$"), storage_errors(Path("x")):
        raise OSError("odd")


def test_only_what_nobody_writes_is_removed(tmp_path) -> None:
    gone, kept = f"a.partial-{HERE}-{DEAD}", f"a.partial-{HERE}-{os.getpid()}"
    other, busy = "a.partial-else-where-7", "a.partial-else-where-8"
    strange, target = "a.partial-strange", "a"
    every = {gone, kept, other, busy, strange, target}

    def after(*arguments: object, **options: object) -> set[str]:
        for name in every:
            (tmp_path / name).write_text("")
        remove_leftovers(tmp_path, *arguments, **options)
        return {file.name for file in tmp_path.iterdir()}

    assert after() == {kept, other, busy, target}, "of other hosts nothing is known"
    assert after(writers={("else-where", 8)}) == {kept, busy, target}
    assert after("a", writers=()) == {kept, target}
    assert after("b", writers=()) == every
    (tmp_path / f"f[1].partial-{HERE}-{DEAD}").mkdir()
    (tmp_path / f"f[1].partial-{HERE}-{DEAD}" / "file").write_text("")
    assert after("f[1]") == every, "a folder with all that is in it, and no name taken for a pattern"


def test_what_cannot_be_removed_stays(tmp_path, monkeypatch) -> None:
    (tmp_path / f"a.partial-{HERE}-{DEAD}").write_text("")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_processes_that_live(monkeypatch) -> None:
    assert process_alive(os.getpid())
    assert not process_alive(DEAD)

    def forbid(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(atomic.os, "kill", forbid)
    assert process_alive(1), "of another user"
