"""What can be wrong with a study whose keys and types are right: unknown names, wrong numbers, contradictions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import product
from typing import Any

import cachetool
from analyses.study.definition import CUMULATIVE, EACH, SWEEP, EditGroup, Study, StudyData
from analyses.tasks import parse_task
from cachetool.errors import CachetoolError, UnknownNameError

MOST = 10**8
"""Of anything that is counted: more is a slip of the keyboard, and would fill the memory."""


def contradictions(study: Study) -> list[str]:
    """What is of the right type and wrong nonetheless, one line each."""
    problems = []
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", study.name):
        problems.append(f"name: expected letters, digits and any of '_ . + -', found {study.name!r}")
    if not 0 < study.confidence < 1:
        problems.append(f"confidence: expected a number between 0 and 1, found {study.confidence}")
    if study.seed < 0:
        problems.append(f"seed: expected 0 or more, found {study.seed}")
    counts: dict[str, int | None] = {"resamples": study.resamples, "calibration.limit": study.calibration.limit}
    lists: dict[str, tuple[Any, ...]] = {"models": study.models, "data": study.data, "edits": study.edits}
    for index, model in enumerate(study.models):
        counts |= {f"models[{index}].{name}": getattr(model, name) for name in ("image_size", "batch_size")}
    for index, data in enumerate(study.data):
        where = f"data[{index}]"
        counts |= {f"{where}.{name}": getattr(data, name) for name in ("limit", "train_limit")}
        if data.calibration is not None:
            counts[f"{where}.calibration.limit"] = data.calibration.limit
        lists[f"{where}.tasks"] = data.tasks
        problems += _data_problems(data, where)
    for index, group in enumerate(study.edits):
        where = f"edits[{index}] ({group.name})"
        counts[f"{where}.seeds"] = group.seeds
        lists |= {f"{where}.{name}": getattr(group, name) for name in ("targets", "replacements")}
        problems += _edit_problems(group, where)
    problems += [
        f"{name}: expected at {'least 1' if count < 1 else f'most {MOST:,}'}, found {count}"
        for name, count in counts.items()
        if count is not None and not 1 <= count <= MOST
    ]
    problems += [f"{name}: expected at least one entry, found none" for name, entries in lists.items() if not entries]
    names = {
        "models": [model.label for model in study.models],
        "data": [data.evaluate for data in study.data],
        "edits": [group.name for group in study.edits],
    }
    for what, given in names.items():
        problems += _repetitions(what, given)
    return problems + _shared_images(study)


def _repetitions(what: str, names: list[str]) -> list[str]:
    return [f"{what}: {name!r} is there {count} times" for name, count in Counter(names).items() if count > 1]


def _shared_images(study: Study) -> list[str]:
    """Data sets whose uses do not go together: one cache holds the images of all of them, as many as the most ask for.

    Calibrations take the first images of a cache and may ask for fewer.
    """
    used: dict[str, set[int | None]] = {}
    problems: list[str] = []
    for data in study.data:
        used.setdefault(data.evaluate, set()).add(data.limit)
        if data.train == data.evaluate:
            problems.append(f"data: {data.train} is evaluated and trained on; fit heads on other images")
        if data.train is not None:
            used.setdefault(data.train, set()).add(data.train_limit)
    problems += [
        f"data set {name}: its uses as evaluated or training images have the limits {_listed(limits)}, but share one "
        "cache; give them one limit"
        for name, limits in used.items()
        if len(limits) > 1
    ]
    for data in study.data:
        calibration = data.calibration or study.calibration
        limits = used.get(calibration.data, set())
        if calibration.data == data.evaluate:
            problems.append(
                f"calibration.data: {calibration.data} is evaluated too; calibration images must be others than these"
            )
        elif len(limits) == 1 and _exceeds(calibration.limit, next(iter(limits))):
            problems.append(
                f"calibration.limit: {calibration.data} has the limit {_listed({calibration.limit})} here and "
                f"{_listed(limits)} elsewhere, but shares one cache; calibrate on no more than that"
            )
    return list(dict.fromkeys(problems))


def _exceeds(limit: int | None, other: int | None) -> bool:
    return other is not None and (limit is None or limit > other)


def _listed(limits: Iterable[int | None]) -> str:
    ordered = sorted(limits, key=lambda limit: (limit is None, limit or 0))
    return " and ".join("(none)" if limit is None else str(limit) for limit in ordered)


def _data_problems(data: StudyData, where: str) -> list[str]:
    problems, fitted, names = [], [], []
    for name in data.tasks:
        try:
            task = parse_task(name)
        except UnknownNameError as error:
            problems.append(f"{where}.tasks: {error}")
            continue
        names.append(task.name)
        if "@" in str(task.settings.get("readout", "")):
            problems.append(
                f"{where}.tasks: {name!r} reads an earlier state, but the runs of a study hold the last alone"
            )
        if task.fitted:
            fitted.append(name)
    problems += _repetitions(f"{where}.tasks", names)
    if fitted and data.train is None:
        problems.append(f"{where}.train: missing; {', '.join(fitted)} need a data set that heads are fitted on")
    try:
        groups = re.compile(data.group_by).groups if data.group_by else 1
    except re.error as error:
        return [*problems, f"{where}.group_by: {data.group_by!r} is no regular expression: {error}"]
    if groups != 1:
        problems.append(f"{where}.group_by: expected one group in parentheses, found {groups} in {data.group_by!r}")
    return problems


def _edit_problems(group: EditGroup, where: str) -> list[str]:
    problems = []
    if isinstance(group.from_layers, str) and group.from_layers != SWEEP:
        problems.append(f"{where}.from_layers: expected a list of states or {SWEEP!r}, found {group.from_layers!r}")
    if group.from_layers == () or group.until_layers == ():
        problems.append(f"{where}: expected at least one state in from_layers and until_layers, found none")
    if group.once and group.until_layers is not None:
        problems.append(f"{where}: an edit of one state (once) has no until_layers; drop one of the two")
    ends = group.until_layers or ()
    if not isinstance(group.from_layers, str):
        problems += [
            f"{where}: an edit from state {start} until state {until} ends before it begins"
            for start, until in product(group.from_layers, ends)
            if until < start and (start < 0) == (until < 0)
        ]
    if "remove" in group.replacements and (group.once or any(until < -1 for until in ends)):
        problems.append(
            f"{where}.replacements: 'remove' cannot end before the last state, as removed tokens do not come back; "
            "use 'knockout'"
        )
    for target in group.targets:
        problems += _refusal(f"{where}.targets", "registers" if target in (EACH, CUMULATIVE) else target, "none")
    for replacement in group.replacements:
        problems += _refusal(f"{where}.replacements", "registers", replacement)
        if replacement == "none":
            problems.append(f"{where}.replacements: 'none' is the intact arm, which every study has; drop it")
    return problems


def _refusal(where: str, target: str, replacement: str) -> list[str]:
    try:
        cachetool.Edit(target, replacement, from_layer=0)
    except CachetoolError as error:
        return [f"{where}: {error}"]
    return []
