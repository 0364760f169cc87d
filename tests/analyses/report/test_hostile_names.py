"""Names from data inside charts: what Plotly draws holds no tag from data, and no script can end early."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from analyses.report.charts import Chart
from analyses.report.effects import effects_of, read_table
from analyses.report.heat_map import heat_map
from analyses.report.lines import dots, lines
from analyses.report.squares import matrices
from tests.analyses.report.conftest import Reported

HOSTILE = ("<script>alert(1)</script>", '"><img onerror=alert(1) src=x>', "</script><b>", "<a href='javascript:1'>")
OWN_TAGS = re.compile(r"</?(b|br|extra)>")


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value


def check(chart: Chart) -> None:
    encoded = chart.to_json()
    assert "<" not in encoded
    for text in texts(json.loads(encoded)):
        assert "<" not in OWN_TAGS.sub("", text), text


@pytest.mark.parametrize("name", HOSTILE)
def test_charts_of_an_analysis(name: str) -> None:
    rows = pd.DataFrame(
        {
            "edit": [name, name, "b", "b"], "layer": [0, 1, 0, 1], "value": [1.0, 2.0, 3.0, 4.0], "low": [0.0] * 4,
            "high": [5.0] * 4, "images": [3] * 4, "units": [name] * 4, "variable": [name] * 4,
        }
    )  # fmt: skip
    check(lines(rows, "key", name))
    check(dots(rows[rows["layer"] == 1], "key", name))
    square = rows.assign(query_type=[name, name, "cls", "cls"], key_type=["cls", name] * 2).drop(columns="edit")
    check(matrices(square.assign(layer=0), ("query_type", "key_type"), "key", name))


@pytest.mark.parametrize("name", HOSTILE)
def test_the_chart_of_a_table(reported: Reported, name: str) -> None:
    frame = read_table(reported.table)
    edits = [one for one in frame["edit"].unique() if one != "intact"]
    frame = frame.replace({"edit": {one: f"{name}{number}" for number, one in enumerate(edits)}})
    frame["until_layer"] = frame["until_layer"].astype(object).where(frame["edit"] == "intact", name)
    frame["model"] = name
    for effects in effects_of(frame, reported.table):
        check(heat_map(effects, "key"))
