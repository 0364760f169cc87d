"""The same inputs give the same bytes, whatever the workers, the parts, the order and the interruptions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cachetool
from cachetool import Edit
from cachetool.store import StoreReader, StoreWriter
from tests.reference.plain_models import write_folder
from tests.reference.quick import quick

EDITS = (
    Edit("registers", "shuffle", 6, seed=1),
    Edit("patches:random4", "noise", 6, seed=2),
    Edit("patches:outliers:1.2", "norm-matched", 6, seed=4, fresh_per_layer=True),
    Edit("cls", "same-class-shuffle", 9, seed=3),
)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with quick(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 4)
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("determinism") / "scenes"
    write_folder(folder)
    return folder


def extracted(scenes: Path, root: Path, **options: Any) -> Path:
    opened = cachetool.extract("tiny-reg", f"imagefolder:{scenes}", root=root, **{"workers": 0, **options})
    return Path(opened.attrs["cachetool_path"])


def shards(path: Path) -> dict[str, bytes]:
    """All files of the arrays of a store, flags and small arrays too."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.glob("*/c*") if file.is_file()}


@pytest.fixture(scope="module")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extracted(scenes, tmp_path_factory.mktemp("whole"))


def test_workers(scenes: Path, whole: Path, tmp_path: Path) -> None:
    assert len(shards(whole)) > 9
    for workers in (1, 2):
        assert shards(extracted(scenes, tmp_path / str(workers), workers=workers)) == shards(whole)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_parts_in_either_order(scenes: Path, whole: Path, tmp_path: Path, order: tuple[int, int]) -> None:
    for part in order:
        path = extracted(scenes, tmp_path, part=(part, 2))
    assert shards(path) == shards(whole)


def stopping(patch: pytest.MonkeyPatch, after: int) -> None:
    """Stop at the write of a block after some were written."""
    write, count = StoreWriter.write_block, iter(range(1000))

    def failing(self: StoreWriter, *arguments: Any, **options: Any) -> int:
        if next(count) == after:
            raise KeyboardInterrupt
        return write(self, *arguments, **options)

    patch.setattr(StoreWriter, "write_block", failing)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_extraction_that_was_stopped(scenes: Path, whole: Path, tmp_path: Path, after: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stopping(patch, after)
        with pytest.raises(KeyboardInterrupt):
            extracted(scenes, tmp_path)
    assert shards(extracted(scenes, tmp_path, workers=1)) == shards(whole)


@pytest.fixture(scope="module")
def replayed(whole: Path) -> list[dict[str, bytes]]:
    return [shards(Path(run.attrs["cachetool_path"])) for run in cachetool.replay(whole, EDITS, keep=(9, 12))]


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 5])
def test_a_replay_that_was_stopped(scenes: Path, tmp_path: Path, replayed: list[dict[str, bytes]], after: int) -> None:
    cache = extracted(scenes, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        stopping(patch, after)
        with pytest.raises(KeyboardInterrupt):
            cachetool.replay(cache, EDITS, keep=(9, 12))
    again = cachetool.replay(cache, EDITS[::-1], keep=(9, 12))[::-1]
    assert [shards(Path(run.attrs["cachetool_path"])) for run in again] == replayed


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3])
def test_draws_do_not_depend_on_the_batch_size(
    scenes: Path, tmp_path: Path, whole: Path, replayed: list[dict[str, bytes]], batch_size: int
) -> None:
    """At the first edited state, what is stored is what was drawn, before any product could be summed otherwise."""
    cache = extracted(scenes, tmp_path)
    for edit in EDITS:
        firsts = []
        for path, size in ((cache, batch_size), (whole, None)):
            run = cachetool.replay(path, edit, keep=(edit.from_layer,), batch_size=size)
            firsts.append(shards(Path(run.attrs["cachetool_path"])))
        assert firsts[0] == firsts[1]


def test_the_certificate_measures_between_batch_sizes_and_names_them(scenes: Path, tmp_path: Path) -> None:
    cache = extracted(scenes, tmp_path, batch_size=3, dtype="float32")
    certificate = cachetool.replay(cache, EDITS[0], batch_size=2).attrs["facts"]["certificate"]
    assert (certificate["batch_size"], certificate["cache_batch_size"], certificate["images"]) == (12, 3, 12)
    assert certificate["relative_error"] < 1e-5


def test_what_blocks_were_computed_with_before_is_not_forgotten(scenes: Path, tmp_path: Path) -> None:
    path = extracted(scenes, tmp_path, part=(1, 2), batch_size=2)
    extracted(scenes, tmp_path, part=(2, 2), batch_size=3)
    facts = StoreReader(path).spec.facts
    assert facts["batch_size"] == 3
    assert [entry["batch_size"] for entry in facts["earlier_environments"]] == [2]
    assert facts["earlier_environments"][0]["environment"] == facts["environment"]
    extracted(scenes, tmp_path, batch_size=1)
    assert StoreReader(path).spec.facts == facts, "nothing was computed"
    assert np.isfinite(StoreReader(path).read("cls", 12, 0, 12)).all()
