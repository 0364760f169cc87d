"""Files that are read through fsspec: what is asked of drivers, and what they answer."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import fsspec
import pytest

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath, Replaced, check_writable
from cachetool.objects.source import Found
from tests.objects.failing import Failing


def test_a_file_is_read_as_a_whole_in_ranges_and_from_its_end(one: ObjectPath) -> None:
    source = one.source
    assert one.is_file()
    assert one.parent.is_dir()
    assert not (one.parent / "two").is_file()
    assert not one.parent.is_file(), "a folder is no file"
    assert not (one.parent.parent / "elsewhere").is_dir()
    assert one.read_tagged() == (b"0123456789", None)
    assert bytes(source.get_range(one.key, 2, 5)) == b"234"
    assert bytes(source.get_range(one.key, 5, 5)) == b""
    end, found = source.get_end(one.key, 3)
    assert (bytes(end), found.size) == (b"789", 10)
    assert bytes(source.get_end(one.key, 99)[0]) == b"0123456789"
    Failing().pipe("/folder/below/two", b"2")
    assert {name: found and found.size for name, found in one.parent.children().items()} == {"below": None, "one": 10}
    assert [str(path) for path, _ in one.parent.walk_objects()] == [str(one), str(one.parent / "below" / "two")]
    for work in (lambda: source.get("folder/three"), lambda: source.get_end("folder/three", 3)):
        with pytest.raises(FileNotFoundError, match="failing://host/folder/three"):
            work()


def test_a_size_that_is_only_remembered_is_looked_up_again(one: ObjectPath) -> None:
    source = one.source
    assert source.head(one.key).size == 10
    Failing.store["/folder/one"] = type(Failing.store["/folder/one"])(Failing(), "/folder/one", b"0123456789abc")
    assert source.head(one.key).size == 10, "the driver remembers"
    end, found = source.get_end(one.key, 3, {13})
    assert (bytes(end), found.size) == (b"abc", 13)
    source.look_anew()
    Failing.store["/folder/one"] = type(Failing.store["/folder/one"])(Failing(), "/folder/one", b"01234")
    end, found = source.get_end(one.key, 3)
    assert (bytes(end), found.size) == (b"234", 5)


def test_a_short_answer_is_of_another_file_or_given_as_it_is(one: ObjectPath) -> None:
    source = one.source
    tag = source.head(one.key).tag
    Failing.short = 2
    assert bytes(source.get_range(one.key, 0, 10, tag)) == b"01234567", "whoever asked measures it"
    Failing.short = 0
    Failing().pipe("/folder/one", b"0123")
    with pytest.raises(Replaced, match="failing://host/folder/one"):
        source.get_range(one.key, 0, 10, tag)


def test_nothing_is_written(one: ObjectPath) -> None:
    works = (
        lambda: one.put(b""), lambda: one.create(b""), lambda: one.replace(b"", None), one.unlink,
        one.parent.remove_tree, lambda: check_writable(one),
    )  # fmt: skip
    for work in works:
        with pytest.raises(StoreError, match=r"failing://host/folder.*can only be read.*s3://, gs:// or az://"):
            work()
    assert one.read_bytes() == b"0123456789"


@pytest.mark.parametrize(
    ("answer", "said"),
    [({}, "found None"), ({"size": None}, "found None"), ({"size": -5}, "found -5"), ({"size": "ten"}, "found 'ten'")],
)
def test_a_driver_that_tells_no_size_is_refused(one: ObjectPath, monkeypatch: Any, answer: Any, said: str) -> None:
    monkeypatch.setattr(Failing, "info", lambda self, path, **options: {"name": path, "type": "file", **answer})
    for work in (one.found, lambda: one.source.get_end(one.key, 3)):
        with pytest.raises(StoreError, match=rf"failing://host/folder/one: its driver .* its size \({said}\)"):
            work()


@pytest.mark.parametrize(
    ("info", "modified", "tag"),
    [
        ({}, 0.0, "size=3 modified=0.0"),
        ({"mtime": 5, "created": 7.0}, 5.0, "size=3 modified=5.0"),
        ({"created": 7.5, "mtime": None}, 7.5, "size=3 modified=7.5"),
        ({"last_modified": datetime(1970, 1, 2, tzinfo=UTC)}, 86400.0, "size=3 modified=86400.0"),
        ({"LastModified": 2.5, "mtime": "yesterday"}, 2.5, "size=3 modified=2.5"),
        ({"ETag": "a", "etag": None, "sha": "b", "CRC": 0}, 0.0, "size=3 modified=0.0 ETag=a sha=b CRC=0"),
        ({"etag": "a", "blob_id": "b", "xet_hash": "c", "chksum": 1}, 0.0,
         "size=3 modified=0.0 etag=a blob_id=b xet_hash=c chksum=1"),
    ],
)  # fmt: skip
def test_a_file_is_told_from_another_by_all_that_its_driver_says(
    one: ObjectPath, monkeypatch: Any, info: Any, modified: float, tag: str
) -> None:
    monkeypatch.setattr(Failing, "info", lambda self, path, **options: {"name": path, "size": "3", **info})
    assert one.found() == Found(3, tag, modified)


class Opening(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A driver that opens a file for all that is read, and says how."""

    protocol = "opening"
    options: list[dict[str, Any]] = []  # noqa: RUF012

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        Opening.options.append({key: value for key, value in options.items() if key == "cache_type"})
        return io.BytesIO(b"0123456789")

    def info(self, path: str, **options: Any) -> Any:
        return {"name": path, "size": 10, "type": "file"}


def test_no_more_is_fetched_than_was_asked_for(one: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("opening", Opening, clobber=True)
    Opening.options.clear()
    source = ObjectPath("opening://host/a").source
    assert bytes(source.get_range("a", 2, 5)) == b"234"
    assert Opening.options == [{"cache_type": "none"}]
    given: list[Any] = []
    monkeypatch.setattr(Failing, "cat_file", lambda self, path, **options: given.append(options) or b"234")
    one.source.get_range(one.key, 2, 5)
    assert given == [{"start": 2, "end": 5}], "a driver with a way of its own is told nothing else"
