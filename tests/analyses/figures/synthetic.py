"""A made-up table with the edits of the built-in study: damage grows with distance, refitting mends most of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache

import pandas as pd

from analyses.evaluation.arms import edit_label, is_unedited, reads_edited_tokens
from analyses.evaluation.rows import Row, as_frame
from analyses.study.edits import expand
from analyses.study.loading import load_study
from analyses.tasks import parse_task
from cachetool import Edit
from cachetool.tokens import TokenLayout

NAN = float("nan")
DEPTH = 12
INTACT = {"classification": 0.9, "retrieval": 0.8, "segmentation": 0.6, "correspondence": 0.5}
SHARE = {"classification": 0.5, "retrieval": 0.45, "segmentation": 0.2, "correspondence": 0.1}
"""How much of each task's metric a replacement at the greatest distance destroys."""
DISTANCE = {
    "zero": 190.0,
    "mean": 0.36,
    "noise": 52.0,
    "norm-matched": 784.0,
    "shuffle": 4.71,
    "same-class-shuffle": 4.7,
    "other-class-shuffle": 4.72,
    "class-mean": 1.12,
    "interpolate:zero:0.25": 47.4,
    "interpolate:zero:0.5": 94.8,
    "interpolate:zero:0.75": 142.1,
    "interpolate:mean:0.25": 3.54,
    "interpolate:mean:0.5": 2.38,
    "interpolate:mean:0.75": 1.23,
}
"""Mahalanobis distances as the registers of a small real model have them."""


def study_frame(model: str = "tiny-reg", dataset: str = "shapes#val") -> pd.DataFrame:
    """The table of the built-in study on one part: numbers made up, edits, labels and flags as in a real one."""
    return _made_up(model, dataset).copy()


@cache
def _made_up(model: str, dataset: str) -> pd.DataFrame:
    planned = expand(load_study("zero-ablation").edits, TokenLayout(1, 4, 8, 8), DEPTH).edits
    seedless = {replace(one.edit, seed=0): one.refit for one in planned}
    rows = []
    for name in INTACT:
        task = parse_task(name)
        for metric in task.metrics[:2]:
            rows += [
                _row(model, dataset, name, metric.name, edit, head)
                for edit, refit in seedless.items()
                for head in (("intact", "refit") if refit and task.fitted else ("intact",))
            ]
    return as_frame(rows)


def _row(model: str, dataset: str, task: str, metric: str, edit: Edit, head: str) -> Row:
    intact = INTACT[task]
    unedited = is_unedited(edit)
    distance = NAN if unedited else DISTANCE.get(edit.replacement, NAN)
    if edit.target == "patches:outliers":
        distance *= 0.4
    by_construction = not unedited and reads_edited_tokens(parse_task(task), edit, DEPTH)
    drop = 0.0 if unedited else _drop(task, edit, distance, by_construction)
    if head == "refit":
        drop *= 0.2
    wobble = int.from_bytes(hashlib.sha256(f"{task}{edit}{head}".encode()).digest()[:2], "big") / 65536 - 0.5
    change = 0.0 if unedited else -100 * drop + 0.8 * wobble
    half = 0.5 + 0.03 * abs(change)
    return Row(
        model=model,
        dataset=dataset,
        train="shapes#train",
        task=task,
        metric=metric,
        unit="image",
        edit="intact" if unedited else edit_label(edit),
        target="" if unedited else edit.target,
        replacement=edit.replacement,
        from_layer=edit.from_layer,
        until_layer=edit.from_layer if unedited else (edit.until_layer or DEPTH),
        sustained=edit.sustained,
        seeds=1,
        head="refit" if head == "refit" else "intact",
        value=intact + change / 100,
        value_low=NAN,
        value_high=NAN,
        intact=intact,
        difference_pp=change,
        low_pp=NAN if unedited else change - half,
        high_pp=NAN if unedited else change + 1.1 * half,
        p_value=NAN,
        p_holm=NAN,
        equivalent_1pp=not unedited and change - half > -1 and change + 1.1 * half < 1,
        p_equivalence=NAN,
        mcnemar_p=NAN,
        units=1000,
        images=1000,
        drawn=1000,
        confidence=0.95,
        edited_tokens=0.0 if unedited else 1.0,
        off_distribution=NAN,
        off_distribution_mahalanobis=distance,
        off_distribution_neighbour_percentile=NAN,
        certificate=0.0,
        calibration="c",
        calibration_overlap=0.0,
        training_overlap=0.0,
        oracle=not unedited and edit.build().oracle,
        by_construction=by_construction,
        note="",
    )


def _drop(task: str, edit: Edit, distance: float, by_construction: bool) -> float:
    """Loss of the metric, a fraction: grows with distance and with the states left to act in; little for few tokens."""
    if by_construction and edit.target == "cls":
        return INTACT[task] - 0.1
    states = (DEPTH - edit.from_layer) / (DEPTH - 1)
    tokens = {"registers:0": 0.05, "registers:0-1": 0.2, "registers:0-2": 0.45}.get(edit.target, 1.0)
    if edit.target.startswith("registers:") and tokens == 1:
        tokens = 0.08
    if edit.target.startswith("patches"):
        tokens = 0.02
    strength = 0.6 if edit.replacement in ("remove", "knockout") else min(distance / 250, 1.0) ** 1.5
    return SHARE[task] * strength * tokens * (0.2 + 0.8 * states)
