"""Shards that are open: the latest used, checked once, and opened again where another process replaced them."""

from __future__ import annotations

import numpy as np
import pytest

from cachetool.errors import DamagedError
from cachetool.store import StoreWriter, create, open_shards
from cachetool.store.finished import FinishedBlocks
from cachetool.store.open_shards import OpenShards
from cachetool.store.opened import OpenedStore
from cachetool.store.reading_ahead import AHEAD


def opened(path, *, verify: bool = True) -> OpenShards:
    store = OpenedStore(path)
    return OpenShards(store, FinishedBlocks(store), verify=verify)


def harm(path, name: str, position: int) -> bytes:
    sound = (path / name).read_bytes()
    harmed = bytearray(sound)
    harmed[position] ^= 1
    (path / name).write_bytes(harmed)
    return sound


@pytest.fixture
def path(tmp_path, example):
    return example.make(tmp_path / "a.zarr")


def test_the_least_recently_used_shard_is_closed(path, monkeypatch) -> None:
    monkeypatch.setattr(open_shards, "OPEN_SHARDS", 2)
    shards = opened(path)
    zero, one = shards.get("cls", 0, 0), shards.get("cls", 1, 0)
    assert shards.get("cls", 0, 3) is zero
    shards.get("cls", 2, 0)
    assert shards.get("cls", 0, 0) is zero, "used after the other"
    assert shards.get("cls", 1, 0) is not one
    assert shards.get("cls", 1, 0).path == path / "cls" / "c.1.0.0"


def test_what_was_checked_stays_checked_where_the_file_is_the_same(path, example, monkeypatch) -> None:
    monkeypatch.setattr(open_shards, "OPEN_SHARDS", 1)
    shards = opened(path)
    one, all_chunks = [1], slice(0, 1)
    assert not shards.was_read("cls", 0, one, all_chunks)
    shards.chunk("cls", 0, 1, 0)
    assert shards.was_read("cls", 0, one, all_chunks)
    assert not shards.was_read("cls", 0, [1, 2], all_chunks)
    shards.get("cls", 1, 0)
    assert shards.get("cls", 0, 0).checked.tolist() == [[False, True, False, False]]
    content = (path / "cls" / "c.1.0.0").read_bytes()
    shards.chunk("cls", 1, 2, 0)
    (path / "cls" / "copy").write_bytes(content)
    (path / "cls" / "copy").rename(path / "cls" / "c.1.0.0")
    shards.get("cls", 0, 0)
    assert not shards.get("cls", 1, 0).checked.any(), "another file of the same size"
    assert not shards.was_read("cls", 1, [2], all_chunks)


def test_chunks_are_whole_and_have_their_shape(path, example) -> None:
    shards = opened(path)
    for name, tokens in (("cls", 1), ("registers", 2), ("patches", 6)):
        chunk = shards.chunk(name, 2, 3, 0)
        assert chunk.shape == (4, tokens, 5)
        np.testing.assert_array_equal(chunk[:2], example.values[name][8:, 3])
        assert np.isnan(chunk[2:]).all()
        layered = shards.layered_chunk(name, 1, (3, 0), (3, 0), 0)
        np.testing.assert_array_equal(layered, example.values[name][4:8, [3, 0]].swapaxes(0, 1))


@pytest.mark.parametrize("layered", [False, True])
def test_a_shard_that_was_replaced_by_a_sound_one_is_opened_again(path, example, layered) -> None:
    shards = opened(path)
    sound = harm(path, "registers/c.0.0.0.0", 3)
    shards.get("registers", 0, 0)
    (path / "registers" / "new").write_bytes(sound)
    (path / "registers" / "new").rename(path / "registers" / "c.0.0.0.0")
    if layered:
        found = shards.layered_chunk("registers", 0, (0, 1), (0, 1), 0)
        np.testing.assert_array_equal(found, example.values["registers"][:4, :2].swapaxes(0, 1))
    else:
        np.testing.assert_array_equal(shards.chunk("registers", 0, 0, 0), example.values["registers"][:4, 0])


