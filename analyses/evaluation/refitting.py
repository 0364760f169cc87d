"""Heads for arms: fitted once on intact training features, or on training features under an arm's own edit.

An intact head that fails on edited features may fail because the information is gone, or because the head meets
features unlike those it was fitted on. A head that is fitted under the same edit tells the two apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

import cachetool
from analyses.evaluation.arms import edit_of
from analyses.evaluation.outcomes import FittedHead
from analyses.tasks.base import Task
from cachetool import Edit
from cachetool.annotations import Annotations
from cachetool.edits import parse_replacement
from cachetool.errors import CachetoolError
from cachetool.objects import AnyPlace

OWN_CALIBRATION = "(the cache itself)"
"""What a run gives as the place of its calibration where the evaluated cache was calibrated on itself."""


class Training:
    """A training cache, and its runs under the edits of evaluated runs."""

    def __init__(
        self,
        store: xr.Dataset,
        annotations: Annotations,
        *,
        calibration: AnyPlace | None = None,
        replaying: Mapping[str, Any],
    ) -> None:
        """Name the opened cache and its annotations.

        `calibration` tells where that of the evaluated runs has moved; `replaying` holds arguments of
        `cachetool.replay`.
        """
        self.store, self.annotations = store, annotations
        self._calibration, self._replaying = calibration, dict(replaying)
        self._runs: dict[str, xr.Dataset] = {}

    def intact_head(self, task: Task) -> FittedHead:
        """The head that all arms share."""
        return FittedHead(task, self.store, self.annotations)

    def refitted_head(self, task: Task, run: xr.Dataset) -> FittedHead:
        """The head that is fitted under the edit of an evaluated run; `replay` must have been called with the run."""
        return FittedHead(task, self._runs[_name(run)], self.annotations)

    def replay(self, runs: Sequence[xr.Dataset], tokens: Sequence[str], layers: Sequence[int]) -> dict[str, str]:
        """Replay the edits of evaluated runs on the training images, as far as they are not replayed yet.

        Donors are other training images; means and variances come from the calibration of the evaluated runs.

        Parameters
        ----------
        runs
            Runs of the evaluated cache.
        tokens, layers
            Token types and states that heads read.

        Returns
        -------
        Paths of runs whose edit cannot be carried over to the training images, with the reason.
        """
        left_out: dict[str, str] = {}
        by_calibration: dict[str | None, list[xr.Dataset]] = defaultdict(list)
        for run in runs:
            place, replacement = self._place(run), parse_replacement(_edit(run).replacement)
            if place is None and "calibration" in replacement.needs:
                left_out[_name(run)] = (
                    "its values come from the evaluated images; replay with --calibration on other images"
                )
                continue
            try:
                replacement.check_early(self.annotations.image_ids)
            except CachetoolError as error:
                left_out[_name(run)] = f"on the training images, {error}"
            else:
                by_calibration[place].append(run)
        for place, members in by_calibration.items():
            trained = cachetool.replay(
                self.store,
                [_edit(run) for run in members],
                keep=sorted(layers),
                keep_tokens=tokens,
                calibration=place,
                **self._replaying,
            )
            self._runs.update((_name(run), own) for run, own in zip(members, trained, strict=True))
        return left_out

    def _place(self, run: xr.Dataset) -> str | None:
        if self._calibration is not None:
            return str(self._calibration)
        used = run.attrs["facts"].get("calibration")
        return None if not used or used["path"] == OWN_CALIBRATION else str(used["path"])


def seedless(edit: Edit) -> Edit:
    """The edit with the first seed, which stands for all its seeds."""
    return replace(edit, seed=0)


def _edit(run: xr.Dataset) -> Edit:
    edit = edit_of(run)
    assert edit is not None
    return edit


def _name(run: xr.Dataset) -> str:
    return str(run.attrs["cachetool_path"])
