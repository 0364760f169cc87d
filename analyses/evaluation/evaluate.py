"""Measure tasks on the runs of a cache, and compare each with the unedited replay from the same state."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

import cachetool
from analyses.evaluation.arms import MeasuredRun, edit_of, is_unedited
from analyses.evaluation.comparison import Statistics, compare_runs
from analyses.evaluation.describing import dataset_label
from analyses.evaluation.outcomes import FittedHead, measured
from analyses.evaluation.refitting import Training, seedless
from analyses.evaluation.rows import Row
from analyses.inference import RESAMPLES, check_confidence, check_resamples
from analyses.tasks import TASKS, parse_task
from analyses.tasks.base import Task
from analyses.tasks.head import OwnHead
from cachetool import Edit
from cachetool.annotations import Annotations
from cachetool.distributing import ClusterLike, connect
from cachetool.errors import DatasetError, MissingDataError, UnknownNameError
from cachetool.events import Events, Silent
from cachetool.objects import AnyPlace, check_writable
from cachetool.query import store_path
from cachetool.tokens import TOKEN_TYPES


def evaluate(
    cache: AnyPlace | xr.Dataset,
    train: AnyPlace | xr.Dataset | None = None,
    tasks: Sequence[str | Task] | None = None,
    *,
    runs: Sequence[xr.Dataset] | None = None,
    refit: bool | Collection[Edit] = False,
    calibration: AnyPlace | None = None,
    group_by: str | None = None,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
    weights: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    cluster: ClusterLike | None = None,
    events: Events | None = None,
) -> list[Row]:
    """Measure tasks on the runs of a cache and compare each with the unedited replay from the same state.

    Outcomes are kept beside the cache and found again. An unedited replay that is missing is made first. A cache
    without runs is measured itself.

    Parameters
    ----------
    cache
        The evaluated cache, as a path or opened.
    train
        The cache that heads are fitted on; without it tasks that fit a head are left out.
    tasks
        Names or tasks; by default one of each kind. A task that does not apply is left out, and `events` is told why.
    runs
        The runs to compare; by default all finished runs of the cache. Runs of fewer images than the cache are left
        out, and `events` is told.
    refit
        Also replay edits on the training cache and fit heads on those features: all edits, or those in the collection.
        A member stands for all its seeds.
    calibration
        Where the calibration of the runs has moved, for `refit`.
    group_by
        Regular expression with one group that gives the sequence of an image from its id: sequences are resampled.
    resamples, confidence, seed
        Number of bootstrap resamples, coverage of intervals, and seed of the resamples.
    weights, device, batch_size
        As for `cachetool.replay`, where something has to be replayed; weights also for their own head.
    cluster
        As for `cachetool.replay`; what is measured is measured in this process.
    events
        Told of progress, and of everything that is left out.

    Returns
    -------
    Rows, by task and metric.

    Raises
    ------
    UnknownNameError
        There is no such task; the regular expression has not one group; a statistic is outside its range.
    MissingDataError
        None of the tasks can be measured; says why for each.
    DatasetError
        Image ids do not match `group_by`.
    StoreError
        The cache, or with `refit` the training cache, lies where things can only be read.
    """
    check_resamples(resamples)
    check_confidence(confidence)
    listener = events or Silent()
    opened = cache if isinstance(cache, xr.Dataset) else cachetool.open(cache)
    check_writable(store_path(opened))
    chosen = _tasks(tasks, weights)
    annotations = cachetool.open_annotations(opened)
    statistics = Statistics(sequences(annotations.image_ids, group_by), resamples, confidence, seed)
    with connect(cluster) as connected:
        replaying = {
            "weights": weights,
            "device": device,
            "batch_size": batch_size,
            "cluster": connected,
            "events": listener,
        }
        found = _of_all_images(opened, cachetool.runs(opened, events=listener) if runs is None else runs, listener)
        stores = [*_missing_unedited(opened, found, replaying), *found] or [opened]
        training = None
        if train is not None:
            store = train if isinstance(train, xr.Dataset) else cachetool.open(train)
            if refit:
                check_writable(store_path(store))
            training = Training(store, cachetool.open_annotations(store), calibration=calibration, replaying=replaying)
            if shared := _shared_images(opened, store):
                listener.message(
                    f"{shared} of {opened.sizes['image']} evaluated images are training images too, by content: tasks "
                    "with heads overstate what the features allow; name a cache of other images with --train"
                )
        measuring = _Measuring(opened, annotations, stores, training, refit, statistics, listener)
        found_obstacles = {task.name: measuring.obstacle(task) for task in chosen}
        able = [task for task in chosen if found_obstacles[task.name] is None]
        left_out = [f"{name} is left out: {reason}" for name, reason in found_obstacles.items() if reason is not None]
        for text in left_out:
            listener.message(text)
        if not able:
            listing = "\n".join(f"  {text}" for text in left_out)
            raise MissingDataError(f"no task can be measured on {opened.attrs['cachetool_path']}:\n{listing}")
        return [row for task in able for row in measuring.rows(task, [other for other in able if other.fitted])]


def sequences(image_ids: Sequence[str], pattern: str | None) -> npt.NDArray[np.object_] | None:
    """Sequence of each image, (image,): what the one group of a regular expression finds in its id; None without one.

    Raises
    ------
    UnknownNameError
        The text is no regular expression, or has not one group.
    DatasetError
        It is not found in all ids; names those.
    """
    if not pattern:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UnknownNameError(f"--group-by {pattern!r} is no regular expression: {error}") from error
    if compiled.groups != 1:
        raise UnknownNameError(
            f"--group-by {pattern!r}: expected one group in parentheses, found {compiled.groups}; mark the sequence, "
            r"as in '(.*)_\d+'"
        )
    found = [compiled.search(image_id) for image_id in image_ids]
    absent = [image_id for image_id, match in zip(image_ids, found, strict=True) if match is None or match[1] is None]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise DatasetError(
            f"--group-by {pattern!r} finds no sequence in {len(absent)} of {len(image_ids)} image ids: "
            f"{', '.join(absent[:5])}{more}; choose an expression that is found in all"
        )
    return np.array([match[1] for match in found if match is not None], dtype=object)


@dataclass(frozen=True)
class _Measuring:
    """One cache with its runs, ready to be measured under any task."""

    cache: xr.Dataset
    annotations: Annotations
    stores: Sequence[xr.Dataset]
    training: Training | None
    refit: bool | Collection[Edit]
    statistics: Statistics
    events: Events

    def obstacle(self, task: Task) -> str | None:
        """Why a task can be measured neither on any of the stores nor on the cache itself; None where it can."""
        if task.fitted:
            if self.training is None:
                return "it fits a head: name a training cache with --train"
            if (reason := task.obstacle(self.training.store, self.training.annotations)) is not None:
                return f"in the training cache, {reason}"
        reasons = [task.obstacle(store, self.annotations) for store in (*self.stores, self.cache)]
        return None if None in reasons else reasons[0]

    def rows(self, task: Task, fitted: Sequence[Task]) -> list[Row]:
        """Measure a task on all stores that have no obstacle, else on the cache itself, and compare.

        `fitted` are all tasks with heads: a training run that is replayed for one keeps what the others read too.
        """
        able, unable = [], defaultdict(list)
        for store in self.stores:
            if (reason := task.obstacle(store, self.annotations)) is None:
                able.append(store)
            else:
                unable[reason].append(Path(store.attrs["cachetool_path"]).name)
        for reason, names in unable.items():
            self.events.message(f"{task.name} is left out for {len(names)} runs, {', '.join(names)}: {reason}")
        # States that no run holds, such as those below the edits, are read from the cache.
        able = able or [self.cache]
        refitted = self._refitted(task, able, fitted)
        self.events.start(f"measure {task.name}", (len(able) + len(refitted)) * self.cache.sizes["image"])
        head = FittedHead(task) if self.training is None or not task.fitted else self.training.intact_head(task)
        found = [self._measure(task, store, head) for store in able]
        if self.training is not None:
            for store in refitted:
                own = self.training.refitted_head(task, store)
                found.append(replace(self._measure(task, store, own), head="refit"))
        return compare_runs(
            task,
            found,
            cache=self.cache,
            train="" if self.training is None else dataset_label(self.training.store),
            training_overlap=np.nan if self.training is None else _shared_images(self.cache, self.training.store),
            floors=task.floors(self.annotations),
            statistics=self.statistics,
        )

    def _measure(self, task: Task, store: xr.Dataset, head: FittedHead) -> MeasuredRun:
        outcomes = measured(task, store, self.annotations, head)
        self.events.advance(self.cache.sizes["image"])
        return MeasuredRun(store, outcomes)

    def _refitted(self, task: Task, stores: Sequence[xr.Dataset], fitted: Sequence[Task]) -> list[xr.Dataset]:
        """The edited runs that get a head of their own, their edits replayed on the training images."""
        if self.training is None or not task.fitted:
            return []
        chosen = [store for store in stores if self._wants_refit(store)]
        if not chosen:
            return []
        tokens = tuple(name for name in TOKEN_TYPES if any(name in other.tokens for other in fitted))
        depth = int(self.cache.attrs["depth"])
        layers = {depth if other.layer is None else other.layer for other in fitted}
        left_out = self.training.replay(chosen, tokens, sorted(layers))
        for name, reason in left_out.items():
            self.events.message(f"{task.name} is not refitted for {Path(name).name}: {reason}")
        return [store for store in chosen if store.attrs["cachetool_path"] not in left_out]

    def _wants_refit(self, store: xr.Dataset) -> bool:
        edit = edit_of(store)
        if edit is None or is_unedited(edit):
            return False
        if isinstance(self.refit, bool):
            return self.refit
        return seedless(edit) in {seedless(wanted) for wanted in self.refit}


def _tasks(tasks: Sequence[str | Task] | None, weights: str | Path | None) -> list[Task]:
    """Tasks by name; the weights' own head learns where the weights have moved to."""
    chosen = [parse_task(task) if isinstance(task, str) else task for task in tasks or TASKS]
    return [
        replace(task, weights=str(weights)) if isinstance(task, OwnHead) and weights is not None else task
        for task in chosen
    ]


