"""A store in an object store that others change meanwhile: no value is half of one version and half of another."""

from __future__ import annotations

import numpy as np
import pytest

from cachetool.errors import StoreError
from cachetool.store import StoreReader, create, object_lock
from cachetool.store.extend import merge_facts


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
