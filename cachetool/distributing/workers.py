"""What runs on workers: jobs are opened once and kept; one item is done at a time, while the driver wants it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachetool.backbones import Backbone
from cachetool.distributing.jobs import Job, Opened
from cachetool.environment import resolve_device
from cachetool.errors import ClusterError
from cachetool.objects import Place
from cachetool.replaying import open_backbone
from cachetool.store import StoreSpec, holds

_working = threading.Lock()
"""Held while an item is done: a worker process has one model, on one device, whatever its number of threads."""

_kept: dict[str, tuple[Any, Any]] = {}
"""What is kept between tasks: the last of each kind, with what it was made from."""

_stopped: set[str] = set()
"""Tokens of jobs that their driver has given up."""


MAY_DIFFER = ("threads", "python")
"""Parts of an environment that do not decide values."""


@dataclass(frozen=True)
class Description:
    """What a worker says of a job that it has opened."""

    environment: Mapping[str, Any]
    """See `Opened.environment`."""
    batch_size: int
    """Images per forward pass."""

    @property
    def decisive(self) -> dict[str, Any]:
        """What decides values: workers that differ in it must not share a job."""
        environment = {name: value for name, value in self.environment.items() if name not in MAY_DIFFER}
        return {**environment, "batch_size": self.batch_size}


@dataclass(frozen=True)
class Outcome:
    """What became of an item."""

    value: Any
    """What `Opened.run` returned."""
    messages: tuple[str, ...]
    """What the driver's user should see."""


class Wanted:
    """Events of a job: messages are collected, and progress is where work ends that is wanted no more.

    A driver that was interrupted says so; one that was killed does not hold its locks any more, or another has them.
    """

    def __init__(self, job: Job) -> None:
        self._messages: list[str] = []
        self._job = job

    def start(self, phase: str, total: int) -> None:
        """Ignore the start of a phase: the driver has its own."""

    def advance(self, images: int, nbytes: int = 0) -> None:
        """Raise `ClusterError` if the job is wanted no more."""
        if self._job.token in _stopped:
            raise ClusterError("the driver has given this job up")
        for path, owner in self._job.locks:
            if not holds(path, owner):
                raise ClusterError(f"process {owner.process} on {owner.host} does not hold the lock of {path} any more")

    def message(self, text: str) -> None:
        """Keep a message for the driver."""
        self._messages.append(text)

    def take_messages(self) -> tuple[str, ...]:
        """Messages since they were last taken."""
        taken, self._messages = tuple(self._messages), []
        return taken


def run_item(job: Job, expected: Description, item: Any) -> Outcome:
    """Do one item of a job: the task. A worker that joined late has to be as the others were `expected` to be."""
    with _working:
        opened, events = _open_as(job, expected)
        value = opened.run(item)
        return Outcome(value, events.take_messages())


def run_step(job: Job, expected: Description, item: Any, *inputs: Any) -> Any:
    """Do one item with what earlier ones gave: the value stays on a worker, for those that follow."""
    with _working:
        opened, _events = _open_as(job, expected)
        return opened.run((item, inputs))


async def describe(job: Job) -> Description:
    """Open a job beside the event loop of the worker, and describe it."""
    return await asyncio.to_thread(_describe, job)


async def stop(token: str, seconds: float) -> None:
    """Give a job up, and wait until no item is in hand any more, but not for longer than some seconds."""
    _stopped.add(token)
    await asyncio.to_thread(_wait, seconds)


def kept(kind: str, key: Any, make: Callable[[], Any]) -> Any:
    """The last thing of a kind, made anew where it is of another key."""
    if kind not in _kept or _kept[kind][0] != key:
        _kept.pop(kind, None)  # before another is made: two may not fit into memory
        _kept[kind] = (key, make())
    return _kept[kind][1]


def kept_backbone(path: Place, spec: StoreSpec, weights: str | Path | None, device: str | None, use: str) -> Backbone:
    """The model of a cache, kept while tasks need the same on the same device; `use` tells apart what alters it.

    Raises as `open_backbone` does.
    """
    identity = {name: spec.key[name] for name in ("architecture", "weights_sha256", "position_embedding", "transform")}
    file = weights if weights is not None else spec.facts.get("weights_file")
    key = (spec.facts["model"], str(file), identity, str(resolve_device(device)), use)
    if "model" in _kept and _kept["model"][0] != key:
        _kept.clear()  # opened jobs hold the model too
    backbone: Backbone = kept("model", key, lambda: open_backbone(path, spec, weights))
    return backbone


def _open(job: Job) -> tuple[Opened, Wanted]:
    def make() -> tuple[Opened, Wanted]:
        events = Wanted(job)
        events.advance(0)
        return job.open(events), events

    opened: tuple[Opened, Wanted] = kept("job", job.token, make)
    return opened


def _open_as(job: Job, expected: Description) -> tuple[Opened, Wanted]:
    """Open a job that is wanted. Raises `ClusterError` where this worker computes otherwise than is expected."""
    opened, events = _open(job)
    events.advance(0)
    here, there = Description(opened.environment, opened.batch_size).decisive, expected.decisive
    if different := [f"{name} {here.get(name)}, not {there[name]}" for name in there if here.get(name) != there[name]]:
        raise ClusterError(
            f"a worker joined on {socket.gethostname()} that computes otherwise than the others: "
            f"{'; '.join(different)}; stop it, then run the same command again"
        )
    return opened, events


def _describe(job: Job) -> Description:
    with _working:
        opened, _events = _open(job)
        return Description(opened.environment, opened.batch_size)


def _wait(seconds: float) -> None:
    if _working.acquire(timeout=seconds):
        _working.release()
