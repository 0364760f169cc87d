"""Dask graphs on a cluster: lazy arrays that read stores are computed there as they are here, by the same tasks.

Dask's own way would open every store, and load every model, once for each task, and on the scheduler too. Here tasks
travel as bytes; what has files open behind it is named in them, and opened once by each worker.
"""

from __future__ import annotations

import io
import pickle
import socket
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import cloudpickle
from dask._task_spec import Alias, GraphNode, convert_legacy_graph
from dask.core import flatten
from dask.local import nested_get
from dask.order import order
from threadpoolctl import ThreadpoolController, threadpool_info

from cachetool.attending import BlockAttention
from cachetool.distributing.cluster import Cluster
from cachetool.distributing.jobs import Job
from cachetool.environment import RECORDED_PACKAGES, describe_environment, resolve_device
from cachetool.errors import ClusterError
from cachetool.events import Events
from cachetool.store import StoreReader

PACKAGES = (*RECORDED_PACKAGES, "dask", "xarray")
"""What tasks of graphs are made of."""

Tasks = dict[Any, GraphNode]
"""A graph by the names of its tasks, some of which are other names of others."""

OPENED = (StoreReader, BlockAttention)
"""What has files open behind it, and is opened anew where it is unpickled."""


@dataclass(frozen=True, kw_only=True)
class GraphJob(Job):
    """A dask graph that reads stores, an item being a task and the values that it needs."""

    packages: tuple[str, ...] = PACKAGES
    device: str = "cpu"
    """Where models are run."""

    def open(self, events: Events) -> OpenedGraph:
        """Find out what this worker computes with. Raises `UnknownNameError` where it lacks the device."""
        return OpenedGraph(self)


class OpenedGraph:
    """A graph on one worker."""

    batch_size = 0

    def __init__(self, job: GraphJob) -> None:
        described = describe_environment(resolve_device(job.device))
        self.environment: Mapping[str, Any] = {
            **described,
            **{name: version(name) for name in job.packages},
            "kernel": ", ".join([str(described["kernel"]), *_blas()]),
        }
        self._opened: dict[bytes, Any] = {}
        self._modules, self._libraries = len(sys.modules), ThreadpoolController()

    def run(self, item: tuple[bytes, tuple[Any, ...]]) -> Any:
        """Do a task. Raises `ClusterError` where this worker lacks what it is made of."""
        packed, values = item
        try:
            task, names = _Unpacker(packed, self._opened).load()
        except (ImportError, AttributeError) as error:
            raise ClusterError(
                f"a worker on {socket.gethostname()} lacks what the analysis is made of ({type(error).__name__}: "
                f"{error}); install the same packages there, then run the same command again"
            ) from error
        if len(sys.modules) > self._modules:  # libraries come with modules; to look for them takes 4 ms
            self._modules, self._libraries = len(sys.modules), ThreadpoolController()
        # More threads, which a worker may have, round differently.
        with self._libraries.limit(limits=1, user_api="blas"):
            return task(dict(zip(names, values, strict=True)))


class ClusterScheduler:
    """What dask calls a scheduler: `dask.config.set(scheduler=...)` has collections computed on the cluster.

    Their graphs are those that dask computes here. Values come back alone of what was asked for.
    """

    def __init__(self, cluster: Cluster, job: GraphJob, name: str, events: Events) -> None:
        """Have all workers look at the stores. Raises `ClusterError` naming those that cannot take part."""
        self._cluster = cluster
        self._job = job
        self._name = name
        self._events = events
        self._described = cluster.open(job)

    def __call__(self, graph: Any, keys: Sequence[Any], **options: Any) -> Any:
        """Compute keys, in whatever nesting, of a graph or of an expression that has one."""
        graph = graph if isinstance(graph, Mapping) else graph.__dask_graph__()
        wanted = list(flatten([keys]))  # type: ignore[no-untyped-call]
        tasks = _read_where_used(convert_legacy_graph(dict(graph)), wanted)
        places = order(tasks)
        names = {
            key: tuple(tasks[key].dependencies)
            for key in sorted(tasks, key=places.__getitem__)
            if not isinstance(tasks[key], Alias)
        }
        self._events.start(self._name, len(names))
        found = self._cluster.compute(
            # One graph after the other: a worker gives up what it opened for the last one when it opens the next.
            replace(self._job, token=uuid4().hex),
            self._described,
            {key: tuple(_target(tasks, name) for name in needed) for key, needed in names.items()},
            lambda key: _pack((tasks[key], names[key])),
            {_target(tasks, key) for key in wanted},
            self._events,
        )
        values = {key: found[_target(tasks, key)] for key in wanted}
        return nested_get(keys, values)  # type: ignore[no-untyped-call]


@cache
def _blas() -> list[str]:
    """Kinds of BLAS here, with the processors that their kernels are made for."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return sorted({f"{library['internal_api']} {library.get('architecture', '')}".strip() for library in libraries})


def _read_where_used(tasks: Tasks, wanted: Sequence[Hashable]) -> Tasks:
    """Do what needs nothing with what alone needs it, where that needs two values at most.

    So that two blocks that are compared are read by the worker that compares them: none travels.
    """
    uses = Counter(wanted)
    uses.update(need for task in tasks.values() for need in task.dependencies)

    def read_for(key: Hashable) -> list[Hashable]:
        names = [key]
        while isinstance(task := tasks[names[-1]], Alias):
            names.append(task.target)
        return [] if task.dependencies or any(uses[name] > 1 for name in names) else names

    found = dict(tasks)
    for key, task in tasks.items():
        if len(task.dependencies) > 2 or isinstance(task, Alias):
            continue
        if read := [name for need in task.dependencies for name in read_for(need)]:
            found[key] = GraphNode.fuse(*(found.pop(name) for name in read), task)
    return found


def _target(tasks: Tasks, key: Hashable) -> Hashable:
    """The task whose value is meant by a key, which may be another name of it."""
    while isinstance(task := tasks[key], Alias):
        key = task.target
    return key


def _pack(task: Any) -> bytes:
    """A task as bytes, in which what is opened anew is named by the bytes that open it.

    Raises `ClusterError` for one that cannot travel.
    """
    buffer = io.BytesIO()
    try:
        _Packer(buffer).dump(task)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise ClusterError(
            f"the analysis cannot be sent to workers ({type(error).__name__}: {error}); run it without --cluster"
        ) from error
    return buffer.getvalue()


class _Packer(cloudpickle.Pickler):  # type: ignore[misc]
    def persistent_id(self, value: Any) -> bytes | None:
        return pickle.dumps(value) if isinstance(value, OPENED) else None


class _Unpacker(pickle.Unpickler):
    def __init__(self, packed: bytes, opened: dict[bytes, Any]) -> None:
        super().__init__(io.BytesIO(packed))
        self._opened = opened

    def persistent_load(self, name: bytes) -> Any:
        if name not in self._opened:
            self._opened[name] = pickle.loads(name)
        return self._opened[name]
