"""Matrices of what lies between tokens or layers, and maps over the image."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from plotly import graph_objects as go

from analyses.report.charts import Chart, Control, View, number, shown
from analyses.report.choices import about_intervals, choices_of, labels_of, layers_of, plain, quoted_row

MOST_TEXTS = 8
"""Columns beyond which the numbers in cells would overlap."""

LEAST_SPAN = 1e-3
"""Span of the colours, as a share of the largest value, where values are nearer together."""


def matrices(rows: pd.DataFrame, pair: tuple[str, str], key: str, title: str) -> Chart:
    """A square of cells, by layer where layers are not its sides."""
    layers = () if "layer" in pair else layers_of(rows)
    controls, choices = choices_of(rows, labels_of(rows, ("layer", *pair)))
    sides = [list(rows[side].unique()) for side in pair]
    scale = _scale(rows["value"].to_numpy(dtype=np.float64))
    views = {}
    for place, chosen in choices:
        for index, layer in enumerate(layers or (None,)):
            own = chosen if layer is None else chosen[chosen["layer"] == layer]
            views[(*place, index) if layers else place] = View([_matrix(own, pair, sides, scale)])
    down, across = (side.replace("_", " ") for side in pair)
    reading = "Rows ask, columns are attended to; rows sum to 1. " if pair == ("query_type", "key_type") else ""
    axis = {"type": "category", "showgrid": False}
    return Chart(
        key=key,
        title=title,
        caption=f"{reading}{about_intervals(rows)}" + (" One scale for all layers." if layers else ""),
        views=views,
        layout={
            "xaxis": {"title": {"text": shown(across)}, **axis},
            "yaxis": {"title": {"text": shown(down)}, "autorange": "reversed", **axis},
            "margin": {"l": 80, "r": 10, "t": 20, "b": 50},
        },
        controls=controls,
        layers=layers,
        height=350 if len(sides[1]) <= MOST_TEXTS else 420,
    )


def _matrix(
    rows: pd.DataFrame, pair: tuple[str, str], sides: list[list[object]], scale: tuple[float, float]
) -> go.Heatmap:
    first, second = pair
    cells = {(getattr(row, first), getattr(row, second)): row for row in rows.itertuples()}
    found = [[cells.get((down, across)) for across in sides[1]] for down in sides[0]]
    values = [[None if cell is None else float(cell.value) for cell in line] for line in found]  # type: ignore[arg-type]
    return go.Heatmap(
        z=values,
        x=[shown(plain(value)) for value in sides[1]],
        y=[shown(plain(value)) for value in sides[0]],
        text=[["" if value is None else number(value) for value in line] for line in values],
        texttemplate="%{text}" if len(sides[1]) <= MOST_TEXTS else None,
        customdata=[["not known" if cell is None else quoted_row(cell) for cell in line] for line in found],
        hovertemplate=f"{shown(first.replace('_', ' '))} %{{y}}, {shown(second.replace('_', ' '))} %{{x}}<br>"
        "%{customdata}<extra></extra>",
        colorscale="Viridis",
        zmin=scale[0],
        zmax=scale[1],
        colorbar={"thickness": 12},
        xgap=1,
        ygap=1,
    )


def maps(values: xr.DataArray, key: str, title: str) -> Chart:
    """A quantity over the image, mean over images and all else, by layer and edit."""
    edits = []
    if "run" in values.dims:
        edits = [f"{edit}, from {at}" for edit, at in zip(values.edit.values, values.from_layer.values, strict=True)]
    rest = [name for name in values.dims if name not in ("run", "layer", "row", "col")]
    averaged = values.mean(rest) if rest else values
    scale = _scale(np.asarray(averaged.values, dtype=np.float64))
    layers = tuple(int(layer) for layer in values.layer.values) if "layer" in values.dims else ()
    views: dict[tuple[int, ...], View] = {}
    for place, index in itertools.product(range(len(edits) or 1), range(len(layers) or 1)):
        one = averaged.isel(run=place) if edits else averaged
        one = one.isel(layer=index) if layers else one
        cells = np.asarray(one.transpose("row", "col").values, dtype=np.float64)
        # A run that did not keep this state has nothing to show there.
        if np.isfinite(cells).any():
            views[(*((place,) if edits else ()), *((index,) if layers else ()))] = View([_map(cells, scale)])
    return Chart(
        key=key,
        title=f"{title}, over the image",
        caption="Mean over images at each place of the image. One scale for all layers and edits.",
        views=views,
        layout={
            "xaxis": {"visible": False, "constrain": "domain"},
            "yaxis": {"visible": False, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"},
            "margin": {"l": 10, "r": 10, "t": 20, "b": 10},
        },
        controls=(Control("edit", tuple(edits)),) if edits else (),
        layers=layers,
        height=340,
    )


def _scale(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the colours: those of the values, but not so near to each other that rounding would be coloured."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return min(low, high - LEAST_SPAN * max(abs(low), abs(high))), high


def _map(values: npt.NDArray[np.float64], scale: tuple[float, float]) -> go.Heatmap:
    cells = [[None if math.isnan(cell) else cell for cell in line] for line in values.round(6).tolist()]
    return go.Heatmap(
        z=cells,
        colorscale="Viridis",
        zmin=scale[0],
        zmax=scale[1],
        colorbar={"thickness": 12, "exponentformat": "power"},
        hovertemplate="row %{y}, column %{x}: %{z:.4g}<extra></extra>",
    )
