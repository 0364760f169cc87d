"""What is removed: stores of ours with what was made from them, also interrupted, or while others make one."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cachetool import removing
from cachetool.errors import StoreError
from cachetool.objects import ObjectPath
from cachetool.store.object_folders import make_whole

ROOT = {"zarr.json": b'{"cachetool": 1}'}


def make(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "zarr.json").write_text('{"attributes": {"cachetool": {}}}')
    return path


def test_only_our_stores_are_removed(tmp_path: Path) -> None:
    cache = make(tmp_path / "a.zarr")
    foreign = tmp_path / "b.zarr"
    foreign.mkdir()
    (foreign / "zarr.json").write_text("{}")
    link = tmp_path / "link.zarr"
    link.symlink_to(cache)
    for path in (foreign, link, tmp_path, tmp_path / "absent"):
        with pytest.raises(StoreError, match="nothing was removed"):
            removing.remove_store(path)
    removing.remove_store(cache)
    assert not cache.exists()
    assert foreign.exists()


def test_a_removal_that_was_interrupted_goes_on(object_root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, run = object_root / "d" / "m.zarr", object_root / "d" / "m.runs" / "r.zarr"
    for path in (cache, run):
        make_whole(path, ROOT)

    def interrupted(folder: Any) -> None:
        raise StoreError("the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(removing, "remove_tree", interrupted)
        with pytest.raises(StoreError, match="the network is down"):
            removing.remove_store(cache)
    removing.remove_store(cache)
    assert list((object_root / "d").walk_objects()) == []


def test_a_store_that_another_makes_meanwhile_stays(object_root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = object_root / "d" / "m.zarr"
    make_whole(cache, {**ROOT, "x/c": b"1"})
    unlink, others = ObjectPath.unlink, list[Thread]()

    def told(path: ObjectPath, **options: Any) -> None:
        unlink(path, **options)
        if path == cache / "zarr.json" and not others:
            others.append(Thread(target=make_whole, args=(cache, {**ROOT, "x/c": b"2"})))
            others[0].start()
            others[0].join(0.5)  # it has to wait

    monkeypatch.setattr(ObjectPath, "unlink", told)
    removing.remove_store(cache)
    others[0].join()
    assert (cache / "zarr.json").is_file()
    assert (cache / "x" / "c").read_bytes() == b"2"
