"""Locks: one extraction of a store, or of a part of it, at a time; one change of its shape at a time.

A lock is a small file with host, process and time of its owner, made by a hard link, which one of several contenders
wins on every file system. Its owner also holds an advisory lock on the file, which the system gives back when the owner
ends: so a process of this host that no longer lives is told from another that has its number by now, and no clock is
asked. In an object store it is an object that is put only where there is none (`object_lock`). What was left by a
process of this host is taken over; the lock of another host cannot be looked up, so its owner is named and the user
decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import humanize

from cachetool.errors import DamagedError, StoreError
from cachetool.objects import AnyPlace, ObjectPath, Place, listed, place
from cachetool.store.atomic import (
    make_folder,
    process_alive,
    remove_leftovers,
    storage_errors,
    temporary_name,
    write_file,
)
from cachetool.store.documents import is_integer, read_json, shown
from cachetool.store.format import PRIVATE
from cachetool.store.object_lock import gone, guarded, started

_PART = re.compile(r"(?P<task>.+)-part-(?P<part>\d+)-of-(?P<parts>\d+)")


@dataclass(frozen=True)
class Owner:
    """Who holds a lock."""

    name: str
    host: str
    process: int
    since: str
    """UTC time, ISO 8601."""
    shared: bool = False
    """Whether other processes write under it too, also on other hosts: the workers of a cluster."""
    started: str | None = None
    """In an object store, what tells its process from others of the same number."""
    images: int | None = None
    """How many of the first images it works on, where these are not all."""

    @property
    def part(self) -> tuple[str, int, int]:
        """What it works on: the task, the part and the number of parts, which are 1 and 1 for a whole task."""
        found = _PART.fullmatch(self.name)
        if found is not None and max(len(found["part"]), len(found["parts"])) < 10:
            part, parts = int(found["part"]), int(found["parts"])
            if 1 <= part <= parts:
                return found["task"], part, parts
        return self.name, 1, 1

    @property
    def held(self) -> timedelta | None:
        """How long ago it was taken; None where the clock was set back since, or no time is given."""
        try:
            passed = datetime.now(UTC) - datetime.fromisoformat(self.since)
        except (ValueError, TypeError):
            return None
        return passed if passed >= timedelta(0) else None

    @property
    def age(self) -> str:
        """How long ago it was taken, for people; nothing where that is not known."""
        return "" if self.held is None else f" ({humanize.naturaldelta(self.held)} ago)"

    def gone(self, file: Place) -> bool:
        """Whether the owner is known not to live any more."""
        if self.host != socket.gethostname():
            return False
        if isinstance(file, ObjectPath):
            return gone(self.process, self.started)
        # A forked child may hold the advisory lock for some seconds after its parent was killed.
        return not process_alive(self.process) or not _held(file)


@contextlib.contextmanager
def lock(path: AnyPlace, name: str, *, shared: bool = False, images: int | None = None) -> Iterator[Owner]:
    """Hold a named lock of a store while the block runs; gives its owner, as whom others may write if it is `shared`.

    `images` tells who looks that only so many of the first images are worked on.

    Locks exclude each other if they have the same name, except that `NAME-part-1-of-4` and `NAME-part-2-of-4` may be
    held together: `NAME` excludes all its parts, and parts of another number, which would share blocks.

    Raises `StoreError` naming the owner where the lock, or one that excludes it, is held.
    """
    folder = place(path) / PRIVATE / "locks"
    make_folder(folder)  # without parents: a store that is gone must not come back as an empty folder
    mine = folder / f"{name}.lock"
    since = datetime.now(UTC).isoformat(timespec="milliseconds")
    owner = Owner(name, socket.gethostname(), os.getpid(), since, shared, images=images)
    if isinstance(mine, ObjectPath):
        owner = replace(owner, started=started())
    with exclusive(place(path)):
        descriptor = _acquire(mine, owner)
    try:
        yield owner
    finally:
        with contextlib.suppress(OSError):  # the store may be gone, or its disk read-only by now
            if _is_mine(mine, owner, descriptor):
                mine.unlink()
        if descriptor is not None:
            os.close(descriptor)


def holds(path: AnyPlace, owner: Owner) -> bool:
    """Whether a lock that was given to `owner` is still held by it. Raises `StoreError` where it cannot be read."""
    return _read(lock_path(path, owner)) == owner


def lock_path(path: AnyPlace, owner: Owner) -> Place:
    """The file of a lock."""
    return place(path) / PRIVATE / "locks" / f"{owner.name}.lock"


@contextlib.contextmanager
def exclusive(path: Place) -> Iterator[None]:
    """Wait for, then hold, the right to change the documents of a store; released by the system if the process dies.

    In an object store it is taken over then, see `guarded`.
    """
    if isinstance(path, ObjectPath):
        with guarded(path):
            yield
        return
    guard = path / PRIVATE / "guard"
    with storage_errors(guard):
        descriptor = os.open(guard, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def living_owners(path: Place) -> list[Owner]:
    """Who holds a lock of a store now, as far as can be known. Raises `StoreError` for a lock that cannot be read."""
    return [owner for file, owner in owners(path) if not owner.gone(file)]


def owners(path: Place) -> list[tuple[Place, Owner]]:
    """The lock files of a store and who made them, dead or alive; none where nobody says what lies there.

    Raises `StoreError` for one that cannot be read.
    """
    if not listed(path):
        return []
    files: list[Place] = sorted((path / PRIVATE / "locks").glob("*.lock"))
    found = [(file, _read(file)) for file in files]
    return [(file, owner) for file, owner in found if owner is not None]


def remove_dead_locks(path: Place) -> None:
    """Remove locks whose owners are known not to live any more; on a disk that cannot be written they stay.

    Raises `StoreError` for a lock that cannot be read.
    """
    if all(not owner.gone(file) for file, owner in owners(path)):
        return
    with contextlib.suppress(OSError), exclusive(path):  # no two processes may take over the same lock
        for file, owner in owners(path):
            if owner.gone(file):
                file.unlink(missing_ok=True)


def _held(file: Path) -> bool:
    """Whether a process holds the advisory lock of a lock file."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_mine(mine: Place, owner: Owner, descriptor: int | None) -> bool:
    """Whether a lock is still the one that was taken."""
    if isinstance(mine, ObjectPath) or descriptor is None:
        return _read(mine) == owner
    return os.path.samestat(mine.stat(), os.fstat(descriptor))


