"""Files that are read through fsspec: what drivers answer, what they fail with, and what is asked for again."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from cachetool.errors import DamagedError, MissingPackageError, StoreError, UnknownNameError
from cachetool.objects import ObjectPath, Replaced, check_writable, filesystem, place
from cachetool.objects.source import Found
from tests.objects.web import WebServer


class Failing(MemoryFileSystem):  # type: ignore[misc]
    """A driver whose answers can be spoilt; it remembers sizes, as drivers do."""

    protocol = "failing"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    fail: Callable[[str], None] = staticmethod(lambda what: None)
    short = 0
    made = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        Failing.made += 1
        self._sizes: dict[str, Any] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("failing://host", "memory://")))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        Failing.fail("cat_file")
        return bytes(super().cat_file(path, start, end))[: -Failing.short or None]

    def info(self, path: str, **options: Any) -> Any:
        Failing.fail("info")
        return self._sizes.setdefault(path, super().info(path, **options))


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectPath]:
    monkeypatch.setattr(filesystem, "FIRST_PAUSE", 0.0)
    fsspec.register_implementation("failing", Failing, clobber=True)
    Failing.store.clear()
    Failing.fail, Failing.short, Failing.made = staticmethod(lambda what: None), 0, 0
    path = ObjectPath("failing://host/folder/one")
    Failing().pipe("/folder/one", b"0123456789")
    path.source.look_anew()
    yield path
    Failing.fail, Failing.short = staticmethod(lambda what: None), 0


def times(count: int, error: Exception) -> Callable[[str], None]:
    left = [count]

    def fail(what: str) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise error

    return staticmethod(fail)  # type: ignore[return-value]


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


@pytest.mark.parametrize("error", [OSError("reset"), TimeoutError(), EOFError(), ValueError("?token=very-secret&b=1")])
def test_what_fails_is_asked_for_again_over_a_new_connection(one: ObjectPath, error: Exception) -> None:
    Failing.fail = times(filesystem.TRIES - 1, error)
    before = Failing.made
    assert one.read_bytes() == b"0123456789"
    assert Failing.made >= before + filesystem.TRIES - 1
    Failing.fail = times(99, error)
    for work in (one.read_bytes, one.is_file, lambda: one.source.get_range(one.key, 1, 2)):
        with pytest.raises(StoreError, match=r"failing://host/folder/one: .*fsspec \(.*try again") as caught:
            work()
        assert "very-secret" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert type(error).__name__ in str(caught.value)


def test_a_refusal_is_not_repeated(one: ObjectPath) -> None:
    asked = []

    def fail(what: str) -> None:
        asked.append(what)
        raise PermissionError(13, "not yours")

    Failing.fail = staticmethod(fail)
    with pytest.raises(StoreError, match=r"PermissionError: .*not yours"):
        one.read_bytes()
    assert asked == ["cat_file"]


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


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_file_in_an_archive(tmp_path: Path, compression: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", compression) as archive:
        archive.writestr("folder/one", b"0123456789")
        archive.writestr("folder/../../elsewhere", b"")
    path = ObjectPath(f"zip://folder/one::{tmp_path / 'a.zip'}")
    assert path.read_bytes() == b"0123456789"
    assert bytes(path.source.get_range(path.key, 2, 5)) == b"234"
    end, found = path.source.get_end(path.key, 3)
    assert (bytes(end), found.size) == (b"789", 10)
    assert [one.name for one in path.parent.iterdir()] == ["one"]
    assert str(path.with_name("two")) == f"zip://folder/two::{tmp_path / 'a.zip'}"
    (tmp_path / "b.zip").write_bytes(b"no archive")
    with pytest.raises(StoreError, match=r"zip://folder/one::.*b\.zip: it cannot be read through fsspec \(BadZipFile"):
        ObjectPath(f"zip://folder/one::{tmp_path / 'b.zip'}").read_bytes()


@pytest.mark.parametrize(
    ("answer", "said"),
    [({}, "found None"), ({"size": None}, "found None"), ({"size": -5}, "found -5"), ({"size": "ten"}, "found 'ten'")],
)
def test_a_driver_that_tells_no_size_is_refused(one: ObjectPath, monkeypatch: Any, answer: Any, said: str) -> None:
    monkeypatch.setattr(Failing, "info", lambda self, path, **options: {"name": path, "type": "file", **answer})
    for work in (one.found, lambda: one.source.get_end(one.key, 3)):
        with pytest.raises(StoreError, match=rf"failing://host/folder/one: its driver .* its size \({said}\)"):
            work()


def test_a_forked_process_waits_for_no_thread_of_its_parent(tmp_path: Path) -> None:
    """One that had its turn with the driver when the process was forked is not there to give it back."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one", b"0123456789")
    path = ObjectPath(f"zip://one::{tmp_path / 'a.zip'}")
    assert path.read_bytes() == b"0123456789"
    program = f"""
import os, signal
from cachetool.objects import ObjectPath
path = ObjectPath({str(path)!r})
with path.source._turn:
    if not (child := os.fork()):
        signal.alarm(20)
        os._exit(0 if path.read_bytes() == b"0123456789" else 1)
    assert os.waitpid(child, 0)[1] == 0
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


@pytest.mark.parametrize("answer", [None, ["folder/one"], [{"size": 1}]])
def test_a_driver_that_gives_no_list_is_refused(one: ObjectPath, monkeypatch: Any, answer: Any) -> None:
    monkeypatch.setattr(Failing, "ls", lambda self, path, detail=True, **options: answer)
    with pytest.raises(StoreError, match=r"failing://host/folder: .*it gives no list of files with names"):
        one.parent.children()


def test_an_archive_is_a_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a pipe would wait for ever."""
    monkeypatch.setattr(filesystem, "FIRST_PAUSE", 0.0)
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(StoreError, match=r"pipe\.zip: .*expected a file"):
        ObjectPath(f"zip://one::{tmp_path / 'pipe.zip'}").read_bytes()


