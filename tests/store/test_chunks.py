"""Chunks of the states of a block, worked out by hand: padded with NaN, views where nothing changes, or kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cachetool.errors import DamagedError
from cachetool.store.chunks import image_chunks, kept_chunks
from cachetool.store.mapped_shard import MappedShard
from cachetool.store.shards import ShardLayout, checksum, encode

LAYOUT = ShardLayout(layers=3, chunks=3, chunk_images=2, image_bytes=4)
NAN = np.float16(np.nan)


def test_images_fill_chunks_in_order_and_the_last_is_padded() -> None:
    states = np.arange(10, dtype=np.float16).reshape(5, 2)
    chunks = image_chunks(LAYOUT, states, np.ones(5, dtype=bool), NAN)
    assert [[bytes(part) for part in parts] for parts in chunks] == [
        [states[:2].tobytes()],
        [states[2:4].tobytes()],
        [states[4:].tobytes(), np.full(2, NAN).tobytes()],
    ]
    assert np.shares_memory(np.asarray(chunks[1][0]), states), "no copy where nothing changes"


def test_images_that_could_not_be_read_become_nan_in_the_chunk_and_not_in_the_array() -> None:
    states = np.arange(8, dtype=np.float16).reshape(4, 2)[:, ::-1]
    before = states.copy()
    chunks = image_chunks(LAYOUT, states, np.array([True, True, False, True]), NAN)
    found = [np.frombuffer(parts[0], np.float16).tolist() for parts in chunks]
    assert found[0] == [1.0, 0.0, 3.0, 2.0]
    np.testing.assert_array_equal(found[1], [np.nan, np.nan, 7.0, 6.0])
    np.testing.assert_array_equal(states, before)


def test_chunks_that_stay_are_those_of_the_shard_with_their_checksums(tmp_path: Path) -> None:
    content = {layer: [[bytes([10 * layer + chunk]) * 8] for chunk in range(2)] for layer in (0, 2)}
    (tmp_path / "c.0").write_bytes(b"".join(encode(LAYOUT, content)))
    shard = MappedShard(tmp_path / "c.0", LAYOUT)
    kept = kept_chunks(shard, 2, [0, 2], [5, 9])
    assert {index: [[bytes(part) for part in parts] for parts in chunks] for index, chunks in kept.items()} == {
        layer: [[part + checksum(part)] for (part,) in parts] for layer, parts in content.items()
    }


def test_states_with_a_chunk_that_is_damaged_or_absent_are_named(tmp_path: Path) -> None:
    content = {layer: [[bytes([layer]) * 8] for _chunk in range(2)] for layer in (0, 1)}
    harmed = bytearray(b"".join(encode(LAYOUT, content)))
    harmed[-LAYOUT.index_bytes - 5] ^= 1  # the last byte of layer 1, before its checksum
    (tmp_path / "c.0").write_bytes(harmed)
    shard = MappedShard(tmp_path / "c.0", LAYOUT)
    assert list(kept_chunks(shard, 2, [0], [5])) == [0]
    assert list(kept_chunks(shard, 1, [1], [9])) == [1], "of chunks that are not used nothing is asked"
    with pytest.raises(DamagedError) as caught:
        kept_chunks(shard, 2, [0, 1, 2], [5, 9, 12])
    assert str(caught.value) == (
        f"{tmp_path / 'c.0'} is damaged at the states [9, 12], so it cannot be extended."
        " Run `cachetool verify --repair`."
    )
