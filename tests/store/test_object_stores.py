"""A store in an object store is that on a disk, byte by byte, is read with few requests, and never half."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import xarray as xr

from cachetool.errors import DamagedError, IncompleteError, KeyMismatchError, MissingDataError, StoreError
from cachetool.objects import ObjectPath, tree_bytes, zarr_store
from cachetool.removing import remove_store
from cachetool.store import (
    SmallArray,
    StateDigests,
    StoreReader,
    StoreWriter,
    check_block,
    check_tables,
    create,
    extend,
    object_lock,
    open_shards,
)
from cachetool.store.extend import merge_facts
from cachetool.store.object_shard import ObjectShard
from cachetool.tokens import TokenLayout

KILLS = int(os.environ.get("CACHETOOL_KILLS", "6"))


def objects(path) -> dict[str, bytes]:
    """All objects of a store by relative key."""
    return {one.key.removeprefix(f"{path.key}/"): one.read_bytes() for one, _found in path.walk_objects()}


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
    found, expected = objects(path), kit.tree(tmp_path / "a.zarr")
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


def test_a_block_that_is_written_again_while_it_is_read(object_root, example) -> None:
    path = object_root / "a.zarr"
    create(path, example.spec)
    example.fill(path, [1, 3])
    reader = StoreReader(path)
    np.testing.assert_array_equal(reader.read("patches", 3, 0, 10), example.values["patches"][:, 3])
    example.fill(path, [0, 1, 2, 3])
    for layer in (1, 0, 3, 2):
        np.testing.assert_array_equal(reader.read("patches", layer, 0, 10), example.values["patches"][:, layer])
        np.testing.assert_array_equal(reader.read("cls", layer, 0, 10)[:, 0], example.values["cls"][:, layer, 0])


@pytest.mark.parametrize("verify", [True, False])
def test_a_shard_that_was_replaced_between_index_and_range(object_root, example, verify) -> None:
    path = object_root / "a.zarr"
    create(path, example.spec)
    example.fill(path, [2])
    reader = StoreReader(path, verify=verify)
    reader._shards.get("patches", 0, 2)
    example.fill(path, [0, 1, 2])
    np.testing.assert_array_equal(reader.read("patches", 2, 0, 4), example.values["patches"][:4, 2])


def test_states_of_a_shard_that_was_replaced_are_read_together(object_root, example) -> None:
    path = object_root / "a.zarr"
    create(path, example.spec)
    example.fill(path, [1, 2])
    reader = StoreReader(path)
    reader._shards.get("patches", 0, 1)
    example.fill(path)
    found = reader._shards.layered_chunk("patches", 0, (1, 2), (1, 2), 0)
    np.testing.assert_array_equal(found[:, :4], example.values["patches"][:4, 1:3].swapaxes(0, 1))


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


def killed(path: ObjectPath) -> None:
    raise KeyboardInterrupt


def test_there_is_no_store_before_its_root_document(object_root, example, monkeypatch) -> None:
    path = object_root / "a.zarr"
    with pytest.raises(MissingDataError, match="There is no store"):
        StoreReader(path)
    example.make(path)
    with pytest.raises(StoreError, match="something is there already"):
        create(path, example.spec)
    example.check(path)
    # What a removal, killed after its first step, leaves: blocks that say that they are finished.
    with monkeypatch.context() as patch:
        patch.setattr("cachetool.store.object_folders._remove_below", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_store(path)
    assert len(objects(path)) > 30
    with pytest.raises(MissingDataError):
        StoreReader(path)
    create(path, example.spec)
    assert len(StoreWriter(path).pending([0], ["cls"])) == 3
    with pytest.raises(IncompleteError):
        StoreReader(path).read("cls", 0, 0, 4)
    example.fill(path)
    example.check(path)
    remove_store(path)
    assert objects(path) == {}


@pytest.mark.parametrize(
    "key",
    ["notes.txt", ".zgroup", "patches/.zarray", "patches/0.0", "b.zarr/zarr.json", "patches/c/0/x", "x/y/zarr.json"],
)
def test_nothing_that_others_put_there_is_removed(object_root, example, key) -> None:
    path = object_root / "a.zarr"
    (path / key).put(b"theirs")
    (path / "patches" / "zarr.json").put(b"left by a killed process")
    (path / ".cachetool" / "unfinished").put(b'{"arrays": ["cls", "patches"]}')
    before = objects(path)
    with pytest.raises(StoreError, match=rf"there already, such as {re.escape(str(path / key))} \(1 in all\)"):
        create(path, example.spec)
    assert objects(path) == before


@pytest.mark.parametrize(
    ("name", "mark"),
    [("mine", None), ("patches", None), ("mine", b""), ("mine", b'{"arrays": 3}'), ("mine", b'{"arrays": ["cls"]}')],
)
def test_an_array_that_others_put_there_is_not_removed(object_root, example, name, mark) -> None:
    path = object_root / "a.zarr"
    for key in ("zarr.json", "c/0/0", "c.0.0"):
        (path / name / key).put(b"theirs")
    if mark is not None:
        (path / ".cachetool" / "unfinished").put(mark)
    before = objects(path)
    for _ in range(2):
        with pytest.raises(StoreError, match="objects that are of no store at this place are there already"):
            create(path, example.spec)
        assert objects(path) == before


def test_what_a_killed_creation_or_a_late_writer_left_goes(object_root, example, monkeypatch) -> None:
    path = object_root / "a.zarr"
    original = ObjectPath.create

    def killed_before_the_root(one: ObjectPath, content: bytes) -> bool:
        if one == path / "zarr.json":
            raise KeyboardInterrupt
        return original(one, content)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectPath, "create", killed_before_the_root)
        with pytest.raises(KeyboardInterrupt):
            create(path, example.spec)
    assert "patches/zarr.json" in objects(path)
    create(path, example.spec)
    assert ".cachetool/unfinished" not in objects(path)
    remove_store(path)
    for key in ("patches/c.1.0.0.0", "complete/c.1.0.0", ".cachetool/blocks/0000001.json"):
        (path / key).put(b"late")
    example.make(path)
    example.check(path)


def test_a_store_above_others_is_refused(object_root, example) -> None:
    path = example.make(object_root / "a.zarr")
    for above in (object_root, ObjectPath("s3://bucket")):
        with pytest.raises(StoreError, match="objects that are of no store at this place are there already"):
            create(above, example.spec)
    example.check(path)


def test_a_block_is_as_it_was_where_a_shard_cannot_be_put(object_proxy, object_root, example) -> None:
    path = object_root / "a.zarr"
    create(path, example.spec)
    writer = StoreWriter(path)
    writer.write_block(1, example.arrays(1, [1], example.spec.token_types, 10), [1])

    def refused(method: str, target: str) -> str | None:
        return "deny" if method == "PUT" and "patches/c.1" in target else None

    more = example.arrays(1, [0, 1], example.spec.token_types, 10)
    with object_proxy.spoiling(refused), pytest.raises(StoreError, match=r"patches/c\.1.*access is denied"):
        writer.write_block(1, more, [0, 1])
    for name in example.spec.token_types:
        expected = example.values[name][4:8]
        np.testing.assert_array_equal(StoreReader(path).read(name, 1, 4, 8), expected[:, 1])
    writer.write_block(1, more, [0, 1])
    for name in example.spec.token_types:
        np.testing.assert_array_equal(StoreReader(path).read(name, 0, 4, 8), example.values[name][4:8, 0])


CHILD = """
import sys
from cachetool.store import StoreWriter, create
from tests.store.conftest import make_example
path, images, layers = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3])
from cachetool.errors import StoreError
example = make_example(images=images, channels=64)
try:
    create(path, example.spec)
