"""Measured runs to rows: every arm against the unedited replay from the same state, all arms as one family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.evaluation.arms import Arm, MeasuredRun, edit_label, group_arms, reads_edited_tokens
from analyses.evaluation.rows import Row
from analyses.inference import RESAMPLES, Comparison, Design, compare, holm
from analyses.inference import Arm as ColumnArm
from analyses.tasks.base import Metric, Task
from cachetool.errors import DatasetError

_NAN = float("nan")
_DISTANCES = {
    "off_distribution": "off_distribution_mahalanobis_percentile",
    "off_distribution_mahalanobis": "off_distribution_mahalanobis",
    "off_distribution_neighbour_percentile": "off_distribution_neighbour_percentile",
}
"""Columns of the table by the array of a run that they average."""


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
        context = _Context(task, metric, cache, train, training_overlap, how.confidence)
        intact = [context.intact(arm, one) for arm, one in zip(arms, found, strict=False) if _is_intact(arm)]
        below = [context.floor(name, one) for name, one in zip(given, found[len(arms) :], strict=True)]
        edited = [(arm, one) for arm, one in zip(arms, found, strict=False) if not _is_intact(arm)]
        adjusted = holm([one.p_value for _, one in edited])
        rows += [*intact, *below]
        rows += [context.edited(arm, one, float(p)) for (arm, one), p in zip(edited, adjusted, strict=True)]
    return rows


def dataset_label(store: xr.Dataset) -> str:
    """Name of a cache's data set for tables: of a folder its last two parts, so that tables do not depend on its place.

    The whole place is among the facts of the cache.
    """
    scheme, colon, place = str(store.attrs["facts"]["dataset"]).partition(":")
    if not colon:
        return scheme
    path, hash_sign, split = place.partition("#")
    return f"{scheme}:{'/'.join(PurePath(path).parts[-2:])}{hash_sign}{split}"


FEW_IMAGES = 5
"""Classes of mIoU in fewer images are counted in the note: resamples say next to nothing about them."""


@dataclass(frozen=True)
class _Context:
    """What all rows of one metric share."""

    task: Task
    metric: Metric
    cache: xr.Dataset
    train: str
    training_overlap: float
    confidence: float

    @property
    def depth(self) -> int:
        return int(self.cache.attrs["depth"])

    def intact(self, arm: Arm, found: Comparison) -> Row:
        """A row that is compared with nothing: there is no change, and no interval of one."""
        edit = arm.intact.edit
        state = self.depth if edit is None else edit.from_layer
        return self._row(
            found,
            label="intact",
            replacement="none",
            layers=(state, state),
            difference=None,
            runs=arm.runs,
            note=_note(arm),
        )

    def floor(self, name: str, found: Comparison) -> Row:
        """A prediction that looks at no feature; it belongs to no family of comparisons."""
        return self._row(
            found, label=name, replacement="floor", layers=(self.depth, self.depth), difference=found, runs=()
        )

    def edited(self, arm: Arm, found: Comparison, p_holm: float) -> Row:
        """An edited arm."""
        edit = arm.runs[0].edit
        assert edit is not None
        last = (edit.masked_blocks(self.depth) or edit.edited_layers(self.depth))[-1]
        return self._row(
            found,
            label=edit_label(edit),
            target=edit.target,
            replacement=edit.replacement,
            layers=(edit.from_layer, last),
            sustained=edit.sustained,
            difference=found,
            p_holm=p_holm,
            runs=arm.runs,
            by_construction=_edited_tokens(arm.runs) > 0 and reads_edited_tokens(self.task, edit, self.depth),
            note=_note(arm),
        )

    def _row(
        self,
        found: Comparison,
        *,
        label: str,
        replacement: str,
        layers: tuple[int, int],
        difference: Comparison | None,
        runs: Sequence[MeasuredRun],
        target: str = "",
        sustained: bool = True,
        p_holm: float = _NAN,
        by_construction: bool = False,
        note: str = "",
    ) -> Row:
        facts = [run.store.attrs["facts"] for run in runs if run.store.attrs["kind"] == "run"]
        calibrations = [entry["calibration"] for entry in facts if entry.get("calibration")]
        distances = {name: _mean_distance(runs, array) for name, array in _DISTANCES.items()}
        return Row(
            model=str(self.cache.attrs["facts"]["model"]),
            dataset=dataset_label(self.cache),
            train=self.train if self.task.fitted else "",
            task=self.task.name,
            metric=self.metric.name,
            unit=self.metric.unit,
            edit=label,
            target=target,
            replacement=replacement,
            from_layer=layers[0],
            until_layer=layers[1],
            sustained=sustained,
            seeds=found.seeds,
            head=runs[0].head if runs else "intact",
            value=found.value,
            value_low=found.value_low,
            value_high=found.value_high,
            intact=found.intact,
            difference_pp=0.0 if difference is None else 100 * difference.difference,
            low_pp=_NAN if difference is None else 100 * difference.low,
            high_pp=_NAN if difference is None else 100 * difference.high,
            p_value=_NAN if difference is None else difference.p_value,
            p_holm=p_holm,
            equivalent_1pp=difference is not None and difference.equivalent,
            p_equivalence=_NAN if difference is None else difference.p_equivalence,
            mcnemar_p=_NAN if difference is None else difference.mcnemar_p,
            units=found.units,
            images=found.images,
            drawn=found.drawn,
            confidence=self.confidence,
            edited_tokens=_edited_tokens(runs),
            **distances,
            certificate=max((float(entry["certificate"]["relative_error"]) for entry in facts), default=_NAN),
            # The place of a calibration is among the facts of the run; tables do not depend on it.
            calibration=", ".join(dict.fromkeys(PurePath(entry["path"]).name for entry in calibrations)),
            calibration_overlap=max((float(entry["overlap"]) for entry in calibrations), default=_NAN),
            training_overlap=self.training_overlap if self.task.fitted else _NAN,
            oracle=any(bool(entry["oracle"]) for entry in facts),
            by_construction=by_construction,
            note=note,
        )


def _is_intact(arm: Arm) -> bool:
    return arm.runs[0] is arm.intact


def _columns_of(arm: Arm, columns: Mapping[int, npt.NDArray[np.float64]]) -> ColumnArm:
    return ColumnArm([columns[id(run)] for run in arm.runs], columns[id(arm.intact)])


def _mean_distance(runs: Sequence[MeasuredRun], array: str) -> float:
    """Mean over images of each run, then over runs; NaN where no run measured it."""
    measured = [float(run.store[array].mean()) for run in runs if array in run.store]
    return float(np.mean(measured)) if measured else _NAN


def _edited_tokens(runs: Sequence[MeasuredRun]) -> float:
    """Mean number per image that could be read, over runs; NaN for what is no run."""
    counts = [
        float(run.store.edited.sum("token").values[run.store.readable.values].mean())
        for run in runs
        if "edited" in run.store
    ]
    return float(np.mean(counts)) if counts else _NAN


def _note(arm: Arm) -> str:
    """What the outcomes say about how they were measured."""
    found: dict[str, None] = {}
    if arm.runs[0] is not arm.intact and _edited_tokens(arm.runs) == 0:
        found["no image has a token of this target"] = None
    for run in arm.runs:
        attributes: dict[str, Any] = run.outcomes.attrs
        if "strength" in attributes:
            found[f"probe C = {float(attributes['strength']):g}"] = None
        if attributes.get("converged", 1) == 0:
            found["probe did not converge"] = None
        if "annotated" in run.outcomes:
            images = (run.outcomes.annotated.values > 0).sum(axis=0)
            rare = int(((images > 0) & (images < FEW_IMAGES)).sum())
            found[f"{int((images > 0).sum())} classes, {rare} of them in fewer than {FEW_IMAGES} images"] = None
    return "; ".join(found)


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
