"""The few looks at a place: the same answer for a disk and for an object store, where there is one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import zarr
from zarr.storage import ObjectStore

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath, check_writable, read_own, remove_tree, taken, tree_bytes, zarr_store
from cachetool.objects.source import read_only


def gone() -> int:
    raise FileNotFoundError


def test_a_place_is_taken_by_anything_on_a_disk_and_by_a_root_document_among_objects(tmp_path, object_root) -> None:
    path = tmp_path / "a.zarr"
    assert not taken(path)
    path.symlink_to("nowhere")
    assert taken(path)
    path.unlink()
    path.mkdir()
    assert taken(path)
    assert not taken(object_root)
    (object_root / "x" / "zarr.json").put(b"")
    assert not taken(object_root)
    (object_root / "zarr.json").put(b"")
    assert taken(object_root)


def test_trees_are_measured_and_removed(tmp_path, object_root) -> None:
    for place in (tmp_path / "a", object_root / "a"):
        for name, content in (("x", b"12"), ("y/z", b"345"), ("y/empty", b"")):
            if isinstance(place, Path):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
            else:
                (place / name).put(content)
        assert tree_bytes(place) == 5
        remove_tree(place)
        assert not place.exists()
        assert tree_bytes(place) == 0
    with pytest.raises(FileNotFoundError):
        remove_tree(tmp_path / "a")
    renamed = SimpleNamespace(is_file=lambda: True, stat=gone)
    assert tree_bytes(SimpleNamespace(rglob=lambda pattern: [renamed])) == 0  # type: ignore[arg-type]


def test_a_file_of_a_store_is_no_link(tmp_path, object_root) -> None:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "link").symlink_to("one")
    (object_root / "one").put(b"1")
    assert read_own(tmp_path / "one") == read_own(object_root / "one") == b"1"
    with pytest.raises(OSError, match="link"):
        read_own(tmp_path / "link")
    for absent in (tmp_path / "two", object_root / "two"):
        with pytest.raises(FileNotFoundError):
            read_own(absent)


def test_zarr_may_read_objects_and_change_none(tmp_path, object_root) -> None:
    assert zarr_store(tmp_path) == tmp_path
    store = zarr_store(object_root)
    assert isinstance(store, ObjectStore)
    with pytest.raises(ValueError, match=r"read.only"):
        zarr.create_group(store)


def test_a_place_that_can_only_be_read_is_refused_with_what_else_can_be_done() -> None:
    for writable in (Path("a"), ObjectPath("s3://bucket/a")):
        check_writable(writable, "wait")
    for more in ((), ("wait",)):
        with pytest.raises(StoreError) as caught:
            check_writable(ObjectPath("https://host/a"), *more)
        assert str(caught.value) == str(read_only("https://host/a", *more))
