"""Every kind of damage is refused by the reader and named by the checker."""

from __future__ import annotations

import os
import pickle
import shutil

import numpy as np
import pytest

from cachetool.errors import DamagedError, IncompleteError, StoreError
from cachetool.store import StoreReader, StoreWriter, check_block, check_flags, check_tables, create


@pytest.fixture
def path(tmp_path, kit):
    return kit.make_example(images=4, channels=2, layers=(0, 1), block=2).make(tmp_path / "a.zarr")


def read_all(path) -> None:
    reader = StoreReader(path)
    for name in reader.spec.token_types:
        for layer in reader.spec.layers:
            reader.read(name, layer, 0, len(reader.images))


@pytest.mark.parametrize("name", ["cls/c.1.0.0", "registers/c.1.0.0.0", "patches/c.0.0.0.0"])
def test_every_flipped_bit_raises(path, name) -> None:
    shard = path / name
    sound = shard.read_bytes()
    rng = np.random.default_rng(0)
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << int(rng.integers(8))
        shard.write_bytes(damaged)
        with pytest.raises(DamagedError, match=name.partition("/")[0]):
            read_all(path)
    assert check_block(path, int(name.split(".")[1]))
    shard.write_bytes(sound)
    read_all(path)


def test_damage_is_named_by_file_images_and_state(path) -> None:
    shard = path / "patches" / "c.1.0.0.0"
    data = bytearray(shard.read_bytes())
    data[2 * 6 * 2 * 2 + 4 + 5] ^= 1
    shard.write_bytes(data)
    reader = StoreReader(path)
    reader.read("patches", 0, 0, 4)
    reader.read("patches", 1, 0, 2)
    with pytest.raises(DamagedError, match=r"c\.1\.0\.0\.0 is damaged at the images 2 to 3, state 1: "):
        reader.read("patches", 1, 1, 3)
    with pytest.raises(DamagedError):
        reader.read_tokens("patches", 1, np.array([0, 3]), np.array([0, 0]))
    StoreReader(path, verify=False).read("patches", 1, 1, 3)
    assert check_block(path, 1) == ["patches/c.1.0.0.0: images 2 to 3, state 1 do not match their checksum"]
    assert check_block(path, 0) == []


@pytest.mark.parametrize("harm", [lambda f: f.unlink(), lambda f: os.truncate(f, 0), lambda f: os.truncate(f, 99)])
def test_missing_empty_and_truncated_shards_are_refused_and_done_again(path, harm) -> None:
    harm(path / "registers" / "c.0.0.0.0")
    with pytest.raises(DamagedError, match=r"registers/c\.0\.0\.0\.0: expected \d+ bytes, found"):
        read_all(path)
    assert "registers/c.0.0.0.0: expected" in check_block(path, 0)[0]
    assert StoreWriter(path).pending([0], ["cls"]) == [0]


def test_a_shard_of_another_block_is_found_by_the_checker(path) -> None:
    shutil.copy(path / "cls" / "c.0.0.0", path / "cls" / "c.1.0.0")
    assert check_block(path, 1) == [
        "cls/c.1.0.0: its bytes are consistent, but they are not those that its done record vouches for"
    ]


def test_unfinished_data_is_refused_by_name(tmp_path, example) -> None:
    path = tmp_path / "a.zarr"
    create(path, example.spec)
    StoreWriter(path).write_block(1, example.arrays(1, [1], ["cls"], 10), [1])
    reader = StoreReader(path)
    assert reader.read("cls", 1, 4, 8).shape == (4, 1, 5)
    with pytest.raises(IncompleteError, match=r"state 1 of cls in the blocks 0, 2"):
        reader.read("cls", 1, 3, 9)
    with pytest.raises(IncompleteError, match=r"1 of registers in the blocks 1; state 1 of patches in the blocks 1"):
        reader.read_state(1, 4, 8)
    with pytest.raises(IncompleteError, match=r"state 9 of cls \(the store holds \[0, 1, 2, 3\]\)"):
        reader.read("cls", 9, 4, 8)
    with pytest.raises(StoreError, match="10 images; 4 to 11"):
        reader.read("cls", 1, 4, 11)
    with pytest.raises(StoreError, match="numbered 0 to 0; found 0 to 1"):
        reader.read_tokens("cls", 1, np.array([4, 4]), np.array([0, 1]))
    with pytest.raises(StoreError, match="C-contiguous"):
        reader.read("cls", 1, 4, 8, out=np.empty((4, 1, 5)))


