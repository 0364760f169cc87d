"""What of a store is finished: by records as they are now, and named as briefly as can be."""

from __future__ import annotations

import os

import numpy as np
import pytest

from cachetool.errors import DamagedError, IncompleteError, StoreError
from cachetool.objects import worked_on
from cachetool.store import StoreReader, StoreWriter, create
from cachetool.store.finished import FinishedBlocks, _ranges
from cachetool.store.opened import OpenedStore


@pytest.fixture
def path(tmp_path, example):
    create(tmp_path / "a.zarr", example.spec)
    return tmp_path / "a.zarr"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([3], "3"), ([3, 4], "3-4"), ([0, 1, 2, 3, 7, 9, 10], "0-3, 7, 9-10"), ([1, 3, 5], "1, 3, 5")],
)
def test_runs_of_numbers(numbers, text) -> None:
    assert _ranges(numbers) == text


def test_the_blocks_of_a_range_of_images(path) -> None:
    finished = FinishedBlocks(OpenedStore(path))
    assert [list(finished.block_span(*span)) for span in ((0, 10), (3, 5), (4, 8), (7, 8), (8, 9))] == [
        *([0, 1, 2], [0, 1], [1], [1], [2])
    ]
    assert [list(finished.block_span(*span)) for span in ((0, 0), (5, 5), (10, 10))] == [[], [], []]
    for start, stop in ((-1, 2), (3, 2), (0, 11)):
        with pytest.raises(StoreError, match=rf"a\.zarr has 10 images; {start} to {stop} were asked for\."):
            finished.block_span(start, stop)


def test_what_was_finished_is_remembered_and_what_was_not_is_looked_for_again(path, example) -> None:
    store = OpenedStore(path)
    finished = FinishedBlocks(store)
    assert finished.record(0) is None
    assert not finished.flags().any()
    example.fill(path, [1])
    flags = np.zeros((3, 3, 4), dtype=bool)
    flags[:, :, 1] = True
    np.testing.assert_array_equal(finished.flags(), flags)
    first = finished.record(0)
    StoreWriter(path).write_block(0, example.arrays(0, [3], ["cls"], 10), [3])
    assert finished.record(0) is first
    assert finished.require(["cls"], [3, 1], [0]) == (3, 1), "looked at again for what it lacks"
    assert finished.record(0).layers["cls"] == (1, 3)
    StoreWriter(path).discard(0)
    assert finished.record(0) is not None
    assert finished.record(0, renew=True) is None
    with pytest.raises(IncompleteError) as caught:
        finished.require(["cls", "patches"], [1, 3, 8], [0, 1, 2])
    assert str(caught.value) == (
        f"{path} does not hold all that is needed; missing: "
        "state 3 of cls in the blocks 1-2; state 8 of cls (the store holds [0, 1, 2, 3]); "
        "state 3 of patches in the blocks 0-2; state 8 of patches (the store holds [0, 1, 2, 3]). "
        "Run `cachetool extract` with these states and token types to complete it."
    )


def test_token_types_that_are_not_stored_are_named(tmp_path, kit) -> None:
    path = kit.make_example(token_types=("cls", "patches")).make(tmp_path / "b.zarr")
    with pytest.raises(IncompleteError, match=r"missing: registers \(the store holds cls, patches\)\. Run"):
        StoreReader(path).read("registers", 0, 0, 1)
    assert StoreReader(path).coverage("registers") == ()


def test_a_block_is_sound_where_its_files_have_their_sizes_by_now(path, example) -> None:
    finished = FinishedBlocks(OpenedStore(path))
    with pytest.raises(
        IncompleteError, match=r"Block 0 of .*a\.zarr is not finished\. Run `cachetool extract` again\."
    ):
        finished.sound_record(0)
    example.fill(path, [1])
    assert finished.sound_record(0).layers["cls"] == (1,)
    example.fill(path)
    assert finished.sound_record(0).layers["cls"] == (0, 1, 2, 3), "its files have grown since it was read"
    sizes = []
    for name in ("cls/c.0.0.0", "patches/c.0.0.0.0"):
        sizes.append((path / name).stat().st_size)
        os.truncate(path / name, 5)
    with pytest.raises(DamagedError) as caught:
        finished.sound_record(0)
    assert str(caught.value) == (
        f"Block 0 of {path} does not match its done record: cls/c.0.0.0: expected {sizes[0]} bytes, found 5;"
        f" patches/c.0.0.0.0: expected {sizes[1]} bytes, found 5. Run `cachetool verify --repair`."
    )


def test_records_among_objects_that_are_not_known_are_asked_for_at_once(object_root, example, monkeypatch) -> None:
    finished = FinishedBlocks(OpenedStore(example.make(object_root / "a.zarr")))
    assert finished.record(1) is not None
    asked = []

    def at_once(work, blocks, where):
        asked.append((list(blocks), where))
        return worked_on(work, blocks, where)

    monkeypatch.setattr("cachetool.store.finished.worked_on", at_once)
    for _ in range(2):
        assert finished.require(["cls"], [2, 0], [0, 1, 2]) == (2, 0)
    assert asked == [([0, 2], object_root / "a.zarr"), ([], object_root / "a.zarr")]
