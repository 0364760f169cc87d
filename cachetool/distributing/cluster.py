"""A dask cluster as cachetool uses it: jobs are opened by every worker, and their items come back in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cachetool.distributing.inspecting import agreed, check_sight, probe, witnesses
from cachetool.distributing.jobs import Job
from cachetool.distributing.workers import Description, describe, run_item, stop
from cachetool.environment import RECORDED_PACKAGES
from cachetool.errors import ClusterError
from cachetool.events import Events

if TYPE_CHECKING:
    from distributed import Client, Future

WAIT_SECONDS = 60.0
"""How long no worker may be there, and how long blocks in hand are waited for when a job is given up."""

AHEAD = 8
"""Items a worker that are submitted and not taken yet. Results are taken in order, so one that is late must not keep
others from work; but a cluster is not to be filled with what may never be wanted."""

NONE_LEFT = "no worker is left; finished blocks are kept. Start workers, then run the same command again"

LOST = (
    "the scheduler was stopped, or the connection to it was lost; finished blocks are kept. Start it, then run the "
    "same command again"
)

LOOK_SECONDS = 1.0
"""How often the driver looks for workers that are gone."""


class Cluster:
    """A connected cluster."""

    def __init__(self, client: Client) -> None:
        """Wait for a worker. Raises `ClusterError` where none joins."""
        self._client = client
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=WAIT_SECONDS)
        if not self._workers():
            raise ClusterError(
                f"{client.scheduler.address} has no worker, and none joined within {WAIT_SECONDS:.0f} s; start some "
                f"with `dask worker {client.scheduler.address}`"
            )

    def open(self, job: Job) -> Description:
        """Have every worker open a job. Raises `ClusterError` naming all that cannot, or that differ from others."""
        workers = self._workers()
        if not workers:
            raise ClusterError(NONE_LEFT)
        folders = [str(path) for path, _owner in job.locks]
        options: dict[str, Any] = {"workers": list(workers), "on_error": "return"}
        check_sight(self._client.run(probe(), RECORDED_PACKAGES, witnesses(job), folders, **options), workers)
        return agreed(self._client.run(describe, job, **options), workers)

    def each(self, job: Job, described: Description, items: Sequence[Any], events: Events) -> Iterator[tuple[Any, Any]]:
        """Items and what became of them, in order; what workers have to say is told to `events`.

        `described` is what all workers said when they opened the job, or one like it.

        An item whose worker is lost is done by another. Whatever ends this early, an error of an item included, gives
        the job up: items that are not begun are dropped, and those in hand end before the next batch.

        Raises
        ------
        ClusterError
            No worker is left, the scheduler is gone, or an item ended several workers.
        """
        known = self._workers()
        # Workers that declare GPUs run a task on each; one thread of all others runs one at a time.
        resources = {"GPU": 1} if any(gpus for _name, gpus in self._declared().values()) else None
        todo = deque(items)
        waiting: deque[tuple[Any, Future]] = deque()
        try:
            while todo or waiting:
                while todo and len(waiting) < AHEAD * max(len(known), 1):
                    item = todo.popleft()
                    key = f"cachetool-{job.token}-{item}"
                    future = self._client.submit(
                        run_item, job, described, item, key=key, pure=False, resources=resources
                    )
                    waiting.append((item, future))
                item, future = waiting[0]
                known = self._wait_for(future, known, events)
                outcome = _result(future, item)
                waiting.popleft()
                future.release()
                for text in outcome.messages:
                    events.message(text)
                yield item, outcome.value
        finally:
            if waiting:
                self._give_up(job, [future for _item, future in waiting])

    def _wait_for(self, future: Future, known: dict[str, str], events: Events) -> dict[str, str]:
        """Wait until an item is done; tells of workers that are lost meanwhile, and returns those that are there."""
        alone_since = None
        while True:
            done = _done(future, LOOK_SECONDS)
            now = self._workers()
            for address, name in known.items():
                if address not in now:
                    events.message(f"lost worker {name}; what it had in hand is done by another")
            known = now
            if done:
                return known
            alone_since = None if now else alone_since or time.monotonic()
            if alone_since is not None and time.monotonic() - alone_since > WAIT_SECONDS:
                raise ClusterError(NONE_LEFT)

    def _give_up(self, job: Job, futures: Sequence[Future]) -> None:
        """Cancel what is not begun, and wait until nothing of the job is in hand any more."""
        with suppress(Exception):  # whatever it was that ended the job is what the user has to hear of
            self._client.cancel(list(futures), force=True)
            self._client.run(stop, job.token, WAIT_SECONDS, on_error="ignore")

    def _workers(self) -> dict[str, str]:
        """Names of the workers that take part, by address: those that declare a GPU where any does."""
        declared = self._declared()
        chosen = [address for address, (_name, gpus) in declared.items() if gpus] or list(declared)
        return {address: f"{address} (worker {declared[address][0]})" for address in chosen}

    def _declared(self) -> dict[str, tuple[str, float]]:
        """Name of each worker and the GPUs that it declares, by address."""
        try:
            described = self._client.scheduler_info(n_workers=-1)["workers"]
        except OSError as error:
            raise ClusterError(LOST) from error
        return {address: (str(one["name"]), one["resources"].get("GPU", 0)) for address, one in described.items()}


def _done(future: Future, seconds: float) -> bool:
    """Wait for a future for some seconds, and say whether it is done."""
    from distributed import wait

    with suppress(TimeoutError, CancelledError), future.client.as_current():
        wait([future], timeout=seconds)
    return bool(future.done())


def _result(future: Future, item: Any) -> Any:
    """The outcome of an item that is done. Raises what it raised."""
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise ClusterError(
            f"item {item} ended {error.allowed_failures + 1} workers one after another, the last of them "
            f"{error.last_worker.address}: most often memory ran out there. Use a smaller --batch-size, or fewer "
            "workers a machine; finished blocks are kept"
        ) from error
    except CancelledError as error:
        raise ClusterError(LOST) from error
