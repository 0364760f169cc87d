"""The bytes of a shard, worked out by hand: where chunks lie, what their checksums bind, what is refused."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cachetool.errors import DamagedError
from cachetool.store import mapped_shard
from cachetool.store.mapped_shard import MappedShard as Shard
from cachetool.store.shards import HeldShard, ShardLayout, checksum, encode, extend_checksum

LAYOUT = ShardLayout(layers=3, chunks=2, chunk_images=2, image_bytes=4)
ABSENT = 2**64 - 1


def crc32c(data: bytes) -> int:
    """CRC32C bit by bit, as RFC 3720 defines it."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 * (value & 1))
    return value ^ 0xFFFFFFFF


def sealed(data: bytes) -> bytes:
    return data + struct.pack("<I", crc32c(data))


FIRST, SECOND, THIRD = b"abcdefgh", b"ijklmnop", b"qrstuvwx"


def with_index(body: bytes, *places: int) -> bytes:
    """A shard with these offsets in its index, chunk by chunk and layer by layer."""
    return body + sealed(b"".join(struct.pack("<QQ", place, ABSENT if place == ABSENT else 12) for place in places))


# Layer 2 holds both chunks, layer 0 the first alone, layer 1 none; layers lie in ascending order.
EXPECTED = with_index(sealed(FIRST) + sealed(SECOND) + sealed(THIRD), *(0, ABSENT, 12), *(ABSENT, ABSENT, 24))


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return written(tmp_path, EXPECTED)


def written(folder: Path, content: bytes, **options: object) -> Shard:
    file = folder / "c.0"
    file.write_bytes(content)
    return Shard(file, LAYOUT, **options)


def test_the_check_value_of_crc32c() -> None:
    assert checksum(b"123456789") == (0xE3069283).to_bytes(4, "little")
    assert checksum(b"1234", b"", memoryview(b"56789")) == checksum(b"123456789")
    assert extend_checksum(extend_checksum(0, b"1234"), b"56789") == crc32c(b"123456789") == 0xE3069283


def test_sizes() -> None:
    assert (LAYOUT.payload_bytes, LAYOUT.chunk_bytes, LAYOUT.index_bytes) == (8, 12, 2 * 3 * 16 + 4)
    assert [LAYOUT.used_chunks(images) for images in range(5)] == [0, 1, 1, 2, 2]
    assert LAYOUT.shard_bytes(2, 3) == 2 * 2 * 12 + 100


def test_layers_lie_in_order_and_sealed_chunks_are_taken_as_they_are() -> None:
    layers = {2: [[SECOND[:3], SECOND[3:]], [sealed(THIRD)]], 0: [[memoryview(FIRST)]]}
    assert b"".join(encode(LAYOUT, layers)) == EXPECTED


def test_what_is_stored_and_its_digests(shard: Shard) -> None:
    assert [[shard.has(layer, chunk) for layer in range(3)] for chunk in range(2)] == [
        [True, False, True],
        [False, False, True],
    ]
    assert bytes(shard.encoded_chunk(2, 1)) == sealed(THIRD)
    assert shard.values(2, 0, np.dtype("<u2")).tolist() == list(struct.unpack("<4H", SECOND))
    seals = [sealed(part)[-4:] for part in (FIRST, SECOND, THIRD)]
    assert shard.state_digest(2) == crc32c(seals[1] + seals[2])
    assert shard.state_digest(0) == crc32c(seals[0])
    assert shard.digest() == crc32c(b"".join(seals) + EXPECTED[-4:])
    status = (shard.path).stat()
    assert shard.identity == (status.st_ino, len(EXPECTED), status.st_mtime_ns)


def test_a_shard_in_memory_is_what_it_is_as_a_file(shard: Shard) -> None:
    held = HeldShard(shard.path, LAYOUT, EXPECTED)
    assert (held.size, held.digest(), held.state_digest(2)) == (shard.size, shard.digest(), shard.state_digest(2))
    assert bytes(held.encoded_chunk(2, 1)) == sealed(THIRD)
    assert HeldShard(shard.path, LAYOUT, bytes(bytearray(EXPECTED))).identity != held.identity
    assert held.intact(0, 0)
    with pytest.raises(DamagedError, match=r"c\.0 is damaged: expected at least 100 bytes, found 99"):
        HeldShard(shard.path, LAYOUT, EXPECTED[-99:])


def test_the_digest_follows_the_order_of_the_bytes_not_of_the_layers(tmp_path) -> None:
    content = with_index(sealed(FIRST) + sealed(SECOND), 12, ABSENT, 0, ABSENT, ABSENT, ABSENT)
    assert written(tmp_path, content).digest() == crc32c(sealed(FIRST)[-4:] + sealed(SECOND)[-4:] + content[-4:])


def test_layers_at_even_distances_are_one_view(tmp_path) -> None:
    body = b"".join(sealed(bytes([number]) * 8) for number in range(4))
    shard = written(tmp_path, with_index(body, *(0, 12, 36), *(24, ABSENT, ABSENT)))
    values = shard.layered_values([1, 0], 0, np.dtype("u1"))
    assert values.tolist() == [[1] * 8, [0] * 8]
    assert shard.layered_values([2], 0, np.dtype("<u4")).tolist() == [[0x03030303] * 2]
    assert shard.layered_values([0], 1, np.dtype("u1")).tolist() == [[2] * 8]
    assert shard.layered_values([0, 1, 2], 0, np.dtype("u1")) is None, "uneven"
    assert shard.layered_values([0, 1], 1, np.dtype("u1")) is None, "not stored"


