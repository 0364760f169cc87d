"""What is a folder on a disk, made in an object store: without a rename, so what others look for is put last."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress

from cachetool.errors import DamagedError, StoreError
from cachetool.objects import ObjectPath, worked_on
from cachetool.store.documents import read_json
from cachetool.store.format import PRIVATE
from cachetool.store.metadata import ROOT
from cachetool.store.object_lock import guarded
from cachetool.tokens import TOKEN_TYPES

_MARK = f"{PRIVATE}/unfinished"
"""Key, relative to a store, of the object that names its arrays while it is made or removed."""

_KEPT = re.compile(rf"{re.escape(PRIVATE)}/.+|({'|'.join(TOKEN_TYPES)}|complete|readable)/c(\.\d+)+")
"""Keys of what a writer may put that does not know yet that its store is removed; arrays of others have a document."""

_OF_ARRAY = re.compile(r"(\w+)/(zarr\.json|c([./]\d+)*)")
"""Keys of an array, whosever it is."""


def make_whole(path: ObjectPath, files: Mapping[str, bytes]) -> None:
    """Make a store at a place where there is none: its root document last, unless somebody else has put one.

    What a killed process left there, while it made or removed a store, goes first. Raises `StoreError` where there is a
    store already, or anything that no store has: nothing is removed then.
    """
    with guarded(path):
        if not (path / ROOT).is_file():
            _check_ours(path)
            _remove_below(path)
            rest = {name: content for name, content in files.items() if name != ROOT}
            _mark(path, {name.partition("/")[0] for name in rest})
            put_all(path, rest)
            made = (path / ROOT).create(files[ROOT])
            (path / _MARK).unlink()
            if made:
                return
    raise StoreError(f"Cannot make a store at {path}: something is there already. Remove it, or choose a --name.")


def _check_ours(path: ObjectPath) -> None:
    """Raise `StoreError` where objects lie below that are of something else, also of stores further below."""
    there = {one: one.key[len(path.key) :].lstrip("/") for one, _found in path.walk_objects()}
    marked = _marked(path) if _MARK in there.values() else ()
    strange = [one for one, key in there.items() if not (_KEPT.fullmatch(key) or _array(key) in marked)]
    if strange:
        raise StoreError(
            f"Cannot make a store at {path}: objects that are of no store at this place are there already, such as"
            f" {strange[0]} ({len(strange)} in all). Remove them, or choose another place or --name."
        )


def _array(key: str) -> str | None:
    """The array that an object is of; None for anything else."""
    found = _OF_ARRAY.fullmatch(key)
    return found[1] if found else None


def _mark(path: ObjectPath, arrays: Collection[str]) -> None:
    """Say that these arrays are ours, whatever becomes of this process."""
    (path / _MARK).put(json.dumps({"arrays": sorted(arrays)}).encode())


def _marked(path: ObjectPath) -> Collection[str]:
    """The arrays of a store that was being made or removed."""
    with suppress(DamagedError, FileNotFoundError):
        arrays = read_json(path / _MARK).get("arrays")
        return arrays if isinstance(arrays, list) else ()
    return ()


def put_all(folder: ObjectPath, files: Mapping[str, bytes]) -> None:
    """Put objects below a place, several at a time."""

    def put(name: str) -> None:
        (folder / name).put(files[name])

    worked_on(put, files, folder)


def _remove_below(path: ObjectPath) -> None:
    """Remove all that is left of a store but its guard, and what says that the rest is ours."""
    kept = (path / PRIVATE / "guard", path / _MARK)
    path.source.delete([one.key for one, _found in path.walk_objects() if one not in kept])


def remove_whole(path: ObjectPath) -> None:
    """Remove a store: its root document first, so that it is not taken for one any more.

    Nobody makes one there meanwhile, which would be removed too.
    """
    with guarded(path):
        _mark(path, [name for name, found in path.children().items() if found is None])
        (path / ROOT).unlink()
        _remove_below(path)
        (path / _MARK).unlink()
