"""What is a folder on a disk, made in an object store: without a rename, so what others look for is put last."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath, worked_on
from cachetool.store.format import PRIVATE
from cachetool.store.metadata import ROOT
from cachetool.store.object_lock import guarded

_OURS = re.compile(rf"{re.escape(PRIVATE)}/.+|\w+/(zarr\.json|c([./]\d+)*)")
"""Keys, relative to it, of the objects of a store but for its root document."""


def make_whole(path: ObjectPath, files: Mapping[str, bytes]) -> None:
    """Make a store at a place where there is none: its root document last, unless somebody else has put one.

    What a killed process left there, while it made or removed a store, goes first. Raises `StoreError` where there is a
    store already, or anything that no store has: nothing is removed then.
    """
    with guarded(path):
        if not (path / ROOT).is_file():
            _check_ours(path)
            remove_below(path)
            put_all(path, {name: content for name, content in files.items() if name != ROOT})
            if (path / ROOT).create(files[ROOT]):
                return
    raise StoreError(f"Cannot make a store at {path}: something is there already. Remove it, or choose a --name.")


def _check_ours(path: ObjectPath) -> None:
    """Raise `StoreError` where objects lie below that are of something else, also of stores further below."""
    strange = [one for one, _found in path.walk_objects() if not _OURS.fullmatch(one.key[len(path.key) :].lstrip("/"))]
    if strange:
        raise StoreError(
            f"Cannot make a store at {path}: objects that are of no store at this place are there already, such as"
            f" {strange[0]} ({len(strange)} in all). Remove them, or choose another place or --name."
        )


def put_all(folder: ObjectPath, files: Mapping[str, bytes]) -> None:
    """Put objects below a place, several at a time."""

    def put(name: str) -> None:
        (folder / name).put(files[name])

    worked_on(put, files, folder)


def remove_below(path: ObjectPath) -> None:
    """Remove all that is left of a store but its guard."""
    guard = path / PRIVATE / "guard"
    path.source.delete([one.key for one, _found in path.walk_objects() if one != guard])


def remove_whole(path: ObjectPath) -> None:
    """Remove a store: its root document first, so that it is not taken for one any more.

    Nobody makes one there meanwhile, which would be removed too.
    """
    with guarded(path):
        (path / ROOT).unlink()
        remove_below(path)
