"""What a cluster makes is what a single process makes: the same files, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cachetool
from cachetool import Edit
from cachetool.calibrating import calibrate
from cachetool.distributing import connect, summarize_on
from cachetool.distributing.extraction import OpenedExtraction
from cachetool.errors import ClusterError, ImageError, KeyMismatchError
from cachetool.events import Silent
from cachetool.extraction.extract import Done
from cachetool.replaying.runs import run_key
from cachetool.store import StoreReader, StoreWriter
from tests.reference.plain_models import write_folder

pytestmark = pytest.mark.slow

Contents = Callable[[Path], dict[str, Any]]
EDITS = (
    Edit("registers", "shuffle", 6, seed=1),
    Edit("patches:random4", "noise", 6, seed=2),
    Edit("patches:outliers:1.2", "norm-matched", 9, seed=4, fresh_per_layer=True),
    Edit("cls", "knockout", 9, sustained=False),
    Edit("patches:random4", "remove", 9, seed=3),
)


def extracted(root: Path, **options: Any) -> Path:
    asked = {"limit": 18, "workers": 0, **options}
    opened = cachetool.extract("tiny-reg", asked.pop("dataset", "shapes"), root=root, **asked)
    return Path(opened.attrs["cachetool_path"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 scenes in five blocks, the last of them not full, by a single process."""
    return extracted(tmp_path_factory.mktemp("whole"))


def test_extraction(whole: Path, tmp_path: Path, client: Any, contents: Contents) -> None:
    found = extracted(tmp_path, cluster=client, workers=2)
    assert len(contents(found)) > 20
    assert contents(found) == contents(whole)


def test_extraction_in_two_steps_and_two_parts(whole: Path, tmp_path: Path, client: Any, contents: Contents) -> None:
    extracted(tmp_path, cluster=client, limit=6, layers=(3, 7))
    extracted(tmp_path, cluster=client, part=(2, 2), batch_size=3)
    found = extracted(tmp_path, cluster=client, part=(1, 2), batch_size=3)
    single = tmp_path / "single"
    for options in (
        {"limit": 6, "layers": (3, 7)},
        {"part": (2, 2), "batch_size": 3},
        {"part": (1, 2), "batch_size": 3},
    ):
        expected = extracted(single, **options)
    assert contents(found) == contents(expected)
    assert StoreReader(found).complete.all()


def test_unreadable_images_are_told_and_stored_as_nan(tmp_path: Path, client: Any, contents: Contents) -> None:
    image_ids = write_folder(tmp_path / "scenes")
    broken = tmp_path / "scenes" / image_ids[5]
    broken.write_bytes(broken.read_bytes()[:300])
    told = Told()
    options: dict[str, Any] = {"dataset": f"imagefolder:{tmp_path / 'scenes'}", "limit": None, "on_error": "continue"}
    single = extracted(tmp_path / "single", **options)
    found = extracted(tmp_path / "cluster", **options, cluster=client, events=told)
    assert contents(found) == contents(single)
    assert [text for text in told.messages if image_ids[5] in text]
    with pytest.raises(ImageError, match=image_ids[5]):
        extracted(tmp_path / "stopped", **{**options, "on_error": "stop"}, cluster=client)
    assert not list((tmp_path / "stopped").rglob("*.lock"))
    assert not list((tmp_path / "stopped").rglob("*.partial*"))


def test_replays(whole: Path, tmp_path: Path, client: Any, contents: Contents) -> None:
    """Their own calibrations, masks, donors, distances and certificates included."""
    roots = tmp_path / "single", tmp_path / "cluster"
    for root, cluster in zip(roots, (None, client), strict=True):
        cache = extracted(root)
        runs = cachetool.replay(cache, list(EDITS), keep="all", cluster=cluster)
        assert len(runs) == len(EDITS)
    assert contents(roots[1]) == contents(roots[0])
    again = cachetool.replay(cache, list(EDITS), keep="all", cluster=client)
    assert [run.attrs["cachetool_path"] for run in again] == [run.attrs["cachetool_path"] for run in runs]


