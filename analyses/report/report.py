"""Gather what tables, caches, runs and analyses hold into a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from analyses.report.cache_section import CacheSection, cache_section
from analyses.report.effects import effects_of, read_table
from analyses.report.headline import Finding, findings
from analyses.report.missing import Missing
from analyses.report.model_section import ModelSection, StaticFigure, dependence_figure, model_section
from analyses.report.subject import Subject, check_named_runs, open_subject
from cachetool.errors import MissingDataError
from cachetool.events import Events, Silent
from cachetool.objects import Place


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    title: str
    """Title of the page."""
    findings: tuple[Finding, ...]
    """What follows; the first is the headline."""
    models: tuple[ModelSection, ...]
    """Task scores."""
    dependence: StaticFigure | None
    """Dependence of dense features and tasks on [CLS], all models side by side."""
    caches: tuple[CacheSection, ...]
    """Tokens and images."""
    missing: tuple[tuple[str, Missing], ...]
    """What is not shown, by what it belongs to."""


def build_report(
    caches: Sequence[Place],
    tables: Sequence[Path] = (),
    *,
    title: str = "What tokens do",
    images: int | Sequence[int] = 4,
    runs: Sequence[Place] = (),
    weights: Path | None = None,
    device: str | None = None,
    events: Events | None = None,
) -> Report:
    """Gather a report from what was measured; nothing is replayed, and tasks are not measured again.

    Parameters
    ----------
    caches
        Caches whose tokens and images are shown.
    tables
        Files `table.csv` of `cachetool study` or `cachetool evaluate`, or their directories.
    title
        Title of the page.
    images
        Example images of every cache: how many, evenly spread, or their positions.
    runs
        Runs to show on example images; by default one of each common edit.
    weights, device
        As for `cachetool.attention`, which shows where [CLS] of the example images looks.
    events
        Told of every cache.

    Raises
    ------
    MissingDataError
        There is neither a cache nor a table, one of the tables is absent, or a run belongs to none of the caches.
    DatasetError
        A table is none, or has several rows for one arm.
    InvalidEditError
        An image is asked for that a cache lacks.
    """
    listener = events or Silent()
    if not caches and not tables:
        raise MissingDataError("nothing to report: name a cache, or a table with --table; `cachetool study` makes both")
    frames = {(path / "table.csv" if path.is_dir() else path): read_table(path) for path in tables}
    effects = [one for file, frame in frames.items() for one in effects_of(frame, file)]
    subjects = [open_subject(path) for path in caches]
    check_named_runs(subjects, runs)
    missing: list[tuple[str, Missing]] = []
    if not effects:
        command = "cachetool study, or cachetool evaluate --output tables"
        missing.append(("tasks", Missing("task by ablation", "there is no table with edited arms", command)))
    sections = []
    listener.start("report", len(subjects))
    for index, subject in enumerate(subjects):
        section, lacking = cache_section(
            subject, f"cache{index}", images=images, runs=runs, weights=weights, device=device
        )
        sections.append(section)
        missing += [(subject.name, one) for one in lacking]
        listener.advance(1)
    return Report(
        title=title,
        findings=tuple(finding for one in effects for finding in findings(one)),
        models=tuple(model_section(one, frames[one.source], f"model{index}") for index, one in enumerate(effects)),
        dependence=dependence_figure(
            list(frames.values()), _similarities(subjects),
            {subject.model: subject.cache.sizes.get("register", 0) for subject in subjects},
        ),
        caches=tuple(sections),
        missing=tuple(missing),
    )  # fmt: skip


def _similarities(subjects: Sequence[Subject]) -> dict[str, list[xr.Dataset]]:
    found: dict[str, list[xr.Dataset]] = {}
    for subject in subjects:
        if "patch-similarity" in subject.results:
            found.setdefault(subject.model, []).append(subject.results["patch-similarity"])
    return found