@pytest.mark.parametrize(("block", "images"), [(0, "0 to 3"), (2, "8 to 9")])
def test_damage_is_named_and_read_only_without_checks(path, example, block, images) -> None:
    harm(path, f"patches/c.{block}.0.0.0", 0)
    shards = opened(path)
    with pytest.raises(DamagedError) as caught:
        shards.chunk("patches", block, 0, 0)
    assert str(caught.value) == (
        f"{path / 'patches' / f'c.{block}.0.0.0'} is damaged at the images {images}, state 0: the stored bytes do not"
        " match their checksum or done record. Run `cachetool verify --repair`."
    )
    with pytest.raises(DamagedError, match="state 0"):
        shards.layered_chunk("patches", block, (1, 0), (1, 0), 0)
    np.testing.assert_array_equal(
        shards.chunk("patches", block, 1, 0)[:2], example.values["patches"][4 * block :][:2, 1]
    )
    assert not np.array_equal(
        opened(path, verify=False).chunk("patches", block, 0, 0).view(np.uint16)[0, 0],
        example.values["patches"].view(np.uint16)[4 * block, 0, 0],
    )


def test_views_are_known_by_states_and_first_image(tmp_path, kit) -> None:
    example = kit.make_example(images=20, block=16)
    shards = opened(example.make(tmp_path / "b.zarr"))
    assert shards.known_views("patches", (0, 1)) == {}
    shards.layered_chunk("patches", 0, (0, 1), (0, 1), 1)
    shards.layered_chunk("patches", 1, (0, 1), (0, 1), 0)
    views = shards.known_views("patches", (0, 1))
    assert sorted(views) == [8, 16]
    np.testing.assert_array_equal(views[8], example.values["patches"][8:16, :2].swapaxes(0, 1))
    assert shards.known_views("patches", (1, 0)) == shards.known_views("cls", (0, 1)) == {}


def test_states_at_uneven_distances_are_put_together_and_not_kept(path, example) -> None:
    shards = opened(path)
    found = shards.layered_chunk("registers", 0, (0, 1, 3), (0, 1, 3), 0)
    np.testing.assert_array_equal(found, example.values["registers"][:4, [0, 1, 3]].swapaxes(0, 1))
    assert shards.known_views("registers", (0, 1, 3)) == {}


def test_a_shard_with_more_states_takes_the_place_of_the_one_before(tmp_path, example) -> None:
    path = tmp_path / "b.zarr"
    create(path, example.spec)
    example.fill(path, [1])
    shards = opened(path)
    assert not shards.get("cls", 0, 1).has(2, 0)
    example.fill(path)
    assert shards.get("cls", 0, 1).has(2, 0) is False, "still good for what it holds"
    assert shards.get("cls", 0, 2).has(2, 0)


def test_a_shard_that_another_thread_closed_meanwhile_is_opened_again_and_its_view_is_not_kept(path, example) -> None:
    shards = opened(path)
    sound = harm(path, "registers/c.0.0.0.0", 3)
    shard, look = shards.get("registers", 0, 0), shards._finished.record

    def replaced(block: int, *, renew: bool = False):
        shards._shards.clear()
        (path / "registers" / "new").write_bytes(sound)
        (path / "registers" / "new").rename(path / "registers" / "c.0.0.0.0")
        shards._finished.record = look
        return look(block, renew=renew)

    shards._finished.record = replaced
    np.testing.assert_array_equal(shards.chunk("registers", 0, 0, 0), example.values["registers"][:4, 0])
    shard = shards.get("registers", 0, 0)
    view = shard.layered_values

    def closed(*arguments):
        shards._shards.clear()
        return view(*arguments)

    shard.layered_values = closed
    found = shards.layered_chunk("registers", 0, (0, 1), (0, 1), 0)
    np.testing.assert_array_equal(found, example.values["registers"][:4, :2].swapaxes(0, 1))
    assert shards.known_views("registers", (0, 1)) == {}


