from __future__ import annotations

import numpy as np
import pytest

from analyses.inference import Arm, Design, compare, paired_difference
from cachetool.errors import DatasetError


def test_the_difference_is_that_of_the_comparison() -> None:
    rng = np.random.default_rng(0)
    intact = rng.random(300) < 0.8
    edited = intact & (rng.random(300) < 0.9)
    found = paired_difference(edited, intact, resamples=500, confidence=0.9, seed=4)
    columns = [np.stack([hits, np.ones(300)], axis=1).astype(float) for hits in (edited, intact)]
    expected = compare([Arm([columns[0]], columns[1])], Design.images(300), resamples=500, confidence=0.9, seed=4)[0]
    assert (found.estimate, found.low, found.high) == (expected.difference, expected.low, expected.high)
    assert found.estimate == pytest.approx(edited.mean() - intact.mean())
    assert found.images == 300
    assert not found.equivalent


def test_pairing_matters() -> None:
    """Two arms that fail on the same images differ by exactly nothing, however hard these are."""
    hits = np.random.default_rng(1).random(500) < 0.5
    found = paired_difference(hits, hits.copy())
    assert found.estimate == 0
    assert found.high == -found.low == pytest.approx(3 / 500, rel=0.01)  # the rule of three
    assert found.equivalent
    assert not paired_difference(hits[:20], hits[:20]).equivalent


def test_few_images_cannot_show_equivalence() -> None:
    rng = np.random.default_rng(2)
    intact = rng.random(100) < 0.7
    found = paired_difference(rng.permutation(intact), intact, resamples=2000)
    assert found.low < 0 < found.high
    assert not found.equivalent


def test_arms_of_different_images() -> None:
    with pytest.raises(DatasetError, match="on the same units"):
        paired_difference(np.ones(4), np.ones(5))
