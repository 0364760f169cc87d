"""Arms of a comparison: runs that differ in their seed alone, beside the unedited replay from the same state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import xarray as xr

from analyses.evaluation.rows import Head
from analyses.tasks.base import Task
from analyses.tasks.readouts import Readout
from cachetool import Edit
from cachetool.errors import MissingDataError


@dataclass(frozen=True)
class MeasuredRun:
    """A run, or the cache itself, with its outcomes under one task."""

    store: xr.Dataset
    """The store as `cachetool.open` gives it."""
    outcomes: xr.Dataset
    """What the task measured on it."""
    head: Head = "intact"
    """What the head was fitted on."""

    @property
    def edit(self) -> Edit | None:
        """What was edited; None for the cache itself, which was not replayed."""
        return edit_of(self.store)

    @property
    def intact(self) -> bool:
        """Whether nothing was edited."""
        return self.edit is None or is_unedited(self.edit)


@dataclass(frozen=True)
class Arm:
    """What one row stands for."""

    runs: tuple[MeasuredRun, ...]
    """One per seed, in ascending order."""
    intact: MeasuredRun
    """The unedited replay from the same state; the arm's own run where nothing is edited."""


def edit_of(store: xr.Dataset) -> Edit | None:
    """The edit of a run; None for a cache."""
    return Edit(**store.attrs["key"]["edit"]) if store.attrs["kind"] == "run" else None


def is_unedited(edit: Edit) -> bool:
    """Whether an edit replaces nothing, so that its run is an intact arm."""
    return edit.replacement == "none"


def group_arms(runs: Sequence[MeasuredRun], cache: str) -> list[Arm]:
    """The intact arms, then one arm per edit, calibration and head with all its seeds, each in the order given.

    An edit that was run twice with the same seed (with other states kept, say) counts once.

    Raises
    ------
    MissingDataError
        There is no unedited replay from the first state of an edit; names the command that makes it. `cache` is the
        path of the cache in that command.
    """
    intact: dict[int | None, MeasuredRun] = {}
    grouped: dict[str, dict[int, MeasuredRun]] = {}
    for run in runs:
        edit = run.edit
        if edit is None or is_unedited(edit):
            intact.setdefault(None if edit is None else edit.from_layer, run)
        else:
            # The seed of an edit without randomness has no effect: it would pass one run off as several.
            grouped.setdefault(_arm_key(run, edit), {}).setdefault(edit.seed if edit.random else 0, run)
    firsts = [first for seeds in grouped.values() if (first := next(iter(seeds.values())).edit) is not None]
    missing = sorted({edit.from_layer for edit in firsts} - intact.keys())
    if missing:
        states = ",".join(map(str, missing))
        raise MissingDataError(
            f"edits from state {states} have no unedited replay from the same state to be compared with; make it with "
            f"`cachetool replay {cache} --ablation none --from-layer {states}`"
        )
    edited = [
        Arm(tuple(seeds[seed] for seed in sorted(seeds)), intact[edit.from_layer])
        for seeds, edit in zip(grouped.values(), firsts, strict=True)
    ]
    return [*(Arm((run,), run) for run in intact.values()), *edited]


def edit_label(edit: Edit) -> str:
    """Name of an edit for people, such as `registers shuffle` or `[CLS] zero, to 11`; its first state not included."""
    target = edit.parsed_target()
    name = "[CLS]" if target.token_type == "cls" else str(target)
    until = "" if edit.until_layer is None else f", to {edit.until_layer}"
    once = "" if edit.sustained else ", once"
    return f"{name} {edit.replacement}{until}{once}{', fresh per layer' if edit.fresh_per_layer else ''}"


def reads_edited_tokens(task: Task, edit: Edit, depth: int) -> bool:
    """Whether tokens that the task reads are replaced in the very state in which it reads them.

    No block then lies between edit and readout, so that an effect says nothing about the network: [CLS] replaced up to
    the last state makes every readout of [CLS] constant or foreign, whatever the model.
    """
    target = edit.parsed_target()
    if edit.build().kind not in ("values", "add") or target.token_type not in task.tokens:
        return False
    if (depth if task.layer is None else task.layer) not in edit.edited_layers(depth):
        return False
    readout = Readout.parse(task.settings["readout"]) if "readout" in task.settings else None
    indices = getattr(target.choice, "indices", None)
    return readout is None or readout.register is None or indices is None or readout.register in indices


def _arm_key(run: MeasuredRun, edit: Edit) -> str:
    key = run.store.attrs["key"]
    shared = {name: key.get(name) for name in ("drawn_from", "measured_against", "labels")}
    return json.dumps([replace(edit, seed=0).to_json(), shared, run.head], sort_keys=True)
