from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure

from analyses.figures.labels import place_labels


@pytest.mark.parametrize("seed", range(3))
def test_twenty_names_on_a_heap_of_points_keep_apart(seed: int) -> None:
    figure = Figure(figsize=(4.5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    rng = np.random.default_rng(seed)
    points = np.column_stack([10 ** rng.uniform(0, 0.8, 20), rng.normal(0, 0.3, 20)])
    axes.plot(*points.T, "o")
    axes.set(xlim=(0.1, 1000), ylim=(-5, 5))
    figure.draw_without_rendering()
    place_labels(axes, [f"name {index}" for index in range(20)], points, ["k"] * 20)
    names = [text for text in axes.texts if text.get_text()]
    assert {(text.get_text(), *text.xy) for text in names} == {
        (f"name {index}", *point) for index, point in enumerate(points)
    }
    boxes = [text.get_window_extent() for text in names]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    # Names that stand off have lines.
    assert len(axes.texts) > len(names)


def test_bars_and_lines_are_kept_clear_of() -> None:
    figure = Figure(figsize=(3, 3), dpi=100)
    axes = figure.subplots()
    axes.set(xlim=(-1, 1), ylim=(-1, 1))
    axes.axhline(0)
    figure.draw_without_rendering()
    place_labels(axes, ["a long name"], [[0, 0]], ["k"], bars=[[0, -0.9, 0.9]])
    box = axes.texts[0].get_window_extent()
    middle = axes.transData.transform((0, 0))
    assert box.x0 > middle[0] or box.x1 < middle[0]
    assert box.y0 > middle[1] or box.y1 < middle[1]


def test_no_names_draw_nothing() -> None:
    axes = Figure().subplots()
    place_labels(axes, [], np.empty((0, 2)), [])
    assert len(axes.texts) == 0
