"""Commands on worker processes that are killed, interrupted or see another root: files are those of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cachetool.store import StoreReader
from tests.distributing.commands import finish, go_on, kill_one_worker, start, wait_until, worker_processes

distributed = pytest.importorskip("distributed", reason="the extra [distributed] is not installed")

Contents = Callable[[Path], dict[str, Any]]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

EXTRACT = ("extract", "tiny-reg", "shapes", "--limit", "200", "--workers", "1", "--layers", "6-12")
REPLAY = ("replay", "--ablation", "zero", "--ablation", "shuffle", "--from-layer", "6,9")
CLUSTER = ("--cluster", "local:2")
CACHE = Path("activations/shapes/tiny-reg.zarr")
STUDY = """
name = "small"
resamples = 200
[calibration]
data = "shapes#calibration"
limit = 40
[[models]]
name = "tiny-reg"
[[data]]
evaluate = "shapes#val"
train = "shapes#train"
tasks = ["classification", "retrieval"]
limit = 60
train_limit = 60
[[edits]]
name = "registers replaced"
targets = ["registers"]
replacements = ["zero", "shuffle", "mean"]
from_layers = [6]
refit = true
"""


def records(folder: Path, stores: str) -> int:
    return len(list(folder.glob(f"activations/{stores}/.cachetool/blocks/*.json")))


def wait_for_blocks(process: subprocess.Popen[str], folder: Path, stores: str, count: int) -> None:
    wait_until(lambda: records(folder, stores) >= count, process)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All commands by one process each."""
    folder = tmp_path_factory.mktemp("single") / "one"
    for command in (EXTRACT, REPLAY):
        finish(start(command, folder))
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The same on two workers, of which one is killed when some blocks are there; with what each command printed."""
    folder = tmp_path_factory.mktemp("cluster") / "two"
    texts = {}
    for command, hold, stores in (
        (EXTRACT, "tiny-reg.zarr", "shapes/*.zarr"),
        (REPLAY, "tiny-reg.runs", "shapes/*.runs/*.zarr"),
    ):
        process = start((*command, *CLUSTER), folder, hold)
        wait_for_blocks(process, folder, stores, 3)
        kill_one_worker(process)
        go_on(folder)
        texts[command[0]] = finish(process)
    return folder, texts


def test_a_worker_is_killed(single: Path, killed: tuple[Path, dict[str, str]], contents: Contents) -> None:
    folder, texts = killed
    found, expected = contents(folder / "activations"), contents(single / "activations")
    # What the worker was writing goes with the next command.
    found = {name: content for name, content in found.items() if ".partial-" not in name}
    assert len(expected) > 100
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    for command in ("extract", "replay"):
        assert "lost worker tcp://127.0.0.1:" in texts[command]
        assert "Traceback" not in texts[command]


def test_a_study_with_a_killed_worker(tmp_path: Path) -> None:
    for name, cluster in (("one", ()), ("two", CLUSTER)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "small.toml").write_text(STUDY)
        process = start(("study", "small.toml", "--no-figures", *cluster), folder, "shapes-train" if cluster else None)
        if cluster:
            wait_for_blocks(process, folder, "shapes-train/*.zarr", 2)
            kill_one_worker(process)
            go_on(folder)
        text = finish(process)
        if cluster:
            assert "lost worker" in text
    one, two = (tmp_path / name / "studies" / "small" / "table.csv" for name in ("one", "two"))
    assert len(one.read_text().splitlines()) > 10
    assert two.read_bytes() == one.read_bytes()


ANALYSE = """
import sys, time
from pathlib import Path
from uuid import uuid4

def main(cluster):
    import hashlib, os
    import numpy as np
    import xarray as xr
    from analyses.analysis import Analysis
    from analyses.analyze import analyze
    here = Path.cwd()

    def measured(values):
        name = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
        (here / "begun" / f"{name}-{os.getpid()}-{uuid4()}").touch()
        while cluster and len(list((here / "begun").iterdir())) > 6 and not (here / "go on").exists():
            time.sleep(0.02)
        return (values.astype(np.float64) ** 2).sum(axis=-1) ** 0.5

    def norms(store):
        "Norms that wait for a file after the first few."
        lengths = xr.apply_ufunc(
            measured, store.patches, input_core_dims=[["channel"]], dask="parallelized", output_dtypes=[float]
        )
        return xr.Dataset({"largest": lengths.max("patch"), "mean": lengths.mean(["image", "patch"])})

    found = analyze(Analysis("norms", norms), "activations/shapes/tiny-reg.zarr", cluster=cluster, events=Told())
    np.savez(here / "found.npz", **{name: found[name].values for name in found.data_vars})

class Told:
    def start(self, phase, total): print(phase, total)
    def advance(self, images, nbytes=0): pass
    def message(self, text): print(text)

