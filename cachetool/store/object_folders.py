"""What is a folder on a disk, made in an object store: without a rename, so what others look for is put last."""

from __future__ import annotations

from collections.abc import Mapping

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath, worked_on
from cachetool.store.format import PRIVATE
from cachetool.store.metadata import ROOT
from cachetool.store.object_lock import guarded


def make_whole(path: ObjectPath, files: Mapping[str, bytes]) -> None:
    """Make a store at a place where there is none: its root document last, unless somebody else has put one.

    What a killed process left there, while it made or removed a store, goes first. Raises `StoreError` where there is a
    store already.
    """
    with guarded(path):
        if not (path / ROOT).is_file():
            remove_below(path)
            put_all(path, {name: content for name, content in files.items() if name != ROOT})
            if (path / ROOT).create(files[ROOT]):
                return
    raise StoreError(f"Cannot make a store at {path}: something is there already. Remove it, or choose a --name.")


def put_all(folder: ObjectPath, files: Mapping[str, bytes]) -> None:
    """Put objects below a place, several at a time."""

    def put(name: str) -> None:
        (folder / name).put(files[name])

    worked_on(put, files, folder)


def remove_below(path: ObjectPath) -> None:
    """Remove all that is left of a store but its guard."""
    guard = path / PRIVATE / "guard"
    path.bucket.delete([one.key for one, _found in path.walk_objects() if one != guard])


def remove_whole(path: ObjectPath) -> None:
    """Remove a store: its root document first, so that it is not taken for one any more.

    Nobody makes one there meanwhile, which would be removed too.
    """
    with guarded(path):
        (path / ROOT).unlink()
        remove_below(path)
