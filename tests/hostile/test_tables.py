"""Chunks of small arrays with checksums that agree: lengths that lie, text that is none, and files that are too few."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachetool.errors import DamagedError
from cachetool.store import StoreReader
from cachetool.store.shards import checksum
from tests.hostile.conftest import LONG, QUICK, harmed

CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.lists(st.binary(max_size=9), max_size=20).map(
        lambda texts: struct.pack("<I", len(texts)) + b"".join(struct.pack("<I", len(text)) + text for text in texts)
    ),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(lambda pair: struct.pack("<II", *pair)),
)


def check(sound: Path, name: str, content: bytes) -> None:
    with harmed(sound / name, content + checksum(content)):
        try:
            reader = StoreReader(sound)
            _ = reader.images, reader.readable, reader.complete
        except DamagedError as error:
            assert name.partition("/")[0] in str(error)
            return
        raise AssertionError(f"{content!r} was accepted as a chunk of {name}")


TABLES = st.sampled_from(["image_id/c.0", "label/c.0", "layer/c.0", "class_name/c.0"])


@QUICK
@given(name=TABLES, content=CONTENTS)
def test_other_bytes_are_no_chunk(sound: Path, name: str, content: bytes) -> None:
    check(sound, name, content)


@pytest.mark.slow
@LONG
@given(name=TABLES, content=CONTENTS)
def test_hundreds_of_other_bytes_are_no_chunk(sound: Path, name: str, content: bytes) -> None:
    check(sound, name, content)


def strings(texts: list[bytes]) -> bytes:
    return struct.pack("<I", len(texts)) + b"".join(struct.pack("<I", len(text)) + text for text in texts)


@pytest.mark.parametrize(
    "content",
    [
        strings([b"a"] * 4095),
        strings([b"a"] * 4095) + struct.pack("<I", 10) + b"short",
        strings([b"a"] * 4095 + [b"\xff"]),
        struct.pack("<I", 2**32 - 1),
    ],
    ids=["too few", "beyond the end", "no UTF-8", "four billion"],
)
def test_strings_that_lie_are_refused(sound: Path, content: bytes) -> None:
    file = sound / "image_id" / "c.0"
    with harmed(file, content + checksum(content)), pytest.raises(DamagedError, match="image_id"):
        _ = StoreReader(sound).images


def test_names_of_chunks_that_are_none_are_passed_over(sound: Path) -> None:
    strange = [sound / "label" / name for name in ("c.1", "c.00", "c.-1", f"c.{'9' * 5000}"[:200], "c.x", "c", "c.0.0")]
    expected = StoreReader(sound).images
    for file in strange:
        file.write_bytes(b"nothing")
    try:
        assert StoreReader(sound).images == expected
    finally:
        for file in strange:
            file.unlink()
