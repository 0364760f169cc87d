from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import rankdata

from analyses.figures import dose_and_plausibility
from analyses.figures.dose_and_plausibility import draw
from analyses.figures.selection import select_part
from analyses.figures.style import BLACK, BLUE, GREEN, VERMILION
from cachetool.errors import MissingDataError
from tests.analyses.figures.artists import bars, markers, points, same_points

pytestmark = pytest.mark.slow

DISTANCE = "off_distribution_mahalanobis"


@pytest.fixture(scope="module")
def figure(whole: pd.DataFrame) -> Figure:
    return draw(select_part(whole[whole["task"].isin(["classification", "segmentation"])]))


def panel(figure: Figure, start: str, task: str) -> Axes:
    (found,) = [
        axes
        for axes in figure.axes
        if axes.get_title().startswith(start) and axes.get_title().split("\n")[1].startswith(task)
    ]
    return found


def expected(whole: pd.DataFrame, target: str, until: int, task: str, metric: str) -> pd.DataFrame:
    rows = whole[(whole["target"] == target) & (whole["from_layer"] == 1) & (whole["until_layer"] == until)]
    rows = rows[(rows["task"] == task) & (rows["metric"] == metric) & (rows["head"] == "intact")]
    return rows[np.isfinite(rows[DISTANCE])]


@pytest.mark.parametrize(
    ("start", "target", "until", "arms"),
    [
        ("registers, states 1 to 12", "registers", 12, 14),
        ("[CLS], states 1 to 11", "cls", 11, 14),
        ("outlier patches, states 1 to 12", "patches:outliers", 12, 2),
    ],
)
@pytest.mark.parametrize(("task", "metric"), [("classification", "top1"), ("segmentation", "miou")])
def test_points_and_bars_are_the_rows(
    figure: Figure, whole: pd.DataFrame, start: str, target: str, until: int, arms: int, task: str, metric: str
) -> None:
    rows = expected(whole, target, until, task, metric)
    axes = panel(figure, start, task)
    assert len(rows) == arms
    same_points(points(axes), rows[[DISTANCE, "difference_pp"]].to_numpy())
    same_points(bars(axes), rows[[DISTANCE, "low_pp", DISTANCE, "high_pp"]].to_numpy())
    hollow = {line.get_label() for line in markers(axes) if line.get_markerfacecolor() == "white"}
    assert hollow == set(rows["edit"][rows["by_construction"]])
    assert bool(hollow) == (target == "patches:outliers" and task == "segmentation")


def test_colour_and_shape_say_whose_content(figure: Figure) -> None:
    drawn = {
        line.get_label(): (to_hex(line.get_color()).upper(), line.get_marker())
        for line in markers(panel(figure, "registers", "classification"))
    }
    assert drawn["registers interpolate:zero:0.5"] == (BLUE, "o")
    assert drawn["registers shuffle"] == drawn["registers other-class-shuffle"] == (VERMILION, "s")
    assert drawn["registers class-mean"] == drawn["registers same-class-shuffle"] == (GREEN, "D")
    for replacement in ("zero", "mean", "noise", "norm-matched"):
        assert drawn[f"registers {replacement}"] == (BLACK, "^")


def test_doses_lie_on_a_line_that_ends_at_the_whole_replacement(figure: Figure, whole: pd.DataFrame) -> None:
    rows = expected(whole, "registers", 12, "classification", "top1").set_index("replacement")
    lines = [line for line in panel(figure, "registers", "classification").get_lines() if len(line.get_xdata()) == 4]
    for other, line in zip(("zero", "mean"), lines, strict=True):
        names = [*(f"interpolate:{other}:{dose}" for dose in ("0.25", "0.5", "0.75")), other]
        np.testing.assert_array_equal(line.get_xydata(), rows.loc[names, [DISTANCE, "difference_pp"]].to_numpy())


def test_rank_correlation(figure: Figure, whole: pd.DataFrame) -> None:
    rows = expected(whole, "cls", 11, "segmentation", "miou")
    ranks = [rankdata(values) for values in (rows[DISTANCE], rows["difference_pp"].abs())]
    correlation = np.corrcoef(*ranks)[0, 1]
    title = panel(figure, "[CLS]", "segmentation").get_title()
    assert title.endswith(f"segmentation: Spearman {correlation:.2f}, 14 arms")
    # Two arms have no rank correlation to speak of.
    assert panel(figure, "outlier", "segmentation").get_title().endswith("\nsegmentation")


def test_names_do_not_overlap(figure: Figure) -> None:
    figure.draw_without_rendering()
    for axes in figure.axes:
        names = [text for text in axes.texts if text.get_text()]
        boxes = [text.get_window_extent() for text in names]
        assert {text.get_text() for text in names} == {
            line.get_label().partition(" ")[2].partition(",")[0]
            for line in markers(axes)
            if "interpolate" not in line.get_label()
        }
        for one, other in combinations(boxes, 2):
            assert not one.overlaps(other)
        frame = axes.get_window_extent()
        assert all(frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1) for box in boxes)


def test_arms_without_distance_are_named_not_drawn(figure: Figure) -> None:
    assert figure.get_supxlabel().replace("\n", " ").endswith("no distance: registers remove, registers knockout.")


def test_unknown_intervals_get_no_bar(frame: pd.DataFrame) -> None:
    chosen = frame[(frame["target"] == "registers") & (frame["task"] == "classification")].copy()
    chosen[["low_pp", "high_pp"]] = float("nan")
    (axes,) = draw(select_part(chosen)).axes
    assert len(points(axes)) == 14
    assert len(bars(axes)) == 0


def test_a_model_without_distances_of_a_target(frame: pd.DataFrame) -> None:
    frame.loc[frame["target"] != "registers", DISTANCE] = float("nan")
    figure = draw(select_part(frame[frame["task"] == "classification"]))
    assert [axes.get_title().split(",")[0] for axes in figure.axes] == ["registers"]
    assert figure.get_supxlabel().replace("\n", " ").endswith("all edits of cls, all edits of patches:outliers.")
    (key,) = figure.legends
    box = key.get_window_extent()
    assert figure.bbox.contains(box.x0, box.y0)
    assert figure.bbox.contains(box.x1, box.y1)
    frame[DISTANCE] = float("nan")
    with pytest.raises(MissingDataError, match="with a distance from natural tokens for tiny-reg"):
        draw(select_part(frame))


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_files(frame: pd.DataFrame, tmp_path: Path, ending: str) -> None:
    chosen = frame[frame["edit"].isin(["[CLS] zero, to 11", "[CLS] mean, to 11"]) & (frame["task"] == "segmentation")]
    for name in ("one", "two"):
        dose_and_plausibility(chosen, tmp_path / "new" / f"{name}{ending}", model="tiny-reg", dataset="shapes#val")
    one, two = (tmp_path / "new" / f"{name}{ending}" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    if ending == ".png":
        with Image.open(one) as drawn:
            assert drawn.size[0] > 900
            assert "Software" not in drawn.info
    else:
        assert b"Date" not in one.read_bytes()
