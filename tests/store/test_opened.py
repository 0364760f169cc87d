"""An existing store as its documents describe it: how much must be there, and what its records promise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cachetool.store import create
from cachetool.store.metadata import array_document
from cachetool.store.opened import OpenedStore, required_entries


@pytest.fixture
def path(tmp_path, example):
    create(tmp_path / "a.zarr", example.spec)
    return tmp_path / "a.zarr"


def test_how_many_entries_of_a_small_array_must_be_there() -> None:
    document = array_document((10,), (4,), "int64", -1, ("image",))
    columns = ("image_id", "content_sha256", "label", "class_name")
    assert [required_entries(name, document) for name in columns] == [10, 10, 10, 10]
    assert required_entries("donor", document) == 4, "what a growth added may be left to the fill"
    assert required_entries("complete", document) == required_entries("readable", document) == 0
    assert required_entries("scale", array_document((), (), "float64", "NaN", ())) == 1


def test_a_store_says_what_it_was_made_from(path, example) -> None:
    found = OpenedStore(path).spec(norm=False)
    assert found == replace(example.spec, norm=None, token_types=("cls", "registers", "patches"))
    assert OpenedStore(path).norm.epsilon == example.spec.norm.epsilon


def test_a_shard_of_another_block_is_not_what_the_record_promises(path, example) -> None:
    example.fill(path)
    (path / "cls" / "c.0.0.0").replace(path / "cls" / "c.1.0.0")
    store = OpenedStore(path)
    shard = store.shard("cls", store.record(1))
    assert shard.has(2, 0)
    assert not shard.intact(2, 0), "sound in itself"


def test_flags_are_those_of_the_record(path, example) -> None:
    example.fill(path, [1, 3], ["registers"])
    store = OpenedStore(path)
    assert store.flags(None).tolist() == [[False] * 4] * 3
    assert store.flags(store.record(2)).tolist() == [[False] * 4, [False, True, False, True], [False] * 4]
