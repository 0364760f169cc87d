"""One shard in an object store: what is fetched, how often, by whom, and what another shard in its place does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest

from cachetool.errors import DamagedError, StoreError
from cachetool.objects import Replaced
from cachetool.objects.bucket import Bucket
from cachetool.store import create
from cachetool.store.mapped_shard import MappedShard
from cachetool.store.object_shard import ObjectShard, open_shard

LAYER_BYTES = 2 * (8 * 6 * 2 * 2 + 4)
"""Two chunks of eight images, six tokens and two channels in float16."""


@pytest.fixture
def example(kit):
    return kit.make_example(images=16, channels=2, block=16)


@pytest.fixture
def path(object_root, example):
    create(object_root / "a.zarr", example.spec)
    return object_root / "a.zarr"


@pytest.fixture
def fetched(monkeypatch) -> Iterator[list[tuple[int, int]]]:
    """Ranges that were asked for."""
    ranges: list[tuple[int, int]] = []
    original = Bucket.get_range

    def get_range(self: Bucket, key: str, start: int, stop: int, tag: str | None = None) -> memoryview:
        ranges.append((start, stop))
        return original(self, key, start, stop, tag)

    monkeypatch.setattr(Bucket, "get_range", get_range)
    return ranges


def opened(path: Any, example: Any, **options: Any) -> ObjectShard:
    return ObjectShard(path / "patches" / "c.0.0.0.0", example.spec.geometry.shard_layout("patches"), **options)


def expected(example: Any, layer: int, chunk: int) -> Any:
    return example.values["patches"][8 * chunk : 8 * chunk + 8, layer].ravel()


def test_neighbours_are_fetched_together_and_nothing_twice(path, example, fetched) -> None:
    example.fill(path)
    shard = opened(path, example)
    assert (shard.held_bytes, shard.size) == (0, 4 * LAYER_BYTES + shard.layout.index_bytes)
    shard.bring([3, 1, 0])
    assert fetched == [(0, 2 * LAYER_BYTES), (3 * LAYER_BYTES, 4 * LAYER_BYTES)]
    assert shard.held_bytes == 3 * LAYER_BYTES
    shard.bring([0, 3])
    shard.bring([])
    assert len(fetched) == 2
    shard.bring([1, 2, 3])
    assert fetched[2:] == [(2 * LAYER_BYTES, 3 * LAYER_BYTES)]
    assert shard.held_bytes == 4 * LAYER_BYTES
    for layer in range(4):
        for chunk in range(2):
            assert shard.intact(layer, chunk)
            np.testing.assert_array_equal(shard.values(layer, chunk, np.float16), expected(example, layer, chunk))
    assert len(fetched) == 3


def test_layers_are_one_view_where_they_were_fetched_together(path, example) -> None:
    example.fill(path)
    shard = opened(path, example)
    shard.bring([1, 2])
    view = shard.layered_values([1, 2], 1, np.dtype(np.float16))
    np.testing.assert_array_equal(view, [expected(example, 1, 1), expected(example, 2, 1)])
    assert shard.layered_values([0, 1], 1, np.dtype(np.float16)) is None


def test_nothing_is_fetched_of_layers_that_are_absent(path, example, fetched) -> None:
    example.fill(path, [0, 2])
    shard = opened(path, example)
    shard.bring([1, 3])
    assert (fetched, shard.held_bytes) == ([], 0)
    assert not shard.has(1, 0)
    shard = opened(path, example)
    shard.bring([0, 1, 2, 3])
    assert fetched == [(0, 2 * LAYER_BYTES)]
    assert shard.intact(2, 1)


def test_threads_that_want_the_same_layer_wait_for_one_request(path, example, monkeypatch) -> None:
    example.fill(path)
    shard = opened(path, example)
    original, asked, go_on, failing = Bucket.get_range, [], Event(), [True]

    def get_range(self: Bucket, key: str, *rest: Any) -> memoryview:
        asked.append(rest)
        assert go_on.wait(60)
        if failing:
            raise StoreError("the network is down")
        return original(self, key, *rest)

    monkeypatch.setattr(Bucket, "get_range", get_range)
    with ThreadPoolExecutor(2) as pool:
        for fails in (True, False):
            go_on.clear()
            first = pool.submit(shard.bring, [0, 1])
            while not asked:
                time.sleep(0.001)
            second = pool.submit(shard.bring, [1])
            time.sleep(0.1)
            assert shard.held_bytes == 0
            go_on.set()
            if fails:
                for one in (first, second):
                    with pytest.raises(StoreError, match="the network is down"):
                        one.result(60)
                assert shard.held_bytes == 0
            else:
                first.result(60)
                second.result(60)
                assert len(asked) == 1, "the second one asked too"
            asked.clear()
            failing.clear()
    assert shard.held_bytes == 2 * LAYER_BYTES


def test_another_shard_in_its_place_is_not_read(path, example, fetched) -> None:
    example.fill(path, [0, 1])
    shard = opened(path, example)
    shard.bring([0])
    example.fill(path)
    assert shard.intact(0, 0), "this one was fetched before"
    assert not shard.intact(1, 0)
    with pytest.raises(Replaced):
        shard.values(1, 0, np.float16)
    assert not shard.checked[:, 1].any()
    shard = opened(path, example)
    shard.path.unlink()
    with pytest.raises(Replaced):
        shard.bring([0])


def test_what_is_not_all_there_is_damaged(path, example, monkeypatch) -> None:
    example.fill(path)
    shard = opened(path, example, sizes=[4 * LAYER_BYTES + 4 * 2 * 16 + 4])
    with pytest.raises(DamagedError, match=rf"{shard.path} .* expected 1 or 2 bytes, found {shard.size}\."):
        opened(path, example, sizes={2, 1})
    monkeypatch.setattr(Bucket, "get_range", lambda *_: memoryview(b"short"))
    with pytest.raises(DamagedError, match=rf"{shard.path} is damaged: bytes {LAYER_BYTES} to {2 * LAYER_BYTES}"):
        shard.bring([1])
    shard.path.unlink()
    with pytest.raises(DamagedError, match=rf"{shard.path} is missing, though it is recorded as done\."):
        opened(path, example)


def test_a_shard_is_opened_where_it_lies_with_all_that_it_promises(path, example, tmp_path) -> None:
    example.fill(path)
    layout, place = example.spec.geometry.shard_layout("patches"), path / "patches" / "c.0.0.0.0"
    (tmp_path / "c.0").write_bytes(place.read_bytes())
    for where, kind in ((place, ObjectShard), (tmp_path / "c.0", MappedShard)):
        shard = open_shard(where, layout, {1: {5}}, [4 * LAYER_BYTES + layout.index_bytes])
        assert type(shard) is kind
        assert (shard.path, shard.intact(0, 0), shard.intact(1, 0)) == (where, True, False)
        assert open_shard(where, layout).intact(1, 0)
    with pytest.raises(DamagedError, match="expected 7 bytes"):
        open_shard(place, layout, {}, [7])


def test_a_source_that_may_remember_another_size_is_told_which_to_expect(path, example, monkeypatch) -> None:
    example.fill(path)
    original, told = Bucket.get_end, []

    def get_end(self: Bucket, key: str, length: int, sizes: Any = None) -> Any:
        told.append((length, sizes))
        return original(self, key, length, sizes)

    monkeypatch.setattr(Bucket, "get_end", get_end)
    shard = opened(path, example)
    opened(path, example, sizes={shard.size})
    assert told == [(shard.layout.index_bytes, None), (shard.layout.index_bytes, {shard.size})]
