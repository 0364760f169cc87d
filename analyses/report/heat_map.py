"""Task by ablation: changes or values of every edit at a glance, with interval and number behind each cell."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from plotly import graph_objects as go

from analyses.figures.style import BLUE, VERMILION
from analyses.report.charts import Chart, Control, View, between, number, shown, signed
from analyses.report.effects import Effects

_CAPTION = (
    "Headline metric of every task; heads fitted on intact features; change against the unedited replay from the same "
    "state. = the whole interval lies within 1 pp. * tokens that the task reads were edited in the very state where it "
    "reads them, so that the change says nothing about the network (not coloured). Oracle: the label is injected. "
    "All numbers stand in the listing below."
)
_EACH = "earliest of each edit"


def heat_map(effects: Effects, key: str) -> Chart:
    """The heat map of one model, with a choice of change or value, and of the first edited state."""
    states: list[int | None] = [None, *(effects.states if len(effects.states) > 1 else [])]
    measures = ("change", "value")
    views: dict[tuple[int, ...], View] = {}
    most = 0
    for column, state in enumerate(states):
        rows = effects.rows(state)
        names = list(dict.fromkeys(rows["name"]))
        most = max(most, len(names))
        for index, measure in enumerate(measures):
            views[index, column] = _view(effects, rows, names, measure)
    controls = (
        Control("show", ("change (pp)", "value (%)")),
        Control("first edited state", (_EACH, *(f"state {state}" for state in states if state is not None))),
    )
    # Room for the longest name at 11 px, within what a phone can scroll.
    margin = min(30 + 6.2 * max(len(str(name)) for name in effects.rows()["name"]), 330)
    layout: dict[str, Any] = {
        "margin": {"l": margin, "r": 10, "t": 60, "b": 10},
        "xaxis": {"side": "top", "fixedrange": True, "tickfont": {"size": 11}, "showgrid": False},
        "yaxis": {"autorange": "reversed", "fixedrange": True, "tickfont": {"size": 11}, "showgrid": False},
    }
    return Chart(
        key=key,
        title=f"{effects.model}: tasks by ablation",
        caption=_CAPTION,
        views=views,
        layout=layout,
        controls=controls,
        height=90 + 22 * (most + 1),
        least_width=int(margin) + 105 * len(effects.columns) + 60,
        least_width_of_phone=int(0.8 * margin) + 48 * len(effects.columns),
    )


def listing(effects: Effects) -> list[dict[str, str]]:
    """Every number behind the heat map, one row per edit, first state and measurement, as text."""
    refit = {_arm(row): row for row in effects.refit.itertuples()}
    found = []
    for row in effects.arms.itertuples():
        again = refit.get(_arm(row))
        found.append(
            {
                "edit": str(row.name),
                "states": f"{row.from_layer} to {row.until_layer}",
                "measurement": str(row.column),
                "value": _percent(row.value),
                "change": signed(_float(row.difference_pp)),
                "interval": between(_float(row.low_pp), _float(row.high_pp)),
                "n": f"{_float(row.units):,.0f}",
                "p": number(_float(row.p_holm)),
                "within": "yes" if row.equivalent_1pp else "not shown",
                "refit": "" if again is None else signed(_float(again.difference_pp)),
                "distance": number(_float(getattr(row, "off_distribution", math.nan))),
                "by_construction": "yes" if row.by_construction else "",
            }
        )
    return found


def _view(effects: Effects, rows: pd.DataFrame, names: list[str], measure: str) -> View:
    columns = effects.columns
    cells = {(str(row.name), str(row.column)): row for row in rows.itertuples()}
    refit = {_arm(row): row for row in effects.refit.itertuples()}
    intact = {str(row.column): row for row in effects.intact.itertuples()}
    values: list[list[float | None]] = []
    texts: list[list[str]] = []
    hovers: list[list[str]] = []
    for name in ("intact", *names):
        of_row = intact if name == "intact" else {column: cells.get((name, column)) for column in columns}
        drawn = [_cell(of_row.get(column), measure) for column in columns]
        values.append([value for value, _ in drawn])
        texts.append([text for _, text in drawn])
        hovers.append([_hover(of_row.get(column), refit) for column in columns])
    if measure == "change":
        known = [abs(value) for line in values for value in line if value is not None]
        largest = max(max(known, default=0.0), 1.0)
        colours: dict[str, Any] = {
            "colorscale": [[0, VERMILION], [0.5, "#ffffff"], [1, BLUE]],
            "zmin": -largest,
            "zmax": largest,
            "colorbar": {"title": {"text": "pp"}, "thickness": 12},
        }
    else:
        colours = {
            "colorscale": "Cividis",
            "zmin": 0,
            "zmax": 100,
            "colorbar": {"title": {"text": "%"}, "thickness": 12},
        }
    trace = go.Heatmap(
        z=values,
        x=[shown(column.replace(": ", "\n")).replace("\n", "<br>") for column in columns],
        y=[shown(name) for name in ("intact", *names)],
        text=texts,
        texttemplate="%{text}",
        customdata=hovers,
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=True,
        xgap=1,
        ygap=1,
        **colours,
    )
    return View([trace])


def _cell(row: Any, measure: str) -> tuple[float | None, str]:
    """Colour and text of a cell; cells by construction have a text alone."""
    if row is None:
        return None, ""
    intact = row.edit == "intact"
    if measure == "value":
        return 100 * row.value, f"{100 * row.value:.1f}"
    if intact:
        return 0.0, "0"
    change = float(row.difference_pp)
    if row.by_construction:
        return None, f"{signed(change)} *"
    return change, signed(change) + (" =" if row.equivalent_1pp else "")


def _hover(row: Any, refit: dict[tuple[str, int, str], Any]) -> str:
    if row is None:
        return "not measured"
    lines = [f"<b>{shown(row.edit)}</b>", shown(row.column)]
    lines.append(
        f"value {_percent(row.value)} [{_percent(row.value_low)}, {_percent(row.value_high)}], n = {row.units:,.0f}"
    )
    if row.edit != "intact":
        lines.append(
            f"change {signed(row.difference_pp)} pp {between(row.low_pp, row.high_pp)}, states "
            f"{shown(row.from_layer)} to {shown(row.until_layer)}"
        )
        lines.append(f"p (Holm) {number(row.p_holm)}; within 1 pp: {'yes' if row.equivalent_1pp else 'not shown'}")
        again = refit.get(_arm(row))
        if again is not None:
            lines.append(
                f"head refitted under the edit: {signed(again.difference_pp)} pp {between(again.low_pp, again.high_pp)}"
            )
        rank = _float(getattr(row, "off_distribution", math.nan))
        if math.isfinite(rank):
            lines.append(f"distance rank of the injected tokens {rank:.0f} (50 = typical)")
        if row.by_construction:
            lines.append("by construction: no block could react")
    lines.append(f"certificate {number(_float(row.certificate))}")
    return "<br>".join(lines)


def _arm(row: Any) -> tuple[str, int, str]:
    return str(row.edit), int(row.from_layer), str(row.column)


def _percent(value: object) -> str:
    return f"{100 * _float(value):.1f} %" if math.isfinite(_float(value)) else "\u2013"


def _float(value: object) -> float:
    return float(value)  # type: ignore[arg-type]
