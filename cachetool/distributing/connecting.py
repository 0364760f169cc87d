"""From what the user names to a connected cluster: an address, a scheduler file, or workers on this machine."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cachetool.distributing.cluster import Cluster
from cachetool.errors import ClusterError, UnknownNameError
from cachetool.packages import CLUSTERS, require

if TYPE_CHECKING:
    from distributed import Client, SpecCluster

ClusterLike: TypeAlias = "str | Path | Client | Cluster"
"""What names a cluster, or is one."""

CONNECT_SECONDS = 5.0
"""How long a scheduler may take to answer: one that is there takes milliseconds."""


@contextmanager
def connect(cluster: ClusterLike | None) -> Iterator[Cluster | None]:
    """A connected cluster for the time of a block of work; None for None.

    Parameters
    ----------
    cluster
        `tcp://HOST:PORT` or another address of a dask scheduler; the path of a scheduler file; `local` or `local:N` for
        N worker processes on this machine, by default one for each GPU, else for each processor. Or a
        `distributed.Client`, which is left open.

    Raises
    ------
    UnknownNameError
        It is none of these.
    MissingPackageError
        The package `distributed` is missing.
    ClusterError
        No scheduler answers, or it has no workers.
    """
    if cluster is None or isinstance(cluster, Cluster):
        yield cluster
        return
    require("--cluster", CLUSTERS, "distributed")
    from distributed import Client

    if isinstance(cluster, Client):
        yield Cluster(cluster)
        return
    name = str(cluster)
    count = _local_workers(name)
    if count is None:
        with _client(_address(name)) as client:
            yield Cluster(client)
        return
    with _local_cluster(count) as started, _client(started.scheduler_address) as client:
        yield Cluster(client)


def _local_workers(name: str) -> int | None:
    """Number of workers of `local` and `local:N`; None for what is neither."""
    word, colon, count = name.partition(":")
    if word != "local":
        return None
    if not colon:
        return len(_gpus()) or _processors()
    if not (count.isdecimal() and 0 < int(count) <= 1024):
        raise UnknownNameError(f"--cluster {name}: expected local:N with N from 1 to 1024, such as local:2")
    return int(count)


def _address(name: str) -> str:
    """The address of a scheduler, from a scheduler file where that is what was named."""
    if "://" in name:
        return name
    if not Path(name).is_file():
        raise UnknownNameError(
            f"--cluster {name}: expected the address of a dask scheduler such as tcp://HOST:8786, the path of a "
            "scheduler file (there is no such file), or local:N for N worker processes on this machine"
        )
    try:
        return str(json.loads(Path(name).read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnknownNameError(
            f"--cluster {name}: expected a scheduler file, as `dask scheduler --scheduler-file` writes it, found "
            f"another file ({type(error).__name__}: {error})"
        ) from error


@contextmanager
def _client(address: str) -> Iterator[Client]:
    """A client of a scheduler. Raises `ClusterError` where none answers."""
    from distributed import Client
    from distributed.utils import silence_logging_cmgr

    try:
        _greet(address)
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:  # a timeout is an OSError
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClusterError(
            f"no dask scheduler answers at {address} within {CONNECT_SECONDS:.0f} s ({reason}); check the address, and "
            "that `dask scheduler` runs there"
        ) from error
    # Whoever asks tells what becomes of the connection. dask's client logs its attempts to connect again, and a
    # traceback where it is closed meanwhile.
    with silence_logging_cmgr(logging.CRITICAL, "distributed.client"), client:
        yield client


def _greet(address: str) -> None:
    """Raise `OSError` where nothing answers as dask does: its clients wait for ever for a service that is silent."""
    from distributed.comm import connect
    from distributed.security import Security
    from distributed.utils import LoopRunner, sync

    async def greet() -> None:
        comm = await connect(address, timeout=CONNECT_SECONDS, **Security().get_connection_args("client"))
        comm.abort()

    runner = LoopRunner()
    runner.start()
    try:
        sync(runner.loop, greet, callback_timeout=CONNECT_SECONDS)
    finally:
        runner.stop()


@contextmanager
def _local_cluster(count: int) -> Iterator[SpecCluster]:
    """Worker processes on this machine, each with its share of the processors and a GPU where there are any."""
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = _gpus()
    threads = max(_processors() // count, 1)
    host = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}

    def worker(index: int) -> dict[str, Any]:
        bound = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {}
        options = {
            "host": "127.0.0.1",
            "nthreads": 1,
            "memory_limit": 0,  # else a worker with large blocks in hand is ended as one that leaks
            "dashboard": False,
            "dashboard_address": None,
            "silence_logs": logging.CRITICAL,
            "env": {"OMP_NUM_THREADS": str(threads), **bound},
        }
        return {"cls": Nanny, "options": options}

    with (
        _uninterrupted_loop() as loop,
        SpecCluster(
            workers={index: worker(index) for index in range(count)},
            scheduler={"cls": Scheduler, "options": host},
            loop=loop,
            silence_logs=logging.CRITICAL,
        ) as started,
    ):
        yield started


@contextmanager
def _uninterrupted_loop() -> Iterator[Any]:
    """An event loop in a thread that Ctrl-C does not reach, nor the processes that it starts.

    A terminal sends it to all of them, but the driver alone is to end the work: workers would print tracebacks, and be
    started anew. Threads and processes begin with the signals blocked that were blocked where they were started.
    """
    from multiprocessing import resource_tracker

    from distributed.utils import LoopRunner

    runner = LoopRunner()
    resource_tracker.ensure_running()  # to start it later, in the thread of the loop, would unblock the signal there
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield runner.loop
    finally:
        runner.stop()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """Names of the GPUs of this machine, as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [str(index) for index in range(torch.cuda.device_count())]
    return named.split(",")[: len(found)] if named and found else found
