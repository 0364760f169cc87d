"""Verification finds every kind of damage, computes images again, and mends what is bad and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import cachetool
from cachetool import Edit
from cachetool.errors import MissingDataError, StaleRunWarning, UnknownNameError
from cachetool.store import OpenedStore, StoreReader, StoreWriter, check
from cachetool.store.object_folders import put_all
from cachetool.verifying import Report
from cachetool.verifying.comparing import Comparison
from tests.reference.plain_models import write_folder
from tests.reference.quick import quick

EDITS = [Edit("registers", "shuffle", 6, seed=1), Edit("patches:random4", "mean", 9, seed=2), Edit("cls", "none", 6)]


@dataclass(frozen=True)
class Made:
    """A cache of a folder of images in two blocks, with three runs."""

    cache: Path
    runs: tuple[Path, ...]
    images: Path
    ids: tuple[str, ...]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with quick(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 8)
        yield


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, small: None) -> Path:
    root = tmp_path_factory.mktemp("verifying")
    write_folder(root / "scenes")
    opened = cachetool.extract("tiny-reg", f"imagefolder:{root / 'scenes'}", root=root, workers=0)
    cachetool.replay(opened, EDITS, batch_size=1)  # as `verify` replays: only then is every product of one shape
    return root


@pytest.fixture
def made(original: Path, tmp_path: Path) -> Made:
    """A copy of the cache and its runs; the images are the originals, copied too where a test changes them."""
    (folder,) = (path for path in original.iterdir() if path.name != "scenes")
    shutil.copytree(folder, tmp_path / folder.name)
    cache = tmp_path / folder.name / "tiny-reg.zarr"
    runs = sorted((tmp_path / folder.name / "tiny-reg.runs").glob("*.zarr"))
    return Made(cache, tuple(runs), original / "scenes", StoreReader(cache).images.image_id)


def run_of(made: Made, text: str) -> Path:
    (path,) = (path for path in made.runs if text in path.name)
    return path


def tree(path: Path) -> dict[str, bytes]:
    """All values, flags and records of a store."""
    files = (file for file in path.rglob("*") if file.is_file() and not {"locks", "guard"} & set(file.parts))
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.name != "zarr.json"}


def flip(path: Path, position: int = 100) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def alter(path: Path, token_type: str, layer: int, image: int, change: Callable[[Any], Any]) -> None:
    """Change the values of one image at one state, and leave every checksum right."""
    reader, block = StoreReader(path), image // 8
    first, last = block * 8, min(block * 8 + 8, len(reader.images))
    values = reader.read(token_type, layer, first, last).copy()
    values[image - first] = change(values[image - first])
    if token_type == "cls":
        values = values[:, 0]
    StoreWriter(path).write_block(block, {token_type: values[None]}, (layer,))


def where(report: Report) -> set[tuple[str, str]]:
    return {(problem.part, problem.where) for problem in report.problems}


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


def test_what_other_batches_gave_is_sound_within_rounding(made: Made) -> None:
    """Some processors multiply the few rows of one image by another kernel than those of eight."""
    run = cachetool.replay(made.cache, Edit("registers", "shuffle", 6, seed=5), batch_size=8)
    report = cachetool.verify(run)
    assert report.sound
    assert min(one.bit_equal for one in report.recomputed) > 0.99


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


def test_the_sample_follows_from_the_seed_and_can_be_all_or_nothing(made: Made) -> None:
    first, again, other = (cachetool.verify(made.cache, recompute=3, seed=seed) for seed in (5, 5, 6))
    drawn = [[one.image for one in report.recomputed] for report in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert cachetool.verify(made.cache, recompute=0).recomputed == []
    assert [one.image for one in cachetool.verify(made.cache, recompute=99).recomputed] == list(range(12))
    with pytest.raises(UnknownNameError, match="--recompute -1"):
        cachetool.verify(made.cache, recompute=-1)


@pytest.mark.parametrize(("token_type", "layer"), [("cls", 12), ("registers", 0), ("patches", 7)])
def test_values_with_right_checksums_are_found_by_computing_them_again(made: Made, token_type: str, layer: int) -> None:
    def one_value(values: Any) -> Any:
        values[0, 7] *= np.float16(1.02)
        return values

    alter(made.cache, token_type, layer, 10, one_value)
    report = cachetool.verify(made.cache, recompute=12)
    (bad,) = report.differing
    assert (bad.image, bad.image_id, bad.token_type, bad.layer) == (10, made.ids[10], token_type, layer)
    assert f"{token_type} at state {layer} is not what is stored" in bad.problem
    assert bad.bit_equal < 1.0 < bad.allowed
    assert not report.sound
    assert report.problems == []


def test_another_file_is_named(made: Made, tmp_path: Path) -> None:
    images = Path(shutil.copytree(made.images, tmp_path / "scenes"))
    StoreWriter(made.cache).update_facts({"dataset": f"imagefolder:{images}"})
    (images / made.ids[3]).write_bytes((images / made.ids[4]).read_bytes())
    (images / made.ids[5]).unlink()
    report = cachetool.verify(made.cache, recompute=12)
    assert [one.image for one in report.differing] == [3, 5]
    assert "is another file than was extracted" in report.differing[0].problem
    assert "has no such image any more" in report.differing[1].problem
    refused = cachetool.verify(damaged(made.cache), repair=True, recompute=0)
    assert not refused.sound
    assert "does not begin with the images" in refused.repairs[0].text
    assert (made.cache / "cls" / "c.0.0.0").exists()


def damaged(path: Path) -> Path:
    flip(path / "patches" / "c.1.0.0.0")
    return path


def test_what_is_not_at_hand_is_a_note_unless_it_was_asked_for(made: Made) -> None:
    StoreWriter(made.cache).update_facts({"dataset": "imagefolder:/nowhere/at/all"})
    report = cachetool.verify(made.cache)
    assert report.sound
    assert "no image was computed again" in report.notes[0]
    with pytest.raises(MissingDataError, match="nowhere"):
        cachetool.verify(made.cache, recompute=1)


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


@pytest.mark.parametrize("name", ["edited", "donor", "off_distribution_norm_percentile"])
def test_lost_arrays_of_a_run_come_back_by_a_replay(made: Made, name: str) -> None:
    run = run_of(made, "shuffle")
    before = tree(run)
    (file,) = (run / name).glob("c*")
    file.unlink()
    assert where(cachetool.verify(run, recompute=0)) == {("table", name)}
    assert cachetool.verify(run, repair=True, recompute=0).sound
    assert tree(run) == before


def test_a_tampered_run_is_found(made: Made) -> None:
    run = run_of(made, "mean")
    alter(run, "patches", 12, 4, lambda values: values * np.float16(1.01))
    (bad,) = cachetool.verify(run, recompute=12).differing
    assert bad.image == 4


SMALL = ("layer", "token_type", "row", "col", "image_id", "label", "class_name", "norm_weight", "norm_bias")
"""Small arrays, of which the quick tests derive every other one of a cache, and the rest of a run."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, marks=[] if (row + column) % 2 == 0 else pytest.mark.slow)
        for row, kind in enumerate(("cache", "run"))
        for column, name in enumerate(SMALL)
    ],
)
def test_small_arrays_are_derived(made: Made, name: str, kind: str) -> None:
    path = made.cache if kind == "cache" else made.runs[0]
    before = tree(path)
    (path / name / "c.0").unlink()
    (path / name / "zarr.json").write_text("{}")
    found = cachetool.verify(path, recompute=0)
    assert where(found) == {("table", name), ("document", name)}
    report = cachetool.verify(path, repair=True, recompute=0)
    assert report.sound, report.repairs
    assert tree(path) == before
    with xr.open_zarr(path) as plain:
        assert plain[name].size