def test_as_many_blocks_are_read_ahead_as_memory_holds_beside_the_one_in_hand(
    object_root, tmp_path, kit, monkeypatch
) -> None:
    example, chunk = kit.make_example(images=20, block=16), 8 * 6 * 5 * 2 + 4
    assert opened(example.make(tmp_path / "a.zarr")).ahead("patches", 1) == AHEAD
    shards = opened(example.make(object_root / "a.zarr"))
    assert shards.ahead("patches", 4) == open_shards.FETCHED_AHEAD
    for chunks, states, expected in ((7, 1, 2), (8, 1, 3), (12, 2, 2), (18, 1, 8), (99, 1, 8), (8, 4, 0), (7, 4, -1)):
        monkeypatch.setattr(open_shards, "FETCHED_BYTES", chunks * chunk)
        assert shards.ahead("patches", states) == expected


def test_of_what_was_fetched_the_oldest_goes_as_far_as_it_has_to(object_root, kit, monkeypatch) -> None:
    example, state = kit.make_example(images=20, block=4), 4 * 6 * 5 * 2 + 4
    shards = opened(example.make(object_root / "a.zarr"))

    def kept(block: int, layers: list[int]) -> list[int]:
        shards.bring("patches", block, layers, slice(0, 1))
        return [block for kind, block in shards._shards if kind == "patches"]

    monkeypatch.setattr(open_shards, "FETCHED_BYTES", 3 * state)
    assert [kept(block, [1]) for block in (0, 1, 2, 0, 3)] == [[0], [0, 1], [0, 1, 2], [1, 2, 0], [2, 0, 3]]
    assert kept(0, [2]) == [3, 0], "two states"
    assert kept(1, [0, 1, 2, 3]) == [1], "one may be more"
    assert kept(2, [0]) == [2]
    first, _second = shards.get("patches", 2, 0), kept(3, [0])
    monkeypatch.setattr(open_shards, "FETCHED_BYTES", 1)
    shards._let_go(first)
    assert list(shards._shards) == [("patches", 2)], "the one that was just fetched stays, also where it is the oldest"


def test_what_is_fetched_again_is_checked_again(object_root, example, monkeypatch) -> None:
    shards = opened(example.make(object_root / "a.zarr"))
    shards.chunk("cls", 0, 1, 0)
    assert shards.was_read("cls", 0, [1], slice(0, 1))
    monkeypatch.setattr(open_shards, "OPEN_SHARDS", 1)
    shards.get("cls", 1, 1)
    assert not shards.was_read("cls", 0, [1], slice(0, 1))


def test_a_shard_that_goes_with_its_record_is_missing(object_root, example) -> None:
    path = example.make(object_root / "a.zarr")
    shards = opened(path)
    shards._finished.record(0)
    StoreWriter(path).discard(0)
    (path / "cls" / "c.0.0.0").unlink()
    with pytest.raises(DamagedError, match=r"cls/c\.0\.0\.0 is missing, though it is recorded as done"):
        shards.get("cls", 0, 0)


def test_a_block_that_was_written_again_since_its_record_was_read_is_opened_by_the_new_one(
    object_root, example
) -> None:
    path = object_root / "a.zarr"
    create(path, example.spec)
    example.fill(path, [1, 3])
    shards = opened(path)
    shards._finished.record(0)
    example.fill(path)
    for name in ("patches", "cls"):
        np.testing.assert_array_equal(shards.chunk(name, 0, 1, 0), example.values[name][:4, 1])


def test_damage_is_named_by_the_images_of_its_chunk(tmp_path, kit) -> None:
    path = kit.make_example(images=40, block=16).make(tmp_path / "b.zarr")
    harm(path, "patches/c.1.0.0.0", 8 * 6 * 5 * 2 + 4)
    shards = opened(path)
    shards.chunk("patches", 1, 0, 0)
    with pytest.raises(DamagedError, match=r"c\.1\.0\.0\.0 is damaged at the images 24 to 31, state 0"):
        shards.chunk("patches", 1, 0, 1)
