"""How far the work on a store has come: by records and locks, with a rate that survives clocks that say nonsense."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachetool.errors import StoreError
from cachetool.store import StoreReader, StoreWriter, create, extend, lock, progress, share
from cachetool.store.lock import owners
from cachetool.store.progress import _times
from cachetool.store.records import record_path

BEGAN = 1_000_000_000
"""When locks were taken, in seconds since 1970."""


@pytest.fixture
def example(kit):
    """Five full blocks of 4 images and one of 2."""
    return kit.make_example(images=22)


@pytest.fixture
def path(tmp_path, example) -> Path:
    create(tmp_path / "a.zarr", example.spec)
    return tmp_path / "a.zarr"


def held_by(path: Path, name: str, **changes: object) -> Path:
    """Write a lock file as its owner would, at `BEGAN`."""
    file = path / ".cachetool" / "locks" / f"{name[:100]}.lock"
    file.parent.mkdir(exist_ok=True)
    owner = {"name": name, "host": "elsewhere", "process": 7, "since": "2001-09-09T01:46:40+00:00"} | changes
    file.write_text(json.dumps(owner))
    os.utime(file, (BEGAN, BEGAN))
    return file


def write(path: Path, example, blocks: dict[int, float], layers=(0, 1, 2, 3), token_types=None) -> None:
    """Finish blocks; the file system says that their records were written so many seconds after the locks."""
    writer = StoreWriter(path)
    types = example.spec.token_types if token_types is None else token_types
    for block, seconds in blocks.items():
        writer.write_block(block, example.arrays(block, layers, types, len(example.spec.images)), layers)
        record = path / ".cachetool" / "blocks" / f"{block:07d}.json"
        os.utime(record, (BEGAN + seconds, BEGAN + seconds))


def look(path: Path):
    return progress(StoreReader(path))


@given(st.integers(1, 60), st.integers(1, 200))
def test_shares_are_equal_and_meet(blocks, count) -> None:
    shares = [share(blocks, (index, count)) for index in range(1, count + 1)]
    assert [block for one in shares for block in one] == list(range(blocks))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_a_lock_there_is_one_part(path, example) -> None:
    assert (look(path).blocks, look(path).blocks_done, look(path).images, look(path).images_done) == (6, 0, 22, 0)
    write(path, example, {0: 1, 5: 2})
    (part,) = look(path).parts
    assert (part.index, part.count, part.images, part.job) == (1, 1, range(22), None)
    assert (part.blocks, part.blocks_done, part.images_done) == (6, 2, 6), "the last block has two images"
    assert look(path).seconds_left is None
    assert look(path).images_per_second is None


def test_a_block_is_finished_if_it_holds_all_that_any_block_holds(path, example) -> None:
    write(path, example, dict.fromkeys(range(6), 1), layers=(1, 2))
    assert look(path).blocks_done == 6
    write(path, example, {3: 1}, layers=(3,), token_types=("cls",))
    assert look(path).blocks_done == 1
    write(path, example, {4: 1}, layers=(3,), token_types=("cls",))
    assert look(path).blocks_done == 2


def test_a_token_type_that_was_added_is_asked_for(tmp_path, kit) -> None:
    example = kit.make_example(images=22, token_types=("cls",))
    path = example.make(tmp_path / "a.zarr")
    assert look(path).blocks_done == 6
    extend(path, token_types=("registers",))
    assert look(path).blocks_done == 0
    write(path, example, {2: 1}, layers=(1,), token_types=("registers",))
    assert look(path).blocks_done == 1


def test_parts_with_jobs_rates_and_what_is_left(path, example) -> None:
    held_by(path, "extract-part-1-of-3")
    held_by(path, "extract-part-3-of-3", process=9)
    write(path, example, {0: 20, 1: 40, 2: -50, 4: 5})
    found = look(path)
    first, second, third = found.parts
    assert [part.images for part in found.parts] == [range(8), range(8, 16), range(16, 22)]
    assert [(part.index, part.count) for part in found.parts] == [(1, 3), (2, 3), (3, 3)]
    assert first.job.images_per_second == pytest.approx(8 / 40)
    assert first.seconds_left == 0
    assert (second.job, second.blocks_done, second.seconds_left) == (None, 1, None)
    assert third.job.owner.process == 9
    assert third.job.images_per_second == pytest.approx(4 / 5)
    assert third.seconds_left == pytest.approx(2 / (4 / 5))
    assert not third.job.known
    assert third.job.seconds_since_block == pytest.approx(time.time() - BEGAN - 5, abs=60)
    assert found.images_per_second == pytest.approx(4 / 5), "the first job has nothing left"
    assert found.seconds_left == pytest.approx(2 / (4 / 5))
    assert found.jobs == 2
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (document["images"], document["images_done"], document["blocks_done"]) == (22, 16, 4)
    assert document["parts"][1] == {
        "part": 2, "parts": 3, "first_image": 8, "images": 8, "images_done": 4, "blocks": 2, "blocks_done": 1,
        "seconds_left": None, "job": None,
    }  # fmt: skip
    job = document["parts"][2]["job"]
    assert job.pop("seconds") == pytest.approx(time.time() - BEGAN, abs=60)
    assert job.pop("seconds_since_block") == pytest.approx(time.time() - BEGAN - 5, abs=60)
    assert job == {
        "host": "elsewhere", "process": 9, "since": "2001-09-09T01:46:40+00:00", "known_to_live": False,
        "lock": str(path / ".cachetool" / "locks" / "extract-part-3-of-3.lock"), "images_left": 2,
        "images_per_second": 4 / 5,
    }  # fmt: skip
    assert set(document) == {
        *("images", "images_done", "blocks", "blocks_done", "images_per_second", "seconds_left", "parts"),
    }


def test_a_job_that_was_asked_for_fewer_images_has_no_more_left(path, example) -> None:
    held_by(path, "extract-part-1-of-2", images=10)
    held_by(path, "extract-part-2-of-2", images=10)
    write(path, example, {0: 20})
    first, second = look(path).parts
    assert ([part.images for part in (first, second)], first.images_done) == ([range(12), range(12, 22)], 4)
    assert first.job.images_left == 8, "the two blocks that hold images 4 to 9"
    assert first.seconds_left == pytest.approx(8 / (4 / 20))
    assert (second.job.images_left, second.seconds_left) == (0, 0)
    assert look(path).images_per_second == pytest.approx(4 / 20), "the second has nothing to do"


@pytest.mark.parametrize(
    ("seconds", "rate", "left"),
    [
        ({}, None, None),
        ({0: 0}, None, None),
        ({0: -3600}, None, None),
        ({0: 10, 1: -3600}, 4 / 10, 14 / (4 / 10)),
        ({0: 1e12}, 4 / 1e12, None),
        ({0: 0.001}, 4000, 18 / 4000),
    ],
    ids=["no block yet", "no time", "before the lock", "set back on the way", "thousands of years", "a millisecond"],
)
def test_clocks_that_jump_spoil_an_estimate_and_nothing_else(path, example, seconds, rate, left) -> None:
    held_by(path, "extract")
    # Some file systems keep no such times; what they say is given here instead.
    write(path, example, dict.fromkeys(seconds, 0))
    records = path / ".cachetool" / "blocks"
    written = {records / f"{block:07d}.json": BEGAN + after for block, after in seconds.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["cachetool.store.progress"], "_written", lambda file: written.get(file, BEGAN))
        (part,) = look(path).parts
    assert (part.blocks_done, part.job.owner.process) == (len(seconds), 7)
    assert part.job.images_per_second == (None if rate is None else pytest.approx(rate, rel=1e-3))
    assert part.seconds_left == (None if left is None else pytest.approx(left, rel=1e-3))


def test_a_lock_that_is_given_back_while_others_look_tells_no_rate(path, example, monkeypatch) -> None:
    file = held_by(path, "extract")
    write(path, example, {0: 5})

    def given_back(store: Path):
        found = owners(store)
        file.unlink()
        return found

    monkeypatch.setattr(sys.modules["cachetool.store.progress"], "owners", given_back)
    (part,) = look(path).parts
    assert (part.blocks_done, part.job.owner.process) == (1, 7)
    assert (part.job.images_per_second, part.job.seconds_since_block) == (None, None)


def test_the_last_block_of_the_future_has_no_age(path, example) -> None:
    held_by(path, "extract")
    write(path, example, {0: 3e9})
    (part,) = look(path).parts
    assert part.job.seconds_since_block is None
    assert part.job.images_per_second == pytest.approx(4 / 3e9)


def test_who_is_at_work_here_is_known(path) -> None:
    with lock(path, "extract-part-2-of-2", images=20):
        first, second = look(path).parts
        assert first.job is None
        assert second.job.owner.images == 20
        assert (second.job.owner.process, second.job.owner.host) == (os.getpid(), socket.gethostname())
        assert second.job.known
        assert second.job.images_per_second is None
        assert second.to_json()["job"]["seconds"] >= 0
    (only,) = look(path).parts
    assert only.count == 1


def test_what_dead_jobs_left_tells_how_many_parts_there_were(path) -> None:
    held_by(path, "extract-part-1-of-6", host=socket.gethostname(), process=2**22 + 1)
    assert [(part.index, part.count, part.job) for part in look(path).parts] == [
        (index, 6, None) for index in range(1, 7)
    ]
    held_by(path, "extract-part-1-of-2")
    assert [(part.index, part.count) for part in look(path).parts] == [(1, 2), (2, 2)], "the living know better"


@pytest.mark.parametrize(
    "name",
    ["verify", "replay", "extract-part-0-of-3", "extract-part-4-of-3", "extract-part-0-of-0",
     f"extract-part-1-of-{'9' * 5000}", "extract-part-1-of-2-of-3"],
)  # fmt: skip
def test_locks_that_name_no_part_of_the_work_are_not_jobs(path, name) -> None:
    held_by(path, name)
    (part,) = look(path).parts
    assert part.job is None


def test_far_more_parts_than_blocks(path) -> None:
    held_by(path, "extract-part-999999998-of-999999999")
    parts = look(path).parts
    assert sum(part.blocks for part in parts) == 6
    assert len(parts) == 7, "those with a block, and the one with a job"
    assert [len(part.images) for part in parts if part.job is not None] == [0]


def test_a_lock_that_cannot_be_read_is_named(path) -> None:
    held_by(path, "extract").write_text("{")
    with pytest.raises(StoreError, match=r"extract\.lock cannot be read"):
        look(path)
    for images in (0, True, "all", 1.5):
        held_by(path, "extract", images=images)
        with pytest.raises(StoreError, match=r"extract\.lock cannot be read \(it works on .+ images\)"):
            look(path)


def test_among_objects_all_records_are_looked_up_by_one_listing(object_root, example) -> None:
    path = object_root / "a.zarr"
    create(path, example.spec)
    writer = StoreWriter(path)
    for block in (0, 3):
        writer.write_block(block, example.arrays(block, [1], ["cls"], 22), [1])
    written = {block: record_path(path, block).found().modified for block in (0, 3)}
    assert _times(path, [3, 1, 0]) == {3: written[3], 1: None, 0: written[0]}
