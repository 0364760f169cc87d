from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analyses.figures import refit
from analyses.figures.refit import draw
from analyses.figures.selection import select_part
from cachetool.errors import MissingDataError
from tests.analyses.figures.artists import bars

EDITS = ["registers zero", "registers mean", "registers noise", "registers shuffle", "[CLS] zero, to 11"]


def test_both_heads_are_the_rows(frame: pd.DataFrame) -> None:
    axes = draw(select_part(frame)).axes
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == [f"{edit}, from 1" for edit in EDITS]
    for panel, metric in zip(axes, ("top1", "miou"), strict=True):
        rows = frame[(frame["metric"] == metric) & (frame["from_layer"] == 1)].set_index(["head", "edit"])
        for head, side in (("intact", -1), ("refit", 1)):
            (line,) = [line for line in panel.get_lines() if line.get_label() == head]
            expected = rows.loc[[(head, edit) for edit in EDITS]]
            np.testing.assert_array_equal(line.get_xdata(), expected["difference_pp"])
            assert (np.sign(line.get_ydata() - np.arange(5)) == side).all()
            ends = bars(panel)[:5] if head == "intact" else bars(panel)[5:]
            np.testing.assert_array_equal(ends[:, [0, 2]], expected[["low_pp", "high_pp"]].to_numpy())


def test_unknown_intervals_get_no_bar_and_constructed_points_are_hollow(frame: pd.DataFrame) -> None:
    frame.loc[frame["head"] == "refit", ["low_pp", "high_pp"]] = float("nan")
    frame.loc[frame["edit"] == "registers mean", "by_construction"] = True
    for panel in draw(select_part(frame)).axes:
        assert len(bars(panel)) == 5
        hollow = [line for line in panel.get_lines() if line.get_markerfacecolor() == "white"]
        assert [len(line.get_xdata()) for line in hollow] == [1, 1]


def test_only_pairs_of_heads_are_shown(frame: pd.DataFrame, tmp_path: Path) -> None:
    refit(frame, tmp_path / "refit.png")
    assert (tmp_path / "refit.png").stat().st_size > 10_000
    with pytest.raises(MissingDataError, match="edits with refitted heads"):
        draw(select_part(frame[frame["head"] == "intact"]))
