"""What is done with objects: they are written, read, listed, replaced and removed."""

from __future__ import annotations

import os
import re
import time
import traceback
from typing import Any

import pytest

from cachetool.objects import Replaced, bucket


def test_an_object_is_written_read_and_removed(object_root) -> None:
    one = object_root / "folder" / "one"
    assert not one.is_file()
    one.put(b"0123456789")
    assert one.is_file()
    assert one.read_bytes() == b"0123456789"
    content, tag = one.read_tagged()
    assert (content, one.found().size, one.found().tag) == (b"0123456789", 10, tag)
    end, found = one.source.get_end(one.key, 3)
    assert (bytes(end), found.size, found.tag) == (b"789", 10, tag)
    assert bytes(one.source.get_end(one.key, 100)[0]) == b"0123456789"
    assert bytes(one.source.get_range(one.key, 2, 5, tag)) == b"234"
    (object_root / "empty").put(b"")
    end, found = one.source.get_end((object_root / "empty").key, 3)
    assert (bytes(end), found.size) == (b"", 0)
    one.put(b"abcdefghij")
    with pytest.raises(Replaced, match=f"^{re.escape(str(one))} was replaced .*; run the same command again") as caught:
        one.source.get_range(one.key, 2, 5, tag)
    assert "PreconditionFailed" not in "".join(traceback.format_exception(caught.value)), "what the server answered"
    one.unlink()
    one.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(one))):
        one.read_bytes()
    with pytest.raises(FileNotFoundError):
        one.source.get_end(one.key, 3)


def test_an_object_tells_when_it_was_written(object_root) -> None:
    (object_root / "one").put(b"1")
    assert abs((object_root / "one").found().modified - time.time()) < 60


def test_one_of_several_makes_an_object(object_root) -> None:
    one = object_root / "one"
    assert one.create(b"mine")
    assert not one.create(b"yours")
    assert one.read_bytes() == b"mine"
    tag = one.found().tag
    assert one.replace(b"yours", tag)
    assert not one.replace(b"again", tag)
    assert one.read_bytes() == b"yours"
    one.unlink()
    assert not one.replace(b"again", tag)
    assert not one.is_file()


def test_content_of_several_parts_is_whole(object_root, monkeypatch) -> None:
    monkeypatch.setattr(bucket, "PART_BYTES", 5 * 2**20)
    content = bytes(range(256)) * 2**15 + b"end"
    (object_root / "large").put(content + content)
    assert (object_root / "large").read_bytes() == content + content


def test_lists_have_names_of_what_lies_directly_below_and_keys_of_all(in_memory) -> None:
    made = in_memory("s3")
    for key in ("a/b/c", "a/d", "e"):
        made.put(key, key.encode())
    assert made.children("") == (["a"], {"e": made.head("e")})
    assert made.children("a") == (["b"], {"d": made.head("a/d")})
    assert made.children("absent") == ([], {})
    assert dict(made.walk("")) == {key: made.head(key) for key in ("a/b/c", "a/d", "e")}
    assert dict(made.walk("a")) == {key: made.head(key) for key in ("a/b/c", "a/d")}


def test_a_forked_process_is_refused_and_does_not_wait_for_ever(object_root: Any) -> None:
    (object_root / "a").put(b"1")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            (object_root / "a").read_bytes()
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said.startswith("StoreError: s3://bucket/")
    assert "start processes by `spawn` or `forkserver`" in said
    assert (object_root / "a").read_bytes() == b"1"
