"""Stores among objects as a whole: what is put in which order, what is removed, and what is left alone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath
from cachetool.store import object_folders
from cachetool.store.object_folders import make_whole, put_all, remove_whole

FILES = {"x/zarr.json": b"x", "zarr.json": b"root", "x/c": b"1"}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is done to objects, in order, by their names."""
    found: list[tuple[str, str]] = []
    for name in ("put", "create", "unlink"):
        usual = getattr(ObjectPath, name)

        def told(path: ObjectPath, *arguments: Any, name: str = name, usual: Any = usual) -> Any:
            found.append((name, path.name))
            return usual(path, *arguments)

        monkeypatch.setattr(ObjectPath, name, told)
    return found


def keys(path: ObjectPath) -> list[str]:
    return sorted(one.key.removeprefix(f"{path.key}/") for one, _found in path.walk_objects())


def test_the_root_document_comes_last_and_goes_first(object_root: ObjectPath, steps: list[tuple[str, str]]) -> None:
    path = object_root / "a.zarr"
    make_whole(path, FILES)
    assert steps[:2] == [("create", "guard"), ("put", "unfinished")]
    assert sorted(steps[2:4]) == [("put", "c"), ("put", "zarr.json")]
    assert steps[4:] == [("create", "zarr.json"), ("unlink", "unfinished"), ("unlink", "guard")]
    assert {name: (path / name).read_bytes() for name in keys(path)} == FILES
    steps.clear()
    remove_whole(path)
    begun, ended = [("create", "guard"), ("put", "unfinished")], [("unlink", "unfinished"), ("unlink", "guard")]
    assert steps == [*begun, ("unlink", "zarr.json"), *ended]
    assert keys(path) == []


def test_what_a_killed_process_left_goes_and_the_guard_of_who_works_stays(
    object_root: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = object_root / "a.zarr"
    marked = ["x/c", "x/c.0.1", "x/c/0/12", "x/zarr.json", "old_1/zarr.json"]
    for name in (".cachetool/blocks/0000000.json", "patches/c.0.1.0.0", "complete/c.3.0.0", *marked):
        (path / name).put(b"left")
    (path / ".cachetool" / "unfinished").put(b'{"arrays": ["x", "old_1"]}')
    left = []
    monkeypatch.setattr(object_folders, "put_all", lambda folder, files: left.append(keys(folder)))
    make_whole(path, FILES)
    assert left == [[".cachetool/guard", ".cachetool/unfinished"]]
    assert keys(path) == ["zarr.json"]


def test_a_store_whose_making_was_killed_is_made_anew(object_root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    path, files = object_root / "a.zarr", {**FILES, "x/c/0/1": b"1", "y/c/0": b"2", "y/zarr.json": b"y"}

    def killed(folder: ObjectPath, put: dict[str, bytes]) -> None:
        put_all(folder, put)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(object_folders, "put_all", killed)
        with pytest.raises(KeyboardInterrupt):
            make_whole(path, files)
    assert json.loads((path / ".cachetool" / "unfinished").read_bytes()) == {"arrays": ["x", "y"]}
    make_whole(path, FILES)
    assert {name: (path / name).read_bytes() for name in keys(path)} == FILES


@pytest.mark.parametrize("mark", [b"{", b"[]", b'{"arrays": "x"}', b"{}"])
def test_a_mark_that_names_no_arrays_makes_nothing_ours(object_root: ObjectPath, mark: bytes) -> None:
    path = object_root / "a.zarr"
    (path / ".cachetool" / "unfinished").put(mark)
    (path / "x" / "zarr.json").put(b"")
    with pytest.raises(StoreError, match=r"of no store at this place are there already, such as .*x/zarr\.json \(1 in"):
        make_whole(path, FILES)


def test_what_others_put_there_is_counted_and_nothing_is_removed(object_root: ObjectPath) -> None:
    path = object_root / "a.zarr"
    for name in ("x/c.0", "b/notes.txt", "x/c.a", "zarr.json.old"):
        (path / name).put(b"")
    with pytest.raises(StoreError) as caught:
        make_whole(path, FILES)
    assert str(caught.value) == (
        f"Cannot make a store at {path}: objects that are of no store at this place are there already, such as"
        f" {path / 'b' / 'notes.txt'} (4 in all). Remove them, or choose another place or --name."
    )
    assert keys(path) == ["b/notes.txt", "x/c.0", "x/c.a", "zarr.json.old"]


def test_a_store_that_is_there_stays_as_it_is(object_root: ObjectPath) -> None:
    path = object_root / "a.zarr"
    make_whole(path, FILES)
    said = f"Cannot make a store at {path}: something is there already. Remove it, or choose a --name."
    with pytest.raises(StoreError, match=f"^{re.escape(said)}$"):
        make_whole(path, {"zarr.json": b"another", "y/c": b""})
    assert {name: (path / name).read_bytes() for name in keys(path)} == FILES


def test_objects_are_put_below_their_folder(object_root: ObjectPath) -> None:
    put_all(object_root / "a", {"b/c": b"1", "d": b"2"})
    assert keys(object_root) == ["a/b/c", "a/d"]
    assert (object_root / "a" / "b" / "c").read_bytes() == b"1"