def test_a_reader_sees_what_is_finished_after_it_was_opened(tmp_path, example) -> None:
    path = tmp_path / "a.zarr"
    create(path, example.spec)
    reader = StoreReader(path)
    assert reader.coverage("cls") == ()
    example.fill(path, [1])
    reader.read("patches", 1, 0, 10)
    example.fill(path, [0, 1, 2, 3])
    np.testing.assert_array_equal(reader.read("patches", 2, 0, 10), example.values["patches"][:, 2])
    assert pickle.loads(pickle.dumps(reader)).coverage("patches") == (0, 1, 2, 3)


def test_records_flags_and_documents_are_checked(path) -> None:
    record = path / ".cachetool" / "blocks" / "0000000.json"
    text = record.read_text()
    record.write_text(text[:40])
    with pytest.raises(DamagedError, match=r"0000000\.json is damaged"):
        read_all(path)
    assert StoreWriter(path).pending([0], ["cls"]) == [0]
    assert "0000000.json is damaged" in check_block(path, 0)[0]
    record.unlink()
    assert check_block(path, 0) == []
    assert "flagged finished, but has no record" in check_flags(path, 0)[0]
    (path / "label" / "zarr.json").write_text("{}")
    flipped = bytearray((path / "image_id" / "c.0").read_bytes())
    flipped[20] ^= 1
    (path / "image_id" / "c.0").write_bytes(flipped)
    problems = check_tables(path)
    assert set(problems) == {"label", "image_id"}
    assert problems["label"][0].startswith("label/zarr.json: differs")
    assert "image_id/c.0 is damaged" in problems["image_id"][0]


def test_a_discarded_block_is_pending_and_written_again_the_same(path, kit) -> None:
    before = kit.tree(path)
    StoreWriter(path).discard(1)
    writer = StoreWriter(path)
    assert writer.pending([0], ["cls"]) == [1]
    assert check_block(path, 1) == []
    with pytest.raises(IncompleteError, match="in the blocks 1"):
        read_all(path)
    kit.make_example(images=4, channels=2, layers=(0, 1), block=2).fill(path)
    assert kit.tree(path) == before


def test_a_damaged_state_is_not_carried_into_an_extended_block(tmp_path, example) -> None:
    path = tmp_path / "a.zarr"
    create(path, example.spec)
    example.fill(path, [0, 2])
    shard = path / "patches" / "c.0.0.0.0"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedError, match=r"damaged at the states \[0\]"):
        example.fill(path, [1])
    assert not list(path.rglob("*.partial-*"))


@pytest.mark.parametrize("name", ["image_id", "content_sha256", "label", "class_name", "norm_weight", "row", "donor"])
def test_a_lost_small_array_is_refused_rather_than_read_as_its_fill_value(path, name) -> None:
    StoreWriter(path).write_image_array("donor", np.arange(4), ("image",))
    (path / name / "c.0").unlink()
    with pytest.raises(DamagedError, match=rf"{name}/c\.0 is missing"):
        StoreReader(path).array(name)
    assert f"{name}/c.0 is missing" in check_tables(path)[name][0]


def test_flags_that_contradict_the_records_are_named(path) -> None:
    writer = StoreWriter(path)
    failed = {"größe/0001.jpg": "cannot be decoded"}
    example = writer.spec
    arrays = {name: StoreReader(path).read_layers(name, (0, 1), 0, 2) for name in example.token_types}
    arrays["cls"] = arrays["cls"][:, :, 0]
    writer.write_block(0, arrays, (0, 1), failed)
    assert check_flags(path, 0) == []
    (path / "readable" / "c.0").unlink()
    (path / "complete" / "c.0.0.0").unlink()
    problems = check_flags(path, 0)
    assert "readable: größe/0001.jpg is flagged readable, but the record of its block says otherwise" in problems
    assert sum("flagged unfinished, but has a record" in problem for problem in problems) == 6
