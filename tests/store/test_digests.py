"""Digests of states: the same however a store has grown, another as soon as one value is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cachetool.errors import IncompleteError
from cachetool.store import StateDigests, StoreWriter, create, extend
from cachetool.store.shards import checksum

ALL = dict.fromkeys(("cls", "registers", "patches"), (0, 1, 2, 3))


def test_growth_leaves_digests_as_they_were(tmp_path, kit) -> None:
    path, example = tmp_path / "a.zarr", kit.make_example(images=10)
    few = replace(example.spec, images=kit.image_table(6), token_types=("cls", "patches"))
    create(path, few)
    example.fill(path, [1, 3], ["cls", "patches"])
    wanted = {"cls": (1, 3), "patches": (1, 3)}
    before = StateDigests(path).of(wanted)
    extend(path, images=example.spec.images, token_types=("registers",))
    example.fill(path)
    assert StateDigests(path).changed(before, 6) == []
    assert StateDigests(path).of(wanted, 6) == before
    assert StateDigests(path).of(wanted) != before, "four images more"
    assert StateDigests(path).of(ALL) == StateDigests(example.make(tmp_path / "b.zarr")).of(ALL)


@pytest.mark.parametrize("image", [0, 5, 9])
def test_one_bit_of_one_value_changes_the_digest_of_its_state_alone(tmp_path, kit, image) -> None:
    example = kit.make_example(images=10)
    path = example.make(tmp_path / "a.zarr")
    before = StateDigests(path).of(ALL)
    example.values["patches"] = example.values["patches"].copy()
    example.values["patches"].view(np.uint16)[image, 2, 5, 4] ^= 1
    block = image // 4
    StoreWriter(path).write_block(block, example.arrays(block, (2,), ("patches",), 10), (2,))
    assert StateDigests(path).changed(before, 10) == ["patches at state 2"]
    StoreWriter(path).discard(0)
    assert len(StateDigests(path).changed(before, 10)) == 12
    with pytest.raises(IncompleteError, match="state 0 of cls is not finished in block 0"):
        StateDigests(path).of({"cls": (0,)})


def test_records_without_digests_are_served_from_the_shards(tmp_path, kit, monkeypatch) -> None:
    path = kit.make_example(images=10).make(tmp_path / "a.zarr")
    before = StateDigests(path).of(ALL)
    for record in (path / ".cachetool" / "blocks").glob("*.json"):
        document = json.loads(record.read_text())
        for facts in document["files"].values():
            del facts["states"]
        record.write_text(json.dumps(document))
    assert StateDigests(path).of(ALL) == before


def test_a_digest_is_that_of_the_digests_of_its_blocks(tmp_path, kit) -> None:
    """From the values alone: CRC32C of a chunk, of a block's chunks, and of all blocks, padded with NaN at the end."""
    example = kit.make_example(images=20, block=16)
    path = example.make(tmp_path / "a.zarr")
    values = example.values["patches"][:, 2]
    padded = np.concatenate([values, np.full((12, 6, 5), np.nan, np.float16)])
    chunks = [checksum(padded[start : start + 8].tobytes()) for start in (0, 8, 16)]
    expected = checksum(checksum(*chunks[:2]), checksum(chunks[2]))
    assert StateDigests(path).of({"patches": (2,)}) == {"patches": {"2": int.from_bytes(expected, "little")}}
    first = checksum(checksum(*chunks[:2]))
    assert StateDigests(path).of({"patches": (2,)}, 16) == {"patches": {"2": int.from_bytes(first, "little")}}


def test_states_come_in_order_and_what_is_not_there_differs(tmp_path, kit) -> None:
    example = kit.make_example(images=10)
    path = tmp_path / "a.zarr"
    create(path, example.spec)
    example.fill(path, [0, 2], ["cls"])
    digests = StateDigests(path)
    found = digests.of({"cls": (2, 0)})
    assert list(found["cls"]) == ["0", "2"]
    assert digests.changed({"cls": found["cls"] | {"3": 5}, "patches": {"0": 1}}, 10) == [
        "cls at state 3",
        "patches at state 0",
    ]
    assert digests.changed(found, 11) == ["cls at state 0", "cls at state 2"]
    assert digests.changed({"cls": {"2": found["cls"]["2"] ^ 1}}, 10) == ["cls at state 2"]
    with pytest.raises(IncompleteError, match=r"state 3 of cls is not finished in block 0 of .*a\.zarr; run"):
        digests.of({"cls": (3,)})


def test_a_block_that_is_being_replaced_is_looked_at_itself(tmp_path, kit) -> None:
    example = kit.make_example(images=10)
    path = example.make(tmp_path / "a.zarr")
    before = StateDigests(path).of({"cls": (1,)})
    file = path / ".cachetool" / "blocks" / "0000000.json"
    record = json.loads(file.read_text())
    name = "cls/c.0.0.0"
    other = record["files"][name] | {"states": dict.fromkeys("0123", 5)}
    file.write_text(json.dumps(record | {"files": record["files"] | {name: other}, "replacing": record["files"]}))
    assert StateDigests(path).of({"cls": (1,)}) == before


def test_shards_are_opened_only_for_what_records_do_not_say(tmp_path, kit, monkeypatch) -> None:
    path = kit.make_example(images=10).make(tmp_path / "a.zarr")
    expected = StateDigests(path).of(ALL)
    monkeypatch.setattr("cachetool.store.opened.OpenedStore.shard", None)
    assert StateDigests(path).of(ALL) == expected
