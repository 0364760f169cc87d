"""What verification finds in blocks and numbers, and what it does not take for damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import cachetool
from cachetool.store import OpenedStore, check
from cachetool.store.object_folders import put_all
from tests.verifying.conftest import Made, alter, flip, tree, where


def test_sound_stores_are_sound_and_runs_replayed_again_to_the_bit(made: Made) -> None:
    for path in (made.cache, *made.runs):
        before = tree(path)
        report = cachetool.verify(path)
        assert report.sound, report
        assert (report.blocks, report.problems, report.notes) == (2, [], [])
        equal = [one.bit_equal for one in report.recomputed]
        assert equal == [1.0] * 4 if path in made.runs else min(equal) > 0.99
        assert tree(path) == before, "looking changed something"
    assert json.loads(json.dumps(report.to_json()))["sound"] is True


def test_a_store_is_not_opened_anew_for_each_sound_block(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    class Counted(OpenedStore):
        def __init__(self, path: Path) -> None:
            opened.append(path)
            super().__init__(path)

    for module in ("cachetool.verifying.checking", "cachetool.verifying.settled", "cachetool.store.check"):
        monkeypatch.setattr(f"{module}.OpenedStore", Counted)
    assert cachetool.verify(made.cache, recompute=0).sound
    assert len(opened) == 1
    flip(made.cache / "patches" / "c.1.0.0.0")
    assert not cachetool.verify(made.cache, recompute=0).sound
    assert len(opened) > 2


def test_a_calibration_that_was_altered_is_found(made: Made) -> None:
    import zarr

    opened = cachetool.calibrate(made.cache, name="mine")
    path = Path(opened.attrs["cachetool_path"])
    assert cachetool.verify(path).sound
    means = zarr.open_array(str(path), path="registers_mean", mode="r+")
    means[3, 1, 5] = means[3, 1, 5] + 1e-9
    report = cachetool.verify(path, repair=True)
    assert where(report) == {("calibration", "numbers")}
    assert "remove the calibration" in report.repairs[0].text
    assert not report.sound
    shutil.rmtree(path / "cls_mean" / "c")
    assert not cachetool.verify(path).sound


@pytest.mark.parametrize(
    ("where", "writes", "notes"),
    [
        ("on a disk", 1, []),
        ("on a disk", 99, ["block 1 was written again each of the 4 times"]),
        ("in an object store", 2, []),
    ],
)
def test_a_block_that_somebody_writes_meanwhile_is_no_damage(
    made: Made, where: str, writes: int, notes: list[str], request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Any = made.cache
    if where == "in an object store":
        path = request.getfixturevalue("object_root") / "a.zarr"
        files = [file for file in made.cache.rglob("*") if file.is_file() and not {"locks", "guard"} & set(file.parts)]
        put_all(path, {file.relative_to(made.cache).as_posix(): file.read_bytes() for file in files})
    left = [writes]

    def open_shard(shard: Any, *arguments: Any) -> Any:
        # The record of the block has been read by now.
        if left[0] and shard.parent.name == "patches" and shard.name.startswith("c.1."):
            left[0] -= 1
            alter(path, "patches", 12, 9, lambda values: -values)
        return usual(shard, *arguments)

    usual = check.open_shard
    with monkeypatch.context() as patch:
        patch.setattr(check, "open_shard", open_shard)
        report = cachetool.verify(path, recompute=0)
    assert left == [max(writes - 4, 0)]
    assert report.problems == []
    assert [note.partition(" it was")[0] for note in report.notes] == notes
    shard = path / "patches" / "c.1.0.0.0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content) if isinstance(shard, Path) else shard.put(bytes(content))
    assert {problem.where for problem in cachetool.verify(path, recompute=0).problems} == {"block 1"}
