from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from analyses.figures import heat_map
from analyses.figures.heat_map import draw
from analyses.figures.selection import select_part


def test_cells_are_the_rows(frame: pd.DataFrame) -> None:
    axes = draw(select_part(frame)).axes[0]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    shown = axes.images[0].get_array()
    texts = {(round(y), round(x)): text.get_text() for text in axes.texts for x, y in [text.get_position()]}
    rows = frame[(frame["head"] == "intact") & (frame["replacement"] != "none")]
    marks = set()
    for column, metric in enumerate(["top1", "miou"]):
        of_metric = rows[rows["metric"] == metric].sort_values("from_layer").drop_duplicates("edit").set_index("edit")
        assert sorted(of_metric.index) == sorted(name.removesuffix(" (oracle)") for name in names)
        for place, name in enumerate(names):
            row = of_metric.loc[name.removesuffix(" (oracle)")]
            assert row["oracle"] == name.endswith(" (oracle)")
            mark = " *" if row["by_construction"] else " =" if row["equivalent_1pp"] else ""
            marks.add(mark)
            assert texts[place, column] == f"{row['difference_pp']:+.1f}".replace("-", "\N{MINUS SIGN}") + mark
            if row["by_construction"]:
                assert np.ma.getmaskarray(shown)[place, column]
            else:
                assert shown[place, column] == row["difference_pp"]
    assert marks == {"", " =", " *"}
    assert len(texts) == 2 * len(names) == 82


def test_colours_are_symmetric_about_no_change(frame: pd.DataFrame) -> None:
    picture = draw(select_part(frame)).axes[0].images[0]
    assert picture.norm.vmin == -picture.norm.vmax
    # What is so by construction must not set the scale.
    free = frame[~frame["by_construction"] & (frame["head"] == "intact") & frame["metric"].isin(["top1", "miou"])]
    assert picture.norm.vmax == free["difference_pp"].abs().max() < frame["difference_pp"].abs().max()


def test_edits_that_begin_later_say_so_and_absent_cells_are_empty(frame: pd.DataFrame) -> None:
    late = (frame["edit"] == "registers mean") & (frame["from_layer"] == 9)
    only = frame[late | ((frame["edit"] == "[CLS] mean") & (frame["task"] == "segmentation"))]
    axes = draw(select_part(only)).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["registers mean, from 9", "[CLS] mean"]
    assert len(axes.texts) == 3
    tasks = [tick.get_text().split("\n")[0] for tick in axes.get_xticklabels()]
    empty = np.ma.getmaskarray(axes.images[0].get_array())
    assert empty.sum() == 1
    assert empty[1, tasks.index("classification")]


def test_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    heat_map(frame, tmp_path / "heat.pdf")
    assert (tmp_path / "heat.pdf").read_bytes().startswith(b"%PDF")