def test_what_follows_from_nothing_is_refused_with_what_to_do(made: Made) -> None:
    flip(made.cache / "content_sha256" / "c.0", 20)
    report = cachetool.verify(made.cache, repair=True)
    assert not report.sound
    assert f"remove {made.cache} and extract again" in report.repairs[0].text
    run = made.runs[0]
    (run / "content_sha256" / "c.0").unlink()
    assert not cachetool.verify(run, repair=True).sound, "its cache has lost them too"


def test_flags_are_written_again_from_the_records(made: Made) -> None:
    before = tree(made.cache)
    (made.cache / "complete" / "c.0.0.0").unlink()
    flip(made.cache / "complete" / "c.1.0.0", 2)
    assert where(cachetool.verify(made.cache, recompute=0)) == {("flags", "block 0"), ("flags", "block 1")}
    report = cachetool.verify(made.cache, repair=True, recompute=0)
    assert report.sound
    assert tree(made.cache) == before


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


def test_runs_notice_values_that_changed_and_nothing_else(made: Made) -> None:
    """State 6 decides two runs, state 9 one; the shuffle also reads registers at all later states."""
    assert len(cachetool.runs(made.cache)) == 3
    alter(made.cache, "registers", 8, 2, lambda values: values * np.float16(1.01))
    with pytest.warns(StaleRunWarning, match=r"1 of 3 runs are left out(.|\n)*shuffle.*: registers at state 8"):
        assert len(cachetool.open_runs(made.cache).run) == 2
    shuffle = run_of(made, "shuffle")
    report = cachetool.verify(shuffle, recompute=0)
    assert where(report) == {("cache", "tiny-reg.zarr")}
    assert "registers at state 8" in report.problems[0].text
    said: list[str] = []

    class Told:
        def start(self, phase: str, total: int) -> None: ...
        def advance(self, images: int, nbytes: int = 0) -> None: ...
        def message(self, text: str) -> None:
            said.append(text)

    assert len(cachetool.runs(made.cache, events=Told())) == 2
    assert "1 of 3 runs" in said[0]
    assert cachetool.verify(shuffle, repair=True, recompute=12).sound
    assert len(cachetool.runs(made.cache)) == 3


