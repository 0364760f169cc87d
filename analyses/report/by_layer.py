"""Charts of what analyses found, chosen by the dimensions of each variable, those of users' own analyses too."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from analyses.figures.of_analysis import SQUARE
from analyses.report.charts import Chart
from analyses.report.lines import dots, lines, spectra
from analyses.report.squares import maps, matrices
from analyses.summary import summarize

ALL_HEADS = "all heads"
"""Choice that stands for the mean over heads, the first of all."""


def charts_of(found: xr.Dataset, key: str) -> list[Chart]:
    """The charts of one analysis: matrices, maps and spectra by layer, and lines over layers.

    Parameters
    ----------
    found
        What `analyses.analyze.analyze` returned.
    key
        What the names of the charts begin with.
    """
    table = _with_edits(_summary(found))
    charts: list[Chart] = []
    for name in map(str, found.data_vars):
        values = found[name]
        if values.dtype.kind not in "biuf" or values.attrs.get("identifier"):
            continue
        title = str(values.attrs.get("long_name", name.replace("_", " ")))
        rows = table[table["variable"] == name] if len(table) else table
        charts += _of_variable(values, rows, f"{key}-{name.replace('_', '-')}", title[:1].upper() + title[1:])
    return charts


def _of_variable(values: xr.DataArray, rows: pd.DataFrame, key: str, title: str) -> Iterator[Chart]:
    square = [pair for pair in SQUARE if set(pair) <= set(values.dims)]
    if {"row", "col"} <= set(values.dims):
        # Maps of single images are the business of the galleries.
        if "image" not in values.dims:
            yield maps(values, key, title)
    elif rows.empty:
        return
    elif square:
        yield matrices(rows, square[0], key, title)
    elif "component" in values.dims:
        yield spectra(rows, key, title)
    elif "layer" in values.dims:
        # Most runs keep their last state alone: of these a line over layers would be a point.
        layered = rows[rows.groupby("edit")["layer"].transform("nunique") > 1] if "edit" in rows else rows
        if layered["layer"].nunique() > 1:
            yield lines(layered, key, title)
        if "edit" in rows:
            last = rows["layer"].max()
            yield dots(rows[rows["layer"] == last], f"{key}-last", f"{title}, layer {last:g}")


def _summary(found: xr.Dataset) -> pd.DataFrame:
    """Means with intervals; of what is known by head also the mean over heads, before all."""
    table = summarize(found)
    by_head = found[[name for name, values in found.data_vars.items() if "head" in values.dims]]
    if not by_head.data_vars or by_head.sizes["head"] < 2:
        return table
    averaged = summarize(by_head.mean("head", keep_attrs=True)).assign(head=ALL_HEADS)
    heads = table["head"].map(lambda head: head if pd.isna(head) else f"head {head:g}")
    return pd.concat([averaged, table.assign(head=heads)], ignore_index=True)


def _with_edits(table: pd.DataFrame) -> pd.DataFrame:
    """One column that names an edit and, where edits begin at several, its first state."""
    if "edit" not in table:
        return table
    several = table["from_layer"].nunique() > 1
    edits = np.array(
        [
            f"{edit}, from {first}" if several else str(edit)
            for edit, first in zip(table["edit"], table["from_layer"], strict=True)
        ],
        dtype=object,
    )
    return table.assign(edit=edits).drop(columns="from_layer")
