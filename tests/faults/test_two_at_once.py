"""Two processes on one store: one works, the other is refused and told by whom; what a dead one left is taken over."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cachetool.errors import StoreError
from cachetool.store import StoreReader, StoreWriter, create, lock
from tests.faults.commands import EXTRACT, Command, locks, start, succeed
from tests.store.conftest import make_example


def hold_blocks(until: Path) -> None:
    """Let the first block wait for a file, so that another process finds this one at work."""
    write = StoreWriter.write_block

    def held(*arguments: Any, **options: Any) -> int:
        while not until.exists():
            time.sleep(0.01)
        return write(*arguments, **options)

    pytest.MonkeyPatch().setattr(StoreWriter, "write_block", held)


@contextmanager
def at_work(arguments: tuple[object, ...], folder: Path) -> Iterator[Command]:
    """A command that holds its lock while the block runs, and then ends well."""
    until = folder / f"until-{arguments[0]}"
    command = start(arguments, folder, prepare=partial(hold_blocks, until))
    try:
        while not locks(folder / "root"):
            assert command.process.is_alive(), command.text
            time.sleep(0.01)
        yield command
    finally:
        until.touch()
    assert command.wait() == 0, command.text


@pytest.mark.slow
def test_two_extractions_and_two_replays(tmp_path: Path) -> None:
    cache = tmp_path / "root" / "shapes" / "tiny-reg.zarr"
    extraction = (*EXTRACT, "--root", tmp_path / "root")
    with at_work(extraction, tmp_path) as first:
        second = start(extraction, tmp_path)
        assert second.wait() == 2, second.text
        assert "is being written by another cachetool" in second.text
        assert f"process {first.process.pid} on {socket.gethostname()} since " in second.text
        assert " ago)" in second.text
    assert StoreReader(cache).complete.all()

    replay = ("replay", "--ablation", "zero", "--from-layer", "6", "--root", tmp_path / "root")
    with at_work(replay, tmp_path) as first:
        second = start(replay, tmp_path)
        assert second.wait() == 2, second.text
        assert f"replay: process {first.process.pid} on " in second.text
    succeed(replay, tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / "a.zarr", make_example().spec)
    (tmp_path / "a.zarr" / ".cachetool" / "locks").mkdir()
    return tmp_path / "a.zarr"


def leave_lock(path: Path, *, host: str, process: int, since: str = "2020-01-01T00:00:00+00:00") -> Path:
    file = path / ".cachetool" / "locks" / "extract.lock"
    file.write_text(json.dumps({"name": "extract", "host": host, "process": process, "since": since}))
    return file


def test_the_number_of_a_dead_owner_that_another_program_has_now(path: Path) -> None:
    leave_lock(path, host=socket.gethostname(), process=os.getppid())
    with lock(path, "extract"):
        pass


def test_an_owner_is_alive_while_it_holds_the_file_whatever_the_clock_says(path: Path) -> None:
    script = (
        "import sys; from cachetool.store import lock\n"
        "with lock(sys.argv[1], 'extract'): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        file = path / ".cachetool" / "locks" / "extract.lock"
        document = json.loads(file.read_text())
        for since in ("1970-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00", "yesterday"):
            with file.open("r+") as opened:  # in place: the owner holds this very file
                opened.write(json.dumps(document | {"since": since}))
                opened.truncate()
            with (
                pytest.raises(StoreError, match=rf"process {owner.pid} on .* since {since[:4]}"),
                lock(path, "extract"),
            ):
                pass
        owner.communicate("")
    assert not file.exists()
    with lock(path, "extract"):
        pass


@pytest.mark.parametrize(
    ("since", "age"), [("2020-01-01T00:00:00+00:00", r" \(\d+ years ago\)"), ("2999-01-01T00:00:00+00:00", "")]
)
def test_the_age_is_told_where_it_makes_sense(path: Path, since: str, age: str) -> None:
    leave_lock(path, host="elsewhere", process=1, since=since)
    told = rf"process 1 on elsewhere since {since[:19]}[+]00:00{age}\)\. "
    with pytest.raises(StoreError, match=told), lock(path, "extract"):
        pass


def test_a_lock_that_was_taken_from_its_owner_is_not_removed_by_it(path: Path) -> None:
    with lock(path, "extract"):
        (path / ".cachetool" / "locks" / "extract.lock").unlink()
        file = leave_lock(path, host="elsewhere", process=1)
    assert file.exists()


def test_what_another_host_left_goes_once_it_holds_no_lock(path: Path) -> None:
    leftover = path / "cls" / "c.0.0.0.partial-elsewhere-1"
    for age in (0, 2_000_000_000):  # now and in the past, or in the future: no clock is asked
        leftover.write_bytes(b"half")
        os.utime(leftover, (age, age))
        held = leave_lock(path, host="elsewhere", process=1)
        StoreWriter(path)
        assert leftover.exists()
        held.unlink()
        StoreWriter(path)
        assert not leftover.exists()


@pytest.mark.parametrize("moment", [0, 4_000_000_000])
def test_times_of_files_mean_nothing(tmp_path: Path, moment: int) -> None:
    example = make_example()
    path = example.make(tmp_path / "a.zarr")
    for file in path.rglob("*"):
        os.utime(file, (moment, moment))
    example.check(path)
    assert StoreWriter(path).pending(example.spec.layers, example.spec.token_types) == []
    reader = StoreReader(path)
    before = reader.read("cls", 0, 0, 4)
    StoreWriter(path).discard(0)
    example.fill(path)
    os.utime(path / "cls" / "c.0.0.0", (moment, moment))
    assert (reader.read("cls", 1, 0, 4).view("u2") == example.values["cls"][:4, 1].view("u2")).all()
    assert (before.view("u2") == example.values["cls"][:4, 0].view("u2")).all()
