"""What the checkers say of a store, word by word."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cachetool.objects import Replaced
from cachetool.store import StoreWriter, check_block, check_flags, check_tables
from cachetool.store.shards import checksum


@pytest.fixture
def path(tmp_path, kit):
    return kit.make_example(images=20, channels=2, layers=(0, 1), block=16).make(tmp_path / "a.zarr")


def flip(file, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def test_a_sound_store_has_no_problems(path) -> None:
    assert [check_block(path, block) for block in (0, 1)] == [check_flags(path, block) for block in (0, 1)] == [[], []]
    assert check_tables(path) == {}


def test_chunks_are_named_by_their_images(path) -> None:
    shard, chunk = path / "patches" / "c.0.0.0.0", 8 * 6 * 2 * 2 + 4
    flip(shard, chunk)
    flip(shard, 3 * chunk + 7)
    flip(path / "patches" / "c.1.0.0.0", 0)
    assert check_block(path, 0) == [
        "patches/c.0.0.0.0: images 8 to 15, state 0 do not match their checksum",
        "patches/c.0.0.0.0: images 8 to 15, state 1 do not match their checksum",
    ]
    assert check_block(path, 1) == ["patches/c.1.0.0.0: images 16 to 19, state 0 do not match their checksum"]


def test_a_missing_file_is_named_once_and_the_others_are_read(path) -> None:
    (path / "cls" / "c.0.0.0").unlink()
    flip(path / "registers" / "c.0.0.0.0", 0)
    size = json.loads((path / ".cachetool" / "blocks" / "0000000.json").read_text())["files"]["cls/c.0.0.0"]["bytes"]
    assert check_block(path, 0) == [
        f"cls/c.0.0.0: expected {size} bytes, found no file",
        "registers/c.0.0.0.0: images 0 to 15, state 0 do not match their checksum",
    ]
    flip(path / "registers" / "c.0.0.0.0", -1)
    assert "the checksum of its index does not match" in check_block(path, 0)[1]


def test_a_file_is_sound_as_the_old_or_the_new_one_while_it_is_replaced(path) -> None:
    file = path / ".cachetool" / "blocks" / "0000000.json"
    record = json.loads(file.read_text())
    name = "cls/c.0.0.0"
    right, wrong = record["files"][name], {**record["files"][name], "crc32c": 5}
    file.write_text(json.dumps(record | {"files": record["files"] | {name: wrong}}))
    assert check_block(path, 0) == [
        f"{name}: its bytes are consistent, but they are not those that its done record vouches for"
    ]
    file.write_text(json.dumps(record | {"files": record["files"] | {name: wrong}, "replacing": {name: right}}))
    assert check_block(path, 0) == []


def test_flags_that_say_too_much_or_too_little_are_named(path) -> None:
    flags = np.zeros((1, 3, 2), dtype=bool)
    flags[0, 0, 0] = flags[0, 2, 1] = True
    (path / "complete" / "c.0.0.0").write_bytes(flags.tobytes() + checksum(flags.tobytes()))
    done = "is flagged unfinished, but has a record"
    assert check_flags(path, 0) == [
        f"complete: block 0, {place} {done}"
        for place in ("cls, state 1", "registers, state 0", "registers, state 1", "patches, state 0")
    ]
    (path / ".cachetool" / "blocks" / "0000000.json").unlink()
    assert check_flags(path, 0) == [
        "complete: block 0, cls, state 0 is flagged finished, but has no record of it",
        "complete: block 0, patches, state 1 is flagged finished, but has no record of it",
    ]


def test_images_that_are_flagged_otherwise_are_named(path, kit) -> None:
    writer, ids = StoreWriter(path), kit.image_table(20).image_id
    example = kit.make_example(images=20, channels=2, layers=(0, 1), block=16)
    writer.write_block(1, example.arrays(1, [0], ["cls"], 20), [0], {ids[17]: "cut", ids[19]: "cut"})
    assert check_flags(path, 1) == []
    flags = np.ones(16, dtype=bool)
    flags[[0, 1]] = False
    (path / "readable" / "c.1").write_bytes(flags.tobytes() + checksum(flags.tobytes()))
    assert check_flags(path, 1) == [
        f"readable: {ids[16]} is flagged unreadable, but the record of its block says otherwise",
        f"readable: {ids[19]} is flagged readable, but the record of its block says otherwise",
    ]


def test_ids_are_read_for_blocks_alone_of_which_images_could_not_be_read(path, monkeypatch) -> None:
    """Those of a whole store, for each of its blocks: hours where it has a million images, and each time fetched."""
    read = []
    monkeypatch.setattr("cachetool.store.opened.OpenedStore.images", property(lambda store: read.append(store.path)))
    assert check_flags(path, 1) == []
    assert read == []


def test_flags_that_are_damaged_are_named_and_a_damaged_record_is_left_to_the_check_of_its_block(path) -> None:
    flip(path / "complete" / "c.0.0.0", 0)
    flags = bytes(16)
    (path / "readable" / "c.0").write_bytes(flags + checksum(flags + b"x"))
    complete, readable = check_flags(path, 0)
    assert complete.startswith(f"{path / 'complete' / 'c.0.0.0'} is damaged: its checksum does not match")
    assert readable.startswith(f"{path / 'readable' / 'c.0'} is damaged: its checksum does not match")
    assert check_tables(path) == {}, "flags are no tables"
    (path / ".cachetool" / "blocks" / "0000000.json").write_text("{")
    assert check_flags(path, 0) == []
    assert "0000000.json is damaged" in check_block(path, 0)[0]


def test_documents_and_tables_are_named_by_their_array(path) -> None:
    (path / "row" / "zarr.json").unlink()
    (path / "col" / "zarr.json").write_text("{")
    document = json.loads((path / "label" / "zarr.json").read_text())
    (path / "label" / "zarr.json").write_text(json.dumps(document | {"fill_value": 0}))
    flip(path / "label" / "c.0", 0)
    flip(path / "readable" / "zarr.json", 0)
    found = check_tables(path)
    assert sorted(found) == ["col", "label", "readable", "row"]
    assert found["row"] == [f"row/zarr.json: [Errno 2] No such file or directory: '{path / 'row' / 'zarr.json'}'"]
    assert found["col"][0].startswith("col/zarr.json: Expecting property name")
    assert found["label"] == [
        "label/zarr.json: differs from the copy in the root document, which is the valid one",
        f"{path / 'label' / 'c.0'} is damaged: its checksum does not match. Run `cachetool verify --repair`.",
    ]


def test_a_shard_that_is_replaced_while_it_is_checked_is_named(object_root, kit, monkeypatch) -> None:
    path = kit.make_example(images=20, channels=2, layers=(0, 1), block=16).make(object_root / "a.zarr")

    def replaced(source, key: str, *_: object) -> memoryview:
        raise Replaced(key)

    monkeypatch.setattr(type(path.source), "get_range", replaced)
    assert check_block(path, 1) == [
        f"{name}: {path.key}/{name} was replaced by another process while it was read; run the same command again."
        for name in ("cls/c.1.0.0", "registers/c.1.0.0.0", "patches/c.1.0.0.0")
    ]
