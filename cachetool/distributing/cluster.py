"""A dask cluster as cachetool uses it: jobs are opened by every worker, and their items come back in order."""

from __future__ import annotations

import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Hashable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cachetool.distributing.inspecting import agreed, check_python, check_sight, probe, witnesses
from cachetool.distributing.jobs import Job
from cachetool.distributing.workers import Description, describe, run_item, run_step, stop
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

ATTEMPTS = 3
"""How often workers are asked that are all lost before they answer."""


class Cluster:
    """A connected cluster."""

    def __init__(self, client: Client) -> None:
        """Wait for a worker. Raises `ClusterError` where none joins."""
        self._client = client
        self._resources: dict[str, int] | None = None
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=WAIT_SECONDS)
        if not self._workers():
            raise ClusterError(
                f"{client.scheduler.address} has no worker, and none joined within {WAIT_SECONDS:.0f} s; start some "
                f"with `dask worker {client.scheduler.address}`"
            )
        if any(gpus for _name, gpus in self._declared().values()):
            self._resources = {"GPU": 1}  # such workers alone take part, with a task for each GPU, to the end

    def open(self, job: Job) -> Description:
        """Have every worker open a job. Raises `ClusterError` naming all that cannot, or that differ from others."""
        folders = [str(path) for path, _owner in job.locks]
        check_python(*self._ask(platform.python_version))
        check_sight(*self._ask(probe(), job.packages, witnesses(job), folders))
        return agreed(*self._ask(describe, job))

    def each(
        self, job: Job, described: Description, items: Sequence[Any], events: Events
    ) -> Generator[tuple[Any, Any], None, None]:
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
        todo = deque(items)
        waiting: deque[tuple[Any, Future]] = deque()
        try:
            while todo or waiting:
                while todo and len(waiting) < AHEAD * max(len(known), 1):
                    item = todo.popleft()
                    waiting.append((item, self._submit(run_item, job, described, item, name=item)))
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

    def compute(
        self,
        job: Job,
        described: Description,
        steps: Mapping[Hashable, tuple[Hashable, ...]],
        item: Callable[[Hashable], Any],
        wanted: Collection[Hashable],
        events: Events,
    ) -> dict[Hashable, Any]:
        """Values of the wanted ones among steps that use what others gave.

        `steps` names what each needs, which all precede it, and `item` makes of a name what a worker does. What a step
        gave stays on its worker until those that need it are done; with a worker that is lost it goes, and is made
        again. What is submitted ahead, and so what workers hold, is bounded. Raises and is given up as `each`.
        """
        unmet = Counter(name for needs in (*steps.values(), wanted) for name in needs)
        known = self._workers()
        todo = deque(steps)
        waiting: deque[tuple[int, Future]] = deque()
        held: dict[Hashable, Future] = {}
        try:
            while todo or waiting:
                while todo and len(waiting) < AHEAD * max(len(known), 1):
                    name = todo.popleft()
                    place = len(steps) - len(todo)
                    held[name] = self._submit(
                        run_step, job, described, item(name), *(held[need] for need in steps[name]), name=place
                    )
                    waiting.append((place, held[name]))
                    unmet.subtract(steps[name])
                    for need in steps[name]:
                        if not unmet[need]:
                            held.pop(need, None)  # the scheduler keeps it until this step is done
                place, future = waiting[0]
                if not future.done():  # to look for lost workers takes milliseconds, as long as many a step
                    known = self._wait_for(future, known, events)
                if future.status != "finished":
                    _result(future, place)
                waiting.popleft()
                events.advance(1)
            return {name: _result(held[name], name) for name in wanted}
        except BaseException:
            self._give_up(job, [*held.values(), *(future for _place, future in waiting)])
            raise

    def _submit(self, function: Callable[..., Any], job: Job, *arguments: Any, name: Hashable) -> Future:
        """A task of a job, begun in the order in which tasks were submitted."""
        return self._client.submit(
            function, job, *arguments, key=f"cachetool-{job.token}-{name}", pure=False, resources=self._resources,
            fifo_timeout=0,
        )  # fmt: skip

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """What a function gives on every worker, an exception where it raised, and names of workers, both by address.

        Workers that are lost meanwhile have no say. Raises `ClusterError` where none is left.
        """
        for _attempt in range(ATTEMPTS):
            workers = self._waited_for()
            try:
                found = self._client.run(function, *arguments, workers=list(workers), on_error="return")
            except OSError as error:
                raise ClusterError(LOST) from error
            if any(isinstance(answer, OSError) for answer in found.values()):
                time.sleep(LOOK_SECONDS)  # the scheduler may not know yet that a worker is gone
            there = self._workers()
            if answers := {address: answer for address, answer in found.items() if address in there}:
                return answers, workers
        raise ClusterError(
            f"all workers were lost when they were asked to begin, {ATTEMPTS} times one after another: most often "
            "memory ran out there. Use fewer workers a machine; finished blocks are kept"
        )

    def _waited_for(self) -> dict[str, str]:
        """The workers that take part, once there is one. Raises `ClusterError` where none joins for a while."""
        until = time.monotonic() + WAIT_SECONDS
        while not (workers := self._workers()):
            if time.monotonic() > until:
                raise ClusterError(NONE_LEFT)
            time.sleep(LOOK_SECONDS)
        return workers

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
        """Names of the workers that take part, by address: those that declare a GPU where any did at first."""
        return {
            address: f"{address} (worker {name})"
            for address, (name, gpus) in self._declared().items()
            if gpus or self._resources is None
        }

    def _declared(self) -> dict[str, tuple[str, float]]:
        """Name of each worker and the GPUs that it declares, by address."""
        try:
            # Not `scheduler_info`: what that returns dask replaces in the background by an answer without workers.
            described = self._client.sync(self._client.scheduler.identity, n_workers=-1)["workers"]
        except (OSError, AttributeError) as error:  # without a connection the client has no scheduler
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
            f"{error.last_worker.address}: most often memory ran out there. Use a smaller --batch-size where "
            "there is one, or fewer workers a machine; finished blocks are kept"
        ) from error
    except CancelledError as error:
        raise ClusterError(LOST) from error
