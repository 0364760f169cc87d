"""Done records: what they say of files that may be old or new, and every way in which one is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cachetool.errors import DamagedError
from cachetool.objects import ObjectPath
from cachetool.store.mending import advice
from cachetool.store.records import FileFacts, Record, misfits, read_record, record_path, write_record

OLD, NEW = FileFacts(700, 1, {"0": 5, "1": 6}), FileFacts(900, 2, {"0": 5, "1": 7, "2": 8})
RECORD = Record(
    block=1,
    first=4,
    last=8,
    layers={"cls": (0, 1), "registers": (), "patches": ()},
    files={"cls/c.1.0.0": OLD},
    failed={"größe.jpg": "cut off"},
    facts={"device": "cpu"},
)
REPLACING = replace(RECORD, replacing={"cls/c.1.0.0": NEW})


@pytest.fixture
def geometry(example):
    return example.spec.geometry


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / ".cachetool" / "blocks").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("record", [RECORD, REPLACING])
def test_a_record_reads_back_as_it_was_written(store, geometry, record) -> None:
    write_record(store, record)
    found = read_record(store, 1, geometry)
    assert found == record
    assert found.files["cls/c.1.0.0"].states == OLD.states
    assert found.replacing.keys() == record.replacing.keys()
    text = (store / ".cachetool" / "blocks" / "0000001.json").read_text()
    assert "größe.jpg" in text
    assert ("replacing" in json.loads(text)) is bool(record.replacing)


def test_no_record_is_none(store, geometry, tmp_path) -> None:
    assert read_record(store, 1, geometry) is None
    (tmp_path / "file").write_text("")
    assert read_record(tmp_path / "file", 1, geometry) is None


def test_a_file_that_is_being_replaced_may_be_the_old_or_the_new_one() -> None:
    name = "cls/c.1.0.0"
    assert (RECORD.sizes(name), REPLACING.sizes(name), RECORD.sizes("x")) == ({700}, {700, 900}, set())
    assert [RECORD.state_digests(name, layer) for layer in range(3)] == [{5}, {6}, set()]
    assert [REPLACING.state_digests(name, layer) for layer in range(3)] == [{5}, {6, 7}, {8}]
    assert RECORD.state_digests("x", 0) == set()


def test_a_record_of_fewer_images_does_not_cover_the_block(geometry) -> None:
    assert RECORD.covers(geometry)
    assert not replace(RECORD, last=7).covers(geometry)
    assert not replace(RECORD, first=5).covers(geometry)


def test_missing_other_and_odd_files_are_named(store) -> None:
    record = replace(RECORD, files=dict.fromkeys(("gone", "short", "link", "fine", "file/below"), OLD))
    (store / "short").write_bytes(b"x" * 699)
    (store / "fine").write_bytes(b"x" * 700)
    (store / "link").symlink_to("fine")
    (store / "file").write_bytes(b"")
    assert misfits(store, record) == [
        "gone: expected 700 bytes, found no file",
        "short: expected 700 bytes, found 699",
        "link: expected a file, found a link, folder or pipe",
        "file/below: expected 700 bytes, found no file",
    ]
    (store / "short").write_bytes(b"x" * 900)
    assert "short: expected 700 bytes, found 900" in misfits(store, record)
    assert misfits(store, replace(REPLACING, files={"short": OLD}, replacing={"short": NEW})) == []


def test_missing_and_other_objects_are_named(object_root) -> None:
    record = replace(RECORD, files=dict.fromkeys(("gone", "short", "fine", "file/below"), OLD))
    for name, size in (("short", 699), ("fine", 700), ("file", 0)):
        (object_root / name).put(b"x" * size)
    assert misfits(object_root, record) == [
        "gone: expected 700 bytes, found no object",
        "short: expected 700 bytes, found 699",
        "file/below: expected 700 bytes, found no object",
    ]
    (object_root / "short").put(b"x" * 900)
    assert "short: expected 700 bytes, found 900" in misfits(object_root, record)
    assert misfits(object_root, replace(REPLACING, files={"short": OLD}, replacing={"short": NEW})) == []


def facts(**changes: object) -> dict[str, object]:
    return {"bytes": 252, "crc32c": 1, "states": {"0": 5}} | changes


# Two states of four images of [CLS], float16 of 5 channels, and an index for four states: 2 * (40 + 4) + 4 * 16 + 4.
LEAST = 2 * (4 * 5 * 2 + 4) + 4 * 16 + 4


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"block": 0}, "it must be of block 1, and name its first and last image"),
        ({"first": -1}, "name its first and last image"),
        ({"first": 2**48 + 1}, "name its first and last image"),
        ({"last": 2**48 + 1}, "name its first and last image"),
        ({"last": None}, "name its first and last image"),
        ({"layers": [1]}, r"layers must be an object, found \[1\]"),
        ({"facts": None, "failed": 3}, "failed must be an object, found 3; facts must be an object, found None"),
        ({"replacing": []}, r"replacing must be an object, found \[\]"),
        ({"failed": {"a": 1}}, "'a' failed for a reason that is no text, but 1"),
        ({"layers": {"heads": []}}, r"'heads' cannot be finished at \[\]"),
        ({"layers": {"cls": [4]}}, r"'cls' cannot be finished at \[4\]"),
        ({"layers": {"cls": [True]}}, r"'cls' cannot be finished at \[True\]"),
        ({"layers": {"cls": 1}}, "'cls' cannot be finished at 1"),
        ({"layers": {"cls": [0], "patches": [0]}}, "patches is finished, but no file is named that holds it"),
        ({"files": {"cls/c.0.0.0": facts()}}, "files must name shards with bytes, crc32c and states, found 'cls/c.0"),
        ({"replacing": {"x": facts()}}, "replacing must name shards with bytes, crc32c and states, found 'x'"),
        ({"files": {"cls/c.1.0.0": [1]}}, r"files must name shards .*found 'cls/c\.1\.0\.0': \[1\]"),
        ({"files": {"cls/c.1.0.0": facts(more=1)}}, "files must name shards"),
        ({"files": {"cls/c.1.0.0": {"bytes": 252, "states": {}}}}, "files must name shards"),
        ({"files": {"cls/c.1.0.0": facts(crc32c=-1)}}, "files must name shards"),
        ({"files": {"cls/c.1.0.0": facts(bytes=2**63 + 1)}}, "files must name shards"),
        ({"files": {"cls/c.1.0.0": facts(states={"0": "5"})}}, "files must name shards"),
        ({"files": {"cls/c.1.0.0": facts(states=[5])}}, "files must name shards"),
        (
            {"files": {"cls/c.1.0.0": facts(bytes=LEAST - 1)}},
            rf"c\.1\.0\.0 of {LEAST - 1} bytes cannot hold what takes",
        ),
        (
            {"first": 8, "last": 4, "files": {"cls/c.1.0.0": facts(bytes=4 * 16 + 3)}},
            r"c\.1\.0\.0 of 67 bytes cannot hold what takes 68",
        ),
    ],
)
def test_every_way_to_be_wrong_is_named(store, geometry, parts, message) -> None:
    write_record(store, RECORD)
    file = record_path(store, 1)
    file.write_text(json.dumps(json.loads(file.read_text()) | parts))
    with pytest.raises(DamagedError, match=rf"0000001\.json is damaged: .*{message}.*Run `cachetool verify --repair`"):
        read_record(store, 1, geometry)


def test_who_can_only_read_a_record_is_told_whom_to_ask(geometry, monkeypatch) -> None:
    path = ObjectPath("https://host/a.zarr")
    monkeypatch.setattr("cachetool.store.records.read_json", lambda path: {})
    with pytest.raises(DamagedError) as caught:
        read_record(path, 1, geometry)
    assert str(caught.value).startswith("https://host/a.zarr/.cachetool/blocks/0000001.json is damaged: ")
    assert str(caught.value).endswith(f". {advice(path)}")
    assert advice(path) != advice(Path("a.zarr"))


def test_what_is_just_right_is_read(store, geometry) -> None:
    write_record(store, RECORD)
    file = record_path(store, 1)
    for parts in (
        {"files": {"cls/c.1.0.0": facts(bytes=LEAST)}},
        {"files": {"cls/c.1.0.0": {"bytes": 2**63, "crc32c": 0}}},
        {"layers": {"cls": [3, 3]}, "files": {"cls/c.1.0.0": facts(bytes=LEAST - 44)}},
        {"last": 4, "files": {"cls/c.1.0.0": facts(bytes=4 * 16 + 4)}},
        {"first": 0, "last": 2**48, "files": {"cls/c.1.0.0": facts(bytes=LEAST)}},
    ):
        file.write_text(json.dumps(json.loads(file.read_text()) | parts))
        assert read_record(store, 1, geometry).block == 1
