"""Where a store may be made in an object store, and what it removes of what lies there."""

from __future__ import annotations

import re

import pytest

from cachetool.errors import IncompleteError, MissingDataError, StoreError
from cachetool.objects import ObjectPath
from cachetool.removing import remove_store
from cachetool.store import StoreReader, StoreWriter, create


def killed(path: ObjectPath) -> None:
    raise KeyboardInterrupt


def test_there_is_no_store_before_its_root_document(object_root, example, kit, monkeypatch) -> None:
    path = object_root / "a.zarr"
    with pytest.raises(MissingDataError, match="There is no store"):
        StoreReader(path)
    example.make(path)
    with pytest.raises(StoreError, match="something is there already"):
        create(path, example.spec)
    example.check(path)
    # What a removal, killed after its first step, leaves: blocks that say that they are finished.
    with monkeypatch.context() as patch:
        patch.setattr("cachetool.store.object_folders._remove_below", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_store(path)
    assert len(kit.objects(path)) > 30
    with pytest.raises(MissingDataError):
        StoreReader(path)
    create(path, example.spec)
    assert len(StoreWriter(path).pending([0], ["cls"])) == 3
    with pytest.raises(IncompleteError):
        StoreReader(path).read("cls", 0, 0, 4)
    example.fill(path)
    example.check(path)
    remove_store(path)
    assert kit.objects(path) == {}


@pytest.mark.parametrize(
    "key",
    ["notes.txt", ".zgroup", "patches/.zarray", "patches/0.0", "b.zarr/zarr.json", "patches/c/0/x", "x/y/zarr.json"],
)
def test_nothing_that_others_put_there_is_removed(object_root, example, kit, key) -> None:
    path = object_root / "a.zarr"
    (path / key).put(b"theirs")
    (path / "patches" / "zarr.json").put(b"left by a killed process")
    (path / ".cachetool" / "unfinished").put(b'{"arrays": ["cls", "patches"]}')
    before = kit.objects(path)
    with pytest.raises(StoreError, match=rf"there already, such as {re.escape(str(path / key))} \(1 in all\)"):
        create(path, example.spec)
    assert kit.objects(path) == before


@pytest.mark.parametrize(
    ("name", "mark"),
    [("mine", None), ("patches", None), ("mine", b""), ("mine", b'{"arrays": 3}'), ("mine", b'{"arrays": ["cls"]}')],
)
def test_an_array_that_others_put_there_is_not_removed(object_root, example, kit, name, mark) -> None:
    path = object_root / "a.zarr"
    for key in ("zarr.json", "c/0/0", "c.0.0"):
        (path / name / key).put(b"theirs")
    if mark is not None:
        (path / ".cachetool" / "unfinished").put(mark)
    before = kit.objects(path)
    for _ in range(2):
        with pytest.raises(StoreError, match="objects that are of no store at this place are there already"):
            create(path, example.spec)
        assert kit.objects(path) == before


def test_what_a_killed_creation_or_a_late_writer_left_goes(object_root, example, kit, monkeypatch) -> None:
    path = object_root / "a.zarr"
    original = ObjectPath.create

    def killed_before_the_root(one: ObjectPath, content: bytes) -> bool:
        if one == path / "zarr.json":
            raise KeyboardInterrupt
        return original(one, content)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectPath, "create", killed_before_the_root)
        with pytest.raises(KeyboardInterrupt):
            create(path, example.spec)
    assert "patches/zarr.json" in kit.objects(path)
    create(path, example.spec)
    assert ".cachetool/unfinished" not in kit.objects(path)
    remove_store(path)
    for key in ("patches/c.1.0.0.0", "complete/c.1.0.0", ".cachetool/blocks/0000001.json"):
        (path / key).put(b"late")
    example.make(path)
    example.check(path)


def test_a_store_above_others_is_refused(object_root, example) -> None:
    path = example.make(object_root / "a.zarr")
    for above in (object_root, ObjectPath("s3://bucket")):
        with pytest.raises(StoreError, match="objects that are of no store at this place are there already"):
            create(above, example.spec)
    example.check(path)


def test_a_store_that_another_made_at_the_same_time_is_theirs(object_root, example, monkeypatch) -> None:
    path, original = object_root / "a.zarr", ObjectPath.create

    def late(one: ObjectPath, content: bytes) -> bool:
        if one == path / "zarr.json":
            one.put(b"theirs")
        return original(one, content)

    monkeypatch.setattr(ObjectPath, "create", late)
    with pytest.raises(StoreError, match="something is there already"):
        create(path, example.spec)
    assert (path / "zarr.json").read_bytes() == b"theirs"
