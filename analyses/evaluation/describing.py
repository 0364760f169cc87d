"""A compared arm as a row of the table: what was edited, what was measured, and what is to be known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import xarray as xr

from analyses.evaluation.arms import Arm, MeasuredRun, edit_label, reads_edited_tokens
from analyses.evaluation.rows import Row
from analyses.inference import Comparison
from analyses.tasks.base import Metric, Task

_NAN = float("nan")
_DISTANCES = {
    "off_distribution": "off_distribution_mahalanobis_percentile",
    "off_distribution_mahalanobis": "off_distribution_mahalanobis",
    "off_distribution_neighbour_percentile": "off_distribution_neighbour_percentile",
}
"""Columns of the table by the array of a run that they average."""

FEW_IMAGES = 5
"""Classes of mIoU in fewer images are counted in the note: resamples say next to nothing about them."""


@dataclass(frozen=True)
class Description:
    """What all rows of one metric share."""

    task: Task
    metric: Metric
    cache: xr.Dataset
    train: str
    training_overlap: float
    confidence: float

    @property
    def depth(self) -> int:
        """Number of blocks: the last state."""
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


def dataset_label(store: xr.Dataset) -> str:
    """Name of a cache's data set for tables: of a folder its last two parts, so that tables do not depend on its place.

    The whole place is among the facts of the cache.
    """
    scheme, colon, place = str(store.attrs["facts"]["dataset"]).partition(":")
    if not colon:
        return scheme
    path, hash_sign, split = place.partition("#")
    return f"{scheme}:{'/'.join(PurePath(path).parts[-2:])}{hash_sign}{split}"


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
