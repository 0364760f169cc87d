"""THE figure of the study: does damage follow how far a replacement lies from natural tokens, or what it says?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import spearmanr

from analyses.figures.content import Content, content_of, dose_of, dose_towards
from analyses.figures.labels import place_labels
from analyses.figures.selection import Part, lacking, select_part
from analyses.figures.style import (
    GREY,
    change_label,
    draw_intervals,
    entitle,
    literal,
    mark_equivalence,
    save,
    tidy,
    widen,
)

DISTANCE = "off_distribution_mahalanobis"
"""The column along x. Its rank among natural tokens says less: it is 100 for all that lies outside of them."""

FEWEST = 3
"""Arms that a rank correlation needs to be more than a sign."""

_NATURAL = ("shuffle", "other-class-shuffle", "same-class-shuffle")
"""Replacements that inject unaltered natural tokens, so that their distance is that of natural tokens themselves."""

_LINES = ("-", "--", ":", "-.")


def dose_and_plausibility(
    frame: pd.DataFrame, path: Path, *, model: str | None = None, dataset: str | None = None
) -> None:
    """Draw change against distance from natural tokens, a row of panels per target and a column per task, and save it.

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
        No arm that replaces registers, [CLS] or outlier patches has a distance.
    UnknownNameError, DatasetError
        As `analyses.figures.selection.select_part` and `analyses.figures.style.save`.
    """
    save(draw(select_part(frame, model, dataset)), path)


def draw(part: Part) -> Figure:
    """The figure of one part. Raises `MissingDataError` where no arm has a distance."""
    groups = {target: rows for target in _targets(part) if len(rows := _comparable(part.arms, target))}
    unplaced = [name for rows in groups.values() for name in _unplaced(rows)]
    placed = {target: rows[_placed(rows)] for target, rows in groups.items() if _placed(rows).any()}
    if not placed:
        raise lacking(
            part,
            "replaced registers, [CLS] or outlier patches with a distance from natural tokens",
            "replay such edits with a calibration, which measures distances",
        )
    figure = Figure(figsize=(max(3.3 * len(part.tasks), 6.5) + 0.4, 3.1 * len(placed) + 1.9), layout="constrained")
    grid = figure.subplots(len(placed), len(part.tasks), squeeze=False, sharex="row")
    panels = []
    for of_target, rows in zip(grid, placed.values(), strict=True):
        for axes, task in zip(of_target, part.tasks, strict=True):
            arms = rows[rows["task"] == task]
            axes.set_xscale("log")
            axes.set_xlim(_limits(rows[DISTANCE]))
            _draw_panel(axes, arms, _span(rows), task, part.metrics[task])
            panels.append((axes, arms))
    entitle(figure, f"Does damage follow distance or content?\n{part.title}", _caption(unplaced), _key(placed))
    # Names are placed where the layout has left room, so it has to be settled first.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, arms in panels:
        _label_arms(axes, arms)
    return figure


def _targets(part: Part) -> list[str]:
    known = list(dict.fromkeys(part.arms["target"]))
    outliers = [target for target in known if target.startswith("patches:outliers")]
    return [target for target in ("registers", "cls") if target in known] + outliers


def _comparable(arms: pd.DataFrame, target: str) -> pd.DataFrame:
    """Sustained arms of a target that cover the same states, so that only the replacement differs.

    Among the spans of states one without effects by construction is preferred ([CLS] ending one state early), then the
    one with most replacements, then the earliest and the longest.
    """
    own = arms[(arms["target"] == target) & arms["sustained"]]
    spans = [rows for _, rows in own.groupby(["from_layer", "until_layer"])]
    return min(
        spans,
        key=lambda rows: (
            bool(rows["by_construction"].any()) or not _placed(rows).any(),
            -rows["edit"].nunique(),
            int(rows["from_layer"].iloc[0]),
            -int(rows["until_layer"].iloc[0]),
        ),
        default=own,
    )


def _placed(rows: pd.DataFrame) -> pd.Series[bool]:
    """Arms that have a place on a logarithmic axis of distances."""
    return rows[DISTANCE].between(0, np.inf, inclusive="neither")


def _unplaced(rows: pd.DataFrame) -> list[str]:
    """Names of the arms without a place; one name where none has one."""
    if not _placed(rows).any():
        return [f"all edits of {rows['target'].iloc[0]}"]
    return list(rows["edit"][~_placed(rows)])


def _limits(distances: pd.Series[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis with room for names on both sides, also where all distances are the same."""
    low, high = float(distances.min()), float(distances.max())
    room = max((high / low) ** 0.14, 2.0)
    return low / room, high * room


def _span(rows: pd.DataFrame) -> str:
    """The tokens and states that are edited, in words."""
    first = rows.iloc[0]
    name = {"cls": "[CLS]", "patches:outliers": "outlier patches"}.get(first["target"], str(first["target"]))
    return f"{name}, states {first['from_layer']} to {first['until_layer']}"


