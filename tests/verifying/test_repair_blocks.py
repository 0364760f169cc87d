"""Damaged blocks are extracted or replayed again, to the same bytes, and no other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import cachetool
from tests.verifying.conftest import Made, damaged, flip, tree, where


@pytest.mark.parametrize("kind", ["bit", "missing", "truncated", "record", "foreign"])
def test_a_damaged_block_is_extracted_again_to_the_same_bytes(made: Made, kind: str) -> None:
    before = tree(made.cache)
    shard = made.cache / "patches" / "c.1.0.0.0"
    harm = {
        "bit": lambda: flip(shard),
        "missing": shard.unlink,
        "truncated": lambda: shard.write_bytes(shard.read_bytes()[:5000]),
        "record": lambda: flip(made.cache / ".cachetool" / "blocks" / "0000001.json", 2),
        "foreign": lambda: shutil.copy(made.cache / "cls" / "c.0.0.0", made.cache / "cls" / "c.1.0.0"),
    }
    harm[kind]()
    stamps = {path: path.stat().st_mtime_ns for path in made.cache.rglob("c.0*")}
    found = cachetool.verify(made.cache)
    assert where(found) == {("block", "block 1")}
    assert found.problems[0].images == (8, 11)
    assert not found.sound
    assert all(one.image < 8 for one in found.recomputed)
    report = cachetool.verify(made.cache, repair=True, workers=0)
    assert report.sound
    (repair,) = report.repairs
    assert (repair.where, repair.images, repair.done) == ("block 1", (8, 11), True)
    assert repair.same_bytes is (None if kind == "record" else True)
    assert tree(made.cache) == before
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}, "a sound block was written"
    assert cachetool.verify(made.cache).sound
    assert cachetool.runs(made.cache), "the runs are still those of the cache"


def test_a_block_that_holds_few_states_gets_just_these_again(made: Made, tmp_path: Path) -> None:
    options: dict[str, Any] = {"root": tmp_path, "workers": 0, "name": "few"}
    dataset = f"imagefolder:{made.images}"
    cachetool.extract("tiny-reg", dataset, layers=(6, 12), tokens=("patches",), **options)
    opened = cachetool.extract("tiny-reg", dataset, layers=(12,), tokens=("cls",), **options)
    path = Path(opened.attrs["cachetool_path"])
    before = tree(path)
    damaged(path)
    flip(path / "cls" / "c.1.0.0", 10)
    assert cachetool.verify(path, repair=True, workers=0).sound
    assert tree(path) == before


def test_repair_needs_the_same_weights(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(damaged(made.cache))
    monkeypatch.setattr("cachetool.backbones.loading.digest", lambda tensors: "0" * 64)
    monkeypatch.setattr("cachetool.replaying.model.load", __import__("cachetool.backbones").backbones.load)
    report = cachetool.verify(made.cache, repair=True, recompute=0)
    assert not report.sound
    assert "weights_sha256" in report.repairs[0].text
    assert tree(made.cache) == before


def test_a_damaged_run_is_replayed_again_where_it_is_damaged(made: Made) -> None:
    for run in made.runs:
        before = tree(run)
        stamp = (run / "cls" / "c.0.0.0").stat().st_mtime_ns
        flip(run / "registers" / "c.1.0.0.0")
        report = cachetool.verify(run, repair=True)
        assert report.sound, report
        assert report.repairs[0].same_bytes
        assert tree(run) == before
        assert (run / "cls" / "c.0.0.0").stat().st_mtime_ns == stamp
