"""Blocks that are written while they are looked at: how often, through what, and what tells one from another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath
from cachetool.store import OpenedStore
from cachetool.verifying.report import Problem
from cachetool.verifying.settled import LOOKS, generation, settled
from tests.store.conftest import make_example

Change = Callable[[Any], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_example(images=20, channels=2, layers=(0, 1), block=16).make(tmp_path / "a.zarr")


def problem(text: Any) -> Problem:
    return Problem("block", "block 1", str(text), 1, (16, 19))


def looked(path: Path, looks: list[tuple[bool, bool]]) -> tuple[list[Problem] | None, list[Any]]:
    """What `settled` gives where each look finds a problem or none, and somebody writes the block meanwhile or not."""
    opened, through = OpenedStore(path), list[Any]()
    record = path / ".cachetool" / "blocks" / "0000001.json"

    def check(store: Any) -> list[Problem]:
        through.append(store)
        found, written = looks[len(through) - 1]
        if written:
            record.write_bytes(record.read_bytes() + b" ")
        return [problem(len(through))] if found else []

    found = settled(opened, 1, check)
    return found, ["open" if store is opened else store for store in through]


@pytest.mark.parametrize(
    ("looks", "problems"),
    [
        ([(False, True)], []),
        ([(True, False), (True, False)], [problem(2)]),
        ([(True, True), (True, False)], [problem(2)]),
        ([(True, False), (True, True), (True, False)], [problem(3)]),
        ([(True, False), (True, True), (False, True)], []),
        ([(True, False), (True, True), (True, True), (True, False)], [problem(4)]),
        ([(True, True)] * 4, None),
        ([*[(True, True)] * 3, (False, True)], []),
    ],
)
def test_a_block_is_looked_at_until_nobody_writes_it_meanwhile(path: Path, looks: Any, problems: Any) -> None:
    assert LOOKS == 4
    assert looked(path, looks) == (problems, ["open", *[path] * (len(looks) - 1)])


def replaced(file: Path) -> None:
    """The same content in another file."""
    (file.parent / "new").write_bytes(file.read_bytes())
    (file.parent / "new").rename(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / ".cachetool" / "blocks" / "0000001.json").write_text("{}"),
        lambda path: (path / ".cachetool" / "blocks" / "0000001.json").unlink(),
        lambda path: (path / "patches" / "c.1.0.0.0").unlink(),
        lambda path: replaced(path / "cls" / "c.1.0.0"),
        lambda path: replaced(path / "registers" / "c.1.0.0.0"),
        lambda path: replaced(path / "complete" / "c.1.0.0"),
        lambda path: (path / "readable" / "c.1").write_bytes(b""),
        lambda path: (path / "zarr.json").unlink(),
    ],
)
def test_a_block_that_was_written_is_another_one(path: Path, change: Change) -> None:
    before = generation(path, 1), generation(path, 0)
    assert generation(path, 1) == before[0]
    change(path)
    assert generation(path, 1) != before[0]
    assert (generation(path, 0) == before[1]) == (path / "zarr.json").exists()


def test_a_store_that_is_gone_is_told_by_its_error(tmp_path: Path) -> None:
    (said,) = generation(tmp_path / "a.zarr", 1)
    assert said.startswith(f"There is no store at {tmp_path / 'a.zarr'}")


def test_of_objects_tags_are_compared_and_what_was_remembered_is_asked_anew(
    object_root: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = object_root / "a.zarr"
    make_example(images=20, channels=2, layers=(0, 1), block=16).make(path)  # type: ignore[arg-type]
    anew: list[Any] = []
    monkeypatch.setattr(type(path.source), "look_anew", lambda source: anew.append(source))
    before = generation(path, 1)
    assert anew == [path.source]
    assert before[1:4] == [
        (path / name).found() for name in ("cls/c.1.0.0", "registers/c.1.0.0.0", "patches/c.1.0.0.0")
    ]
    assert generation(path, 1) == before
    (path / "patches" / "c.1.0.0.0").put(b"another")
    assert generation(path, 1) != before


def test_a_record_that_the_network_does_not_give_is_no_other_record(
    object_root: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, usual = object_root / "a.zarr", ObjectPath.read_bytes
    make_example(images=20, channels=2, layers=(0, 1), block=16).make(path)  # type: ignore[arg-type]

    def down(one: ObjectPath) -> bytes:
        if one.name == "0000001.json":
            raise StoreError("the network is down")
        return usual(one)

    monkeypatch.setattr(ObjectPath, "read_bytes", down)
    with pytest.raises(StoreError, match="the network is down"):
        generation(path, 1)
