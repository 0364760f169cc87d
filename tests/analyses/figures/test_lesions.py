from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analyses.figures import lesions
from analyses.figures.lesions import draw
from analyses.figures.selection import select_part
from cachetool.errors import MissingDataError
from tests.analyses.figures.artists import bars, points

ORDER = ["registers:0", "registers:1", "registers:2", "registers:3", "registers:0-1", "registers:0-2", "registers"]


def zeroed(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    rows = frame[(frame["metric"] == metric) & (frame["head"] == "intact") & (frame["replacement"] == "zero")]
    return rows[rows["from_layer"] == 1].set_index("target").loc[ORDER]


def test_points_bars_and_sums(frame: pd.DataFrame) -> None:
    axes = draw(select_part(frame)).axes
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == [
        "register 0",
        "register 1",
        "register 2",
        "register 3",
        "registers 0-1",
        "registers 0-2",
        "all registers",
    ]
    for panel, metric in zip(axes, ("top1", "miou"), strict=True):
        rows = zeroed(frame, metric)
        change, y = rows["difference_pp"].to_numpy(), np.arange(7)
        np.testing.assert_array_equal(points(panel, "o"), np.column_stack([change[:4], y[:4]]))
        np.testing.assert_array_equal(points(panel, "s"), np.column_stack([change[4:], y[4:]]))
        drawn = bars(panel)
        np.testing.assert_array_equal(drawn, np.column_stack([rows["low_pp"], y, rows["high_pp"], y]))
        sums = [change[:2].sum(), change[:3].sum(), change[:4].sum()]
        np.testing.assert_allclose(points(panel, "D"), np.column_stack([sums, y[4:]]), rtol=1e-12)


def test_no_sum_where_a_single_register_was_not_measured(frame: pd.DataFrame) -> None:
    sums = points(draw(select_part(frame[frame["target"] != "registers:2"])).axes[0], "D")
    change = zeroed(frame, "top1")["difference_pp"]
    assert sums[0, 0] == pytest.approx(change["registers:0"] + change["registers:1"])
    assert np.isnan(sums[1:, 0]).all()


def test_unknown_intervals_and_other_replacements(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[frame["target"] == "registers:1", ["low_pp", "high_pp"]] = float("nan")
    assert len(bars(draw(select_part(frame)).axes[0])) == 6
    with pytest.raises(MissingDataError, match="single registers replaced by noise"):
        lesions(frame, tmp_path / "lesions.svg", replacement="noise")
    lesions(frame, tmp_path / "lesions.svg")
    assert (tmp_path / "lesions.svg").stat().st_size > 10_000


def test_left_out_where_the_task_reads_the_registers(frame: pd.DataFrame) -> None:
    forced = (frame["task"] == "segmentation") & frame["target"].str.startswith("registers")
    classification, segmentation = draw(select_part(frame.assign(by_construction=forced))).axes
    assert len(points(classification)) == 10
    assert len(points(segmentation)) == 0