def test_a_replay_on_changed_values_is_made_anew_rather_than_found_again(made: Made) -> None:
    before = tree(run_of(made, "none"))
    alter(made.cache, "cls", 6, 2, lambda values: values * np.float16(1.01))
    said: list[str] = []

    class Told:
        def start(self, phase: str, total: int) -> None: ...
        def advance(self, images: int, nbytes: int = 0) -> None: ...
        def message(self, text: str) -> None:
            said.append(text)

    cachetool.replay(made.cache, EDITS[2], events=Told())
    assert ["replayed anew" in text for text in said] == [True]
    after = tree(run_of(made, "none"))
    assert before["cls/c.0.0.0"] != after["cls/c.0.0.0"]
    assert before["cls/c.1.0.0"] == after["cls/c.1.0.0"]
    cachetool.replay(made.cache, EDITS[2], events=Told())
    assert len(said) == 1


def test_an_extended_cache_keeps_its_runs(made: Made, tmp_path: Path) -> None:
    options: dict[str, Any] = {"root": tmp_path, "workers": 0, "name": "growing"}
    dataset = f"imagefolder:{made.images}"
    cache = cachetool.extract("tiny-reg", dataset, layers=(6, 12), limit=10, **options)
    cachetool.replay(cache, EDITS[2])
    cache = cachetool.extract("tiny-reg", dataset, layers=(6, 9, 12), **options)
    (run,) = cachetool.runs(cache)
    report = cachetool.verify(run)
    assert report.sound
    assert "was made of 10 images" in report.notes[0]


def test_rounding_is_allowed_and_more_is_not() -> None:
    random = np.random.default_rng(0)
    exact = random.normal(size=(5, 64)).astype(np.float32)
    for dtype, stored in (("float16", exact.astype(np.float16)), ("float32", exact)):
        same = Comparison(0, "a", dtype)
        same.add("patches", 3, stored, stored)
        assert (same.result().problem, same.result().bit_equal) == ("", 1.0)
        near = Comparison(0, "a", dtype)
        near.add("patches", 3, np.nextafter(stored, stored.dtype.type(9)), stored)
        assert (near.result().problem, near.result().bit_equal) == ("", 0.0)
        far = Comparison(0, "a", dtype)
        wrong = stored.copy()
        wrong[2, 5] += 0.02
        far.add("patches", 3, wrong, stored)
        assert "patches at state 3" in far.result().problem
        absent = Comparison(0, "a", dtype)
        wrong[2, 5] = np.nan
        absent.add("patches", 3, wrong, stored)
        assert absent.result().problem


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
