"""Dask graphs on workers: the values that they have here, with every store opened once, and nothing left behind."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest
from dask.delayed import delayed
from threadpoolctl import threadpool_info

import cachetool
from cachetool.distributing import Cluster, ClusterScheduler, GraphJob, workers
from cachetool.distributing.inspecting import witnesses
from cachetool.errors import ClusterError, RangeError
from cachetool.events import Silent
from cachetool.store import StoreReader
from tests.store.conftest import make_example

begun: list[float] = []
go_on = threading.Event()


class Heard(Silent):
    def __init__(self) -> None:
        self.phases: list[tuple[str, int]] = []
        self.done = 0

    def start(self, phase: str, total: int) -> None:
        self.phases.append((phase, total))

    def advance(self, images: int, nbytes: int = 0) -> None:
        self.done += images


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random values of 10 images in three blocks, at four states."""
    return make_example().make(tmp_path_factory.mktemp("graphs") / "a.zarr")


def read(reader: StoreReader, layer: int, block: int) -> npt.NDArray[np.float32]:
    """Patches of a block, without the extremes that make sums overflow."""
    values = reader.read_float32("patches", layer, 4 * block, min(4 * block + 4, 10))
    return np.clip(np.nan_to_num(values), -1, 1)


def blocks_at(reader: StoreReader, layer: int) -> list[Any]:
    return [delayed(read)(reader, layer, block) for block in range(3)]


@pytest.fixture
def job(cache: Path) -> GraphJob:
    return GraphJob(cache=cache)


@pytest.fixture
def computed_there(client: Any, job: GraphJob) -> Iterator[Heard]:
    """Whatever dask computes is computed on the cluster."""
    begun.clear()
    go_on.clear()
    heard = Heard()
    with dask.config.set(scheduler=ClusterScheduler(Cluster(client), job, "graph", heard)):
        yield heard
    assert workers._working.acquire(timeout=5), "a task is still in hand"
    workers._working.release()
    until = time.monotonic() + 20
    while left := client.run_on_scheduler(lambda dask_scheduler: [str(key) for key in dask_scheduler.tasks]):
        assert time.monotonic() < until, left
        time.sleep(0.01)


