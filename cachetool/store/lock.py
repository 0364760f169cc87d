"""Locks: one extraction of a store, or of a part of it, at a time; one change of its shape at a time.

A lock is a small file with host, process and time of its owner, made by a hard link, which one of several contenders
wins on every file system. The lock of a process of this host that no longer lives is taken over; that of another host
cannot be looked up, so its owner is named and the user decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cachetool.errors import DamagedError, StoreError
from cachetool.store.atomic import process_alive, storage_errors, temporary_name, write_file
from cachetool.store.documents import is_integer, read_json, shown
from cachetool.store.format import PRIVATE

_PART = re.compile(r"(?P<task>.+)-part-(?P<part>\d+)-of-(?P<parts>\d+)")


@dataclass(frozen=True)
class Owner:
    """Who holds a lock."""

    name: str
    host: str
    process: int
    since: str
    """UTC time, ISO 8601."""

    @property
    def gone(self) -> bool:
        """Whether the owner is known not to live any more."""
        return self.host == socket.gethostname() and not process_alive(self.process)


@contextlib.contextmanager
def lock(path: str | os.PathLike[str], name: str) -> Iterator[None]:
    """Hold a named lock of a store while the block runs.

    Locks exclude each other if they have the same name, except that `NAME-part-1-of-4` and `NAME-part-2-of-4` may be
    held together: `NAME` excludes all its parts, and parts of another number, which would share blocks.

    Raises `StoreError` naming the owner where the lock, or one that excludes it, is held.
    """
    folder = Path(path) / PRIVATE / "locks"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    mine = folder / f"{name}.lock"
    with exclusive(Path(path)):
        _acquire(mine, Owner(name, socket.gethostname(), os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")))
    try:
        yield
    finally:
        mine.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for, then hold, the right to change the documents of a store; released by the system if the process dies."""
    guard = path / PRIVATE / "guard"
    with storage_errors(guard):
        descriptor = os.open(guard, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _acquire(mine: Path, owner: Owner) -> None:
    """Make the lock file; the caller holds `exclusive`, so that no two processes take over the same lock."""
    holders = []
    for path in mine.parent.glob("*.lock"):
        holder = _read(path)
        if holder is not None and holder.gone:
            path.unlink(missing_ok=True)  # not what the lock calls itself, which might lead elsewhere
        elif holder is not None:
            holders.append(holder)
    blocking = [holder for holder in holders if _excludes(holder.name, owner.name)]
    if blocking:
        _refuse(mine, blocking)
    temporary = temporary_name(mine)
    try:
        with storage_errors(mine):
            write_file(temporary, [json.dumps(asdict(owner)).encode()])
            os.link(temporary, mine)
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


def _read(path: Path) -> Owner | None:
    """The owner of a lock; None where it was released meanwhile."""
    try:
        owner = Owner(**read_json(path))
    except FileNotFoundError:
        return None
    except (DamagedError, TypeError) as error:
        raise _unreadable(path, str(error)) from error
    if not (isinstance(owner.name, str) and isinstance(owner.host, str) and is_integer(owner.process, 1, 2**31 - 1)):
        raise _unreadable(path, f"it names no process, but {shown(owner)}")
    return owner


def _unreadable(path: Path, why: str) -> StoreError:
    return StoreError(f"The lock {path} cannot be read ({why}); remove it if no cachetool is at work there.")


def _refuse(mine: Path, holders: list[Owner]) -> None:
    names = "; ".join(
        f"{holder.name}: process {holder.process} on {holder.host} since {holder.since}" for holder in holders
    )
    raise StoreError(
        f"{mine.parents[2]} is being written by another cachetool ({names}). Wait for it to end; if it is known to be"
        f" dead, remove its lock file in {mine.parent}."
    )