except StoreError as error:
    assert "already" in str(error), error
example.fill(path, layers)
"""


@pytest.mark.slow
def test_a_process_killed_at_random_moments(object_root, tmp_path, kit) -> None:
    example = kit.make_example(images=80, channels=64)
    create(tmp_path / "whole.zarr", example.spec)
    for layers in ([1, 2], [0, 1, 2, 3]):
        example.fill(tmp_path / "whole.zarr", layers)
    expected = kit.tree(tmp_path / "whole.zarr")
    moments, kills, rounds = random.Random(0), 0, 0
    while kills < KILLS:
        path, rounds = object_root / f"round-{rounds}.zarr", rounds + 1
        for layers in ("[1, 2]", "[0, 1, 2, 3]"):
            finished: dict[str, bytes] = {}
            while True:
                child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), "80", layers])
                if kills < KILLS:
                    blocks = len(finished) + moments.randrange(8)
                    while child.poll() is None and len(list((path / ".cachetool" / "blocks").iterdir())) < blocks:
                        time.sleep(0.01)
                    time.sleep(moments.uniform(0, 0.1))
                    if child.poll() is None:
                        child.send_signal(signal.SIGKILL)
                        kills += 1
                code = child.wait()
                if (path / "zarr.json").is_file():
                    now = objects(path)
                    records = {name: content for name, content in now.items() if "/blocks/" in name}
                    held = {block: json.loads(content)["layers"] for block, content in records.items()}
                    for name, layers_before in finished.items():
                        kept = all(set(old) <= set(held[name][kind]) for kind, old in layers_before.items())
                        assert kept, "something finished was lost"
                    finished = held
                if code == 0:
                    break
        assert objects(path) == expected
        example.check(path)


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


def test_who_lost_the_guard_overwrites_nothing(object_root, kit, monkeypatch) -> None:
    path = kit.make_example(images=4, channels=8, block=4).make(object_root / "a.zarr")

    def stalled(_now):
        with monkeypatch.context() as patch:
            patch.setattr(object_lock, "ABANDONED_SECONDS", 0.3)
            merge_facts(path, {"theirs": 2})
        return {"ours": 1}

    with pytest.raises(StoreError, match="changed by somebody else"):
        merge_facts(path, stalled)
    facts = StoreReader(path).spec.facts
    assert facts["theirs"] == 2
    assert "ours" not in facts


def test_a_store_that_another_made_at_the_same_time_is_theirs(object_root, example, monkeypatch) -> None:
    path, original = object_root / "a.zarr", ObjectPath.create

    def late(one: ObjectPath, content: bytes) -> bool:
        if one == path / "zarr.json":
            one.put(b"theirs")
        return original(one, content)

    monkeypatch.setattr(ObjectPath, "create", late)
    with pytest.raises(StoreError, match="something is there already"):
        create(path, example.spec)
    assert (path / "zarr.json").read_bytes() == b"theirs"
