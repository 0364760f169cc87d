"""Is the joint effect of the registers the sum of their single effects? Each alone, cumulatively, and all together."""

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
from cachetool import Edit

_CAPTION = (
    "Filled: the measured change, with its confidence interval. Hollow diamonds: the sum of the changes of the same "
    "registers, each replaced alone; the table holds no interval of a sum. A diamond nearer to zero than its point "
    "means that the registers stand in for each other. Left out where the task reads the "
    "replaced registers themselves."
)


def lesions(
    frame: pd.DataFrame,
    path: Path,
    *,
    model: str | None = None,
    dataset: str | None = None,
    replacement: str = "zero",
) -> None:
    """Draw the change by single registers, by the first ones together and by all, beside the sums, and save it.

    Parameters
    ----------
    frame
        The tidy table (`analyses.evaluation.rows.as_frame`, or a study's table.csv).
    path
        File to write; its ending decides the format.
    model, dataset
        The part to draw; needed where the table has several.
    replacement
        What was put in.

    Raises
    ------
    MissingDataError
        No single registers were replaced so.
    UnknownNameError, DatasetError
        As `analyses.figures.selection.select_part` and `analyses.figures.style.save`.
    """
    save(draw(select_part(frame, model, dataset), replacement), path)


def draw(part: Part, replacement: str = "zero") -> Figure:
    """The figure of one part. Raises `MissingDataError` where no single registers were replaced so."""
    rows = _lesions(part.arms, replacement)
    if rows.empty:
        raise lacking(
            part,
            f"single registers replaced by {replacement}",
            f"replay targets such as registers:0 with {replacement}",
        )
    targets = list(dict.fromkeys(rows["target"]))
    figure = Figure(figsize=(max(2.7 * len(part.tasks), 6.5) + 1, 0.34 * len(targets) + 2.4), layout="constrained")
    grid = figure.subplots(1, len(part.tasks), squeeze=False, sharey=True)[0]
    for axes, task in zip(grid, part.tasks, strict=True):
        axes.set_title(literal(task), fontsize=9)
        _draw_panel(axes, rows[rows["task"] == task], targets, part.metrics[task])
    grid[0].set_yticks(range(len(targets)), [_name(target) for target in targets])
    grid[0].set_ylim(len(targets) - 0.4, -0.6)
    handles = [
        Line2D([], [], ls="", marker="o", color=BLUE, label="one register alone"),
        Line2D([], [], ls="", marker="s", color=VERMILION, label="several together"),
        Line2D([], [], ls="", marker="D", color=VERMILION, mfc="white", label="sum of the same registers, each alone"),
        Patch(color=GREY, alpha=0.22, lw=0, label="within 1 pp of no change"),
    ]
    first, last = rows["from_layer"].iloc[0], rows["until_layer"].iloc[0]
    title = f"Registers replaced by {replacement}, states {first} to {last}: one by one and together"
    entitle(figure, f"{title}\n{part.title}", _CAPTION, handles)
    return figure


def _lesions(arms: pd.DataFrame, replacement: str) -> pd.DataFrame:
    """Single registers in their order, then sets of them by size, over the span of states with most single ones."""
    is_register = arms["target"].str.split(":").str[0] == "registers"
    own = arms[is_register & (arms["replacement"] == replacement) & arms["sustained"] & ~arms["by_construction"]].copy()
    own["single"] = [len(_members(target)) == 1 for target in own["target"]]
    spans = [rows for _, rows in own.groupby(["from_layer", "until_layer"]) if rows["single"].any()]
    chosen = max(spans, key=lambda rows: rows["target"][rows["single"]].nunique(), default=own.iloc[:0])
    # No indices stand for all registers, which come last.
    order = sorted(set(chosen["target"]), key=lambda target: (not _members(target), len(_members(target)), target))
    return chosen.sort_values("target", key=lambda targets: targets.map(order.index), kind="stable")


def _members(target: str) -> tuple[int, ...]:
    """The registers of a target; empty for all of them, whose number the table does not say."""
    indices: tuple[int, ...] = getattr(Edit(target, "zero", 0).parsed_target().choice, "indices", ())
    return indices


def _name(target: str) -> str:
    members = _members(target)
    if not members:
        return "all registers"
    return f"register {members[0]}" if len(members) == 1 else f"registers {target.partition(':')[2]}"


def _draw_panel(axes: Axes, rows: pd.DataFrame, targets: list[str], metric: str) -> None:
    mark_equivalence(axes, vertical=True)
    place = {target: position for position, target in enumerate(targets)}
    single, joint = rows[rows["single"]], rows[~rows["single"]]
    for kind, colour, marker in ((single, BLUE, "o"), (joint, VERMILION, "s")):
        y = kind["target"].map(place).to_numpy(dtype=np.float64)
        draw_intervals(axes, y, kind["low_pp"], kind["high_pp"], vertical=False, colour=colour)
        axes.plot(kind["difference_pp"], y, ls="", marker=marker, ms=5.5, color=colour, zorder=3)
    alone = {
        _members(target)[0]: change for target, change in zip(single["target"], single["difference_pp"], strict=True)
    }
    # The table does not say how many registers there are: as many as the highest one that was named.
    everything = tuple(range(1 + max((member for target in targets for member in _members(target)), default=-1)))
    sums = {target: _sum_of(_members(target) or everything, alone) for target in joint["target"]}
    axes.plot(
        list(sums.values()), [place[target] for target in sums], ls="", marker="D", ms=7, color=VERMILION, mfc="none"
    )
    widen(axes, vertical=False)
    spread_ticks(axes)
    axes.set_xlabel(literal(change_label(metric)), fontsize=8)
    tidy(axes)


def _sum_of(members: tuple[int, ...], alone: dict[int, float]) -> float:
    """Sum of single changes; NaN where one of them was not measured."""
    return sum(alone.get(member, float("nan")) for member in members)
