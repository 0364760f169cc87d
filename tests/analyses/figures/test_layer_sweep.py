from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.figures import layer_sweep
from analyses.figures.layer_sweep import draw
from analyses.figures.selection import select_part
from tests.analyses.figures.artists import markers, points


def panels(frame: pd.DataFrame) -> dict[str, Axes]:
    return {axes.get_title(): axes for axes in draw(select_part(frame)).axes}


def test_lines_and_bands_are_the_rows(frame: pd.DataFrame) -> None:
    found = panels(frame)
    assert set(found) == {
        f"{subject}\n{task}" for subject in ("registers", "[CLS], to 11") for task in ("classification", "segmentation")
    }
    headline = frame[frame["metric"].isin(["top1", "miou"]) & (frame["head"] == "intact")]
    edits = {"registers": ["registers zero", "registers mean", "registers shuffle"], "[CLS]": ["[CLS] zero, to 11"]}
    for title, axes in found.items():
        names = edits[title.partition("\n")[0].partition(",")[0]]
        curves = [line for line in axes.get_lines() if line.get_label() in names]
        assert [line.get_label() for line in curves] == names
        for line, band in zip(curves, axes.collections, strict=True):
            rows = headline[(headline["edit"] == line.get_label()) & (headline["task"] == title.partition("\n")[2])]
            rows = rows.sort_values("from_layer")
            assert list(rows["from_layer"]) == [1, 3, 6, 9, 11]
            np.testing.assert_array_equal(line.get_xydata(), rows[["from_layer", "difference_pp"]].to_numpy())
            corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
            assert corners >= set(rows[["from_layer", "low_pp"]].itertuples(index=False, name=None))
            assert corners >= set(rows[["from_layer", "high_pp"]].itertuples(index=False, name=None))
        assert list(axes.get_xticks()) == [1, 3, 6, 9, 11]


def test_by_construction_is_hollow_and_oracles_are_named(frame: pd.DataFrame) -> None:
    swept = frame[frame["edit"] == "registers mean"].copy()
    last = swept["from_layer"] == 11
    swept.loc[last, "by_construction"] = True
    swept["oracle"] = True
    figure = draw(select_part(swept))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["mean (oracle)"]
    for axes in figure.axes:
        hollow = [line for line in markers(axes) if line.get_markerfacecolor() == "white"]
        assert [list(line.get_xdata()) for line in hollow] == [[11]]


def test_an_unknown_interval_leaves_a_gap(frame: pd.DataFrame) -> None:
    frame.loc[(frame["edit"] == "registers zero") & (frame["from_layer"] == 6), ["low_pp", "high_pp"]] = float("nan")
    axes = panels(frame)["registers\nclassification"]
    assert len(axes.collections[0].get_paths()) == 2
    assert len(axes.collections[1].get_paths()) == 1
    assert len(points(axes)) == 15


def test_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    layer_sweep(frame, tmp_path / "sweep.svg")
    assert (tmp_path / "sweep.svg").read_text().startswith("<?xml")
