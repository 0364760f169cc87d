"""How items are handed out, taken in and given up, with jobs that do little."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cachetool.distributing import Cluster, workers
from cachetool.distributing.jobs import Job
from cachetool.distributing.workers import Description
from cachetool.errors import ClusterError, RangeError
from cachetool.events import Events, Silent
from cachetool.store import create, holds, lock
from tests.store.conftest import make_example

begun: list[int] = []
opened: list[str] = []
go_on = threading.Event()
ALIKE = Description({"device": "cpu"}, 1)


@dataclass(frozen=True, kw_only=True)
class Small(Job):
    def open(self, events: Events) -> OpenedSmall:
        opened.append(self.token)
        return OpenedSmall(events)


@dataclass(frozen=True)
class OpenedSmall:
    """Items are numbers: 13 fails, 99 takes as long as it is wanted."""

    events: Events
    environment = ALIKE.environment
    batch_size = ALIKE.batch_size

    def run(self, item: int) -> int:
        begun.append(item)
        if item == 13:
            raise RangeError("thirteen")
        while item == 99:
            go_on.set()
            time.sleep(0.01)
            self.events.advance(1)
        self.events.message(f"did {item}")
        return item * item


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    begun.clear()
    opened.clear()
    go_on.clear()
    yield
    assert workers._working.acquire(timeout=5), "an item is still in hand"
    workers._working.release()


@pytest.fixture
def cluster(client: Any) -> Cluster:
    return Cluster(client)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    create(tmp_path / "a.zarr", make_example().spec)
    return tmp_path / "a.zarr"


class Listening(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_items_come_back_in_order_and_jobs_are_opened_once(cluster: Cluster, cache: Path) -> None:
    job, told = Small(cache=cache), Listening()
    cluster.open(job)
    assert list(cluster.each(job, ALIKE, range(20, 60), told)) == [(item, item * item) for item in range(20, 60)]
    assert sorted(begun) == list(range(20, 60))
    assert opened == [job.token]  # both workers are of this process
    assert told.messages == [f"did {item}" for item in range(20, 60)]


def test_not_everything_is_submitted_at_once(cluster: Cluster, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachetool.distributing.cluster.AHEAD", 1)
    found = cluster.each(Small(cache=cache), ALIKE, range(100, 1000), Silent())
    next(found)
    time.sleep(0.2)
    assert len(begun) <= 4
    found.close()
    assert len(begun) <= 4


def test_an_error_is_the_one_that_was_raised_and_ends_the_job(cluster: Cluster, cache: Path) -> None:
    job = Small(cache=cache)
    with pytest.raises(RangeError, match="thirteen"):
        list(cluster.each(job, ALIKE, [1, 13, *range(100, 200)], Silent()))
    assert job.token in workers._stopped
    assert len(begun) < 20


def test_an_interrupt_gives_up_what_is_in_hand(cluster: Cluster, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Small(cache=cache)

    def interrupted(*arguments: Any) -> Any:
        assert go_on.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr("cachetool.distributing.cluster._done", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(cluster.each(job, ALIKE, [99, 1, 2], Silent()))
    assert job.token in workers._stopped  # without which 99 would be in hand for ever, see `fresh`


def test_a_worker_that_joined_late_and_computes_otherwise(cluster: Cluster, cache: Path) -> None:
    expected = Description({"device": "NVIDIA T4", "threads": 8}, 2)
    with pytest.raises(ClusterError, match="device cpu, not NVIDIA T4; batch_size 1, not 2; stop it"):
        list(cluster.each(Small(cache=cache), expected, [1], Silent()))
    assert begun == []


def test_work_ends_where_the_driver_holds_the_lock_no_more(cluster: Cluster, cache: Path) -> None:
    """A driver that was killed gives nothing up; another that takes its lock must find nobody at work."""
    with ThreadPoolExecutor(1) as driver:
        with lock(cache, "extract", shared=True) as owner:
            job = Small(cache=cache, locks=((cache, owner),))
            assert holds(cache, owner)
            assert list(cluster.each(job, ALIKE, [2], Silent())) == [(2, 4)]
            working = driver.submit(list, cluster.each(job, ALIKE, [99], Silent()))
            assert go_on.wait(20)
        assert not holds(cache, owner)
        with pytest.raises(ClusterError, match=f"process {owner.process} on {owner.host} does not hold the lock of"):
            working.result(20)
    another = Small(cache=cache, locks=((cache, owner),))
    with lock(cache, "extract", shared=True), pytest.raises(ClusterError, match="does not hold the lock"):
        list(cluster.each(another, ALIKE, [4], Silent()))
    assert 4 not in begun


def test_a_worker_that_is_lost_while_it_opens_a_job_has_no_say(
    cluster: Cluster, cache: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    run = type(client).run

    def running(self: Any, function: Any, *arguments: Any, workers: list[str], on_error: str) -> Any:
        asked.append(workers)
        found = run(self, function, *arguments, workers=workers, on_error=on_error)
        return {**found, workers[0]: OSError("Connection reset by peer")}

    monkeypatch.setattr(type(client), "run", running)
    monkeypatch.setattr("cachetool.distributing.cluster.LOOK_SECONDS", 0.01)
    both = cluster._workers()
    first, second = both
    with pytest.raises(ClusterError, match=r"1 of 2 workers cannot take part:\n  .*: OSError: Connection reset"):
        cluster.open(Small(cache=cache))  # it is there, but the scheduler does not reach it
    seen = iter([both, {second: both[second]}] * 3)
    monkeypatch.setattr(Cluster, "_workers", lambda self: next(seen))
    assert cluster.open(Small(cache=cache)) == ALIKE
    assert asked[1:] == [[first, second]] * 3
    seen = iter([both, {}] * 3)
    with pytest.raises(ClusterError, match="all workers were lost when they were asked to begin, 3 times"):
        cluster.open(Small(cache=cache))


def test_workers_that_are_lost_are_named(cluster: Cluster, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter([{"a": "tcp://a (worker 0)", "b": "tcp://b (worker 1)"}])
    monkeypatch.setattr(Cluster, "_workers", lambda self: next(seen, {"b": "tcp://b (worker 1)"}))
    told = Listening()
    list(cluster.each(Small(cache=cache), ALIKE, [1], told))
    assert told.messages[0] == "lost worker tcp://a (worker 0); what it had in hand is done by another"


def test_no_worker_is_left(cluster: Cluster, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "_workers", lambda self: {})
    monkeypatch.setattr("cachetool.distributing.cluster.WAIT_SECONDS", 0.1)
    monkeypatch.setattr("cachetool.distributing.cluster.LOOK_SECONDS", 0.05)
    with pytest.raises(ClusterError, match="no worker is left"):
        list(cluster.each(Small(cache=cache), ALIKE, [99], Silent()))


def test_an_item_that_ends_workers(cluster: Cluster, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Future
    from distributed.scheduler import KilledWorker

    killed = KilledWorker("cachetool-3", SimpleNamespace(address="tcp://a:1"), 3)

    def fail(self: Any, *arguments: Any) -> Any:
        raise killed

    monkeypatch.setattr(Future, "result", fail)
    with pytest.raises(ClusterError, match=r"item 3 ended 4 workers one after another, the last of them tcp://a:1"):
        list(cluster.each(Small(cache=cache), ALIKE, [3], Silent()))


def test_declared_gpus_are_respected(client: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a worker declares a GPU, only such workers take part, with a GPU for each task."""
    asked: list[Any] = []
    submit = type(client).submit

    def submitting(self: Any, *arguments: Any, resources: Any, **options: Any) -> Any:
        asked.append(resources)
        return submit(self, *arguments, **options)  # the workers of the test have no such resource

    monkeypatch.setattr(type(client), "submit", submitting)
    cluster = Cluster(client)
    first, second = cluster._workers()
    list(cluster.each(Small(cache=cache), ALIKE, [1], Silent()))
    monkeypatch.setattr(Cluster, "_declared", lambda self: {first: ("0", 0), second: ("1", 1)})
    cluster = Cluster(client)
    assert list(cluster._workers()) == [second]
    list(cluster.each(Small(cache=cache), ALIKE, [2], Silent()))
    assert asked == [None, {"GPU": 1}]
    # Without the last of them tasks would wait for ever: what is left declares none.
    monkeypatch.setattr(Cluster, "_declared", lambda self: {first: ("0", 0)})
    monkeypatch.setattr("cachetool.distributing.cluster.WAIT_SECONDS", 0.1)
    monkeypatch.setattr("cachetool.distributing.cluster.LOOK_SECONDS", 0.05)
    with pytest.raises(ClusterError, match="no worker is left"):
        list(cluster.each(Small(cache=cache), ALIKE, [99], Silent()))
    with pytest.raises(ClusterError, match="no worker is left"):
        cluster.open(Small(cache=cache))


def test_no_worker_is_lost_by_what_the_client_remembers(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask refreshes that with an answer that names no workers, also between asking and reading."""
    expected = set(client.scheduler_info(n_workers=-1)["workers"])
    monkeypatch.setattr(client, "scheduler_info", lambda **_: {"workers": {}})
    assert set(Cluster(client)._workers()) == expected != set()
