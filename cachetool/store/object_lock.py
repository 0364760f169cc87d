"""Rights in object stores, which have no `flock`: an object that only one of several contenders can make.

Who made it is told by host and process, and by what a number alone does not say: the boot, the namespace of processes
and the start of that process. Where these are known here, a dead owner is known as such; else it cannot be looked up.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath
from cachetool.store.atomic import process_alive
from cachetool.store.format import PRIVATE

ABANDONED_SECONDS = 120.0
"""How long a waiter sees one and the same guard before it takes it over, whoever made it: it is held for some requests,
each of which is given up after a minute."""

PATIENCE_SECONDS = 600.0
"""How long a waiter waits for guards of others, one after another."""


@lru_cache(maxsize=1)
def _system() -> str | None:
    """What process numbers of this process mean: boot and namespace; None where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 - it is no file
    except OSError:
        return None


def _start(process: int) -> str | None:
    """When a process started, in ticks since the boot; None where there is none that lives."""
    try:
        # The name of the program comes before, in brackets, and may have any character in it.
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def started() -> str | None:
    """What tells this process from others that have, or had, its number; None where the system does not say."""
    system = _system()
    return None if system is None else f"{system} {_start(os.getpid())}"


def gone(process: int, instance: str | None) -> bool:
    """Whether a process that said of itself what `started` gives is known not to live any more."""
    if instance is None:
        return not process_alive(process)
    return is_of_this_system(instance) and instance != f"{_system()} {_start(process)}"


def is_of_this_system(instance: str | None) -> bool:
    """Whether a process can be looked up: not one of another boot, or of a container or machine of this name.

    Where it did not say, its number has to do.
    """
    system = _system()
    return instance is None or (system is not None and instance.startswith(f"{system} "))


@contextlib.contextmanager
def guarded(path: ObjectPath) -> Iterator[None]:
    """Wait for, then hold, the right to change the documents of a store.

    A guard is taken over from a process that is known to be dead, and from anybody after `ABANDONED_SECONDS`. Raises
    `StoreError` naming who has it after `PATIENCE_SECONDS`.
    """
    guard = path / PRIVATE / "guard"
    mine = json.dumps(
        {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "started": started(),
            "token": uuid4().hex,
        }
    ).encode()
    _take(guard, mine)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            # Its age is not known here: an answer may come late, and clocks stand still in a machine that sleeps.
            if guard.read_bytes() == mine:
                guard.unlink()


def _take(guard: ObjectPath, mine: bytes) -> None:
    began = time.monotonic()
    seen, since = b"", began
    while not guard.create(mine):
        try:
            content, tag = guard.read_tagged()
        except FileNotFoundError:
            continue
        now = time.monotonic()
        if content != seen:
            seen, since = content, now
        abandoned = now - since > ABANDONED_SECONDS
        if (abandoned or _left_by_the_dead(content)) and guard.replace(mine, tag):
            return
        if now - began > PATIENCE_SECONDS:
            raise StoreError(
                f"{guard.parent.parent} is being changed by others ({content.decode(errors='replace')[:200]}). Wait for"
                f" them to end; if they are known to be dead, remove {guard}."
            )
        time.sleep(random.uniform(0.05, 0.2))


def _left_by_the_dead(content: bytes) -> bool:
    try:
        holder = json.loads(content)
        same_host = holder["host"] == socket.gethostname()
        return same_host and gone(int(holder["process"]), holder["started"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
