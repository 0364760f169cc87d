"""What dense tasks and patch features lose when [CLS] is replaced: models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.figures.selection import parts, select_part
from analyses.figures.style import (
    draw_intervals,
    entitle,
    literal,
    mark_equivalence,
    metric_name,
    replacement_styles,
    save,
    tidy,
    widen,
)
from analyses.summary import summarize
from cachetool.errors import MissingDataError

DENSE_TASKS = ("segmentation", "correspondence")
"""Tasks that read patches alone."""

COLUMNS = ("model", "measurement", "edit", "replacement", "from_layer", "value", "low", "high", "units", "n")

_CAPTION = (
    "Only [CLS] is edited, sustained from the earliest state of each edit; the tasks read patches alone, with heads "
    "fitted on intact features. Bars: confidence intervals. Grey band: within 1 pp. Patch features: mean over patches "
    "of 1 - cosine with their intact selves in the last state, 0 where they do not depend on [CLS]."
)


def dependence_on_cls(frames: Sequence[pd.DataFrame], similarities: Mapping[str, Sequence[xr.Dataset]]) -> pd.DataFrame:
    """Changes of dense tasks and of patch features where [CLS] alone was edited, from the earliest state on.

    Parameters
    ----------
    frames
        Tidy tables of `cachetool study` or `cachetool evaluate`.
    similarities
        By model, what `patch-similarity` found on caches of it.

    Returns
    -------
    One row per model, measurement and edit: `value` is a change in percentage points of a task's headline metric, or
    one less the mean cosine of final patches with their intact selves (0: [CLS] does not matter to them), with the ends
    `low` and `high` of its interval; `n` images or pairs. Of edits of one replacement those that begin earliest count,
    and among these the one that lasts longest; doses between intact and a replacement are left out. Without edits of
    [CLS] it is empty.
    """
    rows: list[dict[str, object]] = []
    for frame in frames:
        for model, dataset in parts(frame):
            part = select_part(frame, model, dataset)
            arms = part.arms[(part.arms["target"] == "cls") & part.arms["sustained"]]
            doses = arms["replacement"].str.startswith("interpolate:")
            arms = arms[arms["task"].str.split(":").str[0].isin(DENSE_TASKS) & ~doses]
            rows += [
                {
                    "model": model,
                    "measurement": f"{row.task}: {metric_name(str(row.metric))}",
                    "edit": row.edit,
                    "replacement": row.replacement,
                    "from_layer": row.from_layer,
                    "until_layer": row.until_layer,
                    "value": row.difference_pp,
                    "low": row.low_pp,
                    "high": row.high_pp,
                    "units": "percentage points",
                    "n": row.units,
                }
                for row in arms.itertuples()
            ]
    for model, found in similarities.items():
        rows += [row for one in found for row in _features(model, one)]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "until_layer"])
    table = table.sort_values(["from_layer", "until_layer"], ascending=[True, False], kind="stable")
    table = table.drop_duplicates(["model", "measurement", "replacement"]).sort_index()
    return table[list(COLUMNS)].reset_index(drop=True)


def cls_dependence(table: pd.DataFrame, path: Path, *, registers: Mapping[str, int] | None = None) -> None:
    """Draw what `dependence_on_cls` returned, and save it.

    Parameters
    ----------
    table
        Its rows.
    path
        File to write; its ending decides the format.
    registers
        Number of registers of each model, where known.

    Raises
    ------
    MissingDataError
        The table has no rows.
    """
    save(draw(table, registers or {}), path)


def draw(table: pd.DataFrame, registers: Mapping[str, int]) -> Figure:
    """The figure: a panel a measurement, models along x, a mark a replacement."""
    if table.empty:
        raise MissingDataError("no dense task or patch feature was measured under an edit of [CLS]; replay one")
    measurements = list(dict.fromkeys(table["measurement"]))
    models = sorted(dict.fromkeys(table["model"]), key=lambda model: registers.get(model, 0))
    replacements = list(dict.fromkeys(table["replacement"]))
    styles = replacement_styles(replacements)
    width = max(1.1 * len(models) + 1.6, 2.6)
    figure = Figure(figsize=(max(width * len(measurements), 6.5), 4.0), layout="constrained")
    panels = figure.subplots(1, len(measurements), squeeze=False)[0]
    # Replacements stand side by side within the place of a model.
    offsets = np.linspace(-0.3, 0.3, len(replacements)) if len(replacements) > 1 else np.zeros(1)
    for axes, measurement in zip(panels, measurements, strict=True):
        own = table[table["measurement"] == measurement]
        changes = bool((own["units"] == "percentage points").all())
        for replacement, offset in zip(replacements, offsets, strict=True):
            marks = own[own["replacement"] == replacement]
            places = np.array([models.index(model) for model in marks["model"]], dtype=np.float64) + offset
            colour, marker = styles[replacement]
            draw_intervals(axes, places, marks["low"], marks["high"], vertical=True, colour=colour)
            axes.plot(places, marks["value"], ls="", marker=marker, ms=5, color=colour)
        if changes:
            mark_equivalence(axes, vertical=False)
            widen(axes, vertical=True)
        else:
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_xticks(range(len(models)), [literal(_named(model, registers)) for model in models], fontsize=8)
        axes.set_xlim(-0.6, len(models) - 0.4)
        task, _, metric = measurement.partition(": ")
        axes.set_title(literal(task), fontsize=9)
        axes.set_ylabel(
            literal(f"change of {metric}\n(percentage points)") if changes else "1 - cosine with intact", fontsize=8
        )
        tidy(axes)
    key = [
        Line2D([], [], ls="", marker=marker, ms=5, color=colour, label=literal(f"[CLS] {name}"))
        for name, (colour, marker) in styles.items()
        if name in replacements
    ]
    entitle(figure, "Dependence of dense features and tasks on [CLS]", _CAPTION, key)
    return figure


def _named(model: str, registers: Mapping[str, int]) -> str:
    """A model with its number of registers, long names broken."""
    name = model.replace("timm:", "timm:\n").replace("_patch", "\n_patch")
    return name if model not in registers else f"{name}\n{registers[model] or 'no'} registers"


def _features(model: str, found: xr.Dataset) -> list[dict[str, object]]:
    """Mean distance of final patches from their intact selves under the edits of [CLS] of one cache."""
    doses = np.char.startswith(found.replacement.values.astype(str), "interpolate:")
    chosen = np.flatnonzero((found.target.values == "cls") & ~doses)
    if not len(chosen) or found.sizes.get("layer", 0) == 0:
        return []
    last = found[["cosine"]].isel(run=chosen).sel(layer=[int(found.layer.max())])
    replacements = dict(zip(last.edit.values.tolist(), last.replacement.values.tolist(), strict=True))
    found_rows = summarize(last)
    table = pd.DataFrame(
        {
            "model": model,
            "measurement": "patch features: 1 - cosine",
            "edit": found_rows["edit"],
            "replacement": found_rows["edit"].map(replacements),
            "from_layer": found_rows["from_layer"],
            # Where an edit ends is part of its label alone; patches do not see an edit of the last state.
            "until_layer": 0,
            "value": 1 - found_rows["value"],
            "low": 1 - found_rows["high"],
            "high": 1 - found_rows["low"],
            "units": "1",
            "n": found_rows["images"],
        }
    )
    return table.to_dict("records")  # type: ignore[return-value]
