"""What `cachetool info` says of an extraction in parts: how far it is, who works on it, and what to do for the rest."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from cachetool.store import lock

CACHE = Path("activations/shapes/tiny-reg.zarr")


@pytest.fixture
def in_parts(cachetool: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line, where the second of three parts of a cache of six blocks is done."""
    monkeypatch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 4)
    done = cachetool(
        "extract", "tiny-reg", "shapes", "--limit", "22", "--workers", "0", "--layers", "12", "--tokens", "cls",
        "--part", "2/3",
    )  # fmt: skip
    assert done.code == 0, done.err
    return cachetool


def taken(name: str) -> Path:
    """A lock of another host, taken a minute before the records that are there."""
    file = CACHE / ".cachetool" / "locks" / f"{name}.lock"
    file.write_text(
        json.dumps({"name": name, "host": "node[red]7", "process": 12, "since": "2026-01-01T00:00:00+00:00"})
    )
    before = (CACHE / ".cachetool" / "blocks" / "0000003.json").stat().st_mtime - 60
    os.utime(file, (before, before))
    return file


def test_who_works_on_what(in_parts: Any) -> None:
    file = taken("extract-part-2-of-3")
    with lock(CACHE, "extract-part-1-of-3"):
        shown = in_parts("info", "shapes/tiny-reg")
        document = json.loads(in_parts("info", "shapes/tiny-reg", "--json").out)["progress"]
        listed = in_parts("info")
    assert shown.code == 0
    assert json.loads(shown.out)["images"] == 22, "standard output is one document"
    assert "8 of 22 images, 2 of 6 blocks" in shown.err
    assert f"process {os.getpid()} on {socket.gethostname()}" in shown.err
    assert "process 12 on node[red]7 (" in shown.err
    assert "nobody works on 1 of 3 parts: run the same `cachetool extract` again with --part 3/3\n" in shown.err
    assert f"if one is dead, remove its file:\n  {file}\n" in shown.err
    assert str(CACHE / ".cachetool" / "locks" / "extract-part-1-of-3.lock") not in shown.err, "it is known to live"
    assert "estimates" in shown.err
    assert "36 %, 2 at work" in listed.out
    assert (document["images_done"], document["blocks_done"], document["seconds_left"]) == (8, 2, None)
    first, second, third = document["parts"]
    assert (first["job"]["process"], first["job"]["known_to_live"]) == (os.getpid(), True)
    assert (second["seconds_left"], second["job"]["known_to_live"]) == (0, False)
    assert second["job"]["images_per_second"] == pytest.approx(8 / 60, rel=0.01)
    assert third["job"] is None


def test_nobody_is_at_work(in_parts: Any) -> None:
    shown = in_parts("info", "shapes/tiny-reg")
    assert "nobody works on it: the same `cachetool extract` again, for all 22 images, goes on, also in " in shown.err
    assert "at work:" not in shown.err
    listed = json.loads(in_parts("info", "--json").out)["caches"][0]
    assert (listed["progress"]["images_done"], listed["progress"]["parts"][0]["parts"]) == (8, 1)
    assert " 36 % " in in_parts("info").out


def test_what_is_finished_is_not_talked_about(in_parts: Any) -> None:
    done = in_parts(
        "extract", "tiny-reg", "shapes", "--limit", "22", "--workers", "0", "--layers", "12", "--tokens", "cls"
    )
    assert done.code == 0, done.err
    shown = in_parts("info", "shapes/tiny-reg")
    assert shown.err == ""
    assert " 100 % " in in_parts("info").out


@pytest.mark.slow
def test_an_extraction_of_fewer_images_than_the_cache_has(in_parts: Any) -> None:
    extract = ("extract", "tiny-reg", "shapes", "--workers", "0", "--tokens", "cls")
    done = in_parts(*extract, "--layers", "6", "--limit", "10")
    assert done.code == 0
    assert "3 of 3 blocks written" in done.err
    assert "the cache has 22 images, and a state can be read once all of them have it" in done.err
    assert "without --limit 10\n" in done.err
    again = in_parts(*extract, "--layers", "6", "--limit", "10")
    assert f"nothing to do: {CACHE} holds all that was asked for (the first 10 of its 22 images)\n" in again.err
    assert "a state can be read once all of them have it" in again.err
    with lock(CACHE, "extract", images=10):
        shown = in_parts("info", "shapes/tiny-reg")
    assert f"process {os.getpid()} on {socket.gethostname()} was asked for the first 10 images alone" in shown.err
    assert in_parts(*extract, "--layers", "6,12").code == 0
    covered = in_parts(*extract, "--layers", "6", "--limit", "10")
    assert "a state can be read once" not in covered.err


def test_a_lock_that_cannot_be_read_hides_nothing_else(in_parts: Any) -> None:
    taken("extract").write_text("{")
    shown = in_parts("info", "shapes/tiny-reg", "--json")
    assert shown.code == 0
    assert "no progress: The lock " in shown.err
    assert json.loads(shown.out)["progress"] is None
    assert json.loads(shown.out)["images"] == 22


def test_a_root_without_caches_says_how_to_make_one(cachetool) -> None:
    shown = cachetool("info")
    assert shown.code == 0
    assert "no cache below" in shown.err
    assert "`cachetool extract MODEL DATASET`" in shown.err
    assert shown.out == ""
