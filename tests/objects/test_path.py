"""Paths of objects: what `pathlib.Path` does, for URLs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import zarr
from zarr.storage import ObjectStore

from cachetool.errors import UnknownNameError
from cachetool.objects import ObjectPath, is_url, on_disk, place, worked_on


def test_parts_are_those_of_a_path() -> None:
    path, like = ObjectPath("s3://bucket/a/b.c/model.v2.zarr"), Path("/bucket/a/b.c/model.v2.zarr")
    assert str(path) == "s3:/" + str(like)
    for name in ("name", "stem", "suffix"):
        assert getattr(path, name) == getattr(like, name)
    assert str(path.parent) == "s3://bucket/a/b.c"
    assert [str(one) for one in path.parents] == ["s3://bucket/a/b.c", "s3://bucket/a", "s3://bucket"]
    assert path.with_name("x").key == "a/b.c/x"
    assert path.with_suffix(".runs").name == "model.v2.runs"
    assert (path / "c" / "d/e").key == "a/b.c/model.v2.zarr/c/d/e"
    assert ObjectPath("s3://bucket//a//").key == "a"
    assert (ObjectPath("s3://bucket").name, ObjectPath("s3://bucket").key) == ("bucket", "")
    assert path.absolute() == path == path.resolve() == pickle.loads(pickle.dumps(path))
    assert not path.is_symlink()
    assert len({path, ObjectPath(str(path)), path.parent}) == 2
    assert sorted([path, path.parent]) == [path.parent, path]
    assert path != str(path)


@pytest.mark.parametrize("url", ["ftp://bucket/a", "s3://", "s3:///a", "s3://bucket/../other", "bucket/a"])
def test_other_urls_are_refused(url) -> None:
    with pytest.raises(UnknownNameError, match=r"expected s3://BUCKET/PREFIX|no \. or \.\. in them"):
        ObjectPath(url)


def test_an_object_is_never_taken_for_a_file() -> None:
    with pytest.raises(TypeError):
        Path(ObjectPath("s3://bucket/a"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        os.fspath(ObjectPath("s3://bucket/a"))  # type: ignore[call-overload]


def test_a_place_is_on_a_disk_or_in_a_store() -> None:
    assert place("a/b") == Path("a/b")
    assert place(Path("a")) == Path("a")
    assert place("s3://bucket/a") == ObjectPath("s3://bucket/a")
    assert place(ObjectPath("s3://bucket/a")) == ObjectPath("s3://bucket/a")
    assert [is_url(one) for one in ("a", "s3://b", ObjectPath("s3://b"), Path("a"))] == [False, True, True, False]
    assert on_disk("a", "--output") == Path("a")
    with pytest.raises(UnknownNameError, match=r"--output s3://b: expected a path on a local disk"):
        on_disk("s3://b", "--output")


def test_listings(object_root) -> None:
    for key in ("data/a.zarr/zarr.json", "data/b.zarr/x/y", "data/note", "other/c.zarr/zarr.json"):
        (object_root / key).put(key.encode())
    assert sorted(path.name for path in object_root.iterdir()) == ["data", "other"]
    assert [path.key.removeprefix(f"{object_root.key}/") for path in object_root.glob("*/*.zarr")] == [
        "data/a.zarr",
        "data/b.zarr",
        "other/c.zarr",
    ]
    assert {path.name: found.size for path, found in (object_root / "data").walk_objects()} == {
        "zarr.json": 21,
        "y": 15,
        "note": 9,
    }
    assert (object_root / "data").is_dir()
    assert not (object_root / "data").is_file()
    assert (object_root / "data").exists()
    assert not (object_root / "dat").exists(), "a prefix of a name is no folder"
    assert list((object_root / "absent").glob("*")) == []
    (object_root / "data").remove_tree()
    assert [path.name for path in object_root.iterdir()] == ["other"]


def test_work_keeps_its_order(object_root) -> None:
    assert worked_on(lambda number: number * 2, range(100), object_root) == [number * 2 for number in range(100)]
    assert worked_on(str, [], object_root) == []
    with pytest.raises(ZeroDivisionError):
        worked_on(lambda number: 1 // number, [1, 0], object_root)


@pytest.mark.parametrize("key", ["a b", "a%20b", "a?b", "a#b", "ä", "a+b", "a~b", "a[b]"])
def test_keys_of_any_letters_are_the_same_to_all(object_root: Any, key: str) -> None:
    path = ObjectPath(f"{object_root}/{key}/a.zarr")
    zarr.create_array(ObjectStore(path.bucket.below(path.key)), shape=(2,), dtype="int8")
    assert (path / "zarr.json").is_file()
    assert [str(one) for one in path.parent.iterdir()] == [str(path)]
    path.remove_tree()
    assert list(path.walk_objects()) == []


@pytest.mark.parametrize("url", ["s3://my bucket/x", "s3://[x", "s3://bücket", "s3://-x"])
def test_names_that_no_bucket_has_are_refused(url: str) -> None:
    with pytest.raises(UnknownNameError, match="expected s3://BUCKET/PREFIX"):
        ObjectPath(url)
