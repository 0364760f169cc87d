"""Charts are chosen by dimensions, and show the numbers of the summary for every choice and layer."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from analyses.report.by_layer import ALL_HEADS, charts_of
from analyses.report.charts import Chart
from analyses.summary import summarize

GENERATOR = np.random.default_rng(3)


def along_runs(found: xr.Dataset, edits: list[str]) -> xr.Dataset:
    return found.assign_coords(edit=("run", edits), from_layer=("run", [1] * len(edits)))


def only(charts: list[Chart]) -> Chart:
    (chart,) = charts
    return chart


def test_lines_by_token_with_their_bands() -> None:
    values = GENERATOR.normal(size=(6, 3, 2))
    found = xr.Dataset(
        {"correct": (("image", "layer", "token"), values, {"long_name": "accuracy"})},
        {"layer": [0, 6, 12], "token": ["cls", "register 0"]},
    )
    chart = only(charts_of(found, "a"))
    assert (chart.key, chart.title, chart.layers, chart.marks_layer) == ("a-correct", "Accuracy", (0, 6, 12), True)
    traces = chart.views[()].traces
    lines = [trace for trace in traces if trace["mode"] == "lines+markers"]
    assert [trace["name"] for trace in lines] == ["[CLS]", "register 0"]
    np.testing.assert_allclose(lines[1]["y"], values.mean(axis=0)[:, 1])
    table = summarize(found)
    bands = [trace for trace in traces if trace["fill"] == "toself"]
    np.testing.assert_allclose(bands[0]["y"][:3], table[table["token"] == "cls"]["low"])
    assert "n = 6" in lines[0]["customdata"][0]


def test_matrices_by_layer_with_the_mean_over_heads_first() -> None:
    values = GENERATOR.uniform(size=(5, 2, 3, 2, 2))
    types = ["cls", "patches"]
    found = xr.Dataset(
        {"attention": (("image", "layer", "head", "query_type", "key_type"), values)},
        {"layer": [3, 9], "head": range(3), "query_type": types, "key_type": types},
    )
    chart = only(charts_of(found, "a"))
    assert chart.layers == (3, 9)
    assert not chart.marks_layer
    assert [(control.label, control.options) for control in chart.controls] == [
        ("head", (ALL_HEADS, "head 0", "head 1", "head 2"))
    ]
    for head, layer in ((0, 1), (2, 0)):
        trace = chart.views[head, layer].traces[0]
        expected = values[:, layer].mean(axis=(0, 1)) if head == 0 else values[:, layer, head - 1].mean(axis=0)
        np.testing.assert_allclose(np.array(trace["z"], dtype=float), expected)
        assert list(trace["x"]) == ["[CLS]", "patches"]


def test_runs_with_one_state_are_dots_and_those_with_several_are_lines() -> None:
    values = GENERATOR.normal(size=(3, 4, 2))
    values[1, :, 0] = np.nan
    found = along_runs(
        xr.Dataset({"cosine": (("run", "image", "layer"), values)}, {"layer": [6, 12]}), ["zero", "mean", "shuffle"]
    )
    lines, dots = charts_of(found, "a")
    assert [trace["name"] for trace in lines.views[()].traces if trace["name"]] == ["zero", "shuffle"]
    (points,) = dots.views[()].traces
    assert list(points["y"]) == ["zero", "mean", "shuffle"]
    np.testing.assert_allclose(points["x"], values[:, :, 1].mean(axis=1))
    assert dots.title.endswith("layer 12")


def test_spectra_are_shares_of_the_variance_by_layer() -> None:
    found = xr.Dataset({"eigenvalue": (("layer", "component"), np.array([[3.0, 1.0], [8.0, 0.0]]))}, {"layer": [0, 12]})
    chart = only(charts_of(found, "a"))
    assert list(chart.views[0,].traces[0]["y"]) == [0.75, 0.25]
    last = chart.views[1,].traces[0]["y"]
    assert last[0] == 1
    assert np.isnan(last[1])  # nothing to show on a logarithmic axis


def test_maps_over_the_image_are_means_of_what_is_no_place() -> None:
    values = GENERATOR.normal(size=(2, 2, 3, 2))
    values[1, 0] = np.nan
    found = along_runs(
        xr.Dataset({"cosine_map": (("run", "layer", "row", "col"), values)}, {"layer": [6, 12]}), ["zero", "mean"]
    )
    chart = only(charts_of(found, "a"))
    np.testing.assert_allclose(np.array(chart.views[1, 1].traces[0]["z"], dtype=float), values[1, 1], atol=1e-6)
    assert (1, 0) not in chart.views
    assert [control.options for control in chart.controls] == [("zero, from 1", "mean, from 1")]


@pytest.mark.parametrize(
    "found",
    [
        xr.Dataset({"place": (("image", "layer"), np.ones((2, 2)), {"identifier": "image"})}, {"layer": [1, 2]}),
        xr.Dataset({"name": ("layer", np.array(["a", "b"], dtype=object))}, {"layer": [1, 2]}),
        xr.Dataset({"of_images": (("image", "row", "col"), np.ones((2, 2, 2)))}),
        xr.Dataset({"alone": ("image", np.ones(3))}),
        xr.Dataset({"unknown": (("image", "layer"), np.full((2, 2), np.nan))}, {"layer": [1, 2]}),
    ],
)
def test_what_no_chart_can_show_is_left_out(found: xr.Dataset) -> None:
    assert charts_of(found, "a") == []


def test_colours_do_not_show_rounding() -> None:
    values = 1 + 1e-9 * GENERATOR.normal(size=(1, 2, 2))
    found = xr.Dataset({"cosine": (("layer", "register", "other_register"), values)}, {"layer": [1]})
    trace = only(charts_of(found, "a")).views[0,].traces[0]
    assert trace["zmax"] - trace["zmin"] >= 9e-4


def test_json_holds_every_view_and_cannot_end_the_script_that_holds_it() -> None:
    found = xr.Dataset(
        {"value": (("image", "layer", "token"), np.ones((2, 2, 1)), {"long_name": "</script><b>&"})},
        {"layer": [1, 2], "token": ["</script><img src=x onerror=alert(1)>"]},
    )
    text = only(charts_of(found, "a")).to_json()
    assert "<" not in text
    document = json.loads(text)
    assert list(document["views"]) == [""]
    assert document["layers"] == [1, 2]
