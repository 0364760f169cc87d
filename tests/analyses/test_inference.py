from __future__ import annotations

import numpy as np
import pytest

from analyses.inference import paired_difference


def test_interval_of_a_known_difference() -> None:
    """Against the normal approximation of a mean, which holds for 4,000 images."""
    rng = np.random.default_rng(0)
    intact = rng.random(4000) < 0.8
    edited = intact & (rng.random(4000) < 0.9)
    found = paired_difference(edited, intact, resamples=4000)
    differences = edited.astype(float) - intact
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    assert found.estimate == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(differences.mean() + 1.96 * error, abs=0.1 * error)
    assert found.images == 4000
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
    edited = rng.permutation(intact)
    found = paired_difference(edited, intact, resamples=2000)
    assert found.low < 0 < found.high
    assert not found.equivalent