def _acquire(mine: Place, owner: Owner) -> int | None:
    """Make the lock file and return its descriptor, which holds the advisory lock; None for an object.

    The caller holds `exclusive`, so that no two processes take over the same lock.
    """
    remove_leftovers(mine.parent, writers=())  # none is at work: the caller alone makes locks now
    blocking = []
    for file, holder in owners(mine.parents[2]):
        if holder.gone(file):
            file.unlink(missing_ok=True)
        elif _excludes(holder.name, owner.name):
            blocking.append(holder)
    if blocking:
        _refuse(mine, blocking)
    content = json.dumps({name: value for name, value in asdict(owner).items() if value is not None}).encode()
    if isinstance(mine, ObjectPath):
        if not mine.create(content):
            _refuse(mine, [holder for holder in [_read(mine)] if holder is not None])
        return None
    temporary = temporary_name(mine)
    try:
        with storage_errors(mine):
            write_file(temporary, [content])
            os.link(temporary, mine)
            descriptor = os.open(mine, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            return descriptor
    except StoreError as error:
        if isinstance(error.__cause__, FileExistsError):
            _refuse(mine, [holder for holder in [_read(mine)] if holder is not None])
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _excludes(held: str, wanted: str) -> bool:
    ours, theirs = _PART.fullmatch(wanted), _PART.fullmatch(held)
    if (ours["task"] if ours else wanted) != (theirs["task"] if theirs else held):
        return False
    return not (ours and theirs and ours["parts"] == theirs["parts"] and ours["part"] != theirs["part"])


def _read(path: Place) -> Owner | None:
    """The owner of a lock; None where it was released meanwhile."""
    try:
        owner = Owner(**read_json(path))
    except FileNotFoundError:
        return None
    except (DamagedError, TypeError) as error:
        raise _unreadable(path, str(error)) from error
    texts = isinstance(owner.name, str) and isinstance(owner.host, str) and isinstance(owner.started, str | None)
    if not (texts and is_integer(owner.process, 1, 2**31 - 1)):
        raise _unreadable(path, f"it names no process, but {shown(owner)}")
    if not (owner.images is None or is_integer(owner.images, 1, 2**63 - 1)):
        raise _unreadable(path, f"it works on {shown(owner.images)} images")
    return owner


def _unreadable(path: Place, why: str) -> StoreError:
    return StoreError(f"The lock {path} cannot be read ({why}); remove it if no cachetool is at work there.")


def _refuse(mine: Place, holders: list[Owner]) -> None:
    names = "; ".join(
        f"{holder.name}: process {holder.process} on {holder.host} since {holder.since}{holder.age}"
        for holder in holders
    )
    raise StoreError(
        f"{mine.parents[2]} is being written by another cachetool ({names}). Wait for it to end; if it is known to be"
        f" dead, remove its lock file in {mine.parent}."
    )
