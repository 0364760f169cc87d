"""One tidy table over all models and data sets of a study: CSV, netCDF, and a summary for people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from analyses.evaluation.arms import edit_label
from analyses.evaluation.rows import as_dataset, as_frame, json_values
from analyses.study.published import published_note, published_of
from analyses.study.run import MeasuredPart, StudyResult
from analyses.table_files import write_both
from analyses.tasks import parse_task

if TYPE_CHECKING:
    from rich.table import Table

OWN_COLUMNS = ("study", "groups", "published", "published_drop_pp", "delta_pp", "published_source")
"""Columns that a study adds to those of `analyses.evaluation.rows.Row`."""


def study_table(result: StudyResult) -> pd.DataFrame:
    """The rows of all parts: the columns of `Row`, and behind them `OWN_COLUMNS`.

    `groups` names the edit groups of a row, joined by `; `. `published` is the paper's value (a fraction),
    `published_drop_pp` its loss against the paper's intact value, and `delta_pp` our change less the paper's, in
    percentage points: 0 where a model loses here what it loses there. They are NaN where the paper has no number.
    """
    rows = [row for measured in result.parts for row in measured.rows]
    own = pd.concat([_own_columns(result.study.name, measured) for measured in result.parts], ignore_index=True)
    return pd.concat([as_frame(rows), own], axis=1)


def study_rows(result: StudyResult) -> list[dict[str, Any]]:
    """The same table as JSON values; numbers that are not finite are null."""
    return [json_values(row) for row in study_table(result).to_dict("records")]


def study_dataset(result: StudyResult) -> xr.Dataset:
    """The same table as variables along `row`, with notes as attributes."""
    rows = [row for measured in result.parts for row in measured.rows]
    table, dataset = study_table(result), as_dataset(rows)
    for name in OWN_COLUMNS:
        units = {"units": "percentage points"} if name.endswith("_pp") else None
        dataset[name] = xr.Variable("row", table[name].to_numpy(), units)
    return dataset.assign_attrs(study=result.study.name, notes="\n".join(result.notes), published=published_note())


def write_study(result: StudyResult, directory: Path) -> dict[str, Path]:
    """Write `table.csv` and `table.nc` into a directory. Returns their paths by ending."""
    table, labelled = write_both(study_table(result), study_dataset(result), directory / "table")
    return {"csv": table, "nc": labelled}


def summary(result: StudyResult) -> list[Table]:
    """The headline metric of every task with heads fitted on intact features, one table a part."""
    return [_summary_of(measured) for measured in result.parts]


def _own_columns(study: str, measured: MeasuredPart) -> pd.DataFrame:
    groups: dict[tuple[str, int], dict[str, None]] = {}
    for planned in measured.part.edits:
        # One row stands for all seeds of an edit, and groups may ask for different numbers of seeds.
        label = edit_label(planned.edit), planned.edit.from_layer
        groups.setdefault(label, {}).update(dict.fromkeys(planned.groups))
    headlines = {name: parse_task(name).metrics[0].name for name in measured.part.tasks}
    columns: dict[str, list[object]] = {name: [] for name in OWN_COLUMNS}
    for row in measured.rows:
        # The paper names models, not caches.
        named = replace(row, model=measured.part.model.name)
        published = published_of(named, headlines[row.task], measured.part.depth)
        columns["study"].append(study)
        columns["groups"].append("; ".join(groups.get((row.edit, row.from_layer), {})))
        columns["published"].append(published.value)
        columns["published_drop_pp"].append(published.drop_pp)
        columns["delta_pp"].append(row.difference_pp + published.drop_pp)
        columns["published_source"].append(published.source)
    numbers = ("published", "published_drop_pp", "delta_pp")
    return pd.DataFrame(columns).astype(dict.fromkeys(numbers, np.float64))


def _summary_of(measured: MeasuredPart) -> Table:
    from rich.table import Table

    tasks = [(name, parse_task(name).metrics[0]) for name in measured.part.tasks]
    chosen = {
        (row.edit, row.from_layer, row.task): row
        for row in measured.rows
        if row.head == "intact" and (row.task, row.metric) in [(name, metric.name) for name, metric in tasks]
    }
    table = Table(
        "edit",
        "from",
        *(f"{name}, {metric.name}" for name, metric in tasks),
        "distance rank",
        title=measured.part.name,
        caption="change in percentage points and its interval; = within 1 pp; * by construction; o oracle; distance "
        "rank: of the injected tokens among natural ones, 50 = typical",
    )
    for edit, start in dict.fromkeys((edit, start) for edit, start, _ in chosen):
        rows = [chosen.get((edit, start, name)) for name, _ in tasks]
        known = next(row for row in rows if row is not None)
        rank = "" if np.isnan(known.off_distribution) else f"{known.off_distribution:.0f}"
        cells = []
        for row in rows:
            if row is None:
                cells.append("")
            elif row.replacement == "none":
                cells.append(f"{100 * row.value:.1f} %")
            else:
                marks = "=" * row.equivalent_1pp + "*" * row.by_construction
                interval = "no interval" if np.isnan(row.low_pp) else f"{row.low_pp:+.1f} to {row.high_pp:+.1f}"
                cells.append(f"{row.difference_pp:+.1f} ({interval}) {marks}".rstrip())
        table.add_row(edit + " o" * known.oracle, str(start), *cells, rank)
    return table
