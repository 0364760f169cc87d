"""Paths of objects: what `pathlib.Path` does, for URLs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from threading import Barrier, current_thread
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


@pytest.mark.parametrize(
    "url",
    [
        "nothing://bucket/a",
        "file:///a",
        "simplecache::https://a/b",
        "sftp:///a",
        "s3://",
        "s3:///a",
        "s3://bucket/../other",
        "bucket/a",
    ],
)
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
    zarr.create_array(ObjectStore(path.source.below(path.key)), shape=(2,), dtype="int8")
    assert (path / "zarr.json").is_file()
    assert [str(one) for one in path.parent.iterdir()] == [str(path)]
    path.remove_tree()
    assert list(path.walk_objects()) == []


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("s3://bucket/a b/c%20d", "a b/c%20d"),
        ("memory://a b/c%20d", "a b/c%20d"),
        ("https://host/a%20b/c%2520d", "a b/c%20d"),
    ],
)
def test_the_text_of_a_path_is_its_url_where_letters_are_written_as_there(url: str, key: str) -> None:
    path = ObjectPath(url)
    assert (str(path), path.key) == (url, key)
    assert ObjectPath(str(path)) == path


@pytest.mark.parametrize("url", ["s3://my bucket/x", "s3://[x", "s3://bücket", "s3://-x"])
def test_names_that_no_bucket_has_are_refused(url: str) -> None:
    with pytest.raises(UnknownNameError, match="expected s3://BUCKET/PREFIX"):
        ObjectPath(url)


def test_content_is_bytes_or_text(object_root: Any) -> None:
    one = object_root / "one"
    one.put("größe".encode())
    assert one.read_text() == "größe"
    one.put(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        one.read_text()
    assert one.read_text(errors="replace") == "\N{REPLACEMENT CHARACTER}"
    assert one.read_text("latin-1") == "ÿ"
    with pytest.raises(IsADirectoryError, match="this is a bucket: 's3://bucket'"):
        ObjectPath("s3://bucket").read_bytes()
    assert not ObjectPath("s3://bucket").is_file()
    assert ObjectPath("s3://bucket").is_dir()


def test_endings_are_those_of_a_path() -> None:
    for name in ("model", ".hidden", "a.b.c", "end.", "..x", ".a.b"):
        path, like = ObjectPath(f"s3://bucket/{name}"), Path(name)
        assert (path.stem + path.suffix, path.name) == (name, name)
        if name != "end.":  # of which versions of Python say different things
            assert (path.stem, path.suffix) == (like.stem, like.suffix)
    assert ObjectPath("s3://bucket/a").with_suffix(".b").key == "a.b"
    assert repr(ObjectPath("s3://bucket/a")) == "ObjectPath('s3://bucket/a')"
    assert ObjectPath("s3://bucket").parent == ObjectPath("s3://bucket")
    assert ObjectPath("s3://bucket").parents == []


def test_what_is_no_url_is_told_what_is_one() -> None:
    known = "expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://BUCKET/PREFIX, a local directory, or for reading"
    with pytest.raises(UnknownNameError, match=f"^nothing://a: {known} https://HOST/PATH"):
        ObjectPath("nothing://a")
    for url in ("s3://bucket/a/../b", "s3://bucket/./b"):
        with pytest.raises(UnknownNameError, match=r"keys of objects have no \. or \.\. in them; write the key out$"):
            ObjectPath(url)


def test_paths_are_sorted_part_by_part() -> None:
    urls = ["az://b/a", "gs://a/z", "s3://a", "s3://a/b", "s3://a/b/c", "s3://a/b-c", "s3://b"]
    paths = [ObjectPath(url) for url in urls]
    assert [str(path) for path in sorted(set(paths))] == urls
    assert paths[0] <= paths[1] < paths[2]
    assert hash(paths[2]) == hash(ObjectPath("s3://a"))


def test_patterns_are_matched_part_by_part(object_root: Any) -> None:
    for key in ("a/b/c.lock", "a/b/d.LOCK", "a/c/c.lock", "a.lock", "b/b/c.lock/e"):
        (object_root / key).put(b"")

    def found(pattern: str) -> list[str]:
        return [path.key.removeprefix(f"{object_root.key}/") for path in object_root.glob(pattern)]

    assert found("*/b/*.lock") == ["a/b/c.lock", "b/b/c.lock"]
    assert found("*.lock") == ["a.lock"]
    assert found("a/*/*") == ["a/b/c.lock", "a/b/d.LOCK", "a/c/c.lock"]
    assert found("a/b") == ["a/b"]


def test_requests_are_made_at_once_among_objects_and_one_by_one_on_a_disk(object_root: Any, tmp_path: Path) -> None:
    together = Barrier(16)

    def work(number: int) -> tuple[int, str]:
        together.wait(60)
        return number, current_thread().name

    found = worked_on(work, range(16), object_root)
    assert [number for number, _name in found] == list(range(16))
    assert {name.rpartition("_")[0] for _number, name in found} == {"cachetool-objects"}
    together = Barrier(1)
    own = current_thread().name
    assert worked_on(work, range(3), tmp_path) == [(number, own) for number in range(3)]
    assert worked_on(work, range(1), object_root) == [(0, own)]
    assert {name for _number, name in worked_on(work, range(2), object_root)} != {own}
    assert len({name for _number, name in worked_on(work, range(100), object_root)}) <= 16
