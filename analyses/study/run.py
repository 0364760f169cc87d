"""Carry a study out, part by part: extract, calibrate, replay, evaluate. What is there already is used, not redone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

import cachetool
from analyses.evaluation.evaluate import evaluate
from analyses.evaluation.rows import Row
from analyses.study.definition import Study
from analyses.study.needs import passes
from analyses.study.parts import CacheUse, Part, take_apart
from cachetool.distributing import Cluster, ClusterLike, connect
from cachetool.events import Events, Silent
from cachetool.objects import AnyPlace, Place
from cachetool.places import calibrations_directory


@dataclass(frozen=True)
class MeasuredPart:
    """What was found for one model on one data set."""

    part: Part
    """The model, the data set and the edits."""
    rows: tuple[Row, ...]
    """One row per arm, task and metric."""
    notes: tuple[str, ...]
    """What was left out, each with its reason, and what differs from what the study asked for."""


@dataclass(frozen=True)
class StudyResult:
    """What a study found."""

    study: Study
    """The study."""
    parts: tuple[MeasuredPart, ...]
    """Its parts, in the order of the study."""

    @property
    def notes(self) -> tuple[str, ...]:
        """All notes, with the part that each belongs to."""
        return tuple(f"{measured.part.name}: {note}" for measured in self.parts for note in measured.notes)


def run_study(
    study: Study,
    *,
    parts: Sequence[Part] | None = None,
    root: AnyPlace | None = None,
    device: str | None = None,
    workers: int | None = None,
    cluster: ClusterLike | None = None,
    events: Events | None = None,
) -> StudyResult:
    """Extract, calibrate, replay and evaluate all that a study asks for, as far as it is not there yet.

    Parameters
    ----------
    parts
        Those of the study, where it is taken apart already.
    root
        Directory of all caches.
    device
        Where the models run.
    workers
        Processes that decode images.
    cluster
        As for `cachetool.extract`; what is measured is measured in this process.
    events
        Told of every stage of every part, and of the progress within.

    Raises
    ------
    MissingDataError
        Weights or images are not at hand; the text names all of them, and nothing was done.
    InvalidEditError
        An edit does not fit a model, or calibration images are among the evaluated ones.
    """
    listener = events or Silent()
    if parts is None:
        parts = take_apart(study, root=root, device=device)
    stages = _Stages(4 * len(parts), listener)
    with connect(cluster) as connected:
        runner = _Runner(study, root, device, workers, connected, listener)
        return StudyResult(study, tuple(runner.measure(part, stages) for part in parts))


class _Stages:
    """Counts the stages, so that every message says how far the study is."""

    def __init__(self, count: int, events: Events) -> None:
        self._count, self._events, self._done = count, events, 0

    def begin(self, part: Part, stage: str) -> None:
        self._done += 1
        self._events.message(f"[{self._done}/{self._count}] {part.name}: {stage}")


class _Notes:
    """Passes events on, and remembers the messages."""

    def __init__(self, events: Events) -> None:
        self.messages: list[str] = []
        self.start, self.advance = events.start, events.advance
        self._events = events

    def message(self, text: str) -> None:
        self.messages.append(text)
        self._events.message(text)


@dataclass(frozen=True)
class _Runner:
    study: Study
    root: AnyPlace | None
    device: str | None
    workers: int | None
    cluster: Cluster | None
    events: Events

    def measure(self, part: Part, stages: _Stages) -> MeasuredPart:
        """All stages of one part."""
        stages.begin(part, "extract")
        evaluated = self._extract(part.evaluated)
        train = None if part.train is None else self._extract(part.train)
        stages.begin(part, "calibrate")
        calibration = self._calibrate(part.calibration) if part.calibration.states else None
        stages.begin(part, f"replay {len(part.edits)} edits")
        runs = cachetool.replay(
            evaluated,
            [planned.edit for planned in part.edits],
            keep_tokens=part.tokens,
            calibration=calibration,
            no_overlap=calibration is not None,
            weights=part.model.weights,
            device=self.device,
            batch_size=part.model.batch_size,
            cluster=self.cluster,
            events=self.events,
        )
        stages.begin(part, f"evaluate {', '.join(part.tasks)}")
        told = _Notes(self.events)
        rows = evaluate(
            evaluated,
            train,
            part.tasks,
            runs=runs,
            refit=[planned.edit for planned in part.edits if planned.refit],
            calibration=calibration,
            group_by=part.data.group_by or None,
            resamples=self.study.resamples,
            confidence=self.study.confidence,
            seed=self.study.seed,
            weights=part.model.weights,
            device=self.device,
            batch_size=part.model.batch_size,
            cluster=self.cluster,
            events=told,
        )
        # Two weights files of one model are told apart by the names of their caches.
        named = tuple(replace(row, model=part.model.label) for row in rows)
        return MeasuredPart(part, named, (*part.notes, *told.messages))

    def _extract(self, use: CacheUse) -> xr.Dataset:
        for tokens, layers in passes(use.states):
            opened = cachetool.extract(
                use.model.name,
                use.dataset,
                root=self.root,
                name=use.model.cache,
                layers=layers,
                tokens=tokens,
                image_size=use.model.image_size,
                limit=use.images,
                weights=use.model.weights,
                device=self.device,
                batch_size=use.model.batch_size,
                workers=self.workers,
                cluster=self.cluster,
                events=self.events,
            )
        return opened

    def _calibrate(self, use: CacheUse) -> Place:
        """The calibration of the first images of a cache, computed where it is not there yet."""
        cache = self._extract(use)
        path = calibration_path(use, cache)
        if not (path / "zarr.json").is_file():
            cachetool.calibrate(
                cache,
                name=path.stem,
                layers=_layers(use),
                tokens=list(use.states),
                limit=use.asked,
                cluster=self.cluster,
                events=self.events,
            )
        return path


def calibration_path(use: CacheUse, cache: xr.Dataset) -> Place:
    """Where the calibration of a cache lies; the name holds a digest of all that it depends on."""
    document: dict[str, Any] = {
        "key": cache.attrs["key"],
        "images": cache.content_sha256.values[: use.asked].tolist(),
        "layers": _layers(use),
        "tokens": list(use.states),
    }
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return calibrations_directory(use.path) / f"study-{digest[:8]}.zarr"


def _layers(use: CacheUse) -> list[int]:
    return sorted({layer for layers in use.states.values() for layer in layers})
