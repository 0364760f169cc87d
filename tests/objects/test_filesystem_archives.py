"""Files in archives, which are read through fsspec."""

from __future__ import annotations

import contextlib
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath, Replaced, filesystem
from tests.objects.web import WebServer


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


def test_what_is_absent_is_named_with_its_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/one", b"1")
    path = ObjectPath(f"zip://folder/two::{tmp_path / 'a.zip'}")
    for absent in (path, path.parent):
        with pytest.raises(FileNotFoundError) as caught:
            absent.source.head(absent.key)
        assert str(caught.value) == f"[Errno 2] there is no such file: {str(absent)!r}"


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
