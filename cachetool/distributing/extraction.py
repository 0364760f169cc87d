"""Extraction on a cluster: the driver settles key, room and lock; workers open model and data set, and write blocks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from cachetool.backbones import default_batch_size
from cachetool.distributing.cluster import Cluster
from cachetool.distributing.decoding import load_in_threads
from cachetool.distributing.jobs import Job
from cachetool.distributing.workers import kept_backbone
from cachetool.environment import resolve_device
from cachetool.events import Events
from cachetool.extraction import request_of
from cachetool.extraction.extract import Compute, Done, Work, default_workers, record_environment
from cachetool.extraction.loop import BlockLoop
from cachetool.store import StoreReader, StoreWriter, read_record

NAMES = ("model", "dataset", "weights_file")
"""Facts that say where a model and a data set are found."""


@dataclass(frozen=True, kw_only=True)
class ExtractionJob(Job):
    """Blocks of one cache, an item being the number of one."""

    layers: tuple[int, ...]
    token_types: tuple[str, ...]
    names: Mapping[str, Any]
    """`NAMES` as they are now, which may be other places than those where the cache was begun."""
    device: str | None
    batch_size: int | None
    workers: int | None
    on_error: str
    first: int
    """The block on which the storage error is measured."""
    unmeasured: tuple[int, ...]
    """States whose storage error is not known."""

    def open(self, events: Events) -> OpenedExtraction:
        """Open model, data set and cache. Raises what keeps this worker from it."""
        return OpenedExtraction(self, events)


class OpenedExtraction:
    """An extraction on one worker."""

    def __init__(self, job: ExtractionJob, events: Events) -> None:
        self._job = job
        reader = StoreReader(job.cache)
        spec = replace(reader.spec, facts={**reader.spec.facts, **job.names})
        backbone = kept_backbone(job.cache, spec, None, job.device, "extraction")
        device = resolve_device(job.device)
        backbone.place(device)
        request = request_of(reader, backbone, job.layers, job.token_types, spec.facts)
        self._writer = StoreWriter(job.cache)
        self.environment: Mapping[str, Any] = request.spec.facts["environment"]
        self.batch_size = min(job.batch_size or default_batch_size(backbone, device), spec.block)
        self._workers = default_workers(request.dataset, device) if job.workers is None else job.workers
        # One for all blocks: it keeps the memory of a block, and the batch size that fits.
        self._loop = BlockLoop(request, self._writer, self.batch_size, job.on_error, events, load=load_in_threads)

    def run(self, block: int) -> Done:
        """Write a block; one that a worker had finished before it was lost is told of, and not computed again."""
        job = self._job
        finished = not self._writer.pending(job.layers, job.token_types, [block])
        if finished and (record := read_record(job.cache, block, self._writer.spec.geometry)) is not None:
            written = sum(
                facts.bytes for name, facts in record.files.items() if name.partition("/")[0] in job.token_types
            )
            return Done(written, dict(record.failed))
        written = self._loop.run([block], self._workers, job.unmeasured if block == job.first else ())
        return Done(written, self._loop.failed)


def compute_on(cluster: Cluster, device: str | None) -> Compute:
    """What has `cachetool.extraction.extract` compute on a cluster; `device` is that of the workers."""

    def compute(work: Work, events: Events) -> Done:
        request, writer = work.request, work.writer
        path = request.path.absolute()
        job = ExtractionJob(
            cache=path,
            locks=((path, work.owner),),
            layers=request.layers,
            token_types=request.token_types,
            names={name: request.spec.facts[name] for name in NAMES},
            device=device,
            batch_size=work.batch_size,
            workers=work.workers,
            on_error=work.on_error,
            first=work.blocks[0],
            unmeasured=tuple(work.unmeasured),
        )
        described = cluster.open(job)
        events.start("extract", work.images)
        record_environment(writer, described.environment, described.batch_size)
        written, failed, geometry = 0, dict[str, str](), writer.spec.geometry
        with closing(cluster.each(job, described, work.blocks, events)) as outcomes:
            for block, done in outcomes:
                written += done.bytes_written
                failed |= done.failed
                events.advance(len(geometry.block_range(block)), done.bytes_written)
        return Done(written, failed)

    return compute
