"""Calibration on a cluster: workers read and summarize blocks; the driver adds the summaries up in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cachetool.calibrating import Scope, Summaries, Summarize, TokenReader, summarize_here
from cachetool.distributing.cluster import Cluster
from cachetool.distributing.jobs import Job
from cachetool.edits.statistics import TokenStatistics
from cachetool.events import Events
from cachetool.store import StoreReader


@dataclass(frozen=True, kw_only=True)
class CalibrationJob(Job):
    """Summaries of one cache, an item being a block."""

    scope: Scope

    def open(self) -> OpenedCalibration:
        """Open the cache. Raises what keeps this worker from it."""
        return OpenedCalibration(self)


class OpenedCalibration:
    """A calibration on one worker."""

    environment = None
    batch_size = 0

    def __init__(self, job: CalibrationJob) -> None:
        self._reader = StoreReader(job.cache)
        self._scope = job.scope
        self._statistics = job.scope.statistics(self._reader.spec)

    def run(self, block: int, events: Events) -> Summaries:
        """Summarize a block."""
        return next(summarize_here(self._reader, self._scope, self._statistics, [block]))


def summarize_on(cluster: Cluster, cache: Path, events: Events) -> Summarize:
    """What has `cachetool.calibrating.calibrate` read and summarize a cache on a cluster."""

    def summarize(
        reader: TokenReader, scope: Scope, statistics: Sequence[TokenStatistics], blocks: Sequence[int]
    ) -> Iterator[Summaries]:
        job = CalibrationJob(cache=cache.absolute(), scope=scope)
        described = cluster.open(job)
        for _block, summaries in cluster.each(job, described, blocks, events):
            yield summaries

    return summarize
