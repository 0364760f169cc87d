from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analyses.tasks.keypoints import correct_keypoints, keypoints, score
from cachetool.datasets import KeypointPair

SIZE = (100, 60)


def pair(
    source: int, target: int, points: list[list[float]], box: tuple[float, float, float, float] | None
) -> KeypointPair:
    annotated = np.array(points, dtype=np.float64)
    return KeypointPair(source, target, annotated + 1, annotated, "cat", None, box, SIZE, SIZE)


def annotated() -> Any:
    pairs = (
        pair(0, 1, [[10, 10], [50, 20], [90, 30]], (0, 0, 80, 40)),
        pair(1, 2, [[20, 20]], None),
        pair(2, 0, [[30, 30], [40, 50]], (10, 10, 20, 50)),
    )
    return SimpleNamespace(pairs=pairs, image_ids=("a", "b", "c"))


def shifted(pairs: Any, shifts: list[list[tuple[float, float]]]) -> Any:
    """The annotated target points plus a shift each, padded."""
    predicted = keypoints(pairs, "target")
    for row, values in enumerate(shifts):
        predicted[row, : len(values)] += values
    return predicted


SHIFTS: list[list[tuple[float, float]]] = [
    [(8, 0), (0, 8.1), (3, 4)],  # the box is 80 wide: 8 is just correct at 0.1, 8.1 is not, 5 is
    [(6, 8)],  # without a box the image's 100 pixels count: 10 is just correct
    [(0, 3.9), (4.1, 0)],  # the box is 40 high
]


def test_hand_computed_percentage_of_correct_keypoints() -> None:
    annotations = annotated()
    outcomes = score(annotations, np.arange(3), shifted(annotations.pairs, SHIFTS), "box")
    assert outcomes.yardstick.values.tolist() == [80, 100, 40]
    assert outcomes.points.values.tolist() == [3, 1, 2]
    assert outcomes.error.values[0] == pytest.approx([8, 8.1, 5])
    assert np.isnan(outcomes.error.values[1, 1:]).all()
    assert outcomes.attrs["pairs_without_box"] == 1
    assert outcomes.source_id.values.tolist() == ["a", "b", "c"]
    assert outcomes.target.values.tolist() == [1, 2, 0]
    metrics = {metric.name: metric.value(outcomes) for metric in correct_keypoints("box")}
    assert metrics == pytest.approx(
        {
            "pck@0.1": (2 / 3 + 1 + 1 / 2) / 3,
            "pck@0.05": 0,
            "pck@0.15": 1,
            "pck@0.1 per point": 4 / 6,
            "pck@0.05 per point": 0,
            "pck@0.15 per point": 1,
        }
    )
    assert next(iter(metrics)) == "pck@0.1"


def test_yardstick_of_the_image() -> None:
    annotations = annotated()
    outcomes = score(annotations, np.arange(3), shifted(annotations.pairs, SHIFTS), "image")
    assert outcomes.yardstick.values.tolist() == [100, 100, 100]
    metrics = {metric.name: metric.value(outcomes) for metric in correct_keypoints("image")}
    assert metrics["pck@0.1 of image"] == 1
    assert metrics["pck@0.05 of image"] == pytest.approx((1 / 3 + 0 + 1) / 3)
    assert metrics["pck@0.05 of image per point"] == pytest.approx(3 / 6)


def test_points_that_cannot_be_carried_are_wrong_at_any_tolerance() -> None:
    annotations = annotated()
    predicted = keypoints(annotations.pairs, "target")
    predicted[0, 1] = np.nan
    transferable = np.ones(predicted.shape[:2], dtype=bool)
    transferable[2, 0] = False
    outcomes = score(annotations, np.arange(3), predicted, "box", transferable)
    assert np.isposinf(outcomes.error.values).tolist() == [
        [False, True, False],
        [False, False, False],
        [True, False, False],
    ]
    assert correct_keypoints("box")[0].value(outcomes) == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)


def test_a_selection_of_pairs_keeps_its_positions() -> None:
    annotations = annotated()
    chosen = np.array([2, 1])
    predicted = keypoints([annotations.pairs[index] for index in chosen], "target")
    outcomes = score(annotations, chosen, predicted, "box")
    assert outcomes.pair.values.tolist() == [2, 1]
    assert outcomes.sizes["point"] == 2
    assert outcomes.source_id.values.tolist() == ["c", "b"]
    assert correct_keypoints("box")[0].columns(outcomes).tolist() == [[1, 1], [1, 1]]
