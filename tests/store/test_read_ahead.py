"""Threads that read ahead change nothing: the same values, the same errors, a bound on what is open, nothing stale."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

from cachetool.errors import DamagedError
from cachetool.store import StoreReader, create, mapped_shard, open_shards
from cachetool.store.reading_ahead import AHEAD, worked_on_ahead


@pytest.mark.parametrize("large", [True, False])
def test_what_is_read_ahead_is_what_zarr_reads(tmp_path, kit, monkeypatch, large) -> None:
    if not large:
        monkeypatch.setattr(mapped_shard, "_read_large_pages", lambda mapped: False)
    example = kit.make_example(images=150, channels=64, block=16)
    path = example.make(tmp_path / "a.zarr")
    plain = zarr.open_group(path, mode="r")
    reader = StoreReader(path)
    for _ in range(2):  # the second time all is known
        for start, stop in ((0, 150), (5, 149), (17, 18), (20, 20)):
            for name in ("patches", "registers"):
                expected = np.asarray(plain[name][start:stop]).swapaxes(0, 1)
                found = reader.read_layers(name, [3, 0, 1], start, stop)
                assert found.tobytes() == np.ascontiguousarray(expected[[3, 0, 1]]).tobytes()
                assert reader.read(name, 2, start, stop).tobytes() == expected[2].tobytes()


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("way", ["read", "read_layers", "read_float32", "read_state"])
def test_damage_in_any_block_raises_whatever_the_way(tmp_path, kit, monkeypatch, large, way) -> None:
    if not large:
        monkeypatch.setattr(mapped_shard, "_read_large_pages", lambda mapped: False)
    example = kit.make_example(images=40, block=4)
    path = example.make(tmp_path / "a.zarr")
    arguments = {"read_layers": ("patches", [1, 2], 0, 40), "read_state": (2, 0, 40)}.get(way, ("patches", 2, 0, 40))
    for block in (0, 6, 9):
        shard = path / "patches" / f"c.{block}.0.0.0"
        sound = shard.read_bytes()
        harmed = bytearray(sound)
        harmed[len(sound) // 2 + 10] ^= 1
        shard.write_bytes(harmed)
        reader = StoreReader(path)
        for _ in range(2):
            with pytest.raises(DamagedError, match=rf"c\.{block}\.0\.0\.0 is damaged .*state 2"):
                getattr(reader, way)(*arguments)
        shard.write_bytes(sound)
    getattr(StoreReader(path), way)(*arguments)


def test_views_are_let_go_with_their_shards(tmp_path, kit, monkeypatch) -> None:
    monkeypatch.setattr(open_shards, "OPEN_SHARDS", 3)
    example = kit.make_example(images=40, block=4)
    reader = StoreReader(example.make(tmp_path / "a.zarr"))
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.is_dir() else None
    for _ in range(2):
        found = reader.read_layers("registers", [0, 3], 0, 40)
        np.testing.assert_array_equal(found, example.values["registers"][:, [0, 3]].swapaxes(0, 1))
    assert len(reader._shards.known_views("registers", (0, 3))) <= 3
    if before is not None:
        assert len(list(descriptors.iterdir())) <= before + 3


def test_views_of_a_replaced_shard_are_let_go(tmp_path, example) -> None:
    path = tmp_path / "a.zarr"
    create(path, example.spec)
    example.fill(path, [1, 3])
    reader = StoreReader(path)
    for _ in range(2):
        reader.read_layers("registers", [1, 3], 0, 10)
    assert len(reader._shards.known_views("registers", (1, 3))) == 3
    example.fill(path)
    found = reader.read_layers("registers", [0, 1, 2, 3], 0, 10)
    np.testing.assert_array_equal(found, example.values["registers"].swapaxes(0, 1))
    assert reader._shards.known_views("registers", (1, 3)) == {}
    found = reader.read_layers("registers", [1, 3], 0, 10)
    np.testing.assert_array_equal(found, example.values["registers"][:, [1, 3]].swapaxes(0, 1))


def test_threads_read_the_same(tmp_path, kit) -> None:
    example = kit.make_example(images=64, channels=32, block=4)
    reader = StoreReader(example.make(tmp_path / "a.zarr"))
    found: list[bytes] = []

    def work() -> None:
        found.extend(reader.read_layers("registers", [0, 2], 0, 64).tobytes() for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = np.ascontiguousarray(example.values["registers"][:, [0, 2]].swapaxes(0, 1)).tobytes()
    assert found == [expected] * 20


def test_items_come_in_order_and_no_more_are_begun_than_said() -> None:
    begun: list[int] = []
    for position, item in enumerate(worked_on_ahead(begun.append, range(20))):
        assert item == position
        assert set(range(item + 1)) <= set(begun) <= set(range(item + 1 + AHEAD))


@pytest.mark.parametrize(("items", "ahead"), [(2, AHEAD), (AHEAD, AHEAD), (40, 40)])
def test_items_are_worked_on_at_the_same_time_by_threads_that_say_what_for(items, ahead) -> None:
    together = threading.Barrier(items)
    names: set[str] = set()

    def work(item: int) -> None:
        names.add(threading.current_thread().name)
        together.wait(60)

    assert list(worked_on_ahead(work, range(items), ahead)) == list(range(items))
    assert names == {f"cachetool-read_{number}" for number in range(items)}


def test_one_item_is_worked_on_where_it_is_asked_for() -> None:
    threads = []
    assert list(worked_on_ahead(lambda item: threads.append(threading.current_thread()), ["a"])) == ["a"]
    assert threads == [threading.current_thread()]
    assert list(worked_on_ahead(threads.append, [])) == []


def test_what_fails_ahead_is_raised_in_its_place() -> None:
    def work(item: int) -> None:
        if item == 3:
            raise DamagedError("three")

    done = []
    with pytest.raises(DamagedError, match="three"):
        done.extend(worked_on_ahead(work, range(9)))
    assert done == [0, 1, 2]
