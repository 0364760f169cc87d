"""Folders that are listed through fsspec, also by drivers that say little or what is not so."""

from __future__ import annotations

from typing import Any

import pytest
import zarr

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath
from tests.objects.failing import Failing


@pytest.mark.parametrize("answer", [None, ["folder/one"], [{"size": 1}]])
def test_a_driver_that_gives_no_list_is_refused(one: ObjectPath, monkeypatch: Any, answer: Any) -> None:
    monkeypatch.setattr(Failing, "ls", lambda self, path, detail=True, **options: answer)
    with pytest.raises(StoreError, match=r"failing://host/folder: .*it gives no list of files with names"):
        one.parent.children()


def test_files_whose_size_a_list_does_not_tell_are_asked_for(one: ObjectPath, monkeypatch: Any) -> None:
    usual = Failing.ls

    def listed(self: Any, path: str, detail: bool = True, **options: Any) -> Any:
        assert detail
        others = [{"name": f"/folder/{name}", "size": 1} for name in ("", ".", "..", "below/one")]
        return [{**info, "size": None} for info in usual(self, path, detail=True)] + others

    monkeypatch.setattr(Failing, "ls", listed)
    assert one.source.children("folder") == ([], {"one": one.found()})
    assert one.source.children("elsewhere") == ([], {})


def test_a_driver_that_lists_the_top_in_itself_is_not_followed_for_ever(one: ObjectPath, monkeypatch: Any) -> None:
    answer = [{"name": name, "type": "directory"} for name in ("/", "", "/.", "/..")]
    answer.append({"name": "/a", "type": "file", "size": 1})
    monkeypatch.setattr(Failing, "ls", lambda self, path, detail=True, **options: answer)
    assert one.source.children("")[0] == []
    assert [key for key, _found in one.source.walk("")] == ["a"]


def test_what_lies_at_the_top_has_no_folder_before_its_name(one: ObjectPath) -> None:
    Failing().pipe("/two", b"2")
    Failing().pipe("/X/three", b"333")
    folders, files = one.source.children("")
    assert (sorted(folders), {name: found.size for name, found in files.items()}) == (["X", "folder"], {"two": 1})
    assert {key: found.size for key, found in one.source.walk("")} == {"two": 1, "folder/one": 10, "X/three": 3}


@pytest.mark.parametrize("prefix", ["", "folder"])
def test_zarr_reads_the_files_below_from_memory(one: ObjectPath, prefix: str) -> None:
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=(3,), dtype="int8")
    array[:] = [1, 2, 3]
    for key, content in array.store._store_dict.items():
        Failing().pipe(f"/{prefix}/inner/{key}", content.to_bytes())
    store = one.source.zarr_store(prefix)
    assert zarr.open_array(store, path="inner", mode="r")[:].tolist() == [1, 2, 3]
    assert store.read_only
    assert (("one" if prefix else "folder/one") in store._store_dict) is True
