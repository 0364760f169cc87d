"""How far the work on a store has come, part by part, and how fast: what a look from outside can know.

What is finished is what done records say; who is at work is what locks say. Only the rate comes from a clock: from the
times that the file system gave the lock of a job and the records that came after it. They are of one clock, whatever
those of the hosts say. Where it jumped, an estimate is wrong or absent, and nothing else: nothing is decided by it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.objects import ObjectPath, Place
from cachetool.store.lock import Owner, owners
from cachetool.store.object_lock import is_of_this_system
from cachetool.store.reader import StoreReader
from cachetool.store.records import record_path, records_folder

TASKS = {"cache": "extract", "run": "replay"}
"""The name of the lock under which blocks are written, by kind of store."""

LONGEST = 100 * 365 * 86_400.0
"""Seconds beyond which an estimate is nonsense: a clock jumped."""


@dataclass(frozen=True)
class Job:
    """A process that works on a part, as far as can be known."""

    owner: Owner
    """Who it is."""
    lock: Place
    """The file of its lock."""
    known: bool
    """Whether it is known to live: of another host only the lock can be seen, and it stays when its owner is killed."""
    images_left: int
    """Images of its part that it was asked for and that are not finished."""
    images_per_second: float | None
    """Images of the blocks that it finished, by the time that they took; None before the first."""
    seconds_since_block: float | None
    """How long ago it finished its last block; None before the first, or where the clock was set back."""


@dataclass(frozen=True)
class Part:
    """One of the equal shares of a store's blocks: what `--part INDEX/COUNT` fills."""

    index: int
    """Which one, from 1."""
    count: int
    """Number of parts; 1 where no lock says that the work is shared."""
    blocks: int
    """Blocks in it."""
    blocks_done: int
    """Those that are finished."""
    images: range
    """Its images."""
    images_done: int
    """Images in finished blocks."""
    job: Job | None
    """Who works on it; None for nobody."""

    @property
    def seconds_left(self) -> float | None:
        """What its job still takes at its rate; None where there is no job, or its rate is not known."""
        if self.job is None or self.job.images_left == 0:
            return None if self.job is None else 0.0
        rate = self.job.images_per_second
        seconds = None if rate is None else self.job.images_left / rate
        return seconds if seconds is not None and seconds < LONGEST else None

    def to_json(self) -> dict[str, Any]:
        """The part for `--json`."""
        job = self.job
        return {
            "part": self.index,
            "parts": self.count,
            "first_image": self.images.start,
            "images": len(self.images),
            "images_done": self.images_done,
            "blocks": self.blocks,
            "blocks_done": self.blocks_done,
            "seconds_left": self.seconds_left,
            "job": None
            if job is None
            else {
                "host": job.owner.host,
                "process": job.owner.process,
                "since": str(job.owner.since),
                "seconds": None if job.owner.held is None else job.owner.held.total_seconds(),
                "known_to_live": job.known,
                "lock": str(job.lock),
                "images_left": job.images_left,
                "images_per_second": job.images_per_second,
                "seconds_since_block": job.seconds_since_block,
            },
        }


@dataclass(frozen=True)
class Progress:
    """How far the work on a store has come.

    A block counts as finished if it holds every state and token type that any block of the store holds.
    """

    parts: tuple[Part, ...]
    """All parts that have blocks or a job."""

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return sum(part.blocks for part in self.parts)

    @property
    def blocks_done(self) -> int:
        """Those that are finished."""
        return sum(part.blocks_done for part in self.parts)

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(len(part.images) for part in self.parts)

    @property
    def images_done(self) -> int:
        """Images in finished blocks."""
        return sum(part.images_done for part in self.parts)

    @property
    def jobs(self) -> int:
        """Number of jobs at work."""
        return sum(part.job is not None for part in self.parts)

    @property
    def images_per_second(self) -> float | None:
        """Rate of all jobs that have images left; None unless it is known of each."""
        jobs = [part.job for part in self.parts if part.job is not None and part.job.images_left > 0]
        rates = [job.images_per_second for job in jobs if job.images_per_second is not None]
        return sum(rates) if rates and len(rates) == len(jobs) else None

    @property
    def seconds_left(self) -> float | None:
        """Until the last job is done with its part; parts without a job are not in it. None unless known of each."""
        left = [part.seconds_left for part in self.parts if part.job is not None]
        known = [seconds for seconds in left if seconds is not None]
        return max(known) if known and len(known) == len(left) else None

    def to_json(self) -> dict[str, Any]:
        """The progress for `--json`."""
        return {
            "images": self.images,
            "images_done": self.images_done,
            "blocks": self.blocks,
            "blocks_done": self.blocks_done,
            "images_per_second": self.images_per_second,
            "seconds_left": self.seconds_left,
            "parts": [part.to_json() for part in self.parts],
        }


