"""Blocks that somebody else writes while they are checked: looked at again, so that no mixture passes for damage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cachetool.errors import CachetoolError, StoreError
from cachetool.objects import ObjectPath, Place
from cachetool.store import OpenedStore
from cachetool.store.records import record_path
from cachetool.verifying.report import Problem

LOOKS = 4
"""How often a block is looked at that is another one after each look."""


def settled(
    store: OpenedStore, block: int, check: Callable[[OpenedStore | Place], list[Problem]]
) -> list[Problem] | None:
    """The problems of a block that was the same before and after it was looked at; None where it never was.

    A sound block is looked at once, through the store that is open, and nothing else is asked for. For further looks
    the store is opened anew.
    """
    path = store.path
    problems = check(store)
    for _ in range(LOOKS - 1):
        if not problems:
            return problems
        before = generation(path, block)
        problems = check(path)
        if generation(path, block) == before:
            return problems
    return None if problems else problems


def generation(path: Place, block: int) -> list[Any]:
    """What tells a block, with its record and flags, from one that was written in its place."""
    if isinstance(path, ObjectPath):
        path.source.look_anew()
    try:
        store = OpenedStore(path)
        names = [store.shard_name(name, block) for name in store.geometry.token_types]
        names += [f"complete/c.{block}.0.0", f"readable/c.{block}"]
    except CachetoolError as error:
        return [str(error)]
    return [_content(record_path(path, block)), *(_identity(path / name) for name in names)]


def _content(file: Place) -> bytes | None:
    try:
        return file.read_bytes()
    except StoreError:
        raise
    except OSError:
        return None


def _identity(file: Place) -> Any:
    if isinstance(file, ObjectPath):
        return file.found()
    try:
        status = file.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
