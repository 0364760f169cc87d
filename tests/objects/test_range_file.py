"""Objects as files: what is asked for, and where one ends or is replaced; regular files of a disk alone."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from cachetool.objects import Replaced
from cachetool.objects.range_file import BUFFER_BYTES, RangeFile, opened, opened_local
from cachetool.objects.source import Found

CONTENT = bytes(range(256)) * 1024


class Remembering:
    """A source of one object that writes down what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.tag = "first"
        self.extra = b""

    def head(self, key: str) -> Found:
        return Found(len(CONTENT), self.tag, 0.0)

    def get_range(self, key: str, start: int, stop: int, tag: str | None = None) -> memoryview:
        self.asked.append((key, start, stop))
        if tag != self.tag:
            raise Replaced(key)
        return memoryview(CONTENT[start:stop] + self.extra)


@pytest.fixture
def source() -> Remembering:
    return Remembering()


def test_a_file_is_sought_in_from_its_beginning_from_here_and_from_its_end(source: Any) -> None:
    file = RangeFile(source, "key")
    assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
    assert [file.tell(), file.seek(7), file.seek(5, io.SEEK_CUR), file.seek(-3, io.SEEK_CUR)] == [0, 7, 12, 9]
    assert file.seek(-2, io.SEEK_END) == len(CONTENT) - 2 == file.tell()
    assert file.read(9) == CONTENT[-2:]
    assert file.read(9) == b"", "at the end nothing is asked for"
    assert file.seek(3, io.SEEK_END) == len(CONTENT) + 3
    assert file.read(9) == b""
    assert source.asked == [("key", len(CONTENT) - 2, len(CONTENT))]
    assert file.seek(-5) == 0, "before the beginning is nothing"
    assert file.read(3) == CONTENT[:3]
    assert file.read(2) == CONTENT[3:5]
    assert source.asked[1:] == [("key", 0, 3), ("key", 3, 5)]


def test_more_than_was_asked_for_is_left_out(source: Any) -> None:
    source.extra = b"more"
    file, buffer = RangeFile(source, "key"), bytearray(8)
    assert file.readinto(memoryview(buffer)[:4]) == 4
    assert (bytes(buffer), file.tell()) == (CONTENT[:4] + bytes(4), 4)


def test_little_reads_are_put_together(source: Any) -> None:
    file = opened(source, "key")
    assert [file.read(1) for _ in range(3)] == [b"\x00", b"\x01", b"\x02"]
    assert source.asked == [("key", 0, BUFFER_BYTES)]
    assert file.read() == CONTENT[3:]


def test_other_content_is_not_read_on(source: Any) -> None:
    file = opened(source, "key")
    assert file.read(1) == b"\x00"
    source.tag = "second"
    with pytest.raises(Replaced):
        file.read()


def test_regular_files_of_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"0123")
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in (str(tmp_path / "a"), "~/a"):
        with opened_local(named) as file:
            assert file.read() == b"0123"
    with pytest.raises(FileNotFoundError):
        opened_local(str(tmp_path / "b"))
    os.mkfifo(tmp_path / "pipe")
    for wrong in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match="expected a file") as caught:
            opened_local(str(wrong))
        assert (caught.value.errno, caught.value.filename) == (22, str(wrong))