def progress(reader: StoreReader) -> Progress:
    """How far the work on a cache or run has come.

    Raises `StoreError` for a lock that cannot be read, `DamagedError` for a done record that cannot.
    """
    done = _finished_blocks(reader)
    held = [(file, owner) for file, owner in owners(reader.path) if owner.part[0] == TASKS[reader.spec.kind]]
    living = [(file, owner) for file, owner in held if not owner.gone(file)]
    # What dead jobs of this host left behind still tells how many there were.
    count = next((owner.part[2] for _, owner in (*living, *held)), 1)
    at_work = {owner.part[1]: (file, owner) for file, owner in living if owner.part[2] == count}
    # The part of each block, from the other side of `share`: there may be far more parts than blocks.
    filled = {-(-(block + 1) * count // len(done)) for block in range(len(done))}
    return Progress(tuple(_part(reader, done, index, count, at_work) for index in sorted({*filled, *at_work})))


def share(blocks: int, part: tuple[int, int]) -> range:
    """The i-th of n equal shares of a store's blocks, i from 1."""
    index, count = part
    return range((index - 1) * blocks // count, index * blocks // count)


def _finished_blocks(reader: StoreReader) -> list[bool]:
    """Whether each block holds all that any block holds."""
    flags = reader.complete
    asked: npt.NDArray[np.bool_] = np.logical_or.reduce(flags)
    stored = [reader.spec.layout.types.index(name) for name in reader.spec.token_types]
    # A token type that has an array was asked for, though no block may hold a state of it yet.
    begun = all(bool(asked[row].any()) for row in stored)
    return [begun and bool((block | ~asked).all()) for block in flags]


def _part(
    reader: StoreReader, done: list[bool], index: int, count: int, at_work: dict[int, tuple[Place, Owner]]
) -> Part:
    blocks = share(len(done), (index, count))
    size, total = reader.spec.block, len(reader.spec.images)
    images = {block: min((block + 1) * size, total) - block * size for block in blocks}
    finished = {block: count for block, count in images.items() if done[block]}
    job = None
    if index in at_work:
        lock, owner = at_work[index]
        asked = total if owner.images is None else owner.images
        left = sum(count for block, count in images.items() if not done[block] and block * size < asked)
        job = _job(reader.path, lock, owner, finished, left)
    return Part(
        index=index,
        count=count,
        blocks=len(blocks),
        blocks_done=len(finished),
        images=range(min(blocks.start * size, total), min(blocks.stop * size, total)),
        images_done=sum(finished.values()),
        job=job,
    )


def _job(store: Place, lock: Place, owner: Owner, finished: dict[int, int], left: int) -> Job:
    """A job with what it finished since it took its lock; `finished` are images by block, `left` those still to do."""
    began = _written(lock)
    rate = since = None
    times = _times(store, finished)
    own = {block: at for block, at in times.items() if began is not None and at is not None and at > began}
    if began is not None and own:
        last = max(own.values())
        rate = sum(finished[block] for block in own) / (last - began)
        passed = time.time() - last
        since = passed if passed >= 0 else None
    known = owner.host == socket.gethostname() and is_of_this_system(owner.started)
    return Job(owner, lock, known, left, rate, since)


def _times(store: Place, blocks: Iterable[int]) -> dict[int, float | None]:
    """When the records of blocks were written; of objects, which take a request each, all are listed at once."""
    folder = records_folder(store)
    if isinstance(folder, ObjectPath):
        known = {name: found.modified for name, found in folder.children().items() if found is not None}
        return {block: known.get(record_path(store, block).name) for block in blocks}
    return {block: _written(record_path(store, block)) for block in blocks}


def _written(file: Place) -> float | None:
    """When the file system says that a file was written; None where it is gone by now."""
    if isinstance(file, ObjectPath):
        found = file.found()
        return None if found is None else found.modified
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return None
