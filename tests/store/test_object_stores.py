"""A store in an object store is that on a disk, byte by byte, and its damage is refused as there."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from cachetool.errors import DamagedError, KeyMismatchError
from cachetool.objects import tree_bytes, zarr_store
from cachetool.store import (
    SmallArray,
    StateDigests,
    StoreReader,
    StoreWriter,
    check_block,
    check_tables,
    create,
    extend,
)
from cachetool.store.object_shard import ObjectShard


def everything(path, example) -> None:
    """All that changes a store, one after the other."""
    create(path, example.spec)
    example.fill(path, [1, 2], ["cls", "patches"])
    example.fill(path, [0, 3])
    writer = StoreWriter(path)
    writer.write_block(1, example.arrays(1, [2], ["registers"], 10), [2], {example.spec.images.image_id[5]: "cut"})
    writer.write_image_arrays({"donor": SmallArray(np.arange(10), ["image"])})
    writer.write_image_arrays({"donor": SmallArray(np.arange(10) * 2, ["image"], {"units": "1"})})
    writer.update_facts({"environment": {"threads": 1}})
    writer.discard(0)
    example.fill(path)


def test_the_same_work_leaves_the_same_bytes(object_root, tmp_path, example, kit) -> None:
    path = object_root / "a.zarr"
    everything(tmp_path / "a.zarr", example)
    everything(path, example)
    found, expected = kit.objects(path), kit.tree(tmp_path / "a.zarr")
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert tree_bytes(path) == sum(map(len, expected.values()))
    reader, like = StoreReader(path), StoreReader(tmp_path / "a.zarr")
    assert reader.spec.facts == like.spec.facts
    assert reader.readable.tolist() == like.readable.tolist()
    assert reader.array("donor").tolist() == like.array("donor").tolist()
    for name in reader.spec.token_types:
        np.testing.assert_array_equal(reader.read(name, 2, 1, 9), like.read(name, 2, 1, 9))
        layered = reader.read_layers(name, [3, 0, 1], 0, 10)
        np.testing.assert_array_equal(layered, like.read_layers(name, [3, 0, 1], 0, 10))
    np.testing.assert_array_equal(reader.read_state(3, 2, 10), like.read_state(3, 2, 10))
    images, tokens = np.array([9, 0, 5]), np.array([1, 3, 5])
    np.testing.assert_array_equal(
        reader.read_tokens("patches", 0, images, tokens), like.read_tokens("patches", 0, images, tokens)
    )
    states = {"cls": [0, 3], "patches": [2]}
    assert StateDigests(path).of(states) == StateDigests(tmp_path / "a.zarr").of(states)
    assert [check_block(path, block) for block in range(3)] == [[], [], []]
    assert check_tables(path) == {}


def test_plain_readers_see_the_same(object_root, tmp_path, example) -> None:
    path = example.make(object_root / "a.zarr")
    expected = xr.open_zarr(example.make(tmp_path / "a.zarr")).load()
    xr.testing.assert_identical(xr.open_zarr(zarr_store(path)).load(), expected)


def test_a_store_grows(object_root, example, kit) -> None:
    path = object_root / "a.zarr"
    larger = kit.make_example(images=14)
    smaller = kit.make_example(images=10)
    create(path, smaller.spec)
    larger.fill(path)
    extend(path, images=larger.spec.images)
    assert larger.fill(path) == 2, "the last block was partly filled"
    larger.check(path)
    with pytest.raises(KeyMismatchError):
        extend(path, images=smaller.spec.images)


def test_damage_is_refused_by_name(object_root, example) -> None:
    path = example.make(object_root / "a.zarr")
    shard = path / "patches" / "c.1.0.0.0"
    sound = shard.read_bytes()
    for damage, said in (
        (sound[:100] + bytes([sound[100] ^ 1]) + sound[101:], "do not match their checksum or done record"),
        (sound[:-1] + bytes([sound[-1] ^ 1]), "the checksum of its index does not match"),
        (sound[:-8], "expected .* bytes, found"),
        (sound + b"more", "expected .* bytes, found"),
        (b"", "expected .* bytes, found 0"),
        ((path / "patches" / "c.0.0.0.0").read_bytes(), "do not match their checksum or done record"),
    ):
        shard.put(damage)
        with pytest.raises(DamagedError, match=said) as caught:
            StoreReader(path).read("patches", 0, 0, 10)
        assert str(shard) in str(caught.value)
        assert check_block(path, 1) != []
        assert StoreWriter(path).pending([0], ["patches"]) == ([] if len(damage) == len(sound) else [1])
    shard.unlink()
    with pytest.raises(DamagedError, match="is missing, though it is recorded as done"):
        StoreReader(path).read("patches", 0, 0, 10)
    with pytest.raises(DamagedError, match="is missing"):
        ObjectShard(shard, example.spec.geometry.shard_layout("patches"))
    shard.put(sound)
    example.check(path)
    (path / "image_id" / "c.0").unlink()
    with pytest.raises(DamagedError, match="image_id"):
        StoreReader(path)
