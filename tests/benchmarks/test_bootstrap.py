"""How long the bootstrap of a family takes at the size of ImageNet's validation set."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from analyses.inference import Arm, Design, compare

IMAGES, RESAMPLES, ARMS = 50_000, 10_000, 20


def hits(rng: np.random.Generator, images: int, share: float) -> np.ndarray:
    return np.stack([rng.random(images) < share, np.ones(images)], axis=1).astype(float)


@pytest.mark.slow
def test_a_family_of_arms() -> None:
    """Arms share the weights, so that twenty cost less than a quarter of scipy's bootstrap of one arm after another."""
    rng = np.random.default_rng(0)
    intact = hits(rng, IMAGES, 0.7)
    arms = [Arm([hits(rng, IMAGES, 0.69)], intact) for _ in range(ARMS)]

    started = time.perf_counter()
    found = compare(arms, Design.images(IMAGES), binary=True, resamples=RESAMPLES)
    seconds = time.perf_counter() - started

    differences = arms[0].edited[0][:, 0] - intact[:, 0]
    tenth = RESAMPLES // 10  # scipy is measured on a tenth of the resamples
    started = time.perf_counter()
    oracle = stats.bootstrap(
        (differences,), np.mean, n_resamples=tenth, batch=100, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    of_scipy = 10 * (time.perf_counter() - started)

    print(
        f"\n{ARMS} arms of {IMAGES} images, {RESAMPLES} resamples: {seconds:.1f} s; "
        f"scipy.stats.bootstrap for one arm: {of_scipy:.1f} s, that is {seconds / of_scipy:.2f} times"
    )
    error = differences.std() / np.sqrt(IMAGES)
    assert (found[0].low, found[0].high) == pytest.approx(tuple(oracle), abs=0.3 * error)
    assert seconds < ARMS * of_scipy / 4


@pytest.mark.slow
def test_intersections_and_unions() -> None:
    """Twenty arms of mIoU: 150 classes, 2,000 images, so 300 columns of every arm beside 150 shared ones."""
    rng = np.random.default_rng(0)
    images, classes = 2000, 150
    annotated = rng.integers(1, 1000, size=(images, classes)) * (rng.random((images, classes)) < 0.1)

    def counts() -> np.ndarray:
        found = np.floor(annotated * rng.uniform(0.5, 1, size=annotated.shape))
        return np.concatenate([found, found + rng.integers(0, 50, size=annotated.shape), annotated], axis=1).astype(
            float
        )

    def mean_iou(sums: np.ndarray) -> np.ndarray:
        intersection, predicted, truth = np.split(sums, 3, axis=-1)
        return np.mean(intersection / (predicted + truth - intersection), axis=-1)

    intact = counts()
    arms = [Arm([counts()], intact) for _ in range(ARMS)]
    started = time.perf_counter()
    found = compare(arms, Design.images(images), combine=mean_iou, resamples=RESAMPLES)
    seconds = time.perf_counter() - started
    print(f"\n{ARMS} arms of mIoU ({images} images, {classes} classes), {RESAMPLES} resamples: {seconds:.1f} s")
    assert all(comparison.value_low < comparison.value < comparison.value_high for comparison in found)
    assert seconds < 120
