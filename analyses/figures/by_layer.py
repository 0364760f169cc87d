"""A quantity by layer: one line per token, edit or other label, with its confidence band."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analyses.figures.style import COLOURS, MARKERS, entitle, literal, save, tidy
from cachetool.errors import MissingDataError

_CAPTION = (
    "Layer k is the input of block k (0: the embedding; the last: the output of the last block). "
    "Means over images; shaded: confidence intervals over images. n = {images}."
)

_STATISTICS = ("variable", "units", "value", "low", "high", "images", "layer")


def by_layer(table: pd.DataFrame, path: Path, *, variable: str | None = None, title: str = "") -> None:
    """Draw one variable of a summary against the layer, and save it.

    Parameters
    ----------
    table
        What `analyses.summary.summarize` returned.
    path
        File to write; its ending decides the format.
    variable
        The variable; needed where the table has several.
    title
        Shown above the panels.

    Raises
    ------
    MissingDataError
        The table has no such variable, or it has no layers.
    """
    names = list(dict.fromkeys(table["variable"])) if variable is None else [variable]
    if len(names) != 1:
        raise MissingDataError(f"name the variable to draw; the table has {', '.join(names) or 'none'}")
    save(draw(table, names[0], title or names[0]), path)


def draw(table: pd.DataFrame, variable: str, title: str) -> Figure:
    """The figure: panels by the label with fewest values if there are two or more, lines by the others."""
    rows = table[table["variable"] == variable]
    rows = rows[rows["layer"].notna()] if "layer" in rows else rows.iloc[:0]
    if rows.empty:
        known = ", ".join(table["variable"].unique())
        raise MissingDataError(f"{variable} is not known by layer; the table has {known}")
    labels = [name for name in rows.columns if name not in _STATISTICS and rows[name].nunique() > 1]
    labels.sort(key=lambda name: rows[name].nunique())
    panels = labels[:1] if len(labels) > 1 else []
    groups: list[tuple[Any, pd.DataFrame]] = [(None, rows)]
    if panels:
        groups = list(rows.groupby(panels[0], sort=False, dropna=False))
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(max(3.0 * columns, 5.5) + 0.4, 2.4 * lines + 1.7), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    names = list(dict.fromkeys(_names(rows, [label for label in labels if label not in panels])))
    styles = dict(zip(names, itertools.cycle(itertools.product(MARKERS, COLOURS)), strict=False))
    for axes, (label, own) in zip(grid.flat, groups, strict=False):
        _draw_panel(axes, own, _names(own, [name for name in labels if name not in panels]), styles)
        if panels:
            axes.set_title(literal(_label(panels[0], label)), fontsize=9)
    for axes in list(grid.flat)[len(groups) :]:
        axes.set_axis_off()
    units = rows["units"].iloc[0]
    for axes in grid[:, 0]:
        axes.set_ylabel(variable.replace("_", " ") + (f" ({units})" if units not in ("", "1") else ""), fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("layer", fontsize=9)
    images = sorted(set(rows["images"]))
    caption = _CAPTION.format(images=f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}")
    key = [
        Line2D([], [], color=colour, marker=marker, ms=4, lw=1.4, label=literal(name))
        for name, (marker, colour) in styles.items()
        if name
    ]
    entitle(figure, title, caption, key)
    return figure


def _names(rows: pd.DataFrame, labels: list[str]) -> list[str]:
    return [", ".join(_label(name, row[name]) for name in labels) for _, row in rows.iterrows()]


def _label(name: str, value: object) -> str:
    """Numbers need their dimension's name, words speak for themselves."""
    return str(value) if isinstance(value, str) else f"{name.replace('_', ' ')} {value:g}"


def _draw_panel(axes: Axes, rows: pd.DataFrame, names: list[str], styles: dict[str, tuple[str, str]]) -> None:
    for name, own in rows.groupby(pd.Series(names, index=rows.index), sort=False):
        ordered = own.sort_values("layer")
        marker, colour = styles[str(name)]
        axes.plot(ordered["layer"], ordered["value"], color=colour, marker=marker, ms=4, lw=1.4)
        axes.fill_between(ordered["layer"], ordered["low"], ordered["high"], color=colour, alpha=0.18, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)
