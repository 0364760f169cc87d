"""Measured runs to rows: every arm against the unedited replay from the same state, all arms as one family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.evaluation.arms import Arm, MeasuredRun, group_arms
from analyses.evaluation.describing import Description
from analyses.evaluation.rows import Row
from analyses.inference import RESAMPLES, Design, compare, holm
from analyses.inference import Arm as ColumnArm
from analyses.tasks.base import Task
from cachetool.errors import DatasetError

_NAN = float("nan")


@dataclass(frozen=True)
class Statistics:
    """How intervals and p-values are computed."""

    groups: npt.NDArray[np.object_] | None = None
    """Sequence of each image of the cache, (image,), to draw whole sequences; None where images are independent."""
    resamples: int = RESAMPLES
    """Bootstrap resamples."""
    confidence: float = 0.95
    """Coverage of the intervals."""
    seed: int = 0
    """Seed of the bootstrap."""


def compare_runs(
    task: Task,
    runs: Sequence[MeasuredRun],
    *,
    cache: xr.Dataset,
    train: str = "",
    training_overlap: float = _NAN,
    floors: Mapping[str, xr.Dataset] | None = None,
    statistics: Statistics | None = None,
) -> list[Row]:
    """Rows of one task: for each metric the intact arms, the floors, then every edited arm.

    Parameters
    ----------
    runs
        Runs of one cache with their outcomes; the cache itself where nothing was replayed.
    cache
        The evaluated cache.
    train
        Name of the data set that the head was fitted on.
    training_overlap
        Number of evaluated images that are among its training images.
    floors
        Outcomes by name of predictions that look at no feature; compared with the first intact arm.
    statistics
        How intervals and p-values are computed.

    Raises
    ------
    MissingDataError
        An edit has no unedited replay from the same state.
    DatasetError
        Runs were measured on different images or pairs; names them.
    """
    how = statistics or Statistics()
    arms = group_arms(runs, cache.attrs["cachetool_path"])
    design, units = _design(task, arms, cache, how.groups)
    given = {name: _aligned(outcomes, units) for name, outcomes in (floors or {}).items()}
    rows = []
    for metric in task.metrics:
        columns = {id(run): metric.columns(run.outcomes) for arm in arms for run in arm.runs}
        family = [_columns_of(arm, columns) for arm in arms]
        family += [ColumnArm([metric.columns(outcomes)], family[0].intact) for outcomes in given.values()]
        found = compare(
            family,
            design,
            combine=metric.combine,
            keep_absent=metric.keep_absent,
            binary=metric.binary,
            confidence=how.confidence,
            resamples=how.resamples,
            seed=how.seed,
        )
        context = Description(task, metric, cache, train, training_overlap, how.confidence)
        intact = [context.intact(arm, one) for arm, one in zip(arms, found, strict=False) if _is_intact(arm)]
        below = [context.floor(name, one) for name, one in zip(given, found[len(arms) :], strict=True)]
        edited = [(arm, one) for arm, one in zip(arms, found, strict=False) if not _is_intact(arm)]
        adjusted = holm([one.p_value for _, one in edited])
        rows += [*intact, *below]
        rows += [context.edited(arm, one, float(p)) for (arm, one), p in zip(edited, adjusted, strict=True)]
    return rows


def _is_intact(arm: Arm) -> bool:
    return arm.runs[0] is arm.intact


def _columns_of(arm: Arm, columns: Mapping[int, npt.NDArray[np.float64]]) -> ColumnArm:
    return ColumnArm([columns[id(run)] for run in arm.runs], columns[id(arm.intact)])


def _design(
    task: Task, arms: Sequence[Arm], cache: xr.Dataset, groups: npt.NDArray[np.object_] | None
) -> tuple[Design, tuple[str, npt.NDArray[Any]]]:
    """What is drawn, and the units of all arms: the coordinate that names them, and its values."""
    name = "image_id" if task.metrics[0].unit == "image" else "pair"
    first = arms[0].runs[0].outcomes
    units = _unit_names(first, name)
    differing = sorted(
        {
            str(run.store.attrs["cachetool_path"])
            for arm in arms
            for run in arm.runs
            if not np.array_equal(_unit_names(run.outcomes, name), units)
        }
    )
    if differing:
        raise DatasetError(
            f"task {task.name} was measured on other {task.metrics[0].unit}s than in "
            f"{arms[0].runs[0].store.attrs['cachetool_path']} for "
            f"{', '.join(differing)}; compare runs of the same images"
        )
    if name == "pair":
        return Design.pairs(first.source.values, first.target.values, groups), (name, units)
    position = {image_id: row for row, image_id in enumerate(cache.image_id.values)}
    own = None if groups is None else groups[[position[image_id] for image_id in units]]
    return Design.images(len(units), own), (name, units)


def _unit_names(outcomes: xr.Dataset, name: str) -> npt.NDArray[Any]:
    """What tells units apart: ids of images; of pairs, their position among the data set's pairs."""
    return np.asarray(outcomes[name].values)


def _aligned(outcomes: xr.Dataset, units: tuple[str, npt.NDArray[Any]]) -> xr.Dataset:
    """The units that were measured on the arms, in their order."""
    name, values = units
    return outcomes.sel({name: values})