def test_replays_in_blocks_of_another_size_than_the_cache(
    tmp_path: Path, client: Any, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs are of blocks of 6 where the cache has 4; one that was begun in blocks of 4 goes on in these."""
    roots = tmp_path / "single", tmp_path / "cluster"
    for root, cluster in zip(roots, (None, client), strict=True):
        cache = extracted(root)
        with monkeypatch.context() as patch:
            earlier = Path(cachetool.replay(cache, EDITS[0], cluster=cluster).attrs["cachetool_path"])
            patch.setattr("cachetool.replaying.runs.run_block", lambda cache, edit, keep: 6)
            StoreWriter(earlier).discard(1)
            runs = cachetool.replay(cache, list(EDITS[:3]), cluster=cluster)
        assert [StoreReader(run.attrs["cachetool_path"]).spec.block for run in runs] == [4, 6, 6]
    assert contents(roots[1]) == contents(roots[0])


def test_a_run_that_lacks_a_block(whole: Path, tmp_path: Path, client: Any, contents: Contents) -> None:
    cache = extracted(tmp_path)
    run = Path(cachetool.replay(cache, EDITS[0], cluster=client).attrs["cachetool_path"])
    before = contents(run)
    StoreWriter(run).discard(2)
    shard = (run / "cls" / "c.1.0.0").stat().st_mtime_ns
    cachetool.replay(cache, EDITS[0], cluster=client)
    assert contents(run) == before
    assert (run / "cls" / "c.1.0.0").stat().st_mtime_ns == shard


def test_a_file_that_is_another_one_on_a_worker(
    whole: Path, tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, file = extracted(tmp_path), tmp_path / "direction.npy"
    np.save(file, np.ones(96))

    def run_key_there(*arguments: Any) -> dict[str, Any]:
        np.save(file, np.zeros(96))
        return run_key(*arguments)

    monkeypatch.setattr("cachetool.distributing.replays.run_key", run_key_there)
    with pytest.raises(KeyMismatchError, match=r"is another edit on .* than for the command .*drawn from.*must be the"):
        cachetool.replay(cache, Edit("cls", f"add:{file}", 9), cluster=client)
    (run,) = (tmp_path / "shapes").glob("*.runs/*.zarr")
    assert not StoreReader(run).complete.any()


@pytest.mark.parametrize("covariance", [False, True])
def test_calibration(whole: Path, tmp_path: Path, client: Any, contents: Contents, covariance: bool) -> None:
    roots = tmp_path / "single", tmp_path / "cluster"
    for root, cluster in zip(roots, (None, client), strict=True):
        cachetool.calibrate(extracted(root), limit=15, covariance=covariance, cluster=cluster)
    assert contents(roots[1]) == contents(roots[0])


def test_a_calibration_of_another_cache_at_the_same_place(whole: Path, tmp_path: Path, client: Any) -> None:
    """A worker that joins later is not asked what it sees: it compares key and images."""
    cache = tmp_path / "a.zarr"
    shutil.copytree(whole, cache)
    reader = StoreReader(cache)
    with connect(client) as cluster:
        summarize = summarize_on(cluster, cache, Silent())
        assert calibrate(reader, summarize=summarize).digest == calibrate(reader).digest
        shutil.rmtree(cache)
        extracted(tmp_path / "other", dtype="float32").rename(cache)
        with pytest.raises(ClusterError, match=r"2 of 2 workers cannot take part:\n.*is another cache there than here"):
            calibrate(reader, summarize=summarize)


def test_progress_is_told_by_block(tmp_path: Path, client: Any) -> None:
    told = Told()
    extracted(tmp_path, cluster=client, events=told)
    assert told.phases["extract"] == (18, [4, 4, 4, 4, 2])
    assert all(told.bytes)


def test_bytes_that_a_lost_worker_wrote_are_told(tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is lost when it has written a block, which another one is given then."""
    run, told = OpenedExtraction.run, Told()

    def twice(self: OpenedExtraction, block: int) -> Done:
        assert run(self, block).bytes_written > 0
        return run(self, block)

    monkeypatch.setattr(OpenedExtraction, "run", twice)
    extracted(tmp_path, cluster=client, tokens=("cls",))
    found = extracted(tmp_path, cluster=client, tokens=("registers", "patches"), events=told)
    shards = [*found.glob("registers/c.*"), *found.glob("patches/c.*")]
    assert len(shards) == 10
    assert sum(told.bytes) == sum(shard.stat().st_size for shard in shards)


def test_a_finished_cache_asks_nothing_of_the_cluster(
    whole: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachetool.distributing.cluster.Cluster.open", None)
    assert extracted(whole.parents[1], cluster=client) == whole


class Told:
    """Events as they come."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.phases: dict[str, tuple[int, list[int]]] = {}
        self.bytes: list[int] = []

    def start(self, phase: str, total: int) -> None:
        self.phases[phase] = (total, [])
        self._phase, self.bytes = phase, []

    def advance(self, images: int, nbytes: int = 0) -> None:
        self.phases[self._phase][1].append(images)
        self.bytes.append(nbytes)

    def message(self, text: str) -> None:
        self.messages.append(text)
