"""Is the head broken, or the information gone? Heads fitted on intact features beside heads fitted under the edit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analyses.figures.selection import Part, lacking, select_part
from analyses.figures.style import (
    BLUE,
    GREY,
    VERMILION,
    change_label,
    draw_intervals,
    entitle,
    literal,
    mark_equivalence,
    save,
    spread_ticks,
    tidy,
    widen,
)

_ARM = ["task", "edit", "from_layer", "until_layer"]
_APART = 0.16
"""How far the two heads of an edit are drawn from its line, in rows."""

_CAPTION = (
    "Both changes are against the intact arm; bars are confidence intervals. Where the refitted head comes back to "
    "zero, the edit broke the fit of the head; where it does not, the information is gone. Hollow: tokens that the "
    "task reads were edited in the state where it reads them."
)


def refit(frame: pd.DataFrame, path: Path, *, model: str | None = None, dataset: str | None = None) -> None:
    """Draw the change with the intact head beside the change with the refitted one, per edit and task, and save it.

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
        No edit was measured with both heads.
    UnknownNameError, DatasetError
        As `analyses.figures.selection.select_part` and `analyses.figures.style.save`.
    """
    save(draw(select_part(frame, model, dataset)), path)


def draw(part: Part) -> Figure:
    """The figure of one part. Raises `MissingDataError` where no edit was measured with both heads."""
    pairs = part.arms.merge(part.refit, on=_ARM, suffixes=("_intact", "_refit"))
    if pairs.empty:
        raise lacking(part, "edits with refitted heads", "run the study with `refit = true`")
    pairs["name"] = [
        f"{name}, from {start}" for name, start in zip(pairs["name_intact"], pairs["from_layer"], strict=True)
    ]
    names = list(dict.fromkeys(pairs["name"]))
    tasks = [task for task in part.tasks if (pairs["task"] == task).any()]
    figure = Figure(figsize=(max(2.9 * len(tasks), 6.5) + 1.4, 0.42 * len(names) + 2.3), layout="constrained")
    grid = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axes, task in zip(grid, tasks, strict=True):
        axes.set_title(literal(task), fontsize=9)
        _draw_panel(axes, pairs[pairs["task"] == task], names, part.metrics[task])
    grid[0].set_yticks(range(len(names)), [literal(name) for name in names])
    grid[0].set_ylim(len(names) - 0.4, -0.6)
    handles = [
        Line2D([], [], ls="", marker="o", color=VERMILION, label="head fitted on intact features"),
        Line2D([], [], ls="", marker="D", color=BLUE, label="head fitted under the edit"),
        Patch(color=GREY, alpha=0.22, lw=0, label="within 1 pp of no change"),
    ]
    entitle(figure, f"Head broken, or information gone?\n{part.title}", _CAPTION, handles)
    return figure


def _draw_panel(axes: Axes, pairs: pd.DataFrame, names: list[str], metric: str) -> None:
    mark_equivalence(axes, vertical=True)
    place = {name: position for position, name in enumerate(names)}
    rows = pairs["name"].map(place).to_numpy(dtype=np.float64)
    for head, colour, marker, side in (("intact", VERMILION, "o", -_APART), ("refit", BLUE, "D", _APART)):
        y, x = rows + side, pairs[f"difference_pp_{head}"].to_numpy(dtype=np.float64)
        draw_intervals(axes, y, pairs[f"low_pp_{head}"], pairs[f"high_pp_{head}"], vertical=False, colour=colour)
        hollow = pairs[f"by_construction_{head}"].to_numpy(dtype=np.bool_)
        axes.plot(x, y, ls="", marker=marker, ms=5.5, color=colour, zorder=3, label=head)
        axes.plot(x[hollow], y[hollow], ls="", marker=marker, ms=5.5, color=colour, mfc="white", zorder=4)
    widen(axes, vertical=False)
    spread_ticks(axes)
    axes.set_xlabel(literal(change_label(metric)), fontsize=8)
    tidy(axes)
