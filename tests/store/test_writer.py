"""What a writer leaves on disk: records, flags and shards, for blocks that are new, extended, failed or given up."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import zarr

from cachetool.errors import StoreError
from cachetool.store import StoreReader, StoreWriter, check_block, check_flags, create, extend
from cachetool.store.records import read_record

DEAD = 2**22 + 1
"""Beyond the largest number that a process can have."""


@pytest.fixture
def path(tmp_path, example):
    create(tmp_path / "a.zarr", example.spec)
    return tmp_path / "a.zarr"


def record(path, block: int = 0) -> dict:
    return json.loads((path / ".cachetool" / "blocks" / f"{block:07d}.json").read_text())


def test_a_record_says_what_was_written_and_keeps_what_was_known(path, example) -> None:
    writer = StoreWriter(path)
    one, two = example.spec.images.image_id[8:10]
    written = writer.write_block(2, example.arrays(2, [3, 1], ["cls"], 10), [3, 1], {one: "cut"}, {"batch": 1, "a": 1})
    found = record(path, 2)
    size = (path / "cls" / "c.2.0.0").stat().st_size
    assert written == size == found["files"]["cls/c.2.0.0"]["bytes"]
    assert (found["block"], found["first"], found["last"]) == (2, 8, 10)
    assert found["layers"] == {"cls": [1, 3]}
    assert list(found["files"]["cls/c.2.0.0"]["states"]) == ["1", "3"]
    assert found["failed"] == {one: "cut"}
    assert found["facts"] == {"batch": 1, "a": 1}
    arrays = example.arrays(2, [0], ["cls", "patches"], 10)
    written = writer.write_block(2, arrays, [0], {two: "gone"}, {"batch": 2})
    found = record(path, 2)
    assert (
        written
        == sum((path / name / "c.2.0.0").stat().st_size for name in ("cls",))
        + (path / "patches" / "c.2.0.0.0").stat().st_size
    )
    assert found["layers"] == {"cls": [0, 1, 3], "patches": [0]}
    assert found["failed"] == {one: "cut", two: "gone"}
    assert found["facts"] == {"batch": 2, "a": 1}
    assert "replacing" not in found
    assert sorted(found["files"]) == ["cls/c.2.0.0", "patches/c.2.0.0.0"]
    assert check_block(path, 2) == check_flags(path, 2) == []


def test_of_blocks_among_objects_the_records_say_what_those_on_a_disk_say(path, object_root, example) -> None:
    create(object_root / "a.zarr", example.spec)
    for store in (path, object_root / "a.zarr"):
        example.fill(store, [1, 3])
        example.fill(store, [1, 2, 3])
    for block in range(3):
        here, there = (read_record(store, block, example.spec.geometry) for store in (path, object_root / "a.zarr"))
        assert there.files == here.files


def test_while_a_block_is_written_again_its_record_announces_the_new_files(path, example, monkeypatch) -> None:
    example.fill(path, [1])
    geometry, before = example.spec.geometry, record(path)
    announced = []
    commit = "cachetool.store.atomic.Staged.commit"

    def looked_at(staged) -> None:
        announced.append(read_record(path, 0, geometry))
        raise StoreError("killed")

    arrays = example.arrays(0, [0], ["cls"], 10)
    writer = StoreWriter(path)
    with monkeypatch.context() as patch:
        calls = []
        patch.setattr(commit, lambda staged: looked_at(staged) if calls else calls.append(1) or _renamed(staged))
        with pytest.raises(StoreError, match="killed"):
            writer.write_block(0, arrays, [0])
    (found,) = announced
    assert {name: facts.bytes for name, facts in found.files.items()} == {
        name: facts["bytes"] for name, facts in before["files"].items()
    }
    layout = geometry.shard_layout("cls")
    assert {name: facts.bytes for name, facts in found.replacing.items()} == {"cls/c.0.0.0": layout.shard_bytes(2, 4)}
    assert sorted(found.replacing["cls/c.0.0.0"].states) == ["0", "1"]
    assert found.layers["cls"] == (1,)
    assert writer.pending([1], ["cls"]) == []


def _renamed(staged) -> None:
    for temporary, target in staged._files:
        temporary.replace(target)
    staged._files.clear()


def test_images_that_failed_are_nan_and_flagged_and_come_back_when_they_are_read(path, example) -> None:
    writer = StoreWriter(path)
    ids = example.spec.images.image_id
    writer.write_block(0, example.arrays(0, [1], ["patches"], 10), [1])
    assert not (path / "readable" / "c.0").exists(), "all readable: left to the fill value"
    writer.write_block(0, example.arrays(0, [2], ["patches"], 10), [2], {ids[1]: "cut"})
    reader = StoreReader(path)
    found = reader.read("patches", 2, 0, 4)
    expected = example.values["patches"][:4, 2].copy()
    expected[1] = np.nan
    np.testing.assert_array_equal(found, expected)
    assert reader.readable.tolist() == [index != 1 for index in range(10)]
    assert zarr.open_group(path, mode="r")["readable"][:].tolist() == reader.readable.tolist()
    StoreWriter(path).discard(0)
    StoreWriter(path).write_block(0, example.arrays(0, [1], ["patches"], 10), [1])
    assert StoreReader(path).readable.all()
    assert check_flags(path, 0) == []


def test_blocks_that_do_not_fit_are_refused_before_anything_is_written(path, example, kit) -> None:
    before = kit.tree(path)
    writer = StoreWriter(path)
    arrays = example.arrays(0, [0, 1], ["cls", "patches"], 10)
    with pytest.raises(StoreError, match=r"The block does not fit .*a\.zarr: states are named twice: \[0, 0\]\."):
        writer.write_block(0, arrays, [0, 0])
    with pytest.raises(StoreError, match=r"cls: expected float16 \(2, 4, 5\), found float32 \(2, 4, 5\)\."):
        writer.write_block(0, arrays | {"cls": arrays["cls"].astype(np.float32)}, [0, 1])
    with pytest.raises(StoreError, match="in block 0 to 3: a, b"):
        writer.write_block(0, arrays, [0, 1], {"b": "", "a": ""})
    with pytest.raises(StoreError, match=r"has arrays for cls, registers, patches; none for neck, head\. Extend"):
        writer.pending([0], ["neck", "cls", "head"])
    with pytest.raises(StoreError, match="blocks 0 to 2; block 3"):
        writer.write_block(3, arrays, [0, 1])
    assert kit.tree(path) == before


def test_pending_needs_every_state_of_every_type(path, example) -> None:
    example.fill(path, [0, 1], ["cls"])
    writer = StoreWriter(path)
    assert writer.pending([1], ["cls"]) == writer.pending([], ["cls"]) == []
    assert writer.pending([1, 2], ["cls"]) == writer.pending([0], ["cls", "patches"]) == [0, 1, 2]
    assert writer.pending([2], ["cls"], blocks=[2, 0]) == [2, 0], "of these blocks alone"
    assert writer.pending([2], ["cls"], blocks=[]) == []
    os.truncate(path / "cls" / "c.1.0.0", 1)
    assert writer.pending([1], ["cls"]) == [1]


def test_flags_are_written_again_as_the_record_has_them(path, example, kit) -> None:
    writer = StoreWriter(path)
    bad = example.spec.images.image_id[5]
    writer.write_block(1, example.arrays(1, [0], ["cls"], 10), [0], {bad: "cut"})
    before = kit.tree(path)
    (path / "readable" / "c.1").unlink()
    (path / "complete" / "c.1.0.0").write_bytes(b"harmed")
    (path / "complete" / "c.0.0.0").write_bytes(b"harmed")
    for block in (0, 1):
        writer.restore_flags(block)
        assert check_flags(path, block) == []
    after = kit.tree(path)
    assert {name: data for name, data in after.items() if name != "complete/c.0.0.0"} == before
    assert not any(zarr.open_group(path, mode="r")["complete"][0].ravel())


def test_what_killed_writers_left_is_removed_unless_one_may_be_at_work(path) -> None:
    here = socket.gethostname()
    names = [
        f"cls/x.partial-{here}-{DEAD}",
        f"y.partial-{here}-{DEAD}",
        f".cachetool/blocks/z.partial-elsewhere-{DEAD}",
    ]
    busy = f"patches/x.partial-elsewhere-{DEAD + 1}"
    for name in (*names, busy):
        (path / name).write_text("")
    owner = {"name": "extract", "host": "elsewhere", "process": DEAD + 1, "since": ""}
    (path / ".cachetool" / "locks").mkdir()
    (path / ".cachetool" / "locks" / "extract.lock").write_text(json.dumps(owner))
    StoreWriter(path)
    assert [name for name in (*names, busy) if (path / name).exists()] == [busy]


def test_locks_of_dead_processes_go_also_where_nothing_is_left_to_write(path) -> None:
    folder = path / ".cachetool" / "locks"
    folder.mkdir()
    for name, host in (("replay", socket.gethostname()), ("extract", "elsewhere")):
        owner = {"name": name, "host": host, "process": DEAD, "since": ""}
        (folder / f"{name}.lock").write_text(json.dumps(owner))
    StoreWriter(path)
    assert [file.name for file in folder.iterdir()] == ["extract.lock"], "who lives on another host is not known"


def test_a_dead_lock_that_cannot_be_removed_keeps_nobody_from_writing(path, monkeypatch) -> None:
    folder = path / ".cachetool" / "locks"
    folder.mkdir()
    owner = {"name": "replay", "host": socket.gethostname(), "process": DEAD, "since": ""}
    (folder / "replay.lock").write_text(json.dumps(owner))

    def refuse(*arguments, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "unlink", refuse)
    StoreWriter(path)
    assert (folder / "replay.lock").exists()


def test_flags_that_an_extension_took_away_come_back(path, example, kit, monkeypatch) -> None:
    example.fill(path)
    before = kit.tree(path)
    with monkeypatch.context() as patch:
        patch.setattr("cachetool.store.metadata.Root.write", lambda root: (_ for _ in ()).throw(StoreError("full")))
        with pytest.raises(StoreError, match="full"):
            extend(path, images=kit.image_table(12))
    assert not StoreReader(path).array("complete")[2].any()
    StoreWriter(path)
    assert StoreReader(path).array("complete").all()
    assert kit.tree(path)["complete/c.2.0.0"] == before["complete/c.2.0.0"]
    (path / "complete" / "c.2.0.0").write_bytes(b"harmed")
    StoreWriter(path)
    assert (path / "complete" / "c.2.0.0").read_bytes() == b"harmed", "left to a repair"
