"""Places: a path on a disk, or one in an object store; and the few looks at them that cost requests there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from cachetool.errors import UnknownNameError
from cachetool.files import read_regular
from cachetool.objects.path import ObjectPath
from cachetool.objects.source import read_only

Place: TypeAlias = Path | ObjectPath
"""Where a store lies."""

AnyPlace: TypeAlias = str | os.PathLike[str] | ObjectPath
"""How a place may be named."""

AT_ONCE = 16
"""Requests at the same time, where many small objects are looked at: each waits for the network."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_url(text: object) -> bool:
    """Whether a name is a URL: of an object store, a web server, or a file system that is no local disk."""
    return isinstance(text, ObjectPath) or (isinstance(text, str) and "://" in text)


def place(named: AnyPlace) -> Place:
    """The place of a name. Raises `UnknownNameError` for a URL that nothing here reads."""
    if isinstance(named, ObjectPath):
        return named
    return ObjectPath(named) if isinstance(named, str) and is_url(named) else Path(named)


def on_disk(named: AnyPlace, what: str) -> Path:
    """The place of what has to lie on a disk. Raises `UnknownNameError` for a URL."""
    if isinstance(named, ObjectPath) or is_url(named):
        raise UnknownNameError(f"{what} {named}: expected a path on a local disk; name one")
    return Path(named)


def worked_on(work: Callable[[Item], Result], items: Iterable[Item], where: Place) -> list[Result]:
    """What `work` gives for each item, in order; by several threads where each waits for an object store."""
    given = list(items)
    if not isinstance(where, ObjectPath) or len(given) < 2:
        return [work(item) for item in given]
    with ThreadPoolExecutor(min(AT_ONCE, len(given)), thread_name_prefix="cachetool-objects") as pool:
        return list(pool.map(work, given))


def check_writable(path: Place, otherwise: str = "") -> None:
    """Raise `StoreError` for a place that can only be read: before any work is done whose result belongs there."""
    if isinstance(path, ObjectPath) and not path.writable:
        raise read_only(str(path), otherwise)


def listed(path: Place) -> bool:
    """Whether what lies below can be asked for; of a web server, names have to be known."""
    return not isinstance(path, ObjectPath) or path.listed


def read_own(path: Place) -> bytes:
    """The bytes of a file that must be a regular one, reached by no link, or of an object. Raises `OSError`."""
    return path.read_bytes() if isinstance(path, ObjectPath) else read_regular(path, follow_links=False)


def taken(path: Place) -> bool:
    """Whether something lies where a store is to be made; in an object store a root document alone is a store."""
    if isinstance(path, ObjectPath):
        return (path / "zarr.json").is_file()
    return path.exists() or path.is_symlink()


def zarr_store(path: Place) -> Any:
    """What zarr and xarray open the group at a place from."""
    if not isinstance(path, ObjectPath):
        return path
    return path.source.zarr_store(path.key)


def remove_tree(folder: Place) -> None:
    """Remove a folder with all that is in it. Raises `OSError`."""
    if isinstance(folder, ObjectPath):
        folder.remove_tree()
    else:
        shutil.rmtree(folder)


def tree_bytes(folder: Place) -> int | None:
    """Bytes of all files below; those that a running extraction has just renamed count nothing.

    None where nobody says what lies there.
    """
    if isinstance(folder, ObjectPath):
        if not folder.listed:
            return None
        return sum(found.size for _path, found in folder.walk_objects())
    return sum(map(_size, folder.rglob("*")))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:
        return 0
