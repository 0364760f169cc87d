"""A study with what was named on the command line in the place of its own models, data sets, tasks and numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from analyses.study.checks import contradictions
from analyses.study.definition import CalibrationData, Study, StudyData, StudyModel
from cachetool.errors import UnknownNameError


def narrow(
    study: Study,
    *,
    models: list[str] | None = None,
    weights: Path | None = None,
    data: str | None = None,
    train: str | None = None,
    tasks: list[str] | None = None,
    calibration: str | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
) -> Study:
    """The study with what was named on the command line in the place of its own, checked again as a whole.

    Raises
    ------
    UnknownNameError
        Options that do not fit each other or the study.
    """
    problems = []
    if models:
        study = replace(study, models=tuple(model for name in models for model in _models_of(study, name)))
    if weights is not None:
        if len(study.models) != 1:
            problems.append(f"--weights is of one model, but the study has {len(study.models)}; name one with --model")
        study = replace(study, models=tuple(replace(model, weights=str(weights)) for model in study.models))
    if train is not None and data is None:
        problems.append("--train goes with --data: name the evaluated data set too")
    if calibration is not None:
        uncalibrated = tuple(replace(entry, calibration=None) for entry in study.data)
        study = replace(study, data=uncalibrated, calibration=CalibrationData(calibration, study.calibration.limit))
    if data is not None:
        known = {entry.evaluate: entry for entry in study.data}
        named = tuple(dict.fromkeys(name for entry in study.data for name in entry.tasks))
        entry = known.get(data) or StudyData(data, tuple(tasks or named))
        study = replace(study, data=(replace(entry, train=train or entry.train),))
    if tasks:
        study = replace(study, data=tuple(replace(entry, tasks=tuple(tasks)) for entry in study.data))
    if batch_size is not None:
        study = replace(study, models=tuple(replace(model, batch_size=batch_size) for model in study.models))
    if limit is not None:
        study = _limited(study, limit)
    problems += contradictions(study)
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise UnknownNameError(f"these options and the study {study.name} do not fit each other:\n{listing}")
    return study


def _models_of(study: Study, name: str) -> list[StudyModel]:
    """The models of the study that bear a name, with their weights files and sizes; else the one of this name."""
    return [model for model in study.models if name in (model.name, model.label)] or [StudyModel(name)]


def _limited(study: Study, limit: int) -> Study:
    """The study on at most so many images of every data set."""

    def at_most(own: int | None) -> int:
        return limit if own is None else min(own, limit)

    data = tuple(
        replace(
            entry,
            limit=at_most(entry.limit),
            train_limit=at_most(entry.train_limit),
            calibration=entry.calibration and replace(entry.calibration, limit=at_most(entry.calibration.limit)),
        )
        for entry in study.data
    )
    return replace(study, data=data, calibration=replace(study.calibration, limit=at_most(study.calibration.limit)))