def _draw_panel(axes: Axes, arms: pd.DataFrame, span: str, task: str, metric: str) -> None:
    axes.set_title(literal(f"{span}\n{task}{_correlation(arms)}"), fontsize=8.5)
    if arms.empty:
        axes.set_axis_off()
        return
    mark_equivalence(axes, vertical=False)
    natural = arms[arms["replacement"].isin(_NATURAL)]
    if len(natural):
        axes.axvline(float(natural[DISTANCE].median()), color=GREY, lw=1, ls=(0, (1, 2)), zorder=0)
    for other, style in _line_styles(arms).items():
        curve = _curve(arms, other)
        axes.plot(curve[DISTANCE], curve["difference_pp"], ls=style, color=Content.OWN.colour, lw=1, zorder=1)
    for arm in arms.to_dict("records"):
        content = content_of(arm["replacement"], oracle=arm["oracle"])
        axes.plot(
            arm[DISTANCE],
            arm["difference_pp"],
            ls="",
            marker=content.marker,
            ms=_size(arm["replacement"]),
            color=content.colour,
            mfc="white" if arm["by_construction"] else content.colour,
            label=arm["edit"],
            zorder=3,
        )
        draw_intervals(axes, [arm[DISTANCE]], [arm["low_pp"]], [arm["high_pp"]], vertical=True, colour=content.colour)
    axes.margins(y=0.16)
    widen(axes, vertical=True)
    axes.set_xlabel("Mahalanobis distance from natural tokens", fontsize=8)
    axes.set_ylabel(literal(change_label(metric)), fontsize=8)
    tidy(axes)


def _size(replacement: str) -> float:
    """Size of a marker in typographic points: the greater the dose, the larger."""
    dose = dose_of(replacement)
    return 6.0 if dose is None else 2.5 + 3 * dose[1]


def _line_styles(arms: pd.DataFrame) -> dict[str, str]:
    """Line of each series of doses by what it leads to; the common ones always look the same."""
    others = {dose[0] for name in arms["replacement"] if (dose := dose_of(name)) is not None}
    ordered = dict.fromkeys(("zero", "mean", *sorted(others)))
    styles = {other: _LINES[position % len(_LINES)] for position, other in enumerate(ordered)}
    return {other: style for other, style in styles.items() if other in others}


def _curve(arms: pd.DataFrame, other: str) -> pd.DataFrame:
    """The doses towards a replacement in ascending order, and that replacement itself, dose 1, at their end."""
    doses = [dose_towards(name, other) for name in arms["replacement"]]
    return arms.assign(dose=doses).dropna(subset=["dose"]).sort_values("dose", kind="stable")


def _correlation(arms: pd.DataFrame) -> str:
    """Rank correlation of distance with the size of the change, in words; empty where there is none."""
    measured = arms[~arms["by_construction"] & np.isfinite(arms["difference_pp"])]
    damage = measured["difference_pp"].abs()
    if len(measured) < FEWEST or damage.nunique() < 2 or measured[DISTANCE].nunique() < 2:
        return ""
    return f": Spearman {float(spearmanr(measured[DISTANCE], damage).statistic):.2f}, {len(measured)} arms"


def _label_arms(axes: Axes, arms: pd.DataFrame) -> None:
    """Name the replacements; doses lie on their line, where size and order tell them apart."""
    shown = arms[np.isfinite(arms["difference_pp"])]
    named = shown[[dose_of(replacement) is None for replacement in shown["replacement"]]]
    pairs = zip(named["replacement"], named["oracle"], strict=True)
    place_labels(
        axes,
        [literal(replacement) for replacement in named["replacement"]],
        named[[DISTANCE, "difference_pp"]].to_numpy(dtype=np.float64),
        [content_of(replacement, oracle=oracle).colour for replacement, oracle in pairs],
        bars=shown[[DISTANCE, "low_pp", "high_pp"]].dropna().to_numpy(dtype=np.float64),
    )


def _key(placed: dict[str, pd.DataFrame]) -> list[Line2D | Patch]:
    arms = pd.concat(placed.values())
    drawn = zip(arms["replacement"], arms["oracle"], strict=True)
    present = {content_of(replacement, oracle=oracle) for replacement, oracle in drawn}
    handles: list[Line2D | Patch] = [
        Line2D([], [], ls="", marker=content.marker, color=content.colour, label=content.label)
        for content in Content
        if content in present
    ]
    handles += [
        Line2D([], [], ls=style, color=Content.OWN.colour, lw=1, label=literal(f"dose towards {other}"))
        for other, style in _line_styles(arms).items()
    ]
    if arms["replacement"].isin(_NATURAL).any():
        handles.append(Line2D([], [], ls=":", color=GREY, label="natural tokens (mean distance)"))
    return [*handles, Patch(color=GREY, alpha=0.22, lw=0, label="within 1 pp of no change")]


def _caption(unplaced: list[str]) -> str:
    text = (
        "Each point is one replacement; bars are confidence intervals. Distance: mean over images of the Mahalanobis "
        "distance of the injected tokens, dimensionless, on a logarithmic axis; the mean token is nearer to the centre "
        "than natural tokens are. Lines lead from small doses to the whole replacement; larger points are greater "
        "doses. Spearman: rank correlation of distance with the size of the change; the arms are no random sample, so "
        "it describes them alone. Hollow, and left out of it: tokens that the task reads were edited in the state "
        "where it reads them, so that the change says nothing about the network."
    )
    if unplaced:
        text += f" Not shown, having no distance: {', '.join(dict.fromkeys(unplaced))}."
    return text