def _shared_images(cache: xr.Dataset, train: xr.Dataset) -> int:
    """Number of a cache's images whose content is among those of a training cache."""
    return int(np.isin(cache.content_sha256.values.astype(str), train.content_sha256.values.astype(str)).sum())


def _of_all_images(cache: xr.Dataset, runs: Sequence[xr.Dataset], events: Events) -> list[xr.Dataset]:
    """The runs that hold all images of the cache: others cannot be compared with them image by image."""
    count = cache.sizes["image"]
    short = [run for run in runs if run.sizes["image"] != count]
    if short:
        named = ", ".join(Path(run.attrs["cachetool_path"]).name for run in short)
        events.message(
            f"{len(short)} of {len(runs)} runs are left out, because the cache has grown to {count} images since: "
            f"{named}"
        )
    return [run for run in runs if run.sizes["image"] == count]


def _missing_unedited(cache: xr.Dataset, runs: Sequence[xr.Dataset], replaying: Mapping[str, Any]) -> list[xr.Dataset]:
    """Unedited replays from first states of edits that have none with the same tokens and states, made now."""
    there: list[tuple[int, set[str], set[int]]] = []
    wanted: dict[tuple[tuple[str, ...], tuple[int, ...]], set[int]] = {}
    for run in runs:
        edit, key = edit_of(run), run.attrs["key"]
        if edit is not None and is_unedited(edit):
            there.append((edit.from_layer, set(key["keep_tokens"]), set(key["keep"])))
    for run in runs:
        edit, key = edit_of(run), run.attrs["key"]
        tokens, states = tuple(key["keep_tokens"]), tuple(key["keep"])
        if edit is None or any(
            edit.from_layer == layer and set(tokens) <= kept and set(states) <= layers for layer, kept, layers in there
        ):
            continue
        wanted.setdefault((tokens, states), set()).add(edit.from_layer)
    made: list[xr.Dataset] = []
    for (tokens, states), layers in wanted.items():
        edits = [Edit(tokens[0], "none", layer) for layer in sorted(layers)]
        made += cachetool.replay(cache, edits, keep=states, keep_tokens=tokens, **replaying)
    return made
