"""Write files so that a reader, or a machine that loses power, sees the old file or the new one and nothing between.

A temporary file in the same folder is written and synced, renamed over the target, and the folder is synced. If a step
fails the temporary file is removed and `StoreError` says what to do; the target is untouched. Temporary names carry
host and process, so that what a killed process left behind can be told from work in progress.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import socket
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath, Place, worked_on
from cachetool.store.shards import Buffer

_ADVICE = {
    errno.ENOSPC: "the disk is full; free space, then run the same command again: finished blocks are kept",
    errno.EDQUOT: "the disk quota is used up; free space, then run the same command again: finished blocks are kept",
    errno.EROFS: "the file system is read-only; choose another --root",
    errno.EACCES: "permission denied; choose another --root or change its permissions",
    errno.EPERM: "permission denied; choose another --root or change its permissions",
    errno.EEXIST: "something is there already",
    errno.ENOTEMPTY: "something is there already",
    errno.ENOENT: "its folder is gone; was the store moved or removed meanwhile?",
}

WRITE_BACK = 4 * 2**20
"""Bytes after which Linux is told that they are not needed in memory, which has it begin to write them to the disk.

The disk then works while the next ones are encoded, and `fsync` has little left to do: a block of 80 MB took 72 ms in
place of 98, a raw file 67 (medians of 12 in turns; 73 with 8 MiB, 79 with 16). Of the pages, which are being written by
then, 95 to 100 % stayed in memory.
"""


def temporary_name(path: Path) -> Path:
    """The temporary sibling under which this process prepares `path`."""
    return path.with_name(f"{path.name}.partial-{socket.gethostname()}-{os.getpid()}")


@contextlib.contextmanager
def storage_errors(path: Place) -> Iterator[None]:
    """Turn an `OSError` into a `StoreError` that names the path, the cause and what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, error.strerror or str(error))
        raise StoreError(f"Cannot write {path}: {advice}.") from error


def write_file(path: Path, parts: Iterable[Buffer]) -> None:
    """Write and sync a file in one sequential pass. Not atomic by itself."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    written = begun = 0
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                count = os.write(descriptor, rest)
                rest, written = rest[count:], written + count
            if written - begun >= WRITE_BACK and hasattr(os, "posix_fadvise"):  # not on macOS
                with contextlib.suppress(OSError):  # advice alone: what refuses it is written all the same
                    os.posix_fadvise(descriptor, begun, written - begun, os.POSIX_FADV_DONTNEED)
                begun = written
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Place, *, parents: bool = False) -> None:
    """Make a folder unless it is there; object stores have none. Raises `StoreError`."""
    if not isinstance(path, ObjectPath):
        with storage_errors(path):
            path.mkdir(parents=parents, exist_ok=True)


def sync_folder(path: Place) -> None:
    """Make renames inside a folder durable; an object is, once it was put."""
    if isinstance(path, ObjectPath):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(path: Path) -> None:
    """Make names durable in a folder and all folders below it."""
    for walked, _folders, _files in os.walk(path):
        sync_folder(Path(walked))


class Staged:
    """Files written and synced under temporary names, waiting to be renamed together; objects wait in memory."""

    def __init__(self) -> None:
        self._files: list[tuple[Path, Path]] = []
        self._objects: list[tuple[ObjectPath, bytes]] = []

    def __enter__(self) -> Staged:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was not renamed: nothing half-written stays behind."""
        for temporary, _target in self._files:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def add(self, path: Place, parts: Iterable[Buffer]) -> Path | bytes:
        """Write one file under its temporary name, which is returned; of an object the content. Raises `StoreError`."""
        if isinstance(path, ObjectPath):
            self._objects.append((path, b"".join(parts)))
            return self._objects[-1][1]
        temporary = temporary_name(path)
        self._files.append((temporary, path))
        with storage_errors(path):
            write_file(temporary, parts)
        return temporary

    def commit(self) -> None:
        """Rename every file to its target and sync the folders; put every object. Raises `StoreError`."""
        if self._objects:
            worked_on(_put, self._objects, self._objects[0][0])
        folders = dict.fromkeys(target.parent for _temporary, target in self._files)
        while self._files:
            temporary, target = self._files[0]
            with storage_errors(target):
                temporary.replace(target)
            del self._files[0]
        for folder in folders:
            with storage_errors(folder):
                sync_folder(folder)


def _put(staged: tuple[ObjectPath, bytes]) -> None:
    path, content = staged
    path.put(content)


def write_atomically(path: Place, *parts: Buffer) -> None:
    """Replace one small file. Raises `StoreError` with the old file untouched."""
    with Staged() as staged:
        staged.add(path, parts)
        staged.commit()


def remove_file(path: Place) -> None:
    """Remove a file durably; one that is not there is no error. Raises `StoreError`."""
    with storage_errors(path):
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


def remove_leftovers(folder: Place, name: str = "*", writers: Collection[tuple[str, int]] | None = None) -> None:
    """Remove temporary files and folders, of the target `name` or of all, that no living process is writing.

    Processes of another host cannot be looked up: what they left goes where `writers`, host and process of all that are
    at work, are known and they are not among them. Objects have no temporary names, and leave nothing.
    """
    if isinstance(folder, ObjectPath):
        return
    pattern = name if name == "*" else glob.escape(name)
    for path in folder.glob(f"{pattern}.partial-*"):
        if _abandoned(path, writers):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _abandoned(path: Path, writers: Collection[tuple[str, int]] | None) -> bool:
    host, _, process = path.name.rpartition(".partial-")[2].rpartition("-")
    if not process.isdigit():
        return True
    if host == socket.gethostname():
        return not process_alive(int(process))
    return writers is not None and (host, int(process)) not in writers


def process_alive(process: int) -> bool:
    """Whether a process of this host exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
