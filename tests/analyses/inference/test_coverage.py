"""Intervals hold what they promise: simulated samples whose true difference is known.

The samples of one test share a design, so they are arms of one family and one bootstrap serves them all.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analyses.inference import Arm, Comparison, Design, compare

QUICK = pytest.param(400, 800, id="quick")
THOROUGH = pytest.param(4000, 2000, id="thorough", marks=pytest.mark.slow)


def simulated(differences: np.ndarray, design: Design, resamples: int, confidence: float = 0.95) -> list[Comparison]:
    """Compare arms whose outcomes differ by (sample, unit) from an intact arm of one half everywhere."""
    ones = np.ones(design.units)
    intact = np.stack([ones / 2, ones], axis=1)
    assert np.abs(differences).max() <= 0.5
    arms = [Arm([np.stack([0.5 + difference, ones], axis=1)], intact) for difference in differences]
    return compare(arms, design, resamples=resamples, confidence=confidence)


def coverage(found: list[Comparison], truth: float) -> float:
    return float(np.mean([comparison.low <= truth <= comparison.high for comparison in found]))


def band(samples: int, level: float, slack: float = 0.0) -> tuple[float, float]:
    """Where the share of `samples` lies in 999 of 1,000 cases if the chance of each is `level`.

    `slack` lowers the lower end by what a percentile interval of a small sample is known to lack: it is narrower than
    the t interval by the factor sqrt((n - 1) / n) and by the normal instead of the t quantile.
    """
    low, high = stats.binom.interval(0.999, samples, level - slack)[0], stats.binom.interval(0.999, samples, level)[1]
    return low / samples, high / samples


def small_sample_slack(things: int, level: float = 0.95) -> float:
    quantile = stats.norm.ppf((1 + level) / 2) * np.sqrt((things - 1) / things)
    return float(level - (2 * stats.t.cdf(quantile, things - 1) - 1))


@pytest.mark.parametrize(("samples", "resamples"), [QUICK, THOROUGH])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_images(samples: int, resamples: int, level: float) -> None:
    """Sixty independent images with skewed differences of mean 0.02."""
    rng = np.random.default_rng(0)
    differences = rng.beta(2, 6, size=(samples, 60)) - 0.25 + 0.02
    found = simulated(differences.clip(-0.5, 0.5), Design.images(60), resamples, level)
    low, high = band(samples, level, slack=small_sample_slack(60, level))
    assert low <= coverage(found, 0.02) <= high


@pytest.mark.parametrize(("samples", "resamples"), [QUICK, THOROUGH])
def test_sequences(samples: int, resamples: int) -> None:
    """Fifty sequences of six images that nearly repeat each other; image by image the interval is far too narrow."""
    rng = np.random.default_rng(1)
    of_sequence = rng.uniform(-0.4, 0.4, size=(samples, 50)).repeat(6, axis=1)
    differences = of_sequence + rng.uniform(-0.1, 0.1, size=(samples, 300))
    low, high = band(samples, 0.95, slack=small_sample_slack(50))
    grouped = simulated(differences, Design.images(300, np.arange(50).repeat(6)), resamples)
    assert low <= coverage(grouped, 0) <= high
    assert coverage(simulated(differences, Design.images(300), resamples), 0) < 0.75


@pytest.mark.parametrize(("samples", "resamples"), [QUICK, THOROUGH])
def test_pairs_with_image_effects(samples: int, resamples: int) -> None:
    """Forty images, all 780 pairs: an image is easy or hard in every pair; pair by pair the interval is too narrow."""
    rng = np.random.default_rng(2)
    source, target = np.triu_indices(40, 1)
    of_image = rng.uniform(-0.2, 0.2, size=(samples, 40))
    differences = of_image[:, source] + of_image[:, target] + rng.uniform(-0.1, 0.1, size=(samples, 780))
    low, high = band(samples, 0.95, slack=small_sample_slack(40))
    assert low <= coverage(simulated(differences, Design.pairs(source, target), resamples), 0) <= high
    assert coverage(simulated(differences, Design.images(780), resamples), 0) < 0.6


@pytest.mark.parametrize(("samples", "resamples"), [QUICK, THOROUGH])
def test_pairs_without_image_effects(samples: int, resamples: int) -> None:
    """Where only pairs vary, products of weights are cautious: never too narrow, at most sqrt(3) times too wide."""
    rng = np.random.default_rng(3)
    source = np.arange(100).repeat(4)
    target = (source + np.tile([1, 3, 7, 20], 100)) % 100
    differences = rng.uniform(-0.5, 0.5, size=(samples, 400))
    found = simulated(differences, Design.pairs(source, target), resamples)
    assert coverage(found, 0) >= band(samples, 0.95)[0]
    width = np.mean([comparison.high - comparison.low for comparison in found])
    proper = 2 * 1.96 * differences.std() / np.sqrt(400)
    assert 1 < width / proper < np.sqrt(3) * 1.05


@pytest.mark.parametrize(("samples", "resamples"), [QUICK, THOROUGH])
def test_rare_losses_at_the_margin_seldom_pass_for_equivalence(samples: int, resamples: int) -> None:
    """The true loss is 1 pp: `equivalent` may be wrong in 2.5 % of samples, p_equivalence below 0.05 in 5 %."""
    rng = np.random.default_rng(4)
    losses = -0.5 * (rng.random((samples, 800)) < 0.02)
    found = simulated(losses, Design.images(800), resamples)
    assert np.mean([comparison.equivalent for comparison in found]) <= band(samples, 0.025)[1]
    assert np.mean([comparison.p_equivalence <= 0.05 for comparison in found]) <= band(samples, 0.05)[1]


@pytest.mark.parametrize(("samples", "resamples"), [QUICK, THOROUGH])
@pytest.mark.parametrize("share", [0.008, 0.3], ids=["few images differ", "many images differ"])
def test_p_values_without_an_effect(samples: int, resamples: int, share: float) -> None:
    """As many gains as losses: at most 5 % of samples fall below 0.05, and about as many where many images differ."""
    rng = np.random.default_rng(5)
    signs = rng.choice([-1, 0, 1], p=[share / 2, 1 - share, share / 2], size=(samples, 500))
    # Gains and losses of several sizes: of equal ones, many samples would have a difference of exactly 0 and p = 1.
    changes = signs * rng.uniform(0.2, 0.5, size=signs.shape)
    found = simulated(changes, Design.images(500), resamples)
    below = float(np.mean([comparison.p_value <= 0.05 for comparison in found]))
    low, high = band(samples, 0.05)
    assert below <= high
    if share > 0.1:
        assert below >= low
