"""A store in an object store is read with few requests, and in little memory."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cachetool.store import StoreReader, open_shards
from cachetool.tokens import TokenLayout


@pytest.mark.slow
def test_one_layer_of_a_thousand_images_takes_two_requests_a_shard(object_proxy, object_root, kit) -> None:
    layout = TokenLayout(cls=1, registers=0, rows=4, columns=4)
    example = kit.make_example(layout, images=1000, channels=8, layers=tuple(range(6)), block=64)
    path = example.make(object_root / "a.zarr")
    blocks = 16
    with object_proxy.counted() as opening:
        reader = StoreReader(path)
        assert len(reader.images) == 1000
    with object_proxy.counted() as requests:
        found = reader.read("patches", 4, 0, 1000)
    np.testing.assert_array_equal(found, example.values["patches"][:, 4])
    kinds = Counter(
        "record" if ".cachetool/blocks" in one.target else "index" if one.range.startswith("bytes=-") else "range"
        for one in requests
    )
    assert kinds == {"record": blocks, "index": blocks, "range": blocks}
    ranges = [one.sent for one in requests if "patches/" in one.target and not one.range.startswith("bytes=-")]
    chunk = 8 * 16 * 8 * 2 + 4
    assert sorted(ranges) == [5 * chunk, *[8 * chunk] * 15], "each is a whole state of a block, and no more"
    # The root document, then a listing and the content of each of: layer, ids, digests, labels, names.
    assert len(opening) == 12
    with object_proxy.counted() as requests:
        reader.read("patches", 4, 100, 900)
        reader.read("patches", 3, 0, 64)
        reader.read_layers("patches", [0, 1, 2], 64, 128)
    assert len(requests) == 2, "what is in memory is not fetched again, and neighbouring states by one request"


def test_memory_does_not_grow_with_images(object_proxy, object_root, kit, monkeypatch) -> None:
    example = kit.make_example(images=12, channels=64, block=4)
    path = example.make(object_root / "a.zarr")
    state = 4 * 6 * 64 * 2 + 4
    monkeypatch.setattr(open_shards, "FETCHED_BYTES", 2 * state)
    reader = StoreReader(path)
    for _ in range(2):
        for first in range(0, 12, 4):
            expected = example.values["patches"][first : first + 4, 1]
            np.testing.assert_array_equal(reader.read("patches", 1, first, first + 4), expected)
            held = sum(shard.held_bytes for shard in reader._shards._shards.values())
            assert held <= 2 * state
    with object_proxy.counted() as requests:
        reader.read("patches", 1, 0, 4)
    assert len(requests) == 2, "it was let go of, and is checked again"
    reader.read("patches", 1, 0, 12)
    reader.read_layers("patches", [0, 1, 2, 3], 0, 12)


def test_memory_is_bounded_where_single_tokens_are_read(object_root, kit, monkeypatch) -> None:
    path = kit.make_example(images=40, channels=64, block=4).make(object_root / "a.zarr")
    state = 4 * 6 * 64 * 2 + 4
    monkeypatch.setattr(open_shards, "FETCHED_BYTES", 2 * state)
    reader = StoreReader(path)
    reader.read_tokens("patches", 1, np.arange(40), np.zeros(40, int))
    assert sum(shard.held_bytes for shard in reader._shards._shards.values()) <= 2 * state


@pytest.mark.slow
@pytest.mark.parametrize("states", [1, 4])
def test_nothing_is_fetched_twice_where_memory_holds_few_blocks(
    object_proxy, object_root, kit, monkeypatch, states
) -> None:
    path = kit.make_example(images=80, channels=64, block=4).make(object_root / "a.zarr")
    monkeypatch.setattr(open_shards, "FETCHED_BYTES", 4 * states * (4 * 6 * 64 * 2 + 4))
    reader = StoreReader(path)
    assert reader.complete.all()  # done records are read now
    with object_proxy.counted() as requests:
        reader.read_layers("patches", range(states), 0, 80)
    assert len(requests) == 2 * 20  # an index and a range of each shard
