"""All edits at a glance: a row for each edit, a column for each task, the change in the cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from analyses.figures.selection import Part, earliest_of_each_edit, lacking, select_part
from analyses.figures.style import BLUE, GREY, VERMILION, entitle, literal, metric_name, save

COLOURS = LinearSegmentedColormap.from_list("loss and gain", [VERMILION, "white", BLUE])
"""Losses vermilion, gains blue, white for none: told apart under all common colour deficiencies."""

_CAPTION = (
    "Change in percentage points against the unedited replay from the same state, heads fitted on intact features. "
    "=: the whole interval lies within 1 pp, so nothing breaks. Grey, *: tokens that the task reads were edited in the "
    "state where it reads them, so that the change says nothing about the network. Oracle: the image's label is "
    "injected. Edits that begin at several states are shown from the earliest."
)


def heat_map(frame: pd.DataFrame, path: Path, *, model: str | None = None, dataset: str | None = None) -> None:
    """Draw the change of every edit on every task as a table of coloured cells, and save it.

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
        The part has no edited arms.
    UnknownNameError, DatasetError
        As `analyses.figures.selection.select_part` and `analyses.figures.style.save`.
    """
    save(draw(select_part(frame, model, dataset)), path)


def draw(part: Part) -> Figure:
    """The figure of one part. Raises `MissingDataError` where nothing was edited."""
    if part.arms.empty:
        raise lacking(part, "edited arms", "replay an edit")
    rows = earliest_of_each_edit(part.arms)
    names = list(dict.fromkeys(rows["name"]))
    changes, forced, equal = (
        rows.pivot(index="name", columns="task", values=column).reindex(index=names, columns=list(part.tasks))
        for column in ("difference_pp", "by_construction", "equivalent_1pp")
    )
    by_construction = forced.eq(True).to_numpy()
    figure = Figure(figsize=(1.25 * len(part.tasks) + 4.4, 0.235 * len(names) + 2.6), layout="constrained")
    axes = figure.subplots()
    values = changes.to_numpy(dtype=np.float64)
    shown = np.ma.masked_invalid(np.where(by_construction, np.nan, values))
    largest = max(float(np.abs(shown).max()) if shown.count() else 0.0, 1.0)
    norm = Normalize(-largest, largest)
    axes.set_facecolor("#f4f4f4")
    picture = axes.imshow(shown, cmap=COLOURS, norm=norm, aspect="auto")
    _write_cells(axes, values, by_construction, equal.eq(True).to_numpy(), norm)
    axes.set_yticks(range(len(names)), [literal(name) for name in names], fontsize=8)
    heads = [literal(f"{task}\n{metric_name(metric)}") for task, metric in part.metrics.items()]
    axes.set_xticks(range(len(heads)), heads, fontsize=8)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.spines[:].set_visible(False)
    kinds = rows.drop_duplicates("name")["target"].str.split(":").str[0].to_numpy()
    for row in np.flatnonzero(kinds[1:] != kinds[:-1]):
        axes.axhline(row + 0.5, color=GREY, lw=0.8)
    bar = figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02, aspect=30)
    bar.set_label("change (percentage points)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    entitle(figure, part.title, _CAPTION)
    return figure


def _write_cells(
    axes: Axes,
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    by_construction: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    equivalent: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    norm: Normalize,
) -> None:
    """Write the change into every cell that has one, in a colour that stands out from the cell's."""
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        forced = by_construction[row, column]
        # Vermilion carries black at any strength, blue does not.
        dark = not forced and float(norm(value)) > 0.9
        mark = " *" if forced else " =" if equivalent[row, column] else ""
        axes.text(
            column,
            row,
            f"{value:+.1f}".replace("-", "\u2212") + mark,
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else "#666666" if forced else "black",
        )
