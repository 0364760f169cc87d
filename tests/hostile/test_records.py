"""Done records and locks from anybody: numbers that lie, and paths that lead out of the store."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachetool.errors import CachetoolError, DamagedError, IncompleteError, StoreError
from cachetool.store import StoreReader, check_block, lock
from tests.hostile.conftest import LONG, QUICK, harmed, read_everything, refused_or_same
from tests.hostile.mutation import mutated


def record(store: Path, block: int = 0) -> Path:
    return store / ".cachetool" / "blocks" / f"{block:07d}.json"


@pytest.fixture(scope="module")
def expected(sound: Path) -> dict[str, Any]:
    """What the sound store gives, but for what a record says itself."""
    found = read_everything(sound)
    del found["complete"]
    return found


def check(sound: Path, expected: dict[str, Any], data: st.DataObject) -> None:
    document = json.loads(record(sound).read_bytes())
    with harmed(record(sound), json.dumps(data.draw(mutated(document))).encode()):
        refused_or_same(lambda: read_everything(sound), expected, sound.name)


@QUICK
@given(data=st.data())
def test_a_changed_record_is_refused_or_changes_no_value(
    sound: Path, expected: dict[str, Any], data: st.DataObject
) -> None:
    check(sound, expected, data)


@pytest.mark.slow
@LONG
@given(data=st.data())
def test_hundreds_of_changed_records_are_refused_or_change_no_value(
    sound: Path, expected: dict[str, Any], data: st.DataObject
) -> None:
    check(sound, expected, data)


def with_part(document: dict[str, Any], **parts: Any) -> bytes:
    return json.dumps({**document, **parts}).encode()


@pytest.mark.parametrize(
    "parts",
    [
        {"files": {"../../outside": {"bytes": 1, "crc32c": 1}}},
        {"files": {"/etc/passwd": {"bytes": 1, "crc32c": 1}}},
        {"files": {"cls/c.0.0.0": {"bytes": 1, "crc32c": 1}}},
        {"files": {"cls/c.0.0.0": {"bytes": True, "crc32c": 1}}},
        {"files": []},
        {"layers": {"cls": [0, 0.5]}},
        {"layers": {"cls": "0123"}},
        {"layers": {"heads": [0]}},
        {"layers": {"cls": [99]}},
        {"block": 1},
        {"first": "0"},
        {"failed": {"a": 1}},
        {"facts": None},
        {"replacing": {"cls/c.1.0.0": {"bytes": 1, "crc32c": 1}, "x": {}}},
    ],
)
def test_records_that_lie_are_named(sound: Path, parts: dict[str, Any]) -> None:
    document = json.loads(record(sound).read_bytes())
    with harmed(record(sound), with_part(document, **parts)):
        with pytest.raises(DamagedError, match=r"0000000\.json is damaged"):
            StoreReader(sound).read("cls", 0, 0, 4)
        assert "0000000.json is damaged" in check_block(sound, 0)[0]


def test_nothing_outside_the_store_is_looked_at(sound: Path) -> None:
    document = json.loads(record(sound).read_bytes())
    outside = sound.parent / "outside"
    os.mkfifo(outside)  # to look into it would be to wait
    try:
        document["files"]["../outside"] = {"bytes": 0, "crc32c": 0}
        with harmed(record(sound), json.dumps(document).encode()), pytest.raises(DamagedError, match="outside"):
            StoreReader(sound).read("cls", 0, 0, 4)
    finally:
        outside.unlink()


@pytest.mark.parametrize("name", ["cls", "image_id", ".cachetool"])
def test_links_in_place_of_folders_are_refused(tmp_path: Path, sound: Path, name: str) -> None:
    copy = tmp_path / "copy.zarr"
    copy.mkdir()
    for entry in sound.iterdir():
        if entry.name != name:
            os.system(f"cp -r '{entry}' '{copy}'")
    (copy / name).symlink_to(sound / name)
    with pytest.raises(StoreError, match=rf"copy\.zarr has symbolic links in place of .*{name}"):
        StoreReader(copy)


@pytest.mark.parametrize("name", ["cls/c.0.0.0", "image_id/c.0", ".cachetool/blocks/0000000.json", "zarr.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_refused_without_waiting(sound: Path, name: str, kind: str) -> None:
    file, aside = sound / name, sound.parent / "aside"
    file.rename(aside)
    try:
        if kind == "link":
            file.symlink_to(aside)
        elif kind == "pipe":
            os.mkfifo(file)
        else:
            file.mkdir()
        with pytest.raises(CachetoolError, match=sound.name):
            read_everything(sound)
    finally:
        file.rmdir() if kind == "folder" else file.unlink()
        aside.rename(file)


def test_a_record_that_claims_what_was_never_written_reads_nothing(sound: Path) -> None:
    document = json.loads(record(sound).read_bytes())
    document["layers"]["cls"] = [0, 1]
    with harmed(record(sound), json.dumps(document).encode()), pytest.raises(IncompleteError):
        StoreReader(sound).read("cls", 2, 0, 4)


def test_a_lock_leads_nowhere_else(tmp_path: Path, sound: Path) -> None:
    """A lock of a dead process is removed by its own name, not by the one that it holds."""
    victim = tmp_path / "victim.lock"
    victim.write_text("precious")
    locks = sound / ".cachetool" / "locks"
    locks.mkdir(exist_ok=True)
    way = os.path.relpath(victim, locks).removesuffix(".lock")
    owner = {"name": way, "host": socket.gethostname(), "process": 2**22 + 1, "since": "now"}
    (locks / "extract.lock").write_text(json.dumps(owner))
    with lock(sound, "extract"):
        assert victim.read_text() == "precious"
    for wrong in ({**owner, "process": 10**30}, {**owner, "process": "x"}, {**owner, "name": 5}, {"name": "x"}):
        (locks / "extract.lock").write_text(json.dumps(wrong))
        with pytest.raises(StoreError, match=r"extract\.lock cannot be read"), lock(sound, "extract"):
            pass
    (locks / "extract.lock").unlink()