def test_an_archive_named_by_a_relative_path_is_found_from_other_folders(tmp_path: Path, monkeypatch: Any) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one", b"0123456789")
    monkeypatch.chdir(tmp_path)
    path = ObjectPath("zip://one::a.zip").absolute()
    assert str(path) == f"zip://one::{tmp_path / 'a.zip'}"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(pickle.dumps(path)).read_bytes() == b"0123456789"
    assert str(ObjectPath("zip://one::https://host/a.zip").absolute()) == "zip://one::https://host/a.zip"
    assert str(ObjectPath("memory://one").absolute()) == "memory://one"


def test_an_archive_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="the extra [s3] is not installed")
    (tmp_path / "www").mkdir()
    web = WebServer(tmp_path / "www")
    try:
        path = ObjectPath(f"zip://one::{web.url}/a.zip")
        for content in (b"0123456789" * 20_000, b"abcdefghij" * 20_000):
            with zipfile.ZipFile(tmp_path / "www" / "a.zip", "w") as archive:
                archive.writestr("one", content)
            with contextlib.suppress(Replaced):
                path.read_bytes()
            assert path.read_bytes() == content
    finally:
        web.close()


@pytest.mark.parametrize(
    "url",
    [
        "simplecache://a", "simplecache://a::https://host/b", "filecache://a::/b", "blockcache://a::zip://b",
        "cached://a", "generic://a/b", "asynclocal://a/b", "asyncwrapper://a", "data://a", "zip://a", "zip://",
        "memory://a::/b", "sftp://host/a::/b", "http://host:99999/a",
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(url: str) -> None:
    """What fsspec puts around other drivers, which would speak past the checks here; and what lies in no archive."""
    with pytest.raises(UnknownNameError, match="expected s3://BUCKET/PREFIX"):
        ObjectPath(url)


def test_urls_of_file_systems() -> None:
    hub = ObjectPath("hf://datasets/user/published/shapes/tiny-reg.zarr")
    assert (hub.key, hub.name, str(hub.parent.parent)) == (
        "datasets/user/published/shapes/tiny-reg.zarr", "tiny-reg.zarr", "hf://datasets/user/published",
    )  # fmt: skip
    host = ObjectPath("sftp://user@host:22/data/a.zarr")
    assert (host.key, str(host.with_name("b"))) == ("data/a.zarr", "sftp://user@host:22/data/b")
    top = ObjectPath("memory://a.zarr")
    assert str(top.with_name("a.runs")) == "memory://a.runs"
    assert (hub.writable, hub.listed) == (False, True)
    for url in ("sftp://user:very-secret@host/a", "zip://a::https://user:very-secret@host/a.zip"):
        with pytest.raises(UnknownNameError, match=r"://\.\.\.host: a password in a URL") as caught:
            ObjectPath(url)
        assert "very-secret" not in str(caught.value)
    assert ObjectPath("s3://bucket/a::b.zip").key == "a::b.zip"
    for url in ("https://host/a.zarr?token=1", "https://host/a.zarr#b", "zip://a::https://host/a.zip?token=1"):
        with pytest.raises(UnknownNameError, match=r"leave out \? and #"):
            ObjectPath(url)
    page = ObjectPath("https://host:80/with%20space/%C3%A4")
    assert (page.key, str(page / "a b")) == ("with space/ä", "https://host:80/with%20space/%C3%A4/a%20b")
    assert place(str(page)) == page
    with pytest.raises(UnknownNameError, match=r"no \. or \.\. in them"):
        ObjectPath("https://host/a/%2e%2e/b")
    with pytest.raises(UnknownNameError, match="expected s3://BUCKET/PREFIX"):
        ObjectPath("zip://a::")


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(scheme: str) -> Any:
        raise ImportError('SFTPFileSystem requires "paramiko" to be installed')

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    with pytest.raises(MissingPackageError, match=r'sftp:// URLs .*requires "paramiko" to be installed; install it'):
        ObjectPath("sftp://without-driver/a").read_bytes()


@pytest.mark.parametrize("together", [True, False])
def test_threads_take_turns_but_with_drivers_that_bear_several(
    one: ObjectPath, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    if together:
        monkeypatch.setattr(filesystem, "_SHARED", ("failing",))
    source, meeting, met = filesystem.FileSystem("failing", "host", ""), Barrier(2), list[bool]()

    def meet(what: str) -> None:
        try:
            meeting.wait(60 if together else 0.2)
            met.append(True)
        except BrokenBarrierError:
            met.append(False)

    source.head(one.key)
    Failing.fail = staticmethod(meet)
    with ThreadPoolExecutor(2) as pool:
        assert [bytes(found) for found in pool.map(source.get, [one.key] * 2)] == [b"0123456789"] * 2
    assert met == [together] * 2


def test_later_pauses_are_longer(one: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(filesystem, "FIRST_PAUSE", 2.0)
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(filesystem.random, "uniform", lambda low, high: low)
    Failing.fail = times(99, OSError("reset"))
    with pytest.raises(StoreError, match="reset"):
        one.read_bytes()
    monkeypatch.setattr(filesystem.random, "uniform", lambda low, high: high)
    Failing.fail = times(1, OSError("reset"))
    assert one.read_bytes() == b"0123456789"
    assert pauses == [1.0, 4.0, 3.0]


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


def test_a_driver_that_is_asynchronous_is_given_up_after_a_while() -> None:
    def told(*arguments: Any, **options: Any) -> tuple[Any, ...]:
        return arguments, options

    limited = {"timeout": filesystem.LONGEST_SECONDS}
    for driver, options in (
        (SimpleNamespace(async_impl=True, work=told), limited),
        (SimpleNamespace(async_impl=False, work=told), {}),
        (type("Other", (), {"async_impl": True, "work": staticmethod(told)})(), {}),
    ):
        assert filesystem._call(driver, "work", 1, b=2) == ((1,), {"b": 2, **options})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("first\nsecond"), "(OSError: first)"),
        (OSError(), "(OSError)"),
        (OSError("at http://a?x=1&y=2 and http://b?z"), "(OSError: at http://a?... and http://b?...)"),
        (OSError("x" * 300), f"(OSError: {'x' * 200})"),
    ],
)
def test_what_a_driver_says_is_shown_in_one_line(one: ObjectPath, error: Exception, said: str) -> None:
    Failing.fail = times(99, error)
    with pytest.raises(StoreError) as caught:
        one.read_bytes()
    assert str(caught.value) == (
        f"failing://host/folder/one: it cannot be read through fsspec {said}; see that the URL is right, open to you,"
        " and that the network is up, then try again."
    )


def test_what_is_absent_is_named_with_its_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/one", b"1")
    path = ObjectPath(f"zip://folder/two::{tmp_path / 'a.zip'}")
    for absent in (path, path.parent):
        with pytest.raises(FileNotFoundError) as caught:
            absent.source.head(absent.key)
        assert str(caught.value) == f"[Errno 2] there is no such file: {str(absent)!r}"


def test_an_error_of_ours_passes_as_it_is(one: ObjectPath) -> None:
    Failing.fail = times(1, DamagedError("as it is"))
    with pytest.raises(DamagedError, match=r"^as it is$"):
        one.read_bytes()


def test_schemes_that_fsspec_knows() -> None:
    known = ["memory", "zip", "sftp", "hf", "file", "local", "simplecache", "nothing"]
    assert [name for name in known if filesystem.known(name)] == ["memory", "zip", "sftp", "hf"]
