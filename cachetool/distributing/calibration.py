"""Calibration on a cluster: workers read and summarize blocks; the driver adds the summaries up in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from cachetool.calibrating import Scope, Summaries, Summarize, TokenReader, summarize_here
from cachetool.distributing.cluster import Cluster
from cachetool.distributing.jobs import Job
from cachetool.edits.statistics import TokenStatistics
from cachetool.environment import describe_environment
from cachetool.errors import KeyMismatchError
from cachetool.events import Events
from cachetool.images import image_digest
from cachetool.objects import Place
from cachetool.store import StoreReader, StoreSpec, key_digest


@dataclass(frozen=True, kw_only=True)
class CalibrationJob(Job):
    """Summaries of one cache, an item being a block."""

    scope: Scope
    """What is computed, but for its images."""
    images: bytes
    """The images of the scope, a bit for each of the cache: every task carries them, and there may be a million."""
    digest: str
    """That of the key and images of the cache, which nothing is written to, so that no lock tells it from another."""

    def open(self, events: Events) -> OpenedCalibration:
        """Open the cache. Raises what keeps this worker from it."""
        return OpenedCalibration(self)


class OpenedCalibration:
    """A calibration on one worker."""

    batch_size = 0

    def __init__(self, job: CalibrationJob) -> None:
        """Open the cache. Raises `KeyMismatchError` where another one lies at its place."""
        self._reader = StoreReader(job.cache)
        if _digest(self._reader.spec) != job.digest:
            raise KeyMismatchError(f"{job.cache} is another cache there than here; all must see the same --root")
        images = np.flatnonzero(np.unpackbits(np.frombuffer(job.images, dtype=np.uint8)))
        self._scope = replace(job.scope, images=images)
        self._statistics = self._scope.statistics(self._reader.spec)
        self.environment: Mapping[str, Any] = describe_environment(torch.device("cpu"))

    def run(self, block: int) -> Summaries:
        """Summarize a block."""
        return next(summarize_here(self._reader, self._scope, self._statistics, [block]))


def summarize_on(cluster: Cluster, cache: Place, events: Events) -> Summarize:
    """What has `cachetool.calibrating.calibrate` read and summarize a cache on a cluster."""

    def summarize(
        reader: TokenReader, scope: Scope, statistics: Sequence[TokenStatistics], blocks: Sequence[int]
    ) -> Iterator[Summaries]:
        chosen = np.zeros(len(reader.spec.images), dtype=np.bool_)
        chosen[scope.images] = True
        job = CalibrationJob(
            cache=cache.absolute(),
            scope=replace(scope, images=np.empty(0, dtype=np.int64)),
            images=np.packbits(chosen).tobytes(),
            digest=_digest(reader.spec),
        )
        described = cluster.open(job)
        with closing(cluster.each(job, described, blocks, events)) as outcomes:
            for _block, summaries in outcomes:
                yield summaries

    return summarize


def _digest(spec: StoreSpec) -> str:
    return key_digest({"cache": spec.key, "images": image_digest(spec.images)})