def test_a_chunk_is_compared_with_its_seal_once(tmp_path) -> None:
    harmed = bytearray(EXPECTED)
    harmed[13] ^= 1
    shard = written(tmp_path, bytes(harmed))
    assert [shard.intact(0, 0), shard.intact(2, 0), shard.intact(2, 1)] == [True, False, True]
    assert shard.checked.tolist() == [[True, False, False], [False, False, True]]
    shard.checked[0, 2] = True
    assert shard.intact(2, 0), "what was found sound is not looked at again"


def test_a_sound_layer_that_was_not_promised_is_not_intact(tmp_path) -> None:
    digest = crc32c(sealed(FIRST)[-4:])
    assert written(tmp_path, EXPECTED, promised={0: {5, digest}}).intact(0, 0)
    other = written(tmp_path, EXPECTED, promised={0: {5}})
    assert not other.intact(0, 0)
    assert other.intact(2, 0), "nothing was promised of this layer"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * 99, "expected at least 100 bytes, found 99"),
        (EXPECTED[:-1] + bytes([EXPECTED[-1] ^ 1]), "the checksum of its index does not match"),
        (with_index(sealed(FIRST) * 2, 0, 13, *[ABSENT] * 4), "beyond its end"),
        (with_index(sealed(FIRST)[:-1], 0, *[ABSENT] * 5), "beyond its end"),
        (with_index(sealed(FIRST) * 2, 0, 11, *[ABSENT] * 4), "overlap"),
    ],
)
def test_what_cannot_be_a_shard_is_refused(tmp_path, content, message) -> None:
    with pytest.raises(DamagedError, match=rf"c\.0 is damaged: .*{message}.*cachetool verify --repair"):
        written(tmp_path, content)


def test_chunks_may_touch_and_end_with_the_body_and_a_shard_may_be_empty(tmp_path) -> None:
    touching = written(tmp_path, with_index(sealed(FIRST) + sealed(SECOND), 12, 0, *[ABSENT] * 4))
    assert bytes(touching.encoded_chunk(0, 0)) == sealed(SECOND)
    empty = written(tmp_path, with_index(b"", *[ABSENT] * 6))
    assert not any(empty.has(layer, chunk) for layer in range(3) for chunk in range(2))
    assert empty.digest() == crc32c(bytes(empty.bytes)[-4:])


def test_missing_and_forbidden_files_are_named(tmp_path, monkeypatch) -> None:
    with pytest.raises(DamagedError, match=r"c\.9 is missing, though it is recorded as done. Run `cachetool verify"):
        Shard(tmp_path / "c.9", LAYOUT)

    def forbid(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbid)
    with pytest.raises(DamagedError, match=r"c\.9 cannot be read: Permission denied\."):
        Shard(tmp_path / "c.9", LAYOUT)


class Advised:
    """A map that writes down what the system is told of it."""

    def __init__(self, error: OSError | None = None) -> None:
        self.told: list[tuple[int, ...]] = []
        self._error = error

    def madvise(self, *advice: int) -> None:
        self.told.append(advice)
        if self._error is not None:
            raise self._error


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="only Linux has large pages")
@pytest.mark.parametrize(
    ("release", "error", "done", "told"),
    [
        ("5.18.0-generic", None, True, ["MADV_HUGEPAGE", "MADV_RANDOM"]),
        ("6.1", None, True, ["MADV_HUGEPAGE", "MADV_RANDOM"]),
        ("10.2.1", None, True, ["MADV_HUGEPAGE", "MADV_RANDOM"]),
        ("5.17.9", None, False, []),
        ("4.19", None, False, []),
        ("unknown", None, False, []),
        ("6.1", OSError(22, "Invalid argument"), False, ["MADV_HUGEPAGE"]),
    ],
)
def test_large_pages_are_asked_for_where_faults_heed_it(monkeypatch, release, error, done, told) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    advised = Advised(error)
    assert mapped_shard._read_large_pages(advised) is done
    assert advised.told == [(getattr(mmap, name),) for name in told]


def test_what_is_read_ahead_is_advised_in_whole_pages_up_to_the_last_byte(tmp_path, monkeypatch) -> None:
    """Chunks of 4 KiB and 4 bytes: the third and fourth begin within the third page and end within the fifth."""
    monkeypatch.setattr(mapped_shard, "_read_large_pages", lambda mapped: False)
    monkeypatch.setattr(mapped_shard, "ADVISED_BYTES", 8192)
    layout = ShardLayout(layers=4, chunks=1, chunk_images=1, image_bytes=4096)
    file = tmp_path / "c.0"
    file.write_bytes(b"".join(encode(layout, {layer: [[bytes(4096)]] for layer in range(4)})))
    shard = Shard(file, layout)
    advised = Advised()
    shard._map, shard.checked[0, 0] = advised, True
    will = mmap.MADV_WILLNEED
    shard.bring([3, 2, 0], slice(0, 1))
    assert advised.told == [(will, 8192, 8192), (will, 16384, 4 * 4100 - 16384)]
    shard.bring([0], slice(0, 1))
    assert len(advised.told) == 2, "what was read is not asked for again"
