from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from analyses.figures.style import draw_intervals, literal, replacement_styles, save, widen
from cachetool.errors import UnknownNameError
from tests.analyses.figures.artists import bars


def test_known_replacements_keep_their_look_and_others_differ() -> None:
    others = [f"other{index}" for index in range(40)]
    styles = replacement_styles(["shuffle", *others, "zero"])
    assert styles["zero"] == replacement_styles([])["zero"]
    assert len(set(styles.values())) == len(styles) == 47


def test_intervals_that_do_not_hold_their_estimate_are_drawn_as_they_are() -> None:
    axes = Figure().subplots()
    draw_intervals(axes, [1, 2, 3], [0.5, float("nan"), 4], [0.7, 1, 5], vertical=False, colour="k")
    assert bars(axes).tolist() == [[0.5, 1, 0.7, 1], [4, 3, 5, 3]]


def test_axes_show_two_points_either_way_at_least() -> None:
    axes = Figure().subplots()
    axes.set_ylim(-0.1, 5)
    widen(axes, vertical=True)
    assert axes.get_ylim() == (-2, 5)


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    for name in ("figure.docx", "figure"):
        with pytest.raises(UnknownNameError, match=r"its ending must be one of .*\.pdf, .*\.svg"):
            save(Figure(), tmp_path / "new" / name)
    assert not (tmp_path / "new").exists()


def test_names_with_dollars_are_no_formulas() -> None:
    figure = Figure()
    text = figure.text(0, 0, literal("$a^b$"))
    plain = figure.text(0, 0, "a^b")
    assert text.get_window_extent().width > plain.get_window_extent().width
