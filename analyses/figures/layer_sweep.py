"""From which state on an edit does damage: change against the first edited state."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.figures.selection import ORACLE, Part, lacking, select_part
from analyses.figures.style import (
    change_label,
    entitle,
    literal,
    mark_equivalence,
    replacement_styles,
    save,
    tidy,
    widen,
)

_CAPTION = (
    "Each line is one replacement, put in from the state on x (1 is the output of the first block); shaded: confidence "
    "intervals. Grey band: within 1 pp of no change. Every point is compared with the unedited replay from the same "
    "state. Hollow: tokens that the task reads were edited in the state where it reads them."
)


def layer_sweep(frame: pd.DataFrame, path: Path, *, model: str | None = None, dataset: str | None = None) -> None:
    """Draw change against the first edited state, a row of panels per edited tokens and a column per task, and save it.

    Parameters
    ----------
    frame
        The tidy table (`analyses.evaluation.rows.as_frame`, or a study's table.csv).
    path
        File to write; its ending decides the format.
    model, dataset
        The part to draw; needed where the table has several.

    Raises
    ------
    MissingDataError
        No edit begins at two states or more.
    UnknownNameError, DatasetError
        As `analyses.figures.selection.select_part` and `analyses.figures.style.save`.
    """
    save(draw(select_part(frame, model, dataset)), path)


def draw(part: Part) -> Figure:
    """The figure of one part. Raises `MissingDataError` where no edit begins at two states or more."""
    starts = part.arms.groupby("edit")["from_layer"].transform("nunique")
    swept = part.arms[starts > 1]
    if swept.empty:
        raise lacking(part, "an edit from several first states", "replay it with several `from_layers`")
    subjects, replacements = (list(dict.fromkeys(swept[name])) for name in ("subject", "replacement"))
    figure = Figure(figsize=(max(3 * len(part.tasks), 6.5) + 0.4, 2.5 * len(subjects) + 1.6), layout="constrained")
    grid = figure.subplots(len(subjects), len(part.tasks), squeeze=False, sharex=True)
    styles = {name: style for name, style in replacement_styles(replacements).items() if name in replacements}
    for of_subject, subject in zip(grid, subjects, strict=True):
        for axes, task in zip(of_subject, part.tasks, strict=True):
            rows = swept[(swept["subject"] == subject) & (swept["task"] == task)]
            axes.set_title(literal(f"{subject}\n{task}"), fontsize=9)
            if rows.empty:
                axes.set_axis_off()
            else:
                _draw_panel(axes, rows, part.metrics[task], styles)
    oracles = set(swept["replacement"][swept["oracle"]])
    handles = [
        Line2D([], [], color=colour, marker=marker, ms=5, lw=1.4, label=literal(name + ORACLE * (name in oracles)))
        for name, (colour, marker) in styles.items()
    ]
    entitle(figure, f"From which state on does an edit do damage?\n{part.title}", _CAPTION, handles)
    return figure


def _draw_panel(axes: Axes, rows: pd.DataFrame, metric: str, styles: dict[str, tuple[str, str]]) -> None:
    mark_equivalence(axes, vertical=False)
    for name, of_edit in rows.groupby("edit", sort=False):
        curve = of_edit.sort_values("from_layer")
        colour, marker = styles[curve["replacement"].iloc[0]]
        x, y = curve["from_layer"], curve["difference_pp"]
        # Where an interval is not known (NaN) the band has a gap.
        axes.fill_between(x, curve["low_pp"], curve["high_pp"], color=colour, alpha=0.18, lw=0, zorder=1)
        axes.plot(x, y, color=colour, lw=1.4, zorder=2, label=str(name))
        for hollow, points in curve.groupby("by_construction"):
            axes.plot(
                points["from_layer"],
                points["difference_pp"],
                ls="",
                marker=marker,
                ms=4.5,
                color=colour,
                mfc="white" if hollow else colour,
                zorder=3,
            )
    widen(axes, vertical=True)
    axes.set_xticks(sorted(set(rows["from_layer"])))
    axes.tick_params(labelbottom=True)
    axes.set_xlabel("first edited state", fontsize=8)
    axes.set_ylabel(literal(change_label(metric)), fontsize=8)
    tidy(axes)
