"""Lines over layers, dots by edit, and spectra."""

from __future__ import annotations

from typing import Any

import pandas as pd
from plotly import graph_objects as go

from analyses.report.charts import DASHES, LINE_COLOURS, Chart, View, shown
from analyses.report.choices import about_intervals, choices_of, labels_of, layers_of, named, quoted_row

MOST_LINES = 12
"""More lines than these are told apart by a list to choose from, not by colour."""

SMALLEST_SHARE = 1e-6
"""Share of the variance below which an eigenvalue is rounding."""


def lines(rows: pd.DataFrame, key: str, title: str) -> Chart:
    """A line for each value of one label, with its band; other labels are chosen among."""
    labels = labels_of(rows, ("layer",))
    # Heads are chosen among, so that their mean is seen first; edits are what readers compare.
    fitting = [label for label in labels if rows[label].nunique() <= MOST_LINES and label != "head"]
    line = "edit" if "edit" in fitting else max(fitting, key=lambda label: rows[label].nunique(), default=None)
    controls, choices = choices_of(rows, [label for label in labels if label != line])
    layers = layers_of(rows)
    views = {}
    for place, chosen in choices:
        traces: list[Any] = []
        if line is None:
            traces += _line(chosen, "", 0)
        else:
            for index, (value, own) in enumerate(chosen.groupby(line, sort=False)):
                traces += _line(own, named(line, value), index)
        views[place] = View(traces, {"showlegend": line is not None})
    units = str(rows["units"].iloc[0])
    return Chart(
        key=key,
        title=title,
        caption=about_intervals(rows),
        views=views,
        layout={
            "xaxis": {"title": {"text": "layer"}, "dtick": 1 if len(layers) <= 14 else None},
            "yaxis": {"title": {"text": "" if units in ("", "1") else shown(units)}, "exponentformat": "power"},
            "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
            "margin": {"l": 60, "r": 10, "t": 20, "b": 40},
            "hovermode": "closest",
        },
        controls=controls,
        layers=layers,
        marks_layer=True,
        height=380,
    )


def _line(rows: pd.DataFrame, name: str, index: int) -> list[Any]:
    rows = rows.sort_values("layer")
    colour = LINE_COLOURS[index % len(LINE_COLOURS)]
    dash = DASHES[index // len(LINE_COLOURS) % len(DASHES)]
    layers, traces = rows["layer"].tolist(), []
    if rows["low"].notna().all():
        traces.append(
            go.Scatter(
                x=layers + layers[::-1],
                y=rows["low"].tolist() + rows["high"].tolist()[::-1],
                mode="lines",
                fill="toself",
                fillcolor=_faint(colour),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=shown(name),
            )
        )
    before = f"<b>{shown(name)}</b><br>" if name else ""
    traces.append(
        go.Scatter(
            x=layers,
            y=rows["value"].tolist(),
            mode="lines+markers",
            name=shown(name),
            legendgroup=shown(name),
            line={"color": colour, "dash": dash, "width": 2},
            marker={"size": 6, "color": colour},
            customdata=[f"{before}layer {row.layer}: {quoted_row(row)}" for row in rows.itertuples()],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    return traces


def dots(rows: pd.DataFrame, key: str, title: str) -> Chart:
    """A dot with its interval for each edit, one below the other; other labels are chosen among."""
    controls, choices = choices_of(rows, labels_of(rows, ("layer", "edit")))
    edits = list(rows["edit"].unique())
    views = {}
    for place, chosen in choices:
        ends = chosen["low"].notna().all()
        trace = go.Scatter(
            x=chosen["value"].tolist(),
            y=[shown(edit) for edit in chosen["edit"]],
            mode="markers",
            marker={"size": 7, "color": LINE_COLOURS[1]},
            error_x={
                "type": "data",
                "symmetric": False,
                # Bars cannot point inwards, as a percentile interval that misses its estimate would have them.
                "array": (chosen["high"] - chosen["value"]).clip(lower=0).tolist(),
                "arrayminus": (chosen["value"] - chosen["low"]).clip(lower=0).tolist(),
                "color": LINE_COLOURS[1],
            }
            if ends
            else None,
            customdata=[f"<b>{shown(row.edit)}</b><br>{quoted_row(row)}" for row in chosen.itertuples()],
            hovertemplate="%{customdata}<extra></extra>",
        )
        views[place] = View([trace])
    longest = max(len(str(edit)) for edit in edits)
    return Chart(
        key=key,
        title=title,
        caption=about_intervals(rows),
        views=views,
        layout={
            "xaxis": {"exponentformat": "power", "nticks": 5},
            "yaxis": {"autorange": "reversed", "type": "category", "tickfont": {"size": 11}, "dtick": 1},
            "margin": {"l": min(20 + 6.2 * longest, 300), "r": 15, "t": 20, "b": 40},
            "showlegend": False,
        },
        controls=controls,
        height=90 + 18 * len(edits),
    )


def spectra(rows: pd.DataFrame, key: str, title: str) -> Chart:
    """Eigenvalues in descending order as shares of their sum, by layer."""
    layers = layers_of(rows)
    controls, choices = choices_of(rows, labels_of(rows, ("layer", "component")))
    views = {}
    for place, chosen in choices:
        for index, layer in enumerate(layers or (None,)):
            own = (chosen if layer is None else chosen[chosen["layer"] == layer]).sort_values("component")
            shares = own["value"] / own["value"].sum()
            views[(*place, index) if layers else place] = View(
                [
                    go.Scatter(
                        x=(own["component"] + 1).tolist(),
                        y=shares.where(shares > SMALLEST_SHARE).tolist(),
                        mode="lines",
                        line={"color": LINE_COLOURS[1], "width": 2},
                        hovertemplate="component %{x}: %{y:.3%} of the variance<extra></extra>",
                    )
                ]
            )
    return Chart(
        key=key,
        title=title,
        caption="Share of the variance of each principal component, in descending order; logarithmic.",
        views=views,
        layout={
            "xaxis": {"title": {"text": "component"}},
            "yaxis": {"type": "log", "title": {"text": "share of variance"}, "exponentformat": "power", "dtick": 1},
            "margin": {"l": 70, "r": 10, "t": 20, "b": 50},
            "showlegend": False,
        },
        controls=controls,
        layers=layers,
        height=340,
    )


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