def test_values_of_a_store_are_those_of_one_process(
    cache: Path, computed_there: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    reopen = StoreReader.__init__

    def opening(self: StoreReader, path: Any, **options: Any) -> None:
        opened.append(path)
        reopen(self, path, **options)

    reader = StoreReader(cache)
    mean = delayed(np.mean)([delayed(np.mean)(block) for layer in (1, 3) for block in blocks_at(reader, layer)])
    expected = mean.compute(scheduler="threads")
    monkeypatch.setattr(StoreReader, "__init__", opening)
    assert mean.compute() == expected != 0
    assert opened == [cache]  # both workers are of this process, and one job is open at a time
    ((phase, total),) = computed_there.phases
    assert phase == "graph"
    assert computed_there.done == total >= 7


def test_what_is_not_asked_for_stays_there(computed_there: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Any] = []
    result = type_of_future().result

    def fetching(self: Any, *arguments: Any) -> Any:
        fetched.append(value := result(self, *arguments))
        return value

    monkeypatch.setattr(type_of_future(), "result", fetching)
    blocks = [delayed(np.full)(1000, float(number)) for number in range(50)]
    sums = [delayed(np.sum)(block) for block in blocks]
    assert delayed(sum)(sums).compute() == 1000 * sum(range(50))
    assert fetched == [1000 * sum(range(50))]


def test_what_workers_hold_does_not_grow_with_the_graph(
    computed_there: Heard, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachetool.distributing.cluster.AHEAD", 2)
    most = 0

    def looking(*arguments: Any) -> bool:
        nonlocal most
        most = max(most, client.run_on_scheduler(in_memory))
        return done(*arguments)

    from cachetool.distributing import cluster

    done = cluster._done
    monkeypatch.setattr("cachetool.distributing.cluster._done", looking)
    values = [delayed(float)(number) for number in range(64)]
    while len(values) > 1:
        values = [delayed(sum)(values[first : first + 2]) for first in range(0, len(values), 2)]
    assert values[0].compute() == sum(range(64))
    assert computed_there.done == 63  # numbers are made where two are added up
    assert 0 < most <= 4 + 10  # what is submitted, and what a tree of five floors waits for


def in_memory(dask_scheduler: Any) -> int:
    return sum(task.state == "memory" for task in dask_scheduler.tasks.values())


def type_of_future() -> Any:
    from distributed import Future

    return Future


def blas_threads() -> list[int]:
    np.linalg.eigh(np.eye(3))
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


def test_blas_runs_on_one_thread(computed_there: Heard) -> None:
    assert set(delayed(blas_threads)().compute()) == {1}


def test_keys_may_be_nested_and_have_other_names(client: Any, job: GraphJob, computed_there: Heard) -> None:
    scheduler = ClusterScheduler(Cluster(client), job, "graph", Silent())
    graph = {"a": 1, "b": (np.add, "a", "a"), "c": "b", "d": (np.add, "c", 3)}
    assert scheduler(graph, [["c", "d"], "a", "d"]) == ((2, 5), 1, 5)
    assert scheduler(graph, "d") == 5
    assert dask.compute(da.arange(10, chunks=3).sum(), delayed(len)([1, 2])) == (45, 2)


def fail(value: int) -> int:
    raise RangeError(f"found {value}")


def test_an_error_is_the_one_that_was_raised_and_the_next_graph_is_computed(computed_there: Heard) -> None:
    with pytest.raises(RangeError, match="found 3"):
        delayed(sum)([delayed(fail)(3), *(delayed(float)(number) for number in range(100))]).compute()
    assert delayed(sum)([delayed(float)(4)]).compute() == 4


def slow(number: float) -> float:
    begun.append(number)
    go_on.set()
    time.sleep(0.05)
    return number


def test_an_interrupt_gives_up_what_is_not_begun(computed_there: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> bool:
        assert go_on.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr("cachetool.distributing.cluster._done", interrupted)
    with pytest.raises(KeyboardInterrupt):
        delayed(sum)([delayed(slow)(float(number)) for number in range(1000)]).compute()
    count = len(begun)
    assert count <= 16
    time.sleep(0.2)
    assert len(begun) == count


def test_a_module_that_workers_lack(computed_there: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("only_here")
    exec("def double(value): return 2 * value", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    pack = cachetool.distributing.graphs._pack

    def packing(task: Any) -> bytes:
        packed = pack(task)
        sys.modules.pop("only_here", None)  # workers are of this process
        return packed

    monkeypatch.setattr("cachetool.distributing.graphs._pack", packing)
    with pytest.raises(ClusterError, match=r"lacks what the analysis is made of \(ModuleNotFoundError: .*only_here"):
        delayed(module.double)(2).compute()


def test_a_task_that_cannot_travel(computed_there: Heard) -> None:
    with pytest.raises(ClusterError, match=r"cannot be sent to workers \(TypeError: cannot pickle .*without --cluster"):
        delayed(id)(threading.Lock()).compute()


def test_every_store_is_looked_for(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "zarr.json").write_text(folder)
    job = GraphJob(cache=tmp_path / "one", reads=(tmp_path / "two",))
    assert [Path(file).parent.name for file in witnesses(job)] == ["one", "two"]


def test_packages_and_the_device_are_compared(client: Any, cache: Path) -> None:
    described = Cluster(client).open(GraphJob(cache=cache))
    assert {"dask", "xarray", "numpy"} <= set(described.environment)
    assert described.environment["kernel"].startswith("cpu ")
    with pytest.raises(ClusterError, match=r"2 of 2 workers cannot take part:\n.*--device abacus"):
        Cluster(client).open(GraphJob(cache=cache, device="abacus"))


def test_values_that_several_tasks_need(cache: Path, computed_there: Heard) -> None:
    """One block is used by two tasks, and one value twice by the same."""
    reader = StoreReader(cache)
    tokens = da.concatenate([da.from_delayed(block, (4, 6, 5), np.float32) for block in blocks_at(reader, 2)[:2]])
    once = tokens * 3
    both = da.stack([once.sum(), (once + once).max(), tokens.min()])
    np.testing.assert_array_equal(both.compute(), both.compute(scheduler="threads"))


def test_blocks_that_are_compared_are_read_where_they_are_compared(cache: Path, computed_there: Heard) -> None:
    """What travels between workers is one number a block."""
    reader = StoreReader(cache)
    pairs = zip(blocks_at(reader, 0), blocks_at(reader, 3), strict=True)
    largest = delayed(max)([delayed(difference)(*pair) for pair in pairs])
    assert largest.compute() == largest.compute(scheduler="threads") > 0
    assert computed_there.phases == [("graph", 3 + 1)]


def difference(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    return float(np.abs(one - other).max())
