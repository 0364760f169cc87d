"""Replays on a cluster: the driver makes run stores and holds their locks; workers certify states and write blocks."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cachetool.distributing.calibration import summarize_on
from cachetool.distributing.cluster import Cluster
from cachetool.distributing.jobs import Job
from cachetool.distributing.workers import kept, kept_backbone
from cachetool.edits import Edit
from cachetool.errors import KeyMismatchError
from cachetool.events import Events, Silent
from cachetool.extraction.halving import Halving
from cachetool.objects import AnyPlace, Place, place
from cachetool.replaying.arm import Arm, Notes
from cachetool.replaying.calibrations import Calibrations
from cachetool.replaying.replay import Open
from cachetool.replaying.replayer import Replayer, Settings
from cachetool.replaying.run_blocks import state_bytes
from cachetool.replaying.runs import run_key
from cachetool.replaying.sources import CacheSources
from cachetool.store import StoreReader, StoreWriter, differences


@dataclass(frozen=True, kw_only=True)
class CertificateJob(Job):
    """Certificates of one cache, an item being a state."""

    settings: Settings

    def open(self, events: Events) -> OpenedCache:
        """The model on its device, kept for the replays that follow. Raises what keeps this worker from it."""
        cache: OpenedCache = kept("cache", self.token, lambda: OpenedCache(self.settings))
        return cache


class OpenedCache:
    """A cache and its model on one worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reader = StoreReader(settings.cache)
        use = "compiled" if settings.arithmetic.compiled else "replay"
        backbone = kept_backbone(settings.cache, self.reader.spec, settings.weights, settings.device, use)
        self.replayer = Replayer(settings, self.reader, backbone, Silent())
        self.calibrations = Calibrations(self.reader, settings.calibration, Silent())
        self.environment: Mapping[str, Any] = self.replayer.environment
        self.batch_size = self.replayer.batch_size

    def run(self, from_layer: int) -> dict[str, Any]:
        """The certificate of a state."""
        return self.replayer.certify(from_layer)


@dataclass(frozen=True, kw_only=True)
class ReplayJob(Job):
    """Edits from one state, an item being a block."""

    opening: CertificateJob
    """What the replay shares with those from other states."""
    runs: tuple[tuple[Edit, Place], ...]
    """The edits and their run stores."""
    keep: tuple[int, ...]

    def open(self, events: Events) -> OpenedReplay:
        """Open the run stores. Raises what keeps this worker from it."""
        return OpenedReplay(self, events)


@dataclass(frozen=True)
class ReplayedBlock:
    """What the driver learns of a block."""

    notes: tuple[Notes, ...]
    """What is recorded of its images, by edit."""
    batch_sizes: tuple[int, ...]
    """Sizes of batches that were tried: more than one where memory ran out."""


class OpenedReplay:
    """Edits from one state on one worker."""

    def __init__(self, job: ReplayJob, events: Events) -> None:
        self._cache = job.opening.open(events)
        self._keep = job.keep
        self._arms = [self._arm(edit, path) for edit, path in job.runs]
        self.environment, self.batch_size = self._cache.environment, self._cache.batch_size
        self._events = events
        self._geometry = self._arms[0].writer.spec.geometry
        self._halving = Halving(min(self.batch_size, self._geometry.block), events)

    def run(self, block: int) -> ReplayedBlock:
        """Write a block of each run; one that is finished is only prepared, for what is recorded of its images."""
        self._cache.replayer.replay_blocks(self._arms, self._keep, [block], self._halving, self._events)
        images = self._geometry.block_range(block)
        rows = slice(images.start, images.stop)
        return ReplayedBlock(tuple(arm.notes(rows) for arm in self._arms), tuple(self._halving.sizes))

    def _arm(self, edit: Edit, path: Place) -> Arm:
        """The run of an edit. Raises `KeyMismatchError` where files that it draws from are others than the driver's."""
        cache, calibrations = self._cache, self._cache.calibrations
        sources, writer = CacheSources(cache.reader, calibrations.maker(edit)), StoreWriter(path)
        types, arithmetic = cache.settings.token_types, cache.settings.arithmetic
        key = run_key(cache.reader, edit, sources, self._keep, types, calibrations, arithmetic)
        if different := differences(key, writer.spec.key):
            raise KeyMismatchError(
                f"{edit.slug} is another edit on {socket.gethostname()} (here) than for the command (there): "
                f"{'; '.join(different)}; files that edits and --calibration name must be the same on all workers"
            )
        return Arm(edit, sources, writer, lambda: calibrations.meter(edit))


class ClusterReplayer:
    """Certifies and replays on a cluster; see `cachetool.replaying.replayer.Replaying`."""

    shared = True

    def __init__(self, cluster: Cluster, settings: Settings, reader: StoreReader, events: Events) -> None:
        """Have all workers open cache and model. Raises `ClusterError` naming those that cannot."""
        self._cluster = cluster
        self._events = events
        self._job = CertificateJob(
            cache=reader.path.absolute(),
            settings=replace(
                settings,
                cache=settings.cache.absolute(),
                calibration=_absolute(settings.calibration),
                weights=None if settings.weights is None else Path(settings.weights).absolute(),
            ),
        )
        self._described = cluster.open(self._job)
        self.environment, self.batch_size = self._described.environment, self._described.batch_size
        self.summarize = summarize_on(cluster, reader.path, events)

    def certify(self, from_layer: int) -> dict[str, Any]:
        """The certificate of a state from one of the workers, which all compute alike."""
        ((_layer, certificate),) = self._cluster.each(self._job, self._described, [from_layer], self._events)
        found: dict[str, Any] = certificate
        return found

    def replay(self, arms: Sequence[Arm], keep: Sequence[int]) -> dict[str, Any]:
        """Have all blocks replayed, and note what is recorded of their images."""
        job = ReplayJob(
            cache=self._job.cache,
            locks=tuple((arm.path.absolute(), arm.owner) for arm in arms if arm.owner is not None),
            opening=self._job,
            runs=tuple((arm.edit, arm.path.absolute()) for arm in arms),
            keep=tuple(keep),
        )
        spec = arms[0].writer.spec
        geometry = spec.geometry
        self._events.start(f"replay from state {arms[0].edit.from_layer}", geometry.images * len(arms))
        sizes = {min(self.batch_size, geometry.block)}
        with closing(self._cluster.each(job, self._described, range(geometry.blocks), self._events)) as outcomes:
            for block, found in outcomes:
                images = geometry.block_range(block)
                for arm, notes in zip(arms, found.notes, strict=True):
                    arm.note(slice(images.start, images.stop), notes)
                sizes |= set(found.batch_sizes)
                self._events.advance(len(images) * len(arms), len(images) * state_bytes(spec))
        return {"batch_sizes": sorted(sizes, reverse=True)} if len(sizes) > 1 else {}


def replay_on(cluster: Cluster) -> Open:
    """What has `cachetool.replaying.replay_edits` compute on a cluster."""
    return lambda settings, reader, events: ClusterReplayer(cluster, settings, reader, events)


def _absolute(path: AnyPlace | None) -> Place | None:
    return None if path is None else place(path).absolute()