if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else None)
"""
"""Every block says that it was begun, and by whom; after six they wait."""


def test_an_analysis_with_a_killed_worker(single: Path, tmp_path: Path) -> None:
    """While it waits in a task, so that it is lost half-way, with what it had done and in hand."""
    folders = tmp_path / "one", tmp_path / "two"
    for folder, cluster in zip(folders, ((), ("local:2",)), strict=True):
        (folder / "begun").mkdir(parents=True)
        (folder / "activations").symlink_to(single / "activations")
        (folder / "analyse.py").write_text(ANALYSE)
        process = subprocess.Popen(
            [sys.executable, "analyse.py", *cluster],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if cluster:
            while len(begun := begun_in(folder)) < 7:
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.02)
            _block, lost = begun[-1]  # it waits in this one, whatever the other does
            psutil.Process(int(lost)).kill()
            (folder / "go on").touch()
        text, _ = process.communicate(timeout=600)
        assert process.returncode == 0, text
        if cluster:
            assert "lost worker tcp://127.0.0.1:" in text
    one, two = (dict(np.load(folder / "found.npz")) for folder in folders)
    assert {name: values.tobytes() for name, values in one.items()} == {
        name: values.tobytes() for name, values in two.items()
    }
    blocks = [name for name, _process in begun_in(folders[0])]
    assert len(set(blocks)) == len(blocks) > 80
    again = Counter(name for name, _process in begun_in(folders[1]))
    assert set(again) == set(blocks)
    of_the_lost = {name for name, process in begun_in(folders[1]) if process == lost}
    assert {name for name, count in again.items() if count > 1} <= of_the_lost
    assert max(again.values()) == 2


def begun_in(folder: Path) -> list[tuple[str, str]]:
    """Blocks in the order in which they were begun, with the processes that began them."""
    files = sorted((folder / "begun").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    names = [file.name.split("-") for file in files]
    return [(name, process) for name, process, *_rest in names]


def test_interrupted(single: Path, tmp_path: Path, contents: Contents) -> None:
    """Ctrl-C reaches every process of the terminal, workers too."""
    folder = tmp_path / "two"
    process = start((*EXTRACT, *CLUSTER), folder, "tiny-reg.zarr")
    wait_for_blocks(process, folder, "shapes/*.zarr", 3)
    workers = worker_processes(process)
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 130, text
    assert "interrupted: finished blocks are kept" in text
    assert "Traceback" not in text
    psutil.wait_procs(workers, timeout=30)
    assert not any(worker.is_running() for worker in workers)
    assert records(folder, "shapes/*.zarr") >= 3
    assert not list(folder.rglob("*partial*"))
    assert not list(folder.rglob("*.lock"))
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("blocks/*.json")}
    finish(start(EXTRACT, folder))
    assert all(file.stat().st_mtime_ns == moment for file, moment in times.items())
    assert_same_cache(folder, single, contents)


def test_the_driver_is_killed(single: Path, tmp_path: Path, contents: Contents) -> None:
    folder = tmp_path / "two"
    process = start((*EXTRACT, *CLUSTER), folder, "tiny-reg.zarr")
    wait_for_blocks(process, folder, "shapes/*.zarr", 3)
    workers = worker_processes(process)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert "blocks written" in finish(start((*EXTRACT, *CLUSTER), folder))
    assert_same_cache(folder, single, contents)
    psutil.wait_procs(workers, timeout=60)
    assert not any(worker.is_running() for worker in workers)


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    process = start((*EXTRACT, *CLUSTER), folder, "tiny-reg.zarr")
    wait_for_blocks(process, folder, "shapes/*.zarr", 1)
    second = start(EXTRACT, folder)
    text, _ = second.communicate(timeout=120)
    assert second.returncode == 2, text
    assert f"is being written by another cachetool (extract: process {process.pid} on " in text.replace("\n", " ")
    go_on(folder)
    finish(process)
    assert StoreReader(folder / CACHE).complete[:, :, 6:].all()


@contextmanager
def dask(*arguments: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`dask ARGUMENTS` for the time of a block, started in a folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{arguments[0]}", *arguments[1:]],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_a_scheduler_and_a_worker_that_sees_another_root(tmp_path: Path, single: Path, contents: Contents) -> None:
    """One path, two folders: in `/proc/self/cwd` every process sees its own."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    file = tmp_path / "scheduler.json"
    worker = ("worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard")
    command = (*EXTRACT, "--root", "/proc/self/cwd/activations", "--cluster", str(file))
    with dask("scheduler", "--scheduler-file", str(file), "--no-dashboard", "--port", "0", folder=tmp_path):
        while not file.is_file():
            time.sleep(0.05)
        with dask(*worker, "--name", "good", folder=here), dask(*worker, "--name", "bad", folder=there):
            with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
                client.wait_for_workers(2, timeout=120)
            text, _ = (process := start(command, here)).communicate(timeout=300)
            assert process.returncode == 2, text
            assert "of 2 workers cannot take part" in text
            assert "(worker bad): /proc/self/cwd/activations/" in text
            assert "worker good" not in text
            assert not (there / "activations").exists()
        with dask(*worker, "--name", "good", folder=here):
            finish(start(command, here))
    assert_same_cache(here, single, contents)


def test_the_scheduler_is_killed(tmp_path: Path, single: Path, contents: Contents) -> None:
    file = tmp_path / "scheduler.json"
    with dask(
        "scheduler", "--scheduler-file", str(file), "--no-dashboard", "--port", "0", folder=tmp_path
    ) as scheduler:
        while not file.is_file():
            time.sleep(0.05)
        with dask("worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", folder=tmp_path):
            process = start((*EXTRACT, "--cluster", str(file)), tmp_path, "tiny-reg.zarr")
            wait_for_blocks(process, tmp_path, "shapes/*.zarr", 3)
            scheduler.kill()
            go_on(tmp_path)
            text, _ = process.communicate(timeout=300)
    assert process.returncode == 2, text
    assert "the scheduler was stopped, or the connection to it was lost" in " ".join(text.split())
    assert "Traceback" not in text
    finish(start(EXTRACT, tmp_path))
    assert_same_cache(tmp_path, single, contents)


def assert_same_cache(folder: Path, single: Path, contents: Contents) -> None:
    found, expected = contents(folder / CACHE), contents(single / CACHE)
    for document in (found["zarr.json"], expected["zarr.json"]):
        document["attributes"]["cachetool"]["facts"].pop("earlier_environments", None)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
